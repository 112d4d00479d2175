"""`nex-async insights listen`: printed, posted, handed to a command; nothing lost when any of them fails."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from nex_async import Nex
from nex_async.emulator import Emulator

from ..harness.canary import KEY, leaked
from .running import at, lines, run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes and signals")


class Hook:
    """A web hook: keeps what it is sent, and answers as it is told."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[int] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        status = self.answers.pop(0) if self.answers else 204
        if status < 300:
            self.taken.append(await request.json())
        return web.Response(status=status, headers={"Location": self.url} if status == 302 else None)


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    found = Hook()
    app = web.Application()
    app.router.add_post("/hook", found.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield found
    await runner.cleanup()


@asynccontextmanager
async def listening(emulator: Emulator, *arguments: str, status: int = 0) -> AsyncIterator[asyncio.Task[Any]]:
    """Run the listener until it ends by itself; yields when it listens."""
    task = asyncio.create_task(asyncio.to_thread(run, "insights", "listen", *arguments, status=status, env=at(emulator)))
    while not emulator.stream.listeners and not task.done():
        await asyncio.sleep(0.01)
    try:
        yield task
    finally:
        await asyncio.wait_for(task, 40)


async def test_insights_are_printed_as_they_come(emulator: Emulator, nex: Nex) -> None:
    """Each is a line of JSON with its key; `--count` ends it; what it says of itself goes to stderr."""
    async with listening(emulator, "--count", "2") as listener:
        await nex.context.add_text("Ada signed. Bob is unhappy with the delay.")
    done = await listener
    assert [line["insight"]["content"] for line in lines(done)] == ["Ada signed.", "Bob is unhappy with the delay."]
    assert {line["source"] for line in lines(done)} == {"live"}
    assert len({line["key"] for line in lines(done)}) == 2
    assert "-- listening" in done.stderr


async def test_only_what_was_asked_for_is_printed(emulator: Emulator, nex: Nex) -> None:
    """`--type` chooses; text has a line for each, safe for a terminal."""
    async with listening(emulator, "--count", "1", "--type", "risk", "-o", "text") as listener:
        await nex.context.add_text("Ada signed. Bob is unhappy with the delay.")
    assert (await listener).stdout.endswith("risk          Bob is unhappy with the delay.\n")


async def test_a_web_hook_gets_each_once(emulator: Emulator, nex: Nex, hook: Hook) -> None:
    """Each insight is posted as it is printed, again after a passing failure, in order, without the key of Nex."""
    hook.answers = [503, 429, 204]
    async with listening(emulator, "--count", "2", "--forward-to", hook.url) as listener:
        await nex.context.add_text("Ada signed. Bob signed.")
    assert hook.taken == lines(await listener)
    assert [line["insight"]["content"] for line in hook.taken] == ["Ada signed.", "Bob signed."]
    assert len(hook.headers) == 4
    assert hook.headers[-1]["X-Nex-Insight-Key"] == hook.taken[-1]["key"]
    assert not any(leaked(str(headers)) or "Authorization" in headers for headers in hook.headers)


@pytest.mark.parametrize("answer", [400, 302])
async def test_what_a_web_hook_refuses_stops_the_listener(emulator: Emulator, nex: Nex, hook: Hook, answer: int) -> None:
    """A refusal ends the listener with status 1; with a checkpoint the insight comes again at the next start."""
    hook.answers = [answer]
    place = ("--checkpoint", "listen.db", "--forward-to", hook.url, "--count", "1")
    async with listening(emulator, *place, status=1) as listener:
        await nex.context.add_text("Ada signed.")
    assert f"the web hook answered {answer}" in (await listener).stderr
    async with listening(emulator, *place) as again:
        pass
    (line,) = lines(await again)
    assert (line["insight"]["content"], line["redelivered"]) == ("Ada signed.", True)
    assert [each["key"] for each in hook.taken] == [line["key"]]


async def test_skipping_goes_on(emulator: Emulator, nex: Nex, hook: Hook) -> None:
    """With `--on-error skip` the next one is handed on."""
    hook.answers = [400]
    async with listening(emulator, "--on-error", "skip", "--forward-to", hook.url, "--count", "2") as listener:
        await nex.context.add_text("Ada signed. Bob signed.")
    assert [line["insight"]["content"] for line in hook.taken] == ["Bob signed."]
    assert "was not taken" in (await listener).stderr


async def test_a_command_gets_each_on_its_standard_input(emulator: Emulator, nex: Nex) -> None:
    """The command reads the JSON, and finds key and type in its environment; a status other than 0 stops the listener."""
    script = Path("take.py")
    script.write_text(
        "import json, os, sys\n"
        "line = json.loads(sys.stdin.read())\n"
        "assert line['key'] == os.environ['NEX_INSIGHT_KEY']\n"
        "open('taken', 'a').write(os.environ['NEX_INSIGHT_TYPE'] + ' ' + line['insight']['content'] + '\\n')\n"
        "sys.exit('Bob' in line['insight']['content'])\n"
    )
    async with listening(emulator, "--exec", f"{sys.executable} take.py", status=1) as listener:
        await nex.context.add_text("Ada signed. Bob signed. Cem signed.")
    assert "the command ended with status 1" in (await listener).stderr
    assert Path("taken").read_text() == "milestone Ada signed.\nmilestone Bob signed.\n"


async def test_a_checkpoint_goes_on_after_sigterm(emulator: Emulator, nex: Nex) -> None:
    """What came while no listener ran is printed at the next start, nothing twice."""
    command = [sys.executable, "-W", "error", "-c", "from nex_async.cli import main; main()", "insights", "listen"]
    seen: list[str] = []
    for round_ in range(2):
        process = await asyncio.create_subprocess_exec(
            *command, "--checkpoint", "l.db", env={**os.environ, **at(emulator)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        while not emulator.stream.listeners:
            await asyncio.sleep(0.01)
        await nex.context.add_text(f"Ada{round_} signed.")
        printed = [await asyncio.wait_for(process.stdout.readline(), 25) for _ in range(1 + round_)]
        seen += [json.loads(line)["insight"]["content"] for line in printed]
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 25)
        process._transport.close()  # type: ignore[attr-defined]
        assert process.returncode == 143
        assert b"goes on from here" in errors
        assert KEY.encode() not in errors
        if round_ == 0:
            await nex.context.add_text("Missed signed.")
    assert sorted(seen) == ["Ada0 signed.", "Ada1 signed.", "Missed signed."]
