"""The one way records and list members are written: schema rules, keys, counts. No timeline, no HTTP."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from nex_async.emulator.call import bad_request, not_found
from nex_async.emulator.schema import Attribute, ObjectDefinition
from nex_async.emulator.store import Store, to_json
from nex_async.emulator.timestamps import format_moment
from nex_async.emulator.values import check_value, items_of, key_of, text_of

__all__ = [
    "Change",
    "StoredRow",
    "changed_fields",
    "delete_row",
    "ensure_keyed",
    "find_row",
    "insert_row",
    "matching_row",
    "missing",
    "render",
    "update_row",
]

Change = tuple[str, Any, Any]
"""Slug, old value, new value."""

_decode_attributes = msgspec.json.Decoder(dict[str, Any]).decode


@dataclasses.dataclass(slots=True)
class StoredRow:
    """A record (`parent_id` is None) or a list member; `attributes` is JSON text as stored."""

    id: int
    object_id: int
    parent_id: int | None
    name: str
    created_at: int
    updated_at: int
    attributes: str

    def values(self) -> dict[str, Any]:
        """Return the attributes, decoded."""
        return _decode_attributes(self.attributes)


def find_row(store: Store, number: int) -> StoredRow | None:
    """Return the record or member with this id."""
    found = store.row(
        "SELECT id, object_id, parent_id, name, created_at, updated_at, attributes FROM records WHERE id = ?", number
    )
    return None if found is None else StoredRow(*found)


def render(store: Store, definition: ObjectDefinition, row: StoredRow, attributes: str) -> str:
    """Return a record or member as the wire has it."""
    kind = store.schema.parent(definition).type if definition.is_list else definition.type
    return (
        f'{{"id":"{row.id}","object_id":"{row.object_id}","type":"{kind}","workspace_id":"{store.workspace_id}",'
        f'"created_at":"{format_moment(row.created_at)}","updated_at":"{format_moment(row.updated_at)}",'
        f'"attributes":{attributes}}}'
    )


def insert_row(
    store: Store, definition: ObjectDefinition, values: dict[str, Any], parent: StoredRow | None = None
) -> StoredRow:
    """Check and store a new record, or a new member standing for `parent`."""
    kept = {slug: value for slug, value in values.items() if value is not None}
    _check_values(definition, values)
    _check_required(definition, kept, definition.required)
    _check_unique(store, definition, kept, owner=0)
    number, now = store.new_id(), store.now()
    row = StoredRow(number, definition.id, parent.id if parent else None, "", now, now, to_json(kept))
    row.name = parent.name if parent else _name_of(definition, kept)
    store.write(
        "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        *(number, definition.id, row.parent_id, row.name, now, now, number, row.attributes),
    )
    _add_keys(store, definition, number, kept)
    _count(store, definition.id, 1)
    return row


def changed_fields(definition: ObjectDefinition, old: dict[str, Any], values: dict[str, Any]) -> list[Change]:
    """Return what an update would change; null clears, and a value equal to the old one changes nothing."""
    _check_values(definition, values)
    return [(slug, old.get(slug), value) for slug, value in values.items() if old.get(slug) != value]


def update_row(
    store: Store, definition: ObjectDefinition, row: StoredRow, old: dict[str, Any], changes: list[Change]
) -> dict[str, Any]:
    """Check and store the changes of a row, and return its attributes as they are now."""
    new = {slug: value for slug, _, value in changes}
    _check_required(definition, new, [slug for slug in definition.required if slug in new])
    added = {slug: value for slug, value in new.items() if value is not None}
    _check_unique(store, definition, added, owner=row.id)
    _remove_keys(store, definition, row.id, {slug: was for slug, was, _ in changes if was is not None})
    merged = {slug: value for slug, value in {**old, **new}.items() if value is not None}
    _add_keys(store, definition, row.id, added)
    row.attributes = to_json(merged)
    row.updated_at = store.now()
    if row.parent_id is None:
        row.name = _name_of(definition, merged)
    store.write(
        "UPDATE records SET name = ?, updated_at = ?, updated_order = ?, attributes = ? WHERE id = ?",
        *(row.name, row.updated_at, store.new_id(), row.attributes, row.id),
    )
    return merged


def delete_row(store: Store, definition: ObjectDefinition, row: StoredRow) -> None:
    """Remove a row and its keys."""
    _remove_keys(store, definition, row.id, row.values())
    store.write("DELETE FROM records WHERE id = ?", row.id)
    _count(store, definition.id, -1)


def matching_row(store: Store, attribute: Attribute, value: Any) -> StoredRow | None:
    """Return the oldest record that shares a value of `attribute` with `value`."""
    keys = [key_of(attribute, item) for item in items_of(value)]
    if not keys:
        return None
    marks = ", ".join("?" * len(keys))
    found = store.row(f"SELECT min(record_id) FROM keys WHERE attribute_id = ? AND value IN ({marks})", attribute.id, *keys)
    return None if found is None or found[0] is None else find_row(store, found[0])


def ensure_keyed(store: Store, definition: ObjectDefinition, attribute: Attribute) -> None:
    """Make records findable by an attribute; the first use pays for the records that are there already."""
    if attribute.is_keyed:
        return
    store.write("UPDATE attributes SET is_keyed = 1 WHERE id = ?", attribute.id)
    for number, text in store.rows("SELECT id, attributes FROM records WHERE object_id = ?", definition.id):
        value = _decode_attributes(text).get(attribute.slug)
        if value is not None:
            _write_keys(store, attribute, number, value)
    store.schema_changed()


def _name_of(definition: ObjectDefinition, values: dict[str, Any]) -> str:
    attribute = definition.attributes.get("name")
    value = values.get("name")
    return "" if attribute is None or value is None else text_of(attribute, items_of(value)[0])


def _check_values(definition: ObjectDefinition, values: dict[str, Any]) -> None:
    for slug, value in values.items():
        attribute = definition.attributes.get(slug)
        if attribute is None:
            known = ", ".join(definition.attributes)
            raise bad_request(f'unknown attribute "{slug[:100]}" of "{definition.slug}"; it has: {known}')
        if value is not None:
            check_value(attribute, value)


def _check_required(definition: ObjectDefinition, values: dict[str, Any], slugs: list[str] | tuple[str, ...]) -> None:
    for slug in slugs:
        value = values.get(slug)
        if value is None or value == "" or value == []:
            raise bad_request(f'attribute "{slug}" of "{definition.slug}" is required')


def _check_unique(store: Store, definition: ObjectDefinition, values: dict[str, Any], owner: int) -> None:
    for slug, value in values.items():
        attribute = definition.attributes[slug]
        for item in items_of(value) if attribute.is_unique else ():
            found = store.row(
                "SELECT record_id FROM keys WHERE attribute_id = ? AND value = ? AND record_id <> ?",
                *(attribute.id, key_of(attribute, item), owner),
            )
            if found is not None:
                text = text_of(attribute, item)
                raise bad_request(f'attribute "{slug}" is unique: {text!r} belongs to record {found[0]}')


def _add_keys(store: Store, definition: ObjectDefinition, number: int, values: dict[str, Any]) -> None:
    for slug, value in values.items():
        attribute = definition.attributes[slug]
        if attribute.is_keyed:
            _write_keys(store, attribute, number, value)


def _write_keys(store: Store, attribute: Attribute, number: int, value: Any) -> None:
    for item in items_of(value):
        store.write("INSERT OR IGNORE INTO keys VALUES (?, ?, ?)", attribute.id, key_of(attribute, item), number)


def _remove_keys(store: Store, definition: ObjectDefinition, number: int, values: dict[str, Any]) -> None:
    for slug, value in values.items():
        attribute = definition.attributes.get(slug)
        if attribute is None or not attribute.is_keyed:
            continue
        for item in items_of(value):
            store.write(
                "DELETE FROM keys WHERE attribute_id = ? AND value = ? AND record_id = ?",
                *(attribute.id, key_of(attribute, item), number),
            )


def _count(store: Store, object_id: int, step: int) -> None:
    store.write("UPDATE objects SET record_count = record_count + ? WHERE id = ?", step, object_id)


def missing(number: int) -> Exception:
    """Return the error for a record nobody has."""
    return not_found("record", str(number))
