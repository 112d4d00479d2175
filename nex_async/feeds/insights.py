"""InsightFeed: the insights of one stream connection, one event for each."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

import aiohttp

from ..errors import ClientClosed, DeadlineExceeded, DecodeError, NexError, ProtocolError
from ..models import Insight, InsightBatch
from ..models.insights import decode_insights
from ..routes import STREAM_INSIGHTS
from ..transport import wire
from ..transport.body import read_error
from ..transport.call import describe
from ..transport.faults import AIOHTTP_FAILURES, failure_of
from ..transport.options import RequestOptions, Settings
from ..transport.sender import Sender
from .sse import ServerSentEvent, SSEDecoder

__all__ = ["InsightEvent", "InsightFeed"]

Source: TypeAlias = Literal["replay", "live"]
_REQUEST = wire.build(STREAM_INSIGHTS)
_SOURCES: dict[str, Source] = {"insight.replay": "replay", "insight.batch.created": "live"}


@dataclass(frozen=True, slots=True)
class InsightEvent:
    """One insight from the stream.

    `source` is `replay` for one of the up to 20 recent insights every connection begins with, `live` for a new one; `batch`
    is the envelope it came in.
    """

    source: Source
    insight: Insight
    batch: InsightBatch


class InsightFeed:
    """The insights of one connection to the stream: first the replay, then what is new.

    Use it as ``async with nex.insights.stream() as feed: async for event in feed: ...``; a loop that is left can be taken up
    again, and loses nothing. Opening takes at most 60 seconds, or `timeout=`, and raises `APIError` when the server refuses.
    The iteration ends when the server ends the stream or the feed is closed; it raises `Timeout` after 75 seconds without a
    byte (the server sends a keepalive every 30), or another `TransportError` when the connection breaks. A payload that
    cannot be decoded costs only itself and is counted in `undecodable`; events of other names are counted in `unknown`.
    """

    def __init__(self, sender: Sender, options: RequestOptions) -> None:
        self._sender = sender
        self._options = options
        self._response: aiohttp.ClientResponse | None = None
        self._decoder = SSEDecoder()
        self._pending: deque[InsightEvent] = deque()
        self._opened = False
        self.undecodable: int = 0
        self.unknown: int = 0

    async def __aenter__(self) -> InsightFeed:
        self._response = await self._open()
        self._opened = True
        self._sender.state.streams.add(self)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        self.abort()

    def abort(self) -> None:
        """Close the connection at once; a reader that waits on it is woken."""
        self._sender.state.streams.discard(self)
        response, self._response = self._response, None
        if response is not None:
            response.content.set_exception(aiohttp.ClientConnectionError("the feed was closed"))
            response.close()

    async def _open(self) -> aiohttp.ClientResponse:
        sender = self._sender
        if sender.state.closed:
            raise ClientClosed("the client is closed")
        settings = sender.settings.merged(self._options) if self._options else sender.settings
        request = _REQUEST._replace(headers=settings.headers)
        failure: NexError
        try:
            return await asyncio.wait_for(self._connect(settings, request), settings.seconds_left("stream"))
        except asyncio.TimeoutError:
            failure = DeadlineExceeded("the deadline passed before the stream was open", sent="maybe")
        except NexError as error:
            failure = error
        raise describe(failure, STREAM_INSIGHTS, request)

    async def _connect(self, settings: Settings, request: wire.Request) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=settings.timeouts.connect,
            sock_read=settings.timeouts.read or 75.0,
            ceil_threshold=1e12,
        )
        response = await self._sender.bind().open_stream(request, timeout)
        try:
            await _check(response)
        except BaseException:
            response.close()
            raise
        return response

    def __aiter__(self) -> InsightFeed:
        return self

    async def __anext__(self) -> InsightEvent:
        if not self._opened:
            raise ProtocolError("the feed is not open; use `async with nex.insights.stream() as feed:`", sent="no")
        while not self._pending:
            chunk = await self._chunk()
            if not chunk:
                raise StopAsyncIteration
            for event in self._decoder.feed(chunk):
                self._take(event)
        return self._pending.popleft()

    def _take(self, event: ServerSentEvent) -> None:
        source = _SOURCES.get(event.event)
        if source is None:
            self.unknown += 1
        else:
            self._pending.extend(self._decode(source, event.data))

    async def _chunk(self) -> bytes:
        """Return the next bytes; none once the server has ended the stream or the feed was closed."""
        failure: NexError
        response = self._response
        if response is not None:
            try:
                return await response.content.readany()
            except AIOHTTP_FAILURES as error:
                failure = failure_of(error, "body", False)
            if self._response is not None:
                raise describe(failure, STREAM_INSIGHTS, _REQUEST)
        if self._sender.state.closed:
            raise ClientClosed("the client was closed")
        return b""

    def _decode(self, source: Source, data: bytes) -> list[InsightEvent]:
        try:
            batch = decode_insights(data)
        except DecodeError:
            self.undecodable += 1
            return []
        self.undecodable += len(batch.errors)
        return [InsightEvent(source, insight, batch) for insight in batch.insights]


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
