"""Bulk runs, exports and mirrors that block; and where the rows of a run are pulled."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import os
import signal
import sqlite3
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nex_async import BulkError, BulkReport, ClientClosed, ClientLoopError, InvalidRequestError, Outcome, Progress
from nex_async.blocking import BulkRun, Nex
from nex_async.blocking.desk import Desk, pulled
from nex_async.emulator import Emulator
from tests.blocking.conftest import PATIENCE, Came, interrupted
from tests.blocking.test_feeds import until
from tests.blocking.test_life import ended, posix, tasks_of

needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"name": f"n{index}", "email_addresses": [f"e{index}@x.io"]} for index in range(start, start + count)]


def endless() -> Iterator[dict[str, Any]]:
    for index in itertools.count():
        yield from rows(1, index)


def upsert(nex: Nex, source: Any, **options: Any) -> BulkRun:
    return nex.records.upsert_many("person", source, match_on="email_addresses", **{"quarantine": 0, **options})


def people(nex: Nex) -> int:
    return len(nex.records.list("person").collect())


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_is_carried_to_its_end(nex: Nex) -> None:
    """`run()` sends every row and returns the report; a run is started once."""
    before = tasks_of(nex)
    run = upsert(nex, rows(300))
    report = run.run()
    assert isinstance(report, BulkReport)
    assert (report.ok, report.created, run.report) == (True, 300, report)
    assert str(report) in repr(run)
    with pytest.raises(InvalidRequestError, match="once"):
        run.run()
    with pytest.raises(InvalidRequestError, match="with run"):
        next(upsert(nex, rows(1)))
    assert people(nex) == 300
    assert tasks_of(nex) == before


def test_a_run_hands_out_an_outcome_for_each_row(nex: Nex) -> None:
    """`for outcome in run` gives every row's outcome once; more readers than one take their turns at most."""
    with upsert(nex, (row for row in rows(1000))) as run:
        outcomes = list(run)
    assert all(isinstance(outcome, Outcome) and outcome.ok for outcome in outcomes)
    assert sorted(outcome.index for outcome in outcomes) == list(range(1000))
    assert {outcome.row["name"] for outcome in outcomes} == {row["name"] for row in rows(1000)}
    assert run.report.finished


def test_a_run_that_is_left_early_stops(nex: Nex) -> None:
    """Leaving the block stops pulling, finishes what is on its way, and closes the generator in the thread that pulled it."""
    closed: list[threading.Thread] = []
    pulled = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal pulled
        try:
            for row in endless():
                pulled += 1
                yield row
        finally:
            closed.append(threading.current_thread())

    before = tasks_of(nex)
    with upsert(nex, source()) as run:
        for _outcome in itertools.islice(run, 10):
            pass
    assert closed == [threading.main_thread()]
    assert 10 <= run.report.rows <= pulled < 5000
    assert not run.report.finished
    assert people(nex) == run.report.created
    assert tasks_of(nex) == before
    with pytest.raises(ZeroDivisionError), upsert(nex, source()) as run:
        next(run)
        raise ZeroDivisionError
    assert closed == [threading.main_thread()] * 2


def test_many_of_every_kind(nex: Nex) -> None:
    """Every method that writes many rows blocks, and takes what it takes in asynchronous code."""
    made = list(nex.records.create_many("person", iter(rows(3)), match_on="email_addresses").run().failures)
    assert made == []
    ids = [record.id for record in nex.records.list("person")]
    assert nex.records.update_many({"id": one, "job_title": "CTO"} for one in ids).run().updated == 3
    vips = nex.lists.create("person", "vips", "VIPs")
    assert nex.lists.upsert_members(vips.id, iter(ids)).run().ok
    assert len(list(nex.lists.records(vips.id))) == 3
    assert nex.records.delete_many(iter(ids)).run().deleted == 3
    with nex.context.add_many(["Ada asked for a demo"]) as run:
        assert [outcome.status for outcome in run] == ["accepted"]


# ---- where rows come from -------------------------------------------------------------------------------------------


