"""The command `serve`, spoken to over the wire."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from .conftest import Api
from .listening import add, listening

_COMMAND = [sys.executable, "-W", "error", "-c", "from nex_async.cli import main; main(prog_name='nex-async')", "serve"]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


async def test_data_survive_and_ctrl_c_is_clean(tmp_path: Path) -> None:
    """A server told to stop ends its streams and says so; started again on the same file it has the same data."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [*_COMMAND, "--port", "0", "--db", str(tmp_path / "nex.db"), "--switch", "job_envelope=wrapped"]
    for contents in (["They left."], ["They left.", "They left."]):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(5)]
            url = next(line.split("=", 1)[1].strip() for line in lines if "NEX_API_BASE_URL=" in line)
            async with aiohttp.ClientSession() as session:
                api = Api(session, url, "sk-local")
                await add(api, "They left.")
                async with listening(api) as stream:
                    assert await stream.contents(len(contents)) == contents
                    process.send_signal(signal.SIGINT)
                    assert await stream.rest() == b""
            output, errors = await asyncio.to_thread(process.communicate, timeout=20)
        assert (process.returncode, errors) == (0, "")
        assert "stopped" in output


@pytest.mark.parametrize("switch", ["nothing=on", "insights_rest=fancy", "insights_rest"])
def test_a_wrong_switch_is_a_usage_error(switch: str) -> None:
    """A switch that cannot be set ends the command with status 2 and its name."""
    done = subprocess.run(
        [*_COMMAND, "--port", "0", "--switch", switch], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert switch.partition("=")[0] in done.stderr
    assert "Traceback" not in done.stderr
