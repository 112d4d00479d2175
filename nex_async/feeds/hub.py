"""Hub: the one stream connection of a client, and everybody who listens to it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Protocol

import aiohttp
import anyio

from ..errors import ClientClosed, DecodeError, NexError, Timeout
from ..routes import STREAM_INSIGHTS
from ..transport import wire
from ..transport.body import read_error
from ..transport.call import describe, summary_of
from ..transport.faults import AIOHTTP_FAILURES, failure_of
from ..transport.observer import CallObserver, observe, tell
from ..transport.options import RequestDetails, ResponseDetails, Settings
from ..transport.sender import Sender
from ..transport.state import start_apart
from ..transport.wire import Request
from .connection import StreamConnection, StreamPolicy
from .ledger import SECOND
from .sse import ServerSentEvent, SSEDecoder

__all__ = ["Hub", "Listener", "ServerClock"]

_log = logging.getLogger("nex_async.feeds")

_REQUEST = wire.build(STREAM_INSIGHTS)
_WORKSPACE = re.compile(rb"workspace_id=([^\s,;]+)")
_CLOCK_STEP, _CLOCK_WITNESSES = 300.0, 3
_PATIENCE = 30.0
"""So long the socket is left unread while nobody has room; then events are dropped, and read from the list later."""


class Listener(Protocol):
    """Who listens to a hub. Nothing here may raise or wait."""

    def connected(self, attempts: int) -> None:
        """Learn that the stream stands."""

    def lost(self, error: NexError | None, attempt: int, delay: float) -> None:
        """Learn that it does not, and when the next attempt follows."""

    def greeted(self) -> None:
        """Learn that the stream said which workspace it belongs to."""

    def push(self, events: list[ServerSentEvent]) -> None:
        """Take events; one that has no room drops them and remembers so."""

    def oversize(self) -> None:
        """Learn that an event was too large, and dropped."""

    def ended(self, error: Exception | None) -> None:
        """Learn that nothing more will come: by the server's word, or by an error that no other attempt can mend."""

    @property
    def has_space(self) -> bool:
        """Whether it can take more."""
        ...


class ServerClock:
    """What the server's clock says, by the dates of its replies. Our own clock tells only what has passed since."""

    def __init__(self) -> None:
        self._ahead: float | None = None
        self._dated = False
        self._doubted = 0

    def note(self, headers: Mapping[str, str], now: float) -> None:
        """Take the date of a reply that has just come. One that contradicts the others is believed when it is repeated."""
        moment = wire.http_date(headers.get("Date", ""))
        if moment is None:
            return
        if self._dated and self._ahead is not None and abs(moment - now - self._ahead) > _CLOCK_STEP:
            self._doubted += 1
            if self._doubted < _CLOCK_WITNESSES:
                return
        self._ahead, self._dated, self._doubted = moment - now, True, 0

    def note_moment(self, microseconds: int, now: float) -> None:
        """Take a moment that has passed at the server, for want of dates."""
        if not self._dated and microseconds and (self._ahead is None or (self._ahead + now) * SECOND < microseconds):
            self._ahead = microseconds / SECOND - now

    def now(self, now: float) -> int | None:
        """Return the server's time in microseconds since 1970, never later than it is; None while nothing is known."""
        return None if self._ahead is None else int((now + self._ahead) * SECOND)


