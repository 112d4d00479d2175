"""No create is ever doubled by a retry of ours, whatever befalls it."""

from __future__ import annotations

from typing import Any

import pytest

from nex_async.transport import retry

from .creations import CREATES, Tally, run_schedule

SCHEDULES = 80


def test_no_create_is_doubled() -> None:
    """Over random schedules: made at most once; exactly once where it succeeded; not at all where that is said."""
    tally = Tally()
    for seed in range(SCHEDULES):
        tally.add(run_schedule(seed))
    assert tally.problems == []
    assert len(CREATES) == 15
    assert tally.calls > 9 * SCHEDULES
    assert min(tally.repeats, tally.succeeded, tally.failed, tally.cancelled) > SCHEDULES / 3
    assert 0 < tally.unknown_made < tally.unknown


@pytest.mark.parametrize("failure", ["lost", "fault"])
def test_a_careless_policy_is_caught(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedules have teeth: a policy that repeats creates after such a failure doubles some of them."""
    careful = retry._may_repeat

    def careless(kind: Any, met: Any, *more: Any) -> Any:
        return careful("read" if met == failure else kind, met, *more)

    monkeypatch.setattr(retry, "_may_repeat", careless)
    assert any("made 2 times" in problem for seed in range(100) for problem in run_schedule(seed).problems)
