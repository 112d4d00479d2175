"""A cluster in a model: many workers, the real ledgers of the rate budget, a server with a limit that nobody was told.

A discrete simulation on a clock of its own. Nothing is sent and nothing waits: minutes of a thousand workers take seconds.
The budget is `nex_async.transport.ledger.Ledgers` itself; where there is none, each worker has an `AdaptiveLimit` of its
own, as a client without `rate_budget=` has. Modelled are a worker's calls, what it leases (step by step as
`nex_async.transport.budget.LeasedLimit` does), its one core, and the network.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

from nex_async.transport.ledger import FREE, Ask, KnownLimits, Lease, Ledgers, SharedLimit
from nex_async.transport.limiter import AdaptiveLimit, Standing
from nex_async.transport.retry import Retry, RetryPolicy, decide

START = 1020.0
"""Where windows of a minute, a second and ten begin."""
KEPT = 0.5
SOON, LATER, TRIES = 0.05, 2.0, 8
RESOLUTION = 1e-6
PATIENT = RetryPolicy(retries=100, max_retry_after=3600.0)


class Clock:
    """What happens when, in order."""

    def __init__(self) -> None:
        self.now = START
        self.events = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, moment: float, do: Callable[..., None], *arguments: Any) -> None:
        self.events += 1
        heapq.heappush(self._heap, (moment, self.events, do, arguments))

    def run(self, until: float = inf) -> None:
        """Let everything happen that is due before `until`."""
        heap = self._heap
        while heap and heap[0][0] < until:
            self.now, _, do, arguments = heapq.heappop(heap)
            do(*arguments)


# ---- servers --------------------------------------------------------------------------------------------------------


class Hidden(Protocol):
    """A server's limit."""

    rate: float

    def wait(self, now: float) -> float:
        """Let a call pass (0), or return how long until the next may."""
        ...


