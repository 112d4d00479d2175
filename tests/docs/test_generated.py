"""What the documentation takes from the code is what the code says."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType
from typing import Any

import nex_async
from nex_async.routes import ALL

from ..harness.scripts import script
from .pages import PAGES, ROOT, text_of


def generator() -> ModuleType:
    """Return the script that writes these parts, as a module."""
    return script("generate_docs")


def test_generated_parts_are_up_to_date() -> None:
    """The help of every command, the operations and llms.txt are as `python .ci/generate_docs.py` writes them."""
    stale = [path.name for path, text in generator().generated().items() if path.read_text("utf-8") != text]
    assert stale == [], "run python .ci/generate_docs.py"


def test_every_operation_is_in_the_table() -> None:
    """All 61 are there, each once, with a method that sends it."""
    rows = re.findall(r"^\| `([A-Z]+ /v1/\S*)`<br>(\w+) \| \[", text_of("docs/operations.md"), re.MULTILINE)
    assert sorted(rows) == sorted((f"{route.method} {route.path}", route.name) for route in ALL)
    assert len(rows) == 61


def test_every_page_is_in_the_navigation_and_in_llms_txt() -> None:
    """No page can be forgotten, and none is named that is not there; llms.txt has the form that llmstxt.org asks for."""
    pages = sorted(page.removeprefix("docs/") for page in PAGES if page.startswith("docs/"))
    assert sorted(page for _, names in generator().pages() for page in names) == pages
    text = text_of("docs/llms.txt")
    assert re.match(r"# \S.*\n\n> \S.*\n", text)
    assert sorted(re.findall(r"^- \[.+?\]\(([\w./-]+)\): \S", text, re.MULTILINE)) == pages


def _public() -> set[str]:
    """Return the dotted name of everything a user may import."""
    names = {f"nex_async.{name}" for name in nex_async.__all__} - {"nex_async.__version__", "nex_async.UNSET"}
    for module in ("models", "compat"):
        names |= {f"nex_async.{module}.{name}" for name in importlib.import_module(f"nex_async.{module}").__all__}
    return names | {f"{kind.__module__}.{kind.__name__}" for kind in generator()._resources().values()}


def _object_at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_reference_is_complete() -> None:
    """Each public name has its place in the reference, and what is there exists."""
    described = set()
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        described |= set(re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE))
    if importlib.util.find_spec("ray") is None:
        described = {path for path in described if not path.startswith("nex_async.integrations.ray.")}
    same = {id(_object_at(path)) for path in described}
    assert sorted(name for name in _public() if id(_object_at(name)) not in same) == []
