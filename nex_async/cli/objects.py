"""`nex-async objects`: the types of a workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .output import Output, listing_options, output_option
from .running import Session, confirmed, session_options

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]

_COLUMNS = ("slug", "name", "type", "id", "description")


@click.group("objects")
def command() -> None:
    """The types of a workspace, such as person and company, and their attributes."""


@command.command("list")
@click.option("--attributes", is_flag=True, help="With the attributes of each.")
@listing_options
@session_options
def list_objects(session: Session, output: Output, attributes: bool) -> None:
    """List the objects of the workspace."""

    async def work(nex: Nex) -> int:
        return await output.listing(nex.objects.list(include_attributes=attributes), _COLUMNS)

    session.run(work)


@command.command("get")
@click.argument("slug", metavar="OBJECT")
@output_option
@session_options
def get(session: Session, output: Output, slug: str) -> None:
    """Show OBJECT; on a terminal, its attributes, one a line."""

    async def work(nex: Nex) -> None:
        found = await nex.objects.get(slug)
        if output.format != "table":
            output.one(found)
            return
        rows = []
        for each in found.attributes or ():
            rules = each.options
            kinds = {"required": rules.is_required, "unique": rules.is_unique, "several": rules.is_multi_value}
            choices = ", ".join(f"{option.name or option.id} ({option.id})" for option in rules.select_options or ())
            said = [name for name, is_so in kinds.items() if is_so]
            rows.append(
                {"slug": each.slug, "type": each.type, "rules": ", ".join(said), "name": each.name, "choices": choices}
            )
        output.rows(rows, ("slug", "type", "rules", "name", "choices"))

    session.run(work)


@command.command("create")
@click.argument("slug", metavar="OBJECT")
@click.argument("name")
@click.option("--plural", metavar="NAME", help="The name of many.")
@click.option("--description")
@output_option
@session_options
def create(session: Session, output: Output, slug: str, name: str, plural: str | None, description: str | None) -> None:
    """Create the object OBJECT (its slug, which cannot be changed later) with a NAME."""

    async def work(nex: Nex) -> None:
        from msgspec import UNSET

        made = await nex.objects.create(
            slug, name, name_plural=plural or UNSET, description=UNSET if description is None else description
        )
        output.one(made)

    session.run(work)


@command.command("delete")
@click.argument("slug", metavar="OBJECT")
@confirmed("Delete the object {slug!r} and every record of it, for good?")
@output_option
@session_options
def delete(session: Session, output: Output, slug: str) -> None:
    """Delete OBJECT and every record of it, for good."""

    async def work(nex: Nex) -> None:
        await nex.objects.delete(slug)
        output.done(f"The object {slug!r} is gone.")

    session.run(work)


@command.command("add-attribute")
@click.argument("slug", metavar="OBJECT")
@click.argument("attribute", metavar="SLUG")
@click.argument("type")
@click.option("--name", help="What people read.  [default: SLUG]")
@click.option("--description")
@click.option("--required", is_flag=True, help="Every record must have a value.")
@click.option("--unique", is_flag=True, help="No two records have the same value.")
@click.option("--several", is_flag=True, help="A record can have several values.")
@click.option("--whole", is_flag=True, help="Numbers are whole.")
@click.option("--choice", "choices", multiple=True, metavar="NAME", help="A choice of a select; may be repeated.")
@output_option
@session_options
def add_attribute(
    session: Session,
    output: Output,
    slug: str,
    attribute: str,
    type: str,
    name: str | None,
    description: str | None,
    required: bool,
    unique: bool,
    several: bool,
    whole: bool,
    choices: tuple[str, ...],
) -> None:
    """Give OBJECT another attribute, SLUG, of a TYPE such as text, number, date, email, select."""

    async def work(nex: Nex) -> None:
        from msgspec import UNSET

        kind: object = type
        made = await nex.objects.create_attribute(
            slug,
            attribute,
            name or attribute,
            kind,  # type: ignore[arg-type] # checked there, with a message that names the types
            description=UNSET if description is None else description,
            is_required=required or UNSET,
            is_unique=unique or UNSET,
            is_multi_value=several or UNSET,
            is_whole_number=whole or UNSET,
            select_options=choices or UNSET,
        )
        output.one(made)

    session.run(work)
