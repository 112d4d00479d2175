"""Feeds that block: iterate one, put queues behind it, or register handlers for `run()`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Generator
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, overload

import anyio
import anyio.to_thread

from ..errors import DeadlineExceeded, InvalidRequestError
from ..feeds import events, feed, insights
from ..feeds.events import Signal
from ..feeds.feed import FeedStats, H, Handler, OnError, Overflow
from ..feeds.insights import InsightStats
from .base import Client
from .desk import Desk

__all__ = ["Feed", "FeedQueue", "InsightEvent", "InsightFeed", "filter_of", "following"]

E = TypeVar("E")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class InsightEvent(events.InsightEvent):
    """One insight; see `nex_async.InsightEvent`."""

    nex: Client | None = field(default=None, repr=False)
    """The client whose feed it came from."""

    def ack(self) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Note the insight as handled, before the next one is asked for. Without a checkpoint this does nothing."""
        if self.acknowledge is not None and self.nex is not None:
            self.nex._call(self.acknowledge)


def _seen(nex: Client, event: Any) -> Any:
    """Return an event of an insight feed as blocking code sees it."""
    if not isinstance(event, events.InsightEvent):
        return event
    return InsightEvent(
        event.key,
        event.source,
        event.insight,
        event.workspace,
        event.emitted_at,
        event.redelivered,
        event.acknowledge,
        event.sequence,
        nex,
    )


def _same(nex: Client, event: Any) -> Any:
    return event


def filter_of(nex: Client, where: Callable[[InsightEvent], bool] | None) -> Callable[[events.InsightEvent], bool] | None:
    """Return a caller's filter as the feed behind takes it."""
    return None if where is None else lambda event: where(_seen(nex, event))


async def following(items: AsyncIterator[T]) -> tuple[T, ...]:
    """Return the next item, alone; nothing at the end."""
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return ()


class Feed(Generic[E]):
    """What keeps coming, for any number of consumers.

    ``for event in feed`` reads it, ``feed.queue()`` puts a queue behind it, ``@feed.on(kind)`` registers a handler for
    `feed.run()`. Use ``with feed:`` or end it with `feed.close()`. What comes before the first consumer is there waits for
    it, up to a bound of 1 000. An event counts as delivered when the loop asks for the next, or its handler has returned.
    """

    def __init__(self, nex: Client, behind: feed.Feed[Any], seen: Callable[[Client, Any], Any] = _same) -> None:
        self._nex = nex
        self._async: feed.Feed[Any] = behind
        self._seen = seen
        self._desk = Desk()

    # ---- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Feed[E]:
        self._nex._call(self._async.__aenter__, undo=self._async.aclose)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end(lambda: self._async.__aexit__(kind, error, trace))

    def stop(self) -> None:
        """Take no more events. `run()` returns once what was taken is handled; iterations end after what is buffered."""
        self._nex._on_loop(self._async.stop)

    def stopped(self) -> None:
        """Wait until the feed was told to take nothing more, by `stop()` or `close()`."""
        self._nex._call(self._async.stopped)

    def close(self, *, drain: float = 5.0) -> None:
        """Close the feed. Idempotent. Handlers get `drain` seconds to finish what was taken, then are not waited for."""
        self._end(lambda: self._async.aclose(drain=drain))

    def _end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Close on the loop; where that has ended, or was never needed, there is nothing to close."""
        portal = self._nex._lease.running()
        if portal is not None:
            portal.close(close)
        else:
            self._async.stop()

    # ---- consumers --------------------------------------------------------------------------------------------------

    def queue(
        self, maxsize: int = 1000, overflow: Overflow = "block", *, where: Callable[[E], bool] | None = None
    ) -> FeedQueue[E]:
        """Return a queue that gets every event from now on for which `where` holds.

        `maxsize` bounds it. When it is full, `overflow` says what happens: `block` holds the source back, for others only
        for a while; `drop_oldest` and `drop_newest` lose events and count them; `raise` ends the queue with `FeedOverflow`.
        """
        return self._queue(maxsize, overflow, where=self._filter(where))

    def _queue(self, *args: Any, **options: Any) -> FeedQueue[Any]:
        behind = self._nex._on_loop(partial(self._async.queue, *args, **options))
        return FeedQueue(self._nex, behind, self._seen)

    def _filter(self, where: Callable[[Any], bool] | None) -> Callable[[Any], bool] | None:
        nex, seen = self._nex, self._seen
        return where if where is None or seen is _same else lambda event: where(seen(nex, event))

    @overload
    def on(
        self,
        kind: str,
        handler: None = None,
        *,
        concurrency: int = 1,
        on_error: OnError = "stop",
        where: Callable[[Any], bool] | None = None,
        maxsize: int = 1000,
    ) -> Callable[[H], H]: ...
    @overload
    def on(
        self,
        kind: str,
        handler: H,
        *,
        concurrency: int = 1,
        on_error: OnError = "stop",
        where: Callable[[Any], bool] | None = None,
        maxsize: int = 1000,
    ) -> H: ...
    def on(
        self,
        kind: str,
        handler: Handler | None = None,
        *,
        concurrency: int = 1,
        on_error: OnError = "stop",
        where: Callable[[Any], bool] | None = None,
        maxsize: int = 1000,
    ) -> Any:
        """Register a handler for events of a kind (`*`: all), or return a decorator that does.

        `handler` is an ordinary function of one event. It is called by the thread that calls `run()`, one event at a time,
        which keeps their order; with a `concurrency` above 1, by that many threads of its own. When it raises, `on_error`
        says what happens: `stop` ends `run()` with the error, `log` logs it and goes on, and a function of the event and the
        error (your dead letters) is called instead. `maxsize` bounds what waits for the handler.
        """
        return self._on(kind, handler, concurrency, on_error, where=self._filter(where), maxsize=maxsize)

    def _on(self, kind: str, handler: Handler | None, concurrency: int, on_error: OnError, **options: Any) -> Any:
        call = self._desk.ask if concurrency == 1 else _in_threads(concurrency)
        options.update(concurrency=concurrency, on_error=self._told(on_error, call))
        register = self._nex._on_loop(lambda: self._async.on(kind, None, **options))

        def registered(handler: Handler) -> Handler:
            self._nex._on_loop(partial(register, self._told(handler, call)))
            return handler

        return registered if handler is None else registered(handler)

    def _told(self, function: Any, call: Callable[..., Awaitable[object]]) -> Any:
        """Return what the feed behind calls to have a function of the caller's called with what blocking code sees."""
        if inspect.iscoroutinefunction(function):
            raise InvalidRequestError("a handler of a blocking feed must be an ordinary function", argument="handler")
        if not callable(function):
            return function

        async def told(event: Any, *error: Exception) -> None:
            await call(function, self._seen(self._nex, event), *error)

        return told

    # ---- reading ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Feed[E]:
        return self

    def __next__(self) -> E:
        given = self._nex._call(lambda: following(self._async))
        if not given:
            raise StopIteration
        event: E = self._seen(self._nex, given[0])
        return event

    @property
    def closed(self) -> bool:
        """Whether the feed takes nothing more."""
        return self._async.closed

    def run(self) -> None:
        """Call the handlers until the feed ends, is stopped, or a handler fails whose policy is `stop`.

        Raises what ended it: the source's error, or the handler's.
        """
        self._nex._call(self._async.run, self._desk)

    @property
    def stats(self) -> FeedStats:
        """How the consumers stand."""
        return self._nex._on_loop(lambda: self._async.stats)


