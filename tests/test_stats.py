"""`nex.stats`: what a client tells of itself."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from nex_async import (
    ConnectionLost,
    Nex,
    NexStats,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    SessionPool,
)
from nex_async.emulator import Emulator
from nex_async.errors import AuthenticationError, NexError
from nex_async.transport import state as state_module

from .harness.canary import KEY, leaked
from .harness.loops import leaves_connections
from .harness.raw_server import NO_WAIT
from .harness.virtual import Outcome, VirtualWire, reply, run_virtual, virtual_client


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something holds."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came true")


async def held(server: Emulator, nex: Nex) -> asyncio.Task[Any]:
    """Return a call that the server has begun, and does not answer until its faults are cleared."""
    fault = server.faults.add(kind="stall")
    call = asyncio.ensure_future(nex.tasks.list(limit=1))
    await until(lambda: fault.hits)
    return call


# ---- calls ----------------------------------------------------------------------------------------------------------


async def test_each_call_is_counted_once_by_how_it_ended(emulator: Emulator, nex: Nex) -> None:
    """A call is begun once, and ends once: it succeeds, fails under the name of its error, or is cancelled."""
    task = await nex.tasks.create("x")
    await nex.tasks.get(task.id)
    for _ in range(2):
        with pytest.raises(NotFoundError):
            await nex.tasks.get("1")
    cancelled = await held(emulator, nex)
    assert (nex.stats.calls.in_flight, nex.stats.calls.begun) == (1, 5)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    calls = nex.stats.calls
    assert (calls.begun, calls.in_flight, calls.succeeded, calls.failed, calls.cancelled) == (5, 0, 2, 2, 1)
    assert calls.errors == {"NotFoundError": 2}


async def test_what_is_refused_before_it_is_sent_is_no_call(nex: Nex) -> None:
    """An argument that cannot be right is the caller's affair, and counts for nothing."""
    with pytest.raises(NexError):
        await nex.tasks.get("..")
    assert nex.stats.calls.begun == 0


async def test_retries_are_counted_as_they_are_sent(emulator: Emulator) -> None:
    """A call that succeeds at the third attempt is one success and two retries."""
    async with Nex(KEY, base_url=emulator.url, retry=NO_WAIT) as nex:
        emulator.faults.add(kind="status", status=503, times=2)
        await nex.tasks.list(limit=1)
        calls = nex.stats.calls
        assert (calls.begun, calls.succeeded, calls.retries, calls.throttled) == (1, 1, 2, 0)
        emulator.faults.add(kind="status", status=503, times=None)
        with pytest.raises(ServerError):
            await nex.tasks.list(limit=1)
        calls = nex.stats.calls
        assert (calls.begun, calls.failed, calls.retries) == (2, 1, 5)
        assert nex.stats.retry_budget == 100 - 5 * 10


def test_a_delete_that_had_worked_is_a_success() -> None:
    """A DELETE whose reply was lost, and which then finds nothing, counts as the success that it is."""

    async def main() -> None:
        network = VirtualWire([ConnectionLost("lost", sent="maybe"), reply(404)])
        async with virtual_client(network) as nex:
            await nex.tasks.delete("1")
            calls = nex.stats.calls
            assert (calls.begun, calls.succeeded, calls.failed, calls.retries) == (1, 1, 0, 1)

    run_virtual(main())


def test_waits_are_told_apart() -> None:
    """Seconds lost to rate limits and seconds lost to backoff are two sums, measured as they pass."""

    async def main() -> None:
        network = VirtualWire([reply(503, retry_after="3"), reply(), reply(429, retry_after="5"), reply()])
        async with virtual_client(network) as nex:
            await nex.tasks.get("1")
            first = nex.stats.calls
            assert 3.0 <= first.backoff <= 3.4
            assert first.limited == 0
            await nex.tasks.get("1")
            second = nex.stats.calls
            assert second.backoff == first.backoff
            assert 5.0 <= second.limited <= 5.6
            assert (second.throttled, second.retries, second.succeeded) == (1, 2, 2)

    run_virtual(main())


