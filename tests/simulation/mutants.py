"""Does the simulator have teeth? Broken engines, each of which some regime has to convict.

`python -m tests.simulation.mutants` runs them all and says which regime killed which, stopping at the first kill of each.
Redundancy hides single faults, so some mutants are pairs. Those marked as equivalent break no promise, and say why.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from random import Random
from types import SimpleNamespace
from typing import Any, TypeAlias
from unittest import mock

from nex_async.feeds import checkpoint, connection, delivery, hearing, hub, ledger, reading, timetable, windows
from tests.harness.insight_world import EPOCH, Conditions
from tests.harness.virtual import Deadlock, LiveLock

from .draw import draw
from .invariants import problems
from .regimes import REGIMES
from .schedule import run_schedule

__all__ = ["MUTANTS", "Mutant", "convict"]

Patch: TypeAlias = Callable[[], AbstractContextManager[Any]]
NEVER = 1e9
MIX = "mix"
MIX_SEEDS = 60
SECOND = ledger.SECOND


@dataclass(frozen=True)
class Mutant:
    """A broken engine: its patches, the regimes that are to convict it, and why none can, where none can."""

    name: str
    patches: tuple[Patch, ...]
    regimes: tuple[str, ...]
    equivalent: str | None = None


@contextlib.contextmanager
def broken(mutant: Mutant) -> Iterator[None]:
    """Run the engine with the mutant's faults."""
    with contextlib.ExitStack() as stack:
        for patch in mutant.patches:
            stack.enter_context(patch())
        yield


def _set(owner: Any, **values: Any) -> Patch:
    def patch() -> AbstractContextManager[Any]:
        stack = contextlib.ExitStack()
        for name, value in values.items():
            stack.enter_context(mock.patch.object(owner, name, value))
        return stack

    return patch


def _forgets(table: str) -> Patch:
    """Return a fault by which the checkpoint never writes one kind of change."""
    return lambda: mock.patch.dict(checkpoint._CHANGES, {table: "SELECT ?, ?"})


def _server_now() -> int:
    return EPOCH * SECOND + int((asyncio.get_running_loop().time() - 1000.0) * SECOND)


# ---- the list -------------------------------------------------------------------------------------------------------


async def _step_whole(self: Any, todo: list[tuple[int, int]]) -> Any:
    return replace(await self._window(*todo.pop()), is_cut=False)


async def _step_with_hole(self: Any, todo: list[tuple[int, int]]) -> Any:
    while True:
        low, high = todo[-1]
        window = await self._window(low, high)
        todo.pop()
        if not window.is_cut or high - low <= self._narrowest:
            return window
        middle = (low + high) // 2
        todo += [(min(high, middle + SECOND), high), (low, middle)]


def _shallow(self: Any, *, deep: bool) -> int:
    return max(self.watermark - ledger.OVERLAP, self.floor - SECOND)


def _anchored_to_now(self: Any, *, deep: bool) -> int:
    start = self.watermark - ledger.OVERLAP
    if deep:
        start = min(start, _server_now() - ledger.LOOK_BACK)
    return max(start, self.floor - SECOND)


_read_windows = reading.Reading._read_windows
_clock_now = hub.ServerClock.now


async def _swept_before_read(self: Any, start: int, until: int) -> None:
    self._delivery.ledger.swept(until, deep=False)
    await _read_windows(self, start, until)


def _clock_ahead(self: Any, now: float) -> int | None:
    found = _clock_now(self, now)
    return None if found is None else found + 300 * SECOND


# ---- the ledger -----------------------------------------------------------------------------------------------------

_item, _row, _init = ledger.Ledger.item, ledger.Ledger.row, ledger.Ledger.__init__


def _item_without_doubt(self: Any, mark: bytes, item_id: str | None, emitted: int) -> Any:
    self.recent.pop(mark, None)
    return _item(self, mark, item_id, emitted)


def _item_unbound(self: Any, mark: bytes, item_id: str | None, emitted: int) -> Any:
    known = item_id in self.bound
    verdict = _item(self, mark, item_id, emitted)
    if item_id is not None and not known:
        self.bound.pop(item_id, None)
    return verdict


def _item_without_credit(self: Any, mark: bytes, item_id: str | None, emitted: int) -> Any:
    verdict = _item(self, mark, item_id, emitted)
    self.credits.pop(mark, None)
    return verdict


def _row_unbound(self: Any, row_id: str, mark: bytes, created: int, *, is_news: bool = True) -> bool:
    known = row_id in self.bound
    credits = len(self.credits.get(mark, ()))
    found = _row(self, row_id, mark, created, is_news=is_news)
    if not known and len(self.credits.get(mark, ())) < credits:
        self.bound.pop(row_id, None)
    return found


def _row_always_news(self: Any, row_id: str, mark: bytes, created: int, *, is_news: bool = True) -> bool:
    return _row(self, row_id, mark, created, is_news=True)


def _born_matched(self: Any, *arguments: Any, **named: Any) -> None:
    _init(self, *arguments, **named)
    self.matched = True


# ---- the checkpoint -------------------------------------------------------------------------------------------------

