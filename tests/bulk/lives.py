"""Runs that are killed: children forked from one process that has imported everything, and the rows they write."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nex_async import Nex
from nex_async.bulk import delivery
from nex_async.bulk.accounts import Accounts
from nex_async.bulk.journal import Journal
from nex_async.bulk.letters import DeadLetters, dead_letters
from nex_async.bulk.source import Source
from nex_async.errors import BulkError
from nex_async.transport.sender import Sender
from tests.harness.bulk_world import OK, Fault, Hit, World, drop, refuse, status
from tests.harness.canary import KEY

__all__ = ["POINTS", "Life", "Nursery", "Trial", "nursery", "rows_of"]

POINTS = (
    "before_send", "after_send", "before_commit", "mid_commit", "after_commit", "letters_before_write",
    "letters_before_fsync", "letters_after_fsync", "before_pull", "after_pull", "before_finish", "after_finish",
)  # fmt: skip

_EVERY = 250
"""One row of so many is refused, and one ends every connection it is sent on."""
_NOTED = 0.1
"""Seconds after which a request that failed is in the journal."""
_DYING = 0.05
"""Seconds in which what a process sent before it was killed still arrives."""


def rows_of(count: int, distinct: int) -> Iterator[dict[str, Any]]:
    """Yield rows numbered `n`, of so many keys in all; every tenth has the key of the row before it."""
    for n in range(count):
        yield {"key": f"k{(n - (n % 10 == 9)) * 37 % distinct}@x.io", "n": n}


@dataclass
class Trial:
    """The rows of one run, what the server does to them, and what must have come of it."""

    count: int
    distinct: int
    draw: Any
    drops: float = 0.01
    every: int = _EVERY
    injected: int = 0
    killed_at: list[float] = field(default_factory=list)
    """When its processes were killed; a request just before may not have come to be noted."""
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.world = World(self.judge)

    def killed(self, at: float | None = None) -> None:
        """Note that a process is dead, killed at a time of the event loop, and begin the next life."""
        self.killed_at.append(asyncio.get_running_loop().time() if at is None else at)
        self.world.life += 1

    def is_refused(self, n: int) -> bool:
        return n % self.every == 3

    def kills_connections(self, n: int) -> bool:
        return n % self.every == 20

    def judge(self, hit: Hit) -> Fault:
        if self.is_refused(hit.version):
            return refuse()
        if self.kills_connections(hit.version):
            return drop(effect=False)
        luck = self.draw.random()
        if luck < self.drops:
            self.injected += 1
            return drop()
        if luck < 2 * self.drops:
            self.injected += 1
            return status(503, effect=True)
        return OK

    def check(self, letters: Path, kills: int, concurrency: int) -> dict[str, int]:
        """Assert that each row took effect or is a dead letter; return the figures."""
        world = self.world
        poison = {n for n in range(self.count) if self.is_refused(n) or self.kills_connections(n)}
        found = [*dead_letters(letters)] if letters.exists() else []
        dead = [letter.seq for letter in found]
        wrong = [letter for letter in found if letter.seq not in poison]
        assert sorted(dead) == sorted(poison), f"dead letters {sorted(dead)} instead of {sorted(poison)}: {wrong}"
        last: dict[str, int] = {}
        for row in rows_of(self.count, self.distinct):
            if row["n"] not in poison:
                last[row["key"]] = row["n"]
        assert {key: held["n"] for key, held in world.records.items()} == last
        seen = {one.version for applied in world.applied.values() for one in applied}
        assert seen == set(range(self.count)) - poison
        assert not world.overlaps
        for key, applied in world.applied.items():
            for one, two in itertools.pairwise(applied):
                assert one.life != two.life or one.version <= two.version, f"{key} went back: {applied}"
        most = max((sum(world.sent[name] for name in world.sent if name[1] == n) for n in poison), default=0)
        for n in poison:
            times = [hit.at for hit in world.hits if hit.version == n]
            unseen = sum(any(at - _NOTED < time < at + _DYING for time in times) for at in self.killed_at)
            assert len(times) - unseen <= 8, f"row {n} always fails, and was sent {len(times)} times, {unseen} unseen"
        again = world.requests - self.count
        poisoned = sum(count - 1 for (_, n), count in world.sent.items() if n in poison)
        bound = kills * (concurrency + 200 + 50) + self.injected + poisoned
        assert again <= bound, f"{again} requests were made again; at most {bound}"
        return {"requests": world.requests, "again": again, "injected": self.injected, "dead": len(dead), "most": most}


# ---- the parent's side ----------------------------------------------------------------------------------------------------


class Nursery:
    """Starts runs, one at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def start(self, **job: Any) -> Life:
        """Start a run in a process of its own."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        await self._process.stdin.drain()
        return Life(self, int(await self.line()))

    async def line(self) -> bytes:
        """Return what the process that starts them says next."""
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), 60)).strip()


@dataclass
class Life:
    """A run in a process of its own."""

    home: Nursery
    pid: int
    ended: bool = False

    async def over(self) -> tuple[int, dict[str, Any]]:
        """Return the signal that ended it (0: it ended by itself), and its report."""
        words = (await self.home.line()).split(b" ", 2)
        assert words[0] == b"over", words
        self.ended = True
        return int(words[1]), json.loads(words[2])

    async def kill(self) -> bool:
        """Kill it; return whether it was still alive."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return (await self.over())[0] == signal.SIGKILL


