"""Bulk runs as their users see them: outcomes, reports, dry runs, repeats, retries of the dead, ends of every kind."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nex_async import Nex
from nex_async.bulk import progress
from nex_async.bulk.letters import dead_letters
from nex_async.bulk.progress import Progress
from nex_async.errors import (
    AuthenticationError,
    ClientClosed,
    InvalidRequestError,
    MappingError,
    NotFoundError,
    PermissionDeniedError,
)
from tests.harness.bulk_world import OK, Hit, World, drop, late, refuse, silent, status
from tests.harness.canary import KEY
from tests.harness.virtual import Call, Outcome, VirtualWire, reply, run_virtual, virtual_client

from .runs import serving, things, upsert
from .virtual_world import DEFINITION


def people(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"name": f"Ann {n}", "email_addresses": [f"ann{n}@x.io"], **more} for n in range(count)]


# ---- over a whole Nex -----------------------------------------------------------------------------------------------------------


async def test_rows_go_in_and_change_and_are_found_again(nex: Nex, tmp_path: Path) -> None:
    """Upserts create, then update; updates and deletes go by id; what was written stands in the object, and verifies."""
    report = await nex.records.upsert_many("person", people(30), match_on="email_addresses", verify=True)
    assert (report.created, report.updated, report.drift, report.ok) == (30, 0, [], True)
    ids = []
    run = nex.records.upsert_many("person", people(30, job_title="CTO"), match_on="email_addresses")
    async with run:
        async for outcome in run:
            assert outcome.ok
            ids.append(outcome.value.id)
    assert run.report.rows == len(set(ids)) == 30
    changes = [{"id": one, "job_title": "CEO"} for one in ids]
    assert (await nex.records.update_many(changes, journal=tmp_path / "u.db")).updated == 30
    titles = [record.attributes["job_title"] async for record in nex.records.list("person", attributes="all")]
    assert len(titles) == 30
    assert all("CEO" in json.dumps(title) for title in titles)
    assert (await nex.records.delete_many(ids[:10])).deleted == 10
    gone = await nex.records.delete_many([{"id": one} for one in ids[:11]])
    assert (gone.deleted, gone.failed) == (1, 10)


async def test_creates_create(nex: Nex) -> None:
    """create_many makes a record of each row, and hands it out."""
    run = nex.records.create_many("person", people(12), match_on="email_addresses")
    ids = set()
    async with run:
        async for outcome in run:
            assert outcome.status == "created"
            ids.add(outcome.value.id)
    assert len(ids) == 12


class Person(msgspec.Struct, omit_defaults=True):
    name: str
    email_addresses: list[str]
    job_title: str | None = None


async def test_structs_are_rows(nex: Nex) -> None:
    """A Struct is sent as its fields, without those at their defaults where it says so; outcomes show the Struct."""
    rows = [Person(f"Ann {n}", [f"ann{n}@x.io"]) for n in range(5)]
    run = nex.records.upsert_many("person", iter(rows), match_on="email_addresses")
    async with run:
        shown = [outcome.row async for outcome in run]
    assert sorted(shown, key=lambda one: one.name) == rows
    assert run.report.created == 5


async def test_rows_that_do_not_fit_are_refused_with_all_that_is_wrong(nex: Nex) -> None:
    """Unknown attributes and a missing key in the first rows end the run before anything is sent, and are listed."""
    with pytest.raises(MappingError) as caught:
        await nex.records.upsert_many("person", [{"nam": "A", "mail": "b"}] * 20, match_on="email_addresses")
    assert len(caught.value.problems) == 3
    with pytest.raises(MappingError, match="no attribute 'mail' to match on"):
        await nex.records.upsert_many("person", people(3), match_on="mail")
    with pytest.raises(NotFoundError):
        await nex.records.upsert_many("nothing", people(3), match_on="email_addresses")
    assert [record async for record in nex.records.list("person")] == []


# ---- outcomes and progress ------------------------------------------------------------------------------------------------------


async def test_every_row_has_one_outcome_as_it_ends() -> None:
    """Outcomes come as rows end, a slow row's after those behind it; the report counts them."""
    async with serving(lambda hit: late(0.05) if hit.version == 0 else refuse() if hit.version == 5 else OK) as (_, nex):
        run = upsert(nex, things(200), concurrency=4)
        async with run:
            outcomes = [outcome async for outcome in run]
    indexes = [outcome.index for outcome in outcomes]
    assert sorted(indexes) == list(range(200))
    assert indexes.index(0) > 10
    assert [outcome.index for outcome in outcomes if not outcome.ok] == [5]
    assert (run.report.created, run.report.failed) == (199, 1)


