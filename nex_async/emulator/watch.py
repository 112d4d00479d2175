"""What a console sees as it happens: requests and insights, gathered so that a busy server is not slowed by its audience."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec

from nex_async.emulator.enrichment import Batch, render_enriched
from nex_async.emulator.request_log import Entry

__all__ = ["Watcher"]

_MOST_WAITING = 500
_PAUSE = 0.1
_KEEPALIVE = 15.0


class Watcher:
    """One console. It is told of everything, keeps the newest 500 of each kind, and hands them out ten times a second."""

    def __init__(self) -> None:
        self._requests: deque[Entry] = deque(maxlen=_MOST_WAITING)
        self._insights: deque[dict[str, Any]] = deque(maxlen=_MOST_WAITING)
        self._wake = asyncio.Event()
        self._over = False

    def see_request(self, entry: Entry) -> None:
        """Note a request that has come, or what became of it."""
        self._requests.append(entry)
        self._wake.set()

    def see_batch(self, batch: Batch) -> None:
        """Note insights that were made."""
        self._insights.extend(render_enriched(insight) for insight in batch.insights)
        self._wake.set()

    def end(self) -> None:
        """Tell the console that the server stops."""
        self._over = True
        self._wake.set()

    async def next_event(self) -> bytes | None:
        """Return the next event for the page, a comment when there is nothing to tell, None at the end."""
        try:
            await asyncio.wait_for(self._wake.wait(), _KEEPALIVE)
        except (asyncio.TimeoutError, TimeoutError):
            return b": keepalive\n\n"
        if self._over:
            return None
        await asyncio.sleep(_PAUSE)
        self._wake.clear()
        latest = {entry.number: entry for entry in self._requests}
        news = {"requests": [msgspec.structs.asdict(entry) for entry in latest.values()], "insights": list(self._insights)}
        self._requests.clear()
        self._insights.clear()
        return b"data: " + msgspec.json.encode(news) + b"\n\n"
