"""What the extended operations keep outlives the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from nex_async.emulator import Emulator

from .conftest import Api, Clock

_READS = (
    "/v1/integrations",
    "/v1/notifications/preferences",
    "/v1/notifications/custom",
    "/v1/notifications/feed",
    "/v1/graph",
)


async def furnish(api: Api) -> str:
    """Leave something of every kind behind; return where the job stands."""
    for text in ("ada@alder.io is unhappy.", "ada@alder.io may cancel."):
        await api("POST", "/v1/context/text", {"content": text})
    started = await api("POST", "/v1/compounding/trigger", {"job_type": "pattern_detection"}, status=202)
    await api("PATCH", "/v1/notifications/preferences", {"frequency_minutes": 5})
    await api("POST", "/v1/notifications/custom", {"description": "A deal closes"})
    connect = await api("POST", "/v1/integrations/crm/attio/connect")
    async with api.session.post(URL(connect["auth_url"], encoded=True), data={"identifier": "us"}) as response:
        assert response.status == 200
    return f"/v1/compounding/jobs/{started['job_run_id']}"


async def read(api: Api, job: str) -> list[Any]:
    return [await api("GET", path) for path in (*_READS, job)]


async def test_extended_state_survives_a_restart(tmp_path: Path) -> None:
    """Connections, preferences, rules, jobs and what was learnt are the same after a restart, and new ids are new."""
    path, clock = tmp_path / "nex.db", Clock()
    async with aiohttp.ClientSession() as session:
        async with Emulator(path, clock=clock) as emulator:
            api = Api(session, emulator.url, emulator.key)
            job = await furnish(api)
            before = await read(api, job)
        clock.now -= 86_400
        async with Emulator(path, clock=clock) as emulator:
            api = Api(session, emulator.url, emulator.key)
            clock.now += 86_400
            assert await read(api, job) == before
            rule = await api("POST", "/v1/notifications/custom", {"description": "Another"})
            assert int(rule["id"]) > int(before[2]["rules"][0]["id"])