def test_a_wait_that_is_cut_short_counts_as_far_as_it_came() -> None:
    """A call that is cancelled during a backoff has waited for as long as it did, not for as long as it meant to."""

    async def main() -> None:
        async with virtual_client(VirtualWire([reply(503, retry_after="20")])) as nex:
            call = asyncio.ensure_future(nex.tasks.get("1"))
            await asyncio.sleep(4.01)
            call.cancel()
            await asyncio.wait([call])
            assert nex.stats.calls.backoff == pytest.approx(4.0)
            assert nex.stats.calls.cancelled == 1

    run_virtual(main())


def test_the_line_before_a_limit_shows_by_group() -> None:
    """Calls that wait for a published limit are in line in its group, and nowhere else; their wait is counted."""

    async def main() -> None:
        body = b'{"artifact_id":"7"}'
        async with virtual_client(VirtualWire([Outcome(0.01, reply(body=body))])) as nex:
            calls = [asyncio.ensure_future(nex.context.add_text("x")) for _ in range(12)]
            await asyncio.sleep(1)
            limits = nex.stats.limits
            assert {group: limit.waiting for group, limit in limits.items()} == {"default": 0, "text": 2, "connect": 0}
            assert nex.stats.calls.in_flight == 2
            await asyncio.gather(*calls)
            assert nex.stats.limits["text"].waiting == 0
            assert nex.stats.calls.limited == pytest.approx(2 * 60.5)
            assert (nex.stats.calls.succeeded, nex.stats.calls.throttled, nex.stats.calls.retries) == (12, 0, 0)

    run_virtual(main())


def test_the_learned_rate_shows() -> None:
    """Before the first 429 nothing limits the other calls; after it the learned rate is told."""

    async def main() -> None:
        async with virtual_client(VirtualWire([reply(), reply(429), reply()])) as nex:
            await nex.tasks.get("1")
            assert nex.stats.limits["default"].rate is None
            await nex.tasks.get("1")
            rate = nex.stats.limits["default"].rate
            assert rate is not None
            assert 0.1 <= rate < 200

    run_virtual(main())


async def test_a_refused_key_shows(emulator: Emulator) -> None:
    """After three 401 in a row the key is refused here, which a health endpoint should see; a success opens it again."""
    async with Nex("sk-wrong-key", base_url=emulator.url) as nex:
        for number in range(1, 4):
            assert not nex.stats.key_refused
            with pytest.raises(AuthenticationError):
                await nex.tasks.list()
            assert nex.stats.calls.errors == {"AuthenticationError": number}
        assert nex.stats.key_refused


async def test_what_hooks_raise_is_counted(emulator: Emulator) -> None:
    """Exceptions of hooks show, and disturb nothing."""

    def hook(details: object) -> None:
        raise RuntimeError("mine")

    async with Nex(KEY, base_url=emulator.url, on_request=hook, on_response=hook) as nex:
        await nex.tasks.list(limit=1)
        assert nex.stats.hook_errors == nex.hook_errors == 2


async def test_what_is_no_error_of_ours_counts_by_its_own_name(emulator: Emulator) -> None:
    """A call that ends with anything else than an error of the SDK counts as failed too, under that name."""

    class Odd(aiohttp.TCPConnector):
        async def connect(self, *arguments: Any, **more: Any) -> Any:
            raise LookupError("odd")

    async with SessionPool(connector_factory=Odd) as pool, Nex(KEY, base_url=emulator.url, pool=pool) as nex:
        with pytest.raises(LookupError):
            await nex.tasks.list()
        assert nex.stats.calls.errors == {"LookupError": 1}


# ---- whose figures --------------------------------------------------------------------------------------------------


async def test_views_share_their_clients_figures(nex: Nex) -> None:
    """What goes through a view counts for its client, and the other way round."""
    view = nex.with_options(timeout=5)
    await view.tasks.list(limit=1)
    await nex.tasks.list(limit=1)
    assert nex.stats.calls == view.stats.calls
    assert nex.stats.calls.succeeded == 2


async def test_tenants_of_a_pool_have_figures_of_their_own(emulator: Emulator) -> None:
    """Two clients of one pool share its connections, and no other figure."""
    async with SessionPool() as pool:
        async with Nex(KEY, base_url=emulator.url, pool=pool) as one, Nex(KEY, base_url=emulator.url, pool=pool) as other:
            await one.tasks.list(limit=1)
            assert (one.stats.calls.succeeded, other.stats.calls.succeeded) == (1, 0)
            assert one.stats.pool == other.stats.pool


