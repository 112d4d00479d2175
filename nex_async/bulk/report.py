"""What became of the rows: one outcome for each, and a report of the whole run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from ..errors import NexError

__all__ = ["BulkReport", "Drift", "Outcome", "Status"]

Status: TypeAlias = Literal[
    "created", "updated", "written", "unchanged", "deleted", "accepted", "valid", "failed", "unknown"
]  # fmt: skip
"""What became of a row.

`created` or `updated` as the timestamps of the reply tell (on a server of whole seconds, a row that was created and changed
within the same one counts as created); `written` where there are none. `unchanged`: the same as last time, so that nothing
was sent. `accepted`: a text whose processing goes on. `valid`: a dry run found nothing wrong. `failed`: set aside with its
reason. `unknown`: it may or may not have taken effect, and nothing can tell.
"""

STATUSES: tuple[Status, ...] = get_args(Status)
KEPT_FAILURES = 100
"""So many failures stay in the report; all of them are in the dead-letter file."""


class Outcome:
    """What became of one row. `index` counts the rows of the source from 0; `row` is what the source gave."""

    __slots__ = ("attempts", "error", "index", "row", "status", "value")

    def __init__(
        self, index: int, row: Any, status: Status, value: Any = None, error: NexError | None = None, attempts: int = 0
    ) -> None:
        self.index: int = index
        self.row: Any = row
        self.status: Status = status
        self.value: Any = value
        """The record as the server returned it; for a text, the id of its artifact; None where nothing came back."""
        self.error: NexError | None = error
        self.attempts: int = attempts
        """Requests that were made for it, those of earlier runs included where they failed."""

    @property
    def ok(self) -> bool:
        """Whether the row has taken effect, or needed none."""
        return self.error is None

    def __repr__(self) -> str:
        shown = f", {type(self.error).__name__}" if self.error else ""
        return f"<Outcome of row {self.index}: {self.status}{shown}>"


@dataclass(frozen=True, slots=True)
class Drift:
    """A record that does not hold what was written to it: the key of its row, the attribute, and both texts."""

    key: str
    attribute: str
    sent: str
    found: str | None
    """None when there is no such record."""


@dataclass(slots=True)
class BulkReport:
    """What a run has come to. Counts are rows, and include those of the earlier runs that it went on from."""

    name: str
    rows: int = 0
    """Rows of the source that were dealt with: the sum of all the kinds below."""
    created: int = 0
    updated: int = 0
    written: int = 0
    unchanged: int = 0
    deleted: int = 0
    accepted: int = 0
    valid: int = 0
    failed: int = 0
    unknown: int = 0
    requests: int = 0
    """Requests for rows; those for the object's definition and for probing a server that failed are not counted."""
    retries: int = 0
    """Requests that had to be made again, whatever the reason."""
    throttled: int = 0
    """Answers 429, which cost patience and nothing else."""
    resumed_at: int | None = None
    """The row at which this run went on; None when it began at the beginning."""
    seconds: float = 0.0
    """Of this run."""
    finished: bool = False
    """Whether every row of the source was dealt with."""
    dead_letters: str | None = None
    """The file of the rows that failed, if there is one."""
    failures: list[Outcome] = field(default_factory=list)
    """The first hundred rows that failed in this run."""
    drift: list[Drift] | None = None
    """What a verifying pass found different, at most a thousand; None when there was none."""
    earlier: int = 0
    """Rows of earlier runs."""

    @property
    def ok(self) -> bool:
        """Whether every row was dealt with, and none failed."""
        return self.finished and not self.failed and not self.unknown and not self.drift

    @property
    def rate(self) -> float:
        """Rows per second of this run."""
        return (self.rows - self.earlier) / self.seconds if self.seconds > 0 else 0.0

    def count(self, status: Status) -> None:
        """Note a row as dealt with."""
        if status == "updated":
            self.updated += 1
        elif status == "created":
            self.created += 1
        else:
            setattr(self, status, getattr(self, status) + 1)
        self.rows += 1

    def __str__(self) -> str:
        counts = ", ".join(f"{getattr(self, kind)} {kind}" for kind in STATUSES if getattr(self, kind)) or "nothing to do"
        ending = "" if self.finished else ", not finished"
        resumed = "" if self.resumed_at is None else f" (went on at row {self.resumed_at})"
        sent = f"{self.requests} requests, {self.retries} of them again" if self.retries else f"{self.requests} requests"
        dead = f"; dead letters in {self.dead_letters}" if self.dead_letters and (self.failed or self.unknown) else ""
        return (
            f"{self.name}: {self.rows} rows: {counts}{ending}{resumed}; {sent}; "
            f"{self.seconds:.1f} s, {self.rate:.0f} rows/s{dead}"
        )
