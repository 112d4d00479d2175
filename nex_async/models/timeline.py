"""The timeline of a record: what happened to it and to what hangs off it."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from .base import Model, Timestamp

__all__ = [
    "FieldChange",
    "TimelineAttribute",
    "TimelineEntity",
    "TimelineEvent",
    "TimelineListItem",
    "TimelineNote",
    "TimelinePayload",
    "TimelineTask",
]


class FieldChange(Model):
    """One field before and after; the values can be any JSON."""

    field_name: str | None = None
    old_value: Any = None
    new_value: Any = None


class TimelineTask(Model):
    """The task an event is about."""

    id: str | None = None
    title: str | None = None
    priority: str | None = None
    _due_date: str | None = field(default=None, name="due_date")
    _completed_at: str | None = field(default=None, name="completed_at")

    due_date: ClassVar[Timestamp] = Timestamp()
    completed_at: ClassVar[Timestamp] = Timestamp()


class TimelineNote(Model):
    """The note an event is about."""

    id: str | None = None
    title: str | None = None
    content: str | None = None


class TimelineEntity(Model):
    """The record an event is about."""

    id: str | None = None
    definition_id: str | None = None
    type: str | None = None
    name: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


class TimelineListItem(Model):
    """The list membership an event is about."""

    id: str | None = None
    definition_id: str | None = None
    list_name: str | None = None
    parent_id: str | None = None


class TimelineAttribute(Model):
    """The attribute an event is about."""

    id: str | None = None
    definition_id: str | None = None
    slug: str | None = None
    type: str | None = None
    value: Any = None
    plain_text: str | None = None


class TimelinePayload(Model):
    """What an event is about: the one field that matches its `resource_type`, and what changed."""

    task: TimelineTask | None = None
    note: TimelineNote | None = None
    entity: TimelineEntity | None = None
    list_item: TimelineListItem | None = None
    attribute: TimelineAttribute | None = None
    field_changes: list[FieldChange] = field(default_factory=list)


class TimelineEvent(Model):
    """One event. `resource_type` and `event_type` are open strings; aggregated events hold `children`."""

    id: str
    resource_type: str | None = None
    resource_id: str | None = None
    event_type: str | None = None
    event_payload: TimelinePayload | None = None
    created_by: str | None = None
    created_by_id: str | None = None
    is_aggregated: bool = False
    children: list[TimelineEvent] = field(default_factory=list)
    _event_timestamp: str | None = field(default=None, name="event_timestamp")

    event_timestamp: ClassVar[Timestamp] = Timestamp()