@contextlib.asynccontextmanager
async def nursery() -> AsyncIterator[Nursery]:
    """A process that has imported everything, from which runs are forked."""
    pipe = asyncio.subprocess.PIPE
    root = str(Path(__file__).parents[2])
    command = (sys.executable, "-m", "tests.bulk.lives")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=root)
    try:
        yield Nursery(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)
        process._transport.close()  # type: ignore[attr-defined]


# ---- the child's side -----------------------------------------------------------------------------------------------------


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _DiesAfterOne:
    """A connection that lives for one statement."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        _die()

    def execute(self, *statement: Any) -> Any:
        self._connection.execute(*statement)
        _die()


def _arm(point: str, nth: int) -> None:
    """Let this process die the nth time it comes to a point."""
    left = nth

    def here(*, when: bool = True) -> None:
        nonlocal left
        left -= when
        if not left and when:
            _die()

    def around(owner: Any, name: str, *, before: bool) -> None:
        inner = getattr(owner, name)

        async def waiting(*arguments: Any, **named: Any) -> Any:
            if before:
                here()
            result = await inner(*arguments, **named)
            if not before:
                here()
            return result

        setattr(owner, name, waiting)

    write, append, fsync, close = Journal._write, DeadLetters.append, os.fsync, Accounts.close

    def journal_write(self: Any, connection: Any, entry: Any) -> None:
        nonlocal left
        if point == "before_commit":
            here()
            write(self, connection, entry)
        else:
            left -= 1
            write(self, connection if left else _DiesAfterOne(connection), entry)

    def letters_append(self: Any, lines: Any) -> None:
        if point == "letters_before_write":
            here()
        append(self, lines)

    def sync(descriptor: int) -> None:
        if point == "letters_before_fsync":
            here()
        fsync(descriptor)
        if point == "letters_after_fsync":
            here()

    async def accounts_close(self: Any, *, finished: bool) -> None:
        if point == "before_finish":
            here(when=finished)
        await close(self, finished=finished)
        if point == "after_finish":
            here(when=finished)

    if point in ("before_send", "after_send"):
        around(Sender, "dispatch", before=point == "before_send")
    elif point in ("before_pull", "after_pull"):
        around(Source, "take", before=point == "before_pull")
    elif point == "after_commit":
        around(Journal, "write", before=False)
    elif point in ("before_commit", "mid_commit"):
        Journal._write = journal_write  # type: ignore[method-assign]
    elif point == "letters_before_write":
        DeadLetters.append = letters_append  # type: ignore[method-assign]
    elif point in ("letters_before_fsync", "letters_after_fsync"):
        os.fsync = sync
    elif point in ("before_finish", "after_finish"):
        Accounts.close = accounts_close  # type: ignore[method-assign]
    else:
        raise ValueError(point)


async def _live(job: dict[str, Any]) -> dict[str, Any]:
    if job.get("hurried", True):
        delivery._BACKOFF, delivery._LONGEST, delivery._PROBE = 0.002, 0.05, 0.01
    if "point" in job:
        _arm(job["point"], job["nth"])
    async with Nex(KEY, base_url=job["url"]) as nex:
        rows = rows_of(job["count"], job["distinct"])
        options: dict[str, Any] = {
            "journal": job["journal"],
            "max_dead": job["count"],
            "quarantine": 0,
            **job.get("more", {}),
        }
        run = nex.records.upsert_many("thing", rows, match_on="key", **options)
        try:
            report = await run
        except BulkError as error:
            return {"error": str(error)}
        return {"rows": report.rows, "failed": report.failed, "finished": report.finished, "resumed": report.resumed_at}


def _main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            os.close(told)
            report = asyncio.run(_live(job))
            os.write(tell, json.dumps(report).encode())
            os._exit(0)
        os.close(tell)
        print(child, flush=True)
        with os.fdopen(told, "rb") as pipe:
            report = pipe.read() or b"{}"
        _, ending = os.waitpid(child, 0)
        print("over", os.WTERMSIG(ending) if os.WIFSIGNALED(ending) else 0, report.decode(), flush=True)


if __name__ == "__main__":
    _main()
