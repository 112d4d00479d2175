"""BulkRun: many rows into the API, each with an outcome; the life of a run, from the first row pulled to the report."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from types import TracebackType
from typing import Any

import anyio

from ..errors import ClientClosed, InvalidRequestError, NexError
from ..transport.options import RequestOptions
from ..transport.sender import Sender
from .accounts import Accounts
from .delivery import Delivery
from .intake import Intake
from .letters import Again
from .opening import Opening
from .operations import Operation, mapping_of, value_of
from .options import BulkOptions, plan_of
from .progress import Meter
from .report import BulkReport, Outcome, Status
from .row import Row
from .source import Rows, Source, cancelled

__all__ = ["BulkRun"]

_log = logging.getLogger("nex_async.bulk")

_NOT_AGAIN = frozenset({"journal", "job_id", "force", "skip_unchanged", "dead_letters", "total", "dry_run", "verify"})
_OUTCOMES = 1_000
"""Outcomes that wait for their reader; with more, no further row is pulled."""
_DRAIN = 5.0
"""Seconds for what is on its way when a run is left early."""
_LEFT = ClientClosed("the run was left")


class BulkRun:
    """Many rows on their way into the API.

    ``report = await run`` carries it to its end. ``async with run: async for outcome in run:`` hands out one `Outcome` per
    row, in the order in which they end; leaving the block early stops pulling rows, gives those on their way five seconds,
    and writes the journal. A run is started once, and belongs to the client it came from.

    With a journal, a run that was stopped or killed at any point is gone on with by the same call: upserts, updates and
    deletes take effect exactly once or are listed as failed; creates too, or are listed as unknown. Raises
    `MappingError` when the first rows do not fit their object, `CheckpointError` for a journal of other rows,
    `StorageError`, `TooManyDeadLetters`, `BulkStalled`, `AuthenticationError`, `PermissionDeniedError`, `NotFoundError` when
    the object is missing, what any call raises while the object's definition is asked for, and whatever the source raises.
    """

    def __init__(self, sender: Sender, operation: Operation, rows: Rows, options: BulkOptions) -> None:
        self._plan, request = plan_of(options)
        once: RequestOptions = {**request, "retries": 0}
        self._sender = Sender(sender.state, sender.settings.merged(once))
        self._origin = sender
        self._options = options
        self._operation = operation
        self._source = Source(rows)
        self.report: BulkReport = BulkReport(operation.name, dead_letters=self._plan.dead_letters)
        total = self._source.total if self._plan.total is None else self._plan.total
        self._meter = Meter(operation.name, self._plan.progress, total)
        self._accounts = Accounts(self._plan, self.report, operation.plain, self._fail)
        self._intake = Intake(
            self._source, operation, self._plan, self._accounts, self._settle, self._hold, self._sender.settings.headers
        )
        self._delivery: Delivery
        self._afterwards: Callable[[], None] | None = None
        if self._plan.verify and operation.match_on is None:
            raise InvalidRequestError("verify needs match_on, to find rows again", argument="verify")
        self._workers: set[asyncio.Task[None]] = set()
        self._held: dict[Row, asyncio.TimerHandle] = {}
        self._refiller: asyncio.Task[None] | None = None
        """The worker that waits for the source."""
        self._sleepers: list[asyncio.Future[None]] = []
        self._outcomes: deque[Outcome] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._listens = True
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None]
        self._error: BaseException | None = None
        self._raised = False
        self._stopping = False
        self._is_closing = False

    # ---- what users do ----------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, BulkReport]:
        return self._whole().__await__()

    async def _whole(self) -> BulkReport:
        self._listens = False
        async with self:
            assert self._task is not None
            await asyncio.wait([self._task])
        return self.report

    async def __aenter__(self) -> BulkRun:
        if self._task is not None:
            raise InvalidRequestError("a run is started once; make a new one to go on")
        if self._sender.state.closed:
            raise ClientClosed("the client is closed")
        loop = asyncio.get_running_loop()
        began = loop.create_future()
        self._idle = loop.create_future()
        self._task = loop.create_task(self._live(began), name=f"nex-async {self._operation.name}")
        self._sender.state.owned.add(self)
        self._sender.state.runs[id(self)] = self
        try:
            await asyncio.wait([self._task, began], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self._end()
            raise
        if self._task.done() and self._error is not None:
            self._raised = True
            raise self._error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()
        if error is None and self._error is not None and not self._raised:
            self._raised = True
            raise self._error

    def __aiter__(self) -> BulkRun:
        return self

    async def __anext__(self) -> Outcome:
        if self._task is None:
            raise InvalidRequestError("use a run as `async with run:`, or await it")
        if self._reader is not None:
            raise InvalidRequestError("a run has one reader; hand its outcomes on to others")
        while not self._outcomes:
            if self._task.done():
                if self._error is not None and not self._raised:
                    self._raised = True
                    raise self._error
                raise StopAsyncIteration
            reader = self._reader = asyncio.get_running_loop().create_future()
            try:
                await reader
            finally:
                self._reader = None
        outcome = self._outcomes.popleft()
        if len(self._outcomes) == _OUTCOMES // 2:
            self._wake()
        return outcome

    def stop(self) -> None:
        """Pull no more rows; those on their way are finished, and the run ends."""
        if not self._stopping:
            self._stopping = True
            if hasattr(self, "_delivery"):
                self._delivery.stop()
            if self._refiller is not None:
                self._refiller.cancel()  # the source may take its time
            self._wake()

    def retry_dead(self) -> BulkRun:
        """Return a run that sends the rows of the dead-letter file again, with the same options.

        It is resumable by itself. When it ends, the file holds the rows that failed again, and those whose outcome is
        unknown, which are not sent. A row that comes late takes effect late: where a later row of its key was written, the
        older values come back. Needs a `dead_letters` file, or a journal; the run this is called on has ended, or need not
        have been started.
        """
        if self._task is not None and not self._task.done():
            raise InvalidRequestError("the run still writes its dead letters; send them again when it has ended")
        path = self._options.get("dead_letters") or self._plan.dead_letters
        if path is None:
            raise InvalidRequestError("there is no file of dead letters: give dead_letters= or journal=")
        again = Again(os.fspath(path))
        options: Any = {name: value for name, value in self._options.items() if name not in _NOT_AGAIN}
        options["journal"] = again.journal
        options.setdefault("max_dead", 1_000_000_000)  # they have failed before
        run = BulkRun(self._origin, self._operation, again, options)
        run._afterwards = again.finish
        run.report.dead_letters = os.fspath(path)
        return run

    def __repr__(self) -> str:
        return f"<BulkRun: {self.report}>"

    # ---- its life ---------------------------------------------------------------------------------------------------

    async def _live(self, began: asyncio.Future[None]) -> None:
        finished = False
        try:
            report = self.report
            self._delivery = Delivery(
                self._sender, self._operation, self._plan, self._accounts, self._settle_sent, self._fail, self._tell
            )
            opening = Opening(self._origin, self._operation, self._plan, self._source, self._accounts, self._intake)
            is_done = await opening.is_all_done(refuses=self._afterwards is None)
            self._meter.start(report.rows)
            if not is_done:
                self._operation, self._delivery.since = self._intake.operation, opening.since
                shift = asyncio.get_running_loop().time() - time.time()
                self._intake.held = {key: until + shift for key, until in opening.held.items()}
                if not began.done():
                    began.set_result(None)
                await self._accounts.begin()
                self._grow()
                if self._workers:  # none, if the run was stopped before they began
                    await self._idle
            is_done = not self._stopping and self._error is None
            if is_done and self._intake.verifier is not None:
                self.report.drift = await self._intake.verifier.compare()
            finished = is_done
        except asyncio.CancelledError:
            self._fail(cancelled())  # of which `_cut` has told already if it was ours
        except BaseException as error:
            self._fail(error)
        finally:
            await self._close(finished)

    async def _close(self, finished: bool) -> None:
        self._is_closing = True
        for timer in self._held.values():
            timer.cancel()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)
        steps: list[Callable[[], Awaitable[object]]] = [
            self._source.aclose,
            partial(self._accounts.close, finished=finished),
        ]
        if self._intake.verifier is not None:
            steps.append(self._intake.verifier.aclose)
        if finished and self._afterwards is not None:
            steps.append(partial(asyncio.to_thread, self._afterwards))
        for step in steps:
            try:
                await step()
            except BaseException as error:
                finished = False
                self._fail(error)
        self.report.finished = finished
        if self._error is _LEFT:
            self._error = None
        self.report.seconds = self._meter.elapsed
        self._sender.state.owned.discard(self)
        self._sender.state.runs.pop(id(self), None)
        self._meter.tell(self.report.rows, self.report.failed, final=True)
        self._log_end()
        self._wake_reader()

    def _log_end(self) -> None:
        report = self.report
        fields = {
            "nex_run": report.name,
            "nex_rows": report.rows,
            "nex_failed": report.failed,
            "nex_unknown": report.unknown,
            "nex_requests": report.requests,
            "nex_retries": report.retries,
            "nex_elapsed": report.seconds,
        }
        _log.info("a bulk run has ended: %s", report, extra=fields)

    async def _end(self) -> None:
        task = self._task
        assert task is not None
        if task.done():
            return
        self.stop()
        until = asyncio.get_running_loop().time() + _DRAIN
        again: asyncio.CancelledError | None = None
        while not task.done():
            left = until - asyncio.get_running_loop().time()
            try:
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([task], timeout=None if self._is_closing else max(0.0, left))
            except asyncio.CancelledError as cancelled:
                again, until = cancelled, -math.inf  # whoever cancels twice does not want to wait for the server
            if not task.done() and until <= asyncio.get_running_loop().time():
                self._cut()
        if again is not None:
            raise again

    def _cut(self) -> None:
        """End what is on its way; but let the journal be written."""
        if self._task is not None and not self._task.done() and not self._is_closing:
            self._error = self._error or _LEFT
            self._task.cancel()

    def abort(self) -> None:
        """End at once: the client is closing. What is finished is in the journal."""
        if self._task is not None and not self._task.done():
            self._task.get_loop().call_soon_threadsafe(self._close_with_client)

    def _close_with_client(self) -> None:
        self._error = self._error or ClientClosed("the client was closed during the run")
        self._cut()

    async def over(self) -> None:
        """Wait until the run has ended."""
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._task])

    def _fail(self, error: BaseException) -> None:
        """End the run with an error; the first one is the one that is told."""
        if self._error is None:
            self._error = error
        self.stop()

    # ---- workers ----------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        delivery = self._delivery
        while delivery.working < delivery.pace.level and not self._stopping and not self._intake.is_over:
            delivery.working += 1
            worker = asyncio.ensure_future(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._left)

    def _left(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if worker.cancelled():
            if not self._stopping:
                self._fail(cancelled())
        elif (error := worker.exception()) is not None:
            self._fail(error)
        if not self._workers and not self._idle.done():
            self._idle.set_result(None)

    async def _work(self) -> None:
        try:
            await self._delivery.work(self._intake.ready, self._next, self._grow)
        finally:
            self._delivery.working -= 1
            self._wake(0)  # those who stay may all be asleep

    async def _next(self) -> Row | None:
        """Return the next row that may be sent; None when there will be none."""
        intake = self._intake
        while not self._stopping:
            if intake.ready:
                return intake.ready.popleft()
            if intake.ended and not intake.lines.waiting:
                break
            if intake.ended or self._refiller or not intake.has_room or len(self._outcomes) >= _OUTCOMES:
                await self._change()
                continue
            self._refiller = asyncio.current_task()
            try:
                await intake.refill(min(256, max(16, 2 * self._delivery.pace.level)))
            finally:
                self._refiller = None
            if not intake.ready:
                await self._accounts.keep_up()
            self._wake(len(intake.ready))
            if intake.verifier is not None:
                await intake.verifier.keep()
        self._wake()
        return None

    async def _change(self) -> None:
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        await sleeper

    def _wake(self, most: int | None = None) -> None:
        """Wake workers that wait for a change: all, or so many and one who pulls more rows."""
        sleepers = self._sleepers
        count = len(sleepers) if most is None else min(most + 1, len(sleepers))
        for sleeper in sleepers[:count]:
            if not sleeper.done():
                sleeper.set_result(None)
        del sleepers[:count]

    # ---- what becomes of rows ---------------------------------------------------------------------------------------

    def _settle_sent(self, row: Row, status: Status, value: Any, error: NexError | None) -> None:
        """Take in what became of a row that was sent."""
        intake = self._intake
        if row.uncertain_until and row.keys:
            self._hold(row)
        else:
            intake.release(row)
        if intake.verifier is not None and error is None:
            intake.verifier.note(row.keys, mapping_of(row.given))
        outcome = None
        if error is not None or self._listens:
            outcome = Outcome(row.seq, row.given, status, value_of(value), error, max(row.requests, row.attempts))
        self._accounts.settle(row.seq, status, row, outcome)
        if self._listens and outcome is not None:
            self._outcomes.append(outcome)
            self._wake_reader()
        if self._sleepers and (intake.ready or self._refiller is None):
            self._wake(len(intake.ready))
        if self._plan.progress is not None:
            self._meter.tell(self.report.rows, self.report.failed)

    def _settle(self, outcome: Outcome, row: Row | None) -> None:
        """Take in what became of a row that needed no request."""
        self._accounts.settle(outcome.index, outcome.status, row, outcome)
        if self._listens:
            self._outcomes.append(outcome)
            self._wake_reader()
        self._meter.tell(self.report.rows, self.report.failed)

    def _hold(self, row: Row) -> None:
        """Keep the keys of a row while an earlier request of it may still take effect."""
        loop = asyncio.get_running_loop()
        if row.uncertain_until <= loop.time():
            self._intake.release(row)
            return
        self._held[row] = loop.call_at(row.uncertain_until, self._release_later, row)

    def _release_later(self, row: Row) -> None:
        del self._held[row]
        self._intake.release(row)
        self._wake()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _tell(self, note: str) -> None:
        if note != self._meter.note:
            self._meter.note = note
            self._meter.tell(self.report.rows, self.report.failed, final=True)
