"""The loop behind the blocking client: when its thread begins and ends, and what interrupts, forks and exits do to it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from nex_async import ClientClosed, ClientLoopError, NotFoundError
from nex_async.blocking import Nex, SessionPool, lease
from nex_async.blocking.portal import Portal
from nex_async.emulator import Emulator
from tests.blocking.conftest import PATIENCE, Came, interrupted, loop_threads
from tests.harness.canary import KEY

posix = pytest.mark.skipif(os.name != "posix", reason="signals and forks")


def ended(thread: threading.Thread) -> bool:
    thread.join(PATIENCE)
    return not thread.is_alive()


def collected(thread: threading.Thread) -> bool:
    """Return whether a thread ends when what it works for is collected; it may hold that for a moment itself."""
    limit = time.monotonic() + PATIENCE
    while thread.is_alive() and time.monotonic() < limit:
        gc.collect()
        thread.join(0.01)
    return not thread.is_alive()


# ---- the thread -----------------------------------------------------------------------------------------------------


def test_making_a_client_starts_nothing() -> None:
    """The constructor needs no loop and no thread, and neither has it to be closed."""
    nex = Nex(KEY, base_url="http://127.0.0.1:1")
    local = Nex.local()
    assert loop_threads() == []
    nex.close()
    local.close()
    assert loop_threads() == []


def test_one_loop_until_the_last_is_closed() -> None:
    """All clients of a process share one thread, which ends with the last of them, and a new one begins with the next."""
    with Nex.local(keys={KEY: None}) as first:
        with Nex(KEY, base_url=first.base_url) as second:
            [thread] = loop_threads()
            second.objects.list().collect()
        assert loop_threads() == [thread]
        assert first.objects.list().collect()
    assert ended(thread)
    with Nex.local() as third:
        assert third.objects.list().collect()
        assert loop_threads() != [thread]
    assert loop_threads() == []


def test_usable_without_with() -> None:
    """A client works from its first call on, and until `close()`, however often that is called."""
    nex = Nex.local()
    assert nex.objects.list().collect()
    assert not nex.closed
    nex.close()
    nex.close()
    assert nex.closed
    with pytest.raises(ClientClosed):
        nex.objects.list().collect()
    with pytest.raises(ClientClosed):
        nex.tasks.get("1")
    with pytest.raises(ClientClosed), nex:
        pass
    assert loop_threads() == []


def test_a_dropped_client_is_closed() -> None:
    """A client that nobody holds any more warns, is closed, and lets the thread end."""
    nex = Nex.local()
    assert nex.objects.list().collect()
    [thread] = loop_threads()
    held, left = nex._lease, weakref.ref(nex)
    with pytest.warns(ResourceWarning, match="never closed"):  # noqa: PT031
        del nex
        assert collected(thread)
    assert left() is None
    assert held.closed
    assert lease._leases == set()


def test_what_comes_from_a_client_keeps_it() -> None:
    """A pager can be read though nobody holds its client, which is dropped after it."""
    rows = Nex.local().objects.list()
    gc.collect()
    assert len(list(rows)) >= 2
    [thread] = loop_threads()
    with pytest.warns(ResourceWarning, match="never closed"):  # noqa: PT031
        del rows
        assert collected(thread)


def test_a_pool_keeps_the_loop() -> None:
    """Clients that share a pool share its connections; the loop lives as long as the pool is open."""
    with Nex.local(keys={KEY: None}) as server, SessionPool(max_connections=5) as pool:
        for _ in range(3):
            with Nex(KEY, base_url=server.base_url, pool=pool) as nex:
                nex.objects.list().collect()
        server.close()
        assert len(loop_threads()) == 1
        pool.close()
        assert pool.closed
        assert loop_threads() == []


def test_a_view_ends_with_its_client(nex: Nex) -> None:
    """A view has other options and the same connections; closing it does nothing, closing the client closes it."""
    with nex.with_options(timeout=5, retries=0) as view:
        assert view.objects.list().collect()
    assert not view.closed
    assert view.objects.list().collect()
    nex.close()
    assert view.closed
    with pytest.raises(ClientClosed):
        view.objects.list().collect()


def test_the_loop_is_asyncios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy in force, uvloop's or Qt's, is for the program's loops: the client's thread does not ask it."""

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            raise AssertionError("a loop was asked for")

    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(Policy())
    try:
        with Nex.local() as nex:
            assert nex.objects.list().collect()
            loop = nex._lease.portal().loop
    finally:
        asyncio.set_event_loop_policy(before)
    assert type(loop).__module__.startswith("asyncio.")


