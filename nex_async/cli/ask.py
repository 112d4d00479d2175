"""`nex-async ask`: a question in plain language."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .output import Output, output_option, plain
from .running import Session, session_options
from .texts import standard_input

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]


@click.command("ask")
@click.argument("question", required=False)
@click.option("--session", "session_id", metavar="ID", help="Go on with a conversation: the id an answer came with.")
@output_option
@session_options
def command(session: Session, output: Output, question: str | None, session_id: str | None) -> None:
    """Ask QUESTION, or what comes on standard input; print the answer and what it rests on. May take a minute."""
    query = standard_input("a question") if question is None else question

    async def work(nex: Nex) -> None:
        from msgspec import UNSET

        answer = await nex.context.ask(query, session_id=session_id or UNSET)
        if output.format != "table":
            output.one(answer)
            return
        click.echo(answer.answer)
        if answer.entities:
            click.echo()
            output.rows([plain(each) for each in answer.entities], ("id", "name", "type", "reason"))
        if answer.session_id:
            click.echo(f"To go on: nex-async ask --session {answer.session_id}", err=True)

    session.run(work)
