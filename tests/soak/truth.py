"""What must hold in the end: what the server has, against what its clients were told. Pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

__all__ = ["Ending", "Finding", "Heard", "Values", "judge_creates", "judge_insights", "judge_values"]

Ending: TypeAlias = Literal["done", "unknown", "failed"]
"""What a create ended with: its reply; `OutcomeUnknownError`; an error that says it did not take place."""


@dataclass(frozen=True)
class Finding:
    """A promise that was broken."""

    kind: Literal["lost", "doubled", "wrong"]
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


@dataclass(frozen=True)
class Heard:
    """An insight that was handed out."""

    content: str
    redelivered: bool


def judge_insights(
    stored: Mapping[str, datetime], heard: Iterable[Heard], gaps: Iterable[tuple[datetime, datetime]]
) -> list[Finding]:
    """Every insight of the server was handed out, once or again with a word, or lies in a gap; nothing else was.

    `stored` has the moment of each content; a moment is shown to the second.
    """
    found: list[Finding] = []
    seen: set[str] = set()
    for one in heard:
        if one.content not in stored:
            found.append(Finding("wrong", f"an insight that the server does not have: {one.content}"))
        elif one.content in seen and not one.redelivered:
            found.append(Finding("doubled", f"insight handed out again without a word: {one.content}"))
        seen.add(one.content)
    reported = [(start - timedelta(seconds=1), end + timedelta(seconds=1)) for start, end in gaps]
    for content, moment in stored.items():
        if content not in seen and not any(start <= moment <= end for start, end in reported):
            found.append(Finding("lost", f"insight never handed out: {content} of {moment}"))
    return found


def judge_creates(ended: Mapping[str, Ending], stored: Iterable[str]) -> list[Finding]:
    """No create took place twice; one with a reply took place, one that failed did not."""
    counts = Counter(stored)
    found = [Finding("doubled", f"{title} was created {count} times") for title, count in counts.items() if count > 1]
    for title, outcome in ended.items():
        if outcome == "done" and not counts[title]:
            found.append(Finding("lost", f"{title} had a reply, and is not there"))
        elif outcome == "failed" and counts[title]:
            found.append(Finding("wrong", f"{title} was said not to have been created, and is there"))
    found += [Finding("wrong", f"{title} is nobody's") for title in counts if title not in ended]
    return found


class Values:
    """Which values each key may hold: the last that was acknowledged, or one tried since whose outcome is unknown."""

    def __init__(self) -> None:
        self._allowed: dict[str, set[int]] = defaultdict(set)
        self._optional: set[str] = set()

    def written(self, key: str, value: int) -> None:
        """Note a write that was acknowledged."""
        self._allowed[key] = {value}
        self._optional.discard(key)

    def tried(self, key: str, value: int) -> None:
        """Note a write that may have taken effect."""
        if key not in self._allowed:
            self._optional.add(key)
        self._allowed[key].add(value)

    def items(self) -> Iterable[tuple[str, set[int], bool]]:
        """Yield each key, what it may hold, and whether it must be there."""
        for key, allowed in self._allowed.items():
            yield key, allowed, key not in self._optional


def judge_values(values: Values, stored: Iterable[tuple[str, int]]) -> list[Finding]:
    """Every key that was written is there once, with its newest value; no other key is."""
    held: dict[str, list[int]] = defaultdict(list)
    for key, value in stored:
        held[key].append(value)
    found: list[Finding] = []
    for key, allowed, must_be in values.items():
        rows = held.pop(key, [])
        if len(rows) > 1:
            found.append(Finding("doubled", f"{key} is there {len(rows)} times"))
        elif not rows and must_be:
            found.append(Finding("lost", f"{key} is not there"))
        elif rows and rows[0] not in allowed:
            found.append(Finding("lost", f"{key} holds {rows[0]} instead of {sorted(allowed)}"))
    found += [Finding("wrong", f"{key} is nobody's") for key in held]
    return found
