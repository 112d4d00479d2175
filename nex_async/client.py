"""Nex: configuration in, one attribute per resource out."""

from __future__ import annotations

import contextlib
import ssl as ssl_module
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
from msgspec import UNSET

from . import resources
from ._typing import Unpack
from .config import Secret, Timeouts, is_loopback, masked, resolve
from .errors import ClientClosed, ConfigError, InvalidRequestError
from .models.base import decode_any
from .routes import RetryClass, Route
from .transport import wire
from .transport.options import (
    Hooks,
    RequestDetails,
    RequestOptions,
    ResponseDetails,
    RetryDetails,
    Settings,
    timeouts_from,
)
from .transport.pool import SessionPool, Tenant
from .transport.retry import RetryPolicy
from .transport.sender import Sender
from .transport.state import ClientState

if TYPE_CHECKING:
    import os

    from .bulk.mirror import Mirror
    from .bulk.progress import OnProgress
    from .emulator import Emulator
    from .resources import (
        AILists,
        Compounding,
        Context,
        Graph,
        Insights,
        Integrations,
        Jobs,
        Lists,
        Notes,
        Notifications,
        Objects,
        Records,
        Relationships,
        Search,
        Tasks,
    )
    from .stats import NexStats
    from .telemetry import OpenTelemetry
    from .transport.observer import Observer

__all__ = ["Nex"]


