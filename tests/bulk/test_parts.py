"""The parts of a bulk run by themselves: lines of keys, pace, weather, source, journal, dead letters."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from nex_async.bulk import accounts as accounts_module
from nex_async.bulk.accounts import Accounts
from nex_async.bulk.journal import Entry, Journal, Opened, Position, Trouble
from nex_async.bulk.keys import KeyLines
from nex_async.bulk.letters import DeadLetters, dead_letters, letter_of, line_of
from nex_async.bulk.operations import keys_of, upserting
from nex_async.bulk.options import plan_of
from nex_async.bulk.pace import Pace
from nex_async.bulk.report import BulkReport
from nex_async.bulk.row import Row
from nex_async.bulk.source import Source
from nex_async.bulk.weather import Weather
from nex_async.errors import BadRequestError, CheckpointError, InvalidRequestError, NexError, StorageCorrupt
from nex_async.routes import UPSERT_RECORD

# ---- keys ---------------------------------------------------------------------------------------------------------------------


class One:
    def __init__(self, number: int, keys: tuple[str, ...]) -> None:
        self.number, self.keys, self.blockers = number, keys, 0


def test_lines_let_each_go_when_it_is_first_for_all_its_keys() -> None:
    """Over 300 random crowds: nobody goes beside another of one of his keys, all go, and each key in order of arrival."""
    draw = random.Random(1)
    for _ in range(300):
        lines: KeyLines[One] = KeyLines()
        crowd = [One(n, tuple(draw.sample("abcde", draw.randint(1, 3)))) for n in range(draw.randint(1, 20))]
        arriving, may_go, gone = list(crowd), [], []
        while arriving or may_go:
            if arriving and (not may_go or draw.random() < 0.5):
                one = arriving.pop(0)
                if lines.join(one):
                    may_go.append(one)
            else:
                one = may_go.pop(draw.randrange(len(may_go)))
                gone.append(one)
                may_go += lines.leave(one)
            in_use = [key for one in may_go for key in one.keys]
            assert len(in_use) == len(set(in_use))
        assert len(gone) == len(crowd)
        assert lines.waiting == 0
        for key in "abcde":
            order = [one.number for one in gone if key in one.keys]
            assert order == sorted(order)
            assert key not in lines


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("A@X.io", ("a@x.io",)),
        (["A@x.io"], ("a@x.io",)),
        (["b", "A", "B"], ("b", "a")),
        (7, ("7",)),
        (("a", "b"), ("a", "b")),
        ("\uff21", ("a",)),
    ],
)
def test_keys_are_compared_without_case(value: Any, keys: tuple[str, ...]) -> None:
    """A row's keys are the values of its matching attribute, each once, whatever their case."""
    assert keys_of({"key": value}, "key") == keys


@pytest.mark.parametrize("value", [None, "", "  ", [], [""]])
def test_a_row_without_a_key_is_refused(value: Any) -> None:
    """A row without a value to match by cannot be sent."""
    with pytest.raises(InvalidRequestError, match="'key'"):
        keys_of({"key": value}, "key")


# ---- pace ---------------------------------------------------------------------------------------------------------------------


def feed(pace: Pace, seconds: float, rounds: int) -> list[int]:
    levels = []
    for _ in range(rounds):
        for _ in range(pace.level):
            pace.succeeded(seconds)
        levels.append(pace.level)
    return levels


def test_pace_doubles_until_replies_slow_down() -> None:
    """From 4, doubled each round up to 32; once replies take twice as long, no further; four times as long, less."""
    pace = Pace()
    assert feed(pace, 0.1, 4) == [8, 16, 32, 32]
    slow = Pace()
    assert feed(slow, 0.1, 1) == [8]
    assert feed(slow, 0.25, 3) == [8, 8, 8]
    assert feed(slow, 0.5, 2) == [7, 6]
    assert feed(slow, 0.1, 2) == [7, 8]


