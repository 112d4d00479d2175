"""The lean path: a request and its reply straight over aiohttp's connector, protocol and parser.

It keeps aiohttp's pool, TLS, DNS, happy eyeballs and C parser, and leaves out what a call of this API has no need of:
headers merged and checked anew for each request, a URL object, cookies, a timer and a task for each body. It leans on names
that aiohttp does not promise: `unfit` plays a reply through them before the path is used, and says why where it is not.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.streams import StreamReader
from multidict import CIMultiDict
from yarl import URL

from .._logfields import fields_of
from ..errors import ClientClosed, ConfigError, NexError, Phase, Timeout, printable
from .body import read_body, read_error, too_large, unpacked
from .connection import EXACT, Connection
from .faults import AIOHTTP_FAILURES, failure_of
from .idle import IdleConnections
from .limiter import KeyState
from .session import CLOSED, JSON_HEADERS, STREAMED, SessionPath
from .wire import MAX_ERROR_BODY, Reply, Request

if TYPE_CHECKING:
    from .pool import ConnectionSet

__all__ = ["LeanPath", "Received", "unfit"]

_log = logging.getLogger("nex_async.pool")

_READ_BUFFER = 1 << 20


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
    """A reply whose head has come and whose body has not: what `body` needs of it."""

    __slots__ = ("_let_go", "content", "headers", "status")

    def __init__(
        self, status: int, headers: Mapping[str, str], content: aiohttp.StreamReader, let_go: Callable[[], None]
    ) -> None:
        self.status: int = status
        self.headers: Mapping[str, str] = headers
        self.content: aiohttp.StreamReader = content
        self._let_go = let_go

    def close(self) -> None:
        """Have the connection closed once the exchange lets go of it."""
        self._let_go()


class LeanPath:
    """The lean path of one tenant on one loop."""

    __slots__ = (
        "_connections", "_connector", "_headers", "_idle", "_json_fields", "_keeps", "_key", "_keys", "_max_body", "_origin",
        "_plain_fields", "_prefix", "_resting", "_session",
    )  # fmt: skip

    def __init__(self, connections: ConnectionSet, keys: KeyState, session: SessionPath) -> None:
        tenant = session.tenant
        url = URL(tenant.base_url, encoded=True)
        self._connections = connections
        self._keys = keys
        self._session = session
        self._max_body: int = tenant.max_body
        self._idle: IdleConnections = connections.idle
        self._connector: aiohttp.BaseConnector = connections.idle.connector
        self._keeps: bool = not getattr(self._connector, "force_close", False)
        self._origin = _Origin("GET", url, loop=connections.loop, ssl=True)
        self._key: Any = self._origin.connection_key
        self._resting: list[Connection] = connections.idle.leading_to(self._key)
        self._prefix = url.raw_path.rstrip("/")
        self._headers: CIMultiDict[str] = CIMultiDict({"Host": self._origin.headers["Host"]})
        self._headers.update(tenant.headers)
        self._plain_fields: _Head = self._fields({})
        self._json_fields: _Head = self._fields(JSON_HEADERS)

    async def exchange(self, request: Request, timeout: aiohttp.ClientTimeout) -> Reply:
        """Send one request and return its complete reply. Raises `TransportError` or `DeadlineExceeded`."""
        connections = self._connections
        body = request.body
        if connections.closed:
            raise ClientClosed(CLOSED)
        if body is not None and len(body) > STREAMED:
            return await self._session.exchange(request, timeout)
        phase: Phase = "headers"
        waiting = connections.in_flight >= connections.limit
        connections.in_flight += 1
        protocol: Connection | None = None
        try:
            protocol = self._rested()
            if protocol is None:
                protocol = await self._connect(timeout)
            self._write(protocol, request, timeout.sock_read)
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:
                message, content = await protocol.read()
            phase = "body"
            status, headers = message.code, message.headers
            self._keys.replied = headers
            if (
                200 <= status < 300
                and type(content) is StreamReader
                and content._eof
                and content._exception is None
                and not protocol._reading_paused
            ):
                read = b"".join(content._buffer)
                if len(read) > self._max_body:
                    raise too_large(self._max_body)
                if "Content-Encoding" in headers and read:
                    read = await unpacked(headers, read, self._max_body)
            else:
                read = await self._rest(protocol, status, headers, content)
            self._let_go(protocol)
            return tuple.__new__(Reply, (status, headers, read))
        except AIOHTTP_FAILURES as error:
            failure: NexError = failure_of(error, phase, waiting)
        except BaseException:
            if protocol is not None:
                self._close(protocol)
            raise
        finally:
            connections.in_flight -= 1
        if protocol is not None:
            self._close(protocol)
        if isinstance(failure, Timeout):
            self._idle.close(self._key)
        if connections.closed:  # which is what broke the connection
            failure = ClientClosed(CLOSED)
        raise failure from None

    def _rested(self) -> Connection | None:
        """Return a connection that rests and can be used, if there is one: the one that rests for the shortest time."""
        resting, idle = self._resting, self._idle
        while resting:
            protocol = resting.pop()
            if protocol.is_connected() and idle.clock() - protocol.heard <= idle.keepalive:
                return protocol
            self._close(protocol)
        return None

    async def _connect(self, timeout: aiohttp.ClientTimeout) -> Connection:
        self._idle.give_back(but=self._key)
        try:
            lease = await self._connector.connect(self._origin, [], timeout)
        except asyncio.TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("no connection in time") from error
        protocol, lease._protocol = lease._protocol, None
        if not isinstance(protocol, Connection):
            self._connector._release(self._key, cast(Any, protocol), should_close=True)
            raise ConfigError("the connector of `connector_factory` makes connections of its own kind")
        return protocol

    def _let_go(self, protocol: Connection) -> None:
        """Keep a connection for the next request, unless it cannot be used again or somebody waits for one."""
        if protocol.should_close or self._connector._waiters or self._connector.closed or not self._keeps:
            self._connector._release(self._key, protocol)
        else:
            self._resting.append(protocol)
            if self._idle.timer is None:
                self._idle.watch()

    def _close(self, protocol: Connection) -> None:
        self._connector._release(self._key, protocol, should_close=True)

    async def _rest(
        self, protocol: Connection, status: int, headers: Mapping[str, str], content: aiohttp.StreamReader
    ) -> bytes:
        """Return the body of a reply that is no success, or that has not come in one piece with its head."""
        received = Received(status, headers, content, protocol.force_close)
        if 200 <= status < 300:
            return await read_body(received, self._max_body)
        return await read_error(received, MAX_ERROR_BODY)

    def _write(self, protocol: Connection, request: Request, read_timeout: float | None) -> None:
        """Write head and body at once; no variable of ours holds the key in clear."""
        method, target, body, extra = request
        transport = protocol.transport
        if transport is None:
            raise aiohttp.ClientConnectionResetError("the connection was lost before the request was sent")
        first = f"{method} {self._prefix}{target} HTTP/1.1\r\n".encode("ascii")
        if body is None:
            fields = self._plain_fields if extra is None else self._fields(extra)
            parts: tuple[bytes, ...] = first, fields, b"\r\n" if method == "GET" else b"Content-Length: 0\r\n\r\n"
        else:
            fields = self._json_fields if extra is None else self._fields({**JSON_HEADERS, **extra})
            parts = first, fields, b"Content-Length: %d\r\n\r\n" % len(body), body
        _await_reply(protocol, read_timeout)
        transport.write(b"".join(parts))

    def _fields(self, extra: Mapping[str, str]) -> _Head:
        """Return the fields of the head, with those of the caller over ours."""
        merged = CIMultiDict(self._headers)
        merged.update(extra)
        return _rendered(merged)


def _await_reply(protocol: Connection, read_timeout: float | None) -> None:
    """Make a connection ready for the reply of a request that is about to be sent."""
    protocol.set_response_params(
        read_until_eof=True,
        auto_decompress=False,
        read_timeout=read_timeout,
        read_bufsize=_READ_BUFFER,
        timeout_ceil_threshold=EXACT,
    )
    protocol._reschedule_timeout()


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
    """Play replies through the names the path leans on. Raises where one is not as it was."""
    loop = asyncio.get_running_loop()
    origin = _Origin("GET", URL("http://localhost/"), loop=loop, ssl=True)
    key = origin.connection_key
    _same((key.host, origin.headers["Host"]), ("localhost", "localhost"))
    protocol = Connection(loop)
    protocol.connection_made(_Stage())
    connector = aiohttp.BaseConnector(loop=loop)
    for turn in range(2):
        connector._release(key, protocol)
        lease = _at_once(connector.connect(origin, [], aiohttp.ClientTimeout()))
        _same(lease._protocol is protocol, True)
        lease._protocol = None
        _await_reply(protocol, 5.0)
        protocol.data_received(
            b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nX-Turn: %d\r\nContent-Length: 2\r\n\r\n{" % turn
        )
        codes = [_at_once(protocol.read())[0].code]
        message, content = _at_once(protocol.read())
        _same((codes, message.code, message.headers["x-turn"], content.is_eof()), ([103], 200, str(turn), False))
        _same((type(content), content._eof, protocol.should_close), (StreamReader, False, True))
        protocol.data_received(b"}")
        _same((content._eof, b"".join(content._buffer), protocol.should_close), (True, b"{}", False))
        _same((content._exception, protocol._reading_paused, len(connector._waiters)), (None, False, 0))
    protocol._read_timeout = None
    connector._release(key, protocol, should_close=True)
    protocol.connection_lost(None)
    _same(protocol.should_close, True)
    connector._close()


def _at_once(waiting: Coroutine[Any, Any, Any]) -> Any:
    try:
        waiting.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("what is there is not had at once")


def _same(found: object, wanted: object) -> None:
    if found != wanted:
        raise RuntimeError(f"{found!r} where {wanted!r} was due")


def _rendered(headers: CIMultiDict[str]) -> _Head:
    return _Head(b"".join(f"{name}: {str.__str__(value)}\r\n".encode("latin-1") for name, value in headers.items()))
