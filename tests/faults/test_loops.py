"""What holds on any event loop with asyncio's interface (row R10)."""

from __future__ import annotations

import asyncio
import gc
import importlib
import warnings

import pytest

from nex_async import Nex

from ..harness.backend import Backend
from ..harness.canary import KEY


@pytest.mark.parametrize("loop_of", ["asyncio", "uvloop"])
def test_r06_a_dropped_client_closes_its_sockets_on_any_loop(loop_of: str) -> None:
    """The sockets of a client that is dropped without a close are closed while its loop runs on, whatever loop it is."""
    if loop_of == "uvloop":
        pytest.importorskip("uvloop")
    loop: asyncio.AbstractEventLoop = importlib.import_module(loop_of).new_event_loop()

    async def use(url: str) -> None:
        nex = Nex(KEY, base_url=url)
        await asyncio.gather(*(nex.tasks.get(n) for n in range(5)))

    async def closed(server: Backend) -> None:
        while server.open:
            await asyncio.sleep(0.002)

    async def main(server: Backend) -> None:
        await use(server.url)
        assert server.connections == 5
        gc.collect()
        await asyncio.wait_for(closed(server), 5)

    with Backend() as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the client's own, of which other tests tell
        try:
            loop.run_until_complete(main(server))
        finally:
            loop.close()
