"""The limits of a key: the contest of the adaptive limit against hidden ones, and the laws of the published windows."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nex_async import RetryPolicy
from nex_async.errors import DeadlineExceeded, NexError, RateLimitError, RateLimitQueueFull
from nex_async.transport.limiter import AdaptiveLimit, RetryBudget, WindowLimit
from nex_async.transport.wire import Reply

from .harness.virtual import Call, Outcome, VirtualWire, reply, run_virtual, virtual_client

FAR = 1e9


async def failure(call: Any, kind: type[NexError]) -> Any:
    with pytest.raises(kind) as caught:
        await call
    return caught.value


# ---- the contest ----------------------------------------------------------------------------------------------------


class FixedWindow:
    """A server that lets `count` calls pass in each window of `period` seconds."""

    def __init__(self, count: int, period: float) -> None:
        self.count, self.period = count, period
        self.rate = count / period
        self.window, self.used = -1, 0

    def wait(self, now: float) -> float:
        """Let a call pass (0), or return how long until the next may."""
        window = int(now // self.period)
        if window != self.window:
            self.window, self.used = window, 0
        if self.used < self.count:
            self.used += 1
            return 0.0
        return (window + 1) * self.period - now


class Bucket:
    """A server with a token bucket."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.tokens, self.at = float(burst), 0.0

    def wait(self, now: float) -> float:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) / self.rate


HIDDEN: dict[str, Callable[[], FixedWindow | Bucket]] = {
    "10_per_minute": lambda: FixedWindow(10, 60.0),
    "2_per_second": lambda: Bucket(2.0, 5),
    "10_per_second": lambda: Bucket(10.0, 20),
    "60_per_second": lambda: Bucket(60.0, 100),
}
PATIENT = RetryPolicy(retries=100, max_retry_after=3600.0)
LATENCY = 0.05


class Contest:
    """Sixteen workers that call as fast as they may, against a limit they do not know."""

    def __init__(self, hidden: FixedWindow | Bucket, *, header: bool, seconds: float) -> None:
        self.hidden, self.header, self.seconds = hidden, header, seconds
        self.refused: list[tuple[float, float]] = []
        self.network = VirtualWire(self.server, budget=1e9)
        run_virtual(self.main())
        calls = sum(at < self.end for at in self.network.times)
        self.share_refused = len(self.refused) / calls
        self.utilisation = (calls - len(self.refused)) / (hidden.rate * seconds)

    def server(self, call: Call) -> Outcome:
        wait = self.hidden.wait(call.at)
        if not wait:
            return Outcome(LATENCY, reply())
        self.refused.append((call.at + LATENCY, wait))
        return Outcome(LATENCY, reply(429, retry_after=f"{wait:.6f}") if self.header else reply(429))

    async def main(self) -> None:
        loop = asyncio.get_running_loop()
        self.end = loop.time() + self.seconds

        async def worker() -> None:
            while loop.time() < self.end:
                await nex.tasks.get("1")

        async with virtual_client(self.network, retry=PATIENT, timeout=self.seconds * 10) as nex:
            await asyncio.gather(*[worker() for _ in range(16)])


def seconds_for(name: str) -> float:
    return {"60_per_second": 400.0, "10_per_second": 1200.0}.get(name, 3600.0)  # a call costs real time: 24,000 are enough


@pytest.mark.usefixtures("few_records")
@pytest.mark.parametrize("name", HIDDEN)
def test_with_retry_after_the_hidden_limit_is_used_and_respected(name: str) -> None:
    """Told when to come back, 16 workers use 90 % of an unknown limit, few calls are refused, none is sent too early."""
    contest = Contest(HIDDEN[name](), header=True, seconds=seconds_for(name))
    assert contest.utilisation >= 0.90
    assert contest.share_refused <= (0.12 if name == "10_per_minute" else 0.08)
    gates = deque(contest.refused)
    shut = 0.0
    for at in contest.network.times:
        while gates and gates[0][0] < at:
            heard, wait = gates.popleft()
            shut = max(shut, heard + wait)
        assert at >= shut - 1e-5


@pytest.mark.usefixtures("few_records")
@pytest.mark.parametrize("name", [name for name in HIDDEN if name != "10_per_minute"])
def test_without_retry_after_the_hidden_limit_is_found(name: str) -> None:
    """Told nothing but "too many", they still use 70 % of it, with at most 8 % refused."""
    contest = Contest(HIDDEN[name](), header=False, seconds=seconds_for(name))
    assert contest.utilisation >= 0.70
    assert contest.share_refused <= 0.08


