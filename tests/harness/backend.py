"""A small Nex of threads: it outlives event loops, which the tests of loops, forks and interpreters need."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

__all__ = ["Backend"]

_PREFIX = "/api/developers/v1/tasks/"


@dataclass
class Backend:
    """Answers `GET /v1/tasks/{id}` with that id, on a thread of its own. An id `slow-...` waits for `release`.

    The stream says `: connected` and then nothing.
    """

    connections: int = 0
    open: int = 0
    most_open: int = 0
    log: list[tuple[int, str]] = field(default_factory=list)
    """The connection and the target of each request."""

    def __enter__(self) -> Backend:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="backend")
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def release(self) -> None:
        """Let slow requests go on."""
        self._loop.call_soon_threadsafe(self._released.set)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._released = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=2048)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        task = asyncio.ensure_future(self._serve(self.connections, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # also when it was cancelled before it began

    async def _serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                target = head.split(" ", 2)[1]
                length = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
                await reader.readexactly(int(length[0].split(":")[1]) if length else 0)
                self.log.append((number, target))
                await self._answer(target, reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            self.open -= 1

    async def _answer(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if target.endswith("/stream"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: connected\n\n")
            await writer.drain()
            await reader.read()  # until the client goes away
        name = target.removeprefix(_PREFIX)
        if name.startswith("slow"):
            gone, released = asyncio.ensure_future(reader.read(1)), asyncio.ensure_future(self._released.wait())
            await asyncio.wait([gone, released], return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                released.cancel()
                raise EOFError
            gone.cancel()
        body = f'{{"id":"{name}"}}'.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
        await asyncio.sleep(0)
        writer.write(body)
        await writer.drain()
