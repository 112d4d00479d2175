"""The nightly job: bring a source of companies into Nex, and keep a copy of what stands there. Copy and change it.

    python examples/nightly_sync.py --local nex.sqlite        # 5 000 made-up companies, into an embedded Nex
    python examples/nightly_sync.py companies.jsonl           # yours: NEX_API_KEY, NEX_API_BASE_URL

Rows are upserted by domain, those that did not change since last night are not sent, those that fail are set aside in
nightly.journal.dead.jsonl, and at the end everything is read back and compared. Then all companies are exported.

Killed at any point, the same command goes on. Begun on another day, or with other rows, it begins anew by itself, which is
safe: the same upsert twice is the same as once.

Exit status: 0 when every row has taken effect; 1 when some have not, or the job could not go on.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from nex_async import BulkReport, Nex, NexError, Progress

JOURNAL = "nightly.journal"
COPY = "companies.parquet" if importlib.util.find_spec("pyarrow") else "companies.jsonl"
INDUSTRIES = ("Energy", "Finance", "Health", "Logistics", "Retail", "Software", "Steel")


class Companies:
    """The source: an object with `__iter__`, so that it can be read from the beginning again."""

    def __init__(self, path: Path | None, count: int) -> None:
        self._path = path
        self._count = count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._path is None:
            yield from map(self._made_up, range(self._count))
        else:
            with self._path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)

    @staticmethod
    def _made_up(number: int) -> dict[str, Any]:
        return {
            "name": f"Company {number}",
            "domains": [f"company-{number}.example"],
            "industry": INDUSTRIES[number % len(INDUSTRIES)],
            "employee_count": 5 + number * 37 % 4000,
        }


class Teller:
    """Tells on stderr how far the job has come, each time another tenth is done."""

    def __init__(self) -> None:
        self._told = -1

    def __call__(self, progress: Progress) -> None:
        tenth = progress.done * 10 // (progress.total or 1)
        if tenth != self._told:
            self._told = tenth
            rest = "" if progress.eta is None else f", {progress.eta:.0f} s to go"
            line = f"{progress.name}: {progress.done} of {progress.total} rows, {progress.rate:.0f}/s{rest} {progress.note}"
            print(line.rstrip(), file=sys.stderr, flush=True)


async def bring_in(nex: Nex, companies: Companies, total: int | None) -> BulkReport:
    """Upsert all companies, and return the report."""
    return await nex.records.upsert_many(
        "company",
        companies,
        match_on="domains",
        journal=JOURNAL,
        job_id=date.today().isoformat(),  # killed tonight, it goes on tonight
        force=True,  # what another night left unfinished, or began with other rows, is begun anew
        skip_unchanged=True,
        verify=True,
        progress=Teller(),
        total=total,
    )


def tell(report: BulkReport) -> None:
    """Print the report; on stderr the first rows that failed, and the values that are not what was sent."""
    print(report, flush=True)
    for outcome in report.failures[:10]:
        print(f"row {outcome.index}: {outcome.error}", file=sys.stderr)
    for drift in (report.drift or ())[:10]:
        print(f"{drift.key}: {drift.attribute} was sent as {drift.sent!r} and is {drift.found!r}", file=sys.stderr)


def client(arguments: argparse.Namespace) -> Nex:
    """Return a client of your Nex, or of an embedded one."""
    if arguments.local is not None:
        return Nex.local(arguments.local)
    return Nex(base_url=arguments.url)


async def run(arguments: argparse.Namespace) -> bool:
    """Do the night's work; return whether every row has taken effect."""
    companies = Companies(arguments.file, arguments.rows)
    total = arguments.rows if arguments.file is None else None
    async with client(arguments) as nex:
        report = await bring_in(nex, companies, total)
        tell(report)
        copy = await nex.records.export("company", arguments.to)
        print(f"copy: {copy.rows} companies in {copy.path}")
    return report.ok and not copy.bad_rows


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description="The nightly job.")
    parser.add_argument("file", nargs="?", type=Path, help="JSON Lines, a company each; without it, companies are made up")
    parser.add_argument("--rows", type=int, default=5000, help="how many companies to make up (5000)")
    parser.add_argument("--to", default=COPY, help=f"the file of the copy ({COPY})")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--local", metavar="DB", help="work on an embedded Nex that keeps its data in this file")
    where.add_argument("--url", help="the server, where it is not the one NEX_API_BASE_URL or ~/.nex name")
    try:
        return 0 if asyncio.run(run(parser.parse_args())) else 1
    except NexError as error:
        print(f"the job could not go on: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
