"""The one event loop behind all blocking clients of a process, on a thread of its own, and the way over to it.

A call crosses once each way (anyio's portal: twice), and is cancelled, and waited for, when its caller is interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from ..errors import ClientClosed, ClientLoopError

__all__ = ["Errand", "Inbox", "Portal"]

T = TypeVar("T")
_log = logging.getLogger("nex_async.blocking")

Errand: TypeAlias = "Callable[[], None]"
"""What the loop asks a thread to do that waits for it."""
Inbox: TypeAlias = "SimpleQueue[_Call[Any] | Errand]"

_GLANCE = 0.1 if sys.platform == "win32" else None
"""Seconds between two looks at signals: on Windows Ctrl-C does not end a wait for a queue."""


class Portal:
    """An event loop on a thread of its own, from its making until `stop`."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        self.ended: bool = False
        self.forked: bool = False
        """Whether this process was forked from the one whose loop it is."""
        self._error: BaseException | None = None
        self._calls: set[_Call[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stop: asyncio.Event
        self._stopping = False
        self._started = threading.Event()
        # A daemon: a client left unclosed must not keep the interpreter alive. `lease` ends it in good order.
        self._thread = threading.Thread(target=self._live, name="nex-async loop", daemon=True)
        try:
            self._thread.start()
            self._started.wait()
        except BaseException:  # interrupted: nobody will ever know of this thread
            self._stopping = True
            if self._started.is_set():
                self.soon(self._stop.set)
            raise
        if self.ended:
            raise ClientLoopError("no event loop could be started for the blocking client") from self._error

    @property
    def is_here(self) -> bool:
        """Whether this thread is the loop's."""
        return threading.get_ident() == self._thread.ident

    def check(self) -> None:
        """Raise `ClientLoopError` where a call could never end: on the loop's own thread, and in a forked child."""
        if self.is_here:
            raise ClientLoopError(
                "a blocking call was made on the thread of the client's own event loop (in a hook, a filter or a progress "
                "callback), where it would wait for itself; hand the work to another thread"
            )
        if self.forked:
            raise ClientLoopError("this was opened before the process was forked; open a new one in the child")

    def call(self, work: Coroutine[Any, Any, T], inbox: Inbox | None = None) -> T:
        """Run a coroutine on the loop, in the context of the caller; return what it returns, raise what it raises.

        Meanwhile this thread runs the errands that come into `inbox`. When it is interrupted, by Ctrl-C or an errand that
        raises, the coroutine is cancelled, and has ended when the exception goes on; a second Ctrl-C does not wait.
        """
        call = _Call(work, SimpleQueue() if inbox is None else inbox)
        try:
            self.check()
            self._calls.add(call)
            self._send(call)
            self._await(call)
        except BaseException:
            self._cancel(call)
            raise
        finally:
            self._calls.discard(call)
        return call.result()

    def _send(self, call: _Call[Any]) -> None:
        if self.ended:  # asked after the call was noted, so that none is overlooked when the loop ends
            raise ClientClosed("the client is closed")
        call.is_sent = True
        if not self.soon(call.start):
            call.is_sent = False
            raise ClientClosed("the client is closed")

    def _await(self, call: _Call[Any]) -> None:
        inbox = call.inbox
        while True:
            try:
                item = inbox.get(timeout=_GLANCE)
            except Empty:
                continue
            if item is call:
                return
            if not isinstance(item, _Call):  # nobody waits any more for a call that was left
                item()
                if self.forked:
                    self.check()

    def _cancel(self, call: _Call[Any]) -> None:
        if not call.is_sent:
            call.work.close()
            return
        if self.forked:
            return
        try:
            self.soon(call.cancel)
            self._await(call)
        except BaseException:
            self.soon(call.cancel)
            raise

    def soon(self, function: Callable[[], object]) -> bool:
        """Have a function called on the loop; return False where the loop has ended."""
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:
            return False
        return True

    def begin(self, make: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        """Have a coroutine run on the loop for which nobody waits; return False where the loop has ended."""

        def start() -> None:
            task = self.loop.create_task(make())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return self.soon(start)

    def stop(self, timeout: float | None = None) -> None:
        """End the loop, and wait for its thread, for so many seconds at most."""
        self._stopping = True
        self.soon(self._stop.set)
        if not self.is_here:
            self._thread.join(timeout)

    # ---- on the thread ----------------------------------------------------------------------------------------------

    def _live(self) -> None:
        main = self._main()
        try:
            asyncio.run(main)
        except BaseException as error:
            self._error = error
            if not self._stopping:  # at the end of the interpreter, asyncio may not start the thread that ends its others
                _log.exception("the event loop of the blocking clients was ended by an error")
        finally:
            main.close()
            self.ended = True
            self._started.set()
            for call in list(self._calls):
                call.lose()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._started.set()
        if not self._stopping:
            await self._stop.wait()


class _Call(Generic[T]):
    """A coroutine on its way over to the loop, and its outcome on the way back."""

    __slots__ = ("error", "inbox", "is_over", "is_sent", "task", "value", "work")

    def __init__(self, work: Coroutine[Any, Any, T], inbox: Inbox) -> None:
        self.work = work
        self.inbox = inbox
        self.is_sent = False
        self.is_over = False
        self.task: asyncio.Task[None] | None = None
        self.value: T
        self.error: BaseException | None = None

    def start(self) -> None:
        """Begin, on the loop, in the context of the thread that waits."""
        self.task = asyncio.get_running_loop().create_task(self._live())
        self.task.add_done_callback(self._over)

    async def _live(self) -> None:
        try:
            self.value = await self.work
        except BaseException as error:  # SystemExit, say, of a hook: it is for the caller, and would end the loop
            self.error = error

    def _over(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # before its first step
            self.lose()
        else:
            self.is_over = True
            self.inbox.put(self)

    def cancel(self) -> None:
        """Cancel it, on the loop."""
        if self.task is None:
            self.lose()  # interrupted in the middle of being sent
        else:
            self.task.cancel()

    def lose(self) -> None:
        """End it without an outcome, if it has none."""
        if not self.is_over:
            self.is_over, self.error = True, asyncio.CancelledError()
            self.work.close()
            self.inbox.put(self)

    def result(self) -> T:
        """Return what the coroutine returned, or raise what it raised. To be asked once."""
        error, self.error = self.error, None
        if error is None:
            return self.value
        try:
            if isinstance(error, asyncio.CancelledError):
                raise ClientClosed("the client was closed during the call") from None
            raise error
        finally:
            del error  # its traceback holds this frame
