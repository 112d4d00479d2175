"""A little of what `python -m tests.exact.soak` runs at length: what much of one thing leaves behind."""

from __future__ import annotations

from .leaks import many_calls, many_listeners, many_tenants


async def test_calls_leave_nothing() -> None:
    """A thousand calls, some of them cut short: no descriptor, task or thread is left."""
    left = await many_calls(1_000, 500)
    assert (left.descriptors, left.tasks, left.threads) == (0, 0, 0)


async def test_listeners_leave_nothing() -> None:
    """Feeds that are opened and closed, left early or cancelled leave no task, thread or descriptor."""
    left = await many_listeners(12, 8)
    assert (left.descriptors, left.tasks, left.threads) == (0, 0, 0)


async def test_many_tenants_on_one_pool_do_not_mix() -> None:
    """X30: keys that share eight connections, in random interleavings with cancels and cuts, get their own replies alone."""
    ends = await many_tenants(200, 30, seed=1)
    assert ends["wrong"] == 0
    assert ends["right"] > 100
    assert min(ends["cancelled"], ends["failed"]) > 10
    assert [end for end in ends if end.startswith("failed for")] == []
