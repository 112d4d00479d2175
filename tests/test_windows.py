"""The list of insights read in windows, against a list in memory that keeps to the API's limit, or to less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from nex_async.errors import DecodeError, InvalidRequestError, ServerError, TruncatedResultWarning
from nex_async.feeds.ledger import SECOND, fingerprint
from nex_async.feeds.windows import Window, Windows, history, micros, moment_of, rows_of
from nex_async.models import Insight
from nex_async.models.insights import InsightBatch, InsightTarget, InsightWorkspace

BEGUN = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
ZERO = micros(BEGUN)


def insight(number: int, at: int | None, **more: Any) -> Insight:
    created = None if at is None else moment_of(at).isoformat()
    return Insight(**{"id": str(number), "type": "note", "content": f"text {number}", "_created_at": created, **more})


@dataclass
class Shelf:
    """A list that returns the newest `cap` rows of a window, both ends included, the newest first."""

    moments: list[int]
    cap: int = 20
    grain: int = 1
    """What the list's look at the bounds is rounded to, outwards."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    bad: list[DecodeError] = field(default_factory=list)

    async def __call__(self, query: Any) -> InsightBatch:
        self.asked.append(query)
        assert len(self.asked) < 2000, "no end"
        low, high = (micros(datetime.fromisoformat(query[end].replace("Z", "+00:00"))) for end in ("from", "to"))
        low, high = low // self.grain * self.grain, -(-high // self.grain) * self.grain
        inside = [insight(n, at) for n, at in enumerate(self.moments) if low <= at <= high]
        inside.sort(key=lambda one: (micros(one.created_at or BEGUN), int(one.id or 0)), reverse=True)
        return InsightBatch(insights=inside[: self.cap], errors=list(self.bad))


async def read(windows: Windows, low: int, high: int) -> list[Window]:
    todo, found = [(low, high)], []
    while todo:
        found.append(await windows.step(todo))
    return found


def ids(windows: list[Window]) -> list[str]:
    return list(dict.fromkeys(row.id for window in windows for row in window.rows))


# ---- moments and rows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        (datetime(1970, 1, 1, tzinfo=timezone.utc), 0),
        (datetime(1970, 1, 2, 0, 0, 1, 7, tzinfo=timezone.utc), 86_401_000_007),
        (datetime(1970, 1, 1, 2, 0, 0, 5, tzinfo=timezone(timedelta(hours=2))), 5),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc), -1),
    ],
)
def test_a_moment_is_a_number_of_microseconds(moment: datetime, count: int) -> None:
    """Moments become microseconds since 1970 and moments again, exactly."""
    assert micros(moment) == count
    assert moment_of(count) == moment


def test_rows_are_in_order_of_time_then_of_their_ids() -> None:
    """Rows come oldest first, those without a time before all; of one moment, 9 comes before 10."""
    given = [
        insight(10, ZERO),
        insight(9, ZERO),
        insight(11, ZERO),
        insight(3, ZERO + 1),
        insight(4, ZERO - 1),
        insight(7, None),
    ]
    rows = rows_of(given)
    assert [row.id for row in rows] == ["7", "4", "9", "10", "11", "3"]
    assert [row.created for row in rows] == [None, ZERO - 1, ZERO, ZERO, ZERO, ZERO + 1]
    assert all(row.mark == fingerprint("note", row.insight.content) for row in rows)


def test_a_row_without_an_id_is_named_by_its_contents() -> None:
    """The same contents get the same name in each reply, equals are told by their place, and what differs is named otherwise."""
    base = {"id": None, "content": "a", "target": InsightTarget(hint="h", entity_type="person"), "_valid_from": "2026-01-01"}
    others: list[dict[str, Any]] = [
        {"content": "b"},
        {"type": "other"},
        {"target": InsightTarget(hint="i", entity_type="person")},
        {"target": InsightTarget(hint="h", entity_type="company")},
        {"target": None},
        {"_valid_from": "2026-01-02"},
        {"_created_at": moment_of(ZERO + 1).isoformat()},
        {"content": "\ud800"},
    ]
    one, two = insight(0, ZERO, **base), insight(0, ZERO, **base)
    names = [row.id for row in rows_of([one, two, *(insight(0, ZERO, **{**base, **more}) for more in others)])]
    assert len(set(names)) == len(names) == 2 + len(others)
    assert all(name.startswith("~") for name in names)
    (alone,) = rows_of([one])
    assert alone.id.endswith(".0")
    assert sorted(row.id for row in rows_of([two, one])) == [alone.id, alone.id[:-1] + "1"]


