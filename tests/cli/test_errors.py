"""What goes wrong ends with one clear message, what to do next, and the right exit status."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nex_async.cli import main
from nex_async.emulator import Emulator

from ..harness.canary import KEY, leaked
from ..harness.raw_server import RawServer, json_reply, read_request, send
from .running import at, lines, nex, run

TWO_LINES = re.compile(r"Error: .*\nHint: .*\n")
COMMAND = [sys.executable, "-W", "error", "-c", "from nex_async.cli import main; main(prog_name='nex-async')"]


def told(*arguments: str, status: int, env: dict[str, str] | None = None) -> str:
    """Run a command that fails, and return its two lines."""
    done = run(*arguments, status=status, env=env)
    assert TWO_LINES.fullmatch(done.stderr), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ({"kind": "status", "status": 401}, 3, "auth status"),
        ({"kind": "status", "status": 403}, 3, "scopes are fixed when it is made"),
        ({"kind": "status", "status": 503}, 1, "the server failed"),
        ({"kind": "status", "status": 502, "headers": {"Content-Type": "text/html"}}, 1, "the server failed"),
        ({"kind": "reset"}, 1, "nex-async doctor"),
        ({"kind": "stall"}, 1, "--timeout"),
    ],
)
async def test_each_failure_says_what_to_do(emulator: Emulator, fault: dict[str, object], status: int, said: str) -> None:
    """Two lines: what happened, and the next step; 3 is for the key, 1 for the rest."""
    emulator.faults.add(**fault, times=None)
    assert said in await asyncio.to_thread(told, "tasks", "list", "--timeout", "1", status=status, env=at(emulator))


def test_without_a_network() -> None:
    """A server that is not there is told with its address, and with the command that looks further."""
    env = {"NEX_API_KEY": KEY, "NEX_API_BASE_URL": "http://127.0.0.1:9"}
    assert "nex-async doctor" in told("tasks", "list", "--timeout", "2", status=1, env=env)


def test_without_a_key() -> None:
    """A command without a key says the three ways to one."""
    said = told("tasks", "list", status=3)
    assert all(way in said for way in ("auth login", "NEX_API_KEY", "--local"))


def test_a_setting_that_cannot_be_right() -> None:
    """A base URL that is none is a mistake of the command line's surroundings; a key that is none concerns the key."""
    told("tasks", "list", status=2, env={"NEX_API_KEY": KEY, "NEX_API_BASE_URL": "http://app.nex.ai"})
    told("tasks", "list", status=3, env={"NEX_API_KEY": "two words"})


@pytest.mark.parametrize(
    "command", [("records", "list", "persom"), ("objects", "get", "persom"), ("lists", "list", "Person")]
)
def test_a_wrong_slug_gets_the_nearest(command: tuple[str, ...]) -> None:
    """An object that does not exist is answered with the one that was meant, and with those there are."""
    done = nex(*command, status=1)
    assert "did you mean 'person'? objects here: person, company" in done.stderr
    assert TWO_LINES.fullmatch(done.stderr)


def test_a_wrong_command_gets_the_nearest() -> None:
    """So does a command."""
    assert "Did you mean 'records'?" in run("recods", status=2).stderr


async def test_a_row_that_cannot_be_read_costs_only_itself(emulator: Emulator) -> None:
    """The other rows are printed, the bad one is told, and the status says that a part is missing."""
    rows = [{"id": "1", "title": "a"}, {"id": "2", "title": [5]}, {"id": "3", "title": "c"}]
    async with RawServer([read_request, send(json_reply({"data": rows, "has_more": False}))]) as server:
        env = {"NEX_API_KEY": KEY, "NEX_API_BASE_URL": server.url}
        done = await asyncio.to_thread(run, "tasks", "list", status=4, env=env)
    assert [row["id"] for row in lines(done)] == ["1", "3"]
    assert "could not be read" in done.stderr


def test_untrusted_text_cannot_steer_the_terminal() -> None:
    """Escape sequences in what the server says are shown, not obeyed, in tables and in errors."""
    nex("tasks", "create", "\x1b[2Jgone\x1b]0;title\x07")
    shown = nex("tasks", "list", "-o", "table").stdout
    assert "\x1b" not in shown
    assert "\\x1b[2Jgone" in shown
    assert "\x1b" not in nex("records", "list", "\x1b[2Jx", status=2).stderr


