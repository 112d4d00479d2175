"""`nex-async export`: an object or a list into a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .running import client, debug_option, execute, local_option

if TYPE_CHECKING:
    from ..bulk.export import ExportReport

__all__ = ["command"]


@click.command("export")
@click.argument("name", metavar="OBJECT")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--list", "is_list", is_flag=True, help="OBJECT is the id of a list, whose members are exported.")
@click.option("--parent", metavar="SLUG", help="With --list: the object it selects from, whose columns a table gets.")
@click.option("--attributes", default="all", show_default=True, metavar="all|primary|none|SLUG,...", help="What to export.")
@click.option("--sort", metavar="SLUG", help="The order, such as -updated_at.  [default: created_at]")
@click.option("--window", default=8, show_default=True, type=click.IntRange(1, 256), help="Pages in flight.")
@click.option("--resume/--no-resume", default=True, show_default=True, help="Go on from what an earlier run left.")
@local_option
@debug_option
def command(
    name: str,
    file: str,
    is_list: bool,
    parent: str | None,
    attributes: str,
    sort: str | None,
    window: int,
    resume: bool,
    local: str | None,
    debug: bool,
) -> None:
    """Write the records of OBJECT, such as person, into FILE, whose name tells the format.

    .jsonl and .csv, also with .gz or .zst; .sqlite; .parquet and .arrow. FILE appears when it is complete, and then takes
    the place of an older one. Stopped or killed at any point, the same command goes on.

    The key is taken from NEX_API_KEY or the files of ~/.nex. Exit status: 0 when all is well, 1 when rows could not be used
    or it could not go on, 2 for a wrong command line, 130 after Ctrl-C.
    """
    if parent is not None and not is_list:
        raise click.UsageError("--parent goes with --list")
    selection = attributes if attributes in ("all", "primary", "none") else [slug.strip() for slug in attributes.split(",")]
    options: dict[str, Any] = {"attributes": selection, "sort": sort, "window": window, "resume": resume}
    if is_list:
        options["parent"] = parent
    execute(lambda: _export(name, file, is_list, options, local), debug=debug)


async def _export(name: str, file: str, is_list: bool, options: dict[str, Any], local: str | None) -> bool:
    from .progress import drawn

    async with client(local) as nex:
        export = nex.lists.export if is_list else nex.records.export
        with drawn() as progress:
            report = await export(name, file, progress=progress, **options)
    _tell(name, report)
    return not report.bad_rows


def _tell(name: str, report: ExportReport) -> None:
    """Print the report, and on stderr what is wrong."""
    resumed = "" if report.resumed_at is None else f" (went on at row {report.resumed_at})"
    click.echo(f"export {name}: {report.rows} rows, {report.bytes} bytes in {report.path}{resumed}; {report.seconds:.1f} s")
    if report.unstable:
        click.echo("Records were deleted meanwhile: rows may be missing. Export again to be sure.", err=True)
    if report.bad_rows:
        click.echo(f"{report.bad_rows} rows could not be used; they are in {report.bad_rows_path}.", err=True)
