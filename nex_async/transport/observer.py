"""Observer: the seam for telemetry. It follows whole calls, where the hooks hear of single attempts.

A client without one pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..routes import Group, Route
from . import log
from .state import ClientState
from .wire import Request

if TYPE_CHECKING:
    from .options import RequestDetails, ResponseDetails, RetryDetails, Settings

__all__ = ["CallObserver", "Observer", "observe", "tell"]

T = TypeVar("T")


class CallObserver(Protocol):
    """Follows one call, in the task that makes it. Nothing here may wait; what it raises is logged, and disturbs no call."""

    headers: Mapping[str, str]
    """What every request of the call carries along, unless the caller set it himself."""

    def on_request(self, details: RequestDetails) -> None:
        """Learn of an attempt that is about to be made."""

    def on_response(self, details: ResponseDetails) -> None:
        """Learn how an attempt ended; not told of one that was cancelled."""

    def on_retry(self, details: RetryDetails) -> None:
        """Learn of a retry that is about to be waited for."""

    def on_limit(self, group: Group, seconds: float) -> None:
        """Learn that an attempt has waited in line for a rate limit."""

    def on_end(self, error: BaseException | None) -> None:
        """Learn that the call is over, and what it raises; the last word."""


class Observer(Protocol):
    """Follows the calls of clients."""

    def join(self, state: ClientState) -> None:
        """Learn of a client, whose figures may be read for as long as it lives."""

    def on_call(self, route: Route[Any], url: str) -> CallObserver:
        """Return who follows a call that begins; `url` is the base URL it goes to."""
        ...


def observe(
    state: ClientState, settings: Settings, route: Route[Any], request: Request
) -> tuple[CallObserver | None, Request]:
    """Return who follows a call that begins, if anybody does, and the request with what he wants it to carry along."""
    observer = settings.observer
    if observer is None:
        return None, request
    observed = tell(state, observer.on_call, route, state.url)
    return observed, request if observed is None else _carrying(request, observed.headers)


def _carrying(request: Request, extra: Mapping[str, str]) -> Request:
    own = request.headers or {}
    names = {name.lower() for name in own}
    headers = {name: value for name, value in extra.items() if name.lower() not in names}
    return request._replace(headers={**headers, **own}) if headers else request


def tell(state: ClientState, listener: Callable[..., T], *details: Any) -> T | None:
    """Call somebody who listens; what he raises is logged and counted, and disturbs nothing."""
    try:
        return listener(*details)
    except Exception as error:
        state.counts.hook_errors += 1
        log.hook_raised(error)
        return None
