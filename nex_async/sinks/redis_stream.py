"""A Redis stream as a sink; needs redis: ``pip install "nex-async[redis]"``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import exceptions
from redis.asyncio import Redis, RedisCluster

from ..errors import SinkUnavailable
from ..feeds.events import InsightEvent
from ..transport.wire import in_range
from .message import encode

__all__ = ["RedisStreamSink"]

_SCRIPT = """
local stream, seen, remember, bound = KEYS[1], KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2])
local written = 0
for i = 3, #ARGV, 2 do
  local key, message = ARGV[i], ARGV[i + 1]
  if not redis.call('ZSCORE', seen, key) then
    local id
    if bound > 0 then
      id = redis.call('XADD', stream, 'MAXLEN', '~', bound, '*', 'key', key, 'message', message)
    else
      id = redis.call('XADD', stream, '*', 'key', key, 'message', message)
    end
    redis.call('ZADD', seen, string.match(id, '^%d+'), key)
    written = written + 1
  end
end
redis.call('ZREMRANGEBYRANK', seen, 0, -remember - 1)
return written
"""
_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError)  # connection errors by inheritance alone
_MAY_PASS = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterError,
    exceptions.TryAgainError,
    exceptions.RedisClusterException,
)
_CODES = ("BUSY", "MISCONF", "NOREPLICAS")
"""Replies that may pass and have no class of their own: a script runs, the disk is full, too few replicas."""


class RedisStreamSink:
    """Appends each insight to a Redis stream, once: an entry of two fields, `key` and `message` (that of `encode`).

    `client` is your own, and stays open; Redis 5 or newer, a cluster too. A sorted set beside the stream (`{stream}:seen`)
    holds the newest `remember` keys; one script looks there, appends, and notes, all or nothing, so that what comes again
    after a crash is not appended again. `maxlen` trims the stream to about so many entries. An insight is as safe as your
    Redis keeps its data: with `appendfsync everysec` a crash of the server may cost a second.

    Raises `InvalidRequestError` for arguments that cannot be right. `write` raises `SinkUnavailable` while Redis cannot be
    reached, is loading, is read-only or full, and else what the client raises.
    """

    def __init__(
        self, client: Redis | RedisCluster, stream: str, *, maxlen: int | None = None, remember: int = 100_000
    ) -> None:
        in_range("maxlen", maxlen, 1, None)
        in_range("remember", remember, 1, None)
        self.written: int = 0
        """How many insights this sink has appended."""
        self.duplicates: int = 0
        """How many were in the stream already, and not appended again."""
        # What stands in braces decides the slot of a cluster, and the two keys must share theirs.
        self._keys = (stream, f"{stream}:seen" if "{" in stream else f"{{{stream}}}:seen")
        self._bounds = (remember, maxlen or 0)
        self._script: Any = client.register_script(_SCRIPT)

    async def write(self, events: Sequence[InsightEvent], /) -> None:
        """Append insights, but for those that were; see `InsightSink`."""
        arguments = [part for event in events for part in (event.key, encode(event))]
        try:
            written = int(await self._script(keys=self._keys, args=(*self._bounds, *arguments)))
        except _REFUSED:
            raise
        except _MAY_PASS as error:
            raise SinkUnavailable(f"Redis cannot take insights at present: {error}") from error
        except exceptions.ResponseError as error:
            if str(error).startswith(_CODES):
                raise SinkUnavailable(f"Redis cannot take insights at present: {error}") from error
            raise
        self.written += written
        self.duplicates += len(events) - written
