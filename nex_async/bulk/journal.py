"""The journal of a run: how far it has come, in a file that stays small for ever.

Not one line per row: the number below which every row is finished, the few finished ones above it, and those that gave
trouble. A checksum over all rows up to there tells whether the source is still the same.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from array import array
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from ..errors import CheckpointError, StorageCorrupt
from ..storage import Database, Synchronous
from .letters import DeadLetters

__all__ = ["Entry", "Journal", "Position", "Trouble"]

_APPLICATION = 0x4E455842  # "NEXB"
_VERSION = 1
_SCHEMA = """
CREATE TABLE job (
  one INTEGER PRIMARY KEY CHECK (one = 1), operation TEXT NOT NULL, job_id TEXT, run TEXT NOT NULL,
  finished INTEGER NOT NULL, clean INTEGER NOT NULL, stuck INTEGER NOT NULL, witness BLOB, home TEXT
);
CREATE TABLE position (
  one INTEGER PRIMARY KEY CHECK (one = 1), low INTEGER NOT NULL, chain INTEGER NOT NULL, done BLOB NOT NULL,
  sent BLOB NOT NULL, counts TEXT NOT NULL, written REAL NOT NULL
);
CREATE TABLE trouble (seq INTEGER PRIMARY KEY, attempts INTEGER NOT NULL, first REAL NOT NULL, error TEXT NOT NULL);
CREATE TABLE held (key BLOB PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE synced (key BLOB PRIMARY KEY, digest BLOB NOT NULL) WITHOUT ROWID;
"""


class Trouble(NamedTuple):
    """What a row that is not finished has met: failed requests, and when the first was (seconds since 1970)."""

    attempts: int
    first: float
    error: str


@dataclass
class Position:
    """Where a run stands: every row below `low` is finished, and of those above it the rows in `done`."""

    low: int = 0
    chain: int = 0
    """The checksum over all rows below `low`."""
    done: Iterable[int] = ()
    sent: Iterable[int] = ()
    """Creates whose request may have left, and whose end is not known."""
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class Opened:
    """What a journal held when it was opened."""

    run: str
    position: Position
    is_new: bool
    is_finished: bool
    trouble: dict[int, Trouble]
    written: float
    """When the journal was last written to, in seconds since 1970."""
    witness: bytes | None
    """What tells the API key the run was begun with from others."""
    home: str | None
    """The id of something that only the workspace of the run has."""
    held: dict[bytes, float]
    """Digests of keys under which a lost request may still take effect, and until when, in seconds since 1970."""


@dataclass
class Entry:
    """What is written in one transaction."""

    position: Position
    trouble: Sequence[tuple[int, Trouble]] = ()
    settled: Sequence[int] = ()
    """Rows that gave trouble, and are finished now."""
    synced: Sequence[tuple[bytes, bytes | None]] = ()
    """Keys, and the digest of what was last written under them; None for what is not known any more."""
    held: Sequence[tuple[bytes, float]] = ()
    """Digests of keys of finished rows under which a lost request may still take effect, and until when."""
    letters: Sequence[bytes] = ()
    finished: bool = False
    clean: bool = False


Recognise: TypeAlias = "Callable[[str, bytes | None, str | None], Awaitable[None]]"
"""Takes the name of a run, its witness and its home; raises `TenantMismatch` where that is another workspace."""


class Journal:
    """The file of one run at a time; the next run of the same operation may use it when the last has finished."""

    def __init__(self, path: str, letters: DeadLetters, synchronous: Synchronous = "NORMAL") -> None:
        self._path = path
        self._letters = letters
        self._database = Database(path, synchronous=synchronous)

    async def open(
        self, operation: str, job_id: str | None, *, force: bool, remembers: bool, recognise: Recognise | None = None
    ) -> Opened:
        """Open the file, and begin in it or go on.

        A journal of another operation is refused, and an unfinished one of another job, unless `force` is given. A finished
        one of the same job is returned as it is, except to a run that `remembers` what it writes: it begins again, and finds
        what has changed. A run that does not forgets what others remembered.
        Before anything is changed, `recognise` is told of what is found. Raises `CheckpointError`, `StorageError`.
        """
        await self._database.open()
        try:
            found = await self._database.run(_found)
            if found is not None and recognise is not None:
                await recognise(*found)
            return await self._database.run(self._begin, operation, job_id, force, remembers)
        except BaseException:
            await self._database.aclose()
            raise

    async def restart(self) -> str:
        """Begin anew in the same file, and return the name of the new run; nothing is known to be synced any more."""
        return await self._database.run(_restart)

    async def claim(self, witness: bytes, home: str | None) -> None:
        """Note the workspace the run belongs to."""
        await self._database.run(_claim, witness, home)

    async def begin(self) -> None:
        """Note that rows are sent from now on: should the process die, some of them may have been on their way."""
        await self._database.run(_begun)

    async def write(self, entry: Entry) -> None:
        """Keep an entry, all or nothing; its dead letters are on the disk first. Raises `StorageError`."""
        await self._database.run(self._write, entry)

    async def lookup(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the digest of what was last written under each key, where anything was."""
        return await self._database.run(_lookup, keys)

    async def aclose(self) -> None:
        """Close the file."""
        await self._database.aclose()
        self._letters.close()

    def _begin(
        self, connection: sqlite3.Connection, operation: str, job_id: str | None, force: bool, remembers: bool
    ) -> Opened:
        if not _prepare(connection, self._path):
            _insert(connection, operation, job_id)
            self._letters.open()
            return _opened(connection, is_new=True)
        row = connection.execute("SELECT operation, job_id, finished, home FROM job").fetchone()
        if row is None:
            raise StorageCorrupt(f"{self._path!r} is a journal without a job; delete it to begin anew")
        other = row[0] != operation
        if other and not force:
            raise CheckpointError(f"{self._path!r} is the journal of another run: {row[0]}; force=True begins anew")
        different = other or (job_id is not None and job_id != row[1])
        if different and not row[2] and not force and _has_begun(connection):
            raise CheckpointError(f"{self._path!r} belongs to the unfinished job {row[1]!r}; force=True begins anew")
        if different or (row[2] and remembers):
            _clear(connection, forget=other or not row[2] or not remembers)
            _insert(connection, operation, job_id, None if other else row[3])
            return _opened(connection, is_new=True)
        if not row[2]:
            _note_resumption(connection)
            if not remembers:
                connection.execute("DELETE FROM synced")
        opened = _opened(connection, is_new=False)
        # Letters are on the disk before the journal knows of them: a crash may have come between the two.
        buried = self._letters.written(opened.run, opened.position.low)
        for seq in buried.keys() - set(opened.position.done):
            opened.position.counts[buried[seq].outcome] = opened.position.counts.get(buried[seq].outcome, 0) + 1
        opened.position.done = {*opened.position.done, *buried}
        return opened

    def _write(self, connection: sqlite3.Connection, entry: Entry) -> None:
        if entry.letters:
            self._letters.append(list(entry.letters))
        position = entry.position
        connection.execute(
            "INSERT OR REPLACE INTO position (one, low, chain, done, sent, counts, written) VALUES (1, ?, ?, ?, ?, ?, ?)",
            (position.low, position.chain, _packed(position.low, position.done), _packed(position.low, position.sent),
             json.dumps(position.counts), time.time()),
        )  # fmt: skip
        if entry.trouble:
            connection.executemany(
                "INSERT OR REPLACE INTO trouble (seq, attempts, first, error) VALUES (?, ?, ?, ?)",
                [(seq, *trouble) for seq, trouble in entry.trouble],
            )
        if entry.settled:
            connection.executemany("DELETE FROM trouble WHERE seq = ?", [(seq,) for seq in entry.settled])
        if entry.held:
            connection.execute("DELETE FROM held WHERE until < ?", (time.time(),))
            connection.executemany("INSERT OR REPLACE INTO held (key, until) VALUES (?, ?)", entry.held)
        for key, digest in entry.synced:
            if digest is None:
                connection.execute("DELETE FROM synced WHERE key = ?", (key,))
            else:
                connection.execute("INSERT OR REPLACE INTO synced (key, digest) VALUES (?, ?)", (key, digest))
        if entry.finished or entry.clean:
            connection.execute("UPDATE job SET finished = ?, clean = ?, stuck = 0", (entry.finished, entry.clean))


def _prepare(connection: sqlite3.Connection, path: str) -> bool:
    """Make the tables in a new file; return whether the file held a journal. Raises `CheckpointError`."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if not application and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        for statement in filter(str.strip, _SCHEMA.split(";\n")):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={_APPLICATION}")
        connection.execute(f"PRAGMA user_version={_VERSION}")
        return False
    if application != _APPLICATION:
        raise CheckpointError(f"{path!r} is a database, but no journal of a bulk run")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != _VERSION:
        raise CheckpointError(
            f"{path!r} is a journal of version {version}, and this is version {_VERSION}; delete it to begin anew"
        )
    return True


def _found(connection: sqlite3.Connection) -> tuple[str, bytes | None, str | None] | None:
    """Return what a journal says of its workspace; None where there is no journal."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        return None
    if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
        return None
    found: tuple[str, bytes | None, str | None] | None
    found = connection.execute("SELECT run, witness, home FROM job").fetchone()
    return found


def _has_begun(connection: sqlite3.Connection) -> bool:
    """Return whether the unfinished run ever sent anything; one that was refused before stands in nobody's way."""
    (began,) = connection.execute("SELECT low OR length(done) OR NOT clean OR stuck FROM position, job").fetchone()
    return bool(began)


def _insert(connection: sqlite3.Connection, operation: str, job_id: str | None, home: str | None = None) -> None:
    run = uuid.uuid4().hex
    connection.execute("INSERT INTO job VALUES (1, ?, ?, ?, 0, 1, 0, NULL, ?)", (operation, job_id, run, home))
    connection.execute("INSERT INTO position VALUES (1, 0, 0, x'', x'', '{}', ?)", (time.time(),))


def _clear(connection: sqlite3.Connection, *, forget: bool) -> None:
    for table in ("job", "position", "trouble", *(("synced",) if forget else ())):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608, a constant


def _restart(connection: sqlite3.Connection) -> str:
    operation, job_id, home = connection.execute("SELECT operation, job_id, home FROM job").fetchone()
    # What was on its way when the last run ended is not known, so what was synced is not either.
    _clear(connection, forget=True)
    _insert(connection, operation, job_id, home)
    return str(connection.execute("SELECT run FROM job").fetchone()[0])


def _note_resumption(connection: sqlite3.Connection) -> None:
    """Count what a run that died may have sent, once.

    That is one request more for each row that had failed, and two for the row at the head if the last two runs died there:
    it may be what kills them. A run that died before it sent anything counts nothing.
    """
    clean, stuck = connection.execute("SELECT clean, stuck FROM job").fetchone()
    if clean:
        return
    (low,) = connection.execute("SELECT low FROM position").fetchone()
    connection.execute("UPDATE trouble SET attempts = attempts + 1 WHERE attempts > 0")
    if stuck == low + 1:
        connection.execute(
            "INSERT INTO trouble (seq, attempts, first, error) VALUES (?, 2, ?, 'the process ended while it was sent')"
            " ON CONFLICT (seq) DO UPDATE SET attempts = 2 WHERE attempts = 0",
            (low, time.time()),
        )
    connection.execute("UPDATE job SET clean = 1, stuck = ?", (low + 1,))


def _claim(connection: sqlite3.Connection, witness: bytes, home: str | None) -> None:
    connection.execute("UPDATE job SET witness = ?, home = coalesce(?, home)", (witness, home))


def _begun(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE job SET clean = 0")


def _opened(connection: sqlite3.Connection, *, is_new: bool) -> Opened:
    run, finished, witness, home = connection.execute("SELECT run, finished, witness, home FROM job").fetchone()
    low, chain, done, sent, counts, written = connection.execute(
        "SELECT low, chain, done, sent, counts, written FROM position"
    ).fetchone()
    trouble = {seq: Trouble(*rest) for seq, *rest in connection.execute("SELECT seq, attempts, first, error FROM trouble")}
    position = Position(low, chain, _unpacked(low, done), _unpacked(low, sent), json.loads(counts))
    held = dict(connection.execute("SELECT key, until FROM held WHERE until > ?", (time.time(),)).fetchall())
    return Opened(run, position, is_new, bool(finished), trouble, written, witness, home, held)


def _lookup(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), 500):  # SQLite binds 999 values at least
        some = keys[start : start + 500]
        marks = ",".join("?" * len(some))
        found.update(connection.execute(f"SELECT key, digest FROM synced WHERE key IN ({marks})", some).fetchall())  # noqa: S608
    return found


def _packed(low: int, numbers: Iterable[int]) -> bytes:
    return array("I", [number - low for number in numbers]).tobytes()


def _unpacked(low: int, packed: bytes) -> set[int]:
    offsets = array("I")
    offsets.frombytes(packed)
    return {low + offset for offset in offsets}
