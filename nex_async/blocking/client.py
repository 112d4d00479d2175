"""Nex for scripts and notebooks: every call blocks until it is done."""

from __future__ import annotations

import contextlib
import os
import ssl as ssl_module
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from msgspec import UNSET

from .. import client
from .._typing import Unpack
from ..config import Secret, Timeouts, masked
from ..errors import ClientClosed, ConfigError
from ..routes import RetryClass
from ..stats import NexStats
from ..transport import pool as transport
from ..transport import wire
from ..transport.options import RequestDetails, RequestOptions, ResponseDetails, RetryDetails, until
from ..transport.pool import ConnectorFactory
from ..transport.retry import RetryPolicy
from .lease import Lease
from .resources import Resources

if TYPE_CHECKING:
    from ..bulk.progress import OnProgress
    from ..telemetry import OpenTelemetry
    from ..transport.budget import BudgetServer
    from .bulk import Mirror

__all__ = ["Nex", "SessionPool", "deadline"]


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound every call that this thread makes inside the block, with all their retries and waits, by one deadline.

    It lies `seconds` from now. Blocks nest; the nearest deadline holds. Calls raise `DeadlineExceeded`.
    """
    with until(time.monotonic() + seconds):  # which is what the loop's clock shows
        yield


class SessionPool:
    """Connections shared by any number of blocking clients and tenants; the arguments are those of `nex_async.SessionPool`.

    Close it with `pool.close()`, or use it as a context manager. Raises `ConfigError` for bad arguments.
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
        self._async = transport.SessionPool(
            max_connections=max_connections,
            keepalive=keepalive,
            max_body=max_body,
            ssl=ssl,
            proxy=proxy,
            proxy_from_env=proxy_from_env,
            connector_factory=connector_factory,
            rate_budget=rate_budget,
        )
        self._lease = Lease("a blocking SessionPool", partial(_close_pool, self._async))
        weakref.finalize(self, self._lease.drop).atexit = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._async.closed

    def close(self) -> None:
        """Close every connection. Idempotent. Calls in flight end with `ClientClosed`."""
        self._lease.close(0.0)

    def __enter__(self) -> SessionPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SessionPool cannot be pickled or copied; make one in each process")

    def __repr__(self) -> str:
        return repr(self._async)


