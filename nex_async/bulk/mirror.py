"""Mirror: a local SQLite copy of objects, lists and relationships that keeps in step with the workspace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import anyio

from .._logfields import fields_of
from ..errors import (
    ClientClosed,
    DeadlineExceeded,
    DecodeError,
    InvalidRequestError,
    PaginationError,
    RateLimitError,
    RateLimitQueueFull,
    RetryBudgetExhausted,
    ServerError,
    StorageError,
    TenantMismatch,
    TransportError,
    outcome_of,
    own_words,
)
from ..models import Attribute, Object
from ..routes import GET_GRAPH, GET_LIST, GET_OBJECT, LIST_LISTS, LIST_OBJECTS, LIST_RELATIONSHIP_DEFINITIONS, Route
from ..storage import Database
from ..transport.sender import Sender
from ..transport.state import running_loop
from ..transport.wire import Id, texts
from .mirroring import file
from .mirroring.file import Kind, Row, Table
from .mirroring.graph import apply_definitions, apply_edges
from .mirroring.hints import Hints
from .mirroring.reading import RECORDS, Reader
from .mirroring.report import MirrorReport, TableReport
from .progress import Meter, OnProgress

__all__ = ["Mirror", "MirrorReport", "TableReport"]

_log = logging.getLogger("nex_async.bulk")

_GRAPH_LIMIT = 5000
_GRAPH_EVERY = 300.0
"""Seconds between two readings of the graph, which is a heavy reply, while a mirror watches."""
_DEBOUNCE = 1.0
"""Seconds after a hint in which more of them are waited for."""
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 300.0
_PASSING = (
    DeadlineExceeded,
    DecodeError,
    PaginationError,
    RateLimitError,
    RateLimitQueueFull,
    RetryBudgetExhausted,
    ServerError,
    TransportError,
)
_GRAPH: Route[bytes] = replace(GET_GRAPH, decode=bytes)  # type: ignore[assignment, arg-type]


class Mirror:
    """Keeps a SQLite file in step with objects and lists of a workspace, and with the relationships between records.

    ``async with nex.mirror("crm.sqlite", objects=["person"]) as mirror: await mirror.sync()``. The file opens with the first
    use and is held by this process alone; others may read it meanwhile. Every page is one transaction: killed at any
    moment, the file is whole, and the next `sync` goes on.

    - A table for each object, by its slug, and `list_<slug>` for each list: `id`, `created_at`, `updated_at`, a column for
      each attribute, and `_attributes`, the JSON of all of them as the server sent it.
    - The first `sync` reads everything; later ones what has changed since, and, with `sweep`, the ids of all rows, so that
      what was deleted is deleted here too. Nothing is deleted by a sweep that failed or could be wrong.
    - Lists are read in full each time: their rows carry the values of records, whose changes the list does not show.
    - `relationships` hold what `GET /v1/graph` shows. Where that is only a part, none is deleted.

    Use one mirror from one event loop.
    """

    def __init__(
        self,
        sender: Sender,
        path: str | os.PathLike[str],
        *,
        objects: Sequence[str] = (),
        lists: Sequence[Id] = (),
        relationships: bool = True,
        progress: OnProgress | None = None,
        page_size: int = 500,
    ) -> None:
        self.path: str = os.fspath(path)
        self._sender = sender
        self._targets: list[tuple[Kind, str]] = [
            *(("object", slug) for slug in texts("objects", objects)),
            *(("list", number) for number in texts("lists", lists)),
        ]
        self._relationships = relationships
        if not self._targets and not relationships:
            raise InvalidRequestError("name at least one object or list", argument="objects")
        whole = isinstance(page_size, int) and not isinstance(page_size, bool)
        if not whole or page_size < 2:
            raise InvalidRequestError(f"page_size must be an integer of at least 2, not {page_size!r}", argument="page_size")
        Meter("mirror", progress)
        self._progress = progress
        self._page_size = page_size
        self._database = Database(self.path)
        self._lock = asyncio.Lock()
        self._owner = _Owner(self)
        self._hints: set[Hints] = set()
        self._wakers: set[asyncio.Event] = set()
        self._workspace: str | None = None
        self._is_open = self._closed = self._aborted = False
        self._graph_read = -math.inf

    async def __aenter__(self) -> Mirror:
        await self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop watching and close the file. Idempotent; a closed mirror is not opened again."""
        self._closed = True
        for event in self._wakers:
            event.set()
        hints = list(self._hints)
        for one in hints:
            one.stop()
        for one in hints:
            await one.over()
        await self._database.aclose()
        self._sender.state.owned.discard(self._owner)

    async def sync(self, *, sweep: bool = True) -> MirrorReport:
        """Bring the file up to date once, and tell what changed.

        `sweep=False` leaves out the look for deleted rows. Raises what the server refuses a call with (the scopes are
        `object.read`, `record.read`, for lists `list.read` and `list.member.read`, for relationships `relationship.read`),
        `TenantMismatch` when the file belongs to another workspace, `CheckpointError` when it is no mirror, `StorageError`.
        What was done before an error is kept.
        """
        await self._open()
        async with self._lock:
            return await self._sync(sweep=sweep, graph=self._relationships)

    def watch(self, *, interval: float = 30.0, sweep_every: float = 3600.0) -> AsyncGenerator[MirrorReport, None]:
        """Keep the file in step for as long as this is iterated; each look at the server yields its report.

        The first look comes at once, the next every `interval` seconds, or about a second after an insight came over the
        stream, which hints at a change. Every `sweep_every` seconds a look finds what was deleted. Without the stream the
        mirror looks at intervals. Errors that may pass (no connection, 5xx, 429) are logged and tried again; others are
        raised, such as 401, 403 and 404. Raises `InvalidRequestError` for times that are not positive.
        """
        for name, value in (("interval", interval), ("sweep_every", sweep_every)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise InvalidRequestError(f"{name} must be a positive number of seconds, not {value!r}", argument=name)
        return self._watch(interval, sweep_every)

    async def _watch(self, interval: float, sweep_every: float) -> AsyncGenerator[MirrorReport, None]:
        await self._open()
        clock = asyncio.get_running_loop().time
        wake = asyncio.Event()
        hints = Hints(self._sender, wake.set)
        self._wakers.add(wake)
        self._hints.add(hints)
        swept = -math.inf
        try:
            while not self._closed:
                began = clock()
                sweep = began - swept >= sweep_every
                report = await self._persist(wake, sweep=sweep)
                if report is None:
                    break
                swept = began if sweep else swept
                yield report
                await self._pause(wake, interval)
            if self._aborted:
                raise ClientClosed("the client was closed")
        finally:
            hints.stop()
            self._wakers.discard(wake)
            self._hints.discard(hints)
            await hints.over()

    async def _persist(self, wake: asyncio.Event, *, sweep: bool) -> MirrorReport | None:
        """Sync, again and again until it succeeds; None when the mirror is closed meanwhile."""
        delay = _FIRST_DELAY
        clock = asyncio.get_running_loop().time
        while True:
            try:
                async with self._lock:
                    graph = self._relationships and (sweep or clock() - self._graph_read >= _GRAPH_EVERY)
                    return await self._sync(sweep=sweep, graph=graph)
            except _PASSING as error:
                if self._closed:
                    return None
                reason = own_words(error) or outcome_of(error)
                _log.warning("the mirror could not look (%s); it tries again", reason, extra=fields_of(error))
            except (ClientClosed, StorageError):
                if self._closed and not self._aborted:
                    return None
                raise
            with anyio.move_on_after(delay * random.uniform(0.5, 1.0)):
                while not self._closed:
                    wake.clear()
                    await wake.wait()
            if self._closed:
                return None
            delay = min(delay * 2, _LONGEST_DELAY)

    async def _pause(self, wake: asyncio.Event, interval: float) -> None:
        with anyio.move_on_after(interval):
            await wake.wait()
            if not self._closed:
                await asyncio.sleep(_DEBOUNCE)
        wake.clear()

    # ---- the file and whose it is -----------------------------------------------------------------------------------

    async def _open(self) -> None:
        if self._closed:
            if self._aborted:
                raise ClientClosed("the client was closed")
            raise InvalidRequestError("the mirror is closed", argument="mirror")
        if self._is_open:
            return
        self._sender.bind()
        async with self._lock:
            if self._is_open:
                return
            await self._database.open()
            try:
                place = self._sender.state.place
                self._workspace = await self._database.run(file.open_file, self.path, place)
            except BaseException:
                await self._database.aclose()
                self._database = Database(self.path)
                raise
            self._is_open = True
            self._owner.begin()

    async def _check(self, rows: Sequence[Row]) -> None:
        """See that rows are of the workspace the file belongs to. Raises `TenantMismatch`."""
        for workspace in {row.workspace_id for row in rows if row.workspace_id}:
            if self._workspace is None:
                await self._database.run(file.bind, workspace)
                self._workspace = workspace
            elif self._workspace != workspace:
                raise TenantMismatch(f"{self.path!r} belongs to another workspace than the one this key reads")

    async def _check_definitions(self, found: dict[tuple[Kind, str], Object]) -> None:
        """See by the ids of definitions that the workspace is still the same. Raises `TenantMismatch`."""
        known = await self._database.run(file.known_definitions)
        pairs = [(key, known[key], definition.id) for key, definition in found.items() if key in known]
        if any(before == now for _, before, now in pairs):
            return
        for (kind, key), _, _ in pairs:
            if kind == "object" and await self._is_ours(key):
                return
        if pairs:
            raise TenantMismatch(f"{self.path!r} was made of other objects than this key reads; is it the same workspace?")

    async def _is_ours(self, slug: str) -> bool:
        """Return whether a row of an object shows that it belongs to our workspace. Raises `TenantMismatch`."""
        rows = (await self._sender.send(RECORDS, (slug,), body={"limit": 1, "attributes": "none"})).rows
        if self._workspace is not None:
            await self._check(rows)
        return self._workspace is not None and any(row.workspace_id for row in rows)

    # ---- one look ---------------------------------------------------------------------------------------------------

    async def _sync(self, *, sweep: bool, graph: bool) -> MirrorReport:
        clock = asyncio.get_running_loop().time
        began = clock()
        reports: list[TableReport] = []
        for table in await self._tables():
            meter = Meter(f"mirror {table.name}", self._progress)
            reader = Reader(self._sender, self._database, table, meter, self._check, self._page_size)
            reports.append(await reader.read(sweep=sweep))
        complete = await self._read_relationships(reports) if graph else None
        return MirrorReport({report.table: report for report in reports}, complete, clock() - began)

    async def _tables(self) -> list[Table]:
        """Read the definitions of what is mirrored, and make the tables what they should be."""
        found: dict[tuple[Kind, str], Object] = {}
        for kind, key in self._targets:
            route: Route[Object] = GET_OBJECT if kind == "object" else GET_LIST
            found[kind, key] = await self._sender.send(route, (key,))
        await self._check_definitions(found)
        known = await self._database.run(file.parents)
        tables = []
        for (kind, key), definition in found.items():
            parent, attributes = None, list(definition.attributes or ())
            if kind == "list":
                parent = known.get(key) or await self._parent_of(key)
                name = f"list_{definition.slug or key}"
                attributes = await self._with_parents(parent, attributes, found)
            else:
                name = key
            tables.append(await self._database.run(file.open_table, kind, key, definition.id, name, attributes, parent))
        return tables

    async def _parent_of(self, list_id: str) -> str | None:
        """Return the slug of the object a list is of: the list itself does not tell."""
        slugs = [key for kind, key in self._targets if kind == "object"]
        others = (await self._sender.send(LIST_OBJECTS)).rows
        for slug in [*slugs, *(each.slug for each in others if each.slug and each.slug not in slugs)]:
            if any(each.id == list_id for each in (await self._sender.send(LIST_LISTS, (slug,))).rows):
                return slug
        template = "no object has the list %s; the values of its records get no columns"
        _log.warning(template, list_id, extra={"nex_list": list_id})
        return None

    async def _with_parents(
        self, parent: str | None, own: list[Attribute], found: dict[tuple[Kind, str], Object]
    ) -> list[Attribute]:
        """Return the attributes of a list's members: those of their records, and the list's own."""
        if parent is None:
            return own
        definition = found.get(("object", parent))
        if definition is None:
            definition = await self._sender.send(GET_OBJECT, (parent,))
        slugs = {attribute.slug for attribute in own}
        return [*(each for each in definition.attributes or () if each.slug not in slugs), *own]

    async def _read_relationships(self, reports: list[TableReport]) -> bool:
        clock = asyncio.get_running_loop().time
        began = clock()
        listed = await self._sender.send(LIST_RELATIONSHIP_DEFINITIONS)
        whole = not listed.errors
        applied, deleted = await self._database.run(apply_definitions, listed.rows, whole)
        report = TableReport("relationship_definitions", len(listed.rows), applied.inserted, applied.updated, deleted)
        report.unreadable, report.requests, report.swept = len(listed.errors), 1, whole
        report.seconds = clock() - began
        began = clock()
        data = await self._sender.send(_GRAPH, (), {"limit": _GRAPH_LIMIT})
        edges = await self._database.run(apply_edges, data)
        self._graph_read = clock()
        other = TableReport("relationships", edges.read, edges.applied.inserted, edges.applied.updated, edges.deleted)
        other.requests, other.swept, other.seconds = 1, edges.complete, clock() - began
        reports += [report, other]
        return edges.complete


class _Owner:
    """Ends a mirror with its client."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """Be known to the client from now on."""
        self._loop = asyncio.get_running_loop()
        self._mirror._sender.state.owned.add(self)

    def abort(self) -> None:
        """End the mirror at once; see `Owned`."""
        if self._loop is None:
            return
        if running_loop() is not self._loop:
            with contextlib.suppress(RuntimeError):  # its loop is closed, and everything on it is gone
                self._loop.call_soon_threadsafe(self.abort)
            return
        mirror = self._mirror
        mirror._closed = mirror._aborted = True
        for event in mirror._wakers:
            event.set()
        for hints in mirror._hints:
            hints.stop()

    async def over(self) -> None:
        """Wait until the file is closed; see `Owned`."""
        if running_loop() is self._loop:
            await self._mirror.aclose()
