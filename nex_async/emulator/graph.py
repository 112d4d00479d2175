"""The graph: records, the relationships between them, and what insights say about them, put together when asked.

- A record is a node; a relationship is an edge from its first record to its second.
- An insight is a node `ei:`, with an `insight` edge to each record it is about.
- An insight about several records joins the first with each other: by a `triplet` if it is of the type relationship (the
  verb is the label), else by a `context` edge. A triplet takes the place of a context edge.
- Two insights of one type that follow each other about one record are joined by an `insight_link`.
- What compounding has learnt about a record is a node `ki:`, linked to the insights it came from.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from nex_async.emulator.call import Call, bad_request
from nex_async.emulator.search import words_of
from nex_async.emulator.static_files import read_static
from nex_async.emulator.store import Store, to_json
from nex_async.emulator.timestamps import format_moment

__all__ = ["get_graph"]

_DEFAULT_LIMIT, _LARGEST_LIMIT = 1000, 5000
_DATA = "/*graph*/"

_PREDICATES = {
    "introduced": "introduced",
    "reports": "reports_to",
    "partner": "partner_of",
    "partnership": "partner_of",
    "works": "works_with",
    "knows": "knows",
    "met": "met",
}

_Json = dict[str, Any]


@dataclasses.dataclass(slots=True)
class _Insight:
    """An insight and the records it is about, in the order in which it names them."""

    id: int
    type: str
    content: str
    confidence: float
    records: list[tuple[int, str]]

    @property
    def node_id(self) -> str:
        return f"ei:{self.id}"


def get_graph(store: Store, call: Call) -> str:
    """`GET /v1/graph`: the newest `limit` records and all that touches them, as JSON or as a page that draws it."""
    limit = call.number("limit", default=_DEFAULT_LIMIT, low=1, high=_LARGEST_LIMIT)
    form = call.query.get("format") or "json"
    if form not in ("json", "html"):
        raise bad_request("format must be json or html")
    text = to_json(_assemble(store, limit))
    if form == "json":
        return text
    call.content_type = "text/html; charset=utf-8"
    return _page(text)


def _page(graph: str) -> str:
    """Return the page with the graph inside; no text of it can close the script element it stands in."""
    return read_static("graph.html").replace(_DATA, graph.replace("<", "\\u003c"))


def _assemble(store: Store, limit: int) -> _Json:
    nodes = _nodes(store, limit)
    # Ids rise with time: the slice is every record from its oldest on.
    oldest = int(nodes[-1]["id"]) if nodes else 2**63 - 1
    insights = _insights(store, oldest)
    learnt = _knowledge(store, oldest)
    told = [*_between_records(insights), *_to_records(insights), *_between_insights(insights)]
    context_edges = [*told, *_learnt(learnt, insights)]
    return {
        "nodes": nodes,
        "edges": _edges(store, oldest),
        "relationship_definitions": _definitions(store),
        "context_edges": context_edges,
        "insight_nodes": [*map(_insight_node, insights), *map(_knowledge_node, learnt)],
        "insights": _summaries(insights, oldest),
        "total_nodes": store.count("SELECT count(*) FROM records WHERE parent_id IS NULL"),
        "total_edges": store.count("SELECT count(*) FROM relationships"),
        "total_context_edges": len(context_edges),
    }


def _nodes(store: Store, limit: int) -> list[_Json]:
    rows = store.rows(
        "SELECT r.id, r.name, o.type, o.slug, r.created_at FROM records r JOIN objects o ON o.id = r.object_id"
        " WHERE r.parent_id IS NULL ORDER BY r.id DESC LIMIT ?",
        limit,
    )
    return [
        {
            "id": str(number),
            "name": name,
            "type": kind,
            "definition_slug": slug,
            "primary_attribute": "name",
            "created_at": format_moment(created),
        }
        for number, name, kind, slug, created in rows
    ]


def _edges(store: Store, oldest: int) -> list[_Json]:
    rows = store.rows(
        "SELECT i.id, i.record_1_id, i.record_2_id, d.predicate_1_to_2, d.type, d.id FROM relationships i"
        " JOIN relationship_definitions d ON d.id = i.definition_id"
        " WHERE i.record_1_id >= ? OR i.record_2_id >= ? ORDER BY i.id DESC",
        *(oldest, oldest),
    )
    return [
        {
            "id": str(number),
            "source": str(first),
            "target": str(second),
            "label": predicate or kind,
            "definition_id": str(definition_id),
        }
        for number, first, second, predicate, kind, definition_id in rows
    ]


def _definitions(store: Store) -> list[_Json]:
    rows = store.rows("SELECT id, type, predicate_1_to_2, predicate_2_to_1 FROM relationship_definitions ORDER BY id")
    return [
        {"id": str(number), "name": forth or back or kind, "entity_1_to_2": forth, "entity_2_to_1": back}
        for number, kind, forth, back in rows
    ]


def _insights(store: Store, oldest: int) -> list[_Insight]:
    """Return the insights about records of the slice, newest first."""
    found: dict[int, _Insight] = {}
    for number, kind, content, confidence, record_id, name in store.rows(
        "SELECT i.id, i.type, i.content, i.confidence, r.id, r.name FROM insights i"
        " JOIN insight_records l ON l.insight_id = i.id JOIN records r ON r.id = l.record_id"
        " WHERE i.id IN (SELECT insight_id FROM insight_records WHERE record_id >= ?)"
        f" AND {store.hidden_condition('i.artifact_id')} ORDER BY i.id DESC, r.id",
        oldest,
    ):
        insight = found.setdefault(number, _Insight(number, kind, content, confidence, []))
        insight.records.append((record_id, name))
    for insight in found.values():
        insight.records.sort(key=lambda record: _position(insight.content, record[1]))
    return list(found.values())


def _position(content: str, name: str) -> int:
    """Return where a text first names a record, its end if it does not."""
    words = name.split()
    place = content.casefold().find(words[0].casefold()) if words else -1
    return place if place >= 0 else len(content)


def _knowledge(store: Store, oldest: int) -> list[tuple[Any, ...]]:
    return store.rows(
        "SELECT k.id, k.type, k.content, k.confidence, k.record_id FROM knowledge k"
        " LEFT JOIN records r ON r.id = k.record_id WHERE k.record_id IS NULL OR r.id >= ? ORDER BY k.id DESC",
        oldest,
    )


def _between_records(insights: list[_Insight]) -> list[_Json]:
    """Join the records that insights name together: one edge for a pair, the newest triplet before any context."""
    triplets: dict[frozenset[int], _Json] = {}
    contexts: dict[frozenset[int], _Json] = {}
    for insight in insights:
        (first, _), *others = insight.records
        for other, _ in others:
            pair = frozenset((first, other))
            if insight.type == "relationship":
                triplets.setdefault(pair, _triplet(insight, first, other))
            else:
                contexts.setdefault(pair, _edge(f"ctx_{first}_{other}", str(first), str(other), "context", "context"))
    return [*triplets.values(), *(edge for pair, edge in contexts.items() if pair not in triplets)]


def _triplet(insight: _Insight, first: int, other: int) -> _Json:
    label = next((_PREDICATES[word] for word in words_of(insight.content) if word in _PREDICATES), "related_to")
    edge = _edge(f"tri_{first}_{other}", str(first), str(other), label, "triplet")
    return {**edge, "confidence": insight.confidence}


def _to_records(insights: list[_Insight]) -> list[_Json]:
    return [
        _edge(f"ei_edge_{insight.id}_{record_id}", insight.node_id, str(record_id), insight.type, "insight")
        for insight in insights
        for record_id, _ in insight.records
    ]


def _between_insights(insights: list[_Insight]) -> list[_Json]:
    """Link each insight with the one before it of the same type about the same first record."""
    newer: dict[tuple[str, int], _Insight] = {}
    edges: list[_Json] = []
    for insight in insights:
        key = insight.type, insight.records[0][0]
        later = newer.get(key)
        if later is not None:
            edges.append(_link(later.node_id, insight.node_id, min(later.confidence, insight.confidence)))
        newer[key] = insight
    return edges


def _learnt(learnt: list[tuple[Any, ...]], insights: list[_Insight]) -> list[_Json]:
    """Link what compounding has learnt with its record and with the insights it came from."""
    sources: dict[tuple[str, int], list[_Insight]] = {}
    for insight in insights:
        for record_id, _ in insight.records:
            sources.setdefault((insight.type, record_id), []).append(insight)
    edges: list[_Json] = []
    for number, kind, _, confidence, record_id in learnt:
        if record_id is not None:
            edges.append(_edge(f"ei_edge_{number}_{record_id}", f"ki:{number}", str(record_id), kind, "insight"))
            edges += [_link(f"ki:{number}", each.node_id, confidence) for each in sources.get((kind, record_id), ())]
    return edges


def _link(source: str, target: str, confidence: float) -> _Json:
    name = f"il_{source.partition(':')[2]}_{target.partition(':')[2]}"
    return {**_edge(name, source, target, "related_to", "insight_link"), "confidence": confidence}


def _edge(name: str, source: str, target: str, label: str, kind: str) -> _Json:
    return {"id": name, "source": source, "target": target, "label": label, "edge_type": kind}


def _insight_node(insight: _Insight) -> _Json:
    return {"id": insight.node_id, **_summary(insight), "source": "entity_insight"}


def _knowledge_node(row: tuple[Any, ...]) -> _Json:
    number, kind, content, confidence, _ = row
    return {"id": f"ki:{number}", "content": content, "confidence": confidence, "type": kind, "source": "knowledge_insight"}


def _summary(insight: _Insight) -> _Json:
    return {"content": insight.content, "confidence": insight.confidence, "type": insight.type}


def _summaries(insights: list[_Insight], oldest: int) -> dict[str, list[_Json]]:
    found: dict[str, list[_Json]] = {}
    for insight in insights:
        for record_id, _ in insight.records:
            if record_id >= oldest:
                found.setdefault(str(record_id), []).append(_summary(insight))
    return found
