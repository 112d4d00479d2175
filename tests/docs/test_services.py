"""Pages that show services and streams: what they show serves, and hears."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from nex_async import Nex
from nex_async.emulator import Emulator

from ..harness.canary import KEY
from .stage import shown
from .watching import Output


async def test_the_application_serves(emulator: Emulator, nex: Nex, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application of the page on deployment answers with what the workspace holds, and closes its client."""
    monkeypatch.setenv("NEX_API_KEY", KEY)
    monkeypatch.setenv("NEX_API_BASE_URL", emulator.url)
    await nex.records.create("person", {"name": "Ada Park"})
    runner = web.AppRunner(shown("docs/deployment.md", "application")())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/people"
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            assert await reply.json() == ["Ada Park"]
    finally:
        await runner.cleanup()


async def test_three_ways_to_hear_the_same(
    emulator: Emulator, nex: Nex, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other package's interface, the other package itself and a feed all bring the insight."""
    monkeypatch.chdir(tmp_path)
    origin = emulator.url.removesuffix("/api/developers")
    await nex.context.add_text("Ada signed.")
    await shown("docs/migration-aiohttp-sse-client.md", "first_event", origin)(KEY)
    await output.says("insight.replay {")
    await shown("docs/migration-aiohttp-sse-client.md", "by_hand", origin)(KEY)
    await output.says("}\nmilestone Ada signed.\n")
    await shown("docs/migration-aiohttp-sse-client.md", "with_nex", origin)(nex)
    await output.says("signed.\nmilestone Ada signed.\n")