def test_debug_shows_where_it_came_from() -> None:
    """With `--debug` the error itself is raised."""
    done = CliRunner().invoke(main, ["records", "list", "persn", "--local", "db", "--debug"])
    assert type(done.exception).__name__ == "NotFoundError"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_told() -> None:
    """Output that cannot be written ends with one message and status 1."""
    nex("tasks", "create", "x")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "tasks", "list", "--local", "db"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=50,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    """`nex-async ... | head -1` ends quietly."""
    rows = "".join(f'{{"name": "P {n}", "email_addresses": ["p{n}@x.io"]}}\n' for n in range(600))
    Path("people.jsonl").write_text(rows)
    nex("records", "import", "person", "people.jsonl", "--match-on", "email_addresses")
    shell = f"{subprocess.list2cmdline(COMMAND)} records list person --all --local db | head -1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


@pytest.mark.skipif(os.name != "posix", reason="signals")
async def test_ctrl_c_ends_with_130(emulator: Emulator) -> None:
    """Ctrl-C in the middle of a call ends it with one line and status 130, and nothing half-written."""
    emulator.faults.add(kind="stall", times=None)
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "tasks", "list", env={**os.environ, **at(emulator)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await emulator.requests.wait_for("listTasks", 1)
    process.send_signal(signal.SIGINT)
    output, errors = await asyncio.wait_for(process.communicate(), 25)
    process._transport.close()  # type: ignore[attr-defined]
    assert (process.returncode, output, errors) == (130, b"", b"Stopped.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("color", [True, False])
def test_on_a_terminal_a_table_is_drawn(color: bool) -> None:
    """With rich, people get a table as wide as their screen; `NO_COLOR` takes the colours away."""
    pytest.importorskip("rich")
    import pty

    nex("tasks", "create", "Call Ada")
    parent, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **({} if color else {"NO_COLOR": "1"})}
    process = subprocess.Popen([*COMMAND, "tasks", "list", "--local", "db"], stdout=child, stdin=child, env=env)
    os.close(child)
    output = b""
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        output += chunk
    os.close(parent)
    assert process.wait(30) == 0
    shown = output.decode()
    assert "Call Ada" in shown
    assert "───" in shown
    assert (re.search(r"\x1b\[[0-9;]*3\dm", shown) is None) or color


def test_the_help_of_every_command_is_there_and_light() -> None:
    """Each command explains itself without the HTTP library, msgspec or rich."""
    probe = (
        "import sys, click\nfrom nex_async.cli import main\n"
        "def walk(command, path):\n"
        "    with click.Context(command, info_name=path[-1]) as ctx:\n"
        "        text = command.get_help(ctx)\n"
        "        assert command.help and len(text) > 40, path\n"
        "        for name in command.list_commands(ctx) if isinstance(command, click.Group) else ():\n"
        "            walk(command.get_command(ctx, name), (*path, name))\n"
        "walk(main, ('nex-async',))\n"
        "print(sorted({'aiohttp', 'msgspec', 'rich', 'sqlite3', 'asyncio.base_events'} & set(sys.modules) - {'asyncio.base_events'}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", probe], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each shell gets a script that asks the command for its words."""
    script = run("completion", shell).stdout
    assert "_NEX_ASYNC_COMPLETE" in script
    words = subprocess.run(
        COMMAND, env={**os.environ, "_NEX_ASYNC_COMPLETE": "bash_complete", "COMP_WORDS": "nex-async rec", "COMP_CWORD": "1"},
        capture_output=True, text=True, timeout=30, check=False,
    ).stdout  # fmt: skip
    assert "records" in words


def test_no_message_shows_the_key() -> None:
    """A key that is refused before it is sent does not show."""
    done = CliRunner().invoke(main, ["tasks", "list"], env={"NEX_API_KEY": f"{KEY}\x01"})
    assert not leaked(done.output)
    assert done.exit_code == 3
