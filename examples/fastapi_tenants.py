"""A web application of many tenants, each with a Nex key of its own: one pool of connections, a client for each. Copy it.

    pip install nex-async fastapi uvicorn
    NEX_LOCAL=1 uvicorn examples.fastapi_tenants:app     # an embedded Nex for each of two tenants, acme and globex
    NEX_API_KEY_ACME=sk-... uvicorn examples.fastapi_tenants:app     # yours, a key for each

    curl -H "X-Tenant: acme" http://127.0.0.1:8000/people

A tenant that is out of its rate limit gets 429 with Retry-After, and no other tenant notices. `X-Request-Timeout: 2` is the
caller's deadline: every call to Nex, its retries and its waits end with it, and what is late is answered 504.
"""

from __future__ import annotations

import logging
import math
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from nex_async import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    DeadlineExceeded,
    InvalidRequestError,
    Nex,
    NexError,
    NotFoundError,
    RateLimitError,
    RateLimitQueueFull,
    Secret,
    SessionPool,
    UnprocessableError,
    deadline,
)

log = logging.getLogger("uvicorn.error")

MOST_SECONDS = 30.0
OPEN_CLIENTS = int(os.environ.get("OPEN_CLIENTS", "1000"))


@dataclass(frozen=True)
class Access:
    """What it takes to act for a tenant. `base_url` is None for the one that NEX_API_BASE_URL names."""

    key: Secret
    base_url: str | None = None


class UnknownTenant(Exception):
    """There is no such tenant, or it has no key."""


async def access_of(tenant: str) -> Access:
    """Return a tenant's access, here from the environment: replace it by your vault. Raises `UnknownTenant`."""
    key = os.environ.get(f"NEX_API_KEY_{tenant.upper().replace('-', '_')}")
    if key is None:
        raise UnknownTenant(tenant)
    return Access(Secret(key))


@dataclass(eq=False)
class _Client:
    nex: Nex
    users: int = 0


class Clients:
    """The clients of all tenants, over one pool. Those used last stay open; none is closed under a request that uses it."""

    def __init__(self, pool: SessionPool, access: Callable[[str], Awaitable[Access]], most: int) -> None:
        self._pool = pool
        self._access = access
        self._most = most
        self._open: OrderedDict[str, _Client] = OrderedDict()

    @asynccontextmanager
    async def of(self, tenant: str) -> AsyncIterator[Nex]:
        """Lend a tenant's client. One whose key is refused is not lent again: the next has the key of that day."""
        client = self._open.get(tenant) or await self._opened(tenant)
        self._open.move_to_end(tenant)
        client.users += 1
        try:
            yield client.nex
        except AuthenticationError:
            if self._open.get(tenant) is client:
                del self._open[tenant]
            raise
        finally:
            client.users -= 1
            if not client.users and self._open.get(tenant) is not client:
                await client.nex.aclose()
            await self._trim()

    async def _opened(self, tenant: str) -> _Client:
        access = await self._access(tenant)
        if tenant not in self._open:  # another request may have been quicker
            self._open[tenant] = _Client(Nex(access.key, base_url=access.base_url, pool=self._pool))
        return self._open[tenant]

    async def _trim(self) -> None:
        if (excess := len(self._open) - self._most) > 0:
            idle = [tenant for tenant, client in self._open.items() if not client.users]
            for client in [self._open.pop(tenant) for tenant in idle[:excess]]:
                await client.nex.aclose()

    async def aclose(self) -> None:
        """Close them all."""
        while self._open:
            await self._open.popitem()[1].nex.aclose()

    @property
    def counts(self) -> dict[str, int]:
        """How many clients are open, and how many requests use them."""
        return {"open": len(self._open), "in_use": sum(client.users for client in self._open.values())}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold one pool, and the tenants' clients, as long as the app runs."""
    async with AsyncExitStack() as stack:
        access = await embedded(stack) if os.environ.get("NEX_LOCAL") == "1" else access_of
        pool = await stack.enter_async_context(SessionPool(max_connections=100))
        app.state.clients = Clients(pool, access, OPEN_CLIENTS)
        stack.push_async_callback(app.state.clients.aclose)
        yield


