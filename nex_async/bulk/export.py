"""Export: a listing into a file, all of it or none, resumable; or into Arrow batches."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast

from ..errors import DecodeError, InvalidRequestError, PermissionDeniedError
from ..models import Object, Record
from ..models.base import decode_rows
from ..paging import OnBadRow
from ..routes import GET_LIST, GET_OBJECT
from ..transport.options import RequestOptions
from ..transport.sender import Sender
from .export_options import (
    OWN,
    Compression,
    ExportOptions,
    Format,
    checked_batch,
    checked_structured,
    checked_window,
    format_of,
    path_of,
)
from .formats.columns import Column, columns_of, inferred, select
from .formats.lines import BadRow, Lines
from .formats.tables import SheetReader
from .partitions import Converter, Partition, Read, Reader
from .progress import Meter
from .sinks import Checkpoint, Desk, Layout, Paths, Sink, State, translated

__all__ = ["Compression", "Export", "ExportOptions", "ExportReport", "Format"]

T = TypeVar("T")
_BATCH_ROWS = 4_096
_BATCH_BYTES = 4 << 20
_BATCH_SECONDS = 0.25
_TAIL = 1_000
"""So many of the newest ids are noted, by which a later run knows rows that came already."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export came to."""

    path: Path
    rows: int
    """Rows in the file, those of earlier runs that this one went on from included."""
    bad_rows: int
    """Rows that cannot be decoded, or have no id."""
    bad_rows_path: Path | None
    """The JSON Lines file that holds them, where there are any."""
    bytes: int
    """The size of the file."""
    seconds: float
    """How long this run took."""
    resumed_at: int | None
    """How many rows an earlier run had written that this one went on from; None if it began anew."""
    unstable: bool
    """Whether the listing shrank meanwhile, so that rows may have been skipped."""


