"""What a client and all its views share."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Coroutine, Hashable
from contextvars import Context
from typing import Any, Protocol
from urllib.parse import urlsplit

from ..config import is_loopback
from ..errors import ClientClosed, ClientLoopError
from .counts import Counts
from .pool import Tenant

__all__ = ["CLOSING", "ClientState", "running_loop", "start_apart"]


class Owned(Protocol):
    """Something that runs for a client, and ends with it."""

    def abort(self) -> None:
        """End it at once. May be called from any thread."""

    async def over(self) -> None:
        """Wait until it has ended; returns at once where it belongs to another event loop."""


class ClientState:
    """What a client and all its views share: the tenant, and the calls under way, for which closing waits."""

    def __init__(self, tenant: Tenant | None, url: str) -> None:
        self.tenant = tenant
        self.url = url
        self.closed: bool = False
        self.counts: Counts = Counts()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.owned: set[Owned] = set()
        """What runs in the background, and ends with the client."""
        self.shared: dict[Hashable, Any] = {}
        """What the feeds and jobs of a client have in common, by names of their own."""
        self.feeds: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        """The insight feeds that are open."""
        self.runs: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        """The bulk runs under way."""
        self._idle: list[asyncio.Future[None]] = []
        _states.add(self)

    @property
    def place(self) -> str:
        """Where calls go, as files remember it: a server on this machine may come back on another port."""
        parts = urlsplit(self.url)
        return f"loopback{parts.path}" if is_loopback(parts.hostname or "") else self.url.rstrip("/")

    def enter(self) -> asyncio.Task[Any]:
        """Note the running task as busy. Raises `ClientClosed`, `ClientLoopError` outside a task."""
        if self.closed:
            raise ClientClosed("the client is closed")
        task = asyncio.current_task()
        if task is None:
            raise ClientLoopError("a call must be awaited inside an asyncio task")
        self.tasks.add(task)
        return task

    def leave(self, task: asyncio.Task[Any]) -> None:
        """Note the task as done with its call."""
        self.tasks.discard(task)
        if self._idle and not self.tasks:
            for waiter in self._idle:
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)
            self._idle.clear()

    def unshare(self, one: object) -> None:
        """Have something in common no more, under whatever name."""
        self.shared = {name: shared for name, shared in self.shared.items() if shared is not one}

    async def drain(self, seconds: float) -> None:
        """Refuse new calls, end what runs in the background, wait up to `seconds` for calls under way, then end them too.

        Those that are ended raise `ClientClosed`.
        """
        self.closed = True
        owned = list(self.owned)
        for one in owned:
            one.abort()
        if seconds > 0 and self._others():
            await self._until_idle(seconds)
        if others := self._others():
            for task in others:
                task.get_loop().call_soon_threadsafe(self._end, task)
            await self._until_idle(_LEAVING)
        for one in owned:
            await one.over()

    def _others(self) -> list[asyncio.Task[Any]]:
        """Return the busy tasks that can still end: not this one, and none whose loop was closed under it."""
        this = asyncio.current_task()
        self.tasks = {task for task in list(self.tasks) if not task.get_loop().is_closed()}
        return [task for task in self.tasks if task is not this]

    async def _until_idle(self, seconds: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        await asyncio.wait([waiter], timeout=seconds)

    def _end(self, task: asyncio.Task[Any]) -> None:
        if task in self.tasks:  # its call may have ended meanwhile, and the task is not ours to cancel
            task.cancel(CLOSING)


def start_apart(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a task in an empty context: what runs on for long has no part in its starter's deadline, or trace."""
    return Context().run(loop.create_task, work)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop this thread runs; None for none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


CLOSING = "nex_async client closed"
_LEAVING = 1.0
"""Seconds in which calls that were told to end do so; their connections are closed after them."""

_states: weakref.WeakSet[ClientState] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """The parent's calls are not the child's to wait for, or to end."""
    for state in list(_states):
        state.tasks, state._idle = set(), []
        state.owned, state.shared = set(), {}
        state.feeds, state.runs = weakref.WeakValueDictionary(), weakref.WeakValueDictionary()
        state.counts.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