async def test_an_embedded_nex_has_figures_from_the_start() -> None:
    """`Nex.local()` can be asked before it runs, while it runs, and when it has ended."""
    local = Nex.local()
    before = local.stats
    assert (before.calls.begun, before.pool, before.retry_budget, before.closed) == (0, None, None, False)
    async with local as nex:
        await nex.tasks.list(limit=1)
        assert nex.stats.calls.succeeded == 1
    after = local.stats
    assert after.closed
    assert after.calls.succeeded == 1


@leaves_connections
def test_a_client_used_from_two_loops_sums_them_up(backend_url: str) -> None:
    """Calls made under one event loop, and then another, are the calls of one client."""
    nex = Nex(KEY, base_url=backend_url)

    async def once() -> None:
        await nex.tasks.list(limit=1)

    asyncio.run(once())
    asyncio.run(once())
    assert nex.stats.calls.succeeded == 2
    asyncio.run(nex.aclose())


@pytest.fixture
def backend_url() -> Any:
    """The address of an embedded Nex on a loop, and in a thread, of its own."""
    ready, done = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with Emulator(keys={KEY: None}) as server:
            found.append(server.url)
            ready.set()
            await asyncio.get_running_loop().run_in_executor(None, done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    yield found[0]
    done.set()
    thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_begins_anew() -> None:
    """What the parent did is not the child's to tell."""

    async def main() -> Nex:
        async with virtual_client(VirtualWire([reply()])) as nex:
            await nex.tasks.get("1")
            call = asyncio.ensure_future(nex.tasks.get("1"))
            await asyncio.sleep(0)
            state_module._after_fork_in_child()
            assert nex.stats.calls.begun == 0
            await call
        return nex

    run_virtual(main())


# ---- connections ----------------------------------------------------------------------------------------------------


async def test_connections_open_and_idle(emulator: Emulator, nex: Nex) -> None:
    """A connection that waits for its next call is idle; one in the middle of a call is not; a stream is neither."""
    assert dataclasses.astuple(nex.stats.pool) == (100, 0, 0, 0)  # type: ignore[arg-type]
    call = await held(emulator, nex)
    await nex.tasks.list(limit=1)
    assert dataclasses.astuple(nex.stats.pool) == (100, 2, 1, 0)  # type: ignore[arg-type]
    emulator.faults.clear()
    await call
    async with nex.insights.stream():
        await until(lambda: dataclasses.astuple(nex.stats.pool)[1:] == (1, 1, 1))  # type: ignore[arg-type]


async def test_a_connector_that_does_not_tell(nex: Nex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a connector keeps its connections to itself, their number is None, and all else is told."""
    await nex.tasks.list(limit=1)
    connector = nex._sender.bind().session.connector
    with monkeypatch.context() as patch:
        patch.setattr(connector, "_conns", None)
        pool = nex.stats.pool
    assert pool is not None
    assert (pool.open, pool.idle, pool.limit, pool.streams) == (None, None, 100, 0)


# ---- what runs ------------------------------------------------------------------------------------------------------


async def test_feeds_show_while_they_are_open(nex: Nex) -> None:
    """Each open feed is there with its own figures, and is gone when it is closed."""
    async with nex.insights.stream() as one:
        one.queue(maxsize=7)
        async with nex.insights.stream(mode="exact"):
            assert [(feed.connected, feed.consumers) for feed in nex.stats.feeds] == [(True, 2), (True, 1)]
        [shown] = nex.stats.feeds
        assert dataclasses.replace(shown, silence=None) == dataclasses.replace(one.stats, silence=None)
        assert shown.silence is not None
    assert nex.stats.feeds == ()


async def test_what_feeds_met_outlives_them(emulator: Emulator, nex: Nex) -> None:
    """Lost connections and dropped events are sums of the client: a feed that is closed takes nothing away from them."""
    async with nex.insights.stream() as feed:
        queue = feed.queue(maxsize=1, overflow="drop_oldest")
        emulator.faults.add(kind="cut_event", ending="reset")
        emulator.faults.add(kind="status", route="streamInsights", status=503)  # two attempts, one connection lost
        for number in range(3):
            await nex.context.add_text(f"Ada Park from x{number}.io asked for a demo of the product")
        await until(lambda: queue.dropped >= 2 and feed.stats.reconnects and feed.stats.connected)
        dropped = queue.dropped
    assert nex.stats.feeds == ()
    assert (nex.stats.reconnects, nex.stats.dropped, nex.stats.gaps) == (1, dropped, 0)


async def test_jobs_show_while_they_are_watched(emulator: Emulator, nex: Nex) -> None:
    """A job counts for as long as somebody waits for it."""
    job = await nex.context.add_text("Ada from x.io asked for a demo")
    emulator.faults.add(kind="stall", route="getArtifact")
    waiting = asyncio.ensure_future(job.wait())
    await until(lambda: nex.stats.jobs == 1)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert nex.stats.jobs == 0


async def test_bulk_runs_show_while_they_run(nex: Nex) -> None:
    """A run under way is there with its counts, and is gone when it ends."""
    rows = [{"name": f"P{number}", "email_addresses": [f"p{number}@x.io"]} for number in range(5)]
    async with nex.records.upsert_many("person", rows, match_on="email_addresses") as run:
        async for _ in run:
            [shown] = nex.stats.runs
            assert shown.name == run.report.name
            assert shown.requests >= shown.rows >= 1
    assert nex.stats.runs == ()


# ---- as plain data --------------------------------------------------------------------------------------------------


async def test_a_snapshot_is_plain_data_without_secrets(emulator: Emulator, nex: Nex) -> None:
    """`dataclasses.asdict` makes JSON of it; neither the key nor the workspace nor an id is in it, and it cannot change."""
    task = await nex.tasks.create("x")
    with pytest.raises(NotFoundError):
        await nex.tasks.get("123456789")
    async with nex.insights.stream() as feed:
        await nex.context.add_text("Ada from x.io asked for a demo")
        await asyncio.wait_for(feed.__anext__(), 10)
        async with nex.records.upsert_many("person", [{"name": "A"}], match_on="name"):
            stats = nex.stats
        workspace = feed._entrance._engine.hub.workspace  # type: ignore[union-attr]
        assert workspace
    text = json.dumps(dataclasses.asdict(stats))
    assert json.loads(text)["calls"]["errors"] == {"NotFoundError": 1}
    assert not leaked(text + repr(stats))
    for identity in (workspace, task.id, "123456789"):
        assert identity not in text
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.closed = True  # type: ignore[misc]
    stats.calls.errors.clear()
    assert nex.stats.calls.failed == 1


async def test_a_snapshot_may_be_taken_from_any_thread(emulator: Emulator, nex: Nex) -> None:
    """A health endpoint in a thread of its own reads while the loop works: every snapshot is whole, sums never fall."""
    taken: list[NexStats] = []
    failures: list[Exception] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            try:
                taken.append(nex.stats)
            except Exception as error:
                failures.append(error)
            time.sleep(0.0002)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        async with nex.insights.stream() as feed:
            queue = feed.queue()
            for _ in range(10):
                async with nex.insights.stream(mode="exact"):
                    await asyncio.gather(*[nex.tasks.list(limit=1) for _ in range(20)])
            queue.close()
    finally:
        over.set()
        thread.join()
    assert failures == []
    succeeded = [stats.calls.succeeded for stats in taken]
    assert succeeded == sorted(succeeded)
    assert max(stats.calls.in_flight for stats in taken) > 1
    assert nex.stats.calls.succeeded >= 200


async def test_errors_without_a_reply_count_by_name_too(emulator: Emulator) -> None:
    """A connection that breaks is a failure of its own name, and a limit that refuses is another."""
    async with Nex(KEY, base_url=emulator.url, retry=RetryPolicy(retries=0)) as nex:
        emulator.faults.add(kind="reset")
        with pytest.raises(ConnectionLost):
            await nex.tasks.list(limit=1)
        emulator.faults.add(kind="rate_limit", retry_after=1)
        with pytest.raises(RateLimitError):
            await nex.tasks.list(limit=1)
        assert nex.stats.calls.errors == {"ConnectionLost": 1, "RateLimitError": 1}
        assert nex.stats.calls.throttled == 1
