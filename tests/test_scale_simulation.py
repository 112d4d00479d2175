"""The simulation of a cluster: its laws, and that one worker of it does what a real one does in virtual time."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.cluster import Bucket, Setup, Window, jain, simulate

from .harness.virtual import run_virtual
from .test_budget import LATENCY, Cluster
from .test_limiter import Bucket as RealBucket

COSTS = scale.Costs(page_cpu=0.0125, row_cpu=0.00015, latency=0.05, spread=0.0, concurrency=8, ask=0.0)


def test_the_same_seed_gives_the_same_run() -> None:
    """Times, jitter and deaths are drawn from the seed alone."""
    one, same, other = (
        simulate(Setup(workers=5, seconds=30.0, spread=0.5, deaths=200.0, seed=seed), Bucket(20.0, 20)) for seed in (1, 1, 2)
    )
    assert asdict(one) == asdict(same)
    assert asdict(one) != asdict(other)


@pytest.mark.parametrize(
    "setup",
    [
        Setup(workers=1, seconds=60.0),
        Setup(workers=20, seconds=60.0, header=False, spread=0.5),
        Setup(workers=20, seconds=60.0, shared=False),
        Setup(workers=20, seconds=60.0, deaths=120.0, partition=10, budget_down=(20.0, 25.0)),
    ],
)
def test_nothing_is_lost_and_nothing_comes_from_nowhere(setup: Setup) -> None:
    """What was sent was let through or refused, and no more went through than the server's limit and burst allow."""
    for hidden in (Bucket(10.0, 20), Window(10, 1.0)):
        found = simulate(setup, hidden)
        assert found.sent == found.passed + found.refusals
        assert found.done <= found.passed
        assert found.passed <= hidden.rate * setup.seconds + hidden.burst
        assert 0.0 < found.fairness <= 1.0


@pytest.mark.usefixtures("few_records")
@pytest.mark.parametrize("workers", [1, 3])
def test_it_does_what_real_workers_do(workers: int) -> None:
    """Real clients with real leases in virtual time get the same, within 5 %, and are refused as little."""
    real = Cluster(RealBucket(10.0, 20), workers=workers)
    run_virtual(real.run(60.0))
    found = simulate(Setup(workers=workers, seconds=60.0, latency=LATENCY), Bucket(10.0, 20))
    assert found.done == pytest.approx(sum(real.done), rel=0.05)
    assert found.sent == pytest.approx(len(real.sent), rel=0.10)
    assert found.asks * 60.0 == pytest.approx(len(real.budget.asks), rel=0.15)


@pytest.mark.parametrize("workers", [2, 40, 200])
def test_more_workers_than_the_limit_feeds_use_it_as_well(workers: int) -> None:
    """With one budget they use 90 % of it, and once it is known hardly anything is refused."""
    found = simulate(Setup(workers=workers, seconds=90.0), Bucket(20.0, 20))
    assert found.utilisation >= 0.9
    assert found.refused_late <= 0.02
    assert found.fairness >= 0.95


def test_without_one_budget_most_is_refused() -> None:
    """Forty workers that learn for themselves run into the limit far more often."""
    alone, shared = (simulate(Setup(workers=40, seconds=60.0, shared=way), Bucket(10.0, 20)) for way in (False, True))
    assert alone.refused_late >= 10 * shared.refused_late


def test_a_limit_above_200_a_second_is_learned() -> None:
    """The budget does not switch itself off there, to run into the limit every few seconds."""
    now, before = (simulate(Setup(workers=4, seconds=40.0, off=off), Bucket(250.0, 100)) for off in (2000.0, 200.0))
    assert now.utilisation >= 0.9 > 0.85 > before.utilisation
    assert now.refused_late <= 0.01


def test_a_cut_is_never_too_deep() -> None:
    """A window that refuses a hundred workers at once does not make the budget believe in a tenth of the limit."""
    found = simulate(Setup(workers=100, seconds=40.0, page_cpu=0.0125, spread=0.3), Window(100, 1.0))
    assert found.utilisation >= 0.7


def test_what_is_fair() -> None:
    """Equal shares, none above its own limit; Jain's index is 1 for them, and 1 / n for one that has everything."""
    assert scale.fair_ends([10.0, 20.0], 100.0, 10.0) == [2.0, 3.0]
    assert scale.fair_ends([10.0, 20.0], 5.0, 100.0) == [2.0, 4.0]
    assert jain([3, 3, 3]) == pytest.approx(1.0)
    assert jain([9, 0, 0]) == pytest.approx(1 / 3)


def test_the_formula() -> None:
    """The limit, or what the workers can do, whichever is less."""
    assert scale.formula(1e7, 10.0, 100, COSTS) == pytest.approx(2000.0)
    assert scale.formula(1e7, 1e9, 1, COSTS) == pytest.approx(250.0)
    assert scale.formula(1e3, 10.0, 100, COSTS, writes=True) == pytest.approx(100.0)


def test_measured_points_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the file the table says so; with it there is a row for each point."""
    monkeypatch.setattr(scale, "MEASURED", tmp_path / "none.json")
    assert scale.measured() == []
    assert scale._measured_table(COSTS) == ["Nothing was measured yet."]
    same = {"job": "read", "delay": 0.02, "records": 200_000, "cpu": 6.0, "in_flight": 4}
    points = [{**same, "workers": count, "seconds": 6.0 / count} for count in (2, 1)]
    (tmp_path / "none.json").write_text(json.dumps({"points": points}))
    assert [point["workers"] for point in scale.measured()] == [1, 2]
    assert len(scale._measured_table(COSTS)) == 4


def test_the_page_keeps_its_text(tmp_path: Path) -> None:
    """Only what stands between the marks of a table is replaced."""
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- table: ask -->\nold\n<!-- end -->\nAfter.\n")
    scale.write_page(page, {"ask": ["| a |", "|---|"], "other": ["x"]})
    assert page.read_text() == "Before.\n<!-- table: ask -->\n\n| a |\n|---|\n\n<!-- end -->\nAfter.\n"