_open, _hand_out, _decode = checkpoint.Checkpoint.open, checkpoint.Cursor._hand_out, checkpoint._decode


async def _hand_out_acknowledged(self: Any, event: Any) -> Any:
    event = await _hand_out(self, event)
    self._finish(event.sequence)
    await self._checkpoint.settle()
    return event


async def _done_never(self: Any, event: Any) -> None:
    return None


async def _open_without_watermark(self: Any) -> Any:
    found = await _open(self)
    found.watermark = found.deep = 0
    return found


async def _open_with_deep_of_watermark(self: Any) -> Any:
    found = await _open(self)
    found.deep = found.watermark
    return found


def _join_at_the_end(self: Any, cursor: Any, *, late: bool) -> None:
    self.cursors.add(cursor)
    cursor.position = self.last


async def _open_and_skip(self: Any) -> Any:
    found = await _open(self)
    for cursor in self.cursors:
        cursor.position = self.last
    return found


def _decode_as_new(payload: bytes, seq: int, redelivered: bool) -> Any:
    return _decode(payload, seq, False)


def _hand_out_unmarked(connection: Any, seq: int, trash: list[int], past: int, still: list[int]) -> None:
    connection.executemany("DELETE FROM inbox WHERE seq = ?", [(one,) for one in trash])


# ---- the engine -----------------------------------------------------------------------------------------------------

_hear, _report_gap = hearing.Hearing._hear, delivery.Delivery.report_gap


def _hear_no_replay(self: Any, event: Any, fresh: list[Any]) -> None:
    if event.event != "insight.replay":
        _hear(self, event, fresh)


def _report_again(self: Any, *arguments: Any, **named: Any) -> None:
    self.ledger.gaps.clear()
    _report_gap(self, *arguments, **named)


def _report_never(self: Any, *arguments: Any, **named: Any) -> None:
    return None


NO_BISECT = _set(windows.Windows, step=_step_whole)
NO_DEEP = _set(ledger.Ledger, sweep_start=_shallow)
NO_OVERLAP = _set(ledger, OVERLAP=0)
NO_PERIODIC = _set(timetable, EVERY=NEVER)
NO_CONNECT = _set(reading, AFTER_CONNECT=())
DEAF_WATCHDOG = _set(connection, StreamPolicy=functools.partial(connection.StreamPolicy, silence=NEVER))

