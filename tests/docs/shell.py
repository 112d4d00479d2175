"""What a reader types at a terminal, typed: in a directory of its own, one command after the other."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from nex_async.cli import main

from .pages import ROOT, Typed, is_shown, typed
from .screen import Screen, screen

__all__ = ["Shell", "check_dockerfile"]

_NEX_ASYNC = f"""#!/bin/sh
exec '{sys.executable}' -W error -c "from nex_async.cli import main; main(prog_name='nex-async')" "$@"
"""


class Shell:
    """A reader's terminal, and the services he has started at others."""

    def __init__(self, place: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        programs = place / ".bin"
        programs.mkdir()
        (programs / "nex-async").write_text(_NEX_ASYNC)
        (programs / "nex-async").chmod(0o755)
        (programs / "python").symlink_to(sys.executable)
        for name, value in (("PATH", f"{programs}:{os.environ['PATH']}"), ("HOME", str(place)), ("COLUMNS", "90")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
        for name in ("rich", "keyring"):  # tables as they are without the extra, and nobody's real keyring
            monkeypatch.setitem(sys.modules, name, None)
        self._monkeypatch = monkeypatch
        self._place = place
        self._port = port
        self._status = 0
        self._services: list[tuple[asyncio.subprocess.Process, Screen, Typed]] = []
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Shell:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for process, _, _ in self._services:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await self._closing.aclose()

    async def type(self, block: str) -> None:
        """Type the commands of a block; what the page shows of their output is what they print."""
        commands = typed(re.sub(r"(127\.0\.0\.1:|--port )8787\b", rf"\g<1>{self._port}", block))
        for entered, following in zip(commands, [*commands[1:], None], strict=True):
            printed = await self._enter(entered)
            if printed is None:
                continue
            expects_failure = following is not None and following.command == "echo $?"
            assert expects_failure or self._status == 0, f"$ {entered.command}\n{printed}"
            assert not entered.output or is_shown(entered.output, printed), f"$ {entered.command}\n{printed}"

    async def _enter(self, entered: Typed) -> str | None:
        """Run a command, and return what it printed; None where there is nothing to compare."""
        command = entered.command
        if setting := re.fullmatch(r"export (\w+)=(\S*)", command):
            self._monkeypatch.setenv(setting[1], setting[2])
        elif setting := re.fullmatch(r"unset (\w+)", command):
            self._monkeypatch.delenv(setting[1], raising=False)
        elif command == "echo $?":
            status, self._status = self._status, 0
            return f"{status}\n"
        elif is_checked(command):
            pass
        elif _is_service(command):
            await self._serve(entered)
        elif (line := _Line.of(command)) is not None:
            return await self._here(line)
        else:
            return await self._bash(command)
        return None

    async def _here(self, line: _Line) -> str:
        """Run `nex-async` in this process, which is much faster, on a terminal, with what is piped in and out of it."""
        arguments = await self._words(line.command)
        given, taken = self._place / ".in", self._place / (line.file or ".out")
        given.write_text(await self._bash(line.before) if line.before else "")
        async with screen() as shown:
            out = taken if line.after or line.file else None
            self._status = await asyncio.to_thread(_run, arguments, given, out, shown.end)
            await asyncio.wait_for(shown.ended.wait(), 5)
        return shown.text + (await self._bash(f"{line.after} < .out") if line.after else "")

    async def _words(self, command: str) -> list[str]:
        """Return the arguments of a command, as the shell makes them of its text."""
        given = self._place / ".words"
        await self._bash(f"printf '%s\\0' {command} > .words")
        return given.read_text().split("\0")[1:-1]

    async def _bash(self, command: str) -> str:
        async with screen() as shown:
            process = await _start(command, shown)
            self._status = await asyncio.wait_for(process.wait(), 50)
            await asyncio.wait_for(shown.ended.wait(), 5)
            return shown.text

    async def _serve(self, entered: Typed) -> None:
        """Start what runs until Ctrl-C, and wait for its first word."""
        shown = await self._closing.enter_async_context(screen())
        port = f" --port {self._port}" if " serve" in entered.command and "--port" not in entered.command else ""
        process = await _start(f"exec {entered.command}{port}", shown)
        self._services.append((process, shown, entered))
        await shown.until(lambda text: "\n" in text)

    async def leave(self) -> None:
        """Wait until the services have printed what the page shows, and end them by Ctrl-C, the last first."""
        while self._services:
            process, shown, entered = self._services[-1]
            await shown.until(partial(is_shown, entered.output or "..."))
            process.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(process.wait(), 20) in (0, 130, -signal.SIGINT), shown.text
            self._services.pop()


async def _start(command: str, shown: Screen) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            "bash", "-c", command, stdin=asyncio.subprocess.DEVNULL, stdout=shown.end, stderr=shown.end
        )
    finally:
        os.close(shown.end)


def _run(arguments: list[str], given: Path, taken: Path | None, end: int) -> int:
    with contextlib.ExitStack() as stack:
        screen = stack.enter_context(os.fdopen(end, "w"))
        stack.enter_context(contextlib.redirect_stderr(screen))
        stack.enter_context(contextlib.redirect_stdout(screen if taken is None else stack.enter_context(taken.open("w"))))
        before, sys.stdin = sys.stdin, stack.enter_context(given.open())
        try:
            main(arguments, prog_name="nex-async")
        except SystemExit as exit:
            return int(exit.code or 0)
        finally:
            sys.stdin = before
    return 0


class _Line(NamedTuple):
    """A command line with one `nex-async` in it, and what stands before and after it."""

    command: str
    before: str
    after: str
    file: str

    @classmethod
    def of(cls, text: str) -> _Line | None:
        """Return a command line taken apart; None where it is more than that."""
        plain = re.sub(r"""'[^']*'|"[^"]*"|\$\([^)]*\)""", lambda found: "." * len(found[0]), text)  # quoted, no mark counts
        bars = [-1, *(found.start() for found in re.finditer(r"\|", plain)), len(text)]
        pieces = [text[start + 1 : end].strip() for start, end in pairwise(bars)]
        ours = [index for index, piece in enumerate(pieces) if piece.startswith("nex-async ")]
        if len(ours) != 1 or re.search(r"[;&<]", plain) or plain.count(">") > 1:
            return None
        command, file = pieces[ours[0]], ""
        if ">" in plain:
            if plain.rindex(">") < bars[-2]:
                return None
            if ours[0] == len(pieces) - 1:
                command, file = text[bars[-2] + 1 : plain.rindex(">")].strip(), text[plain.rindex(">") + 1 :].strip()
        return cls(command, " | ".join(pieces[: ours[0]]), " | ".join(pieces[ours[0] + 1 :]), file)


def _is_service(command: str) -> bool:
    """Return whether a command runs until Ctrl-C."""
    words = command.split()
    if words[0] == "curl":
        return any(re.fullmatch(r"-[a-zA-Z]*N", word) for word in words)
    if words[0] != "nex-async" or "--help" in words:
        return False
    return words[1] == "serve" or "--watch" in words or (words[1:3] == ["insights", "listen"] and "--count" not in words)


# ---- what is not run, because it sets a machine up or has tests of its own ------------------------------------------


def is_checked(command: str) -> bool:
    """Return whether a command is one that is only checked: that what it names is there."""
    parts = [_is_checked(shlex.split(part, comments=True)) for part in command.split(" && ")]
    assert all(parts) or not any(parts), f"half of this can be run: {command}"
    return all(parts)


def _is_checked(words: list[str]) -> bool:
    if words[:2] == ["pip", "install"]:
        _check_extras(words[2:])
    elif words[:2] == ["nox", "-s"]:
        assert f"\ndef {words[2]}(session" in (ROOT / "noxfile.py").read_text(), f"no session {words[2]}"
    elif words[0] == "python" and words[1].startswith("examples/"):
        assert (ROOT / words[1]).exists(), f"no {words[1]}"
    elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks"):
        assert importlib.util.find_spec(words[2]) is not None, f"no {words[2]}"
    elif words[0] in ("curl", "sqlite3"):
        return shutil.which(words[0]) is None  # others' programs, which not every machine has
    else:
        return False
    return True


def check_dockerfile(text: str) -> None:
    """Check that a Dockerfile has instructions only, and installs what there is."""
    for line in text.splitlines():
        instruction, _, rest = line.partition(" ")
        assert instruction in ("FROM", "RUN", "COPY", "USER", "VOLUME", "WORKDIR", "CMD"), line
        if instruction == "RUN":
            assert is_checked(rest), line
        elif instruction == "CMD":
            json.loads(rest)


def _check_extras(packages: list[str]) -> None:
    listed = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]\n")[2].partition("\n\n")[0]
    known = set(re.findall(r"^([\w-]+) = \[", listed, re.MULTILINE))
    for package in packages:
        if extras := re.fullmatch(r"nex-async\[([\w,-]+)\]", package):
            assert set(extras[1].split(",")) <= known, f"{package} names an extra that is not there"
        else:
            assert package == "nex-async" or not package.startswith("nex"), f"what is {package}?"
