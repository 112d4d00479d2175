"""Insights: two published shapes, one struct."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from msgspec import field

from ..errors import DecodeError
from .base import Model, Timestamp, convert, decode_any

__all__ = [
    "Insight",
    "InsightArtifact",
    "InsightBatch",
    "InsightEntity",
    "InsightEvidence",
    "InsightSignal",
    "InsightTarget",
    "InsightWorkspace",
    "decode_insights",
]


# Without gc: these are trees that come in great numbers, and cannot hold themselves.
class InsightEntity(Model, gc=False):
    """A record that an insight of the simple shape is about."""

    id: str | None = None
    name: str | None = None
    type: str | None = None


class InsightSignal(Model, gc=False):
    """One observation that identifies the target of an insight."""

    type: str | None = None
    type_description: str | None = None
    value: str | None = None
    confidence: float | None = None
    observation_count: int | None = None
    _last_observed_at: str | None = field(default=None, name="last_observed_at")

    last_observed_at: ClassVar[Timestamp] = Timestamp()


class InsightTarget(Model, gc=False):
    """Whom or what an insight is about; `hint` is the best name to show."""

    type: str | None = None
    type_description: str | None = None
    entity_type: str | None = None
    entity_type_description: str | None = None
    hint: str | None = None
    signals: list[InsightSignal] = field(default_factory=list)
    anchors: dict[str, Any] = field(default_factory=dict)
    anchors_description: str | None = None


class InsightArtifact(Model, gc=False):
    """Where a piece of evidence came from."""

    type: str | None = None
    type_description: str | None = None
    subject: str | None = None
    content: str | None = None
    created_by: str | None = None
    _occurred_at: str | None = field(default=None, name="occurred_at")
    _created_at: str | None = field(default=None, name="created_at")

    occurred_at: ClassVar[Timestamp] = Timestamp()
    created_at: ClassVar[Timestamp] = Timestamp()


class InsightEvidence(Model, gc=False):
    """What an insight was derived from."""

    excerpt: str | None = None
    excerpt_description: str | None = None
    artifact: InsightArtifact | None = None


class Insight(Model, gc=False):
    """Something the AI derived. The simple shape has `id` and `entities`, the enriched one `target` and `evidence`.

    `content` is untrusted text: it may quote anybody. Do not put it into a prompt or a page unescaped.
    """

    id: str | None = None
    workspace_id: str | None = None
    type: str | None = None
    type_description: str | None = None
    content: str | None = None
    confidence: float | None = None
    confidence_level: str | None = None
    entities: list[InsightEntity] = field(default_factory=list)
    target: InsightTarget | None = None
    evidence: list[InsightEvidence] = field(default_factory=list)
    created_by: str | None = None
    _valid_from: str | None = field(default=None, name="valid_from")
    _valid_until: str | None = field(default=None, name="valid_until")
    _created_at: str | None = field(default=None, name="created_at")

    valid_from: ClassVar[Timestamp] = Timestamp()
    valid_until: ClassVar[Timestamp] = Timestamp()
    created_at: ClassVar[Timestamp] = Timestamp()


class InsightWorkspace(Model, gc=False):
    """The workspace an envelope speaks of; it carries no id."""

    name: str | None = None
    slug: str | None = None
    business_info: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None


class InsightBatch(Model):
    """Insights that came together, over REST or on the stream. `errors` lists items that could not be decoded."""

    insights: list[Insight] = field(default_factory=list)
    workspace: InsightWorkspace | None = None
    operation_id: str | None = None
    insight_count: int | None = None
    _emitted_at: str | None = field(default=None, name="emitted_at")
    errors: list[Any] = field(default_factory=list, name="__errors__")

    emitted_at: ClassVar[Timestamp] = Timestamp()


class _Usual(Model):
    """An envelope as it should be, of either shape."""

    insights: list[Insight] | msgspec.UnsetType = msgspec.UNSET
    data: list[Insight] | msgspec.UnsetType = msgspec.UNSET
    workspace: InsightWorkspace | None = None
    operation_id: str | int | None = None
    insight_count: int | None = None
    emitted_at: str | None = None


_usual = msgspec.json.Decoder(_Usual)


def decode_insights(data: bytes) -> InsightBatch:
    """Decode any published form: `data`, `insights`, a bare array, `{"insight": {...}}` or one bare insight.

    A bad item becomes an entry of `.errors` and costs only itself. Raises `DecodeError` when nothing of it is an insight.
    """
    try:
        usual = _usual.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_unusual(data)
    insights = usual.data if usual.insights is msgspec.UNSET else usual.insights
    if insights is msgspec.UNSET or (insights is usual.insights and usual.data is not msgspec.UNSET):
        return _decode_unusual(data)
    operation = usual.operation_id
    return InsightBatch(
        insights=insights,
        workspace=usual.workspace,
        operation_id=operation if operation is None else str(operation),
        insight_count=usual.insight_count,
        _emitted_at=usual.emitted_at,
    )


def _decode_unusual(data: bytes) -> InsightBatch:
    value = decode_any(data)
    envelope, items = _open(value)
    if items is None:
        raise DecodeError("the reply holds no insights", raw=data)
    insights: list[Insight] = []
    errors: list[DecodeError] = []
    for index, item in enumerate(items):
        if item is None:
            continue
        try:
            insights.append(convert(Insight, item, data))
        except DecodeError as error:
            error.path = f"$[{index}]{error.path[1:]}"
            errors.append(error.with_traceback(None))
    batch = _envelope(envelope, data)
    batch.insights = insights
    batch.errors = errors
    return batch


def _open(value: Any) -> tuple[dict[str, Any], list[Any] | None]:
    """Split a payload into its envelope and its items; no items means that it is no payload of insights."""
    if isinstance(value, list) or value is None:
        return {}, value or []
    if not isinstance(value, dict):
        return {}, None
    for key in ("data", "insights"):
        items = value.get(key)
        if items is not None:
            return value, items if isinstance(items, list) else None
    if "data" in value or "insights" in value:
        return value, []
    if isinstance(value.get("insight"), dict):
        return value, [value["insight"]]
    if "content" in value:
        return {}, [value]
    return value, [] if not value or "workspace" in value or "emitted_at" in value else None


_ENVELOPE = ("workspace", "operation_id", "insight_count", "emitted_at")


def _envelope(value: dict[str, Any], data: bytes) -> InsightBatch:
    """Read the envelope key by key, so that a strange one does not cost the insights inside."""
    kept: dict[str, Any] = {}
    for key in _ENVELOPE:
        if value.get(key) is None:
            continue
        try:
            convert(InsightBatch, {key: value[key]}, data)
        except DecodeError:
            continue
        kept[key] = value[key]
    return convert(InsightBatch, kept, data)
