"""The storage room: one thread, grouped commits, private and exclusive files."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from nex_async.errors import StorageCorrupt, StorageError, StorageFull, StorageLocked
from nex_async.storage import Database

_OPEN_AND_WAIT = """
    import asyncio, sys
    from nex_async.storage import Database

    async def main():
        database = Database(sys.argv[1])
        await database.open()
        await database.run(lambda connection: connection.execute("CREATE TABLE IF NOT EXISTS t (x)") and None)
        print("open", flush=True)
        await asyncio.sleep(30)

    asyncio.run(main())
"""


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS numbers (value INTEGER UNIQUE, text TEXT)")


def _insert(connection: sqlite3.Connection, value: int, *, fail: bool = False) -> int:
    connection.execute("INSERT INTO numbers VALUES (?, '')", (value,))
    if fail:
        raise ValueError(value)
    return value


def _values(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT value FROM numbers ORDER BY value").fetchall()]


async def test_a_job_that_fails_takes_back_only_its_own_work() -> None:
    """A job that raises undoes itself; those that share its transaction stay."""
    async with Database(":memory:") as database:
        await database.run(_create)
        jobs = [database.run(_insert, number, fail=number % 3 == 0) for number in range(9)]
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[:3]] == [ValueError, int, int]
        assert await database.run(_values) == [1, 2, 4, 5, 7, 8]


async def test_jobs_waiting_together_share_a_transaction() -> None:
    """What queues up behind a running job is committed as one."""
    commits: list[str] = []
    gate = threading.Event()
    async with Database(":memory:") as database:
        await database.run(_create)
        await database.run(lambda connection: connection.set_trace_callback(commits.append))
        first = asyncio.ensure_future(database.run(lambda connection: gate.wait(5)))
        rest = [asyncio.ensure_future(database.run(_insert, number)) for number in range(20)]
        await asyncio.sleep(0)
        commits.clear()
        threading.Timer(0.001, gate.set).start()
        await asyncio.gather(first, *rest)
        await database.run(lambda connection: connection.set_trace_callback(None))
    assert commits.count("COMMIT") <= 3


async def test_a_cancelled_caller_does_not_break_the_batch() -> None:
    """Cancelling one waiting caller leaves its neighbours and the thread at work."""
    gate = threading.Event()
    async with Database(":memory:") as database:
        await database.run(_create)
        blocker = asyncio.ensure_future(database.run(lambda connection: gate.wait(5)))
        tasks = [asyncio.ensure_future(database.run(_insert, number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        gate.set()
        await asyncio.gather(blocker, *tasks, return_exceptions=True)
        assert tasks[1].cancelled()
        assert tasks[2].result() == 2
        assert set(await database.run(_values)) >= {0, 2}


@pytest.mark.parametrize("part", ["open", "aclose"])
async def test_whoever_is_cancelled_leaves_no_file_locked(tmp_path: Path, part: str) -> None:
    """An opening or a closing that is cancelled ends when its file is free: the next to open it finds no lock, no thread."""
    path = tmp_path / "x.db"
    for turns in range(1, 20):
        database = Database(path)
        if part == "aclose":
            await database.open()
        task = asyncio.ensure_future(getattr(database, part)())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if part == "open" and not task.cancelled():
            await database.aclose()
        async with Database(path) as other:
            await other.run(_create)


async def test_a_job_may_not_end_the_transaction() -> None:
    """A job that commits by itself fails, and the database goes on."""
    async with Database(":memory:") as database:
        await database.run(_create)
        with pytest.raises(StorageError):
            await database.run(lambda connection: connection.execute("COMMIT") and None)
        assert await database.run(_insert, 1) == 1


async def test_sqlite_errors_come_as_ours() -> None:
    """A broken statement is a StorageError with SQLite's error as its cause."""
    async with Database(":memory:") as database:
        with pytest.raises(StorageError) as caught:
            await database.run(lambda connection: connection.execute("SELECT nothing") and None)
        assert isinstance(caught.value.__cause__, sqlite3.Error)


async def test_a_full_disk_has_its_own_error_and_loses_nothing(tmp_path: Path) -> None:
    """When the disk is full the job fails with StorageFull; what was committed stays, and work goes on after."""

    def limit(connection: sqlite3.Connection, pages: int) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (2, ?)", ("x" * 1_000_000,))

    async with Database(tmp_path / "full.db") as database:
        await database.run(_create)
        await database.run(_insert, 1)
        await database.run(limit, 20)
        with pytest.raises(StorageFull):
            await database.run(fill)
        await database.run(limit, 10_000)
        await database.run(fill)
        assert await database.run(_values) == [1, 2]


async def test_files_are_private(tmp_path: Path) -> None:
    """X26: the file, its log and its lock can be read by their owner only."""
    path = tmp_path / "private.db"
    async with Database(path) as database:
        await database.run(_create)
        for each in tmp_path.iterdir():
            assert stat.S_IMODE(each.stat().st_mode) & 0o077 == 0, each


