"""The event stream: the SDK's decoder against reading alone and every other library; typed insights; fan-out to many."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import aiohttp

from nex_async import Nex, SSEDecoder

from .job import KEY, Job, Jobs, Peers
from .measure import Way
from .stream_server import stream_server

SIZES = (("small", 200, 10_000), ("3 kB", 3_000, 3_000), ("100 kB", 100_000, 150))
Read = Callable[[aiohttp.ClientSession, str], Awaitable[int]]


async def drain(session: aiohttp.ClientSession, url: str) -> int:
    """Read the bytes, and nothing else: the limit with aiohttp."""
    async with session.get(url) as response:
        while await response.content.readany():
            pass
    return -1


async def decode(session: aiohttp.ClientSession, url: str) -> int:
    """Ours: the decoder of the feeds over the same reading."""
    decoder, seen = SSEDecoder(), 0
    async with session.get(url) as response:
        while chunk := await response.content.readany():
            seen += len(decoder.feed(chunk))
    return seen


async def by_aiohttp_sse_client(session: aiohttp.ClientSession, url: str) -> int:
    """aiohttp-sse-client, which does not notice the end."""
    from aiohttp_sse_client.client import EventSource

    seen, count = 0, int(url.split("/")[-2])
    async with EventSource(url, session=session) as source:
        async for _ in source:
            seen += 1
            if seen == count:
                break
    return seen


async def by_httpx_sse(session: aiohttp.ClientSession, url: str) -> int:
    """httpx-sse, on a client of its own."""
    import httpx
    from httpx_sse import aconnect_sse

    seen = 0
    async with httpx.AsyncClient(trust_env=False) as client, aconnect_sse(client, "GET", url) as source:
        async for _ in source.aiter_sse():
            seen += 1
    return seen


async def by_launchdarkly(session: aiohttp.ClientSession, url: str) -> int:
    """launchdarkly-eventsource, asynchronous, on aiohttp."""
    from ld_eventsource.async_client import AsyncSSEClient
    from ld_eventsource.config.async_connect_strategy import AsyncConnectStrategy

    seen, count = 0, int(url.split("/")[-2])
    client = AsyncSSEClient(connect=AsyncConnectStrategy.http(url, session=session))
    async for _ in client.events:
        seen += 1
        if seen == count:
            break
    await client.close()
    return seen


PEERS: dict[str, tuple[Read, int]] = {
    "draining the bytes (the limit)": (drain, 1),
    "launchdarkly-eventsource": (by_launchdarkly, 4),
    "httpx-sse": (by_httpx_sse, 5),
    "aiohttp-sse-client": (by_aiohttp_sse_client, 10),
}


def _way(name: str, read: Read, session: aiohttp.ClientSession, base: str, count: int, size: int) -> Way:
    async def run() -> None:
        seen = await read(session, f"{base}/{count}/{size}")
        if seen not in (count, -1):
            raise RuntimeError(f"{name}: {seen} events of {count}")

    return Way(name, run, count)


async def jobs(origin: str, *, full: bool) -> Jobs:
    """Yield raw events of each size, with a chunk each and without, then insights and their fan-out."""
    more = 3 if full else 1
    async with aiohttp.ClientSession() as session:
        for framing in ("plain", "chunked"):
            for size, octets, count in SIZES:
                base, peers = f"{origin}/events/{framing}", Peers()
                ways = [_way("nex-async", decode, session, base, count * more, octets)]
                for name, (read, fewer) in PEERS.items():
                    way = _way(name, read, session, base, count * more // fewer, octets)
                    try:
                        await asyncio.wait_for(way.run(), 60)
                    except Exception as error:
                        peers.note(name, error)
                    else:
                        ways.append(way)
                yield Job(f"raw events, {size}, {framing}", "event", ways, 25 if full else 3, missing=peers.missing)
    with stream_server() as stories:
        async for job in _insights(stories, full):
            yield job


async def typed(nex: Nex, count: int) -> None:
    """Ours: insights of a feed, each looked at."""
    seen = 0
    async with nex.insights.stream(start="now") as feed:
        async for event in feed:
            seen += bool(event.insight.content and event.insight.type)
            if seen == count:
                break


async def typed_by_peer(session: aiohttp.ClientSession, url: str, count: int) -> None:
    """aiohttp-sse-client and json: no duplicates removed, no gaps noticed, and no types."""
    from aiohttp_sse_client.client import EventSource

    seen = 0
    async with EventSource(url, session=session) as source:
        async for event in source:
            payload = json.loads(event.data)
            if event.type == "insight.batch.created":
                for insight in payload["insights"]:
                    seen += bool(insight["content"] and insight["type"])
            if seen == count:
                break


async def fan_out(nex: Nex, count: int, consumers: int) -> None:
    """Ours: one connection, a queue for each consumer, each of which takes every insight."""

    async def consume(queue: object) -> None:
        seen = 0
        async for _ in queue:  # type: ignore[attr-defined]
            seen += 1
            if seen == count:
                return

    feed = nex.insights.stream(start="now")
    queues = [feed.queue(maxsize=count) for _ in range(consumers)]
    async with feed:
        await asyncio.gather(*(consume(queue) for queue in queues))


async def fan_out_by_hand(session: aiohttp.ClientSession, url: str, count: int, consumers: int) -> None:
    """One reader with aiohttp-sse-client and json that puts each insight into an `asyncio.Queue` of each consumer."""
    queues: list[asyncio.Queue[object]] = [asyncio.Queue() for _ in range(consumers)]

    async def consume(queue: asyncio.Queue[object]) -> None:
        for _ in range(count):
            await queue.get()

    async def read() -> None:
        from aiohttp_sse_client.client import EventSource

        seen = 0
        async with EventSource(url, session=session) as source:
            async for event in source:
                if event.type == "insight.batch.created":
                    for insight in json.loads(event.data)["insights"]:
                        seen += 1
                        for queue in queues:
                            queue.put_nowait(insight)
                    if seen == count:
                        return

    await asyncio.gather(read(), *(consume(queue) for queue in queues))


async def _insights(stories: str, full: bool) -> Jobs:
    count, slices = 5_000, 15 if full else 5
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        nex = await stack.enter_async_context(Nex(KEY, base_url=f"{stories}/flood/{count}"))
        url = f"{stories}/quick/{count}/v1/insights/stream"
        ways = [
            Way("nex-async", partial(typed, nex, count), count),
            Way("aiohttp-sse-client + json", partial(typed_by_peer, session, url, count), count),
        ]
        yield Job("typed insights, 1 kB", "insight", ways, slices)
        some, consumers = count // 4, 100
        nex = await stack.enter_async_context(Nex(KEY, base_url=f"{stories}/flood/{some}"))
        url = f"{stories}/quick/{some}/v1/insights/stream"
        ways = [
            Way("nex-async", partial(fan_out, nex, some, consumers), some * consumers),
            Way("aiohttp-sse-client + queues", partial(fan_out_by_hand, session, url, some, consumers), some * consumers),
        ]
        yield Job("fan-out to 100 consumers", "delivery", ways, slices)
