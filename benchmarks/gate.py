"""The gate: four hot paths must not become dearer. `python -m benchmarks.gate [--update] [--method cpu]`.

What one call, one page, one event and one upserted row cost is a ratio to a reference that does the same bare, in the same
run, and compared with `baseline.json`: 15 % more fails. With valgrind, costs are instructions, which do not depend
on the neighbours: each side runs twice, once twice as long, and the difference counts. Elsewhere they are CPU time, low
percentiles of interleaved slices, and a path fails only when it fails twice. A baseline is for one version of Python.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
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
from .server import compiled, load_server

_BASELINE = Path(__file__).with_name("baseline.json")
_COUNTING = Path(__file__).with_name("counting.c")
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


async def _child(origin: str, library: str) -> None:
    """Run each side twice, the second time twice as long, and have callgrind count each run; it goes by this order."""
    counter = ctypes.CDLL(library)
    async with AsyncExitStack() as stack:
        sides = await _sides(stack, origin)
        for (path, _), run in sides.items():
            await run(_WARM[path])
            for length in (_UNITS[path], 2 * _UNITS[path]):
                gc.collect()
                gc.disable()
                counter.counting_start()
                await run(length)
                counter.counting_stop()
                gc.enable()


def by_instructions() -> dict[str, float]:
    """Return the ratio of each path, in instructions."""
    library = compiled(_COUNTING, "-shared", "-fPIC")
    with load_server() as origin, tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "counts"
        options = ["--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}"]
        child = [sys.executable, "-m", "benchmarks.gate", "--child", origin, str(library)]
        done = subprocess.run(
            ["valgrind", *options, *child],
            check=False, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        counted = [_total(output.with_name(f"counts.{number + 1}")) for number in range(4 * len(_UNITS))]
    ratios = {}
    for index, (path, units) in enumerate(_UNITS.items()):
        once, twice, bare_once, bare_twice = counted[4 * index : 4 * index + 4]
        ours, theirs = (twice - once) / units, (bare_twice - bare_once) / units
        print(f"  {path:6} {ours:12,.0f} instructions, reference {theirs:12,.0f}")
        ratios[path] = ours / theirs
    return ratios


def _total(file: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", file.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no count in {file.name}")
    return int(found[1])


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


def _can_count() -> bool:
    return shutil.which("valgrind") is not None and compiled(_COUNTING, "-shared", "-fPIC") is not None


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
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.getLogger("nex_async").setLevel(logging.ERROR)
    if arguments.child:
        asyncio.run(_child(*arguments.child))
        return 0
    method = arguments.method or ("instructions" if _can_count() else "cpu")
    measure = by_instructions if method == "instructions" else by_cpu
    key = f"{method}, Python {sys.version_info[0]}.{sys.version_info[1]}"
    stored = msgspec.json.decode(_BASELINE.read_bytes(), type=dict[str, dict[str, float]]) if _BASELINE.exists() else {}
    print(f"four hot paths by {key}")
    if not arguments.update and key not in stored:
        print("NOTHING WAS COMPARED: no baseline is stored for this; `--update` stores one")
        return 0
    found = measure()
    if arguments.update:
        if method == "cpu":  # one measurement may be a lucky one
            several = [found, *(measure() for _ in range(4))]
            found = {path: statistics.median(each[path] for each in several) for path in found}
        stored[key] = {path: round(value, 3) for path, value in found.items()}
        _BASELINE.write_bytes(msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n")
        print(f"stored in {_BASELINE.name}")
        return 0
    dear = judge(found, stored[key])
    if dear and method == "cpu":
        print("once more: the neighbours may have been loud")
        again = judge(measure(), stored[key])
        dear = [path for path in dear if path in again]
    return 1 if dear else 0


if __name__ == "__main__":
    sys.exit(main())
