"""Random schedules of creates, over a server that really makes what it is asked for, and fails before or after."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from nex_async import DeadlineExceeded, Nex, NexError, OutcomeUnknownError, SessionPool, Timeouts, deadline
from nex_async.errors import APIError, RetryBudgetExhausted, TransportError
from nex_async.routes import Route
from nex_async.transport.retry import RetryPolicy
from tests.harness.canary import KEY
from tests.harness.virtual import MemoryConnector, MemoryTransport, run_virtual
from tests.test_operations import Case, perform

from .faulty import CALLS, FAULTS, MAX_BODY, Fault, body_of, unreachable

__all__ = ["CREATES", "Schedule", "Tally", "run_schedule"]

CREATES = [(route, case) for route, case in CALLS if route.retry in ("create", "costly")]
"""The operations that make something, or cost something, each time they are sent."""
_UNREACHABLE = [fault.name for fault in FAULTS if not fault.reached]
_REACHED = [fault for fault in FAULTS if fault.reached]
_REPEATED = [fault for fault in _REACHED if fault.kind in ("throttled", "refused")]
LATE = 20.0
"""Seconds after which a request whose reply was lost may still act."""


@dataclass
class Schedule:
    """The world of one schedule: what was sent, and what it made, by the mark of each call."""

    draw: random.Random
    faulty: float
    sent: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    hopes: dict[str, bytes] = field(default_factory=dict)
    """The reply of a success, by the mark of its call."""

    def connecting(self, origin: Any) -> None:
        if self.draw.random() < self.faulty / 2:
            raise unreachable(self.draw.choice(_UNREACHABLE), origin)

    def respond(self, transport: MemoryTransport, data: bytes) -> None:
        found = re.search(rb"\r\nX-Mark: (\S+)\r\n", data)
        assert found is not None, data
        mark = found[1].decode()
        self.sent[mark] += 1
        delay = self.draw.uniform(0.001, 0.2)
        if self.draw.random() >= self.faulty:
            self._make(mark)
            transport.feed(delay, self.hopes[mark])
            if self.draw.random() < 0.3:
                transport.end(delay + self.draw.uniform(0.0, 0.3))  # it may well be in the middle of the next call
            return
        fault: Fault = self.draw.choice(_REACHED if self.draw.random() < 0.6 else _REPEATED)
        if fault.acts or (fault.acts is None and self.draw.random() < 0.5):
            late = self.draw.uniform(0.0, LATE) if self.draw.random() < 0.2 and fault.acts is None else 0.0
            if late:
                asyncio.get_running_loop().call_later(late, self._make, mark)
            else:
                self._make(mark)
        fault.play(transport, delay)

    def _make(self, mark: str) -> None:
        self.made[mark] += 1


@dataclass
class Tally:
    """The sums of many schedules, and what was wrong in them."""

    calls: int = 0
    repeats: int = 0
    """Requests that were sent again."""
    succeeded: int = 0
    failed: int = 0
    unknown: int = 0
    unknown_made: int = 0
    cancelled: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add the sums of others."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def run_schedule(seed: int) -> Tally:
    """Run one schedule on a virtual clock; return its sums and every promise that it broke."""
    draw = random.Random(seed)
    random.seed(seed)  # the jitter of waits
    schedule = Schedule(draw, draw.choice((0.1, 0.3, 0.6, 0.9)))
    ends = run_virtual(_play(schedule))
    tally = Tally(calls=len(ends), repeats=sum(schedule.sent.values()) - len(schedule.sent))
    for mark, end in ends.items():
        problem = _judge(tally, end, schedule.sent[mark], schedule.made[mark])
        if problem:
            tally.problems.append(f"seed {seed}, call {mark}: {problem} ({end!r})")
    return tally


async def _play(schedule: Schedule) -> dict[str, BaseException | None]:
    draw = schedule.draw
    connector = MemoryConnector(schedule.respond, draw.choice((0.0, 0.05)), connecting=schedule.connecting)
    policy = RetryPolicy(retries=draw.choice((None, None, 0, 1, 3, 6)), budget=draw.choice((100.0, 1e6)))
    timeouts = Timeouts(total=draw.choice((None, 4.0, 60.0, 600.0)), read=draw.choice((None, 1.0, 5.0)))
    ends: dict[str, BaseException | None] = {}

    async def one(mark: str, route: Route[Any], case: Case) -> None:
        schedule.hopes[mark] = body_of(case, route.status)
        await asyncio.sleep(draw.uniform(0.0, 3.0))
        if draw.random() < 0.1:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(draw.expovariate(3.0), task.cancel)
        view = nex.with_options(headers={"X-Mark": mark})
        try:
            if draw.random() < 0.1:
                with deadline(draw.uniform(0.1, 5.0)):
                    await perform(case.call(view))
            else:
                await perform(case.call(view))
        except BaseException as error:
            ends[mark] = error
            if not isinstance(error, NexError):
                raise
        else:
            ends[mark] = None

    async with SessionPool(connector_factory=connector, max_connections=draw.choice((1, 2, 8)), max_body=MAX_BODY) as pool:
        async with Nex(KEY, base_url="http://127.0.0.1:9", pool=pool, retry=policy, timeout=timeouts) as nex:
            count = draw.randint(4, 16)
            await asyncio.wait([asyncio.ensure_future(one(str(n), *draw.choice(CREATES))) for n in range(count)])
            await asyncio.sleep(LATE)
    return ends


def _judge(tally: Tally, end: BaseException | None, sent: int, made: int) -> str | None:
    if made > 1:
        return f"made {made} times"
    if end is None:
        tally.succeeded += 1
        return None if made == 1 else "said to be made, and was not"
    if isinstance(end, asyncio.CancelledError):
        tally.cancelled += 1
        return None
    if not isinstance(end, NexError):
        return "an error that is none of ours"
    if sent > len(end.attempts):
        return f"sent {sent} times, and {len(end.attempts)} attempts reported"
    if isinstance(end, OutcomeUnknownError):
        tally.unknown += 1
        tally.unknown_made += made
        return None
    tally.failed += 1
    certain = isinstance(end, (APIError, RetryBudgetExhausted)) or (
        isinstance(end, (TransportError, DeadlineExceeded)) and end.sent == "no"
    )
    return "said not to be made, and was" if certain and made else None
