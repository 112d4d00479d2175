"""Feeds, queues, handlers and jobs that block."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nex_async import (
    ClientClosed,
    DeadlineExceeded,
    FeedClosed,
    FeedOverflow,
    InvalidRequestError,
    JobTimeout,
    NexError,
    StorageLocked,
)
from nex_async.blocking import Feed, InsightEvent, InsightFeed, Job, Nex
from nex_async.emulator import Emulator
from tests.blocking.conftest import PATIENCE, Came, interrupted
from tests.blocking.test_life import ended, posix, tasks_of


def derive(nex: Nex, *texts: str) -> None:
    """Have the workspace derive one insight from each text."""
    for text in texts:
        nex.context.add_text(f"{text} asked for a demo").wait(interval=0.05)


def who(event: Any) -> str:
    return str(event.insight.content.split()[0])


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


# ---- reading --------------------------------------------------------------------------------------------------------


def test_a_feed_is_read_with_for(nex: Nex) -> None:
    """Insights come in their order, as events whose methods block; leaving the loop and the block ends the stream."""
    before = tasks_of(nex)
    derive(nex, "Ada", "Bob")
    with nex.insights.stream() as feed:
        assert isinstance(feed, InsightFeed)
        events = []
        for event in feed:
            assert isinstance(event, InsightEvent)
            event.ack()
            events.append(who(event))
            assert event.insight.confidence is not None
            if len(events) == 2:
                derive(nex, "Cid")
            if len(events) == 3:
                break
        assert feed.stats.connected
        assert feed.stats.delivered == 3
    assert events == ["Ada", "Bob", "Cid"]
    assert feed.closed
    assert list(feed) == []
    assert tasks_of(nex) == before


def test_a_feed_that_nobody_holds_ends(nex: Nex) -> None:
    """A loop without `with` that is left by `break` ends when its feed is dropped."""
    before = tasks_of(nex)
    derive(nex, "Ada")
    for _event in nex.insights.stream():
        break
    until(lambda: gc.collect() >= 0 and tasks_of(nex) == before)  # the other thread may hold it for a moment more


def test_filters_see_what_readers_see(nex: Nex) -> None:
    """A filter gets the events that the loop gets; one that raises ends its reader, and nobody else."""
    kinds: set[type] = set()

    def only(name: str) -> Callable[[InsightEvent], bool]:
        def wanted(event: InsightEvent) -> bool:
            kinds.add(type(event))
            return who(event) == name

        return wanted

    def broken(event: InsightEvent) -> bool:
        raise KeyError("the filter is broken")

    derive(nex, "Ada", "Bob")
    with nex.insights.stream(where=lambda event: who(event) != "Cid") as feed:
        bobs, bad = feed.queue(where=only("Bob")), feed.queue(where=broken)
        assert who(bobs.get(timeout=PATIENCE)) == "Bob"
        with pytest.raises(KeyError):
            bad.get(timeout=PATIENCE)
    assert kinds == {InsightEvent}


def test_one_reader_at_a_time(nex: Nex) -> None:
    """Two threads that iterate one feed are told to take queues."""
    with nex.insights.stream() as feed:
        reader = threading.Thread(target=lambda: list(feed))
        reader.start()
        until(lambda: feed._async._reading)
        with pytest.raises(InvalidRequestError, match="queue"):
            next(feed)
        feed.stop()
        assert ended(reader)


# ---- queues ---------------------------------------------------------------------------------------------------------


def test_a_queue_waits_as_long_as_it_is_told(nex: Nex) -> None:
    """`get(timeout=)` raises a `TimeoutError` of ours when nothing came in time, and loses nothing by it."""
    with nex.insights.stream() as feed:
        queue = feed.queue()
        for timeout in (0, 0.05):
            with pytest.raises(DeadlineExceeded) as caught:
                queue.get(timeout=timeout)
            assert isinstance(caught.value, TimeoutError)
        for wrong in (-1, True, "5", float("nan")):
            with pytest.raises(InvalidRequestError):
                queue.get(timeout=wrong)  # type: ignore[arg-type]
        derive(nex, "Ada", "Bob")
        assert who(queue.get(timeout=PATIENCE)) == "Ada"
        until(lambda: queue.qsize() == 1)
        assert who(queue.get(timeout=0)) == "Bob"
    with pytest.raises(FeedClosed):
        queue.get()


def test_many_readers_of_one_feed(nex: Nex) -> None:
    """Each queue gets every insight, read by threads of their own, with bounds of their own."""
    with nex.insights.stream() as feed:
        queues = [feed.queue() for _ in range(5)]
        small, strict = feed.queue(maxsize=1, overflow="drop_oldest"), feed.queue(maxsize=1, overflow="raise")
        read: list[list[str]] = [[] for _ in queues]

        def listen(number: int) -> None:
            for event in queues[number]:
                read[number].append(who(event))
                queues[number].done(event)
                if len(read[number]) == 3:
                    return

        threads = [threading.Thread(target=listen, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        derive(nex, "Ada", "Bob", "Cid")
        assert all(ended(thread) for thread in threads)
        assert read == [["Ada", "Bob", "Cid"]] * 5
        assert (who(small.get(timeout=5)), small.dropped) == ("Cid", 2)
        assert who(strict.get()) == "Ada"
        with pytest.raises(FeedOverflow):
            strict.get()
        queues[0].close()
        with pytest.raises(FeedClosed):
            queues[0].get()
        assert list(queues[0]) == []


def test_a_feed_tells_of_itself(nex: Nex) -> None:
    """A queue with signals, and a handler of one, hear of the connection."""
    feed = nex.insights.stream()
    queue = feed.queue(signals=True)
    heard: list[str] = []
    feed.on("connected", lambda signal: heard.append(signal.kind))

    def told(signal: Any) -> None:
        heard.append(signal.kind)
        feed.stop()

    feed.on("replayed", told)
    feed.run()
    assert heard == ["connected", "replayed"]
    assert queue.get().kind == "connected"


# ---- handlers -------------------------------------------------------------------------------------------------------


def test_handlers_run_in_the_thread_that_runs_the_feed(nex: Nex) -> None:
    """A handler is called in the thread of `run()`, one event at a time in their order, and may call the client."""
    derive(nex, "Ada", "Bob", "Cid")
    feed = nex.insights.stream()
    calls: list[tuple[str, threading.Thread]] = []
    busy = threading.Lock()

    @feed.on("insight")
    def handle(event: InsightEvent) -> None:
        with busy:
            assert isinstance(event, InsightEvent)
            task = nex.tasks.create(f"Call {who(event)}")
            calls.append((nex.tasks.get(task.id).title or "", threading.current_thread()))
            if len(calls) == 3:
                feed.stop()

    @feed.on("insight")
    def also(event: InsightEvent) -> None:
        assert busy.acquire(blocking=False)
        busy.release()

    feed.run()
    assert calls == [(f"Call {name}", threading.main_thread()) for name in ("Ada", "Bob", "Cid")]
    assert handle is not None
    assert also is not None


def test_handlers_with_threads_of_their_own(nex: Nex) -> None:
    """With a concurrency above 1, so many events are handled at a time, in threads of their own."""
    derive(nex, "Ada", "Bob", "Cid")
    feed = nex.insights.stream()
    together = threading.Barrier(3)
    threads: set[threading.Thread] = set()

    @feed.on("insight", concurrency=3)
    def handle(event: InsightEvent) -> None:
        together.wait(PATIENCE)
        threads.add(threading.current_thread())
        nex.objects.list().collect()
        if together.wait(PATIENCE) == 0:
            feed.stop()

    feed.run()
    assert len(threads) == 3
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("concurrency", [1, 2])
def test_handlers_that_fail(nex: Nex, concurrency: int) -> None:
    """A handler that raises ends `run()` with its error, is logged, or hands event and error to a function."""
    derive(nex, "Ada", "Bob")

    def fail(event: InsightEvent) -> None:
        raise KeyError(who(event))

    feed = nex.insights.stream()
    feed.on("insight", fail, concurrency=concurrency)
    with pytest.raises(KeyError, match="Ada" if concurrency == 1 else "Ada|Bob"):
        feed.run()

    feed = nex.insights.stream()
    dead: list[tuple[str, str]] = []

    def bury(event: InsightEvent, error: Exception) -> None:
        assert isinstance(event, InsightEvent)
        dead.append((who(event), repr(error)))
        if len(dead) == 2:
            feed.stop()

    feed.on("insight", fail, concurrency=concurrency, on_error=bury)
    feed.run()
    assert sorted(dead) == [("Ada", "KeyError('Ada')"), ("Bob", "KeyError('Bob')")]

    feed = nex.insights.stream()

    def last(event: InsightEvent) -> None:
        if who(event) == "Bob":
            feed.stop()
        raise KeyError(who(event))

    feed.on("insight", last, concurrency=concurrency, on_error="log")
    feed.run()


def test_what_is_no_exception_ends_the_run(nex: Nex) -> None:
    """`SystemExit` raised by a handler leaves `run()` as it is; from a thread of its own it comes as a failure."""
    derive(nex, "Ada")

    def leave(event: InsightEvent) -> None:
        raise SystemExit(3)

    feed = nex.insights.stream()
    feed.on("insight", leave)
    with pytest.raises(SystemExit):
        feed.run()
    assert feed.closed
    feed = nex.insights.stream()
    feed.on("insight", leave, concurrency=2)
    with pytest.raises(RuntimeError, match="SystemExit"):
        feed.run()
    assert nex.objects.list().collect()


def test_handlers_that_cannot_be(nex: Nex) -> None:
    """What is no ordinary function, no kind and no number is refused when it is registered."""
    feed = nex.insights.stream()

    async def handler(event: object) -> None: ...

    with pytest.raises(InvalidRequestError, match="ordinary function"):
        feed.on("insight", handler)
    with pytest.raises(InvalidRequestError, match="ordinary function"):
        feed.on("insight", print, on_error=handler)
    with pytest.raises(InvalidRequestError, match="callable"):
        feed.on("insight", 5)  # type: ignore[call-overload]
    with pytest.raises(InvalidRequestError, match="kind"):
        feed.on("insigt")
    for wrong in (0, True, 1.5):
        with pytest.raises(InvalidRequestError, match="concurrency"):
            feed.on("insight", print, concurrency=wrong)  # type: ignore[call-overload]
    with pytest.raises(InvalidRequestError, match="on_error"):
        feed.on("insight", print, on_error="ignore")  # type: ignore[call-overload]
    with pytest.raises(InvalidRequestError, match="handler"):
        feed.run()
    feed.close()


def test_a_feed_is_stopped_and_closed_from_elsewhere(nex: Nex) -> None:
    """Another thread ends `run()`: after what is being handled with `stop()`, at once with `close(drain=0)`."""
    derive(nex, "Ada")
    for end in (InsightFeed.stop, lambda feed: feed.close(drain=0), lambda feed: feed.close()):
        feed = nex.insights.stream()
        handling, go_on = threading.Event(), threading.Event()

        @feed.on("insight")
        def handle(event: InsightEvent, handling: Any = handling, go_on: Any = go_on) -> None:
            handling.set()
            assert go_on.wait(PATIENCE)

        runner = threading.Thread(target=feed.run)
        runner.start()
        assert handling.wait(PATIENCE)
        ender = threading.Thread(target=end, args=(feed,))
        ender.start()
        until(lambda feed=feed: feed.closed)  # type: ignore[misc]
        go_on.set()
        assert ended(runner)
        assert ended(ender)


# ---- delivery -------------------------------------------------------------------------------------------------------


def test_delivered_is_what_the_loop_went_on_from(nex: Nex, tmp_path: Path) -> None:
    """With a checkpoint an insight counts as delivered when the loop asks for the next one, and comes again if not."""
    derive(nex, "Ada", "Bob", "Cid")

    def read(count: int) -> list[tuple[str, bool]]:
        with nex.insights.stream(checkpoint=tmp_path / "feed.db") as feed:
            events = []
            for event in feed:
                events.append((who(event), event.redelivered))
                if len(events) == count:
                    break
        return events

    assert read(2) == [("Ada", False), ("Bob", False)]
    assert read(1) == [("Bob", True)]
    with nex.insights.stream(checkpoint=tmp_path / "feed.db") as feed:
        with pytest.raises(StorageLocked), nex.insights.stream(checkpoint=tmp_path / "feed.db"):
            pass
        next(feed).ack()
    assert read(1) == [("Cid", False)]
    with nex.insights.stream(checkpoint=tmp_path / "feed.db") as feed:
        queue = feed.queue()
        event = queue.get()
        assert (who(event), event.redelivered) == ("Cid", True)
        queue.done(event)
    derive(nex, "Dan")
    assert read(1) == [("Dan", False)]


def test_delivered_is_what_a_handler_returned_from(nex: Nex, tmp_path: Path) -> None:
    """With a checkpoint an insight is delivered when its handler has returned; one whose handler failed comes again."""
    derive(nex, "Ada", "Bob")
    handled: list[tuple[str, bool]] = []

    def run(fail_at: str) -> None:
        feed = nex.insights.stream(checkpoint=tmp_path / "feed.db")

        @feed.on("insight")
        def handle(event: InsightEvent) -> None:
            handled.append((who(event), event.redelivered))
            if who(event) == fail_at:
                raise KeyError(fail_at)
            if who(event) == "Bob":
                feed.stop()

        feed.run()

    with pytest.raises(KeyError):
        run("Bob")
    run("nobody")
    assert handled == [("Ada", False), ("Bob", False), ("Bob", True)]


# ---- Ctrl-C ---------------------------------------------------------------------------------------------------------


@posix
def test_ctrl_c_while_a_feed_is_read(nex: Nex) -> None:
    """Ctrl-C ends the wait for an event; the feed can be read on, and nothing is lost."""
    before = tasks_of(nex)
    with nex.insights.stream() as feed:
        queue = feed.queue()
        with interrupted(lambda: until(lambda: feed._async._reading)):
            next(feed)
        with interrupted(lambda: until(lambda: bool(queue._async._consumer._waiters))):
            queue.get()
        derive(nex, "Ada")
        assert who(next(feed)) == "Ada"
        assert who(queue.get()) == "Ada"
    assert tasks_of(nex) == before


@posix
@pytest.mark.parametrize("concurrency", [1, 2])
def test_ctrl_c_while_a_handler_works(nex: Nex, concurrency: int, tmp_path: Path) -> None:
    """Ctrl-C ends `run()` in the middle of a handler, whose insight comes again; nothing stays on the loop."""
    before = tasks_of(nex)
    derive(nex, "Ada")
    feed = nex.insights.stream(checkpoint=tmp_path / "feed.db")
    handling, leave = threading.Event(), threading.Event()

    @feed.on("insight", concurrency=concurrency)
    def handle(event: InsightEvent) -> None:
        handling.set()
        for _ in range(int(PATIENCE / 0.05)):  # in short waits: a signal just before a long one would be seen only after it
            if leave.wait(0.05):
                return

    with interrupted(lambda: handling.wait(PATIENCE)):
        feed.run()
    leave.set()
    assert tasks_of(nex) == before
    with nex.insights.stream(checkpoint=tmp_path / "feed.db") as again:
        assert next(again).redelivered


# ---- jobs -----------------------------------------------------------------------------------------------------------


def test_jobs_are_waited_for_and_watched(nex: Nex) -> None:
    """A job is polled, watched and waited for, here and by its id elsewhere."""
    job = nex.context.add_text("Ada asked for a demo")
    assert isinstance(job, Job)
    with pytest.raises(InvalidRequestError, match="wait for it first"):
        job.result()
    assert job.poll().status in ("pending", "processing")
    assert not job.ended
    states = [state.status for state in job.watch(interval=0.02)]
    assert states[-1] == "completed"
    assert job.wait() is job.result()
    assert (job.ended, job.kind) == (True, "artifact")
    assert job.state is not None
    assert "completed" in repr(job)
    other = nex.context.attach(job.id)
    assert other.wait(interval=0.02).operation_id == job.result().operation_id
    made = nex.ai_lists.create("all people", object_type="person").wait(interval=0.02)
    assert made.entities is not None
    assert nex.compounding.trigger("metrics", dry_run=True).wait(interval=0.02).status == "completed"
    feed = job.watch()
    assert isinstance(feed, Feed)
    heard: list[str | None] = []
    feed.on("completed", lambda state: heard.append(state.status))
    feed.run()
    assert heard == ["completed"]


def test_many_jobs_at_once(nex: Nex) -> None:
    """Jobs are waited for together, in their order or as they end; each that comes is equal to the one that went in."""
    jobs = {nex.context.add_text(f"Text {index}"): index for index in range(4)}
    assert len(nex.jobs.wait_all(iter(jobs))) == 4
    assert {jobs[job] for job in nex.jobs.as_completed(jobs)} == {0, 1, 2, 3}
    assert all(job.result().status == "completed" for job in nex.jobs.as_completed(jobs))
    assert list(nex.jobs.as_completed([])) == []
    lost = nex.context.attach("999")
    found = nex.jobs.wait_all([*jobs, lost], timeout=0.3, return_exceptions=True)
    assert isinstance(found[-1], NexError)
    with pytest.raises(JobTimeout):
        lost.wait(timeout=0.1)
    with pytest.raises(InvalidRequestError, match="jobs must be"):
        nex.jobs.wait_all([nex])  # type: ignore[list-item]
    assert lost != next(iter(jobs))
    assert lost != 5


@posix
def test_ctrl_c_while_a_job_is_waited_for(nex: Nex, emulator: Emulator, came: Came) -> None:
    """Ctrl-C ends the wait, and the polling with it; the job goes on."""
    before = tasks_of(nex)
    emulator.faults.add(kind="read_lag", route="getArtifact", times=None, seconds=0.5)
    job = nex.context.add_text("Ada asked for a demo")

    def polled() -> None:
        came.wait()
        came.wait()

    with interrupted(polled):
        job.wait(interval=0.02)
    assert tasks_of(nex) == before
    assert job.wait(interval=0.02).status == "completed"


def test_what_waits_ends_with_the_client(nex: Nex) -> None:
    """Threads that wait for events, jobs and handlers are let go when the client is closed."""
    met: list[str] = []

    def note(work: Callable[[], object]) -> None:
        try:
            work()
            met.append("end")
        except (ClientClosed, FeedClosed):
            met.append("end")

    feed, handled = nex.insights.stream(), nex.insights.stream()
    queue = feed.queue()
    handled.on("insight", print)
    job = nex.context.attach("999")  # which a server may not show at once
    work: list[Callable[[], object]] = [lambda: next(feed), queue.get, handled.run, job.wait, lambda: list(job.watch())]
    threads = [threading.Thread(target=note, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    until(lambda: bool(feed._async._reading and queue._async._consumer._waiters and handled._async._workers))
    nex.close(drain=0)
    assert all(ended(thread) for thread in threads)
    assert met == ["end"] * 5
    with pytest.raises(ClientClosed):
        next(feed)
    feed.close()
    handled.stop()
    assert feed.stats.consumers >= 1
    assert queue.qsize() == 0
