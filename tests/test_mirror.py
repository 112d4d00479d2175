"""The laws of the mirror: the file is what the server holds, whatever happens in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nex_async import (
    CheckpointError,
    ClientClosed,
    InvalidRequestError,
    Nex,
    NotFoundError,
    ServerError,
    StorageCorrupt,
    StorageLocked,
    TenantMismatch,
)
from nex_async.bulk.mirror import Mirror, MirrorReport, TableReport
from nex_async.bulk.mirroring import file, reading
from nex_async.bulk.mirroring.file import Row, Seen
from nex_async.bulk.mirroring.values import Column, storable
from nex_async.bulk.progress import Progress
from nex_async.emulator import Emulator
from nex_async.errors import PaginationError
from nex_async.models import Attribute
from nex_async.models.attributes import flatten
from nex_async.models.objects import AttributeOptions
from nex_async.routes import Route
from nex_async.transport.retry import RetryPolicy
from nex_async.transport.sender import Sender

from .harness.canary import KEY
from .test_cli import COMMAND

Rows = dict[str, tuple[Any, ...]]
ROOT = Path(__file__).parent.parent


class Altered(Sender):
    """Sends as a client does, but lets a test act before each call, and change what comes of it."""

    def __init__(
        self,
        nex: Nex,
        *,
        before: Callable[[str, Any], Awaitable[None]] | None = None,
        after: Callable[[str, Any, Any], Any] | None = None,
    ) -> None:
        super().__init__(nex._sender.state, nex._sender.settings)
        self.before = before
        self.after = after
        self.calls: list[tuple[str, Any]] = []
        self.places: list[Any] = []

    async def send(
        self, route: Route[Any], path: Any = (), query: Any = None, body: Any = msgspec.UNSET, options: Any = None
    ) -> Any:
        self.calls.append((route.name, body))
        self.places.append(path)
        if self.before is not None:
            await self.before(route.name, body)
        reply = await super().send(route, path, query, body, options)
        return reply if self.after is None else self.after(route.name, body, reply)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "crm.sqlite")


@contextlib.contextmanager
def reader(path: str) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else."""
    connection = sqlite3.connect(path)
    try:
        yield connection
    finally:
        connection.close()


def select(path: str, query: str) -> list[tuple[Any, ...]]:
    with reader(path) as connection:
        return connection.execute(query).fetchall()


def rows_in(path: str, table: str) -> Rows:
    found = select(path, f'SELECT id, created_at, updated_at, _attributes FROM "{table}"')
    return {row[0]: (row[1], row[2], json.loads(row[3])) for row in found}


async def rows_of(nex: Nex, slug: str | None = None, list_id: str | None = None) -> Rows:
    """Return what the server holds, in the form of `rows_in`."""
    pager = nex.records.list(slug, limit=1000) if slug else nex.lists.records(list_id or "", limit=1000)
    return {row.id: (row._created_at, row._updated_at, row.attributes) async for row in pager}


async def companies(nex: Nex, count: int) -> list[str]:
    created = await asyncio.gather(
        *(nex.records.create("company", {"name": f"C{n}", "industry": "x"}) for n in range(count))
    )
    return [record.id for record in created]


def ticking(step: float = 10.0) -> Callable[[], float]:
    """A clock that goes on by `step` seconds whenever it is read."""
    now = 1_750_000_000.0

    def clock() -> float:
        nonlocal now
        now += step
        return now

    return clock


async def one_sync(nex: Nex, path: str, **choice: Any) -> MirrorReport:
    choice.setdefault("relationships", False)
    sweep = choice.pop("sweep", True)
    async with nex.mirror(path, **choice) as mirror:
        return await mirror.sync(sweep=sweep)


# ---- the file is what the server holds ------------------------------------------------------------------------------


class World:
    """Changes a workspace at random."""

    def __init__(self, nex: Nex, seed: int) -> None:
        self.nex = nex
        self.random = random.Random(seed)
        self.alive: list[str] = []
        self.people: list[str] = []
        self.edges: dict[tuple[str, str], str] = {}
        self.list_id = self.definition_id = ""

    async def begin(self) -> None:
        nex = self.nex
        self.list_id = (await nex.lists.create("company", "vip", "VIP")).id
        person, company = await nex.objects.get("person"), await nex.objects.get("company")
        definition = await nex.relationships.create_definition(
            "many_to_many", person.id, company.id, entity_1_to_2_predicate="leads"
        )
        self.definition_id = definition.id
        self.alive = await companies(nex, 40)
        self.people = [(await nex.records.create("person", {"name": f"P{n}"})).id for n in range(3)]

    async def change(self) -> None:
        nex, chance = self.nex, self.random.random()
        one = self.random.choice(self.alive)
        if chance < 0.25 or len(self.alive) < 10:
            self.alive += await companies(nex, 1)
        elif chance < 0.5:
            await nex.records.update(one, {"description": f"quote ' \" ünïcode \u2028 {self.random.random()}"})
        elif chance < 0.75:
            await nex.records.delete(one)
            self.alive.remove(one)
            self.edges = {pair: number for pair, number in self.edges.items() if one not in pair}
        elif chance < 0.85:
            await nex.lists.upsert_member(self.list_id, one)
        elif (pair := (self.random.choice(self.people), one)) in self.edges:
            await nex.relationships.delete(one, self.edges.pop(pair))
        else:
            made = await nex.relationships.create(
                one, definition_id=self.definition_id, entity_1_id=pair[0], entity_2_id=one
            )
            self.edges[pair] = made.id

    async def check(self, path: str) -> None:
        assert rows_in(path, "company") == await rows_of(self.nex, "company")
        assert rows_in(path, "person") == await rows_of(self.nex, "person")
        assert rows_in(path, "list_vip") == await rows_of(self.nex, list_id=self.list_id)
        graph = await self.nex.graph.get(limit=5000)
        edges = {(edge.id, edge.definition_id, edge.source, edge.target, edge.label) for edge in graph.edges}
        assert set(select(path, "SELECT id, definition_id, source, target, label FROM relationships")) == edges
        definitions = {each.id async for each in self.nex.relationships.list_definitions()}
        assert {row[0] for row in select(path, "SELECT id FROM relationship_definitions")} == definitions


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_file_is_what_the_server_holds(nex: Nex, path: str, seed: int) -> None:
    """Whatever was created, changed and deleted between two syncs, the file is the server's state after the second."""
    world = World(nex, seed)
    await world.begin()
    async with nex.mirror(path, objects=["company", "person"], lists=[world.list_id], page_size=7) as mirror:
        for _ in range(6):
            report = await mirror.sync()
            assert report.relationships_complete
            await world.check(path)
            for _ in range(8):
                await world.change()
        await mirror.sync()
        await world.check(path)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
