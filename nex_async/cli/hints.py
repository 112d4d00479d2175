"""What to do next, for each error a person at a terminal may meet, and the exit status it ends with."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ..errors import (
    AuthenticationError,
    ConfigError,
    ConnectError,
    DeadlineExceeded,
    InvalidRequestError,
    JobTimeout,
    MappingError,
    NexError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    SourceChanged,
    StorageFull,
    StorageLocked,
    Timeout,
    TransportError,
)
from ..routes import BY_NAME
from .problem import AUTH, FAILED, USAGE

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["for_error", "for_missing", "nearest", "status_of"]

_HINTS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (AuthenticationError, "`nex-async auth status` shows which key is in use; `nex-async auth login` takes another"),
    (PermissionDeniedError, "a key's scopes are fixed when it is made: make one that has it, then `nex-async auth login`"),
    (ConfigError, "`nex-async auth status` shows where settings come from"),
    (MappingError, "--map COLUMN=SLUG renames a column; `nex-async objects get OBJECT` lists its attributes"),
    (InvalidRequestError, "--help shows what the command takes"),
    (RateLimitError, "wait a while, and send less at a time"),
    (ServerError, "the server failed; try again in a minute"),
    (SourceChanged, "--no-resume begins anew"),
    (StorageFull, "make room on the disk; nothing is lost, and the same command goes on"),
    (StorageLocked, "another process uses the file; wait for its end"),
    (JobTimeout, "the job goes on at the server; a longer --wait waits longer"),
    ((DeadlineExceeded, Timeout), "--timeout allows a call more seconds; `nex-async doctor` measures the way to the server"),
    ((ConnectError, TransportError), "`nex-async doctor` looks at each step of the way to the server"),
)


def for_error(error: Exception) -> str:
    """Return what to do about an error, `""` where its message says it."""
    if isinstance(error, OutcomeUnknownError):
        return "" if error.hint and error.hint in str(error) else "look whether it took effect before trying again"
    if isinstance(error, SourceChanged) and "--" in str(error):
        return ""
    cause = error.__cause__ if isinstance(error, DeadlineExceeded) else None
    told = cause if isinstance(cause, NexError) else error  # why it took too long says more than that it did
    return next((hint for kind, hint in _HINTS if isinstance(told, kind)), "")


def status_of(error: Exception) -> int:
    """Return the exit status for an error."""
    if isinstance(error, (AuthenticationError, PermissionDeniedError)):
        return AUTH
    if isinstance(error, ConfigError):
        return AUTH if "api_key" in str(error) or "API key" in str(error) else USAGE
    is_usage = isinstance(error, InvalidRequestError) and not isinstance(error, MappingError)
    return USAGE if is_usage else FAILED


async def for_missing(nex: Nex, error: NotFoundError) -> str:
    """Return what may have been meant by an object that does not exist; asks which there are."""
    slug = _slug_in(error)
    if slug is None:
        return ""
    try:
        known = [each.slug async for each in nex.objects.list(timeout=10, retries=0) if each.slug]
    except NexError:
        return ""
    if slug in known:
        return ""
    guess = nearest(slug, known)
    return f"did you mean {guess!r}? " * bool(guess) + f"objects here: {', '.join(known[:20])}"


def _slug_in(error: NotFoundError) -> str | None:
    """Return the slug of the object that a request was about."""
    if error.request is None or error.request.operation not in BY_NAME:
        return None
    template = BY_NAME[error.request.operation].path.split("/")
    return next(
        (said for part, said in zip(template, error.request.path.split("/"), strict=False) if part == "{slug}"), None
    )


def nearest(word: str, known: list[str]) -> str | None:
    """Return what a word may be a misspelling of."""
    return next(iter(difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)), None)
