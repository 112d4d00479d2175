"""What must hold of every schedule, whatever the weather."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import parse_qsl

from tests.harness.insight_world import EPOCH, SECOND, Fingerprint, Row, moment_ns

from .schedule import HALF_AN_HOUR, Outcome

__all__ = ["problems"]

OVERLAP = 150.0
SAME_TIME = 5.0
"""Two insights of one text within so many seconds may be taken for one another: clocks differ."""
TWO_SWEEPS = 300.0
"""Two sweeps, and what it takes to notice that the world is well again: a backoff of the sweeps, a reader with a backlog."""
MILLISECOND = SECOND // 1000
START_SLACK = 5 * SECOND


def problems(outcome: Outcome) -> list[str]:
    """Return how a schedule broke the promises; nothing when it kept them."""
    found = list(outcome.failures)
    for check in (_losses, _doubles, _phantoms, _early_ones, _dishonest_gaps, _liveness, _requests, _memory):
        found.extend(check(outcome))
    return found


def start_of(outcome: Outcome) -> int:
    """Return the server's moment from which on everything must be delivered."""
    if outcome.conditions.start == "past":
        return EPOCH * SECOND - int(HALF_AN_HOUR * SECOND)
    first = outcome.world.first_contact
    return first + START_SLACK if first is not None else outcome.world.server_ns()


def _required(outcome: Outcome) -> Iterator[Row]:
    """Yield the rows that have to be delivered: those the list shows in the end, but for what lies in a gap."""
    start = start_of(outcome)
    gaps = [(_ns(gap.start) - SECOND, _ns(gap.end) + SECOND) for gap in outcome.gaps]
    deadline = outcome.world.end_at - TWO_SWEEPS
    for row in outcome.world.rows:
        if row.created >= start and row.visible <= deadline and not any(low <= row.created <= high for low, high in gaps):
            yield row


def _losses(outcome: Outcome) -> Iterator[str]:
    """Match hand-outs with rows of the same text, the latest first: none can stand for an insight born after it."""
    required: dict[Fingerprint, list[Row]] = defaultdict(list)
    for row in _required(outcome):
        required[row.fingerprint].append(row)
    first: dict[str, float] = {}
    processed: dict[Fingerprint, set[str]] = defaultdict(set)
    for hand in outcome.hands:
        first.setdefault(hand.key, hand.at + outcome.world.begun)
        if hand.processed:
            processed[hand.fingerprint].add(hand.key)
    for mark, rows in required.items():
        handed = sorted((first[key] for key in processed[mark]), reverse=True)
        for number, row in enumerate(sorted(rows, key=_born, reverse=True)):
            if number >= len(handed) or handed[number] < row.born - SAME_TIME:
                rows = [_story(outcome, each) for each in rows]
                yield f"lost: {mark} delivered {len(handed)} of {len(rows)}: {rows}"
                break


def _born(row: Row) -> float:
    return row.born


def _doubles(outcome: Outcome) -> Iterator[str]:
    ledger = Counter(row.fingerprint for row in outcome.world.rows)
    seen: set[str] = set()
    keys: dict[Fingerprint, set[str]] = defaultdict(set)
    again = 0
    for hand in outcome.hands:
        if hand.key in seen:
            again += 1
            if not hand.redelivered:
                yield f"handed out twice without a word: {hand.line()}"
        seen.add(hand.key)
        keys[hand.fingerprint].add(hand.key)
    for mark, found in keys.items():
        if len(found) > ledger[mark] > 0:
            rows = [row for row in outcome.world.rows if row.fingerprint == mark]
            hands = [hand.line() for hand in outcome.hands if hand.fingerprint == mark]
            yield f"doubled: {mark} handed out {len(found)} times for {[_story(outcome, row) for row in rows]}: {hands}"
    if again > outcome.lives:
        yield f"{again} redeliveries in {outcome.lives} lives"


def _phantoms(outcome: Outcome) -> Iterator[str]:
    known = {row.fingerprint for row in outcome.world.rows}
    for hand in outcome.hands:
        if hand.fingerprint not in known:
            yield f"never existed: {hand.line()}"


