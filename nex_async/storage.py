"""SQLite on a thread of its own: the one room under checkpoints, journals, mirrors and the emulator.

Jobs are plain functions over a connection. Those that wait together share one transaction, each inside
its own savepoint: a job that raises takes back only its own work, and nobody is answered before the
commit has succeeded. The event loop never touches the file.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import sqlite3
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from nex_async.errors import StorageCorrupt, StorageError, StorageFull, StorageLocked

if sys.platform != "win32":
    import fcntl

__all__ = ["Database", "Synchronous", "remove_database"]

Synchronous = Literal["NORMAL", "FULL"]

_MEMORY = ":memory:"
_TEMPORARY = ""
"""SQLite's name for a file that has none: nobody else can open it, and it is gone with its connection."""
_BATCH_JOBS = 512
_BATCH_SECONDS = 0.02
"""A batch is closed after this many jobs or seconds, so that the first in it does not wait for all."""
_PATIENCE = 1.0
"""Seconds for which a cancelled caller stays until its file is free for others."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Database:
    """One SQLite database, used from any number of tasks.

    `path` is a file, created readable by its owner only, `":memory:"`, or `""` for a file without a name that ends with it.
    A file is held exclusively: a second `open` of it, in this or another process, raises `StorageLocked` at once. With
    `synchronous="FULL"` a commit also survives a power cut; with `"NORMAL"` it survives a killed process.
    """

    def __init__(self, path: str | os.PathLike[str], *, synchronous: Synchronous = "NORMAL") -> None:
        self.path: str = os.fspath(path)
        self._synchronous: Synchronous = synchronous
        self._worker: _Worker | None = None
        self._pid = 0

    async def __aenter__(self) -> Database:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        worker = getattr(self, "_worker", None)
        if worker is not None and not worker.closing:
            warnings.warn(f"unclosed database {self.path!r}", ResourceWarning, source=self, stacklevel=1)
            worker.close()

    async def open(self) -> None:
        """Open the database, once; a second call does nothing.

        Raises `StorageLocked` if it is held elsewhere, `StorageCorrupt` if it is no SQLite file,
        `StorageError` if it is a symbolic link, can be written by others, or cannot be opened.
        """
        if self._worker is None:
            self._worker = _Worker(self.path, self._synchronous)
            self._pid = os.getpid()
        worker = self._worker
        try:
            await asyncio.wrap_future(worker.opened)
        except BaseException:
            self._worker = None
            worker.close()
            await worker.ended(_PATIENCE)
            raise

    async def run(
        self, function: Callable[Concatenate[sqlite3.Connection, _P], _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Call `function(connection, *args)` on the database's thread and return what it returns.

        The call is one atomic unit: if it raises, its changes are undone and the error is raised here.
        The function must neither commit nor keep a cursor open. A caller that is cancelled while waiting
        no longer learns the outcome; the work itself is carried out.
        """
        worker = self._worker
        if worker is None or self._pid != os.getpid():
            raise StorageError(f"database {self.path!r} is not open in this process")
        loop = asyncio.get_running_loop()
        job = _Job(loop, function, args, kwargs)
        worker.submit(job)
        result: _T = await job.future
        return result

    async def aclose(self) -> None:
        """Finish the queued jobs, checkpoint and close; a second call only waits for the first."""
        worker = self._worker
        if worker is None or self._pid != os.getpid():
            return
        worker.close()
        try:
            await worker.ended()
        except asyncio.CancelledError:
            await worker.ended(_PATIENCE)
            raise
        worker.thread.join()


class _Job:
    """One function waiting for its turn, and where its outcome goes."""

    __slots__ = ("args", "error", "function", "future", "kwargs", "loop", "result")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.result: Any = None
        self.error: BaseException | None = None


