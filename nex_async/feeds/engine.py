"""The engine behind insight feeds: it listens to the stream, sweeps the list, and hands out what the ledger calls new.

Correctness comes from the sweeps: repeated, overlapping, complete reads of the list. The stream makes it quick.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar

from ..errors import APIError, ClientClosed, DecodeError, FeedClosed, NexError, StorageError, TenantMismatch
from ..models.insights import InsightBatch, InsightWorkspace, decode_insights
from ..transport.options import RequestOptions, outer_deadline
from ..transport.state import running_loop
from ..transport.wire import Query
from .checkpoint import Checkpoint, Cursor
from .events import (
    Closed,
    Connected,
    Gap,
    GapReason,
    InsightEvent,
    InsightSource,
    Reconnecting,
    Replayed,
    Signal,
    UnknownEvent,
)
from .feed import Buffer, Consumer, Overflow, Wants
from .hub import Hub
from .ledger import OVERLAP, SECOND, Ledger, fingerprint
from .outlet import Outlet
from .sse import ServerSentEvent
from .timetable import Timetable
from .windows import LISTING, Row, Window, Windows, micros, moment_of

__all__ = ["Engine", "Mode", "Start"]

K = TypeVar("K")
V = TypeVar("V")

_log = logging.getLogger("nex_async.feeds")

Mode: TypeAlias = Literal["fast", "exact"]
Start: TypeAlias = Literal["now", "replay"] | datetime

SWEEP_AFTER_CONNECT = (0.0, 5.0)
"""At once for what was missed, and once more for what fell between the replay and the subscription."""
SWEEP_WHEN_AMBIGUOUS = 0.5
SWEEP_WHEN_OWED = 0.1
_MOST_OWED_WAIT = 32.0
_UNPROVEN_WAIT = 5.0
"""So long the list is given to show an item before the two were ever seen to match."""
_WITHOUT_STREAM = 10.0
AHEAD = 5 * SECOND
"""A sweep reads a little beyond the server's present, in case its clocks differ."""
_FRESH = 10 * SECOND
_RETENTION = 3600 * SECOND
_TOO_OLD = (400, 410, 422)
_MAILBOX_EVENTS, _MAILBOX_BYTES = 20_000, 8 << 20
_MISSED, _ROTATE_EVERY = 2, 300.0
_POLITE_WAIT, _POLITE_WAITS = 0.2, 150


@dataclass(frozen=True, slots=True)
class _Owed:
    """What the stream brought and waits for the list: when it was emitted there, and since when it waits here."""

    event: InsightEvent
    emitted: int
    since: float


