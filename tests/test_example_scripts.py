"""The examples that are a notebook, a worker, and services without their servers: each run as its users run it."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nex_async import Nex
from nex_async.emulator import Emulator

from .harness.services import EXAMPLES, ingest, service, settings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


# ---- the notebook ---------------------------------------------------------------------------------------------------

NOTEBOOK = EXAMPLES / "notebook.py"


def cells() -> list[str]:
    """Return the notebook's cells of code."""
    parts = re.split(r"^# %%(.*)\n", NOTEBOOK.read_text(), flags=re.MULTILINE)
    assert parts[0] == "", "everything is in a cell"
    return [source for kind, source in zip(parts[1::2], parts[2::2], strict=True) if "markdown" not in kind]


async def run(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell as IPython does, in the loop that runs already; return what its last line is worth."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    value = None
    for part in (tree, None if last is None else ast.Expression(last.value)):
        if part is not None:
            mode = "eval" if isinstance(part, ast.Expression) else "exec"
            code = compile(part, str(NOTEBOOK), mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            value = eval(code, names)
            if inspect.iscoroutine(value):
                value = await value
    return value


async def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Cell by cell, in one loop, to its table and its end."""
    monkeypatch.setenv("NEX_LOCAL", "1")
    names: dict[str, Any] = {}
    shown = [await run(cell, names) for cell in cells()]
    assert shown[2] == 3
    assert {kind for kind, _ in shown[3]} == {"opportunity", "milestone"}
    assert capsys.readouterr().out.splitlines() == [
        "name        title       company       insights",
        "Ada Park    CTO         techflow.io          1",
        "Bo Lind     Engineer    techflow.io          1",
        "Cem Demir   Buyer       acme.example         1",
    ]
    assert names["nex"].closed


async def test_a_cell_can_be_run_again(emulator: Emulator, nex: Nex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against one's own Nex; a cell that writes changes nothing the second time."""
    for name, value in settings(emulator).items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {}
    first, second, third, *_, last = cells()
    for cell in (first, second, second, third):
        await run(cell, names)
    assert len(names["people"]) == 3
    await run(last, names)


# ---- the worker -----------------------------------------------------------------------------------------------------

WORKER = EXAMPLES / "taskiq_worker.py"


def worked(place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the worker's own two tasks in one process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NEX_", "REDIS_"))}
    own = {"PYTHONPATH": str(EXAMPLES.parent), "HOME": str(place), **environment}
    command = [sys.executable, "-W", "error", str(WORKER)]
    return subprocess.run(command, env={**inherited, **own}, capture_output=True, text=True, timeout=50, check=False)


@needs("taskiq")
def test_the_worker_can_be_tried_at_once(tmp_path: Path) -> None:
    """With `NEX_LOCAL=1` both of its tasks run in one process, and it ends in good order."""
    done = worked(tmp_path, NEX_LOCAL="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+\n\{'outcome': 'accepted', 'artifact_id': '\d+'\}\n", done.stdout)


@needs("taskiq")
async def test_a_task_repeats_what_is_safe_and_nothing_else(emulator: Emulator, tmp_path: Path) -> None:
    """A lost upsert is sent again, a lost text is not: its outcome is told as unknown, for somebody to look."""
    emulator.faults.add(kind="close", route="upsertRecord", times=1)
    emulator.faults.add(kind="close", route="addContext", times=1)
    done = await asyncio.to_thread(worked, tmp_path, **settings(emulator))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\n\{'outcome': 'unknown', 'artifact_id': None\}\n", done.stdout)
    assert "may or may not have been ingested" in done.stderr
    assert (emulator.requests.count("upsertRecord"), emulator.requests.count("addContext")) == (2, 1)


# ---- the services, without their servers ----------------------------------------------------------------------------


@needs("redis")
async def test_without_redis_insights_wait(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """A Redis that is away is waited for; SIGTERM ends the service with status 1, and what waits is in the checkpoint."""
    program = EXAMPLES / "insights_to_redis.py"
    await ingest(nex, "Ada")
    async with service(tmp_path, program, REDIS_URL="redis://127.0.0.1:1", **settings(emulator)) as forwarder:
        await forwarder.logged(r"1 insights wait for the sink \(SinkUnavailable")
        assert await forwarder.end() == 1
        assert "nothing is lost" in forwarder.log
        assert "Traceback" not in forwarder.log
    async with nex.insights.stream(checkpoint=tmp_path / "insights.db") as feed:
        event = await anext(feed)
    assert (event.redelivered, event.insight.content) == (True, "Ada <ada@x.io> asked for a demo.")


@needs("nats")
async def test_without_nats_nothing_begins(emulator: Emulator, tmp_path: Path) -> None:
    """A NATS that is away is waited for before anything is read; a signal ends that at once."""
    program = EXAMPLES / "insights_to_nats.py"
    async with service(tmp_path, program, NATS_URL="nats://127.0.0.1:1", **settings(emulator)) as forwarder:
        await forwarder.logged(r"WARNING NATS: ConnectionRefusedError")
        assert await forwarder.end() == -signal.SIGTERM
    assert emulator.requests.count() == 0
