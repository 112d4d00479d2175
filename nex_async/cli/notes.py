"""`nex-async notes`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from .output import Output, listing_options, output_option
from .removing import remove
from .running import Session, confirmed, session_options
from .values import given

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]


@click.group("notes")
def command() -> None:
    """Notes."""


@command.command("list")
@click.option("--record", metavar="ID", help="Only notes of this record.")
@listing_options
@session_options
def list_notes(session: Session, output: Output, record: str | None) -> None:
    """List notes; the API returns 200 of them at most."""

    async def work(nex: Nex) -> int:
        return await output.listing(nex.notes.list(entity_id=record), ("id", "title", "entity_id", "created_at", "content"))

    session.run(work)


@command.command("get")
@click.argument("note_id", metavar="ID")
@output_option
@session_options
def get(session: Session, output: Output, note_id: str) -> None:
    """Show one note."""

    async def work(nex: Nex) -> None:
        output.one(await nex.notes.get(note_id))

    session.run(work)


def _content(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    return sys.stdin.read() if text == "-" else text


@command.command("create")
@click.argument("title")
@click.option("--content", callback=_content, metavar="TEXT|-", help="The text; - reads standard input.")
@click.option("--record", metavar="ID", help="The record it is about.")
@output_option
@session_options
def create(session: Session, output: Output, title: str, content: str | None, record: str | None) -> None:
    """Create a note, and print it."""

    async def work(nex: Nex) -> None:
        output.one(await nex.notes.create(title, **given(content=content, entity_id=record)))

    session.run(work)


@command.command("update")
@click.argument("note_id", metavar="ID")
@click.option("--title")
@click.option("--content", callback=_content, metavar="TEXT|-", help="The text; - reads standard input.")
@click.option("--record", metavar="ID", help="The record it is about.")
@output_option
@session_options
def update(
    session: Session, output: Output, note_id: str, title: str | None, content: str | None, record: str | None
) -> None:
    """Change what is given of a note, and print it."""
    changes = given(title=title, content=content, entity_id=record)
    if not changes:
        raise click.UsageError("nothing was given to change")

    async def work(nex: Nex) -> None:
        output.one(await nex.notes.update(note_id, **changes))

    session.run(work)


@command.command("delete")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@confirmed("Archive {ids}? Nothing restores them.")
@output_option
@session_options
def delete(session: Session, output: Output, ids: tuple[str, ...]) -> None:
    """Archive notes; nothing restores them."""

    async def work(nex: Nex) -> int:
        return await remove(nex.notes.delete, ids, output)

    session.run(work)
