"""The way of a request: key, route, fault, scope, limit, body, operation, reply. Every call of the API passes here."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import sqlite3
from collections.abc import Callable, Mapping
from email.utils import formatdate
from math import ceil
from typing import TypeAlias, TypeVar

from aiohttp import web

from nex_async import routes
from nex_async.emulator.call import ApiError, Call, bad_request
from nex_async.emulator.drift import reshape
from nex_async.emulator.enrichment import Batch, read_batch
from nex_async.emulator.faults import Fault, Faults, preset
from nex_async.emulator.ids import moment_of, parse_id
from nex_async.emulator.limits import RateLimiter
from nex_async.emulator.misbehaviour import misbehave
from nex_async.emulator.operations import OPERATIONS, Operation
from nex_async.emulator.replies import Reply, envelope_of
from nex_async.emulator.request_log import Entry, RequestLog
from nex_async.emulator.router import AnyRoute, Router
from nex_async.emulator.store import Store
from nex_async.emulator.stream import InsightStream
from nex_async.emulator.switches import Settings, Switches
from nex_async.emulator.timestamps import MICROSECONDS, timestamps_in
from nex_async.storage import Database

__all__ = ["LARGEST_BODY", "PREFIX", "Bench", "Dispatcher", "Keys", "error_reply", "key_of", "read_body"]

PREFIX = "/api/developers"
LARGEST_BODY = 10 * 1024 * 1024
"""Bytes of a request body; more is answered with 413."""

_MOST_DISCARDED = 8 * LARGEST_BODY

Keys: TypeAlias = Mapping[str, "frozenset[str] | None"]
"""The scopes of each API key; None is all of them."""

_T = TypeVar("_T")
_Outcome: TypeAlias = "Reply | web.StreamResponse | None"
"""A reply to send, a stream that is over, or None for a connection that was broken."""

_ROUTER = Router(routes.ALL)

_logger = logging.getLogger("nex_async.emulator")


@dataclasses.dataclass(frozen=True, slots=True)
class Bench:
    """What can be turned and read while the server runs, and outlives a restart."""

    switches: Switches
    faults: Faults
    requests: RequestLog
    limiter: RateLimiter
    stream: InsightStream
    clock: Callable[[], float]


@dataclasses.dataclass(slots=True)
class _Visit:
    """One request on its way."""

    request: web.BaseRequest
    entry: Entry
    key: str
    route: AnyRoute | None
    values: list[str]
    settings: Settings
    body: bytes | None = None
    fault: Fault | None = None

    @property
    def call(self) -> Call:
        """The request as its operation sees it."""
        params = self.route.params if self.route is not None else ()
        return Call(dict(zip(params, self.values, strict=True)), self.request.query, self.body or b"")


class Dispatcher:
    """Answers calls of the API from an open workspace."""

    def __init__(self, database: Database, store: Store, keys: Keys, bench: Bench) -> None:
        self._database = database
        self._store = store
        self._keys = keys
        self._bench = bench
        self._answering: set[asyncio.Task[object]] = set()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the reply to a request, whatever happens on the way."""
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            return await self._answer(request)
        finally:
            self._answering.discard(task)

    async def drop(self) -> None:
        """Break off every request that is being answered, and every stream; return when nothing of them goes on."""
        answering = list(self._answering)
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        found, values = _ROUTER.find(path[len(PREFIX) :]) if path.startswith(PREFIX + "/") else ({}, [])
        route, key, bench = found.get(request.method), key_of(request), self._bench
        name = "" if route is None else route.name
        entry = bench.requests.begin(name, request.method, path, request.rel_url.raw_query_string, key)
        visit = _Visit(request, entry, key, route, values, bench.switches.settings)
        try:
            outcome = await self._attend(visit, found)
        except Exception as error:
            outcome = error_reply(error, request)
        if isinstance(outcome, Reply) and visit.body is None:
            await _discard_body(request)
        self._note(visit, outcome)
        if isinstance(outcome, web.StreamResponse):
            return outcome
        response = web.Response() if outcome is None else outcome.response()
        response.headers["Date"] = formatdate(bench.clock(), usegmt=True)
        return response

    def _note(self, visit: _Visit, outcome: _Outcome) -> None:
        self._bench.requests.end(
            visit.entry,
            status=0 if outcome is None else outcome.status,
            received=len(visit.body or b""),
            sent=len(outcome.body) if isinstance(outcome, Reply) else 0,
            fault="" if visit.fault is None else visit.fault.kind,
        )

    async def _attend(self, visit: _Visit, found: Mapping[str, AnyRoute]) -> _Outcome:
        request, path = visit.request, visit.entry.path
        if path.startswith(PREFIX + "/"):
            self._check_key(visit.key)
        if visit.route is None:
            raise _no_route(found, request.method, path)
        try:
            settings = visit.settings = self._bench.switches.of(request.headers)
        except ValueError as error:
            raise bad_request(str(error)) from None
        if settings.trailing_slash == "redirect" and path.endswith("/"):
            query = f"?{visit.entry.query}" if visit.entry.query else ""
            return Reply(308, b"", {"Location": path.rstrip("/") + query})
        if settings.latency[1]:
            await asyncio.sleep(random.Random(visit.entry.number).uniform(*settings.latency))
        fault = visit.fault = self._draw(visit, visit.route)
        if fault is None:
            return await self._perform(visit, visit.route)
        return await self._perform_badly(visit, visit.route, fault)

    def _check_key(self, key: str) -> None:
        if not key:
            raise ApiError(401, "missing API key: send Authorization: Bearer sk-...")
        if key not in self._keys:
            raise ApiError(401, "invalid API key")

    def _draw(self, visit: _Visit, route: AnyRoute) -> Fault | None:
        def fits(fault: Fault) -> bool:
            return fault.kind != "read_lag" or (route.method == "GET" and self._is_new(visit.values, fault))

        struck = self._bench.faults.draw("request", route.name, fits)
        if struck is None:
            struck = preset(visit.settings.faults, "request", route.name, seed=visit.entry.number)
            return struck if struck is not None and fits(struck) else None
        return struck

    def _is_new(self, values: list[str], fault: Fault) -> bool:
        """Whether what a path names was made less than the fault's seconds ago; ids tell their time."""
        ids = (parse_id(value.lstrip("job")) for value in values)
        since = (self._bench.clock() - fault.longest()) * MICROSECONDS
        return any(number is not None and moment_of(number) > since for number in ids)

    async def _perform_badly(self, visit: _Visit, route: AnyRoute, fault: Fault) -> _Outcome:
        faults, request = self._bench.faults, visit.request
        if fault.kind == "read_lag":
            raise ApiError(404, f"{route.name}: not found yet (a fault on demand)")
        if fault.kind == "late" or (route is routes.STREAM_INSIGHTS and fault.kind == "delay"):
            visit.body = await read_body(request)
            await faults.hold(fault)
            return await self._perform(visit, route, undo=not fault.applies)
        reply: _Outcome = None
        if fault.applies or fault.needs_reply:
            try:
                reply = await self._perform(visit, route, undo=not fault.applies)
            except ApiError as error:
                reply = error_reply(error, request)
        wanted = reply if fault.needs_reply and isinstance(reply, Reply) else None
        return await misbehave(request, fault, wanted, faults)

    async def _perform(self, visit: _Visit, route: AnyRoute, *, undo: bool = False) -> Reply | web.StreamResponse:
        settings = visit.settings
        self._check_scope(route, self._keys[visit.key], settings)
        self._check_limit(visit.key, route, settings)
        if route is routes.STREAM_INSIGHTS:
            date = formatdate(self._bench.clock(), usegmt=True)
            return await self._bench.stream.answer(visit.request, settings, self.run, date)
        operation = _operation(route)
        if visit.body is None:
            visit.body = await read_body(visit.request)
        lag = self._bench.faults.draw("visibility", route.name) if route is routes.ADD_TEXT else None
        work = _Work(route, operation, visit.call, settings, undo, None if lag is None else lag.lasting(self._bench.clock))
        body = await self._do(work)
        return Reply(route.status, body, {"Content-Type": work.call.content_type} if body else None)

    async def perform(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> bytes:
        """Carry out an operation that nobody sent: no key, fault or limit, and no entry in the log. Raises `ApiError`."""
        found, values = _ROUTER.find(path)
        route = found.get(method)
        if route is None:
            raise _no_route(found, method, path)
        call = Call(dict(zip(route.params, values, strict=True)), query, body)
        return await self._do(_Work(route, _operation(route), call, self._bench.switches.settings))

    async def _do(self, work: _Work) -> bytes:
        try:
            body, batches = await self._database.run(_carry_out, self._store, work)
        except _Undone as undone:
            body, batches = undone.body, []
        for batch in batches:  # only now: the transaction was committed
            self._bench.stream.publish(batch)
        return body

    async def run(self, function: Callable[[Store], _T]) -> _T:
        """Call a function with the store, on the database's thread, as one transaction."""
        return await self._database.run(lambda connection: function(self._store))

    def _check_scope(self, route: AnyRoute, scopes: frozenset[str] | None, settings: Settings) -> None:
        if scopes is None or settings.scope_map == "off":
            return
        needed = route.scopes[-1 if settings.scope_map == "official_guide" else 0]
        if needed not in scopes:
            raise ApiError(403, f"the API key lacks the scope {needed}, which {route.name} needs")

    def _check_limit(self, key: str, route: AnyRoute, settings: Settings) -> None:
        wait = self._bench.limiter.admit(key, route.group, settings.rate_limits)
        if wait <= 0:
            return
        headers = {}
        if settings.retry_after == "seconds":
            headers["Retry-After"] = str(ceil(wait))
        elif settings.retry_after == "date":  # by the clock the Date header goes by
            headers["Retry-After"] = formatdate(ceil(self._bench.clock() + wait), usegmt=True)
        message = f"rate limit exceeded for {route.name} ({settings.rate_limits}): try again in {ceil(wait)} s"
        raise ApiError(429, message, headers, is_bare=settings.rate_limit_body == "empty")


def key_of(request: web.BaseRequest) -> str:
    """Return the API key a request brings, "" for none."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def error_reply(error: Exception, request: web.BaseRequest) -> Reply:
    """Return the reply for an error on the way, and log it if it is a bug."""
    if isinstance(error, ApiError):
        if error.is_bare:
            return Reply(error.status, b"", error.headers)
        return envelope_of(error.status, error.message, error.headers)
    if isinstance(error, ConnectionError):  # the client left in the middle of its body; nobody will read this
        return envelope_of(400, "the connection was lost")
    fields = {"nex_method": request.method, "nex_error": type(error).__name__}
    _logger.error("%s %s failed", request.method, request.rel_url.raw_path, exc_info=error, extra=fields)
    return envelope_of(500, "internal error of the emulator; its log says more")


def _no_route(found: Mapping[str, AnyRoute], method: str, path: str) -> ApiError:
    if not found:
        return ApiError(404, f"no such path: {path[:200]}")
    return ApiError(405, f"method {method} is not allowed here; allowed: {', '.join(sorted(found))}")


def _operation(route: AnyRoute) -> Operation:
    operation = OPERATIONS.get(route.name)
    if operation is None:
        raise ApiError(404, f"{route.name} is not available in this emulator")
    return operation


async def read_body(request: web.BaseRequest) -> bytes:
    """Return the whole body of a request, or refuse it."""
    if not request.can_read_body:
        return b""
    if (request.content_length or 0) > LARGEST_BODY:
        raise ApiError(413, f"the body is larger than {LARGEST_BODY} bytes")
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise ApiError(413, f"the body is larger than {LARGEST_BODY} bytes") from None
    except web.RequestPayloadError as error:
        raise bad_request(f"the body could not be read: {error}") from None


async def _discard_body(request: web.BaseRequest) -> None:
    """Read on to the end of a refused body, so that the client hears the answer instead of a reset."""
    left = _MOST_DISCARDED
    with contextlib.suppress(ConnectionError):
        while left > 0 and not request.content.at_eof():
            left -= len(await request.content.readany())


@dataclasses.dataclass(frozen=True, slots=True)
class _Work:
    """What the database's thread is to do for a request."""

    route: AnyRoute
    operation: Operation
    call: Call
    settings: Settings
    undo: bool = False
    hidden: Callable[[], bool] | None = None


class _Undone(Exception):
    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


def _carry_out(connection: sqlite3.Connection, store: Store, work: _Work) -> tuple[bytes, list[Batch]]:
    store.emitted = []
    try:
        body = _operate(store, work).encode()
    except UnicodeEncodeError:
        raise bad_request("text with half a surrogate pair is not UTF-8") from None
    if work.undo:
        raise _Undone(body)
    batches = [read_batch(store, emission) for emission in store.emitted]
    if work.hidden is not None:
        for emission in store.emitted:
            store.hide(emission.artifact_id, work.hidden)
    return body, batches


def _operate(store: Store, work: _Work) -> str:
    settings = work.settings
    if settings.timestamps == "whole" and not settings.reshapes:
        return work.operation(store, work.call)
    with timestamps_in(settings.timestamps):
        body = work.operation(store, work.call)
        return reshape(store, work.call, settings, work.route.name, work.route.method, body) if settings.reshapes else body
