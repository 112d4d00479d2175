"""What type checkers make of the public surface. Nobody runs this file; `mypy --strict` and pyright read it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from nex_async import (
    UNSET,
    APIError,
    Job,
    JobExpired,
    Nex,
    NexError,
    NexStats,
    Page,
    Pager,
    Record,
    RequestOptions,
    RetryPolicy,
    Route,
    Secret,
    SessionPool,
    Task,
    Timeouts,
    TypedRecord,
)
from nex_async.feeds.feed import Feed
from nex_async.feeds.insights import InsightStats
from nex_async.models import (
    AIList,
    Answer,
    Artifact,
    CompoundingJob,
    ConnectStatus,
    Insight,
    Note,
    Object,
    Rows,
    SearchHit,
    TimelineEvent,
)
from nex_async.paging import Prefetch
from nex_async.routes import DELETE_TASK, GET_TASK, LIST_TASKS
from nex_async.telemetry import OpenTelemetry
from nex_async.testing import EmulatorThread, record, replay
from nex_async.transport.options import RetryDetails

if TYPE_CHECKING:
    from typing_extensions import assert_type


class Person(msgspec.Struct):
    name: str
    email_addresses: list[str] = []


async def records(nex: Nex) -> None:
    made = await nex.records.create("person", {"name": "Ada"})
    assert_type(made, Record)
    assert_type(made.id, str)
    assert_type(made.created_at, datetime | None)
    assert_type(made.attributes, dict[str, Any])
    assert_type(made.text("name"), str)
    assert_type(made.texts("name"), list[str])
    assert_type(made.detach(), Record)
    assert_type(await nex.records.create("person", Person("Ada")), Record)
    assert_type(await nex.records.upsert("person", {"name": "Ada"}, match_on="name"), Record)
    assert_type(await nex.records.get(90071992547409931), Record)
    assert_type(await nex.records.get("5", as_type=Person), TypedRecord[Person])


async def paging(nex: Nex) -> None:
    rows = nex.records.list("person", sort="-updated_at", limit=50)
    assert_type(rows, Pager[Record])
    assert_type(await rows, Page[Record])
    assert_type((await rows).total, int | None)
    assert_type((await rows).items, list[Record])
    assert_type((await rows)[0], Record)
    assert_type((await rows)[:2], list[Record])
    assert_type(await rows.collect(max_items=5), list[Record])
    assert_type(rows.limit(5), Pager[Record])
    assert_type(rows.prefetch(8), Prefetch[Record])
    assert_type(rows.checkpoint, str)
    async for row in rows:
        assert_type(row, Record)
    async for page in rows.pages():
        assert_type(page, Page[Record])
    async with rows.prefetch(8) as ahead:
        async for row in ahead:
            assert_type(row, Record)


async def typed_paging(nex: Nex) -> None:
    people = nex.records.list("person", as_type=Person)
    assert_type(people, Pager[TypedRecord[Person]])
    async for person in people:
        assert_type(person.attributes, Person)
        assert_type(person.attributes.email_addresses, list[str])
    members = nex.lists.records(5, as_type=Person)
    assert_type(members, Pager[TypedRecord[Person]])
    assert_type(await members, Page[TypedRecord[Person]])
    async with members.prefetch(2) as ahead:
        async for member in ahead:
            assert_type(member, TypedRecord[Person])


async def other_resources(nex: Nex) -> None:
    assert_type(await nex.tasks.list(is_completed=False), Page[Task])
    assert_type(await nex.tasks.create("Call", priority="high", entity_ids=[5, "6"]), Task)
    assert_type(await nex.tasks.update(5, due_date=None), Task)
    assert_type(nex.notes.list(entity_id=5), Pager[Note])
    assert_type(nex.objects.list(), Pager[Object])
    assert_type(nex.records.timeline(5), Pager[TimelineEvent])
    assert_type(nex.insights.list(last=timedelta(hours=1)), Pager[Insight])
    assert_type((await nex.search("ada")).results, dict[str, list[SearchHit]])
    assert_type(await nex.search.all("ada"), list[SearchHit])
    assert_type(await nex.context.ask("?", session_id=UNSET), Answer)
    assert_type(await nex.request("GET", "/v1/objects", query={"include_attributes": True}), Any)


async def jobs(nex: Nex) -> None:
    job = await nex.context.add_text("Marcus asked for a demo", context="LinkedIn")
    assert_type(job, Job[Artifact])
    assert_type(await job, Artifact)
    assert_type(await job.poll(), Artifact)
    assert_type(job.id, str)
    async for state in job.watch():
        assert_type(state, Artifact)
    assert_type(await nex.ai_lists.create("tech", object_type="company"), Job[AIList])
    assert_type(nex.ai_lists.attach("jb_1"), Job[AIList])
    assert_type(await nex.compounding.trigger("metrics", dry_run=True), Job[CompoundingJob])
    assert_type(job.state, Artifact | None)
    assert_type(job.result(), Artifact)
    assert_type(job.watch(timeout=5, interval=1), Feed[Artifact])
    connected = nex.integrations.attach(await nex.integrations.connect("email", "google"))
    assert_type(connected, Job[ConnectStatus])
    assert_type(await connected.wait(timeout=600), ConnectStatus)


async def many_jobs(nex: Nex) -> None:
    artifacts = [nex.context.attach(5), nex.context.attach(6)]
    assert_type(await nex.jobs.wait_all(artifacts), list[Artifact])
    assert_type(await nex.jobs.wait_all(artifacts, timeout=5, return_exceptions=True), list[Artifact | NexError])
    async for job in nex.jobs.as_completed(artifacts):
        assert_type(job, Job[Artifact])
    mixed: list[Job[Artifact | AIList]] = [nex.context.attach(5), nex.ai_lists.attach("jb_1")]
    assert_type(await nex.jobs.wait_all(mixed), list[Artifact | AIList])
    assert_type(nex.jobs.as_completed(mixed, timeout=5), Feed[Job[Artifact | AIList]])
    await nex.jobs.wait_all([nex.context.attach(5), nex.compounding.attach("r1")])
    await nex.jobs.wait_all([nex.context.attach(5), nex.compounding.attach("r1")], return_exceptions=True)
    async for each in nex.jobs.as_completed([nex.context.attach(5), nex.compounding.attach("r1")]):
        print(each.id)
    await nex.jobs.wait_all([nex])  # type: ignore[arg-type]  # pyright: ignore
    try:
        await artifacts[0]
    except JobExpired as error:
        assert_type(error.job_id, str | None)


async def options(nex: Nex) -> None:
    await nex.tasks.get(5, timeout=2.5, retries=0, headers={"X-Trace": "1"}, retry_ambiguous=False)
    await nex.tasks.get(5, timeout=Timeouts(total=5, read=1))
    nex.tasks.list(timeout=5, retries=2)
    shared: RequestOptions = {"timeout": 5, "idempotency_key": "k"}
    await nex.tasks.get(5, **shared)
    assert_type(nex.with_options(timeout=5, retries=0), Nex)


async def misspelt(nex: Nex) -> None:
    await nex.tasks.get(5, timeoot=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await nex.tasks.get(5, retries="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nex.tasks.list(assignee=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nex.with_options(retry=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await nex.tasks.create("t", priority="highest")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await nex.tasks.get(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await nex.tasks.get(task_id=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nex.records.list("person", as_typ=Person)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    nex.records.list("person", on_bad_row="ignore")  # type: ignore[call-overload]  # pyright: ignore
    Nex(key="sk-1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def routes() -> None:
    assert_type(GET_TASK, Route[Task])
    assert_type(LIST_TASKS, Route[Rows[Task]])
    assert_type(DELETE_TASK, Route[None])
    assert_type(GET_TASK.decode, Callable[[bytes], Task])
    assert_type(GET_TASK.scopes, tuple[str, ...])


def testing() -> None:
    with EmulatorThread(keys={"sk-1": None, "sk-2": ["task.read"]}) as emulator:
        assert_type(emulator, EmulatorThread)
        assert_type(emulator.seed("person", {"name": "Ada"}), list[Record])
        assert_type(emulator.requests.count("getTask"), int)
        assert_type(emulator.clock.now, datetime)
        emulator.clock.advance(timedelta(seconds=1))
        assert_type(emulator.faults.add(kind="status").hits, int)
        with record("tape.jsonl", upstream=emulator.url, redact=["name"]) as tape:
            assert_type(tape.client(), Nex)
    with replay("tape.jsonl") as again:
        assert_type(again.client(timeout=5), Nex)
        assert_type(again.unused(), list[str])


async def clients() -> None:
    def told(details: RetryDetails) -> None:
        assert_type(details.delay, float)

    pool = SessionPool(max_connections=5)
    async with Nex(Secret("sk-1"), pool=pool, timeout=5, retry=RetryPolicy(retries=1), on_retry=told) as nex:
        assert_type(nex, Nex)
    async with Nex.local() as local:
        assert_type(local, Nex)
    try:
        await local.tasks.get(5)
    except APIError as error:
        assert_type(error.status, int)
        assert_type(error.retry_after, float | None)
    except NexError as error:
        assert_type(error.checkpoint, str | None)


def telemetry(nex: Nex) -> None:
    assert_type(nex.stats, NexStats)
    assert_type(nex.stats.calls.errors, dict[str, int])
    assert_type(nex.stats.feeds, tuple[InsightStats, ...])
    assert_type(nex.stats.limits["default"].rate, float | None)
    followed = Nex("sk-x", telemetry=OpenTelemetry(propagate=False))
    assert_type(followed, Nex)
    assert_type(Nex.local(telemetry=OpenTelemetry()), Nex)
