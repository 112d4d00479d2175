"""The durable side of an insight feed: what was handed out, and the inbox of what nobody has dealt with yet.

An insight enters the inbox in the same transaction as its key; it is marked before user code sees it, and leaves when every
consumer is done with it. Whatever moment a process is killed at, the next one finds each insight here or in the list.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec

from ..errors import CheckpointError
from ..models import Insight
from ..models.insights import InsightWorkspace
from ..storage import Database
from .events import Gap, InsightEvent, InsightSource, Signal
from .feed import Consumer, Wants
from .ledger import Change, Ledger
from .windows import micros, moment_of

__all__ = ["Checkpoint", "Cursor"]

_APPLICATION = 0x4E455849  # "NEXI"
_VERSION = 1
_READ_AT_ONCE = 64
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE bound (id TEXT PRIMARY KEY, created INTEGER NOT NULL);
CREATE TABLE credit (mark BLOB NOT NULL, emitted INTEGER NOT NULL);
CREATE INDEX credit_mark ON credit (mark);
CREATE TABLE recent (mark BLOB PRIMARY KEY, moment INTEGER NOT NULL);
CREATE TABLE inbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB NOT NULL, handed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE gap (
  start INTEGER NOT NULL, end INTEGER NOT NULL, reason TEXT NOT NULL, at_least INTEGER, recoverable INTEGER NOT NULL,
  told INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (start, end, reason)
);
"""
_CHANGES = {
    "bind": "INSERT OR REPLACE INTO bound (id, created) VALUES (?, ?)",
    "unbind": "DELETE FROM bound WHERE id = ? AND ? IS NULL",
    "credit": "INSERT INTO credit (mark, emitted) VALUES (?, ?)",
    "debit": "DELETE FROM credit WHERE rowid = (SELECT min(rowid) FROM credit WHERE mark = ? AND emitted = ?)",
    "recent": "INSERT OR REPLACE INTO recent (mark, moment) VALUES (?, ?)",
    "meta": "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
}


class _Kept(msgspec.Struct):
    """An insight as the inbox keeps it."""

    key: str
    source: InsightSource
    insight: Insight
    workspace: InsightWorkspace | None = None
    emitted_at: datetime | None = None


class _Loaded(NamedTuple):
    meta: dict[str, Any]
    bound: dict[str, int]
    credits: dict[bytes, tuple[int, ...]]
    recent: dict[bytes, int]
    gaps: list[tuple[Gap, bool]]
    last: int


_decoder = msgspec.json.Decoder(_Kept)


class Checkpoint:
    """The file of one feed. It belongs to one workspace, and is held by one feed at a time."""

    def __init__(self, path: str) -> None:
        self.workspace: str | None = None
        """The id of the workspace it belongs to, once known."""
        self.last: int = 0
        """The number of the newest insight in the inbox."""
        self.cursors: set[Cursor] = set()
        self.untold: list[Gap] = []
        """What may be missing, and nobody was told yet."""
        self.redelivered: int = 0
        self.is_confirmed: bool = False
        """Whether it was seen to belong to the workspace that is read; until then nothing is handed out."""
        self._database = Database(path)
        self._path = path
        self._before = 0
        self._trash: list[int] = []
        self._past = 0
        """Up to here, what no reader has open any more is dropped."""

    async def open(self) -> Ledger:
        """Open the file and return what it remembers. Raises `StorageError`, `CheckpointError`."""
        await self._database.open()
        try:
            loaded = await self._database.run(_load, self._path)
        except BaseException:
            await self._database.aclose()
            raise
        self.workspace = loaded.meta.get("workspace")
        self.untold = [gap for gap, told in loaded.gaps if not told]
        self.last = self._before = loaded.last
        floor, watermark, deep = (int(loaded.meta.get(name, 0)) for name in ("floor", "watermark", "deep"))
        ledger = Ledger(False, floor, watermark, deep, bound=loaded.bound, credits=loaded.credits, recent=loaded.recent)
        ledger.horizon = int(loaded.meta.get("horizon", 0))
        for gap, _ in loaded.gaps:
            ledger.note_gap(micros(gap.start), micros(gap.end), gap.reason)
        ledger.keeps_changes = True
        return ledger

    async def bind(self, workspace: str) -> None:
        """Note the workspace the file belongs to from now on."""
        self.workspace = workspace
        await self._database.run(_apply, [("meta", "workspace", workspace)], ())

    def confirm(self) -> None:
        """Let the readers begin."""
        if not self.is_confirmed:
            self.is_confirmed = True
            for cursor in self.cursors:
                cursor.wake(everybody=True)

    async def commit(self, changes: list[Change], events: Iterable[InsightEvent]) -> None:
        """Keep what changed, and put insights into the inbox, all or nothing. Raises `StorageError`."""
        payloads = [_encode(event) for event in events]
        if changes or payloads:
            newest = await self._database.run(_apply, changes, payloads)
            self.last = max(self.last, newest)

    def join(self, cursor: Cursor, *, late: bool) -> None:
        """Let a reader begin: at the oldest insight of the inbox, or behind the newest when others read already."""
        if late and any(other.position for other in self.cursors):
            cursor.position = self.last
        self.cursors.add(cursor)

    def leave(self, cursor: Cursor) -> None:
        """Let a reader go for good: what only it had not dealt with is dropped, if others stay."""
        self.cursors.discard(cursor)
        if self.cursors:
            self._past = min(other.position for other in self.cursors)

    async def read(self, after: int) -> list[InsightEvent]:
        """Return the next insights of the inbox."""
        rows = await self._database.run(_read, after)
        return [_decode(payload, seq, bool(handed) and seq <= self._before) for seq, payload, handed in rows]

    async def hand_out(self, seq: int) -> None:
        """Mark an insight before somebody sees it, and drop those that all are done with."""
        trash, past = self._trash, self._past
        self._trash, self._past = [], 0
        still = [number for cursor in self.cursors for number in cursor.unfinished] if past else []
        try:
            await self._database.run(_hand_out, seq, trash, past, still)
        except BaseException:
            self._trash, self._past = trash + self._trash, max(past, self._past)
            raise

    def discard(self, seq: int) -> None:
        """Note that all are done with an insight; it is dropped by the next `hand_out` or `settle`."""
        self._trash.append(seq)

    async def settle(self) -> None:
        """Drop what all are done with, now."""
        if self._trash or self._past:
            await self.hand_out(0)

    async def aclose(self) -> None:
        """Settle and close the file."""
        try:
            await self.settle()
        finally:
            await self._database.aclose()


