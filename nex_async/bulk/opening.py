"""What comes before the first row is sent: the journal, the mapping, and the rows that are done already."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ..errors import InvalidRequestError, NexError, PermissionDeniedError, SourceChanged, TenantMismatch
from ..models import Object
from ..transport.sender import Sender
from ..transport.wire import http_date
from .accounts import Accounts
from .intake import Intake
from .journal import Opened
from .mapping import SAMPLE, Schema, problems_of, refuse
from .operations import Operation, mapping_of
from .options import Plan
from .source import Source
from .verify import Verifier

__all__ = ["Opening"]

_log = logging.getLogger("nex_async.bulk")

_PATIENCE = 0.5
"""Seconds for the first rows of an asynchronous source."""


class Opening:
    """Brings a run to the first row that is to be sent."""

    def __init__(
        self, sender: Sender, operation: Operation, plan: Plan, source: Source, accounts: Accounts, intake: Intake
    ) -> None:
        self.since: str | None = None
        """When the run began, by the server's clock, as the API writes times; None where it does not tell."""
        self.held: dict[bytes, float] = {}
        """Digests of keys under which a request of an earlier run may still take effect, and until when."""
        self._sender = sender
        self._operation = operation
        self._plan = plan
        self._source = source
        self._accounts = accounts
        self._intake = intake
        self._definition: Object | None = None

    async def is_all_done(self, *, refuses: bool) -> bool:
        """Open the journal and pass over what is done; return whether that is everything.

        With `refuses`, rows that do not fit their object as a whole raise `MappingError`.
        """
        self._source.begin()
        opened = await self._accounts.open(f"{self._sender.state.place}|{self._operation.identity}", self._recognise)
        if opened is not None:
            self.held = opened.held
            if opened.is_finished and await self._is_same(opened):
                return True
        await self._check(refuses)
        if opened is not None:
            await self._claim(opened)
        await self._begin_verifying()
        if opened is not None and not opened.is_new and not opened.is_finished:
            self._intake.go_on(opened)
            try:
                await self._intake.skip()
            except SourceChanged as changed:
                await self._restart(changed)
        return False

    async def _begin_verifying(self) -> None:
        operation = self._intake.operation
        if self._plan.verify and operation.match_on is not None:
            verifier = Verifier(self._sender, operation.probe_path, operation.key or operation.match_on)
            await verifier.open()
            self._intake.verifier, self._intake.buried = verifier, await self._accounts.buried()

    async def _recognise(self, run: str, witness: bytes | None, home: str | None) -> None:
        """See that a journal is of this workspace: by the key, else by what only this workspace has.

        Raises `TenantMismatch`.
        """
        if witness == self._witness(run) or home is None or not self._plan.check:
            return
        if await self._home() not in (None, home):
            raise TenantMismatch("the journal belongs to another workspace, whose rows are not these; use another file")

    async def _claim(self, opened: Opened) -> None:
        """Note in the journal whose it is."""
        witness = self._witness(self._accounts.run)
        if opened.witness != witness and self._plan.check:
            await self._accounts.claim(witness, opened.home or await self._home())

    def _witness(self, run: str) -> bytes:
        tenant = self._sender.state.tenant
        assert tenant is not None
        return tenant.witness(run)

    async def _home(self) -> str | None:
        """Return an id that no other workspace has; None if the key may not see any."""
        if self._definition is None:
            try:
                found = await self._sender.send(self._operation.probe, self._operation.probe_path)
            except PermissionDeniedError:
                return None
            if not isinstance(found, Object):
                return min((one.id for one in found.rows), default=None)
            self._definition = found
        return self._definition.id

    async def _is_same(self, opened: Opened) -> bool:
        """Return whether a finished journal is of this job; with no job's name, the rows tell."""
        if self._plan.job_id is not None:
            return True
        first = await self._source.sample(1, _PATIENCE)
        if first and self._operation.match_on is not None and self._operation.match_on not in _slugs(first[0]):
            await self._check(False)  # the attribute may be named by its id
        self._intake.go_on(opened)
        try:
            await self._intake.skip()
            await self._intake.expect_end()
        except SourceChanged as changed:
            await self._restart(changed)
            return False
        return True

    async def _restart(self, changed: SourceChanged) -> None:
        """Begin anew with other rows than the journal's, if that is wanted and possible; else raise what was found."""
        if not self._plan.force:
            raise changed
        if not self._source.repeats:
            raise InvalidRequestError("force=True needs rows that can be read twice: a list, or an object with __iter__")
        await self._accounts.restart()
        self._intake.start_over()
        if self._intake.verifier is not None:
            await self._intake.verifier.aclose()
            await self._begin_verifying()

    async def _check(self, refuses: bool) -> None:
        """Read the object's definition, by which rows are checked."""
        operation, intake = self._operation, self._intake
        if operation.match_on is None or not self._plan.check:
            return
        try:
            definition = await self._sender.send(operation.probe, operation.probe_path)
        except PermissionDeniedError:
            template = "%s: the key may not read the object's definition; rows go unchecked"
            _log.warning(template, operation.name, extra={"nex_run": operation.name})
            return
        self._definition = definition
        if not definition.attributes:
            return
        self.since = _second(self._sender.bind().replied.get("Date"))
        schema = intake.schema = Schema(definition)
        slug = schema.attribute_of(operation.match_on)
        if slug is not None and slug != operation.match_on and operation.matched is not None:
            intake.operation = operation.matched(slug)
        rows = [row for row in map(_slugs, await self._source.sample(SAMPLE, _PATIENCE)) if row]
        if refuses:
            refuse(problems_of(schema, rows, slug or operation.match_on))


def _slugs(row: Any) -> Mapping[str, Any]:
    try:
        return mapping_of(row)
    except NexError:
        return {}


def _second(date: str | None) -> str | None:
    """Return a `Date` header as the API writes times, without the zone."""
    moment = None if date is None else http_date(date)
    return None if moment is None else datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
