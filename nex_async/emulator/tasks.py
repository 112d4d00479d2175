"""Tasks: archived rather than deleted, hidden from listings then, still readable by id."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from nex_async.emulator import bodies
from nex_async.emulator.attributes import check_name
from nex_async.emulator.call import Call, bad_request, not_found
from nex_async.emulator.ids import parse_id
from nex_async.emulator.rows import Change, find_row
from nex_async.emulator.store import Row, Store, to_json
from nex_async.emulator.timeline import field_changes, write_event
from nex_async.emulator.timestamps import format_moment, parse_moment

__all__ = ["create_task", "delete_task", "get_task", "list_tasks", "record_ids", "update_task"]

_PRIORITIES = ("unspecified", "low", "medium", "high", "urgent")
_FIELDS = "id, title, description, priority, due_date, completed_at, assignee_ids, created_at, archived_at"


class Task(msgspec.Struct):
    """A task as stored, with the records it hangs on."""

    id: int
    title: str
    description: str
    priority: str
    due_date: int | None
    completed_at: int | None
    assignee_ids: list[str]
    created_at: int
    archived_at: int | None
    entity_ids: list[int]


def create_task(store: Store, call: Call) -> str:
    """`POST /v1/tasks`."""
    body = call.decode(bodies.CreateTask)
    task = Task(store.new_id(), "", "", "unspecified", None, None, [], store.now(), None, [])
    _apply(store, task, body)
    _store(store, task)
    _write_events(store, task, "created", [])
    return to_json(_render(store, task))


def list_tasks(store: Store, call: Call) -> str:
    """`GET /v1/tasks`: newest first."""
    limit = call.number("limit", default=100, low=1, high=500)
    offset = call.number("offset", default=0, low=0, high=2**62)
    where, values = _filters(call)
    total = store.count(f"SELECT count(*) FROM tasks WHERE {where}", *values)
    rows = store.rows(f"SELECT {_FIELDS} FROM tasks WHERE {where} ORDER BY id DESC LIMIT ? OFFSET ?", *values, limit, offset)
    following = offset + len(rows)
    more = bool(rows) and following < total
    data = [_render(store, _task(store, row)) for row in rows]
    return to_json({"data": data, "has_more": more, "total": total, "next_offset": following if more else 0})


def _filters(call: Call) -> tuple[str, list[Any]]:
    clauses, values = ["archived_at IS NULL"], list[Any]()
    if entity := call.query.get("entity_id"):
        clauses.append("id IN (SELECT task_id FROM task_records WHERE record_id = ?)")
        values.append(parse_id(entity))
    if assignee := call.query.get("assignee_id"):
        clauses.append("EXISTS (SELECT 1 FROM json_each(assignee_ids) WHERE json_each.value = ?)")
        values.append(assignee)
    if text := call.query.get("search"):
        clauses.append("instr(lower(title), lower(?)) > 0")
        values.append(text)
    completed = call.flag("is_completed")
    if completed is not None:
        clauses.append("(completed_at IS NOT NULL) = ?")
        values.append(completed)
    return " AND ".join(clauses), values


def get_task(store: Store, call: Call) -> str:
    """`GET /v1/tasks/{task_id}`."""
    return to_json(_render(store, _find(store, call)))


def update_task(store: Store, call: Call) -> str:
    """`PATCH /v1/tasks/{task_id}`: id arrays replace the whole set; null or "" clears."""
    body = call.decode(bodies.UpdateTask)
    task = _find(store, call)
    before, left = _render(store, task), task.entity_ids
    _apply(store, task, body)
    if isinstance(body.is_completed, bool) and body.is_completed != (task.completed_at is not None):
        task.completed_at = store.now() if body.is_completed else None
    after = _render(store, task)
    changes = [(field, before[field], value) for field, value in after.items() if before[field] != value]
    if changes:
        _store(store, task)
        _write_events(store, task, "updated", changes, left)
    return to_json(after)


def delete_task(store: Store, call: Call) -> str:
    """`DELETE /v1/tasks/{task_id}`: archives it; once more changes nothing."""
    task = _find(store, call)
    if task.archived_at is None:
        task.archived_at = store.now()
        _store(store, task)
        _write_events(store, task, "archived", [])
    return ""


def _apply(store: Store, task: Task, body: bodies.CreateTask | bodies.UpdateTask) -> None:
    if isinstance(body.title, str):
        check_name("title", body.title)
        task.title = body.title
    if body.description is not UNSET:
        task.description = body.description or ""
    if body.priority is not UNSET:
        task.priority = _priority(body.priority)
    if body.due_date is not UNSET:
        task.due_date = _due_date(body.due_date)
    if body.entity_ids is not UNSET:
        task.entity_ids = record_ids(store, "entity_ids", body.entity_ids or [])
    if body.assignee_ids is not UNSET:
        task.assignee_ids = list(dict.fromkeys(body.assignee_ids or []))


def _priority(text: str | None) -> str:
    if text and text not in _PRIORITIES:
        raise bad_request(f"priority must be one of {', '.join(_PRIORITIES)}")
    return text or "unspecified"


def _due_date(text: str | None) -> int | None:
    try:
        return parse_moment(text) if text else None
    except ValueError as error:
        raise bad_request(f"due_date: {error}") from None


def record_ids(store: Store, field: str, texts: list[str]) -> list[int]:
    """Return the ids of existing records, each once, or refuse the first that is none."""
    numbers: dict[int, None] = {}
    for text in texts:
        number = parse_id(text)
        row = None if number is None else find_row(store, number)
        if row is None or row.parent_id is not None:
            raise bad_request(f"{field}: no record has the id {text[:100]!r}")
        numbers[row.id] = None
    return list(numbers)


def _find(store: Store, call: Call) -> Task:
    row = store.row(f"SELECT {_FIELDS} FROM tasks WHERE id = ?", call.id("task_id", "task"))
    if row is None:
        raise not_found("task", call.path["task_id"])
    return _task(store, row)


def _task(store: Store, row: Row) -> Task:
    found = store.rows("SELECT record_id FROM task_records WHERE task_id = ? ORDER BY position", row[0])
    number, title, description, priority, due, completed, assignees, created, archived = row
    entities = [record_id for (record_id,) in found]
    assignee_ids = msgspec.json.decode(assignees, type=list[str])
    return Task(number, title, description, priority, due, completed, assignee_ids, created, archived, entities)


def _store(store: Store, task: Task) -> None:
    store.write(
        f"INSERT OR REPLACE INTO tasks ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(task.id, task.title, task.description, task.priority, task.due_date, task.completed_at),
        *(to_json(task.assignee_ids), task.created_at, task.archived_at),
    )
    store.write("DELETE FROM task_records WHERE task_id = ?", task.id)
    for position, number in enumerate(task.entity_ids):
        store.write("INSERT INTO task_records VALUES (?, ?, ?)", task.id, position, number)


def _moment(moment: int | None) -> str | None:
    return None if moment is None else format_moment(moment)


def _render(store: Store, task: Task) -> dict[str, Any]:
    return {
        "id": str(task.id),
        "title": task.title,
        "description": task.description,
        "priority": task.priority,
        "due_date": _moment(task.due_date),
        "is_completed": task.completed_at is not None,
        "completed_at": _moment(task.completed_at),
        "assignee_ids": task.assignee_ids,
        "entity_ids": [str(number) for number in task.entity_ids],
        "created_by": "developer_api",
        "created_by_id": store.token_id,
        "created_at": format_moment(task.created_at),
        "archived_at": _moment(task.archived_at),
    }


def _write_events(
    store: Store, task: Task, event: str, changes: list[Change], left: list[int] | tuple[int, ...] = ()
) -> None:
    """Tell every record the task hangs on, and those it has `left`."""
    payload: dict[str, Any] = {
        "task": {
            "id": str(task.id),
            "title": task.title,
            "due_date": _moment(task.due_date),
            "priority": task.priority,
            "completed_at": _moment(task.completed_at),
        }
    }
    if changes:
        payload["field_changes"] = field_changes(changes)
    for record_id in dict.fromkeys((*task.entity_ids, *left)):
        write_event(store, record_id, "task", task.id, event, payload)
