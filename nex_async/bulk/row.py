"""One row on its way."""

from __future__ import annotations

from typing import Any

from ..routes import Route
from ..transport.wire import Request
from .operations import Prepared

__all__ = ["Row"]


class Row:
    """A row that was pulled and is not finished: its request, its keys, and what it has met so far."""

    __slots__ = (
        "attempts", "blockers", "digest", "first", "given", "keys", "may_have_acted", "request", "requests", "route", "seq",
        "uncertain_until",
    )  # fmt: skip

    def __init__(self, seq: int, given: Any, prepared: Prepared, route: Route[Any]) -> None:
        self.seq: int = seq
        self.given: Any = given
        self.request: Request = prepared.request
        self.keys: tuple[str, ...] = prepared.keys
        self.route: Route[Any] = route
        self.blockers: int = 0
        """Of how many of its keys an earlier row has the use."""
        self.attempts: int = 0
        """Failed requests that count against it."""
        self.requests: int = 0
        self.first: float | None = None
        """When it failed first, in seconds since 1970."""
        self.may_have_acted: bool = False
        self.uncertain_until: float = 0.0
        """Until then, in the time of the event loop, a request whose reply was lost may still take effect."""
        self.digest: bytes | None = None
        """What was sent, where that is remembered."""
