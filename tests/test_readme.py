"""What the README and the examples show is run as it stands."""

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

from .harness.canary import KEY

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_first_block_runs(tmp_path: Path) -> None:
    """The ten lines at the top of the README are a whole program."""
    program = tmp_path / "first.py"
    program.write_text(BLOCKS[0])
    done = subprocess.run([sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+ Ada Park\n", done.stdout)
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 10


async def test_tour_runs(emulator: Emulator, nex: Nex, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tour works on a workspace, and so do its tenants."""
    assert len(BLOCKS) == 2
    names: dict[str, object] = {}
    exec(compile(BLOCKS[1], "README.md", "exec", dont_inherit=True), names)  # as a reader would run it
    await names["tour"](nex)  # type: ignore[operator]
    monkeypatch.setenv("NEX_API_BASE_URL", emulator.url)
    await names["tenants"]([KEY, KEY])  # type: ignore[operator]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_example_runs(example: Path) -> None:
    """Every example runs to its end."""
    done = subprocess.run([sys.executable, "-W", "error", example], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Ada Park" in done.stdout


def test_readme_names_the_two_commands() -> None:
    """The two commands that do all the set-up are in the README, and are sessions of nox."""
    readme, sessions = (ROOT / "README.md").read_text(), (ROOT / "noxfile.py").read_text()
    assert "pip install nox && nox -s demo" in readme
    assert "nox -s tests" in readme
    assert "def demo(" in sessions
    assert "def tests(" in sessions
    assert "nox -s tests" in (ROOT / ".ci" / "run").read_text()


async def test_emulator_page_runs() -> None:
    """What the page on the embedded Nex shows works as it stands."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "emulator.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "emulator.md", "exec", dont_inherit=True), names)  # as a reader would run it
    await names["inside_a_test"]()  # type: ignore[operator]


def test_emulator_page_names_every_switch_and_fault() -> None:
    """The page lists each switch with its values, and each kind of fault."""
    page = (ROOT / "docs" / "emulator.md").read_text()
    for name, values in CHOICES.items():
        assert f"| `{name}` | {', '.join(values)} |" in page
    for name in (*Emulator().switches, *get_args(Kind)):
        assert f"`{name}`" in page
