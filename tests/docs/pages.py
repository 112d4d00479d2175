"""Pages taken apart: their blocks of code, and whether what was printed is what they show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["PAGES", "ROOT", "Block", "Typed", "blocks_of", "is_shown", "rows_of", "text_of", "typed"]

ROOT = Path(__file__).parent.parent.parent
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line of the page on which the text begins."""

    language: str
    text: str
    line: int


class Typed(NamedTuple):
    """What is typed at a terminal, and what the page shows of its output."""

    command: str
    output: str


def text_of(page: str) -> str:
    """Return a page as it is."""
    return (ROOT / page).read_text("utf-8")


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    text = text_of(page)
    assert len(re.findall(r"^\s*```", text, re.MULTILINE)) == 2 * len(_FENCE.findall(text)), f"{page} has a stray fence"
    return [Block(found[1], found[2], text[: found.start(2)].count("\n") + 1) for found in _FENCE.finditer(text)]


def typed(block: str) -> list[Typed]:
    """Return the commands of a `console` block; one may go on over lines, by a backslash or to the end of a here-document."""
    commands: list[Typed] = []
    lines = iter(block.splitlines())
    for line in lines:
        if not line.startswith("$ "):
            assert commands, f"output without a command: {line}"
            commands[-1] = Typed(commands[-1].command, f"{commands[-1].output}{line}\n")
            continue
        command = line[2:]
        while command.endswith("\\"):
            command += f"\n{next(lines)}"
        if here := re.search(r"<<'?(\w+)'?", command):
            while not command.endswith(f"\n{here[1]}"):
                command += f"\n{next(lines)}"
        commands.append(Typed(command, ""))
    return commands


def rows_of(text: str, heading: str) -> list[str]:
    """Return the first cells of the table of a page whose heading begins so."""
    (table,) = re.findall(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return re.findall(r"^\| (.*?) \|", table, re.MULTILINE)


_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"), "TIME"),
    (re.compile(r"\b\d{14,}\b|\b[0-9a-f]{16,}\b"), "ID"),
    (re.compile(r"\b\d+(?:\.\d+)? m?s\b"), "DURATION"),
    (re.compile(r"\b\d+ rows/s"), "RATE"),
    (re.compile(r"127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" ?(?:\r?\n)+"), "\n"),
)


def _masked(text: str) -> str:
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text.strip()


def is_shown(shown: str, printed: str) -> bool:
    """Return whether a page shows what was printed: ids, times and spaces may differ, and `...` stands for anything."""
    pattern = re.escape(_masked(shown)).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, _masked(printed), re.DOTALL) is not None
