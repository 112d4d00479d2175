"""The catalogue of faults (docs/faults.md) and the tests name the same rows; and rows that have no place elsewhere."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import nex_async
from nex_async import Nex
from nex_async.emulator import Emulator

from ..harness.canary import KEY
from ..harness.scripts import script

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    """The script that CI runs, as a module."""
    return script("check_faults")


def test_each_row_has_a_test_or_a_limit(checker: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """All 190 rows are held, and no test names one that is not there."""
    assert checker.main(["-q"]) == 0, capsys.readouterr().out
    assert "190 rows, 0 gaps" in capsys.readouterr().out


CATALOGUE = """
| id | what happens | what the client does |
|---|---|---|
| N1 | a | b |
| H13 | a | b |
| S6 | a | b |
| K2 | a | b |
| R1 | a | b |
| X6 | a | b |

## Limits

| id | why |
|---|---|
| X6 | c |
"""
TESTS = '''"""What a module says of itself names nothing: R1."""

TABLE = {"S6 no colon": 1}


def test_n01_refused():
    pass


async def test_of_another_name():
    """K2: killed."""


def test_h13_storm():
    pass
'''


@pytest.mark.parametrize(
    ("catalogue", "tests", "wrong"),
    [
        ("", "", ["R1 has neither a test nor a limit"]),
        ("", "def test_r01_cancelled(): ...", []),
        ("", f"def test_r01_x{77}(): ...", [f"X{77} is not in the catalogue: tests/test_it.py::test_r01_x{77}"]),
        ("| R1 | c |", "", []),
        ("| R1 | c |\n| R2 | c |", "", ["R2 is a limit of no row"]),
    ],
    ids=["gap", "test", "unknown", "limit", "limit_of_nothing"],
)
def test_a_gap_is_found(checker: ModuleType, tmp_path: Path, catalogue: str, tests: str, wrong: list[str]) -> None:
    """A row that nobody tests, a test of no row, a limit of no row: each is told."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(TESTS + tests)
    rows, limits = checker.catalogue(CATALOGUE + catalogue)
    assert checker.gaps(rows, limits, checker.named(tmp_path / "tests")) == wrong
    assert checker.gaps([*rows, "N1"], limits, checker.named(tmp_path / "tests")) == [
        "N1 stands twice in the catalogue",
        *wrong,
    ]


# ---- rows that have no place elsewhere ------------------------------------------------------------------------------


def _uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


def _eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.SelectorEventLoop()  # uvloop hands the factory of Python 3.13 an argument that it does not know
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        loop.close()
        pytest.skip("Python 3.12 brought eager tasks")
    loop.set_task_factory(factory)
    return loop


@pytest.mark.parametrize("make", [_uvloop, _eager], ids=["uvloop", "eager_tasks"])
def test_r10_other_loops_and_tasks(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Calls, a walk, a bulk run, a feed and a cancellation work on uvloop and with eager tasks."""

    async def main() -> None:
        async with Emulator(keys={KEY: None}) as emulator, Nex(KEY, base_url=emulator.url) as nex:
            rows = [{"name": f"C{n}", "domains": [f"c{n}.example"]} for n in range(20)]
            report = await nex.records.upsert_many("company", rows, match_on="domains")
            assert report.created == 20
            async with nex.records.list("company", limit=7).prefetch(2) as found:
                assert len([row async for row in found]) == 20
            async with nex.insights.stream() as feed:
                await nex.context.add_text("Ada of Acme is interested in a pilot.")
                assert (await feed.__anext__()).insight.content
            emulator.switches.set(latency=30)
            task = asyncio.ensure_future(nex.objects.list())
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            emulator.switches.set(latency=0)
            assert (await nex.objects.list()).items

    loop = make()
    try:
        loop.run_until_complete(main())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


_OPTIONAL = (
    "nex_async.cli",
    "nex_async.emulator",
    "nex_async.testing",
    "nex_async.__main__",
    "nex_async.bulk.formats.arrow",
    "nex_async.integrations.ray",
)


def _patterns() -> dict[str, re.Pattern[str] | re.Pattern[bytes]]:
    """Return every pattern that a module of the SDK keeps: not those of the command, the embedded Nex and the fixtures."""
    for module in pkgutil.walk_packages(nex_async.__path__, "nex_async."):
        if not module.name.startswith(_OPTIONAL):
            importlib.import_module(module.name)
    found = {}
    for name, held in list(sys.modules.items()):
        if name.startswith("nex_async.") and not name.startswith(_OPTIONAL):
            for each, value in vars(held).items():
                pattern = getattr(value, "__self__", value)  # some keep a pattern's method
                if isinstance(pattern, re.Pattern):
                    found[f"{name}.{each}"] = pattern
    return found


PIECES = [
    "a", " ", "<", ">", "<a ", "<script>", "&", "1", "-", "sk-", "sk-a", "Bearer ", "Bearer sk-", "\x1b[", "[0]", "=", ".", "a.",
    "\n", "é", "'", "1h", ".attributes.", "workspace_id=",
]  # fmt: skip
LENGTH = 10_000
"""Bytes: more than is ever kept of what a pattern looks through, but for what is searched for keys."""


def test_x25_no_text_makes_a_pattern_slow() -> None:
    """Whatever a server repeats a thousand times, each pattern of the SDK is through with it in no time."""
    patterns = _patterns()
    assert len(patterns) >= 15
    slow = []
    for name, pattern in patterns.items():
        for piece in PIECES:
            text = piece * (LENGTH // len(piece)) + "\0"
            hostile = text.encode() if isinstance(pattern.pattern, bytes) else text
            begun = time.process_time()
            if pattern.pattern[-2:] in (r"\Z", rb"\Z"):  # asked whether all of a text is so
                pattern.match(hostile)  # type: ignore[arg-type]
            else:
                pattern.sub(hostile[:0], hostile)  # type: ignore[arg-type]
            if time.process_time() - begun > 0.1:
                slow.append((name, piece))
    assert slow == []


def test_x31_the_floor_of_aiohttp_has_its_mends() -> None:
    """The package cannot be installed beside an aiohttp that resends bodies to other hosts or keeps cookies without bound."""
    floor = re.search(r'"aiohttp >= (\d+)\.(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert floor is not None
    assert tuple(map(int, floor.groups())) >= (3, 14, 4)
