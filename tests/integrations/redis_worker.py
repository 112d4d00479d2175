"""A process that calls as fast as its budget lets it: Redis' port, the server, the known limit, the seconds. Prints its count."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from redis.asyncio import Redis

from nex_async import Nex, RetryPolicy, SessionPool
from nex_async.integrations.redis import RedisBudget


async def main(port: int, url: str, limits: Any, end: float) -> None:
    done = 0
    async with Redis(port=port) as redis, SessionPool(rate_budget=RedisBudget(redis, limits=limits)) as pool:
        policy = RetryPolicy(retries=100, max_retry_after=60.0)
        async with Nex(os.environ["NEX_API_KEY"], base_url=url, pool=pool, retry=policy) as nex:

            async def calls() -> None:
                nonlocal done
                while time.time() < end:
                    await nex.objects.list(timeout=60)
                    done += 1

            await asyncio.gather(*(calls() for _ in range(4)))
    print(done, flush=True)


if __name__ == "__main__":
    count, period = int(sys.argv[3]), float(sys.argv[4])
    limits = {"default": (count, period)} if count else None
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], limits, float(sys.argv[5])))
