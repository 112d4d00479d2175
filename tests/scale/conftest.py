"""A cluster of two CPUs on this machine, and a Nex that its workers reach over a socket."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from nex_async.testing import EmulatorThread

from ..harness.canary import KEY

collect_ignore_glob = [] if importlib.util.find_spec("ray") else ["test_*.py"]

VARIABLE = "SCALE_TEST_KEY"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray warns of its own deprecations, and a cluster takes its time."""
    for item in items:
        if "tests/scale/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("default"))
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(autouse=True)
def _no_leaks() -> None:
    """The threads and sockets of the driver are Ray's."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Ray with two CPUs. The workers find the key in their environment, where the cluster's operator put it."""
    import ray

    os.environ.update({
        VARIABLE: KEY, "RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    })  # fmt: skip
    ray.init(num_cpus=2, include_dashboard=True, logging_level="ERROR", object_store_memory=512 << 20)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()
    del os.environ[VARIABLE]


@pytest.fixture
def backend(cluster: Any) -> Iterator[EmulatorThread]:
    """An embedded Nex on a thread of this process, as new for each test; no rate limit but those a test sets."""
    from nex_async.integrations.ray import RayBudget

    with EmulatorThread(keys={KEY: None}) as emulator:
        emulator.switches.set(rate_limits="off")
        yield emulator
    RayBudget().stop()


@pytest.fixture
def options(backend: EmulatorThread) -> dict[str, Any]:
    """What every call to the cluster takes here."""
    return {"key": VARIABLE, "base_url": backend.url}


def until(condition: Callable[[], Any], patience: float = 60.0) -> Any:
    """Wait until a condition holds, and return what it returned."""
    limit = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)
    return found


def people(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return rows of people, each with an address of its own."""
    return [
        {"name": f"Person {number}", "email_addresses": [f"p{number}@example.org"]} for number in range(start, start + count)
    ]


def working() -> list[int]:
    """Return the processes that run a task of a dataset right now."""
    titles = {process.pid: " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])}
    return [
        pid for pid, title in titles.items() if title.startswith(("ray::ReadNexRecords", "ray::MapBatches", "ray::Write"))
    ]
