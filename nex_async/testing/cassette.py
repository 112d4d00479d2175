"""The cassette: recorded exchanges as a file, one line of JSON each, to be read and edited by people.

The first line is a head; every other is a request and its reply. A body stands as JSON where it is JSON, else as `text`,
else as `base64`; that of a stream is a list of its events, `ended` telling whether the server ended it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

from ..errors import ConfigError

__all__ = [
    "Body",
    "Cassette",
    "Exchange",
    "body_of",
    "bytes_of",
    "dumps",
    "kept_headers",
    "packed",
    "query_of",
    "read_cassette",
    "unpacked",
    "write_cassette",
]

_VERSION = 1
Body: TypeAlias = "dict[str, Any]"
"""One of `json`, `text`, `base64` and `events`; nothing for an empty body."""


_KEPT = frozenset(
    {"content-type", "date", "deprecation", "etag", "link", "location", "retry-after", "sunset", "x-request-id"}
)


@dataclasses.dataclass(slots=True)
class Exchange:
    """A request and its reply. `path` is below the base URL and encoded; a query name given more than once has a list."""

    method: str
    path: str
    query: dict[str, Any]
    body: Body
    status: int
    headers: dict[str, str]
    reply: Body

    def line(self) -> str:
        """Return the exchange as the file has it."""
        query = {"query": self.query} if self.query else {}
        request = {"method": self.method, "path": self.path, **query, **self.body}
        return dumps({"request": request, "reply": {"status": self.status, "headers": self.headers, **self.reply}})

    def __str__(self) -> str:
        return f"{self.method} {self.path}{'?' if self.query else ''}{urlencode(self.query, doseq=True)}"


@dataclasses.dataclass(slots=True)
class Cassette:
    """What a file holds: the exchanges, and the names of the fields whose values were redacted."""

    exchanges: list[Exchange]
    redacted: frozenset[str]


def body_of(data: bytes) -> Body:
    """Return a body as a cassette has it."""
    if not data:
        return {}
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"base64": packed(data)}
    try:
        return {"json": json.loads(text, parse_constant=_refuse_constant)}
    except (ValueError, RecursionError):
        return {"text": text}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def bytes_of(body: Body) -> bytes:
    """Return a body as it goes over the wire; of a stream, all of its events."""
    if "json" in body:
        return dumps(body["json"]).encode()
    if "base64" in body:
        return unpacked(body["base64"])
    return "".join(body.get("events", [body.get("text", "")])).encode()


def packed(data: bytes) -> str:
    """Return bytes as a line of text."""
    return base64.b64encode(data).decode()


def unpacked(text: str) -> bytes:
    """Return the bytes that were packed."""
    return base64.b64decode(text)


def query_of(text: str) -> dict[str, Any]:
    """Return an encoded query by name."""
    query: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        held = query.get(name)
        query[name] = value if held is None else [*held, value] if isinstance(held, list) else [held, value]
    return query


def dumps(value: Any) -> str:
    """Return a value as JSON on one line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair can only stand escaped
        return json.dumps(value, separators=(",", ":"))
    return text


def write_cassette(path: Path, cassette: Cassette, *, secrets: Iterable[str]) -> None:
    """Write a cassette in one step: whoever looks finds the old file or the whole new one.

    Refuses, as the last of several guards, what holds one of the secrets.
    """
    head = {"cassette": _VERSION, "redacted": sorted(cassette.redacted)}
    text = "".join(f"{line}\n" for line in (dumps(head), *(exchange.line() for exchange in cassette.exchanges)))
    if any(secret in text for secret in secrets):
        raise RuntimeError(f"{path.name} would hold the API key; nothing was written")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(text.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_cassette(path: Path) -> Cassette:
    """Read a cassette. Raises FileNotFoundError, and `ConfigError` naming the line that is none of ours."""
    lines = path.read_bytes().splitlines()
    head = _line(path, 1, lines[0] if lines else b"")
    if head.get("cassette") != _VERSION:
        raise ConfigError(f"{path}: not a cassette of version {_VERSION}")
    exchanges = [_exchange(path, number, line) for number, line in enumerate(lines[1:], 2) if line.strip()]
    return Cassette(exchanges, frozenset(head.get("redacted", ())))


def _line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}, line {number}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}, line {number}: not a JSON object")
    return found


def _exchange(path: Path, number: int, line: bytes) -> Exchange:
    found = _line(path, number, line)
    try:
        request, reply = dict(found["request"]), dict(found["reply"])
        method, place, query = request.pop("method"), request.pop("path"), request.pop("query", {})
        return Exchange(method, place, query, request, reply.pop("status"), reply.pop("headers", {}), reply)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}, line {number}: not an exchange: {error!r}") from None


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a reply that mean something to a client, and hold nothing of his."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() in _KEPT or name.lower().startswith(("ratelimit", "x-ratelimit"))
    }
