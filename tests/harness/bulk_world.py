"""A server for bulk runs: it keeps what was applied to each key and when, counts, and fails as it is told to."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

__all__ = [
    "OK",
    "Applied",
    "Fault",
    "Hit",
    "Judge",
    "World",
    "drop",
    "garbage",
    "late",
    "refuse",
    "silent",
    "status",
    "throttle",
    "zombie",
]

_PREFIX = "/api/developers"
_WHEN = "2026-01-01T00:00:00Z"


class Hit(NamedTuple):
    """A request for a row, as it came."""

    number: int
    """Counts the requests for rows from 1."""
    sends: int
    """How often this row was sent, this time included."""
    method: str
    keys: tuple[str, ...]
    version: Any
    at: float


class Fault(NamedTuple):
    """What a request meets: whether and when it takes effect, and the answer; the effect comes before the answer."""

    answer: Literal["reply", "drop", "garbage", "silence"] = "reply"
    status: int = 200
    effect: bool = True
    effect_after: float = 0.0
    answer_after: float = 0.0
    retry_after: str | None = None


OK = Fault()


def drop(*, effect: bool = True) -> Fault:
    """The connection ends in the place of a reply."""
    return Fault("drop", effect=effect)


def status(code: int, *, effect: bool = False, retry_after: str | None = None) -> Fault:
    """An answer with this status."""
    return Fault(status=code, effect=effect, retry_after=retry_after)


def throttle(retry_after: str | None = None) -> Fault:
    """A 429."""
    return status(429, retry_after=retry_after)


def refuse() -> Fault:
    """A 400."""
    return status(400)


def garbage() -> Fault:
    """A success with a body that is no JSON."""
    return Fault("garbage")


def late(seconds: float) -> Fault:
    """The effect at once, the reply later."""
    return Fault(answer_after=seconds)


def zombie(seconds: float) -> Fault:
    """The connection ends at once, and the effect comes later."""
    return Fault("drop", effect_after=seconds)


def silent() -> Fault:
    """The effect, and no answer ever."""
    return Fault("silence")


Judge = Callable[[Hit], Fault]


class Applied(NamedTuple):
    """A version that was written to a key, when, and in which life of the client (counted by the test)."""

    version: Any
    at: float
    life: int


@dataclass
class World:
    """Speaks enough of the API for bulk runs. `judge` decides what each request for a row meets."""

    judge: Judge | None = None
    attributes: tuple[str, ...] = ("key", "n", "text")
    many: tuple[str, ...] = ("key",)
    """Attributes that hold several values."""
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    applied: defaultdict[str, list[Applied]] = field(default_factory=lambda: defaultdict(list))
    created: Counter[str] = field(default_factory=Counter)
    sent: Counter[tuple[tuple[str, ...], Any]] = field(default_factory=Counter)
    hits: list[Hit] = field(default_factory=list)
    overlaps: list[tuple[str, ...]] = field(default_factory=list)
    """Keys for which two requests were under way at once."""
    probes: int = 0
    """Reads of the object's definition, or of the list of objects."""
    faults: int = 0
    most_in_flight: int = 0
    in_flight: int = 0
    life: int = 0
    object_missing: bool = False
    key_status: int = 0
    """The status every request meets, 0 for none; 401 for a key that was revoked."""
    on_hit: Callable[[Hit], object] | None = None

    def __post_init__(self) -> None:
        self._flying: Counter[str] = Counter()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._down = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> int:
        """How many requests for rows have come."""
        return len(self.hits)

    def versions(self, key: str) -> list[Any]:
        """Return what was applied to a key, in order."""
        return [one.version for one in self.applied[key]]

    def go_down(self) -> None:
        """Reset every connection, and each new one as it comes."""
        self._down = True
        for connection in list(self._connections):
            connection.abort()

    def come_back(self) -> None:
        """Serve again."""
        self._down = False

    async def __aenter__(self) -> World:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.abort()
        for _ in range(3):
            await asyncio.sleep(0)
        await self._server.wait_closed()

    # ---- requests -------------------------------------------------------------------------------------------------------

    def serve(self, connection: _Connection, method: str, target: str, body: bytes) -> None:
        """Deal with one whole request."""
        path = target.removeprefix(_PREFIX).split("?", 1)[0].strip("/").split("/")[1:]
        if self.key_status:
            connection.reply(self.key_status, {"code": self.key_status, "message": "no"})
            return
        if method == "GET":
            self.probes += 1
            self._definition(connection, path)
            return
        if method == "POST" and path[-1] == "records":
            self._listing(connection, json.loads(body or b"{}"))
            return
        content = json.loads(body) if body else {}
        keys, version = self._what(method, path, content)
        name = (keys, version)
        self.sent[name] += 1
        hit = Hit(len(self.hits) + 1, self.sent[name], method, keys, version, asyncio.get_running_loop().time())
        self.hits.append(hit)
        if self.on_hit is not None:
            self.on_hit(hit)
        fault = OK if self.judge is None else self.judge(hit)
        if self.object_missing:
            fault = status(404)
        if fault is not OK and (fault.status >= 300 or fault.answer != "reply"):
            self.faults += 1
        if any(self._flying[key] for key in keys):
            self.overlaps.append(keys)
        self._flying.update(keys)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        code, value = (200, {"id": "0"})
        if fault.effect and not fault.effect_after:
            code, value = self._apply(method, path, content, keys, version)
        elif fault.effect:
            asyncio.get_running_loop().call_later(fault.effect_after, self._apply, method, path, content, keys, version)
        if fault.status != 200:
            code, value = fault.status, {"code": fault.status, "message": "the world said so"}
        if fault.answer_after or fault.answer == "silence":
            connection.later(fault, keys, code, value)
        else:
            self.finish(connection, fault, keys, code, value)

    def finish(self, connection: _Connection, fault: Fault, keys: tuple[str, ...], code: int, value: Any) -> None:
        """Answer, or fail to."""
        self.landed(keys)
        if fault.answer == "drop":
            connection.abort()
        elif fault.answer == "garbage":
            connection.write(200, b"<html>hello</html>", None)
        else:
            connection.reply(code, value, fault.retry_after)

    def landed(self, keys: tuple[str, ...]) -> None:
        """Note that a request is under way no more."""
        self.in_flight -= 1
        self._flying.subtract(keys)

    def _what(self, method: str, path: list[str], content: Any) -> tuple[tuple[str, ...], Any]:
        if path[0] == "context":
            return (), content.get("content")
        attributes = content.get("attributes") or {}
        if path[0] == "objects":
            value = attributes.get(self.attributes[0])
            keys = tuple(map(str, value)) if isinstance(value, list) else (str(value),)
        elif path[0] == "lists":
            keys = (content["parent_id"],)
        else:
            keys = (path[1],)
        return tuple(key.casefold() for key in keys), attributes.get("n")

    def _apply(self, method: str, path: list[str], content: Any, keys: tuple[str, ...], version: Any) -> tuple[int, Any]:
        now = asyncio.get_running_loop().time()
        if path[0] == "context":
            self.created[content["content"]] += 1
            return 200, {"artifact_id": str(sum(self.created.values()))}
        if method == "DELETE":
            if self.records.pop(keys[0], None) is None:
                return 404, {"code": 404, "message": "no such record"}
            self.applied[keys[0]].append(Applied(None, now, self.life))
            return 204, None
        is_new = not any(key in self.records for key in keys)
        for key in keys:
            self.records[key] = {**self.records.get(key, {}), **(content.get("attributes") or {})}
            self.applied[key].append(Applied(version, now, self.life))
            if method == "POST" or (is_new and path[0] == "objects"):
                self.created[key] += 1
        updated = _WHEN if is_new else "2026-01-02T00:00:00Z"
        return 200, {"id": keys[0][:20], "created_at": _WHEN, "updated_at": updated, "attributes": {}}

    def _definition(self, connection: _Connection, path: list[str]) -> None:
        if self.object_missing:
            connection.reply(404, {"code": 404, "message": "no such object"})
            return
        attributes = [
            {
                "id": f"id-{slug}",
                "slug": slug,
                "name": slug,
                "type": "text",
                "options": {"is_multi_value": slug in self.many},
            }
            for slug in self.attributes
        ]
        one = {"id": "1", "slug": path[-1], "name": "Thing", "attributes": attributes}
        connection.reply(200, {"data": [one]} if len(path) == 1 else one)

    def _listing(self, connection: _Connection, query: dict[str, Any]) -> None:
        offset, limit = query.get("offset") or 0, query.get("limit") or 500
        chosen = list(self.records.items())[offset : offset + limit]
        data = [
            {"id": key[:20], "created_at": _WHEN, "updated_at": _WHEN, "attributes": attributes}
            for key, attributes in chosen
        ]
        connection.reply(200, {"data": data, "total": len(self.records)})


