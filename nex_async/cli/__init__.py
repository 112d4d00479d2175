"""The command `nex-async`. Each subcommand's module, and all it imports, is loaded when that command runs."""

from __future__ import annotations

import importlib
import logging

import click

from .._version import __version__

__all__ = ["main"]

_COMMANDS = {"demo": ".demo", "export": ".export", "import": ".importing", "mirror": ".mirror", "serve": ".serve"}
"""Subcommand -> module that holds it, as `command`."""


class _LazyGroup(click.Group):
    """A group that imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand, None if there is none of that name."""
        home = _COMMANDS.get(cmd_name)
        if home is None:
            return None
        command: click.Command = importlib.import_module(home, __name__).command
        return command


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nex-async")
def main() -> None:
    """Work with the Nex Developer API, or with an embedded Nex that needs no account."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # the SDK leaves this to the program it is used in
