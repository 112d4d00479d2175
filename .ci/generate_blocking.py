"""Write `nex_async/blocking/resources.py` from the asynchronous resources: `python .ci/generate_blocking.py`.

A method keeps its signature and its docstring; its body calls the method behind it, and wraps what comes back. A docstring
that speaks of waiting needs a line in `PHRASES`. A test runs this and compares.
"""

from __future__ import annotations

import ast
import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for path in (ROOT / "nex_async/resources").glob("*.py") if path.stem not in ("__init__", "base"))
CLIENT = ROOT / "nex_async/client.py"
TARGET = ROOT / "nex_async/blocking/resources.py"

WRAPPERS = {"BulkRun", "Export", "Feed", "InsightFeed", "Job", "Pager"}
"""What a method returns that has a blocking form, of the same name."""
OURS = {"BulkRun", "Export", "Feed", "InsightEvent", "InsightFeed", "Job", "Pager", "Partition", "Rows"}
"""Names that mean the blocking form in annotations."""
ARGUMENTS = {
    "Rows": "pulled({name}, desk)",
    "Iterable[Job": "behind({name})",
    "Callable[[InsightEvent]": "filter_of(self._nex, {name})",
}
"""How arguments are handed over whose annotation begins so."""

PHRASES = {
    r"\basync (for|with)\b": r"\1",
    r"await the run for its report": "`run()` it for its report",
    r"await it for its report": "`run()` it for its report",
    r"when awaited `StorageError`": "when run `StorageError`",
    r"Await it for the `connection_id`": "`wait()` for the `connection_id`",
    r"`await (nex\.integrations\.attach\(started\))`": r"`\1.wait()`",
}

HEADER = '''"""Resources that block: the asynchronous ones, method by method.

Written by `.ci/generate_blocking.py`; not to be edited.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from .base import Client, Resource
from .bulk import BulkRun, Export, Rows, readable
from .desk import Desk, pulled
from .feeds import Feed, InsightEvent, InsightFeed, filter_of
from .jobs import Job, behind
from .paging import Pager
'''
LATE = """
if TYPE_CHECKING:
    from .partitions import Partition
"""


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Yield the imports of a resource's module that its annotations may need, as seen from here."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            kept = [alias for alias in node.names if (alias.asname or alias.name) not in {*OURS, "Resource"}]
            if node.level == 1:
                node = ast.ImportFrom(f"resources.{node.module}", kept, 2)
            if kept:
                yield ast.unparse(ast.ImportFrom(node.module, kept, node.level))
        elif isinstance(node, ast.Import):
            yield ast.unparse(node)


def names_of(tree: ast.Module, module: str) -> Iterator[str]:
    """Yield the imports of what a resource's module itself defines for its annotations, and its type variables."""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
            yield f"from ..resources.{module} import {ast.unparse(node.target)}"
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("TypeVar("):
            yield ast.unparse(node)


class _Names(ast.NodeTransformer):
    """Lets annotations name what blocks: `bulk.BulkRun` becomes `BulkRun`."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Drop the module before one of our names."""
        return ast.Name(node.attr) if node.attr in OURS else node


def blocking(node: ast.AsyncFunctionDef | ast.FunctionDef) -> ast.FunctionDef:
    """Return a method of the same signature, without a body."""
    arguments = _Names().visit(copy.deepcopy(node.args))
    returns = _Names().visit(copy.deepcopy(node.returns))
    made = ast.FunctionDef(node.name, arguments, [], list(node.decorator_list), returns)
    if sys.version_info >= (3, 12):
        made.type_params = []
    return made


def spoken(text: str) -> str:
    """Return a docstring as it reads without `await`."""
    for phrase, ours in PHRASES.items():
        text = re.sub(phrase, ours, text)
    left = re.search(r"\b(?i:await\w*|async\w*)\b.*", text)
    if left:
        raise SystemExit(f"a docstring speaks of waiting, and PHRASES has nothing for it: {left[0]}")
    return text


def handed_over(node: ast.FunctionDef) -> str:
    """Return the arguments of the call to the method behind."""
    every = node.args

    def passed(argument: ast.arg) -> str:
        annotation = "" if argument.annotation is None else ast.unparse(argument.annotation)
        for start, form in ARGUMENTS.items():
            if annotation.startswith(start):
                return form.format(name=argument.arg)
        return argument.arg

    parts = [passed(argument) for argument in (*every.posonlyargs, *every.args)[1:]]
    parts += [f"{argument.arg}={passed(argument)}" for argument in every.kwonlyargs]
    if every.kwarg is not None:
        parts.append(f"**{every.kwarg.arg}")
    return ", ".join(parts)


