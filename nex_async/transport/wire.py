"""Sans-io: build a request, read a reply, name an error. No await in this file."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, NamedTuple, NoReturn, TypeAlias, TypeVar
from urllib.parse import quote, unquote

import msgspec

from .. import errors
from ..errors import APIError, BodyTruncated, DecodeError, InvalidRequestError, NexError, ProtocolError, printable
from ..routes import Route

__all__ = [
    "Id", "Query", "Reply", "Request", "build", "in_range", "path_segment", "query_string", "read", "retry_after", "texts",
]  # fmt: skip

T = TypeVar("T")

Id: TypeAlias = "str | int"
"""An id as callers may pass it: the digits as text, or an integer (never a float, never a bool)."""
QueryValue: TypeAlias = "str | int | float | bool | datetime"
Query: TypeAlias = Mapping[str, "QueryValue | None"]

MAX_URL = 8192
MAX_ERROR_BODY = 64 * 1024


class Request(NamedTuple):
    """A request ready to send: method, path with query below the base URL, JSON body, extra headers."""

    method: str
    target: str
    body: bytes | None
    headers: dict[str, str] | None


class Reply(NamedTuple):
    """A complete reply: status, headers (case-insensitive), body. Its repr shows no content: a server may quote the key."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<Reply {self.status}, {len(self.body)} bytes>"


# ---- building -------------------------------------------------------------------------------------------------------

_HUGE = 1 << 128
_PLAIN = re.compile(r"[A-Za-z0-9_\-]{1,128}\Z")
_UNQUOTED = re.compile(r"[A-Za-z0-9_.:~\-]*\Z")
"""What a query carries as it is."""
_DOTS = frozenset({".", ".."})
_SLUGS = frozenset({"slug", "type", "provider"})


def build(
    route: Route[Any],
    path: tuple[Id, ...] = (),
    query: Query | None = None,
    body: Any = msgspec.UNSET,
    headers: dict[str, str] | None = None,
) -> Request:
    """Return the request for an operation. Raises `InvalidRequestError` for arguments that cannot be right."""
    target = route.path if not path else _render(route, path)
    if query:
        target += query_string(query)
    if len(target) > MAX_URL:
        raise InvalidRequestError(f"the URL is longer than {MAX_URL} characters", argument="query")
    content = None if body is msgspec.UNSET else encode(body)
    return tuple.__new__(Request, (route.method, target, content, headers))  # twice as quick as Request(...)


def _render(route: Route[Any], path: tuple[Id, ...]) -> str:
    parts = route.parts
    if len(path) == 1:
        return parts[0] + path_segment(parts[1], path[0]) + parts[2]
    rendered = [parts[0]]
    for index, value in enumerate(path):
        rendered.append(path_segment(parts[2 * index + 1], value))
        rendered.append(parts[2 * index + 2])
    return "".join(rendered)


def path_segment(name: str, value: Id) -> str:
    """Return `value` encoded so that it cannot leave its segment of the path.

    Raises `InvalidRequestError` naming the argument for anything empty, blank, a dot segment (also once or twice
    percent-encoded), holding a slash, backslash or control character, or neither str nor int.
    """
    if type(value) is str and _PLAIN.match(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value)) if abs(value) < _HUGE else _refuse(name, "has too many digits for an id")
    if not isinstance(value, str):
        _refuse(name, f"must be a string or an integer, not {type(value).__name__}")
    if type(value) is not str:
        return path_segment(name, str.__str__(value))  # the text of an enum, not its name
    if not value.strip():
        _refuse(name, "must not be empty or blank")
    if name in _SLUGS:
        _refuse(name, f"must be 1 to 128 letters, digits, '-' or '_', not {printable(value, 60)!r}")
    return _quoted_segment(name, value)


def _quoted_segment(name: str, value: str) -> str:
    if len(value) > 4096:
        _refuse(name, "must not be longer than 4096 characters")
    for text in (value, unquote(value), unquote(unquote(value))):
        if text.strip() == "" or not _DOTS.isdisjoint(part.strip() for part in text.split("/")):
            _refuse(name, "must not be a dot segment")
        if "/" in text or "\\" in text:
            # connect tokens are base64 and may hold a slash; it travels encoded, and cannot be told from a path
            if name == "connect_id" and text is value and "\\" not in text:
                continue
            if name == "connect_id" and "\\" not in text and unquote(value) == value:
                continue
            _refuse(name, "must not hold a slash or backslash")
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            _refuse(name, "must not hold control characters")
    try:
        return quote(value, safe="~")
    except UnicodeEncodeError:
        _refuse(name, "must be valid Unicode")


def _refuse(name: str, why: str) -> NoReturn:
    raise InvalidRequestError(f"{name} {why}", argument=name)


def query_string(query: Query) -> str:
    """Return `?a=1&b=true`, each value encoded once; None is left out. Raises `InvalidRequestError`."""
    pairs = [f"{_query_name(name)}={_query_value(name, value)}" for name, value in query.items() if value is not None]
    return "?" + "&".join(pairs) if pairs else ""


