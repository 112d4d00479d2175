"""How the insight stream spreads: bare asyncio protocols that count events and note when they came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import msgspec

_EVENT = b"event: insight.batch.created"
_HEADERS = {"Authorization": "Bearer sk-local"}
SENTENCES = 25


class Listener(asyncio.Protocol):
    """One stream: how many events have begun, and when the last bytes came."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._tail = b""
        self.events = 0
        self.last = 0.0
        self.wanted: asyncio.Future[None] | None = None
        self.due = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.last = time.perf_counter()
        self.events += (self._tail + data).count(_EVENT)
        self._tail = data[-len(_EVENT) + 1 :]
        if self.wanted is not None and self.events >= self.due and not self.wanted.done():
            self.wanted.set_result(None)

    async def reach(self, events: int) -> None:
        """Wait until so many live events have come."""
        self.due, self.wanted = events, asyncio.get_running_loop().create_future()
        if self.events < events:
            await self.wanted


@asynccontextmanager
async def listeners(url: str, count: int) -> AsyncIterator[list[Listener]]:
    """Open so many streams, one after the other, so that each is heard."""
    parts = urlsplit(url)
    request = (
        f"GET {parts.path}/v1/insights/stream HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer sk-local\r\n\r\n"
    )
    opened: list[Listener] = []
    loop = asyncio.get_running_loop()
    try:
        for _ in range(count):
            _, listener = await loop.create_connection(lambda: Listener(request.encode()), parts.hostname, parts.port)
            opened.append(listener)
        while not all(listener.last for listener in opened):
            await asyncio.sleep(0.01)
        yield opened
    finally:
        for listener in opened:
            listener.transport.abort()


def text(number: int, sentences: int) -> bytes:
    """Return a body for ingest with so many sentences, each of which becomes an insight."""
    person = f"Person {number} <person{number % 500}@example{number % 97}.com>"
    content = " ".join(f"{person} asked for demo number {number}-{index}." for index in range(sentences))
    return msgspec.json.encode({"content": content, "context": "mail"})


async def _ingest(session: aiohttp.ClientSession, url: str, body: bytes) -> None:
    async with session.post(f"{url}/v1/context/text", data=body, headers=_HEADERS) as response:
        await response.read()
        if response.status != 200:
            raise RuntimeError(f"ingest: {response.status}")


async def spread(url: str, count: int, rounds: int) -> list[float]:
    """Return, for each batch, the milliseconds from sending its text to the last of `count` listeners having it."""
    times = []
    async with aiohttp.ClientSession() as session, listeners(url, count) as opened:
        for number in range(rounds):
            reached = asyncio.gather(*(listener.reach(number + 1) for listener in opened))
            start = time.perf_counter()
            await _ingest(session, url, text(number, 1))
            await reached
            times.append((max(listener.last for listener in opened) - start) * 1000)
    return times


async def sustain(url: str, texts: int, workers: int, cpu: Callable[[], Awaitable[float]]) -> tuple[float, float]:
    """Return insights per second heard by one listener, and the server's CPU microseconds for each."""
    numbers = iter(range(texts))
    async with aiohttp.ClientSession() as session, listeners(url, 1) as opened:

        async def work() -> None:
            for number in numbers:
                await _ingest(session, url, text(number, SENTENCES))

        before, start = await cpu(), time.perf_counter()
        await asyncio.gather(opened[0].reach(texts), *(work() for _ in range(workers)))
        wall = time.perf_counter() - start
        insights = texts * SENTENCES
        return insights / wall, (await cpu() - before) / insights * 1e6
