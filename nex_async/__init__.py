"""nex_async: the async-first Python SDK for the Nex Developer API.

The public names, loaded when first used: importing the package loads neither aiohttp nor msgspec.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from msgspec import UNSET

    from .client import Nex
    from .config import Secret, Timeouts
    from .errors import (
        APIError,
        Attempt,
        AuthenticationError,
        BadRequestError,
        BodyTooLarge,
        BodyTruncated,
        ClientClosed,
        ClientLoopError,
        ConfigError,
        ConflictError,
        ConnectError,
        ConnectionLost,
        DeadlineExceeded,
        DecodeError,
        DNSError,
        GoneError,
        InvalidRequestError,
        JobFailed,
        JobTimeout,
        NexError,
        NotFoundError,
        OutcomeUnknownError,
        PaginationError,
        PayloadTooLargeError,
        PermissionDeniedError,
        ProtocolError,
        ProxyError,
        RateLimitError,
        RateLimitQueueFull,
        RequestSummary,
        RetryBudgetExhausted,
        Sent,
        ServerError,
        StorageCorrupt,
        StorageError,
        StorageFull,
        StorageLocked,
        Timeout,
        TLSError,
        TransportError,
        TruncatedResultWarning,
        UnprocessableError,
    )
    from .feeds.insights import InsightEvent, InsightFeed
    from .feeds.jobs import Job
    from .feeds.sse import ServerSentEvent, SSEDecoder
    from .models import Insight, Note, Object, Record, Task, TypedRecord
    from .paging import Page, Pager
    from .routes import Route
    from .transport.options import RequestDetails, RequestOptions, ResponseDetails, RetryDetails, deadline
    from .transport.pool import SessionPool
    from .transport.retry import RetryPolicy

__all__ = [
    "UNSET",
    "APIError",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "BodyTooLarge",
    "BodyTruncated",
    "ClientClosed",
    "ClientLoopError",
    "ConfigError",
    "ConflictError",
    "ConnectError",
    "ConnectionLost",
    "DNSError",
    "DeadlineExceeded",
    "DecodeError",
    "GoneError",
    "Insight",
    "InsightEvent",
    "InsightFeed",
    "InvalidRequestError",
    "Job",
    "JobFailed",
    "JobTimeout",
    "Nex",
    "NexError",
    "NotFoundError",
    "Note",
    "Object",
    "OutcomeUnknownError",
    "Page",
    "Pager",
    "PaginationError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "ProtocolError",
    "ProxyError",
    "RateLimitError",
    "RateLimitQueueFull",
    "Record",
    "RequestDetails",
    "RequestOptions",
    "RequestSummary",
    "ResponseDetails",
    "RetryBudgetExhausted",
    "RetryDetails",
    "RetryPolicy",
    "Route",
    "SSEDecoder",
    "Secret",
    "Sent",
    "ServerError",
    "ServerSentEvent",
    "SessionPool",
    "StorageCorrupt",
    "StorageError",
    "StorageFull",
    "StorageLocked",
    "TLSError",
    "Task",
    "Timeout",
    "Timeouts",
    "TransportError",
    "TruncatedResultWarning",
    "TypedRecord",
    "UnprocessableError",
    "__version__",
    "deadline",
]

_HOME = {
    "Nex": ".client",
    "Secret": ".config",
    "Timeouts": ".config",
    "APIError": ".errors",
    "Attempt": ".errors",
    "AuthenticationError": ".errors",
    "BadRequestError": ".errors",
    "BodyTooLarge": ".errors",
    "BodyTruncated": ".errors",
    "ClientClosed": ".errors",
    "ClientLoopError": ".errors",
    "ConfigError": ".errors",
    "ConflictError": ".errors",
    "ConnectError": ".errors",
    "ConnectionLost": ".errors",
    "DNSError": ".errors",
    "DeadlineExceeded": ".errors",
    "DecodeError": ".errors",
    "GoneError": ".errors",
    "InvalidRequestError": ".errors",
    "JobFailed": ".errors",
    "JobTimeout": ".errors",
    "NexError": ".errors",
    "NotFoundError": ".errors",
    "OutcomeUnknownError": ".errors",
    "PaginationError": ".errors",
    "PayloadTooLargeError": ".errors",
    "PermissionDeniedError": ".errors",
    "ProtocolError": ".errors",
    "ProxyError": ".errors",
    "RateLimitError": ".errors",
    "RateLimitQueueFull": ".errors",
    "RequestSummary": ".errors",
    "RetryBudgetExhausted": ".errors",
    "Sent": ".errors",
    "ServerError": ".errors",
    "StorageCorrupt": ".errors",
    "StorageError": ".errors",
    "StorageFull": ".errors",
    "StorageLocked": ".errors",
    "TLSError": ".errors",
    "Timeout": ".errors",
    "TransportError": ".errors",
    "TruncatedResultWarning": ".errors",
    "UnprocessableError": ".errors",
    "InsightEvent": ".feeds.insights",
    "InsightFeed": ".feeds.insights",
    "Job": ".feeds.jobs",
    "SSEDecoder": ".feeds.sse",
    "ServerSentEvent": ".feeds.sse",
    "Insight": ".models",
    "Note": ".models",
    "Object": ".models",
    "Record": ".models",
    "Task": ".models",
    "TypedRecord": ".models",
    "Page": ".paging",
    "Pager": ".paging",
    "Route": ".routes",
    "SessionPool": ".transport.pool",
    "RetryPolicy": ".transport.retry",
    "RequestDetails": ".transport.options",
    "RequestOptions": ".transport.options",
    "ResponseDetails": ".transport.options",
    "RetryDetails": ".transport.options",
    "deadline": ".transport.options",
    "UNSET": "msgspec",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
