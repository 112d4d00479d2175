"""Ingest, artifacts, insights, questions and AI lists."""

from __future__ import annotations

from typing import Any

import pytest

from nex_async.emulator.extraction import classify, company_name
from nex_async.emulator.timestamps import format_moment, parse_duration, parse_moment

from .conftest import Api, Clock

_TEXT = "Ada Park <ada@techflow.io> asked for a demo. They are unhappy with delays. Nothing else."


async def _add(api: Api, content: str = _TEXT) -> Any:
    return (await api("POST", "/v1/context/text", {"content": content, "context": "mail"}))["artifact_id"]


async def _result(api: Api, clock: Clock, content: str = _TEXT) -> Any:
    artifact = await _add(api, content)
    clock.now += 1
    return (await api("GET", f"/v1/context/artifacts/{artifact}"))["result"]


async def test_an_artifact_takes_its_time(api: Api, clock: Clock) -> None:
    """An artifact's id is an integer beyond floats; its status goes from pending over processing to completed."""
    artifact = await _add(api)
    assert isinstance(artifact, int)
    assert artifact % 2 == 1
    path = f"/v1/context/artifacts/{artifact}"
    seen = []
    for _ in range(3):
        state = await api("GET", path)
        seen.append(state["status"])
        assert ("result" in state) is (state["status"] == "completed")
        assert isinstance(state["operation_id"], int)
        assert state["operation_id"] != artifact
        clock.now += 0.12
    assert seen == ["pending", "processing", "completed"]
    await api("GET", "/v1/context/artifacts/art_1", status=400)
    await api("GET", "/v1/context/artifacts/17", status=404)
    await api.refused("POST", "/v1/context/text", {"content": " "}, "content")


async def test_a_text_becomes_people_companies_and_insights(api: Api, clock: Clock) -> None:
    """New addresses and domains become records, with timelines; sentences become insights about them."""
    result = await _result(api, clock)
    assert (result["entities_created"], result["entities_updated"], result["insights_created"]) == (2, 0, 2)
    kinds = {each["type"]: each for each in result["entities_extracted"]}
    person = (await api.rows("/v1/objects/person/records"))[0]
    assert person["attributes"] == {"name": "Ada Park", "company": "Techflow", "email_addresses": ["ada@techflow.io"]}
    assert kinds["PERSON"]["canonical_entity_id"] == int(person["id"])
    assert kinds["PERSON"]["is_new"] is True
    company = (await api.rows("/v1/objects/company/records"))[0]
    assert company["attributes"] == {"name": "Techflow", "domains": ["techflow.io"]}
    assert (await api("GET", f"/v1/records/{person['id']}/timeline"))["data"][0]["event_type"] == "created"
    insights = (await api("GET", "/v1/insights"))["data"]
    assert [each["type"] for each in insights] == ["risk", "opportunity"]
    assert insights[1]["content"] == "Ada Park <ada@techflow.io> asked for a demo."
    assert {each["name"] for each in insights[1]["entities"]} == {"Ada Park", "Techflow"}
    assert set(insights[0]) == {"id", "workspace_id", "content", "type", "entities", "created_at"}


async def test_known_records_are_met_again(api: Api, clock: Clock) -> None:
    """A text finds people and companies by address, domain and name, and fills what they lack without overwriting."""
    ada = await api.record(name="Ada Lovelace", email_addresses=["ada@techflow.io"])
    acme = await api.record("company", name="Acme Steel", domains=["techflow.io"])
    marcus = await api.record(name="Marcus Webb")
    text = "ADA@techflow.io met Marcus, who left Acme Steel in Spring."
    result = await _result(api, clock, text)
    assert (result["entities_created"], result["entities_updated"]) == (0, 3)
    ids = {each["canonical_entity_id"] for each in result["entities_extracted"]}
    assert ids == {int(each["id"]) for each in (ada, acme, marcus)}
    known = (await api("GET", f"/v1/records/{ada['id']}"))["attributes"]
    assert (known["name"], known["company"]) == ("Ada Lovelace", "Acme Steel")


async def test_ingest_bows_to_the_users_schema(api: Api, clock: Clock) -> None:
    """Where people need more than a text tells, or do not exist, none is made, and the ingest still succeeds."""
    await api.attribute("person", "badge", "text", is_required=True)
    await api("DELETE", "/v1/objects/company")
    result = await _result(api, clock)
    assert (result["entities_created"], result["insights_created"]) == (0, 2)


@pytest.mark.parametrize(
    "content", ["x" * 200_000, "A B " * 20_000, "a.b" * 30_000, "@" * 50_000, "a@b.io " * 5_000, "\x00 \U0001f680"]
)
async def test_any_text_is_taken_in(api: Api, content: str) -> None:
    """Long and odd texts are taken in within the time of a test."""
    await _add(api, content)


def test_sentences_and_domains_follow_plain_rules() -> None:
    """The kind with most words wins, more words mean more confidence; a domain gives a name."""
    assert classify("The sky is blue") is None
    assert classify("We must cancel: churn risk") == ("risk", 0.8)
    assert [company_name(each) for each in ("techflow.io", "big-co.co.uk", "mail.acme.com")] == [
        "Techflow",
        "Big Co",
        "Acme",
    ]


