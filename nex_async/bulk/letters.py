"""Dead letters: the rows that failed, one line of JSON each, on the disk before anything forgets them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from ..errors import APIError, CheckpointError, NexError, StorageError, StorageFull
from ..storage import remove_database
from .report import Status

__all__ = ["DeadLetter", "DeadLetters", "dead_letters"]

_NO_SPACE = {28, 122, 27}  # ENOSPC, EDQUOT, EFBIG


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row that failed, and why. Times are UTC; `record` is the row as the source gave it."""

    seq: int
    key: str
    error: str
    """The name of the error's class."""
    message: str
    record: Any = None
    status: int | None = None
    """The HTTP status, where the server answered."""
    code: int | str | None = None
    outcome: Status = "failed"
    """`failed`, or `unknown` for a create that may have taken effect."""
    attempts: int = 0
    first: datetime | None = None
    last: datetime | None = None
    run: str = ""
    """The run it failed in."""
    text: str | None = None
    """The row as Python shows it, where it cannot be written as JSON; `record` is null then."""


_BEGINNING = b'{"seq":'
_decoder = msgspec.json.Decoder(DeadLetter)


def letter_of(
    seq: int, key: str, row: Any, error: NexError, *, outcome: Status, attempts: int, first: float | None, run: str
) -> DeadLetter:
    """Return the letter of a row."""
    answered = error if isinstance(error, APIError) else None
    now = datetime.now(timezone.utc)
    return DeadLetter(
        seq=seq,
        key=key,
        error=type(error).__name__,
        message=error.message,
        record=row,
        status=answered.status if answered else None,
        code=answered.code if answered else None,
        outcome=outcome,
        attempts=attempts,
        first=now if first is None else datetime.fromtimestamp(first, timezone.utc),
        last=now,
        run=run,
    )


def line_of(letter: DeadLetter) -> bytes:
    """Return a letter as a line; a row that JSON cannot hold is written as Python shows it."""
    try:
        return msgspec.json.encode(letter) + b"\n"
    except Exception:
        shown = repr(letter.record)[: 64 * 1024]
        letter = msgspec.structs.replace(letter, record=None, text=shown.encode("utf-8", "replace").decode())
        return msgspec.json.encode(letter) + b"\n"


def dead_letters(path: str | os.PathLike[str]) -> Iterator[DeadLetter]:
    """Yield the letters of a file, in the order in which they were written. A line cut off by a crash is left out.

    Raises `StorageError` if the file cannot be read, `CheckpointError` if it holds something else.
    """
    try:
        with Path(path).open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield _read(path, line)
    except OSError as error:
        raise StorageError(f"cannot read {os.fspath(path)!r}: {error.strerror}") from error


def _read(path: str | os.PathLike[str], line: bytes) -> DeadLetter:
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise CheckpointError(f"{os.fspath(path)!r} is not a file of dead letters") from None


class DeadLetters:
    """The file that takes the letters of a run. All of it blocks, and is called on another thread than the loop's."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: int | None = None

    def open(self) -> None:
        """Open the file for appending, readable by its owner only, and cut off what a crash left half written.

        Raises `StorageError` for a file that cannot be written, that others can write, or that is a link.
        """
        if self._descriptor is not None:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            descriptor = os.open(self.path, flags, 0o600)
        except OSError as error:
            reason = "it is a symbolic link" if os.path.islink(self.path) else error.strerror  # noqa: PTH114
            raise StorageError(f"cannot write dead letters to {self.path!r}: {reason}") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or (os.name == "posix" and status.st_mode & 0o022):
            os.close(descriptor)
            raise StorageError(
                f"cannot write dead letters to {self.path!r}: it is no regular file, or others can write to it"
            )
        try:
            _cut_torn_line(descriptor, status.st_size, self.path)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def append(self, lines: list[bytes]) -> None:
        """Write lines; when this returns, they survive a power cut. Raises `StorageError`."""
        self.open()
        assert self._descriptor is not None
        size = os.fstat(self._descriptor).st_size
        data = memoryview(b"".join(lines))
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, size)  # no half a line stays, and none comes twice when this is repeated
            kind = StorageFull if error.errno in _NO_SPACE else StorageError
            raise kind(f"cannot write dead letters to {self.path!r}: {error.strerror}") from error

    def written(self, run: str, since: int) -> dict[int, DeadLetter]:
        """Return the letters of a run from row `since` on, by row: those its journal may not know of yet."""
        self.open()
        return {letter.seq: letter for letter in dead_letters(self.path) if letter.run == run and letter.seq >= since}

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _cut_torn_line(descriptor: int, size: int, path: str) -> None:
    """Cut off what a crash left half written. Raises `CheckpointError` for a file that holds anything but letters."""
    head = os.pread(descriptor, len(_BEGINNING), 0)
    if head != _BEGINNING[: len(head)]:
        raise CheckpointError(f"{path!r} is not a file of dead letters; it was left as it is")
    end = size
    while end > 0:
        start = max(0, end - 65536)
        block = os.pread(descriptor, end - start, start)
        at = block.rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end != size:
        torn = os.pread(descriptor, len(_BEGINNING), end)
        if torn != _BEGINNING[: len(torn)]:
            raise CheckpointError(f"{path!r} ends in something that is no dead letter; it was left as it is")
        os.ftruncate(descriptor, end)


class Again:
    """The rows of a file of dead letters, and what becomes of the file when they were sent again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._done = path + ".retried"
        self.journal: str = path + ".retry"
        """The journal of the run that sends them; its own letters lie beside it."""
        if Path(self._done).exists():
            self._clear()  # a crash came when all was sent

    def __iter__(self) -> Iterator[Any]:
        # To send again what may have taken effect could do so twice.
        for letter in dead_letters(self._path):
            if letter.outcome != "unknown":
                yield Lost() if letter.text is not None else letter.record

    def finish(self) -> None:
        """Put the letters of the rows that failed again in the place of all, and remove what the retry needed."""
        failed = {letter.seq: letter for letter in dead_letters(self.journal + ".dead.jsonl")}
        lines, number = [], 0
        for letter in dead_letters(self._path):
            if letter.outcome == "unknown":
                lines.append(line_of(letter))
                continue
            if number in failed:
                lines.append(line_of(_joined(letter, failed[number])))
            number += 1
        beside = DeadLetters(self._path + ".new")
        Path(beside.path).unlink(missing_ok=True)
        beside.append(lines)
        beside.close()
        Path(beside.path).replace(self._done)  # from here on all is sent, whatever happens
        self._clear()

    def _clear(self) -> None:
        remove_database(self.journal)
        Path(self.journal + ".dead.jsonl").unlink(missing_ok=True)
        Path(self._done).replace(self._path)


class Lost:
    """In the place of a row that its letter could not keep as JSON."""


def _joined(first: DeadLetter, again: DeadLetter) -> DeadLetter:
    """Return the letter of a row that failed twice: the same row, the newer reason, all attempts."""
    if first.text is not None:
        return first
    return msgspec.structs.replace(
        again, seq=first.seq, run=first.run, first=first.first, attempts=first.attempts + again.attempts
    )
