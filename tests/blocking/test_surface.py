"""The blocking surface is the asynchronous one: it is generated where it can be, and compared with it everywhere."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import nex_async
from nex_async import blocking
from nex_async.blocking.resources import Resources
from nex_async.paging import Prefetch

from ..harness.scripts import script

ROOT = Path(nex_async.__file__).parent.parent
GENERATOR = ROOT / ".ci" / "generate_blocking.py"

NAMES = {
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
AWAITED = {"Pager": "first_page", "Job": "wait", "BulkRun": "run", "Export": "run"}
"""What `await` does of each, by its name here."""
SPECIAL = {*NAMES, *NAMES.values(), "__await__", "__call__", "__eq__", "__hash__", "__reduce__", "__len__"}

NOT_HERE = {
    "BulkRun.abort": "the client behind calls it when it closes",
    "BulkRun.over": "the client behind calls it when it closes",
    "SessionPool.census": "the statistics of the client behind call it",
    "SessionPool.connections": "the client behind calls it",
    "SessionPool.make_connector": "the client behind calls it",
    **dict.fromkeys(
        [
            f"SessionPool.{name}"
            for name in ("max_connections", "keepalive", "max_body", "ssl", "proxy", "proxy_from_env", "rate_budget")
        ],
        "the client behind reads it",
    ),
}
"""What has no blocking form, and why."""
OTHERWISE = {
    "FeedQueue.get": "takes a timeout: there is no task to cancel",
    "InsightEvent.ack": "returns when it is done",
    "Partition.read": "takes a blocking client",
}
"""What is to differ, and how."""

RESOURCES = [
    (inspect.signature(value.func).return_annotation, name)
    for name, value in vars(nex_async.Nex).items()
    if isinstance(value, cached_property)
]
CLASSES = ["Nex", "SessionPool", "Pager", "Job", "Feed", "FeedQueue", "InsightFeed", "InsightEvent", "BulkRun", "Export",
           "Mirror", "Partition"]  # fmt: skip


def pairs() -> Iterator[tuple[type, type]]:
    """Yield every asynchronous class that a user meets, with its blocking form."""
    for name in CLASSES:
        yield getattr(nex_async, name), getattr(blocking, name)
    yield Prefetch, blocking.Prefetch
    behind = importlib.import_module("nex_async.resources")
    here = importlib.import_module("nex_async.blocking.resources")
    for kind, _ in RESOURCES:
        yield getattr(behind, kind), getattr(here, kind)


PAIRS = list(pairs())


def attributes_of(kind: type) -> set[str]:
    """Return the public attributes that instances of a class get."""
    found = {name for base in kind.__mro__ for name in getattr(base, "__annotations__", ())}
    for base in kind.__mro__[:-1]:
        if base.__module__.startswith("nex_async"):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
            for node in ast.walk(tree):
                if isinstance(node, (ast.AnnAssign, ast.Assign)):
                    targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                    found |= {ast.unparse(target)[5:] for target in targets if ast.unparse(target).startswith("self.")}
    return {name for name in found if name.isidentifier() and not name.startswith("_")}


def public_of(kind: type) -> set[str]:
    """Return the public names of a class and its instances."""
    own = {name for name in dir(kind) if not name.startswith("_") or (name in SPECIAL and defines(kind, name))}
    return own | attributes_of(kind)


def defines(kind: type, name: str) -> bool:
    return any(name in vars(base) for base in kind.__mro__ if base.__module__.startswith("nex_async"))


def ours(kind: type, name: str) -> str:
    return AWAITED[kind.__name__] if name == "__await__" else NAMES.get(name, name)


def generator() -> ModuleType:
    return script("generate_blocking")


@pytest.mark.skipif(not GENERATOR.exists(), reason="not a checkout of the repository")
def test_generated_code_is_fresh() -> None:
    """The resources that block are, byte for byte, what the generator makes of the asynchronous ones."""
    assert generator().generate() == (ROOT / "nex_async" / "blocking" / "resources.py").read_text()


def test_every_resource_has_its_blocking_form() -> None:
    """Every attribute of the client that is a group of operations is there on the blocking client."""
    assert len(RESOURCES) == 15
    for kind, name in RESOURCES:
        mine = vars(Resources)[name]
        assert inspect.signature(mine.func).return_annotation == kind
        assert mine.__doc__ == vars(nex_async.Nex)[name].__doc__


@pytest.mark.parametrize(("behind", "mine"), PAIRS, ids=[behind.__name__ for behind, _ in PAIRS])
def test_everything_public_is_there(behind: type, mine: type) -> None:
    """Every public method, property and attribute has its blocking form, or a reason to have none."""
    there = public_of(mine)
    missing = {name for name in public_of(behind) if ours(behind, name) not in there}
    excused = {name.partition(".")[2] for name in NOT_HERE if name.startswith(f"{behind.__name__}.")}
    assert missing == excused


@pytest.mark.parametrize(("behind", "mine"), PAIRS, ids=[behind.__name__ for behind, _ in PAIRS])
def test_methods_take_the_same(behind: type, mine: type) -> None:
    """Every method takes the same arguments, with the same names, kinds and defaults."""
    wrong = []
    for name in public_of(behind):
        one = inspect.getattr_static(behind, name, None)
        other = inspect.getattr_static(mine, ours(behind, name), None)
        if name in SPECIAL or f"{behind.__name__}.{name}" in {**NOT_HERE, **OTHERWISE}:
            continue
        one, other = (each.__func__ if isinstance(each, classmethod) else each for each in (one, other))
        if inspect.isfunction(one) and inspect.isfunction(other):
            taken = [[(each.name, each.kind, each.default) for each in parameters(function)] for function in (one, other)]
            if taken[0] != taken[1]:
                wrong.append(f"{name}: {taken}")
        elif inspect.isfunction(one) != inspect.isfunction(other):
            wrong.append(name)
    assert wrong == []


def test_the_constructor_takes_the_same() -> None:
    """The client and the pool are made with the arguments they are made with in asynchronous code."""
    for name in ("Nex", "SessionPool"):
        one, other = getattr(nex_async, name), getattr(blocking, name)
        assert [(each.name, each.kind, each.default) for each in parameters(one.__init__)] == [
            (each.name, each.kind, each.default) for each in parameters(other.__init__)
        ]


def parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def test_exceptions_have_not_outlived_their_reason() -> None:
    """What is said to be missing or different exists, and is."""
    by_name = {behind.__name__: (behind, mine) for behind, mine in PAIRS}
    for place in NOT_HERE:
        kind, _, name = place.partition(".")
        behind, mine = by_name[kind]
        assert name in public_of(behind)
        assert name not in public_of(mine)
    for place in OTHERWISE:
        kind, _, name = place.partition(".")
        assert all(hasattr(each, name) for each in by_name[kind])


@pytest.mark.parametrize("mine", [mine for _, mine in PAIRS], ids=[mine.__name__ for _, mine in PAIRS])
def test_nothing_is_left_to_await(mine: type) -> None:
    """No method of the blocking client is a coroutine, and no docstring tells to await anything."""
    for name, value in vars(mine).items():
        function = value.__func__ if isinstance(value, classmethod) else value
        assert not inspect.iscoroutinefunction(function), name
        assert not inspect.isasyncgenfunction(function), name
        assert not spoken_of_waiting(value if name == "__doc__" else getattr(value, "__doc__", None)), name


def spoken_of_waiting(text: str | None) -> object:
    plain = (text or "").replace("nex-async", "").replace("without `await`", "")
    return re.search(r"\bawait(ed)?\b|\basync\b", plain)
