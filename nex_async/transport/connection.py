"""One connection of a pool: aiohttp's own protocol, with a lazier timer and an eye on what nobody asked for.

The overrides lean on private names of aiohttp. Should those change, the methods here are simply not called any more, and
aiohttp's own take their place: slower, and as right.
"""

from __future__ import annotations

import asyncio
from math import inf

from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.client_proto import ResponseHandler

from .sweeper import clock_of

__all__ = ["EXACT", "Connection"]

EXACT = 1e12
"""aiohttp rounds timeouts above its threshold up to whole seconds; ours are exact."""


class Connection(ResponseHandler):
    """A connection whose read timeout costs a note of the time instead of a timer for every piece of every reply.

    One timer stands per connection; when it fires early, because something was read meanwhile, it is set again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._clock = clock_of(loop)
        self._silent_until = inf
        self._fires_at = inf
        self.heard: float = 0.0
        """When something was last heard, or asked; the loop's time."""

    def is_connected(self) -> bool:
        """Return whether the connection can be used: not once its server has sent what nobody asked for."""
        if self._buffer:
            self.close()
        transport = self.transport
        return transport is not None and not transport.is_closing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note the end; a body that is waited for learns of it, also when its framing was what ended the connection."""
        payload = self._payload
        super().connection_lost(exc)
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(ClientPayloadError("the connection was closed over what followed"))

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on, where reading was paused; aiohttp asks for it with every chunk, and would run its parser over nothing."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def _reschedule_timeout(self) -> None:
        self.heard = now = self._clock()
        timeout = self._read_timeout
        if not timeout:
            self._silent_until = inf
            return
        self._silent_until = until = now + timeout
        if until < self._fires_at:
            self._fire_at(until)

    def _fire_at(self, moment: float) -> None:
        if self._read_timeout_handle is not None:
            self._read_timeout_handle.cancel()
        self._fires_at = moment
        self._read_timeout_handle = self._loop.call_at(moment, self._check_silence)

    def _drop_timeout(self) -> None:
        self._silent_until = inf
        if self.transport is None or self._connection_lost_called:
            self._fires_at = inf
            super()._drop_timeout()

    def _check_silence(self) -> None:
        self._read_timeout_handle = None
        self._fires_at = inf
        if self._silent_until <= self._loop.time():
            self._on_read_timeout()
        elif self._silent_until < inf:
            self._fire_at(self._silent_until)
