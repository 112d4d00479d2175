"""How many rows are on their way at once: more while that helps, half as many when the server has had enough."""

from __future__ import annotations

from math import inf

__all__ = ["Pace"]

_START = 4
_MOST = 32
_QUIET = 1.0
"""Seconds after a cut in which further bad news belong to the same event."""


_CALM = 4.0
"""Seconds after which it is forgotten."""


class Pace:
    """A number of rows in flight that finds its own level.

    A fixed number is the level itself, left only when the server complains. Otherwise the level starts at 4 and doubles with
    every round of successes, until the time of a reply is twice the best; then it grows by one a round, up to 32. A 429 or
    a timeout halves it.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self.level: int = fixed or _START
        self._fixed = fixed is not None
        self._most = fixed or _MOST
        self._doubles = True
        self._round: list[float] = []
        self._best = inf
        self._quiet_until = -inf

    @property
    def is_growing(self) -> bool:
        """Whether it can learn from a success."""
        return not self._fixed or self.level < self._most

    def succeeded(self, seconds: float) -> bool:
        """Learn of a reply and the time it took; return whether the level has changed."""
        if not self.is_growing:
            return False
        times = self._round
        times.append(seconds)
        if len(times) < self.level:
            return False
        times.sort()
        median = times[len(times) // 2]
        times.clear()
        self._best = min(self._best, median)
        slower = not self._fixed and median > 2.0 * self._best
        if slower:
            self._doubles = False
            grown = max(1, self.level - 1) if median > 4.0 * self._best else self.level
        else:
            grown = min(self._most, self.level * 2 if self._doubles else self.level + 1)
        changed, self.level = grown != self.level, grown
        return changed

    def strained(self, now: float) -> None:
        """Learn of a 429 or a timeout at a time of the event loop."""
        self._doubles = False
        self._round.clear()
        if now >= self._quiet_until:
            self.level = max(1, self.level // 2)
            self._quiet_until = now + _QUIET

    def is_calm(self, now: float) -> bool:
        """Return whether no complaint came of late."""
        return now >= self._quiet_until + _CALM
