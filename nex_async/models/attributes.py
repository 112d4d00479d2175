"""Attribute values: one text out of the three encodings the API uses (plain, structured, typed object)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["flatten", "flatten_all"]

# The keys under which a typed or structured value keeps its text, most telling first. Values nested under the name of
# their own type ({"type": "email", "email": {...}}) are followed.
_TEXT_KEYS = (
    "text", "value", "email", "email_address", "domain", "url", "name", "title", "option_id", "option", "number", "date",
    "boolean", "phone_number", "username", "plain_text", "label", "id",
)  # fmt: skip
_PLACE_KEYS = ("street", "city", "region", "postal_code", "country")
_MAX_DEPTH = 6


def flatten(value: Any) -> str:
    """Return the first text of an attribute value, `""` when there is none. Never raises.

    >>> flatten([{"type": "email", "email": "ada@x.io"}])
    'ada@x.io'
    """
    return next(_texts(value, 0), "")


def flatten_all(value: Any) -> list[str]:
    """Return every text of an attribute value: one for a plain value, one per element of a multi-value attribute."""
    return list(_texts(value, 0))


def _texts(value: Any, depth: int) -> Iterator[str]:
    if value is None or depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, (int, float)):
        yield _number(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, depth + 1)
    elif isinstance(value, Mapping):
        text = _object_text(value, depth)
        if text:
            yield text


def _number(value: float) -> str:
    try:
        return str(value)
    except ValueError:  # an integer of thousands of digits
        return hex(int(value))


def _object_text(value: Mapping[Any, Any], depth: int) -> str:
    if "first_name" in value or "last_name" in value:
        return _joined(value, ("first_name", "last_name"), " ", depth)
    if "country_code" in value and "number" in value:
        return _phone(value)
    if "currency" in value and "value" in value:
        return _joined(value, ("value", "currency"), " ", depth)
    if isinstance(value.get("address"), Mapping):
        return _object_text(value["address"], depth + 1) if depth < _MAX_DEPTH else ""
    if any(key in value for key in _PLACE_KEYS):
        return _joined(value, _PLACE_KEYS, ", ", depth)
    own = value.get("type")
    keys = (own, *_TEXT_KEYS) if isinstance(own, str) else _TEXT_KEYS
    for key in keys:
        text = next(_texts(value.get(key), depth + 1), "")
        if text:
            return text
    return ""


def _joined(value: Mapping[Any, Any], keys: tuple[str, ...], separator: str, depth: int) -> str:
    return separator.join(filter(None, (next(_texts(value.get(key), depth + 1), "") for key in keys)))


def _phone(value: Mapping[Any, Any]) -> str:
    number = next(_texts(value["number"], 1), "")
    code = next(_texts(value["country_code"], 1), "").lstrip("+")
    return f"+{code} {number}" if code and not number.startswith("+") else number