async def test_windows_of_insights(api: Api, clock: Clock) -> None:
    """Windows include both ends as shown; `last` counts back from now; the newest come first, up to the limit."""
    moments = []
    for _ in range(3):
        await _add(api, "A demo.")
        moments.append(format_moment(int(clock.now * 1e6)))
        clock.now += 60

    async def count(query: str) -> int:
        return len((await api("GET", "/v1/insights?" + query))["data"])

    assert await count("") == 3
    assert await count("limit=2") == 2
    assert await count("last=90s") == 1
    assert await count("last=1m60s") == 2
    assert await count("last=1h30m") == 3
    assert await count(f"from={moments[0]}&to={moments[1]}") == 2
    assert await count(f"from={moments[1]}&to={moments[1]}") == 1
    assert await count("from=2026-09-21T16:13:20.123456789%2B02:00&to=2030-01-01T00:00:00Z") == 3
    for query, word in (
        ("last=1d", "last"),
        ("last=-1h", "last"),
        ("last=h", "last"),
        ("last=5", "last"),
        (f"last=1h&from={moments[0]}&to={moments[1]}", "last"),
        (f"from={moments[0]}", "to"),
        ("from=yesterday&to=today", "from"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
    ):
        await api.refused("GET", "/v1/insights?" + query, None, word)


def test_moments_and_durations() -> None:
    """Timestamps take nine fraction digits and offsets; durations follow Go's grammar."""
    assert parse_moment("1970-01-01T01:00:00.123456789+01:00") == 123_456
    assert format_moment(parse_moment("2026-03-02t08:00:00z")) == "2026-03-02T08:00:00Z"
    assert parse_duration("1h30m0.5s") == 5_400_500_000
    assert parse_duration("2ms") == parse_duration("2000µs") == parse_duration("2000us") == 2_000
    for text in ("", "2026-03-02", "2026-03-02T25:00:00Z", "2026-03-02T08:00:00", "2026-03-02T08:00:00+99:00"):
        with pytest.raises(ValueError, match=r"timestamp|range|offset|month|hour"):
            parse_moment(text)
    for text in ("", "0s", "1", "1x", "1h 2m", "-1h", "999999999999h"):
        with pytest.raises(ValueError, match="duration"):
            parse_duration(text)


async def test_answers_come_from_what_is_stored(api: Api) -> None:
    """A question is answered from records and insights, the same each time, with integer ids."""
    await _add(api)
    question = {"query": "What is the status with techflow.io?", "session_id": "s1"}
    answer = await api("POST", "/v1/context/ask", question)
    assert answer == await api("POST", "/v1/context/ask", question)
    assert "Techflow" in answer["answer"]
    assert "asked for a demo" in answer["answer"]
    first = answer["entities_considered"][0]
    assert isinstance(first["id"], int)
    assert first["type"] in ("person", "company")
    assert answer["metadata"]["query_type"] == "entity_specific"
    assert answer["metadata"]["total_entities_searched"] == 2
    signal = answer["signals_used"][0]
    assert isinstance(signal["insight_id"], int)
    assert isinstance(signal["entity_id"], int)
    empty = await api("POST", "/v1/context/ask", {"query": "Zebras?"})
    assert (empty["entities_considered"], empty["signals_used"]) == ([], [])
    assert empty["metadata"]["query_type"] == "workspace_wide"
    await api.refused("POST", "/v1/context/ask", {"query": ""}, "query")


async def test_ai_lists_find_by_keywords(api: Api, clock: Clock) -> None:
    """A list finds the records whose values hold its keywords, says why, and completes by the clock."""
    tech = await api.record("company", name="Alder", industry="Technology")
    other = await api.record("company", name="Birch", description="Tech for farms")
    await api.record("company", name="Cedar", industry="Steel")
    job = await api("POST", "/v1/context/list/jobs", {"query": "all companies in tech", "object_type": "company"})
    assert job["status"] == "pending"
    path = f"/v1/context/list/jobs/{job['job_id']}"
    assert set(await api("GET", path)) == {"job_id", "status", "created_at"}
    clock.now += 1
    done = await api("GET", path + "?include_attributes=true")
    assert (done["status"], done["count"]) == ("completed", 2)
    found = {each["id"]: each for each in done["entities"]}
    assert set(found) == {tech["id"], other["id"]}
    alder = found[tech["id"]]
    assert (alder["name"], alder["type"], alder["highlights"]) == ("Alder", "company", ["Technology"])
    assert "industry" in alder["reason"]
    assert alder["attributes"] == tech["attributes"]
    assert "attributes" not in (await api("GET", path))["entities"][0]


async def test_ai_lists_have_defaults_and_limits(api: Api, clock: Clock) -> None:
    """Contacts are the default, a query of stop-words takes everybody, and what cannot be is refused."""
    for name in ("Ada", "Bo", "Cy"):
        await api.record(name=name)
    job = await api("POST", "/v1/context/list/jobs", {"query": "all my contacts", "limit": 2, "include_attributes": True})
    clock.now += 1
    done = await api("GET", f"/v1/context/list/jobs/{job['job_id']}")
    assert [(each["name"], each["type"]) for each in done["entities"]] == [("Cy", "contact"), ("Bo", "contact")]
    assert done["entities"][0]["attributes"] == {"name": "Cy"}
    for body, field in (
        ({"query": " "}, "query"),
        ({"query": "x", "object_type": "deal"}, "object_type"),
        ({"query": "x", "limit": 101}, "limit"),
        ({"query": "x", "limit": 0}, "limit"),
    ):
        await api.refused("POST", "/v1/context/list/jobs", body, field)
    await api("GET", "/v1/context/list/jobs/job17", status=404)
    await api("GET", "/v1/context/list/jobs/" + job["job_id"][3:], status=404)
