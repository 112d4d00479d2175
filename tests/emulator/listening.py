"""A listener of the stream for tests: it reads frames as bytes, and knows nothing of the SDK."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from .conftest import Api


class Listening:
    """An open stream, read one frame at a time."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def frame(self) -> str:
        """Return the next frame with its blank line, or what is left at the end."""
        data = await self.response.content.readuntil(b"\n\n")
        return data.decode()

    async def event(self) -> tuple[str, Any]:
        """Return the name and the payload of the next event; comments are passed over."""
        while (frame := await self.frame()).startswith(":"):
            continue
        assert frame.endswith("\n\n"), f"the stream has ended with {frame!r}"
        name, data = frame.rstrip("\n").split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    async def contents(self, count: int) -> list[str]:
        """Return what the next `count` insights say."""
        found: list[str] = []
        while len(found) < count:
            found += [item["content"] for item in (await self.event())[1]["insights"]]
        return found

    async def rest(self) -> bytes:
        """Return everything up to the end."""
        return await self.response.content.read()


@contextlib.asynccontextmanager
async def listening(api: Api, **headers: str) -> AsyncIterator[Listening]:
    """Open the stream and read its first comment; a header `faults` is sent as `X-Emulator-Faults`."""
    sent = {f"X-Emulator-{name.replace('_', '-')}": value for name, value in headers.items()}
    sent["Authorization"] = f"Bearer {api.key}"
    timeout = aiohttp.ClientTimeout(total=20)
    async with api.session.get(api.url + "/v1/insights/stream", headers=sent, timeout=timeout) as response:
        assert response.status == 200, await response.text()
        stream = Listening(response)
        assert (await stream.frame()).startswith(": connected ")
        yield stream


async def add(api: Api, content: str) -> int:
    """Take a text in and return its artifact."""
    return int((await api("POST", "/v1/context/text", {"content": content}))["artifact_id"])
