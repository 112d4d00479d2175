"""Closing a client from synchronous code, whichever event loops a test has used it on."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING

from ..client import Nex
from ..transport.state import running_loop

if TYPE_CHECKING:
    from ..transport.pool import _ConnectionSet

__all__ = ["close"]

_LEAVING = 5.0
"""Seconds in which a loop that runs in another thread closes its connections."""


def close(nex: Nex) -> None:
    """Close a client and its connections on every loop; when this returns, all their sockets are closed.

    A fixture cannot know whether its test's loop is closed before or after it: that is the affair of pytest's plugins.
    """
    nex._state.closed = True
    for one in list(nex._state.owned):
        one.abort()
    if nex._own_pool is not None:
        for connections in nex._own_pool.take():
            _close(connections)


def _close(connections: _ConnectionSet) -> None:
    loop = connections.loop
    if loop.is_closed() or running_loop() is not None:  # inside a coroutine nothing can be waited for
        connections.drop()
    elif loop.is_running():
        over = asyncio.run_coroutine_threadsafe(_close_and_settle(connections), loop)
        concurrent.futures.wait([over], _LEAVING)
    else:  # it stands between two steps of its runner
        loop.run_until_complete(_close_and_settle(connections))


async def _close_and_settle(connections: _ConnectionSet) -> None:
    await connections.close()
    for _ in range(2):  # a transport closes its socket in a later turn of the loop
        await asyncio.sleep(0)
