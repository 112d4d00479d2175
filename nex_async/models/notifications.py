"""Notifications: the feed, its preferences, and rules in plain language."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from .base import Model, Timestamp

__all__ = ["Notification", "NotificationPreferences", "NotificationRule"]


class Notification(Model):
    """One entry of the feed. `content` holds `important_items` and `entity_changes`."""

    id: str
    type: str | None = None
    status: str | None = None
    content: dict[str, Any] = field(default_factory=dict)
    _alert_time: str | None = field(default=None, name="alert_time")
    _sent_at: str | None = field(default=None, name="sent_at")

    alert_time: ClassVar[Timestamp] = Timestamp()
    sent_at: ClassVar[Timestamp] = Timestamp()


class NotificationPreferences(Model):
    """How often, and about what, the user behind the key is notified."""

    frequency_minutes: int | None = None
    enabled_types: list[str] = field(default_factory=list)
    digest_enabled: bool = False


class NotificationRule(Model):
    """A rule in plain language. `schedule` is a cron expression."""

    id: str
    name: str | None = None
    prompt: str | None = None
    is_enabled: bool = False
    schedule: str | None = None
    _created_at: str | None = field(default=None, name="created_at")

    created_at: ClassVar[Timestamp] = Timestamp()
