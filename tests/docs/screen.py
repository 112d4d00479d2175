"""A terminal to print on: what runs behind it sees a screen, not a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable

__all__ = ["Screen", "screen"]


class Screen:
    """What was printed so far. `end` is the descriptor to print on; `ended` is set when nobody can print any more."""

    def __init__(self) -> None:
        import pty  # not on Windows

        self._master, self.end = pty.openpty()
        self.ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._bytes = b""
        asyncio.get_running_loop().add_reader(self._master, self._read)

    @property
    def text(self) -> str:
        """What was printed, with the line ends of a file."""
        return self._bytes.decode("utf-8", "replace").replace("\r\n", "\n")

    def _read(self) -> None:
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # as Linux says that the other end was closed
            piece = b""
        self._bytes += piece
        self._changed.set()
        if not piece:
            asyncio.get_running_loop().remove_reader(self._master)
            self.ended.set()

    async def until(self, condition: Callable[[str], bool]) -> None:
        """Wait until what was printed is as it should be. Raises `AssertionError`, with the text, when that does not happen."""
        while not condition(self.text):
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), 0 if self.ended.is_set() else 30)
            except asyncio.TimeoutError:
                raise AssertionError(f"it was not printed:\n{self.text}") from None

    def close(self) -> None:
        """Close this side of the terminal."""
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


@contextlib.asynccontextmanager
async def screen() -> AsyncIterator[Screen]:
    """Yield a terminal; whoever is given its `end` closes it."""
    made = Screen()
    try:
        yield made
    finally:
        made.close()
