"""The timeline: every change writes an event on each record it concerns."""

from __future__ import annotations

from typing import Any

from nex_async.emulator.call import Call, bad_request
from nex_async.emulator.ids import parse_id
from nex_async.emulator.rows import Change, missing
from nex_async.emulator.store import Row, Store, to_json
from nex_async.emulator.timestamps import format_moment

__all__ = ["field_changes", "read_timeline", "write_event"]


def write_event(
    store: Store, record_id: int, kind: str, resource_id: int, event: str, payload: dict[str, Any] | str
) -> None:
    """Add an event to the timeline of a record; `kind` is the resource type, `event` what happened to it."""
    store.write(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
        *(store.new_id(), record_id, kind, resource_id, event),
        payload if isinstance(payload, str) else to_json(payload),
        store.now(),
    )


def field_changes(changes: list[Change]) -> list[dict[str, Any]]:
    """Return changes as the wire has them."""
    return [{"field_name": slug, "old_value": old, "new_value": new} for slug, old, new in changes]


def read_timeline(store: Store, call: Call) -> str:
    """`GET /v1/records/{record_id}/timeline`: newest first; the history of a deleted record stays readable."""
    record_id = call.integer_id("record_id")
    limit = call.number("limit", default=50, low=1, high=100)
    before = _cursor(call.query.get("cursor", ""))
    rows = store.rows(
        "SELECT id, resource_type, resource_id, event_type, payload, created_at FROM events"
        " WHERE record_id = ? AND id < ? ORDER BY id DESC LIMIT ?",
        *(record_id, before, limit + 1),
    )
    if not rows and store.row("SELECT 1 FROM events WHERE record_id = ?", record_id) is None:
        raise missing(record_id)  # every record has at least the event of its creation
    more, rows = len(rows) > limit, rows[:limit]
    data = ",".join(_render(store, row) for row in rows)
    cursor = str(rows[-1][0]) if more else ""
    return f'{{"data":[{data}],"has_next_page":{to_json(more)},"next_cursor":"{cursor}"}}'


def _cursor(text: str) -> int:
    if not text:
        return 2**63 - 1
    number = parse_id(text)
    if number is None:
        raise bad_request("cursor is not one this API has issued")
    return number


def _render(store: Store, row: Row) -> str:
    number, kind, resource_id, event, payload, moment = row
    return (
        f'{{"id":"{number}","resource_type":"{kind}","resource_id":"{resource_id}","event_type":"{event}",'
        f'"event_payload":{payload},"event_timestamp":"{format_moment(moment)}","created_by":"developer_api",'
        f'"created_by_id":"{store.token_id}","is_aggregated":false,"children":[]}}'
    )
