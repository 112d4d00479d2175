"""Pages whose code needs a scene of its own: pytest for the page on tests, a stream for that on sinks, a Redis for limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nex_async import Nex
from nex_async.emulator import Emulator

from ..harness.canary import KEY
from ..sinks.servers import running
from .pages import blocks_of
from .stage import shown
from .watching import Output, playing


def test_the_page_on_tests_is_a_suite_that_passes(tmp_path: Path) -> None:
    """Its first block, saved as a module of tests and run by pytest, passes with warnings as errors."""
    first = next(block for block in blocks_of("docs/testing.md") if block.language == "python")
    (tmp_path / "test_leads.py").write_text(first.text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


async def test_the_page_on_sinks_relays(
    nex: Nex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each insight gets to the sink the page writes, in the form the page names."""
    monkeypatch.chdir(tmp_path)
    await nex.context.add_text("Ada signed.")
    async with playing(shown("docs/sinks.md", "relay")(nex)):
        await Output(capsys).says("Ada signed.\n")


async def test_the_page_on_limits_shares_a_redis(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process it shows leases from a real Redis."""
    redis = pytest.importorskip("redis.asyncio")
    monkeypatch.setenv("NEX_API_BASE_URL", emulator.url)
    options = ("--bind", "127.0.0.1", "--port", "{port}", "--dir", "{place}", "--save", "")
    async with running(tmp_path / "redis", "redis-server", *options) as server:
        url = f"redis://127.0.0.1:{server.port}"
        await shown("docs/limits.md", "in_one_process")(KEY, url)
        async with redis.Redis.from_url(url) as client:
            assert len(await client.keys("{nex:budget:*")) == 1
    assert emulator.requests.count() == 1
