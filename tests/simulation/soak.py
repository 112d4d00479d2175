"""Many more schedules than the suite runs: `python -m tests.simulation.soak --schedules 10000`, `... --days 100`.

`--schedules N` runs the general mix, `--days M` runs M schedules of 24 hours; `--seed S` runs one and tells its story.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from random import Random

from tests.harness.insight_world import Conditions

from .draw import draw
from .invariants import problems
from .regimes import REGIMES
from .schedule import Outcome, run_schedule

FIRST_DAY = 1_000_000
"""Seeds of whole days begin here."""


def conditions_of(seed: int, regime: str | None) -> Conditions:
    """Return what a seed stands for."""
    if regime is not None:
        return REGIMES[regime][0](Random(seed))
    return draw(seed, hours=24.0) if seed >= FIRST_DAY else draw(seed)


def judge(job: tuple[int, str | None]) -> tuple[int, list[str], int, int, int]:
    """Run a seed; return it with its problems, and how many insights, lives and flagged redeliveries it had."""
    seed, regime = job
    outcome = run_schedule(seed, conditions_of(seed, regime))
    again = sum(hand.redelivered for hand in outcome.hands)
    return seed, problems(outcome), len(outcome.world.rows), outcome.lives, again


def tell(outcome: Outcome, words: str) -> None:
    """Print the story of a schedule, or the lines of it that hold `words`."""
    print(outcome.conditions)
    for line in outcome.log():
        if words in line:
            print(line)
    for problem in problems(outcome):
        print("PROBLEM", problem)


def main(arguments: list[str]) -> int:
    """Run what the arguments ask for; return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=0)
    parser.add_argument("--days", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="run one seed and tell its story")
    parser.add_argument("--grep", default="", help="with --seed: only the lines that hold this")
    parser.add_argument("--regime", choices=sorted(REGIMES), help="take the conditions of this regime")
    parser.add_argument("--regimes", action="store_true", help="add all regimes, each with its own number of seeds")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.seed is not None:
        tell(run_schedule(options.seed, conditions_of(options.seed, options.regime)), options.grep)
        return 0
    seeds = list(range(options.first, options.first + options.schedules))
    seeds += range(FIRST_DAY + options.first, FIRST_DAY + options.first + options.days)
    jobs: list[tuple[int, str | None]] = [(seed, options.regime) for seed in seeds]
    if options.regimes:
        jobs += [(seed, name) for name, (_, count) in REGIMES.items() for seed in range(count)]
    return _report(_judged(jobs, options.jobs))


def _judged(jobs: list[tuple[int, str | None]], processes: int) -> Iterator[tuple[int, list[str], int, int, int]]:
    if processes == 1:
        yield from map(judge, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(judge, jobs, chunksize=10)


def _report(results: Iterator[tuple[int, list[str], int, int, int]]) -> int:
    begun = time.monotonic()
    schedules = insights = lives = redelivered = bad = 0
    for seed, found, rows, lived, again in results:
        schedules, insights, lives, redelivered = schedules + 1, insights + rows, lives + lived, redelivered + again
        if found:
            bad += 1
            print(f"seed {seed}:", *found[:5], sep="\n    ", flush=True)
    took = time.monotonic() - begun
    print(f"{schedules} schedules, {insights} insights, {lives} lives, {redelivered} redelivered; {bad} bad; {took:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
