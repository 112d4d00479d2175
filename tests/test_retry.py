"""When a call is repeated: the pure decision as a table, and what the sender makes of it on a virtual clock."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nex_async import Nex, RetryPolicy, Timeouts, deadline, errors
from nex_async.errors import (
    APIError,
    AuthenticationError,
    BodyTruncated,
    ConfigError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    NexError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitError,
    RetryBudgetExhausted,
    ServerError,
    Timeout,
    TLSError,
)
from nex_async.transport.retry import Ambiguous, Fail, Retry, classify, decide

from .harness.canary import KEY
from .harness.raw_server import RawServer, answer, json_reply
from .harness.virtual import Call, Outcome, VirtualWire, reply, run_virtual, virtual_client

DEFAULT = RetryPolicy()

# ---- the decision ---------------------------------------------------------------------------------------------------

# How many attempts each kind of failure is worth, by retry class. "?": the outcome is unknown, whatever the attempt.
TABLE = """
            read  upsert  state  create  costly
unsent        4      4      3       4       3
throttled     4      4      3       4       3
refused       4      4      3       4       3
fault         4      4      3       ?       ?
lost          4      4      3       ?       ?
conflict      1      2      1       1       1
garbled       2      1      1       1       1
final         1      1      1       1       1
"""
CLASSES: list[Any] = TABLE.split("\n")[1].split()
WORTH: dict[Any, dict[Any, str]] = {
    line.split()[0]: dict(zip(CLASSES, line.split()[1:], strict=True)) for line in TABLE.strip().split("\n")[1:]
}
ALL = list(itertools.product(CLASSES, WORTH))


@pytest.mark.parametrize(("kind", "failure"), ALL)
def test_the_truth_table(kind: Any, failure: Any) -> None:
    """Each class of operation is repeated after each kind of failure as often as the table says, and no more."""
    for attempt in range(1, 8):
        decision = decide(kind, failure, attempt, DEFAULT)
        if WORTH[failure][kind] == "?":
            assert decision == Ambiguous()
        else:
            assert isinstance(decision, Retry if attempt < int(WORTH[failure][kind]) else Fail)


@pytest.mark.parametrize(("kind", "failure"), ALL)
@pytest.mark.parametrize("retries", [0, 1, 9])
def test_the_truth_table_with_a_number_of_retries(kind: Any, failure: Any, retries: int) -> None:
    """A number given by the caller replaces the class's own, and makes nothing repeatable that was not."""
    policy, worth = RetryPolicy(retries=retries), WORTH[failure][kind]
    for attempt in range(1, 12):
        decision = decide(kind, failure, attempt, policy)
        once = failure in ("conflict", "garbled")
        if worth == "?":
            assert decision == Ambiguous()
        elif worth == "1" or attempt > retries or (once and attempt > 1):
            assert decision == Fail()
        else:
            assert isinstance(decision, Retry)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("failure", WORTH)
def test_a_patch_may_be_kept_from_repeating(kind: Any, failure: Any) -> None:
    """retry_ambiguous=False turns a PATCH with an unclear end into an unknown outcome; all else stays as it was."""
    careful = RetryPolicy(retry_ambiguous=False)
    decision = decide(kind, failure, 1, careful, patch=True)
    unclear = failure in ("fault", "lost")
    assert decision == (Ambiguous() if unclear else decide(kind, failure, 1, DEFAULT, patch=True))
    assert decide(kind, failure, 1, careful, patch=False) == decide(kind, failure, 1, DEFAULT, patch=False)


@pytest.mark.parametrize("failure", WORTH)
def test_a_retry_costs_ten_and_a_throttled_one_five(failure: Any) -> None:
    """The price of a retry depends on its reason alone."""
    for kind in CLASSES:
        decision = decide(kind, failure, 1, DEFAULT)
        if isinstance(decision, Retry):
            assert decision.cost == (5.0 if failure == "throttled" else 10.0)


