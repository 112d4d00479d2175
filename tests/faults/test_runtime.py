"""The runtime: cancellation, loops, forks, the end of the interpreter, and what is left behind (rows R1 to R15)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from nex_async import (
    ClientClosed,
    ClientLoopError,
    DeadlineExceeded,
    Nex,
    NexError,
    OutcomeUnknownError,
    RequestDetails,
    ResponseDetails,
    RetryDetails,
    RetryPolicy,
    SessionPool,
    Timeouts,
    TransportError,
    deadline,
)

from ..harness.backend import Backend
from ..harness.canary import KEY, ErrorWatch, leaked
from ..harness.loops import ON_UVLOOP, UVLOOPS_OWN, leaves_connections
from ..harness.raw_server import RawServer, answer, hold, json_reply, read_request, send, serve

TASK = json_reply({"id": "1"})


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as server:
        yield server


def client(url: str, **more: Any) -> Nex:
    return Nex(KEY, base_url=url, **more)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that is bound to happen; the test's own time limit is the guard."""
    while not condition():
        await asyncio.sleep(0.002)


# ---- R1 to R3: cancellation and deadlines ---------------------------------------------------------------------------


def echo(seen: Any) -> bytes:
    return json_reply({"id": seen.target.rpartition("/")[2]})


async def cancel_after(steps: int, call: Awaitable[Any]) -> asyncio.Future[Any]:
    """Run a call for a number of turns of the loop, cancel it, and wait for its end."""
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task


@pytest.mark.parametrize("warm", [False, True], ids=["connecting", "connected"])
async def test_r01_cancelled_at_every_step(warm: bool) -> None:
    """A call cancelled at any await ends cancelled; its connection is not used again, and no other call gets its reply."""
    async with RawServer([serve(echo)]) as server:
        finished = 0
        for steps in range(60):
            async with client(server.url) as nex:
                if warm:
                    assert (await nex.tasks.get("warm")).id == "warm"
                task = await cancel_after(steps, nex.tasks.get(f"cancelled-{steps}"))
                if task.cancelled():
                    used = len(server.requests) and server.requests[-1].target.endswith(f"cancelled-{steps}")
                    assert (await nex.tasks.get(f"next-{steps}")).id == f"next-{steps}"
                    if used:
                        assert server.used[-1] != server.used[-2], "a connection with a reply under way was used again"
                else:
                    finished += 1
                    assert task.result().id == f"cancelled-{steps}"
                    if finished >= 2:
                        break
        assert finished, "60 turns of the loop are not enough for one call"


@pytest.mark.parametrize("method", ["get", "create"])
async def test_r01_cancelled_while_waiting_for_a_connection(method: str) -> None:
    """A call cancelled in the queue of a full pool leaves the queue; those behind it are served."""
    gate = asyncio.Event()

    async def script(peer: Any) -> None:
        while True:
            seen = await peer.request()
            if seen.target.endswith("/first"):
                await gate.wait()
            await peer.send(echo(seen))

    async with RawServer([script]) as server, SessionPool(max_connections=1) as pool, client(server.url, pool=pool) as nex:
        first = asyncio.ensure_future(nex.tasks.get("first"))
        await until(lambda: server.requests)
        waiting = [asyncio.ensure_future(nex.tasks.get(n) if method == "get" else nex.tasks.create("t")) for n in range(5)]
        await asyncio.sleep(0.01)
        waiting[1].cancel()
        waiting[3].cancel()
        gate.set()
        await asyncio.wait([first, *waiting])
        assert [task.cancelled() for task in waiting] == [False, True, False, True, False]
        assert len(server.requests) == 4


async def test_r01_cancelled_write_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    """A write cancelled after it was sent leaves a line in the log: nobody will learn whether it took effect."""
    caplog.set_level(logging.INFO, "nex_async")
    async with RawServer([read_request, hold]) as server, client(server.url) as nex:
        for call in (nex.tasks.create("Call"), nex.tasks.get(5)):
            asked = len(server.requests)
            task = asyncio.ensure_future(call)
            await until(lambda asked=asked: len(server.requests) > asked)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
    noted = [record.getMessage() for record in caplog.records if "cancelled" in record.getMessage()]
    assert noted == ["createTask was cancelled; whether it took effect is unknown"]


