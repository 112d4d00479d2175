"""How a listing is read into its table: everything once, then what changed, and a sweep for what is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from time import time
from typing import Any, TypeVar

import anyio
import msgspec

from ...errors import DecodeError, NotFoundError, PaginationError
from ...models.base import Rows, decode, decode_rows, parse_timestamp
from ...routes import GET_RECORD, LIST_MEMBERS, LIST_RECORDS, Route
from ...storage import Database
from ...transport.sender import Sender
from ...walk import Position, Source, Walk
from ..progress import Meter
from . import file
from .file import Row, Seen, State, Table
from .report import TableReport

__all__ = ["OVERLAP", "RECORDS", "Reader"]

T = TypeVar("T")

OVERLAP = 60.0
"""Seconds, by the server's clock, in which a change may still come to light that is older than one seen already."""
_MOST_PAGES = 100_000
_MOST_REFUSED = 50
"""So many pages may be refused, and a third of all beyond that, before the listing is given up."""
_MOST_STALE = 1000
"""So many rows are fetched one by one; where more are not as they should be, everything is read again."""
_MOST_REPEATS = 8
_SWEEPS = 3
_SAMPLE = 5
_PARALLEL = 8
_MICROS = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

RECORDS: Route[Rows[Row]] = replace(LIST_RECORDS, decode=partial(decode_rows, Row))  # type: ignore[assignment]
_MEMBERS: Route[Rows[Row]] = replace(LIST_MEMBERS, decode=partial(decode_rows, Row))  # type: ignore[assignment]
_RECORD: Route[Row] = replace(GET_RECORD, decode=partial(decode, Row))  # type: ignore[assignment, arg-type]


class _Steps(Walk[Row]):
    """A walk whose pages overlap by a row: one that is not led by a row met before lies beyond rows that were missed."""

    def __init__(self, start: int, *, shifts: bool) -> None:
        super().__init__(_SOURCE, max(0, start - 1), _MOST_PAGES)
        self._patience = _MOST_REPEATS if shifts else 0  # rows that change go to the front, and push others back
        self._repeats = 0
        self.position: Position
        self.overlaps: bool = start > 0
        """Whether the page at `position` should begin with a row that was met."""
        self.is_exact: bool = start == 0
        """Whether every page began where the one before ended, and the server counted the same rows throughout."""
        self._back = 1
        self._refused = 0
        self._went_back = False

    @property
    def offset(self) -> int:
        """Where the next page begins."""
        assert isinstance(self.position, int)
        return self.position

    def advance(self, rows: Rows[Row]) -> None:
        """Take a page, and step to the next, which begins with the last row of this one."""
        offset, before = self.offset, self.total
        received = len(rows.rows) + len(rows.errors)
        self.take(rows)
        if before not in (None, self.total) or rows.errors:
            self.is_exact = False
        self.overlaps = not rows.errors and received > 1 and self.offset == offset + received
        if self.overlaps:
            self.position = offset + received - 1
        elif not self.done:
            self.is_exact = False

    def go_back(self, refused: int, stride: int) -> None:
        """Step back from a page that was refused: a page at first, then further and further. Raises `PaginationError`."""
        self._refused += 1
        if self._refused > _MOST_REFUSED + self.pages // 3:
            raise PaginationError("the listing changes faster than it can be read, or has another order each time")
        self.is_exact = self.done = False
        self._went_back = True
        self._back = max(self._back, stride - 1, 1)
        self.position = max(0, refused - self._back)
        self._back *= 2
        self.overlaps = self.offset > 0

    def accepted(self) -> None:
        """Note that a page was not refused."""
        self._back = 1
        self._went_back = False

    def _without_seen(self, rows: list[Row]) -> list[Row]:
        if [row.id for row in rows] != self._last_ids:
            self._repeats = 0
        return super()._without_seen(rows)

    def _fresh(self, rows: list[Row], ids: list[str]) -> list[Row]:
        return rows

    def _met_again(self, count: int) -> None:
        self._repeats += 1
        if self._repeats > self._patience and not self._went_back:
            super()._met_again(count)


async def _no_page(position: Position) -> Rows[Row]:
    raise NotImplementedError(position)