@pytest.mark.parametrize("failure", ["throttled", "refused", "fault"])
def test_a_retry_at_the_servers_own_time_is_free_after_a_429_alone(failure: Any) -> None:
    """The limiter keeps in line who waits for a 429 to pass; a server that fails is kept from a storm by the budget alone."""
    decision = decide("read", failure, 1, DEFAULT, retry_after=1.0)
    assert isinstance(decision, Retry)
    assert decision.cost == (0.0 if failure == "throttled" else 10.0)


@given(st.sampled_from(["throttled", "refused", "fault"]), st.floats(0.0, 120.0), st.floats(0.0, 1.0, exclude_max=True))
def test_retry_after_is_never_shortened(failure: Any, seconds: float, draw: float) -> None:
    """A wish of the server is obeyed to the full, with at least 50 ms and at most a tenth on top."""
    decision = decide("read", failure, 1, DEFAULT, retry_after=seconds, draw=draw)
    assert isinstance(decision, Retry)
    assert seconds + 0.05 <= decision.delay <= max(seconds + 0.05, seconds * 1.1) + 1e-9


@given(st.floats(120.0, 1e12, exclude_min=True), st.sampled_from(["throttled", "refused", "fault"]))
def test_a_retry_after_beyond_the_cap_fails(seconds: float, failure: Any) -> None:
    """A wish beyond the cap is not waited for."""
    assert decide("read", failure, 1, DEFAULT, retry_after=seconds) == Fail()


@pytest.mark.parametrize("failure", ["unsent", "lost", "conflict"])
def test_retry_after_means_nothing_elsewhere(failure: Any) -> None:
    """Only a refusal or a fault of the server can say when to come back."""
    assert decide("upsert", failure, 1, DEFAULT, retry_after=500.0) == decide("upsert", failure, 1, DEFAULT)


@given(
    st.sampled_from(["unsent", "refused", "fault", "lost"]),
    st.integers(1, 100),
    st.floats(0.0, 1.0, exclude_max=True),
    st.floats(0.0, 60.0),
    st.floats(0.0, 600.0),
)
def test_backoff_is_full_jitter_below_a_doubling_ceiling(
    failure: Any, attempt: int, draw: float, base: float, cap: float
) -> None:
    """A fault waits between nothing and base * 2^(attempt - 1), never more than the cap."""
    policy = RetryPolicy(retries=100, backoff_base=base, backoff_cap=cap)
    decision = decide("read", failure, attempt, policy, draw=draw)
    assert isinstance(decision, Retry)
    assert decision.delay == pytest.approx(min(cap, base * 2.0 ** min(attempt - 1, 30)) * draw)


@given(st.integers(1, 100), st.floats(0.0, 1.0, exclude_max=True))
def test_a_throttle_waits_at_least_half_its_ceiling(attempt: int, draw: float) -> None:
    """429 without Retry-After waits between a half and the whole of 1, 2, 4 ... 30 s."""
    decision = decide("read", "throttled", attempt, RetryPolicy(retries=100), draw=draw)
    assert isinstance(decision, Retry)
    ceiling = min(30.0, 2.0 ** (attempt - 1))
    assert ceiling / 2 <= decision.delay <= ceiling


@pytest.mark.parametrize(
    "wrong",
    [{"retries": -1}, {"retries": 101}, {"retries": True}, {"retries": 1.5}, {"backoff_cap": -1}, {"budget": float("nan")},
     {"max_retry_after": float("inf")}, {"throttle_base": "1"}],
)  # fmt: skip
def test_a_policy_that_cannot_be_right_is_refused(wrong: dict[str, Any]) -> None:
    """A policy is checked when it is made."""
    with pytest.raises(ConfigError):
        RetryPolicy(**wrong)


# ---- what an error is -----------------------------------------------------------------------------------------------

