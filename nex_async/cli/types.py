"""`nex-async types`: Python types for the objects of a workspace."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .problem import FAILED, Problem
from .running import Session, session_options

if TYPE_CHECKING:
    from ..client import Nex
    from ..models import Object

__all__ = ["command"]


@click.command("types")
@click.option(
    "--object", "slugs", multiple=True, metavar="OBJECT", help="Only this object; may be repeated.  [default: all]"
)
@click.option("--check", metavar="FILE", type=click.Path(dir_okay=False), help="Print nothing but how FILE differs.")
@session_options
def command(session: Session, slugs: tuple[str, ...], check: str | None) -> None:
    """Write a module with a msgspec Struct for each object of the workspace, to be used with as_type=.

    \b
    nex-async types > crm.py
    nex-async types --check crm.py      # in CI: status 1 when the workspace has drifted
    """  # noqa: D301  (click reads the character \b, not two letters)
    before = None if check is None else _read(check)

    async def work(nex: Nex) -> int | None:
        from .schema_types import module_of

        text = module_of(await _objects(nex, slugs))
        if before is None:
            click.echo(text, nl=False)
            return None
        lines = difflib.unified_diff(before.splitlines(), text.splitlines(), check or "", "the workspace", lineterm="", n=1)
        drift = list(lines)
        for line in drift:
            click.echo(line)
        if drift:
            click.echo(f"{check} is not what the workspace is; write it again.", err=True)
        return FAILED if drift else 0

    session.run(work)


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise Problem(f"cannot read {path!r}: {reason}", f"nex-async types > {path}", 2) from None


async def _objects(nex: Nex, slugs: tuple[str, ...]) -> list[Object]:
    if slugs:
        return [await nex.objects.get(slug) for slug in slugs]
    return await nex.objects.list(include_attributes=True).collect()
