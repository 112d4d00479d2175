"""Relationships in the mirror's file: the definitions from their listing, the instances from the graph."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from ...models import RelationshipDefinition
from ...models.base import Model, decode
from ...models.graph import GraphEdge
from .file import Applied

__all__ = ["Edges", "apply_definitions", "apply_edges"]


class _Slice(Model):
    """What the mirror reads of a graph; the rest is passed over."""

    nodes: list[msgspec.Raw] = msgspec.field(default_factory=list)
    edges: list[GraphEdge] = msgspec.field(default_factory=list)
    total_nodes: int | None = None
    total_edges: int | None = None


class Edges(NamedTuple):
    """What a graph did to the table."""

    read: int
    applied: Applied
    deleted: int
    complete: bool


def apply_definitions(
    connection: sqlite3.Connection, definitions: Sequence[RelationshipDefinition], complete: bool
) -> tuple[Applied, int]:
    """Make the table of definitions what it should be; return what changed, and how many were deleted."""
    rows = {
        each.id: (
            each.id,
            each.type,
            each.entity_definition_1_id,
            each.entity_definition_2_id,
            each.entity_1_to_2_predicate,
            each.entity_2_to_1_predicate,
            each._created_at,
        )
        for each in definitions
    }
    return _replace(connection, "relationship_definitions", 7, rows.values(), delete=complete)


def apply_edges(connection: sqlite3.Connection, data: bytes) -> Edges:
    """Read a graph as it came, and make the table what it shows; nothing is deleted unless it shows everything.

    Raises `DecodeError`.
    """
    found = decode(_Slice, data)
    rows = {each.id: (each.id, each.definition_id, each.source, each.target, each.label) for each in found.edges}
    if found.total_edges is not None:
        complete = len(rows) >= found.total_edges
    else:
        complete = bool(found.nodes) and found.total_nodes is not None and len(found.nodes) >= found.total_nodes
    applied, deleted = _replace(connection, "relationships", 5, rows.values(), delete=complete)
    return Edges(len(rows), applied, deleted, complete)


def _replace(
    connection: sqlite3.Connection,
    table: str,
    width: int,
    rows: Collection[tuple[str | None, ...]],
    *,
    delete: bool,
) -> tuple[Applied, int]:
    """Make `rows` the contents of a table, without writing what is there already; return what changed."""
    query = "SELECT * FROM " + table  # noqa: S608 - one of two constants
    held: dict[str | None, tuple[str | None, ...]] = {row[0]: row for row in connection.execute(query)}
    fresh = [row for row in rows if held.get(row[0]) != row]
    met = {row[0] for row in rows}
    marks = ", ".join("?" * width)
    connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", fresh)  # noqa: S608
    gone = [(one,) for one in held if one not in met] if delete else []
    connection.executemany(f"DELETE FROM {table} WHERE id = ?", gone)  # noqa: S608
    inserted = sum(row[0] not in held for row in fresh)
    return Applied(inserted, len(fresh) - inserted), len(gone)
