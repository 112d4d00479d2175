"""The blocking client beside the asynchronous one: what a call, and a row of a listing, costs more."""

from __future__ import annotations

from nex_async import Nex, blocking

from .calls import FIRST
from .job import KEY, Job, Jobs, control
from .measure import Way

SIZE = 500


async def jobs(origin: str, *, full: bool) -> Jobs:
    """Yield single calls, the rows of a listing, and those of one that is read ahead."""
    count, pages, slices = (500, 40, 25) if full else (200, 10, 3)
    total = pages * SIZE
    await control(origin, page_size=SIZE, total=total)
    async with Nex(KEY, base_url=origin) as awaited:
        with blocking.Nex(KEY, base_url=origin) as nex:

            async def calls() -> None:
                for index in range(count):
                    nex.tasks.get(FIRST + index)

            async def awaited_calls() -> None:
                for index in range(count):
                    await awaited.tasks.get(FIRST + index)

            async def rows() -> None:
                assert sum(1 for _ in nex.records.list("company", limit=SIZE)) == total

            async def awaited_rows() -> None:
                assert len([row async for row in awaited.records.list("company", limit=SIZE)]) == total

            async def ahead() -> None:
                with nex.records.list("company", limit=SIZE).prefetch(8) as found:
                    assert sum(1 for _ in found) == total

            async def awaited_ahead() -> None:
                async with awaited.records.list("company", limit=SIZE).prefetch(8) as found:
                    assert len([row async for row in found]) == total

            for name, unit, ours, theirs, units in (
                ("a blocking call", "call", calls, awaited_calls, count),
                ("a listing that blocks", "record", rows, awaited_rows, total),
                ("a listing that blocks, read ahead", "record", ahead, awaited_ahead, total),
            ):
                yield Job(name, unit, [Way("nex_async.blocking", ours, units), Way("nex-async", theirs, units)], slices)
