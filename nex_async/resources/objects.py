"""Objects: the types of a workspace, and their attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from msgspec import UNSET, UnsetType

from .._typing import Unpack
from ..errors import InvalidRequestError
from ..models import Attribute, Object
from ..paging import OnBadRow, Pager
from ..routes import (
    CREATE_ATTRIBUTE,
    CREATE_OBJECT,
    DELETE_ATTRIBUTE,
    DELETE_OBJECT,
    GET_OBJECT,
    LIST_OBJECTS,
    UPDATE_ATTRIBUTE,
    UPDATE_OBJECT,
)
from ..transport.options import RequestOptions
from ..transport.wire import Id
from .base import Resource, choice, given, required_text

__all__ = ["ATTRIBUTE_TYPES", "OBJECT_TYPES", "AttributeType", "ObjectType", "Objects"]

ObjectType: TypeAlias = Literal["person", "company", "custom", "deal"]
AttributeType: TypeAlias = Literal[
    "text", "number", "email", "phone", "url", "date", "boolean", "currency", "location", "select", "social_profile",
    "domain", "full_name",
]  # fmt: skip
OBJECT_TYPES: tuple[str, ...] = ("person", "company", "custom", "deal")
ATTRIBUTE_TYPES: tuple[str, ...] = (
    "text", "number", "email", "phone", "url", "date", "boolean", "currency", "location", "select", "social_profile",
    "domain", "full_name",
)  # fmt: skip
SelectOptions: TypeAlias = "Sequence[str | Mapping[str, str]]"
"""The choices of a select attribute: names, or mappings with `name` and `id`."""


class Objects(Resource):
    """`nex.objects`: the types of a workspace, and their attributes."""

    async def create(
        self,
        slug: str,
        name: str,
        /,
        *,
        type: ObjectType | UnsetType = UNSET,
        name_plural: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Object:
        """Create an object and return it; `slug` and `type` (`custom` by default) cannot be changed later.

        `POST /v1/objects`, scope `object.write`. Raises `BadRequestError` if the slug is taken.
        """
        body = given(
            name=required_text("name", name),
            slug=required_text("slug", slug),
            type=choice("type", type, OBJECT_TYPES),
            name_plural=name_plural,
            description=description,
        )
        return await self._sender.send(CREATE_OBJECT, body=body, options=options)

    def list(
        self, *, include_attributes: bool = False, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]
    ) -> Pager[Object]:
        """Return a pager over every object, with their attributes if asked.

        `GET /v1/objects`, scope `object.read`. The listing comes in one page.
        """
        query = {"include_attributes": True} if include_attributes else None
        return self._single(LIST_OBJECTS, (), query, options=options, on_bad_row=on_bad_row)

    async def get(self, slug: str, /, **options: Unpack[RequestOptions]) -> Object:
        """Return one object with its attributes.

        `GET /v1/objects/{slug}`, scope `object.read`. Raises `NotFoundError` if there is no such object.
        """
        return await self._sender.send(GET_OBJECT, (slug,), options=options)

    async def update(
        self,
        slug: str,
        /,
        *,
        name: str | UnsetType = UNSET,
        name_plural: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Object:
        """Change what is given of an object, and return it.

        `PATCH /v1/objects/{slug}`, scope `object.write`. Raises `NotFoundError` if there is no such object.
        """
        body = given(name=name, name_plural=name_plural, description=description)
        return await self._sender.send(UPDATE_OBJECT, (slug,), body=body, options=options)

    async def delete(self, slug: str, /, **options: Unpack[RequestOptions]) -> None:
        """Delete an object **and every record of it**, for good.

        `DELETE /v1/objects/{slug}`, scope `object.write`. Raises `NotFoundError` if there is no such object.
        """
        await self._sender.send(DELETE_OBJECT, (slug,), options=options)

    async def create_attribute(
        self,
        object_slug: str,
        slug: str,
        name: str,
        type: AttributeType,
        /,
        *,
        description: str | UnsetType = UNSET,
        is_required: bool | UnsetType = UNSET,
        is_unique: bool | UnsetType = UNSET,
        is_multi_value: bool | UnsetType = UNSET,
        is_whole_number: bool | UnsetType = UNSET,
        use_raw_format: bool | UnsetType = UNSET,
        select_options: SelectOptions | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Attribute:
        """Create an attribute of an object and return it; slug, type, uniqueness and multi-value cannot change later.

        `POST /v1/objects/{slug}/attributes`, scope `object.write`. `select_options` are names or mappings with `name` and
        `id`. Raises `NotFoundError` for an unknown object, `BadRequestError` if the slug is taken.
        """
        if choice("type", type, ATTRIBUTE_TYPES) is None:
            raise InvalidRequestError("type must not be None", argument="type")
        rules = given(
            is_required=is_required,
            is_unique=is_unique,
            is_multi_value=is_multi_value,
            is_whole_number=is_whole_number,
            use_raw_format=use_raw_format,
            select_options=_select_options(select_options),
        )
        body = given(
            name=required_text("name", name),
            slug=required_text("slug", slug),
            type=type,
            description=description,
            options=rules or UNSET,
        )
        return await self._sender.send(CREATE_ATTRIBUTE, (object_slug,), body=body, options=options)

    async def update_attribute(
        self,
        object_slug: str,
        attribute_id: Id,
        /,
        *,
        name: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        is_required: bool | UnsetType = UNSET,
        is_whole_number: bool | UnsetType = UNSET,
        use_raw_format: bool | UnsetType = UNSET,
        select_options: SelectOptions | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Attribute:
        """Change what is given of an attribute, and return it.

        `PATCH /v1/objects/{slug}/attributes/{attr_id}`, scope `object.write`. A select option with `id` is renamed, one
        without is **added**; with such an addition a lost reply raises `OutcomeUnknownError`, because a second try could
        add it twice.
        """
        chosen = _select_options(select_options)
        rules = given(
            is_required=is_required,
            is_whole_number=is_whole_number,
            use_raw_format=use_raw_format,
            select_options=chosen,
        )
        body = given(name=name, description=description, options=rules or UNSET)
        if not isinstance(chosen, UnsetType) and any("id" not in option for option in chosen):
            options.setdefault("retry_ambiguous", False)
        return await self._sender.send(UPDATE_ATTRIBUTE, (object_slug, attribute_id), body=body, options=options)

    async def delete_attribute(self, object_slug: str, attribute_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Delete an attribute and its values, for good.

        `DELETE /v1/objects/{slug}/attributes/{attr_id}`, scope `object.write`. Raises `NotFoundError`.
        """
        await self._sender.send(DELETE_ATTRIBUTE, (object_slug, attribute_id), options=options)


def _select_options(chosen: SelectOptions | UnsetType) -> Any:
    if isinstance(chosen, UnsetType):
        return UNSET
    if isinstance(chosen, (str, bytes, Mapping)):
        raise InvalidRequestError("select_options must be a sequence of options", argument="select_options")
    return [{"name": option} if isinstance(option, str) else dict(option) for option in chosen]
