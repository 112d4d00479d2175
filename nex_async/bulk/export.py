"""Export: a listing into a file, all of it or none, resumable; or into Arrow batches."""

from __future__ import annotations

import asyncio
import importlib.util
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
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

from ..errors import DecodeError, InvalidRequestError, PermissionDeniedError
from ..models import Object, Record
from ..models.base import decode_rows
from ..paging import OnBadRow
from ..routes import GET_LIST, GET_OBJECT
from ..transport.options import RequestOptions
from ..transport.sender import Sender
from .formats.columns import Column, Structured, columns_of, inferred, select
from .formats.lines import BadLines, BadRow, Lines
from .formats.tables import Sheet, SheetReader
from .partitions import Partition, Read, Reader
from .progress import Meter, OnProgress
from .sinks import Checkpoint, Desk, Layout, Paths, Sink, State, translated

__all__ = ["Compression", "Export", "ExportOptions", "ExportReport", "Format"]

T = TypeVar("T")

Format: TypeAlias = Literal["jsonl", "csv", "sqlite", "parquet", "arrow"]
Compression: TypeAlias = Literal["gzip", "zstd", "snappy", "lz4", "none"]

_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".db": "sqlite",
    ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow",
}  # fmt: skip
_PACKED = {".gz": "gzip", ".zst": "zstd"}
_COMPRESSIONS: dict[Format, tuple[str, ...]] = {
    "jsonl": ("gzip", "zstd", "none"),
    "csv": ("gzip", "zstd", "none"),
    "sqlite": ("none",),
    "parquet": ("snappy", "zstd", "gzip", "lz4", "none"),
    "arrow": ("zstd", "lz4", "none"),
}
_BATCH_ROWS = 4_096
_BATCH_BYTES = 4 << 20
_BATCH_SECONDS = 0.25
_TAIL = 1_000
"""So many of the newest ids are noted, by which a later run knows rows that came already."""


class ExportOptions(RequestOptions, total=False):
    """What an export takes besides its own arguments, and besides `RequestOptions`."""

    format: Format
    """The format, where the name of the file does not tell it."""
    compression: Compression
    """`gzip` or `zstd` for JSON Lines and CSV, as the name of the file tells too; for Parquet `snappy` by default."""
    level: int
    """How hard to compress: 1 to 9 for gzip, 1 to 22 for zstd."""
    structured: Structured
    """How names, places, phones, money and profiles are written in tables: whole, as `json`; or as a reader's `text`."""
    window: int
    """Pages in flight, 1 to 256; 8 by default."""
    resume: bool
    """Go on from what a run of the same export left, as is the default; or begin anew."""
    overwrite: bool
    """Whether the file may be there already, as it may by default; it is replaced when the new one is complete."""
    progress: OnProgress
    """Called with a `Progress` a few times a second."""


