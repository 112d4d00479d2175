"""Nex as a source of dlt: objects, lists and insights as Arrow tables, merged by id, and each time only what changed.

Needs ``pip install "nex-async[dlt]"``. Importing this module turns dlt's own telemetry off for this process, unless the
variable `RUNTIME__DLTHUB_TELEMETRY` is set already: nothing but the Nex API is called. dlt reads the variable when the first
pipeline is made, so the import belongs above that.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from .. import blocking
from .._typing import Unpack
from ..blocking.bulk import each
from ..bulk.changes import Changes
from ..bulk.export_options import checked_structured, checked_window, need
from ..bulk.formats.columns import Column, Kind, Structured, columns_of, select
from ..bulk.insights import InsightTables
from ..bulk.partitions import Partition
from ..config import Secret, masked
from ..errors import InvalidRequestError, NotFoundError, SourceChanged, TenantMismatch
from ..models import Object
from ..models.base import parse_timestamp
from ..paging import OnBadRow
from ..routes import GET_LIST, GET_OBJECT, LIST_LISTS, LIST_OBJECTS, Route
from ..transport.options import RequestOptions
from ..transport.sender import Sender
from ..transport.wire import Id, rfc3339, texts

__all__ = ["ApiKey", "nex_source"]

os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")

ApiKey: TypeAlias = str | Secret | Callable[[], str | Secret] | None
"""A key, or a function that returns it each time it is needed; None looks into `NEX_API_KEY` and `~/.nex`."""

_log = logging.getLogger("nex_async.dlt")
_OVERLAP = timedelta(minutes=5)
_INSIGHTS_OVERLAP = timedelta(hours=2)
"""The API's list shows an insight within two hours of its creation."""
_BEGINNING = datetime(2020, 1, 1, tzinfo=timezone.utc)
"""No insight is older."""
_DATA_TYPES: dict[Kind, str] = {
    "text": "text", "json": "text", "number": "double", "whole": "bigint", "boolean": "bool", "time": "timestamp",
}  # fmt: skip
"""dlt's type for each kind of column."""
_KINDS: dict[str, Kind] = {
    "text": "json", "double": "number", "bigint": "whole", "bool": "boolean", "timestamp": "time",
}  # fmt: skip
"""What fits a column that has one of dlt's types already."""


def nex_source(
    objects: Iterable[str] | None = None,
    lists: Iterable[Id] = (),
    *,
    insights: bool = False,
    api_key: ApiKey = None,
    base_url: str | None = None,
    overlap: timedelta = _OVERLAP,
    insights_overlap: timedelta = _INSIGHTS_OVERLAP,
    insights_start: datetime = _BEGINNING,
    structured: Structured = "json",
    on_bad_row: OnBadRow = "raise",
    window: int = 8,
    page_size: int = 500,
    batch_rows: int = 65_536,
    name: str = "nex",
    **options: Unpack[RequestOptions],
) -> Any:
    """Return a `DltSource` with one resource for each object, each list, and the insights: ``pipeline.run(nex_source())``.

    `objects` are slugs, all objects of the workspace without it; `lists` are ids. Resources are called after the object's
    slug, `list_<slug>` and `insights`. They read in parallel, over one client, `window` pages of `page_size` rows in flight,
    and yield Arrow tables of about `batch_rows` rows. `structured` and `on_bad_row` mean what they do in exports; rows that
    are skipped are counted in a warning. `options` go with every request.

    Objects are merged by `id`. The first run reads everything, later ones what changed since the newest `updated_at` of
    the run before, less `overlap`; a run whose data never reached the destination counts for nothing. Deleted records stay:
    ``pipeline.run(source, write_disposition="replace")`` reads all anew. Lists are read whole and replaced each time, for
    what changes a member's record leaves no mark on the membership. Insights are merged by their id, else by a hash of
    their contents; they are read by windows of time, from `insights_start`, later from the newest `created_at` seen, less
    `insights_overlap`.

    The key goes nowhere but into the request. This asks for the definitions, once: `GET /v1/objects/{slug}`, scope
    `object.read`, and for lists `GET /v1/lists/{id}` and `GET /v1/objects/{slug}/lists`, scope `list.read`. Reading needs
    `record.read` (`POST /v1/objects/{slug}/records`), `list.member.read` (`POST /v1/lists/{id}/records`) and
    `insight.stream` (`GET /v1/insights`).

    Raises `InvalidRequestError` without dlt or pyarrow, for an object or a list that is not there, and for other arguments
    that cannot be right; `ConfigError` without a key; what the server refuses a call with. When it is run: `SourceChanged`
    where the attributes of an object changed while it was read, `TenantMismatch` where the pipeline has loaded another
    workspace, `DecodeError` for a row that cannot be used. dlt wraps those in its `PipelineStepFailed`.
    """
    api_key = masked(api_key)
    need("pyarrow", "dlt")
    need("dlt", "dlt")
    _check(overlap, insights_overlap, insights_start, on_bad_row, page_size, batch_rows)
    settings = _Settings(
        overlap,
        insights_overlap,
        insights_start,
        checked_structured(structured),
        on_bad_row,
        checked_window(window),
        page_size,
        batch_rows,
        options,
    )
    slugs = None if objects is None else texts("objects", objects)
    client = _Client(api_key, base_url)
    with client.open() as nex:
        nex.with_options(**options)  # refuses what cannot be right
        plan = nex._call(partial(_planned, nex._async._sender, slugs, texts("lists", lists), options))
    return _source(name, client, plan, settings, insights=insights)


