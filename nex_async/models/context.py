"""Ingested text (artifacts) and answers: two published shapes of each, one struct."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from ..errors import DecodeError
from .base import Model, Timestamp, convert, decode_any

__all__ = [
    "Answer",
    "AnswerMetadata",
    "AnswerSignal",
    "Artifact",
    "ArtifactCreated",
    "ArtifactResult",
    "EntityReference",
    "ExtractedEntity",
    "decode_artifact",
    "decode_artifact_created",
]


class ArtifactCreated(Model):
    """The receipt of an ingested text."""

    artifact_id: str
    status: str | None = None


class ExtractedEntity(Model):
    """A person, company or engagement found in a text. Names and actions come in one shape, properties in the other."""

    type: str | None = None
    name: str | None = None
    action: str | None = None
    context_id: str | None = None
    canonical_entity_id: str | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    previous_properties: dict[str, Any] = field(default_factory=dict)
    is_new: bool | None = None


class ArtifactResult(Model):
    """What came of a text. The counts are always filled; `insights` and `tasks` only where the server lists them."""

    entities_extracted: list[ExtractedEntity] = field(default_factory=list)
    entities_created: int = 0
    entities_updated: int = 0
    relationships_created: int = 0
    insights_created: int = 0
    tasks_suggested: int = 0
    insights: list[Any] = field(default_factory=list)
    tasks: list[Any] = field(default_factory=list)


class Artifact(Model):
    """A text on its way through extraction: `pending`, `processing`, `completed` or `failed`; any other: keep polling."""

    operation_id: str | None = None
    status: str | None = None
    result: ArtifactResult | None = None
    error: str | None = None
    _created_at: str | None = field(default=None, name="created_at")
    _completed_at: str | None = field(default=None, name="completed_at")

    created_at: ClassVar[Timestamp] = Timestamp()
    completed_at: ClassVar[Timestamp] = Timestamp()


class EntityReference(Model):
    """A record an answer speaks of. `type` is a name, or a numeric code in one of the shapes."""

    id: str | None = None
    name: str | None = None
    type: str | None = None
    count: int | None = None
    reason: str | None = None
    insights_matched: int | None = None
    score: float | None = None


class AnswerSignal(Model):
    """An insight an answer rests on."""

    insight_id: str | None = None
    id: str | None = None
    entity_id: str | None = None
    content: str | None = None
    score: float | None = None
    type: str | None = None


class AnswerMetadata(Model):
    """How an answer was found."""

    query_type: str | None = None
    total_entities_searched: int | None = None
    confidence: float | None = None


class Answer(Model):
    """An answer in plain language. Send `session_id` back to go on with the conversation."""

    answer: str = ""
    session_id: str | None = None
    entities_considered: list[EntityReference] = field(default_factory=list)
    signals_used: list[AnswerSignal] = field(default_factory=list)
    entity_references: list[EntityReference] = field(default_factory=list)
    metadata: AnswerMetadata | None = None

    @property
    def entities(self) -> list[EntityReference]:
        """The records the answer speaks of, from either shape, each once: by id, else by name and type."""
        merged: dict[tuple[str, ...], EntityReference] = {}
        by_name: dict[tuple[str, ...], EntityReference] = {}
        references = [*self.entities_considered, *self.entity_references]
        for reference in sorted(references, key=lambda entry: entry.id is None):
            name = (reference.name or "", reference.type or "")
            if reference.id is not None:
                by_name.setdefault(name, merged.setdefault(("id", reference.id), reference))
            elif name not in by_name:
                by_name[name] = merged.setdefault(("name", *name), reference)
        return list(merged.values())


def decode_artifact_created(data: bytes) -> ArtifactCreated:
    """Decode the receipt of a text. Raises `DecodeError` where no artifact id came back."""
    value = decode_any(data) if data.strip() else None
    if not isinstance(value, dict) or value.get("artifact_id") in (None, ""):
        raise DecodeError("the text was accepted, but no artifact_id came back, so it cannot be followed", raw=data)
    return convert(ArtifactCreated, value, data)


# Older names, and the names of the second shape, for the counts.
_COUNTS = {
    "entities_created": ("entities_created",),
    "entities_updated": ("entities_updated", "entities_processed"),
    "relationships_created": ("relationships_created", "relationships"),
    "insights_created": ("insights_created", "insights"),
    "tasks_suggested": ("tasks_suggested", "tasks"),
}
_RESULT_KEYS = {"entities_extracted", *(name for names in _COUNTS.values() for name in names)}


def decode_artifact(data: bytes) -> Artifact:
    """Decode an artifact in either shape of its result, or with the result's keys at the top as in older replies."""
    value = decode_any(data)
    if not isinstance(value, dict):
        raise DecodeError("an artifact must be an object", raw=data)
    result = value.get("result")
    if result is None and _RESULT_KEYS & value.keys():
        result = {key: value[key] for key in _RESULT_KEYS & value.keys()}
    if isinstance(result, dict):
        result = _normal_result(result)
    status = value.get("status")
    plain = {**value, "result": result, "status": status.lower() if isinstance(status, str) else status}
    if not isinstance(value.get("error"), (str, type(None))):
        plain["error"] = str(value["error"])
    return convert(Artifact, plain, data)


def _normal_result(result: dict[str, Any]) -> dict[str, Any]:
    normal: dict[str, Any] = {name: _count(result, keys) for name, keys in _COUNTS.items()}
    entities = result.get("entities_extracted")
    if isinstance(entities, list):
        normal["entities_extracted"] = [{"name": entry} if isinstance(entry, str) else entry for entry in entities]
    for key in ("insights", "tasks"):
        if isinstance(result.get(key), list):
            normal[key] = result[key]
    return normal


def _count(result: dict[str, Any], keys: tuple[str, ...]) -> int:
    for key in keys:
        value = result.get(key)
        if isinstance(value, list):
            return len(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return int(value)
    return 0
