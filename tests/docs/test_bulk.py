"""The pages on many rows: in, out, and in step."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from pathlib import Path
from typing import get_args

import pytest

from nex_async import BulkOptions, Nex, RequestOptions
from nex_async.bulk.partitions import Partition
from nex_async.bulk.report import Status
from nex_async.emulator import Emulator

from ..harness.canary import KEY
from .pages import rows_of, text_of
from .stage import shown
from .watching import Output, playing

BULK = text_of("docs/bulk.md")


async def test_the_bulk_page_runs(nex: Nex, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks bring rows in, tell each outcome, are resumable, send again what failed, show progress, and check."""
    monkeypatch.chdir(tmp_path)
    await shown("docs/bulk.md", "bring_in")(nex)
    await output.says("upsert company: 200 rows: 200 created; 200 requests; ")
    await shown("docs/bulk.md", "one_by_one")(nex)
    await output.says("\n200 0 ")
    assert len(re.findall(r"^\d+ (?:updated|created) \d+$", output.text, re.MULTILINE)) == 200
    rows = [{"name": "Acme", "domains": ["acme.example"]}]
    first, second = [await shown("docs/bulk.md", "nightly")(nex, rows) for _ in range(2)]
    assert (first.created, first.drift, first.ok) == (1, [], True)
    assert (second.unchanged, second.requests, second.ok) == (1, 0, True)

    await nex.records.upsert_many(
        "company", [*rows, {"domains": [7]}], match_on="domains", journal="companies.journal", force=True
    )
    await shown("docs/bulk.md", "again")(nex)
    await output.says("{'domains': [7]} BadRequestError ")
    await output.says("upsert company: 1 rows: 1 failed; 1 requests; ")
    await shown("docs/bulk.md", "watched")(nex)
    await output.says("\n200 0 ")
    await shown("docs/bulk.md", "careful")(nex)
    await output.says("""("'company' has no attribute 'nmae' (1 of 1 rows)",)\n200 0\n[]\n""")


async def test_the_bulk_page_names_every_status_and_option(nex: Nex) -> None:
    """Its tables hold each status of an outcome, each option and each method, and none that does not exist."""
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows_of(BULK, "status")))) == sorted(get_args(Status))
    own = set(BulkOptions.__annotations__) - set(RequestOptions.__annotations__)
    assert sorted(rows_of(BULK, "option")) == sorted(f"`{name}`" for name in own)
    methods = re.findall(r"`(\w+)\.(\w+)\(", " ".join(rows_of(BULK, "method")))
    assert len(methods) == 6
    assert all(hasattr(getattr(nex, resource), name) for resource, name in methods)


async def test_the_export_page_runs(emulator: Emulator, nex: Nex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks write files of several formats with the same rows, batches, and parts that are the whole."""
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEX_API_KEY", KEY)
    monkeypatch.setenv("NEX_API_BASE_URL", emulator.url)
    await nex.records.upsert_many(
        "person", [{"name": f"P {n}", "email_addresses": [f"p{n}@x.io"]} for n in range(12)], match_on="email_addresses"
    )
    await shown("docs/export.md", "files")(nex)
    lines = gzip.decompress((tmp_path / "people.jsonl.gz").read_bytes()).splitlines()
    assert parquet.read_table("people.parquet")["id"].to_pylist() == [json.loads(line)["id"] for line in lines]
    assert await shown("docs/export.md", "batches")(nex) == 12
    assert sum(await shown("docs/export.md", "parts")(nex)) == 12
    assert await asyncio.to_thread(shown("docs/export.md", "elsewhere"), Partition("object", "person", 2, 5)) == 3


async def test_the_mirror_page_runs(nex: Nex, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks copy, read the copy, and keep it in step."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        await nex.records.create("company", {"name": f"C{number}", "industry": "x"})
    await shown("docs/mirror.md", "once")(nex)
    await output.says("3 new, 0 changed, 0 deleted")
    shown("docs/mirror.md", "look")()
    await output.says("('x', 3)")
    async with playing(shown("docs/mirror.md", "keep")(nex)):
        await output.says("looked")
