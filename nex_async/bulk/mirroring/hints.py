"""Hints that something has changed: insights, as they come over the stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..._logfields import fields_of
from ...errors import (
    AuthenticationError,
    ClientClosed,
    GoneError,
    NexError,
    NotFoundError,
    PermissionDeniedError,
    outcome_of,
    own_words,
)
from ...feeds.insights import InsightFeed
from ...transport.sender import Sender
from ...transport.state import start_apart

__all__ = ["Hints"]

_log = logging.getLogger("nex_async.bulk")

_FIRST_DELAY, _LONGEST_DELAY = 1.0, 300.0
_FINAL = (AuthenticationError, ClientClosed, GoneError, NotFoundError, PermissionDeniedError)


class Hints:
    """Calls `wake` for every insight, in a task of its own. A stream that fails is logged, and tried again."""

    def __init__(self, sender: Sender, wake: Callable[[], None]) -> None:
        self._sender = sender
        self._wake = wake
        self._task = start_apart(asyncio.get_running_loop(), self._run())

    def stop(self) -> None:
        """Stop listening."""
        self._task.cancel()

    async def over(self) -> None:
        """Wait until the stream is closed."""
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                async with InsightFeed(self._sender, {}, start="now") as feed:
                    delay = _FIRST_DELAY
                    async for _ in feed:
                        self._wake()
            except _FINAL as error:
                reason = own_words(error) or outcome_of(error)
                _log.info("the mirror gets no hints (%s); it looks at intervals", reason, extra=fields_of(error))
                return
            except NexError as error:
                reason = own_words(error) or outcome_of(error)
                _log.info("the mirror gets no hints for %.0f s (%s)", delay, reason, extra=fields_of(error, delay=delay))
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)
