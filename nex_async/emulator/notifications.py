"""Notifications: alerts made from insights, preferences, and rules in plain language.

There is one user behind every key. A rule is kept and given back; it makes no alerts of its own.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import UNSET

from nex_async.emulator import bodies
from nex_async.emulator.call import Call, bad_request, not_found
from nex_async.emulator.store import Row, Store, to_json
from nex_async.emulator.timestamps import format_moment, parse_moment

__all__ = [
    "create_rule",
    "delete_rule",
    "get_preferences",
    "get_rule",
    "list_feed",
    "list_rules",
    "update_preferences",
]

_ALERT = "context_alert"
_TYPES = ("daily_digest", "meeting_summary", "task_reminder", "task_assigned", _ALERT)
_ALERTING = ("risk", "commitment", "opportunity")
_MOST_MINUTES = 7 * 24 * 60
_RULE = "id, name, prompt, is_enabled, schedule, created_at"
_LONGEST_NAME = 60

_SCHEDULES = (
    (r"\b(every hour|hourly)\b", "0 * * * *"),
    (r"\b(every morning|each morning)\b", "0 8 * * *"),
    (r"\b(every day|daily|each day)\b", "0 9 * * *"),
    (r"\b(every week|weekly|each week|every monday)\b", "0 9 * * 1"),
    (r"\b(every month|monthly|each month)\b", "0 9 1 * *"),
)
_DEFAULT_SCHEDULE = "*/15 * * * *"


class _Preferences(msgspec.Struct):
    """What a fresh workspace starts with."""

    frequency_minutes: int = 180
    enabled_types: list[str] = msgspec.field(default_factory=lambda: list(_TYPES))
    digest_enabled: bool = True


def list_feed(store: Store, call: Call) -> str:
    """`GET /v1/notifications/feed`: newest first; `since` belongs to the window, so that nothing of its second is lost."""
    limit = call.number("limit", default=20, low=1, high=50)
    since = _since(call.query.get("since", ""))
    if _ALERT not in _preferences(store).enabled_types:
        return to_json({"items": []})
    rows = store.rows(
        f"SELECT id, type, content, created_at FROM insights WHERE type IN ({', '.join('?' * len(_ALERTING))})"
        f" AND created_at >= ? AND {store.hidden_condition('artifact_id')} ORDER BY id DESC LIMIT ?",
        *(*_ALERTING, since, limit),
    )
    return to_json({"items": [_render_alert(store, row) for row in rows]})


def _since(text: str) -> int:
    try:
        return parse_moment(text) if text else -(2**62)
    except ValueError as error:
        raise bad_request(f"since: {error}") from None


def _render_alert(store: Store, row: Row) -> dict[str, Any]:
    number, kind, content, created = row
    names = store.rows(
        "SELECT r.name FROM insight_records i JOIN records r ON r.id = i.record_id WHERE i.insight_id = ? ORDER BY r.id",
        number,
    )
    about = ", ".join(name for (name,) in names)
    item = {"title": f"{kind.capitalize()}: {about}" if about else kind.capitalize(), "context": content}
    moment = format_moment(created)
    return {
        "id": str(number),
        "type": _ALERT,
        "status": "unread",
        "alert_time": moment,
        "sent_at": moment,
        "content": {"important_items": [{**item, "estimated_time": "5 min"}], "entity_changes": []},
    }


def get_preferences(store: Store, call: Call) -> str:
    """`GET /v1/notifications/preferences`."""
    return to_json(_preferences(store))


def update_preferences(store: Store, call: Call) -> str:
    """`PATCH /v1/notifications/preferences`: what is left out or null stays."""
    body = call.decode(bodies.UpdatePreferences)
    kept = _preferences(store)
    if body.frequency_minutes is not UNSET and body.frequency_minutes is not None:
        if not 1 <= body.frequency_minutes <= _MOST_MINUTES:
            raise bad_request(f"frequency_minutes must be between 1 and {_MOST_MINUTES}")
        kept.frequency_minutes = body.frequency_minutes
    if body.enabled_types is not UNSET and body.enabled_types is not None:
        kept.enabled_types = _checked_types(body.enabled_types)
    if body.digest_enabled is not UNSET and body.digest_enabled is not None:
        kept.digest_enabled = body.digest_enabled
    store.write("INSERT OR REPLACE INTO meta VALUES ('notification_preferences', ?)", to_json(kept))
    return to_json(kept)


def _checked_types(types: list[str]) -> list[str]:
    for index, kind in enumerate(types):
        if kind not in _TYPES:
            raise bad_request(f"enabled_types[{index}] must be one of {', '.join(_TYPES)}")
    return list(dict.fromkeys(types))


def _preferences(store: Store) -> _Preferences:
    found = store.row("SELECT value FROM meta WHERE key = 'notification_preferences'")
    return _Preferences() if found is None else msgspec.json.decode(found[0], type=_Preferences)


def create_rule(store: Store, call: Call) -> str:
    """`POST /v1/notifications/custom`: words such as "every week" set the schedule, else it is every 15 minutes."""
    prompt = call.decode(bodies.CreateRule).description.strip()
    if not prompt:
        raise bad_request("description must not be empty")
    row = (store.new_id(), _name(prompt), prompt, True, _schedule(prompt), store.now())
    store.write(f"INSERT INTO notification_rules ({_RULE}) VALUES (?, ?, ?, ?, ?, ?)", *row)
    return to_json(_render_rule(row))


def _name(prompt: str) -> str:
    """Return the first words of a condition."""
    line = " ".join(prompt.split())
    return line if len(line) <= _LONGEST_NAME else line[:_LONGEST_NAME].rpartition(" ")[0] or line[:_LONGEST_NAME]


def _schedule(prompt: str) -> str:
    text = prompt.casefold()
    return next((cron for words, cron in _SCHEDULES if re.search(words, text)), _DEFAULT_SCHEDULE)


def list_rules(store: Store, call: Call) -> str:
    """`GET /v1/notifications/custom`: oldest first."""
    rows = store.rows(f"SELECT {_RULE} FROM notification_rules ORDER BY id")
    return to_json({"rules": [_render_rule(row) for row in rows]})


def get_rule(store: Store, call: Call) -> str:
    """`GET /v1/notifications/custom/{id}`."""
    row = store.row(f"SELECT {_RULE} FROM notification_rules WHERE id = ?", call.id("id", "rule"))
    if row is None:
        raise not_found("rule", call.path["id"])
    return to_json(_render_rule(row))


def delete_rule(store: Store, call: Call) -> str:
    """`DELETE /v1/notifications/custom/{id}`: the one delete that answers an object."""
    if not store.write("DELETE FROM notification_rules WHERE id = ?", call.id("id", "rule")):
        raise not_found("rule", call.path["id"])
    return "{}"


def _render_rule(row: Row) -> dict[str, Any]:
    number, name, prompt, enabled, schedule, created = row
    return {
        "id": str(number),
        "name": name,
        "prompt": prompt,
        "is_enabled": bool(enabled),
        "schedule": schedule,
        "created_at": format_moment(created),
    }