class Export:
    """An export that is yet to run: ``await`` it, or iterate over `as_arrow()`.

    It belongs to the caller: it runs while it is awaited, and ends with a cancellation, which leaves a part file to go on
    from. See `Records.export`.
    """

    def __init__(
        self,
        sender: Sender,
        whole: Partition,
        to: str | os.PathLike[str] | None,
        options: ExportOptions,
        *,
        parent: str | None = None,
        columns: tuple[Column, ...] | None = None,
    ) -> None:
        chosen: dict[str, Any] = {name: value for name, value in options.items() if name in OWN}
        rest: dict[str, Any] = {name: value for name, value in options.items() if name not in OWN}
        self._options = cast(RequestOptions, rest)
        sender.settings.merged(self._options)
        self._sender = sender
        self._whole = whole
        self._parent = parent
        self._known = columns
        self._window = checked_window(chosen.get("window", 8))
        self._resume: bool = chosen.get("resume", True)
        self._overwrite: bool = chosen.get("overwrite", True)
        self._meter = Meter(f"export {whole.name}", chosen.get("progress"))
        self._paths: Paths | None = None
        self._format: Format = "arrow"
        self._layout = Layout(structured=checked_structured(chosen.get("structured", "json")))
        self.bad_rows: int = 0
        """Rows that the last run could not use."""
        self.unstable: bool = False
        """Whether the listing shrank while it was read, so that rows may have been skipped."""
        if to is not None:
            level = chosen.get("level")
            self._paths = Paths(path_of(to))
            self._format, packed = format_of(self._paths.target, chosen.get("format"), chosen.get("compression"), level)
            self._layout = Layout((), self._layout.structured, packed, level)

    def __await__(self) -> Generator[Any, None, ExportReport]:
        return self._run().__await__()

    async def as_arrow(self, batch_rows: int = 65_536, *, on_bad_row: OnBadRow = "raise") -> AsyncGenerator[Any, None]:
        """Iterate over the rows as pyarrow record batches, of `batch_rows` rows each but the last; writes no file.

        A row that cannot be decoded raises `DecodeError` when its batch is due, or is counted in `bad_rows` with
        ``on_bad_row="skip"``. Raises `InvalidRequestError` without pyarrow: ``pip install "nex-async[parquet]"``.
        """
        checked_batch(batch_rows, on_bad_row)
        from .formats.arrow import BatchReader, Former

        columns, structured = await self._columns(), self._layout.structured
        former = await asyncio.to_thread(Former, columns, structured)
        convert = BatchReader(columns, structured, former)
        reader = Reader(self._whole, self._sender, self._options, convert, window=self._window)
        self.bad_rows, self.unstable, done, rows = 0, False, 0, 0
        held: list[Any] = []
        batches: list[Any] = []
        async with aclosing(reader.pages()) as pages:
            async for page in pages:
                held.append(page.page)
                bad, done, rows, final = page.bad, done + page.count, rows + page.count, page.following is None
                if bad or final or rows >= min(batch_rows, _BATCH_ROWS):
                    batch, unfit = await asyncio.to_thread(former.batch, held)
                    batches.append(batch)
                    held, rows, bad = [], 0, bad + unfit
                self.bad_rows += len(bad)
                if bad and on_bad_row == "raise":
                    raise DecodeError(f"row {bad[0].position} cannot be used: {bad[0].problem}", raw=bad[0].raw)
                self.unstable = reader.unstable
                self._meter.total = page.total
                self._meter.tell(done, self.bad_rows, final=final)
                whole, batches = _cut(batches, batch_rows, final)
                for batch in whole:
                    yield batch

    # ---- the run ----------------------------------------------------------------------------------------------------

    async def _run(self) -> ExportReport:
        paths = self._paths
        if paths is None:
            raise InvalidRequestError("an export to a file needs to=", argument="to")
        sink = _sink(self._format, paths)
        desk = Desk(paths, sink, self._identity(), resume=self._resume, overwrite=self._overwrite)
        began = monotonic()
        with ThreadPoolExecutor(1, thread_name_prefix="nex-async export") as executor:
            loop = asyncio.get_running_loop()

            async def run(function: Callable[..., T], *args: Any) -> T:
                """Run a function on the export's thread; even when cancelled, not without its end."""
                return await _to_the_end(loop.run_in_executor(executor, partial(_named, paths.target, function, *args)))

            try:
                checkpoint = await run(desk.claim)
                layout = await self._laid_out(checkpoint)
                state = await run(desk.begin, layout, checkpoint)
                resumed = state.rows if state.position else None
                unstable = await self._pump(desk, layout, state, run)
                size = await run(desk.finish)
            finally:
                await run(desk.leave)
        end = desk.state
        self._meter.tell(end.rows, end.bad, final=True)
        bad_path = paths.bad if end.bad else None
        return ExportReport(paths.target, end.rows, end.bad, bad_path, size, monotonic() - began, resumed, unstable)

    async def _pump(self, desk: Desk, layout: Layout, state: State, run: Callable[..., Any]) -> bool:
        """Read pages and hand them to the thread, one batch being written while the next one is read."""
        convert: Converter[Any] = await self._converter(layout, run)
        part = replace(self._whole, start=state.position)
        reader: Reader[Any] = Reader(part, self._sender, self._options, convert, window=self._window, seen=state.tail)
        self._meter.start(state.rows + state.bad)
        batch, unstable, before = _Batch(), state.unstable, state.total
        writing: asyncio.Task[State] | None = None
        try:
            async with aclosing(reader.pages()) as pages:
                async for page in pages:
                    unstable = unstable or reader.unstable or (page.total or 0) < (before or 0)
                    before, self._meter.total = page.total, page.total
                    batch.add(page)
                    await asyncio.sleep(0)  # the loop's turn: pages that came already would follow without it
                    if page.following is not None and not batch.due():
                        continue
                    if writing is not None:
                        self._tell(await writing)
                    writing, batch = asyncio.ensure_future(run(desk.put, *batch.taken(unstable))), _Batch()
            if writing is not None:
                self._tell(await writing)
        except BaseException:
            # What has come is written all the same, so that it need not come again; in its order, or not at all.
            if writing is not None:
                await _to_the_end(asyncio.gather(writing, return_exceptions=True))
            if batch and not (writing and (writing.cancelled() or writing.exception())):
                await asyncio.gather(run(desk.put, *batch.taken(unstable)), return_exceptions=True)
            raise
        return unstable

    async def _converter(self, layout: Layout, run: Callable[..., Any]) -> Any:
        """Return what decodes pages and makes of them what the file takes."""
        if self._format == "jsonl":
            return Lines()
        if self._format in ("csv", "sqlite"):
            return SheetReader(layout.columns, layout.structured, texts=True)
        from .formats.arrow import BatchReader, Former

        former = await run(Former, layout.columns, layout.structured)
        return BatchReader(layout.columns, layout.structured, former)

    def _tell(self, state: State) -> None:
        self.bad_rows = state.bad
        self._meter.tell(state.rows + state.bad, state.bad)

    def _identity(self) -> dict[str, Any]:
        whole, layout = self._whole, self._layout
        attributes = list(whole.attributes) if isinstance(whole.attributes, tuple) else whole.attributes
        return {
            "base_url": self._sender.state.place,
            "kind": whole.kind,
            "name": whole.name,
            "attributes": attributes,
            "sort": whole.sort,
            "format": self._format,
            "compression": layout.compression,
            "structured": layout.structured,
        }

    # ---- columns ----------------------------------------------------------------------------------------------------

    async def _laid_out(self, checkpoint: Checkpoint | None) -> Layout:
        """Return the layout of the file: as it was begun, or with the columns the server's definition gives."""
        if self._format == "jsonl":
            return self._layout
        columns = checkpoint.layout.columns if checkpoint is not None else await self._columns()
        return Layout(columns, self._layout.structured, self._layout.compression, self._layout.level)

    async def _columns(self) -> tuple[Column, ...]:
        """Return the attributes' columns: from the definition, and where it does not tell, from the first page."""
        if self._known is not None:
            return self._known
        whole = self._whole
        wanted = whole.attributes
        if wanted == "none":
            return ()
        known: dict[str, Column] = {}
        readable = True
        try:
            if whole.kind == "object":
                known = columns_of(await self._definition(GET_OBJECT, whole.name))
            else:
                if self._parent is not None:
                    known = columns_of(await self._definition(GET_OBJECT, self._parent))
                known |= columns_of(await self._definition(GET_LIST, whole.name))
        except PermissionDeniedError:
            readable = False
        if isinstance(wanted, tuple):
            if readable and all(slug in known for slug in wanted):
                return select(known, wanted)
        elif wanted == "all" and known and readable and (whole.kind == "object" or self._parent is not None):
            return select(known, None)
        seen = await self._seen()
        if wanted == "all" and readable:
            seen = {**dict.fromkeys(known, ()), **seen}
        for slug, values in seen.items():
            known.setdefault(slug, inferred(slug, values))
        return select(known, wanted if isinstance(wanted, tuple) else list(seen))

    async def _definition(self, route: Any, name: str) -> Object:
        found: Object = await self._sender.send(route, (name,), options=self._options)
        return found

    async def _seen(self) -> dict[str, Sequence[Any]]:
        """Return the values of the first page, by attribute, in the order they appear."""
        source = self._whole.source(self._sender, self._options, partial(decode_rows, Record))
        values: dict[str, list[Any]] = {}
        for record in (await source.fetch(self._whole.start)).rows:
            try:
                attributes = record.attributes
            except DecodeError:
                continue
            for slug, value in attributes.items():
                values.setdefault(slug, []).append(value)
        return dict(values)


