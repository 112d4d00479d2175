"""The rows of the network, of HTTP and of the runtime hold on both ways a call can take.

The suite takes the lean path; with `NEX_ASYNC_WAY=session`, as in a step of CI, every call goes through aiohttp's own session.
"""

from __future__ import annotations

import os

import pytest

from nex_async.transport import lean


@pytest.fixture(autouse=True)
def way(monkeypatch: pytest.MonkeyPatch) -> str:
    """The way that calls take: `lean` or `session`."""
    chosen = os.environ.get("NEX_ASYNC_WAY", "lean")
    if chosen == "session":
        monkeypatch.setattr(lean, "unfit", lambda: "a test says so")
    return chosen