KINDS: list[tuple[NexError, str]] = [
    (NexError("x"), "final"),
    (ConfigError("x"), "final"),
    (errors.InvalidRequestError("x"), "final"),
    (errors.MappingError("x"), "final"),
    (errors.SourceChanged("x"), "final"),
    (errors.BulkError("x"), "final"),
    (errors.BulkStalled("x"), "final"),
    (errors.TooManyDeadLetters("x"), "final"),
    (errors.ClientClosed("x"), "final"),
    (errors.ClientLoopError("x"), "final"),
    (DeadlineExceeded("x", sent="maybe"), "final"),
    (errors.RateLimitQueueFull("x"), "final"),
    (RetryBudgetExhausted("x"), "final"),
    (OutcomeUnknownError("x"), "final"),
    (errors.PaginationError("x"), "final"),
    (DecodeError("x"), "garbled"),
    (DecodeError("x", path="$.id"), "final"),
    (errors.JobExpired("x"), "final"),
    (errors.JobFailed("x"), "final"),
    (errors.JobTimeout("x"), "final"),
    (errors.CheckpointError("x"), "final"),
    (errors.FeedClosed("x"), "final"),
    (errors.FeedOverflow("x"), "final"),
    (errors.GapError("x"), "final"),
    (errors.SinkUnavailable("x"), "final"),
    (errors.TenantMismatch("x"), "final"),
    (errors.StorageError("x"), "final"),
    (errors.StorageLocked("x"), "final"),
    (errors.StorageCorrupt("x"), "final"),
    (errors.StorageFull("x"), "final"),
    (errors.TransportError("x"), "lost"),
    (ConnectError("x", sent="no"), "unsent"),
    (errors.DNSError("x", sent="no"), "unsent"),
    (TLSError("x"), "unsent"),
    (TLSError("x", certificate=True), "final"),
    (errors.ProxyError("x", sent="no"), "unsent"),
    (ConnectionLost("x"), "lost"),
    (errors.ProtocolError("x", sent="maybe"), "lost"),
    (errors.ProtocolError("x", sent="yes"), "final"),
    (BodyTruncated("x"), "lost"),
    (errors.BodyTooLarge("x", sent="yes"), "final"),
    (Timeout("x", sent="no", phase="pool"), "unsent"),
    (Timeout("x", sent="maybe", phase="body"), "lost"),
    (APIError("x", status=418), "final"),
    (APIError("x", status=408), "fault"),
    (APIError("x", status=425), "fault"),
    (errors.BadRequestError("x", status=400), "final"),
    (AuthenticationError("x", status=401), "final"),
    (errors.PermissionDeniedError("x", status=403), "final"),
    (NotFoundError("x", status=404), "final"),
    (errors.ConflictError("x", status=409), "conflict"),
    (errors.GoneError("x", status=410), "final"),
    (errors.PayloadTooLargeError("x", status=413), "final"),
    (errors.UnprocessableError("x", status=422), "final"),
    (RateLimitError("x", status=429), "throttled"),
    (RateLimitError("x", status=429, retry_after=1.0), "throttled"),
    *[(ServerError("x", status=status), "fault") for status in (500, 501, 502, 503, 504, 599)],
    (ServerError("x", status=503, retry_after=1.0), "refused"),
    (ServerError("x", status=500, retry_after=1.0), "fault"),
]


@pytest.mark.parametrize(("error", "kind"), KINDS, ids=lambda value: type(value).__name__ if value is not str else value)
def test_every_error_has_a_kind(error: NexError, kind: str) -> None:
    """Each error of the tree is classified as the table says."""
    assert classify(error) == kind


def test_the_table_of_errors_is_complete() -> None:
    """No error of the tree is missing above."""

    def family(cls: type[NexError]) -> set[type[NexError]]:
        return {cls}.union(*[family(child) for child in cls.__subclasses__()])

    public = {cls for cls in family(NexError) if cls.__module__ == "nex_async.errors"}
    assert public == {type(error) for error, _ in KINDS}


# ---- the sender -----------------------------------------------------------------------------------------------------