async def test_changes_while_it_reads(nex: Nex, path: str, seed: int) -> None:
    """A workspace that changes before every page loses no row that stays, and a quiet sync later the file is exact."""
    world = World(nex, seed)
    await world.begin()
    staying = set(world.alive)

    async def before(name: str, body: Any) -> None:
        if name in ("listRecords", "getListRecords"):
            await world.change()

    sender = Altered(nex, before=before)
    async with Mirror(sender, path, objects=["company", "person"], lists=[world.list_id], page_size=6) as mirror:
        for _ in range(4):
            await mirror.sync()
            staying &= set(world.alive)
            assert staying <= set(rows_in(path, "company"))
        sender.before = None
        await mirror.sync()
        await world.check(path)


async def test_rows_deleted_while_everything_is_read_hide_none(path: str) -> None:
    """Rows that move up past the reader, because others before them go, are read with their page all the same.

    What was read and is gone is found at once, although no sweep was asked for: the first reading is checked.
    """
    async with Emulator(keys={KEY: None}, clock=ticking()) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        ids = await companies(nex, 60)
        ids.sort(key=int)
        gone = iter(ids[:20])

        async def before(name: str, body: Any) -> None:
            if name == "listRecords" and body["offset"] >= 20:
                for number in (next(gone, None), next(gone, None), next(gone, None)):
                    if number is not None:
                        await nex.records.delete(number)

        sender = Altered(nex, before=before)
        async with Mirror(sender, path, objects=["company"], relationships=False, page_size=10) as mirror:
            await mirror.sync(sweep=False)
        assert rows_in(path, "company") == await rows_of(nex, "company")
        assert {place[0] for place in sender.places if place} <= {"company", *ids[:20]}


async def test_an_unchanged_object_costs_a_page_and_the_sweep(path: str) -> None:
    """The second sync of an object that has not changed reads one page of it, and its ids; no row is written."""
    async with Emulator(keys={KEY: None}, clock=ticking()) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        await companies(nex, 250)
        sender = Altered(nex)
        async with Mirror(sender, path, objects=["company"], relationships=False, page_size=50) as mirror:
            assert (await mirror.sync()).inserted == 250
            sender.calls.clear()
            report = await mirror.sync()
        listings = [body["attributes"] for name, body in sender.calls if name == "listRecords"]
        assert listings.count("all") == 1
        assert listings.count("none") == 6  # pages overlap by a row
        assert (report.changed, report.rows_read) == (False, 50 + 255)


async def test_only_what_changed_is_read_and_written(path: str) -> None:
    """A sync without a sweep reads the page that holds the change, and writes the one row."""
    async with Emulator(keys={KEY: None}, clock=ticking()) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        ids = await companies(nex, 100)
        await one_sync(nex, path, objects=["company"], page_size=20)
        await nex.records.update(ids[0], {"name": "changed"})
        report = await one_sync(nex, path, objects=["company"], page_size=20, sweep=False)
        table = report.tables["company"]
        assert (table.rows_read, table.inserted, table.updated, table.deleted) == (20, 0, 1, 0)
        assert (table.full, table.swept, table.requests) == (False, False, 1)
        assert rows_in(path, "company") == await rows_of(nex, "company")


