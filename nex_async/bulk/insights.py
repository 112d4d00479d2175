"""Insights as Arrow tables: everything from a moment on, read by windows of time."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec

from ..errors import TenantMismatch, TruncatedResultWarning
from ..feeds.windows import Row, Windows, micros, moment_of
from ..models.insights import InsightBatch
from ..paging import OnBadRow
from ..routes import LIST_INSIGHTS
from ..transport.options import RequestOptions
from ..transport.sender import Sender
from ..transport.wire import Query

__all__ = ["InsightTables"]

_ROWS = 5_000
_TEXTS = ("type", "content", "confidence_level", "target_hint", "target", "entities", "evidence", "created_by")
_TIMES = ("valid_from", "valid_until", "created_at")


class InsightTables:
    """Reads insights as Arrow tables. Needs pyarrow. Iterate over `since()`, once; the attributes tell of it after that.

    An insight's `id` is that of the feed: the API's, else a hash of its contents.
    """

    def __init__(self, sender: Sender, options: RequestOptions, *, workspace: str | None, on_bad_row: OnBadRow) -> None:
        self.newest: datetime | None = None
        """The newest `created_at` that came, never later than now."""
        self.workspace: str | None = workspace
        """Whose insights these are, where the API tells."""
        self.bad_rows: int = 0
        """Insights that could not be decoded, and were left out."""
        self._sender = sender
        self._options = options
        self._on_bad_row: OnBadRow = on_bad_row

    async def since(self, start: datetime) -> AsyncGenerator[Any, None]:
        """Iterate over the insights from `start` until now, oldest first, as tables of some thousand rows.

        `GET /v1/insights`, scope `insight.stream`; at least one table comes, which may be empty. Raises `DecodeError` for an
        insight that cannot be decoded, unless those are skipped, and `TenantMismatch` for another workspace's. Warns with
        `TruncatedResultWarning` where more insights share a moment than the API lists.
        """
        import pyarrow as pa

        schema, end = _schema(), datetime.now(timezone.utc)
        windows, todo = Windows(self._fetch), [(micros(min(start, end)), micros(end))]
        held: dict[str, Row] = {}
        while todo:
            window = await windows.step(todo)
            self._look_at(window.rows, end)
            if window.errors and self._on_bad_row == "raise":
                raise window.errors[0]
            self.bad_rows += len(window.errors)
            if window.is_cut:
                _warn_of_cut(window.start)
            held.update((row.id, row) for row in window.rows)
            if len(held) >= _ROWS or not todo:
                yield pa.Table.from_pylist([_values(row) for row in held.values()], schema)
                held = {}

    async def _fetch(self, query: Query) -> InsightBatch:
        return await self._sender.send(LIST_INSIGHTS, (), query, options=self._options)

    def _look_at(self, rows: Sequence[Row], end: datetime) -> None:
        """Note the newest moment, and whose insights these are."""
        created = [row.created for row in rows if row.created is not None]
        if created:
            last = min(moment_of(max(created)), end)
            self.newest = last if self.newest is None else max(self.newest, last)
        for workspace in {row.insight.workspace_id for row in rows if row.insight.workspace_id}:
            self.workspace = self.workspace or workspace
            if self.workspace != workspace:
                raise TenantMismatch("these are the insights of another workspace than those read before; keep them apart")


def _schema() -> Any:
    import pyarrow as pa

    time = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            *((name, pa.string()) for name in _TEXTS),
            ("confidence", pa.float64()),
            *((name, time) for name in _TIMES),
        ]
    )


def _values(row: Row) -> dict[str, Any]:
    insight = row.insight
    return {
        "id": row.id,
        "type": insight.type,
        "content": insight.content,
        "confidence": insight.confidence,
        "confidence_level": insight.confidence_level,
        "target_hint": insight.target.hint if insight.target else None,
        "target": _json(insight.target),
        "entities": _json(insight.entities),
        "evidence": _json(insight.evidence),
        "created_by": insight.created_by,
        "valid_from": insight.valid_from,
        "valid_until": insight.valid_until,
        "created_at": insight.created_at,
    }


def _json(value: Any) -> str | None:
    return msgspec.json.encode(value).decode() if value else None


def _warn_of_cut(start: int) -> None:
    warnings.warn(
        f"more insights share the moment {moment_of(start).isoformat()} than the API lists",
        TruncatedResultWarning,
        stacklevel=3,
    )
