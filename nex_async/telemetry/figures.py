"""What clients count, as metrics: read when a reader asks, so that counting costs the calls nothing."""

from __future__ import annotations

import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from ..stats import PoolStats, feeds_of, keys_of, pool_stats
from ..transport.counts import Counts
from ..transport.state import ClientState

__all__ = ["Clients", "observe_clients"]

Read: TypeAlias = "Callable[[Clients], Iterable[Observation]]"

_MANY = 1_000
"""So many ended clients are put together even where no reader ever asks."""


class Clients:
    """The clients that one `OpenTelemetry` was given to. Sums outlive them, for a counter never falls."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[ClientState], Counts]] = {}
        self._gone: deque[int] = deque()
        self._past = Counts()
        self._number = 0

    def add(self, state: ClientState) -> None:
        """Know a client, for as long as it lives."""
        self._number += 1
        self._known[self._number] = weakref.ref(state), state.counts
        # The collector may come in the middle of anything, so that no more is done here than to note a number.
        weakref.finalize(state, self._gone.append, self._number).atexit = False
        if len(self._gone) >= _MANY:
            self._bury()

    def _bury(self) -> None:
        while self._gone:
            number = self._gone.popleft()
            self._past.add(self._known[number][1])
            del self._known[number]

    def sums(self) -> Counts:
        """Return what all of them have counted, those that are gone included."""
        self._bury()
        total = Counts()
        total.add(self._past)
        for _, counts in list(self._known.values()):
            total.add(counts)
        return total

    def living(self) -> Iterator[ClientState]:
        """Yield those that live."""
        for reference, _ in list(self._known.values()):
            state = reference()
            if state is not None:
                yield state


def observe_clients(meter: Meter, clients: Clients) -> None:
    """Offer the figures of clients to a meter."""
    makers: dict[str, Callable[..., Any]] = {
        "counter": meter.create_observable_counter,
        "gauge": meter.create_observable_gauge,
        "level": meter.create_observable_up_down_counter,
    }
    for kind, name, unit, description, read in _INSTRUMENTS:
        makers[kind](name, callbacks=[_callback(read, clients)], unit=unit, description=description)


def _callback(read: Read, clients: Clients) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda options: list(read(clients))


def _calls(clients: Clients) -> Iterator[Observation]:
    sums = clients.sums()
    yield Observation(sums.succeeded, {"nex.outcome": "succeeded"})
    yield Observation(sums.cancelled, {"nex.outcome": "cancelled"})
    for name, count in sums.errors.items():
        yield Observation(count, {"nex.outcome": "failed", "error.type": name})


def _waits(clients: Clients) -> Iterator[Observation]:
    sums = clients.sums()
    yield Observation(sums.limited, {"nex.wait": "rate_limit"})
    yield Observation(sums.backoff, {"nex.wait": "backoff"})


def _sum(name: str) -> Read:
    return lambda clients: [Observation(getattr(clients.sums(), name))]


def _in_flight(clients: Clients) -> Iterator[Observation]:
    yield Observation(sum(len(state.tasks) for state in clients.living()))


def _waiting(clients: Clients) -> Iterator[Observation]:
    keys = {id(key): key for state in clients.living() for key in keys_of(state)}
    lines: Counter[str] = Counter()
    for key in keys.values():
        lines.update({group: limit.waiting for group, limit in key.limits.items()})
    for group, count in lines.items():
        yield Observation(count, {"nex.limit": group})


def _connections(clients: Clients) -> Iterator[Observation]:
    pools = {id(state.tenant.pool): state.tenant.pool for state in clients.living() if state.tenant is not None}
    found: list[PoolStats] = [pool_stats(pool) for pool in pools.values()]
    idle = sum(each.idle or 0 for each in found)
    yield Observation(idle, {"http.connection.state": "idle"})
    yield Observation(sum(each.open or 0 for each in found) - idle, {"http.connection.state": "active"})


def _feeds(clients: Clients) -> Iterator[Observation]:
    standing = Counter(feed.connected for state in clients.living() for feed in feeds_of(state))
    yield Observation(standing[True], {"nex.feed.connected": True})
    yield Observation(standing[False], {"nex.feed.connected": False})


def _lag(clients: Clients) -> Iterator[Observation]:
    lags = [feed.lag for state in clients.living() for feed in feeds_of(state)]
    if lags:
        yield Observation(max(lags))


def _silence(clients: Clients) -> Iterator[Observation]:
    silences = [feed.silence for state in clients.living() for feed in feeds_of(state) if feed.silence is not None]
    if silences:
        yield Observation(max(silences))


_INSTRUMENTS: list[tuple[str, str, str, str, Read]] = [
    ("counter", "nex.client.calls", "{call}", "Calls that have ended.", _calls),
    ("level", "nex.client.calls.in_flight", "{call}", "Calls under way.", _in_flight),
    ("counter", "nex.client.retries", "{request}", "Requests that were sent again.", _sum("retries")),
    ("counter", "nex.client.throttled", "{response}", "Answers 429.", _sum("throttled")),
    ("counter", "nex.client.wait.time", "s", "Time that calls waited, for rate limits or between attempts.", _waits),
    ("level", "nex.client.rate_limit.waiting", "{call}", "Calls in line for a rate limit.", _waiting),
    ("level", "nex.client.connections", "{connection}", "Open connections of calls.", _connections),
    ("level", "nex.client.feeds", "{feed}", "Insight feeds that are open.", _feeds),
    ("gauge", "nex.client.feed.lag", "{event}", "Longest line of events that wait for a reader of a feed.", _lag),
    ("gauge", "nex.client.feed.silence", "s", "Longest time since the last byte of a feed's stream.", _silence),
    ("counter", "nex.client.feed.reconnects", "{connection}", "Streams of feeds that were lost.", _sum("reconnects")),
    ("counter", "nex.client.feed.dropped", "{event}", "Events that queues behind feeds have dropped.", _sum("dropped")),
    ("counter", "nex.client.feed.gaps", "{gap}", "Gaps that feeds have told of.", _sum("gaps")),
    ("counter", "nex.client.hook.errors", "{error}", "Exceptions of hooks and telemetry.", _sum("hook_errors")),
]
