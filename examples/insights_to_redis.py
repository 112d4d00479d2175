"""A service that appends every insight of a workspace to a Redis stream, each once. Copy and change it.

    pip install "nex-async[redis]"
    NEX_LOCAL=1 python examples/insights_to_redis.py     # an embedded Nex that makes insights by itself, and your Redis
    python examples/insights_to_redis.py                 # your Nex: NEX_API_KEY, NEX_API_BASE_URL

Lost connections, restarts of either side and kill -9 lose nothing: an insight leaves the checkpoint once Redis has it, and
one that comes again is not appended again. While Redis is away, insights wait in the checkpoint. An entry has two fields:
`key`, and `message`, which is JSON and `nex_async.sinks.decode` reads. SIGTERM and SIGINT end the service in good order;
started again, it goes on where it stopped. Settings, all optional, come from the environment:

    REDIS_URL                 the server (redis://127.0.0.1:6379)
    REDIS_STREAM              the stream (nex:insights)
    REDIS_MAXLEN              about how many entries the stream keeps (1000000)
    FORWARD_CHECKPOINT        the file that remembers what Redis has (insights.db)
    FORWARD_HEALTH_SECONDS    how often the figures are logged (60)

Exit status: 0 when it was told to stop; 1 when something failed that another start may mend; 2 when a start is of no use
before somebody has changed something (a refused key or password, a checkpoint of another workspace, a damaged file).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator

from redis.asyncio import Redis
from redis.exceptions import RedisError

from nex_async import APIError, CheckpointError, ConfigError, Gap, InsightFeed, Nex, NexError, StorageCorrupt
from nex_async.sinks import RedisStreamSink, forward

log = logging.getLogger("insights_to_redis")

LOCAL = os.environ.get("NEX_LOCAL") == "1"
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
STREAM = os.environ.get("REDIS_STREAM", "nex:insights")
MAXLEN = int(os.environ.get("REDIS_MAXLEN", "1000000"))
CHECKPOINT = os.environ.get("FORWARD_CHECKPOINT", "insights.db")
HEALTH_SECONDS = float(os.environ.get("FORWARD_HEALTH_SECONDS", "60"))


def note(event: object) -> None:
    """Log what the feed tells of itself. A gap is worth waking somebody up."""
    log.log(logging.ERROR if isinstance(event, Gap) else logging.INFO, "%s", event)


async def tell_health(feed: InsightFeed, sink: RedisStreamSink) -> None:
    """Log how the service stands, again and again. `lag` is what waits for Redis."""
    while True:
        await asyncio.sleep(HEALTH_SECONDS)
        stats = feed.stats
        figures = (stats.connected, stats.lag, sink.written, sink.duplicates, stats.gaps)
        log.info("connected=%s lag=%d written=%d duplicates=%d gaps=%d", *figures)


async def make_insights(nex: Nex) -> None:
    """Ingest a sentence every seven seconds: the API takes ten texts a minute."""
    while True:
        for text in ("Ada Park <ada@x.io> asked for a demo.", "x.io is unhappy with the delay."):
            await nex.context.add_text(text)
            await asyncio.sleep(7)


@contextlib.asynccontextmanager
async def in_background(*works: asyncio.Task[None]) -> AsyncIterator[None]:
    """End tasks with the block."""
    try:
        yield
    finally:
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)


async def run() -> None:
    """Forward insights until a signal ends it, or what cannot be mended."""
    loop = asyncio.get_running_loop()
    async with Nex.local(f"{CHECKPOINT}.nex") if LOCAL else Nex() as nex, Redis.from_url(REDIS_URL) as redis:
        feed = nex.insights.stream(checkpoint=CHECKPOINT)
        sink = RedisStreamSink(redis, STREAM, maxlen=MAXLEN)
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):  # on Windows
                loop.add_signal_handler(number, feed.stop)
        works = [loop.create_task(tell_health(feed, sink)), *([loop.create_task(make_insights(nex))] if LOCAL else [])]
        async with in_background(*works):
            await forward(feed, sink, on_signal=note)


def main() -> int:
    """Return the exit status."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(run())
    except (ConfigError, CheckpointError, StorageCorrupt, APIError, RedisError) as error:  # they were refused
        log.critical("%s", error)
        return 2
    except NexError as error:
        log.critical("the service has failed, and nothing is lost: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