@dataclass(frozen=True, slots=True)
class _Settings:
    overlap: timedelta
    insights_overlap: timedelta
    insights_start: datetime
    structured: Structured
    on_bad_row: OnBadRow
    window: int
    page_size: int
    batch_rows: int
    options: RequestOptions


@dataclass(frozen=True, slots=True)
class _Target:
    """An object or a list that is read, as it was defined when the source was made."""

    kind: Literal["object", "list"]
    key: str
    """The object's slug, or the list's id."""
    table: str
    definition: Object
    parent: str | None = None
    """The slug of the object a list selects from."""
    parent_definition: Object | None = None

    @property
    def columns(self) -> dict[str, Column]:
        """The attributes' columns, by slug."""
        inherited = {} if self.parent_definition is None else columns_of(self.parent_definition)
        return inherited | columns_of(self.definition)


class _Client:
    """The one client of all resources: open while any of them reads."""

    def __init__(self, api_key: ApiKey, base_url: str | None) -> None:
        self._api_key = Secret(api_key) if isinstance(api_key, str) else api_key
        self._base_url = base_url
        self._lock = threading.Lock()
        self._readers = 0
        self._nex: blocking.Nex | None = None

    @contextmanager
    def open(self) -> Generator[blocking.Nex, None, None]:
        """Lend the client."""
        with self._lock:
            if self._nex is None:
                key = self._api_key() if callable(self._api_key) else self._api_key
                self._nex = blocking.Nex(masked(key), base_url=self._base_url)
            self._readers += 1
            nex = self._nex
        try:
            yield nex
        finally:
            with self._lock:
                self._readers -= 1
                last = self._nex if self._readers == 0 else None
                if last is not None:
                    self._nex = None
            if last is not None:
                last.close()


# ---- what there is --------------------------------------------------------------------------------------------------


async def _planned(
    sender: Sender, slugs: Sequence[str] | None, lists: Sequence[str], options: RequestOptions
) -> list[_Target]:
    """Return what is to be read. Raises `InvalidRequestError` for what is not there."""
    known = await _known(sender, options) if slugs is None or lists else []
    targets = [await _object(sender, slug, options) for slug in (known if slugs is None else slugs)]
    targets += [await _list(sender, known, key, options) for key in lists]
    tables = [target.table for target in targets]
    double = {table for table in tables if tables.count(table) > 1 or table == "insights"}
    if double:
        raise InvalidRequestError(f"two resources would have the name {min(double)!r}", argument="lists")
    return targets


async def _known(sender: Sender, options: RequestOptions) -> list[str]:
    """Return the slugs of all objects."""
    return [each.slug for each in (await sender.send(LIST_OBJECTS, options=options)).rows if each.slug]


async def _object(sender: Sender, slug: str, options: RequestOptions) -> _Target:
    try:
        return _Target("object", slug, slug, await _definition(sender, GET_OBJECT, slug, options))
    except NotFoundError:
        pass
    there = ", ".join(sorted(await _known(sender, options))) or "none"
    raise InvalidRequestError(f"there is no object {slug!r}; there are: {there}", argument="objects")


