"""Pagers: every row once, an end in every case, and look-ahead that leaves nothing behind."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nex_async import Nex, PaginationError, TruncatedResultWarning
from nex_async.errors import DecodeError, InvalidRequestError, ServerError
from nex_async.models import Note, Rows, Task
from nex_async.models.base import Listing
from nex_async.paging import Limits, Pager, Source
from nex_async.walk import StableWalk, Walk

from .harness.canary import KEY


def rows_of(ids: list[str] | range, **words: Any) -> Rows[Task]:
    return Rows([Task(id=str(n)) for n in ids], [], Listing(**words))


def pager_of(
    answer: Callable[[Any], Rows[Task]], kind: Any = "offset", size: int | None = None, **limits: Any
) -> Pager[Task]:
    """Return a pager over a function from positions to pages."""

    async def fetch(position: Any) -> Rows[Task]:
        await asyncio.sleep(0)
        return answer(position)

    return Pager(Source(fetch, kind, "tasks", page_size=size), Limits(**limits))


async def ids(pager: Any) -> list[str]:
    return [row.id async for row in pager]


def numbered(count: int) -> list[str]:
    return [str(n) for n in range(count)]


@dataclass
class Server:
    """A listing of `count` rows that answers honestly, and counts what it was asked."""

    count: int
    page: int = 10
    asked: list[Any] = field(default_factory=list)

    def __call__(self, offset: int) -> Rows[Task]:
        self.asked.append(offset)
        assert len(self.asked) < 1000, "the pager does not end"
        end = min(self.count, offset + self.page)
        return rows_of(range(offset, max(offset, end)), total=self.count)


# ---- the faults of the table ----------------------------------------------------------------------------------------


async def test_p01_one_empty_page_does_not_end_the_listing() -> None:
    """An empty page with more to come is passed over; two in a row are a contradiction."""
    pages = {
        0: rows_of(range(2), has_more=True, next_offset=2),
        2: rows_of([], has_more=True, next_offset=4),
        4: rows_of(range(4, 6), has_more=False),
    }
    assert await ids(pager_of(pages.__getitem__)) == ["0", "1", "4", "5"]


async def test_p01_endless_empty_pages() -> None:
    """`has_more` without rows raises `PaginationError` after two pages, whether the offset moves or not."""
    asked: list[int] = []

    def answer(offset: int) -> Rows[Task]:
        asked.append(offset)
        return rows_of([], has_more=True, next_offset=offset + 10)

    with pytest.raises(PaginationError, match="empty pages"):
        await ids(pager_of(answer))
    assert len(asked) == 2
    with pytest.raises(PaginationError, match="does not move"):
        await ids(pager_of(lambda offset: rows_of([], has_more=True)))


@pytest.mark.parametrize("told", [10, 5, -1])
async def test_p02_offset_that_does_not_move(told: int) -> None:
    """A next offset that is not beyond the present one raises `PaginationError`; the rows before it were delivered."""
    seen: list[str] = []
    pager = pager_of(lambda at: rows_of(range(at, at + 10), has_more=True, next_offset=told if at else 10))
    with pytest.raises(PaginationError, match="does not lie beyond"):
        async for row in pager:
            seen.append(row.id)  # noqa: PERF401
    assert seen == numbered(10)


@pytest.mark.parametrize("told", [None, 0])
async def test_p02_absent_next_offset(told: int | None) -> None:
    """An absent, null or zero next offset means: go on behind the rows received."""

    def answer(offset: int) -> Rows[Task]:
        return rows_of(range(offset, min(25, offset + 10)), has_more=offset + 10 < 25, next_offset=told)

    assert await ids(pager_of(answer)) == numbered(25)


@pytest.mark.parametrize("cursors", [["a"], ["a", "b"], ["a", "b", "c"]])
async def test_p03_cursors_in_a_loop(cursors: list[str]) -> None:
    """A cursor that comes back raises `PaginationError` within one round."""
    asked: list[Any] = []

    def answer(cursor: str | None) -> Rows[Task]:
        asked.append(cursor)
        following = cursors[len(asked) % len(cursors) - 1] if cursor else cursors[0]
        return rows_of([str(len(asked))], has_next_page=True, next_cursor=following)

    with pytest.raises(PaginationError, match="loop"):
        await ids(pager_of(answer, "cursor"))
    assert len(asked) <= len(cursors) + 1


async def test_p03_resumed_cursor_that_points_at_itself() -> None:
    """A listing resumed at a cursor notices at once that this cursor comes back."""
    asked: list[Any] = []

    def answer(cursor: str | None) -> Rows[Task]:
        asked.append(cursor)
        return rows_of(["1"], has_next_page=True, next_cursor="a")

    with pytest.raises(PaginationError, match="loop"):
        await ids(pager_of(answer, "cursor", resume="tasks|a"))
    assert asked == ["a"]


@pytest.mark.parametrize("cursor", ["", None])
async def test_p04_next_page_without_a_cursor(cursor: str | None) -> None:
    """A promise of a next page without a cursor to it is an error, and never the first page again."""
    with pytest.raises(PaginationError, match="no cursor"):
        await ids(pager_of(lambda at: rows_of(["1"], has_next_page=True, next_cursor=cursor), "cursor"))


@pytest.mark.parametrize("words", [{"next_cursor": None}, {"next_cursor": ""}, {"has_next_page": False, "next_cursor": "x"}])
async def test_p04_last_page_of_a_cursor_listing(words: dict[str, Any]) -> None:
    """The last page may name no cursor, an empty one, or one that leads nowhere."""
    assert await ids(pager_of(lambda at: rows_of(["1"], **words), "cursor")) == ["1"]


async def test_p05_a_shrinking_listing_is_noticed() -> None:
    """When the total falls during a scan, `unstable` says that rows may have been skipped."""
    totals = iter([25, 24, 24])
    pager = pager_of(lambda at: rows_of(range(at, min(24, at + 10)), total=next(totals)))
    await ids(pager)
    assert pager.unstable
    still = pager_of(Server(25))
    await ids(still)
    assert not still.unstable


async def test_p06_an_insert_doubles_nothing() -> None:
    """A row pushed onto the next page by an insert is delivered once."""
    pages = {0: rows_of(range(10), total=20), 10: rows_of(range(9, 19), total=21), 20: rows_of(["19"], total=21)}
    assert await ids(pager_of(pages.__getitem__)) == numbered(20)


async def test_p06_a_whole_page_pushed_down() -> None:
    """A page that comes again because as many rows were inserted before it is no fault."""
    pages = {0: rows_of(["1"], total=2), 1: rows_of(["1"], total=3), 2: rows_of(["2"], total=3)}
    assert await ids(pager_of(pages.__getitem__)) == ["1", "2"]


async def test_p06_memory_is_bounded() -> None:
    """Deduplication looks back a bounded number of rows, so that a scan of any length fits into memory."""
    pager = pager_of(lambda at: rows_of(range(at, at + 5000), total=100_000))
    most = 0
    async with aclosing(pager.pages()) as pages:
        async for page in pages:
            walk = pages.ag_frame.f_locals["walk"]
            most = max(most, len(walk._seen))
            assert len(page) == 5000
    assert most <= 25_000


async def test_p07_capped_pages(caplog: pytest.LogCaptureFixture) -> None:
    """When the server gives fewer rows a page than asked for, all rows come, and one warning says so."""

    def answer(offset: int) -> Rows[Task]:
        return rows_of(range(offset, min(35, offset + 10)), total=35, limit=10)

    assert await ids(pager_of(answer, size=500)) == numbered(35)
    warned = [record for record in caplog.records if "500 rows a page" in record.getMessage()]
    assert len(warned) == 1


async def test_p08_offset_ignored() -> None:
    """The same page again raises `PaginationError`, and its rows are not delivered twice."""
    seen: list[str] = []
    with pytest.raises(PaginationError, match="same page again"):
        async for row in pager_of(lambda at: rows_of(range(10), total=100)):
            seen.append(row.id)  # noqa: PERF401
    assert seen == numbered(10)
    with pytest.raises(PaginationError, match="same page again"):
        await ids(pager_of(lambda at: rows_of(range(10), total=1000), stable=True))


async def test_p08_the_same_row_without_a_total() -> None:
    """A page of one row that comes again is refused where the server does not count its rows too."""
    with pytest.raises(PaginationError, match="same page again"):
        await ids(pager_of(lambda at: rows_of(["1"], has_more=True), max_pages=50))
    with pytest.raises(PaginationError, match="same page again"):
        await ids(pager_of(lambda at: rows_of(["1"], has_more=True, total=None if at else 60), max_pages=50))


async def test_p08_a_stable_scan_believes_eight_pages_that_bring_nothing() -> None:
    """A page of a changing listing may come again, with nothing new, seven times; the eighth is disbelieved."""
    asked: list[int] = []

    def answer(offset: int) -> Rows[Task]:
        asked.append(offset)
        return rows_of(range(10), has_more=True)

    with pytest.raises(PaginationError, match="same page again"):
        await ids(pager_of(answer, stable=True))
    assert len(asked) == 9


def test_p08_a_pass_that_has_seen_every_row_is_as_patient() -> None:
    """In a later pass, where no row is new, a page may come again as often as in the first."""
    source = pager_of(lambda at: rows_of([]))._source
    walk = StableWalk(source, 0, 100, set(numbered(10)))
    for _ in range(8):
        assert walk.take(rows_of(range(10), has_more=True)) == []
    with pytest.raises(PaginationError, match="same page again"):
        walk.take(rows_of(range(10), has_more=True))


async def test_p09_pages_without_end() -> None:
    """A listing that never ends stops at `max_pages` with the place to go on from."""
    asked: list[int] = []

    def answer(offset: int) -> Rows[Task]:
        asked.append(offset)
        return rows_of(range(offset, offset + 1), has_more=True)

    with pytest.raises(PaginationError, match="more than 50 pages") as caught:
        await ids(pager_of(answer, max_pages=50))
    assert len(asked) == 50
    assert caught.value.checkpoint is not None
    assert await ids(pager_of(Server(50, 1), max_pages=50)) == numbered(50)


@pytest.mark.parametrize("most", [4, 5])
async def test_p09_a_listing_that_changes_faster_than_it_is_read(most: int) -> None:
    """A stable scan whose rows are others each time they are asked for stops at `max_pages` too, on its way forth or back."""
    asked: list[int] = []

    def answer(offset: int) -> Rows[Task]:
        asked.append(offset)
        return rows_of(range(1000 * len(asked), 1000 * len(asked) + 10), total=1000)

    with pytest.raises(PaginationError, match=f"{most} pages"):
        await ids(pager_of(answer, stable=True, max_pages=most))
    assert asked == [0, 9, 0, 9, 0][:most]


@pytest.mark.parametrize("window", [0, 1, 3, 8])
@pytest.mark.parametrize("bad", [0, 1, 4])
async def test_p10_error_on_page_k(bad: int, window: int) -> None:
    """An error on page k comes after every row before it, in its place, with the checkpoint from which `resume=` goes on."""
    server, broken = Server(60), True

    def answer(offset: int) -> Rows[Task]:
        if broken and offset == bad * 10:
            raise ServerError("down", status=500)
        return server(offset)

    seen: list[str] = []
    with pytest.raises(ServerError) as caught:
        if window:
            async with pager_of(answer).prefetch(window) as rows:
                async for row in rows:
                    seen.append(row.id)  # noqa: PERF401
        else:
            async for row in pager_of(answer):
                seen.append(row.id)  # noqa: PERF401
    assert seen == numbered(bad * 10)
    assert caught.value.checkpoint is not None
    broken = False
    assert seen + await ids(pager_of(answer, resume=caught.value.checkpoint)) == numbered(60)


@pytest.mark.parametrize("window", [0, 1, 8])
@pytest.mark.parametrize("leave", ["break", "raise", "cancel"])
async def test_p11_leaving_early_leaves_nothing(window: int, leave: str) -> None:
    """A reader that breaks off, raises or is cancelled leaves no task, and no further page is fetched."""
    server = Server(1000)
    pager = pager_of(server)
    reached = asyncio.Event()

    async def read(rows: Any) -> None:
        async for row in rows:
            if row.id == "15":
                reached.set()
                if leave == "break":
                    break
                if leave == "raise":
                    raise LookupError
                await asyncio.Event().wait()

    async def run() -> None:
        if not window:
            async with aclosing(pager.__aiter__()) as rows:
                await read(rows)
        else:
            async with pager.prefetch(window) as rows:
                await read(rows)

    before = asyncio.all_tasks()
    task = asyncio.ensure_future(run())
    await reached.wait()
    if leave == "cancel":
        task.cancel()
    await asyncio.wait([task])
    fetched = len(server.asked)
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert len(server.asked) == fetched
    assert task.cancelled() == (leave == "cancel")


async def test_p12_deleting_while_reading() -> None:
    """Deleting rows while reading skips rows, as documented; `stable=True` finds every one of them."""
    for stable in (False, True):
        shelf = Shelf(numbered(20), 5)
        pager = pager_of(shelf.answer, stable=stable)
        seen = []
        async for row in pager:
            seen.append(row.id)
            shelf.rows.remove(row.id)
        assert (sorted(seen, key=int) == numbered(20)) == stable
        assert pager.unstable == (not stable)


@pytest.mark.parametrize("count", [199, 200, 201])
async def test_p13_silent_cap(count: int) -> None:
    """A listing that holds as many rows as the server ever gives issues a `TruncatedResultWarning`; one below does not."""

    async def fetch(position: Any) -> Rows[Note]:
        return Rows([Note(id=str(n)) for n in range(count)], [], Listing())

    pager = Pager(Source(fetch, "single", "listNotes", silent_cap=200), Limits())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(await pager.collect()) == count
    assert [warning.category for warning in caught] == ([TruncatedResultWarning] if count >= 200 else [])


# ---- any server -----------------------------------------------------------------------------------------------------


@dataclass
class Habits:
    """How a server speaks of its pages."""

    count: int
    cap: int
    total: str
    next_offset: str
    has_more: str

    def answer(self, offset: int) -> Rows[Task]:
        rows = range(offset, max(offset, min(self.count, offset + self.cap)))
        end = offset + len(rows)
        last = end >= self.count
        words: dict[str, Any] = {}
        if self.total == "true":
            words["total"] = self.count
        elif self.total == "zero":
            words["total"] = 0
        if self.has_more == "always" or (self.has_more == "only when true" and not last):
            words["has_more"] = not last
        if not last and self.next_offset != "never":
            words["next_offset"] = end
        elif last and self.next_offset == "zero on the last":
            words["next_offset"] = 0
        elif last and self.next_offset == "repeated on the last":
            words["next_offset"] = offset
        return rows_of(rows, **words)


habits = st.builds(
    Habits,
    count=st.integers(0, 40),
    cap=st.integers(1, 12),
    total=st.sampled_from(["true", "zero", "absent"]),
    next_offset=st.sampled_from(["never", "always", "zero on the last", "repeated on the last"]),
    has_more=st.sampled_from(["always", "never", "only when true"]),
)


@settings(deadline=None, max_examples=200)
@given(habits, st.sampled_from([0, 1, 2, 5]), st.booleans(), st.sampled_from([None, 3, 500]))
def test_every_row_once_and_an_end(server: Habits, window: int, stable: bool, size: int | None) -> None:
    """However a server words its pages, every row is delivered once, in order, and the scan ends."""
    asked: list[int] = []

    def answer(offset: int) -> Rows[Task]:
        asked.append(offset)
        assert len(asked) < 400, "no end"
        return server.answer(offset)

    async def read() -> list[str]:
        pager = pager_of(answer, size=size, stable=stable)
        if window and not stable:
            async with pager.prefetch(window) as rows:
                return await ids(rows)
        return await ids(pager)

    assert asyncio.run(read()) == numbered(server.count)


# ---- a listing that changes while it is read ------------------------------------------------------------------------


@dataclass
class Shelf:
    """Rows in a fixed order that come and go; a page is cut from what is there at that moment."""

    rows: list[str]
    page: int
    words: str = "total"

    def answer(self, offset: int) -> Rows[Task]:
        cut = self.rows[offset : offset + self.page]
        if self.words == "total":
            return rows_of(cut, total=len(self.rows))
        if self.words == "has_more":
            return rows_of(cut, has_more=offset + len(cut) < len(self.rows))
        return rows_of(cut)


change = st.tuples(st.sampled_from(["delete", "insert", "append", "nothing"]), st.floats(0, 1))


@settings(deadline=None, max_examples=300)
@given(
    st.integers(0, 14),
    st.integers(2, 5),
    st.sampled_from(["total", "has_more", "silence"]),
    st.lists(st.lists(change, max_size=4), max_size=12),
)
def test_p05_p06_stable_scan(count: int, page: int, words: str, changes: list[list[tuple[str, float]]]) -> None:
    """With `stable=True` every row that exists throughout is delivered exactly once, whatever comes and goes meanwhile."""
    shelf = Shelf(numbered(count), page, words)
    there = set(shelf.rows)
    fresh: Iterator[str] = (f"new{n}" for n in range(1000))
    queue = iter(changes)

    def answer(offset: int) -> Rows[Task]:
        reply = shelf.answer(offset)
        for what, where in next(queue, []):
            at = int(where * len(shelf.rows))
            if what == "delete" and shelf.rows:
                there.discard(shelf.rows.pop(min(at, len(shelf.rows) - 1)))
            elif what == "insert":
                shelf.rows.insert(at, next(fresh))
            elif what == "append":
                shelf.rows.append(next(fresh))
        return reply

    seen = asyncio.run(ids(pager_of(answer, stable=True)))
    assert len(seen) == len(set(seen)), "a row came twice"
    assert there <= set(seen), f"rows that were there throughout are missing: {there - set(seen)}"


async def test_p05_stable_scan_against_an_adversary() -> None:
    """Rows deleted just when they push one row past the reader, in every pass, do not hide that row from a stable scan."""
    shelf, victim = Shelf(numbered(60), 4), "40"

    def answer(offset: int) -> Rows[Task]:
        reply = shelf.answer(offset)
        end = offset + len(reply.rows)
        while end <= shelf.rows.index(victim) < end + 3 or shelf.rows.index(victim) == end - 1:
            if victim in [row.id for row in reply.rows] or len(shelf.rows) < 30:
                break
            shelf.rows.pop(0)
        return reply

    there = numbered(60)[31:]
    assert set(there) <= set(await ids(pager_of(answer, stable=True)))


async def test_p05_stable_scan_when_rows_move() -> None:
    """A row that moves from the part not yet read to the part already read is found by a further pass."""
    shelf, moved = Shelf(numbered(20), 5, "has_more"), False

    def answer(offset: int) -> Rows[Task]:
        nonlocal moved
        reply = shelf.answer(offset)
        if offset and not moved:
            moved = True
            shelf.rows.insert(0, shelf.rows.pop())
        return reply

    seen = await ids(pager_of(answer, stable=True))
    assert sorted(seen, key=int) == numbered(20)


async def test_p05_stable_scan_of_a_quiet_listing_costs_little() -> None:
    """A stable scan of a listing that holds still is one pass, with one row of overlap a page."""
    server = Server(100)
    assert await ids(pager_of(server, stable=True)) == numbered(100)
    assert len(server.asked) <= 12


@pytest.mark.parametrize("page", [1, 2, 3, 10])
async def test_p05_a_quiet_listing_is_read_in_one_pass(page: int) -> None:
    """Each page of two rows or more begins with the last row of the one before, which proves that nothing moved."""
    server = Server(31, page)
    assert await ids(pager_of(server, stable=True)) == numbered(31)
    if page == 1:  # nothing overlaps, and a second pass must tell
        assert server.asked == [*range(31)] * 2
    else:
        assert server.asked == [*range(0, 31 - 1, page - 1)]


async def test_p05_a_bad_row_is_a_row_of_its_page() -> None:
    """The pages of a stable scan overlap by one row, bad rows counted; what could be decoded comes once."""
    asked: list[int] = []

    def answer(offset: int) -> Rows[Task]:
        asked.append(offset)
        rows = rows_of([n for n in range(offset, min(25, offset + 10)) if n != 13], total=25)  # type: ignore[arg-type]
        if offset <= 13 < offset + 10:
            rows.errors.append(DecodeError("bad", path="$.data[3].id"))
        return rows

    pager = pager_of(answer, stable=True, on_bad_row="skip")
    assert await ids(pager) == [str(n) for n in range(25) if n != 13]
    assert asked[:3] == [0, 9, 18]
    assert not pager.unstable


async def test_rows_without_ids_all_come() -> None:
    """Rows that nothing tells apart are never taken for each other."""

    async def fetch(offset: Any) -> Rows[str]:
        return Rows(["same"] * (10 if offset < 20 else 5), [], Listing(total=25))

    assert await Pager(Source(fetch, "offset", "tasks"), Limits()).collect() == ["same"] * 25


def test_p06_what_is_forgotten_is_the_oldest() -> None:
    """When a walk has met more rows than it remembers, the newest thousands are still recognised."""
    walk: Walk[Task] = Walk(pager_of(Server(0))._source, 0, 99)
    for n in range(9):
        assert len(walk.take(rows_of(range(n * 500, n * 500 + 500), total=9000))) == 500
    again = walk.take(rows_of([*range(2600, 2700), *range(4400, 4600)], total=9000))  # type: ignore[arg-type]
    assert [row.id for row in again] == [str(n) for n in range(4500, 4600)]
    assert len(walk.take(rows_of(range(300), total=9000))) == 300


async def test_p05_the_way_back_doubles() -> None:
    """When many rows before the reader are gone at once, he finds the place in steps that double."""
    shelf, asked = Shelf(numbered(400), 5), []

    def answer(offset: int) -> Rows[Task]:
        asked.append(offset)
        if offset == 300:
            del shelf.rows[:250]
        return shelf.answer(offset)

    assert await ids(pager_of(answer, stable=True)) == numbered(400)
    at = asked.index(300)
    assert asked[at : at + 7] == [300, 296, 288, 272, 240, 176, 48]


def test_p05_the_way_back_ends_where_the_scan_began() -> None:
    """A scan that looks for rows before it goes no further back than to its own beginning, whose page it takes as it is."""
    walk: StableWalk[Task] = StableWalk(pager_of(Server(0))._source, 50, 100, set())
    assert len(walk.take(rows_of(range(50, 60), total=100))) == 10
    assert len(walk.take(rows_of(range(59, 69), total=100))) == 9
    positions = []
    for _ in range(2):
        assert walk.take(rows_of(range(80, 90), total=100)) == []
        positions.append(walk.position)
    assert positions == [59, 50]
    assert not walk.quiet
    assert len(walk.take(rows_of(range(70, 80), total=100))) == 10
    assert walk.position == 59


async def test_p05_stable_scan_says_what_it_could_not_find() -> None:
    """A stable scan that found fewer rows than the server counts is marked `unstable`."""
    pager = pager_of(lambda at: rows_of(range(at, min(15, at + 10)), total=17 if at >= 15 else 20), stable=True)
    await ids(pager)
    assert pager.unstable


def test_stable_and_prefetch_exclude_each_other() -> None:
    """Look-ahead over a listing that must be read page after page is refused."""
    with pytest.raises(InvalidRequestError):
        pager_of(Server(5), stable=True).prefetch(2)


# ---- look-ahead -----------------------------------------------------------------------------------------------------


class SlowServer(Server):
    """Answers when it is told to, and knows how many requests are under way."""

    def __init__(self, count: int, page: int = 10) -> None:
        super().__init__(count, page)
        self.running = 0
        self.most_running = 0
        self.answered = 0
        self.gates: dict[int, asyncio.Event] = {}
        self.open = False

    async def fetch(self, offset: int) -> Rows[Task]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if not self.open:
                await self.gates.setdefault(offset, asyncio.Event()).wait()
            await asyncio.sleep(0)
            self.answered += 1
            return self(offset)
        finally:
            self.running -= 1

    def pager(self, **limits: Any) -> Pager[Task]:
        return Pager(Source(self.fetch, "offset", "tasks"), Limits(**limits))

    async def let(self, offset: int) -> None:
        while offset not in self.gates:
            await asyncio.sleep(0)
        self.gates[offset].set()
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("window", [1, 2, 8])
async def test_prefetch_keeps_order_and_bounds(window: int) -> None:
    """Rows keep their order when pages arrive in another one; at most `window` requests are under way."""
    server = SlowServer(200)

    async def answer_backwards() -> None:
        await server.let(0)
        while server.answered < 20:
            waiting = [offset for offset, gate in server.gates.items() if not gate.is_set()]
            if waiting:
                server.gates[max(waiting)].set()
            await settle()

    task = asyncio.ensure_future(answer_backwards())
    async with server.pager().prefetch(window) as rows:
        assert await ids(rows) == numbered(200)
    await task
    assert server.most_running <= window
    assert sorted(server.asked) == list(range(0, 200, 10))


@pytest.mark.parametrize("window", [1, 3])
async def test_prefetch_stops_when_its_reader_stops(window: int) -> None:
    """While the reader does not read, no more than `window` + 1 pages are fetched ahead of him; then it goes on."""
    server = SlowServer(500)
    server.open = True
    async with server.pager().prefetch(window) as rows:
        reader = rows.__aiter__()
        assert (await anext(reader)).id == "0"
        for _ in range(5):
            await settle()
        assert len(server.asked) <= 1 + window + 1
        stopped = len(server.asked)
        assert [(await anext(reader)).id for _ in range(30)] == numbered(31)[1:]
        await settle()
        assert len(server.asked) > stopped
        await reader.aclose()


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 60),
    st.lists(st.integers(1, 10), min_size=1, max_size=12),
    st.integers(1, 6),
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.booleans(),
)
def test_prefetch_with_short_pages(count: int, sizes: list[int], window: int, delays: list[int], counted: bool) -> None:
    """Short pages in the middle lose and double nothing, whatever the order in which pages arrive."""
    calls = 0

    async def fetch(offset: int) -> Rows[Task]:
        nonlocal calls
        calls += 1
        assert calls < 1500, "no end"
        size = sizes[offset % len(sizes)]
        for _ in range(delays[calls % len(delays)]):
            await asyncio.sleep(0)
        cut = range(offset, max(offset, min(count, offset + size)))
        words: dict[str, Any] = {"total": count} if counted else {"has_more": cut.stop < count}
        return rows_of(cut, **words)

    async def read() -> list[str]:
        async with Pager(Source(fetch, "offset", "tasks"), Limits()).prefetch(window) as rows:
            return await ids(rows)

    assert asyncio.run(read()) == numbered(count)


async def test_prefetch_dropping_pages_starts_no_stale_ones() -> None:
    """A page that ends while wrongly guessed pages are dropped sends for nothing more of the old plan."""

    async def fetch(offset: int) -> Rows[Task]:
        stop = {0: 10, 10: 14, 20: 30}.get(offset, min(60, offset + 10))
        # The page at 20 ends in the very step in which the short page at 10 is read.
        for _ in range({0: 1, 10: 6, 20: 6}.get(offset, 9)):
            await asyncio.sleep(0)
        return rows_of(range(offset, stop), total=60)

    for window in range(1, 6):
        async with Pager(Source(fetch, "offset", "tasks"), Limits()).prefetch(window) as rows:
            assert await ids(rows) == numbered(60)


async def test_prefetch_does_not_wait_for_pages_nobody_will_read() -> None:
    """Leaving the context ends the requests under way at once; it does not wait for their replies."""
    server = SlowServer(500)
    opener = asyncio.ensure_future(server.let(0))
    async with server.pager().prefetch(4) as rows:
        async for _ in rows:
            break
        await settle()
        assert server.running == 4
    assert server.running == 0
    await opener


async def test_nothing_is_sent_for_behind_a_page_that_failed() -> None:
    """A look-ahead that met a failure waits for its reader, whom the failure ends, and asks for nothing more."""
    asked: list[int] = []

    def answer(offset: int) -> Rows[Task]:
        asked.append(offset)
        if offset == 10:
            raise ServerError("broken", status=500)
        return rows_of(range(offset, offset + 10), total=100)

    async with pager_of(answer).prefetch(1) as rows:
        assert (await anext(aiter(rows))).id == "0"
        for _ in range(20):
            await asyncio.sleep(0)
        assert asked == [0, 10]
        with pytest.raises(ServerError):
            async for _ in rows:
                pass
    assert asked == [0, 10]


async def test_prefetch_of_a_cursor_listing() -> None:
    """A cursor listing is read one page ahead, and completely."""
    asked: list[Any] = []

    def answer(cursor: str | None) -> Rows[Task]:
        asked.append(cursor)
        at = int(cursor or 0)
        return rows_of([str(at)], has_next_page=at < 9, next_cursor=str(at + 1))

    async with pager_of(answer, "cursor").prefetch(8) as rows:
        reader = rows.__aiter__()
        assert (await anext(reader)).id == "0"
        await settle()
        assert len(asked) == 2
        assert [row.id async for row in reader] == numbered(10)[1:]


async def test_prefetch_by_page() -> None:
    """Look-ahead gives whole pages too, in order; a given walk shows where the reader stands, and what it remembers."""
    async with pager_of(Server(25)).prefetch(3) as rows:
        pages = [page async for page in rows.pages()]
    assert [([row.id for row in page], page.checkpoint) for page in pages] == [
        (numbered(25)[:10], "tasks|10"), (numbered(25)[10:20], "tasks|20"), (numbered(25)[20:], None),
    ]  # fmt: skip
    server = Server(25)
    pager = pager_of(server).limit(12)
    walk = Walk(pager._source, 0, 9)
    walk.remember(["3", "11"])
    async with pager.prefetch(3) as rows:
        found = [([row.id for row in page], walk.position) async for page in rows.pages(walk)]
    assert found == [(["0", "1", "2", *numbered(10)[4:]], 10), (["10", "12", "13"], 20)]
    assert max(server.asked) == 10


async def test_prefetch_needs_its_context() -> None:
    """Look-ahead used without `async with` says how to use it."""
    with pytest.raises(InvalidRequestError, match="async with"):
        await ids(pager_of(Server(5)).prefetch(2))
    with pytest.raises(InvalidRequestError, match="async with"):
        await anext(pager_of(Server(5)).prefetch(2).pages())


@pytest.mark.parametrize("window", [0, -1, 257, 1.5, True])
def test_prefetch_window_is_checked(window: Any) -> None:
    """A window that cannot be right raises before anything is fetched; 1 to 256 pages are one."""
    pager_of(Server(5)).prefetch(1)
    pager_of(Server(5)).prefetch(256)
    with pytest.raises(InvalidRequestError):
        pager_of(Server(5)).prefetch(window)


async def test_prefetch_failure_of_a_page_nobody_reads_is_silent() -> None:
    """A page that fails after its reader has left raises nothing and logs nothing."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context))

    def answer(offset: int) -> Rows[Task]:
        if offset:
            raise ServerError("down", status=500)
        return rows_of(range(10), total=100)

    async with pager_of(answer).prefetch(4) as rows:
        async for _ in rows:
            await settle()
            break
    await settle()
    assert heard == []


