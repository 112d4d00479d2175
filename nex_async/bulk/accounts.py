"""The accounts of a run: which rows are finished, which gave trouble, which failed; and their way into the journal."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from itertools import chain
from typing import Any

from ..errors import NexError, StorageCorrupt, TooManyDeadLetters
from .journal import Entry, Journal, Opened, Position, Recognise, Trouble
from .letters import DeadLetters, letter_of, line_of
from .options import Plan
from .report import KEPT_FAILURES, STATUSES, BulkReport, Outcome, Status
from .row import Row

__all__ = ["Accounts"]

_INTERVAL = 0.05
_ENOUGH = 200
"""The journal is written when so many seconds have passed, or so many rows are finished."""
_SHARE = 0.05
_LEAST_DEAD = 100

_COUNTED = (*STATUSES, "requests", "retries", "throttled")


class Accounts:
    """What is finished, and what must be remembered of it. `failed` is told of an error that ends the run."""

    def __init__(
        self, plan: Plan, report: BulkReport, plain: Callable[[Any], Any], failed: Callable[[BaseException], None]
    ) -> None:
        self.report: BulkReport = report
        self.trouble: dict[int, Trouble] = {}
        """What rows of an earlier run met, which they have not finished."""
        self.sent: set[int] = set()
        """Creates of an earlier run whose end is not known."""
        self.run: str = ""
        self._plan = plan
        self._plain = plain
        self._failed = failed
        self._letters = DeadLetters(plan.dead_letters) if plan.dead_letters is not None else None
        self._journal: Journal | None = None
        if plan.journal is not None:
            assert self._letters is not None
            self._journal = Journal(plan.journal, self._letters, plan.synchronous)
        self._low = 0
        self._chain = 0
        self._chains: deque[int] = deque()
        self._finished: set[int] = set()
        self._sending: set[int] = set()
        self._synced: dict[bytes, bytes | None] = {}
        self._dead_before = 0
        self._has_begun = False
        self._held: dict[bytes, float] = {}
        self._just_written: dict[bytes, bytes | None] = {}
        self._new_trouble: dict[int, Trouble] = {}
        self._settled: list[int] = []
        self._lines: list[bytes] = []
        self._acknowledged = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._broken: BaseException | None = None

    # ---- opening and closing ----------------------------------------------------------------------------------------

    async def open(self, operation: str, recognise: Recognise | None = None) -> Opened | None:
        """Open the files; return what the journal holds, None without one. Raises `CheckpointError`, `StorageError`."""
        plan = self._plan
        if self._journal is None:
            self.run = f"{time.time_ns():x}"
            if self._letters is not None:
                await asyncio.to_thread(self._letters.open)
            return None
        try:
            opened = await self._journal.open(
                operation, plan.job_id, force=plan.force, remembers=plan.skip_unchanged, recognise=recognise
            )
        except StorageCorrupt as error:
            self._journal = None
            hint = "delete the journal to begin anew; to upsert all rows again is safe"
            raise StorageCorrupt(f"{error.message}; {hint}") from error
        except BaseException:
            self._journal = None
            raise
        self._go_on(opened)
        return opened

    def _go_on(self, opened: Opened) -> None:
        position = opened.position
        self.run = opened.run
        self._low, self._chain = position.low, position.chain
        self._finished = set(position.done)
        self.sent = set(position.sent) - self._finished
        self.trouble = opened.trouble
        for name, count in position.counts.items():
            setattr(self.report, name, count)
        self.report.rows = self.report.earlier = sum(getattr(self.report, name) for name in STATUSES)
        self._dead_before = self.report.failed + self.report.unknown
        if not opened.is_new:
            self.report.resumed_at = position.low

    async def restart(self) -> None:
        """Forget what the journal held: its rows are not these."""
        assert self._journal is not None
        self.run = await self._journal.restart()
        for name in _COUNTED:
            setattr(self.report, name, 0)
        self.report.rows = self.report.earlier = 0
        self.report.resumed_at, self._dead_before = None, 0
        self._low = self._chain = 0
        self._chains.clear()
        self._finished, self.sent, self.trouble = set(), set(), {}

    async def claim(self, witness: bytes, home: str | None) -> None:
        """Note the workspace the journal belongs to."""
        if self._journal is not None:
            await self._journal.claim(witness, home)

    async def begin(self) -> None:
        """Note that rows are sent from now on."""
        self._has_begun = True
        if self._journal is not None:
            await self._journal.begin()

    async def close(self, *, finished: bool) -> None:
        """Write what is not written yet, and close the files."""
        try:
            while self._writing is not None:
                await asyncio.wait([self._writing])
            if self._timer is not None:
                self._timer.cancel()
            if self._broken is None and self._has_begun:  # else the journal stays as it was found
                await self._write(finished=finished, clean=True)
        finally:
            if self._journal is not None:
                await self._journal.aclose()
            elif self._letters is not None:
                await asyncio.to_thread(self._letters.close)

    # ---- what rows do -----------------------------------------------------------------------------------------------

    @property
    def spread(self) -> int:
        """How many rows were pulled since the oldest that is not finished."""
        return len(self._chains)

    def is_finished(self, seq: int) -> bool:
        """Return whether a row was finished by an earlier run."""
        return seq < self._low or seq in self._finished

    def pulled(self, chain: int) -> None:
        """Note the next row, and the checksum over all rows up to it."""
        if self._journal is not None:
            self._chains.append(chain)
            if self._low in self._finished:
                self._advance()

    def settle(self, seq: int, status: Status, row: Row | None, outcome: Outcome | None) -> None:
        """Note a row as finished; a failed one brings its outcome."""
        self.report.count(status)
        if outcome is not None and outcome.error is not None:
            self._bury(row, outcome, outcome.error)
        if self._journal is None:
            return
        if seq == self._low and not self._finished:
            self._low = seq + 1
            self._chain = self._chains.popleft()
        else:
            self._finished.add(seq)
            if seq == self._low:
                self._advance()
        had_failed = seq in self.trouble
        if self.trouble or self._sending or self.sent:
            self._forget_trouble(seq)
        if row is not None and row.uncertain_until:
            until = time.time() + row.uncertain_until - asyncio.get_running_loop().time()
            self._held.update(dict.fromkeys(map(key_digest, row.keys), until))
        if row is not None and row.digest is not None and status != "unchanged":
            acted = outcome is None or outcome.error is None
            if acted or row.may_have_acted:
                for key in row.keys:
                    self._synced[key_digest(key)] = row.digest if acted else None
        self._acknowledged += 1
        if had_failed:  # a crash before this is written counts against it once more
            self._start()
        elif self._writing is None and (self._timer is None or self._acknowledged >= _ENOUGH):
            self._soon()

    def _forget_trouble(self, seq: int) -> None:
        if seq in self.trouble:
            del self.trouble[seq]
            self._new_trouble.pop(seq, None)
            self._settled.append(seq)
        self._sending.discard(seq)
        self.sent.discard(seq)

    def _advance(self) -> None:
        finished, chains, low, chain = self._finished, self._chains, self._low, self._chain
        while low in finished and chains:
            finished.discard(low)
            chain = chains.popleft()
            low += 1
        self._low, self._chain = low, chain

    def _bury(self, row: Row | None, outcome: Outcome, error: NexError) -> None:
        report = self.report
        if len(report.failures) < KEPT_FAILURES:
            report.failures.append(outcome)
        if self._letters is not None:
            key = "\0".join(row.keys) if row is not None else ""
            letter = letter_of(
                outcome.index,
                key,
                self._plain(outcome.row),
                error,
                outcome=outcome.status,
                attempts=outcome.attempts,
                first=row.first if row is not None else None,
                run=self.run,
            )
            self._lines.append(line_of(letter))
            self._soon()
        dead = report.failed + report.unknown - self._dead_before
        if dead > self._most_dead():
            many = f"{dead} of {report.rows - report.earlier} rows failed, the last with: {error}; max_dead= allows more"
            self._failed(TooManyDeadLetters(many, report))

    def _most_dead(self) -> float:
        if self._plan.max_dead is not None:
            return self._plan.max_dead
        if self._plan.dry_run:
            return math.inf
        rows = self.report.rows - self.report.earlier
        return _LEAST_DEAD if self._letters is None else max(_LEAST_DEAD, rows * _SHARE)

    async def buried(self) -> frozenset[int]:
        """Return the rows of this run that have a dead letter."""
        if self._letters is None:
            return frozenset()
        return frozenset(await asyncio.to_thread(self._letters.written, self.run, 0))

    async def keep_up(self) -> None:
        """Let others have their turn, and wait for letters to be written if there are many."""
        if len(self._lines) >= _ENOUGH and self._broken is None:
            await self._until_written()
        else:
            await asyncio.sleep(0)

    async def note_trouble(self, row: Row, error: NexError) -> None:
        """Note a failed request; when this returns, it counts whatever happens to this process."""
        if self._journal is None:
            return
        trouble = Trouble(row.attempts, row.first or time.time(), type(error).__name__)
        self.trouble[row.seq] = self._new_trouble[row.seq] = trouble
        await self._until_written()

    def note_forgiven(self, row: Row) -> None:
        """Note that failures of a row are not held against it any more; written with what is written next."""
        if row.seq in self.trouble:
            self.trouble[row.seq] = self._new_trouble[row.seq] = self.trouble[row.seq]._replace(attempts=row.attempts)
            self._acknowledged += 1
            self._soon()

    def note_not_sent(self, row: Row) -> None:
        """Note that a create that was about to leave has not; written with what is written next."""
        self._sending.discard(row.seq)

    async def note_sending(self, row: Row) -> None:
        """Note a create that is about to leave; when this returns, a crash cannot hide it."""
        if self._journal is not None:
            self._sending.add(row.seq)
            await self._until_written()

    # ---- what was written last under a key --------------------------------------------------------------------------

    async def lookup(self, rows: list[Row]) -> set[int]:
        """Return which of these rows say the same as what was last written under their keys."""
        assert self._journal is not None
        keys = {row.seq: [key_digest(key) for key in row.keys] for row in rows}
        self._just_written = {}
        known: dict[bytes, bytes | None] = dict(
            await self._journal.lookup(list(dict.fromkeys(chain.from_iterable(keys.values()))))
        )
        known.update(self._just_written)  # perhaps after the file was looked at
        known.update(self._synced)
        return {row.seq for row in rows if all(known.get(key) == row.digest for key in keys[row.seq])}

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _soon(self) -> None:
        if self._broken is not None or self._writing is not None:
            return
        if self._acknowledged >= _ENOUGH:
            self._start()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._start)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is None and self._broken is None:
            self._writing = asyncio.ensure_future(self._write_all())

    async def _until_written(self) -> None:
        if self._broken is not None:
            raise self._broken
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._start()
        await waiter

    async def _write_all(self) -> None:
        try:
            while self._waiters or self._acknowledged >= _ENOUGH or self._lines:
                await self._write()
            if self._acknowledged:
                await self._write()
        except BaseException as error:
            self._failed(error)
        finally:
            self._writing = None
            if self._waiters:  # they came during the last write
                self._start()
            elif self._acknowledged or self._lines:
                self._soon()

    async def _write(self, *, finished: bool = False, clean: bool = False) -> None:
        waiters, self._waiters = self._waiters, []
        lines, self._lines = self._lines, []
        try:
            if self._journal is not None:
                await self._write_entry(self._journal, lines, finished, clean)
            elif lines and self._letters is not None:
                await asyncio.to_thread(self._letters.append, lines)
        except BaseException as error:
            self._broken = error
            for waiter in (*waiters, *self._waiters):  # those that came meanwhile, too: nothing is written any more
                if not waiter.done():
                    waiter.set_exception(error)
            self._waiters = []
            raise
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _write_entry(self, journal: Journal, lines: list[bytes], finished: bool, clean: bool) -> None:
        counts = {name: count for name in _COUNTED if (count := getattr(self.report, name))}
        position = Position(self._low, self._chain, tuple(self._finished), tuple(self._sending | self.sent), counts)
        synced = dict(self._synced)
        entry = Entry(
            position,
            trouble=list(self._new_trouble.items()),
            settled=self._settled,
            synced=list(synced.items()),
            held=list(self._held.items()),
            letters=lines,
            finished=finished,
            clean=clean,
        )
        self._new_trouble, self._settled, self._held, self._acknowledged = {}, [], {}, 0
        await journal.write(entry)
        for key, digest in synced.items():
            self._just_written[key] = digest
            if self._synced.get(key, _NOTHING) is digest:
                del self._synced[key]


_NOTHING = object()


def key_digest(key: str) -> bytes:
    """Return a short digest of a key."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def body_digest(body: Any) -> bytes:
    """Return a short digest of what a row says."""
    return blake2b(body, digest_size=12).digest()
