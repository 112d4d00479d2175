"""Pager: any listing as one asynchronous iterable, by offset, by cursor, or in a single page; with look-ahead.

Deciding where the next page is needs no I/O and lives in `walk`; fetching a page is somebody else's function.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

from .errors import DecodeError, InvalidRequestError, NexError
from .models.base import Rows
from .walk import Kind, Position, Source, StableWalk, Walk

__all__ = ["Kind", "Limits", "OnBadRow", "Page", "Pager", "Position", "Prefetch", "Source"]

T = TypeVar("T")
_log = logging.getLogger("nex_async.paging")

OnBadRow: TypeAlias = Literal["raise", "skip"]

MAX_PAGES = 100_000


class Page(Generic[T]):
    """The rows of one reply, in the server's order.

    `total` counts the whole listing where the server tells; `errors` are the rows that could not be decoded; `checkpoint`
    is what `resume=` takes to go on after this page, None on the last one.
    """

    __slots__ = ("checkpoint", "errors", "items", "total")

    def __init__(self, items: list[T], errors: list[DecodeError], total: int | None, checkpoint: str | None) -> None:
        self.items: list[T] = items
        self.errors: list[DecodeError] = errors
        self.total: int | None = total
        self.checkpoint: str | None = checkpoint

    @property
    def has_more(self) -> bool:
        """Whether another page follows."""
        return self.checkpoint is not None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self.items[index]

    def __repr__(self) -> str:
        return f"<Page of {len(self.items)} items, total={self.total}, has_more={self.has_more}>"


@dataclass(frozen=True)
class Limits:
    """How a listing is read, as the caller chose."""

    on_bad_row: OnBadRow = "raise"
    max_items: int | None = None
    max_pages: int = MAX_PAGES
    stable: bool = False
    resume: str | None = None

    def __post_init__(self) -> None:
        if self.on_bad_row not in ("raise", "skip"):
            raise InvalidRequestError("on_bad_row must be 'raise' or 'skip'", argument="on_bad_row")
        pages: object = self.max_pages
        if isinstance(pages, bool) or not isinstance(pages, int) or pages < 1:
            raise InvalidRequestError(f"max_pages must be an integer of at least 1, not {pages!r}", argument="max_pages")


class Pager(Generic[T]):
    """A listing that pages by itself.

    ``async for row in pager`` reads every row; ``await pager`` the first page; ``.pages()`` page by page; ``.collect()``
    into a list; ``.prefetch(n)`` with n pages in flight. A pager holds no connection and no task, and may be iterated
    again. `checkpoint` is a small string from which ``resume=`` goes on: it names the page being read, so its rows may come
    again. Rows that cannot be decoded raise `DecodeError` after the good rows of their page, or are counted in `skipped`
    with ``on_bad_row="skip"``. Do not delete rows of an offset listing while you iterate: what follows moves up.
    """

    def __init__(self, source: Source[T], limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._start = _start(source, limits.resume)
        self._checkpoint: Position = self._start
        self.exhausted: bool = False
        """Whether the last iteration came to the end of the listing."""
        self.skipped: int = 0
        """How many rows could not be decoded and were passed over."""
        self.unstable: bool = False
        """Whether the listing shrank while it was read, so that rows may have been skipped (see `stable=`), or the server
        counts more rows than a stable scan found."""

    @property
    def checkpoint(self) -> str:
        """Where the iteration stands, for `resume=`."""
        return _checkpoint(self._source, self._checkpoint)

    def limit(self, count: int) -> Pager[T]:
        """Return a pager over the first `count` rows."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise InvalidRequestError(f"limit must be an integer of at least 0, not {count!r}", argument="count")
        most = self._limits.max_items
        return Pager(self._source, replace(self._limits, max_items=count if most is None else min(count, most)))

    def __await__(self) -> Generator[Any, None, Page[T]]:
        return self._first().__await__()

    async def _first(self) -> Page[T]:
        page = await self._load(self._walk())
        if self._limits.max_items is not None:
            self._cut(page, self._limits.max_items, self._start)
        return page

    def _cut(self, page: Page[T], most: int, position: Position) -> None:
        """Cut a page to its first rows; going on from it then means to read it once more, so that no row is lost."""
        if len(page.items) > most:
            page.items = page.items[:most]
            page.checkpoint = _checkpoint(self._source, position)

    def __aiter__(self) -> AsyncGenerator[T, None]:
        return self._rows(self._load)

    def pages(self) -> AsyncGenerator[Page[T], None]:
        """Iterate over pages. Rows that cannot be decoded are in each page's `errors`, and raise nothing."""
        return self._pages(self._load, self._walks())

    async def _pages(
        self, load: Callable[[Walk[T]], Awaitable[Page[T]]], walks: Iterator[Walk[T]]
    ) -> AsyncGenerator[Page[T], None]:
        left = self._limits.max_items
        if left == 0:
            return
        for walk in walks:
            while not walk.done:
                position = walk.position
                page = await load(walk)
                if left is not None:
                    self._cut(page, left, position)
                    left -= len(page.items)
                yield page
                if left == 0:
                    return

    async def collect(self, *, max_items: int | None = None) -> list[T]:
        """Return every row in a list, at most `max_items`.

        When rows could not be decoded, reads on to the end, then raises the first one's `DecodeError` with the good rows as
        its `rows` (with ``on_bad_row="skip"``: returns them, and counts the others).
        """
        pager = self if max_items is None else self.limit(max_items)
        rows: list[T] = []
        errors: list[DecodeError] = []
        async for page in pager.pages():
            rows += page.items
            if pager._limits.max_items is None or len(rows) < pager._limits.max_items:
                errors += page.errors
        self.unstable, self.exhausted = pager.unstable, pager.exhausted
        self._checkpoint = pager._checkpoint
        if errors and self._limits.on_bad_row == "raise":
            errors[0].rows = rows
            raise errors[0]
        self.skipped = len(errors)
        return rows

    def prefetch(self, window: int) -> Prefetch[T]:
        """Return a context manager over an iterator that keeps up to `window` pages in flight, in order.

        The tasks belong to the context manager and end with it. It stops fetching while its reader does not read. A cursor
        listing can only look one page ahead.
        """
        if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window <= 256:
            raise InvalidRequestError(f"prefetch takes 1 to 256 pages, not {window!r}", argument="window")
        if self._limits.stable:
            raise InvalidRequestError("prefetch cannot be combined with stable=True", argument="window")
        return Prefetch(self, window)

    # ---- inside -----------------------------------------------------------------------------------------------------

    async def _rows(self, load: Callable[[Walk[T]], Awaitable[Page[T]]]) -> AsyncGenerator[T, None]:
        left = self._limits.max_items
        if left == 0:
            return
        for walk in self._walks():
            while not walk.done:
                page = await load(walk)
                rows = page.items
                if left is not None:
                    rows = rows[:left]
                    left -= len(rows)
                for row in rows:
                    yield row
                if left == 0:
                    return
                self._raise_bad_rows(page)

    def _walk(self) -> Walk[T]:
        return Walk(self._source, self._start, self._limits.max_pages)

    def _walks(self, walk: Walk[T] | None = None) -> Iterator[Walk[T]]:
        """Yield one walk, a new one unless told; `stable=` adds others until nothing moved or a pass met nothing new."""
        self.exhausted, self.unstable, self.skipped = False, False, 0
        if self._limits.stable:
            yield from self._stable_walks()
        else:
            yield self._walk() if walk is None else walk
        self.exhausted = True

    def _stable_walks(self) -> Iterator[Walk[T]]:
        seen: set[str] = set()
        before = -1
        while len(seen) > before:
            before = len(seen)
            walk = StableWalk(self._source, self._start, self._limits.max_pages, seen)
            yield walk
            self.unstable = walk.missing
            if walk.quiet and not walk.missing:
                return

    async def _load(self, walk: Walk[T]) -> Page[T]:
        self._checkpoint = walk.position
        try:
            rows = await self._source.fetch(walk.position)
            return self._take(walk, rows)
        except NexError as error:
            error.checkpoint = _checkpoint(self._source, walk.position)
            raise

    def _take(self, walk: Walk[T], rows: Rows[T]) -> Page[T]:
        first = not walk.pages
        items = walk.take(rows)
        self.unstable = self.unstable or walk.unstable
        if first:
            self._note_page_size(rows)
        following = None if walk.done else _checkpoint(self._source, walk.position)
        for error in rows.errors:
            error.checkpoint = following
        return Page(items, rows.errors, walk.total, following)

    def _note_page_size(self, rows: Rows[T]) -> None:
        asked, got = self._source.page_size, rows.listing.limit
        if asked is not None and got is not None and got < asked:
            operation = self._source.name.partition(":")[0]  # what follows may be what was searched for
            fields = {"nex_operation": operation, "nex_asked": asked, "nex_rows": got}
            _log.warning("%s was asked for %d rows a page and gives %d", operation, asked, got, extra=fields)

    def _raise_bad_rows(self, page: Page[T]) -> None:
        if not page.errors:
            return
        if self._limits.on_bad_row == "raise":
            raise page.errors[0]
        self.skipped += len(page.errors)