def _in_threads(count: int) -> Callable[..., Awaitable[object]]:
    """Return what calls functions in `count` threads at most; a call that is cancelled is not waited for."""
    limiter: anyio.CapacityLimiter | None = None

    async def call(function: Callable[..., object], *args: Any) -> object:
        nonlocal limiter
        limiter = limiter or anyio.CapacityLimiter(count)
        return await anyio.to_thread.run_sync(_contained, function, *args, abandon_on_cancel=True, limiter=limiter)

    return call


def _contained(function: Callable[..., object], *args: Any) -> object:
    """Call a function; what is no `Exception` becomes one, for nothing else may come to the loop from another thread."""
    try:
        return function(*args)
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(f"a handler raised {type(error).__name__}") from error


class FeedQueue(Generic[E]):
    """A queue behind a feed. `get()`, or iterate it; an iteration notes each event as done when it asks for the next.

    Several may iterate one queue and share its events. A queue that nobody holds any more leaves its feed.
    """

    def __init__(self, nex: Client, behind: feed.FeedQueue[Any], seen: Callable[[Client, Any], Any]) -> None:
        self._nex = nex
        self._async = behind
        self._seen = seen

    def get(self, *, timeout: float | None = None) -> E:
        """Return the next event, waiting for it at most `timeout` seconds, by default for as long as it takes.

        Raises `FeedClosed` after the last, or the error the feed ended with; `DeadlineExceeded`, which is a `TimeoutError`,
        when no event came in time. On a feed with a checkpoint, call `done(event)` when you have dealt with it.
        """
        event: E = self._seen(self._nex, self._nex._call(lambda: _within(timeout, self._async)))
        return event

    def done(self, *events: E) -> None:
        """Note that events were dealt with, and need not come again after a crash; many cost a checkpoint one write."""
        self._nex._call(lambda: self._async.done(*events))

    def qsize(self) -> int:
        """Return how many events wait."""
        return self._nex._on_loop(self._async.qsize)

    @property
    def dropped(self) -> int:
        """How many events the overflow policy has dropped."""
        return self._async.dropped

    def __iter__(self) -> Generator[E, None, None]:
        iteration = aiter(self._async)
        while given := self._nex._call(lambda: following(iteration)):
            yield self._seen(self._nex, given[0])

    def close(self) -> None:
        """Take this queue off its feed; what is in it can still be read."""
        self._nex._on_loop(self._async.close)


