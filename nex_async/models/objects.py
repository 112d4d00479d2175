"""Object definitions, their attributes, and lists (a list is itself an object definition)."""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from .base import Model, Timestamp

__all__ = ["Attribute", "AttributeOptions", "Object", "SelectOption"]


class SelectOption(Model):
    """One choice of a select attribute; values are written as its `id`."""

    id: str
    name: str | None = None


class AttributeOptions(Model):
    """The rules of an attribute."""

    is_required: bool = False
    is_unique: bool = False
    is_multi_value: bool = False
    is_whole_number: bool = False
    use_raw_format: bool = False
    select_options: list[SelectOption] | None = None


class Attribute(Model):
    """A field of an object. `type` is an open string: workspaces hold types beyond the thirteen that can be created."""

    id: str
    slug: str | None = None
    type: str | None = None
    name: str | None = None
    description: str | None = None
    options: AttributeOptions = field(default_factory=AttributeOptions)


class Object(Model):
    """An object definition, or a list of one (then `type` is `list`). `attributes` come only when asked for."""

    id: str
    slug: str | None = None
    type: str | None = None
    name: str | None = None
    name_plural: str | None = None
    description: str | None = None
    attributes: list[Attribute] | None = None
    _created_at: str | None = field(default=None, name="created_at")

    created_at: ClassVar[Timestamp] = Timestamp()

    def attribute(self, slug: str) -> Attribute | None:
        """Return the attribute with this slug, None when there is none or attributes were not asked for."""
        return next((attribute for attribute in self.attributes or () if attribute.slug == slug), None)
