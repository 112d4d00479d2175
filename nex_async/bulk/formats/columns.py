"""Columns: which ones an export has, and how the values of the API's three encodings fit into them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, Literal, TypeAlias

import msgspec

from ...models import Object
from ...models.attributes import flatten

__all__ = ["BASE", "EXTRA", "Column", "Kind", "Structured", "columns_of", "fit", "inferred", "select"]

Kind: TypeAlias = Literal["text", "json", "number", "whole", "boolean", "time"]
"""What a column holds: text; text that is JSON where the value is more than a text; a float; an int; a bool; a timestamp."""
Structured: TypeAlias = Literal["json", "text"]
"""How values of several parts (names, places, phones, money, profiles) are written: whole as JSON, or as a reader's text."""

_SIMPLE: dict[str, Kind] = {
    "text": "text", "email": "text", "url": "text", "domain": "text", "select": "text", "number": "number",
    "date": "time", "boolean": "boolean",
}  # fmt: skip
_TYPES = frozenset((*_SIMPLE, "full_name", "location", "phone", "currency", "social_profile"))
_VALUE_KEYS = frozenset((*_TYPES, "value", "email_address", "option_id"))
_EXACT = 2**53
_LARGEST = 2**63


class Column(msgspec.Struct, frozen=True):
    """One column: its name in the file, the attribute it holds (none for the record's own fields), and what fits it."""

    name: str
    slug: str | None
    kind: Kind
    many: bool = False


BASE: tuple[Column, ...] = (
    Column("id", None, "text"),
    Column("object_id", None, "text"),
    Column("type", None, "text"),
    Column("created_at", None, "time"),
    Column("updated_at", None, "time"),
)
"""The columns of every record."""
EXTRA = "_extra"
"""The last column: a JSON object of the values that have no column, or do not fit theirs."""


def columns_of(definition: Object) -> dict[str, Column]:
    """Return a column for each attribute of a definition, by slug; its name is still the slug."""
    found: dict[str, Column] = {}
    for attribute in definition.attributes or ():
        if attribute.slug:
            kind: Kind = _SIMPLE.get(attribute.type or "", "json")
            if kind == "number" and attribute.options.is_whole_number:
                kind = "whole"
            found[attribute.slug] = Column(attribute.slug, attribute.slug, kind, attribute.options.is_multi_value)
    return found


def inferred(slug: str, values: Iterable[Any]) -> Column:
    """Return a column for an attribute of which only some values are known."""
    kinds: set[Kind] = set()
    many = False
    for value in values:
        many = many or isinstance(value, list)
        for item in value if isinstance(value, list) else (value,):
            if item is not None:
                kinds.add(_kind_of(item))
    return Column(slug, slug, kinds.pop() if len(kinds) == 1 else "json", many)


def _kind_of(value: Any) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "text"
    return _SIMPLE.get(str(value.get("type")), "json") if isinstance(value, dict) else "json"


def select(columns: Mapping[str, Column], slugs: Sequence[str] | None) -> tuple[Column, ...]:
    """Return the attributes' columns that are asked for, all without `slugs`, with names that differ even in small letters.

    An attribute named like a field of the record is called `attribute_<slug>`.
    """
    taken = {column.name for column in BASE} | {EXTRA}
    chosen = []
    for slug in columns if slugs is None else dict.fromkeys(slugs):
        column = columns.get(slug) or Column(slug, slug, "json")
        name = plain = slug if slug.lower() not in taken else f"attribute_{slug}"
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(name.lower())
        chosen.append(msgspec.structs.replace(column, name=name))
    return tuple(chosen)


# ---- values ---------------------------------------------------------------------------------------------------------


def fit(column: Column, value: Any, structured: Structured = "json") -> tuple[Any, bool]:
    """Return a value as its column holds it, and whether that is all of it. None where nothing of it fits."""
    if value is None:
        return None, True
    one = _FITS[column.kind] if structured == "json" or column.kind != "json" else _text_of_any
    if column.many:
        pairs = [one(item) if item is not None else (None, True) for item in (value if isinstance(value, list) else [value])]
        return [kept for kept, whole in pairs if whole or kept is not None], all(whole for _, whole in pairs)
    if isinstance(value, list) and len(value) < 2:  # some servers wrap every value
        value = value[0] if value else None
    return one(value) if value is not None else (None, True)


def _unwrapped(value: Any) -> Any:
    """Return the single value that a typed value object holds, the value itself where there is no such thing."""
    rest = _untyped(value)
    if isinstance(rest, dict) and len(rest) == 1:
        ((key, held),) = rest.items()
        return held if key in _VALUE_KEYS else rest
    return rest


def _untyped(value: Any) -> Any:
    """Return a typed value object without its `type` and `id`, and what stands under the name of its type alone."""
    if not isinstance(value, dict) or str(value.get("type")) not in _TYPES:
        return value
    rest = {key: held for key, held in value.items() if key not in ("type", "id")}
    own = value["type"]
    return rest[own] if len(rest) == 1 and own in rest else rest


def _text(value: Any) -> tuple[Any, bool]:
    held = _unwrapped(value)
    return (held, True) if isinstance(held, str) else (flatten(value) or None, False)


def _json(value: Any) -> tuple[Any, bool]:
    held = _untyped(value)
    return held if held is None or isinstance(held, str) else msgspec.json.encode(held).decode(), True


def _text_of_any(value: Any) -> tuple[Any, bool]:
    return flatten(value) or None, True


def _number(value: Any) -> tuple[Any, bool]:
    held = _unwrapped(value)
    if isinstance(held, float):
        return (held, True) if isfinite(held) else (None, False)
    exact = isinstance(held, int) and not isinstance(held, bool) and -_EXACT <= held <= _EXACT
    return (held, True) if exact else (None, False)


def _whole(value: Any) -> tuple[Any, bool]:
    held = _unwrapped(value)
    if isinstance(held, float) and held.is_integer():
        held = int(held)
    fits = isinstance(held, int) and not isinstance(held, bool) and -_LARGEST <= held < _LARGEST
    return (held, True) if fits else (None, False)


def _boolean(value: Any) -> tuple[Any, bool]:
    held = _unwrapped(value)
    return (held, True) if isinstance(held, bool) else (None, False)


def _time(value: Any) -> tuple[Any, bool]:
    held = _unwrapped(value)
    return (held or None, True) if isinstance(held, str) else (None, False)


_FITS: dict[Kind, Callable[[Any], tuple[Any, bool]]] = {
    "text": _text,
    "json": _json,
    "number": _number,
    "whole": _whole,
    "boolean": _boolean,
    "time": _time,
}

SLUG_IN_PATH = re.compile(r"\.attributes\.([A-Za-z0-9_\-]+)")
"""Finds the attribute in the JSON path of a decoder's message."""
