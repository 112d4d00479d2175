"""What a Ray cluster of this machine costs over one process, and what a second worker brings.

`python -m benchmarks.ray_cluster` reads 200 000 records and writes 20 000 rows (4 000 at 20 ms) against the load target, by
one worker and by two, at no delay and at 20 ms, beside one process that does the same; `--store` keeps the figures.
Needs the extra `ray`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

from nex_async import Nex

from .job import KEY
from .server import load_server

STORE = Path(__file__).with_name("scale_measured.json")
VARIABLE = "BENCHMARK_NEX_KEY"
RECORDS, ROWS = 200_000, 20_000
WINDOW, IN_FLIGHT = 4, 8
"""Pages and rows in flight for each worker, the same in one process: so that at 20 ms the delay is what limits."""


def _rows(count: int) -> list[dict[str, Any]]:
    return [{"name": f"Company number {number}", "domains": [f"company{number}.example"]} for number in range(count)]


async def _export(origin: str) -> int:
    count = 0
    async with Nex(KEY, base_url=origin) as nex:
        async for batch in nex.records.export("company", window=WINDOW).as_arrow():
            count += batch.num_rows
    return count


async def _upsert(origin: str, count: int) -> int:
    async with Nex(KEY, base_url=origin) as nex:
        run = nex.records.upsert_many("company", _rows(count), match_on="domains", concurrency=IN_FLIGHT, check=False)
        return (await run).rows


def _cpu() -> float:
    """Return the seconds of CPU of this process and of everything Ray has started."""
    total = time.process_time()
    for process in psutil.Process().children(recursive=True):
        try:
            if "load_server" not in process.name():
                times = process.cpu_times()
                total += times.user + times.system
        except psutil.Error:
            continue
    return total


def _timed(work: Callable[[], Any], times: int) -> tuple[float, float]:
    """Return the medians of wall and CPU seconds."""
    walls, cpus = [], []
    for _ in range(times):
        cpu, wall = _cpu(), time.perf_counter()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(_cpu() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def measure(times: int) -> list[dict[str, Any]]:
    """Return a point for each job, delay, and number of workers; 0 workers is one process without Ray."""
    import ray

    from nex_async.integrations.ray import ClusterOptions, RayBudget, read_records, write_records

    os.environ[VARIABLE] = KEY
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    began = time.perf_counter()
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False, object_store_memory=1 << 30)
    print(f"a local cluster starts in {time.perf_counter() - began:.1f} s")
    ray.data.DataContext.get_current().enable_progress_bars = False
    points = []
    with load_server() as origin:
        urlopen(f"{origin}/control/total/{RECORDS}").read()
        for delay in (0.0, 0.02):
            urlopen(f"{origin}/control/delay/{delay}").read()
            written = ROWS if not delay else ROWS // 5
            rows = ray.data.from_items(_rows(written), override_num_blocks=8).materialize()
            for workers in (0, 1, 2):
                options = ClusterOptions(key=VARIABLE, base_url=origin)
                if workers:
                    options["concurrency"] = workers

                def read(workers: int = workers, options: ClusterOptions = options) -> None:
                    if not workers:
                        assert asyncio.run(_export(origin)) == RECORDS
                        return
                    found = read_records("company", partitions=8, window=WINDOW, on_change="ignore", **options)
                    assert found.materialize().count() == RECORDS

                def write(
                    workers: int = workers, options: ClusterOptions = options, rows: Any = rows, n: int = written
                ) -> None:
                    if not workers:
                        assert asyncio.run(_upsert(origin, n)) == n
                        return
                    done = write_records(
                        rows, "company", match_on="domains", batch_rows=n // 8, in_flight=IN_FLIGHT, **options
                    )
                    assert done.rows == n

                for job, work, count in (("read", read, RECORDS), ("write", write, written)):
                    if delay == 0.0:
                        work()  # workers start, and connect
                    wall, cpu = _timed(work, times)
                    point = {
                        "job": job, "delay": delay, "workers": workers, "records": count, "seconds": wall, "cpu": cpu,
                        "in_flight": WINDOW if job == "read" else IN_FLIGHT,
                    }  # fmt: skip
                    points.append(point)
                    print(
                        f"{job:5} {count} at {delay * 1000:.0f} ms, {workers or 'no'} workers: {wall:.2f} s, CPU {cpu:.2f} s"
                    )
    RayBudget().stop()
    ray.shutdown()
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=3, help="runs of each, of which the median counts")
    parser.add_argument("--store", action="store_true", help=f"keep the figures in {STORE.name}")
    chosen = parser.parse_args()
    points = measure(chosen.times)
    found = {(point["job"], point["delay"], point["workers"]): point["seconds"] for point in points}
    for job in ("read", "write"):
        for delay in (0.0, 0.02):
            alone, one, two = (found[job, delay, workers] for workers in (0, 1, 2))
            head = f"{job} at {delay * 1000:.0f} ms"
            print(f"{head}: one worker takes {one / alone:.2f} times one process; two are {one / two:.2f} times one")
    if chosen.store:
        STORE.write_text(json.dumps({"points": points}, indent=1) + "\n")


if __name__ == "__main__":
    main()
