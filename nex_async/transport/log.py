"""What the log says of calls. The templates are constant, and what varies is also there as fields named `nex_*`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from logging import DEBUG
from typing import Any

from .._logfields import fields_of
from ..errors import NexError, outcome_of
from ..routes import Route

__all__ = ["DEBUG", "cancelled", "failed", "hook_raised", "is_heard", "retrying", "succeeded"]

_log = logging.getLogger("nex_async.calls")
is_heard: Callable[[int], bool] = _log.isEnabledFor


def succeeded(route: Route[Any], status: int, size: int, elapsed: float, attempt: int = 1) -> None:
    """Note a reply that was what the operation promises; `elapsed` is in seconds, `size` in bytes."""
    if not is_heard(DEBUG):
        return
    fields = {
        "nex_operation": route.name,
        "nex_method": route.method,
        "nex_status": status,
        "nex_size": size,
        "nex_elapsed": elapsed,
        "nex_attempt": attempt,
    }
    template = "%s (%s): %d, %d bytes in %.1f ms (attempt %d)"
    _log.debug(template, route.name, route.method, status, size, elapsed * 1000.0, attempt, extra=fields)


def failed(route: Route[Any], error: NexError, elapsed: float, attempt: int) -> None:
    """Note an attempt that failed, in whatever way."""
    if not is_heard(DEBUG):
        return
    fields = fields_of(error, operation=route.name, method=route.method, elapsed=elapsed, attempt=attempt)
    template = "%s (%s): %s after %.1f ms (attempt %d)"
    _log.debug(template, route.name, route.method, outcome_of(error), elapsed * 1000.0, attempt, extra=fields)


def retrying(route: Route[Any], error: NexError, delay: float, attempt: int) -> None:
    """Note that a call is tried again in `delay` seconds."""
    fields = fields_of(error, operation=route.name, delay=delay, attempt=attempt)
    template = "retrying %s in %.2f s: attempt %d ended with %s"
    _log.info(template, route.name, delay, attempt, outcome_of(error), extra=fields)


def cancelled(route: Route[Any]) -> None:
    """Note a write that was cancelled in the middle."""
    _log.info("%s was cancelled; whether it took effect is unknown", route.name, extra={"nex_operation": route.name})


def hook_raised(error: Exception) -> None:
    """Note a hook or an observer that raised."""
    _log.error("a hook raised (%s); the call goes on", type(error).__name__, exc_info=error, extra=fields_of(error))
