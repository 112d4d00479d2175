"""The proxy does to a connection what its name says, counts it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator

import pytest

from tests.harness.proxy import KINDS, Fault, Proxy, draw_schedule

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that sends back what it gets, and ends when its client does."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: writer.close())

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def proxied() -> AsyncIterator[Proxy]:
    async with echo() as port, Proxy(port, seed=3) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def sent_back(streams: Streams, data: bytes) -> bytes:
    streams[1].write(data)
    return await asyncio.wait_for(streams[0].readexactly(len(data)), 5)


async def test_bytes_arrive_as_they_were_sent() -> None:
    """Whatever delays and cuts them, bytes arrive whole and in their order, and an end is handed on."""
    data = bytes(range(256)) * 40
    async with proxied() as proxy, connected(proxy) as streams:
        assert await sent_back(streams, data) == data
        proxy.latency, proxy.pieces, proxy.rate = (0.0, 0.001), (1, 48), 1e7
        assert await sent_back(streams, data) == data
        streams[1].write_eof()
        assert await asyncio.wait_for(streams[0].read(), 5) == b""
    assert proxy.counts["bytes"] == 4 * len(data)
    assert proxy.counts["slices"] > 100
    assert proxy.counts["delays"] > 100
    assert proxy.open == 0


async def test_latency_and_rate_take_their_time() -> None:
    """A piece comes no earlier than the latency of both ways, and the bytes a second hold."""
    loop = asyncio.get_running_loop()
    async with proxied() as proxy, connected(proxy) as streams:
        proxy.latency = (0.05, 0.05)
        began = loop.time()
        await sent_back(streams, b"x")
        assert loop.time() - began >= 0.099
        proxy.latency, proxy.rate = (0.0, 0.0), 10_000.0
        began = loop.time()
        await sent_back(streams, b"x" * 500)
        assert loop.time() - began >= 0.099


async def test_a_reset_is_an_rst() -> None:
    """Both ends learn at once; with `after`, what comes before is forwarded."""
    async with proxied() as proxy, connected(proxy) as one, connected(proxy) as other:
        assert await sent_back(one, b"hello") == b"hello"
        assert await sent_back(other, b"hello") == b"hello"
        proxy.reset()
        for streams in (one, other):
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(streams[0].read(), 5)
    assert proxy.counts["reset"] == 2
    async with proxied() as proxy, connected(proxy) as one:
        assert await sent_back(one, b"hello") == b"hello"
        proxy.reset(after=40)
        one[1].write(b"x" * 100)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(one[0].readexactly(100), 5)
        assert proxy.counts["bytes"] - 10 <= 40


async def test_half_open_says_nothing() -> None:
    """Neither bytes nor an end come through; a mended network breaks what stood so."""
    async with proxied() as proxy, connected(proxy) as streams:
        assert await sent_back(streams, b"hello") == b"hello"
        proxy.half_open()
        streams[1].write(b"anybody?")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(streams[0].read(), 0.05)
        assert proxy.counts["swallowed"] == 8
        assert proxy.counts["bytes"] == 10
        await proxy.calm()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(streams[0].read(), 5)


async def test_refused_connections_come_back() -> None:
    """While it refuses, connecting fails and what stands goes on; then the same port takes connections again."""
    async with proxied() as proxy, connected(proxy) as old:
        assert await sent_back(old, b"hello") == b"hello"
        proxy.refuse()
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await sent_back(old, b"still") == b"still"
        await proxy.accept()
        async with connected(proxy) as new:
            assert await sent_back(new, b"again") == b"again"


async def test_a_schedule_is_played_and_counted() -> None:
    """Each kind of fault happens when it is due, and the network is well when the schedule is over."""
    faults = [Fault(0.02 * number, kind, 0.01) for number, kind in enumerate(KINDS)]
    async with proxied() as proxy, connected(proxy) as streams:
        assert await sent_back(streams, b"hello") == b"hello"
        proxy.play(faults)
        while sum(proxy.counts[f"{kind} faults"] for kind in KINDS) < len(KINDS):
            await asyncio.sleep(0.005)
        await proxy.calm()
        async with connected(proxy) as new:
            assert await sent_back(new, b"well") == b"well"
    assert [proxy.counts[f"{kind} faults"] for kind in KINDS] == [1] * len(KINDS)


def test_a_seed_is_a_schedule() -> None:
    """The same seed draws the same faults; they fill the time, do not overlap, and no kind is left out."""
    drawn = draw_schedule(7, 600.0, 5.0)
    assert drawn == draw_schedule(7, 600.0, 5.0)
    assert drawn != draw_schedule(8, 600.0, 5.0)
    assert {fault.kind for fault in drawn} == set(KINDS)
    assert all(one.at + one.seconds <= two.at for one, two in itertools.pairwise(drawn))
    assert drawn[-1].at + drawn[-1].seconds <= 600.0
    assert 60 < len(drawn) < 160