_SOURCE: Source[Row] = Source(_no_page, "offset", "mirror")


@dataclass(slots=True)
class _Pass:
    """One reading of a listing, from its first row on."""

    sort: str
    floor: int | None = None
    """Stop at rows that changed before this; None reads all."""
    ids_only: bool = False
    state: State | None = None
    """Kept with every page: this is the first reading."""
    seen: Seen = field(default_factory=Seen)
    unknown: set[str] = field(default_factory=set)
    """The ids it has met that are not in the table."""
    stale: set[str] = field(default_factory=set)
    """The ids of rows that are other than in the table."""
    is_whole: bool = False
    """Whether it came to the listing's end."""
    is_exact: bool = False
    """Whether nothing moved meanwhile, and as many rows came as the server counts."""
    newest: int | None = None
    """The newest change on the first page."""
    ordered: bool = True
    schema: int = 0
    """What `schema_version` said when it began."""
    differs: bool = False
    """Whether it saw two different moments, without which an order cannot be told."""

    @property
    def met(self) -> int:
        """How many rows it has met."""
        return self.seen.count + len(self.unknown)

    @property
    def is_hopeless(self) -> bool:
        """Whether so many rows are not as they should be that everything had better be read again."""
        return len(self.unknown) + len(self.stale) > _MOST_STALE

    def look_at(self, rows: Sequence[Row], *, first: bool) -> bool:
        """Note what a page says about the order; return whether it ends the pass."""
        descending = self.sort.startswith("-")
        field_name = self.sort.lstrip("-")
        before: int | None = None
        ends = False
        for row in rows:
            moment = micros(getattr(row, field_name))
            if moment is None:
                self.ordered = False
                continue
            if before is not None and moment != before:
                self.differs = True
                self.ordered = self.ordered and (moment < before) is descending
            before = moment
            if first and descending and (self.newest is None or moment > self.newest):
                self.newest = moment
            ends = ends or (self.floor is not None and moment < self.floor)
        return ends and self.ordered


def micros(text: str | None) -> int | None:
    """Return a timestamp in microseconds since 1970, None for none."""
    moment = parse_timestamp(text)
    if moment is None:
        return None
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * _MICROS + since.microseconds


