"""How costs grow with numbers, and what is held in memory: of one record, listener, consumer, job, queued event."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from nex_async import Nex

from .bodies import page
from .events import fan_out
from .job import KEY, control
from .listing import through_nex

Points = list[tuple[int, float]]


async def _cpu(run: Callable[[], Awaitable[object]], rounds: int = 3) -> float:
    """Return the lowest CPU time of a few rounds, in seconds."""
    lowest = 1e9
    for _ in range(rounds):
        gc.collect()
        begin = time.process_time()
        await run()
        lowest = min(lowest, time.process_time() - begin)
    return lowest


async def records(origin: str, counts: tuple[int, ...]) -> Points:
    """Return the microseconds of CPU a record costs in a listing of so many."""
    points = []
    async with Nex(KEY, base_url=origin) as nex:
        await control(origin, total=1000)
        await through_nex(nex, 500, 1)
        for count in counts:
            await control(origin, total=count)
            seconds = await _cpu(lambda: through_nex(nex, 500, 1), rounds=5 if count < 10_000 else 1)
            points.append((count, seconds / count * 1e6))
    return points


async def consumers(stories: str, counts: tuple[int, ...], insights: int = 100) -> Points:
    """Return the microseconds of CPU that giving one insight to one of so many consumers costs."""
    points = []
    async with Nex(KEY, base_url=f"{stories}/flood/{insights}") as nex:
        await fan_out(nex, insights, 1)
        for count in counts:
            seconds = await _cpu(lambda count=count: fan_out(nex, insights, count), rounds=2)  # type: ignore[misc]
            points.append((count, seconds / count / insights * 1e6))
    return points


async def listeners(stories: str, counts: tuple[int, ...], insights: int = 20) -> tuple[Points, float]:
    """Return the milliseconds of CPU that one of so many feeds costs, each with a key and a stream of its own and 20
    insights; and the KiB of Python heap that one holds, with the most of them open."""
    points, held = [], 0.0
    for count in counts:
        gc.collect()
        last = count == counts[-1]
        seconds = await _cpu(lambda count=count: _listen(stories, count, insights), rounds=1)  # type: ignore[misc]
        points.append((count, seconds / count * 1e3))
        if last:
            tracemalloc.start()
            held = await _listen(stories, min(count, 100), insights) / min(count, 100) / 1024
            tracemalloc.stop()
    return points, held


async def _listen(stories: str, count: int, insights: int) -> float:
    async with AsyncExitStack() as stack:

        async def one(number: int) -> None:
            base = f"{stories}/flood/{insights}/{number}"
            nex = await stack.enter_async_context(Nex(f"{KEY}-{number}", base_url=base))
            feed = await stack.enter_async_context(nex.insights.stream(start="now"))
            seen = 0
            async for _ in feed:
                seen += 1
                if seen == insights:
                    break

        await asyncio.gather(*(one(number) for number in range(count)))
        return float(tracemalloc.get_traced_memory()[0]) if tracemalloc.is_tracing() else 0.0


async def jobs(origin: str, counts: tuple[int, ...]) -> Points:
    """Return the microseconds of CPU one of so many jobs costs from its attachment to its end, a poll or two included."""
    points = []
    async with Nex(KEY, base_url=origin) as nex:
        for count in counts:
            handles = lambda count=count: [nex.context.attach(str(number)) for number in range(1, count + 1)]  # noqa: E731
            seconds = await _cpu(lambda: nex.jobs.wait_all(handles(), timeout=120), rounds=1)  # noqa: B023
            points.append((count, seconds / count * 1e6))
    return points


async def bytes_per_record(origin: str, count: int = 10_000) -> dict[str, float]:
    """Return the bytes that a record holds, in a list of so many, for each way to have it."""
    await control(origin, total=count)
    content = [page(offset, 500, count) for offset in range(0, count, 500)]
    async with Nex(KEY, base_url=origin) as nex:
        await nex.records.list("company", limit=500).collect()

        async def ours() -> Any:
            return await nex.records.list("company", limit=500).collect()

        async def dicts(load: Callable[[bytes], Any]) -> Any:
            return [row for part in content for row in load(part)["data"]]

        return {
            "nex-async": await _held(ours) / count,
            "msgspec, dict": await _held(lambda: dicts(msgspec.json.decode)) / count,
            "json, dict": await _held(lambda: dicts(json.loads)) / count,
        }


async def bytes_per_event(stories: str, count: int = 5_000) -> float:
    """Return the bytes that an insight holds that waits in a queue."""
    async with Nex(KEY, base_url=f"{stories}/flood/{count}") as nex:
        feed = nex.insights.stream(start="now")
        queue = feed.queue(maxsize=count)
        gc.collect()
        tracemalloc.start()
        async with feed:
            while queue.qsize() < count:
                await asyncio.sleep(0.05)
            gc.collect()
            full = tracemalloc.get_traced_memory()[0]
            for _ in range(count):
                await queue.get()
            gc.collect()
            empty = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    return (full - empty) / count


async def _held(make: Callable[[], Awaitable[Any]]) -> float:
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = await make()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    del kept
    return float(size)
