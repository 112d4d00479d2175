"""Insights in JetStream: each confirmed, each once as long as the stream remembers, whatever happens to the server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nex_async import InsightEvent, Nex, SinkUnavailable
from nex_async.emulator import Emulator
from nex_async.models import Insight
from nex_async.sinks import decode, forward

from .servers import Server, until

pytest.importorskip("nats", reason="nats-py is not installed: run `nox -s sinks`")

from nats.errors import ConnectionClosedError, MaxPayloadError
from nats.js.api import DiscardPolicy
from nats.js.errors import BadRequestError, NotFoundError

from nex_async.sinks import JetStreamSink

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

SUBJECT = "nex.insights"


def event(key: str, text: str = "Ada signed.") -> InsightEvent:
    return InsightEvent(key, "live", Insight(id=key, type="milestone", content=text))


@pytest.fixture
async def jetstream(nats: Client) -> JetStreamContext:
    """JetStream with a stream for the insights."""
    jetstream = nats.jetstream(timeout=1.0)
    await jetstream.add_stream(name="INSIGHTS", subjects=[SUBJECT], duplicate_window=60)
    return jetstream


async def stored(jetstream: JetStreamContext) -> list[InsightEvent]:
    """Return the insights of the stream; the header of each message is their key."""
    found = []
    for number in range(1, (await jetstream.stream_info("INSIGHTS")).state.last_seq + 1):
        try:
            message: Any = await jetstream.get_msg("INSIGHTS", number)
        except NotFoundError:
            continue
        found.append(decode(message.data))
        assert message.headers["Nats-Msg-Id"] == found[-1].key
    return found


async def keys(jetstream: JetStreamContext) -> list[str]:
    return [found.key for found in await stored(jetstream)]


async def test_each_insight_is_stored_once(jetstream: JetStreamContext) -> None:
    """What comes again within the duplicate window is confirmed, and not stored again; order is kept."""
    sink = JetStreamSink(jetstream, SUBJECT, stream="INSIGHTS")
    await sink.write([event("1"), event("2")])
    await sink.write([event("2"), event("3"), event("3"), event("4")])
    assert await keys(jetstream) == ["1", "2", "3", "4"]
    assert (sink.written, sink.duplicates) == (4, 2)


async def test_beyond_the_window_it_says_that_it_came_before(jetstream: JetStreamContext) -> None:
    """What comes again after the stream has forgotten it is stored again, with `redelivered`."""
    await jetstream.update_stream(name="INSIGHTS", subjects=[SUBJECT], duplicate_window=0.1)
    sink = JetStreamSink(jetstream, SUBJECT)
    await sink.write([event("1")])
    again = event("1")
    again.redelivered = True

    async def forgotten() -> bool:
        await sink.write([again])
        return sink.written == 2

    await until(forgotten)
    assert [found.redelivered for found in await stored(jetstream)] == [False, True]


async def test_what_passes_by_itself(nats_server: Server, jetstream: JetStreamContext) -> None:
    """A full stream, a missing one and a dead server are unavailable; nothing follows an insight that was not stored."""
    await jetstream.update_stream(name="INSIGHTS", subjects=[SUBJECT], max_msgs=2, discard=DiscardPolicy.NEW)
    sink = JetStreamSink(jetstream, SUBJECT)
    with pytest.raises(SinkUnavailable):
        await sink.write([event(str(number)) for number in range(4)])
    await jetstream.purge_stream("INSIGHTS")
    await sink.write([event("2"), event("3")])
    assert await keys(jetstream) == ["2", "3"]
    await nats_server.kill()
    with pytest.raises(SinkUnavailable, match="timeout"):
        await sink.write([event("4")])
    await nats_server.start()
    await jetstream.purge_stream("INSIGHTS")
    await sink.write([event("4"), event("5")])
    assert (await keys(jetstream))[-1] == "5"
    await jetstream.delete_stream("INSIGHTS")
    with pytest.raises(SinkUnavailable):
        await sink.write([event("6")])


async def test_what_does_not_pass(nats: Client, jetstream: JetStreamContext) -> None:
    """A message that is too large, a subject of another stream and a closed connection are raised as the client raises them."""
    with pytest.raises(MaxPayloadError):
        await JetStreamSink(jetstream, SUBJECT).write([event("1", "x" * nats.max_payload)])
    with pytest.raises(BadRequestError):
        await JetStreamSink(jetstream, SUBJECT, stream="OTHER").write([event("1")])
    await nats.close()
    with pytest.raises(ConnectionClosedError):
        await JetStreamSink(jetstream, SUBJECT).write([event("1")])


async def test_a_server_that_is_killed_costs_nothing(
    nats_server: Server,
    jetstream: JetStreamContext,
    emulator: Emulator,
    nex: Nex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NATS is killed and started again while insights come: all are in the stream, once, in the order in which they came."""
    monkeypatch.setattr("nex_async.sinks.forwarding._FIRST_PAUSE", 0.05)
    emulator.switches.set(rate_limits="off")
    created: list[str] = []
    feed = nex.insights.stream(checkpoint=tmp_path / "feed.db", start="now")
    sink = JetStreamSink(jetstream, SUBJECT)
    task = asyncio.ensure_future(forward(feed, sink))
    while not feed.stats.connected:
        await asyncio.sleep(0.01)
    for number in range(60):
        text = f"Name{number} <name{number}@x.io> asked for a demo."
        await nex.request("POST", "/v1/context/text", body={"content": text})
        created.append(text)
        if number % 20 == 10:
            await nats_server.kill()
        elif number % 20 == 15:
            await nats_server.start()

    async def complete() -> bool:
        return sink.written + sink.duplicates >= len(created)

    await until(complete)
    feed.stop()
    await task
    assert [found.insight.content for found in await stored(jetstream)] == created
