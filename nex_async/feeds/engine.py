"""The engine behind insight feeds: it listens to the stream, sweeps the list, and hands out what the ledger calls new.

Correctness comes from the sweeps: repeated, overlapping, complete reads of the list. The stream makes it quick.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from .._logfields import fields_of
from ..errors import ClientClosed, FeedClosed, NexError, StorageError
from ..transport.options import RequestOptions
from ..transport.state import running_loop, start_apart
from .checkpoint import Checkpoint, Cursor
from .delivery import SOON, Delivery, Mode, Start
from .events import Closed, Connected, InsightEvent, Reconnecting
from .feed import Buffer, Consumer
from .hearing import Hearing
from .hub import Hub
from .reading import Reading
from .sse import ServerSentEvent

__all__ = ["Engine"]

_log = logging.getLogger("nex_async.feeds")


class Engine:
    """Hands out what is new, to any number of consumers, from the first that comes to the last that leaves."""

    def __init__(self, hub: Hub, mode: Mode, start: Start, checkpoint: Checkpoint | None, options: RequestOptions) -> None:
        self.hub: Hub = hub
        self._options = options
        self._checkpoint = checkpoint
        self._delivery = Delivery(hub, mode, start, checkpoint, self._part_with)
        self._outlet = self._delivery.outlet
        self._hearing = Hearing(self._delivery)
        self._reading = Reading(self._delivery, self._hearing, options)
        self._loop = hub.loop
        self._standing: asyncio.Future[None] = self._loop.create_future()
        self._ended = False
        self._error: Exception | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._forks: list[Engine] = []

    # ---- its consumers ----------------------------------------------------------------------------------------------

    def attach(self, consumer: Consumer[Any], *, late: bool = False) -> None:
        """Offer events to a consumer; the first starts the engine. To one that has ended it gives its end."""
        consumer.owner = self
        if self._ended:
            consumer.end(self._error)
            return
        self._outlet.consumers.append(consumer)
        if self._checkpoint is not None and isinstance(consumer, Cursor):
            self._checkpoint.join(consumer, late=late)
        elif self._delivery.start == "replay" and not late:
            for event in self._outlet.latest:
                consumer.offer(InsightEvent(event.key, "replay", event.insight, event.workspace, event.emitted_at))
        if not self._tasks:
            self.hub.sender.state.owned.add(self)
            self._spawn(self._live)

    def detach(self, consumer: Consumer[Any]) -> None:
        """Offer nothing more to a consumer; the engine ends with the last."""
        if running_loop() is not self._loop:
            with contextlib.suppress(RuntimeError):  # its loop is closed, and everything on it is gone
                self._loop.call_soon_threadsafe(self.detach, consumer)
            return
        if consumer in self._outlet.consumers:
            self._outlet.remove(consumer)
            if not self._outlet.consumers:
                self._stop()

    def has_room(self, consumer: Consumer[Any]) -> None:
        """Learn that a reader that was full is no more."""
        self._outlet.freed()

    async def opened(self) -> None:
        """Wait until the stream stands for the first time. Raises what keeps it from standing for good."""
        await asyncio.shield(self._standing)

    async def released(self) -> None:
        """Wait until everything is over that ended with the last consumer."""
        if not self._outlet.consumers:
            await self.over()

    def figures(self) -> dict[str, Any]:
        """Return what there is to tell of it, by the names of `InsightStats`."""
        connection, tally = self.hub.connection, self._outlet.tally
        last = connection.last_byte
        return {
            "connected": connection.standing,
            "silence": None if last is None else self._loop.time() - last,
            "redelivered": 0 if self._checkpoint is None else self._checkpoint.redelivered,
            "unbound": self._delivery.ledger.unbound,
            "splits": self._reading.windows.splits,
            "requests": self._reading.windows.requests,
            "degraded": tuple(sorted(tally.degraded)),
            **{name: getattr(tally, name) for name in _FIGURES},
        }

    def _part_with(self, consumer: Buffer[Any]) -> None:
        """Let a slow reader go on at a pace of its own, from what was handed to it so far."""
        engine = Engine(self.hub, self._delivery.mode, self._delivery.start, None, self._options)
        engine._delivery.ledger = self._delivery.ledger.copy()
        engine._hearing.follow(self._hearing)
        engine._reading.follow(self._reading)
        engine._standing.set_result(None)
        engine.attach(consumer)
        self._forks = [fork for fork in self._forks if not fork._ended]
        self._forks.append(engine)

    # ---- its life ---------------------------------------------------------------------------------------------------

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(start_apart(self._loop, self._watched(work)))

    async def _watched(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the engine's work; what ends it ends the engine."""
        try:
            await work()
        except Exception as error:
            self.ended(error)

    async def _live(self) -> None:
        """Listen and sweep until the last consumer is gone."""
        if self._checkpoint is not None:
            self._delivery.ledger = await self._checkpoint.open()
            for gap in self._checkpoint.untold:
                self._delivery.tell_gap(gap)
            for consumer in self._outlet.consumers:
                consumer.wake()
        self.hub.join(self)
        self._spawn(self._reading.run)
        await self._hearing.run()

    def _stop(self) -> None:
        """End everything. It closes by itself, whoever waits for it and however long."""
        self._ended = True
        self.hub.leave(self)
        this = asyncio.current_task() if running_loop() is self._loop else None
        for task in self._tasks:
            if task is not this:
                task.cancel()
        if not self._standing.done():
            self._standing.set_exception(FeedClosed("the feed was closed"))
            self._standing.exception()
        self.hub.sender.state.unshare(self)
        if self._closing is None and self._tasks:
            self._closing = self._loop.create_task(self._close())

    async def _close(self) -> None:
        await asyncio.wait(self._tasks)
        try:
            if self._checkpoint is not None:
                await self._checkpoint.aclose()
            for fork in self._forks:
                await fork.released()
            await self.hub.over()
        except StorageError as error:
            _log.warning("the checkpoint could not be closed in good order: %s", error, extra=fields_of(error))
        finally:
            self.hub.sender.state.owned.discard(self)

    def abort(self) -> None:
        """End it because its client ends."""
        if running_loop() is not self._loop:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.abort)
            return
        self._finish(ClientClosed("the client was closed"), Closed("client"))

    async def over(self) -> None:
        """Wait until its tasks have ended, and its file is closed."""
        if self._closing is not None and running_loop() is self._loop:
            await asyncio.shield(self._closing)

    def ended(self, error: Exception | None) -> None:
        """End by the server's word, or by an error that no other attempt can mend."""
        self._finish(error, Closed("204") if error is None else Closed("error", error))

    def _finish(self, error: Exception | None, signal: Closed) -> None:
        if self._ended:
            return
        self._error = error
        self._outlet.tell(signal)
        if not self._standing.done():
            if error is None:
                self._standing.set_result(None)
            else:
                self._standing.set_exception(error)
                self._standing.exception()  # nobody may be waiting for it
        consumers = list(self._outlet.consumers)
        self._stop()
        for consumer in consumers:
            consumer.end(error)

    # ---- what the hub tells -----------------------------------------------------------------------------------------

    def connected(self, attempts: int) -> None:
        """Learn that the stream stands; see `Listener`."""
        if not self._standing.done():
            self._standing.set_result(None)
        self._outlet.tell(Connected(attempts))
        self._reading.connected()

    def lost(self, error: NexError | None, attempt: int, delay: float) -> None:
        """Learn that it does not; see `Listener`."""
        self._outlet.tally.reconnects += attempt == 1
        self._reading.lost()
        self._outlet.tell(Reconnecting(attempt, delay, error))

    def greeted(self) -> None:
        """Look whether it is the right workspace; see `Listener`."""
        self._hearing.wake()

    def push(self, events: list[ServerSentEvent]) -> None:
        """Take events; see `Listener`."""
        self._hearing.push(events)

    @property
    def has_space(self) -> bool:
        """Whether more can be taken; see `Listener`."""
        return self._hearing.has_space

    def oversize(self) -> None:
        """Read the list for what the stream could not bring; see `Listener`."""
        self._outlet.tally.oversize += 1
        self._outlet.mention("oversize", None)
        self._delivery.timetable.within(SOON)


_FIGURES = (
    "reconnects", "delay", "live", "replayed", "backfilled", "duplicates", "ambiguous", "sweeps", "gaps", "undecodable",
    "unknown", "oversize",
)  # fmt: skip
