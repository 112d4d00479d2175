"""Insight feeds: every insight once, to every reader at its own pace, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import stat
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from nex_async import (
    CheckpointError,
    ClientClosed,
    ClientLoopError,
    Closed,
    Connected,
    DeadlineExceeded,
    DecodeError,
    Degraded,
    FeedClosed,
    FeedOverflow,
    InsightEvent,
    InsightFeed,
    InvalidRequestError,
    Nex,
    PermissionDeniedError,
    Reconnecting,
    SessionPool,
    StorageCorrupt,
    StorageLocked,
    TenantMismatch,
    UnknownEvent,
    deadline,
)
from nex_async.emulator import Emulator

from .harness.canary import KEY
from .harness.raw_server import Peer, RawServer, Seen, hold, json_reply, read_request, render, serve

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nDate: Mon, 02 Mar 2026 08:00:05 GMT\r\nConnection: close\r\n\r\n"
)


@pytest.fixture
async def pool() -> AsyncIterator[SessionPool]:
    async with SessionPool() as shared:
        yield shared


class Clock:
    """The present, and what the test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


async def ingest(nex: Nex, *names: str) -> list[str]:
    """Ingest a sentence about each name; return the texts that become insights."""
    texts = [f"{name} <{name.lower()}@x.io> asked for a demo." for name in names]
    if len(texts) > 5:  # the API takes ten texts a minute
        await nex.context.add_text("\n".join(texts))
    else:
        for text in texts:
            await nex.context.add_text(text)
    return texts


async def taken(feed: Any, count: int) -> list[str]:
    """Read so many insights from a feed or a queue behind it."""
    events = aiter(feed)
    return [(await anext(events)).insight.content for _ in range(count)]


# ---- reading --------------------------------------------------------------------------------------------------------


async def test_a_feed_begins_with_the_latest_and_goes_on_with_the_new(emulator: Emulator, nex: Nex) -> None:
    """Without a past a feed begins with the latest insights; each has its source; what comes is there once."""
    old = await ingest(nex, "Ada", "Bob")
    emulator.switches.set(insights_replay="simplified")
    async with nex.insights.stream() as feed:
        first = [await feed.__anext__() for _ in range(2)]
        new = await ingest(nex, "Cem", "Dan")
        rest = [await feed.__anext__() for _ in range(2)]
    assert [event.insight.content for event in first] == old
    assert [event.insight.content for event in rest] == new
    assert {event.source for event in rest} == {"live"}


async def test_now_means_now(clocked: tuple[Nex, Clock]) -> None:
    """A feed that starts now does not hand out what is older, whatever the server replays."""
    nex, clock = clocked
    past = datetime.now(timezone.utc) - timedelta(hours=1)
    async with nex.insights.stream(start=past) as feed:
        await ingest(nex, "Ada")
        await feed.__anext__()
    clock.ahead += 2
    async with nex.insights.stream(start="now") as feed:
        texts = await ingest(nex, "Bob")
        assert await taken(feed, 1) == texts


@pytest.fixture
async def clocked() -> AsyncIterator[tuple[Nex, Clock]]:
    """A client of an embedded Nex whose clock the test moves."""
    clock = Clock()
    async with Emulator(keys={KEY: None}, clock=clock) as server, Nex(KEY, base_url=server.url) as client:
        yield client, clock


async def ingest_over_time(nex: Nex, clock: Clock, count: int) -> list[str]:
    """Ingest so many insights, thirty at a time, ten seconds apart."""
    texts: list[str] = []
    while len(texts) < count:
        texts += await ingest(nex, *(f"Name{number}" for number in range(len(texts), min(count, len(texts) + 30))))
        clock.ahead += 10
    return texts


async def test_a_start_in_the_past_reads_everything_since(clocked: tuple[Nex, Clock]) -> None:
    """A feed that starts at a time delivers all since then, more than any one reply holds, oldest first."""
    nex, clock = clocked
    begun = datetime.now(timezone.utc) - timedelta(seconds=2)
    texts = await ingest_over_time(nex, clock, 150)
    async with nex.insights.stream(start=begun) as feed:
        assert await taken(feed, 150) == texts
        assert feed.stats.backfilled + feed.stats.live == 150


async def test_a_loop_that_is_left_goes_on_where_it_was(nex: Nex) -> None:
    """Events that came together are all delivered, also when the loop is left in the middle of them."""
    texts = await ingest(nex, "Ada", "Bob", "Cem")
    async with nex.insights.stream() as feed:
        seen = []
        async for event in feed:
            seen.append(event.insight.content)
            break
        seen += await taken(feed, 2)
    assert seen == texts


async def test_what_comes_before_the_first_reader_waits_for_it(nex: Nex) -> None:
    """Nothing is missed between opening a feed and reading it, also by a queue that is asked for later."""
    async with nex.insights.stream(start="now") as feed:
        texts = await ingest(nex, "Ada", "Bob")
        while feed.stats.live < 2:
            await asyncio.sleep(0.01)
        assert await taken(feed.queue(), 2) == texts