class Nex(Resources):
    """The client of the Nex Developer API whose calls block: the surface of `nex_async.Nex` without `await`.

    ``with Nex() as nex:`` or ``nex = Nex()`` and `nex.close()`: what is left open is closed when the interpreter ends. It
    may be used from any number of threads, from a notebook, and after a fork. All blocking clients of a process share one
    event loop on a thread of its own, which runs from the first call until the last of them is closed.

    The key comes from `api_key`, `NEX_API_KEY` or the files of `~/.nex`, the base URL from `base_url` (an origin or a full
    URL), `NEX_DEV_URL`, `NEX_API_BASE_URL` or production. The constructor does no I/O. `pool` shares connections with other
    clients; an aiohttp `session` cannot be passed in, for it belongs to another event loop. `timeout` is seconds for a whole
    call, or a `Timeouts`; `retry` a `RetryPolicy`. `source` is the attribution label the API records. The hooks get frozen
    details objects; they are called on the loop's thread, must not block, and must not call the client. `telemetry` is an
    `OpenTelemetry` of `nex_async.telemetry`.

    Raises `ConfigError` when there is no key, or a setting cannot be right.
    """

    def __init__(
        self,
        api_key: str | Secret | None = None,
        *,
        base_url: str | None = None,
        pool: SessionPool | None = None,
        session: None = None,
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
        if session is not None:
            raise ConfigError("session= belongs to the event loop it was made on, and a blocking client has one of its own")
        if pool is not None and not isinstance(pool, SessionPool):
            raise ConfigError("pool must be a nex_async.blocking.SessionPool")
        self._pool = pool  # one that nobody holds is closed
        behind = client.Nex(
            api_key,
            base_url=base_url,
            pool=None if pool is None else pool._async,
            timeout=timeout,
            retry=retry,
            headers=headers,
            source=source,
            on_request=on_request,
            on_response=on_response,
            on_retry=on_retry,
            telemetry=telemetry,
        )
        shared = None if pool is None else pool._lease
        self._begin(behind, Lease("a blocking Nex client", partial(_close_client, behind), shared=shared))

    def _begin(self, behind: client.Nex, lease: Lease) -> None:
        self._async = behind
        self._lease = lease
        weakref.finalize(self, lease.drop).atexit = False

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
        """Return a client of an embedded Nex that starts with its first call and ends with it; needs no account, no network.

        `db` is a file that keeps the data, or memory. Other arguments go to `nex_async.emulator.Emulator`. After a fork, the
        child's client talks to the parent's server.
        """
        behind = client.Nex.local(
            db,
            timeout=timeout,
            retry=retry,
            headers=headers,
            on_request=on_request,
            on_response=on_response,
            on_retry=on_retry,
            telemetry=telemetry,
            **emulator,
        )
        end = partial(_close_local, behind, os.getpid())
        nex = Nex.__new__(Nex)
        nex._begin(behind, Lease("a blocking Nex client", end, begin=behind.__aenter__))
        return nex

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

        ``with nex.mirror("crm.sqlite", objects=["person"]) as mirror: mirror.sync()``; see `Mirror` for what it promises.
        `page_size` is how many rows are asked for at a time. Nothing is opened or sent yet. Raises `InvalidRequestError` for
        arguments that cannot be right.
        """
        from .bulk import Mirror

        return Mirror(
            self,
            self._async.mirror(
                path,
                objects=objects,
                lists=lists,
                relationships=relationships,
                progress=progress,
                page_size=page_size,
            ),
        )

    # ---- the way out, views, life -----------------------------------------------------------------------------------

    def request(
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
        return self._call(
            lambda: self._async.request(method, path, query=query, body=body, retry_class=retry_class, **options)
        )

    def with_options(self, **options: Unpack[RequestOptions]) -> Nex:
        """Return a cheap view of this client with other options: same connections, same limits.

        A view lives and ends with its client; closing the view does nothing.
        """
        view = _View.__new__(_View)
        view._client, view._async, view._lease = self, self._async.with_options(**options), self._lease
        return view

    @property
    def base_url(self) -> str:
        """The base URL calls go to."""
        return self._async.base_url

    @property
    def hook_errors(self) -> int:
        """How many exceptions the hooks have raised; each was logged, and none disturbed a call."""
        return self._async.hook_errors

    @property
    def stats(self) -> NexStats:
        """How the client stands: a snapshot of plain data, for health endpoints. May be asked for from any thread.

        A client and its views have the same. It holds no key, no id and nothing of what was sent.
        """
        return self._async.stats

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return self._lease.closed

    def close(self, *, drain: float = 5.0) -> None:
        """Close the client. Idempotent.

        New calls raise `ClientClosed` at once; those that other threads have under way get `drain` seconds to finish, then
        end with `ClientClosed`. A pool that was passed in stays open.
        """
        self._lease.close(drain)

    def __enter__(self) -> Nex:
        if self._lease.closed:
            raise ClientClosed("the client is closed; make a new one")
        self._lease.portal()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        behind = getattr(self, "_async", None)  # not there yet when the constructor fails
        return "<blocking Nex, not configured>" if behind is None else f"<blocking {repr(behind)[1:]}"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Nex client cannot be pickled or copied: it holds a key and connections")


class _View(Nex):
    """A client's connections with other options."""

    _client: Nex

    def close(self, *, drain: float = 5.0) -> None:
        """Do nothing: a view ends with its client."""


async def _close_client(behind: client.Nex, drain: float) -> None:
    await behind.aclose(drain=drain)


async def _close_local(behind: client.Nex, pid: int, drain: float) -> None:
    """Close a client and its server, which in a forked child is the parent's."""
    await (behind.aclose(drain=drain) if os.getpid() == pid else client.Nex.aclose(behind, drain=drain))


async def _close_pool(pool: transport.SessionPool, drain: float) -> None:
    await pool.aclose()
