"""Sans-io decoder of server-sent events: bytes in, events out, by the WHATWG rules, whatever the chunk boundaries."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

__all__ = ["SSEDecoder", "ServerSentEvent"]

_BOM = b"\xef\xbb\xbf"
_COMMENT_KEPT = 1024
_NAME_LEARNT = 256
_PART = 4096


class ServerSentEvent(NamedTuple):
    """One event: its name (`message` where the stream gives none), its data as bytes, and the last id in force."""

    event: str
    data: bytes
    id: str


_made = partial(tuple.__new__, ServerSentEvent)


class SSEDecoder:
    """Feed it chunks; it returns the events they complete.

    `max_event_bytes` bounds every line, a comment too, and the data of every event. What is larger is passed over and held
    by nobody: the event it belongs to is dropped whole (`oversize` counts them) and decoding goes on behind the next blank
    line, whatever the chunks. Time is linear in the bytes fed.

    `last_event_id` is the id of the latest complete event or of one before it; `retry_ms` is the reconnection time the
    stream last asked for, in milliseconds. `comments` counts comment lines; `first_comment` (None until one came) and
    `last_comment` are the stream's, without the colon, up to 1 KiB. `replaced` counts the calls of `text` that met invalid
    UTF-8.
    """

    def __init__(self, max_event_bytes: int = 16 * 1024 * 1024) -> None:
        self.last_event_id: str = ""
        self.retry_ms: int | None = None
        self.comments: int = 0
        self.first_comment: bytes | None = None
        self.last_comment: bytes = b""
        self.oversize: int = 0
        self.replaced: int = 0
        self._max = max_event_bytes
        self._started = False
        self._head = b""
        self._skip_line_feed = False
        self._line: list[bytes] = []
        self._line_size = 0
        self._passing_over = False
        self._dropping = False
        self._event = ""
        self._id = ""
        self._data: list[bytes] = []
        self._data_size = 0
        self._frame = b"data: "
        self._next_frame = b"\n\ndata: "
        self._frame_event = "message"

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Return the events that `data` completes, in order; it raises nothing, whatever the bytes."""
        events: list[ServerSentEvent] = []
        if not self._started or self._skip_line_feed or b"\r" in data:
            data = self._normalised(data)
        start = 0
        if self._line or self._passing_over:
            start = self._end_line(data, events)
        between_events = not (self._event or self._data or self._dropping)
        while start < len(data):
            if between_events:
                start = self._take_frames(data, start, events)
            end = data.find(b"\n", start)
            if end < 0:
                self._keep(data[start:])
                break
            between_events = end == start
            self._take_line(data[start:end], events)
            start = end + 1
        return events

    def text(self, event: ServerSentEvent) -> str:
        """Return the data of `event` as text; bytes that are no UTF-8 become U+FFFD, and `replaced` counts the event."""
        try:
            return event.data.decode()
        except UnicodeDecodeError:
            self.replaced += 1
            return event.data.decode("utf-8", "replace")

    def close(self) -> None:
        """End the stream: an event without its blank line is dropped, its id too, as the rules say.

        What is fed next begins another stream, in which the last id stays in force.
        """
        self._started, self._head, self._skip_line_feed = False, b"", False
        self._line, self._line_size, self._passing_over = [], 0, False
        self._id = self.last_event_id
        self._reset()

    def _normalised(self, data: bytes) -> bytes:
        """Return `data` with LF line ends only, and without the byte order mark a stream may begin with."""
        if not self._started:
            data = self._head + data
            if _BOM.startswith(data):
                self._head = data
                return b""
            self._started, self._head, self.first_comment = True, b"", None
            data = data.removeprefix(_BOM)
        if self._skip_line_feed and data:
            self._skip_line_feed = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._skip_line_feed = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _take_frames(self, data: bytes, start: int, events: list[ServerSentEvent]) -> int:
        """Take the events from `start` on that are a name line and a data line, all of one name; return where they end.

        Most streams are nothing else, and this takes a quarter of the time: one search for each event.
        """
        if not (data.startswith(self._frame, start) or self._learn_frame(data, start)) or len(data) > self._max:
            return start
        name, last_id, frame, next_frame = self._frame_event, self._id, self._frame, self._next_frame
        find, matches, step = data.find, data.startswith, len(next_frame)
        at = start + len(frame)
        while matches(next_frame, end := find(b"\n", at)):
            events.append(_made((name, data[at:end], last_id)))
            at = end + step
        start = at - len(frame)
        if end >= 0 and matches(b"\n\n", end):
            events.append(_made((name, data[at:end], last_id)))
            start = end + 2
        if events:
            self.last_event_id = last_id
        return start

    def _learn_frame(self, data: bytes, start: int) -> bool:
        """Make the frame at `start` the one to look for; return whether there is one."""
        if data.startswith(b"data: ", start):
            at, name = start, "message"
        elif data.startswith(b"event: ", start):
            at = data.find(b"\n", start, start + _NAME_LEARNT) + 1
            name = data[start + 7 : at - 1].decode("utf-8", "replace") or "message"
        else:
            return False
        if not at or not data.startswith(b"data: ", at):
            return False
        self._frame, self._frame_event = data[start : at + 6], name
        self._next_frame = b"\n\n" + self._frame
        return True

    def _end_line(self, data: bytes, events: list[ServerSentEvent]) -> int:
        """Take the line that earlier chunks began, if `data` ends it; return where the next one starts."""
        end = data.find(b"\n")
        if end < 0:
            self._keep(data)
            return len(data)
        if self._passing_over:
            self._passing_over = False
        else:
            self._line.append(data[:end])
            line = b"".join(self._line)
            self._line, self._line_size = [], 0
            self._take_line(line, events)
        return end + 1

    def _keep(self, part: bytes) -> None:
        """Hold the part of an unfinished line; small parts are joined, so that a byte held costs little more than a byte."""
        if self._passing_over or not part:
            return
        self._line_size += len(part)
        if self._line_size > self._max:
            self._drop_event()
            self._line, self._line_size, self._passing_over = [], 0, True
        else:
            _append(self._line, part)

    def _drop_event(self) -> None:
        if not self._dropping:
            self.oversize += 1
        self._dropping = True
        self._data, self._data_size = [], 0

    def _take_line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if not line:
            self._dispatch(events)
        elif len(line) > self._max:
            self._drop_event()
        elif line.startswith(b"data:"):
            self._take_data(line[6:] if line.startswith(b" ", 5) else line[5:])
        elif line.startswith(b":"):
            self.comments += 1
            self.last_comment = line[1 : 1 + _COMMENT_KEPT]
            if self.first_comment is None:
                self.first_comment = self.last_comment
        else:
            name, _, value = line.partition(b":")
            self._take_field(name, value.removeprefix(b" "))

    def _take_data(self, value: bytes) -> None:
        if self._dropping:
            return
        if not self._data:
            self._data, self._data_size = [value], len(value)
        elif self._data_size + len(value) < self._max:
            self._data_size += len(value) + 1
            _append(self._data, b"\n" + value)
        else:
            self._drop_event()

    def _take_field(self, name: bytes, value: bytes) -> None:
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"data":
            self._take_data(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self.retry_ms = int(value.lstrip(b"0")[:18] or b"0")

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        self.last_event_id = self._id
        if self._data:
            events.append(_made((self._event or "message", b"".join(self._data), self._id)))
        self._reset()

    def _reset(self) -> None:
        self._event, self._data, self._data_size, self._dropping = "", [], 0, False


def _append(parts: list[bytes], part: bytes) -> None:
    if parts and len(parts[-1]) < _PART:
        parts[-1] += part
    else:
        parts.append(part)