async def test_every_queue_gets_everything_it_asks_for(nex: Nex, emulator: Emulator) -> None:
    """Queues are independent: each has its own filter and its own place."""
    emulator.switches.set(insights_rest="enriched")
    async with nex.insights.stream(start="now") as feed:
        everything, doubtful = feed.queue(), feed.queue(min_confidence=1.0)
        risks = feed.queue(types={"risk"}, where=lambda event: "leave" in (event.insight.content or ""))
        await nex.context.add_text("Ada Park <ada@x.io> asked for a demo.")
        await nex.context.add_text("Bob Miller <bob@x.io> was unhappy with onboarding and may leave.")
        assert len(await taken(everything, 2)) == 2
        assert "Bob" in (await risks.get()).insight.content
        assert (risks.qsize(), doubtful.qsize()) == (0, 0)


async def test_what_the_list_does_not_tell_is_not_filtered_away(scripted: tuple[Scripted, Nex]) -> None:
    """An insight read from a list that tells no confidence is chosen: better one too many than one lost."""
    script, nex = scripted
    script.row("unsure", confidence=0.3)
    script.row("unknown")
    async with nex.insights.stream(min_confidence=0.9) as feed:
        assert await asyncio.wait_for(taken(feed, 1), 10) == ["unknown"]


async def test_the_first_live_insight_is_as_rich_as_the_next(nex: Nex) -> None:
    """What comes before stream and list were seen to match has the list's id, and all that the stream told of it."""
    async with nex.insights.stream(start="now") as feed:
        await until(lambda: feed.stats.sweeps)
        await ingest(nex, "Ada", "Bob")
        first, second = await feed.__anext__(), await feed.__anext__()
    assert first.insight.id == first.key
    assert first.insight.target is not None
    assert first.insight.confidence == second.insight.confidence


async def test_a_thousand_readers_are_one_socket(emulator: Emulator, nex: Nex) -> None:
    """S39: all feeds of a client share one connection and its sweeps; every one of them gets every insight."""
    emulator.switches.set(rate_limits="off")
    feeds = [nex.insights.stream(start="now") for _ in range(1000)]
    for feed in feeds:
        await feed.__aenter__()
    before = emulator.requests.count("getInsights")
    texts = await ingest(nex, "Ada", "Bob")
    for feed in feeds:
        assert await taken(feed, 2) == texts
    assert emulator.stream.listeners == 1
    assert emulator.requests.count("streamInsights") == 1
    assert emulator.requests.count("getInsights") - before < 20
    for feed in feeds:
        await feed.aclose()


