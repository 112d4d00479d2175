"""What goes into each operation and what comes out, as the document at `/openapi.json` tells it; by operationId."""

from __future__ import annotations

from typing import Any, TypeAlias

from nex_async import models
from nex_async.emulator import bodies

__all__ = ["BODIES", "MODELS", "PATH_PARAMETERS", "QUERIES", "REPLIES", "Schema", "ref"]

Schema: TypeAlias = dict[str, Any]

BODIES: dict[str, type] = {
    "createObjectDefinition": bodies.CreateObject,
    "updateObjectDefinition": bodies.UpdateObject,
    "createAttributeDefinition": bodies.CreateAttribute,
    "updateAttributeDefinition": bodies.UpdateAttribute,
    "createRecord": bodies.CreateRecord,
    "upsertRecord": bodies.UpsertRecord,
    "listRecords": bodies.ListRecords,
    "updateRecord": bodies.UpdateRecord,
    "searchRecords": bodies.Search,
    "createRelationshipDefinition": bodies.CreateRelationshipDefinition,
    "createRelationshipInstance": bodies.CreateRelationship,
    "createList": bodies.CreateList,
    "addListMember": bodies.CreateListMember,
    "upsertListMember": bodies.CreateListMember,
    "getListRecords": bodies.ListRecords,
    "updateListRecord": bodies.UpdateRecord,
    "createTask": bodies.CreateTask,
    "updateTask": bodies.UpdateTask,
    "createNote": bodies.CreateNote,
    "updateNote": bodies.UpdateNote,
    "addContext": bodies.AddContext,
    "queryContext": bodies.QueryContext,
    "createAIListJob": bodies.CreateAIListJob,
    "triggerCompoundingJob": bodies.TriggerCompounding,
    "updateNotificationPreferences": bodies.UpdatePreferences,
    "createCustomNotificationRule": bodies.CreateRule,
}
"""The operations that read a body, and what they read it as."""

MODELS: tuple[type, ...] = (
    models.AIList,
    models.AIListCreated,
    models.Answer,
    models.Artifact,
    models.ArtifactCreated,
    models.Attribute,
    models.CompoundingJob,
    models.CompoundingStarted,
    models.ConnectStarted,
    models.ConnectStatus,
    models.Graph,
    models.Insight,
    models.InsightBatch,
    models.Integration,
    models.Note,
    models.Notification,
    models.NotificationPreferences,
    models.NotificationRule,
    models.Object,
    models.Record,
    models.Relationship,
    models.RelationshipDefinition,
    models.SearchResults,
    models.Task,
    models.TimelineEvent,
)
"""Every model a reply refers to."""

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_MOMENT: Schema = {"type": "string", "format": "date-time"}
_ID: Schema = {"type": "integer", "format": "int64", "minimum": 0}


