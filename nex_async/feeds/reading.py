"""Reading: the list's side of an engine. Sweep after sweep it reads everything, and hands out what the stream did not."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

import msgspec

from .._logfields import fields_of
from ..errors import APIError, ClientClosed, DecodeError, NexError, StorageError, TenantMismatch, outcome_of
from ..models import Insight
from ..models.insights import InsightBatch, InsightWorkspace
from ..transport.options import RequestOptions
from ..transport.wire import Query
from .delivery import SOON, Delivery
from .events import InsightEvent, InsightSource, Replayed
from .hearing import Hearing
from .ledger import SECOND
from .windows import LISTING, Row, Window, Windows, micros

__all__ = ["Reading"]

_log = logging.getLogger("nex_async.feeds")

AFTER_CONNECT = (0.0, 5.0)
"""At once for what was missed, and once more for what fell between the replay and the subscription."""
WITHOUT_STREAM = 10.0
AHEAD = 5 * SECOND
"""A sweep reads a little beyond the server's present, in case its clocks differ."""
_FRESH = 10 * SECOND
_RETENTION = 3600 * SECOND
_TOO_OLD = (400, 410, 422)
_REFUSED = (401, 403, 404)
_SLICE = 30.0
"""So many seconds a look-back takes at a time."""
_MISSED, _ROTATE_EVERY = 2, 300.0
_POLITE_WAIT, _POLITE_WAITS = 0.2, 150


