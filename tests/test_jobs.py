"""Jobs: every wait has an end, nobody asks more than he must, and ten thousand jobs cost what they may."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pickle
import threading
import time
import tracemalloc
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import aiohttp
import pytest

from nex_async import (
    AuthenticationError,
    DeadlineExceeded,
    DecodeError,
    InvalidRequestError,
    Job,
    JobExpired,
    JobFailed,
    JobTimeout,
    Nex,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RetryPolicy,
    ServerError,
    SessionPool,
    Timeouts,
    deadline,
)
from nex_async.errors import APIError, ClientClosed, ConnectionLost, FeedClosed
from nex_async.feeds.feed import Feed, FeedQueue
from nex_async.feeds.scheduler import Scheduler, scheduler_of
from nex_async.models import AIList, Artifact, ConnectStarted

from .harness.canary import KEY
from .harness.raw_server import NO_WAIT, RawServer, hold, json_reply, read_request, serve
from .harness.virtual import Call, Outcome, VirtualWire, reply, run_virtual, virtual_client

ONCE = RetryPolicy(retries=0)
PENDING = {"status": "pending"}
RUNNING = {"status": "processing"}
DONE = {"status": "completed", "result": {"insights_created": 1}}
FAILED = {"status": "failed", "error": "no model"}


def told(state: object, after: float = 0.01, status: int = 200) -> Outcome:
    return Outcome(after, reply(status, json.dumps(state).encode()))


def in_turn(*states: object) -> list[Any]:
    """Return a script: each poll gets the next state, and the last one for ever; an Outcome stands for itself."""
    return [state if isinstance(state, Outcome) else told(state) for state in states]


def refusal(status: int) -> Outcome:
    return told({"code": status, "message": "no"}, status=status)


def virtually(
    server: Callable[[Call], Outcome] | list[Any],
    use: Callable[[Nex, VirtualWire], Coroutine[Any, Any, None]],
    **options: Any,
) -> VirtualWire:
    """Run `use` with a client of a virtual server, and fail when a task or a watched job is left over."""
    wire = VirtualWire(server)

    async def main() -> None:
        async with virtual_client(wire, retry=options.pop("retry", ONCE), **options) as nex:
            await use(nex, wire)
            assert len(scheduler_of(nex._state)) == 0
            assert not nex._state.owned

    run_virtual(main())
    return wire


def in_raw_turn(*states: object) -> list[Any]:
    left = list(states)
    return [serve(lambda seen: json_reply(left.pop(0) if len(left) > 1 else left[0]))]


@pytest.fixture
async def pool() -> AsyncIterator[SessionPool]:
    async with SessionPool() as shared:
        yield shared


# ---- the faults J1 to J11 -------------------------------------------------------------------------------------------


def test_a_job_that_never_ends() -> None:
    """J1: a wait ends at its deadline to the moment; until then polls come 2 to 10 s apart, each pause 1.5 times the last."""
    began = 0.0

    async def use(nex: Nex, wire: VirtualWire) -> None:
        nonlocal began
        began = wire.loop.time()
        with pytest.raises(JobTimeout) as caught:
            await nex.context.attach("5")
        assert wire.loop.time() - began == 300.0
        assert (caught.value.job_id, caught.value.__cause__) == ("5", None)

    wire = virtually([told(PENDING, after=0.0)], use)
    assert wire.times[0] == began
    pauses = [after - before for before, after in zip(wire.times, wire.times[1:], strict=False)]
    expected = 2.0
    for pause in pauses:
        assert 0.8 * expected <= pause <= 1.2 * expected + 0.01
        expected = min(10.0, expected * 1.5)
    assert len({round(pause, 3) for pause in pauses[4:]}) > 5, "the pauses have jitter"


async def test_a_status_that_goes_backwards() -> None:
    """J2: a step back is a state like others, and the first end stays, whatever comes after."""
    async with RawServer(in_raw_turn(RUNNING, PENDING, DONE, PENDING)) as server, Nex(KEY, base_url=server.url) as nex:
        job = nex.context.attach("5")
        assert [state.status async for state in job.watch(interval=0.01)] == ["processing", "pending", "completed"]
        assert (await job).status == (await job.poll()).status == "completed"
        assert len(server.requests) == 3


def test_a_late_reply_does_not_undo_an_end() -> None:
    """J2: a poll that was answered late, with an older state, does not take back an end that was seen meanwhile."""

    def server(call: Call) -> Outcome:
        return told(RUNNING, after=5.0) if call.number == 1 else told(DONE, after=1.0)

    async def use(nex: Nex, wire: VirtualWire) -> None:
        job = nex.context.attach("5")
        late, early = await asyncio.gather(job.poll(), job.poll())
        assert late.status == early.status == "completed"
        assert job.ended

    virtually(server, use)


async def test_an_unknown_status(caplog: pytest.LogCaptureFixture) -> None:
    """J3: a status nobody has heard of, or none, means that the job runs; one warning says so."""
    strange = [{"status": "queued"}, {"status": "unknown"}, {"status": ""}, {"status": None}, DONE]
    async with RawServer(in_raw_turn(*strange)) as server, Nex(KEY, base_url=server.url) as nex:
        with caplog.at_level(logging.WARNING, "nex_async.jobs"):
            assert (await nex.context.attach("5").wait(interval=0.01)).status == "completed"
    assert [record.message.partition(";")[0] for record in caplog.records if record.name == "nex_async.jobs"] == [
        "artifact 5 has the unknown status 'queued'"
    ]


def test_a_job_that_is_not_there_yet() -> None:
    """J4: a 404 in the first ten seconds is no answer yet, also after a first state, and also for a job attached to."""

    def server(call: Call) -> Outcome:
        if call.request.method == "POST":
            return told({"artifact_id": 5})
        since = call.at - began
        return told(RUNNING) if 4 < since < 7 else told(DONE) if since > 9 else refusal(404)

    async def use(nex: Nex, wire: VirtualWire) -> None:
        nonlocal began
        for make in (lambda: nex.context.add_text("x"), lambda: attach(nex)):
            began = wire.loop.time()
            assert (await (await make())).status == "completed"

    async def attach(nex: Nex) -> Job[Artifact]:
        return nex.context.attach("5")

    began = 0.0
    virtually(server, use)


def test_a_job_that_never_was() -> None:
    """J4: a 404 after the first ten seconds is an answer: counted from the creation, else from the first poll."""

    def server(call: Call) -> Outcome:
        return told({"artifact_id": 5}) if call.request.method == "POST" else refusal(404)

    async def use(nex: Nex, wire: VirtualWire) -> None:
        job = nex.context.attach("5")
        began = wire.loop.time()
        with pytest.raises(NotFoundError):
            await job
        assert 10 <= wire.loop.time() - began < 21
        fresh = await nex.context.add_text("x")
        await asyncio.sleep(11)
        asked = len(wire.calls)
        with pytest.raises(NotFoundError):
            await fresh
        assert len(wire.calls) == asked + 1

    virtually(server, use)


async def test_a_job_that_has_expired() -> None:
    """J5: a 410 is an end: everybody who waits gets `JobExpired`, and the server is not asked again."""
    async with RawServer([serve(lambda seen: json_reply({"message": "too old"}, 410))]) as server:
        async with Nex(KEY, base_url=server.url) as nex:
            job = nex.integrations.attach("eyJ")
            results = await asyncio.gather(job.wait(), job.wait(), _states(job), return_exceptions=True)
            assert [type(result) for result in results] == [JobExpired] * 3
            assert all(result.job_id == "eyJ" and isinstance(result.__cause__, APIError) for result in results)
            for again in (job.wait, job.poll, lambda: _states(job)):
                with pytest.raises(JobExpired):
                    await again()
            with pytest.raises(JobExpired):
                job.result()
            assert job.ended
            assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("state", "why"), [(FAILED, ": no model"), ({"status": "FAILED"}, ""), ({"status": "failed", "error": ""}, "")]
)
async def test_a_job_that_fails(state: dict[str, str], why: str) -> None:
    """J6: a failed job raises for those who wait, with what the server said of it; those who watch see it, and the end."""
    async with RawServer(in_raw_turn(RUNNING, state)) as server, Nex(KEY, base_url=server.url) as nex:
        job = nex.ai_lists.attach("j1")
        with pytest.raises(JobFailed) as caught:
            await job.wait(interval=0.01)
        assert str(caught.value) == f"AI list j1 failed{why}"
        assert (caught.value.job_id, caught.value.payload.status) == ("j1", "failed")
        assert [one.status async for one in job.watch()] == ["failed"]
        assert (await job.poll()).status == "failed"
        with pytest.raises(JobFailed):
            job.result()


async def test_a_result_that_follows_its_status() -> None:
    """J7: a job that says it is done and has no result is asked once more; nobody sees the state without one."""
    bare = {"message": {"status": "completed"}}
    full = {"message": {"status": "completed", "entities": [], "count": 0}}
    async with RawServer(in_raw_turn(bare, full)) as server, Nex(KEY, base_url=server.url) as nex:
        job = nex.ai_lists.attach("j1")
        states = [state.entities async for state in job.watch(interval=0.01)]
        assert (states, len(server.requests)) == ([[]], 2)


async def test_a_result_that_never_comes() -> None:
    """J7: a job that is done and has no result the second time raises `DecodeError`; it can be asked again."""
    async with RawServer(in_raw_turn({"status": "completed"})) as server, Nex(KEY, base_url=server.url) as nex:
        job = nex.ai_lists.attach("j1")
        for count in (2, 4):
            with pytest.raises(DecodeError, match="has no result"):
                await job.wait(interval=0.01)
            assert (len(server.requests), job.ended) == (count, False)
        for each in (job, nex.context.attach("5")):
            with pytest.raises(DecodeError):
                await _states(each, interval=0.01)


_CREATES: dict[str, Callable[[Nex], Awaitable[object]]] = {
    "artifact": lambda nex: nex.context.add_text("x"),
    "AI list": lambda nex: nex.ai_lists.create("tech"),
    "compounding": lambda nex: nex.compounding.trigger("metrics"),
    "connection": lambda nex: nex.integrations.connect("email", "google"),
}


@pytest.mark.parametrize("kind", _CREATES)
async def test_a_job_whose_creation_was_not_answered(kind: str) -> None:
    """J8: a creation whose reply was lost is not sent again, for it would cost again: `OutcomeUnknownError`."""
    async with RawServer([read_request, hold]) as server:
        async with Nex(KEY, base_url=server.url, timeout=Timeouts(read=0.1), retry=NO_WAIT) as nex:
            with pytest.raises(OutcomeUnknownError):
                await _CREATES[kind](nex)
        assert len(server.requests) == 1


def _window(times: list[float], seconds: float) -> int:
    """Return the most polls that began within any `seconds`."""
    return max(bisect_left(times, at + seconds) - place for place, at in enumerate(times))


def test_a_thousand_jobs() -> None:
    """J9: a thousand jobs keep within a rate limit that has been learned, and none is lost."""
    ends: dict[str, float] = {}
    allowed: list[float] = []

    def server(call: Call) -> Outcome:
        recent = sum(1 for at in allowed[-60:] if at > call.at - 1.0)
        if recent >= 50:
            return Outcome(0.01, reply(429, b"{}", retry_after="1"))
        allowed.append(call.at)
        return told(DONE if call.at > ends.setdefault(call.request.target, call.at + 15.0) else RUNNING)

    async def use(nex: Nex, wire: VirtualWire) -> None:
        states = await nex.jobs.wait_all([nex.context.attach(number) for number in range(1, 1001)])
        assert [state.status for state in states] == ["completed"] * 1000

    wire = virtually(server, use, retry=RetryPolicy())
    assert len(wire.calls) - len(allowed) < len(wire.calls) * 0.1, "few calls are refused"


def test_a_cancelled_wait() -> None:
    """J10: the polling ends with the last who waits, also in the middle of a poll; the job can be waited for again."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        job = nex.context.attach("5")
        waits = [asyncio.ensure_future(job.wait()) for _ in range(2)]
        await asyncio.sleep(7)
        waits[0].cancel()
        asked = len(wire.calls)
        await asyncio.sleep(20)
        assert len(wire.calls) > asked, "one of two is left"
        waits[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits[1]
        asked = len(wire.calls)
        await asyncio.sleep(100)
        assert (len(wire.calls), job.id) == (asked, "5")
        wire.server = lambda call: told(DONE)
        assert (await job).status == "completed"

    virtually([told(PENDING, after=1.5)], use)


def test_a_wall_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """J11: an hour's jump of the wall clock changes nothing: only the loop's clock counts."""
    real, jumps = time.time, iter(range(0, 1 << 40, 3600))
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))

    async def use(nex: Nex, wire: VirtualWire) -> None:
        began = wire.loop.time()
        with pytest.raises(JobTimeout):
            await nex.context.attach("5").wait(timeout=60)
        assert wire.loop.time() - began == 60
        assert 8 <= len(wire.calls) <= 14

    virtually([told(PENDING)], use)


