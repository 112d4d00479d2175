"""A reset: the emulator is as new, whatever was done to it and whatever is under way; and its bench serves any thread."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from nex_async.emulator import Emulator

from .conftest import Api, Clock
from .listening import add, listening


async def _everything(api: Api) -> list[Any]:
    """Return what a workspace shows of itself, less the ids and moments."""
    objects = await api("GET", "/v1/objects?include_attributes=true")
    shapes = [(each["slug"], [attribute["slug"] for attribute in each["attributes"]]) for each in objects["data"]]
    hits = await api("POST", "/v1/search", {"query": "ada"})
    insights = await api("GET", "/v1/insights?limit=10")
    return [shapes, await api.rows("/v1/objects/person/records"), hits["results"], insights["data"]]


async def test_all_is_new(clock: Clock) -> None:
    """After a reset nothing tells of what was stored, asked, switched, made to fail, counted or let in before."""
    async with Emulator(clock=clock, switches={"delete_body": "{}"}) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        fresh = await _everything(api)
        await api("POST", "/v1/objects", {"name": "Ship", "slug": "ship"})
        await api.attribute("person", "rank", "text")
        await api.record(rank="first", email_addresses=["ada@x.io"])
        for _ in range(10):
            await add(api, "Ada Park <ada@x.io> asked for a demo.")
        await api("POST", "/v1/context/text", {"content": "One too many."}, status=429)
        emulator.switches.set(delete_body="null", job_envelope="wrapped")
        emulator.keys["sk-other"] = frozenset()
        del emulator.keys["sk-local"]
        emulator.faults.add(kind="status", times=None)
        await emulator.reset()
        assert (len(emulator.requests), len(emulator.faults)) == (0, 0)
        assert emulator.keys == {"sk-local": None}
        assert (emulator.switches["delete_body"], emulator.switches["job_envelope"]) == ("{}", "flat")
        assert await _everything(api) == fresh
        await add(api, "Ada Park <ada@x.io> asked for a demo.")


async def test_ids_follow_the_clock_again(clock: Clock) -> None:
    """A clock that was moved far ahead and back leaves no ids of the future behind: they tell when a record was made."""
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        clock.now += 1e6
        late = await api.record()
        clock.now -= 1e6
        await emulator.reset()
        assert int((await api.record())["id"]) < int(late["id"])


async def test_what_is_under_way_is_broken_off(clock: Clock) -> None:
    """A stream is dropped, a call that is held up never takes effect, and no late insight reaches the next test."""
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        emulator.faults.add(kind="stream_lag", times=None)
        async with listening(api) as stream:
            await add(api, "Ada Park <ada@x.io> asked for a demo.")
            emulator.switches.set(latency=0.1)
            slow = asyncio.ensure_future(api.record())
            emulator.faults.add(kind="late", route="createTask", seconds=0.1)
            late = asyncio.ensure_future(api("POST", "/v1/tasks", {"title": "Call"}))
            await emulator.requests.wait_for("createRecord")
            await emulator.requests.wait_for("createTask")
            await emulator.reset()
            assert emulator.stream.listeners == 0
            with pytest.raises(aiohttp.ClientError):
                await stream.rest()
        for broken in (slow, late):
            with pytest.raises(aiohttp.ClientError):
                await broken
        async with listening(api) as stream:
            await asyncio.sleep(0.15)
            assert await _everything(api) == [*(await _everything(api))[:1], [], {}, []]
            assert (await api("GET", "/v1/tasks"))["data"] == []
            await add(api, "Bob Stone <bob@y.io> left.")
            assert await stream.contents(1) == ["Bob Stone <bob@y.io> left."]


async def test_a_full_workspace(clock: Clock) -> None:
    """A workspace of many people is emptied, its search too, and can be filled again."""
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        for _ in range(2):
            people = [{"email_addresses": [f"ada{number}@x.io"]} for number in range(250)]
            await asyncio.gather(*(api.record(**person) for person in people))
            assert len((await api("POST", "/v1/search", {"query": "park"}))["results"]["person"]) > 1
            await emulator.reset()
            assert (await _everything(api))[1:] == [[], {}, []]


async def test_a_file_is_emptied(tmp_path: Path) -> None:
    """The reset of a workspace in a file lasts."""
    for _ in range(2):
        async with Emulator(tmp_path / "nex.db") as emulator, aiohttp.ClientSession() as session:
            api = Api(session, emulator.url, emulator.key)
            assert await api.rows("/v1/objects/person/records") == []
            await api.record()
            await emulator.reset()


async def test_only_a_running_emulator_can_be_reset() -> None:
    """A reset of an emulator that does not run is refused."""
    with pytest.raises(RuntimeError, match="not running"):
        await Emulator().reset()


async def test_faults_from_another_thread(clock: Clock) -> None:
    """A fault that another thread clears lets go what it holds up; those that many threads add have each their own id."""
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        stall = emulator.faults.add(kind="stall", times=None)
        held = asyncio.ensure_future(api("POST", "/v1/tasks", {"title": "Call"}))
        while not stall.hits:
            await asyncio.sleep(0)
        asyncio.get_running_loop().set_debug(True)  # a loop that is told of it in no proper way raises
        await asyncio.to_thread(emulator.faults.clear)
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(held, 5)
        asyncio.get_running_loop().set_debug(False)

        def fill() -> None:
            for _ in range(50):
                emulator.faults.add(kind="status", after=10**6)

        threads = [threading.Thread(target=fill) for _ in range(4)]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(api("GET", "/v1/tasks") for _ in range(50)))
        for thread in threads:
            thread.join()
        assert len({fault.id for fault in emulator.faults}) == len(emulator.faults) == 200
        assert emulator.faults.remove(emulator.faults.add(kind="status").id)
        assert not emulator.faults.remove(0)


async def test_waiting_for_a_request_on_another_loop(clock: Clock) -> None:
    """The request log wakes those who wait for a request on another event loop than the server's."""
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        waiting = asyncio.ensure_future(asyncio.to_thread(asyncio.run, _wait_for_two(emulator), debug=True))
        await api("GET", "/v1/tasks")
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await api("GET", "/v1/tasks")
        await waiting
        await emulator.requests.wait_for("listTasks", 2)


async def _wait_for_two(emulator: Emulator) -> None:
    await asyncio.wait_for(emulator.requests.wait_for("listTasks", 2), 5)


async def test_an_operation_nobody_sent(clock: Clock) -> None:
    """An operation carried out in place takes effect, and tells the stream; it is no request, and meets no fault or limit."""
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        emulator.faults.add(kind="status", route="addContext", times=None)
        async with listening(api) as stream:
            for _ in range(12):
                await emulator.perform("POST", "/v1/context/text", {}, b'{"content": "They left."}')
            assert await stream.contents(12) == ["They left."] * 12
        assert emulator.requests.count("addContext") == 0
