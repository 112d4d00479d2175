"""Read a reply's body with a cap, and undo gzip by hand: aiohttp's own decoder takes a truncated stream for a whole one."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import aiohttp

from ..errors import BodyTooLarge, BodyTruncated, ProtocolError

if TYPE_CHECKING:
    from .lean import Received

__all__ = ["inflate", "read_body", "read_error", "too_large", "unpacked"]

Incoming: TypeAlias = "aiohttp.ClientResponse | Received"
"""A reply whose head has come, on whichever way."""

_INLINE = 1 << 20
"""Up to this many bytes are decompressed on the loop (2 to 4 ms); more goes to a thread."""
_INLINE_COMPRESSED = 256 * 1024
_ERROR_WAIT = 5.0
"""So many seconds are given to the body of an error, whose status is known."""


async def read_body(response: Incoming, cap: int) -> bytes:
    """Return the whole body, decompressed. More than `cap` bytes raise `BodyTooLarge`; the connection is then not reused."""
    content = response.content
    body = await content.readany()
    if not content.at_eof() or len(body) > cap:
        body = await _rest(response, body, cap)
    return await unpacked(response.headers, body, cap)


async def unpacked(headers: Mapping[str, str], body: bytes, cap: int) -> bytes:
    """Return a whole body decompressed. Raises `BodyTooLarge`, `BodyTruncated`, `ProtocolError`."""
    encoding = headers.get("Content-Encoding")
    if encoding is None or not body:
        return body
    return await _decompress(encoding.strip().lower(), body, cap)


async def _rest(response: Incoming, first: bytes, cap: int) -> bytes:
    chunks, size = [first], len(first)
    while size <= cap:
        chunk = await response.content.readany()
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
    response.close()
    raise too_large(cap)


def too_large(cap: int) -> BodyTooLarge:
    """Return the error of a reply of more than `cap` bytes."""
    return BodyTooLarge(f"the reply is larger than {cap} bytes", sent="yes")


async def _decompress(encoding: str, body: bytes, cap: int) -> bytes:
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise ProtocolError("the reply is compressed in a way that was not asked for", sent="maybe")
    if len(body) <= _INLINE_COMPRESSED:
        try:
            return inflate(body, min(cap, _INLINE))
        except BodyTooLarge:
            if cap <= _INLINE:
                raise
    return await asyncio.to_thread(inflate, body, cap)


async def read_error(response: Incoming, cap: int) -> bytes:
    """Return what can be had of the body of a reply that is no success, up to `cap` bytes.

    Such a body never hides the status: one that is cut, damaged, stalls or does not end is taken as far as it came.
    """
    chunks: list[bytes] = []
    try:
        if response.status < 200:  # an upgrade: what follows is no body
            response.close()
        elif response.content.is_eof():
            await _collect(response, cap, chunks)
        else:
            await _collect_in_time(response, cap, chunks)
        body = b"".join(chunks)[:cap]
        encoding = response.headers.get("Content-Encoding")
        return await _decompress(encoding.strip().lower(), body, cap) if encoding and body else body
    except (BodyTooLarge, BodyTruncated, ProtocolError):
        return b""
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
        response.close()
        return b"".join(chunks)[:cap]


async def _collect_in_time(response: Incoming, cap: int, chunks: list[bytes]) -> None:
    silence = asyncio.TimeoutError("the body of an error did not end")
    timer = asyncio.get_running_loop().call_later(_ERROR_WAIT, response.content.set_exception, silence)
    try:
        await _collect(response, cap, chunks)
    finally:
        timer.cancel()


async def _collect(response: Incoming, cap: int, chunks: list[bytes]) -> None:
    size = 0
    while chunk := await response.content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > cap:
            response.close()
            return


def inflate(body: bytes, cap: int) -> bytes:
    """Return what one gzip member holds.

    Raises `BodyTruncated` for a member that ends early, `ProtocolError` for one that is damaged or not alone, and
    `BodyTooLarge` for one that holds more than `cap` bytes; no more than that is ever unpacked.
    """
    member = zlib.decompressobj(31)
    try:
        content = member.decompress(body, cap + 1)
    except zlib.error:
        raise ProtocolError("the reply says gzip and is not", sent="maybe") from None
    if len(content) > cap:
        raise BodyTooLarge(f"the reply is larger than {cap} bytes once decompressed", sent="yes")
    if not member.eof:
        raise BodyTruncated("the reply's compressed body ended early", sent="maybe")
    if member.unused_data:
        raise ProtocolError("the reply's compressed body has something behind it", sent="maybe")
    return content
