"""The nightly job, run as a job: in a process of its own, killed in the middle, and started again."""

from __future__ import annotations

import asyncio
import json
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

from .harness.canary import KEY, leaked

ROOT = Path(__file__).parent.parent
JOB = [sys.executable, "-W", "error", str(ROOT / "examples" / "nightly_sync.py")]
ROWS = 1200
IN_FLIGHT = 32
"""Requests that may be on their way when the job is killed: its concurrency finds its own level below this."""
UNWRITTEN = 300
"""Rows that may be finished and not yet in the journal: a few of its commits."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


def start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEX_")}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "NEX_API_KEY": KEY, "HOME": str(place)}
    pipe = subprocess.PIPE
    return subprocess.Popen([*JOB, *arguments], cwd=place, env=environment, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return the exit status, what was printed, and what was told on stderr."""
    output, told = process.communicate(timeout=50)
    assert not leaked(output + told)
    return process.returncode, output, told


def killed_midway(process: subprocess.Popen[str]) -> None:
    """Kill it once a third of the rows is done: more than it may repeat."""
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r": (\d+) of \d+ rows", line)
        if found and int(found[1]) >= ROWS // 3:
            break
    process.kill()
    process.communicate(timeout=50)
    assert process.returncode == -signal.SIGKILL, "it had ended before it was killed"


def report_of(output: str) -> dict[str, int]:
    """Return the counts of the report, by name."""
    line = next(line for line in output.splitlines() if line.startswith("upsert company: "))
    assert "not finished" not in line
    return {name: int(count) for count, name in re.findall(r"(\d+) (\w+)\b(?!/)", line)}


async def companies(nex: Nex) -> dict[str, dict[str, Any]]:
    """Return the attributes of all companies by domain; none may be there twice."""
    found: dict[str, dict[str, Any]] = {}
    async for record in nex.records.list("company", limit=500):
        domain = record.text("domains")
        assert domain not in found
        found[domain] = record.attributes
    return found


def check_all(found: dict[str, dict[str, Any]]) -> None:
    assert len(found) == ROWS
    for number in range(ROWS):
        held = found[f"company-{number}.example"]
        assert (held["name"], held["employee_count"]) == (f"Company {number}", 5 + number * 37 % 4000)


async def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    """Killed with its embedded Nex, it goes on where it was, and ends with a correct report, store and copy."""
    command = ("--local", "nex.sqlite", "--rows", str(ROWS), "--to", "copy.jsonl")
    killed_midway(start(tmp_path, *command))
    assert not (tmp_path / "copy.jsonl").exists()

    status, output, told = ended(start(tmp_path, *command))
    assert status == 0, told
    counts = report_of(output)
    assert counts["rows"] == counts.get("created", 0) + counts.get("updated", 0) == ROWS
    assert int(re.findall(r"went on at row (\d+)", output)[0]) > 0
    assert f"copy: {ROWS} companies in copy.jsonl" in output
    copied = [json.loads(line)["attributes"] for line in (tmp_path / "copy.jsonl").read_text().splitlines()]
    check_all({row["domains"][0]: row for row in copied})
    async with Nex.local(str(tmp_path / "nex.sqlite")) as nex:
        check_all(await companies(nex))

    status, output, told = ended(start(tmp_path, *command))
    assert status == 0, told
    assert report_of(output).items() >= {"rows": ROWS, "unchanged": ROWS, "requests": 0}.items()


async def test_killed_it_repeats_little(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """Against a server of its own, what is sent twice is what was on its way, or not yet in the journal, when it was killed."""
    command = ("--url", emulator.url, "--rows", str(ROWS), "--to", "copy.csv")
    await asyncio.to_thread(killed_midway, start(tmp_path, *command))
    status, output, told = await asyncio.to_thread(ended, start(tmp_path, *command))
    assert status == 0, told
    check_all(await companies(nex))
    assert ROWS <= emulator.requests.count("upsertRecord") <= ROWS + IN_FLIGHT + UNWRITTEN
    assert report_of(output)["rows"] == ROWS


def test_a_row_that_fails_is_told(tmp_path: Path) -> None:
    """Rows of a file of one's own are taken in; one that is refused is in the dead letters, the others are in."""
    rows = [{"name": "Acme", "domains": ["acme.example"]}, {"name": "Bolt", "domains": [7]}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, output, told = ended(start(tmp_path, "mine.jsonl", "--local", "nex.sqlite", "--to", "copy.csv"))
    assert status == 1
    assert report_of(output).items() >= {"rows": 2, "created": 1, "failed": 1}.items()
    assert "row 1: " in told
    assert "Traceback" not in told
    assert "Bolt" in (tmp_path / "nightly.journal.dead.jsonl").read_text()
