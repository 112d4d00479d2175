"""One typed call through `nex` against a plain aiohttp `get` + `read` + msgspec decode, as people write it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import aiohttp
import msgspec

from nex_async import Nex

from .measure import Comparison, interleave
from .server import load_server

KEY = "sk-benchmark"


class Task(msgspec.Struct):
    """What a careful user of plain aiohttp would decode into."""

    id: str
    title: str
    description: str
    priority: str
    due_date: str
    is_completed: bool
    assignee_ids: list[str]
    entity_ids: list[str]
    created_by: str
    created_at: str


async def _spread(count: int, concurrency: int, one: Callable[[int], Awaitable[object]]) -> None:
    async def worker(first: int) -> None:
        for index in range(first, count, concurrency):
            await one(index)

    await asyncio.gather(*(worker(first) for first in range(concurrency)))


async def compare(origin: str, *, count: int = 600, slices: int = 25) -> AsyncIterator[Comparison]:
    """Yield the comparison at concurrency 1, 10 and 100."""
    base = f"{origin}/api/developers"
    decoder = msgspec.json.Decoder(Task)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session, Nex(KEY, base_url=base) as nex:

        async def theirs(index: int) -> Task:
            async with session.get(f"{base}/v1/tasks/{70_000_000_000_000_000 + index}") as response:
                return decoder.decode(await response.read())

        async def ours(index: int) -> object:
            return await nex.tasks.get(70_000_000_000_000_000 + index)

        for concurrency in (1, 10, 100):
            yield await interleave(
                f"one call, concurrency {concurrency}",
                partial(_spread, count, concurrency, ours),
                partial(_spread, count, concurrency, theirs),
                units=count,
                slices=slices,
            )


async def _main() -> None:
    with load_server() as origin:
        async for result in compare(origin):
            low, high = result.spread
            print(
                f"{result.name:28} ours {result.ours.low() * 1e6:6.1f} us  bare {result.theirs.low() * 1e6:6.1f} us  "
                f"ratio {result.ratio:.3f} (median {result.median:.3f}, quartiles {low:.3f}-{high:.3f})"
            )


if __name__ == "__main__":
    asyncio.run(_main())
