"""Runs the command in this process, as `nex-async` would run."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from nex_async.cli import main
from nex_async.emulator import Emulator

from ..harness.canary import KEY, leaked

__all__ = ["at", "lines", "nex", "run"]


def run(*arguments: str, status: int = 0, input: str | None = None, env: dict[str, str] | None = None) -> Result:
    """Run the command; it ends with `status`, shows no traceback and no key, and is told in at most two lines if it fails."""
    done = CliRunner().invoke(main, list(arguments), input=input, env=env)
    assert done.exit_code == status, (done.output, done.exception)
    assert "Traceback" not in done.output
    assert not leaked(done.output)
    return done


def nex(*arguments: str, status: int = 0, input: str | None = None) -> Result:
    """Run the command on the embedded Nex in the file `db`."""
    return run(*arguments, "--local", "db", status=status, input=input)


def lines(done: Result) -> list[Any]:
    """Return the JSON Lines that were printed."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def at(emulator: Emulator) -> dict[str, str]:
    """Return the environment that points the command at a running server."""
    return {"NEX_API_KEY": KEY, "NEX_API_BASE_URL": emulator.url}
