"""Datasets of records: complete, each once, with the columns of the object; and what is said when that cannot be."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from benchmarks.server import load_server
from nex_async.errors import CheckpointError, ConfigError, InvalidRequestError, NotFoundError
from nex_async.testing import EmulatorThread

from ..harness.canary import KEY
from .conftest import VARIABLE, people, until, working

pytest.importorskip("ray")
from urllib.request import urlopen

from nex_async.integrations.ray import PartitionError, SchemaChanged, read_records, read_workspaces


def ids_of(dataset: Any) -> list[str]:
    return [row["id"] for row in dataset.select_columns(["id"]).take_all()]


def test_200_000_records_by_two_workers(cluster: Any) -> None:
    """A large object is read whole by two workers, each record once."""
    with load_server() as origin:
        urlopen(f"{origin}/control/total/200000").read()
        dataset = read_records("person", partitions=8, key=VARIABLE, base_url=origin, on_change="ignore").materialize()
        assert dataset.count() == 200_000
        assert dataset.num_blocks() == 8
        ids = ids_of(dataset)
    assert len(set(ids)) == 200_000


def test_rows_and_columns(backend: EmulatorThread, options: dict[str, Any]) -> None:
    """The blocks are Arrow tables of one schema: the record's own columns, one for each attribute, and the rest."""
    made = backend.seed("person", *people(500))
    dataset = read_records("person", partitions=5, **options).materialize()
    assert dataset.num_blocks() == 5
    assert sorted(ids_of(dataset)) == sorted(record.id for record in made)
    tables = [cluster_get(ref) for ref in dataset.to_arrow_refs()]
    assert len({table.schema for table in tables}) == 1
    names = tables[0].column_names
    assert names[:5] == ["id", "object_id", "type", "created_at", "updated_at"]
    assert names[-1] == "_extra"
    assert {"name", "email_addresses"} <= set(names)
    first = tables[0].slice(0, 1).to_pylist()[0]
    assert first["email_addresses"] == ["p0@example.org"]
    few = read_records("person", attributes=["email_addresses"], partitions=1, **options)
    assert few.schema().names == [*names[:5], "email_addresses", "_extra"]


def cluster_get(reference: Any) -> Any:
    import ray

    return ray.get(reference)


def test_the_planner_is_told_the_size(backend: EmulatorThread, options: dict[str, Any]) -> None:
    """What Ray's planner hears beforehand is the number of rows, and their size within a third."""
    backend.seed("person", *people(600))
    from nex_async.integrations.ray import reading

    found: list[Any] = []
    real = reading.RecordsDatasource.__init__

    def keep(self: Any, *arguments: Any) -> None:
        found.append(self)
        real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading.RecordsDatasource, "__init__", keep)
        dataset = read_records("person", partitions=3, **options)
    [source] = found
    tasks = source.get_read_tasks(2)
    assert sum(task.metadata.num_rows for task in tasks) == 600
    size = sum(table.nbytes for table in map(cluster_get, dataset.to_arrow_refs()))
    assert source.estimate_inmemory_data_size() == pytest.approx(size, rel=0.34)


