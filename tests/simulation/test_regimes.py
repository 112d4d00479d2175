"""The promises of the feed in weather that a general mix meets too seldom."""

from __future__ import annotations

from random import Random

import pytest

from nex_async.feeds.events import Connected, Degraded, Reconnecting
from tests.harness.insight_world import Burst, Conditions, Crash

from .invariants import problems
from .regimes import REGIMES, other_words_in_the_list
from .schedule import run_schedule


@pytest.mark.parametrize("name", REGIMES)
def test_the_promises_hold_in(name: str) -> None:
    """Nothing is lost outside gaps or doubled in this regime."""
    regime, seeds = REGIMES[name]
    bad = {}
    for seed in range(seeds // 2):  # all of them: `nox -s soak`
        found = problems(run_schedule(seed, regime(Random(seed))))
        if found:
            bad[seed] = found[:5]
    assert not bad, (
        f"run again with: python -m tests.simulation.soak --regime {name} --seed SEED, where SEED is one of {bad}"
    )


def test_a_feed_whose_list_speaks_otherwise_takes_everything_from_the_list() -> None:
    """When stream and list cannot be matched, the feed says so and hands out nothing early."""
    outcome = run_schedule(0, other_words_in_the_list(Random(0)))
    reasons = [signal.reason for _, _, signal in outcome.signals if isinstance(signal, Degraded)]
    assert "identity" in reasons
    rows = {row.id for row in outcome.world.rows}
    assert outcome.hands
    assert all(hand.key in rows for hand in outcome.hands)


def test_a_stream_that_does_not_bring_everything_is_replaced() -> None:
    """S26: a connection that stands and misses insights is given up for another one, though it never broke."""
    conditions = Conditions(rate=120.0, lost=1.0, kills=0.0, checkpoint=False, chaos=1500.0)
    outcome = run_schedule(0, conditions)
    assert problems(outcome) == []
    connected = [at for at, _, signal in outcome.signals if isinstance(signal, Connected)]
    assert 2 <= len(connected) <= 1 + outcome.signals[-1][0] / 300.0
    assert not any(isinstance(signal, Reconnecting) for _, _, signal in outcome.signals)


def test_ten_thousand_insights_of_an_absence_cost_few_requests() -> None:
    """10 000 insights that came while the process was away are delivered, with at most 700 requests."""
    away = Crash(600.0, 4 * 3600.0)
    rows = tuple(Burst(at, 500, 700.0) for at in range(700, 14_700, 700))
    conditions = Conditions(chaos=15_000.0, settle=900.0, rate=2.0, bursts=rows, crashes=(away,))
    outcome = run_schedule(0, conditions)
    assert problems(outcome) == []
    back = outcome.world.begun + away.at + away.down
    requests = [at for at, _, _ in outcome.world.requests if back <= at < back + 300.0]
    assert len(outcome.world.rows) > 10_000
    assert len(requests) <= 700


def test_what_a_lost_connection_missed_comes_with_the_next_one() -> None:
    """What was emitted while no connection stood is handed out within six seconds of the new one."""
    conditions = Conditions(rate=200.0, kills=30.0, kill_kinds=("fin", "rst"), checkpoint=False)
    outcome = run_schedule(0, conditions)
    assert problems(outcome) == []
    connected = [at for at, _, signal in outcome.signals if isinstance(signal, Connected)]
    handed = {hand.fingerprint: hand.at for hand in outcome.hands}
    missed = [row for row in outcome.world.rows if not row.emitted and row.born > outcome.world.begun + 60.0]
    assert missed
    for row in missed:
        visible = row.visible - outcome.world.begun
        assert handed[row.fingerprint] <= min(at for at in connected if at > visible) + 6.0


def test_what_the_stream_never_brings_comes_with_the_next_sweep() -> None:
    """What is never emitted is handed out within 70 seconds of its becoming visible."""
    outcome = run_schedule(1, Conditions(rate=200.0, lost=0.3, checkpoint=False))
    assert problems(outcome) == []
    handed = {hand.fingerprint: hand.at for hand in outcome.hands}
    waits = [handed[row.fingerprint] - (row.visible - outcome.world.begun) for row in outcome.world.rows]
    assert max(waits) <= 70.0
