"""Every operation, once: what goes over the wire and what comes back, against `routes.ALL` as the list of what there is."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from nex_async import Job, Nex, Pager
from nex_async.routes import ALL, BY_NAME

from .harness.canary import KEY
from .harness.recorder import Recorder

ID = "70000000000000017"
RECORD = {"id": ID, "object_id": "70000000000000003", "type": "person", "attributes": {"name": "Ada"}}
OBJECT = {"id": ID, "slug": "person", "type": "person", "name": "Person", "attributes": [{"id": "1", "slug": "name"}]}
TASK = {"id": ID, "title": "Call", "is_completed": False}
NOTE = {"id": ID, "title": "Met", "content": "Tea", "entity_id": "5"}
RULE = {"id": ID, "prompt": "When a deal closes", "is_enabled": True}
PREFERENCES = {"frequency_minutes": 180, "enabled_types": ["daily_digest"], "digest_enabled": True}
NOON = datetime(2026, 3, 2, 12, tzinfo=timezone(timedelta(hours=2)))


@dataclass
class Case:
    """One call: what is done, what must go out, what the server says, and what the caller must get."""

    name: str
    call: Callable[[Nex], Any]
    target: str
    body: Any
    reply: Any
    get: Callable[[Any], Any]
    want: Any


def the_id(value: Any) -> Any:
    return value.id


def ids(rows: list[Any]) -> list[Any]:
    return [row.id for row in rows]


def nothing(value: Any) -> Any:
    return value


CASES = [
    Case("createObjectDefinition", lambda n: n.objects.create("deal", "Deal", type="deal"),
         "/v1/objects", {"name": "Deal", "slug": "deal", "type": "deal"}, OBJECT, the_id, ID),
    Case("listObjects", lambda n: n.objects.list(include_attributes=True),
         "/v1/objects?include_attributes=true", None, {"data": [OBJECT]}, ids, [ID]),
    Case("getObjectDefinition", lambda n: n.objects.get("person"), "/v1/objects/person", None, OBJECT,
         lambda o: o.attribute("name").id, "1"),
    Case("updateObjectDefinition", lambda n: n.objects.update("person", description="Us"),
         "/v1/objects/person", {"description": "Us"}, OBJECT, the_id, ID),
    Case("deleteObjectDefinition", lambda n: n.objects.delete("person"), "/v1/objects/person", None, b"", nothing, None),
    Case("createAttributeDefinition",
         lambda n: n.objects.create_attribute("person", "tier", "Tier", "select", is_unique=False, select_options=["A"]),
         "/v1/objects/person/attributes",
         {"name": "Tier", "slug": "tier", "type": "select", "options": {"is_unique": False, "select_options": [{"name": "A"}]}},
         {"id": ID, "slug": "tier", "options": {"select_options": [{"id": "a", "name": "A"}]}},
         lambda a: a.options.select_options[0].id, "a"),
    Case("updateAttributeDefinition",
         lambda n: n.objects.update_attribute("person", 5, name="Level", select_options=[{"id": "a", "name": "B"}]),
         "/v1/objects/person/attributes/5", {"name": "Level", "options": {"select_options": [{"id": "a", "name": "B"}]}},
         {"id": "5", "name": "Level"}, lambda a: a.name, "Level"),
    Case("deleteAttributeDefinition", lambda n: n.objects.delete_attribute("person", "5"),
         "/v1/objects/person/attributes/5", None, b"{}", nothing, None),
    Case("createRecord", lambda n: n.records.create("person", {"name": "Ada", "age": None}),
         "/v1/objects/person", {"attributes": {"name": "Ada", "age": None}}, RECORD, lambda r: r.text("name"), "Ada"),
    Case("upsertRecord", lambda n: n.records.upsert("person", {"name": "Ada"}, match_on="name"),
         "/v1/objects/person", {"matching_attribute": "name", "attributes": {"name": "Ada"}}, RECORD, the_id, ID),
    Case("listRecords", lambda n: n.records.list("person", attributes=["name"], sort="-updated_at", limit=50),
         "/v1/objects/person/records",
         {"attributes": {"mode": "custom", "slugs": ["name"]}, "sort": {"attribute": "updated_at", "direction": "desc"},
          "limit": 50, "offset": 0},
         {"data": [RECORD], "total": 1, "limit": 50, "offset": 0}, ids, [ID]),
    Case("getRecord", lambda n: n.records.get(int(ID)), f"/v1/records/{ID}", None, RECORD, lambda r: r["name"], "Ada"),
    Case("updateRecord", lambda n: n.records.update(ID, {"job_title": "CTO"}),
         f"/v1/records/{ID}", {"attributes": {"job_title": "CTO"}}, RECORD, the_id, ID),
    Case("deleteRecord", lambda n: n.records.delete(ID), f"/v1/records/{ID}", None, b"", nothing, None),
    Case("getRecordTimeline", lambda n: n.records.timeline(ID, limit=10), f"/v1/records/{ID}/timeline?limit=10", None,
         {"data": [{"id": "9", "event_type": "created"}], "has_next_page": False, "next_cursor": ""}, ids, ["9"]),
    Case("searchRecords", lambda n: n.search("ada"), "/v1/search", {"query": "ada"},
         {"results": {"person": [{"id": ID, "primary_value": "Ada", "score": 0.9}], "deal": None},
          "errored_search_types": ["company"]},
         lambda r: (r.results["person"][0].primary_value, r.results["deal"], r.partial), ("Ada", [], True)),
    Case("createRelationshipDefinition",
         lambda n: n.relationships.create_definition("one_to_many", 1, "2", entity_1_to_2_predicate="employs"),
         "/v1/relationships",
         {"type": "one_to_many", "entity_definition_1_id": "1", "entity_definition_2_id": "2",
          "entity_1_to_2_predicate": "employs"}, {"id": ID}, the_id, ID),
    Case("listRelationshipDefinitions", lambda n: n.relationships.list_definitions(), "/v1/relationships", None,
         {"data": [{"id": ID, "type": "one_to_one"}]}, ids, [ID]),
    Case("deleteRelationshipDefinition", lambda n: n.relationships.delete_definition(ID),
         f"/v1/relationships/{ID}", None, b"null", nothing, None),
    Case("createRelationshipInstance",
         lambda n: n.relationships.create(1, definition_id=ID, entity_1_id=1, entity_2_id="2"),
         "/v1/records/1/relationships", {"definition_id": ID, "entity_1_id": "1", "entity_2_id": "2"}, {"id": "8"},
         the_id, "8"),
    Case("deleteRelationshipInstance", lambda n: n.relationships.delete("1", "8"),
         "/v1/records/1/relationships/8", None, b"", nothing, None),
    Case("createList", lambda n: n.lists.create("company", "dax", "DAX", description="40"),
         "/v1/objects/company/lists", {"name": "DAX", "slug": "dax", "description": "40"}, OBJECT | {"type": "list"},
         lambda o: o.type, "list"),
    Case("listObjectLists", lambda n: n.lists.list("company"), "/v1/objects/company/lists", None, {"data": [OBJECT]}, ids, [ID]),
    Case("getList", lambda n: n.lists.get(ID), f"/v1/lists/{ID}", None, OBJECT, the_id, ID),
    Case("deleteList", lambda n: n.lists.delete(ID), f"/v1/lists/{ID}", None, b"", nothing, None),
    Case("addListMember", lambda n: n.lists.add_member(ID, 5), f"/v1/lists/{ID}", {"parent_id": "5"}, RECORD, the_id, ID),
    Case("upsertListMember", lambda n: n.lists.upsert_member(ID, 5, {"rank": 1}), f"/v1/lists/{ID}",
         {"parent_id": "5", "attributes": {"rank": 1}}, RECORD, the_id, ID),
    Case("getListRecords", lambda n: n.lists.records(ID, attributes="none"), f"/v1/lists/{ID}/records",
         {"attributes": "none", "offset": 0}, {"data": [{"id": "3"}], "total": 1}, ids, ["3"]),
    Case("updateListRecord", lambda n: n.lists.update_member(ID, "3", {"rank": 2}), f"/v1/lists/{ID}/records/3",
         {"attributes": {"rank": 2}}, RECORD, the_id, ID),
    Case("removeRecordFromList", lambda n: n.lists.remove_member(ID, 3), f"/v1/lists/{ID}/records/3", None, b"", nothing, None),
    Case("createTask",
         lambda n: n.tasks.create("Call", priority="high", due_date=NOON, entity_ids=[1, "2"]),
         "/v1/tasks", {"title": "Call", "priority": "high", "due_date": "2026-03-02T10:00:00Z", "entity_ids": ["1", "2"]},
         TASK, the_id, ID),
    Case("listTasks", lambda n: n.tasks.list(entity_id=1, search="a b&c", is_completed=False, limit=500),
         "/v1/tasks?entity_id=1&search=a%20b%26c&is_completed=false&limit=500", None,
         {"data": [TASK], "has_more": False, "total": 1}, ids, [ID]),
    Case("getTask", lambda n: n.tasks.get(ID), f"/v1/tasks/{ID}", None, TASK, lambda t: (t.title, t.is_completed), ("Call", False)),
    Case("updateTask", lambda n: n.tasks.update(ID, description="", due_date=None, is_completed=True),
         f"/v1/tasks/{ID}", {"description": "", "due_date": None, "is_completed": True}, TASK, the_id, ID),
    Case("deleteTask", lambda n: n.tasks.delete(ID), f"/v1/tasks/{ID}", None, b"", nothing, None),
    Case("createNote", lambda n: n.notes.create("Met", content="Tea", entity_id=5), "/v1/notes",
         {"title": "Met", "content": "Tea", "entity_id": "5"}, NOTE, lambda x: x.content, "Tea"),
    Case("listNotes", lambda n: n.notes.list(entity_id="5"), "/v1/notes?entity_id=5", None, {"data": [NOTE]}, ids, [ID]),
    Case("getNote", lambda n: n.notes.get(ID), f"/v1/notes/{ID}", None, NOTE, the_id, ID),
    Case("updateNote", lambda n: n.notes.update(ID, title="Met again"), f"/v1/notes/{ID}", {"title": "Met again"}, NOTE, the_id, ID),
    Case("deleteNote", lambda n: n.notes.delete(ID), f"/v1/notes/{ID}", None, b"", nothing, None),
    Case("getInsights", lambda n: n.insights.list(last=timedelta(days=1, minutes=5), limit=100),
         "/v1/insights?last=24h5m&limit=100", None, {"data": [{"id": "4", "content": "x"}]}, ids, ["4"]),
    Case("addContext", lambda n: n.context.add_text("Marcus asked", context="LinkedIn"), "/v1/context/text",
         {"content": "Marcus asked", "context": "LinkedIn"}, {"artifact_id": 70000000000000021}, the_id, "70000000000000021"),
    Case("getArtifact", lambda n: n.context.get_artifact(7), "/v1/context/artifacts/7", None,
         {"status": "completed", "operation_id": 70000000000000023, "result": {"entities_created": 2}},
         lambda a: (a.operation_id, a.result.entities_created), ("70000000000000023", 2)),
    Case("queryContext", lambda n: n.context.ask("Who?", session_id="s1"), "/v1/context/ask",
         {"query": "Who?", "session_id": "s1"},
         {"answer": "Ada", "entities_considered": [{"id": 70000000000000025, "name": "Ada"}]},
         lambda a: (a.answer, a.entities[0].id), ("Ada", "70000000000000025")),
    Case("createAIListJob", lambda n: n.ai_lists.create("tech", object_type="person", limit=10), "/v1/context/list/jobs",
         {"query": "tech", "object_type": "contact", "limit": 10}, {"message": {"job_id": "j1", "status": "pending"}}, the_id, "j1"),
    Case("getAIListJob", lambda n: n.ai_lists.get("j1", include_attributes=True),
         "/v1/context/list/jobs/j1?include_attributes=true", None,
         {"message": {"job_id": "j1", "status": "completed", "entities": [{"id": "5", "highlights": None}], "count": 1}},
         lambda j: (j.status, j.entities[0].highlights), ("completed", [])),
    Case("getGraph", lambda n: n.graph.get(limit=5000), "/v1/graph?limit=5000", None,
         {"nodes": [{"id": "ghost:1"}], "edges": None, "total_nodes": 7}, lambda g: (g.nodes[0].id, g.edges, g.total_nodes),
         ("ghost:1", [], 7)),
    Case("listIntegrations", lambda n: n.integrations.list(), "/v1/integrations", None,
         [{"type": "email", "provider": "google", "connections": None},
          {"type": "crm", "provider": "new", "connections": [{"id": 70000000000000027}]}],
         lambda rows: [[c.id for c in row.connections] for row in rows], [[], ["70000000000000027"]]),
    Case("startIntegrationConnect", lambda n: n.integrations.connect("email", "google"),
         "/v1/integrations/email/google/connect", None, {"auth_url": "https://x.example", "connect_id": "eyJ"},
         lambda c: c.connect_id, "eyJ"),
    Case("getConnectStatus", lambda n: n.integrations.connect_status("eyJ+/a="),
         "/v1/integrations/connect/eyJ%2B%2Fa%3D/status", None, {"status": "connected", "connection_id": 70000000000000029},
         lambda c: c.connection_id, "70000000000000029"),
    Case("disconnectIntegration", lambda n: n.integrations.disconnect(70000000000000029),
         "/v1/integrations/connections/70000000000000029", None, b"", nothing, None),
    Case("triggerCompoundingJob", lambda n: n.compounding.trigger("decay_sweep", dry_run=True), "/v1/compounding/trigger",
         {"job_type": "decay_sweep", "dry_run": True}, {"job_run_id": "0b9e-4", "workspace_id": 7, "success": True},
         the_id, "0b9e-4"),
    Case("getCompoundingJobStatus", lambda n: n.compounding.get("0b9e-4"), "/v1/compounding/jobs/0b9e-4", None,
         {"job_run_id": "0b9e-4", "status": "running", "workspace_id": 70000000000000011},
         lambda j: j.workspace_id, "70000000000000011"),
    Case("getNotificationFeed", lambda n: n.notifications.feed(since=NOON, limit=50),
         "/v1/notifications/feed?since=2026-03-02T10:00:00Z&limit=50", None, {"items": [{"id": "6", "content": {}}]}, ids, ["6"]),
    Case("getNotificationPreferences", lambda n: n.notifications.preferences(), "/v1/notifications/preferences", None,
         PREFERENCES, lambda p: p.frequency_minutes, 180),
    Case("updateNotificationPreferences", lambda n: n.notifications.update_preferences(digest_enabled=False),
         "/v1/notifications/preferences", {"digest_enabled": False}, PREFERENCES, lambda p: p.enabled_types, ["daily_digest"]),
    Case("listCustomNotificationRules", lambda n: n.notifications.list_rules(), "/v1/notifications/custom", None,
         {"rules": [RULE]}, ids, [ID]),
    Case("createCustomNotificationRule", lambda n: n.notifications.create_rule("When a deal closes"),
         "/v1/notifications/custom", {"description": "When a deal closes"}, RULE, lambda r: r.prompt, "When a deal closes"),
    Case("getCustomNotificationRule", lambda n: n.notifications.get_rule(ID), f"/v1/notifications/custom/{ID}", None, RULE,
         the_id, ID),
    Case("deleteCustomNotificationRule", lambda n: n.notifications.delete_rule(ID), f"/v1/notifications/custom/{ID}", None,
         {"deleted": True}, nothing, None),
]  # fmt: skip

STREAM = "streamInsights"


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    async with Recorder() as server:
        yield server


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[Nex]:
    async with Nex(KEY, base_url=recorder.url) as nex:
        yield nex


async def perform(call: Any) -> Any:
    """Return what a method gives: the rows of a pager, the value of a coroutine."""
    if isinstance(call, Pager):
        return await call.collect()
    assert inspect.isawaitable(call)
    awaited: Awaitable[Any] = call
    return await awaited


def test_there_are_61_operations() -> None:
    """The contract has 61 operations, each with one name and one place."""
    assert len(ALL) == len(BY_NAME) == 61
    assert len({(route.method, route.path) for route in ALL}) == 61
    assert sum(route.extended for route in ALL) == 14


def test_every_operation_has_a_case() -> None:
    """No operation is left out of this file."""
    assert sorted([case.name for case in CASES] + [STREAM]) == sorted(BY_NAME)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_operation(case: Case, recorder: Recorder, client: Nex) -> None:
    """A method sends its operation's method, path, query and body, and decodes its reply."""
    route = BY_NAME[case.name]
    recorder.status = route.status
    recorder.body = case.reply if isinstance(case.reply, bytes) else json.dumps(case.reply).encode()
    result = await perform(case.call(client))
    (seen,) = recorder.seen
    assert (seen.method, seen.target) == (route.method, "/api/developers" + case.target)
    assert seen.body == case.body
    assert seen.headers["Authorization"] == f"Bearer {KEY}"
    assert ("Content-Type" in seen.headers) == (case.body is not None)
    assert case.get(result) == case.want


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_path_belongs_to_its_route(case: Case) -> None:
    """The path a case expects is its route's template with every parameter filled."""
    template = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(BY_NAME[case.name].path))
    assert re.fullmatch(template, case.target.partition("?")[0])


