"""InsightFeed: the insights of a workspace as they come, none lost and none twice, as far as the API allows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar, cast, overload

import anyio

from ..errors import DeadlineExceeded, GapError, InvalidRequestError, NexError
from ..routes import STREAM_INSIGHTS
from ..transport import wire
from ..transport.call import describe
from ..transport.options import RequestOptions, Settings
from ..transport.sender import Sender
from .checkpoint import Checkpoint, Cursor
from .delivery import Mode, Start
from .engine import Engine
from .events import Gap, InsightEvent, Signal
from .feed import Buffer, Consumer, Feed, FeedQueue, FeedStats, Handler, OnError, Overflow, Wants, both
from .hub import Hub

__all__ = ["InsightFeed", "InsightStats", "OnGap"]

OnGap: TypeAlias = Literal["signal", "raise"]
Where: TypeAlias = "Callable[[InsightEvent], bool] | None"
KINDS = ("insight", "connected", "replayed", "reconnecting", "gap", "degraded", "recovered", "closed", "unknown", "*")
_REQUEST = wire.build(STREAM_INSIGHTS)
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True)
class InsightStats(FeedStats):
    """How an insight feed stands.

    `lag` is the longest line of events that wait for a reader; `live`, `replayed`, `backfilled` count insights by source,
    `duplicates` and `ambiguous` what the stream brought and was not handed out at once, `unbound` early deliveries that the
    list does not show yet. `delay` is the age in seconds of the newest insight when it was handed out, `silence` the seconds
    since the last byte of the stream. `degraded` names what does not work at present.
    """

    connected: bool
    reconnects: int
    silence: float | None
    delay: float | None
    live: int
    replayed: int
    backfilled: int
    redelivered: int
    duplicates: int
    ambiguous: int
    unbound: int
    sweeps: int
    splits: int
    requests: int
    gaps: int
    undecodable: int
    unknown: int
    oversize: int
    degraded: tuple[str, ...]


class InsightFeed(Feed[InsightEvent]):
    """Every insight once: from the stream as soon as it comes, from the list where the stream did not bring it.

    ``async with nex.insights.stream() as feed: async for event in feed: ...`` yields an `InsightEvent` for each. Opening
    waits for the stream, at most 60 seconds or `timeout=`, and raises what the server refuses it with. From then on lost
    connections are made anew by themselves; only 400, 401, 403, 404, 410 and a reply that is no event stream end the feed.
    `feed.queue()` and `feed.on(kind)` give others the same insights; kinds are `insight` and those of the signals:
    `connected`, `replayed`, `reconnecting`, `gap`, `degraded`, `recovered`, `closed`, `unknown`, or `*` for all.

    What is promised:

    1. At least once. Every insight that `GET /v1/insights` shows within 150 seconds of its creation (two hours, thanks to
       deeper sweeps every half hour), and that still exists when a sweep runs, is delivered, across disconnects, restarts
       and kill -9, or lies inside a `Gap`.
    2. No duplicates within the life of a process. After a crash, what was being handled may come again, with
       `redelivered=True`: one insight, or as many as are handled at a time. Of two identical texts the count is exact;
       which copy is which cannot be known.
    3. Order: within a sweep by creation, within a batch as the server sent it; across both, as things arrive.
    4. Latency: usually well below a second; 66 seconds plus the time of a request while the API can be read.
    5. Not promised: insights that are deleted or merged before they were read, edits of their text, what is older than the
       server keeps, and that what you do with an insight happens exactly once (use `event.key` to make it so).
    6. Without a checkpoint, 1 and 2 hold for the life of the feed.

    With `checkpoint=`, an insight counts as delivered when the loop asks for the next one, its handler has returned, or
    after `await event.ack()`.
    """

    def __init__(
        self,
        sender: Sender,
        options: RequestOptions,
        *,
        mode: Mode = "fast",
        start: Start = "replay",
        checkpoint: str | os.PathLike[str] | None = None,
        wants: Wants = None,
        on_gap: OnGap = "signal",
    ) -> None:
        self._entrance = _Entrance(sender, options, mode, start, checkpoint)
        super().__init__(self._entrance, wants=both(_is_insight, wants))
        self._chosen = wants
        self._open_feeds = sender.state.feeds
        self._watches.append(_Watch(self._consumers, ends_at_gap=on_gap == "raise"))

    def _start(self) -> None:
        is_open = self._open
        super()._start()
        if not is_open:
            self._open_feeds[id(self)] = self

    def _detach(self) -> None:
        super()._detach()
        self._open_feeds.pop(id(self), None)

    async def __aenter__(self) -> InsightFeed:
        seconds = self._entrance.settings.seconds_left("stream")
        try:
            with anyio.fail_after(seconds):
                await self._begin()
        except TimeoutError as error:
            if isinstance(error, NexError):
                raise
            await self._source.released()  # inside the deadline it could not be waited for
            late = DeadlineExceeded("the deadline passed before the stream was open", sent="maybe")
            raise describe(late, STREAM_INSIGHTS, _REQUEST) from self._entrance.last_error
        return self

    @overload
    def queue(
        self,
        maxsize: int = 1000,
        overflow: Overflow = "block",
        *,
        where: Where = None,
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
        where: Where = None,
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
        where: Where = None,
        types: Collection[str] | None = None,
        min_confidence: float | None = None,
        signals: bool,
    ) -> FeedQueue[Any]: ...
    def queue(
        self,
        maxsize: int = 1000,
        overflow: Overflow = "block",
        *,
        where: Where = None,
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
        wants = both(self._wants, insight_filter(types, min_confidence, where))
        return FeedQueue(self, self._consumer(maxsize, overflow, _or_signal(wants) if signals else wants))

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
        if kind not in KINDS:
            raise InvalidRequestError(f"kind must be one of {', '.join(KINDS)}", argument="kind")
        chosen = insight_filter(types, min_confidence, where)
        chosen = both(_or_signal(self._chosen), chosen)
        options: dict[str, Any] = {"concurrency": concurrency, "on_error": on_error, "where": chosen, "maxsize": maxsize}
        return super().on(kind, handler, **options)

    @property
    def stats(self) -> InsightStats:
        """How the feed and its consumers stand."""
        figures: dict[str, Any] = {**self._entrance.figures(), **self._counts()}
        return InsightStats(**figures)


class _Entrance:
    """Finds the engine behind a feed once there is an event loop: one that others use too, where it can be shared."""

    def __init__(
        self,
        sender: Sender,
        options: RequestOptions,
        mode: Mode,
        start: Start,
        checkpoint: str | os.PathLike[str] | None,
    ) -> None:
        self.settings: Settings = sender.settings.merged(options) if options else sender.settings
        self._sender = sender
        self._options = options
        self._mode: Mode = mode
        self._start: Start = start
        self._checkpoint = None if checkpoint is None else Checkpoint(os.fspath(checkpoint))
        self._engine: Engine | None = None

    def consumer(self, maxsize: int, overflow: Overflow, wants: Wants) -> Consumer[Any]:
        """Return a new consumer; see `Source`."""
        if self._checkpoint is None:
            return Buffer(maxsize, overflow, wants, self._sender.state.counts)
        if overflow != "block":
            raise InvalidRequestError(
                "a feed with a checkpoint loses nothing: overflow must be 'block'", argument="overflow"
            )
        return Cursor(self._checkpoint, wants)

    def attach(self, consumer: Consumer[Any], *, late: bool = False) -> None:
        """Attach a consumer to the engine; see `Source`."""
        if self._engine is None:
            self._engine = self._find()
        self._engine.attach(consumer, late=late)

    def _find(self) -> Engine:
        sender, settings = self._sender, self._sender.settings
        state = sender.state
        sender.bind()
        loop = asyncio.get_running_loop()
        # `timeout=` is for the opening alone; feeds with other settings, or headers of their own, do not share.
        options = cast("RequestOptions", {name: value for name, value in self._options.items() if name != "timeout"})
        place = (
            id(loop),
            repr(settings.timeouts),
            repr(settings.policy),
            repr(sorted((self.settings.headers or {}).items())),
        )
        hub: Hub | None = state.shared.get(("stream", place))
        if hub is None or hub.loop is not loop:
            hub = state.shared["stream", place] = Hub(sender, settings.merged(options) if options else settings)
        name = ("insights", place, self._mode, self._start, repr(sorted(options.items())))
        if self._checkpoint is not None or isinstance(self._start, datetime):
            return Engine(hub, self._mode, self._start, self._checkpoint, options)
        engine: Engine | None = state.shared.get(name)
        if engine is None or engine.hub is not hub:
            engine = state.shared[name] = Engine(hub, self._mode, self._start, None, options)
        return engine

    def detach(self, consumer: Consumer[Any]) -> None:
        """Detach a consumer; see `Source`."""
        if consumer.owner is not None:
            consumer.owner.detach(consumer)

    async def opened(self) -> None:
        """Wait until the stream stands; see `Source`."""
        if self._engine is not None:
            await self._engine.opened()

    async def released(self) -> None:
        """Wait until everything is over that ended; see `Source`."""
        if self._engine is not None:
            await self._engine.released()

    def kind_of(self, event: InsightEvent | Signal) -> str:
        """Return `insight`, or the kind of signal."""
        return event.kind

    @property
    def last_error(self) -> NexError | None:
        """Why the stream did not open."""
        return None if self._engine is None else self._engine.hub.last_error

    def figures(self) -> dict[str, Any]:
        """Return the engine's share of the statistics."""
        return _NOTHING if self._engine is None else self._engine.figures()


