"""SQLite: one table, whose rows and the note of how far it is are committed together."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ..sinks import Layout, Sink, open_part, synced
from .columns import EXTRA
from .tables import Sheet

__all__ = ["SqliteSink"]

TABLE = "records"
"""The table of an exported database."""
_NOTE = "_export"
_CHUNK = 200
_TYPES = {"text": "TEXT", "json": "TEXT", "number": "NUMERIC", "whole": "INTEGER", "boolean": "BOOLEAN", "time": "TEXT"}
_MOST_COLUMNS = 1990


class SqliteSink(Sink):
    """A database with the table `records`, keyed by `id`."""

    _connection: sqlite3.Connection | None = None
    _layout = Layout()
    _insert = ""

    def _begin(self, layout: Layout, kept: dict[str, int] | None) -> bool:
        # A table holds no more columns than this; the attributes beyond them are kept in the last one.
        self._layout = msgspec.structs.replace(layout, columns=layout.columns[:_MOST_COLUMNS])
        if kept is None:
            open_part(self.paths.part, truncate=0).close()
        connection = self._opened()
        columns = Sheet(self._layout.columns).columns
        names = [*(_quoted(column.name) for column in columns), EXTRA]
        self._insert = f"INSERT OR IGNORE INTO {TABLE} VALUES ({', '.join('?' * len(names))})"  # noqa: S608
        if kept is None:
            types = [*("TEXT" if column.many else _TYPES[column.kind] for column in columns), "TEXT"]
            types[0] = "TEXT PRIMARY KEY NOT NULL"
            shape = ", ".join(f"{name} {kind}" for name, kind in zip(names, types, strict=True))
            connection.execute(f"CREATE TABLE {TABLE} ({shape})")
            connection.execute(f"CREATE TABLE {_NOTE} (checkpoint BLOB)")
        connection.execute("BEGIN")
        return True

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self.paths.part, isolation_level=None, check_same_thread=False)
            self._connection = connection
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
        return self._connection

    def write(self, pages: list[Any]) -> int:
        """Add pages of rows; return how many there were."""
        assert self._connection is not None
        before = self._connection.total_changes
        for page in pages:
            sheet = Sheet(self._layout.columns, self._layout.structured, texts=True).take(page)
            self.bad.extend(sheet.bad)
            rows = list(zip(*sheet.values, sheet.extra_texts(), strict=True))
            for start in range(0, len(rows), _CHUNK):
                self._connection.executemany(self._insert, rows[start : start + _CHUNK])
                time.sleep(0)
        return self._connection.total_changes - before

    def mark(self, force: bool) -> dict[str, int] | None:
        """Return that this is a good moment; `save` commits."""
        return {}

    def load(self) -> bytes | None:
        """Return the checkpoint that was committed with the rows."""
        if not self.paths.part.is_file():
            return None
        open_part(self.paths.part, truncate=None).close()  # refuses a link
        try:
            found = self._opened().execute(f"SELECT checkpoint FROM {_NOTE}").fetchone()  # noqa: S608
        except sqlite3.DatabaseError:
            self.close()
            return None
        return None if found is None else found[0]

    def save(self, checkpoint: bytes) -> None:
        """Commit the rows and the checkpoint."""
        assert self._connection is not None
        self._connection.execute(f"DELETE FROM {_NOTE}")  # noqa: S608
        self._connection.execute(f"INSERT INTO {_NOTE} VALUES (?)", (checkpoint,))  # noqa: S608
        self._connection.execute("COMMIT")
        self._connection.execute("BEGIN")

    def finish(self) -> Path:
        """Complete the database, and return its name as it is now."""
        connection = self._connection
        assert connection is not None
        connection.execute(f"DROP TABLE {_NOTE}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()
        self._connection = None
        with open_part(self.paths.part, truncate=None) as file:
            synced(file)
        return self.paths.part

    def close(self) -> None:
        """Let go of the database; what was not committed is undone."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def discard(self) -> None:
        """Remove whatever earlier runs left."""
        self.close()
        super().discard()
        part = os.fspath(self.paths.part)
        self.paths.remove(Path(f"{part}-wal"), Path(f"{part}-shm"))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
