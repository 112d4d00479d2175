"""What was measured: a table to read, JSON to keep, a plot to look at."""

from __future__ import annotations

import math
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from . import server
from .job import Job
from .measure import ratio
from .targets import target

PACKAGES = (
    "nex-async", "aiohttp", "msgspec", "anyio", "httpx", "openai", "stripe", "notion-client", "aiohttp-sse-client",
    "httpx-sse", "launchdarkly-eventsource", "pydantic", "orjson", "uvloop",
)  # fmt: skip


class Report:
    """Rows as they come, printed at once."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.missing: dict[str, str] = {}
        self.growth: list[dict[str, Any]] = []
        self.figures: list[dict[str, Any]] = []

    def head(self) -> dict[str, str]:
        """Return what was measured on."""
        facts = {"python": platform.python_version(), "machine": platform.machine(), "cores": str(os.cpu_count())}
        return {**facts, "load target": server.kind(), **{name: _version(name) for name in PACKAGES}}

    def add(self, job: Job) -> None:
        """Take the figures of a job that has run, and print them."""
        ours, *others = job.ways
        print(f"\n{job.name}: {ours.name} {cost(ours.median('cpu'))} CPU, {cost(ours.median('wall'))} a {job.unit}")
        for peer in others:
            row = {"job": job.name, "unit": job.unit, "ours": ours.name, "peer": peer.name, "headline": job.headline}
            row["served"] = [job.served.get(ours.name), job.served.get(peer.name)]
            for kind in ("cpu", "wall"):
                row[f"{kind}_ours"], row[f"{kind}_peer"] = ours.median(kind), peer.median(kind)
                row[kind] = asdict(ratio(ours, peer, kind))
            row["target"] = target(job.name, peer.name)
            self.rows.append(row)
            print(_line(row), flush=True)
        for missing in job.missing:
            if missing.name not in self.missing:
                print(f"  {missing.name:30} not measured: {missing.why}")
            self.missing[missing.name] = missing.why

    def add_figure(self, name: str, value: float, unit: str, limit: float | None = None) -> None:
        """Take a figure that is no ratio."""
        self.figures.append({"name": name, "value": value, "unit": unit, "target": limit})
        print(f"  {name:58} {value:10,.2f} {unit}" + _verdict(value, limit), flush=True)

    def add_growth(self, name: str, unit: str, points: list[tuple[int, float]]) -> None:
        """Take how a cost grows, and print the slope of its logarithm over that of the number."""
        steep = slope(points)
        self.growth.append({"name": name, "unit": unit, "points": points, "slope": steep})
        shown = "  ".join(f"{count}: {value:.3g}" for count, value in points)
        print(f"  {name:32} {unit}: {shown}  slope {steep:+.2f}", flush=True)

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        content = {
            "versions": self.head(), "rows": self.rows, "figures": self.figures, "growth": self.growth,
            "missing": self.missing,
        }  # fmt: skip
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


def slope(points: list[tuple[int, float]]) -> float:
    """Return the slope of a line through the points, both axes logarithmic: 0 is flat, 1 is proportional."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def cost(seconds: float) -> str:
    """Return a time as text, in a fitting unit."""
    for scale, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _verdict(value: float, limit: float | None) -> str:
    return "" if limit is None else f"  target <= {limit:g}: {'met' if value <= limit else 'MISSED'}"


def _line(row: dict[str, Any]) -> str:
    peer = cost(row[f"{row['headline']}_peer"])
    shown = [
        f"{kind} {row[kind]['median']:.3f} ({row[kind]['lower']:.3f}-{row[kind]['upper']:.3f})" for kind in ("cpu", "wall")
    ]
    return f"  {row['peer']:30} {peer:>8}  {'  '.join(shown)}{_verdict(row[row['headline']]['median'], row['target'])}"


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw the ratios, and how costs grow."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in report["rows"] if not row["ours"].startswith("uvloop")]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(17, max(6, 0.19 * len(rows))), width_ratios=(3, 2))
    names = [f"{row['job']}  |  {row['peer']}" for row in rows]
    values = [row[row["headline"]]["median"] for row in rows]
    left.barh(names, values, color=["#2a7f62" if value <= 1 else "#b5533c" for value in values], height=0.7)
    left.axvline(1.0, color="black", linewidth=1)
    left.set_xscale("log")
    left.invert_yaxis()
    left.tick_params(axis="y", labelsize=7)
    left.set_title("nex-async over the other, CPU (listings and delayed rows: wall time); left of 1 is cheaper")
    for growth in report["growth"]:
        xs, ys = zip(*growth["points"], strict=True)
        right.plot(xs, ys, marker="o", label=f"{growth['name']}: {growth['unit']}, slope {growth['slope']:+.2f}")
    right.set_xscale("log")
    right.set_yscale("log")
    right.legend(fontsize=8)
    right.set_title("cost of one, as their number grows")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    print(f"plot: {path}", file=sys.stderr)
