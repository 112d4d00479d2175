"""`nex-async serve`: the embedded Nex as a server of its own."""

from __future__ import annotations

import asyncio

import click

from .running import signals_call

__all__ = ["command"]


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8787, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@click.option("--db", default=":memory:", show_default=True, help="File that keeps the data across restarts.")
@click.option("--key", default="sk-local", show_default=True, help="API key to accept.")
@click.option("--switch", "switches", multiple=True, metavar="NAME=VALUE", help="Set a switch; may be repeated.")
def command(host: str, port: int, db: str, key: str, switches: tuple[str, ...]) -> None:
    """Run an embedded Nex until Ctrl-C."""
    from ..errors import NexError

    values = {name: value for name, _, value in (switch.partition("=") for switch in switches)}
    try:
        asyncio.run(_serve(host, port, db, key, values))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--switch") from None
    except NexError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


async def _serve(host: str, port: int, db: str, key: str, switches: dict[str, str]) -> None:
    from ..emulator import Emulator

    stop = asyncio.Event()
    with signals_call(lambda number: stop.set()):
        async with Emulator(db, host=host, port=port, keys={key: None}, switches=switches) as emulator:
            click.echo(f"Nex is listening at {emulator.url} (data: {db})\n")
            click.echo("Point a client at it with:")
            click.echo(f"  export NEX_API_BASE_URL={emulator.url}")
            click.echo(f"  export NEX_API_KEY={key}")
            await stop.wait()
    click.echo("Nex has stopped.")
