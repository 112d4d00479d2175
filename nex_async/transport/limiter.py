"""One shared, learning limiter per key: preset windows, an adaptive rate, a retry budget, and the latch for a bad key.

Times are those of the event loop, in seconds. A wait ends at a slot, never in a loop over a float bucket: such a loop can
ask for sleeps too short to move the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from math import inf
from typing import NamedTuple, Protocol

from ..errors import AuthenticationError, DeadlineExceeded, RateLimitQueueFull
from ..routes import Group

__all__ = ["AdaptiveLimit", "AuthLatch", "KeyState", "Limit", "RetryBudget", "Standing", "WindowLimit"]

_RESOLUTION = 1e-6


class Limit(Protocol):
    """A rate limit that one group of routes shares."""

    @property
    def active(self) -> bool:
        """Whether a call has to ask at all."""
        ...

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot."""
        ...

    @property
    def rate(self) -> float | None:
        """Calls per second now allowed; None while nothing limits them."""
        ...

    async def acquire(self, deadline: float) -> None:
        """Wait for a slot. Raises `DeadlineExceeded` at once when none will come in time."""

    def throttled(self, now: float, retry_after: float | None) -> None:
        """Learn of a 429: nobody sends before `retry_after` seconds have passed."""

    def succeeded(self, now: float) -> None:
        """Learn of a call that was not throttled."""


class Standing(NamedTuple):
    """What was learned of a limit, to be taken up by another."""

    rate: float | None
    """Calls per second now allowed; None while nothing limits them."""
    ceiling: float
    """The calls per second at which the last 429 came."""
    pause: float
    """For how many seconds from now nobody may send."""


def too_late(wait: float) -> DeadlineExceeded:
    """Return the error of a call whose slot is `wait` seconds away, beyond its deadline."""
    return DeadlineExceeded(
        f"the rate limit's next free slot is {wait:.1f} s away, beyond the call's deadline", retry_after=wait
    )


class Waiter:
    """A call in line: the future that lets it go, the moment it gives up, and the moment it was let go."""

    __slots__ = ("at", "deadline", "go")

    def __init__(self, go: asyncio.Future[None], deadline: float) -> None:
        self.go: asyncio.Future[None] = go
        self.deadline: float = deadline
        self.at: float = 0.0


