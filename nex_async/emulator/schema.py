"""Objects and their attributes as the operations see them, read from the database once per change."""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import Any

import msgspec

from nex_async.emulator.call import ApiError, bad_request, not_found
from nex_async.emulator.ids import parse_id

__all__ = ["ATTRIBUTE_TYPES", "Attribute", "ObjectDefinition", "Schema", "load_schema"]

ATTRIBUTE_TYPES = (
    "text",
    "number",
    "email",
    "phone",
    "url",
    "date",
    "boolean",
    "currency",
    "location",
    "select",
    "social_profile",
    "domain",
    "full_name",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Attribute:
    """One field of an object; `options` maps the ids of a select to their names."""

    id: int
    object_id: int
    slug: str
    type: str
    name: str
    description: str
    is_keyed: bool
    is_required: bool = False
    is_unique: bool = False
    is_multi_value: bool = False
    is_whole_number: bool = False
    use_raw_format: bool = False
    options: dict[str, str] = dataclasses.field(default_factory=dict)

    def options_json(self) -> dict[str, Any]:
        """Return the options as the wire has them."""
        select = [{"id": key, "name": name} for key, name in self.options.items()]
        return {
            "is_required": self.is_required,
            "is_unique": self.is_unique,
            "is_multi_value": self.is_multi_value,
            "is_whole_number": self.is_whole_number,
            "use_raw_format": self.use_raw_format,
            "select_options": select if self.type == "select" else None,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectDefinition:
    """A kind of record, or a list of records of the object `parent_id`."""

    id: int
    slug: str
    type: str
    name: str
    name_plural: str
    description: str
    parent_id: int | None
    created_at: int
    attributes: dict[str, Attribute]
    by_id: dict[int, Attribute]
    required: tuple[str, ...]

    @property
    def is_list(self) -> bool:
        """Whether this is a list."""
        return self.parent_id is not None

    def attribute(self, reference: str) -> Attribute | None:
        """Return the attribute with this slug or id."""
        found = self.attributes.get(reference)
        if found is None and (number := parse_id(reference)) is not None:
            found = self.by_id.get(number)
        return found

    def first_of_type(self, kind: str) -> Attribute | None:
        """Return the oldest attribute of a type."""
        return next((attribute for attribute in self.attributes.values() if attribute.type == kind), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Schema:
    """Every object of the workspace, oldest first."""

    version: str
    objects: dict[int, ObjectDefinition]
    by_slug: dict[str, ObjectDefinition]

    def object(self, slug: str) -> ObjectDefinition:
        """Return the object or list with this slug, or refuse with 404."""
        found = self.by_slug.get(slug)
        if found is None:
            raise not_found("object", slug)
        return found

    def plain_object(self, slug: str) -> ObjectDefinition:
        """Return the object with this slug, or refuse when it is a list."""
        found = self.object(slug)
        if found.is_list:
            raise bad_request(f"{slug!r} is a list: its rows are under /v1/lists/{found.id}")
        return found

    def list(self, number: int) -> ObjectDefinition:
        """Return the list with this id, or refuse with 404."""
        found = self.objects.get(number)
        if found is None or not found.is_list:
            raise ApiError(404, f"list '{number}' not found")
        return found

    def parent(self, definition: ObjectDefinition) -> ObjectDefinition:
        """Return the object a list draws from."""
        if definition.parent_id is None:
            raise LookupError(f"{definition.slug} is no list")
        return self.objects[definition.parent_id]

    def first_of_type(self, kind: str) -> ObjectDefinition | None:
        """Return the oldest object of a type: the person object may have any slug."""
        return next((found for found in self.objects.values() if found.type == kind), None)


def load_schema(connection: sqlite3.Connection, version: str) -> Schema:
    """Read all objects and attributes."""
    attributes: dict[int, list[Attribute]] = {}
    for row in connection.execute(
        "SELECT id, object_id, slug, type, name, description, is_keyed, options FROM attributes ORDER BY id"
    ).fetchall():
        attributes.setdefault(row[1], []).append(_attribute(row))
    rows = connection.execute(
        "SELECT id, slug, type, name, name_plural, description, parent_id, created_at FROM objects ORDER BY id"
    ).fetchall()
    objects = {row[0]: _object(row, attributes.get(row[0], [])) for row in rows}
    return Schema(version, objects, {found.slug: found for found in objects.values()})


def _attribute(row: tuple[Any, ...]) -> Attribute:
    number, object_id, slug, kind, name, description, keyed, options = row
    return Attribute(
        number,
        object_id,
        slug,
        kind,
        name,
        description,
        bool(keyed),
        **msgspec.json.decode(options, type=dict[str, Any]),
    )


def _object(row: tuple[Any, ...], attributes: list[Attribute]) -> ObjectDefinition:
    number, slug, kind, name, plural, description, parent_id, created = row
    by_slug = {attribute.slug: attribute for attribute in attributes}
    by_id = {attribute.id: attribute for attribute in attributes}
    required = tuple(attribute.slug for attribute in attributes if attribute.is_required)
    return ObjectDefinition(number, slug, kind, name, plural, description, parent_id, created, by_slug, by_id, required)
