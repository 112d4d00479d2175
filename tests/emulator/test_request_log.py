"""The request log and who may see it."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from nex_async.emulator import Emulator
from nex_async.emulator.request_log import RequestLog

from .conftest import Api, Clock
from .listening import listening


async def test_every_request_is_counted(clock: Clock) -> None:
    """The log tells operation, path, status, sizes and fault of each request to the API, also of refused ones."""
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        task = await api("POST", "/v1/tasks", {"title": "Call"})
        await api("GET", f"/v1/tasks/{task['id']}")
        emulator.faults.add(kind="status", status=503)
        await api("GET", "/v1/tasks?limit=1", status=503)
        await api("GET", "/v1/nothing", status=404)
        await api("GET", "/v1/tasks", status=401, key="sk-wrong")
        log = emulator.requests
        assert [entry.number for entry in log] == [1, 2, 3, 4, 5]
        assert [(entry.operation, entry.status, entry.fault) for entry in log] == [
            ("createTask", 200, ""),
            ("getTask", 200, ""),
            ("listTasks", 503, "status"),
            ("", 404, ""),
            ("listTasks", 401, ""),
        ]
        assert (log[2].path, log[2].query, log[2].method) == ("/api/developers/v1/tasks", "limit=1", "GET")
        assert (log[0].received, log[0].time) == (len('{"title": "Call"}'), clock.now)
        assert log[0].sent > 100
        assert (log.count("listTasks"), log.count("getTask"), log.count()) == (2, 1, 5)
        with pytest.raises(AttributeError):
            log[0].status = 7  # type: ignore[misc]
        log.clear()
        assert (len(log), log.count()) == (0, 0)
        await api("GET", "/v1/tasks")
        assert log[0].number == 6


async def test_a_request_shows_before_it_is_answered(clock: Clock) -> None:
    """A stream and a stalled request are in the log while they last, without a status; a broken one ends with 0."""
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        async with listening(api):
            assert emulator.requests[0].status is None
        emulator.faults.add(kind="stall")
        waiting = asyncio.ensure_future(api("POST", "/v1/tasks", {"title": "Call"}))
        await emulator.requests.wait_for("createTask")
        assert [entry.status for entry in emulator.requests][1] is None
        emulator.faults.clear()
        with pytest.raises(aiohttp.ClientConnectionError):
            await waiting
        assert (emulator.requests[1].status, emulator.requests[1].fault) == (0, "stall")


async def test_keys_show_as_fingerprints(clock: Clock) -> None:
    """The log tells keys apart without telling any."""
    async with Emulator(clock=clock, keys={"sk-one": None, "sk-two": None}) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, "sk-one")
        for key in ("sk-one", "sk-two", "sk-one"):
            await api("GET", "/v1/tasks", key=key)
        await api("GET", "/v1/tasks", status=401, key=" ")
        marks = [entry.key for entry in emulator.requests]
        assert marks[0] == marks[2] != marks[1]
        assert marks[3] == ""
        assert all(len(mark) == 8 for mark in marks[:3])
        async with session.get(emulator.url.replace("/api/developers", "/_emulator/requests")) as response:
            assert "sk-" not in await response.text()


def test_the_log_is_bounded() -> None:
    """Only the last requests are kept."""
    log = RequestLog(lambda: 0.0, 3)
    entries = [log.begin("getTask", "GET", "/", "", "") for _ in range(5)]
    log.end(entries[0], status=200, received=0, sent=0, fault="")
    log.end(entries[4], status=200, received=0, sent=0, fault="")
    assert [(entry.number, entry.status) for entry in log] == [(3, None), (4, None), (5, 200)]


async def test_the_log_over_http(clock: Clock) -> None:
    """Control lists the log, narrowed by operation and number, clears it, and does not count itself."""
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        url = emulator.url.replace("/api/developers", "/_emulator/requests")
        for path in ("/v1/tasks", "/v1/notes", "/v1/tasks"):
            await api("GET", path)

        async def listed(query: str = "", method: str = "GET") -> list[int]:
            async with session.request(method, url + query) as response:
                assert response.status == 200
                return [entry["number"] for entry in (await response.json())["requests"]]

        assert await listed() == [1, 2, 3]
        assert await listed("?operation=listTasks") == [1, 3]
        assert await listed("?operation=listTasks&after=1") == [3]
        async with session.get(url + "?after=x") as response:
            assert response.status == 400
        assert await listed(method="DELETE") == []
        assert await listed() == []


async def test_control_is_hidden_from_strangers(clock: Clock) -> None:
    """A server that others reach answers control with 404 unless a key is brought; pages of other sites are refused."""
    async with Emulator(clock=clock, host="0.0.0.0") as emulator, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{emulator.port}/_emulator/requests"
        for headers, status in (({}, 404), ({"Authorization": f"Bearer {emulator.key}"}, 200)):
            async with session.get(url, headers=headers) as response:
                assert response.status == status
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        host = f"127.0.0.1:{emulator.port}"
        url = f"http://{host}/_emulator/faults"
        for headers, status in (
            ({"Origin": "https://example.com"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": f"http://{host}"}, 200),
            ({"Host": "rebound.example:80"}, 404),
            ({"Host": "localhost"}, 200),
        ):
            async with session.delete(url, headers=headers) as response:
                assert response.status == status, headers
