"""A page, played: its blocks run in order, in one namespace and one directory, against an embedded Nex."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import textwrap
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

from nex_async import Nex, errors
from nex_async.emulator import Emulator

from ..harness.canary import KEY
from .pages import Block, blocks_of, is_shown
from .shell import Shell, check_dockerfile

__all__ = ["LANGUAGES", "Stage", "localised", "shown"]

LANGUAGES = ("console", "dockerfile", "json", "python", "text", "toml")
QUOTED = {"docs/errors.md": errors.__doc__ or ""}
"""What a page quotes of the code, as text that nobody prints."""
_PRODUCTION = "https://app.nex.ai"


def localised(text: str, origin: str) -> str:
    """Return a block with production replaced by a server that runs here."""
    return text.replace(_PRODUCTION, origin)


def shown(page: str, name: str, origin: str = "http://127.0.0.1:1") -> Callable[..., Any]:
    """Return a function that a page shows, made of all its blocks as a reader would run them."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(page):
        if block.language == "python" and not _is_program(block.text):
            exec(_compiled(page, block, origin), names)
    found: Callable[..., Any] = names[name]
    return found


def _compiled(page: str, block: Block, origin: str) -> Any:
    source = "\n" * (block.line - 1) + localised(block.text, origin)
    return compile(source, page, "exec", dont_inherit=True)  # as a reader would run it


def _is_program(text: str) -> bool:
    """Return whether a block is a whole program, which starts an event loop of its own."""
    return re.search(r"^(?:    )?asyncio\.run\(", text, re.MULTILINE) is not None and "async def main" in text


class Stage:
    """One page and what it is played with."""

    def __init__(self, page: str, shell: Shell, emulator: Emulator, nex: Nex, capsys: pytest.CaptureFixture[str]) -> None:
        self._page = page
        self._shell = shell
        self._capsys = capsys
        self._origin = emulator.url.removesuffix("/api/developers")
        self._names: dict[str, Any] = {"__name__": "page"}
        self._idle: list[str] = []
        self._arguments: dict[str, Any] = {
            "nex": nex, "emulator": emulator, "key": KEY, "keys": [KEY, KEY], "path": "page.sqlite",
            "url": f"{emulator.url}/v1/insights/stream",
        }  # fmt: skip

    async def play(self, skip: frozenset[str]) -> None:
        """Run every block, and each function but those to `skip`; raises `AssertionError` where a page is not as it says."""
        before: Block | None = None
        for block in blocks_of(self._page):
            if block.language == "text":
                if textwrap.indent(block.text, "    ") in QUOTED.get(self._page, ""):
                    continue
                is_output = before is not None and before.language == "python"
                assert is_output, f"line {block.line}: text that is no output of a block before it"
                printed = self._capsys.readouterr().out
                assert is_shown(block.text, printed), f"line {block.line}: {printed}"
            else:
                self._capsys.readouterr()
                await self._run(block, skip)
            before = block
        await self._shell.leave()
        self._check_idle()

    async def _run(self, block: Block, skip: frozenset[str]) -> None:
        assert block.language in LANGUAGES, f"line {block.line}: nobody knows how to run {block.language!r}"
        if block.language == "python":
            await self._python(block, skip)
        elif block.language == "console":
            await self._shell.type(localised(block.text, self._origin))
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
            tomllib.loads(block.text)
        elif block.language == "dockerfile":
            check_dockerfile(block.text)

    async def _python(self, block: Block, skip: frozenset[str]) -> None:
        code = _compiled(self._page, block, self._origin)
        if _is_program(block.text):
            self._names["__name__"] = "__main__"
            await asyncio.to_thread(exec, code, self._names)
            self._names["__name__"] = "page"
            return
        before = dict(self._names)
        exec(code, self._names)
        for name, made in list(self._names.items()):
            # A test on a page is run by pytest: see test_guides.
            is_new = isinstance(made, FunctionType) and before.get(name) is not made and not name.startswith("test_")
            if is_new and made.__code__.co_filename == self._page and name not in skip:
                await self._call(made)

    async def _call(self, function: FunctionType) -> None:
        """Call a function with the arguments it names, where the stage has them all."""
        wanted = [each.name for each in inspect.signature(function).parameters.values() if each.default is each.empty]
        if not set(wanted) <= self._arguments.keys():
            self._idle.append(function.__name__)
            return
        result = function(**{name: self._arguments[name] for name in wanted})
        if inspect.isawaitable(result):
            await asyncio.wait_for(result, 40)

    def _check_idle(self) -> None:
        """A function that only the page can call is called by the page."""
        code = "\n".join(block.text for block in blocks_of(self._page) if block.language == "python")
        unused = [name for name in self._idle if len(re.findall(rf"\b{name}\b", code)) < 2]
        assert not unused, f"nobody calls {unused}"