async def test_stream_operation(recorder: Recorder, client: Nex) -> None:
    """The stream asks for events, tells replay from live, and passes over what it does not know."""
    recorder.content_type = "text/event-stream"
    recorder.body = (
        b": connected workspace_id=7 token_id=9\n\n"
        b'event: insight.replay\ndata: {"insights":[{"type":"risk","content":"Owner left"}]}\n\n'
        b": keepalive\n\nevent: news\ndata: {}\n\nevent: insight.batch.created\ndata: not json\n\n"
        b'event: insight.batch.created\ndata: {"workspace":{"slug":"alder"},"insights":[{"content":"a"},{"content":"b"}]}\n\n'
    )
    async with client.insights.stream() as feed:
        events = [await feed.__anext__() for _ in range(3)]
    seen = recorder.seen[0]
    assert (seen.method, seen.target) == ("GET", "/api/developers/v1/insights/stream")
    assert seen.headers["Accept"] == "text/event-stream"
    assert [(event.source, event.insight.content) for event in events] == [
        ("replay", "Owner left"), ("live", "a"), ("live", "b"),
    ]  # fmt: skip
    assert (feed.stats.undecodable, feed.stats.unknown) == (1, 1)


async def test_raw_request(recorder: Recorder, client: Nex) -> None:
    """The way out sends any method, path, query and body, and returns plain JSON."""
    recorder.body = b'{"data": [1, 2]}'
    found = await client.request("POST", "/v1/playbooks/compile", query={"deep": True, "x": None}, body={"context_id": 5})
    (seen,) = recorder.seen
    assert (seen.method, seen.target, seen.body) == (
        "POST", "/api/developers/v1/playbooks/compile?deep=true", {"context_id": 5},
    )  # fmt: skip
    assert found == {"data": [1, 2]}


