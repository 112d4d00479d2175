"""Insights: what the AI derived, over REST and as they come."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

from .._typing import Unpack
from ..errors import InvalidRequestError
from ..feeds.events import InsightEvent
from ..feeds.insights import InsightFeed, insight_filter
from ..feeds.windows import history
from ..models import Insight, Rows
from ..models.base import Listing
from ..models.insights import InsightBatch, decode_insights
from ..paging import OnBadRow, Pager
from ..routes import LIST_INSIGHTS, Route
from ..transport.options import RequestOptions
from ..transport.wire import Query, in_range
from .base import Resource

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

    def history(
        self,
        start: datetime,
        end: datetime,
        *,
        on_bad_row: OnBadRow = "raise",
        resume: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Pager[Insight]:
        """Return a pager over every insight from `start` to `end`, oldest first, however many there are.

        `GET /v1/insights`, scope `insight.stream`. The API returns at most 100 insights of a range and has no pages: the
        range is read in windows that are halved until each is whole. More than that in one moment (a thousandth of a second;
        a second where the API ignores fractions) cannot be listed: `TruncatedResultWarning`. Raises `InvalidRequestError`
        for naive or reversed times.
        """
        if _before(end, start):
            raise InvalidRequestError("start must not be after end", argument="start")

        async def fetch(query: Query) -> InsightBatch:
            return await self._sender.send(LIST_INSIGHTS, (), query, options=options)

        return history(fetch, start, end, on_bad_row, resume)

    def stream(
        self,
        *,
        start: Literal["replay", "now"] | datetime = "replay",
        checkpoint: str | os.PathLike[str] | None = None,
        mode: Literal["fast", "exact"] = "fast",
        types: Collection[str] | None = None,
        min_confidence: float | None = None,
        where: Callable[[InsightEvent], bool] | None = None,
        on_gap: Literal["signal", "raise"] = "signal",
        **options: Unpack[RequestOptions],
    ) -> InsightFeed:
        """Return a feed of insights as they come; see `InsightFeed` for what it promises.

        `GET /v1/insights/stream` and `GET /v1/insights`, scope `insight.stream`. `start` says where a feed begins that has
        no past: with the latest 20 insights, with what is new from now on (to the second), or at a time. `checkpoint` is a
        file (SQLite, readable by its owner only) that lets the feed go on where an earlier process stopped; then `start` is
        used the first time only. `mode="exact"` delivers all from the list, with its id, a second or two later. `types`,
        `min_confidence` (0 to 1; what the list does not tell is chosen) and `where` choose insights. `on_gap="raise"` ends
        the feed with `GapError` where insights may be missing; otherwise it tells by a `Gap` signal. All feeds of a client
        share one connection.

        Raises `InvalidRequestError`; when opened, what the server refuses the stream with, `StorageError` for a checkpoint
        that is locked or damaged, `CheckpointError` for one that cannot be used, `TenantMismatch` for another workspace's.
        """
        if not isinstance(start, datetime) and start not in ("replay", "now"):
            raise InvalidRequestError("start must be 'replay', 'now' or a datetime", argument="start")
        if isinstance(start, datetime) and start.tzinfo is None:
            raise InvalidRequestError("start must be an aware datetime (give it a tzinfo)", argument="start")
        if mode not in ("fast", "exact"):
            raise InvalidRequestError("mode must be 'fast' or 'exact'", argument="mode")
        if on_gap not in ("signal", "raise"):
            raise InvalidRequestError("on_gap must be 'signal' or 'raise'", argument="on_gap")
        wants = insight_filter(types, min_confidence, where)
        return InsightFeed(self._sender, options, mode=mode, start=start, checkpoint=checkpoint, wants=wants, on_gap=on_gap)


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