async def test_r01_cancelled_between_attempts() -> None:
    """A call cancelled while it waits for its next attempt ends at once and sends nothing more."""
    async with RawServer([answer(json_reply({}, 503, {"Retry-After": "30"}))]) as server, client(server.url) as nex:
        task = asyncio.ensure_future(nex.tasks.get(5))
        await until(lambda: server.requests)
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert len(server.requests) == 1


async def test_r02_anyio_scopes() -> None:
    """Scopes of anyio, nested or of a task group, end a call promptly; the scope around them is not disturbed."""
    async with RawServer([read_request, hold]) as server, client(server.url) as nex:
        with anyio.move_on_after(5) as outer:
            with anyio.move_on_after(0.02) as inner:
                await nex.tasks.get(5)
            assert inner.cancelled_caught
            async with anyio.create_task_group() as group:
                for n in range(3):
                    group.start_soon(nex.tasks.get, n)
                await until(lambda: len(server.requests) == 4)
                group.cancel_scope.cancel()
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.02):
                    await nex.tasks.create("Call")
            await asyncio.sleep(0)
        assert not outer.cancelled_caught


async def test_r02_cleanup_in_a_cancelled_scope() -> None:
    """Closing the client inside a scope that is being cancelled closes its sockets all the same."""
    with Backend() as server:
        with anyio.CancelScope() as scope:
            async with client(server.url) as nex:
                await nex.tasks.get(5)
                await nex.insights.stream().__aenter__()
                scope.cancel()
        assert nex.closed
        await until(lambda: not server.open)


async def test_r03_the_smaller_limit_wins() -> None:
    """The user's own timeout stays his own, ours is an error of ours, and neither is taken for the other."""
    async with RawServer([read_request, hold]) as server, client(server.url) as nex:
        with pytest.raises(asyncio.TimeoutError) as caught:
            await asyncio.wait_for(nex.tasks.get(5, timeout=30), 0.03)
        assert not isinstance(caught.value, NexError)
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(nex.tasks.get(5, timeout=0.03), 30)
        with pytest.raises(TransportError) as ours:
            await asyncio.wait_for(nex.tasks.get(5, timeout=Timeouts(read=0.03), retries=0), 30)
        assert isinstance(ours.value, TimeoutError)
        with deadline(0.03), pytest.raises(DeadlineExceeded):
            await nex.tasks.get(5, timeout=30)
        with pytest.raises(OutcomeUnknownError):
            await nex.tasks.create("Call", timeout=0.03)


async def test_r03_a_deadline_does_not_swallow_a_cancellation() -> None:
    """A call whose deadline and cancellation come together ends one way or the other, and leaves no cancellation behind."""
    async with RawServer([read_request, hold]) as server, client(server.url) as nex:
        for n in range(8):
            begun = time.monotonic()
            task = asyncio.ensure_future(nex.tasks.get(n, timeout=0.02, retries=0))
            while time.monotonic() < begun + 0.016 + n / 1000:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or isinstance(task.exception(), NexError)


# ---- R4 to R6: loops, forks, garbage --------------------------------------------------------------------------------


def test_r04_two_runs_with_one_client(backend: Backend) -> None:
    """A client used in one `asyncio.run` works in the next one, with connections of its own, and warns of nothing."""
    nex = client(backend.url)

    async def call(n: int) -> str:
        return (await nex.tasks.get(n)).id

    async def last() -> str:
        async with nex:
            return await call(3)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [asyncio.run(call(n)) for n in range(3)] == ["0", "1", "2"]
        assert asyncio.run(last()) == "3"
        gc.collect()
    assert [number for number, _ in backend.log] == [1, 2, 3, 4]
    assert [said for warning in caught if not (said := str(warning.message)).startswith(UVLOOPS_OWN)] == []
    assert nex.closed


