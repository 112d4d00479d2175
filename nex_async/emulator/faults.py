"""Faults on demand: what shall go wrong, where, how often. This module decides; `misbehaviour` and `stream` carry it out.

A fault is added and then looks at every request (or stream connection, or emitted batch) it is meant for. It lets the
first `after` pass, strikes the next `times`, each with `probability`, and is spent. Where several would strike, the one
added first does; so `add(kind="status", times=2)` and then `add(kind="reset", after=2)` fail a third request by a reset.
Chance is seeded: the same requests meet the same faults again. Faults may be added and taken back from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from nex_async import routes
from nex_async.emulator.call import explain

__all__ = ["Fault", "FaultSpec", "Faults", "Stage", "preset"]

Stage: TypeAlias = Literal["request", "connection", "emission", "visibility"]
"""When a fault is decided on: for each request, each stream that opens, each batch emitted, each text taken in."""

_STAGES: dict[str, Stage] = {
    "status": "request",
    "rate_limit": "request",
    "delay": "request",
    "late": "request",
    "stall": "request",
    "reset": "request",
    "close": "request",
    "bad_http": "request",
    "cut_body": "request",
    "stall_body": "request",
    "truncated_gzip": "request",
    "truncated_json": "request",
    "garbage": "request",
    "read_lag": "request",
    "silence": "connection",
    "mute": "connection",
    "cut_stream": "connection",
    "cut_event": "emission",
    "bad_event": "emission",
    "drop_emission": "emission",
    "duplicate_emission": "emission",
    "stream_lag": "emission",
    "rest_lag": "visibility",
}
_ON_BODIES = frozenset({"cut_body", "stall_body", "truncated_gzip", "truncated_json", "garbage", "read_lag"})
"""Faults of a reply with an end; a stream has none."""
_WITH_REPLY = _ON_BODIES - {"read_lag"} | {"delay", "late"}
"""Faults that need the reply the operation would give; by default they let it take effect."""

Kind = Literal[
    "status",
    "rate_limit",
    "delay",
    "late",
    "stall",
    "reset",
    "close",
    "bad_http",
    "cut_body",
    "stall_body",
    "truncated_gzip",
    "truncated_json",
    "garbage",
    "read_lag",
    "silence",
    "mute",
    "cut_stream",
    "cut_event",
    "bad_event",
    "drop_emission",
    "duplicate_emission",
    "stream_lag",
    "rest_lag",
]
_Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
_LONGEST = 86_400.0


class FaultSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault in words.

    kind | what happens
    ---|---
    `status` | answers `status` with `body` (by default the API's envelope, or a page where `headers` say text/html)
    `rate_limit` | 429 with `retry_after` (by default as the switches say, 1 second)
    `delay`, `late` | answers `seconds` after it was carried out; is carried out and answered `seconds` late
    `stall` | never answers
    `reset`, `close` | RST or FIN before any header
    `bad_http` | bytes that are no HTTP, then FIN
    `cut_body` | the first `bytes` of the body (by default half), then `ending`
    `stall_body` | the first `bytes` of the body, then nothing more
    `truncated_gzip`, `truncated_json` | a body cut at `bytes`, of a length that fits
    `garbage` | a body of random bytes
    `read_lag` | 404 for what was made less than `seconds` ago
    `silence` | the stream sends nothing more, not even keepalives, after `events` live events
    `mute` | the stream sends only keepalives after `events` live events
    `cut_stream` | the stream ends by `ending` after `bytes` of it
    `cut_event` | every listener gets the first `bytes` of the next event (by default half), then `ending`
    `bad_event` | the next event holds half of its JSON
    `drop_emission`, `duplicate_emission` | the next batch is not sent on the stream, or twice
    `stream_lag` | the next batch is sent on the stream `seconds` after REST shows it
    `rest_lag` | REST shows the next batch `seconds` after the stream sent it
    """

    kind: Kind
    route: str | None = None
    """The operationId it is meant for; None is every one."""
    times: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = 1
    """How often it strikes; None is until it is cleared."""
    after: _Count = 0
    """How many pass first."""
    probability: Annotated[float, Meta(ge=0, le=1)] = 1.0
    seed: int = 0
    apply: bool | None = None
    """Whether the operation takes effect all the same; by default it does where the reply only fails on its way."""
    seconds: float | list[float] | None = None
    """How long, or the two ends of a range to draw from; None is until the fault is cleared."""
    status: Annotated[int, Meta(ge=200, le=999)] = 500
    body: str | None = None
    headers: dict[str, str] = {}
    retry_after: str | int | float | None = None
    """The value of a `Retry-After` header, sent as it is."""
    bytes: _Count | None = None
    events: _Count = 0
    ending: Literal["reset", "fin", "eof"] = "reset"
    """How a cut ends: RST, FIN, or, on the stream, an orderly end of the body."""


