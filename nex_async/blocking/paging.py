"""Pagers that block: the pager's own code runs in the thread that reads, and only a page crosses to the loop and back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

from .. import paging
from ..errors import InvalidRequestError
from ..paging import Page
from ..walk import Walk
from .base import Client, over
from .portal import Portal

__all__ = ["Page", "Pager", "Prefetch"]

T = TypeVar("T")


class Pager(Generic[T]):
    """A listing that pages by itself.

    ``for row in pager`` reads every row; ``.first_page()`` the first page; ``.pages()`` page by page; ``.collect()`` into a
    list; ``.prefetch(n)`` with n pages in flight. A pager holds no connection, and may be iterated again; a loop over it may
    be left at any row. `checkpoint` is a small string from which ``resume=`` goes on: it names the page being read, so its
    rows may come again. Rows that cannot be decoded raise `DecodeError` after the good rows of their page, or are counted in
    `skipped` with ``on_bad_row="skip"``. Do not delete rows of an offset listing while you iterate: what follows moves up.
    """

    def __init__(self, nex: Client, behind: paging.Pager[T]) -> None:
        self._nex = nex
        self._async = behind

    @property
    def checkpoint(self) -> str:
        """Where the iteration stands, for `resume=`."""
        return self._async.checkpoint

    @property
    def exhausted(self) -> bool:
        """Whether the last iteration came to the end of the listing."""
        return self._async.exhausted

    @property
    def skipped(self) -> int:
        """How many rows could not be decoded and were passed over."""
        return self._async.skipped

    @property
    def unstable(self) -> bool:
        """Whether the listing shrank while it was read, or the server counts more rows than a stable scan found.

        Then rows may have been skipped; see `stable=`.
        """
        return self._async.unstable

    def limit(self, count: int) -> Pager[T]:
        """Return a pager over the first `count` rows."""
        return Pager(self._nex, self._async.limit(count))

    def first_page(self) -> Page[T]:
        """Return the first page, with `.total` where the server tells it."""
        return self._nex._call(self._async._first)

    def __iter__(self) -> Generator[T, None, None]:
        return _rows(self._async, self.pages())

    def pages(self) -> Generator[Page[T], None, None]:
        """Iterate over pages. Rows that cannot be decoded are in each page's `errors`, and raise nothing."""
        nex, pager = self._nex, self._async
        return _pages(lambda walk: nex._call(lambda: pager._load(walk)), pager, pager._walks())

    def collect(self, *, max_items: int | None = None) -> list[T]:
        """Return every row in a list, at most `max_items`.

        When rows could not be decoded, reads on to the end, then raises the first one's `DecodeError` with the good rows as
        its `rows` (with ``on_bad_row="skip"``: returns them, and counts the others).
        """
        return self._nex._call(lambda: self._async.collect(max_items=max_items))

    def prefetch(self, window: int) -> Prefetch[T]:
        """Return a context manager over an iterator that keeps up to `window` pages in flight, in order.

        What is in flight belongs to the context manager and ends with it. It stops fetching while its reader does not read.
        A cursor listing can only look one page ahead.
        """
        return Prefetch(self._nex, self._async.prefetch(window))


class Prefetch(Generic[T]):
    """An iterator over rows with pages in flight, which end with the context manager.

    At most `window` requests are under way, and at most one more page than that is held, as bytes: a page is decoded when
    its turn comes.
    """

    def __init__(self, nex: Client, behind: paging.Prefetch[T]) -> None:
        self._nex = nex
        self._async = behind
        self._portal: Portal | None = None
        self._iterator: Generator[T, None, None] | None = None

    def __enter__(self) -> Prefetch[T]:
        self._nex._call(self._async.__aenter__)
        self._portal = self._nex._lease.running()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._iterator is not None:
            self._iterator.close()
        portal = self._portal
        if portal is not None and not portal.forked and not portal.ended:
            portal.close(self._async.__aexit__)

    def __iter__(self) -> Generator[T, None, None]:
        # One iterator for the life of the context: a loop that is left and taken up again goes on where it was.
        if self._iterator is None:
            self._iterator = _rows(self._async._pager, self.pages())
        return self._iterator

    def pages(self, walk: Walk[T] | None = None) -> Generator[Page[T], None, None]:
        """Iterate over pages inside the context manager, as `Pager.pages` does.

        `walk` is the pass to make over the listing, a new one unless told; it shows where the reader stands.
        """
        portal, load, pager = self._portal, self._async._load, self._async._pager
        if portal is None or not self._async._open:
            raise InvalidRequestError("use prefetch as `with pager.prefetch(n) as rows`", argument="window")
        return _pages(lambda walk: portal.call(lambda: load(walk)), pager, pager._walks(walk))


def _pages(
    load: Callable[[Walk[T]], Page[T]], pager: paging.Pager[T], walks: Iterator[Walk[T]]
) -> Generator[Page[T], None, None]:
    """Iterate over the pages of a pager here, each of them fetched on the loop."""

    async def loaded(walk: Walk[T]) -> Page[T]:
        return load(walk)

    pages = pager._pages(loaded, walks)
    try:
        while True:
            try:
                page = over(pages.__anext__())
            except StopAsyncIteration:
                return
            yield page
    finally:
        over(pages.aclose())


def _rows(pager: paging.Pager[T], pages: Generator[Page[T], None, None]) -> Generator[T, None, None]:
    """Iterate over the rows of pages as the pager does."""
    left = pager._limits.max_items
    with closing(pages):
        for page in pages:
            yield from page.items
            if left is not None:
                left -= len(page.items)
            if left != 0:  # those that lie beyond the last row that was asked for are nobody's concern
                pager._raise_bad_rows(page)