def _early_ones(outcome: Outcome) -> Iterator[str]:
    """A feed that starts now, or at a moment, brings nothing from before."""
    conditions = outcome.conditions
    if conditions.start == "replay" or outcome.world.first_contact is None:
        return
    start = start_of(outcome) - 2 * START_SLACK
    newest: dict[Fingerprint, int] = {}
    for row in outcome.world.rows:
        newest[row.fingerprint] = max(newest.get(row.fingerprint, 0), row.created)
    for hand in outcome.hands:
        if newest.get(hand.fingerprint, start) < start:
            yield f"from before the start: {hand.line()}"


def _dishonest_gaps(outcome: Outcome) -> Iterator[str]:
    """A gap says that more than a listing shows share a moment; anything else is an excuse."""
    created = [row.created for row in outcome.world.rows]
    grain = MILLISECOND if outcome.conditions.times in ("exact", "stored_whole") else SECOND
    seen: set[tuple[datetime, datetime]] = set()
    for gap in outcome.gaps:
        low, high = _ns(gap.start) - grain, _ns(gap.end) + grain
        inside = created[bisect_left(created, low) : bisect_right(created, high)]
        crowds = sum(1 for first, last in zip(inside, inside[19:], strict=False) if last - first <= 2 * grain)
        if gap.reason != "overflow" or not crowds or (high - low) // grain > 20 * len(inside):
            yield f"a gap without a cause: {gap}, with {len(inside)} rows inside"
        if (gap.start, gap.end) in seen and outcome.lives == 1:
            yield f"a gap that was reported twice: {gap}"
        seen.add((gap.start, gap.end))


def _liveness(outcome: Outcome) -> Iterator[str]:
    """What was there when the faults ended is delivered two sweeps later, but for what became visible too late for these."""
    world = outcome.world
    if outcome.conditions.work:
        return
    by = outcome.conditions.chaos + TWO_SWEEPS
    delivered = Counter(hand.fingerprint for hand in outcome.hands if hand.at <= by)
    required: Counter[Fingerprint] = Counter()
    late: set[Fingerprint] = set()
    for row in _required(outcome):
        if row.visible - row.born > OVERLAP - outcome.conditions.lag - 5.0:
            late.add(row.fingerprint)
        elif row.visible <= world.calm_at:
            required[row.fingerprint] += 1
    for mark, count in required.items():
        if delivered[mark] < count and mark not in late:
            yield f"slow: {mark} delivered {delivered[mark]} of {count} within {TWO_SWEEPS:.0f} s of calm"


def _requests(outcome: Outcome) -> Iterator[str]:
    """A quiet feed asks once a minute, a little more for each insight; halves of a window that was full are not counted."""
    world = outcome.world
    begin = world.calm_at + TWO_SWEEPS
    whole: tuple[int, int] = (0, 0)
    asked = 0
    for at, text, _ in world.requests:
        query = dict(parse_qsl(text))
        if at < begin or "from" not in query:
            continue
        window = moment_ns(query["from"]), moment_ns(query["to"])
        if not whole[0] <= window[0] <= window[1] <= whole[1]:
            asked, whole = asked + 1, window
    hours = (world.end_at - begin) / 3600.0
    told = sum(row.born > world.calm_at for row in world.rows)
    if asked > 80 * hours + 4 * told + 10:
        yield f"{asked} sweeps in {hours:.1f} calm hours with {told} insights"


def _memory(outcome: Outcome) -> Iterator[str]:
    rows = len(outcome.world.rows) + 1000
    for name, count in outcome.tables.items():
        if count > rows:
            yield f"the checkpoint's table {name} holds {count} rows for {len(outcome.world.rows)} insights"


def _ns(moment: datetime) -> int:
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * SECOND + moment.microsecond * 1000


def _story(outcome: Outcome, row: Row) -> str:
    begun = outcome.world.begun
    return f"{row.id} born {row.born - begun:.3f} visible {row.visible - begun:.3f} emitted {row.emitted}x"