async def test_a_reader_that_stops_reading_stops_the_pulling() -> None:
    """With a thousand outcomes unread no row is pulled any more; reading on starts it again."""
    pulled = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal pulled
        for row in things(3000):
            pulled += 1
            yield row

    async with serving() as (world, nex):
        run = upsert(nex, source(), concurrency=8)
        async with run:
            reading = aiter(run)
            await anext(reading)
            before = -1
            while before != world.requests:
                before = world.requests
                await asyncio.sleep(0.05)
            assert 1000 <= pulled <= 1000 + 100 + 8 + 16
            read = 1 + len([outcome async for outcome in reading])
    assert read == pulled == 3000


async def test_progress_is_told_and_cannot_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback hears of rows done and failed, of the total and the time left; what it raises is logged."""
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)
    told: list[Progress] = []

    def hear(one: Progress) -> None:
        told.append(one)
        raise ValueError("a bad callback")

    async with serving(lambda hit: refuse() if hit.version == 7 else OK) as (_, nex):
        report = await upsert(nex, things(100), progress=hear)
    assert report.rows == 100
    done = [one.done for one in told]
    assert done == sorted(done)
    assert (told[-1].done, told[-1].failed, told[-1].total, told[-1].eta) == (100, 1, 100, 0.0)
    assert any(one.eta for one in told)
    with pytest.raises(InvalidRequestError, match="progress"):
        upsert(nex, [], progress=asyncio.sleep)


async def test_a_dry_run_sends_nothing(tmp_path: Path) -> None:
    """Every row is checked and given an outcome, and the server hears of none."""
    async with serving() as (world, nex):
        report = await upsert(nex, [*things(100), {"n": 1}], dry_run=True)
    assert (report.valid, report.failed, report.rows, world.requests) == (100, 1, 101, 0)


# ---- order and sameness ---------------------------------------------------------------------------------------------------------


async def test_rows_that_share_any_key_take_turns() -> None:
    """[a, b] and [b] and [B, c] are sent one after another, in order; others pass them."""
    rows = [
        {"key": ["a@x.io", "b@x.io"], "n": 0},
        {"key": "b@x.io", "n": 1},
        {"key": ["B@x.io", "c@x.io"], "n": 2},
        {"key": "c@x.io", "n": 3},
        {"key": "d@x.io", "n": 4},
    ]
    async with serving(lambda hit: late(0.02) if hit.version < 3 else OK) as (world, nex):
        report = await upsert(nex, rows, concurrency=5)
    assert report.rows == 5
    assert not world.overlaps
    assert [hit.version for hit in world.hits if hit.version != 4] == [0, 1, 2, 3]
    assert world.versions("b@x.io") == [0, 1, 2]
    assert world.hits[1].version == 4


async def test_unchanged_rows_are_not_sent_again(tmp_path: Path) -> None:
    """With `skip_unchanged` a second run sends nothing, a third what has changed; A, B, A in one source ends as A."""
    options: dict[str, Any] = {"journal": tmp_path / "run.db", "skip_unchanged": True}
    async with serving() as (world, nex):
        for expected in ((80, 0), (0, 80)):
            world.hits.clear()
            report = await upsert(nex, things(80), **options)
            assert (world.requests, report.unchanged, report.rows) == (*expected, 80)
        changed = [{**row, "text": "new"} if row["n"] % 10 == 0 else row for row in things(80)]
        report = await upsert(nex, changed, **options)
        assert (world.requests, report.unchanged) == (8, 72)
        world.hits.clear()
        back_and_forth = [changed[3], {**changed[3], "n": -1}, changed[3]]
        report = await upsert(nex, back_and_forth, **options)
        assert report.rows == 3
        assert world.records["k3@x.io"]["n"] == 3


async def test_what_was_written_a_moment_ago_counts(tmp_path: Path) -> None:
    """A, then B, then A again as soon as B is settled: the last is sent, though the journal has not been written yet."""
    options: dict[str, Any] = {"journal": tmp_path / "run.db", "skip_unchanged": True, "check": False}
    one, other = {"key": "a@x.io", "n": 1}, {"key": "a@x.io", "n": 2}

    async def source() -> AsyncIterator[dict[str, Any]]:
        yield other
        while run.report.rows < 1:
            await asyncio.sleep(0)
        yield one

    async with serving() as (world, nex):
        await upsert(nex, [one], **options)
        run = upsert(nex, source(), **options)
        await run
    assert world.versions("a@x.io") == [1, 2, 1]


async def test_what_failed_is_not_taken_for_synced(tmp_path: Path) -> None:
    """A row that was refused, or whose request may have acted, is sent again by the next run; the others are not."""
    options: dict[str, Any] = {"journal": tmp_path / "run.db", "skip_unchanged": True, "retries": 0}
    judge = lambda hit: refuse() if hit.version == 3 else status(503, effect=True) if hit.version == 4 else OK  # noqa: E731
    async with serving(judge) as (world, nex):
        assert (await upsert(nex, things(20), **options)).failed == 2
        world.hits.clear()
        world.judge = None
        assert (await upsert(nex, things(20), **options)).unchanged == 18
        assert sorted(hit.version for hit in world.hits) == [3, 4]


# ---- the dead ---------------------------------------------------------------------------------------------------------------------


async def test_the_dead_are_sent_again_and_those_that_fail_again_stay(tmp_path: Path) -> None:
    """retry_dead sends what the file holds; afterwards it holds what failed again, with all attempts, and nothing else."""
    bad = {3, 9, 27}
    async with serving(lambda hit: refuse() if hit.version in bad else OK) as (world, nex):
        run = upsert(nex, things(30), journal=tmp_path / "run.db")
        report = await run
        assert report.failed == 3
        bad -= {3, 27}
        world.hits.clear()
        again = await run.retry_dead()
        assert (again.rows, again.failed, world.requests) == (3, 1, 3)
        (letter,) = dead_letters(report.dead_letters)
        assert (letter.seq, letter.attempts, letter.record) == (9, 2, {"key": "k9@x.io", "n": 9})
        bad.clear()
        assert (await upsert(nex, things(30), journal=tmp_path / "run.db").retry_dead()).failed == 0
        assert list(dead_letters(report.dead_letters)) == []
    assert sorted(file.name for file in tmp_path.iterdir() if "retry" in file.name) == []
    with pytest.raises(InvalidRequestError, match="dead letters"):
        upsert(nex, []).retry_dead()


# ---- other writers ----------------------------------------------------------------------------------------------------------------


async def test_members_are_put_on_a_list() -> None:
    """A row is an id, or an id and values; members of one id take turns."""
    async with serving() as (world, nex):
        rows = ["7", {"parent_id": "8", "n": 1}, {"parent_id": "7", "n": 2}, 9]
        report = await nex.lists.upsert_members("5", rows)
        assert (report.rows, report.failed) == (4, 0)
    assert set(world.records) == {"7", "8", "9"}
    assert world.versions("7") == [None, 2]


async def test_a_lost_delete_that_finds_nothing_has_deleted() -> None:
    """A delete whose reply was lost counts as done when the record is then gone; a first 404 is a failure."""
    async with serving(lambda hit: drop() if hit.keys == ("1",) and hit.sends == 1 else OK) as (world, nex):
        world.records.update({"1": {}, "2": {}})
        report = await nex.records.delete_many(["1", "2", "3"])
    assert (report.deleted, report.failed) == (2, 1)
    assert [outcome.row for outcome in report.failures] == ["3"]


async def test_a_lost_update_is_sent_again() -> None:
    """A PATCH whose reply was lost, and a success that cannot be read, are made good by sending it again."""
    async with serving(lambda hit: drop() if hit.sends == 1 else OK) as (world, nex):
        report = await nex.records.update_many([{"id": "1", "n": 1}, {"id": "2", "n": 2}, {"id": "1", "n": 3}], quarantine=0)
    assert (report.rows, report.failed, report.retries) == (3, 0, 3)
    assert world.versions("1") == [1, 1, 3, 3]


def test_texts_go_in_at_ten_a_minute() -> None:
    """add_many keeps within the API's ten a minute; a text whose reply is lost is unknown, and not sent again."""
    texts: list[tuple[float, str]] = []

    def server(call: Call) -> Outcome:
        content = json.loads(call.request.body or b"{}").get("content")
        texts.append((call.at, content))
        if content == "text 4":
            return Outcome(0.1, reply(502, b"{}"))
        return Outcome(0.5, reply(body=b'{"artifact_id":"%d"}' % len(texts)))

    async def main() -> Any:
        async with virtual_client(VirtualWire(server)) as nex:
            run = nex.context.add_many([f"text {n}" for n in range(35)])
            async with run:
                outcomes = [outcome async for outcome in run]
            return run.report, outcomes

    report, outcomes = run_virtual(main())
    assert (report.accepted, report.unknown, report.rows, report.throttled) == (34, 1, 35, 0)
    assert [outcome.index for outcome in outcomes if outcome.status == "unknown"] == [4]
    assert len({outcome.value for outcome in outcomes if outcome.ok}) == 34
    assert sorted({text for _, text in texts}) == sorted(text for _, text in texts)
    times = [at for at, _ in texts]
    assert all(later - earlier >= 59.9 for earlier, later in zip(times, times[10:], strict=False))
    assert times[-1] - times[0] < 200