@leaves_connections
def test_r04_two_loops_at_once(backend: Backend) -> None:
    """One client serves loops in several threads at the same time."""
    nex = client(backend.url)
    seen: list[str] = []

    async def work(start: int) -> None:
        tasks = await asyncio.gather(*(nex.tasks.get(n) for n in range(start, start + 20)))
        seen.extend(task.id for task in tasks)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(work(n * 20))) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen, key=int) == [str(n) for n in range(60)]
    asyncio.run(nex.aclose())


@leaves_connections
def test_r04_closing_after_a_loop_died_with_a_call(backend: Backend) -> None:
    """A call whose loop was closed under it is not waited for when the client is closed on another loop."""
    nex = client(backend.url)
    loop = asyncio.new_event_loop()
    task = loop.create_task(nex.tasks.get("slow-1"))
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()
    begun = time.monotonic()
    asyncio.run(nex.aclose())
    assert time.monotonic() - begun < 2
    backend.release()
    # What is left of the task is of the user's making: it never ran to its end.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del task
        gc.collect()


@leaves_connections
@pytest.mark.parametrize("owns_pool", [True, False])
def test_r04_closing_while_another_loop_ends(backend: Backend, owns_pool: bool) -> None:
    """What the client was to close on a loop that ends before it comes to it is not begun: nothing is left unawaited."""
    pool = SessionPool()
    nex = client(backend.url) if owns_pool else client(backend.url, pool=pool)
    loop = asyncio.new_event_loop()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert loop.run_until_complete(nex.tasks.get(1)).id == "1"
        asyncio.run(nex.aclose())
        asyncio.run(pool.aclose())
        loop.close()
        gc.collect()
    uvloops = (UVLOOPS_OWN, "unclosed <socket") if ON_UVLOOP else ()  # which closes them with the loop, and says so
    assert [said for warning in caught if not (said := str(warning.message)).startswith(uvloops)] == []


def test_r04_a_call_outside_a_loop() -> None:
    """Building a client, its resources and its pagers needs no loop."""
    nex = client("https://app.nex.ai")
    assert "app.nex.ai" in repr(nex)
    pager = nex.with_options(timeout=5).records.list("person")
    assert pager.checkpoint
    coroutine = nex.tasks.get(5)
    with pytest.raises((RuntimeError, ClientLoopError)):
        coroutine.send(None)


