"""What importing costs, in CPU milliseconds above a bare interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

STATEMENTS = {
    "import nex_async": "import nex_async",
    "from nex_async import Nex": "from nex_async import Nex",
    "import aiohttp, msgspec": "import aiohttp, msgspec",
    "nex-async --help": "from nex_async.cli import main; main(['--help'], standalone_mode=False)",
}


def _cpu(statement: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, "-c", statement], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (after.children_user - before.children_user) + (after.children_system - before.children_system)


def cost(rounds: int = 7) -> dict[str, float]:
    """Return for each statement its lowest CPU time above an empty program, in milliseconds."""
    lowest = dict.fromkeys(("", *STATEMENTS), 9.9)
    for _ in range(rounds):
        for name in lowest:
            lowest[name] = min(lowest[name], _cpu(STATEMENTS.get(name, "pass")))
    return {name: (lowest[name] - lowest[""]) * 1000 for name in STATEMENTS}


def loads_aiohttp() -> bool:
    """Return whether `import nex_async` alone loads aiohttp."""
    code = "import sys, nex_async; sys.exit('aiohttp' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 1


if __name__ == "__main__":
    for name, milliseconds in cost().items():
        print(f"{name:28} {milliseconds:6.0f} ms CPU")