# ---- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 90, 300])
@pytest.mark.parametrize("cap", [20, 33, 100])
async def test_every_row_of_a_range_comes(count: int, cap: int) -> None:
    """Whatever one reply holds at most, all rows of a range come, in order, both ends included; the most seen is the cap."""
    shelf = Shelf([ZERO + n * 10_000 for n in range(count)], cap)
    windows = Windows(shelf)
    found = await read(windows, ZERO, ZERO + max(0, count - 1) * 10_000)
    assert ids(found) == [str(n) for n in range(count)]
    assert not any(window.is_cut for window in found)
    assert windows.cap == max(20, min(cap, count))
    assert windows.requests == len(shelf.asked) == len(found) + windows.splits
    assert windows.splits == len(found) - 1
    assert [window.end for window in found[:-1]] == [window.start for window in found[1:]]
    assert {query["limit"] for query in shelf.asked} == {100}


async def test_a_reply_as_full_as_the_fullest_may_have_been_cut() -> None:
    """20 rows may be all a reply can hold, and the window is halved; 19 are not, and one request does."""
    for count, splits in ((19, 0), (20, 1)):
        windows = Windows(Shelf([ZERO + n * 3 * SECOND for n in range(count)]))
        await read(windows, ZERO, ZERO + 60 * SECOND)
        assert windows.splits == splits


async def test_rows_that_could_not_be_decoded_count() -> None:
    """A reply is as full as its good rows and its bad ones together, and the bad ones are handed on."""
    bad = [DecodeError("bad") for _ in range(5)]
    windows = Windows(Shelf([ZERO + n for n in range(15)], bad=bad))
    todo = [(ZERO, ZERO + 500)]
    window = await windows.step(todo)
    assert window.is_cut
    assert window.errors == bad
    windows = Windows(Shelf([ZERO + n for n in range(40)], 21, bad=bad))
    await windows.step([(ZERO, ZERO + 500)])
    assert windows.cap == 26


async def test_a_window_is_halved_down_to_a_millisecond() -> None:
    """A millisecond with more rows than a reply holds is returned as cut; a grid names its ends alike in each reading."""
    shelf = Shelf([ZERO + 5_300] * 50)
    windows = Windows(shelf)
    found = await read(windows, ZERO, ZERO + 16_000)
    cut = [window for window in found if window.is_cut]
    assert cut
    assert all(500 <= window.end - window.start <= 1_000 for window in cut)
    assert all(window.start <= ZERO + 5_300 <= window.end for window in cut)
    exact = Window(ZERO + 5_000, ZERO + 6_000, [], True, None, [])
    assert windows.around(exact) == (ZERO + 5_000, ZERO + 6_000)
    assert windows.around(Window(ZERO + 5_001, ZERO + 5_999, [], True, None, [])) == (ZERO + 5_000, ZERO + 6_000)
    assert [(await Windows(shelf).step([(ZERO + 5_000, ZERO + 5_000 + wide)])).end for wide in (1_000, 1_001)] == [
        ZERO + 6_000,
        ZERO + 5_500,
    ]


async def test_a_list_of_whole_seconds_is_not_asked_for_less() -> None:
    """Where the API rounds its bounds to seconds, windows are halved down to a second, and no further."""
    shelf = Shelf([ZERO + n * 100_000 for n in range(30)] + [ZERO + 5_500_000] * 30, grain=SECOND)
    windows = Windows(shelf)
    found = await read(windows, ZERO, ZERO + 8 * SECOND)
    assert {str(n) for n in range(30)} <= set(ids(found))
    assert windows.around(Window(ZERO + 1, ZERO + 2, [], True, None, [])) == (ZERO, ZERO + SECOND)
    again = await read(windows, ZERO, ZERO + 8 * SECOND)
    assert ids(again) == ids(found)
    assert min(window.end - window.start for window in again) == SECOND


