"""Relationship definitions between objects, and their instances between records."""

from __future__ import annotations

from typing import Any

from nex_async.emulator import bodies
from nex_async.emulator.call import ApiError, Call, bad_request, not_found
from nex_async.emulator.ids import parse_id
from nex_async.emulator.records import find_record
from nex_async.emulator.store import Row, Store, to_json
from nex_async.emulator.timeline import write_event
from nex_async.emulator.timestamps import format_moment

__all__ = [
    "create_relationship",
    "create_relationship_definition",
    "delete_relationship",
    "delete_relationship_definition",
    "list_relationship_definitions",
]

_TYPES = ("one_to_one", "one_to_many", "many_to_many")


def create_relationship_definition(store: Store, call: Call) -> str:
    """`POST /v1/relationships`."""
    body = call.decode(bodies.CreateRelationshipDefinition)
    if body.type not in _TYPES:
        raise bad_request(f"type must be one of {', '.join(_TYPES)}")
    row = (
        store.new_id(),
        body.type,
        _object_id(store, "entity_definition_1_id", body.entity_definition_1_id),
        _object_id(store, "entity_definition_2_id", body.entity_definition_2_id),
        body.entity_1_to_2_predicate or "",
        body.entity_2_to_1_predicate or "",
        store.now(),
    )
    store.write("INSERT INTO relationship_definitions VALUES (?, ?, ?, ?, ?, ?, ?)", *row)
    return to_json(_render_definition(row))


def _object_id(store: Store, field: str, text: str) -> int:
    number = parse_id(text)
    definition = None if number is None else store.schema.objects.get(number)
    if definition is None or definition.is_list:
        raise bad_request(f"{field}: no object has the id {text[:100]!r}")
    return definition.id


def list_relationship_definitions(store: Store, call: Call) -> str:
    """`GET /v1/relationships`: oldest first."""
    rows = store.rows("SELECT * FROM relationship_definitions ORDER BY id")
    return to_json({"data": [_render_definition(row) for row in rows]})


def delete_relationship_definition(store: Store, call: Call) -> str:
    """`DELETE /v1/relationships/{id}`: its instances go with it."""
    number = call.id("id", "relationship definition")
    store.write("DELETE FROM relationships WHERE definition_id = ?", number)
    if not store.write("DELETE FROM relationship_definitions WHERE id = ?", number):
        raise not_found("relationship definition", call.path["id"])
    return ""


def create_relationship(store: Store, call: Call) -> str:
    """`POST /v1/records/{record_id}/relationships`: the record of the path is one of the two in the body."""
    body = call.decode(bodies.CreateRelationship)
    _, here = find_record(store, call.integer_id("record_id"))
    number = parse_id(body.definition_id)
    definition = store.row("SELECT * FROM relationship_definitions WHERE id = ?", number)
    if definition is None:
        raise bad_request(f"definition_id: no relationship definition has the id {body.definition_id[:100]!r}")
    first = _record_id(store, "entity_1_id", body.entity_1_id, definition[2])
    second = _record_id(store, "entity_2_id", body.entity_2_id, definition[3])
    if here.id not in (first, second):
        raise bad_request(f"entity_1_id or entity_2_id must be the record of the path, {here.id}")
    _check_cardinality(store, definition, first, second)
    row = (store.new_id(), definition[0], first, second, store.now())
    store.write("INSERT INTO relationships VALUES (?, ?, ?, ?, ?)", *row)
    _write_events(store, row, "created")
    return to_json(_render_instance(row))


def _record_id(store: Store, field: str, text: str, object_id: int) -> int:
    number = parse_id(text)
    try:
        definition, row = find_record(store, -1 if number is None else number)
    except ApiError:
        raise bad_request(f"{field}: no record has the id {text[:100]!r}") from None
    if definition.id != object_id:
        wanted = store.schema.objects[object_id].slug
        raise bad_request(f'{field}: record {row.id} is a "{definition.slug}", the definition asks for a "{wanted}"')
    return row.id


def _check_cardinality(store: Store, definition: Row, first: int, second: int) -> None:
    number, kind = definition[:2]
    one = "SELECT 1 FROM relationships WHERE definition_id = ? AND "
    if store.row(one + "record_1_id = ? AND record_2_id = ?", number, first, second) is not None:
        raise bad_request("the two records are already related by this definition")
    if kind == "many_to_many":
        return
    if store.row(one + "record_2_id = ?", number, second) is not None:
        raise bad_request(f"entity_2_id: record {second} already has its one relationship of this {kind} definition")
    if kind == "one_to_one" and store.row(one + "record_1_id = ?", number, first) is not None:
        raise bad_request(f"entity_1_id: record {first} already has its one relationship of this {kind} definition")


def delete_relationship(store: Store, call: Call) -> str:
    """`DELETE /v1/records/{record_id}/relationships/{rel_id}`."""
    _, here = find_record(store, call.integer_id("record_id"))
    row = store.row(
        "SELECT * FROM relationships WHERE id = ? AND (record_1_id = ? OR record_2_id = ?)",
        *(call.id("rel_id", "relationship"), here.id, here.id),
    )
    if row is None:
        raise not_found("relationship", call.path["rel_id"])
    store.write("DELETE FROM relationships WHERE id = ?", row[0])
    _write_events(store, row, "deleted")
    return ""


def _write_events(store: Store, row: Row, event: str) -> None:
    """Tell both timelines; the published list of resource types lacks this one, the text around it promises it."""
    for record_id in dict.fromkeys((row[2], row[3])):
        write_event(store, record_id, "relationship", row[0], event, {"relationship": _render_instance(row)})


def _render_definition(row: Row) -> dict[str, Any]:
    return {
        "id": str(row[0]),
        "type": row[1],
        "entity_definition_1_id": str(row[2]),
        "entity_definition_2_id": str(row[3]),
        "entity_1_to_2_predicate": row[4],
        "entity_2_to_1_predicate": row[5],
        "created_at": format_moment(row[6]),
    }


def _render_instance(row: Row) -> dict[str, Any]:
    return {
        "id": str(row[0]),
        "definition_id": str(row[1]),
        "entity_1_id": str(row[2]),
        "entity_2_id": str(row[3]),
        "created_at": format_moment(row[4]),
    }
