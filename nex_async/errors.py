"""Every error of the SDK, by meaning.

::

    NexError
    ├── ConfigError                 a setting cannot be right (also ValueError)
    ├── InvalidRequestError         an argument cannot be right; nothing was sent (also ValueError)
    │   └── MappingError            rows do not fit the object they are for; lists every problem
    ├── ClientClosed                the client was closed
    ├── ClientLoopError             the client was used in a way its event loop forbids
    ├── DeadlineExceeded            the call's deadline passed (also TimeoutError)
    ├── RateLimitQueueFull          too many calls already wait for the local rate limit
    ├── RetryBudgetExhausted        a retry was due, but the key's retry budget is empty
    ├── OutcomeUnknownError         a write may or may not have taken effect
    ├── PaginationError             the server's paging contradicts itself
    ├── DecodeError                 a reply is not what the operation promises
    ├── JobFailed                   a job ended in failure
    ├── JobExpired                  a job's id is known no more
    ├── JobTimeout                  a job did not end in time (also TimeoutError)
    ├── FeedClosed                  a feed or a queue behind it has ended; nothing more comes
    ├── FeedOverflow                a reader of a feed fell too far behind, and had asked to be told so
    ├── GapError                    insights may be missing from a feed that was asked to raise then
    ├── SinkUnavailable             what insights are forwarded to cannot take them at present
    ├── CheckpointError             a checkpoint cannot be used here
    │   ├── TenantMismatch          it belongs to another workspace
    │   └── SourceChanged           the rows are not those the journal was begun with
    ├── BulkError                   a bulk run stopped before its end; what was done is kept, and it can go on
    │   ├── TooManyDeadLetters      so many rows failed that something general must be wrong
    │   └── BulkStalled             nothing has succeeded for too long
    ├── StorageError                a local SQLite file
    │   ├── StorageLocked           another process holds it
    │   ├── StorageCorrupt          it is damaged
    │   └── StorageFull             the disk is full
    ├── TransportError              no complete reply arrived; ``sent`` says whether the request may have left
    │   ├── ConnectError
    │   │   ├── DNSError
    │   │   ├── TLSError
    │   │   └── ProxyError
    │   ├── ConnectionLost
    │   ├── ProtocolError
    │   ├── BodyTruncated
    │   ├── BodyTooLarge
    │   └── Timeout                 ``phase`` is pool, connect, headers or body (also TimeoutError)
    └── APIError                    the server answered with an error status
        ├── BadRequestError         400
        ├── AuthenticationError     401
        ├── PermissionDeniedError   403, names the scope the operation needs
        ├── NotFoundError           404
        ├── ConflictError           409
        ├── GoneError               410
        ├── PayloadTooLargeError    413
        ├── UnprocessableError      422
        ├── RateLimitError          429
        └── ServerError             5xx

Errors carry plain data, pickle, and never hold the API key: text is redacted on the way in.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = [
    "APIError",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "BodyTooLarge",
    "BodyTruncated",
    "BulkError",
    "BulkStalled",
    "CheckpointError",
    "ClientClosed",
    "ClientLoopError",
    "ConfigError",
    "ConflictError",
    "ConnectError",
    "ConnectionLost",
    "DNSError",
    "DeadlineExceeded",
    "DecodeError",
    "FeedClosed",
    "FeedOverflow",
    "GapError",
    "GoneError",
    "InvalidRequestError",
    "JobExpired",
    "JobFailed",
    "JobTimeout",
    "MappingError",
    "NexError",
    "NotFoundError",
    "OutcomeUnknownError",
    "PaginationError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "ProtocolError",
    "ProxyError",
    "RateLimitError",
    "RateLimitQueueFull",
    "RequestSummary",
    "RetryBudgetExhausted",
    "Sent",
    "ServerError",
    "SinkUnavailable",
    "SourceChanged",
    "StorageCorrupt",
    "StorageError",
    "StorageFull",
    "StorageLocked",
    "TLSError",
    "TenantMismatch",
    "Timeout",
    "TooManyDeadLetters",
    "TransportError",
    "TruncatedResultWarning",
    "UnprocessableError",
    "outcome_of",
    "own_words",
    "printable",
    "redact",
]

Sent: TypeAlias = Literal["no", "maybe", "yes"]
"""Whether the server may have seen the request: the only input of the write-retry rule."""

# A key starts a word, so that "ask-me" stays what it is, and may hold whatever a header takes but quotes and brackets.
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-|nex_dev_)[^\s\"'<>(){}\[\],;\\]{3,}|(?i:bearer)\s+[^\s\"',;]{4,}|NEX_API_KEY=[^\s\"',;]+"
)
_MAY_HOLD_KEY = re.compile(rb"sk-|nex_dev_|(?i:bearer)|NEX_API_KEY")


def redact(text: str) -> str:
    """Return `text` with everything that looks like an API key masked."""
    return _KEY.sub("[redacted]", text)


def printable(text: str, limit: int = 200) -> str:
    """Return untrusted `text` fit for a log line: keys masked, control and bidi characters escaped, capped in length."""
    shown = redact(text[: limit * 4])
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


class RequestSummary(NamedTuple):
    """What was asked, without its body: operation id, method and path."""

    operation: str
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.operation} ({self.method} {self.path})"


class Attempt(NamedTuple):
    """One request that went (or failed to go) over the wire."""

    number: int
    """1 for the first try."""
    started: float
    """Seconds after the call began."""
    elapsed: float
    """Seconds the attempt took."""
    outcome: str
    """An HTTP status or the name of an error class."""
    delay: float | None
    """Seconds waited before the next attempt; None when there was none."""


def _rebuild(cls: type[NexError], message: str, state: dict[str, Any]) -> NexError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class NexError(Exception):
    """Base of every error the SDK raises.

    `request` names the call, `attempts` lists every request that was made for it. An error met while paging carries
    `checkpoint`, from which `resume=` goes on.
    """

    request: RequestSummary | None = None
    attempts: tuple[Attempt, ...] = ()
    checkpoint: str | None = None

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))

    @property
    def message(self) -> str:
        """What went wrong, in one sentence, without the name of the call."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return f"{self.request}: {self.message}" if self.request else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__.copy())


