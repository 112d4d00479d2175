"""Many rows in: `upsert_many` against a bare aiohttp pool of fixed workers.

`python -m benchmarks.writing` writes a million of them, and looks at memory.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil

from nex_async import Nex, Progress, SessionPool
from nex_async.models import Record

from .job import KEY, Job, Jobs
from .measure import Way
from .raw_client import RawClient
from .server import load_server

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


async def by_limit(client: RawClient, path: str, count: int, concurrency: int) -> None:
    """The limit: raw connections that check nothing, and the same encoding and decoding."""
    source = rows(count)
    encode, decode = msgspec.json.encode, msgspec.json.Decoder(Record).decode

    async def work() -> None:
        for row in source:
            decode(await client.send("PUT", path, encode({"matching_attribute": "domains", "attributes": row})))

    await asyncio.gather(*(work() for _ in range(concurrency)))


async def jobs(origin: str, *, full: bool) -> Jobs:
    """Yield rows without delay, with and without a journal, then with 20 ms a row."""
    slices = 11 if full else 3
    for concurrency, delay, journal in ((50, 0, True), (50, 0, False), (50, 20, True), (200, 20, True)):
        # Opening a journal is a cost of the run, not of its rows.
        count = 10_000 if full else 20 * concurrency if delay else 5_000
        async with AsyncExitStack() as stack:
            yield await _job(stack, origin, concurrency, delay, journal, count, slices)


async def _job(
    stack: AsyncExitStack, origin: str, concurrency: int, delay: int, journal: bool, count: int, slices: int
) -> Job:
    base = f"{origin}/after/{delay}" if delay else origin
    most = max(100, concurrency)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    pool = await stack.enter_async_context(SessionPool(max_connections=most))
    nex = await stack.enter_async_context(Nex(KEY, base_url=base, pool=pool))
    connector = aiohttp.TCPConnector(limit=most)
    session = await stack.enter_async_context(
        aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {KEY}"})
    )
    raw = RawClient(origin, KEY)
    stack.push_async_callback(raw.aclose)
    runs = itertools.count()

    async def ours() -> None:
        kept: Any = {"journal": folder / f"{next(runs)}.db"} if journal else {}
        report = await nex.records.upsert_many(
            "company", rows(count), match_on="domains", concurrency=concurrency, check=False, **kept
        )
        if not report.ok or report.rows != count:
            raise RuntimeError(str(report))

    async def theirs() -> None:
        await bare(session, f"{base}/v1/objects/company", count, concurrency)

    async def limit() -> None:
        await by_limit(raw, f"{base[len(origin) :]}/v1/objects/company", count, concurrency)

    name = f"upserts, concurrency {concurrency}, {delay} ms{'' if journal else ', no journal'}"
    ways = [
        Way("nex-async", ours, count),
        Way("aiohttp, fixed workers", theirs, count),
        Way("protocol by hand (the limit)", limit, count),
    ]
    return Job(name, "row", ways, slices, headline="wall" if delay else "cpu")


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    with load_server() as origin:
        asyncio.run(growth(origin, parser.parse_args().rows))
