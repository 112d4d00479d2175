"""Full-text search: the index over records, safe queries, and the search operation."""

from __future__ import annotations

import re
from typing import Any

from nex_async.emulator import bodies
from nex_async.emulator.call import Call, bad_request
from nex_async.emulator.rows import StoredRow, find_row
from nex_async.emulator.schema import ObjectDefinition
from nex_async.emulator.store import Store, to_json
from nex_async.emulator.values import texts_of

__all__ = [
    "add_text",
    "find_records",
    "match_expression",
    "record_text",
    "remove_text",
    "replace_text",
    "search_records",
    "words_of",
]

_WORD = re.compile(r"[^\W_]+")
_LONGEST_QUERY = 500
_CANDIDATES = 200
_HITS = 50


def record_text(definition: ObjectDefinition, values: dict[str, Any]) -> str:
    """Return what a record is found by: its values as text, a select by its label."""
    return "\n".join(text for _, text in texts_of(definition, values))


def add_text(store: Store, number: int, text: str) -> None:
    """Make a record findable."""
    store.write("INSERT INTO record_text (rowid, text) VALUES (?, ?)", number, text)


def replace_text(store: Store, number: int, old: str, new: str) -> None:
    """Follow a change of a record."""
    if old != new:
        store.write("UPDATE record_text SET text = ? WHERE rowid = ?", new, number)


def remove_text(store: Store, number: int) -> None:
    """Forget a record."""
    store.write("DELETE FROM record_text WHERE rowid = ?", number)


def words_of(text: str) -> list[str]:
    """Return the words of a text, as the index sees them."""
    return _WORD.findall(text.casefold())


def match_expression(words: list[str], operator: str) -> str:
    """Return an FTS5 query for texts with words that begin like `words`; only quoted words reach the query language."""
    return f" {operator} ".join(f'"{word}"*' for word in words)


def find_records(store: Store, words: list[str], *, limit: int, object_id: int | None = None) -> list[StoredRow]:
    """Return the records that hold every word, or, when none does, any of them; best first."""
    for operator in ("AND", "OR") if words else ():
        found = store.rows(
            "SELECT t.rowid FROM record_text t JOIN records r ON r.id = t.rowid"
            " WHERE record_text MATCH ? AND (? IS NULL OR r.object_id = ?) ORDER BY t.rank, t.rowid LIMIT ?",
            *(match_expression(words, operator), object_id, object_id, limit),
        )
        if found:
            rows = (find_row(store, number) for (number,) in found)
            return [row for row in rows if row is not None]
    return []


def search_records(store: Store, call: Call) -> str:
    """`POST /v1/search`: hits by object slug, best first."""
    query = call.decode(bodies.Search).query
    if not 1 <= len(query) <= _LONGEST_QUERY:
        raise bad_request(f"query must have 1 to {_LONGEST_QUERY} characters")
    words = words_of(query)[:50]
    results: dict[str, list[dict[str, Any]]] = {}
    for row in find_records(store, words, limit=_CANDIDATES):
        definition = store.schema.objects[row.object_id]
        results.setdefault(definition.slug, []).append(_hit(definition, row, query, words))
    for slug, hits in results.items():
        results[slug] = sorted(hits, key=_by_score)[:_HITS]
    return to_json({"results": results, "errored_search_types": []})


def _by_score(hit: dict[str, Any]) -> float:
    return -float(hit["score"])


def _hit(definition: ObjectDefinition, row: StoredRow, query: str, words: list[str]) -> dict[str, Any]:
    matched = _matched_value(definition, row, words)
    return {
        "id": str(row.id),
        "primary_value": row.name,
        "matched_value": matched or row.name,
        "score": _score(row.name, matched, query, words),
        "entity_definition_id": str(row.object_id),
    }


def _matched_value(definition: ObjectDefinition, row: StoredRow, words: list[str]) -> str:
    """Return the value that holds most of the words; of equals the first."""
    texts = [text for _, text in texts_of(definition, row.values())]
    return max(texts, key=lambda text: _coverage(text, words), default="")


def _coverage(text: str, words: list[str]) -> float:
    own = words_of(text)
    return sum(any(other.startswith(word) for other in own) for word in words) / len(words)


def _score(name: str, matched: str, query: str, words: list[str]) -> float:
    """Return 0 to 1: 1 for the very name, 0.9 for its beginning, less for words in it, less for other values."""
    own, wanted = name.casefold().strip(), query.casefold().strip()
    if own == wanted:
        return 1.0
    if own.startswith(wanted):
        return 0.9
    return round(max(0.8 * _coverage(name, words), 0.6 * _coverage(matched, words), 0.1), 3)
