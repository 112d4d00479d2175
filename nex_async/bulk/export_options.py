"""What an export is asked for: its options, the format that a file's name tells, and what cannot be right."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ..errors import InvalidRequestError
from ..transport.options import RequestOptions
from .formats.columns import Structured
from .progress import OnProgress

__all__ = [
    "OWN",
    "Compression",
    "ExportOptions",
    "Format",
    "checked_batch",
    "checked_structured",
    "checked_window",
    "format_of",
    "need",
    "path_of",
]

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


def checked_window(window: object) -> int:
    """Return a number of pages in flight. Raises `InvalidRequestError`."""
    if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window <= 256:
        raise InvalidRequestError(f"window takes 1 to 256 pages, not {window!r}", argument="window")
    return window


def checked_structured(structured: Structured) -> Structured:
    """Return how values of several parts are written. Raises `InvalidRequestError`."""
    if structured not in get_args(Structured):
        raise InvalidRequestError("structured must be 'json' or 'text'", argument="structured")
    return structured


def checked_batch(rows: object, on_bad_row: object) -> int:
    """Return the rows of a batch, if that and `on_bad_row` are right, and there is pyarrow. Raises `InvalidRequestError`."""
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise InvalidRequestError(f"batch_rows must be an integer of at least 1, not {rows!r}", argument="batch_rows")
    if on_bad_row not in ("raise", "skip"):
        raise InvalidRequestError("on_bad_row must be 'raise' or 'skip'", argument="on_bad_row")
    need("pyarrow", "parquet")
    return rows


def path_of(to: object) -> str:
    """Return the path of a file. Raises `InvalidRequestError`."""
    if not isinstance(to, (str, os.PathLike)):
        raise InvalidRequestError("to must be a path", argument="to")
    path = os.fspath(to)
    if not isinstance(path, str) or not Path(path).name or "\0" in path:
        raise InvalidRequestError("to must be the path of a file", argument="to")
    return path


def format_of(
    target: Path, format: Format | None, compression: Compression | None, level: int | None
) -> tuple[Format, str | None]:
    """Return the format, and the compression or None, of a target.

    Raises `InvalidRequestError`, also where a package is missing that they need.
    """
    chosen, packed = _format(target, format, compression)
    _check(chosen, packed, level)
    return chosen, packed


def _format(target: Path, format: Format | None, compression: Compression | None) -> tuple[Format, str | None]:
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
        need("pyarrow", "parquet")
    if format in ("jsonl", "csv") and compression == "zstd":
        need("zstandard", "zstd")
    if level is None:
        return
    if compression not in ("gzip", "zstd") or format == "arrow":
        raise InvalidRequestError("level goes with gzip and zstd", argument="level")
    if isinstance(level, bool) or not isinstance(level, int) or not 1 <= level <= (9 if compression == "gzip" else 22):
        raise InvalidRequestError(
            f"level must be an integer, 1 to 9 for gzip, 1 to 22 for zstd, not {level!r}", argument="level"
        )


def need(module: str, extra: str) -> None:
    """Raise `InvalidRequestError` where a package is missing; `extra` is what brings it."""
    if importlib.util.find_spec(module) is None:
        raise InvalidRequestError(f'this needs {module}: pip install "nex-async[{extra}]"', argument="format")