async def embedded(stack: AsyncExitStack) -> Callable[[str], Awaitable[Access]]:
    """Start an embedded Nex for each of two tenants; return where they are."""
    from nex_async.emulator import Emulator

    tenants = {name: await stack.enter_async_context(Emulator(keys={f"sk-{name}": None})) for name in ("acme", "globex")}

    async def access(tenant: str) -> Access:
        if tenant not in tenants:
            raise UnknownTenant(tenant)
        return Access(Secret(tenants[tenant].key), tenants[tenant].url)

    return access


async def client_of(request: Request, x_tenant: Annotated[str, Header(pattern=r"^[a-z0-9-]{1,40}$")]) -> AsyncIterator[Nex]:
    """Yield the tenant's client. Your authentication sets X-Tenant; never take it from a browser as it comes."""
    async with request.app.state.clients.of(x_tenant) as nex:
        yield nex


Tenant = Annotated[Nex, Depends(client_of)]


class DeadlineMiddleware:
    """Bounds all that a request asks of Nex by the caller's patience."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with deadline(seconds_of(Headers(scope=scope).get("X-Request-Timeout"))):
            await self.app(scope, receive, send)


def seconds_of(text: str | None) -> float:
    """Return how long a caller waits, as he says himself; what makes no sense is `MOST_SECONDS`."""
    try:
        wanted = float(text or "nan")
    except ValueError:
        return MOST_SECONDS
    return min(wanted, MOST_SECONDS) if wanted > 0 else MOST_SECONDS


app = FastAPI(lifespan=lifespan)
app.add_middleware(DeadlineMiddleware)


@app.get("/people")
async def list_people(nex: Tenant, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> dict[str, Any]:
    """Return the people changed last."""
    page = await nex.records.list("person", sort="-updated_at", limit=limit)
    return {"total": page.total, "people": [{"id": row.id, "name": row.text("name")} for row in page]}


@app.put("/people")
async def save_person(nex: Tenant, attributes: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    """Create or update a person by the address: safe to repeat, for the SDK and for whoever calls."""
    person = await nex.records.upsert("person", attributes, match_on="email_addresses")
    return {"id": person.id, **person.attributes}


@app.get("/people/{person_id}")
async def get_person(nex: Tenant, person_id: str) -> dict[str, Any]:
    """Return one person."""
    person = await nex.records.get(person_id)
    return {"id": person.id, **person.attributes}


@app.post("/texts", status_code=202)
async def add_text(nex: Tenant, content: Annotated[str, Body(embed=True)]) -> dict[str, str]:
    """Ingest a text."""
    job = await nex.context.add_text(content)
    return {"artifact_id": job.id}


@app.get("/health")
async def health(request: Request) -> dict[str, int]:
    """Return how many clients are open. It asks nothing of Nex: whether that is well is no reason to restart this."""
    counts: dict[str, int] = request.app.state.clients.counts
    return counts


@app.exception_handler(UnknownTenant)
async def unknown(request: Request, error: UnknownTenant) -> JSONResponse:
    """Answer 404 for a tenant nobody knows."""
    return JSONResponse({"detail": "there is no such tenant"}, 404)


@app.exception_handler(NexError)
async def failed(request: Request, error: NexError) -> JSONResponse:
    """Answer with the status that tells the caller what to do; the log has what was tried."""
    status, wait = status_of(error), getattr(error, "retry_after", None)
    if status >= 500:
        log.warning("%s %s: %s; attempts: %s", request.method, request.url.path, error, error.attempts)
    headers = {} if wait is None else {"Retry-After": str(math.ceil(wait))}
    return JSONResponse({"detail": str(error)}, status, headers)


def status_of(error: NexError) -> int:
    """Return the HTTP status of an error: the caller's fault, the tenant's limit, too late, or Nex's."""
    if isinstance(error, DeadlineExceeded) and error.retry_after is not None:
        return 429  # the SDK knows of the limit, and has not even asked
    for kind, status in STATUSES.items():
        if isinstance(error, kind):
            return status
    return 502


STATUSES: dict[type[Exception], int] = {
    InvalidRequestError: 422,
    BadRequestError: 422,
    UnprocessableError: 422,
    NotFoundError: 404,
    ConflictError: 409,
    RateLimitError: 429,
    RateLimitQueueFull: 429,
    TimeoutError: 504,
}
