"""Every operation once, in bare HTTP as the reference tells it: what is sent, what must come back.

One story in one workspace, so that each call works on what those before it made. The SDK has no part in it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from nex_async import routes
from nex_async.emulator import Emulator
from nex_async.emulator.router import Router

_ROUTER = Router(routes.ALL)
_RECORD = {"id", "object_id", "type", "workspace_id", "created_at", "updated_at", "attributes"}
_TASK = {"id", "title", "description", "priority", "is_completed", "assignee_ids", "entity_ids", "created_by", "created_at"}


class Teller:
    """Sends requests and remembers which operation each was."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self.told: Counter[str] = Counter()

    async def __call__(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        url = URL(self.url + path, encoded=True)
        self.told[_ROUTER.find(path.partition("?")[0])[0][method].name] += 1
        async with self.session.request(method, url, json=body) as response:
            assert response.status == status, (method, path, await response.text())
            data = await response.read()
            assert response.content_type == "application/json" if data else not data
            return await response.json() if data else None


async def test_the_story() -> None:
    """All 61 operations answer, in the shapes of the reference."""
    emulator = Emulator(processing_delay=0)
    headers = {"Authorization": f"Bearer {emulator.key}"}
    async with emulator, aiohttp.ClientSession(headers=headers) as session:
        call = Teller(session, emulator.url)
        await tell_objects(call)
        ada, alder = await tell_records(call)
        await tell_relationships(call, ada, alder)
        await tell_lists(call, ada)
        await tell_tasks(call, ada)
        await tell_notes(call, ada)
        await tell_context(call)
        await tell_insights(call)
        await tell_integrations(call)
        await tell_compounding(call)
        await tell_notifications(call)
        await tell_deletions(call, ada)
    assert set(call.told) == {route.name for route in routes.ALL}


async def tell_objects(call: Teller) -> None:
    made = await call("POST", "/v1/objects", {"name": "Deal", "slug": "deal", "name_plural": "Deals", "type": "deal"})
    assert made["id"].isdigit()
    assert (made["slug"], made["type"], made["description"]) == ("deal", "deal", "")
    assert {"person", "company", "deal"} <= {each["slug"] for each in (await call("GET", "/v1/objects"))["data"]}
    listed = await call("GET", "/v1/objects?include_attributes=true")
    assert all(each["attributes"] for each in listed["data"])
    assert (await call("PATCH", "/v1/objects/deal", {"description": "Money"}))["description"] == "Money"
    options = {"is_required": False, "select_options": [{"name": "Won"}]}
    body = {"name": "Stage", "slug": "stage", "type": "select", "options": options}
    stage = await call("POST", "/v1/objects/deal/attributes", body)
    (won,) = stage["options"]["select_options"]
    assert set(won) == {"id", "name"}
    path = f"/v1/objects/deal/attributes/{stage['id']}"
    changed = await call(
        "PATCH", path, {"name": "Phase", "options": {"select_options": [{"id": won["id"], "name": "Lost"}]}}
    )
    assert changed["name"] == "Phase"
    assert changed["options"]["select_options"] == [{"id": won["id"], "name": "Lost"}]
    assert await call("DELETE", path) is None
    shown = await call("GET", "/v1/objects/deal")
    assert "stage" not in {each["slug"] for each in shown["attributes"]}


async def tell_records(call: Teller) -> tuple[Any, Any]:
    body = {"attributes": {"name": {"first_name": "Ada", "last_name": "Park"}, "email_addresses": ["ada@x.io"]}}
    ada = await call("POST", "/v1/objects/person", body)
    assert set(ada) == _RECORD
    assert int(ada["id"]) > 2**53
    again = {"matching_attribute": "email_addresses", "attributes": {"email_addresses": ["ada@x.io"], "job_title": "CTO"}}
    same = await call("PUT", "/v1/objects/person", again)
    assert same["id"] == ada["id"]
    body = {"attributes": "all", "limit": 10, "offset": 0, "sort": {"attribute": "updated_at", "direction": "desc"}}
    page = await call("POST", "/v1/objects/person/records", body)
    assert (page["data"], page["total"], page["limit"], page["offset"]) == ([same], 1, 10, 0)
    updated = await call("PATCH", f"/v1/records/{ada['id']}", {"attributes": {"job_title": "CEO"}})
    assert updated["attributes"]["job_title"] == "CEO"
    assert await call("GET", f"/v1/records/{ada['id']}") == updated
    timeline = await call("GET", f"/v1/records/{ada['id']}/timeline?limit=2")
    assert [(each["resource_type"], each["event_type"]) for each in timeline["data"]] == [("entity", "updated")] * 2
    assert timeline["has_next_page"] is True
    rest = await call("GET", f"/v1/records/{ada['id']}/timeline?cursor={timeline['next_cursor']}")
    assert [each["event_type"] for each in rest["data"]] == ["created"]
    hits = (await call("POST", "/v1/search", {"query": "ada"}))["results"]["person"]
    assert hits[0]["id"] == ada["id"]
    assert set(hits[0]) == {"id", "primary_value", "matched_value", "score", "entity_definition_id"}
    return updated, await call("POST", "/v1/objects/company", {"attributes": {"name": "Alder", "domains": ["alder.io"]}})


async def tell_relationships(call: Teller, ada: Any, alder: Any) -> None:
    body = {
        "type": "one_to_many",
        "entity_definition_1_id": alder["object_id"],
        "entity_definition_2_id": ada["object_id"],
        "entity_1_to_2_predicate": "employs",
    }
    definition = await call("POST", "/v1/relationships", body)
    assert definition["entity_1_to_2_predicate"] == "employs"
    assert (await call("GET", "/v1/relationships"))["data"] == [definition]
    body = {"definition_id": definition["id"], "entity_1_id": alder["id"], "entity_2_id": ada["id"]}
    made = await call("POST", f"/v1/records/{ada['id']}/relationships", body)
    assert {key: made[key] for key in body} == body
    graph = await call("GET", "/v1/graph?limit=10&format=json")
    assert graph["edges"][0]["id"] == made["id"]
    assert (graph["total_nodes"], graph["total_edges"]) == (2, 1)
    assert await call("DELETE", f"/v1/records/{ada['id']}/relationships/{made['id']}") is None
    assert await call("DELETE", f"/v1/relationships/{definition['id']}") is None


async def tell_lists(call: Teller, ada: Any) -> None:
    made = await call("POST", "/v1/objects/person/lists", {"name": "VIP", "slug": "vip"})
    assert made["type"] == "list"
    assert (await call("GET", "/v1/objects/person/lists"))["data"][0]["id"] == made["id"]
    path = f"/v1/lists/{made['id']}"
    assert (await call("GET", path))["slug"] == "vip"
    member = await call("POST", path, {"parent_id": ada["id"]})
    assert member["id"] != ada["id"]
    assert member["attributes"]["job_title"] == "CEO"
    assert (await call("PUT", path, {"parent_id": ada["id"], "attributes": {}}))["id"] == member["id"]
    assert (await call("PATCH", f"{path}/records/{ada['id']}", {"attributes": {}}))["id"] == member["id"]
    page = await call("POST", f"{path}/records", {})
    assert [row["id"] for row in page["data"]] == [member["id"]]
    assert await call("DELETE", f"{path}/records/{member['id']}") is None
    assert (await call("POST", f"{path}/records", {}))["total"] == 0
    assert await call("DELETE", path) is None


async def tell_tasks(call: Teller, ada: Any) -> None:
    body = {"title": "Call", "priority": "high", "due_date": "2026-03-02T08:00:00Z", "entity_ids": [ada["id"]]}
    task = await call("POST", "/v1/tasks", body)
    assert set(task) >= _TASK
    assert {key: task[key] for key in body} == body
    page = await call("GET", f"/v1/tasks?entity_id={ada['id']}&is_completed=false&search=call&limit=5&offset=0")
    assert (page["data"], page["has_more"], page["total"]) == ([task], False, 1)
    done = await call("PATCH", f"/v1/tasks/{task['id']}", {"is_completed": True})
    assert done["is_completed"] is True
    assert done["completed_at"]
    assert await call("DELETE", f"/v1/tasks/{task['id']}") is None
    assert (await call("GET", f"/v1/tasks/{task['id']}"))["archived_at"]


async def tell_notes(call: Teller, ada: Any) -> None:
    note = await call("POST", "/v1/notes", {"title": "Met", "content": "Tea", "entity_id": ada["id"]})
    assert (await call("GET", f"/v1/notes?entity_id={ada['id']}"))["data"] == [note]
    assert (await call("PATCH", f"/v1/notes/{note['id']}", {"content": ""}))["content"] == ""
    assert await call("DELETE", f"/v1/notes/{note['id']}") is None
    assert (await call("GET", f"/v1/notes/{note['id']}"))["archived_at"]


async def tell_context(call: Teller) -> None:
    body = {"content": "Bo Stone <bo@birch.dev> is unhappy and may churn.", "context": "mail"}
    receipt = await call("POST", "/v1/context/text", body)
    assert type(receipt["artifact_id"]) is int
    artifact = await call("GET", f"/v1/context/artifacts/{receipt['artifact_id']}")
    assert artifact["status"] == "completed"
    assert artifact["operation_id"] != receipt["artifact_id"]
    assert artifact["result"]["entities_created"] == 2
    answer = await call("POST", "/v1/context/ask", {"query": "Who may churn?"})
    assert answer["answer"]
    assert type(answer["signals_used"][0]["insight_id"]) is int
    job = await call("POST", "/v1/context/list/jobs", {"query": "people at birch", "object_type": "contact", "limit": 5})
    assert set(job) == {"job_id", "status"}
    done = await call("GET", f"/v1/context/list/jobs/{job['job_id']}?include_attributes=true")
    assert done["status"] == "completed"
    assert done["count"] == len(done["entities"])


async def tell_insights(call: Teller) -> None:
    (insight,) = (await call("GET", "/v1/insights?last=1h&limit=5"))["data"]
    assert set(insight) == {"id", "workspace_id", "content", "type", "entities", "created_at"}
    window = f"from={insight['created_at']}&to={insight['created_at']}"
    assert (await call("GET", f"/v1/insights?{window}"))["data"] == [insight]
    call.told["streamInsights"] += 1
    accept = {"Accept": "text/event-stream"}
    async with call.session.get(call.url + "/v1/insights/stream", headers=accept) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert (await response.content.readuntil(b"\n\n")).startswith(b": connected workspace_id=")
        assert (await response.content.readuntil(b"\n\n")).startswith(b"event: insight.replay\ndata: {")


async def tell_integrations(call: Teller) -> None:
    listed = await call("GET", "/v1/integrations")
    assert {"type", "provider", "display_name", "description", "connections"} == set(listed[0])
    started = await call("POST", "/v1/integrations/email/google/connect")
    token = quote(started["connect_id"], safe="")
    assert await call("GET", f"/v1/integrations/connect/{token}/status") == {"status": "pending"}
    async with call.session.post(URL(started["auth_url"], encoded=True)) as response:
        assert response.status == 200
    connected = await call("GET", f"/v1/integrations/connect/{token}/status")
    assert connected["status"] == "connected"
    assert await call("DELETE", f"/v1/integrations/connections/{connected['connection_id']}") is None


async def tell_compounding(call: Teller) -> None:
    body = {"job_type": "consolidation", "dry_run": True}
    started = await call("POST", "/v1/compounding/trigger", body, status=202)
    assert type(started["workspace_id"]) is int
    job = await call("GET", f"/v1/compounding/jobs/{started['job_run_id']}")
    assert (job["status"], job["dry_run"], job["insights_scanned"]) == ("completed", True, 1)


async def tell_notifications(call: Teller) -> None:
    (item,) = (await call("GET", "/v1/notifications/feed?limit=5&since=2020-01-01T00:00:00Z"))["items"]
    assert set(item) == {"id", "type", "status", "alert_time", "sent_at", "content"}
    before = await call("GET", "/v1/notifications/preferences")
    changed = await call("PATCH", "/v1/notifications/preferences", {"frequency_minutes": 60})
    assert changed == {**before, "frequency_minutes": 60}
    rule = await call("POST", "/v1/notifications/custom", {"description": "A deal closes"})
    assert rule["prompt"] == "A deal closes"
    assert await call("GET", "/v1/notifications/custom") == {"rules": [rule]}
    assert await call("GET", f"/v1/notifications/custom/{rule['id']}") == rule
    assert await call("DELETE", f"/v1/notifications/custom/{rule['id']}") == {}


async def tell_deletions(call: Teller, ada: Any) -> None:
    assert await call("DELETE", f"/v1/records/{ada['id']}") is None
    await call("GET", f"/v1/records/{ada['id']}", status=404)
    assert await call("DELETE", "/v1/objects/deal") is None
    assert (await call("GET", "/v1/objects/deal", status=404))["code"] == 404
