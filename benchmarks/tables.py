"""The tables of `docs/performance.md` from a file of figures: `python -m benchmarks.tables bench.json`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from .report import cost


def _spread(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} ({found['lower']:.2f}-{found['upper']:.2f})"


def _target(row: dict[str, Any]) -> str:
    if row["target"] is None:
        return ""
    met = row[row["headline"]]["median"] <= row["target"]
    return f"{row['headline']} <= {row['target']:.2f}: {'met' if met else '**missed**'}"


def comparisons(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table of comparisons."""
    yield "| job | beside | CPU, ours / theirs | CPU ratio | wall ratio | target |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        costs = f"{cost(row['cpu_ours'])} / {cost(row['cpu_peer'])} a {row['unit']}"
        yield f"| {row['job']} | {row['peer']} | {costs} | {_spread(row['cpu'])} | {_spread(row['wall'])} | {_target(row)} |"


def growth(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table of growth."""
    yield "| number of | cost of one | slope |"
    yield "|---|---|---|"
    for row in rows:
        points = ", ".join(f"{count}: {value:.3g}" for count, value in row["points"])
        yield f"| {row['name']} | {row['unit']} at {points} | {row['slope']:+.2f} |"


def figures(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table of single figures."""
    yield "| figure | value | target |"
    yield "|---|---|---|"
    for row in rows:
        limit = row["target"]
        verdict = "" if limit is None else f"<= {limit:g}: {'met' if row['value'] <= limit else '**missed**'}"
        yield f"| {row['name']} | {row['value']:,.0f} {row['unit']} | {verdict} |"


def main(path: Path) -> None:
    """Print everything as Markdown."""
    report = msgspec.json.decode(path.read_bytes())
    print("; ".join(f"{name} {number}" for name, number in report["versions"].items()), "\n")
    loops = [row for row in report["rows"] if row["ours"] == "uvloop"]
    print(*comparisons([row for row in report["rows"] if row["ours"] != "uvloop"]), "", sep="\n")
    print(*comparisons(loops), "", sep="\n")
    print(*growth(report["growth"]), "", sep="\n")
    print(*figures(report["figures"]), "", sep="\n")
    for name, why in report["missing"].items():
        print(f"Not measured: {name} ({why})")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