async def test_a_slow_reader_holds_nobody_back_and_misses_nothing(nex: Nex, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that does not read is left to its own pace; the others go on, and it gets everything once it reads."""
    monkeypatch.setattr("nex_async.feeds.outlet._HELD_BACK", 0.05)
    async with nex.insights.stream(start="now") as feed:
        slow, quick = feed.queue(maxsize=2), feed.queue()
        texts = await ingest(nex, "Ada", "Bob", "Cem", "Dan", "Eva")
        assert await taken(quick, 5) == texts
        assert sorted(await asyncio.wait_for(taken(slow, 5), 20)) == sorted(texts)
        assert slow.qsize() == 0


@pytest.mark.parametrize(("overflow", "left"), [("drop_oldest", [3, 4]), ("drop_newest", [0, 1])])
async def test_overflow_policies(nex: Nex, overflow: Any, left: list[int]) -> None:
    """A queue that may drop keeps to its bound, drops what its policy says, and counts it."""
    async with nex.insights.stream(start="now") as feed:
        full, other = feed.queue(maxsize=2, overflow=overflow), feed.queue()
        texts = await ingest(nex, "Ada", "Bob", "Cem", "Dan", "Eva")
        await taken(other, 5)
        assert await taken(full, 2) == [texts[index] for index in left]
        assert (full.dropped, feed.stats.dropped) == (3, 3)


async def test_a_queue_that_asked_for_it_is_told_that_it_is_too_slow(nex: Nex) -> None:
    """With `overflow="raise"` the reader gets what fitted, then the error; the others notice nothing."""
    async with nex.insights.stream(start="now") as feed:
        full, other = feed.queue(maxsize=1, overflow="raise"), feed.queue()
        texts = await ingest(nex, "Ada", "Bob", "Cem")
        assert await taken(other, 3) == texts
        assert (await full.get()).insight.content == texts[0]
        with pytest.raises(FeedOverflow):
            await full.get()


async def test_two_loops_over_one_feed_are_refused(nex: Nex) -> None:
    """An iteration belongs to one task; a second one is told to take a queue."""
    async with nex.insights.stream(start="now") as feed:
        first = asyncio.ensure_future(feed.__anext__())
        await asyncio.sleep(0)
        with pytest.raises(InvalidRequestError, match="queue"):
            await feed.__anext__()
        first.cancel()


@pytest.mark.parametrize(
    "arguments",
    [
        {"start": "yesterday"},
        {"start": datetime(2026, 1, 1)},
        {"mode": "quick"},
        {"on_gap": "ignore"},
        {"types": "risk"},
        {"min_confidence": 3},
        {"timeout": "soon"},
    ],
)
def test_arguments_that_cannot_be_right_are_refused(arguments: dict[str, Any]) -> None:
    """Nothing is opened for arguments that make no sense."""
    with pytest.raises(ValueError, match=r"."):
        Nex(KEY).insights.stream(**arguments)


@pytest.mark.parametrize("arguments", [{"maxsize": 0}, {"maxsize": True}, {"overflow": "burst"}, {"types": "risk"}])
def test_queues_that_cannot_be_right_are_refused(arguments: dict[str, Any]) -> None:
    """A queue of no size, or with an unknown policy, is refused."""
    with pytest.raises(InvalidRequestError):
        Nex(KEY).insights.stream().queue(**arguments)


# ---- handlers -------------------------------------------------------------------------------------------------------


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def test_handlers_get_their_kinds(emulator: Emulator, nex: Nex) -> None:
    """Handlers, async or not, get the kinds they ask for; `run` returns when the feed is stopped."""
    feed = nex.insights.stream(start="now")
    seen: list[str] = []
    signals: list[object] = []

    @feed.on("insight", types={"opportunity"})
    async def handle(event: InsightEvent) -> None:
        await asyncio.sleep(0)
        seen.append(event.insight.content or "")

    feed.on("*", lambda event: signals.append(event), where=lambda event: not isinstance(event, InsightEvent))
    running = asyncio.ensure_future(feed.run())
    await until(lambda: emulator.stream.listeners)
    texts = await ingest(nex, "Ada", "Bob")
    await until(lambda: len(seen) == 2)
    feed.stop()
    await running
    assert seen == texts
    assert isinstance(signals[0], Connected)


async def test_a_handlers_concurrency_is_bounded(emulator: Emulator, nex: Nex) -> None:
    """As many events are handled at a time as was said, no more."""
    feed = nex.insights.stream(start="now")
    busy, most, done = 0, 0, 0

    async def handle(event: InsightEvent) -> None:
        nonlocal busy, most, done
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.02)
        busy -= 1
        done += 1

    feed.on("insight", handle, concurrency=3)
    running = asyncio.ensure_future(feed.run())
    await until(lambda: emulator.stream.listeners)
    await ingest(nex, *(f"Name{number}" for number in range(8)))
    await until(lambda: done == 8)
    await feed.aclose()
    await running
    assert most == 3


async def test_a_handler_that_raises(emulator: Emulator, nex: Nex, caplog: pytest.LogCaptureFixture) -> None:
    """`log` and dead letters go on, `stop` ends `run` with the handler's own error; one handler does not disturb another."""
    feed = nex.insights.stream(start="now")
    seen: list[str] = []
    dead: list[tuple[str, str]] = []

    def fail(event: InsightEvent) -> None:
        raise KeyError(event.insight.content)

    async def bury(event: InsightEvent, error: Exception) -> None:
        dead.append((event.insight.content or "", type(error).__name__))

    feed.on("insight", fail, on_error="log")
    feed.on("insight", fail, on_error=bury)
    feed.on("insight", lambda event: seen.append(event.insight.content))
    running = asyncio.ensure_future(feed.run())
    await until(lambda: emulator.stream.listeners)
    texts = await ingest(nex, "Ada", "Bob")
    await until(lambda: len(seen) == len(dead) == 2)
    await feed.aclose()
    await running
    assert dead == [(text, "KeyError") for text in texts]
    assert sum("a handler failed" in message for message in caplog.messages) == 2

    strict = nex.insights.stream(start="now")
    strict.on("insight", fail)
    running = asyncio.ensure_future(strict.run())
    await until(lambda: emulator.stream.listeners)
    await ingest(nex, "Cem")
    with pytest.raises(KeyError):
        await running


async def test_closing_drains_what_was_taken(emulator: Emulator, nex: Nex) -> None:
    """`aclose` lets handlers finish what is there, for as long as it was told to, and cancels what takes longer."""
    feed = nex.insights.stream(start="now")
    finished: list[str] = []

    async def handle(event: InsightEvent) -> None:
        await asyncio.sleep(0.05)
        finished.append(event.insight.content or "")

    feed.on("insight", handle)
    running = asyncio.ensure_future(feed.run())
    await until(lambda: emulator.stream.listeners)
    texts = await ingest(nex, "Ada", "Bob", "Cem")
    await until(lambda: feed.stats.live == 3)
    await feed.aclose()
    await running
    assert finished == texts

    stuck = nex.insights.stream(start="now")
    forever = asyncio.Event()
    stuck.on("insight", lambda event: forever.wait())
    running = asyncio.ensure_future(stuck.run())
    await until(lambda: emulator.stream.listeners)
    await ingest(nex, "Dan")
    await until(lambda: stuck.stats.delivered)
    await stuck.aclose(drain=0.05)
    await running


# ---- opening and ending ---------------------------------------------------------------------------------------------


async def test_opening_obeys_the_deadline() -> None:
    """A server that accepts and stays silent costs no more than the caller's time."""
    async with RawServer([read_request, hold]) as server, Nex(KEY, base_url=server.url) as nex:
        with pytest.raises(DeadlineExceeded) as caught:
            async with nex.insights.stream(timeout=0.1):
                pass
        assert caught.value.request is not None
        with deadline(0.1), pytest.raises(DeadlineExceeded):
            async with nex.insights.stream():
                pass


async def test_a_deadline_around_the_opening_does_not_end_the_feed(emulator: Emulator, nex: Nex) -> None:
    """The deadline of whoever opens a feed is not that of the feed's own calls."""
    with deadline(0.5):
        feed = await nex.insights.stream(start="now").__aenter__()
    await asyncio.sleep(0.6)
    texts = await ingest(nex, "Ada")
    assert await taken(feed, 1) == texts
    await feed.aclose()


async def test_a_refusal_names_the_operation() -> None:
    """A stream that is refused raises the server's error, with the operation and the scope it needs."""
    async with RawServer([serve(lambda seen: json_reply({"code": 403, "message": "no"}, 403))]) as server:
        async with Nex(KEY, base_url=server.url) as nex:
            with pytest.raises(PermissionDeniedError, match=r"streamInsights .*insight\.stream"):
                async with nex.insights.stream():
                    pass
            handled = nex.insights.stream()
            handled.on("insight", print)
            with pytest.raises(PermissionDeniedError):
                await handled.run()


async def test_a_feed_ends_with_its_client(pool: SessionPool, emulator: Emulator) -> None:
    """Closing a client ends its feeds, and a closed client opens none, also on a pool that lives on."""
    nex = Nex(KEY, base_url=emulator.url, pool=pool)
    async with nex.insights.stream(start="now") as feed:
        reader = asyncio.ensure_future(feed.__anext__())
        await until(lambda: emulator.stream.listeners)
        await nex.aclose()
        with pytest.raises(ClientClosed):
            await reader
    with pytest.raises(ClientClosed):
        async with nex.insights.stream():
            pass


async def test_closing_a_feed_ends_its_readers(emulator: Emulator, nex: Nex) -> None:
    """A feed that is closed while somebody reads it ends the reading, and raises nothing; its connection is closed."""
    async with nex.insights.stream(start="now") as feed:
        queue = feed.queue()

        async def read(source: Any) -> list[object]:
            return [one async for one in source]

        readers = [asyncio.ensure_future(read(feed)), asyncio.ensure_future(read(queue))]
        await until(lambda: emulator.stream.listeners)
        await feed.aclose()
        assert [await reader for reader in readers] == [[], []]
        with pytest.raises(FeedClosed):
            await queue.get()
        await until(lambda: not emulator.stream.listeners)


async def test_a_feed_that_is_forgotten_lets_go(emulator: Emulator, nex: Nex) -> None:
    """A loop that is left without closing its feed keeps neither task nor connection."""
    await ingest(nex, "Ada")
    async for event in nex.insights.stream():
        assert event.insight.content
        break
    gc.collect()
    await until(lambda: not emulator.stream.listeners)


async def test_cancelling_a_reader_at_any_moment_leaves_nothing(emulator: Emulator, nex: Nex) -> None:
    """S40: whoever opens and reads a feed may be cancelled at any turn of the loop; nothing is left behind."""
    await ingest(nex, "Ada")

    async def listen() -> None:
        async with nex.insights.stream() as feed:
            async for _ in feed:
                pass

    for turns in range(60):
        task = asyncio.ensure_future(listen())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: not emulator.stream.listeners)


