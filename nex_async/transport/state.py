"""What a client and all its views share."""

from __future__ import annotations

import asyncio
from typing import Any

from ..errors import ClientClosed, ClientLoopError
from .pool import Tenant

__all__ = ["CLOSING", "ClientState"]


class ClientState:
    """What a client and all its views share: the tenant, and the calls under way, for which closing waits."""

    def __init__(self, tenant: Tenant | None) -> None:
        self.tenant = tenant
        self.closed: bool = False
        self.hook_errors = 0
        self.tasks: set[asyncio.Task[Any]] = set()
        self._idle: list[asyncio.Future[None]] = []

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

    async def drain(self, seconds: float) -> None:
        """Refuse new calls, wait up to `seconds` for those under way, then end the rest with `ClientClosed`."""
        self.closed = True
        this = asyncio.current_task()
        others = {task for task in self.tasks if task is not this}
        if others and seconds > 0:
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await asyncio.wait([waiter], timeout=seconds)
        for task in [task for task in self.tasks if task is not this]:
            task.get_loop().call_soon_threadsafe(self._end, task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        if task in self.tasks:  # its call may have ended meanwhile, and the task is not ours to cancel
            task.cancel(CLOSING)


CLOSING = "nex_async client closed"


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
