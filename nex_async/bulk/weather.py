"""Weather: tells a row that fails from a server that fails."""

from __future__ import annotations

from .row import Row

__all__ = ["Weather"]

_LEAST = 10
_FEWEST = 3


class Weather:
    """Counts failures in a row. After so many without an answer between them, the server is asked for something harmless.

    Where it does not answer that either, the failures are its own, and held against no row.
    """

    def __init__(self, attempts: int) -> None:
        self.streak: list[Row | None] = []
        """The failures since the last answer."""
        self._attempts = attempts
        """Requests that may fail for a row."""

    @property
    def is_fair(self) -> bool:
        """Whether nothing has failed since the last answer."""
        return not self.streak

    def answered(self) -> None:
        """Learn of an answer to a row, whether it pleased or not."""
        if self.streak:
            self.streak.clear()

    def failed(self, row: Row | None, in_flight: int) -> bool:
        """Learn of a failure, which counts against `row` (None: it never left); return whether to ask the server first."""
        self.streak.append(row)
        is_last = row is not None and row.attempts >= self._attempts
        least = _FEWEST if is_last else max(_LEAST, 2 * in_flight)
        return len(self.streak) >= least

    def forgive(self) -> list[Row]:
        """Take the failures since the last answer off their rows: the server was to blame. Return the rows."""
        rows = [row for row in self.streak if row is not None]
        for row in rows:
            row.attempts -= row.attempts > 0
        self.streak.clear()
        return list(dict.fromkeys(rows))
