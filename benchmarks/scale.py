"""The plan for scale: `python -m benchmarks.scale [--quick] [--json FILE] [--plot FILE] [--page FILE]`.

1 to 1 000 workers against a limited API, in the model of `benchmarks/cluster.py`: what is used of the limit, how much is
refused, how fair it is, how long so many records take, what is lost with a worker or with the budget server, and what
breaks first. `--page` writes the tables into `docs/scale.md`. Measured here are the cost of an ask and the size of a
partition; the other costs are arguments, and what a real cluster did is read from `benchmarks/scale_measured.json`.
"""

from __future__ import annotations

import argparse
import heapq
import pickle
import re
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from math import ceil, inf
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from nex_async.bulk.partitions import Partition
from nex_async.transport.ledger import Ask, Ledgers

from .cluster import START, Bucket, Cluster, Found, Hidden, Setup, Task, Tenant, Unlimited, Window, jain, simulate

MEASURED = Path(__file__).parent / "scale_measured.json"
ROWS = 500
"""Records in a page."""
PARTITION = 50_000
"""Records in a partition."""
BOTH = ("one budget, bucket", "each for itself, bucket")
WORKERS = (1, 2, 5, 10, 50, 100, 500, 1000)


@dataclass(frozen=True)
class Costs:
    """What is measured elsewhere. Times in seconds."""

    page_cpu: float
    row_cpu: float
    latency: float
    spread: float
    concurrency: int
    ask: float

    def per_worker(self, cpu: float) -> float:
        """Return how many calls a second a worker can do, without any limit."""
        return min(self.concurrency / self.latency, 1.0 / cpu)


@dataclass(frozen=True)
class Limit:
    """A limit of a server, and for how many seconds of its clock it is looked at."""

    name: str
    rate: float
    seconds: float
    bucket: Callable[[], Hidden]
    window: Callable[[], Hidden]


LIMITS = (
    Limit("10 a minute", 10 / 60, 1200.0, lambda: Bucket(10 / 60, 10), lambda: Window(10, 60.0)),
    Limit("10 a second", 10.0, 300.0, lambda: Bucket(10.0, 20), lambda: Window(10, 1.0)),
    Limit("100 a second", 100.0, 120.0, lambda: Bucket(100.0, 100), lambda: Window(100, 1.0)),
    Limit("1 000 a second", 1000.0, 120.0, lambda: Bucket(1000.0, 1000), lambda: Window(1000, 1.0)),
)

Row = dict[str, Any]


def _setup(costs: Costs, workers: int, seconds: float, **others: Any) -> Setup:
    return Setup(
        workers, seconds, costs.concurrency, costs.latency, costs.spread, costs.page_cpu, budget_service=costs.ask, **others
    )


def _row(limit: Limit, way: str, found: Found, costs: Costs) -> Row:
    had = min(limit.rate, found.workers * costs.per_worker(costs.page_cpu))
    row = {"limit": limit.name, "rate": limit.rate, "way": way, "of_what_can_be_had": found.utilisation * limit.rate / had}
    row.update(asdict(found))
    print(
        f"  {limit.name:15} {way:34} {found.workers:5} workers: {row['of_what_can_be_had']:.2f} used, 429 "
        f"{found.refused:.3f}, later {found.refused_late:.3f}, {found.asks:.0f} asks a second",
        flush=True,
    )
    return row


# ---- (a), (b): one tenant -------------------------------------------------------------------------------------------


def one_tenant(costs: Costs, quick: bool) -> list[Row]:
    """Return what any number of workers gets of a limit nobody told them, with one budget and without."""
    rows = []
    ways: list[tuple[str, bool, dict[str, Any]]] = [
        ("one budget, bucket", True, {}),
        ("one budget, window", False, {}),
        ("one budget, bucket, no Retry-After", True, {"header": False}),
        ("each for itself, bucket", True, {"shared": False}),
    ]
    for limit in LIMITS:
        for way, is_bucket, others in ways:
            for workers in (1, 10, 100) if quick else WORKERS if way in BOTH else (1, 10, 100, 1000):
                seconds = limit.seconds if workers <= 100 else limit.seconds / 2
                seconds = max(60.0, seconds / 3) if quick else max(60.0, seconds)
                hidden = (limit.bucket if is_bucket else limit.window)()
                rows.append(_row(limit, way, simulate(_setup(costs, workers, seconds, **others), hidden), costs))
    return rows


