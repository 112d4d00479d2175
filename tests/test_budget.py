"""One rate budget for many workers: what all of them together send, who comes when, and what is lost when one dies."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nex_async import Nex, RetryPolicy, SessionPool
from nex_async.emulator import Emulator
from nex_async.errors import ClientClosed, ConfigError, DeadlineExceeded, RateLimitQueueFull
from nex_async.transport.budget import Leases, LocalBudget
from nex_async.transport.ledger import FREE, HORIZON, Ask, Lease, Ledgers
from nex_async.transport.limiter import KeyState, Standing

from .harness.canary import KEY
from .harness.virtual import Call, Outcome, VirtualWire, reply, run_virtual, virtual_client
from .test_limiter import HIDDEN

ACCOUNT = "0" * 32
LATENCY = 0.05
PATIENT = RetryPolicy(retries=100, max_retry_after=3600.0)


class VirtualBudget:
    """A budget server on the virtual clock, `latency` seconds away; it can be killed, and come back without memory."""

    def __init__(self, latency: float = 0.002, limits: Any = None) -> None:
        self.latency, self._limits = latency, limits
        self.ledgers = Ledgers(limits)
        self.asks: list[Ask] = []
        self.is_dead = False

    def forget(self) -> None:
        self.ledgers = Ledgers(self._limits)

    async def lease(self, ask: Ask, /) -> Lease:
        await asyncio.sleep(self.latency / 2)
        if self.is_dead:
            raise ConnectionError("no budget server")
        self.asks.append(ask)
        lease = self.ledgers.lease(ask, asyncio.get_running_loop().time())
        await asyncio.sleep(self.latency / 2)
        return lease


class Cluster:
    """Workers, each with a client of its own, that call as fast as they may; one server with a limit they do not know."""

    def __init__(self, hidden: Any, *, workers: int, calls: int = 8, header: bool = True, budget: Any = None) -> None:
        self.hidden, self.header, self.workers, self.calls = hidden, header, workers, calls
        self.budget = budget or VirtualBudget()
        self.sent: list[tuple[float, int]] = []
        self.refused: list[tuple[float, float]] = []
        self.done = [0] * workers

    def server(self, number: int) -> Callable[[Call], Outcome]:
        def answer(call: Call) -> Outcome:
            self.sent.append((call.at, number))
            wait = self.hidden.wait(call.at)
            if not wait:
                return Outcome(LATENCY, reply())
            self.refused.append((call.at + LATENCY, wait))
            return Outcome(LATENCY, reply(429, retry_after=f"{wait:.6f}") if self.header else reply(429))

        return answer

    async def worker(self, number: int, until: float) -> None:
        loop = asyncio.get_running_loop()
        leases = Leases(self.budget, loop)
        network = VirtualWire(self.server(number), budget=1e9)
        network.keys = KeyState(1e9, leases.limits(ACCOUNT))

        async def call() -> None:
            while loop.time() < until:
                await nex.tasks.get("1")
                self.done[number] += loop.time() < until

        async with virtual_client(network, retry=PATIENT, timeout=(until - loop.time()) * 10) as nex:
            try:
                await asyncio.gather(*(call() for _ in range(self.calls)))
            finally:
                await leases.close()

    async def run(self, seconds: float) -> None:
        self.end = asyncio.get_running_loop().time() + seconds
        self.seconds = seconds
        await asyncio.gather(*(self.worker(number, self.end) for number in range(self.workers)))

    @property
    def share_refused(self) -> float:
        return len(self.refused) / len(self.sent)

    @property
    def utilisation(self) -> float:
        return sum(self.done) / (self.hidden.rate * self.seconds)


# ---- the cluster against a limit it does not know -------------------------------------------------------------------


@pytest.mark.usefixtures("few_records")
@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("name", ["2_per_second", "10_per_second", "60_per_second"])
def test_the_cluster_obeys_one_limit(name: str, workers: int) -> None:
    """However many workers share it, the limit is used, few calls are refused, and each worker gets its share."""
    cluster = Cluster(HIDDEN[name](), workers=workers)
    run_virtual(cluster.run(60.0 if name == "60_per_second" else 300.0))
    late = [at for at, _ in cluster.refused if at > cluster.end - cluster.seconds + 30.0]
    assert cluster.utilisation >= 0.90
    assert len(late) <= 0.08 * len(cluster.sent)
    assert min(cluster.done) >= 0.8 * max(cluster.done)


@pytest.mark.usefixtures("few_records")
def test_it_does_as_well_as_one_process() -> None:
    """Eight workers with one call each get what one worker with eight calls gets, within 5 %."""
    one, many = (Cluster(HIDDEN["10_per_second"](), workers=workers, calls=8 // workers) for workers in (1, 8))
    run_virtual(one.run(120.0))
    run_virtual(many.run(120.0))
    assert sum(many.done) == pytest.approx(sum(one.done), rel=0.05)


@pytest.mark.usefixtures("few_records")
def test_nobody_sends_once_a_pause_is_known() -> None:
    """A `Retry-After` that one worker meets holds all of them, but for what was let go before they could hear of it."""
    cluster = Cluster(HIDDEN["10_per_minute"](), workers=8)
    run_virtual(cluster.run(1200.0))
    shut = 0.0
    gates = deque(cluster.refused)
    early = 0
    start = cluster.end - cluster.seconds
    for at, _ in cluster.sent:
        while gates and gates[0][0] + HORIZON + FREE < at:
            heard, wait = gates.popleft()
            shut = max(shut, heard + wait)
        early += at < shut - 1e-5 and at > start + 1.0
    assert early == 0


@pytest.mark.usefixtures("few_records")
def test_a_known_limit_is_kept_from_the_first_call_on() -> None:
    """Workers that are told the limit beforehand never meet a 429."""
    cluster = Cluster(HIDDEN["10_per_minute"](), workers=8, budget=VirtualBudget(limits={"default": (10, 60.0)}))
    cluster.hidden.window, cluster.hidden.period = -1, 60.0
    run_virtual(cluster.run(1200.0))
    assert cluster.refused == []
    assert cluster.utilisation >= 0.9


# ---- one who dies ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_records")
def test_a_worker_that_dies_holds_nobody_up() -> None:
    """The share of a worker that is killed goes to the others after a moment."""
    cluster = Cluster(HIDDEN["10_per_second"](), workers=4)

    async def run() -> None:
        cluster.end = asyncio.get_running_loop().time() + 200.0
        cluster.seconds = 200.0
        running = [asyncio.ensure_future(cluster.worker(number, cluster.end)) for number in range(4)]
        await asyncio.sleep(50.0)
        for task in running[:3]:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    run_virtual(run())
    assert cluster.utilisation >= 0.9
    assert cluster.done[3] >= 0.75 * 150.0 * 10.0


@pytest.mark.usefixtures("few_records")
def test_a_budget_server_that_comes_back_without_memory_is_taught() -> None:
    """After its restart the server learns from its workers what it had known: no second discovery, no storm."""
    cluster = Cluster(HIDDEN["10_per_second"](), workers=4)

    async def run() -> None:
        running = asyncio.ensure_future(cluster.run(300.0))
        await asyncio.sleep(100.0)
        cluster.budget.is_dead = True
        await asyncio.sleep(5.0)
        before = len(cluster.sent)
        await asyncio.sleep(5.0)
        assert len(cluster.sent) == before, "nothing is sent without the budget"
        cluster.budget.is_dead = False
        cluster.budget.forget()
        await running

    run_virtual(run())
    back = cluster.end - 190.0
    assert sum(back < at < back + 20.0 for at, _ in cluster.refused) <= 3
    assert sum(back < at < back + 20.0 for at, _ in cluster.sent) <= 1.3 * 200
    assert cluster.utilisation >= 0.9


def test_a_restart_forgets_no_published_window() -> None:
    """A window that may be used up is taken to be: after a restart nobody sends for as long as it lasts."""
    first, second = Ledgers(), Ledgers()
    ask = Ask(ACCOUNT, "text", "a", 10)
    lease = first.lease(ask, 100.0)
    assert len(lease.delays) == 10
    second.lease(ask._replace(account="1" * 32), 101.0)  # of another key, which did not use it
    again = second.lease(ask._replace(epoch=lease.epoch, standing=lease.standing), 102.0)
    assert again.delays == ()
    assert again.due == pytest.approx(60.5 - 1.0)


async def test_calls_fail_in_time_when_the_budget_cannot_be_asked() -> None:
    """Nothing is sent without the budget; a call ends with an error that says so, not later than its deadline."""
    budget = VirtualBudget()
    budget.is_dead = True
    async with Emulator(keys={KEY: None}) as server, SessionPool(rate_budget=budget) as pool:
        async with Nex(KEY, base_url=server.url, pool=pool) as nex:
            with pytest.raises(DeadlineExceeded, match=r"budget cannot be asked \(ConnectionError\)"):
                await nex.objects.list(timeout=0.5)
            budget.is_dead = False
            assert await nex.objects.list(timeout=20)
    assert budget.asks


# ---- laws of the ledger ---------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.floats(0.0, 3.0),
        st.integers(0, 5),
        st.integers(0, 20),
        st.integers(0, 5),
        st.sampled_from([None, None, None, 0.0, 0.7, 5.0, "none"]),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from([None, (10, 60.0), (3, 1.0)]))
def test_permits_are_apart_whoever_has_them(steps: list[Any], known: Any) -> None:
    """Over any schedule of asks and 429s the permits of all workers together keep the limit, and no pause holds one."""
    ledgers = Ledgers({"default": known} if known else None)
    now, granted, gate = 100.0, [], 0.0
    for pause, worker, wanted, passed, throttled in steps:
        now += pause
        ask = Ask(ACCOUNT, "default", str(worker), wanted, passed)
        if throttled is not None:
            retry_after = None if throttled == "none" else throttled
            ask = ask._replace(throttled=True, retry_after=retry_after)
            gate = max(gate, now + (retry_after or 0.0))
        lease = ledgers.lease(ask, now)
        assert len(lease.delays) <= wanted
        assert all(0.0 <= delay <= HORIZON + 1e-9 for delay in lease.delays)
        assert (lease.wait > 0.0) == (len(lease.delays) < wanted and not lease.free)
        if lease.free:
            assert not lease.delays
            assert known is None
        else:
            assert all(now + delay >= gate - 1e-9 for delay in lease.delays)
            granted += [now + delay for delay in lease.delays]
    assert granted == sorted(granted), "a permit is never given for a moment before one that is out"
    if known:
        count, period = known
        assert all(later - first > period for first, later in zip(granted, granted[count:], strict=False))


def test_who_came_first_goes_first() -> None:
    """Workers in line are served in their order, one permit each, and one that is gone is passed over."""
    ledgers = Ledgers({"default": (1, 10.0)})
    asked = {worker: ledgers.lease(Ask(ACCOUNT, "default", worker, 5), 0.0) for worker in "abcd"}
    assert [len(lease.delays) for lease in asked.values()] == [1, 0, 0, 0]
    assert [lease.due for lease in asked.values()] == pytest.approx([10.5, 21.0, 31.5, 42.0])
    order, now, back = [], 0.0, {worker: lease.wait for worker, lease in asked.items() if worker != "b"}
    while len(order) < 6:
        worker = min(back, key=lambda name: back[name])
        now = back[worker]
        lease = ledgers.lease(Ask(ACCOUNT, "default", worker, 5), now)
        order += [worker] * len(lease.delays)
        back[worker] = now + lease.wait
    assert order == ["a", "c", "d", "a", "c", "d"]


def test_what_is_asked_and_leased_travels() -> None:
    """Asks and leases pickle, for they go to another process."""
    ask = Ask(ACCOUNT, "default", "a", 5, standing=Standing(1.0, 2.0, 3.0))
    assert pickle.loads(pickle.dumps(ask)) == ask
    lease = Ledgers().lease(ask, 0.0)
    assert pickle.loads(pickle.dumps(lease)) == lease


# ---- the leased limit -----------------------------------------------------------------------------------------------


def leased(budget: Any) -> tuple[Leases, Any]:
    leases = Leases(budget, asyncio.get_running_loop())
    return leases, leases.limits(ACCOUNT)["default"]


def test_a_call_beyond_its_deadline_is_told_at_once() -> None:
    """A call whose permit would come after its deadline fails without waiting for it, also when the pause comes later."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        leases, limit = leased(VirtualBudget(limits={"default": (1, 60.0)}))
        await limit.acquire(loop.time() + 1.0)
        came = loop.time()
        with pytest.raises(DeadlineExceeded) as caught:
            await limit.acquire(came + 30.0)
        assert loop.time() - came < 0.1
        assert caught.value.retry_after == pytest.approx(60.5, abs=0.1)
        waiting = asyncio.ensure_future(limit.acquire(came + 70.0))
        await asyncio.sleep(1.0)
        limit.throttled(loop.time(), 100.0)
        with pytest.raises(DeadlineExceeded):
            await waiting
        assert loop.time() - came < 2.0
        assert limit.waiting == 0
        await leases.close()

    run_virtual(main())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 5.0)), min_size=1, max_size=30))
