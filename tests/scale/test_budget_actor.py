"""One budget for the cluster: what two workers send together, whatever form the server's pause has; and who dies."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from nex_async.testing import EmulatorThread

from ..harness.canary import KEY
from .conftest import people, until

pytest.importorskip("ray")

from nex_async.integrations.ray import RayBudget, write_records
from nex_async.transport.ledger import Ask

LIMIT = 40
"""Requests in any second."""


def steady(backend: EmulatorThread) -> tuple[float, float, list[float]]:
    """Return requests per second that were let in and the share of 429, both after the first five seconds; and all times."""
    entries = [entry for entry in backend.requests if entry.operation == "upsertRecord"]
    start, end = entries[0].time + 5.0, entries[-1].time
    late = [entry for entry in entries if start <= entry.time]
    passed = sum(entry.status != 429 for entry in late)
    return passed / (end - start), 1.0 - passed / len(late), [entry.time for entry in entries]


@pytest.mark.parametrize("form", ["seconds", "date", "absurd", "absent"])
def test_the_limit_is_kept_by_two_workers(cluster: Any, backend: EmulatorThread, options: dict[str, Any], form: str) -> None:
    """Two workers, one limit they do not know: at most 5 % of what they send is refused, in whatever form (H6 to H9)."""
    if form == "absurd":
        garbage = ["nan", "inf", "-5", "1e999", "9" * 5000, "\u0665".encode().decode("latin-1"), "120, 5"]
        backend.switches.set(retry_after="absent")
        for number, value in enumerate(garbage):
            backend.faults.add(kind="rate_limit", route="upsertRecord", retry_after=value, after=40 * number, times=1)
    else:
        backend.switches.set(retry_after=form)
    backend.switches.set(rate_limits=f"global={LIMIT}, window=1")
    rows = cluster.data.from_items(people(900), override_num_blocks=2)
    done = write_records(rows, "person", match_on="email_addresses", batch_rows=450, **options)
    assert done.counts == {"created": 900}
    rate, refused, _times = steady(backend)
    print(f"{form}: {rate:.1f} of {LIMIT} a second let in, {refused:.1%} refused")
    assert refused <= 0.05
    assert rate >= 0.15 * LIMIT  # a pause is of whole seconds, and garbage is a 429 that nobody expected


def test_a_limit_that_is_known(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """Told the limit beforehand, the cluster keeps it within 5 % and is never refused."""
    backend.switches.set(rate_limits="global=100, window=5")
    budget = RayBudget("known", limits={"default": (100, 5.0)})
    options["budget"] = budget
    rows = cluster.data.from_items(people(600), override_num_blocks=2)
    done = write_records(rows, "person", match_on="email_addresses", batch_rows=300, **options)
    budget.stop()
    assert done.counts == {"created": 600}
    assert all(entry.status != 429 for entry in backend.requests)
    times = sorted(entry.time for entry in backend.requests)
    rounds = (len(times) - 1) // 100  # the first hundred go at once; a window is kept half a second longer than it is
    assert times[-1] - times[0] <= 1.05 * 5.5 * rounds
    assert all(later - first >= 5.0 for first, later in zip(times, times[100:], strict=False))


def test_a_pause_holds_the_whole_cluster(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """A `Retry-After` that one worker meets is kept by the other too, but for what was on its way."""
    backend.faults.add(kind="rate_limit", route="upsertRecord", retry_after=4, after=300, times=1)
    backend.switches.set(latency=0.005)
    rows = cluster.data.from_items(people(1_500), override_num_blocks=2)
    done = write_records(rows, "person", match_on="email_addresses", batch_rows=750, **options)
    assert done.counts == {"created": 1_500}
    entries = [entry for entry in backend.requests if entry.operation == "upsertRecord"]
    [shut] = [entry.time for entry in entries if entry.status == 429]
    inside = [entry.time - shut for entry in entries if shut + 1.0 < entry.time < shut + 3.9]
    assert inside == []


def test_the_actor_is_killed(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """When the budget's process is killed Ray starts it again, its workers teach it, and no storm breaks out."""
    backend.switches.set(rate_limits=f"global={LIMIT}, window=1")
    budget = RayBudget()
    pid = cluster.get(budget.actor().pid.remote())
    import threading

    def kill() -> None:
        until(lambda: backend.requests.count("upsertRecord") > 400)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    rows = cluster.data.from_items(people(900), override_num_blocks=2)
    done = write_records(rows, "person", match_on="email_addresses", batch_rows=450, **options)
    killer.join()
    assert done.counts == {"created": 900}
    assert cluster.get(budget.actor().pid.remote()) != pid
    entries = [entry for entry in backend.requests if entry.operation == "upsertRecord"]
    late = entries[-300:]
    assert sum(entry.status == 429 for entry in late) <= 0.08 * len(late)


def test_the_key_does_not_reach_the_actor(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """What the budget is asked holds a digest of the key, the same for both workers, and not the key."""
    rows = cluster.data.from_items(people(100), override_num_blocks=2)
    write_records(rows, "person", match_on="email_addresses", batch_rows=50, **options)
    accounts = cluster.get(RayBudget().actor().accounts.remote())
    assert len(accounts) == 1
    assert KEY not in str(accounts)


def test_stopping(cluster: Any) -> None:
    """A budget that was stopped begins anew for whoever asks next."""
    budget = RayBudget("short")
    ask = Ask("0" * 32, "text", "a", 10)
    first = cluster.get(budget.actor().lease.remote(ask))
    assert len(first.delays) == 10
    budget.stop()
    budget.stop()
    time.sleep(0.5)
    again = cluster.get(RayBudget("short").actor().lease.remote(ask))
    assert again.epoch != first.epoch
    RayBudget("short").stop()
