"""Pages whose code needs a scene of its own: pytest, a stream of insights, a Redis, a DuckDB, a Ray cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nex_async import Nex
from nex_async.emulator import Emulator
from nex_async.testing import EmulatorThread

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


def test_the_page_on_dlt_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pipeline brings what is there into a DuckDB file, and a second run what is new."""
    for package in ("dlt", "duckdb"):
        pytest.importorskip(package, reason="pip install 'nex-async[dlt]' 'dlt[duckdb]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    with EmulatorThread(keys={KEY: None}) as server:
        monkeypatch.setenv("NEX_API_KEY", KEY)
        monkeypatch.setenv("NEX_API_BASE_URL", server.url)
        load = shown("docs/dlt.md", "load")
        for name in ("Ada", "Bo"):
            server.seed("person", {"name": name})
            pipeline = load()
        with pipeline.sql_client() as client:
            assert client.execute_sql("SELECT name FROM person ORDER BY name") == [("Ada",), ("Bo",)]
    assert any((tmp_path / "dlt").iterdir()), "nothing outside the directory"


def test_the_page_on_ray_writes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its job changes every person there is."""
    ray = pytest.importorskip("ray", reason="pip install 'nex-async[ray]'")
    with EmulatorThread(keys={KEY: None}) as server:
        monkeypatch.setenv("NEX_API_KEY", KEY)
        monkeypatch.setenv("NEX_API_BASE_URL", server.url)
        server.seed("person", *({"name": name, "email_addresses": [f"{name}@example.org"]} for name in ("ada", "bo")))
        try:
            shown("docs/ray.md", "nightly")()
        finally:
            ray.shutdown()
    assert "{'updated': 2} []" in capsys.readouterr().out


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
