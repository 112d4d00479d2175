"""A stand-in for `nex_async.storage.Database` that needs no thread, and whose files outlive a simulated kill."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from nex_async.errors import StorageError, StorageLocked

__all__ = ["InlineDatabase"]

T = TypeVar("T")


class InlineDatabase:
    """One database of a simulated process; the work is done at once, and the answer takes a moment."""

    ANSWER = 0.001
    files: ClassVar[dict[str, sqlite3.Connection]] = {}
    holders: ClassVar[dict[str, InlineDatabase]] = {}

    def __init__(self, path: str | os.PathLike[str], *, synchronous: str = "NORMAL") -> None:
        self.path = os.fspath(path)
        self._open = False
        self._dead = False

    @classmethod
    def crash(cls, path: str) -> None:
        """Kill whoever holds `path`: nothing of it reaches the file any more."""
        holder = cls.holders.pop(path, None)
        if holder is not None:
            holder._dead = True

    @classmethod
    def forget(cls, path: str) -> None:
        """Delete the file."""
        cls.crash(path)
        connection = cls.files.pop(path, None)
        if connection is not None:
            connection.close()

    async def __aenter__(self) -> InlineDatabase:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Open it. Raises `StorageLocked` while another lives."""
        if self._open:
            return
        if self.path in self.holders:
            raise StorageLocked(f"{self.path!r} is in use by another process")
        if self.path not in self.files:
            self.files[self.path] = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        self.holders[self.path] = self
        self._open = True
        await asyncio.sleep(self.ANSWER)

    async def run(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call `function(connection, ...)` in one transaction. Raises `StorageError` once the process is dead."""
        self._check()
        connection = self.files[self.path]
        connection.execute("BEGIN")
        try:
            result = function(connection, *args, **kwargs)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        assert connection.in_transaction, "a job ended the transaction it ran in"
        connection.execute("COMMIT")
        await asyncio.sleep(self.ANSWER)
        self._check()
        return result

    def _check(self) -> None:
        if self._dead:
            raise StorageError("the process was killed")
        if not self._open:
            raise StorageError(f"database {self.path!r} is not open in this process")

    async def aclose(self) -> None:
        """Let the next process have it."""
        self._open = False
        if self.holders.get(self.path) is self:
            del self.holders[self.path]
