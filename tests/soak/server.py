"""The embedded Nex in a process of its own: `python -m tests.soak.server`.

It reads one line of JSON, the arguments of `Emulator`, prints its base URL, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys

from nex_async.emulator import Emulator


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Emulator(**json.loads(await reader.readline())) as emulator:
        print(emulator.url, flush=True)
        await reader.read()
    transport.close()


if __name__ == "__main__":
    asyncio.run(_serve())
