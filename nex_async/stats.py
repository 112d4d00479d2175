"""How a client stands: one snapshot of plain data, for health endpoints and for telemetry."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .feeds.insights import InsightStats
from .feeds.scheduler import watched_jobs
from .routes import Group
from .transport.counts import Counts
from .transport.limiter import KeyState
from .transport.pool import Binding, SessionPool
from .transport.state import ClientState

if TYPE_CHECKING:
    from .bulk.report import BulkReport

__all__ = ["CallStats", "LimitStats", "NexStats", "PoolStats", "RunStats", "stats_of"]

_GROUPS: tuple[Group, ...] = ("default", "text", "connect")


@dataclass(frozen=True, slots=True)
class CallStats:
    """Calls since the client was made. One that was retried is one call; waits are in seconds.

    `begun` is the sum of `in_flight`, `succeeded`, `failed` and `cancelled`; `errors` has those that failed by the name of
    the error raised. `retries` counts requests that were sent again, `throttled` answers 429. `limited` is the time spent
    waiting for rate limits, in line or because a 429 asked for it, `backoff` the time between attempts for other reasons.
    """

    begun: int
    in_flight: int
    succeeded: int
    failed: int
    cancelled: int
    errors: dict[str, int]
    retries: int
    throttled: int
    limited: float
    backoff: float


@dataclass(frozen=True, slots=True)
class LimitStats:
    """One rate limit of the key: calls that wait in line, and calls per second now allowed (None: not limited)."""

    waiting: int
    rate: float | None


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Connections of the pool, which other clients may share; None where its connector does not tell.

    `open` are those of calls, `idle` of them wait for the next; no more than `limit` are open per event loop. `streams` are
    the connections of feeds.
    """

    limit: int
    open: int | None
    idle: int | None
    streams: int | None


@dataclass(frozen=True, slots=True)
class RunStats:
    """A bulk run under way: the operation, rows dealt with, how many of them failed or are unknown, and its requests."""

    name: str
    rows: int
    failed: int
    unknown: int
    requests: int
    retries: int
    throttled: int


@dataclass(frozen=True, slots=True)
class NexStats:
    """How a client stands. Plain data: `dataclasses.asdict` makes it JSON.

    `limits` has the rate limits by group: `text` and `connect` are the two published ones, `default` is learned.
    `key_refused` says that the server has refused the key so often that calls are refused here for a minute; `retry_budget`
    is what the key has left for retries (None before the first call). `transport` says how calls travel: `lean`, or by
    aiohttp's own `session` (a proxy, a session of yours, an aiohttp of another shape). `feeds` are the insight feeds that
    are open, `jobs`
    counts the jobs being watched, `runs` are the bulk runs under way, `hook_errors` counts what hooks and telemetry raised.
    `reconnects`, `dropped` and `gaps` are sums over all feeds the client ever had: lost connections, events that queues
    dropped, gaps told.
    """

    closed: bool
    calls: CallStats
    limits: dict[str, LimitStats]
    key_refused: bool
    retry_budget: float | None
    transport: Literal["lean", "session"] | None
    pool: PoolStats | None
    feeds: tuple[InsightStats, ...]
    reconnects: int
    dropped: int
    gaps: int
    jobs: int
    runs: tuple[RunStats, ...]
    hook_errors: int


def stats_of(state: ClientState) -> NexStats:
    """Return how a client stands. Taken from another thread, sums may be a call apart."""
    counts, tenant, keys = state.counts, state.tenant, keys_of(state)
    return NexStats(
        closed=state.closed,
        calls=_calls(counts, len(state.tasks)),
        limits=_limits(keys),
        key_refused=tenant is not None and any(map(_is_refused, tenant.bindings)),
        retry_budget=min((key.budget.left for key in keys), default=None),
        transport=None if tenant is None else _transport(tenant.bindings),
        pool=None if tenant is None else pool_stats(tenant.pool),
        feeds=feeds_of(state),
        reconnects=counts.reconnects,
        dropped=counts.dropped,
        gaps=counts.gaps,
        jobs=watched_jobs(state),
        runs=tuple(_run(run.report) for run in _living(state.runs)),
        hook_errors=counts.hook_errors,
    )


def feeds_of(state: ClientState) -> tuple[InsightStats, ...]:
    """Return how the open feeds of a client stand."""
    return tuple(feed.stats for feed in _living(state.feeds))


def keys_of(state: ClientState) -> list[KeyState]:
    """Return the state of a client's key on each loop it is used from; clients of one key may share it."""
    return [binding.keys for binding in state.tenant.bindings] if state.tenant is not None else []


def _transport(bindings: list[Binding]) -> Literal["lean", "session"] | None:
    if not bindings:
        return None
    return "session" if any(binding.lean is None for binding in bindings) else "lean"


def _calls(counts: Counts, in_flight: int) -> CallStats:
    errors = dict(counts.errors)
    failed = sum(errors.values())
    begun = in_flight + counts.succeeded + failed + counts.cancelled
    return CallStats(
        begun=begun,
        in_flight=in_flight,
        succeeded=counts.succeeded,
        failed=failed,
        cancelled=counts.cancelled,
        errors=errors,
        retries=counts.retries,
        throttled=counts.throttled,
        limited=counts.limited,
        backoff=counts.backoff,
    )


def _limits(keys: list[KeyState]) -> dict[str, LimitStats]:
    """Return the limits of a key: over all loops it is used from, each of which has limits of its own."""
    found: dict[str, LimitStats] = {}
    for group in _GROUPS:
        limits = [key.limits[group] for key in keys]
        rates = [limit.rate for limit in limits if limit.rate is not None]
        found[group] = LimitStats(sum(limit.waiting for limit in limits), min(rates, default=None))
    return found


def _is_refused(binding: Binding) -> bool:
    return binding.keys.latch.is_closed(binding.loop.time())


def pool_stats(pool: SessionPool) -> PoolStats:
    """Return how a pool stands."""
    calls, streams = pool.census("request"), pool.census("stream")
    return PoolStats(
        limit=pool.max_connections,
        open=None if calls is None else calls[0],
        idle=None if calls is None else calls[1],
        streams=None if streams is None else streams[0],
    )


def _run(report: BulkReport) -> RunStats:
    return RunStats(
        name=report.name,
        rows=report.rows,
        failed=report.failed,
        unknown=report.unknown,
        requests=report.requests,
        retries=report.retries,
        throttled=report.throttled,
    )


def _living(registered: weakref.WeakValueDictionary[int, Any]) -> Iterator[Any]:
    """Yield what is registered; a list of references is taken first, for the loop may add to it meanwhile."""
    return (found for found in (reference() for reference in registered.valuerefs()) if found is not None)
