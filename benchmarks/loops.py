"""uvloop beside asyncio's own loop: the same jobs of the SDK in both, in turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial

import aiohttp

from nex_async import Nex

from . import calls, events, listing, writing
from .job import KEY, Job, control
from .measure import Way, alternate

Made = dict[str, tuple[Callable[[], Awaitable[object]], int]]


async def _jobs(stack: AsyncExitStack, origin: str) -> Made:
    nex = await stack.enter_async_context(Nex(KEY, base_url=origin))
    session = await stack.enter_async_context(aiohttp.ClientSession())

    async def one(index: int) -> object:
        return await nex.tasks.get(calls.FIRST + index)

    async def rows() -> None:
        await nex.records.upsert_many("company", writing.rows(1000), match_on="domains", concurrency=50, check=False)

    return {
        "one call, concurrency 1": (partial(calls.spread, 200, 1, one), 200),
        "one call, concurrency 100": (partial(calls.spread, 500, 100, one), 500),
        "listing, 0 ms, sequential": (partial(listing.through_nex, nex, 500, 1), 10_000),
        "listing, 0 ms, window 8": (partial(listing.through_nex, nex, 500, 8), 10_000),
        "upserts, concurrency 50, no journal": (rows, 1000),
        "raw events, small, plain": (partial(events.decode, session, f"{origin}/events/plain/20000/200"), 20_000),
        "raw events, small, chunked": (partial(events.decode, session, f"{origin}/events/chunked/10000/200"), 10_000),
        "raw events, 100 kB, plain": (partial(events.decode, session, f"{origin}/events/plain/200/100000"), 200),
    }


@contextlib.contextmanager
def _in(loop: asyncio.AbstractEventLoop, origin: str) -> Iterator[Made]:
    stack = AsyncExitStack()
    try:
        yield loop.run_until_complete(_jobs(stack, origin))
    finally:
        loop.run_until_complete(stack.aclose())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def compare(origin: str, *, full: bool) -> Iterator[Job]:
    """Yield each job under uvloop against itself under asyncio's loop. Raises ImportError where uvloop is not."""
    import uvloop

    slices = 25 if full else 3
    asyncio.run(control(origin, total=10_000))
    fast, plain = uvloop.new_event_loop(), asyncio.new_event_loop()
    with _in(fast, origin) as ours, _in(plain, origin) as theirs:
        for name, (run, units) in ours.items():
            ways = [(fast, Way("uvloop", run, units)), (plain, Way("asyncio", theirs[name][0], units))]
            alternate(ways, slices=slices)
            yield Job(f"uvloop: {name}", "unit", [way for _, way in ways], slices)