def test_a_storm_of_429_costs_patience_and_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """K15: a server that takes five rows a second gets them all, from fewer at once, and the progress says what it waits for."""
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)
    draw = random.Random(2)
    taken: list[float] = []
    applied: set[Any] = set()
    told: list[Progress] = []
    levels: list[int] = []

    def server(call: Call) -> Outcome:
        if call.request.method == "GET":
            return Outcome(0.01, reply(body=DEFINITION))
        recent = [at for at in taken if call.at - at < 1.0]
        if len(recent) >= 5:
            hint = {"retry_after": "1"} if draw.random() < 0.5 else {}
            return Outcome(0.01, reply(429, b"{}", **hint))
        taken.append(call.at)
        applied.add(json.loads(call.request.body or b"{}")["attributes"]["n"])
        return Outcome(0.05, reply())

    async def main() -> Any:
        async with virtual_client(VirtualWire(server)) as nex:
            run = nex.records.upsert_many("thing", things(200), match_on="key", progress=told.append)
            async with run:
                levels.extend([run._delivery.pace.level async for _ in run])
            return run.report

    report = run_virtual(main())
    assert (report.finished, report.failed, report.rows) == (True, 0, 200)
    assert applied == set(range(200))
    assert report.throttled > 0
    assert min(levels) <= 2
    assert any("fewer requests" in one.note for one in told)
    assert any(one.eta for one in told)