def test_pace_is_halved_by_complaints_once_for_each_event() -> None:
    """A 429 halves the level, those of the second after it belong to the same event, and it never falls below one."""
    pace = Pace()
    feed(pace, 0.1, 3)
    for at, level in ((10.0, 16), (10.5, 16), (10.99, 16), (11.0, 8), (20.0, 4), (30.0, 2), (40.0, 1), (50.0, 1)):
        pace.strained(at)
        assert pace.level == level
    assert feed(pace, 0.1, 3) == [2, 3, 4]
    assert not pace.is_calm(50.5)
    assert pace.is_calm(1000.0)


def test_a_fixed_pace_is_left_only_after_a_complaint() -> None:
    """A number chosen by the caller is kept whatever replies take, and found again after a 429."""
    pace = Pace(6)
    assert feed(pace, 0.1, 2) + feed(pace, 9.0, 2) == [6, 6, 6, 6]
    pace.strained(1.0)
    assert pace.level == 3
    assert feed(pace, 9.0, 4) == [4, 5, 6, 6]


# ---- weather ------------------------------------------------------------------------------------------------------------------


def row(seq: int = 0, attempts: int = 0) -> Row:
    one = Row(seq, {}, upserting("thing", "key").prepare({"key": str(seq)}), UPSERT_RECORD)
    one.attempts = attempts
    return one


def test_failures_with_answers_between_them_are_the_rows() -> None:
    """However many rows fail, nobody asks the server while others are answered."""
    weather = Weather(8)
    for _ in range(50):
        assert not any(weather.failed(row(n, 1), 4) for n in range(9))
        weather.answered()
        assert weather.is_fair


def test_failures_one_after_another_raise_the_question_of_the_server() -> None:
    """After ten in a row, or twice as many as are on their way, the server is asked; requests that never left count too."""
    weather = Weather(8)
    assert [weather.failed(row(n, 1) if n % 2 else None, 4) for n in range(10)] == [False] * 9 + [True]
    wide = Weather(8)
    assert [wide.failed(row(n, 1), 16) for n in range(32)] == [False] * 31 + [True]


def test_the_last_failure_of_a_row_raises_it_too() -> None:
    """A row about to be given up, with no answer to anything since its failures began, is given a chance first."""
    weather, one = Weather(8), row()
    asked = []
    for _ in range(8):
        one.attempts += 1
        asked.append(weather.failed(one, 4))
    assert asked == [False] * 7 + [True]
    weather.answered()
    assert not weather.failed(row(1, 8), 4)


def test_a_row_at_its_end_is_not_set_aside_for_an_outage() -> None:
    """A row fails by itself, another is answered, and the server dies: at the row's last failure it is asked all the same."""
    weather, one = Weather(8), row()
    asked = []
    for attempt in range(8):
        if attempt == 1:
            weather.answered()
        one.attempts += 1
        asked.append(weather.failed(one, 4))
    assert asked == [False] * 7 + [True]
    assert weather.forgive() == [one]
    assert one.attempts == 1


def test_forgiveness_takes_back_what_was_counted() -> None:
    """What failed since the last answer is taken off each row, once for each failure, and never below none."""
    weather, one, two = Weather(8), row(1), row(2, 3)
    for failing in (one, two, one, None):
        if failing is not None:
            failing.attempts += 1
        weather.failed(failing, 4)
    assert weather.forgive() == [one, two]
    assert (one.attempts, two.attempts) == (0, 3)
    assert weather.forgive() == []


# ---- source -------------------------------------------------------------------------------------------------------------------


class Broken(Exception):
    pass


async def drained(source: Source, most: int = 7) -> list[Any]:
    taken = []
    while rows := await source.take(most):
        taken += rows
    return taken


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("sampled", [0, 3, 100])
async def test_a_source_gives_every_row_once_and_in_order(is_async: bool, sampled: int) -> None:
    """What was sampled is taken again, nothing twice; and all of it in order."""

    async def generate() -> AsyncIterator[int]:
        for number in range(40):
            yield number

    source = Source(generate() if is_async else iter(range(40)))
    source.begin()
    if sampled:
        assert await source.sample(1, 5.0) == [0]
        assert await source.sample(sampled, 5.0) == list(range(min(sampled, 40)))
    assert await drained(source) == list(range(40))
    assert await source.take(5) == []
    await source.aclose()


