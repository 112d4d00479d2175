"""The rows that go in: any iterable, ordinary or asynchronous, pulled no faster than they are taken."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any, TypeAlias

from ..errors import BulkError, InvalidRequestError

__all__ = ["Rows", "Source"]

Rows: TypeAlias = "Iterable[Any] | AsyncIterable[Any]"
"""Rows to write: mappings or Structs, each an object of its own, for some are pulled before they are sent. An ordinary
iterable is read on the event loop, so it must not block for long."""


class Source:
    """One pass over the rows of a caller."""

    def __init__(self, rows: Rows) -> None:
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, (Iterable, AsyncIterable)):
            raise InvalidRequestError(f"rows must be an iterable of rows, not {type(rows).__name__}", argument="rows")
        self._rows = rows
        self._ahead: list[Any] = []
        self._error: Exception | None = None
        self._pending: asyncio.Future[Any] | None = None
        self._sync: Iterator[Any] | None = None
        self._async: AsyncIterator[Any] | None = None
        self.total: int | None = len(rows) if isinstance(rows, Sized) else None
        self.ended: bool = False

    def begin(self) -> None:
        """Begin the pass."""
        self.ended, self._ahead, self._error = False, [], None
        if self._pending is not None:  # of an earlier pass
            self._pending.add_done_callback(_forget)
            self._pending.cancel()
            self._pending = None
        if isinstance(self._rows, AsyncIterable):
            self._async = aiter(self._rows)
        else:
            self._sync = iter(self._rows)

    @property
    def repeats(self) -> bool:
        """Whether the rows can be read a second time from the beginning."""
        return self._rows is not self._sync and self._rows is not self._async

    async def take(self, most: int) -> list[Any]:
        """Return up to `most` rows: as many as are there of an ordinary iterable, the next of an asynchronous one.

        An empty list means the end. Raises what the iterable raises.
        """
        if self._ahead:
            rows, self._ahead = self._ahead[:most], self._ahead[most:]
            return rows
        if self.ended:
            return []
        rows = self._some(self._sync, most) if self._sync is not None else await self._next()
        self.ended = not rows
        return rows

    def _some(self, iterator: Iterator[Any], most: int) -> list[Any]:
        """Return the next rows; where the iterable fails, what came before that, and the error the next time."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        rows: list[Any] = []
        try:
            rows.extend(islice(iterator, most))  # keeps what came before an error
        except asyncio.CancelledError:
            self._error = cancelled()
        except Exception as failure:
            self._error = failure
        if self._error is not None and not rows:
            return self._some(iterator, most)  # which raises it
        return rows

    async def sample(self, most: int, seconds: float) -> list[Any]:
        """Return the first rows, as many as come within some seconds; they are taken again later."""
        if self._sync is not None:
            if len(self._ahead) < most:
                self._ahead += self._some(self._sync, most - len(self._ahead))
            return self._ahead
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while len(self._ahead) < most and (left := until - loop.time()) > 0:
            await asyncio.wait([self._asked()], timeout=left)
            assert self._pending is not None
            if not self._pending.done() or self._pending.cancelled() or self._pending.exception() is not None:
                break
            self._ahead.append(self._pending.result())
            self._pending = None
        return self._ahead

    def _asked(self) -> asyncio.Future[Any]:
        if self._pending is None:
            assert self._async is not None
            self._pending = asyncio.ensure_future(_anext(self._async))
        return self._pending

    async def _next(self) -> list[Any]:
        assert self._async is not None
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                return [await pending]
            return [await anext(self._async)]
        except (StopAsyncIteration, _End):
            return []

    async def aclose(self) -> None:
        """End the pass: nothing of an asynchronous iterator is left running."""
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.wait([self._pending])
            self._pending = None
        if inspect.isgenerator(self._sync):
            self._sync.close()
        close = getattr(self._async, "aclose", None)
        closing = None if close is None else close()
        if inspect.isawaitable(closing):
            await closing


def cancelled() -> BulkError:
    """Return the error of a source that raises `CancelledError`, though nobody has cancelled the run."""
    return BulkError("the source of the rows was cancelled, not the run")


class _End(Exception):
    """The end of an asynchronous iterator: a task cannot raise `StopAsyncIteration`."""


def _forget(pending: asyncio.Future[Any]) -> None:
    if not pending.cancelled():
        pending.exception()


async def _anext(rows: AsyncIterator[Any]) -> Any:
    try:
        return await anext(rows)
    except StopAsyncIteration:
        raise _End from None
