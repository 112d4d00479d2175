"""Do the tests of the pure cores have teeth? One small change of the code at a time, and the tests that must notice it.

`python -m tests.mutation.run` changes each core in every way it knows: a comparison, a boolean, an operator, a constant, a
returned value, a statement left out. It runs the tests that reach the changed line, in a copy of the project, one change after
the other, and states how many were noticed. A change that no test can notice, because it changes nothing that was promised,
stands in `equivalents.txt` with its reason. Less than 85 % noticed in a file is a failure.

A change costs about a second: the tests run in a fork of a process that has imported all but the project, only those tests
run that reach the line (a first run without any change tells), and those that noticed most so far come first.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

__all__ = ["CORES", "Change", "changes_of", "main"]

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENTS = Path(__file__).with_name("equivalents.txt")
FLOOR = 0.85
_MEMORY = 6 * 1024**3
"""What a change may make the tests hold before it counts as noticed."""

_SLOW = (
    "tests/test_sse.py::test_every_split",
    "tests/test_sse.py::test_two_hundred_thousand_tiny_events",
    "tests/test_feeds.py::test_opening_a_feed_while_another_closes",
    "tests/test_feeds.py::test_closing_a_feed_ends_its_readers",
    "tests/test_feeds.py::test_a_feed_that_is_forgotten_lets_go",
)
"""Left out: what they would notice, others notice sooner."""

CORES: dict[str, tuple[str, ...]] = {
    "nex_async/transport/retry.py": ("tests/test_retry.py",),
    "nex_async/feeds/sse.py": ("tests/test_sse.py",),
    "nex_async/feeds/windows.py": ("tests/test_windows.py", "tests/test_feeds.py"),
    "nex_async/paging.py": ("tests/test_paging.py",),
    "nex_async/walk.py": ("tests/test_paging.py",),
    "nex_async/bulk/journal.py": ("tests/bulk/test_parts.py", "tests/bulk/test_faults.py"),
}
"""Each core, and where the tests are that run against its changes."""

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
    """One change of a file: where, what, and the source with it. `first` and `last` are the lines of its statement."""

    file: str
    line: int
    first: int
    last: int
    within: str
    before: str
    after: str
    source: str
    number: int = 1
    """Which it is of those that would have the same name."""

    @property
    def name(self) -> str:
        """What `equivalents.txt` calls it: no line number, so that it stays true when lines move."""
        return f"{self.file}: {self.within}: {self.before} -> {self.after}{f' #{self.number}' if self.number > 1 else ''}"


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


def _places(tree: ast.AST) -> dict[int, tuple[ast.AST, str, int | None]]:
    """Return where each node hangs: its parent, the field, and the place in it."""
    found: dict[int, tuple[ast.AST, str, int | None]] = {}
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if isinstance(value, ast.AST):
                found[id(value)] = parent, name, None
            elif isinstance(value, list):
                found.update((id(each), (parent, name, at)) for at, each in enumerate(value) if isinstance(each, ast.AST))
    return found


def _put(place: tuple[ast.AST, str, int | None], node: ast.AST) -> None:
    parent, name, at = place
    if at is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[at] = node


def _statement(node: ast.AST, places: dict[int, tuple[ast.AST, str, int | None]]) -> tuple[int, int]:
    """Return the lines that run when the node does: those of its statement, of its head alone if it has a body."""
    while not isinstance(node, (ast.stmt, ast.excepthandler)):
        node = places[id(node)][0]
    body = getattr(node, "body", None)
    last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
    return node.lineno, max(node.lineno, last)


def changes_of(file: str, text: str) -> list[Change]:
    """Return every change of a source, in its order."""
    tree, found = ast.parse(text), []
    idle, lines, places = _not_code(tree), text.splitlines(), _places(tree)
    for node in list(ast.walk(tree)):
        if id(node) in idle:
            continue
        for other in _variants(node):
            before, after = (" ".join(ast.unparse(each).split())[:100] for each in (node, other))
            line = getattr(node, "lineno", 0)
            first, last = _statement(node, places)
            _put(places[id(node)], ast.copy_location(other, node))
            source = ast.unparse(ast.fix_missing_locations(tree))
            _put(places[id(node)], node)
            found.append(Change(file, line, first, last, lines[line - 1].strip(), before, after, source))
    met: Counter[str] = Counter()
    numbered = []
    for change in sorted(found, key=lambda change: change.line):
        met[change.name] += 1
        numbered.append(replace(change, number=met[change.name]))
    return numbered


def equivalents() -> dict[str, str]:
    """Return the changes that break no promise, each with its reason."""
    known: dict[str, str] = {}
    for line in EQUIVALENTS.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, reason = line.partition(" | ")
            known[name] = reason
    return known


# ---- running the tests --------------------------------------------------------------------------------------------------


@dataclass
class Reach:
    """What the run without any change told: for each test how long it took, and which lines of the core it ran."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, list[int]] = field(default_factory=dict)
    imported: list[int] = field(default_factory=list)
    """The lines that run when the core is imported; a change of one is shown to every test."""
    modules: list[str] = field(default_factory=list)

    def tests_of(self, change: Change, noticed: Counter[str]) -> list[str]:
        """Return the tests that reach a change, the likeliest to notice it first."""
        touched = set(range(change.first, change.last + 1))
        everyone = not touched.isdisjoint(self.imported)
        some = [test for test in self.seconds if everyone or not touched.isdisjoint(self.lines.get(test, ()))]
        return sorted(some, key=lambda test: (-noticed[test] / (0.05 + self.seconds[test]), self.seconds[test]))


