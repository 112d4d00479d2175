"""Feed: one source, any number of consumers; iterate it, put queues behind it, or register handlers.

Each consumer has a bound of its own, and says what happens when it is reached. What it asks of its source is `Source`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar, overload

from .._logfields import fields_of
from ..errors import ClientLoopError, FeedClosed, FeedOverflow, InvalidRequestError, NexError

if TYPE_CHECKING:
    from ..transport.counts import Counts

__all__ = ["Buffer", "Consumer", "Feed", "FeedQueue", "FeedStats", "Overflow", "Source", "again", "both"]

_log = logging.getLogger("nex_async.feeds")

E = TypeVar("E")
H = TypeVar("H", bound="Callable[[Any], object]")

Overflow: TypeAlias = Literal["block", "drop_oldest", "drop_newest", "raise"]
Wants: TypeAlias = "Callable[[Any], bool] | None"
OnError: TypeAlias = "Literal['stop', 'log'] | Callable[[Any, Exception], object]"
Handler: TypeAlias = "Callable[[Any], object]"
_OVERFLOWS = ("block", "drop_oldest", "drop_newest", "raise")


class Owner(Protocol):
    """What feeds a consumer, and holds back for one that is full."""

    def detach(self, consumer: Consumer[Any]) -> None:
        """Stop offering."""

    def has_room(self, consumer: Consumer[Any]) -> None:
        """Learn that a reader that was full is no more."""


class Consumer(ABC, Generic[E]):
    """One reader of a feed. The source offers; the reader takes, and says when it is done with what it took."""

    def __init__(self) -> None:
        self.delivered: int = 0
        self.dropped: int = 0
        self.owner: Owner | None = None
        """What feeds it now, where that is to know of its room."""
        self.ended: bool = False
        self.error: Exception | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    @abstractmethod
    def lag(self) -> int:
        """How many events wait to be taken."""

    @abstractmethod
    def adopt(self, held: Consumer[E]) -> None:
        """Take over, for this reader, what was held for the first."""

    def retire(self) -> None:
        """Leave for good: what waits for this reader alone need not be kept."""

    @abstractmethod
    def offer(self, event: E) -> None:
        """Give it an event. Never waits, never raises."""

    @abstractmethod
    async def take(self) -> E:
        """Return the next event, waiting for it. Raises `FeedClosed` after the last, or the error the source ended with."""

    def passed(self, event: E) -> None:
        """Note that an event was dealt with; a checkpoint may learn of it only with the next event."""

    async def done(self, event: E) -> None:
        """Note that an event was dealt with; a checkpoint knows it when this returns."""

    def end(self, error: Exception | None) -> None:
        """Offer nothing more: whoever waits for more learns of the end."""
        if not self.ended:
            self.ended, self.error = True, error
            self.wake(everybody=True)

    def wake(self, *, everybody: bool = False) -> None:
        """Let one of those look who wait for more, or all of them."""
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if not everybody:
                    return

    async def _wait(self) -> None:
        """Wait to be woken. Raises what ends the reading, once nothing more will come."""
        if self.ended:
            raise self._ending()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.wake()  # it was meant for somebody who still waits
            else:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
            raise

    def _ending(self) -> Exception:
        return FeedClosed("the feed has ended") if self.error is None else again(self.error)


class Buffer(Consumer[E]):
    """A reader's events in memory, up to a bound."""

    delivered: int
    dropped: int

    def __init__(self, maxsize: int, overflow: Overflow, wants: Wants, counts: Counts | None = None) -> None:
        super().__init__()
        self._counts = counts
        self.events: deque[E] = deque()
        self.maxsize = maxsize
        self.overflow: Overflow = overflow
        self.wants = wants

    def adopt(self, held: Consumer[E]) -> None:
        """Take over what was held; see `Consumer`."""
        if isinstance(held, Buffer):
            for event in held.events:
                self._keep(event)
        if held.ended:
            self.end(held.error)

    @property
    def lag(self) -> int:
        """How many events wait to be taken."""
        return len(self.events)

    @property
    def full(self) -> bool:
        """Whether the source should hold back until some were taken."""
        return len(self.events) >= self.maxsize and self.overflow == "block"

    def offer(self, event: E) -> None:
        """Keep an event for the reader, as its overflow policy says. `block` may exceed the bound by what is under way."""
        if not self.ended:
            if self.wants is None and len(self.events) < self.maxsize:
                self.events.append(event)
            else:
                self._keep(event)
            if self._waiters:
                self.wake()

    def _keep(self, event: E) -> None:
        if self.wants is not None:
            try:
                if not self.wants(event):
                    return
            except Exception as error:  # the reader's own filter ends the reader, and nobody else
                self.end(error)
                return
        if len(self.events) >= self.maxsize and self.overflow != "block":
            self.dropped += 1
            if self._counts is not None:
                self._counts.dropped += 1
            if self.overflow == "drop_newest":
                return
            if self.overflow == "raise":
                self.end(FeedOverflow(f"the reader fell more than {self.maxsize} events behind"))
                return
            self.events.popleft()
        self.events.append(event)

    async def take(self) -> E:
        """Return the next event; see `Consumer`."""
        while not self.events:
            await self._wait()
        event = self.events.popleft()
        self.delivered += 1
        if self.owner is not None and len(self.events) == self.maxsize - 1:
            self.owner.has_room(self)
        return event


