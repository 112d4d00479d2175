"""A short run of the real soak, and proof that its judges have teeth."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from nex_async import Timeouts

from .real import Plan, slope, soak
from .truth import Heard, Values, judge_creates, judge_insights, judge_values

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


@pytest.fixture
def _quiet() -> Iterator[None]:
    log = logging.getLogger("nex_async")
    level = log.level
    log.setLevel(logging.WARNING)
    yield
    log.setLevel(level)


@pytest.mark.usefixtures("_quiet")
async def test_a_short_soak_loses_and_doubles_nothing() -> None:
    """A listener that begins anew, a bulk writer and six callers through a bad network: each promise is kept, nothing leaks."""
    hasty = Timeouts(total=10.0, connect=1.0, read=1.0)
    plan = Plan(12.0, seed=5, every=0.8, lives=3, settle=25.0, sample=0.5, pace=0.3, quarantine=0.5, timeouts=hasty)
    report = await soak(plan, lambda _: None)
    assert report.ok, report.table()
    assert report.slope is not None
    counts = report.counts
    assert report.network["reset"] >= 3
    assert report.network["half_open"] >= 1
    assert report.network["connections"] >= 15
    assert sum(report.server.values()) >= 5
    assert report.insights >= 20
    assert report.creates >= 30
    assert counts["runs"] >= 1
    assert counts["reads left"] >= 1
    assert counts["lives"] >= 1
    assert counts["redelivered"] <= counts["lives"]
    assert min(counts["read: done"], counts["upsert: done"], counts["heard live"], counts["heard backfill"]) >= 1


def kinds(found: list[object]) -> list[str]:
    return [str(one).partition(":")[0] for one in found]


def test_an_insight_is_heard_once_or_again_with_a_word() -> None:
    """What was never handed out is lost, unless a gap tells of it; what came again without a word is doubled."""
    stored = {"a": NOON, "b": NOON + timedelta(minutes=1)}
    a, b, again = Heard("a", False), Heard("b", False), Heard("a", True)
    around = [(NOON + timedelta(seconds=50), NOON + timedelta(seconds=60))]
    assert not judge_insights(stored, [a, b], [])
    assert not judge_insights(stored, [a, b, again], [])
    assert not judge_insights(stored, [a], around)
    assert kinds([*judge_insights(stored, [a], [])]) == ["lost"]
    assert kinds([*judge_insights(stored, [b], around)]) == ["lost"]
    assert kinds([*judge_insights(stored, [a, b, again, a], [])]) == ["doubled"]
    assert kinds([*judge_insights(stored, [a, b, Heard("c", False)], [])]) == ["wrong"]


def test_a_create_took_place_as_often_as_was_said() -> None:
    """Once with a reply, never when it failed, at most once where that is not known."""
    assert not judge_creates({"a": "done", "b": "unknown", "c": "unknown", "d": "failed"}, ["a", "b"])
    assert kinds([*judge_creates({"a": "done"}, ["a", "a"])]) == ["doubled"]
    assert kinds([*judge_creates({"a": "unknown"}, ["a", "a"])]) == ["doubled"]
    assert kinds([*judge_creates({"a": "done"}, [])]) == ["lost"]
    assert kinds([*judge_creates({"a": "failed"}, ["a"])]) == ["wrong"]
    assert kinds([*judge_creates({}, ["a"])]) == ["wrong"]


def test_a_key_holds_its_newest_value() -> None:
    """Once, with the last value that was acknowledged or one tried since; a key that was only tried may be missing."""
    values = Values()
    values.written("a", 1)
    values.written("a", 2)
    values.tried("b", 1)
    assert not judge_values(values, [("a", 2)])
    assert not judge_values(values, [("a", 2), ("b", 1)])
    assert kinds([*judge_values(values, [("a", 1)])]) == ["lost"]
    assert kinds([*judge_values(values, [])]) == ["lost"]
    assert kinds([*judge_values(values, [("a", 2), ("a", 2)])]) == ["doubled"]
    assert kinds([*judge_values(values, [("a", 2), ("b", 2)])]) == ["lost"]
    assert kinds([*judge_values(values, [("a", 2), ("c", 1)])]) == ["wrong"]
    values.tried("a", 3)
    assert not judge_values(values, [("a", 2)])
    assert not judge_values(values, [("a", 3)])


def test_the_slope_is_that_of_least_squares() -> None:
    """A line is found as it is, by the hour, and noise around it is borne; two points are no line."""
    assert slope([(60.0 * n, 0.05 * n + 1.0) for n in range(10)]) == pytest.approx(3.0)
    assert slope([(60.0 * n, 5.0 + (-1.0) ** n) for n in range(1000)]) == pytest.approx(0.0, abs=0.001)
    assert slope([(0.0, 1.0), (1.0, 2.0)]) is None
