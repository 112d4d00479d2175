"""`nex-async records import` and `nex-async records export`, on files of every kind, and ended in every way."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from click.testing import CliRunner, Result

from nex_async import Nex, Progress, StorageError
from nex_async.cli import main
from nex_async.cli.progress import drawn
from nex_async.cli.rowfile import RowFile
from nex_async.emulator import Emulator

from .harness.canary import KEY, leaked

pytestmark = pytest.mark.filterwarnings("error")

PEOPLE = [{"name": f"Person {n}", "email_addresses": [f"p{n}@x.io"]} for n in range(20)]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def nex(*arguments: str, status: int = 0) -> Result:
    """Run the command in this process, on the embedded Nex in the file `db`; return what it printed."""
    done = CliRunner().invoke(main, [*arguments, "--local", "db"])
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    assert not leaked(done.output)
    return done


def write(name: str, rows: list[Any]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def people(file: str, *arguments: str, status: int = 0) -> Result:
    return nex("records", "import", "person", file, "--match-on", "email_addresses", *arguments, status=status)


def written(output: str) -> int:
    """Return how many rows a report counts as written: which of them are new, times in whole seconds cannot always tell."""
    return sum(int(count) for count in re.findall(r"(\d+) (?:created|updated)", output))


def local(work: Callable[[Nex], Any], db: str = "db") -> Any:
    """Run something against the embedded Nex in a file."""

    async def run() -> Any:
        async with Nex.local(db) as client:
            return await work(client)

    return asyncio.run(run())


def stored(slug: str, db: str = "db") -> list[dict[str, Any]]:
    """Return the attributes of all records, those made first first."""

    async def read(client: Nex) -> list[dict[str, Any]]:
        return [record.attributes async for record in client.records.list(slug, sort="created_at")]

    return sorted(local(read, db), key=lambda row: row["name"])  # type: ignore[no-any-return]


# ---- import ---------------------------------------------------------------------------------------------------------


def test_rows_go_in_once() -> None:
    """Rows of JSON Lines become records; the same command again has nothing to do; another job of the same rows does."""
    write("people.jsonl", PEOPLE)
    assert re.match(r"upsert person: 20 rows: 20 created; 20 requests; ", people("people.jsonl").stdout)
    assert Path("people.jsonl.journal").exists()
    assert stored("person") == sorted(PEOPLE, key=lambda row: row["name"])
    assert "20 created (went on at row 20); 20 requests" in people("people.jsonl").stdout
    again = people("people.jsonl", "--job-id", "tuesday").stdout
    assert (written(again), "; 20 requests; " in again) == (20, True)
    people("people.jsonl", "--skip-unchanged")
    assert "20 unchanged; 0 requests" in people("people.jsonl", "--skip-unchanged").stdout


def test_creates_do_not_touch_what_is_there() -> None:
    """With `--create` a row becomes a new record; one whose unique value is taken fails, and the record stays as it was."""
    people(write("first.jsonl", PEOPLE[:1]))
    write("people.jsonl", [{**PEOPLE[0], "name": "Somebody else"}, PEOPLE[1]])
    done = people("people.jsonl", "--create", status=4)
    assert "create person: 2 rows: 1 created, 1 failed" in done.stdout
    assert [row["name"] for row in stored("person")] == ["Person 0", "Person 1"]


def test_a_dry_run_sends_nothing_and_leaves_no_trace() -> None:
    """A dry run checks every row; afterwards there is no record and no journal."""
    write("people.jsonl", [*PEOPLE, {"name": "nobody"}])
    done = people("people.jsonl", "--dry-run", "--job-id", "x", "--skip-unchanged", status=4)
    assert "20 valid, 1 failed; 0 requests" in done.stdout
    assert "row 21: the row has no value of 'email_addresses'" in done.stderr
    assert stored("person") == []
    assert not list(Path().glob("people.jsonl.*"))


def test_lines_that_hold_no_row_are_set_aside() -> None:
    """A damaged line costs itself: it is told with its number, kept as it was, and the others go in."""
    lines = [json.dumps(row) for row in PEOPLE]
    lines[3:3] = ['{"name": "torn', "", "[1]", '{"name": "\\ud800"}']
    Path("people.jsonl").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    done = people("people.jsonl", status=4)
    assert "23 rows: 20 created, 3 failed" in done.stdout
    assert "row 4: line 4 is no JSON: " in done.stderr
    assert "row 5: line 6 is no JSON object" in done.stderr
    assert "3 rows are in people.jsonl.journal.dead.jsonl; --retry-dead sends them again." in done.stderr
    assert json.loads(Path("people.jsonl.journal.dead.jsonl").read_text().splitlines()[0])["text"] == '{"name": "torn'


def test_dead_letters_go_in_once_the_cause_is_gone() -> None:
    """`--retry-dead` sends the rows that failed, and those only; when none is left it says so."""
    write("people.jsonl", [{**row, **({"tier": "gold"} if n == 7 else {})} for n, row in enumerate(PEOPLE)])
    assert "'person' has no attribute 'tier'" in people("people.jsonl", status=4).stderr
    local(lambda client: client.objects.create_attribute("person", "tier", "Tier", "text"))
    assert "1 rows: 1 created; 1 requests" in people("people.jsonl", "--retry-dead").stdout
    assert [row["name"] for row in stored("person") if "tier" in row] == ["Person 7"]
    assert "There are no dead letters" in people("people.jsonl", "--retry-dead").stdout


def test_a_table_is_read_by_the_types_of_its_attributes() -> None:
    """Cells become numbers, lists, objects or texts as their attribute wants; empty ones are left out; columns are renamed."""
    Path("companies.csv").write_text(
        "\ufeffName;domains;employee_count;location;Notes;\r\n"
        '"Acme; Inc";acme.io;12.0;"{""city"": ""Oslo""}";x;\r\n'
        '"[Bolt]";"[""bolt.io"", ""bolt.no""]";25;Paris;;\r\n'
        "\r\n"
        'Cog;cog.io;;"[1]";;\r\n',
        encoding="utf-8",
    )
    done = nex(
        "records",
        "import",
        "company",
        "companies.csv",
        "--match-on",
        "domains",
        "--map",
        "Name=name",
        "--map",
        "Notes=",
        "--verify",
    )
    assert "3 rows: 3 created" in done.stdout
    assert stored("company") == [
        {"name": "Acme; Inc", "domains": ["acme.io"], "employee_count": 12, "location": {"city": "Oslo"}},
        {"name": "Cog", "domains": ["cog.io"], "location": "[1]"},
        {"name": "[Bolt]", "domains": ["bolt.io", "bolt.no"], "employee_count": 25, "location": "Paris"},
    ]


def test_rows_that_are_no_rows_of_the_table_are_set_aside() -> None:
    """Too few or too many cells, stray quotes and bytes that are no UTF-8 cost their own row, with its line number."""
    good = [f"Person {n},p{n}@x.io,CEO\n".encode() for n in range(12)]
    bad = [b"Short,s@x.io\n", b"Long,l@x.io,a,b\n", b'"Q"x,q@x.io,a\n', b"Latin \xe9,e@x.io,a\n"]
    Path("people.csv").write_bytes(b"".join([b"name,email_addresses,job_title\n", *bad, *good]))
    done = people("people.csv", status=4)
    assert "16 rows: 12 created, 4 failed" in done.stdout
    for said in (
        "line 2 has 2 cells, and the first line 3",
        "line 3 has 4 cells",
        "line 4 is no row",
        "line 5: the cell of 'name'",
    ):
        assert said in done.stderr


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("Name,email_addresses\nAda,a@x.io\n", (), "'person' has no attribute 'Name' (1 of 1 rows)"),
        ("name,name,email_addresses\nAda,Ada,a@x.io\n", (), "two columns for 'name'"),
        ("name,email_addresses\nAda,a@x.io\n", ("--map", "Nmae=name"), "no column 'Nmae'; there are name, email_addresses"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(text: str, options: tuple[str, ...], said: str) -> None:
    """Columns that are no attributes, that come twice, or that are not there to be renamed, end it before anything is sent."""
    Path("people.csv").write_text(text)
    done = CliRunner().invoke(
        main, ["records", "import", "person", "people.csv", "--match-on", "email_addresses", "--local", "db", *options]
    )
    assert done.exit_code in (1, 2)
    assert said in done.stderr
    assert re.fullmatch(r"Error: .*\nHint: .*\n", done.stderr)
    assert stored("person") == []


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_of_several_parts(suffix: str) -> None:
    """gzip members and zstd frames in a row are one file; cut off, what came before goes in, and the rest is told as an error."""
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    halves = ["".join(json.dumps(row) + "\n" for row in part).encode() for part in (PEOPLE[:10], PEOPLE[10:])]
    packed = b"".join(map(pack, halves))
    Path(f"people.jsonl{suffix}").write_bytes(packed)
    assert "20 rows: 20 created" in people(f"people.jsonl{suffix}").stdout
    Path(f"cut.jsonl{suffix}").write_bytes(packed[:-4])
    done = people(f"cut.jsonl{suffix}", status=1)
    assert ", not finished; " in done.stdout
    assert written(done.stdout) in (10, 20)
    assert f"Error: cannot read 'cut.jsonl{suffix}': " in done.stderr


async def test_a_file_is_read_a_little_at_a_time() -> None:
    """Whoever takes one row of many has read a few hundred; the file can be read again, and a line without end is cut."""
    Path("many.jsonl").write_text('{"n": 1}\n' * 50_000 + '{"long": "' + "x" * (9 << 20) + '"}\n{"n": 2}\n')
    file = RowFile("many.jsonl")
    parsed = 0
    original = file._row

    def counted(number: int, raw: Any) -> Any:
        nonlocal parsed
        parsed += 1
        return original(number, raw)

    file._row = counted
    rows = aiter(file)
    assert await anext(rows) == {"n": 1}
    await rows.aclose()  # type: ignore[attr-defined]
    assert parsed <= 256
    *_, long, last = [row async for row in file]
    assert (parsed, last) == (parsed, {"n": 2})
    assert "longer than" in long._problem
    assert len(repr(long)) < 5_000
    assert await file.count() == 50_002


async def test_a_file_that_is_gone_is_an_error_of_storage() -> None:
    """A file that cannot be opened raises `StorageError`, and has no count."""
    file = RowFile("gone.csv.gz")
    assert await file.count() is None
    with pytest.raises(StorageError, match=r"cannot read 'gone\.csv\.gz'"):
        await anext(aiter(file))


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("records", "import", "person", "gone.jsonl", "--match-on", "name"), 2, "there is no file 'gone.jsonl'"),
        (("records", "import", "person", "people.txt", "--match-on", "name"), 2, "must end in .jsonl"),
        (("records", "import", "person", "people.jsonl"), 2, "--match-on"),
        (("records", "import", "person", "people.jsonl", "--match-on", "name", "--map", "x"), 2, "is not COLUMN=SLUG"),
        (("records", "import", "person", "people.jsonl", "--match-on", "name", "--retry-dead", "--dry-run"), 2, "choose one"),
        (("records", "import", "persn", "people.jsonl", "--match-on", "name"), 1, "'persn' not found"),
        (("records", "import", "person", "people.jsonl", "--match-on", "mail"), 1, "no attribute 'mail' to match on"),
        (("records", "import", "person", "people.jsonl", "--match-on", "email_addresses", "--max-dead", "0"), 1, "rows failed"),
        (("records", "export", "person", "people.xyz"), 2, "format= is needed"),
        (("records", "export", "person", "p.csv", "--parent", "person"), 2, "No such option"),
        (("records", "export", "persn", "p.csv"), 1, "'persn' not found"),
    ],
)  # fmt: skip
def test_mistakes_end_in_two_lines_and_the_right_status(arguments: tuple[str, ...], status: int, said: str) -> None:
    """What cannot be done is told without a traceback: 2 for the command line, 1 for the rest."""
    write("people.jsonl", [*PEOPLE, {"name": "nobody"}])
    Path("people.txt").touch()
    assert said in nex(*arguments, status=status).stderr


def test_a_journal_of_other_rows_says_what_to_do() -> None:
    """Rows that are not the journal's are refused with the option that begins anew, by the name it has here."""
    people(write("people.jsonl", PEOPLE))
    write("people.jsonl", [{**row, "name": "New"} for row in PEOPLE])
    told = people("people.jsonl", status=1).stderr
    assert ("--no-resume begins anew" in told, "force=True" in told) == (True, False)
    write("people.jsonl", PEOPLE[1:])
    done = people("people.jsonl", status=1)
    assert "--no-resume begins anew" in done.stderr
    again = people("people.jsonl", "--no-resume").stdout
    assert (written(again), "; 19 requests; " in again) == (19, True)


