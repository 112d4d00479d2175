"""The limit: an asyncio protocol by hand that sends prepared bytes, looks for the end of a reply, and checks nothing."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit


class _Raw(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""
        self.due = 0
        self.reply: asyncio.Future[bytes] | None = None

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer = self.buffer + data if self.buffer else data
        if not self.due:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            at = buffer.find(b"Content-Length: ") + 16
            self.due = end + 4 + int(buffer[at : buffer.find(b"\r\n", at)])
            self.body_at = end + 4
        if len(buffer) >= self.due and self.reply is not None:
            self.buffer, self.due = b"", 0
            self.reply.set_result(buffer[self.body_at :])

    def connection_lost(self, error: Exception | None) -> None:
        if self.reply is not None and not self.reply.done():
            self.reply.set_exception(error or ConnectionError("closed"))


class RawClient:
    """A pool of such connections to one origin, made as they are needed."""

    def __init__(self, origin: str, key: str) -> None:
        parts = urlsplit(origin)
        self._host, self._port = parts.hostname, parts.port
        self._fields = f"Host: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n".encode()
        self._idle: list[_Raw] = []

    async def send(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Return the body of a reply."""
        if self._idle:
            connection = self._idle.pop()
        else:
            _, connection = await asyncio.get_running_loop().create_connection(_Raw, self._host, self._port)
        connection.reply = asyncio.get_running_loop().create_future()
        head = f"{method} {path} HTTP/1.1\r\n".encode() + self._fields
        connection.transport.write(b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))
        content = await connection.reply
        self._idle.append(connection)
        return content

    async def aclose(self) -> None:
        """Close what is idle."""
        for connection in self._idle:
            connection.transport.close()
        await asyncio.sleep(0)
