"""The graph of a workspace: records, what joins them, and what the AI derived about them."""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from .base import Model, Timestamp

__all__ = ["ContextEdge", "EntityInsight", "Graph", "GraphEdge", "GraphNode", "GraphRelationshipDefinition", "InsightNode"]


class GraphNode(Model):
    """A record, or a `ghost` that is only spoken of."""

    id: str
    name: str | None = None
    type: str | None = None
    definition_slug: str | None = None
    primary_attribute: str | None = None
    summary: str | None = None
    _created_at: str | None = field(default=None, name="created_at")

    created_at: ClassVar[Timestamp] = Timestamp()


class GraphEdge(Model):
    """A relationship between two records; either end may lie outside the slice returned."""

    id: str
    source: str | None = None
    target: str | None = None
    label: str | None = None
    definition_id: str | None = None


class GraphRelationshipDefinition(Model):
    """A kind of relationship, with its label in each direction."""

    id: str
    name: str | None = None
    entity_1_to_2: str | None = None
    entity_2_to_1: str | None = None


class ContextEdge(Model):
    """A connection the AI derived; `edge_type` is context, triplet, insight or insight_link."""

    id: str
    source: str | None = None
    target: str | None = None
    label: str | None = None
    edge_type: str | None = None
    confidence: float | None = None


class InsightNode(Model):
    """An insight as a node of the graph."""

    id: str
    content: str | None = None
    type: str | None = None
    confidence: float | None = None
    source: str | None = None


class EntityInsight(Model):
    """An insight about one record, in short."""

    content: str | None = None
    confidence: float | None = None
    type: str | None = None


class Graph(Model):
    """A slice of the graph, newest nodes first; the totals count the whole workspace."""

    nodes: list[GraphNode] = field(default_factory=list)
    edges: list[GraphEdge] = field(default_factory=list)
    relationship_definitions: list[GraphRelationshipDefinition] = field(default_factory=list)
    context_edges: list[ContextEdge] = field(default_factory=list)
    insight_nodes: list[InsightNode] = field(default_factory=list)
    insights: dict[str, list[EntityInsight]] = field(default_factory=dict)
    total_nodes: int | None = None
    total_edges: int | None = None
    total_context_edges: int | None = None
