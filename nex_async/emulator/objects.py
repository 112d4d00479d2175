"""Object definitions, and what a fresh workspace holds."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import UNSET

from nex_async.emulator import bodies
from nex_async.emulator.attributes import (
    check_name,
    check_slug,
    refuse_change,
    render_attribute,
    store_attribute,
)
from nex_async.emulator.call import Call, bad_request
from nex_async.emulator.records import remove_record
from nex_async.emulator.rows import find_row
from nex_async.emulator.schema import Attribute, ObjectDefinition
from nex_async.emulator.store import Store, to_json
from nex_async.emulator.timestamps import format_moment

__all__ = [
    "create_defaults",
    "create_object",
    "delete_object",
    "get_object",
    "list_objects",
    "remove_list",
    "render_object",
    "store_object",
    "update_object",
]

_Defaults: TypeAlias = tuple[tuple[str, str, dict[str, Any]], ...]
_TYPES = ("person", "company", "custom", "deal")

_PERSON: _Defaults = (
    ("name", "full_name", {"is_required": True}),
    ("email_addresses", "email", {"is_multi_value": True, "is_unique": True}),
    ("phone_numbers", "phone", {"is_multi_value": True}),
    ("job_title", "text", {}),
    ("company", "text", {}),
    ("location", "location", {}),
    ("linkedin", "social_profile", {}),
)
_COMPANY: _Defaults = (
    ("name", "text", {"is_required": True}),
    ("domains", "domain", {"is_multi_value": True, "is_unique": True}),
    ("description", "text", {}),
    ("industry", "text", {}),
    ("location", "location", {}),
    ("employee_count", "number", {"is_whole_number": True}),
    ("linkedin", "social_profile", {}),
)


def create_defaults(store: Store) -> None:
    """Give a fresh workspace its people and companies."""
    for slug, plural, attributes in (("person", "People", _PERSON), ("company", "Companies", _COMPANY)):
        number = store_object(store, slug, slug, slug.capitalize(), plural, "")
        for name, kind, flags in attributes:
            _store_default(store, number, name, kind, flags)


def _store_default(store: Store, object_id: int, slug: str, kind: str, flags: dict[str, Any]) -> None:
    name = slug.replace("_", " ").capitalize()
    keyed = flags.get("is_unique", False)
    store_attribute(store, Attribute(store.new_id(), object_id, slug, kind, name, "", keyed, **flags))


def create_object(store: Store, call: Call) -> str:
    """`POST /v1/objects`: every object starts with the attribute `name`."""
    body = call.decode(bodies.CreateObject)
    kind = body.type or "custom"
    if kind not in _TYPES:
        raise bad_request(f"type must be one of {', '.join(_TYPES)}")
    number = store_object(store, body.slug, kind, body.name, body.name_plural or "", body.description or "")
    _store_default(store, number, "name", "full_name" if kind == "person" else "text", {"is_required": True})
    return render_object(store.schema.object(body.slug))


def list_objects(store: Store, call: Call) -> str:
    """`GET /v1/objects`: objects only, oldest first; lists are under their object."""
    detailed = call.flag("include_attributes") is True
    found = [definition for definition in store.schema.objects.values() if not definition.is_list]
    return f'{{"data":[{",".join(render_object(each, detailed=detailed) for each in found)}]}}'


def get_object(store: Store, call: Call) -> str:
    """`GET /v1/objects/{slug}`."""
    return render_object(store.schema.object(call.path["slug"]))


def update_object(store: Store, call: Call) -> str:
    """`PATCH /v1/objects/{slug}`."""
    body = call.decode(bodies.UpdateObject)
    definition = store.schema.object(call.path["slug"])
    refuse_change("slug", body.slug, definition.slug)
    refuse_change("type", body.type, definition.type)
    name = body.name if isinstance(body.name, str) else definition.name
    check_name("name", name)
    plural = definition.name_plural if body.name_plural is UNSET else body.name_plural or ""
    description = definition.description if body.description is UNSET else body.description or ""
    store.write(
        "UPDATE objects SET name = ?, name_plural = ?, description = ? WHERE id = ?",
        *(name, plural, description, definition.id),
    )
    store.schema_changed()
    return render_object(store.schema.object(definition.slug))


def delete_object(store: Store, call: Call) -> str:
    """`DELETE /v1/objects/{slug}`: its records, its lists and its relationships go with it."""
    definition = store.schema.object(call.path["slug"])
    if definition.is_list:
        remove_list(store, definition)
        return ""
    for bound in [each for each in store.schema.objects.values() if each.parent_id == definition.id]:
        remove_list(store, bound)
    for (number,) in store.rows("SELECT id FROM records WHERE object_id = ?", definition.id):
        row = find_row(store, number)
        if row is not None:
            remove_record(store, definition, row)
    store.write(
        "DELETE FROM relationship_definitions WHERE object_1_id = ? OR object_2_id = ?", definition.id, definition.id
    )
    _remove_definition(store, definition)
    return ""


def remove_list(store: Store, definition: ObjectDefinition) -> None:
    """Remove a list with its memberships; the records stay."""
    store.write("DELETE FROM records WHERE object_id = ?", definition.id)
    _remove_definition(store, definition)


def _remove_definition(store: Store, definition: ObjectDefinition) -> None:
    store.write("DELETE FROM keys WHERE attribute_id IN (SELECT id FROM attributes WHERE object_id = ?)", definition.id)
    store.write("DELETE FROM attributes WHERE object_id = ?", definition.id)
    store.write("DELETE FROM objects WHERE id = ?", definition.id)
    store.schema_changed()


def store_object(
    store: Store, slug: str, kind: str, name: str, plural: str, description: str, parent_id: int | None = None
) -> int:
    """Check and write a new object or list, and return its id."""
    check_name("name", name)
    check_slug(slug)
    if store.row("SELECT 1 FROM objects WHERE slug = ?", slug) is not None:
        raise bad_request(f'slug: an object or list "{slug}" exists already')
    number = store.new_id()
    store.write(
        "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
        *(number, slug, kind, name, plural, description, parent_id, store.now()),
    )
    store.schema_changed()
    return number


def render_object(definition: ObjectDefinition, *, detailed: bool = True) -> str:
    """Return an object or list as the wire has it, with its attributes when `detailed`."""
    rendered: dict[str, Any] = {
        "id": str(definition.id),
        "slug": definition.slug,
        "type": definition.type,
        "name": definition.name,
        "name_plural": definition.name_plural,
        "description": definition.description,
        "created_at": format_moment(definition.created_at),
    }
    if detailed:
        rendered["attributes"] = [render_attribute(attribute) for attribute in definition.attributes.values()]
    return to_json(rendered)