class Reading:
    """Sweeps the list as the timetable says."""

    def __init__(self, delivery: Delivery, hearing: Hearing, options: RequestOptions) -> None:
        self.windows: Windows = Windows(self._fetch)
        self._delivery = delivery
        self._hearing = hearing
        self._hub = delivery.hub
        self._loop = delivery.hub.loop
        self._options = options
        self._lost_at: int | None = None
        self._stood_first: int | None = None
        self._unread: list[tuple[int, int]] = []
        """The windows that a sweep could not read, the oldest last."""
        self._looking_back: tuple[int, list[tuple[int, int]]] | None = None
        """A look-back that is not finished: when it was begun, and the windows it has not read."""
        self._progress = False
        self._replay_due = False
        self._missed = 0
        self._rotated_at = -_ROTATE_EVERY

    def follow(self, other: Reading) -> None:
        """Begin where another one began."""
        self._stood_first = other._stood_first

    def connected(self) -> None:
        """See that the list is read for what was missed while the stream did not stand."""
        self._stood_first = self._stood_first or self._delivery.now()
        self._replay_due = True
        for wait in AFTER_CONNECT:
            self._delivery.timetable.within(wait)

    def lost(self) -> None:
        """Note since when the stream does not stand."""
        if self._lost_at is None:
            self._lost_at = self._delivery.now()

    async def run(self) -> None:
        """Sweep for as long as it is not cancelled. Raises `StorageError`, `TenantMismatch`, `ClientClosed`."""
        self._delivery.timetable.within(WITHOUT_STREAM)
        while True:
            deep = await self._delivery.timetable.next()
            self._progress = False
            try:
                complete = await self._sweep(deep)
            except (StorageError, TenantMismatch, ClientClosed):
                raise
            except NexError as error:
                self._failed(error)
            else:
                self._done(deep and complete)
                if not complete:
                    self._delivery.timetable.within(SOON)
            await self._hearing.pay()

    def _done(self, deep: bool) -> None:
        delivery = self._delivery
        outlet = delivery.outlet
        outlet.tally.sweeps += 1
        outlet.tally.deep_sweeps += deep
        if delivery.checkpoint is not None:
            delivery.checkpoint.confirm()  # neither the stream nor a row of the list says otherwise
        outlet.recover("ledger")
        if self._hearing.has_space:
            outlet.recover("slow")
        if delivery.ledger.matched:
            outlet.recover("identity")
        elif delivery.ledger.disproved or (delivery.mode == "fast" and delivery.ledger.contradicts()):
            outlet.degrade("identity")
        delivery.timetable.done(deep=deep)

    def _failed(self, error: NexError) -> None:
        """Go on without the list for a while. What is missed meanwhile is found by a later sweep."""
        delivery, stands = self._delivery, self._hub.stood_since is not None
        delivery.outlet.degrade("ledger", error)
        if delivery.checkpoint is not None and stands:
            delivery.checkpoint.confirm()  # nobody says whose workspace it is
        refused = isinstance(error, APIError) and error.status in _REFUSED
        if refused and self._lost_at is not None and stands:
            delivery.report_gap(self._lost_at, delivery.now() or self._lost_at, "auth")
            self._lost_at = None
        wait = delivery.timetable.failed(refused=refused, after_progress=self._progress)
        fields = fields_of(error, operation=LISTING.name, delay=wait)
        _log.info("the list of insights cannot be read (%s); again in %.0f s", outcome_of(error), wait, extra=fields)

    # ---- one sweep --------------------------------------------------------------------------------------------------

    async def _sweep(self, deep: bool) -> bool:
        """Read the list from the last sweep on, and hand out what is new; return whether nothing of it is left to do.

        Raises what keeps it from being read.
        """
        delivery, ledger = self._delivery, self._delivery.ledger
        count = delivery.outlet.tally.delivered
        if not ledger.watermark:
            await self._begin()
        elif delivery.mode == "fast" and not (ledger.matched or ledger.disproved):
            for row in (await self.windows.newest()).rows:
                ledger.listed(row.mark, row.id)
        until = delivery.now()
        if until is None:
            raise DecodeError("neither the replies nor the insights tell the server's time")
        start, earlier = ledger.sweep_start(deep=False), ledger.sweep_start(deep=True)
        await self._read_since(start, until)
        complete = not deep or await self._look_back(earlier, start, until)
        if self._hub.stood_since is not None:
            self._lost_at = None
            if self._replay_due:
                self._replay_due = False
                delivery.outlet.tell(Replayed(delivery.outlet.tally.delivered - count))
        return complete

    async def _begin(self) -> None:
        """Set out with the newest rows: they tell the time, what is no news, and whether stream and list can be matched."""
        delivery = self._delivery
        window = await self.windows.newest()
        created = [row.created for row in window.rows if row.created is not None]
        self._hub.clock.note_moment(max(created, default=0), self._loop.time())
        now = delivery.now()
        if not now:
            raise DecodeError("neither the replies nor the insights tell the server's time")
        # What is created once the stream stands is new, whenever the list is first read. Rows may be shown to the second.
        since = min(now, self._stood_first or now) // SECOND * SECOND
        if isinstance(delivery.start, datetime):
            delivery.ledger.begin(micros(delivery.start))
            for row in window.rows:
                delivery.ledger.listed(row.mark, row.id)
        else:
            delivery.ledger.begin(since)
            await self._take(window.rows, window.workspace, now, all_news=delivery.start == "replay")

    async def _read_since(self, start: int, until: int) -> None:
        """Read everything since the last sweep, as far back as the API lists it; the rest is lost, and said to be."""
        try:
            await self._read_windows(start, until)
        except APIError as error:
            if error.status not in _TOO_OLD or until - start <= _RETENTION:
                raise
            self._unread.clear()
            self._delivery.report_gap(start, until - _RETENTION, "retention")
            await self._read_windows(until - _RETENTION, until)

    async def _read_windows(self, start: int, until: int) -> None:
        """Read a range; what an earlier sweep left unread comes first, so that failures do not make it begin again."""
        await self._read_on(until)
        start = max(start, self._delivery.ledger.sweep_start(deep=False))
        self._unread.append((start, max(until, start) + AHEAD))
        await self._read_on(until)

    async def _read_on(self, until: int) -> None:
        while self._unread:
            window = await self.windows.step(self._unread)
            await self._take_window(window, until)
            # What was created before its end, less the overlap, is visible by now: as far, the list is read.
            self._delivery.ledger.swept(min(window.end, until), deep=False)
            await self._delivery.hand_out([])
            self._progress = True

    async def _look_back(self, start: int, end: int, until: int) -> bool:
        """Look for rows that became visible late, for a while; return whether that was all.

        What keeps it from the end does not make it begin again, and what is new does not wait for it.
        """
        enough = self._loop.time() + _SLICE
        begun, unread = self._looking_back or (until, [(start, max(start, end))])
        self._looking_back = begun, unread
        try:
            while unread:
                if self._loop.time() > enough:
                    return False
                await self._take_window(await self.windows.step(unread), until)
                self._progress = True
        except APIError as error:
            if error.status not in _TOO_OLD:
                raise
            template = "the list of insights does not reach as far back as a look for late ones"
            _log.info(template, extra=fields_of(error, operation=LISTING.name))
        self._looking_back = None
        self._delivery.ledger.swept(begun, deep=True)
        await self._delivery.hand_out([])
        return True

    async def _take_window(self, window: Window, until: int) -> None:
        """Hand out what is new of a window, and tell what it hides."""
        delivery = self._delivery
        await delivery.outlet.room()
        for error in window.errors:
            delivery.poisoned(error)
        await self._take(window.rows, window.workspace, until, all_news=False)
        if window.is_cut:
            delivery.report_gap(*self.windows.around(window), "overflow", len(window.rows))
        if delivery.ledger.forgot:
            delivery.ledger.forgot = False
            delivery.report_gap(delivery.ledger.sweep_start(deep=True), until, "horizon", recoverable=True)
        await self._be_polite()

    async def _take(self, rows: list[Row], workspace: InsightWorkspace | None, now: int, *, all_news: bool) -> None:
        """Hand out the rows that are new."""
        delivery, ledger = self._delivery, self._delivery.ledger
        for workspace_id in {row.insight.workspace_id for row in rows}:
            await delivery.check_workspace(workspace_id)
        fresh: list[InsightEvent] = []
        for row in rows:
            insight = row.insight
            created = now if row.created is None else row.created
            is_new = ledger.row(row.id, row.mark, created, is_news=all_news or created >= ledger.floor)
            heard = self._hearing.settle(row.mark)
            if not is_new:
                continue
            event = InsightEvent(row.id, self._source_of(row, created, now), insight, workspace, insight.created_at)
            if heard is not None and delivery.mode == "fast":  # the stream tells more of it than the list
                event.workspace, event.emitted_at = heard.workspace, heard.emitted_at
                event.insight = _named(heard.insight, insight)
            fresh.append(event)
        await delivery.hand_out(fresh)

    def _source_of(self, row: Row, created: int, now: int) -> InsightSource:
        ledger, since = self._delivery.ledger, self._hub.stood_since
        if created < ledger.floor:
            return "replay"
        if ledger.heard_live(row.mark):
            return "live"
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
            template = "the stream stands, and did not bring %d insights; opening another"
            _log.info(template, _MISSED, extra={"nex_count": _MISSED})
            self._hub.connection.rotate()

    async def _fetch(self, query: Query) -> InsightBatch:
        sender = self._hub.sender
        batch = await sender.send(LISTING, (), query, options=self._options)
        self._hub.clock.note(sender.bind().replied, self._loop.time())
        return batch

    async def _be_polite(self) -> None:
        """Let the calls go first that wait for the rate limit."""
        limit = self._hub.sender.bind().keys.limits[LISTING.group]
        for _ in range(_POLITE_WAITS):
            if not limit.waiting:
                return
            await asyncio.sleep(_POLITE_WAIT)


def _named(heard: Insight, row: Insight) -> Insight:
    """Return an insight as the stream brought it, with what only the list knows."""
    return msgspec.structs.replace(
        heard,
        id=row.id,
        workspace_id=heard.workspace_id or row.workspace_id,
        entities=heard.entities or row.entities,
        _created_at=heard._created_at or row._created_at,
    )
