"""Clock: the time of an embedded Nex, in the hands of a test."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone

__all__ = ["Clock"]


class Clock:
    """The time a server goes by: the real one until it is moved, or stopped. Any thread may read and move it."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._ahead = 0.0
        self._frozen: float | None = None

    def __call__(self) -> float:
        """Return the present in seconds since 1970."""
        with self._changing:
            return self._read()

    def _read(self) -> float:
        return time.time() + self._ahead if self._frozen is None else self._frozen

    @property
    def now(self) -> datetime:
        """The present, an aware datetime in UTC."""
        return datetime.fromtimestamp(self(), tz=timezone.utc)

    def advance(self, seconds: float | timedelta) -> None:
        """Move the time on, in seconds; a clock that stands goes on standing. Raises ValueError for a step back."""
        step = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        if not 0 <= step < float("inf"):
            raise ValueError("seconds: time goes forward only")
        with self._changing:
            if self._frozen is None:
                self._ahead += step
            else:
                self._frozen += step

    def freeze(self, at: datetime | None = None) -> None:
        """Stop the time, now or at a moment of your own, an aware datetime; it then moves by `advance` alone."""
        if at is not None and at.tzinfo is None:
            raise ValueError("at: a datetime without a time zone names no moment")
        with self._changing:
            self._frozen = self._read() if at is None else at.timestamp()

    def reset(self) -> None:
        """Go by the real time again."""
        with self._changing:
            self._ahead, self._frozen = 0.0, None

    def __repr__(self) -> str:
        return f"<Clock {self.now.isoformat()}{'' if self._frozen is None else ' frozen'}>"