def test_no_loop_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no loop can be started the call says so, and a later one tries again."""
    nex = Nex.local()

    def refuse() -> asyncio.AbstractEventLoop:
        raise OSError("too many open files")

    with monkeypatch.context() as broken:
        broken.setattr("nex_async.blocking.portal._new_loop", refuse)
        with pytest.raises(ClientLoopError) as caught:
            nex.objects.list().collect()
        assert isinstance(caught.value.__cause__, OSError)
    assert nex.objects.list().collect()
    nex.close()


def test_a_loop_that_was_ended_by_an_error(nex: Nex, emulator: Emulator, came: Came) -> None:
    """A loop that breaks fails those who wait for it; the next call gets a new one."""
    emulator.faults.add(kind="stall", route="getTask")
    [thread] = loop_threads()

    def end() -> None:
        came.wait()
        nex._lease.portal().soon(lambda: sys.exit(3))

    ender = threading.Thread(target=end)
    ender.start()
    with pytest.raises(ClientClosed), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # what the loop ran has no end in good order
        nex.tasks.get("1")
    ender.join()
    assert ended(thread)
    with Nex.local() as other:
        assert other.objects.list().collect()


def test_a_call_that_comes_as_the_loop_closes() -> None:
    """A call that is handed over when the loop has made its last turn is not waited for, for it will not be made."""
    portal, met = Portal(), []

    def call() -> None:
        try:
            portal.call(lambda: asyncio.sleep(0))
        except ClientClosed as error:
            met.append(error)

    caller, close = threading.Thread(target=call), portal.loop.close

    def late() -> None:
        caller.start()
        while not any(each.is_sent for each in list(portal._calls)):
            time.sleep(0.001)
        close()

    portal.loop.close = late  # type: ignore[method-assign]
    portal.stop()
    assert ended(caller)
    assert len(met) == 1
    with pytest.raises(ClientClosed):
        portal.call(lambda: asyncio.sleep(0))


# ---- threads --------------------------------------------------------------------------------------------------------


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """Return what a function returns, or raises, for each number, called in as many threads at once."""
    results: list[object] = [None] * count
    ready = threading.Barrier(count)

    def run(number: int) -> None:
        ready.wait()
        try:
            results[number] = work(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return results


def test_twenty_threads_share_a_client() -> None:
    """Any number of threads may use one client at once, from its very first call on."""
    nex = Nex.local(keys={KEY: None})

    def work(number: int) -> object:
        made = [nex.records.create("person", {"name": f"{number}-{index}"}) for index in range(5)]
        return [nex.records.get(one.id).text("name") for one in made]

    assert in_threads(20, work) == [[f"{number}-{index}" for index in range(5)] for number in range(20)]
    assert len(loop_threads()) == 1
    assert len(nex.records.list("person", limit=7).collect()) == 100
    in_threads(20, lambda _: nex.close())
    assert loop_threads() == []


def test_clients_come_and_go_in_many_threads() -> None:
    """Threads that open and close clients of their own do not end the loop under one another."""
    with Nex.local(keys={KEY: None}) as server:
        url = server.base_url

        def work(number: int) -> object:
            for _ in range(20):
                with Nex(KEY, base_url=url) as nex:
                    assert len(nex.objects.list().collect()) >= 2
            return "done"

        def alone(number: int) -> object:
            for _ in range(10):
                nex = Nex(KEY, base_url=url)
                nex.objects.list().collect()
                nex.close()
            return "done"

        assert in_threads(8, work) == ["done"] * 8
        assert in_threads(8, alone) == ["done"] * 8
    assert loop_threads() == []


def test_closing_ends_the_calls_of_others(nex: Nex, emulator: Emulator, came: Came) -> None:
    """A call that another thread has under way ends with `ClientClosed` when the client is closed."""
    emulator.faults.add(kind="stall", route="getTask", times=None)
    raised: list[BaseException] = []

    def wait() -> None:
        with contextlib.suppress(ClientClosed):
            try:
                nex.tasks.get("1")
            except BaseException as error:
                raised.append(error)
                raise

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        came.wait()
    nex.close(drain=0)
    assert all(ended(thread) for thread in threads)
    assert [type(error) for error in raised] == [ClientClosed] * 3


def test_a_call_on_the_loops_own_thread_is_refused() -> None:
    """A hook that calls the client is told so at once, instead of waiting for itself for ever."""
    met: list[Exception] = []

    def hook(details: object) -> None:
        for call in (lambda: nex.tasks.list().collect(), nex.close, lambda: next(iter(nex.insights.stream()))):
            try:
                call()
            except Exception as error:
                met.append(error)

    with Nex.local(on_request=hook) as nex:
        assert nex.objects.list().collect()
        assert nex.hook_errors == 0
    assert [type(error) for error in met] == [ClientLoopError] * 3
    assert "own event loop" in str(met[0])


async def test_inside_a_running_loop() -> None:
    """In a notebook, where a loop runs in the main thread already, everything works as elsewhere."""
    with Nex.local() as nex:
        for index in range(5):
            nex.records.create("person", {"name": str(index)})
        assert len(list(nex.records.list("person", limit=2))) == 5
        for row in nex.records.list("person", limit=2):
            assert row.id
            break
        with nex.records.list("person", limit=2).prefetch(2) as rows:
            assert len(list(rows)) == 5
        assert nex.records.upsert_many("person", iter([{"name": "x"}]), match_on="name").run().created == 1
        with nex.insights.stream() as feed:
            assert feed.stats.connected
    gc.collect()
    await asyncio.sleep(0)


# ---- Ctrl-C ---------------------------------------------------------------------------------------------------------


def tasks_of(nex: Nex) -> set[str]:
    """Return the tasks on the loop, without the server's."""
    portal = nex._lease.portal()

    async def look() -> set[str]:
        this = asyncio.current_task()
        every = {task for task in asyncio.all_tasks() if task is not this}
        return {name for name in (task.get_coro().__qualname__ for task in every) if not name.startswith("RequestHandler")}

    return portal.call(look)


