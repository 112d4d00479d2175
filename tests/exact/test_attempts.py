"""What is reported of a call is what went over the wire: every operation, whatever befalls it."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest

from nex_async import Nex, NexError, OutcomeUnknownError, SessionPool, Timeouts
from nex_async.errors import APIError
from nex_async.routes import ALL, Route
from nex_async.transport import lean
from nex_async.transport.retry import RetryPolicy

from ..harness.canary import KEY
from ..harness.raw_server import RawServer
from ..harness.virtual import MemoryConnector, MemoryTransport, run_virtual
from ..test_operations import Case, perform
from .faulty import CALLS, FAULTS, MAX_BODY, Fault, attempts_of, body_of, unreachable


@dataclass
class Heard:
    """What the hooks of a client heard."""

    requests: int = 0
    responses: int = 0
    retries: int = 0

    def request(self, details: Any) -> None:
        self.requests += 1
        assert details.attempt == self.requests

    def response(self, details: Any) -> None:
        self.responses += 1

    def retry(self, details: Any) -> None:
        self.retries += 1

    @property
    def hooks(self) -> dict[str, Any]:
        return {"on_request": self.request, "on_response": self.response, "on_retry": self.retry}


@dataclass
class Wire:
    """Connections in memory on which each attempt meets the next of `faults`, and after them a success."""

    faults: list[Fault]
    success: bytes
    attempts: int = 0
    """Requests seen, and connections that were refused."""
    unasked: list[bytes] = field(default_factory=list)

    def next(self) -> Fault | None:
        self.attempts += 1
        return self.faults[self.attempts - 1] if self.attempts <= len(self.faults) else None

    def connecting(self, origin: Any) -> None:
        if self.attempts < len(self.faults) and not self.faults[self.attempts].reached:
            fault = self.next()
            assert fault is not None
            raise unreachable(fault.name, origin)

    def respond(self, transport: MemoryTransport, data: bytes) -> None:
        if b" HTTP/1.1\r\n" not in data:
            self.unasked.append(data)
            return
        fault = self.next()
        if fault is None:
            transport.feed(0.01, self.success)
        else:
            fault.play(transport)


async def error_of(call: Any) -> NexError | None:
    """Return what a call raised, None when it succeeded."""
    try:
        await perform(call)
    except NexError as error:
        return error
    return None


def check(fault: Fault, route: Route[Any], error: NexError | None, seen: int, nex: Nex, heard: Heard) -> None:
    """Hold what a call that met nothing but one fault reports against what was seen on the wire."""
    want = attempts_of(fault, route)
    where = f"{route.name}, {fault.name}"
    assert seen == want, f"{where}: {seen} attempts on the wire, where {want} are due"
    counts = nex.stats.calls
    assert counts.retries == seen - 1, where
    assert counts.throttled == (seen if fault.status == 429 else 0), where
    assert (heard.requests, heard.responses, heard.retries) == (seen, seen, seen - 1), where
    assert error is not None, where
    assert len(error.attempts) == seen, where
    assert [attempt.number for attempt in error.attempts] == list(range(1, seen + 1))
    unclear = route.retry in ("create", "costly") and fault.kind in ("lost", "fault")
    assert isinstance(error, OutcomeUnknownError) is unclear, f"{where}: {error!r}"
    if fault.status is not None and not unclear:
        assert isinstance(error, APIError)
        assert error.status == fault.status


SAMPLES = list({(route.retry, route.method): (route, case) for route, case in CALLS}.values())
"""A call of each class and method: these hold no hooks, and take the way of a call that nobody listens to."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_attempts_reported_are_attempts_made(fault: Fault) -> None:
    """For each of the 60 calls: as many attempts as the table says, on the wire, in the error, in the counts, to the hooks."""

    async def one(route: Route[Any], case: Case) -> None:
        wire = Wire([fault] * 10, b"")
        heard = Heard()
        connector = MemoryConnector(wire.respond, connecting=wire.connecting)
        timeout = Timeouts(read=5.0, total=3600.0)
        async with SessionPool(connector_factory=connector, max_body=MAX_BODY) as pool:
            async with Nex(KEY, base_url="http://127.0.0.1:9", pool=pool, timeout=timeout, **heard.hooks) as nex:
                error = await error_of(case.call(nex))
                check(fault, route, error, wire.attempts, nex, heard)
        assert not wire.unasked

    async def main() -> None:
        for route, case in CALLS:
            await one(route, case)

    run_virtual(main())


def test_every_operation_is_called() -> None:
    """All but the stream, whose connections have tests of their own; and the names of the faults are their own."""
    assert len(CALLS) == len(ALL) - 1 == 60
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) > 24


