"""The taskiq example over a real Redis: workers in one process, whoever gives them work in another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nex_async.emulator import Emulator

from ..harness.services import EXAMPLES, service, settings
from .servers import Server

pytest.importorskip("taskiq_redis", reason="taskiq-redis is not installed: run `nox -s sinks`")

WORKER = ("-m", "taskiq", "worker", "examples.taskiq_worker:broker", "--workers", "1")


async def test_a_worker_does_what_another_process_asks_for(redis_server: Server, emulator: Emulator, tmp_path: Path) -> None:
    """Tasks that were sent through Redis are done by the worker, with one client for all."""
    redis = {"REDIS_URL": f"redis://127.0.0.1:{redis_server.port}"}
    (tmp_path / "client").mkdir()
    async with service(tmp_path, *WORKER, **settings(emulator), **redis) as worker:
        await worker.logged("Listening started")
        for _ in range(2):
            async with service(tmp_path / "client", EXAMPLES / "taskiq_worker.py", **redis) as client:
                assert re.fullmatch(r"\d+\n", await client.line()), client.log
                assert "'outcome': 'accepted'" in await client.line()
                assert await client.over() == 0
        assert "Traceback" not in worker.log
    assert (emulator.requests.count("upsertRecord"), emulator.requests.count("addContext")) == (2, 2)
