"""Leases: the loop's thread lives as long as a client or a pool is open, and ends with the last of them."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from ..errors import ClientClosed
from .portal import Portal

__all__ = ["Lease"]

_LAST = 5.0
"""Seconds that open clients get to close when the interpreter ends."""

_running: Portal | None = None
_leases: set[Lease] = set()
"""Those that have used the loop in this process, and were not closed."""
_lock = threading.Lock()
_abandoned: list[Portal] = []


class Lease:
    """What an open client holds of the loop, from its first call on.

    `begin` is awaited before that, `end` when it is closed; `shared` is the lease of the pool that it uses.
    """

    def __init__(
        self,
        name: str,
        end: Callable[[float], Awaitable[object]],
        *,
        begin: Callable[[], Awaitable[object]] | None = None,
        shared: Lease | None = None,
    ) -> None:
        self.closed: bool = False
        self._holds = False
        self._name = name
        self._begin = begin
        self._end = end
        self._shared = shared
        self._gate = threading.RLock()

    def running(self) -> Portal | None:
        """Return the way to the loop, if it runs for this lease too, which was not closed."""
        portal = _running
        return portal if self._holds and portal is not None and not self.closed and not portal.ended else None

    def portal(self) -> Portal:
        """Return the way to the loop, started now if need be. Raises `ClientClosed`."""
        portal = self.running() or _start(self)
        if self._begin is not None:
            with self._gate:
                if self.closed:
                    raise ClientClosed("the client is closed")
                if self._begin is not None:
                    portal.call(self._begin)
                    self._begin = None
        return portal

    def close(self, drain: float) -> None:
        """End what the lease is for, and with the last lease the loop. Idempotent; who comes second waits for the first."""
        with self._gate:
            if self.closed:
                return
            portal = self.running() or _start(self)
            portal.check()
            self.closed = True
            try:
                portal.call(partial(self._end, drain))
            finally:
                _release(self)

    def drop(self) -> None:
        """End it without waiting: nobody holds the client any more. The collector may come at any moment, on any thread."""
        portal = self.running()
        self.closed = True
        if portal is None or not portal.begin(self.wind_up):
            _leases.discard(self)
        else:
            warnings.warn(f"{self._name} was never closed; use `with`, or `close()`", ResourceWarning, stacklevel=2)

    async def wind_up(self) -> None:
        """Close on the loop."""
        try:
            await self._end(0.0)
        finally:
            _release(self)


def _start(lease: Lease) -> Portal:
    global _running
    with _lock:
        if lease.closed:
            raise ClientClosed("the client is closed")
        if _running is None or _running.ended:
            _running = Portal()
        for each in (lease, lease._shared):
            if each is not None and not each.closed:
                _leases.add(each)
                each._holds = True
        return _running


def _release(lease: Lease) -> None:
    global _running
    with _lock:
        _leases.discard(lease)
        last = None
        if not _leases:
            last, _running = _running, None
    if last is not None:
        last.stop()


# ---- the ends of processes ------------------------------------------------------------------------------------------


def _at_exit() -> None:
    """Close what was left open. Nothing here may hang: a thread that does not end in time is left to itself."""
    portal = _running
    if portal is None or portal.ended:
        return
    closing: Coroutine[Any, Any, None] = _close_all(list(_leases))
    with contextlib.suppress(Exception):
        asyncio.run_coroutine_threadsafe(closing, portal.loop).result(_LAST)
    portal.stop(1.0)


async def _close_all(leases: list[Lease]) -> None:
    for lease in leases:
        lease.closed = True
    await asyncio.gather(*(lease._end(0.0) for lease in leases), return_exceptions=True)


def _after_fork_in_child() -> None:
    """The parent's thread is not there: what is called next starts a loop for this process."""
    global _running, _lock
    if _running is not None:
        _running.forked = True
        _abandoned.append(_running)  # its loop shares descriptors with the parent's, and must not be finalised
    _running, _lock = None, threading.Lock()
    for lease in list(_leases):
        lease._gate, lease._holds = threading.RLock(), False
    _leases.clear()


# Functions registered later run earlier. The pools' own finalisers, which would find them open, are to come after ours.
weakref.finalize(Portal, bool)
atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
