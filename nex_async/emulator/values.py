"""Attribute values: what each type accepts (plain or structured), and how a value reads as text and as a key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from nex_async.emulator.call import bad_request
from nex_async.emulator.schema import Attribute, ObjectDefinition
from nex_async.emulator.timestamps import parse_moment

__all__ = ["check_value", "items_of", "key_of", "text_of", "texts_of"]

_LOCATION_PARTS = ("street", "city", "region", "postal_code", "country")
_LARGEST_NUMBER = 2**63 - 1
_MOST_VALUES = 1000


def check_value(attribute: Attribute, value: Any) -> None:
    """Refuse a value its attribute cannot hold, with a message that names the attribute."""
    if attribute.is_multi_value and not isinstance(value, list):
        raise _refusal(attribute, "holds several values: send an array")
    if not attribute.is_multi_value and isinstance(value, list):
        raise _refusal(attribute, "holds one value: an array is not accepted")
    if isinstance(value, list) and len(value) > _MOST_VALUES:
        raise _refusal(attribute, f"holds at most {_MOST_VALUES} values")
    for item in items_of(value):
        problem = _CHECKS[attribute.type](attribute, item)
        if problem is not None:
            raise _refusal(attribute, problem)


def _refusal(attribute: Attribute, problem: str) -> Exception:
    return bad_request(f'attribute "{attribute.slug}" ({attribute.type}) {problem}')


def items_of(value: Any) -> list[Any]:
    """Return the single values in a value."""
    return value if isinstance(value, list) else [value]


def _text(attribute: Attribute, value: Any) -> str | None:
    return None if isinstance(value, str) else "must be a string"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(attribute: Attribute, value: Any) -> str | None:
    if not _is_number(value):
        return "must be a number"
    if abs(value) > _LARGEST_NUMBER if isinstance(value, int) else not math.isfinite(value):
        return "is out of range"
    if attribute.is_whole_number and value != int(value):
        return "must be a whole number"
    return None


def _email(attribute: Attribute, value: Any) -> str | None:
    if isinstance(value, str) and not any(character.isspace() for character in value):
        local, _, host = value.partition("@")
        if local and host and "@" not in host and "." in host.strip("."):
            return None
    return "must be an email address"


def _phone(attribute: Attribute, value: Any) -> str | None:
    if isinstance(value, dict):
        code, number = value.get("country_code"), value.get("number")
        if isinstance(code, int) and not isinstance(code, bool) and isinstance(number, str) and _dialable(number):
            return None
    elif isinstance(value, str) and _dialable(value):
        return None
    return "must be a phone number, or an object with country_code (int) and number (string)"


def _dialable(text: str) -> bool:
    digits = sum(character.isdigit() for character in text)
    return 2 <= digits <= 30 and all(character.isdigit() or character in "+-(). /x#" for character in text)


def _url(attribute: Attribute, value: Any) -> str | None:
    if isinstance(value, str) and not any(character.isspace() for character in value):
        scheme, found, rest = value.rpartition("://")
        host = rest.partition("/")[0]
        if host and (not found or scheme.isalpha()) and ("." in host.strip(".") or found):
            return None
    return "must be a URL"


def _date(attribute: Attribute, value: Any) -> str | None:
    try:
        if isinstance(value, str):
            parse_moment(value if len(value) > 10 else f"{value}T00:00:00Z")
            return None
    except ValueError:
        pass
    return "must be an RFC 3339 date or timestamp"


def _boolean(attribute: Attribute, value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _currency(attribute: Attribute, value: Any) -> str | None:
    if isinstance(value, dict):
        if not isinstance(value.get("currency", ""), str):
            return "must name its currency as a string"
        value = value.get("value")
    return _number(attribute, value)


def _location(attribute: Attribute, value: Any) -> str | None:
    if isinstance(value, str):
        return None
    parts = _location_parts(value)
    if parts and all(part is None or isinstance(part, str) for part in parts.values()):
        return None
    return f"must be a string, or an object of strings with some of {', '.join(_LOCATION_PARTS)}"


def _location_parts(value: Any) -> dict[str, Any]:
    """Return the known parts of a structured location, which may be nested under `address`."""
    if isinstance(value, dict) and isinstance(value.get("address"), dict):
        value = value["address"]
    return {key: value[key] for key in _LOCATION_PARTS if key in value} if isinstance(value, dict) else {}


def _select(attribute: Attribute, value: Any) -> str | None:
    if isinstance(value, str) and value in attribute.options:
        return None
    known = ", ".join(f"{key} ({name})" for key, name in attribute.options.items())
    return f"must be the id of one of its options: {known or 'it has none yet'}"


def _social_profile(attribute: Attribute, value: Any) -> str | None:
    if isinstance(value, str) and value:
        return None
    if isinstance(value, dict):
        parts = [value[key] for key in ("username", "url") if value.get(key) is not None]
        if parts and all(isinstance(part, str) for part in parts):
            return None
    return "must be a string, or an object with username and url"


def _domain(attribute: Attribute, value: Any) -> str | None:
    allowed = isinstance(value, str) and all(character.isalnum() or character in ".-_" for character in value)
    if allowed and "." in value.strip("."):
        return None
    return "must be a bare domain such as example.com"


def _full_name(attribute: Attribute, value: Any) -> str | None:
    if isinstance(value, str):
        return None
    if isinstance(value, dict):
        parts = [value[key] for key in ("first_name", "last_name") if value.get(key) is not None]
        if parts and all(isinstance(part, str) for part in parts):
            return None
    return "must be a string, or an object with first_name and last_name"


_CHECKS: dict[str, Callable[[Attribute, Any], str | None]] = {
    "text": _text,
    "number": _number,
    "email": _email,
    "phone": _phone,
    "url": _url,
    "date": _date,
    "boolean": _boolean,
    "currency": _currency,
    "location": _location,
    "select": _select,
    "social_profile": _social_profile,
    "domain": _domain,
    "full_name": _full_name,
}


def text_of(attribute: Attribute, item: Any) -> str:
    """Return one value as a person would read it: a select by its label, a structured value by its parts."""
    if isinstance(item, str):
        return attribute.options.get(item, item)
    if isinstance(item, dict):
        return _structured_text(attribute.type, item)
    return str(item).lower() if isinstance(item, bool) else str(item)


def _structured_text(kind: str, item: dict[str, Any]) -> str:
    if kind == "location":
        return ", ".join(part for part in _location_parts(item).values() if part)
    if kind == "phone":
        return f"+{item['country_code']} {item['number']}"
    keys = {"full_name": ("first_name", "last_name"), "currency": ("value", "currency")}.get(kind, ("username", "url"))
    return " ".join(str(item[key]) for key in keys if item.get(key) is not None).strip()


def texts_of(definition: ObjectDefinition, attributes: dict[str, Any]) -> Iterator[tuple[Attribute, str]]:
    """Yield every value of a record as text, in the order of its attributes; booleans say nothing by themselves."""
    for slug, value in attributes.items():
        attribute = definition.attributes.get(slug)
        if attribute is None or attribute.type == "boolean":
            continue
        for item in items_of(value):
            text = text_of(attribute, item)
            if text:
                yield attribute, text


def key_of(attribute: Attribute, item: Any) -> str:
    """Return what two equal values have in common, whatever their spelling."""
    if attribute.type == "select":
        return str(item)
    text = text_of(attribute, item).strip()
    if attribute.type in ("email", "domain"):
        return text.lower()
    if attribute.type == "phone":
        return "".join(character for character in text if character.isdigit())
    if attribute.type == "number":
        return repr(float(item)) if abs(item) < 2**53 else str(int(item))
    return text
