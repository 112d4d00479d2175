"""One rate budget for many workers: a server that keeps the limits of every key, and the limit that leases from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from math import inf
from typing import Protocol

from ..errors import ClientClosed, DeadlineExceeded, RateLimitQueueFull
from ..routes import Group
from .ledger import FREE, PUBLISHED, Ask, KnownLimits, Lease, Ledgers
from .limiter import Limit, Standing, Waiter, too_late

__all__ = ["BudgetServer", "Leases", "LocalBudget"]

_log = logging.getLogger("nex_async.budget")

_RESOLUTION = 1e-6
_KEPT = 0.05
"""A permit that nobody waited for lapses after so many seconds: used later, it would be too near the next."""
_ANSWER = 10.0
"""Seconds after which a budget server that is silent counts as lost."""
_SOON, _LATER = 0.05, 2.0
"""Seconds between two tries to reach a lost one: twice as many each time, from the first to the second."""
_MOST_TRIES = 8
"""So often a budget server is tried when nobody waits for it, to be told what was met."""
_MOST_WAITING = 1000
"""So many calls may wait for a limit that is known beforehand."""


class BudgetServer(Protocol):
    """Keeps the rate limits of every key for all workers that share it; it may run anywhere.

    `LocalBudget` serves the threads of a process, `nex_async.integrations.ray.RayBudget` a Ray cluster,
    `nex_async.integrations.redis.RedisBudget` whoever can reach a Redis. Give it to `SessionPool(rate_budget=...)`.
    """

    async def lease(self, ask: Ask, /) -> Lease:
        """Note what a worker met, and return what it may do.

        May raise any `Exception` when it cannot be reached: the worker sends nothing, and asks again until its calls'
        deadlines pass.
        """
        ...


class LocalBudget:
    """A budget server for the threads and event loops of one process. `limits` are those you know beforehand.

    ``LocalBudget(limits={"default": (600, 60.0)})``: at most 600 calls in any 60 seconds, all threads together. Raises
    `ConfigError` for limits that cannot be right.
    """

    def __init__(self, limits: KnownLimits | None = None) -> None:
        self._ledgers = Ledgers(limits)
        self._lock = threading.Lock()

    async def lease(self, ask: Ask, /) -> Lease:
        """See `BudgetServer`."""
        with self._lock:  # held for microseconds
            return self._ledgers.lease(ask, time.monotonic())


class Leases:
    """What a pool leases on one loop, and the tasks that ask for it; they end by themselves, or with the pool."""

    def __init__(self, server: BudgetServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server: BudgetServer = server
        self.loop: asyncio.AbstractEventLoop = loop
        self.worker: str = secrets.token_hex(8)
        self.closed: bool = False
        self._running: dict[asyncio.Task[None], LeasedLimit] = {}

    def limits(self, account: str) -> dict[Group, Limit]:
        """Return the limits of a key, which `account` names and does not tell."""
        groups: tuple[Group, ...] = ("default", "text", "connect")
        return {group: LeasedLimit(self, account, group) for group in groups}

    def start(self, limit: LeasedLimit) -> asyncio.Task[None]:
        """Start to ask for a limit."""
        task = Context().run(self.loop.create_task, limit.converse())  # it has no part in a call's deadline, or trace
        self._running[task] = limit
        task.add_done_callback(self._running.pop)
        return task

    async def close(self) -> None:
        """End what is being asked; calls that wait raise `ClientClosed`."""
        self.closed = True
        running = dict(self._running)
        for task, limit in running.items():
            task.cancel()
            limit.close()
        if running:
            await asyncio.wait(running)


class LeasedLimit:
    """A limit whose permits come from a budget server, some at a time; see `Limit`.

    While the server knows of no limit, calls go as they like and the lease is renewed behind them. Otherwise a call waits
    for one of the permits in hand, and one task asks for more as long as calls wait.
    """

    def __init__(self, leases: Leases, account: str, group: Group) -> None:
        self._leases = leases
        self._account = account
        self._group: Group = group
        self._most = _MOST_WAITING if group in PUBLISHED else inf
        self._time: Callable[[], float] = leases.loop.time
        self._waiters: deque[Waiter] = deque()
        self._permits: deque[float] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._epoch = ""
        self._standing = Standing(None, 0.0, 0.0)
        self._stood_at = 0.0
        self._free_until = 0.0
        self._due_at = 0.0
        self._passed = 0
        self._throttled = False
        self._retry_after: float | None = None
        self._gate = 0.0

    @property
    def active(self) -> bool:
        """Whether a call has to ask: not while the server knows of no limit."""
        return self._time() >= self._free_until

    @property
    def waiting(self) -> int:
        """How many calls wait for a permit."""
        return len(self._waiters)

    @property
    def rate(self) -> float | None:
        """Calls per second now allowed to all workers together; None while nothing limits them."""
        return self._standing.rate

    # ---- what a call does -------------------------------------------------------------------------------------------

    async def acquire(self, deadline: float) -> None:
        """Wait for a permit. Raises `DeadlineExceeded` as soon as none can come in time, `ClientClosed`."""
        now = self._time()
        if now < self._free_until:
            return
        if not self._waiters:
            self._let_lapse(now)
        if not self._waiters and self._permits and self._permits[0] <= now + _RESOLUTION:
            self._permits.popleft()
            return
        if self._leases.closed:
            raise ClientClosed("the pool is closed")
        due = max(self._due_at, self._gate) if len(self._waiters) >= len(self._permits) else 0.0
        if due > deadline:
            raise too_late(due - now)
        if len(self._waiters) >= self._most:
            raise RateLimitQueueFull(f"{len(self._waiters)} calls already wait for the rate limit")
        waiter = Waiter(self._leases.loop.create_future(), deadline)
        self._waiters.append(waiter)
        self._let_go()
        self._tend()
        try:
            await waiter.go
        except asyncio.CancelledError:
            self._left(waiter)
            raise

    def _left(self, waiter: Waiter) -> None:
        if waiter.go.cancelled():
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
        elif waiter.go.exception() is None and self._time() >= self._free_until:
            self._permits.appendleft(waiter.at)
        self._let_go()

    def throttled(self, now: float, retry_after: float | None) -> None:
        """Learn of a 429: here nobody sends before `retry_after` seconds have passed, elsewhere once they hear of it."""
        self._gate = max(self._gate, now + (retry_after or 0.0))
        self._free_until = 0.0
        self._permits.clear()
        self._throttled, self._retry_after = True, _longest(self._retry_after, retry_after)
        self._refuse_the_late(self._gate, now)
        self._tend()

    def succeeded(self, now: float) -> None:
        """Learn of a call that was not throttled."""
        self._passed += 1
        if self._is_stale(now):
            self._tend()

    # ---- permits in hand --------------------------------------------------------------------------------------------

    def _is_stale(self, now: float) -> bool:
        """Whether calls go freely, and the lease had better be renewed before it ends."""
        return now < self._free_until < now + FREE / 2

    def _let_lapse(self, now: float) -> None:
        while self._permits and self._permits[0] < now - _KEPT:
            self._permits.popleft()

    def _let_go(self) -> None:
        now, permits, waiters = self._time(), self._permits, self._waiters
        free = now < self._free_until
        while waiters and (waiters[0].go.done() or free or (permits and permits[0] <= now + _RESOLUTION)):
            waiter = waiters.popleft()
            if not waiter.go.done():
                waiter.at = now if free else permits.popleft()
                waiter.go.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if waiters and permits:
            self._timer = self._leases.loop.call_at(permits[0], self._let_go)

    def _refuse_the_late(self, due: float, now: float, error: Exception | None = None) -> None:
        """Let those give up at once who have no permit, and will have none before their deadline."""
        kept: deque[Waiter] = deque()
        for waiter in self._waiters:
            if waiter.go.done():
                continue
            if len(kept) < len(self._permits) or waiter.deadline >= due:
                kept.append(waiter)
            elif error is None:
                waiter.go.set_exception(too_late(due - now))
            else:
                text = f"the rate budget cannot be asked ({type(error).__name__}), and nothing is sent without it"
                failure = DeadlineExceeded(text)
                failure.__cause__ = error
                waiter.go.set_exception(failure)
        self._waiters = kept

    def close(self) -> None:
        """Let those who wait raise `ClientClosed`."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.go.done():
                waiter.go.set_exception(ClientClosed("the client was closed during the call"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- the conversation with the server ---------------------------------------------------------------------------

    def _tend(self) -> None:
        """Have the server asked, if there is anything to ask or to tell."""
        if self._task is not None:
            self._news.set()
        elif not self._leases.closed and self._has_news():
            self._task = self._leases.start(self)

    def _missing(self) -> int:
        return max(0, len(self._waiters) - len(self._permits))

    def _has_news(self) -> bool:
        return self._throttled or self._is_stale(self._time()) or self._missing() > 0

    async def converse(self) -> None:
        """Ask the server, and tell it what was met, until nobody waits and there is nothing to tell."""
        try:
            tries = 0
            while self._has_news():
                ask = self._ask()
                try:
                    lease = await asyncio.wait_for(self._leases.server.lease(ask), _ANSWER)
                except Exception as error:
                    tries += 1
                    if not await self._lost(ask, error, tries):
                        return
                    continue
                tries = 0
                self._take_in(lease)
                if self._missing():
                    await self._rest(lease.wait)
        finally:
            self._task = None

    def _ask(self) -> Ask:
        now = self._time()
        pause = max(0.0, self._gate - now, self._standing.pause - (now - self._stood_at))
        ask = Ask(
            self._account,
            self._group,
            self._leases.worker,
            self._missing(),
            self._passed,
            self._throttled,
            self._retry_after,
            self._epoch,
            self._standing._replace(pause=pause) if self._epoch else None,
        )
        self._passed, self._throttled, self._retry_after = 0, False, None
        self._news.clear()
        return ask

    def _take_in(self, lease: Lease) -> None:
        now = self._time()
        self._epoch, self._standing, self._stood_at = lease.epoch, lease.standing, now
        self._due_at = now + lease.due
        if not self._throttled:  # else it was given before the server knew of a 429 that came meanwhile
            self._free_until = now + lease.free
            self._permits.extend(now + delay for delay in lease.delays)
            self._refuse_the_late(self._due_at, now)
        self._let_go()

    async def _lost(self, ask: Ask, error: Exception, tries: int) -> bool:
        """Wait a little for a server that cannot be reached; return False to leave it at that."""
        self._passed += ask.passed
        self._throttled = self._throttled or ask.throttled
        self._retry_after = _longest(self._retry_after, ask.retry_after)
        if tries == 1:
            _log.warning(
                "the rate budget cannot be asked: %s", type(error).__name__, extra={"nex_error": type(error).__name__}
            )
        pause = min(_LATER, _SOON * 2 ** min(tries - 1, 10))
        now = self._time()
        self._refuse_the_late(now + pause, now, error)
        if not self._waiters and tries >= _MOST_TRIES:
            return False
        await asyncio.sleep(pause)
        return True

    async def _rest(self, seconds: float) -> None:
        """Wait until it is time to ask again, or until there is a 429 to tell."""
        loop = self._leases.loop
        until = loop.time() + seconds
        while not self._throttled and loop.time() < until - _RESOLUTION and self._missing():
            timer = loop.call_at(until, self._news.set)
            try:
                await self._news.wait()
            finally:
                timer.cancel()
            self._news.clear()


def _longest(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else max(one, other)
