"""The event stream: what the decoder costs on top of reading, and typed insights against aiohttp-sse-client and json.

`python -m benchmarks.feeds [--full]`. Everything reads the same bytes from a server in another process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import multiprocessing
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
import psutil
from aiohttp_sse_client.client import EventSource

from nex_async import Nex, SSEDecoder

from .measure import Comparison, interleave, prime
from .stream_server import stream_server

KEY = "sk-benchmark"
SIZES = ((200, 20_000, "200 B"), (3000, 4_000, "3 kB"))
LIMITS = {
    "decoder, 200 B, chunked": 3.7,
    "decoder, 3 kB, chunked": 1.6,
    "raw events, 200 B, plain": 0.1,
    "raw events, 3 kB, plain": 0.2,
    "typed insights": 0.25,
}
"""What a ratio is to be at most."""
_MIB = 2**20


async def _drain(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url) as response:
        while await response.content.readany():
            pass


async def _decode(session: aiohttp.ClientSession, url: str, count: int) -> None:
    decoder, seen = SSEDecoder(), 0
    async with session.get(url) as response:
        while chunk := await response.content.readany():
            seen += len(decoder.feed(chunk))
    assert seen == count


async def _decode_by_peer(session: aiohttp.ClientSession, url: str, count: int) -> None:
    seen = 0
    async with EventSource(url, session=session) as source:
        async for _ in source:
            seen += 1
            if seen == count:
                break


async def _typed(nex: Nex, count: int) -> None:
    seen = 0
    async with nex.insights.stream(start="now") as feed:
        async for event in feed:
            seen += bool(event.insight.content and event.insight.type)
            if seen == count:
                break


async def _typed_by_peer(session: aiohttp.ClientSession, url: str, count: int) -> None:
    seen = 0
    async with EventSource(url, session=session) as source:
        async for event in source:
            payload = json.loads(event.data)
            if event.type == "insight.batch.created":
                for insight in payload["insights"]:
                    seen += bool(insight["content"] and insight["type"])
            if seen == count:
                break


async def compare(origin: str, *, slices: int = 25, insights: int = 5_000) -> AsyncIterator[Comparison]:
    """Yield, per event: reading and decoding against reading, then ours against aiohttp-sse-client, raw and typed.

    `chunked` streams have a chunk for each event, and most of what they cost is aiohttp's part, the same for both sides;
    `plain` ones leave the decoders to themselves.
    """
    async with aiohttp.ClientSession() as session:
        for framing in ("chunked", "plain"):
            for size, count, name in SIZES:
                url = f"{origin}/blast/{framing}/{count}/{size}"
                ours, drain = partial(_decode, session, url, count), partial(_drain, session, url)
                peer = partial(_decode_by_peer, session, url, count)
                yield await interleave(f"decoder, {name}, {framing}", ours, drain, units=count, slices=slices)
                yield await interleave(f"raw events, {name}, {framing}", ours, peer, units=count, slices=slices)
        async with Nex(KEY, base_url=f"{origin}/flood/{insights}") as nex:
            url = f"{origin}/quick/{insights}/v1/insights/stream"
            typed, peer = partial(_typed, nex, insights), partial(_typed_by_peer, session, url, insights)
            yield await interleave("typed insights, 1 kB", typed, peer, units=insights, slices=slices)


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


async def _main(full: bool) -> None:
    with stream_server() as origin:
        async for result in compare(origin, slices=51 if full else 25):
            low, high = result.spread
            limit = next((limit for name, limit in LIMITS.items() if result.name.startswith(name)), None)
            print(
                f"{result.name:26} ours {result.ours.low() * 1e6:6.2f} us  theirs {result.theirs.low() * 1e6:6.2f} us  "
                f"ratio {result.ratio:.3f} (median {result.median:.3f}, quartiles {low:.3f}-{high:.3f})"
                + (f"  target <= {limit}" if limit else ""),
                flush=True,
            )
        middle, high = await latency(origin)
        print(f"write to handler, 100/s     p50 {middle:.2f} ms, p99 {high:.2f} ms  target p50 < 2 ms")
        print(f"a line of 100 MB            {long_line():.2f} s CPU  target < 1 s")
        before, after = listeners(origin)
        print(f"200 listeners, 200 keys     {after:.0f} MiB, of which {after - before:.0f} for them  target < 150 MiB")
        if full:
            early, late = growth(origin)
            print(f"memory of a listener        {early:.0f} MiB after 300 000 insights, {late:.0f} MiB after 1 000 000")


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more slices, and a million insights, which take twenty minutes")
    asyncio.run(_main(parser.parse_args().full))


if __name__ == "__main__":
    main()
