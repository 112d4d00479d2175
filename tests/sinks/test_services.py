"""The two examples as services, against real servers: killed again and again, and nothing is lost or stored twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nex_async import InsightEvent, Nex
from nex_async.emulator import Emulator
from nex_async.sinks import decode

from ..harness.services import EXAMPLES, Service, service, settings
from .servers import Server, until

if TYPE_CHECKING:
    from nats.aio.client import Client
    from redis.asyncio import Redis

TO_REDIS = EXAMPLES / "insights_to_redis.py"
TO_NATS = EXAMPLES / "insights_to_nats.py"
KILLS = int(os.environ.get("NEX_ASYNC_KILLS", "12"))


class Texts:
    """Texts that are ingested as long as the test runs, and become one insight each."""

    def __init__(self, nex: Nex) -> None:
        self.created: list[str] = []
        self._nex = nex

    async def ingest(self, count: int = 1) -> None:
        first = len(self.created)
        texts = [f"Name{number} <name{number}@x.io> asked for a demo." for number in range(first, first + count)]
        self.created += texts
        await self._nex.request("POST", "/v1/context/text", body={"content": "\n".join(texts)})

    @contextlib.asynccontextmanager
    async def flowing(self, draw: random.Random) -> AsyncIterator[None]:
        """Ingest about forty texts a second: the API lists no more than a hundred of one moment."""

        stopped = asyncio.Event()

        async def flow() -> None:
            while not stopped.is_set():
                await self.ingest(draw.randint(1, 3))
                await asyncio.sleep(draw.uniform(0.0, 0.1))

        task = asyncio.ensure_future(flow())
        try:
            yield
        finally:
            stopped.set()
            await task


@pytest.fixture
def texts(emulator: Emulator, nex: Nex) -> Texts:
    emulator.switches.set(rate_limits="off")
    return Texts(nex)


async def survive(
    start: Callable[[], contextlib.AbstractAsyncContextManager[Service]],
    server: Server,
    count: Callable[[], Awaitable[int]],
    texts: Texts,
) -> None:
    """Kill the service as often as asked while insights flow, and its server now and then; wait until all is there."""

    async def has(least: int) -> bool:
        return await count() >= least

    draw = random.Random(6)
    await texts.ingest()
    async with start() as forwarder:  # a feed without a past begins with the latest twenty
        await until(lambda: has(1))
        assert await forwarder.end() == 0, forwarder.log
    async with texts.flowing(draw):
        for number in range(KILLS):
            async with start() as forwarder:
                goal = await count() + 1
                await until(partial(has, goal))
                await asyncio.sleep(draw.uniform(0.0, 0.15))
                if number % 4 == 3:
                    await server.kill()
                    await asyncio.sleep(draw.uniform(0.0, 0.1))
                await forwarder.end(signal.SIGKILL)
                if number % 4 == 3:
                    await server.start()
    async with start() as forwarder:
        await until(lambda: has(len(texts.created)))
        assert await forwarder.end() == 0, forwarder.log
    print(f"\n{KILLS} kills, {len(texts.created)} insights, {await count()} stored")


def check(found: list[InsightEvent], texts: Texts) -> None:
    """See that each insight is there once."""
    contents = [each.insight.content for each in found]
    assert len(contents) == len(set(contents)), "an insight was stored twice"
    assert set(contents) == set(texts.created)


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_redis_survives_kills(
    redis_server: Server, redis: Redis, emulator: Emulator, texts: Texts, tmp_path: Path
) -> None:
    """Whatever instant the service, or Redis, is killed at: each insight is in the stream once."""
    place = {"REDIS_URL": f"redis://127.0.0.1:{redis_server.port}"}

    async def count() -> int:
        return int(await redis.xlen("nex:insights"))

    await survive(lambda: service(tmp_path, TO_REDIS, **settings(emulator), **place), redis_server, count, texts)
    check([decode(fields[b"message"]) for _, fields in await redis.xrange("nex:insights")], texts)


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_nats_survives_kills(
    nats_server: Server, nats: Client, emulator: Emulator, texts: Texts, tmp_path: Path
) -> None:
    """Whatever instant the service, or NATS, is killed at: each insight is in the stream once."""
    from nats.js.errors import NotFoundError

    place = {"NATS_URL": f"nats://127.0.0.1:{nats_server.port}"}
    jetstream = nats.jetstream(timeout=20)

    async def count() -> int:
        try:
            return (await jetstream.stream_info("NEX_INSIGHTS")).state.messages
        except NotFoundError:
            return 0

    await survive(lambda: service(tmp_path, TO_NATS, **settings(emulator), **place), nats_server, count, texts)
    messages: list[Any] = [await jetstream.get_msg("NEX_INSIGHTS", n) for n in range(1, len(texts.created) + 1)]
    check([decode(message.data) for message in messages], texts)


@pytest.mark.parametrize("program", [TO_REDIS, TO_NATS])
async def test_it_can_be_tried_at_once(program: Path, redis_server: Server, nats_server: Server, tmp_path: Path) -> None:
    """With `NEX_LOCAL=1` it needs no key, makes insights by itself, and ends in good order."""
    places = {
        "REDIS_URL": f"redis://127.0.0.1:{redis_server.port}",
        "NATS_URL": f"nats://127.0.0.1:{nats_server.port}",
    }
    for _ in range(2):
        async with service(tmp_path, program, NEX_LOCAL="1", HOME=str(tmp_path), **places) as forwarder:
            await forwarder.logged(r"INFO Connected")
            assert await forwarder.end(signal.SIGINT) == 0
            assert "Traceback" not in forwarder.log


async def test_the_redis_service_tells_how_it_stands(
    redis_server: Server, emulator: Emulator, texts: Texts, tmp_path: Path
) -> None:
    """Its figures are logged; while Redis is away the log says what waits, and SIGTERM ends the service with status 1."""
    environment = {"REDIS_URL": f"redis://127.0.0.1:{redis_server.port}", "FORWARD_HEALTH_SECONDS": "0.05"}
    async with service(tmp_path, TO_REDIS, **settings(emulator), **environment) as forwarder:
        await texts.ingest(3)
        await forwarder.logged(r"INFO connected=True lag=0 written=3 duplicates=0 gaps=0")
        await redis_server.kill()
        await texts.ingest(2)
        await forwarder.logged(r"2 insights wait for the sink \(SinkUnavailable")
        assert await forwarder.end() == 1
        assert re.search(r"CRITICAL the service has failed, and nothing is lost: Redis", forwarder.log)
    await redis_server.start()
    async with service(tmp_path, TO_REDIS, **settings(emulator), **environment) as forwarder:
        await forwarder.logged(r"written=2 duplicates=0")
        assert await forwarder.end() == 0


async def test_what_no_restart_can_mend_is_status_2(
    redis_server: Server, redis: Redis, nats: Client, nats_server: Server, emulator: Emulator, texts: Texts, tmp_path: Path
) -> None:
    """A refused password and a stream of other subjects end the service with status 2 and one line; no secret is in it."""
    await texts.ingest()
    await redis.config_set("requirepass", "right")
    url = f"redis://:never-to-be-seen@127.0.0.1:{redis_server.port}"
    async with service(tmp_path, TO_REDIS, **settings(emulator), REDIS_URL=url) as forwarder:
        assert await forwarder.over() == 2
        assert "never-to-be-seen" not in forwarder.log
        assert "Traceback" not in forwarder.log
    await nats.jetstream().add_stream(name="NEX_INSIGHTS", subjects=["others"])
    await nats.jetstream().add_stream(name="OTHERS", subjects=["nex.insights"])
    url = f"nats://127.0.0.1:{nats_server.port}"
    async with service(tmp_path, TO_NATS, **settings(emulator), NATS_URL=url) as forwarder:
        assert await forwarder.over() == 2
        assert "Traceback" not in forwarder.log
