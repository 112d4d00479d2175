"""Where rows go: a part file beside the target, what is known of it should the run end early, and the lock that guards it.

Everything here blocks, and runs on the export's own thread.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import msgspec

from .._logfields import fields_of
from ..errors import SourceChanged, StorageError, StorageFull, StorageLocked
from .formats.columns import Column, Structured
from .formats.lines import BadRow, bad_line

if sys.platform != "win32":
    import fcntl

__all__ = ["Checkpoint", "Desk", "Layout", "Paths", "Sink", "State", "open_part"]

_log = logging.getLogger("nex_async.bulk")

CHECKPOINT_SECONDS = 1.0
"""How often a run notes how far it has come."""
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class Paths:
    """The names of the files of one export: the target, and what stands beside it meanwhile."""

    def __init__(self, to: str | os.PathLike[str]) -> None:
        self.target: Path = Path(to)
        name = self.target.name
        self.part: Path = self.target.with_name(f"{name}.part")
        self.checkpoint: Path = self.target.with_name(f"{name}.part.json")
        self.lock: Path = self.target.with_name(f"{name}.part.lock")
        self.bad_part: Path = self.target.with_name(f"{name}.part.bad")
        self.bad: Path = self.target.with_name(f"{name}.bad.jsonl")

    def segment(self, number: int) -> Path:
        """Return the name of the `number`th piece of a file that is written in pieces."""
        return self.target.with_name(f"{self.target.name}.part.{number:04d}")

    def remove(self, *paths: Path) -> None:
        """Remove files that may be there."""
        for path in paths:
            path.unlink(missing_ok=True)


class Layout(msgspec.Struct, frozen=True):
    """How rows are laid out: the attributes' columns, and the choices of the caller."""

    columns: tuple[Column, ...] = ()
    structured: Structured = "json"
    compression: str | None = None
    level: int | None = None


class State(msgspec.Struct):
    """How far a run has come: the offset it goes on from, counts of rows, and the newest ids."""

    position: int = 0
    rows: int = 0
    bad: int = 0
    total: int | None = None
    unstable: bool = False
    tail: Sequence[str] = ()


class Checkpoint(msgspec.Struct):
    """All that a later run needs: what is exported, how, how far it came, and the sizes of the files at that moment."""

    identity: dict[str, Any]
    layout: Layout
    state: State
    kept: dict[str, int]
    bad_bytes: int = 0
    version: int = 1


class Sink(ABC):
    """A file in the making."""

    def __init__(self, paths: Paths) -> None:
        self.paths: Paths = paths
        self.bad: list[BadRow] = []
        """Rows that turned out to be bad since somebody looked last."""

    def begin(self, layout: Layout, kept: dict[str, int] | None) -> bool:
        """Open the file: anew, or as it was when `mark` returned `kept`; False where that cannot be. Raises `OSError`."""
        if kept is None:
            self.discard()
        return self._begin(layout, kept)

    @abstractmethod
    def _begin(self, layout: Layout, kept: dict[str, int] | None) -> bool: ...

    @abstractmethod
    def write(self, pages: list[Any]) -> int:
        """Add pages; return how many rows they gave."""

    @abstractmethod
    def mark(self, force: bool) -> dict[str, int] | None:
        """Make what was written last, and return what `begin` needs to know; None if this is no good moment for it."""

    @abstractmethod
    def finish(self) -> Path:
        """Complete the file, and return its name as it is now."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file as it is. Raises nothing."""

    def discard(self) -> None:
        """Remove whatever earlier runs left."""
        paths = self.paths
        paths.remove(paths.checkpoint, paths.part)

    def load(self) -> bytes | None:
        """Return the checkpoint that was saved last, if there is one."""
        try:
            return self.paths.checkpoint.read_bytes()
        except FileNotFoundError:
            return None

    def save(self, checkpoint: bytes) -> None:
        """Save a checkpoint in place of the one before."""
        fresh = self.paths.checkpoint.with_name(f"{self.paths.checkpoint.name}.new")
        with open_part(fresh, truncate=0) as file:
            file.write(checkpoint)
            synced(file)
        fresh.replace(self.paths.checkpoint)


