"""The mirror's file: its tables, and every change to them: jobs for the database's thread, each a transaction."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from ...errors import CheckpointError, TenantMismatch
from ...models import Attribute
from ...models.base import Model, parse_timestamp
from .values import Column, Stored, column_type, free_name, read_attributes, shape_of, storable

__all__ = [
    "Applied",
    "Row",
    "Seen",
    "State",
    "Table",
    "apply_rows",
    "bind",
    "check_rows",
    "delete_missing",
    "delete_rows",
    "fill_columns",
    "known_definitions",
    "last_row",
    "missing_rows",
    "open_file",
    "open_table",
    "parents",
    "quoted",
    "save_state",
    "schema_version",
]

Kind: TypeAlias = Literal["object", "list"]
Led: TypeAlias = "Callable[[str, int | None], bool]"
"""Whether a page may begin with this row, by its id and its number in the table (None: it is not in there)."""

_log = logging.getLogger("nex_async.bulk")

_APPLICATION = 0x6E65786D
_VERSION = 1
_OWN_TABLES = ("relationships", "relationship_definitions")
_OWN_COLUMNS = ("id", "created_at", "updated_at", "_attributes", "_rowid_")
_MOST_COLUMNS = 900
"""So many columns every build of SQLite can write at once; what is beyond them is in `_attributes` alone."""
_SCANNED = 5000
_FILLED = 500
_SCHEMA = """
CREATE TABLE _nex_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE _nex_tables (
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, definition_id TEXT, state TEXT NOT NULL, UNIQUE (kind, key)
) WITHOUT ROWID;
CREATE TABLE _nex_columns (
  table_name TEXT NOT NULL, slug TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, many INTEGER NOT NULL,
  filled INTEGER NOT NULL, PRIMARY KEY (table_name, slug)
) WITHOUT ROWID;
CREATE TABLE relationship_definitions (
  id TEXT PRIMARY KEY, type TEXT, entity_definition_1_id TEXT, entity_definition_2_id TEXT, entity_1_to_2_predicate TEXT,
  entity_2_to_1_predicate TEXT, created_at TEXT
);
CREATE TABLE relationships (id TEXT PRIMARY KEY, definition_id TEXT, source TEXT, target TEXT, label TEXT)
"""


def _no_attributes() -> msgspec.Raw:
    return msgspec.Raw(b"{}")


class Row(Model, gc=False):
    """A record or list member, its attributes still as they came."""

    id: str
    workspace_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    attributes: msgspec.Raw = msgspec.field(default_factory=_no_attributes)


class State(msgspec.Struct):
    """How far a table has come; it is kept in the transaction of the rows it speaks of."""

    phase: Literal["reading", "checking", "kept"] = "reading"
    """First everything is read; if rows may have slipped through meanwhile, it is checked; then it is kept in step."""
    offset: int = 0
    """Where the first reading goes on."""
    watermark: int | None = None
    """The newest `updated_at` known, in microseconds since 1970 by the server's clock."""
    since: float = 0.0
    """When that was first seen, by our own clock."""
    settled: bool = False
    """Whether nothing that old can come any more."""
    sorts: bool | None = None
    """Whether the server heeds the order it is asked for, as far as that could be seen."""
    filled: int | None = None
    """Up to which row new columns are filled; None when all are."""
    parent: str | None = None
    """The slug of the object a list is of."""


class Seen:
    """Which rows a pass has met: a bit for each, so that a million take 125 kB."""

    __slots__ = ("_bits", "count")

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count: int = 0

    def __contains__(self, number: int) -> bool:
        place = number >> 3
        return place < len(self._bits) and bool(self._bits[place] >> (number & 7) & 1)

    def add(self, number: int) -> None:
        """Note a row by its number in the table."""
        if number in self:
            return
        place = number >> 3
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1024 - len(self._bits)))
        self._bits[place] |= 1 << (number & 7)
        self.count += 1


