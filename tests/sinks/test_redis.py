"""Insights in a Redis stream: each once, whatever happens to Redis, to the service, or to the words between them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nex_async import InsightEvent, Nex, SinkUnavailable
from nex_async.emulator import Emulator
from nex_async.models import Insight
from nex_async.sinks import decode, forward

from .conftest import REDIS
from .servers import Server, running, until

pytest.importorskip("redis", reason="redis is not installed: run `nox -s sinks`")

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from nex_async.sinks import RedisStreamSink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence


ONCE = Retry(NoBackoff(), 0)


def event(key: str, text: str = "Ada signed.") -> InsightEvent:
    return InsightEvent(key, "live", Insight(id=key, type="milestone", content=text))


async def entries(redis: Any, stream: str = "insights") -> list[InsightEvent]:
    """Return the insights of a stream; each entry says their key beside their message."""
    found = []
    for _, fields in await redis.xrange(stream):
        found.append(decode(fields[b"message"]))
        assert fields[b"key"].decode() == found[-1].key
    return found


async def keys(redis: Any, stream: str = "insights") -> list[str]:
    return [found.key for found in await entries(redis, stream)]


async def test_each_insight_is_appended_once(redis: Redis) -> None:
    """What comes again is not appended again, also within one batch; the rest of the batch is, in order."""
    sink = RedisStreamSink(redis, "insights")
    await sink.write([event("1"), event("2")])
    await sink.write([event("2"), event("3"), event("3"), event("4")])
    assert await keys(redis) == ["1", "2", "3", "4"]
    assert (sink.written, sink.duplicates) == (4, 2)


async def test_a_message_is_the_whole_insight(redis: Redis) -> None:
    """What a reader of the stream decodes is what the feed had."""
    insight = Insight(id="7", type="risk", content="Ada\u2028left: \U0001f62e", confidence=0.5)
    await RedisStreamSink(redis, "insights").write([InsightEvent("7", "backfill", insight, redelivered=True)])
    (read,) = await entries(redis)
    assert (read.key, read.source, read.redelivered, read.insight) == ("7", "backfill", True, insight)


async def test_memory_is_bounded(redis: Redis) -> None:
    """The stream is trimmed to about `maxlen`, and no more than `remember` keys are held: the newest."""
    sink = RedisStreamSink(redis, "insights", maxlen=200, remember=50)
    for first in range(0, 1000, 100):
        await sink.write([event(str(number)) for number in range(first, first + 100)])
    assert 200 <= await redis.xlen("insights") < 400
    assert await redis.zcard("{insights}:seen") == 50
    await sink.write([event("999")])
    assert sink.duplicates == 1


async def test_a_lost_script_is_sent_again(redis: Redis) -> None:
    """A server that has forgotten the script, or was replaced, is told it again."""
    sink = RedisStreamSink(redis, "insights")
    await sink.write([event("1")])
    await redis.script_flush()
    await sink.write([event("2")])
    assert await keys(redis) == ["1", "2"]


async def test_what_passes_by_itself(redis: Redis) -> None:
    """A full, a read-only and a careful Redis are unavailable; nothing was appended, and it is once that has passed."""
    sink = RedisStreamSink(redis, "insights")
    troubles: list[tuple[Awaitable[Any], Awaitable[Any]]] = [
        (redis.config_set("maxmemory", "1"), redis.config_set("maxmemory", "0")),
        (redis.replicaof("127.0.0.1", "1"), redis.replicaof("NO", "ONE")),  # type: ignore[list-item]
        (redis.config_set("min-replicas-to-write", "1"), redis.config_set("min-replicas-to-write", "0")),
    ]
    for number, (begin, end) in enumerate(troubles):
        await begin
        with pytest.raises(SinkUnavailable):
            await sink.write([event(str(number))])
        await end
        await sink.write([event(str(number))])
    assert await keys(redis) == ["0", "1", "2"]
    assert sink.duplicates == 0


async def test_what_does_not_pass(redis_server: Server, redis: Redis) -> None:
    """A key of another type and a refused password are raised as the client raises them."""
    await redis.set("taken", "1")
    with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
        await RedisStreamSink(redis, "taken").write([event("1")])
    await redis.config_set("requirepass", "secret")
    async with Redis(port=redis_server.port, password="wrong", retry=ONCE) as stranger:
        with pytest.raises(exceptions.AuthenticationError):
            await RedisStreamSink(stranger, "insights").write([event("1")])


@pytest.mark.parametrize("stream", ["insights", "{nex}:insights"])
async def test_a_cluster_takes_insights(tmp_path: Path, stream: str) -> None:
    """In a cluster the stream and its keys share a slot."""
    async with running(tmp_path / "cluster", *REDIS, "--cluster-enabled", "yes") as server:
        async with Redis(port=server.port) as node:
            await node.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")  # type: ignore[no-untyped-call]

            async def stands() -> bool:
                return b"cluster_state:ok" in await node.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]

            await until(stands)
        async with RedisCluster(host="127.0.0.1", port=server.port) as cluster:
            sink = RedisStreamSink(cluster, stream)
            for _ in range(2):
                await sink.write([event("1"), event("2")])
            assert await keys(cluster, stream) == ["1", "2"]


async def test_a_server_that_is_killed_costs_nothing(
    redis_server: Server, emulator: Emulator, nex: Nex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is killed and started again while insights come: all are in the stream, once, in the order in which they came."""
    monkeypatch.setattr("nex_async.sinks.forwarding._FIRST_PAUSE", 0.05)
    emulator.switches.set(rate_limits="off")
    created: list[str] = []
    async with Redis(port=redis_server.port, retry=ONCE) as redis:
        feed = nex.insights.stream(checkpoint=tmp_path / "feed.db", start="now")
        task = asyncio.ensure_future(forward(feed, RedisStreamSink(redis, "insights")))
        while not feed.stats.connected:
            await asyncio.sleep(0.01)
        for number in range(60):
            text = f"Name{number} <name{number}@x.io> asked for a demo."
            await nex.request("POST", "/v1/context/text", body={"content": text})
            created.append(text)
            if number % 20 == 10:
                await redis_server.kill()
            elif number % 20 == 15:
                await redis_server.start()

        async def complete() -> bool:
            return int(await redis.xlen("insights")) >= len(created)

        await until(complete)
        feed.stop()
        await task
        assert [found.insight.content for found in await entries(redis)] == created


