"""What clients send: one struct per request body. A key left out is UNSET, null is None."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

Text: TypeAlias = str | UnsetType | None
Flag: TypeAlias = bool | UnsetType | None
Ids: TypeAlias = list[str] | UnsetType | None
Attributes: TypeAlias = dict[str, Any]


def _one_of(*words: str) -> Meta:
    """Return what the document at `/openapi.json` says of a field; the operation itself refuses other words."""
    return Meta(extra_json_schema={"enum": list(words)})


ObjectType = Annotated[str, _one_of("person", "company", "custom", "deal")]
AttributeType = Annotated[
    str,
    _one_of(
        *("text", "number", "email", "phone", "url", "date", "boolean", "currency", "location", "select"),
        *("social_profile", "domain", "full_name"),
    ),
]
Cardinality = Annotated[str, _one_of("one_to_one", "one_to_many", "many_to_many")]
Priority = Annotated[str, _one_of("unspecified", "low", "medium", "high", "urgent", "")]
Direction = Annotated[str, _one_of("asc", "desc")]
ListedType = Annotated[str, _one_of("contact", "company")]
JobType = Annotated[str, _one_of("consolidation", "pattern_detection", "playbook_synthesis", "decay_sweep", "metrics")]
Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Query = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 500})]


class CreateObject(msgspec.Struct):
    """`POST /v1/objects`."""

    name: str
    slug: str
    name_plural: str | None = None
    description: str | None = None
    type: ObjectType | None = None


class UpdateObject(msgspec.Struct):
    """`slug` and `type` are here only to be refused when they differ."""

    name: Text = UNSET
    name_plural: Text = UNSET
    description: Text = UNSET
    slug: Text = UNSET
    type: Text = UNSET


class SelectOption(msgspec.Struct):
    """One choice of a select."""

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
    """`POST /v1/objects/{slug}/attributes`."""

    name: str
    slug: str
    type: AttributeType
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
    """`POST /v1/objects/{slug}`."""

    attributes: Attributes


class UpsertRecord(msgspec.Struct):
    """`PUT /v1/objects/{slug}`."""

    matching_attribute: str
    attributes: Attributes


class UpdateRecord(msgspec.Struct):
    """`PATCH` of a record or a list member."""

    attributes: Attributes | None = None


class CustomAttributes(msgspec.Struct):
    """The object form of `attributes` in a listing."""

    mode: Annotated[str, _one_of("custom")]
    slugs: list[str]


class Sort(msgspec.Struct):
    """The order of a listing."""

    attribute: str | None = None
    direction: Direction | None = None


class ListRecords(msgspec.Struct):
    """The listings of records and of list members."""

    attributes: str | CustomAttributes | None = None
    limit: int | None = None
    offset: int | None = None
    sort: Sort | None = None


class CreateList(msgspec.Struct):
    """`POST /v1/objects/{slug}/lists`."""

    name: str
    slug: str
    name_plural: str | None = None
    description: str | None = None


class CreateListMember(msgspec.Struct):
    """`POST` and `PUT /v1/lists/{id}`."""

    parent_id: str
    attributes: Attributes | None = None


class CreateRelationshipDefinition(msgspec.Struct):
    """`POST /v1/relationships`."""

    type: Cardinality
    entity_definition_1_id: str
    entity_definition_2_id: str
    entity_1_to_2_predicate: str | None = None
    entity_2_to_1_predicate: str | None = None


class CreateRelationship(msgspec.Struct):
    """`POST /v1/records/{record_id}/relationships`."""

    definition_id: str
    entity_1_id: str
    entity_2_id: str


class CreateTask(msgspec.Struct):
    """`POST /v1/tasks`."""

    title: str
    description: Text = UNSET
    priority: Priority | UnsetType | None = UNSET
    due_date: Moment | UnsetType | None = UNSET
    entity_ids: Ids = UNSET
    assignee_ids: Ids = UNSET


class UpdateTask(msgspec.Struct):
    """`PATCH /v1/tasks/{task_id}`."""

    title: Text = UNSET
    description: Text = UNSET
    priority: Priority | UnsetType | None = UNSET
    due_date: Moment | UnsetType | None = UNSET
    is_completed: Flag = UNSET
    entity_ids: Ids = UNSET
    assignee_ids: Ids = UNSET


class CreateNote(msgspec.Struct):
    """`POST /v1/notes`."""

    title: str
    content: Text = UNSET
    entity_id: Text = UNSET


class UpdateNote(msgspec.Struct):
    """`PATCH /v1/notes/{note_id}`."""

    title: Text = UNSET
    content: Text = UNSET
    entity_id: Text = UNSET


class Search(msgspec.Struct):
    """`POST /v1/search`."""

    query: Query


class AddContext(msgspec.Struct):
    """`POST /v1/context/text`."""

    content: str
    context: str | None = None
    session_id: str | None = None


class QueryContext(msgspec.Struct):
    """`POST /v1/context/ask`."""

    query: str
    session_id: str | None = None


class CreateAIListJob(msgspec.Struct):
    """`POST /v1/context/list/jobs`."""

    query: str
    object_type: ListedType | None = None
    limit: int | None = None
    include_attributes: bool | None = None


class TriggerCompounding(msgspec.Struct):
    """`POST /v1/compounding/trigger`."""

    job_type: JobType
    dry_run: bool | None = None


class UpdatePreferences(msgspec.Struct):
    """`PATCH /v1/notifications/preferences`."""

    frequency_minutes: int | UnsetType | None = UNSET
    enabled_types: list[str] | UnsetType | None = UNSET
    digest_enabled: Flag = UNSET


class CreateRule(msgspec.Struct):
    """`POST /v1/notifications/custom`."""

    description: str
