"""The bookkeeping of one call: what each attempt met, what comes next, and the error that tells the whole story."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Literal, NoReturn, TypeAlias

import aiohttp

from ..errors import (
    APIError,
    Attempt,
    AuthenticationError,
    DeadlineExceeded,
    NexError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitError,
    RequestSummary,
    RetryBudgetExhausted,
    TransportError,
    outcome_of,
    printable,
)
from ..routes import Route
from . import log, wire
from .limiter import Limit
from .observer import CallObserver, observe, tell
from .options import RequestDetails, ResponseDetails, RetryDetails, Settings
from .pool import Binding
from .retry import Ambiguous, Retry, RetryPolicy, classify, decide
from .state import ClientState
from .wire import Request

__all__ = ["Call", "describe"]

_Hook: TypeAlias = Literal["on_request", "on_response", "on_retry"]

_MARGIN = 0.25
"""A wait that would leave less than this many seconds for the next attempt is not begun."""
_A_WAIT = 0.001
"""Seconds; less is the time it takes to ask."""


class Call:
    """The bookkeeping of a call that is not plain: retried, limited, bounded from outside or listened to."""

    __slots__ = (
        "attempts", "begun", "binding", "deadline", "last", "maybe_sent", "observed", "policy", "request", "route",
        "settings", "started", "state", "summary",
    )  # fmt: skip

    def __init__(
        self,
        state: ClientState,
        settings: Settings,
        route: Route[Any],
        request: Request,
        binding: Binding,
        started: float,
        until: float,
    ) -> None:
        self.state: ClientState = state
        self.settings: Settings = settings
        self.policy: RetryPolicy = settings.policy
        self.route: Route[Any] = route
        self.request: Request = request
        self.binding: Binding = binding
        self.started: float = started
        self.deadline: float = until
        self.begun: float = started
        self.attempts: list[Attempt] = []
        self.last: NexError | None = None
        self.maybe_sent: bool = False
        self.summary: RequestSummary = summary_of(route, request)
        self.observed: CallObserver | None = None

    @property
    def number(self) -> int:
        """The number of the attempt that is being made, or is next."""
        return len(self.attempts) + 1

    def begin(self) -> Request:
        """Tell who follows calls that one begins; return its request, with what he wants it to carry along."""
        self.observed, self.request = observe(self.state, self.settings, self.route, self.request)
        return self.request

    async def before_attempt(self) -> aiohttp.ClientTimeout:
        """Wait for the limit, and return the timeouts of the next attempt. Raises what forbids to send it."""
        keys, clock = self.binding.keys, self.binding.loop.time
        try:
            keys.latch.check(clock())
            limit = keys.limits[self.route.group]
            if limit.active:
                await self._stand_in_line(limit)
        except DeadlineExceeded as error:
            raise self.overdue(error.message, error.retry_after) from self.last
        except NexError as error:
            raise self._described(error) from self.last
        self.begun = clock()
        remaining = self.deadline - self.begun
        if remaining <= 0:
            raise self.overdue("the deadline passed before the call could be sent") from self.last
        self.state.counts.retries += self.number > 1
        self._tell("on_request", RequestDetails, self.number)
        return self.settings.attempt_timeout(self.route.deadline, remaining)

    async def _stand_in_line(self, limit: Limit) -> None:
        clock = self.binding.loop.time
        came = clock()
        try:
            await limit.acquire(self.deadline)
        finally:
            waited = clock() - came
            self.state.counts.limited += waited
            if self.observed is not None and waited >= _A_WAIT:
                tell(self.state, self.observed.on_limit, self.route.group, waited)

    async def pause(self, delay: float) -> None:
        """Wait between two attempts."""
        clock, counts = self.binding.loop.time, self.state.counts
        came = clock()
        try:
            await asyncio.sleep(delay)
        finally:
            if isinstance(self.last, RateLimitError):
                counts.limited += clock() - came
            else:
                counts.backoff += clock() - came

    def overdue(self, message: str, retry_after: float | None = None) -> NexError:
        """Return the error of a call whose deadline passed between its attempts, or will pass before the next."""
        reached = self.maybe_sent or isinstance(self.last, APIError)
        return self._described(DeadlineExceeded(message, "maybe" if reached else "no", retry_after))

    def after_success(self, reply: wire.Reply) -> None:
        """Settle the key's state after a reply that was decoded."""
        keys, now = self.binding.keys, self.binding.loop.time()
        keys.latch.reset()
        if not self.attempts:
            keys.budget.earn()
        number, elapsed, size = self.number, now - self.begun, len(reply.body)
        log.succeeded(self.route, reply.status, size, elapsed, number)
        self._tell("on_response", ResponseDetails, number, elapsed, reply.status, size, None)
        self.end(None)

    def end(self, error: BaseException | None) -> None:
        """Tell who follows the call that it is over."""
        if self.observed is not None:
            tell(self.state, self.observed.on_end, error)

    def after_failure(self, error: NexError) -> float | None:
        """Return how long to wait before the next attempt; None when the call succeeded after all. Raises otherwise."""
        now = self.binding.loop.time()
        number, elapsed = self.number, now - self.begun
        status = error.status if isinstance(error, APIError) else None
        log.failed(self.route, error, elapsed, number)
        self._tell("on_response", ResponseDetails, number, elapsed, status, None, error)
        self._learn(error, now)
        if isinstance(error, NotFoundError) and self.route.method == "DELETE" and self.maybe_sent:
            self.state.counts.succeeded += 1
            self.end(None)
            return None  # an attempt whose reply was lost has deleted it
        self.maybe_sent = self.maybe_sent or _may_have_acted(error)
        if not isinstance(error, DeadlineExceeded):
            self.last = describe(error, self.route, self.request)
        delay = self._verdict(error, number, now)
        self._note(error, now, delay)
        log.retrying(self.route, error, delay, number)
        self._tell("on_retry", RetryDetails, number, delay, error)
        self.begun = now + delay
        return delay

    def _learn(self, error: NexError, now: float) -> None:
        keys = self.binding.keys
        if isinstance(error, RateLimitError):
            pause = error.retry_after
            self.state.counts.throttled += 1
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
        return describe(error, self.route, self.request)

    def _note(self, error: NexError, now: float, delay: float | None) -> None:
        elapsed = max(0.0, now - self.begun)
        self.attempts.append(Attempt(self.number, self.begun - self.started, elapsed, outcome_of(error), delay))

    def _tell(self, name: _Hook, details: Callable[..., Any], *fields: Any) -> None:
        if not self.settings.listened:
            return
        made = details(self.summary, *fields)
        hook = getattr(self.settings.hooks, name)
        if hook is not None:
            tell(self.state, hook, made)
        if self.observed is not None:
            tell(self.state, getattr(self.observed, name), made)


def summary_of(route: Route[Any], request: Request) -> RequestSummary:
    """Return what a call asked for, fit for messages."""
    return RequestSummary(route.name, request.method, printable(request.target.partition("?")[0]))


def describe(error: NexError, route: Route[Any], request: Request) -> NexError:
    """Return the error with the name of the call it came from."""
    if error.request is None:
        error.request = summary_of(route, request)
    return error


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
    hint = _HINTS.get(route.name, "look whether it took effect before trying again")
    status = f"HTTP {error.status}" if isinstance(error, APIError) else type(error).__name__
    return OutcomeUnknownError(f"the call may or may not have taken effect ({status}: {error.message}); {hint}", hint=hint)
