"""A listing through the auto-paginator: sequential and with pages in flight, against what one writes by hand."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import islice
from typing import Any

import aiohttp
import msgspec

from nex_async import Nex
from nex_async.models import Record
from nex_async.models.base import decode_rows

from .decoding import Page
from .job import KEY, Job, Jobs, Peers, control
from .measure import Way
from .raw_client import RawClient

PATH = "/v1/objects/company/records"


async def through_nex(nex: Nex, size: int, window: int) -> int:
    """Ours: the public pager."""
    seen = 0
    pager = nex.records.list("company", limit=size)
    if window == 1:
        async for row in pager:
            seen += bool(row.id)
        return seen
    async with pager.prefetch(window) as rows:
        async for row in rows:
            seen += bool(row.id)
    return seen


async def by_hand(session: aiohttp.ClientSession, url: str, total: int, size: int, window: int) -> int:
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


async def by_limit(client: RawClient, base: str, total: int, size: int) -> int:
    """The limit: a raw protocol, bare msgspec with unopened attributes, one page after the other."""
    decode, seen = msgspec.json.Decoder(Page).decode, 0
    for offset in range(0, total, size):
        content = await client.send("POST", base + PATH, b'{"limit":%d,"offset":%d}' % (size, offset))
        for row in decode(content).data:
            seen += bool(row.id)
    return seen


def by_openai(client: Any) -> Callable[[int], Awaitable[int]]:
    """The paginator of the OpenAI SDK, with pages of this API as its generator would write them."""
    from openai._base_client import BaseAsyncPage, BasePage, PageInfo
    from openai._models import BaseModel

    fields = {"id": str, "object_id": str, "type": str, "workspace_id": str, "created_at": str, "updated_at": str}
    space = {"__annotations__": {**fields, "attributes": dict[str, Any]}, "__module__": __name__}
    model: Any = type("Model", (BaseModel,), space)

    def next_page_info(self: Any) -> PageInfo | None:
        after = self.offset + len(self.data)
        return PageInfo(json={"limit": self.limit, "offset": after}) if after < self.total else None

    envelope = {"data": list[model], "total": int, "limit": int, "offset": int}
    methods = {"_get_page_items": lambda self: self.data, "next_page_info": next_page_info}
    page: Any = type("Page", (BaseAsyncPage, BasePage), {"__annotations__": envelope, "__module__": __name__, **methods})

    async def run(size: int) -> int:
        seen = 0
        body = {"limit": size, "offset": 0}
        async for row in client.get_api_list(PATH[3:], page=page, model=model, body=body, method="post"):
            seen += bool(row.id)
        return seen

    return run


async def _checked(run: Callable[[], Awaitable[int]], total: int) -> None:
    seen = await run()
    if seen != total:
        raise RuntimeError(f"{seen} rows of {total}")


def _way(name: str, run: Callable[[], Awaitable[int]], total: int) -> Way:
    return Way(name, partial(_checked, run, total), total)


async def jobs(origin: str, *, full: bool) -> Jobs:
    """Yield listings without delay, then with 5 and 50 ms a page, sequential and prefetched."""
    async for job in _without_delay(origin, full):
        yield job
    windows = (1, 4, 8, 16) if full else (1, 8)
    slices = 11 if full else 5
    for delay in (0, 5, 50):
        for window in windows:
            pages = 200 if full else 96 if window > 1 else 12
            async for job in _delayed(origin, delay, pages, window, slices):
                yield job
    await control(origin, total=0)


async def _without_delay(origin: str, full: bool) -> AsyncIterator[Job]:
    total, size, peers = 5_000, 100, Peers()
    await control(origin, total=total)
    async with AsyncExitStack() as stack:
        nex = await stack.enter_async_context(Nex(KEY, base_url=origin))
        raw = RawClient(origin, KEY)
        stack.push_async_callback(raw.aclose)
        ways = [
            _way("nex-async", partial(through_nex, nex, size, 1), total),
            _way("scan of raw pages (the limit)", partial(by_limit, raw, "", total, size), total),
        ]
        try:
            from openai import AsyncOpenAI

            client = await stack.enter_async_context(AsyncOpenAI(api_key=KEY, base_url=f"{origin}/v1"))
            run = partial(by_openai(client), size)
            await _checked(run, total)
            ways.append(_way("openai paginator", run, total))
        except Exception as error:
            peers.note("openai paginator", error)
        yield Job("listing, 0 ms, sequential, pages of 100", "record", ways, 25 if full else 7, missing=peers.missing)


async def _delayed(origin: str, delay: int, pages: int, window: int, slices: int) -> AsyncIterator[Job]:
    size = 500
    total = pages * size
    await control(origin, total=total)
    base = f"{origin}/after/{delay}"
    session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"})
    async with session, Nex(KEY, base_url=base) as nex:
        how = "sequential" if window == 1 else f"window {window}"
        ways = [
            Way("nex-async", partial(_checked, partial(through_nex, nex, size, window), total), pages),
            Way(
                "gather by hand",
                partial(_checked, partial(by_hand, session, base + PATH, total, size, window), total),
                pages,
            ),
        ]
        yield Job(f"listing, {delay} ms, {how}, pages of 500", "page", ways, slices, headline="wall")
