"""A long listing with a slow server: `prefetch` against a hand-written gather of the same window with the same decode."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator
from itertools import islice

import aiohttp

from nex_async import Nex
from nex_async.models import Record
from nex_async.models.base import decode_rows

from .measure import Comparison, interleave
from .server import load_server

KEY = "sk-benchmark"


async def _control(origin: str, **settings: float) -> None:
    async with aiohttp.ClientSession() as session:
        for name, value in settings.items():
            async with session.get(f"{origin}/control/{name}/{value}") as response:
                await response.read()


async def _by_hand(session: aiohttp.ClientSession, url: str, total: int, size: int, window: int) -> int:
    """Read every page with `window` requests in flight, in order: a deque of tasks, refilled as its head is taken."""

    async def fetch(offset: int) -> bytes:
        body = json.dumps({"limit": size, "offset": offset})
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
            return await response.read()

    offsets = iter(range(0, total, size))
    flying = deque(asyncio.create_task(fetch(offset)) for offset in islice(offsets, window))
    seen = 0
    while flying:
        content = await flying.popleft()
        for offset in offsets:
            flying.append(asyncio.create_task(fetch(offset)))
            break
        for row in decode_rows(Record, content).rows:
            seen += bool(row.id)
    return seen


async def _through_nex(nex: Nex, size: int, window: int) -> int:
    seen = 0
    async with nex.records.list("company", limit=size).prefetch(window) as rows:
        async for row in rows:
            seen += bool(row.id)
    return seen


async def compare(
    origin: str, *, pages: int = 200, size: int = 500, windows: tuple[int, ...] = (8,), delay: float = 0.005, slices: int = 7
) -> AsyncIterator[Comparison]:
    """Yield the comparison of wall time for each window."""
    total = pages * size
    await _control(origin, page_size=size, total=total, delay=delay)
    url = f"{origin}/api/developers/v1/objects/company/records"
    session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"})
    async with session, Nex(KEY, base_url=f"{origin}/api/developers") as nex:
        for window in windows:

            async def ours(window: int = window) -> None:
                assert await _through_nex(nex, size, window) == total

            async def theirs(window: int = window) -> None:
                assert await _by_hand(session, url, total, size, window) == total

            name = f"{pages} pages x {size}, {delay * 1000:g} ms, window {window}"
            yield await interleave(name, ours, theirs, units=1, slices=slices, kind="wall")
    await _control(origin, delay=0)


async def growth(origin: str, *, size: int = 500, counts: tuple[int, ...] = (20, 200)) -> list[tuple[int, float]]:
    """Return the peak of memory held while listing, in MiB, for each number of pages."""
    peaks = []
    for pages in counts:
        await _control(origin, page_size=size, total=pages * size)
        async with Nex(KEY, base_url=f"{origin}/api/developers") as nex:
            await _through_nex(nex, size, 8)
            tracemalloc.start()
            await _through_nex(nex, size, 8)
            peaks.append((pages, tracemalloc.get_traced_memory()[1] / 2**20))
            tracemalloc.stop()
    return peaks


async def _main() -> None:
    with load_server() as origin:
        async for result in compare(origin, windows=(1, 4, 8, 16)):
            print(f"{result.name:36} ours {result.ours.low('wall'):.3f} s  by hand {result.theirs.low('wall'):.3f} s  "
                  f"ratio {result.ratio:.3f} (median {result.median:.3f})")  # fmt: skip
        for pages, peak in await growth(origin):
            print(f"{pages:5} pages: peak {peak:.1f} MiB")


if __name__ == "__main__":
    asyncio.run(_main())
