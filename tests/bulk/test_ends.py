"""How runs end when something around them is wrong: sources that are cancelled, readers that fight, files of others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from nex_async import Nex
from nex_async.bulk.letters import dead_letters
from nex_async.bulk.options import plan_of
from nex_async.errors import BulkError, InvalidRequestError, ServerError, TenantMismatch, TooManyDeadLetters
from tests.harness.bulk_world import OK, drop, refuse, silent, status

from .runs import serving, things, upsert


async def _cancelled_inside(rows: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for row in rows:
        yield row
    other = asyncio.ensure_future(asyncio.sleep(9))
    other.cancel()
    await other


def _cancelled_at(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from rows
    raise asyncio.CancelledError


@pytest.mark.parametrize("source", [_cancelled_inside, _cancelled_at])
@pytest.mark.parametrize("count", [20, 300])
async def test_a_source_that_was_cancelled_is_no_end(tmp_path: Path, source: Any, count: int) -> None:
    """A source in which something was cancelled ends the run with an error, after the rows before it; the run goes on later."""
    async with serving() as (world, nex):
        with pytest.raises(BulkError, match="source of the rows was cancelled"):
            await upsert(nex, source(things(count)), journal=tmp_path / "run.db")
        report = await upsert(nex, things(count + 50), journal=tmp_path / "run.db")
        assert (report.finished, report.rows, len(world.records)) == (True, count + 50, count + 50)


async def test_a_source_that_fails_to_close_leaves_the_journal_free(tmp_path: Path) -> None:
    """What a source raises when it is closed is told; the journal is written and can be opened again."""

    async def source() -> AsyncIterator[dict[str, Any]]:
        try:
            for row in things(5000):
                yield row
        finally:
            raise RuntimeError("the cursor does not close")

    async with serving() as (_, nex):
        with pytest.raises(RuntimeError, match="cursor"):
            async with upsert(nex, source(), journal=tmp_path / "run.db") as run:
                async for _ in run:
                    break
        report = await upsert(nex, things(5000), journal=tmp_path / "run.db")
    assert (report.finished, report.rows) == (True, 5000)


async def test_a_generator_that_is_left_is_closed() -> None:
    """The `finally` of a generator runs when its run is left early."""
    closed: list[bool] = []

    def source() -> Iterator[dict[str, Any]]:
        try:
            yield from things(5000)
        finally:
            closed.append(True)

    async with serving() as (_, nex), upsert(nex, source()) as run:
        async for _ in run:
            break
    assert closed == [True]


async def test_a_run_has_one_reader() -> None:
    """A second reader is refused; it would wait for ever."""

    async def read(run: Any) -> int:
        return len([outcome async for outcome in run])

    async with serving() as (_, nex), upsert(nex, things(50)) as run:
        found = await asyncio.gather(read(run), read(run), return_exceptions=True)
    assert {type(one) for one in found} == {int, InvalidRequestError}


async def test_whoever_cancels_twice_does_not_wait_for_the_server(tmp_path: Path) -> None:
    """A second cancel cuts the drain short; nothing of the run lives on, and its journal is free."""
    async with serving(lambda hit: silent()) as (world, nex):
        whole = asyncio.ensure_future(upsert(nex, things(50), journal=tmp_path / "run.db")._whole())
        while not world.hits:
            await asyncio.sleep(0.005)
        whole.cancel()
        await asyncio.sleep(0.05)
        before = time.monotonic()
        whole.cancel()
        with pytest.raises(asyncio.CancelledError):
            await whole
        assert time.monotonic() - before < 2
        assert not [task for task in asyncio.all_tasks() if "nex-async upsert" in task.get_name()]
        world.judge = lambda hit: OK
        assert (await upsert(nex, things(50), journal=tmp_path / "run.db")).finished


async def test_a_journal_belongs_to_its_workspace(tmp_path: Path) -> None:
    """Rows written to one workspace are not taken for written in another, though both are on this machine."""
    rows = [{"name": f"Ann {n}", "email_addresses": [f"ann{n}@x.io"]} for n in range(5)]
    options: Any = {"match_on": "email_addresses", "journal": tmp_path / "run.db"}
    async with Nex.local() as one, Nex.local() as other:
        await one.records.upsert_many("person", rows, **options)
        for more in ({}, {"skip_unchanged": True}, {"job_id": "tonight"}):
            with pytest.raises(TenantMismatch):
                await other.records.upsert_many("person", rows, **options, **more)
        assert (await one.records.upsert_many("person", rows, **options)).finished, "a finished journal stays finished"
        ids = [person.id async for person in one.records.list("person")]
        await one.records.delete_many(ids, journal=tmp_path / "gone.db")
        with pytest.raises(TenantMismatch):
            await other.records.delete_many(ids, journal=tmp_path / "gone.db")


@pytest.mark.parametrize("name", ["run.db", "run.db-wal", "./run.db.lock"])
def test_the_journal_and_its_letters_are_two_files(tmp_path: Path, name: str) -> None:
    """Dead letters cannot go to the journal, nor to what lies beside it."""
    with pytest.raises(InvalidRequestError, match="another file"):
        plan_of({"journal": tmp_path / "run.db", "dead_letters": tmp_path / name})


async def test_what_may_have_taken_effect_is_not_sent_again_with_the_dead(tmp_path: Path) -> None:
    """Letters of unknown outcome stay in the file when the others are sent again: a create could happen twice."""
    broken = [True]
    judge = lambda hit: drop(effect=True) if hit.version == 3 else refuse() if hit.version == 5 and broken else OK  # noqa: E731
    async with serving(judge) as (world, nex):
        run = nex.records.create_many("thing", things(10), allow_unknown_outcomes=True, journal=tmp_path / "run.db")
        report = await run
        assert (report.created, report.failed, report.unknown) == (8, 1, 1)
        broken.clear()
        again = await run.retry_dead()
        assert (again.rows, again.created) == (1, 1)
        assert all(len(applied) == 1 for applied in world.applied.values())
    assert [(letter.seq, letter.outcome) for letter in dead_letters(tmp_path / "run.db.dead.jsonl")] == [(3, "unknown")]


async def test_rows_that_need_no_request_let_others_run() -> None:
    """A dry run over many rows does not hold the event loop."""
    late = 0.0

    async def tick() -> None:
        nonlocal late
        while True:
            before = time.monotonic()
            await asyncio.sleep(0)
            late = max(late, time.monotonic() - before)

    async with serving() as (_, nex):
        ticking = asyncio.ensure_future(tick())
        report = await upsert(nex, things(60_000), dry_run=True)
        ticking.cancel()
    assert report.valid == 60_000
    assert late < 0.1


async def test_time_without_rows_is_no_failure() -> None:
    """Patience counts from the first failure, not from the last success: a source may be quiet for longer."""

    async def source() -> AsyncIterator[dict[str, Any]]:
        for row in things(10):
            yield row
        await asyncio.sleep(0.5)
        for row in things(10, 10):
            yield row

    async with serving(lambda hit: status(503) if hit.version == 10 and hit.sends == 1 else OK) as (_, nex):
        report = await upsert(nex, source(), patience=0.3)
    assert (report.finished, report.failed) == (True, 0)


async def test_a_verification_that_fails_is_made_again(nex: Nex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose verifying pass could not be made is not finished; the same call makes it, over the rows of before too."""
    from nex_async.bulk.verify import Verifier

    rows = [{"name": f"Ann {n}", "email_addresses": [f"ann{n}@x.io"]} for n in range(20)]
    options: Any = {"match_on": "email_addresses", "journal": tmp_path / "run.db", "verify": True}

    async def fails(self: Verifier) -> Any:
        raise ServerError("not now", status=500)

    with monkeypatch.context() as patch:
        patch.setattr(Verifier, "compare", fails)
        with pytest.raises(ServerError):
            await nex.records.upsert_many("person", rows, **options)
    spoiled = await nex.records.list("person", limit=1)
    await nex.records.update(spoiled[0].id, {"name": "Somebody else"})
    report = await nex.records.upsert_many("person", rows, **options)
    assert report.finished
    assert [(drift.attribute, drift.found) for drift in report.drift or ()] == [("name", "Somebody else")]


