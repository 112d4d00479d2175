"""Hundreds of schedules of everything at once: nothing is lost outside reported gaps, nothing comes twice unannounced."""

from __future__ import annotations

import pytest

from .draw import draw
from .invariants import problems
from .schedule import run_schedule

SCHEDULES = 500
GROUP = 25


@pytest.mark.parametrize("first", range(0, SCHEDULES, GROUP))
def test_nothing_is_lost_and_nothing_doubled(first: int) -> None:
    """S27, S28, S32: every insight comes once, or lies in a reported gap, or says that it comes again.

    Replays of nothing, of one and of twenty, replay and subscription in either order, batches and stragglers out of order,
    and everything else that `draw` knows.
    """
    bad = {}
    for seed in range(first, first + GROUP):
        found = problems(run_schedule(seed, draw(seed)))
        if found:
            bad[seed] = found[:5]
    assert not bad, f"run again with: python -m tests.simulation.soak --seed SEED, where SEED is one of {bad}"


def test_absences_of_more_than_an_hour_are_common() -> None:
    """In at least three of ten schedules the client or the server is away for more than an hour."""
    drawn = [draw(seed) for seed in range(SCHEDULES)]
    absent = [
        conditions
        for conditions in drawn
        if any(crash.down > 3600 for crash in conditions.crashes)
        or any(end - start > 3600 for start, end in conditions.outages)
    ]
    assert len(absent) >= 0.3 * SCHEDULES


@pytest.mark.parametrize("seed", [3, 77, 401])
def test_a_seed_tells_the_same_story_twice(seed: int) -> None:
    """The same seed gives the same events, signals and requests at the same moments."""
    assert run_schedule(seed, draw(seed)).log() == run_schedule(seed, draw(seed)).log()