def above_200(costs: Costs, quick: bool) -> list[Row]:
    """Return what a limit above 200 a second gives: learned as it is now, as it was, and told to the budget."""
    rows = []
    for rate in (300.0, 1000.0):
        limit = Limit(f"{rate:,.0f} a second".replace(",", " "), rate, 0.0, LIMITS[-1].bucket, LIMITS[-1].window)
        ways: list[tuple[str, dict[str, Any]]] = [
            ("learned", {}),
            ("off at 200, as a client alone", {"off": 200.0}),
            (f"told: `({rate:.0f}, 1.0)`", {"known": {"default": (int(rate), 1.0)}}),
            (f"told: `({rate * 0.95:.0f}, 0.5)`", {"known": {"default": (int(rate * 0.95), 0.5)}}),
            (f"told: `({rate * 10:.0f}, 10.0)`", {"known": {"default": (int(rate * 10), 10.0)}}),
        ]
        for way, others in ways:
            for seconds in (60.0,) if quick else (120.0, 600.0):
                found = simulate(_setup(costs, 100, seconds, **others), Bucket(rate, int(rate)))
                rows.append({**_row(limit, way, found, costs), "seconds": seconds})
    return rows


# ---- (c): many tenants ----------------------------------------------------------------------------------------------


def fair_ends(pages: list[float], rate: float, capacity: float) -> list[float]:
    """Return when each tenant would be done if all shared the workers equally, none above its own limit."""
    ends, now, done = [0.0] * len(pages), 0.0, 0.0
    left = sorted(range(len(pages)), key=lambda number: pages[number])
    for place, number in enumerate(left):
        share = min(rate, capacity / (len(left) - place))
        now += (pages[number] - done) / share
        done = pages[number]
        ends[number] = now
    return ends


def tenants(costs: Costs, quick: bool) -> list[Row]:
    """Return what tenants of skewed sizes get, each with a limit of its own, in several orders; one may be greedy."""
    count, workers, rate = (100, 10, 5.0) if quick else (1000, 50, 5.0)
    sizes = [ceil(2 * count / (place + 1)) for place in range(count)]
    capacity = workers * costs.per_worker(costs.page_cpu)
    rows = []
    for greedy in (1, 10):
        pages = [float(size * (greedy if number == 0 else 1)) for number, size in enumerate(sizes)]
        fair = fair_ends(pages, rate, capacity)
        for order, most in (("one tenant after another", None), ("in turns", None), ("in turns, one at a time", 1)):
            people = [Tenant(number, Bucket(rate, 10), size) for number, size in enumerate(pages)]
            cluster = Cluster(
                _setup(costs, workers, 100_000.0),
                people,
                _tasks(people, in_turns=most is not None or "turns" in order),
                most,
            )
            found = cluster.run()
            ends = [tenant.ended - START for tenant in people]
            others = sorted(ends[1:])
            row = {
                "tenants": count, "workers": workers, "order": order, "greedy": greedy,
                "jain": jain([ideal / end for ideal, end in zip(fair, ends, strict=True)]),
                "median_end": median(others), "last_end": others[-1], "greedy_end": ends[0],
                "fair_median": median(fair[1:]), "fair_last": max(fair[1:]), "fair_greedy": fair[0],
                "refused": found.refused,
            }  # fmt: skip
            print(
                f"  {order:26} largest x {greedy:2}: Jain {row['jain']:.2f}, others done {row['median_end']:.0f} s, "
                f"{row['last_end']:.0f} s (last; fair {row['fair_last']:.0f}), the largest {ends[0]:.0f} s",
                flush=True,
            )
            rows.append(row)
    return rows


def _tasks(people: list[Tenant], *, in_turns: bool, size: int = 20) -> deque[Task]:
    cut = [
        [
            Task(tenant, part, part)
            for part in (min(size, tenant.pages - start) for start in range(0, int(tenant.pages), size))
        ]
        for tenant in people
    ]
    if not in_turns:
        return deque(task for tasks in cut for task in tasks)
    longest = max(len(tasks) for tasks in cut)
    return deque(tasks[turn] for turn in range(longest) for tasks in cut if turn < len(tasks))


# ---- (d): how long it takes -----------------------------------------------------------------------------------------


