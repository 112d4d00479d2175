"""The interface of aiohttp-sse-client on the engine of this package: to switch, change one import.

::

    from nex_async.compat import EventSource          # was: from aiohttp_sse_client.client import EventSource

    async with EventSource("https://example.com/events", headers={"Authorization": "Bearer ..."}) as source:
        async for event in source:
            print(event.type, event.data, event.last_event_id)

It needs no Nex client and no key: it sends what it is given to the URL it is given. What differs from aiohttp-sse-client
0.2.1:

* After an end, a reset, a cut, a status that may pass (408, 425, 429, 5xx) or a refused connection it connects again, for as
  long as it takes; there, the first of these that was no orderly end was raised. `max_connect_retry` bounds the first
  connection only, as there. The waits double up to 30 seconds (or `reconnection_time`, if that is longer), with jitter;
  there is at most one attempt a second. `retry:` and `Retry-After` are obeyed.
* A stream lives until it ends: no total timeout of 300 seconds, unless `timeout=` asks for one. A server that sends no byte
  for 75 seconds, not even a comment, counts as gone.
* Lines may be of any length, an event may have 16 MiB (a larger one is dropped whole), bytes that are no UTF-8 become
  U+FFFD, and fields are read as the standard says: one leading space is removed, not all, and data keeps its line ends.
* A reader task fills a queue of up to 1 000 events or 16 MiB; when it is full, nothing more is read from the socket. The
  task ends with `close()`, thus with the ``async with``. Callbacks are called in the iteration, in order with the events.
* A 204 on a later connection ends the iteration, as the standard wants; there it was raised. So does closing, where there
  the next step raised `ValueError`.
* An empty `id:` resets the last event id. Compressed streams are read as they come.
* An own session is closed with the source, also when the first connection fails. The headers passed in are not changed.

Errors are `EventSourceError`, which is a `NexError` and a `ConnectionError`, and each is also what aiohttp-sse-client raises
there: `ConnectionRefusedError` for 305, 401 and 407, `ConnectionAbortedError` for what is no event stream, an
`aiohttp.ClientConnectionError` where no connection could be made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple, TypeAlias

import aiohttp
import anyio
from multidict import CIMultiDict
from yarl import URL

from .errors import APIError, InvalidRequestError, NexError, RateLimitError, ServerError, Timeout, TransportError
from .feeds.connection import StreamConnection, StreamPolicy
from .feeds.sse import ServerSentEvent, SSEDecoder
from .transport.faults import AIOHTTP_FAILURES, failure_of
from .transport.wire import retry_after

__all__ = [
    "DEFAULT_MAX_CONNECT_RETRY",
    "DEFAULT_RECONNECTION_TIME",
    "READY_STATE_CLOSED",
    "READY_STATE_CONNECTING",
    "READY_STATE_OPEN",
    "EventSource",
    "EventSourceAborted",
    "EventSourceError",
    "EventSourceRefused",
    "EventSourceUnreachable",
    "MessageEvent",
]

READY_STATE_CONNECTING = 0
READY_STATE_OPEN = 1
READY_STATE_CLOSED = 2

DEFAULT_RECONNECTION_TIME = timedelta(seconds=5)
DEFAULT_MAX_CONNECT_RETRY = 5

_MOST_EVENTS, _MOST_BYTES = 1000, 16 * 1024 * 1024
_PASSING = frozenset({408, 425, 429})
_REFUSALS = frozenset({305, 401, 407})


class EventSourceError(NexError, ConnectionError):
    """The stream cannot be had. `status` is the HTTP status where there was one."""

    def __init__(self, message: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class EventSourceRefused(EventSourceError, ConnectionRefusedError):
    """The server wants other credentials, or a proxy: 305, 401 or 407."""


class EventSourceAborted(EventSourceError, ConnectionAbortedError):
    """What the server answered is no event stream."""


class EventSourceUnreachable(EventSourceError, aiohttp.ClientConnectionError):
    """No connection could be made. `__cause__` is the `TransportError` of the last attempt."""


class MessageEvent(NamedTuple):
    """One event of the stream.

    `type` is its name, None where the stream gave none; `message` is the same with an empty string for none. `origin` is the
    scheme, host and port it came from, `last_event_id` the last id the stream gave, in this event or before.
    """

    type: str | None
    message: str
    data: str
    origin: str
    last_event_id: str


class _Opened(NamedTuple):
    """A mark in the queue: from here on, the events are of a connection to `origin`."""

    origin: str


class _Lost(NamedTuple):
    """A mark in the queue: here the connection ended, or an attempt at one."""


Callback: TypeAlias = Callable[[], object]
_Item: TypeAlias = "ServerSentEvent | _Opened | _Lost"


class EventSource:
    """Server-sent events of a URL, as an async context manager and an async iterator of `MessageEvent`.

    `option` may hold a `method`; `reconnection_time` is the first wait before another attempt, `max_connect_retry` how many
    attempts follow a first one that failed. A `session` that is passed in is used, and not closed. `on_open()`,
    `on_message(event)` and `on_error()` are plain functions; `on_error` is called each time the connection is lost or
    cannot be made, and `ready_state` then tells whether another attempt follows. What else is given (`headers`, `method`,
    `json`, `ssl`, `timeout`, ...) goes to aiohttp's `request`.
    """

    def __init__(
        self,
        url: str | URL,
        option: Mapping[str, Any] | None = None,
        reconnection_time: timedelta = DEFAULT_RECONNECTION_TIME,
        max_connect_retry: int = DEFAULT_MAX_CONNECT_RETRY,
        session: aiohttp.ClientSession | None = None,
        on_open: Callback | None = None,
        on_message: Callable[[MessageEvent], object] | None = None,
        on_error: Callback | None = None,
        **kwargs: Any,
    ) -> None:
        self._url = URL(url)
        self._method: str = kwargs.pop("method", None) or (option or {}).get("method", "GET")
        self._headers: CIMultiDict[str] = CIMultiDict(kwargs.pop("headers", None) or {})
        self._headers.update({"Accept": "text/event-stream", "Cache-Control": "no-cache"})
        self._headers.setdefault("Accept-Encoding", "identity")
        self._request_arguments = kwargs
        self._max_connect_retry = max_connect_retry
        self._session = session
        self._own_session: aiohttp.ClientSession | None = None
        self._on_open = on_open
        self._on_message = on_message
        self._on_error = on_error
        base = reconnection_time.total_seconds()
        self._policy = StreamPolicy(backoff=base, most_backoff=max(30.0, base), age=None)
        self._ready_state = READY_STATE_CONNECTING
        self._reader: _Reader | None = None
        self._task: asyncio.Task[None] | None = None
        self._origin = ""

    @property
    def url(self) -> URL:
        """The URL it was made with."""
        return self._url

    @property
    def ready_state(self) -> int:
        """`READY_STATE_CONNECTING`, `READY_STATE_OPEN` or `READY_STATE_CLOSED`, as far as the iteration has come."""
        return self._ready_state

    def __enter__(self) -> None:
        raise TypeError("Use async with instead")

    def __exit__(self, *exc: object) -> None:
        pass

    async def __aenter__(self) -> EventSource:
        await self.connect(self._max_connect_retry)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def connect(self, retry: int = 0) -> None:
        """Open the stream and return once it stands; do nothing if it does. After `close()` it can be opened again.

        `retry` is how many attempts follow a first one that failed. Raises `EventSourceError` when the server refuses or
        none of them succeeds, and `InvalidRequestError` for a URL that is none.
        """
        if self._task is not None:
            return
        session = self._session
        if session is None:
            session = self._own_session = aiohttp.ClientSession()
        self._ready_state = READY_STATE_CONNECTING
        self._reader = reader = _Reader(self._opener(session), self._policy, retry)
        self._task = asyncio.get_running_loop().create_task(reader.run())
        try:
            while self._ready_state != READY_STATE_OPEN:
                self._mark(await reader.take())
        except StopAsyncIteration:
            pass  # it was closed meanwhile
        except Exception:
            await self._end()
            raise
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection, and the session if it is our own; whoever iterates comes to the end. Idempotent."""
        self._ready_state = READY_STATE_CLOSED
        reader, self._reader = self._reader, None
        task, self._task = self._task, None
        if reader is not None:
            reader.end()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        session, self._own_session = self._own_session, None
        if session is not None:
            await session.close()

    async def _end(self) -> None:
        """Close after a failure, and say so."""
        tell = self._ready_state != READY_STATE_CLOSED
        await self.close()
        if tell and self._on_error is not None:
            self._on_error()

    def __aiter__(self) -> EventSource:
        return self

    async def __anext__(self) -> MessageEvent:
        reader = self._reader
        if reader is None:
            if self._ready_state == READY_STATE_CLOSED:
                raise StopAsyncIteration
            raise ValueError("not connected; use `async with EventSource(...) as source:`")
        try:
            while True:
                item = await reader.take()
                if isinstance(item, ServerSentEvent):
                    break
                self._mark(item)
        except Exception:
            if reader.ended:
                await self._end()
            raise
        event = MessageEvent(item.event or None, item.event, item.data.decode("utf-8", "replace"), self._origin, item.id)
        if self._on_message is not None:
            self._on_message(event)
        return event

    def _mark(self, item: _Item) -> None:
        """Take note of what happened to the connection, and tell."""
        if isinstance(item, _Opened):
            self._origin = item.origin
            self._ready_state, callback = READY_STATE_OPEN, self._on_open
        else:
            self._ready_state, callback = READY_STATE_CONNECTING, self._on_error
        if callback is not None:
            callback()

    def _opener(self, session: aiohttp.ClientSession) -> Callable[[Mapping[str, str]], Any]:
        kept = session.timeout
        timeout = aiohttp.ClientTimeout(total=None, connect=kept.connect, sock_connect=kept.sock_connect)
        arguments = {"timeout": timeout, **self._request_arguments, "auto_decompress": False, "raise_for_status": False}
        patience = self._policy.silence

        async def opener(extra: Mapping[str, str]) -> aiohttp.ClientResponse:
            headers = self._headers.copy()
            headers.update(extra)
            with anyio.fail_after(patience):
                return await session.request(self._method, self._url, headers=headers, **arguments)

        return opener


