"""Partitions: together they are the listing, each once, in whatever process they are read."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from nex_async import Nex
from nex_async.bulk.partitions import Partition, Reader
from nex_async.emulator import Emulator
from nex_async.errors import InvalidRequestError
from nex_async.models import Record
from nex_async.models.base import Rows, decode_rows

from .harness.canary import KEY


async def people(nex: Nex, count: int) -> list[str]:
    """Create people, and return their ids in the order of the listing."""
    await asyncio.gather(*(nex.records.create("person", {"name": f"Person {n}"}) for n in range(count)))
    return [row.id async for row in nex.records.list("person", sort="created_at")]


@pytest.mark.parametrize(("count", "limit"), [(1, 500), (3, 4), (7, 10), (40, 1)])
async def test_the_union_is_the_listing(nex: Nex, count: int, limit: int) -> None:
    """Whatever their number and the page size, the parts hold each row once, in order."""
    ids = await people(nex, 23)
    parts = await nex.records.partitions("person", count, limit=limit)
    assert len(parts) == min(count, 23)
    sizes = [len(await part.read(nex).collect()) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert [row.id for part in parts for row in await part.read(nex).collect()] == ids
    ahead = []
    for part in parts:
        async with part.read(nex).prefetch(4) as rows:
            ahead += [row.id async for row in rows]
    assert ahead == ids


async def test_partitions_cost_one_request(emulator: Emulator, nex: Nex) -> None:
    """Dividing asks once; nothing is read beyond the end of a part."""
    await people(nex, 10)
    before = len(emulator.requests)
    parts = await nex.records.partitions("person", 2, limit=5)
    assert len(emulator.requests) - before == 1
    assert len(await parts[0].read(nex).collect()) == 5
    assert len(emulator.requests) - before == 2


async def test_the_last_part_has_no_end(nex: Nex) -> None:
    """Rows that are created while the parts are read are in the last one."""
    ids = await people(nex, 9)
    parts = await nex.records.partitions("person", 3, limit=2)
    assert [part.stop for part in parts] == [3, 6, None]
    found = []
    for part in parts:
        async for row in part.read(nex):
            found.append(row.id)
            if len(found) in (2, 8):
                ids.append((await nex.records.create("person", {"name": "Late"})).id)
    assert found == ids


async def test_an_empty_object_is_one_part(nex: Nex) -> None:
    """Without rows there is one part, which finds those that come later."""
    (part,) = await nex.records.partitions("person", 8)
    assert await part.read(nex).collect() == []
    await people(nex, 1)
    assert len(await part.read(nex).collect()) == 1


async def test_members_of_a_list(nex: Nex) -> None:
    """A list is divided as an object is."""
    ids = await people(nex, 5)
    made = await nex.lists.create("person", "vip", "VIP")
    for each in ids:
        await nex.lists.add_member(made.id, each)
    members = [row.id async for row in nex.lists.records(made.id, sort="created_at")]
    parts = await nex.lists.partitions(made.id, 2)
    assert [row.id for part in parts for row in await part.read(nex).collect()] == members
    assert len(members) == 5


async def test_another_process_reads_a_part(emulator: Emulator, nex: Nex) -> None:
    """A part pickles, holds no client, and is read where it arrives."""
    ids = await people(nex, 12)
    parts = await nex.records.partitions("person", 3, attributes=["name"])
    assert [pickle.loads(pickle.dumps(part)) for part in parts] == parts
    code = (
        "import asyncio, pickle, sys\nfrom nex_async import Nex\npart = pickle.load(sys.stdin.buffer)\n"
        "async def main():\n    async with Nex(sys.argv[1], base_url=sys.argv[2]) as nex:\n"
        "        print(*[row.id async for row in part.read(nex)])\nasyncio.run(main())"
    )
    command = [sys.executable, "-W", "error", "-c", code, KEY, emulator.url]
    content = pickle.dumps(parts[1])
    done = await asyncio.to_thread(subprocess.run, command, input=content, capture_output=True, timeout=30, check=True)
    assert done.stdout.decode().split() == ids[4:8]


@pytest.mark.parametrize("count", [0, -1, True, "3", 100_001])
async def test_counts_that_cannot_be(emulator: Emulator, nex: Nex, count: Any) -> None:
    """A count that cannot be right is refused before anything is sent."""
    with pytest.raises(InvalidRequestError):
        await nex.records.partitions("person", count)
    assert len(emulator.requests) == 0


class Generous:
    """A sender whose server gives ten rows whatever it is asked for; every fourth is broken."""

    settings = SimpleNamespace(policy=SimpleNamespace(retries=2))

    async def send(self, route: Any, path: Any, body: Any, options: Any) -> Any:
        start = body["offset"]
        rows = ",".join("{}" if n % 4 == 3 else f'{{"id":"{n}"}}' for n in range(start, min(30, start + 10)))
        return route.decode(f'{{"data":[{rows}],"total":30}}'.encode())


async def test_a_server_that_sends_too_much() -> None:
    """What lies beyond the end of a part is another part's, the broken rows too."""
    sender: Any = Generous()
    client: Any = SimpleNamespace(_sender=sender)
    parts = [Partition("object", "person", start, stop, limit=2) for start, stop in ((0, 13), (13, 16), (16, None))]
    found, broken = [], 0
    for part in parts:
        pager = part.read(client, on_bad_row="skip")
        found += [row.id for row in await pager.collect()]
        broken += pager.skipped
    assert found == [str(n) for n in range(30) if n % 4 != 3]
    assert broken == 7


async def test_a_reader_knows_what_came_before() -> None:
    """Rows whose ids a reader is told are not read again."""
    sender: Any = Generous()
    part = Partition("object", "person", 0, 3)
    reader = Reader(part, sender, {}, Ids(), window=2, seen=["1"])
    read = [page async for page in reader.pages()]
    assert [each for page in read for each in page.page] == ["0", "2"]
    assert [each for page in read for each in page.ids] == ["0", "1", "2"]
    assert [(page.position, page.count, page.received) for page in read] == [(0, 2, 3)]


class Ids:
    """Keeps nothing of a row but its id."""

    def decode(self, data: bytes) -> Rows[Record]:
        return decode_rows(Record, data)

    def page(self, position: int, rows: list[Record]) -> list[str]:
        return [row.id for row in rows]
