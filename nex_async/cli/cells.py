"""Texts that a person or a table gives, as the values their attributes want."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from ..models import Attribute

__all__ = ["of_cell", "to_cell"]


def of_cell(attribute: Attribute | None, cell: str, *, knows: bool) -> Any:
    """Return what a cell that is not blank holds, by the type of its attribute; `knows` says whether types are known."""
    if attribute is None:
        return _json(cell, list) if cell[0] == "[" and not knows else cell
    if not attribute.options.is_multi_value:
        return _single(attribute.type, cell)
    several = _json(cell, list)
    return several if several is not cell else [_single(attribute.type, cell)]


def _single(type: str | None, cell: str) -> Any:
    if type in ("number", "currency"):
        number = _json(cell, (int, float))
        if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) != inf:
            return number
    elif type == "boolean":
        return {"true": True, "false": False}.get(cell.strip().lower(), cell)
    return _json(cell, dict) if type != "text" and cell[0] == "{" else cell


def _json(cell: str, wanted: Any) -> Any:
    """Return a cell as JSON of a wanted type, else as it is."""
    try:
        value = msgspec.json.decode(cell)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return cell
    return value if isinstance(value, wanted) else cell


def to_cell(value: Any) -> str:
    """Return a value as the cell of a table from which `of_cell` makes it again: JSON where it is more than a text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
