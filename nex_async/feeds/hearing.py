"""Hearing: the stream's side of an engine. What it brings is handed out at once, if the ledger can say that it is new."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import datetime

from ..errors import DecodeError
from ..models.insights import InsightBatch, decode_insights
from .delivery import SOON, Delivery
from .events import InsightEvent, InsightSource, UnknownEvent
from .ledger import OVERLAP, SECOND, fingerprint
from .sse import ServerSentEvent
from .windows import micros

__all__ = ["Hearing"]

_SOURCES: dict[str, InsightSource] = {"insight.replay": "replay", "insight.batch.created": "live"}
_AT_ONCE = 0.1
_MOST_WAIT = 32.0
_UNPROVEN_WAIT = 5.0
"""So long the list is given to show an item before the two were ever seen to match."""
_MAILBOX_EVENTS, _MAILBOX_BYTES = 20_000, 8 << 20
_MOST_OWED = 4_000
_UNDATED = 5 * SECOND
"""An item that does not say when it was emitted may have been so long after what the server's clock is known to show."""
_EVER = 1 << 62


@dataclass(frozen=True, slots=True)
class _Owed:
    """What the stream brought and waits for the list: when it was emitted there, and since when it waits here."""

    event: InsightEvent
    emitted: int
    since: float


class Hearing:
    """Takes what the stream brings; what cannot be told apart is owed until the list was read."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._loop = delivery.hub.loop
        self._mailbox: deque[tuple[list[ServerSentEvent], int]] = deque()
        self._events = 0
        self._bytes = 0
        self._mail = asyncio.Event()
        self._owed: dict[bytes, _Owed] = {}
        self._wait = 1.0

    def follow(self, other: Hearing) -> None:
        """Owe what another one owes."""
        self._owed = dict(other._owed)

    # ---- the mailbox ------------------------------------------------------------------------------------------------

    @property
    def has_space(self) -> bool:
        """Whether the mailbox can take more."""
        return self._events < _MAILBOX_EVENTS and self._bytes < _MAILBOX_BYTES

    def push(self, events: list[ServerSentEvent]) -> None:
        """Take events, or drop them and see that the list is read for them."""
        if not self.has_space:
            self._delivery.outlet.tally.dropped_events += len(events)
            self._delivery.outlet.degrade("slow")
            self._delivery.timetable.within(SOON)
            return
        size = sum([len(event.data) for event in events])
        self._mailbox.append((events, size))
        self._events += len(events)
        self._bytes += size
        self._mail.set()

    def wake(self) -> None:
        """Look whether it is the right workspace, though no event has come."""
        self._mail.set()

    async def run(self) -> None:
        """Hear what comes, for as long as it is not cancelled. Raises `StorageError`, `TenantMismatch`."""
        delivery, hub = self._delivery, self._delivery.hub
        while True:
            while not self._mailbox:
                self._mail.clear()
                await self._mail.wait()
                await delivery.check_workspace(hub.workspace)
            await delivery.outlet.room()
            await delivery.check_workspace(hub.workspace)
            events, size = self._mailbox.popleft()
            self._events -= len(events)
            self._bytes -= size
            hub.made_room()
            await delivery.hand_out(self._hear_all(events))
            del events  # or they would be kept until the next mail

    # ---- what is in it ----------------------------------------------------------------------------------------------

    def _hear_all(self, events: list[ServerSentEvent]) -> list[InsightEvent]:
        fresh: list[InsightEvent] = []
        for event in events:
            self._hear(event, fresh)
        return fresh

    def _hear(self, event: ServerSentEvent, fresh: list[InsightEvent]) -> None:
        source = _SOURCES.get(event.event)
        if source is None:
            self._delivery.outlet.tally.unknown += 1
            self._delivery.outlet.tell(UnknownEvent(event.event, event.data))
            return
        try:
            batch = decode_insights(event.data)
        except DecodeError as error:
            self._delivery.poisoned(error)
            return
        for bad in batch.errors:
            self._delivery.poisoned(bad)
        if batch.insight_count is not None and batch.insight_count != len(batch.insights):
            self._delivery.timetable.within(SOON)
        if batch.insights:
            self._hear_batch(source, batch, fresh)

    def _hear_batch(self, source: InsightSource, batch: InsightBatch, fresh: list[InsightEvent]) -> None:
        delivery = self._delivery
        ledger, tally = delivery.ledger, delivery.outlet.tally
        emitted_at = batch.emitted_at
        emitted = self._emitted(emitted_at)
        suffix = "" if emitted_at is None else f".{emitted:x}"  # the same for everybody who gets it from the same batch
        workspace = batch.workspace
        at_once = self._delivers_at_once(source)
        for insight in batch.insights:
            mark = fingerprint(insight.type, insight.content)
            if not at_once:
                ledger.heard(mark, insight.id, source == "live")
                self._owe(mark, InsightEvent(mark.hex() + suffix, source, insight, workspace, emitted_at), emitted)
                continue
            if source == "replay" and not self._is_missed(mark, insight.created_at):
                continue
            verdict = ledger.item(mark, insight.id, emitted)
            if verdict != "deliver" or insight.id is not None or not ledger.matched:
                ledger.heard(mark, insight.id, source == "live")
            if verdict == "deliver":
                key = insight.id if insight.id is not None and ledger.trusts_stream_ids else mark.hex() + suffix
                fresh.append(InsightEvent(key, source, insight, workspace, emitted_at))
            elif verdict == "known":
                tally.duplicates += 1
            else:
                tally.ambiguous += 1
                delivery.timetable.within(SOON)

    def _emitted(self, emitted_at: datetime | None) -> int:
        """Return when an item was emitted; one that does not say it, not before now, whatever the clocks show."""
        if emitted_at is not None:
            emitted = micros(emitted_at)
            self._delivery.hub.clock.note_moment(emitted, self._loop.time())
            return emitted
        now = self._delivery.now()
        return _EVER if now is None else now + _UNDATED

    def _delivers_at_once(self, source: InsightSource) -> bool:
        """Return whether what the stream brings can be handed out without asking the list."""
        delivery = self._delivery
        if delivery.mode == "exact" or delivery.ledger.disproved:
            return False
        if delivery.timetable.failures:
            return True  # there is nothing to ask
        return source == "live" and delivery.ledger.matched

    def _is_missed(self, mark: bytes, created_at: datetime | None) -> bool:
        """Return whether a replayed item is news, for want of a list that would tell. One without a date may be old."""
        ledger, start = self._delivery.ledger, self._delivery.start
        created = None if created_at is None else micros(created_at)
        if ledger.watermark:
            return created is not None and created >= ledger.floor
        if start == "now":
            ledger.passed(mark, created or 0)
        return start == "replay"

    # ---- what is owed -----------------------------------------------------------------------------------------------

    def _owe(self, mark: bytes, event: InsightEvent, emitted: int) -> None:
        """Keep what the stream brought until the list tells whether it is news, and see that the list is read."""
        timetable = self._delivery.timetable
        if event.source == "replay":  # the sweep that follows every connection tells
            self._owed.setdefault(mark, _Owed(event, emitted, self._loop.time()))
        elif mark in self._delivery.ledger.recent or mark in self._owed:
            timetable.within(SOON)
        else:
            self._owed[mark] = _Owed(event, emitted, self._loop.time())
            self._wait = 1.0
            timetable.within(_AT_ONCE)
        if len(self._owed) > _MOST_OWED:
            del self._owed[next(iter(self._owed))]

    def settle(self, mark: bytes) -> InsightEvent | None:
        """Learn that the list has told about an item; return it as the stream brought it, if it did."""
        owed = self._owed.pop(mark, None)
        return None if owed is None else owed.event

    async def pay(self) -> None:
        """Hand out what the stream brought and the list does not show, unless all is to come from the list."""
        delivery = self._delivery
        ledger, now, blind = delivery.ledger, self._loop.time(), bool(delivery.timetable.failures)
        self._owed = {mark: owed for mark, owed in self._owed.items() if owed.since > now - OVERLAP / SECOND}
        if delivery.mode != "exact" and not ledger.disproved and (ledger.matched or not ledger.contradicts()):
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
            await delivery.hand_out(fresh)
        if any(owed.event.source == "live" for owed in self._owed.values()):
            delivery.timetable.within(self._wait)
            self._wait = min(_MOST_WAIT, self._wait * 2)
