"""One timer for the deadlines of every call on a loop: cheaper than a timer for each, and as exact."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import Any

__all__ = ["Sweeper", "clock_of"]


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return what tells the loop's time, at least cost: asyncio's own loops go by the system's monotonic clock."""
    own = getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time
    return time.monotonic if own else loop.time


# Python 3.11 counts the cancellations of a task; before it, one of the user's at the very moment of ours is lost.
_cancelling: Callable[[asyncio.Task[Any]], int] = getattr(asyncio.Task, "cancelling", lambda task: 0)


class Sweeper:
    """Cancels tasks whose deadline passed. A timer stands at the earliest deadline known, which may be one of the past."""

    __slots__ = ("_armed_for", "_deadlines", "_expired", "_handle", "_loop", "clock")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.clock: Callable[[], float] = clock_of(loop)
        self._loop = loop
        self._deadlines: dict[asyncio.Task[Any], tuple[float, int]] = {}
        self._expired: dict[asyncio.Task[Any], int] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = inf

    def watch(self, task: asyncio.Task[Any], deadline: float) -> None:
        """Cancel `task` at `deadline` (the loop's time) unless it is forgotten before."""
        # A task may clean up after a cancellation it has met: that one is not to be taken for a new one.
        self._deadlines[task] = deadline, _cancelling(task)
        if deadline < self._armed_for:
            self._arm(deadline)

    def forget(self, task: asyncio.Task[Any]) -> None:
        """Let `task` be."""
        self._deadlines.pop(task, None)

    def took(self, task: asyncio.Task[Any]) -> bool:
        """Return whether a cancellation that just arrived in `task` was the sweeper's alone; ask once."""
        before = self._expired.pop(task, None)
        if before is None:
            return False
        uncancel = getattr(task, "uncancel", None)
        return uncancel is None or uncancel() <= before

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
        due = [task for task, (deadline, _) in self._deadlines.items() if deadline <= now]
        for task in due:
            self._expired[task] = self._deadlines.pop(task)[1]
            task.cancel()
        if self._deadlines:
            self._arm(min(self._deadlines.values())[0])
