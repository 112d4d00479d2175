"""Many rows in: `upsert_many` against a bare aiohttp pool of fixed workers."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil

from nex_async import Nex, Progress, SessionPool
from nex_async.models import Record

from .measure import Comparison, interleave
from .server import load_server

KEY = "sk-benchmark-0000000000000000"
_numbers = itertools.count()


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Yield rows of about 300 bytes as JSON, each with a key of its own."""
    for number in itertools.islice(_numbers, count):
        yield {
            "name": f"Company number {number}",
            "domains": [f"company{number}.example"],
            "industry": "Industrial machinery",
            "description": "Makes the machines that make the machines, in three plants on two continents",
            "employees": 1200 + number,
            "is_public": number % 2 == 0,
            "tags": ["customer", "reference", "pilot"],
        }


async def bare(session: aiohttp.ClientSession, url: str, count: int, concurrency: int) -> None:
    """What one writes by hand: workers that share an iterator, no journal, no limiter, no retries."""
    source = rows(count)
    encode, decode = msgspec.json.encode, msgspec.json.Decoder(Record).decode
    headers = {"Content-Type": "application/json"}

    async def work() -> None:
        for row in source:
            body = encode({"matching_attribute": "domains", "attributes": row})
            async with session.put(url, data=body, headers=headers) as response:
                response.raise_for_status()
                decode(await response.read())

    await asyncio.gather(*(work() for _ in range(concurrency)))


async def upserts(
    origin: str, *, concurrency: int, delay: float, count: int, slices: int, kind: str, journal: bool = True
) -> Comparison:
    """Compare the same rows written both ways; ours with a journal, ordering by key, limiter and outcomes."""
    url = f"{origin}/v1/objects/company"
    with tempfile.TemporaryDirectory() as folder:
        async with (
            SessionPool(max_connections=max(100, concurrency)) as pool,
            Nex(KEY, base_url=origin, pool=pool) as nex,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=max(100, concurrency)), headers={"Authorization": f"Bearer {KEY}"}
            ) as session,
        ):
            await session.get(f"{origin}/control/delay/{delay}")
            runs = itertools.count()

            async def ours() -> None:
                kept: Any = {"journal": Path(folder) / f"{next(runs)}.db"} if journal else {}
                run = nex.records.upsert_many(
                    "company", rows(count), match_on="domains", concurrency=concurrency, check=False, **kept
                )
                report = await run
                assert report.ok, report
                assert report.rows == count, report

            async def theirs() -> None:
                await bare(session, url, count, concurrency)

            name = f"upserts, concurrency {concurrency}, {delay * 1000:.0f} ms{'' if journal else ', no journal'}"
            result = await interleave(name, ours, theirs, units=count, slices=slices, kind=kind)
            await session.get(f"{origin}/control/delay/0")
            return result


async def compare(origin: str) -> list[Comparison]:
    """Run all comparisons."""
    return [
        await upserts(origin, concurrency=50, delay=0, count=10_000, slices=9, kind="cpu"),
        await upserts(origin, concurrency=50, delay=0, count=10_000, slices=9, kind="cpu", journal=False),
        await upserts(origin, concurrency=50, delay=0.02, count=5_000, slices=7, kind="wall"),
        await upserts(origin, concurrency=200, delay=0.02, count=10_000, slices=5, kind="wall"),
    ]


async def growth(origin: str, count: int) -> None:
    """Write so many rows with a journal, and print how memory and the journal grew."""
    process = psutil.Process()
    marks: list[tuple[int, float]] = []

    def tell(progress: Progress) -> None:
        if not marks or progress.done >= marks[-1][0] + count // 10:
            marks.append((progress.done, process.memory_info().rss / 2**20))

    with tempfile.TemporaryDirectory() as folder:
        async with Nex(KEY, base_url=origin) as nex:
            journal = Path(folder) / "run.db"
            report = await nex.records.upsert_many(
                "company", rows(count), match_on="domains", check=False, journal=journal, progress=tell
            )
            size = sum(path.stat().st_size for path in Path(folder).iterdir())
    print(f"{report.rows} rows, {report.rate:.0f} rows/s, journal {size / 1024:.0f} KiB; resident memory by rows done:")
    print("  ".join(f"{done}: {mebibytes:.1f} MiB" for done, mebibytes in marks))


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="also write a million rows, and look at memory")
    arguments = parser.parse_args()
    with load_server() as origin:
        for comparison in asyncio.run(compare(origin)):
            low, high = comparison.spread
            unit = 1e6
            print(
                f"{comparison.name:45s} {comparison.kind:4s} {comparison.ours.low(comparison.kind) * unit:7.1f} us/row "
                f"against {comparison.theirs.low(comparison.kind) * unit:7.1f}: {comparison.ratio:.3f} "
                f"(median {comparison.median:.3f}, quartiles {low:.3f} to {high:.3f})"
            )
            sys.stdout.flush()
        if arguments.full:
            asyncio.run(growth(origin, 1_000_000))


if __name__ == "__main__":
    main()
