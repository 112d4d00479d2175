"""Exports: every row once, in every format, whatever happens meanwhile; and an old file stays until the new one is whole."""

from __future__ import annotations

import asyncio
import csv
import errno
import gc
import gzip
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable
from contextlib import aclosing, closing
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from nex_async import Nex
from nex_async.bulk import export as exporting
from nex_async.bulk import sinks
from nex_async.bulk.export import Export
from nex_async.bulk.formats import arrow, files
from nex_async.bulk.formats.columns import Column, fit, select
from nex_async.bulk.partitions import Partition
from nex_async.emulator import Emulator
from nex_async.errors import (
    DecodeError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
    SourceChanged,
    StorageError,
    StorageFull,
    StorageLocked,
)

from .harness.canary import KEY

NAMES = ("out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.csv", "out.csv.gz", "out.sqlite", "out.parquet", "out.arrow")
ATTRIBUTES = {
    "title": ("text", {}), "score": ("number", {}), "seats": ("number", {"is_whole_number": True}),
    "active": ("boolean", {}), "since": ("date", {}), "tags": ("text", {"is_multi_value": True}),
    "contact": ("full_name", {}), "place": ("location", {}), "type": ("text", {}),
}  # fmt: skip


def unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
    return content


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an exported file, whatever its format."""
    kind = path.suffixes[0]
    if kind == ".jsonl":
        return [json.loads(line) for line in unpacked(path).splitlines()]
    if kind == ".csv":
        return list(csv.DictReader(io.StringIO(unpacked(path).decode(), newline="")))
    if kind == ".sqlite":
        with closing(sqlite3.connect(path)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute("SELECT * FROM records ORDER BY rowid")]
    if kind == ".parquet":
        return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]
    return pa.ipc.open_file(path.read_bytes()).read_all().to_pylist()  # type: ignore[no-any-return]


def ids_of(path: Path) -> list[str]:
    return [row["id"] for row in rows_of(path)]


async def people(nex: Nex, count: int) -> list[str]:
    """Create people, and return their ids in the order of the listing."""
    await asyncio.gather(
        *(nex.records.create("person", {"name": f"P {n}", "email_addresses": [f"p{n}@x.io"]}) for n in range(count))
    )
    return [row.id async for row in nex.records.list("person", sort="created_at")]


class Backend:
    """A sender over rows in memory, which answers as a server would, and lets a test change them in between."""

    settings = SimpleNamespace(policy=SimpleNamespace(retries=0), merged=lambda options: None)
    state = SimpleNamespace(place="https://nex.test")

    def __init__(self, rows: list[bytes], attributes: dict[str, tuple[str, dict[str, Any]]] | None = None) -> None:
        self.rows = rows
        self.attributes = attributes
        self.asked: list[int] = []
        self.before: Callable[[int], None] = lambda offset: None

    async def send(self, route: Any, path: Any, query: Any = None, body: Any = None, options: Any = None) -> Any:
        await asyncio.sleep(0)
        if route.method == "GET":
            if self.attributes is None:
                raise PermissionDeniedError("no scope", 403)
            shown = [
                {"id": slug, "slug": slug, "type": kind, "options": rules} for slug, (kind, rules) in self.attributes.items()
            ]
            return route.decode(msgspec.json.encode({"id": "1", "attributes": shown}))
        offset, limit = body["offset"], body["limit"]
        self.asked.append(offset)
        self.before(offset)
        rows = self.rows[offset : offset + limit]
        return route.decode(b'{"data":[%s],"total":%d}' % (b",".join(rows), len(self.rows)))

    def export(
        self, to: Path | None, limit: int = 10, attributes: Any = "all", sort: str = "created_at", **more: Any
    ) -> Export:
        sender: Any = self
        options: Any = more
        return Export(sender, Partition("object", "thing", attributes=attributes, sort=sort, limit=limit), to, options)


def row(number: int, **attributes: Any) -> bytes:
    shown = {"id": f"id{number}", "created_at": "2026-03-01T08:00:00Z", "novel": number, "attributes": attributes}
    return msgspec.json.encode(shown)


# ---- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
async def test_a_file_is_the_listing(nex: Nex, tmp_path: Path, name: str) -> None:
    """Every format holds every row of the listing once, in its order, and nothing is left beside it."""
    ids = await people(nex, 57)
    report = await nex.records.export("person", tmp_path / name, limit=10, window=4)
    assert ids_of(tmp_path / name) == ids
    assert [row.get("attributes", row)["name"] for row in rows_of(tmp_path / name)] == [
        row.text("name") async for row in nex.records.list("person", sort="created_at")
    ]
    assert (report.rows, report.bad_rows, report.bad_rows_path, report.resumed_at) == (57, 0, None, None)
    assert report.bytes == (tmp_path / name).stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
async def test_an_empty_listing_is_a_file(nex: Nex, tmp_path: Path, name: str) -> None:
    """Without rows there is a file all the same, that its format's tools can read."""
    assert (await nex.records.export("person", tmp_path / name)).rows == 0
    assert rows_of(tmp_path / name) == []