class Hub:
    """Shares one connection among any number of listeners; opens it for the first, closes it after the last."""

    def __init__(self, sender: Sender, settings: Settings, policy: StreamPolicy | None = None) -> None:
        self.sender = sender
        self.clock: ServerClock = ServerClock()
        self.workspace: str | None = None
        """The id of the workspace, as the stream greeted with it."""
        self.connection: StreamConnection = StreamConnection(self._connect, self, policy)
        self.stood_since: float | None = None
        self.last_error: NexError | None = None
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._settings = settings
        self._request = _REQUEST._replace(headers=settings.headers)
        self._listeners: dict[Listener, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._oversize = 0
        self._greeted = False
        self._leaving = False
        self._free = asyncio.Event()

    def join(self, listener: Listener) -> None:
        """Listen; the first to do so opens the connection."""
        self._listeners[listener] = None
        if self._task is None or self._leaving:
            self._leaving, before = False, self._task
            self._task = start_apart(self.loop, self._run(before))
        elif self.connection.standing:
            listener.connected(1)

    def leave(self, listener: Listener) -> None:
        """Stop listening; the last to do so closes the connection."""
        self._listeners.pop(listener, None)
        self.made_room()
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._leaving = True
            self.sender.state.unshare(self)  # who comes later opens a connection anew

    async def over(self) -> None:
        """Wait until the connection is closed, if nobody listens any more."""
        if self._task is not None and not self._listeners:
            await asyncio.wait([self._task])

    async def _run(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        failure: Exception | None = None
        try:
            await self.connection.run()
            _log.warning("the server has ended the stream for good (status %d)", 204, extra={"nex_status": 204})
        except NexError as error:
            failure = describe(error, STREAM_INSIGHTS, self._request)
        except Exception as error:
            failure = error
        for listener in list(self._listeners):
            listener.ended(failure)

    # ---- the connection asks ----------------------------------------------------------------------------------------

    async def _connect(self, extra: Mapping[str, str]) -> aiohttp.ClientResponse | None:
        state = self.sender.state
        if state.closed:
            raise ClientClosed("the client is closed")
        request = self._request._replace(headers={**(self._request.headers or {}), **extra})
        observed, request = observe(state, self._settings, STREAM_INSIGHTS, request)
        return await (self._open(request) if observed is None else self._open_observed(observed, request))

    async def _open_observed(self, observed: CallObserver, request: Request) -> aiohttp.ClientResponse | None:
        """Open the stream, and tell who follows it: until it stands, for what comes after may take weeks."""
        state, summary, began = self.sender.state, summary_of(STREAM_INSIGHTS, request), self.loop.time()
        tell(state, observed.on_request, RequestDetails(summary, 1))
        status: int | None = None
        failure: BaseException | None = None
        try:
            response = await self._open(request)
            status = 204 if response is None else response.status
            return response
        except BaseException as error:
            failure, status = error, getattr(error, "status", None)
            raise
        finally:
            if failure is None or isinstance(failure, NexError):
                details = ResponseDetails(summary, 1, self.loop.time() - began, status, None, failure)
                tell(state, observed.on_response, details)
            tell(state, observed.on_end, failure)

    async def _open(self, request: Request) -> aiohttp.ClientResponse | None:
        settings = self._settings
        patience = settings.timeouts.read or self.connection.policy.silence
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.timeouts.connect, ceil_threshold=1e12)
        try:
            with anyio.fail_after(patience):
                response = await self.sender.bind().open_stream(request, timeout)
                try:
                    if response.status != 204:
                        await _check(response)
                except BaseException:
                    response.close()
                    raise
        except TimeoutError as error:
            if isinstance(error, NexError):
                raise
            raise Timeout(f"the stream did not open in {patience:.0f} s", sent="maybe", phase="headers") from None
        if response.status == 204:
            response.close()
            return None
        return response

    def connected(self, headers: Mapping[str, str], attempts: int) -> None:
        """Tell everybody; see `Receiver`."""
        self.stood_since = self.loop.time()
        self.clock.note(headers, self.stood_since)
        self._oversize, self._greeted = 0, False
        for listener in list(self._listeners):
            listener.connected(attempts)

    def received(self, events: list[ServerSentEvent], decoder: SSEDecoder) -> None:
        """Hand on; see `Receiver`."""
        if not self._greeted and decoder.first_comment is not None:
            self._greeted = True
            self._read_greeting(decoder.first_comment)
        if decoder.oversize > self._oversize:
            self._oversize = decoder.oversize
            for listener in list(self._listeners):
                listener.oversize()
        if events:
            for listener in list(self._listeners):
                listener.push(events)

    def _read_greeting(self, comment: bytes) -> None:
        found = _WORKSPACE.search(comment)
        if found is None:
            template = "the stream did not say which workspace it belongs to"
            _log.warning(template, extra={"nex_operation": STREAM_INSIGHTS.name})
        else:
            self.workspace = found.group(1).decode("ascii", "replace")
            for listener in list(self._listeners):
                listener.greeted()

    def lost(self, error: NexError | None, attempt: int, delay: float) -> None:
        """Tell everybody; see `Receiver`."""
        self.stood_since = None
        self.sender.state.counts.reconnects += attempt == 1
        self.last_error = error and describe(error, STREAM_INSIGHTS, self._request)
        for listener in list(self._listeners):
            listener.lost(self.last_error, attempt, delay)

    async def room(self) -> None:
        """Wait until somebody has room, but not for ever: what is dropped then can be read from the list."""
        if any(listener.has_space for listener in self._listeners):
            return
        with anyio.move_on_after(_PATIENCE):
            while self._listeners and not any(listener.has_space for listener in self._listeners):
                self._free.clear()
                await self._free.wait()

    def made_room(self) -> None:
        """Learn that a listener may have room again."""
        self._free.set()


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raise what a reply means that is no stream."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if response.status == 200 and kind == "text/event-stream":
        return
    if response.status == 200:
        raise DecodeError("the reply is not an event stream; is this not the Nex API?", status=200)
    failure: NexError
    try:
        body = await read_error(response, wire.MAX_ERROR_BODY)
        failure = wire.error_of(STREAM_INSIGHTS, wire.Reply(response.status, response.headers, body))
    except AIOHTTP_FAILURES as error:
        failure = failure_of(error, "body", False)
    raise failure
