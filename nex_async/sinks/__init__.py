"""Sinks: where insights are forwarded to, acknowledged only once they are safe there.

The names are loaded when first used: redis and nats-py are extras, and needed by none but their own sinks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._lazy import loader

if TYPE_CHECKING:
    from .forwarding import InsightSink, forward
    from .jetstream import JetStreamSink
    from .message import decode, encode
    from .redis_stream import RedisStreamSink

__all__ = ["InsightSink", "JetStreamSink", "RedisStreamSink", "decode", "encode", "forward"]

_HOME = {
    "InsightSink": ".forwarding",
    "forward": ".forwarding",
    "JetStreamSink": ".jetstream",
    "decode": ".message",
    "encode": ".message",
    "RedisStreamSink": ".redis_stream",
}


__getattr__: Callable[[str], Any] = loader(__name__, _HOME)