async def test_lines_are_the_servers_own(tmp_path: Path) -> None:
    """A line is the row as it was sent: unknown fields, their order, big numbers and all; only line breaks go."""
    rows = [b'{"id":"a","z":12345678901234567890123,"attributes":{"u":"\\u00e9\xc3\xa9"}}', b'{"id":"b",\n "x": 1.50\r\n}']
    rows += [b'{"x":1,"id":7}']
    await Backend(rows).export(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes().split(b"\n") == [rows[0], b'{"id":"b","x":1.50}', rows[2], b""]


VALUES = [
    {"title": "a, \"b\"\r\nc", "score": 1.5, "seats": 3, "active": True, "since": "2026-03-01", "tags": ["x", "y"],
     "contact": "Ada Park", "place": {"city": "Alder"}, "type": "gold"},
    {"title": None, "score": 2, "since": "2026-03-01T10:00:00.123456789+02:00", "tags": []},
]  # fmt: skip
TYPED = [
    {"title": {"type": "text", "text": VALUES[0]["title"]}, "score": {"type": "number", "number": 1.5},
     "seats": [{"id": "9", "type": "number", "number": 3}], "active": {"type": "boolean", "boolean": True},
     "since": {"type": "date", "date": "2026-03-01"}, "tags": [{"type": "text", "text": "x"}, {"text": "y"}],
     "contact": {"type": "full_name", "full_name": "Ada Park"}, "place": {"type": "location", "city": "Alder"},
     "type": {"type": "text", "text": "gold"}},
    {"score": {"type": "number", "number": 2}, "since": [{"type": "date", "date": VALUES[1]["since"]}], "tags": []},
]  # fmt: skip


@pytest.mark.parametrize("values", [VALUES, TYPED])
async def test_columns_have_the_types_of_the_definition(tmp_path: Path, values: list[dict[str, Any]]) -> None:
    """Plain, structured and typed values land in the same columns, each of its type; nothing is left over."""
    backend = Backend([row(n, **each) for n, each in enumerate(values)], ATTRIBUTES)
    await backend.export(tmp_path / "out.parquet")
    first, second = rows_of(tmp_path / "out.parquet")
    assert list(first)[:5] == ["id", "object_id", "type", "created_at", "updated_at"]
    assert first["created_at"] == datetime(2026, 3, 1, 8, tzinfo=timezone.utc)
    assert (first["title"], first["score"], first["seats"], first["active"]) == (VALUES[0]["title"], 1.5, 3, True)
    assert (first["since"], first["tags"]) == (datetime(2026, 3, 1, tzinfo=timezone.utc), ["x", "y"])
    assert (first["contact"], first["place"], first["attribute_type"]) == ("Ada Park", '{"city":"Alder"}', "gold")
    assert second["since"] == datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=timezone.utc)
    assert (second["title"], second["score"], second["tags"], second["type"]) == (None, 2.0, [], None)
    assert [first["_extra"], second["_extra"]] == [None, None]
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert [str(schema.field(name).type) for name in ("score", "seats", "active")] == ["double", "int64", "bool"]
    assert str(schema.field("tags").type).startswith("list<")


