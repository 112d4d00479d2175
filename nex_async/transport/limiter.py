"""One shared, learning limiter per key: preset windows, an adaptive rate, a retry budget, and the latch for a bad key.

Times are those of the event loop, in seconds. A wait is a reserved slot, never a loop over a float bucket: such a loop can
ask for sleeps too short to move the clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from ..errors import AuthenticationError, DeadlineExceeded, RateLimitQueueFull
from ..routes import Group

__all__ = ["AdaptiveLimit", "AuthLatch", "KeyState", "RetryBudget", "WindowLimit"]

_RESOLUTION = 1e-6


class Limit(Protocol):
    """A rate limit that one group of routes shares."""

    active: bool
    """Whether a call has to ask at all."""

    async def acquire(self, deadline: float) -> None:
        """Wait for a slot. Raises `DeadlineExceeded` at once when none will come in time."""

    def throttled(self, now: float, retry_after: float | None) -> None:
        """Learn of a 429: nobody sends before `retry_after` seconds have passed."""

    def succeeded(self, now: float) -> None:
        """Learn of a call that was not throttled."""


def _too_late(wait: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"the rate limit's next free slot is {wait:.1f} s away, beyond the call's deadline")


class WindowLimit:
    """At most `count` attempts in any `period` seconds: the published limits. Waiters go first come, first served."""

    # A server may count in its own window, a little out of step with ours.
    MARGIN = 0.5

    def __init__(self, count: int, period: float, max_waiting: int = 1000) -> None:
        self.active = True
        self._count = count
        self._period = period + self.MARGIN
        self._max_waiting = max_waiting
        self._slots: deque[float] = deque()
        self._gate = 0.0
        self._waiting = 0

    async def acquire(self, deadline: float) -> None:
        """Wait for a slot; see `Limit`."""
        now = asyncio.get_running_loop().time()
        slot = self._next_slot(now)
        if slot > deadline:
            raise _too_late(slot - now)
        if slot > now and self._waiting >= self._max_waiting:
            raise RateLimitQueueFull(f"{self._waiting} calls already wait for a limit of {self._count} per minute")
        self._slots.append(slot)
        if slot > now:
            await self._wait(slot, deadline)

    def _next_slot(self, now: float) -> float:
        while self._slots and self._slots[0] <= now - self._period:
            self._slots.popleft()
        free = self._slots[-self._count] + self._period if len(self._slots) >= self._count else now
        return max(now, free, self._gate, self._slots[-1] if self._slots else now)

    async def _wait(self, slot: float, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            while (wait := max(slot, self._gate) - loop.time()) > _RESOLUTION:
                if loop.time() + wait > deadline:
                    raise _too_late(wait)
                await asyncio.sleep(wait)
        except BaseException:
            self._slots.remove(slot)  # a slot nobody uses is somebody else's
            raise
        finally:
            self._waiting -= 1

    def throttled(self, now: float, retry_after: float | None) -> None:
        """Learn of a 429."""
        self._gate = max(self._gate, now + (self._period / self._count if retry_after is None else retry_after))

    def succeeded(self, now: float) -> None:
        """Learn nothing: the limit is known."""


class AdaptiveLimit:
    """A limit nobody published: off until the first 429, then it learns.

    A 429 closes a gate for everybody until `Retry-After`, and cuts the rate to 0.7 of what really went through; calls then
    take evenly spaced slots; the rate grows again with every second of success, slower once past its old ceiling.
    """

    FLOOR, CEILING = 0.1, 200.0
    CUT, GROWTH_BELOW, GROWTH_ABOVE = 0.7, 0.05, 0.01

    def __init__(self) -> None:
        self.active = False
        self._rate = self.CEILING
        self._old_ceiling = self.CEILING
        self._gate = 0.0
        self._next_slot = 0.0
        self._passed: deque[float] = deque(maxlen=4096)
        self._cut_until = 0.0
        self._grown_at = 0.0

    @property
    def rate(self) -> float | None:
        """Calls per second now allowed; None while nothing was learned."""
        return self._rate if self.active else None

    async def acquire(self, deadline: float) -> None:
        """Wait for a slot; see `Limit`."""
        loop = asyncio.get_running_loop()
        slot = self._reserve(loop.time(), deadline)
        while (wait := max(slot, self._gate) - loop.time()) > _RESOLUTION:
            if loop.time() + wait > deadline:
                raise _too_late(wait)
            await asyncio.sleep(wait)
            if slot < self._gate:
                slot = self._reserve(loop.time(), deadline)

    def _reserve(self, now: float, deadline: float) -> float:
        slot = max(now, self._gate, self._next_slot)
        if slot > deadline:
            raise _too_late(slot - now)
        self._next_slot = slot + 1.0 / self._rate
        return slot

    def throttled(self, now: float, retry_after: float | None) -> None:
        """Learn of a 429."""
        pause = 0.0 if retry_after is None else retry_after
        if not self.active or now >= self._cut_until:
            self._old_ceiling = self._rate if self.active else self._measured(now, pause)
            self._rate = max(self.FLOOR, self._old_ceiling * self.CUT)
            self._cut_until = now + max(1.0, pause)
            self._grown_at = self._cut_until
            self.active = True
        self._gate = max(self._gate, now + pause)
        self._next_slot = max(self._next_slot, self._gate)

    def _measured(self, now: float, pause: float) -> float:
        """Return the calls per second that went through lately, the pause the server asks for included."""
        if not self._passed:
            return self.CEILING if not self.active else self._rate
        horizon = now - max(1.0, pause)
        recent = sum(1 for passed in self._passed if passed > horizon)
        span = max(1.0, pause) + pause
        return max(recent / span, self.FLOOR)

    def succeeded(self, now: float) -> None:
        """Learn of a call that went through."""
        self._passed.append(now)
        if not self.active or now < self._grown_at + 1.0:
            return
        below = self._rate < self._old_ceiling
        self._rate += self._old_ceiling * (self.GROWTH_BELOW if below else self.GROWTH_ABOVE)
        self._grown_at = now
        if self._rate >= self.CEILING:
            self._rate, self._old_ceiling, self.active = self.CEILING, self.CEILING, False


class RetryBudget:
    """What a key may spend on retries, so that a failing server is not stormed: first tries always go, repeats may not."""

    __slots__ = ("capacity", "left")

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.left = capacity

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

    __slots__ = ("_closed_until", "_count")

    def __init__(self) -> None:
        self._count = 0
        self._closed_until = 0.0

    @property
    def armed(self) -> bool:
        """Whether any 401 came since the last success."""
        return self._count > 0

    def check(self, now: float) -> None:
        """Raise `AuthenticationError` while the latch is closed."""
        if now < self._closed_until:
            raise AuthenticationError(
                f"the key was refused {self.THRESHOLD} times in a row; asking again in {self._closed_until - now:.0f} s",
                status=401,
            )

    def failed(self, now: float) -> None:
        """Learn of a 401."""
        self._count += 1
        if self._count >= self.THRESHOLD:
            self._closed_until = now + self.PAUSE

    def reset(self) -> None:
        """Learn of a call that was let in."""
        self._count = 0
        self._closed_until = 0.0


class KeyState:
    """Everything that is shared by the calls of one key: its limits, its retry budget, its latch."""

    __slots__ = ("budget", "latch", "limits")

    def __init__(self, budget: float) -> None:
        self.limits: dict[Group, Limit] = {
            "default": AdaptiveLimit(),
            "text": WindowLimit(10, 60.0),
            "connect": WindowLimit(10, 60.0),
        }
        self.budget = RetryBudget(budget)
        self.latch = AuthLatch()
