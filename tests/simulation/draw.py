"""Conditions drawn from a seed: the general mix of everything that may go wrong."""

from __future__ import annotations

from math import exp, log
from random import Random

from tests.harness.insight_world import Burst, Conditions, Crash

__all__ = ["draw"]


def draw(seed: int, hours: float | None = None) -> Conditions:
    """Return the conditions of schedule number `seed`.

    A third of them last for hours and hold an absence of more than one; `hours` makes all of them last for so long.
    """
    random = Random(f"conditions {seed}")
    absent = random.random() < 0.35
    chaos = hours * 3600.0 if hours else 3600.0 * (random.uniform(2.5, 4.0) if absent else 1.0)
    checkpoint = random.random() < 0.85
    crashes = _crashes(random, chaos, absent) if checkpoint else ()
    outages = _outages(random, chaos, absent and not crashes)
    very_late = random.choice((0.0, 0.0, 0.003, 0.02))
    very_late_by = random.uniform(300.0, 3000.0)
    return Conditions(
        chaos=chaos,
        settle=2400.0 + (very_late_by if very_late else 0.0),
        rate=_log_uniform(random, 2.0, 60.0 if absent or hours else 720.0),
        batch=random.choice((1, 3, 10)),
        bursts=tuple(_burst(random, chaos) for _ in range(random.choice((0, 0, 0, 1, 2)))),
        duplicates=random.choice((0.0, random.uniform(0.0, 0.2))),
        old=random.choice((0, 0, 5, 20, 150)),
        orphans=random.choice((0.0, 0.0, 0.05)),
        stream_ids=random.random() < 0.2,
        stream_created_at=random.random() < 0.2,
        lost=random.choice((0.0, random.uniform(0.0, 0.3))),
        doubled=random.choice((0.0, 0.1)),
        deaf=random.choice((0.0, 0.0, 0.3)),
        emit_within=random.choice((0.2, 3.0)),
        straggling=random.choice((0.0, 0.1)),
        replay=random.choice(("envelope", "one_each", "simplified")),
        replay_ahead=random.random() < 0.3,
        split=random.choice((0.02, 0.5)),
        late=random.choice((0.2, 5.0, 60.0, 120.0)),
        late_share=random.choice((1.0, 0.1)),
        very_late=very_late,
        very_late_by=very_late_by,
        lag=random.choice((0.0, 2.0, 20.0)),
        inclusive=random.random() < 0.6,
        order=random.choice(("newest", "oldest", "any")),
        cut=random.choice(("newest", "oldest", "any")),
        cap=random.choice((20, 50, 100, 100)),
        times=random.choice(("exact", "exact", "exact", "stored_whole", "shown_whole", "asked_whole")),
        decomposed=random.random() < 0.1,
        connect_failures=random.choice((0.0, random.uniform(0.0, 0.6))),
        rest_failures=random.choice((0.0, random.uniform(0.0, 0.5))),
        kills=_log_uniform(random, 0.5, 12.0),
        outages=outages,
        date_error=random.uniform(-1.9, 1.9),
        emit_error=random.uniform(-1.9, 1.9),
        crashes=crashes,
        mode="exact" if random.random() < 0.25 else "fast",
        start=random.choice(("replay", "replay", "now", "past")),
        checkpoint=checkpoint,
        work=random.choice((0.0, 0.0, 0.05, 5.0)),
    )


def _log_uniform(random: Random, low: float, high: float) -> float:
    return exp(random.uniform(log(low), log(high)))


def _burst(random: Random, chaos: float) -> Burst:
    spread = random.choice((0.0, 0.001, 0.05, 2.0, 30.0))
    return Burst(random.uniform(0.0, chaos), int(_log_uniform(random, 2.0, 401.0)), spread)


def _crashes(random: Random, chaos: float, absent: bool) -> tuple[Crash, ...]:
    """Draw the ends of processes; with `absent`, one of them stays away for more than an hour."""
    count = random.choice((0, 1, 2, 4, max(1, int(chaos / 600.0))))
    crashes = []
    at = 0.0
    for number in range(max(count, 1 if absent else 0)):
        at += random.expovariate((count + 1) / chaos)
        down = random.uniform(3700.0, 5400.0) if absent and number == 0 else _log_uniform(random, 1.0, 1200.0)
        if at + down >= chaos:
            break
        crashes.append(Crash(at, down, graceful=random.random() < 0.2))
        at += down
    return tuple(crashes)


def _outages(random: Random, chaos: float, absent: bool) -> tuple[tuple[float, float], ...]:
    spans = [] if not absent else [random.uniform(3700.0, 5400.0)]
    spans += [_log_uniform(random, 10.0, 1200.0) for _ in range(random.choice((0, 0, 1, 2)))]
    return tuple((start, start + span) for span in spans for start in (random.uniform(0.0, max(1.0, chaos - span)),))
