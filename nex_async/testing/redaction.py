"""Redaction: what a cassette must not tell, replaced by placeholders that still match each other.

Keys become `redacted-key`, wherever they stand. Of the fields a user names, each text becomes `redacted-1`, `redacted-2` and
so on, the same text the same placeholder, also where it stands in other fields, in paths and in streams; numbers become 0.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote

from .cassette import Body, Exchange, dumps, packed, unpacked

__all__ = ["PLACEHOLDER", "redacted", "secrets_of"]

PLACEHOLDER = re.compile(r"redacted-\d+")
_KEY = re.compile(r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2}))(?:sk-|nex_dev_)[A-Za-z0-9_\-]{6,}")
_NO_KEY = "redacted-key"
_END_OF_LINE = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")
_LONG = 8
"""A shorter end of a key is no secret without its beginning."""
_TELLING = 4
"""A shorter text is redacted in its own fields only: elsewhere it may mean anything."""


def secrets_of(authorization: str) -> set[str]:
    """Return what must not be told of an `Authorization` header: the key, also encoded, and the part of it that tells."""
    key = authorization.partition(" ")[2].strip()
    tail = key.removeprefix("sk-").removeprefix("nex_dev_")
    return {secret for secret in (key, quote(key, safe=""), tail if len(tail) >= _LONG else "") if secret}


def redacted(exchanges: Iterable[Exchange], fields: frozenset[str], keys: Iterable[str]) -> list[Exchange]:
    """Return exchanges without the keys, and without what stands in the fields of these names."""
    exchanges = list(exchanges)
    redaction = _Redaction(fields, keys)
    for exchange in exchanges:
        redaction.learn(exchange)
    return [redaction.apply(exchange) for exchange in exchanges]


class _Redaction:
    """Learns first, so that a text is gone also from what came before the field that betrays it."""

    def __init__(self, fields: frozenset[str], keys: Iterable[str]) -> None:
        self._fields = fields
        self._keys = sorted(keys, key=len, reverse=True)
        self._known: dict[str, str] = {}
        self._telling: re.Pattern[str] | None = None

    def learn(self, exchange: Exchange) -> None:
        self._learn(exchange.query, False)
        for body in (exchange.body, exchange.reply):
            self._learn(body.get("json"), False)
            for event in body.get("events", ()):
                _in_event(event, lambda found: self._learn(found, False))
        telling = sorted((text for text in self._known if len(text) >= _TELLING), key=len, reverse=True)
        if telling:
            self._telling = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, telling))})(?!\w)")

    def _learn(self, found: Any, inside: bool) -> None:
        if isinstance(found, dict):
            for name, value in found.items():
                self._learn(value, inside or name in self._fields)
        elif isinstance(found, list):
            for value in found:
                self._learn(value, inside)
        elif inside and isinstance(found, str) and found:
            self._known.setdefault(found, f"redacted-{len(self._known) + 1}")

    def apply(self, exchange: Exchange) -> Exchange:
        return dataclasses.replace(
            exchange,
            path="/".join(map(self._segment, exchange.path.split("/"))),
            query=self._value(exchange.query, False),
            body=self._body(exchange.body),
            headers={name: self._text(value) for name, value in exchange.headers.items()},
            reply=self._body(exchange.reply),
        )

    def _segment(self, segment: str) -> str:
        plain = unquote(segment)
        told = self._text(plain)
        return segment if told == plain else quote(told, safe="~")

    def _body(self, body: Body) -> Body:
        if "json" in body:
            return {"json": self._value(body["json"], False)}
        if "events" in body:
            return {**body, "events": [self._event(event) for event in body["events"]]}
        if "base64" in body:
            return {"base64": packed(self._text(unpacked(body["base64"]).decode("latin-1")).encode("latin-1"))}
        return {name: self._text(value) for name, value in body.items()}

    def _event(self, event: str) -> str:
        return self._text(_in_event(event, lambda found: self._value(found, False)))

    def _value(self, found: Any, inside: bool) -> Any:
        if isinstance(found, dict):
            return {self._text(name): self._value(value, inside or name in self._fields) for name, value in found.items()}
        if isinstance(found, list):
            return [self._value(value, inside) for value in found]
        if isinstance(found, str):
            return self._known[found] if inside and found else self._text(found)
        return type(found)() if inside and isinstance(found, (int, float)) and not isinstance(found, bool) else found

    def _text(self, text: str) -> str:
        for key in self._keys:
            text = text.replace(key, _NO_KEY)
        text = _KEY.sub(_NO_KEY, text)
        return text if self._telling is None else self._telling.sub(lambda match: self._known[match[0]], text)


def _in_event(event: str, change: Callable[[Any], Any]) -> str:
    """Return an event with its JSON changed; one that holds none is returned as it is."""
    lines = _END_OF_LINE.split(event)
    data = [line for line in lines if line.startswith("data:")]
    try:
        found = json.loads("".join(line[5:] for line in data))
    except (ValueError, RecursionError):
        return event
    told = change(found)
    if told == found:
        return event
    first = lines.index(data[0])
    rest = [line for line in lines[first:] if not line.startswith("data:")]
    return "".join([*lines[:first], f"data: {dumps(told)}\n", *rest])