class _Line(ABC):
    """Calls that wait for a slot, first come, first served; one timer stands at the next slot.

    Nobody holds a slot before its time has come, so one who leaves the line leaves no hole in it.
    """

    MAX_WAITING: float = inf

    def __init__(self) -> None:
        self._gate = 0.0
        self._waiters: deque[Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot."""
        return len(self._waiters)

    @abstractmethod
    def _slot(self, position: int, now: float) -> float:
        """Return when the call at `position` in the line may go, as things stand."""

    @abstractmethod
    def _take(self, now: float) -> None:
        """Use the next slot."""

    @abstractmethod
    def _give_back(self, at: float) -> None:
        """Undo a `_take(at)`."""

    async def acquire(self, deadline: float) -> None:
        """Wait for a slot; see `Limit`."""
        loop = asyncio.get_running_loop()
        now, position = loop.time(), len(self._waiters)
        slot = self._slot(position, now)
        if slot > deadline:
            raise too_late(slot - now)
        if not position and slot <= now + _RESOLUTION:
            self._take(now)
            return
        if position >= self.MAX_WAITING:
            raise RateLimitQueueFull(f"{position} calls already wait for the rate limit")
        waiter = Waiter(loop.create_future(), deadline)
        self._waiters.append(waiter)
        self._arm(loop)
        try:
            await waiter.go
        except asyncio.CancelledError:
            self._left(waiter, loop)
            raise

    def _left(self, waiter: Waiter, loop: asyncio.AbstractEventLoop) -> None:
        if waiter.go.cancelled():
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
        elif waiter.go.exception() is None:
            self._give_back(waiter.at)
        self._let_go(loop)

    def slot(self, position: int, now: float) -> float:
        """Return when the call at `position` of a line kept elsewhere may go, as things stand."""
        return self._slot(position, now)

    def take_next(self, now: float) -> float:
        """Use the next slot for a call of a line kept elsewhere; return when it may go."""
        slot = self._slot(0, now)
        self._take(slot)
        return slot

    def _let_go(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._waiters and (self._waiters[0].go.done() or self._slot(0, now) <= now + _RESOLUTION):
            waiter = self._waiters.popleft()
            if not waiter.go.done():
                waiter.at = now
                self._take(now)
                waiter.go.set_result(None)
        self._arm(loop)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiters:
            self._timer = loop.call_at(self._slot(0, loop.time()), self._let_go, loop)

    def _refuse_the_late(self, now: float) -> None:
        """Let those give up at once whose slot has moved beyond their deadline."""
        if not self._waiters:
            return
        kept: deque[Waiter] = deque()
        for waiter in self._waiters:
            slot = self._slot(len(kept), now)
            if waiter.go.done():
                continue
            if slot > waiter.deadline:
                waiter.go.set_exception(too_late(slot - now))
            else:
                kept.append(waiter)
        self._waiters = kept
        self._arm(asyncio.get_running_loop())


class WindowLimit(_Line):
    """At most `count` attempts in any `period` seconds: the published limits."""

    MAX_WAITING: float = 1000
    # A server may count in its own window, a little out of step with ours.
    MARGIN = 0.5

    def __init__(self, count: int, period: float) -> None:
        super().__init__()
        self.active: bool = True
        self._count = count
        self._period = period + self.MARGIN
        self._used: deque[float] = deque(maxlen=count)

    @property
    def rate(self) -> float | None:
        """Calls per second in the long run: the published limit."""
        return self._count / self._period

    def _slot(self, position: int, now: float) -> float:
        rounds, place = divmod(position, self._count)
        index = place - (self._count - len(self._used))
        free = self._used[index] + self._period if index >= 0 else now
        return max(now, self._gate, free) + rounds * self._period

    def _take(self, now: float) -> None:
        self._used.append(now)

    def _give_back(self, at: float) -> None:
        self._used.remove(at)

    def throttled(self, now: float, retry_after: float | None) -> None:
        """Learn of a 429."""
        self._gate = max(self._gate, now + (self._period / self._count if retry_after is None else retry_after))
        self._refuse_the_late(now)

    def succeeded(self, now: float) -> None:
        """Learn nothing: the limit is known."""

    def standing(self, now: float) -> Standing:
        """Return what was learned: that of a known limit is how long nobody may send."""
        return Standing(self.rate, 0.0, max(0.0, self._gate - now))

    def forget(self) -> None:
        """Forget nothing: what went through counts."""

    def adopt(self, standing: Standing, now: float, born: float) -> None:
        """Take up what one that was here before had learned. What it had let go is not known: it may be a whole window."""
        self._gate = max(self._gate, born + self._period, now + standing.pause)


class AdaptiveLimit(_Line):
    """A limit nobody published: off until the first 429, then it learns.

    A 429 closes a gate for everybody until `Retry-After`, and cuts the rate to 0.7 of what really went through; calls then
    take evenly spaced slots; the rate grows again with every second of success, slower once past its old ceiling, and
    by leaps when five minutes have passed without a 429. At the ceiling the limit is off again.
    """

    FLOOR, CEILING = 0.1, 200.0
    # At this rate it is off again.
    OFF = CEILING
    CUT, GROWTH_BELOW, GROWTH_ABOVE = 0.7, 0.05, 0.01
    QUIET = 300.0
    # Fewer calls than these say nothing about what the server allows: the key may be in use elsewhere.
    EVIDENCE = 5
    # For so many seconds ahead slots are given out, where a line is kept elsewhere.
    AHEAD = 0.25
    # A timer that fires late makes up for so many seconds, lest the pace be slower than allowed.
    LAG = 0.02
    MOST_PASSED = 4096

    def __init__(self) -> None:
        super().__init__()
        self.active: bool = False
        self._rate = self.CEILING
        self._old_ceiling = self.CEILING
        self._next_slot = 0.0
        self._passed: deque[float] = deque(maxlen=self.MOST_PASSED)
        self._cut_until = 0.0
        self._grown_at = 0.0
        self._is_guess = False

    @property
    def rate(self) -> float | None:
        """Calls per second now allowed; None while nothing was learned."""
        return self._rate if self.active else None

    def _slot(self, position: int, now: float) -> float:
        return max(now, self._gate, self._next_slot) + position / self._rate

    def _take(self, now: float) -> None:
        self._next_slot = max(self._next_slot, self._gate, now - self.LAG) + 1.0 / self._rate

    def _give_back(self, at: float) -> None:
        self._next_slot -= 1.0 / self._rate

    def throttled(self, now: float, retry_after: float | None) -> None:
        """Learn of a 429."""
        pause = 0.0 if retry_after is None else retry_after
        if not self.active or now >= self._cut_until:
            measured = self._measured(now, pause)
            self._is_guess = measured == inf and not self.active  # of the rate that it began with
            self._old_ceiling = min(self._rate, measured)
            self._rate = max(self.FLOOR, self._old_ceiling * self.CUT)
            self._cut_until = now + max(1.0, pause)
            self._grown_at = self._cut_until
            self.active = True
        self._gate = max(self._gate, now + pause)
        self._refuse_the_late(now)

    def _measured(self, now: float, pause: float) -> float:
        """Return the calls per second that went through lately, the pause the server asks for included; if they tell."""
        horizon = now - max(1.0, pause)
        recent = sum(1 for passed in self._passed if passed > horizon)
        span = max(1.0, pause) + pause
        return recent / span if recent >= self.EVIDENCE else inf

    def succeeded(self, now: float) -> None:
        """Learn of a call that went through."""
        self._passed.append(now)
        if not self.active or now < self._grown_at + 1.0:
            return
        if self._is_guess or now >= self._cut_until + self.QUIET:
            self._rate += self._rate * self.GROWTH_BELOW
        else:
            below = self._rate < self._old_ceiling
            self._rate += self._old_ceiling * (self.GROWTH_BELOW if below else self.GROWTH_ABOVE)
        self._grown_at = now
        if self._rate >= self.OFF:
            self._rate, self._old_ceiling, self.active = self.CEILING, self.CEILING, False

    def standing(self, now: float) -> Standing:
        """Return what was learned."""
        return Standing(self.rate, self._old_ceiling, max(0.0, self._gate - now) if self.active else 0.0)

    def forget(self) -> None:
        """Forget what went through: one who hears of only a part of it measures too little."""
        self._passed.clear()

    def adopt(self, standing: Standing, now: float, born: float) -> None:
        """Take up what one that was here before had learned, where it is stricter.

        What it had let go lies ahead still: nothing goes before the last of that has.
        """
        if standing.rate is None:
            return
        pause = max(0.0, standing.pause)
        if not self.active or standing.rate < self._rate:
            self._rate, self._old_ceiling = max(self.FLOOR, standing.rate), standing.ceiling
            self._cut_until = self._grown_at = now + pause
            self.active = True
        self._gate = max(self._gate, now + pause)
        self._next_slot = max(self._next_slot, born + self.AHEAD)


class RetryBudget:
    """What a key may spend on retries, so that a failing server is not stormed: first tries always go, repeats may not."""

    __slots__ = ("capacity", "left")

    def __init__(self, capacity: float) -> None:
        self.capacity: float = capacity
        self.left: float = capacity

    def spend(self, cost: float) -> bool:
        """Take `cost`; return whether there was enough."""
        if self.left < cost:
            return False
        self.left -= cost
        return True

    def earn(self) -> None:
        """Credit one success at the first try."""
        if self.left < self.capacity:
            self.left = min(self.capacity, self.left + 1.0)


class AuthLatch:
    """After three 401 in a row the key is refused here for a minute, so that a bad key does not hammer the server."""

    THRESHOLD, PAUSE = 3, 60.0

    __slots__ = ("_closed_until", "_count", "armed")

    def __init__(self) -> None:
        self._count = 0
        self._closed_until = 0.0
        self.armed: bool = False
        """Whether any 401 came since the last success."""

    def is_closed(self, now: float) -> bool:
        """Return whether the key is refused here at present."""
        return now < self._closed_until

    def check(self, now: float) -> None:
        """Raise `AuthenticationError` while the latch is closed."""
        if self.is_closed(now):
            raise AuthenticationError(
                f"the key was refused {self.THRESHOLD} times in a row; asking again in {self._closed_until - now:.0f} s",
                status=401,
            )

    def failed(self, now: float) -> None:
        """Learn of a 401."""
        self._count += 1
        self.armed = True
        if self._count >= self.THRESHOLD:
            self._closed_until = now + self.PAUSE

    def reset(self) -> None:
        """Learn of a call that was let in."""
        self._count = 0
        self._closed_until = 0.0
        self.armed = False


class KeyState:
    """Everything that is shared by the calls of one key: its limits, its retry budget, its latch.

    `limits` are those that are kept elsewhere; without them the key learns for itself.
    """

    __slots__ = ("budget", "latch", "limits", "replied")

    def __init__(self, budget: float, limits: dict[Group, Limit] | None = None) -> None:
        self.replied: Mapping[str, str] = {}
        """The headers of the last reply; its `Date` is what the server's clock says."""
        self.limits: dict[Group, Limit] = limits or {
            "default": AdaptiveLimit(),
            "text": WindowLimit(10, 60.0),
            "connect": WindowLimit(10, 60.0),
        }
        self.budget: RetryBudget = RetryBudget(budget)
        self.latch: AuthLatch = AuthLatch()
