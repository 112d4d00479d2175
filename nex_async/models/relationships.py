"""Relationship definitions (which objects may be joined) and instances (which records are)."""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from .base import Model, Timestamp

__all__ = ["Relationship", "RelationshipDefinition"]


class RelationshipDefinition(Model):
    """Two objects that may be joined; `type` is one_to_one, one_to_many or many_to_many."""

    id: str
    type: str | None = None
    entity_definition_1_id: str | None = None
    entity_definition_2_id: str | None = None
    entity_1_to_2_predicate: str | None = None
    entity_2_to_1_predicate: str | None = None
    _created_at: str | None = field(default=None, name="created_at")

    created_at: ClassVar[Timestamp] = Timestamp()


class Relationship(Model):
    """Two records that are joined. A reply may hold nothing but the `id`."""

    id: str
    definition_id: str | None = None
    entity_1_id: str | None = None
    entity_2_id: str | None = None
    _created_at: str | None = field(default=None, name="created_at")

    created_at: ClassVar[Timestamp] = Timestamp()
