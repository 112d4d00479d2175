"""The load target of the feeds: a process of its own that writes event streams from memory as fast as they are taken.

Under the base paths `/flood/{count}`, `/quick/{count}` and `/pace/{count}/{rate}` lies a small Nex: `v1/insights/stream`
greets, replays twenty insights, then brings `count` new ones, each in a batch of its own; `v1/insights` lists what was
written so far, the same contents with ids. `quick` does not wait; `flood` and `pace` begin when the list has been read since
the stream was opened; `pace` writes so many insights a second, the nanoseconds of `time.monotonic_ns()` in each content.
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from multiprocessing.connection import Connection
from urllib.parse import parse_qs, urlsplit

from .server import elsewhere, last_core

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
STEP = timedelta(milliseconds=10)
"""So much of the server's time passes from one insight of a flood to the next; at a pace it is the real time."""
REPLAYED = 20
_PIECE = 256 * 1024
_PADDING = "Ordered twelve presses for the new plant, wants them before the autumn fair, asks for a second quote. "


def chunk(content: bytes) -> bytes:
    """Return a chunk of a chunked reply; an empty one ends it."""
    return b"%x\r\n%s\r\n" % (len(content), content)


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _batch(name: str, content: str, moment: datetime) -> bytes:
    """Return a frame of one insight, about 1 kB, as the stream brings it."""
    stamp = _stamp(moment)
    insight = {
        "type": "commitment", "type_description": "Something the customer has promised to do", "content": content,
        "confidence": 0.91, "confidence_level": "very_high", "valid_from": stamp, "valid_until": None,
        "created_by": "insight-engine", "created_at": stamp,
        "target": {
            "type": "entity", "entity_type": "company", "hint": "Alder Machines", "anchors": {"domain": "alder.example"},
            "signals": [{"type": "domain", "value": "alder.example", "confidence": 0.97, "observation_count": 4,
                         "last_observed_at": stamp}],
        },
        "evidence": [{
            "excerpt": "we will sign before the end of the month", "excerpt_description": "From the second call",
            "artifact": {"type": "email", "occurred_at": stamp, "subject": "Renewal", "content": "Dear all, as agreed"},
        }],
    }  # fmt: skip
    workspace = {"name": "Alder", "slug": "alder", "business_info": {"name": "Alder", "domain": "alder.example"}}
    payload = {"workspace": workspace, "insights": [insight], "insight_count": 1, "emitted_at": stamp}
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json.dumps(payload, separators=(",", ":")).encode())


