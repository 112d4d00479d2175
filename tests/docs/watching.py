"""Functions of a page that never end, and what they print."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import pytest

__all__ = ["Output", "playing", "until"]

T = TypeVar("T")


@contextlib.asynccontextmanager
async def playing(coroutine: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Run what a page shows and never ends, as long as this is open."""
    task = asyncio.ensure_future(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], T]) -> T:
    """Wait until a condition holds."""
    limit = asyncio.get_running_loop().time() + 25.0
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < limit, "it did not happen in time"
        await asyncio.sleep(0.01)
    return found


class Output:
    """What was printed so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.text = ""

    async def says(self, text: str) -> None:
        """Wait until it holds a text."""

        def holds() -> bool:
            self.text += self._capsys.readouterr().out
            return text in self.text

        await until(holds)
