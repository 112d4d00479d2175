"""Changes: the rows of a listing as Arrow tables, everything once, and from then on what changed since a watermark."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import msgspec

from ..errors import DecodeError
from ..models import Record
from ..models.base import Rows, decode_rows
from ..paging import OnBadRow
from ..transport.options import RequestOptions
from ..transport.sender import Sender
from ..walk import StableWalk
from .formats.arrow import Block, Former
from .formats.columns import Column, Structured
from .formats.lines import BadLines, BadRow
from .formats.tables import Sheet, SheetPage, SheetReader
from .partitions import MOST_PAGES, Partition, Reader

__all__ = ["Changes"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Changes:
    """Reads an object's records, or a list's members, as Arrow tables of about `batch_rows` rows.

    Values of several are texts that hold a JSON array, which every database takes. Needs pyarrow. Iterate over
    `everything()` or `since()`, once; what they found out is told by the attributes after that.
    """

    def __init__(
        self,
        sender: Sender,
        part: Partition,
        columns: tuple[Column, ...],
        options: RequestOptions,
        *,
        structured: Structured = "json",
        on_bad_row: OnBadRow = "raise",
        window: int = 8,
        batch_rows: int = 65_536,
    ) -> None:
        self.watermark: datetime | None = None
        """The newest change that the server showed before the reading began, never later than now; None if it told none."""
        self.unstable: bool = False
        """Whether the listing shrank while it was read, so that a row may have been skipped."""
        self.sorted: bool = True
        """False if the rows did not come in the order that was asked for."""
        self.bad_rows: int = 0
        """Rows that could not be used, and were left out."""
        self._sender = sender
        self._part = part
        self._options = options
        self._columns = columns
        self._structured: Structured = structured
        self._on_bad_row: OnBadRow = on_bad_row
        self._window = window
        self._batch_rows = batch_rows

    async def everything(self) -> AsyncGenerator[Any, None]:
        """Iterate over all rows, by their creation, as tables; the last one may be empty. Several pages are in flight.

        What changes meanwhile lies beyond `watermark`, which is asked for first. Raises `DecodeError` for a row that cannot
        be used, unless those are skipped, and whatever a listing raises.
        """
        former = await asyncio.to_thread(_former, self._columns, self._structured)
        self.watermark = await self._newest()
        convert = SheetReader(self._columns, self._structured, texts=True)
        reader = Reader(self._part, self._sender, self._options, convert, window=self._window)
        order, held, rows = _Order("created_at", descending=False), list[SheetPage | Block](), 0
        async with aclosing(reader.pages()) as pages:
            async for read in pages:
                self._count(read.bad)
                page, final = read.page, read.following is None
                held.append(page if page.lines is not None else former.block(page))
                rows += read.count
                if rows >= self._batch_rows or final:
                    table = await self._formed(former, held)
                    order.take(table)
                    held, rows = [], 0
                    yield table
        self.unstable, self.sorted = reader.unstable, order.kept

    async def since(self, floor: datetime, *, is_sorted: bool = True) -> AsyncGenerator[Any, None]:
        """Iterate over the rows that changed at `floor` or later, newest first, as tables of a page each.

        Reads the listing by `-updated_at` until it meets an older row; to its end where the server is known not to sort, or
        is found out not to. Each page overlaps the one before by a row, so that rows deleted meanwhile hide no other.
        Raises as `everything` does.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        former = await asyncio.to_thread(_former, self._columns, self._structured)
        convert = SheetReader(self._columns, self._structured, texts=True)
        source = replace(self._part, sort="-updated_at").source(self._sender, self._options, convert.decode)
        walk: StableWalk[Any] = StableWalk(source, 0, MOST_PAGES, set())
        order, now = _Order("updated_at", descending=True), datetime.now(timezone.utc)
        while not walk.done:
            position = walk.position
            assert isinstance(position, int)
            page = await source.fetch(position)
            self._count(_bad_of(page, position))
            table = await self._formed(former, [convert.page(position, walk.take(page))])
            order.take(table)
            if position == 0 and order.newest is not None:
                self.watermark = min(order.newest, now)
            recent = pc.call_function("greater_equal", [table["updated_at"], _scalar(floor)])
            changed = table.filter(pc.call_function("coalesce", [recent, pa.scalar(True)]))
            if changed.num_rows:
                yield changed
            if changed.num_rows < table.num_rows and order.kept and is_sorted:
                break
        self.sorted = is_sorted and order.kept

    async def _newest(self) -> datetime | None:
        probe = replace(self._part, sort="-updated_at", attributes="none", limit=1)
        now = datetime.now(timezone.utc)
        rows = (await probe.source(self._sender, self._options, partial(decode_rows, Record)).fetch(0)).rows
        newest = rows[0].updated_at if rows else None
        return None if newest is None else min(newest, now)

    async def _formed(self, former: Former, held: Sequence[SheetPage | Block]) -> Any:
        table, bad = await asyncio.to_thread(self._form, former, held)
        self._count(bad)
        return table

    def _form(self, former: Former, held: Sequence[SheetPage | Block]) -> tuple[Any, list[BadRow]]:
        """Return pages as a table, and the rows that turn out to be bad. Not for the event loop."""
        import pyarrow as pa

        blocks: list[Block] = []
        bad: list[BadRow] = []
        for page in held:
            if isinstance(page, Block):
                blocks.append(page)
                continue
            sheet = Sheet(self._columns, self._structured, texts=True).take(page)
            bad += sheet.bad
            blocks.append(former.block(sheet))
        return pa.Table.from_batches([former.batch(blocks)[0]]), bad

    def _count(self, bad: Sequence[BadRow]) -> None:
        """Count rows that cannot be used. Raises `DecodeError` for the first, unless they are skipped."""
        if bad and self._on_bad_row == "raise":
            raise DecodeError(f"row {bad[0].position} cannot be used: {bad[0].problem}", raw=bad[0].raw)
        self.bad_rows += len(bad)


class _Order:
    """Whether a column of timestamps kept to an order, over all tables of a reading."""

    def __init__(self, name: str, *, descending: bool) -> None:
        self.kept: bool = True
        self.newest: datetime | None = None
        self._name = name
        self._descending = descending
        self._last: int | None = None

    def take(self, table: Any) -> None:
        """Look at the next rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        moments = table[self._name].combine_chunks().cast(pa.int64())
        if not len(moments):
            return
        if moments.null_count:
            self.kept = False
            return
        first, last, count = moments[0].as_py(), moments[-1].as_py(), len(moments)
        follows = "less_equal" if self._descending else "greater_equal"
        pairs = pc.call_function(follows, [moments.slice(1), moments.slice(0, count - 1)])
        joins = self._last is None or (first <= self._last if self._descending else first >= self._last)
        self.kept = self.kept and joins and all(pairs.to_pylist())
        newest = _EPOCH + timedelta(microseconds=max(first, last))
        self.newest = newest if self.newest is None else max(self.newest, newest)
        self._last = last


def _former(columns: tuple[Column, ...], structured: Structured) -> Former:
    flat = (msgspec.structs.replace(each, kind="text", many=False) if each.many else each for each in columns)
    return Former(tuple(flat), structured)


def _bad_of(page: Rows[Any], position: int) -> list[BadRow]:
    rows = page.bad if isinstance(page, BadLines) else []
    return [row._replace(position=position + row.position) for row in rows]


def _scalar(moment: datetime) -> Any:
    import pyarrow as pa

    return pa.scalar(moment, pa.timestamp("us", tz="UTC"))
