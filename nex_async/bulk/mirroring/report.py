"""What one look at the server came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["MirrorReport", "TableReport"]


@dataclass(slots=True)
class TableReport:
    """What a look did to one table. Counts are rows."""

    table: str
    """The table's name in the file."""
    rows_read: int = 0
    """Rows that came, those of the sweep included."""
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unreadable: int = 0
    """Rows that could not be decoded, and are not in the table."""
    requests: int = 0
    full: bool = False
    """Whether this was the first reading of everything, or the rest of it."""
    swept: bool = False
    """Whether every row was looked for, so that what is not there any more is deleted."""
    seconds: float = 0.0

    @property
    def changed(self) -> bool:
        """Whether the table is another than before."""
        return bool(self.inserted or self.updated or self.deleted)


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """What `Mirror.sync` came to: a `TableReport` for each table by its name, and the sum of them.

    `relationships_complete` is False where the graph shows only a part of the relationships, so that none was deleted; None
    where relationships were not read.
    """

    tables: Mapping[str, TableReport] = field(default_factory=dict)
    relationships_complete: bool | None = None
    seconds: float = 0.0

    @property
    def changed(self) -> bool:
        """Whether anything in the file is other than before."""
        return any(table.changed for table in self.tables.values())

    @property
    def rows_read(self) -> int:
        """Rows that came, of all tables."""
        return sum(table.rows_read for table in self.tables.values())

    @property
    def inserted(self) -> int:
        """Rows that are new, of all tables."""
        return sum(table.inserted for table in self.tables.values())

    @property
    def updated(self) -> int:
        """Rows that changed, of all tables."""
        return sum(table.updated for table in self.tables.values())

    @property
    def deleted(self) -> int:
        """Rows that are gone, of all tables."""
        return sum(table.deleted for table in self.tables.values())

    @property
    def requests(self) -> int:
        """Calls that were made, retries not counted; the few that read the schema are in none of the tables."""
        return sum(table.requests for table in self.tables.values())
