"""`nex-async records export` and `nex-async lists export`: an object or a list into a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .problem import PARTLY
from .running import Session, session_options

if TYPE_CHECKING:
    from ..bulk.export import ExportReport
    from ..client import Nex

__all__ = ["command", "of_list", "selection"]

_OPTIONS = (
    click.option("--resume/--no-resume", default=True, show_default=True, help="Go on from what an earlier run left."),
    click.option("--window", default=8, show_default=True, type=click.IntRange(1, 256), help="Pages in flight."),
    click.option("--sort", metavar="SLUG", help="The order, such as -updated_at.  [default: created_at]"),
    click.option(
        "--attributes", default="all", show_default=True, metavar="all|primary|none|SLUG,...", help="What to export."
    ),
    click.argument("file", type=click.Path(dir_okay=False)),
)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in _OPTIONS:
        command = option(command)
    return command


@click.command("export")
@click.argument("slug", metavar="OBJECT")
@_options
@session_options
def command(session: Session, slug: str, file: str, attributes: str, **options: Any) -> None:
    """Write the records of OBJECT, such as person, into FILE, whose name tells the format.

    .jsonl and .csv, also with .gz or .zst; .sqlite; .parquet and .arrow. FILE appears when it is complete, and then takes
    the place of an older one. Stopped or killed at any point, the same command goes on.
    """
    options["attributes"] = selection(attributes)
    session.run(lambda nex: _export(nex, slug, file, options, is_list=False), resumable=True)


@click.command("export")
@click.argument("list_id", metavar="LIST")
@_options
@click.option("--parent", metavar="OBJECT", help="What the list selects from; a table gets its columns.")
@session_options
def of_list(session: Session, list_id: str, file: str, attributes: str, **options: Any) -> None:
    """Write the members of a list into FILE, whose name tells the format, as `records export` does."""
    options["attributes"] = selection(attributes)
    session.run(lambda nex: _export(nex, list_id, file, options, is_list=True), resumable=True)


def selection(attributes: str) -> str | list[str]:
    """Return which attributes are asked for: a word of the API, or slugs."""
    return attributes if attributes in ("all", "primary", "none") else [slug.strip() for slug in attributes.split(",")]


async def _export(nex: Nex, name: str, file: str, options: dict[str, Any], *, is_list: bool) -> int:
    from .progress import drawn

    export = nex.lists.export if is_list else nex.records.export
    with drawn() as progress:
        report = await export(name, file, progress=progress, **options)
    _tell(name, report)
    return PARTLY if report.bad_rows else 0


def _tell(name: str, report: ExportReport) -> None:
    """Print the report, and on stderr what is wrong."""
    resumed = "" if report.resumed_at is None else f" (went on at row {report.resumed_at})"
    click.echo(f"export {name}: {report.rows} rows, {report.bytes} bytes in {report.path}{resumed}; {report.seconds:.1f} s")
    if report.unstable:
        click.echo("Records were deleted meanwhile: rows may be missing. Export again to be sure.", err=True)
    if report.bad_rows:
        click.echo(f"{report.bad_rows} rows could not be used; they are in {report.bad_rows_path}.", err=True)
