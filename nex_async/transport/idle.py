"""Connections at rest between two calls of the lean path: kept out of aiohttp's pool, which takes ten times as long to ask.

To aiohttp's connector they count as in use; it gets them back as soon as somebody else waits for a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp

from .connection import Connection
from .sweeper import clock_of

__all__ = ["IdleConnections"]


class IdleConnections:
    """The connections at rest of one connector, by where they lead. The last one to come is the first to go."""

    def __init__(self, connector: aiohttp.BaseConnector, loop: asyncio.AbstractEventLoop, keepalive: float) -> None:
        self.connector: aiohttp.BaseConnector = connector
        self.clock: Callable[[], float] = clock_of(loop)
        self.keepalive: float = keepalive
        self.timer: asyncio.TimerHandle | None = None
        self._loop = loop
        self._resting: dict[Any, list[Connection]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._resting.values()))

    def leading_to(self, key: Any) -> list[Connection]:
        """Return the list of those that lead to one place, to take from and to add to."""
        return self._resting.setdefault(key, [])

    def give_back(self, but: Any = None) -> None:
        """Give all to the connector, but those that lead to one place."""
        for key, resting in self._resting.items():
            while resting and key != but:
                self.connector._release(key, resting.pop())

    def close(self, key: Any) -> None:
        """Close those that lead to one place: where one fell silent, they may all lead nowhere."""
        resting = self._resting[key]
        while resting:
            self.connector._release(key, resting.pop(), should_close=True)

    def watch(self) -> None:
        """See to it that connections that rest too long are closed."""
        self.timer = self._loop.call_later(self.keepalive, self._close_old)

    def stop(self) -> None:
        """Forget all of them; the connector closes what is in use."""
        if self.timer is not None:
            self.timer.cancel()
        for resting in self._resting.values():
            resting.clear()

    def _close_old(self) -> None:
        self.timer = None
        oldest = self.clock() - self.keepalive
        for key, resting in self._resting.items():
            for protocol in [protocol for protocol in resting if protocol.heard <= oldest or not protocol.is_connected()]:
                resting.remove(protocol)
                self.connector._release(key, protocol, should_close=True)
        if len(self):
            self.watch()