class Cursor(Consumer[Any]):
    """A reader of the inbox: it holds nothing in memory but what it reads next, however far behind it is."""

    delivered: int

    def __init__(self, checkpoint: Checkpoint, wants: Wants) -> None:
        super().__init__()
        self.position: int = 0
        """The number of the last insight read from the inbox."""
        self._checkpoint = checkpoint
        self._wants = wants
        self._signals: deque[Signal] = deque(maxlen=1000)
        self._rows: deque[InsightEvent] = deque()
        self._open: set[int] = set()
        self._reading = asyncio.Lock()

    def adopt(self, held: Consumer[Any]) -> None:
        """Take over the signals that were held; insights are in the inbox."""
        if isinstance(held, Cursor):
            self._signals.extend(signal for signal in held._signals if self._wanted(signal))
        if held.ended:
            self.end(held.error)

    def retire(self) -> None:
        """Leave for good; see `Consumer`."""
        self._checkpoint.leave(self)

    @property
    def lag(self) -> int:
        """How many events wait to be taken."""
        return len(self._rows) + len(self._signals) + max(0, self._checkpoint.last - self.position)

    def _wanted(self, event: InsightEvent | Signal) -> bool:
        try:
            return self._wants is None or self._wants(event)
        except Exception as error:  # the reader's own filter ends the reader, and nobody else
            self.end(error)
            return False

    def offer(self, event: InsightEvent | Signal) -> None:
        """Keep a signal; an insight is in the inbox already."""
        if not isinstance(event, InsightEvent):
            if not self._wanted(event):
                return
            self._signals.append(event)
        self.wake()

    def holds(self, signal: Signal) -> bool:
        """Return whether a signal waits for this reader."""
        return signal in self._signals

    @property
    def unfinished(self) -> set[int]:
        """The numbers of the insights it has read and is not done with."""
        return self._open

    def is_past(self, seq: int) -> bool:
        """Return whether this reader is done with an insight."""
        return seq <= self.position and seq not in self._open

    async def take(self) -> InsightEvent | Signal:
        """Return the next event; an insight only after the file says that it was handed out."""
        while True:
            if self._signals:
                signal = self._signals.popleft()
                if isinstance(signal, Gap):
                    await self._tell(signal)
                self.delivered += 1
                return signal
            if self.ended:
                await self._wait()  # what was not handed out stays in the inbox
            if not self._checkpoint.is_confirmed:
                await self._wait()
                continue
            if self._rows:
                return await self._hand_out(self._rows.popleft())
            if self.position < self._checkpoint.last:
                await self._read_on()
                continue
            await self._checkpoint.settle()
            if not self._rows and not self._signals and self.position >= self._checkpoint.last:
                await self._wait()

    async def _tell(self, gap: Gap) -> None:
        told: Change = ("told", (micros(gap.start), micros(gap.end)), gap.reason)
        try:
            await self._checkpoint.commit([told], ())
        except BaseException:
            self._signals.appendleft(gap)
            raise

    async def _hand_out(self, event: InsightEvent) -> InsightEvent:
        try:
            await self._checkpoint.hand_out(event.sequence)
        except BaseException:
            self._rows.appendleft(event)
            raise
        event.acknowledge = partial(self.done, event)
        self.delivered += 1
        self._checkpoint.redelivered += event.redelivered
        return event

    async def _read_on(self) -> None:
        async with self._reading:
            if self._rows or self.position >= self._checkpoint.last:
                return
            until = self._checkpoint.last
            rows = await self._checkpoint.read(self.position)
            if not rows:
                self.position = until
            for event in rows:
                self.position = event.sequence
                if self._wanted(event) or self.ended:
                    self._open.add(event.sequence)
                    self._rows.append(event)
                else:
                    self._finish(event.sequence)
        self.wake()

    def _finish(self, seq: int) -> None:
        self._open.discard(seq)
        if all(cursor.is_past(seq) for cursor in self._checkpoint.cursors):
            self._checkpoint.discard(seq)

    def passed(self, event: InsightEvent | Signal) -> None:
        """Note an insight as dealt with; the file learns of it with the next one."""
        if isinstance(event, InsightEvent) and event.sequence in self._open:
            self._finish(event.sequence)

    async def done(self, event: InsightEvent | Signal) -> None:
        """Note an insight as dealt with, in the file."""
        self.passed(event)
        await self._checkpoint.settle()


