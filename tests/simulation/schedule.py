"""One schedule: a world, a client that lives and dies in it, and what came out of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import nex_async.feeds.checkpoint
from nex_async import InsightEvent, Nex
from nex_async.errors import DeadlineExceeded, NexError
from nex_async.feeds.events import Gap
from tests.harness.canary import KEY
from tests.harness.insight_world import EPOCH, Conditions, Crash, Fingerprint, InsightWorld, WorldTenant
from tests.harness.virtual import run_virtual

from .inline_database import InlineDatabase

__all__ = ["Hand", "Outcome", "quiet", "run_schedule"]

HALF_AN_HOUR = 1800.0
_numbers = itertools.count()


@dataclass(slots=True)
class Hand:
    """One insight as it was handed out; `processed` once the consumer was done with it and said so."""

    at: float
    life: int
    key: str
    source: str
    fingerprint: Fingerprint
    redelivered: bool
    processed: bool = False

    def line(self) -> str:
        """Return what the log says of it."""
        again = " again" if self.redelivered else ""
        return f"{self.at:10.3f} life {self.life} {self.source:8} {self.key} {self.fingerprint[1]!r}{again}"


@dataclass
class Outcome:
    """What a schedule came to. `hands` in the order of the hand-outs, `signals` with their times."""

    seed: int
    conditions: Conditions
    world: InsightWorld
    hands: list[Hand] = field(default_factory=list)
    signals: list[tuple[float, int, Any]] = field(default_factory=list)
    lives: int = 0
    failures: list[str] = field(default_factory=list)
    """Lives that ended by themselves."""
    tables: dict[str, int] = field(default_factory=dict)
    """How many rows the checkpoint held in the end."""

    @property
    def gaps(self) -> list[Gap]:
        """The gaps that were reported."""
        return [signal for _, _, signal in self.signals if isinstance(signal, Gap)]

    def log(self) -> list[str]:
        """Return everything the client did and learned, in words that do not depend on the process."""
        world = self.world
        lines = [hand.line() for hand in self.hands]
        lines += [f"{at:10.3f} life {life} {signal!r}" for at, life, signal in self.signals]
        lines += [f"{at - world.begun:10.3f} {what} -> {count}" for at, what, count in world.requests]
        lines += [f"{at:10.3f} {what}" for at, what in world.trace]
        return sorted(lines)


def run_schedule(seed: int, conditions: Conditions) -> Outcome:
    """Run one schedule to its end, and return what it came to."""
    random.seed(seed)
    path = f"simulated-{next(_numbers)}.db"
    try:
        with mock.patch.object(nex_async.feeds.checkpoint, "Database", InlineDatabase), quiet():
            return run_virtual(_run(seed, conditions, path if conditions.checkpoint else None))
    finally:
        InlineDatabase.forget(path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Log nothing: an hour of faults is a hundred thousand lines, and the outcome tells more."""
    logger = logging.getLogger("nex_async")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


async def _run(seed: int, conditions: Conditions, path: str | None) -> Outcome:
    world = InsightWorld(conditions, seed)
    outcome = Outcome(seed, conditions, world)
    end = Crash(world.end_at - world.begun, 0.0, graceful=True)
    for crash in (*conditions.crashes, end):
        life = _Life(outcome, path)
        await _sleep_until(world.begun + crash.at)
        await life.end(graceful=crash.graceful)
        await asyncio.sleep(crash.down)
    if path is not None:
        outcome.tables = _count(path)
    world.close()
    return outcome


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))


def _count(path: str) -> dict[str, int]:
    connection = InlineDatabase.files[path]
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}


class _Life:
    """One process of the client: it reads the feed, one event after the other, until it is ended."""

    def __init__(self, outcome: Outcome, path: str | None) -> None:
        self.outcome = outcome
        self.world = outcome.world
        self.path = path
        self.number = outcome.lives
        outcome.lives += 1
        self.tenant: WorldTenant = self.world.tenant()
        self.nex = Nex(KEY, base_url="http://127.0.0.1:9")
        self.nex._state.tenant = self.tenant  # type: ignore[assignment]
        self.ended = False
        self.task = self.world.loop.create_task(self._consume())

    async def _consume(self) -> None:
        try:
            while True:  # whoever cannot open the feed in a minute tries again
                try:
                    await self._read()
                    break
                except DeadlineExceeded:
                    await asyncio.sleep(5.0)
        except Exception as error:
            if not self.ended:
                self._failed(f"{type(error).__name__}: {error}")
        else:
            if not self.ended:
                self._failed("the iteration ended")

    def _failed(self, why: str) -> None:
        at = self.world.loop.time() - self.world.begun
        self.outcome.failures.append(f"life {self.number} ended by itself at {at:.1f}: {why}")

    async def _read(self) -> None:
        conditions, world, outcome = self.outcome.conditions, self.world, self.outcome
        start: Any = conditions.start
        if start == "past":
            start = datetime.fromtimestamp(EPOCH, timezone.utc) - timedelta(seconds=HALF_AN_HOUR)
        feed = self.nex.insights.stream(checkpoint=self.path, mode=conditions.mode, start=start)
        queue = feed.queue(maxsize=1000, overflow="block", signals=True)
        work = random.Random(outcome.seed)
        async with feed:
            async for event in queue:
                at = world.loop.time() - world.begun
                if not isinstance(event, InsightEvent):
                    outcome.signals.append((at, self.number, event))
                    continue
                hand = Hand(at, self.number, event.key, event.source, world.fingerprint(event.insight), event.redelivered)
                outcome.hands.append(hand)
                if conditions.work and not world.calm:
                    await asyncio.sleep(work.random() * conditions.work)
                hand.processed = True

    async def end(self, *, graceful: bool) -> None:
        """End the process: by a kill, after which nothing of it reaches anything, or in good order."""
        self.ended = True
        if not graceful:
            if self.path is not None:
                InlineDatabase.crash(self.path)
            self.tenant.kill()
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, NexError):
            await self.task
        await self.nex.aclose(drain=0)
        if self.path is not None and self.path in InlineDatabase.holders:
            self.outcome.failures.append(f"life {self.number} left its checkpoint open")
            InlineDatabase.crash(self.path)
