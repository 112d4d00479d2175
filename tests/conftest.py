"""What every test gets: a real embedded Nex, a client on it, and the checks that nothing leaks, the key least of all."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from nex_async import Nex
from nex_async.emulator import Emulator

from .harness.canary import KEY, ErrorWatch, LogWatch
from .harness.loops import install as install_loop

# What was compiled once, the tests too, is shared by the next runs, and by the processes that tests start by the hundred.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    sys.dont_write_bytecode = False
sys.pycache_prefix = os.environ.setdefault(
    "PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
)

# A shell that starts the suite in the background has Ctrl-C ignored, also by the processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long a machine takes to draw examples, and to run one, is no property of ours.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")

install_loop()

_ENVIRONMENT = ("NEX_API_KEY", "NEX_API_BASE_URL", "NEX_DEV_URL", "NEX_BASE_DIR")


def pytest_collection_finish() -> None:
    """Take what importing the suite made out of the collector's sight: it is collected after each test, and stays cheap."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _log_watch() -> Iterator[LogWatch]:
    """Watch every log record of the suite, at DEBUG, for the key."""
    watch = LogWatch()
    root = logging.getLogger()
    root.addHandler(watch)
    for name in ("nex_async", "asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield watch
    root.removeHandler(watch)


@pytest.fixture(scope="session", autouse=True)
def _error_watch() -> Iterator[ErrorWatch]:
    """Watch every error of the suite for the key."""
    watch = ErrorWatch()
    watch.install()
    yield watch
    watch.uninstall()


@pytest.fixture
def few_records(caplog: pytest.LogCaptureFixture) -> None:
    """For tests of thousands of calls: a record of each, kept by pytest, costs more than the call."""
    caplog.set_level(logging.ERROR, "nex_async")


@pytest.fixture(autouse=True)
def _no_key_leaks(_log_watch: LogWatch, _error_watch: ErrorWatch) -> Iterator[None]:
    """Fail a test that let the key into a log record or an error."""
    yield
    leaks = _error_watch.leaks() + _log_watch.leaks
    _log_watch.leaks = []
    assert not leaks, f"the API key shows in {leaks}"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the settings of the machine it runs on."""
    for name in _ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    if sys.flags.dev_mode:
        # For the programs that a test starts: all of development mode but that asyncio tells, where a user would read it,
        # of every step that took long on a busy machine.
        monkeypatch.delenv("PYTHONDEVMODE", raising=False)
        for name, value in {"PYTHONMALLOC": "debug", "PYTHONFAULTHANDLER": "1", "PYTHONWARNINGS": "default"}.items():
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTHONASYNCIODEBUG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp() / "nobody"))


def _levels() -> dict[str, int]:
    loggers = {name: each for name, each in logging.root.manager.loggerDict.items() if name.startswith("nex_async")}
    return {name: each.level for name, each in loggers.items() if isinstance(each, logging.Logger) and each.level}


def _sockets() -> set[str]:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        return set()
    found = set()
    for descriptor in os.listdir(descriptors):
        try:
            target = os.readlink(descriptors / descriptor)
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a task, a thread, a socket, a logger's level or a handler of Ctrl-C behind."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_leaked_tasks")
    threads, sockets, levels = set(threading.enumerate()), _sockets(), _levels()
    handler = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is handler, "Ctrl-C does something else than before"
    assert _levels() == levels, "a logger was left at another level"
    limit = time.monotonic() + 2.0
    while left := [thread for thread in set(threading.enumerate()) - threads if not _is_executor(thread)]:
        assert time.monotonic() < limit, f"threads left running: {left}"
        left[0].join(0.05)
    if _sockets() - sockets:
        gc.collect()
        # The loop of the running test is closed only after this fixture; its self-pipe is a pair of sockets.
        assert len(_sockets() - sockets) <= 2, f"sockets left open: {_sockets() - sockets}"


def _is_executor(thread: threading.Thread) -> bool:
    """Return whether a thread belongs to the loop's default executor, which ends with the loop."""
    return thread.name.startswith(("asyncio_", "uvloop_"))


@pytest.fixture
async def _no_leaked_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    this = asyncio.current_task()
    left: set[asyncio.Task[object]] = set()
    for _ in range(50):
        left = {task for task in asyncio.all_tasks() - before if task is not this and not task.done()}
        if not left:
            break
        await asyncio.sleep(0)
    assert not left, f"tasks left running: {left}"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An embedded Nex on a real socket, with one key that may do everything."""
    async with Emulator(keys={KEY: None}) as server:
        yield server


@pytest.fixture
async def nex(emulator: Emulator) -> AsyncIterator[Nex]:
    """A client of the embedded Nex."""
    async with Nex(KEY, base_url=emulator.url) as client:
        yield client
