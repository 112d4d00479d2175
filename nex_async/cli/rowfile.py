"""Rows of a file, JSON Lines or CSV, plain or compressed: read on a thread, a few hundred at a time."""

from __future__ import annotations

import asyncio
import csv
import gzip
import importlib.util
import io
import os
import zlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

import msgspec

from ..errors import InvalidRequestError, StorageError
from .cells import of_cell

if TYPE_CHECKING:
    from ..models import Object

__all__ = ["RowFile", "Unreadable", "is_table"]

_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv"}
_PACKED = (".gz", ".zst")
_HOP_ROWS, _HOP_BYTES = 256, 1 << 20
"""What is read before the event loop gets its turn, whichever is reached first."""
_COUNT_ROWS = 20_000
_LONGEST = 4 << 20
"""Bytes of a line or cell; a longer one is set aside, so that a file without line ends does not fill the memory."""
_SHOWN = 2_000
"""Characters of an unreadable line that are kept."""
_RECORD = ["id", "object_id", "type", "created_at", "updated_at"]
"""The columns with which a table written by an export begins, before the attributes."""
_EXTRA = "_extra"
_DAMAGE = (OSError, EOFError, zlib.error, UnicodeError)

Raw: TypeAlias = "tuple[int, Any]"
"""The number of a line, and what it holds: bytes, cells, or what is wrong with it."""
Row: TypeAlias = "dict[str, Any] | Unreadable | Any"


class Unreadable(Mapping[str, Any]):
    """A line that holds no row, in the place of the row: it is set aside with its reason, and the others go on."""

    def __init__(self, problem: str, text: str) -> None:
        self._problem = problem
        self._text = text

    def __getitem__(self, name: str) -> NoReturn:
        raise InvalidRequestError(self._problem, argument="rows")

    def __iter__(self) -> NoReturn:
        raise InvalidRequestError(self._problem, argument="rows")

    def __len__(self) -> NoReturn:
        raise InvalidRequestError(self._problem, argument="rows")

    def __repr__(self) -> str:
        return self._text


