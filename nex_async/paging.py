"""Pager: any listing as one asynchronous iterable, by offset, by cursor, or in a single page; with look-ahead.

Deciding where the next page is needs no I/O and lives in `_Walk`; fetching a page is somebody else's function.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import warnings
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

from .errors import DecodeError, InvalidRequestError, NexError, PaginationError, TruncatedResultWarning
from .models.base import Listing, Rows

__all__ = ["Page", "Pager", "Prefetch"]

T = TypeVar("T")
_log = logging.getLogger("nex_async.paging")

Kind: TypeAlias = Literal["offset", "cursor", "single"]
Position: TypeAlias = "int | str | None"
"""Where a page begins: an offset, a cursor, or None for the first page of a cursor listing."""
OnBadRow: TypeAlias = Literal["raise", "skip"]

MAX_PAGES = 100_000
_REMEMBERED_IDS = 20_000


class Page(Generic[T]):
    """The rows of one reply, in the server's order.

    `total` counts the whole listing where the server tells; `errors` are the rows that could not be decoded; `checkpoint`
    is what `resume=` takes to go on after this page, None on the last one.
    """

    __slots__ = ("checkpoint", "errors", "items", "total")

    def __init__(self, items: list[T], errors: list[DecodeError], total: int | None, checkpoint: str | None) -> None:
        self.items = items
        self.errors = errors
        self.total = total
        self.checkpoint = checkpoint

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
class Source(Generic[T]):
    """What a pager reads: how to fetch a page, how its listing is paged, and the name its checkpoints carry."""

    fetch: Callable[[Position], Awaitable[Rows[T]]]
    kind: Kind
    name: str
    page_size: int | None = None
    silent_cap: int | None = None
    """A number of rows at which the server silently cuts the listing."""


@dataclass(frozen=True)
class Limits:
    """How a listing is read, as the caller chose."""

    on_bad_row: OnBadRow = "raise"
    max_items: int | None = None
    max_pages: int = MAX_PAGES
    stable: bool = False
    resume: str | None = None


class _Walk(Generic[T]):
    """One pass over a listing: where it stands, what the server has said so far, and the rules of the next step."""

    def __init__(self, source: Source[T], start: Position, max_pages: int, seen: set[str] | None) -> None:
        self.source = source
        self.position: Position = start
        self.done = False
        self.total: int | None = None
        self.unstable = False
        self.pages = 0
        self._max_pages = max_pages
        self._empty = 0
        self._cursors: set[bytes] = set()
        self._last_ids: list[str] = []
        self._everything = seen is not None
        self._seen: set[str] = set() if seen is None else seen
        self._recent: deque[set[str]] = deque()
        self._warned = False

    def take(self, rows: Rows[T]) -> list[T]:
        """Account for the page at `position`, move on, and return its rows without those that came before.

        Raises `PaginationError` when the server's words contradict each other.
        """
        listing, received = rows.listing, len(rows.rows) + len(rows.errors)
        self.pages += 1
        if listing.total is not None:
            self.unstable = self.unstable or (self.total is not None and listing.total < self.total)
            self.total = listing.total
        fresh = rows.rows
        if self.source.kind == "offset":
            fresh = self._without_seen(rows.rows)
        self._step(listing, received)
        if not self.done and self.pages >= self._max_pages:
            raise PaginationError(f"the listing has more than {self._max_pages} pages; raise max_pages= if that is right")
        return fresh

    def _step(self, listing: Listing[Any], received: int) -> None:
        if self.source.kind == "offset":
            following: Position = self._next_offset(listing, received)
        elif self.source.kind == "cursor":
            following = self._next_cursor(listing)
        else:
            following = None
            self._warn_of_cap(received)
        if following is None:
            self.done = True
            return
        self._empty = 0 if received else self._empty + 1
        if self._empty >= 2:
            raise PaginationError("the server says there is more, and sends empty pages")
        self.position = following

    def _next_offset(self, listing: Listing[Any], received: int) -> int | None:
        assert isinstance(self.position, int)
        offset, end = self.position, self.position + received
        told = listing.next_offset
        if listing.has_more is False:
            return None
        if listing.has_more is None:
            # `total` is the next best word; a total of 0 beside rows says nothing, and the listing ends at an empty page.
            if listing.total:
                end = end if received else offset + (listing.limit or self.source.page_size or 1)
                return end if end < listing.total else None
            return end if received else None
        if told is not None and told > offset:
            return told
        if not received:
            raise PaginationError("the server says there is more, sends no rows, and its offset does not move")
        self._check_offset(told, offset)
        return end

    def _check_offset(self, told: int | None, offset: int) -> None:
        if told is not None and told != 0 and told <= offset:
            raise PaginationError(f"the server's next offset {told} does not lie beyond the present one, {offset}")

    def _next_cursor(self, listing: Listing[Any]) -> str | None:
        cursor = listing.next_cursor
        if listing.has_next_page is False or (listing.has_next_page is None and not cursor):
            return None
        if not cursor:
            raise PaginationError("the server says there is a next page, and gives no cursor to it")
        mark = hashlib.blake2b(cursor.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if mark in self._cursors:
            raise PaginationError("the server's cursors go round in a loop")
        self._cursors.add(mark)
        return cursor

    def _warn_of_cap(self, received: int) -> None:
        cap = self.source.silent_cap
        if cap is not None and received >= cap:
            warnings.warn(
                f"{self.source.name} returned {received} rows, the most it ever does; there may be more, and the API "
                "has no way to ask for them: narrow the filter",
                TruncatedResultWarning,
                stacklevel=4,
            )

    def _without_seen(self, rows: list[T]) -> list[T]:
        """Drop rows that an earlier page had: an insert between two calls pushes rows onto the next page."""
        try:
            ids: list[str] = [row.id for row in rows]  # type: ignore[attr-defined]
        except AttributeError:
            return rows
        if ids and ids == self._last_ids:
            raise PaginationError("the server sends the same page again, whatever the offset")
        self._last_ids = ids
        fresh = rows
        page = set(ids)
        if len(page) < len(ids) or not page.isdisjoint(self._seen):
            fresh = self._one_by_one(rows, ids)
        self._remember(page)
        return fresh

    def _one_by_one(self, rows: list[T], ids: list[str]) -> list[T]:
        fresh: list[T] = []
        here: set[str] = set()
        for row, row_id in zip(rows, ids, strict=True):
            if row_id not in self._seen and row_id not in here:
                here.add(row_id)
                fresh.append(row)
        return fresh

    def _remember(self, page: set[str]) -> None:
        self._seen |= page
        if self._everything:
            return
        self._recent.append(page)
        while len(self._seen) > _REMEMBERED_IDS and len(self._recent) > 1:
            self._seen -= self._recent.popleft()


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
        self.exhausted = False
        """Whether the last iteration came to the end of the listing."""
        self.skipped = 0
        """How many rows could not be decoded and were passed over."""
        self.unstable = False
        """Whether the listing shrank while it was read: an offset listing may then have skipped rows (see `stable=`)."""

    @property
    def checkpoint(self) -> str:
        """Where the iteration stands, for `resume=`."""
        return _checkpoint(self._source, self._checkpoint)

    def limit(self, count: int) -> Pager[T]:
        """Return a pager over the first `count` rows."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise InvalidRequestError(f"limit must be an integer of at least 0, not {count!r}", argument="count")
        return Pager(self._source, replace(self._limits, max_items=count))

    def __await__(self) -> Generator[Any, None, Page[T]]:
        return self._first().__await__()

    async def _first(self) -> Page[T]:
        walk = self._walk(None)
        page = await self._load(walk)
        if self._limits.max_items is not None:
            page.items = page.items[: self._limits.max_items]
        return page

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        left = self._limits.max_items
        if left == 0:
            return
        for walk in self._walks():
            while not walk.done:
                page = await self._load(walk)
                rows = page.items
                if left is not None:
                    rows = rows[:left]
                    left -= len(rows)
                for row in rows:
                    yield row
                if left == 0:
                    return
                self._raise_bad_rows(page)

    async def pages(self) -> AsyncGenerator[Page[T], None]:
        """Iterate over pages. Rows that cannot be decoded are in each page's `errors`, and raise nothing."""
        left = self._limits.max_items
        for walk in self._walks():
            while not walk.done and left != 0:
                page = await self._load(walk)
                if left is not None:
                    page.items = page.items[:left]
                    left -= len(page.items)
                yield page

    async def collect(self, *, max_items: int | None = None) -> list[T]:
        """Return every row in a list, at most `max_items`."""
        pager = self if max_items is None else self.limit(max_items)
        rows = [row async for row in pager]
        self.skipped, self.unstable = pager.skipped, pager.unstable
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

    def _walk(self, seen: set[str] | None) -> _Walk[T]:
        return _Walk(self._source, self._start, self._limits.max_pages, seen)

    def _walks(self) -> Iterator[_Walk[T]]:
        """Yield one walk; with `stable=` further ones, until a whole pass has met nothing new."""
        self.exhausted, self.unstable, self.skipped = False, False, 0
        if not self._limits.stable:
            yield self._walk(None)
            self.exhausted = True
            return
        seen: set[str] = set()
        before = -1
        while len(seen) > before:
            before = len(seen)
            walk = self._walk(seen)
            yield walk
            if not walk.unstable and walk.total is not None and walk.total == len(seen):
                break
        self.unstable = False
        self.exhausted = True

    async def _load(self, walk: _Walk[T]) -> Page[T]:
        self._checkpoint = walk.position
        try:
            rows = await self._source.fetch(walk.position)
            return self._take(walk, rows)
        except NexError as error:
            error.checkpoint = _checkpoint(self._source, walk.position)
            raise

    def _take(self, walk: _Walk[T], rows: Rows[T]) -> Page[T]:
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
            _log.warning("%s was asked for %d rows a page and gives %d", self._source.name, asked, got)

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
        if not (rest.isascii() and rest.isdigit()):
            raise InvalidRequestError("resume is not a checkpoint of this listing", argument="resume")
        return int(rest)
    return rest or None


