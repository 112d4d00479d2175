"""What survives: restarts, kills, clocks that step back, and clients that come all at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from nex_async.emulator import Emulator
from nex_async.errors import StorageCorrupt, StorageLocked
from nex_async.storage import Database

from .conftest import Api, Clock
from .listening import listening

_SERVE = """
    import asyncio, sys
    from nex_async.emulator import Emulator

    async def main():
        async with Emulator(sys.argv[1]) as emulator:
            print(emulator.url, flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
"""


async def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    """The same file shows the same workspace after a restart, and ids go on rising even if the clock stepped back."""
    path, clock = tmp_path / "nex.db", Clock()
    reads = ("/v1/objects?include_attributes=true", "/v1/tasks", "/v1/notes", "/v1/insights", "/v1/relationships")
    async with aiohttp.ClientSession() as session:
        async with Emulator(path, clock=clock) as emulator:
            api = Api(session, emulator.url, emulator.key)
            ada = await api.record(email_addresses=["ada@x.io"])
            await api("POST", "/v1/tasks", {"title": "Call", "entity_ids": [ada["id"]]})
            await api("POST", "/v1/notes", {"title": "Memo", "entity_id": ada["id"]})
            await api("POST", "/v1/context/text", {"content": "Ada@x.io wants a demo."})
            before = [await api("GET", each) for each in reads]
            before.append(await api("GET", f"/v1/records/{ada['id']}/timeline"))
        clock.now -= 86_400
        async with Emulator(path, clock=clock) as emulator:
            api = Api(session, emulator.url, emulator.key)
            after = [await api("GET", each) for each in reads]
            after.append(await api("GET", f"/v1/records/{ada['id']}/timeline"))
            assert after == before
            assert int((await api.record())["id"]) > max(int(each["id"]) for each in before[-1]["data"])
            taken = {"attributes": {"name": "x", "email_addresses": ["ada@x.io"]}}
            await api.refused("POST", "/v1/objects/person", taken, ada["id"])


async def test_one_file_one_emulator(tmp_path: Path) -> None:
    """A file in use is refused, and so is a database of another program; neither leaves anything open."""
    path = tmp_path / "nex.db"
    async with Emulator(path):
        with pytest.raises(StorageLocked):
            await Emulator(path).start()
    other = tmp_path / "other.db"
    async with Database(other) as database:
        await database.run(lambda connection: connection.execute("CREATE TABLE t (x)") and None)
    with pytest.raises(StorageCorrupt):
        await Emulator(other).start()


@pytest.mark.parametrize("answers", [10, 150])
async def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path, answers: int) -> None:
    """Every upsert that was answered before kill -9 is there afterwards, whole, and the workspace is consistent."""
    path = tmp_path / "nex.db"
    answered: set[str] = set()
    command = [sys.executable, "-c", textwrap.dedent(_SERVE), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = (await asyncio.to_thread(process.stdout.readline)).strip()
        async with aiohttp.ClientSession() as session:
            api = Api(session, url, "sk-local")
            numbers = iter(range(100_000))

            async def write() -> None:
                for number in numbers:
                    address = f"p{number}@x.io"
                    values = {"name": f"P {number}", "email_addresses": [address]}
                    body = {"matching_attribute": "email_addresses", "attributes": values}
                    await api("PUT", "/v1/objects/person", body)
                    answered.add(address)
                    if len(answered) == answers:
                        process.kill()

            writers = [asyncio.ensure_future(write()) for _ in range(8)]
            with contextlib.suppress(aiohttp.ClientError):
                await asyncio.gather(*writers)
            await asyncio.gather(*writers, return_exceptions=True)
    assert len(answered) >= answers
    async with Emulator(path) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        page = await api("POST", "/v1/objects/person/records", {"limit": 1000})
        stored = [row["attributes"]["email_addresses"][0] for row in page["data"]]
        assert answered <= set(stored)
        assert len(stored) == len(set(stored)) == page["total"]
        for row in page["data"][:5]:
            events = (await api("GET", f"/v1/records/{row['id']}/timeline"))["data"]
            assert [each["event_type"] for each in events] == ["created"]


_KILLED = """
    import asyncio, os, sys
    from nex_async.emulator import Emulator

    async def serve():
        async with Emulator(sys.argv[1], switches={"rate_limits": "off"}) as emulator:
            print(os.getpid(), emulator.url, flush=True)
            await asyncio.Event().wait()

    for _ in range(int(sys.argv[2])):  # each child opens the file anew, and dies by SIGKILL
        child = os.fork()
        if not child:
            asyncio.run(serve())
        os.waitpid(child, 0)
"""


async def _write_until_killed(api: Api, pid: int, answers: int, numbers: Iterator[int], known: dict[str, set[str]]) -> None:
    """Write, listen, and kill the server after so many answers; note in `known` what it had answered or announced."""
    answered = 0

    async def write() -> None:
        nonlocal answered
        for number in numbers:
            task = await api("POST", "/v1/tasks", {"title": f"Call {number}"})
            known["tasks"].add(task["id"])
            await api("POST", "/v1/context/text", {"content": f"Person {number} <p{number}@x.io> asked for a demo."})
            known["people"].add(f"p{number}@x.io")
            answered += 2
            if answered == answers:
                os.kill(pid, signal.SIGKILL)

    async def listen() -> None:
        async with listening(api) as stream:
            while True:
                known["insights"].update(await stream.contents(1))

    works = [asyncio.ensure_future(work()) for work in (write, write, write, listen)]
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        assert isinstance(outcome, (aiohttp.ClientError, ConnectionError, AssertionError, asyncio.IncompleteReadError)), (
            outcome
        )


async def _tasks(api: Api, offset: int) -> list[dict[str, str]]:
    page: list[dict[str, str]] = (await api("GET", f"/v1/tasks?limit=500&offset={offset}"))["data"]
    return page


async def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    """Over 20 kills -9 during writes, nothing answered is lost, and nothing the stream announced is unknown to REST."""
    path, numbers = tmp_path / "nex.db", iter(range(1_000_000))
    known: dict[str, set[str]] = {"tasks": set(), "people": set(), "insights": set()}
    command = [sys.executable, "-c", textwrap.dedent(_KILLED), str(path), "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for answers in range(2, 42, 2):
            pid, url = (await asyncio.to_thread(process.stdout.readline)).split()
            async with aiohttp.ClientSession() as session:
                await _write_until_killed(Api(session, url, "sk-local"), int(pid), answers, numbers, known)
    assert min(len(found) for found in known.values()) >= 200
    async with Emulator(path) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        tasks = {task["id"] for offset in (0, 500, 1000) for task in await _tasks(api, offset)}
        assert known["tasks"] <= tasks
        people = await api.rows("/v1/objects/person/records", limit=1000)
        assert known["people"] <= {row["attributes"]["email_addresses"][0] for row in people}
        stored = await emulator.run(lambda store: {content for (content,) in store.rows("SELECT content FROM insights")})
        assert known["insights"] <= stored
        shown = (await api("GET", "/v1/insights?limit=100"))["data"]
        assert len(shown) == 100


async def test_the_same_upsert_at_once_makes_one_record(api: Api) -> None:
    """Requests in flight together are carried out one after the other: the same upsert makes one record."""
    values = {"name": "Ada", "email_addresses": ["ada@x.io"]}
    body = {"matching_attribute": "email_addresses", "attributes": values}
    rows = await asyncio.gather(*(api("PUT", "/v1/objects/person", body) for _ in range(40)))
    assert len({row["id"] for row in rows}) == 1
    assert (await api("POST", "/v1/objects/person/records", {}))["total"] == 1


@pytest.mark.parametrize("key", ["sk-local", "sk-wrong"])
async def test_a_client_that_leaves_harms_nobody(api: Api, caplog: pytest.LogCaptureFixture, key: str) -> None:
    """A connection cut in the middle of a body, accepted or refused, leaves the emulator serving and is no error."""
    host = api.url.removeprefix("http://").partition("/")[0]
    _, writer = await asyncio.open_connection(*host.split(":"))
    head = f"POST /api/developers/v1/tasks HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
    writer.write(head.encode() + b'Content-Length: 100\r\n\r\n{"title": ')
    await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    assert (await api("GET", "/v1/tasks"))["total"] == 0
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