def test_a_refused_key_is_two_lines_that_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, or with one that cannot be right, it is told in two lines; `--debug` shows where it came from."""
    arguments = ["records", "import", "person", write("people.jsonl", PEOPLE), "--match-on", "email_addresses"]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stderr.count("\n")) == (3, 2)
    assert "no API key" in done.stderr
    monkeypatch.setenv("NEX_API_KEY", f"{KEY}\n{KEY}")
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stderr.count("\n"), leaked(done.output)) == (3, 2, False)
    done = CliRunner().invoke(main, [*arguments, "--debug"])
    assert type(done.exception).__name__ == "ConfigError"


# ---- export ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["people.jsonl.gz", "people.csv"])
def test_what_was_exported_can_be_imported(name: str) -> None:
    """A file of an export is a file to import: the other workspace then holds the same values."""
    rows = [{**row, "location": {"city": "Oslo"}, "job_title": '"C, E" O'} for row in PEOPLE]
    people(write("people.jsonl", rows))
    assert "export person: 20 rows, " in nex("records", "export", "person", name).stdout
    command = ["records", "import", "person", name, "--match-on", "email_addresses", "--verify", "--local", "other"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert stored("person", "other") == stored("person") != []


def test_an_export_takes_what_it_is_asked_for() -> None:
    """Attributes are chosen, the order too, and a list is exported by its id."""
    people(write("people.jsonl", PEOPLE))
    nex(
        "records",
        "export",
        "person",
        "p.csv",
        "--attributes",
        "name,job_title",
        "--sort",
        "-name",
        "--window",
        "2",
        "--no-resume",
    )
    head, first, *_ = Path("p.csv").read_text().splitlines()
    assert head.endswith(",updated_at,name,job_title,_extra")
    assert "Person 9" in first

    async def listed(client: Nex) -> str:
        made = await client.lists.create("person", "friends", "Friends")
        async for record in client.records.list("person"):
            if record.text("name") in ("Person 3", "Person 4"):
                await client.lists.upsert_member(made.id, record.id)
        return made.id

    done = nex("lists", "export", local(listed), "friends.csv", "--parent", "person")
    assert ": 2 rows, " in done.stdout
    assert sorted(re.findall(r"Person \d", Path("friends.csv").read_text())) == ["Person 3", "Person 4"]


# ---- Ctrl-C ---------------------------------------------------------------------------------------------------------


async def started(emulator: Emulator, *arguments: str) -> asyncio.subprocess.Process:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEX_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", "from nex_async.cli import main; main(prog_name='nex-async')", *arguments),
        env={**inherited, "NEX_API_KEY": KEY, "NEX_API_BASE_URL": emulator.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def over(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    output, told = await asyncio.wait_for(process.communicate(), 25)
    process._transport.close()  # type: ignore[attr-defined]
    assert "Traceback" not in told.decode()
    assert not leaked((output + told).decode())
    return process.returncode, output.decode(), told.decode()


@pytest.mark.skipif(os.name != "posix", reason="signals")
async def test_ctrl_c_ends_in_good_order(emulator: Emulator) -> None:
    """One Ctrl-C finishes what is on its way and says how to go on; the next run sends the rest, and nothing twice."""
    rows = [{"name": f"P {n}", "email_addresses": [f"p{n}@x.io"]} for n in range(120)]
    command = (
        "records",
        "import",
        "person",
        write("people.jsonl", rows),
        "--match-on",
        "email_addresses",
        "--concurrency",
        "2",
    )
    emulator.switches.set(latency=0.005)
    process = await started(emulator, *command)
    await emulator.requests.wait_for("upsertRecord", 20)
    process.send_signal(signal.SIGINT)
    status, output, told = await over(process)
    assert status == 130
    assert "not finished" in output
    assert told.endswith("Stopped. The same command goes on from here.\n")
    emulator.switches.set(latency=0)
    status, output, told = await over(await started(emulator, *command))
    assert (status, told) == (0, "")
    assert "120 rows: 120 created (went on at row " in output
    assert emulator.requests.count("upsertRecord") == 120


@pytest.mark.skipif(os.name != "posix", reason="signals")
async def test_a_second_ctrl_c_does_not_wait(emulator: Emulator) -> None:
    """Two of them end it at once, though the server does not answer."""
    command = ("records", "import", "person", write("people.jsonl", PEOPLE), "--match-on", "email_addresses")
    emulator.faults.add(kind="stall", route="upsertRecord", times=None)
    process = await started(emulator, *command)
    await emulator.requests.wait_for("upsertRecord", 1)
    clock = asyncio.get_running_loop().time
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert (await process.stderr.readline()).startswith(b"Stopping")
    began = clock()
    process.send_signal(signal.SIGINT)
    status, _, _ = await over(process)
    assert (status, clock() - began < 3.0) == (130, True)


# ---- progress -------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stderr that says it is a terminal, or that it is none."""

    def __init__(self, *, watched: bool) -> None:
        super().__init__()
        self._watched = watched

    def isatty(self) -> bool:
        return self._watched


