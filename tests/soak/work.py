"""Who works at once: an author of insights, a listener, a bulk writer, callers. What they were told goes to files, not to memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from nex_async import Nex, SessionPool, Timeouts
from nex_async.bulk.report import Outcome
from nex_async.errors import (
    DeadlineExceeded,
    NexError,
    OutcomeUnknownError,
    RetryBudgetExhausted,
    ServerError,
    TransportError,
)
from nex_async.feeds.events import Gap, InsightEvent

from .truth import Ending, Heard, Values

__all__ = ["OBJECT", "Author", "Caller", "Listener", "Scene", "Writer", "callers"]

OBJECT = "thing"
_REMEMBERED = 50
"""So many of its own tasks a caller reads again."""
_BAD_WEATHER = (TransportError, DeadlineExceeded, OutcomeUnknownError, RetryBudgetExhausted, ServerError)
"""What a call may end with; anything else ends the soak."""
_HANDLING = 0.01
_DELAYS = (1, 10, 80)
"""Bounds in seconds by which insights are counted; a silent stream is noticed after 75."""
_LARGEST_RUN = 120
_KEYS = 300


@dataclass
class Scene:
    """What all of them share. `url` leads through the proxy, `direct` does not."""

    url: str
    direct: str
    home: Path
    seed: int
    timeouts: Timeouts
    quarantine: float
    pace: float
    """Multiplies every pause."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when no more work is to be begun."""
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Replies that were not those of their calls."""
    waiting: dict[str, float] = field(default_factory=dict)
    """Insights that were made and not heard yet, and when they were."""
    latest: float = 0.0
    """The longest that one was under way, in seconds."""

    def draw(self, name: str) -> random.Random:
        """Return the random numbers of one of them."""
        return random.Random(f"{self.seed} {name}")

    async def pause(self, seconds: float) -> None:
        """Wait for so long, or until it is time to stop."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds * self.pace)