def formula(records: float, rate: float, workers: int, costs: Costs, *, writes: bool = False) -> float:
    """Return the seconds for so many records: the limit, or what the workers can do, whichever is less."""
    calls = records if writes else ceil(records / ROWS)
    return calls / min(rate, workers * costs.per_worker(costs.row_cpu if writes else costs.page_cpu))


def durations(costs: Costs, quick: bool) -> list[Row]:
    """Return simulated runs of a few hundred thousand records beside the formula."""
    rows = []
    cases = [
        (1e6, inf, 1, False), (1e6, inf, 4, False), (1e6, 10.0, 4, False), (1e6, 100.0, 2, False), (1e7, 100.0, 20, False),
        (1e5, 100.0, 20, True), (1e5, 1000.0, 4, True), (1e5, inf, 4, True),
    ]  # fmt: skip
    for records, rate, workers, writes in cases[:6] if quick else cases:
        hidden: Hidden = Unlimited() if rate == inf else Bucket(rate, max(10, int(rate)))
        setup = replace(_setup(costs, workers, 1e6), page_cpu=costs.row_cpu if writes else costs.page_cpu)
        calls = records if writes else records / ROWS
        tenant = Tenant(0, hidden, calls)
        Cluster(setup, [tenant], _tasks([tenant], in_turns=True, size=100 if not writes else 1000)).run()
        computed, simulated = formula(records, rate, workers, costs, writes=writes), tenant.ended - START
        rows.append({
            "records": records, "rate": None if rate == inf else rate, "workers": workers, "writes": writes,
            "formula": computed, "simulated": simulated,
        })  # fmt: skip
        print(f"  {records:,.0f} {'writes' if writes else 'records'}, {rate:g} a second, {workers} workers: formula "
              f"{computed:.1f} s, simulated {simulated:.1f} s", flush=True)  # fmt: skip
    return rows


# ---- (e): memory of the driver --------------------------------------------------------------------------------------


