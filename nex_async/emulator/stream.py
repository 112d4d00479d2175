"""The insight stream: one encoding of each batch for all listeners, and a bound for each.

A listener is registered before its replay is read, so that nothing falls between the two; what falls into both comes
twice, as it does with the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from aiohttp import web

from nex_async import routes
from nex_async.emulator.drift import thin
from nex_async.emulator.enrichment import Batch, Enriched, envelope, read_newest, render_enriched
from nex_async.emulator.faults import Fault, Faults, preset
from nex_async.emulator.listener import Listener
from nex_async.emulator.store import Store, to_json
from nex_async.emulator.switches import Settings
from nex_async.emulator.timestamps import timestamps_in
from nex_async.emulator.watch import Watcher

__all__ = ["InsightStream"]

_REPLAYED = 20
_GRACE_SECONDS = 0.5
"""How long a closing server waits for a listener to read what is queued for it."""
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
_ROUTE = routes.STREAM_INSIGHTS.name

Beginning: TypeAlias = tuple[bytes, list[Enriched]]
"""The first comment, and what is replayed."""
ReadStore: TypeAlias = Callable[[Callable[[Store], Beginning]], Awaitable[Beginning]]
"""Calls a function with the store, on the database's thread."""
Variant: TypeAlias = tuple[str, str, str]


class InsightStream:
    """The listeners of a running server."""

    def __init__(self, faults: Faults, bound: int) -> None:
        self._faults = faults
        self._bound = bound
        self._listeners: dict[Listener, None] = {}
        self.watchers: set[Watcher] = set()
        """Consoles; they see every batch, whatever fault its emission meets."""
        self._lagging: set[asyncio.Task[None]] = set()
        self._is_open = False

    @property
    def listeners(self) -> int:
        """How many streams are open."""
        return len(self._listeners)

    def open(self) -> None:
        """Let listeners come."""
        self._is_open = True

    async def answer(self, request: web.BaseRequest, settings: Settings, read: ReadStore, date: str) -> web.StreamResponse:
        """Serve one listener until it leaves, falls behind its bound, or the server ends it; `date` is the present."""
        listener = Listener(request, settings, self._bound, self._connection_fault(settings))
        self._listeners[listener] = None
        if not self._is_open:
            listener.end()
        try:
            connected, replayed = await read(_read_beginning)
            listener.start(connected + _replay(replayed, settings))
            response = web.StreamResponse(headers={**_HEADERS, "Date": date})
            await listener.serve(response)
            return response
        finally:
            del self._listeners[listener]
            listener.close()

    def _connection_fault(self, settings: Settings) -> Fault | None:
        return self._faults.draw("connection", _ROUTE) or preset(settings.faults, "connection", _ROUTE)

    def publish(self, batch: Batch) -> None:
        """Send a batch to every listener; nobody waits for anybody."""
        for watcher in self.watchers:
            watcher.see_batch(batch)
        fault = self._faults.draw("emission", _ROUTE)
        if fault is None:
            self._emit(batch, None)
        elif fault.kind == "stream_lag":
            task = asyncio.get_running_loop().create_task(self._emit_late(batch, fault))
            self._lagging.add(task)
            task.add_done_callback(self._lagging.discard)
        elif fault.kind == "duplicate_emission":
            self._emit(batch, None)
            self._emit(batch, None)
        elif fault.kind != "drop_emission":
            self._emit(batch, fault)

    async def _emit_late(self, batch: Batch, fault: Fault) -> None:
        await self._faults.hold(fault)
        self._emit(batch, None)

    def _emit(self, batch: Batch, fault: Fault | None) -> None:
        frames: dict[Variant, bytes] = {}
        for listener in list(self._listeners):
            variant = _variant(listener.settings)
            if variant not in frames:
                frames[variant] = _live(batch, listener.settings)
            struck = fault or preset(listener.settings.faults, "emission", _ROUTE)
            listener.put(frames[variant], struck)

    async def aclose(self) -> None:
        """End every stream in good order, and those that do not read by RST."""
        self._is_open = False
        for watcher in self.watchers:
            watcher.end()
        for task in list(self._lagging):
            task.cancel()
        await asyncio.gather(*self._lagging, return_exceptions=True)
        for listener in list(self._listeners):
            listener.end()
        ending = [asyncio.ensure_future(listener.over.wait()) for listener in self._listeners]
        if ending:
            await asyncio.wait(ending, timeout=_GRACE_SECONDS)
        for listener in list(self._listeners):
            listener.drop()
        await asyncio.gather(*ending)


def _variant(settings: Settings) -> Variant:
    return settings.timestamps, settings.omit_zero_values, settings.null_arrays


def _frame(event: str, payload: Any, settings: Settings) -> bytes:
    return f"event: {event}\ndata: {to_json(thin(settings, payload))}\n\n".encode()


def _live(batch: Batch, settings: Settings) -> bytes:
    with timestamps_in(settings.timestamps):
        items = [render_enriched(insight) for insight in batch.insights]
        return _frame("insight.batch.created", envelope(items, batch.operation_id, batch.emitted_at), settings)


def _read_beginning(store: Store) -> Beginning:
    connected = f": connected workspace_id={store.workspace_id} token_id={store.token_id}\n\n"
    return connected.encode(), read_newest(store, _REPLAYED)


def _replay(insights: list[Enriched], settings: Settings) -> bytes:
    with timestamps_in(settings.timestamps):
        return b"".join(_frame("insight.replay", _replayed(insight, settings), settings) for insight in insights)


def _replayed(insight: Enriched, settings: Settings) -> dict[str, Any]:
    """Return an insight as the replay tells it, in one of the forms that are conceivable."""
    item = render_enriched(insight)
    if settings.insights_replay == "bare_object":
        return item
    if settings.insights_replay == "one_per_insight":
        return {"insight": item}
    whole = envelope([item], insight.operation_id, insight.created_at)
    if settings.insights_replay == "simplified":
        bare = {key: value for key, value in item.items() if key != "evidence"}
        return {"insights": [bare], "insight_count": 1, "emitted_at": whole["emitted_at"]}
    return whole
