"""`nex-async records`: the rows of an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import export, importing
from .fields import Fields, fields_options
from .output import Output, listing_options, output_option
from .removing import remove
from .running import Session, confirmed, session_options

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]


@click.group("records")
def command() -> None:
    """The rows of an object, such as person or company.

    Values are given as SLUG=VALUE, which is read by the type of the attribute; SLUG:=JSON is taken as it is, such as null; a
    slug given twice holds several values.
    """


command.add_command(importing.command)
command.add_command(export.command)


@command.command("list")
@click.argument("slug", metavar="OBJECT")
@click.option("--sort", metavar="SLUG", help="The order, such as -updated_at.")
@click.option("--attributes", default="all", show_default=True, metavar="all|primary|none|SLUG,...", help="What to return.")
@listing_options
@session_options
def list_records(session: Session, output: Output, slug: str, sort: str | None, attributes: str) -> None:
    """List the records of OBJECT."""

    async def work(nex: Nex) -> int:
        return await output.listing(nex.records.list(slug, sort=sort, attributes=export.selection(attributes)))

    session.run(work)


@command.command("get")
@click.argument("record_id", metavar="ID")
@output_option
@session_options
def get(session: Session, output: Output, record_id: str) -> None:
    """Show one record."""

    async def work(nex: Nex) -> None:
        output.one(await nex.records.get(record_id))

    session.run(work)


@command.command("create")
@click.argument("slug", metavar="OBJECT")
@fields_options()
@output_option
@session_options
def create(session: Session, output: Output, slug: str, fields: Fields) -> None:
    """Create a record of OBJECT, and print it."""

    async def work(nex: Nex) -> None:
        output.one(await nex.records.create(slug, await fields.attributes(nex, slug)))

    session.run(work)


@command.command("upsert")
@click.argument("slug", metavar="OBJECT")
@click.option("--match-on", required=True, metavar="SLUG", help="The attribute by which the record is found.")
@fields_options()
@output_option
@session_options
def upsert(session: Session, output: Output, slug: str, match_on: str, fields: Fields) -> None:
    """Update the record of OBJECT that has the same value of --match-on, or create it; print it."""

    async def work(nex: Nex) -> None:
        output.one(await nex.records.upsert(slug, await fields.attributes(nex, slug), match_on=match_on))

    session.run(work)


@command.command("update")
@click.argument("record_id", metavar="ID")
@click.option("--object", "slug", metavar="OBJECT", help="Whose record it is.  [default: its type]")
@fields_options()
@output_option
@session_options
def update(session: Session, output: Output, record_id: str, slug: str | None, fields: Fields) -> None:
    """Change the values given of a record, leave the others, and print it."""

    async def work(nex: Nex) -> None:
        kind = slug or (await nex.records.get(record_id, timeout=30)).type
        output.one(await nex.records.update(record_id, await fields.attributes(nex, kind)))

    session.run(work)


@command.command("delete")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@confirmed("Delete for good: {ids}?")
@output_option
@session_options
def delete(session: Session, output: Output, ids: tuple[str, ...]) -> None:
    """Delete records, for good."""

    async def work(nex: Nex) -> int:
        return await remove(nex.records.delete, ids, output)

    session.run(work)