# ---- the adaptive limit ---------------------------------------------------------------------------------------------


def test_nothing_is_limited_before_the_first_429() -> None:
    """A key that was never throttled sends a thousand calls at once."""

    async def main() -> None:
        network = VirtualWire(lambda call: Outcome(0.05, reply()))
        async with virtual_client(network) as nex:
            await asyncio.gather(*[nex.tasks.get("1") for _ in range(1000)])
        assert len(set(network.times)) == 1

    run_virtual(main())


@pytest.mark.parametrize("usual", [200, 404])
def test_the_limit_is_forgotten_when_the_server_no_longer_minds(usual: int) -> None:
    """Answers without another 429, be they a success or not: within ten minutes no pace is kept any more."""

    async def main() -> None:
        network = VirtualWire([*[reply(usual)] * 50, reply(429), Outcome(1.0, reply(usual))])
        async with virtual_client(network) as nex:
            limit = network.keys.limits["default"]
            for _ in range(60):
                await asyncio.gather(nex.tasks.get("1"), return_exceptions=True)
            assert limit.active
            for _ in range(600):
                await asyncio.gather(nex.tasks.get("1"), return_exceptions=True)
            assert not limit.active

    run_virtual(main())


def test_one_refusal_of_a_quiet_key_is_no_measure_of_its_limit() -> None:
    """A key that hardly called and meets one 429 waits as told; its next burst is not doled out a call in ten seconds."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        network = VirtualWire([reply(), reply(), reply(429, retry_after="30"), reply()])
        async with virtual_client(network) as nex:
            for _ in range(3):
                await nex.tasks.get("1")
            started = loop.time()
            await asyncio.gather(*[nex.tasks.get("1") for _ in range(50)])
            assert loop.time() - started < 1.0

    run_virtual(main())


def learned(rate: float) -> AdaptiveLimit:
    """Return a limit that has learned a rate, its gate just opened."""
    limit = AdaptiveLimit()
    limit.throttled(asyncio.get_running_loop().time(), None)
    limit._rate = limit._old_ceiling = rate
    return limit


def test_callers_who_leave_the_line_leave_no_hole_in_it() -> None:
    """A thousand callers who gave up waiting do not delay those who come after them."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for limit in (learned(1.0), WindowLimit(1, 0.5)):
            await limit.acquire(FAR)
            crowd = [asyncio.ensure_future(limit.acquire(FAR)) for _ in range(900)]
            await asyncio.sleep(0.1)
            for waiter in crowd:
                waiter.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
            asked = loop.time()
            await limit.acquire(FAR)
            assert loop.time() - asked <= 1.0

    run_virtual(main())


def test_a_cut_frees_at_once_those_who_can_no_longer_make_it() -> None:
    """When the gate moves beyond a waiter's deadline he hears of it now, not at his deadline."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for limit in (learned(1.0), WindowLimit(1, 60.0)):
            started = loop.time()
            await limit.acquire(FAR)
            impatient = asyncio.ensure_future(limit.acquire(started + 70.0))
            patient = asyncio.ensure_future(limit.acquire(FAR))
            await asyncio.sleep(0.5)
            limit.throttled(loop.time(), 100.0)
            await failure(impatient, DeadlineExceeded)
            assert loop.time() == started + 0.5
            await patient
            assert loop.time() >= started + 100.5

    run_virtual(main())


# ---- the published windows ------------------------------------------------------------------------------------------


def most_in(times: list[float], period: float) -> int:
    """Return the most moments that any window of `period` seconds holds."""
    window: deque[float] = deque()
    most = 0
    for at in sorted(times):
        window.append(at)
        while window[0] <= at - period:
            window.popleft()
        most = max(most, len(window))
    return most


EVENTS = st.lists(
    st.tuples(
        st.floats(0.0, 30.0),
        st.sampled_from(["call", "call", "call", "burst", "cancel", "throttle"]),
        st.floats(0.0, 200.0),
    ),
    min_size=1,
    max_size=40,
)


@given(EVENTS)
@settings(max_examples=150, deadline=None)
def test_a_window_is_never_overrun(events: list[tuple[float, str, float]]) -> None:
    """Calls, bursts, cancelled waits, 429: never more than 10 in 60 s, in order, none in a gate, none lost."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        limit = WindowLimit(10, 60.0)
        gone: list[float] = []
        order: list[int] = []
        waiting: list[asyncio.Task[None]] = []
        gates: list[tuple[float, float]] = []
        asked = 0

        async def call(number: int) -> None:
            await limit.acquire(FAR)
            gone.append(loop.time())
            order.append(number)

        for pause, what, value in events:
            await asyncio.sleep(pause)
            if what == "throttle":
                limit.throttled(loop.time(), value)
                gates.append((loop.time(), loop.time() + value))
            elif what == "cancel":
                for task in waiting[:: 1 + int(value) % 3]:
                    task.cancel()
            else:
                for _ in range(1 if what == "call" else int(value) % 25):
                    waiting.append(asyncio.ensure_future(call(asked)))
                    asked += 1
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
        assert results.count(None) == len(gone)
        assert most_in(gone, 60.0) <= 10
        assert order == sorted(order)
        assert not [at for at in gone for shut, opened in gates if shut < at < opened - 1e-5]

    run_virtual(main())


