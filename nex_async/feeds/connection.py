"""StreamConnection: one event stream that refuses to die: watchdog, backoff, reconnect, and rotation when it is old."""

from __future__ import annotations

import asyncio
import logging
import random
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from .._logfields import fields_of
from ..errors import APIError, ConnectionLost, DecodeError, NexError, Timeout, TLSError, outcome_of
from ..transport.faults import AIOHTTP_FAILURES, failure_of
from ..transport.retry import classify
from .sse import ServerSentEvent, SSEDecoder

__all__ = ["Receiver", "StreamConnection", "StreamPolicy"]

_log = logging.getLogger("nex_async.feeds")

_RETRY_MS = (500, 60_000)
"""What a server may ask for with `retry:`; more or less is brought into these bounds."""
_MOST_RETRY_AFTER = 3600.0
_SLOW_FIRST_BYTE = 10.0
_PIECE = 1 << 20
_SECOND_LOOK = 0.25
"""Before a silent stream is given up, what a busy event loop left in the socket has so many seconds to be read."""
_OVERLAP = 1.0
"""So many seconds an old connection is still read once its successor stands: what was under way arrives."""


@dataclass(frozen=True)
class StreamPolicy:
    """How patient a stream is. Times in seconds.

    `silence` is how long no byte may come, a comment included. Waits between attempts double from `backoff` to
    `most_backoff` with jitter, and begin anew once a connection lived for `health`. A connection is replaced at an age drawn
    from `age`; the new one stands before the old one is closed. At most `per_minute` attempts are made in a minute, and one
    in a second.
    """

    silence: float = 75.0
    backoff: float = 1.0
    most_backoff: float = 30.0
    health: float = 60.0
    age: tuple[float, float] | None = (1800.0, 3600.0)
    per_minute: int = 20


class Receiver(Protocol):
    """Who gets what a connection brings. None of these may raise; only `room` waits."""

    def connected(self, headers: Mapping[str, str], attempts: int) -> None:
        """Learn that the stream stands."""

    def received(self, events: list[ServerSentEvent], decoder: SSEDecoder) -> None:
        """Take the events that one read completed; comments alone come as an empty list."""

    def lost(self, error: NexError | None, attempt: int, delay: float) -> None:
        """Learn that the stream ended, or could not be opened, and when the next attempt follows."""

    async def room(self) -> None:
        """Return once more can be taken; until then nothing is read from the socket."""


Opener = Callable[[Mapping[str, str]], Awaitable["aiohttp.ClientResponse | None"]]
"""Opens the stream with some extra headers; None when the server says that there is nothing more. Raises `NexError`."""


