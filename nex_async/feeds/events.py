"""What an insight feed hands out: insights, and signals about the feed itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal, TypeAlias

from ..errors import NexError
from ..models import Insight
from ..models.insights import InsightWorkspace

__all__ = [
    "Closed",
    "Connected",
    "Degraded",
    "Gap",
    "GapReason",
    "InsightEvent",
    "InsightSource",
    "Reconnecting",
    "Recovered",
    "Replayed",
    "Signal",
    "UnknownEvent",
]

InsightSource: TypeAlias = Literal["replay", "live", "backfill"]
GapReason: TypeAlias = Literal["overflow", "horizon", "retention", "auth"]
DegradedReason: TypeAlias = Literal["identity", "ledger", "oversize", "poison", "slow"]


@dataclass(slots=True, eq=False)
class InsightEvent:
    """One insight.

    `key` is the id, where it is known, else a hash of what stays the same. Two events with one key are one insight:
    use it to make what you do idempotent. `source` is `replay` for one that is older than the feed, `live` for one that came
    over the stream, `backfill` for one the stream did not bring. `redelivered` marks what a process that ended may have
    handled already.
    """

    kind: ClassVar[str] = "insight"

    key: str
    source: InsightSource
    insight: Insight
    workspace: InsightWorkspace | None = None
    """Where the insight came with an envelope that names it."""
    emitted_at: datetime | None = None
    """When its batch was emitted, as the server says."""
    redelivered: bool = False
    acknowledge: Callable[[], Awaitable[None]] | None = field(default=None, repr=False)
    sequence: int = field(default=0, repr=False)
    """Its place in the checkpoint's inbox."""

    async def ack(self) -> None:
        """Note the insight as handled, before the next one is asked for. Without a checkpoint this does nothing."""
        if self.acknowledge is not None:
            await self.acknowledge()


@dataclass(frozen=True, slots=True)
class Connected:
    """The stream stands. `attempts` is how many connections it took since it last stood."""

    kind: ClassVar[str] = "connected"

    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was missed, or lies before the start, has been handed out; `count` insights of it."""

    kind: ClassVar[str] = "replayed"

    count: int


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The stream was lost, or could not be opened; the next attempt follows in `delay` seconds."""

    kind: ClassVar[str] = "reconnecting"

    attempt: int
    delay: float
    error: NexError | None
    """What ended it; None when the server closed it in good order."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Insights between `start` and `end` may be missing.

    `overflow`: more share one moment than the API lists. `horizon`: more came than the feed can remember. `retention`: the
    API does not list as far back. `auth`: the key may read the stream, not the list. `at_least` is how many are known to
    exist; `recoverable` whether `insights.history(start, end)` may find them later.
    """

    kind: ClassVar[str] = "gap"

    start: datetime
    end: datetime
    reason: GapReason
    at_least: int | None = None
    recoverable: bool = False


@dataclass(frozen=True, slots=True)
class Degraded:
    """The feed works, but not as it should.

    `identity`: insights on the stream and in the list cannot be matched, so that all come from the list. `ledger`: the list
    cannot be read at present. `oversize`, `poison`: the stream brought an event that is too large, or no JSON. `slow`: the
    readers are slower than the stream.
    """

    kind: ClassVar[str] = "degraded"

    reason: DegradedReason
    error: NexError | None = None


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a `Degraded` with the same reason told of is over."""

    kind: ClassVar[str] = "recovered"

    reason: DegradedReason


@dataclass(frozen=True, slots=True)
class Closed:
    """The feed has ended: `204` by the server's word, `client` by `aclose`, `error` by what it then raises."""

    kind: ClassVar[str] = "closed"

    reason: Literal["204", "client", "error"]
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event of a name this version does not know, as it came."""

    kind: ClassVar[str] = "unknown"

    event: str
    data: bytes


Signal: TypeAlias = "Connected | Replayed | Reconnecting | Gap | Degraded | Recovered | Closed | UnknownEvent"
