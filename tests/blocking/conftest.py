"""What the tests of the blocking client have in common: a client of an embedded Nex, and Ctrl-C when something has begun."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from nex_async.blocking import Nex
from nex_async.emulator import Emulator
from nex_async.emulator.request_log import Entry
from tests.harness.canary import KEY

PATIENCE = 20.0


@pytest.fixture
def nex() -> Iterator[Nex]:
    """A blocking client of an embedded Nex."""
    with Nex.local(keys={KEY: None}, processing_delay=0.05) as client:
        yield client


@pytest.fixture
def emulator(nex: Nex) -> Emulator:
    """The embedded Nex of the client, whose faults may be set."""
    server: Emulator = nex._async._emulator  # type: ignore[attr-defined]
    return server


class Came:
    """Counts the requests that came to the server."""

    def __init__(self) -> None:
        self._count = threading.Semaphore(0)

    def __call__(self, entry: Entry) -> None:
        if entry.status is None:
            self._count.release()

    def wait(self) -> None:
        """Wait for one more."""
        assert self._count.acquire(timeout=PATIENCE), "no request came"


@pytest.fixture
def came(emulator: Emulator) -> Came:
    """What is told of each request that comes to the server of `nex`."""
    told = Came()
    emulator.requests.observers.add(told)
    return told


def loop_threads() -> list[threading.Thread]:
    """Return the threads that run a loop of ours."""
    return [thread for thread in threading.enumerate() if thread.name == "nex-async loop"]


@contextlib.contextmanager
def interrupted(begun: Callable[[], object]) -> Iterator[None]:
    """Press Ctrl-C once `begun` returns; what runs inside must be ended by it."""

    def press() -> None:
        begun()
        assert main.ident is not None
        signal.pthread_kill(main.ident, signal.SIGINT)

    main = threading.main_thread()
    assert threading.current_thread() is main
    presser = threading.Thread(target=press)
    try:
        with pytest.raises(KeyboardInterrupt):
            presser.start()
            yield
    finally:
        presser.join()
