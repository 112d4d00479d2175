"""The emulator as a server: open the workspace, listen, close."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from nex_async.emulator.control import admit
from nex_async.emulator.dispatch import LARGEST_BODY, PREFIX, Bench, Dispatcher, error_reply
from nex_async.emulator.faults import Faults
from nex_async.emulator.limits import RateLimiter
from nex_async.emulator.objects import create_defaults
from nex_async.emulator.pages import find_page
from nex_async.emulator.request_log import RequestLog
from nex_async.emulator.store import Store
from nex_async.emulator.stream import InsightStream
from nex_async.emulator.switches import Switches
from nex_async.emulator.tables import create_tables, empty_tables
from nex_async.storage import Database

__all__ = ["Emulator"]

_SHUTDOWN_SECONDS = 2.0
_LARGEST_LINE = 64 * 1024
_LOGGED_REQUESTS = 10_000

_T = TypeVar("_T")


class Emulator:
    """A local Nex, served over HTTP on this machine.

    `path` is a file that keeps the workspace, or `":memory:"`. `keys` maps each accepted API key to its
    scopes, None for all of them. `processing_delay` is how many seconds artifacts and AI lists take to
    complete, by `clock` (seconds since 1970). `switches` sets some of the switches for every request. A stream
    that has `listener_bound` events waiting is dropped.

    While it runs, `switches.set(...)` turns switches, `faults.add(...)` makes things go wrong, `requests` tells what
    was really asked, and `stream` how many listen.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ":memory:",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        keys: Mapping[str, Iterable[str] | None] | None = None,
        processing_delay: float = 0.2,
        clock: Callable[[], float] = time.time,
        switches: Mapping[str, Any] | None = None,
        listener_bound: int = 1000,
    ) -> None:
        given = {"sk-local": None} if keys is None else keys
        self._given: dict[str, frozenset[str] | None] = {
            key: None if scopes is None else frozenset(scopes) for key, scopes in given.items()
        }
        self.keys: dict[str, frozenset[str] | None] = dict(self._given)
        if not self.keys:
            raise ValueError("an emulator needs at least one API key")
        self.host = host
        self.switches: Switches = Switches(switches)
        self.faults: Faults = Faults()
        self.requests: RequestLog = RequestLog(clock, _LOGGED_REQUESTS)
        self.stream: InsightStream = InsightStream(self.faults, listener_bound)
        self._limiter = RateLimiter(clock)
        self._bench = Bench(self.switches, self.faults, self.requests, self._limiter, self.stream, clock)
        self._path = path
        self._port = port
        self._processing_delay = processing_delay
        self._clock = clock
        self._runner: web.ServerRunner | None = None
        self._database: Database | None = None
        self._dispatcher: Dispatcher | None = None
        self._restarting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Emulator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def port(self) -> int:
        """The port it listens on; raises RuntimeError while it does not."""
        if self._runner is None:
            raise RuntimeError("the emulator is not running")
        return int(self._runner.addresses[0][1])

    @property
    def url(self) -> str:
        """The base URL for clients, such as `http://127.0.0.1:8080/api/developers`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{PREFIX}"

    @property
    def key(self) -> str:
        """The first API key."""
        return next(iter(self.keys))

    async def start(self) -> None:
        """Open the workspace and listen; does nothing when it listens already.

        Raises `StorageLocked` if the file is in use, `OSError` if the port is.
        """
        if self._database is None:
            await self._start(self._port)

    async def _start(self, port: int) -> None:
        self._database = database = self._database or Database(self._path)
        try:
            await database.open()
            store = await database.run(_open_store, self._clock, self._processing_delay)
            self._dispatcher = Dispatcher(database, store, self.keys, self._bench)
            self.stream.open()
            self._runner = await self._listen(port)
            store.origin = self.url.removesuffix(PREFIX)
        except BaseException:
            self._database = self._dispatcher = None
            await database.aclose()
            raise

    async def _listen(self, port: int) -> web.ServerRunner:
        server = web.Server(
            self._answer,
            request_factory=_make_request,
            access_log=None,
            lingering_time=0,  # refused bodies are read to their end by the dispatcher
            max_line_size=_LARGEST_LINE,
            max_field_size=_LARGEST_LINE,
        )
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, port, backlog=1024, reuse_address=True).start()
        except BaseException:
            await runner.cleanup()
            raise
        return runner

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        page = find_page(path)
        if page is None:
            return await self._running().answer(request)
        try:
            if path.startswith("/_emulator/"):
                admit(self, request)
            return await page(self, request)
        except Exception as error:
            return error_reply(error, request).response()

    async def run(self, function: Callable[[Store], _T]) -> _T:
        """Call a function with the store on the database's thread, as one transaction; for pages."""
        return await self._running().run(function)

    async def perform(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> bytes:
        """Carry out an operation at once, as nobody's request, and return the body of its reply.

        No key is asked for, no fault strikes and no limit holds; the request log says nothing of it, the stream tells the
        insights it makes. `path` begins with `/v1/`. Raises `ApiError` where the API would refuse.
        """
        return await self._running().perform(method, path, query, body)

    def _running(self) -> Dispatcher:
        if self._dispatcher is None:
            raise RuntimeError("the emulator is not running")
        return self._dispatcher

    async def reset(self) -> None:
        """Begin anew: a fresh workspace, and no trace of what was asked, switched or made to fail.

        What is being answered is broken off, open streams are dropped, and the file, if there is one, is emptied. Keys and
        switches are those it was made with. Ids begin anew too. Takes about a millisecond, ten when there are thousands of
        records.
        """
        restarting = self._restarting
        if restarting is not None:
            await asyncio.gather(restarting, return_exceptions=True)
        await self._running().drop()
        self.faults.clear()
        self.switches.reset()
        self._limiter.clear()
        self.keys.clear()
        self.keys.update(self._given)
        database = self._database
        assert database is not None
        store = await database.run(_empty_store, self._clock, self._processing_delay)
        store.origin = self.url.removesuffix(PREFIX)
        self._dispatcher = Dispatcher(database, store, self.keys, self._bench)
        self.requests.clear()

    async def restart(self) -> None:
        """Stop, dropping every connection, and come back on the same port with the same data.

        Switches, faults and the request log stay. A workspace in memory stays open in between; a file is closed and
        opened again.
        """
        port = self.port
        await self._stop()
        if self._path != ":memory:" and self._database is not None:
            database, self._database = self._database, None
            await database.aclose()
        await self._start(port)

    def restart_soon(self) -> None:
        """Restart as soon as the request that asks for it is answered."""
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.get_running_loop().create_task(self.restart())

    async def aclose(self) -> None:
        """Answer what is under way, end the streams, stop listening and close the workspace; a second call does nothing."""
        restarting, self._restarting = self._restarting, None
        if restarting is not None:
            await asyncio.gather(restarting, return_exceptions=True)
        await self._stop()
        database, self._database = self._database, None
        if database is not None:
            await database.aclose()

    async def _stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            self.faults.release()
            await self.stream.aclose()
            await runner.cleanup()


def _open_store(connection: sqlite3.Connection, clock: Callable[[], float], processing_delay: float) -> Store:
    fresh = create_tables(connection)
    store = Store(connection, clock, processing_delay)
    if fresh:
        create_defaults(store)
    return store


def _empty_store(connection: sqlite3.Connection, clock: Callable[[], float], processing_delay: float) -> Store:
    empty_tables(connection)
    store = Store(connection, clock, processing_delay)
    create_defaults(store)
    return store


def _make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=LARGEST_BODY)
