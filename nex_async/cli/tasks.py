"""`nex-async tasks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .output import Output, listing_options, output_option
from .removing import remove
from .running import Session, confirmed, session_options
from .values import given, moment

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]

_COLUMNS = ("id", "title", "is_completed", "priority", "due_date", "entity_ids")
_PRIORITIES = click.Choice(("low", "medium", "high", "urgent", "unspecified"))


@click.group("tasks")
def command() -> None:
    """Tasks."""


@command.command("list")
@click.option("--record", metavar="ID", help="Only tasks of this record.")
@click.option("--assignee", metavar="ID", help="Only tasks of this user.")
@click.option("--search", metavar="TEXT", help="Only tasks with this text in their title.")
@click.option("--done/--open", "done", default=None, help="Only tasks that are done, or are not.")
@listing_options
@session_options
def list_tasks(
    session: Session, output: Output, record: str | None, assignee: str | None, search: str | None, done: bool | None
) -> None:
    """List tasks."""

    async def work(nex: Nex) -> int:
        tasks = nex.tasks.list(entity_id=record, assignee_id=assignee, search=search, is_completed=done)
        return await output.listing(tasks, _COLUMNS)

    session.run(work)


@command.command("get")
@click.argument("task_id", metavar="ID")
@output_option
@session_options
def get(session: Session, output: Output, task_id: str) -> None:
    """Show one task."""

    async def work(nex: Nex) -> None:
        output.one(await nex.tasks.get(task_id))

    session.run(work)


@command.command("create")
@click.argument("title")
@click.option("--description")
@click.option("--priority", type=_PRIORITIES)
@click.option("--due", metavar="TIME", callback=moment, help="A date or an RFC 3339 time.")
@click.option("--record", "records", multiple=True, metavar="ID", help="A record it is about; may be repeated.")
@click.option("--assignee", "assignees", multiple=True, metavar="ID", help="A user who shall do it; may be repeated.")
@output_option
@session_options
def create(session: Session, output: Output, title: str, **chosen: Any) -> None:
    """Create a task, and print it."""

    async def work(nex: Nex) -> None:
        output.one(await nex.tasks.create(title, **_asked(chosen)))

    session.run(work)


@command.command("update")
@click.argument("task_id", metavar="ID")
@click.option("--title")
@click.option("--description", help="An empty text clears it.")
@click.option("--priority", type=_PRIORITIES)
@click.option("--due", metavar="TIME", callback=moment, help="A date or an RFC 3339 time.")
@click.option("--done/--open", "done", default=None, help="Whether it is done.")
@click.option("--record", "records", multiple=True, metavar="ID", help="The records it is about, in place of those it has.")
@click.option("--assignee", "assignees", multiple=True, metavar="ID", help="Who shall do it, in place of those who do.")
@output_option
@session_options
def update(session: Session, output: Output, task_id: str, title: str | None, done: bool | None, **chosen: Any) -> None:
    """Change what is given of a task, and print it."""
    changes = {**_asked(chosen), **given(title=title, is_completed=done)}
    if not changes:
        raise click.UsageError("nothing was given to change")

    async def work(nex: Nex) -> None:
        output.one(await nex.tasks.update(task_id, **changes))

    session.run(work)


@command.command("delete")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@confirmed("Archive {ids}? Nothing restores them.")
@output_option
@session_options
def delete(session: Session, output: Output, ids: tuple[str, ...]) -> None:
    """Archive tasks; nothing restores them."""

    async def work(nex: Nex) -> int:
        return await remove(nex.tasks.delete, ids, output)

    session.run(work)


def _asked(chosen: dict[str, Any]) -> dict[str, Any]:
    names = {"due": "due_date", "records": "entity_ids", "assignees": "assignee_ids"}
    return given(**{names.get(name, name): value for name, value in chosen.items()})