def _encode(event: InsightEvent) -> bytes:
    return msgspec.json.encode(_Kept(event.key, event.source, event.insight, event.workspace, event.emitted_at))


def _decode(payload: bytes, seq: int, redelivered: bool) -> InsightEvent:
    kept = _decoder.decode(payload)
    return InsightEvent(
        kept.key, kept.source, kept.insight, kept.workspace, kept.emitted_at, redelivered=redelivered, sequence=seq
    )


# ---- on the database's thread ---------------------------------------------------------------------------------------


def _load(connection: sqlite3.Connection, path: str) -> _Loaded:
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not tables:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    elif application != _APPLICATION:
        raise CheckpointError(f"{path!r} is a database of another kind")
    elif version != _VERSION:
        raise CheckpointError(f"{path!r} was made by another version of the feed ({version}, this one knows {_VERSION})")
    credits: dict[bytes, tuple[int, ...]] = {}
    for mark, emitted in connection.execute("SELECT mark, emitted FROM credit ORDER BY rowid"):
        credits[mark] = (*credits.get(mark, ()), emitted)
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'inbox'").fetchone()
    return _Loaded(
        dict(connection.execute("SELECT name, value FROM meta")),
        dict(connection.execute("SELECT id, created FROM bound ORDER BY rowid")),
        credits,
        dict(connection.execute("SELECT mark, moment FROM recent ORDER BY rowid")),
        [
            (Gap(moment_of(start), moment_of(end), reason, at_least, bool(recoverable)), bool(told))
            for start, end, reason, at_least, recoverable, told in connection.execute("SELECT * FROM gap ORDER BY start")
        ],
        last[0] if last else 0,
    )


def _apply(connection: sqlite3.Connection, changes: list[Change], payloads: Iterable[bytes]) -> int:
    """Write changes and insights; return the number of the newest in the inbox."""
    for what, key, value in changes:
        if what == "forget":
            connection.execute("DELETE FROM recent WHERE mark = ?", (key,))
            connection.execute("DELETE FROM credit WHERE mark = ?", (key,))
        elif what == "gap":
            connection.execute("INSERT OR IGNORE INTO gap VALUES (?, ?, ?, ?, ?, 0)", (*key, *value))
        elif what == "told":
            connection.execute("UPDATE gap SET told = 1 WHERE start = ? AND end = ? AND reason = ?", (*key, value))
        else:
            connection.execute(_CHANGES[what], (key, value))
    last = 0
    for payload in payloads:
        last = connection.execute("INSERT INTO inbox (payload) VALUES (?)", (payload,)).lastrowid or last
    return last


def _read(connection: sqlite3.Connection, after: int) -> list[tuple[int, bytes, int]]:
    query = "SELECT seq, payload, handed FROM inbox WHERE seq > ? ORDER BY seq LIMIT ?"
    return connection.execute(query, (after, _READ_AT_ONCE)).fetchall()


def _hand_out(connection: sqlite3.Connection, seq: int, trash: list[int], past: int, still: list[int]) -> None:
    if seq:
        connection.execute("UPDATE inbox SET handed = 1 WHERE seq = ?", (seq,))
    if past:
        done = {row[0] for row in connection.execute("SELECT seq FROM inbox WHERE seq <= ?", (past,))} - set(still)
        trash = [*trash, *done]
    connection.executemany("DELETE FROM inbox WHERE seq = ?", [(one,) for one in trash])
