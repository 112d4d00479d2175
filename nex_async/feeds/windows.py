"""The list of insights, read completely: windows of time, halved until each holds fewer rows than the API ever returns.

Times are integers: microseconds since 1970. A window includes both its ends, and shares each with its neighbour, so that it
does not matter whether the API means its bounds to be inclusive. Rows may come twice; their ids tell.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from hashlib import blake2b

from ..errors import DecodeError, InvalidRequestError, TruncatedResultWarning
from ..models import Insight
from ..models.base import Listing, Rows
from ..models.insights import InsightBatch, InsightWorkspace
from ..paging import Limits, OnBadRow, Pager
from ..routes import LIST_INSIGHTS, Route
from ..transport.wire import Query, rfc3339
from ..walk import Position, Source
from .ledger import SECOND, fingerprint

__all__ = ["LISTING", "Row", "Window", "Windows", "history", "micros", "moment_of", "rows_of"]

PAGE = 100
_LEAST_CAP = 20
"""The API returns at least so many rows where there are as many."""
_NARROWEST = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def micros(moment: datetime) -> int:
    """Return microseconds since 1970."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment_of(microseconds: int) -> datetime:
    """Return the moment so many microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


LISTING: Route[InsightBatch] = LIST_INSIGHTS

Fetch = Callable[[Query], Awaitable[InsightBatch]]
"""Sends `GET /v1/insights` with a query."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the list, with what identifies it. `created` is None when the API does not say."""

    id: str
    mark: bytes
    created: int | None
    insight: Insight


def rows_of(insights: Iterable[Insight]) -> list[Row]:
    """Return the rows of one reply, oldest first. One without an id is named by its contents, and its place among equals."""
    rows: list[Row] = []
    equals: Counter[bytes] = Counter()
    for insight in insights:
        mark = fingerprint(insight.type, insight.content)
        created = insight.created_at
        row_id = insight.id
        if row_id is None:
            digest = _digest(insight)
            row_id = f"~{digest.hex()}.{equals[digest]}"
            equals[digest] += 1
        rows.append(Row(row_id, mark, None if created is None else micros(created), insight))
    rows.sort(key=_order)
    return rows


def _order(row: Row) -> tuple[int, int, str]:
    return row.created or 0, len(row.id), row.id


def _digest(insight: Insight) -> bytes:
    """Return a hash of what stays the same of an insight that has no id."""
    target = insight.target
    parts = (
        insight.type,
        insight.content,
        target.hint if target else None,
        target.entity_type if target else None,
        insight._created_at,
        insight._valid_from,
    )
    return blake2b("\0".join(part or "" for part in parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Window:
    """A window that was read: its ends, its rows oldest first, and whether the API may hold more of it than it returned."""

    start: int
    end: int
    rows: list[Row]
    is_cut: bool
    workspace: InsightWorkspace | None
    errors: list[DecodeError]


class Windows:
    """Reads any range completely, and learns meanwhile how many rows the API returns at most."""

    def __init__(self, fetch: Fetch) -> None:
        self.cap: int = _LEAST_CAP
        """The most rows one reply has held: as many may have been cut."""
        self.splits: int = 0
        self.requests: int = 0
        self._narrowest = _NARROWEST
        self._fetch = fetch

    async def newest(self) -> Window:
        """Return the newest rows, about twenty."""
        batch = await self._ask({"limit": 20})
        return Window(0, 0, rows_of(batch.insights), False, batch.workspace, batch.errors)

    async def step(self, todo: list[tuple[int, int]]) -> Window:
        """Read the last window of `todo`, or its older halves down to one that is whole; the others stay in `todo`.

        What cannot be read stays, too, so that reading goes on there. Raises `DecodeError` when the API does not keep to the
        windows it is asked for.
        """
        while True:
            low, high = todo[-1]
            window = await self._window(low, high)
            todo.pop()
            if not window.is_cut or high - low <= self._narrowest:
                return window
            self.splits += 1
            middle = (low + high) // 2
            todo += [(middle, high), (low, middle)]

    def around(self, window: Window) -> tuple[int, int]:
        """Return the ends of a window that could not be halved further, on a grid: other readings name the same ends."""
        grid = self._narrowest
        return window.start // grid * grid, -(-window.end // grid) * grid

    async def _window(self, start: int, end: int) -> Window:
        batch = await self._ask({"from": _text(start), "to": _text(end), "limit": PAGE})
        count = len(batch.insights) + len(batch.errors)
        self.cap = max(self.cap, count)
        rows = rows_of(batch.insights)
        outside = [row for row in rows if row.created is not None and not start <= row.created <= end]
        if outside:
            self._narrowest = SECOND  # the API does not look at fractions of a second
            if len(outside) == len(rows) and all(_is_far(row.created or 0, start, end) for row in rows):
                raise DecodeError("the list of insights does not keep to the window that was asked for")
        return Window(start, end, rows, count >= self.cap, batch.workspace, batch.errors)

    async def _ask(self, query: Query) -> InsightBatch:
        self.requests += 1
        return await self._fetch(query)


def _is_far(created: int, start: int, end: int) -> bool:
    return not start - 2 * SECOND <= created <= end + 2 * SECOND


def history(fetch: Fetch, start: datetime, end: datetime, on_bad_row: OnBadRow, resume: str | None) -> Pager[Insight]:
    """Return a pager over every insight of a range, oldest first, whatever the limit of one reply."""
    first, last = micros(start), micros(end)
    windows = Windows(fetch)
    todo: list[tuple[int, int]] = []
    seen: dict[str, None] = {}

    async def page(position: Position) -> Rows[Insight]:
        low = first if position is None else _position(position)
        if position is None:
            seen.clear()
        if not todo or todo[-1][0] != low:
            todo[:] = [(low, last)]
        while True:
            window = await windows.step(todo)
            if window.is_cut:
                _warn_of_cut(window)
            fresh = [row.insight for row in window.rows if row.id not in seen]
            seen.update(dict.fromkeys(row.id for row in window.rows))
            while len(seen) > _REMEMBERED:
                del seen[next(iter(seen))]
            if fresh or window.errors or not todo:
                following = str(window.end) if todo else None
                return Rows(fresh, window.errors, Listing(has_next_page=bool(todo), next_cursor=following))

    name = f"{LISTING.name} from {first} to {last}"
    return Pager(Source(page, "cursor", name), Limits(on_bad_row=on_bad_row, resume=resume))


_REMEMBERED = 4_000


def _position(position: Position) -> int:
    try:
        return int(position or "")
    except ValueError:
        raise InvalidRequestError("resume is not a checkpoint of this listing", argument="resume") from None


def _warn_of_cut(window: Window) -> None:
    warnings.warn(
        f"more than {len(window.rows)} insights share the moment {moment_of(window.start).isoformat()}, "
        "and the API lists no more of them",
        TruncatedResultWarning,
        stacklevel=2,
    )


def _text(microseconds: int) -> str:
    return rfc3339("from", moment_of(microseconds))
