"""Do the tests of the pure cores have teeth? One small change of the code at a time, and the tests that must notice it.

`python -m tests.mutation.run` changes each core in every way it knows: a comparison, a boolean, an operator, a constant, a
returned value, a statement left out. It runs the smallest set of tests that covers the core against each change, in a copy of
the project, one after the other, and states how many were noticed. A change that no test can notice, because it changes
nothing that was promised, stands in `equivalents.txt` with its reason. Less than 85 % noticed in a file is a failure.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CORES", "Change", "changes_of", "main"]

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENTS = Path(__file__).with_name("equivalents.txt")
FLOOR = 0.85

_SLOW = ("--deselect", "tests/test_sse.py::test_every_split", "--deselect", "tests/test_sse.py::test_a_million_tiny_events")

CORES: dict[str, tuple[str, ...]] = {
    "nex_async/transport/retry.py": ("tests/test_retry.py",),
    "nex_async/feeds/sse.py": ("tests/test_sse.py", *_SLOW),
    "nex_async/feeds/windows.py": ("tests/test_feeds.py", "tests/simulation/test_regimes.py"),
    "nex_async/paging.py": ("tests/test_paging.py",),
    "nex_async/walk.py": ("tests/test_paging.py",),
    "nex_async/bulk/journal.py": ("tests/bulk/test_parts.py", "tests/bulk/test_faults.py"),
}
"""Each core, and the tests that are run against its changes, the quickest first."""

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}


@dataclass(frozen=True)
class Change:
    """One change of a file: where, what, and the source with it."""

    file: str
    line: int
    within: str
    before: str
    after: str
    source: str

    @property
    def name(self) -> str:
        """What `equivalents.txt` calls it: no line number, so that it stays true when lines move."""
        return f"{self.file}: {self.within}: {self.before} -> {self.after}"


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the node, changed in one way each time."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            changed = deepcopy(node)
            changed.ops[place] = _COMPARISONS[type(operator)]()
            yield changed
    elif isinstance(node, ast.BoolOp):
        changed_bool = deepcopy(node)
        changed_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield changed_bool
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _OPERATORS:
        changed_operator = deepcopy(node)
        changed_operator.op = _OPERATORS[type(node.op)]()
        yield changed_operator
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        value = node.value
        yield ast.Constant(not value if isinstance(value, bool) else value + 1)
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Break, ast.Continue)) and not _is_text(node):
        yield ast.Pass()


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _not_code(tree: ast.Module) -> set[int]:
    """Return the nodes that say nothing about behaviour: imports, `__all__`, annotations, messages of errors."""
    out: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.Assign) and any(
            isinstance(name, ast.Name) and name.id == "__all__" for name in node.targets
        ):
            parts = [node]
        elif isinstance(node, ast.AnnAssign):
            parts = [node.annotation]
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            parts = [node.returns, *(each.annotation for each in ast.walk(node.args) if isinstance(each, ast.arg))]
            parts += node.decorator_list
        elif isinstance(node, ast.ClassDef):
            parts = [*node.decorator_list, *node.keywords]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("TypeVar", "ParamSpec", "cast")
        ):
            parts = [node]
        elif isinstance(node, ast.Call) and "warn" in ast.unparse(node.func):
            parts = list(node.keywords)  # how many frames up the caller stands
        elif (isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("_log.", "log."))) or isinstance(
            node, ast.JoinedStr
        ):
            parts = [node]
        for part in parts:
            if part is not None:
                out.update(id(inner) for inner in ast.walk(part))
    for node in ast.walk(tree):  # a statement that only logs says nothing either
        if isinstance(node, ast.Expr) and id(node.value) in out:
            out.add(id(node))
    return out


class _Swap(ast.NodeTransformer):
    def __init__(self, target: ast.AST, other: ast.AST) -> None:
        self._target, self._other = target, other

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._target:
            return ast.copy_location(self._other, node)
        return super().generic_visit(node)


def changes_of(file: str, text: str) -> list[Change]:
    """Return every change of a source, in its order."""
    tree, found = ast.parse(text), []
    idle, lines = _not_code(tree), text.splitlines()
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in idle:
            continue
        for other in _variants(node):
            copy = ast.parse(text)
            target = next(each for at, each in enumerate(ast.walk(copy)) if at == place)
            changed = ast.fix_missing_locations(_Swap(target, other).visit(copy))
            before, after = (" ".join(ast.unparse(each).split())[:100] for each in (node, other))
            line = getattr(node, "lineno", 0)
            found.append(Change(file, line, lines[line - 1].strip(), before, after, ast.unparse(changed)))
    return sorted(found, key=lambda change: change.line)


def equivalents() -> dict[str, str]:
    """Return the changes that break no promise, each with its reason."""
    known: dict[str, str] = {}
    for line in EQUIVALENTS.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, reason = line.partition(" | ")
            known[name] = reason
    return known


def _notices(place: Path, tests: tuple[str, ...], limit: float) -> bool:
    """Return whether the tests fail, or do not end in time."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"]
    environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_MAX_EXAMPLES": "30"}
    process = subprocess.Popen(
        [*command, "--timeout", "30", *tests],
        cwd=place,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(limit) != 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def main() -> None:
    """Run the changes, print what was not noticed, and exit with 1 where too much was not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", default=list(CORES), help="the cores to change; all without")
    parser.add_argument("--sample", type=int, default=0, help="so many changes of each file, drawn; all without")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    known, short = equivalents(), False
    with tempfile.TemporaryDirectory() as where:
        place = Path(where) / "project"
        shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(".git", ".nox", "__pycache__", "build", ".*_cache"))
        for file in chosen.files:
            begun = time.monotonic()
            if _notices(place, CORES[file], 600):
                sys.exit(f"the tests of {file} fail without any change")
            limit = 20 + 3 * (time.monotonic() - begun)
            text = (ROOT / file).read_text()
            changes = [change for change in changes_of(file, text) if change.name not in known]
            if chosen.sample and chosen.sample < len(changes):
                changes = random.Random(chosen.seed).sample(changes, chosen.sample)
            missed = []
            for change in changes:
                (place / file).write_text(change.source)
                if not _notices(place, CORES[file], limit):
                    missed.append(change)
                    print(f"  missed, line {change.line}: {change.name}", flush=True)
            (place / file).write_text(text)
            share = 1 - len(missed) / len(changes)
            print(f"{file}: {len(changes) - len(missed)} of {len(changes)} noticed, {share:.1%}", flush=True)
            short = short or share < FLOOR
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
