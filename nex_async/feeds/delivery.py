"""Delivery: what both sides of an engine share, the stream's and the list's: what is known, who is to get it, and how."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, TypeAlias

from ..errors import DecodeError, TenantMismatch
from .checkpoint import Checkpoint
from .events import Gap, GapReason, InsightEvent
from .feed import Buffer
from .hub import Hub
from .ledger import SECOND, Ledger
from .outlet import Outlet
from .timetable import Timetable
from .windows import micros, moment_of

__all__ = ["SOON", "Delivery", "Mode", "Start"]

_log = logging.getLogger("nex_async.feeds")

Mode: TypeAlias = Literal["fast", "exact"]
Start: TypeAlias = Literal["now", "replay"] | datetime

SOON = 0.5
"""Within so many seconds the list is read for what the stream could not bring, or cannot tell apart."""
_REMEMBERED = 4_000


class Delivery:
    """The ledger, the consumers, the checkpoint and the timetable of one engine."""

    def __init__(
        self,
        hub: Hub,
        mode: Mode,
        start: Start,
        checkpoint: Checkpoint | None,
        part_with: Callable[[Buffer[Any]], None],
    ) -> None:
        self.hub: Hub = hub
        self.mode: Mode = mode
        self.start: Start = start
        self.checkpoint: Checkpoint | None = checkpoint
        self.ledger: Ledger = Ledger()
        self.outlet: Outlet = Outlet(hub.loop, part_with)
        self.timetable: Timetable = Timetable(hub.loop)
        self._poison: dict[int, None] = {}

    def now(self) -> int | None:
        """Return the server's time; see `ServerClock`."""
        return self.hub.clock.now(self.hub.loop.time())

    async def hand_out(self, events: list[InsightEvent]) -> None:
        """Hand insights to every consumer; with a checkpoint, only once its file knows of them.

        Nothing may be awaited between the ledger's verdict and this: the two are kept together or not at all.
        """
        if self.checkpoint is not None:
            await self.checkpoint.commit(self.ledger.take_changes(), events)
        if events:
            self.outlet.offer(events)
            created_at, now = events[-1].insight.created_at or events[-1].emitted_at, self.now()
            if created_at is not None and now is not None:
                self.outlet.tally.delay = max(0.0, (now - micros(created_at)) / SECOND)

    async def check_workspace(self, workspace: str | None) -> None:
        """See that the checkpoint is of this workspace, before anything of it is handed out. Raises `TenantMismatch`."""
        checkpoint = self.checkpoint
        if checkpoint is None or workspace is None:
            return
        if checkpoint.workspace is None:
            await checkpoint.bind(workspace)
        elif checkpoint.workspace != workspace:
            raise TenantMismatch("the checkpoint belongs to another workspace than the one this key reads")
        checkpoint.confirm()

    def poisoned(self, error: DecodeError) -> None:
        """Tell, once, of something that could not be decoded, and see that the list is read for it."""
        digest = hash(error.raw + error.path.encode())
        if digest in self._poison:
            return  # a row of the list is met by every sweep
        self._poison[digest] = None
        if len(self._poison) > _REMEMBERED:
            del self._poison[next(iter(self._poison))]
        self.outlet.tally.undecodable += 1
        self.outlet.mention("poison", error)
        self.timetable.within(SOON)

    def report_gap(
        self, start: int, end: int, reason: GapReason, at_least: int | None = None, *, recoverable: bool = False
    ) -> None:
        """Tell of a gap, once for what lies inside it."""
        end = max(start, end)
        if self.ledger.note_gap(start, end, reason, at_least, recoverable=recoverable):
            self.tell_gap(Gap(moment_of(start), moment_of(end), reason, at_least, recoverable))

    def tell_gap(self, gap: Gap) -> None:
        """Tell of a gap, also one that an earlier process could not tell of any more."""
        self.outlet.tally.gaps += 1
        self.hub.sender.state.counts.gaps += 1
        fields = {"nex_start": gap.start.isoformat(), "nex_end": gap.end.isoformat(), "nex_reason": gap.reason}
        _log.warning("insights between %s and %s may be missing: %s", gap.start, gap.end, gap.reason, extra=fields)
        self.outlet.tell(gap)
        if self.checkpoint is not None and not any(cursor.holds(gap) for cursor in self.checkpoint.cursors):
            self.ledger.gap_told(micros(gap.start), micros(gap.end), gap.reason)  # nobody listens but the log