# ---- first page, pages, limits --------------------------------------------------------------------------------------


async def test_await_gives_the_first_page() -> None:
    """`await pager` is one request: the first page with its total, and where the next begins."""
    server = Server(25)
    page = await pager_of(server)
    assert ([row.id for row in page], page.total, page.has_more, len(page)) == (numbered(10), 25, True, 10)
    assert page[0].id == "0"
    assert [row.id for row in page[8:]] == ["8", "9"]
    assert await ids(pager_of(server, resume=page.checkpoint)) == numbered(25)[10:]
    assert server.asked[:1] == [0]


async def test_pages_one_by_one() -> None:
    """`.pages()` gives each page as it came; the last one has no checkpoint."""
    pages = [page async for page in pager_of(Server(25)).pages()]
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [page.checkpoint for page in pages] == ["tasks|10", "tasks|20", None]
    assert "5 items" in repr(pages[2])


@pytest.mark.parametrize("most", [0, 1, 9, 10, 11, 24, 25, 99])
async def test_limit(most: int) -> None:
    """`.limit(n)` gives the first n rows and fetches no page beyond them, row by row, by page and collected."""
    for read in (ids, pages_of, collected):
        server = Server(25)
        assert await read(pager_of(server).limit(most)) == numbered(25)[:most]
        assert len(server.asked) == min(3, -(-most // 10))


async def pages_of(pager: Pager[Task]) -> list[str]:
    return [row.id async for page in pager.pages() for row in page]


async def collected(pager: Pager[Task]) -> list[str]:
    return [row.id for row in await pager.collect()]


async def test_limits_narrow() -> None:
    """A limit upon a limit is the smaller of the two; a limited stable scan does not begin a second pass."""
    assert await ids(pager_of(Server(25)).limit(5).limit(10)) == numbered(5)
    assert len(await pager_of(Server(25)).limit(5).collect(max_items=10)) == 5
    shelf = Shelf(numbered(20), 5, "silence")
    assert await pages_of(pager_of(shelf.answer, stable=True).limit(7)) == numbered(7)


@pytest.mark.parametrize("most", [-1, 1.5, True, "3"])
def test_limit_is_checked(most: Any) -> None:
    """A limit that is no count raises before anything is fetched."""
    with pytest.raises(InvalidRequestError):
        pager_of(Server(5)).limit(most)


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_bad_row": "ignore"},
        {"on_bad_row": None},
        *({"max_pages": most} for most in (0, -1, True, False, 1.5, "3", None)),
    ],
)
def test_limits_that_cannot_be_right_are_refused(wrong: dict[str, Any]) -> None:
    """A listing is checked when it is asked for, before anything is fetched; one page is a limit as good as any."""
    with pytest.raises(InvalidRequestError) as caught:
        pager_of(Server(5), **wrong)
    assert caught.value.argument == next(iter(wrong))
    pager_of(Server(5), on_bad_row="skip", max_pages=1)