async def _within(timeout: float | None, queue: feed.FeedQueue[Any]) -> Any:
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0):
        raise InvalidRequestError(f"timeout must be a number of seconds, not {timeout!r}", argument="timeout")
    with anyio.move_on_after(timeout):
        return await queue.get()
    raise DeadlineExceeded(f"no event came within {timeout} seconds")


class InsightFeed(Feed[InsightEvent]):
    """Every insight once: from the stream as soon as it comes, from the list where the stream did not bring it.

    ``with nex.insights.stream() as feed: for event in feed: ...`` yields an `InsightEvent` for each. Opening waits for the
    stream, at most 60 seconds or `timeout=`, and raises what the server refuses it with. From then on lost connections are
    made anew by themselves; only 400, 401, 403, 404, 410 and a reply that is no event stream end the feed.
    `feed.queue()` and `feed.on(kind)` give others the same insights; kinds are `insight` and those of the signals:
    `connected`, `replayed`, `reconnecting`, `gap`, `degraded`, `recovered`, `closed`, `unknown`, or `*` for all.

    What is promised is what `nex_async.InsightFeed` promises. With `checkpoint=`, an insight counts as delivered when the
    loop asks for the next one, its handler has returned, or after `event.ack()`.
    """

    def __init__(self, nex: Client, behind: insights.InsightFeed) -> None:
        super().__init__(nex, behind, _seen)

    def __enter__(self) -> InsightFeed:
        super().__enter__()
        return self

    @overload
    def queue(
        self,
        maxsize: int = 1000,
        overflow: Overflow = "block",
        *,
        where: Callable[[InsightEvent], bool] | None = None,
        types: Collection[str] | None = None,
        min_confidence: float | None = None,
        signals: Literal[False] = False,
    ) -> FeedQueue[InsightEvent]: ...
    @overload
    def queue(
        self,
        maxsize: int = 1000,
        overflow: Overflow = "block",
        *,
        where: Callable[[InsightEvent], bool] | None = None,
        types: Collection[str] | None = None,
        min_confidence: float | None = None,
        signals: Literal[True],
    ) -> FeedQueue[InsightEvent | Signal]: ...
    @overload
    def queue(
        self,
        maxsize: int = 1000,
        overflow: Overflow = "block",
        *,
        where: Callable[[InsightEvent], bool] | None = None,
        types: Collection[str] | None = None,
        min_confidence: float | None = None,
        signals: bool,
    ) -> FeedQueue[Any]: ...
    def queue(
        self,
        maxsize: int = 1000,
        overflow: Overflow = "block",
        *,
        where: Callable[[InsightEvent], bool] | None = None,
        types: Collection[str] | None = None,
        min_confidence: float | None = None,
        signals: bool = False,
    ) -> FeedQueue[Any]:
        """Return a queue that gets every insight from now on; with `signals`, what the feed tells of itself too.

        `types`, `min_confidence` and `where` choose insights; one whose confidence the API does not tell is chosen.
        `maxsize` bounds the queue. When it is full, `overflow` says what happens: `block` holds the feed back, others for
        30 seconds only, after which this reader goes on at a pace of its own; `drop_oldest` and `drop_newest` lose insights
        and count them; `raise` ends the queue with `FeedOverflow`.
        With a checkpoint only `block` is possible: what waits, waits in the file, and signals come before it.
        """
        where = self._filter(where)
        return self._queue(maxsize, overflow, where=where, types=types, min_confidence=min_confidence, signals=signals)

    @overload
    def on(
        self,
        kind: str,
        handler: None = None,
        *,
        concurrency: int = 1,
        on_error: OnError = "stop",
        where: Callable[[Any], bool] | None = None,
        maxsize: int = 1000,
        types: Collection[str] | None = None,
        min_confidence: float | None = None,
    ) -> Callable[[H], H]: ...
    @overload
    def on(
        self,
        kind: str,
        handler: H,
        *,
        concurrency: int = 1,
        on_error: OnError = "stop",
        where: Callable[[Any], bool] | None = None,
        maxsize: int = 1000,
        types: Collection[str] | None = None,
        min_confidence: float | None = None,
    ) -> H: ...
    def on(
        self,
        kind: str,
        handler: Handler | None = None,
        *,
        concurrency: int = 1,
        on_error: OnError = "stop",
        where: Callable[[Any], bool] | None = None,
        maxsize: int = 1000,
        types: Collection[str] | None = None,
        min_confidence: float | None = None,
    ) -> Any:
        """Register a handler; see `Feed.on`. `types` and `min_confidence` choose insights."""
        chosen = {"maxsize": maxsize, "types": types, "min_confidence": min_confidence}
        return self._on(kind, handler, concurrency, on_error, where=self._filter(where), **chosen)

    @property
    def stats(self) -> InsightStats:
        """How the feed and its consumers stand."""
        stats = super().stats
        assert isinstance(stats, InsightStats)
        return stats
