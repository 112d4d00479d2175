"""The blocking client against the asynchronous one: what a call, and a row of a listing, costs more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from nex_async import Nex, blocking

from .listing import _control
from .measure import Comparison, interleave
from .server import load_server

KEY = "sk-benchmark"


async def compare(
    origin: str, *, count: int = 500, pages: int = 40, size: int = 500, slices: int = 25
) -> AsyncIterator[Comparison]:
    """Yield the comparison of single calls, of the rows of a listing, and of one that is read ahead."""
    base = f"{origin}/api/developers"
    total = pages * size
    async with Nex(KEY, base_url=base) as theirs_nex:
        with blocking.Nex(KEY, base_url=base) as nex:

            async def calls() -> None:
                for index in range(count):
                    nex.tasks.get(70_000_000_000_000_000 + index)

            async def awaited() -> None:
                for index in range(count):
                    await theirs_nex.tasks.get(70_000_000_000_000_000 + index)

            yield await interleave("blocking call", calls, awaited, units=count, slices=slices)
            await _control(origin, page_size=size, total=total)

            async def rows() -> None:
                assert sum(1 for _ in nex.records.list("company", limit=size)) == total

            async def rows_awaited() -> None:
                seen = 0
                async for _ in theirs_nex.records.list("company", limit=size):
                    seen += 1
                assert seen == total

            yield await interleave("blocking row of a listing", rows, rows_awaited, units=total, slices=slices)

            async def ahead() -> None:
                with nex.records.list("company", limit=size).prefetch(8) as found:
                    assert sum(1 for _ in found) == total

            async def ahead_awaited() -> None:
                seen = 0
                async with theirs_nex.records.list("company", limit=size).prefetch(8) as found:
                    async for _ in found:
                        seen += 1
                assert seen == total

            yield await interleave("blocking row, read ahead", ahead, ahead_awaited, units=total, slices=slices)


async def _main() -> None:
    with load_server() as origin:
        async for result in compare(origin):
            for kind in ("cpu", "wall"):
                result.kind = kind
                print(
                    f"{result.name:28} {kind:4} blocking {result.ours.low(kind) * 1e6:8.2f} us  "
                    f"awaited {result.theirs.low(kind) * 1e6:8.2f} us  ratio {result.ratio:.3f} (median {result.median:.3f})"
                )


if __name__ == "__main__":
    asyncio.run(_main())
