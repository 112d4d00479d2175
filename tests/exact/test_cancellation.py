"""Cancelled at each await: the caller is, nothing is left behind, and what is under way reaches nobody else."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nex_async import Nex, SessionPool
from nex_async.emulator import Emulator
from nex_async.routes import Route

from ..harness.canary import KEY
from ..harness.raw_server import json_reply
from ..harness.virtual import MemoryConnector, MemoryTransport, counted, run_virtual
from ..test_operations import Case, perform
from .faulty import CALLS, body_of

_AGAIN = json_reply({"code": 503, "message": "no"}, 503, {"Retry-After": "1"})


class Wire:
    """Connections in memory: a call is refused once and then answered, in three pieces each; `next` is answered at once."""

    def __init__(self, hope: bytes) -> None:
        self.replies = [_AGAIN, hope]
        self.asked = 0
        self.under_way: dict[MemoryTransport, float] = {}
        """Connections with a reply that is not complete before this moment."""
        self.transports: list[MemoryTransport] = []
        self.crossed = False

    def respond(self, transport: MemoryTransport, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if transport not in self.under_way:
            self.transports.append(transport)
        self.crossed |= self.under_way.get(transport, 0.0) > now
        if b"/v1/tasks/next HTTP/1.1\r\n" in data:
            self.under_way[transport] = now + 0.01
            transport.feed(0.01, json_reply({"id": "next"}))
            return
        reply = self.replies[min(self.asked, 1)]
        self.asked += 1
        head = reply.index(b"\r\n\r\n") + 4
        cuts = sorted({0, 30, head, min(head + 5, len(reply)), len(reply)})
        for turn, (begin, end) in enumerate(itertools.pairwise(cuts)):
            transport.feed(0.01 * (turn + 1), reply[begin:end])
        self.under_way[transport] = now + 0.01 * (len(cuts) - 1)


async def struck(call: Any, number: int, after: float, again: bool) -> asyncio.Future[Any]:
    """Run a call and cancel it at its wait of that number, at once or a little later, and perhaps once more."""
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        task.cancel()
        if again:
            loop.call_soon(task.cancel)

    def reached(wait: int) -> None:
        if wait == number and after:
            loop.call_later(after, cancel)
        elif wait == number:
            loop.call_soon(cancel)

    async def run() -> None:
        await counted(perform(call), reached)

    task = asyncio.ensure_future(run())
    await asyncio.wait([task])
    return task


def _clear() -> None:
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(("warm", "after"), [(False, 0.0), (True, 0.005)], ids=["connecting_at_once", "connected_later"])
def test_every_operation_cancelled_at_each_wait(warm: bool, after: float) -> None:
    """Each of the 60 calls, in both of its attempts and between: it ends cancelled, and its client goes on as new."""

    async def trial(route: Route[Any], case: Case, number: int) -> bool:
        wire = Wire(body_of(case, route.status))
        async with SessionPool(connector_factory=MemoryConnector(wire.respond, latency=0.01)) as pool:
            async with Nex(KEY, base_url="http://127.0.0.1:9", pool=pool) as nex:
                if warm:
                    await nex.tasks.get("next")
                task = await struck(case.call(nex), number, after, bool(number % 2))
                _clear()
                assert task.cancelled() or task.exception() is None
                assert nex.stats.calls.in_flight == 0
                assert nex.stats.calls.cancelled == task.cancelled()
                asked = wire.asked
                assert (await nex.tasks.get("next")).id == "next"
                await asyncio.sleep(5.0)
                assert wire.asked == asked, "a cancelled call went on"
                assert not wire.crossed, "a connection with a reply under way was used again"
            _clear()
        assert all(transport.is_closing() for transport in wire.transports)
        return not task.cancelled()

    async def main() -> list[int]:
        ends = []
        for route, case in CALLS:
            number = 1
            while not await trial(route, case, number):
                number += 1
            ends.append(number)
        return ends

    ends = run_virtual(main())
    assert len(ends) == 60
    assert min(ends) >= 6


# ---- what runs for long ---------------------------------------------------------------------------------------------


async def _upsert(nex: Nex, place: Path) -> None:
    await nex.records.upsert_many(
        "company", [{"name": f"C{n}", "domains": [f"c{n}.example"]} for n in range(12)], match_on="domains", concurrency=3
    )


async def _journaled(nex: Nex, place: Path) -> None:
    rows = [{"name": f"C{n}", "domains": [f"c{n}.example"]} for n in range(12)]
    await nex.records.upsert_many("company", rows, match_on="domains", journal=place / f"{os.urandom(4).hex()}.db")


async def _export(nex: Nex, place: Path) -> None:
    await nex.records.export("company", place / "out.jsonl", limit=3, window=2)


async def _export_sqlite(nex: Nex, place: Path) -> None:
    await nex.records.export("company", place / "out.sqlite", limit=3, window=2)


async def _mirror(nex: Nex, place: Path) -> None:
    async with nex.mirror(place / "crm.sqlite", objects=["company"], page_size=3) as mirror:
        await mirror.sync()


async def _walk(nex: Nex, place: Path) -> None:
    async with nex.records.list("company", limit=3).prefetch(2) as rows:
        async for _ in rows:
            pass


async def _feed(nex: Nex, place: Path) -> None:
    async with nex.insights.stream(checkpoint=place / "feed.db", start="replay") as feed:
        async for _ in feed:
            break


_LONG: dict[str, Callable[[Nex, Path], Awaitable[None]]] = {
    "bulk": _upsert, "bulk_journal": _journaled, "export": _export, "export_sqlite": _export_sqlite, "mirror": _mirror,
    "walk": _walk, "feed": _feed,
}  # fmt: skip
TRIALS = int(os.environ.get("NEX_ASYNC_CANCELLATIONS", "10"))


@pytest.mark.parametrize("kind", _LONG)
async def test_long_runs_cancelled_at_any_moment(kind: str, tmp_path: Path) -> None:
    """A bulk run, an export, a mirror, a walk, a feed: no task, thread or connection is left, and the next one works."""
    chance = random.Random(kind)
    async with Emulator(keys={KEY: None}) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        for number in range(12):
            await nex.records.create("company", {"name": f"C{number}", "domains": [f"c{number}.example"]})
        await nex.context.add_text("Ada of Acme is interested in a pilot.")
        while not (await nex.insights.list()):
            await asyncio.sleep(0.001)
        await _LONG[kind](nex, tmp_path)  # what stays warm is warm
        tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await _LONG[kind](nex, tmp_path)
        usual = loop.time() - begun
        cut = 0
        for number in range(TRIALS):
            task: asyncio.Future[Any] = asyncio.ensure_future(_LONG[kind](nex, tmp_path))
            if number % 2:
                await asyncio.wait([task], timeout=chance.uniform(0.0, usual))
            else:
                for _ in range(chance.randrange(40)):
                    await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.done()
            assert task.cancelled() or task.exception() is None
            cut += task.cancelled()
            limit = loop.time() + 5.0
            while others := _others(tasks, task):  # a feed that is cancelled while it closes goes on closing
                assert loop.time() < limit, f"tasks left: {others}"
                await asyncio.sleep(0.001)
        assert cut >= TRIALS // 3
        await _LONG[kind](nex, tmp_path)
        left = {thread for thread in set(threading.enumerate()) - threads if not thread.name.startswith("asyncio_")}
        assert not left
        assert nex.stats.calls.in_flight == 0
        pool = nex.stats.pool
        assert pool is not None
        assert pool.open == pool.idle
        while emulator.stream.listeners:
            await asyncio.sleep(0.001)


def _others(before: set[asyncio.Task[Any]], task: asyncio.Future[Any]) -> set[asyncio.Task[Any]]:
    """Return tasks of the client: those of the server's own connections come and go."""
    new = {other for other in asyncio.all_tasks() - before if other is not task and not other.done()}
    return {other for other in new if "nex_async/emulator" not in repr(other) and "aiohttp" not in repr(other)}