@pytest.mark.parametrize("is_async", [False, True])
async def test_what_came_before_an_error_of_the_source_is_given_first(is_async: bool) -> None:
    """The rows before the error, then the error."""

    def generate() -> Iterator[int]:
        yield from range(5)
        raise Broken

    async def slowly() -> AsyncIterator[int]:
        for number in generate():
            yield number

    source = Source(slowly() if is_async else generate())
    source.begin()
    taken = await source.sample(100, 5.0)
    assert taken == list(range(5))
    assert await source.take(100) == taken
    with pytest.raises(Broken):
        await source.take(100)
    await source.aclose()


async def test_a_slow_source_is_not_waited_for_longer_than_asked() -> None:
    """Sampling an asynchronous source ends in time, and the row it waited for is not lost; closing leaves no task."""
    go = asyncio.Event()

    async def slowly() -> AsyncIterator[int]:
        yield 1
        await go.wait()
        yield 2
        await asyncio.Event().wait()

    source = Source(slowly())
    source.begin()
    assert await source.sample(100, 0.01) == [1]
    assert await source.take(5) == [1]
    go.set()
    assert await source.take(5) == [2]
    assert await source.sample(100, 0.01) == []
    await source.aclose()


async def test_a_second_pass_begins_at_the_beginning() -> None:
    """Nothing that a first pass had asked for comes out of the second."""

    class Twice:
        async def __aiter__(self) -> AsyncIterator[int]:
            for number in range(3):
                yield number

    source = Source(Twice())
    source.begin()
    assert source.repeats
    assert await source.sample(100, 5.0) == [0, 1, 2]
    source.begin()
    assert await drained(source) == [0, 1, 2]
    once = Source(iter([1]))
    once.begin()
    assert not once.repeats
    await asyncio.sleep(0)


@pytest.mark.parametrize("rows", ["text", b"bytes", {"a": 1}, 7, None])
def test_what_is_no_iterable_of_rows_is_refused(rows: Any) -> None:
    """A string, a mapping or a number is a mistake, told at once."""
    with pytest.raises(InvalidRequestError, match="rows"):
        Source(rows)


# ---- journal ------------------------------------------------------------------------------------------------------------------


def journal_at(home: Path) -> tuple[Journal, DeadLetters]:
    letters = DeadLetters(str(home / "dead.jsonl"))
    return Journal(str(home / "run.db"), letters), letters


def a_line(seq: int, run: str, outcome: Any = "failed") -> bytes:
    error = BadRequestError("no", status=400)
    return line_of(letter_of(seq, "k", {"n": seq}, error, outcome=outcome, attempts=1, first=None, run=run))


async def test_a_journal_gives_back_what_was_written(tmp_path: Path) -> None:
    """Position, those finished above it, troubles, creates on their way and counts survive; settled troubles do not."""
    journal, _ = journal_at(tmp_path)
    opened = await journal.open("op", "job", force=False, remembers=False)
    assert opened.is_new
    await journal.write(Entry(Position(0, 0), trouble=[(3, Trouble(2, 5.0, "X")), (4, Trouble(1, 6.0, "Y"))]))
    await journal.write(Entry(Position(2, 77, (5, 9), (6, 7), {"created": 4}), settled=[4], clean=True))
    await journal.aclose()
    journal, _ = journal_at(tmp_path)
    again = await journal.open("op", "job", force=False, remembers=False)
    assert (again.run, again.is_new, again.is_finished) == (opened.run, False, False)
    position = again.position
    assert (position.low, position.chain, set(position.done), set(position.sent)) == (2, 77, {5, 9}, {6, 7})
    assert position.counts == {"created": 4}
    assert again.trouble == {3: Trouble(2, 5.0, "X")}
    await journal.aclose()