async def test_the_newest_moment_settles(nex: Nex, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the overlap has passed since the newest change was seen, what bears that moment is not read again."""
    await companies(nex, 100)
    report = await one_sync(nex, path, objects=["company"], page_size=20)
    assert (await one_sync(nex, path, objects=["company"], page_size=20, sweep=False)).requests > 5
    monkeypatch.setattr(reading, "OVERLAP", 0.0)
    for expected in (None, 1):
        report = await one_sync(nex, path, objects=["company"], page_size=20, sweep=False)
        assert expected in (None, report.requests)


async def test_a_change_that_comes_to_light_late_is_found(nex: Nex, path: str) -> None:
    """A row that was hidden, and shows with a time older than the newest one seen, gets into the file."""
    ids = await companies(nex, 5)
    hidden = {ids[2]}

    def after(name: str, body: Any, reply: Any) -> Any:
        if name == "listRecords":
            reply.rows[:] = [row for row in reply.rows if row.id not in hidden]
            reply.listing.total -= len(hidden)
        return reply

    async with Mirror(Altered(nex, after=after), path, objects=["company"], relationships=False) as mirror:
        await mirror.sync()
        assert set(rows_in(path, "company")) == set(ids) - hidden
        hidden.clear()
        await mirror.sync(sweep=False)
        assert set(rows_in(path, "company")) == set(ids)


async def test_the_sweep_finds_rows_that_are_not_as_they_should_be(path: str) -> None:
    """A row that is missing or outdated here, for whatever reason, is fetched when a sweep meets it."""
    async with Emulator(keys={KEY: None}, clock=ticking()) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        ids = await companies(nex, 60)
        await one_sync(nex, path, objects=["company"], page_size=10)
        with reader(path) as connection, connection:
            connection.execute("DELETE FROM company WHERE id IN (?, ?)", (ids[9], ids[20]))
            connection.execute(
                "UPDATE company SET updated_at = '2001-01-01T00:00:00Z', name = 'old' WHERE id = ?", (ids[3],)
            )
        report = await one_sync(nex, path, objects=["company"], page_size=10)
        assert (report.inserted, report.updated, report.deleted) == (2, 1, 0)
        assert rows_in(path, "company") == await rows_of(nex, "company")
        assert select(path, f"SELECT name FROM company WHERE id = '{ids[3]}'") == [("C3",)]


async def test_a_file_that_is_far_off_is_read_anew(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a sweep finds too much amiss, everything is read again in pages, not row by row."""
    monkeypatch.setattr(reading, "_MOST_STALE", 10)
    async with Emulator(keys={KEY: None}, clock=ticking()) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        ids = await companies(nex, 60)
        await one_sync(nex, path, objects=["company"], page_size=10)
        with reader(path) as connection, connection:
            connection.execute("DELETE FROM company WHERE id <> ?", (ids[59],))
        sender = Altered(nex)
        async with Mirror(sender, path, objects=["company"], relationships=False, page_size=10) as mirror:
            await mirror.sync()
        assert rows_in(path, "company") == await rows_of(nex, "company")
        assert "getRecord" not in [name for name, _ in sender.calls]


# ---- what is deleted, and what is not -------------------------------------------------------------------------------


async def test_a_deletion_is_found_by_the_sweep_alone(nex: Nex, path: str) -> None:
    """A deleted record leaves the file with the next sweep, and not without one."""
    async with Emulator(keys={KEY: None}, clock=ticking()) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        ids = await companies(nex, 30)
        await one_sync(nex, path, objects=["company"], page_size=10)
        await nex.records.delete(ids[4])
        await nex.records.delete(ids[25])
        assert (await one_sync(nex, path, objects=["company"], page_size=10, sweep=False)).deleted == 0
        assert len(rows_in(path, "company")) == 30
        report = await one_sync(nex, path, objects=["company"], page_size=10)
        assert (report.deleted, report.tables["company"].swept) == (2, True)
        assert set(rows_in(path, "company")) == set(ids) - {ids[4], ids[25]}


async def test_everything_may_be_deleted(nex: Nex, path: str) -> None:
    """An object that was emptied is emptied here."""
    for number in await companies(nex, 12):
        await one_sync(nex, path, objects=["company"])
        await nex.records.delete(number)
    assert (await one_sync(nex, path, objects=["company"])).deleted == 1
    assert rows_in(path, "company") == {}


@pytest.mark.parametrize("page", [0, 1, 2])
async def test_a_failing_sweep_deletes_nothing(path: str, page: int) -> None:
    """Whichever page of the sweep fails, no row is deleted; the next sweep finds what this one could not."""
    async with Emulator(keys={KEY: None}, clock=ticking()) as emulator:
        async with Nex(KEY, base_url=emulator.url, retry=RetryPolicy(retries=0)) as nex:
            ids = await companies(nex, 40)
            await one_sync(nex, path, objects=["company"], page_size=15)
            await nex.records.delete(ids[1])
            emulator.faults.add(kind="status", status=500, route="listRecords", after=1 + page)
            with pytest.raises(ServerError):
                await one_sync(nex, path, objects=["company"], page_size=15)
            assert len(rows_in(path, "company")) == 40
            await one_sync(nex, path, objects=["company"], page_size=15)
            assert set(rows_in(path, "company")) == set(ids) - {ids[1]}


def lying(name: str, body: Any, reply: Any) -> Any:
    """A server that shows nothing."""
    if name == "listRecords":
        reply.rows.clear()
        reply.listing.total = 0
    return reply


def forgetful(name: str, body: Any, reply: Any) -> Any:
    """A server that leaves out the first row, and still counts it."""
    if name == "listRecords" and body["offset"] == 0:
        del reply.rows[0]
    return reply


def uncounted(name: str, body: Any, reply: Any) -> Any:
    """A server that leaves out the first row, and does not count."""
    if name == "listRecords":
        reply.listing.total = None
        if body["offset"] == 0:
            del reply.rows[0]
    return reply


@pytest.mark.parametrize("after", [lying, forgetful, uncounted])
async def test_a_listing_that_leaves_rows_out_deletes_none(
    nex: Nex, path: str, after: Callable[[str, Any, Any], Any]
) -> None:
    """A row that a listing does not show, and that is there when asked for, stays; one that is gone goes."""
    ids = await companies(nex, 20)
    await one_sync(nex, path, objects=["company"])
    await nex.records.delete(ids[7])
    async with Mirror(Altered(nex, after=after), path, objects=["company"], relationships=False) as mirror:
        await mirror.sync()
    assert set(rows_in(path, "company")) == set(ids) - {ids[7]}


async def test_rows_that_cannot_be_read_delete_nothing(nex: Nex, path: str) -> None:
    """A page with rows that cannot be decoded is told of, and costs no row."""
    ids = await companies(nex, 20)
    await one_sync(nex, path, objects=["company"])

    def after(name: str, body: Any, reply: Any) -> Any:
        if name == "listRecords":
            reply.errors += [msgspec.DecodeError()] * 2
            del reply.rows[3:5]
        return reply

    async with Mirror(Altered(nex, after=after), path, objects=["company"], relationships=False) as mirror:
        report = await mirror.sync()
    assert report.tables["company"].unreadable >= 2
    assert set(rows_in(path, "company")) == set(ids)


async def test_a_list_that_does_not_add_up_deletes_nothing(nex: Nex, path: str) -> None:
    """Members of a list cannot be asked for one by one: while fewer come than are counted, none is deleted."""
    ids = await companies(nex, 10)
    vip = await nex.lists.create("company", "vip", "VIP")
    for number in ids:
        await nex.lists.upsert_member(vip.id, number)
    await one_sync(nex, path, lists=[vip.id])

    def shorter(name: str, body: Any, reply: Any) -> Any:
        if name == "getListRecords":
            del reply.rows[0]
        return reply

    async with Mirror(Altered(nex, after=shorter), path, lists=[vip.id], relationships=False) as mirror:
        report = await mirror.sync()
    assert (report.deleted, report.tables["list_vip"].swept) == (0, False)
    assert len(rows_in(path, "list_vip")) == 10


# ---- servers of other kinds -----------------------------------------------------------------------------------------


def by_name(body: Any) -> None:
    body["sort"] = {"attribute": "name", "direction": "asc"}


def newest_first(body: Any) -> None:
    body["sort"] = {"attribute": "created_at", "direction": "desc"}


def changes_by_name(body: Any) -> None:
    if body["sort"]["attribute"] == "updated_at":
        by_name(body)


@pytest.mark.parametrize("order", [by_name, newest_first, changes_by_name])
async def test_a_server_that_ignores_the_order(path: str, order: Callable[[Any], None]) -> None:
    """Where the rows do not come in the order asked for, all are read and compared, and no change is missed."""
    async with Emulator(keys={KEY: None}, clock=ticking()) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        ids = await companies(nex, 50)

        async def before(name: str, body: Any) -> None:
            if name == "listRecords":
                order(body)

        sender = Altered(nex, before=before)
        async with Mirror(sender, path, objects=["company"], relationships=False, page_size=10) as mirror:
            await mirror.sync()
            await nex.records.update(ids[25], {"industry": "y"})
            await nex.records.delete(ids[31])
            assert (await mirror.sync(sweep=False)).updated == 1
            await mirror.sync()
        assert rows_in(path, "company") == await rows_of(nex, "company")


async def test_rows_without_timestamps(nex: Nex, path: str) -> None:
    """Rows that do not say when they changed are compared, all of them; those that are gone go."""
    ids = await companies(nex, 30)

    def after(name: str, body: Any, reply: Any) -> Any:
        if name in ("listRecords", "getRecord"):
            for row in getattr(reply, "rows", None) or [reply]:
                row.created_at = row.updated_at = None
        return reply

    async with Mirror(Altered(nex, after=after), path, objects=["company"], relationships=False, page_size=10) as mirror:
        await mirror.sync()
        await nex.records.update(ids[20], {"name": "changed"})
        await nex.records.delete(ids[3])
        report = await mirror.sync()
    assert (report.updated, report.deleted) == (1, 1)
    held = rows_in(path, "company")
    assert {number: row[2] for number, row in held.items()} == {
        key: row[2] for key, row in (await rows_of(nex, "company")).items()
    }


async def test_one_row_without_a_timestamp_is_enough(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where some rows say when they changed and others do not, no order can be trusted, and all are read."""
    monkeypatch.setattr(reading, "OVERLAP", 0.0)
    async with Emulator(keys={KEY: None}, clock=ticking()) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        ids = await companies(nex, 30)
        oldest, newest = min(ids, key=int), max(ids, key=int)

        async def before(name: str, body: Any) -> None:
            if name == "listRecords" and body["sort"]["attribute"] == "updated_at":
                body["sort"] = {"attribute": "created_at", "direction": "asc"}

        def after(name: str, body: Any, reply: Any) -> Any:
            for row in reply.rows if name == "listRecords" else ():
                if row.id != oldest:
                    row.updated_at = None
            return reply

        sender = Altered(nex, before=before, after=after)
        async with Mirror(sender, path, objects=["company"], relationships=False, page_size=10) as mirror:
            for _ in range(3):
                await mirror.sync()
            await nex.records.update(newest, {"industry": "y"})
            assert (await mirror.sync(sweep=False)).updated == 1


async def test_a_file_that_somebody_works_on_during_a_sweep(nex: Nex, path: str) -> None:
    """A sweep is made again when the file was altered meanwhile: a VACUUM may give its rows other numbers."""
    ids = await companies(nex, 30)
    vip = await nex.lists.create("company", "vip", "VIP")
    members = [await nex.lists.upsert_member(vip.id, number) for number in ids]
    await one_sync(nex, path, lists=[vip.id])
    await nex.lists.remove_member(vip.id, members[3].id)
    pages: list[int] = []

    async def before(name: str, body: Any) -> None:
        if name == "getListRecords":
            pages.append(body["offset"])
            if len(pages) == 3:
                select(path, "CREATE INDEX theirs ON list_vip (name)")

    async with Mirror(Altered(nex, before=before), path, lists=[vip.id], relationships=False, page_size=10) as mirror:
        assert (await mirror.sync()).deleted == 1
    assert pages == [0, 9, 18, 27] * 2
    assert set(rows_in(path, "list_vip")) == {each.id for each in members} - {members[3].id}


async def test_a_server_that_ignores_the_offset_ends_the_sync(nex: Nex, path: str) -> None:
    """The same page over and over is an error, not an endless loop."""
    await companies(nex, 30)

    async def before(name: str, body: Any) -> None:
        if name == "listRecords":
            body["offset"] = 0

    with pytest.raises(PaginationError):
        async with Mirror(
            Altered(nex, before=before), path, objects=["company"], relationships=False, page_size=10
        ) as mirror:
            await mirror.sync()


async def test_a_server_that_gives_smaller_pages(emulator: Emulator, nex: Nex, path: str) -> None:
    """A page of one row, or of fewer rows than were asked for, is stepped over as it is."""
    await companies(nex, 12)
    for size in (1, 3):

        async def before(name: str, body: Any, size: int = size) -> None:
            if name == "listRecords":
                body["limit"] = size

        file_path = f"{path}{size}"
        async with Mirror(Altered(nex, before=before), file_path, objects=["company"], relationships=False) as mirror:
            await mirror.sync()
            await mirror.sync()
        assert rows_in(file_path, "company") == await rows_of(nex, "company")


# ---- killed ---------------------------------------------------------------------------------------------------------

_CHILD = """
import asyncio, sys
from nex_async import Nex
async def main():
    async with Nex(sys.argv[1], base_url=sys.argv[2]) as nex:
        async with nex.mirror(sys.argv[3], objects=["company"], relationships=False, page_size=4) as mirror:
            await mirror.sync()
asyncio.run(main())
"""


async def test_killed_at_any_instant_it_goes_on(emulator: Emulator, nex: Nex, path: str) -> None:
    """After kill -9 the file is whole, holds whole pages, and the next process goes on behind them."""
    await companies(nex, 500)
    emulator.faults.add(kind="delay", seconds=0.003, route="listRecords", times=None)
    reached = 0
    for goal in (1, 120, 250):
        process = subprocess.Popen([sys.executable, "-W", "error", "-c", _CHILD, KEY, emulator.url, path])
        try:
            while process.poll() is None:
                await asyncio.sleep(0.005)
                with contextlib.suppress(sqlite3.OperationalError):
                    if select(path, "SELECT count(*) FROM company")[0][0] >= goal:
                        break
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert select(path, "PRAGMA integrity_check") == [("ok",)]
        ((count,),) = select(path, "SELECT count(*) FROM company")
        ((state,),) = select(path, "SELECT state FROM _nex_tables")
        assert json.loads(state)["offset"] == count
        assert goal <= count < 500
        assert count >= reached
        reached = count
    emulator.faults.clear()
    sender = Altered(nex)
    async with Mirror(sender, path, objects=["company"], relationships=False, page_size=100) as mirror:
        report = await mirror.sync()
    first = next(body for name, body in sender.calls if name == "listRecords")
    assert first["offset"] == reached - 1
    assert report.tables["company"].full
    assert report.inserted == 500 - reached
    assert rows_in(path, "company") == await rows_of(nex, "company")


# ---- attributes and columns -----------------------------------------------------------------------------------------


async def test_columns_hold_natural_values(nex: Nex, path: str) -> None:
    """Numbers are numbers, truth is 0 or 1, several values are a JSON array, and everything is in `_attributes` as sent."""
    objects = nex.objects
    await objects.create_attribute("company", "revenue", "Revenue", "number")
    await objects.create_attribute("company", "big", "Big", "number", is_whole_number=True)
    await objects.create_attribute("company", "public", "Public", "boolean")
    await objects.create_attribute("company", "budget", "Budget", "currency")
    values = {
        "name": 'O\'Brien "&" Søn\u2028\U0001f600',
        "domains": ["a.io", "ü.io"],
        "revenue": 1.5,
        "big": 2**53 + 1,
        "public": True,
        "budget": {"value": 5, "currency": "EUR"},
        "location": {"city": "Bern", "country": "CH"},
    }
    await nex.records.create("company", values)
    await one_sync(nex, path, objects=["company"])
    query = "SELECT name, domains, revenue, big, public, budget, location, linkedin FROM company"
    assert select(path, query) == [
        (
            values["name"],
            '["a.io","ü.io"]',
            1.5,
            2**53 + 1,
            1,
            '{"currency":"EUR","value":5}',
            '{"city":"Bern","country":"CH"}',
            None,
        )
    ]
    assert [row[2] for row in rows_in(path, "company").values()] == [values]
    types = {row[1]: row[2] for row in select(path, "PRAGMA table_info(company)")}
    assert (types["revenue"], types["big"], types["public"], types["domains"]) == ("NUMERIC", "INTEGER", "INTEGER", "TEXT")


async def test_the_three_encodings_land_as_one(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """Columns are the same whether values come plain, structured, or as typed objects."""
    await nex.objects.create_attribute("person", "score", "Score", "number")
    await nex.objects.create_attribute("person", "active", "Active", "boolean")
    await nex.objects.create_attribute("person", "since", "Since", "date")
    await nex.objects.create_attribute("person", "stage", "Stage", "select", select_options=[{"id": "won", "name": "Won"}])
    common = {
        "email_addresses": ["ada@x.io"],
        "score": 2.5,
        "active": False,
        "since": "2026-01-02T03:04:05Z",
        "stage": "won",
    }
    plain = {"name": "Ada Park", "location": "Bern", "linkedin": "ada", **common}
    structured = {
        "name": {"first_name": "Ada", "last_name": "Park"},
        "location": {"city": "Bern"},
        "linkedin": {"username": "ada", "url": "https://x.io"},
        "phone_numbers": [{"country_code": 49, "number": "30 1234567"}],
        **common,
        "email_addresses": ["park@x.io"],
    }
    for values in (plain, structured):
        await nex.records.create("person", values)
    held = []
    for encoding in ("plain", "typed"):
        emulator.switches.set(attribute_encoding=encoding)
        path = str(tmp_path / encoding)
        await one_sync(nex, path, objects=["person"])
        columns = "name, location, linkedin, phone_numbers, email_addresses, score, active, since, stage"
        held.append(select(path, f"SELECT {columns} FROM person ORDER BY id"))
    assert held[0] == held[1]
    assert [row[0] for row in held[0]] == ["Ada Park", "Ada Park"]
    assert held[0][1][3:] == ('["+49 30 1234567"]', '["park@x.io"]', 2.5, 0, "2026-01-02T03:04:05Z", "won")


async def test_a_new_attribute_gets_its_column(path: str) -> None:
    """A column for an attribute made later is there after the next sync, filled where its values came before it."""
    async with Emulator(keys={KEY: None}, clock=ticking()) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        ids = await companies(nex, 30)
        await nex.objects.create_attribute("company", "size", "Size", "number", is_whole_number=True)
        for number in ids:
            await nex.records.update(number, {"size": int(number[-2:])})

        def after(name: str, body: Any, reply: Any) -> Any:
            if name == "getObjectDefinition":
                reply.attributes = [each for each in reply.attributes if each.slug != "size"]
            return reply

        async with Mirror(Altered(nex, after=after), path, objects=["company"], relationships=False) as mirror:
            await mirror.sync()
        report = await one_sync(nex, path, objects=["company"])
        assert not report.changed
        assert dict(select(path, "SELECT id, size FROM company")) == {number: int(number[-2:]) for number in ids}
        attribute = (await nex.objects.get("company")).attribute("size")
        assert attribute is not None
        await nex.objects.delete_attribute("company", attribute.id)
        await one_sync(nex, path, objects=["company"])
        assert "size" in {row[1] for row in select(path, "PRAGMA table_info(company)")}


async def test_filling_goes_on_where_it_was(nex: Nex, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new column that was filled halfway, when the process ended, is filled to its end by the next sync."""
    ids = await companies(nex, 50)
    await one_sync(nex, path, objects=["company"])
    with reader(path) as connection, connection:
        connection.execute("UPDATE company SET industry = NULL WHERE _rowid_ > 20")
        connection.execute("UPDATE _nex_columns SET filled = 0 WHERE slug = 'industry'")
        connection.execute("UPDATE _nex_tables SET state = json_set(state, '$.filled', 20)")
    monkeypatch.setattr(file, "_FILLED", 7)
    await one_sync(nex, path, objects=["company"])
    assert select(path, "SELECT count(*) FROM company WHERE industry = 'x'") == [(len(ids),)]
    assert select(path, "SELECT min(filled) FROM _nex_columns") == [(1,)]


def attribute(slug: str, kind: str = "text", many: bool = False) -> Attribute:
    return Attribute(id=slug, slug=slug, type=kind, options=AttributeOptions(is_multi_value=many))


def row(number: str, attributes: bytes) -> Row:
    return Row(id=number, attributes=msgspec.Raw(attributes))


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    found = sqlite3.connect(":memory:", isolation_level=None)
    file.open_file(found, "memory", "here")
    yield found
    found.close()


@pytest.mark.parametrize(
    "slug",
    [
        "select",
        'a"b',
        "a'b; --",
        "_nex_meta",
        "sqlite_x",
        "relationships",
        "Relationship_Definitions",
        "x\0y",
        "ü n",
        "%s{0}",
    ],
)
def test_odd_slugs_name_tables_and_columns(connection: sqlite3.Connection, slug: str) -> None:
    """X29: whatever an object or attribute is called, it has a table or column that can be written and read."""
    clashing = [attribute(name) for name in (slug, "id", "ID", "_attributes", "_rowid_", "rowid", "name", "NAME")]
    for _ in range(2):
        table = file.open_table(connection, "object", slug, "1", slug, clashing, None)
    columns = sorted(table.columns, key=lambda column: clashing.index(attribute(column.slug)))
    names = [column.name for column in columns]
    assert len({name.lower() for name in names} | {"id", "created_at", "updated_at", "_attributes"}) == len(clashing) + 4
    values = {each.slug: f"value of {each.slug!a}" for each in clashing}
    data = json.dumps(values).encode()
    for number in ("1", "2", "1"):
        assert file.apply_rows(connection, table, [row(number, data)], Seen()) is not None
    quoted = ", ".join(map(file.quoted, names))
    held = connection.execute(f"SELECT {quoted} FROM {table.quoted}").fetchall()
    assert held == [tuple(values.values())] * 2
    assert not table.name.lower().startswith(("_nex_", "sqlite_"))
    assert table.name.lower() not in ("relationships", "relationship_definitions")


@pytest.mark.parametrize(
    ("kind", "sent", "held"),
    [
        ("number", "18446744073709551617", 2.0**64),
        ("number", "9007199254740993", 2**53 + 1),
        ("number", "1" + "0" * 400, float("inf")),
        ("number", '{"type": "number", "number": 3}', 3),
        ("text", "true", "1"),
        ("text", '"\\ud800x"', "?x"),
        ("text", '"a\\u0000b"', "a\0b"),
        ("text", '{"id": "9", "type": "text", "text": ""}', ""),
        ("text", '"\');DROP TABLE thing;--"', "');DROP TABLE thing;--"),
        ("text", "[]", None),
        ("text", '[{"type": "text", "text": "one"}]', "one"),
        ("text", '["a", "b"]', '["a","b"]'),
        ("boolean", '{"type": "boolean", "boolean": false}', 0),
        ("rating", '{"type": "rating", "rating": 4}', 4),
        ("location", '{"address": {"city": "Bern"}}', '{"city":"Bern"}'),
        ("location", '{"type": "location", "location": {"city": "Bern"}}', '{"city":"Bern"}'),
        ("entity_reference", '{"type": "entity_reference", "id": "77"}', '{"id":"77","type":"entity_reference"}'),
        ("currency", '{"type": "currency", "value": 5, "currency": "EUR"}', '{"currency":"EUR","value":5}'),
    ],
)
def test_odd_values_land(connection: sqlite3.Connection, kind: str, sent: str, held: Any) -> None:
    """X29: a value lands as its column can hold it; what came stays in `_attributes` to the byte."""
    table = file.open_table(connection, "object", "thing", "1", "thing", [attribute("v", kind)], None)
    data = f'{{"v": {sent}}}'
    file.apply_rows(connection, table, [row("1", data.encode())], Seen())
    assert connection.execute("SELECT v, _attributes FROM thing").fetchall() == [(held, data)]


@pytest.mark.parametrize("sent", ["null", "[]", '"x"', "5", '{"v": null}', "{}"])
def test_attributes_that_are_none(connection: sqlite3.Connection, sent: str) -> None:
    """Attributes that are no object leave the columns empty."""
    table = file.open_table(connection, "object", "thing", "1", "thing", [attribute("v")], None)
    file.apply_rows(connection, table, [row("1", sent.encode())], Seen())
    assert connection.execute("SELECT v FROM thing").fetchall() == [(None,)]


def test_several_values_are_an_array_however_they_come() -> None:
    """One plain value of a multi-value attribute is an array of one."""
    column = Column("v", "v", "email", True)
    for sent in ("a@x.io", ["a@x.io"], {"type": "email", "email": "a@x.io"}, [{"id": 1, "email": "a@x.io"}]):
        assert storable(column, sent) == '["a@x.io"]'
    assert flatten(["a@x.io"]) == "a@x.io"


def test_the_bits_of_a_sweep() -> None:
    """What was added is in it, and counted once."""
    seen, numbers = Seen(), random.Random(1).sample(range(1, 100_000), 2000)
    for number in [*numbers, *numbers]:
        seen.add(number)
    assert seen.count == 2000
    assert [number for number in range(1, 100_100) if number in seen] == sorted(numbers)


# ---- lists and relationships ----------------------------------------------------------------------------------------


async def test_a_list_follows_its_records(nex: Nex, path: str) -> None:
    """A member's row carries the values of its record, also when only the record has changed."""
    ids = await companies(nex, 5)
    vip = await nex.lists.create("company", "vip", "VIP")
    members = [await nex.lists.upsert_member(vip.id, number) for number in ids[:3]]
    await one_sync(nex, path, objects=["company"], lists=[vip.id])
    assert select(path, "SELECT id, name FROM list_vip ORDER BY id") == [(each.id, each.text("name")) for each in members]
    await nex.records.update(ids[1], {"name": "renamed"})
    await nex.lists.remove_member(vip.id, members[0].id)
    report = await one_sync(nex, path, lists=[int(vip.id)])
    assert (report.tables["list_vip"].updated, report.tables["list_vip"].deleted) == (1, 1)
    assert select(path, "SELECT name FROM list_vip ORDER BY id") == [("renamed",), ("C2",)]
    assert len(rows_in(path, "company")) == 5


async def test_a_cut_graph_deletes_no_relationship(nex: Nex, path: str) -> None:
    """Where the graph counts more relationships than it shows, that is told, and those not shown stay."""
    world = World(nex, 1)
    await world.begin()
    lead = world.people[0]
    made = [
        await nex.relationships.create(lead, definition_id=world.definition_id, entity_1_id=lead, entity_2_id=one)
        for one in world.alive[:3]
    ]
    async with nex.mirror(path) as mirror:
        report = await mirror.sync()
        assert (report.relationships_complete, report.inserted) == (True, 4)
        assert not (await mirror.sync()).changed
    await nex.relationships.delete(lead, made[0].id)

    def cut(name: str, body: Any, reply: Any) -> Any:
        return reply.replace(b'"total_edges":2', b'"total_edges":3') if name == "getGraph" else reply

    def bare(name: str, body: Any, reply: Any) -> Any:
        return b"{}" if name == "getGraph" else reply

    for after in (cut, bare):
        async with Mirror(Altered(nex, after=after), path) as mirror:
            report = await mirror.sync()
        assert (report.relationships_complete, report.deleted) == (False, 0)
    async with nex.mirror(path) as mirror:
        report = await mirror.sync()
    assert (report.relationships_complete, report.deleted) == (True, 1)


# ---- watching -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def watching(mirror: Mirror, **times: float) -> AsyncIterator[asyncio.Queue[Any]]:
    """Iterate over a watch; its reports, and at last its error or None, are in a queue."""
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def follow() -> None:
        try:
            async for report in mirror.watch(**times):
                queue.put_nowait(report)
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    task = asyncio.ensure_future(follow())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_an_insight_is_a_hint(emulator: Emulator, nex: Nex, path: str) -> None:
    """A change of another client that comes with an insight is in the file soon, however long the interval."""
    async with nex.mirror(path, objects=["person"]) as mirror, watching(mirror, interval=600.0) as reports:
        assert not (await reports.get()).tables["person"].inserted
        while not emulator.stream.listeners:
            await asyncio.sleep(0.01)
        async with Nex(KEY, base_url=emulator.url) as other:
            await other.records.create("person", {"name": "Ada Park"})
            await other.context.add_text("Ada Park <ada@x.io> asked for a demo.")
        report = await asyncio.wait_for(reports.get(), 10)
        assert report.tables["person"].inserted
        assert ("Ada Park",) in select(path, "SELECT name FROM person")


async def test_without_the_stream_it_looks_at_intervals(path: str) -> None:
    """A key that may not read the stream mirrors all the same; sweeps come as seldom as they are asked for."""
    scopes = ["object.read", "record.read", "record.write"]
    async with Emulator(keys={KEY: scopes}, clock=ticking()) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        ids = await companies(nex, 3)
        mirror = nex.mirror(path, objects=["company"], relationships=False)
        async with mirror, watching(mirror, interval=0.05) as reports:
            assert (await reports.get()).inserted == 3
            ids += await companies(nex, 1)
            await nex.records.delete(ids[0])
            while not (report := await asyncio.wait_for(reports.get(), 10)).inserted:
                pass
            assert (report.deleted, report.tables["company"].swept) == (0, False)
            assert set(rows_in(path, "company")) == set(ids)


async def test_sweeps_come_when_they_are_due(path: str) -> None:
    """A deletion is found after `sweep_every` seconds."""
    async with Emulator(keys={KEY: None}, clock=ticking()) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        ids = await companies(nex, 3)
        mirror = nex.mirror(path, objects=["company"], relationships=False)
        async with mirror, watching(mirror, interval=0.02, sweep_every=0.1) as reports:
            await reports.get()
            await nex.records.delete(ids[0])
            while not (await asyncio.wait_for(reports.get(), 10)).deleted:
                pass


async def test_leaving_the_loop_leaks_nothing(nex: Nex, path: str) -> None:
    """A watch that is left early has ended its task when the mirror is closed; the file can be opened again."""
    async with nex.mirror(path, objects=["person"]) as mirror:
        async for _ in mirror.watch():
            break
    await one_sync(nex, path, objects=["person"])
    stream = nex.mirror(path, objects=["person"])
    async with contextlib.aclosing(stream.watch()) as reports:
        async for _ in reports:
            break
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(InvalidRequestError):
        await stream.sync()


async def test_closing_the_client_ends_a_watch(emulator: Emulator, path: str) -> None:
    """A mirror ends with its client: whoever watches learns why, and the file is closed."""
    nex = Nex(KEY, base_url=emulator.url)
    mirror = nex.mirror(path, objects=["person"])
    async with watching(mirror) as reports:
        await reports.get()
        await nex.aclose()
        assert isinstance(await reports.get(), ClientClosed)
    with pytest.raises(ClientClosed):
        await mirror.sync()
    async with Nex(KEY, base_url=emulator.url) as other:
        await one_sync(other, path, objects=["person"])


async def test_closing_the_mirror_ends_a_watch(nex: Nex, path: str) -> None:
    """Closing the mirror elsewhere ends the iteration quietly."""
    mirror = nex.mirror(path, objects=["person"])
    async with watching(mirror) as reports:
        await reports.get()
        await mirror.aclose()
        assert await reports.get() is None


async def test_what_passes_is_tried_again_and_what_does_not_is_raised(
    emulator: Emulator, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch outlives 500s, and ends with the error when its object is gone."""
    monkeypatch.setattr("nex_async.bulk.mirror._FIRST_DELAY", 0.01)
    async with Nex(KEY, base_url=emulator.url, retry=RetryPolicy(retries=0)) as nex:
        await nex.objects.create("deal", "Deal")
        mirror = nex.mirror(path, objects=["deal"])
        async with mirror, watching(mirror, interval=0.02) as reports:
            await reports.get()
            fault = emulator.faults.add(kind="status", status=503, route="listRecords", times=3)
            await asyncio.wait_for(reports.get(), 10)
            while fault.hits < 3:
                await asyncio.wait_for(reports.get(), 10)
            await nex.objects.delete("deal")
            while isinstance(found := await asyncio.wait_for(reports.get(), 10), MirrorReport):
                pass
            assert isinstance(found, NotFoundError)


# ---- whose file it is -----------------------------------------------------------------------------------------------


async def test_a_file_of_another_workspace_is_refused(nex: Nex, path: str) -> None:
    """The file of one workspace is never touched for another, be that one full or empty."""
    ids = await companies(nex, 3)
    await one_sync(nex, path, objects=["company"])
    async with Emulator(keys={KEY: None}) as emulator, Nex(KEY, base_url=emulator.url) as other:
        with pytest.raises(TenantMismatch):
            await one_sync(other, path, objects=["company"])
        await companies(other, 1)
        for choice in ({"objects": ["company"]}, {"objects": ["person", "company"]}):
            with pytest.raises(TenantMismatch):
                await one_sync(other, path, **choice)
    assert set(rows_in(path, "company")) == set(ids)
    with reader(path) as connection, connection:
        connection.execute("UPDATE _nex_meta SET value = 'https://app.nex.ai/api/developers' WHERE name = 'place'")
    with pytest.raises(TenantMismatch):
        await one_sync(nex, path, objects=["company"])


async def test_a_new_object_of_an_old_name_is_followed(nex: Nex, path: str) -> None:
    """An object that was deleted and made anew is the same table, once a row shows that the workspace is the same."""
    await nex.objects.create("deal", "Deal")
    await nex.records.create("deal", {"name": "old"})
    await one_sync(nex, path, objects=["deal"])
    await nex.objects.delete("deal")
    await nex.objects.create("deal", "Deal")
    await nex.records.create("deal", {"name": "new"})
    await one_sync(nex, path, objects=["deal"])
    assert select(path, "SELECT name FROM deal") == [("new",)]


async def test_a_file_of_another_kind_is_refused(nex: Nex, tmp_path: Path) -> None:
    """Another database, another version, and no database at all are told apart, and left as they are."""
    foreign, version, garbage = (str(tmp_path / name) for name in ("foreign", "version", "garbage"))
    with reader(foreign) as connection, connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("PRAGMA user_version = 1")
    await one_sync(nex, version, objects=["person"])
    with reader(version) as connection:
        connection.execute("PRAGMA user_version = 99")
    Path(garbage).write_bytes(b"no database" * 1000)
    for name, error in ((foreign, CheckpointError), (version, CheckpointError), (garbage, StorageCorrupt)):
        before = Path(name).read_bytes()
        os.chmod(name, 0o600)
        with pytest.raises(error):
            await one_sync(nex, name, objects=["person"])
        assert error is StorageCorrupt or Path(name).read_bytes()[100:] == before[100:]


async def test_one_process_at_a_time(nex: Nex, path: str) -> None:
    """A second mirror of an open file is refused at once; a reader is not. The file is for its owner only."""
    async with nex.mirror(path, objects=["person"]) as mirror:
        await mirror.sync()
        with pytest.raises(StorageLocked):
            await one_sync(nex, path, objects=["person"])
        code = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM person').fetchone())"
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        assert done.stdout == "(0,)\n"
        assert os.stat(path).st_mode & 0o777 == 0o600
    await one_sync(nex, path, objects=["person"])


async def test_another_selection_adds_and_leaves(nex: Nex, path: str) -> None:
    """What is named later is added; what is left out stays as it was."""
    await companies(nex, 2)
    await one_sync(nex, path, objects=["company"])
    await nex.records.create("person", {"name": "Ada Park"})
    await companies(nex, 1)
    report = await one_sync(nex, path, objects=["person"])
    assert set(report.tables) == {"person"}
    assert (len(rows_in(path, "company")), len(rows_in(path, "person"))) == (2, 1)


async def test_an_object_that_is_not_there_is_an_error(nex: Nex, path: str) -> None:
    """A slug or list that does not exist raises, and makes no table."""
    for choice in ({"objects": ["nothing"]}, {"lists": ["123"]}):
        with pytest.raises(NotFoundError):
            await one_sync(nex, path, **choice)
    assert select(path, "SELECT count(*) FROM _nex_tables") == [(0,)]


@pytest.mark.parametrize(
    "choice",
    [
        {"relationships": False},
        {"objects": "person"},
        {"objects": [""]},
        {"objects": [5]},
        {"lists": [True]},
        {"objects": ["person"], "page_size": 1},
        {"objects": ["person"], "page_size": True},
        {"objects": ["person"], "progress": "x"},
    ],
)
def test_arguments_that_cannot_be_right(choice: dict[str, Any]) -> None:
    """Nothing is opened for a mirror that cannot be."""
    with pytest.raises(InvalidRequestError):
        Nex(KEY, base_url="http://127.0.0.1:1").mirror("never", **choice)


@pytest.mark.parametrize("times", [{"interval": 0}, {"interval": float("nan")}, {"sweep_every": -1}, {"sweep_every": True}])
def test_times_that_cannot_be_right(times: dict[str, Any]) -> None:
    """A watch says so when it is asked for, not when it is iterated."""
    with pytest.raises(InvalidRequestError):
        Nex(KEY, base_url="http://127.0.0.1:1").mirror("never", objects=["person"]).watch(**times)


async def test_progress_is_told(nex: Nex, path: str) -> None:
    """The callback learns of each table how far it is, and its end."""
    await companies(nex, 30)
    told: list[Progress] = []
    await one_sync(nex, path, objects=["company", "person"], page_size=10, progress=told.append)
    ends = {each.name: each for each in told}
    assert set(ends) == {"mirror company", "mirror person"}
    assert (ends["mirror company"].done, ends["mirror company"].total) == (30, 30)


def test_a_report_is_the_sum_of_its_tables() -> None:
    """The figures of a report add up, and say whether anything changed."""
    report = MirrorReport({"a": TableReport("a", 5, 1, 2, 3), "b": TableReport("b", 1, requests=4)})
    assert (report.rows_read, report.inserted, report.updated, report.deleted, report.requests) == (6, 1, 2, 3, 4)
    assert (report.changed, MirrorReport({"b": report.tables["b"]}).changed) == (True, False)


# ---- the command and the page ---------------------------------------------------------------------------------------


def command(path: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "mirror", path, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, **environment},
    )


async def test_the_command_mirrors(emulator: Emulator, nex: Nex, path: str) -> None:
    """`nex-async mirror` copies what is named, and says what it did; errors are one line."""
    await companies(nex, 3)
    environment = {"NEX_API_KEY": KEY, "NEX_API_BASE_URL": emulator.url}
    done, wrong = await asyncio.gather(
        asyncio.to_thread(command, path, "--object", "company", "--no-relationships", **environment),
        asyncio.to_thread(command, f"{path}2", "--object", "nothing", **environment),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("company: 3 new, 0 changed, 0 deleted (")
    assert len(rows_in(path, "company")) == 3
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("Error: getObjectDefinition")
