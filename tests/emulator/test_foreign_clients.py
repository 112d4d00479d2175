"""The stream as clients read it that know nothing of this project."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp_sse_client.client import EventSource

from nex_async.emulator import Emulator

from .conftest import Api

EARLIER, LIVE = "ada@gmail.com is unhappy.", "bo@gmail.com signed: naïve\u2028café."


async def ingest(api: Api, content: str) -> None:
    await api("POST", "/v1/context/text", {"content": content})


@pytest.fixture
async def served(api: Api) -> Api:
    """A workspace that holds one insight already."""
    await ingest(api, EARLIER)
    return api


async def test_aiohttp_sse_client_reads_the_stream(served: Api) -> None:
    """aiohttp-sse-client sees the replay by its name, and then each batch as it is made."""
    headers = {"Authorization": f"Bearer {served.key}"}
    async with EventSource(f"{served.url}/v1/insights/stream", session=served.session, headers=headers) as source:
        replayed = await anext(source)
        assert replayed.type == "insight.replay"
        assert json.loads(replayed.data)["insights"][0]["content"] == EARLIER
        await ingest(served, LIVE)
        event = await anext(source)
        assert event.type == "insight.batch.created"
        batch = json.loads(event.data)
        assert batch["insight_count"] == len(batch["insights"]) == 1
        assert batch["insights"][0]["content"] == LIVE
        assert event.last_event_id == ""


@asynccontextmanager
async def curl(*arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run curl unbuffered and yield what it prints; it is ended by force."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sN", "--noproxy", "*", *arguments, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await process.stdout.read()


async def read_frame(stdout: asyncio.StreamReader) -> list[str]:
    """Return the lines of the next frame, without the blank one that ends it."""
    frame = await asyncio.wait_for(stdout.readuntil(b"\n\n"), 10)
    return frame.decode().removesuffix("\n\n").split("\n")


def payload(frame: list[str]) -> Any:
    return json.loads(frame[1].removeprefix("data: "))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_reads_the_stream(served: Api) -> None:
    """`curl -N` prints the bytes of the reference: the comment, the replay, the live batch; LF endings, one space."""
    async with curl("-H", f"Authorization: Bearer {served.key}", f"{served.url}/v1/insights/stream") as stdout:
        (comment,) = await read_frame(stdout)
        assert comment.startswith(": connected workspace_id=")
        assert " token_id=" in comment
        replay = await read_frame(stdout)
        assert replay[0] == "event: insight.replay"
        assert payload(replay)["insights"][0]["content"] == EARLIER
        await ingest(served, LIVE)
        live = await read_frame(stdout)
        assert [line.partition(":")[0] for line in live] == ["event", "data"]
        assert live[0] == "event: insight.batch.created"
        assert payload(live)["insights"][0]["content"] == LIVE


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_sees_keepalives_and_the_end() -> None:
    """A silent stream prints keepalives, and ends in good order when the server closes: curl exits with 0."""
    emulator = Emulator(switches={"keepalive": 0.05})
    await emulator.start()
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sN", "--noproxy", "*", "-H", f"Authorization: Bearer {emulator.key}"),
        f"{emulator.url}/v1/insights/stream",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await read_frame(process.stdout)
    assert await read_frame(process.stdout) == [": keepalive"]
    await emulator.aclose()
    await process.stdout.read()
    assert await process.wait() == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_is_refused_without_a_key(api: Api) -> None:
    """A stream without a key is a plain JSON error, not a stream."""
    async with curl("-w", "%{http_code} %{content_type}", f"{api.url}/v1/insights/stream") as stdout:
        body, _, rest = (await stdout.read()).decode().partition("}")
    assert json.loads(body + "}")["code"] == 401
    assert rest == "401 application/json"
