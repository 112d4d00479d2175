"""People, companies and insights into DuckDB through dlt, each run only what changed. Copy and change it.

    pip install "nex-async[dlt]" "dlt[duckdb]"
    python examples/dlt_to_duckdb.py            # an embedded Nex in nex.sqlite, which this makes
    python examples/dlt_to_duckdb.py --live     # your workspace: NEX_API_KEY, NEX_API_BASE_URL

The tables are in crm.duckdb, and what dlt remembers between two runs is in the directory dlt. Run it again: it loads what is
new. dlt's telemetry is off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"  # read when dlt makes its first pipeline

import dlt

from nex_async import blocking
from nex_async.integrations.dlt import nex_source
from nex_async.testing import EmulatorThread


def load(api_key: str | None = None, base_url: str | None = None) -> Any:
    """Load what is new, and return the pipeline."""
    pipeline: Any = dlt.pipeline(
        "nex_to_duckdb",
        pipelines_dir=str(Path("dlt").absolute()),
        destination=dlt.destinations.duckdb("crm.duckdb"),
        dataset_name="nex",
    )
    source = nex_source(["person", "company"], insights=True, api_key=api_key, base_url=base_url)
    pipeline.run(source).raise_on_failed_jobs()
    counts = pipeline.last_trace.last_normalize_info.row_counts
    print("loaded:", ", ".join(f"{counts.get(table, 0)} of {table}" for table in ("person", "company", "insights")))
    return pipeline


@contextmanager
def embedded() -> Iterator[dict[str, str]]:
    """Run an embedded Nex with a few people and an insight, and yield where it is."""
    with EmulatorThread("nex.sqlite") as server, blocking.Nex(server.key, base_url=server.url) as nex:
        nex.records.upsert("company", {"name": "X", "domains": ["x.io"]}, match_on="domains")
        for name in ("Ada Park", "Bo Lind"):
            values = {"name": name, "email_addresses": [f"{name.split()[0].lower()}@x.io"]}
            nex.records.upsert("person", values, match_on="email_addresses")
        nex.context.add_text("Ada from x.io asked for a demo.").wait()
        yield {"api_key": server.key, "base_url": server.url}


def main() -> None:
    if "--live" in sys.argv[1:]:
        pipeline = load()
    else:
        with embedded() as where:
            pipeline = load(**where)
            with blocking.Nex(where["api_key"], base_url=where["base_url"]) as nex:
                values = {"job_title": "CTO", "email_addresses": ["ada@x.io"]}
                nex.records.upsert("person", values, match_on="email_addresses")
            pipeline = load(**where)
    with pipeline.sql_client() as client:
        for name, title in client.execute_sql("SELECT name, job_title FROM person ORDER BY updated_at DESC LIMIT 5"):
            print(f"{name}: {title or '-'}")


if __name__ == "__main__":
    main()
