"""What the load target answers: a task, a record of ten attributes, pages of them, and the definition of their object."""

from __future__ import annotations

import json
from typing import Any

DIGITS = "#######"
"""Stands in `RECORD` for the number of a record, seven digits."""

TASK: dict[str, Any] = {
    "id": "70000000000000017", "title": "Call Ada about the renewal", "description": "Ask for the signed order form",
    "priority": "high", "due_date": "2026-03-02T08:00:00Z", "is_completed": False, "assignee_ids": [],
    "entity_ids": ["70000000000000019"], "created_by": "developer_api", "created_at": "2026-03-01T08:00:00Z",
}  # fmt: skip

_RECORD = {
    "id": f"700000000{DIGITS}1", "object_id": "70000000000000003", "type": "company",
    "workspace_id": "70000000000000011", "created_at": "2026-03-01T08:00:00Z", "updated_at": "2026-03-02T09:30:00.418Z",
    "attributes": {
        "name": f"Company number {DIGITS}", "domains": [f"company{DIGITS}.example"], "industry": "Industrial machinery",
        "description": "Makes the machines that make the machines, in three plants on two continents",
        "location": {"city": "Alder", "region": "Upper Valley", "country": "Switzerland"}, "employees": f"1{DIGITS}",
        "revenue": {"value": 1.25e9, "currency": "CHF"}, "linkedin": f"https://social.example/company/{DIGITS}",
        "tags": ["customer", "reference", "pilot"], "is_public": True,
    },
}  # fmt: skip

ATTRIBUTES = {
    "name": "text", "domains": "domain", "industry": "text", "description": "text", "location": "location",
    "employees": "number", "revenue": "currency", "linkedin": "url", "tags": "text", "is_public": "boolean",
}  # fmt: skip
SEVERAL = {"domains", "tags"}


def compact(value: object) -> str:
    """Return a value as JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


RECORD = compact(_RECORD).replace(f'"1{DIGITS}"', f"1{DIGITS}")


def record(number: int) -> str:
    """Return a record as JSON, about 700 bytes."""
    return RECORD.replace(DIGITS, f"{number:07d}")


def anything() -> str:
    """Return what answers every other request: a record, with the status of a job that has ended."""
    return record(0)[:-1] + ',"status":"completed","result":{}}'


def page(offset: int, limit: int, total: int) -> bytes:
    """Return one page of a record listing."""
    rows = ",".join(record(number) for number in range(offset, min(offset + limit, total)))
    return f'{{"data":[{rows}],"total":{total},"limit":{limit},"offset":{offset}}}'.encode()


def definition() -> str:
    """Return the definition of the object, with its attributes."""
    attributes = [
        {"id": str(number), "slug": slug, "type": kind, "options": {"is_multi_value": slug in SEVERAL}}
        for number, (slug, kind) in enumerate(ATTRIBUTES.items(), 70_000_000_000_000_101)
    ]
    return compact({"id": "70000000000000003", "slug": "company", "type": "company", "attributes": attributes})


def event(number: int, size: int) -> bytes:
    """Return an event of so many bytes, no two alike."""
    head, tail = b'event: insight.batch.created\ndata: {"insight_count":1,"content":"%07d ' % number, b'"}\n\n'
    left = max(size - len(head) - len(tail), 0)
    return head + (_PADDING * (left // len(_PADDING) + 1))[:left] + tail


_PADDING = b"Ordered twelve presses for the new plant, wants them before the autumn fair, asks for a second quote. "