def memory() -> list[Row]:
    """Return what the tasks of a large listing weigh where they are planned, and on their way. Measured."""
    rows = []
    for records in (10**7, 10**9):
        count = records // PARTITION
        tracemalloc.start()
        parts = [Partition("object", "companies", number * PARTITION, (number + 1) * PARTITION) for number in range(count)]
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        pickled = [len(pickle.dumps(part)) for part in parts[:: max(1, count // 1000)]]
        rows.append(
            {"records": records, "partitions": count, "held": held, "pickled": max(pickled), "all": max(pickled) * count}
        )
        print(f"  {records:,} records: {count:,} partitions, {held / 1024:,.0f} KiB held, {max(pickled)} bytes each pickled")
    return rows


# ---- (f): failures --------------------------------------------------------------------------------------------------


def failures(costs: Costs, quick: bool) -> list[Row]:
    """Return what is lost when workers die, and when the budget server is gone for a while."""
    limit, seconds = LIMITS[2], 200.0 if quick else 600.0
    pages = PARTITION / ROWS
    cases: list[tuple[str, dict[str, Any]]] = [
        ("nothing fails", {}),
        ("each worker dies once an hour", {"deaths": 1.0}),
        ("each worker dies six times an hour", {"deaths": 6.0}),
        ("each worker dies once a minute", {"deaths": 60.0}),
        ("the budget server is gone for 10 s", {"budget_down": (100.0, 110.0)}),
        ("each worker for itself, six deaths an hour", {"deaths": 6.0, "shared": False}),
    ]
    rows = []
    for name, others in cases:
        found = simulate(_setup(costs, 50, seconds, partition=pages, **others), limit.bucket())
        useful = (found.passed - found.wasted) / (limit.rate * seconds)
        rows.append({"case": name, "used": found.passed / (limit.rate * seconds), "useful": useful, **asdict(found)})
        print(f"  {name:44} used {rows[-1]['used']:.3f}, useful {useful:.3f}, 429 {found.refused_late:.3f}", flush=True)
    return rows


# ---- (g): what breaks first -----------------------------------------------------------------------------------------


def ask_cost(workers: int, rate: int = 200, asks: int = 4000) -> float:
    """Return what an ask costs the ledger, in seconds of CPU, with so many workers in line. Measured."""
    ledgers, cost, now = Ledgers({"default": (rate, 1.0)}), 0.0, 0.0
    line = [(number * 1e-4, number) for number in range(workers)]
    for _ in range(asks):
        now, number = heapq.heappop(line)
        ask = Ask("0" * 32, "default", str(number), 8, 1)
        before = time.process_time_ns()
        lease = ledgers.lease(ask, now)
        cost += time.process_time_ns() - before
        heapq.heappush(line, (now + max(lease.wait, 0.01), number))
    return cost / asks / 1e9


def busy_server(costs: Costs, quick: bool) -> list[Row]:
    """Return what becomes of the use of a limit when the budget server needs longer for an ask."""
    rows = []
    for limit in LIMITS[2:]:
        for service in (0.0, 0.0005, 0.001, 0.002, 0.005):
            for workers in (100,) if quick else (100, 1000):
                setup = replace(_setup(costs, workers, 60.0 if quick else 120.0), budget_service=service)
                row = _row(limit, f"{service * 1e3:g} ms an ask", simulate(setup, limit.bucket()), costs)
                rows.append({**row, "service": service})
    return rows


# ---- tables ---------------------------------------------------------------------------------------------------------


def measured() -> list[Row]:
    """Return what a real cluster did, as somebody measured it; nothing where nobody did."""
    if not MEASURED.exists():
        return []
    points: list[Row] = msgspec.json.decode(MEASURED.read_bytes())["points"]
    return sorted(points, key=lambda point: (point["job"], point["delay"], point["workers"]))


def expected(point: Row, costs: Costs) -> float:
    """Return the seconds that the formula gives for what was measured. One process is as good as one worker."""
    there = replace(costs, latency=max(point["delay"], 0.001), concurrency=point["in_flight"])
    return formula(point["records"], inf, max(1, point["workers"]), there, writes=point["job"] == "write")


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}"


def _span(seconds: float) -> str:
    for size, unit in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return (
                f"{seconds / size:,.0f} {unit}".replace(",", " ") if seconds >= 20 * size else f"{seconds / size:.1f} {unit}"
            )
    return f"{seconds:.1f} s"


def _by_workers(rows: list[Row], way: str, cell: Callable[[Row], str]) -> Iterator[str]:
    rows = [row for row in rows if row["way"] == way]
    counts = sorted({row["workers"] for row in rows})
    yield "| hidden limit | " + " | ".join(str(count) for count in counts) + " |"
    yield "|---" * (len(counts) + 1) + "|"
    for limit in LIMITS:
        found = {row["workers"]: cell(row) for row in rows if row["limit"] == limit.name}
        yield f"| {limit.name} | " + " | ".join(found.get(count, "") for count in counts) + " |"


def _table(heading: str, rows: Iterable[Iterable[object]]) -> list[str]:
    columns = heading.count(" | ") + 1
    return [f"| {heading} |", "|---" * columns + "|", *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)]


def _measured_table(costs: Costs) -> list[str]:
    points = measured()
    if not points:
        return ["Nothing was measured yet."]
    return _table(
        "what | delay | workers | seconds, measured | records a second | CPU seconds | seconds, formula",
        (
            (
                f"{point['job']} {point['records']:,}",
                f"{1000 * point['delay']:.0f} ms",
                point["workers"] or "one process",
                f"{point['seconds']:.1f}",
                f"{point['records'] / point['seconds']:,.0f}",
                f"{point['cpu']:.1f}",
                f"{expected(point, costs):.1f}",
            )
            for point in points
        ),
    )


def _duration_table(costs: Costs) -> list[str]:
    kinds = [(records, writes) for writes in (False, True) for records in (1e7, 1e9)]
    rows: list[list[str]] = []
    for limit in LIMITS:
        need = [ceil(limit.rate / costs.per_worker(cpu)) for cpu in (costs.page_cpu, costs.row_cpu)]
        cells = [_span(formula(records, limit.rate, 10**6, costs, writes=writes)) for records, writes in kinds]
        rows.append([limit.name, *cells, f"{need[0]}, {need[1]}"])
    for workers in (1, 10, 100):
        cells = [_span(formula(records, inf, workers, costs, writes=writes)) for records, writes in kinds]
        rows.append([f"none, {workers} worker{'s' * (workers > 1)}", *cells, ""])
    return _table(
        "limit | 10^7 read | 10^9 read | 10^7 written | 10^9 written | workers that use it up: reading, writing", rows
    )


def tables(report: dict[str, Any], costs: Costs) -> dict[str, list[str]]:
    """Return the lines of each table of the page, by its name."""
    rows = report["one_tenant"]
    blocks = {
        "use": list(_by_workers(rows, "one budget, bucket", lambda row: _number(row["of_what_can_be_had"]))),
        "window": list(_by_workers(rows, "one budget, window", lambda row: _number(row["of_what_can_be_had"]))),
        "use without Retry-After": list(
            _by_workers(rows, "one budget, bucket, no Retry-After", lambda row: _number(row["of_what_can_be_had"]))
        ),
        "refused": list(
            _by_workers(rows, "one budget, bucket", lambda row: f"{row['refused']:.3f}, {row['refused_late']:.3f}")
        ),
        "refused alone": list(
            _by_workers(rows, "each for itself, bucket", lambda row: f"{row['refused']:.3f}, {row['refused_late']:.3f}")
        ),
        "asks": list(_by_workers(rows, "one budget, bucket", lambda row: f"{row['asks']:.0f}, {row['asks_peak']:,}")),
        "durations": _duration_table(costs),
        "measured": _measured_table(costs),
    }
    blocks["above 200"] = _table(
        "limit | how the budget knows it | seconds | used | 429",
        (
            (row["limit"], row["way"], f"{row['seconds']:.0f}", f"{row['utilisation']:.2f}", f"{row['refused']:.3f}")
            for row in report["above_200"]
        ),
    )
    blocks["tenants"] = _table(
        "order of the partitions | the largest | Jain's index | others done: median (fair) | last (fair) | largest (fair)",
        (
            (
                row["order"],
                "as it is" if row["greedy"] == 1 else f"{row['greedy']} times",
                f"{row['jain']:.2f}",
                f"{row['median_end']:.0f} s ({row['fair_median']:.0f} s)",
                f"{row['last_end']:.0f} s ({row['fair_last']:.0f} s)",
                f"{row['greedy_end']:.0f} s ({row['fair_greedy']:.0f} s)",
            )
            for row in report["tenants"]
        ),
    )
    blocks["checked"] = _table(
        "what | limit | workers | formula | simulated",
        (
            (
                f"{row['records']:,.0f} {'written' if row['writes'] else 'read'}",
                "none" if row["rate"] is None else f"{row['rate']:g} a second",
                row["workers"],
                f"{row['formula']:.1f} s",
                f"{row['simulated']:.1f} s",
            )
            for row in report["durations"]
        ),
    )
    blocks["memory"] = _table(
        "records | partitions | held by the driver | one, pickled | all, pickled",
        (
            (
                f"{row['records']:,}",
                f"{row['partitions']:,}",
                f"{row['held'] / 2**20:.2f} MiB",
                f"{row['pickled']} bytes",
                f"{row['all'] / 2**20:.2f} MiB",
            )
            for row in report["memory"]
        ),
    )
    blocks["failures"] = _table(
        "what happens | used | of use | 429 after 30 s",
        ((row["case"], *(f"{row[name]:.3f}" for name in ("used", "useful", "refused_late"))) for row in report["failures"]),
    )
    blocks["ask"] = _table(
        "workers in line | microseconds an ask | asks a second on one core",
        ((f"{row['workers']:,}", f"{row['seconds'] * 1e6:.0f}", f"{1 / row['seconds']:,.0f}") for row in report["ask_cost"]),
    )
    blocks["busy"] = _table(
        "limit | workers | an ask takes | used | asks a second | longest wait for a lease",
        (
            (
                row["limit"],
                f"{row['workers']:,}",
                f"{row['service'] * 1e3:g} ms",
                f"{row['of_what_can_be_had']:.2f}",
                f"{row['asks']:.0f}",
                f"{row['slowest_answer']:.2f} s",
            )
            for row in report["busy_server"]
        ),
    )
    return blocks


def write_page(path: Path, blocks: dict[str, list[str]]) -> None:
    """Put the tables into their places in a page."""
    text = path.read_text("utf-8")
    for name, lines in blocks.items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        found = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        body = "\n".join(["", *lines, "", ""])
        text = found.sub(lambda _, new=begin + body + end: new, text)  # type: ignore[misc]
    path.write_text(text, "utf-8")


# ---- a picture ------------------------------------------------------------------------------------------------------


def plot(report: dict[str, Any], costs: Costs, path: Path) -> None:
    """Draw the speed, the refusals and the asks over the number of workers, and what was measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (speed, refused, asks) = pyplot.subplots(1, 3, figsize=(18, 5.5))
    counts = list(range(1, 1001))
    one = costs.per_worker(costs.page_cpu)
    speed.plot(counts, [ROWS * one * count for count in counts], color="black", linewidth=1, label="no limit (formula)")
    colours = ["#2a7f62", "#b5533c", "#3c6bb5", "#8a5fb0"]
    for limit, colour in zip(LIMITS, colours, strict=True):
        speed.plot(counts, [ROWS * min(limit.rate, one * count) for count in counts], color=colour, linewidth=1)
        rows = [row for row in report["one_tenant"] if row["limit"] == limit.name]
        for way, style in (("one budget, bucket", "o-"), ("each for itself, bucket", "x:")):
            chosen = [row for row in rows if row["way"] == way]
            xs = [row["workers"] for row in chosen]
            label = f"{limit.name}, {'one budget' if way.startswith('one') else 'each for itself'}"
            refused.plot(xs, [max(1e-4, row["refused_late"]) for row in chosen], style, color=colour, label=label)
            if way.startswith("one"):
                records = [ROWS * row["utilisation"] * row["rate"] for row in chosen]
                speed.plot(xs, records, "o", color=colour, label=f"{limit.name} (simulated)")
                asks.plot(xs, [max(0.01, row["asks"]) for row in chosen], "o-", color=colour, label=limit.name)
    points = [point for point in measured() if point["job"] == "read" and point["workers"]]
    if points:
        xs, ys = [point["workers"] for point in points], [point["records"] / point["seconds"] for point in points]
        speed.plot(xs, ys, "*", color="black", markersize=14, label="measured")
    speed.set_title("records read per second")
    refused.set_title("share of 429 after the first 30 s")
    asks.set_title("asks per second at the budget server")
    for axes in (speed, refused, asks):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("workers")
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    print(f"plot: {path}", file=sys.stderr)


def run(costs: Costs, quick: bool) -> dict[str, Any]:
    """Simulate everything."""
    report: dict[str, Any] = {"costs": asdict(costs), "measured": measured()}
    print("One tenant:")
    report["one_tenant"] = one_tenant(costs, quick)
    print("Limits above 200 a second, 100 workers:")
    report["above_200"] = above_200(costs, quick)
    print("Many tenants:")
    report["tenants"] = tenants(costs, quick)
    print("How long it takes:")
    report["durations"] = durations(costs, quick)
    print("Memory of the driver (measured):")
    report["memory"] = memory()
    print("Failures, 50 workers, 100 a second:")
    report["failures"] = failures(costs, quick)
    print("What an ask costs (measured):")
    report["ask_cost"] = [{"workers": count, "seconds": ask_cost(count)} for count in (1, 10, 100, 1000)]
    for row in report["ask_cost"]:
        print(f"  {row['workers']:5} workers in line: {row['seconds'] * 1e6:.0f} us")
    print("A budget server that is slow:")
    report["busy_server"] = busy_server(costs, quick)
    return report


def main() -> None:
    """Simulate, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer workers, less time: a minute instead of ten")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the figures")
    parser.add_argument("--read", type=Path, metavar="FILE", help="take the figures from this file, and simulate nothing")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="file for a picture (PNG)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="page whose tables are to be written")
    parser.add_argument("--page-cpu", type=float, default=0.0125, help="CPU seconds for a page of 500 records")
    parser.add_argument("--row-cpu", type=float, default=0.00015, help="CPU seconds for a row that is written")
    parser.add_argument("--latency", type=float, default=0.05, help="median seconds of a reply")
    parser.add_argument("--spread", type=float, default=0.3, help="of the logarithm of that")
    parser.add_argument("--concurrency", type=int, default=8, help="calls in flight of a worker")
    parser.add_argument("--ask", type=float, default=0.0003, help="seconds of the budget server for an ask")
    arguments = parser.parse_args()
    costs = Costs(
        arguments.page_cpu, arguments.row_cpu, arguments.latency, arguments.spread, arguments.concurrency, arguments.ask
    )
    began = time.monotonic()
    if arguments.read:
        report = msgspec.json.decode(arguments.read.read_bytes())
        costs = Costs(**report["costs"])
    else:
        report = run(costs, arguments.quick)
        print(f"\n{time.monotonic() - began:.0f} s")
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if arguments.plot:
        plot(report, costs, arguments.plot)
    if arguments.page:
        write_page(arguments.page, tables(report, costs))


if __name__ == "__main__":
    main()
