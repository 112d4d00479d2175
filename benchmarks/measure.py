"""How two ways are compared: sides interleaved in one process, CPU and wall time per slice, ratios of low percentiles.

Absolute times wander on shared machines; a ratio taken A B A B within seconds does not.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass
class Side:
    """What one way cost: per unit of work, one number for each slice."""

    cpu: list[float]
    wall: list[float]

    def low(self, kind: str = "cpu") -> float:
        """Return the tenth percentile: the cost when the neighbours are quiet."""
        values = sorted(getattr(self, kind))
        return float(values[len(values) // 10])


@dataclass
class Comparison:
    """Our way against another."""

    name: str
    ours: Side
    theirs: Side
    kind: str = "cpu"

    @property
    def ratio(self) -> float:
        """Return ours over theirs, of the tenth percentiles."""
        return self.ours.low(self.kind) / self.theirs.low(self.kind)

    @property
    def spread(self) -> tuple[float, float]:
        """Return the quartiles of the ratios slice by slice."""
        mine, other = getattr(self.ours, self.kind), getattr(self.theirs, self.kind)
        ratios = sorted(a / b for a, b in zip(mine, other, strict=True))
        return ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]

    @property
    def median(self) -> float:
        """Return the median of the ratios slice by slice."""
        mine, other = getattr(self.ours, self.kind), getattr(self.theirs, self.kind)
        return statistics.median(a / b for a, b in zip(mine, other, strict=True))


def prime() -> None:
    """Make the allocator's behaviour the same for both sides: see that receive buffers cost no page faults."""
    block = bytearray(8 << 20)
    del block


async def interleave(
    name: str,
    ours: Callable[[], Awaitable[object]],
    theirs: Callable[[], Awaitable[object]],
    *,
    units: int,
    slices: int = 25,
    kind: str = "cpu",
) -> Comparison:
    """Run both ways in turn and return what they cost; each call of a way does `units` of work."""
    prime()
    sides = (Side([], []), Side([], []))
    for way in (ours, theirs, ours, theirs):
        await way()
    for turn in range(slices):
        order = ((0, ours), (1, theirs)) if turn % 2 == 0 else ((1, theirs), (0, ours))
        for index, way in order:
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            await way()
            sides[index].cpu.append((time.process_time() - cpu) / units)
            sides[index].wall.append((time.perf_counter() - wall) / units)
    return Comparison(name, *sides, kind=kind)
