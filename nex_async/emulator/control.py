"""The control interface under `/_emulator/`: switches, faults and the request log, over HTTP.

It is open to programs on this machine. An emulator that listens to others hides it (404) from whoever brings no key.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from nex_async.emulator.call import ApiError, bad_request
from nex_async.emulator.dispatch import key_of, read_body
from nex_async.emulator.switches import CHOICES

if TYPE_CHECKING:
    from nex_async.emulator.server import Emulator

__all__ = ["admit", "check_method", "faults", "json_reply", "read_object", "requests", "restart", "switches"]

_JSON = {"Content-Type": "application/json"}


def admit(emulator: Emulator, request: web.BaseRequest) -> None:
    """Refuse strangers: callers from elsewhere without a key, and web pages of other sites."""
    path = request.rel_url.raw_path
    if key_of(request) in emulator.keys:
        return
    if not (_is_loopback(emulator.host) and _is_loopback(_host_of(f"//{request.headers.get('Host', '')}"))):
        raise ApiError(404, f"no such path: {path[:200]}")
    origin = request.headers.get("Origin", "")
    if origin and urlsplit(origin).netloc != request.headers.get("Host"):
        raise ApiError(403, "pages of other sites may not control the emulator")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def switches(emulator: Emulator, request: web.BaseRequest) -> web.StreamResponse:
    """`GET`: every switch and its choices. `PUT {name: value}`: set some. `DELETE`: as the server was started."""
    if request.method == "PUT":
        values = await read_object(request)
        _checked(emulator.switches.set, values)
    elif request.method == "DELETE":
        emulator.switches.reset()
    else:
        check_method(request, "GET", "PUT", "DELETE")
    return json_reply({"switches": dict(emulator.switches), "choices": CHOICES})


async def faults(emulator: Emulator, request: web.BaseRequest) -> web.StreamResponse:
    """`GET`: all faults and how often each struck. `POST {...}`: add one. `DELETE`: clear all, or `?id=` one."""
    if request.method == "POST":
        fault = _checked(emulator.faults.add, await read_object(request))
        return json_reply(fault.shown())
    if request.method == "DELETE":
        number = request.query.get("id")
        if number is None:
            emulator.faults.clear()
        elif not (number.isascii() and number.isdigit() and emulator.faults.remove(int(number[:18]))):
            raise ApiError(404, f"id: no fault {number[:60]!r}")
    else:
        check_method(request, "GET", "POST", "DELETE")
    return json_reply({"faults": [fault.shown() for fault in emulator.faults]})


async def requests(emulator: Emulator, request: web.BaseRequest) -> web.StreamResponse:
    """`GET`: the log, oldest first; `?operation=` and `?after=` (a number) narrow it. `DELETE`: clear it."""
    if request.method == "DELETE":
        emulator.requests.clear()
    else:
        check_method(request, "GET", "DELETE")
    operation, after = request.query.get("operation"), request.query.get("after", "0")
    if not (after.isascii() and after.isdigit()):
        raise bad_request("after must be the number of a request")
    entries = [
        entry for entry in emulator.requests if operation in (None, entry.operation) and entry.number > int(after[:18])
    ]
    return json_reply({"requests": entries, "count": len(entries)})


async def restart(emulator: Emulator, request: web.BaseRequest) -> web.StreamResponse:
    """`POST`: stop listening, drop every connection and come back with the same data on the same port."""
    check_method(request, "POST")
    emulator.restart_soon()
    return web.Response(status=202, body=b'{"status":"restarting"}', headers={**_JSON, "Connection": "close"})


def check_method(request: web.BaseRequest, *allowed: str) -> None:
    """Refuse a method a page does not know."""
    if request.method not in allowed:
        raise ApiError(405, f"method {request.method} is not allowed here; allowed: {', '.join(allowed)}")


async def read_object(request: web.BaseRequest) -> dict[str, Any]:
    """Return the body, which must be a JSON object."""
    try:
        value = msgspec.json.decode(await read_body(request))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise bad_request(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise bad_request("the body must be a JSON object")
    return value


def _checked(change: Any, values: dict[str, Any]) -> Any:
    try:
        return change(**values)
    except ValueError as error:
        raise bad_request(str(error)) from None


def json_reply(value: Any) -> web.Response:
    """Return a value as a reply."""
    return web.Response(body=msgspec.json.encode(value), headers=_JSON)
