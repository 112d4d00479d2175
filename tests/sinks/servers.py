"""Real servers, each in a directory of its own, on a free port, to be killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

__all__ = ["INSTALL", "PROGRAMS", "Server", "found", "running"]

PROGRAMS = ("redis-server", "nats-server")
INSTALL = "Debian: apt-get install redis-server nats-server"
_PATIENCE = 20.0


def found(program: str) -> str | None:
    """Return the path of a server's program; Debian keeps some where only root looks."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Server:
    """A server's process. What it keeps, it keeps in its directory."""

    def __init__(self, place: Path, *command: str) -> None:
        self.port = _free_port()
        self._command = [part.format(port=self.port, place=place) for part in command]
        self._log = place / "server.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with self._log.open("a") as log:
            self._process = await asyncio.create_subprocess_exec(*self._command, stdout=log, stderr=log)
        limit = asyncio.get_running_loop().time() + _PATIENCE
        while not await _answers(self.port):
            assert self._process.returncode is None, self._log.read_text()
            assert asyncio.get_running_loop().time() < limit, self._log.read_text()
            await asyncio.sleep(0.01)

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            await asyncio.wait_for(process.wait(), _PATIENCE)
            process._transport.close()  # type: ignore[attr-defined]


def _free_port() -> int:
    """Return a free port, low enough for a Redis cluster, which takes the one 10 000 above as well."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            if (port := int(probe.getsockname()[1])) < 55_000:
                return port


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


@contextlib.asynccontextmanager
async def running(place: Path, program: str, *arguments: str) -> AsyncIterator[Server]:
    """Run a server; skip the test where its program is missing."""
    path = found(program)
    if path is None:
        pytest.skip(f"no {program} on the path: {INSTALL}")
    place.mkdir()
    server = Server(place, path, *arguments)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    limit = asyncio.get_running_loop().time() + _PATIENCE
    while not await condition():
        assert asyncio.get_running_loop().time() < limit, "it did not happen in time"
        await asyncio.sleep(0.02)
