"""SessionPool: the connections that any number of clients share, one set per event loop.

Calls and streams travel in lanes of their own.
The constructor does no I/O and needs no loop. A set belongs to the loop it was opened on; a loop that was closed is
forgotten, a forked child starts with nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import ssl as ssl_module
import warnings
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from .._version import __version__
from ..config import Secret
from ..errors import ClientClosed, ConfigError
from . import lean
from .connection import EXACT, Connection
from .faults import AIOHTTP_FAILURES, failure_of
from .idle import IdleConnections
from .limiter import KeyState
from .session import SessionPath
from .sweeper import Sweeper
from .wire import Reply, Request

if TYPE_CHECKING:
    from .budget import BudgetServer, Leases

__all__ = ["Binding", "SessionPool", "Tenant"]

_log = logging.getLogger("nex_async.pool")

Lane: TypeAlias = Literal["request", "stream"]
ConnectorFactory: TypeAlias = Callable[..., aiohttp.BaseConnector]

_MOST_KEYS = 4096
"""So many keys are remembered, with what was learned of their limits, after their clients are gone."""


class SessionPool:
    """Connections shared by any number of clients and tenants.

    `max_connections` bounds the calls in flight per event loop (streams have a lane of their own, without a bound);
    `keepalive` is how long an idle connection is kept, in seconds; `max_body` the largest reply in bytes, also once
    decompressed. `ssl` is your own context, `proxy` an `http://` proxy; `proxy_from_env` reads the usual variables.
    `connector_factory` is called with aiohttp's `TCPConnector` arguments, for a resolver or connector of your own.
    `rate_budget` keeps the rate limits of the keys for this and other pools, in other processes or on other machines;
    without it each pool learns for itself.

    Close it with `await pool.aclose()` or use it as an async context manager. Raises `ConfigError` for bad arguments.
    """

    def __init__(
        self,
        *,
        max_connections: int = 100,
        keepalive: float = 15.0,
        max_body: int = 32 * 1024 * 1024,
        ssl: ssl_module.SSLContext | None = None,
        proxy: str | None = None,
        proxy_from_env: bool = False,
        connector_factory: ConnectorFactory | None = None,
        rate_budget: BudgetServer | None = None,
    ) -> None:
        self.max_connections = max_connections
        self.keepalive = keepalive
        self.max_body = max_body
        self.ssl = ssl
        self.proxy = proxy
        self.proxy_from_env = proxy_from_env
        self.rate_budget = rate_budget
        self._closed = False
        _positive("max_connections", max_connections)
        _positive("keepalive", keepalive)
        _positive("max_body", max_body)
        if ssl is not None and not isinstance(ssl, ssl_module.SSLContext):
            raise ConfigError("ssl must be an ssl.SSLContext; certificates are always verified otherwise")
        if rate_budget is not None and not callable(getattr(rate_budget, "lease", None)):
            raise ConfigError("rate_budget must be a budget server: LocalBudget(), RayBudget() or RedisBudget()")
        self._connector_factory = connector_factory or aiohttp.TCPConnector
        self._sets: dict[int, ConnectionSet] = {}
        _pools.add(self)
        # Not `__del__`: the collector may finalise what a pool holds before the pool itself, and aiohttp would warn of each.
        weakref.finalize(self, _release, self._sets)

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed

    def connections(self) -> ConnectionSet:
        """Return the connections of the running loop, opened now if need be."""
        if self._closed:
            raise ClientClosed("the session pool is closed")
        loop = asyncio.get_running_loop()
        found = self._sets.get(id(loop))
        if found is None or found.loop is not loop:
            self._forget_closed_loops()
            found = self._sets[id(loop)] = ConnectionSet(loop, self)
        return found

    def census(self, lane: Lane) -> tuple[int, int] | None:
        """Return how many connections of a lane are open, on all loops, and how many of them are idle.

        None where the connectors do not tell. May be called from any thread.
        """
        found = [connectors.census(lane) for connectors in list(self._sets.values()) if not connectors.loop.is_closed()]
        told = [each for each in found if each is not None]
        return (sum(each[0] for each in told), sum(each[1] for each in told)) if len(told) == len(found) else None

    def _forget_closed_loops(self) -> None:
        for key, found in list(self._sets.items()):
            if found.loop.is_closed():
                del self._sets[key]
                found.drop()

    def make_connector(self, lane: Lane) -> aiohttp.BaseConnector:
        """Return a new connector for one lane."""
        limit = self.max_connections if lane == "request" else 0
        connector = self._connector_factory(
            limit=limit,
            limit_per_host=limit,
            keepalive_timeout=self.keepalive,
            timeout_ceil_threshold=EXACT,
            ssl=True if self.ssl is None else self.ssl,
        )
        factory: Any = functools.partial(Connection, loop=asyncio.get_running_loop())
        connector._factory = factory
        return connector

    async def aclose(self) -> None:
        """Close every connection. Idempotent; safe to call from several tasks. Calls in flight end with `ClientClosed`."""
        self._closed = True
        sets = list(self._sets.values())
        self._sets.clear()
        for found in sets:
            await _close_on_its_loop(found)

    async def __aenter__(self) -> SessionPool:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SessionPool cannot be pickled or copied; make one in each process")

    def __repr__(self) -> str:
        return f"<SessionPool max_connections={self.max_connections}{' closed' if self._closed else ''}>"


def _release(sets: dict[int, ConnectionSet]) -> None:
    """Let go of what a pool held that was dropped, or was still open when the interpreter ends."""
    held = list(sets.values())
    sets.clear()
    for found in held:
        found.drop()
    if held:
        warnings.warn("a nex_async SessionPool was never closed; use `async with` or `await x.aclose()`", ResourceWarning, 2)


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"{name} must be a positive number, not {value!r}")


class ConnectionSet:
    """What a pool holds on one loop: a connector per lane, the sessions of its tenants, and the state of their keys."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: SessionPool) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.closed: bool = False
        self.in_flight: int = 0
        self.sweeper: Sweeper = Sweeper(loop)
        self.limit: int = pool.max_connections
        self._pool = weakref.ref(pool)
        self.idle: IdleConnections = IdleConnections(pool.make_connector("request"), loop, pool.keepalive)
        self._connectors: dict[Lane, aiohttp.BaseConnector] = {"request": self.idle.connector}
        self._sessions: set[aiohttp.ClientSession] = set()
        self._keys: dict[bytes, KeyState] = {}
        self._leases: Leases | None = None
        if pool.rate_budget is not None:
            from .budget import Leases  # for those who share one

            self._leases = Leases(pool.rate_budget, loop)

    def connector(self, lane: Lane) -> aiohttp.BaseConnector:
        """Return the connector of a lane, made now if need be."""
        found = self._connectors.get(lane)
        if found is None:
            pool = self._pool()
            assert pool is not None
            found = self._connectors[lane] = pool.make_connector(lane)
        return found

    def census(self, lane: Lane) -> tuple[int, int] | None:
        """Return how many connections of a lane are open, and how many of them are idle; None if its connector is silent."""
        connector = self._connectors.get(lane)
        if connector is None:
            return 0, 0
        try:
            idle = sum(len(held) for held in list(connector._conns.values()))
            return len(connector._acquired) + idle, idle + (len(self.idle) if lane == "request" else 0)
        except (AttributeError, TypeError):  # names of aiohttp's own, or a connector that is not aiohttp's
            return None

    def key_state(self, fingerprint: bytes, budget: float) -> KeyState:
        """Return what the calls of one key share; it is found by a hash, never by the key."""
        found = self._keys.pop(fingerprint, None) or self._new_state(fingerprint, budget)
        self._keys[fingerprint] = found
        if len(self._keys) > _MOST_KEYS:
            del self._keys[next(iter(self._keys))]  # the one asked for longest ago; clients that hold it keep it
        return found

    def _new_state(self, fingerprint: bytes, budget: float) -> KeyState:
        if self._leases is None:
            return KeyState(budget)
        account = hashlib.blake2b(fingerprint, digest_size=16, person=b"nex_async budget").hexdigest()
        return KeyState(budget, self._leases.limits(account))

    def open_session(self, lane: Lane, headers: CIMultiDict[str], proxy: str | None) -> aiohttp.ClientSession:
        """Open a session of a tenant's on one lane."""
        session = aiohttp.ClientSession(
            connector=self.connector(lane),
            connector_owner=False,
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            proxy=proxy,
            read_bufsize=1 << 20,
        )
        refuse_hidden_retry(session)
        self._sessions.add(session)
        return session

    async def close_session(self, session: aiohttp.ClientSession) -> None:
        """Close a session; connections stay."""
        self._sessions.discard(session)
        await session.close()

    def drop_session(self, session: aiohttp.ClientSession) -> None:
        """Let go of a session without a running loop."""
        self._sessions.discard(session)
        session.detach()

    async def close(self) -> None:
        """Close every connection; calls in flight end with `ClientClosed`."""
        self.closed = True
        if self._leases is not None:
            await self._leases.close()
        self.sweeper.close()
        self.idle.stop()
        for session in list(self._sessions):
            await self.close_session(session)
        async with contextlib.AsyncExitStack() as every:  # also when this task is cancelled in the middle
            for connector in self._connectors.values():
                every.push_async_callback(connector.close)

    def drop(self) -> None:
        """Let go without a running loop: sockets are closed, nothing is awaited, nothing is warned about."""
        self.idle.stop()
        for session in list(self._sessions):
            self.drop_session(session)
        for connector in self._connectors.values():
            _drop_connector(connector, self.loop)
        self._connectors.clear()

    def abandon(self) -> tuple[Any, ...]:
        """Return everything that must stay referenced in a forked child, so that nothing touches the parent's sockets."""
        return self.loop, self._sessions, self._connectors