def _start(source: Source[Any], resume: str | None) -> Position:
    if resume is None:
        return 0 if source.kind == "offset" else None
    name, separator, rest = resume.partition("|") if isinstance(resume, str) else ("", "", "")
    if not separator or name != source.name:
        raise InvalidRequestError("resume is not a checkpoint of this listing", argument="resume")
    if source.kind == "offset":
        if not (rest.isascii() and rest.isdigit() and len(rest) < 19):
            raise InvalidRequestError("resume is not a checkpoint of this listing", argument="resume")
        return int(rest)
    return rest or None


def _checkpoint(source: Source[Any], position: Position) -> str:
    return f"{source.name}|{'' if position is None else position}"


class Prefetch(Generic[T]):
    """An iterator over rows with pages in flight; its tasks live inside the context manager.

    At most `window` requests are under way, and at most one more page than that is held, as bytes: a page is decoded when
    its turn comes.
    """

    def __init__(self, pager: Pager[T], window: int) -> None:
        self._pager = pager
        self._window = window
        self._queue: deque[tuple[Position, asyncio.Future[Callable[[], Rows[T]]]]] = deque()
        self._running = 0
        self._next: int | None = None
        self._step = 0
        self._end: int | None = None
        self._open = False
        self._iterator: AsyncGenerator[T, None] | None = None

    async def __aenter__(self) -> Prefetch[T]:
        self._open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._open = False
        await self._drop()
        if self._iterator is not None:
            await self._iterator.aclose()

    async def _drop(self) -> None:
        tasks = [task for _, task in self._queue]
        self._queue.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # seen: a page nobody will read may fail in silence

    def __aiter__(self) -> AsyncGenerator[T, None]:
        # One iterator for the life of the context: a loop that is left and taken up again goes on where it was.
        if self._iterator is None:
            self._iterator = self._pager._rows(self._load)
        return self._iterator

    def pages(self, walk: Walk[T] | None = None) -> AsyncGenerator[Page[T], None]:
        """Iterate over pages inside the context manager, as `Pager.pages` does.

        `walk` is the pass to make over the listing, a new one unless told; it shows where the reader stands.
        """
        return self._pager._pages(self._load, self._pager._walks(walk))

    async def _load(self, walk: Walk[T]) -> Page[T]:
        if not self._open:
            raise InvalidRequestError("use prefetch as `async with pager.prefetch(n) as rows`", argument="window")
        pager = self._pager
        position = pager._checkpoint = walk.position
        try:
            if not self._queue or self._queue[0][0] != position:
                # The pages in flight were guessed for another page size: drop them, and go on from where we are. First
                # the plan: a page that ends meanwhile would send for more of it.
                self._next, self._end = None, None
                await self._drop()
                self._start(position)
            rows = await self._rows_at(position)
            page = pager._take(walk, rows)
        except NexError as error:
            error.checkpoint = _checkpoint(pager._source, position)
            raise
        self._plan(walk, rows, position)
        return page

    async def _rows_at(self, position: Position) -> Rows[T]:
        _, task = self._queue[0]
        try:
            decode = await asyncio.shield(task)
        finally:
            if task.done():
                self._queue.popleft()
        try:
            return decode()
        except DecodeError:
            if not self._pager._source.asks_again:
                raise
            # A garbled reply is worth one more try, which the ordinary way gives it.
            return await self._pager._source.fetch(position)

    def _plan(self, walk: Walk[T], rows: Rows[T], position: Position) -> None:
        """Learn the size and the end of the listing from a page, and send for more."""
        if walk.done:
            self._end = 0
            return
        if not isinstance(position, int) or not isinstance(walk.position, int):
            self._start(walk.position)
            return
        if self._next is None:
            self._step = walk.position - position
            self._next = walk.position
        total, most = rows.listing.total, self._pager._limits.max_items
        ends = [total] if total is not None and total > 0 else []
        if most is not None and isinstance(self._pager._start, int):
            ends.append(self._pager._start + most)
        self._end = min(ends, default=None)
        self._fill()

    def _fill(self) -> None:
        while (
            self._open
            and self._next is not None
            and self._running < self._window
            and len(self._queue) <= self._window
            and (self._end is None or self._next < self._end)
        ):
            position = self._next
            self._next += self._step
            self._start(position)

    def _start(self, position: Position) -> None:
        task = asyncio.ensure_future(self._pager._source.undecoded(position))
        self._running += 1
        self._queue.append((position, task))
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Future[Callable[[], Rows[T]]]) -> None:
        self._running -= 1
        if not task.cancelled() and task.exception() is None:
            self._fill()
