"""A driver for the emulator that knows only the wire: bare aiohttp, no SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from nex_async.emulator import Emulator


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.25

    def __call__(self) -> float:
        return self.now


class Api:
    """Sends one request, checks its status and the shape of an error, and returns the body."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self.session = session
        self.url = url
        self.key = key

    async def __call__(
        self, method: str, path: str, body: Any = None, *, status: int = 200, data: bytes | None = None, key: str = ""
    ) -> Any:
        headers = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"}
        sent = data if data is not None else None if body is None else json.dumps(body).encode()
        async with self.session.request(method, self.url + path, data=sent, headers=headers) as response:
            text = await response.text()
        assert response.status == status, f"{method} {path}: {response.status} {text[:500]}"
        if status < 400:
            return json.loads(text) if text else None
        envelope = json.loads(text)
        assert set(envelope) == {"code", "message"}
        assert envelope["code"] == status
        assert isinstance(envelope["message"], str)
        return envelope["message"]

    async def refused(self, method: str, path: str, body: Any = None, *naming: str, status: int = 400) -> str:
        """Send what must be refused, and check that the message names what is wrong."""
        message = await self(method, path, body, status=status)
        for name in naming:
            assert name in message, message
        return str(message)

    async def record(self, slug: str = "person", **attributes: Any) -> Any:
        """Create a record; without a name it gets one."""
        return await self("POST", f"/v1/objects/{slug}", {"attributes": {"name": "Ada Park", **attributes}})

    async def attribute(self, slug: str, name: str, kind: str, **options: Any) -> Any:
        """Create an attribute."""
        body = {"name": name, "slug": name, "type": kind, "options": options}
        return await self("POST", f"/v1/objects/{slug}/attributes", body)

    async def rows(self, path: str, **body: Any) -> list[Any]:
        """Return the rows of a listing."""
        return list((await self("POST", path, body))["data"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def api(clock: Clock) -> AsyncIterator[Api]:
    """A fresh workspace behind one key that may do everything."""
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        yield Api(session, emulator.url, emulator.key)
