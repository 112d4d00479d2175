"""Search results, grouped by object type."""

from __future__ import annotations

from typing import Any

from msgspec import field

from .base import Model, convert, decode_any

__all__ = ["SearchHit", "SearchResults", "decode_search"]


class SearchHit(Model):
    """A record that matched. `score` grows with the match."""

    id: str
    primary_value: str | None = None
    matched_value: str | None = None
    score: float = 0.0
    entity_definition_id: str | None = None


class SearchResults(Model):
    """Hits by object type or slug. When some types could not be searched they are named, and the result is partial."""

    results: dict[str, list[SearchHit]] = field(default_factory=dict)
    errored_search_types: list[str] = field(default_factory=list)

    @property
    def partial(self) -> bool:
        """Whether some types could not be searched."""
        return bool(self.errored_search_types)

    def flat(self) -> list[SearchHit]:
        """Return every hit, best first; equal scores keep the server's order."""
        hits = [hit for group in self.results.values() for hit in group]
        return sorted(hits, key=lambda hit: -hit.score)


def decode_search(data: bytes) -> SearchResults:
    """Decode a search reply; null groups are empty, an array in place of the map is grouped by each hit's type."""
    value = decode_any(data)
    if isinstance(value, dict):
        value = {**value, "results": _groups(value.get("results"))}
    return convert(SearchResults, value, data)


def _groups(results: Any) -> Any:
    if isinstance(results, dict):
        return {name: hits or [] for name, hits in results.items()}
    if not isinstance(results, list):
        return {} if results is None else results
    groups: dict[str, list[Any]] = {}
    for hit in results:
        kind = hit.get("type") if isinstance(hit, dict) else None
        groups.setdefault(kind if isinstance(kind, str) else "", []).append(hit)
    return groups
