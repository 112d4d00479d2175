"""What a command prints: a table on a terminal, JSON Lines where it is piped, or what `--output` says."""

from __future__ import annotations

import csv
import functools
import importlib.util
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click

if TYPE_CHECKING:
    from ..paging import Page, Pager

__all__ = ["Output", "listing_options", "output_option"]

Command: TypeAlias = "Callable[..., Any]"
Row: TypeAlias = "dict[str, Any]"

FORMATS = ("table", "json", "jsonl", "csv")
_LIMIT = 100
_NARROWEST = 14
"""Characters that a column of a table should have at least; there are no more columns than fit so."""
_LONGEST = 500
_OF_ONE = ("field", "value")


_format_option: Callable[[Command], Command] = click.option(
    "--output", "-o", type=click.Choice(FORMATS), help="How to print.  [default: table on a terminal, else jsonl]"
)


def output_option(command: Command) -> Command:
    """Add `--output`; the command gets an `Output` as `output`."""

    @functools.wraps(command)
    def called(*args: Any, output: str | None, **kwargs: Any) -> Any:
        return command(*args, output=Output(output), **kwargs)

    return _format_option(called)


def listing_options(command: Command) -> Command:
    """Add `--output`, `--limit`, `--all` and `--columns`; the command gets an `Output` that knows them."""

    @functools.wraps(command)
    def called(*args: Any, output: str | None, limit: int, everything: bool, columns: str | None, **kwargs: Any) -> Any:
        chosen = [name.strip() for name in columns.split(",") if name.strip()] if columns else None
        return command(*args, output=Output(output, None if everything else limit, chosen), **kwargs)

    for option in (
        click.option("--columns", metavar="NAME,...", help="Columns of a table or of CSV, in this order."),
        click.option("--all", "everything", is_flag=True, help="Print every row."),
        click.option("--limit", "-n", type=click.IntRange(1), default=_LIMIT, show_default=True, help="Rows to print."),
    ):
        called = option(called)
    return _format_option(called)


class Output:
    """Prints rows, or one thing, in a format.

    `limit` is how many rows of a listing are printed, None for all; `columns` are those of a table.
    """

    def __init__(self, format: str | None, limit: int | None = _LIMIT, columns: Sequence[str] | None = None) -> None:
        self.format: str = format or ("table" if sys.stdout.isatty() else "jsonl")
        self.limit: int | None = limit
        self._columns = columns

    async def listing(self, pager: Pager[Any], columns: Sequence[str] = ()) -> int:
        """Print a listing, and return the exit status: 4 where rows could not be read.

        `columns` are those of a table, unless the user has chosen; empty ones are left out. JSON Lines are printed page by
        page, so that a listing without end takes no memory.
        """
        from .problem import PARTLY

        rows: list[Row] = []
        bad = 0
        page: Page[Any] | None = None
        async for page in (pager if self.limit is None else pager.limit(self.limit)).pages():
            found = [plain(row) for row in page.items]
            bad += len(page.errors)
            for error in page.errors:
                click.echo(f"A row could not be read: {error}", err=True)
            if self.format == "jsonl":
                _write_lines(found)
            else:
                rows += found
        if self.format != "jsonl":
            self.rows(rows, columns)
        if page is not None and page.has_more:
            click.echo(f"Only the first {self.limit} are shown; --all shows all.", err=True)
        return PARTLY if bad else 0

    def first(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return as many rows as are to be printed."""
        return rows if self.limit is None else rows[: self.limit]

    def rows(self, rows: Sequence[Row], columns: Sequence[str] = ()) -> None:
        """Print plain rows."""
        if self.format == "json":
            _write(_indented(rows))
        elif self.format == "jsonl":
            _write_lines(rows)
        else:
            flat = [_flat(row) for row in rows]
            names = self._columns or (_whole(rows, flat) if self.format == "csv" else _shown(flat, columns))
            if self.format == "csv":
                _write(_csv(flat, names))
            else:
                _table(names, [[_text(row.get(name)) for name in names] for row in flat])

    def one(self, thing: Any) -> None:
        """Print one reply: its fields, one a line, on a terminal."""
        row = plain(thing)
        if self.format == "table":
            flat = _flat(row)
            names = self._columns or list(flat)
            _table(_OF_ONE, [[name, _text(flat.get(name), None)] for name in names])
        elif self.format == "json":
            _write(_indented(row))
        else:
            self.rows([row])

    def done(self, text: str) -> None:
        """Say on a terminal that something was done which has no reply; print nothing where output is for programs."""
        if self.format == "table":
            click.echo(text)


def plain(thing: Any) -> Row:
    """Return a reply as plain JSON values, without the fields that are null."""
    import msgspec

    row = thing if isinstance(thing, dict) else msgspec.json.decode(msgspec.json.encode(thing))
    return {name: value for name, value in row.items() if value is not None}


def _flat(row: Row) -> Row:
    """Return a row with the attributes of a record beside its own fields, under other names where both have one."""
    attributes = row.get("attributes")
    if not isinstance(attributes, dict):
        return row
    own = {name: value for name, value in row.items() if name != "attributes"}
    return own | {f"attribute_{slug}" if slug in own else slug: value for slug, value in attributes.items()}


def _names(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _whole(rows: Iterable[Row], flat: Iterable[Row]) -> list[str]:
    """Return the columns of a table that holds everything; those of records begin as an export's do, for an import."""
    names = _names(flat)
    if not any("attributes" in row for row in rows):
        return names
    own = ("id", "object_id", "type", "created_at", "updated_at")
    return [*own, *(name for name in names if name not in (*own, "workspace_id"))]


def _shown(rows: Sequence[Row], wanted: Sequence[str]) -> list[str]:
    """Return the columns that a table shows: those wanted that hold anything, else all, as many as the screen is wide."""
    held = {name for row in rows for name, value in row.items() if value not in ("", [], {})}
    names = [name for name in wanted or _names(rows) if name in held]
    if not wanted:
        hidden = ("object_id", "workspace_id", "type", "created_at", "updated_at")
        names = [name for name in names if name not in hidden] + [name for name in ("updated_at",) if name in held]
    return names[: max(2, _width() // _NARROWEST)]


def _text(value: Any, longest: int | None = _LONGEST) -> str:
    """Return a value as a person reads it, fit for a terminal."""
    from ..errors import printable
    from ..models.attributes import flatten_all

    text = value if isinstance(value, str) else ", ".join(flatten_all(value))
    return printable(text, longest or 100_000)


# ---- writing --------------------------------------------------------------------------------------------------------


def _write(text: str) -> None:
    click.echo(text, nl=not text.endswith("\n"))


def _write_lines(rows: Iterable[Row]) -> None:
    import msgspec

    for row in rows:
        click.echo(msgspec.json.encode(row))


def _indented(value: Any) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _csv(rows: Iterable[Row], names: Sequence[str]) -> str:
    from .cells import to_cell

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([to_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 200


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not names:
        click.echo("nothing", err=True)
    elif sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        _draw(names, rows)
    else:
        _align(names, rows)


def _draw(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    overflow: Literal["fold", "ellipsis"] = "fold" if names == _OF_ONE else "ellipsis"
    for name in names:
        table.add_column(Text(name), overflow=overflow, no_wrap=name == "id")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def _align(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table where nobody draws: columns of one width, no lines."""
    lines = [[name.upper() for name in names], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
