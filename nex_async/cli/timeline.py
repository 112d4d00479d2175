"""`nex-async timeline`: what happened to a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .output import Output, listing_options
from .running import Session, session_options

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]

_COLUMNS = ("event_timestamp", "resource_type", "event_type", "created_by", "event_payload")


@click.command("timeline")
@click.argument("record_id", metavar="ID")
@listing_options
@session_options
def command(session: Session, output: Output, record_id: str) -> None:
    """List what happened to a record and to what hangs off it, newest first."""

    async def work(nex: Nex) -> int:
        return await output.listing(nex.records.timeline(record_id), _COLUMNS)

    session.run(work)