async def test_a_new_pager_has_seen_nothing() -> None:
    """Before an iteration has come to it nothing is exhausted, skipped or unstable, and `checkpoint` is the start."""
    for kind, start in (("offset", "tasks|0"), ("cursor", "tasks|")):
        pager = pager_of(Server(5), kind)
        assert (pager.exhausted, pager.skipped, pager.unstable, pager.checkpoint) == (False, 0, False, start)
    totals = iter([25, 24, 24])
    pager = pager_of(lambda at: rows_of(range(at, min(24, at + 10)), total=next(totals, 24)))
    await ids(pager)
    assert (pager.exhausted, pager.unstable) == (True, True)
    async with aclosing(pager.__aiter__()) as rows:
        await anext(rows)
        assert (pager.exhausted, pager.unstable) == (False, False)


@pytest.mark.parametrize(("most", "following"), [(1, "tasks|0"), (9, "tasks|0"), (10, "tasks|10"), (11, "tasks|10")])
async def test_a_page_that_was_cut_is_gone_on_from_at_its_start(most: int, following: str) -> None:
    """Of a limited listing the first page is cut, and resuming behind it reads it once more: no row is lost."""
    page = await pager_of(Server(25)).limit(most)
    assert ([row.id for row in page], page.checkpoint, page.total) == (numbered(min(most, 10)), following, 25)
    pages = [page async for page in pager_of(Server(25)).limit(10 + most).pages()]
    assert [row.id for page in pages for row in page] == numbered(10 + most)
    assert pages[1].checkpoint == {"tasks|0": "tasks|10", "tasks|10": "tasks|20"}[following]


