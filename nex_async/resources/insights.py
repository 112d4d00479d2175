"""Insights: what the AI derived, over REST and as they come."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta

from .._typing import Unpack
from ..errors import InvalidRequestError
from ..feeds.insights import InsightFeed
from ..models import Insight, Rows
from ..models.base import Listing
from ..models.insights import decode_insights
from ..paging import OnBadRow, Pager
from ..routes import LIST_INSIGHTS, Route
from ..transport.options import RequestOptions
from .base import Resource, in_range

__all__ = ["Insights"]

_DURATION = re.compile(r"(?=\d)(?:\d+h)?(?:\d+m)?(?:\d+s)?\Z", re.ASCII)


def _rows(data: bytes) -> Rows[Insight]:
    batch = decode_insights(data)
    return Rows(batch.insights, batch.errors, Listing())


_LISTING: Route[Rows[Insight]] = replace(LIST_INSIGHTS, decode=_rows)  # type: ignore[assignment, arg-type]


class Insights(Resource):
    """`nex.insights`: what the AI derived about the people and companies of the workspace."""

    def list(
        self,
        *,
        last: timedelta | str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        **options: Unpack[RequestOptions],
    ) -> Pager[Insight]:
        """Return a pager over recent insights: of the `last` while, or from `start` to `end`, or simply the latest.

        `GET /v1/insights`, scope `insight.stream`. `last` is a timedelta or a duration such as `30m` or `1h30m`; `limit` is
        1 to 100 (20 by default). The listing comes in one page: a window that holds more is cut at `limit`.
        """
        if last is not None and (start is not None or end is not None):
            raise InvalidRequestError("last cannot be combined with start and end", argument="last")
        if (start is None) != (end is None):
            raise InvalidRequestError("start and end come together", argument="end" if end is None else "start")
        if start is not None and end is not None and _before(end, start):
            raise InvalidRequestError("start must not be after end", argument="start")
        query = {
            "last": None if last is None else _duration(last),
            "from": start,
            "to": end,
            "limit": in_range("limit", limit, 1, 100),
        }
        return self._single(_LISTING, (), query, options=options, on_bad_row=on_bad_row)

    def stream(self, **options: Unpack[RequestOptions]) -> InsightFeed:
        """Return a feed of insights as they come; open it with `async with`.

        `GET /v1/insights/stream`, scope `insight.stream`. Opening raises `APIError` when the server refuses.
        """
        return InsightFeed(self._sender, options)


def _before(one: datetime, other: datetime) -> bool:
    if one.tzinfo is None or other.tzinfo is None:
        raise InvalidRequestError("start and end must be aware datetimes (give them a tzinfo)", argument="start")
    return one < other


def _duration(last: timedelta | str) -> str:
    """Return a duration the server is known to understand: hours, minutes and seconds, no days."""
    if isinstance(last, timedelta):
        seconds = int(last.total_seconds())
        if seconds < 1:
            raise InvalidRequestError("last must be at least one second", argument="last")
        hours, rest = divmod(seconds, 3600)
        minutes, seconds = divmod(rest, 60)
        parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
        return "".join(f"{count}{unit}" for count, unit in parts if count)
    if not isinstance(last, str) or not _DURATION.match(last):
        raise InvalidRequestError("last must be a timedelta or a duration such as '30m' or '1h30m'", argument="last")
    return last