class ConfigError(NexError, ValueError):
    """A setting that cannot be right: no key, a key with control characters, an `http://` base URL to a public host."""


class InvalidRequestError(NexError, ValueError):
    """An argument that cannot be right. Raised before anything is sent; `argument` names it."""

    def __init__(self, message: str = "", argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class MappingError(InvalidRequestError):
    """Rows do not fit the object they are for. Nothing was sent; `problems` lists what is wrong, one sentence each."""

    def __init__(self, message: str = "", argument: str | None = "rows", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, argument)
        self.problems: tuple[str, ...] = problems


class ClientClosed(NexError):
    """The client was closed before or during the call."""


class ClientLoopError(NexError):
    """The client was used in a way that its event loop does not allow."""


class DeadlineExceeded(NexError, TimeoutError):
    """The deadline of the whole call passed, or would have passed during the next wait.

    `__cause__` is the last failure, if there was one. `sent` tells whether a request may have reached the server.
    `retry_after` is in how many seconds the key's rate limit has room, where that is what the call would have waited for.
    """

    def __init__(self, message: str = "", sent: Sent = "no", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.sent: Sent = sent
        self.retry_after = retry_after


class RateLimitQueueFull(NexError):
    """Too many calls already wait for this client's own rate limit; the newest is refused. Nothing was sent."""


class RetryBudgetExhausted(NexError):
    """A retry was due, but this key's retry budget is spent. `__cause__` is the real error."""


class OutcomeUnknownError(NexError):
    """A request that must not be repeated blindly may or may not have taken effect.

    `__cause__` is what happened. `hint` says where to look before trying again.
    """

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class PaginationError(NexError):
    """The server's paging contradicts itself: a repeated cursor, an offset that does not move, pages without end."""


class DecodeError(NexError):
    """A reply, or one row of it, is not what the operation promises.

    `path` is the JSON path of the fault, `raw` the first 4 KiB of the offending bytes, `status` the HTTP status.
    A row's error raised by a pager carries `checkpoint`, from which `resume=` goes on after the row's page; one raised by
    `collect()` carries the good rows in `rows`.
    """

    def __init__(self, message: str = "", path: str = "$", raw: bytes = b"", status: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.raw: bytes = _redacted_bytes(raw[:4096])
        self.status = status
        self.rows: list[Any] | None = None


def _redacted_bytes(raw: bytes) -> bytes:
    if not _MAY_HOLD_KEY.search(raw):
        return raw
    return redact(raw.decode("utf-8", "replace")).encode()


class JobFailed(NexError):
    """A job ended in failure. `job_id` names it, `payload` is the last state the server sent."""

    def __init__(self, message: str = "", job_id: str | None = None, payload: Any = None) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.payload = payload


class JobExpired(NexError):
    """The server knows a job no more (HTTP 410): it, or the token it was followed by, is too old. `job_id` names it."""

    def __init__(self, message: str = "", job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobTimeout(NexError, TimeoutError):
    """A job did not end before the caller's deadline; it goes on at the server. `job_id` is what `attach` takes."""

    def __init__(self, message: str = "", job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class FeedClosed(NexError):
    """A feed, or a queue behind it, has ended; nothing more comes."""


class FeedOverflow(NexError):
    """A reader of a feed fell further behind than its queue holds, and had asked for `overflow="raise"`."""


class GapError(NexError):
    """Insights may be missing, and the feed was asked to raise then. `gap` says from when to when, and why."""

    def __init__(self, message: str = "", gap: Any = None) -> None:
        super().__init__(message)
        self.gap = gap


class SinkUnavailable(NexError):
    """What insights are forwarded to cannot take them at present; `retry_after` is its wish in seconds, if it has one."""

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CheckpointError(NexError):
    """A checkpoint cannot be used here: it was made by another version, or for another purpose."""


class TenantMismatch(CheckpointError):
    """A checkpoint belongs to another workspace than the key, or the workspace changed under a running feed."""


class SourceChanged(CheckpointError):
    """The rows given are not those the journal was begun with. Nothing was sent; `force=True` begins anew.

    Also where the attributes of an object changed while a source of dlt read it: nothing was loaded, run it again.
    """


class BulkError(NexError):
    """A bulk run stopped before its end. What was done is kept; with a journal, the same call goes on from there.

    `report` is what the run had come to.
    """

    def __init__(self, message: str = "", report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class TooManyDeadLetters(BulkError):
    """So many rows failed that something general must be wrong, such as the mapping; the first are in `report.failures`."""


class BulkStalled(BulkError):
    """Nothing has succeeded for longer than `patience`. `__cause__` is the last failure."""


class StorageError(NexError):
    """A local SQLite file could not be used."""


class StorageLocked(StorageError):
    """Another process holds the file."""


class StorageCorrupt(StorageError):
    """The file is damaged, or of another kind."""


class StorageFull(StorageError):
    """The disk is full; what was committed before is safe."""


class TransportError(NexError):
    """No complete reply arrived. `sent` tells whether the server may have seen the request."""

    def __init__(self, message: str = "", sent: Sent = "maybe") -> None:
        super().__init__(message)
        self.sent: Sent = sent


class ConnectError(TransportError):
    """No connection: refused, unreachable, or reset while it was being made. Nothing was sent."""


class DNSError(ConnectError):
    """The host's name could not be resolved."""


class TLSError(ConnectError):
    """The TLS handshake failed. `certificate` is True when the server's certificate was not accepted."""

    def __init__(self, message: str = "", sent: Sent = "no", certificate: bool = False) -> None:
        super().__init__(message, sent)
        self.certificate = certificate


class ProxyError(ConnectError):
    """The proxy refused, or died before the tunnel stood."""


class ConnectionLost(TransportError):
    """The connection broke after the request may have left."""


class ProtocolError(TransportError):
    """The peer does not speak HTTP as it should, or answered with an unexpected redirect."""


class BodyTruncated(TransportError):
    """The reply's body ended early."""


class BodyTooLarge(TransportError):
    """The reply's body, as sent or once decompressed, is larger than the configured cap."""


Phase: TypeAlias = Literal["pool", "connect", "headers", "body"]


class Timeout(TransportError, TimeoutError):
    """One phase of an attempt took too long: waiting for a free connection, connecting, the headers or the body."""

    def __init__(self, message: str = "", sent: Sent = "maybe", phase: Phase = "headers") -> None:
        super().__init__(message, sent)
        self.phase: Phase = phase


class APIError(NexError):
    """The server answered with an error.

    `status` is the HTTP status, `code` and `message` are the server's words, `retry_after` is in seconds, `body` the
    first 64 KiB of the reply, `request_id` the server's name for the request where it gave one.
    """

    def __init__(
        self,
        message: str = "",
        status: int = 0,
        code: int | str | None = None,
        body: bytes = b"",
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.body: bytes = _redacted_bytes(body[: 64 * 1024])
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{super().__str__()} [HTTP {self.status}]"


class BadRequestError(APIError):
    """400: the server refuses the request's contents."""


class AuthenticationError(APIError):
    """401: the key is missing, wrong or expired."""


class PermissionDeniedError(APIError):
    """403: the key lacks a scope. `scopes` are the candidates for the operation; a new scope needs a new key."""

    scopes: tuple[str, ...] = ()


class NotFoundError(APIError):
    """404: no such slug or id."""


class ConflictError(APIError):
    """409: the request contradicts the server's state."""


class GoneError(APIError):
    """410: the thing existed and has expired."""


class PayloadTooLargeError(APIError):
    """413: the request's body is too large."""


class UnprocessableError(APIError):
    """422: the request is well formed, and refused all the same."""


class RateLimitError(APIError):
    """429: too many requests; `retry_after` is the server's wish in seconds, if it gave a usable one."""


class ServerError(APIError):
    """5xx: the server, or a proxy before it, failed."""


class TruncatedResultWarning(UserWarning):
    """The server returned exactly as many rows as it ever does, and has no way to ask for more."""


_OWN_WORDS = (
    BodyTooLarge, BodyTruncated, ClientClosed, ConfigError, ConnectError, ConnectionLost, DeadlineExceeded,
    RateLimitQueueFull, RetryBudgetExhausted, StorageError, Timeout,
)  # fmt: skip
"""Errors whose message is made here. Others may quote what a server said, and that may quote what was sent to it."""


def own_words(error: BaseException) -> str | None:
    """Return the message of an error, fit for telemetry and logs; None where it may quote a server."""
    return error.message if isinstance(error, _OWN_WORDS) else None


def outcome_of(error: BaseException) -> str:
    """Return what an error was, in a word that quotes nobody: the status of a reply, or the name of its class."""
    return str(error.status) if isinstance(error, APIError) and error.status else type(error).__name__