def test_a_cancelled_call_takes_no_permit_along(steps: list[tuple[float, float]]) -> None:
    """Calls that are cancelled at any moment leave no hole: the others go as fast as the limit lets them, and no faster."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        leases, limit = leased(VirtualBudget(limits={"default": (1, 0.5)}))
        went: list[float] = []

        async def call() -> None:
            await limit.acquire(loop.time() + 1e6)
            went.append(loop.time())

        calls = []
        for pause, life in steps:
            await asyncio.sleep(pause)
            calls.append(asyncio.ensure_future(call()))
            loop.call_later(life, calls[-1].cancel)
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert all(each is None or isinstance(each, asyncio.CancelledError) for each in done)
        last = loop.time()
        await limit.acquire(last + 1e6)
        assert loop.time() - last <= 1.0 + 0.5 + HORIZON + 0.1
        assert all(later - first >= 1.0 - 0.06 for first, later in pairwise(went))
        assert limit.waiting == 0
        await leases.close()

    run_virtual(main())


def test_closing_ends_those_who_wait() -> None:
    """Calls that wait for a permit end with `ClientClosed` when the pool is closed; nothing is left running."""

    async def main() -> None:
        leases, limit = leased(VirtualBudget(limits={"default": (1, 60.0)}))
        calls = [asyncio.ensure_future(limit.acquire(1e9)) for _ in range(5)]
        await asyncio.sleep(1.0)
        await leases.close()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in done] == [type(None), *[ClientClosed] * 4]
        with pytest.raises(ClientClosed):
            await limit.acquire(1e9)

    run_virtual(main())


def test_the_published_limits_have_a_bound_on_waiting() -> None:
    """Not more than a thousand calls wait for a limit of ten a minute."""

    async def main() -> None:
        leases = Leases(VirtualBudget(), asyncio.get_running_loop())
        limit = leases.limits(ACCOUNT)["text"]
        calls = [asyncio.ensure_future(limit.acquire(1e9)) for _ in range(1100)]
        await asyncio.sleep(1.0)
        failed = [each.exception() for each in calls if each.done() and not each.cancelled() and each.exception()]
        assert 90 <= len(failed) <= 100
        assert all(isinstance(error, RateLimitQueueFull) for error in failed)
        await leases.close()
        await asyncio.gather(*calls, return_exceptions=True)

    run_virtual(main())


# ---- on a real socket -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_records")
def test_threads_share_a_local_budget() -> None:
    """Event loops in several threads, each with a pool of its own, keep one limit together."""
    budget, came = LocalBudget(limits={"default": (20, 1.0)}), []

    async def serve(until: asyncio.Event, url: list[str], ready: threading.Event) -> None:
        async with Emulator(keys={KEY: None}) as server:
            url.append(server.url)
            ready.set()
            await until.wait()

    def work(url: str) -> None:
        async def calls() -> None:
            async with SessionPool(rate_budget=budget) as pool, Nex(KEY, base_url=url, pool=pool) as nex:
                for _ in range(15):
                    await nex.objects.list()
                    came.append(asyncio.get_running_loop().time())

        asyncio.run(calls())

    async def main() -> None:
        done, url, ready = asyncio.Event(), [], threading.Event()
        serving = asyncio.ensure_future(serve(done, url, ready))
        await asyncio.to_thread(ready.wait, 10)
        threads = [threading.Thread(target=work, args=(url[0],)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        done.set()
        await serving

    asyncio.run(main())
    came.sort()
    assert len(came) == 45
    assert all(later - first >= 0.95 for first, later in zip(came, came[20:], strict=False))


@pytest.mark.parametrize(
    "limits",
    [
        {"other": (1, 1.0)},
        {"default": (0, 1.0)},
        {"default": (1, 0.0)},
        {"default": 5},
        {"text": ("a", 1)},
        {"text": (1.5, 1)},
    ],
)
def test_limits_that_cannot_be_right(limits: Any) -> None:
    """A limit that is none is refused before anything is sent."""
    with pytest.raises(ConfigError, match="limits"):
        LocalBudget(limits)


def test_a_pool_wants_a_budget_server() -> None:
    """What cannot lease is no budget server."""
    with pytest.raises(ConfigError, match="rate_budget"):
        SessionPool(rate_budget=object())  # type: ignore[arg-type]
