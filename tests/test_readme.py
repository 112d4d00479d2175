"""What the README and the examples show is run as it stands."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, get_args

import pytest

from nex_async import BulkOptions, InsightFeed, InsightStats, Nex, RequestOptions
from nex_async.bulk.report import Status
from nex_async.compat import EventSource
from nex_async.emulator import Emulator
from nex_async.emulator.faults import Kind
from nex_async.emulator.switches import CHOICES
from nex_async.feeds import events
from nex_async.feeds.feed import Overflow

from .harness.canary import KEY

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
FEEDS = (ROOT / "docs" / "feeds.md").read_text()
BULK = (ROOT / "docs" / "bulk.md").read_text()


def blocks_of(text: str) -> list[str]:
    """Return the Python that a page shows."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


BLOCKS = blocks_of((ROOT / "README.md").read_text())


def test_first_block_runs(tmp_path: Path) -> None:
    """The ten lines at the top of the README are a whole program."""
    program = tmp_path / "first.py"
    program.write_text(BLOCKS[0])
    done = subprocess.run([sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+ Ada Park\n", done.stdout)
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 10


async def test_tour_runs(emulator: Emulator, nex: Nex, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tour works on a workspace, and so do its tenants."""
    assert len(BLOCKS) == 4
    names: dict[str, object] = {}
    exec(compile(BLOCKS[1], "README.md", "exec", dont_inherit=True), names)  # as a reader would run it
    await names["tour"](nex)  # type: ignore[operator]
    monkeypatch.setenv("NEX_API_BASE_URL", emulator.url)
    await names["tenants"]([KEY, KEY])  # type: ignore[operator]


def test_quickstart_runs() -> None:
    """The first example runs to its end; those that are services have tests of their own."""
    command = [sys.executable, "-W", "error", ROOT / "examples" / "quickstart.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Ada Park" in done.stdout


def test_every_example_is_tested() -> None:
    """An example that nobody runs is no example: a test names each as a program, or as a module."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    examples = list((ROOT / "examples").glob("*.py"))
    assert len(examples) >= 10
    assert [path.name for path in examples if f'"{path.name}"' not in tests and f"examples.{path.stem}" not in tests] == []


def test_readme_names_the_two_commands() -> None:
    """The two commands that do all the set-up are in the README, and are sessions of nox."""
    readme, sessions = (ROOT / "README.md").read_text(), (ROOT / "noxfile.py").read_text()
    assert "pip install nox && nox -s demo" in readme
    assert "nox -s tests" in readme
    assert "def demo(" in sessions
    assert "def tests(" in sessions
    assert "nox -s tests" in (ROOT / ".ci" / "run").read_text()


async def test_emulator_page_runs() -> None:
    """What the page on the embedded Nex shows works as it stands."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "emulator.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "emulator.md", "exec", dont_inherit=True), names)  # as a reader would run it
    await names["inside_a_test"]()  # type: ignore[operator]


def test_emulator_page_names_every_switch_and_fault() -> None:
    """The page lists each switch with its values, and each kind of fault."""
    page = (ROOT / "docs" / "emulator.md").read_text()
    for name, values in CHOICES.items():
        assert f"| `{name}` | {', '.join(values)} |" in page
    for name in (*Emulator().switches, *get_args(Kind)):
        assert f"`{name}`" in page


# ---- the page on feeds and jobs -------------------------------------------------------------------------------------


def shown(name: str, text: str = FEEDS) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a function that a page shows, made of all its blocks as a reader would run them."""
    names: dict[str, Any] = {}
    for block in blocks_of(text):
        exec(compile(block, "page", "exec", dont_inherit=True), names)
    return names[name]  # type: ignore[no-any-return]


@contextlib.asynccontextmanager
async def playing(coroutine: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Run what a page shows and never ends, as long as this is open."""
    task = asyncio.ensure_future(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], T]) -> T:
    """Wait until a condition holds."""
    limit = asyncio.get_running_loop().time() + 25.0
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < limit, "it did not happen in time"
        await asyncio.sleep(0.01)
    return found


class Output:
    """What was printed so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.text = ""

    async def says(self, text: str) -> None:
        """Wait until it holds a text."""

        def holds() -> bool:
            self.text += self._capsys.readouterr().out
            return text in self.text

        await until(holds)


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Output:
    return Output(capsys)


async def test_the_readme_listens(nex: Nex, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's feed prints what comes, and goes on from its file."""
    monkeypatch.chdir(tmp_path)
    listen = shown("listen", f"```python\n{BLOCKS[2]}```")
    await nex.context.add_text("Ada Park <ada@x.io> asked for a demo.")
    for name in ("Bob", "Cem"):
        async with playing(listen(nex)):
            await output.says("opportunity Ada Park <ada@x.io> asked for a demo.\n")
            await nex.context.add_text(f"{name} signed.")
            await output.says(f"milestone {name} signed.\n")
    assert (tmp_path / "insights.db").exists()


async def test_the_page_listens(nex: Nex, output: Output) -> None:
    """The first block prints what is there, and what comes."""
    await nex.context.add_text("Ada Park <ada@x.io> asked for a demo.")
    async with playing(shown("listen")(nex)):
        await output.says("opportunity Ada Park <ada@x.io> asked for a demo.\n")
        await nex.context.add_text("Ada signed.")
        await output.says("live milestone Ada signed.\n")


async def test_the_page_keeps_a_checkpoint(nex: Nex, tmp_path: Path) -> None:
    """What was acknowledged does not come again; what came meanwhile does."""
    first: dict[str, str | None] = {}
    second: dict[str, str | None] = {}
    await nex.context.add_text("Ada signed.")
    async with playing(shown("keep")(nex, str(tmp_path / "insights.db"), first)):
        await until(lambda: first)
        await nex.context.add_text("Bob signed.")
        await until(lambda: len(first) == 2)
    await nex.context.add_text("Cem signed.")
    async with playing(shown("keep")(nex, str(tmp_path / "insights.db"), second)):
        await until(lambda: second)
    assert list(first.values()) == ["Ada signed.", "Bob signed."]
    assert list(second.values()) == ["Cem signed."]


async def test_the_page_shows_signals(emulator: Emulator, nex: Nex, output: Output) -> None:
    """The block on signals prints insights and signals."""
    async with playing(shown("attend")(nex)):
        await output.says("Connected(attempts=1)")
        await nex.context.add_text("Ada signed.")
        await output.says("Ada signed.\n")
        await emulator.restart()
        await output.says("Reconnecting(attempt=1")


async def test_the_page_has_two_readers(emulator: Emulator, nex: Nex, output: Output) -> None:
    """The block on queues gives each reader what it asks for."""
    async with playing(shown("two_readers")(nex)):
        await until(lambda: emulator.stream.listeners)
        await nex.context.add_text("Ada signed.")
        await nex.context.add_text("Bob is unhappy with the delay.")
        await output.says("all: Ada signed.\nrisk: Bob is unhappy with the delay.\n0 0\n")


async def test_the_page_handles(emulator: Emulator, nex: Nex) -> None:
    """The block on handlers handles what it asks for, and buries what it cannot handle."""
    seen: list[str] = []
    letters: list[tuple[str, Exception]] = []

    def work(text: str) -> None:
        if "Bob" in text:
            raise ValueError(text)
        seen.append(text)

    async with playing(shown("serve")(nex, work, letters)):
        await until(lambda: emulator.stream.listeners)
        await nex.context.add_text("Ada asked for a demo. Bob asked for a demo. Cem signed. Dan asked for a demo.")
        await until(lambda: len(seen) == 2 and letters)
    assert sorted(seen) == ["Ada asked for a demo.", "Dan asked for a demo."]
    assert str(letters[0][1]) == "Bob asked for a demo."


async def test_the_page_has_jobs(nex: Nex, output: Output) -> None:
    """The block on jobs waits, watches, waits for many, and attaches."""
    await nex.records.create("company", {"name": "Techflow", "description": "tech of all kinds"})
    await shown("jobs")(nex)
    await output.says("completed 1\n")
    states = r"(pending\n)?(processing\n)?completed\n1\n"
    assert re.fullmatch(rf"completed 1\n{states}(Artifact\(.*\n){{2}}(\d+ completed\n){{2}}completed\n", output.text)


async def test_the_page_reads_the_past(nex: Nex, output: Output) -> None:
    """The block on history lists what the last week brought."""
    await nex.context.add_text("Ada signed.")
    await shown("last_week")(nex)
    await output.says("milestone Ada signed.\n")


async def test_the_page_reads_any_stream(emulator: Emulator, nex: Nex, output: Output) -> None:
    """The block on the other interface reads the raw events of the stream."""
    await nex.context.add_text("Ada signed.")
    await shown("first_event")(f"{emulator.url}/v1/insights/stream", KEY)
    await output.says("insight.replay {")


def rows_of(*headings: str, text: str = FEEDS) -> list[str]:
    """Return the first cells of each table of a page whose heading begins so."""
    cells = []
    for heading in headings:
        (table,) = re.findall(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
        cells += re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    return cells


def test_the_page_names_everything_there_is() -> None:
    """The tables hold each signal, each reason, each figure and each policy, and none that does not exist."""
    signals = [getattr(events, name) for name in events.Signal.split(" | ")]
    assert re.findall(r"^\| `(\w+)` \| `(\w+)` \|", FEEDS, re.MULTILINE) == [(each.__name__, each.kind) for each in signals]
    assert sorted(rows_of("reason of a gap")) == sorted(f"`{reason}`" for reason in get_args(events.GapReason))
    reasons = get_args(events.DegradedReason)
    assert sorted(rows_of("reason of a degradation")) == sorted(f"`{reason}`" for reason in reasons)
    figures = re.findall(r"`(\w+)`", " ".join(rows_of("figure")))
    assert sorted(figures) == sorted(field.name for field in dataclasses.fields(InsightStats))
    policies = re.findall(r"`(\w+)`", " ".join(rows_of("`overflow=`")))
    assert policies == list(get_args(Overflow))
    assert set(re.findall(r'`"(\w+)"`', " ".join(rows_of("`on_error=`")))) == {"stop", "log"}


@pytest.mark.parametrize("documented", [InsightFeed, EventSource])
def test_the_page_promises_what_the_code_says(documented: type) -> None:
    """Every number of the feed's promise, and of what the other interface does, is on the page too."""
    text = InsightFeed.__doc__ if documented is InsightFeed else sys.modules[EventSource.__module__].__doc__
    numbers = set(re.findall(r"\b\d[\d ]*\d\b", text or ""))
    assert numbers
    assert numbers - set(re.findall(r"\b\d[\d ]*\d\b", FEEDS)) == set()


# ---- the page on many rows ------------------------------------------------------------------------------------------


async def test_the_readme_brings_rows_in_and_out(
    nex: Nex, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's block upserts what it is given, and exports it."""
    monkeypatch.chdir(tmp_path)
    people = [{"name": f"Person {n}", "email_addresses": [f"p{n}@x.io"]} for n in range(3)]
    await shown("nightly", f"```python\n{BLOCKS[3]}```")(nex, people)
    await output.says("upsert person: 3 rows: 3 created; 3 requests; ")
    assert output.text.endswith("rows/s\n3\n")
    assert (tmp_path / "people.csv").read_text().count("\n") == 4


async def test_the_bulk_page_runs(nex: Nex, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks bring rows in, tell each outcome, are resumable, send again what failed, show progress, and check."""
    monkeypatch.chdir(tmp_path)
    await shown("bring_in", BULK)(nex)
    await output.says("upsert company: 200 rows: 200 created; 200 requests; ")
    await shown("one_by_one", BULK)(nex)
    await output.says("\n200 0 ")
    assert len(re.findall(r"^\d+ (?:updated|created) \d+$", output.text, re.MULTILINE)) == 200
    rows = [{"name": "Acme", "domains": ["acme.example"]}]
    first, second = [await shown("nightly", BULK)(nex, rows) for _ in range(2)]
    assert (first.created, first.drift, first.ok) == (1, [], True)
    assert (second.unchanged, second.requests, second.ok) == (1, 0, True)

    await nex.records.upsert_many(
        "company", [*rows, {"domains": [7]}], match_on="domains", journal="companies.journal", force=True
    )
    await shown("again", BULK)(nex)
    await output.says("{'domains': [7]} BadRequestError ")
    await output.says("upsert company: 1 rows: 1 failed; 1 requests; ")
    await shown("watched", BULK)(nex)
    await output.says("\n200 0 ")
    await shown("careful", BULK)(nex)
    await output.says("""("'company' has no attribute 'nmae' (1 of 1 rows)",)\n200 0\n[]\n""")


async def test_the_bulk_page_names_every_status_and_option(nex: Nex) -> None:
    """Its tables hold each status of an outcome, each option and each method, and none that does not exist."""
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows_of("status", text=BULK)))) == sorted(get_args(Status))
    own = set(BulkOptions.__annotations__) - set(RequestOptions.__annotations__)
    assert sorted(rows_of("option", text=BULK)) == sorted(f"`{name}`" for name in own)
    methods = re.findall(r"`(\w+)\.(\w+)\(", " ".join(rows_of("method", text=BULK)))
    assert len(methods) == 6
    assert all(hasattr(getattr(nex, resource), name) for resource, name in methods)


def test_links_lead_somewhere() -> None:
    """Every file the pages link to is there."""
    for page in (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("bulk", "emulator", "feeds"))):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