def _checkpoint(source: Source[Any], position: Position) -> str:
    return f"{source.name}|{'' if position is None else position}"


class Prefetch(Generic[T]):
    """An iterator over rows with pages in flight; its tasks live inside the context manager.

    At most `window` requests are under way, and at most one more page than that is held.
    """

    def __init__(self, pager: Pager[T], window: int) -> None:
        self._pager = pager
        self._window = window
        self._queue: deque[tuple[Position, asyncio.Task[Rows[T]]]] = deque()
        self._running = 0
        self._next: int | None = None
        self._step = 0
        self._end: int | None = None
        self._open = False

    async def __aenter__(self) -> Prefetch[T]:
        self._open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._open = False
        await self._drop()

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

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        pager, left = self._pager, self._pager._limits.max_items
        if left == 0:
            return
        for walk in pager._walks():
            while not walk.done:
                page = await self._load(walk)
                rows = page.items
                if left is not None:
                    rows = rows[:left]
                    left -= len(rows)
                for row in rows:
                    yield row
                if left == 0:
                    return
                pager._raise_bad_rows(page)

    async def _load(self, walk: _Walk[T]) -> Page[T]:
        if not self._open:
            raise InvalidRequestError("use prefetch as `async with pager.prefetch(n) as rows`", argument="window")
        pager = self._pager
        position = pager._checkpoint = walk.position
        try:
            if not self._queue or self._queue[0][0] != position:
                # The pages in flight were guessed for another page size: drop them, and go on from where we are.
                await self._drop()
                self._next, self._end = None, None
                self._start(position)
            _, task = self._queue[0]
            try:
                rows = await asyncio.shield(task)
            finally:
                if task.done():
                    self._queue.popleft()
            page = pager._take(walk, rows)
        except NexError as error:
            error.checkpoint = _checkpoint(pager._source, position)
            raise
        self._plan(walk, rows, position)
        return page

    def _plan(self, walk: _Walk[T], rows: Rows[T], position: Position) -> None:
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
        self._end = rows.listing.total or None
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
        task = asyncio.ensure_future(self._pager._source.fetch(position))
        self._running += 1
        self._queue.append((position, task))
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Future[Rows[T]]) -> None:
        self._running -= 1
        if not task.cancelled() and task.exception() is None:
            self._fill()
