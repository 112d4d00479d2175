"""What the API says: msgspec structs, tolerant of everything the wire is known to do."""

from __future__ import annotations

from .ai_lists import AIList, AIListCreated, AIListEntity
from .attributes import flatten, flatten_all
from .base import Listing, Model, Rows, parse_timestamp
from .compounding import CompoundingJob, CompoundingStarted
from .context import (
    Answer,
    AnswerMetadata,
    AnswerSignal,
    Artifact,
    ArtifactCreated,
    ArtifactResult,
    EntityReference,
    ExtractedEntity,
)
from .graph import (
    ContextEdge,
    EntityInsight,
    Graph,
    GraphEdge,
    GraphNode,
    GraphRelationshipDefinition,
    InsightNode,
)
from .insights import (
    Insight,
    InsightArtifact,
    InsightBatch,
    InsightEntity,
    InsightEvidence,
    InsightSignal,
    InsightTarget,
    InsightWorkspace,
)
from .integrations import Connection, ConnectStarted, ConnectStatus, Integration
from .notifications import Notification, NotificationPreferences, NotificationRule
from .objects import Attribute, AttributeOptions, Object, SelectOption
from .records import Record, TypedRecord
from .relationships import Relationship, RelationshipDefinition
from .search import SearchHit, SearchResults
from .tasks import Note, Task
from .timeline import (
    FieldChange,
    TimelineAttribute,
    TimelineEntity,
    TimelineEvent,
    TimelineListItem,
    TimelineNote,
    TimelinePayload,
    TimelineTask,
)

__all__ = [
    "AIList",
    "AIListCreated",
    "AIListEntity",
    "Answer",
    "AnswerMetadata",
    "AnswerSignal",
    "Artifact",
    "ArtifactCreated",
    "ArtifactResult",
    "Attribute",
    "AttributeOptions",
    "CompoundingJob",
    "CompoundingStarted",
    "ConnectStarted",
    "ConnectStatus",
    "Connection",
    "ContextEdge",
    "EntityInsight",
    "EntityReference",
    "ExtractedEntity",
    "FieldChange",
    "Graph",
    "GraphEdge",
    "GraphNode",
    "GraphRelationshipDefinition",
    "Insight",
    "InsightArtifact",
    "InsightBatch",
    "InsightEntity",
    "InsightEvidence",
    "InsightNode",
    "InsightSignal",
    "InsightTarget",
    "InsightWorkspace",
    "Integration",
    "Listing",
    "Model",
    "Note",
    "Notification",
    "NotificationPreferences",
    "NotificationRule",
    "Object",
    "Record",
    "Relationship",
    "RelationshipDefinition",
    "Rows",
    "SearchHit",
    "SearchResults",
    "SelectOption",
    "Task",
    "TimelineAttribute",
    "TimelineEntity",
    "TimelineEvent",
    "TimelineListItem",
    "TimelineNote",
    "TimelinePayload",
    "TimelineTask",
    "TypedRecord",
    "flatten",
    "flatten_all",
    "parse_timestamp",
]
