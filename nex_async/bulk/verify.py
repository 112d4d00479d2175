"""The verifying pass: the object is read back, and compared with what was written to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import msgspec

from ..models import Record
from ..models.attributes import flatten_all
from ..models.base import Rows as Page
from ..paging import Limits, Pager
from ..routes import LIST_RECORDS
from ..storage import Database
from ..transport.sender import Sender
from ..walk import Position, Source
from .operations import folded
from .report import Drift

__all__ = ["Verifier"]

_BATCH = 200
_KEPT = 1_000
"""So many differences are reported."""
_PAGE = 500


class Verifier:
    """What was written, kept in a temporary file, and the comparison with what stands there."""

    def __init__(self, sender: Sender, path: tuple[Any, ...], match_on: str) -> None:
        self._sender = sender
        self._path = path
        self._match_on = match_on
        self._database = Database("")
        self._unwritten: list[tuple[tuple[str, ...], Mapping[str, Any]]] = []

    async def open(self) -> None:
        """Make the temporary file ready."""
        await self._database.open()
        await self._database.run(_prepare)

    def note(self, keys: tuple[str, ...], row: Mapping[str, Any]) -> None:
        """Note a row that has taken effect; later ones of the same key are laid over it."""
        self._unwritten.append((keys, row))

    async def keep(self, *, all: bool = False) -> None:
        """Write down what was noted, if there is enough of it."""
        if self._unwritten and (all or len(self._unwritten) >= _BATCH):
            rows, self._unwritten = self._unwritten, []
            await self._database.run(_merge, rows)

    async def compare(self) -> list[Drift]:
        """Read the object, and return where it differs from what was written, at most a thousand."""
        await self.keep(all=True)
        drift: list[Drift] = []
        async for page in self._pager().pages():
            drift += await self._database.run(_compare, page.items, self._match_on)
            if len(drift) >= _KEPT:
                return drift[:_KEPT]
        return (drift + await self._database.run(_missing, self._match_on))[:_KEPT]

    def _pager(self) -> Pager[Record]:
        body = {"limit": _PAGE, "attributes": "all", "sort": {"attribute": "created_at", "direction": "asc"}}

        async def fetch(position: Position) -> Page[Record]:
            return await self._sender.send(LIST_RECORDS, self._path, body={**body, "offset": position})

        return Pager(Source(fetch, "offset", "verify", page_size=_PAGE), Limits(on_bad_row="skip"))

    async def aclose(self) -> None:
        """Remove the temporary file."""
        await self._database.aclose()


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE sent (key TEXT PRIMARY KEY, attributes BLOB NOT NULL, found INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID"
    )


def _merge(connection: sqlite3.Connection, rows: list[tuple[tuple[str, ...], Mapping[str, Any]]]) -> None:
    for keys, row in rows:
        texts = _texts(row)
        for key in keys:
            held = connection.execute("SELECT attributes FROM sent WHERE key = ?", (key,)).fetchone()
            merged = {**msgspec.json.decode(held[0]), **texts} if held else texts
            connection.execute(
                "INSERT OR REPLACE INTO sent (key, attributes) VALUES (?, ?)", (key, msgspec.json.encode(merged))
            )


def _compare(connection: sqlite3.Connection, records: list[Record], match_on: str) -> list[Drift]:
    drift: list[Drift] = []
    for record in records:
        found = _texts(_attributes(record))
        for key in [folded(text) for text in record.texts(match_on)]:
            held = connection.execute("SELECT attributes FROM sent WHERE key = ?", (key,)).fetchone()
            if held is None:
                continue
            connection.execute("UPDATE sent SET found = 1 WHERE key = ?", (key,))
            for slug, sent in msgspec.json.decode(held[0], type=dict[str, list[str]]).items():
                stands = found.get(slug, [])
                if not _same(sent, stands):
                    drift.append(Drift(key, slug, ", ".join(sent), ", ".join(stands)))
    return drift


def _missing(connection: sqlite3.Connection, match_on: str) -> list[Drift]:
    rows = connection.execute("SELECT key FROM sent WHERE NOT found LIMIT ?", (_KEPT,)).fetchall()
    return [Drift(key, match_on, key, None) for (key,) in rows]


def _attributes(record: Record) -> Mapping[str, Any]:
    try:
        return record.attributes
    except Exception:
        return {}


def _texts(attributes: Mapping[str, Any]) -> dict[str, list[str]]:
    return {slug: sorted(flatten_all(value)) for slug, value in attributes.items()}


def _same(sent: list[str], found: list[str]) -> bool:
    return sent == found or sorted(map(_plain, sent)) == sorted(map(_plain, found))


def _plain(text: str) -> str:
    """Return a text without what a server may normalise: case, spaces, the form of a number."""
    try:
        return repr(float(text))
    except ValueError:
        return "".join(text.casefold().split())