AT = Progress("upsert person", done=120, failed=0, total=8000, elapsed=1.0, rate=10.0, eta=788.0)


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every five seconds one line: rows, rate, time to go, failures, and what holds it up."""
    screen = Terminal(watched=False)
    monkeypatch.setattr(sys, "stderr", screen)
    with drawn() as draw:
        for second in range(1, 13):
            note = "the server asks for fewer requests" if second == 10 else ""
            draw(replace(AT, elapsed=float(second), failed=second // 10, note=note))
        draw(replace(AT, name="export person", elapsed=5.0, total=None, eta=None))
        draw(replace(AT, name="export person", elapsed=11.0, eta=3600.0 * 2.5))
    assert screen.getvalue().splitlines() == [
        "upsert person: 120 of 8000 rows, 10/s, 13 min 8 s to go",
        "upsert person: 120 of 8000 rows, 10/s, 13 min 8 s to go, 1 failed, the server asks for fewer requests",
        "export person: 120 rows, 10/s",
        "export person: 120 of 8000 rows, 10/s, 2 h 30 min to go",
    ]


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """With rich, a bar shows how far it is, and vanishes at the end."""
    pytest.importorskip("rich")
    screen = Terminal(watched=True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with drawn() as draw:
        draw(AT)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "upsert person" in shown
    assert "120/8000" in shown
    assert "10/s, 13 min 8 s to go" in shown
    assert screen.getvalue().endswith("\x1b[2K") or "\x1b[1A" in screen.getvalue()


def test_help_needs_neither_the_client_nor_rich() -> None:
    """The help of both commands is there without the HTTP library, msgspec or rich."""
    import subprocess

    probe = (
        "import sys\nfrom nex_async.cli import main\n"
        "for name in ('import', 'export'):\n    main(['records', name, '--help'], standalone_mode=False)\nprint(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=30, check=True)
    assert "--match-on" in done.stdout
    assert not {name for name in ("aiohttp", "msgspec", "rich", "sqlite3") if f"'{name}'" in done.stdout}
