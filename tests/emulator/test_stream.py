"""The insight stream, byte for byte and under load."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from nex_async.emulator import Emulator

from .conftest import Api, Clock
from .listening import add, listening

_FREE = {"rate_limits": "off"}
_TEXT = "Ada Park <ada@techflow.io> asked for a demo. They are unhappy with delays."


@pytest.fixture
async def emulator(clock: Clock) -> AsyncIterator[Emulator]:
    async with Emulator(clock=clock, switches=_FREE) as server:
        yield server


@pytest.fixture
async def api(emulator: Emulator) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Api(session, emulator.url, emulator.key)


async def test_the_bytes_of_a_connection(api: Api) -> None:
    """A comment names the workspace; replay, live events and keepalives are frames of two lines with LF endings."""
    await add(api, "A demo.")
    headers = {"Authorization": f"Bearer {api.key}", "X-Emulator-Keepalive": "0.05"}
    async with api.session.get(api.url + "/v1/insights/stream", headers=headers) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        seen = b""
        while b"keepalive" not in seen:
            seen += await response.content.readany()
        await add(api, "They signed.")
        while b"batch.created" not in seen or not seen.endswith(b"\n\n"):
            seen += await response.content.readany()
    assert b"\r" not in seen
    frames = [frame for frame in seen.decode().split("\n\n") if frame not in ("", ": keepalive")]
    assert re.fullmatch(r": connected workspace_id=\d{17} token_id=\d{17}", frames[0])
    assert re.fullmatch(r'event: insight\.replay\ndata: \{"workspace":\{.*"emitted_at":"2026-09-21T14:13:20Z"\}', frames[1])
    assert re.fullmatch(r'event: insight\.batch\.created\ndata: \{"workspace":\{.*\}', frames[2])
    assert len(frames) == 3
    assert seen.count(b": keepalive\n\n") >= 1


async def test_a_text_is_one_batch(api: Api) -> None:
    """All insights of a text come in one event with its operation's id, enriched and without ids; none, no event."""
    async with listening(api) as stream:
        await add(api, "Nothing to see here.")
        artifact = await add(api, _TEXT)
        name, batch = await stream.event()
    assert name == "insight.batch.created"
    assert list(batch) == ["workspace", "insights", "operation_id", "insight_count", "emitted_at"]
    assert batch["operation_id"] == (await api("GET", f"/v1/context/artifacts/{artifact}"))["operation_id"]
    assert "id" not in batch["workspace"]
    assert (batch["insight_count"], len(batch["insights"])) == (2, 2)
    item = batch["insights"][0]
    assert "id" not in item
    assert (item["type"], item["content"]) == ("opportunity", "Ada Park <ada@techflow.io> asked for a demo.")
    assert (item["confidence"], item["confidence_level"]) == (0.6, "medium")
    assert (item["valid_from"], item["valid_until"]) == (item["created_at"], None)
    assert (item["target"]["hint"], item["target"]["entity_type"]) == ("Ada Park", "person")
    signal = item["target"]["signals"][0]
    assert (signal["type"], signal["value"]) == ("email", "ada@techflow.io")
    evidence = item["evidence"][0]
    assert evidence["excerpt"] == item["content"]
    assert evidence["artifact"]["content"] == _TEXT


async def test_the_replay_is_the_newest_twenty(api: Api) -> None:
    """Every connection begins with the newest 20 insights, oldest first, each in an event of its own."""
    for number in range(23):
        await add(api, f"Demo {number}.")
    for first in (3, 4):
        async with listening(api) as stream:
            events = [await stream.event() for _ in range(20)]
            await add(api, f"Demo {first + 20}.")
            assert (await stream.event())[0] == "insight.batch.created"
        assert {name for name, _ in events} == {"insight.replay"}
        told = [batch["insights"][0]["content"] for _, batch in events]
        assert told == [f"Demo {number}." for number in range(first, first + 20)]
        assert {batch["insight_count"] for _, batch in events} == {1}
        assert isinstance(events[0][1]["operation_id"], int)


async def test_an_insight_without_a_record_is_about_the_workspace(api: Api) -> None:
    """A sentence that names nobody has a target all the same, with null signals."""
    async with listening(api) as stream:
        await add(api, "A demo.")
        target = (await stream.event())[1]["insights"][0]["target"]
    assert target["signals"] is None
    assert target["hint"]