# ---- failures of polls ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [refusal(500), refusal(503), refusal(429), Outcome(0.1, ConnectionLost("gone")), Outcome(1e6, reply())]
)
def test_what_may_pass_does_not_end_a_wait(failure: Outcome) -> None:
    """A lost connection, a 5xx, a 429 or silence is borne until the deadline, and a state that comes before is taken."""
    ends = 0.0

    async def use(nex: Nex, wire: VirtualWire) -> None:
        nonlocal ends
        ends = wire.loop.time() + 100
        assert (await nex.context.attach("5")).status == "completed"
        assert wire.loop.time() > ends

    wire = virtually(lambda call: failure if call.at < ends else told(DONE), use)
    assert 3 <= len(wire.calls) <= 25


def test_a_polls_own_deadline_does_not_end_a_wait() -> None:
    """A poll that runs out of its own time, or meets an empty retry budget, is one of many."""
    ends = 0.0

    async def use(nex: Nex, wire: VirtualWire) -> None:
        nonlocal ends
        ends = wire.loop.time() + 100
        hurried = nex.with_options(timeout=2, retries=3)
        assert (await hurried.context.attach("5")).status == "completed"

    virtually(lambda call: Outcome(1e6, reply()) if call.at < ends else told(DONE), use)
    virtually(lambda call: refusal(500) if call.at < ends else told(DONE), use, retry=RetryPolicy(budget=20))