def test_rows_of_a_database_cursor(nex: Nex) -> None:
    """A SQLite cursor, which belongs to its thread, can be a source: rows are pulled by the thread that waits."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE crm (name, mail)")
    database.executemany("INSERT INTO crm VALUES (?, ?)", [(f"n{index}", f"e{index}@x.io") for index in range(700)])

    def source() -> Iterator[dict[str, Any]]:
        for name, mail in database.execute("SELECT * FROM crm"):
            yield {"name": name, "email_addresses": [mail]}

    assert upsert(nex, source()).run().created == 700
    with upsert(nex, source()) as run:
        assert sum(1 for _ in run) == 700
    database.close()


def test_rows_of_files_and_listings(nex: Nex, tmp_path: Path) -> None:
    """A file is left open, and a listing of the same client can be written back while it is read."""

    class Reader(Iterator[Any]):
        """An iterator of the caller's, which is his to close."""

        def __init__(self) -> None:
            self.lines = csv.DictReader(path.read_text().splitlines())
            self.closed = False

        def __next__(self) -> Any:
            line = next(self.lines)
            return {"name": line["name"], "email_addresses": [line["mail"]]}

        def close(self) -> None:
            self.closed = True

    path = tmp_path / "people.csv"
    path.write_text("name,mail\n" + "".join(f"n{index},e{index}@x.io\n" for index in range(900)))
    reader = Reader()
    with upsert(nex, reader) as run:
        next(run)
    assert upsert(nex, reader).run().ok
    assert not reader.closed
    upsert(nex, Reader()).run()
    assert people(nex) == 900
    nex.objects.create("lead", "Lead")
    copies = ({"name": record.text("name")} for record in nex.records.list("person", limit=70))
    assert nex.records.create_many("lead", copies, allow_unknown_outcomes=True).run().created == 900
    assert len(nex.records.list("lead").collect()) == 900


def test_each_row_is_sent_as_it_comes(nex: Nex) -> None:
    """A source that waits does not hold back the rows it has given, and one thread alone ever touches it."""
    threads: set[threading.Thread] = set()

    def source() -> Iterator[dict[str, Any]]:
        for count, row in enumerate(rows(5)):
            threads.add(threading.current_thread())
            yield row
            until(lambda count=count: people(nex) == count + 1)

    assert upsert(nex, source()).run().created == 5
    assert threads == {threading.main_thread()}


async def test_the_last_row_is_not_lost_to_the_end_of_its_source() -> None:
    """A row that is pulled, and the end with it, just as the loop has found nothing there, comes all the same."""

    class Sneaky(deque[Any]):
        def __bool__(self) -> bool:
            if len(self) == 0 and not rows._ended:
                rows._pull()  # what another thread may do at this very moment
                return False
            return len(self) > 0

    rows = pulled(iter([1]), Desk())
    rows._ahead = Sneaky()
    assert [row async for row in rows] == [1]


def test_a_source_is_not_read_far_ahead(nex: Nex, emulator: Emulator) -> None:
    """Only so many rows are pulled as can be sent soon."""
    emulator.faults.add(kind="stall", route="upsertRecord", times=None)
    pulled = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal pulled
        for row in endless():
            pulled += 1
            yield row

    with upsert(nex, source(), dry_run=True) as run:
        for _outcome in itertools.islice(run, 5):
            pass
        time.sleep(0.05)
        assert pulled < 3000
    assert pulled < 3000


def test_rows_are_pulled_many_at_a_time(nex: Nex) -> None:
    """The loop does not ask for each row of a source that is fast."""
    run = upsert(nex, (row for row in rows(2000)), dry_run=True)
    asked: list[object] = []
    post = run._desk.post
    run._desk.post = lambda errand: asked.append(errand) or post(errand)  # type: ignore[method-assign, func-returns-value]
    assert run.run().valid == 2000
    assert len(asked) < 200


def test_a_source_that_fails(nex: Nex) -> None:
    """What comes before a failure is sent; the failure is raised where the run is waited for, with its own traceback."""

    def source() -> Iterator[dict[str, Any]]:
        yield from rows(30)
        raise KeyError("the source is broken")

    run = upsert(nex, source())
    with pytest.raises(KeyError, match="broken") as caught:
        run.run()
    assert any(entry.name == "source" for entry in caught.traceback)
    assert people(nex) == run.report.created == 30
    with pytest.raises(KeyError, match="broken"), upsert(nex, source()) as run:
        list(run)

    class Broken:
        def __iter__(self) -> Iterator[Any]:
            raise KeyError("no iterator")

    with pytest.raises(KeyError, match="no iterator"):
        upsert(nex, Broken()).run()


def test_what_cannot_be_a_source(nex: Nex) -> None:
    """Rows that are no ordinary iterable are refused at once."""

    async def later() -> AsyncIterator[Any]:
        yield {}

    for wrong in ("rows", b"rows", {"name": "x"}, 5, None, later()):
        with pytest.raises(InvalidRequestError, match="rows must be an iterable"):
            upsert(nex, wrong)


def test_a_source_that_knows_its_length(nex: Nex) -> None:
    """Progress counts towards the number of rows where the source knows it, and is told on the loop's thread."""
    seen: list[Progress] = []
    met: list[Exception] = []

    class Table:
        def __len__(self) -> int:
            return 20

        def __iter__(self) -> Iterator[Any]:
            return iter(rows(20))

    def told(progress: Progress) -> None:
        seen.append(progress)
        try:
            nex.objects.list().collect()
        except ClientLoopError as error:
            met.append(error)

    assert upsert(nex, Table(), progress=told).run().created == 20
    assert (seen[-1].done, seen[-1].total) == (20, 20)
    assert met


