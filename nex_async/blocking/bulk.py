"""Bulk that blocks: runs, exports and mirrors, and the parts of a listing."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ..errors import InvalidRequestError
from .base import Client, over
from .desk import Desk
from .feeds import following

if TYPE_CHECKING:
    from ..bulk import export, mirror, partitions, writer
    from ..bulk.export import ExportReport
    from ..bulk.mirroring.report import MirrorReport
    from ..bulk.report import BulkReport, Outcome
    from ..paging import OnBadRow
    from .partitions import Partition
    from .portal import Portal

__all__ = ["BulkRun", "Export", "Mirror", "Rows", "each", "readable"]

T = TypeVar("T")

Rows: TypeAlias = "Iterable[Any]"
"""Rows to write: mappings or Structs, each an object of its own, for some are pulled before they are sent. They are pulled
by the thread that waits for the run, and may block it."""

_AT_ONCE = 256
"""So many outcomes come over from the loop at a time, if they are there."""


class BulkRun:
    """Many rows on their way into the API.

    ``report = run.run()`` carries it to its end. ``with run: for outcome in run:`` hands out one `Outcome` per row, in the
    order in which they end; leaving the block early stops pulling rows, gives those on their way five seconds, and writes
    the journal. A run is started once, and belongs to the client it came from. Rows are pulled by the thread that runs it
    or iterates over it, while that waits: they may come from a SQLite cursor or a queue, and no other thread touches them.
    While a source waits for its next row, outcomes wait too.

    With a journal, a run that was stopped or killed at any point is gone on with by the same call: upserts, updates and
    deletes take effect exactly once or are listed as failed; creates too, or are listed as unknown. Raises
    `MappingError` when the first rows do not fit their object, `CheckpointError` for a journal of other rows,
    `StorageError`, `TooManyDeadLetters`, `BulkStalled`, `AuthenticationError`, `PermissionDeniedError`, `NotFoundError` when
    the object is missing, and whatever the source raises.
    """

    def __init__(self, nex: Client, behind: writer.BulkRun, desk: Desk) -> None:
        self._nex = nex
        self._async = behind
        self._desk = desk
        self._portal: Portal | None = None
        self._outcomes: deque[Outcome] = deque()

    @property
    def report(self) -> BulkReport:
        """What the run has come to so far."""
        return self._async.report

    def run(self) -> BulkReport:
        """Carry the run to its end, and return its report."""
        return self._nex._call(self._async._whole, self._desk)

    def __enter__(self) -> BulkRun:
        self._nex._call(self._async.__aenter__, self._desk, undo=lambda: _stopped(self._async))
        self._portal = self._nex._lease.running()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        portal = self._portal
        if portal is None or portal.ended:
            over(self._async.__aexit__(kind, error, trace))  # the client was closed, and the run with it
        elif not portal.forked:
            try:
                self._desk.wait(portal, lambda: self._async.__aexit__(kind, error, trace))
            except BaseException:
                portal.begin(lambda: _stopped(self._async))  # this may have been interrupted before it began
                raise

    def __iter__(self) -> BulkRun:
        return self

    def __next__(self) -> Outcome:
        if not self._outcomes:
            if self._portal is None:
                raise InvalidRequestError("use a run as `with run:`, or call `run()`")
            self._outcomes.extend(self._desk.wait(self._portal, lambda: _some(self._async)))
            if not self._outcomes:
                raise StopIteration
        return self._outcomes.popleft()

    def stop(self) -> None:
        """Pull no more rows; those on their way are finished, and the run ends."""
        self._nex._on_loop(self._async.stop)

    def retry_dead(self) -> BulkRun:
        """Return a run that sends the rows of the dead-letter file again, with the same options.

        It is resumable by itself. When it ends, the file holds the rows that failed again, and those whose outcome is
        unknown, which are not sent. A row that comes late takes effect late: where a later row of its key was written, the
        older values come back. Needs a `dead_letters` file, or a journal; the run this is called on has ended, or need not
        have been started.
        """
        return BulkRun(self._nex, self._async.retry_dead(), Desk())

    def __repr__(self) -> str:
        return repr(self._async)


async def _stopped(run: writer.BulkRun) -> None:
    run.stop()


async def _some(run: writer.BulkRun) -> list[Outcome]:
    """Return the next outcome, and others that are there already; nothing at the end."""
    outcomes = list(await following(run))
    while run._outcomes and len(outcomes) < _AT_ONCE:
        outcomes.append(await anext(run))
    return outcomes


def readable(parts: Iterable[partitions.Partition]) -> list[Partition]:
    """Return the parts of a listing as blocking clients read them."""
    from .partitions import Partition  # it brings much of the bulk, for those who ask for it

    return [Partition.of(part) for part in parts]


class Export:
    """An export that is yet to run: `run()` it, or iterate over `as_arrow()`.

    It runs while it is waited for, and ends when that is interrupted, which leaves a part file to go on from. See
    `Records.export`.
    """

    def __init__(self, nex: Client, behind: export.Export) -> None:
        self._nex = nex
        self._async = behind

    @property
    def bad_rows(self) -> int:
        """Rows that the last run could not use."""
        return self._async.bad_rows

    @property
    def unstable(self) -> bool:
        """Whether the listing shrank while it was read, so that rows may have been skipped."""
        return self._async.unstable

    def run(self) -> ExportReport:
        """Write the file, and return the report."""
        return self._nex._call(self._async._run)

    def as_arrow(self, batch_rows: int = 65_536, *, on_bad_row: OnBadRow = "raise") -> Generator[Any, None, None]:
        """Iterate over the rows as pyarrow record batches, of `batch_rows` rows each but the last; writes no file.

        A row that cannot be decoded raises `DecodeError` when its batch is due, or is counted in `bad_rows` with
        ``on_bad_row="skip"``. Raises `InvalidRequestError` without pyarrow: ``pip install "nex-async[parquet]"``.
        """
        return each(self._nex, self._async.as_arrow(batch_rows, on_bad_row=on_bad_row))


class Mirror:
    """Keeps a SQLite file in step with objects and lists of a workspace, and with the relationships between records.

    ``with nex.mirror("crm.sqlite", objects=["person"]) as mirror: mirror.sync()``. What it promises, and how the file looks,
    is told by `nex_async.Mirror`.
    """

    def __init__(self, nex: Client, behind: mirror.Mirror) -> None:
        self._nex = nex
        self._async = behind

    @property
    def path(self) -> str:
        """The file."""
        return self._async.path

    def __enter__(self) -> Mirror:
        self._nex._call(self._async.__aenter__, undo=self._async.aclose)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching and close the file. Idempotent; a closed mirror is not opened again."""
        portal = self._nex._lease.running()
        if portal is not None:
            portal.close(self._async.aclose)

    def sync(self, *, sweep: bool = True) -> MirrorReport:
        """Bring the file up to date once, and tell what changed.

        `sweep=False` leaves out the look for deleted rows. Raises what the server refuses a call with (the scopes are
        `object.read`, `record.read`, for lists `list.read` and `list.member.read`, for relationships `relationship.read`),
        `TenantMismatch` when the file belongs to another workspace, `CheckpointError` when it is no mirror, `StorageError`.
        What was done before an error is kept.
        """
        return self._nex._call(lambda: self._async.sync(sweep=sweep))

    def watch(self, *, interval: float = 30.0, sweep_every: float = 3600.0) -> Generator[MirrorReport, None, None]:
        """Keep the file in step for as long as this is iterated; each look at the server yields its report.

        The first look comes at once, the next every `interval` seconds, or about a second after an insight came over the
        stream, which hints at a change. Every `sweep_every` seconds a look finds what was deleted. Without the stream the
        mirror looks at intervals. Errors that may pass (no connection, 5xx, 429) are logged and tried again; others are
        raised, such as 401, 403 and 404. Raises `InvalidRequestError` for times that are not positive.
        """
        return each(self._nex, self._async.watch(interval=interval, sweep_every=sweep_every))


def each(nex: Client, items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Iterate over what comes from the loop; when the iteration is left, it is closed there."""
    reader = threading.get_ident()
    try:
        while given := nex._call(lambda: following(items)):
            yield given[0]
            reader = threading.get_ident()
    finally:
        portal = nex._lease.running()
        if portal is not None:
            if threading.get_ident() == reader:
                portal.call(items.aclose)
            else:  # the collector came, on a thread that must not wait
                portal.begin(items.aclose)
