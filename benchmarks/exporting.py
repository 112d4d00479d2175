"""An export against a hand-written gather of the same window that writes the raw bytes: `python -m benchmarks.exporting`.

`--full` also reports the memory of a million rows.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import aiohttp

from nex_async import Nex

from .job import KEY, control
from .measure import Way, interleave, ratio
from .server import load_server

FORMATS = ("jsonl", "parquet")


async def _by_hand(session: aiohttp.ClientSession, url: str, to: Path, total: int, size: int, window: int) -> None:
    """Write every page as it came, with `window` requests in flight, in order."""

    async def fetch(offset: int) -> bytes:
        body = json.dumps({"limit": size, "offset": offset})
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
            return await response.read()

    offsets = iter(range(0, total, size))
    flying = deque(asyncio.create_task(fetch(offset)) for offset in islice(offsets, window))
    with to.open("wb") as file:
        while flying:
            content = await flying.popleft()
            for offset in offsets:
                flying.append(asyncio.create_task(fetch(offset)))
                break
            file.write(content)


async def compare(
    origin: str,
    folder: Path,
    *,
    rows: int = 200_000,
    size: int = 500,
    window: int = 8,
    delay: float = 0.005,
    formats: tuple[str, ...] = FORMATS,
    slices: int = 5,
) -> AsyncIterator[tuple[str, Way, Way]]:
    """Yield the comparison of wall time for each format; its ratio is our time over theirs."""
    await control(origin, page_size=size, total=rows, delay=delay)
    url = f"{origin}/api/developers/v1/objects/company/records"
    raw = folder / "raw.bin"
    session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"})
    async with session, Nex(KEY, base_url=f"{origin}/api/developers") as nex:
        for name in formats:
            target = folder / f"companies.{name}"

            async def ours(target: Path = target) -> None:
                report = await nex.records.export("company", target, limit=size, window=window, resume=False)
                assert report.rows == rows

            async def theirs() -> None:
                await _by_hand(session, url, raw, rows, size, window)

            title = f"{rows} rows to {name}, {delay * 1000:g} ms a page, window {window}"
            ways = (Way("nex-async", ours, 1), Way("by hand", theirs, 1))
            await interleave(ways, slices=slices)
            yield title, *ways
    await control(origin, delay=0)


async def stall(
    origin: str, folder: Path, name: str, *, rows: int = 100_000, size: int = 500
) -> tuple[list[float], list[float]]:
    """Return how late a timer of one millisecond was while an export ran, in ms: median, 99th percentile, worst.

    And the same of the processor time the loop's own thread took between two ticks: what is late beyond that waited for
    another thread or another process.
    """
    await control(origin, page_size=size, total=rows)
    late: list[float] = []
    worked: list[float] = []

    async def tick() -> None:
        while True:
            before, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            late.append((time.perf_counter() - before - 0.001) * 1000)
            worked.append((time.thread_time() - cpu) * 1000)

    async with Nex(KEY, base_url=f"{origin}/api/developers") as nex:
        await nex.records.export("company", folder / f"warm.{name}", limit=size, resume=False)
        gc.collect()
        ticking = asyncio.create_task(tick())
        await nex.records.export("company", folder / f"stall.{name}", limit=size, resume=False)
        ticking.cancel()
    return _spread(late), _spread(worked)


def _spread(values: list[float]) -> list[float]:
    values.sort()
    return [values[len(values) // 2], values[len(values) * 99 // 100], values[-1]]


async def growth(origin: str, folder: Path, name: str, *, counts: tuple[int, ...] = (200_000, 1_000_000)) -> list[float]:
    """Return the peak of resident memory in MiB after an export of so many rows each, the smaller first."""
    peaks = []
    for rows in counts:
        await control(origin, page_size=500, total=rows)
        code = (
            "import asyncio, sys, resource\nfrom nex_async import Nex\n"
            "async def main():\n"
            f"    async with Nex({KEY!r}, base_url={origin + '/api/developers'!r}) as nex:\n"
            f"        await nex.records.export('company', {str(folder / f'big.{name}')!r}, limit=500, resume=False)\n"
            "asyncio.run(main())\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        peaks.append(int(output) / (2**20 if sys.platform == "darwin" else 2**10))
    return peaks


async def _main(full: bool) -> None:
    with load_server() as origin, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for delay in (0.005, 0.0):
            async for title, ours, theirs in compare(
                origin, folder, delay=delay, formats=("jsonl", "parquet", "csv", "sqlite")
            ):
                seconds, compared = [way.low("wall") for way in (ours, theirs)], ratio(ours, theirs, "wall")
                print(
                    f"{title:52} ours {seconds[0]:.3f} s  by hand {seconds[1]:.3f} s  speed {1 / compared.low:.2f} of theirs"
                )
        for kind in ("jsonl", "jsonl.gz", "csv", "sqlite", "parquet"):
            late, worked = (" / ".join(f"{each:.1f}" for each in some) for some in await stall(origin, folder, kind))
            print(
                f"{kind:8} the loop is late by {late} ms (median, 99 %, worst); its own work between two ticks: {worked} ms"
            )
        if full:
            for kind in ("jsonl", "parquet"):
                small, large = await growth(origin, folder, kind)
                print(f"{kind:8} peak memory: 200000 rows {small:.0f} MiB, 1000000 rows {large:.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    asyncio.run(_main(parser.parse_args().full))