class Engine:
    """Decides what is new, for any number of consumers."""

    def __init__(self, hub: Hub, mode: Mode, start: Start, checkpoint: Checkpoint | None, options: RequestOptions) -> None:
        self.hub = hub
        self.mode: Mode = mode
        self.outlet: Outlet = Outlet(hub.loop, self._part_with)
        self.timetable: Timetable = Timetable(hub.loop)
        self.ledger: Ledger = Ledger()
        self.windows: Windows = Windows(self._fetch)
        self.checkpoint: Checkpoint | None = checkpoint
        self._start: Start = start
        self._options = options
        self._loop = hub.loop
        self._mailbox: deque[tuple[list[ServerSentEvent], int]] = deque()
        self._waiting_events = 0
        self._waiting_bytes = 0
        self._mail = asyncio.Event()
        self._standing: asyncio.Future[None] = self._loop.create_future()
        self._ended = False
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._forks: list[Engine] = []
        self._lost_at: int | None = None
        self._stood_first: int | None = None
        self._owed: dict[bytes, _Owed] = {}
        self._poison: dict[int, None] = {}
        self._owed_wait = 1.0
        self._looking_back: tuple[int, int] | None = None
        """A look-back that is not finished: when it was begun, and how far it came."""
        self._replay_due = False
        self._missed = 0
        self._rotated_at = -_ROTATE_EVERY

    # ---- its consumers ----------------------------------------------------------------------------------------------

    def consumer(self, maxsize: int, overflow: Overflow, wants: Wants) -> Consumer[Any]:
        """Return a new consumer, not yet attached."""
        return Buffer(maxsize, overflow, wants) if self.checkpoint is None else Cursor(self.checkpoint, wants)

    def attach(self, consumer: Consumer[Any]) -> None:
        """Offer events to a consumer; the first starts the engine."""
        consumer.owner = self
        self.outlet.consumers.append(consumer)
        if self.checkpoint is not None and isinstance(consumer, Cursor):
            self.checkpoint.join(consumer, late=bool(self._tasks))
        elif self._start == "replay":
            for event in self.outlet.latest:
                consumer.offer(InsightEvent(event.key, "replay", event.insight, event.workspace, event.emitted_at))
        if not self._tasks:
            self.hub.sender.state.owned.add(self)
            self._spawn(self._live())

    def detach(self, consumer: Consumer[Any]) -> None:
        """Offer nothing more to a consumer; the engine ends with the last."""
        if running_loop() is not self._loop:
            with contextlib.suppress(RuntimeError):  # its loop is closed, and everything on it is gone
                self._loop.call_soon_threadsafe(self.detach, consumer)
            return
        if consumer in self.outlet.consumers:
            self.outlet.remove(consumer)
            if not self.outlet.consumers:
                self._stop()

    def has_room(self, consumer: Consumer[Any]) -> None:
        """Learn that a reader that was full is no more."""
        self.outlet.freed()

    async def opened(self) -> None:
        """Wait until the stream stands for the first time. Raises what keeps it from standing for good."""
        await asyncio.shield(self._standing)

    async def released(self) -> None:
        """Wait until everything is over that ended with the last consumer."""
        if not self.outlet.consumers:
            await self.over()

    def kind_of(self, event: InsightEvent | Signal) -> str:
        """Return `insight`, or the kind of signal."""
        return event.kind

    def figures(self) -> dict[str, Any]:
        """Return what there is to tell of it, by the names of `InsightStats`."""
        connection, tally = self.hub.connection, self.outlet.tally
        last = connection.last_byte
        return {
            "connected": connection.standing,
            "silence": None if last is None else self._loop.time() - last,
            "redelivered": 0 if self.checkpoint is None else self.checkpoint.redelivered,
            "unbound": self.ledger.unbound,
            "splits": self.windows.splits,
            "requests": self.windows.requests,
            "degraded": frozenset(tally.degraded),
            **{name: getattr(tally, name) for name in _FIGURES},
        }

    # ---- its life ---------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._loop.create_task(work))

    async def _live(self) -> None:
        """Listen and sweep until the last consumer is gone."""
        outer_deadline.set(None)  # whoever opened the feed may have had one of his own
        try:
            if self.checkpoint is not None and not self.ledger.keeps_changes:
                self.ledger = await self.checkpoint.open()
                for gap in self.checkpoint.untold:
                    self._tell_gap(gap)
                for consumer in self.outlet.consumers:
                    consumer.wake()
            self.timetable.within(_WITHOUT_STREAM)
            self.hub.join(self)
            self._spawn(self._sweeping())
            await self._listening()
        except Exception as error:
            self.ended(error)

    def _stop(self) -> None:
        """End everything. It closes by itself, whoever waits for it and however long."""
        self._ended = True
        self.hub.leave(self)
        this = asyncio.current_task() if running_loop() is self._loop else None
        for task in self._tasks:
            if task is not this:
                task.cancel()
        if not self._standing.done():
            self._standing.set_exception(FeedClosed("the feed was closed"))
            self._standing.exception()
        shared = self.hub.sender.state.shared
        for name in [name for name, one in shared.items() if one is self]:
            del shared[name]
        if self._closing is None and self._tasks:
            self._closing = self._loop.create_task(self._close())

    async def _close(self) -> None:
        await asyncio.wait(self._tasks)
        try:
            if self.checkpoint is not None:
                await self.checkpoint.aclose()
            for fork in self._forks:
                await fork.released()
            await self.hub.over()
        except StorageError as error:
            _log.warning("the checkpoint could not be closed in good order: %s", error)
        finally:
            self.hub.sender.state.owned.discard(self)

    def abort(self) -> None:
        """End it because its client ends."""
        if running_loop() is not self._loop:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.abort)
            return
        self._finish(ClientClosed("the client was closed"), Closed("client"))

    async def over(self) -> None:
        """Wait until its tasks have ended, and its file is closed."""
        if self._closing is not None and running_loop() is self._loop:
            await asyncio.shield(self._closing)

    def ended(self, error: Exception | None) -> None:
        """End by the server's word, or by an error that no other attempt can mend."""
        self._finish(error, Closed("204") if error is None else Closed("error", error))

    def _finish(self, error: Exception | None, signal: Closed) -> None:
        if self._ended:
            return
        self.outlet.tell(signal)
        if not self._standing.done():
            if error is None:
                self._standing.set_result(None)
            else:
                self._standing.set_exception(error)
                self._standing.exception()  # nobody may be waiting for it
        consumers = list(self.outlet.consumers)
        self._stop()
        for consumer in consumers:
            consumer.end(error)

    # ---- what the hub tells -----------------------------------------------------------------------------------------

    def connected(self, attempts: int) -> None:
        """Sweep for what was missed; see `Listener`."""
        if not self._standing.done():
            self._standing.set_result(None)
        self._stood_first = self._stood_first or self._now()
        self.outlet.tell(Connected(attempts))
        self._replay_due = True
        for wait in SWEEP_AFTER_CONNECT:
            self.timetable.within(wait)

    def lost(self, error: NexError | None, attempt: int, delay: float) -> None:
        """Tell everybody; see `Listener`."""
        self.outlet.tally.reconnects += attempt == 1
        if self._lost_at is None:
            self._lost_at = self._now()
        self.outlet.tell(Reconnecting(attempt, delay, error))

    def greeted(self) -> None:
        """Look whether it is the right workspace; see `Listener`."""
        self._mail.set()

    def push(self, events: list[ServerSentEvent]) -> None:
        """Take events, or drop them and read the list; see `Listener`."""
        if not self.has_space:
            self.outlet.tally.dropped_events += len(events)
            self.outlet.degrade("slow")
            self.timetable.within(SWEEP_WHEN_AMBIGUOUS)
            return
        size = sum([len(event.data) for event in events])
        self._mailbox.append((events, size))
        self._waiting_events += len(events)
        self._waiting_bytes += size
        self._mail.set()

    @property
    def has_space(self) -> bool:
        """Whether the mailbox can take more."""
        return self._waiting_events < _MAILBOX_EVENTS and self._waiting_bytes < _MAILBOX_BYTES

    def oversize(self) -> None:
        """Read the list for what the stream could not bring; see `Listener`."""
        self.outlet.tally.oversize += 1
        self.outlet.mention("oversize", None)
        self.timetable.within(SWEEP_WHEN_AMBIGUOUS)

    # ---- the stream -------------------------------------------------------------------------------------------------

    async def _listening(self) -> None:
        while True:
            while not self._mailbox:
                self._mail.clear()
                await self._mail.wait()
                await self._check_workspace(self.hub.workspace)
            await self.outlet.room()
            await self._check_workspace(self.hub.workspace)
            events, size = self._mailbox.popleft()
            self._waiting_events -= len(events)
            self._waiting_bytes -= size
            self.hub.made_room()
            await self._deliver(self._hear_all(events))
            del events  # or they would be kept until the next mail

    def _hear_all(self, events: list[ServerSentEvent]) -> list[InsightEvent]:
        fresh: list[InsightEvent] = []
        for event in events:
            self._hear(event, fresh)
        return fresh

    def _hear(self, event: ServerSentEvent, fresh: list[InsightEvent]) -> None:
        source = _SOURCES.get(event.event)
        if source is None:
            self.outlet.tally.unknown += 1
            self.outlet.tell(UnknownEvent(event.event, event.data))
            return
        try:
            batch = decode_insights(event.data)
        except DecodeError as error:
            self._poisoned(error)
            return
        for bad in batch.errors:
            self._poisoned(bad)
        if batch.insight_count is not None and batch.insight_count != len(batch.insights):
            self.timetable.within(SWEEP_WHEN_AMBIGUOUS)
        if batch.insights:
            self._hear_batch(source, batch, fresh)

    def _poisoned(self, error: DecodeError) -> None:
        digest = hash(error.raw + error.path.encode())
        if digest not in self._poison:  # a row of the list is met by every sweep
            _keep(self._poison, digest, None)
            self.outlet.tally.undecodable += 1
            self.outlet.mention("poison", error)
            self.timetable.within(SWEEP_WHEN_AMBIGUOUS)

    def _hear_batch(self, source: InsightSource, batch: InsightBatch, fresh: list[InsightEvent]) -> None:
        ledger = self.ledger
        emitted_at = batch.emitted_at
        emitted = self._emitted(emitted_at)
        if emitted_at is not None:
            self.hub.clock.note_moment(emitted, self._loop.time())
        at_once = self._delivers_at_once(source)
        for insight in batch.insights:
            mark = fingerprint(insight.type, insight.content)
            if not at_once:
                ledger.heard(mark, insight.id, source == "live")
                self._owe(mark, InsightEvent(mark.hex(), source, insight, batch.workspace, emitted_at), emitted)
                continue
            if source == "replay" and not self._is_missed(mark, insight.created_at):
                continue
            verdict = ledger.item(mark, insight.id, emitted)
            if verdict != "deliver" or insight.id is not None or not ledger.matched:
                ledger.heard(mark, insight.id, source == "live")
            if verdict == "deliver":
                key = insight.id if insight.id is not None and ledger.trusts_stream_ids else mark.hex()
                fresh.append(InsightEvent(key, source, insight, batch.workspace, emitted_at))
            elif verdict == "known":
                self.outlet.tally.duplicates += 1
            else:
                self.outlet.tally.ambiguous += 1
                self.timetable.within(SWEEP_WHEN_AMBIGUOUS)

    def _emitted(self, emitted_at: datetime | None) -> int:
        """Return when an item was emitted; one that does not say it, not before now, whatever the clocks show."""
        if emitted_at is not None:
            return micros(emitted_at)
        now = self._now()
        return _EVER if now is None else now + AHEAD

    def _owe(self, mark: bytes, event: InsightEvent, emitted: int) -> None:
        """Keep what the stream brought until the list tells whether it is news, and see that the list is read."""
        if event.source == "replay":  # the sweep that follows every connection tells
            self._owed.setdefault(mark, _Owed(event, emitted, self._loop.time()))
        elif mark in self.ledger.recent or mark in self._owed:
            self.timetable.within(SWEEP_WHEN_AMBIGUOUS)
        else:
            _keep(self._owed, mark, _Owed(event, emitted, self._loop.time()))
            self._owed_wait = 1.0
            self.timetable.within(SWEEP_WHEN_OWED)

    async def _pay(self) -> None:
        """Hand out what the stream brought and the list does not show, unless all is to come from the list."""
        ledger, now, blind = self.ledger, self._loop.time(), bool(self.timetable.failures)
        self._owed = {mark: owed for mark, owed in self._owed.items() if owed.since > now - OVERLAP / SECOND}
        if self.mode == "exact" or ledger.disproved or (not ledger.matched and ledger.contradicts()):
            return
        fresh: list[InsightEvent] = []
        for mark, owed in list(self._owed.items()):
            if owed.event.source == "replay":
                due = True
                is_news = blind and self._is_missed(mark, owed.event.insight.created_at)
            else:
                due = is_news = blind or ledger.matched or owed.since < now - _UNPROVEN_WAIT
            if due:
                del self._owed[mark]
            if is_news and ledger.item(mark, None, owed.emitted) == "deliver":
                fresh.append(owed.event)
        await self._deliver(fresh)

    def _delivers_at_once(self, source: InsightSource) -> bool:
        """Return whether what the stream brings can be handed out without asking the list."""
        if self.mode == "exact" or self.ledger.disproved:
            return False
        if self.timetable.failures:
            return True  # there is nothing to ask
        return source == "live" and self.ledger.matched

    def _is_missed(self, mark: bytes, created_at: datetime | None) -> bool:
        """Return whether a replayed item is news, for want of a list that would tell. One without a date may be old."""
        ledger = self.ledger
        created = None if created_at is None else micros(created_at)
        if ledger.watermark:
            return created is not None and created >= ledger.floor
        if self._start == "now":
            ledger.passed(mark, created or 0)
        return self._start == "replay"

    # ---- the list ---------------------------------------------------------------------------------------------------

    async def _sweeping(self) -> None:
        try:
            while True:
                deep = await self.timetable.next()
                try:
                    await self._sweep(deep)
                except (StorageError, TenantMismatch, ClientClosed):
                    raise
                except NexError as error:
                    self._sweep_failed(error)
                else:
                    self._sweep_done(deep)
                await self._pay()
        except Exception as error:
            self.ended(error)

    def _sweep_done(self, deep: bool) -> None:
        outlet = self.outlet
        outlet.tally.sweeps += 1
        outlet.tally.deep_sweeps += deep
        if self.checkpoint is not None:
            self.checkpoint.confirm()  # neither the stream nor a row of the list says otherwise
        outlet.recover("ledger")
        if self.has_space:
            outlet.recover("slow")
        self._judge_identity()
        self.timetable.done(deep=deep)
        if any(owed.event.source == "live" for owed in self._owed.values()):
            self.timetable.within(self._owed_wait)
            self._owed_wait = min(_MOST_OWED_WAIT, self._owed_wait * 2)

    def _sweep_failed(self, error: NexError) -> None:
        """Go on without the list for a while. What is missed meanwhile is found by a later sweep."""
        self.outlet.degrade("ledger", error)
        if self.checkpoint is not None and self.hub.stood_since is not None:
            self.checkpoint.confirm()  # nobody says whose workspace it is
        refused = isinstance(error, APIError) and error.status in (401, 403, 404)
        if refused and self._lost_at is not None and self.hub.stood_since is not None:
            self._report_gap(self._lost_at, self._now() or self._lost_at, "auth")
            self._lost_at = None
        wait = self.timetable.failed(refused=refused)
        _log.info("the list of insights cannot be read (%s); again in %.0f s", type(error).__name__, wait)

    async def _sweep(self, deep: bool) -> None:
        """Read the list from the last sweep on, and hand out what is new. Raises what keeps it from being read."""
        ledger = self.ledger
        count = self.outlet.tally.delivered
        if not ledger.watermark:
            await self._begin()
        elif self.mode == "fast" and not (ledger.matched or ledger.disproved):
            for row in (await self.windows.newest()).rows:
                ledger.listed(row.mark, row.id)
        until = self._now()
        if until is None:
            raise DecodeError("neither the replies nor the insights tell the server's time")
        start, earlier = ledger.sweep_start(deep=False), ledger.sweep_start(deep=True)
        await self._read_since(start, until)
        if deep:
            await self._look_back(earlier, start, until)
        if self.hub.stood_since is not None:
            self._lost_at = None
        if self._replay_due and self.hub.stood_since is not None:
            self._replay_due = False
            self.outlet.tell(Replayed(self.outlet.tally.delivered - count))

    async def _read_since(self, start: int, until: int) -> None:
        """Read everything since the last sweep, as far back as the API lists it; the rest is lost, and said to be."""
        try:
            await self._read_windows(start, until)
        except APIError as error:
            if error.status not in _TOO_OLD or until - start <= _RETENTION:
                raise
            self._report_gap(start, until - _RETENTION, "retention")
            await self._read_windows(until - _RETENTION, until)

    async def _look_back(self, start: int, end: int, until: int) -> None:
        """Look for rows that became visible late. What keeps it from the end does not make it begin again."""
        begun, reached = self._looking_back or (until, start)
        self._looking_back = begun, reached
        try:
            async for window in self.windows.read(reached, max(reached, end)):
                await self._take_window(window, until)
                self._looking_back = begun, window.end
        except APIError as error:
            if error.status not in _TOO_OLD:
                raise
            _log.info("the list of insights does not reach as far back as a look for late ones")
        self._looking_back = None
        self.ledger.swept(begun, deep=True)
        await self._deliver([])

    async def _begin(self) -> None:
        """Set out with the newest rows: they tell the time, what is no news, and whether stream and list can be matched."""
        window = await self.windows.newest()
        created = [row.created for row in window.rows if row.created is not None]
        self.hub.clock.note_moment(max(created, default=0), self._loop.time())
        now = self._now()
        if not now:
            raise DecodeError("neither the replies nor the insights tell the server's time")
        # What is created once the stream stands is new, whenever the list is first read. Rows may be shown to the second.
        since = min(now, self._stood_first or now) // SECOND * SECOND
        beginning = micros(self._start) if isinstance(self._start, datetime) else since
        self.ledger.begin(beginning)
        if isinstance(self._start, datetime):
            for row in window.rows:
                self.ledger.listed(row.mark, row.id)
        else:
            await self._take(window.rows, window.workspace, now, all_news=self._start == "replay")

    async def _read_windows(self, start: int, until: int) -> None:
        async for window in self.windows.read(start, max(until, start) + AHEAD):
            await self._take_window(window, until)
            # Whatever was created before the window's end less the overlap is visible by now: as far, the list is read.
            self.ledger.swept(min(window.end, until), deep=False)
            await self._deliver([])

    async def _take_window(self, window: Window, until: int) -> None:
        """Hand out what is new of a window, and tell what it hides."""
        await self.outlet.room()
        for error in window.errors:
            self._poisoned(error)
        await self._take(window.rows, window.workspace, until, all_news=False)
        if window.is_cut:
            self._report_gap(*self.windows.around(window), "overflow", len(window.rows))
        if self.ledger.forgot:
            self.ledger.forgot = False
            self._report_gap(self.ledger.sweep_start(deep=True), until, "horizon", recoverable=True)
        await self._be_polite()

    async def _take(self, rows: list[Row], workspace: InsightWorkspace | None, now: int, *, all_news: bool) -> None:
        """Hand out the rows that are new."""
        ledger = self.ledger
        fresh: list[InsightEvent] = []
        for workspace_id in {row.insight.workspace_id for row in rows}:
            await self._check_workspace(workspace_id)
        for row in rows:  # nothing may be awaited from here on until the changes are taken
            insight = row.insight
            created = now if row.created is None else row.created
            is_new = ledger.row(row.id, row.mark, created, is_news=all_news or created >= ledger.floor)
            self._owed.pop(row.mark, None)
            if is_new:
                source = self._source_of(row, created, now)
                fresh.append(InsightEvent(row.id, source, insight, workspace, insight.created_at))
        await self._deliver(fresh)

    def _source_of(self, row: Row, created: int, now: int) -> InsightSource:
        if created < self.ledger.floor:
            return "replay"
        if self.ledger.heard_live(row.mark):
            return "live"
        since = self.hub.stood_since
        stood = since is not None and now - int((self._loop.time() - since) * SECOND) <= created + SECOND
        if stood and now - created < _FRESH:
            return "live"
        if stood:
            self._missed_by_stream()
        return "backfill"

    def _missed_by_stream(self) -> None:
        """Replace a connection that stands, and does not bring everything."""
        self._missed += 1
        now = self._loop.time()
        if self._missed >= _MISSED and now >= self._rotated_at + _ROTATE_EVERY:
            self._missed, self._rotated_at = 0, now
            _log.info("the stream stands, and did not bring %d insights; opening another", _MISSED)
            self.hub.connection.rotate()

    def _judge_identity(self) -> None:
        if self.ledger.matched:
            self.outlet.recover("identity")
        elif self.ledger.disproved or (self.mode == "fast" and self.ledger.contradicts()):
            self.outlet.degrade("identity")

    async def _fetch(self, query: Query) -> InsightBatch:
        sender = self.hub.sender
        batch = await sender.send(LISTING, (), query, options=self._options)
        self.hub.clock.note(sender.bind().replied, self._loop.time())
        return batch

    async def _be_polite(self) -> None:
        """Let the calls go first that wait for the rate limit."""
        limit = self.hub.sender.bind().keys.limits[LISTING.group]
        for _ in range(_POLITE_WAITS):
            if not limit.waiting:
                return
            await asyncio.sleep(_POLITE_WAIT)

    def _now(self) -> int | None:
        return self.hub.clock.now(self._loop.time())

    async def _check_workspace(self, workspace: str | None) -> None:
        """See that the checkpoint is of this workspace, before anything of it is handed out."""
        checkpoint = self.checkpoint
        if checkpoint is None or workspace is None:
            return
        if checkpoint.workspace is None:
            await checkpoint.bind(workspace)
        elif checkpoint.workspace != workspace:
            raise TenantMismatch("the checkpoint belongs to another workspace than the one this key reads")
        checkpoint.confirm()

    # ---- delivery ---------------------------------------------------------------------------------------------------

    async def _deliver(self, events: list[InsightEvent]) -> None:
        """Hand events to every consumer; with a checkpoint, only once its file knows of them."""
        if self.checkpoint is not None:
            await self.checkpoint.commit(self.ledger.take_changes(), events)
        if events:
            self.outlet.offer(events)
            created_at, now = events[-1].insight.created_at or events[-1].emitted_at, self._now()
            if created_at is not None and now is not None:
                self.outlet.tally.delay = max(0.0, (now - micros(created_at)) / SECOND)

    def _part_with(self, consumer: Buffer[Any]) -> None:
        """Let a slow reader go on at a pace of its own, from what was handed to it so far."""
        engine = Engine(self.hub, self.mode, self._start, None, self._options)
        engine.ledger = self.ledger.copy()
        engine._standing.set_result(None)
        engine.attach(consumer)
        self._forks.append(engine)

    def _report_gap(
        self, start: int, end: int, reason: GapReason, at_least: int | None = None, *, recoverable: bool = False
    ) -> None:
        """Tell of a gap, once for what lies inside it."""
        end = max(start, end)
        if self.ledger.note_gap(start, end, reason, at_least, recoverable=recoverable):
            self._tell_gap(Gap(moment_of(start), moment_of(end), reason, at_least, recoverable))

    def _tell_gap(self, gap: Gap) -> None:
        self.outlet.tally.gaps += 1
        _log.warning("insights between %s and %s may be missing: %s", gap.start, gap.end, gap.reason)
        self.outlet.tell(gap)
        if self.checkpoint is not None and not any(cursor.holds(gap) for cursor in self.checkpoint.cursors):
            self.ledger.gap_told(micros(gap.start), micros(gap.end), gap.reason)  # nobody listens but the log


_FIGURES = (
    "reconnects", "delay", "live", "replayed", "backfilled", "duplicates", "ambiguous", "sweeps", "gaps", "undecodable",
    "unknown", "oversize",
)  # fmt: skip
_SOURCES: dict[str, InsightSource] = {"insight.replay": "replay", "insight.batch.created": "live"}
_KEPT = 4_000
_EVER = 1 << 62


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    """Remember, and forget the oldest."""
    kept[key] = value
    if len(kept) > _KEPT:
        del kept[next(iter(kept))]