def _query_name(name: str) -> str:
    if type(name) is str and _PLAIN.match(name):
        return name
    try:
        return quote(name, safe="")
    except (TypeError, ValueError):
        _refuse("query", "has a name that is not a string of valid Unicode")


def _query_value(name: str, value: QueryValue) -> str:
    if type(value) is str and _UNQUOTED.match(value):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return quote(rfc3339(name, value), safe=":")
    if isinstance(value, float) and not isfinite(value):
        _refuse(name, "must be a finite number")
    if not isinstance(value, (str, int, float)):
        _refuse(name, f"cannot be sent in a query: {type(value).__name__}")
    try:
        # an Enum that is a str or an int is sent as its value
        text = (
            str.__str__(value) if isinstance(value, str) else int.__repr__(value) if isinstance(value, int) else repr(value)
        )
        return quote(text, safe=":")
    except ValueError:
        _refuse(name, "must be valid Unicode, or a number of fewer digits")


def in_range(name: str, value: int | None, least: int, most: int | None) -> int | None:
    """Return a count that is within bounds, or None. Raises `InvalidRequestError`."""
    if value is None:
        return None
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        upper = f"{least} to {most}" if most is not None else f"at least {least}"
        raise InvalidRequestError(f"{name} must be an integer, {upper}, not {value!r}", argument=name)
    return value


def rfc3339(name: str, value: datetime) -> str:
    """Return an aware datetime as RFC 3339 in UTC. Raises `InvalidRequestError` for a naive one."""
    if value.tzinfo is None:
        _refuse(name, "must be an aware datetime (give it a tzinfo)")
    utc = value.astimezone(_UTC)
    return utc.isoformat().replace("+00:00", "Z")


_UTC = datetime.fromisoformat("1970-01-01T00:00:00+00:00").tzinfo


def encode(body: Any) -> bytes:
    """Return `body` as JSON. Raises `InvalidRequestError` for what JSON cannot hold, NaN and infinities included."""
    try:
        encoded = msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InvalidRequestError(f"the body cannot be sent as JSON: {printable(str(error))}", argument="body") from None
    # msgspec writes NaN and infinities as null, so only a body with a null in it can hide one.
    if b"null" in encoded:
        _refuse_non_finite(body, "body")
    return encoded


def _refuse_non_finite(value: Any, where: str) -> None:
    if isinstance(value, float):
        if not isfinite(value):
            raise InvalidRequestError(f"{where} is {value}, which JSON cannot hold", argument=where)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_non_finite(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{where}[{index}]")
    elif value is not None and not isinstance(value, (str, int, bytes, date)):
        _refuse_non_finite_object(value, where)


def _refuse_non_finite_object(value: Any, where: str) -> None:
    fields = getattr(type(value), "__struct_fields__", None) or getattr(type(value), "__dataclass_fields__", None)
    for name in fields or ():
        _refuse_non_finite(getattr(value, name), f"{where}.{name}")


_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~\-]{1,128}\Z")
_OWN_HEADERS = frozenset({
    "authorization", "host", "content-length", "transfer-encoding", "connection", "accept-encoding", "cookie",
    "proxy-authorization", "expect", "upgrade", "te", "trailer",
})  # fmt: skip


def check_headers(headers: Mapping[str, str], argument: str = "headers") -> dict[str, str]:
    """Return a copy of the caller's headers. Raises `InvalidRequestError` for those that are not his to set."""
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.match(name):
            raise InvalidRequestError(f"{argument} holds a name that is no header name", argument=argument)
        if name.lower() in _OWN_HEADERS:
            raise InvalidRequestError(f"{argument} must not set {name}; the SDK does", argument=argument)
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise InvalidRequestError(f"{argument}: {name} has a value with control or non-ASCII characters", argument)
        checked[name] = value
    return checked


# ---- reading --------------------------------------------------------------------------------------------------------


def read(route: Route[T], reply: Reply) -> T:
    """Return what the operation promises, or raise the error the reply means."""
    # Only `reply` is held here, and in what raises: a traceback with its locals must not show what a server quotes.
    if not 200 <= reply.status < 300:
        raise error_of(route, reply)
    try:
        value = route.decode(reply.body)
    except DecodeError as error:
        failure = _undecodable(route, reply, error)
    else:
        # Some proxies answer 200 with an error in the body; where every field is optional it would pass for an empty reply.
        if len(reply.body) < 1024 and b'"code"' in reply.body and b'"message"' in reply.body:
            hidden = _hidden_error(reply.body)
            if hidden is not None:
                raise error_of(route, reply._replace(status=hidden))
        return value
    raise failure


def _undecodable(route: Route[Any], reply: Reply, error: DecodeError) -> NexError:
    """Return what a success means that is not what the operation promises."""
    hidden = _hidden_error(reply.body)
    if hidden is not None:
        return error_of(route, reply._replace(status=hidden))
    if _cut_short(error, reply.headers):
        return BodyTruncated("the reply's body ended early", sent="maybe")
    error.status = reply.status
    return _with_hint(error, reply).with_traceback(None)


