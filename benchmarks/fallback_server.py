"""The load target in Python: where no C compiler is at hand, and for TLS, whose server costs the client nothing.

It answers what `load_server.c` answers.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

from . import bodies

_TYPE = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n"


def reply(body: bytes, kind: bytes = b"application/json") -> bytes:
    """Return a complete HTTP reply."""
    return _TYPE % (kind, b"Content-Length: %d\r\n" % len(body)) + body


@lru_cache(maxsize=1024)
def _page(offset: int, limit: int, total: int) -> bytes:
    return reply(bodies.page(offset, limit, total))


@lru_cache(maxsize=4)
def _events(framing: str, count: int, size: int) -> bytes:
    frames = [bodies.event(number, size) for number in range(count)]
    if framing == "plain":
        return reply(b"".join(frames), b"text/event-stream")
    chunks = b"".join([b"%x\r\n%s\r\n" % (len(frame), frame) for frame in frames])
    return _TYPE % (b"text/event-stream", b"Transfer-Encoding: chunked\r\n") + chunks + b"0\r\n\r\n"


class _State:
    """What all connections share."""

    def __init__(self) -> None:
        self.settings: dict[str, float] = {"delay": 0.0, "total": 0, "page_size": 100}
        self.counts = dict.fromkeys(("connections", "requests", "tasks", "pages", "rows", "events"), 0)
        self.task = reply(bodies.compact(bodies.TASK).encode())
        self.row = reply(bodies.anything().encode())
        self.definition = reply(bodies.definition().encode())

    def answer(self, method: str, path: str, body: bytes) -> tuple[float, bytes]:
        """Return how long the reply waits, in seconds, and the reply."""
        _, first, *rest = path.partition("?")[0].split("/")
        wait = self.settings["delay"]
        if first == "control":
            return 0.0, self._control(rest[0], rest[1])
        if first == "after":
            wait, rest = float(rest[0]) / 1000, rest[1:]
        self.counts["requests"] += 1
        return wait, self._content(method, [first, *rest], body)

    def _content(self, method: str, parts: list[str], body: bytes) -> bytes:
        if parts[0] == "events":
            self.counts["events"] += int(parts[2])
            return _events(parts[1], int(parts[2]), int(parts[3]))
        if parts[-1] == "records":
            self.counts["pages"] += 1
            asked: dict[str, Any] = json.loads(body)
            size = int(self.settings["page_size"])
            return _page(asked.get("offset", 0), asked.get("limit", size), int(self.settings["total"]))
        if "tasks" in parts:
            self.counts["tasks"] += 1
            return self.task
        if method == "GET" and "objects" in parts:
            return self.definition
        self.counts["rows"] += 1
        return self.row

    def _control(self, name: str, value: str) -> bytes:
        if name == "counts":
            return reply(json.dumps(self.counts).encode())
        self.settings[name] = float(value)
        return reply(b"{}")


class _Protocol(asyncio.Protocol):
    def __init__(self, state: _State) -> None:
        self.state = state
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.state.counts["connections"] += 1
        transport.set_write_buffer_limits(high=1 << 24)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            whole = end + 4 + _content_length(head)
            if len(self.buffer) < whole:
                return
            body, self.buffer = self.buffer[end + 4 : whole], self.buffer[whole:]
            method, path, _ = head.decode("latin-1").split(" ", 2)
            wait, content = self.state.answer(method, path, body)
            if wait:
                asyncio.get_running_loop().call_later(wait, self.transport.write, content)
            else:
                self.transport.write(content)


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0]) if rest else 0


def serve(ready: Connection, context: ssl.SSLContext | None = None) -> None:
    """Serve for as long as the process lives, and send the port once it listens."""

    async def main() -> None:
        state = _State()
        server = await asyncio.get_running_loop().create_server(lambda: _Protocol(state), "127.0.0.1", 0, ssl=context)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def serve_tls(ready: Connection) -> None:
    """Serve over TLS; what is sent first is the certificate of the authority, as PEM, then the port."""
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    ready.send(authority.cert_pem.bytes().decode())
    serve(ready, context)
