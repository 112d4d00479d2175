"""Much of one thing, and what is left of it afterwards. The suite runs a little of each, `tests.exact.soak` all of it."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections import Counter
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from nex_async import Nex, NexError, RetryPolicy, SessionPool
from nex_async.emulator import Emulator
from tests.harness.canary import KEY

from .echo import echo_server, mark_of

__all__ = ["Left", "many_calls", "many_listeners", "many_tenants"]


@dataclass
class Left:
    """What a process holds now, or more than before."""

    descriptors: int
    kilobytes: int
    tasks: int
    threads: int

    def __sub__(self, before: Left) -> Left:
        return Left(*(now - then for now, then in zip(vars(self).values(), vars(before).values(), strict=True)))


def _held() -> Left:
    gc.collect()
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
    descriptors = len(os.listdir("/proc/self/fd")) - 1  # without that of the listing itself
    kilobytes = psutil.Process().memory_info().rss >> 10
    return Left(descriptors, kilobytes, len(asyncio.all_tasks()), len(threads))


async def many_calls(count: int, warm: int, workers: int = 16) -> Left:
    """Make so many calls on one client over real sockets, good and bad; return what they left, after `warm` others."""
    kinds = ("plain",) * 46 + ("slow", "split", "stale", "cut")

    async def some(number: int) -> None:
        for turn in range(number):
            name = f"{kinds[turn % len(kinds)]}-{turn % 1000}"
            try:
                assert (await nex.tasks.get(name)).id == name
            except NexError:
                assert name.startswith(("cut", "stale"))

    policy = RetryPolicy(retries=5, budget=1e6, backoff_base=0.0)
    with echo_server() as url:
        async with SessionPool(max_connections=workers) as pool, Nex(KEY, base_url=url, pool=pool, retry=policy) as nex:
            await asyncio.gather(*[some(warm // workers) for _ in range(workers)])
            await _settled(nex)
            before = _held()
            await asyncio.gather(*[some(count // workers) for _ in range(workers)])
            await _settled(nex)
            return _held() - before


async def _settled(nex: Nex) -> None:
    """Bring the client to the same state each time: all connections of the pool stand, and none is in use."""
    for _ in range(3):
        await asyncio.gather(*[nex.tasks.get("slow-1") for _ in range(16)])
    await asyncio.sleep(0.05)


async def many_listeners(count: int, warm: int = 20) -> Left:
    """Start and stop so many listeners, one after the other and in many ways; return what they left, after `warm` others."""

    async def listen(number: int) -> None:
        way = number % 4
        if way == 0:
            async with nex.insights.stream(start="now"):
                pass
        elif way == 1:
            async with nex.insights.stream(start="replay") as feed:
                async for _ in feed:
                    break
        elif way == 2:
            feed = nex.insights.stream(start="replay")
            task: asyncio.Future[None] = asyncio.ensure_future(feed.run())
            feed.on("insight", lambda event: task.cancel())
            await asyncio.wait([task])
            await feed.aclose()
        else:
            async with Nex(KEY, base_url=emulator.url) as own, own.insights.stream(start="now") as feed:
                feed.queue()

    async with Emulator(keys={KEY: None}) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        await nex.context.add_text("Ada of Acme is interested in a pilot.")
        while not await nex.insights.list():
            await asyncio.sleep(0.001)
        for number in range(warm):
            await listen(number)
        await _silent(emulator)
        before = _held()
        for number in range(count):
            await listen(number)
        await _silent(emulator)
        return _held() - before


async def _silent(emulator: Emulator) -> None:
    while emulator.stream.listeners:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)


async def many_tenants(tenants: int, rounds: int, seed: int) -> Counter[str]:
    """Let clients of so many keys share a pool, in random interleavings of calls that are delayed, cut and cancelled.

    Returns how the calls ended; `wrong` are those that got the reply of another one.
    """
    draw = random.Random(seed)
    kinds = ("plain", "plain", "slow", "split", "cut", "stale") * 8 + ("again",)
    ends: Counter[str] = Counter()

    async def one(tenant: int, name: str, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        try:
            task = await clients[tenant].tasks.get(name)
        except NexError as error:
            ends["failed"] += 1
            if not name.startswith(("cut", "stale", "again")):
                ends[f"failed for no reason: {type(error).__name__}"] += 1
        except asyncio.CancelledError:
            ends["cancelled"] += 1
        else:
            ends["right" if (task.id, task.title) == (name, marks[tenant]) else "wrong"] += 1

    policy = RetryPolicy(retries=2, budget=1e6, backoff_base=0.0)
    keys = [f"sk-tenant-{number:04d}" for number in range(tenants)]
    marks = [mark_of(key) for key in keys]
    with echo_server() as url:
        async with SessionPool(max_connections=8) as pool:
            clients = [Nex(key, base_url=url, pool=pool, retry=policy) for key in keys]
            for number in range(rounds):
                calls = []
                for call in range(draw.randint(4, 12)):
                    name = f"{draw.choice(kinds)}-{number}-{call}"
                    calls.append(asyncio.ensure_future(one(draw.randrange(tenants), name, draw.randrange(4))))
                for _ in range(draw.randrange(12)):
                    await asyncio.sleep(0)
                for task in calls:
                    if draw.random() < 0.15:
                        task.cancel()
                    elif draw.random() < 0.05:
                        asyncio.get_running_loop().call_later(draw.uniform(0.0, 0.004), task.cancel)
                await asyncio.wait(calls)
            for client in clients:
                await client.aclose()
    return ends
