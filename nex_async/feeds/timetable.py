"""Timetable: when the list of insights is read next. Times are those of the event loop, in seconds."""

from __future__ import annotations

import asyncio
import random

__all__ = ["Timetable"]

EVERY = 60.0
JITTER = 0.1
DEEP_EVERY = 1800.0
APART = 0.5
"""Two sweeps that nobody asked for at once are so far apart."""
UNREADABLE_AT_MOST, REFUSED = 60.0, 600.0


class Timetable:
    """Sweeps every minute, deep ones every half hour, and whenever somebody asks for one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.failures: int = 0
        """How many sweeps in a row could not be made."""
        self._loop = loop
        self._due: set[float] = set()
        self._swept_at = 0.0
        self._deep_at = loop.time()
        self._alarm = asyncio.Event()

    def within(self, seconds: float) -> None:
        """See that a sweep begins within so many seconds, but not twice in half a second. 0 means at once, whatever was."""
        now = self._loop.time()
        if seconds == 0.0:
            self._due.add(now)
        elif self.failures:
            return  # it is tried again in its own time
        else:
            at = max(now + seconds, self._swept_at + APART)
            if any(now < due <= at for due in self._due):
                return
            self._due.add(at)
        self._alarm.set()

    async def next(self) -> bool:
        """Wait until a sweep is due; return whether it is to be a deep one."""
        while True:
            due, now = min(self._due), self._loop.time()
            if due <= now:
                break
            self._alarm.clear()
            timer = self._loop.call_at(due, self._alarm.set)
            try:
                await self._alarm.wait()
            finally:
                timer.cancel()
        self._swept_at = now
        self._due = {due for due in self._due if due > now}
        return now >= self._deep_at

    def done(self, *, deep: bool) -> None:
        """Note a sweep that was made; the next follows in a minute."""
        now = self._loop.time()
        self.failures = 0
        if deep:
            self._deep_at = now + DEEP_EVERY
        self._due = {due for due in self._due if due < now + EVERY / 2}
        self._due.add(now + EVERY * random.uniform(1 - JITTER, 1 + JITTER))

    def failed(self, *, refused: bool, after_progress: bool) -> float:
        """Note a sweep that was not finished; return in how many seconds it is tried again, unless asked for at once."""
        self.failures = 1 if after_progress else self.failures + 1
        wait = REFUSED if refused else min(UNREADABLE_AT_MOST, 2.0 ** min(self.failures, 6))
        wait *= random.uniform(0.5, 1.0)
        self._due = {self._loop.time() + wait}
        return wait
