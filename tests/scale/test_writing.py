"""Datasets into records: each row takes effect once, whatever dies; and what became of each is told."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from nex_async.errors import InvalidRequestError
from nex_async.testing import EmulatorThread

from ..harness.canary import KEY
from .conftest import people, until, working

pytest.importorskip("ray")

from nex_async.integrations.ray import (
    PartitionError,
    RecordsDatasink,
    ask_many,
    ingest_texts,
    write_records,
)


def stored(backend: EmulatorThread, slug: str = "person") -> list[dict[str, Any]]:
    """Return all records as the server has them."""
    found: list[dict[str, Any]] = []
    while True:
        body = {"limit": 500, "offset": len(found), "attributes": "all"}
        page = backend.request("POST", f"/v1/objects/{slug}/records", body=body)["data"]
        found += page
        if not page:
            return found


def addresses(backend: EmulatorThread) -> list[str]:
    return sorted(record["attributes"]["email_addresses"][0] for record in stored(backend))


def test_20_000_rows_by_two_workers(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """A dataset is written whole by two workers: a record for each row, and an outcome."""
    rows = cluster.data.from_items(people(20_000), override_num_blocks=8)
    done = write_records(rows, "person", match_on="email_addresses", batch_rows=2_500, **options)
    assert done.ok
    assert done.counts == {"created": 20_000}
    assert done.rows == 20_000
    assert backend.requests.count("upsertRecord") <= 20_000
    outcomes = done.outcomes.take_all()
    assert len({row["id"] for row in outcomes}) == 20_000
    assert done.dead_letters.count() == 0
    assert addresses(backend) == sorted(f"p{number}@example.org" for number in range(20_000))


@pytest.mark.parametrize("number", range(10))
def test_a_worker_killed_in_the_middle_of_a_write(
    cluster: Any, backend: EmulatorThread, options: dict[str, Any], number: int
) -> None:
    """SIGKILL at any moment of a batch: every row takes effect, no record is there twice, each has one outcome."""
    rows = cluster.data.from_items(people(800), override_num_blocks=4)
    backend.switches.set(latency=0.005)
    killed: list[int] = []

    def kill() -> None:
        until(lambda: backend.requests.count("upsertRecord") > 5 + 70 * number)
        if victims := working():
            killed.append(victims[number % len(victims)])
            os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    done = write_records(rows, "person", match_on="email_addresses", batch_rows=200, **options)
    killer.join()
    assert killed
    assert done.ok
    assert done.rows == 800
    assert addresses(backend) == sorted(f"p{number}@example.org" for number in range(800))


def test_dead_letters(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """Rows that the server refuses are listed with their error and their content, and the others are written."""
    spoilt = [{"name": "No", "email_addresses": ["nonsense"]}]
    rows = cluster.data.from_items(people(50) + spoilt, override_num_blocks=2)
    done = write_records(rows, "person", match_on="email_addresses", **options)
    assert not done.ok
    assert done.counts == {"created": 50, "failed": 1}
    [letter] = done.dead_letters.take_all()
    assert letter["status"] == "failed"
    assert "BadRequestError" in letter["error"]
    assert letter["row"] == '{"name":"No","email_addresses":["nonsense"]}'
    assert len(stored(backend)) == 50


def test_a_write_that_cannot_go_on_names_its_rows(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """When more rows fail than may, the write ends with an error that names the rows and the node."""
    rows = cluster.data.from_items([{"name": "No", "email_addresses": [f"nonsense{n}"]} for n in range(300)])
    with pytest.raises(
        PartitionError, match=r"writing \d+ rows of person that begin with email_addresses=.* failed on node"
    ):
        write_records(rows, "person", match_on="email_addresses", max_dead=10, **options)


def test_columns_and_nulls(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """Columns are chosen and renamed; a null is left out, or empties the attribute when asked to."""
    table = [{"who": "Ada", "mail": ["ada@example.org"], "job": "CTO", "noise": 1}]
    names = {"who": "name", "mail": "email_addresses", "job": "job_title"}
    write_records(cluster.data.from_items(table), "person", match_on="email_addresses", columns=names, **options)
    table = [{"who": "Ada P.", "mail": ["ada@example.org"], "job": None}]
    rows = cluster.data.from_items(table)
    write_records(rows, "person", match_on="email_addresses", columns=names, **options)
    [record] = stored(backend)
    assert record["attributes"]["job_title"] == "CTO"
    write_records(rows, "person", match_on="email_addresses", columns=names, nulls="clear", **options)
    [record] = stored(backend)
    assert not record["attributes"].get("job_title")


def test_a_second_run_skips_what_was_written(
    cluster: Any, backend: EmulatorThread, options: dict[str, Any], tmp_path: Any
) -> None:
    """With a checkpoint, batches that were written are not sent again; those that changed are."""
    options["checkpoint"] = tmp_path
    rows = people(400)
    first = write_records(cluster.data.from_items(rows), "person", match_on="email_addresses", batch_rows=100, **options)
    backend.requests.clear()
    again = write_records(cluster.data.from_items(rows), "person", match_on="email_addresses", batch_rows=100, **options)
    assert again.counts == first.counts == {"created": 400}
    assert backend.requests.count("upsertRecord") == 0
    rows[7]["name"] = "Another"
    changed = write_records(cluster.data.from_items(rows), "person", match_on="email_addresses", batch_rows=100, **options)
    assert changed.counts == {"created": 300, "updated": 100} or changed.counts.get("updated") == 100
    assert backend.requests.count("upsertRecord") == 100


def test_a_checkpoint_of_another_workspace_skips_nothing(
    cluster: Any, backend: EmulatorThread, options: dict[str, Any], tmp_path: Any
) -> None:
    """The same rows with the same folder are written to each workspace."""
    options["checkpoint"] = tmp_path
    rows = cluster.data.from_items(people(20))
    write_records(rows, "person", match_on="email_addresses", **options)
    with EmulatorThread(keys={KEY: None}) as other:
        write_records(rows, "person", match_on="email_addresses", **{**options, "base_url": other.url})
        assert addresses(other) == addresses(backend)


def test_a_datasink(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """As a Ray Data sink it keeps the counts, and the rows that failed."""
    sink = RecordsDatasink("person", match_on="email_addresses", **options)
    spoilt = [{"name": "No", "email_addresses": ["nonsense"]}]
    cluster.data.from_items(people(60) + spoilt, override_num_blocks=3).write_datasink(sink)
    assert sink.counts == {"created": 60, "failed": 1}
    assert sink.dead_letters["status"].to_pylist() == ["failed"]


def test_questions(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """Each question has its answer beside it, or its error."""
    backend.seed("person", *people(3))
    backend.faults.add(kind="status", status=400, route="queryContext", after=2, times=1)
    rows = cluster.data.from_items(
        [{"number": n, "question": f"Who is Person {n}?"} for n in range(6)], override_num_blocks=2
    )
    answers = ask_many(rows, **options).take_all()
    assert sorted(row["number"] for row in answers) == list(range(6))
    failed = [row for row in answers if row["error"]]
    assert len(failed) == 1
    assert failed[0]["error"].startswith("BadRequestError")
    assert all(row["answer"] for row in answers if not row["error"])


def test_texts(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """Each text is ingested once, and has the id of its artifact beside it."""
    rows = cluster.data.from_items([{"text": f"Text {n}", "from": "mail"} for n in range(7)], override_num_blocks=2)
    done = ingest_texts(rows, context="from", **options).take_all()
    assert [row["error"] for row in done] == [None] * 7
    assert len({row["artifact_id"] for row in done}) == 7
    assert backend.requests.count("addContextText") in (0, 7)


def test_texts_of_a_worker_that_is_killed(
    cluster: Any, backend: EmulatorThread, options: dict[str, Any], tmp_path: Any
) -> None:
    """With a checkpoint the batch goes on in another worker, and nothing is ingested twice; without one the call fails."""
    rows = cluster.data.from_items([{"text": f"Text {n}"} for n in range(8)], override_num_blocks=1)
    backend.switches.set(latency=0.5)
    options["budget"] = None  # the ten texts a minute are not what this is about

    def kill() -> None:
        until(lambda: texts(backend) >= 2)
        for victim in until(working):
            os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    done = ingest_texts(rows, batch_rows=8, checkpoint=tmp_path, **options).take_all()
    killer.join()
    assert {row["status"] for row in done} <= {"accepted", "unknown"}
    unknown = sum(row["status"] == "unknown" for row in done)
    assert 8 - unknown <= texts(backend) <= 8
    backend.requests.clear()
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(Exception, match=r"(?i)worker|died|crash"):
        ingest_texts(rows, batch_rows=8, **options)
    killer.join()
    assert texts(backend) < 8


def texts(backend: EmulatorThread) -> int:
    return sum(entry.path.endswith("/v1/context/text") for entry in backend.requests)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"match_on": ""}, "match_on"),
        ({"nulls": "drop"}, "nulls"),
        ({"batch_rows": 0}, "batch_rows"),
        ({"in_flight": 0}, "in_flight"),
        ({"max_dead": -1}, "max_dead"),
        ({"columns": "name"}, "columns"),
        ({"columns": ["name"]}, "columns"),
        ({"key": "sk-0123456789abcdef"}, "key"),
    ],
)
def test_bad_arguments(cluster: Any, options: dict[str, Any], arguments: dict[str, Any], named: str) -> None:
    """An argument that cannot be right is refused by its name, before anything is sent."""
    rows = cluster.data.from_items(people(1))
    with pytest.raises(InvalidRequestError) as caught:
        write_records(rows, "person", **{"match_on": "email_addresses", **options, **arguments})
    assert caught.value.argument == named


def test_columns_that_are_not_there(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """A column that the dataset does not have is named."""
    rows = cluster.data.from_items(people(1))
    with pytest.raises(InvalidRequestError, match="the dataset has no column mail"):
        write_records(rows, "person", match_on="email_addresses", columns={"mail": "email_addresses"}, **options)
    with pytest.raises(InvalidRequestError, match="the dataset has no column question"):
        ask_many(rows, **options)