class _Reader:
    """Reads one stream into a queue: the receiver of its connection."""

    def __init__(self, opener: Callable[[Mapping[str, str]], Any], policy: StreamPolicy, retry: int) -> None:
        self.ended = False
        self._opener = opener
        self._retry = retry
        self._failures = 0
        self._origin = ""
        self._error: BaseException | None = None
        self._queue: deque[_Item] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._freed = asyncio.Event()
        self._connection = StreamConnection(self._open, self, policy, _Decoder)

    async def run(self) -> None:
        """Fill the queue until the stream has ended for good; `take` raises what it ended with."""
        try:
            await self._connection.run()
        except NexError as error:
            self._error = _as_known(error)
        except Exception as error:
            self._error = error
        finally:
            self.ended = True
            self._changed.set()

    def end(self) -> None:
        """End the iteration."""
        self.ended, self._error = True, None
        self._changed.set()

    async def take(self) -> _Item:
        """Return what comes next. Raises `StopAsyncIteration` at the end, or what the stream ended with."""
        while not self._queue:
            if self.ended:
                raise self._error or StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        item = self._queue.popleft()
        if isinstance(item, ServerSentEvent):
            self._bytes -= len(item.data)
        if not self._full:
            self._freed.set()
        return item

    @property
    def _full(self) -> bool:
        return len(self._queue) >= _MOST_EVENTS or self._bytes >= _MOST_BYTES

    # ---- the connection asks ----------------------------------------------------------------------------------------

    async def _open(self, extra: Mapping[str, str]) -> aiohttp.ClientResponse | None:
        first = not self._connection.connects
        try:
            response: aiohttp.ClientResponse = await self._opener(extra)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise InvalidRequestError("the URL of the stream cannot be right", argument="url") from None
        except AIOHTTP_FAILURES as error:
            failure = _failure(error)
        else:
            return self._checked(response, first)
        self._failures += 1
        if first and self._failures > self._retry:
            raise _unreachable(failure) from failure
        raise failure

    def _checked(self, response: aiohttp.ClientResponse, first: bool) -> aiohttp.ClientResponse | None:
        status = response.status
        if status == 200 and response.content_type == "text/event-stream":
            self._origin = str(response.real_url.origin())
            return response
        wait = retry_after(response.headers)
        response.close()
        if status == 204 and not first:
            return None
        if not first and (status in _PASSING or status >= 500):
            raise _passing(status, wait)
        if status == 200:
            raise EventSourceAborted("the reply is not an event stream", status)
        if status in _REFUSALS:
            raise EventSourceRefused(f"the server refused the stream with status {status}", status)
        if status >= 400:
            raise EventSourceError(f"the server answered with status {status}", status)
        raise EventSourceAborted(f"the server answered with status {status}, not with a stream", status)

    def connected(self, headers: Mapping[str, str], attempts: int) -> None:
        """Put a mark; see `Receiver`."""
        self._put([_Opened(self._origin)])

    def received(self, events: list[ServerSentEvent], decoder: SSEDecoder) -> None:
        """Put the events; see `Receiver`."""
        if events:
            self._bytes += sum(len(event.data) for event in events)
            self._put(events)

    def lost(self, error: NexError | None, attempt: int, delay: float) -> None:
        """Put a mark; see `Receiver`."""
        self._put([_Lost()])

    async def room(self) -> None:
        """Wait until less is in the queue than it may hold; see `Receiver`."""
        while self._full:
            self._freed.clear()
            await self._freed.wait()

    def _put(self, items: list[Any]) -> None:
        self._queue.extend(items)
        self._changed.set()


