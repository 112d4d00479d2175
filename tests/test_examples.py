"""The examples that are services, run as services: in processes of their own, ended by signals, started again."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import re
import signal
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest

from nex_async import Connected, Degraded, Gap, Nex, Recovered
from nex_async.emulator import Emulator

from .harness.canary import KEY
from .harness.services import EXAMPLES, PATIENCE, Service, ingest, service, settings, until

LISTENER = EXAMPLES / "insight_listener.py"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")
needs_fastapi = pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="fastapi is not installed")


# ---- the listener ---------------------------------------------------------------------------------------------------


async def test_the_listener_goes_on_where_it_stopped(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """SIGTERM ends the listener with status 0; started again it handles what came meanwhile, nothing twice, nothing lost."""
    created = await ingest(nex, "Ada", "Bob")
    seen: list[dict[str, Any]] = []
    for name, last in (("Cem", signal.SIGTERM), ("Eve", signal.SIGINT)):
        async with service(tmp_path, "-W", "error", LISTENER, **settings(emulator)) as listener:
            seen += [await listener.insight() for _ in range(len(created) - len(seen))]
            created += await ingest(nex, name)
            seen.append(await listener.insight())
            assert await listener.end(last) == 0
            assert await listener.line() == ""
            assert "Traceback" not in listener.log
        created += await ingest(nex, f"{name}Away", f"{name}Gone")
    async with service(tmp_path, LISTENER, **settings(emulator)) as listener:
        seen += [await listener.insight() for _ in range(2)]
        assert await listener.end() == 0
    assert [insight["content"] for insight in seen] == created
    assert not any(insight["again"] for insight in seen)
    assert len({insight["key"] for insight in seen}) == len(created)


async def test_the_listener_tells_how_it_stands(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """Its figures are logged again and again, and so is what the feed says: lost connections, a list that cannot be read."""
    async with service(tmp_path, LISTENER, LISTENER_HEALTH_SECONDS="0.05", **settings(emulator)) as listener:
        await listener.logged(r"INFO connected=True silence=\d+\.\d lag=0 live=0 .* degraded=no")
        emulator.faults.add(kind="cut_event", times=1)
        emulator.faults.add(kind="status", route="getInsights", status=403, times=1)
        await ingest(nex, "Ada")
        assert (await listener.insight())["content"].startswith("Ada")
        await listener.logged(r"WARNING Reconnecting\(attempt=1, .*ConnectionLost")
        await listener.logged(r"WARNING Degraded\(reason='ledger'")
        assert await listener.end() == 0


async def test_an_insight_that_cannot_be_handled_is_set_aside(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """A handler that raises costs one insight, which is kept in a file with its error; it does not come again."""
    program = """
import sys
from examples import insight_listener as service

kind, real = sys.argv[1], service.handle

async def handle(event):
    if kind in event.insight.content:
        raise KeyError("poison")
    await real(event)

service.handle = handle
sys.exit(service.main())
"""
    texts = await ingest(nex, "Ada", "Bob", "Cem")
    async with service(tmp_path, "-c", program, "Bob", **settings(emulator)) as listener:
        assert [(await listener.insight())["content"] for _ in range(2)] == [texts[0], texts[2]]
        assert await listener.end() == 0
    (letter,) = map(json.loads, (tmp_path / "dead_letters.jsonl").read_text().splitlines())
    assert (letter["content"], letter["error"]) == (texts[1], "KeyError('poison')")
    async with service(tmp_path, LISTENER, **settings(emulator)) as listener:
        (new,) = await ingest(nex, "Dan")
        assert (await listener.insight())["content"] == new
        assert await listener.end() == 0


async def test_what_no_restart_can_mend_is_status_2(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """No key, a refused key, and a checkpoint of another workspace end the listener with status 2 and one line."""
    async with service(tmp_path, LISTENER, HOME=str(tmp_path)) as listener:
        assert await listener.over() == 2
        assert "CRITICAL" in listener.log
    async with service(tmp_path, LISTENER, **{**settings(emulator), "NEX_API_KEY": "sk-other"}) as listener:
        assert await listener.over() == 2
        assert re.search(r"CRITICAL .*streamInsights.*401", listener.log)
    await ingest(nex, "Ada")
    async with service(tmp_path, LISTENER, **settings(emulator)) as listener:
        await listener.insight()
        assert await listener.end() == 0
    async with Emulator(keys={KEY: None}) as other, Nex(KEY, base_url=other.url) as stranger:
        await ingest(stranger, "Eve")
        async with service(tmp_path, LISTENER, **settings(other)) as listener:
            assert await listener.over() == 2
            assert "another workspace" in listener.log
            assert "Traceback" not in listener.log


async def test_a_checkpoint_in_use_is_worth_another_start(emulator: Emulator, tmp_path: Path) -> None:
    """A second listener on one checkpoint ends with status 1: the first may be about to end."""
    async with service(tmp_path, LISTENER, **settings(emulator)) as first:
        await first.logged("Connected")
        (tmp_path / "second").mkdir()
        shared = {"LISTENER_CHECKPOINT": str(tmp_path / "insights.db")}
        async with service(tmp_path / "second", LISTENER, **settings(emulator), **shared) as second:
            assert await second.over() == 1
        assert await first.end() == 0


async def test_the_listener_can_be_tried_at_once(tmp_path: Path) -> None:
    """With `--local` it needs no key and no network, makes insights by itself, and can be started again."""
    for _ in range(2):
        async with service(tmp_path, "-W", "error", LISTENER, "--local", HOME=str(tmp_path)) as listener:
            insight = await listener.insight()
            assert (insight["content"], insight["again"]) == ("Ada Park <ada@x.io> asked for a demo.", False)
            assert await listener.end() == 0
            assert "Traceback" not in listener.log


@pytest.fixture
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("insight_listener_example", LISTENER)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_a_gap_is_an_error_in_the_log(module: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """A gap is logged as an error, what passes as a warning, what is good as information."""
    caplog.set_level(logging.INFO)
    now = datetime(2026, 3, 2, tzinfo=timezone.utc)
    for signal_ in (Gap(now - timedelta(hours=1), now, "retention"), Degraded("slow"), Recovered("slow"), Connected()):
        module.note(signal_)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "INFO", "INFO"]
    assert "2026-03-01 23:00:00+00:00 and 2026-03-02 00:00:00+00:00 may be missing (retention)" in caplog.messages[0]


# ---- the web application --------------------------------------------------------------------------------------------


class Browser:
    """One reader of the application's event stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def event(self) -> str:
        """Return the next event, without its empty line; an empty string at the end of the stream."""
        lines = []
        while line := (await asyncio.wait_for(self.response.content.readline(), PATIENCE)).decode():
            if line == "\n":
                break
            lines.append(line)
        return "".join(lines)

    async def insight(self) -> dict[str, Any]:
        """Return the next insight."""
        name, key, data = (await self.event()).splitlines()
        insight = json.loads(data.removeprefix("data: "))
        assert (name, key) == ("event: insight", f"id: {insight['key']}")
        return insight