async def test_letters_ahead_of_the_journal_count_once(tmp_path: Path) -> None:
    """A letter on the disk that the journal does not know of, as after a crash, makes its row finished, and counted."""
    journal, letters = journal_at(tmp_path)
    run = (await journal.open("op", None, force=False, remembers=False)).run
    await journal.write(Entry(Position(5, 1, (), (), {"failed": 1}), letters=[a_line(2, run)]))
    letters.append([a_line(7, run), a_line(8, run, "unknown"), a_line(9, "another run")])
    await journal.aclose()
    for _ in range(2):
        journal, _ = journal_at(tmp_path)
        opened = await journal.open("op", None, force=False, remembers=False)
        assert set(opened.position.done) == {7, 8}
        assert opened.position.counts == {"failed": 2, "unknown": 1}
        await journal.aclose()


@pytest.mark.parametrize("sends", [True, False])
async def test_crashes_count_against_the_row_they_happen_at(tmp_path: Path, sends: bool) -> None:
    """A head at which two runs die in turn is charged for both, then for each; a run that sent nothing charges nothing."""
    counted = []
    for _ in range(8):
        journal, _ = journal_at(tmp_path)
        opened = await journal.open("op", None, force=False, remembers=False)
        counted.append(opened.trouble[0].attempts if opened.trouble else 0)
        if sends:
            await journal.begin()
        await journal.aclose()
    assert counted == ([0, 0, 2, 3, 4, 5, 6, 7] if sends else [0] * 8)


async def test_a_run_that_ended_in_good_order_counts_nothing(tmp_path: Path) -> None:
    """Stopping and going on ten times is held against no row."""
    for _ in range(10):
        journal, _ = journal_at(tmp_path)
        opened = await journal.open("op", None, force=False, remembers=False)
        assert opened.trouble.get(0, Trouble(1, 1.0, "X")).attempts == 1
        await journal.begin()
        await journal.write(Entry(Position(0, 0), trouble=[(0, Trouble(1, 1.0, "X"))], clean=True))
        await journal.aclose()


async def test_a_crash_counts_once_more_against_each_row_that_had_failed(tmp_path: Path) -> None:
    """A row in trouble may have been on its way when the process died; one that was forgiven is left alone."""
    journal, _ = journal_at(tmp_path)
    await journal.open("op", None, force=False, remembers=False)
    await journal.begin()
    await journal.write(Entry(Position(0, 0), trouble=[(4, Trouble(3, 1.0, "X")), (5, Trouble(0, 1.0, "X"))]))
    await journal.aclose()
    for _ in range(3):  # the further ones send nothing
        journal, _ = journal_at(tmp_path)
        opened = await journal.open("op", None, force=False, remembers=False)
        assert {seq: trouble.attempts for seq, trouble in opened.trouble.items()} == {4: 4, 5: 0}
        await journal.aclose()


async def test_an_entry_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """An entry that fails in the middle leaves the position as it was."""
    journal, _ = journal_at(tmp_path)
    await journal.open("op", None, force=False, remembers=False)
    await journal.write(Entry(Position(1, 1)))
    with pytest.raises((sqlite3.Error, NexError)):
        await journal.write(Entry(Position(2, 2), synced=[(b"key", object())]))  # type: ignore[list-item]
    await journal.aclose()
    journal, _ = journal_at(tmp_path)
    assert (await journal.open("op", None, force=False, remembers=False)).position.low == 1
    await journal.aclose()


async def test_a_journal_remembers_what_was_synced(tmp_path: Path) -> None:
    """Digests are found by key over runs of the same operation, overwritten, forgotten on request and with another job."""
    journal, _ = journal_at(tmp_path)
    await journal.open("op", "one", force=False, remembers=True)
    await journal.write(Entry(Position(3, 3), synced=[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]))
    await journal.write(Entry(Position(3, 3), synced=[(b"a", b"4"), (b"b", None)], finished=True, clean=True))
    assert await journal.lookup([b"a", b"b", b"c", b"d"]) == {b"a": b"4", b"c": b"3"}
    await journal.aclose()
    journal, _ = journal_at(tmp_path)
    assert (await journal.open("op", "two", force=False, remembers=True)).is_new
    assert await journal.lookup([b"a"]) == {b"a": b"4"}
    await journal.restart()
    assert await journal.lookup([b"a"]) == {}
    await journal.aclose()


