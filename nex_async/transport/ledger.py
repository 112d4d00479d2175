"""One rate limit as many workers share it: who may send when. No I/O and no clock; times are the keeper's, in seconds."""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from ..errors import ConfigError
from ..routes import Group
from .limiter import AdaptiveLimit, Standing, WindowLimit

__all__ = ["PUBLISHED", "Ask", "KnownLimits", "Lease", "Ledger", "Ledgers", "checked_limits"]

KnownLimits: TypeAlias = Mapping[Group, tuple[int, float]]
"""Limits that are known: so many attempts in so many seconds, by group of operations."""

PUBLISHED: KnownLimits = {"text": (10, 60.0), "connect": (10, 60.0)}
"""The limits that the API's documentation gives."""

HORIZON = AdaptiveLimit.AHEAD
"""Permits are given out for so many seconds ahead: what is out when a worker dies, or when a 429 comes, is that much."""
FREE = 0.5
"""While no limit is known a worker sends freely for so many seconds, then it asks again."""
LATE = 1.0
"""A worker in line that is so many seconds late counts as gone."""
LONGEST_WAIT = 5.0
"""Seconds after which a worker asks again in any case."""
SHORTEST_WAIT = 0.01
MOST_PERMITS = 256
"""So many permits are given out at a time."""
MOST_LEDGERS = 100_000
"""So many limits are remembered; the one asked for longest ago is forgotten first."""


class Ask(NamedTuple):
    """What a worker tells and asks: how many calls went through since it asked last, and how many wait."""

    account: str
    """A digest of key and server, 32 hex digits; the key cannot be told from it."""
    group: Group
    worker: str
    """Which worker asks: any text that no other worker has."""
    wanted: int
    """How many calls wait for a permit."""
    passed: int = 0
    """How many calls the server did not throttle, since the last ask."""
    throttled: bool = False
    """Whether a 429 came since then."""
    retry_after: float | None = None
    """The longest pause that those asked for, in seconds."""
    epoch: str = ""
    """The `epoch` of the lease before; empty the first time."""
    standing: Standing | None = None
    """The `standing` of the lease before, as it would be now."""


class Lease(NamedTuple):
    """What a worker may do: send freely for a while, or send one call at each of some moments."""

    epoch: str
    """Names the keeper's memory; another one means that it lost what it had learned."""
    standing: Standing
    free: float
    """For how many seconds from now the worker may send as it likes; 0 where a limit is known."""
    delays: tuple[float, ...]
    """A permit each: not before so many seconds from now."""
    wait: float
    """In how many seconds to ask again, where there were fewer permits than wanted."""
    due: float
    """In how many seconds this worker's next permit can be had at the earliest, where there were fewer than wanted."""


class _Place:
    """A worker's place in the line."""

    __slots__ = ("back", "wanted")

    def __init__(self, wanted: int, back: float) -> None:
        self.wanted = wanted
        self.back = back
        """When it will have asked again, unless it is gone."""


class SharedLimit(AdaptiveLimit):
    """An adaptive limit whose keeper hears late of a 429: while it is off, all workers run into the limit together."""

    OFF = 2000.0

    def _measured(self, now: float, pause: float) -> float:
        return max(super()._measured(now, pause), self._rate / 2)  # many workers have not told yet what they sent


