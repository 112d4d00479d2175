"""A thread with an event loop of its own, for servers that any test can use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

from anyio.from_thread import BlockingPortal, start_blocking_portal

__all__ = ["on_own_thread"]


@contextlib.contextmanager
def on_own_thread(resource: AbstractAsyncContextManager[object]) -> Iterator[BlockingPortal]:
    """Keep a resource open on a thread of its own while the block runs; yields the way to call functions there.

    The resource does not learn how the block ends: what pytest raises to skip a test is no affair of another thread.
    """
    with start_blocking_portal() as portal:
        held = portal.wrap_async_context_manager(resource)
        held.__enter__()
        try:
            yield portal
        finally:
            held.__exit__(None, None, None)