class Fault:
    """A fault that was added, and how often it has struck."""

    def __init__(self, number: int, spec: FaultSpec) -> None:
        self.id = number
        self.spec = spec
        self.stage = _STAGES[spec.kind]
        self.needs_reply: bool = spec.kind in _WITH_REPLY
        """Whether it spoils the reply the operation would give."""
        self.applies: bool = self.needs_reply if spec.apply is None else spec.apply
        """Whether the operation takes effect."""
        self.seen = 0
        self.hits = 0
        self.is_cleared = False
        self.random: random.Random = random.Random(spec.seed)

    @property
    def kind(self) -> str:
        """What happens."""
        return self.spec.kind

    def concerns(self, stage: Stage, route: str) -> bool:
        """Whether it is meant for this."""
        if self.stage != stage or self.spec.route not in (None, route):
            return False
        return stage != "request" or route != routes.STREAM_INSIGHTS.name or self.kind not in _ON_BODIES

    def is_due(self) -> bool:
        """Whether it strikes the next one it sees; the chance is drawn."""
        spec = self.spec
        if self.seen < spec.after or (spec.times is not None and self.hits >= spec.times):
            return False
        return spec.probability >= 1 or self.random.random() < spec.probability

    def duration(self) -> float | None:
        """Return how many seconds it lasts this time; None is until it is cleared."""
        seconds = self.spec.seconds
        return self.random.uniform(*seconds) if isinstance(seconds, list) else seconds

    def longest(self) -> float:
        """Return how many seconds it lasts at most."""
        seconds = self.spec.seconds
        return max(seconds) if isinstance(seconds, list) else seconds or 0.0

    def lasting(self, clock: Callable[[], float]) -> Callable[[], bool]:
        """Return whether the fault still lasts, from now on by `clock`; callable from any thread."""
        seconds = self.duration()
        end = float("inf") if seconds is None else clock() + seconds
        return lambda: clock() < end and not self.is_cleared

    def shown(self) -> dict[str, Any]:
        """Return the fault as the control interface lists it."""
        spec: dict[str, Any] = msgspec.to_builtins(self.spec)
        return {"id": self.id, **spec, "apply": self.applies, "seen": self.seen, "hits": self.hits}