def body_of(node: ast.FunctionDef, *, is_async: bool, is_overloaded: bool) -> list[str]:
    """Return the lines of a method's body."""
    assert node.returns is not None
    returns = ast.unparse(node.returns)
    kind = returns.split("[")[0]
    method = "self._async" if node.name == "__call__" else f"self._async.{node.name}"
    lines = []
    if is_overloaded:
        lines.append(f"method: Any = {method}")
        method = "method"
    call = f"{method}({handed_over(node)})"
    if "desk" in call:
        lines.append("desk = Desk()")
    if is_async:
        call = f"self._nex._call(lambda: {call})"
    if kind == "BulkRun":
        call = f"BulkRun(self._nex, {call}, desk)"
    elif returns.startswith("Feed[Job["):
        call = f"Feed(self._nex, {call}, Job)"
    elif kind in WRAPPERS:
        call = f"{kind}(self._nex, {call})"
    elif "list[Partition]" in returns:
        call = f"readable({call})"
    if is_async and is_overloaded:
        return [*lines, f"found: {returns} = {call}", "return found"]
    return [*lines, call if returns == "None" else f"return {call}"]


def methods_of(resource: ast.ClassDef) -> Iterator[str]:
    """Yield the text of each public method."""
    overloaded = {
        node.name
        for node in resource.body
        if isinstance(node, (ast.AsyncFunctionDef, ast.FunctionDef))
        and any(ast.unparse(mark) == "overload" for mark in node.decorator_list)
    }
    for node in resource.body:
        if not isinstance(node, (ast.AsyncFunctionDef, ast.FunctionDef)):
            continue
        if node.name.startswith("_") and node.name != "__call__":
            continue
        made = blocking(node)
        if made.decorator_list:
            lines = ["..."]
        else:
            is_async = isinstance(node, ast.AsyncFunctionDef)
            lines = body_of(made, is_async=is_async, is_overloaded=node.name in overloaded)
            text = spoken(ast.get_docstring(node) or "")
            lines[:0] = f'"""{text}{chr(10) if chr(10) in text else ""}"""'.split("\n")
        made.body = [ast.Pass()]
        head = ast.unparse(ast.fix_missing_locations(made)).rsplit("\n", 1)[0]
        yield "\n".join([head, *(f"    {line}" if line else "" for line in lines)])


def class_of(tree: ast.Module, module: str) -> tuple[str, str]:
    """Return the name of a module's resource, and the text of its blocking form."""
    resource = next(
        node for node in tree.body if isinstance(node, ast.ClassDef) and "Resource" in map(ast.unparse, node.bases)
    )
    text = spoken(ast.get_docstring(resource) or "")
    head = f'class {resource.name}(Resource[{module}.{resource.name}]):\n    """{text}"""\n'
    methods = [method.replace("\n", "\n    ") for method in methods_of(resource)]
    return resource.name, "\n".join([head, *(f"    {method}\n" for method in methods)])


def attributes(resources: set[str]) -> str:
    """Return the class that has an attribute for each resource, as the client has."""
    tree = ast.parse(CLIENT.read_text())
    client = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Nex")
    lines = ["class Resources(Client):", '    """A client with an attribute for each group of operations."""', ""]
    for node in client.body:
        if isinstance(node, ast.FunctionDef) and node.returns is not None and ast.unparse(node.returns) in resources:
            kind = ast.unparse(node.returns)
            lines += [
                "    @cached_property",
                f"    def {node.name}(self) -> {kind}:",
                f'        """{ast.get_docstring(node)}"""',
                f"        return {kind}(self, self._async.{node.name})",
                "",
            ]
    return "\n".join(lines)


def generate() -> str:
    """Return the whole module."""
    imports, variables, classes, names = [], [], [], set()
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        imports.append(f"from ..resources import {path.stem}")
        imports += imports_of(tree)
        for line in names_of(tree, path.stem):
            (imports if line.startswith("from") else variables).append(line)
        name, text = class_of(tree, path.stem)
        names.add(name)
        classes.append(text)
    unique = "\n".join(dict.fromkeys(imports))
    every = f"__all__ = {[*sorted(names), 'Resources']}"
    parts = [HEADER + unique, LATE, every, "\n".join(dict.fromkeys(variables)), *classes, attributes(names)]
    return tidy("\n\n".join(parts))


def tidy(text: str) -> str:
    """Return code as the linter wants it: imports pruned and sorted, and formatted."""
    ruff = [sys.executable, "-m", "ruff"]
    place = ["--stdin-filename", str(TARGET), "-"]
    for command in ("check --quiet --fix-only --select F401,I,RUF022", "format --quiet"):
        whole = [*ruff, *command.split(), *place]
        text = subprocess.run(whole, input=text, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True).stdout  # noqa: S603
    return text


if __name__ == "__main__":
    TARGET.write_text(generate())