async def _list(sender: Sender, known: Sequence[str], key: str, options: RequestOptions) -> _Target:
    try:
        definition = await _definition(sender, GET_LIST, key, options)
    except NotFoundError:
        raise InvalidRequestError(f"there is no list {key!r}", argument="lists") from None
    table = f"list_{definition.slug or key}"
    for slug in known:
        if any(one.id == definition.id for one in (await sender.send(LIST_LISTS, (slug,), options=options)).rows):
            return _Target("list", key, table, definition, slug, await _definition(sender, GET_OBJECT, slug, options))
    return _Target("list", key, table, definition)


async def _now(sender: Sender, target: _Target, options: RequestOptions) -> _Target:
    """Return a target as it is defined at present."""
    definition = await _definition(sender, GET_OBJECT if target.kind == "object" else GET_LIST, target.key, options)
    above = None
    if target.parent is not None:
        above = await _definition(sender, GET_OBJECT, target.parent, options)
    return replace(target, definition=definition, parent_definition=above)


async def _definition(sender: Sender, route: Route[Object], key: str, options: RequestOptions) -> Object:
    return await sender.send(route, (key,), options=options)


# ---- the source -----------------------------------------------------------------------------------------------------


def _source(name: str, client: _Client, plan: Sequence[_Target], settings: _Settings, *, insights: bool) -> Any:
    def resources() -> list[Any]:
        made = [_resource(client, target, settings) for target in plan]
        return [*made, _insights_resource(client, settings)] if insights else made

    return _dlt().source(resources, name=name, section="nex", max_table_nesting=0)()


def _dlt() -> Any:
    return importlib.import_module("dlt")  # the package dlt, which may not be there


def _resource(client: _Client, target: _Target, settings: _Settings) -> Any:
    def read() -> Generator[Any, None, None]:
        state = _dlt().current.resource_state(target.table)
        held = _held_types(target.table)
        with client.open() as nex:
            yield from each(nex, _rows(nex._async._sender, target, settings, state, held))

    read.__name__ = target.table
    return _dlt().resource(
        read,
        name=target.table,
        primary_key="id",
        write_disposition="merge" if target.kind == "object" else "replace",
        columns=_hints(target),
        parallelized=True,
    )


def _hints(target: _Target) -> dict[str, dict[str, Any]]:
    """Return dlt's hints for a table's columns: what attributes are called. Their types come with the Arrow tables."""
    hints: dict[str, dict[str, Any]] = {}
    if target.kind == "object":
        hints["updated_at"] = {"name": "updated_at", "dedup_sort": "desc"}  # of a record that came twice, the newer
    described = {}
    for definition in (target.parent_definition, target.definition):
        for attribute in (definition.attributes if definition is not None else None) or ():
            described[attribute.slug] = attribute.description or attribute.name
    for column in select(target.columns, None):
        if described.get(column.slug):
            hints[column.name] = {"name": column.name, "description": described[column.slug]}
    return hints


def _held_types(table: str) -> Callable[[str], str | None]:
    """Return a function that tells which of dlt's types a column of the destination's table has; None where it has none."""
    schema = _dlt().current.source_schema()
    naming = schema.naming
    columns = schema.tables.get(naming.normalize_table_identifier(table), {}).get("columns", {})

    def held(name: str) -> str | None:
        found: str | None = columns.get(naming.normalize_identifier(name), {}).get("data_type")
        return found

    return held


def _settled(column: Column, held: str | None) -> Column:
    """Return a column as the destination can take it, whose columns keep the type they were made with.

    What does not fit that goes to the last column, `_extra`; a number with a fraction would silently lose it in a column of
    whole numbers.
    """
    wanted = "text" if column.many else _DATA_TYPES[column.kind]
    kind = _KINDS.get(held or wanted)
    return column if kind is None or held in (None, wanted) else msgspec.structs.replace(column, kind=kind, many=False)


# ---- records --------------------------------------------------------------------------------------------------------


