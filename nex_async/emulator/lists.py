"""Lists of records: an object of their own, whose members carry values beside those of the record they stand for."""

from __future__ import annotations

from typing import Any

from nex_async.emulator import bodies
from nex_async.emulator.call import Call, bad_request, not_found
from nex_async.emulator.ids import parse_id
from nex_async.emulator.listing import merge_attributes, read_page
from nex_async.emulator.objects import remove_list, render_object, store_object
from nex_async.emulator.records import find_record
from nex_async.emulator.rows import (
    Change,
    StoredRow,
    changed_fields,
    delete_row,
    find_row,
    insert_row,
    render,
    update_row,
)
from nex_async.emulator.schema import ObjectDefinition
from nex_async.emulator.store import Store
from nex_async.emulator.timeline import field_changes, write_event

__all__ = [
    "add_member",
    "create_list",
    "delete_list",
    "get_list",
    "list_lists",
    "list_members",
    "remove_member",
    "update_member",
    "upsert_member",
]


def create_list(store: Store, call: Call) -> str:
    """`POST /v1/objects/{slug}/lists`."""
    body = call.decode(bodies.CreateList)
    parent = store.schema.plain_object(call.path["slug"])
    plural, description = body.name_plural or "", body.description or ""
    number = store_object(store, body.slug, "list", body.name, plural, description, parent.id)
    return render_object(store.schema.list(number))


def list_lists(store: Store, call: Call) -> str:
    """`GET /v1/objects/{slug}/lists`: oldest first."""
    detailed = call.flag("include_attributes") is True
    parent = store.schema.plain_object(call.path["slug"])
    found = [each for each in store.schema.objects.values() if each.parent_id == parent.id]
    return f'{{"data":[{",".join(render_object(each, detailed=detailed) for each in found)}]}}'


def get_list(store: Store, call: Call) -> str:
    """`GET /v1/lists/{id}`."""
    return render_object(_find_list(store, call))


def delete_list(store: Store, call: Call) -> str:
    """`DELETE /v1/lists/{id}`: the records stay."""
    remove_list(store, _find_list(store, call))
    return ""


def _find_list(store: Store, call: Call) -> ObjectDefinition:
    return store.schema.list(call.integer_id("id"))


def add_member(store: Store, call: Call) -> str:
    """`POST /v1/lists/{id}`: a record that is already a member is refused."""
    body = call.decode(bodies.CreateListMember)
    definition = _find_list(store, call)
    parent = _find_parent(store, definition, body.parent_id)
    if _member_of(store, definition, parent.id) is not None:
        raise bad_request(f'parent_id: record {parent.id} is already a member of "{definition.slug}"')
    return _add(store, definition, parent, body.attributes or {})


def upsert_member(store: Store, call: Call) -> str:
    """`PUT /v1/lists/{id}`: add the record, or update the membership it has."""
    body = call.decode(bodies.CreateListMember)
    definition = _find_list(store, call)
    parent = _find_parent(store, definition, body.parent_id)
    member = _member_of(store, definition, parent.id)
    if member is None:
        return _add(store, definition, parent, body.attributes or {})
    return _change(store, definition, member, parent, body.attributes or {})


def list_members(store: Store, call: Call) -> str:
    """`POST /v1/lists/{id}/records`: a listing, whatever else the body holds."""
    body = call.decode(bodies.ListRecords)
    return read_page(store, _find_list(store, call), body)


def update_member(store: Store, call: Call) -> str:
    """`PATCH /v1/lists/{id}/records/{record_id}`: takes the id of the membership or of the record."""
    body = call.decode(bodies.UpdateRecord)
    definition = _find_list(store, call)
    member, parent = _find_member(store, definition, call.integer_id("record_id"))
    return _change(store, definition, member, parent, body.attributes or {})


def remove_member(store: Store, call: Call) -> str:
    """`DELETE /v1/lists/{id}/records/{record_id}`: takes either id; the record stays."""
    definition = _find_list(store, call)
    member, parent = _find_member(store, definition, call.integer_id("record_id"))
    delete_row(store, definition, member)
    _write_event(store, definition, member, parent, "deleted", [])
    return ""


def _find_parent(store: Store, definition: ObjectDefinition, text: str) -> StoredRow:
    number = parse_id(text)
    row = None if number is None else find_row(store, number)
    if row is None or row.parent_id is not None:
        raise bad_request(f"parent_id: no record has the id {text[:100]!r}")
    if row.object_id != definition.parent_id:
        raise bad_request(f'parent_id: "{definition.slug}" lists records of "{store.schema.parent(definition).slug}"')
    return row


def _member_of(store: Store, definition: ObjectDefinition, parent_id: int) -> StoredRow | None:
    found = store.row("SELECT id FROM records WHERE parent_id = ? AND object_id = ?", parent_id, definition.id)
    return None if found is None else find_row(store, found[0])


def _find_member(store: Store, definition: ObjectDefinition, number: int) -> tuple[StoredRow, StoredRow]:
    """Return the member with this membership or record id, and its record."""
    member = find_row(store, number)
    if member is None or member.object_id != definition.id:
        member = _member_of(store, definition, number)
    if member is None or member.parent_id is None:
        raise not_found("list member", str(number))
    return member, find_record(store, member.parent_id)[1]


def _add(store: Store, definition: ObjectDefinition, parent: StoredRow, values: dict[str, Any]) -> str:
    member = insert_row(store, definition, values, parent)
    _write_event(store, definition, member, parent, "created", [])
    return _render(store, definition, member, parent)


def _change(store: Store, definition: ObjectDefinition, member: StoredRow, parent: StoredRow, values: dict[str, Any]) -> str:
    old = member.values()
    changes = changed_fields(definition, old, values)
    if changes:
        update_row(store, definition, member, old, changes)
        _write_event(store, definition, member, parent, "updated", changes)
    return _render(store, definition, member, parent)


def _render(store: Store, definition: ObjectDefinition, member: StoredRow, parent: StoredRow) -> str:
    return render(store, definition, member, merge_attributes(parent.attributes, member.attributes))


def _write_event(
    store: Store,
    definition: ObjectDefinition,
    member: StoredRow,
    parent: StoredRow,
    event: str,
    changes: list[Change],
) -> None:
    item = {
        "id": str(member.id),
        "definition_id": str(definition.id),
        "list_name": definition.name,
        "parent_id": str(parent.id),
    }
    payload: dict[str, Any] = {"list_item": item}
    if changes:
        payload["field_changes"] = field_changes(changes)
    write_event(store, parent.id, "list_item", member.id, event, payload)
