"""Real servers for the sinks: `nox -s sinks`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .servers import Server, running

if TYPE_CHECKING:
    from nats.aio.client import Client
    from redis.asyncio import Redis

REDIS = (
    "redis-server", "--bind", "127.0.0.1", "--port", "{port}", "--dir", "{place}", "--save", "", "--appendonly", "yes",
    "--appendfsync", "always",
)  # fmt: skip
NATS = ("nats-server", "-a", "127.0.0.1", "-p", "{port}", "-js", "-sd", "{place}")


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[Server]:
    """A Redis that has on its disk what it has confirmed."""
    async with running(tmp_path / "redis", *REDIS) as server:
        yield server


@pytest.fixture
async def redis(redis_server: Server) -> AsyncIterator[Redis]:
    """A client of it."""
    from redis.asyncio import Redis

    async with Redis(port=redis_server.port) as client:
        yield client


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[Server]:
    """A NATS with JetStream."""
    async with running(tmp_path / "nats", *NATS) as server:
        yield server


@pytest.fixture
async def nats(nats_server: Server) -> AsyncIterator[Client]:
    """A connection to it that never gives up."""
    import nats

    async def ignored(error: Exception) -> None:
        """A server that is killed is what these tests are about."""

    client = await nats.connect(
        f"nats://127.0.0.1:{nats_server.port}", max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=ignored
    )
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):
            await client.close()
