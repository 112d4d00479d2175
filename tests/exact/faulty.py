"""What may befall an attempt, byte by byte: for real aiohttp over connections in memory, and for real sockets."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import aiohttp

from nex_async.routes import ALL, Route
from tests.harness import raw_server
from tests.harness.raw_server import Step, json_reply, render
from tests.harness.virtual import MemoryTransport
from tests.test_operations import CASES, STREAM, Case

__all__ = ["CALLS", "FAULTS", "MAX_BODY", "MOST", "Fault", "Kind", "attempts_of", "body_of", "unreachable"]

CALLS: list[tuple[Route[Any], Case]] = [
    (route, case) for route in ALL if route.name != STREAM for case in CASES if case.name == route.name
]
"""Every operation but the stream, with a call of it."""

Kind: TypeAlias = Literal["unsent", "throttled", "refused", "fault", "lost", "conflict", "garbled", "final"]

MOST: dict[Kind, dict[str, int]] = {
    "unsent": {"read": 4, "upsert": 4, "state": 3, "create": 4, "costly": 3},
    "throttled": {"read": 4, "upsert": 4, "state": 3, "create": 4, "costly": 3},
    "refused": {"read": 4, "upsert": 4, "state": 3, "create": 4, "costly": 3},
    "fault": {"read": 4, "upsert": 4, "state": 3, "create": 1, "costly": 1},
    "lost": {"read": 4, "upsert": 4, "state": 3, "create": 1, "costly": 1},
    "conflict": {"read": 1, "upsert": 2, "state": 1, "create": 1, "costly": 1},
    "garbled": {"read": 2, "upsert": 1, "state": 1, "create": 1, "costly": 1},
    "final": {"read": 1, "upsert": 1, "state": 1, "create": 1, "costly": 1},
}
"""The requests of a call that meets nothing else, by its operation's class: the table of docs/errors.md."""

End: TypeAlias = Literal["fin", "rst", "silence", "open"]


@dataclass(frozen=True)
class Fault:
    """What an attempt meets: bytes, and then an end. `unreachable` never sees the request."""

    name: str
    kind: Kind
    data: bytes = b""
    end: End = "open"
    """What comes behind the bytes: FIN, RST, nothing for ever, or a connection that stands for the next request."""
    status: int | None = None
    acts: bool | None = False
    """Whether the server does what was asked for: certainly, certainly not, or perhaps (None)."""

    @property
    def reached(self) -> bool:
        """Whether the server sees the request."""
        return self.kind != "unsent"

    def play(self, transport: MemoryTransport, delay: float = 0.01) -> None:
        """Let a connection in memory meet it."""
        if self.data:
            transport.feed(delay, self.data)
        if self.end == "fin":
            transport.end(delay)
        elif self.end == "rst":
            transport.end(delay, ConnectionResetError(104, "Connection reset by peer"))

    def script(self) -> list[Step]:
        """Return what a raw server plays for it on a connection."""
        endings: dict[End, list[Step]] = {
            "fin": [],
            "rst": [raw_server.reset],
            "silence": [raw_server.hold],
            "open": [],
        }
        if self.end == "open":
            return [raw_server.serve(lambda seen: self.data)]
        return [raw_server.read_request, raw_server.send(self.data), *endings[self.end]]


def _status(status: int, kind: Kind, retry_after: str | None = None) -> Fault:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    data = json_reply({"code": status, "message": "no"}, status, headers)
    acts = None if kind == "fault" else False
    return Fault(f"{status}{'' if retry_after is None else '_retry_after'}", kind, data, status=status, acts=acts)


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
MAX_BODY = 1 << 16
"""What pools of these tests take, in bytes."""
_ZIPPED = gzip.compress(b'{"id": "1", "title": "' + random.Random(1).randbytes(400).hex().encode() + b'"}')
_GZIP = _HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

FAULTS: list[Fault] = [
    Fault("refused", "unsent"),
    Fault("no_name", "unsent"),
    Fault("connect_timeout", "unsent"),
    Fault("handshake_reset", "unsent"),
    Fault("fin_before_head", "lost", end="fin", acts=None),
    Fault("rst_before_head", "lost", end="rst", acts=None),
    Fault("fin_in_head", "lost", _HEAD, end="fin", acts=None),
    Fault("fin_in_body", "lost", _HEAD + b'Content-Length: 40\r\n\r\n{"id":', end="fin", acts=True),
    Fault("rst_in_body", "lost", _HEAD + b'Content-Length: 40\r\n\r\n{"id":', end="rst", acts=True),
    Fault("no_last_chunk", "lost", _CHUNKED + b'a\r\n{"id":"1"}\r\n', end="fin", acts=True),
    Fault("bad_chunk", "lost", _CHUNKED + b'zz\r\n{"id":"1"}\r\n0\r\n\r\n', end="fin", acts=True),
    Fault("bad_status_line", "lost", b"HELLO\r\n\r\n", end="fin", acts=None),
    Fault("cut_gzip", "lost", _GZIP % 200 + _ZIPPED[:200], acts=True),
    Fault("bad_gzip", "lost", _GZIP % 9 + b"no gzip!!", acts=True),
    Fault("silent_head", "lost", end="silence", acts=None),
    Fault("silent_body", "lost", _HEAD + b'Content-Length: 40\r\n\r\n{"id":', end="silence", acts=True),
    *[_status(status, "final") for status in (400, 401, 403, 404, 410, 413, 418, 422)],
    _status(409, "conflict"),
    _status(429, "throttled"),
    _status(429, "throttled", "1"),
    *[_status(status, "fault") for status in (408, 425, 500, 502, 503, 504)],
    _status(503, "refused", "1"),
    Fault("garbage", "garbled", render(b"{garbage"), acts=True),
    Fault("web_page", "garbled", render(b"<html>hotel</html>", headers={"Content-Type": "text/html"}), acts=True),
    Fault("redirect", "final", render(b"", 307, {"Location": "/elsewhere"})),
    Fault("too_large", "final", render(b" " * (MAX_BODY + 1)), acts=True),
]


def unreachable(name: str, origin: Any) -> BaseException:
    """Return what connecting meets."""
    key = origin.connection_key
    if name == "no_name":
        return aiohttp.ClientConnectorDNSError(key, OSError(-2, "Name or service not known"))
    if name == "connect_timeout":
        return aiohttp.ConnectionTimeoutError("no connection in time")
    if name == "handshake_reset":
        return aiohttp.ClientConnectorError(key, ConnectionResetError(104, "Connection reset by peer"))
    return aiohttp.ClientConnectorError(key, ConnectionRefusedError(111, "Connection refused"))


def attempts_of(fault: Fault, route: Route[Any]) -> int:
    """Return how many attempts a call makes that meets one fault again and again."""
    return MOST[fault.kind][route.retry]


def body_of(case: Case, status: int) -> bytes:
    """Return the reply that a call hopes for."""
    body = case.reply if isinstance(case.reply, bytes) else json.dumps(case.reply).encode()
    return render(body, status)
