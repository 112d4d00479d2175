"""Notes."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from .._typing import Unpack
from ..models import Note
from ..paging import OnBadRow, Pager
from ..routes import CREATE_NOTE, DELETE_NOTE, GET_NOTE, LIST_NOTES, UPDATE_NOTE
from ..transport.options import RequestOptions
from ..transport.wire import Id
from .base import Resource, given, id_text, required_text

__all__ = ["Notes"]

_SILENT_CAP = 200


class Notes(Resource):
    """`nex.notes`."""

    async def create(
        self,
        title: str,
        /,
        *,
        content: str | UnsetType = UNSET,
        entity_id: Id | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Note:
        """Create a note, on a record if `entity_id` is given, and return it.

        `POST /v1/notes`, scope `note.write`. A lost reply raises `OutcomeUnknownError`.
        """
        body = given(title=required_text("title", title), content=content, entity_id=_entity(entity_id))
        return await self._sender.send(CREATE_NOTE, body=body, options=options)

    def list(
        self, *, entity_id: Id | None = None, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]
    ) -> Pager[Note]:
        """Return a pager over the notes, of one record if `entity_id` is given.

        `GET /v1/notes`, scope `note.read`. The API returns at most 200 and has no way to ask for more: at exactly 200 a
        `TruncatedResultWarning` is issued.
        """
        query = None if entity_id is None else {"entity_id": id_text("entity_id", entity_id)}
        return self._single(LIST_NOTES, (), query, options=options, on_bad_row=on_bad_row, silent_cap=_SILENT_CAP)

    async def get(self, note_id: Id, /, **options: Unpack[RequestOptions]) -> Note:
        """Return one note.

        `GET /v1/notes/{note_id}`, scope `note.read`. Raises `NotFoundError` if there is no such note.
        """
        return await self._sender.send(GET_NOTE, (note_id,), options=options)

    async def update(
        self,
        note_id: Id,
        /,
        *,
        title: str | UnsetType = UNSET,
        content: str | UnsetType = UNSET,
        entity_id: Id | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Note:
        """Change what is given of a note, and return it.

        `PATCH /v1/notes/{note_id}`, scope `note.write`. Raises `NotFoundError` if there is no such note.
        """
        body = given(
            title=title if isinstance(title, UnsetType) else required_text("title", title),
            content=content,
            entity_id=_entity(entity_id),
        )
        return await self._sender.send(UPDATE_NOTE, (note_id,), body=body, options=options)

    async def delete(self, note_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Archive a note; nothing in the API restores it.

        `DELETE /v1/notes/{note_id}`, scope `note.write`. Raises `NotFoundError` if there is no such note.
        """
        await self._sender.send(DELETE_NOTE, (note_id,), options=options)


def _entity(entity_id: Id | UnsetType) -> str | UnsetType:
    return entity_id if isinstance(entity_id, UnsetType) else id_text("entity_id", entity_id)
