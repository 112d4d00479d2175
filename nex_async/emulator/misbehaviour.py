"""How a fault looks on the wire: answers that are wrong, late, cut short, or no answers at all."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import socket
import struct
from http import HTTPStatus

from aiohttp import web

from nex_async.emulator.faults import Fault, Faults
from nex_async.emulator.replies import Reply, envelope_of

__all__ = ["break_connection", "misbehave", "reset"]

_NO_LINGER = struct.pack("ii", 1, 0)
_NO_HTTP = b"\x16\x03\x01\x02\x00 this is not HTTP\r\n\r\n"
_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center><hr></body></html>"
_GARBAGE_BYTES = 256


async def misbehave(request: web.BaseRequest, fault: Fault, reply: Reply | None, faults: Faults) -> Reply | None:
    """Do what a fault says. Return the reply that is left to send, None when the connection is broken.

    `reply` is what the operation answers, where the fault needs it.
    """
    if fault.kind == "delay":
        await faults.hold(fault)
        return reply
    if reply is None:
        return await _without_reply(request, fault, faults)
    return await _spoiled(request, fault, reply, faults)


async def _without_reply(request: web.BaseRequest, fault: Fault, faults: Faults) -> Reply | None:
    if fault.kind in ("status", "rate_limit"):
        return _error(fault)
    ending = "fin"
    if fault.kind == "stall":
        await faults.hold(fault)
        ending = "reset"
    elif fault.kind == "bad_http":
        _write(request, _NO_HTTP)
    elif fault.kind == "reset":
        ending = "reset"
    await break_connection(request, ending)
    return None


async def _spoiled(request: web.BaseRequest, fault: Fault, reply: Reply, faults: Faults) -> Reply | None:
    if fault.kind == "garbage":
        return Reply(reply.status, random.Random(fault.spec.seed).randbytes(_GARBAGE_BYTES), reply.headers)
    if fault.kind == "truncated_json":
        return Reply(reply.status, _cut(fault, reply.body), reply.headers)
    if fault.kind == "truncated_gzip":
        packed = gzip.compress(reply.body, mtime=0)
        return Reply(reply.status, _cut(fault, packed), {**(reply.headers or {}), "Content-Encoding": "gzip"})
    _write(request, _head(reply) + _cut(fault, reply.body))
    if fault.kind == "stall_body":
        await faults.hold(fault)
    await break_connection(request, "reset" if fault.kind == "stall_body" else fault.spec.ending)
    return None


def _error(fault: Fault) -> Reply:
    spec = fault.spec
    status = 429 if fault.kind == "rate_limit" else spec.status
    headers = dict(spec.headers)
    after = 1 if spec.retry_after is None and fault.kind == "rate_limit" else spec.retry_after
    if after is not None:
        headers["Retry-After"] = str(after)
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    if spec.body is not None:
        return Reply(status, spec.body.encode(), headers if kind else {"Content-Type": "text/plain", **headers})
    if "html" in kind:
        return Reply(status, _PAGE.format(f"{status} {_phrase(status)}").encode(), headers)
    return envelope_of(status, f"{_phrase(status)} (a fault on demand)", headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _cut(fault: Fault, body: bytes) -> bytes:
    return body[: len(body) // 2 if fault.spec.bytes is None else fault.spec.bytes]


def _head(reply: Reply) -> bytes:
    """Return the head of a reply that promises its whole body, and at least one byte."""
    lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}", f"Content-Length: {max(1, len(reply.body))}"]
    lines += [f"{name}: {value}" for name, value in (reply.headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode()


def _write(request: web.BaseRequest, data: bytes) -> None:
    if request.transport is not None:
        request.transport.write(data)


async def break_connection(request: web.BaseRequest, ending: str) -> None:
    """End a connection by FIN or, when `ending` is "reset", by RST; what was written before goes out first."""
    transport = request.transport
    if transport is None:
        return
    if ending != "reset":
        transport.close()
        return
    for _ in range(100):  # the peer may not read; then the rest is lost, as it would be
        if not transport.get_write_buffer_size():
            break
        await asyncio.sleep(0.01)
    reset(transport)


def reset(transport: asyncio.Transport) -> None:
    """End a connection by RST, at once."""
    channel = transport.get_extra_info("socket")
    if channel is not None:
        with contextlib.suppress(OSError):
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
