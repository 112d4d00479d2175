"""Relationships: which objects may be joined, and which records are."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import UNSET, UnsetType

from .._typing import Unpack
from ..models import Relationship, RelationshipDefinition
from ..paging import OnBadRow, Pager
from ..routes import (
    CREATE_RELATIONSHIP,
    CREATE_RELATIONSHIP_DEFINITION,
    DELETE_RELATIONSHIP,
    DELETE_RELATIONSHIP_DEFINITION,
    LIST_RELATIONSHIP_DEFINITIONS,
)
from ..transport.options import RequestOptions
from ..transport.wire import Id
from .base import Resource, choice, given, id_text

__all__ = ["Cardinality", "Relationships"]

Cardinality: TypeAlias = Literal["one_to_one", "one_to_many", "many_to_many"]


class Relationships(Resource):
    """`nex.relationships`: which objects may be joined, and which records are."""

    async def create_definition(
        self,
        type: Cardinality,
        entity_definition_1_id: Id,
        entity_definition_2_id: Id,
        /,
        *,
        entity_1_to_2_predicate: str | UnsetType = UNSET,
        entity_2_to_1_predicate: str | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> RelationshipDefinition:
        """Allow records of two objects (by their ids) to be joined, and return the definition.

        `POST /v1/relationships`, scope `relationship.write`. The predicates label each direction.
        """
        body = given(
            type=choice("type", type, ("one_to_one", "one_to_many", "many_to_many")),
            entity_definition_1_id=id_text("entity_definition_1_id", entity_definition_1_id),
            entity_definition_2_id=id_text("entity_definition_2_id", entity_definition_2_id),
            entity_1_to_2_predicate=entity_1_to_2_predicate,
            entity_2_to_1_predicate=entity_2_to_1_predicate,
        )
        return await self._sender.send(CREATE_RELATIONSHIP_DEFINITION, body=body, options=options)

    def list_definitions(
        self, *, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]
    ) -> Pager[RelationshipDefinition]:
        """Return a pager over every relationship definition.

        `GET /v1/relationships`, scope `relationship.read`. The listing comes in one page.
        """
        return self._single(LIST_RELATIONSHIP_DEFINITIONS, options=options, on_bad_row=on_bad_row)

    async def delete_definition(self, definition_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Delete a relationship definition and its instances, for good.

        `DELETE /v1/relationships/{id}`, scope `relationship.write`. Raises `NotFoundError`.
        """
        await self._sender.send(DELETE_RELATIONSHIP_DEFINITION, (definition_id,), options=options)

    async def create(
        self,
        record_id: Id,
        /,
        *,
        definition_id: Id,
        entity_1_id: Id,
        entity_2_id: Id,
        **options: Unpack[RequestOptions],
    ) -> Relationship:
        """Join two records and return the relationship; `record_id` is one of the two.

        `POST /v1/records/{record_id}/relationships`, scope `relationship.write`. The API has no way to list a record's
        relationships: keep the id. Raises `BadRequestError` where the definition does not allow it.
        """
        body = {
            "definition_id": id_text("definition_id", definition_id),
            "entity_1_id": id_text("entity_1_id", entity_1_id),
            "entity_2_id": id_text("entity_2_id", entity_2_id),
        }
        return await self._sender.send(CREATE_RELATIONSHIP, (record_id,), body=body, options=options)

    async def delete(self, record_id: Id, relationship_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Part two records.

        `DELETE /v1/records/{record_id}/relationships/{rel_id}`, scope `relationship.write`. Raises `NotFoundError`.
        """
        await self._sender.send(DELETE_RELATIONSHIP, (record_id, relationship_id), options=options)