@pytest.mark.parametrize("values", [VALUES, TYPED])
async def test_text_tables_hold_the_same(tmp_path: Path, values: list[dict[str, Any]]) -> None:
    """CSV and SQLite hold the same columns; several values are JSON, timestamps stand as they were sent."""
    backend = Backend([row(n, **each) for n, each in enumerate(values)], ATTRIBUTES)
    for name in ("out.csv", "out.sqlite"):
        await backend.export(tmp_path / name)
        first, second = rows_of(tmp_path / name)
        assert (first["title"], first["tags"], first["place"]) == (VALUES[0]["title"], '["x","y"]', '{"city":"Alder"}')
        assert (first["since"], second["since"]) == ("2026-03-01", VALUES[1]["since"])
        assert (str(first["score"]), str(first["seats"])) == ("1.5", "3")
        assert str(first["active"]) == {"out.csv": "true", "out.sqlite": "1"}[name]


MISFITS: dict[str, Any] = {
    "title": 5, "score": "high", "seats": 1.5, "active": "yes", "since": "soon", "tags": [1, "x"], "other": {"a": 1},
}  # fmt: skip


@pytest.mark.parametrize("limit", [2, 10])
@pytest.mark.parametrize("name", ["out.csv", "out.sqlite", "out.parquet"])
async def test_what_does_not_fit_is_kept(tmp_path: Path, name: str, limit: int) -> None:
    """A value that does not fit its column, or has none, stands in the last column; the rows around it are as ever."""
    odd = {slug: MISFITS[slug] for slug in MISFITS if name == "out.parquet" or slug != "since"}
    rows = [row(1, title="a"), row(2, **odd), row(3, title="b"), row(4, title=7), row(5, score=2**53 + 1, seats=2**63)]
    await Backend(rows, ATTRIBUTES).export(tmp_path / name, limit)
    found = rows_of(tmp_path / name)
    assert [each["title"] for each in found][::2][:2] == ["a", "b"]
    assert json.loads(found[1]["_extra"]) == odd
    assert json.loads(found[3]["_extra"]) == {"title": 7}
    assert json.loads(found[4]["_extra"]) == {"score": 2**53 + 1, "seats": 2**63}
    assert [bool(each["_extra"]) for each in found] == [False, True, False, True, True]


PLACES: list[tuple[Any, str | None]] = [
    ({"city": "Alder"}, '{"city":"Alder"}'), (None, None), ({}, "{}"), ("Alder", "Alder"), ('a "b"', 'a "b"'), (5, "5"),
    ([{"city": "A"}], '{"city":"A"}'), ({"type": "location", "id": "1", "city": "A"}, '{"city":"A"}'),
]  # fmt: skip


@pytest.mark.parametrize("limit", [1, 2, 8])
@pytest.mark.parametrize("name", ["out.sqlite", "out.parquet"])
async def test_values_of_several_parts(tmp_path: Path, name: str, limit: int) -> None:
    """A structured value is its JSON, a text is a text and an absent one nothing, whatever stands beside it on the page."""
    rows = [row(n, place=place) for n, (place, _) in enumerate(PLACES)]
    rows += [row(8), b'{"id":"id9","attributes":null}', b'{"id":"id10","created_at":"","attributes":{"place":{"city":"Z"}}}']
    await Backend(rows, ATTRIBUTES).export(tmp_path / name, limit)
    found = rows_of(tmp_path / name)
    assert [each["place"] for each in found] == [*(shown for _, shown in PLACES), None, None, '{"city":"Z"}']
    assert [each["id"] for each in found] == [f"id{n}" for n in range(11)]
    assert [each["_extra"] for each in found] == [None] * 11
    assert [each["created_at"] is None for each in found] == [False] * 9 + [True] * 2


