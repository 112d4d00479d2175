"""The embedded Nex on a thread of its own, and its clock."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from nex_async import Nex
from nex_async.emulator import Emulator
from nex_async.errors import StorageLocked
from nex_async.testing import Clock, EmulatorThread


def test_any_loop_and_none() -> None:
    """Without a loop it is seeded, asked and reset; clients on loops in several threads use it at the same time."""
    with EmulatorThread() as emulator:
        [ada] = emulator.seed("person", {"name": "Ada Park", "email_addresses": ["ada@x.io"]})

        async def names() -> list[str | None]:
            async with Nex(emulator.key, base_url=emulator.url) as nex:
                return [person.text("name") async for person in nex.records.list("person")]

        seen: list[str | None] = []
        threads = [threading.Thread(target=lambda: seen.extend(asyncio.run(names()))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == ["Ada Park"] * 3
        assert emulator.requests.count("listRecords") == 3
        assert emulator.request("GET", f"/v1/records/{ada.id}")["attributes"]["name"] == "Ada Park"
        assert emulator.request("delete", f"/v1/records/{ada.id}") is None
        emulator.reset()
        assert len(emulator.requests) == 0
    assert not [thread for thread in threading.enumerate() if "portal" in thread.name]


def test_seeding_that_cannot_be() -> None:
    """What the API would refuse raises ValueError in its words, whatever faults there are; those before it are there."""
    with EmulatorThread() as emulator:
        emulator.faults.add(kind="status", times=None)
        with pytest.raises(ValueError, match=r"POST /v1/objects/person: 400 .*name"):
            emulator.seed("person", {"name": "Ada"}, {"job_title": "CTO"})
        with pytest.raises(ValueError, match=r"404 .*ship"):
            emulator.seed("ship", {"name": "Nina"})
        with pytest.raises(ValueError, match="405"):
            emulator.request("GET", "/v1/context/ask")
        with pytest.raises(ValueError, match="404"):
            emulator.request("GET", "/nothing")
        found = emulator.request("POST", "/v1/objects/person/records", body={"limit": 1})
        assert found["total"] == 1
        assert emulator.request("GET", "/v1/tasks", query={"limit": "1"})["data"] == []


def test_only_while_it_runs() -> None:
    """Outside its block it refuses; a second block begins anew, a block inside the block does not."""
    emulator = EmulatorThread()
    for refused in (emulator.reset, lambda: emulator.seed("person", {"name": "Ada"})):
        with pytest.raises(RuntimeError, match="with"):
            refused()
    for _ in range(2):
        with emulator:
            emulator.seed("person", {"name": "Ada", "email_addresses": ["ada@x.io"]})
            with pytest.raises(RuntimeError, match="already"):
                emulator.__enter__()
            assert emulator.request("POST", "/v1/objects/person/records", body={})["total"] == 1


async def test_a_start_that_fails(tmp_path: Path) -> None:
    """A file in use is named by its error, and no thread is left."""
    async with Emulator(tmp_path / "nex.db"):
        with pytest.raises(StorageLocked), EmulatorThread(tmp_path / "nex.db"):
            pass


def test_its_own_arguments() -> None:
    """Keys, switches and delay are the caller's; by default a job is done as soon as the clock moves."""
    with EmulatorThread(
        keys={"sk-a": None, "sk-b": ["task.read"]}, processing_delay=60, switches={"delete_body": "{}"}
    ) as slow:
        assert (slow.key, slow.keys["sk-b"], slow.switches["delete_body"]) == ("sk-a", {"task.read"}, "{}")
        text = slow.request("POST", "/v1/context/text", body={"content": "They left."})
        place = f"/v1/context/artifacts/{text['artifact_id']}"
        states = []
        for _ in range(3):
            states.append(slow.request("GET", place)["status"])
            slow.clock.advance(timedelta(seconds=30))
        assert states == ["pending", "processing", "completed"]


def test_clock() -> None:
    """The clock is real until it is moved; frozen, it moves by what it is told; a reset makes it real again."""
    clock = Clock()
    assert abs(clock() - time.time()) < 1
    clock.advance(3600)
    assert 3599 < clock() - time.time() < 3601
    clock.freeze()
    stopped = clock()
    assert clock() == stopped > time.time() + 3599
    clock.advance(0.25)
    assert clock() == stopped + 0.25
    clock.freeze(datetime(2026, 3, 2, 8, tzinfo=timezone.utc))
    clock.advance(timedelta(days=1))
    assert clock.now == datetime(2026, 3, 3, 8, tzinfo=timezone.utc)
    assert "frozen" in repr(clock)
    clock.reset()
    assert abs(clock() - time.time()) < 1
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="forward"):
            clock.advance(wrong)
    with pytest.raises(ValueError, match="time zone"):
        clock.freeze(datetime(2026, 3, 2))


def test_clock_in_many_threads() -> None:
    """No step is lost when many threads move the clock."""
    clock = Clock()
    clock.freeze(datetime(2026, 3, 2, tzinfo=timezone.utc))
    begun = clock()
    threads = [threading.Thread(target=lambda: [clock.advance(1) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock() == begun + 8000
