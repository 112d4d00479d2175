"""Ids as the service issues them: 17 digits, rising, odd, and beyond what a float can hold."""

from __future__ import annotations

__all__ = ["FIRST_ID", "IdIssuer", "moment_of", "parse_id"]

FIRST_ID = 20_000_000_000_000_001
"""Above 2**53 and odd, so that a reader that goes through a float fails loudly."""
_LARGEST = 2**63 - 1
_PER_MICROSECOND = 16


class IdIssuer:
    """Issues ids that rise strictly, also over restarts and when the clock steps back."""

    def __init__(self, last: int) -> None:
        self._last = max(last, FIRST_ID - 2)

    def issue(self, now: int) -> int:
        """Return the next id; `now` is in microseconds since 1970."""
        self._last = max(self._last + 2, now * _PER_MICROSECOND | 1)
        return self._last


def moment_of(number: int) -> int:
    """Return when an id was issued, in microseconds since 1970; a little late for one of very many at once."""
    return number // _PER_MICROSECOND


def parse_id(text: str) -> int | None:
    """Return the id written in `text`, or None when it can be none."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        return None
    number = int(text)
    return number if number <= _LARGEST else None