async def test_html_graph(recorder: Recorder, client: Nex) -> None:
    """The graph can be had as a page."""
    recorder.body, recorder.content_type = b"<html>graph</html>", "text/html"
    assert await client.graph.html() == "<html>graph</html>"
    assert recorder.seen[0].target.endswith("/v1/graph?format=html")


async def test_job_watch_ends_with_its_job(recorder: Recorder, client: Nex) -> None:
    """Watching a job yields its final state, and awaiting it afterwards asks no more."""
    recorder.body = b'{"artifact_id": 5}'
    job = await client.context.add_text("x")
    assert isinstance(job, Job)
    recorder.body = b'{"status": "completed", "result": {"insights_created": 3}}'
    states = [state.status async for state in job.watch(interval=0.01)]
    asked = len(recorder.seen)
    assert (await job).result is not None
    assert (states, len(recorder.seen)) == (["completed"], asked)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda n: n.tasks.get(""), "task_id"),
        (lambda n: n.tasks.get("  "), "task_id"),
        (lambda n: n.tasks.get(".."), "task_id"),
        (lambda n: n.tasks.get("a\nb"), "task_id"),
        (lambda n: n.tasks.get(None), "task_id"),
        (lambda n: n.tasks.get(1.5), "task_id"),
        (lambda n: n.tasks.get(True), "task_id"),
        (lambda n: n.records.create("../person", {"name": "x"}), "slug"),
        (lambda n: n.records.create("person", "name"), "attributes"),
        (lambda n: n.records.create("person", {"score": float("nan")}), "body.attributes.score"),
        (lambda n: n.records.create("person", {"scores": [1.0, float("inf")], "x": None}), "body.attributes.scores[1]"),
        (lambda n: n.records.create("person", {"x": object()}), "body"),
        (lambda n: n.records.upsert("person", {"name": "x"}, match_on=" "), "match_on"),
        (lambda n: n.records.list("person", limit=0), "limit"),
        (lambda n: n.records.list("person", limit=True), "limit"),
        (lambda n: n.records.list("person", attributes=[]), "attributes"),
        (lambda n: n.records.list("person", attributes="some"), "attributes"),
        (lambda n: n.records.list("person", sort="-"), "sort"),
        (lambda n: n.records.list("person", resume="listTasks|5"), "resume"),
        (lambda n: n.records.timeline("5", limit=101), "limit"),
        (lambda n: n.objects.create_attribute("person", "x", "X", "colour"), "type"),
        (lambda n: n.objects.create_attribute("person", "x", "X", "select", select_options="abc"), "select_options"),
        (lambda n: n.objects.create("x", ""), "name"),
        (lambda n: n.relationships.create_definition("many", 1, 2), "type"),
        (lambda n: n.relationships.create(1, definition_id="", entity_1_id=1, entity_2_id=2), "definition_id"),
        (lambda n: n.lists.add_member("5", None), "parent_id"),
        (lambda n: n.tasks.create(" "), "title"),
        (lambda n: n.tasks.create("x", priority="now"), "priority"),
        (lambda n: n.tasks.create("x", due_date=datetime(2026, 1, 1)), "due_date"),
        (lambda n: n.tasks.create("x", entity_ids="123"), "entity_ids"),
        (lambda n: n.tasks.list(limit=501), "limit"),
        (lambda n: n.search("x" * 501), "query"),
        (lambda n: n.search(""), "query"),
        (lambda n: n.insights.list(last="7d"), "last"),
        (lambda n: n.insights.list(last="1h", start=NOON, end=NOON), "last"),
        (lambda n: n.insights.list(start=NOON), "end"),
        (lambda n: n.insights.list(limit=101), "limit"),
        (lambda n: n.context.ask(""), "query"),
        (lambda n: n.ai_lists.create("x", object_type="dog"), "object_type"),
        (lambda n: n.compounding.trigger("everything"), "job_type"),
        (lambda n: n.graph.get(limit=5001), "limit"),
        (lambda n: n.tasks.get("5", retrys=1), "retrys"),
        (lambda n: n.tasks.get("5", headers={"Authorization": "x"}), "headers"),
        (lambda n: n.tasks.get("5", headers={"X-A": "a\r\nb"}), "headers"),
        (lambda n: n.request("GET", "/v2/x"), "path"),
        (lambda n: n.request("GET", "/v1/a/../b"), "path"),
        (lambda n: n.request("TRACE", "/v1/a"), "method"),
    ],
)  # fmt: skip
async def test_bad_input_is_refused_before_anything_is_sent(
    call: Callable[[Nex], Any], argument: str, recorder: Recorder, client: Nex
) -> None:
    """An argument that cannot be right raises an error that names it, and nothing goes over the wire."""
    with pytest.raises(ValueError) as caught:
        await perform(call(client))
    assert getattr(caught.value, "argument", None) == argument
    assert recorder.seen == []