@dataclass(slots=True)
class Table:
    """A table, and the SQL that works on it."""

    name: str
    kind: Kind
    key: str
    """The slug of an object, the id of a list."""
    definition_id: str | None
    state: State
    columns: list[Column] = field(default_factory=list)

    @property
    def quoted(self) -> str:
        """The name as SQL has it."""
        return quoted(self.name)


class Applied(NamedTuple):
    """What a page of rows did to its table."""

    inserted: int
    updated: int


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _sql(template: str, table: str, **parts: str) -> str:
    return template.format(table=quoted(table), **parts)


# ---- the file and its tables ----------------------------------------------------------------------------------------


def open_file(connection: sqlite3.Connection, path: str, place: str) -> str | None:
    """See that the file is a mirror of this `place`, make it one if it is new; return its workspace's id if known.

    Raises `CheckpointError`, `TenantMismatch`.
    """
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("INSERT INTO _nex_meta VALUES ('place', ?)", (place,))
        return None
    if application != _APPLICATION:
        raise CheckpointError(f"{path!r} is a database of another kind, not a mirror")
    if version != _VERSION:
        raise CheckpointError(f"{path!r} was made by another version of the mirror ({version}, this one knows {_VERSION})")
    meta = dict(connection.execute("SELECT name, value FROM _nex_meta"))
    if meta.get("place") != place:
        raise TenantMismatch(f"{path!r} mirrors {meta.get('place')}, not {place}")
    workspace: str | None = meta.get("workspace")
    return workspace


def bind(connection: sqlite3.Connection, workspace: str) -> None:
    """Note the workspace the file belongs to."""
    connection.execute("INSERT OR REPLACE INTO _nex_meta VALUES ('workspace', ?)", (workspace,))


