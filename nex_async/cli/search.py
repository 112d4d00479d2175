"""`nex-async search`: records of every kind by a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .output import Output, listing_options, plain
from .problem import PARTLY
from .running import Session, session_options

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]


@click.command("search")
@click.argument("query")
@listing_options
@session_options
def command(session: Session, output: Output, query: str) -> None:
    """Find records of every kind by a text, best first."""

    async def work(nex: Nex) -> int:
        found = await nex.search(query)
        kinds = {id(hit): kind for kind, hits in found.results.items() for hit in hits}
        rows = [{"type": kinds[id(hit)], **plain(hit)} for hit in found.flat()]
        output.rows(output.first(rows), ("type", "id", "primary_value", "matched_value", "score"))
        if found.partial:
            click.echo(f"These could not be searched: {', '.join(found.errored_search_types)}", err=True)
        return PARTLY if found.partial else 0

    session.run(work)