MUTANTS: tuple[Mutant, ...] = (
    Mutant("full windows are not halved", (NO_BISECT,), ("bursts_over_the_cap",)),
    Mutant("a reply shorter than the limit is taken for whole", (_set(windows, _LEAST_CAP=100),), ("bursts_over_the_cap",)),
    Mutant("halves leave a second out", (_set(windows.Windows, step=_step_with_hole),), ("bursts_over_the_cap", MIX)),
    Mutant("windows are halved to a second only", (_set(windows, _NARROWEST=SECOND),), ("bursts_over_the_cap", MIX)),
    Mutant("gaps are not reported", (_set(delivery.Delivery, report_gap=_report_never),), ("bursts_over_the_cap", MIX)),
    Mutant(
        "gaps are reported by every sweep",
        (_set(delivery.Delivery, report_gap=_report_again),),
        ("bursts_over_the_cap", MIX),
    ),
    Mutant("no deep sweep", (NO_DEEP,), ("late_rows_and_crashes", "long_outage")),
    Mutant("no overlap", (NO_OVERLAP,), (MIX,)),
    Mutant("no overlap and no deep sweep", (NO_OVERLAP, NO_DEEP), ("silent_stream",)),
    Mutant("no periodic sweep", (NO_PERIODIC,), ("silent_stream",)),
    Mutant("no periodic and no deep sweep", (NO_PERIODIC, NO_DEEP), ("silent_stream", "long_outage")),
    Mutant(
        "no sweep at a connection",
        (NO_CONNECT,),
        ("half_open", "same_words"),
        "the periodic sweeps find the same, up to a minute later; see the triple",
    ),
    Mutant("no sweep at a connection, none periodic, none deep", (NO_CONNECT, NO_PERIODIC, NO_DEEP), ("silent_stream",)),
    Mutant(
        "the deep look-back is anchored to now",
        (_set(ledger.Ledger, sweep_start=_anchored_to_now),),
        ("late_rows_and_crashes",),
    ),
    Mutant(
        "the deep look-back is anchored to the last sweep after a restart",
        (_set(checkpoint.Checkpoint, open=_open_with_deep_of_watermark),),
        ("late_rows_and_crashes",),
        "the last sweep lies at most a minute before the end, and no promise reaches further than two hours before it",
    ),
    Mutant(
        "the watermark moves before the windows are read",
        (_set(reading.Reading, _read_windows=_swept_before_read), NO_DEEP),
        (MIX, "list_down", "long_outage"),
    ),
    Mutant("the watermark is not kept", (_forgets("meta"),), ("late_rows_and_crashes",)),
    Mutant("the client's clock is 300 s ahead, no deep sweep", (_set(hub.ServerClock, now=_clock_ahead), NO_DEEP), (MIX,)),
    Mutant("a text that was seen is delivered again", (_set(ledger.Ledger, item=_item_without_doubt),), ("same_words", MIX)),
    Mutant("early deliveries leave no credit", (_set(ledger.Ledger, item=_item_without_credit),), ("same_words",)),
    Mutant("a credit covers any later row", (_set(ledger, CREDIT_SLACK=10**18),), ("orphans",)),
    Mutant("a row that uses a credit is not bound", (_set(ledger.Ledger, row=_row_unbound),), ("same_words",)),
    Mutant("a stream id is not bound", (_set(ledger.Ledger, item=_item_unbound),), (MIX,)),
    Mutant("everything is news", (_set(ledger.Ledger, row=_row_always_news),), (MIX,)),
    Mutant("keys are forgotten by age alone", (_set(ledger, KEEP_NEWEST=0),), ("quiet_for_days",)),
    Mutant(
        "texts are not normalised", (_set(ledger, unicodedata=SimpleNamespace(normalize=lambda form, text: text)),), (MIX,)
    ),
    Mutant(
        "stream and list are taken to match", (_set(ledger.Ledger, __init__=_born_matched),), ("other_words_in_the_list",)
    ),
    Mutant("credits are not kept", (_forgets("credit"),), ("stream_first",)),
    Mutant("bound ids are not kept", (_forgets("bind"),), ("crash_every_100_seconds",)),
    Mutant("seen texts are not kept", (_forgets("recent"),), ("crash_every_100_seconds", "same_words", MIX)),
    Mutant(
        "acknowledged before it is processed",
        (_set(checkpoint.Cursor, _hand_out=_hand_out_acknowledged),),
        ("crash_every_100_seconds",),
    ),
    Mutant(
        "never acknowledged",
        (_set(checkpoint.Cursor, passed=lambda self, event: None, done=_done_never),),
        ("crash_every_100_seconds",),
    ),
    Mutant(
        "the inbox is skipped after a restart",
        (_set(checkpoint.Checkpoint, open=_open_and_skip),),
        ("crash_every_100_seconds",),
    ),
    Mutant("a redelivery does not say so", (_set(checkpoint, _decode=_decode_as_new),), ("crash_every_100_seconds",)),
    Mutant("a hand-out is not marked", (_set(checkpoint, _hand_out=_hand_out_unmarked),), ("crash_every_100_seconds",)),
    Mutant(
        "replays are ignored",
        (_set(hearing.Hearing, _hear=_hear_no_replay),),
        ("half_open", "same_words", "quiet_for_days"),
        "a replay is a convenience: the list holds all of it",
    ),
    Mutant(
        "silence is not noticed",
        (DEAF_WATCHDOG,),
        ("half_open",),
        "the periodic sweeps bring what a dead connection does not; see the pair",
    ),
    Mutant("silence is not noticed, no periodic sweep", (DEAF_WATCHDOG, NO_PERIODIC), ("half_open",)),
    Mutant(
        "ambiguous items do not hurry the sweep",
        (_set(hearing, SOON=NEVER), _set(delivery, SOON=NEVER)),
        ("same_words",),
        "only slower, within the period of the sweeps",
    ),
)


def conditions_of(regime: str, seed: int) -> Conditions:
    """Return the conditions of a seed in a regime or in the general mix."""
    return draw(seed) if regime == MIX else REGIMES[regime][0](Random(seed))


def judge(regime: str, seed: int) -> list[str]:
    """Return the promises that the engine, as it is now, breaks for a seed."""
    try:
        return problems(run_schedule(seed, conditions_of(regime, seed)))
    except (Deadlock, LiveLock, AssertionError) as error:
        return [f"{type(error).__name__}: {error}"]


def convict(mutant: Mutant) -> str | None:
    """Return where and how a mutant broke a promise that the engine keeps; None when it got away with everything."""
    for regime in mutant.regimes:
        for seed in range(MIX_SEEDS if regime == MIX else REGIMES[regime][1]):
            with broken(mutant):
                found = judge(regime, seed)
            if found and not judge(regime, seed):
                return f"{regime}, seed {seed}: {found[0][:100]}"
    return None


def main(arguments: list[str]) -> int:
    """Try every mutant, or those whose names hold a word; return 1 when one survives that should not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("word", nargs="?", default="")
    chosen = parser.parse_args(arguments).word
    survivors, surprises, tried = 0, 0, 0
    for mutant in MUTANTS:
        if chosen not in mutant.name:
            continue
        begun = time.monotonic()
        verdict = convict(mutant)
        took = time.monotonic() - begun
        tried += 1
        if mutant.equivalent is not None:
            surprises += verdict is not None
            state = "EQUIVALENT" if verdict is None else "KILLED, THOUGH EQUIVALENT"
            print(f"{state}  {mutant.name} ({verdict or mutant.equivalent}; {took:.1f} s)", flush=True)
        else:
            survivors += verdict is None
            print(f"{'SURVIVED' if verdict is None else 'killed'}  {mutant.name} ({verdict}; {took:.1f} s)", flush=True)
    print(f"{tried} mutants, {survivors} survived, {surprises} equivalents were killed")
    return 1 if survivors or surprises else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
