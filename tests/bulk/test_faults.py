"""Faults of bulk runs, row by row of the catalogue: the journal's file, the rows, the server, the process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import random
import shutil
import signal
import sqlite3
import sys
import textwrap
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nex_async import Nex, storage
from nex_async.bulk.letters import dead_letters
from nex_async.bulk.progress import Progress
from nex_async.errors import (
    BadRequestError,
    BulkStalled,
    CheckpointError,
    InvalidRequestError,
    SourceChanged,
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageLocked,
    TooManyDeadLetters,
)
from tests.harness.bulk_world import OK, Fault, Hit, World, drop, late, refuse, status, throttle, zombie
from tests.harness.canary import KEY, leaked

from .runs import serving, things, upsert


def letters_of(path: Path) -> list[int]:
    return [letter.seq for letter in dead_letters(path)]


class Stop(Exception):
    """What a source raises."""


def ending_at(count: int, total: int = 10_000) -> Iterator[dict[str, Any]]:
    """Rows of a source that fails after so many."""
    for row in things(total):
        if row["n"] == count:
            raise Stop
        yield row


# ---- the journal ------------------------------------------------------------------------------------------------------------


async def test_a_journal_that_forgot_its_last_commits_only_sends_again(tmp_path: Path) -> None:
    """K3: whatever moment the files of a journal come from, a run over them sends again and never takes undone for done."""
    journal, copies = tmp_path / "run.db", []

    def copy(hit: Hit) -> None:
        if hit.number % 60 == 0 and journal.exists():
            home = tmp_path / f"copy{hit.number}"
            home.mkdir()
            for file in tmp_path.glob("run.db*"):
                shutil.copy(file, home / file.name)
            copies.append((home, {one.version for applied in world.applied.values() for one in applied} | {hit.version}))

    async with serving() as (world, nex):
        world.on_hit = copy
        assert (await upsert(nex, things(400), journal=journal)).finished
        world.on_hit = None
        assert len(copies) >= 5
        for home, applied in copies:
            world.hits.clear()
            report = await upsert(nex, things(400), journal=home / "run.db")
            again = {hit.version for hit in world.hits}
            assert report.finished
            assert report.rows == 400
            assert again | applied == set(range(400)), "a row was taken for done that was not"


async def test_a_full_disk_ends_a_run_that_then_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """K4: a journal that cannot grow raises StorageFull and no row is lost; with room again the same call goes on."""
    connect = storage._connect

    def small(path: str, synchronous: storage.Synchronous) -> sqlite3.Connection:
        connection = connect(path, synchronous)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {max(pages, 1) + 6}")
        return connection

    journal, fails = tmp_path / "run.db", random.Random(3)
    async with serving(lambda hit: status(503, effect=True) if fails.random() < 0.2 else OK) as (world, nex):
        with monkeypatch.context() as patch:
            patch.setattr(storage, "_connect", small)
            with pytest.raises(StorageFull):
                await asyncio.wait_for(upsert(nex, things(1200), journal=journal, skip_unchanged=True), 20)
        assert 0 < len(world.records) < 1200
        report = await upsert(nex, things(1200), journal=journal, skip_unchanged=True)
        assert (report.rows, report.finished, report.failed) == (1200, True, 0)
    assert set(world.records) == {row["key"] for row in things(1200)}


async def test_a_journal_that_breaks_ends_the_run_whatever_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K4: rows that wait until their failure is written do not wait for ever when the journal breaks under them."""
    from nex_async.bulk.journal import Journal

    write, wrote = Journal._write, 0

    def breaking(self: Journal, connection: sqlite3.Connection, entry: Any) -> None:
        nonlocal wrote
        wrote += 1
        if wrote > 2:
            raise OSError(errno.EIO, "broken")
        write(self, connection, entry)

    monkeypatch.setattr(Journal, "_write", breaking)
    async with serving(lambda hit: status(503) if hit.sends == 1 else OK) as (_, nex):
        with pytest.raises(OSError, match="broken"):
            await asyncio.wait_for(upsert(nex, things(300), journal=tmp_path / "run.db", concurrency=16), 10)