def answer(*moments: int | None) -> Callable[[Any], Any]:
    async def fetch(query: Any) -> InsightBatch:
        return InsightBatch(insights=[insight(n, at) for n, at in enumerate(moments)])

    return fetch


@pytest.mark.parametrize(
    ("moments", "keeps"),
    [
        ([-2 * SECOND], True),
        ([-2 * SECOND - 1], False),
        ([12 * SECOND], True),
        ([12 * SECOND + 1], False),
        ([12 * SECOND + 1, 5 * SECOND], True),
        ([12 * SECOND + 1, -SECOND], True),
        ([12 * SECOND + 1, -3 * SECOND], False),
        ([12 * SECOND + 1, None], True),
        ([], True),
    ],
)
async def test_a_list_that_does_not_look_at_its_bounds_is_noticed(moments: list[int | None], keeps: bool) -> None:
    """When all rows of a reply lie more than two seconds outside, reading ends with an error; one that fits excuses the rest."""
    windows = Windows(answer(*(None if at is None else ZERO + at for at in moments)))
    todo = [(ZERO, ZERO + 10 * SECOND)]
    if keeps:
        assert len((await windows.step(todo)).rows) == len(moments)
        assert not todo
    else:
        with pytest.raises(DecodeError, match="does not keep to the window"):
            await windows.step(todo)
        assert todo


@pytest.mark.parametrize(("at", "least"), [(0, 1_000), (10 * SECOND, 1_000), (-1, SECOND), (10 * SECOND + 1, SECOND)])
async def test_a_row_outside_its_window_says_how_the_list_rounds(at: int, least: int) -> None:
    """The ends of a window belong to it; a row beyond them means that fractions of a second do not count."""
    windows = Windows(answer(ZERO + at))
    await windows.step([(ZERO, ZERO + 10 * SECOND)])
    assert windows.around(Window(ZERO + 1, ZERO + 1, [], True, None, [])) == (ZERO, ZERO + least)


async def test_what_cannot_be_read_stays_to_be_read() -> None:
    """A request that fails leaves its window in the list, and counts as one."""
    shelf, broken = Shelf([ZERO + n * SECOND for n in range(50)]), True

    async def fetch(query: Any) -> InsightBatch:
        if broken and len(shelf.asked) == 2:
            raise ServerError("down", status=500)
        return await shelf(query)

    windows, todo = Windows(fetch), [(ZERO, ZERO + 50 * SECOND)]
    with pytest.raises(ServerError):
        await windows.step(todo)
    assert windows.requests == 3
    broken = False
    found = []
    while todo:
        found.append(await windows.step(todo))
    assert ids(found) == [str(n) for n in range(50)]


async def test_the_newest_are_asked_for_without_a_window() -> None:
    """One request for twenty rows; what it brings is whole, oldest first, with the workspace it names."""
    asked: list[Any] = []
    place, bad = InsightWorkspace(name="W"), [DecodeError("bad")]

    async def fetch(query: Any) -> InsightBatch:
        asked.append(query)
        return InsightBatch(insights=[insight(2, ZERO + 2), insight(1, ZERO + 1)], workspace=place, errors=bad)

    windows = Windows(fetch)
    window = await windows.newest()
    assert asked == [{"limit": 20}]
    assert [row.id for row in window.rows] == ["1", "2"]
    assert (window.is_cut, window.workspace, window.errors, windows.requests) == (False, place, bad, 1)
    window = await windows.step([(ZERO, ZERO + SECOND)])
    assert (window.workspace, window.start, window.end) == (place, ZERO, ZERO + SECOND)


# ---- history --------------------------------------------------------------------------------------------------------


