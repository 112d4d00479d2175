"""Insights: stored by ingest, listed newest first."""

from __future__ import annotations

import dataclasses
from typing import Any

from nex_async.emulator.call import Call, bad_request
from nex_async.emulator.store import Row, Store, to_json
from nex_async.emulator.timestamps import MICROSECONDS, format_moment, parse_duration, parse_moment

__all__ = ["Finding", "list_insights", "store_insight"]

_FIELDS = "id, type, content, confidence, created_at"
_EVER = 2**62


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What one sentence says: its kind, the sentence, how sure, and about which records."""

    type: str
    content: str
    confidence: float
    record_ids: tuple[int, ...]


def store_insight(store: Store, artifact_id: int, finding: Finding) -> int:
    """Write an insight and return its id."""
    number = store.new_id()
    store.write(
        "INSERT INTO insights VALUES (?, ?, ?, ?, ?, ?)",
        *(number, artifact_id, finding.type, finding.content, finding.confidence, store.now()),
    )
    store.write("INSERT INTO insight_text (rowid, text) VALUES (?, ?)", number, f"{finding.type} {finding.content}")
    for record_id in finding.record_ids:
        store.write("INSERT OR IGNORE INTO insight_records VALUES (?, ?)", number, record_id)
    return number


def list_insights(store: Store, call: Call) -> str:
    """`GET /v1/insights`: the newest `limit` of a window whose ends belong to it."""
    limit = call.number("limit", default=20, low=1, high=100)
    start, end = _window(store, call)
    # An insight covers its whole shown second up to its exact moment: a window cut at either still holds it.
    rows = store.rows(
        f"SELECT {_FIELDS} FROM insights WHERE created_at >= ? AND created_at < ?"
        f" AND {store.hidden_condition('artifact_id')} ORDER BY id DESC LIMIT ?",
        *(start, (end // MICROSECONDS + 1) * MICROSECONDS, limit),
    )
    return to_json({"data": [_render(store, row) for row in rows]})


def _window(store: Store, call: Call) -> tuple[int, int]:
    last, start, end = (call.query.get(name, "") for name in ("last", "from", "to"))
    if last and (start or end):
        raise bad_request("last cannot be combined with from and to")
    if bool(start) != bool(end):
        raise bad_request("from and to come together")
    try:
        if last:
            return store.now() - parse_duration(last), _EVER
        return (parse_moment(start), parse_moment(end)) if start else (-_EVER, _EVER)
    except ValueError as error:
        raise bad_request(f"{'last' if last else 'from, to'}: {error}") from None


def _render(store: Store, row: Row) -> dict[str, Any]:
    number, kind, content, _, created = row
    return {
        "id": str(number),
        "workspace_id": store.workspace_id,
        "content": content,
        "type": kind,
        "entities": _entities(store, number),
        "created_at": format_moment(created),
    }


def _entities(store: Store, insight_id: int) -> list[dict[str, str]]:
    rows = store.rows(
        "SELECT r.id, r.name, o.type FROM insight_records i JOIN records r ON r.id = i.record_id"
        " JOIN objects o ON o.id = r.object_id WHERE i.insight_id = ? ORDER BY r.id",
        insight_id,
    )
    return [{"id": str(number), "name": name, "type": kind} for number, name, kind in rows]