async def opened_at(home: Path, operation: str = "op", job: str | None = "job", **more: Any) -> tuple[Journal, Opened]:
    journal, _ = journal_at(home)
    return journal, await journal.open(operation, job, **{"force": False, "remembers": False, **more})


async def left_at(home: Path, *entries: Entry, begun: bool = False, remembers: bool = False) -> str:
    """Leave a journal in which these entries stand; return the name of its run."""
    journal, opened = await opened_at(home, remembers=remembers)
    if begun:
        await journal.begin()
    for entry in entries:
        await journal.write(entry)
    await journal.aclose()
    return opened.run


def pragmas(path: Path, **values: int) -> list[int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for name, value in values.items():
            connection.execute(f"PRAGMA {name}={value}")
        connection.commit()
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]


async def test_the_file_of_a_journal_says_what_it_is(tmp_path: Path) -> None:
    """Its marks are those of every release that reads it; a file with others is refused, and left as it is."""
    await left_at(tmp_path)
    path = tmp_path / "run.db"
    assert pragmas(path) == [0x4E455842, 1]
    told: list[Any] = []

    async def recognise(*found: Any) -> None:
        told.append(found)

    for wrong, words in (
        ({"user_version": 2}, "version 2"),
        ({"user_version": 0}, "version 0"),
        ({"application_id": 7}, "no journal"),
    ):
        pragmas(path, **{"application_id": 0x4E455842, "user_version": 1, **wrong})
        before = path.read_bytes()
        with pytest.raises(CheckpointError, match=words):
            await opened_at(tmp_path, recognise=recognise)
        assert path.read_bytes() == before
    assert not told
    pragmas(path, application_id=0x4E455842, user_version=1)
    journal, opened = await opened_at(tmp_path, recognise=recognise)
    assert not opened.is_new
    assert told == [(opened.run, None, None)]
    await journal.aclose()


async def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """A database with tables and without a mark is no empty file."""
    with contextlib.closing(sqlite3.connect(tmp_path / "run.db")) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.commit()
    with pytest.raises(CheckpointError, match="no journal"):
        await opened_at(tmp_path)


async def test_a_journal_without_a_job_is_corrupt(tmp_path: Path) -> None:
    """A journal whose job is gone is said to be broken."""
    await left_at(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "run.db")) as connection:
        connection.execute("DELETE FROM job")
        connection.commit()
    with pytest.raises(StorageCorrupt, match="without a job"):
        await opened_at(tmp_path)


async def test_a_new_journal_holds_nothing(tmp_path: Path) -> None:
    """It begins at row 0 with nothing known, nobody is asked to recognise it, and each run has a name of its own."""

    async def recognise(*found: Any) -> None:
        raise AssertionError(found)

    before = time.time()
    journal, opened = await opened_at(tmp_path, recognise=recognise)
    assert opened.position == Position(0, 0, set(), set(), {})
    assert Position() == Position(0, 0, (), (), {})
    assert (opened.is_new, opened.is_finished, opened.trouble, opened.held) == (True, False, {}, {})
    assert (opened.witness, opened.home) == (None, None)
    assert before <= opened.written <= time.time()
    assert await journal.restart() != opened.run
    await journal.aclose()


async def test_a_run_knows_its_workspace(tmp_path: Path) -> None:
    """Witness and home are kept, a home that is not known takes none away, and a workspace that is another changes nothing."""
    journal, opened = await opened_at(tmp_path)
    await journal.claim(b"one", "home")
    await journal.claim(b"two", None)
    await journal.begin()
    await journal.aclose()
    told: list[Any] = []

    async def recognise(*found: Any) -> None:
        told.append(found)
        if len(told) == 1:
            raise LookupError

    with pytest.raises(LookupError):
        await opened_at(tmp_path, recognise=recognise)
    journal, again = await opened_at(tmp_path, recognise=recognise)
    assert told == [(opened.run, b"two", "home")] * 2
    assert (again.run, again.witness, again.home) == (opened.run, b"two", "home")
    assert not again.trouble
    assert await journal.restart() != opened.run
    await journal.aclose()
    journal, again = await opened_at(tmp_path)
    assert (again.witness, again.home, again.is_new) == (None, "home", False)
    await journal.aclose()


