"""Scheduler: polls any number of things, each at its own pace, with one heap, one timer and a bounded number of requests."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from abc import ABC, abstractmethod
from collections.abc import Hashable
from contextvars import Context, copy_context
from itertools import count

from ..errors import ClientClosed, NexError
from ..transport.options import outer_deadline
from ..transport.state import ClientState, running_loop

__all__ = ["Polled", "Scheduler", "scheduler_of", "watched_jobs"]

_RESOLUTION = 1e-6
_GONE = -1


class Polled(ABC):
    """Something that is polled again and again, until it is removed from its scheduler."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.due: float = 0.0
        """When the next poll is due, in the loop's time."""
        self.ticket: int = _GONE
        """The number of its valid entry in the scheduler's heap."""
        self.task: asyncio.Task[None] | None = None
        """The poll in flight."""
        self.context: Context = copy_context()
        self.context.run(outer_deadline.set, None)  # who asks first does not lend his deadline to the others

    @abstractmethod
    async def poll(self) -> None:
        """Poll once. Raises nothing."""

    @abstractmethod
    def next_pause(self) -> float:
        """Return the seconds until the next poll; asked once after each."""

    @abstractmethod
    def stop(self, error: NexError) -> None:
        """Learn that it is polled no more, and why."""


class Scheduler:
    """Polls what it was given, on one loop, until each was removed or the client is closed.

    No task runs but the polls in flight, of which there are at most 64. A crowd that comes at once is spread over its
    interval, and however many there are, no more than 200 polls begin in a second: the most the rate limiter allows for.
    """

    MOST_IN_FLIGHT = 64
    PER_SECOND = 200.0
    CROWD = 20
    """As many as this are spread over their whole interval; fewer over less, and a single one is polled at once."""

    def __init__(self, state: ClientState, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._state = state
        self._polled: dict[Hashable, Polled] = {}
        self._heap: list[tuple[float, int, Polled]] = []
        self._tasks: dict[asyncio.Task[None], Polled] = {}
        self._tickets = count()
        self._next_start = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._polled)

    def find(self, key: Hashable) -> Polled | None:
        """Return what is polled under a key."""
        return self._polled.get(key)

    def add(self, polled: Polled, spread: float) -> None:
        """Begin to poll something: at once if it is alone, within `spread` seconds if it is one of many."""
        self._state.owned.add(self)
        self._polled[polled.key] = polled
        share = min(1.0, (len(self._polled) - 1) / self.CROWD)
        self._plan(polled, random.uniform(0.0, spread * share))

    def hasten(self, polled: Polled, delay: float) -> None:
        """Have the next poll begin in `delay` seconds, if it would begin later."""
        if polled.task is None and polled.ticket != _GONE and polled.due > self.loop.time() + delay:
            self._plan(polled, delay)

    def remove(self, polled: Polled) -> asyncio.Task[None] | None:
        """Poll something no more. Return its poll in flight, which is cancelled; a poll may remove what it polls itself."""
        if self._polled.get(polled.key) is not polled:
            return None
        del self._polled[polled.key]
        polled.ticket = _GONE
        if not self._polled:
            self._rest()
        elif len(self._heap) > 2 * len(self._polled) + 64:
            self._heap = [entry for entry in self._heap if entry[1] == entry[2].ticket]
            heapq.heapify(self._heap)
        task = polled.task
        if task is None or task is _current_task():
            return None
        task.cancel()
        return task

    def abort(self) -> None:
        """End everything at once; those who wait learn that the client was closed. May be called from any thread."""
        if running_loop() is self.loop:
            self._end()
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed, and nothing runs on it
                self.loop.call_soon_threadsafe(self._end)

    async def over(self) -> None:
        """Wait until the polls that were cancelled have ended; returns at once where they are another loop's."""
        tasks = [task for task in self._tasks if task is not _current_task()]
        if tasks and running_loop() is self.loop:
            await asyncio.wait(tasks)

    def _end(self) -> None:
        left, self._polled = list(self._polled.values()), {}
        self._rest()
        for polled in left:
            polled.ticket = _GONE
            if polled.task is not None:
                polled.task.cancel()
            polled.stop(ClientClosed("the client was closed"))

    def _rest(self) -> None:
        self._state.owned.discard(self)
        self._heap.clear()
        self._disarm()

    # ---- one poll after the other -----------------------------------------------------------------------------------

    def _plan(self, polled: Polled, delay: float) -> None:
        polled.due, polled.ticket = self.loop.time() + delay, next(self._tickets)
        heapq.heappush(self._heap, (polled.due, polled.ticket, polled))
        self._start_due()

    def _start_due(self) -> None:
        """Begin the polls that are due, as far as pace and bound allow; set the timer for the next."""
        now = self.loop.time()
        while self._heap and len(self._tasks) < self.MOST_IN_FLIGHT:
            due, ticket, polled = self._heap[0]
            if ticket == polled.ticket:
                at = max(due, self._next_start)
                if at > now + _RESOLUTION:
                    self._arm(at)
                    return
            heapq.heappop(self._heap)
            if ticket == polled.ticket:
                self._next_start = max(now, self._next_start) + 1.0 / self.PER_SECOND
                self._start(polled)

    def _start(self, polled: Polled) -> None:
        task: asyncio.Task[None] = polled.context.run(self.loop.create_task, polled.poll())
        polled.task = task
        self._tasks[task] = polled
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        polled = self._tasks.pop(task, None)
        if not task.cancelled():
            task.exception()
        if polled is not None and polled.ticket != _GONE:
            polled.task = None
            self._plan(polled, polled.next_pause())
        else:
            self._start_due()

    def _arm(self, at: float) -> None:
        if self._timer is not None and self._timer.when() <= at:
            return  # it finds nothing to do, and is set anew
        self._disarm()
        self._timer = self.loop.call_at(at, self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._start_due()


def scheduler_of(state: ClientState) -> Scheduler:
    """Return the scheduler of a client on the running loop, made now if need be. Raises `ClientClosed`."""
    if state.closed:
        raise ClientClosed("the client is closed")
    loop = asyncio.get_running_loop()
    schedulers: dict[asyncio.AbstractEventLoop, Scheduler] = state.shared.setdefault("schedulers", {})
    found = schedulers.get(loop)
    if found is None:
        for other in [other for other in schedulers if other.is_closed()]:
            del schedulers[other]
        found = schedulers[loop] = Scheduler(state, loop)
    return found


def watched_jobs(state: ClientState) -> int:
    """Return how many things a client polls at present, on all loops."""
    return sum(len(scheduler) for scheduler in list(state.shared.get("schedulers", {}).values()))


def _current_task() -> asyncio.Task[object] | None:
    return None if running_loop() is None else asyncio.current_task()
