"""A job: what is done, the ways to do it, ours first, and what was not there to do it with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import msgspec

from .measure import Kind, Way
from .server import Counts

KEY = "sk-benchmark"


@dataclass
class Missing:
    """A peer that could not be measured, and why."""

    name: str
    why: str


@dataclass
class Job:
    """A comparison. `unit` is what one number is about: a call, a record, a row, an event."""

    name: str
    unit: str
    ways: list[Way]
    slices: int
    headline: Kind = "cpu"
    missing: list[Missing] = field(default_factory=list)
    served: dict[str, float] = field(default_factory=dict)
    """How many replies, or events, of the load target a unit took, by way."""


@dataclass
class Peers:
    """Peers that could not be set up, and why: reported, not hidden."""

    missing: list[Missing] = field(default_factory=list)

    def note(self, name: str, error: Exception) -> None:
        """Note why a peer is not measured."""
        self.missing.append(Missing(name, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"))


Jobs = AsyncIterator[Job]


async def control(origin: str, **settings: float) -> None:
    """Set how the load target answers."""
    async with aiohttp.ClientSession() as session:
        for name, value in settings.items():
            async with session.get(f"{origin}/control/{name}/{value}") as response:
                await response.read()


async def counts(origin: str) -> Counts:
    """Return what the load target has answered so far."""
    async with aiohttp.ClientSession() as session, session.get(f"{origin}/control/counts/0") as response:
        return msgspec.json.decode(await response.read(), type=Counts)
