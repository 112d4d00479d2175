"""One of three processes that call as fast as their budget lets them, from the same moment on; each prints how many it did.

All of its calls, and those after two seconds, when the limit has been met: what is sent freely before is not shared out.

Arguments: Redis' port, the server's URL, the known limit (0 for none), its seconds, and for how many seconds to call.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from redis.asyncio import Redis

from nex_async import Nex, RetryPolicy, SessionPool
from nex_async.integrations.redis import RedisBudget


async def main(port: int, url: str, limits: Any, seconds: float) -> None:
    done = later = 0
    async with Redis(port=port) as redis, SessionPool(rate_budget=RedisBudget(redis, limits=limits)) as pool:
        policy = RetryPolicy(retries=100, max_retry_after=60.0)
        async with Nex(os.environ["NEX_API_KEY"], base_url=url, pool=pool, retry=policy) as nex:
            await redis.incr("ready")
            while int(await redis.get("ready") or 0) < 3:
                await asyncio.sleep(0.01)
            end = time.time() + seconds

            async def calls() -> None:
                nonlocal done, later
                while time.time() < end:
                    await nex.objects.list(timeout=60)
                    done += 1
                    later += time.time() > end - seconds + 2.0

            await asyncio.gather(*(calls() for _ in range(4)))
    print(done, later, flush=True)


if __name__ == "__main__":
    count, period = int(sys.argv[3]), float(sys.argv[4])
    limits = {"default": (count, period)} if count else None
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], limits, float(sys.argv[5])))
