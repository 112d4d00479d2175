"""The form in which insights travel beyond this process: one JSON object each.

``{"key": ..., "source": ..., "redelivered": ..., "insight": {...}}``: the fields of `InsightEvent` of the same names; the
insight as the API shows it, with null for what it does not tell.
"""

from __future__ import annotations

import msgspec

from ..feeds.events import InsightEvent, InsightSource
from ..models import Insight
from ..models.base import decode as decode_model

__all__ = ["decode", "encode"]


class _Message(msgspec.Struct):
    key: str
    source: InsightSource
    redelivered: bool
    insight: Insight


def encode(event: InsightEvent) -> bytes:
    """Return an insight as a message: a JSON object of its key, its source, whether it may be there already, and itself."""
    return msgspec.json.encode(_Message(event.key, event.source, event.redelivered, event.insight))


def decode(message: bytes) -> InsightEvent:
    """Return the insight of a message that `encode` made. Raises `DecodeError`."""
    read = decode_model(_Message, message)
    return InsightEvent(read.key, read.source, read.insight, redelivered=read.redelivered)