def spotty(offset: int) -> Rows[Task]:
    """The page at `offset` of 25 rows of which the fourth of each page is bad."""
    rows = rows_of([n for n in range(offset, min(25, offset + 10)) if n % 10 != 3], total=25)  # type: ignore[arg-type]
    rows.errors.append(DecodeError(f"bad {offset + 3}", path="$.data[3].id"))
    return rows


GOOD = [str(n) for n in range(25) if n % 10 != 3]


async def test_bad_rows_are_counted_or_raised() -> None:
    """However a listing is read, a bad row never takes a good one with it."""
    for read in (ids, collected):
        pager = pager_of(spotty, on_bad_row="skip")
        for _ in range(2):
            assert await read(pager) == GOOD
            assert pager.skipped == 3
    with pytest.raises(DecodeError, match="bad 3") as caught:
        await pager_of(spotty).collect()
    assert [row.id for row in caught.value.rows] == GOOD
    pages = [page async for page in pager_of(spotty).pages()]
    assert [str(error) for page in pages for error in page.errors] == ["bad 3", "bad 13", "bad 23"]
    seen = []
    with pytest.raises(DecodeError, match="bad 3"):
        async for row in pager_of(spotty):
            seen.append(row.id)  # noqa: PERF401
    assert seen == GOOD[:9]


