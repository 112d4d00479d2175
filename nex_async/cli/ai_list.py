"""`nex-async ai-list`: a list of records, asked for in plain language."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .output import Output, output_option, plain
from .running import Session, session_options

if TYPE_CHECKING:
    from ..client import Nex
    from ..feeds.jobs import Job
    from ..models import AIList

__all__ = ["command"]


@click.command("ai-list")
@click.argument("query", required=False)
@click.option("--type", "kind", type=click.Choice(("person", "company")), help="What to list.  [default: person]")
@click.option("--limit", "-n", type=click.IntRange(1, 100), help="How many at most.")
@click.option("--attributes", is_flag=True, help="With the attributes of each.")
@click.option("--job", "job_id", metavar="ID", help="Wait for a list asked for earlier, in place of QUERY.")
@click.option("--wait", default=300.0, show_default=True, type=click.FloatRange(0), help="Seconds to wait; 0 does not.")
@output_option
@session_options
def command(
    session: Session,
    output: Output,
    query: str | None,
    kind: str | None,
    limit: int | None,
    attributes: bool,
    job_id: str | None,
    wait: float,
) -> None:
    """Ask for records in plain language, such as "all companies in tech", and wait for the list."""
    if (query is None) == (job_id is None):
        raise click.UsageError("give a QUERY, or --job ID")

    async def begin(nex: Nex) -> Job[AIList]:
        from msgspec import UNSET

        if query is None:
            assert job_id is not None
            return nex.ai_lists.attach(job_id, include_attributes=attributes)
        chosen: object = kind or UNSET
        return await nex.ai_lists.create(
            query,
            object_type=chosen,  # type: ignore[arg-type] # one of the choices
            limit=limit,
            include_attributes=attributes or UNSET,
        )

    async def work(nex: Nex) -> None:
        job = await begin(nex)
        if not wait:
            output.one({"job_id": job.id, "status": "pending"})
            return
        click.echo(f"Waiting for the list; `nex-async ai-list --job {job.id}` finds it again.", err=True)
        found = await job.wait(timeout=wait)
        output.rows([plain(each) for each in found.entities or ()], ("id", "name", "type", "reason"))

    session.run(work)
