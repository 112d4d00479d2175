"""The one event loop behind all blocking clients of a process, on a thread of its own, and the way over to it.

A call crosses once each way (anyio's portal: twice), and is cancelled, and waited for, when its caller is interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from ..errors import ClientClosed, ClientLoopError

__all__ = ["Errand", "Inbox", "Portal"]

T = TypeVar("T")
_log = logging.getLogger("nex_async.blocking")

Errand: TypeAlias = "Callable[[], None]"
"""What the loop asks a thread to do that waits for it. It may be run a second time when the first was interrupted."""

_GLANCE = 0.1 if sys.platform == "win32" else None
"""Seconds between two looks at signals: on Windows Ctrl-C does not end a wait for a queue."""


class Inbox:
    """What a thread looks at while it waits: errands, and news that something is over.

    The thread may be interrupted between any two steps, so nothing is taken out before it was dealt with.
    """

    __slots__ = ("_errands", "_news", "awaited")

    def __init__(self) -> None:
        self.awaited: _Call[Any] | None = None
        """What the thread waits for."""
        self._errands: deque[Errand] = deque()
        self._news: SimpleQueue[None] = SimpleQueue()

    @property
    def is_pressing(self) -> bool:
        """Whether a thread that runs an errand had better come back: another one waits, or the wait is over."""
        return len(self._errands) > 1 or (self.awaited is not None and self.awaited.is_over)

    def post(self, errand: Errand) -> None:
        """Leave an errand for the thread."""
        self._errands.append(errand)
        self.ring()

    def ring(self) -> None:
        """Have the thread look at what it waits for."""
        self._news.put(None)

    def serve(self) -> bool:
        """Run the errands that are there; return whether there were any."""
        if not self._errands:
            return False
        while self._errands:
            self._errands[0]()
            self._errands.popleft()
        return True

    def wait(self) -> None:
        """Wait for news."""
        while True:
            try:
                return self._news.get(timeout=_GLANCE)
            except Empty:
                continue


class Portal:
    """An event loop on a thread of its own, from its making until `stop`."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        self.ended: bool = False
        self.forked: bool = False
        """Whether this process was forked from the one whose loop it is."""
        self._error: BaseException | None = None
        self._calls: set[_Call[Any]] = set()
        self._tasks: set[asyncio.Future[Any]] = set()
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

    def call(self, work: Callable[[], Awaitable[T]], inbox: Inbox | None = None) -> T:
        """Await on the loop, in the context of the caller, what `work` returns; return and raise what comes of it.

        Meanwhile this thread runs the errands that come into `inbox`. When it is interrupted, by Ctrl-C or an errand that
        raises, the work is cancelled, and has ended when the exception goes on; a second Ctrl-C does not wait.
        """
        call = _Call(work, Inbox() if inbox is None else inbox)
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

    def close(self, work: Callable[[], Awaitable[object]]) -> None:
        """Wait for what closes something, for which it is enough to be done twice; interrupted, it is done all the same."""
        try:
            self.call(work)
        except BaseException:
            self.begin(work)
            raise

    def _send(self, call: _Call[Any]) -> None:
        if self.ended:  # asked after the call was noted, so that none is overlooked when the loop ends
            raise ClientClosed("the client is closed")
        call.is_sent = True
        if not self.soon(call.start):
            call.is_sent = False
            raise ClientClosed("the client is closed")

    def _await(self, call: _Call[Any]) -> None:
        inbox = call.inbox
        inbox.awaited = call
        while True:
            if inbox.serve() and self.forked:
                self.check()  # an errand has forked, and this is the child
            if call.is_over:
                return
            inbox.wait()

    def _cancel(self, call: _Call[Any]) -> None:
        if not call.is_sent or self.forked:
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

    def begin(self, work: Callable[[], Awaitable[object]]) -> bool:
        """Have something awaited on the loop for which nobody waits here; return False where the loop has ended."""

        def start() -> None:
            task: asyncio.Future[object] = asyncio.ensure_future(work())
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
            _run(main)
        except BaseException as error:
            self._error = error
            if not self._stopping:  # at the end of the interpreter, asyncio may not start the thread that ends its others
                fields = {"nex_error": type(error).__name__}
                _log.exception("the event loop of the blocking clients was ended by an error", extra=fields)
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


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return one of asyncio's own loops, whatever the policy in force says.

    A policy is for the loops of the program: what it makes may belong on the main thread, as Qt's does.
    """
    if sys.platform == "win32":
        return asyncio.ProactorEventLoop()
    return asyncio.SelectorEventLoop()


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Do as `asyncio.run` does, on a loop of our own choice: Python 3.10 has no runner that can be told."""
    loop = _new_loop()
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main)
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


class _Call(Generic[T]):
    """Work on its way over to the loop, and its outcome on the way back."""

    __slots__ = ("error", "inbox", "is_over", "is_sent", "task", "value", "work")

    def __init__(self, work: Callable[[], Awaitable[T]], inbox: Inbox) -> None:
        self.work: Callable[[], Awaitable[T]] = work
        self.inbox: Inbox = inbox
        self.is_sent: bool = False
        self.is_over: bool = False
        self.task: asyncio.Task[None] | None = None
        self.value: T
        self.error: BaseException | None = None

    def start(self) -> None:
        """Begin, on the loop, in the context of the thread that waits."""
        self.task = asyncio.get_running_loop().create_task(self._live())
        self.task.add_done_callback(self._over)

    async def _live(self) -> None:
        try:
            self.value = await self.work()
        except BaseException as error:  # SystemExit, say, of a hook: it is for the caller, and would end the loop
            self.error = error

    def _over(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # before its first step
            self.lose()
        else:
            self.is_over = True
            self.inbox.ring()

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
            self.inbox.ring()

    def result(self) -> T:
        """Return what came of it, or raise it. To be asked once."""
        error, self.error = self.error, None
        if error is None:
            return self.value
        try:
            if isinstance(error, asyncio.CancelledError):
                raise ClientClosed("the client was closed during the call") from None
            raise error
        finally:
            del error  # its traceback holds this frame
