"""The command, run as a user runs it: in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-W", "error", "-c", "from nex_async.cli import main; main(prog_name='nex-async')"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=55, check=False)


def test_help_names_the_commands_without_loading_the_client() -> None:
    """`--help` lists what there is, and loads neither the HTTP library nor rich to do so."""
    done = run("--help")
    assert done.returncode == 0
    assert {"demo", "serve"} <= set(re.findall(r"^  (\w+)", done.stdout, re.MULTILINE))
    probe = "import sys; from nex_async.cli import main; main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=30, check=True).stdout
    assert "'click'" in loaded
    assert not {name for name in ("aiohttp", "msgspec", "rich") if f"'{name}'" in loaded}


def test_unknown_command_is_a_usage_error() -> None:
    """A command that does not exist ends with status 2 and says so."""
    done = run("dmeo")
    assert done.returncode == 2
    assert "dmeo" in done.stderr


@pytest.mark.parametrize("count", [60])
def test_demo_does_the_main_job(count: int) -> None:
    """The demo upserts companies, reads all back, loses no insight to a cut connection, and ends with its summary."""
    pytest.importorskip("pytickersymbols", reason="the demo extra is not installed")
    done = run("demo", "--companies", str(count))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{count} companies upserted as {count} records" in done.stdout
    assert f"{count} records read" in done.stdout
    for step in ("Schema", "Search", "Lists", "Link people", "Tasks and notes", "timeline", "What was done", "calls/s"):
        assert step in done.stdout
    assert re.search(r"live +opportunity +\w.* asked for a demo", done.stdout)
    assert re.search(r"lost +ConnectionLost.*lost +ServerError.*connected, at attempt 3", done.stdout, re.DOTALL)
    assert "1 lost connection; 6 came live, 6 by reading the list" in done.stdout
    assert "12 insights made, 12 received, none lost, none twice" in done.stdout
    assert re.search(r"AI list \w+: completed\n.*\n *Known insights: \[\w+\] ", done.stdout, re.DOTALL)
    assert re.search(r"\d+ companies on the list; an answer from \d+ records, \d+ insights", done.stdout)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_serve_prints_how_to_reach_it_and_stops_cleanly(name: str) -> None:
    """The server says its URL and the two lines of environment, and a signal ends it without a trace."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--key", "sk-cli-test"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(5)]
    process.send_signal(getattr(signal, name))
    output, errors = process.communicate(timeout=20)
    assert re.search(r"http://127\.0\.0\.1:\d+/api/developers", lines[0])
    assert any("export NEX_API_BASE_URL=http://127.0.0.1:" in line for line in lines)
    assert any("export NEX_API_KEY=sk-cli-test" in line for line in lines)
    assert (process.returncode, errors) == (0, "")
    assert "stopped" in output


def test_serve_refuses_a_port_in_use() -> None:
    """A port that is taken ends in one plain message."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert "Traceback" not in done.stderr
