"""The pytest plugin as its users meet it: pytest run in a project of theirs, warnings being errors."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

_SUITE = '''
import asyncio, gc, os, sys, threading, unittest

import pytest

from nex_async import Nex, PermissionDeniedError, RateLimitError, ServerError


@MARK
@pytest.mark.parametrize("turn", [1, 2])
async def test_data_are_clean(nex, nex_emulator, turn):
    assert (await nex.records.list("person")).total == 0
    await nex.records.create("person", {"name": "Ada", "email_addresses": ["ada@x.io"]})
    assert nex_emulator.requests.count() == 2
    assert nex_emulator.requests.count("createRecord") == 1


@pytest.mark.parametrize("turn", [1, 2])
def test_synchronous(nex, nex_emulator, turn):
    async def names():
        return [person.text("name") async for person in nex.records.list("person", sort="name")]

    ada, bob = nex_emulator.seed("person", {"name": "Ada"}, {"name": "Bob"})
    assert (ada.text("name"), bob.type) == ("Ada", "person")
    assert asyncio.run(names()) == ["Ada", "Bob"]
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(asyncio.run(names())))
    thread.start()
    thread.join()
    assert seen == asyncio.run(names())


@MARK
async def test_faults(nex, nex_faults, nex_emulator):
    nex_faults.add(kind="status", status=503, times=2)
    assert await nex.tasks.list().collect() == []
    assert [entry.status for entry in nex_emulator.requests] == [503, 503, 200]
    nex_faults.add(kind="status", status=500, times=None)
    with pytest.raises(ServerError):
        await nex.tasks.list().collect()


@MARK
async def test_faults_and_switches_are_cleared(nex, nex_faults, nex_emulator):
    assert await nex.tasks.list().collect() == []
    assert len(nex_faults) == 0
    assert nex_emulator.switches["timestamps"] == "whole"
    nex_emulator.switches.set(timestamps="nanoseconds")
    nex_emulator.keys["sk-reader"] = frozenset({"record.read"})
    async with Nex("sk-reader", base_url=nex_emulator.url) as reader:
        assert await reader.records.list("person").collect() == []
        with pytest.raises(PermissionDeniedError):
            await reader.records.create("person", {"name": "Ada"})


@MARK
async def test_switches_are_cleared(nex_emulator):
    assert nex_emulator.switches["timestamps"] == "whole"
    assert list(nex_emulator.keys) == [nex_emulator.key]


@MARK
@pytest.mark.parametrize("turn", [1, 2])
async def test_clock(nex, nex_clock, turn):
    job = await nex.context.add_text("Ada Park <ada@x.io> asked for a demo.")
    assert (await job).status == "completed"
    nex_clock.freeze()
    begun = nex_clock.now
    job = await nex.context.add_text("Bob Stone <bob@x.io> asked for a demo.")
    assert (await job.poll()).status == "pending"
    nex_clock.advance(0.5)
    assert (await job).status == "completed"
    nex_clock.advance(3600)
    task = await nex.tasks.create("Call")
    assert int((task.created_at - begun).total_seconds()) in (3600, 3599)


@MARK
async def test_limits_follow_the_clock(nex, nex_clock):
    nex_clock.freeze()
    for _ in range(10):
        await nex.context.add_text("One of many.")
    async with Nex() as other:
        with pytest.raises(RateLimitError):
            await other.context.add_text("One too many.", retries=0)
    nex_clock.advance(60)
    async with Nex() as another:
        await another.context.add_text("One of the next minute.")


@MARK
async def test_clock_is_real_again(nex, nex_clock):
    import datetime
    assert abs((nex_clock.now - datetime.datetime.now(datetime.timezone.utc)).total_seconds()) < 5
    task = await nex.tasks.create("Call")
    assert abs((nex_clock.now - task.created_at).total_seconds()) < 5


@MARK
async def test_the_code_under_test_finds_it(nex_emulator):
    async with Nex() as own:
        await own.tasks.create("Call")
    assert nex_emulator.requests.count("createTask") == 1


def test_the_environment_is_given_back():
    assert "NEX_API_KEY" not in os.environ
    assert os.environ["NEX_DEV_URL"] == "http://localhost:1"


@MARK
async def test_left_open(nex, nex_faults, nex_emulator):
    """A feed that is not closed and a call that is not awaited end with the test."""
    feed = nex.insights.stream()
    await feed.__aenter__()
    nex_faults.add(kind="stall", times=None)
    call = asyncio.create_task(nex.context.ask("Who?"))
    await nex_emulator.requests.wait_for("queryContext")
    nex_emulator.left = call


@pytest.fixture
def stopped_loop():
    loop = asyncio.new_event_loop()
    yield loop
    assert not asyncio.all_tasks(loop)
    loop.close()


@pytest.fixture
def running_loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert not asyncio.all_tasks(loop)
    loop.close()


def test_left_open_on_loops_that_end_later(stopped_loop, running_loop, nex):
    """Where loops outlive the client, its connections and what runs for it are gone all the same."""
    async def use():
        feed = nex.insights.stream()
        await feed.__aenter__()
        return feed

    held = [asyncio.run(use()), stopped_loop.run_until_complete(use())]
    held.append(asyncio.run_coroutine_threadsafe(use(), running_loop).result(5))
    nex.held = held


def test_left_open_on_a_loop_that_ends_badly(nex):
    """A loop that is closed in one blow takes the connections along."""
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(nex.tasks.list().collect()) == []
    loop.close()


class ExactingLoop(asyncio.SelectorEventLoop):
    """Bears no open connection when it is closed, as uvloop does."""

    def close(self):
        assert [each for each in self._transports.values() if each.get_extra_info("socket").fileno() >= 0] == []
        super().close()


def test_left_open_on_an_exacting_loop(nex):
    """A loop that ends in good order has no connection of the client left when it is closed, before the client is."""
    async def use():
        feed = nex.insights.stream()
        await feed.__aenter__()
        return (await nex.records.list("person")).total

    for _ in range(2):
        loop = ExactingLoop()
        assert loop.run_until_complete(use()) == 0
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class TestUnittest(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _fixtures(self, nex, nex_emulator):
        self.nex, self.emulator = nex, nex_emulator

    def test_one(self):
        [ada] = self.emulator.seed("person", {"name": "Ada"})
        async def get():
            return await self.nex.records.get(ada.id)
        self.assertEqual(asyncio.run(get()).text("name"), "Ada")


class TestAsynchronousUnittest(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def _fixtures(self, nex):
        self.nex = nex

    async def asyncSetUp(self):
        self.task = await self.nex.tasks.create("Call")

    async def test_one(self):
        self.assertEqual([task.id async for task in self.nex.tasks.list()], [self.task.id])


def test_blocking(request):
    nex = request.getfixturevalue("nex_blocking")
    assert nex.tasks.create("Call").title == "Call"


def test_the_code_under_test_is_as_in_production(nex):
    """pytest does not rewrite the assertions of the whole SDK."""
    assert type(sys.modules["nex_async.client"].__loader__).__name__ == "SourceFileLoader"


def test_nothing_is_left():
    gc.collect()
    gc.collect()
'''

_OTHER_RUNNERS = """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def run(project: Path, *arguments: str, passed: int) -> None:
    """Run pytest in a project and see that so many tests passed, and nothing else happened but skips."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error",
            "-p",
            "no:hypothesispytest",
            "-p",
            "no:cacheprovider",
            *arguments,
        ],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "NEX_DEV_URL": "http://localhost:1"},
        check=False,
    )
    summary = done.stdout.rstrip().rpartition("\n")[2]
    assert done.returncode == 0, done.stdout + done.stderr
    assert summary.startswith(f"{passed} passed"), done.stdout


def write(project: Path, *, options: str, **modules: str) -> None:
    (project / "pytest.ini").write_text(f"[pytest]\n{textwrap.dedent(options)}")
    for name, text in modules.items():
        (project / f"{name}.py").write_text(text)


_TESTS = _SUITE.count("\ndef test_") + _SUITE.count("def test_one") + _SUITE.count("\nasync def test_") + 3


def test_automatic_mode(tmp_path: Path) -> None:
    """Under pytest-asyncio's auto mode every kind of test has clean data, and leaves nothing open."""
    options = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    write(tmp_path, options=options, test_suite=_SUITE.replace("@MARK\n", ""))
    run(tmp_path, passed=_TESTS)


