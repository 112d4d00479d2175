"""Rows of one key wait for each other: never two on their way at once, and in the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

__all__ = ["KeyLines"]


class Keyed(Protocol):
    """Something that has keys, and counts those at which others stand before it."""

    blockers: int

    @property
    def keys(self) -> Sequence[str]:
        """What it shares with others."""
        ...


K = TypeVar("K", bound=Keyed)


class KeyLines(Generic[K]):
    """One line for each key in use. Whoever stands first in the lines of all his keys may go."""

    def __init__(self) -> None:
        self._lines: dict[str, K | deque[K]] = {}
        self.waiting: int = 0
        """How many stand in line and may not go yet."""

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def join(self, one: K) -> bool:
        """Stand in line; return whether it may go at once."""
        lines = self._lines
        for key in one.keys:
            line = lines.setdefault(key, one)  # the usual case takes no deque
            if line is one:
                continue
            one.blockers += 1
            if isinstance(line, deque):
                line.append(one)
            else:
                lines[key] = deque((line, one))
        if not one.blockers:
            return True
        self.waiting += 1
        return False

    def leave(self, one: K) -> Sequence[K]:
        """Leave the lines it stands first in; return those that may go now."""
        lines = self._lines
        if len(one.keys) == 1 and lines[one.keys[0]] is one:
            del lines[one.keys[0]]
            return ()
        freed: list[K] = []
        for key in one.keys:
            line = lines.pop(key)
            if line is one or not isinstance(line, deque):
                continue
            line.popleft()
            first = line[0]
            lines[key] = first if len(line) == 1 else line
            first.blockers -= 1
            if not first.blockers:
                self.waiting -= 1
                freed.append(first)
        return freed
