"""What every operation works on: the connection, the clock, the ids and the schema. Lives on the database's thread."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from nex_async.emulator.ids import IdIssuer
from nex_async.emulator.schema import Schema, load_schema
from nex_async.emulator.tables import largest_id
from nex_async.emulator.timestamps import MICROSECONDS

__all__ = ["Emission", "Row", "Store", "to_json"]

Row = tuple[Any, ...]

_encoder = msgspec.json.Encoder()


def to_json(value: Any) -> str:
    """Return `value` as JSON text."""
    return _encoder.encode(value).decode()


@dataclasses.dataclass(frozen=True, slots=True)
class Emission:
    """The insights one operation of the AI has made of an artifact."""

    artifact_id: int
    operation_id: int
    insight_ids: list[int]


class Store:
    """The open workspace."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float], processing_delay: float) -> None:
        self.connection = connection
        self.processing_delay: int = int(processing_delay * MICROSECONDS)
        self._clock = clock
        self._ids = IdIssuer(largest_id(connection))
        self._schema: Schema | None = None
        self.emitted: list[Emission] = []
        """The batches the operation under way makes; the stream gets them after the commit."""
        self._hidden: dict[int, Callable[[], bool]] = {}
        self.workspace_id: str = self._mark("workspace_id")
        self.token_id: str = self._mark("token_id")
        """The id of whoever writes: the API does not tell keys of a workspace apart."""
        self.origin = ""
        """Where the emulator listens, such as `http://127.0.0.1:8080`; for the addresses it hands out."""

    def now(self) -> int:
        """Return the moment, in microseconds since 1970."""
        return int(self._clock() * MICROSECONDS)

    def new_id(self) -> int:
        """Return an id larger than every id before it."""
        return self._ids.issue(self.now())

    def row(self, sql: str, *values: Any) -> Row | None:
        """Return the first row of a query."""
        found: Row | None = self.connection.execute(sql, values).fetchone()
        return found

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """Return all rows of a query."""
        return self.connection.execute(sql, values).fetchall()

    def count(self, sql: str, *values: Any) -> int:
        """Return the number a query yields."""
        return int(self.connection.execute(sql, values).fetchone()[0])

    def write(self, sql: str, *values: Any) -> int:
        """Run a statement and return how many rows it changed."""
        return self.connection.execute(sql, values).rowcount

    def hide(self, artifact_id: int, while_: Callable[[], bool]) -> None:
        """Keep the insights of an artifact out of every listing for as long as `while_` says."""
        self._hidden[artifact_id] = while_

    def hidden_condition(self, column: str) -> str:
        """Return the SQL that leaves out what is hidden; `column` holds artifact ids."""
        self._hidden = {number: while_ for number, while_ in self._hidden.items() if while_()}
        return f"{column} NOT IN ({', '.join(map(str, self._hidden))})" if self._hidden else "1"

    @property
    def schema(self) -> Schema:
        """The schema as of this transaction.

        Its version is an id and never used twice, so a change that was rolled back cannot be mistaken for a later one.
        """
        found = self.row("SELECT value FROM meta WHERE key = 'schema'")
        version = "" if found is None else found[0]
        if self._schema is None or self._schema.version != version:
            self._schema = load_schema(self.connection, version)
        return self._schema

    def schema_changed(self) -> None:
        """Tell later readers of `schema` to read it again."""
        self.write("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", str(self.new_id()))

    def _mark(self, key: str) -> str:
        found = self.row("SELECT value FROM meta WHERE key = ?", key)
        if found is not None:
            return str(found[0])
        value = str(self.new_id())
        self.write("INSERT INTO meta VALUES (?, ?)", key, value)
        return value
