"""`nex-async api`: any request, for what has no command of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .fields import json_of
from .output import FORMATS, Output
from .running import Session, session_options

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@click.command("api")
@click.argument("method", type=click.Choice(_METHODS, case_sensitive=False), metavar=f"{{{'|'.join(_METHODS)}}}")
@click.argument("path")
@click.option("--query", "-q", "pairs", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated.")
@click.option("--data", "-d", metavar="JSON|@FILE|-", help="The body.")
@click.option("--output", "-o", type=click.Choice(FORMATS), default="json", show_default=True, help="How to print.")
@session_options
def command(session: Session, method: str, path: str, pairs: tuple[str, ...], data: str | None, output: str) -> None:
    """Send METHOD to PATH, such as GET /v1/objects, and print the JSON of the reply."""
    wrong = next((pair for pair in pairs if "=" not in pair), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} is not NAME=VALUE", param_hint="--query")
    query = dict(pair.split("=", 1) for pair in pairs)
    body = None if data is None else json_of(data, "--data")
    place = path if path.startswith("/") else f"/{path}"

    async def work(nex: Nex) -> None:
        from msgspec import UNSET

        reply = await nex.request(method.upper(), place, query=query or None, body=UNSET if data is None else body)
        rows = reply if isinstance(reply, list) else [reply]
        if reply is None:
            return
        if output != "json" and all(isinstance(row, dict) for row in rows):
            Output(output).rows(rows)
        else:
            Output("json").rows(reply)

    session.run(work)