def run(script: str, *arguments: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a script in an interpreter of its own."""
    head = "import asyncio, gc, os, sys, warnings\nfrom nex_async import *\nKEY, URL = sys.argv[1:3]\n"
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", head + textwrap.dedent(script), KEY, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


FORK = """
    async def call(name):
        return (await nex.tasks.get(name)).id

    loop = asyncio.new_event_loop()
    nex = Nex(KEY, base_url=URL)
    print(loop.run_until_complete(call("before")), flush=True)
    pid = os.fork()
    if pid == 0:
        print(asyncio.run(call("child-1")), asyncio.run(call("child-2")), flush=True)
        if sys.argv[3] == "close":
            asyncio.run(nex.aclose())
        elif sys.argv[3] == "drop":
            del nex
            gc.collect()
        if sys.argv[3] != "exit":
            os._exit(0)
        sys.exit(0)
    status = os.waitpid(pid, 0)[1]
    print(loop.run_until_complete(call("after")), status, flush=True)
    loop.run_until_complete(nex.aclose())
    loop.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("way", ["leave", "close", "drop", "exit"])
def test_r05_fork(backend: Backend, way: str) -> None:
    """A forked child calls over sockets of its own, however it ends; the parent's connection serves on."""
    done = run(FORK, backend.url, way)
    assert done.stdout.splitlines() == ["before", "child-1 child-2", "after 0"], done.stderr
    used = {target.rpartition("/")[2]: number for number, target in backend.log}
    assert used["after"] == used["before"]
    assert used["before"] not in (used["child-1"], used["child-2"])
    warned = [line for line in done.stderr.splitlines() if "Warning:" in line and "fork" not in line]
    assert len(warned) == (way in ("drop", "exit")), "a child that closed, or left at once, is warned of nothing"
    assert all("nex_async SessionPool" in line for line in warned)
    assert "Traceback" not in done.stderr
    assert not leaked(done.stderr + done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_r05_fork_inside_a_running_loop(backend: Backend) -> None:
    """A fork in the middle of a coroutine leaves the parent's loop and connection as they were."""
    done = run(
        """
        async def main():
            async with Nex(KEY, base_url=URL) as nex:
                await asyncio.gather(nex.tasks.get("before-1"), nex.tasks.get("before-2"))
                held = asyncio.ensure_future(nex.tasks.get("slow-1"))
                await asyncio.sleep(0.05)
                pid = os.fork()
                if pid == 0:
                    try:
                        loop = asyncio.new_event_loop()
                        print(loop.run_until_complete(nex.tasks.get("child")).id, flush=True)
                        begun = loop.time()
                        loop.run_until_complete(nex.aclose())
                        print("closed", loop.time() - begun < 2, flush=True)
                    finally:
                        os._exit(0)
                os.waitpid(pid, 0)
                print((await nex.tasks.get("after")).id, held.done(), flush=True)
                held.cancel()

        asyncio.run(main())
        """,
        backend.url,
    )
    assert done.stdout.splitlines() == ["child", "closed True", "after False"], done.stderr
    used = {target.rpartition("/")[2]: number for number, target in backend.log}
    assert {used["slow-1"], used["after"]} == {used["before-1"], used["before-2"]} == {1, 2}
    assert used["child"] == 3


@pytest.mark.parametrize("when", ["loop running", "loop closed", "shared pool", "stream open"])
async def test_r06_dropped_without_close(when: str, _error_watch: ErrorWatch) -> None:  # noqa: PT019 - it is asked
    """A client dropped without a close gives one ResourceWarning that names us and not the key; its sockets are closed."""
    with Backend() as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        async def use() -> None:
            pool = SessionPool() if when == "shared pool" else None
            nex = client(server.url, pool=pool)
            await asyncio.gather(*(nex.tasks.get(n) for n in range(5)))
            if when == "stream open":
                feed = nex.insights.stream()
                await feed.__aenter__()

        if when == "loop closed":
            await asyncio.to_thread(asyncio.run, use())
        else:
            await use()
        for turn in range(20):  # a feed that nobody holds ends by itself, within some turns of the loop
            if turn % 7 == 0:
                gc.collect()
            await asyncio.sleep(0)
        while server.open:  # uvloop takes more of them
            # There the feed hears that its list cannot be read before it is dropped. The watch keeps that error, and with
            # its traceback the client.
            assert _error_watch.leaks() == []
            gc.collect()
            await asyncio.sleep(0.002)
        gc.collect()
    ours = [warning for warning in caught if issubclass(warning.category, ResourceWarning)]
    ours = [warning for warning in ours if not str(warning.message).startswith(UVLOOPS_OWN)]
    assert len(ours) == 1, [str(warning.message) for warning in caught]
    assert "nex_async SessionPool was never closed" in str(ours[0].message)
    assert not leaked(str(ours[0].message))


async def test_r06_unused_client_warns_of_nothing() -> None:
    """A client that was never used holds nothing, and can be dropped in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client("https://app.nex.ai")
        gc.collect()


# ---- R7: closing ----------------------------------------------------------------------------------------------------


async def test_r07_close_is_idempotent(backend: Backend) -> None:
    """Closing twice, concurrently, and closing what was never used is no error; calls afterwards raise `ClientClosed`."""
    nex = client(backend.url)
    await nex.tasks.get(1)
    await asyncio.gather(nex.aclose(), nex.aclose(), nex.aclose())
    await nex.aclose()
    for call in (nex.tasks.get(1), nex.with_options(timeout=5).tasks.get(1), nex.records.list("person").collect()):
        with pytest.raises(ClientClosed):
            await call
    with pytest.raises(ClientClosed):
        async with nex:
            pass
    await client(backend.url).aclose()


async def test_r07_drain_lets_quick_calls_finish(backend: Backend) -> None:
    """Closing waits for calls under way; a new call is refused at once."""
    nex = client(backend.url)
    calls = [asyncio.ensure_future(nex.tasks.get(f"slow-{n}")) for n in range(5)]
    await until(lambda: len(backend.log) == 5)
    closing = asyncio.ensure_future(nex.aclose(drain=20))
    await asyncio.sleep(0.01)
    with pytest.raises(ClientClosed):
        await nex.tasks.get(1)
    backend.release()
    await closing
    assert [call.result().id for call in calls] == [f"slow-{n}" for n in range(5)]


@pytest.mark.parametrize("drain", [0, 0.03])
async def test_r07_calls_that_do_not_finish(backend: Backend, drain: float) -> None:
    """Calls that outlast the drain raise `ClientClosed`; their tasks are not cancelled and go on with their own work."""
    nex = client(backend.url)

    async def careful(n: int) -> str:
        try:
            await nex.tasks.get(f"slow-{n}")
        except ClientClosed as error:
            await asyncio.sleep(0)
            return f"closed during {error.request.operation}" if error.request else "closed"
        return "finished"

    tasks = [asyncio.ensure_future(careful(n)) for n in range(3)]
    await until(lambda: len(backend.log) == 3)
    await nex.aclose(drain=drain)
    assert nex._state.tasks == set(), "the client is closed before its calls have ended"
    assert await asyncio.gather(*tasks) == ["closed during getTask"] * 3
    if sys.version_info >= (3, 11):
        assert [task.cancelling() for task in tasks] == [0, 0, 0]
    await until(lambda: not backend.open)


async def test_r07_closing_spares_what_has_left_the_call(backend: Backend) -> None:
    """A task whose call ended in the very moment of closing is not cancelled in its own work."""
    for turns in range(30):
        nex = client(backend.url)
        await nex.tasks.get("warm")

        async def work(nex: Nex = nex) -> str:
            try:
                await nex.tasks.get("quick")
            except ClientClosed:
                return "closed"
            await asyncio.sleep(0.002)
            return "done"

        task = asyncio.ensure_future(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        await nex.aclose(drain=0)
        assert await task in ("done", "closed")


async def test_r07_a_cancelled_call_stays_cancelled(backend: Backend) -> None:
    """A call the user cancelled while the client closes ends cancelled: no cancellation of his is swallowed."""
    nex = client(backend.url)
    task = asyncio.ensure_future(nex.tasks.get("slow-1"))
    await until(lambda: backend.log)
    closing = asyncio.ensure_future(nex.aclose(drain=0))
    task.cancel()
    await asyncio.wait([task, closing])
    assert task.cancelled()


async def test_r07_closing_a_shared_pool_ends_calls(backend: Backend) -> None:
    """Closing a pool ends the calls of its clients; a pool that was passed in survives its clients."""
    pool = SessionPool()
    async with client(backend.url, pool=pool) as one:
        await one.tasks.get(1)
    two = client(backend.url, pool=pool)
    assert (await two.tasks.get(2)).id == "2"
    task = asyncio.ensure_future(two.tasks.get("slow-1"))
    await until(lambda: len(backend.log) == 3)
    await pool.aclose()
    await asyncio.wait([task])
    error = task.exception()
    assert isinstance(error, ClientClosed)
    assert len(error.attempts) == 1, "a pool that was closed was asked once more"
    assert backend.connections == 1
    with pytest.raises(ClientClosed):
        await two.tasks.get(3)
    await two.aclose()
    await pool.aclose()


async def test_r07_closed_between_attempts() -> None:
    """A call that waits for its next attempt when the client closes raises `ClientClosed`, and sends nothing more."""
    async with RawServer([answer(json_reply({}, 503, {"Retry-After": "30"}))]) as server:
        nex = client(server.url)
        task = asyncio.ensure_future(nex.tasks.get(5))
        await until(lambda: server.requests)
        await asyncio.sleep(0.02)
        await nex.aclose(drain=0)
        await asyncio.wait([task])
        assert isinstance(task.exception(), ClientClosed)
        assert len(server.requests) == 1


async def test_r07_a_users_own_session_is_never_closed(backend: Backend) -> None:
    """A session that was passed in is used and left open."""
    import aiohttp

    async with aiohttp.ClientSession() as session:
        async with client(backend.url, session=session) as nex:
            assert (await nex.tasks.get(5)).id == "5"
        assert not session.closed


# ---- R8: the end of the interpreter ---------------------------------------------------------------------------------

OPEN_THINGS = """
    async def main():
        global nex, feed
        nex = Nex(KEY, base_url=URL)
        await nex.tasks.get("1")
        feed = nex.insights.stream()
        await feed.__aenter__()
        pending = [asyncio.ensure_future(nex.tasks.get(f"slow-{n}")) for n in range(3)]
        await asyncio.sleep(0.05)
        print("ready", flush=True)
"""


@pytest.mark.parametrize(
    "end",
    [
        "    asyncio.run(main())",
        "        sys.exit(3)\n    asyncio.run(main())",
        "    loop = asyncio.new_event_loop()\n    loop.run_until_complete(main())",
        "        raise KeyboardInterrupt\n    try: asyncio.run(main())\n    except KeyboardInterrupt: pass",
    ],
    ids=["return", "exit", "loop left open", "interrupt"],
)
def test_r08_interpreter_exit_with_everything_open(backend: Backend, end: str) -> None:
    """An interpreter that ends with an open client, stream and calls does so promptly, without a traceback or the key."""
    begun = time.monotonic()
    done = run(OPEN_THINGS + end, backend.url)
    assert time.monotonic() - begun < 10
    assert done.stdout.split() == ["ready"], done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert not leaked(done.stderr + done.stdout)


# ---- R9 to R15 ------------------------------------------------------------------------------------------------------


async def test_r09_hooks_that_raise() -> None:
    """An exception in a hook is logged and counted, and the call goes on as if nothing was."""
    told: list[str] = []

    def hook(details: RequestDetails | ResponseDetails | RetryDetails) -> None:
        told.append(type(details).__name__)
        raise LookupError("a bug of the user's")

    hooks: dict[str, Any] = {"on_request": hook, "on_response": hook, "on_retry": hook}
    server = RawServer([answer(json_reply({}, 503)), answer(TASK)])
    async with server, client(server.url, retry=RetryPolicy(backoff_base=0.001), **hooks) as nex:
        assert (await nex.tasks.get(1)).id == "1"
        assert nex.hook_errors == len(told) == 5
    assert told == ["RequestDetails", "ResponseDetails", "RetryDetails", "RequestDetails", "ResponseDetails"]


async def test_r09_hooks_hear_of_every_end() -> None:
    """Hooks hear of attempts, replies with status and size, and failures with their error; never of a header."""
    heard: list[Any] = []
    server = RawServer([answer(TASK), answer(json_reply({"message": "no"}, 404))])
    async with server, client(server.url, on_request=heard.append, on_response=heard.append) as nex:
        await nex.tasks.get(1)
        with pytest.raises(NexError):
            await nex.tasks.get(2)
    assert [type(details).__name__ for details in heard] == ["RequestDetails", "ResponseDetails"] * 2
    assert (heard[1].status, heard[1].size, heard[1].error) == (200, 11, None)
    assert (heard[3].status, type(heard[3].error).__name__) == (404, "NotFoundError")
    assert heard[0].request.operation == "getTask"
    assert not leaked(repr(heard))


async def test_r11_the_system_clock_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days forward and back on the system's clock move neither a deadline nor a wait."""
    jumps = iter(range(10**9))

    def jumping() -> float:
        return 1.8e9 + (86_400 if next(jumps) % 2 else -86_400)

    monkeypatch.setattr(time, "time", jumping)
    refuse = answer(json_reply({}, 429, {"Retry-After": "0.05"}))
    async with RawServer([refuse, refuse, serve(lambda seen: TASK)]) as server, client(server.url) as nex:
        begun = time.monotonic()
        assert (await nex.tasks.get(1, timeout=5)).id == "1"
        assert 0.1 <= time.monotonic() - begun < 3
        with pytest.raises(DeadlineExceeded):
            async with RawServer([read_request, hold]) as silent, client(silent.url) as other:
                await other.tasks.get(1, timeout=0.05)


def descriptors() -> int:
    """Return how many files this process has open, without those on the null device: uvloop keeps one as a reserve."""
    folder, count = Path("/proc/self/fd"), 0
    for each in folder.iterdir() if folder.exists() else ():
        with contextlib.suppress(OSError):  # the one that reads the folder is gone by now
            count += each.readlink() != Path(os.devnull)
    return count


async def test_r13_many_calls_at_once(backend: Backend) -> None:
    """2 000 concurrent calls share a bounded number of sockets; each gets its own reply, and none is left open."""
    before = descriptors()
    async with SessionPool(max_connections=20) as pool, client(backend.url, pool=pool) as nex:
        tasks = await asyncio.gather(*(nex.tasks.get(n) for n in range(2000)))
        assert [task.id for task in tasks] == [str(n) for n in range(2000)]
    assert backend.most_open <= 20
    await until(lambda: not backend.open)
    await until(lambda: descriptors() <= before)


async def test_r13_first_come_first_served(backend: Backend) -> None:
    """Calls that wait for a connection are sent in the order in which they were made."""
    async with SessionPool(max_connections=1) as pool, client(backend.url, pool=pool) as nex:
        await asyncio.gather(*(nex.tasks.get(n) for n in range(50)))
    assert [target.rpartition("/")[2] for _, target in backend.log] == [str(n) for n in range(50)]


def test_r14_no_file_descriptors(backend: Backend) -> None:
    """Out of file descriptors, a call fails unsent; once there are some again, the same client works."""
    pytest.importorskip("resource")
    done = run(
        """
        import resource, socket

        async def main():
            async with Nex(KEY, base_url=URL) as nex:
                soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                await nex.with_options(timeout=5).tasks.get("warm")
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
                taken = []
                try:
                    while True:
                        taken.append(socket.socket())
                except OSError:
                    pass
                held = asyncio.ensure_future(nex.tasks.get("slow-1"))
                await asyncio.sleep(0.05)
                try:
                    await nex.tasks.create("Call", retries=0)
                except ConnectError as error:
                    print(type(error).__name__, error.sent, flush=True)
                waiting = asyncio.ensure_future(nex.tasks.get("later"))
                await asyncio.sleep(0.02)
                for sock in taken:
                    sock.close()
                print((await waiting).id, (await nex.tasks.get("now")).id, flush=True)
                held.cancel()

        asyncio.run(main())
        """,
        backend.url,
    )
    assert done.stdout.splitlines() == ["ConnectError no", "later now"], done.stderr
    assert not leaked(done.stderr)


@pytest.mark.parametrize("where", ["hook", "callback"])
def test_r15_keyboard_interrupt(backend: Backend, where: str) -> None:
    """An interrupt inside a hook or a callback ends the program cleanly, with the client closed."""
    done = run(
        """
        def interrupt(*details):
            raise KeyboardInterrupt

        async def main():
            hook = interrupt if sys.argv[3] == "hook" else None
            try:
                async with Nex(KEY, base_url=URL, on_request=hook) as nex:
                    asyncio.get_running_loop().call_later(0.05, interrupt)
                    await nex.tasks.get("slow-1")
            finally:
                print("closed" if nex.closed else "open", flush=True)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """,
        backend.url,
        where,
    )
    assert done.stdout.split() == ["closed", "interrupted"], done.stderr
    assert done.stderr == ""
    assert done.returncode == 0


async def test_fixture_may_enter_and_leave_in_different_tasks(backend: Backend) -> None:
    """A client entered in one task can be left in another, as test fixtures do."""
    nex = client(backend.url)

    async def enter() -> AsyncIterator[Nex]:
        async with nex:
            yield nex

    generator = enter()
    await asyncio.ensure_future(anext(generator))  # type: ignore[arg-type]
    assert (await nex.tasks.get(1)).id == "1"

    async def leave() -> None:
        with pytest.raises(StopAsyncIteration):
            await anext(generator)

    await asyncio.ensure_future(leave())
    assert nex.closed


async def test_send_and_receive_one_byte_at_a_time() -> None:
    """A reply that comes in pieces is the same reply."""
    server = RawServer([read_request, *(send(TASK[n : n + 1]) for n in range(len(TASK))), hold])
    async with server, client(server.url) as nex:
        assert (await nex.tasks.get(1)).id == "1"