def _with_flipped_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : 4096 + 512] = bytes(byte ^ 0xFF for byte in content[4096 : 4096 + 512])
    content[100:140] = b"\xff" * 40
    path.write_bytes(content)


def _with_another_version(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _of_another_application(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 7")
        connection.execute("CREATE TABLE t (x)")


def _no_database(path: Path) -> None:
    path.write_bytes(b"dear diary, today I was no database at all " * 200)


@pytest.mark.parametrize(
    ("spoil", "error", "hint"),
    [
        (_with_flipped_bytes, StorageCorrupt, "delete the journal"),
        (_with_another_version, CheckpointError, "version 99"),
        (_of_another_application, CheckpointError, "no journal"),
        (_no_database, StorageCorrupt, "delete the journal"),
    ],
)
async def test_a_spoilt_journal_is_refused_with_the_way_out(
    tmp_path: Path, spoil: Callable[[Path], None], error: type[Exception], hint: str
) -> None:
    """K5: a corrupt journal, one of another version and a foreign database are refused before a request, and say what to do."""
    journal = tmp_path / "run.db"
    async with serving() as (world, nex):
        with pytest.raises(Stop):
            await upsert(nex, ending_at(150), journal=journal)
        spoil(journal)
        world.hits.clear()
        with pytest.raises(error, match=hint):
            await upsert(nex, things(300), journal=journal)
        assert not world.requests
        journal.unlink()
        assert (await upsert(nex, things(300), journal=journal)).finished


async def test_a_journal_is_held_by_one_process(tmp_path: Path) -> None:
    """K6: a second process on the same journal is refused within a second, and the first goes on."""
    journal = tmp_path / "run.db"
    code = """
        import asyncio, sys
        from nex_async.storage import Database

        async def main():
            async with Database(sys.argv[1]):
                print("open", flush=True)
                await asyncio.to_thread(sys.stdin.read)

        asyncio.run(main())
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(code), str(journal), stdin=pipe, stdout=pipe
    )
    assert process.stdout is not None
    assert process.stdin is not None
    await process.stdout.readline()
    async with serving() as (world, nex):
        began = asyncio.get_running_loop().time()
        with pytest.raises(StorageLocked):
            await upsert(nex, things(10), journal=journal)
        assert asyncio.get_running_loop().time() - began < 1.0
        assert not world.requests
        process.stdin.close()
        await process.wait()
        assert (await upsert(nex, things(10), journal=journal)).finished
    process._transport.close()  # type: ignore[attr-defined]


# ---- rows that fail ------------------------------------------------------------------------------------------------------------


async def test_a_refused_row_is_a_dead_letter_after_one_request(tmp_path: Path) -> None:
    """K7: a 400 costs one request; the letter has the status, the message, the row and the key; the run goes on."""
    async with serving(lambda hit: refuse() if hit.version in (3, 40) else OK) as (world, nex):
        report = await upsert(nex, things(60), journal=tmp_path / "run.db")
    assert (report.finished, report.failed, report.rows) == (True, 2, 60)
    assert [world.sent[((f"k{n}@x.io",), n)] for n in (3, 40)] == [1, 1]
    letters = {letter.seq: letter for letter in dead_letters(report.dead_letters)}
    assert letters.keys() == {3, 40}
    letter = letters[3]
    assert (letter.status, letter.error, letter.attempts, letter.outcome) == (400, "BadRequestError", 1, "failed")
    assert (letter.record, letter.key) == ({"key": "k3@x.io", "n": 3}, "k3@x.io")
    assert "the world said so" in letter.message
    assert os.stat(report.dead_letters).st_mode & 0o777 == 0o600
    assert [outcome.index for outcome in report.failures] == [3, 40]


@pytest.mark.parametrize(("most", "refused"), [(5, 6), (0, 1), (None, 101)])
async def test_too_many_dead_letters_end_the_run(tmp_path: Path, most: int | None, refused: int) -> None:
    """K7: a run whose rows fail in numbers ends early, with its report; each failure is in the file."""
    options = {} if most is None else {"max_dead": most}
    async with serving(lambda hit: refuse()) as (world, nex):
        with pytest.raises(TooManyDeadLetters) as caught:
            await upsert(nex, things(2000), journal=tmp_path / "run.db", concurrency=1, **options)
    assert world.requests == refused
    assert caught.value.report.failed == refused
    assert len(letters_of(tmp_path / "run.db.dead.jsonl")) == refused


async def test_a_row_that_kills_its_connection_is_isolated_and_set_aside(tmp_path: Path) -> None:
    """K8: such a row is sent eight times, from the fourth on never beside another of its kind; its neighbours get through."""
    flying: set[int] = set()
    together: list[set[int]] = []
    poison = {5, 6, 7, 70}

    def judge(hit: Hit) -> Fault:
        if hit.version not in poison:
            return OK
        if hit.sends > 4:
            flying.add(hit.version)
            together.append(set(flying))
            asyncio.get_running_loop().call_later(0.004, flying.discard, hit.version)
            return Fault("drop", effect=False, answer_after=0.005)
        return drop(effect=False)

    async with serving(judge) as (world, nex):
        report = await upsert(nex, things(300), journal=tmp_path / "run.db", concurrency=8)
    assert (report.finished, report.failed) == (True, 4)
    assert sorted(letters_of(report.dead_letters)) == sorted(poison)
    assert [world.sent[((f"k{n}@x.io",), n)] for n in sorted(poison)] == [8, 8, 8, 8]
    assert all(len(one) == 1 for one in together)
    assert {letter.attempts for letter in dead_letters(report.dead_letters)} == {8}


async def test_one_row_is_one_request(tmp_path: Path) -> None:
    """K9: no operation writes several rows, so no reply can hold a partial success: each row has a request and a verdict."""
    async with serving(lambda hit: refuse() if hit.version % 7 == 0 else OK) as (world, nex):
        run = upsert(nex, things(70))
        outcomes: dict[int, str] = {}
        async with run:
            async for outcome in run:
                assert outcome.index not in outcomes
                outcomes[outcome.index] = outcome.status
    assert len(outcomes) == world.requests == 70
    assert {index for index, what in outcomes.items() if what == "failed"} == set(range(0, 70, 7))
    assert run.report.requests == 70


async def test_rows_that_cannot_be_sent_are_set_aside_before_anything_is(tmp_path: Path) -> None:
    """K17: no JSON, NaN, over a megabyte, no key, no mapping at all: dead letters without a request, kept as Python shows them."""
    bad: list[Any] = [
        {"key": "a@x.io", "n": {1, 2, object()}},
        {"key": "b@x.io", "n": math.nan},
        {"key": "c@x.io", "text": "x" * 1_000_001},
        {"n": 4},
        {"key": "", "n": 5},
        ["key", "d@x.io"],
        {"key": "e@x.io", "unheard_of": 1},
        {"key": "f@x.io", "text": "\ud800"},
    ]
    rows = things(100) + bad
    async with serving() as (world, nex):
        report = await upsert(nex, rows, journal=tmp_path / "run.db")
    assert (report.finished, report.failed, world.requests) == (True, len(bad), 100)
    letters = list(dead_letters(report.dead_letters))
    assert [letter.seq for letter in letters] == list(range(100, 100 + len(bad)))
    assert {letter.error for letter in letters} == {"InvalidRequestError"}
    assert all(letter.attempts == 0 for letter in letters)
    assert letters[3].record == {"n": 4}
    assert letters[0].text is not None
    assert "a@x.io" in letters[0].text


async def test_a_late_write_finds_no_newer_version_before_it(tmp_path: Path) -> None:
    """K12: while a request whose reply was lost may still act, a newer version of its key is held back, and others are not."""
    rows = [{"key": "z@x.io", "n": 1}, *things(20), {"key": "Z@x.io", "n": 2}]
    judge = lambda hit: zombie(0.15) if hit.version == 1 and hit.sends == 1 and hit.keys == ("z@x.io",) else OK  # noqa: E731
    async with serving(judge) as (world, nex):
        report = await upsert(nex, rows, quarantine=0.3)
    assert report.finished
    assert world.versions("z@x.io") == [1, 1, 2]
    first, newer = (next(hit.at for hit in world.hits if hit.keys == ("z@x.io",) and hit.version == n) for n in (1, 2))
    assert round(newer - first, 6) >= 0.3  # uvloop counts whole milliseconds, which are no exact floats
    assert max(world.applied[row["key"]][0].at for row in things(20)) < newer


async def test_verifying_finds_what_a_later_write_has_undone() -> None:
    """K12: a write that acts after all quarantine is found by the verifying pass, and by nothing else."""
    rows = [{"key": "z@x.io", "n": 1, "text": "old"}, {"key": "z@x.io", "n": 2, "text": "new"}, *things(30)]
    judge = lambda hit: zombie(0.1) if hit.sends == 1 and hit.keys == ("z@x.io",) and hit.version == 1 else OK  # noqa: E731

    async def source() -> AsyncIterator[dict[str, Any]]:
        for row in rows:
            yield row
        while len(world.versions("z@x.io")) < 3:
            await asyncio.sleep(0.005)

    async with serving(judge) as (world, nex):
        run = upsert(nex, source(), verify=True)
        await run
        drift = run.report.drift
    assert drift is not None
    assert {(one.key, one.attribute, one.sent, one.found) for one in drift} == {
        ("z@x.io", "n", "2", "1"),
        ("z@x.io", "text", "new", "old"),
    }
    assert not run.report.ok


# ---- the source ------------------------------------------------------------------------------------------------------------


async def test_other_rows_than_the_journals_are_refused(tmp_path: Path) -> None:
    """K13: a journal goes on with the rows it was begun with only; `force` begins anew with rows that can be read twice."""
    journal = tmp_path / "run.db"
    async with serving() as (world, nex):
        with pytest.raises(Stop):
            await upsert(nex, ending_at(150), journal=journal)
        world.hits.clear()
        for other in (things(300, start=1), things(20), [{"key": "k0@x.io", "n": -1}, *things(299, 1)]):
            with pytest.raises(SourceChanged):
                await upsert(nex, other, journal=journal)
        with pytest.raises(CheckpointError, match="another run"):
            await nex.records.update_many([{"id": "1", "n": 1}], journal=journal)
        with pytest.raises(CheckpointError, match="unfinished job"):
            await upsert(nex, things(300), journal=journal, job_id="tuesday")
        with pytest.raises(InvalidRequestError, match="read twice"):
            await upsert(nex, iter(things(300, start=1)), journal=journal, force=True)
        assert not world.requests
        report = await upsert(nex, things(300, start=1), journal=journal, force=True)
        assert (report.finished, report.rows, report.resumed_at, world.requests) == (True, 300, None, 300)


async def test_force_begins_anew_with_an_asynchronous_source(tmp_path: Path) -> None:
    """K13: nothing of the first, refused pass over an asynchronous source leaks into the second."""

    class Twice:
        def __init__(self, rows: list[dict[str, Any]]) -> None:
            self.rows = rows

        async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
            for row in self.rows:
                yield row

    journal = tmp_path / "run.db"
    async with serving() as (world, nex):
        with pytest.raises(Stop):
            await upsert(nex, ending_at(30), journal=journal)
        world.hits.clear()
        report = await upsert(nex, Twice(things(40, start=5)), journal=journal, force=True)
    assert (report.finished, report.rows) == (True, 40)
    assert sorted(hit.version for hit in world.hits) == list(range(5, 45))


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_source_that_raises_ends_the_run_and_the_next_goes_on(tmp_path: Path, is_async: bool) -> None:
    """K14: what the source raises comes out as it is, rows before it are done and in the journal, and the next run goes on."""

    async def slowly(rows: Iterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        for row in rows:
            yield row

    def source(rows: Iterator[dict[str, Any]]) -> Any:
        return slowly(rows) if is_async else rows

    journal = tmp_path / "run.db"
    async with serving() as (world, nex):
        run = upsert(nex, source(ending_at(321)), journal=journal)
        with pytest.raises(Stop):
            await run
        assert not run.report.finished
        assert run.report.rows == world.requests
        before = world.requests
        assert before >= 300
        report = await upsert(nex, source(iter(things(500))), journal=journal)
        assert (report.finished, report.rows, world.requests) == (True, 500, 500)
        assert report.resumed_at == before


async def test_rows_are_pulled_as_they_are_sent() -> None:
    """K16: however long the source, no more of it is pulled than the rows in flight and one helping ahead."""
    pulled = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal pulled
        for row in things(2500):
            pulled += 1
            yield row

    most = 0

    def watch(hit: Hit) -> None:
        nonlocal most
        most = max(most, pulled - hit.number)

    async with serving() as (world, nex):
        world.on_hit = watch
        report = await upsert(nex, source(), concurrency=16)
    assert report.rows == 2500
    assert most <= 100 + 16 + 2 * 16


async def test_memory_does_not_grow_with_the_rows(caplog: pytest.LogCaptureFixture) -> None:
    """K16: a run of five times the rows takes no more memory at its peak than the shorter one, and a little."""
    caplog.set_level(logging.INFO, "nex_async")  # pytest keeps every record of a test: the line of each attempt would count

    async def peak(count: int) -> int:
        class Silent(World):
            def serve(self, connection: Any, method: str, target: str, body: bytes) -> None:
                connection.reply(200, {"id": "1"})

        async with Silent() as world, Nex(KEY, base_url=world.url) as nex:
            tracemalloc.start()
            try:
                await nex.records.upsert_many(
                    "thing", ({"key": f"k{n}", "text": "x" * 200} for n in range(count)), match_on="key", check=False
                )
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    await peak(50)
    short = await peak(250)
    assert await peak(1200) < short + 400_000


# ---- the server ------------------------------------------------------------------------------------------------------------


async def test_an_outage_is_waited_out_and_blamed_on_no_row(tmp_path: Path) -> None:
    """A server that is down for a while costs no row anything: the run says so, asks it now and then, and goes on."""
    async with serving() as (world, nex):

        def fall(hit: Hit) -> None:
            if hit.number == 100:
                world.go_down()

        def hear(progress: Progress) -> None:
            if progress.note == "the server does not answer":
                asyncio.get_running_loop().call_later(0.1, world.come_back)

        world.on_hit = fall
        report = await upsert(nex, things(300), journal=tmp_path / "run.db", progress=hear)
    assert (report.finished, report.failed, report.rows) == (True, 0, 300)
    assert letters_of(tmp_path / "run.db.dead.jsonl") == []
    assert world.probes >= 2


@pytest.mark.parametrize("rows", [1, 2, 40])
async def test_an_outage_blames_no_row_however_few_are_on_their_way(rows: int) -> None:
    """One worker, or one last row, that fails again and again while the server is down, is not set aside either."""
    async with serving() as (world, nex):
        down = asyncio.get_running_loop().call_later
        world.on_hit = lambda hit: None
        world.judge = lambda hit: OK
        run = upsert(nex, things(rows), concurrency=1, check=False)
        world.go_down()
        down(0.6, world.come_back)
        report = await run
    assert (report.finished, report.failed, report.rows) == (True, 0, rows)


async def test_an_outage_that_outlasts_patience_ends_the_run(tmp_path: Path) -> None:
    """BulkStalled after `patience` seconds without a success; however often that is repeated, no row is blamed for it."""
    journal = tmp_path / "run.db"
    async with serving() as (world, nex):
        with pytest.raises(Stop):
            await upsert(nex, ending_at(50), journal=journal)
        world.go_down()
        for _ in range(6):
            with pytest.raises(BulkStalled):
                await upsert(nex, things(120), journal=journal, patience=0.15, check=False)
        world.come_back()
        report = await upsert(nex, things(120), journal=journal)
    assert (report.finished, report.failed, report.rows) == (True, 0, 120)
    assert letters_of(tmp_path / "run.db.dead.jsonl") == []


async def test_a_row_that_alone_fails_is_set_aside_after_eight_requests() -> None:
    """While others succeed, a row whose requests are all lost is a dead letter after eight."""
    async with serving(lambda hit: status(503, effect=True) if hit.version == 4 else OK) as (world, nex):
        report = await upsert(nex, things(600), concurrency=4)
    assert (report.failed, world.sent[(("k4@x.io",), 4)]) == (1, 8)


async def test_the_last_row_is_set_aside_after_eight_requests() -> None:
    """A row that fails when nothing else is left is a dead letter after eight, once the server says it is well."""
    async with serving(lambda hit: drop(effect=False) if hit.version == 4 else OK) as (world, nex):
        report = await upsert(nex, things(5), concurrency=4)
    assert (report.failed, world.sent[(("k4@x.io",), 4)]) == (1, 8)
    assert world.probes >= 2


async def test_a_server_that_reads_and_does_not_write_is_not_waited_for() -> None:
    """Where reads succeed and every write fails, the rows are to blame, and too many of them end the run."""
    async with serving(lambda hit: status(500)) as (world, nex):
        with pytest.raises(TooManyDeadLetters):
            await upsert(nex, things(200), max_dead=5, concurrency=4)
    assert max(world.sent.values()) <= 8


# ---- the process ------------------------------------------------------------------------------------------------------------

_DRAINS = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.run of 3.10 cancels every task at the first Ctrl-C")
_NIGHTLY = """
    import asyncio, sys
    from nex_async import Nex
    from tests.harness.canary import KEY

    async def main(url, journal):
        async with Nex(KEY, base_url=url) as nex:
            rows = ({"key": f"k{n}@x.io", "n": n} for n in range(100_000))
            print("begin", flush=True)
            await nex.records.upsert_many("thing", rows, match_on="key", journal=journal)

    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("times", [1, pytest.param(2, marks=_DRAINS)])
async def test_an_interrupt_ends_a_run_in_good_order(tmp_path: Path, times: int) -> None:
    """K18: one Ctrl-C lets rows on their way end and writes the journal; a second ends at once. Either way it goes on later."""
    journal = tmp_path / "run.db"
    enough = asyncio.Event()
    slow = times == 2
    async with World(lambda hit: late(60) if slow and hit.number > 300 else OK) as world:
        world.on_hit = lambda hit: enough.set() if hit.number > 330 or (slow and hit.number > 300) else None
        command = (sys.executable, "-c", textwrap.dedent(_NIGHTLY), world.url, str(journal))
        root = str(Path(__file__).parents[2])
        process = await asyncio.create_subprocess_exec(*command, cwd=root, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        await asyncio.wait_for(enough.wait(), 20)
        loop = asyncio.get_running_loop()
        began = loop.time()
        process.send_signal(signal.SIGINT)
        if slow:
            await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=0.3)
            assert process.returncode is None, "rows on their way are waited for"
            process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) != 0
        assert loop.time() - began < 4.0
        process._transport.close()  # type: ignore[attr-defined]
        done = len(world.applied)
        world.judge = None
        world.hits.clear()
        async with Nex(KEY, base_url=world.url) as nex:
            rows = [{"key": f"k{n}@x.io", "n": n} for n in range(100_000)]
            run = nex.records.upsert_many("thing", rows, match_on="key", journal=journal, quarantine=0)
            async with run:
                async for outcome in run:
                    if outcome.index > done + 50:
                        break
            assert run.report.resumed_at is not None
            if not slow:
                first = min(hit.version for hit in world.hits)
                assert first >= done - 1 - 32, "the journal was not written at the end"


class _Refusing:
    """Stands for os.write or os.fsync on a full disk, for the file of dead letters only."""

    def __init__(self, call: Callable[..., Any], after: int) -> None:
        self.call, self.left = call, after

    def __call__(self, *arguments: Any) -> Any:
        if self.left:
            self.left -= 1
            return self.call(*arguments)
        if len(arguments) == 2 and len(arguments[1]) > 20:
            return self.call(arguments[0], arguments[1][:20])  # so much fits
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("with_journal", [True, False])
async def test_a_dead_letter_that_cannot_be_written_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, with_journal: bool
) -> None:
    """K19: no failed row is forgotten because its letter finds no room: the run ends, and with room again it goes on."""
    journal, letters = tmp_path / "run.db", tmp_path / "dead.jsonl"
    options: dict[str, Any] = {"dead_letters": letters, **({"journal": journal} if with_journal else {})}
    async with serving(lambda hit: refuse() if hit.version % 50 == 7 else OK) as (_, nex):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, _Refusing(getattr(os, call), 1))
            with pytest.raises(StorageFull, match="dead letters"):
                await upsert(nex, ending_at(5000), concurrency=2, **options)
        assert all(line.endswith(b"}\n") for line in letters.read_bytes().splitlines(keepends=True))
        if with_journal:
            assert (await upsert(nex, things(500), **options)).finished
            assert sorted(letters_of(letters)) == list(range(7, 500, 50))


