"""The way of a request: key, route, scope, body, operation, reply. Every request passes here, and only here."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Mapping

import msgspec
from aiohttp import web

from nex_async import routes
from nex_async.emulator.call import ApiError, Call, bad_request
from nex_async.emulator.operations import OPERATIONS, Operation
from nex_async.emulator.router import AnyRoute, Router
from nex_async.emulator.store import Store
from nex_async.storage import Database

__all__ = ["LARGEST_BODY", "PREFIX", "Dispatcher", "Keys"]

PREFIX = "/api/developers"
LARGEST_BODY = 10 * 1024 * 1024
"""Bytes of a request body; more is answered with 413."""

_MOST_DISCARDED = 8 * LARGEST_BODY

Keys = Mapping[str, frozenset[str] | None]
"""The scopes of each API key; None is all of them."""

_JSON = {"Content-Type": "application/json"}
_HTML = {"Content-Type": "text/html; charset=utf-8"}
_ROUTER = Router(routes.ALL)

_logger = logging.getLogger("nex_async.emulator")


class Dispatcher:
    """Answers requests from an open workspace."""

    def __init__(self, database: Database, store: Store, keys: Keys) -> None:
        self._database = database
        self._store = store
        self._keys = keys

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the reply to a request, whatever happens on the way."""
        try:
            return await self._answer(request)
        except ApiError as error:
            await _discard_body(request)
            return _envelope(error.status, error.message)
        except ConnectionError:  # the client left in the middle of its body; nobody will read this
            return _envelope(400, "the connection was lost")
        except Exception:
            _logger.exception("%s %s failed", request.method, request.rel_url.raw_path)
            return _envelope(500, "internal error of the emulator; its log says more")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if not path.startswith(PREFIX + "/"):
            raise ApiError(404, f"no such path: {path[:200]}")
        scopes = self._scopes(request)
        found, values = _ROUTER.find(path[len(PREFIX) :])
        route = _route(found, request.method, path)
        _check_scope(route, scopes)
        call = Call(dict(zip(route.params, values, strict=True)), request.query, await _read_body(request))
        body = await self._database.run(_carry_out, _operation(route), self._store, call)
        return web.Response(status=route.status, body=body, headers=_type_of(body))

    def _scopes(self, request: web.BaseRequest) -> frozenset[str] | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise ApiError(401, "missing API key: send Authorization: Bearer sk-...")
        if key not in self._keys:
            raise ApiError(401, "invalid API key")
        return self._keys[key]


def _route(found: Mapping[str, AnyRoute], method: str, path: str) -> AnyRoute:
    if not found:
        raise ApiError(404, f"no such path: {path[:200]}")
    if method not in found:
        raise ApiError(405, f"method {method} is not allowed here; allowed: {', '.join(sorted(found))}")
    return found[method]


def _check_scope(route: AnyRoute, scopes: frozenset[str] | None) -> None:
    needed = route.scopes[0]
    if scopes is not None and needed not in scopes:
        raise ApiError(403, f"the API key lacks the scope {needed}, which {route.name} needs")


def _operation(route: AnyRoute) -> Operation:
    operation = OPERATIONS.get(route.name)
    if operation is None:
        raise ApiError(404, f"{route.name} is not available in this emulator")
    return operation


def _type_of(body: bytes) -> dict[str, str] | None:
    """Return the header that names the type of a body: no JSON begins like a page."""
    return (_HTML if body.startswith(b"<") else _JSON) if body else None


async def _read_body(request: web.BaseRequest) -> bytes:
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


def _carry_out(connection: sqlite3.Connection, operation: Operation, store: Store, call: Call) -> bytes:
    try:
        return operation(store, call).encode()
    except UnicodeEncodeError:
        raise bad_request("text with half a surrogate pair is not UTF-8") from None


def _envelope(status: int, message: str) -> web.Response:
    body = msgspec.json.encode({"code": status, "message": message.encode(errors="replace").decode()})
    return web.Response(status=status, body=body, headers=_JSON)
