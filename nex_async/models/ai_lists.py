"""AI lists: a question in plain language, answered by a job with a list of records."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from ..errors import DecodeError
from .base import Model, Timestamp, convert, decode_any, preview

__all__ = ["AIList", "AIListCreated", "AIListEntity", "decode_ai_list", "decode_ai_list_created"]


class AIListEntity(Model):
    """A record on an AI list, and why it is there. `type` is `contact` or `company`."""

    id: str | None = None
    name: str | None = None
    type: str | None = None
    reason: str | None = None
    highlights: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)


class AIListCreated(Model):
    """The receipt of an AI-list job."""

    job_id: str
    status: str | None = None


class AIList(Model):
    """An AI-list job: `pending`, `processing`, `completed` (then with `entities`) or `failed` (then with `error`)."""

    job_id: str | None = None
    status: str | None = None
    entities: list[AIListEntity] | None = None
    count: int | None = None
    query_interpretation: str | None = None
    error: str | None = None
    _created_at: str | None = field(default=None, name="created_at")

    created_at: ClassVar[Timestamp] = Timestamp()


def _unwrap(data: bytes) -> dict[str, Any]:
    """Return the payload: under `message` where that is an object; a `message` that is text makes it an error."""
    value = decode_any(data)
    if not isinstance(value, dict):
        raise DecodeError("a job must be an object", raw=data)
    message = value.get("message")
    if isinstance(message, dict):
        value = message
    elif isinstance(message, str) and "job_id" not in value and "status" not in value:
        raise DecodeError(f"an error in place of a job: {preview(message.encode())}", path="$.message", raw=data)
    status = value.get("status")
    return {**value, "status": status.lower() if isinstance(status, str) else status}


def decode_ai_list_created(data: bytes) -> AIListCreated:
    """Decode the receipt of a job, flat or wrapped in `message`."""
    return convert(AIListCreated, _unwrap(data), data)


def decode_ai_list(data: bytes) -> AIList:
    """Decode a job's state, flat or wrapped in `message`."""
    return convert(AIList, _unwrap(data), data)
