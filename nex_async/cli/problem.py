"""What keeps a command from its end: a message, a hint and an exit status."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["AUTH", "FAILED", "PARTLY", "USAGE", "Problem", "one_line"]

FAILED, USAGE, AUTH, PARTLY = 1, 2, 3, 4


class Problem(click.ClickException):
    """Something that keeps a command from its end: what it is, what to do next, and the exit status."""

    def __init__(self, message: str, hint: str = "", status: int = FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.status = status

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """The exit status, as click asks for it."""
        return self.status

    def show(self, file: Any = None) -> None:
        """Print the two lines."""
        click.echo(f"Error: {self.format_message()}", err=True)
        if self.hint:
            click.echo(f"Hint: {self.hint}", err=True)


_PYTHON = {"force=True": "--no-resume", "give a job_id": "give --job-id", "resume=False": "--no-resume"}
"""What messages advise a program to do, and what that is called here."""


def one_line(error: Exception) -> str:
    """Return the message of an error, on one line, with the names that things have at the command line."""
    text = " ".join(str(error).split())
    for python, here in _PYTHON.items():
        text = text.replace(python, here)
    return text
