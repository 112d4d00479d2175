"""How ways are compared: sides interleaved in one process, CPU and wall time per slice, ratios slice by slice.

Absolute times wander on shared machines; a ratio taken A B A B within seconds does not.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["cpu", "wall"]


@dataclass
class Way:
    """One way to do a job: each call of `run` does `units` of work."""

    name: str
    run: Callable[[], Awaitable[object]]
    units: int
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def note(self, cpu: float, wall: float) -> None:
        """Keep what a slice took, in seconds."""
        self.cpu.append(cpu / self.units)
        self.wall.append(wall / self.units)

    def median(self, kind: Kind) -> float:
        """Return the median of seconds per unit."""
        return statistics.median(getattr(self, kind))

    def low(self, kind: Kind = "cpu") -> float:
        """Return the tenth percentile of seconds per unit: the cost when the neighbours are quiet."""
        values = sorted(getattr(self, kind))
        return float(values[len(values) // 10])


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs: the median of the ratios slice by slice, their quartiles, and the ratio of tenth percentiles."""

    median: float
    lower: float
    upper: float
    low: float


def ratio(ours: Way, theirs: Way, kind: Kind) -> Ratio:
    """Return how two ways compare that were measured together."""
    pairs = zip(getattr(ours, kind), getattr(theirs, kind), strict=True)
    ratios = sorted(a / b for a, b in pairs)
    quarter = len(ratios) // 4
    return Ratio(statistics.median(ratios), ratios[quarter], ratios[-1 - quarter], ours.low(kind) / theirs.low(kind))


def prime() -> None:
    """Make the allocator's behaviour the same for all: see that receive buffers cost no page faults."""
    block = bytearray(8 << 20)
    del block


async def interleave(ways: Sequence[Way], *, slices: int) -> None:
    """Run all ways in turn, so many times, and note in each what its slices cost."""
    prime()
    for way in (*ways, *ways):
        await way.run()
    for turn in range(slices):
        for way in _order(ways, turn):
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            await way.run()
            way.note(time.process_time() - cpu, time.perf_counter() - wall)


def alternate(ways: Sequence[tuple[asyncio.AbstractEventLoop, Way]], *, slices: int) -> None:
    """Run ways that live in loops of their own in turn, as `interleave` does in one loop."""
    prime()
    for loop, way in (*ways, *ways):
        loop.run_until_complete(way.run())
    for turn in range(slices):
        for loop, way in _order(ways, turn):
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            loop.run_until_complete(way.run())
            way.note(time.process_time() - cpu, time.perf_counter() - wall)


def _order(ways: Sequence, turn: int) -> list:  # type: ignore[type-arg]
    """Return the ways, each turn beginning with another and going the other way round."""
    first = turn % len(ways)
    turned = [*ways[first:], *ways[:first]]
    return turned if turn % 2 == 0 else turned[::-1]
