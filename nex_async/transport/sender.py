"""The only place where routes, wire, retry, limiter and pool meet: the whole life of a call on one screen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypedDict, TypeVar, cast

import aiohttp
import msgspec

from ..config import Timeouts
from ..errors import (
    APIError,
    Attempt,
    AuthenticationError,
    ClientClosed,
    ClientLoopError,
    ConfigError,
    DeadlineExceeded,
    InvalidRequestError,
    NexError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitError,
    RequestSummary,
    RetryBudgetExhausted,
    Timeout,
    TransportError,
    printable,
)
from ..routes import Deadline, Route
from . import wire
from .pool import Binding, Tenant
from .retry import Ambiguous, Retry, RetryPolicy, classify, decide
from .wire import Id, Query, Request

__all__ = ["Hooks", "RequestDetails", "RequestOptions", "ResponseDetails", "RetryDetails", "Sender", "Settings", "deadline"]

T = TypeVar("T")
_log = logging.getLogger("nex_async")

_TOTAL: dict[Deadline, float] = {"standard": 60.0, "slow": 300.0, "stream": 60.0}
_READ: dict[Deadline, float] = {"standard": 30.0, "slow": 120.0, "stream": 75.0}
_MARGIN = 0.25
"""A wait that would leave less than this many seconds for the next attempt is not begun."""

_outer_deadline: ContextVar[float | None] = ContextVar("nex_async_deadline", default=None)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound every call made inside the block, with all their retries and waits, by one deadline `seconds` from now.

    Blocks nest; the nearest deadline holds. Calls raise `DeadlineExceeded`. Needs a running event loop.
    """
    until = asyncio.get_running_loop().time() + seconds
    outer = _outer_deadline.get()
    token = _outer_deadline.set(until if outer is None else min(outer, until))
    try:
        yield
    finally:
        _outer_deadline.reset(token)


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

    def __bool__(self) -> bool:
        return not (self.on_request is None and self.on_response is None and self.on_retry is None)


@dataclass(frozen=True)
class Settings:
    """The options a call starts from; a view of a client differs from it in nothing else."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    headers: dict[str, str] | None = None
    hooks: Hooks = field(default_factory=Hooks)
    plans: dict[Deadline, tuple[float, aiohttp.ClientTimeout]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        plans = {name: (self.total(name), self.attempt_timeout(name, self.total(name))) for name in _TOTAL}
        object.__setattr__(self, "plans", plans)

    def total(self, name: Deadline) -> float:
        """Return the seconds the whole call may take."""
        return _TOTAL[name] if self.timeouts.total is None else self.timeouts.total

    def attempt_timeout(self, name: Deadline, remaining: float) -> aiohttp.ClientTimeout:
        """Return the timeouts of an attempt that may take `remaining` seconds."""
        timeouts = self.timeouts
        read = _READ[name] if timeouts.read is None else timeouts.read
        # The sweeper ends a call at its deadline, with all its attempts. Waiting for a connection ends a hair before it, so
        # that a call which never got one is known to be unsent.
        pool = min(remaining * 0.999, remaining if timeouts.pool is None else timeouts.pool + timeouts.connect)
        return aiohttp.ClientTimeout(
            total=None, connect=pool, sock_connect=timeouts.connect, sock_read=read, ceil_threshold=1e12
        )

    def merged(self, options: RequestOptions) -> Settings:
        """Return these settings with a caller's options laid over them. Raises `ConfigError`, `InvalidRequestError`."""
        changes: dict[str, Any] = {}
        unknown = options.keys() - RequestOptions.__annotations__.keys()
        if unknown:
            raise InvalidRequestError(f"unknown option {min(unknown)!r}", argument=min(unknown))
        if "timeout" in options:
            changes["timeouts"] = _timeouts(options["timeout"])
        if "retries" in options or "retry_ambiguous" in options:
            retries = options.get("retries", self.policy.retries)
            ambiguous = options.get("retry_ambiguous", self.policy.retry_ambiguous)
            changes["policy"] = msgspec.structs.replace(self.policy, retries=retries, retry_ambiguous=ambiguous)
        if "headers" in options or "idempotency_key" in options:
            changes["headers"] = {**(self.headers or {}), **_extra_headers(options)}
        return replace(self, **changes)


def _timeouts(timeout: float | Timeouts) -> Timeouts:
    return timeout if isinstance(timeout, Timeouts) else Timeouts(total=timeout)


