"""The command `nex-async`. Each subcommand's module, and all it imports, is loaded when that command runs."""

from __future__ import annotations

import importlib
import logging
from typing import NamedTuple

import click

from .._version import __version__

__all__ = ["main"]


class _Entry(NamedTuple):
    """Where a command lives, as `command`, and its line in the list of commands."""

    home: str
    help: str


_SECTIONS: dict[str, dict[str, _Entry]] = {
    "Your data": {
        "records": _Entry(".records", "The rows of an object: list, change, import, export."),
        "objects": _Entry(".objects", "The types of a workspace, and their attributes."),
        "lists": _Entry(".lists", "Named selections of records."),
        "tasks": _Entry(".tasks", "Tasks."),
        "notes": _Entry(".notes", "Notes."),
        "search": _Entry(".search", "Search every kind of record."),
        "timeline": _Entry(".timeline", "What happened to a record."),
        "mirror": _Entry(".mirror", "A local SQLite copy that keeps in step."),
    },
    "What the AI knows": {
        "ask": _Entry(".ask", "Ask a question in plain language."),
        "remember": _Entry(".remember", "Take texts in, and wait for what comes of them."),
        "ai-list": _Entry(".ai_list", "Ask for a list of records in plain language."),
        "insights": _Entry(".insights", "What the AI derived: list it, or listen as it comes."),
    },
    "For programs": {
        "types": _Entry(".types", "Python types for the objects of the workspace."),
        "api": _Entry(".api", "Send any request, and print its reply."),
        "serve": _Entry(".serve", "Run an embedded Nex as a server."),
        "demo": _Entry(".demo", "See the SDK at work on real companies."),
    },
    "Settings": {
        "auth": _Entry(".auth", "Log in, log out, see which key is in use."),
        "doctor": _Entry(".doctor", "Look at each step of the way to the server."),
        "completion": _Entry(".completion", "Print the completion script of a shell."),
    },
}
_ENTRIES = {name: entry for section in _SECTIONS.values() for name, entry in section.items()}


class _LazyGroup(click.Group):
    """A group that imports a subcommand when it is asked for; its help imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands."""
        return list(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand, None if there is none of that name."""
        entry = _ENTRIES.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = importlib.import_module(entry.home, __name__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands, by section."""
        for title, entries in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in entries.items()], col_max=12)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand; of one that does not exist, say which may have been meant."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from difflib import get_close_matches

            close = get_close_matches(args[0], _ENTRIES, n=1)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(ctx, args)


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nex-async")
def main() -> None:
    """Work with the Nex Developer API, or with an embedded Nex that needs no account.

    The key is taken from NEX_API_KEY, a login (`nex-async auth login`) or the files of ~/.nex; --local DB works on an
    embedded Nex in a file. Output is a table on a terminal and JSON Lines where it is piped.

    Exit status: 0 all is well, 1 failed, 2 a mistake in the command line, 3 the key is missing or not allowed to, 4 done in
    part, 130 after Ctrl-C.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # the SDK leaves this to the program it is used in
