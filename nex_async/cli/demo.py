"""`nex-async demo`: the SDK at its main job, on real companies, against the embedded Nex."""

from __future__ import annotations

import asyncio

import click

__all__ = ["command"]

_EXTRA = 'the demo needs its extra: pip install "nex-async[demo]"'


@click.command("demo")
@click.option("--companies", type=click.IntRange(1), help="Use only so many companies.")
def command(companies: int | None) -> None:
    """Fill an embedded Nex with real listed companies, and work with them."""
    try:
        from . import demo_run
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "pytickersymbols"):
            raise
        raise click.ClickException(_EXTRA) from None
    asyncio.run(demo_run.run(companies))
