"""All benchmarks in one run: `python -m benchmarks [--full] [--only WORD] [--json FILE] [--plot FILE]`.

Ratios, not times, are what to look at: the sides of a comparison take turns in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path

import msgspec

from . import blocking, calls, decoding, events, feeds, growth, listing, loops, startup, writing
from .job import Job, counts
from .measure import interleave
from .report import Report, plot
from .server import load_server
from .stream_server import stream_server

JOBS = {
    "calls": calls.jobs, "blocking": blocking.jobs, "decoding": decoding.jobs, "listing": listing.jobs,
    "writing": writing.jobs, "events": events.jobs,
}  # fmt: skip


async def _served(job: Job, origin: str) -> None:
    """Note how much the load target answers for one unit of each way: all must have done the same work."""
    for way in job.ways:
        before = await counts(origin)
        await way.run()
        after = await counts(origin)
        work = [getattr(after, name) - getattr(before, name) for name in ("tasks", "pages", "rows", "events")]
        job.served[way.name] = round(sum(work) / way.units, 4)
    if len(set(job.served.values())) > 1:
        print(f"  the sides of `{job.name}` did different work: {job.served}")


async def _compare(report: Report, only: str, full: bool) -> None:
    with load_server() as origin:
        for name, jobs in JOBS.items():
            if only in name:
                async for job in jobs(origin, full=full):
                    await _served(job, origin)
                    await interleave(job.ways, slices=job.slices)
                    report.add(job)
        print(f"\nthe load target answered {await counts(origin)}")


async def _grow(report: Report, full: bool) -> None:
    print("\nHow costs grow (CPU of one):")
    most = 6 if full else 5
    with load_server() as origin, stream_server() as stories:
        report.add_growth("records", "us a record", await growth.records(origin, _powers(3, most)))
        report.add_growth("consumers", "us a delivery", await growth.consumers(stories, _powers(0, 3 if full else 2)))
        points, held = await growth.listeners(stories, _powers(0, 3 if full else 2))
        report.add_growth("listeners", "ms a listener", points)
        report.add_growth("jobs", "us a job", await growth.jobs(origin, _powers(0, 4 if full else 3)))
        print("\nWhat is held in memory:")
        for name, size in (await growth.bytes_per_record(origin)).items():
            report.add_figure(f"a record of 700 bytes: {name}", size, "bytes")
        report.add_figure("a listener (key, connection and feed of its own)", held, "KiB")
        report.add_figure("an insight of 1 kB that waits in a queue", await growth.bytes_per_event(stories), "bytes")
        print("\nWhat a listener meets:")
        middle, high = await feeds.latency(stories, count=300)
        report.add_figure("from the server's write to the handler, 100 a second, median", middle, "ms", 2.0)
        report.add_figure("the same, 99th percentile", high, "ms")
        report.add_figure("a line of 100 MB, CPU", feeds.long_line(), "s", 1.0)
        before, after = await asyncio.to_thread(feeds.listeners, stories)
        report.add_figure("a process with 200 listeners of 200 keys", after, "MiB", 150.0)
        report.add_figure("of which for the listeners", after - before, "MiB")


def _powers(first: int, last: int) -> tuple[int, ...]:
    return tuple(10**power for power in range(first, last + 1))


def _start(report: Report) -> None:
    print("\nStarting (CPU above a bare interpreter):")
    with load_server() as origin:
        found = startup.cost(origin)
    ready = found["import aiohttp, msgspec"]
    limits = {"import nex_async": 60.0, "nex-async --help": 150.0}
    for name, milliseconds in found.items():
        if milliseconds is None:
            report.missing[name] = "it does not run here"
        else:
            report.add_figure(name, milliseconds, "ms", limits.get(name))
    assert ready is not None
    report.add_figure("import nex_async loads aiohttp (1: yes)", float(startup.loads_aiohttp()), "", 0.0)


def _loops(report: Report, full: bool) -> None:
    with load_server() as origin:
        try:
            for job in loops.compare(origin, full=full):
                report.add(job)
        except ImportError as error:
            report.missing["uvloop"] = str(error)


def main() -> None:
    """Run everything, print a table, and write JSON and a plot where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more slices, more sizes, and 1 000 listeners")
    parser.add_argument("--only", default="", metavar="WORD", help="calls, decoding, listing, writing, events, growth, ...")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="file for the figures")
    parser.add_argument("--plot", type=Path, help="file for a picture (PNG)")
    arguments = parser.parse_args()
    logging.getLogger("nex_async").setLevel(logging.ERROR)
    report, only = Report(), arguments.only
    print("  ".join(f"{name} {number}" for name, number in report.head().items()))
    asyncio.run(_compare(report, only, arguments.full))
    if only in "loops":
        _loops(report, arguments.full)
    if only in "growth":
        asyncio.run(_grow(report, arguments.full))
    if only in "startup":
        _start(report)
    report.write(arguments.json)
    if arguments.plot:
        plot(msgspec.json.decode(arguments.json.read_bytes()), arguments.plot)


if __name__ == "__main__":
    main()
