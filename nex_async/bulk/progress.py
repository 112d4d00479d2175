"""How far a bulk run has come: what a `progress=` callback is told, a few times a second at most."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias

from ..errors import InvalidRequestError

__all__ = ["Meter", "OnProgress", "Progress"]

_log = logging.getLogger("nex_async.bulk")

_INTERVAL = 0.25
"""Seconds between two calls of the callback."""
_SPAN = 10.0
"""Seconds over which the rate is taken."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a bulk run stands. Counts are rows, times seconds, `rate` rows per second over the last ten seconds."""

    name: str
    """What runs, such as `upsert person`."""
    done: int
    """Rows dealt with, those that failed included, and those of earlier runs that this one goes on from."""
    failed: int
    total: int | None
    """How many there are in all, where that is known."""
    elapsed: float
    rate: float
    eta: float | None
    """Seconds to go at this rate; None while that cannot be told."""
    note: str = ""
    """What holds the run up, if anything does: a rate limit, a server that does not answer."""


OnProgress: TypeAlias = "Callable[[Progress], object]"
"""Called on the event loop; must not block. An exception in it is logged, and disturbs nothing."""


class Meter:
    """Counts for one run, and tells its callback."""

    def __init__(self, name: str, callback: OnProgress | None, total: int | None = None) -> None:
        if callback is not None and (not callable(callback) or inspect.iscoroutinefunction(callback)):
            raise InvalidRequestError("progress must be an ordinary function: it is not awaited", argument="progress")
        self.name: str = name
        self.total: int | None = total
        self.note: str = ""
        self._callback = callback
        self._began = monotonic()
        self._told = -_INTERVAL
        self._marks: deque[tuple[float, int]] = deque()

    def start(self, done: int) -> None:
        """Begin to measure; `done` rows are done already, and say nothing about the rate."""
        self._began = monotonic()
        self._marks.clear()
        self._marks.append((self._began, done))

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return monotonic() - self._began

    def tell(self, done: int, failed: int, *, final: bool = False) -> None:
        """Tell the callback, unless it was told a moment ago and this is not news that cannot wait."""
        if self._callback is None:
            return
        now = monotonic()
        if now - self._told < _INTERVAL and not final:
            return
        self._told = now
        try:
            self._callback(self.progress(done, failed))
        except Exception:
            _log.exception("a progress callback raised; the run goes on", extra={"nex_run": self.name})

    def progress(self, done: int, failed: int) -> Progress:
        """Return where the run stands."""
        now = monotonic()
        marks = self._marks
        marks.append((now, done))
        while len(marks) > 2 and marks[1][0] < now - _SPAN:
            marks.popleft()
        since, before = marks[0]
        rate = (done - before) / (now - since) if now > since else 0.0
        left = None if self.total is None else max(0, self.total - done)
        eta = None if left is None else 0.0 if not left else left / rate if rate > 0 else None
        return Progress(self.name, done, failed, self.total, now - self._began, rate, eta, self.note)
