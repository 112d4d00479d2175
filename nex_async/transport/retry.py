"""A pure decision: what to do after an attempt failed. Nothing here waits, sends or keeps state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from ..errors import APIError, ConfigError, DecodeError, NexError, RateLimitError, Sent, TLSError, TransportError
from ..routes import RetryClass

__all__ = ["Ambiguous", "Decision", "Fail", "Failure", "Retry", "RetryPolicy", "classify", "decide"]

Failure: TypeAlias = Literal["unsent", "throttled", "refused", "fault", "lost", "conflict", "garbled", "final"]
"""What kind of failure an attempt met.

`unsent`: the server never saw it. `throttled`: 429. `refused`: 503 with Retry-After, the server did not act. `fault`: 408,
425, 5xx. `lost`: the reply did not arrive whole. `conflict`: 409. `garbled`: a success that is no JSON. `final`: an answer.
"""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how patiently failed calls are repeated. Times in seconds.

    `retries` is the number of repeats for every operation (0: one request, no more); None takes each class's own: 3 for
    reads, upserts and calls that certainly were not executed, 2 for updates, deletes and AI operations.
    """

    retries: int | None = None
    backoff_base: float = 0.25
    backoff_cap: float = 8.0
    throttle_base: float = 1.0
    throttle_cap: float = 30.0
    max_retry_after: float = 120.0
    """A longer Retry-After is raised at once, with `.retry_after`."""
    retry_ambiguous: bool = True
    """Whether a PATCH whose reply was lost is sent again; that may undo a change somebody made in between."""
    budget: float = 100.0
    """Size of the retry budget of a key: a fault costs 10, a 429 without Retry-After 5, a success at the first try earns 1.
    Where a 429 names its time, waiting for it costs nothing: the limiter keeps such calls in line."""

    def __post_init__(self) -> None:
        retries: object = self.retries
        if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 100):
            raise ConfigError(f"retries must be an integer from 0 to 100, not {retries!r}")
        for name in ("backoff_base", "backoff_cap", "throttle_base", "throttle_cap", "max_retry_after", "budget"):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
                raise ConfigError(f"{name} must be a number of at least 0, not {value!r}")


@dataclass(frozen=True, slots=True)
class Retry:
    """Send it again after `delay` seconds; doing so costs `cost` of the key's retry budget."""

    delay: float
    cost: float


@dataclass(frozen=True, slots=True)
class Fail:
    """Raise the error as it is."""


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Raise `OutcomeUnknownError`: the request may have taken effect, and repeating it could do so twice."""


Decision: TypeAlias = "Retry | Fail | Ambiguous"
_FAIL, _AMBIGUOUS = Fail(), Ambiguous()

_ATTEMPTS: dict[RetryClass, int] = {"read": 4, "upsert": 4, "state": 3, "create": 4, "costly": 3}
_FAULT_STATUSES = frozenset({408, 425})
_FAULT_COST, _THROTTLE_COST = 10.0, 5.0


def classify(error: NexError) -> Failure:
    """Return what kind of failure an error is."""
    if isinstance(error, RateLimitError):
        return "throttled"
    if isinstance(error, APIError):
        return _classify_status(error)
    if isinstance(error, TransportError):
        return _classify_transport(error)
    if isinstance(error, DecodeError) and error.path == "$":
        return "garbled"
    return "final"


def _classify_status(error: APIError) -> Failure:
    if error.status == 503 and error.retry_after is not None:
        return "refused"
    if error.status == 409:
        return "conflict"
    return "fault" if error.status in _FAULT_STATUSES or error.status >= 500 else "final"


_BY_SENT: dict[Sent, Failure] = {"no": "unsent", "maybe": "lost", "yes": "final"}


def _classify_transport(error: TransportError) -> Failure:
    if isinstance(error, TLSError) and error.certificate:
        return "final"
    return _BY_SENT[error.sent]


def decide(
    retry_class: RetryClass,
    failure: Failure,
    attempt: int,
    policy: RetryPolicy,
    *,
    retry_after: float | None = None,
    patch: bool = False,
    draw: float = 0.5,
) -> Decision:
    """Return what to do after attempt number `attempt` (1 for the first) ended in `failure`.

    `draw` is a random number in [0, 1), from which the jitter is made; `patch` marks a PATCH, for `retry_ambiguous`.
    """
    verdict = _may_repeat(retry_class, failure, attempt, policy, patch)
    if not isinstance(verdict, Retry):
        return verdict
    allowed = _ATTEMPTS[retry_class] if policy.retries is None else policy.retries + 1
    if attempt >= allowed:
        return _FAIL
    if retry_after is not None and failure in ("throttled", "refused", "fault"):
        if retry_after > policy.max_retry_after:
            return _FAIL
        # The limiter keeps in line who waits for a 429 to pass; nothing but the budget spares a server that fails.
        cost = 0.0 if failure == "throttled" else verdict.cost
        return Retry(retry_after + max(0.05, retry_after * 0.1 * draw), cost)
    return Retry(_backoff(failure, attempt, policy, draw), verdict.cost)


_ALWAYS: frozenset[Failure] = frozenset({"unsent", "throttled", "refused"})


def _may_repeat(retry_class: RetryClass, failure: Failure, attempt: int, policy: RetryPolicy, patch: bool) -> Decision:
    if failure == "final":
        return _FAIL
    cost = _THROTTLE_COST if failure == "throttled" else _FAULT_COST
    if failure in _ALWAYS:
        return Retry(0.0, cost)
    if failure == "conflict":
        return Retry(0.0, cost) if retry_class == "upsert" and attempt == 1 else _FAIL
    if failure == "garbled":
        return Retry(0.0, cost) if retry_class == "read" and attempt == 1 else _FAIL
    if retry_class in ("create", "costly"):
        return _AMBIGUOUS
    if patch and not policy.retry_ambiguous:
        return _AMBIGUOUS
    return Retry(0.0, cost)


def _backoff(failure: Failure, attempt: int, policy: RetryPolicy, draw: float) -> float:
    """Return full jitter up to a doubling ceiling; after a throttle at least half of it."""
    doublings = min(attempt - 1, 30)
    if failure == "throttled":
        ceiling = min(policy.throttle_cap, policy.throttle_base * 2.0**doublings)
        return float(ceiling * (0.5 + 0.5 * draw))
    return float(min(policy.backoff_cap, policy.backoff_base * 2.0**doublings) * draw)