async def test_a_file_of_dead_letters_that_cannot_be_made_ends_the_run_at_the_start(tmp_path: Path) -> None:
    """K19: a directory, a link or a file others can write to in its place is refused before anything is sent."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "real").touch(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "open").touch()
    (tmp_path / "open").chmod(0o666)
    async with serving() as (world, nex):
        for name in ("directory", "link", "open", "nowhere/dead.jsonl"):
            for journal in ({}, {"journal": tmp_path / f"{name.split('/')[0]}.db"}):
                with pytest.raises(StorageError, match="dead letters"):
                    await upsert(nex, things(10), dead_letters=tmp_path / name, **journal)
    assert not world.requests


@pytest.mark.parametrize("job", [{}, {"job_id": "monday"}])
async def test_a_finished_job_is_not_repeated(tmp_path: Path, job: dict[str, str]) -> None:
    """K20: the same call after the end makes no request at all, and its report is that of the whole job."""
    options: dict[str, Any] = {"journal": tmp_path / "run.db", **job}
    async with serving(lambda hit: refuse() if hit.version == 5 else OK) as (world, nex):
        first = await upsert(nex, things(50), **options)
        world.hits.clear()
        probes = world.probes
        again = await upsert(nex, things(50), **options)
        assert (world.requests, world.probes) == (0, probes)
        assert (again.finished, again.rows, again.created, again.failed) == (True, 50, first.created, 1)
        assert letters_of(Path(first.dead_letters)) == [5]
        if job:
            next_job = await upsert(nex, things(50), **{**options, "job_id": "tuesday"})
            assert (next_job.rows, world.requests) == (50, 50)
        else:
            for other in (things(51), things(49), things(50, 1)):
                with pytest.raises(SourceChanged):
                    await upsert(nex, other, **options)


async def test_a_finished_job_is_known_where_the_key_goes_by_its_id(tmp_path: Path) -> None:
    """K20: a matching attribute named by its id, and rows that name it by its slug: the finished journal is recognised."""
    async with serving() as (world, nex):
        for _ in range(2):
            report = await nex.records.upsert_many(
                "thing", iter(things(30)), match_on="id-key", journal=tmp_path / "run.db", quarantine=0
            )
            assert (report.finished, report.rows, world.requests) == (True, 30, 30)


def test_creates_that_cannot_be_found_again_are_refused() -> None:
    """K21: create_many without a matching attribute is refused unless unknown outcomes are allowed."""
    nex = Nex(KEY, base_url="http://127.0.0.1:9")
    with pytest.raises(InvalidRequestError, match="allow_unknown_outcomes"):
        nex.records.create_many("thing", things(3))
    nex.records.create_many("thing", things(3), match_on="key")
    nex.records.create_many("thing", things(3), allow_unknown_outcomes=True)


async def test_nothing_a_run_writes_shows_the_key(tmp_path: Path) -> None:
    """The API key is in no journal, no dead letter, no report and no error of a run that met every kind of failure."""
    kinds = (refuse(), drop(), status(503), throttle("0.01"), OK)
    async with serving(lambda hit: kinds[hit.version % 5] if hit.sends == 1 else OK) as (_, nex):
        run = upsert(nex, things(50), journal=tmp_path / "run.db", max_dead=50)
        report = await run
        assert report.failed == 10
    for file in tmp_path.iterdir():
        assert not leaked(file.read_bytes().decode("latin-1")), file.name
    assert not leaked(f"{run!r} {report} {report!r} {[outcome.error for outcome in report.failures]}")
    assert all(isinstance(outcome.error, BadRequestError) for outcome in report.failures)
