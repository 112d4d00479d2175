"""Insights in their enriched shape: whom they are about, what they rest on. What the stream sends, and REST on request."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import msgspec

from nex_async.emulator.store import Emission, Row, Store
from nex_async.emulator.timestamps import format_moment

__all__ = ["WORKSPACE", "Batch", "Enriched", "envelope", "read_batch", "read_enriched", "read_newest", "render_enriched"]

WORKSPACE: dict[str, Any] = {
    "name": "Local Nex",
    "slug": "local",
    "business_info": {"name": "Local Nex", "domain": "localhost", "description": "A workspace on this machine"},
    "settings": {"date_format": "YYYY-MM-DD"},
}

_LONGEST_QUOTE = 280
_LEVELS = ((0.9, "very_high"), (0.7, "high"), (0.5, "medium"), (0.0, "low"))
_DESCRIPTIONS = {
    "opportunity": "A chance to win or widen business",
    "risk": "Something that may cost business",
    "milestone": "Something that was reached",
    "commitment": "Something that was promised",
    "preference": "How somebody likes things to be",
    "goal": "What somebody wants to reach",
    "pain_point": "What gives somebody trouble",
    "requirement": "What somebody needs",
    "constraint": "What limits somebody",
    "relationship": "How people and companies are connected",
}
_IDENTITIES = (("email", "Email address"), ("domain", "Web domain"))

_SELECT = (
    "SELECT i.id, i.type, i.content, i.confidence, i.created_at, a.operation_id, a.context,"
    f" substr(a.content, 1, {_LONGEST_QUOTE}), a.created_at"
    " FROM insights i LEFT JOIN artifacts a ON a.id = i.artifact_id"
)
_TARGET = (
    "SELECT r.id, r.name, o.type, o.id, r.attributes FROM insight_records i JOIN records r ON r.id = i.record_id"
    " JOIN objects o ON o.id = r.object_id WHERE i.insight_id = ? ORDER BY o.type <> 'person', r.id LIMIT 1"
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Target:
    name: str
    type: str
    identities: tuple[tuple[str, str, str], ...]
    """Kind, description and value of what identifies it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Enriched:
    """An insight with its target and its source; moments are microseconds."""

    id: int
    type: str
    content: str
    confidence: float
    created_at: int
    operation_id: int | None
    context: str | None
    text: str | None
    taken_in_at: int | None
    target: _Target | None


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Insights that go out on the stream together."""

    operation_id: int
    emitted_at: int
    insights: tuple[Enriched, ...]


def read_batch(store: Store, emission: Emission) -> Batch:
    """Return a batch as it stands in the transaction that makes it."""
    return Batch(emission.operation_id, store.now(), tuple(read_enriched(store, emission.insight_ids)))


def read_enriched(store: Store, ids: Iterable[int]) -> list[Enriched]:
    """Return the insights with these ids, in their order."""
    targets: dict[int, _Target] = {}
    rows = (store.row(f"{_SELECT} WHERE i.id = ?", number) for number in ids)
    return [_enriched(store, row, targets) for row in rows if row is not None]


def read_newest(store: Store, count: int) -> list[Enriched]:
    """Return the newest insights that can be seen, oldest first."""
    hidden = store.hidden_condition("i.artifact_id")
    rows = store.rows(f"SELECT i.id FROM insights i WHERE {hidden} ORDER BY i.id DESC LIMIT ?", count)
    return read_enriched(store, [number for (number,) in reversed(rows)])


def _enriched(store: Store, row: Row, targets: dict[int, _Target]) -> Enriched:
    number, kind, content, confidence, created, operation_id, context, text, taken_in = row
    found, target = store.row(_TARGET, number), None
    if found is not None:
        target = targets.get(found[0])
        if target is None:
            target = targets[found[0]] = _Target(found[1], found[2], _identities(store, found[3], found[4]))
    return Enriched(number, kind, content, confidence, created, operation_id, context, text, taken_in, target)


def _identities(store: Store, object_id: int, attributes: str) -> tuple[tuple[str, str, str], ...]:
    definition, values = store.schema.objects[object_id], msgspec.json.decode(attributes)
    found = []
    for kind, description in _IDENTITIES:
        attribute = definition.first_of_type(kind)
        value = values.get(attribute.slug) if attribute is not None else None
        found += [(kind, description, item) for item in (value if isinstance(value, list) else [value]) if item]
    return tuple(found)


def render_enriched(insight: Enriched) -> dict[str, Any]:
    """Return one item of an envelope; it has no id."""
    created = format_moment(insight.created_at)
    return {
        "type": insight.type,
        "type_description": _DESCRIPTIONS.get(insight.type, insight.type),
        "content": insight.content,
        "confidence": insight.confidence,
        "confidence_level": next(name for least, name in _LEVELS if insight.confidence >= least),
        "target": _render_target(insight.target, created),
        "evidence": [] if insight.text is None else [_render_evidence(insight)],
        "valid_from": created,
        "valid_until": None,
        "created_by": "developer_api",
        "created_at": created,
    }


def _render_target(target: _Target | None, seen: str) -> dict[str, Any]:
    if target is None:
        hint = WORKSPACE["name"]
        return {"type": "workspace", "type_description": "The whole workspace", "hint": hint, "signals": None}
    signals = [
        {
            "type": kind,
            "type_description": description,
            "value": value,
            "confidence": 0.95,
            "observation_count": 1,
            "last_observed_at": seen,
        }
        for kind, description, value in target.identities
    ]
    return {
        "type": "entity",
        "type_description": "A record of the workspace",
        "entity_type": target.type,
        "entity_type_description": f"A {target.type}",
        "hint": target.name,
        "signals": signals,
        "anchors": {},
        "anchors_description": "",
    }


def _render_evidence(insight: Enriched) -> dict[str, Any]:
    taken_in = format_moment(insight.created_at if insight.taken_in_at is None else insight.taken_in_at)
    return {
        "excerpt": insight.content,
        "excerpt_description": "The sentence it was read from",
        "artifact": {
            "type": "text",
            "type_description": "A text that was taken in",
            "occurred_at": taken_in,
            "subject": insight.context or "",
            "content": insight.text,
            "created_by": "developer_api",
            "created_at": taken_in,
        },
    }


def envelope(items: list[dict[str, Any]], operation_id: int | None, emitted_at: int) -> dict[str, Any]:
    """Return the envelope of the enriched shape, as the stream sends it."""
    named = {} if operation_id is None else {"operation_id": operation_id}
    return {
        "workspace": WORKSPACE,
        "insights": items,
        **named,
        "insight_count": len(items),
        "emitted_at": format_moment(emitted_at),
    }