def test_strict_mode_and_anyio(tmp_path: Path) -> None:
    """Under pytest-asyncio's strict mode, on a loop that outlives its tests, and under anyio's plugin, it is the same."""
    options = "asyncio_default_fixture_loop_scope = function\nasyncio_default_test_loop_scope = session\n"
    suites = {name: _SUITE.replace("MARK", f"pytest.mark.{name}") for name in ("asyncio", "anyio")}
    modules = {f"test_{name}": text for name, text in suites.items()}
    write(tmp_path, options=options, conftest=_OTHER_RUNNERS, **modules)
    run(tmp_path, passed=2 * _TESTS)


def test_workers(tmp_path: Path) -> None:
    """Each worker of xdist has an emulator of its own."""
    pytest.importorskip("xdist")
    options = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    write(tmp_path, options=options, test_suite=_SUITE.replace("@MARK\n", ""))
    run(tmp_path, "-n", "2", passed=_TESTS)


def test_loading_is_cheap() -> None:
    """What pytest loads at its start is the plugin alone: neither HTTP library nor JSON library nor anyio."""
    code = (
        "import sys, pytest; before = set(sys.modules); import nex_async.testing.plugin; "
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    ours = ["nex_async", "nex_async._lazy", "nex_async._version", "nex_async.testing", "nex_async.testing.plugin"]
    assert done.stdout.strip() == str(ours)


def test_the_fixtures_are_described() -> None:
    """`pytest --fixtures` tells of each fixture what it is, on its first line."""
    from nex_async.testing import plugin

    names = [name for name in plugin.__all__ if name.startswith("nex")]
    assert len(names) == 5
    assert all((getattr(plugin, name).__doc__ or "").partition("\n")[0].endswith((".", ";", "`")) for name in names)
