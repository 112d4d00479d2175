"""Hold the catalogue of faults against the tests: `python .ci/check_faults.py` lists the tests of each row; `-q`: only gaps.

A row of docs/faults.md needs a test that names it (`test_h13_...`, or `H13` in its docstring, its parameters or a table of
its module), or a line under Limits. A test may name no row that is not there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
_ROW = re.compile(r"^\| ([A-Z]\d+) \|", re.MULTILINE)
_NAMED = re.compile(r"_([nhpsjkrx])(\d\d)(?![A-Za-z0-9])")
_SAID = re.compile(r"\b([NHPSJKRX][1-9]\d?)\b")


def catalogue(text: str) -> tuple[list[str], set[str]]:
    """Return the rows of the catalogue, and those that are documented as limits."""
    rows, _, limits = text.partition("\n## Limits\n")
    return _ROW.findall(rows), set(_ROW.findall(limits))


def named(tests: Path) -> dict[str, set[str]]:
    """Return the tests that name each row."""
    found: dict[str, set[str]] = {}
    for path in sorted(tests.rglob("*.py")):
        text = path.read_text("utf-8")
        if not (_NAMED.search(text) or _SAID.search(text)):
            continue
        for place, row in _names_in(ast.parse(text)):
            found.setdefault(row, set()).add(f"{path.relative_to(tests.parent)}::{place}")
    return found


def _names_in(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each place that names a row; what a module says of itself as a whole is not one."""
    for node in module.body[1:]:
        place = "module"
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            place = node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            place = node.targets[0].id
        for letter, number in _NAMED.findall(place):
            yield place, f"{letter.upper()}{int(number)}"
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                for row in _SAID.findall(part.value):
                    yield place, row


def gaps(rows: list[str], limits: set[str], found: dict[str, set[str]]) -> list[str]:
    """Return what is wrong, in words."""
    wrong = [f"{row} stands twice in the catalogue" for row in sorted({row for row in rows if rows.count(row) > 1})]
    wrong += [f"{row} has neither a test nor a limit" for row in rows if row not in found and row not in limits]
    wrong += [f"{row} is a limit of no row" for row in sorted(limits - set(rows))]
    wrong += [f"{row} is not in the catalogue: {min(found[row])}" for row in sorted(found.keys() - set(rows))]
    return wrong


def main(arguments: list[str]) -> int:
    """Print the tests of each row, and what is wrong; return 1 when something is."""
    rows, limits = catalogue((ROOT / "docs" / "faults.md").read_text("utf-8"))
    found = named(ROOT / "tests")
    if "-q" not in arguments:
        for row in rows:
            print(row, *sorted(found.get(row, ())), *["(a limit)"] * (row in limits), sep="\n    " if row in found else " ")
    wrong = gaps(rows, limits, found)
    print(*wrong, f"{len(rows)} rows, {len(wrong)} gaps", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