async def test_bad_rows_beyond_a_limit_are_nobodys() -> None:
    """A limit that is reached with good rows raises nothing for the bad ones of the last page."""
    assert await collected(pager_of(spotty).limit(9)) == GOOD[:9]
    assert await ids(pager_of(spotty).limit(9)) == GOOD[:9]
    pager = pager_of(spotty, on_bad_row="skip")
    assert [row.id for row in await pager.collect(max_items=18)] == GOOD[:18]
    assert pager.skipped == 1
    with pytest.raises(DecodeError):
        await pager_of(spotty).limit(10).collect()


async def test_collecting_is_an_iteration() -> None:
    """`collect` leaves the pager as an iteration would: its checkpoint, whether it came to the end, whether it was stable."""
    pager = pager_of(Server(25))
    await pager.collect(max_items=12)
    assert (pager.checkpoint, pager.exhausted, pager.unstable) == ("tasks|10", False, False)
    await pager.collect()
    assert (pager.checkpoint, pager.exhausted) == ("tasks|20", True)
    totals = iter([25, 24, 24])
    shrinking = pager_of(lambda at: rows_of(range(at, min(24, at + 10)), total=next(totals)))
    await shrinking.collect(max_items=24)
    assert shrinking.unstable


async def test_a_stable_scan_ends_when_nothing_new_comes() -> None:
    """A second pass is made only after rows moved, and a scan that found all is stable."""
    server = Server(25)
    pager = pager_of(server, stable=True)
    assert await ids(pager) == numbered(25)
    assert server.asked == [0, 9, 18]
    assert not pager.unstable
    assert pager.exhausted


