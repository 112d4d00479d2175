"""The lean path: a request and its reply straight over aiohttp's connector, protocol and parser.

It keeps aiohttp's pool, TLS, DNS, happy eyeballs and C parser, and leaves out what a call of this API has no need of:
headers merged and checked anew for each request, a URL object, cookies, a timer and a task for each body. It leans on names
that aiohttp does not promise: `unfit` plays a reply through them before the path is used, and says why where it is not.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Any, NoReturn, cast

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection as Lease
from multidict import CIMultiDict
from yarl import URL

from .._logfields import fields_of
from ..errors import printable
from .connection import Connection
from .wire import Request

__all__ = ["LeanPath", "Received", "unfit"]

_log = logging.getLogger("nex_async.pool")

_READ_BUFFER = 1 << 20
_JSON = {"Content-Type": "application/json"}


class _Origin(ClientRequest):
    """What a connector is told of where to connect: one for all requests of a tenant."""

    _key: Any = None

    @property
    def connection_key(self) -> Any:
        """The key of the pool, made once."""
        if self._key is None:
            self._key = super().connection_key
        return self._key


class _Head(bytes):
    """The part of a request's head that is the same for all of a tenant; it holds the key, and prints as a mask."""

    def __repr__(self) -> str:
        return "b'[redacted]'"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("the head of a request holds an API key, and cannot be pickled")


class Received:
    """A reply whose head has come: what `body` needs of it."""

    __slots__ = ("_lease", "content", "headers", "status")

    def __init__(self, lease: Lease, status: int, headers: Mapping[str, str], content: aiohttp.StreamReader) -> None:
        self._lease: Lease | None = lease
        self.status: int = status
        self.headers: Mapping[str, str] = headers
        self.content: aiohttp.StreamReader = content

    def close(self) -> None:
        """Let go of the connection: back to the pool when the reply was read to its end, else closed."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        if self.content.is_eof():
            lease.release()
        else:
            lease.close()


class LeanPath:
    """The lean path of one tenant on one loop."""

    __slots__ = ("_connector", "_headers", "_json_fields", "_origin", "_plain_fields", "_prefix")

    def __init__(self, connector: aiohttp.BaseConnector, base_url: str, headers: CIMultiDict[str]) -> None:
        url = URL(base_url, encoded=True)
        self._connector = connector
        self._origin = _Origin("GET", url, loop=asyncio.get_running_loop(), ssl=True)
        self._prefix = url.raw_path.rstrip("/")
        self._headers: CIMultiDict[str] = CIMultiDict({"Host": self._origin.headers["Host"]})
        self._headers.update(headers)
        self._plain_fields: _Head = self._fields({})
        self._json_fields: _Head = self._fields(_JSON)

    async def request(self, request: Request, timeout: aiohttp.ClientTimeout) -> Received:
        """Send a request and return its reply once the head is there. Raises what aiohttp raises."""
        try:
            lease = await self._connector.connect(self._origin, [], timeout)
        except asyncio.TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("no connection in time") from error
        try:
            protocol = cast("Connection", lease.protocol)
            _prepare(protocol, timeout.sock_read)
            self._write(lease, request)
            protocol.start_timeout()
            while True:
                message, content = await protocol.read()
                if not 100 <= message.code < 200 or message.code == 101:
                    return Received(lease, message.code, message.headers, content)
        except BaseException:
            lease.close()
            raise

    def _write(self, lease: Lease, request: Request) -> None:
        """Write head and body at once; no variable of ours holds the key in clear."""
        method, target, body, extra = request
        transport = lease.transport
        if transport is None:
            raise aiohttp.ClientConnectionResetError("the connection was lost before the request was sent")
        first = f"{method} {self._prefix}{target} HTTP/1.1\r\n".encode("ascii")
        if body is None:
            parts: tuple[bytes, ...] = (
                first,
                self._fields(extra),
                b"\r\n" if method == "GET" else b"Content-Length: 0\r\n\r\n",
            )
        else:
            length = b"Content-Length: %d\r\n\r\n" % len(body)
            parts = (first, self._json_fields if extra is None else self._fields({**_JSON, **extra}), length, body)
        transport.write(b"".join(parts))

    def _fields(self, extra: dict[str, str] | None) -> _Head:
        """Return the fields of the head, with those of the caller over ours."""
        if extra is None:
            return self._plain_fields
        merged = CIMultiDict(self._headers)
        merged.update(extra)
        return _rendered(merged)


def _prepare(protocol: Connection, read_timeout: float | None) -> None:
    """Make a connection ready for the next reply."""
    protocol.set_response_params(
        read_until_eof=True,
        auto_decompress=False,
        read_timeout=read_timeout,
        read_bufsize=_READ_BUFFER,
        timeout_ceil_threshold=1e12,
    )


class _Stage(asyncio.Transport):
    """A transport that leads nowhere."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing."""

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""


@functools.lru_cache(maxsize=1)
def unfit() -> str | None:
    """Return why the aiohttp at hand cannot be used so, None where it can. Needs a running loop, and asks once."""
    try:
        _rehearse()
    except Exception as error:
        reason = f"{type(error).__name__}: {printable(str(error))}"
        template = "calls go through aiohttp's ClientSession, which costs more: this aiohttp has another shape (%s)"
        _log.warning(template, reason, extra=fields_of(error))
        return reason
    return None


def _rehearse() -> None:
    """Play a reply through the names the path leans on. Raises where one is not as it was."""
    asked = list(inspect.signature(aiohttp.BaseConnector.connect).parameters)
    _same(asked, ["self", "req", "traces", "timeout"])
    _same([name for name in ("protocol", "transport", "release", "close") if not hasattr(Lease, name)], [])
    origin = _Origin("GET", URL("http://localhost/"), loop=asyncio.get_running_loop(), ssl=True)
    _same((origin.connection_key.host, origin.headers["Host"]), ("localhost", "localhost"))
    protocol = Connection(asyncio.get_running_loop())
    protocol.connection_made(_Stage())
    for turn in range(2):
        _prepare(protocol, 5.0)
        protocol.start_timeout()
        protocol.data_received(
            b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nX-Turn: %d\r\nContent-Length: 2\r\n\r\n{" % turn
        )
        codes = [_at_once(protocol)[0].code]
        message, content = _at_once(protocol)
        _same((codes, message.code, message.headers["x-turn"], content.is_eof()), ([103], 200, str(turn), False))
        protocol.data_received(b"}")
        _same((content.is_eof(), content.read_nowait(), protocol.should_close), (True, b"{}", False))
    protocol._read_timeout = None
    protocol.connection_lost(None)
    _same(protocol.should_close, True)


def _at_once(protocol: Connection) -> Any:
    reading = protocol.read()
    try:
        reading.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("a reply that is there is not read at once")


def _same(found: object, wanted: object) -> None:
    if found != wanted:
        raise RuntimeError(f"{found!r} where {wanted!r} was due")


def _rendered(headers: CIMultiDict[str]) -> _Head:
    return _Head(b"".join(f"{name}: {str.__str__(value)}\r\n".encode("latin-1") for name, value in headers.items()))
