"""One request as an operation sees it, and the ways to refuse it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec

from nex_async.emulator.ids import parse_id

__all__ = ["ApiError", "Call", "bad_request", "explain", "not_found"]

_T = TypeVar("_T")
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class ApiError(Exception):
    """An answer other than success: the status, the message of the envelope, further headers."""

    def __init__(
        self, status: int, message: str, headers: Mapping[str, str] | None = None, *, is_bare: bool = False
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.headers = headers
        self.is_bare = is_bare
        """Whether the body stays empty."""


def bad_request(message: str) -> ApiError:
    """Return the error for a request that cannot be right."""
    return ApiError(400, message)


def not_found(what: str, name: str) -> ApiError:
    """Return the error for a slug or an id nobody has."""
    return ApiError(404, f"{what} {name[:100]!r} not found")


class Call:
    """The path parameters, the query and the raw body of one request."""

    __slots__ = ("body", "content_type", "path", "query")

    def __init__(self, path: Mapping[str, str], query: Mapping[str, str], body: bytes) -> None:
        self.path: Mapping[str, str] = path
        self.query: Mapping[str, str] = query
        self.body: bytes = body
        self.content_type: str = "application/json"
        """Of the reply; an operation may set another."""

    def decode(self, kind: type[_T]) -> _T:
        """Read the body as `kind`, or refuse it with a message that names the field."""
        try:
            value: _T = _decoder(cast(Hashable, kind)).decode(self.body)
        except msgspec.ValidationError as error:
            raise bad_request(explain(str(error))) from None
        except (msgspec.DecodeError, UnicodeError, ValueError) as error:
            raise bad_request(f"the body is not valid JSON: {error}") from None
        except RecursionError:
            raise bad_request("the body is nested too deeply") from None
        return value

    def id(self, name: str, what: str) -> int:
        """Return the id in the path parameter `name`; an id that is no number is not found."""
        number = parse_id(self.path[name])
        if number is None:
            raise not_found(what, self.path[name])
        return number

    def integer_id(self, name: str) -> int:
        """Return the id in a path parameter published as an integer; anything else is a bad request."""
        text = self.path[name]
        if not (text.isascii() and text.isdigit()):
            raise bad_request(f"{name} must be an integer")
        number = parse_id(text)
        if number is None:
            raise not_found(name, text)
        return number

    def flag(self, name: str) -> bool | None:
        """Return a boolean of the query, or None when it is not given."""
        text = self.query.get(name)
        if text is None or text == "":
            return None
        if text not in _TRUE and text not in _FALSE:
            raise bad_request(f"{name} must be true or false")
        return text in _TRUE

    def number(self, name: str, *, default: int, low: int, high: int) -> int:
        """Return an integer of the query between `low` and `high`."""
        text = self.query.get(name)
        if text is None or text == "":
            return default
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and low <= int(text) <= high):
            raise bad_request(f"{name} must be an integer between {low} and {high}")
        return int(text)


@lru_cache(maxsize=128)
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def explain(message: str) -> str:
    """Turn "Expected `str`, got `int` - at `$.title`" into "title: expected `str`, got `int`"."""
    problem, found, place = message.rpartition(" - at `$")
    if not found:
        return message[:1].lower() + message[1:]
    return f"{place.rstrip('`').lstrip('.')}: {problem[:1].lower()}{problem[1:]}"
