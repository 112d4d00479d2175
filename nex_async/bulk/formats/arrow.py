"""Arrow batches, and the files made of them: Parquet and Arrow IPC, written in segments that are whole files themselves."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ...models.base import parse_timestamp
from ..sinks import Layout, Sink, open_part, synced
from .columns import BASE, EXTRA, Column, Structured
from .lines import BadRow
from .tables import Sheet, SheetPage, SheetReader, texts_of

__all__ = ["ArrowSink", "BatchReader", "Block", "Former", "ParquetSink", "schema_of"]

GROUP_ROWS = 16_384
"""Rows of a row group."""
GROUP_BYTES = 128 << 20
SEGMENT_ROWS = 262_144
"""Rows after which a segment is closed: what a later run can go on from."""
_YEAR_2 = -62_104_060_800_000_000
"""Microseconds. Before it lies the zero time of Go, which means that there is no time."""
_SEGMENT = re.compile(r"\.part\.\d{4,}\Z")


def schema_of(columns: tuple[Column, ...]) -> Any:
    """Return the pyarrow schema of an export with these attributes."""
    import pyarrow as pa

    kinds = {
        "text": pa.string(),
        "json": pa.string(),
        "number": pa.float64(),
        "whole": pa.int64(),
        "boolean": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    fields = [
        pa.field(
            column.name, pa.list_(kinds[column.kind]) if column.many else kinds[column.kind], nullable=column.name != "id"
        )
        for column in (*BASE, *columns)
    ]
    return pa.schema([*fields, pa.field(EXTRA, pa.string())])


class Block:
    """Rows as Arrow arrays, one for each column but the last, timestamps still as texts; and what did not fit, by row."""

    __slots__ = ("arrays", "count", "extras")

    def __init__(self, arrays: list[Any], count: int, extras: dict[int, dict[str, Any]]) -> None:
        self.arrays: list[Any] = arrays
        self.count: int = count
        self.extras: dict[int, dict[str, Any]] = extras


class Former:
    """Makes Arrow arrays of the values of pages, and record batches of those. To be made on a thread: loads pyarrow."""

    def __init__(self, columns: tuple[Column, ...], structured: Structured) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc  # noqa: F401

        self.schema: Any = schema_of(columns)
        # The default pool takes memory from the system in large pieces now and then, which holds the caller up for 5 ms.
        self._pool = pa.system_memory_pool()
        self._attributes = columns
        self._columns = (*BASE, *columns)
        self._structured: Structured = structured
        texts = {False: pa.string(), True: pa.list_(pa.string())}
        self._kinds = [
            texts[column.many] if column.kind == "time" else field.type
            for column, field in zip(self._columns, self.schema, strict=False)
        ]
        pa.array([], pa.string())  # the first call looks for pandas, and imports it

    def block(self, page: SheetPage | Sheet) -> Block:
        """Return a page whose rows are in columns as arrays."""
        import pyarrow as pa

        pool = self._pool
        arrays = [pa.array(each, kind, memory_pool=pool) for each, kind in zip(page.values, self._kinds, strict=True)]
        return Block(arrays, page.count, page.extras)

    def batch(self, pages: Sequence[Block | SheetPage]) -> tuple[Any, list[BadRow]]:
        """Return pages as a record batch, without the rows that turn out to be bad; and those. Not for the event loop.

        Timestamps that cannot be read are kept in the last column.
        """
        import pyarrow as pa

        blocks: list[Block] = []
        bad: list[BadRow] = []
        for page in pages:
            if isinstance(page, Block):
                blocks.append(page)
            else:
                sheet = Sheet(self._attributes, self._structured).take(page)
                bad += sheet.bad
                blocks.append(self.block(sheet))
        extras: dict[int, dict[str, Any]] = {}
        count = 0
        for block in blocks:
            extras.update({count + row: kept for row, kept in block.extras.items()})
            count += block.count
        arrays = []
        for column, kind, field, *parts in zip(
            self._columns, self._kinds, self.schema, *(block.arrays for block in blocks), strict=False
        ):
            array = pa.concat_arrays(parts) if parts else pa.array([], kind)
            arrays.append(_times(array, column, field.type, extras) if column.kind == "time" else array)
        arrays.append(pa.array(texts_of(extras, count), pa.string()) if extras else pa.nulls(count, pa.string()))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema), bad


def _times(texts: Any, column: Column, kind: Any, extras: dict[int, dict[str, Any]]) -> Any:
    """Return texts as timestamps; one that cannot be read is added to `extras`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not column.many:
        for way in ((kind,), (pa.timestamp("us"), kind)):  # with a zone each; or none with one, which is UTC
            try:
                times = texts
                for step in way:
                    times = times.cast(step)
            except pa.ArrowInvalid:
                continue
            least = pc.call_function("min_max", [times.cast(pa.int64())])["min"].as_py()
            if least is None or least > _YEAR_2:
                return times
    return pa.array([_time(row, column, value, extras) for row, value in enumerate(texts.to_pylist())], kind)


def _time(row: int, column: Column, value: Any, extras: dict[int, dict[str, Any]]) -> Any:
    texts = value if isinstance(value, list) else [value]
    times = [parse_timestamp(text) for text in texts]
    if any(text and time is None for text, time in zip(texts, times, strict=True)):
        extras.setdefault(row, {}).setdefault(column.slug or column.name, value)
    if not column.many:
        return times[0]
    return None if value is None else times


