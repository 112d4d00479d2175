"""Changes: what changed since a watermark as Arrow tables, though the listing moves while it is read."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from nex_async import Nex
from nex_async.bulk.changes import Changes
from nex_async.bulk.formats.columns import columns_of, select
from nex_async.bulk.partitions import Partition
from nex_async.emulator import Emulator
from nex_async.testing import Clock

from ..harness.canary import KEY

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
LONG_AGO = NOON - timedelta(days=1)


async def people(nex: Nex, clock: Clock, count: int) -> list[str]:
    """Create people a second apart, and return their ids, the newest first."""
    ids = []
    for number in range(count):
        ids.append((await nex.records.create("person", {"name": f"P{number}"})).id)
        clock.advance(1)
    return ids[::-1]


async def changes_of(nex: Nex, **options: Any) -> Changes:
    columns = select(columns_of(await nex.objects.get("person")), None)
    return Changes(nex._sender, Partition("object", "person", attributes="all", limit=3), columns, {}, **options)


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.freeze(NOON)
    return clock


async def test_a_deletion_between_two_pages_hides_no_change(clock: Clock) -> None:
    """When a row that was read is deleted, the one that moves up into its page comes all the same."""
    async with Emulator(keys={KEY: None}, clock=clock) as server, Nex(KEY, base_url=server.url) as nex:
        ids = await people(nex, clock, 9)
        reading = await changes_of(nex)
        found: list[str] = []
        async with aclosing(reading.since(LONG_AGO)) as tables:
            async for table in tables:
                if not found:
                    for gone in ids[:3]:
                        await nex.records.delete(gone)
                found += table["id"].to_pylist()
        assert found == ids


async def test_it_ends_at_the_first_older_row(clock: Clock) -> None:
    """Rows of the very moment come, older ones do not, and their pages are not asked for."""
    async with Emulator(keys={KEY: None}, clock=clock) as server, Nex(KEY, base_url=server.url) as nex:
        ids = await people(nex, clock, 30)
        reading = await changes_of(nex)
        server.requests.clear()
        found = [one async for table in reading.since(NOON + timedelta(seconds=25)) for one in table["id"].to_pylist()]
        assert found == ids[:5]
        assert server.requests.count("listRecords") == 3
        assert reading.watermark == NOON + timedelta(seconds=29)


async def test_without_an_order_it_reads_to_the_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a first reading found that the server does not sort, an older row ends nothing; older rows are left out."""
    monkeypatch.setattr(Partition, "_body", lambda part: {"attributes": part.attributes})
    async with Emulator(keys={KEY: None}, clock=clock) as server, Nex(KEY, base_url=server.url) as nex:
        ids = await people(nex, clock, 10)
        await nex.records.update(ids[4], {"job_title": "CTO"})
        first = await changes_of(nex)
        assert sum([table.num_rows async for table in first.everything()]) == 10
        assert not first.sorted
        reading = await changes_of(nex)
        floor = NOON + timedelta(seconds=8)
        found = [one async for table in reading.since(floor, is_sorted=first.sorted) for one in table["id"].to_pylist()]
        assert found == [ids[0], ids[1], ids[4]]


async def test_everything_is_one_table_for_batch_rows(clock: Clock) -> None:
    """Pages are joined to tables of about `batch_rows` rows; the watermark is from before the first."""
    async with Emulator(keys={KEY: None}, clock=clock) as server, Nex(KEY, base_url=server.url) as nex:
        ids = await people(nex, clock, 10)
        reading = await changes_of(nex, batch_rows=6, window=1)
        tables = []
        async for table in reading.everything():
            tables.append(table)
            await nex.records.update(ids[0], {"job_title": "CTO"})
        assert [table.num_rows for table in tables] == [6, 4]
        assert [one for table in tables for one in table["id"].to_pylist()] == ids[::-1]
        assert reading.watermark == NOON + timedelta(seconds=9)
        assert reading.sorted
        assert not reading.unstable
