"""The real aiohttp on both sides of connections in memory, and a world behind the server: only sockets are left out."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import aiohttp
from aiohttp import web

from nex_async.errors import NexError
from nex_async.transport.wire import Request
from tests.harness.insight_world import InsightWorld

__all__ = ["MemoryNetwork"]

LATENCY = 0.01
PATIENCE = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=None)


class _End(asyncio.Transport):
    """One end of a connection: what is written arrives at the other end a moment later, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._last = 0.0
        self._closing = False
        self._paused = False
        self._held: list[bytes] = []
        self.silent = False
        self.protocol: asyncio.Protocol
        self.peer: _End

    def _later(self, action: Any, *arguments: Any) -> None:
        self._last = max(self._loop.time() + LATENCY, self._last + 1e-6)
        self._loop.call_at(self._last, action, *arguments)

    def write(self, data: Any) -> None:
        if not self._closing and not self.silent:
            self._later(self.peer.arrive, bytes(data))

    def writelines(self, chunks: Any) -> None:
        self.write(b"".join(chunks))

    def arrive(self, data: bytes) -> None:
        """Hand bytes to the protocol, or hold them while it does not read."""
        if self._closing:
            return
        if self._paused:
            self._held.append(data)
        else:
            self.protocol.data_received(data)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.protocol.connection_lost, None)
            if not self.silent:
                self._later(self.peer.ended, None)

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.protocol.connection_lost, None)
            if not self.silent:
                self._later(self.peer.ended, ConnectionResetError(104, "Connection reset by peer"))

    def ended(self, error: Exception | None) -> None:
        """Learn that the other end is gone: in good order, or by a reset."""
        if self._closing:
            return
        if error is None:
            self.protocol.eof_received()
        self._closing = True
        self.protocol.connection_lost(error)

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        held, self._held = self._held, []
        for data in held:
            self.arrive(data)

    def is_reading(self) -> bool:
        return not self._paused


class MemoryNetwork:
    """A connector factory for `SessionPool` whose connections lead to a server over a world."""

    def __init__(self, world: InsightWorld, seed: int) -> None:
        self.world = world
        self.tenant = world.tenant()
        self.random = Random(seed)
        self.chunks = 0
        self.opened = 0
        self.failed = 0
        self._server = web.Server(self._answer, access_log=None)
        self._ends: list[_End] = []

    def __call__(self, **arguments: Any) -> aiohttp.BaseConnector:
        network = self

        class Connector(aiohttp.TCPConnector):
            async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
                await asyncio.sleep(LATENCY)
                return network._connect(self._factory())

        return Connector(**arguments)

    def _connect(self, protocol: Any) -> Any:
        self.opened += 1
        client, server = _End(self.world.loop), _End(self.world.loop)
        client.peer, server.peer = server, client
        client.protocol, server.protocol = protocol, self._server()
        server.protocol.connection_made(server)
        client.protocol.connection_made(client)
        self._ends = [end for end in self._ends if not end.is_closing()] + [server]
        return protocol

    def strike(self) -> None:
        """Break a connection that stands: by a reset, an end in good order, or silence."""
        alive = [end for end in self._ends if not end.is_closing() and not end.silent]
        if not alive:
            return
        end = self.random.choice(alive)
        kind = self.random.choice(("rst", "fin", "half"))
        self.world.note(f"strike {kind}")
        if kind == "rst":
            end.abort()
        elif kind == "fin":
            end.close()
        else:
            end.silent = end.peer.silent = True

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.random.random() < 0.05:
            self.failed += 1
            return web.Response(status=503, text='{"code":503,"message":"try again"}', headers=self._headers())
        if request.path.endswith("/v1/insights/stream"):
            return await self._stream(request)
        target = Request(request.method, "/v1/insights?" + request.query_string, None, None)
        reply = await self.tenant.exchange(target, PATIENCE)
        return web.Response(status=reply.status, body=reply.body, headers=dict(reply.headers))

    def _headers(self) -> dict[str, str]:
        return dict(self.world.headers())

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={**self._headers(), "Content-Type": "text/event-stream"})
        await response.prepare(request)
        stream = await self.tenant.open_stream(Request("GET", "/v1/insights/stream", None, None), PATIENCE)
        try:
            while data := await stream.content.readany():
                self.chunks += 1
                await response.write(data)
        except (aiohttp.ClientError, NexError, ConnectionError):
            self.world.note("the stream was left")
        finally:
            stream.close()
        return response

    async def aclose(self) -> None:
        """End every connection."""
        for end in self._ends:
            end.peer.abort()
            end.abort()
        await self._server.shutdown(1.0)
