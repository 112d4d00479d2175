"""kill -9, fifty times: a listener with a checkpoint loses nothing, and says what may come again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nex_async import Nex
from nex_async.emulator import Emulator

from .harness.canary import KEY

KILLS = 50

# Importing takes far longer than listening: one process imports, and each listener is forked from it.
_NURSERY = """
    import asyncio, os, random, signal, sys
    from nex_async import Nex
    import nex_async.emulator, nex_async.feeds.insights

    async def listen(url, key, checkpoint, log):
        out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        async with Nex(key, base_url=url) as nex, nex.insights.stream(checkpoint=checkpoint) as feed:
            async for event in feed:
                line = f"{event.key} {int(event.redelivered)} {event.insight.content}\\n".encode()
                os.write(out, b"begin " + line)
                await asyncio.sleep(random.choice((0, 0, 0.005)))
                os.write(out, b"end " + line)

    for _ in sys.stdin:
        child = os.fork()
        if not child:
            asyncio.run(listen(*sys.argv[1:]))
            os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("over", flush=True)
"""


class Nursery:
    """Starts listeners, one at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def start(self) -> int:
        """Start a listener and return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        await self._process.stdin.drain()
        return int(await self._line())

    async def kill(self, pid: int) -> None:
        """Kill it, and return when it is gone."""
        os.kill(pid, signal.SIGKILL)
        assert await self._line() == b"over"

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), 20)).strip()


@contextlib.asynccontextmanager
async def nursery(*arguments: str) -> AsyncIterator[Nursery]:
    command = [sys.executable, "-c", textwrap.dedent(_NURSERY), *arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        yield Nursery(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)
        process._transport.close()  # type: ignore[attr-defined]


def lines(log: Path, what: str) -> list[tuple[str, bool, str]]:
    """Return key, whether it was said to come again, and content of each insight that was begun or ended."""
    found = []
    for line in log.read_text().splitlines() if log.exists() else []:
        verb, key, again, content = line.split(" ", 3)
        if verb == what:
            found.append((key, again == "1", content))
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    """Every insight is handled to its end, whatever instant the listener is killed at; what comes again says so."""
    draw = random.Random(5)
    log, checkpoint = tmp_path / "log", tmp_path / "insights.db"
    created: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(keys={KEY: None}, switches={"rate_limits": "off"}))
        nex = await stack.enter_async_context(Nex(KEY, base_url=emulator.url))
        home = await stack.enter_async_context(nursery(emulator.url, KEY, str(checkpoint), str(log)))

        async def ingest(count: int) -> None:
            texts = [f"Name{len(created) + n} <name{len(created) + n}@x.io> asked for a demo." for n in range(count)]
            created.extend(texts)
            await nex.request("POST", "/v1/context/text", body={"content": "\n".join(texts)})

        await ingest(1)
        pid = await home.start()
        while not lines(log, "end"):  # a feed without a past begins with the latest twenty
            await asyncio.sleep(0.02)
        await home.kill(pid)
        for _ in range(KILLS):
            pid = await home.start()
            until = asyncio.get_running_loop().time() + draw.uniform(0.0, 0.25)
            while asyncio.get_running_loop().time() < until:
                await ingest(draw.randint(1, 3))
                await asyncio.sleep(draw.uniform(0.0, 0.03))
            await home.kill(pid)
        pid = await home.start()
        limit = asyncio.get_running_loop().time() + 20
        while {content for _, _, content in lines(log, "end")} < set(created):
            assert asyncio.get_running_loop().time() < limit, set(created) - {one for _, _, one in lines(log, "end")}
            await asyncio.sleep(0.02)
        await home.kill(pid)

    begun = lines(log, "begin")
    assert {content for _, _, content in begun} == set(created)
    seen: set[str] = set()
    for _, again, content in begun:
        assert again or content not in seen, f"{content} came twice and did not say so"
        seen.add(content)
    assert sum(again for _, again, _ in begun) <= KILLS + 2
