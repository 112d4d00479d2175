"""Arrow batches, and the files made of them: Parquet and Arrow IPC, written in segments that are whole files themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ...models.base import parse_timestamp
from ..sinks import Layout, Sink, open_part, synced
from .columns import BASE, EXTRA, Column, Structured
from .tables import Sheet, SheetPage, SheetReader

__all__ = ["ArrowSink", "BatchReader", "ParquetSink", "batch_of", "schema_of"]

GROUP_ROWS = 65_536
"""Rows of a row group."""
_PAGES = 4
"""Pages that become one batch."""
GROUP_BYTES = 128 << 20
SEGMENT_ROWS = 4 * GROUP_ROWS
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
        for column in Sheet(columns).columns
    ]
    return pa.schema([*fields, pa.field(EXTRA, pa.string())])


def batch_of(sheet: Sheet, schema: Any, arrays_of: Sequence[dict[int, Any]] = ()) -> Any:
    """Return a sheet as a pyarrow record batch; `arrays_of` its pages has the columns that are arrays already.

    Timestamps that cannot be read are kept in the last column.
    """
    import pyarrow as pa

    arrays = []
    for place, (column, values) in enumerate(zip(sheet.columns, sheet.values, strict=True)):
        kind = schema.field(place).type
        if arrays_of and place in arrays_of[0]:
            arrays.append(pa.concat_arrays([ready[place] for ready in arrays_of]))
            continue
        arrays.append(_times(sheet, place, kind) if column.kind == "time" else pa.array(values, kind))
    arrays.append(pa.array(sheet.extra_texts(), pa.string()))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _times(sheet: Sheet, place: int, kind: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    column, values = sheet.columns[place], sheet.values[place]
    if not column.many:
        texts = pa.array(values, pa.string())
        for way in ((kind,), (pa.timestamp("us"), kind)):  # with a zone each; or none with one, which is UTC
            try:
                times = texts
                for step in way:
                    times = times.cast(step)
            except pa.ArrowInvalid:
                continue
            least = pc.min(times.cast(pa.int64())).as_py()
            if least is None or least > _YEAR_2:
                return times
    return pa.array([_time(sheet, row, column, value) for row, value in enumerate(values)], kind)


def _time(sheet: Sheet, row: int, column: Column, value: Any) -> Any:
    texts = value if isinstance(value, list) else [value]
    times = [parse_timestamp(text) for text in texts]
    if any(text and time is None for text, time in zip(texts, times, strict=True)):
        sheet.keep(row, column.slug or column.name, value)
    if not column.many:
        return times[0]
    return None if value is None else times


class BatchReader(SheetReader):
    """Decodes pages for Arrow batches."""

    def __init__(self, columns: tuple[Column, ...], structured: Structured, schema: Any) -> None:
        super().__init__(columns, structured)
        self._schema = schema

    def page(self, position: int, rows: list[Any]) -> SheetPage:
        """Return a page of rows that `decode` returned last, for `batches`."""
        import pyarrow as pa

        page = super().page(position, rows)
        for place, column in enumerate(self._columns, len(BASE)):
            # Lists are what the garbage collector looks at: thousands of them must not wait for their turn.
            if page.lines is None and column.many and column.kind != "time":
                page.arrays[place] = pa.array(page.values[place], self._schema.field(place).type)
                page.values[place] = []
        return page

    def batches(self, pages: list[SheetPage]) -> Iterator[Any]:
        """Yield record batches of a few pages each; a page to be fitted value by value is yielded as it is."""
        held: list[SheetPage] = []
        for page in pages:
            if held and (page.lines is not None or len(held) >= _PAGES):
                yield self._batch(held)
                held = []
            if page.lines is None:
                held.append(page)
            else:
                yield page
        if held:
            yield self._batch(held)

    def _batch(self, pages: list[SheetPage]) -> Any:
        sheet = Sheet(self._columns)
        for page in pages:
            sheet.add(page)
        return batch_of(sheet, self._schema, [page.arrays for page in pages])


class TableSink(Sink):
    """A file of row groups, in segments."""

    _schema: Any = None
    _layout = Layout()
    _file: BinaryIO | None = None
    _writer: Any = None
    _segments = 0
    _rows = 0

    def _begin(self, layout: Layout, kept: dict[str, int] | None) -> bool:
        self._layout = layout
        self._schema = schema_of(layout.columns)
        self._held: list[Any] = []
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
        count = 0
        for page in pages:
            batch = page
            if isinstance(page, SheetPage):
                sheet = Sheet(self._layout.columns, self._layout.structured).add(page)
                self.bad += sheet.bad
                batch = batch_of(sheet, self._schema)
            self._held.append(batch)
            count += batch.num_rows
        self._rows += count
        held = sum(batch.num_rows for batch in self._held)
        if held >= GROUP_ROWS or sum(batch.nbytes for batch in self._held) >= GROUP_BYTES:
            self._flush()
        return count

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._held:
            return
        if self._writer is None:
            self._file = open_part(self.paths.segment(self._segments + 1), truncate=0)
            self._writer = self._new_writer(self._file)
        table = pa.Table.from_batches(self._held, schema=self._schema)
        self._held = []
        self._append(table)

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

    def _new_writer(self, file: BinaryIO) -> Any:
        raise NotImplementedError

    def _append(self, table: Any) -> None:
        raise NotImplementedError

    def _copy(self, segment: Path) -> None:
        raise NotImplementedError


class ParquetSink(TableSink):
    """A Parquet file."""

    def _new_writer(self, file: BinaryIO) -> Any:
        import pyarrow.parquet as pq

        compression = self._layout.compression or "snappy"
        return pq.ParquetWriter(file, self._schema, compression=compression, compression_level=self._layout.level)

    def _append(self, table: Any) -> None:
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def _copy(self, segment: Path) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetFile(segment) as source:
            for number in range(source.num_row_groups):
                self._append(source.read_row_group(number))


class ArrowSink(TableSink):
    """An Arrow IPC file, also called Feather."""

    def _new_writer(self, file: BinaryIO) -> Any:
        import pyarrow as pa

        options = pa.ipc.IpcWriteOptions(compression=self._layout.compression)
        return pa.ipc.new_file(file, self._schema, options=options)

    def _append(self, table: Any) -> None:
        self._writer.write_table(table.combine_chunks())

    def _copy(self, segment: Path) -> None:
        import pyarrow as pa

        with pa.OSFile(str(segment)) as held, pa.ipc.open_file(held) as source:
            for number in range(source.num_record_batches):
                self._writer.write_batch(source.get_batch(number))
