"""Rate limits: so many requests of one key in a sliding window. A request that is refused does not count."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Limits", "RateLimiter", "read_limits"]

_GRAMMAR = "on, off, or numbers such as text=5, connect=2, global=100, window=60"


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Requests per `window` seconds and key: of ingest, of integration connect, of everything; None is no limit."""

    text: int | None = 10
    connect: int | None = 10
    everything: int | None = None
    window: float = 60.0

    def of(self, group: str) -> int | None:
        """Return the limit of a route's group; those of the group `default` have none of their own."""
        if group == "global":
            return self.everything
        return self.text if group == "text" else self.connect if group == "connect" else None

    def __str__(self) -> str:
        if self == Limits():
            return "on"
        named = {"text": self.text, "connect": self.connect, "global": self.everything}
        parts = [f"{name}={limit}" for name, limit in named.items() if limit is not None]
        return ", ".join([*parts, f"window={self.window:g}"]) if parts else "off"


_OFF = Limits(None, None, None)
_FIELDS = {"text": "text", "connect": "connect", "global": "everything"}


def read_limits(value: Any) -> Limits:
    """Read limits from a word, a text of numbers or a mapping; a limit that is not named does not hold."""
    if value in (True, "on"):
        return Limits()
    if value in (False, "off"):
        return _OFF
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",")]
        value = {name.strip(): number.strip() for name, _, number in pairs}
    if not isinstance(value, dict) or not value:
        raise _refusal(value)
    changes: dict[str, Any] = {}
    for name, number in value.items():
        if name == "window":
            changes["window"] = _positive(name, number, float)
        elif name in _FIELDS:
            changes[_FIELDS[name]] = None if number is None else _positive(name, number, int)
        else:
            raise _refusal(name)
    return dataclasses.replace(_OFF, **changes)


def _positive(name: str, text: Any, kind: type[int] | type[float]) -> float:
    try:
        number = kind(text)
    except (TypeError, ValueError):
        raise _refusal(f"{name}={text}") from None
    if isinstance(text, bool) or not 0 < number < 1e9:
        raise _refusal(f"{name}={text}")
    return number


def _refusal(value: Any) -> ValueError:
    return ValueError(f"switch rate_limits: {str(value)[:60]!r} is not {_GRAMMAR}")


class RateLimiter:
    """Remembers when the requests of each key came."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._past: dict[tuple[str, str], deque[float]] = {}

    def clear(self) -> None:
        """Forget all that came."""
        self._past.clear()

    def admit(self, key: str, group: str, limits: Limits) -> float:
        """Count a request in and return 0, or return the seconds until it may come."""
        if limits.everything is None and limits.of(group) is None:
            return 0.0
        now = self._clock()
        held = [(name, limit) for name in (group, "global") if (limit := limits.of(name)) is not None]
        wait = max((self._wait(key, name, limit, limits.window, now) for name, limit in held), default=0.0)
        if wait <= 0:
            for name, _ in held:
                self._past[key, name].append(now)
        return wait

    def _wait(self, key: str, name: str, limit: int, window: float, now: float) -> float:
        past = self._past.setdefault((key, name), deque())
        while past and (past[0] <= now - window or past[0] > now):  # the second: a clock that was set back
            past.popleft()
        return past[-limit] + window - now if len(past) >= limit else 0.0
