"""The feed of one stream connection, and jobs: what was received is delivered, and every wait has an end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from nex_async import (
    DeadlineExceeded,
    InvalidRequestError,
    JobFailed,
    JobTimeout,
    Nex,
    PermissionDeniedError,
    SessionPool,
    deadline,
)
from nex_async.emulator import Emulator
from nex_async.errors import ClientClosed

from .harness.canary import KEY
from .harness.raw_server import RawServer, hold, json_reply, read_request, send, serve

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def event(*contents: str) -> bytes:
    payload = json.dumps({"insights": [{"content": content} for content in contents]})
    return f"event: insight.batch.created\ndata: {payload}\n\n".encode()


@pytest.fixture
async def pool() -> AsyncIterator[SessionPool]:
    async with SessionPool() as shared:
        yield shared


async def test_a_loop_that_is_left_goes_on_where_it_was() -> None:
    """Events that came together are all delivered, also when the loop is left in the middle of them."""
    async with RawServer([read_request, send(HEAD + event("a", "b") + event("c") + event("d"))]) as server:
        async with Nex(KEY, base_url=server.url) as nex, nex.insights.stream() as feed:
            seen = []
            async for one in feed:
                seen.append(one.insight.content)
                break
            seen += [one.insight.content async for one in feed]
    assert seen == ["a", "b", "c", "d"]


async def test_opening_obeys_the_deadline() -> None:
    """A server that accepts and stays silent costs no more than the caller's time."""
    async with RawServer([read_request, hold], [read_request, hold]) as server, Nex(KEY, base_url=server.url) as nex:
        with pytest.raises(DeadlineExceeded) as caught:
            async with nex.insights.stream(timeout=0.1):
                pass
        assert caught.value.request is not None
        with deadline(0.1), pytest.raises(DeadlineExceeded):
            async with nex.insights.stream():
                pass


async def test_a_refusal_names_the_operation() -> None:
    """A stream that is refused raises the server's error, with the operation and the scope it needs."""
    async with RawServer([serve(lambda seen: json_reply({"code": 403, "message": "no"}, 403))]) as server:
        async with Nex(KEY, base_url=server.url) as nex:
            with pytest.raises(PermissionDeniedError, match=r"streamInsights .*insight\.stream"):
                async with nex.insights.stream():
                    pass


async def test_a_stream_ends_with_its_client(pool: SessionPool, emulator: Emulator) -> None:
    """Closing a client ends its open streams, and a closed client opens none, also on a pool that lives on."""
    nex = Nex(KEY, base_url=emulator.url, pool=pool)
    async with nex.insights.stream() as feed:
        reader = asyncio.ensure_future(feed.__anext__())
        while not emulator.stream.listeners:
            await asyncio.sleep(0)
        await nex.aclose()
        with pytest.raises(ClientClosed):
            await reader
    with pytest.raises(ClientClosed):
        async with nex.insights.stream():
            pass


async def test_closing_a_feed_ends_its_iteration(emulator: Emulator, nex: Nex) -> None:
    """A feed that is closed while somebody reads it ends the reading, and raises nothing."""
    async with nex.insights.stream() as feed:

        async def read() -> list[object]:
            return [one async for one in feed]

        reader = asyncio.ensure_future(read())
        while not emulator.stream.listeners:
            await asyncio.sleep(0)
        await feed.aclose()
        assert await reader == []


async def test_live_insights_arrive(emulator: Emulator, nex: Nex) -> None:
    """What is ingested arrives on the stream, with its source."""
    async with nex.insights.stream() as feed:
        job = await nex.context.add_text("Ada Park <ada@x.io> asked for a demo.")
        first = await feed.__anext__()
        assert (first.source, first.insight.type) == ("live", "opportunity")
        assert (await job.wait(interval=0.05)).status == "completed"


async def test_a_wait_ends_at_its_timeout_though_the_server_is_silent() -> None:
    """The timeout of a wait bounds the poll under way, too."""
    async with RawServer([read_request, hold]) as server, Nex(KEY, base_url=server.url) as nex:
        with pytest.raises(JobTimeout) as caught:
            await nex.context.attach("5").wait(timeout=0.2)
    assert caught.value.job_id == "5"


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": None}, {"interval": 0}, {"interval": "soon"}])
async def test_a_wait_that_cannot_be_right_is_refused(options: dict[str, float], nex: Nex) -> None:
    """Times that make no sense are refused before anything is sent."""
    with pytest.raises(InvalidRequestError):
        await nex.context.attach("5").wait(**options)


async def test_a_failed_job_raises_with_its_payload() -> None:
    """A job that failed raises what the server said of it."""
    reply = json_reply({"status": "failed", "error": "no model"})
    async with RawServer([serve(lambda seen: reply)]) as server, Nex(KEY, base_url=server.url) as nex:
        with pytest.raises(JobFailed, match="no model") as caught:
            await nex.ai_lists.attach("j1")
    assert caught.value.payload.status == "failed"