def test_attempts_never_exceed_the_policy() -> None:
    """One operation of each class, and a policy of its own: never more than `retries` and one, never where it may double."""

    async def one(fault: Fault, route: Route[Any], case: Case, retries: int) -> None:
        wire = Wire([fault] * 10, b"")
        connector = MemoryConnector(wire.respond, connecting=wire.connecting)
        policy = RetryPolicy(retries=retries)
        async with SessionPool(connector_factory=connector, max_body=MAX_BODY) as pool:
            options: Any = {"retry": policy, "timeout": Timeouts(read=5.0, total=3600.0)}
            async with Nex(KEY, base_url="http://127.0.0.1:9", pool=pool, **options) as nex:
                error = await error_of(case.call(nex))
        usual = attempts_of(fault, route)
        few = usual == 1 or fault.kind in ("conflict", "garbled")
        assert wire.attempts == (min(usual, retries + 1) if few else retries + 1), (route.name, fault.name)
        assert error is not None
        assert len(error.attempts) == wire.attempts

    async def main() -> None:
        for fault, (route, case), retries in itertools.product(FAULTS, SAMPLES, (0, 6)):
            await one(fault, route, case, retries)

    run_virtual(main())


def test_one_fault_and_then_a_success() -> None:
    """A call that is worth repeating succeeds at the second attempt, and the counts say so."""

    async def one(fault: Fault, route: Route[Any], case: Case) -> None:
        wire = Wire([fault], body_of(case, route.status))
        connector = MemoryConnector(wire.respond, connecting=wire.connecting)
        timeout = Timeouts(read=5.0, total=3600.0)
        async with SessionPool(connector_factory=connector, max_body=MAX_BODY) as pool:
            async with Nex(KEY, base_url="http://127.0.0.1:9", pool=pool, timeout=timeout) as nex:
                error = await error_of(case.call(nex))
                again = attempts_of(fault, route) > 1
                assert wire.attempts == 1 + again, (route.name, fault.name)
                assert (error is None) is again, (route.name, fault.name, error)
                assert (nex.stats.calls.succeeded, nex.stats.calls.retries) == (int(again), int(again))

    async def main() -> None:
        for fault, (route, case) in itertools.product(FAULTS, SAMPLES):
            await one(fault, route, case)

    run_virtual(main())


def test_a_deadline_is_no_attempt() -> None:
    """A call that ends at its deadline reports the one request it made; of a create nobody knows the outcome."""
    silence = next(fault for fault in FAULTS if fault.name == "silent_head")

    async def main() -> None:
        for route, case in CALLS:
            wire = Wire([silence] * 10, b"")
            async with SessionPool(connector_factory=MemoryConnector(wire.respond)) as pool:
                async with Nex(KEY, base_url="http://127.0.0.1:9", pool=pool, timeout=Timeouts(total=3.0, read=9.0)) as nex:
                    error = await error_of(case.call(nex))
                    assert error is not None
                    assert (wire.attempts, len(error.attempts), nex.stats.calls.retries) == (1, 1, 0), route.name
                    assert isinstance(error, OutcomeUnknownError) is (route.retry in ("create", "costly")), route.name

    run_virtual(main())


_SLOW = ("429", "silent_head", "silent_body")
"""These take seconds of a real clock."""


@pytest.mark.parametrize("way", ["lean", "session"])
async def test_the_same_over_sockets(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample of it over real sockets, counted by the server: an operation of each class, on both ways a call can take."""
    if way == "session":
        monkeypatch.setattr(lean, "unfit", lambda: "a test says so")
    by_class: dict[str, list[tuple[Route[Any], Case]]] = {}
    for route, case in CALLS:
        by_class.setdefault(route.retry, []).append((route, case))
    samples = [routes[0 if way == "lean" else -1] for routes in by_class.values()]
    fast = RetryPolicy(backoff_base=0.0, throttle_base=0.0)
    for fault in FAULTS:
        if not fault.reached or fault.name in _SLOW:
            continue
        quick = dataclasses.replace(fault, data=fault.data.replace(b"Retry-After: 1", b"Retry-After: 0"))
        for route, case in samples:
            heard = Heard()
            async with RawServer(quick.script()) as server, SessionPool(max_body=MAX_BODY) as pool:
                async with Nex(KEY, base_url=server.url, pool=pool, retry=fast, **heard.hooks) as nex:
                    error = await error_of(case.call(nex))
                    assert nex.stats.transport == way
                    check(fault, route, error, len(server.requests), nex, heard)
