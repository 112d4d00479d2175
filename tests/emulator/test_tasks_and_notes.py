"""Tasks and notes: fields, filters, paging, soft deletes."""

from __future__ import annotations

from typing import Any

from .conftest import Api, Clock


async def _task(api: Api, title: str = "Call", **fields: Any) -> Any:
    return await api("POST", "/v1/tasks", {"title": title, **fields})


async def test_a_task_reads_as_it_was_written(api: Api) -> None:
    """A task keeps its fields; its due date comes back in UTC."""
    ada = await api.record()
    made = await _task(
        api,
        description="About the demo",
        priority="high",
        due_date="2026-10-01T09:00:00.5+02:00",
        entity_ids=[ada["id"], ada["id"]],
        assignee_ids=["u1", "u2"],
    )
    assert made == await api("GET", f"/v1/tasks/{made['id']}")
    assert made["due_date"] == "2026-10-01T07:00:00Z"
    assert made["entity_ids"] == [ada["id"]]
    assert made["assignee_ids"] == ["u1", "u2"]
    assert (made["is_completed"], made["completed_at"], made["archived_at"]) == (False, None, None)
    assert made["created_by"] == "developer_api"
    assert (await _task(api))["priority"] == "unspecified"


async def test_tasks_that_cannot_be(api: Api) -> None:
    """An empty title, an unknown priority, a bad date and unknown records are refused by name."""
    made = await _task(api)
    for body, field in (
        ({"title": " "}, "title"),
        ({"title": "x", "priority": "asap"}, "priority"),
        ({"title": "x", "due_date": "tomorrow"}, "due_date"),
        ({"title": "x", "entity_ids": ["17"]}, "entity_ids"),
    ):
        await api.refused("POST", "/v1/tasks", body, field)
        await api.refused("PATCH", f"/v1/tasks/{made['id']}", body, field)
    await api("GET", "/v1/tasks/none", status=404)
    await api("PATCH", "/v1/tasks/17", {}, status=404)
    await api("DELETE", "/v1/tasks/17", status=404)


async def test_updating_a_task(api: Api, clock: Clock) -> None:
    """Only what is sent changes; id arrays replace, "" clears, and completing sets and clears its time."""
    ada, bo = await api.record(), await api.record(name="Bo")
    made = await _task(api, description="x", priority="low", due_date="2026-10-01T09:00:00Z", entity_ids=[ada["id"]])
    path = f"/v1/tasks/{made['id']}"
    assert await api("PATCH", path, {}) == made
    changed = await api("PATCH", path, {"description": "", "priority": "", "due_date": None, "entity_ids": [bo["id"]]})
    assert (changed["description"], changed["priority"], changed["due_date"]) == ("", "unspecified", None)
    assert changed["entity_ids"] == [bo["id"]]
    clock.now += 60
    done = await api("PATCH", path, {"is_completed": True})
    assert done["is_completed"] is True
    assert done["completed_at"] > made["created_at"]
    clock.now += 60
    assert (await api("PATCH", path, {"is_completed": True}))["completed_at"] == done["completed_at"]
    assert (await api("PATCH", path, {"is_completed": False}))["completed_at"] is None


async def test_finding_tasks(api: Api) -> None:
    """Tasks are filtered by record, assignee, title and completion, also together; unknown parameters are ignored."""
    ada = await api.record()
    first = await _task(api, "Call Ada", entity_ids=[ada["id"]], assignee_ids=["u1"])
    second = await _task(api, "Write Bo", assignee_ids=["u1", "u2"])
    await api("PATCH", f"/v1/tasks/{second['id']}", {"is_completed": True})

    async def found(query: str) -> list[str]:
        return [each["title"] for each in (await api("GET", "/v1/tasks?" + query))["data"]]

    assert await found("") == ["Write Bo", "Call Ada"]
    assert await found(f"entity_id={ada['id']}") == ["Call Ada"]
    assert await found("entity_id=nobody") == []
    assert await found("assignee_id=u1") == ["Write Bo", "Call Ada"]
    assert await found("assignee_id=u2") == ["Write Bo"]
    assert await found("search=CALL%20a") == ["Call Ada"]
    assert await found("search=%25") == []
    assert await found("is_completed=true") == ["Write Bo"]
    assert await found("is_completed=false&assignee_id=u1") == ["Call Ada"]
    assert await found("is_complete=true") == ["Write Bo", "Call Ada"]
    await api("DELETE", f"/v1/records/{ada['id']}")
    assert (await api("GET", f"/v1/tasks/{first['id']}"))["entity_ids"] == []


async def test_paging_tasks(api: Api) -> None:
    """Pages say whether there is more and where it begins; limits are checked."""
    for number in range(5):
        await _task(api, str(number))
    seen, offset, more = [], 0, True
    while more:
        page = await api("GET", f"/v1/tasks?limit=2&offset={offset}")
        assert page["total"] == 5
        seen += [each["title"] for each in page["data"]]
        more, offset = page["has_more"], page["next_offset"]
    assert seen == ["4", "3", "2", "1", "0"]
    beyond = await api("GET", "/v1/tasks?offset=9")
    assert (beyond["data"], beyond["has_more"]) == ([], False)
    for query in ("limit=0", "limit=501", "limit=ten", "offset=-1", "limit=1e2", "is_completed=maybe", "limit=%D9%A3"):
        await api.refused("GET", "/v1/tasks?" + query, None, query.partition("=")[0])


async def test_archived_tasks_are_hidden_but_readable(api: Api) -> None:
    """A deleted task leaves the listing, can still be read, and deleting it again changes nothing."""
    made = await _task(api)
    path = f"/v1/tasks/{made['id']}"
    assert await api("DELETE", path) is None
    assert await api("DELETE", path) is None
    assert (await api("GET", "/v1/tasks"))["total"] == 0
    assert (await api("GET", path))["archived_at"] is not None


async def test_the_life_of_a_note(api: Api) -> None:
    """A note is written, moved, cleared and archived like a task."""
    ada = await api.record()
    made = await api("POST", "/v1/notes", {"title": "Call", "content": "Went well", "entity_id": ada["id"]})
    path = f"/v1/notes/{made['id']}"
    assert made == await api("GET", path)
    assert await api("PATCH", path, {"title": "Call"}) == made
    changed = await api("PATCH", path, {"content": "", "entity_id": ""})
    assert (changed["title"], changed["content"], changed["entity_id"]) == ("Call", "", "")
    for body, field in (({"title": ""}, "title"), ({"title": "x", "entity_id": "17"}, "entity_id")):
        await api.refused("POST", "/v1/notes", body, field)
        await api.refused("PATCH", path, body, field)
    assert await api("DELETE", path) is None
    assert await api("DELETE", path) is None
    assert (await api("GET", "/v1/notes"))["data"] == []
    assert (await api("GET", path))["archived_at"] is not None
    await api("GET", "/v1/notes/17", status=404)


async def test_notes_end_silently_at_two_hundred(api: Api) -> None:
    """A listing holds the newest 200 notes, of one record if asked."""
    ada = await api.record()
    await api("POST", "/v1/notes", {"title": "of Ada", "entity_id": ada["id"]})
    for number in range(200):
        await api("POST", "/v1/notes", {"title": str(number)})
    rows = (await api("GET", "/v1/notes"))["data"]
    assert len(rows) == 200
    assert (rows[0]["title"], rows[-1]["title"]) == ("199", "0")
    of_ada = (await api("GET", f"/v1/notes?entity_id={ada['id']}"))["data"]
    assert [each["title"] for each in of_ada] == ["of Ada"]
    assert (await api("GET", "/v1/notes?entity_id=x"))["data"] == []
