"""The long proof: kill -9 at random instants and at every named point over many rows. `python -m tests.bulk.soak`."""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

from .lives import POINTS, Trial, nursery


async def _soak(count: int, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    trial = Trial(count, max(1, count // 2), draw, every=1000)
    struck = dict.fromkeys(POINTS, 0)
    with tempfile.TemporaryDirectory() as home:
        journal = Path(home) / "run.db"
        largest, began, lives = 0, time.perf_counter(), 0
        async with trial.world as world, nursery() as children:
            job = {"url": world.url, "journal": str(journal), "count": count, "distinct": trial.distinct}
            plan: list[str | None] = [None] * kills
            for number, point in enumerate(POINTS[:-2]):
                plan.insert((number + 1) * len(plan) // len(POINTS), point)
            plan += POINTS[-2:]
            for point in [*plan, None]:
                lives += 1
                is_last = lives > len(plan)
                nth = 1 if point and ("letters" in point or "finish" in point) else draw.randint(1, 20)
                armed = {"point": point, "nth": nth} if point else {}
                life = await children.start(**job, **armed)
                if point is None and not is_last:
                    until = world.requests + draw.randint(0, int(1.5 * count / len(plan)))
                    while world.requests < until:
                        await asyncio.sleep(0.001)
                    await asyncio.sleep(draw.uniform(0.0, 0.01))
                    at = asyncio.get_running_loop().time()
                    assert await life.kill(), f"the run ended by itself after {lives} lives: too few rows"
                else:
                    at = None
                    ending, report = await life.over()
                    if point:
                        assert ending == 9, f"no run came to {point}"
                        struck[point] += 1
                if not is_last:
                    trial.killed(at)
                largest = max(largest, sum(file.stat().st_size for file in Path(home).glob("run.db*")))
        assert report["finished"], report
        assert report["rows"] == count, report
        figures = trial.check(Path(home) / "run.db.dead.jsonl", len(plan), 32)
    seconds = time.perf_counter() - began
    print(f"{count} rows, {kills} kills at random instants, {sum(struck.values())} at named points: 0 lost, 0 extra")
    print(
        f"{figures['requests']} requests, {figures['again']} of them again ({100 * figures['again'] / count:.1f} % of the rows), "
        f"{figures['injected']} faults injected"
    )
    print(f"{figures['dead']} dead letters, none twice; a row that always fails was sent {figures['most']} times at most")
    print(f"journal and letters together never over {largest / 1000:.0f} kB; {seconds:.0f} s")


def main() -> None:
    """Run the proof and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    asyncio.run(_soak(chosen.rows, chosen.kills, chosen.seed))


if __name__ == "__main__":
    main()
