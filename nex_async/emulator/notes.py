"""Notes: at most one record each; archived like tasks; listings silently end at 200."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from nex_async.emulator import bodies
from nex_async.emulator.attributes import check_name
from nex_async.emulator.call import Call, not_found
from nex_async.emulator.ids import parse_id
from nex_async.emulator.rows import Change
from nex_async.emulator.store import Store, to_json
from nex_async.emulator.tasks import record_ids
from nex_async.emulator.timeline import field_changes, write_event
from nex_async.emulator.timestamps import format_moment

__all__ = ["create_note", "delete_note", "get_note", "list_notes", "update_note"]

_MOST_ROWS = 200
_FIELDS = "id, title, content, record_id, created_at, archived_at"


class Note(msgspec.Struct):
    """A note as stored."""

    id: int
    title: str
    content: str
    record_id: int | None
    created_at: int
    archived_at: int | None


def create_note(store: Store, call: Call) -> str:
    """`POST /v1/notes`."""
    body = call.decode(bodies.CreateNote)
    note = Note(store.new_id(), "", "", None, store.now(), None)
    _apply(store, note, body)
    _store(store, note)
    _write_event(store, note, "created", [])
    return to_json(_render(note))


def list_notes(store: Store, call: Call) -> str:
    """`GET /v1/notes`: the newest 200, of one record if asked."""
    entity = call.query.get("entity_id")
    rows = store.rows(
        f"SELECT {_FIELDS} FROM notes WHERE archived_at IS NULL AND (? OR record_id = ?) ORDER BY id DESC LIMIT ?",
        *(not entity, parse_id(entity) if entity else None, _MOST_ROWS),
    )
    return to_json({"data": [_render(Note(*row)) for row in rows]})


def get_note(store: Store, call: Call) -> str:
    """`GET /v1/notes/{note_id}`."""
    return to_json(_render(_find(store, call)))


def update_note(store: Store, call: Call) -> str:
    """`PATCH /v1/notes/{note_id}`: null or "" clears the content or takes the note off its record."""
    body = call.decode(bodies.UpdateNote)
    note = _find(store, call)
    before, left = _render(note), note.record_id
    _apply(store, note, body)
    after = _render(note)
    changes = [(field, before[field], value) for field, value in after.items() if before[field] != value]
    if changes:
        _store(store, note)
        _write_event(store, note, "updated", changes, left)
    return to_json(after)


def delete_note(store: Store, call: Call) -> str:
    """`DELETE /v1/notes/{note_id}`: archives it; once more changes nothing."""
    note = _find(store, call)
    if note.archived_at is None:
        note.archived_at = store.now()
        _store(store, note)
        _write_event(store, note, "archived", [])
    return ""


def _apply(store: Store, note: Note, body: bodies.CreateNote | bodies.UpdateNote) -> None:
    if isinstance(body.title, str):
        check_name("title", body.title)
        note.title = body.title
    if body.content is not UNSET:
        note.content = body.content or ""
    if body.entity_id is not UNSET:
        note.record_id = record_ids(store, "entity_id", [body.entity_id])[0] if body.entity_id else None


def _find(store: Store, call: Call) -> Note:
    row = store.row(f"SELECT {_FIELDS} FROM notes WHERE id = ?", call.id("note_id", "note"))
    if row is None:
        raise not_found("note", call.path["note_id"])
    return Note(*row)


def _store(store: Store, note: Note) -> None:
    store.write(f"INSERT OR REPLACE INTO notes ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?)", *msgspec.structs.astuple(note))


def _render(note: Note) -> dict[str, Any]:
    return {
        "id": str(note.id),
        "title": note.title,
        "content": note.content,
        "entity_id": "" if note.record_id is None else str(note.record_id),
        "created_by": "developer_api",
        "created_at": format_moment(note.created_at),
        "archived_at": None if note.archived_at is None else format_moment(note.archived_at),
    }


def _write_event(store: Store, note: Note, event: str, changes: list[Change], left: int | None = None) -> None:
    """Tell the record the note is on, and the one it has `left`."""
    payload: dict[str, Any] = {"note": {"id": str(note.id), "title": note.title, "content": note.content}}
    if changes:
        payload["field_changes"] = field_changes(changes)
    for record_id in dict.fromkeys((note.record_id, left)):
        if record_id is not None:
            write_event(store, record_id, "note", note.id, event, payload)
