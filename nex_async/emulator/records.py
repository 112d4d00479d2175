"""Records: create, upsert, read, update, delete."""

from __future__ import annotations

from typing import Any

from nex_async.emulator import bodies
from nex_async.emulator.call import Call, bad_request
from nex_async.emulator.listing import read_page
from nex_async.emulator.rows import (
    Change,
    StoredRow,
    changed_fields,
    delete_row,
    ensure_keyed,
    find_row,
    insert_row,
    matching_row,
    missing,
    render,
    update_row,
)
from nex_async.emulator.schema import ObjectDefinition
from nex_async.emulator.search import add_text, record_text, remove_text, replace_text
from nex_async.emulator.store import Store, to_json
from nex_async.emulator.timeline import field_changes, write_event
from nex_async.emulator.values import check_value

__all__ = [
    "change_record",
    "create_record",
    "delete_record",
    "find_record",
    "get_record",
    "list_records",
    "make_record",
    "remove_record",
    "update_record",
    "upsert_record",
]


def create_record(store: Store, call: Call) -> str:
    """`POST /v1/objects/{slug}`."""
    body = call.decode(bodies.CreateRecord)
    definition = store.schema.plain_object(call.path["slug"])
    row = make_record(store, definition, body.attributes)
    return render(store, definition, row, row.attributes)


def upsert_record(store: Store, call: Call) -> str:
    """`PUT /v1/objects/{slug}`: update the oldest record that shares a value of the matching attribute, else create."""
    body = call.decode(bodies.UpsertRecord)
    definition = store.schema.plain_object(call.path["slug"])
    row = _matching_record(store, definition, body)
    if row is None:
        row = make_record(store, store.schema.plain_object(definition.slug), body.attributes)
    else:
        change_record(store, definition, row, body.attributes)
    return render(store, definition, row, row.attributes)


def _matching_record(store: Store, definition: ObjectDefinition, body: bodies.UpsertRecord) -> StoredRow | None:
    attribute = definition.attribute(body.matching_attribute)
    if attribute is None:
        raise bad_request(f'matching_attribute: "{definition.slug}" has no attribute {body.matching_attribute[:100]!r}')
    value = body.attributes.get(attribute.slug)
    if value is None or value == "" or value == []:
        raise bad_request(f'attributes must hold a value of the matching attribute "{attribute.slug}"')
    check_value(attribute, value)
    ensure_keyed(store, definition, attribute)
    return matching_row(store, attribute, value)


def list_records(store: Store, call: Call) -> str:
    """`POST /v1/objects/{slug}/records`."""
    body = call.decode(bodies.ListRecords)
    return read_page(store, store.schema.plain_object(call.path["slug"]), body)


def get_record(store: Store, call: Call) -> str:
    """`GET /v1/records/{record_id}`."""
    definition, row = find_record(store, call.integer_id("record_id"))
    return render(store, definition, row, row.attributes)


def update_record(store: Store, call: Call) -> str:
    """`PATCH /v1/records/{record_id}`: merges the keys sent; null clears one."""
    body = call.decode(bodies.UpdateRecord)
    definition, row = find_record(store, call.integer_id("record_id"))
    change_record(store, definition, row, body.attributes or {})
    return render(store, definition, row, row.attributes)


def delete_record(store: Store, call: Call) -> str:
    """`DELETE /v1/records/{record_id}`: for good, with its relationships and memberships."""
    definition, row = find_record(store, call.integer_id("record_id"))
    remove_record(store, definition, row)
    return ""


def find_record(store: Store, number: int) -> tuple[ObjectDefinition, StoredRow]:
    """Return a record and its object, or refuse with 404; a membership is no record."""
    row = find_row(store, number)
    if row is None or row.parent_id is not None:
        raise missing(number)
    return store.schema.objects[row.object_id], row


def make_record(store: Store, definition: ObjectDefinition, values: dict[str, Any]) -> StoredRow:
    """Create a record, make it findable and write its first event."""
    row = insert_row(store, definition, values)
    add_text(store, row.id, record_text(definition, values))
    payload = _entity_payload(definition, row, row.attributes)
    write_event(store, row.id, "entity", row.id, "created", f"{{{payload}}}")
    return row


def change_record(store: Store, definition: ObjectDefinition, row: StoredRow, values: dict[str, Any]) -> list[Change]:
    """Merge values into a record; when nothing changes, nothing is written."""
    old = row.values()
    changes = changed_fields(definition, old, values)
    if changes:
        merged = update_row(store, definition, row, old, changes)
        replace_text(store, row.id, record_text(definition, old), record_text(definition, merged))
        new = to_json({slug: value for slug, _, value in changes})
        payload = f'{_entity_payload(definition, row, new)},"field_changes":{to_json(field_changes(changes))}'
        write_event(store, row.id, "entity", row.id, "updated", f"{{{payload}}}")
    return changes


def remove_record(store: Store, definition: ObjectDefinition, row: StoredRow) -> None:
    """Delete a record and whatever hangs on it."""
    for found in store.rows("SELECT id FROM records WHERE parent_id = ?", row.id):
        member = find_row(store, found[0])
        if member is not None:
            delete_row(store, store.schema.objects[member.object_id], member)
    store.write("DELETE FROM relationships WHERE record_1_id = ? OR record_2_id = ?", row.id, row.id)
    store.write("DELETE FROM task_records WHERE record_id = ?", row.id)
    store.write("UPDATE notes SET record_id = NULL WHERE record_id = ?", row.id)
    store.write("DELETE FROM insight_records WHERE record_id = ?", row.id)
    delete_row(store, definition, row)
    remove_text(store, row.id)
    write_event(store, row.id, "entity", row.id, "deleted", f"{{{_entity_payload(definition, row, '{}')}}}")


def _entity_payload(definition: ObjectDefinition, row: StoredRow, attributes: str) -> str:
    return (
        f'"entity":{{"id":"{row.id}","definition_id":"{definition.id}","type":"{definition.type}",'
        f'"name":{to_json(row.name)},"attributes":{attributes}}}'
    )
