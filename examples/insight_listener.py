"""A service that handles every insight of a workspace, across lost connections, restarts and kill -9. Copy and change it.

    python examples/insight_listener.py --local      # against an embedded Nex that makes insights by itself
    python examples/insight_listener.py              # against yours: NEX_API_KEY, NEX_API_BASE_URL

Each insight is printed as a line of JSON; what the service has to say of itself goes to stderr. SIGTERM and SIGINT end it in
good order; started again, it goes on where it stopped. Settings, all optional, come from the environment:

    LISTENER_CHECKPOINT        the file that remembers what was handled (insights.db)
    LISTENER_DEAD_LETTERS      the file for insights that could not be handled (dead_letters.jsonl)
    LISTENER_HEALTH_SECONDS    how often the figures are logged (60)

Exit status: 0 when it was told to stop, by a signal or by the server; 1 when something failed that another start may mend; 2
when a start is of no use before somebody has changed something (no key, a refused key, a checkpoint of another workspace, a
damaged file).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from pathlib import Path

from nex_async import (
    APIError,
    CheckpointError,
    ConfigError,
    Degraded,
    Gap,
    InsightEvent,
    InsightFeed,
    Nex,
    NexError,
    Reconnecting,
    StorageCorrupt,
)

log = logging.getLogger("insight_listener")

CHECKPOINT = os.environ.get("LISTENER_CHECKPOINT", "insights.db")
DEAD_LETTERS = Path(os.environ.get("LISTENER_DEAD_LETTERS", "dead_letters.jsonl"))
HEALTH_SECONDS = float(os.environ.get("LISTENER_HEALTH_SECONDS", "60"))


async def handle(event: InsightEvent) -> None:
    """Do what is to be done with an insight. It counts as handled once this returns.

    After a crash the insight that was being handled comes again, with `event.redelivered`: `event.key` tells it apart.
    """
    insight = event.insight
    line = {"key": event.key, "source": event.source, "again": event.redelivered, "type": insight.type}
    print(json.dumps({**line, "content": insight.content}), flush=True)


def set_aside(event: InsightEvent, error: Exception) -> None:
    """Keep an insight that could not be handled, so that it neither stops the others nor is lost."""
    log.error("insight %s was set aside", event.key, exc_info=error)
    letter = {"key": event.key, "error": repr(error), "type": event.insight.type, "content": event.insight.content}
    with DEAD_LETTERS.open("a") as file:
        file.write(json.dumps(letter) + "\n")


def note(signal: object) -> None:
    """Log what the feed tells of itself. A gap is worth waking somebody up."""
    if isinstance(signal, Gap):
        log.error("insights between %s and %s may be missing (%s)", signal.start, signal.end, signal.reason)
    elif isinstance(signal, (Degraded, Reconnecting)):
        log.warning("%s", signal)
    else:
        log.info("%s", signal)


async def tell_health(feed: InsightFeed) -> None:
    """Log how the feed stands, again and again. `silence` and `lag` are the figures to watch."""
    while True:
        await asyncio.sleep(HEALTH_SECONDS)
        stats = feed.stats
        log.info(
            "connected=%s silence=%s lag=%d live=%d backfilled=%d redelivered=%d gaps=%d degraded=%s",
            *(stats.connected, None if stats.silence is None else round(stats.silence, 1), stats.lag),
            *(stats.live, stats.backfilled, stats.redelivered, stats.gaps, ",".join(sorted(stats.degraded)) or "no"),
        )


async def listen(nex: Nex) -> None:
    """Handle insights until a signal ends it, or what cannot be mended."""
    feed = nex.insights.stream(checkpoint=CHECKPOINT)
    feed.on("insight", handle, on_error=set_aside)
    feed.on("*", note, where=lambda event: not isinstance(event, InsightEvent))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # on Windows
            loop.add_signal_handler(number, feed.stop)
    health = loop.create_task(tell_health(feed))
    try:
        await feed.run()  # returns when what was taken is handled
    finally:
        health.cancel()


async def make_insights(nex: Nex) -> None:
    """Ingest a sentence every seven seconds: the API takes ten texts a minute."""
    while True:
        for text in (
            "Ada Park <ada@x.io> asked for a demo.",
            "x.io is unhappy with the delay.",
            "Bo Lind <bo@y.io> signed.",
        ):
            await nex.context.add_text(text)
            await asyncio.sleep(7)


async def run(*, local: bool) -> None:
    """Listen to your workspace, or to an embedded Nex that keeps its data beside the checkpoint."""
    async with Nex.local(f"{CHECKPOINT}.nex") if local else Nex() as nex:
        texts = asyncio.ensure_future(make_insights(nex)) if local else None
        try:
            await listen(nex)
        finally:
            if texts is not None:
                texts.cancel()


def main() -> int:
    """Return the exit status."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(run(local="--local" in sys.argv[1:]))
    except (ConfigError, CheckpointError, StorageCorrupt, APIError) as error:  # APIError: the stream was refused
        log.critical("%s", error)
        return 2
    except NexError:
        log.exception("the listener has failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
