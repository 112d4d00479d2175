"""JSON Lines and CSV, plain or compressed: files that grow at their end, and are cut back to where they were known good."""

from __future__ import annotations

import csv
import io
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..sinks import Layout, Sink, open_part, synced
from .columns import EXTRA
from .tables import Sheet

__all__ = ["CsvSink", "JsonLinesSink"]

_CHUNK = 100
"""So many rows are written before other threads are let in."""


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class FileSink(Sink):
    """A file that grows at its end. Compressed, each stretch between two marks is a member or frame of its own."""

    _file: BinaryIO | None = None
    _layout = Layout()
    _compressor: _Compressor | None = None
    _head = b""

    def _begin(self, layout: Layout, kept: dict[str, int] | None) -> bool:
        self._layout = layout
        path = self.paths.part
        if kept is not None and not (path.is_file() and path.stat().st_size >= kept["bytes"]):
            return False
        self._file = open_part(path, truncate=0 if kept is None else kept["bytes"])
        if kept is None and self._head:
            self._append(self._head)
        return True

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        if self._layout.compression is not None:
            if self._compressor is None:
                self._compressor = _compressor(self._layout.compression, self._layout.level)
            data = self._compressor.compress(data)
        self._file.write(data)

    def mark(self, force: bool) -> dict[str, int] | None:
        """Bring the file to the disk, and return its size."""
        assert self._file is not None
        if self._compressor is not None:
            self._file.write(self._compressor.flush())
            self._compressor = None
        return {"bytes": synced(self._file)}

    def finish(self) -> Path:
        """Complete the file, and return its name as it is now."""
        assert self._file is not None
        if self._layout.compression is not None and not self._file.tell():
            self._append(b"")  # an empty file is no compressed file
            self.mark(force=True)
        self._file.close()
        return self.paths.part

    def close(self) -> None:
        """Let go of the file as it is."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


def _compressor(name: str, level: int | None) -> _Compressor:
    if name == "gzip":
        return zlib.compressobj(6 if level is None else level, zlib.DEFLATED, 31)
    import zstandard

    made: _Compressor = zstandard.ZstdCompressor(level=3 if level is None else level).compressobj()
    return made


class JsonLinesSink(FileSink):
    """Each row on a line of its own, as the server sent it."""

    def write(self, pages: list[Any]) -> int:
        """Add pages of lines; return how many rows they gave."""
        raws = [raw for page in pages for raw in page]
        if raws:
            raws.append(b"")
            self._append(b"\n".join(raws))
        return max(0, len(raws) - 1)


class CsvSink(FileSink):
    """A table as RFC 4180 has it: a line of names, then a line for each row; UTF-8, CR LF."""

    def _begin(self, layout: Layout, kept: dict[str, int] | None) -> bool:
        self._head = _written([[column.name for column in Sheet(layout.columns).columns] + [EXTRA]])
        return super()._begin(layout, kept)

    def write(self, pages: list[Any]) -> int:
        """Add pages of rows; return how many there were."""
        count = 0
        for page in pages:
            sheet = Sheet(self._layout.columns, self._layout.structured, texts=True).take(page)
            self.bad.extend(sheet.bad)
            count += sheet.count
            columns = [
                _switches(values) if column.kind == "boolean" and not column.many else values
                for column, values in zip(sheet.columns, sheet.values, strict=True)
            ]
            rows = list(zip(*columns, sheet.extra_texts(), strict=True))
            for start in range(0, len(rows), _CHUNK):
                self._append(_written(rows[start : start + _CHUNK]))
                time.sleep(0)
        return count


def _switches(values: list[Any]) -> list[str | None]:
    return [None if value is None else "true" if value else "false" for value in values]


def _written(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