async def test_a_slow_source_is_not_kept_waiting() -> None:
    """A row of an asynchronous source is sent when it comes, not when a batch is full."""
    arrived = asyncio.Event()

    async def source() -> AsyncIterator[dict[str, Any]]:
        for row in things(5):
            arrived.clear()
            yield row
            await asyncio.wait_for(arrived.wait(), 2)

    async with serving() as (world, nex):
        world.on_hit = lambda hit: arrived.set()
        report = await upsert(nex, source(), check=False)
    assert report.rows == 5


# ---- ends -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "error"), [(401, AuthenticationError), (403, PermissionDeniedError)])
async def test_a_key_that_is_refused_ends_the_run(tmp_path: Path, code: int, error: type[Exception]) -> None:
    """401 and 403 in the middle are no fault of a row: they end the run, which goes on with a key that may."""
    async with World() as world:

        def revoke(hit: Hit) -> None:
            if hit.number == 120:
                world.key_status = code

        world.on_hit = revoke
        async with Nex(KEY, base_url=world.url) as nex:
            with pytest.raises(error):
                await upsert(nex, things(300), journal=tmp_path / "run.db")
        world.key_status, world.on_hit = 0, None
        async with Nex(KEY, base_url=world.url) as nex:
            report = await upsert(nex, things(300), journal=tmp_path / "run.db")
    assert (report.finished, report.rows, report.failed) == (True, 300, 0)
    assert world.requests <= 300 + 32


async def test_an_object_that_goes_missing_ends_the_run() -> None:
    """404 means that what all rows are written to is gone: it ends the run at once."""
    async with serving() as (world, nex):
        world.on_hit = lambda hit: setattr(world, "object_missing", hit.number >= 50)
        with pytest.raises(NotFoundError):
            await upsert(nex, things(500))
    assert world.requests < 100


