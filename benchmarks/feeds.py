"""What a feed is like to live with: how late a handler is, how long a line may be, and what memory it takes for long.

`python -m benchmarks.feeds` reports the memory of a listener over a million insights, which takes twenty minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import psutil

from nex_async import Nex, SSEDecoder

from .job import KEY
from .measure import prime
from .stream_server import stream_server

_MIB = 2**20


async def latency(origin: str, *, count: int = 1000, rate: int = 100) -> tuple[float, float]:
    """Return the median and the 99th percentile of milliseconds from the server's write to a handler."""
    times: list[float] = []
    async with Nex(KEY, base_url=f"{origin}/pace/{count}/{rate}") as nex:
        feed = nex.insights.stream(start="now")

        @feed.on("insight")
        def take(event: Any) -> None:
            now = time.monotonic_ns()
            times.append((now - int(event.insight.content.split(":", 2)[1])) / 1e6)
            if len(times) == count:
                feed.stop()

        await feed.run()
    times.sort()
    return times[count // 2], times[count * 99 // 100]


def long_line(size: int = 100_000_000, chunk: int = 1000) -> float:
    """Return the CPU seconds that a line of 100 MB takes, in chunks of 1 000 bytes."""
    decoder, part = SSEDecoder(), b"x" * chunk
    start = time.process_time()
    decoder.feed(b"data: ")
    for _ in range(size // chunk):
        decoder.feed(part)
    return time.process_time() - start


def _resident() -> float:
    return float(psutil.Process().memory_info().rss) / _MIB


async def _listen_to_many(origin: str, count: int) -> list[float]:
    before = _resident()
    async with contextlib.AsyncExitStack() as stack:

        async def one(number: int) -> None:
            nex = await stack.enter_async_context(Nex(f"{KEY}-{number}", base_url=f"{origin}/flood/100/{number}"))
            feed = await stack.enter_async_context(nex.insights.stream(start="now"))
            seen = 0
            async for _ in feed:
                seen += 1
                if seen == 100:
                    break

        await asyncio.gather(*(one(number) for number in range(count)))
        return [before, _resident()]


async def _listen_long(origin: str, marks: list[int], rate: int) -> list[float]:
    sizes: list[float] = []
    async with Nex(KEY, base_url=f"{origin}/pace/{marks[-1]}/{rate}") as nex, nex.insights.stream(start="now") as feed:
        async for event in feed:
            number = int((event.insight.content or "").split(":", 1)[0])
            if number >= marks[len(sizes)] - 1:
                sizes.append(_resident())
                if len(sizes) == len(marks):
                    break
    return sizes


def _child(work: Callable[..., Awaitable[list[float]]], arguments: tuple[Any, ...], channel: Connection) -> None:
    async def run() -> list[float]:
        return await work(*arguments)

    prime()
    logging.getLogger("nex_async").setLevel(logging.ERROR)
    channel.send(asyncio.run(run()))


def _in_a_process(work: Callable[..., Awaitable[list[float]]], *arguments: Any) -> list[float]:
    """Return what `work` returns when it runs in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(work, arguments, there))
    process.start()
    there.close()
    try:
        found: list[float] = here.recv()
        return found
    finally:
        process.join()


def listeners(origin: str, count: int = 200) -> list[float]:
    """Return the MiB of a process before and after it listens with so many keys, a hundred insights each."""
    return _in_a_process(_listen_to_many, origin, count)


def growth(origin: str, marks: tuple[int, ...] = (300_000, 1_000_000), rate: int = 800) -> list[float]:
    """Return the MiB of a listener after so many insights, of which `rate` come in a second.

    These are more than a feed remembers, which it says by gaps; what is asked here is that its memory has an end.
    """
    return _in_a_process(_listen_long, origin, list(marks), rate)


def main() -> None:
    """Print what a listener holds after many insights."""
    with stream_server() as origin:
        early, late = growth(origin)
        print(f"memory of a listener: {early:.0f} MiB after 300 000 insights, {late:.0f} MiB after 1 000 000")


if __name__ == "__main__":
    main()