def ref(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def _limit(low: int, high: int, default: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high, "default": default}


def _rows(name: str, /, under: str = "data", **others: Schema) -> Schema:
    """Return the schema of a listing."""
    return {"type": "object", "properties": {under: _many(name), **others}}


def _page(name: str) -> Schema:
    return _rows(name, total=_COUNT, limit=_COUNT, offset=_COUNT)


def _many(name: str) -> Schema:
    return {"type": ["array", "null"], "items": ref(name)}


def _wrapped(name: str) -> Schema:
    return {"type": "object", "properties": {"message": ref(name)}, "required": ["message"]}


QUERIES: dict[str, dict[str, Schema]] = {
    "listObjects": {"include_attributes": {**_FLAG, "default": False}},
    "listObjectLists": {"include_attributes": {**_FLAG, "default": False}},
    "getRecordTimeline": {"limit": _limit(1, 100, 50), "cursor": _TEXT},
    "listTasks": {
        "entity_id": _TEXT,
        "assignee_id": _TEXT,
        "search": _TEXT,
        "is_completed": _FLAG,
        "limit": _limit(1, 500, 100),
        "offset": {**_COUNT, "default": 0},
    },
    "listNotes": {"entity_id": _TEXT},
    "getInsights": {
        "last": {**_TEXT, "examples": ["30m", "1h30m"]},
        "from": _MOMENT,
        "to": _MOMENT,
        "limit": _limit(1, 100, 20),
    },
    "getAIListJob": {"include_attributes": _FLAG},
    "getGraph": {"limit": _limit(1, 5000, 1000), "format": {**_TEXT, "enum": ["json", "html"], "default": "json"}},
    "getNotificationFeed": {"limit": _limit(1, 50, 20), "since": _MOMENT},
}
"""The query parameters; all are optional, and any other is ignored."""

PATH_PARAMETERS: dict[str, Schema] = {
    "record_id": _ID,
    "artifact_id": _ID,
    "connection_id": _ID,
    "/v1/lists/{id}": _ID,
    "job_run_id": {**_TEXT, "format": "uuid"},
    "type": {**_TEXT, "enum": ["email", "calendar", "messaging", "crm"]},
    "provider": {**_TEXT, "enum": ["google", "microsoft", "slack", "attio", "hubspot", "salesforce"]},
}
"""The path parameters that are not any text; `{id}` is an integer only under the path named."""

REPLIES: dict[str, Schema] = {
    "createObjectDefinition": ref("Object"),
    "listObjects": _rows("Object"),
    "getObjectDefinition": ref("Object"),
    "updateObjectDefinition": ref("Object"),
    "createAttributeDefinition": ref("Attribute"),
    "updateAttributeDefinition": ref("Attribute"),
    "createRecord": ref("Record"),
    "upsertRecord": ref("Record"),
    "listRecords": _page("Record"),
    "getRecord": ref("Record"),
    "updateRecord": ref("Record"),
    "getRecordTimeline": _rows("TimelineEvent", has_next_page=_FLAG, next_cursor=_TEXT),
    "searchRecords": ref("SearchResults"),
    "createRelationshipDefinition": ref("RelationshipDefinition"),
    "listRelationshipDefinitions": _rows("RelationshipDefinition"),
    "createRelationshipInstance": ref("Relationship"),
    "createList": ref("Object"),
    "listObjectLists": _rows("Object"),
    "getList": ref("Object"),
    "addListMember": ref("Record"),
    "upsertListMember": ref("Record"),
    "getListRecords": _page("Record"),
    "updateListRecord": ref("Record"),
    "createTask": ref("Task"),
    "listTasks": _rows("Task", has_more=_FLAG, total=_COUNT, next_offset=_COUNT),
    "getTask": ref("Task"),
    "updateTask": ref("Task"),
    "createNote": ref("Note"),
    "listNotes": _rows("Note"),
    "getNote": ref("Note"),
    "updateNote": ref("Note"),
    "getInsights": {"anyOf": [_rows("Insight"), ref("InsightBatch"), {"type": "array", "items": ref("Insight")}]},
    "addContext": ref("ArtifactCreated"),
    "getArtifact": ref("Artifact"),
    "queryContext": ref("Answer"),
    "createAIListJob": {"anyOf": [ref("AIListCreated"), _wrapped("AIListCreated")]},
    "getAIListJob": {"anyOf": [ref("AIList"), _wrapped("AIList")]},
    "getGraph": ref("Graph"),
    "listIntegrations": {"type": "array", "items": ref("Integration")},
    "startIntegrationConnect": ref("ConnectStarted"),
    "getConnectStatus": ref("ConnectStatus"),
    "triggerCompoundingJob": ref("CompoundingStarted"),
    "getCompoundingJobStatus": ref("CompoundingJob"),
    "getNotificationFeed": _rows("Notification", "items"),
    "getNotificationPreferences": ref("NotificationPreferences"),
    "updateNotificationPreferences": ref("NotificationPreferences"),
    "listCustomNotificationRules": _rows("NotificationRule", "rules"),
    "createCustomNotificationRule": ref("NotificationRule"),
    "getCustomNotificationRule": ref("NotificationRule"),
    "deleteCustomNotificationRule": {"type": "object"},
}
"""The JSON replies; what stands neither here nor is the stream has an empty body."""