def test_a_deadline_tells_the_last_failure() -> None:
    """`JobTimeout` has the failure of the last poll as its cause; after a poll that went well it has none."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        with pytest.raises(JobTimeout) as caught:
            await nex.context.attach("5").wait(timeout=30)
        assert isinstance(caught.value.__cause__, ServerError)
        now = wire.loop.time()
        wire.server = lambda call: refusal(500) if call.at < now + 10 else told(RUNNING)
        with pytest.raises(JobTimeout) as caught:
            await nex.context.attach("5").wait(timeout=30)
        assert caught.value.__cause__ is None
        job = nex.context.attach("5")
        for answer, cause in ((refusal(500), ServerError), (Outcome(1e6, reply()), type(None))):
            wire.server = lambda call, answer=answer: answer
            with pytest.raises(JobTimeout) as caught:
                await job.wait(timeout=10)
            assert isinstance(caught.value.__cause__, cause)

    virtually([refusal(500)], use)


@pytest.mark.parametrize("hang", [0.0, 1e6])
def test_a_deadline_is_kept_whatever_a_poll_does(hang: float) -> None:
    """A wait ends at its deadline to the moment, though a poll hangs, or its server does not even let itself be cancelled."""

    class Stubborn(VirtualWire):
        async def exchange(self, request: Any, timeout: Any) -> Any:
            try:
                return await super().exchange(request, timeout)
            except asyncio.CancelledError:
                await asyncio.sleep(hang)
                raise

    wire = Stubborn([Outcome(1e6, reply())])

    async def main() -> None:
        nex = virtual_client(wire, timeout=Timeouts(total=1e5, read=1e5))
        began = wire.loop.time()
        with pytest.raises(JobTimeout):
            await nex.context.attach("5").wait(timeout=12.5)
        assert wire.loop.time() - began == 12.5
        if hang:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
                await asyncio.wait([task])

    run_virtual(main())


@pytest.mark.parametrize(("status", "kind"), [(401, AuthenticationError), (403, PermissionDeniedError), (400, APIError)])
def test_what_will_not_pass_ends_a_wait(status: int, kind: type[APIError]) -> None:
    """A refusal that no other poll can mend raises to everybody who waits, at once; a later wait asks again."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        job = nex.context.attach("5")
        results = await asyncio.gather(job.wait(), job.wait(), _states(job), return_exceptions=True)
        assert all(isinstance(result, kind) for result in results)
        assert len({id(result) for result in results}) == 3, "each gets an error of his own"
        assert (len(wire.calls), job.ended) == (1, False)
        with pytest.raises(kind):
            job.result()
        waiting = asyncio.ensure_future(job.wait())
        await asyncio.sleep(0)
        with pytest.raises(InvalidRequestError):
            job.result()
        with pytest.raises(kind):
            await waiting
        wire.server = lambda call: told(DONE)
        assert (await job).status == job.result().status == "completed"

    virtually([refusal(status)], use)