def test_journals(nex: Nex, tmp_path: Path) -> None:
    """A run with a journal goes on where it was left; rows that can be read twice can be begun anew."""
    journal = tmp_path / "run.db"

    class Table:
        def __init__(self, start: int) -> None:
            self.start = start

        def __iter__(self) -> Iterator[Any]:
            return iter(rows(500, self.start))

    with upsert(nex, Table(0), journal=journal) as run:
        for _ in itertools.islice(run, 100):
            pass
    assert not run.report.finished
    report = upsert(nex, Table(0), journal=journal).run()
    assert (report.finished, report.rows, report.resumed_at is not None) == (True, 500, True)
    assert people(nex) == 500
    with upsert(nex, Table(1000), journal=journal, job_id="x") as run:
        next(run)
    assert upsert(nex, Table(2000), journal=journal, job_id="x", force=True).run().rows == 500
    with upsert(nex, Table(3000), journal=journal, job_id="y") as run:
        next(run)
    with pytest.raises(InvalidRequestError, match="read twice"):
        upsert(nex, iter(Table(4000)), journal=journal, job_id="y", force=True).run()


def test_dead_letters_are_sent_again(nex: Nex, tmp_path: Path) -> None:
    """Rows that failed lie in a file, from which a run sends them again."""
    letters = tmp_path / "dead.jsonl"
    bad = [*rows(3), {"name": "no address"}]
    run = upsert(nex, iter(bad), dead_letters=letters)
    assert run.run().failed == 1
    letter = json.loads(letters.read_text())
    letter["record"]["email_addresses"] = ["late@x.io"]
    letters.write_text(json.dumps(letter) + "\n")
    again = run.retry_dead()
    assert isinstance(again, BulkRun)
    assert again.run().created == 1
    assert letters.read_text() == ""


def test_a_run_is_stopped_from_elsewhere(nex: Nex) -> None:
    """`stop()` ends a run in good order, from another thread and from its own source."""

    def source(end: Callable[[], None]) -> Iterator[dict[str, Any]]:
        for index, row in enumerate(endless()):
            if index == 600:
                end()
            yield row

    def elsewhere() -> None:
        thread = threading.Thread(target=lambda: run.stop())
        thread.start()
        thread.join()

    for end in (lambda: run.stop(), elsewhere):  # noqa: B023
        run = upsert(nex, source(end))
        assert 0 < run.run().rows < 5000
        assert not run.report.finished


def test_a_run_read_by_another_thread(nex: Nex) -> None:
    """The thread that reads a run need not be the one that leaves it."""
    read = threading.Event()

    def reader() -> None:
        for index, _ in enumerate(run):
            if index == 20:
                read.set()

    with upsert(nex, endless()) as run:
        thread = threading.Thread(target=reader)
        thread.start()
        assert read.wait(PATIENCE)
    assert ended(thread)
    assert not run.report.finished


def test_a_run_ends_with_its_client(nex: Nex, tmp_path: Path) -> None:
    """Closing the client inside a run ends it: the block says so, and the journal is written."""
    with pytest.raises(ClientClosed), upsert(nex, endless(), journal=tmp_path / "run.db") as run:
        next(run)
        nex.close()
        list(run)
    assert not run.report.finished
    with pytest.raises(ClientClosed), upsert(nex, iter(rows(1))):
        pass


# ---- Ctrl-C ---------------------------------------------------------------------------------------------------------


@posix
def test_ctrl_c_in_a_run(nex: Nex, emulator: Emulator, came: Came, tmp_path: Path) -> None:
    """Ctrl-C while the run waits for the server stops it in good order: its journal goes on, and nothing stays behind."""
    closed: list[bool] = []

    def source() -> Iterator[dict[str, Any]]:
        try:
            yield from rows(200)
        finally:
            closed.append(True)

    before = tasks_of(nex)
    emulator.faults.add(kind="delay", route="upsertRecord", times=None, seconds=0.05)

    def begun() -> None:
        for _ in range(20):
            came.wait()

    run = upsert(nex, source(), journal=tmp_path / "run.db")
    with interrupted(begun):
        run.run()
    assert closed == [True]
    assert not run.report.finished
    assert tasks_of(nex) == before
    emulator.faults.clear()
    assert upsert(nex, source(), journal=tmp_path / "run.db").run().finished
    assert people(nex) == 200


