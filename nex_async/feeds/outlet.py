"""Outlet: the consumers behind an engine. Each gets everything; none holds the others back for long."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .._logfields import fields_of
from ..errors import NexError
from .events import Degraded, DegradedReason, InsightEvent, Recovered, Signal
from .feed import Buffer, Consumer

__all__ = ["Outlet", "Tally"]

_log = logging.getLogger("nex_async.feeds")

_HELD_BACK = 30.0
"""So long a reader may hold back the others; then it goes on at a pace of its own."""
_LATEST = 20


@dataclass
class Tally:
    """What an engine has counted."""

    live: int = 0
    replayed: int = 0
    backfilled: int = 0
    duplicates: int = 0
    ambiguous: int = 0
    sweeps: int = 0
    deep_sweeps: int = 0
    undecodable: int = 0
    unknown: int = 0
    oversize: int = 0
    dropped_events: int = 0
    gaps: int = 0
    reconnects: int = 0
    delay: float | None = None
    """Seconds from the creation of the newest insight to its delivery."""
    degraded: set[DegradedReason] = field(default_factory=set)

    @property
    def delivered(self) -> int:
        """How many insights were handed out."""
        return self.live + self.replayed + self.backfilled


class Outlet:
    """Hands insights and signals to every consumer, and counts them; `part_with` takes over a reader that is too slow."""

    def __init__(self, loop: asyncio.AbstractEventLoop, part_with: Callable[[Buffer[Any]], None]) -> None:
        self.consumers: list[Consumer[Any]] = []
        self.tally: Tally = Tally()
        self.latest: deque[InsightEvent] = deque(maxlen=_LATEST)
        self._loop = loop
        self._part_with = part_with
        self._free = asyncio.Event()

    def remove(self, consumer: Consumer[Any]) -> None:
        """Offer nothing more to a consumer."""
        self.consumers.remove(consumer)
        self._free.set()

    def freed(self) -> None:
        """Learn that a reader that was full is no more."""
        self._free.set()

    def offer(self, events: list[InsightEvent]) -> None:
        """Hand insights to every consumer."""
        tally = self.tally
        for event in events:
            if event.source == "live":
                tally.live += 1
            elif event.source == "replay":
                tally.replayed += 1
            else:
                tally.backfilled += 1
        self.latest.extend(events)
        for consumer in list(self.consumers):
            for event in events:
                consumer.offer(event)

    def tell(self, signal: Signal) -> None:
        """Hand a signal to every consumer that listens for it."""
        for consumer in list(self.consumers):
            consumer.offer(signal)

    async def room(self) -> None:
        """Wait until every reader has room; one that keeps others waiting is parted with."""
        patience = self._loop.time() + _HELD_BACK
        while full := [consumer for consumer in self._buffers() if consumer.full]:
            self._free.clear()
            if len(full) == len(self._buffers()):
                await self._free.wait()
                patience = self._loop.time() + _HELD_BACK
            elif self._loop.time() < patience:
                timer = self._loop.call_at(patience, self._free.set)
                try:
                    await self._free.wait()
                finally:
                    timer.cancel()
            else:
                for consumer in full:
                    template = "a reader of the insight feed is slow; it goes on at a pace of its own"
                    _log.info(template, extra={"nex_lag": consumer.lag})
                    self.consumers.remove(consumer)
                    self._part_with(consumer)

    def _buffers(self) -> list[Buffer[Any]]:
        return [consumer for consumer in self.consumers if isinstance(consumer, Buffer)]

    def degrade(self, reason: DegradedReason, error: NexError | None = None) -> None:
        """Tell, once, that something does not work until `recover` says otherwise."""
        if reason not in self.tally.degraded:
            self.tally.degraded.add(reason)
            fields = {"nex_reason": reason} if error is None else fields_of(error, reason=reason)
            _log.warning("the insight feed is degraded: %s", reason, extra=fields)
            self.tell(Degraded(reason, error))

    def mention(self, reason: DegradedReason, error: NexError | None) -> None:
        """Tell of something that is over as soon as it has happened."""
        fields = {"nex_reason": reason} if error is None else fields_of(error, reason=reason)
        _log.warning("the insight feed met an event it could not use: %s", reason, extra=fields)
        self.tell(Degraded(reason, error))

    def recover(self, reason: DegradedReason) -> None:
        """Tell that something works again, if it did not."""
        if reason in self.tally.degraded:
            self.tally.degraded.discard(reason)
            _log.info("the insight feed has recovered: %s", reason, extra={"nex_reason": reason})
            self.tell(Recovered(reason))
