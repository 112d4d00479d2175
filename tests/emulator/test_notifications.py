"""Notifications: the feed, its preferences, and rules in plain language."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Api, Clock

FEED = "/v1/notifications/feed"
PREFERENCES = "/v1/notifications/preferences"
RULES = "/v1/notifications/custom"


async def ingest(api: Api, *texts: str) -> None:
    for text in texts:
        await api("POST", "/v1/context/text", {"content": text})


async def titles(api: Api, path: str = FEED) -> list[str]:
    return [item["content"]["important_items"][0]["title"] for item in (await api("GET", path))["items"]]


async def test_alerts_come_from_insights(api: Api) -> None:
    """Risks, commitments and opportunities are alerts, newest first; other insights are none."""
    assert await api("GET", FEED) == {"items": []}
    await ingest(api, "ada@gmail.com is unhappy.", "bo@gmail.com signed.", "cy@gmail.com wants pricing for a trial.")
    await ingest(api, "Cy promised to send it.")
    assert await titles(api) == ["Commitment: Cy", "Opportunity: Cy", "Risk: Ada"]
    item = (await api("GET", FEED))["items"][-1]
    assert item["id"].isdigit()
    assert (item["type"], item["status"]) == ("context_alert", "unread")
    assert item["alert_time"] == item["sent_at"]
    assert item["content"]["important_items"][0]["context"] == "ada@gmail.com is unhappy."
    assert item["content"]["entity_changes"] == []


async def test_since_moves_with_the_newest_and_loses_nothing(api: Api, clock: Clock) -> None:
    """Asking since the newest sent_at gives that item again and whatever came after, also within its second."""
    await ingest(api, "ada@gmail.com is unhappy.")
    newest = (await api("GET", FEED))["items"][0]["sent_at"]
    clock.now += 0.5
    await ingest(api, "bo@gmail.com is unhappy.")
    assert await titles(api, f"{FEED}?since={newest}") == ["Risk: Bo", "Risk: Ada"]
    clock.now += 10
    await ingest(api, "cy@gmail.com is unhappy.")
    later = (await api("GET", FEED))["items"][0]["sent_at"]
    assert await titles(api, f"{FEED}?since={later}") == ["Risk: Cy"]
    assert await titles(api, f"{FEED}?since=2030-01-01T00:00:00.123456789%2B02:00") == []


async def test_the_limit_of_the_feed(api: Api) -> None:
    """The limit is 20 by default and 50 at most; a limit or moment that cannot be is named."""
    await ingest(api, " ".join(f"p{number}@gmail.com is unhappy." for number in range(55)))
    for query, count in (("", 20), ("?limit=1", 1), ("?limit=50", 50)):
        assert len((await api("GET", FEED + query))["items"]) == count
    for query in ("limit=0", "limit=51", "limit=x", "since=yesterday", "since=17"):
        await api.refused("GET", f"{FEED}?{query}", None, query.partition("=")[0])


async def test_preferences_keep_what_is_left_out(api: Api) -> None:
    """A change keeps the rest; null and an empty body change nothing."""
    fresh = await api("GET", PREFERENCES)
    assert fresh["frequency_minutes"] == 180
    assert "context_alert" in fresh["enabled_types"]
    assert await api("PATCH", PREFERENCES, {}) == fresh
    changed = await api("PATCH", PREFERENCES, {"frequency_minutes": 30, "digest_enabled": False})
    assert changed == {**fresh, "frequency_minutes": 30, "digest_enabled": False}
    nothing = {"frequency_minutes": None, "enabled_types": None, "digest_enabled": None}
    assert await api("PATCH", PREFERENCES, nothing) == changed
    assert await api("GET", PREFERENCES) == changed


async def test_alerts_that_are_switched_off_do_not_come(api: Api) -> None:
    """Without context_alert among the enabled types the feed is empty."""
    await ingest(api, "ada@gmail.com is unhappy.")
    await api("PATCH", PREFERENCES, {"enabled_types": ["daily_digest"]})
    assert await titles(api) == []
    await api("PATCH", PREFERENCES, {"enabled_types": ["context_alert", "context_alert"]})
    assert (await api("GET", PREFERENCES))["enabled_types"] == ["context_alert"]
    assert await titles(api) == ["Risk: Ada"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frequency_minutes", 0),
        ("frequency_minutes", 10_081),
        ("frequency_minutes", "30"),
        ("enabled_types", ["sms"]),
        ("enabled_types", "daily_digest"),
        ("digest_enabled", "yes"),
    ],
)
async def test_preferences_that_cannot_be_are_refused(api: Api, field: str, value: Any) -> None:
    """A value out of range or of another type is named, and nothing changes."""
    before = await api("GET", PREFERENCES)
    await api.refused("PATCH", PREFERENCES, {"digest_enabled": False, field: value}, field)
    assert await api("GET", PREFERENCES) == before


async def test_the_life_of_a_rule(api: Api) -> None:
    """A rule gives its condition back as prompt, is listed oldest first, and is gone after its deletion, which answers {}."""
    first = await api("POST", RULES, {"description": "  Tell me when a deal closes  "})
    assert first["prompt"] == first["name"] == "Tell me when a deal closes"
    assert first["is_enabled"] is True
    assert await api("GET", f"{RULES}/{first['id']}") == first
    second = await api("POST", RULES, {"description": "long " * 40})
    assert len(second["name"]) <= 60
    assert await api("GET", RULES) == {"rules": [first, second]}
    assert await api("DELETE", f"{RULES}/{first['id']}") == {}
    await api("DELETE", f"{RULES}/{first['id']}", status=404)
    await api("GET", f"{RULES}/{first['id']}", status=404)
    await api("GET", f"{RULES}/nobody", status=404)
    assert (await api("GET", RULES))["rules"] == [second]


@pytest.mark.parametrize(
    ("description", "cron"),
    [
        ("Tell me of churn", "*/15 * * * *"),
        ("Every hour, new deals", "0 * * * *"),
        ("A DAILY list of risks", "0 9 * * *"),
        ("each week the wins", "0 9 * * 1"),
        ("what changed, every month", "0 9 1 * *"),
    ],
)
async def test_the_schedule_is_read_from_the_words(api: Api, description: str, cron: str) -> None:
    """How often a rule runs is cron text, from its words or every 15 minutes."""
    assert (await api("POST", RULES, {"description": description}))["schedule"] == cron


async def test_a_rule_needs_a_condition(api: Api) -> None:
    """A rule without words is refused."""
    for body in ({}, {"description": " "}, {"description": None}, {"description": 7}):
        await api.refused("POST", RULES, body, "description")