async def test_what_was_written_and_not_acknowledged_is_not_appended_again(redis: Redis, nex: Nex, tmp_path: Path) -> None:
    """A service that dies between Redis's word and its own leaves no second copy behind."""

    class Mortal(RedisStreamSink):
        async def write(self, events: Sequence[InsightEvent], /) -> None:
            await super().write(events)
            raise KeyError("gone")

    for name in ("Ada", "Bob"):
        await nex.context.add_text(f"{name} signed.")
    with pytest.raises(KeyError):
        await forward(nex.insights.stream(checkpoint=tmp_path / "feed.db"), Mortal(redis, "insights"))
    before = await keys(redis)
    feed, sink = nex.insights.stream(checkpoint=tmp_path / "feed.db"), RedisStreamSink(redis, "insights")
    task = asyncio.ensure_future(forward(feed, sink))

    async def again() -> bool:
        return sink.duplicates == len(before)

    await until(again)
    feed.stop()
    await task
    assert len(before) == 2
    assert await keys(redis) == before


async def test_two_forwarders_are_one(redis: Redis, nex: Nex, tmp_path: Path) -> None:
    """Two that read in exact mode, each with a checkpoint of its own, may share a stream: each insight is there once."""
    feeds = [nex.insights.stream(checkpoint=tmp_path / f"{name}.db", mode="exact") for name in ("one", "two")]
    sinks = [RedisStreamSink(redis, "insights") for _ in feeds]
    tasks = [asyncio.ensure_future(forward(feed, sink)) for feed, sink in zip(feeds, sinks, strict=True)]
    created = [f"Name{number} <name{number}@x.io> asked for a demo." for number in range(8)]
    for text in created:
        await nex.request("POST", "/v1/context/text", body={"content": text})

    async def complete() -> bool:
        return sum(sink.written + sink.duplicates for sink in sinks) >= 2 * len(created)

    await until(complete)
    for feed in feeds:
        feed.stop()
    await asyncio.gather(*tasks)
    assert sorted(found.insight.content or "" for found in await entries(redis)) == sorted(created)