class _Chosen:
    """A pytest plugin that runs the chosen tests in their order, and notes the first that fails."""

    def __init__(self, chosen: list[str] | None, coverage: Any = None) -> None:
        self._order = None if chosen is None else {name: at for at, name in enumerate(chosen)}
        self._coverage = coverage
        self.seconds: Counter[str] = Counter()
        self.failed: str | None = None

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        order = self._order
        if order is None:
            items[:] = [item for item in items if not item.nodeid.startswith(_SLOW)]
        else:
            items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self._coverage is not None:
            self._coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed and self.failed is None:
            self.failed = report.nodeid


class _Bench:
    """A copy of the project, and forks that run its tests."""

    def __init__(self, place: Path, file: str) -> None:
        self._place = place
        self._file = file
        self._told = place / "told.json"
        self._said = place / "said.txt"
        self._turn = 0
        self.reach = Reach()
        self.noticed: Counter[str] = Counter()

    def first(self) -> None:
        """Run the tests without any change, and learn what each of them reaches."""
        if self._fork(None, 600, 120) != 0:
            sys.exit(f"{self.said()}\nthe tests of {self._file} fail without any change")
        self.reach = Reach(**json.loads(self._told.read_text()))
        for name in self.reach.modules:  # what the forks need not import any more
            with suppress(Exception):
                importlib.import_module(name)
        gc.collect()
        gc.freeze()

    def said(self) -> str:
        """Return the end of what the last run printed."""
        return self._said.read_text()[-3000:]

    def notices(self, source: str, tests: list[str]) -> bool:
        """Return whether the tests fail with this source, or do not end in time."""
        self._turn += 1
        path = self._place / self._file
        path.write_text(source)
        os.utime(path, (1e9 + self._turn, 1e9 + self._turn))  # no bytecode of another change is taken for that of this one
        seconds = [self.reach.seconds[test] for test in tests]
        self._told.unlink(missing_ok=True)
        code = self._fork(tests, 30 + 4 * sum(seconds), 10 + round(6 * max(seconds)))
        if code not in (0, 5) and self._told.exists():
            self.noticed[json.loads(self._told.read_text())] += 1
        return code not in (0, 5)

    def _fork(self, tests: list[str] | None, limit: float, longest: int) -> int:
        process = os.fork()
        if not process:
            code = 70
            try:
                code = self._child(tests, longest)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        ends = time.monotonic() + limit
        try:
            while time.monotonic() < ends:
                done, status = os.waitpid(process, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status)
                time.sleep(0.01)
            return -signal.SIGKILL
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)  # it, and what the tests left running
            with suppress(ChildProcessError):
                os.waitpid(process, 0)

    def _child(self, tests: list[str] | None, longest: int) -> int:
        os.setsid()
        with self._said.open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        os.chdir(self._place)
        os.environ["PYTHONPATH"] = str(self._place)
        sys.dont_write_bytecode = tests is not None
        for name in [name for name in sys.modules if name.partition(".")[0] in ("nex_async", "tests")]:
            del sys.modules[name]  # ours: the copy's come instead
        sys.path.insert(0, str(self._place))
        import hypothesis
        import pytest

        hypothesis.settings.register_profile("mutation", derandomize=True, database=None, deadline=None, max_examples=50)
        hypothesis.settings.load_profile("mutation")
        files = CORES[self._file] if tests is None else list(dict.fromkeys(test.partition("::")[0] for test in tests))
        coverage = None
        if tests is None:
            from coverage import Coverage

            coverage = Coverage(data_file=None, config_file=False, include=[str(self._place / self._file)], messages=False)
            coverage.start()
        chosen = _Chosen(tests, coverage)
        options = ["-x", "-q", "--assert=plain", *(f"-pno:{name}" for name in ("cacheprovider", "randomly", "xdist"))]
        code = int(
            pytest.main(
                [*options, f"--timeout={longest}", f"--basetemp={self._place / 'temporary'}", *files], plugins=[chosen]
            )
        )
        if coverage is not None:
            coverage.stop()
            self._tell(coverage.get_data(), chosen)
        elif chosen.failed is not None:
            self._told.write_text(json.dumps(chosen.failed))
        return code

    def _tell(self, data: Any, chosen: _Chosen) -> None:
        path = str(self._place / self._file)
        reach = Reach(seconds=dict(chosen.seconds))
        for test in chosen.seconds:
            data.set_query_context(test)
            reach.lines[test] = data.lines(path) or []
        data.set_query_context("")
        reach.imported = data.lines(path) or []
        reach.modules = [name for name, module in sys.modules.items() if self._is_foreign(name, module)]
        self._told.write_text(json.dumps(vars(reach)))

    def _is_foreign(self, name: str, module: Any) -> bool:
        origin = getattr(getattr(module, "__spec__", None), "origin", None) or ""
        return (
            bool(origin) and not origin.startswith(str(self._place)) and name.partition(".")[0] not in ("nex_async", "tests")
        )