WRITTEN = Entry(Position(0, 0), synced=[(b"a", b"1")])
FINISHED = Entry(Position(3, 3), synced=[(b"a", b"1")], finished=True, clean=True)


@pytest.mark.parametrize(
    ("entries", "begun", "operation", "job", "outcome"),
    [
        ([], False, "op", "other", "new"),
        ([], True, "op", "other", "refused"),
        ([Entry(Position(1, 1), clean=True)], False, "op", "other", "refused"),
        ([Entry(Position(0, 0, (4,)), clean=True)], False, "op", "other", "refused"),
        ([Entry(Position(0, 0), clean=True)], True, "op", "other", "new"),
        ([FINISHED], True, "op", "other", "new"),
        ([], False, "other", "job", "refused"),
        ([FINISHED], True, "other", "job", "refused"),
        ([], True, "op", None, "same"),
        ([], True, "op", "job", "same"),
        ([FINISHED], True, "op", "job", "same"),
        ([FINISHED], True, "op", None, "same"),
    ],
)
async def test_whose_journal_it_is(
    tmp_path: Path, entries: list[Entry], begun: bool, operation: str, job: str | None, outcome: str
) -> None:
    """Another operation's is refused, and another job's that is on its way; `force` begins anew in both."""
    run = await left_at(tmp_path, *entries, begun=begun)
    if outcome == "refused":
        with pytest.raises(CheckpointError, match="force=True"):
            await opened_at(tmp_path, operation, job)
    journal, opened = await opened_at(tmp_path, operation, job, force=outcome == "refused")
    assert opened.is_new == (outcome != "same")
    assert (opened.run == run) == (outcome == "same")
    assert opened.is_finished == (outcome == "same" and entries == [FINISHED])
    if opened.is_new:
        assert (opened.position.low, set(opened.position.done), opened.trouble) == (0, set(), {})
    await journal.aclose()
    if opened.is_new:  # and it is that job's from now on
        journal, again = await opened_at(tmp_path, operation, job)
        assert (again.run, again.is_new) == (opened.run, False)
        await journal.aclose()


async def test_a_head_that_stopped_two_runs_keeps_another_job_out(tmp_path: Path) -> None:
    """A run that died and was taken up again has begun, though it has sent nothing since."""
    await left_at(tmp_path, begun=True)
    await left_at(tmp_path)
    with pytest.raises(CheckpointError, match="unfinished job 'job'"):
        await opened_at(tmp_path, job="other")


@pytest.mark.parametrize(
    ("entry", "how", "known"),
    [
        (WRITTEN, {"remembers": True}, True),
        (WRITTEN, {"remembers": False}, False),
        (FINISHED, {"remembers": True}, True),
        (FINISHED, {"remembers": False}, True),
        (FINISHED, {"remembers": True, "job": "other"}, True),
        (FINISHED, {"remembers": False, "job": "other"}, False),
        (FINISHED, {"remembers": True, "operation": "other", "force": True}, False),
        (WRITTEN, {"remembers": True, "job": "other", "force": True}, False),
    ],
)
async def test_what_was_synced_is_known_to_those_who_remember(
    tmp_path: Path, entry: Entry, how: dict[str, Any], known: bool
) -> None:
    """What a finished run wrote is known to the next of its operation that remembers; what broke off, to itself alone."""
    await left_at(tmp_path, entry, remembers=True)
    journal, opened = await opened_at(tmp_path, **how)
    assert await journal.lookup([b"a"]) == ({b"a": b"1"} if known else {})
    assert opened.is_new == ("job" in how or "operation" in how or (entry is FINISHED and how["remembers"]))
    await journal.aclose()


