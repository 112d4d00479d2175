"""Whether a request is the one that was recorded, where the record has placeholders for some of it."""

from __future__ import annotations

import json
import re
from typing import Any, TypeGuard
from urllib.parse import unquote

from .cassette import Body, Exchange
from .redaction import PLACEHOLDER

__all__ = ["Bindings"]

_SHOWN = 60


class Bindings:
    """What each placeholder of a cassette stands for, as far as requests have told.

    A placeholder is any text, but the same one everywhere; what stands for it in a request comes back in the replies.
    """

    def __init__(self, fields: frozenset[str]) -> None:
        self._fields = fields
        self._bound: dict[str, str] = {}

    def take(self, recorded: Exchange, asked: Exchange) -> str:
        """Return "" and remember the placeholders if a request is the one recorded, else the first difference."""
        trial = _Trial(self._fields, dict(self._bound))
        found = trial.difference(recorded, asked)
        if not found:
            self._bound = trial.bound
        return found

    def difference(self, recorded: Exchange, asked: Exchange) -> str:
        """Return the first difference between what was recorded and what was asked."""
        return _Trial(self._fields, dict(self._bound)).difference(recorded, asked)

    def fill(self, body: Body) -> Body:
        """Return a reply with what is known of its placeholders."""
        filled = {name: self._fill(value) for name, value in body.items() if name != "events"}
        if "events" in body:
            filled["events"] = [PLACEHOLDER.sub(self._escaped, event) for event in body["events"]]
        return filled

    def _fill(self, found: Any) -> Any:
        if isinstance(found, dict):
            return {name: self._fill(value) for name, value in found.items()}
        if isinstance(found, list):
            return [self._fill(value) for value in found]
        return PLACEHOLDER.sub(self._plain, found) if isinstance(found, str) else found

    def _plain(self, match: re.Match[str]) -> str:
        return self._bound.get(match[0], match[0])

    def _escaped(self, match: re.Match[str]) -> str:
        return json.dumps(self._plain(match), ensure_ascii=False)[1:-1]


class _Trial:
    """One comparison, and what it would bind."""

    def __init__(self, fields: frozenset[str], bound: dict[str, str]) -> None:
        self._fields = fields
        self.bound = bound

    def difference(self, recorded: Exchange, asked: Exchange) -> str:
        if recorded.method != asked.method:
            return _told("method", recorded.method, asked.method)
        here, there = ([unquote(segment) for segment in path.split("/")] for path in (recorded.path, asked.path))
        if len(here) != len(there) or not all(map(self._fits, here, there)):
            return _told("path", recorded.path, asked.path)
        return self._compare("query", recorded.query, asked.query, False) or self._compare_bodies(recorded.body, asked.body)

    def _compare_bodies(self, recorded: Body, asked: Body) -> str:
        if recorded.keys() != asked.keys():
            return _told("body", _kind(recorded), _kind(asked))
        return next((found for kind in recorded if (found := self._compare("body", recorded[kind], asked[kind], False))), "")

    def _compare(self, place: str, recorded: Any, asked: Any, inside: bool) -> str:
        if isinstance(recorded, dict) and isinstance(asked, dict):
            return self._compare_objects(place, recorded, asked, inside)
        if isinstance(recorded, list) and isinstance(asked, list) and len(recorded) == len(asked):
            pairs = enumerate(zip(recorded, asked, strict=True))
            return next((found for n, pair in pairs if (found := self._compare(f"{place}[{n}]", *pair, inside))), "")
        if isinstance(recorded, str) and isinstance(asked, str):
            return "" if self._fits(recorded, asked) else _told(place, recorded, asked)
        numbers = _is_number(recorded) and _is_number(asked)
        same = numbers and (inside or recorded == asked)
        return "" if same or (type(recorded) is type(asked) and recorded == asked) else _told(place, recorded, asked)

    def _compare_objects(self, place: str, recorded: dict[str, Any], asked: dict[str, Any], inside: bool) -> str:
        for name in [*recorded, *asked]:
            if name not in asked:
                return f"{place}.{name} was recorded, and not asked"
            if name not in recorded:
                return f"{place}.{name} was not recorded"
            found = self._compare(f"{place}.{name}", recorded[name], asked[name], inside or name in self._fields)
            if found:
                return found
        return ""

    def _fits(self, recorded: str, asked: str) -> bool:
        names = PLACEHOLDER.findall(recorded)
        if not names:
            return recorded == asked
        parts = map(re.escape, PLACEHOLDER.split(recorded))
        match = re.fullmatch("(.+?)".join(parts), asked, re.DOTALL)
        return match is not None and all(map(self._bind, names, match.groups()))

    def _bind(self, name: str, text: str) -> bool:
        held = self.bound.get(name, name)
        if text not in (name, held) and (held != name or text in self.bound.values()):
            return False
        if text != name:
            self.bound[name] = text
        return True


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _kind(body: Body) -> str:
    return next(iter(body), "none")


def _told(place: str, recorded: object, asked: object) -> str:
    return f"{place}: {_short(recorded)} was recorded, {_short(asked)} was asked"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
