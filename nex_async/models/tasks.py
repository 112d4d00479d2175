"""Tasks and notes."""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from .base import Model, Timestamp

__all__ = ["Note", "Task"]


class Task(Model):
    """A task. `priority` is an open string; `unspecified`, empty and None all mean none. Deleting sets `archived_at`."""

    id: str
    title: str | None = None
    description: str | None = None
    priority: str | None = None
    is_completed: bool = False
    assignee_ids: list[str] = field(default_factory=list)
    entity_ids: list[str] = field(default_factory=list)
    created_by: str | None = None
    created_by_id: str | None = None
    _due_date: str | None = field(default=None, name="due_date")
    _completed_at: str | None = field(default=None, name="completed_at")
    _created_at: str | None = field(default=None, name="created_at")
    _archived_at: str | None = field(default=None, name="archived_at")

    due_date: ClassVar[Timestamp] = Timestamp()
    completed_at: ClassVar[Timestamp] = Timestamp()
    created_at: ClassVar[Timestamp] = Timestamp()
    archived_at: ClassVar[Timestamp] = Timestamp()


class Note(Model):
    """A note. Deleting sets `archived_at`."""

    id: str
    title: str | None = None
    content: str | None = None
    entity_id: str | None = None
    created_by: str | None = None
    _created_at: str | None = field(default=None, name="created_at")
    _archived_at: str | None = field(default=None, name="archived_at")

    created_at: ClassVar[Timestamp] = Timestamp()
    archived_at: ClassVar[Timestamp] = Timestamp()