LOST = ConnectionLost("the connection broke", sent="maybe")
UNSENT = ConnectError("no connection", sent="no")
CALLS: dict[str, Callable[[Nex], Awaitable[Any]]] = {
    "read": lambda nex: nex.tasks.get("1"),
    "upsert": lambda nex: nex.records.upsert("person", {"name": "A"}, match_on="name"),
    "state": lambda nex: nex.tasks.delete("1"),
    "patch": lambda nex: nex.tasks.update("1", title="y"),
    "create": lambda nex: nex.tasks.create("x"),
    "costly": lambda nex: nex.context.ask("x"),
}


def fresh(error: NexError) -> Callable[[], NexError]:
    """Return a maker of errors like this one: no two attempts meet the same object."""
    cls, message, state = error.__reduce__()[1]

    def make() -> NexError:
        made = cls.__new__(cls)
        Exception.__init__(made, message)
        made.__dict__.update(state)
        return made  # type: ignore[no-any-return]

    return make


def outcomes(*parts: Any, after: float = 0.01) -> Callable[[Call], Outcome]:
    """Return a server that meets attempt n with part n, and every further one with the last."""

    def server(call: Call) -> Outcome:
        part = parts[min(call.number, len(parts)) - 1]
        return Outcome(after, fresh(part)() if isinstance(part, NexError) else part)

    return server


def played(
    kind: str, *parts: Any, expect: type[NexError] | None = None, after: float = 0.01, **arguments: Any
) -> tuple[Any, VirtualWire, float]:
    """Return what a call came to (its error if one is expected), its wire, and the virtual seconds it took."""
    options = arguments.pop("options", {})

    async def main() -> tuple[Any, VirtualWire, float]:
        loop = asyncio.get_running_loop()
        network = VirtualWire(outcomes(*parts, after=after))
        async with virtual_client(network, **arguments) as nex:
            started = loop.time()
            call = CALLS[kind](nex.with_options(**options))
            if expect is None:
                result = await call
            else:
                with pytest.raises(expect) as caught:
                    await call
                result = caught.value
                assert type(result) is expect
            return result, network, loop.time() - started

    return run_virtual(main())


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize(
    "part", [UNSENT, LOST, reply(429), reply(503), reply(503, retry_after="1"), reply(400), reply(500)],
    ids=["unsent", "lost", "429", "503", "refused", "400", "500"],
)  # fmt: skip
@pytest.mark.parametrize("retries", [None, 0, 1, 6])
def test_attempts_on_the_error_are_attempts_on_the_wire(kind: str, part: Any, retries: int | None) -> None:
    """An error lists exactly the requests that were made; retries=0 makes one."""

    async def main() -> None:
        network = VirtualWire(outcomes(part))
        async with virtual_client(network, retry=RetryPolicy(retries=retries), timeout=3600) as nex:
            with pytest.raises(NexError) as caught:
                await CALLS[kind](nex)
        attempts = caught.value.attempts
        assert len(attempts) == len(network.calls) <= (1 if retries == 0 else 4 if retries is None else retries + 1)
        assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
        begun = [attempt.started + network.calls[0].at for attempt in attempts]
        assert begun == pytest.approx(network.times, abs=1e-6)
        assert all(attempt.elapsed == pytest.approx(0.01) for attempt in attempts)
        assert [attempt.delay is None for attempt in attempts] == [False] * (len(attempts) - 1) + [True]

    run_virtual(main())


async def test_retries_of_one_call_override_the_clients() -> None:
    """retries=0 on a call sends one request on the real wire, whatever the client's policy."""
    async with RawServer([answer(json_reply({}, 503))] * 3) as server, Nex(KEY, base_url=server.url) as nex:
        with pytest.raises(ServerError):
            await nex.tasks.get("1", retries=0)
    assert len(server.requests) == 1


