"""The request log: what really came over the wire, and what became of it. Keys appear as fingerprints only.

The server writes it on its own thread; any other may read it, clear it and wait for what comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from functools import lru_cache

import msgspec

__all__ = ["Entry", "RequestLog", "fingerprint"]


class Entry(msgspec.Struct, frozen=True):
    """One request to the API."""

    number: int
    """Counts from 1 over the life of the emulator."""
    time: float
    """When it came, in seconds since 1970 by the emulator's clock."""
    operation: str
    """The operationId, or "" where the path is none of the API's."""
    method: str
    path: str
    query: str
    status: int | None = None
    """None while it is being answered, 0 when the connection was broken without a status."""
    received: int = 0
    """Bytes of its body."""
    sent: int = 0
    """Bytes of the reply's body; of a stream, so far as it is over."""
    key: str = ""
    """A fingerprint of the API key, "" without one."""
    fault: str = ""
    """The kind of the fault it met."""


class RequestLog:
    """The last requests, oldest first."""

    def __init__(self, clock: Callable[[], float], size: int) -> None:
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._number = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.observers: set[Callable[[Entry], None]] = set()
        """Told of each request when it comes and when it is over."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __getitem__(self, index: int) -> Entry:
        return list(self._entries.values())[index]

    def count(self, operation: str | None = None) -> int:
        """Return how many requests of an operation there are; of all, without one."""
        return sum(operation is None or entry.operation == operation for entry in self)

    def clear(self) -> None:
        """Forget all requests; numbers go on."""
        self._entries.clear()

    async def wait_for(self, operation: str, count: int = 1) -> None:
        """Return as soon as the log holds `count` requests of an operation, answered or not."""
        while True:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)  # before the look: what comes after it wakes us
            if self.count(operation) >= count:
                return
            await waiter

    def begin(self, operation: str, method: str, path: str, query: str, key: str) -> Entry:
        """Note a request that has come."""
        self._number += 1
        entry = Entry(self._number, self._clock(), operation, method, path, query, key=fingerprint(key))
        self._entries[entry.number] = entry
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
        if self._waiting:
            self._wake()
        self._tell(entry)
        return entry

    def end(self, entry: Entry, *, status: int, received: int, sent: int, fault: str) -> None:
        """Note what became of a request."""
        if entry.number in self._entries:
            over = msgspec.structs.replace(entry, status=status, received=received, sent=sent, fault=fault)
            self._entries[entry.number] = over
            self._tell(over)

    def _tell(self, entry: Entry) -> None:
        for observer in self.observers:
            observer(entry)

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            with contextlib.suppress(RuntimeError):  # its loop was closed
                waiter.get_loop().call_soon_threadsafe(_resolve, waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


@lru_cache(maxsize=1024)
def fingerprint(key: str) -> str:
    """Return eight hex digits that tell keys apart and do not tell the key."""
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()[:8] if key else ""
