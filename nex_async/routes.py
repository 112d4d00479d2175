"""The contract: every operation of the API, declared once.

The methods of the resources, the router of the emulator, the error that names a missing scope, the table in the docs and
the tests all read these constants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from . import models
from .models.ai_lists import decode_ai_list, decode_ai_list_created
from .models.base import Rows, decode, decode_nothing, decode_rows
from .models.context import decode_artifact, decode_artifact_created
from .models.insights import decode_insights
from .models.search import decode_search

__all__ = ["ALL", "BY_NAME", "Deadline", "Group", "RetryClass", "Route"]

T = TypeVar("T")

RetryClass: TypeAlias = Literal["read", "upsert", "state", "create", "costly"]
"""How a route may be repeated: `read` and `upsert` freely, `state` (PATCH, DELETE) freely, `create` and `costly` only when
the server certainly did not act."""
Deadline: TypeAlias = Literal["standard", "slow", "stream"]
"""Which default timeouts apply: 60 s in all and 30 s of silence; 300 and 120 for AI operations; none for the stream."""
Group: TypeAlias = Literal["default", "text", "connect"]
"""Which rate limit a route counts against; `text` and `connect` are the two published ones (10 per minute each)."""


@dataclass(frozen=True, slots=True)
class Route(Generic[T]):
    """One operation: where it lives, what it needs, what it returns and how it may be repeated."""

    name: str
    """The operationId of the API."""
    method: str
    path: str
    """The path with `{param}` for each path parameter."""
    decode: Callable[[bytes], T] = field(repr=False)
    """Turns the body of a success into the reply."""
    scopes: tuple[str, ...]
    """The scope the API summary names, then the candidates of other documents."""
    retry: RetryClass
    deadline: Deadline = "standard"
    group: Group = "default"
    status: int = 200
    """The status of a success."""
    extended: bool = False
    """Whether the operation stands only in the published spec, not in the API summary."""
    parts: tuple[str, ...] = field(init=False, repr=False)
    """The path split at its parameters: literals at even places, parameter names at odd ones."""

    def __post_init__(self) -> None:
        pieces = self.path.replace("}", "{").split("{")
        object.__setattr__(self, "parts", tuple(pieces))

    @property
    def params(self) -> tuple[str, ...]:
        """The names of the path parameters, in order."""
        return self.parts[1::2]


def _one(kind: type[T]) -> Callable[[bytes], T]:
    return partial(decode, kind)


def _many(kind: type[T]) -> Callable[[bytes], Rows[T]]:
    return partial(decode_rows, kind)


_object, _objects = _one(models.Object), _many(models.Object)
_attribute = _one(models.Attribute)
_record, _records = _one(models.Record), _many(models.Record)
_task, _note = _one(models.Task), _one(models.Note)
_rule, _preferences = _one(models.NotificationRule), _one(models.NotificationPreferences)

# Objects, attributes, records, search
CREATE_OBJECT = Route("createObjectDefinition", "POST", "/v1/objects", _object, ("object.write",), "create")
LIST_OBJECTS = Route("listObjects", "GET", "/v1/objects", _objects, ("object.read",), "read")
GET_OBJECT = Route("getObjectDefinition", "GET", "/v1/objects/{slug}", _object, ("object.read",), "read")
UPDATE_OBJECT = Route("updateObjectDefinition", "PATCH", "/v1/objects/{slug}", _object, ("object.write",), "state")
DELETE_OBJECT = Route("deleteObjectDefinition", "DELETE", "/v1/objects/{slug}", decode_nothing, ("object.write",), "state")
CREATE_ATTRIBUTE = Route(
    "createAttributeDefinition", "POST", "/v1/objects/{slug}/attributes", _attribute, ("object.write",), "create"
)
UPDATE_ATTRIBUTE = Route(
    "updateAttributeDefinition", "PATCH", "/v1/objects/{slug}/attributes/{attr_id}", _attribute, ("object.write",), "state"
)
DELETE_ATTRIBUTE = Route(
    "deleteAttributeDefinition",
    "DELETE",
    "/v1/objects/{slug}/attributes/{attr_id}",
    decode_nothing,
    ("object.write",),
    "state",
)
CREATE_RECORD = Route("createRecord", "POST", "/v1/objects/{slug}", _record, ("record.write",), "create")
UPSERT_RECORD = Route("upsertRecord", "PUT", "/v1/objects/{slug}", _record, ("record.write",), "upsert")
LIST_RECORDS = Route("listRecords", "POST", "/v1/objects/{slug}/records", _records, ("record.read",), "read")
GET_RECORD = Route("getRecord", "GET", "/v1/records/{record_id}", _record, ("record.read",), "read")
UPDATE_RECORD = Route("updateRecord", "PATCH", "/v1/records/{record_id}", _record, ("record.write",), "state")
DELETE_RECORD = Route("deleteRecord", "DELETE", "/v1/records/{record_id}", decode_nothing, ("record.write",), "state")
GET_TIMELINE = Route(
    "getRecordTimeline", "GET", "/v1/records/{record_id}/timeline", _many(models.TimelineEvent), ("record.read",), "read"
)
SEARCH = Route("searchRecords", "POST", "/v1/search", decode_search, ("record.read",), "read")

# Relationships and lists
CREATE_RELATIONSHIP_DEFINITION = Route(
    "createRelationshipDefinition",
    "POST",
    "/v1/relationships",
    _one(models.RelationshipDefinition),
    ("relationship.write",),
    "create",
)
LIST_RELATIONSHIP_DEFINITIONS = Route(
    "listRelationshipDefinitions",
    "GET",
    "/v1/relationships",
    _many(models.RelationshipDefinition),
    ("relationship.read",),
    "read",
)
DELETE_RELATIONSHIP_DEFINITION = Route(
    "deleteRelationshipDefinition", "DELETE", "/v1/relationships/{id}", decode_nothing, ("relationship.write",), "state"
)
CREATE_RELATIONSHIP = Route(
    "createRelationshipInstance",
    "POST",
    "/v1/records/{record_id}/relationships",
    _one(models.Relationship),
    ("relationship.write",),
    "create",
)
DELETE_RELATIONSHIP = Route(
    "deleteRelationshipInstance",
    "DELETE",
    "/v1/records/{record_id}/relationships/{rel_id}",
    decode_nothing,
    ("relationship.write",),
    "state",
)
CREATE_LIST = Route("createList", "POST", "/v1/objects/{slug}/lists", _object, ("object.write",), "create")
LIST_LISTS = Route("listObjectLists", "GET", "/v1/objects/{slug}/lists", _objects, ("list.read",), "read")
GET_LIST = Route("getList", "GET", "/v1/lists/{id}", _object, ("list.read",), "read")
DELETE_LIST = Route("deleteList", "DELETE", "/v1/lists/{id}", decode_nothing, ("object.write",), "state")
ADD_MEMBER = Route("addListMember", "POST", "/v1/lists/{id}", _record, ("list.member.write",), "create")
UPSERT_MEMBER = Route("upsertListMember", "PUT", "/v1/lists/{id}", _record, ("list.member.write",), "upsert")
LIST_MEMBERS = Route("getListRecords", "POST", "/v1/lists/{id}/records", _records, ("list.member.read",), "read")
UPDATE_MEMBER = Route(
    "updateListRecord", "PATCH", "/v1/lists/{id}/records/{record_id}", _record, ("list.member.write",), "state"
)
REMOVE_MEMBER = Route(
    "removeRecordFromList", "DELETE", "/v1/lists/{id}/records/{record_id}", decode_nothing, ("record.write",), "state"
)

# Tasks and notes
CREATE_TASK = Route("createTask", "POST", "/v1/tasks", _task, ("task.write",), "create")
LIST_TASKS = Route("listTasks", "GET", "/v1/tasks", _many(models.Task), ("task.read",), "read")
GET_TASK = Route("getTask", "GET", "/v1/tasks/{task_id}", _task, ("task.read",), "read")
UPDATE_TASK = Route("updateTask", "PATCH", "/v1/tasks/{task_id}", _task, ("task.write",), "state")
DELETE_TASK = Route("deleteTask", "DELETE", "/v1/tasks/{task_id}", decode_nothing, ("task.write",), "state")
CREATE_NOTE = Route("createNote", "POST", "/v1/notes", _note, ("note.write",), "create")
LIST_NOTES = Route("listNotes", "GET", "/v1/notes", _many(models.Note), ("note.read",), "read")
GET_NOTE = Route("getNote", "GET", "/v1/notes/{note_id}", _note, ("note.read",), "read")
UPDATE_NOTE = Route("updateNote", "PATCH", "/v1/notes/{note_id}", _note, ("note.write",), "state")
DELETE_NOTE = Route("deleteNote", "DELETE", "/v1/notes/{note_id}", decode_nothing, ("note.write",), "state")

# Insights, context, AI lists
LIST_INSIGHTS = Route("getInsights", "GET", "/v1/insights", decode_insights, ("insight.stream",), "read")
STREAM_INSIGHTS = Route(
    "streamInsights", "GET", "/v1/insights/stream", decode_insights, ("insight.stream",), "read", deadline="stream"
)
ADD_TEXT = Route(
    "addContext",
    "POST",
    "/v1/context/text",
    decode_artifact_created,
    ("insight.stream", "record.write"),
    "costly",
    deadline="slow",
    group="text",
)
GET_ARTIFACT = Route(
    "getArtifact", "GET", "/v1/context/artifacts/{artifact_id}", decode_artifact, ("insight.stream", "record.read"), "read"
)
ASK = Route(
    "queryContext",
    "POST",
    "/v1/context/ask",
    _one(models.Answer),
    ("insight.stream", "record.read"),
    "costly",
    deadline="slow",
)
CREATE_AI_LIST = Route(
    "createAIListJob",
    "POST",
    "/v1/context/list/jobs",
    decode_ai_list_created,
    ("insight.stream", "list.member.write"),
    "costly",
    deadline="slow",
)
GET_AI_LIST = Route(
    "getAIListJob", "GET", "/v1/context/list/jobs/{job_id}", decode_ai_list, ("insight.stream", "list.member.read"), "read"
)

# Extended: graph, integrations, compounding, notifications
GET_GRAPH = Route(
    "getGraph", "GET", "/v1/graph", _one(models.Graph), ("record.read",), "read", deadline="slow", extended=True
)
LIST_INTEGRATIONS = Route(
    "listIntegrations", "GET", "/v1/integrations", _many(models.Integration), ("integration.read",), "read", extended=True
)
CONNECT = Route(
    "startIntegrationConnect",
    "POST",
    "/v1/integrations/{type}/{provider}/connect",
    _one(models.ConnectStarted),
    ("integration.write",),
    "costly",
    group="connect",
    extended=True,
)
GET_CONNECT_STATUS = Route(
    "getConnectStatus",
    "GET",
    "/v1/integrations/connect/{connect_id}/status",
    _one(models.ConnectStatus),
    ("integration.read",),
    "read",
    extended=True,
)
DISCONNECT = Route(
    "disconnectIntegration",
    "DELETE",
    "/v1/integrations/connections/{connection_id}",
    decode_nothing,
    ("integration.write",),
    "state",
    extended=True,
)
TRIGGER_COMPOUNDING = Route(
    "triggerCompoundingJob",
    "POST",
    "/v1/compounding/trigger",
    _one(models.CompoundingStarted),
    ("record.write",),
    "costly",
    status=202,
    extended=True,
)
GET_COMPOUNDING_JOB = Route(
    "getCompoundingJobStatus",
    "GET",
    "/v1/compounding/jobs/{job_run_id}",
    _one(models.CompoundingJob),
    ("record.read",),
    "read",
    extended=True,
)
LIST_NOTIFICATIONS = Route(
    "getNotificationFeed",
    "GET",
    "/v1/notifications/feed",
    _many(models.Notification),
    ("notification.read",),
    "read",
    extended=True,
)
GET_PREFERENCES = Route(
    "getNotificationPreferences",
    "GET",
    "/v1/notifications/preferences",
    _preferences,
    ("notification.read",),
    "read",
    extended=True,
)
UPDATE_PREFERENCES = Route(
    "updateNotificationPreferences",
    "PATCH",
    "/v1/notifications/preferences",
    _preferences,
    ("notification.write",),
    "state",
    extended=True,
)
LIST_RULES = Route(
    "listCustomNotificationRules",
    "GET",
    "/v1/notifications/custom",
    _many(models.NotificationRule),
    ("notification.read",),
    "read",
    extended=True,
)
CREATE_RULE = Route(
    "createCustomNotificationRule",
    "POST",
    "/v1/notifications/custom",
    _rule,
    ("notification.write",),
    "create",
    extended=True,
)
GET_RULE = Route(
    "getCustomNotificationRule", "GET", "/v1/notifications/custom/{id}", _rule, ("notification.read",), "read", extended=True
)
DELETE_RULE = Route(
    "deleteCustomNotificationRule",
    "DELETE",
    "/v1/notifications/custom/{id}",
    decode_nothing,
    ("notification.write",),
    "state",
    extended=True,
)

ALL: tuple[Route[Any], ...] = tuple(value for value in list(globals().values()) if isinstance(value, Route))
"""All 61 operations, in the order of the API's own tables."""

BY_NAME: dict[str, Route[Any]] = {route.name: route for route in ALL}
"""Every operation by its operationId."""