@pytest.mark.parametrize("after", [0.01, 3.0, 7.0])
@pytest.mark.parametrize("total", [0.1, 1.0, 9.9, 60.0])
@pytest.mark.parametrize("part", [LOST, reply(503), reply(429), UNSENT, "silence"], ids=str)
def test_no_call_outlives_its_deadline(part: Any, total: float, after: float) -> None:
    """Whatever happens, a call ends within 50 ms of its deadline at the latest."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = outcomes(reply(), after=1e6) if part == "silence" else outcomes(part, after=after)
        network = VirtualWire(server)
        policy = RetryPolicy(retries=100, budget=1e6)
        async with virtual_client(network, timeout=Timeouts(total=total), retry=policy) as nex:
            started = loop.time()
            with pytest.raises(NexError):
                await nex.tasks.get("1")
            assert loop.time() - started <= total + 0.05

    run_virtual(main())


def test_a_wait_that_the_deadline_would_end_is_not_begun() -> None:
    """When the next attempt would come too late the call ends now, with the last failure as its cause."""
    policy = RetryPolicy(throttle_base=30.0)
    error, network, took = played("read", reply(429), expect=DeadlineExceeded, timeout=10, retry=policy)
    assert took < 0.1
    assert isinstance(error.__cause__, RateLimitError)
    assert len(error.attempts) == len(network.calls) == 1


@pytest.mark.parametrize("failure", ["silence", "limiter", "backoff"])
def test_a_passed_deadline_names_the_last_failure(failure: str) -> None:
    """DeadlineExceeded is caused by the last failure, and knows that an earlier attempt may have arrived."""

    async def main() -> None:
        network = VirtualWire(outcomes(LOST, reply(429, retry_after="1"), after=0.5))
        policy = RetryPolicy(throttle_base=30.0, backoff_base=0.0)
        async with virtual_client(network, timeout=9, retry=policy) as nex:
            if failure == "silence":
                network.server = lambda call: outcomes(LOST)(call) if call.number == 1 else Outcome(1e6, reply())
            elif failure == "backoff":
                network.server = outcomes(LOST, reply(429), after=0.5)
            else:

                def closing(call: Call) -> Outcome:
                    network.keys.limits["default"].throttled(call.at, 100.0)
                    return Outcome(0.1, fresh(LOST)())

                network.server = closing
            with pytest.raises(DeadlineExceeded) as caught:
                await CALLS["upsert"](nex)
        assert caught.value.sent == "maybe"
        assert type(caught.value.__cause__) is (RateLimitError if failure == "backoff" else ConnectionLost)
        assert len(caught.value.attempts) == len(network.calls)

    run_virtual(main())


def test_a_failure_that_was_unsent_at_last_does_not_deny_the_attempt_before() -> None:
    """A call whose first attempt may have arrived never claims that nothing was sent."""
    error, _, _ = played("upsert", LOST, UNSENT, expect=ConnectError)
    assert error.sent == "maybe"
    error, _, _ = played("upsert", UNSENT, expect=ConnectError)
    assert error.sent == "no"


def test_blocks_of_deadline_nest_and_the_nearest_holds() -> None:
    """deadline() bounds every call inside, inner blocks can only shorten it, and leaving one restores the outer."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        network = VirtualWire(lambda call: Outcome(1e6, reply()))

        async def took(nex: Nex) -> float:
            started = loop.time()
            with pytest.raises(DeadlineExceeded):
                await nex.tasks.get("1")
            return loop.time() - started

        async with virtual_client(network, timeout=Timeouts(total=20.0, read=1e6)) as nex:
            with deadline(10.0):
                with deadline(3.0):
                    assert await took(nex) == pytest.approx(3.0, abs=0.05)
                    assert await took(nex) == pytest.approx(0.0, abs=0.05)
                with deadline(100.0):
                    assert await took(nex) == pytest.approx(7.0, abs=0.05)
            assert await took(nex) == pytest.approx(20.0, abs=0.05)

    run_virtual(main())


