"""Write what the documentation takes from the code: `python .ci/generate_docs.py`.

The help of every command goes into docs/commands.md and the table of operations into docs/operations.md, below a marker;
docs/llms.txt is made of the navigation and the first sentence of each page. A test fails when they are not what this writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from nex_async import Nex
from nex_async.cli import main
from nex_async.routes import ALL, Route

DOCS = Path(__file__).parent.parent / "docs"
MARKER = "<!-- From here on written by .ci/generate_docs.py. -->\n"
WIDTH = 88
"""Of the help, in characters: what click prints on a terminal of 90 columns."""


def generated() -> dict[Path, str]:
    """Return each file that is generated, as it should be."""
    bodies = {"commands.md": "\n".join(_help_pages()), "operations.md": "\n".join(_operation_tables())}
    files = {}
    for name, body in bodies.items():
        prose = (DOCS / name).read_text("utf-8").partition(MARKER)[0]
        files[DOCS / name] = f"{prose}{MARKER}\n{body}"
    files[DOCS / "llms.txt"] = _llms(files)
    return files


# ---- the help of every command --------------------------------------------------------------------------------------


def commands(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command, groups before what is in them."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


def _help_pages() -> Iterator[str]:
    for words in commands():
        title = " ".join(("nex-async", *words))
        yield f"{'###' if len(words) > 1 else '##'} {title}\n"
        done = CliRunner().invoke(main, [*words, "--help"], prog_name="nex-async", terminal_width=WIDTH)
        assert done.exit_code == 0, done.output
        yield f"```console\n$ {title} --help\n{done.output.rstrip()}\n```\n"


# ---- the operations -------------------------------------------------------------------------------------------------

_HEAD = "| operation | method | scope | class | time | |\n|---|---|---|---|---|---|"


def _operation_tables() -> Iterator[str]:
    methods = _methods()
    groups: dict[str, list[str]] = {}
    for route in ALL:
        found = methods[route.method, route.path]
        groups.setdefault(found[0][0], []).append(_row(route, found))
    for resource, rows in groups.items():
        yield f"## {resource}\n\n{_HEAD}\n" + "\n".join(rows) + "\n"


def _row(route: Route[Any], methods: list[tuple[str, str]]) -> str:
    where = f"`{route.method} {route.path}`<br>{route.name}"
    how = "<br>".join(f"[`{resource}{name}`]({_anchor(resource, name)})" for resource, name in methods)
    scopes = " or ".join(f"`{scope}`" for scope in route.scopes)
    return f"| {where} | {how} | {scopes} | {route.retry} | {route.deadline} | {'extended' if route.extended else 'core'} |"


@cache
def _resources() -> dict[str, type]:
    nex = Nex("sk-nobody", base_url="http://localhost")
    names = [name for name, value in vars(Nex).items() if isinstance(value, cached_property)]
    return {name: type(getattr(nex, name)) for name in names}


def _anchor(resource: str, name: str) -> str:
    kind = _resources()[resource]
    method = ".__call__" if name == "(...)" else name
    return f"reference/resources.md#{kind.__module__}.{kind.__qualname__}{method}"


def _methods() -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return for each operation the methods that send it, by what their docstrings begin a line with."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for resource, kind in _resources().items():
        for name, member in vars(kind).items():
            sent = re.search(r"^ *`([A-Z]+) (/v1/[^`?]*)[^`]*`", inspect.getdoc(member) or "", re.MULTILINE)
            if callable(member) and sent:
                found.setdefault((sent[1], sent[2]), []).append((resource, "(...)" if name == "__call__" else f".{name}"))
    return found


# ---- llms.txt -------------------------------------------------------------------------------------------------------

_ENTRY = re.compile(r"^  - (?:(?P<page>\S+\.md)|(?P<section>[^:]+):)$|^      - (?P<inner>\S+\.md)$", re.MULTILINE)


def pages() -> list[tuple[str, list[str]]]:
    """Return the sections of the navigation, each with its pages; the start page stands in one without a name."""
    navigation = (Path(__file__).parent / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2].partition("\n\n")[0]
    found: list[tuple[str, list[str]]] = [("", [])]
    for entry in _ENTRY.finditer(navigation):
        if entry["section"]:
            found.append((entry["section"], []))
        else:
            found[-1][1].append(entry["page"] or entry["inner"])
    return found


def _llms(files: dict[Path, str]) -> str:
    _, summary = _beginning((DOCS / "index.md").read_text("utf-8"))
    lines = ["# nex-async", "", f"> {summary}", "", "Each page is Markdown, and every block of code in it is run by a test."]
    for section, names in pages():
        lines += ["", f"## {section or 'Start'}", ""]
        for name in names:
            title, first = _beginning(files.get(DOCS / name) or (DOCS / name).read_text("utf-8"))
            lines.append(f"- [{title}]({name}): {first}")
    return "\n".join(lines) + "\n"


def _beginning(page: str) -> tuple[str, str]:
    """Return the title of a page, and its first sentence as plain text."""
    title, _, rest = page.removeprefix("# ").partition("\n")
    paragraph = " ".join(rest.strip().partition("\n\n")[0].split())
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", paragraph)
    return title, re.split(r"(?<=[a-z0-9`)]\.) ", plain)[0]


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, "utf-8")
