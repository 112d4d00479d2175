"""All benchmarks in one run: `python -m benchmarks [--full] [--json FILE]`. Ratios, not times, are what to look at."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import blocking, calls, decoding, listing, startup
from .measure import Comparison
from .server import load_server

_LIMITS = {"one call": 1.08, "page of": 1.15, "200 pages": 1.15}


def _row(result: Comparison) -> dict[str, Any]:
    low, high = result.spread
    limit = next((limit for name, limit in _LIMITS.items() if result.name.startswith(name)), None)
    return {
        "name": result.name,
        "measure": result.kind,
        "ours": result.ours.low(result.kind),
        "theirs": result.theirs.low(result.kind),
        "ratio": round(result.ratio, 3),
        "median": round(result.median, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "target": limit,
    }


def _show(row: dict[str, Any]) -> None:
    unit, scale = ("us", 1e6) if row["ours"] < 0.01 else ("s", 1.0)
    low, high = row["quartiles"]
    target = f"  target <= {row['target']:.2f}" if row["target"] else ""
    ours, theirs = (f"{row[side] * scale:8.2f} {unit:2}" for side in ("ours", "theirs"))
    print(
        f"{row['name']:34} {row['measure']:4} ours {ours} theirs {theirs} "
        f"ratio {row['ratio']:.3f} (median {row['median']:.3f}, quartiles {low:.3f}-{high:.3f}){target}",
        flush=True,
    )


async def _compare(full: bool) -> list[dict[str, Any]]:
    rows = []
    with load_server() as origin:
        slices = 51 if full else 25
        async for result in calls.compare(origin, count=1000 if full else 500, slices=slices):
            rows.append(_row(result))
            _show(rows[-1])
        rows.append(_row(await decoding.compare(slices=slices)))
        _show(rows[-1])
        windows = (1, 4, 8, 16) if full else (8,)
        async for result in listing.compare(origin, windows=windows, slices=11 if full else 9):
            rows.append(_row(result))
            _show(rows[-1])
        async for result in blocking.compare(origin, slices=25 if full else 9):
            rows.append(_row(result))
            _show(rows[-1])
        for pages, peak in await listing.growth(origin):
            rows.append({"name": f"memory over {pages} pages", "mebibytes": round(peak, 1)})
            print(f"{rows[-1]['name']:34} peak {peak:.1f} MiB")
    return rows


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("aiohttp", "msgspec", "anyio", "nex-async")}
    return {"python": platform.python_version(), "cores": str(os.cpu_count()), **packages}


def main() -> None:
    """Run everything, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more slices and more windows")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    versions = _versions()
    print("  ".join(f"{name} {number}" for name, number in versions.items()))
    rows = asyncio.run(_compare(arguments.full))
    for name, milliseconds in startup.cost().items():
        rows.append({"name": name, "cpu_ms": round(milliseconds)})
        print(f"{name:34} {milliseconds:.0f} ms CPU above a bare interpreter")
    print(f"{'import nex_async loads aiohttp':34} {'yes' if startup.loads_aiohttp() else 'no'}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"versions": versions, "rows": rows}, indent=2))
    sys.stdout.flush()
    print("\nThe embedded Nex, in a process of its own:")
    subprocess.run([sys.executable, "-m", "benchmarks.emulator"], check=True)
    full = ["--full"] if arguments.full else []
    print("\nThe event stream:")
    subprocess.run([sys.executable, "-m", "benchmarks.feeds", *full], check=True)
    print("\nMany rows in:")
    subprocess.run([sys.executable, "-m", "benchmarks.writing", *full], check=True)
    print("\nMany rows out:")
    subprocess.run([sys.executable, "-m", "benchmarks.exporting", *full], check=True)


if __name__ == "__main__":
    main()
