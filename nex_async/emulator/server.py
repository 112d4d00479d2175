"""The emulator as a server: open the workspace, listen, close."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from nex_async.emulator.dispatch import LARGEST_BODY, PREFIX, Dispatcher
from nex_async.emulator.objects import create_defaults
from nex_async.emulator.store import Store
from nex_async.emulator.tables import create_tables
from nex_async.storage import Database

__all__ = ["Emulator"]

_SHUTDOWN_SECONDS = 2.0
_LARGEST_LINE = 64 * 1024


class Emulator:
    """A local Nex, served over HTTP on this machine.

    `path` is a file that keeps the workspace, or `":memory:"`. `keys` maps each accepted API key to its
    scopes, None for all of them. `processing_delay` is how many seconds artifacts and AI lists take to
    complete, by `clock` (seconds since 1970).
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
    ) -> None:
        given = {"sk-local": None} if keys is None else keys
        self._keys = {key: None if scopes is None else frozenset(scopes) for key, scopes in given.items()}
        if not self._keys:
            raise ValueError("an emulator needs at least one API key")
        self._path = path
        self._host = host
        self._port = port
        self._processing_delay = processing_delay
        self._clock = clock
        self._runner: web.ServerRunner | None = None
        self._database: Database | None = None

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
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}{PREFIX}"

    @property
    def key(self) -> str:
        """The first API key."""
        return next(iter(self._keys))

    async def start(self) -> None:
        """Open the workspace and listen; does nothing when it listens already.

        Raises `StorageLocked` if the file is in use, `OSError` if the port is.
        """
        if self._database is not None:
            return
        self._database = database = Database(self._path)
        try:
            await database.open()
            store = await database.run(_open_store, self._clock, self._processing_delay)
            self._runner = await self._listen(Dispatcher(database, store, self._keys))
            store.origin = self.url.removesuffix(PREFIX)
        except BaseException:
            self._database = None
            await database.aclose()
            raise

    async def _listen(self, dispatcher: Dispatcher) -> web.ServerRunner:
        server = web.Server(
            dispatcher.answer,
            request_factory=_make_request,
            access_log=None,
            lingering_time=0,  # refused bodies are read to their end by the dispatcher
            max_line_size=_LARGEST_LINE,
            max_field_size=_LARGEST_LINE,
        )
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=1024).start()
        except BaseException:
            await runner.cleanup()
            raise
        return runner

    async def aclose(self) -> None:
        """Answer what is under way, stop listening and close the workspace; a second call does nothing."""
        runner, self._runner = self._runner, None
        database, self._database = self._database, None
        if runner is not None:
            await runner.cleanup()
        if database is not None:
            await database.aclose()


def _open_store(connection: sqlite3.Connection, clock: Callable[[], float], processing_delay: float) -> Store:
    fresh = create_tables(connection)
    store = Store(connection, clock, processing_delay)
    if fresh:
        create_defaults(store)
    return store


def _make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=LARGEST_BODY)