def test_a_window_uses_all_it_may() -> None:
    """Forty calls at once take three periods, ten at a time."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        limit = WindowLimit(10, 60.0)
        for _ in range(4):
            await asyncio.gather(*[limit.acquire(FAR) for _ in range(10)])
        assert loop.time() - started <= 3 * 61.0

    run_virtual(main())


def test_a_cancelled_waiter_gives_his_slot_to_the_next() -> None:
    """Who waits for the second minute moves up to the first when somebody before him leaves."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        limit = WindowLimit(10, 60.0)
        started = loop.time()
        first = [asyncio.ensure_future(limit.acquire(FAR)) for _ in range(20)]
        await asyncio.sleep(1.0)
        last = asyncio.ensure_future(limit.acquire(FAR))
        await asyncio.sleep(1.0)
        first[15].cancel()
        await last
        assert loop.time() - started <= 61.0
        await asyncio.gather(*first, return_exceptions=True)

    run_virtual(main())


def test_a_slot_granted_to_a_cancelled_caller_is_given_back() -> None:
    """A caller cancelled in the very turn of the loop in which his slot came does not use it up."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for make, period in ((lambda: WindowLimit(1, 60.0), 60.5), (lambda: learned(0.1), 10.0)):
            limit: WindowLimit | AdaptiveLimit = make()
            started = loop.time()
            await limit.acquire(FAR)
            unlucky = asyncio.ensure_future(limit.acquire(FAR))
            await asyncio.sleep(0)
            next_one = asyncio.ensure_future(limit.acquire(FAR))
            loop.call_at(started + period + 5e-10, unlucky.cancel)  # after the slot's own timer, before its caller runs
            await next_one
            assert unlucky.cancelled()
            assert loop.time() - started <= period + 0.1

    run_virtual(main())


def test_the_line_is_as_long_as_those_who_stand_in_it() -> None:
    """A waiter who left from the middle does not count for the newcomer's deadline."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        limit = WindowLimit(1, 60.0)
        await limit.acquire(FAR)
        line = [asyncio.ensure_future(limit.acquire(FAR)) for _ in range(3)]
        await asyncio.sleep(1.0)
        line[1].cancel()
        await asyncio.sleep(0)
        newcomer = asyncio.ensure_future(limit.acquire(loop.time() + 182.0))
        await asyncio.gather(newcomer, line[0], line[2])

    run_virtual(main())


def test_nobody_overtakes_the_line() -> None:
    """A call that comes when a waiter's slot is due, but not yet taken, stands behind him."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for limit in (WindowLimit(2, 60.0), learned(1.0)):
            order: list[str] = []

            async def call(name: str, limit: Any = limit, order: list[str] = order) -> None:
                await limit.acquire(FAR)
                order.append(name)

            await limit.acquire(FAR)
            await limit.acquire(FAR)
            first = asyncio.ensure_future(call("first"))
            await asyncio.sleep(0)
            loop._clock.now += 1000.0  # type: ignore[attr-defined]
            await asyncio.gather(call("second"), first)
            assert order == ["first", "second"]

    run_virtual(main())


def test_a_wait_beyond_the_deadline_is_refused_at_once() -> None:
    """A caller whose slot comes after his deadline is told so without waiting, with how long it would have been."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        limit = WindowLimit(10, 60.0)
        for _ in range(10):
            await limit.acquire(FAR)
        started = loop.time()
        error = await failure(limit.acquire(started + 59.0), DeadlineExceeded)
        assert "60.5 s" in str(error)
        assert error.retry_after == pytest.approx(60.5)
        assert loop.time() == started

    run_virtual(main())


