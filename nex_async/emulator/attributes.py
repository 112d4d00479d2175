"""The attributes of an object: create, update, delete."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from msgspec import UNSET, UnsetType

from nex_async.emulator import bodies
from nex_async.emulator.call import Call, bad_request, not_found
from nex_async.emulator.rows import find_row
from nex_async.emulator.schema import ATTRIBUTE_TYPES, Attribute, ObjectDefinition
from nex_async.emulator.search import add_text, record_text, remove_text
from nex_async.emulator.store import Store, to_json

__all__ = [
    "check_name",
    "check_slug",
    "create_attribute",
    "delete_attribute",
    "refuse_change",
    "render_attribute",
    "store_attribute",
    "update_attribute",
]

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}", re.ASCII)
_RESERVED = frozenset({"created_at", "updated_at"})
_FLAGS = ("is_required", "is_unique", "is_multi_value", "use_raw_format", "is_whole_number")


def check_slug(slug: str) -> None:
    """Refuse a slug that is not safe in a URL."""
    if not _SLUG.fullmatch(slug):
        raise bad_request("slug must be 1 to 128 lowercase letters, digits, hyphens or underscores")


def check_name(field: str, name: str) -> None:
    """Refuse an empty name or title."""
    if not name.strip():
        raise bad_request(f"{field} must not be empty")


def refuse_change(field: str, given: bodies.Text, current: str) -> None:
    """Refuse to change what is fixed at creation; sending the same value back is fine."""
    if given is not UNSET and given is not None and given != current:
        raise bad_request(f"{field} cannot be changed")


def create_attribute(store: Store, call: Call) -> str:
    """`POST /v1/objects/{slug}/attributes`."""
    body = call.decode(bodies.CreateAttribute)
    definition = store.schema.object(call.path["slug"])
    check_name("name", body.name)
    check_slug(body.slug)
    if body.slug in definition.attributes or body.slug in _RESERVED:
        raise bad_request(f'slug: "{definition.slug}" already has an attribute "{body.slug}"')
    if body.type not in ATTRIBUTE_TYPES:
        raise bad_request(f"type must be one of {', '.join(ATTRIBUTE_TYPES)}")
    attribute = _new_attribute(store, definition, body)
    store_attribute(store, attribute)
    return to_json(render_attribute(attribute))


def _new_attribute(store: Store, definition: ObjectDefinition, body: bodies.CreateAttribute) -> Attribute:
    given = body.options or bodies.AttributeOptions()
    flags = {flag: getattr(given, flag) is True for flag in _FLAGS}
    return Attribute(
        id=store.new_id(),
        object_id=definition.id,
        slug=body.slug,
        type=body.type,
        name=body.name,
        description=body.description or "",
        is_keyed=flags["is_unique"],
        options=_new_options(store, body.type, {}, given.select_options),
        **flags,
    )


def update_attribute(store: Store, call: Call) -> str:
    """`PATCH /v1/objects/{slug}/attributes/{attr_id}`: an option with an id is renamed, one without is added."""
    body = call.decode(bodies.UpdateAttribute)
    definition = store.schema.object(call.path["slug"])
    attribute = _find_attribute(definition, call)
    refuse_change("slug", body.slug, attribute.slug)
    refuse_change("type", body.type, attribute.type)
    changed = dataclasses.replace(attribute, **_changes(store, attribute, body))
    store_attribute(store, changed)
    if any(changed.options[key] != name for key, name in attribute.options.items()):
        _index_again(store, definition)
    return to_json(render_attribute(changed))


def _changes(store: Store, attribute: Attribute, body: bodies.UpdateAttribute) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if isinstance(body.name, str):
        check_name("name", body.name)
        changes["name"] = body.name
    if body.description is not UNSET:
        changes["description"] = body.description or ""
    given = body.options
    if given is None:
        return changes
    for flag in ("is_unique", "is_multi_value"):
        if isinstance(getattr(given, flag), bool) and getattr(given, flag) != getattr(attribute, flag):
            raise bad_request(f"options.{flag} cannot be changed")
    for flag in ("is_required", "use_raw_format", "is_whole_number"):
        if isinstance(getattr(given, flag), bool):
            changes[flag] = getattr(given, flag)
    changes["options"] = _new_options(store, attribute.type, attribute.options, given.select_options)
    return changes


def delete_attribute(store: Store, call: Call) -> str:
    """`DELETE /v1/objects/{slug}/attributes/{attr_id}`: its values go with it."""
    definition = store.schema.object(call.path["slug"])
    attribute = _find_attribute(definition, call)
    if attribute.slug == "name" and not definition.is_list:
        raise bad_request('attribute "name" cannot be deleted: every record has one')
    path = f'$."{attribute.slug}"'
    store.write("DELETE FROM attributes WHERE id = ?", attribute.id)
    store.write("DELETE FROM keys WHERE attribute_id = ?", attribute.id)
    store.write(
        "UPDATE records SET attributes = json_remove(attributes, ?)"
        " WHERE object_id = ? AND json_type(attributes, ?) IS NOT NULL",
        *(path, definition.id, path),
    )
    store.schema_changed()
    _index_again(store, definition)
    return ""


def _find_attribute(definition: ObjectDefinition, call: Call) -> Attribute:
    attribute = definition.by_id.get(call.id("attr_id", "attribute"))
    if attribute is None:
        raise not_found("attribute", call.path["attr_id"])
    return attribute


def _new_options(
    store: Store,
    kind: str,
    old: dict[str, str],
    given: list[bodies.SelectOption] | UnsetType | None,
) -> dict[str, str]:
    """Return the options after a change; those left out stay."""
    options = dict(old)
    if not isinstance(given, list):
        return options
    if given and kind != "select":
        raise bad_request("options.select_options belong to attributes of type select")
    for option in given:
        check_name("options.select_options.name", option.name)
        if option.id is not None and old and option.id not in old:
            raise bad_request(f"options.select_options: no option has the id {option.id[:100]!r}")
        if option.id == "" or (not old and option.id in options):
            raise bad_request("options.select_options: ids must be given once and not be empty")
        options[option.id or str(store.new_id())] = option.name
    if len(set(options.values())) < len(options):
        raise bad_request("options.select_options: names must differ")
    return options


def store_attribute(store: Store, attribute: Attribute) -> None:
    """Write a new or changed attribute."""
    options = {flag: getattr(attribute, flag) for flag in _FLAGS} | {"options": attribute.options}
    store.write(
        "INSERT OR REPLACE INTO attributes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        *(attribute.id, attribute.object_id, attribute.slug, attribute.type, attribute.name, attribute.description),
        *(to_json(options), attribute.is_keyed),
    )
    store.schema_changed()


def render_attribute(attribute: Attribute) -> dict[str, Any]:
    """Return an attribute as the wire has it."""
    return {
        "id": str(attribute.id),
        "slug": attribute.slug,
        "type": attribute.type,
        "name": attribute.name,
        "description": attribute.description,
        "options": attribute.options_json(),
    }


def _index_again(store: Store, old: ObjectDefinition) -> None:
    """Rebuild the search text of an object's records after its attributes changed meaning."""
    new = store.schema.object(old.slug)
    if new.is_list:
        return
    for (number,) in store.rows("SELECT id FROM records WHERE object_id = ?", new.id):
        row = find_row(store, number)
        if row is not None:
            remove_text(store, number)
            add_text(store, number, record_text(new, row.values()))