class RowFile:
    """The rows of a file as an asynchronous iterable that can be read again and again.

    `renames` gives columns other names; what is renamed to an empty name is left out. `definition` tells how the cells of a
    table become values. A record as an export writes it counts as the row of its attributes. Iterating raises `StorageError`
    for a file that cannot be read, after the rows before the damage.
    """

    def __init__(
        self, path: str | os.PathLike[str], renames: Mapping[str, str] | None = None, definition: Object | None = None
    ) -> None:
        self._path = Path(path)
        self._renames = dict(renames or {})
        self._attributes = {one.slug: one for one in definition.attributes or () if one.slug} if definition else {}
        self._knows = definition is not None
        format, self._packed = _format(self._path)
        self._raws: Callable[[], Generator[Raw, None, None]] = self._lines if format == "jsonl" else self._table
        self._row: Callable[[int, Any], Row] = self._of_line if format == "jsonl" else self._of_cells

    async def count(self) -> int | None:
        """Return how many rows there are, None where the file can be read only once, or not to its end."""
        if not self._path.is_file():
            return None
        count = 0
        with closing(self._raws()) as raws:
            try:
                while found := await _in_thread(_counted, raws):
                    count += found
            except (InvalidRequestError, StorageError):
                return None
        return count

    async def __aiter__(self) -> AsyncGenerator[Row, None]:
        """Iterate over the rows."""
        with closing(self._raws()) as raws:
            while True:
                rows, error = await _in_thread(self._some, raws)
                for row in rows:
                    yield row
                if error is not None:
                    raise error
                if not rows:
                    return

    def _some(self, raws: Iterator[Raw]) -> tuple[list[Row], Exception | None]:
        """Return the next rows, and the error that came after them."""
        rows: list[Row] = []
        size = 0
        try:
            for number, raw in raws:
                is_row = not isinstance(raw, Unreadable)
                rows.append(self._row(number, raw) if is_row else raw)
                size += len(raw) if isinstance(raw, bytes) else sum(len(cell) for _, cell in raw) if is_row else 0
                if len(rows) >= _HOP_ROWS or size >= _HOP_BYTES:
                    break
        except (InvalidRequestError, StorageError) as error:
            return rows, error
        return rows, None

    # ---- JSON Lines -------------------------------------------------------------------------------------------------

    def _lines(self) -> Generator[Raw, None, None]:
        with self._opened() as file:
            number = 0
            for number, line in enumerate(self._read(file), 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line and not line.isspace():
                    yield number, line

    def _read(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield lines; of one that is too long, no more than its beginning."""
        try:
            while line := file.readline(_LONGEST):
                yield line
                while len(line) == _LONGEST and not line.endswith(b"\n"):
                    line = file.readline(_LONGEST)
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _of_line(self, number: int, line: bytes) -> Row:
        if len(line) == _LONGEST:
            return Unreadable(f"line {number} is longer than {_LONGEST} bytes", _shown(line))
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Unreadable(f"line {number} is no JSON: {error}", _shown(line))
        if type(row) is not dict:
            return Unreadable(f"line {number} is no JSON object", _shown(line))
        if type(row.get("attributes")) is dict and "id" in row and "object_id" in row:
            row = row["attributes"]
        if self._renames:
            row = {self._renames.get(name, name): value for name, value in row.items()}
            row.pop("", None)
        return row

    # ---- tables -----------------------------------------------------------------------------------------------------

    def _table(self) -> Generator[Raw, None, None]:
        csv.field_size_limit(_LONGEST)
        with self._opened() as file, io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as text:
            reader, columns = self._headed(text)
            while True:
                number = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield number, Unreadable(f"line {number} is no row of a table: {error}", "")
                    continue
                except _DAMAGE as error:
                    raise self._damaged(error) from error
                if not cells:
                    continue
                if len(cells) != len(columns):
                    problem = f"line {number} has {len(cells)} cells, and the first line {len(columns)}"
                    yield number, Unreadable(problem, ",".join(cells)[:_SHOWN])
                else:
                    yield number, [*zip(columns, cells, strict=True)]

    def _headed(self, text: io.TextIOWrapper) -> tuple[Any, list[str]]:
        """Return a reader of the table that stands behind its first row, and the slugs of the columns."""
        try:
            head = text.readline(_LONGEST)
            delimiter = max(",;\t", key=head.count)
            reader = csv.reader(chain([head], iter(partial(text.readline, _LONGEST), "")), delimiter=delimiter, strict=True)
            names = [name.strip() or f"column {number}" for number, name in enumerate(next(reader, []), 1)]
        except csv.Error as error:
            raise InvalidRequestError(f"{self._path.name}: the first line is no row of a table: {error}") from None
        except _DAMAGE as error:
            raise self._damaged(error) from error
        slugs = [self._renames.get(name, name) for name in names]
        if names[: len(_RECORD)] == _RECORD:
            slugs = ["" if names[n] in (*_RECORD, _EXTRA) else slug for n, slug in enumerate(slugs)]
        strange = self._renames.keys() - set(names)
        if strange:
            raise InvalidRequestError(
                f"{self._path.name} has no column {min(strange)!r}; there are {', '.join(names)[:500]}", argument="map"
            )
        twice = next((slug for slug in slugs if slug and slugs.count(slug) > 1), None)
        if twice is not None:
            raise InvalidRequestError(f"{self._path.name} has two columns for {twice!r}", argument="map")
        return reader, slugs

    def _of_cells(self, number: int, cells: Iterable[tuple[str, str]]) -> Row:
        row = {}
        for slug, cell in cells:
            if not slug or not cell or cell.isspace():
                continue
            if not cell.isprintable() and any("\ud800" <= mark <= "\udfff" for mark in cell):
                return Unreadable(f"line {number}: the cell of {slug!r} is not UTF-8", repr(cell)[:_SHOWN])
            row[slug] = of_cell(self._attributes.get(slug), cell, knows=self._knows)
        return row

    # ---- files ------------------------------------------------------------------------------------------------------

    def _opened(self) -> IO[bytes]:
        try:
            if self._packed == ".gz":
                return cast("IO[bytes]", gzip.open(self._path, "rb"))
            file = self._path.open("rb")
            return cast("IO[bytes]", io.BufferedReader(_Unpacked(file), 1 << 17)) if self._packed else file
        except OSError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> StorageError:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        return StorageError(f"cannot read {os.fspath(self._path)!r}: {reason}")


class _Unpacked(io.RawIOBase):
    """What a zstd file holds, of one frame or many. Raises `EOFError` where a frame is cut off, `OSError` for damage."""

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self._file = file
        self._zstandard = zstandard
        self._frame: Any = None
        self._ahead = b""
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and return how many bytes; 0 at the end."""
        while not self._rest:
            packed = self._ahead or self._file.read(1 << 16)
            self._ahead = b""
            if not packed:
                if self._frame is not None:
                    raise EOFError("it ends before the end of what was compressed")
                return 0
            if self._frame is None:
                self._frame = self._zstandard.ZstdDecompressor().decompressobj()
            try:
                self._rest = memoryview(self._frame.decompress(packed))
            except self._zstandard.ZstdError as error:
                raise OSError(str(error)) from None
            if self._frame.eof:
                self._ahead, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()


def is_table(path: str | os.PathLike[str]) -> bool:
    """Return whether a file holds cells rather than JSON. Raises `InvalidRequestError` for a name that tells neither."""
    return _format(Path(path))[0] == "csv"


def _format(path: Path) -> tuple[str, str]:
    suffix, packed = path.suffix.lower(), ""
    if suffix in _PACKED:
        suffix, packed = path.with_suffix("").suffix.lower(), suffix
    if suffix not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise InvalidRequestError(f"the name of {path.name!r} must end in {known}, and .gz or .zst if it is compressed")
    if packed == ".zst" and importlib.util.find_spec("zstandard") is None:
        raise InvalidRequestError('.zst needs zstandard: pip install "nex-async[zstd]"')
    return _FORMATS[suffix], packed


def _shown(line: bytes) -> str:
    return line[:_SHOWN].decode("utf-8", "replace").rstrip("\r\n")


def _counted(raws: Iterator[Raw]) -> int:
    return sum(1 for _ in islice(raws, _COUNT_ROWS))


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Run a function on a thread, and wait for its end even when cancelled: it still has the file."""
    future = asyncio.get_running_loop().run_in_executor(None, function, *args)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()
        raise cancelled
    return future.result()
