"""Partitions: ranges of a listing that can be read apart, each in a task, process or machine of its own."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Literal, Protocol, TypeVar

from .._typing import Unpack
from ..errors import InvalidRequestError
from ..models import Record
from ..models.base import Rows, decode_rows
from ..paging import Limits, OnBadRow, Page, Pager, Position, Source
from ..routes import LIST_MEMBERS, LIST_RECORDS, Route
from ..transport.options import RequestOptions
from ..transport.sender import Sender
from ..walk import Walk
from . import PAGE_SIZE
from .formats.lines import BadLines, BadRow

__all__ = ["Converter", "HasSender", "Partition", "Read", "Reader", "divided"]

T = TypeVar("T")
P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)

MOST_PAGES = 10_000_000
_PLACE = re.compile(r"\[(\d+)\]")


class HasSender(Protocol):
    """A client: whatever sends calls."""

    _sender: Sender


@dataclass(frozen=True, slots=True)
class Partition:
    """The rows `start` to `stop` of a listing; without `stop`, on to wherever the server's rows end by then.

    Holds no client and no connection, and pickles: read it in any process, with a client of that process.
    """

    kind: Literal["object", "list"]
    name: str
    """The object's slug, or the list's id."""
    start: int = 0
    stop: int | None = None
    sort: str = "created_at"
    attributes: str | tuple[str, ...] | None = None
    limit: int = PAGE_SIZE
    """Rows asked for at a time."""

    def read(self, nex: HasSender, /, *, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]) -> Pager[Record]:
        """Return a pager over these rows and no others.

        `POST /v1/objects/{slug}/records` or `POST /v1/lists/{id}/records`, scope `record.read` or `list.member.read`.
        """
        sender: Sender = nex._sender
        limits = Limits(on_bad_row=on_bad_row, resume=f"{self._label}|{self.start}", max_pages=MOST_PAGES)
        if self.stop is not None:
            limits = replace(limits, max_items=self.stop - self.start)
        return Pager(self.source(sender, options, partial(decode_rows, Record)), limits)

    def source(self, sender: Sender, options: RequestOptions, decode: Callable[[bytes], Rows[T]]) -> Source[T]:
        """Return what a pager reads: pages as `decode` makes them, of rows that lie before `stop`."""

        def ask(position: Position, asked: Route[Any]) -> Awaitable[Any]:
            assert isinstance(position, int)
            size = self.limit if self.stop is None else max(1, min(self.limit, self.stop - position))
            body = {**self._body(), "limit": size, "offset": position}
            return sender.send(asked, (self.name,), body=body, options=options)

        def fetch(position: Position) -> Awaitable[Rows[T]]:
            return ask(position, replace(self.route, decode=lambda data: self._within(decode(data), position)))

        async def fetch_undecoded(position: Position) -> Callable[[], Rows[T]]:
            data = await ask(position, replace(self.route, decode=bytes))
            return lambda: self._within(decode(data), position)

        asks_again = options.get("retries", sender.settings.policy.retries) != 0
        first = self.limit if self.stop is None else max(1, min(self.limit, self.stop - self.start))
        return Source(fetch, "offset", self._label, fetch_undecoded, first, asks_again=asks_again)

    @property
    def route(self) -> Route[Any]:
        """The operation that lists these rows."""
        return LIST_RECORDS if self.kind == "object" else LIST_MEMBERS

    @property
    def _label(self) -> str:
        return f"{self.route.name}:{self.name}".replace("|", "/")

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "sort": {"attribute": self.sort.lstrip("+-"), "direction": "desc" if self.sort.startswith("-") else "asc"}
        }
        if isinstance(self.attributes, tuple):
            body["attributes"] = {"mode": "custom", "slugs": list(self.attributes)}
        elif self.attributes is not None:
            body["attributes"] = self.attributes
        return body

    def _within(self, rows: Rows[T], position: Position) -> Rows[T]:
        """Drop what a server sends beyond `stop`, and let the listing end there."""
        if self.stop is None or not isinstance(position, int):
            return rows
        room, received = self.stop - position, len(rows.rows) + len(rows.errors)
        if received >= room:
            rows.listing.has_more = False
        if received > room:
            rows.errors = [error for error in rows.errors if _index(error.path) < room]
            rows.rows = rows.rows[: room - len(rows.errors)]
        return rows


def _index(path: str) -> int:
    found = _PLACE.search(path)
    return int(found[1]) if found else 0


async def divided(whole: Partition, count: int, sender: Sender, options: RequestOptions) -> list[Partition]:
    """Return `whole` in at most `count` parts of nearly the same size, the last of them without an end.

    Asks the server once, for the number of rows; where it does not tell, there is one part. Raises `InvalidRequestError`.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 100_000:
        raise InvalidRequestError(f"count must be an integer, 1 to 100000, not {count!r}", argument="count")
    return divide(whole, await total_of(whole, sender, options), count)