@posix
def test_ctrl_c_cancels_the_call(nex: Nex, emulator: Emulator, came: Came) -> None:
    """Ctrl-C in the main thread cancels the call on the loop, and the client goes on working."""
    emulator.faults.add(kind="stall", route="getTask")
    before, began = tasks_of(nex), time.monotonic()
    with interrupted(came.wait):
        nex.tasks.get("1")
    assert tasks_of(nex) == before
    assert time.monotonic() - began < 10
    with pytest.raises(NotFoundError):
        nex.tasks.get("1")


@posix
def test_ctrl_c_while_another_thread_calls(nex: Nex, emulator: Emulator, came: Came) -> None:
    """Ctrl-C ends the call of the main thread, and leaves those of others alone."""
    emulator.faults.add(kind="delay", route="listTasks", seconds=0.5)
    emulator.faults.add(kind="stall", route="getTask")
    found: list[object] = []
    other = threading.Thread(target=lambda: found.append(nex.tasks.list().first_page().total))
    other.start()
    came.wait()
    with interrupted(came.wait):
        nex.tasks.get("1")
    assert ended(other)
    assert found == [0]


PROGRAM = """
import os, signal, sys, threading, time, warnings
from nex_async import ClientLoopError, NexError
from nex_async.blocking import Nex, SessionPool
"""


def run(code: str, *arguments: str, flags: tuple[str, ...] = ("-W", "error")) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own; it must end by itself."""
    command = [sys.executable, *flags, "-c", PROGRAM + textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)


@posix
def test_sigint_ends_a_program() -> None:
    """A program that waits for a call ends by Ctrl-C as any other does, at once and with one traceback."""
    code = """
    def told(details): print("sent", flush=True)
    nex = Nex.local(on_request=told)
    nex.objects.list().collect()
    nex._async._emulator.faults.add(kind="stall", route="getTask")
    nex.tasks.get("1")
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in range(2)] == ["sent\n", "sent\n"]
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait(PATIENCE) == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")


# ---- the end of the interpreter -------------------------------------------------------------------------------------


LEFT_OPEN = {
    "a client": "nex.objects.list().collect()",
    "a view": "view = nex.with_options(timeout=5); view.objects.list().collect(); del nex",
    "a pool": "pool = SessionPool(); other = Nex('sk-local', base_url=nex.base_url or '', pool=pool); other.objects.list()",
    "a loop over rows": "rows = iter(nex.records.list('person', limit=1)); next(rows)",
    "a look-ahead": "ahead = nex.records.list('person', limit=1).prefetch(2); ahead.__enter__(); next(iter(ahead))",
    "a feed": "feed = nex.insights.stream(); feed.__enter__()",
    "a feed with a checkpoint": "feed = nex.insights.stream(checkpoint=sys.argv[1] + '/feed.db'); feed.__enter__()",
    "a queue": "queue = nex.insights.stream().queue(); threading.Thread(target=queue.get, daemon=True).start(); time.sleep(0.2)",
    "a run": "run = nex.records.upsert_many('person', ({'name': str(n)} for n in range(10**9)), match_on='name', "
    "journal=sys.argv[1] + '/run.db'); run.__enter__(); next(run)",
    "a mirror": "mirror = nex.mirror(sys.argv[1] + '/m.sqlite', objects=['person']); mirror.sync()",
    "a watch": "watch = nex.mirror(sys.argv[1] + '/m.sqlite', objects=['person']).watch(); next(watch)",
    "a call": "nex._async._emulator.faults.add(kind='stall', route='getTask'); "
    "threading.Thread(target=lambda: nex.tasks.get('1'), daemon=True).start(); time.sleep(0.2)",
}