async def test_unchanged_means_unchanged_under_every_key(nex: Nex, tmp_path: Path) -> None:
    """A row of two keys is sent again when another row has changed one of them."""
    options: Any = {"match_on": "domains", "journal": tmp_path / "run.db", "skip_unchanged": True}
    for name, domains in (("v1", ["aa.io", "bb.io"]), ("v2", ["aa.io"]), ("v1", ["aa.io", "bb.io"])):
        await nex.records.upsert_many("company", [{"name": name, "domains": domains}], **options)
    assert [company["name"] async for company in nex.records.list("company")] == ["v1"]


async def test_failures_of_earlier_runs_do_not_end_this_one(tmp_path: Path) -> None:
    """After too many dead letters the same call goes on: what counts is what fails in this run."""
    async with serving(lambda hit: refuse() if hit.version < 8 else OK) as (_, nex):
        with pytest.raises(TooManyDeadLetters, match="max_dead="):
            await upsert(nex, things(300), journal=tmp_path / "run.db", max_dead=4, concurrency=1)
        report = await upsert(nex, things(300), journal=tmp_path / "run.db", max_dead=4, concurrency=1)
    assert (report.finished, report.rows, report.failed) == (True, 300, 8)


async def test_a_create_that_cannot_be_settled_is_unknown() -> None:
    """When even the upserts that should find out are lost, nobody knows what became of the create."""
    async with serving(lambda hit: drop(effect=True) if hit.version == 2 else OK) as (_, nex):
        report = await nex.records.create_many("thing", things(30), match_on="key", quarantine=0, retries=2)
    assert (report.created, report.unknown, report.failed) == (29, 1, 0)
