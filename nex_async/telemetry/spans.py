"""The span of one call, and the two durations: that of each request, and that of the whole call."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, Meter
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from ..errors import outcome_of, own_words
from ..routes import BY_NAME, Group
from ..transport.options import RequestDetails, ResponseDetails, RetryDetails
from ..transport.wire import check_headers

__all__ = ["CallSpan", "Facts", "Recorder", "facts_of"]

Attributes: TypeAlias = "dict[str, str | int | float | bool]"

_REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The buckets of the semantic conventions, in seconds."""
_CALL_BOUNDS = (*_REQUEST_BOUNDS, 30.0, 60.0, 120.0, 300.0)
"""A call may wait for rate limits, and for the slow AI operations."""


class Facts(NamedTuple):
    """What is known of every call of one operation at one server."""

    name: str
    span: Attributes
    request: Attributes
    call: Attributes


@lru_cache(maxsize=1024)
def facts_of(name: str, method: str, path: str, url: str) -> Facts:
    """Return what is known of the calls of an operation; `path` is the route's, `url` the base URL.

    The full URL, which the conventions ask for, has its parameters struck out, and no query: ids name people, queries
    quote them, and the token of a connect is a secret. Of a path that the caller wrote himself nothing is told.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    server: Attributes = {"server.address": parts.hostname or "", "server.port": port}
    operation: Attributes = {"nex.operation": name}
    request: Attributes = {"http.request.method": method, **server, **operation}
    known = name in BY_NAME
    template = parts.path.rstrip("/") + (path if known else "/v1/{path}")
    full = f"{parts.scheme}://{parts.netloc}{re.sub(r'{[^}]*}', 'REDACTED', template)}"
    span: Attributes = {**request, "url.full": full, "url.scheme": parts.scheme}
    if known:
        span["url.template"] = template
    return Facts(name, span, request, {**server, **operation})


class Recorder:
    """Where spans begin, and durations are noted."""

    def __init__(self, tracer: Tracer, meter: Meter, *, propagates: bool) -> None:
        self.tracer: Tracer = tracer
        self.propagates: bool = propagates
        self.requests: Histogram = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_REQUEST_BOUNDS,
        )
        self.calls: Histogram = meter.create_histogram(
            "nex.client.call.duration",
            unit="s",
            description="Duration of calls, with their retries and all waits.",
            explicit_bucket_boundaries_advisory=_CALL_BOUNDS,
        )


class CallSpan:
    """Follows one call: its span is the current one from here until `on_end`. See `CallObserver`."""

    __slots__ = ("_attempts", "_began", "_context", "_facts", "_recorder", "_span", "_status", "_token", "headers")

    def __init__(self, recorder: Recorder, facts: Facts) -> None:
        self._recorder = recorder
        self._facts = facts
        self._attempts = 0
        self._status: int | None = None
        self._span = recorder.tracer.start_span(facts.name, kind=SpanKind.CLIENT, attributes=facts.span)
        self._context = trace.set_span_in_context(self._span)
        self.headers: Mapping[str, str] = _carried(self._context) if recorder.propagates else {}
        self._began = time.perf_counter()
        self._token = context.attach(self._context)

    def on_request(self, details: RequestDetails) -> None:
        """Count an attempt."""
        self._attempts = details.attempt

    def on_response(self, details: ResponseDetails) -> None:
        """Note how long an attempt took, and how it ended."""
        attributes = self._facts.request.copy()
        self._status = details.status
        if details.status is not None:
            attributes["http.response.status_code"] = details.status
        if details.error is not None:
            attributes["error.type"] = outcome_of(details.error)
        self._recorder.requests.record(details.elapsed, attributes)

    def on_retry(self, details: RetryDetails) -> None:
        """Note a retry, and the wait before it."""
        if self._span.is_recording():
            attributes: Attributes = {
                "nex.attempt": details.attempt,
                "nex.delay": details.delay,
                "error.type": outcome_of(details.error),
            }
            self._span.add_event("nex.retry", attributes)

    def on_limit(self, group: Group, seconds: float) -> None:
        """Note a wait in line for a rate limit."""
        if self._span.is_recording():
            self._span.add_event("nex.rate_limit.wait", {"nex.limit": group, "nex.delay": seconds})

    def on_end(self, error: BaseException | None) -> None:
        """End the span, and note how long the call took."""
        try:
            if self._span.is_recording():
                self._span.set_attributes(self._outcome(error))
                if isinstance(error, Exception):
                    self._note(error)
            attributes = self._facts.call
            if error is not None:
                attributes = {**attributes, "error.type": type(error).__name__}
            self._recorder.calls.record(time.perf_counter() - self._began, attributes)
            self._span.end()
        finally:
            # A coroutine that the collector ends does so in a context where there is nothing to take back.
            if not isinstance(error, GeneratorExit) or context.get_current() is self._context:
                context.detach(self._token)

    def _outcome(self, error: BaseException | None) -> Attributes:
        found: Attributes = {"nex.attempts": self._attempts}
        if self._attempts > 1:
            found["http.request.resend_count"] = self._attempts - 1
        if self._status is not None:
            found["http.response.status_code"] = self._status
        if isinstance(error, Exception):
            found["error.type"] = outcome_of(error)
        elif error is not None:
            found["nex.cancelled"] = True
        return found

    def _note(self, error: Exception) -> None:
        kind = type(error)
        attributes: Attributes = {"exception.type": f"{kind.__module__}.{kind.__qualname__}"}
        words = own_words(error)
        if words is not None:
            attributes["exception.message"] = words
        self._span.add_event("exception", attributes)
        self._span.set_status(Status(StatusCode.ERROR, words or kind.__name__))


def _carried(current: Context) -> dict[str, str]:
    """Return the headers that tell the server of the span. Raises `InvalidRequestError` for what must not be sent."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context=current)
    return check_headers(carrier)
