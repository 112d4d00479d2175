"""Records: the rows of an object."""

from __future__ import annotations

import builtins
import os
from typing import Any, TypeVar, overload

from .. import bulk
from .._typing import Unpack
from ..errors import InvalidRequestError
from ..models import Record, TimelineEvent, TypedRecord
from ..paging import MAX_PAGES, Limits, OnBadRow, Pager
from ..routes import (
    CREATE_RECORD,
    DELETE_RECORD,
    GET_RECORD,
    GET_TIMELINE,
    LIST_RECORDS,
    UPDATE_RECORD,
    UPSERT_RECORD,
    Route,
)
from ..transport.options import RequestOptions
from ..transport.wire import Id, in_range
from .base import Attributes, Resource, Selection, record_listing, required_text, typed, values_of

__all__ = ["Records"]

A = TypeVar("A")


class Records(Resource):
    """`nex.records`: the rows of an object."""

    async def create(self, slug: str, attributes: Attributes, /, **options: Unpack[RequestOptions]) -> Record:
        """Create a record of the object `slug` and return it.

        `POST /v1/objects/{slug}`, scope `record.write`. A lost reply raises `OutcomeUnknownError`, because repeating could
        create twice: `upsert` can be repeated. Raises `BadRequestError` for values the schema refuses, `NotFoundError`.
        """
        body = {"attributes": values_of("attributes", attributes)}
        return await self._sender.send(CREATE_RECORD, (slug,), body=body, options=options)

    async def upsert(
        self, slug: str, attributes: Attributes, /, *, match_on: str, **options: Unpack[RequestOptions]
    ) -> Record:
        """Update the record whose attribute `match_on` (slug or id) has the same value, or create it; return it.

        `PUT /v1/objects/{slug}`, scope `record.write`. Can be repeated, and is, when a reply is lost.
        """
        body = {
            "matching_attribute": required_text("match_on", match_on),
            "attributes": values_of("attributes", attributes),
        }
        return await self._sender.send(UPSERT_RECORD, (slug,), body=body, options=options)

    @overload
    async def get(self, record_id: Id, /, **options: Unpack[RequestOptions]) -> Record: ...
    @overload
    async def get(self, record_id: Id, /, *, as_type: type[A], **options: Unpack[RequestOptions]) -> TypedRecord[A]: ...
    async def get(
        self, record_id: Id, /, *, as_type: type[A] | None = None, **options: Unpack[RequestOptions]
    ) -> Record | TypedRecord[A]:
        """Return one record.

        `GET /v1/records/{record_id}`, scope `record.read`. Raises `NotFoundError` if there is no such record.
        """
        route: Route[Any] = GET_RECORD if as_type is None else typed(GET_RECORD, as_type, False)
        found: Record | TypedRecord[A] = await self._sender.send(route, (record_id,), options=options)
        return found

    async def update(self, record_id: Id, attributes: Attributes, /, **options: Unpack[RequestOptions]) -> Record:
        """Change the attributes given, leave the others, and return the record.

        `PATCH /v1/records/{record_id}`, scope `record.write`. A lost reply is retried, which may undo a change somebody
        made in between; `retry_ambiguous=False` raises `OutcomeUnknownError` instead.
        """
        body = {"attributes": values_of("attributes", attributes)}
        return await self._sender.send(UPDATE_RECORD, (record_id,), body=body, options=options)

    async def delete(self, record_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Delete a record for good.

        `DELETE /v1/records/{record_id}`, scope `record.write`. Raises `NotFoundError` if there is no such record.
        """
        await self._sender.send(DELETE_RECORD, (record_id,), options=options)

    @overload
    def list(
        self,
        slug: str,
        /,
        *,
        attributes: Selection | None = None,
        sort: str | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        stable: bool = False,
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[Record]: ...
    @overload
    def list(
        self,
        slug: str,
        /,
        *,
        as_type: type[A],
        attributes: Selection | None = None,
        sort: str | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        stable: bool = False,
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[TypedRecord[A]]: ...
    def list(
        self,
        slug: str,
        /,
        *,
        as_type: type[A] | None = None,
        attributes: Selection | None = None,
        sort: str | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        stable: bool = False,
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[Any]:
        """Return a pager over the records of an object.

        `POST /v1/objects/{slug}/records`, scope `record.read`. `limit` is the page size in rows (the server's own by
        default); `sort` an attribute's slug, `created_at` or `updated_at`, with `-` before it for descending; `attributes`
        `all`, `primary`, `none` or slugs. `stable` reads again until a pass meets no new row, for objects that change
        meanwhile, and remembers every id; it sorts by `created_at` unless told otherwise. `as_type` decodes attributes
        straight into a Struct of yours.
        """
        body = record_listing(attributes, "created_at" if stable and sort is None else sort)
        route = LIST_RECORDS if as_type is None else typed(LIST_RECORDS, as_type, True)
        limits = Limits(on_bad_row=on_bad_row, stable=stable, resume=resume, max_pages=max_pages)
        size = in_range("limit", limit, 1, None)
        return self._listed(route, (slug,), body, limit=size, limits=limits, options=options)

    def upsert_many(
        self, slug: str, rows: bulk.Rows, /, *, match_on: str, **options: Unpack[bulk.BulkOptions]
    ) -> bulk.BulkRun:
        """Upsert rows of the object `slug`: await the run for its report, or use `async with` for an outcome per row.

        `rows` are mappings of slugs to values, or Structs, from any iterable, pulled as they can be sent. Rows that share a
        value of `match_on` (compared without case) take effect in their order. With ``journal="run.db"`` the run can be
        killed at any point, and the same call goes on. `BulkOptions` lists the options, `BulkRun` what is raised.
        One `PUT /v1/objects/{slug}` a row, scope `record.write`; the definition is read once, scope `object.read`.
        """
        return bulk.BulkRun(self._sender, bulk.upserting(slug, required_text("match_on", match_on)), rows, options)

    def create_many(
        self,
        slug: str,
        rows: bulk.Rows,
        /,
        *,
        match_on: str | None = None,
        allow_unknown_outcomes: bool = False,
        **options: Unpack[bulk.BulkOptions],
    ) -> bulk.BulkRun:
        """Create rows of the object `slug`; see `upsert_many`.

        A create whose reply is lost cannot be repeated blindly. With `match_on`, an upsert by that attribute finds out what
        became of it; without, `allow_unknown_outcomes=True` is needed, and such rows are listed as `unknown`.
        One `POST /v1/objects/{slug}` a row, scope `record.write`. Raises `InvalidRequestError` without either.
        """
        if match_on is not None:
            required_text("match_on", match_on)
        elif not allow_unknown_outcomes:
            raise InvalidRequestError(
                "create_many cannot repeat a create whose reply was lost: give match_on= (an attribute that is unique), or "
                "allow_unknown_outcomes=True; or use upsert_many",
                argument="match_on",
            )
        return bulk.BulkRun(self._sender, bulk.creating(slug, match_on), rows, options)

    def update_many(self, rows: bulk.Rows, /, *, id_field: str = "id", **options: Unpack[bulk.BulkOptions]) -> bulk.BulkRun:
        """Change records by id; see `upsert_many`. A row is a mapping of the id, under `id_field`, and what to change.

        One `PATCH /v1/records/{record_id}` a row, scope `record.write`.
        """
        return bulk.BulkRun(self._sender, bulk.updating(required_text("id_field", id_field)), rows, options)

    def delete_many(self, rows: bulk.Rows, /, *, id_field: str = "id", **options: Unpack[bulk.BulkOptions]) -> bulk.BulkRun:
        """Delete records for good; see `upsert_many`. A row is an id, or a mapping that has one under `id_field`.

        One `DELETE /v1/records/{record_id}` a row, scope `record.write`.
        """
        return bulk.BulkRun(self._sender, bulk.deleting(required_text("id_field", id_field)), rows, options)

    def export(
        self,
        slug: str,
        /,
        to: str | os.PathLike[str] | None = None,
        *,
        attributes: Selection | None = "all",
        sort: str | None = None,
        limit: int = bulk.PAGE_SIZE,
        **options: Unpack[bulk.ExportOptions],
    ) -> bulk.Export:
        """Return an export of an object's records: await it for its report, or iterate over its `as_arrow()`.

        The name of the file `to` tells the format: `.jsonl`, `.csv` (both also with `.gz` or `.zst`), `.sqlite`, `.parquet`,
        `.arrow`. The file appears when it is complete; a run that ended early is taken up again by the same call. `sort` is
        `created_at` by default, and `limit` the page size in rows. One `POST /v1/objects/{slug}/records` a page, scope
        `record.read`, and for tables `GET /v1/objects/{slug}`, scope `object.read`, without which the columns are those of
        the first page. Raises `InvalidRequestError`, and when awaited `StorageError` and `SourceChanged`.
        """
        return bulk.Export(self._sender, _whole(slug, attributes, sort, limit), to, options)

    async def partitions(
        self,
        slug: str,
        count: int,
        /,
        *,
        attributes: Selection | None = "all",
        sort: str | None = None,
        limit: int = bulk.PAGE_SIZE,
        **options: Unpack[RequestOptions],
    ) -> builtins.list[bulk.Partition]:
        """Return an object's records in at most `count` ranges of one size, to be read apart, by `Partition.read`.

        `POST /v1/objects/{slug}/records`, scope `record.read`, once, for the number of rows. Arguments as in `export`.
        """
        return await bulk.divided(_whole(slug, attributes, sort, limit), count, self._sender, options)

    def timeline(
        self,
        record_id: Id,
        /,
        *,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[TimelineEvent]:
        """Return a pager over what happened to a record.

        `GET /v1/records/{record_id}/timeline`, scope `record.read`. `limit` is the page size, 1 to 100.
        """
        limits = Limits(on_bad_row=on_bad_row, resume=resume, max_pages=max_pages)
        size = in_range("limit", limit, 1, 100)
        return self._paged(GET_TIMELINE, (record_id,), {}, "cursor", limit=size, limits=limits, options=options)


def _whole(slug: str, attributes: Selection | None, sort: str | None, limit: int) -> bulk.Partition:
    sort = "created_at" if sort is None else sort
    record_listing(attributes, sort)
    in_range("limit", limit, 1, None)
    return bulk.Partition(
        "object", required_text("slug", slug), sort=sort, attributes=bulk.selection(attributes), limit=limit
    )
