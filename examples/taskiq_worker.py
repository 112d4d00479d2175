"""Workers under taskiq that write to Nex: one client for the life of each worker process. Copy and change it.

    pip install nex-async taskiq taskiq-redis
    NEX_LOCAL=1 python examples/taskiq_worker.py         # two tasks in this very process, against an embedded Nex
    REDIS_URL=redis://127.0.0.1 taskiq worker examples.taskiq_worker:broker --workers 2    # yours: NEX_API_KEY
    REDIS_URL=redis://127.0.0.1 python examples/taskiq_worker.py                           # two tasks for those workers

What fails in passing is repeated by the SDK, within the task's deadline and as each operation allows; taskiq is told of no
retries, for it cannot know what is safe to repeat. A task comes again when its worker dies before it is acknowledged: safe
for an upsert, which is acknowledged once it is done. A text that is ingested twice is there twice, so that task is
acknowledged before it begins: it may be lost with its worker, and is never done twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Annotated, Any

from taskiq import AsyncBroker, Context, InMemoryBroker, TaskiqDepends, TaskiqEvents, TaskiqState

from nex_async import Nex, NexError, OutcomeUnknownError, deadline

log = logging.getLogger("taskiq_worker")

TASK_SECONDS = 120.0


def make_broker(url: str | None) -> AsyncBroker:
    """Return a broker over Redis, or one that runs tasks in this process."""
    if url is None:
        return InMemoryBroker()
    from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

    results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(url, result_ex_time=3600)
    return RedisStreamBroker(url).with_result_backend(results)


broker = make_broker(os.environ.get("REDIS_URL"))


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_client(state: TaskiqState) -> None:
    """Open the one client of this worker process. It does not start without a key."""
    state.nex = await (Nex.local() if os.environ.get("NEX_LOCAL") == "1" else Nex()).__aenter__()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_client(state: TaskiqState) -> None:
    """Close it; calls under way get five seconds."""
    await state.nex.aclose()


def client_of(context: Annotated[Context, TaskiqDepends()]) -> Nex:
    """Return the client of the worker that runs a task."""
    nex: Nex = context.state.nex
    return nex


CLIENT: Nex = TaskiqDepends(client_of)


@broker.task("save_person", ack_type="when_executed")
async def save_person(attributes: dict[str, Any], nex: Nex = CLIENT) -> str:
    """Create or update a person by the address; return the record's id. Twice is the same as once."""
    with deadline(TASK_SECONDS):
        person = await nex.records.upsert("person", attributes, match_on="email_addresses")
    return person.id


@broker.task("ingest", ack_type="when_received")
async def ingest(text: str, origin: str, nex: Nex = CLIENT) -> dict[str, str | None]:
    """Ingest a text; return the artifact's id, by which `nex.context.attach` follows it, or that nobody knows.

    An outcome that is unknown is a result, not a failure: another try might ingest the text twice. A look at the timeline
    decides.
    """
    try:
        with deadline(TASK_SECONDS):
            job = await nex.context.add_text(text, context=origin)
    except OutcomeUnknownError as error:
        log.error("a text from %s may or may not have been ingested: %s (%s)", origin, error, error.hint)
        return {"outcome": "unknown", "artifact_id": None}
    return {"outcome": "accepted", "artifact_id": job.id}


async def main() -> int:
    """Send one task of each kind, and print what became of them; return the exit status."""
    await broker.startup()
    try:
        person = {"name": "Ada Park", "email_addresses": ["ada@x.io"], "job_title": "CTO"}
        saved = await save_person.kiq(person)
        read = await ingest.kiq("Ada Park <ada@x.io> asked for a demo.", "mail")
        for task in (saved, read):
            result = await task.wait_result(timeout=TASK_SECONDS)
            result.raise_for_error()
            print(result.return_value, flush=True)
    except NexError as error:
        print(f"a task has failed: {error}", file=sys.stderr)
        return 1
    finally:
        await broker.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