@pytest.mark.parametrize("what", LEFT_OPEN)
def test_exit_without_close(what: str, tmp_path: Path) -> None:
    """A program that leaves something open ends at its end, in silence."""
    code = f"""
    threading.excepthook = lambda args: None
    nex = Nex.local(sys.argv[1] + "/nex.sqlite")
    for name in "ab": nex.records.create("person", {{"name": name}})
    {LEFT_OPEN[what]}
    print("end", flush=True)
    """
    done = run(code, str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_exit_while_threads_still_work() -> None:
    """A thread that outlives the main thread goes on with its client; the interpreter ends after it."""
    code = """
    nex = Nex.local()
    nex.objects.list().collect()
    def work():
        threading.main_thread().join()
        for index in range(20):
            nex.records.create("person", {"name": str(index)})
        print(len(nex.records.list("person").collect()), flush=True)
    threading.Thread(target=work).start()
    """
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "20\n", "")


def test_exit_when_the_loop_does_not_answer() -> None:
    """A hook that hangs keeps the interpreter for some seconds, and not for ever."""
    code = """
    from nex_async.blocking import lease
    lease._LAST, hangs = 0.5, threading.Event()
    def hang(details):
        hangs.set()
        time.sleep(3600)
    nex = Nex.local(on_request=hang)
    threading.Thread(target=lambda: nex.objects.list().collect(), daemon=True).start()
    assert hangs.wait(20)
    """
    began = time.monotonic()
    done = run(code, flags=("-W", "ignore::ResourceWarning"))  # nothing could be closed
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 20


# ---- forks ----------------------------------------------------------------------------------------------------------

FORK = """
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of any fork beside threads
def in_child(work):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            sys.stdout.flush()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


@posix
def test_a_forked_child_starts_fresh() -> None:
    """A client is used on both sides of a fork: the child has a loop and connections of its own."""
    code = """
    def child():
        assert "nex-async loop" not in [thread.name for thread in threading.enumerate()]
        for index in range(5): nex.records.create("person", {"name": f"c{index}"})
        print(len(list(nex.records.list("person", limit=3))), flush=True)
        nex.close()
        assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
        server.close()
        try: nex.objects.list().collect()
        except NexError as error: print(type(error).__name__)
    with Nex.local() as server:
        with Nex("sk-local", base_url=server.base_url) as nex:
            nex.records.create("person", {"name": "p"})
            print(in_child(child), flush=True)
            print(in_child(child), flush=True)
            print(len(nex.records.list("person").collect()))
        print(len(server.records.list("person").collect()))
    """
    done = run(FORK + textwrap.dedent(code))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["6", "ClientClosed", "0", "11", "ClientClosed", "0", "11", "11"]


@posix
def test_the_embedded_server_stays_the_parents(tmp_path: Path) -> None:
    """A child that closes its copy of a local client leaves the server, and its file, to the parent."""
    code = """
    def child():
        print(len(nex.records.list("person").collect()), flush=True)
        nex.close()
    with Nex.local(sys.argv[1]) as nex:
        nex.records.create("person", {"name": "p"})
        print(in_child(child), flush=True)
        print(len(nex.records.list("person").collect()))
    """
    done = run(FORK + textwrap.dedent(code), str(tmp_path / "nex.sqlite"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["1", "0", "1"]


@posix
def test_what_was_open_at_the_fork_says_so() -> None:
    """A feed, a run or a look-ahead that was opened before a fork raises in the child, instead of waiting for ever."""
    code = """
    def refused(call):
        try: call()
        except ClientLoopError: print("refused", flush=True)
    def child():
        refused(lambda: next(feed))
        refused(lambda: queue.get())
        refused(lambda: list(run))
        refused(lambda: next(rows))
    def source():
        for index in range(10**9): yield {"name": str(index)}
    with Nex.local() as nex:
        for index in range(9): nex.records.create("person", {"name": str(index)})
        with nex.insights.stream() as feed, nex.records.list("person", limit=1).prefetch(2) as ahead:
            queue, rows = feed.queue(), iter(ahead)
            next(rows)
            with nex.records.upsert_many("person", source(), match_on="name") as run:
                next(run)
                print(in_child(child), flush=True)
                next(run)
                next(rows)
    print("end")
    """
    done = run(FORK + textwrap.dedent(code))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["refused"] * 4 + ["0", "end"]
