"""What the console asks the emulator for, in bare HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from nex_async.emulator import Emulator

from .conftest import Api

TEXT = "Ada Park <ada@alder.io> is unhappy and may churn."


class Console:
    """Asks for what the page asks for, without a key."""

    def __init__(self, session: aiohttp.ClientSession, emulator: Emulator) -> None:
        self.session = session
        self.emulator = emulator
        self.origin = emulator.url.replace("/api/developers", "")
        self.api = Api(session, emulator.url, emulator.key)

    async def __call__(self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        url = f"{self.origin}/_emulator/{path}"
        async with self.session.request(method, url, json=body, headers=headers) as response:
            assert response.status == status, await response.text()
            return await response.json()


@pytest.fixture
async def console() -> AsyncIterator[Console]:
    async with Emulator(processing_delay=0) as emulator, aiohttp.ClientSession() as session:
        yield Console(session, emulator)


async def read_event(response: aiohttp.ClientResponse) -> Any:
    """Return the next event of the live line."""
    while True:
        frame = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 10)
        if frame.startswith(b"data: "):
            return json.loads(frame[6:])


async def test_the_page_and_its_parts(console: Console) -> None:
    """The page, its style and its script come from the server alone, under a policy that runs nothing else."""
    for name, kind in (("", "text/html"), ("console.css", "text/css"), ("console.js", "text/javascript")):
        async with console.session.get(f"{console.origin}/_emulator/{name}") as response:
            text = await response.text()
            assert response.status == 200
            assert response.content_type == kind
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http://" not in text
            assert "https://" not in text
            assert "innerHTML" not in text
    await console("POST", "", status=405)


async def test_the_workspace_is_counted(console: Console) -> None:
    """The page learns every object and list with its count, what else there is, and the words of a fault."""
    await console.api.record()
    await console.api("POST", "/v1/objects/person/lists", {"name": "VIP", "slug": "vip"})
    await console.api("POST", "/v1/tasks", {"title": "x"})
    held = await console("GET", "workspace")
    assert [(each["slug"], each["count"]) for each in held["objects"]] == [("person", 1), ("company", 0), ("vip", 0)]
    assert held["counts"] == {"tasks": 1, "notes": 0, "relationships": 0, "insights": 0, "artifacts": 0}
    assert held["listeners"] == 0
    assert "status" in held["kinds"]
    assert len(held["operations"]) == 61


async def test_records_come_in_pages(console: Console) -> None:
    """The newest 50 records of an object come first, the offset goes on, and an unknown object is 404."""
    for number in range(53):
        await console.api.record(name=f"P {number}")
    page = await console("GET", "records?object=person")
    assert (len(page["data"]), page["total"]) == (50, 53)
    assert page["data"][0]["attributes"]["name"] == "P 52"
    rest = await console("GET", "records?object=person&offset=50")
    assert [row["attributes"]["name"] for row in rest["data"]] == ["P 2", "P 1", "P 0"]
    assert (await console("GET", "records?object=nobody", status=404))["code"] == 404
    assert "offset" in (await console("GET", "records?object=person&offset=-1", status=400))["message"]


async def test_a_text_taken_in_reaches_the_stream(console: Console) -> None:
    """A text of the console is ingested like any other, its insights go out, and no call of the API is counted."""
    async with console.session.get(
        console.api.url + "/v1/insights/stream", headers={"Authorization": f"Bearer {console.api.key}"}
    ) as stream:
        await stream.content.readuntil(b"\n\n")
        await console("POST", "texts", {"content": TEXT, "context": "console"})
        assert (await stream.content.readuntil(b"\n\n")).startswith(b"event: insight.batch.created\n")
    assert console.emulator.requests.count("addContext") == 0
    assert [each["content"] for each in (await console.api("GET", "/v1/insights"))["data"]] == [TEXT]


async def test_texts_that_cannot_be_taken_in_are_refused(console: Console) -> None:
    """An empty or broken text is a 400 that says why."""
    for body in ({"content": " "}, {}, [], {"content": "\ud800"}):
        assert (await console("POST", "texts", body, status=400))["code"] == 400
    await console("GET", "texts", status=405)


async def test_the_live_line_tells_what_happens(console: Console) -> None:
    """The line begins with what there is; then come requests and insights, each as it happens."""
    await console("POST", "texts", {"content": TEXT})
    await console.api("GET", "/v1/tasks")
    async with console.session.get(f"{console.origin}/_emulator/events") as line:
        assert line.content_type == "text/event-stream"
        past = await read_event(line)
        assert [each["content"] for each in past["insights"]] == [TEXT]
        assert [each["operation"] for each in past["requests"]] == ["listTasks"]
        await console.api("GET", "/v1/nothing", status=404)
        await console("POST", "texts", {"content": "Bo <bo@birch.dev> signed."})
        requests: list[Any] = []
        insights: list[Any] = []
        while not (requests and insights):
            news = await read_event(line)
            requests += news["requests"]
            insights += news["insights"]
        assert (requests[-1]["path"], requests[-1]["status"]) == ("/api/developers/v1/nothing", 404)
        assert [each["content"] for each in insights] == ["Bo <bo@birch.dev> signed."]


async def test_the_line_shows_what_a_fault_keeps_from_the_stream(console: Console) -> None:
    """An emission that a fault drops is on the live line all the same."""
    console.emulator.faults.add(kind="drop_emission")
    async with console.session.get(f"{console.origin}/_emulator/events") as line:
        await read_event(line)
        await console("POST", "texts", {"content": TEXT})
        assert [each["content"] for each in (await read_event(line))["insights"]] == [TEXT]


async def test_the_line_ends_with_the_server(console: Console) -> None:
    """An open console does not hold up the end of the emulator, and its line ends in good order."""
    async with console.session.get(f"{console.origin}/_emulator/events") as line:
        await read_event(line)
        await asyncio.wait_for(console.emulator.aclose(), 1)
        assert await line.content.read() == b""


async def test_a_console_that_was_closed_is_forgotten(console: Console) -> None:
    """Once a page has gone, the next thing that happens finds nobody to tell."""
    async with console.session.get(f"{console.origin}/_emulator/events") as line:
        await read_event(line)
        assert len(console.emulator.stream.watchers) == 1
    for _ in range(100):
        await console.api("GET", "/v1/tasks")
        if not console.emulator.stream.watchers:
            break
        await asyncio.sleep(0.05)
    assert not console.emulator.stream.watchers
    assert not console.emulator.requests.observers


@pytest.mark.parametrize("path", ["", "workspace", "records", "events", "texts", "connect/x"])
async def test_other_sites_are_kept_out(console: Console, path: str) -> None:
    """A page of another site may not ask, nor may anybody who calls this machine by a foreign name."""
    await console("GET", path, status=403, Origin="http://elsewhere.example")
    await console("GET", path, status=404, Host="elsewhere.example")


async def test_an_emulator_for_others_shows_no_console(console: Console) -> None:
    """One that listens to more than this machine hides its console from whoever brings no key."""
    async with Emulator(host="0.0.0.0") as emulator:
        open_one = Console(console.session, emulator)
        open_one.origin = f"http://127.0.0.1:{emulator.port}"
        await open_one("GET", "workspace", status=404)
        assert (await open_one("GET", "workspace", Authorization=f"Bearer {emulator.key}"))["objects"]