class Reader:
    """Keeps one table in step with its listing."""

    def __init__(
        self,
        sender: Sender,
        database: Database,
        table: Table,
        meter: Meter,
        check: Callable[[Sequence[Row]], Awaitable[None]],
        page_size: int,
    ) -> None:
        self.report: TableReport = TableReport(table.name)
        self._sender = sender
        self._database = database
        self._table = table
        self._meter = meter
        self._check = check
        self._page_size = page_size
        self._done = 0

    async def read(self, *, sweep: bool) -> TableReport:
        """Bring the table up to date; with `sweep`, find what is gone. Raises `NexError`; what was done is kept."""
        table, began = self._table, asyncio.get_running_loop().time()
        self._meter.start(0)
        try:
            await self._fill()
            if table.state.phase == "reading":
                await self._read_everything()
            await self._keep(sweep=sweep)
        finally:
            self.report.seconds = asyncio.get_running_loop().time() - began
            self._meter.tell(self._done, self.report.unreadable, final=True)
        return self.report

    async def _fill(self) -> None:
        if self._table.state.filled is not None:
            while await self._database.run(file.fill_columns, self._table):
                pass

    async def _save(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self._table.state, name, value)
        await self._database.run(file.save_state, self._table)

    # ---- everything, once -------------------------------------------------------------------------------------------

    async def _read_everything(self) -> None:
        table = self._table
        self.report.full = True
        state = msgspec.structs.replace(table.state)
        if state.watermark is None:
            newest = (await self._page("-updated_at", 0, 1)).rows
            state.watermark = micros(newest[0].updated_at) if newest else None
            state.since = time()
        is_resumed = state.offset > 0
        one = _Pass("created_at", state=state)
        await self._run(one)
        sorts = one.ordered if one.differs or not one.ordered else None
        is_clean = one.is_whole and not is_resumed and one.is_exact and sorts is not False
        await self._save(phase="kept" if is_clean else "checking", offset=0, sorts=sorts)
        self.report.swept = is_clean

    # ---- what changed, and what is gone -----------------------------------------------------------------------------

    async def _keep(self, *, sweep: bool) -> None:
        table, state = self._table, self._table.state
        if table.kind == "list" and not self.report.full and (sweep or state.phase == "checking"):
            # Members carry the values of their records, whose changes leave no mark on the membership.
            await self._sweep()
            return
        if table.kind == "list" and not self.report.full:
            await self._run(_Pass("created_at"))
            return
        changes = await self._read_changes()
        due = (sweep and not self.report.swept) or state.phase == "checking"
        if due:
            await self._sweep(changes if changes.is_whole else None)

    async def _read_changes(self) -> _Pass:
        state, began = self._table.state, time()
        floor = state.watermark
        if floor is not None:
            floor = floor + 1 if state.settled else floor - int(OVERLAP * _MICROS)
        if state.sorts is False:
            floor = None
        one = _Pass("-updated_at", floor)
        await self._run(one)
        if one.newest is not None and one.newest > (state.watermark or 0):
            await self._save(watermark=one.newest, since=began, settled=False)
        elif not state.settled and began - state.since >= OVERLAP:
            await self._save(settled=state.watermark is not None)
        return one

    async def _sweep(self, done: _Pass | None = None) -> None:
        """Look for every row, and delete those that are gone; `done` is a whole reading that was just made."""
        for _ in range(_SWEEPS):
            if done is None:
                done = _Pass("created_at", ids_only=self._table.kind == "object")
                await self._run(done)
            if done.is_hopeless:
                done = _Pass("created_at")
                await self._run(done)
            is_settled = await self._delete_missing(done)
            await self._refresh([*done.unknown, *done.stale])
            if is_settled:
                self.report.swept = True
                await self._save(phase="kept")
                return
            done = None

    async def _delete_missing(self, done: _Pass) -> bool:
        """Delete what a whole reading has not met; return False where it must be read again before that can be told."""
        until = await self._database.run(file.last_row, self._table)
        newest = await self._newest_missing(done.seen, until)
        if not newest:
            return True
        if await self._database.run(file.schema_version) != done.schema:
            return False
        is_list = self._table.kind == "list"
        if done.is_exact and (is_list or len((await self._fetch(newest))[1]) == len(newest)):
            await self._delete_unseen(done.seen, until)
            return True
        if not is_list:
            await self._confirm_each(done.seen, until)
        return not is_list

    async def _newest_missing(self, seen: Seen, until: int) -> list[str]:
        """Return the ids of the newest few rows that were not met."""
        last, newest = 0, list[str]()
        while last < until:
            ids, last = await self._database.run(file.missing_rows, self._table, seen, last, until)
            newest = [*newest, *ids][-_SAMPLE:]
        return newest

    async def _delete_unseen(self, seen: Seen, until: int) -> None:
        last = 0
        while last < until:
            deleted, last = await self._database.run(file.delete_missing, self._table, seen, last, until)
            self.report.deleted += deleted

    async def _confirm_each(self, seen: Seen, until: int) -> None:
        """Ask for each row that was not met, and delete those that the server says are gone."""
        last = 0
        while last < until:
            ids, last = await self._database.run(file.missing_rows, self._table, seen, last, until)
            await self._delete((await self._fetch(ids))[1])

    async def _refresh(self, ids: Sequence[str]) -> None:
        """Read records one by one that a sweep has found to be other than they are here."""
        rows, gone = await self._fetch(ids)
        if rows:
            await self._check(rows)
            self._count(await self._database.run(file.apply_rows, self._table, rows, Seen()))
        await self._delete(gone)

    async def _delete(self, ids: Sequence[str]) -> None:
        if ids:
            self.report.deleted += await self._database.run(file.delete_rows, self._table, ids)

    async def _fetch(self, ids: Sequence[str]) -> tuple[list[Row], list[str]]:
        """Return the records with these ids, and the ids of those that are gone."""
        rows: list[Row] = []
        gone: list[str] = []
        queue = iter(ids)

        async def work() -> None:
            for one in queue:
                self.report.requests += 1
                try:
                    rows.append(await self._sender.send(_RECORD, (one,)))
                except NotFoundError:
                    gone.append(one)
                except DecodeError:
                    self.report.unreadable += 1

        workers = [asyncio.ensure_future(work()) for _ in range(min(_PARALLEL, len(ids)))]
        try:
            await asyncio.gather(*workers)
        finally:
            await _end(workers)
        return rows, gone

    # ---- a pass -----------------------------------------------------------------------------------------------------

    async def _run(self, one: _Pass) -> None:
        """Read a listing page by page; the next page is under way while one is written."""
        steps = _Steps(one.state.offset if one.state else 0, shifts=one.sort == "-updated_at")
        one.schema = await self._database.run(file.schema_version)
        page: Rows[Row] | None = None
        stride = 0
        while page is not None or not steps.done:
            if page is None:
                page = await self._page(one.sort, steps.offset, self._page_size, ids_only=one.ids_only)
            offset, is_checked = steps.offset, steps.overlaps and not page.errors
            stride = max(stride, len(page.rows))
            steps.advance(page)
            ends = one.look_at(page.rows, first=offset == 0)
            is_last = ends or steps.done
            writing = asyncio.ensure_future(self._write(one, page.rows, steps, is_checked=is_checked, is_last=is_last))
            writing.add_done_callback(_look_at_failure)
            following: Rows[Row] | None = None
            try:
                if not is_last:
                    following = await self._page(one.sort, steps.offset, self._page_size, ids_only=one.ids_only)
            finally:
                await asyncio.wait([writing])
            if not writing.result():
                steps.go_back(offset, stride)
                page = None
                continue
            steps.accepted()
            self._tell(page, offset, steps.total)
            if ends or one.is_hopeless:
                return
            page = following
        one.is_whole = True
        total = steps.total
        one.is_exact = steps.is_exact and (one.met >= total if total else total == 0 or one.met > 0)

    def _tell(self, page: Rows[Row], offset: int, total: int | None) -> None:
        self.report.rows_read += len(page.rows)
        self.report.unreadable += len(page.errors)
        self._done = offset + len(page.rows)
        self._meter.total = total or None
        self._meter.tell(self._done, self.report.unreadable)

    async def _write(self, one: _Pass, rows: Sequence[Row], steps: _Steps, *, is_checked: bool, is_last: bool) -> bool:
        """Write a page; return whether it was accepted."""
        led = self._is_led(one) if is_checked else None
        if one.ids_only:
            checked = await self._database.run(file.check_rows, self._table, rows, one.seen, led)
            if checked is not None:
                one.unknown.update(checked[0])
                one.stale.update(checked[1])
            return checked is not None
        state = one.state
        if state is not None and not is_last:
            state = msgspec.structs.replace(state, offset=steps.offset + steps.overlaps)
        applied = await self._database.run(file.apply_rows, self._table, rows, one.seen, led, state)
        self._count(applied)
        if applied is not None:
            one.state = state
        return applied is not None

    def _is_led(self, one: _Pass) -> file.Led:
        """Return the test of a page's first row: whether this reading has met it."""
        if one.state is not None:  # the first reading: what is in the table was met by it, perhaps before a restart
            return lambda _, number: number is not None
        seen, unknown = one.seen, one.unknown
        return lambda row_id, number: row_id in unknown if number is None else number in seen

    def _count(self, applied: file.Applied | None) -> None:
        if applied is not None:
            self.report.inserted += applied.inserted
            self.report.updated += applied.updated

    async def _page(self, sort: str, offset: int, limit: int, *, ids_only: bool = False) -> Rows[Row]:
        table = self._table
        body = {
            "attributes": "none" if ids_only else "all",
            "sort": {"attribute": sort.lstrip("-"), "direction": "desc" if sort.startswith("-") else "asc"},
            "limit": limit,
            "offset": offset,
        }
        self.report.requests += 1
        rows = await self._sender.send(RECORDS if table.kind == "object" else _MEMBERS, (table.key,), body=body)
        await self._check(rows.rows)
        return rows


def _look_at_failure(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    with anyio.CancelScope(shield=True):
        if tasks:
            await asyncio.wait(tasks)