class _Decoder(SSEDecoder):
    """Tells an event without a name, whose name here is empty, from one that is called `message`."""

    def _take_frames(self, data: bytes, start: int, events: list[ServerSentEvent]) -> int:
        count = len(events)
        end = super()._take_frames(data, start, events)
        if data.startswith(b"data:", start):
            events[count:] = [event._replace(event="") for event in events[count:]]
        return end

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        count, named = len(events), self._event
        super()._dispatch(events)
        events[count:] = [event._replace(event=named) for event in events[count:]]


def _failure(error: BaseException) -> NexError:
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)) and not isinstance(error, aiohttp.ClientError):
        return Timeout("the stream did not open in time", sent="maybe", phase="headers")
    return failure_of(error, "headers", False)


def _passing(status: int, wait: float | None) -> APIError:
    kind = RateLimitError if status == 429 else ServerError if status >= 500 else APIError
    return kind(f"the server answered with status {status}", status=status, retry_after=wait)


def _unreachable(failure: NexError) -> EventSourceUnreachable:
    return EventSourceUnreachable(f"the stream cannot be reached: {failure.message}")


def _as_known(error: NexError) -> NexError:
    """Return what users of aiohttp-sse-client know to catch."""
    if isinstance(error, (EventSourceError, InvalidRequestError)):
        return error
    known = _unreachable(error) if isinstance(error, TransportError) else EventSourceAborted(error.message)
    known.__cause__ = error
    return known
