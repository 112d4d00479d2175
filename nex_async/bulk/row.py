"""One row on its way."""

from __future__ import annotations

from typing import Any

from ..routes import Route
from ..transport.wire import Request
from .operations import Prepared

__all__ = ["Row"]


class Row:
    """A row that was pulled and is not finished: its request, its keys, and what it has met so far."""

    # Most rows meet nothing: what they have in common stands in the class, and costs them nothing.
    blockers: int = 0
    """Of how many of its keys an earlier row has the use."""
    attempts: int = 0
    """Failed requests that count against it."""
    requests: int = 0
    first: float | None = None
    """When it failed first, in seconds since 1970."""
    may_have_acted: bool = False
    uncertain_until: float = 0.0
    """Until then, in the time of the event loop, a request whose reply was lost may still take effect."""
    digest: bytes | None = None
    """What was sent, where that is remembered."""

    def __init__(self, seq: int, given: Any, prepared: Prepared, route: Route[Any]) -> None:
        self.seq: int = seq
        self.given: Any = given
        self.request: Request
        self.keys: tuple[str, ...]
        self.request, self.keys = prepared
        self.route: Route[Any] = route
