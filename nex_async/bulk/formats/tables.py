"""Pages into columns: the usual page decodes straight into them, an unusual one value by value."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw
from msgspec.structs import astuple

from ...errors import DecodeError
from ...models import Record
from ...models.base import Listing, Rows, decode
from .columns import BASE, SLUG_IN_PATH, Column, Structured, fit
from .lines import BadRow, Line, Lines, is_text

__all__ = ["Sheet", "SheetPage", "SheetReader", "as_text", "texts_of"]

_TYPES: dict[str, Any] = {
    "text": str,
    "json": str,
    "number": Annotated[int, Meta(ge=-(2**53), le=2**53)] | float,
    "whole": Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)],
    "boolean": bool,
    "time": str,
}
_NOTHING = Raw(b"")
_BREATH = 50
"""So many rows are fitted value by value before other threads are let in."""


class _Plan:
    """How to decode pages into columns: strictly, but for the columns found to hold other things than their type."""

    def __init__(self, columns: tuple[Column, ...], loose: frozenset[int], texts: bool) -> None:
        self.loose = loose
        self.raw = frozenset(n for n, each in enumerate(columns) if (texts if each.many else each.kind == "json"))
        """Columns whose values are taken as the JSON they come in."""
        fields: list[tuple[str, Any, Any]] = []
        for number, column in enumerate(columns):
            kind: Any = _TYPES[column.kind]
            # Tuples of texts leave the garbage collector alone, which lists keep busy.
            wanted: Any = tuple.__class_getitem__((kind, ...)) if column.many else kind
            if number in self.raw:
                fields.append((f"f{number}", Raw, _NOTHING))
            else:
                fields.append((f"f{number}", Any if number in loose else wanted | None, None))
        renamed = {f"f{number}": column.slug or column.name for number, column in enumerate(columns)}
        attributes = msgspec.defstruct("Attributes", fields, rename=renamed, forbid_unknown_fields=True, gc=False)
        held: Any = attributes | None
        others = [(column.name, str | None, None) for column in BASE[1:]]
        row = msgspec.defstruct("Row", [("id", str), *others, ("attributes", held, None)], gc=False)
        listing: Any = Listing
        self.decode = msgspec.json.Decoder(listing[row]).decode
        self.empty: Any = attributes()


class SheetPage:
    """A page on its way into columns: already in columns, or lines still to be fitted value by value."""

    __slots__ = ("count", "extras", "lines", "position", "values")

    def __init__(self, position: int) -> None:
        self.position: int = position
        self.count: int = 0
        self.lines: list[Line] | None = None
        self.values: list[Sequence[Any]] = []
        self.extras: dict[int, dict[str, Any]] = {}


class SheetReader:
    """Decodes pages for columns, and learns which columns hold other things than their type says.

    With `texts`, values of several are JSON; else they are lists.
    """

    def __init__(self, columns: tuple[Column, ...], structured: Structured = "json", *, texts: bool = False) -> None:
        self._columns = columns
        self._structured: Structured = structured
        self._texts = texts
        self._places = {column.slug: number for number, column in enumerate(columns)}
        self._plan = _Plan(columns, frozenset(), texts)
        self._lines = Lines()

    def decode(self, data: bytes) -> Rows[Any]:
        """Return the rows of a page. Raises `DecodeError` when the reply as a whole is no listing."""
        while is_text(data):
            plan = self._plan
            try:
                listing = plan.decode(data)
            except msgspec.ValidationError as error:
                if not self._learn(str(error)):
                    break
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                break
            else:
                return Rows(listing.data or listing.items or [], [], listing)
        return self._lines.decode(data)

    def page(self, position: int, rows: list[Any]) -> SheetPage:
        """Return a page of rows that `decode` returned last, to be made into a sheet."""
        page = SheetPage(position)
        if rows and isinstance(rows[0], Line):
            page.lines = rows
            return page
        page.count = len(rows)
        base, fields = self._transposed(rows)
        for column, values in zip(BASE, base, strict=True):
            page.values.append(_times(values) if column.kind == "time" else values)
        for number, (column, values) in enumerate(zip(self._columns, fields, strict=True)):
            page.values.append(self._column(page, number, column, values))
        return page

    def _transposed(self, rows: list[Any]) -> tuple[Sequence[Sequence[Any]], Sequence[Sequence[Any]]]:
        """Return the values of rows by column: the record's own, and the attributes'."""
        if not rows:
            return [()] * len(BASE), [()] * len(self._columns)
        # All values of a row at once, and `zip` to turn them: a third of the time that one look at each value takes.
        *base, held = zip(*map(astuple, rows), strict=True)
        try:
            return base, list(zip(*map(astuple, held), strict=True))
        except TypeError:  # a row without attributes
            empty = self._plan.empty
            return base, list(zip(*(astuple(empty if each is None else each) for each in held), strict=True))

    def _column(self, page: SheetPage, number: int, column: Column, values: Sequence[Any]) -> Sequence[Any]:
        if number in self._plan.raw and column.many:
            return [self._several(page, row, str(raw, "utf-8"), column) for row, raw in enumerate(values)]
        if number in self._plan.raw:
            quick = self._structured == "json"
            texts = _objects(values) if quick else None
            return [_of_raw(str(raw, "utf-8"), column, quick) for raw in values] if texts is None else texts
        if number not in self._plan.loose and column.kind != "json":
            return _times(values) if column.kind == "time" and not column.many else values
        kept = []
        for row, value in enumerate(values):
            fitted, whole = fit(column, value, self._structured)
            kept.append(as_text(fitted) if self._texts and column.many else fitted)
            if not whole:
                page.extras.setdefault(row, {})[column.slug or column.name] = value
        return kept

    def _several(self, page: SheetPage, row: int, text: str, column: Column) -> str | None:
        if text[:1] == "[" and "{" not in text:
            return text
        value = msgspec.json.decode(text) if text else None
        kept, whole = fit(column, value, self._structured)
        if not whole:
            page.extras.setdefault(row, {})[column.slug or column.name] = value
        return as_text(kept)

    def _learn(self, message: str) -> bool:
        """Loosen the column a decoder complained about; return whether there was one to loosen."""
        found = SLUG_IN_PATH.search(message)
        place = None if found is None else self._places.get(found[1])
        if place is None or place in self._plan.loose:
            return False
        self._plan = _Plan(self._columns, self._plan.loose | {place}, self._texts)
        return True


def as_text(value: Any) -> str | None:
    """Return several values as JSON, None where there are none."""
    return None if value is None else msgspec.json.encode(value).decode()


def _times(values: Sequence[Any]) -> Sequence[Any]:
    return values if all(values) else [value or None for value in values]


def _objects(values: Sequence[Any]) -> Sequence[str | None] | None:
    """Return JSON objects without a type as the texts they are, None for an absent one; None if others are among them."""
    joined = b"\0".join(values).decode()  # a character that JSON does not have
    if '"type"' in joined:
        return None
    texts: list[Any] = joined.split("\0") if values else []
    objects = f"\0{joined}".count("\0{")
    if objects == len(values):
        return texts
    return [text or None for text in texts] if objects + texts.count("") == len(values) else None


def _of_raw(text: str, column: Column, quick: bool) -> str | None:
    """Return a value of any shape, as the JSON it came in, as text."""
    first = text[:1]
    if first == "{" and quick and '"type"' not in text:
        return text
    if first == '"' and quick and "\\" not in text:
        return text[1:-1]
    if not text:
        return None
    kept: str | None = fit(column, msgspec.json.decode(text), "json" if quick else "text")[0]
    return kept


def texts_of(extras: dict[int, dict[str, Any]], count: int) -> list[str | None]:
    """Return what did not fit, by row, as a JSON object or None for each of `count` rows."""
    texts: list[str | None] = [None] * count
    for row, values in extras.items():
        texts[row] = as_text(values)
    return texts


class Sheet:
    """The rows of a page as columns: the values of each, and what did not fit, by row. Made on any thread."""

    def __init__(self, columns: tuple[Column, ...], structured: Structured = "json", *, texts: bool = False) -> None:
        self.columns: tuple[Column, ...] = (*BASE, *columns)
        self.values: list[Any] = [[] for _ in self.columns]
        self.extras: dict[int, dict[str, Any]] = {}
        self.bad: list[BadRow] = []
        self.count: int = 0
        self._structured: Structured = structured
        self._texts = texts
        self._places = {column.slug: number for number, column in enumerate(columns, len(BASE))}

    def take(self, page: SheetPage) -> Sheet:
        """Take the rows of a page, and return the sheet; rows that cannot be decoded go to `bad`."""
        if page.lines is not None:
            self._add_lines(page.position, page.lines)
        else:
            self.values, self.extras, self.count = page.values, page.extras, page.count
        return self

    def extra_texts(self) -> list[str | None]:
        """Return the last column: for each row a JSON object of what did not fit, or None."""
        return texts_of(self.extras, self.count)

    def keep(self, row: int, name: str, value: Any) -> None:
        """Keep a value that has no place in its column."""
        self.extras.setdefault(row, {}).setdefault(name, value)

    def _add_lines(self, position: int, lines: list[Line]) -> None:
        for turn, line in enumerate(lines):
            if turn % _BREATH == _BREATH - 1:
                time.sleep(0)
            try:
                record = decode(Record, line.raw)
                attributes = record.attributes
            except DecodeError as error:
                self.bad.append(BadRow(position + line.index, bytes(line.raw), f"{error.message} at {error.path}"))
                continue
            self._add_record(record, attributes)

    def _add_record(self, record: Record, attributes: dict[str, Any]) -> None:
        row = self.count
        base = (record.id, record.object_id, record.type, record._created_at or None, record._updated_at or None)
        for values, value in zip(self.values, base, strict=False):
            values.append(value)
        for values in self.values[len(BASE) :]:
            values.append(None)
        for slug, value in attributes.items():
            place = self._places.get(slug)
            if place is None:
                if value is not None:
                    self.keep(row, slug, value)
                continue
            column = self.columns[place]
            kept, whole = fit(column, value, self._structured)
            self.values[place][row] = as_text(kept) if self._texts and column.many else kept
            if not whole:
                self.keep(row, slug, value)
        self.count += 1