def test_a_line_that_is_too_long_refuses_the_newest() -> None:
    """The 1,001st waiter is refused; those before him keep their places."""

    async def main() -> None:
        limit = WindowLimit(10, 60.0)
        line = [asyncio.ensure_future(limit.acquire(FAR)) for _ in range(1010)]
        await asyncio.sleep(0)
        await failure(limit.acquire(FAR), RateLimitQueueFull)
        await asyncio.gather(*line)

    run_virtual(main())


def test_published_limits_hold_from_the_first_call() -> None:
    """Twenty-five texts at once go out ten a minute; other calls of the key are not held up by them."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        network = VirtualWire(lambda call: Outcome(0.05, text_reply(call)))
        async with virtual_client(network, timeout=600) as nex:
            started = loop.time()
            texts = [asyncio.ensure_future(nex.context.add_text(f"text {n}")) for n in range(25)]
            await asyncio.sleep(0)
            await nex.tasks.get("1")
            assert loop.time() - started < 0.1
            await asyncio.gather(*texts)
        sent = [call.at for call in network.calls if call.request.target == "/v1/context/text"]
        assert len(sent) == 25
        assert most_in(sent, 60.0) == 10

    run_virtual(main())


def text_reply(call: Call) -> Reply:
    return reply(200, b'{"artifact_id":"1"}') if call.request.method == "POST" else reply()


# ---- no wait stands still -------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_wait_ever_live_locks(data: st.DataObject) -> None:
    """Any rates, gates and fractions of time: every caller goes or is refused, and the clock always moves on."""
    chance = random.Random(data.draw(st.integers()))
    waits = data.draw(st.lists(st.sampled_from([0.0, 1e-17, 1e-9, 0.1, 1 / 3, 1.0, 7.7, 1e5]), min_size=1, max_size=6))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for limit in (AdaptiveLimit(), WindowLimit(3, 1 / 3)):

            async def worker(limit: Any = limit) -> None:
                for _ in range(10):
                    try:
                        await limit.acquire(loop.time() + chance.choice([0.0, 1e-9, 0.5, 100.0, 1e7]))
                    except DeadlineExceeded:
                        await asyncio.sleep(chance.choice([0.0, 0.3]))
                    else:
                        limit.succeeded(loop.time())
                    if chance.random() < 0.3:
                        limit.throttled(loop.time(), chance.choice([None, *waits]))

            await asyncio.gather(*[worker() for _ in range(8)])

    run_virtual(main())


# ---- the budget -----------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([10.0, 5.0, -1.0]), max_size=300), st.floats(0.0, 100.0))
def test_the_budget_stays_within_its_bounds(steps: list[float], capacity: float) -> None:
    """Spending never goes below nothing, earning never above the capacity; a refused retry costs nothing."""
    budget = RetryBudget(capacity)
    for step in steps:
        before = budget.left
        if step < 0:
            budget.earn()
        elif not budget.spend(step):
            assert (budget.left, before < step) == (before, True)
        assert 0.0 <= budget.left <= capacity


def test_the_budget_bounds_a_throttled_key_too() -> None:
    """A server that answers nothing but 429 gets at most twenty retries for the whole key."""

    async def main() -> None:
        network = VirtualWire([reply(429)])
        async with virtual_client(network, timeout=1e6) as nex:
            for _ in range(40):
                await failure(nex.tasks.get("1"), NexError)
        assert len(network.calls) == 40 + 20
        assert isinstance(network.keys.budget.left, float)

    run_virtual(main())


async def test_the_throttle_of_one_key_is_not_another_keys() -> None:
    """Limits belong to a key: a throttled tenant does not slow the other down."""
    one, other = VirtualWire([reply(429)]), VirtualWire([reply()])
    async with virtual_client(one, retry=RetryPolicy(retries=0)) as a, virtual_client(other) as b:
        await failure(a.tasks.get("1"), RateLimitError)
        await b.tasks.get("1")
    assert one.keys.limits["default"].active
    assert not other.keys.limits["default"].active
