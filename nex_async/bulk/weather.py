"""Weather: tells a row that fails from a server that fails."""

from __future__ import annotations

from .row import Row

__all__ = ["Weather"]

_LEAST = 10


class Weather:
    """Counts failures in a row. So many without an answer between them are the server's, and held against no row.

    A server that then answers a harmless read, and fails at writes all the same, is well enough: what fails next counts.
    """

    def __init__(self) -> None:
        self._streak: list[Row | None] = []
        self._was_well = False

    def answered(self) -> None:
        """Learn of an answer to a row, whether it pleased or not."""
        if self._streak:
            self._streak.clear()
        self._was_well = False

    def failed(self, row: Row | None, in_flight: int) -> bool:
        """Learn of a failure, which counts against `row` (None: it never left); return whether to wait for better times."""
        self._streak.append(row)
        if row is None:
            self._was_well = False
        if self._was_well or len(self._streak) < max(_LEAST, 2 * in_flight):
            return False
        for one in self._streak:
            if one is not None and one.attempts:
                one.attempts -= 1
        self._streak.clear()
        return True

    def recovered(self) -> None:
        """Learn that the server answers again."""
        self._was_well = True