# ---- what a stream may bring ----------------------------------------------------------------------------------------


class Scripted:
    """A server whose stream sends what it is told, and whose list holds what it is given."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.streams: list[Peer] = []
        self.greeting = b": connected workspace_id=7 token_id=8\n\n"

    def row(self, content: str, **fields: Any) -> None:
        row = {"id": str(len(self.rows) + 1), "content": content, "created_at": "2026-03-02T08:00:05Z", **fields}
        self.rows.append(row)

    async def play(self, peer: Peer) -> None:
        while True:
            seen = await peer.request()
            if "stream" in seen.target:
                self.streams.append(peer)
                await peer.send(HEAD + self.greeting)
                await hold(peer)
                return
            await peer.send(self.answer(seen))

    def answer(self, seen: Seen) -> bytes:
        return json_reply({"data": self.rows[::-1]}, headers={"Date": "Mon, 02 Mar 2026 08:00:05 GMT"})

    async def emit(self, data: bytes) -> None:
        await until(lambda: self.streams)
        await self.streams[-1].send(data)

    async def batch(self, *contents: str, **envelope: Any) -> None:
        payload = {"insights": [{"content": one} for one in contents], "insight_count": len(contents), **envelope}
        await self.emit(f"event: insight.batch.created\ndata: {json.dumps(payload)}\n\n".encode())


@pytest.fixture
async def scripted() -> AsyncIterator[tuple[Scripted, Nex]]:
    script = Scripted()
    async with RawServer([script.play]) as server, Nex(KEY, base_url=server.url) as nex:
        yield script, nex


async def test_a_poison_event_costs_only_itself(scripted: tuple[Scripted, Nex]) -> None:
    """S13, S14, S16: bad JSON, unknown names and empty batches do not end a feed; what the list holds is recovered."""
    script, nex = scripted
    async with nex.insights.stream(start="now") as feed:
        queue = feed.queue(signals=True)
        script.row("one")
        await script.batch("one")
        first = await next_insight(queue)
        await script.emit(b'event: insight.batch.created\ndata: {"insights": [{"content": \n\n')
        await script.emit(b"event: insight.merged\ndata: {}\n\nevent: insight.batch.created\ndata: {}\n\n")
        await script.emit(b'event: insight.batch.created\ndata: {"insights": null}\n\n')
        script.row("two")
        seen = []
        while not {InsightEvent, Degraded, UnknownEvent} <= {type(event) for event in seen}:  # in whatever order
            seen.append(await asyncio.wait_for(queue.get(), 10))
    assert first.insight.content == "one"
    assert [event.insight.content for event in seen if isinstance(event, InsightEvent)] == ["two"]
    assert any(isinstance(event, Degraded) and event.reason == "poison" for event in seen)
    assert any(isinstance(event, UnknownEvent) and event.event == "insight.merged" for event in seen)
    assert (feed.stats.undecodable, feed.stats.unknown) == (1, 1)


async def next_insight(queue: Any) -> InsightEvent:
    while True:
        event = await asyncio.wait_for(queue.get(), 10)
        if isinstance(event, InsightEvent):
            return event


async def test_a_count_that_is_wrong_makes_the_feed_look(scripted: tuple[Scripted, Nex]) -> None:
    """S15: a batch that says it holds more than it does is delivered, and the list is read for the rest."""
    script, nex = scripted
    async with nex.insights.stream(start="now") as feed:
        queue = feed.queue()
        for text in ("one", "two"):
            script.row(text)
        await script.batch("one", insight_count=2)
        assert sorted([(await next_insight(queue)).insight.content, (await next_insight(queue)).insight.content]) == [
            "one", "two",
        ]  # fmt: skip


async def test_an_oversize_event_is_dropped_and_read_from_the_list(scripted: tuple[Scripted, Nex]) -> None:
    """S10: an event beyond the cap is dropped, said to be, and what it held comes from the list."""
    script, nex = scripted
    async with nex.insights.stream(start="now") as feed:
        queue = feed.queue(signals=True)
        await until(lambda: feed.stats.sweeps)
        script.row("huge")
        await script.emit(b"event: insight.batch.created\ndata: " + b"x" * (17 << 20) + b"\n\n")
        seen = []
        while not (seen and isinstance(seen[-1], InsightEvent)):
            seen.append(await asyncio.wait_for(queue.get(), 20))
    assert seen[-1].insight.content == "huge"
    assert any(isinstance(event, Degraded) and event.reason == "oversize" for event in seen)
    assert feed.stats.oversize == 1


async def test_identical_texts_are_counted(scripted: tuple[Scripted, Nex]) -> None:
    """S29, S31: a batch that comes twice is one insight; two insights of one text are two."""
    script, nex = scripted
    async with nex.insights.stream(start="now") as feed:
        queue = feed.queue()
        script.row("first")
        await script.batch("first")
        await next_insight(queue)
        script.row("same")
        await script.batch("same")
        await script.batch("same")
        assert (await next_insight(queue)).insight.content == "same"
        script.row("same")
        await script.batch("same")
        assert (await next_insight(queue)).insight.content == "same"
        await asyncio.sleep(1.2)
        assert queue.qsize() == 0


@pytest.mark.parametrize("greeting", [b"", b": hello\n\n", b": connected workspace_id= token_id=\n\n"])
async def test_a_greeting_that_says_nothing(scripted: tuple[Scripted, Nex], greeting: bytes, tmp_path: Path) -> None:
    """S35: a missing or garbled greeting is no reason to stop; the workspace is then known by the list's rows."""
    script, nex = scripted
    script.greeting = greeting
    script.row("one", workspace_id="7")
    async with nex.insights.stream(checkpoint=tmp_path / "insights.db") as feed:
        assert await asyncio.wait_for(taken(feed, 1), 10) == ["one"]
    script.rows[0]["workspace_id"] = "9"
    script.row("two", workspace_id="9")
    with pytest.raises(TenantMismatch):
        async with nex.insights.stream(checkpoint=tmp_path / "insights.db") as feed:
            await asyncio.wait_for(taken(feed, 1), 10)