def test_a_worker_holds_one_client(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """However many tasks a worker runs, it makes one client, and keeps its connections."""
    backend.seed("person", *people(400))
    dataset = read_records("person", partitions=20, **options)
    assert dataset.count() == 400
    dataset.materialize()
    read_records("person", partitions=20, **options).materialize()

    @cluster.remote
    def clients() -> tuple[int, int, int]:
        from nex_async.integrations.ray.access import _clients

        time.sleep(0.3)
        held = [nex for nex in _clients._clients.values() if nex.base_url == options["base_url"]]
        return os.getpid(), len(held), sum(nex.stats.pool.open or 0 for nex in held)

    found = {pid: (held, connections) for pid, held, connections in cluster.get([clients.remote() for _ in range(6)])}
    assert max(held for held, _ in found.values()) == 1
    assert all(connections <= 9 for _, connections in found.values())


@pytest.mark.parametrize("number", range(10))
def test_a_worker_killed_in_the_middle_of_a_read(
    cluster: Any, backend: EmulatorThread, options: dict[str, Any], number: int
) -> None:
    """SIGKILL at any moment of a partition: the dataset is complete, each record once."""
    made = backend.seed("person", *people(1_000))
    backend.switches.set(latency=0.01)
    dataset = read_records("person", partitions=10, limit=20, window=2, **options)
    backend.requests.clear()
    killed = []

    def kill() -> None:
        until(lambda: backend.requests.count("listRecords") > 2 + 4 * number)
        victims = [pid for pid in working() if pid not in killed]
        if victims:
            killed.append(victims[number % len(victims)])
            os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    ids = ids_of(dataset)
    killer.join()
    assert killed
    assert sorted(ids) == sorted(record.id for record in made)


def test_a_partition_that_fails_for_good_is_named(backend: EmulatorThread, options: dict[str, Any]) -> None:
    """What no retry mends ends the read with an error that names the partition, the rows, the node and the cause."""
    backend.seed("person", *people(300))
    dataset = read_records("person", partitions=3, **options)
    backend.faults.add(kind="status", status=400, route="listRecords", after=1, times=None)
    with pytest.raises(PartitionError, match=r"partition \d of 3 of person \(rows \d+ to .*failed on node \w+: BadRequest"):
        consume(dataset)


def consume(dataset: Any) -> Any:
    from nex_async.integrations.ray.failures import reraise

    try:
        return dataset.materialize()
    except Exception as error:
        reraise(error)


def test_an_object_that_changes_while_it_is_read(backend: EmulatorThread, options: dict[str, Any]) -> None:
    """An attribute that comes while the object is read fails the partition that saw it, with its name; unless ignored."""
    backend.seed("person", *people(40))
    dataset = read_records("person", partitions=2, **options)
    other = read_records("person", partitions=2, on_change="ignore", **options)
    backend.request(
        "POST", "/v1/objects/person/attributes", body={"name": "Shoe Size", "slug": "shoe_size", "type": "number"}
    )
    with pytest.raises(SchemaChanged, match=r"partition \d of 2 .*person changed while it was read \(shoe_size was added\)"):
        consume(dataset)
    assert other.count() == 40


def test_many_workspaces(cluster: Any, backend: EmulatorThread) -> None:
    """Each workspace's rows come under its name, read with its own key, which only the workers know."""
    names = [f"team-{number}" for number in range(12)]
    with EmulatorThread(keys={f"sk-tenant-{name}-0123456789": None for name in names}) as other:
        other.seed("person", *people(30))
        backend.seed("person", *people(7, start=100))
        keys = {name: KeyOf(name) for name in names}
        dataset = read_workspaces(keys, "person", base_url=other.url).materialize()
        counts = dict.fromkeys(names, 0)
        for row in dataset.take_all():
            counts[row["workspace"]] += 1
        assert counts == dict.fromkeys(names, 30)
        assert dataset.schema().names[:2] == ["workspace", "id"]


class KeyOf:
    """Finds the key of a workspace on the worker, as a secrets manager would."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self) -> str:
        return f"sk-tenant-{self._name}-0123456789"


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_second_run_reads_what_the_first_did_not(backend: EmulatorThread, options: dict[str, Any], tmp_path: Any) -> None:
    """With a checkpoint, a run that failed is gone on with: finished partitions are not asked for again."""
    made = backend.seed("person", *people(500))
    options["checkpoint"] = tmp_path / "read"
    dataset = read_records("person", partitions=5, limit=50, window=1, concurrency=1, **options)
    backend.faults.add(kind="status", status=400, route="listRecords", after=5, times=None)
    with pytest.raises(PartitionError):
        consume(dataset)
    backend.faults.clear()
    done = len(list((tmp_path / "read").glob("person-*.parquet")))
    assert 1 <= done <= 3
    backend.seed("person", *people(50, start=500))
    backend.requests.clear()
    again = read_records("person", partitions=9, limit=50, window=1, **options)
    rows = again.take_all()
    assert {record.id for record in made} < {row["id"] for row in rows}
    assert len({row["id"] for row in rows}) == len(rows) == 550
    pages = backend.requests.count("listRecords")
    assert pages <= 2 + (5 - done) * 2 + 1 + 2
    backend.requests.clear()
    assert len(read_records("person", **options).take_all()) == 550
    assert backend.requests.count("listRecords") == 2, "the survey alone"


def test_a_checkpoint_belongs_to_one_read(backend: EmulatorThread, options: dict[str, Any], tmp_path: Any) -> None:
    """A folder of another object, or of another workspace, is refused before anything is read."""
    backend.seed("person", *people(5))
    options["checkpoint"] = tmp_path
    read_records("person", partitions=1, **options)
    with pytest.raises(CheckpointError, match="another read, or for another workspace"):
        read_records("company", partitions=1, **options)
    with EmulatorThread(keys={KEY: None}) as other, pytest.raises(CheckpointError, match="another workspace"):
        read_records("person", partitions=1, **{**options, "base_url": other.url})


# ---- what cannot be right -------------------------------------------------------------------------------------------


def test_a_cluster_without_keys(backend: EmulatorThread, options: dict[str, Any]) -> None:
    """Where a worker finds no key, the error names the node and the variable."""
    options["key"] = "NO_SUCH_VARIABLE"
    with pytest.raises(ConfigError, match=r"no API key on node \w+: the environment variable NO_SUCH_VARIABLE is not set"):
        read_records("person", **options)


def test_a_key_source_that_fails(backend: EmulatorThread, options: dict[str, Any]) -> None:
    """A function that raises is told by the name of its error, not by its text, which may hold the key."""

    def broken() -> str:
        raise ValueError(KEY)

    options["key"] = broken
    with pytest.raises(ConfigError, match=r"key= raised ValueError") as caught:
        read_records("person", **options)
    assert KEY not in str(caught.value)


def test_another_version(backend: EmulatorThread, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with another version of the package says both, and what to do."""
    from nex_async.integrations.ray import access

    monkeypatch.setattr(access, "__version__", "0.0.1")
    with pytest.raises(ConfigError, match=r"node \w+ has nex-async \S+, and the driver 0\.0\.1: install one version"):
        read_records("person", **options)


def test_no_such_object(backend: EmulatorThread, options: dict[str, Any]) -> None:
    """What the server refuses comes to the driver as it is anywhere else."""
    with pytest.raises(NotFoundError):
        read_records("no_such_object", **options)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"key": "sk-0123456789abcdef"}, "key"),
        ({"key": "nex_dev_0123456789abcdef"}, "key"),
        ({"key": 5}, "key"),
        ({"partitions": 0}, "partitions"),
        ({"window": 0}, "window"),
        ({"limit": 0}, "limit"),
        ({"on_change": "warn"}, "on_change"),
        ({"on_bad_row": "drop"}, "on_bad_row"),
        ({"sort": ""}, "sort"),
        ({"structured": "xml"}, "structured"),
        ({"budget": 5}, "budget"),
        ({"max_connections": 0}, "max_connections"),
        ({"concurrency": 0}, "concurrency"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_arguments(options: dict[str, Any], arguments: dict[str, Any], named: str) -> None:
    """An argument that cannot be right is refused by its name, before any task is started; a key is not repeated."""
    with pytest.raises(InvalidRequestError) as caught:
        read_records("person", **{**options, **arguments})
    assert caught.value.argument == named
    assert "0123456789" not in str(caught.value)
