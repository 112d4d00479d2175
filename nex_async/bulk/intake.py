"""The way in: rows are pulled, prepared, compared with what an earlier run did, and wait until their keys are free."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from zlib import crc32

from ..errors import InvalidRequestError, NexError, SourceChanged, printable
from ..transport.wire import Request
from .accounts import Accounts, body_digest, key_digest
from .journal import Opened
from .keys import KeyLines
from .mapping import Schema
from .operations import Operation, Prepared, mapping_of
from .options import Plan
from .report import Outcome
from .row import Row
from .source import Source
from .verify import Verifier

__all__ = ["Intake"]

_SPREAD = 16_384
"""Rows pulled since the oldest that is not finished: with more, the run waits for that one."""
_WAITING = 1_024
"""Rows that wait for an earlier one of the same key."""
_SKIPPED = 100
"""Rows skipped in one go, before others get their turn on the event loop."""
_NOTHING = Request("", "", None, None)


class Intake:
    """Rows from a source, in order; `settle` is called with the outcome of those that need no request."""

    def __init__(
        self,
        source: Source,
        operation: Operation,
        plan: Plan,
        accounts: Accounts,
        settle: Callable[[Outcome, Row | None], None],
        hold: Callable[[Row], None],
        headers: dict[str, str] | None,
    ) -> None:
        self.ready: deque[Row] = deque()
        """Rows that may be sent."""
        self.lines: KeyLines[Row] = KeyLines()
        self.operation: Operation = operation
        self.schema: Schema | None = None
        """The attributes of the object, where rows are checked against them."""
        self.verifier: Verifier | None = None
        """What compares, at the end, the object with the rows."""
        self.buried: frozenset[int] = frozenset()
        """Rows that failed in earlier runs, where that matters to it."""
        self.ended: bool = False
        """Whether the source has no more rows."""
        self._source = source
        self._plan = plan
        self._accounts = accounts
        self._settle = settle
        self._hold = hold
        self._headers = headers
        self._path_tells = operation.kind == "update"
        self._needs_care = False
        self._seq = 0
        self._chain = 0
        self._resumed: Opened | None = None
        self._uncertain_until = 0.0
        self.held: dict[bytes, float] = {}
        """Digests of keys under which a request of an earlier run may still act, and until when, by the loop's clock."""

    @property
    def has_room(self) -> bool:
        """Whether more rows may be pulled."""
        return self._accounts.spread < _SPREAD and self.lines.waiting < _WAITING

    @property
    def is_over(self) -> bool:
        """Whether there will be no further row to send."""
        return self.ended and not self.ready and not self.lines.waiting

    def go_on(self, opened: Opened) -> None:
        """Go on where an earlier run ended; what it had on its way then may still take effect for a while."""
        self._resumed = opened
        age = max(0.0, time.time() - opened.written)
        self._uncertain_until = asyncio.get_running_loop().time() + max(0.0, self._plan.quarantine - age)

    async def skip(self) -> None:
        """Pass over the rows that an earlier run finished. Raises `SourceChanged` if they are not the same."""
        resumed = self._resumed
        if resumed is None:
            return
        low, chain = resumed.position.low, resumed.position.chain
        while self._seq < low:
            rows = await self._source.take(min(_SKIPPED, low - self._seq))
            if not rows:
                raise SourceChanged(f"the source has {self._seq} rows, and the journal has finished {low}")
            for given in rows:
                prepared = self._prepared(given)
                seq = self._chained(prepared)
                if self.verifier is not None and not isinstance(prepared, NexError):
                    self._note_earlier(seq, given, prepared)
            if self.verifier is not None:
                await self.verifier.keep()
            await asyncio.sleep(0)
        if self._chain != chain:
            raise SourceChanged(f"the first {low} rows are not those the journal has finished; force=True begins anew")

    async def expect_end(self) -> None:
        """Make sure that the source has nothing beyond what was finished. Raises `SourceChanged`."""
        if await self._source.take(1):
            raise SourceChanged(
                f"the journal was finished with {self._seq} rows, and there are more: give a job_id, or force=True"
            )

    def start_over(self) -> None:
        """Begin again at the first row."""
        self._source.begin()
        self._seq = self._chain = 0
        self._resumed = None

    async def refill(self, most: int) -> None:
        """Pull up to `most` rows."""
        plan = self._plan
        self._needs_care = (
            self._resumed is not None
            or self.schema is not None
            or self._headers is not None
            or plan.dry_run
            or plan.skip_unchanged
        )
        rows = await self._source.take(most)
        self.ended = not rows
        prepared = [row for row in map(self._row, rows) if row is not None]
        if prepared and plan.skip_unchanged:
            await self._drop_unchanged(prepared)
        else:
            for row in prepared:
                self._admit(row)

    def release(self, row: Row) -> None:
        """Give the keys of a finished row to those that wait for them."""
        if row.keys and (freed := self.lines.leave(row)):
            self.ready.extend(freed)

    def _admit(self, row: Row) -> None:
        if self.held:
            self._meet_held(row)
        if not row.keys or self.lines.join(row):
            self.ready.append(row)

    def _meet_held(self, row: Row) -> None:
        """Let those stand before a row who hold its keys from an earlier run."""
        for key in row.keys:
            until = self.held.pop(key_digest(key), None)
            if until is not None:
                holder = Row(-1, None, (_NOTHING, (key,)), row.route)
                holder.uncertain_until = until
                self.lines.join(holder)
                self._hold(holder)

    def _prepared(self, given: Any) -> Any:
        try:
            return self.operation.prepare(given)
        except NexError as error:
            return error
        except Exception as error:  # a mapping of the caller's own may raise anything
            return InvalidRequestError(f"the row cannot be read: {type(error).__name__}: {printable(str(error))}")

    def _chained(self, prepared: Any) -> int:
        """Take the next row into the checksum, and return its number."""
        if isinstance(prepared, NexError):
            self._chain = crc32(b"?", self._chain)
        else:
            request = prepared[0]
            self._chain = crc32(request.body or request.target.encode(), self._chain)
            if self._path_tells:
                self._chain = crc32(request.target.encode(), self._chain)
        seq = self._seq
        self._seq = seq + 1
        return seq

    def _row(self, given: Any) -> Row | None:
        accounts = self._accounts
        prepared = self._prepared(given)
        seq = self._chained(prepared)
        if self._plan.journal is not None:
            accounts.pulled(self._chain)
        if self._needs_care:
            return self._row_with_care(seq, given, prepared)
        if isinstance(prepared, NexError):
            self._set_aside(seq, given, prepared)
            return None
        return Row(seq, given, prepared, self.operation.route)

    def _row_with_care(self, seq: int, given: Any, prepared: Any) -> Row | None:
        """Return a row, where there is more to look at than whether it can be sent."""
        if self._resumed is not None and self._accounts.is_finished(seq):
            if self.verifier is not None and not isinstance(prepared, NexError):
                self._note_earlier(seq, given, prepared)
            return None
        if self.schema is not None and not isinstance(prepared, NexError):
            prepared = self.schema.fault(given) or prepared
        if isinstance(prepared, NexError):
            self._set_aside(seq, given, prepared)
            return None
        if self._plan.dry_run:
            self._settle(Outcome(seq, given, "valid"), None)
            return None
        row = Row(seq, given, prepared, self.operation.route)
        if self._headers is not None:
            row.request = row.request._replace(headers=self._headers)
        if self._plan.skip_unchanged:
            row.digest = body_digest(row.request.body or b"")
        if self._resumed is not None:
            self._take_up(row)
        return row

    def _set_aside(self, seq: int, given: Any, error: NexError) -> None:
        self._settle(Outcome(seq, given, "failed", error=error.with_traceback(None)), None)

    def _note_earlier(self, seq: int, given: Any, prepared: Prepared) -> None:
        """Let the verifying pass know of a row that an earlier run has written."""
        if self.verifier is not None and seq not in self.buried:
            self.verifier.note(prepared[1], mapping_of(given))

    def _take_up(self, row: Row) -> None:
        """Let a row know what became of it in an earlier run."""
        assert self._resumed is not None
        if row.seq < self._resumed.position.low + _SPREAD:
            row.may_have_acted = True
            row.uncertain_until = self._uncertain_until
        trouble = self._accounts.trouble.get(row.seq)
        if trouble is not None:
            row.attempts, row.first = trouble.attempts, trouble.first

    async def _drop_unchanged(self, rows: list[Row]) -> None:
        same = await self._accounts.lookup(rows)
        for row in rows:
            # A row of the same key that is on its way will change what stands there.
            if row.seq in same and not any(key in self.lines for key in row.keys):
                self._settle(Outcome(row.seq, row.given, "unchanged"), row)
            else:
                self._admit(row)