class Source(Protocol[E]):
    """What a feed needs of where its events come from."""

    def consumer(self, maxsize: int, overflow: Overflow, wants: Wants) -> Consumer[E]:
        """Return a new consumer, not yet attached."""
        ...

    def attach(self, consumer: Consumer[E], *, late: bool = False) -> None:
        """Begin to offer events, in the running loop; the first consumer starts the source.

        One that comes late, after its feed was opened, is offered what comes from now on.
        """

    def detach(self, consumer: Consumer[E]) -> None:
        """Stop offering; the source ends with its last consumer. May be called more than once."""

    async def opened(self) -> None:
        """Wait until the source stands. Raises what keeps it from standing."""

    async def released(self) -> None:
        """Wait until everything that `detach` ended is over."""

    def kind_of(self, event: E) -> str:
        """Return the kind of an event, by which handlers are chosen."""
        ...


@dataclass(frozen=True, slots=True)
class FeedStats:
    """How the consumers of a feed stand. `lag` is the longest line of events that wait for a reader."""

    consumers: int
    lag: int
    delivered: int
    dropped: int


@dataclass(frozen=True, slots=True)
class _Registered:
    call: Callable[[Any], object]
    consumer: Consumer[Any]
    concurrency: int
    on_error: OnError


class Feed(Generic[E]):
    """What keeps coming, for any number of consumers.

    ``async for event in feed`` reads it, ``feed.queue()`` puts a queue behind it, ``@feed.on(kind)`` registers a handler for
    `feed.run()`. Use ``async with feed:`` or end it with `await feed.aclose()`. What comes before the first consumer is
    there waits for it, up to a bound of 1 000.
    """

    def __init__(self, source: Source[E], *, wants: Wants = None) -> None:
        self._source = source
        self._wants = wants
        self._consumers: list[Consumer[E]] = []
        self._watches: list[Consumer[E]] = []
        """Those that only look on; their presence keeps the source alive."""
        self._handlers: list[_Registered] = []
        self._held: Consumer[E] | None = None
        self._reader: Consumer[E] | None = None
        self._open = False
        self._stopped = asyncio.Event()
        self._reading = False
        self._last: E | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._closers: set[asyncio.Task[Any] | None] = set()
        self._cutting = False
        self._loops: list[asyncio.AbstractEventLoop] = []
        weakref.finalize(self, _let_go, source, self._consumers, self._loops).atexit = False
        weakref.finalize(self, _let_go, source, self._watches, self._loops).atexit = False

    # ---- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Feed[E]:
        await self._begin()
        return self

    async def _begin(self) -> None:
        """Open, and wait until the source stands."""
        self._start()
        try:
            await self._source.opened()
        except BaseException:
            self.stop()
            self._detach()
            await self._source.released()
            raise

    def _start(self) -> None:
        if self.closed:
            raise FeedClosed("the feed was closed")
        loop = asyncio.get_running_loop()
        if self._open:
            if loop is not self._loops[0]:
                raise ClientLoopError("the feed was opened in another event loop; make a new one")
            return
        self._loops.append(loop)
        if not self._consumers:
            self._held = self._source.consumer(1000, "block", None)
            self._consumers.append(self._held)
        for consumer in (*self._watches, *self._consumers):
            self._source.attach(consumer)
        self._open = True

    async def __aexit__(self, kind: object, *exc: object) -> None:
        await self.aclose(drain=5.0 if kind is None else 0.0)

    def stop(self) -> None:
        """Take no more events. `run()` returns once what was taken is handled; iterations end after what is buffered."""
        self._stopped.set()
        for consumer in (*self._consumers, *self._watches):
            consumer.end(None)

    def _detach(self) -> None:
        """Let go of the source; not before the last handler is done, for it may have something to acknowledge."""
        for consumer in (*self._consumers, *self._watches):
            self._source.detach(consumer)

    async def aclose(self, *, drain: float = 5.0) -> None:
        """Close the feed. Idempotent. Handlers get `drain` seconds to finish what was taken, then are cancelled."""
        self.stop()
        self._closers.add(asyncio.current_task())
        workers = [worker for worker in self._workers if worker not in self._closers]
        if workers:
            _, left = await asyncio.wait(workers, timeout=drain)
            self._cut(left)
            await _over(workers)
        self._detach()
        await self._source.released()

    def _cut(self, workers: Iterable[asyncio.Task[None]]) -> None:
        self._cutting = True
        for worker in workers:
            worker.cancel()

    # ---- consumers --------------------------------------------------------------------------------------------------

    def queue(
        self, maxsize: int = 1000, overflow: Overflow = "block", *, where: Callable[[E], bool] | None = None
    ) -> FeedQueue[E]:
        """Return a queue that gets every event from now on for which `where` holds.

        `maxsize` bounds it. When it is full, `overflow` says what happens: `block` holds the source back, for others only
        for a while; `drop_oldest` and `drop_newest` lose events and count them; `raise` ends the queue with `FeedOverflow`.
        """
        return FeedQueue(self, self._consumer(maxsize, overflow, both(self._wants, where)))

    def _consumer(self, maxsize: int, overflow: Overflow, wants: Wants) -> Consumer[E]:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1:
            raise InvalidRequestError(f"maxsize must be a positive integer, not {maxsize!r}", argument="maxsize")
        if overflow not in _OVERFLOWS:
            raise InvalidRequestError(f"overflow must be one of {', '.join(_OVERFLOWS)}", argument="overflow")
        held = self._held
        if self.closed and held is None:
            raise FeedClosed("the feed was closed")
        consumer = self._source.consumer(maxsize, overflow, wants)
        self._consumers.append(consumer)
        if self._open and not self.closed:
            self._source.attach(consumer, late=True)
        if held is not None:
            consumer.adopt(held)
        return consumer

    def _begun(self) -> None:
        """Hold nothing any more for those who come later: somebody reads."""
        held, self._held = self._held, None
        if held is not None:
            self._leave(held)

    def _leave(self, consumer: Consumer[E]) -> None:
        consumer.retire()
        self._source.detach(consumer)
        if consumer in self._consumers:
            self._consumers.remove(consumer)

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

        `handler` is a function of one event, async or not; one that is not runs on the event loop, and must not block.
        `concurrency` bounds how many events are handled at a time; 1 keeps their order. When it raises, `on_error` says what
        happens: `stop` ends `run()` with the error, `log` logs it and goes on, and a function of the event and the error
        (async or not: your dead letters) is called instead. `maxsize` bounds what waits for the handler.
        """
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise InvalidRequestError("concurrency must be a positive integer", argument="concurrency")
        if not (on_error in ("stop", "log") or callable(on_error)):
            raise InvalidRequestError("on_error must be 'stop', 'log' or a function", argument="on_error")

        def register(call: Handler) -> Handler:
            if not callable(call):
                raise InvalidRequestError("a handler must be callable", argument="handler")
            if self._workers:
                raise InvalidRequestError("the feed runs already; register handlers before", argument="handler")
            consumer = self._consumer(maxsize, "block", self._of_kind(kind, where))
            self._handlers.append(_Registered(call, consumer, concurrency, on_error))
            return call

        return register if handler is None else register(handler)

    def _of_kind(self, kind: str, where: Callable[[E], bool] | None) -> Wants:
        kind_of = self._source.kind_of

        def wants(event: E) -> bool:
            return (kind in ("*", kind_of(event))) and (where is None or where(event))

        return wants

    # ---- reading ----------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Feed[E]:
        return self

    async def __anext__(self) -> E:
        reader = self._reader
        if reader is None:
            if self.closed and self._held is None:
                raise StopAsyncIteration
            if not self.closed:
                self._start()
            reader = self._reader = self._consumer(1000, "block", self._wants)
        self._begun()
        if self._reading:
            raise InvalidRequestError("the feed is being iterated elsewhere; give every reader a feed.queue() of its own")
        self._reading = True
        try:
            last, self._last = self._last, None
            if last is not None:
                reader.passed(last)
            event = self._last = await reader.take()
            return event
        except FeedClosed:
            raise StopAsyncIteration from None
        finally:
            self._reading = False

    @property
    def closed(self) -> bool:
        """Whether the feed takes nothing more."""
        return self._stopped.is_set()

    async def stopped(self) -> None:
        """Wait until the feed was told to take nothing more, by `stop()` or `aclose()`."""
        await self._stopped.wait()

    async def run(self) -> None:
        """Call the handlers until the feed ends, is stopped, or a handler fails whose policy is `stop`.

        Raises what ended it: the source's error, or the handler's.
        """
        if not self._handlers:
            raise InvalidRequestError("no handler is registered; use feed.on(kind, handler)", argument="handler")
        if self._workers:
            raise InvalidRequestError("the feed runs already", argument="run")
        loop = asyncio.get_running_loop()
        try:
            self._start()
            self._begun()
            self._workers = [loop.create_task(self._work(each)) for each in self._handlers for _ in range(each.concurrency)]
            done, _ = await asyncio.wait(self._workers, return_when=asyncio.FIRST_EXCEPTION)
            for worker in done:
                if not worker.cancelled():
                    worker.result()
        finally:
            self.stop()
            self._cut(self._workers)
            await _over(self._workers)
            self._workers = []
            self._detach()
            await self._source.released()

    async def _work(self, handler: _Registered) -> None:
        consumer = handler.consumer
        while True:
            try:
                event = await consumer.take()
            except FeedClosed:
                return
            try:
                await _call(handler.call, event)
            except asyncio.CancelledError as cancelled:
                if self._cutting:
                    raise
                # Something the handler waited for was cancelled, not the handler: that is a failure like any other.
                error = RuntimeError("a handler was cancelled by what it waited for")
                error.__cause__ = cancelled
                await self._failed(handler, event, error)
            except Exception as error:
                await self._failed(handler, event, error)
            consumer.passed(event)

    async def _failed(self, handler: _Registered, event: E, error: Exception) -> None:
        if handler.on_error == "stop":
            raise error
        if callable(handler.on_error):
            await _call(handler.on_error, event, error)
        else:
            template = "a handler failed (%s); the feed goes on"
            _log.error(template, type(error).__name__, exc_info=error, extra=fields_of(error))

    @property
    def stats(self) -> FeedStats:
        """How the consumers stand."""
        return FeedStats(**self._counts())

    def _counts(self) -> dict[str, int]:
        found = self._consumers
        return {
            "consumers": len(found),
            "lag": max((consumer.lag for consumer in found), default=0),
            "delivered": sum(consumer.delivered for consumer in found),
            "dropped": sum(consumer.dropped for consumer in found),
        }


class FeedQueue(Generic[E]):
    """A queue behind a feed. `get()`, or iterate it; an iteration notes each event as done when it asks for the next.

    Several may iterate one queue and share its events. A queue that nobody holds any more leaves its feed.
    """

    def __init__(self, feed: Feed[E], consumer: Consumer[E]) -> None:
        self._feed = feed
        self._consumer = consumer
        weakref.finalize(self, _let_go, feed._source, [consumer], feed._loops).atexit = False

    async def get(self) -> E:
        """Return the next event. Raises `FeedClosed` after the last, or the error the feed ended with.

        On a feed with a checkpoint, call `done(event)` when you have dealt with it.
        """
        if not self._feed.closed:
            self._feed._start()
        self._feed._begun()
        return await self._consumer.take()

    async def done(self, *events: E) -> None:
        """Note that events were dealt with, and need not come again after a crash; many cost a checkpoint one write."""
        for event in events[:-1]:
            self._consumer.passed(event)
        if events:
            await self._consumer.done(events[-1])

    def qsize(self) -> int:
        """Return how many events wait."""
        return self._consumer.lag

    @property
    def dropped(self) -> int:
        """How many events the overflow policy has dropped."""
        return self._consumer.dropped

    def __aiter__(self) -> AsyncIterator[E]:
        return _Iteration(self, self._consumer)

    def close(self) -> None:
        """Take this queue off its feed; what is in it can still be read."""
        self._feed._leave(self._consumer)
        self._consumer.end(None)


class _Iteration(Generic[E]):
    """One iteration over a queue: it knows which event it has handed out last."""

    def __init__(self, queue: FeedQueue[E], consumer: Consumer[E]) -> None:
        self._queue = queue
        self._consumer = consumer
        self._last: E | None = None

    def __aiter__(self) -> _Iteration[E]:
        return self

    async def __anext__(self) -> E:
        last, self._last = self._last, None
        try:
            if last is None:
                event = await self._queue.get()
            else:
                self._consumer.passed(last)
                event = await self._consumer.take()
        except FeedClosed:
            raise StopAsyncIteration from None
        self._last = event
        return event


def again(error: Exception) -> Exception:
    """Return a copy of an error to raise: everybody who meets it gets one of his own. One not of ours is left as it is."""
    if not isinstance(error, NexError):
        return error
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied


def both(one: Wants, other: Wants) -> Wants:
    """Return a filter that passes what both pass; None passes everything."""
    if one is None or other is None:
        return one or other
    return lambda event: one(event) and other(event)


def _let_go(source: Source[Any], consumers: list[Consumer[Any]], loops: list[asyncio.AbstractEventLoop]) -> None:
    """Detach the consumers of a feed that nobody holds any more, in its loop: the collector comes in mid-anything."""

    def detach() -> None:
        for consumer in consumers:
            source.detach(consumer)

    for loop in loops:
        with contextlib.suppress(RuntimeError):  # the loop was closed, and everything on it is gone
            loop.call_soon_threadsafe(detach)


async def _call(function: Callable[..., object], *arguments: object) -> None:
    result = function(*arguments)
    if isawaitable(result):
        await result


async def _over(tasks: list[asyncio.Task[None]]) -> None:
    """Wait until tasks are over, and take note of what they ended with."""
    if tasks:
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()
