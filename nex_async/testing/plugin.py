"""The pytest plugin: fixtures over one embedded Nex a session. What they need is loaded when the first is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..blocking import Nex as BlockingNex
    from ..client import Nex
    from ..emulator.faults import Faults
    from .clock import Clock
    from .emulator_thread import EmulatorThread

__all__ = ["nex", "nex_blocking", "nex_clock", "nex_emulator", "nex_faults", "pytest_addoption"]


def pytest_addoption(parser: object, pluginmanager: pytest.PytestPluginManager) -> None:
    """Leave the SDK as it is: pytest would compile all of it anew, because its distribution holds a plugin.

    Rewritten assertions are for tests; here they cost the start of each run up to a second, and the code under test would be
    other code than in production. pytest has no word for this: where it no longer looks like this, it rewrites.
    """
    hook = pluginmanager.rewrite_hook
    marked = getattr(hook, "_must_rewrite", None)
    if isinstance(marked, set):
        marked.discard("nex_async")
        hook.mark_rewrite()  # it forgets what it has found out about our modules


@pytest.fixture(scope="session")
def _nex_emulator_thread() -> Iterator[EmulatorThread]:
    from .emulator_thread import EmulatorThread

    with EmulatorThread() as emulator:
        yield emulator


@pytest.fixture
def nex_emulator(_nex_emulator_thread: EmulatorThread) -> Iterator[EmulatorThread]:
    """An embedded Nex over a real socket, as new for each test: `.url`, `.key`, `.seed()`, `.requests`, `.switches`.

    Meanwhile NEX_API_KEY and NEX_API_BASE_URL name it, so that a plain `Nex()` in the code under test finds it.
    """
    _nex_emulator_thread.reset()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NEX_API_KEY", _nex_emulator_thread.key)
        environment.setenv("NEX_API_BASE_URL", _nex_emulator_thread.url)
        environment.delenv("NEX_DEV_URL", raising=False)
        yield _nex_emulator_thread


@pytest.fixture
def nex(nex_emulator: EmulatorThread) -> Iterator[Nex]:
    """A client (`nex_async.Nex`) of the embedded Nex, for tests under any event loop, or several.

    It repeats failed calls like any client, but without the pauses. It is closed with the test.
    """
    from ..client import Nex
    from ..transport.retry import RetryPolicy
    from .closing import LoopBoundPool, close

    pool, policy = LoopBoundPool(), RetryPolicy(backoff_base=0.0, throttle_base=0.0)
    client = Nex(nex_emulator.key, base_url=nex_emulator.url, pool=pool, retry=policy)
    yield client
    close(client, pool)


@pytest.fixture
def nex_blocking(nex_emulator: EmulatorThread) -> Iterator[BlockingNex]:
    """A synchronous client (`nex_async.blocking.Nex`) of the embedded Nex."""
    from ..blocking import Nex as BlockingNex

    with BlockingNex(nex_emulator.key, base_url=nex_emulator.url) as client:
        yield client


@pytest.fixture
def nex_faults(nex_emulator: EmulatorThread) -> Faults:
    """What goes wrong in the embedded Nex: `nex_faults.add(kind="status", status=503, times=2)`; none to begin with."""
    return nex_emulator.faults


@pytest.fixture
def nex_clock(nex_emulator: EmulatorThread) -> Clock:
    """The time of the embedded Nex: `.advance(seconds)`, `.freeze()`, `.now`; the real time until it is moved."""
    return nex_emulator.clock