class StreamConnection:
    """Keeps one stream open for as long as `run()` runs."""

    def __init__(
        self,
        opener: Opener,
        receiver: Receiver,
        policy: StreamPolicy | None = None,
        decoder: Callable[[], SSEDecoder] = SSEDecoder,
    ) -> None:
        self.policy: StreamPolicy = policy or StreamPolicy()
        self.connects: int = 0
        self.last_byte: float | None = None
        """When the last byte came, in the loop's time."""
        self._opener = opener
        self._receiver = receiver
        self._new_decoder = decoder
        self._decoder = decoder()
        self._response: aiohttp.ClientResponse | None = None
        self._successor: asyncio.Task[aiohttp.ClientResponse | None] | None = None
        self._attempts: deque[float] = deque(maxlen=self.policy.per_minute)
        self._failures = 0
        self._retry = 0.0
        self._rotating = False
        self._stale = False
        self._holding = False
        self._suspected = False
        self._timers: list[asyncio.TimerHandle] = []
        self._watchdog: asyncio.TimerHandle | None = None

    @property
    def standing(self) -> bool:
        """Whether the stream stands now."""
        return self._response is not None

    @property
    def last_event_id(self) -> str:
        """The last id the stream gave, as the next connection tells it to the server."""
        return self._decoder.last_event_id

    async def run(self) -> None:
        """Keep the stream open until the server says that there is no more. Raises what no other attempt can mend."""
        try:
            while True:
                error: NexError | None = None
                try:
                    response = await self._open()
                    if response is None:
                        return
                    await self._read(response)
                except NexError as failure:
                    if self._is_permanent(failure):
                        raise
                    error = failure
                if self._successor is None:
                    await self._pause(error)
        finally:
            await self._close()

    def rotate(self) -> None:
        """Replace the connection by a new one, without a hole: the old one ends when the new one stands."""
        if self._response is not None and self._successor is None:
            self._successor = asyncio.get_running_loop().create_task(self._attempt())
            self._successor.add_done_callback(self._succeeded)

    def _succeeded(self, task: asyncio.Task[aiohttp.ClientResponse | None]) -> None:
        if task.cancelled() or self._successor is not task:
            return
        if task.exception() is not None or task.result() is None:
            self._successor = None
            if self._response is not None:
                self._timers.append(asyncio.get_running_loop().call_later(60.0, self.rotate))
        elif self._response is not None:
            self._timers.append(asyncio.get_running_loop().call_later(_OVERLAP, self._retire))

    def _retire(self) -> None:
        """End the old connection, now that the new one stands."""
        assert self._response is not None
        self._rotating = True
        _abort(self._response, aiohttp.ClientConnectionError("replaced by a new connection"))

    # ---- opening ----------------------------------------------------------------------------------------------------

    async def _open(self) -> aiohttp.ClientResponse | None:
        successor = self._successor
        if successor is None:
            return await self._attempt()
        await asyncio.wait([successor])  # when this is cancelled, the successor stays for `_close`
        self._successor = None
        return successor.result()

    async def _attempt(self) -> aiohttp.ClientResponse | None:
        await self._keep_rate()
        headers = {"Last-Event-ID": self.last_event_id} if self.last_event_id else {}
        return await self._opener(headers)

    async def _keep_rate(self) -> None:
        """Wait until another attempt keeps within one a second and `per_minute` a minute."""
        loop = asyncio.get_running_loop()
        while True:
            now, past = loop.time(), self._attempts
            wait = past[-1] + 1.0 - now if past else 0.0
            if len(past) == past.maxlen:
                wait = max(wait, past[0] + 60.0 - now)
            if wait <= 1e-6:
                break
            await asyncio.sleep(wait)
        self._attempts.append(loop.time())

    def _is_permanent(self, error: NexError) -> bool:
        if isinstance(error, DecodeError):
            return True
        if isinstance(error, TLSError) and self.connects:
            return False  # a certificate that was good once will be renewed
        return classify(error) in ("final", "conflict")

    async def _pause(self, error: NexError | None) -> None:
        delay = self._delay(error)
        self._failures += 1
        self._receiver.lost(error, self._failures, delay)
        if error is None:
            _log.info("the stream ended; next attempt in %.1f s", delay, extra={"nex_delay": delay})
        else:
            fields = fields_of(error, delay=delay, attempt=self._failures)
            _log.info("the stream failed (%s); next attempt in %.1f s", outcome_of(error), delay, extra=fields)
        await asyncio.sleep(delay)

    def _delay(self, error: NexError | None) -> float:
        policy, asked = self.policy, self._retry
        if self._failures == 0:
            delay = random.uniform(0.0, policy.backoff)
        else:
            delay = min(policy.most_backoff, policy.backoff * 2.0 ** min(self._failures, 16)) * random.uniform(0.67, 1.0)
        if isinstance(error, APIError) and error.retry_after is not None:
            asked = max(asked, min(error.retry_after, _MOST_RETRY_AFTER))
        return max(delay, asked * random.uniform(1.0, 1.1))

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        """Hand on what the stream brings until it ends. Raises when it breaks."""
        loop, content = asyncio.get_running_loop(), response.content
        inflate, decoder = _inflater(response), self._next_decoder()
        self._response, self._rotating, self._stale, self._suspected = response, False, False, False
        began = self.last_byte = loop.time()
        self.connects += 1
        self._receiver.connected(response.headers, self._failures + 1)
        self._set_timers(began)
        _wake_when_closed(response)
        first, failure = True, None
        try:
            while True:
                try:
                    chunk = await content.readany()
                except AIOHTTP_FAILURES as error:
                    chunk, failure = _remainder(content), error
                ended = not chunk
                if chunk:
                    if first and loop.time() > began + _SLOW_FIRST_BYTE:
                        _note_slow(loop.time() - began)
                    first = False
                    await self._hand_on((chunk,) if inflate is None else inflate(chunk), decoder)
                chunk = b""  # not to be kept while the next is waited for
                if failure is not None:
                    raise failure
                if ended:
                    return
        except AIOHTTP_FAILURES as error:
            if self._rotating:
                return
            if self._stale:
                raise Timeout(f"no byte for {self.policy.silence:.0f} s", sent="maybe", phase="body") from None
            lost = failure_of(error, "body", False)
            raise lost if isinstance(lost, ConnectionLost) else ConnectionLost(lost.message) from None
        finally:
            self._note_retry(decoder.retry_ms)
            if loop.time() - began >= self.policy.health:
                self._failures = 0
            decoder.close()
            self._clear()
            response.close()

    def _next_decoder(self) -> SSEDecoder:
        """Return a new decoder in which the last id is in force."""
        last_id, self._decoder = self._decoder.last_event_id, self._new_decoder()
        self._decoder.last_event_id = last_id
        self._decoder.close()
        return self._decoder

    async def _hand_on(self, pieces: Iterable[bytes], decoder: SSEDecoder) -> None:
        receiver = self._receiver
        try:
            for piece in pieces:
                receiver.received(decoder.feed(piece), decoder)
                self._holding = True
                await receiver.room()
        finally:
            self._holding = False
            # While there was no room, it was we who did not read.
            self.last_byte = asyncio.get_running_loop().time()

    def _note_retry(self, milliseconds: int | None) -> None:
        if milliseconds is not None:
            self._retry = min(max(milliseconds, _RETRY_MS[0]), _RETRY_MS[1]) / 1000.0

    def _set_timers(self, began: float) -> None:
        loop = asyncio.get_running_loop()
        self._watchdog = loop.call_at(began + self.policy.silence, self._watch)
        if self.policy.age is not None:
            self._timers.append(loop.call_later(random.uniform(*self.policy.age), self.rotate))

    def _watch(self) -> None:
        """End a connection that has been silent for too long; be patient with one that we ourselves did not read.

        A blocked event loop fires this before it reads what lies in the socket, so that nothing ends at the first look.
        """
        loop = asyncio.get_running_loop()
        assert self._response is not None  # `_clear` takes the timer along
        assert self.last_byte is not None
        now = loop.time()
        until = (now if self._holding else self.last_byte) + self.policy.silence
        if now < until:
            self._suspected = False
            self._watchdog = loop.call_at(until, self._watch)
        elif not self._suspected:
            self._suspected = True
            self._watchdog = loop.call_later(_SECOND_LOOK, self._watch)
        else:
            self._stale = True
            _abort(self._response, aiohttp.ClientConnectionError("silent for too long"))

    def _clear(self) -> None:
        self._response = None
        for timer in (self._watchdog, *self._timers):
            if timer is not None:
                timer.cancel()
        self._watchdog = None
        self._timers.clear()

    async def _close(self) -> None:
        self._clear()
        successor, self._successor = self._successor, None
        if successor is not None:
            successor.add_done_callback(_close_reply)
            successor.cancel()
            await asyncio.wait([successor])