def known_definitions(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Return the ids of the definitions behind the tables, by kind and key."""
    rows = connection.execute("SELECT kind, key, definition_id FROM _nex_tables WHERE definition_id IS NOT NULL")
    return {(kind, key): definition_id for kind, key, definition_id in rows}


def parents(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the slugs of the objects that lists are of, by the lists' ids."""
    rows = connection.execute("SELECT key, state FROM _nex_tables WHERE kind = 'list'").fetchall()
    found = {key: msgspec.json.decode(state, type=State).parent for key, state in rows}
    return {key: parent for key, parent in found.items() if parent is not None}


def open_table(
    connection: sqlite3.Connection,
    kind: Kind,
    key: str,
    definition_id: str | None,
    name: str,
    attributes: Iterable[Attribute],
    parent: str | None,
) -> Table:
    """Return the table of an object or list, made if it is new, with a column for each attribute."""
    row = connection.execute("SELECT name, state FROM _nex_tables WHERE kind = ? AND key = ?", (kind, key)).fetchone()
    if row is None:
        table = _create_table(connection, kind, key, definition_id, name)
    else:
        table = Table(row[0], kind, key, definition_id, msgspec.json.decode(row[1], type=State))
        connection.execute("UPDATE _nex_tables SET definition_id = ? WHERE name = ?", (definition_id, table.name))
    table.state.parent = parent or table.state.parent
    _add_columns(connection, table, attributes)
    save_state(connection, table)
    return table


def _create_table(connection: sqlite3.Connection, kind: Kind, key: str, definition_id: str | None, wanted: str) -> Table:
    taken = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    if wanted.lower().startswith(("sqlite_", "_nex_")):
        wanted = f"x_{wanted}"
    table = Table(free_name(wanted, [*taken, *_OWN_TABLES]), kind, key, definition_id, State())
    connection.execute(
        _sql("CREATE TABLE {table} (id TEXT PRIMARY KEY, created_at TEXT, updated_at TEXT, _attributes TEXT)", table.name)
    )
    connection.execute(
        "INSERT INTO _nex_tables VALUES (?, ?, ?, ?, ?)", (table.name, kind, key, definition_id, _encoded(table.state))
    )
    return table


def _add_columns(connection: sqlite3.Connection, table: Table, attributes: Iterable[Attribute]) -> None:
    """Give each attribute its column; one that is new, or another than it was, is filled from what is stored."""
    stored = connection.execute(
        "SELECT slug, name, kind, many FROM _nex_columns WHERE table_name = ?", (table.name,)
    ).fetchall()
    known = {slug: Column(slug, name, kind, bool(many)) for slug, name, kind, many in stored}
    has_rows = connection.execute(_sql("SELECT 1 FROM {table} LIMIT 1", table.name)).fetchone() is not None
    for attribute in attributes:
        if not attribute.slug:
            continue
        kind, many, whole = shape_of(attribute)
        column = known.get(attribute.slug)
        if column is not None and (column.kind, column.many) == (kind, many):
            continue
        if column is None:
            if len(known) >= _MOST_COLUMNS:
                template = "%s has more attributes than a table can have columns"
                _log.warning(template, table.name, extra={"nex_table": table.name})
                break
            name = free_name(attribute.slug, [*_OWN_COLUMNS, *(each.name for each in known.values())])
            definition = f"{quoted(name)} {column_type(kind, many, whole)}".rstrip()
            connection.execute(_sql("ALTER TABLE {table} ADD COLUMN {column}", table.name, column=definition))
        else:
            name = column.name
        known[attribute.slug] = Column(attribute.slug, name, kind, many)
        connection.execute(
            "INSERT OR REPLACE INTO _nex_columns VALUES (?, ?, ?, ?, ?, ?)",
            (table.name, attribute.slug, name, kind, many, not has_rows),
        )
        if has_rows:
            table.state.filled = 0
    table.columns = list(known.values())


def save_state(connection: sqlite3.Connection, table: Table) -> None:
    """Keep how far a table has come."""
    connection.execute("UPDATE _nex_tables SET state = ? WHERE name = ?", (_encoded(table.state), table.name))


def _encoded(state: State) -> str:
    return msgspec.json.encode(state).decode()


def fill_columns(connection: sqlite3.Connection, table: Table) -> bool:
    """Fill new columns of the next few rows; return whether rows are left."""
    rows = connection.execute("SELECT slug FROM _nex_columns WHERE table_name = ? AND NOT filled", (table.name,))
    wanted = {slug for (slug,) in rows}
    columns = [column for column in table.columns if column.slug in wanted]
    query = _sql("SELECT _rowid_, _attributes FROM {table} WHERE _rowid_ > ? ORDER BY _rowid_ LIMIT ?", table.name)
    found = connection.execute(query, (table.state.filled or 0, _FILLED)).fetchall()
    if found and columns:
        assignments = ", ".join(f"{quoted(column.name)} = ?" for column in columns)
        update = _sql("UPDATE {table} SET {what} WHERE _rowid_ = ?", table.name, what=assignments)
        connection.executemany(update, [(*_values(columns, text), number) for number, text in found])
    table.state.filled = found[-1][0] if found else None
    if not found:
        connection.execute("UPDATE _nex_columns SET filled = 1 WHERE table_name = ?", (table.name,))
    save_state(connection, table)
    return bool(found)


def _values(columns: Sequence[Column], text: str) -> list[Stored]:
    held = read_attributes(text)
    return [storable(column, held.get(column.slug)) for column in columns]


# ---- rows -----------------------------------------------------------------------------------------------------------


def apply_rows(
    connection: sqlite3.Connection,
    table: Table,
    rows: Sequence[Row],
    seen: Seen,
    is_led: Led | None = None,
    state: State | None = None,
) -> Applied | None:
    """Write the rows that are new or other than before, note all as seen, and keep `state`.

    With `is_led`, a page is refused whose first row does not pass it: then nothing is written, and None returned.
    """
    find = _sql("SELECT _rowid_, created_at, updated_at, _attributes FROM {table} WHERE id = ?", table.name)
    if is_led is not None and not _leads(connection, find, rows, is_led):
        return None
    names = ["id", "created_at", "updated_at", "_attributes", *(quoted(column.name) for column in table.columns)]
    marks = ", ".join("?" * len(names))
    insert = _sql("INSERT INTO {table} ({names}) VALUES ({marks})", table.name, names=", ".join(names), marks=marks)
    assignments = ", ".join(f"{name} = ?" for name in names[1:])
    update = _sql("UPDATE {table} SET {what} WHERE _rowid_ = ?", table.name, what=assignments)
    inserted = updated = 0
    for row in rows:
        text = _text_of(row.attributes)
        known = connection.execute(find, (row.id,)).fetchone()
        if known is not None and known[1:] == (row.created_at, row.updated_at, text):
            seen.add(known[0])
            continue
        values = (row.id, row.created_at, row.updated_at, text, *_values(table.columns, text))
        if known is None:
            seen.add(connection.execute(insert, values).lastrowid or 0)
            inserted += 1
        else:
            connection.execute(update, (*values[1:], known[0]))
            seen.add(known[0])
            updated += 1
    if state is not None:
        table.state = state
        save_state(connection, table)
    return Applied(inserted, updated)


def _leads(connection: sqlite3.Connection, find: str, rows: Sequence[Row], is_led: Led) -> bool:
    if not rows:
        return False
    known = connection.execute(find, (rows[0].id,)).fetchone()
    return is_led(rows[0].id, None if known is None else known[0])


def _text_of(raw: msgspec.Raw) -> str:
    data = bytes(raw)
    return "{}" if data == b"null" else data.decode("utf-8", "replace")


def check_rows(
    connection: sqlite3.Connection, table: Table, rows: Sequence[Row], seen: Seen, is_led: Led | None = None
) -> tuple[list[str], list[str]] | None:
    """Note rows as seen; return the ids of those that are not in the table, and of those that have changed since.

    None as in `apply_rows`.
    """
    find = _sql("SELECT _rowid_, updated_at FROM {table} WHERE id = ?", table.name)
    if is_led is not None and not _leads(connection, find, rows, is_led):
        return None
    unknown, stale = list[str](), list[str]()
    for row in rows:
        known = connection.execute(find, (row.id,)).fetchone()
        if known is None:
            unknown.append(row.id)
            continue
        seen.add(known[0])
        if row.updated_at not in (None, known[1]) and parse_timestamp(row.updated_at) != parse_timestamp(known[1]):
            stale.append(row.id)
    return unknown, stale


def schema_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when rows may have got other numbers (after a VACUUM), or tables other columns."""
    version: int = connection.execute("PRAGMA schema_version").fetchone()[0]
    return version


def last_row(connection: sqlite3.Connection, table: Table) -> int:
    """Return the number of the last row, 0 for an empty table."""
    found: int | None = connection.execute(_sql("SELECT max(_rowid_) FROM {table}", table.name)).fetchone()[0]
    return found or 0


def _scan(connection: sqlite3.Connection, table: Table, seen: Seen, after: int, until: int) -> tuple[list[Any], int]:
    query = _sql("SELECT _rowid_, id FROM {table} WHERE _rowid_ > ? AND _rowid_ <= ? ORDER BY _rowid_ LIMIT ?", table.name)
    rows = connection.execute(query, (after, until, _SCANNED)).fetchall()
    return [row for row in rows if row[0] not in seen], rows[-1][0] if len(rows) == _SCANNED else until


def missing_rows(connection: sqlite3.Connection, table: Table, seen: Seen, after: int, until: int) -> tuple[list[str], int]:
    """Return the ids of rows that were not seen among the next few thousand, and the number of the last looked at."""
    missing, last = _scan(connection, table, seen, after, until)
    return [row[1] for row in missing], last


def delete_missing(connection: sqlite3.Connection, table: Table, seen: Seen, after: int, until: int) -> tuple[int, int]:
    """Delete the rows that were not seen among the next few thousand; return how many, and the last looked at."""
    missing, last = _scan(connection, table, seen, after, until)
    connection.executemany(_sql("DELETE FROM {table} WHERE _rowid_ = ?", table.name), [(row[0],) for row in missing])
    return len(missing), last


def delete_rows(connection: sqlite3.Connection, table: Table, ids: Sequence[str]) -> int:
    """Delete rows by their ids; return how many there were."""
    statement = _sql("DELETE FROM {table} WHERE id = ?", table.name)
    return sum(connection.execute(statement, (one,)).rowcount for one in ids)
