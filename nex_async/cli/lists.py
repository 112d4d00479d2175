"""`nex-async lists`: named selections of records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import export
from .fields import Fields, fields_options
from .output import Output, listing_options, output_option
from .removing import remove
from .running import Session, confirmed, session_options

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]


@click.group("lists")
def command() -> None:
    """Named selections of an object's records, with attributes of their own."""


command.add_command(export.of_list)


@command.command("list")
@click.argument("slug", metavar="OBJECT")
@listing_options
@session_options
def list_lists(session: Session, output: Output, slug: str) -> None:
    """List the lists of OBJECT."""

    async def work(nex: Nex) -> int:
        return await output.listing(nex.lists.list(slug), ("id", "slug", "name", "description", "created_at"))

    session.run(work)


@command.command("get")
@click.argument("list_id", metavar="LIST")
@output_option
@session_options
def get(session: Session, output: Output, list_id: str) -> None:
    """Show the list with the id LIST."""

    async def work(nex: Nex) -> None:
        output.one(await nex.lists.get(list_id))

    session.run(work)


@command.command("create")
@click.argument("object_slug", metavar="OBJECT")
@click.argument("slug")
@click.argument("name")
@output_option
@session_options
def create(session: Session, output: Output, object_slug: str, slug: str, name: str) -> None:
    """Create a list of records of OBJECT, with a SLUG and a NAME."""

    async def work(nex: Nex) -> None:
        output.one(await nex.lists.create(object_slug, slug, name))

    session.run(work)


@command.command("delete")
@click.argument("list_id", metavar="LIST")
@confirmed("Delete the list {list_id} for good? Its records stay.")
@output_option
@session_options
def delete(session: Session, output: Output, list_id: str) -> None:
    """Delete a list; the records on it stay."""

    async def work(nex: Nex) -> int:
        return await remove(nex.lists.delete, [list_id], output)

    session.run(work)


@command.command("members")
@click.argument("list_id", metavar="LIST")
@click.option("--sort", metavar="SLUG", help="The order, such as -updated_at.")
@listing_options
@session_options
def members(session: Session, output: Output, list_id: str, sort: str | None) -> None:
    """List the members of a list; each id is the membership's."""

    async def work(nex: Nex) -> int:
        return await output.listing(nex.lists.records(list_id, sort=sort, attributes="all"))

    session.run(work)


@command.command("add")
@click.argument("list_id", metavar="LIST")
@click.argument("record_id", metavar="ID")
@fields_options(required=False)
@output_option
@session_options
def add(session: Session, output: Output, list_id: str, record_id: str, fields: Fields) -> None:
    """Put a record on a list, or change its values of the list's own attributes; print the member."""

    async def work(nex: Nex) -> None:
        values = await fields.attributes(nex, None) or None
        output.one(await nex.lists.upsert_member(list_id, record_id, values))

    session.run(work)


@command.command("remove")
@click.argument("list_id", metavar="LIST")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@output_option
@session_options
def take_off(session: Session, output: Output, list_id: str, ids: tuple[str, ...]) -> None:
    """Take members off a list, by the ids that `members` shows; their records stay."""

    async def work(nex: Nex) -> int:
        return await remove(lambda member: nex.lists.remove_member(list_id, member), ids, output)

    session.run(work)
