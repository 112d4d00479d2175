"""A scripted server on a real loopback socket: each connection plays a list of steps, byte by byte."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nex_async import RetryPolicy

__all__ = [
    "Peer",
    "RawServer",
    "Seen",
    "Step",
    "answer",
    "drip",
    "fin",
    "half_close",
    "hold",
    "json_reply",
    "read_head",
    "read_request",
    "render",
    "reset",
    "send",
    "serve",
    "signal",
    "wait",
]


@dataclass(frozen=True)
class Seen:
    """A request as it came over the wire; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: RawServer, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.number = number
        self.reader = reader
        self.writer = writer

    async def head(self) -> Seen:
        """Read and note a request up to its blank line."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
        seen = Seen(method, target, headers, b"", self.number)
        self.server.requests.append(seen)
        return seen

    async def request(self) -> Seen:
        """Read and note a whole request."""
        head = await self.head()
        body = await self.reader.readexactly(int(head.headers.get("content-length", 0)))
        self.server.requests[-1] = seen = Seen(head.method, head.target, head.headers, body, self.number)
        return seen

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Step: TypeAlias = Callable[[Peer], Awaitable[object]]


@dataclass
class RawServer:
    """Plays `scripts[n]` on connection `n`, the last one on every further connection; a script's end is a FIN."""

    scripts: list[list[Step]]
    tls: ssl.SSLContext | None = None
    requests: list[Seen] = field(default_factory=list)
    """Every request seen, in order, on whatever connection."""
    connections: int = 0

    def __init__(self, *scripts: list[Step], tls: ssl.SSLContext | None = None) -> None:
        self.scripts = list(scripts)
        self.tls = tls
        self.requests = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def used(self) -> list[int]:
        """The connection each request came on."""
        return [seen.connection for seen in self.requests]

    async def __aenter__(self) -> RawServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 24, ssl=self.tls, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0)  # lets the aborted transports call back and close their sockets
        await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        self._writers.add(writer)
        task = asyncio.ensure_future(self._play(Peer(self, number, reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _play(self, peer: Peer) -> None:
        try:
            for step in self.scripts[min(peer.number, len(self.scripts) - 1)]:
                await step(peer)
        except (OSError, EOFError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            peer.writer.close()
            self._writers.discard(peer.writer)


# ---- steps ----------------------------------------------------------------------------------------------------------


async def read_request(peer: Peer) -> None:
    """Read a whole request."""
    await peer.request()


async def read_head(peer: Peer) -> None:
    """Read a request's head and leave its body unread."""
    await peer.head()


def send(data: bytes) -> Step:
    """Send exactly these bytes."""
    return lambda peer: peer.send(data)


def answer(data: bytes) -> Step:
    """Read a request, send exactly these bytes."""

    async def step(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)

    return step


def serve(handler: Callable[[Seen], bytes]) -> Step:
    """Answer requests until the client closes."""

    async def step(peer: Peer) -> None:
        while True:
            await peer.send(handler(await peer.request()))

    return step


def drip(data: bytes, every: float) -> Step:
    """Send byte by byte, `every` seconds."""

    async def step(peer: Peer) -> None:
        for position in range(len(data)):
            await peer.send(data[position : position + 1])
            await asyncio.sleep(every)

    return step


def wait(event: asyncio.Event) -> Step:
    """Wait for the test's word."""
    return lambda peer: event.wait()


def signal(event: asyncio.Event) -> Step:
    """Tell the test that the script came to here; what was sent before is in the client's socket."""

    async def step(peer: Peer) -> None:
        event.set()

    return step


async def hold(peer: Peer) -> None:
    """Say nothing until the client goes away."""
    await peer.reader.read()


async def half_close(peer: Peer) -> None:
    """Send FIN, and go on reading."""
    peer.writer.write_eof()


async def fin(peer: Peer) -> None:
    """Close in good order."""
    peer.writer.close()


async def reset(peer: Peer) -> None:
    """Close with RST."""
    sock = peer.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()


# ---- replies --------------------------------------------------------------------------------------------------------


def render(
    body: bytes, status: int | str = "200 OK", headers: Mapping[str, str] | None = None, *, length: int | None = None
) -> bytes:
    """Return a reply with the given body; `length` is the Content-Length it claims, when that is to be a lie."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body) if length is None else length)}
    fields.update(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    line = f"{status} Status" if isinstance(status, int) else status
    return f"HTTP/1.1 {line}\r\n{head}\r\n".encode("latin-1") + body


def json_reply(value: Any, status: int | str = "200 OK", headers: Mapping[str, str] | None = None) -> bytes:
    """Return a well-formed JSON reply."""
    return render(json.dumps(value).encode(), status, headers)


NO_WAIT = RetryPolicy(backoff_base=0.0, throttle_base=0.0)
"""Retries as usual, without their waits."""
ONCE = RetryPolicy(retries=0)
TASK = json_reply({"id": "1", "title": "x"})
