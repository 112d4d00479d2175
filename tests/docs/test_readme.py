"""What the README shows is run as it stands, and the examples that are no services too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from nex_async import Nex
from nex_async.emulator import Emulator
from nex_async.emulator.faults import Kind
from nex_async.emulator.switches import CHOICES

from .pages import ROOT, blocks_of, text_of
from .stage import shown
from .watching import Output, playing


def test_first_block_runs(tmp_path: Path) -> None:
    """The ten lines at the top of the README are a whole program."""
    first = blocks_of("README.md")[0].text
    program = tmp_path / "first.py"
    program.write_text(first)
    done = subprocess.run([sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+ Ada Park\n", done.stdout)
    assert len([line for line in first.splitlines() if line]) <= 10


def test_quickstart_runs() -> None:
    """The first example runs to its end; those that are services have tests of their own."""
    command = [sys.executable, "-W", "error", ROOT / "examples" / "quickstart.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Ada Park" in done.stdout


def test_every_example_is_tested() -> None:
    """An example that nobody runs is no example: a test names each as a program, or as a module."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    examples = list((ROOT / "examples").glob("*.py"))
    assert len(examples) >= 10
    assert [path.name for path in examples if f'"{path.name}"' not in tests and f"examples.{path.stem}" not in tests] == []


def test_readme_names_the_two_commands() -> None:
    """The two commands that do all the set-up are in the README, and are sessions of nox."""
    readme, sessions = text_of("README.md"), text_of("noxfile.py")
    assert "pip install nox && nox -s demo" in readme
    assert "nox -s tests" in readme
    assert "def demo(" in sessions
    assert "def tests(" in sessions
    assert "nox -s tests" in (ROOT / ".ci" / "run").read_text()


def test_emulator_page_names_every_switch_and_fault() -> None:
    """The page lists each switch with its values, and each kind of fault."""
    page = text_of("docs/emulator.md")
    for name, values in CHOICES.items():
        assert f"| `{name}` | {', '.join(values)} |" in page
    for name in (*Emulator().switches, *get_args(Kind)):
        assert f"`{name}`" in page


async def test_the_readme_listens(nex: Nex, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's feed prints what comes, and goes on from its file."""
    monkeypatch.chdir(tmp_path)
    listen = shown("README.md", "listen")
    await nex.context.add_text("Ada Park <ada@x.io> asked for a demo.")
    for name in ("Bob", "Cem"):
        async with playing(listen(nex)):
            await output.says("opportunity Ada Park <ada@x.io> asked for a demo.\n")
            await nex.context.add_text(f"{name} signed.")
            await output.says(f"milestone {name} signed.\n")
    assert (tmp_path / "insights.db").exists()


async def test_the_readme_brings_rows_in_and_out(
    nex: Nex, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's block upserts what it is given, and exports it."""
    monkeypatch.chdir(tmp_path)
    people = [{"name": f"Person {n}", "email_addresses": [f"p{n}@x.io"]} for n in range(3)]
    await shown("README.md", "nightly")(nex, people)
    await output.says("upsert person: 3 rows: 3 created; 3 requests; ")
    assert output.text.endswith("rows/s\n3\n")
    assert (tmp_path / "people.csv").read_text().count("\n") == 4