async def _close_on_its_loop(one: ConnectionSet | Binding) -> None:
    """Close what belongs to a loop: here, or on the loop of another thread; where nobody runs it, let go of it.

    Nothing is begun on a loop that ends before it comes to it.
    """

    def begin() -> None:
        task = one.loop.create_task(one.close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    if one.loop is asyncio.get_running_loop():
        await one.close()
    elif one.loop.is_running():
        with contextlib.suppress(RuntimeError):  # it was closed this moment
            one.loop.call_soon_threadsafe(begin)
    else:
        one.drop()


_closing: set[asyncio.Task[None]] = set()


def refuse_hidden_retry(session: aiohttp.ClientSession) -> None:
    """Turn off aiohttp's own second try after a lost connection: it would bypass policy, budget and count."""
    if hasattr(session, "_retry_connection"):
        session._retry_connection = False
    else:
        template = "this aiohttp (%s) hides its own retry: an idempotent request may be sent twice"
        _log.warning(template, aiohttp.__version__, extra={"nex_aiohttp": aiohttp.__version__})


def _drop_connector(connector: aiohttp.BaseConnector, loop: asyncio.AbstractEventLoop) -> None:
    connections = [protocol for held in connector._conns.values() for protocol, _ in held]
    connections += [protocol for protocol in connector._acquired if hasattr(protocol, "transport")]
    connector._conns.clear()
    for protocol in connections:
        transport = getattr(protocol, "transport", None)
        if transport is not None:
            _drop_transport(transport, loop)
    with contextlib.suppress(Exception):
        connector._close()


def _drop_transport(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
    inner: Any = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None) or transport
    if loop.is_running() or not hasattr(inner, "_call_connection_lost"):
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(inner.abort)
            return
    # Nobody runs the loop: what it would have called to end the connection is called here, which closes the socket. The
    # protocol is not told, for it would ask the loop for more. (uvloop closes its sockets when it is closed.)
    with contextlib.suppress(Exception):
        if not loop.is_closed():
            own: Any = loop
            own._remove_reader(inner._sock_fd)
            own._remove_writer(inner._sock_fd)
        inner._protocol_connected, inner._closing = False, True
        inner._call_connection_lost(None)


_pools: weakref.WeakSet[SessionPool] = weakref.WeakSet()
_abandoned: list[Any] = []


def _after_fork_in_child() -> None:
    """A forked child must not touch the parent's connections: they are kept, unused, for as long as the child lives."""
    for pool in list(_pools):
        _abandoned.extend(found.abandon() for found in pool._sets.values())
        pool._sets.clear()
    Tenant.generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Binding:
    """One tenant on one loop: the session its calls go through, and the state its key shares."""

    __slots__ = ("connections", "exchange", "generation", "keys", "lean", "loop", "session", "stream_session", "tenant")

    def __init__(self, tenant: Tenant, connections: ConnectionSet, keys: KeyState) -> None:
        self.tenant: Tenant = tenant
        self.connections: ConnectionSet = connections
        self.loop: asyncio.AbstractEventLoop = connections.loop
        self.keys: KeyState = keys
        self.generation: int = Tenant.generation
        self.session: aiohttp.ClientSession = tenant.user_session or connections.open_session(
            "request", tenant.headers, tenant.proxy
        )
        self.stream_session: aiohttp.ClientSession | None = tenant.user_session
        through_session = SessionPath(connections, keys, tenant, self.session)
        self.exchange: Callable[[Request, aiohttp.ClientTimeout], Awaitable[Reply]] = through_session.exchange
        """Sends one request and returns its complete reply. Raises `TransportError` or `DeadlineExceeded`."""
        self.lean: lean.LeanPath | None = None
        if tenant.user_session is None and tenant.proxy is None and lean.unfit() is None:
            self.lean = lean.LeanPath(connections, keys, through_session)
            self.exchange = self.lean.exchange

    @property
    def replied(self) -> Mapping[str, str]:
        """The headers of the last reply; its `Date` is what the server's clock says."""
        return self.keys.replied

    async def open_stream(self, request: Request, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """Send a request on the stream lane and return the reply with its body unread. Raises `TransportError`."""
        session = self.stream_session
        if session is None:
            session = self.connections.open_session("stream", self.tenant.stream_headers, self.tenant.proxy)
            self.stream_session = session
        headers = {**self.tenant.stream_headers, **(request.headers or {})}
        try:
            return await session.request(
                request.method,
                self.tenant.url(request.target),
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                auto_decompress=False,
                raise_for_status=False,
            )
        except AIOHTTP_FAILURES as error:
            failure = failure_of(error, "headers", False)
        raise failure from None

    async def close(self) -> None:
        """Close this tenant's sessions; connections stay with the pool."""
        for session in self._own_sessions():
            await self.connections.close_session(session)

    def drop(self) -> None:
        """The same without a running loop."""
        for session in self._own_sessions():
            self.connections.drop_session(session)

    def _own_sessions(self) -> list[aiohttp.ClientSession]:
        if self.tenant.user_session is not None:
            return []
        return [session for session in (self.session, self.stream_session) if session is not None]


class Tenant:
    """One key at one base URL, on a pool. Knows its headers; binds itself to each loop it is used from."""

    generation = 0  # grows in a forked child, so that no binding survives the fork

    def __init__(
        self,
        pool: SessionPool,
        base_url: str,
        secret: Secret,
        *,
        source: str,
        budget: float,
        user_session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
    ) -> None:
        self.pool = pool
        self.base_url = base_url
        self.max_body: int = pool.max_body
        self.user_session = user_session
        self.proxy = proxy
        self._budget = budget
        self._fingerprint = hashlib.blake2b(f"{base_url}\0".encode() + secret.reveal().encode(), digest_size=16).digest()
        self.headers: CIMultiDict[str] = CIMultiDict({
            "Authorization": secret.authorization(),
            "User-Agent": f"nex-async/{__version__}",
            "X-Nex-Source": source,
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        })  # fmt: skip
        streaming = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        self.stream_headers: CIMultiDict[str] = CIMultiDict({**self.headers, **streaming})
        self._bindings: list[Binding] = []
        self._last: Binding | None = None
        if user_session is not None:
            refuse_hidden_retry(user_session)

    def witness(self, salt: str) -> bytes:
        """Return what tells this key at this server from others, and tells nothing of the key."""
        return hashlib.blake2b(self._fingerprint, digest_size=8, key=salt.encode()[:64]).digest()

    def url(self, target: str) -> URL:
        """Return the whole URL of a path and query that are already encoded."""
        return URL(self.base_url + target, encoded=True)

    def bind(self) -> Binding:
        """Return this tenant's binding to the running loop, made now if need be."""
        last = self._last
        if (
            last is not None
            and last.loop is asyncio.get_running_loop()
            and last.generation == Tenant.generation
            and not self.pool._closed
        ):
            return last
        return self._bind()

    def _bind(self) -> Binding:
        connections = self.pool.connections()
        for binding in self._bindings:
            if binding.connections is connections:
                break
        else:
            self._bindings = [old for old in self._bindings if not old.loop.is_closed()]
            binding = Binding(self, connections, connections.key_state(self._fingerprint, self._budget))
            self._bindings.append(binding)
        self._last = binding
        return binding

    @property
    def bindings(self) -> list[Binding]:
        """Its bindings to the loops it is used from."""
        return [binding for binding in list(self._bindings) if not binding.loop.is_closed()]

    async def aclose(self) -> None:
        """Close this tenant's sessions on every loop it was used from."""
        bindings, self._bindings, self._last = self._bindings, [], None
        for binding in bindings:
            if binding.generation != Tenant.generation or binding.loop.is_closed():
                continue
            await _close_on_its_loop(binding)