class Story:
    """The insights of one stream, and how many of them were written. The server's clock stands until the next is."""

    def __init__(self, start: datetime, step: timedelta = STEP) -> None:
        self.start = start
        self.step = step
        self.written = 0
        self.reads = 0
        self.notes = array("q")
        self.may_begin = asyncio.Event()

    def moment(self, number: int) -> datetime:
        return self.start + number * self.step

    def content(self, number: int) -> str:
        note = self.notes[number] if 0 <= number < len(self.notes) else 0
        return f"{number}:{note}: the customer {_PADDING[:60]}"

    def frame(self, number: int) -> bytes:
        name = "insight.batch.created" if number >= 0 else "insight.replay"
        return _batch(name, self.content(number), self.moment(number))

    def row(self, number: int) -> dict[str, str]:
        return {
            "id": str(80_000_000_000_000_000 + number), "workspace_id": "70000000000000011", "type": "commitment",
            "content": self.content(number), "created_at": _stamp(self.moment(number)),
        }  # fmt: skip

    def listing(self, query: dict[str, list[str]]) -> bytes:
        """Return the rows a request asks for, newest first."""
        first, last = -REPLAYED, self.written - 1
        if "from" in query:
            first = max(first, -(-(_moment(query["from"][0]) - self.start) // self.step))
            last = min(last, (_moment(query["to"][0]) - self.start) // self.step)
        limit = int(query.get("limit", ["20"])[0])
        rows = [self.row(number) for number in range(last, max(first, last - limit + 1) - 1, -1)]
        return json.dumps({"data": rows}, separators=(",", ":")).encode()

    def read(self) -> None:
        """Note that the list was read; twice, and the stream goes on."""
        self.reads += 1
        if self.reads == 2:
            asyncio.get_running_loop().call_later(0.05, self.may_begin.set)


def _moment(text: str) -> datetime:
    """Return the moment of RFC 3339 text, as far as microseconds go."""
    whole, _, fraction = text.replace("Z", "").partition(".")
    return datetime.fromisoformat(whole + "+00:00") + timedelta(microseconds=int((fraction + "000000")[:6]))


class Server:
    """Answers GET requests. One story is told at a time for each base path."""

    def __init__(self) -> None:
        self.stories: dict[str, Story] = {}
        self.floods: dict[int, bytes] = {}
        self.start = datetime(2026, 3, 1, 8, tzinfo=timezone.utc)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                parts = urlsplit(head.split(b" ", 2)[1].decode())
                await self.answer(parts.path, parse_qs(parts.query), writer)
        writer.close()

    async def answer(self, path: str, query: dict[str, list[str]], writer: asyncio.StreamWriter) -> None:
        """Write the reply."""
        base, _, rest = path.partition("/v1/insights")
        kind, *numbers = base.strip("/").split("/")
        if rest == "/stream":
            writer.write(_head("text/event-stream", self.start))
            await self.tell(base, kind, [int(number) for number in numbers], writer)
            return
        story = self.stories.setdefault(base, Story(self.start))
        content = story.listing(query)
        writer.write(_head("application/json", story.moment(story.written), len(content)) + content)
        story.read()

    async def tell(self, base: str, kind: str, numbers: list[int], writer: asyncio.StreamWriter) -> None:
        step = timedelta(seconds=1 / numbers[1]) if kind == "pace" else STEP
        story = self.stories[base] = Story(self.start, step)
        greeting = b": connected workspace_id=70000000000000011 token_id=70000000000000013\n\n"
        await _write(writer, chunk(greeting) + b"".join(chunk(story.frame(number)) for number in range(-REPLAYED, 0)))
        if kind != "quick":
            await story.may_begin.wait()
        if kind == "pace":
            await self.pace(story, numbers[0], writer)
        else:
            async for piece in self.flood(story, numbers[0]):
                await _write(writer, piece)
        await asyncio.sleep(3600)

    async def pace(self, story: Story, count: int, writer: asyncio.StreamWriter) -> None:
        loop, interval = asyncio.get_running_loop(), story.step.total_seconds()
        begin = loop.time()
        while story.written < count:
            await asyncio.sleep(max(0.0, begin + story.written * interval - loop.time()))
            for number in range(story.written, min(count, int((loop.time() - begin) / interval) + 1)):
                story.notes.append(time.monotonic_ns())
                writer.write(chunk(story.frame(number)))
                story.written += 1
            await writer.drain()

    async def flood(self, story: Story, count: int) -> AsyncIterator[bytes]:
        """Yield the frames in pieces; a flood of no more than 50 000 is rendered once and kept."""
        for first in range(0, count, 256):
            last = min(first + 256, count)
            piece = self.floods.get(first)
            if piece is None or last - first < 256:
                piece = b"".join(chunk(story.frame(number)) for number in range(first, last))
            if last - first == 256 and first < 50_000:
                self.floods[first] = piece
            story.written = last
            yield piece


def _head(kind: str, date: datetime, length: int | None = None) -> bytes:
    measure = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    date_text = formatdate((date - EPOCH).total_seconds(), usegmt=True)
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nDate: {date_text}\r\n{measure}\r\n\r\n".encode()


async def _write(writer: asyncio.StreamWriter, content: bytes) -> None:
    for at in range(0, len(content), _PIECE):
        writer.write(content[at : at + _PIECE])
        await writer.drain()


def _serve(ready: Connection) -> None:
    last_core()

    async def main() -> None:
        server = await asyncio.start_server(Server().serve, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def stream_server() -> AbstractContextManager[str]:
    """Run the server in another process; the context's value is its origin."""
    return elsewhere(_serve)
