"""What the switches make of a reply: pure functions from the default shape to another published one.

They run on the database's thread right after the operation, because some of the other shapes tell more than the default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from nex_async.emulator import bodies
from nex_async.emulator.call import Call
from nex_async.emulator.enrichment import envelope, read_enriched, render_enriched
from nex_async.emulator.schema import Attribute, ObjectDefinition, Schema
from nex_async.emulator.store import Store, to_json
from nex_async.emulator.switches import Settings

__all__ = ["reshape", "thin"]

Shape: TypeAlias = Callable[[Store, Call, Settings, Any], Any]

_USER_DATA = frozenset({"attributes", "properties", "previous_properties"})
"""Maps the service does not know the fields of; Go leaves no key of a map out."""
_ASK_CHAT = ("answer", "session_id", "entity_references")
_NUMERIC_TYPES = {"person": "14", "company": "15"}


def reshape(store: Store, call: Call, settings: Settings, operation: str, method: str, body: str) -> str:
    """Return the body of a reply as the switches want it."""
    if not body:
        return "" if method != "DELETE" or settings.delete_body == "empty" else settings.delete_body
    if call.content_type != "application/json":
        return body
    reply = msgspec.json.decode(body)
    shape = _SHAPES.get(operation)
    if shape is not None:
        reply = shape(store, call, settings, reply)
    if settings.attribute_encoding == "typed":
        reply = _typed(store.schema, reply)
    return to_json(thin(settings, reply))


def thin(settings: Settings, reply: Any) -> Any:
    """Return a reply without its zero values, or with null for its empty arrays, where the switches say so."""
    if settings.omit_zero_values == "on":
        reply = _without_zeros(reply)
    return _with_nulls(reply) if settings.null_arrays == "on" else reply


def _without_zeros(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_zeros(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = ((key, each if key in _USER_DATA else _without_zeros(each)) for key, each in value.items())
    return {key: each for key, each in kept if each or isinstance(each, dict)}


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(each) for key, each in value.items()}
    return ([_with_nulls(item) for item in value] or None) if isinstance(value, list) else value


def _insights(store: Store, call: Call, settings: Settings, reply: Any) -> Any:
    if settings.insights_rest == "bare_array":
        return reply["data"]
    if settings.insights_rest == "simple":
        return reply
    insights = read_enriched(store, (int(item["id"]) for item in reply["data"]))
    return envelope([render_enriched(insight) for insight in insights], None, store.now())


def _ask(store: Store, call: Call, settings: Settings, reply: Any) -> Any:
    if settings.ask_shape == "docs":
        return reply
    asked = call.decode(bodies.QueryContext).session_id
    references = [
        {
            "id": entity["id"],
            "name": entity["name"],
            "type": _NUMERIC_TYPES.get(entity["type"], entity["type"]),
            "count": entity["insights_matched"],
        }
        for entity in reply["entities_considered"]
    ]
    both = {**reply, "session_id": asked or str(store.new_id()), "entity_references": references}
    return both if settings.ask_shape == "both" else {key: both[key] for key in _ASK_CHAT}


def _artifact_created(store: Store, call: Call, settings: Settings, reply: Any) -> Any:
    return {**reply, "artifact_id": str(reply["artifact_id"])} if settings.artifact_id_type == "string" else reply


def _artifact(store: Store, call: Call, settings: Settings, reply: Any) -> Any:
    counts = reply.get("result")
    if settings.artifact_result == "counts" or counts is None:
        return reply
    insights = store.rows(
        "SELECT content, confidence FROM insights WHERE artifact_id = ? ORDER BY id", call.path["artifact_id"]
    )
    result = {
        "entities_extracted": [_entity(store, entity) for entity in counts["entities_extracted"]],
        "entities_created": counts["entities_created"],
        "entities_updated": counts["entities_updated"],
        "relationships": counts["relationships_created"],
        "insights": [{"content": content, "confidence": confidence} for content, confidence in insights],
        "tasks": [],
    }
    return {**reply, "result": result}


def _entity(store: Store, entity: Any) -> dict[str, str]:
    found = store.row("SELECT name FROM records WHERE id = ?", entity["canonical_entity_id"])
    name = "" if found is None else found[0]
    return {"name": name, "type": entity["type"].lower(), "action": "created" if entity["is_new"] else "updated"}


def _job(store: Store, call: Call, settings: Settings, reply: Any) -> Any:
    return {"message": reply} if settings.job_envelope == "wrapped" else reply


_SHAPES: dict[str, Shape] = {
    "getInsights": _insights,
    "queryContext": _ask,
    "addContext": _artifact_created,
    "getArtifact": _artifact,
    "createAIListJob": _job,
    "getAIListJob": _job,
}


def _typed(schema: Schema, value: Any) -> Any:
    """Return a reply with typed value objects wherever records carry attributes."""
    if isinstance(value, list):
        return [_typed(schema, item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _typed(schema, each) for key, each in value.items() if key != "attributes"}
    if "attributes" not in value:
        return changed
    definition, held = _definition(schema, value), value["attributes"]
    if definition is None or not isinstance(held, dict):
        return {**changed, "attributes": held}
    return {**changed, "attributes": _typed_values(schema, definition, held)}


def _definition(schema: Schema, row: dict[str, Any]) -> ObjectDefinition | None:
    """Return the object of a record, a timeline payload or an entity of an AI list."""
    number = row.get("object_id") or row.get("definition_id")
    if number is not None:
        return schema.objects.get(int(number))
    kind = row.get("type")
    return schema.first_of_type("person" if kind == "contact" else str(kind))


def _typed_values(schema: Schema, definition: ObjectDefinition, values: dict[str, Any]) -> dict[str, Any]:
    known = dict(definition.attributes)
    if definition.is_list:  # a member's attributes are its parent's and its own
        known = {**schema.parent(definition).attributes, **known}
    return {slug: _typed_value(known[slug], value) if slug in known else value for slug, value in values.items()}


def _typed_value(attribute: Attribute, value: Any) -> Any:
    if isinstance(value, list):
        return [_typed_value(attribute, item) for item in value]
    kind = attribute.type
    if value is None:
        return None
    if isinstance(value, dict):
        return {"type": kind, **value}
    if kind == "select":
        return {"type": kind, "option_id": value}
    if kind == "full_name":
        first, _, last = str(value).partition(" ")
        return {"type": kind, "first_name": first, "last_name": last}
    return {"type": kind, kind: value}