class _Batch:
    """Pages that are written together, and how far they reach."""

    def __init__(self) -> None:
        self._pages: list[Any] = []
        self._bad: list[BadRow] = []
        self._ids: deque[list[str]] = deque(maxlen=_TAIL)
        self._position = 0
        self._total: int | None = None
        self._rows = 0
        self._bytes = 0
        self._began = monotonic()

    def __len__(self) -> int:
        return len(self._pages)

    def add(self, read: Read[Any]) -> None:
        self._pages.append(read.page)
        self._bad += read.bad
        self._ids.append(read.ids)
        self._position = read.position + read.received if read.following is None else read.following
        self._total = read.total
        self._rows += read.count
        self._bytes += read.size

    def due(self) -> bool:
        """Whether it is big or old enough to be written."""
        return self._rows >= _BATCH_ROWS or self._bytes >= _BATCH_BYTES or monotonic() - self._began > _BATCH_SECONDS

    def taken(self, unstable: bool) -> tuple[list[Any], list[BadRow], State]:
        """Return what the thread needs: pages, bad rows, and the state once they are written."""
        newest = islice(chain.from_iterable(map(reversed, reversed(self._ids))), _TAIL)
        return self._pages, self._bad, State(self._position, 0, 0, self._total, unstable, list(newest))


def _cut(batches: list[Any], size: int, final: bool) -> tuple[list[Any], list[Any]]:
    """Return batches of `size` rows made of others, and what is left over for the next one."""
    import pyarrow as pa

    rows = sum(batch.num_rows for batch in batches)
    if not rows or (rows < size and not final):
        return [], batches if rows else []
    whole = pa.Table.from_batches(batches).combine_chunks().to_batches(max_chunksize=size)
    if not final and whole[-1].num_rows < size:
        return whole[:-1], whole[-1:]
    return whole, []


async def _to_the_end(future: asyncio.Future[T]) -> T:
    """Wait for what cannot be stopped; a cancellation meanwhile is raised after its end."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:
            break
    if cancelled is not None:
        if not future.cancelled():
            future.exception()
        raise cancelled
    return future.result()


def _named(target: Path, function: Callable[..., T], *args: Any) -> T:
    try:
        return function(*args)
    except Exception as error:
        named = translated(error, target)
        if named is error:
            raise
        raise named from error


def _sink(format: Format, paths: Paths) -> Sink:
    if format in ("parquet", "arrow"):
        from .formats.arrow import ArrowSink, ParquetSink

        return ParquetSink(paths) if format == "parquet" else ArrowSink(paths)
    if format == "sqlite":
        from .formats.database import SqliteSink

        return SqliteSink(paths)
    from .formats.files import CsvSink, JsonLinesSink

    return JsonLinesSink(paths) if format == "jsonl" else CsvSink(paths)