class Ledger:
    """One limit of one key. Slots go to workers in the order in which they came, a fair share of the horizon at a time."""

    def __init__(self, limit: AdaptiveLimit | WindowLimit, epoch: str, born: float) -> None:
        self.limit: AdaptiveLimit | WindowLimit = limit
        self.epoch: str = epoch
        self.born: float = born
        self._line: dict[str, _Place] = {}
        self._swept = born

    def lease(self, ask: Ask, now: float) -> Lease:
        """Note what a worker met, and return what it may do."""
        limit, line = self.limit, self._line
        if ask.epoch and ask.epoch != self.epoch and ask.standing is not None:
            limit.adopt(ask.standing, now, self.born)
        for _ in range(ask.passed):
            limit.succeeded(now)
        if not limit.active:
            limit.forget()  # the other workers have not told yet what they sent freely
        if ask.throttled:
            limit.throttled(now, ask.retry_after)
        if not limit.active:
            line.clear()
            return Lease(self.epoch, limit.standing(now), FREE, (), 0.0, 0.0)
        if now >= self._swept + LATE / 4:  # a thousand workers ask hundreds of times a second
            self._swept = now
            for worker in [worker for worker, place in line.items() if place.back + LATE < now]:
                del line[worker]
        if ask.wanted <= 0:
            line.pop(ask.worker, None)
            return Lease(self.epoch, limit.standing(now), 0.0, (), 0.0, 0.0)
        room = bisect_right(range(MOST_PERMITS), now + HORIZON, key=lambda position: limit.slot(position, now))
        if ask.worker not in line:
            line[ask.worker] = _Place(ask.wanted, now)
        share = max(1, room // len(line))
        free = room - self._ahead(ask.worker, share)
        slots = [limit.take_next(now) for _ in range(min(ask.wanted, share, free))]
        delays = tuple(slot - now for slot in slots)
        wanted = ask.wanted - len(slots)
        if slots:
            del line[ask.worker]  # it had its turn, and stands behind the others for more
        if not wanted:
            return Lease(self.epoch, limit.standing(now), 0.0, delays, 0.0, 0.0)
        place = line.setdefault(ask.worker, _Place(wanted, now))
        due = limit.slot(self._ahead(ask.worker, 1 if not slots else share), now) - now
        wait = min(LONGEST_WAIT, max(SHORTEST_WAIT, due - HORIZON / 2))
        place.wanted, place.back = wanted, now + wait
        return Lease(self.epoch, limit.standing(now), 0.0, delays, wait, due)

    def _ahead(self, worker: str, share: int) -> int:
        """Return how many slots belong to those who stand before a worker."""
        if share == 1:  # in a long line, where counting one by one would take long
            return list(self._line).index(worker)
        ahead = 0
        for other, place in self._line.items():
            if other == worker:
                break
            ahead += min(place.wanted, share)
        return ahead


class Ledgers:
    """The ledgers of all keys. `limits` are those that are known beforehand, besides the published ones."""

    def __init__(self, limits: KnownLimits | None = None) -> None:
        self._known: KnownLimits = {**PUBLISHED, **checked_limits(limits)}
        self._ledgers: OrderedDict[tuple[str, Group], Ledger] = OrderedDict()
        self._epoch = secrets.token_hex(8)
        self._born: float | None = None

    @property
    def accounts(self) -> list[str]:
        """The digests of the keys whose limits are kept."""
        return sorted({account for account, _ in self._ledgers})

    def lease(self, ask: Ask, now: float) -> Lease:
        """Note what a worker met, and return what it may do. `now` is the keeper's clock, the same for all workers."""
        if self._born is None:
            self._born = now
        name = ask.account, ask.group
        ledger = self._ledgers.get(name)
        if ledger is None:
            known = self._known.get(ask.group)
            limit = SharedLimit() if known is None else WindowLimit(*known)
            ledger = self._ledgers[name] = Ledger(limit, self._epoch, self._born)
            if len(self._ledgers) > MOST_LEDGERS:
                self._ledgers.popitem(last=False)
        else:
            self._ledgers.move_to_end(name)
        return ledger.lease(ask, now)


def checked_limits(limits: KnownLimits | None) -> KnownLimits:
    """Return known limits. Raises `ConfigError` for what cannot be one."""
    checked: dict[Group, tuple[int, float]] = {}
    for group, known in (limits or {}).items():
        if group not in ("default", "text", "connect"):
            raise ConfigError(f"limits: {group!r} is no group of operations; there are default, text and connect")
        try:
            count, period = known
            fits = count == int(count) >= 1 and 0 < float(period) <= 86_400 and not isinstance(count, bool)
        except (TypeError, ValueError, OverflowError):
            count, period, fits = 0, 0.0, False
        if not fits:
            raise ConfigError(f"limits[{group!r}] must be a number of calls and a number of seconds, not {known!r}")
        checked[group] = int(count), float(period)
    return checked