def _extra_headers(options: RequestOptions) -> dict[str, str]:
    headers = dict(options.get("headers") or {})
    if "idempotency_key" in options:
        headers["Idempotency-Key"] = options["idempotency_key"]
    return wire.check_headers(headers)


class ClientState:
    """What a client and all its views share: the tenant, and the calls under way, for which closing waits."""

    def __init__(self, tenant: Tenant | None) -> None:
        self.tenant = tenant
        self.closed: bool = False
        self.hook_errors = 0
        self.tasks: set[asyncio.Task[Any]] = set()
        self._idle: list[asyncio.Future[None]] = []

    def enter(self) -> asyncio.Task[Any]:
        """Note the running task as busy. Raises `ClientClosed`, `ClientLoopError` outside a task."""
        if self.closed:
            raise ClientClosed("the client is closed")
        task = asyncio.current_task()
        if task is None:
            raise ClientLoopError("a call must be awaited inside an asyncio task")
        self.tasks.add(task)
        return task

    def leave(self, task: asyncio.Task[Any]) -> None:
        """Note the task as done with its call."""
        self.tasks.discard(task)
        if self._idle and not self.tasks:
            for waiter in self._idle:
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)
            self._idle.clear()

    async def drain(self, seconds: float) -> None:
        """Refuse new calls, wait up to `seconds` for those under way, then end the rest with `ClientClosed`."""
        self.closed = True
        this = asyncio.current_task()
        others = {task for task in self.tasks if task is not this}
        if others and seconds > 0:
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await asyncio.wait([waiter], timeout=seconds)
        for task in [task for task in self.tasks if task is not this]:
            task.get_loop().call_soon_threadsafe(self._end, task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        if task in self.tasks:  # its call may have ended meanwhile, and the task is not ours to cancel
            task.cancel(_CLOSING)


_CLOSING = "nex_async client closed"


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Sender:
    """Sends calls for one tenant with one set of settings."""

    __slots__ = ("settings", "state")

    def __init__(self, state: ClientState, settings: Settings) -> None:
        self.state: ClientState = state
        self.settings: Settings = settings

    def with_settings(self, settings: Settings) -> Sender:
        """Return a sender that differs in its settings only."""
        return Sender(self.state, settings)

    async def send(
        self,
        route: Route[T],
        path: tuple[Id, ...] = (),
        query: Query | None = None,
        body: Any = msgspec.UNSET,
        options: RequestOptions | None = None,
    ) -> T:
        """Send one call and return its decoded reply, retrying as the policy allows. Raises `NexError`."""
        settings = self.settings.merged(options) if options else self.settings
        request = wire.build(route, path, query, body, settings.headers)
        state = self.state
        task = state.enter()
        binding: Binding | None = None
        call: _Call | None = None
        failure: NexError
        try:
            binding = self.bind()
            keys, clock = binding.keys, binding.loop.time
            started = clock()
            total, timeout = settings.plans[route.deadline]
            outer = _outer_deadline.get()
            until = started + total if outer is None else min(started + total, outer)
            limit = keys.limits[route.group]
            sweeper = binding.connections.sweeper
            sweeper.watch(task, until)
            if outer is not None or limit.active or keys.latch.armed or settings.hooks:
                call = _Call(self, settings, route, request, binding, started, until)
            while True:
                if call is not None:
                    timeout = await call.before_attempt()
                try:
                    reply = await binding.exchange(request, timeout)
                    value = wire.read(route, reply)
                except NexError as error:
                    failure = error
                except asyncio.CancelledError:
                    if not sweeper.took(task):
                        raise
                    failure = DeadlineExceeded("the call's deadline passed before its reply was complete", sent="maybe")
                else:
                    limit.succeeded(clock())
                    if call is None:
                        keys.budget.earn()
                    else:
                        call.after_success(reply)
                    return value
                if call is None:
                    call = _Call(self, settings, route, request, binding, started, until)
                delay = call.after_failure(failure)
                if delay is None:
                    return cast(T, None)
                await asyncio.sleep(delay)
        except asyncio.CancelledError as cancelled:
            if call is not None and call.binding.connections.sweeper.took(task):
                raise call.overdue("the call's deadline passed during a wait") from call.last
            self._cancelled(cancelled, task, route, request)
            raise
        finally:
            if binding is not None:
                binding.connections.sweeper.forget(task)
            state.leave(task)

    def bind(self) -> Binding:
        """Return the tenant's binding to the running loop. Raises `ConfigError` before an embedded Nex was started."""
        tenant = self.state.tenant
        if tenant is None:
            raise ConfigError("the embedded Nex is not running yet; use `async with Nex.local() as nex:`")
        return tenant.bind()

    def _cancelled(
        self, cancelled: asyncio.CancelledError, task: asyncio.Task[Any], route: Route[Any], request: Request
    ) -> None:
        """Turn our own cancellation on close into `ClientClosed`; note a write whose outcome nobody will learn."""
        if self.state.closed and cancelled.args == (_CLOSING,):
            uncancel = getattr(task, "uncancel", None)  # Python 3.11 counts cancellations
            if uncancel is not None:
                uncancel()
            raise _describe(ClientClosed("the client was closed during the call"), route, request) from None
        if route.retry in ("create", "costly"):
            _log.info("%s was cancelled; whether it took effect is unknown", route.name)


class _Call:
    """The bookkeeping of a call that is not plain: retried, limited, bounded from outside or listened to."""

    __slots__ = (
        "attempts", "begun", "binding", "deadline", "last", "maybe_sent", "policy", "request", "route", "sender", "settings",
        "started", "summary",
    )  # fmt: skip

    def __init__(
        self,
        sender: Sender,
        settings: Settings,
        route: Route[Any],
        request: Request,
        binding: Binding,
        started: float,
        until: float,
    ) -> None:
        self.sender = sender
        self.settings = settings
        self.policy = settings.policy
        self.route = route
        self.request = request
        self.binding = binding
        self.started = started
        self.deadline = until
        self.begun = started
        self.attempts: list[Attempt] = []
        self.last: NexError | None = None
        self.maybe_sent = False
        self.summary = summary_of(route, request)

    async def before_attempt(self) -> aiohttp.ClientTimeout:
        """Wait for the limit, and return the timeouts of the next attempt. Raises what forbids to send it."""
        keys, clock = self.binding.keys, self.binding.loop.time
        try:
            keys.latch.check(clock())
            limit = keys.limits[self.route.group]
            if limit.active:
                await limit.acquire(self.deadline)
        except DeadlineExceeded as error:
            raise self.overdue(error.message) from self.last
        except NexError as error:
            raise self._described(error) from self.last
        self.begun = clock()
        remaining = self.deadline - self.begun
        if remaining <= 0:
            raise self.overdue("the deadline passed before the call could be sent") from self.last
        self._tell(self.settings.hooks.on_request, RequestDetails, len(self.attempts) + 1)
        return self.settings.attempt_timeout(self.route.deadline, remaining)

    def overdue(self, message: str) -> NexError:
        """Return the error of a call whose deadline passed between its attempts, or will pass before the next."""
        reached = self.maybe_sent or isinstance(self.last, APIError)
        return self._described(DeadlineExceeded(message, sent="maybe" if reached else "no"))

    def after_success(self, reply: wire.Reply) -> None:
        """Settle the key's state after a reply that was decoded."""
        keys, now = self.binding.keys, self.binding.loop.time()
        keys.latch.reset()
        if not self.attempts:
            keys.budget.earn()
        number = len(self.attempts) + 1
        elapsed = now - self.begun
        self._tell(self.settings.hooks.on_response, ResponseDetails, number, elapsed, reply.status, len(reply.body), None)

    def after_failure(self, error: NexError) -> float | None:
        """Return how long to wait before the next attempt; None when the call succeeded after all. Raises otherwise."""
        now = self.binding.loop.time()
        number = len(self.attempts) + 1
        status = error.status if isinstance(error, APIError) else None
        self._tell(self.settings.hooks.on_response, ResponseDetails, number, now - self.begun, status, None, error)
        self._learn(error, now)
        if isinstance(error, NotFoundError) and self.route.method == "DELETE" and self.maybe_sent:
            return None  # an attempt whose reply was lost has deleted it
        self.maybe_sent = self.maybe_sent or _may_have_acted(error)
        if not isinstance(error, DeadlineExceeded):
            self.last = _describe(error, self.route, self.request)
        delay = self._verdict(error, number, now)
        self._note(error, now, delay)
        _log.info("retrying %s in %.2f s: attempt %d ended with %s", self.route.name, delay, number, _outcome(error))
        self._tell(self.settings.hooks.on_retry, RetryDetails, number, delay, error)
        self.begun = now + delay
        return delay

    def _learn(self, error: NexError, now: float) -> None:
        keys = self.binding.keys
        if isinstance(error, RateLimitError):
            pause = error.retry_after
            keys.limits[self.route.group].throttled(now, None if pause is None else min(pause, 3600.0))
        elif isinstance(error, AuthenticationError):
            keys.latch.failed(now)
        elif isinstance(error, APIError):
            keys.latch.reset()
            if error.status < 500:
                keys.limits[self.route.group].succeeded(now)  # an answer, if not the one hoped for

    def _verdict(self, error: NexError, number: int, now: float) -> float:
        retry_after = error.retry_after if isinstance(error, APIError) else None
        decision = decide(
            self.route.retry,
            classify(error),
            number,
            self.policy,
            retry_after=retry_after,
            patch=self.request.method == "PATCH",
            draw=random.random(),
        )
        if isinstance(decision, Ambiguous):
            self._raise(_outcome_unknown(self.route, error), error, now)
        if not isinstance(decision, Retry):
            if _may_have_acted(error) and self.route.retry in ("create", "costly"):
                self._raise(_outcome_unknown(self.route, error), error, now)
            self._raise(error, None, now)
        if now + decision.delay + _MARGIN > self.deadline:
            if retry_after is not None:
                self._raise(error, None, now)  # the server's own word tells the caller more than our deadline
            late = f"the call's deadline leaves no time for a retry in {decision.delay:.2f} s"
            self._raise(self.overdue(late), error, now)
        if not self.binding.keys.budget.spend(decision.cost):
            self._raise(RetryBudgetExhausted("no retry: the key's retry budget is spent"), error, now)
        return decision.delay

    def _raise(self, error: NexError, cause: NexError | None, now: float) -> NoReturn:
        self._note(cause or error, now, None)
        if self.maybe_sent and isinstance(error, TransportError) and error.sent == "no":
            error.sent = "maybe"  # an earlier attempt may have arrived
        if cause is None and isinstance(error, DeadlineExceeded):
            cause = self.last
        raise self._described(error) from cause and self._described(cause)

    def _described(self, error: NexError) -> NexError:
        error.attempts = tuple(self.attempts)
        return _describe(error, self.route, self.request)

    def _note(self, error: NexError, now: float, delay: float | None) -> None:
        number = len(self.attempts) + 1
        elapsed = max(0.0, now - self.begun)
        self.attempts.append(Attempt(number, self.begun - self.started, elapsed, _outcome(error), delay))

    def _tell(self, hook: Callable[[Any], object] | None, details: Callable[..., Any], *fields: Any) -> None:
        if hook is None:
            return
        try:
            hook(details(self.summary, *fields))
        except Exception:
            self.sender.state.hook_errors += 1
            _log.exception("a hook raised; the call goes on")


def summary_of(route: Route[Any], request: Request) -> RequestSummary:
    """Return what a call asked for, fit for messages."""
    return RequestSummary(route.name, request.method, printable(request.target.partition("?")[0]))


def _describe(error: NexError, route: Route[Any], request: Request) -> NexError:
    if error.request is None:
        error.request = summary_of(route, request)
    return error


def _outcome(error: NexError) -> str:
    return str(error.status) if isinstance(error, APIError) and error.status else type(error).__name__


def _may_have_acted(error: NexError) -> bool:
    if isinstance(error, (TransportError, DeadlineExceeded)):
        return error.sent == "maybe"
    return isinstance(error, APIError) and classify(error) == "fault"


_HINTS = {
    "createRecord": "look for it by a unique attribute, or use records.upsert, which can be repeated",
    "createTask": "look for it with tasks.list(search=title)",
    "createNote": "look for it with notes.list(entity_id=...)",
    "addListMember": "use lists.upsert_member, which can be repeated",
    "createObjectDefinition": "look for it with objects.get(slug)",
    "createAttributeDefinition": "look for it with objects.get(slug).attribute(slug)",
    "createList": "look for it with lists.list(object_slug)",
}


def _outcome_unknown(route: Route[Any], error: NexError) -> OutcomeUnknownError:
    what = "timed out" if isinstance(error, Timeout) else "failed"
    hint = _HINTS.get(route.name, "look whether it took effect before trying again")
    return OutcomeUnknownError(f"the call {what} after it may have reached the server; {hint}", hint=hint)