def test_a_blocked_loop_is_a_passed_deadline_not_a_cancellation() -> None:
    """When the user's code blocks the loop past a deadline during a backoff, the call says so; nothing is cancelled."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        network = VirtualWire(outcomes(reply(429, retry_after="5")))
        async with virtual_client(network, timeout=10) as nex:

            def block() -> None:
                loop._clock.now += 30.0  # type: ignore[attr-defined]

            loop.call_later(2.0, block)
            with pytest.raises(DeadlineExceeded) as caught:
                await nex.tasks.get("1")
            assert isinstance(caught.value.__cause__, RateLimitError)
            task = asyncio.current_task()
            assert task is not None
            assert getattr(task, "cancelling", lambda: 0)() == 0

    run_virtual(main())


def test_a_deadline_met_while_cleaning_up_is_a_deadline() -> None:
    """A cancelled task that makes a last call in its `finally` meets DeadlineExceeded there, and ends as cancelled."""
    met: list[type[BaseException]] = []

    async def main() -> None:
        network = VirtualWire(lambda call: Outcome(1e6, reply()))
        async with virtual_client(network, timeout=Timeouts(total=5.0)) as nex:

            async def work() -> None:
                try:
                    await asyncio.sleep(1e6)
                finally:
                    try:
                        await nex.tasks.delete("1")
                    except BaseException as error:
                        met.append(type(error))

            task = asyncio.ensure_future(work())
            await asyncio.sleep(1.0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    run_virtual(main())
    assert met == [DeadlineExceeded]


def test_a_cancelled_call_is_cancelled() -> None:
    """A user's cancellation goes through at every stage of a call, and costs nobody else anything."""

    async def main() -> None:
        network = VirtualWire(outcomes(reply(503), reply(429), reply(), after=1.0))
        async with virtual_client(network) as nex:
            for moment in (0.5, 1.01, 2.2, 3.5):
                network.calls.clear()
                call = asyncio.ensure_future(nex.tasks.get("1"))
                await asyncio.sleep(moment)
                call.cancel()
                await asyncio.wait([call])
                assert call.cancelled()
            network.server = outcomes(reply())
            assert (await nex.tasks.get("1")).id == "1"

    run_virtual(main())


def test_a_spent_budget_says_what_really_happened() -> None:
    """When the budget is spent a failure is raised as RetryBudgetExhausted with the real error as its cause."""

    async def main() -> None:
        network = VirtualWire(outcomes(reply(503)), budget=15.0)
        async with virtual_client(network) as nex:
            for _ in range(3):
                with pytest.raises(RetryBudgetExhausted) as caught:
                    await nex.tasks.get("1")
                assert isinstance(caught.value.__cause__, ServerError)
                assert caught.value.attempts
        assert len(network.calls) == 3 + 1

    run_virtual(main())


def test_successes_earn_retries_back() -> None:
    """Ten successes at the first try pay for one retry."""

    async def main() -> None:
        network = VirtualWire(outcomes(reply(503)), budget=10.0)
        async with virtual_client(network) as nex:
            with pytest.raises(RetryBudgetExhausted):
                await nex.tasks.get("1")
            network.server = outcomes(reply())
            for _ in range(10):
                await nex.tasks.get("1")
            network.calls.clear()
            network.server = outcomes(reply(503), reply())
            await nex.tasks.get("1")
            with pytest.raises(RetryBudgetExhausted):
                network.calls.clear()
                await nex.tasks.get("1")

    run_virtual(main())


@pytest.mark.parametrize("first", [LOST, reply(500), reply(503), BodyTruncated("cut", sent="maybe")], ids=str)
def test_a_delete_that_finds_nothing_after_a_lost_reply_succeeded(first: Any) -> None:
    """404 on the retry of a DELETE that may have acted means it did."""
    result, network, _ = played("state", first, reply(404))
    assert result is None
    assert len(network.calls) == 2


@pytest.mark.parametrize("first", [UNSENT, reply(429), reply(503, retry_after="1")], ids=["unsent", "429", "refused"])
def test_a_delete_that_finds_nothing_after_a_refusal_found_nothing(first: Any) -> None:
    """404 on the retry of a DELETE that cannot have acted is a NotFoundError."""
    error, _, _ = played("state", first, reply(404), expect=NotFoundError)
    assert len(error.attempts) == 2


