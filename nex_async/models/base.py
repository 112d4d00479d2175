"""The ground every model stands on: timestamps that never fail a page, and a decoder that mends what it safely can."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Generic, TypeVar, get_origin, overload

import msgspec
from msgspec import inspect

from ..errors import DecodeError, printable

__all__ = ["Model", "Rows", "Timestamp", "decode", "decode_any", "decode_nothing", "decode_rows", "parse_timestamp"]

T = TypeVar("T")

_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?\s*(?:([Zz])|([+-])(\d\d):?(\d\d))?\Z"
)


def parse_timestamp(text: str | None) -> datetime | None:
    """Return the aware datetime `text` names; None for absent, empty, unreadable or Go's zero time.

    Fractions beyond microseconds are cut, never rounded up; a leap second becomes the last microsecond before it; a time
    without a zone is UTC.
    """
    if not text or not text.isascii():
        return None
    if 20 <= len(text) <= 30 and text[-1] == "Z" and text[0] != "0":  # as almost all are, with up to nine digits of a second
        short = text if len(text) < 28 else f"{text[:26]}Z" if text[26:-1].isdigit() else ""
        try:
            return msgspec.convert(short, datetime)
        except msgspec.ValidationError:
            pass
    match = _TIMESTAMP.match(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, _, sign, off_hours, off_minutes = match.groups()
    if year == "0001":
        return None
    leap = second == "60"
    micro = 999_999 if leap else int((fraction or "0")[:6].ljust(6, "0"))
    try:
        zone = timezone.utc
        if sign:
            offset = timedelta(hours=int(off_hours), minutes=int(off_minutes))
            zone = timezone(-offset if sign == "-" else offset) if offset else timezone.utc
        seconds = 59 if leap else int(second or 0)
        return datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), seconds, micro, zone)
    except ValueError:
        return None


class Timestamp:
    """An attribute that reads the raw text kept in the field `_<name>` as an aware datetime, at the moment it is asked."""

    __slots__ = ("_field",)

    def __set_name__(self, owner: type, name: str) -> None:
        self._field = "_" + name

    @overload
    def __get__(self, instance: None, owner: type) -> Timestamp: ...
    @overload
    def __get__(self, instance: object, owner: type) -> datetime | None: ...
    def __get__(self, instance: object, owner: type) -> Timestamp | datetime | None:
        if instance is None:
            return self
        return parse_timestamp(getattr(instance, self._field))


class Model(msgspec.Struct, kw_only=True):
    """A reply, or a part of one. Every field but the id may be absent or null; unknown keys are ignored."""


@lru_cache(maxsize=512)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@lru_cache(maxsize=512)
def _shape(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


_generic = msgspec.json.Decoder()
_BOM = b"\xef\xbb\xbf"
_AT = re.compile(r" - at `(.*)`\Z")


def decode(kind: type[T], data: bytes | msgspec.Raw) -> T:
    """Return `data` as `kind`.

    The fast way first; where the types disagree, once more with what can be mended mended: an integer id becomes its
    digits, null where a default exists becomes the default. Raises `DecodeError` with the JSON path of the fault.
    """
    hashable: Any = kind
    # Nothing is raised inside an `except`: msgspec's own error, whose frames hold the reply, must not come along as context.
    failure: DecodeError | None = None
    try:
        value: T = _decoder(hashable).decode(data)
        return value
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raw = bytes(data)
        if not raw.startswith(_BOM):
            failure = _decode_error(error, raw)
    if failure is not None:
        raise failure
    return _decode_mended(kind, data)


def _decode_mended(kind: type[T], data: bytes | msgspec.Raw) -> T:
    return convert(kind, decode_any(data), bytes(data))


def decode_any(data: bytes | msgspec.Raw) -> Any:
    """Return `data` as plain JSON values. Raises `DecodeError`."""
    raw = bytes(data)
    if raw.startswith(_BOM):
        raw = raw[3:]
    try:
        return _generic.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        failure = _decode_error(error, raw)
    raise failure


def convert(kind: type[T], value: Any, raw: bytes) -> T:
    """Return plain JSON values as `kind`, mended like `decode`. Raises `DecodeError`."""
    hashable: Any = kind
    try:
        return msgspec.convert(_mend(_shape(hashable), value), kind, strict=False)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        failure = _decode_error(error, raw)
    raise failure


def _decode_error(error: Exception, raw: bytes) -> DecodeError:
    if isinstance(error, RecursionError):
        return DecodeError("the reply is nested too deeply", raw=raw)
    if isinstance(error, UnicodeDecodeError):
        return DecodeError("the reply is not valid UTF-8", raw=raw)
    text = str(error)
    found = _AT.search(text)
    path = found.group(1) if found else "$"
    if not raw.strip():
        return DecodeError("the reply is empty where JSON was due", raw=raw)
    return DecodeError(f"{printable(text)}; the reply begins with {preview(raw)}", path=path, raw=raw)


def preview(raw: bytes) -> str:
    """Return the first characters of a reply, fit for a message."""
    return repr(printable(raw[:400].decode("utf-8", "replace"), 80))


def _mend(shape: inspect.Type, value: Any) -> Any:
    """Return `value` with the harmless disagreements with `shape` removed; in a caller's own type, nulls with a default."""
    mender = _MENDERS.get(type(shape))
    return value if mender is None else mender(shape, value)


