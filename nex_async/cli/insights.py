"""`nex-async insights`: what the AI derived, listed or as it comes."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal, cast

import click

from .output import Output, listing_options
from .running import Session, session_options
from .values import given, moment

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]

_COLUMNS = ("created_at", "type", "content", "confidence_level", "id")
_MOST = 100
"""Insights that the API lists at once."""


@click.group("insights")
def command() -> None:
    """What the AI derived about the people and companies of the workspace."""


@command.command("list")
@click.option("--last", metavar="DURATION", help="Of the last while, such as 30m or 24h.")
@click.option("--from", "start", metavar="TIME", callback=moment, help="From a date or time on; with --to.")
@click.option("--to", "end", metavar="TIME", callback=moment, help="Up to a date or time; with --from.")
@listing_options
@session_options
def list_insights(session: Session, output: Output, last: str | None, start: datetime | None, end: datetime | None) -> None:
    """List insights: the latest, of the last while, or all of a time, however many there are, oldest first."""
    if (start is None) != (end is None):
        raise click.UsageError("--from and --to go together")
    if last is not None and start is not None:
        raise click.UsageError("give --last, or --from and --to")

    async def work(nex: Nex) -> int:
        if start is not None and end is not None:
            return await output.listing(nex.insights.history(start, end), _COLUMNS)
        most = min(output.limit or _MOST, _MOST)
        return await output.listing(nex.insights.list(last=last, limit=most), _COLUMNS)

    session.run(work)


def _start(ctx: click.Context, param: click.Parameter, text: str) -> datetime | Literal["replay", "now"]:
    if text in ("replay", "now"):
        return cast("Literal['replay', 'now']", text)
    found = moment(ctx, param, text)
    assert found is not None
    return found


@command.command("listen")
@click.option("--checkpoint", type=click.Path(dir_okay=False), metavar="FILE", help="Go on from here after a stop or crash.")
@click.option("--start", default="now", show_default=True, callback=_start, metavar="now|replay|TIME",
              help="Where to begin: with what is new, with the latest 20, or at a time.")  # fmt: skip
@click.option("--type", "types", multiple=True, help="Only insights of this type; may be repeated.")
@click.option("--min-confidence", type=click.FloatRange(0, 1), help="Only insights of at least this confidence.")
@click.option("--forward-to", metavar="URL", help="POST each insight to this address, as JSON.")
@click.option("--exec", "program", metavar="CMD", help="Run this for each insight, with the JSON on its standard input.")
@click.option("--on-error", type=click.Choice(("stop", "skip")), default="stop", show_default=True,
              help="When an insight is refused. What fails in passing is tried for 30 seconds.")  # fmt: skip
@click.option("--count", type=click.IntRange(1), help="End after so many insights.")
@click.option("--output", "-o", type=click.Choice(("text", "jsonl")), help="How to print.  [default: text on a terminal]")
@session_options
def listen(
    session: Session,
    checkpoint: str | None,
    start: datetime | Literal["replay", "now"],
    types: tuple[str, ...],
    min_confidence: float | None,
    forward_to: str | None,
    program: str | None,
    on_error: str,
    count: int | None,
    output: str | None,
) -> None:
    """Print insights as they come, until Ctrl-C; hand each on to a web hook or a command.

    Lost connections are made anew, and what was missed is read from the list. With --checkpoint an insight counts as
    handled when it was printed, answered by the web hook with a 2xx, and the command has ended with status 0: started again,
    all that was not comes then. The one that was being handled at a crash may come twice: its `key` tells. What the listener
    has to say of itself goes to stderr.
    """
    from .listening import Listener, check_url

    if forward_to is not None:
        check_url(forward_to)

    async def work(nex: Nex) -> None:
        feed = nex.insights.stream(checkpoint=checkpoint, start=start, **given(types=types, min_confidence=min_confidence))
        await Listener(output, forward_to, program, count).listen(feed, skips=on_error == "skip")

    session.run(work, resumable=checkpoint is not None)
