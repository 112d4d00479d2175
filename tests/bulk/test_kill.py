"""kill -9 at random instants and at named points: no row is lost, and nothing is dead-lettered twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from nex_async.bulk.letters import dead_letters
from tests.harness.bulk_world import Hit, World

from .lives import POINTS, Trial, nursery

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

KILLS = 20


async def test_twenty_kills_at_random_instants_lose_nothing(tmp_path: Path) -> None:
    """K1: whatever instant a run is killed at, each row takes effect in its order or is a dead letter, once."""
    draw = random.Random(11)
    trial = Trial(5000, 2000, draw)
    journal = tmp_path / "run.db"
    async with trial.world as world, nursery() as home:
        job = {"url": world.url, "journal": str(journal), "count": trial.count, "distinct": trial.distinct}
        kills = 0
        while kills < KILLS:
            life = await home.start(**job)
            until = world.requests + draw.randint(0, 220)
            while world.requests < until:
                await asyncio.sleep(0.001)
            await asyncio.sleep(draw.uniform(0.0, 0.005))
            at = asyncio.get_running_loop().time()
            assert await life.kill(), f"the run ended before kill {kills}: {world.requests} requests"
            trial.killed(at)
            kills += 1
        ending, report = await (await home.start(**job)).over()
    assert (ending, report["finished"], report["rows"]) == (0, True, trial.count)
    trial.check(tmp_path / "run.db.dead.jsonl", KILLS, 32)
    assert journal.stat().st_size < 200_000


async def test_a_kill_at_each_named_point_loses_nothing(tmp_path: Path) -> None:
    """K2: between effect and journal, in the middle of a commit, around a dead letter: the next run goes on."""
    async with nursery() as home:
        for number, point in enumerate(POINTS):
            trial = Trial(300, 120, random.Random(number), every=100)
            journal = tmp_path / f"{point}.db"
            async with trial.world as world:
                job = {"url": world.url, "journal": str(journal), "count": trial.count, "distinct": trial.distinct}
                nth = 1 if "finish" in point or "letters" in point else 2
                ending, _ = await (await home.start(**job, point=point, nth=nth)).over()
                assert ending == 9, f"no run came to {point}"
                trial.killed()
                ending, report = await (await home.start(**job)).over()
            assert (ending, report["finished"], report["rows"]) == (0, True, trial.count), point
            trial.check(tmp_path / f"{point}.db.dead.jsonl", 1, 32)


async def test_a_row_that_kills_the_process_is_set_aside(tmp_path: Path) -> None:
    """A crash loop ends: a row at the head whose sending kills the process each time is a dead letter after eight requests."""
    world, journal = World(), tmp_path / "run.db"
    victims: list[int] = []

    def strike(hit: Hit) -> None:
        if hit.version == 0 and victims:
            os.kill(victims.pop(), signal.SIGKILL)

    world.on_hit = strike
    async with world, nursery() as home:
        job = {"url": world.url, "journal": str(journal), "count": 40, "distinct": 40}
        for _ in range(12):
            life = await home.start(**job)
            victims.append(life.pid)
            ending, report = await life.over()
            if not ending:
                break
    assert (ending, report["finished"], report["rows"], report["failed"]) == (0, True, 40, 1)
    assert sum(count for (_, n), count in world.sent.items() if n == 0) == 8
    assert [letter.seq for letter in dead_letters(tmp_path / "run.db.dead.jsonl")] == [0]
