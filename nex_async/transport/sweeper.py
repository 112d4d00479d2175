"""One timer for the deadlines of every call on a loop: cheaper than a timer for each, and as exact."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

__all__ = ["Sweeper"]


class Sweeper:
    """Cancels tasks whose deadline passed. A timer stands at the earliest deadline known, which may be one of the past."""

    __slots__ = ("_armed_for", "_deadlines", "_expired", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = inf

    def watch(self, task: asyncio.Task[Any], deadline: float) -> None:
        """Cancel `task` at `deadline` (the loop's time) unless it is forgotten before."""
        self._deadlines[task] = deadline
        if deadline < self._armed_for:
            self._arm(deadline)

    def forget(self, task: asyncio.Task[Any]) -> None:
        """Let `task` be."""
        self._deadlines.pop(task, None)

    def took(self, task: asyncio.Task[Any]) -> bool:
        """Return whether a cancellation that just arrived in `task` was the sweeper's alone; ask once."""
        if task not in self._expired:
            return False
        self._expired.discard(task)
        uncancel = getattr(task, "uncancel", None)  # Python 3.11 counts cancellations
        return uncancel is None or uncancel() == 0

    def close(self) -> None:
        """Take the timer away."""
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self, deadline: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed_for = deadline
        self._handle = self._loop.call_at(deadline, self._sweep)

    def _sweep(self) -> None:
        self._armed_for, self._handle = inf, None
        now = self._loop.time()
        due = [task for task, deadline in self._deadlines.items() if deadline <= now]
        for task in due:
            del self._deadlines[task]
            self._expired.add(task)
            task.cancel()
        if self._deadlines:
            self._arm(min(self._deadlines.values()))