async def test_a_lost_connection_loses_nothing(emulator: Emulator, nex: Nex) -> None:
    """S23: what is created while the stream is down is delivered once it stands again, and both are told."""
    async with nex.insights.stream(start="now") as feed:
        queue = feed.queue(signals=True)
        texts = await ingest(nex, "Ada")
        seen = [await next_insight(queue)]
        emulator.faults.add(kind="cut_event", times=1)
        texts += await ingest(nex, "Bob", "Cem")
        signals: list[object] = []
        while len(seen) < 3:
            event = await asyncio.wait_for(queue.get(), 10)
            (seen if isinstance(event, InsightEvent) else signals).append(event)  # type: ignore[attr-defined]
    assert sorted(event.insight.content or "" for event in seen) == sorted(texts)
    assert any(isinstance(signal, Reconnecting) for signal in signals)


# ---- checkpoints ----------------------------------------------------------------------------------------------------


async def test_a_checkpoint_goes_on_where_the_last_feed_stopped(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """What was handled does not come again; what came meanwhile does; what was being handled comes, and says so."""
    path = tmp_path / "insights.db"
    texts = await ingest(nex, "Ada", "Bob")
    async with nex.insights.stream(checkpoint=path) as feed:
        assert await taken(feed, 2) == texts  # asking for the second has acknowledged the first
    later = await ingest(nex, "Cem")
    async with nex.insights.stream(checkpoint=path) as feed:
        again, new = await feed.__anext__(), await feed.__anext__()
        await new.ack()
        assert feed.stats.redelivered == 1
    assert (again.insight.content, again.redelivered) == (texts[1], True)
    assert (new.insight.content, new.redelivered) == (later[0], False)
    async with nex.insights.stream(checkpoint=path) as feed:
        last = await ingest(nex, "Dan")
        assert await taken(feed, 1) == last
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_handlers_acknowledge_by_returning(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """An insight whose handler raised comes again; one whose handlers returned does not. Each handler counts."""
    path = tmp_path / "insights.db"
    texts = await ingest(nex, "Ada", "Bob", "Cem")
    seen: list[tuple[str, bool]] = []

    def feed_with(bad: str) -> InsightFeed:
        feed = nex.insights.stream(checkpoint=path)

        @feed.on("insight")
        async def handle(event: InsightEvent) -> None:
            if event.insight.content == bad:
                raise ValueError
            seen.append((event.insight.content or "", event.redelivered))

        return feed

    with pytest.raises(ValueError, match=r".*"):
        await feed_with(texts[1]).run()
    again = feed_with("")
    running = asyncio.ensure_future(again.run())
    await until(lambda: len(seen) == 3)
    await again.aclose()
    await running
    assert seen == [(texts[0], False), (texts[1], True), (texts[2], False)]


async def test_a_slow_reader_of_a_checkpoint_reads_from_the_file(clocked: tuple[Nex, Clock], tmp_path: Path) -> None:
    """With a checkpoint a slow reader costs no memory and holds nobody back: what waits, waits in the file."""
    nex, clock = clocked
    async with nex.insights.stream(checkpoint=tmp_path / "insights.db", start="now") as feed:
        slow, quick = feed.queue(maxsize=1), feed.queue(maxsize=1)
        texts = await ingest_over_time(nex, clock, 150)
        assert await taken(quick, 150) == texts
        assert slow.qsize() == 150
        assert await taken(slow, 150) == texts


async def test_a_checkpoint_that_cannot_be_used(nex: Nex, emulator: Emulator, tmp_path: Path) -> None:
    """S34: locked, damaged, foreign, another workspace's: each has its error before any delivery; none is overwritten."""
    path = tmp_path / "insights.db"
    await ingest(nex, "Ada")
    async with nex.insights.stream(checkpoint=path) as feed:
        await taken(feed, 1)
        with pytest.raises(StorageLocked):
            async with nex.insights.stream(checkpoint=path):
                pass
        assert await taken(feed, 0) == []
    async with Emulator(keys={KEY: None}) as other, Nex(KEY, base_url=other.url) as stranger:
        await ingest(stranger, "Eve")
        with pytest.raises(TenantMismatch):
            async with stranger.insights.stream(checkpoint=path) as feed:
                await taken(feed, 1)
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"this is no database, and never was one" * 100)
    garbage.chmod(0o600)
    with pytest.raises(StorageCorrupt):
        async with nex.insights.stream(checkpoint=garbage):
            pass
    assert garbage.read_bytes().startswith(b"this is no database")


async def test_a_database_of_another_kind_is_no_checkpoint(nex: Nex, tmp_path: Path) -> None:
    """A SQLite file of somebody else's is refused, and left as it is."""
    from nex_async.storage import Database

    path = tmp_path / "other.db"
    async with Database(path) as database:
        await database.run(lambda connection: connection.execute("CREATE TABLE mine (x)") and None)
    with pytest.raises(CheckpointError, match="another kind"):
        async with nex.insights.stream(checkpoint=path):
            pass
    with pytest.raises(InvalidRequestError, match="checkpoint"):
        nex.insights.stream(checkpoint=path).queue(overflow="drop_oldest")


# ---- history --------------------------------------------------------------------------------------------------------


async def test_history_is_complete_whatever_the_limit(clocked: tuple[Nex, Clock]) -> None:
    """More insights than a reply may hold come all, once each, oldest first; reading can stop and go on."""
    nex, clock = clocked
    begun = datetime.now(timezone.utc) - timedelta(seconds=2)
    texts = await ingest_over_time(nex, clock, 150)
    end = datetime.now(timezone.utc) + timedelta(hours=1)
    pager = nex.insights.history(begun, end)
    found = await pager.collect()
    assert sorted(insight.content or "" for insight in found) == sorted(texts)
    assert [insight.created_at for insight in found] == sorted(insight.created_at for insight in found if insight.created_at)
    pages = [page async for page in nex.insights.history(begun, end).pages()]
    rest = await nex.insights.history(begun, end, resume=pages[0].checkpoint).collect()
    assert {one.id for one in pages[0].items} | {one.id for one in rest} == {one.id for one in found}
    with pytest.raises(InvalidRequestError):
        nex.insights.history(end, begun)
    with pytest.raises(InvalidRequestError):
        await nex.insights.history(begun, end, resume="getInsights from 1 to 2|x")


# ---- several readers, and the life of a feed ------------------------------------------------------------------------


def handed_out(feed: InsightFeed) -> int:
    return feed.stats.live + feed.stats.replayed + feed.stats.backfilled


async def test_readers_that_come_after_the_opening_share_what_came_before(nex: Nex, tmp_path: Path) -> None:
    """Until somebody reads, everything waits for all: one reader's filter takes nothing from another."""
    texts = await ingest(nex, "Ada", "Bob", "Cem")
    async with nex.insights.stream() as feed:
        await until(lambda: handed_out(feed) == 3)
        none, everything = feed.queue(types={"no such type"}), feed.queue()
        assert await taken(everything, 3) == texts
        assert none.qsize() == 0
    path = tmp_path / "insights.db"
    async with nex.insights.stream(checkpoint=path) as feed:
        await until(lambda: handed_out(feed) == 3)
    async with nex.insights.stream(checkpoint=path) as feed:
        feed.on("gap", print)
        none, everything = feed.queue(types={"no such type"}), feed.queue()
        assert await taken(everything, 3) == texts


async def test_on_gap_raise_loses_nothing_that_came_early(nex: Nex) -> None:
    """A feed that is to raise at gaps holds what comes before its first reader, as any other."""
    texts = await ingest(nex, "Ada", "Bob")
    async with nex.insights.stream(on_gap="raise") as feed:
        await until(lambda: handed_out(feed) == 2)
        assert await taken(feed, 2) == texts


async def test_two_workers_on_one_queue_acknowledge_their_own(nex: Nex, tmp_path: Path) -> None:
    """What one worker still handles is not acknowledged by another that asks for more."""
    path = tmp_path / "insights.db"
    texts = await ingest(nex, "Ada", "Bob", "Cem")
    async with nex.insights.stream(checkpoint=path) as feed:
        queue = feed.queue()
        slow, quick = aiter(queue), aiter(queue)
        assert (await anext(slow)).insight.content == texts[0]
        assert (await anext(quick)).insight.content == texts[1]
        assert (await anext(quick)).insight.content == texts[2]
    async with nex.insights.stream(checkpoint=path) as feed:
        again = [await feed.__anext__(), await feed.__anext__()]
    assert [(event.insight.content, event.redelivered) for event in again] == [(texts[0], True), (texts[2], True)]


async def test_a_feed_outlives_its_queues(emulator: Emulator, nex: Nex) -> None:
    """When the last queue is closed or dropped the feed stays; a queue that comes later gets what comes later."""
    await ingest(nex, "Ada")
    async with nex.insights.stream() as feed:
        first = feed.queue()
        await taken(first, 1)
        first.close()
        later = feed.queue()
        texts = await ingest(nex, "Bob")
        assert await taken(later, 1) == texts
        del later, first
        gc.collect()
        await until(lambda: feed.stats.lag == 0)
        assert emulator.requests.count("streamInsights") == 1


async def test_a_closed_queue_leaves_nothing_in_the_file(nex: Nex, tmp_path: Path) -> None:
    """What only a queue that was closed had not dealt with is dropped, and does not come again."""
    path = tmp_path / "insights.db"
    texts = await ingest(nex, "Ada", "Bob")
    async with nex.insights.stream(checkpoint=path) as feed:
        idle, busy = feed.queue(), feed.queue()
        for _ in texts:
            await busy.done(await busy.get())
        idle.close()
        await busy.done(await later_insight(nex, busy))
    async with nex.insights.stream(checkpoint=path) as feed:
        fresh = await ingest(nex, "Dan")
        assert await taken(feed, 1) == fresh


async def later_insight(nex: Nex, queue: Any) -> InsightEvent:
    await ingest(nex, "Cem")
    event: InsightEvent = await queue.get()
    return event


async def test_an_orderly_stop_acknowledges_what_was_handled(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """A handler under way when the feed is stopped may finish, and acknowledge: nothing it has handled comes again."""
    path = tmp_path / "insights.db"
    await ingest(nex, "Ada")
    handled: list[str] = []
    begun = asyncio.Event()
    feed = nex.insights.stream(checkpoint=path)

    @feed.on("insight")
    async def handle(event: InsightEvent) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        await event.ack()
        handled.append(event.insight.content or "")

    running = asyncio.ensure_future(feed.run())
    await begun.wait()
    feed.stop()
    await running
    assert len(handled) == 1
    async with nex.insights.stream(checkpoint=path) as again:
        fresh = await ingest(nex, "Bob")
        assert await taken(again, 1) == fresh


async def test_a_handler_that_is_cancelled_by_what_it_waits_for_has_failed(emulator: Emulator, nex: Nex) -> None:
    """A CancelledError that was not meant for the handler is a failure like any other, and not a silent end."""
    await ingest(nex, "Ada")

    async def handle(event: InsightEvent) -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    feed = nex.insights.stream()
    feed.on("insight", handle)
    with pytest.raises(RuntimeError, match="cancelled"):
        await asyncio.wait_for(feed.run(), 10)


async def test_the_streams_filter_holds_for_handlers(emulator: Emulator, nex: Nex) -> None:
    """What `stream(types=...)` leaves out no handler gets, but signals come to all who asked; unknown kinds are refused."""
    await ingest(nex, "Ada")
    feed = nex.insights.stream(types={"risk"})
    seen: list[object] = []
    feed.on("insight", seen.append)
    feed.on("replayed", seen.append)
    with pytest.raises(InvalidRequestError, match="kind"):
        feed.on("insights", seen.append)
    running = asyncio.ensure_future(feed.run())
    await until(lambda: seen)
    await feed.aclose()
    await running
    assert not any(isinstance(event, InsightEvent) for event in seen)


async def test_a_feed_that_was_refused_says_so_to_everybody() -> None:
    """Who asks for a queue after the feed has ended learns why, instead of waiting."""
    async with RawServer([serve(lambda seen: json_reply({"code": 403, "message": "no"}, 403))]) as server:
        async with Nex(KEY, base_url=server.url) as nex:
            feed = nex.insights.stream()
            with pytest.raises(PermissionDeniedError):
                await feed.__anext__()
            with pytest.raises(PermissionDeniedError):
                await asyncio.wait_for(feed.queue().get(), 5)
            await feed.aclose()


async def test_feeds_with_other_settings_do_not_share(emulator: Emulator, nex: Nex) -> None:
    """A view's timeouts rule its own feeds; `timeout=` of a stream is for the opening, and rules nobody."""
    emulator.faults.add(kind="delay", route="getInsights", seconds=0.3)
    quick = nex.with_options(timeout=0.1)
    async with quick.insights.stream() as hasty, nex.insights.stream(timeout=5) as patient, nex.insights.stream() as third:
        await until(lambda: patient.stats.sweeps and third.stats.sweeps and "ledger" in hasty.stats.degraded)
        assert patient.stats.degraded == ()
        assert emulator.stream.listeners == 2


def test_a_feed_belongs_to_one_loop(tmp_path: Path) -> None:
    """A feed that was opened in one event loop is refused in another, at once."""

    async def use(feed: InsightFeed | None, nex: Nex) -> InsightFeed:
        if feed is None:
            feed = nex.insights.stream(start="now")
            await feed.__aenter__()
            return feed
        with pytest.raises(ClientLoopError):
            await feed.__anext__()
        return feed

    async def first() -> tuple[InsightFeed, Nex]:
        async with Emulator(keys={KEY: None}) as emulator:
            nex = Nex(KEY, base_url=emulator.url)
            feed = await use(None, nex)
            await nex.aclose()
            return feed, nex

    feed, nex = asyncio.run(first())
    feed._closed = False
    asyncio.run(use(feed, nex))  # type: ignore[arg-type]


async def test_opening_a_feed_while_another_closes(nex: Nex, emulator: Emulator, tmp_path: Path) -> None:
    """A connection that is being closed for one feed is made anew for the next."""
    for number in range(5):
        first = await nex.insights.stream(start="now").__aenter__()
        second = nex.insights.stream(start="now", checkpoint=tmp_path / f"{number}.db")
        opening = asyncio.ensure_future(second.__aenter__())
        await asyncio.sleep(0)
        await first.aclose()
        await asyncio.wait_for(opening, 10)
        texts = await ingest(nex, f"Ada{number}")
        assert await asyncio.wait_for(taken(second, 1), 10) == texts
        await second.aclose()


async def test_the_server_may_end_a_feed_for_good(caplog: pytest.LogCaptureFixture) -> None:
    """S18: a 204 ends the feed in good order, with a signal and a warning; nobody connects again."""
    async with RawServer([serve(lambda seen: b"HTTP/1.1 204 No Content\r\n\r\n")]) as server:
        async with Nex(KEY, base_url=server.url) as nex, nex.insights.stream() as feed:
            signals = [signal async for signal in feed.queue(signals=True)]
            assert [event async for event in feed] == []
    assert signals == [Closed("204")]
    assert "204" in caplog.text
    assert sum(seen.target.endswith("/stream") for seen in server.requests) == 1


@pytest.mark.parametrize("kind", ["text/html", ""])
async def test_a_reply_that_is_no_stream_is_said_to_be_none(kind: str) -> None:
    """S17: a 200 that is a page, or says nothing of its type, is refused instead of being read."""
    page = render(b"event: insight.batch.created\ndata: {}\n\n", headers={"Content-Type": kind})
    async with RawServer([serve(lambda seen: page)]) as server, Nex(KEY, base_url=server.url) as nex:
        with pytest.raises(DecodeError, match="not an event stream"):
            async with nex.insights.stream():
                pass
