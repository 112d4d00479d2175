"""Whether rows fit the object they are for, before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..errors import InvalidRequestError, MappingError
from ..models import Object, Record

__all__ = ["SAMPLE", "Schema", "problems_of"]

SAMPLE = 100
"""So many rows are looked at before the first is sent."""


class Schema:
    """The attributes an object has."""

    def __init__(self, definition: Object) -> None:
        self.slugs: frozenset[str] = frozenset(
            name for attribute in definition.attributes or () for name in (attribute.slug, attribute.id) if name
        )
        self.names: list[str] = sorted(attribute.slug for attribute in definition.attributes or () if attribute.slug)
        self._name = definition.slug or definition.id
        self._attributes = definition.attributes or []
        self._single = {attribute.slug: attribute for attribute in self._attributes if not attribute.options.is_multi_value}

    def fault(self, row: Any) -> InvalidRequestError | None:
        """Return the error of a row with an attribute the object does not have, None for one that fits."""
        names = row.keys() if isinstance(row, Mapping) else _names(row)
        if names <= self.slugs:
            return None
        unknown = ", ".join(sorted(map(repr, names - self.slugs)))
        return InvalidRequestError(f"{self._name!r} has no attribute {unknown}", argument="rows")

    def attribute_of(self, match_on: str) -> str | None:
        """Return the slug of the attribute called so, by slug or id; None if there is none."""
        return next((one.slug for one in self._attributes if match_on in (one.slug, one.id)), None)

    def misfits(self, row: Mapping[str, Any]) -> Iterable[str]:
        """Yield what in a row does not fit."""
        for name in row.keys() - self.slugs:
            yield f"{self._name!r} has no attribute {name!r}"
        for name, value in row.items():
            if isinstance(value, (list, tuple)) and name in self._single:
                yield f"{name!r} holds one value, and rows give a list"


def _names(row: Any) -> frozenset[str]:
    if isinstance(row, Record):
        return frozenset(row.attributes)
    if isinstance(row, msgspec.Struct):
        built = msgspec.to_builtins(row, builtin_types=(), str_keys=True)
        return frozenset(built) if isinstance(built, dict) else frozenset()
    return frozenset()  # what is no mapping is refused where it is prepared


def problems_of(schema: Schema, rows: list[Mapping[str, Any]], match_on: str | None) -> tuple[str, ...]:
    """Return what is wrong in how rows map to attributes, one sentence each, the most frequent first.

    What is wrong with a tenth of the rows or less is wrong with those rows, not with the mapping.
    """
    found: Counter[str] = Counter()
    if match_on is not None:
        slug = schema.attribute_of(match_on)
        if slug is None:
            return (f"there is no attribute {match_on!r} to match on; there are {', '.join(schema.names)[:500]}",)
        if rows and not any(row.get(match_on) for row in rows):
            found[f"no row has a value of {match_on!r}, by which rows are matched"] = len(rows)
    for row in rows:
        found.update(schema.misfits(row))
    common = [(problem, count) for problem, count in found.most_common() if count * 10 > len(rows)]
    return tuple(f"{problem} ({count} of {len(rows)} rows)" for problem, count in common)


def refuse(problems: tuple[str, ...]) -> None:
    """Raise `MappingError` if there are any problems."""
    if problems:
        raise MappingError(f"the rows do not fit: {'; '.join(problems[:5])}", problems=problems)
