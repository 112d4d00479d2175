"""What clients send: one struct per request body. A key left out is UNSET, null is None."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

Text: TypeAlias = str | UnsetType | None
Flag: TypeAlias = bool | UnsetType | None
Ids: TypeAlias = list[str] | UnsetType | None
Attributes: TypeAlias = dict[str, Any]


class CreateObject(msgspec.Struct):
    name: str
    slug: str
    name_plural: str | None = None
    description: str | None = None
    type: str | None = None


class UpdateObject(msgspec.Struct):
    """`slug` and `type` are here only to be refused when they differ."""

    name: Text = UNSET
    name_plural: Text = UNSET
    description: Text = UNSET
    slug: Text = UNSET
    type: Text = UNSET


class SelectOption(msgspec.Struct):
    name: str
    id: str | None = None


class AttributeOptions(msgspec.Struct):
    """The options of both requests; an update refuses `is_unique` and `is_multi_value`."""

    is_required: Flag = UNSET
    is_unique: Flag = UNSET
    is_multi_value: Flag = UNSET
    use_raw_format: Flag = UNSET
    is_whole_number: Flag = UNSET
    select_options: list[SelectOption] | UnsetType | None = UNSET


class CreateAttribute(msgspec.Struct):
    name: str
    slug: str
    type: str
    description: str | None = None
    options: AttributeOptions | None = None


class UpdateAttribute(msgspec.Struct):
    """`slug` and `type` are here only to be refused when they differ."""

    name: Text = UNSET
    description: Text = UNSET
    options: AttributeOptions | None = None
    slug: Text = UNSET
    type: Text = UNSET


class CreateRecord(msgspec.Struct):
    attributes: Attributes


class UpsertRecord(msgspec.Struct):
    matching_attribute: str
    attributes: Attributes


class UpdateRecord(msgspec.Struct):
    attributes: Attributes | None = None


class CustomAttributes(msgspec.Struct):
    mode: str
    slugs: list[str]


class Sort(msgspec.Struct):
    attribute: str | None = None
    direction: str | None = None


class ListRecords(msgspec.Struct):
    attributes: str | CustomAttributes | None = None
    limit: int | None = None
    offset: int | None = None
    sort: Sort | None = None


class CreateList(msgspec.Struct):
    name: str
    slug: str
    name_plural: str | None = None
    description: str | None = None


class CreateListMember(msgspec.Struct):
    parent_id: str
    attributes: Attributes | None = None


class CreateRelationshipDefinition(msgspec.Struct):
    type: str
    entity_definition_1_id: str
    entity_definition_2_id: str
    entity_1_to_2_predicate: str | None = None
    entity_2_to_1_predicate: str | None = None


class CreateRelationship(msgspec.Struct):
    definition_id: str
    entity_1_id: str
    entity_2_id: str


class CreateTask(msgspec.Struct):
    title: str
    description: Text = UNSET
    priority: Text = UNSET
    due_date: Text = UNSET
    entity_ids: Ids = UNSET
    assignee_ids: Ids = UNSET


class UpdateTask(msgspec.Struct):
    title: Text = UNSET
    description: Text = UNSET
    priority: Text = UNSET
    due_date: Text = UNSET
    is_completed: Flag = UNSET
    entity_ids: Ids = UNSET
    assignee_ids: Ids = UNSET


class CreateNote(msgspec.Struct):
    title: str
    content: Text = UNSET
    entity_id: Text = UNSET


class UpdateNote(msgspec.Struct):
    title: Text = UNSET
    content: Text = UNSET
    entity_id: Text = UNSET


class Search(msgspec.Struct):
    query: str


class AddContext(msgspec.Struct):
    content: str
    context: str | None = None
    session_id: str | None = None


class QueryContext(msgspec.Struct):
    query: str
    session_id: str | None = None


class CreateAIListJob(msgspec.Struct):
    query: str
    object_type: str | None = None
    limit: int | None = None
    include_attributes: bool | None = None
