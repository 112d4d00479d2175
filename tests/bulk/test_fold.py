"""What must hold over random rows, faults and kills: the final state is the fold of the rows, and creates happen once."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nex_async.bulk import journal as journal_module
from nex_async.bulk.letters import dead_letters
from nex_async.errors import NexError
from tests.harness.virtual import VirtualWire, run_virtual, virtual_client
from tests.simulation.inline_database import InlineDatabase

from .virtual_world import FAULTS, LATE, Kind, Memory, rows_of_keys

_NOW_OR_NEVER: tuple[Kind, ...] = tuple(kind for kind in FAULTS if kind not in ("zombie", "gateway", "timeout"))

_KEY = st.sampled_from("abcd")
_KEYS = st.lists(st.one_of(_KEY, st.lists(_KEY, min_size=1, max_size=3, unique=True)), min_size=1, max_size=25)


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals without threads, and no waiting for the disk."""
    monkeypatch.setattr(journal_module, "Database", InlineDatabase)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@settings(max_examples=40, deadline=None)
@given(keys=_KEYS, seed=st.integers(0, 1 << 30), refused=st.sets(st.integers(0, 24), max_size=3), workers=st.integers(1, 6))
def test_the_final_state_is_the_fold_of_the_rows(keys: list[Any], seed: int, refused: set[int], workers: int) -> None:
    """K10, K11: with repeated and overlapping keys and any fault, rows of a key act in order, one at a time, to the same end."""
    rows = rows_of_keys(keys)
    memory = Memory(random.Random(seed))
    memory.refused = refused

    async def main() -> Any:
        async with virtual_client(VirtualWire(memory)) as nex:
            run = nex.records.upsert_many(
                "thing", rows, match_on="key", concurrency=workers, quarantine=LATE, retries=30, max_dead=50
            )
            report = await run
            await asyncio.sleep(2 * LATE)
            return report

    report = run_virtual(main())
    assert (report.finished, report.rows) == (True, len(rows))
    dead = {outcome.index for outcome in report.failures}
    assert dead == {n for n in refused if n < len(rows)}
    fold: dict[str, int] = {}
    for n, key in enumerate(keys):
        if n not in dead:
            fold.update(dict.fromkeys(key if isinstance(key, list) else [key], n))
    assert memory.records == fold
    assert not memory.overlaps
    for versions in memory.applied.values():
        newest = [max(versions[: at + 1]) for at in range(len(versions))]
        assert versions == newest, f"an older version acted after a newer one: {versions}"


@settings(max_examples=15, deadline=None)
@given(keys=_KEYS, seed=st.integers(0, 1 << 30), home=st.uuids())
def test_the_fold_survives_kills(keys: list[Any], seed: int, home: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """K10, K12: the same over a run that is killed again and again: what may still act late holds its key over a kill too."""
    rows, draw = rows_of_keys(keys), random.Random(seed)
    memory = Memory(draw)
    path = str(tmp_path_factory.getbasetemp() / f"{home}.db")
    report = run_virtual(_through_kills(memory, draw, path, rows, 4, "upsert", quarantine=LATE, retries=60))
    assert report.rows == len(rows)
    assert not report.failed
    assert memory.records == {key: n for n, one in enumerate(keys) for key in (one if isinstance(one, list) else [one])}


async def _through_kills(
    memory: Memory, draw: random.Random, path: str, rows: list[dict[str, Any]], kills: int, verb: str, **options: Any
) -> Any:
    """Run to the end, killed so many times at random instants; return the last report."""
    try:
        for life in range(kills + 1):
            nex = virtual_client(VirtualWire(memory))
            start = getattr(nex.records, f"{verb}_many")
            options = {"match_on": "key", "concurrency": 5, "max_dead": len(rows), **options}
            run = start("thing", rows, journal=path, **options)
            whole = asyncio.ensure_future(run._whole())
            if life == kills:
                report = await whole
                await nex.aclose()
                await asyncio.sleep(2 * LATE)
                return report
            await asyncio.wait([whole], timeout=draw.uniform(0.0, 3.0))
            InlineDatabase.crash(path)
            run.abort()
            await asyncio.gather(whole, return_exceptions=True)
            await nex.aclose()
    finally:
        InlineDatabase.forget(path)


@pytest.mark.parametrize("may_be_unknown", [False, True])
def test_nothing_is_created_twice(tmp_path: Path, may_be_unknown: bool) -> None:
    """K21: over 2 400 creates with random faults and kills, none acts twice by our doing; what cannot be told is listed."""
    unknown = 0
    for seed in range(12):
        draw = random.Random(seed)
        # A create that acts late cannot be told from one that never will: an upsert after it would be a second one.
        memory = Memory(draw, FAULTS if may_be_unknown else _NOW_OR_NEVER, faulty=0.25)
        memory.refused = {5, 17}
        rows = rows_of_keys([f"k{n}" for n in range(100)])
        path = str(tmp_path / f"{seed}.db")
        options = {"match_on": None, "allow_unknown_outcomes": True} if may_be_unknown else {"retries": 60}
        report = run_virtual(_through_kills(memory, draw, path, rows, 4, "create", quarantine=LATE, **options))
        assert report.rows == 100
        letters = {letter.seq: letter for letter in dead_letters(path + ".dead.jsonl")}
        assert {n for n, letter in letters.items() if letter.outcome == "failed"} >= {5, 17} - {
            n for n, letter in letters.items() if letter.outcome == "unknown"
        }
        for n, row in enumerate(rows):
            times = memory.created[row["key"]]
            if n not in letters:
                assert times == 1, f"row {n} is said to be created, and was {times} times: {memory.methods[n]}"
            else:
                assert times <= 1, f"row {n} was created {times} times: {memory.methods[n]}"
                assert letters[n].outcome == "unknown" or n in memory.refused
        assert report.unknown == sum(letter.outcome == "unknown" for letter in letters.values())
        unknown += report.unknown
        if not may_be_unknown:
            assert report.unknown == 0
            assert letters.keys() == {5, 17}
    assert bool(unknown) is may_be_unknown


@pytest.mark.parametrize("error", [None, NexError])
def test_a_create_that_was_stopped_before_it_left_is_not_unknown(tmp_path: Path, error: Any) -> None:
    """A run that ends in good order while creates wait for a 429 to pass knows that they did not act."""
    memory = Memory(random.Random(1), ("throttled",), faulty=1.0)
    path = str(tmp_path / "run.db")
    rows = rows_of_keys([f"k{n}" for n in range(20)])

    async def main() -> Any:
        async with virtual_client(VirtualWire(memory)) as nex:
            options: Any = {"allow_unknown_outcomes": True, "journal": path, "concurrency": 4}
            run = nex.records.create_many("thing", rows, **options)
            async with run:
                await asyncio.sleep(3.0)
            memory.faulty = 0.0
            return await nex.records.create_many("thing", rows, **options)

    try:
        report = run_virtual(main())
    finally:
        InlineDatabase.forget(path)
    assert (report.created, report.unknown, report.rows) == (20, 0, 20)
    assert all(times == 1 for times in memory.created.values())
