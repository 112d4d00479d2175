"""Desk: where the loop leaves work for the thread that waits for it.

A caller's own code may block, and may have to stay on its thread (a SQLite cursor, a session of an ORM): rows are pulled,
and handlers called, in the thread that waits for the run or the feed.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, Generic, TypeVar

import anyio

from ..errors import BulkError, InvalidRequestError
from .portal import Errand, Inbox, Portal

__all__ = ["Desk", "pulled"]

T = TypeVar("T")

_AHEAD = 256
"""So many rows are pulled before they are asked for."""
_CLOSING = 5.0
"""Seconds that a generator gets to close, from when its run has ended."""


class Desk:
    """Errands for a thread that waits."""

    def __init__(self) -> None:
        self._inbox = Inbox()
        self._thread: dict[str, int] = {}
        self._is_served = False

    def wait(self, portal: Portal, work: Callable[[], Awaitable[T]]) -> T:
        """Wait for work as `Portal.call` does, and run errands meanwhile, unless another thread does already."""
        this = threading.get_ident()
        if self._thread.setdefault("serves", this) != this or self._is_served:
            return portal.call(work)
        try:
            self._is_served = True
            return portal.call(work, self._inbox)
        finally:
            self._is_served = False
            self._thread.clear()

    @property
    def is_served(self) -> bool:
        """Whether a thread waits, and runs errands."""
        return self._is_served

    @property
    def is_pressing(self) -> bool:
        """Whether a thread that runs an errand had better come back."""
        return self._inbox.is_pressing

    def post(self, errand: Errand) -> None:
        """Leave an errand for the thread."""
        self._inbox.post(errand)

    async def ask(self, function: Callable[..., T], *args: Any) -> T:
        """Have a function called by the thread; return what it returns, raise what it raises.

        What is no `Exception`, such as `KeyboardInterrupt`, is for the thread itself, whose wait it ends.
        """
        errand = _Asked(function, args)
        self.post(errand)
        return await errand.answer()


class _Asked(Generic[T]):
    """A function to call, and who waits for it."""

    def __init__(self, function: Callable[..., T], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self._begun = False
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Future[None] = self._loop.create_future()
        self._error: Exception | None = None
        self._value: T

    def __call__(self) -> None:
        if self._begun or self._told.cancelled():
            return
        self._begun = True
        try:
            self._value = self._function(*self._args)
        except Exception as error:
            self._error = error
        _wake(self._loop, self._told)

    async def answer(self) -> T:
        await self._told
        error, self._error = self._error, None
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error


def _wake(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
    try:
        loop.call_soon_threadsafe(_resolve, waiter)
    except RuntimeError:  # the loop has ended, and nobody waits
        return


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


# ---- rows -----------------------------------------------------------------------------------------------------------


def pulled(rows: Iterable[Any], desk: Desk) -> Any:
    """Return rows as a run takes them: what is no list or tuple is pulled by the thread that waits for the run."""
    if isinstance(rows, (list, tuple)):
        return rows
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise InvalidRequestError(f"rows must be an iterable of rows, not {type(rows).__name__}", argument="rows")
    return (_Counted if isinstance(rows, Sized) else _Pulled)(rows, desk)


class _Pulled:
    """The rows of an iterable that one thread pulls, and the loop takes as they come."""

    def __init__(self, rows: Iterable[Any], desk: Desk) -> None:
        self._rows = rows
        self._desk = desk
        self._iterator: Iterator[Any] | None = None
        self._ahead: deque[Any] = deque()
        self._error: Exception | None = None
        self._ended = False
        self._is_pulling = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> _Pulled:
        # One pass over an iterator, as many as are wanted over anything else.
        return self if isinstance(self._rows, Iterator) else _Pulled(self._rows, self._desk)

    async def __anext__(self) -> Any:
        while True:
            ended = self._ended  # asked first: what was pulled before the end is there by then
            if self._ahead:
                return self._ahead.popleft()
            if ended:
                error, self._error = self._error, None
                raise error or StopAsyncIteration
            await self._more()

    async def _more(self) -> None:
        self._loop = asyncio.get_running_loop()
        waiter = self._waiter = self._loop.create_future()
        if self._ahead or self._ended:
            return  # they came before it was known that somebody waits
        if not self._is_pulling:
            self._is_pulling = True
            self._desk.post(self._pull)
        await waiter

    async def aclose(self) -> None:
        """Close a generator that was begun, by the thread that waits for its run; if none does, it is left to itself."""
        is_open, self._ended = not self._ended, True
        if is_open and inspect.isgenerator(self._iterator) and self._desk.is_served:
            with anyio.move_on_after(_CLOSING):
                await self._desk.ask(self._iterator.close)

    # ---- on the thread that pulls -----------------------------------------------------------------------------------

    def _pull(self) -> None:
        if self._ended:
            return
        try:
            if self._iterator is None:
                self._iterator = iter(self._rows)
            for row in self._iterator:
                self._ahead.append(row)
                self._tell()
                if len(self._ahead) >= _AHEAD or self._desk.is_pressing:
                    return
            self._ended = True
        except Exception as error:
            self._error, self._ended = error, True
        except BaseException:
            self._error, self._ended = BulkError("the source of the rows was interrupted"), True
            raise
        finally:
            self._is_pulling = False
            self._tell()

    def _tell(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and self._loop is not None:
            _wake(self._loop, waiter)


class _Counted(_Pulled):
    """The rows of an iterable that knows how many they are."""

    def __len__(self) -> int:
        return len(self._rows)  # type: ignore[arg-type]  # it is Sized