async def test_a_page_tells_what_it_holds() -> None:
    """A page shows its size, its total and whether more follow."""
    first, *_, last = [page async for page in pager_of(Server(25)).pages()]
    assert repr(first) == "<Page of 10 items, total=25, has_more=True>"
    assert repr(last) == "<Page of 5 items, total=25, has_more=False>"
    assert first.errors == []


async def test_smaller_pages_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Only a listing whose first page is smaller than asked for is told of, by the operation alone, with both numbers."""
    for size, limit, told in ((10, 10, 0), (10, 9, 1), (10, 11, 0), (None, 9, 0), (10, None, 0)):
        caplog.clear()
        source = Source(
            pager_of(lambda at, limit=limit: rows_of(range(3), total=3, limit=limit))._source.fetch,
            "offset",
            "tasks:secret",
            page_size=size,
        )
        await Pager(source, Limits()).collect()
        found = [record for record in caplog.records if record.name == "nex_async.paging"]
        assert len(found) == told
        for record in found:
            assert record.levelname == "WARNING"
            assert record.getMessage() == "tasks was asked for 10 rows a page and gives 9"
            assert {"nex_operation": "tasks", "nex_asked": 10, "nex_rows": 9}.items() <= vars(record).items()


@pytest.mark.parametrize("digits", [18, 19])
def test_an_offset_has_eighteen_digits(digits: int) -> None:
    """An offset that no database counts to is no checkpoint."""
    checkpoint = "tasks|" + "9" * digits
    if digits == 18:
        assert pager_of(Server(5), resume=checkpoint).checkpoint == checkpoint
    else:
        with pytest.raises(InvalidRequestError):
            pager_of(Server(5), resume=checkpoint)


async def test_resuming_at_no_cursor_is_the_start() -> None:
    """The checkpoint of the first page of a cursor listing has no cursor, and begins it anew."""
    asked: list[Any] = []

    def answer(cursor: Any) -> Rows[Task]:
        asked.append(cursor)
        return rows_of(["1"], has_next_page=False)

    assert await ids(pager_of(answer, "cursor", resume="tasks|")) == ["1"]
    assert await ids(pager_of(answer, "cursor", resume="tasks|a|b")) == ["1"]
    assert asked == [None, "a|b"]


@pytest.mark.parametrize("window", [1, 2, 8])
@pytest.mark.parametrize("start", [0, 10])
@pytest.mark.parametrize("most", [5, 10, 20, 25])
async def test_prefetch_asks_for_nothing_beyond_a_limit(window: int, start: int, most: int) -> None:
    """Look-ahead with a limit, from the start or from a checkpoint, asks for the pages of the limit and for no other."""
    server = Server(100)
    pager = pager_of(server, resume=f"tasks|{start}").limit(most)
    async with pager.prefetch(window) as rows:
        assert await ids(rows) == numbered(100)[start : start + most]
        await settle()
    assert sorted(server.asked) == list(range(start, start + most, 10))


@pytest.mark.parametrize("words", ["total", "has_more", "silence"])
async def test_prefetch_asks_for_little_beyond_the_end(words: str) -> None:
    """Where the server counts, nothing is asked for beyond the end; where it does not, no more than the window."""
    shelf, asked = Shelf(numbered(40), 10, words), []

    def answer(offset: int) -> Rows[Task]:
        asked.append(offset)
        return shelf.answer(offset)

    async with pager_of(answer).prefetch(3) as rows:
        assert await ids(rows) == numbered(40)
        await settle()
    assert sorted(asked)[:4] == [0, 10, 20, 30]
    assert len(asked) == len(set(asked)) <= (4 if words == "total" else 8)


async def test_a_total_of_nothing_beside_rows_stops_no_look_ahead() -> None:
    """A server that counts 0 and sends rows does not count: look-ahead goes on."""
    asked: list[int] = []

    def answer(offset: int) -> Rows[Task]:
        asked.append(offset)
        return rows_of(range(offset, min(50, offset + 10)), total=0, has_more=offset < 40)

    async with pager_of(answer).prefetch(3) as rows:
        reader = rows.__aiter__()
        await anext(reader)
        await settle()
        assert {0, 10, 20, 30} <= set(asked)
        assert [row.id async for row in reader] == numbered(50)[1:]


async def test_look_ahead_from_a_checkpoint_guesses_right() -> None:
    """Resumed in the middle, look-ahead asks for each page once, as from the start."""
    server = Server(100)
    async with pager_of(server, resume="tasks|20").prefetch(3) as rows:
        assert await ids(rows) == numbered(100)[20:]
    assert sorted(server.asked) == [*range(20, 100, 10)]


async def test_prefetch_keeps_its_window_full() -> None:
    """As soon as the first page has come, `window` requests are under way, and each that ends sends the next."""
    server = SlowServer(500)
    opener = asyncio.ensure_future(server.let(0))
    async with server.pager().prefetch(3) as rows:
        reader = rows.__aiter__()
        await anext(reader)
        await settle()
        assert (server.running, sorted(server.gates)) == (3, [0, 10, 20, 30])
        await server.let(20)
        assert (server.running, sorted(server.gates)) == (3, [0, 10, 20, 30, 40])
        await server.let(30)
        await server.let(40)
        assert (server.running, max(server.gates)) == (1, 40)  # four pages are held, or on their way
    await opener


async def test_a_loop_over_look_ahead_can_be_taken_up_again() -> None:
    """One iterator serves all loops of a context: what is left is gone on with."""
    async with pager_of(Server(25)).prefetch(2) as rows:
        async for row in rows:
            if row.id == "4":
                break
        assert await ids(rows) == numbered(25)[5:]
        assert await ids(rows) == []


@pytest.mark.parametrize("asks_again", [None, True, False])
async def test_a_garbled_page_that_was_looked_ahead_is_asked_for_once_more(asks_again: bool | None) -> None:
    """A reply that cannot be decoded is worth one more request, unless the source says that it is not."""
    server = Server(30)

    async def fetch(offset: Any) -> Rows[Task]:
        return server(offset)

    async def undecoded(offset: Any) -> Callable[[], Rows[Task]]:
        rows = server(offset)

        def decode() -> Rows[Task]:
            if offset == 10:
                raise DecodeError("garbled", path="$")
            return rows

        return decode

    more = {} if asks_again is None else {"asks_again": asks_again}
    pager = Pager(Source(fetch, "offset", "tasks", undecoded, **more), Limits())
    async with pager.prefetch(2) as rows:
        if asks_again is False:
            with pytest.raises(DecodeError) as caught:
                await ids(rows)
            assert caught.value.checkpoint == "tasks|10"
        else:
            assert await ids(rows) == numbered(30)
    assert server.asked.count(10) == (1 if asks_again is False else 2)
    assert server.asked.count(0) == 1


async def test_leaving_look_ahead_ends_its_iterator() -> None:
    """Behind the context nothing is read any more, and what the context held is let go."""
    async with pager_of(Server(25)).prefetch(2) as rows:
        reader = rows.__aiter__()
        await anext(reader)
    with pytest.raises(StopAsyncIteration):
        await anext(reader)
    assert not rows._queue
    assert rows._running == 0


async def test_exhausted_tells_an_end_from_a_limit() -> None:
    """`exhausted` is True only when the last iteration came to the listing's own end."""
    pager = pager_of(Server(25))
    await pager.collect(max_items=5)
    assert not pager.exhausted
    await pager.collect()
    assert pager.exhausted
    limited = pager.limit(15)
    await pages_of(limited)
    assert not limited.exhausted


