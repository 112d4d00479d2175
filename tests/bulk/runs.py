"""What the tests of bulk runs have in common: a client of a counting server, rows, and a run with no quarantine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from nex_async import Nex
from tests.harness.bulk_world import Fault, Hit, World
from tests.harness.canary import KEY

__all__ = ["serving", "things", "upsert"]


@contextlib.asynccontextmanager
async def serving(judge: Callable[[Hit], Fault] | None = None) -> AsyncIterator[tuple[World, Nex]]:
    """Run a counting server whose faults `judge` chooses, and a client of it."""
    async with World(judge) as world, Nex(KEY, base_url=world.url) as nex:
        yield world, nex


def things(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return so many rows, each with a key of its own."""
    return [{"key": f"k{n}@x.io", "n": n} for n in range(start, start + count)]


def upsert(nex: Nex, rows: Any, **options: Any) -> Any:
    """Return a run over rows that holds no key back unless told to."""
    return nex.records.upsert_many("thing", rows, match_on="key", **{"quarantine": 0, **options})