OWN = frozenset(ExportOptions.__annotations__) - frozenset(RequestOptions.__annotations__)


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
    ) -> None:
        chosen: dict[str, Any] = {name: value for name, value in options.items() if name in OWN}
        rest: dict[str, Any] = {name: value for name, value in options.items() if name not in OWN}
        self._options = cast(RequestOptions, rest)
        sender.settings.merged(self._options)
        self._sender = sender
        self._whole = whole
        self._parent = parent
        self._window = _window(chosen.get("window", 8))
        self._resume: bool = chosen.get("resume", True)
        self._overwrite: bool = chosen.get("overwrite", True)
        self._meter = Meter(f"export {whole.name}", chosen.get("progress"))
        self._paths: Paths | None = None
        self._format: Format = "arrow"
        structured: Structured = chosen.get("structured", "json")
        if structured not in get_args(Structured):
            raise InvalidRequestError("structured must be 'json' or 'text'", argument="structured")
        self._layout = Layout(structured=structured)
        self.bad_rows: int = 0
        """Rows that the last run could not use."""
        if to is not None:
            self._paths = Paths(_path(to))
            self._format, packed = _format(self._paths.target, chosen.get("format"), chosen.get("compression"))
            _check(self._format, packed, chosen.get("level"))
            self._layout = Layout((), structured, packed, chosen.get("level"))

    def __await__(self) -> Generator[Any, None, ExportReport]:
        return self._run().__await__()

    async def as_arrow(self, batch_rows: int = 65_536, *, on_bad_row: OnBadRow = "raise") -> AsyncGenerator[Any, None]:
        """Iterate over the rows as pyarrow record batches, of `batch_rows` rows each but the last; writes no file.

        A row that cannot be decoded raises `DecodeError` when its batch is due, or is counted in `bad_rows` with
        ``on_bad_row="skip"``. Raises `InvalidRequestError` without pyarrow: ``pip install "nex-async[parquet]"``.
        """
        if isinstance(batch_rows, bool) or not isinstance(batch_rows, int) or batch_rows < 1:
            raise InvalidRequestError(
                f"batch_rows must be an integer of at least 1, not {batch_rows!r}", argument="batch_rows"
            )
        if on_bad_row not in ("raise", "skip"):
            raise InvalidRequestError("on_bad_row must be 'raise' or 'skip'", argument="on_bad_row")
        _need("pyarrow", "parquet")
        from .formats.arrow import BatchReader, batch_of, schema_of

        columns, structured = await self._columns(), self._layout.structured
        schema = await asyncio.to_thread(schema_of, columns)
        convert = BatchReader(columns, structured, schema)
        reader = Reader(self._whole, self._sender, self._options, convert.decode, window=self._window)
        self.bad_rows, done = 0, 0
        batches: list[Any] = []
        async with aclosing(reader.pages()) as pages:
            async for page in pages:
                made, bad, done = convert.page(page.position, page.items), _bad_of(page), done + len(page.items)
                for each in convert.batches([made]):
                    batch = each
                    if each is made:
                        sheet = await asyncio.to_thread(Sheet(columns, structured).add, made)
                        batch, bad = batch_of(sheet, schema), bad + sheet.bad
                    batches.append(batch)
                self.bad_rows += len(bad)
                if bad and on_bad_row == "raise":
                    raise DecodeError(f"row {bad[0].position} cannot be used: {bad[0].problem}", raw=bad[0].raw)
                self._meter.total = page.total
                self._meter.tell(done, self.bad_rows, final=page.following is None)
                whole, batches = _cut(batches, batch_rows, page.following is None)
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
        convert = await self._converter(layout, run)
        part = replace(self._whole, start=state.position)
        reader: Reader[Any] = Reader(part, self._sender, self._options, convert.decode, window=self._window, seen=state.tail)
        self._meter.start(state.rows + state.bad)
        batch, unstable, before = _Batch(), state.unstable, state.total
        writing: asyncio.Task[State] | None = None
        try:
            async with aclosing(reader.pages()) as pages:
                async for page in pages:
                    unstable = unstable or reader.unstable or (page.total or 0) < (before or 0)
                    before, self._meter.total = page.total, page.total
                    batch.add(page, convert.page(page.position, page.items))
                    await asyncio.sleep(0)  # the loop's turn: pages that came already would follow without it
                    if page.following is not None and not batch.due():
                        continue
                    ready = []
                    full, bad, reached = batch.taken(unstable)
                    for each in convert.batches(full):
                        ready.append(each)
                        await asyncio.sleep(0)
                    if writing is not None:
                        self._tell(await writing)
                    writing, batch = asyncio.ensure_future(run(desk.put, ready, bad, reached)), _Batch()
            if writing is not None:
                self._tell(await writing)
        except BaseException:
            # What has come is written all the same, so that it need not come again; in its order, or not at all.
            if writing is not None:
                await _to_the_end(asyncio.gather(writing, return_exceptions=True))
            if batch and not (writing and (writing.cancelled() or writing.exception())):
                full, bad, reached = batch.taken(unstable)
                await asyncio.gather(run(desk.put, list(convert.batches(full)), bad, reached), return_exceptions=True)
            raise
        return unstable

    async def _converter(self, layout: Layout, run: Callable[..., Any]) -> Any:
        """Return what decodes pages and makes of them what the file takes."""
        if self._format == "jsonl":
            return Lines()
        if self._format in ("csv", "sqlite"):
            return SheetReader(layout.columns, layout.structured, texts=True)
        from .formats.arrow import BatchReader, schema_of

        return BatchReader(layout.columns, layout.structured, await run(schema_of, layout.columns))

    def _tell(self, state: State) -> None:
        self.bad_rows = state.bad
        self._meter.tell(state.rows + state.bad, state.bad)

    def _identity(self) -> dict[str, Any]:
        whole, layout = self._whole, self._layout
        attributes = list(whole.attributes) if isinstance(whole.attributes, tuple) else whole.attributes
        return {
            "base_url": self._sender.state.url,
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

    def add(self, read: Read[Any], page: Any) -> None:
        self._pages.append(page)
        self._bad += _bad_of(read)
        self._ids.append([row.id for row in read.rows.rows])
        received = len(read.rows.rows) + len(read.rows.errors)
        self._position = read.position + received if read.following is None else read.following
        self._total = read.total
        self._rows += len(read.items)
        self._bytes += read.size

    def due(self) -> bool:
        """Whether it is big or old enough to be written."""
        return self._rows >= _BATCH_ROWS or self._bytes >= _BATCH_BYTES or monotonic() - self._began > _BATCH_SECONDS

    def taken(self, unstable: bool) -> tuple[list[Any], list[BadRow], State]:
        """Return what the thread needs: pages, bad rows, and the state once they are written."""
        newest = islice(chain.from_iterable(map(reversed, reversed(self._ids))), _TAIL)
        return self._pages, self._bad, State(self._position, 0, 0, self._total, unstable, list(newest))


def _bad_of(read: Read[Any]) -> list[BadRow]:
    if not isinstance(read.rows, BadLines):
        return []
    return [row._replace(position=read.position + row.position) for row in read.rows.bad]


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


# ---- what the caller asked for --------------------------------------------------------------------------------------


def _window(window: object) -> int:
    if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window <= 256:
        raise InvalidRequestError(f"window takes 1 to 256 pages, not {window!r}", argument="window")
    return window


def _path(to: object) -> str:
    if not isinstance(to, (str, os.PathLike)):
        raise InvalidRequestError("to must be a path", argument="to")
    path = os.fspath(to)
    if not isinstance(path, str) or not Path(path).name or "\0" in path:
        raise InvalidRequestError("to must be the path of a file", argument="to")
    return path


def _format(target: Path, format: Format | None, compression: Compression | None) -> tuple[Format, str | None]:
    """Return the format, and the compression or None, of a target. Raises `InvalidRequestError`."""
    suffix, packed = target.suffix.lower(), None
    if suffix in _PACKED:
        suffix, packed = target.with_suffix("").suffix.lower(), _PACKED[suffix]
    chosen = format if format is not None else _SUFFIXES.get(suffix)
    if chosen is None:
        known = ", ".join(_SUFFIXES)
        raise InvalidRequestError(f"format= is needed where the name ends in none of {known}", argument="to")
    if chosen not in _COMPRESSIONS:
        raise InvalidRequestError(f"format must be one of {', '.join(_COMPRESSIONS)}", argument="format")
    if packed is not None and chosen not in ("jsonl", "csv"):
        raise InvalidRequestError(f"a file of format {chosen} is not compressed as a whole", argument="to")
    asked = compression or packed
    if packed is not None and asked != packed:
        raise InvalidRequestError(f"compression={compression!r} contradicts the name of the file", argument="compression")
    allowed = _COMPRESSIONS[chosen]
    if asked is not None and asked not in allowed:
        raise InvalidRequestError(
            f"{chosen} can be compressed as {', '.join(allowed)}, not {asked!r}", argument="compression"
        )
    if chosen == "parquet":
        return chosen, asked
    return chosen, None if asked == "none" else asked


def _check(format: Format, compression: str | None, level: int | None) -> None:
    if format in ("parquet", "arrow"):
        _need("pyarrow", "parquet")
    if format in ("jsonl", "csv") and compression == "zstd":
        _need("zstandard", "zstd")
    if level is None:
        return
    if compression not in ("gzip", "zstd") or format == "arrow":
        raise InvalidRequestError("level goes with gzip and zstd", argument="level")
    if isinstance(level, bool) or not isinstance(level, int) or not 1 <= level <= (9 if compression == "gzip" else 22):
        raise InvalidRequestError(
            f"level must be an integer, 1 to 9 for gzip, 1 to 22 for zstd, not {level!r}", argument="level"
        )


def _need(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise InvalidRequestError(f'this needs {module}: pip install "nex-async[{extra}]"', argument="format")


def _sink(format: Format, paths: Paths) -> Sink:
    if format in ("parquet", "arrow"):
        from .formats.arrow import ArrowSink, ParquetSink

        return ParquetSink(paths) if format == "parquet" else ArrowSink(paths)
    if format == "sqlite":
        from .formats.database import SqliteSink

        return SqliteSink(paths)
    from .formats.files import CsvSink, JsonLinesSink

    return JsonLinesSink(paths) if format == "jsonl" else CsvSink(paths)
