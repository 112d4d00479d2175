"""The house rules that a machine can check: who may import whom, what an import costs, and that everything is described."""

from __future__ import annotations

import ast
import functools
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nex_async

ROOT = Path(nex_async.__file__).parent
# Bottom to top; a module may import its own layer and those below.
LAYERS = [
    {"_lazy", "_logfields", "_typing", "_version", "errors", "config", "storage"},
    {"models"},
    {"routes"},
    {"transport"},
    {"walk", "paging", "feeds", "bulk"},
    {"compat", "resources", "sinks", "stats"},
    {"telemetry"},
    {"client"},
    {"blocking"},
    {"integrations"},
    {"cli", "testing", "__main__"},
]
EMULATOR_KNOWS = {"emulator", "models", "routes", "storage", "errors", "_version", "_typing"}


def module_of(path: Path) -> str:
    parts = ("nex_async", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}


@functools.cache
def tree_of(module: str) -> ast.Module:
    """Return the syntax of a module; read when it is asked for, for every process of the suite imports this file."""
    return ast.parse(MODULES[module].read_text())


def is_package(module: str) -> bool:
    return (ROOT.parent / Path(*module.split("."))).is_dir()


def part_of(module: str) -> str:
    """Return the part of the house a module stands in: the first name below `nex_async`."""
    return (*module.split("."), "__init__")[1]


def run_time(tree: ast.AST, *, lazy: bool) -> Iterator[ast.AST]:
    """Yield the nodes that run: nothing under `if TYPE_CHECKING`, and nothing inside functions unless asked for."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from (child for other in node.orelse for child in (other, *run_time(other, lazy=lazy)))
        elif lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from run_time(node, lazy=lazy)


def imports_of(module: str, *, lazy: bool = True) -> set[str]:
    """Return the modules of ours that a module imports when it runs."""
    found: set[str] = set()
    for node in run_time(tree_of(module), lazy=lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")
            if node.level:
                base = base[: len(base) - node.level + is_package(module)]
                start = ".".join([*base, *([node.module] if node.module else [])])
            else:
                start = node.module or ""
            names = {f"{start}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else start for name in names}
    return {name for name in found if name in MODULES and name != module}


def test_layers() -> None:
    """Each part of the house imports only what lies below it; the emulator stands aside, with its own short list."""
    height = {part: level for level, parts in enumerate(LAYERS) for part in parts}
    wrong = []
    for module in MODULES:
        part = part_of(module)
        if part == "__init__":
            continue
        for name in imports_of(module):
            other = part_of(name)
            if other == "__init__":
                allowed = height.get(part) == len(LAYERS) - 1
            elif part == "emulator":
                allowed = other in EMULATOR_KNOWS
            elif other == "emulator":
                allowed = part in ("cli", "testing")
            else:
                allowed = height[other] <= height[part]
            if not allowed:
                wrong.append(f"{module} imports {name}")
    assert wrong == ["nex_async.client imports nex_async.emulator"], "only the one lazy line of the client is allowed"


def test_the_clients_line_to_the_emulator_is_lazy() -> None:
    """Importing the client does not import the embedded server."""
    assert "nex_async.emulator" not in imports_of("nex_async.client", lazy=False)


def test_every_part_has_its_place() -> None:
    """A new part of the house is entered into the layers before it is built."""
    known = {"__init__", "emulator", *(part for parts in LAYERS for part in parts)}
    assert {part_of(module) for module in MODULES} <= known


def test_no_resource_imports_another() -> None:
    """Resources share `resources.base` and nothing else."""
    resources = [name for name in MODULES if name.startswith("nex_async.resources.")]
    wrong = {
        f"{name} imports {other}"
        for name in resources
        for other in imports_of(name)
        if other in resources and other != "nex_async.resources.base"
    }
    assert wrong == set()


def test_no_cycles() -> None:
    """No module needs itself to be imported."""
    graph = {name: imports_of(name, lazy=False) for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a cycle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in graph[name]:
                # `from . import x` in a package's own module asks for the package, which is there already.
                if not path or not name.startswith(f"{other}."):
                    visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_import_is_light() -> None:
    """`import nex_async` loads neither aiohttp, msgspec nor anyio, nor what an integration needs; naming an error loads none of them either."""
    code = (
        "import sys, nex_async; nex_async.NexError, nex_async.Timeout, dir(nex_async); "
        "heavy = {'aiohttp', 'msgspec', 'anyio', 'click', 'rich', 'yarl', 'pyarrow', 'dlt'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_resolves() -> None:
    """Every name in `__all__` is there, and is the very object of its home module."""
    for name in nex_async.__all__:
        assert getattr(nex_async, name) is not None
        assert name in dir(nex_async)
    with pytest.raises(AttributeError):
        _ = nex_async.no_such_name  # type: ignore[attr-defined]


def test_lazy_names_and_typed_names_are_the_same() -> None:
    """What type checkers see at the root and what loads at run time are the same names."""
    block = next(node for node in tree_of("nex_async").body if isinstance(node, ast.If))
    typed = {alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed | {"__version__"} == set(nex_async.__all__)


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__")])
def test_all_is_true(module: str) -> None:
    """Every module that declares `__all__` has each of its names, and imports without a warning."""
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("nex_async"):
            raise
        pytest.skip(f"needs {error.name}, which comes with an extra")
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), name


def undocumented(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield node.name
        for child in node.body if isinstance(node, ast.ClassDef) else ():
            if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) or child.name.startswith("_"):
                continue
            overloaded = any("overload" in ast.unparse(mark) for mark in child.decorator_list)
            if not overloaded and not ast.get_docstring(child):
                yield f"{node.name}.{child.name}"


PUBLIC_PARTS = {part for parts in LAYERS[:-1] for part in parts} - {"storage", "_typing", "_version"}


def test_everything_public_is_described() -> None:
    """Every module, and every public class, function and method below the command line, has a docstring."""
    missing = [module for module in MODULES if not ast.get_docstring(tree_of(module))]
    for module in MODULES:
        tree = tree_of(module)
        if part_of(module) in PUBLIC_PARTS:
            missing += [f"{module}.{name}" for name in undocumented(tree)]
    assert missing == []


def test_every_method_names_its_operation() -> None:
    """A method that sends names the operation and the scope it needs, so that a 403 is no riddle."""
    wrong = []
    for module in MODULES:
        tree = tree_of(module)
        if not module.startswith("nex_async.resources.") or module.endswith(".base"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.AsyncFunctionDef) and "Unpack[RequestOptions]" in ast.unparse(node.args):
                text = ast.get_docstring(node) or ""
                overloaded = any("overload" in ast.unparse(mark) for mark in node.decorator_list)
                if not overloaded and not node.name.startswith("_") and ("/v1/" not in text or "scope" not in text):
                    wrong.append(f"{module}.{node.name}")
    assert wrong == []
