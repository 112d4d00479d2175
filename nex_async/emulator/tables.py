"""The tables of the emulator. Ids are the row ids; moments are microseconds; attributes are JSON text as written."""

from __future__ import annotations

import sqlite3

from nex_async.errors import StorageCorrupt

__all__ = ["create_tables", "empty_tables", "largest_id"]

_VERSION = 2

_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # A list is an object whose parent_id names the object its members come from.
    """CREATE TABLE objects (id INTEGER PRIMARY KEY, slug TEXT NOT NULL UNIQUE, type TEXT NOT NULL,
        name TEXT NOT NULL, name_plural TEXT NOT NULL, description TEXT NOT NULL, parent_id INTEGER,
        created_at INTEGER NOT NULL, record_count INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE attributes (id INTEGER PRIMARY KEY, object_id INTEGER NOT NULL, slug TEXT NOT NULL,
        type TEXT NOT NULL, name TEXT NOT NULL, description TEXT NOT NULL, options TEXT NOT NULL,
        is_keyed INTEGER NOT NULL, UNIQUE (object_id, slug))""",
    # A list member is a record of the list whose parent_id names the record it stands for.
    """CREATE TABLE records (id INTEGER PRIMARY KEY, object_id INTEGER NOT NULL, parent_id INTEGER, name TEXT NOT NULL,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, updated_order INTEGER NOT NULL,
        attributes TEXT NOT NULL)""",
    "CREATE INDEX records_by_object ON records (object_id)",
    "CREATE INDEX records_by_update ON records (object_id, updated_order)",
    "CREATE INDEX records_by_name ON records (object_id, name COLLATE NOCASE)",
    "CREATE INDEX records_by_parent ON records (parent_id) WHERE parent_id IS NOT NULL",
    # The values of unique attributes, and of those an upsert has matched on, normalised.
    """CREATE TABLE keys (attribute_id INTEGER NOT NULL, value TEXT NOT NULL, record_id INTEGER NOT NULL,
        PRIMARY KEY (attribute_id, value, record_id)) WITHOUT ROWID""",
    "CREATE VIRTUAL TABLE record_text USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2')",
    """CREATE TABLE relationship_definitions (id INTEGER PRIMARY KEY, type TEXT NOT NULL, object_1_id INTEGER NOT NULL,
        object_2_id INTEGER NOT NULL, predicate_1_to_2 TEXT NOT NULL, predicate_2_to_1 TEXT NOT NULL,
        created_at INTEGER NOT NULL)""",
    """CREATE TABLE relationships (id INTEGER PRIMARY KEY, definition_id INTEGER NOT NULL, record_1_id INTEGER NOT NULL,
        record_2_id INTEGER NOT NULL, created_at INTEGER NOT NULL)""",
    "CREATE INDEX relationships_by_1 ON relationships (record_1_id, definition_id)",
    "CREATE INDEX relationships_by_2 ON relationships (record_2_id, definition_id)",
    """CREATE TABLE tasks (id INTEGER PRIMARY KEY, title TEXT NOT NULL, description TEXT NOT NULL,
        priority TEXT NOT NULL, due_date INTEGER, completed_at INTEGER, assignee_ids TEXT NOT NULL,
        created_at INTEGER NOT NULL, archived_at INTEGER)""",
    """CREATE TABLE task_records (task_id INTEGER NOT NULL, position INTEGER NOT NULL, record_id INTEGER NOT NULL,
        PRIMARY KEY (task_id, position)) WITHOUT ROWID""",
    "CREATE INDEX task_records_by_record ON task_records (record_id)",
    """CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT NOT NULL, content TEXT NOT NULL, record_id INTEGER,
        created_at INTEGER NOT NULL, archived_at INTEGER)""",
    "CREATE INDEX notes_by_record ON notes (record_id)",
    """CREATE TABLE events (id INTEGER PRIMARY KEY, record_id INTEGER NOT NULL, resource_type TEXT NOT NULL,
        resource_id INTEGER NOT NULL, event_type TEXT NOT NULL, payload TEXT NOT NULL, created_at INTEGER NOT NULL)""",
    "CREATE INDEX events_by_record ON events (record_id)",
    """CREATE TABLE artifacts (id INTEGER PRIMARY KEY, operation_id INTEGER NOT NULL, content TEXT NOT NULL,
        context TEXT NOT NULL, result TEXT NOT NULL, created_at INTEGER NOT NULL)""",
    """CREATE TABLE insights (id INTEGER PRIMARY KEY, artifact_id INTEGER NOT NULL, type TEXT NOT NULL,
        content TEXT NOT NULL, confidence REAL NOT NULL, created_at INTEGER NOT NULL)""",
    """CREATE TABLE insight_records (insight_id INTEGER NOT NULL, record_id INTEGER NOT NULL,
        PRIMARY KEY (insight_id, record_id)) WITHOUT ROWID""",
    "CREATE INDEX insight_records_by_record ON insight_records (record_id)",
    "CREATE VIRTUAL TABLE insight_text USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2')",
    """CREATE TABLE ai_list_jobs (id INTEGER PRIMARY KEY, result TEXT NOT NULL, include_attributes INTEGER NOT NULL,
        created_at INTEGER NOT NULL)""",
    """CREATE TABLE connections (id INTEGER PRIMARY KEY, type TEXT NOT NULL, provider TEXT NOT NULL,
        identifier TEXT NOT NULL, created_at INTEGER NOT NULL, UNIQUE (type, provider, identifier))""",
    """CREATE TABLE connects (token TEXT PRIMARY KEY, type TEXT NOT NULL, provider TEXT NOT NULL,
        created_at INTEGER NOT NULL, connection_id INTEGER) WITHOUT ROWID""",
    """CREATE TABLE compounding_jobs (run_id TEXT PRIMARY KEY, job_type TEXT NOT NULL, dry_run INTEGER NOT NULL,
        counters TEXT NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID""",
    # What compounding has learnt: a pattern of one record, or a playbook of the whole workspace.
    """CREATE TABLE knowledge (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, type TEXT NOT NULL, content TEXT NOT NULL,
        confidence REAL NOT NULL, record_id INTEGER, created_at INTEGER NOT NULL)""",
    "CREATE INDEX knowledge_by_record ON knowledge (record_id, kind, type)",
    """CREATE TABLE notification_rules (id INTEGER PRIMARY KEY, name TEXT NOT NULL, prompt TEXT NOT NULL,
        is_enabled INTEGER NOT NULL, schedule TEXT NOT NULL, created_at INTEGER NOT NULL)""",
)