def open_part(path: Path, *, truncate: int | None) -> BinaryIO:
    """Open or create a file to write to, cut to a size, at its end. Refuses symbolic links. Raises `OSError`."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    file = os.fdopen(descriptor, "r+b")
    if truncate is not None:
        file.truncate(truncate)
    file.seek(0, os.SEEK_END)
    return file


def synced(file: BinaryIO) -> int:
    """Bring what was written to the disk, and return the size."""
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


class Desk:
    """One run's files: locked, resumed, written, noted and put in place. Every method runs on the run's thread."""

    def __init__(self, paths: Paths, sink: Sink, identity: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
        self.paths = paths
        self.sink = sink
        self.state: State = State()
        """How far the rows handed to the file go."""
        self._identity = identity
        self._resume = resume
        self._overwrite = overwrite
        self._layout = Layout()
        self._lock: int | None = None
        self._bad: BinaryIO | None = None
        self._open = False
        self._broken = False
        self._noted = monotonic()

    def claim(self) -> Checkpoint | None:
        """Lock the target, and return what an earlier run of the same export left.

        Raises `StorageLocked`, `StorageError` where there is a file that must not be replaced, `SourceChanged` where the
        run before exported something else.
        """
        target = self.paths.target
        if target.is_dir():
            raise StorageError(f"{str(target)!r} is a directory")
        self._refuse_existing()
        self._lock = _locked(self.paths.lock)
        for path in (self.paths.part, self.paths.checkpoint, self.paths.bad_part):
            if path.is_symlink():
                raise StorageError(f"{str(path)!r} is a symbolic link")
        content = self.sink.load() if self._resume else None
        try:
            found = None if content is None else msgspec.json.decode(content, type=Checkpoint)
        except (msgspec.DecodeError, UnicodeDecodeError):
            template = "what an earlier export to %s left cannot be read; it begins anew"
            _log.warning(template, target.name, extra={"nex_file": target.name})
            return None
        if found is not None and found.identity != self._identity:
            differs = [key for key, value in self._identity.items() if found.identity.get(key) != value]
            raise SourceChanged(
                f"{str(self.paths.part)!r} belongs to another export: {', '.join(differs)} differs; resume=False begins anew"
            )
        return found

    def begin(self, layout: Layout, checkpoint: Checkpoint | None) -> State:
        """Open the files where `checkpoint` says, or anew; return where to go on."""
        self._layout = layout
        resumed = checkpoint is not None and self._bad_fits(checkpoint.bad_bytes)
        if checkpoint is not None and not (resumed and self.sink.begin(layout, checkpoint.kept)):
            name = self.paths.target.name
            template = "the files of an earlier export to %s are incomplete; it begins anew"
            _log.warning(template, name, extra={"nex_file": name})
            resumed = False
        if not resumed:
            self.paths.remove(self.paths.bad_part)
            self.sink.begin(layout, None)
        elif checkpoint is not None:
            self.state = checkpoint.state
            if checkpoint.bad_bytes:
                self._bad = open_part(self.paths.bad_part, truncate=checkpoint.bad_bytes)
            else:
                self.paths.remove(self.paths.bad_part)
        self._open = True
        self._noted = monotonic()
        return self.state

    def put(self, pages: list[Any], bad: list[BadRow], reached: State) -> State:
        """Write pages and the bad rows among them, note how far it is when that is due, and return how far it is."""
        self._broken = True  # until all of it is written
        rows = self.sink.write(pages)
        bad = bad + self.sink.bad
        self.sink.bad = []
        for row in bad:
            if self._bad is None:
                self._bad = open_part(self.paths.bad_part, truncate=0)
            self._bad.write(bad_line(row))
        self._broken = False
        reached.rows, reached.bad = self.state.rows + rows, self.state.bad + len(bad)
        self.state = reached
        if monotonic() - self._noted >= CHECKPOINT_SECONDS:
            self._note(force=False)
        return reached

    def finish(self) -> int:
        """Complete the file and put it in the target's place; return its size in bytes."""
        self._note(force=True)
        self._open = False
        made = self.sink.finish()
        self._refuse_existing()
        paths = self.paths
        made.replace(paths.target)
        if self._bad is not None:
            self._bad.close()
            paths.bad_part.replace(paths.bad)
        else:
            paths.remove(paths.bad)
        self.sink.discard()
        if sys.platform != "win32":
            directory = os.open(paths.target.parent, os.O_RDONLY)
            with contextlib.closing(_Descriptor(directory)), contextlib.suppress(OSError):
                os.fsync(directory)
        return paths.target.stat().st_size

    def leave(self) -> None:
        """Note how far it is, if the run did not end, and let go of everything. Raises nothing."""
        try:
            if self._open and not self._broken and (self.state.rows or self.state.bad):
                self._note(force=True)
        except (OSError, sqlite3.Error) as error:
            name = self.paths.target.name
            template = "how far the export to %s came could not be noted: %s"
            _log.warning(template, name, error, extra=fields_of(error, file=name))
        self.sink.close()
        if self._bad is not None:
            with contextlib.suppress(OSError):
                self._bad.close()
        with contextlib.suppress(OSError):
            if self._open and not (self.state.rows or self.state.bad):
                self.sink.discard()
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self.paths.lock.unlink()
            os.close(self._lock)
            self._lock = None

    def _note(self, *, force: bool) -> None:
        self._broken = True
        kept = self.sink.mark(force)
        if kept is not None:
            size = 0 if self._bad is None else synced(self._bad)
            found = Checkpoint(self._identity, self._layout, self.state, kept, size)
            self.sink.save(msgspec.json.encode(found))
            self._noted = monotonic()
        self._broken = False

    def _bad_fits(self, size: int) -> bool:
        path = self.paths.bad_part
        return not size or (path.is_file() and path.stat().st_size >= size)

    def _refuse_existing(self) -> None:
        if not self._overwrite and self.paths.target.exists():
            raise StorageError(f"{str(self.paths.target)!r} exists, and overwrite=False")


class _Descriptor:
    def __init__(self, number: int) -> None:
        self._number = number

    def close(self) -> None:
        os.close(self._number)


def _locked(path: Path) -> int:
    """Hold a target for this run alone, by a lock on a file beside it that a killed process loses by itself."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags, 0o666)
        if sys.platform == "win32":
            return descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The run that held it before may have removed the file just now: then this is no lock.
            if os.fstat(descriptor).st_ino == path.lstat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            raise StorageLocked(f"another export writes to {str(path)[:-10]!r}") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def translated(error: BaseException, target: Path) -> BaseException:
    """Return an error of the disk by its name in our tree, any other as it is."""
    if isinstance(error, OSError):
        number, reason = error.errno, error.strerror or str(error)
        if number == getattr(errno, "ELOOP", None):
            reason = "a file beside it is a symbolic link"
    elif isinstance(error, sqlite3.Error):
        reason = str(error)
        number = errno.ENOSPC if "is full" in reason else None
    else:
        return error
    kind = StorageFull if number in _FULL else StorageError
    made = kind(f"cannot write {str(target)!r}: {reason}")
    made.__cause__ = error
    return made
