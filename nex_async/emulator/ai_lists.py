"""AI lists: records that fit a plain-language query, by its keywords. Found at once, handed out by the clock."""

from __future__ import annotations

from typing import Any

import msgspec

from nex_async.emulator import bodies
from nex_async.emulator.ask import keywords
from nex_async.emulator.call import Call, bad_request, not_found
from nex_async.emulator.context import progress
from nex_async.emulator.ids import parse_id
from nex_async.emulator.rows import StoredRow, find_row
from nex_async.emulator.schema import ObjectDefinition
from nex_async.emulator.search import find_records, words_of
from nex_async.emulator.store import Store, to_json
from nex_async.emulator.timestamps import format_moment
from nex_async.emulator.values import texts_of

__all__ = ["create_job", "get_job"]

_PREFIX = "job"
"""Job ids are opaque; letters in them keep clients from treating them as numbers."""
_OBJECT_OF = {"contact": "person", "company": "company"}
_MOST_HIGHLIGHTS = 3


def create_job(store: Store, call: Call) -> str:
    """`POST /v1/context/list/jobs`."""
    body = call.decode(bodies.CreateAIListJob)
    kind = body.object_type or "contact"
    limit = 50 if body.limit is None else body.limit
    if not body.query.strip():
        raise bad_request("query must not be empty")
    if kind not in _OBJECT_OF:
        raise bad_request("object_type must be contact or company")
    if not 1 <= limit <= 100:
        raise bad_request("limit must be between 1 and 100")
    number = store.new_id()
    result = to_json(_search(store, body.query, kind, limit))
    store.write("INSERT INTO ai_list_jobs VALUES (?, ?, ?, ?)", number, result, body.include_attributes is True, store.now())
    return to_json({"job_id": f"{_PREFIX}{number}", "status": "pending"})


def get_job(store: Store, call: Call) -> str:
    """`GET /v1/context/list/jobs/{job_id}`: entities and count come with `completed`."""
    name = call.path["job_id"]
    number = parse_id(name.removeprefix(_PREFIX))
    row = store.row("SELECT result, include_attributes, created_at FROM ai_list_jobs WHERE id = ?", number)
    if row is None or not name.startswith(_PREFIX):
        raise not_found("job", name)
    result, detailed, created = msgspec.json.decode(row[0]), call.flag("include_attributes"), row[2]
    job: dict[str, Any] = {"job_id": name, "status": progress(store, created), "created_at": format_moment(created)}
    if job["status"] == "completed":
        if row[1] if detailed is None else detailed:
            _add_attributes(store, result["entities"])
        job.update(result)
    return to_json(job)


def _search(store: Store, query: str, kind: str, limit: int) -> dict[str, Any]:
    words = keywords(query)
    definition = store.schema.first_of_type(_OBJECT_OF[kind])
    rows = [] if definition is None else _matches(store, definition, words, limit)
    entities = [] if definition is None else [_entity(definition, row, kind, words) for row in rows]
    wanted = f"with any of: {', '.join(words)}" if words else "without further conditions"
    return {"entities": entities, "count": len(entities), "query_interpretation": f"every {kind} {wanted}"}


def _matches(store: Store, definition: ObjectDefinition, words: list[str], limit: int) -> list[StoredRow]:
    if words:
        return find_records(store, words, limit=limit, object_id=definition.id)
    found = store.rows("SELECT id FROM records WHERE object_id = ? ORDER BY id DESC LIMIT ?", definition.id, limit)
    rows = (find_row(store, number) for (number,) in found)
    return [row for row in rows if row is not None]


def _entity(definition: ObjectDefinition, row: StoredRow, kind: str, words: list[str]) -> dict[str, Any]:
    hits = [
        (attribute.slug, text)
        for attribute, text in texts_of(definition, row.values())
        if any(other.startswith(word) for word in words for other in words_of(text))
    ]
    return {
        "id": str(row.id),
        "name": row.name,
        "type": kind,
        "reason": "; ".join(f"{slug}: {text}" for slug, text in hits) or f"is a {kind}",
        "highlights": [text for _, text in hits[:_MOST_HIGHLIGHTS]],
    }


def _add_attributes(store: Store, entities: list[dict[str, Any]]) -> None:
    for entity in entities:
        row = find_row(store, int(entity["id"]))
        entity["attributes"] = {} if row is None else row.values()