async def test_a_home_stays_with_its_operation(tmp_path: Path) -> None:
    """The next job of an operation is known to be of the same workspace; another operation begins without."""
    journal, _ = await opened_at(tmp_path)
    await journal.claim(b"one", "home")
    await journal.write(FINISHED)
    await journal.aclose()
    for operation, job, home in (("op", "two", "home"), ("other", "two", None)):
        journal, opened = await opened_at(tmp_path, operation, job, force=operation == "other")
        assert (opened.is_new, opened.home, opened.witness) == (True, home, None)
        await journal.write(FINISHED)
        await journal.aclose()


async def test_keys_are_held_until_their_time(tmp_path: Path) -> None:
    """Held keys are found again until their time has come, over runs; those that are past are swept when others are written."""
    now = time.time()
    held = [(b"past", now - 1), (b"soon", now + 3600), (b"late", now + 7200)]
    await left_at(tmp_path, Entry(Position(1, 1), held=held), Entry(Position(1, 1), held=[(b"soon", now + 5000)]))
    journal, opened = await opened_at(tmp_path)
    assert opened.held == {b"soon": now + 5000, b"late": now + 7200}
    await journal.aclose()
    with contextlib.closing(sqlite3.connect(tmp_path / "run.db")) as connection:
        assert {key for (key,) in connection.execute("SELECT key FROM held")} == {b"soon", b"late"}


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1001, 1500])
async def test_many_keys_are_looked_up_at_once(tmp_path: Path, count: int) -> None:
    """Any number of keys may be asked for, and every one that is known is found."""
    pairs = [(b"k%d" % n, b"d%d" % n) for n in range(count)]
    journal, _ = await opened_at(tmp_path, remembers=True)
    await journal.write(Entry(Position(0, 0), synced=pairs))
    assert await journal.lookup([key for key, _ in pairs]) == dict(pairs)
    await journal.aclose()


async def test_a_closed_journal_holds_no_file(tmp_path: Path) -> None:
    """Closing lets go of the dead letters too."""
    journal, letters = journal_at(tmp_path)
    await journal.open("op", "job", force=False, remembers=False)
    assert letters._descriptor is not None
    await journal.aclose()
    assert letters._descriptor is None


async def test_what_an_entry_says_of_the_run(tmp_path: Path) -> None:
    """A run is finished when it says so, and when it was last written to is known; an entry that says nothing changes neither."""
    journal, opened = await opened_at(tmp_path)
    await journal.begin()
    before = time.time()
    await journal.write(Entry(Position(2, 5)))
    await journal.aclose()
    journal, again = await opened_at(tmp_path)
    assert (again.is_finished, again.position.low, again.position.chain) == (False, 2, 5)
    assert before <= again.written <= time.time()
    await journal.write(Entry(Position(2, 5), finished=True))
    await journal.aclose()
    journal, again = await opened_at(tmp_path)
    assert again.is_finished
    assert again.run == opened.run
    await journal.aclose()


# ---- accounts -----------------------------------------------------------------------------------------------------------------


class Gate:
    """Stands for a journal whose writes wait for the test's word."""

    def __init__(self, accounts: Accounts) -> None:
        assert accounts._journal is not None
        self.write, self.begun, self.words = accounts._journal.write, asyncio.Event(), asyncio.Queue[Exception | None]()
        accounts._journal.write = self  # type: ignore[assignment, method-assign]

    async def __call__(self, entry: Entry) -> None:
        self.begun.set()
        word = await self.words.get()
        if word is not None:
            raise word
        await self.write(entry)


@pytest.mark.parametrize("broken", [None, OSError("broken")])
async def test_who_comes_during_a_write_is_served_by_the_next(tmp_path: Path, broken: Exception | None) -> None:
    """A failure noted while the journal is written is written after it, or fails as that did; it never waits for ever."""
    ends: list[BaseException] = []
    accounts = Accounts(plan_of({"journal": str(tmp_path / "run.db")})[0], BulkReport("x"), lambda given: given, ends.append)
    await accounts.open("op")
    gate = Gate(accounts)
    first, second = row(0, 1), row(1, 1)
    for chain in (1, 2, 3):
        accounts.pulled(chain)
    accounts.settle(2, "written", None, None)
    accounts._start()
    await gate.begun.wait()
    gate.begun.clear()
    notes = [asyncio.ensure_future(accounts.note_trouble(one, BadRequestError("no", status=400))) for one in (first, second)]
    gate.words.put_nowait(None)
    await gate.begun.wait()
    late = asyncio.ensure_future(accounts.note_trouble(row(1, 2), BadRequestError("no", status=400)))
    await asyncio.sleep(0)
    for _ in range(3):
        gate.words.put_nowait(broken)
    ended = await asyncio.wait_for(asyncio.gather(*notes, late, return_exceptions=True), 5)
    assert ended == [broken] * 3
    assert ends == ([] if broken is None else [broken])
    if broken is not None:
        with pytest.raises(OSError, match="broken"):
            await accounts.note_trouble(first, BadRequestError("no", status=400))
    await accounts.close(finished=False)