_WITH_IDS = (
    "objects",
    "attributes",
    "records",
    "relationship_definitions",
    "relationships",
    "tasks",
    "notes",
    "events",
    "artifacts",
    "insights",
    "ai_list_jobs",
    "connections",
    "knowledge",
    "notification_rules",
)


def create_tables(connection: sqlite3.Connection) -> bool:
    """Create what is missing; True when the database was empty. Refuses a file of another program or version."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == _VERSION:
        return False
    if version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StorageCorrupt("the file holds something else than an emulator's workspace of this version")
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {_VERSION}")
    return True


def empty_tables(connection: sqlite3.Connection) -> None:
    """Remove every row there is."""
    found: list[tuple[str, str]] = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    indexes = {name: sql for name, sql in found if sql.startswith("CREATE VIRTUAL TABLE")}
    for name, sql in indexes.items():
        if connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() is not None:
            connection.execute(f"DROP TABLE {name}")  # a full-text index is emptied row by row, and made again in one go
            connection.execute(sql)
    for name, _ in found:
        if not name.startswith(tuple(indexes)):  # an index brings tables of its own
            connection.execute(f"DELETE FROM {name}")


def largest_id(connection: sqlite3.Connection) -> int:
    """Return the largest id in use, 0 in an empty workspace."""
    marks = " UNION ALL ".join(f"SELECT max(id) AS id FROM {table}" for table in _WITH_IDS)
    found = connection.execute(f"SELECT max(id) FROM ({marks} UNION ALL SELECT max(updated_order) FROM records)")
    return int(found.fetchone()[0] or 0)
