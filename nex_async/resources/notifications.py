"""Notifications of the user behind the key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import UNSET, UnsetType

from .._typing import Unpack
from ..models import Notification, NotificationPreferences, NotificationRule
from ..paging import OnBadRow, Pager
from ..routes import (
    CREATE_RULE,
    DELETE_RULE,
    GET_PREFERENCES,
    GET_RULE,
    LIST_NOTIFICATIONS,
    LIST_RULES,
    UPDATE_PREFERENCES,
)
from ..transport.options import RequestOptions
from ..transport.wire import Id, in_range
from .base import Resource, given, moment, required_text

__all__ = ["Notifications"]


class Notifications(Resource):
    """`nex.notifications`: the feed, its preferences, and rules in plain language."""

    def feed(
        self,
        *,
        since: datetime | str | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        **options: Unpack[RequestOptions],
    ) -> Pager[Notification]:
        """Return a pager over notifications, newest first; `since` is the `sent_at` of the newest you have.

        `GET /v1/notifications/feed`, scope `notification.read`. `limit` is 1 to 50 (20 by default); one page.
        """
        query = {"since": moment("since", since) or None, "limit": in_range("limit", limit, 1, 50)}
        return self._single(LIST_NOTIFICATIONS, (), query, options=options, on_bad_row=on_bad_row)

    async def preferences(self, **options: Unpack[RequestOptions]) -> NotificationPreferences:
        """Return how often, and about what, the user is notified.

        `GET /v1/notifications/preferences`, scope `notification.read`.
        """
        return await self._sender.send(GET_PREFERENCES, options=options)

    async def update_preferences(
        self,
        *,
        frequency_minutes: int | UnsetType = UNSET,
        enabled_types: Sequence[str] | UnsetType = UNSET,
        digest_enabled: bool | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> NotificationPreferences:
        """Change what is given of the preferences, and return them.

        `PATCH /v1/notifications/preferences`, scope `notification.write`.
        """
        body = given(frequency_minutes=frequency_minutes, enabled_types=enabled_types, digest_enabled=digest_enabled)
        return await self._sender.send(UPDATE_PREFERENCES, body=body, options=options)

    def list_rules(self, *, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]) -> Pager[NotificationRule]:
        """Return a pager over the user's rules.

        `GET /v1/notifications/custom`, scope `notification.read`. The listing comes in one page.
        """
        return self._single(LIST_RULES, options=options, on_bad_row=on_bad_row)

    async def create_rule(self, description: str, /, **options: Unpack[RequestOptions]) -> NotificationRule:
        """Create a rule from a condition in plain language; it comes back as `prompt`.

        `POST /v1/notifications/custom`, scope `notification.write`. A lost reply raises `OutcomeUnknownError`.
        """
        body = {"description": required_text("description", description)}
        return await self._sender.send(CREATE_RULE, body=body, options=options)

    async def get_rule(self, rule_id: Id, /, **options: Unpack[RequestOptions]) -> NotificationRule:
        """Return one rule.

        `GET /v1/notifications/custom/{id}`, scope `notification.read`. Raises `NotFoundError` if there is no such rule.
        """
        return await self._sender.send(GET_RULE, (rule_id,), options=options)

    async def delete_rule(self, rule_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Delete a rule.

        `DELETE /v1/notifications/custom/{id}`, scope `notification.write`. Raises `NotFoundError` if there is no such rule.
        """
        await self._sender.send(DELETE_RULE, (rule_id,), options=options)