class _Worker:
    """The thread, its queue and its connection; it knows nothing of `Database`, which may be collected."""

    def __init__(self, path: str, synchronous: Synchronous) -> None:
        self.opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.closed: concurrent.futures.Future[None] = concurrent.futures.Future()
        for future in (self.opened, self.closed):
            future.set_running_or_notify_cancel()  # a cancelled waiter must not cancel these for everybody
        self.closing = False
        self._gate = threading.Lock()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A daemon: a database left unclosed must not keep the interpreter alive.
        self.thread = threading.Thread(
            target=self._live, args=(path, synchronous), name=f"nex-async storage {path}", daemon=True
        )
        self.thread.start()

    def submit(self, job: _Job) -> None:
        with self._gate:  # nothing may be queued behind the end mark: it would wait for ever
            if self.closing:
                raise StorageError("the database is closed")
            self._queue.put(job)

    def close(self) -> None:
        with self._gate:
            if not self.closing:
                self.closing = True
                self._queue.put(None)

    async def ended(self, timeout: float | None = None) -> None:
        """Wait until the file is closed and free for others, at most `timeout` seconds."""
        closed = asyncio.wrap_future(self.closed)
        try:
            await asyncio.wait([closed], timeout=timeout)
        finally:
            closed.cancel()

    def _live(self, path: str, synchronous: Synchronous) -> None:
        lock: int | None = None
        try:
            if path not in (_MEMORY, _TEMPORARY):
                lock = _lock_file(path)
                _create_file(path)
            connection = _connect(path, synchronous)
        except BaseException as error:
            _unlock_file(lock)
            self.opened.set_exception(_translated(error))
            self.closed.set_result(None)
            return
        self.opened.set_result(None)
        try:
            self._serve(connection)
        finally:
            _close(connection)
            _unlock_file(lock)
            self.closed.set_result(None)

    def _serve(self, connection: sqlite3.Connection) -> None:
        ended = False
        while not ended:
            job = self._queue.get()
            if job is None:
                return
            done = [job]
            try:
                ended = self._run_batch(connection, done)
            except BaseException as error:
                _fail_all(done, _translated(error))
                with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                    connection.execute("ROLLBACK")
            _deliver(done)

    def _run_batch(self, connection: sqlite3.Connection, done: list[_Job]) -> bool:
        """Run the job in `done` and those that follow it closely, commit, and tell whether the end mark was met."""
        deadline = time.monotonic() + _BATCH_SECONDS
        ended = False
        connection.execute("BEGIN IMMEDIATE")
        while True:
            _run_job(connection, done[-1])
            if not connection.in_transaction:
                raise done[-1].error or StorageError("a job ended the transaction it ran in")
            if len(done) >= _BATCH_JOBS or time.monotonic() > deadline:
                break
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                ended = True
                break
            done.append(job)
        connection.execute("COMMIT")
        return ended


def _run_job(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT job")
    try:
        job.result = job.function(connection, *job.args, **job.kwargs)
    except BaseException as error:
        job.error = _translated(error)
        if connection.in_transaction:
            connection.execute("ROLLBACK TO job")
    if connection.in_transaction:
        connection.execute("RELEASE job")


def _fail_all(jobs: list[_Job], error: BaseException) -> None:
    """Fail every job of a batch whose transaction was lost; each gets an error object of its own."""
    for job in jobs:
        if job.error is None:
            kind = type(error) if isinstance(error, StorageError) else StorageError
            job.error = _caused(kind(f"the transaction was lost: {error}"), error)


def _deliver(jobs: list[_Job]) -> None:
    """Wake each event loop once, with all the outcomes that belong to it."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, own in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, own)
        except RuntimeError:  # the loop was closed; nobody is left to be told
            continue


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)


def remove_database(path: str) -> None:
    """Remove a database that is closed, with all that lies beside it. Blocks."""
    for suffix in ("", ".lock", "-wal", "-shm"):
        Path(path + suffix).unlink(missing_ok=True)


def _translated(error: BaseException) -> BaseException:
    """Give a SQLite error its name in our tree; leave every other error as it is."""
    if isinstance(error, StopIteration):
        return RuntimeError("a job raised StopIteration")  # a future refuses to hold one
    if not isinstance(error, sqlite3.Error):
        return error
    text = str(error)
    if "is full" in text:
        return _caused(StorageFull(text), error)
    if "malformed" in text or "not a database" in text:
        return _caused(StorageCorrupt(text), error)
    if "is locked" in text:
        return _caused(StorageLocked(text), error)
    return _caused(StorageError(text), error)


def _caused(error: StorageError, cause: BaseException) -> StorageError:
    error.__cause__ = cause
    return error


def _connect(path: str, synchronous: Synchronous) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=512)
    try:
        if sys.platform == "win32":  # no flock there: SQLite's own lock keeps others out
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        if path not in (_MEMORY, _TEMPORARY):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA schema_version").fetchone()  # reads the header: a foreign file fails here
    except BaseException:
        connection.close()
        raise
    return connection


def _close(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # an outside reader may hold the log; what is in it is safe there
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _open_owned(path: str) -> int:
    """Open or create `path` for its owner only; refuse links, other kinds of file, and files others can write."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        reason = "it is a symbolic link" if os.path.islink(path) else error.strerror  # noqa: PTH114, never raises
        raise StorageError(f"cannot open {path!r}: {reason}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        problem = "it is not a regular file"
    elif sys.platform != "win32" and status.st_mode & 0o022:
        problem = "others can write to it"
    else:
        return descriptor
    os.close(descriptor)
    raise StorageError(f"cannot open {path!r}: {problem}")


def _create_file(path: str) -> None:
    # Safe only under the lock: closing any descriptor of the file drops this process's SQLite locks on it.
    os.close(_open_owned(path))


def _lock_file(path: str) -> int:
    """Hold `path` for this process alone, by a lock on a file beside it; a killed process loses it by itself."""
    descriptor = _open_owned(path + ".lock")
    try:
        if sys.platform != "win32":
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StorageLocked(f"{path!r} is in use by another process") from error
    return descriptor


def _unlock_file(descriptor: int | None) -> None:
    if descriptor is None:
        return
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child holds a copy of the descriptor, and would keep the lock
    os.close(descriptor)
