"""Forwarding: a feed on one side, a sink on the other; what the sink has not confirmed is not acknowledged."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from inspect import isawaitable
from typing import Protocol

import anyio

from .._logfields import fields_of
from ..errors import FeedClosed, InvalidRequestError, SinkUnavailable
from ..feeds.events import InsightEvent, Signal
from ..feeds.feed import FeedQueue, OnError
from ..feeds.insights import InsightFeed
from ..transport.wire import in_range

__all__ = ["InsightSink", "forward"]

_log = logging.getLogger("nex_async.sinks")

_MAY_PASS = (SinkUnavailable, OSError, TimeoutError, asyncio.TimeoutError)  # the last two are one from Python 3.11 on
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class InsightSink(Protocol):
    """What insights can be forwarded to."""

    async def write(self, events: Sequence[InsightEvent], /) -> None:
        """Write insights in their order, and return once they are safe.

        After a failure, a timeout or a crash the same events come again, also those that were written: `event.key` tells
        them apart. Raise `SinkUnavailable`, an `OSError` or a `TimeoutError` for what may pass by itself; anything else
        means that these events will never be taken.
        """
        ...


async def forward(
    feed: InsightFeed,
    sink: InsightSink,
    *,
    max_batch: int = 100,
    linger: float = 0.05,
    maxsize: int = 1000,
    timeout: float = 30.0,
    patience: float | None = None,
    on_error: OnError = "stop",
    on_signal: Callable[[Signal], object] | None = None,
) -> None:
    """Write every insight of a feed to a sink, in order, until the feed ends or is stopped; then close the feed.

    At least once, from end to end: an insight is acknowledged to the feed, and so leaves its checkpoint, only after the sink
    has confirmed it. Batches hold what comes within `linger` seconds of the first insight, `max_batch` at most. A write that
    fails in passing, or takes longer than `timeout` seconds, is repeated after a pause that doubles up to 30 seconds, with
    jitter; meanwhile the feed is held back once `maxsize` insights wait (with a checkpoint they wait in its file). After
    `patience` seconds without success, and at the first failure once the feed was stopped, that failure is raised; with a
    checkpoint, what was not written comes again. `on_error` is for what the sink will never take: `stop` raises, `log` and a
    function of the event and the error (async or not: your dead letters) leave out that one insight. `on_signal` is called
    with what the feed tells of itself.

    Give each sink a feed of its own: they share one connection. Raises what ended the feed, and what the sink raised.
    """
    in_range("max_batch", max_batch, 1, None)
    for name, value in (("linger", linger), ("timeout", timeout), ("patience", patience)):
        if value is not None and not (isinstance(value, (int, float)) and value >= 0):
            raise InvalidRequestError(f"{name} must be a number of seconds, not {value!r}", argument=name)
    if not (on_error in ("stop", "log") or callable(on_error)):
        raise InvalidRequestError("on_error must be 'stop', 'log' or a function", argument="on_error")
    if feed.closed:
        return
    queue: FeedQueue[InsightEvent | Signal] = feed.queue(maxsize=maxsize, signals=on_signal is not None)
    reader = _Reader(queue, max_batch, linger, on_signal)
    writer = _Writer(feed, sink, timeout, patience, on_error)
    try:
        while batch := await reader.batch():
            await writer.write(batch)
            await queue.done(*batch)
    finally:
        await feed.aclose()


class _Reader:
    """The feed's side: batches."""

    def __init__(
        self,
        queue: FeedQueue[InsightEvent | Signal],
        most: int,
        linger: float,
        on_signal: Callable[[Signal], object] | None,
    ) -> None:
        self._queue = queue
        self._most = most
        self._linger = linger
        self._on_signal = on_signal
        self._end: Exception | None = None

    async def batch(self) -> list[InsightEvent]:
        """Return what is to be written next; nothing once the feed was stopped. Raises what ended it otherwise."""
        batch: list[InsightEvent] = []
        try:
            if self._end is None:
                batch.append(await self._next())
                with anyio.move_on_after(self._linger):
                    while len(batch) < self._most:
                        batch.append(await self._next())
        except Exception as error:  # what was read before is written before it is raised
            self._end = error
        if self._end is not None and not batch and not isinstance(self._end, FeedClosed):
            raise self._end
        return batch

    async def _next(self) -> InsightEvent:
        while True:
            event = await self._queue.get()
            if isinstance(event, InsightEvent):
                return event
            if self._on_signal is not None:
                self._on_signal(event)


class _Writer:
    """The sink's side: patience."""

    def __init__(
        self, feed: InsightFeed, sink: InsightSink, timeout: float, patience: float | None, on_error: OnError
    ) -> None:
        self._feed = feed
        self._sink = sink
        self._timeout = timeout
        self._patience = patience
        self._on_error = on_error

    async def write(self, batch: list[InsightEvent]) -> None:
        """Return once each insight of a batch is written, or was left out because the sink will never take it."""
        try:
            await self._persist(batch)
        except _MAY_PASS:
            raise
        except Exception as error:
            if self._on_error == "stop":
                raise
            if len(batch) == 1:
                await self._left_out(batch[0], error)
            else:
                for event in batch:
                    await self.write([event])

    async def _left_out(self, event: InsightEvent, error: Exception) -> None:
        if callable(self._on_error):
            result = self._on_error(event, error)
            if isawaitable(result):
                await result
        else:
            template = "an insight was left out: the sink does not take it (%s)"
            _log.error(template, type(error).__name__, exc_info=error, extra=fields_of(error))

    async def _persist(self, batch: list[InsightEvent]) -> None:
        """Write a batch, again and again while it fails in passing."""
        since, pause = anyio.current_time(), _FIRST_PAUSE
        while (failure := await self._attempt(batch)) is not None:
            if self._feed.closed or (self._patience is not None and anyio.current_time() - since >= self._patience):
                raise failure
            delay = max(pause * random.uniform(0.5, 1.0), getattr(failure, "retry_after", None) or 0.0)
            fields = fields_of(failure, insights=len(batch), delay=delay)
            _log.warning(
                "%d insights wait for the sink (%r); next attempt in %.1f s", len(batch), failure, delay, extra=fields
            )
            with anyio.move_on_after(delay):
                await self._feed.stopped()
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _attempt(self, batch: list[InsightEvent]) -> Exception | None:
        try:
            with anyio.fail_after(self._timeout):
                await self._sink.write(batch)
        except _MAY_PASS as error:
            return error
        return None