class Nex:
    """The client of the Nex Developer API.

    ``async with Nex() as nex:`` takes the key from `api_key`, `NEX_API_KEY` or the files of `~/.nex`, and the base URL from
    `base_url` (an origin or a full URL), `NEX_DEV_URL`, `NEX_API_BASE_URL` or production. The constructor does no I/O and
    needs no event loop. `pool` shares connections with other clients; `session` uses your own `ClientSession`, which is
    never closed (its hidden retry is turned off). `timeout` is seconds for a whole call, or a `Timeouts`; `retry` a
    `RetryPolicy`. `source` is the attribution label the API records. The hooks get frozen details objects; they run on the
    event loop and must not block. `telemetry` is an `OpenTelemetry` of `nex_async.telemetry`, which many clients may share.

    Raises `ConfigError` when there is no key, or a setting cannot be right.
    """

    def __init__(
        self,
        api_key: str | Secret | None = None,
        *,
        base_url: str | None = None,
        pool: SessionPool | None = None,
        session: aiohttp.ClientSession | None = None,
        timeout: float | Timeouts | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        source: str = "python-sdk",
        on_request: Callable[[RequestDetails], object] | None = None,
        on_response: Callable[[ResponseDetails], object] | None = None,
        on_retry: Callable[[RetryDetails], object] | None = None,
        telemetry: OpenTelemetry | None = None,
    ) -> None:
        api_key = masked(api_key)
        settings = _settings(timeout, retry, headers, Hooks(on_request, on_response, on_retry), telemetry)
        secret, url = resolve(api_key, base_url)
        own_pool = None if pool is not None else SessionPool()
        tenant = _tenant(pool or own_pool, url, secret, source, settings.policy, session)
        self._begin(ClientState(tenant, url), settings, own_pool)
        _follow(self._state, settings.observer)

    def _begin(self, state: ClientState, settings: Settings, own_pool: SessionPool | None) -> None:
        self._state = state
        self._sender = Sender(state, settings)
        self._own_pool = own_pool

    @classmethod
    def local(
        cls,
        db: str = ":memory:",
        *,
        timeout: float | Timeouts | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        on_request: Callable[[RequestDetails], object] | None = None,
        on_response: Callable[[ResponseDetails], object] | None = None,
        on_retry: Callable[[RetryDetails], object] | None = None,
        telemetry: OpenTelemetry | None = None,
        **emulator: Any,
    ) -> Nex:
        """Return a client of an embedded Nex that starts with it and ends with it; needs no account and no network.

        `db` is a file that keeps the data, or memory. Other arguments go to `nex_async.emulator.Emulator`.
        """
        hooks = Hooks(on_request, on_response, on_retry)
        return _LocalNex(db, _settings(timeout, retry, headers, hooks, telemetry), emulator)

    # ---- resources --------------------------------------------------------------------------------------------------

    @cached_property
    def objects(self) -> Objects:
        """Object definitions and their attributes."""
        return resources.Objects(self._sender)

    @cached_property
    def records(self) -> Records:
        """The rows of an object."""
        return resources.Records(self._sender)

    @cached_property
    def relationships(self) -> Relationships:
        """Relationship definitions and instances."""
        return resources.Relationships(self._sender)

    @cached_property
    def lists(self) -> Lists:
        """Lists of records, and their members."""
        return resources.Lists(self._sender)

    @cached_property
    def tasks(self) -> Tasks:
        """Tasks."""
        return resources.Tasks(self._sender)

    @cached_property
    def notes(self) -> Notes:
        """Notes."""
        return resources.Notes(self._sender)

    @cached_property
    def search(self) -> Search:
        """Search over every kind of record."""
        return resources.Search(self._sender)

    @cached_property
    def insights(self) -> Insights:
        """What the AI derived."""
        return resources.Insights(self._sender)

    @cached_property
    def context(self) -> Context:
        """Texts in, answers out."""
        return resources.Context(self._sender)

    @cached_property
    def ai_lists(self) -> AILists:
        """Lists asked for in plain language."""
        return resources.AILists(self._sender)

    @cached_property
    def graph(self) -> Graph:
        """The graph of the workspace."""
        return resources.Graph(self._sender)

    @cached_property
    def integrations(self) -> Integrations:
        """Connected services."""
        return resources.Integrations(self._sender)

    @cached_property
    def compounding(self) -> Compounding:
        """Jobs that consolidate and age insights."""
        return resources.Compounding(self._sender)

    @cached_property
    def jobs(self) -> Jobs:
        """Many jobs at once."""
        return resources.Jobs(self._sender)

    @cached_property
    def notifications(self) -> Notifications:
        """The notification feed and its rules."""
        return resources.Notifications(self._sender)

    def mirror(
        self,
        path: str | os.PathLike[str],
        /,
        *,
        objects: Sequence[str] = (),
        lists: Sequence[wire.Id] = (),
        relationships: bool = True,
        progress: OnProgress | None = None,
        page_size: int = 500,
    ) -> Mirror:
        """Return a mirror: a SQLite file that is kept in step with objects (by slug), lists (by id) and relationships.

        ``async with nex.mirror("crm.sqlite", objects=["person"]) as mirror: await mirror.sync()``; see `Mirror` for what it
        promises. `page_size` is how many rows are asked for at a time. Nothing is opened or sent yet. Raises
        `InvalidRequestError` for arguments that cannot be right.
        """
        from .bulk.mirror import Mirror  # it brings SQLite and the feeds, for those who ask for it

        return Mirror(
            self._sender,
            path,
            objects=objects,
            lists=lists,
            relationships=relationships,
            progress=progress,
            page_size=page_size,
        )

    # ---- the way out, views, life -----------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        /,
        *,
        query: wire.Query | None = None,
        body: Any = UNSET,
        retry_class: RetryClass | None = None,
        **options: Unpack[RequestOptions],
    ) -> Any:
        """Send any request below the base URL and return its JSON (None for an empty reply): the way out for what is new.

        `path` starts with `/v1/` and is not yet percent-encoded; put parameters into `query`. `retry_class` says how the
        request may be repeated (by default: GET `read`, PUT `upsert`, PATCH and DELETE `state`, POST `create`).
        """
        route = _raw_route(method, path, retry_class)
        return await self._sender.send(route, (), query, body, options)

    def with_options(self, **options: Unpack[RequestOptions]) -> Nex:
        """Return a cheap view of this client with other options: same connections, same limits.

        A view lives and ends with its client; closing the view does nothing.
        """
        view = _View.__new__(_View)
        view._client = self
        view._begin(self._state, self._sender.settings.merged(options), None)
        return view

    @property
    def base_url(self) -> str:
        """The base URL calls go to."""
        return self._state.url

    @property
    def stats(self) -> NexStats:
        """How the client stands: a snapshot of plain data, for health endpoints. May be asked for from any thread.

        A client and its views have the same. It holds no key, no id and nothing of what was sent.
        """
        from .stats import stats_of

        return stats_of(self._state)

    @property
    def hook_errors(self) -> int:
        """How many exceptions the hooks have raised; each was logged, and none disturbed a call."""
        return self._state.counts.hook_errors

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return self._state.closed

    async def aclose(self, *, drain: float = 5.0) -> None:
        """Close the client. Idempotent.

        New calls raise `ClientClosed` at once; those under way get `drain` seconds to finish, then end with `ClientClosed`.
        A pool or session that was passed in stays open.
        """
        async with contextlib.AsyncExitStack() as closing:  # every step is taken, also when this task is cancelled
            if self._own_pool is not None:
                closing.push_async_callback(self._own_pool.aclose)
            if self._state.tenant is not None:
                closing.push_async_callback(self._state.tenant.aclose)
            await self._state.drain(drain)

    async def __aenter__(self) -> Nex:
        if self._state.closed:
            raise ClientClosed("the client is closed; make a new one")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = getattr(self, "_state", None)  # not there yet when the constructor fails
        return "<Nex, not configured>" if state is None else f"<Nex {state.url}{' closed' if state.closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Nex client cannot be pickled or copied: it holds a key and connections")