@pytest.mark.parametrize("limit", [2, 3])
async def test_timestamps_that_cannot_be_read(tmp_path: Path, limit: int) -> None:
    """They are kept in the last column of their own row, on whatever page; the other columns of a timestamp are untouched."""
    times = ["2026-03-01T08:00:00Z", "soon", "", None, "2026-03-01", "never"]
    rows = [row(n, since=since, other=n) for n, since in enumerate(times)]
    await Backend(rows, ATTRIBUTES).export(tmp_path / "out.parquet", limit)
    found = rows_of(tmp_path / "out.parquet")
    assert [each["since"] and each["since"].day for each in found] == [1, None, None, None, 1, None]
    extra = [json.loads(each["_extra"]) for each in found]
    assert extra == [{"other": n} | ({"since": since} if n in (1, 5) else {}) for n, since in enumerate(times)]
    assert {each["created_at"].hour for each in found} == {8}


async def test_without_the_definition(tmp_path: Path) -> None:
    """A key that may not read definitions gets the columns of the first page; what comes later is kept in the last."""
    rows = [row(n, title=f"t{n}", score=n, tags=["a"]) for n in range(10)] + [row(10, title="t10", late=1)]
    await Backend(rows).export(tmp_path / "out.parquet")
    found = rows_of(tmp_path / "out.parquet")
    assert list(found[0])[5:] == ["title", "score", "tags", "_extra"]
    assert (found[3]["score"], found[3]["tags"], found[10]["_extra"]) == (3.0, ["a"], '{"late":1}')


async def test_the_columns_asked_for(nex: Nex, tmp_path: Path) -> None:
    """Slugs are columns in the order they are named; `none` leaves the record's own."""
    await people(nex, 2)
    await nex.records.export("person", tmp_path / "a.csv", attributes=["email_addresses", "name"])
    assert list(rows_of(tmp_path / "a.csv")[0])[5:] == ["email_addresses", "name", "_extra"]
    await nex.records.export("person", tmp_path / "b.csv", attributes="none")
    assert list(rows_of(tmp_path / "b.csv")[0])[5:] == ["_extra"]
    await nex.records.export("person", tmp_path / "c.csv", attributes="primary")
    assert list(rows_of(tmp_path / "c.csv")[0])[5:] == ["name", "_extra"]


async def test_a_reader_may_want_text(tmp_path: Path) -> None:
    """With `structured="text"` a place reads as people write it."""
    backend = Backend([row(1, place={"city": "Alder", "country": "CH"}, contact={"first_name": "Ada"})], ATTRIBUTES)
    await backend.export(tmp_path / "out.csv", structured="text")
    (found,) = rows_of(tmp_path / "out.csv")
    assert (found["place"], found["contact"]) == ("Alder, CH", "Ada")


async def test_members_of_a_list(nex: Nex, tmp_path: Path) -> None:
    """A list is exported with the attributes of its records, typed by their definition where the object is named."""
    ids = await people(nex, 3)
    made = await nex.lists.create("person", "vip", "VIP")
    for each in ids:
        await nex.lists.add_member(made.id, each)
    for parent in (None, "person"):
        await nex.lists.export(made.id, tmp_path / "out.parquet", parent=parent)
        found = rows_of(tmp_path / "out.parquet")
        assert sorted(each["email_addresses"] for each in found) == [[f"p{n}@x.io"] for n in range(3)]
        assert ("job_title" in found[0]) == (parent is not None)


def test_names_of_columns_differ() -> None:
    """No two columns have one name, even for tools that do not tell small letters from capitals."""
    slugs = ["ID", "Name", "name", "_extra", "attribute_id", "type"]
    names = [each.name for each in select({slug: Column(slug, slug, "text") for slug in slugs}, None)]
    assert names == [
        "attribute_ID",
        "Name",
        "attribute_name",
        "attribute__extra",
        "attribute_attribute_id",
        "attribute_type",
    ]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("text", {"type": "select", "option_id": "7"}, ("7", True)),
        ("text", {"type": "select", "option_id": "7", "name": "Hot"}, ("Hot", False)),
        ("text", ["only"], ("only", True)),
        ("text", ["a", "b"], ("a", False)),
        ("json", {"type": "currency", "id": "1", "value": 1, "currency": "CHF"}, ('{"value":1,"currency":"CHF"}', True)),
        ("json", {"url": "https://x.io"}, ('{"url":"https://x.io"}', True)),
        ("json", 5, ("5", True)),
        ("number", True, (None, False)),
        ("whole", 4.0, (4, True)),
        ("boolean", 1, (None, False)),
        ("time", "", (None, True)),
    ],
)
def test_how_values_fit(kind: Any, value: Any, expected: tuple[Any, bool]) -> None:
    """A value goes into its column whole, or it is said that something is left over."""
    assert fit(Column("x", "x", kind), value) == expected


