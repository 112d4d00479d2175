"""The rows of the network, of HTTP and of the runtime hold on both ways a call can take.

The suite takes the lean path; with `NEX_ASYNC_BOTH_WAYS=1`, as in CI, each row runs on both.
"""

from __future__ import annotations

import os

import pytest

from nex_async.transport import lean

_BOTH = ("test_network", "test_http", "test_runtime")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each row once over the lean path, and once over aiohttp's own session."""
    if os.environ.get("NEX_ASYNC_BOTH_WAYS") and metafunc.module.__name__.rpartition(".")[2] in _BOTH:
        metafunc.parametrize("way", ["lean", "session"], indirect=True)


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Send calls the way a test asks for."""
    chosen: str = getattr(request, "param", "lean")
    if chosen == "session":
        monkeypatch.setattr(lean, "unfit", lambda: "a test says so")
    return chosen