class _View(Nex):
    """A client's connections with other options."""

    _client: Nex

    async def aclose(self, *, drain: float = 5.0) -> None:
        """Do nothing: a view ends with its client."""

    async def __aenter__(self) -> Nex:
        if self._state.tenant is None:
            await self._client.__aenter__()  # an embedded Nex that nobody has started yet
        return await super().__aenter__()


class _LocalNex(Nex):
    """A client that brings its server along."""

    def __init__(self, db: str, settings: Settings, arguments: dict[str, Any]) -> None:
        from .emulator import Emulator  # the one place below the command line that knows the embedded server

        self._emulator: Emulator = Emulator(db, **arguments)
        self._begin(ClientState(None, "(embedded, not started)"), settings, SessionPool())
        _follow(self._state, settings.observer)

    async def __aenter__(self) -> Nex:
        await super().__aenter__()
        state = self._state
        if state.tenant is None:
            await self._emulator.start()
            state.url = self._emulator.url
            secret = Secret(self._emulator.key)
            policy = self._sender.settings.policy
            state.tenant = _tenant(self._own_pool, state.url, secret, "python-sdk", policy, None)
        return self

    async def aclose(self, *, drain: float = 5.0) -> None:
        try:
            await super().aclose(drain=drain)
        finally:
            await self._emulator.aclose()


def _settings(
    timeout: float | Timeouts | None,
    retry: RetryPolicy | None,
    headers: Mapping[str, str] | None,
    hooks: Hooks,
    observer: Observer | None,
) -> Settings:
    timeouts = timeouts_from(timeout, Timeouts())
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise ConfigError("retry must be a RetryPolicy")
    if observer is not None and not callable(getattr(observer, "on_call", None)):
        raise ConfigError("telemetry must be an OpenTelemetry() of nex_async.telemetry")
    checked = wire.check_headers(headers) if headers else None
    return Settings(timeouts, retry or RetryPolicy(), checked, hooks, observer)


def _follow(state: ClientState, observer: Observer | None) -> None:
    if observer is not None:
        observer.join(state)


def _tenant(
    pool: SessionPool | None,
    url: str,
    secret: Secret,
    source: str,
    policy: RetryPolicy,
    session: aiohttp.ClientSession | None,
) -> Tenant:
    assert pool is not None
    if not isinstance(source, str) or not source.isascii() or not source.isprintable() or not source:
        raise ConfigError("source must be a short ASCII label")
    host = urlsplit(url).hostname or ""
    context = pool.ssl
    lax = context is not None and (context.verify_mode is ssl_module.CERT_NONE or not context.check_hostname)
    if lax and not is_loopback(host):
        raise ConfigError("ssl does not verify the server's certificate and host name; that is refused except for loopback")
    proxy = pool.proxy
    if proxy is None and pool.proxy_from_env:
        proxy = _proxy_from_environment(urlsplit(url).scheme, host)
    return Tenant(pool, url, secret, source=source, budget=policy.budget, user_session=session, proxy=proxy)


def _proxy_from_environment(scheme: str, host: str) -> str | None:
    import urllib.request  # a sixth of the time it takes to load this SDK, for those who ask for it

    return None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)


_METHODS: dict[str, RetryClass] = {
    "GET": "read", "PUT": "upsert", "PATCH": "state", "DELETE": "state", "POST": "create",
}  # fmt: skip


def _raw_route(method: str, path: str, retry_class: RetryClass | None) -> Route[Any]:
    verb = method.upper() if isinstance(method, str) else ""
    if verb not in _METHODS:
        raise InvalidRequestError(f"method must be one of {', '.join(_METHODS)}", argument="method")
    if not isinstance(path, str) or not path.startswith("/v1/") or any(mark in path for mark in "{}?#"):
        raise InvalidRequestError("path must start with /v1/ and hold no query, fragment or braces", argument="path")
    if retry_class is not None and retry_class not in ("read", "upsert", "state", "create", "costly"):
        raise InvalidRequestError("retry_class is not one of the five", argument="retry_class")
    target = "/".join(_raw_segment(segment) for segment in path.split("/"))
    return Route(f"{verb} request", verb, target, _json_or_none, (), retry_class or _METHODS[verb])


def _raw_segment(segment: str) -> str:
    """Return a segment of a path the caller wrote himself: checked like a parameter, empty ones kept."""
    return wire.path_segment("path", segment) if segment else segment


def _json_or_none(data: bytes) -> Any:
    return decode_any(data) if data.strip() else None
