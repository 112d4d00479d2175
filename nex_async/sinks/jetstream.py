"""A NATS JetStream stream as a sink; needs nats-py: ``pip install "nex-async[nats]"``."""

from __future__ import annotations

from collections.abc import Sequence

from nats import errors
from nats.js import JetStreamContext
from nats.js import errors as js_errors

from ..errors import SinkUnavailable
from ..feeds.events import InsightEvent
from .message import encode

__all__ = ["JetStreamSink"]

_MAY_PASS = (
    errors.TimeoutError,
    errors.ConnectionReconnectingError,
    errors.StaleConnectionError,
    errors.OutboundBufferLimitError,
    errors.NoServersError,
    js_errors.NoStreamResponseError,
    js_errors.ServiceUnavailableError,
    js_errors.ServerError,
)


class JetStreamSink:
    """Publishes each insight to JetStream, one after the other, each confirmed by the server before the next is sent.

    `jetstream` is that of your own connection (`connection.jetstream()`), which stays open; give it
    `max_reconnect_attempts=-1`, or it gives up for good after a while. `subject` belongs to a stream that you have made;
    `stream`, if given, must be its name, or the server refuses. The message is that of `nex_async.sinks.encode`, its header
    `Nats-Msg-Id` the insight's key: what comes again within the stream's duplicate window (two minutes unless you set
    another) is not stored again; later it is, with `redelivered` true.

    `write` raises `SinkUnavailable` while the server or the stream cannot be reached, or is full, and else what the client
    raises.
    """

    def __init__(self, jetstream: JetStreamContext, subject: str, *, stream: str | None = None) -> None:
        self.written: int = 0
        """How many insights the server has stored."""
        self.duplicates: int = 0
        """How many it had already."""
        self._jetstream = jetstream
        self._subject = subject
        self._stream = stream

    async def write(self, events: Sequence[InsightEvent], /) -> None:
        """Publish insights; see `InsightSink`."""
        for event in events:
            await self._publish(event)

    async def _publish(self, event: InsightEvent) -> None:
        headers = {"Nats-Msg-Id": event.key}
        try:
            confirmed = await self._jetstream.publish(self._subject, encode(event), stream=self._stream, headers=headers)
        except _MAY_PASS as error:
            raise SinkUnavailable(f"JetStream cannot take insights at present: {error}") from error
        if confirmed.duplicate:
            self.duplicates += 1
        else:
            self.written += 1
