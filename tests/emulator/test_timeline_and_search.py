"""What is written along the way: the timeline and the search index."""

from __future__ import annotations

import pytest

from .conftest import Api


async def test_every_change_is_on_the_timeline(api: Api) -> None:
    """Creation, updates, tasks, notes and memberships show newest first, each with its payload."""
    ada = await api.record(job_title="CTO")
    await api("PATCH", f"/v1/records/{ada['id']}", {"attributes": {"job_title": "CEO"}})
    task = await api("POST", "/v1/tasks", {"title": "Call", "entity_ids": [ada["id"]]})
    await api("PATCH", f"/v1/tasks/{task['id']}", {"is_completed": True})
    await api("DELETE", f"/v1/tasks/{task['id']}")
    note = await api("POST", "/v1/notes", {"title": "Memo", "content": "x", "entity_id": ada["id"]})
    page = await api("GET", f"/v1/records/{ada['id']}/timeline")
    events = page["data"]
    assert [(each["resource_type"], each["event_type"]) for each in events] == [
        ("note", "created"),
        ("task", "archived"),
        ("task", "updated"),
        ("task", "created"),
        ("entity", "updated"),
        ("entity", "created"),
    ]
    assert (page["has_next_page"], page["next_cursor"]) == (False, "")
    assert events[0]["resource_id"] == note["id"]
    assert events[0]["event_payload"]["note"] == {"id": note["id"], "title": "Memo", "content": "x"}
    assert events[3]["event_payload"]["task"]["title"] == "Call"
    changes = {each["field_name"]: each for each in events[2]["event_payload"]["field_changes"]}
    assert changes["is_completed"] == {"field_name": "is_completed", "old_value": False, "new_value": True}
    assert events[4]["event_payload"]["field_changes"] == [
        {"field_name": "job_title", "old_value": "CTO", "new_value": "CEO"}
    ]
    entity = events[5]["event_payload"]["entity"]
    assert (entity["id"], entity["name"], entity["attributes"]) == (ada["id"], "Ada Park", ada["attributes"])
    assert events[5]["created_by"] == "developer_api"


async def test_the_timeline_pages_by_cursor(api: Api) -> None:
    """Following the cursor shows every event once, also when new ones arrive meanwhile."""
    ada = await api.record()
    for number in range(6):
        await api("PATCH", f"/v1/records/{ada['id']}", {"attributes": {"job_title": str(number)}})
    seen, cursor, more = [], "", True
    while more:
        page = await api("GET", f"/v1/records/{ada['id']}/timeline?limit=2&cursor={cursor}")
        seen += [each["id"] for each in page["data"]]
        more, cursor = page["has_next_page"], page["next_cursor"]
        await api("POST", "/v1/notes", {"title": "x", "entity_id": ada["id"]})
    assert len(seen) == len(set(seen)) == 7
    assert seen == sorted(seen, reverse=True)
    for query in ("limit=0", "limit=101", "cursor=x"):
        await api.refused("GET", f"/v1/records/{ada['id']}/timeline?{query}", None, query.partition("=")[0])
    await api("GET", "/v1/records/17/timeline", status=404)
    await api("GET", "/v1/records/x/timeline", status=400)


async def test_the_history_of_a_deleted_record_stays(api: Api) -> None:
    """The timeline of a deleted record ends with its deletion."""
    ada = await api.record()
    await api("DELETE", f"/v1/records/{ada['id']}")
    events = (await api("GET", f"/v1/records/{ada['id']}/timeline"))["data"]
    assert [each["event_type"] for each in events] == ["deleted", "created"]


async def test_search_finds_by_beginnings_of_words(api: Api) -> None:
    """Hits are grouped by object, hold the matched value, and the very name scores best."""
    ada = await api.record(name={"first_name": "Ada", "last_name": "Park"}, email_addresses=["ada@techflow.io"])
    adam = await api.record(name="Adam West")
    acme = await api.record("company", name="Acme", domains=["techflow.io"])
    hits = (await api("POST", "/v1/search", {"query": "ada"}))["results"]["person"]
    assert {hit["id"] for hit in hits} == {ada["id"], adam["id"]}
    assert (await api("POST", "/v1/search", {"query": "ada park"}))["results"]["person"][0]["score"] == 1.0
    found = await api("POST", "/v1/search", {"query": "Techflow"})
    assert found["errored_search_types"] == []
    assert found["results"]["company"] == [
        {
            "id": acme["id"],
            "primary_value": "Acme",
            "matched_value": "techflow.io",
            "score": 0.6,
            "entity_definition_id": acme["object_id"],
        }
    ]
    assert found["results"]["person"][0]["matched_value"] == "ada@techflow.io"
    scores = [hit["score"] for group in found["results"].values() for hit in group]
    assert all(0 < score <= 1 for score in scores)


async def test_search_follows_changes(api: Api) -> None:
    """What is changed, cleared, relabelled or deleted is found by what it says now."""
    stage = await api.attribute("person", "stage", "select", select_options=[{"name": "Prospect", "id": "p"}])
    ada = await api.record(job_title="Pilot", stage="p")

    async def found(query: str) -> bool:
        return bool((await api("POST", "/v1/search", {"query": query}))["results"])

    assert await found("pilot")
    assert await found("prospect")
    await api("PATCH", f"/v1/records/{ada['id']}", {"attributes": {"job_title": "Captain"}})
    assert not await found("pilot")
    assert await found("captain")
    path = f"/v1/objects/person/attributes/{stage['id']}"
    await api("PATCH", path, {"options": {"select_options": [{"id": "p", "name": "Customer"}]}})
    assert not await found("prospect")
    assert await found("customer")
    await api("DELETE", path)
    assert not await found("customer")
    await api("DELETE", f"/v1/records/{ada['id']}")
    assert not await found("captain")


@pytest.mark.parametrize(
    "query",
    [
        '"',
        "a AND",
        "NEAR(a b)",
        "text: ada",
        "*",
        "-ada",
        "(",
        "a^b",
        "ada OR",
        "'; DROP TABLE records; --",
        "\x00",
        "é" * 500,
    ],
)
async def test_any_query_is_safe(api: Api, query: str) -> None:
    """No query is a syntax error."""
    await api.record()
    await api("POST", "/v1/search", {"query": query})
    await api("POST", "/v1/context/ask", {"query": query + "?"})


async def test_queries_have_a_length(api: Api) -> None:
    """A query has 1 to 500 characters."""
    for query in ("", "x" * 501):
        await api.refused("POST", "/v1/search", {"query": query}, "500")
