"""Lists: named selections of an object's records, with attributes of their own."""

from __future__ import annotations

import builtins
import os
from typing import Any, TypeVar, overload

from msgspec import UNSET, UnsetType

from .. import bulk
from .._typing import Unpack
from ..models import Object, Record, TypedRecord
from ..paging import MAX_PAGES, Limits, OnBadRow, Pager
from ..routes import (
    ADD_MEMBER,
    CREATE_LIST,
    DELETE_LIST,
    GET_LIST,
    LIST_LISTS,
    LIST_MEMBERS,
    REMOVE_MEMBER,
    UPDATE_MEMBER,
    UPSERT_MEMBER,
)
from ..transport.options import RequestOptions
from ..transport.wire import Id, in_range
from .base import (
    Attributes,
    Resource,
    Selection,
    given,
    id_text,
    record_listing,
    required_text,
    typed,
    values_of,
)

__all__ = ["Lists"]

A = TypeVar("A")


class Lists(Resource):
    """`nex.lists`: named selections of an object's records, with attributes of their own."""

    async def create(
        self,
        object_slug: str,
        slug: str,
        name: str,
        /,
        *,
        name_plural: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Object:
        """Create a list over an object's records, and return it; its `type` is `list`.

        `POST /v1/objects/{slug}/lists`, scope `object.write`. Raises `NotFoundError` for an unknown object.
        """
        body = given(
            name=required_text("name", name),
            slug=required_text("slug", slug),
            name_plural=name_plural,
            description=description,
        )
        return await self._sender.send(CREATE_LIST, (object_slug,), body=body, options=options)

    def list(
        self,
        object_slug: str,
        /,
        *,
        include_attributes: bool = False,
        on_bad_row: OnBadRow = "raise",
        **options: Unpack[RequestOptions],
    ) -> Pager[Object]:
        """Return a pager over the lists of an object.

        `GET /v1/objects/{slug}/lists`, scope `list.read`. The listing comes in one page.
        """
        query = {"include_attributes": True} if include_attributes else None
        return self._single(LIST_LISTS, (object_slug,), query, options=options, on_bad_row=on_bad_row)

    async def get(self, list_id: Id, /, **options: Unpack[RequestOptions]) -> Object:
        """Return one list.

        `GET /v1/lists/{id}`, scope `list.read`. Raises `NotFoundError` if there is no such list.
        """
        return await self._sender.send(GET_LIST, (list_id,), options=options)

    async def delete(self, list_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Delete a list; the records on it stay.

        `DELETE /v1/lists/{id}`, scope `object.write`. Raises `NotFoundError` if there is no such list.
        """
        await self._sender.send(DELETE_LIST, (list_id,), options=options)

    @overload
    def records(
        self,
        list_id: Id,
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
    def records(
        self,
        list_id: Id,
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
    def records(
        self,
        list_id: Id,
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
        """Return a pager over the members of a list; each `id` is the membership's, attributes are merged.

        `POST /v1/lists/{id}/records`, scope `list.member.read`. Arguments as in `records.list`.
        """
        body = record_listing(attributes, "created_at" if stable and sort is None else sort)
        route = LIST_MEMBERS if as_type is None else typed(LIST_MEMBERS, as_type, True)
        limits = Limits(on_bad_row=on_bad_row, stable=stable, resume=resume, max_pages=max_pages)
        size = in_range("limit", limit, 1, None)
        return self._listed(route, (list_id,), body, limit=size, limits=limits, options=options)

    def export(
        self,
        list_id: Id,
        /,
        to: str | os.PathLike[str] | None = None,
        *,
        parent: str | None = None,
        attributes: Selection | None = "all",
        sort: str | None = None,
        limit: int = bulk.PAGE_SIZE,
        **options: Unpack[bulk.ExportOptions],
    ) -> bulk.Export:
        """Return an export of a list's members, each with its record's attributes; see `Records.export`.

        `parent` is the slug of the object the list selects from, whose definition tells columns of a table; without it they
        are those of the list itself and of the first page. One `POST /v1/lists/{id}/records` a page, scope
        `list.member.read`, and for tables `GET /v1/lists/{id}`, scope `list.read`.
        """
        return bulk.Export(self._sender, _whole(list_id, attributes, sort, limit), to, options, parent=parent)

    async def partitions(
        self,
        list_id: Id,
        count: int,
        /,
        *,
        attributes: Selection | None = "all",
        sort: str | None = None,
        limit: int = bulk.PAGE_SIZE,
        **options: Unpack[RequestOptions],
    ) -> builtins.list[bulk.Partition]:
        """Return a list's members in at most `count` ranges of one size, to be read apart, by `Partition.read`.

        `POST /v1/lists/{id}/records`, scope `list.member.read`, once, for the number of members.
        """
        return await bulk.divided(_whole(list_id, attributes, sort, limit), count, self._sender, options)

    async def add_member(
        self, list_id: Id, parent_id: Id, attributes: Attributes | None = None, /, **options: Unpack[RequestOptions]
    ) -> Record:
        """Put the record `parent_id` on a list, with values for the list's own attributes; return the member.

        `POST /v1/lists/{id}`, scope `list.member.write`. A lost reply raises `OutcomeUnknownError`; `upsert_member` can be
        repeated.
        """
        body = _member(parent_id, attributes)
        return await self._sender.send(ADD_MEMBER, (list_id,), body=body, options=options)

    async def upsert_member(
        self, list_id: Id, parent_id: Id, attributes: Attributes | None = None, /, **options: Unpack[RequestOptions]
    ) -> Record:
        """Put a record on a list, or change its values there if it is on it; return the member.

        `PUT /v1/lists/{id}`, scope `list.member.write`. Can be repeated, and is, when a reply is lost.
        """
        body = _member(parent_id, attributes)
        return await self._sender.send(UPSERT_MEMBER, (list_id,), body=body, options=options)

    def upsert_members(
        self, list_id: Id, rows: bulk.Rows, /, *, id_field: str = "parent_id", **options: Unpack[bulk.BulkOptions]
    ) -> bulk.BulkRun:
        """Put records on a list, or change their values there: await the run for its report, or iterate over outcomes.

        A row is a record's id, or a mapping of it, under `id_field`, and values of the list's own attributes. Options as in
        `records.upsert_many`. One `PUT /v1/lists/{id}` a row, scope `list.member.write`.
        """
        operation = bulk.members(list_id, required_text("id_field", id_field))
        return bulk.BulkRun(self._sender, operation, rows, options)

    async def update_member(
        self, list_id: Id, record_id: Id, attributes: Attributes, /, **options: Unpack[RequestOptions]
    ) -> Record:
        """Change the list's own attributes of a member, and return it.

        `PATCH /v1/lists/{id}/records/{record_id}`, scope `list.member.write`. Whether `record_id` is the membership's id or
        the record's is not documented: the membership's, as listings return it, is the safer one.
        """
        body = {"attributes": values_of("attributes", attributes)}
        return await self._sender.send(UPDATE_MEMBER, (list_id, record_id), body=body, options=options)

    async def remove_member(self, list_id: Id, record_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Take a record off a list; the record stays. `record_id` as in `update_member`.

        `DELETE /v1/lists/{id}/records/{record_id}`, scope `record.write`. Raises `NotFoundError`.
        """
        await self._sender.send(REMOVE_MEMBER, (list_id, record_id), options=options)


def _member(parent_id: Id, attributes: Attributes | None) -> dict[str, Any]:
    body: dict[str, Any] = {"parent_id": id_text("parent_id", parent_id)}
    if attributes is not None:
        body["attributes"] = values_of("attributes", attributes)
    return body


def _whole(list_id: Id, attributes: Selection | None, sort: str | None, limit: int) -> bulk.Partition:
    sort = "created_at" if sort is None else sort
    record_listing(attributes, sort)
    in_range("limit", limit, 1, None)
    return bulk.Partition("list", id_text("list_id", list_id), sort=sort, attributes=bulk.selection(attributes), limit=limit)
