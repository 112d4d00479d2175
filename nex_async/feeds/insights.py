"""InsightFeed: the insights of one stream connection, one event for each."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import aiohttp

from ..errors import DecodeError, NexError, ProtocolError
from ..models import Insight, InsightBatch
from ..models.insights import decode_insights
from ..routes import STREAM_INSIGHTS
from ..transport import wire
from ..transport.body import read_error
from ..transport.faults import AIOHTTP_FAILURES, failure_of
from ..transport.options import RequestOptions
from ..transport.sender import Sender
from .sse import SSEDecoder

__all__ = ["InsightEvent", "InsightFeed"]

Source: TypeAlias = Literal["replay", "live"]
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

    Use it as ``async with nex.insights.stream() as feed: async for event in feed: ...``. The iteration ends when the server
    ends the stream, and raises `Timeout` after 75 seconds without a byte (the server sends a keepalive every 30), or
    another `TransportError` when the connection breaks; opening raises `APIError` when the server refuses. A payload that
    cannot be decoded costs only itself and is counted in `undecodable`; events of other names are counted in `unknown`.
    """

    def __init__(self, sender: Sender, options: RequestOptions) -> None:
        self._sender = sender
        self._options = options
        self._response: aiohttp.ClientResponse | None = None
        self._decoder = SSEDecoder()
        self.undecodable: int = 0
        self.unknown: int = 0

    async def __aenter__(self) -> InsightFeed:
        self._response = await self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        if self._response is not None:
            self._response.close()
            self._response = None

    async def _open(self) -> aiohttp.ClientResponse:
        sender = self._sender
        settings = sender.settings.merged(self._options) if self._options else sender.settings
        request = wire.build(STREAM_INSIGHTS, headers=settings.headers)
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=settings.timeouts.connect,
            sock_read=settings.timeouts.read or 75.0,
            ceil_threshold=1e12,
        )
        response = await sender.bind().open_stream(request, timeout)
        try:
            await _check(response)
        except BaseException:
            response.close()
            raise
        return response

    async def __aiter__(self) -> AsyncGenerator[InsightEvent, None]:
        response = self._response
        if response is None:
            raise ProtocolError("the feed is not open; use `async with nex.insights.stream() as feed:`", sent="no")
        while chunk := await self._chunk(response):
            for event in self._decoder.feed(chunk):
                source = _SOURCES.get(event.event)
                if source is None:
                    self.unknown += 1
                    continue
                for insight_event in self._decode(source, event.data):
                    yield insight_event

    async def _chunk(self, response: aiohttp.ClientResponse) -> bytes:
        failure: NexError
        try:
            return await response.content.readany()
        except AIOHTTP_FAILURES as error:
            failure = failure_of(error, "body", False)
        raise failure

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
