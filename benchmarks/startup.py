"""What importing and the first call of a cold process cost, in CPU milliseconds above a bare interpreter."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile

from .job import KEY

IMPORTS = {
    "import nex_async": "import nex_async",
    "from nex_async import Nex": "from nex_async import Nex",
    "nex-async --help": "from nex_async.cli import main; main(['--help'], standalone_mode=False)",
    "import aiohttp, msgspec": "import aiohttp, msgspec",
    "import httpx": "import httpx",
    "import stripe": "import stripe",
    "import notion_client": "import notion_client",
    "import openai": "import openai",
}
_READY = (
    "import asyncio\nfrom nex_async import Nex\n"
    "async def main():\n    async with Nex({key!r}, base_url={origin!r}) as nex:\n        {call}\nasyncio.run(main())"
)
_BARE = (
    "import asyncio, aiohttp, msgspec\n"
    "async def main():\n    async with aiohttp.ClientSession() as session:\n        {call}\nasyncio.run(main())"
)


def statements(origin: str) -> dict[str, str]:
    """Return the programs to be measured, by name."""
    bare = f"async with session.get('{origin}/v1/tasks/7') as r: msgspec.json.decode(await r.read())"
    return {
        **IMPORTS,
        "first call, nex-async": _READY.format(key=KEY, origin=origin, call="await nex.tasks.get(7)"),
        "first call, aiohttp + msgspec": _BARE.format(call=bare),
    }


def _cpu(statement: str, bytecode: str) -> float:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", statement], check=False, capture_output=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-300:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def cost(origin: str, rounds: int = 1) -> dict[str, float | None]:
    """Return for each program its lowest CPU time above an empty one, in milliseconds; None for what does not run.

    A first round compiles what is imported, for all alike.
    """
    programs = {"": "pass", **statements(origin)}
    lowest: dict[str, float | None] = dict.fromkeys(programs, 1e9)
    with tempfile.TemporaryDirectory() as bytecode:
        for _ in range(1 + rounds):
            for name, kept in lowest.items():
                if kept is None:
                    continue
                try:
                    lowest[name] = min(kept, _cpu(programs[name], bytecode))
                except RuntimeError:
                    lowest[name] = None
    base = lowest.pop("") or 0.0
    return {name: None if value is None else (value - base) * 1000 for name, value in lowest.items()}


def loads_aiohttp() -> bool:
    """Return whether `import nex_async` alone loads aiohttp."""
    code = "import sys, nex_async; sys.exit('aiohttp' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
