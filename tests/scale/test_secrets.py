"""The key stays on the workers: it is in no task, no log, no object, and in nothing that Ray keeps or shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from nex_async.testing import EmulatorThread

from ..harness.canary import KEY
from .conftest import VARIABLE, people

pytest.importorskip("ray")

from nex_async.integrations.ray import KeyFile, PartitionError, RayBudget, read_records, write_records

ROOT = Path(__file__).parents[2]


def holding(folder: Path) -> list[str]:
    """Return the files below a folder that hold the key."""
    found = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink() and KEY.encode() in path.read_bytes():
                found.append(str(path))
        except OSError:
            continue
    return found


def test_ray_never_sees_the_key(cluster: Any, backend: EmulatorThread, options: dict[str, Any], tmp_path: Path) -> None:
    """After reads, writes and failures: not in the session's files, the object store, the state of tasks and actors."""
    secret = tmp_path / "secret"
    secret.write_text(KEY)
    secret.chmod(0o600)
    backend.seed("person", *people(300))
    for source in (VARIABLE, KeyFile(secret)):
        more = {**options, "key": source}
        dataset = read_records("person", partitions=3, **more).materialize()
        write_records(dataset, "person", match_on="email_addresses", batch_rows=100, **more)
        backend.faults.add(kind="status", status=400, route="listRecords", times=None, after=2)
        with pytest.raises(PartitionError) as caught:
            from nex_async.integrations.ray.failures import reraise

            try:
                read_records("person", partitions=3, checkpoint=tmp_path / "none", **more).materialize()
            except Exception as error:
                assert KEY not in str(error)
                reraise(error)
        assert KEY not in str(caught.value)
        backend.faults.clear()
    session = Path(cluster._private.worker._global_node.get_session_dir_path())
    assert holding(session) == []
    store = list(Path("/dev/shm").glob("plasma*"))
    assert not any(KEY.encode() in path.read_bytes() for path in store)
    from ray.util import state

    seen = [state.list_tasks, state.list_actors, state.list_objects, state.list_workers, state.list_nodes, state.list_jobs]
    shown = [each(detail=True, limit=10_000, raise_on_missing_output=False) for each in seen]
    assert len(shown[0]) > 10
    assert KEY not in str([vars(row) if hasattr(row, "__dict__") else row for rows in shown for row in rows])
    keys = cluster.experimental.internal_kv._internal_kv_list(b"")
    values = [cluster.experimental.internal_kv._internal_kv_get(key) or b"" for key in keys]
    assert not any(KEY.encode() in part for part in (*keys, *values))
    RayBudget().stop()


def test_what_travels_holds_no_key(cluster: Any, backend: EmulatorThread, options: dict[str, Any]) -> None:
    """The tasks of a dataset, as Ray pickles them, do not hold the key; nor does what they print of themselves."""
    from ray import cloudpickle

    from nex_async.integrations.ray import RecordsDatasink, reading

    sources: list[Any] = []
    real = reading.RecordsDatasource.get_read_tasks

    def keep(self: Any, *arguments: Any, **named: Any) -> Any:
        sources.extend(found := real(self, *arguments, **named))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading.RecordsDatasource, "get_read_tasks", keep)
        read_records("person", partitions=3, **options).materialize()
    assert sources
    for each in (*sources, RecordsDatasink("person", match_on="email_addresses", **options)):
        assert KEY.encode() not in cloudpickle.dumps(each)
        assert KEY not in repr(each.__dict__)


DRIVER = """
    import os, signal, sys, threading
    import ray
    from nex_async.integrations.ray import read_records, write_records

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", object_store_memory=256 << 20)
    folder, url, die = sys.argv[1:4]
    people = read_records(
        "person", partitions=10, limit=10, window=1, key="SCALE_TEST_KEY", base_url=url, checkpoint=folder + "/read"
    )
    people = people.select_columns(["email_addresses"]).map(lambda row: {**row, "job_title": "Seen"})
    if die == "read":
        def kill():
            import time
            while sum(name.startswith("person-") for name in os.listdir(folder + "/read")) < 4:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Thread(target=kill).start()
    done = write_records(
        people, "person", match_on="email_addresses", batch_rows=20, key="SCALE_TEST_KEY", base_url=url,
        checkpoint=folder + "/write",
    )
    print(dict(done.counts), flush=True)
    os._exit(0)
"""


def test_a_driver_that_is_killed_goes_on(tmp_path: Path) -> None:
    """SIGKILL of the driver in the middle: the second run asks only for what the first did not finish, and ends whole."""
    environment = {**os.environ, VARIABLE: KEY, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": ""}
    environment.pop("RAY_ADDRESS")
    with EmulatorThread(keys={KEY: None}) as backend:
        backend.switches.set(rate_limits="off", latency=0.01)
        backend.seed("person", *people(200))
        (tmp_path / "read").mkdir()

        def run(die: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path), backend.url, die]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, cwd=ROOT)

        first = run("read")
        assert first.returncode == -9, first.stderr[-2000:]
        done = len(list((tmp_path / "read").glob("person-*.parquet")))
        assert done >= 4
        backend.requests.clear()
        second = run("no")
        assert second.returncode == 0, second.stderr[-2000:]
        assert sum(json.loads(second.stdout.replace("'", '"')).values()) == 200
        assert backend.requests.count("listRecords") <= 2 + 4 * (10 - done)
        body = {"limit": 500, "offset": 0, "attributes": "all"}
        rows = backend.request("POST", "/v1/objects/person/records", body=body)["data"]
        assert {row["attributes"]["job_title"] for row in rows} == {"Seen"}
        assert len(rows) == 200


def test_without_ray() -> None:
    """Where Ray is not installed, the import says what to install, and that alone."""
    code = """
        import sys
        sys.modules["ray"] = None
        try:
            import nex_async.integrations.ray
        except ModuleNotFoundError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.stdout.strip() == 'this needs Ray Data: pip install "nex-async[ray]"', done.stderr


def test_without_a_cluster() -> None:
    """Where Ray does not run, the error says what to call."""
    code = """
        from nex_async.integrations.ray import read_records
        try:
            read_records("person")
        except ValueError as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.stdout.strip() == "ConfigError Ray is not running: call ray.init() first", done.stderr


def test_the_example_syncs(tmp_path: Path) -> None:
    """The example runs as it is written."""
    command = [sys.executable, str(ROOT / "examples" / "ray_sync.py"), "--local", "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "300 updated\n"