@posix
def test_ctrl_c_in_the_source(nex: Nex) -> None:
    """Ctrl-C strikes inside the caller's own generator, as in any loop over it, and stops the run in good order."""
    inside = threading.Event()
    raised: list[BaseException] = []

    def source() -> Iterator[dict[str, Any]]:
        yield from rows(10)
        inside.set()
        try:
            time.sleep(PATIENCE)
        except BaseException as error:
            raised.append(error)
            raise

    before = tasks_of(nex)
    run = upsert(nex, source())
    with interrupted(lambda: inside.wait(PATIENCE) and until(lambda: run.report.created == 10)):
        run.run()
    assert [type(error) for error in raised] == [KeyboardInterrupt]
    assert run.report.created == 10
    assert tasks_of(nex) == before


@posix
def test_ctrl_c_between_outcomes(nex: Nex) -> None:
    """After Ctrl-C in the source, which a loop over outcomes was to go on with, the run says that it was interrupted."""
    entered, inside = threading.Event(), threading.Event()

    def source() -> Iterator[dict[str, Any]]:
        for row in endless():
            if entered.is_set():
                inside.set()
                time.sleep(PATIENCE)
            yield row

    before = tasks_of(nex)
    with pytest.raises(BulkError, match="interrupted"), upsert(nex, source()) as run:
        entered.set()
        with interrupted(lambda: inside.wait(PATIENCE)):
            list(run)
        list(run)
    assert run.report.created > 0
    assert tasks_of(nex) == before


@posix
def test_ctrl_c_twice(nex: Nex, emulator: Emulator, came: Came) -> None:
    """Who presses Ctrl-C a second time does not wait for what is on its way."""
    emulator.faults.add(kind="stall", route="upsertRecord", times=None)
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        came.wait()  # the definition of the object
        came.wait()
        for _ in range(2):
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.3)

    presser = threading.Thread(target=press)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        presser.start()
        upsert(nex, iter(rows(5))).run()
    presser.join()
    assert time.monotonic() - began < 4
    nex.close(drain=0)


# ---- exports and mirrors --------------------------------------------------------------------------------------------


def test_exports(nex: Nex, tmp_path: Path) -> None:
    """An export is run to a file, and can be run again."""
    upsert(nex, rows(30)).run()
    export = nex.records.export("person", tmp_path / "people.jsonl", limit=10)
    report = export.run()
    assert (report.rows, report.bad_rows, export.bad_rows) == (30, 0, 0)
    assert len((tmp_path / "people.jsonl").read_text().splitlines()) == 30
    assert nex.records.export("person", tmp_path / "people.csv").run().rows == 30
    with pytest.raises(InvalidRequestError, match="to="):
        nex.records.export("person").run()
    with pytest.raises(InvalidRequestError, match="format"):
        nex.records.export("person", tmp_path / "people.xyz")


@needs_pyarrow
def test_arrow_batches(nex: Nex) -> None:
    """Batches are read with `for`; a loop that is left leaves nothing on the loop."""
    upsert(nex, rows(30)).run()
    before = tasks_of(nex)
    export = nex.records.export("person", limit=5)
    assert [batch.num_rows for batch in export.as_arrow(12)] == [12, 12, 6]
    for _batch in export.as_arrow(4):
        break
    held = export.as_arrow(4)
    next(held)
    del held
    assert tasks_of(nex) == before
    with pytest.raises(InvalidRequestError):
        next(export.as_arrow(0))


def test_mirrors(nex: Nex, tmp_path: Path) -> None:
    """A mirror is brought up to date once, or watches for as long as a loop runs."""
    upsert(nex, rows(5)).run()
    path = tmp_path / "crm.sqlite"
    before = tasks_of(nex)
    with nex.mirror(path, objects=["person"]) as mirror:
        assert mirror.path == os.fspath(path)
        assert mirror.sync().tables["person"].inserted == 5
        watch = mirror.watch(interval=0.05)
        next(watch)
        upsert(nex, rows(1, 100)).run()
        assert any(report.tables["person"].inserted == 1 for report in watch)
        for _report in mirror.watch():
            break
        with pytest.raises(InvalidRequestError, match="interval"):
            mirror.watch(interval=0)
    watch.close()
    mirror.close()
    assert tasks_of(nex) == before
    with pytest.raises(InvalidRequestError, match="closed"):
        mirror.sync()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM person").fetchone() == (6,)
    database.close()


@posix
def test_ctrl_c_while_a_mirror_watches(nex: Nex, tmp_path: Path) -> None:
    """Ctrl-C ends the watching, and the mirror can be used on."""
    before = tasks_of(nex)
    with nex.mirror(tmp_path / "crm.sqlite", objects=["person"]) as mirror:
        looks = threading.Event()

        def watch() -> None:
            for _report in mirror.watch(interval=60):
                looks.set()

        with interrupted(lambda: looks.wait(PATIENCE)):
            watch()
        assert mirror.sync().tables["person"].rows_read == 0
    assert tasks_of(nex) == before
