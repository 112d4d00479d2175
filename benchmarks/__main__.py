"""All benchmarks in one run: `python -m benchmarks [--full] [--only WORD] [--json FILE] [--plot FILE]`.

Ratios, not times, are what to look at: the sides of a comparison take turns in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path

import msgspec

from . import calls, decoding, events, listing, writing
from .job import counts
from .measure import interleave
from .report import Report, plot
from .server import load_server

JOBS = {"calls": calls.jobs, "decoding": decoding.jobs, "listing": listing.jobs, "writing": writing.jobs, "events": events.jobs}


async def _compare(report: Report, only: str, full: bool) -> None:
    with load_server() as origin:
        for name, jobs in JOBS.items():
            if only and only not in name:
                continue
            async for job in jobs(origin, full=full):
                await interleave(job.ways, slices=job.slices)
                report.add(job)
        print(f"\nthe load target answered {await counts(origin)}")


def main() -> None:
    """Run everything, print a table, and write JSON and a plot where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more slices, more sizes, and 1 000 listeners")
    parser.add_argument("--only", default="", metavar="WORD", help="only what has this in its name")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="file for the figures")
    parser.add_argument("--plot", type=Path, help="file for a picture (PNG)")
    arguments = parser.parse_args()
    logging.getLogger("nex_async").setLevel(logging.ERROR)
    report = Report()
    print("  ".join(f"{name} {number}" for name, number in report.head().items()))
    asyncio.run(_compare(report, arguments.only, arguments.full))
    report.write(arguments.json)
    if arguments.plot:
        plot(msgspec.json.decode(arguments.json.read_bytes()), arguments.plot)


if __name__ == "__main__":
    main()
