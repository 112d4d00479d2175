"""A pool for clients that nobody closes in time: whichever event loops a test uses, its connections end with them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from ..client import Nex
from ..transport.pool import SessionPool
from ..transport.state import running_loop

if TYPE_CHECKING:
    from ..transport.pool import ConnectionSet

__all__ = ["LoopBoundPool", "close"]

_LEAVING = 5.0
"""Seconds in which a loop that runs in another thread closes its connections."""


class LoopBoundPool(SessionPool):
    """A pool whose connections are closed by the end of their loop, or by `close_now`, whatever comes first.

    A synchronous fixture cannot know whether its test's loop is closed before or after it: that is the affair of pytest's
    plugins. So each loop is given an asynchronous generator, which every runner finishes before it closes the loop.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ends: dict[ConnectionSet, AsyncGenerator[None, None]] = {}

    def connections(self) -> ConnectionSet:
        """Return the connections of the running loop."""
        found = super().connections()
        if found not in self._ends:
            end = self._ends[found] = _until_the_end(found)
            with contextlib.suppress(StopIteration):  # it stands at its `yield`
                end.__anext__().__await__().send(None)
        return found

    def close_now(self) -> None:
        """Close every connection from synchronous code; when this returns, all their sockets are closed."""
        self._closed = True
        self._sets.clear()
        for connections, end in self._ends.items():
            _close(connections, end)
        self._ends.clear()


async def _until_the_end(connections: ConnectionSet) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await connections.close()
        for _ in range(2):  # transports close their sockets, and feeds end, in later turns of the loop
            await asyncio.sleep(0)


def _close(connections: ConnectionSet, end: AsyncGenerator[None, None]) -> None:
    loop = connections.loop
    if loop.is_closed() or running_loop() is not None:  # inside a coroutine nothing can be waited for
        connections.drop()
    elif loop.is_running():
        over = asyncio.run_coroutine_threadsafe(_finish(end), loop)
        concurrent.futures.wait([over], _LEAVING)
    else:  # it stands between two steps of its runner
        loop.run_until_complete(_finish(end))


async def _finish(end: AsyncGenerator[None, None]) -> None:
    await end.aclose()


def close(nex: Nex, pool: LoopBoundPool) -> None:
    """Close a client and its pool from synchronous code."""
    nex._state.closed = True
    for one in list(nex._state.owned):
        one.abort()
    pool.close_now()
