"""Records into DuckDB through dlt, as Arrow tables and as dicts: `python -m benchmarks.loading --rows 200000 --dicts 20000`.

The rows come from the load target. The dicts are what a source written by hand yields: a page of records at a time, with
their attributes. Needs ``pip install "nex-async[dlt]" "dlt[duckdb]"``.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from nex_async import blocking
from nex_async.integrations.dlt import nex_source

import dlt  # isort: skip  # after the integration, which turns its telemetry off

from .job import KEY, control
from .server import load_server


def as_dicts(origin: str) -> Any:
    """Return a source that yields each page as dicts."""

    def person() -> Iterator[list[dict[str, Any]]]:
        with blocking.Nex(KEY, base_url=origin) as nex:
            for page in nex.records.list("person", attributes="all", limit=500).pages():
                yield [
                    {"id": row.id, "created_at": row.created_at, "updated_at": row.updated_at, **row.attributes}
                    for row in page
                ]

    return dlt.resource(person, name="person", primary_key="id", write_disposition="merge", max_table_nesting=0)


def cpu() -> float:
    """Return the seconds of processor that this process and its children have used."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def load(name: str, source: Any, rows: int, form: Any = None) -> None:
    """Load a source into a new DuckDB file, in files of a form that dlt knows, and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        target = dlt.destinations.duckdb(f"{folder}/crm.duckdb")
        pipeline = dlt.pipeline(name, pipelines_dir=folder, destination=target, dataset_name="nex")
        wall, used = time.perf_counter(), cpu()
        steps = []
        ways = (lambda: pipeline.extract(source, loader_file_format=form), pipeline.normalize, pipeline.load)
        for step in ways:
            begun = time.perf_counter()
            step()
            steps.append(time.perf_counter() - begun)
        wall, used = time.perf_counter() - wall, cpu() - used
        with pipeline.sql_client() as client:
            found = client.execute_sql("SELECT count(*) FROM person")
    assert found is not None
    assert found[0][0] == rows, found
    parts = ", ".join(f"{word} {each:.1f}" for word, each in zip(("extract", "normalize", "load"), steps, strict=True))
    print(
        f"{name}: {rows} rows in {wall:.1f} s ({parts}), {used:.1f} s of CPU, {wall / rows * 1e6:.0f} us a row", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="rows to load as Arrow tables")
    parser.add_argument("--dicts", type=int, default=20_000, help="rows to load as dicts; 0 for none")
    chosen = parser.parse_args()
    with load_server() as origin:
        asyncio.run(control(origin, page_size=500, total=1_000))
        load("warm_up", nex_source(["person"], api_key=KEY, base_url=origin), 1_000)
        asyncio.run(control(origin, total=chosen.rows))
        load("arrow", nex_source(["person"], api_key=KEY, base_url=origin), chosen.rows)
        if chosen.dicts:
            asyncio.run(control(origin, total=chosen.dicts))
            load("dicts", as_dicts(origin), chosen.dicts)
            load("dicts_parquet", as_dicts(origin), chosen.dicts, "parquet")


if __name__ == "__main__":
    main()
