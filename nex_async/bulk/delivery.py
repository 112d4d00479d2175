"""The way of one row to the server: sent, sent again while that may help, and settled one way or the other."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

from .._logfields import fields_of
from ..errors import (
    APIError,
    AuthenticationError,
    BulkStalled,
    DeadlineExceeded,
    DecodeError,
    InvalidRequestError,
    NexError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RateLimitError,
    RateLimitQueueFull,
    Timeout,
    TransportError,
    outcome_of,
)
from ..routes import UPSERT_RECORD
from ..transport.retry import classify
from ..transport.sender import Sender
from .accounts import Accounts
from .operations import Operation
from .options import Plan
from .pace import Pace
from .report import Status
from .row import Row
from .weather import Weather

__all__ = ["Delivery"]

_log = logging.getLogger("nex_async.bulk")

_BACKOFF, _LONGEST = 0.25, 8.0
_PROBE, _SLOWEST_PROBE = 0.5, 30.0
_SUSPICIOUS = 3
"""A row that failed so often is sent while no other such row is on its way."""

Verdict: TypeAlias = Literal["throttled", "unsent", "lost", "unknown", "refused", "fatal"]
"""What a failure means for its row: not its fault (429, or never sent), perhaps its fault, perhaps done, its fault, or the
end of the run."""


class Delivery:
    """Sends rows one at a time for each worker; `settle` takes the outcomes, `failed` what ends the run."""

    def __init__(
        self,
        sender: Sender,
        operation: Operation,
        plan: Plan,
        accounts: Accounts,
        settle: Callable[[Row, Status, Any, NexError | None], None],
        failed: Callable[[BaseException], None],
        tell: Callable[[str], None],
    ) -> None:
        self.pace: Pace = Pace(plan.concurrency or (_TEXTS if operation.kind == "text" else None))
        self.working: int = 0
        """Workers that have not decided to leave."""
        self.is_stopping: bool = False
        self._stopping = asyncio.Event()
        self.since: str | None = None
        """When the run began, by the server's clock, as the API writes times."""
        self._send = sender.send
        self._dispatch = sender.dispatch
        self._settings = sender.settings
        self._clock = asyncio.get_running_loop().time
        self._operation = operation
        self._plan = plan
        self._accounts = accounts
        self._report = accounts.report
        self._settle = settle
        self._failed = failed
        self._tell = tell
        self._weather = Weather(plan.attempts)
        self._alone = asyncio.Lock()
        self._notes_sending = operation.kind in ("create", "text") and plan.journal is not None
        self._is_well = True
        """Whether the last request succeeded; if not, nothing has since `_good_at`."""
        self._good_at = self._clock()
        self._better: asyncio.Future[None] | None = None
        self._asking = False
        self._doomed: dict[int, NexError] = {}
        """The last failure of rows that have failed often enough, if it turns out that the server is well."""
        self._told = False

    def stop(self) -> None:
        """Begin nothing any more, and end every wait."""
        self.is_stopping = True
        self._stopping.set()

    async def work(
        self, ready: deque[Row], following: Callable[[], Awaitable[Row | None]], grow: Callable[[], None]
    ) -> None:
        """Carry rows one after another: those that are ready, else the following; until none is left, or no place."""
        clock, report, pace, dispatch, settings = self._clock, self._report, self.pace, self._dispatch, self._settings
        while self.working <= pace.level:
            if self.working < pace.level:
                grow()
            row = ready.popleft() if ready and not self.is_stopping else await following()
            if row is None:
                return
            if self._notes_sending or self._better is not None or row.attempts:
                await self._carry(row)
                continue
            began = clock() if pace.is_growing else 0.0
            report.requests += 1
            row.requests = 1
            try:
                value = await dispatch(row.route, row.request, settings)
            except NexError as error:
                delay = await self._judge(row, error)
                if delay is not None:
                    await self._wait(delay)
                    await self._carry(row)
            else:
                if pace.is_growing:
                    pace.succeeded(clock() - began)
                self._succeeded(row, value)

    async def _carry(self, row: Row) -> None:
        """Send a row that needs more than one plain request. Leaves it unfinished if the run stops."""
        if row.attempts >= self._plan.attempts and not row.requests:
            self._done(row, self._at_last(row), NexError(f"it failed {row.attempts} times in earlier runs"))
            return
        if self._notes_sending and not row.requests and not await self._may_leave(row):
            return
        while not self.is_stopping:
            if self._better is not None:
                await self._better_times()
                continue
            if row.attempts >= self._plan.attempts:
                self._done(row, self._at_last(row), self._doomed.pop(row.seq))
                return
            if row.attempts < _SUSPICIOUS:
                delay = await self._try(row)
            else:
                async with self._alone:
                    delay = await self._try(row)
            if delay is None:
                return
            await self._wait(delay)
        if self._notes_sending and not row.may_have_acted:
            self._accounts.note_not_sent(row)

    async def _try(self, row: Row) -> float | None:
        """Send a row once more; return the seconds after which to try again, None once it is settled."""
        began = self._clock()
        self._report.requests += 1
        self._report.retries += row.requests > 0
        row.requests += 1
        try:
            value = await self._dispatch(row.route, row.request, self._settings)
        except NexError as error:
            return await self._judge(row, error)
        self.pace.succeeded(self._clock() - began)
        self._succeeded(row, value)
        return None

    def _succeeded(self, row: Row, value: Any) -> None:
        if self._weather.streak:
            self._weather.answered()
        self._is_well = True
        if self._told and self.pace.is_calm(self._clock()):
            self._told = False
            self._tell("")
        self._settle(row, self._operation.status(value, self.since), value, None)

    async def _judge(self, row: Row, error: NexError) -> float | None:
        now = self._clock()
        if self._is_well:
            self._is_well, self._good_at = False, now
        verdict = self._verdict(error)
        if verdict == "fatal":
            self._failed(error)
            return 0.0
        if verdict == "refused":
            self._refused(row, error, now)
            return None
        if now - self._good_at > self._plan.patience:
            self._failed(_stalled(now - self._good_at, error, self._report))
            return 0.0
        if verdict == "throttled":
            pause = self._throttled(error, now)
            if now + pause - self._good_at > self._plan.patience:
                self._failed(_stalled(now + pause - self._good_at, error, self._report))
            return pause
        if isinstance(error, (Timeout, DeadlineExceeded)):
            self.pace.strained(now)
        if verdict == "unsent":
            if self._weather.failed(None, self.pace.level):
                self._wait_for_better_times(error)
            return _backoff(row.requests)
        return await self._lost(row, error, verdict, now)

    def _at_last(self, row: Row) -> Status:
        """Return what is to be said of a row that was sent as often as it may be."""
        return "unknown" if self._operation.kind in ("create", "text") and row.may_have_acted else "failed"

    def _refused(self, row: Row, error: NexError, now: float) -> None:
        self._good_at = now
        self._weather.answered()
        if isinstance(error, NotFoundError) and self._operation.kind == "delete" and row.may_have_acted:
            self._done(row, "deleted", None)
        elif isinstance(error, DecodeError):
            self._done(row, "written", None)  # the server has answered with a success, if an unreadable one
        else:
            self._done(row, "failed", error)

    def _throttled(self, error: NexError, now: float) -> float:
        self._report.throttled += isinstance(error, RateLimitError)
        self.pace.strained(now)
        self._told = True
        self._tell("the server asks for fewer requests")
        pause = error.retry_after if isinstance(error, APIError) else None
        return random.uniform(0.5, 1.0) if pause is None else pause * random.uniform(1.0, 1.1)

    async def _lost(self, row: Row, error: NexError, verdict: Verdict, now: float) -> float | None:
        """Deal with a request that may have taken effect, or may have failed for a reason that lies with the row."""
        row.may_have_acted = True
        row.first = row.first or time.time()
        if _may_act_late(error):
            row.uncertain_until = now + self._plan.quarantine
        if verdict == "unknown" and not self._settled_by_upsert(row):
            self._done(row, "unknown", error)
            return None
        row.attempts += 1
        if self._weather.failed(row, self.pace.level):
            self._wait_for_better_times(error)
        if row.attempts >= self._plan.attempts:
            if self._better is None:
                self._done(row, self._at_last(row), error)
                return None
            self._doomed[row.seq] = error
        fields = fields_of(error, run=self._operation.name, row=row.seq, attempt=row.requests)
        _log.info("row %d: request %d ended with %s", row.seq, row.requests, outcome_of(error), extra=fields)
        await self._accounts.note_trouble(row, error)
        asked = error.retry_after if isinstance(error, APIError) else None
        return _backoff(row.attempts) if asked is None else asked

    def _settled_by_upsert(self, row: Row) -> bool:
        """Let an upsert find out what became of a create; return whether it can."""
        settle = self._operation.settle
        if settle is None:
            return False
        if row.route is not UPSERT_RECORD:
            row.route = UPSERT_RECORD
            row.request = settle(row.request)
        return True

    async def _may_leave(self, row: Row) -> bool:
        """Note a create before it is sent; settle one that an earlier run may have sent."""
        if row.seq in self._accounts.sent:
            row.may_have_acted = True
            if not self._settled_by_upsert(row):
                text = "the process ended while this was sent; it may or may not have taken effect"
                self._done(row, "unknown", OutcomeUnknownError(text, hint="look for it before sending it again"))
                return False
        await self._accounts.note_sending(row)
        return True

    def _verdict(self, error: NexError) -> Verdict:
        if isinstance(error, OutcomeUnknownError):
            return "unknown"
        if isinstance(error, DeadlineExceeded):
            # What was not sent by its deadline has waited for a rate limit, which says nothing about the server.
            return self._ambiguous if error.sent != "no" else "throttled"
        if isinstance(error, (AuthenticationError, PermissionDeniedError)) or not isinstance(error, _OF_A_ROW):
            return "fatal"
        if isinstance(error, NotFoundError) and self._operation.needs_its_path:
            return "fatal"
        if isinstance(error, RateLimitQueueFull):
            return "throttled"
        kind = classify(error)
        if kind in ("throttled", "refused"):
            return "throttled"
        if kind == "unsent":
            return "unsent"
        if kind in ("lost", "fault", "garbled") or (kind == "conflict" and self._operation.kind == "upsert"):
            return self._ambiguous
        return "refused"

    @property
    def _ambiguous(self) -> Verdict:
        return "unknown" if self._operation.kind in ("create", "text") else "lost"

    def _done(self, row: Row, status: Status, error: NexError | None) -> None:
        self._settle(row, status, None, None if error is None else error.with_traceback(None))

    # ---- waiting ----------------------------------------------------------------------------------------------------

    async def _wait(self, seconds: float) -> None:
        """Wait, unless the run stops meanwhile."""
        if seconds > 0:
            await _either(self._stopping.wait(), seconds)

    def _wait_for_better_times(self, error: NexError) -> None:
        if self._better is None:
            self._better = asyncio.get_running_loop().create_future()
            template = "the server fails again and again (%s); waiting until it answers"
            _log.warning(template, outcome_of(error), extra=fields_of(error, run=self._operation.name))
            self._tell("the server does not answer")

    async def _better_times(self) -> None:
        """Wait until the server answers again: the first who comes asks it, the others wait for him."""
        better = self._better
        if better is None:
            return
        if self._asking:
            await asyncio.wait([better])
            return
        self._asking = True
        try:
            await self._ask()
        finally:
            self._asking = False
            self._better = None
            if not better.done():
                better.set_result(None)

    async def _ask(self) -> None:
        """Ask the server for something harmless until it answers; what failed before it did not is its own fault."""
        pause, was_down = _PROBE, False
        while not self.is_stopping:
            await self._wait(pause * random.uniform(0.5, 1.0))
            try:
                await self._send(self._operation.probe, self._operation.probe_path)
            except NexError as error:
                waited = self._clock() - self._good_at
                if isinstance(error, APIError) and error.status < 500 and error.status not in (408, 425, 429):
                    break
                was_down = True
                self._forgive()
                if waited > self._plan.patience:
                    self._failed(_stalled(waited, error, self._report))
                    return
            else:
                break
            pause = min(_SLOWEST_PROBE, pause * 2)
        if was_down:
            self._forgive()
        self._weather.answered()
        self._tell("")

    def _forgive(self) -> None:
        for row in self._weather.forgive():
            self._accounts.note_forgiven(row)


_OF_A_ROW = (APIError, TransportError, DecodeError, InvalidRequestError, RateLimitQueueFull)
"""Errors that one row may meet, and the next may not."""
_TEXTS = 4
"""Texts in flight: with fifteen the service was seen to break, with five not."""


async def _either(event: Awaitable[object], seconds: float) -> None:
    try:
        await asyncio.wait_for(event, seconds)
    except asyncio.TimeoutError:
        return


def _backoff(attempt: int) -> float:
    return random.uniform(0.0, min(_LONGEST, _BACKOFF * 2.0 ** min(attempt, 10)))


def _may_act_late(error: NexError) -> bool:
    """Return whether the server, or one behind it, may still be at work on the request."""
    status = error.status if isinstance(error, APIError) else None
    if isinstance(error, OutcomeUnknownError):
        cause = error.__cause__
        return not isinstance(cause, APIError) or cause.status in (408, 502, 504)
    return status is None or status in (408, 502, 504)


def _stalled(seconds: float, error: NexError, report: Any) -> BulkStalled:
    stalled = BulkStalled(f"nothing has succeeded for {seconds:.0f} s; the last failure: {error}", report)
    stalled.__cause__ = error
    return stalled
