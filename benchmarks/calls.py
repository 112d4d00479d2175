"""One small call: `await nex.tasks.get(id)` against all that a user would send it with instead."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, get_type_hints

import aiohttp
import msgspec

from nex_async import Nex, SessionPool

from .job import KEY, Job, Jobs, Peers
from .measure import Way
from .raw_client import RawClient
from .server import tls_server

FIRST = 70_000_000_000_000_000
One = Callable[[int], Awaitable[object]]


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


async def spread(count: int, concurrency: int, one: One) -> None:
    """Do something so often, by so many workers."""

    async def worker(first: int) -> None:
        for index in range(first, count, concurrency):
            await one(index)

    await asyncio.gather(*(worker(first) for first in range(min(concurrency, count))))


async def through_nex(stack: AsyncExitStack, origin: str, **settings: Any) -> One:
    """Ours: the typed method, with everything a user has on."""
    pool = await stack.enter_async_context(SessionPool(**settings))
    nex = await stack.enter_async_context(Nex(KEY, base_url=origin, pool=pool))

    async def one(index: int) -> object:
        return await nex.tasks.get(FIRST + index)

    return one


async def by_aiohttp(stack: AsyncExitStack, origin: str, **settings: Any) -> One:
    """Bare aiohttp, as people write it, and msgspec."""
    headers = {"Authorization": f"Bearer {KEY}"}
    session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers, **settings))
    decode = msgspec.json.Decoder(Task).decode

    async def one(index: int) -> object:
        async with session.get(f"{origin}/v1/tasks/{FIRST + index}") as response:
            return decode(await response.read())

    return one


async def by_hand(stack: AsyncExitStack, origin: str) -> One:
    """The limit: a protocol of our own that checks nothing, and msgspec."""
    client = RawClient(origin, KEY)
    stack.push_async_callback(client.aclose)
    decode = msgspec.json.Decoder(Task).decode

    async def one(index: int) -> object:
        return decode(await client.send("GET", f"/v1/tasks/{FIRST + index}"))

    return one


async def by_httpx(stack: AsyncExitStack, origin: str) -> One:
    """httpx with its own JSON."""
    import httpx

    client = await stack.enter_async_context(httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}))

    async def one(index: int) -> object:
        return (await client.get(f"{origin}/v1/tasks/{FIRST + index}")).json()

    return one


async def by_openai(stack: AsyncExitStack, origin: str) -> One:
    """The OpenAI SDK, pointed at the server: a generated SDK of the usual kind, with a model of the task."""
    from openai import AsyncOpenAI
    from openai._models import BaseModel

    model = type("Task", (BaseModel,), {"__annotations__": get_type_hints(Task), "__module__": __name__})
    client = await stack.enter_async_context(AsyncOpenAI(api_key=KEY, base_url=f"{origin}/v1"))

    async def one(index: int) -> object:
        return await client.get(f"/tasks/{FIRST + index}", cast_to=model)

    return one


async def by_stripe(stack: AsyncExitStack, origin: str) -> One:
    """stripe-python, asynchronous, on aiohttp."""
    import stripe

    http = stripe.AIOHTTPClient()
    stack.push_async_callback(http.close_async)
    client = stripe.StripeClient(KEY, base_addresses={"api": origin}, http_client=http)

    async def one(index: int) -> object:
        response = await client.raw_request_async("get", f"/v1/tasks/{FIRST + index}")
        return client.deserialize(response, api_mode="V1")

    return one


async def by_notion(stack: AsyncExitStack, origin: str) -> One:
    """notion-client, asynchronous."""
    from notion_client import AsyncClient

    client = await stack.enter_async_context(AsyncClient(auth=KEY, base_url=origin))

    async def one(index: int) -> object:
        return await client.request(path=f"tasks/{FIRST + index}", method="GET")

    return one


PEERS = {
    "aiohttp + msgspec": (by_aiohttp, 1),
    "protocol by hand (the limit)": (by_hand, 1),
    "httpx": (by_httpx, 5),
    "openai": (by_openai, 10),
    "stripe": (by_stripe, 5),
    "notion-client": (by_notion, 10),
}
"""Each peer, and how many times fewer calls a slice of it has: the slow ones would take all the time."""


async def _ready(peers: Peers, name: str, make: Any, stack: AsyncExitStack, origin: str) -> One | None:
    try:
        one: One = await make(stack, origin)
        await one(0)
    except Exception as error:
        peers.note(name, error)
        return None
    return one


async def jobs(origin: str, *, full: bool) -> Jobs:
    """Yield one call at concurrency 1, 10 and 100, then over TLS."""
    count, slices = (1000, 51) if full else (200, 5)
    async with AsyncExitStack() as stack:
        peers = Peers()
        ours = await through_nex(stack, origin)
        others = {name: (await _ready(peers, name, make, stack, origin), fewer) for name, (make, fewer) in PEERS.items()}
        for concurrency in (1, 10, 100):
            ways = [Way("nex-async", partial(spread, count, concurrency, ours), count)]
            for name, (one, fewer) in others.items():
                if one is not None:
                    ways.append(Way(name, partial(spread, count // fewer, concurrency, one), count // fewer))
            yield Job(f"one call, concurrency {concurrency}", "call", ways, slices, missing=peers.missing)
    with tls_server() as (secure, authority):
        context = ssl.create_default_context(cadata=authority)
        async with AsyncExitStack() as stack:
            ours = await through_nex(stack, secure, ssl=context)
            theirs = await by_aiohttp(stack, secure, connector=aiohttp.TCPConnector(ssl=context))
            for concurrency in (1, 10):
                pair = [("nex-async", ours), ("aiohttp + msgspec", theirs)]
                ways = [Way(name, partial(spread, count, concurrency, one), count) for name, one in pair]
                yield Job(f"one call over TLS, concurrency {concurrency}", "call", ways, slices)
