"""Pagers that block: the rows, pages and errors of the asynchronous ones, and nothing left behind by a loop that is left."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from nex_async import DecodeError, InvalidRequestError, Page, ServerError
from nex_async.blocking import Nex, Pager
from nex_async.emulator import Emulator
from tests.blocking.conftest import Came, interrupted
from tests.blocking.test_life import posix, tasks_of


class Person(msgspec.Struct):
    name: str
    job_title: str = ""


class Odd(msgspec.Struct):
    name: str
    job_title: int = 0


@pytest.fixture
def people(nex: Nex) -> list[str]:
    """Twenty-five people, by name."""
    names = [f"P{index:02}" for index in range(25)]
    for name in names:
        nex.records.create("person", {"name": name})
    return names


def names_of(rows: Any) -> list[str]:
    return [row.text("name") for row in rows]


def listing(nex: Nex, **options: Any) -> Pager[Any]:
    return nex.records.list("person", sort="created_at", **{"limit": 10, **options})


def test_every_way_of_reading_gives_the_same(nex: Nex, people: list[str]) -> None:
    """Rows, pages, a list, a look-ahead and a limit show the same rows in the same order."""
    pager = listing(nex)
    assert names_of(pager) == people
    assert pager.exhausted
    assert [len(page) for page in pager.pages()] == [10, 10, 5]
    assert names_of(pager.collect()) == people
    assert names_of(pager.collect(max_items=12)) == people[:12]
    assert names_of(pager.limit(12)) == people[:12]
    assert [len(page) for page in pager.limit(12).pages()] == [10, 2]
    assert names_of(pager.limit(0)) == []
    assert names_of(listing(nex, stable=True)) == people
    for window in (1, 2, 8):
        with pager.prefetch(window) as ahead:
            assert names_of(ahead) == people
        with pager.prefetch(window) as ahead:
            assert [len(page) for page in ahead.pages()] == [10, 10, 5]
    typed = list(nex.records.list("person", as_type=Person, sort="created_at"))
    assert [row.attributes.name for row in typed] == people


def test_the_first_page(nex: Nex, people: list[str]) -> None:
    """`first_page()` is what `await` gives in asynchronous code: one page, with the total and where to go on."""
    page = listing(nex).first_page()
    assert isinstance(page, Page)
    assert (page.total, len(page), page.has_more) == (25, 10, True)
    rest = listing(nex, resume=page.checkpoint)
    assert names_of(rest) == people[10:]
    assert len(listing(nex).limit(3).first_page()) == 3


def test_a_checkpoint_names_the_page_being_read(nex: Nex, people: list[str]) -> None:
    """A listing goes on from the checkpoint of one that was left."""
    pager = listing(nex)
    for row in pager:
        if row.text("name") == people[13]:
            break
    assert names_of(listing(nex, resume=pager.checkpoint)) == people[10:]
    assert not pager.exhausted


def test_a_loop_that_is_left_leaves_nothing(nex: Nex, people: list[str]) -> None:
    """Leaving a loop early, by break or by an error, leaves no task on the loop, and the pager can be read again."""
    before = tasks_of(nex)
    pager = listing(nex, limit=2)
    for _ in range(3):
        for _row in pager:
            break
    with pytest.raises(KeyError):
        for page in pager.pages():
            raise KeyError(page)
    held = iter(pager)
    next(held)
    del held
    with pager.prefetch(4) as ahead:
        for _row in ahead:
            break
    assert tasks_of(nex) == before
    assert names_of(pager) == people


def test_interleaved_pagers(nex: Nex, people: list[str]) -> None:
    """Two listings, and two loops over one pager, are read by turns without disturbing each other."""
    one, other = listing(nex, limit=3), listing(nex, limit=4)
    assert [(a.text("name"), b.text("name")) for a, b in zip(one, other, strict=True)] == list(
        zip(people, people, strict=True)
    )
    assert [a.id == b.id for a, b in zip(one, one, strict=True)] == [True] * 25
    with one.prefetch(2) as ahead, other.prefetch(2) as also:
        assert names_of(itertools.chain.from_iterable(zip(ahead, also, strict=True))) == [
            name for name in people for _ in range(2)
        ]


def test_a_look_ahead_goes_on_where_its_loop_was_left(nex: Nex, people: list[str]) -> None:
    """A loop over a look-ahead that was left goes on when it is taken up again; outside its context there is none."""
    with listing(nex).prefetch(3) as ahead:
        first = [row.text("name") for row in itertools.islice(ahead, 4)]
        rest = names_of(ahead)
    assert first + rest == people
    with pytest.raises(InvalidRequestError, match="use prefetch as"):
        ahead.pages()
    with pytest.raises(InvalidRequestError, match="use prefetch as"):
        next(iter(listing(nex).prefetch(2)))
    with pytest.raises(InvalidRequestError):
        listing(nex).prefetch(0)


def test_bad_rows(nex: Nex, people: list[str]) -> None:
    """A row that cannot be decoded raises after the good rows of its page, is skipped on request, and is told by pages."""
    bad = nex.records.create("person", {"name": "bad", "job_title": "no number"})
    nex.records.create("person", {"name": "after"})

    def odd(**options: Any) -> Pager[Any]:
        return nex.records.list("person", as_type=Odd, sort="created_at", limit=10, **options)

    read: list[str] = []
    pager = odd()
    with pytest.raises(DecodeError) as caught:
        read.extend(row.attributes.name for row in pager)
    assert read == [*people, "after"]
    assert pager.skipped == 0
    assert caught.value.__traceback__ is not None
    lenient = odd(on_bad_row="skip")
    assert [row.attributes.name for row in lenient] == [*people, "after"]
    assert lenient.skipped == 1
    with odd().prefetch(3) as ahead, pytest.raises(DecodeError):
        list(ahead)
    assert [len(page.errors) for page in odd().pages()] == [0, 0, 1]
    with pytest.raises(DecodeError) as whole:
        odd().collect()
    assert whole.value.rows is not None
    assert len(whole.value.rows) == 26
    assert [row.attributes.name for row in odd().limit(25)] == people
    nex.records.delete(bad.id)


def test_an_error_tells_where_to_go_on(nex: Nex, emulator: Emulator, people: list[str]) -> None:
    """An error in the middle of a listing carries the checkpoint of the page that failed."""
    emulator.faults.add(kind="status", status=500, route="listRecords", after=1, times=1)
    read: list[str] = []
    with pytest.raises(ServerError) as caught:
        read.extend(row.text("name") for row in listing(nex, retries=0))
    assert read == people[:10]
    assert names_of(listing(nex, resume=caught.value.checkpoint)) == people[10:]


@posix
def test_ctrl_c_in_a_listing(nex: Nex, emulator: Emulator, people: list[str], came: Came) -> None:
    """Ctrl-C while a page, or a look-ahead, is waited for leaves nothing on the loop."""
    before = tasks_of(nex)
    emulator.faults.add(kind="stall", route="listRecords", after=1, times=1)

    def twice() -> None:
        came.wait()
        came.wait()

    with interrupted(twice):
        list(listing(nex))
    assert tasks_of(nex) == before
    emulator.faults.clear()
    emulator.faults.add(kind="stall", route="listRecords", after=1, times=None)
    with interrupted(twice), listing(nex).prefetch(2) as ahead:
        list(ahead)
    emulator.faults.clear()
    assert tasks_of(nex) == before
    assert names_of(listing(nex)) == people


def test_partitions(nex: Nex, people: list[str]) -> None:
    """The parts of a listing are read with blocking clients, and cross processes as they are."""
    parts = nex.records.partitions("person", 3)
    assert len(parts) == 3
    copies = pickle.loads(pickle.dumps(parts))
    assert copies == parts
    assert [name for part in copies for name in names_of(part.read(nex))] == people


def test_history(nex: Nex) -> None:
    """Listings that come in windows, and by cursor, are read like all others."""
    ada = nex.records.create("person", {"name": "Ada Park"})
    for index in range(4):
        nex.records.update(ada.id, {"job_title": str(index)})
    assert len(list(nex.records.timeline(ada.id, limit=2))) >= 4
    nex.context.add_text("Ada Park asked for a demo").wait(interval=0.05)
    now = datetime.now(timezone.utc)
    rows: Iterator[Any] = iter(nex.insights.history(now - timedelta(hours=1), now + timedelta(hours=1)))
    assert "demo" in next(rows).content
