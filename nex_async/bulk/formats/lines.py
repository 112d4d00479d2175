"""Pages into lines: each row's own JSON as the server sent it, with the id that tells rows apart."""

from __future__ import annotations

import base64
import re
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from ...errors import DecodeError
from ...models.base import Listing, Model, Rows, decode

__all__ = ["BadRow", "Line", "Lines", "bad_line", "is_text"]

_ID_FIRST = re.compile(rb'\{"id":"([0-9A-Za-z_\-]+)"').match


class Line(msgspec.Struct, gc=False):
    """A row as its own JSON, without line breaks; `index` is its place on its page."""

    id: str
    index: int
    raw: Raw | bytes


class BadRow(NamedTuple):
    """A row that cannot be used: its place in the listing, its bytes, and what is wrong with it."""

    position: int
    raw: bytes
    problem: str


class BadLines(Rows[Line]):
    """The rows of a page some of which cannot be used."""

    __slots__ = ("bad",)

    def __init__(self, rows: list[Line], errors: list[DecodeError], listing: Listing[Any], bad: list[BadRow]) -> None:
        super().__init__(rows, errors, listing)
        self.bad: list[BadRow] = bad
        """Their `position` is still their place on the page."""


class _Key(Model):
    id: str


class Lines:
    """Decodes pages into lines."""

    def __init__(self) -> None:
        listing: Any = Listing
        self._decode = msgspec.json.Decoder(listing[Raw]).decode

    def decode(self, data: bytes) -> Rows[Line]:
        """Return the rows of a page as lines. Raises `DecodeError` when the reply as a whole is no listing."""
        listing, raws = self._split(data)
        if b"\n" in data or b"\r" in data or not is_text(data):
            return _one_by_one(listing, raws)
        try:
            ids = [_ID_FIRST(raw)[1].decode() for raw in raws]  # type: ignore[index]
        except TypeError:  # the id does not come first, or is none
            return _one_by_one(listing, raws)
        return Rows(list(map(Line, ids, range(len(ids)), raws)), [], listing)

    def page(self, position: int, rows: list[Line]) -> list[Raw | bytes]:
        """Return the rows of a page as a file takes them."""
        return [row.raw for row in rows]

    def _split(self, data: bytes) -> tuple[Listing[Raw], list[Raw]]:
        listing: Listing[Raw] | None = None
        try:
            listing = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        if listing is None:
            if data.lstrip().startswith((b"[", b"null")):
                rows: list[Raw] = decode(list[Raw] | None, data) or []  # type: ignore[arg-type]
                return Listing(), rows
            listing = decode(Listing[Raw], data)
        found = listing.data if listing.data is not None else listing.items
        return listing, found or []


def is_text(data: bytes) -> bool:
    """Return whether bytes are valid UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _one_by_one(listing: Listing[Any], raws: list[Raw]) -> Rows[Line]:
    rows: list[Line] = []
    errors: list[DecodeError] = []
    bad: list[BadRow] = []
    for index, raw in enumerate(raws):
        content = bytes(raw)
        try:
            if not is_text(content):
                raise DecodeError("the row is not valid UTF-8", raw=content)
            key = decode(_Key, raw).id
            if b"\n" in content or b"\r" in content:
                content = msgspec.json.format(content, indent=-1)
        except DecodeError as error:
            error.path = f"$.data[{index}]{error.path[1:]}"
            bad.append(BadRow(index, content, f"{error.message} at {error.path}"))
            errors.append(error.with_traceback(None))
        else:
            rows.append(Line(key, index, content))
    return BadLines(rows, errors, listing, bad)


def bad_line(row: BadRow) -> bytes:
    """Return a row that cannot be used as a line of the file beside the export."""
    shown: dict[str, Any] = {"position": row.position, "error": row.problem}
    try:
        shown["raw"] = row.raw.decode()
    except UnicodeDecodeError:
        shown["raw_base64"] = base64.b64encode(row.raw).decode()
    return msgspec.json.encode(shown) + b"\n"