async def test_a_run_that_must_end_does_not_wait_for_its_source() -> None:
    """An error ends a run at once, though its source would take an hour to bring the next row."""

    async def source() -> AsyncIterator[dict[str, Any]]:
        for row in things(3):
            yield row
        await asyncio.Event().wait()

    async with serving(lambda hit: status(401) if hit.version == 2 else late(0.02)) as (_, nex):
        with pytest.raises(AuthenticationError):
            await asyncio.wait_for(upsert(nex, source(), check=False)._whole(), 2)


async def test_closing_the_client_ends_the_run_and_keeps_its_journal(tmp_path: Path) -> None:
    """aclose during a run: ClientClosed, and what was done is in the journal."""
    async with World() as world:
        nex = Nex(KEY, base_url=world.url)
        whole = asyncio.ensure_future(upsert(nex, things(4000), journal=tmp_path / "run.db")._whole())
        while world.requests < 200:
            await asyncio.sleep(0.001)
        await nex.aclose()
        with pytest.raises(ClientClosed):
            await whole
        done = world.requests
        async with Nex(KEY, base_url=world.url) as again:
            run = upsert(again, things(done + 100), journal=tmp_path / "run.db")
            assert (await run).rows == done + 100
        assert world.requests <= done + 100 + 32 + 1
        with pytest.raises(ClientClosed):
            await upsert(nex, things(1))


async def test_leaving_the_block_early_keeps_what_was_done(tmp_path: Path) -> None:
    """After `break` no row is pulled any more, those on their way end, and the next run goes on behind them."""
    async with serving(lambda hit: late(0.002)) as (world, nex):
        run = upsert(nex, things(1000), journal=tmp_path / "run.db", concurrency=4)
        async with run:
            async for outcome in run:
                if outcome.index >= 50:
                    break
        done = world.requests
        assert run.report.rows == done <= 70
        assert not run.report.finished
        report = await upsert(nex, things(200), journal=tmp_path / "run.db")
    assert (report.finished, report.rows, world.requests) == (True, 200, 200)
    with pytest.raises(InvalidRequestError, match="started once"):
        await run


async def test_rows_that_hang_are_waited_for_a_while_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving a block waits five seconds for rows on their way; those that hang longer are sent again by the next run."""
    from nex_async.bulk import writer

    monkeypatch.setattr(writer, "_DRAIN", 0.05)
    async with serving(lambda hit: silent() if hit.version == 30 else OK) as (world, nex):
        run = upsert(nex, things(60), journal=tmp_path / "run.db", concurrency=2)
        async with run:
            async for outcome in run:
                if outcome.index >= 40:
                    break
        world.judge = None
        report = await upsert(nex, things(60), journal=tmp_path / "run.db")
    assert (report.finished, report.rows) == (True, 60)
    assert world.sent[(("k30@x.io",), 30)] == 2


async def test_a_run_cancelled_anywhere_leaves_nothing_behind(tmp_path: Path) -> None:
    """Cancelled at 40 instants, a run leaves no task and an open journal never; the next goes on; all rows are written once."""
    draw = random.Random(4)
    async with serving(lambda hit: late(0.001) if hit.number % 3 else OK) as (world, nex):
        before = asyncio.all_tasks()
        for number in range(40):
            run = upsert(nex, things(400), journal=tmp_path / "run.db", concurrency=4)
            whole = asyncio.ensure_future(run._whole())
            await asyncio.wait([whole], timeout=draw.uniform(0.0, 0.01) if number else 0)
            whole.cancel()
            await asyncio.wait([whole], timeout=5)
            assert whole.done()
            assert asyncio.all_tasks() <= before | {whole}
        report = await upsert(nex, things(400), journal=tmp_path / "run.db")
    assert (report.finished, report.rows, report.failed) == (True, 400, 0)
    assert set(world.records) == {row["key"] for row in things(400)}
    assert world.requests <= 400 + 40 * 4


async def test_stopping_lets_rows_on_their_way_end() -> None:
    """`stop` ends a run in good order from outside: what was sent has its outcome."""
    async with serving(lambda hit: late(0.005)) as (world, nex):
        run = upsert(nex, things(500), concurrency=4)
        count = 0
        async with run:
            async for _ in run:
                count += 1
                if count == 20:
                    run.stop()
    assert count == world.requests == run.report.rows < 40
    assert not run.report.finished


@pytest.mark.parametrize("number", [0, 1])
async def test_small_sources_end(number: int) -> None:
    """No row, and one row."""
    async with serving() as (world, nex):
        report = await upsert(nex, things(number))
    assert (report.finished, report.rows, world.requests) == (True, number, number)
