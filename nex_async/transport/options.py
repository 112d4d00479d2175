"""What a caller may choose: options, timeouts, hooks and an outer deadline, and the settings they add up to."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

import aiohttp
import msgspec

from ..config import Timeouts
from ..errors import ConfigError, InvalidRequestError, NexError, RequestSummary
from ..routes import Deadline
from . import wire
from .retry import RetryPolicy

if TYPE_CHECKING:
    from .observer import Observer

__all__ = ["Hooks", "RequestDetails", "RequestOptions", "ResponseDetails", "RetryDetails", "Settings", "deadline"]

_TOTAL: dict[Deadline, float] = {"standard": 60.0, "slow": 300.0, "stream": 60.0}
_READ: dict[Deadline, float] = {"standard": 30.0, "slow": 120.0, "stream": 75.0}

outer_deadline: ContextVar[float | None] = ContextVar("nex_async_deadline", default=None)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound every call made inside the block, with all their retries and waits, by one deadline `seconds` from now.

    Blocks nest; the nearest deadline holds. Calls raise `DeadlineExceeded`. Needs a running event loop.
    """
    with until(asyncio.get_running_loop().time() + seconds):
        yield


@contextlib.contextmanager
def until(moment: float) -> Iterator[None]:
    """Bound every call made inside the block by a moment of the loop's clock, or an earlier one that holds already."""
    outer = outer_deadline.get()
    token = outer_deadline.set(moment if outer is None else min(outer, moment))
    try:
        yield
    finally:
        outer_deadline.reset(token)


class RequestOptions(TypedDict, total=False):
    """What every method takes besides its own arguments."""

    timeout: float | Timeouts
    """Seconds for the whole call with its retries, or a `Timeouts`."""
    retries: int
    """How often a failed call is repeated; 0 sends exactly one request."""
    headers: Mapping[str, str]
    """Extra headers."""
    idempotency_key: str
    """Sent as `Idempotency-Key` with every attempt. The API ignores it today."""
    retry_ambiguous: bool
    """Whether a PATCH whose reply was lost is sent again."""


@dataclass(frozen=True, slots=True)
class RequestDetails:
    """An attempt that is about to be made."""

    request: RequestSummary
    attempt: int


@dataclass(frozen=True, slots=True)
class ResponseDetails:
    """An attempt that ended: with a reply (`error` is None) or without. Times in seconds, sizes in bytes."""

    request: RequestSummary
    attempt: int
    elapsed: float
    status: int | None
    size: int | None
    error: NexError | None


@dataclass(frozen=True, slots=True)
class RetryDetails:
    """A retry that is about to be waited for: why, and for how many seconds."""

    request: RequestSummary
    attempt: int
    delay: float
    error: NexError


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the user wants to hear of. Called on the loop; must not block. An exception in one is logged and counted."""

    on_request: Callable[[RequestDetails], object] | None = None
    on_response: Callable[[ResponseDetails], object] | None = None
    on_retry: Callable[[RetryDetails], object] | None = None

    def __post_init__(self) -> None:
        for name in ("on_request", "on_response", "on_retry"):
            hook = getattr(self, name)
            if hook is not None and (not callable(hook) or inspect.iscoroutinefunction(hook)):
                raise ConfigError(f"{name} must be an ordinary function: it is called on the loop, and not awaited")

    def __bool__(self) -> bool:
        return not (self.on_request is None and self.on_response is None and self.on_retry is None)


@dataclass(frozen=True)
class Settings:
    """The options a call starts from; a view of a client differs from it in nothing else."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    headers: dict[str, str] | None = None
    hooks: Hooks = field(default_factory=Hooks)
    observer: Observer | None = None
    plans: dict[Deadline, tuple[float, aiohttp.ClientTimeout]] = field(init=False, repr=False, compare=False)
    listened: bool = field(init=False, repr=False, compare=False)
    """Whether anybody wants to hear of calls."""

    def __post_init__(self) -> None:
        plans = {name: (self.total(name), self.attempt_timeout(name, self.total(name))) for name in _TOTAL}
        object.__setattr__(self, "plans", plans)
        object.__setattr__(self, "listened", bool(self.hooks) or self.observer is not None)

    def total(self, name: Deadline) -> float:
        """Return the seconds the whole call may take."""
        return _TOTAL[name] if self.timeouts.total is None else self.timeouts.total

    def attempt_timeout(self, name: Deadline, remaining: float) -> aiohttp.ClientTimeout:
        """Return the timeouts of an attempt that may take `remaining` seconds."""
        timeouts = self.timeouts
        # Who asks for more patience than usual means it for a silent server too.
        read = timeouts.read or max(_READ[name], timeouts.total or 0.0)
        # The sweeper ends a call at its deadline, with all its attempts. Waiting for a connection ends a hair before it, so
        # that a call which never got one is known to be unsent.
        pool = min(remaining * 0.999, remaining if timeouts.pool is None else timeouts.pool + timeouts.connect)
        return aiohttp.ClientTimeout(
            total=None, connect=pool, sock_connect=timeouts.connect, sock_read=read, ceil_threshold=1e12
        )

    def seconds_left(self, name: Deadline) -> float:
        """Return the seconds a call that begins now may take, an outer deadline included."""
        outer = outer_deadline.get()
        total = self.total(name)
        return total if outer is None else max(0.0, min(total, outer - asyncio.get_running_loop().time()))

    def merged(self, options: RequestOptions) -> Settings:
        """Return these settings with a caller's options laid over them. Raises `ConfigError`, `InvalidRequestError`."""
        changes: dict[str, Any] = {}
        unknown = options.keys() - RequestOptions.__annotations__.keys()
        if unknown:
            raise InvalidRequestError(f"unknown option {min(unknown)!r}", argument=min(unknown))
        if "timeout" in options:
            changes["timeouts"] = timeouts_from(options["timeout"], self.timeouts)
        if "retries" in options or "retry_ambiguous" in options:
            retries = options.get("retries", self.policy.retries)
            ambiguous = options.get("retry_ambiguous", self.policy.retry_ambiguous)
            changes["policy"] = msgspec.structs.replace(self.policy, retries=retries, retry_ambiguous=ambiguous)
        if "headers" in options or "idempotency_key" in options:
            changes["headers"] = {**(self.headers or {}), **_extra_headers(options)}
        return replace(self, **changes)


def timeouts_from(timeout: float | Timeouts | None, base: Timeouts) -> Timeouts:
    """Return what a caller's `timeout` means: a `Timeouts` as it is, a number as another total for `base`."""
    if isinstance(timeout, Timeouts):
        return timeout
    # Not `msgspec.structs.replace`: before msgspec 0.21 it checks nothing.
    return Timeouts(**{**msgspec.structs.asdict(base), "total": timeout})


def _extra_headers(options: RequestOptions) -> dict[str, str]:
    headers = dict(options.get("headers") or {})
    if "idempotency_key" in options:
        headers["Idempotency-Key"] = options["idempotency_key"]
    return wire.check_headers(headers)