async def test_a_bug_below_reaches_who_waits(nex: Nex, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error nobody has foreseen ends the wait as it is, and is not taken for a failure of the network."""
    job = nex.context.attach("5")

    async def broken(job_id: str) -> Artifact:
        raise ZeroDivisionError

    monkeypatch.setattr(job._progress, "_fetch", broken)
    with pytest.raises(ZeroDivisionError):
        await job
    with pytest.raises(ZeroDivisionError):
        await _states(job)


# ---- the caller's deadline, cancellation, the end of the client -----------------------------------------------------


def test_the_callers_deadline_holds_for_his_wait_alone() -> None:
    """An outer deadline ends the wait inside it, and not the polls that others share."""
    ends = 0.0

    async def use(nex: Nex, wire: VirtualWire) -> None:
        nonlocal ends
        ends = wire.loop.time() + 60
        job = nex.context.attach("5")

        async def hurried() -> None:
            with deadline(1.0), pytest.raises(DeadlineExceeded) as caught:
                await job
            assert not isinstance(caught.value, JobTimeout)
            assert wire.loop.time() == ends - 59
            with deadline(3.0), pytest.raises(DeadlineExceeded):
                await _states(job)

        hasty = asyncio.ensure_future(hurried())
        await asyncio.sleep(0)  # its poll is the first
        patient = asyncio.ensure_future(job.wait())
        await hasty
        assert (await patient).status == "completed"
        with deadline(-1.0), pytest.raises(DeadlineExceeded):
            await nex.context.attach("6")

    wire = virtually(lambda call: told(DONE if call.at > ends else RUNNING, after=0.5), use)
    assert {call.request.target for call in wire.calls} == {"/v1/context/artifacts/5"}
    assert all(call.timeout.sock_read == 30.0 for call in wire.calls)


_USES: dict[str, Callable[[Nex], Coroutine[Any, Any, object]]] = {
    "wait": lambda nex: nex.context.attach("5").wait(),
    "poll": lambda nex: nex.context.attach("5").poll(),
    "watch": lambda nex: _states(nex.context.attach("5")),
    "run": lambda nex: _handled(nex.context.attach("5")),
    "wait_all": lambda nex: nex.jobs.wait_all([nex.context.attach("5"), nex.ai_lists.attach("6")]),
    "as_completed": lambda nex: _completed(nex, [nex.context.attach("5"), nex.ai_lists.attach("6")]),
}

_AWAITED = ("wait", "poll", "run", "wait_all")


async def _states(job: Job[Any], **options: Any) -> list[str | None]:
    return [state.status async for state in job.watch(**options)]


async def _read(queue: FeedQueue[Any]) -> list[str | None]:
    return [state.status async for state in queue]


async def _completed(nex: Nex, jobs: list[Job[Any]], **options: Any) -> list[str]:
    return [job.id async for job in nex.jobs.as_completed(jobs, **options)]


async def _handled(job: Job[Any]) -> list[str | None]:
    feed, seen = job.watch(), []
    feed.on("*", lambda state: seen.append(state.status))
    await feed.run()
    return seen


@pytest.mark.parametrize("use", _USES)
def test_cancelled_at_every_turn(use: str) -> None:
    """Whoever is cancelled, at whatever turn of the loop, leaves no task and no polling behind; not for one turn more."""
    done = {"status": "completed", "result": {}, "entities": []}

    async def trial(turns: int) -> bool:
        wire = VirtualWire(in_turn(PENDING, PENDING, RUNNING, done))
        async with virtual_client(wire) as nex:
            task = asyncio.ensure_future(_USES[use](nex))
            for _ in range(turns):
                await asyncio.sleep(0.0 if turns % 2 else 0.5)
            finished = task.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            del task  # what was raised holds on to the feed it was raised in
            for _ in range(0 if use in _AWAITED else 3):  # nobody can wait for what the collector lets go
                await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert len(scheduler_of(nex._state)) == 0
            asked = len(wire.calls)
            await asyncio.sleep(60)
            assert len(wire.calls) == asked
            return finished

    finished = [run_virtual(trial(turns)) for turns in range(60)]
    assert not finished[0]
    assert any(finished)


@pytest.mark.parametrize("use", [use for use in _USES if use != "poll"])
@pytest.mark.parametrize("pause", [0.0, 0.005, 1.0])
def test_closing_the_client(use: str, pause: float) -> None:
    """Whoever waits for a job when its client is closed learns so at once, in a poll and between polls."""

    async def main() -> None:
        nex = virtual_client(VirtualWire([told(PENDING)]))
        task = asyncio.ensure_future(_USES[use](nex))
        await asyncio.sleep(pause)
        before = asyncio.get_running_loop().time()
        await nex.aclose()
        assert not [each for each in asyncio.all_tasks() if "poll" in repr(each.get_coro())]
        with pytest.raises(ClientClosed):
            await task
        assert asyncio.get_running_loop().time() == before
        with pytest.raises(ClientClosed):
            await _USES[use](nex)

    run_virtual(main())


async def test_closing_the_client_of_a_real_server(pool: SessionPool) -> None:
    """The same on real connections, with a poll under way and a pool that lives on."""
    async with RawServer([read_request, hold]) as server:
        nex = Nex(KEY, base_url=server.url, pool=pool)
        task = asyncio.ensure_future(nex.context.attach("5").wait())
        while not server.requests:
            await asyncio.sleep(0)
        await nex.aclose()
        with pytest.raises(ClientClosed):
            await task


def test_jobs_of_several_clients() -> None:
    """Jobs of several clients can be waited for together; when one of these is closed, the wait ends, also for the others."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        other = virtual_client(wire)
        jobs = [other.context.attach("6"), nex.context.attach("5")]
        assert len(await nex.jobs.wait_all(jobs)) == 2
        await other.aclose()
        jobs = [other.context.attach("6"), nex.context.attach("5")]
        with pytest.raises(ClientClosed):
            await nex.jobs.wait_all(jobs)
        ends = nex.jobs.as_completed(jobs)
        with pytest.raises(ClientClosed):
            await ends.__anext__()
        assert len(scheduler_of(nex._state)) == 0

    virtually([told(DONE)], use)


async def test_a_job_that_has_ended_needs_no_client() -> None:
    """What has been learned stays, also when the client is closed."""
    async with RawServer(in_raw_turn(DONE)) as server:
        async with Nex(KEY, base_url=server.url) as nex:
            job = nex.context.attach("5")
            await job
        assert (await job).status == (await job.poll()).status == job.result().status == "completed"
        assert await _states(job) == ["completed"]
        assert await nex.jobs.wait_all([job]) == [job.state]
        assert await _completed(nex, [job]) == ["5"]


def test_a_job_on_two_loops() -> None:
    """A job can be waited for on one loop after another, though the first was closed in the middle of it."""
    wire = VirtualWire([told(PENDING)])
    nex = virtual_client(wire)
    job = nex.context.attach("5")
    feed = job.watch()

    async def leave() -> None:
        assert (await feed.__anext__()).status == "pending"

    async def again() -> None:
        wire._sweeper = None  # a real pool has one for each loop
        assert (await job).status == "completed"
        assert len(nex._state.shared["schedulers"]) == 1
        await nex.aclose()

    run_virtual(leave())
    wire.server = lambda call: told(DONE)
    run_virtual(again())


async def test_closing_a_client_that_is_used_on_another_loop() -> None:
    """Closing a client ends the waits on every loop, each where it belongs."""
    async with RawServer(in_raw_turn(PENDING)) as server:
        nex = Nex(KEY, base_url=server.url)
        waiting = threading.Event()

        async def elsewhere() -> None:
            feed = nex.context.attach("5").watch()
            await feed.__anext__()
            waiting.set()
            with pytest.raises(ClientClosed):
                await feed.__anext__()

        other = asyncio.ensure_future(asyncio.to_thread(asyncio.run, elsewhere()))
        await asyncio.to_thread(waiting.wait)
        await nex.aclose()
        await other


# ---- sharing --------------------------------------------------------------------------------------------------------


def test_all_who_wait_share_the_polls() -> None:
    """Ten who wait for one job, and those who watch it, cost one poll at a time; who comes late is told at once."""
    ends = 0.0

    async def use(nex: Nex, wire: VirtualWire) -> None:
        nonlocal ends
        ends = wire.loop.time() + 40
        job = nex.context.attach("5")
        ten = [asyncio.ensure_future(job.wait()) for _ in range(10)]
        watch = asyncio.ensure_future(_states(job))
        await asyncio.sleep(30)
        asked, now = len(wire.calls), wire.loop.time()
        late = job.watch().queue()
        assert (await late.get()).status == "processing"
        assert (len(wire.calls), wire.loop.time()) == (asked, now)
        states = await asyncio.gather(*ten)
        assert len({id(state) for state in states}) == 1
        assert await watch == ["processing", "completed"]
        assert (await late.get()).status == "completed"

    wire = virtually(lambda call: told(DONE if call.at > ends else RUNNING), use)
    assert all(after - before >= 1.6 for before, after in zip(wire.times, wire.times[1:], strict=False))


def test_the_shortest_interval_counts() -> None:
    """Who asks to be told sooner is, and a poll by hand tells everybody."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        job = nex.context.attach("5")
        slow = asyncio.ensure_future(job.wait(interval=100))
        await asyncio.sleep(1)
        assert len(wire.calls) == 1
        with pytest.raises(JobTimeout):
            await job.wait(interval=1, timeout=5)
        assert 3 <= len(wire.calls) <= 6
        wire.server = lambda call: told(DONE)
        now = wire.loop.time()
        await job.poll()
        assert (await slow).status == "completed"
        assert wire.loop.time() < now + 0.1

    virtually([told(PENDING)], use)


def test_a_poll_by_hand_that_finds_an_expired_job_tells_everybody() -> None:
    """Whoever learns that a job has expired, all who wait for it do."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        job = nex.context.attach("5")
        slow = asyncio.ensure_future(job.wait(interval=100))
        await asyncio.sleep(1)
        wire.server = lambda call: refusal(410)
        now = wire.loop.time()
        with pytest.raises(JobExpired):
            await job.poll()
        with pytest.raises(JobExpired):
            await slow
        assert wire.loop.time() < now + 0.1

    virtually([told(PENDING)], use)


# ---- watching -------------------------------------------------------------------------------------------------------


def test_a_watch_yields_each_change_and_ends() -> None:
    """A watch yields each change of status once, and ends with the job, with no ``async with``."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        watch = nex.context.attach("5").watch()
        assert isinstance(watch, Feed)
        assert [state.status async for state in watch] == ["pending", "processing", "completed"]
        assert [state async for state in watch] == []

    assert len(virtually(in_turn(PENDING, PENDING, RUNNING, RUNNING, DONE), use).calls) == 5


def test_a_watch_that_is_left() -> None:
    """Leaving the loop ends the polling and leaves nothing behind; the job can be watched again."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        job = nex.context.attach("5")
        async for state in job.watch():
            assert state.status == "pending"
            break
        asked = len(wire.calls)
        await asyncio.sleep(60)
        assert len(wire.calls) == asked
        assert await _states(job) == ["processing", "completed"]

    virtually(in_turn(PENDING, RUNNING, DONE), use)


def test_a_watch_that_is_taken_up_again() -> None:
    """A feed whose last queue was closed polls no more; another queue takes it up where it was."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        feed = nex.context.attach("5").watch()
        queue = feed.queue()
        assert (await queue.get()).status == "pending"
        queue.close()
        asked = len(wire.calls)
        await asyncio.sleep(60)
        assert len(wire.calls) == asked
        assert await _read(feed.queue()) == ["pending", "processing", "completed"]

    virtually(in_turn(PENDING, RUNNING, DONE), use)


async def test_a_watch_that_is_dropped_in_another_thread() -> None:
    """The collector may let go of a feed in any thread: its polling ends all the same."""
    async with RawServer(in_raw_turn(PENDING)) as server, Nex(KEY, base_url=server.url) as nex:
        held = [nex.context.attach("5").watch(interval=0.01)]
        assert (await held[0].__anext__()).status == "pending"
        await asyncio.to_thread(held.clear)
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(scheduler_of(nex._state)) == 0


def test_a_watch_as_a_feed() -> None:
    """Handlers are chosen by status, queues get every state, and both end with the job."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        feed, seen = nex.context.attach("5").watch(), []

        @feed.on("completed")
        async def handle(state: Artifact) -> None:
            seen.append(state.result)

        queue = feed.queue()
        reader = asyncio.ensure_future(_read(queue))
        await feed.run()
        assert [result.insights_created for result in seen] == [1]
        assert await reader == ["pending", "completed"]
        with pytest.raises(FeedClosed):
            await queue.get()
        async with nex.context.attach("6").watch() as feed:
            async for state in feed:
                assert state.status == "completed"

    virtually(in_turn(PENDING, {**DONE, "status": "COMPLETED"}), use)


def test_a_filter_that_fails() -> None:
    """A reader whose own filter fails gets that error, and nobody else does."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        job = nex.context.attach("5")
        waiting = asyncio.ensure_future(job.wait())
        queue = job.watch().queue(where=lambda state: 1 // 0 == 0)
        with pytest.raises(ZeroDivisionError):
            await queue.get()
        assert (await waiting).status == "completed"

    virtually(in_turn(PENDING, DONE), use)


def test_a_watch_that_is_closed_with_a_poll_under_way() -> None:
    """Closing a watch waits until its poll has ended."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        async with nex.context.attach("5").watch():
            while not wire.calls:
                await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        asked = len(wire.calls)
        async with nex.context.attach("5").watch():
            pass
        await asyncio.sleep(100)
        assert len(wire.calls) == asked

    virtually([told(PENDING, after=50.0)], use)


def test_a_watch_has_a_deadline() -> None:
    """A watch raises `JobTimeout` at its deadline, counted from the first reading, after all states that came."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        watch = nex.context.attach("5").watch(timeout=20)
        await asyncio.sleep(100)
        began = wire.loop.time()
        assert (await watch.__anext__()).status == "pending"
        with pytest.raises(JobTimeout) as caught:
            await watch.__anext__()
        assert (wire.loop.time() - began, caught.value.job_id) == (20.0, "5")

    virtually([told(PENDING)], use)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": -1}, {"timeout": True}, {"interval": 0}, {"interval": "soon"}]
)
async def test_what_cannot_be_right_is_refused(options: dict[str, Any], nex: Nex) -> None:
    """Times that make no sense, and jobs that are none, are refused before anything is sent."""
    job = nex.context.attach("5")
    with pytest.raises(InvalidRequestError):
        await job.wait(**options)
    with pytest.raises(InvalidRequestError):
        job.watch(**options)
    with pytest.raises(InvalidRequestError):
        await nex.jobs.wait_all(["5"])  # type: ignore[list-item]
    with pytest.raises(InvalidRequestError):
        nex.jobs.as_completed([nex])  # type: ignore[list-item]
    with pytest.raises(InvalidRequestError, match="not ended"):
        job.result()
    assert repr(job) == "<Job artifact 5 not yet polled>"


# ---- many -----------------------------------------------------------------------------------------------------------


def _by_id(ends: dict[str, tuple[float, object]]) -> Callable[[Call], Outcome]:
    """Return a server whose jobs end so many seconds after their first poll, in such a state."""
    firsts: dict[str, float] = {}

    def server(call: Call) -> Outcome:
        job = call.request.target.rpartition("/")[2]
        after, state = ends[job]
        begun = firsts.setdefault(job, call.at)
        return told(RUNNING) if call.at < begun + after else state if isinstance(state, Outcome) else told(state)

    return server


def test_wait_all() -> None:
    """All states come back, in the order of the jobs, of whatever kinds, one named twice included."""
    ends = {"5": (30.0, DONE), "6": (5.0, {"status": "completed", "entities": []})}

    async def use(nex: Nex, wire: VirtualWire) -> None:
        artifact, made = nex.context.attach("5"), nex.ai_lists.attach("6")
        states = await nex.jobs.wait_all([artifact, made, artifact])
        assert [type(state) for state in states] == [Artifact, AIList, Artifact]
        assert await nex.jobs.wait_all([]) == []
        assert await nex.jobs.wait_all(job for job in [artifact]) == [artifact.state]

    virtually(_by_id(ends), use)


def test_wait_all_with_a_failure() -> None:
    """The first failure raises at once and ends the wait for the others; asked for, it stands in its place."""
    ends = {"5": (60.0, DONE), "6": (5.0, FAILED), "7": (20.0, refusal(410)), "8": (1000.0, DONE), "9": (30.0, refusal(403))}

    async def use(nex: Nex, wire: VirtualWire) -> None:
        jobs = [nex.context.attach(job) for job in ends]
        began = wire.loop.time()
        with pytest.raises(JobFailed, match="no model"):
            await nex.jobs.wait_all(jobs)
        assert wire.loop.time() < began + 20
        jobs = [nex.context.attach(job) for job in ends]
        with pytest.raises(JobTimeout) as caught:
            await nex.jobs.wait_all(jobs[:1], timeout=20)
        assert caught.value.job_id == "5"
        began = wire.loop.time()
        results = await nex.jobs.wait_all(jobs, timeout=100, return_exceptions=True)
        assert [type(result) for result in results] == [Artifact, JobFailed, JobExpired, JobTimeout, PermissionDeniedError]
        assert [getattr(result, "job_id", None) for result in results] == [None, "6", "7", "8", None]
        assert wire.loop.time() == began + 100

    virtually(_by_id(ends), use)


def test_as_completed() -> None:
    """Jobs come in the order in which they end, those that have ended first; a failed one comes too."""
    ends = {"5": (60.0, DONE), "6": (5.0, FAILED), "7": (25.0, refusal(410)), "8": (0.0, DONE), "9": (1000.0, DONE)}

    async def use(nex: Nex, wire: VirtualWire) -> None:
        jobs = [nex.context.attach(job) for job in ends]
        await jobs[3]
        seen, began = [], wire.loop.time()
        with pytest.raises(JobTimeout) as caught:
            async for job in nex.jobs.as_completed(jobs, timeout=200):
                try:
                    job.result()
                    seen.append((job.id, "completed"))
                except (JobFailed, JobExpired) as error:
                    seen.append((job.id, type(error).__name__))
        assert seen == [("8", "completed"), ("6", "JobFailed"), ("7", "JobExpired"), ("5", "completed")]
        assert (caught.value.job_id, wire.loop.time() - began) == ("9", 200.0)
        assert await _completed(nex, jobs[:4]) == ["5", "6", "7", "8"]
        feed = nex.jobs.as_completed(jobs[:4])
        queues = [feed.queue(), feed.queue()]
        for queue in queues:
            assert [job.id async for job in queue] == ["5", "6", "7", "8"]
        assert await _completed(nex, []) == []

    virtually(_by_id(ends), use)


def test_as_completed_that_is_left() -> None:
    """Leaving the loop leaves nothing behind, and loses no job."""
    ends = {str(number): (number * 5.0, DONE) for number in range(1, 20)}

    async def use(nex: Nex, wire: VirtualWire) -> None:
        jobs = [nex.context.attach(job) for job in ends]
        async for job in nex.jobs.as_completed(jobs):
            assert job.ended
            break
        asked = len(wire.calls)
        await asyncio.sleep(60)
        assert len(wire.calls) == asked
        assert len(await nex.jobs.wait_all(jobs)) == 19

    virtually(_by_id(ends), use)


@pytest.mark.usefixtures("few_records")
def test_ten_thousand_jobs() -> None:
    """Ten thousand jobs attached at once are polled evenly and within the pace, with no task but the polls in flight."""
    count = 10_000
    ends = {str(number): (30.0 if number % 2 else 45.0, DONE) for number in range(1, count + 1)}
    answer, most_tasks = _by_id(ends), 0

    def server(call: Call) -> Outcome:
        nonlocal most_tasks
        if call.number % 97 == 0:
            most_tasks = max(most_tasks, len(asyncio.all_tasks()))
        return answer(call)._replace(after=0.2)

    async def use(nex: Nex, wire: VirtualWire) -> None:
        jobs = [nex.context.attach(number) for number in ends]
        states = await nex.jobs.wait_all(jobs)
        assert [state.status for state in states] == ["completed"] * count

    wire = virtually(server, use)
    assert _window(wire.times, 1.0) <= Scheduler.PER_SECOND + 1
    assert _window(wire.times, 0.1) <= Scheduler.PER_SECOND * 0.1 + 1
    assert most_tasks <= Scheduler.MOST_IN_FLIGHT + 1
    firsts: dict[str, float] = {}
    for call in wire.calls:
        firsts.setdefault(call.request.target, call.at)
    assert len(firsts) == count
    assert wire.times[-1] - wire.times[0] < 300
    assert len(wire.calls) < 4 * count


@pytest.mark.usefixtures("few_records")
def test_what_ten_thousand_jobs_cost() -> None:
    """A job that is waited for costs less than two kilobytes, and gives them back, though others are waited for on."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        other = asyncio.ensure_future(nex.context.attach("1").wait())
        await asyncio.sleep(1)
        tracemalloc.start()
        try:
            left = []
            for _ in range(3):
                before = tracemalloc.get_traced_memory()[0]
                jobs = [nex.context.attach(number) for number in range(1, 10_001)]
                waiting = asyncio.ensure_future(nex.jobs.wait_all(jobs))
                await asyncio.sleep(0)
                assert tracemalloc.get_traced_memory()[0] - before < 20_000_000
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting
                del jobs, waiting
                left.append(tracemalloc.get_traced_memory()[0])
            assert left[2] - left[0] < 100_000
        finally:
            tracemalloc.stop()
            other.cancel()
        await asyncio.wait([other])

    virtually([told(PENDING)], use)


def test_a_crowd_is_spread_and_one_is_not() -> None:
    """A hundred jobs attached at once are first polled over their whole interval; one alone is polled at once."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        began = wire.loop.time()
        await nex.context.attach("5")
        assert wire.times == [began]
        began = wire.loop.time()
        await nex.jobs.wait_all([nex.context.attach(number) for number in range(1, 101)])
        firsts = [at - began for at in wire.times[1:]]
        assert len(firsts) == 100
        assert firsts[0] < 0.2
        assert 1.0 < firsts[-1] < 2.2
        assert _window(wire.times[1:], 0.5) < 55

    virtually([told(DONE)], use)


def test_most_polls_in_flight() -> None:
    """However slow the server, no more than 64 polls are in flight, and every job has its turn."""
    flying = most = 0

    class Counting(VirtualWire):
        async def exchange(self, request: Any, timeout: Any) -> Any:
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            try:
                return await super().exchange(request, timeout)
            finally:
                flying -= 1

    wire = Counting([told(DONE, after=10.0)])

    async def main() -> None:
        async with virtual_client(wire) as nex:
            await nex.jobs.wait_all([nex.context.attach(number) for number in range(1, 301)])

    run_virtual(main())
    assert (most, len(wire.calls)) == (Scheduler.MOST_IN_FLIGHT, 300)


def test_views_share_the_scheduler() -> None:
    """Jobs of a client and of its views are polled by one scheduler, each with the options of its own view."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        view = nex.with_options(headers={"X-Trace": "1"})
        await nex.jobs.wait_all([nex.context.attach("5"), view.context.attach("6")])
        assert scheduler_of(view._state) is scheduler_of(nex._state)
        traced = {call.request.target[-1]: "X-Trace" in (call.request.headers or {}) for call in wire.calls}
        assert traced == {"5": False, "6": True}

    virtually([told(DONE)], use)


# ---- kinds, and the embedded Nex ------------------------------------------------------------------------------------


async def test_a_connection_is_a_job(nex: Nex) -> None:
    """A connection is awaited by the reply of `connect` or by its token, in whatever process."""
    started = await nex.integrations.connect("email", "google")
    job = nex.integrations.attach(started)
    assert (job.kind, job.id, (await job.poll()).status) == ("connection", started.connect_id, "pending")
    waiting = asyncio.ensure_future(job.wait(interval=0.02))
    await asyncio.sleep(0)
    await _approve(started.auth_url)
    state = await waiting
    assert state.status == "connected"
    assert state.connection_id
    assert (await nex.integrations.attach(started.connect_id or "")).connection_id == state.connection_id


async def _approve(auth_url: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(auth_url) as response:
        assert response.status == 200


def test_the_statuses_of_a_connection() -> None:
    """A connection asks every three seconds at first, knows every spelling of its ends, and fails with what was said."""

    async def use(nex: Nex, wire: VirtualWire) -> None:
        for status in ("connected", "complete", "completed", "ACTIVE"):
            wire.server = lambda call, status=status: told({"status": status, "connection_id": 5})
            assert (await nex.integrations.attach("eyJ+/=")).connection_id == "5"
        for status in ("failed", "error"):
            wire.server = lambda call, status=status: told({"status": status, "error": "denied"})
            with pytest.raises(JobFailed, match="denied"):
                await nex.integrations.attach("eyJ")
        wire.calls.clear()
        wire.server = lambda call: told(PENDING, after=0.0)
        with pytest.raises(JobTimeout) as caught:
            await nex.integrations.attach("e" * 500)
        assert caught.value.job_id == "e" * 500
        assert len(str(caught.value)) < 100
        assert 2.4 <= wire.times[1] - wire.times[0] <= 3.61

    virtually([told(PENDING)], use)


async def test_a_connection_without_a_token(nex: Nex) -> None:
    """Where `connect` brought no token there is nothing to follow, and that is said."""
    for wrong in (ConnectStarted(auth_url="https://x"), ""):
        with pytest.raises(InvalidRequestError):
            nex.integrations.attach(wrong)


async def test_jobs_of_the_embedded_nex(nex: Nex) -> None:
    """Every kind of job ends at the embedded Nex, and another process may attach to it by its id."""
    jobs: list[Job[Any]] = [
        await nex.context.add_text("Ada Park <ada@x.io> asked for a demo."),
        await nex.ai_lists.create("people", include_attributes=True),
        await nex.compounding.trigger("metrics", dry_run=True),
    ]
    waits = [asyncio.ensure_future(job.wait(interval=0.05)) for job in jobs]
    states = await nex.jobs.wait_all(jobs)
    assert [state.status for state in states] == ["completed"] * 3
    assert [job.kind for job in jobs] == ["artifact", "AI list", "compounding job"]
    await asyncio.gather(*waits)
    others = [nex.context.attach(jobs[0].id), nex.ai_lists.attach(jobs[1].id), nex.compounding.attach(jobs[2].id)]
    assert [state.status for state in await nex.jobs.wait_all(others)] == ["completed"] * 3


def test_job_errors_pickle() -> None:
    """The errors of jobs survive a trip to another process."""
    for error in (JobExpired("gone", job_id="5"), JobTimeout("late", job_id="5"), JobFailed("no", job_id="5")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.message, again.job_id) == (type(error), error.message, "5")