class Faults:
    """The faults of a running server, in the order they were added."""

    def __init__(self) -> None:
        self._faults: tuple[Fault, ...] = ()
        self._held: dict[asyncio.Future[None], Fault] = {}
        self._number = 0
        self._changing = threading.Lock()

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._faults)

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, /, **spec: Any) -> Fault:
        """Add a fault; the words are those of `FaultSpec`. Raises ValueError naming the field that cannot be."""
        read = _read(spec)
        with self._changing:
            self._number += 1
            fault = Fault(self._number, read)
            self._faults = (*self._faults, fault)
        return fault

    def remove(self, number: int) -> bool:
        """Take a fault back and let go whatever it holds up; False if there is none of this id."""
        return self._take(lambda fault: fault.id == number)

    def clear(self) -> None:
        """Take every fault back."""
        self._take(lambda fault: True)

    def _take(self, chosen: Callable[[Fault], bool]) -> bool:
        with self._changing:
            found = [fault for fault in self._faults if chosen(fault)]
            self._faults = tuple(fault for fault in self._faults if fault not in found)
        for fault in found:
            fault.is_cleared = True
            self.release(fault)
        return bool(found)

    async def hold(self, fault: Fault) -> None:
        """Wait as long as a fault lasts, or until it is cleared or the server closes."""
        turn = asyncio.get_running_loop().create_future()
        self._held[turn] = fault  # before the look: whoever clears the fault now finds it
        try:
            if not fault.is_cleared:
                await asyncio.wait_for(turn, fault.duration())
        except (asyncio.TimeoutError, TimeoutError):
            return
        finally:
            del self._held[turn]

    def release(self, fault: Fault | None = None) -> None:
        """Let go what a fault holds up now, or what any does."""
        for turn, holder in list(self._held.items()):
            if fault in (None, holder):
                with contextlib.suppress(RuntimeError):  # its loop was closed
                    turn.get_loop().call_soon_threadsafe(_let_go, turn)

    def draw(self, stage: Stage, route: str, fits: Callable[[Fault], bool] | None = None) -> Fault | None:
        """Return the fault that strikes, if one does; every fault this concerns has then seen it."""
        struck: Fault | None = None
        for fault in self._faults:
            if not fault.concerns(stage, route) or (fits is not None and not fits(fault)):
                continue
            if struck is None and fault.is_due():
                struck = fault
                fault.hits += 1
            fault.seen += 1
        return struck


def _let_go(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def _read(words: dict[str, Any]) -> FaultSpec:
    try:
        spec = msgspec.convert(words, FaultSpec)
    except msgspec.ValidationError as error:
        raise ValueError(explain(str(error))) from None
    stage, route = _STAGES[spec.kind], spec.route
    if route is not None and route not in routes.BY_NAME:
        raise ValueError(f"route: {route[:60]!r} is no operationId of the API")
    place = routes.ADD_TEXT.name if stage == "visibility" else routes.STREAM_INSIGHTS.name
    if stage != "request" and route not in (None, place):
        raise ValueError(f"route: a fault of kind {spec.kind} happens on {place} only")
    if route == routes.STREAM_INSIGHTS.name and spec.kind in _ON_BODIES:
        raise ValueError(f"route: a fault of kind {spec.kind} needs a reply with an end; {route} has none")
    if spec.kind in ("delay", "late", "read_lag") and spec.seconds is None:
        raise ValueError(f"seconds: a fault of kind {spec.kind} needs a number of seconds")
    ends = spec.seconds if isinstance(spec.seconds, list) else [spec.seconds or 0.0] * 2
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= _LONGEST:
        raise ValueError(f"seconds: must be a number from 0 to {_LONGEST:g}, or a range [low, high] of such")
    _check_texts(spec)
    return spec


def _check_texts(spec: FaultSpec) -> None:
    """Refuse what cannot be sent."""
    lines = {"headers": " ".join(f"{name} {value}" for name, value in spec.headers.items()), "retry_after": spec.retry_after}
    for field, text in {**lines, "body": spec.body}.items():
        try:
            str(text).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{field}: text with half a surrogate pair is not UTF-8") from None
        if field in lines and not str(text).isprintable():
            raise ValueError(f"{field}: control characters cannot be sent")
    if not all(name and name.isascii() and name.replace("-", "").replace("_", "").isalnum() for name in spec.headers):
        raise ValueError("headers: a name has letters, digits, - and _ only")


_PRESETS: dict[str, dict[str, Any]] = {
    "html_502": {"kind": "status", "status": 502, "headers": {"Content-Type": "text/html"}},
    "slow_ask": {"kind": "delay", "route": "queryContext", "seconds": [10.0, 60.0]},
    "not_found_after_write": {"kind": "read_lag", "seconds": 2.0},
    "truncated_json": {"kind": "truncated_json"},
    "keepalive_silence": {"kind": "silence"},
    "eof_mid_stream": {"kind": "cut_event", "ending": "eof"},
}


def preset(name: str, stage: Stage, route: str, *, seed: int = 0) -> Fault | None:
    """Return the fault a value of the switch `faults` stands for, if it concerns this."""
    if name not in _PRESETS:
        return None
    fault = Fault(0, _read({**_PRESETS[name], "seed": seed}))
    return fault if fault.concerns(stage, route) else None