async def _rows(
    sender: Sender,
    target: _Target,
    settings: _Settings,
    state: dict[str, Any],
    held: Callable[[str], str | None],
) -> AsyncGenerator[Any, None]:
    """Iterate over the tables of one run, and note in dlt's state what the next one goes on from."""
    options = settings.options
    before = await _now(sender, target, options)
    if state.get("definition", before.definition.id) != before.definition.id:
        raise TenantMismatch(
            f"the pipeline has loaded another {target.kind} {target.key!r} than this key reads: another workspace's, or one "
            'deleted since; use another pipeline, or begin anew with refresh="drop_sources"'
        )
    changes = Changes(
        sender,
        Partition(target.kind, target.key, attributes="all", limit=settings.page_size),
        tuple(_settled(column, held(column.name)) for column in select(before.columns, None)),
        options,
        structured=settings.structured,
        on_bad_row=settings.on_bad_row,
        window=settings.window,
        batch_rows=settings.batch_rows,
    )
    watermark = parse_timestamp(state.get("updated_at")) if target.kind == "object" else None
    if watermark is None:
        reading = changes.everything()
    else:
        reading = changes.since(watermark - settings.overlap, is_sorted=state.get("sorted", True))
    async with aclosing(reading) as tables:
        async for table in tables:
            yield table
    _compare(target, before, await _now(sender, target, options))
    if changes.bad_rows:
        fields = {"nex_table": target.table, "nex_count": changes.bad_rows}
        _log.warning("%s: %d rows cannot be used, and were skipped", target.table, changes.bad_rows, extra=fields)
    if changes.unstable:
        _log.warning(
            "%s: rows were deleted while it was read, so that others may be missing; the next run reads all again",
            target.table,
            extra={"nex_table": target.table},
        )
    if target.kind == "object":
        _note(state, before.definition.id, changes, watermark)


def _note(state: dict[str, Any], definition: str, changes: Changes, before: datetime | None) -> None:
    state["definition"] = definition
    newest = max(filter(None, (changes.watermark, before)), default=None)
    if newest is None or changes.unstable:
        return  # the next run reads everything again
    state["updated_at"] = rfc3339("updated_at", newest)
    state["sorted"] = changes.sorted


def _compare(target: _Target, before: _Target, after: _Target) -> None:
    """Raise `SourceChanged` where attributes are not what they were when the reading began."""
    old, new = before.columns, after.columns
    if old == new:
        return
    changed = sorted({slug for slug in {*old, *new} if old.get(slug) != new.get(slug)})
    raise SourceChanged(
        f"attributes of the {target.kind} {target.key!r} changed while it was read ({', '.join(changed)}); "
        "nothing was loaded: run the pipeline again"
    )


# ---- insights -------------------------------------------------------------------------------------------------------


def _insights_resource(client: _Client, settings: _Settings) -> Any:
    def insights() -> Generator[Any, None, None]:
        state = _dlt().current.resource_state("insights")
        with client.open() as nex:
            yield from each(nex, _insights(nex._async._sender, settings, state))

    return _dlt().resource(insights, name="insights", primary_key="id", write_disposition="merge", parallelized=True)


async def _insights(sender: Sender, settings: _Settings, state: dict[str, Any]) -> AsyncGenerator[Any, None]:
    """Iterate over the tables of one run, and note in dlt's state what the next one goes on from."""
    before = parse_timestamp(state.get("created_at"))
    start = settings.insights_start if before is None else before - settings.insights_overlap
    reading = InsightTables(sender, settings.options, workspace=state.get("workspace"), on_bad_row=settings.on_bad_row)
    async with aclosing(reading.since(start)) as tables:
        async for table in tables:
            yield table
    if reading.bad_rows:
        fields = {"nex_table": "insights", "nex_count": reading.bad_rows}
        _log.warning("insights: %d rows cannot be used, and were skipped", reading.bad_rows, extra=fields)
    newest = max(filter(None, (reading.newest, before)), default=None)
    if newest is not None:
        state["created_at"] = rfc3339("created_at", newest)
    if reading.workspace is not None:
        state["workspace"] = reading.workspace


# ---- arguments ------------------------------------------------------------------------------------------------------


def _check(
    overlap: object, insights_overlap: object, start: object, on_bad_row: object, page_size: object, batch_rows: object
) -> None:
    for name, value in (("overlap", overlap), ("insights_overlap", insights_overlap)):
        if not isinstance(value, timedelta) or value < timedelta(0):
            raise InvalidRequestError(f"{name} must be a timedelta that is not negative, not {value!r}", argument=name)
    if not isinstance(start, datetime) or start.tzinfo is None:
        raise InvalidRequestError("insights_start must be an aware datetime", argument="insights_start")
    if on_bad_row not in get_args(OnBadRow):
        raise InvalidRequestError("on_bad_row must be 'raise' or 'skip'", argument="on_bad_row")
    for name, value in (("page_size", page_size), ("batch_rows", batch_rows)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 2:
            raise InvalidRequestError(f"{name} must be an integer of at least 2, not {value!r}", argument=name)