@pytest.mark.parametrize("part", [LOST, reply(500)], ids=["lost", "500"])
def test_a_patch_is_not_repeated_where_the_caller_forbids_it(part: Any) -> None:
    """retry_ambiguous=False ends a PATCH with an unclear outcome in OutcomeUnknownError, after one request."""
    error, network, _ = played("patch", part, reply(), expect=OutcomeUnknownError, options={"retry_ambiguous": False})
    assert len(error.attempts) == len(network.calls) == 1
    assert played("patch", part, reply())[0].id == "1"
    assert played("patch", UNSENT, reply(), options={"retry_ambiguous": False})[0].id == "1"


@pytest.mark.parametrize("kind", ["create", "costly"])
def test_an_unknown_outcome_names_its_cause_and_where_to_look(kind: str) -> None:
    """A create that may have acted is raised once, with what happened and a hint."""
    error, network, _ = played(kind, UNSENT, reply(429), LOST, expect=OutcomeUnknownError)
    assert isinstance(error.__cause__, ConnectionLost)
    assert error.hint
    assert [attempt.outcome for attempt in error.attempts] == ["ConnectError", "429", "ConnectionLost"]
    assert len(network.calls) == 3


def test_a_create_that_ran_into_its_deadline_is_of_unknown_outcome() -> None:
    """A deadline that passes while a create is under way leaves its outcome unknown."""
    error, _, took = played("create", reply(), after=1e6, expect=OutcomeUnknownError, timeout=Timeouts(total=5.0))
    assert isinstance(error.__cause__, DeadlineExceeded)
    assert took == pytest.approx(5.0, abs=0.05)


# ---- hooks ----------------------------------------------------------------------------------------------------------


def test_hooks_hear_of_every_attempt() -> None:
    """Each attempt is told before and after, each retry with its wait and reason, in details that cannot be changed."""
    heard: list[Any] = []
    hooks = dict.fromkeys(("on_request", "on_response", "on_retry"), heard.append)
    played("read", reply(503), reply(429), reply(), **hooks)
    told = [(type(details).__name__, details.attempt) for details in heard]
    assert told == [
        ("RequestDetails", 1), ("ResponseDetails", 1), ("RetryDetails", 1),
        ("RequestDetails", 2), ("ResponseDetails", 2), ("RetryDetails", 2),
        ("RequestDetails", 3), ("ResponseDetails", 3),
    ]  # fmt: skip
    assert [details.status for details in heard if hasattr(details, "status")] == [503, 429, 200]
    assert all(details.request.operation == "getTask" for details in heard)
    for details in heard:
        with pytest.raises(dataclasses.FrozenInstanceError):
            details.attempt = 9


@pytest.mark.parametrize("hook", ["on_request", "on_response", "on_retry"])
def test_a_hook_that_raises_changes_nothing(hook: str) -> None:
    """A bug in a hook is logged and counted; the call ends as it would have, with the same requests."""

    def broken(details: Any) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        network = VirtualWire(outcomes(reply(503), reply()))
        async with virtual_client(network, **{hook: broken}) as nex:
            assert (await nex.tasks.get("1")).id == "1"
            assert nex.hook_errors > 0
        assert len(network.calls) == 2

    run_virtual(main())


# ---- closing --------------------------------------------------------------------------------------------------------


def test_closing_ends_calls_and_nothing_else() -> None:
    """A call under way ends as ClientClosed; a task whose call ended in that very moment is left alone."""

    async def main() -> None:
        network = VirtualWire(lambda call: Outcome(5.0 if call.number == 1 else 1e6, reply()))
        nex = virtual_client(network, timeout=Timeouts(total=1e5, read=1e5))
        ended: list[str] = []

        async def lucky() -> None:
            await nex.tasks.get("1")
            await asyncio.sleep(10.0)
            ended.append("lucky")

        async def late() -> None:
            with pytest.raises(errors.ClientClosed):
                await nex.tasks.get("1")
            ended.append("late")

        tasks = [asyncio.ensure_future(lucky()), asyncio.ensure_future(late())]
        await asyncio.sleep(0)
        await nex.aclose(drain=5.0 - 5e-10)  # within the turn of the loop that ends the lucky call, and before it
        await asyncio.gather(*tasks)
        assert ended == ["late", "lucky"]

    run_virtual(main())