_NOTHING: dict[str, Any] = {
    **dict.fromkeys(InsightStats.__slots__, 0),
    "connected": False,
    "silence": None,
    "delay": None,
    "degraded": (),
}


class _Watch(Consumer[Any]):
    """Looks on for as long as its feed is open, so that the feed lives also while nobody reads; may end it at a gap."""

    def __init__(self, consumers: list[Consumer[Any]], *, ends_at_gap: bool) -> None:
        super().__init__()
        self._others = consumers
        self._ends_at_gap = ends_at_gap

    @property
    def lag(self) -> int:
        """Nothing waits here."""
        return 0

    def adopt(self, held: Consumer[Any]) -> None:
        """Do nothing: nothing is kept."""

    def offer(self, event: InsightEvent | Signal) -> None:
        """End the others at a gap, if that was asked for."""
        if self._ends_at_gap and isinstance(event, Gap):
            text = f"insights between {event.start} and {event.end} may be missing ({event.reason})"
            for consumer in self._others:
                consumer.end(GapError(text, event))

    async def take(self) -> Any:
        """Wait for the end."""
        while True:
            await self._wait()


def _is_insight(event: Any) -> bool:
    return isinstance(event, InsightEvent)


def _or_signal(wants: Wants) -> Wants:
    """Return a filter that chooses insights as `wants` does, and passes every signal."""
    return wants and (lambda event: not isinstance(event, InsightEvent) or wants(event))


def insight_filter(types: Collection[str] | None, min_confidence: float | None, where: Where) -> Wants:
    """Return what these choose of the insights; None chooses all. Raises `InvalidRequestError`."""
    if isinstance(types, str):
        raise InvalidRequestError("types must be a collection of strings, not one string", argument="types")
    if min_confidence is not None and not (isinstance(min_confidence, (int, float)) and 0 <= min_confidence <= 1):
        raise InvalidRequestError("min_confidence must be a number from 0 to 1", argument="min_confidence")
    if types is None and min_confidence is None:
        return where
    chosen = None if types is None else frozenset(types)

    def wants(event: Any) -> bool:
        if isinstance(event, InsightEvent):
            insight = event.insight
            if chosen is not None and insight.type not in chosen:
                return False
            if min_confidence is not None and insight.confidence is not None and insight.confidence < min_confidence:
                return False
        return where is None or where(event)

    return wants
