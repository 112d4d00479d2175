"""Walk: one pass over a listing, without I/O: where the next page is, and what the server must not say."""

from __future__ import annotations

import hashlib
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from .errors import PaginationError, TruncatedResultWarning
from .models.base import Listing, Rows

__all__ = ["Kind", "Position", "Source", "StableWalk", "Walk"]

T = TypeVar("T")

Kind: TypeAlias = Literal["offset", "cursor", "single"]
Position: TypeAlias = "int | str | None"
"""Where a page begins: an offset, a cursor, or None for the first page of a cursor listing."""

_REMEMBERED_IDS = 4_000
"""Rows an insert may push onto a later page and still be recognised. More would keep more of the past in memory, out of the
processor's cache: 20 000 cost a third more for each row."""
_MOST_REPEATS = 8
"""How often a page of a changing listing may come again, with nothing new between, before the server is disbelieved."""


@dataclass(frozen=True)
class Source(Generic[T]):
    """What a pager reads: how to fetch a page, how its listing is paged, and the name its checkpoints carry."""

    fetch: Callable[[Position], Awaitable[Rows[T]]]
    kind: Kind
    name: str
    fetch_undecoded: Callable[[Position], Awaitable[Callable[[], Rows[T]]]] | None = None
    """The same, but what comes is a function that decodes the page when it is called."""
    page_size: int | None = None
    silent_cap: int | None = None
    """A number of rows at which the server silently cuts the listing."""
    asks_again: bool = True
    """Whether a page that cannot be decoded may be asked for once more."""

    async def undecoded(self, position: Position) -> Callable[[], Rows[T]]:
        """Return the page at `position`, still to be decoded where the source can do so."""
        if self.fetch_undecoded is not None:
            return await self.fetch_undecoded(position)
        rows = await self.fetch(position)
        return lambda: rows


class Walk(Generic[T]):
    """One pass over a listing: where it stands, what the server has said so far, and the rules of the next step."""

    def __init__(self, source: Source[T], start: Position, max_pages: int) -> None:
        self.source = source
        self.position: Position = start
        self.done: bool = False
        self.total: int | None = None
        self.unstable: bool = False
        self.pages: int = 0
        self._max_pages = max_pages
        self._empty = 0
        self._cursors: set[bytes] = set() if start is None else {_mark(str(start))}
        self._last_ids: list[str] = []
        self._grown = 0
        self._seen: set[str] = set()
        self._recent: deque[list[str]] = deque()

    def remember(self, ids: Sequence[str]) -> None:
        """Take rows with these ids for rows that an earlier page had; as many are remembered as of a walk's own rows."""
        self._seen.update(ids)
        self._recent.append(list(ids))

    def take(self, rows: Rows[T]) -> list[T]:
        """Account for the page at `position`, move on, and return its rows without those that came before.

        Raises `PaginationError` when the server's words contradict each other.
        """
        listing, received = rows.listing, len(rows.rows) + len(rows.errors)
        self.pages += 1
        if listing.total is not None:
            self._grown = 0 if self.total is None else listing.total - self.total
            self.unstable = self.unstable or self._grown < 0
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
            if listing.total is not None and listing.total > 0:
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
        mark = _mark(cursor)
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
            self._met_again(len(ids))
        self._last_ids = ids
        return self._fresh(rows, ids)

    def _met_again(self, count: int) -> None:
        """Refuse the same page twice in a row, unless as many rows were inserted before it as it holds."""
        if self._grown < count:
            raise PaginationError("the server sends the same page again, whatever the offset")

    def _fresh(self, rows: list[T], ids: list[str]) -> list[T]:
        # The usual page is all new, which the growth of the set proves without a look at each row.
        known = len(self._seen)
        self._seen.update(ids)
        if len(self._seen) - known < len(ids):
            self._seen = set().union(*self._recent)
            rows = self._one_by_one(rows, ids)
        self._recent.append(ids)
        if len(self._seen) > _REMEMBERED_IDS:
            self._forget()
        return rows

    def _one_by_one(self, rows: list[T], ids: list[str]) -> list[T]:
        fresh: list[T] = []
        for row, row_id in zip(rows, ids, strict=True):
            if row_id not in self._seen:
                self._seen.add(row_id)
                fresh.append(row)
        return fresh

    def _forget(self) -> None:
        """Keep the ids of the newest pages only: half of what may be remembered, but a page at least."""
        held = sum(map(len, self._recent))
        while held > _REMEMBERED_IDS // 2 and len(self._recent) > 1:
            held -= len(self._recent.popleft())
        self._seen = set().union(*self._recent)


class StableWalk(Walk[T]):
    """A pass over an offset listing whose rows come and go meanwhile. All passes share the ids `seen`.

    Each page is asked for from the last row of the page before. If a row that was seen leads it, nothing slipped through
    between the two; if not, rows before it were deleted and others moved up past the reader, who goes back to look for them.
    """

    def __init__(self, source: Source[T], start: Position, max_pages: int, seen: set[str]) -> None:
        super().__init__(source, start, max_pages)
        self.position: Position
        self.pages: int
        self.quiet: bool = True
        """Whether the listing held still: every page began exactly where the one before ended."""
        self.bad: int = 0
        self._seen = seen
        self._floor = start if isinstance(start, int) else 0
        self._overlaps = False
        self._stride = 1
        self._back = 1
        self._repeats = 0

    def take(self, rows: Rows[T]) -> list[T]:
        """Account for a page; see `Walk`. A page that lies beyond rows not yet seen is set aside, and returns nothing."""
        led, self._overlaps = self._overlaps, False
        received = len(rows.rows) + len(rows.errors)
        self._stride = max(self._stride, received - 1)
        self.bad += len(rows.errors)
        first = getattr(rows.rows[0], "id", None) if rows.rows else None
        exact = not self.pages or not received or (led and not rows.errors and first == self._last_ids[-1])
        before = self.total
        if led and not rows.errors and first not in self._seen:
            self._go_back()
            return []
        self._back = self._stride
        offset = self.position
        fresh = super().take(rows)
        self._repeats = 0 if fresh else self._repeats
        self.quiet = self.quiet and exact and before in (None, self.total)
        if not self.done and isinstance(offset, int) and received > 1 and self.position == offset + received:
            self.position = offset + received - 1
            self._overlaps = bool(self._last_ids)
        return fresh

    def _go_back(self) -> None:
        assert isinstance(self.position, int)
        self.quiet = False
        self.pages += 1
        if self.pages >= self._max_pages:
            raise PaginationError(f"the listing changes faster than {self._max_pages} pages can follow")
        self.position = max(self._floor, self.position - self._back)
        self._back *= 2
        self._overlaps = self.position > self._floor

    def _met_again(self, count: int) -> None:
        self._repeats += self._grown <= 0
        if self._repeats >= _MOST_REPEATS:
            raise PaginationError("the server sends the same page again, whatever the offset")

    def _fresh(self, rows: list[T], ids: list[str]) -> list[T]:
        return self._one_by_one(rows, ids)

    @property
    def missing(self) -> bool:
        """Whether the server counts more rows than came."""
        return self.total is not None and self.total > self._floor + len(self._seen) + self.bad


def _mark(cursor: str) -> bytes:
    return hashlib.blake2b(cursor.encode("utf-8", "surrogatepass"), digest_size=16).digest()
