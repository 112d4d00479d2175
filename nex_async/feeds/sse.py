"""Sans-io decoder of server-sent events: bytes in, events out, by the WHATWG rules, whatever the chunk boundaries."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SSEDecoder", "ServerSentEvent"]

_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """One event: its name (`message` where the stream gives none), its data as bytes, and the last id in force."""

    event: str
    data: bytes
    id: str


class SSEDecoder:
    """Feed it chunks; it returns the events they complete.

    `max_event_bytes` bounds one event and one line; a larger event is dropped whole (`oversize` counts them) and decoding
    goes on behind the next blank line. `comments` counts comment lines; `last_comment` is the latest, without its colon.
    `retry_ms` is the reconnection time the stream last asked for.
    """

    def __init__(self, max_event_bytes: int = 16 * 1024 * 1024) -> None:
        self.last_event_id: str = ""
        self.retry_ms: int | None = None
        self.comments: int = 0
        self.last_comment: bytes = b""
        self.oversize: int = 0
        self._max = max_event_bytes
        self._started = False
        self._head = b""
        self._skip_line_feed = False
        self._line: list[bytes] = []
        self._line_size = 0
        self._dropping = False
        self._event = ""
        self._id = ""
        self._data: list[bytes] = []
        self._data_size = 0

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Return the events that `data` completes, in order."""
        data = self._normalised(data)
        if not data:
            return []
        events: list[ServerSentEvent] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            line = data[start:end]
            if self._line:
                line = self._joined(line)
            self._take_line(line, events)
            start = end + 1
        if start < len(data):
            self._keep(data[start:])
        return events

    def close(self) -> None:
        """End the stream: an event without its blank line is dropped, as the rules say."""
        self._line, self._line_size = [], 0
        self._reset()

    def _normalised(self, data: bytes) -> bytes:
        """Return `data` with LF line ends only, and without the byte order mark a stream may begin with."""
        if not self._started:
            data = self._head + data
            if len(data) < 3 and _BOM.startswith(data):
                self._head = data
                return b""
            self._started, self._head = True, b""
            data = data.removeprefix(_BOM)
        if self._skip_line_feed and data:
            self._skip_line_feed = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._skip_line_feed = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _joined(self, last: bytes) -> bytes:
        self._line.append(last)
        line = b"".join(self._line)
        self._line, self._line_size = [], 0
        return line

    def _keep(self, part: bytes) -> None:
        self._line_size += len(part)
        if self._line_size > self._max:
            self._drop_event()
            # Only whether the line is empty still matters.
            self._line, self._line_size = [b":"], 1
        else:
            self._line.append(part)

    def _drop_event(self) -> None:
        if not self._dropping:
            self.oversize += 1
        self._dropping = True
        self._data, self._data_size = [], 0

    def _take_line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if not line:
            self._dispatch(events)
        elif line[0] == 58:  # a colon
            self.comments += 1
            self.last_comment = line[1:1025]
        else:
            name, _, value = line.partition(b":")
            self._take_field(name, value[1:] if value[:1] == b" " else value)

    def _take_field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            self._data_size += len(value) + 1
            if self._data_size > self._max:
                self._drop_event()
            elif not self._dropping:
                self._data.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 16:
            self.retry_ms = int(value)

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        self.last_event_id = self._id
        if self._data and not self._dropping:
            events.append(ServerSentEvent(self._event or "message", b"\n".join(self._data), self._id))
        self._reset()

    def _reset(self) -> None:
        self._event, self._data, self._data_size, self._dropping = "", [], 0, False
