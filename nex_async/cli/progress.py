"""How far a command has come, on stderr: a bar where somebody watches, else a line every few seconds."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..bulk.progress import Progress

__all__ = ["drawn"]

_SECONDS = 5.0
"""Between two lines."""


@contextlib.contextmanager
def drawn() -> Iterator[Callable[[Progress], None]]:
    """Yield a progress callback: bars on a terminal where rich is installed, which vanish at the end; else plain lines."""
    if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        with _bars() as draw:
            yield draw
    else:
        yield _lines()


def _lines() -> Callable[[Progress], None]:
    told: dict[str, float] = {}

    def draw(progress: Progress) -> None:
        if progress.elapsed - told.setdefault(progress.name, 0.0) >= _SECONDS:
            told[progress.name] = progress.elapsed
            click.echo(_line(progress), err=True)

    return draw


def _line(progress: Progress) -> str:
    total = "" if progress.total is None else f" of {progress.total}"
    parts = [f"{progress.done}{total} rows", f"{progress.rate:.0f}/s"]
    if progress.eta:
        parts.append(f"{_time(progress.eta)} to go")
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.note:
        parts.append(progress.note)
    return f"{progress.name}: {', '.join(parts)}"


def _time(seconds: float) -> str:
    """Return a time in its two largest units, such as `2 h 5 min`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
    from rich.progress import Progress as Bars

    told = TextColumn("{task.fields[told]}", markup=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), told)
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(progress: Progress) -> None:
            task = tasks.get(progress.name)
            if task is None:
                task = tasks[progress.name] = bars.add_task(progress.name, total=None, told="")
            told = _line(progress).partition(" rows, ")[2]
            bars.update(task, total=progress.total, completed=progress.done, told=told)

        yield draw