def _score(file: str, place: Path, sample: int, seed: int, known: dict[str, str]) -> float:
    """Change a file in each way, print what was not noticed, and return the share that was."""
    begun, text = time.monotonic(), (ROOT / file).read_text()
    bench = _Bench(place, file)
    bench.first()
    if bench.notices(ast.unparse(ast.parse(text)), sorted(bench.reach.seconds, key=bench.reach.seconds.__getitem__)):
        sys.exit(f"{bench.said()}\nthe tests of {file} fail in a fork without any change")
    every = changes_of(file, text)
    drawn = random.Random(seed).sample(every, sample) if 0 < sample < len(every) else every
    changes = [change for change in drawn if change.name not in known]
    missed = tried = 0
    with suppress(KeyboardInterrupt):  # a run that is interrupted says what it has found
        for change in changes:
            tests = bench.reach.tests_of(change, bench.noticed)
            seen = bool(tests) and bench.notices(change.source, tests)
            tried += 1
            if not seen:
                missed += 1
                reached = f"of {len(tests)} tests" if tests else "no test comes there"
                print(f"  missed, line {change.line}, {reached}: {change.name}", flush=True)
    (place / file).write_text(text)
    noticed = tried - missed
    share = noticed / max(1, tried)
    how = "all" if drawn is every else f"a sample (seed {seed})"
    print(
        f"{file}: {noticed} of {tried} noticed, {share:.1%}; {len(changes) - tried} were not tried, {len(drawn) - len(changes)} "
        f"of {len(drawn)} are equivalent; {how}, {time.monotonic() - begun:.0f} s",
        flush=True,
    )
    return share


def main() -> None:
    """Run the changes, print what was not noticed, and exit with 1 where too much was not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", default=list(CORES), help="the cores to change; all without")
    parser.add_argument("--sample", type=int, default=0, help="so many changes of each file, drawn from all; all without")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    chosen = parser.parse_args()
    known, short = equivalents(), False
    with tempfile.TemporaryDirectory() as where:
        place = Path(where) / "project"
        shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(".git", ".nox", "__pycache__", "build", ".*_cache"))
        for file in chosen.files:
            short = _score(file, place, chosen.sample, chosen.seed, known) < FLOOR or short
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
