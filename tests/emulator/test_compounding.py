"""Compounding: jobs that run by the clock, and what they do to insights."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import pytest

from nex_async.emulator.similarity import group_similar

from .conftest import Api, Clock

DAY = 24 * 3600


async def ingest(api: Api, *texts: str) -> None:
    for text in texts:
        await api("POST", "/v1/context/text", {"content": text})


async def insights(api: Api) -> list[str]:
    return [each["content"] for each in (await api("GET", "/v1/insights"))["data"]]


async def confidences(api: Api) -> list[float]:
    return [each["confidence"] for each in (await api("GET", "/v1/graph"))["insight_nodes"]]


async def run(api: Api, clock: Clock, kind: str, *, dry_run: bool = False) -> Any:
    """Trigger a job, let its time pass, and return it."""
    started = await api("POST", "/v1/compounding/trigger", {"job_type": kind, "dry_run": dry_run}, status=202)
    clock.now += 1
    return await api("GET", f"/v1/compounding/jobs/{started['job_run_id']}")


def counters(job: Any) -> tuple[int, int, int, int]:
    return job["insights_scanned"], job["insights_affected"], job["candidates_created"], job["errors"]


async def test_a_job_is_accepted_runs_and_completes(api: Api, clock: Clock) -> None:
    """A trigger is answered with 202; the job's states follow the clock, and its counters come with the last."""
    await ingest(api, "ada@alder.io is unhappy.")
    started = await api("POST", "/v1/compounding/trigger", {"job_type": "metrics"}, status=202)
    assert started["status"] == "accepted"
    assert started["success"] is True
    assert started["dry_run"] is False
    assert type(started["workspace_id"]) is int
    assert str(uuid.UUID(started["job_run_id"])) == started["job_run_id"]
    path = f"/v1/compounding/jobs/{started['job_run_id']}"
    states = []
    for _ in range(3):
        job = await api("GET", path)
        states.append(job["status"])
        assert ("completed_at" in job) == ("duration_ms" in job) == (job["status"] == "completed")
        assert job["insights_scanned"] == (job["status"] == "completed")
        clock.now += 0.11
    assert states == ["accepted", "running", "completed"]
    assert (await api("GET", path.upper().replace("/V1/COMPOUNDING/JOBS", "/v1/compounding/jobs"))) == await api("GET", path)
    assert (await api("GET", path))["duration_ms"] == 200


async def test_consolidation_merges_near_duplicates(api: Api, clock: Clock) -> None:
    """Insights of one type that say nearly the same become the oldest of them; unlike ones and other types stay."""
    first = "ada@alder.io is unhappy with the slow delivery of the new printers."
    await ingest(api, first, "bo@birch.io signed.", first.replace("the new", "new"), first, "Bo is unhappy at birch.io.")
    dry = await run(api, clock, "consolidation", dry_run=True)
    assert counters(dry) == (5, 2, 1, 0)
    assert len(await insights(api)) == 5
    assert counters(await run(api, clock, "consolidation")) == (5, 2, 1, 0)
    assert await insights(api) == ["Bo is unhappy at birch.io.", "bo@birch.io signed.", first]
    assert counters(await run(api, clock, "consolidation")) == (3, 0, 0, 0)


async def test_what_is_merged_is_found_once(api: Api, clock: Clock) -> None:
    """The insight that stays takes over the records and the highest confidence, and the others are found no more."""
    await ingest(api, "The renewal of our largest customer is at risk, says ada@gmail.com.")
    await ingest(api, "The renewal of our largest customer is at risk, says bo@gmail.com.")
    await run(api, clock, "consolidation")
    (kept,) = (await api("GET", "/v1/insights"))["data"]
    assert {each["name"] for each in kept["entities"]} == {"Ada", "Bo"}
    answer = await api("POST", "/v1/context/ask", {"query": "renewal of the customer"})
    assert [signal["content"] for signal in answer["signals_used"]] == [kept["content"]]


async def test_decay_lowers_what_is_stale(api: Api, clock: Clock) -> None:
    """A sweep takes a tenth off the confidence of insights older than 30 days, never below 0.1; a dry run nothing."""
    await ingest(api, "ada@gmail.com is unhappy.")
    clock.now += 31 * DAY
    await ingest(api, "bo@gmail.com is unhappy.")
    assert counters(await run(api, clock, "decay_sweep", dry_run=True)) == (2, 1, 0, 0)
    assert await confidences(api) == [0.6, 0.6]
    assert counters(await run(api, clock, "decay_sweep")) == (2, 1, 0, 0)
    assert await confidences(api) == [0.6, 0.54]
    for _ in range(40):
        await run(api, clock, "decay_sweep")
    assert await confidences(api) == [0.6, 0.1]
    assert counters(await run(api, clock, "decay_sweep")) == (2, 0, 0, 0)


async def test_patterns_become_playbooks(api: Api, clock: Clock) -> None:
    """A type that shows twice on a record is a pattern, a type with patterns makes a playbook; each is found once."""
    await ingest(api, "ada@gmail.com is unhappy.", "ada@gmail.com may cancel.", "bo@gmail.com signed.")
    assert counters(await run(api, clock, "playbook_synthesis")) == (3, 0, 0, 0)
    assert counters(await run(api, clock, "pattern_detection", dry_run=True)) == (3, 2, 1, 0)
    for created in (1, 0):
        assert counters(await run(api, clock, "pattern_detection")) == (3, 2, created, 0)
    assert counters(await run(api, clock, "playbook_synthesis", dry_run=True)) == (3, 0, 1, 0)
    for created in (1, 0):
        assert counters(await run(api, clock, "playbook_synthesis")) == (3, 0, created, 0)


@pytest.mark.parametrize("kind", ["consolidation", "pattern_detection", "playbook_synthesis", "decay_sweep", "metrics"])
async def test_an_empty_workspace_gives_every_job_nothing_to_do(api: Api, clock: Clock, kind: str) -> None:
    """Every kind of job completes in an empty workspace, with zeros."""
    job = await run(api, clock, kind)
    assert (job["status"], counters(job)) == ("completed", (0, 0, 0, 0))


async def test_what_cannot_be_a_job_is_refused(api: Api) -> None:
    """An unknown type names what there is; an id nobody has is 404, a UUID or not."""
    await api.refused("POST", "/v1/compounding/trigger", {"job_type": "magic"}, "job_type", "consolidation")
    await api.refused("POST", "/v1/compounding/trigger", {}, "job_type")
    await api.refused("POST", "/v1/compounding/trigger", {"job_type": "metrics", "dry_run": "yes"}, "dry_run")
    for name in (str(uuid.uuid4()), "17", "x"):
        await api("GET", f"/v1/compounding/jobs/{name}", status=404)


def grouped(texts: Iterable[str]) -> list[list[int]]:
    return group_similar(dict(enumerate(texts)))


def test_what_is_similar() -> None:
    """Case, order, punctuation and a word in five do not tell texts apart; more does, and texts without words never meet."""
    assert grouped(["Ada left the team today", "ada LEFT the team, today!", "today the team left Ada"]) == [[0, 1, 2]]
    eight = "one two three four five six seven eight"
    assert grouped([f"{eight} nine", f"{eight} ten"]) == [[0, 1]]
    assert grouped(["one two three four", "one two three five"]) == []
    assert grouped(["", "", "!!!"]) == []


def test_a_chain_of_small_changes_is_no_group() -> None:
    """A text joins the group of a leader it resembles itself, not of a relative."""
    words = [f"w{number}" for number in range(20)]
    chain = [" ".join(words[start : start + 10]) for start in range(10)]
    assert grouped(chain) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