async def test_what_the_stream_tells_rest_knows(api: Api) -> None:
    """A batch goes out after its transaction: whoever hears it finds it over REST."""
    async with listening(api) as stream:
        for number in range(20):
            adding = asyncio.ensure_future(add(api, f"Demo {number}."))
            told = await stream.contents(1)
            assert (await api("GET", "/v1/insights?limit=1"))["data"][0]["content"] == told[0]
            await adding


async def test_nothing_is_lost_between_replay_and_live(api: Api) -> None:
    """Listeners that connect while texts come in hear of every one, from the replay or live."""
    wanted = {f"Demo {number}." for number in range(20)}

    async def hear() -> None:
        async with listening(api) as stream:
            heard: set[str] = set()
            while not wanted <= heard:
                heard.update(await stream.contents(1))

    async def write() -> None:
        for text in sorted(wanted):
            await add(api, text)

    await asyncio.gather(write(), *(hear() for _ in range(30)))


async def test_hundreds_hear_the_same_bytes(api: Api, emulator: Emulator) -> None:
    """Three hundred listeners get the same event."""
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(listening(api)) for _ in range(300)]
        assert emulator.stream.listeners == 300
        await add(api, _TEXT)
        frames = await asyncio.gather(*(stream.frame() for stream in streams))
    assert len(set(frames)) == 1


async def test_a_listener_that_does_not_read_is_dropped(clock: Clock) -> None:
    """Who leaves its bound of events unread loses the connection; the others wait for nobody and miss nothing."""
    text = "They asked for a demo. " * 400
    async with Emulator(clock=clock, switches=_FREE, listener_bound=3) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        with socket.create_connection(("127.0.0.1", emulator.port)) as deaf:
            request = (
                f"GET /api/developers/v1/insights/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n\r\n"
            )
            deaf.sendall(request.encode())
            await emulator.requests.wait_for("streamInsights")
            async with listening(api) as stream:
                assert emulator.stream.listeners == 2
                while emulator.stream.listeners == 2:
                    await add(api, text)
                    name, batch = await stream.event()
                    while name == "insight.replay":
                        name, batch = await stream.event()
                    assert batch["insight_count"] == 400
            with pytest.raises(ConnectionResetError):
                while deaf.recv(1 << 20):
                    continue


async def test_a_listener_that_leaves_is_forgotten(api: Api, emulator: Emulator) -> None:
    """A closed connection leaves no listener behind, at the latest with the next event, and logs nothing."""
    async with listening(api):
        assert emulator.stream.listeners == 1
    async with listening(api) as stream:
        while emulator.stream.listeners > 1:
            await add(api, "A demo.")
            await stream.event()


async def test_closing_ends_every_stream(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """When the server closes, what was published is delivered and each stream ends in good order, at once."""
    async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as stack:
        emulator = Emulator(clock=clock)
        await emulator.start()
        api = Api(session, emulator.url, emulator.key)
        streams = [await stack.enter_async_context(listening(api)) for _ in range(20)]
        await add(api, "A demo.")
        await asyncio.wait_for(emulator.aclose(), 1)
        for stream in streams:
            assert (await stream.rest()).endswith(b"}\n\n")
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_closing_waits_for_no_deaf_listener(clock: Clock) -> None:
    """A listener that does not read what is queued for it is cut off when the server closes."""
    emulator = Emulator(clock=clock, switches=_FREE, listener_bound=10_000)
    await emulator.start()
    with socket.create_connection(("127.0.0.1", emulator.port)) as deaf:
        request = "GET /api/developers/v1/insights/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n"
        deaf.sendall(request.format(emulator.key).encode())
        await emulator.requests.wait_for("streamInsights")
        async with aiohttp.ClientSession() as session:
            for _ in range(25):
                await add(Api(session, emulator.url, emulator.key), "They asked for a demo. " * 400)
        assert emulator.stream.listeners == 1
        await asyncio.wait_for(emulator.aclose(), 1.5)
        with pytest.raises(ConnectionResetError):
            while deaf.recv(1 << 20):
                continue


async def test_the_stream_asks_for_key_and_scope(clock: Clock) -> None:
    """A stream that is refused is an ordinary JSON error."""
    keys = {"sk-all": None, "sk-other": ["record.read"]}
    async with Emulator(clock=clock, keys=keys) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        await api("GET", "/v1/insights/stream", status=401, key="sk-wrong")
        assert "insight.stream" in await api("GET", "/v1/insights/stream", status=403, key="sk-other")
        assert emulator.stream.listeners == 0
