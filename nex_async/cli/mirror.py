"""`nex-async mirror`: a local SQLite copy of a workspace."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from .running import Session, session_options

if TYPE_CHECKING:
    from ..bulk.mirror import Mirror, MirrorReport
    from ..client import Nex

__all__ = ["command"]


@click.command("mirror")
@click.argument("path", type=click.Path(dir_okay=False))
@click.option("--object", "objects", multiple=True, metavar="SLUG", help="Mirror this object; may be repeated.")
@click.option("--list", "lists", multiple=True, metavar="ID", help="Mirror this list; may be repeated.")
@click.option("--relationships/--no-relationships", default=True, show_default=True, help="Mirror relationships.")
@click.option("--watch", is_flag=True, help="Keep the file in step until Ctrl-C.")
@click.option(
    "--interval", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between two looks with --watch."
)
@session_options
def command(
    session: Session,
    path: str,
    objects: tuple[str, ...],
    lists: tuple[str, ...],
    relationships: bool,
    watch: bool,
    interval: float,
) -> None:
    """Copy objects, lists and relationships into the SQLite file PATH, and later only what has changed.

    Without --object and --list it mirrors people and companies. Stopped at any point, the same command goes on.
    """
    if not objects and not lists:
        objects = ("person", "company")

    async def work(nex: Nex) -> None:
        from .progress import drawn

        with drawn() as progress:
            mirror = nex.mirror(path, objects=objects, lists=lists, relationships=relationships, progress=progress)
            async with mirror:
                await _follow(mirror, interval if watch else None)

    session.run(work, resumable=True)


async def _follow(mirror: Mirror, interval: float | None) -> None:
    if interval is None:
        _tell(await mirror.sync(), always=True)
        return
    first = True
    async with contextlib.aclosing(mirror.watch(interval=interval)) as reports:
        async for report in reports:
            _tell(report, always=first)
            first = False


def _tell(report: MirrorReport, *, always: bool) -> None:
    """Print a line for each table, or for those that changed."""
    for table in report.tables.values():
        if always or table.changed:
            changes = f"{table.inserted} new, {table.updated} changed, {table.deleted} deleted"
            click.echo(f"{table.table}: {changes} ({table.rows_read} rows read in {table.seconds:.2f} s)")
        if table.unreadable:
            click.echo(f"{table.table}: {table.unreadable} rows could not be read", err=True)
    if always and report.relationships_complete is False:
        click.echo("relationships: the graph shows only a part of them", err=True)