# ---- the numbers of the decision ------------------------------------------------------------------------------------


def test_the_numbers_of_a_policy() -> None:
    """Unless told otherwise a policy is the documented one; each of its times may be anything from 0 to less than 1e9."""
    assert RetryPolicy() == RetryPolicy(
        retries=None,
        backoff_base=0.25,
        backoff_cap=8.0,
        throttle_base=1.0,
        throttle_cap=30.0,
        max_retry_after=120.0,
        retry_ambiguous=True,
        budget=100.0,
    )
    for name in ("backoff_base", "backoff_cap", "throttle_base", "throttle_cap", "max_retry_after", "budget"):
        assert getattr(RetryPolicy(**{name: 0}), name) == 0
        for wrong in (1e9, -1e-9, True, "1", None):
            with pytest.raises(ConfigError, match=name):
                RetryPolicy(**{name: wrong})
    for retries in (0, 100):
        assert RetryPolicy(retries=retries).retries == retries
    for refused in (-1, 101, True, 1.0):
        with pytest.raises(ConfigError, match="retries"):
            RetryPolicy(retries=refused)  # type: ignore[arg-type]


def test_a_time_the_server_names() -> None:
    """It is waited for, with 10 % of jitter and 50 ms at least, up to `max_retry_after` itself; only waiting for a limit is free."""
    policy = RetryPolicy()
    for failure, cost in (("throttled", 0.0), ("refused", 10.0), ("fault", 10.0)):
        assert decide("read", failure, 1, policy, retry_after=120.0, draw=1.0) == Retry(132.0, cost)  # type: ignore[arg-type]
        assert decide("read", failure, 1, policy, retry_after=120.1) == Fail()  # type: ignore[arg-type]
        assert decide("read", failure, 1, policy, retry_after=0.0) == Retry(0.05, cost)  # type: ignore[arg-type]
    assert decide("read", "lost", 1, policy, retry_after=2.0, draw=1.0) == Retry(0.25, 10.0)


def test_the_backoff_grows_to_its_cap() -> None:
    """The ceiling doubles from the base to the cap; a fault waits anything up to it, a throttle at least half of it."""
    policy = RetryPolicy(retries=100)
    for attempt, fault, throttle in (
        (1, 0.25, 1.0),
        (2, 0.5, 2.0),
        (5, 4.0, 16.0),
        (6, 8.0, 30.0),
        (9, 8.0, 30.0),
        (100, 8.0, 30.0),
    ):
        for draw in (0.0, 0.25, 0.5, 1.0):
            assert decide("read", "fault", attempt, policy, draw=draw) == Retry(fault * draw, 10.0)
            assert decide("read", "throttled", attempt, policy, draw=draw) == Retry(throttle * (0.5 + 0.5 * draw), 5.0)
    assert decide("read", "fault", 1, policy) == Retry(0.125, 10.0)
    wide = RetryPolicy(retries=100, backoff_base=1e-9, backoff_cap=1e8, throttle_base=1e-9, throttle_cap=1e8)
    assert decide("read", "fault", 100, wide, draw=1.0) == Retry(1e-9 * 2.0**30, 10.0)


def test_a_lost_patch_is_repeated_unless_told_otherwise() -> None:
    """Only a PATCH whose reply was lost obeys `retry_ambiguous`."""
    careful = RetryPolicy(retry_ambiguous=False)
    assert isinstance(decide("state", "lost", 1, careful), Retry)
    assert isinstance(decide("state", "lost", 1, careful, patch=True), Ambiguous)
    assert isinstance(decide("state", "lost", 1, RetryPolicy(), patch=True), Retry)