async def test_links_and_files_of_others_are_refused(tmp_path: Path) -> None:
    """A symbolic link, a directory, a missing folder and a file others can write raise StorageError."""
    real = tmp_path / "real.db"
    real.touch(mode=0o600)
    link = tmp_path / "link.db"
    link.symlink_to(real)
    shared = tmp_path / "shared.db"
    shared.touch()
    shared.chmod(0o666)
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (link, shared, folder, tmp_path / "missing" / "x.db"):
        with pytest.raises(StorageError):
            await Database(path).open()


async def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    """A file that is no database raises StorageCorrupt and is left as it was."""
    path = tmp_path / "letter.db"
    path.write_bytes(b"Dear Ada, " * 200)
    path.chmod(0o600)
    with pytest.raises(StorageCorrupt):
        await Database(path).open()
    assert path.read_bytes() == b"Dear Ada, " * 200


async def test_a_second_holder_is_refused_at_once(tmp_path: Path) -> None:
    """While a file is open, opening it again raises StorageLocked; afterwards it works."""
    path = tmp_path / "one.db"
    async with Database(path):
        start = time.monotonic()
        with pytest.raises(StorageLocked):
            await Database(path).open()
        assert time.monotonic() - start < 1
    async with Database(path):
        pass


async def test_another_process_holds_the_file_until_it_dies(tmp_path: Path) -> None:
    """The lock holds between processes, and a killed one loses it."""
    path = tmp_path / "one.db"
    command = [sys.executable, "-c", textwrap.dedent(_OPEN_AND_WAIT), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StorageLocked):
            await Database(path).open()
        process.kill()
    async with Database(path) as database:
        await database.run(lambda connection: connection.execute("INSERT INTO t VALUES (1)") and None)


async def test_closing_drains_and_is_idempotent(tmp_path: Path) -> None:
    """What was queued before closing is carried out; closing twice, also at once, is fine; later jobs are refused."""
    path = tmp_path / "drain.db"
    database = Database(path)
    await database.open()
    await database.open()
    await database.run(_create)
    jobs = [asyncio.ensure_future(database.run(_insert, number)) for number in range(100)]
    await asyncio.sleep(0)
    await asyncio.gather(database.aclose(), database.aclose())
    assert await asyncio.gather(*jobs) == list(range(100))
    await database.aclose()
    with pytest.raises(StorageError):
        await database.run(_values)
    assert not path.with_name("drain.db-wal").exists()
    async with Database(path) as again:
        assert len(await again.run(_values)) == 100


async def test_an_unopened_database_says_so() -> None:
    """Using a database before it is open raises StorageError; closing it is fine."""
    database = Database(":memory:")
    with pytest.raises(StorageError):
        await database.run(_values)
    await database.aclose()


async def test_the_loop_is_not_held_up(tmp_path: Path) -> None:
    """While the thread works and closes, the event loop keeps turning."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - start)

    database = Database(tmp_path / "busy.db")
    await database.open()
    ticking = asyncio.ensure_future(tick())
    await database.run(lambda connection: time.sleep(0.2))
    await database.aclose()
    ticking.cancel()
    assert longest < 0.1  # far below the job's 0.2 s, with room for a busy machine


async def test_a_forgotten_database_warns_and_ends_its_thread() -> None:
    """A database that is dropped unclosed warns, and its thread ends."""
    kept = [Database(":memory:")]
    await kept[0].open()
    assert kept[0]._worker is not None
    thread = kept[0]._worker.thread
    with pytest.warns(ResourceWarning, match="unclosed database"):
        kept.clear()
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()


def test_an_unclosed_database_does_not_hang_the_exit(tmp_path: Path) -> None:
    """A process that never closes its database still ends."""
    code = textwrap.dedent(_OPEN_AND_WAIT).replace("await asyncio.sleep(30)", "globals()['kept'] = database")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.db")], capture_output=True, timeout=20)
    assert done.returncode == 0
    assert done.stdout == b"open\n"


def test_one_database_serves_several_loops() -> None:
    """Jobs of different event loops resolve on the loop they came from."""
    database = Database(":memory:")
    asyncio.run(database.open())
    asyncio.run(database.run(_create))
    assert asyncio.run(database.run(_insert, 7)) == 7
    asyncio.run(database.aclose())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_instead_of_waiting_for_ever() -> None:
    """In a forked child, where the thread is missing, using the database raises."""
    code = """
        import asyncio, os
        from nex_async.errors import StorageError
        from nex_async.storage import Database

        database = Database(":memory:")
        asyncio.run(database.open())
        if os.fork() == 0:
            try:
                asyncio.run(database.run(print))
            except StorageError:
                os._exit(7)
            os._exit(1)
        status = os.waitstatus_to_exitcode(os.wait()[1])
        asyncio.run(database.aclose())
        raise SystemExit(status)
    """
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], timeout=20, check=False)
    assert done.returncode == 7
