"""Named regimes: weather that a general mix meets too seldom to prove anything about."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeAlias

from tests.harness.insight_world import Burst, Conditions, Crash

__all__ = ["REGIMES", "Regime"]

Regime: TypeAlias = Callable[[Random], Conditions]
HOUR = 3600.0


def late_rows_and_crashes(random: Random) -> Conditions:
    """S30: rows up to 50 minutes late, and a process that ends every quarter of an hour, now and then for more than one."""
    crashes, at = [], 0.0
    while (at := at + random.expovariate(1 / 900.0)) < 5 * HOUR:
        down = random.choice((1.0, 30.0, 300.0, random.uniform(3700.0, 5400.0)))
        crashes.append(Crash(at, down))
        at += down
    return Conditions(
        chaos=6.5 * HOUR, settle=1.6 * HOUR, rate=60.0, very_late=0.1, very_late_by=3000.0, crashes=tuple(crashes), lost=0.3
    )


def long_outage(random: Random) -> Conditions:
    """Nothing can be reached for more than an hour, while rows become visible that were made before and during it."""
    start = random.uniform(1200.0, 2400.0)
    return Conditions(
        chaos=2.5 * HOUR,
        settle=1.6 * HOUR,
        rate=120.0,
        very_late=0.2,
        very_late_by=3000.0,
        lost=0.5,
        outages=((start, start + random.uniform(3700.0, 5400.0)),),
        checkpoint=random.random() < 0.5,
    )


def quiet_for_days(random: Random) -> Conditions:
    """S33: for three days nothing new comes; every connection brings what is old, and now and then the list is down."""
    return Conditions(
        chaos=72 * HOUR,
        rate=30.0,
        quiet=((HOUR, 71 * HOUR),),
        old=40,
        kills=1.0,
        kill_kinds=("fin", "rst"),
        crashes=(Crash(20 * HOUR, 30.0), Crash(50 * HOUR, 30.0)),
        rest_outages=tuple((start * HOUR, (start + 1.5) * HOUR) for start in (10, 30, 49.5, 65)),
        replay=random.choice(("envelope", "one_each")),
        stream_created_at=True,
    )


def crash_every_100_seconds(random: Random) -> Conditions:
    """The process is killed every 100 seconds, often in the middle of an event."""
    crashes, at = [], 0.0
    while (at := at + 100.0) < 3500.0:
        down = random.uniform(0.5, 20.0)
        crashes.append(Crash(at, down))
        at += down
    return Conditions(rate=400.0, crashes=tuple(crashes), work=10.0, duplicates=0.1, old=20)


def silent_stream(random: Random) -> Conditions:
    """S26: the stream stands and brings keepalives, and never an insight."""
    return Conditions(rate=120.0, lost=1.0, late=random.choice((0.5, 120.0)), cap=random.choice((20, 100)))


def list_down(random: Random) -> Conditions:
    """The list cannot be read for 20 minutes while the stream works."""
    return Conditions(rate=240.0, rest_outages=((1200.0, 2400.0),), duplicates=0.05, mode=random.choice(("fast", "exact")))


def same_words(random: Random) -> Conditions:
    """S29, S31: a fifth to a half of all insights say what another one said, and some batches come twice."""
    return Conditions(
        rate=240.0, duplicates=random.uniform(0.2, 0.5), late=60.0, kills=6.0, lost=0.1, doubled=0.1, old=20, straggling=0.1
    )


def bursts_over_the_cap(random: Random) -> Conditions:
    """The list shows 20 rows, and 400 come within moments while the client is away or the stream loses some."""
    bursts = tuple(Burst(at, 400, random.choice((0.05, 2.0, 30.0))) for at in (700.0, 1500.0, 2500.0))
    return Conditions(
        cap=20, bursts=bursts, lost=0.3, crashes=(Crash(1400.0, 200.0),), cut=random.choice(("newest", "oldest", "any"))
    )


def whole_seconds(random: Random) -> Conditions:
    """The server loses the fractions of seconds: in what it stores, shows or is asked."""
    return Conditions(
        times=random.choice(("stored_whole", "shown_whole", "asked_whole")),
        inclusive=random.random() < 0.5,
        rate=240.0,
        cap=20,
        bursts=(Burst(900.0, 60, 10.0), Burst(2000.0, 19, 0.5), Burst(2400.0, 300, 60.0)),
        lost=0.5,
        kills=4.0,
    )


def orphans(random: Random) -> Conditions:
    """A third of what the stream brings never shows up in the list, and later insights say the same."""
    return Conditions(rate=120.0, orphans=0.33, duplicates=random.uniform(0.2, 0.5), lost=0.2, kills=3.0)


def other_words_in_the_list(random: Random) -> Conditions:
    """The list ends every text with a space, the stream does not: no item can be matched with its row."""
    return Conditions(rate=120.0, suffix=" ", old=random.choice((20, 60)), kills=3.0, crashes=(Crash(1800.0, 60.0),))


def half_open(random: Random) -> Conditions:
    """S25: connections die without a word, and insights pile up behind them."""
    bursts = tuple(Burst(random.uniform(300.0, 3300.0), 60, 20.0) for _ in range(4))
    return Conditions(rate=120.0, kills=20.0, kill_kinds=("half",), bursts=bursts, checkpoint=False, duplicates=0.05)


def stream_first(random: Random) -> Conditions:
    """S30: the stream brings every insight 100 seconds before the list shows it."""
    return Conditions(
        rate=240.0, early=100.0, duplicates=0.1, crashes=(Crash(1000.0, 60.0), Crash(2000.0, 300.0)), kills=4.0
    )


REGIMES: dict[str, tuple[Regime, int]] = {
    regime.__name__: (regime, seeds)
    for regime, seeds in (
        (late_rows_and_crashes, 6),
        (long_outage, 6),
        (quiet_for_days, 2),
        (crash_every_100_seconds, 4),
        (silent_stream, 4),
        (list_down, 4),
        (same_words, 6),
        (bursts_over_the_cap, 4),
        (whole_seconds, 6),
        (orphans, 6),
        (other_words_in_the_list, 4),
        (half_open, 4),
        (stream_first, 4),
    )
}
"""Each regime, and how many seeds of it the soak takes; the suite takes the first half of them."""