async def total_of(whole: Partition, sender: Sender, options: RequestOptions) -> int:
    """Ask the server once for the number of rows; 0 where it does not tell."""
    probe = replace(whole, attributes="none", limit=1).source(sender, options, partial(decode_rows, Record))
    return (await probe.fetch(0)).listing.total or 0


def divide(whole: Partition, total: int, count: int) -> list[Partition]:
    """Return `whole`, of `total` rows, in at most `count` parts of nearly the same size, the last of them without an end."""
    count = max(1, min(count, total))
    starts = [total * number // count for number in range(count)]
    return [replace(whole, start=start, stop=stop) for start, stop in zip(starts, [*starts[1:], None], strict=True)]


def selection(attributes: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    """Return a selection of attributes as a partition keeps it."""
    return attributes if attributes is None or isinstance(attributes, str) else tuple(attributes)


class Converter(Protocol[P_co]):
    """What decodes pages, and makes of their rows what is kept of them."""

    def decode(self, data: bytes) -> Rows[Any]:
        """Return the rows of a page, each with an `id`. Raises `DecodeError` when the reply as a whole is no listing."""
        ...

    def page(self, position: int, rows: list[Any]) -> P_co:
        """Return what is kept of rows that `decode` returned last; `position` is where their page begins."""
        ...


@dataclass(frozen=True, slots=True)
class Read(Generic[P]):
    """One page as it was read: where it began and what comes next, and what was made of its rows."""

    position: int
    following: int | None
    page: P
    """What the converter made of the rows, without those that came before."""
    count: int
    """How many rows those are."""
    ids: list[str]
    """The ids of all rows that came and can be used."""
    bad: list[BadRow]
    """Those that cannot be used, by their place in the listing."""
    received: int
    total: int | None
    size: int
    """Bytes of the reply."""


class Reader(Generic[P]):
    """Reads the pages of a partition in order, with several in flight; knows the newest ids.

    The rows themselves are let go of before the next page is decoded, which then takes the same memory.
    """

    def __init__(
        self,
        part: Partition,
        sender: Sender,
        options: RequestOptions,
        convert: Converter[P],
        *,
        window: int,
        seen: Sequence[str] = (),
    ) -> None:
        self._convert = convert
        self._last: Rows[Any] | None = None
        self._size = 0
        self._window = window
        self._walk: Walk[Any] = Walk(part.source(sender, options, self._decoded), part.start, MOST_PAGES)
        if seen:
            self._walk.remember(seen)
        source, most = self._walk.source, None if part.stop is None else part.stop - part.start
        limits = Limits(resume=f"{source.name}|{part.start}", max_items=most, max_pages=MOST_PAGES)
        self._pager: Pager[Any] = Pager(source, limits)

    @property
    def unstable(self) -> bool:
        """Whether the listing shrank while it was read."""
        return self._walk.unstable

    def _decoded(self, data: bytes) -> Rows[Any]:
        self._last, self._size = self._convert.decode(data), len(data)
        return self._last

    async def pages(self) -> AsyncGenerator[Read[P], None]:
        """Iterate over the pages, once. Raises what a listing raises. To be closed by `aclosing`: its tasks end with it."""
        walk = self._walk
        position = walk.position
        async with self._pager.prefetch(self._window) as ahead, aclosing(ahead.pages(walk)) as pages:
            async for page in pages:
                read = self._read(position, page)
                position = walk.position
                yield read

    def _read(self, position: Position, page: Page[Any]) -> Read[P]:
        rows, self._last, walk = self._last, None, self._walk
        assert rows is not None
        assert isinstance(position, int)
        items, page.items = page.items, []
        following = walk.position if not walk.done and isinstance(walk.position, int) else None
        bad = [row._replace(position=position + row.position) for row in rows.bad] if isinstance(rows, BadLines) else []
        ids, received = [row.id for row in rows.rows], len(rows.rows) + len(rows.errors)
        made = self._convert.page(position, items)
        return Read(position, following, made, len(items), ids, bad, received, walk.total, self._size)