def _mend_struct(shape: inspect.StructType, value: Any) -> Any:
    cls = get_origin(shape.cls) or shape.cls  # a generic struct comes as its alias
    if not isinstance(value, dict):
        return value
    ours, mended = issubclass(cls, Model), dict(value)
    for field in shape.fields:
        name = field.encode_name
        if name not in value:
            continue
        if value[name] is None and not _accepts_none(field.type):
            if not field.required:
                del mended[name]
            elif ours and isinstance(field.type, inspect.StructType):
                mended[name] = {}  # the caller's own type, of which every field may have a default
        elif ours:
            mended[name] = _mend(field.type, value[name])
    return mended


def _mend_list(shape: inspect.ListType, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [_mend(shape.item_type, item) for item in value if item is not None or _accepts_none(shape.item_type)]


def _mend_dict(shape: inspect.DictType, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    takes_none = _accepts_none(shape.value_type)
    return {key: _mend(shape.value_type, item) for key, item in value.items() if item is not None or takes_none}


def _mend_union(shape: inspect.UnionType, value: Any) -> Any:
    if value is None:
        return None
    for member in shape.types:
        if not isinstance(member, inspect.NoneType):
            value = _mend(member, value)
    return value


def _mend_str(shape: inspect.StrType, value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _mend_raw(shape: inspect.RawType, value: Any) -> Any:
    return msgspec.Raw(msgspec.json.encode(value))


_MENDERS: dict[type[inspect.Type], Callable[[Any, Any], Any]] = {
    inspect.StructType: _mend_struct,
    inspect.ListType: _mend_list,
    inspect.DictType: _mend_dict,
    inspect.UnionType: _mend_union,
    inspect.StrType: _mend_str,
    inspect.RawType: _mend_raw,
}


def _accepts_none(shape: inspect.Type) -> bool:
    if isinstance(shape, inspect.UnionType):
        return any(isinstance(member, inspect.NoneType) for member in shape.types)
    return isinstance(shape, (inspect.NoneType, inspect.AnyType, inspect.RawType))


def decode_nothing(data: bytes) -> None:
    """Accept a reply that carries nothing: no bytes, or any JSON. Raises `DecodeError` for anything else."""
    if data and data not in (b"{}", b"null"):
        decode_any(data) if data.strip() else None


class Listing(Model, Generic[T]):
    """The envelope of every listing; which of its keys the server sends depends on the operation."""

    data: list[T] | None = None
    items: list[T] | None = None
    rules: list[T] | None = None
    total: int | None = None
    limit: int | None = None
    offset: int | None = None
    has_more: bool | None = None
    next_offset: int | None = None
    has_next_page: bool | None = None
    next_cursor: str | None = None


class Rows(Generic[T]):
    """The rows of one reply: those that decoded, the errors of those that did not, and the server's paging words."""

    __slots__ = ("errors", "listing", "rows")

    def __init__(self, rows: list[T], errors: list[DecodeError], listing: Listing[Any]) -> None:
        self.rows: list[T] = rows
        self.errors: list[DecodeError] = errors
        self.listing: Listing[Any] = listing


def decode_rows(kind: Any, data: bytes) -> Rows[Any]:
    """Return the rows of a listing as `kind`: the page in one go, and row by row only when that fails.

    Accepts the rows under `data`, `items` or `rules`, or a bare array; null means none. A bad row becomes an entry of
    `.errors`. Raises `DecodeError` when the reply as a whole is no listing.
    """
    try:
        listing = _decoder(Listing[kind]).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        listing = None
    if listing is None:
        return _rows_one_by_one(kind, data)
    rows = listing.data
    return Rows(_other_rows(listing)[1] if rows is None else rows, [], listing)


def _other_rows(listing: Listing[T]) -> tuple[str, list[T]]:
    """Return the rows of a listing that has none under `data`, and where they stand."""
    if listing.items is not None:
        return "$.items", listing.items
    return "$.rules", listing.rules or []


def _rows_one_by_one(kind: Any, data: bytes) -> Rows[Any]:
    listing: Listing[msgspec.Raw]
    start = data.lstrip(_BOM + b" \t\r\n")
    if start.startswith((b"[", b"null")):
        listing, place, found = Listing(), "$", decode(list[msgspec.Raw] | None, data) or []  # type: ignore[arg-type]
    else:
        listing = decode(Listing[msgspec.Raw], data)
        place, found = ("$.data", listing.data) if listing.data is not None else _other_rows(listing)
    rows: list[Any] = []
    errors: list[DecodeError] = []
    for index, raw in enumerate(found):
        try:
            rows.append(decode(kind, raw))
        except DecodeError as error:
            error.path = f"{place}[{index}]{error.path[1:]}"
            errors.append(error.with_traceback(None))  # which would hold on to the page
    return Rows(rows, errors, listing)
