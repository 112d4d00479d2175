"""What every command that talks to Nex shares: the client, Ctrl-C, exit statuses, and two lines for an error."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import click

from .problem import AUTH, Problem, one_line

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["Session", "confirmed", "execute", "problem_of", "session_options", "signals_call"]

Command: TypeAlias = "Callable[..., Any]"
Work: TypeAlias = "Callable[[Nex], Coroutine[Any, Any, int | None]]"
"""What a command does with a client; returns the exit status, None for 0."""


@dataclass(frozen=True)
class Session:
    """Where a command works, and how long a call of it may take."""

    local: str | None = None
    timeout: float | None = None
    debug: bool = False

    def run(self, work: Work, *, resumable: bool = False) -> NoReturn:
        """Do a command's work with a client, and exit with its status; see `execute`."""
        execute(lambda: self._work(work), debug=self.debug, resumable=resumable)

    async def _work(self, work: Work) -> int | None:
        async with self.client() as nex:
            return await work(nex)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Nex]:
        """Yield a client of the embedded Nex in a file, or of the workspace whose key is found."""
        from ..errors import NotFoundError
        from .hints import for_missing

        async with self.bare() as nex:
            try:
                yield nex
            except NotFoundError as error:
                if self.debug:
                    raise
                raise Problem(one_line(error), await for_missing(nex, error)) from None

    def bare(self) -> Nex:
        """Return the client, not yet opened. Raises `Problem` where there is no key."""
        from ..client import Nex
        from . import credentials

        if self.local is not None:
            return Nex.local(self.local, timeout=self.timeout)
        found = credentials.find()
        if found is None:
            raise Problem(
                "no API key was found",
                "log in with `nex-async auth login`, set NEX_API_KEY, or try an embedded Nex with --local nex.sqlite",
                AUTH,
            )
        return Nex(found.key, base_url=credentials.base_url_of(found), timeout=self.timeout)


def session_options(command: Command) -> Command:
    """Add the options that say where a command works; it gets them as its first argument, a `Session`."""

    @functools.wraps(command)
    def called(*args: Any, local: str | None, timeout: float | None, debug: bool, **kwargs: Any) -> Any:
        return command(Session(local, timeout, debug), *args, **kwargs)

    for option in (
        click.option("--debug", is_flag=True, help="Show where an error came from."),
        click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Seconds that one call may take."),
        click.option("--local", metavar="DB", help="Work on an embedded Nex that keeps its data in the file DB."),
    ):
        called = option(called)
    return called


def confirmed(question: str) -> Callable[[Command], Command]:
    """Ask before something is lost for good: `--yes` answers, and is needed where nobody can be asked."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def called(*args: Any, yes: bool, **kwargs: Any) -> Any:
            if not yes:
                if not sys.stdin.isatty():
                    raise click.UsageError("nobody can be asked here: say --yes if you mean it")
                click.confirm(question.format(**kwargs), abort=True)
            return command(*args, **kwargs)

        return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(called)

    return decorate


def execute(work: Callable[[], Coroutine[Any, Any, int | None]], *, debug: bool, resumable: bool = False) -> NoReturn:
    """Run a command's work, and exit with the status it returns; an error is told in two lines.

    Ctrl-C (and SIGTERM) cancels the work, which may end in good order; a second one ends it at once. The status is 130 (143)
    then.
    """
    from ..errors import NexError

    signals: list[int] = []
    try:
        status = asyncio.run(_guarded(work, signals, resumable))
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("Stopped. The same command goes on from here." if resumable else "Stopped.", err=True)
        sys.exit(128 + (signals[0] if signals else signal.SIGINT))
    except NexError as error:
        if debug:
            raise
        raise problem_of(error) from None
    except OSError as error:
        if debug or error.errno == errno.EPIPE:  # who reads has left: click ends quietly
            raise
        raise Problem(f"{error.strerror or error}", "output or a file could not be written" * bool(error.errno)) from None
    sys.exit(status or 0)


async def _guarded(work: Callable[[], Coroutine[Any, Any, int | None]], signals: list[int], resumable: bool) -> int | None:
    task = asyncio.current_task()
    assert task is not None

    def stop(number: int) -> None:
        signals.append(number)
        if len(signals) == 1 and resumable:
            click.echo("Stopping: what is on its way is finished first. Ctrl-C again ends it at once.", err=True)
        task.cancel()

    with signals_call(stop):
        return await work()


@contextlib.contextmanager
def signals_call(stop: Callable[[int], object]) -> Iterator[None]:
    """Call `stop` with the number of a signal that asks to end. Afterwards they mean what they did, on uvloop too."""
    loop, heard = asyncio.get_running_loop(), []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not on Windows, nor in another thread
            loop.add_signal_handler(number, stop, number)
            heard.append(number)
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


def problem_of(error: Exception) -> Problem:
    """Return an error of the SDK as what a person at a terminal needs."""
    from .hints import for_error, status_of

    return Problem(one_line(error), for_error(error), status_of(error))