class Notes:
    """A file of lines of JSON: what is only needed at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def write(self, *values: Any) -> None:
        if self._file is None:
            self._file = self._path.open("a")
        self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def read(self) -> Iterator[Any]:
        if self._file is not None:
            with self._path.open() as lines:
                yield from map(json.loads, lines)


class Author:
    """Makes insights, one to three at a time, by texts that go straight to the server."""

    def __init__(self, scene: Scene, key: str) -> None:
        self._scene, self._key = scene, key

    async def work(self) -> None:
        scene, draw, number = self._scene, self._scene.draw("author"), 0
        async with Nex(self._key, base_url=scene.direct) as nex:
            while not scene.stopping.is_set():
                texts = [_text(number + n) for n in range(draw.choice((1, 1, 2, 3)))]
                number += len(texts)
                scene.waiting.update(dict.fromkeys(texts, asyncio.get_running_loop().time()))
                await nex.request("POST", "/v1/context/text", body={"content": "\n".join(texts)})
                scene.counts["insights"] += len(texts)
                await scene.pause(draw.expovariate(0.7))


def _text(number: int) -> str:
    return f"Guest {number % 40} <guest{number % 40}@x.io> asked for demo {number}."


class Listener:
    """Hears insights with a checkpoint, in several lives: each ends while it handles an insight, which comes again then."""

    def __init__(self, scene: Scene, key: str, lives: int, seconds: float) -> None:
        self._scene, self._key = scene, key
        self._lives, self._seconds = lives, seconds
        self._notes = Notes(scene.home / "heard")
        self.opened = asyncio.Event()
        self._handling = asyncio.Event()
        self.reconnects = self.requests = 0

    async def work(self) -> None:
        """Listen until cancelled."""
        scene, draw = self._scene, self._scene.draw("listener")
        try:
            for _ in range(self._lives - 1):
                life = asyncio.get_running_loop().create_task(self._live())
                try:
                    wait = self._seconds / self._lives * draw.uniform(0.6, 0.9)
                    await asyncio.wait([life], timeout=wait)
                    self._handling.clear()
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._handling.wait(), min(10.0, wait / 2))
                finally:
                    life.cancel()
                    await asyncio.wait([life])
                if not life.cancelled():
                    life.result()
                scene.counts["lives"] += 1
                await self._miss_some()
            await self._live()
        finally:
            self._notes.close()

    async def _miss_some(self) -> None:
        """Stay away until an insight was made that nobody heard."""
        made = self._scene.counts["insights"]
        while self._scene.counts["insights"] == made and not self._scene.stopping.is_set():
            await asyncio.sleep(0.05)

    async def _live(self) -> None:
        while True:
            try:
                await self._listen()
            except NexError as error:  # the network is too bad to open it
                self._scene.counts[f"listener: {type(error).__name__}"] += 1
                await asyncio.sleep(1.0)

    async def _listen(self) -> None:
        scene, checkpoint = self._scene, self._scene.home / "insights.db"
        async with Nex(self._key, base_url=scene.url, timeout=scene.timeouts) as nex:
            feed = nex.insights.stream(checkpoint=checkpoint)
            queue = feed.queue(signals=True)
            try:
                async with feed:
                    self.opened.set()
                    async for event in queue:
                        if isinstance(event, InsightEvent):
                            self._hear(event)
                            await asyncio.sleep(_HANDLING)
                        elif isinstance(event, Gap):
                            scene.counts["gaps"] += 1
                            self._notes.write("gap", event.start.isoformat(), event.end.isoformat())
            finally:
                self.reconnects += feed.stats.reconnects
                self.requests += feed.stats.requests

    def _hear(self, event: InsightEvent) -> None:
        scene, content = self._scene, event.insight.content or ""
        self._notes.write("heard", content, event.redelivered)
        scene.counts[f"heard {event.source}"] += 1
        scene.counts["redelivered"] += event.redelivered
        made = scene.waiting.pop(content, None)
        if made is not None:
            took = asyncio.get_running_loop().time() - made
            scene.latest = max(scene.latest, took)
            scene.counts[next((f"within {bound} s" for bound in _DELAYS if took <= bound), "later")] += 1
        self._handling.set()

    def heard(self) -> list[Heard]:
        """Return what was handed out, in its order."""
        return [Heard(*values) for kind, *values in self._notes.read() if kind == "heard"]

    def gaps(self) -> list[tuple[datetime, datetime]]:
        """Return the gaps that were told."""
        return [
            (datetime.fromisoformat(start), datetime.fromisoformat(end))
            for kind, start, end in self._notes.read()
            if kind == "gap"
        ]


class Writer:
    """Writes rows in runs with one journal, one after another; some runs are left in the middle and gone on with."""

    def __init__(self, scene: Scene, key: str) -> None:
        self._scene, self._key = scene, key
        self.values = Values()

    async def work(self) -> None:
        scene, draw, number = self._scene, self._scene.draw("writer"), 0
        async with Nex(self._key, base_url=scene.url, timeout=scene.timeouts) as nex:
            while not scene.stopping.is_set():
                number += 1
                rows = [
                    _row(f"row {draw.randrange(_KEYS)}", number * 1000 + n)
                    for n in range(max(10, int(_LARGEST_RUN * min(1.0, scene.pace))))
                ]
                left = draw.randrange(len(rows)) if draw.random() < 0.4 else None
                while True:
                    try:
                        if await self._run(nex, number, rows, left):
                            break
                    except _BAD_WEATHER as error:  # it reads the object's definition first, and that failed
                        scene.counts[f"writer: {type(error).__name__}"] += 1
                        await scene.pause(1.0)
                    left = None
                scene.counts["runs"] += 1

    async def _run(self, nex: Nex, number: int, rows: list[dict[str, Any]], left: int | None) -> bool:
        """Write the rows; return whether all are dealt with. A run is left after `left` outcomes."""
        scene = self._scene

        async def source() -> AsyncIterator[dict[str, Any]]:
            for row in rows:
                self.values.tried(row["key"], row["n"])
                yield row
                await scene.pause(0.12)

        run = nex.records.upsert_many(
            OBJECT,
            source(),
            match_on="key",
            journal=scene.home / "rows.db",
            job_id=f"run {number}",
            quarantine=scene.quarantine,
        )
        async with run:
            async for outcome in run:
                self._note(outcome)
                if left is not None and (left := left - 1) < 0:
                    scene.counts["runs left"] += 1
                    break
        report = run.report
        if report.finished:  # its counts include those before it was left
            scene.counts["row requests"] += report.requests
            scene.counts["row retries"] += report.retries
            scene.counts["rows"] += report.rows
            if not report.failed:
                for row in rows:  # also those whose outcome nobody read
                    self.values.written(row["key"], row["n"])
        return report.finished

    def _note(self, outcome: Outcome) -> None:
        row, value = outcome.row, outcome.value
        if not outcome.ok:
            self._scene.wrong.append(f"{row} was set aside: {outcome.error}")
        elif value is not None and (value.attributes.get("key"), value.attributes.get("n")) != (row["key"], row["n"]):
            self._scene.wrong.append(f"{row} was answered by {value.attributes}")


def _row(key: str, value: int) -> dict[str, Any]:
    return {"name": key, "key": key, "n": value}


class Caller:
    """Creates, reads and upserts, one call after another; knows what each call must be answered by."""

    def __init__(self, scene: Scene, nex: Nex, name: str) -> None:
        self._scene, self._nex, self.name = scene, nex, name
        self._draw = scene.draw(name)
        self._notes = Notes(scene.home / f"created by {name}")
        self._own: list[tuple[str, str]] = []
        self._number = 0
        self.values = Values()

    async def work(self) -> None:
        scene, draw = self._scene, self._draw
        try:
            while not scene.stopping.is_set():
                self._number += 1
                call = draw.choice((self._create, self._read, self._read, self._upsert))
                name = call.__name__.removeprefix("_")
                try:
                    await call()
                    scene.counts[f"{name}: done"] += 1
                except _BAD_WEATHER as error:
                    scene.counts[f"{name}: {type(error).__name__}"] += 1
                await scene.pause(draw.expovariate(2.0))
        finally:
            self._notes.close()

    async def _create(self) -> None:
        title = f"{self.name} task {self._number}"
        ending: Ending = "unknown"  # also when it is cancelled
        try:
            task = await self._nex.tasks.create(title)
            ending = "done"
            if task.title != title:
                self._scene.wrong.append(f"the create of {title!r} was answered by {task.title!r}")
            self._own.append((task.id, title))
            del self._own[:-_REMEMBERED]
        except OutcomeUnknownError:
            raise
        except NexError as error:
            ending = "unknown" if getattr(error, "sent", "no") == "maybe" else "failed"
            raise
        finally:
            self._notes.write(title, ending)

    async def _read(self) -> None:
        if not self._own:
            return
        id, title = self._draw.choice(self._own)
        if self._draw.random() < 0.1:
            await self._give_up(id)
        task = await self._nex.tasks.get(id)
        if (task.id, task.title) != (id, title):
            self._scene.wrong.append(f"the read of {id} {title!r} was answered by {task.id} {task.title!r}")

    async def _give_up(self, id: str) -> None:
        """Leave a read in the middle: its reply must not be taken for that of the next call."""
        reading = asyncio.get_running_loop().create_task(self._left_read(id))
        try:
            await asyncio.wait([reading], timeout=self._draw.uniform(0.0, 0.005))
        finally:
            reading.cancel()
            await asyncio.wait([reading])
        self._scene.counts["reads left"] += reading.cancelled()

    async def _left_read(self, id: str) -> None:
        with contextlib.suppress(*_BAD_WEATHER):
            await self._nex.tasks.get(id)

    async def _upsert(self) -> None:
        key, value = f"{self.name} key {self._draw.randrange(10)}", self._number
        self.values.tried(key, value)
        record = await self._nex.records.upsert(OBJECT, _row(key, value), match_on="key")
        self.values.written(key, value)
        if (record.attributes.get("key"), record.attributes.get("n")) != (key, value):
            self._scene.wrong.append(f"the upsert of {key} was answered by {record.attributes}")

    def created(self) -> dict[str, Ending]:
        """Return what each create ended with, by its title."""
        return dict(self._notes.read())


@contextlib.asynccontextmanager
async def callers(scene: Scene, keys: list[str]) -> AsyncIterator[list[Caller]]:
    """Two callers on each of several clients, which share one pool."""
    async with SessionPool() as pool, contextlib.AsyncExitStack() as stack:
        found: list[Caller] = []
        for number, key in enumerate(keys):
            nex = await stack.enter_async_context(Nex(key, base_url=scene.url, pool=pool, timeout=scene.timeouts))
            found += [Caller(scene, nex, f"client {number} caller {n}") for n in range(2)]
        yield found
