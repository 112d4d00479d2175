"""The load target: an HTTP server in a process of its own that answers from memory, faster than any client asks.

It knows a handful of paths and nothing else; `x-delay` in the query holds a reply back by that many milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection

TASK = {
    "id": "70000000000000017", "title": "Call Ada about the renewal", "description": "Ask for the signed order form",
    "priority": "high", "due_date": "2026-03-02T08:00:00Z", "is_completed": False, "assignee_ids": [],
    "entity_ids": ["70000000000000019"], "created_by": "developer_api", "created_at": "2026-03-01T08:00:00Z",
}  # fmt: skip


def record(index: int) -> dict[str, object]:
    """Return a record of ten attributes, about 700 bytes as JSON."""
    return {
        "id": str(70_000_000_000_000_001 + 2 * index), "object_id": "70000000000000003", "type": "company",
        "workspace_id": "70000000000000011", "created_at": "2026-03-01T08:00:00Z", "updated_at": "2026-03-02T09:30:00.418Z",
        "attributes": {
            "name": f"Company number {index}", "domains": [f"company{index}.example"], "industry": "Industrial machinery",
            "description": "Makes the machines that make the machines, in three plants on two continents",
            "location": {"city": "Alder", "region": "Upper Valley", "country": "Switzerland"}, "employees": 1200 + index,
            "revenue": {"value": 1.25e9, "currency": "CHF"}, "linkedin": f"https://social.example/company/{index}",
            "tags": ["customer", "reference", "pilot"], "is_public": index % 2 == 0,
        },
    }  # fmt: skip


def page(offset: int, limit: int, total: int) -> bytes:
    """Return one page of a record listing."""
    rows = [record(index) for index in range(offset, min(offset + limit, total))]
    return json.dumps({"data": rows, "total": total, "limit": limit, "offset": offset}, separators=(",", ":")).encode()


def reply(body: bytes) -> bytes:
    """Return a complete HTTP reply."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class _Pages:
    """Pages of a listing, rendered once: the first row's offset is patched into one prepared page per size."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int, int], bytes] = {}

    def get(self, offset: int, limit: int, total: int) -> bytes:
        key = (offset, limit, total)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = reply(page(offset, limit, total))
        return found


class _Protocol(asyncio.Protocol):
    pages = _Pages()
    task = reply(json.dumps(TASK, separators=(",", ":")).encode())
    row = reply(json.dumps(record(0), separators=(",", ":")).encode())
    total = 0
    page_size = 100
    delay = 0.0

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 24)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = _content_length(head)
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        path = head[: head.find(b" HTTP/")]
        if path.endswith(b"/records"):
            asked = json.loads(body)
            content = self.pages.get(asked.get("offset", 0), asked.get("limit", self.page_size), _Protocol.total)
        elif b"/tasks/" in path:
            content = self.task
        elif b"/control/" in path:
            content = self.control(path)
        else:
            content = self.row
        if _Protocol.delay and b"/control/" not in path:
            asyncio.get_running_loop().call_later(_Protocol.delay, self.transport.write, content)
        else:
            self.transport.write(content)

    def control(self, path: bytes) -> bytes:
        _, _, rest = path.partition(b"/control/")
        name, value = rest.decode().split("/")
        setattr(_Protocol, name, float(value) if name == "delay" else int(value))
        if name == "total":
            for offset in range(0, _Protocol.total, _Protocol.page_size):
                self.pages.get(offset, _Protocol.page_size, _Protocol.total)
        return reply(b"{}")


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 : head.find(b"\r\n", at) if head.find(b"\r\n", at) >= 0 else None]) if at >= 0 else 0


def _serve(ready: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Protocol, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def load_server() -> AbstractContextManager[str]:
    """Run the server in another process; the context's value is its origin."""
    return elsewhere(_serve)


@contextmanager
def elsewhere(serve: Callable[[Connection], None]) -> Iterator[str]:
    """Run a server, which sends its port when it listens, in another process; yield its origin."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()
