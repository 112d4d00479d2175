"""Which function carries out which operation of the API. A route without one answers 404."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from nex_async.emulator import (
    ai_lists,
    ask,
    attributes,
    compounding,
    context,
    graph,
    insights,
    integrations,
    lists,
    notes,
    notifications,
    objects,
    records,
    relationships,
    search,
    tasks,
    timeline,
)
from nex_async.emulator.call import Call
from nex_async.emulator.store import Store

__all__ = ["OPERATIONS", "Operation"]

Operation: TypeAlias = Callable[[Store, Call], str]
"""Runs on the database's thread inside one transaction and returns the body; "" is an empty one."""

OPERATIONS: dict[str, Operation] = {
    "createObjectDefinition": objects.create_object,
    "listObjects": objects.list_objects,
    "getObjectDefinition": objects.get_object,
    "updateObjectDefinition": objects.update_object,
    "deleteObjectDefinition": objects.delete_object,
    "createAttributeDefinition": attributes.create_attribute,
    "updateAttributeDefinition": attributes.update_attribute,
    "deleteAttributeDefinition": attributes.delete_attribute,
    "createRecord": records.create_record,
    "upsertRecord": records.upsert_record,
    "listRecords": records.list_records,
    "getRecord": records.get_record,
    "updateRecord": records.update_record,
    "deleteRecord": records.delete_record,
    "getRecordTimeline": timeline.read_timeline,
    "searchRecords": search.search_records,
    "createRelationshipDefinition": relationships.create_relationship_definition,
    "listRelationshipDefinitions": relationships.list_relationship_definitions,
    "deleteRelationshipDefinition": relationships.delete_relationship_definition,
    "createRelationshipInstance": relationships.create_relationship,
    "deleteRelationshipInstance": relationships.delete_relationship,
    "createList": lists.create_list,
    "listObjectLists": lists.list_lists,
    "getList": lists.get_list,
    "deleteList": lists.delete_list,
    "addListMember": lists.add_member,
    "upsertListMember": lists.upsert_member,
    "getListRecords": lists.list_members,
    "updateListRecord": lists.update_member,
    "removeRecordFromList": lists.remove_member,
    "createTask": tasks.create_task,
    "listTasks": tasks.list_tasks,
    "getTask": tasks.get_task,
    "updateTask": tasks.update_task,
    "deleteTask": tasks.delete_task,
    "createNote": notes.create_note,
    "listNotes": notes.list_notes,
    "getNote": notes.get_note,
    "updateNote": notes.update_note,
    "deleteNote": notes.delete_note,
    "getInsights": insights.list_insights,
    "addContext": context.add_text,
    "getArtifact": context.get_artifact,
    "queryContext": ask.ask,
    "createAIListJob": ai_lists.create_job,
    "getAIListJob": ai_lists.get_job,
    "getGraph": graph.get_graph,
    "listIntegrations": integrations.list_integrations,
    "startIntegrationConnect": integrations.connect,
    "getConnectStatus": integrations.get_connect_status,
    "disconnectIntegration": integrations.disconnect,
    "triggerCompoundingJob": compounding.trigger,
    "getCompoundingJobStatus": compounding.get_job,
    "getNotificationFeed": notifications.list_feed,
    "getNotificationPreferences": notifications.get_preferences,
    "updateNotificationPreferences": notifications.update_preferences,
    "listCustomNotificationRules": notifications.list_rules,
    "createCustomNotificationRule": notifications.create_rule,
    "getCustomNotificationRule": notifications.get_rule,
    "deleteCustomNotificationRule": notifications.delete_rule,
}