class BatchReader(SheetReader):
    """Decodes pages for Arrow batches."""

    def __init__(self, columns: tuple[Column, ...], structured: Structured, former: Former) -> None:
        super().__init__(columns, structured)
        self._former = former

    def page(self, position: int, rows: list[Any]) -> Any:
        """Return a page of rows that `decode` returned last: a block, or a page to be fitted value by value."""
        page = super().page(position, rows)
        return page if page.lines is not None else self._former.block(page)


class TableSink(Sink, ABC):
    """A file of row groups, in segments."""

    _former: Former
    _layout = Layout()
    _file: BinaryIO | None = None
    _writer: Any = None
    _segments = 0
    _rows = 0

    def _begin(self, layout: Layout, kept: dict[str, int] | None) -> bool:
        self._layout = layout
        self._former = Former(layout.columns, layout.structured)
        self._held: list[Any] = []
        self._held_rows = self._held_bytes = 0
        self._sizes: dict[str, int] = {}
        if kept is not None:
            for number in range(1, len(kept) + 1):
                path = self.paths.segment(number)
                if not path.is_file() or path.stat().st_size != kept.get(str(number)):
                    return False
            self._sizes = dict(kept)
            self._segments = len(kept)
        return True

    def write(self, pages: list[Any]) -> int:
        """Add pages of rows; return how many there were."""
        batch, bad = self._former.batch(pages)
        self.bad.extend(bad)
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        self._rows += batch.num_rows
        if self._held_rows >= GROUP_ROWS or self._held_bytes >= GROUP_BYTES:
            self._flush()
        return int(batch.num_rows)

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._held:
            return
        if self._writer is None:
            self._file = open_part(self.paths.segment(self._segments + 1), truncate=0)
            self._writer = self._new_writer(self._file)
        table = pa.Table.from_batches(self._held, schema=self._former.schema)
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        self._append(table)
        del table
        pa.default_memory_pool().release_unused()

    def mark(self, force: bool) -> dict[str, int] | None:
        """Close the segment, if it is long enough or must be, and return the sizes of all."""
        if self._rows < SEGMENT_ROWS and not force:
            return None
        self._flush()
        if self._writer is not None:
            assert self._file is not None
            self._writer.close()
            self._segments += 1
            self._sizes[str(self._segments)] = synced(self._file)
            self._file.close()
            self._writer = self._file = None
        self._rows = 0
        return dict(self._sizes)

    def finish(self) -> Path:
        """Return the one segment, or all of them in one file."""
        if self._segments == 1:
            return self.paths.segment(1)
        with open_part(self.paths.part, truncate=0) as file:
            self._writer = self._new_writer(file)
            for number in range(1, self._segments + 1):
                self._copy(self.paths.segment(number))
            self._writer.close()
            self._writer = None
            synced(file)
        return self.paths.part

    def close(self) -> None:
        """Let go of the segment that is being written; it is written again."""
        with suppress(OSError, ValueError):
            if self._writer is not None:
                self._writer.close()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._writer = self._file = None

    def discard(self) -> None:
        """Remove whatever earlier runs left."""
        super().discard()
        stem = self.paths.target.name
        for path in self.paths.target.parent.iterdir():
            if path.name.startswith(f"{stem}.part.") and _SEGMENT.search(path.name) and path.name != stem:
                path.unlink(missing_ok=True)

    @abstractmethod
    def _new_writer(self, file: BinaryIO) -> Any:
        """Return what writes the format into a file."""

    @abstractmethod
    def _append(self, table: Any) -> None:
        """Write a row group."""

    @abstractmethod
    def _copy(self, segment: Path) -> None:
        """Write all row groups of a segment."""


class ParquetSink(TableSink):
    """A Parquet file."""

    def _begin(self, layout: Layout, kept: dict[str, int] | None) -> bool:
        import pyarrow.parquet  # noqa: F401  # here, before the first page comes, and not with the first row group

        return super()._begin(layout, kept)

    def _new_writer(self, file: BinaryIO) -> Any:
        import pyarrow.parquet as pq

        compression = self._layout.compression or "snappy"
        return pq.ParquetWriter(file, self._former.schema, compression=compression, compression_level=self._layout.level)

    def _append(self, table: Any) -> None:
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def _copy(self, segment: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(segment, buffer_size=1 << 20, pre_buffer=False) as source:
            for number in range(source.num_row_groups):
                self._append(source.read_row_group(number, use_threads=False))
                pa.default_memory_pool().release_unused()


class ArrowSink(TableSink):
    """An Arrow IPC file, also called Feather."""

    def _new_writer(self, file: BinaryIO) -> Any:
        import pyarrow as pa

        options = pa.ipc.IpcWriteOptions(compression=self._layout.compression)
        return pa.ipc.new_file(file, self._former.schema, options=options)

    def _append(self, table: Any) -> None:
        self._writer.write_table(table.combine_chunks())

    def _copy(self, segment: Path) -> None:
        import pyarrow as pa

        with pa.OSFile(str(segment)) as held, pa.ipc.open_file(held) as source:
            for number in range(source.num_record_batches):
                self._writer.write_batch(source.get_batch(number))
