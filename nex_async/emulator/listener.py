"""One listener of the insight stream: a bounded queue of encoded frames, written by its own task."""

from __future__ import annotations

import asyncio
from collections import deque

from aiohttp import web

from nex_async.emulator.faults import Fault
from nex_async.emulator.misbehaviour import break_connection, reset
from nex_async.emulator.switches import Settings

__all__ = ["Listener"]

_KEEPALIVE = b": keepalive\n\n"
_LOOK_SECONDS = 1.0
"""How often a silent listener looks whether its client has left."""


class Listener:
    """Holds at most `bound` frames that were not written yet; one more and the connection is dropped."""

    def __init__(self, request: web.BaseRequest, settings: Settings, bound: int, fault: Fault | None) -> None:
        self.settings = settings
        self.dropped: bool = False
        """Whether it was cut off for not reading."""
        self.over: asyncio.Event = asyncio.Event()
        """Set when nothing more will be written."""
        self._request = request
        self._bound = bound
        self._fault = fault
        self._frames: deque[bytes] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._live = 0
        self._written = 0
        self._ending = ""
        self._timers: list[asyncio.TimerHandle] = []

    def start(self, beginning: bytes) -> None:
        """Put the beginning of the stream before whatever has come since."""
        self._frames.appendleft(beginning)

    def put(self, frame: bytes, fault: Fault | None) -> None:
        """Queue a live event, spoiled by a fault if there is one."""
        self._live += 1
        if self._ending or self._is_deaf(self._live):
            return
        if len(self._frames) >= self._bound:
            self.drop()
            return
        if fault is None:
            self._frames.append(frame)
        else:
            self._spoil(frame, fault)
        self._notify()

    def _spoil(self, frame: bytes, fault: Fault) -> None:
        if fault.kind == "bad_event":
            event, _, data = frame.partition(b"\n")
            self._frames.append(event + b"\n" + data[: len(data) // 2] + b"\n\n")
            return
        cut = len(frame) // 2 if fault.spec.bytes is None else fault.spec.bytes
        self._frames.append(frame[:cut])
        self._ending = fault.spec.ending

    def _is_deaf(self, event: int) -> bool:
        fault = self._fault
        return fault is not None and fault.kind in ("silence", "mute") and event > fault.spec.events

    def drop(self) -> None:
        """Cut the connection off, with whatever is queued."""
        self.dropped = True
        self._frames.clear()
        self._ending = "reset"
        if self._request.transport is not None:
            reset(self._request.transport)
        self._notify()

    def end(self) -> None:
        """End the stream in good order, after what is queued."""
        self._ending = self._ending or "eof"
        self._notify()

    def close(self) -> None:
        """Stop the timers and tell that it is over."""
        self.over.set()
        for timer in self._timers:
            timer.cancel()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def serve(self, response: web.StreamResponse) -> None:
        """Write what is queued, as it comes, until the stream ends or the client is gone."""
        loop = asyncio.get_running_loop()
        try:
            await response.prepare(self._request)
            self._timers = [
                loop.call_later(self.settings.keepalive, self._keep_alive),
                loop.call_later(_LOOK_SECONDS, self._look),
            ]
            while await self._next():
                data = b"".join(self._frames)
                self._frames.clear()
                await self._write(response, data)
            if self._ending == "eof":
                await response.write_eof()
            else:
                await break_connection(self._request, self._ending)
        except ConnectionError:
            return

    async def _next(self) -> bool:
        """Wait until there is something to write; False when the stream ends."""
        while not self._frames and not self._ending:
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        return bool(self._frames)

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        fault = self._fault
        if fault is not None and fault.kind == "cut_stream":
            left = (fault.spec.bytes or 0) - self._written
            if len(data) >= left:
                data = data[:left]
                self._frames.clear()
                self._ending = fault.spec.ending
        self._written += len(data)
        if data:
            await response.write(data)

    def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        self._timers[0] = loop.call_later(self.settings.keepalive, self._keep_alive)
        if not self._frames and not self._ending and not self._is_silent():
            self._frames.append(_KEEPALIVE)
            self._notify()

    def _is_silent(self) -> bool:
        return self._fault is not None and self._fault.kind == "silence" and self._live >= self._fault.spec.events

    def _look(self) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            self._ending = "gone"
            self._notify()
        else:
            self._timers[1] = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