async def test_a_row_that_had_failed_is_noted_at_once_when_it_is_done(tmp_path: Path, monkeypatch: Any) -> None:
    """The journal is written when such a row succeeds, and not some time later: crashes do not add up against it."""
    monkeypatch.setattr(accounts_module, "_INTERVAL", 1000.0)
    for life in range(3):
        accounts = Accounts(plan_of({"journal": str(tmp_path / "run.db")})[0], BulkReport("x"), lambda given: given, print)
        opened = await accounts.open("op")
        assert opened is not None
        assert not opened.trouble
        await accounts.begin()
        gate = Gate(accounts)
        accounts.pulled(life + 1)
        gate.words.put_nowait(None)
        await accounts.note_trouble(row(life, 1), BadRequestError("no", status=400))
        gate.begun.clear()
        accounts.settle(life, "written", row(life, 1), None)
        await asyncio.wait_for(gate.begun.wait(), 5)
        gate.words.put_nowait(None)
        while accounts._writing is not None:
            await asyncio.wait([accounts._writing])
        assert accounts._journal is not None
        await accounts._journal.aclose()  # as a crash leaves it


# ---- dead letters -------------------------------------------------------------------------------------------------------------


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    """A line half written when the process died is gone with the next open, whatever its length; whole ones stay."""
    path = tmp_path / "dead.jsonl"
    for torn in (b"", b"{", b'{"seq":9,' + b"x" * 200_000):
        path.write_bytes(a_line(1, "r") + a_line(2, "r") + torn)
        path.chmod(0o600)
        assert [letter.seq for letter in dead_letters(path)] == [1, 2]
        letters = DeadLetters(str(path))
        letters.open()
        letters.append([a_line(3, "r")])
        letters.close()
        assert [letter.seq for letter in dead_letters(path)] == [1, 2, 3]


@pytest.mark.parametrize("content", [b"x" * 70_000, b'[{"my": "precious"}]', a_line(1, "r") + b"and then notes"])
def test_a_file_of_another_kind_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    """A file that holds anything but letters is refused, and not touched."""
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CheckpointError, match="left as it is"):
        DeadLetters(str(path)).open()
    assert path.read_bytes() == content


def test_a_letter_holds_what_happened(tmp_path: Path) -> None:
    """What was written comes back: row, key, status, code, attempts, outcome, run; what JSON cannot hold as a text."""
    path = tmp_path / "dead.jsonl"
    error = BadRequestError("bad\nrow", status=400, code=17)
    lines = [
        line_of(letter_of(4, "k\0l", {"n": [1]}, error, outcome="failed", attempts=3, first=0.0, run="r")),
        line_of(letter_of(5, "", {object(): 1}, error, outcome="unknown", attempts=1, first=None, run="r")),
    ]
    letters = DeadLetters(str(path))
    letters.append(lines)
    letters.close()
    one, two = dead_letters(path)
    assert (one.seq, one.key, one.record, one.status, one.code, one.attempts) == (4, "k\0l", {"n": [1]}, 400, 17, 3)
    assert one.message == "bad\nrow"
    assert one.first is not None
    assert one.first.year == 1970
    assert (two.outcome, two.record) == ("unknown", None)
    assert two.text is not None
    assert "object" in two.text
    path.write_text("something else\n")
    with pytest.raises(CheckpointError, match="not a file of dead letters"):
        list(dead_letters(path))
