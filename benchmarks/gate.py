"""The gate: four hot paths must not become dearer. `python -m benchmarks.gate [--update] [--method cpu]`.

What one call, one page, one event and one upserted row cost is a ratio to a reference that does the same bare, in the
same run, and compared with `baseline.json`: 15 % more fails. Where valgrind is present, costs are instructions, which do not
depend on the neighbours: each side runs in a process of its own that does so many units, one more process does none, and the
difference counts. Elsewhere they are CPU time, low percentiles of interleaved slices, and only two failures in a row count.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import msgspec

from nex_async import Nex
from nex_async.models import Record
from nex_async.models.base import decode_rows

from . import events, writing
from .bodies import page
from .calls import by_aiohttp, spread, through_nex
from .decoding import Page
from .job import KEY
from .measure import Way, interleave, ratio
from .server import load_server

_BASELINE = Path(__file__).with_name("baseline.json")
_MOST = 1.15
_UNITS = {"call": 300, "page": 60, "event": 6000, "row": 300}
_WARM = {"call": 20, "page": 5, "event": 500, "row": 20}
_SIDES = ("ours", "reference")
Run = Callable[[int], Awaitable[object]]


async def _sides(stack: AsyncExitStack, origin: str) -> dict[tuple[str, str], Run]:
    """Return what each path does on each side, so many times."""
    ours = await through_nex(stack, origin)
    theirs = await by_aiohttp(stack, origin)
    nex = await stack.enter_async_context(Nex(KEY, base_url=origin))
    session = await stack.enter_async_context(aiohttp.ClientSession())
    content, bare = page(0, 100, 100), msgspec.json.Decoder(Page).decode

    async def pages(count: int) -> None:
        for _ in range(count):
            decode_rows(Record, content)

    async def bare_pages(count: int) -> None:
        for _ in range(count):
            bare(content)

    async def rows(count: int) -> None:
        source = writing.rows(count)
        report = await nex.records.upsert_many("company", source, match_on="domains", concurrency=10, check=False)
        if report.rows != count:
            raise RuntimeError(str(report))

    return {
        ("call", "ours"): lambda count: spread(count, 1, ours),
        ("call", "reference"): lambda count: spread(count, 1, theirs),
        ("page", "ours"): pages,
        ("page", "reference"): bare_pages,
        ("event", "ours"): lambda count: events.decode(session, f"{origin}/events/chunked/{count}/200"),
        ("event", "reference"): lambda count: events.drain(session, f"{origin}/events/chunked/{count}/200"),
        ("row", "ours"): rows,
        ("row", "reference"): lambda count: writing.bare(session, f"{origin}/v1/objects/company", count, 10),
    }


async def _child(origin: str, path: str, side: str) -> None:
    """Warm everything up, then do the units of one side; of none, where no path is named."""
    async with AsyncExitStack() as stack:
        sides = await _sides(stack, origin)
        for (name, _), run in sides.items():
            await run(_WARM[name])
        if path:
            await sides[path, side](_UNITS[path])


def _count(origin: str, path: str, side: str) -> int:
    """Return how many instructions a child takes."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m", "benchmarks.gate"]
    done = subprocess.run(
        [*command, "--child", origin, path, side],
        check=False, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"{path} {side}: {done.stderr[-2000:]}")
    return int(found[1])


def by_instructions() -> dict[str, float]:
    """Return the ratio of each path, in instructions."""
    wanted = [("", ""), *((path, side) for path in _UNITS for side in _SIDES)]
    with load_server() as origin, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        counted = dict(zip(wanted, pool.map(lambda each: _count(origin, *each), wanted), strict=True))
    base, ratios = counted["", ""], {}
    for path, units in _UNITS.items():
        ours, theirs = ((counted[path, side] - base) / units for side in _SIDES)
        print(f"  {path:6} {ours:12,.0f} instructions, reference {theirs:12,.0f}")
        ratios[path] = ours / theirs
    return ratios


async def _by_cpu(origin: str) -> dict[str, float]:
    ratios = {}
    async with AsyncExitStack() as stack:
        sides = await _sides(stack, origin)
        for path, units in _UNITS.items():
            ways = [Way(side, lambda path=path, side=side, units=units: sides[path, side](units), units) for side in _SIDES]
            await interleave(ways, slices=25)
            ratios[path] = ratio(*ways, "cpu").low
    return ratios


def by_cpu() -> dict[str, float]:
    """Return the ratio of each path, in CPU time."""
    with load_server() as origin:
        return asyncio.run(_by_cpu(origin))


def judge(found: dict[str, float], stored: dict[str, float]) -> list[str]:
    """Print each ratio beside the stored one, and return the paths that became too dear."""
    dear = []
    for path, now in found.items():
        change = now / stored[path] - 1
        worse = now > stored[path] * _MOST
        print(
            f"  {path:6} {now:.3f} of the reference, stored {stored[path]:.3f}: {change:+.1%}{'  TOO DEAR' if worse else ''}"
        )
        dear += [path] if worse else []
    return dear


def main() -> int:
    """Return 0 if no path became dearer, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="store what is measured now")
    parser.add_argument("--method", choices=("instructions", "cpu"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.getLogger("nex_async").setLevel(logging.ERROR)
    if arguments.child:
        asyncio.run(_child(*arguments.child))
        return 0
    method = arguments.method or ("instructions" if shutil.which("valgrind") else "cpu")
    measure = by_instructions if method == "instructions" else by_cpu
    stored = msgspec.json.decode(_BASELINE.read_bytes(), type=dict[str, dict[str, float]]) if _BASELINE.exists() else {}
    print(f"four hot paths by {method}")
    found = measure()
    if arguments.update:
        stored[method] = {path: round(value, 3) for path, value in found.items()}
        _BASELINE.write_bytes(msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n")
        print(f"stored in {_BASELINE.name}")
        return 0
    dear = judge(found, stored[method])
    if dear and method == "cpu":
        print("once more: the neighbours may have been loud")
        dear = judge(measure(), stored[method])
    return 1 if dear else 0


if __name__ == "__main__":
    sys.exit(main())