def _note_slow(elapsed: float) -> None:
    _log.warning("the stream's first byte took %.0f s: something buffers it", elapsed, extra={"nex_elapsed": elapsed})


def _inflater(response: aiohttp.ClientResponse) -> Callable[[bytes], Iterator[bytes]] | None:
    """Return what undoes the compression of a stream, in pieces; None for one that is not compressed, as was asked."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in ("gzip", "x-gzip", "deflate"):
        response.close()
        raise DecodeError("the stream is compressed in a way that was not asked for", status=response.status)
    window = 15 if encoding == "deflate" else 47
    unpack = zlib.decompressobj(window)

    def inflate(chunk: bytes) -> Iterator[bytes]:
        nonlocal unpack
        try:
            while chunk:
                yield unpack.decompress(chunk, _PIECE)
                chunk = unpack.unconsumed_tail
                if unpack.eof:  # some servers begin anew at every flush
                    chunk, unpack = unpack.unused_data, zlib.decompressobj(window)
        except zlib.error:
            raise ConnectionLost("the stream's compression is damaged") from None

    return inflate


def _remainder(content: aiohttp.StreamReader) -> bytes:
    """Return what came before the connection broke, and was not read yet."""
    content.set_exception(None)  # type: ignore[arg-type]
    return content.read_nowait()


def _wake_when_closed(response: aiohttp.ClientResponse) -> None:
    """Let the reader learn that the connection is gone: aiohttp does not tell it of chunks that are framed wrongly."""
    protocol = getattr(getattr(response, "connection", None), "protocol", None)
    closed: asyncio.Future[None] | None = getattr(protocol, "closed", None)
    content = response.content

    def tell(closed: asyncio.Future[None]) -> None:
        if not closed.cancelled():
            closed.exception()
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the stream is framed wrongly"))

    if closed is not None:
        closed.add_done_callback(tell)


def _close_reply(task: asyncio.Task[aiohttp.ClientResponse | None]) -> None:
    if not task.cancelled() and task.exception() is None and (response := task.result()) is not None:
        response.close()


def _abort(response: aiohttp.ClientResponse, error: Exception) -> None:
    """Close a connection and wake whoever reads it."""
    response.content.set_exception(error)
    response.close()
