"""Attribute values as a column holds them: the three encodings of the API land as one value."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from ...models import Attribute
from ...models.attributes import flatten

__all__ = ["Column", "Stored", "column_type", "free_name", "read_attributes", "shape_of", "storable"]

Stored: TypeAlias = "str | int | float | None"

_TEXTS = frozenset({"text", "email", "phone", "url", "date", "select", "domain", "full_name"})
_NUMBERS = frozenset({"number"})
_LARGEST = 2**63 - 1
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and the attribute it holds."""

    slug: str
    name: str
    kind: str
    many: bool


def shape_of(attribute: Attribute) -> tuple[str, bool, bool]:
    """Return the type of an attribute, whether it holds several values, and whether its numbers are whole."""
    options = attribute.options
    return attribute.type or "", options.is_multi_value, options.is_whole_number


def column_type(kind: str, many: bool, whole: bool) -> str:
    """Return the SQL type of a column; none where values of several kinds are to be kept as they are."""
    if many or kind in _TEXTS:
        return "TEXT"
    if kind in _NUMBERS:
        return "INTEGER" if whole else "NUMERIC"
    return "INTEGER" if kind == "boolean" else ""


def read_attributes(text: str) -> Mapping[str, Any]:
    """Return the attributes that `text` holds, nothing where it holds none. Never raises."""
    try:
        found = _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        try:
            found = json.loads(text)  # slower, and takes lone surrogates and numbers without measure
        except (ValueError, RecursionError):
            return {}
    return found if isinstance(found, dict) else {}


def storable(column: Column, value: Any) -> Stored:
    """Return a value as its column holds it: text, number, 0 or 1, JSON text for several and for structured ones.

    Never raises: what SQLite cannot hold exactly is approximated here, and stays exact in `_attributes`.
    """
    if value is None:
        return None
    if column.many:
        items = value if isinstance(value, list) else [value]
        return _json([_plain(column.kind, item) for item in items])
    if isinstance(value, list):
        if len(value) > 1:
            return _json([_plain(column.kind, item) for item in value])
        value = value[0] if value else None
    return _bound(_plain(column.kind, value))


def _plain(kind: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    found = _unwrapped(kind, value)
    if kind in _TEXTS:
        return flatten(found) if isinstance(found, dict) else found
    if kind in _NUMBERS and isinstance(found, dict):
        return next((found[key] for key in ("value", "number") if key in found), found)
    return found


def _unwrapped(kind: str, value: dict[str, Any]) -> Any:
    """Take a value out of what only says its type."""
    own = value.get("type")
    rest = value
    if isinstance(own, str) and (own == kind or own in value):
        rest = {key: each for key, each in value.items() if key not in ("type", "id")}
        if set(rest) == {own}:
            return rest[own]
    if kind == "location" and set(rest) == {"address"}:
        return rest["address"]
    return rest or value


def _bound(value: Any) -> Stored:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, int):
        return value if -_LARGEST - 1 <= value <= _LARGEST else _approximate(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return None if value is None else _json(value)


def _approximate(value: int) -> Stored:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _json(value: Any) -> str | None:
    try:
        return _clean(json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")))
    except (ValueError, RecursionError):
        return None


def _clean(text: str) -> str:
    """Return a text SQLite can hold: without lone surrogates."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def free_name(wanted: str, taken: Iterable[str]) -> str:
    """Return a name for a table or column that is not `taken`, whatever its case: `wanted`, or that with a number."""
    name = _clean(wanted).replace("\0", "_") or "_"
    used = {each.lower() for each in taken}
    found, number = name, 2
    while found.lower() in used:
        found, number = f"{name}_{number}", number + 1
    return found