class _Connection(asyncio.Protocol):
    """One connection of a client; requests on it come one after the other."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: tuple[str, ...] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._world._connections.add(self)
        if self._world._down:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._world._connections.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._under_way is not None:
            self._world.landed(self._under_way)
            self._under_way = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._transport is not None and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).decode("latin-1")
            lower = head.lower()
            at = lower.find("\r\ncontent-length:")
            length = int(lower[at + 17 :].split("\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            method, target, _ = head.split("\r\n", 1)[0].split(" ", 2)
            self._world.serve(self, method, target, body)

    def later(self, fault: Fault, keys: tuple[str, ...], code: int, value: Any) -> None:
        """Answer after a while, or never; the request is under way until then, or until the client goes."""
        self._under_way = keys
        if fault.answer != "silence":
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(fault.answer_after, self._now, fault, keys, code, value)

    def _now(self, fault: Fault, keys: tuple[str, ...], code: int, value: Any) -> None:
        self._under_way = None
        self._world.finish(self, fault, keys, code, value)

    def reply(self, code: int, value: Any, retry_after: str | None = None) -> None:
        """Send a reply of JSON."""
        self.write(code, b"" if value is None else json.dumps(value).encode(), retry_after)

    def write(self, code: int, body: bytes, retry_after: str | None) -> None:
        """Send a reply."""
        if self._transport is None:
            return
        more = f"Retry-After: {retry_after}\r\n" if retry_after is not None else ""
        head = f"HTTP/1.1 {code} Status\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        self._transport.write(head.encode() + body)

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()
