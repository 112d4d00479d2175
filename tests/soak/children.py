"""Processes that a soak talks to, line by line."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

__all__ = ["Child", "child"]


class Child:
    """A process that answers each line with a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid: int = process.pid
        self._process = process

    async def ask(self, line: str) -> str:
        """Send a line and return the next one it says."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()
        return await self.line()

    async def line(self) -> str:
        """Return the next line it says."""
        assert self._process.stdout is not None
        said = await asyncio.wait_for(self._process.stdout.readline(), 30)
        assert said, "the process has ended"
        return said.decode().strip()


@contextlib.asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[Child]:
    """Run a module in a process of its own, which ends when its input does."""
    command = (sys.executable, "-m", module, *arguments)
    pipe = asyncio.subprocess.PIPE
    root = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=root)
    try:
        yield Child(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)
        process._transport.close()  # type: ignore[attr-defined]