class Window:
    """Lets `count` calls pass in each window of `period` seconds."""

    def __init__(self, count: int, period: float) -> None:
        self.count, self.period, self.burst = count, period, count
        self.rate = count / period
        self._window, self._used = -1, 0

    def wait(self, now: float) -> float:
        window = int(now // self.period)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used < self.count:
            self._used += 1
            return 0.0
        return (window + 1) * self.period - now


class Bucket:
    """A token bucket that holds `burst` calls."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._tokens, self._at = float(burst), 0.0

    def wait(self, now: float) -> float:
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.rate


class Unlimited:
    """Lets everything pass."""

    rate = inf
    burst = 0

    def wait(self, now: float) -> float:
        return 0.0


class Budget:
    """The budget server: real ledgers, `latency` seconds there and back, one ask at a time of `service` seconds each."""

    def __init__(self, clock: Clock, setup: Setup) -> None:
        self.clock, self.setup = clock, setup
        self.ledgers = Ledgers(setup.known)
        self.asks: list[float] = []
        self.longest = 0.0
        self._free_at = 0.0

    def ask(self, ask: Ask, answer: Callable[[Lease | None], None]) -> None:
        """Take an ask on its way; `answer` is called with the lease, or with None when nobody is there."""
        self.clock.at(self.clock.now + self.setup.budget_latency / 2, self._arrived, ask, answer, self.clock.now)

    def _arrived(self, ask: Ask, answer: Callable[[Lease | None], None], sent: float) -> None:
        now, down = self.clock.now, self.setup.budget_down
        if down is not None and START + down[0] <= now < START + down[1]:
            self.clock.at(now, answer, None)
            return
        self._free_at = max(self._free_at, now) + self.setup.budget_service
        self.clock.at(self._free_at, self._answered, ask, answer, sent)

    def _answered(self, ask: Ask, answer: Callable[[Lease | None], None], sent: float) -> None:
        now = self.clock.now
        self.asks.append(now)
        lease = self.ledgers.lease(ask, now)
        back = now + self.setup.budget_latency / 2
        self.longest = max(self.longest, back - sent)
        self.clock.at(back, answer, lease)

    def forget(self) -> None:
        """Start anew, without memory."""
        self.ledgers = Ledgers(self.setup.known)


# ---- the limit as a worker has it -----------------------------------------------------------------------------------


class Leased:
    """What a worker leases for one tenant: `LeasedLimit` as a model, with events where that has tasks."""

    def __init__(self, worker: Worker, account: str) -> None:
        self._worker, self._account = worker, account
        self._clock, self._budget, self._end = worker.cluster.clock, worker.cluster.budget, worker.cluster.end
        self._waiters: deque[Caller] = deque()
        self._permits: deque[float] = deque()
        self._timer = 0.0
        self._is_asking = self._is_resting = False
        self._rest = 0
        self._tries = 0
        self._epoch = ""
        self._standing = Standing(None, 0.0, 0.0)
        self._stood_at = self._free_until = self._gate = 0.0
        self._passed = 0
        self._throttled = False
        self._retry_after: float | None = None

    def acquire(self, caller: Caller) -> None:
        """Let a call go when it may."""
        now = self._clock.now
        if now < self._free_until:
            caller.send()
            return
        self._let_lapse(now)
        if not self._waiters and self._permits and self._permits[0] <= now + RESOLUTION:
            self._permits.popleft()
            caller.send()
            return
        self._waiters.append(caller)
        self._let_go()
        self._tend()

    def throttled(self, now: float, retry_after: float | None) -> None:
        self._gate = max(self._gate, now + (retry_after or 0.0))
        self._free_until = 0.0
        self._permits.clear()
        self._throttled, self._retry_after = True, _longest(self._retry_after, retry_after)
        self._tend()

    def succeeded(self, now: float) -> None:
        self._passed += 1
        if now < self._free_until < now + FREE / 2:
            self._tend()

    def _let_lapse(self, now: float) -> None:
        while self._permits and self._permits[0] < now - KEPT:
            self._permits.popleft()

    def _let_go(self) -> None:
        now, permits, waiters = self._clock.now, self._permits, self._waiters
        self._let_lapse(now)
        free = now < self._free_until
        while waiters and (free or (permits and permits[0] <= now + RESOLUTION)):
            if not free:
                permits.popleft()
            waiters.popleft().send()
        if waiters and permits and self._timer != permits[0]:
            self._timer = permits[0]
            self._clock.at(self._timer, self._rang, self._timer)

    def _rang(self, moment: float) -> None:
        if moment == self._timer and not self._worker.is_dead:
            self._timer = 0.0
            self._let_go()

    def _missing(self) -> int:
        return max(0, len(self._waiters) - len(self._permits))

    def _has_news(self, now: float) -> bool:
        return self._throttled or now < self._free_until < now + FREE / 2 or self._missing() > 0

    def _tend(self) -> None:
        if self._is_asking:
            return
        if not self._is_resting or self._throttled or not self._missing():
            self._turn()

    def _turn(self) -> None:
        """Ask, unless there is nothing to ask or to tell."""
        now = self._clock.now
        self._is_resting = False
        if now >= self._end or not self._has_news(now):
            return
        pause = max(0.0, self._gate - now, self._standing.pause - (now - self._stood_at))
        standing = self._standing._replace(pause=pause) if self._epoch else None
        ask = Ask(
            self._account, "default", self._worker.name, self._missing(), self._passed, self._throttled,
            self._retry_after, self._epoch, standing,
        )  # fmt: skip
        self._passed, self._throttled, self._retry_after = 0, False, None
        self._is_asking = True
        self._budget.ask(ask, lambda lease: self._answered(ask, lease))

    def _answered(self, ask: Ask, lease: Lease | None) -> None:
        if self._worker.is_dead:
            return
        now = self._clock.now
        if lease is None:
            self._passed += ask.passed
            self._throttled = self._throttled or ask.throttled
            self._retry_after = _longest(self._retry_after, ask.retry_after)
            self._tries += 1
            if not self._waiters and self._tries >= TRIES:
                self._is_asking, self._tries = False, 0
            else:
                self._clock.at(now + min(LATER, SOON * 2 ** (self._tries - 1)), self._again)
            return
        self._tries, self._is_asking = 0, False
        self._epoch, self._standing, self._stood_at = lease.epoch, lease.standing, now
        if not self._throttled:
            self._free_until = now + lease.free
            self._permits.extend(now + delay for delay in lease.delays)
        self._is_asking = True  # what goes now must not ask by itself
        self._let_go()
        self._is_asking = False
        if self._missing() and not self._throttled:
            self._rest += 1
            self._is_resting = True
            self._clock.at(now + lease.wait, self._rested, self._rest)
        else:
            self._turn()

    def _again(self) -> None:
        if not self._worker.is_dead:
            self._is_asking = False
            self._turn()

    def _rested(self, number: int) -> None:
        if number == self._rest and self._is_resting and not self._worker.is_dead:
            self._turn()


class Alone:
    """A limit that a worker learns for itself: the real `AdaptiveLimit`, its line kept here."""

    def __init__(self, worker: Worker, _account: str) -> None:
        self._worker, self._clock = worker, worker.cluster.clock
        self._limit = AdaptiveLimit()
        self._waiters: deque[Caller] = deque()
        self._timer = 0.0

    def acquire(self, caller: Caller) -> None:
        if not self._limit.active:
            caller.send()
            return
        self._waiters.append(caller)
        self._let_go()

    def throttled(self, now: float, retry_after: float | None) -> None:
        self._limit.throttled(now, retry_after)
        self._let_go()

    def succeeded(self, now: float) -> None:
        self._limit.succeeded(now)

    def _let_go(self) -> None:
        now, waiters, limit = self._clock.now, self._waiters, self._limit
        while waiters and limit.slot(0, now) <= now + RESOLUTION:
            limit.take_next(now)
            waiters.popleft().send()
        if waiters and self._timer != (slot := limit.slot(0, now)):
            self._timer = slot
            self._clock.at(slot, self._rang, slot)

    def _rang(self, moment: float) -> None:
        if moment == self._timer and not self._worker.is_dead:
            self._timer = 0.0
            self._let_go()


def _longest(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else max(one, other)


# ---- workers --------------------------------------------------------------------------------------------------------


@dataclass
class Task:
    """A partition: some pages of a tenant."""

    tenant: Tenant
    size: float = inf
    left: float = inf


@dataclass
class Tenant:
    """A key, its limit, and how far it has come."""

    number: int
    hidden: Hidden
    pages: float = inf
    done: int = 0
    ended: float = inf

    @property
    def account(self) -> str:
        return f"{self.number:032x}"


class Caller:
    """One of the calls that a worker has in flight at a time."""

    __slots__ = ("_attempt", "_limit", "_task", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._attempt = 0
        self._task: Task | None = None
        self._limit: Leased | Alone | None = None

    def start(self) -> None:
        """Begin with the next page."""
        worker = self.worker
        cluster, task = worker.cluster, worker.task
        if worker.is_dead or cluster.clock.now >= cluster.end:
            return
        if task is None or task.left <= 0:
            worker.rest()
            return
        task.left -= 1
        self._task, self._attempt, self._limit = task, 0, worker.limit(task.tenant)
        self._limit.acquire(self)

    def send(self) -> None:
        cluster, task = self.worker.cluster, self._task
        assert task is not None
        now = cluster.clock.now
        if now >= cluster.end:
            return
        self._attempt += 1
        cluster.sent += 1
        wait = task.tenant.hidden.wait(now)
        cluster.clock.at(now + cluster.latency(), self._replied, wait)

    def _replied(self, wait: float) -> None:
        worker, task, limit = self.worker, self._task, self._limit
        cluster = worker.cluster
        now, setup = cluster.clock.now, cluster.setup
        assert task is not None
        assert limit is not None
        if wait:
            cluster.refused.append(now)
            if worker.is_dead:
                return
            retry_after = wait if setup.header else None
            limit.throttled(now, retry_after)
            verdict = decide(
                "read", "throttled", self._attempt, PATIENT, retry_after=retry_after, draw=cluster.random.random()
            )
            delay = verdict.delay if isinstance(verdict, Retry) else PATIENT.throttle_cap
            cluster.clock.at(now + delay, self._again)
            return
        cluster.passed += 1
        if worker.is_dead:
            cluster.wasted += 1
            return
        limit.succeeded(now)
        worker.done += now < cluster.end
        tenant = task.tenant
        tenant.done += 1
        if tenant.done >= tenant.pages:
            tenant.ended = now
        worker.busy_until = max(worker.busy_until, now) + setup.page_cpu
        if setup.page_cpu:
            cluster.clock.at(worker.busy_until, self.start)
        else:
            self.start()

    def _again(self) -> None:
        if not self.worker.is_dead and self._limit is not None:
            self._limit.acquire(self)


class Worker:
    """A process with one core and one client, that reads a partition at a time, with several calls in flight."""

    def __init__(self, cluster: Cluster, number: int, name: str) -> None:
        self.cluster, self.number, self.name = cluster, number, name
        self.is_dead = False
        self.done = 0
        self.busy_until = 0.0
        self.task: Task | None = None
        self._resting = 0
        self._callers = [Caller(self) for _ in range(cluster.setup.concurrency)]
        self._limits: dict[int, Leased | Alone] = {}

    def limit(self, tenant: Tenant) -> Leased | Alone:
        found = self._limits.get(tenant.number)
        if found is None:
            kind = Leased if self.cluster.setup.shared else Alone
            found = self._limits[tenant.number] = kind(self, tenant.account)
        return found

    def take(self, task: Task | None) -> None:
        """Begin with a partition."""
        self.task, self._resting = task, 0
        if task is not None:
            for caller in self._callers:
                caller.start()

    def rest(self) -> None:
        """Note that a call has nothing to do; when none has, take the next partition."""
        self._resting += 1
        if self._resting == len(self._callers):
            self.cluster.clock.at(self.cluster.clock.now, self._take_next)

    def _take_next(self) -> None:
        if not self.is_dead:
            self.take(self.cluster.next_task(self.task))

    def die(self) -> None:
        """Be killed: what was read of the partition is read again by the next."""
        cluster, task = self.cluster, self.task
        self.is_dead = True
        if task is not None and task.size < inf:
            in_flight = len(self._callers) - self._resting
            read = max(0, int(task.size - task.left) - in_flight)
            cluster.wasted += read
            task.tenant.done -= read
            task.left = task.size


# ---- the cluster ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """What is simulated. Times in seconds."""

    workers: int = 1
    seconds: float = 60.0
    concurrency: int = 8
    """Calls that a worker has in flight at most."""
    latency: float = 0.05
    """The median of a reply's time."""
    spread: float = 0.0
    """Of its logarithm: with 0 each takes the median, with 0.5 one in a hundred takes 3.2 times as long."""
    page_cpu: float = 0.0
    """What a worker's core does for each reply."""
    header: bool = True
    """Whether a 429 has a `Retry-After`."""
    shared: bool = True
    """Whether there is one budget; otherwise each worker learns for itself."""
    known: KnownLimits | None = None
    """Limits that the budget is told."""
    off: float = SharedLimit.OFF
    """The rate from which on the budget limits nothing."""
    budget_latency: float = 0.002
    budget_service: float = 0.0
    """What the budget server needs for an ask; it takes one at a time."""
    budget_down: tuple[float, float] | None = None
    """From when to when it cannot be reached. It comes back without memory."""
    deaths: float = 0.0
    """Per worker and hour."""
    restart: float = 10.0
    """After a death, until another worker begins."""
    partition: float = inf
    """Pages in a partition."""
    seed: int = 0


@dataclass
class Found:
    """What a run showed."""

    workers: int
    utilisation: float
    """Calls that were done over those that the limit allows in the long run."""
    refused: float
    """The share of 429 in what was sent."""
    refused_late: float
    """The same after the first 30 seconds, over all that was sent since."""
    asks: float
    """Asks per second at the budget server."""
    asks_peak: int
    """The most in one second."""
    fairness: float
    """Jain's index of what the workers did: 1 is equal, 1 / workers is one that has everything."""
    sent: int
    passed: int
    refusals: int
    done: int
    wasted: int
    """Calls whose worker died before they counted."""
    slowest_answer: float
    events: int


@dataclass
class Cluster:
    """Workers and a server, ready to run."""

    setup: Setup
    tenants: list[Tenant]
    tasks: deque[Task] | None = None
    """Partitions in the order in which they are taken; None for as many as there is time for, of the first tenant."""
    most_at_a_time: int | None = None
    """So many partitions of one tenant are read at a time, at most."""
    sent: int = 0
    passed: int = 0
    wasted: int = 0
    refused: list[float] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    sent_early: int = 0

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.random = random.Random(self.setup.seed)
        self.end = START + self.setup.seconds
        self.budget = Budget(self.clock, self.setup)
        self._running: dict[int, int] = {}
        self._idle: list[Worker] = []

    def latency(self) -> float:
        setup = self.setup
        return setup.latency * self.random.lognormvariate(0.0, setup.spread) if setup.spread else setup.latency

    def next_task(self, ended: Task | None = None) -> Task | None:
        """Return the next partition that may be read."""
        setup, tasks, running = self.setup, self.tasks, self._running
        if tasks is None:
            return Task(self.tenants[0], setup.partition, setup.partition)
        if ended is not None:
            running[ended.tenant.number] -= 1
        for _ in range(len(tasks)):
            task = tasks.popleft()
            if self.most_at_a_time is None or running.get(task.tenant.number, 0) < self.most_at_a_time:
                running[task.tenant.number] = running.get(task.tenant.number, 0) + 1
                return task
            tasks.append(task)
        return None

    def run(self) -> Found:
        """Run to the end, and let what is in flight then come in."""
        setup, clock = self.setup, self.clock
        off, SharedLimit.OFF = SharedLimit.OFF, setup.off
        try:
            for number in range(setup.workers):
                worker = Worker(self, number, f"worker-{number}")
                self.workers.append(worker)
                clock.at(START, self._begin, worker, None)
            if setup.budget_down is not None:
                clock.at(START + setup.budget_down[1], self.budget.forget)
            clock.at(START + 30.0, self._early)
            clock.run(self.end)
            clock.run(self.end + 3600.0 + setup.latency)
        finally:
            SharedLimit.OFF = off
        return self._found()

    def _early(self) -> None:
        self.sent_early = self.sent

    def _begin(self, worker: Worker, task: Task | None) -> None:
        if self.setup.deaths:
            clock = self.clock
            clock.at(clock.now + self.random.expovariate(self.setup.deaths / 3600.0), self._kill, worker, 0)
        worker.take(self.next_task() if task is None else task)

    def _kill(self, worker: Worker, times: int) -> None:
        if self.clock.now >= self.end:
            return
        worker.die()
        another = Worker(self, worker.number, f"{worker.name}'")
        another.done = worker.done
        self.workers[worker.number] = another
        self.clock.at(self.clock.now + self.setup.restart, self._begin, another, worker.task)

    def _found(self) -> Found:
        setup = self.setup
        done = [worker.done for worker in self.workers]
        late = sum(at > START + 30.0 for at in self.refused)
        seconds: dict[int, int] = {}
        for at in self.budget.asks:
            if at < self.end:
                seconds[int(at)] = seconds.get(int(at), 0) + 1
        allowed = sum(tenant.hidden.rate for tenant in self.tenants) * setup.seconds
        return Found(
            workers=setup.workers,
            utilisation=sum(done) / allowed,
            refused=len(self.refused) / max(1, self.sent),
            refused_late=late / max(1, self.sent - self.sent_early),
            asks=sum(seconds.values()) / setup.seconds,
            asks_peak=max(seconds.values(), default=0),
            fairness=jain(done),
            sent=self.sent,
            passed=self.passed,
            refusals=len(self.refused),
            done=sum(done),
            wasted=self.wasted,
            slowest_answer=self.budget.longest,
            events=self.clock.events,
        )


def simulate(setup: Setup, hidden: Hidden) -> Found:
    """Return what one tenant meets whose workers call as fast as they may."""
    return Cluster(setup, [Tenant(0, hidden)]).run()


def jain(shares: list[float] | list[int]) -> float:
    """Return Jain's index of fairness: 1 where all shares are equal."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
