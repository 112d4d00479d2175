"""A day of the real HTTP client and a real HTTP server, with a broken connection every ten minutes, in seconds."""

from __future__ import annotations

import asyncio
import random
from hashlib import sha256
from unittest import mock

import aiohttp.connector

from nex_async import InsightEvent, Nex, SessionPool
from tests.harness.canary import KEY
from tests.harness.insight_world import Conditions, InsightWorld
from tests.harness.virtual import run_virtual

from .invariants import problems
from .memory_network import MemoryNetwork
from .schedule import Hand, Outcome, quiet

CONDITIONS = Conditions(chaos=23 * 3600.0, settle=3600.0, rate=60.0, lost=0.05, old=30, checkpoint=False)


def test_a_day_of_real_http_loses_and_doubles_nothing() -> None:
    """Over real aiohttp, resets, ends and silences every ten minutes lose nothing, and the same seed tells the same story."""
    first, second = _day(1), _day(1)
    assert problems(first) == []
    assert first.world.requests
    assert _digest(first) == _digest(second)


def _digest(outcome: Outcome) -> str:
    return sha256("\n".join(outcome.log()).encode()).hexdigest()


def _day(seed: int) -> Outcome:
    random.seed(seed)
    with quiet():
        return run_virtual(_run(seed))


async def _run(seed: int) -> Outcome:
    world = InsightWorld(CONDITIONS, seed)
    outcome = Outcome(seed, CONDITIONS, world, lives=1)
    network = MemoryNetwork(world, seed)
    loop = asyncio.get_running_loop()
    with mock.patch.object(aiohttp.connector, "monotonic", loop.time):
        async with SessionPool(connector_factory=network) as pool:
            async with Nex(KEY, base_url="http://127.0.0.1:9", pool=pool) as nex:
                reader = loop.create_task(_read(nex, outcome))
                while loop.time() < world.calm_at:
                    await asyncio.sleep(network.random.uniform(300.0, 900.0))
                    network.strike()
                await asyncio.sleep(max(0.0, world.end_at - loop.time()))
                reader.cancel()
                await asyncio.wait([reader])
    world.close()
    await network.aclose()
    await asyncio.sleep(1.0)
    return outcome


async def _read(nex: Nex, outcome: Outcome) -> None:
    world = outcome.world
    feed = nex.insights.stream()
    queue = feed.queue(maxsize=1000, signals=True)
    async with feed:
        async for event in queue:
            at = world.loop.time() - world.begun
            if isinstance(event, InsightEvent):
                mark = world.fingerprint(event.insight)
                outcome.hands.append(Hand(at, 0, event.key, event.source, mark, event.redelivered, processed=True))
            else:
                outcome.signals.append((at, 0, event))