def past(shelf: Any, seconds: int, resume: str | None = None, on_bad_row: Any = "raise") -> Any:
    return history(shelf, BEGUN, BEGUN + timedelta(seconds=seconds), on_bad_row, resume)


async def test_a_history_is_every_row_once_in_order() -> None:
    """Rows on the border of two windows come once; a second reading starts anew; a first page may be awaited."""
    shelf = Shelf([ZERO + n // 3 * SECOND for n in range(150)])
    pager = past(shelf, 60)
    wanted = [str(n) for n in range(150)]
    assert [one.id async for one in pager] == wanted
    assert [one.id async for one in pager] == wanted
    pages = [page async for page in pager.pages()]
    assert [one.id for page in pages for one in page] == wanted
    assert all(len(page) for page in pages[:-1])
    for page in pages[:-1]:
        rest = [one.id async for one in past(shelf, 60, page.checkpoint)]
        before = [one.id for each in pages[: pages.index(page) + 1] for one in each]
        assert sorted({*before, *rest}, key=int) == wanted
        assert len(rest) <= 150 - len(before) + 3
    assert pages[-1].checkpoint is None


async def test_a_history_reads_on_from_where_it_is() -> None:
    """It costs the requests that reading the windows costs, and an empty window gives no page."""
    moments = [ZERO + n * 1_000 for n in range(25)] + [ZERO + 900 * SECOND + n * 1_000 for n in range(25)]
    shelf = Shelf(moments)
    pages = [page async for page in past(shelf, 1000).pages()]
    plain = Shelf(moments)
    await read(Windows(plain), ZERO, ZERO + 1000 * SECOND)
    assert shelf.asked == plain.asked
    assert all(page.items for page in pages[:-1])
    assert [one.id for page in pages for one in page] == [str(n) for n in range(50)]


async def test_a_history_of_nothing() -> None:
    """A range without a row is one request, and one page without rows and without a next."""
    shelf = Shelf([])
    pages = [page async for page in past(shelf, 60).pages()]
    assert [(list(page), page.checkpoint) for page in pages] == [([], None)]
    assert len(shelf.asked) == 1


async def test_a_history_says_where_it_cannot_be_whole() -> None:
    """More rows of one moment than a reply holds are a warning that names the moment; the others come all the same."""
    shelf = Shelf([ZERO + SECOND] * 40 + [ZERO + 3 * SECOND])
    with pytest.warns(TruncatedResultWarning, match="more than 20 insights share the moment 2026-03-01T12:00:0") as caught:
        found = [one.id async for one in past(shelf, 4)]
    assert len(caught) <= 2
    assert found == [*(str(n) for n in range(20, 41))]


async def test_a_history_hands_on_what_could_not_be_decoded() -> None:
    """Bad rows raise after the good ones of their window, or are counted."""
    shelf = Shelf([ZERO], bad=[DecodeError("bad"), DecodeError("worse")])
    seen = []
    with pytest.raises(DecodeError, match="bad"):
        async for one in past(shelf, 1):
            seen.append(one.id)  # noqa: PERF401
    assert seen == ["0"]
    pager = past(shelf, 1, None, "skip")
    assert [one.id async for one in pager] == ["0"]
    assert pager.skipped == 2
    lonely = past(Shelf([], bad=[DecodeError("bad")]), 1, None, "skip")
    assert await lonely.collect() == []
    assert lonely.skipped == 1


async def test_a_checkpoint_of_another_history_is_refused() -> None:
    """A checkpoint holds for its range alone, and names a moment."""
    name = f"getInsights from {ZERO} to {ZERO + SECOND}"
    shelf = Shelf([ZERO])
    for wrong in (f"{name}|x", name, f"getInsights from {ZERO} to {ZERO}|{ZERO}", f"x{name}|{ZERO}"):
        with pytest.raises(InvalidRequestError, match="not a checkpoint of this listing"):
            await past(shelf, 1, wrong).collect()
    assert not shelf.asked
    assert len(await past(shelf, 1, f"{name}|{ZERO}").collect()) == 1
    assert len(await past(shelf, 1, f"{name}|{ZERO + 1}").collect()) == 0
