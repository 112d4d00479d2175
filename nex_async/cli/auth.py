"""`nex-async auth`: which key is in use, and where it is kept."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from .output import Output, output_option
from .problem import AUTH, Problem
from .running import execute

if TYPE_CHECKING:
    from ..config import Secret

__all__ = ["command"]


@click.group("auth")
def command() -> None:
    """Which key is in use, and where it is kept."""


@command.command("status")
@output_option
def status(output: Output) -> None:
    """Show where the key comes from, and whether the server takes it."""
    execute(lambda: _status(output), debug=False)


async def _status(output: Output) -> int:
    from . import credentials

    found = credentials.find()
    if found is None:
        raise Problem("no API key was found", "log in with `nex-async auth login`, or set NEX_API_KEY", AUTH)
    url = credentials.base_url_of(found)
    problem = await _refusal(found.key, url)
    output.one({
        "key": shown(found.key), "source": found.source, "base_url": url, "accepted": problem is None, "problem": problem,
    })  # fmt: skip
    return 0 if problem is None else AUTH


def shown(key: Secret) -> str:
    """Return at most the last four characters of a key."""
    return str(key).partition("'")[2].partition("'")[0]


async def _refusal(key: Secret, url: str) -> str | None:
    """Return why the server refuses a key, None where it does not: a key without a scope is a key. Raises `NexError`."""
    from ..client import Nex
    from ..errors import AuthenticationError, PermissionDeniedError

    async with Nex(key, base_url=url, timeout=20) as nex:
        try:
            await nex.objects.list()
        except AuthenticationError as error:
            return str(error)
        except PermissionDeniedError:
            pass
    return None


@command.command("login")
@click.option("--with-key", is_flag=True, help="Read the key from standard input.")
@click.option("--base-url", metavar="URL", help="Another server than production.")
@click.option("--store", type=click.Choice(("auto", "keyring", "file")), default="auto", show_default=True,
              help="Where to keep it: the system's keyring, a file for you alone, or the first that works.")  # fmt: skip
@click.option("--no-check", is_flag=True, help="Keep it without asking the server.")
def login(with_key: bool, base_url: str | None, store: str, no_check: bool) -> None:
    """Keep a key, so that commands find it. The server is asked whether it takes it first.

    A key in the file is found by Python programs too, one in the keyring by this command only. NEX_API_KEY comes before
    both.
    """
    execute(lambda: _login(with_key, base_url, store, no_check), debug=False)


async def _login(with_key: bool, base_url: str | None, store: str, no_check: bool) -> int:
    from ..config import DEFAULT_BASE_URL, Secret, masked, normalise_base_url
    from . import credentials

    url = normalise_base_url(base_url or DEFAULT_BASE_URL, "--base-url")
    key = Secret(masked(await asyncio.to_thread(_ask, with_key)))
    problem = None if no_check else await _refusal(key, url)
    if problem is not None:
        raise Problem(f"the key was not kept: {problem}", "keys are made at app.nex.ai/settings/developers", AUTH)
    if store != "file" and credentials.keep_in_keyring(key, url):
        click.echo(f"{shown(key)} is kept in the system's keyring.", err=True)
    elif store == "keyring":
        raise Problem("there is no keyring here that keeps secrets", "pip install keyring, or --store file")
    else:
        click.echo(f"{shown(key)} is kept in {credentials.keep_in_file(key, url)}, which only you can read.", err=True)
    return 0


def _ask(with_key: bool) -> str:
    """Return the key that somebody types or pipes in."""
    if with_key or not sys.stdin.isatty():
        return sys.stdin.readline(4096).strip()
    said: str = click.prompt("Key", hide_input=True, err=True)
    return said


@command.command("logout")
def logout() -> None:
    """Forget the key that a login has kept."""
    from . import credentials

    gone = credentials.forget()
    click.echo(f"Gone from {', '.join(gone)}." if gone else "No login is kept here.", err=True)
    found = credentials.find()
    if found is not None:
        click.echo(f"A key is still found in {found.source}.", err=True)