# ---- Arrow batches --------------------------------------------------------------------------------------------------


async def test_arrow_batches(nex: Nex) -> None:
    """Batches hold every row in order, as many each as asked for; nobody is left behind when the reader stops early."""
    ids = await people(nex, 33)
    batches = [batch async for batch in nex.records.export("person", limit=10).as_arrow(12)]
    assert [batch.num_rows for batch in batches] == [12, 12, 9]
    assert [each for batch in batches for each in batch.column("id").to_pylist()] == ids
    async with aclosing(nex.records.export("person", limit=2).as_arrow(2)) as some:
        async for batch in some:
            assert batch.num_rows == 2
            break


async def test_a_bad_row_in_a_batch() -> None:
    """A row that cannot be decoded raises, or is counted."""
    backend = Backend([row(1), b'{"id":null}', row(3)], {})
    with pytest.raises(DecodeError, match="row 1"):
        _ = [batch async for batch in backend.export(None).as_arrow()]
    for limit in (1, 2, 10):
        export = backend.export(None, limit)
        assert [batch.num_rows async for batch in export.as_arrow(on_bad_row="skip")] == [2]
        assert export.bad_rows == 1
    backend.rows.append(b'{"id":"late","attributes":5}')
    with pytest.raises(DecodeError, match="row 3"):
        _ = [batch async for batch in Backend([row(1), row(2), row(3), backend.rows[3]], {}).export(None).as_arrow()]
    with pytest.raises(InvalidRequestError, match="to="):
        await export


# ---- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
async def test_bad_rows_go_aside(tmp_path: Path, name: str) -> None:
    """A row that cannot be used is kept, bytes and all, in a file beside the export, with its place and its fault."""
    bad = [b'{"id":null,"x":1}', b"17", b'{"id":"u","attributes":{"a":"\xff"}}']
    backend = Backend([row(0), bad[0], row(2), bad[1], bad[2], *(row(n) for n in range(5, 25))], {})
    report = await backend.export(tmp_path / name, limit=4)
    assert ids_of(tmp_path / name) == [f"id{n}" for n in range(25) if n not in (1, 3, 4)]
    assert (report.rows, report.bad_rows, report.bad_rows_path) == (22, 3, tmp_path / f"{name}.bad.jsonl")
    lines = [json.loads(line) for line in (tmp_path / f"{name}.bad.jsonl").read_text().splitlines()]
    assert [line["position"] for line in lines] == [1, 3, 4]
    assert [line.get("raw") for line in lines] == [bad[0].decode(), "17", None]
    assert lines[2]["raw_base64"]
    assert all(line["error"] for line in lines)
    backend.rows = [row(0)]
    assert (await backend.export(tmp_path / name)).bad_rows_path is None
    assert not (tmp_path / f"{name}.bad.jsonl").exists()


async def test_rows_inserted_meanwhile_do_not_double(tmp_path: Path) -> None:
    """Rows that push others onto the next page do not bring them twice, neither within a run nor across two."""
    backend = Backend([row(n) for n in range(40)])
    fresh = iter(range(100, 200))

    def insert(offset: int) -> None:
        if offset in (10, 30):
            backend.rows.insert(0, row(next(fresh)))
        if offset == 30 and not backend.asked.count(0) > 1:
            raise ServerError("down", 500)

    backend.before = insert
    with pytest.raises(ServerError):
        await backend.export(tmp_path / "out.jsonl", sort="-created_at", window=1)
    backend.before = lambda offset: None
    report = await backend.export(tmp_path / "out.jsonl", sort="-created_at", window=1)
    assert report.resumed_at
    assert ids_of(tmp_path / "out.jsonl") == [f"id{n}" for n in range(40)]


