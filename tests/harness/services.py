"""An example as its users run it: in a process of its own, told by its environment, ended by signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from nex_async import Nex
from nex_async.emulator import Emulator

from .canary import KEY, leaked

__all__ = ["EXAMPLES", "PATIENCE", "Service", "ingest", "service", "settings", "until"]

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
PATIENCE = 25.0


class Service:
    """A process, its output line by line, and its log."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    async def line(self) -> str:
        """Return the next line of its output; an empty one when it has ended."""
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)).decode()

    async def insight(self) -> dict[str, Any]:
        """Return the next insight the listener handled."""
        line = await self.line()
        assert line, f"the listener has ended:\n{self.log}"
        return json.loads(line)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    async def logged(self, pattern: str) -> re.Match[str]:
        """Wait until the log holds a pattern."""
        return await until(lambda: re.search(pattern, self.log))

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return await self.over()

    async def over(self) -> int:
        """Return the exit status once it has ended."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE)


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until a condition holds, and return what it returned."""
    limit = asyncio.get_running_loop().time() + PATIENCE
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < limit, "it did not happen in time"
        await asyncio.sleep(0.02)
    return found


_OURS = ("NEX_", "LISTENER_", "FORWARD_", "REDIS_", "NATS_")


@contextlib.asynccontextmanager
async def service(place: Path, *command: object, **environment: str) -> AsyncIterator[Service]:
    """Run a Python process in a directory; what it logs must not show the key."""
    log = place / "service.log"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    with log.open("w") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *map(str, command)),
            cwd=place,
            env={**inherited, "PYTHONPATH": str(ROOT), **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield Service(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it has started
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]
    assert not leaked(log.read_text())


def settings(emulator: Emulator) -> dict[str, str]:
    """Return the environment that points a service at the emulator."""
    return {"NEX_API_KEY": KEY, "NEX_API_BASE_URL": emulator.url}


async def ingest(nex: Nex, *names: str) -> list[str]:
    """Ingest a sentence about each name; return the texts that become insights."""
    texts = [f"{name} <{name.lower()}@x.io> asked for a demo." for name in names]
    await nex.context.add_text("\n".join(texts))
    return texts