def _cut_short(error: DecodeError, headers: Mapping[str, str]) -> bool:
    """Return whether a reply that only the connection's end delimits, as over TLS without a goodbye, is not whole."""
    framed = "Content-Length" in headers or "Transfer-Encoding" in headers
    return not framed and error.message.startswith("Input data was truncated")


def _with_hint(error: DecodeError, reply: Reply) -> DecodeError:
    kind = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        error.args = (f"{error.message} (Content-Type is {printable(kind, 60)}: is this not the Nex API?)",)
    return error


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    code: int
    message: str


_envelope = msgspec.json.Decoder(_Envelope)


def _hidden_error(body: bytes) -> int | None:
    """Return the status an error envelope speaks of, None when the body is anything else."""
    try:
        found = _envelope.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.code if 400 <= found.code < 600 else None


_BY_STATUS: dict[int, type[APIError]] = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    410: errors.GoneError,
    413: errors.PayloadTooLargeError,
    422: errors.UnprocessableError,
    429: errors.RateLimitError,
}


def error_of(route: Route[Any], reply: Reply) -> NexError:
    """Return the error that a reply other than a success means."""
    status, headers, body = reply
    if 300 <= status < 400:
        return _redirect(reply)
    if not 400 <= status < 600:
        return ProtocolError(f"the peer answered with status {status}, which has no meaning", sent="yes")
    kind = _BY_STATUS.get(status) or (errors.ServerError if status >= 500 else APIError)
    message, code = _words(body)
    error = kind(
        message or f"HTTP {status}",
        status=status,
        code=code,
        body=body[:MAX_ERROR_BODY],
        retry_after=retry_after(headers),
        request_id=_request_id(headers),
    )
    if isinstance(error, errors.PermissionDeniedError):
        error.scopes = route.scopes
        needed = " or ".join(route.scopes)
        if needed:
            error.args = (f"{error.message} ({route.name} needs the scope {needed}; a key gets its scopes when made)",)
    return error


def _redirect(reply: Reply) -> NexError:
    host = re.match(r"https?://([A-Za-z0-9.:\-\[\]]{1,100})", reply.headers.get("Location", ""))
    where = f" to {host.group(1)}" if host else ""
    return ProtocolError(f"unexpected redirect{where} (status {reply.status}); redirects are not followed", sent="yes")


def _request_id(headers: Mapping[str, str]) -> str | None:
    found = headers.get("X-Request-Id")
    return printable(found, 100) if found else None


_TAGS = re.compile(
    r"<(?:script|style)\b[^>]{0,200}>.{0,4000}?</(?:script|style)>|<[^<>]{0,1000}>", re.DOTALL | re.IGNORECASE
)


def _words(body: bytes) -> tuple[str, int | str | None]:
    """Return the message and the code of an error body, whatever it is made of."""
    body = body[:MAX_ERROR_BODY]
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if isinstance(value, dict):
        code = value.get("code")
        return printable(_from_envelope(value)), code if isinstance(code, (int, str)) else None
    text = body[:8192].decode("utf-8", "replace")
    return printable(" ".join(_TAGS.sub(" ", text).split())) if value is None else "", None


def _from_envelope(value: dict[str, Any]) -> str:
    error = value.get("error")
    nested = error.get("message") if isinstance(error, dict) else None
    detail = value.get("detail")
    for candidate in (value.get("message"), error, nested, detail):
        if isinstance(candidate, str) and candidate.strip():
            extra = f": {detail}" if candidate is error and isinstance(detail, str) and detail else ""
            return candidate + extra
    return ""


_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?\Z", re.ASCII)
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2,8}, ?[0-9]{2}[ \-][A-Z][a-z]{2}[ \-][0-9]{2,4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT\Z")


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds a reply asks to wait; None when it does not say, or says nonsense, or a time gone by.

    A date counts from the reply's own `Date`, so that a wrong local clock does no harm.
    """
    text = headers.get("Retry-After")
    if not text or len(text) > 64:
        return None
    text = text.strip()
    if _SECONDS.match(text):
        return float(text)
    until = http_date(text)
    if until is None:
        return None
    base = http_date(headers.get("Date", ""))
    if base is None:
        base = time.time() if now is None else now
    return until - base if until > base else None


def http_date(text: str) -> float | None:
    """Return the seconds since 1970 that an HTTP date means; None for anything else."""
    if not _HTTP_DATE.match(text.strip()):
        return None
    try:
        return parsedate_to_datetime(text.strip()).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def texts(name: str, values: Iterable[Id]) -> list[str]:
    """Return slugs, or ids of `lists`, as texts, each once. Raises `InvalidRequestError` for what can be none."""
    if isinstance(values, (str, bytes)):
        raise InvalidRequestError(f"{name} must be a sequence, not one string", argument=name)
    found = []
    for value in values:
        whole = isinstance(value, int) and not isinstance(value, bool) and name == "lists"
        if not whole and not (isinstance(value, str) and value.strip()):
            raise InvalidRequestError(f"{name} must hold strings that are not blank, not {value!r}", argument=name)
        found.append(str(value))
    return list(dict.fromkeys(found))