async def test_rows_deleted_meanwhile_are_told(tmp_path: Path) -> None:
    """When the listing shrinks while it is read, the report says that rows may be missing."""
    backend = Backend([row(n) for n in range(40)])
    backend.before = lambda offset: backend.rows.__delitem__(0) if offset == 20 else None
    assert (await backend.export(tmp_path / "out.jsonl", window=1)).unstable
    backend.before = lambda offset: None
    assert not (await backend.export(tmp_path / "out.jsonl", window=1)).unstable


async def test_rows_deleted_between_two_runs_are_told(tmp_path: Path) -> None:
    """When the listing shrank before a run goes on, the report says so too."""
    backend = Backend([row(n) for n in range(40)])

    def fail(offset: int) -> None:
        if offset == 20:
            raise ServerError("down", 500)

    backend.before = fail
    with pytest.raises(ServerError):
        await backend.export(tmp_path / "out.jsonl", window=1)
    backend.before = lambda offset: None
    del backend.rows[0]
    report = await backend.export(tmp_path / "out.jsonl", window=1)
    assert (report.resumed_at, report.unstable) == (20, True)


async def test_a_failing_export_harms_nothing(nex: Nex, emulator: Emulator, tmp_path: Path) -> None:
    """The file that was there stays as it was until the new one is whole; an unknown object leaves nothing behind."""
    target = tmp_path / "out.csv"
    target.write_text("precious")
    with pytest.raises(NotFoundError):
        await nex.records.export("nothing", target)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    await people(nex, 20)
    emulator.faults.add(kind="status", route="listRecords", status=403, after=2)
    with pytest.raises(PermissionDeniedError):
        await nex.records.export("person", target, limit=5, window=1)
    assert target.read_text() == "precious"
    emulator.faults.clear()
    with pytest.raises(StorageError, match="overwrite=False"):
        await nex.records.export("person", target, overwrite=False)
    assert (await nex.records.export("person", target, limit=5)).resumed_at
    assert len(rows_of(target)) == 20


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, StorageFull), (errno.EIO, StorageError)])
async def test_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]) -> None:
    """A file that cannot be written ends the run; when there is room again it goes on, and no row is lost or doubled."""
    monkeypatch.setattr(exporting, "_BATCH_ROWS", 10)
    monkeypatch.setattr(sinks, "CHECKPOINT_SECONDS", 0)
    backend = Backend([row(n) for n in range(100)])
    append, count = files.FileSink._append, 0

    def failing(self: files.FileSink, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == 6:
            append(self, data[:100])
            raise OSError(number, os.strerror(number))
        append(self, data)

    monkeypatch.setattr(files.FileSink, "_append", failing)
    with pytest.raises(kind, match=os.strerror(number)) as caught:
        await backend.export(tmp_path / "out.jsonl", window=2)
    assert type(caught.value) is kind
    report = await backend.export(tmp_path / "out.jsonl", window=2)
    assert report.resumed_at == 50
    assert ids_of(tmp_path / "out.jsonl") == [f"id{n}" for n in range(100)]


async def test_a_file_that_cannot_be_written(nex: Nex, emulator: Emulator, tmp_path: Path) -> None:
    """A folder that is not there, a folder in the file's place, or a link beside it end the run before anything is sent."""
    (tmp_path / "folder.csv").mkdir()
    for name in ("missing/out.jsonl", "folder.csv"):
        with pytest.raises(StorageError):
            await nex.records.export("person", tmp_path / name)
    for name in ("linked.jsonl.part", "linked.sqlite.part", "linked.parquet.part.json", "linked.csv.part.lock"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
        with pytest.raises(StorageError, match="symbolic link"):
            await nex.records.export("person", tmp_path / name.partition(".part")[0])
    assert not (tmp_path / "victim").exists()
    assert len(emulator.requests) == 0


async def test_one_export_at_a_time(tmp_path: Path) -> None:
    """A second export to the same file is refused while the first one runs, and harms it in nothing."""
    backend = Backend([row(n) for n in range(60)])
    gate = asyncio.Event()
    send = backend.send

    async def held(*args: Any, **more: Any) -> Any:
        await gate.wait()
        return await send(*args, **more)

    backend.send = held  # type: ignore[method-assign]
    first = asyncio.ensure_future(backend.export(tmp_path / "out.jsonl")._run())
    while not (tmp_path / "out.jsonl.part").exists():
        await asyncio.sleep(0.001)
    with pytest.raises(StorageLocked):
        await backend.export(tmp_path / "out.jsonl")
    gate.set()
    assert (await first).rows == 60
    assert os.listdir(tmp_path) == ["out.jsonl"]


REFUSED: list[tuple[Any, dict[str, Any]]] = [
    ("out", {}), ("out.txt", {}), ("out.jsonl", {"format": "xml"}), ("out.sqlite.gz", {}), ("out.parquet.gz", {}),
    ("out.jsonl", {"compression": "lz4"}), ("out.jsonl.gz", {"compression": "zstd"}), ("out.jsonl", {"level": 3}),
    ("out.jsonl.gz", {"level": 10}), ("out.jsonl", {"window": 0}), ("out.csv", {"structured": "xml"}), (5, {}), ("", {}),
    ("out.csv", {"limit": 0}), ("out.csv", {"sort": ""}), ("out.csv", {"attributes": "some"}), ("out.csv", {"colour": 1}),
    ("out.csv", {"progress": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("to", "options"), REFUSED)
async def test_what_cannot_be_right(nex: Nex, emulator: Emulator, to: Any, options: dict[str, Any]) -> None:
    """An argument that cannot be right is refused at once, before anything is sent or written."""
    with pytest.raises((InvalidRequestError, TypeError)):
        nex.records.export("person", to, **options)
    assert len(emulator.requests) == 0


@pytest.mark.parametrize(("name", "extra"), [("out.parquet", "parquet"), ("out.csv.zst", "zstd")])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str, extra: str) -> None:
    """Without its package, a format says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(InvalidRequestError, match=rf'pip install "nex-async\[{extra}\]"'):
        Backend([]).export(Path(name))


def test_extras_load_when_needed() -> None:
    """Neither pyarrow nor zstandard is loaded before a file needs it."""
    code = "import sys, nex_async.resources.records; print({'pyarrow', 'zstandard'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- going on -------------------------------------------------------------------------------------------------------

_CHILD = """
    import asyncio, sys
    from nex_async import Nex
    from nex_async.bulk import export, sinks
    from nex_async.bulk.formats import arrow

    export._BATCH_ROWS, sinks.CHECKPOINT_SECONDS = 5, 0
    arrow.SEGMENT_ROWS, arrow.GROUP_ROWS = 20, 10
    note = sinks.Desk._note

    def told(desk, *, force):
        note(desk, force=force)
        print(desk.state.rows, flush=True)

    sinks.Desk._note = told

    async def main(key, url, to):
        async with Nex(key, base_url=url) as nex:
            await nex.records.export("person", to, limit=5, window=2)

    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("name", "until"), [(name, 20 + 10 * n) for n, name in enumerate(NAMES) if name != "out.jsonl.zst"])
async def test_kill_9(nex: Nex, emulator: Emulator, tmp_path: Path, name: str, until: int) -> None:
    """Killed at any point, the same call goes on: the file is that of a run that was not."""
    ids = await people(nex, 120)
    emulator.switches.set(latency=0.002)
    command = [sys.executable, "-c", textwrap.dedent(_CHILD), KEY, emulator.url, str(tmp_path / name)]
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    while line := await child.stdout.readline():
        if int(line) >= until:
            break
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    emulator.switches.set(latency=0)
    assert not (tmp_path / name).exists()
    report = await nex.records.export("person", tmp_path / name, limit=7)
    assert report.resumed_at is not None
    assert report.resumed_at >= until - 20
    assert ids_of(tmp_path / name) == ids
    assert report.rows == 120
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", NAMES)
async def test_a_cancelled_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A cancellation ends the run at once, without a task or a thread left, and nothing that was written is read again."""
    monkeypatch.setattr(exporting, "_BATCH_ROWS", 10)
    backend = Backend([row(n) for n in range(200)], {})
    tasks: list[asyncio.Task[Any]] = []
    backend.before = lambda offset: tasks[0].cancel() if offset == 120 else None
    tasks.append(asyncio.ensure_future(backend.export(tmp_path / name, window=3)._run()))
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    backend.before = lambda offset: None
    backend.asked.clear()
    report = await backend.export(tmp_path / name)
    assert report.resumed_at
    assert min(backend.asked) == report.resumed_at
    assert ids_of(tmp_path / name) == [f"id{n}" for n in range(200)]


@pytest.mark.parametrize("name", ["out.jsonl", "out.sqlite"])
async def test_another_export_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What another export left is refused, unless a new one is to begin; what cannot be read begins anew by itself."""
    backend = Backend([row(n) for n in range(50)], {})

    def fail(offset: int) -> None:
        if offset == 30:
            raise ServerError("down", 500)

    backend.before = fail
    with pytest.raises(ServerError):
        await backend.export(tmp_path / name, window=1)
    backend.before = lambda offset: None
    with pytest.raises(SourceChanged, match="sort"):
        await backend.export(tmp_path / name, sort="title")
    report = await backend.export(tmp_path / name, sort="title", resume=False)
    assert (report.resumed_at, report.rows) == (None, 50)
    backend.before = fail
    with pytest.raises(ServerError):
        await backend.export(tmp_path / name, window=1)
    backend.before = lambda offset: None
    (tmp_path / f"{name}.part").write_bytes(b"")
    (tmp_path / f"{name}.part-wal").unlink(missing_ok=True)
    report = await backend.export(tmp_path / name)
    assert (report.resumed_at, report.rows, len(rows_of(tmp_path / name))) == (None, 50, 50)


async def test_segments_become_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long table is written in segments and put together row group by row group."""
    monkeypatch.setattr(arrow, "SEGMENT_ROWS", 40)
    monkeypatch.setattr(arrow, "GROUP_ROWS", 20)
    monkeypatch.setattr(exporting, "_BATCH_ROWS", 20)
    monkeypatch.setattr(sinks, "CHECKPOINT_SECONDS", 0)
    backend = Backend([row(n) for n in range(130)], {})
    for name in ("out.parquet", "out.arrow"):
        await backend.export(tmp_path / name)
        assert ids_of(tmp_path / name) == [f"id{n}" for n in range(130)]
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups > 3
    assert sorted(os.listdir(tmp_path)) == ["out.arrow", "out.parquet"]


async def test_memory_does_not_grow(tmp_path: Path) -> None:
    """Five times the rows need no more memory: of the 20 MB that there are more, next to nothing is held."""
    peaks = []
    for count in (20_000, 100_000):
        backend = Backend([])
        backend.rows = Endless(count)  # type: ignore[assignment]
        gc.collect()
        tracemalloc.start()
        await backend.export(tmp_path / "out.jsonl", limit=1000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4_000_000  # how many pages are held at a moment depends on who is slow


class Endless:
    """Rows that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: slice) -> list[bytes]:
        start, stop, _ = place.indices(self._count)
        return [b'{"id":"%d","attributes":{"text":"%s"}}' % (n, b"x" * 200) for n in range(start, stop)]


async def test_progress_counts_rows(nex: Nex, tmp_path: Path) -> None:
    """The callback hears how many rows there are, and in the end that all are done."""
    await people(nex, 30)
    told: list[Any] = []
    await nex.records.export("person", tmp_path / "out.jsonl", limit=10, progress=told.append)
    assert (told[-1].done, told[-1].total, told[-1].failed, told[-1].eta) == (30, 30, 0, 0.0)
