"""What the commands that do long work share: the client, Ctrl-C, and one line for an error."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import click

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["client", "debug_option", "execute", "local_option"]

Command: TypeAlias = "Callable[..., Any]"
_PYTHON = {"force=True": "--force", "give a job_id": "give --job-id", "resume=False": "--no-resume"}
"""What messages advise a program to do, and what that is called here."""

local_option: Callable[[Command], Command] = click.option(
    "--local", metavar="DB", help="Work on an embedded Nex that keeps its data in the file DB."
)
debug_option: Callable[[Command], Command] = click.option("--debug", is_flag=True, help="Show where an error came from.")


class _Mistake(click.ClickException):
    exit_code = 2


def client(local: str | None) -> Nex:
    """Return a client of the embedded Nex in a file, or of the workspace whose key `Nex` finds. Raises `ConfigError`."""
    from ..client import Nex

    return Nex() if local is None else Nex.local(local)


def execute(work: Callable[[], Coroutine[Any, Any, bool]], *, debug: bool) -> NoReturn:
    """Run a command's work, and exit: 0 when it returned True, 1 when not or after an error, 2 for a mistake in its options.

    Ctrl-C (and SIGTERM) cancels the work, which may end in good order; a second one ends it at once. The status is 130 (143)
    then.
    """
    from ..errors import InvalidRequestError, MappingError, NexError

    signals: list[int] = []
    try:
        ok = asyncio.run(_guarded(work, signals))
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("Stopped. The same command goes on from here.", err=True)
        sys.exit(128 + (signals[0] if signals else signal.SIGINT))
    except NexError as error:
        if debug:
            raise
        is_usage = isinstance(error, InvalidRequestError) and not isinstance(error, MappingError)
        raise (_Mistake if is_usage else click.ClickException)(_told(error)) from None
    sys.exit(0 if ok else 1)


async def _guarded(work: Callable[[], Coroutine[Any, Any, bool]], signals: list[int]) -> bool:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop(number: int) -> None:
        signals.append(number)
        if len(signals) == 1:
            click.echo("Stopping: what is on its way is finished first. Ctrl-C again ends it at once.", err=True)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # not on Windows
            loop.add_signal_handler(number, stop, number)
    return await work()


def _told(error: Exception) -> str:
    from ..errors import SourceChanged

    text = " ".join(str(error).split())
    for python, here in _PYTHON.items():
        text = text.replace(python, here)
    if isinstance(error, SourceChanged) and "--" not in text:
        text += "; --force begins anew"
    return text