class Application:
    """The web application, and an HTTP client of it."""

    def __init__(self, process: Service, http: aiohttp.ClientSession) -> None:
        self.process = process
        self.http = http

    async def open(self) -> Browser:
        """Open a browser's stream, and wait for its welcome."""
        response = await self.http.get("/insights")
        assert (response.status, response.content_type) == (200, "text/event-stream")
        browser = Browser(response)
        assert await browser.event() == ": welcome\n"
        return browser

    async def health(self) -> dict[str, Any]:
        """Return what the application says of its feed."""
        async with self.http.get("/health") as response:
            return await response.json()

    async def consumers(self, count: int) -> None:
        """Wait until the feed has so many consumers."""
        limit = asyncio.get_running_loop().time() + PATIENCE
        while (stats := await self.health())["consumers"] != count:
            assert asyncio.get_running_loop().time() < limit, stats
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def application(place: Path, **environment: str) -> AsyncIterator[Application]:
    command = ("-m", "uvicorn", "examples.fastapi_feed:app", "--port", "0")
    async with service(place, *command, **environment) as process:
        found = await process.logged(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")
        async with aiohttp.ClientSession(found[1], timeout=aiohttp.ClientTimeout(total=None)) as http:
            yield Application(process, http)


@needs_fastapi
async def test_every_browser_gets_every_insight(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """Two browsers share one stream of the server and get each insight; one that leaves takes its queue along."""
    async with application(tmp_path, **settings(emulator)) as app:
        one, two = await app.open(), await app.open()
        await app.consumers(3)
        (text,) = await ingest(nex, "Ada")
        first = await one.insight()
        assert first["content"] == text
        assert await two.insight() == first
        assert emulator.stream.listeners == 1

        one.response.close()
        await app.consumers(2)
        (text,) = await ingest(nex, "Bob")
        assert (await two.insight())["content"] == text
        two.response.close()
        await app.consumers(1)
        assert (await app.health())["dropped"] == 0
    assert "Traceback" not in app.process.log


@needs_fastapi
async def test_the_application_ends_with_browsers_connected(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """SIGTERM ends the browsers' streams in good order, and the application with them."""
    async with application(tmp_path, **settings(emulator)) as app:
        browser = await app.open()
        assert await app.process.end() in (0, -signal.SIGTERM)  # uvicorn raises the signal again when all is done
        assert await browser.event() == ""
        browser.response.close()
        assert "Application shutdown complete" in app.process.log
        assert "Traceback" not in app.process.log
    await until(lambda: not emulator.stream.listeners)


@needs_fastapi
async def test_the_application_can_be_tried_at_once(tmp_path: Path) -> None:
    """With `NEX_LOCAL=1` it needs no key: a text that is sent comes back as an insight; bad input and the page are answered."""
    async with application(tmp_path, NEX_LOCAL="1", HOME=str(tmp_path)) as app:
        browser = await app.open()
        text = "Ada Park <ada@x.io> asked for a demo."
        async with app.http.post("/texts", json={"content": text}) as response:
            assert response.status == 202
            assert (await response.json())["artifact_id"]
        assert (await browser.insight())["content"] == text
        async with app.http.post("/texts", json={"content": " "}) as response:
            assert response.status == 422
        async with app.http.get("/") as response:
            assert "EventSource" in await response.text()
        browser.response.close()


@needs_fastapi
async def test_a_refused_stream_ends_what_browsers_get(emulator: Emulator, tmp_path: Path) -> None:
    """When the server refuses the stream for good, browsers' streams end, new ones are refused, and the log says why."""
    async with application(tmp_path, **settings(emulator)) as app:
        browser = await app.open()
        emulator.faults.add(kind="status", route="streamInsights", status=401)
        await emulator.restart()
        assert await browser.event() == ""
        browser.response.close()
        await app.process.logged("insight feed has ended")
        async with app.http.get("/insights") as response:
            assert response.status == 503
    assert "Traceback" not in app.process.log
