"""A service that publishes every insight of a workspace to NATS JetStream. Copy and change it.

    pip install "nex-async[nats]"
    NEX_LOCAL=1 python examples/insights_to_nats.py      # an embedded Nex that makes insights by itself, and your NATS
    python examples/insights_to_nats.py                  # your Nex: NEX_API_KEY, NEX_API_BASE_URL

Lost connections, restarts of either side and kill -9 lose nothing: an insight leaves the checkpoint once the server has
confirmed it, and one that comes again within a day is not stored again (`Nats-Msg-Id` is its key). While NATS is away,
insights wait in the checkpoint. A message is JSON, and `nex_async.sinks.decode` reads it. SIGTERM and SIGINT end the service
in good order; started again, it goes on where it stopped. Settings, all optional, come from the environment:

    NATS_URL              the server (nats://127.0.0.1:4222)
    NATS_STREAM           the stream, which is made where there is none (NEX_INSIGHTS)
    NATS_SUBJECT          the subject (nex.insights)
    FORWARD_CHECKPOINT    the file that remembers what NATS has (insights.db)

Exit status: 0 when it was told to stop; 1 when something failed that another start may mend; 2 when a start is of no use
before somebody has changed something (a refused key, a checkpoint of another workspace, a stream of other subjects).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys

import nats
from nats.errors import Error as NATSError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from nex_async import APIError, CheckpointError, ConfigError, Gap, Nex, NexError, StorageCorrupt
from nex_async.sinks import JetStreamSink, forward

log = logging.getLogger("insights_to_nats")

LOCAL = os.environ.get("NEX_LOCAL") == "1"
NATS_URL = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
STREAM = os.environ.get("NATS_STREAM", "NEX_INSIGHTS")
SUBJECT = os.environ.get("NATS_SUBJECT", "nex.insights")
CHECKPOINT = os.environ.get("FORWARD_CHECKPOINT", "insights.db")
DAY = 86_400.0


def note(event: object) -> None:
    """Log what the feed tells of itself. A gap is worth waking somebody up."""
    log.log(logging.ERROR if isinstance(event, Gap) else logging.INFO, "%s", event)


async def trouble(error: Exception) -> None:
    """Log what the connection to NATS meets; it is made anew by itself, for as long as it takes."""
    log.warning("NATS: %r", error)


async def ensure_stream(jetstream: JetStreamContext) -> None:
    """Make the stream, if there is none: it tells for a day what it has already."""
    try:
        await jetstream.stream_info(STREAM)
    except NotFoundError:
        await jetstream.add_stream(name=STREAM, subjects=[SUBJECT], duplicate_window=DAY)


async def make_insights(nex: Nex) -> None:
    """Ingest a sentence every seven seconds: the API takes ten texts a minute."""
    while True:
        for text in ("Ada Park <ada@x.io> asked for a demo.", "x.io is unhappy with the delay."):
            await nex.context.add_text(text)
            await asyncio.sleep(7)


async def publish(nex: Nex, jetstream: JetStreamContext) -> None:
    """Forward insights until a signal ends it, or what cannot be mended."""
    await ensure_stream(jetstream)
    feed = nex.insights.stream(checkpoint=CHECKPOINT)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # on Windows
            loop.add_signal_handler(number, feed.stop)
    texts = loop.create_task(make_insights(nex)) if LOCAL else None
    try:
        await forward(feed, JetStreamSink(jetstream, SUBJECT, stream=STREAM), on_signal=note)
    finally:
        if texts is not None:
            texts.cancel()


async def run() -> None:
    """Connect to both sides, and forward."""
    async with Nex.local(f"{CHECKPOINT}.nex") if LOCAL else Nex() as nex:
        connection = await nats.connect(NATS_URL, max_reconnect_attempts=-1, error_cb=trouble)
        try:
            await publish(nex, connection.jetstream())
        finally:
            await connection.close()


def main() -> int:
    """Return the exit status."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(run())
    except (ConfigError, CheckpointError, StorageCorrupt, APIError, NATSError) as error:  # they were refused
        log.critical("%s", error)
        return 2
    except NexError as error:
        log.critical("the service has failed, and nothing is lost: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
