"""Forwarding: what the sink has confirmed is acknowledged, nothing else; and whatever happens, in order."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from nex_async import Connected, DecodeError, InsightEvent, InsightFeed, InvalidRequestError, Nex, PermissionDeniedError
from nex_async.emulator import Emulator
from nex_async.errors import SinkUnavailable
from nex_async.models import Insight
from nex_async.sinks import decode, encode, forward, forwarding


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for half a second."""
    monkeypatch.setattr(forwarding, "_FIRST_PAUSE", 0.01)


class Sink:
    """Keeps what it is given; before that, each of `trouble` is raised, or awaited, by one write."""

    def __init__(self, *trouble: Exception | Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.trouble = list(trouble)
        self.batches: list[list[InsightEvent]] = []
        self.asked = asyncio.Event()
        self._more = asyncio.Event()

    async def write(self, events: Sequence[InsightEvent], /) -> None:
        self.asked.set()
        if self.trouble:
            trouble = self.trouble.pop(0)
            if isinstance(trouble, Exception):
                raise trouble
            await trouble()
        self.batches.append(list(events))
        self._more.set()

    @property
    def texts(self) -> list[str | None]:
        return [event.insight.content for batch in self.batches for event in batch]

    async def holds(self, count: int) -> list[str | None]:
        """Wait until it holds so many insights."""
        while len(self.texts) < count:
            self._more.clear()
            await asyncio.wait_for(self._more.wait(), 20)
        return self.texts


@contextlib.asynccontextmanager
async def forwarding_to(feed: InsightFeed, sink: Any, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Forward from a feed until it is stopped at the end."""
    task = asyncio.ensure_future(forward(feed, sink, **options))
    try:
        yield task
        feed.stop()
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def ingest(nex: Nex, *names: str) -> list[str]:
    texts = [f"{name} <{name.lower()}@x.io> asked for a demo." for name in names]
    await nex.request("POST", "/v1/context/text", body={"content": "\n".join(texts)})  # it does not wait for its turn
    return texts


async def test_insights_are_forwarded_in_order_and_once(nex: Nex, tmp_path: Path) -> None:
    """Each insight is written once, in order, over a restart too: what the sink has confirmed does not come again."""
    created = await ingest(nex, "Ada", "Bob")
    sink = Sink()
    for names in (("Cem",), ("Dan", "Eve")):
        async with forwarding_to(nex.insights.stream(checkpoint=tmp_path / "feed.db"), sink):
            await sink.holds(len(created))
            created += await ingest(nex, *names)
            await sink.holds(len(created))
    assert sink.texts == created
    assert not any(event.redelivered for batch in sink.batches for event in batch)


async def test_what_was_not_confirmed_comes_again(nex: Nex, tmp_path: Path) -> None:
    """A forwarding that is ended in the middle of a write has acknowledged nothing of it."""
    created = await ingest(nex, "Ada", "Bob")
    stuck = Sink(asyncio.Event().wait)
    async with nex.insights.stream(checkpoint=tmp_path / "feed.db") as feed:
        task = asyncio.ensure_future(forward(feed, stuck))
        await stuck.asked.wait()
        task.cancel()
        await asyncio.wait([task])
    sink = Sink()
    async with forwarding_to(nex.insights.stream(checkpoint=tmp_path / "feed.db"), sink):
        assert await sink.holds(2) == created
    assert sink.batches[0][0].redelivered


@pytest.mark.parametrize("trouble", [ConnectionResetError(), SinkUnavailable("later"), asyncio.TimeoutError()])
async def test_what_fails_in_passing_is_repeated(nex: Nex, caplog: pytest.LogCaptureFixture, trouble: Exception) -> None:
    """A sink that fails for a while costs nothing but time: not an insight, not their order; the log says what waits."""
    created = await ingest(nex, "Ada", "Bob", "Cem")
    sink = Sink(trouble, trouble)
    async with forwarding_to(nex.insights.stream(), sink):
        assert await sink.holds(3) == created
    assert "3 insights wait for the sink" in caplog.text


async def test_the_sinks_own_pause_is_kept(nex: Nex) -> None:
    """A sink that says when to come again is not asked before."""
    await ingest(nex, "Ada")
    sink = Sink(SinkUnavailable("later", retry_after=0.3))
    async with forwarding_to(nex.insights.stream(), sink):
        await sink.asked.wait()
        since = asyncio.get_running_loop().time()
        await sink.holds(1)
        assert asyncio.get_running_loop().time() - since >= 0.3


async def test_a_write_that_never_returns_is_given_up(nex: Nex) -> None:
    """After `timeout` a write counts as failed in passing, and is repeated."""
    created = await ingest(nex, "Ada")
    sink = Sink(asyncio.Event().wait)
    async with forwarding_to(nex.insights.stream(), sink, timeout=0.05):
        assert await sink.holds(1) == created


async def test_a_slow_sink_holds_the_feed_back(emulator: Emulator, nex: Nex) -> None:
    """What waits for a sink in memory is bounded; none of it is lost, and it keeps its order."""
    emulator.switches.set(rate_limits="off")
    release = asyncio.Event()
    sink = Sink(release.wait)
    feed = nex.insights.stream(start="now")
    created: list[str] = []
    async with forwarding_to(feed, sink, maxsize=5, max_batch=2):
        for number in range(40):
            created += await ingest(nex, f"Name{number}")
        await sink.asked.wait()
        assert feed.stats.lag <= 6
        release.set()
        assert await sink.holds(40) == created
    assert max(map(len, sink.batches)) == 2


async def test_an_error_of_the_sink_ends_the_forwarding(nex: Nex, tmp_path: Path) -> None:
    """What does not pass by itself is raised as it is, and nothing of the batch is acknowledged."""
    created = await ingest(nex, "Ada", "Bob")
    async with nex.insights.stream(checkpoint=tmp_path / "feed.db") as feed:
        with pytest.raises(KeyError, match="no such stream"):
            await forward(feed, Sink(KeyError("no such stream")))
    sink = Sink()
    async with forwarding_to(nex.insights.stream(checkpoint=tmp_path / "feed.db"), sink):
        assert await sink.holds(2) == created


@pytest.mark.parametrize("policy", ["log", "letters"])
async def test_one_insight_that_is_never_taken_costs_only_itself(
    nex: Nex, tmp_path: Path, caplog: pytest.LogCaptureFixture, policy: Any
) -> None:
    """With `on_error`, an insight the sink refuses is left out; those of the same batch are written, and it does not come again."""
    letters: list[tuple[str | None, str]] = []

    async def bury(event: InsightEvent, error: Exception) -> None:
        letters.append((event.insight.content, repr(error)))

    class Picky(Sink):
        async def write(self, events: Sequence[InsightEvent], /) -> None:
            if any("Bob" in (event.insight.content or "") for event in events):
                raise ValueError("too large")
            await super().write(events)

    created = await ingest(nex, "Ada", "Bob", "Cem")
    sink = Picky()
    on_error = bury if policy == "letters" else policy
    for count in (2, 3):
        async with forwarding_to(nex.insights.stream(checkpoint=tmp_path / "feed.db"), sink, on_error=on_error):
            await sink.holds(count)
        created += await ingest(nex, f"Dan{count}")
    assert sink.texts == [created[0], *created[2:4]]
    if policy == "letters":
        assert letters == [(created[1], "ValueError('too large')")]
    else:
        assert caplog.text.count("an insight was left out") == 1


async def test_stopped_in_an_outage_it_says_so(nex: Nex, tmp_path: Path) -> None:
    """`stop()` does not wait for a sink that is away: its failure is raised, and the insights come again."""
    created = await ingest(nex, "Ada")
    feed = nex.insights.stream(checkpoint=tmp_path / "feed.db")
    away = Sink(*[ConnectionRefusedError("away") for _ in range(100)])
    with pytest.raises(ConnectionRefusedError, match="away"):
        async with forwarding_to(feed, away, patience=30):
            await away.asked.wait()
    sink = Sink()
    async with forwarding_to(nex.insights.stream(checkpoint=tmp_path / "feed.db"), sink):
        assert await sink.holds(1) == created


async def test_a_feed_that_was_stopped_before_is_forwarded_to_nobody(nex: Nex) -> None:
    """A signal that comes before the forwarding has begun ends it as well, in good order."""
    await ingest(nex, "Ada")
    feed, sink = nex.insights.stream(), Sink()
    feed.stop()
    await forward(feed, sink)
    assert sink.texts == []


async def test_a_pause_ends_when_the_feed_is_stopped(nex: Nex, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the pause between two attempts is, `stop()` ends it: there is one more attempt, and that is all."""
    monkeypatch.setattr(forwarding, "_FIRST_PAUSE", 1000.0)
    created = await ingest(nex, "Ada")
    sink = Sink(ConnectionRefusedError("away"))
    async with forwarding_to(nex.insights.stream(), sink):
        await sink.asked.wait()
    assert sink.texts == created


async def test_patience_ends(nex: Nex) -> None:
    """After `patience` seconds without success the failure is raised, so that somebody else may decide."""
    await ingest(nex, "Ada")
    async with nex.insights.stream() as feed:
        with pytest.raises(SinkUnavailable, match="full"):
            await forward(feed, Sink(*[SinkUnavailable("full")] * 1000), patience=0.05)


async def test_what_was_read_is_written_before_the_feeds_error_is_raised(
    emulator: Emulator, nex: Nex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feed that ends with an error ends the forwarding with it, after what it had brought."""
    created = await ingest(nex, "Ada", "Bob")
    sink = Sink()
    async with nex.insights.stream() as feed:
        task = asyncio.ensure_future(forward(feed, sink, linger=20))
        while feed.stats.delivered < 2:
            await asyncio.sleep(0.01)
        emulator.faults.add(kind="status", route="streamInsights", status=403)
        await emulator.restart()
        with pytest.raises(PermissionDeniedError):
            await task
    assert sink.texts == created


async def test_signals_are_told(nex: Nex) -> None:
    """`on_signal` hears what the feed tells of itself; what it raises ends the forwarding, after what was read."""
    created = await ingest(nex, "Ada")
    sink, signals = Sink(), list[object]()
    async with forwarding_to(nex.insights.stream(), sink, on_signal=signals.append):
        assert await sink.holds(1) == created
    assert Connected() in signals

    def fail(signal: object) -> None:
        raise LookupError(signal)

    async with nex.insights.stream() as feed:
        with pytest.raises(LookupError):
            await forward(feed, sink, on_signal=fail)


@pytest.mark.parametrize(
    "wrong", [{"max_batch": 0}, {"max_batch": 1.5}, {"linger": -1}, {"timeout": "1"}, {"patience": -1}, {"on_error": "skip"}]
)
async def test_options_that_cannot_be_right_are_refused(nex: Nex, wrong: dict[str, Any]) -> None:
    """An option is checked before anything is opened."""
    with pytest.raises(InvalidRequestError):
        await forward(nex.insights.stream(), Sink(), **wrong)


# ---- the message, and the two sinks without a server ----------------------------------------------------------------


def test_a_message_is_read_as_it_was_written() -> None:
    """What `encode` makes `decode` understands, also a message that another version has added to."""
    insight = Insight(id="7", type="risk", content="Ada\u2028left.", confidence=0.5)
    event = InsightEvent("7", "live", insight, redelivered=True)
    message = encode(event)
    read = decode(message.replace(b'{"key"', b'{"new":1,"key"'))
    assert (read.key, read.source, read.redelivered, read.insight) == ("7", "live", True, insight)
    for wrong in (b"", b"[]", b'{"key": "7"}', b"\xff"):
        with pytest.raises(DecodeError):
            decode(wrong)


def test_a_sink_of_ones_own_needs_no_extra() -> None:
    """Who forwards to something else loads neither redis nor nats-py."""
    code = "import sys; from nex_async.sinks import encode, forward; print(sorted({'redis', 'nats'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_redis_that_is_away_may_come_back() -> None:
    """A Redis nobody answers for is unavailable, which passes; bad bounds are refused at once."""
    asyncio_redis = pytest.importorskip("redis.asyncio")
    from nex_async.sinks import RedisStreamSink

    async with asyncio_redis.Redis(port=1, retry=None) as client:
        with pytest.raises(SinkUnavailable):
            await RedisStreamSink(client, "insights").write([InsightEvent("7", "live", Insight())])
        for wrong in ({"maxlen": 0}, {"remember": 0}):
            with pytest.raises(InvalidRequestError):
                RedisStreamSink(client, "insights", **wrong)
