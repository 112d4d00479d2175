"""How fast the emulator answers: `python -m benchmarks.emulator`.

The server runs in a process of its own, held to one core where the system allows it; the driver is bare aiohttp
connections, so what is measured is the server. Reported: requests per second by the wall clock, and the CPU
microseconds the server spends per request; then how the insight stream spreads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import msgspec

from nex_async.emulator import Emulator

from . import listeners

Step = Callable[[aiohttp.ClientSession, str, int], Awaitable[None]]
_HEADERS = {"Authorization": "Bearer sk-local", "Content-Type": "application/json"}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _serve(path: str, channel: Connection) -> None:
    async with Emulator(path, switches={"rate_limits": "off"}) as emulator:
        channel.send(emulator.url)
        while await asyncio.to_thread(channel.recv) != "stop":
            channel.send(_cpu_seconds())


def _server_process(path: str, channel: Connection) -> None:
    if sys.platform == "linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    asyncio.run(_serve(path, channel))


@contextlib.asynccontextmanager
async def _server(path: str) -> AsyncIterator[tuple[str, Connection]]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_server_process, args=(path, there))
    process.start()
    try:
        yield here.recv(), here
    finally:
        here.send("stop")
        process.join()


def _person(number: int) -> bytes:
    values = {
        "name": f"Person {number}",
        "email_addresses": [f"person{number}@example{number % 997}.com"],
        "job_title": "Head of Quality",
        "company": f"Example {number % 997}",
        "location": {"city": "Leipzig", "country": "Germany"},
    }
    return msgspec.json.encode({"matching_attribute": "email_addresses", "attributes": values})


async def _send(session: aiohttp.ClientSession, method: str, url: str, body: bytes | None) -> bytes:
    async with session.request(method, url, data=body, headers=_HEADERS) as response:
        content = await response.read()
        if response.status != 200:
            raise RuntimeError(f"{method} {url}: {response.status} {content[:300]!r}")
        return content


async def _upsert(session: aiohttp.ClientSession, url: str, number: int) -> None:
    await _send(session, "PUT", f"{url}/v1/objects/person", _person(number))


async def _page(session: aiohttp.ClientSession, url: str, number: int) -> None:
    body = msgspec.json.encode({"limit": 100, "offset": number % 50 * 100})
    await _send(session, "POST", f"{url}/v1/objects/person/records", body)


async def _search(session: aiohttp.ClientSession, url: str, number: int) -> None:
    await _send(session, "POST", f"{url}/v1/search", b'{"query":"person %d"}' % (number % 5000))


async def _task(session: aiohttp.ClientSession, url: str, number: int) -> None:
    await _send(session, "POST", f"{url}/v1/tasks", b'{"title":"Call %d"}' % number)


async def _objects(session: aiohttp.ClientSession, url: str, number: int) -> None:
    await _send(session, "GET", f"{url}/v1/objects", None)


async def _ingest(session: aiohttp.ClientSession, url: str, number: int) -> None:
    await _send(session, "POST", f"{url}/v1/context/text", listeners.text(number, 3))


async def _drive(url: str, channel: Connection, step: Step, count: int, workers: int) -> tuple[float, float]:
    """Run `step` `count` times and return requests per second and server CPU microseconds per request."""
    numbers = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=workers)) as session:

        async def work() -> None:
            for number in numbers:
                await step(session, url, number)

        channel.send("cpu")
        cpu, start = channel.recv(), time.perf_counter()
        await asyncio.gather(*(work() for _ in range(workers)))
        wall = time.perf_counter() - start
        channel.send("cpu")
        return count / wall, (channel.recv() - cpu) / count * 1e6


async def _measure(path: str, scale: float, workers: int) -> None:
    steps: list[tuple[str, Step, int]] = [
        ("upsert, creates", _upsert, 10_000),
        ("upsert, nothing changed", _upsert, 10_000),
        ("page of 100 records", _page, 3_000),
        ("search", _search, 2_000),
        ("create task", _task, 5_000),
        ("list objects", _objects, 5_000),
        ("ingest text of 3 insights", _ingest, 3_000),
    ]
    async with _server(path) as (url, channel):
        for name, step, count in steps:
            rate, cpu = await _drive(url, channel, step, int(count * scale), workers)
            print(f"{name:28} {rate:12,.0f} {cpu:16,.0f}", flush=True)


async def _measure_stream(path: str, scale: float, workers: int) -> None:
    async with _server(path) as (url, channel):

        async def cpu() -> float:
            channel.send("cpu")
            return float(channel.recv())

        times = await listeners.spread(url, 500, max(3, int(40 * scale)))
        print(
            f"{'a batch to 500 listeners':28} {statistics.median(times):9.0f} ms {max(times):10.0f} ms at worst", flush=True
        )
        rate, cost = await listeners.sustain(url, int(2_000 * scale), workers, cpu)
        print(f"{'insights/s to one listener':28} {rate:12,.0f} {cost:16,.0f}", flush=True)


def main() -> None:
    """Print one table for a workspace in memory and one for a file."""
    parser = argparse.ArgumentParser(description="Measure the emulator.")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of requests")
    parser.add_argument("--concurrency", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        for path in (":memory:", str(Path(directory) / "workspace.db")):
            print(f"\n{'memory' if path == ':memory:' else 'file':28} {'requests/s':>12} {'server CPU us':>16}")
            asyncio.run(_measure(path, arguments.scale, arguments.concurrency))
            stream_path = path if path == ":memory:" else str(Path(directory) / "stream.db")
            asyncio.run(_measure_stream(stream_path, arguments.scale, arguments.concurrency))


if __name__ == "__main__":
    main()