async def test_a_pager_can_be_read_again() -> None:
    """A pager holds no state of a connection: each iteration starts afresh."""
    pager = pager_of(Server(25))
    assert await ids(pager) == await ids(pager) == numbered(25)


# ---- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["offset", "cursor"])
@pytest.mark.parametrize("stop", range(0, 25, 4))
async def test_resume_from_any_row(kind: str, stop: int) -> None:
    """A listing resumed at the checkpoint of any row goes on with the page of that row, and loses nothing."""

    def answer(position: Any) -> Rows[Task]:
        at = int(position or 0)
        last = at + 10 >= 25
        return rows_of(range(at, min(25, at + 10)), total=25, has_next_page=not last, next_cursor=str(at + 10))

    pager, seen = pager_of(answer, kind), []
    async with aclosing(pager.__aiter__()) as rows:
        async for row in rows:
            seen.append(row.id)
            if row.id == str(stop):
                break
    rest = await ids(pager_of(answer, kind, resume=pager.checkpoint))
    assert rest == numbered(25)[stop // 10 * 10 :]


async def test_resume_after_a_bad_row() -> None:
    """The error of a bad row carries the checkpoint of the page behind it."""
    calls: list[int] = []

    def answer(offset: int) -> Rows[Task]:
        calls.append(offset)
        rows = rows_of(range(offset, min(25, offset + 10)), total=25)
        if offset == 10:
            rows.errors.append(DecodeError("bad", path="$.data[3].id"))
            rows.rows.pop(3)
        return rows

    with pytest.raises(DecodeError) as caught:
        await ids(pager_of(answer))
    assert await ids(pager_of(answer, resume=caught.value.checkpoint)) == numbered(25)[20:]


@pytest.mark.parametrize(
    "checkpoint", ["", "x", "notes|5", "tasks|", "tasks|-1", "tasks|x", "tasks|\uff15", "tasks|" + "9" * 5000, 5, b"tasks|5"]
)
def test_a_checkpoint_of_another_listing_is_refused(checkpoint: Any) -> None:
    """What is no checkpoint of this very listing raises before anything is fetched."""
    with pytest.raises(InvalidRequestError, match="not a checkpoint of this listing"):
        pager_of(Server(5), resume=checkpoint)


def test_checkpoints_know_their_listing() -> None:
    """A checkpoint holds for the same operation, path, filter, sort and selection, and for no other."""
    nex = Nex(KEY)
    lists: list[Callable[..., Pager[Any]]] = [
        lambda **more: nex.tasks.list(**more),
        lambda **more: nex.tasks.list(search="a", **more),
        lambda **more: nex.tasks.list(entity_id=5, **more),
        lambda **more: nex.tasks.list(is_completed=False, **more),
        lambda **more: nex.records.list("person", **more),
        lambda **more: nex.records.list("company", **more),
        lambda **more: nex.records.list("person", sort="-name", **more),
        lambda **more: nex.records.list("person", attributes=["name"], **more),
        lambda **more: nex.records.list("person", attributes=["s" * 90 + str(n) for n in range(9)], **more),
        lambda **more: nex.records.list("person", attributes=["s" * 90 + str(n) for n in range(8)], **more),
        lambda **more: nex.records.timeline(5, **more),
        lambda **more: nex.records.timeline(6, **more),
        lambda **more: nex.lists.records(5, **more),
    ]
    checkpoints = [make().checkpoint for make in lists]
    for number, make in enumerate(lists):
        for other, checkpoint in enumerate(checkpoints):
            if number == other:
                make(resume=checkpoint, limit=7)
            else:
                with pytest.raises(InvalidRequestError):
                    make(resume=checkpoint)
    assert all(len(checkpoint) < 600 for checkpoint in checkpoints)


# ---- over the wire --------------------------------------------------------------------------------------------------


@pytest.fixture
async def people(nex: Nex) -> list[str]:
    """The ids of 53 people, in the order in which they were made."""
    made = [await nex.records.create("person", {"name": f"Person {n}"}) for n in range(53)]
    return [person.id for person in made]


async def test_emulator_every_way_of_reading(nex: Nex, people: list[str]) -> None:
    """Row by row, page by page, ahead, stable and collected: the same rows in the same order."""

    def pager(**more: Any) -> Pager[Any]:
        return nex.records.list("person", sort="created_at", limit=10, attributes="none", **more)

    assert await ids(pager()) == people
    assert [row.id async for page in pager().pages() for row in page] == people
    assert await ids(pager(stable=True)) == people
    assert [row.id for row in await pager().collect(max_items=21)] == people[:21]
    async with pager().prefetch(4) as rows:
        assert await ids(rows) == people
    page = await pager()
    assert (page.total, [row.id for row in page]) == (53, people[:10])
    assert await ids(pager(resume=page.checkpoint)) == people[10:]


async def test_emulator_deletes_during_a_stable_scan(nex: Nex, people: list[str]) -> None:
    """Every person who is there throughout comes exactly once, though others are deleted while they are read."""
    seen, gone = [], set()
    async for person in nex.records.list("person", limit=10, attributes="none", stable=True):
        seen.append(person.id)
        if len(seen) % 3 == 0:
            gone.add(person.id)
            await nex.records.delete(person.id)
    assert len(seen) == len(set(seen))
    assert set(seen) == set(people)


async def test_emulator_timeline_and_tasks(nex: Nex, people: list[str]) -> None:
    """Cursor listings and the tasks' own paging words lead through all pages."""
    for n in range(7):
        await nex.records.update(people[0], {"name": f"Name {n}"})
    whole = await ids(nex.records.timeline(people[0]))
    assert len(whole) >= 8
    assert await ids(nex.records.timeline(people[0], limit=2)) == whole
    async with nex.records.timeline(people[0], limit=3).prefetch(4) as rows:
        assert await ids(rows) == whole
    made = [(await nex.tasks.create(f"Task {n}")).id for n in range(12)]
    assert sorted(await ids(nex.tasks.list(limit=5))) == sorted(made)
    assert len(await nex.tasks.list(limit=5).collect()) == 12


async def test_emulator_prefetch_broken_off(nex: Nex, people: list[str]) -> None:
    """Breaking off a scan with pages in flight leaves no task and no socket; the client goes on."""
    async with nex.records.list("person", limit=2).prefetch(8) as rows:
        async for _ in rows:
            break
    assert (await nex.records.get(people[0])).id == people[0]
