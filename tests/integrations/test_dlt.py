"""Nex as a source of dlt, into a real DuckDB file: everything once, then what changed, and nothing lost on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
dlt: Any = pytest.importorskip("dlt", reason="pip install 'nex-async[dlt]' 'dlt[duckdb]'")
pytest.importorskip("duckdb", reason="pip install 'dlt[duckdb]'")

from nex_async import ConfigError, InvalidRequestError, blocking  # noqa: E402
from nex_async.config import Secret  # noqa: E402
from nex_async.errors import DecodeError, NotFoundError, PermissionDeniedError, ServerError, SourceChanged, TenantMismatch  # noqa: E402
from nex_async.integrations import dlt as integration  # noqa: E402
from nex_async.integrations.dlt import nex_source  # noqa: E402
from nex_async.testing import EmulatorThread  # noqa: E402

from ..harness.canary import KEY, SECRET  # noqa: E402

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorThread]:
    """An embedded Nex whose time stands at noon; a client finds it by the environment."""
    with EmulatorThread(keys={KEY: None}) as emulator:
        emulator.clock.freeze(NOON)
        monkeypatch.setenv("NEX_API_KEY", KEY)
        monkeypatch.setenv("NEX_API_BASE_URL", emulator.url)
        yield emulator


class World:
    """A place with a DuckDB file and a pipeline's working directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / "work"

    def pipeline(self, work: str = "work") -> Any:
        """Return the pipeline as a process that starts now finds it."""
        target = dlt.destinations.duckdb(str(self.path / "warehouse.duckdb"))
        return dlt.pipeline("crm", pipelines_dir=str(self.path / work), destination=target, dataset_name="nex")

    def run(self, source: Any, **options: Any) -> dict[str, int]:
        """Run the pipeline once, and return how many rows each table got."""
        pipeline = self.pipeline()
        pipeline.run(source, **options).raise_on_failed_jobs()
        counts = pipeline.last_trace.last_normalize_info.row_counts
        return {name: count for name, count in counts.items() if not name.startswith("_dlt")}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self.pipeline().sql_client() as client:
            return list(client.execute_sql(sql) or ())

    def names(self, table: str = "person") -> list[str]:
        return sorted(name for (name,) in self.query(f"SELECT name FROM {table}"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def people(*names: str) -> Iterator[dict[str, Any]]:
    return ({"name": name, "email_addresses": [f"{name.lower()}@x.io"]} for name in names)


def rename(server: EmulatorThread, record_id: str, name: str) -> None:
    server.request("PATCH", f"/v1/records/{record_id}", body={"attributes": {"name": name}})


def cause(caught: pytest.ExceptionInfo[BaseException], kind: type[BaseException]) -> BaseException:
    """Return the error of the given kind that dlt wrapped."""
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    assert error is not None, "".join(traceback.format_exception(caught.value))
    return error


# ---- a first run ----------------------------------------------------------------------------------------------------


def test_a_first_run_loads_everything(server: EmulatorThread, world: World) -> None:
    """A table for each object, with every record of it, once."""
    server.seed("person", *people(*(f"P{number:04}" for number in range(1200))))
    server.seed("company", {"name": "X", "domains": ["x.io"]})
    assert world.run(nex_source(["person", "company"], batch_rows=300)) == {"person": 1200, "company": 1}
    assert world.query("SELECT count(*), count(DISTINCT id) FROM person") == [(1200, 1200)]
    assert world.names() == [f"P{number:04}" for number in range(1200)]


def test_without_objects_it_is_all_of_them(server: EmulatorThread) -> None:
    """`nex_source()` has a resource for each object of the workspace."""
    with blocking.Nex() as nex:
        there = {one.slug for one in nex.objects.list()}
    assert set(nex_source().resources) == there


def test_types_come_from_the_definition(server: EmulatorThread, world: World) -> None:
    """Numbers, dates and booleans are columns of their type; values of several, and of several parts, are JSON in a text."""
    with blocking.Nex() as nex:
        nex.objects.create("deal", "Deal")
        for slug, kind, rules in (
            ("title", "text", {}),
            ("score", "number", {}),
            ("seats", "number", {"is_whole_number": True}),
            ("won", "boolean", {}),
            ("closed", "date", {}),
            ("tags", "text", {"is_multi_value": True}),
            ("place", "location", {}),
        ):
            nex.objects.create_attribute("deal", slug, slug.title(), kind, **rules)
        place = {"city": "Alder", "country": "NO"}
        deal = {
            "name": "A press",
            "title": "Press",
            "score": 1.5,
            "seats": 7,
            "won": True,
            "closed": "2026-02-03",
            "tags": ["a", "b"],
            "place": place,
        }
        nex.records.create("deal", deal)
    world.run(nex_source(["deal"]))
    columns = dict(
        world.query(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'deal' AND table_schema = 'nex'"
        )
    )
    stamp = "TIMESTAMP WITH TIME ZONE"
    assert columns == {
        "id": "VARCHAR", "object_id": "VARCHAR", "type": "VARCHAR", "created_at": stamp, "updated_at": stamp, "name": "VARCHAR",
        "title": "VARCHAR", "score": "DOUBLE", "seats": "BIGINT", "won": "BOOLEAN", "closed": stamp, "tags": "VARCHAR",
        "place": "VARCHAR", "_extra": "VARCHAR",
    }  # fmt: skip
    [(title, score, seats, won, closed, tags, city)] = world.query(
        "SELECT title, score, seats, won, closed, tags, place->>'city' FROM deal"
    )
    assert (title, score, seats, won, json.loads(tags), city) == ("Press", 1.5, 7, True, ["a", "b"], "Alder")
    assert closed.date().isoformat() == "2026-02-03"


def test_typed_values_are_the_same(server: EmulatorThread, world: World) -> None:
    """Where the server sends value objects, the columns hold what they hold for plain values."""
    server.seed("person", *people("Ada"))
    server.switches.set(attribute_encoding="typed")
    world.run(nex_source(["person"]))
    assert world.query("SELECT email_addresses FROM person") == [('["ada@x.io"]',)]


def test_an_empty_object_is_an_empty_table(server: EmulatorThread, world: World) -> None:
    """The table is there, with the columns of the definition."""
    world.run(nex_source(["person"]))
    assert world.query("SELECT id, job_title FROM person") == []


def test_the_schema_says_what_attributes_are_called(server: EmulatorThread, world: World) -> None:
    """Keys, dispositions and the names of attributes stand in dlt's schema."""
    world.run(nex_source(["person"]))
    table = world.pipeline().default_schema.tables["person"]
    assert table["write_disposition"] == "merge"
    assert table["columns"]["id"]["primary_key"]
    assert table["columns"]["updated_at"]["dedup_sort"] == "desc"
    assert table["columns"]["job_title"]["description"] == "Job title"


# ---- what changed ---------------------------------------------------------------------------------------------------


def test_a_second_run_loads_what_changed(server: EmulatorThread, world: World) -> None:
    """Changed and new records come, and those within the overlap again; older ones are not even asked for."""
    old = server.seed("person", *people(*(f"P{number:04}" for number in range(1500))))
    server.clock.advance(HOUR)
    server.seed("person", *people("Late"))
    world.run(nex_source(["person"]))
    server.clock.advance(HOUR)
    rename(server, old[700].id, "Changed")
    server.seed("person", *people("New"))
    server.requests.clear()
    assert world.run(nex_source(["person"], overlap=timedelta(minutes=5))) == {"person": 3}
    assert server.requests.count("listRecords") == 1
    assert world.query("SELECT count(*), count(DISTINCT id) FROM person") == [(1502, 1502)]
    assert world.query(f"SELECT name FROM person WHERE id = '{old[700].id}'") == [("Changed",)]
    assert {"New", "Late", "P0699"} < set(world.names())
    assert "P0700" not in world.names()


def test_a_run_without_changes_adds_nothing(server: EmulatorThread, world: World) -> None:
    """The overlap comes again and changes nothing, run after run."""
    server.seed("person", *people("Ada", "Bo"))
    for _ in range(3):
        world.run(nex_source(["person"]))
    assert world.names() == ["Ada", "Bo"]


def test_equal_timestamps_at_the_boundary(server: EmulatorThread, world: World) -> None:
    """Without an overlap, a record that got the very timestamp of the newest one after the run still comes."""
    server.seed("person", *people("Ada"))
    world.run(nex_source(["person"], overlap=timedelta(0)))
    server.seed("person", *people("Bo"))
    world.run(nex_source(["person"], overlap=timedelta(0)))
    assert world.names() == ["Ada", "Bo"]


def test_a_change_that_shows_late(server: EmulatorThread, world: World) -> None:
    """A record that comes to light with a time before the newest one seen is found within the overlap, and not beyond it."""
    server.seed("person", *people("Ada"))
    world.run(nex_source(["person"]))
    server.clock.freeze(NOON - timedelta(minutes=4))
    server.seed("person", *people("Bo"))
    server.clock.freeze(NOON - timedelta(minutes=6))
    server.seed("person", *people("Cy"))
    world.run(nex_source(["person"], overlap=timedelta(minutes=5)))
    assert world.names() == ["Ada", "Bo"]
    world.run(nex_source(["person"], overlap=timedelta(minutes=7)))
    assert world.names() == ["Ada", "Bo", "Cy"]


def test_nanoseconds_do_not_hide_a_change(server: EmulatorThread, world: World) -> None:
    """Timestamps of nine digits are cut to six, and the boundary still includes its own moment."""
    server.switches.set(timestamps="nanoseconds")
    server.seed("person", *people("Ada"))
    world.run(nex_source(["person"], overlap=timedelta(0)))
    server.seed("person", *people("Bo"))
    world.run(nex_source(["person"], overlap=timedelta(0)))
    assert world.names() == ["Ada", "Bo"]


def test_what_changes_while_it_is_read_comes_with_the_next_run(server: EmulatorThread, world: World) -> None:
    """A record that changes after its page was read is behind no watermark, however long the reading takes."""
    first, *_ = server.seed("person", *people(*(f"P{number}" for number in range(8))))

    def meanwhile(table: Any) -> Any:
        if server.clock.now == NOON:
            server.clock.advance(HOUR)
            rename(server, first.id, "Changed")
            server.clock.advance(HOUR)
            server.seed("person", *people("Last"))
        return table

    source = nex_source(["person"], page_size=2, batch_rows=2, window=1)
    source.resources["person"].add_map(meanwhile)
    world.run(source)
    world.run(nex_source(["person"]))
    assert world.query(f"SELECT name FROM person WHERE id = '{first.id}'") == [("Changed",)]


def test_a_future_timestamp_does_not_end_the_changes(server: EmulatorThread, world: World) -> None:
    """One record from the far future must not hide all changes until then."""
    server.clock.freeze(datetime(2199, 1, 1, tzinfo=timezone.utc))
    server.seed("person", *people("Future"))
    server.clock.reset()
    world.run(nex_source(["person"]))
    server.seed("person", *people("Ada"))
    world.run(nex_source(["person"]))
    assert world.names() == ["Ada", "Future"]


def test_deleted_records_go_with_a_full_refresh(server: EmulatorThread, world: World) -> None:
    """An incremental run cannot see a deletion; `write_disposition="replace"` reads all anew, and later runs go on from it."""
    ada, _ = server.seed("person", *people("Ada", "Bo"))
    world.run(nex_source(["person"]))
    server.request("DELETE", f"/v1/records/{ada.id}")
    server.clock.advance(HOUR)
    world.run(nex_source(["person"]))
    assert world.names() == ["Ada", "Bo"]
    assert world.run(nex_source(["person"]), write_disposition="replace") == {"person": 1}
    assert world.names() == ["Bo"]
    server.clock.advance(HOUR)
    server.seed("person", *people("Cy"))
    assert world.run(nex_source(["person"])) == {"person": 2}, "Bo lies within the overlap"
    assert world.names() == ["Bo", "Cy"]


def test_a_shrinking_listing_is_read_again(server: EmulatorThread, world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Where deletions pushed a record past the reader, the next run reads everything, and says so before."""
    first, *_ = server.seed("person", *people(*(f"P{number}" for number in range(8))))
    server.clock.advance(HOUR)
    server.seed("person", *people("P8"))
    deleted: list[Any] = []

    def meanwhile(table: Any) -> Any:
        if not deleted:
            deleted.append(server.request("DELETE", f"/v1/records/{first.id}"))
        return table

    source = nex_source(["person"], page_size=2, batch_rows=2, window=1)
    source.resources["person"].add_map(meanwhile)
    assert world.run(source) == {"person": 8}, "one was skipped"
    assert "the next run reads all again" in caplog.text
    world.run(nex_source(["person"]))
    assert world.names() == [f"P{number}" for number in range(9)]  # P0 is deleted, which no run can see


def test_a_source_may_be_run_again(server: EmulatorThread, world: World) -> None:
    """One source object serves several runs, as every source of dlt does."""
    source = nex_source(["person"])
    server.seed("person", *people("Ada"))
    world.run(source)
    server.clock.advance(HOUR)
    server.seed("person", *people("Bo"))
    assert world.run(source) == {"person": 2}, "Ada lies within the overlap"
    assert world.names() == ["Ada", "Bo"]


def test_a_cut_run_moves_no_watermark(server: EmulatorThread, world: World) -> None:
    """A run that was limited to its first table leaves the rest to the next one."""
    server.seed("person", *people(*(f"P{number}" for number in range(6))))
    server.clock.advance(HOUR)
    server.seed("person", *people("P6"))
    source = nex_source(["person"], page_size=2, batch_rows=2, window=1)
    world.run(source.add_limit(1))
    assert len(world.names()) < 7
    world.run(nex_source(["person"]))
    assert len(world.names()) == 7


# ---- crashes and faults ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")  # dlt tells of what is pending so
@pytest.mark.parametrize("survives", [True, False], ids=["the directory survives", "the directory is lost"])
def test_a_crash_between_extract_and_load(server: EmulatorThread, world: World, survives: bool) -> None:
    """What was extracted and not loaded is loaded by the next run, or read again."""
    ada, _ = server.seed("person", *people("Ada", "Bo"))
    world.run(nex_source(["person"]))
    server.clock.advance(HOUR)
    rename(server, ada.id, "Ada Park")
    pipeline = world.pipeline()
    pipeline.extract(nex_source(["person"]))
    pipeline.normalize()
    work = "work" if survives else "elsewhere"
    server.clock.advance(HOUR)
    server.seed("person", *people("Cy"))
    world.pipeline(work).run(nex_source(["person"]))
    if survives:
        assert world.names() == ["Ada Park", "Bo"], "dlt loads what is pending first, and alone"
        world.pipeline(work).run(nex_source(["person"]))
    assert world.names() == ["Ada Park", "Bo", "Cy"]


def test_passing_faults_are_waited_out(server: EmulatorThread, world: World) -> None:
    """503s and a cut body in the middle of a reading cost no row and double none."""
    server.seed("person", *people(*(f"P{number:02}" for number in range(60))))
    server.faults.add(kind="status", route="listRecords", status=503, after=2, times=2)
    server.faults.add(kind="cut_body", route="listRecords", after=4, times=1)
    world.run(nex_source(["person"], page_size=10))
    assert world.query("SELECT count(*), count(DISTINCT id) FROM person") == [(60, 60)]
    assert {request.status for request in server.requests} >= {200, 503}


def test_a_lasting_fault_loads_nothing_and_loses_nothing(server: EmulatorThread, world: World) -> None:
    """The run fails with the server's words, no table is half there, and the next run loads all."""
    server.seed("person", *people(*(f"P{number:02}" for number in range(60))))
    server.faults.add(kind="status", route="listRecords", status=503, after=3)
    with pytest.raises(Exception, match="503") as caught:
        world.run(nex_source(["person"], page_size=10, batch_rows=10, retries=0))
    cause(caught, ServerError)
    server.faults.clear()
    world.run(nex_source(["person"]))
    assert len(world.names()) == 60


def test_one_resource_that_fails_ends_the_others(server: EmulatorThread, world: World) -> None:
    """The error is told once, nothing is loaded, and no reader goes on behind it."""
    server.seed("person", *people(*(f"P{number:03}" for number in range(200))))
    server.request("POST", "/v1/objects", body={"name": "Deal", "slug": "deal"})
    source = nex_source(["person", "deal"], page_size=2, batch_rows=2)
    server.request("DELETE", "/v1/objects/deal")
    server.switches.set(latency=0.05)
    with pytest.raises(Exception, match="404") as caught:
        world.run(source)
    cause(caught, NotFoundError)
    server.switches.set(latency=0)
    assert world.run(nex_source(["person"])) == {"person": 200}


def bad_page(server: EmulatorThread, after: int) -> None:
    """Have a page hold a row that cannot be decoded, between two good ones."""
    stamp = "2026-03-01T12:00:00Z"
    rows: list[Any] = [
        {"id": one, "created_at": stamp, "updated_at": stamp, "attributes": {"name": name}}
        for one, name in (("1", "Ada"), ("2", "Bo"))
    ]
    body = {"data": [rows[0], {"id": [], "attributes": {}}, rows[1]], "total": 3, "has_more": False}
    server.faults.add(kind="status", route="listRecords", status=200, body=json.dumps(body), after=after, times=1)


@pytest.mark.parametrize("run", ["the first", "the second"])
def test_bad_rows(server: EmulatorThread, world: World, caplog: pytest.LogCaptureFixture, run: str) -> None:
    """A row that cannot be decoded fails the run, or is skipped and counted; the others of its page come."""
    if run == "the second":
        server.seed("person", *people("Cy"))
        world.run(nex_source(["person"]))
    after = 0 if run == "the second" else 1
    bad_page(server, after)
    with pytest.raises(Exception, match="row 1 cannot be used") as caught:
        world.run(nex_source(["person"]))
    cause(caught, DecodeError)
    bad_page(server, after)
    world.run(nex_source(["person"], on_bad_row="skip"))
    assert {"Ada", "Bo"} <= set(world.names())
    assert "person: 1 rows cannot be used" in caplog.text


# ---- schemas --------------------------------------------------------------------------------------------------------


def test_an_attribute_added_between_runs(server: EmulatorThread, world: World) -> None:
    """Its column is added to the table; older rows have none of it."""
    server.seed("person", *people("Ada"))
    world.run(nex_source(["person"]))
    with blocking.Nex() as nex:
        nex.objects.create_attribute("person", "shoe_size", "Shoe size", "number")
    server.clock.advance(HOUR)
    server.seed("person", {"name": "Bo", "shoe_size": 42.5})
    world.run(nex_source(["person"]))
    assert world.query("SELECT name, shoe_size FROM person ORDER BY name") == [("Ada", None), ("Bo", 42.5)]


@pytest.mark.parametrize("disposition", ["merge", "replace"])
def test_a_column_keeps_its_type(server: EmulatorThread, world: World, disposition: str) -> None:
    """Fractions that come to be allowed are not cut off by a column of whole numbers: they are in `_extra`, until a refresh."""
    with blocking.Nex() as nex:
        seats = nex.objects.create_attribute("person", "seats", "Seats", "number", is_whole_number=True)
        server.seed("person", {"name": "Ada", "seats": 4})
        world.run(nex_source(["person"]))
        nex.objects.update_attribute("person", seats.id, is_whole_number=False)
    server.clock.advance(HOUR)
    server.seed("person", {"name": "Bo", "seats": 4.5})
    for _ in range(2):
        world.run(nex_source(["person"]), write_disposition=disposition)
        rows = world.query("SELECT name, seats, _extra FROM person ORDER BY name")
        assert rows == [("Ada", 4, None), ("Bo", None, '{"seats":4.5}')]
    world.run(nex_source(["person"]), refresh="drop_resources")
    assert world.query("SELECT name, seats, _extra FROM person ORDER BY name") == [("Ada", 4.0, None), ("Bo", 4.5, None)]


def test_an_attribute_added_while_it_is_read(server: EmulatorThread, world: World) -> None:
    """The run fails, names the attribute, and loads nothing; the next one has it."""
    server.seed("person", *people("Ada"))

    def meanwhile(table: Any) -> Any:
        attribute = {"name": "Shoe size", "type": "number", "slug": "shoe_size"}
        server.request("POST", "/v1/objects/person/attributes", body=attribute)
        return table

    source = nex_source(["person"])
    source.resources["person"].add_map(meanwhile)
    with pytest.raises(Exception, match=r"changed while it was read \(shoe_size\)") as caught:
        world.run(source)
    cause(caught, SourceChanged)
    assert world.run(nex_source(["person"])) == {"person": 1}


def test_another_workspace_is_refused(server: EmulatorThread, world: World) -> None:
    """A pipeline that has loaded one workspace does not take a second one's watermark from it."""
    server.seed("person", *people("Ada"))
    world.run(nex_source(["person"]))
    server.clock.advance(HOUR)
    with EmulatorThread(keys={KEY: None}) as other, pytest.raises(Exception, match="another workspace's") as caught:
        other.seed("person", *people("Eve"))
        world.run(nex_source(["person"], base_url=other.url))
    cause(caught, TenantMismatch)
    assert world.names() == ["Ada"]


# ---- lists ----------------------------------------------------------------------------------------------------------


def test_a_list_has_its_members_and_no_others(server: EmulatorThread, world: World) -> None:
    """Members come with their records' attributes and the list's own; who left the list is gone with the next run."""
    ada, bo = server.seed("person", *people("Ada", "Bo"))
    made = server.request("POST", "/v1/objects/person/lists", body={"name": "VIPs", "slug": "vips"})
    for one in (ada, bo):
        server.request("POST", f"/v1/lists/{made['id']}", body={"parent_id": one.id})
    assert world.run(nex_source([], [made["id"]])) == {"list_vips": 2}
    assert world.names("list_vips") == ["Ada", "Bo"]
    rename(server, ada.id, "Ada Park")
    server.request("DELETE", f"/v1/lists/{made['id']}/records/{bo.id}")
    assert world.run(nex_source([], [made["id"]])) == {"list_vips": 1}
    assert world.names("list_vips") == ["Ada Park"]


# ---- insights -------------------------------------------------------------------------------------------------------


def tell(server: EmulatorThread, *texts: str) -> None:
    for text in texts:
        server.request("POST", "/v1/context/text", body={"content": text})
        server.clock.advance(1)


def contents(world: World) -> list[str]:
    return sorted(text for (text,) in world.query("SELECT content FROM insights"))


@pytest.mark.parametrize("shape", ["simple", "enriched"])
def test_insights_by_windows_of_time(server: EmulatorThread, world: World, shape: str) -> None:
    """All insights come, more than one reply holds; the next run asks from the newest on, less the overlap, and none is double."""
    server.switches.set(insights_rest=shape)
    tell(server, *(f"Ada of company {number} asked for a demo." for number in range(130)))
    loaded = world.run(nex_source([], insights=True))["insights"]
    assert loaded >= 130
    found = contents(world)
    assert len(found) == loaded
    server.clock.advance(3 * HOUR)
    tell(server, "Bo signed the contract.")
    server.requests.clear()
    assert world.run(nex_source([], insights=True))["insights"] < 10 + loaded
    assert len(contents(world)) == len(found) + 1
    assert "Bo signed the contract." in contents(world)


def test_an_old_insight_is_not_read_again(server: EmulatorThread, world: World) -> None:
    """Beyond the overlap, the second run reads nothing."""
    tell(server, "Ada asked for a demo.")
    world.run(nex_source([], insights=True))
    server.clock.advance(3 * HOUR)
    tell(server, "Bo signed the contract.")
    world.run(nex_source([], insights=True))
    assert world.run(nex_source([], insights=True))["insights"] == 1


def test_an_insight_that_shows_late(server: EmulatorThread, world: World) -> None:
    """One that comes to light with a time before the newest one seen is found within the overlap, and not beyond it."""
    tell(server, "Ada asked for a demo.")
    world.run(nex_source([], insights=True))
    for minutes, text in ((119, "Bo signed the contract."), (122, "Cy sent an invoice.")):
        server.clock.freeze(NOON - timedelta(minutes=minutes))
        tell(server, text)
    world.run(nex_source([], insights=True))
    assert contents(world) == ["Ada asked for a demo.", "Bo signed the contract."]


def test_the_insights_of_another_workspace_are_refused(server: EmulatorThread, world: World) -> None:
    """Where insights tell whose they are, a pipeline takes no second workspace's."""
    tell(server, "Ada asked for a demo.")
    world.run(nex_source([], insights=True))
    with EmulatorThread(keys={KEY: None}) as other:
        tell(other, "Eve asked for a demo.")
        with pytest.raises(Exception, match="the insights of another workspace") as caught:
            world.run(nex_source([], insights=True, base_url=other.url))
    cause(caught, TenantMismatch)


# ---- the key --------------------------------------------------------------------------------------------------------


def everything_below(path: Path) -> Iterator[tuple[Path, bytes]]:
    for one in path.rglob("*"):
        if one.is_file():
            yield one, one.read_bytes()


@pytest.mark.parametrize("way", ["environment", "text", "secret", "function", "file"])
def test_the_key_is_nowhere(
    server: EmulatorThread, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    """Not in the working directory with its state, schemas, packages and traces, and not in the database; also when a run fails."""
    given: dict[str, Any] = {
        "environment": {},
        "text": {"api_key": KEY},
        "secret": {"api_key": Secret(KEY)},
        "function": {"api_key": lambda: KEY},
        "file": {},
    }[way]
    if way != "environment":
        monkeypatch.delenv("NEX_API_KEY")
    if way == "file":
        home = tmp_path_factory.mktemp("home")
        (home / "config.json").write_text(json.dumps({"api_key": KEY}))
        (home / "config.json").chmod(0o600)
        monkeypatch.setenv("NEX_BASE_DIR", str(home))
    server.seed("person", *people("Ada"))
    tell(server, "Ada asked for a demo.")
    source = nex_source(["person"], insights=True, **given)
    assert SECRET not in repr(source) + str(source.schema.to_pretty_yaml())
    world.run(source)
    server.faults.add(kind="status", route="listRecords", status=401)
    with pytest.raises(Exception, match="401") as caught:
        world.run(source)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    kept = dict(everything_below(world.path))
    assert any(path.name == "warehouse.duckdb" for path in kept)
    assert any(path.name == "state.json" for path in kept)
    assert [path for path, content in kept.items() if SECRET.encode() in content] == []


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key there is one clear error, before anything is sent."""
    with pytest.raises(ConfigError, match="NEX_API_KEY"):
        nex_source(["person"])


def test_an_unknown_object(server: EmulatorThread) -> None:
    """The error names the object, and those there are."""
    with pytest.raises(InvalidRequestError, match=r"there is no object 'persn'; there are: .*person"):
        nex_source(["persn"])


def test_an_unknown_list(server: EmulatorThread) -> None:
    """The error names the list."""
    with pytest.raises(InvalidRequestError, match="there is no list '77'"):
        nex_source([], [77])


def test_a_key_that_may_not_read_definitions(server: EmulatorThread) -> None:
    """The error names the scope."""
    server.keys["sk-narrow"] = frozenset({"record.read"})
    with pytest.raises(PermissionDeniedError, match=r"object\.read"):
        nex_source(["person"], api_key="sk-narrow")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objects": "person"}, "objects must be a sequence"),
        ({"objects": [""]}, "not blank"),
        ({"objects": ["person"], "overlap": timedelta(-1)}, "overlap must be a timedelta"),
        ({"objects": ["person"], "overlap": 300}, "overlap must be a timedelta"),
        ({"insights_start": datetime(2026, 1, 1)}, "insights_start must be an aware datetime"),
        ({"on_bad_row": "ignore"}, "on_bad_row must be"),
        ({"window": 0}, "window takes 1 to 256"),
        ({"page_size": 1}, "page_size must be an integer"),
        ({"batch_rows": True}, "batch_rows must be an integer"),
        ({"structured": "xml"}, "structured must be"),
    ],
)
def test_arguments_that_cannot_be_right(server: EmulatorThread, arguments: dict[str, Any], message: str) -> None:
    """They are refused before anything is sent."""
    with pytest.raises(InvalidRequestError, match=message):
        nex_source(**arguments)
    assert list(server.requests) == []


@pytest.mark.parametrize("missing", ["dlt", "pyarrow"])
def test_without_its_packages(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """The error says what to install."""
    found: Callable[..., Any] = integration.need.__globals__["importlib"].util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == missing else found(name, *rest))
    with pytest.raises(InvalidRequestError, match=rf'needs {missing}: pip install "nex-async\[dlt\]"'):
        nex_source(["person"])


# ---- what it brings along -------------------------------------------------------------------------------------------

_ALONE = """
    import os, socket, sys

    os.environ.pop("RUNTIME__DLTHUB_TELEMETRY", None)
    import nex_async.integrations.dlt
    print(sorted({"dlt", "pyarrow"} & set(sys.modules)))
    reached = []

    def watch(event, details):
        if event in ("socket.connect", "socket.getaddrinfo"):
            reached.append(str(details[1][0] if event == "socket.connect" else details[0]))

    sys.addaudithook(watch)
    import dlt
    from nex_async.integrations.dlt import nex_source

    target = dlt.destinations.duckdb("warehouse.duckdb")
    pipeline = dlt.pipeline("crm", pipelines_dir=".", destination=target, dataset_name="nex")
    pipeline.run(nex_source(["person"], insights=True))
    from dlt.common.runtime import anon_tracker
    print(anon_tracker._ANON_TRACKER_ENDPOINT, sorted(set(reached)))
"""


def test_nothing_but_nex_is_called(server: EmulatorThread, tmp_path: Path) -> None:
    """The import is light, it turns dlt's telemetry off, and a run reaches no host but the API's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNTIME__")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(_ALONE)],
        capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path, env={**environment, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "None ['127.0.0.1']"]


def test_the_example_runs_as_written(tmp_path: Path) -> None:
    """Twice in the same directory: the second run finds what changed."""
    example = Path(__file__).parents[2] / "examples" / "dlt_to_duckdb.py"
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "Ada Park" in done.stdout
