"""What type checkers make of the blocking surface. Nobody runs this file; `mypy --strict` and pyright read it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from nex_async import (
    BulkReport,
    ExportReport,
    FeedStats,
    Insight,
    InsightStats,
    MirrorReport,
    NexError,
    Outcome,
    Page,
    Record,
    Task,
    TypedRecord,
)
from nex_async.blocking import (
    BulkRun,
    Export,
    Feed,
    FeedQueue,
    InsightEvent,
    InsightFeed,
    Job,
    Mirror,
    Nex,
    Pager,
    Partition,
    Prefetch,
    SessionPool,
    deadline,
)
from nex_async.feeds.events import Signal
from nex_async.models import AIList, Artifact, ConnectStatus, SearchHit, SearchResults

if TYPE_CHECKING:
    from typing_extensions import assert_type


class Person(msgspec.Struct):
    name: str
    email_addresses: list[str] = []


def calls(nex: Nex) -> None:
    assert_type(nex.records.create("person", {"name": "Ada"}), Record)
    assert_type(nex.records.get(90071992547409931), Record)
    assert_type(nex.records.get("5", as_type=Person), TypedRecord[Person])
    assert_type(nex.records.delete("5"), None)
    assert_type(nex.tasks.update(5, due_date=None), Task)
    assert_type(nex.search("ada"), SearchResults)
    assert_type(nex.search.all("ada"), list[SearchHit])
    assert_type(nex.request("GET", "/v1/objects"), Any)
    assert_type(nex.with_options(timeout=5, retries=0), Nex)
    with deadline(5):
        nex.tasks.get(5, timeout=2.5, headers={"X-Trace": "1"})


def paging(nex: Nex) -> None:
    people = nex.records.list("person", as_type=Person)
    assert_type(people, Pager[TypedRecord[Person]])
    assert_type(people.first_page(), Page[TypedRecord[Person]])
    assert_type(people.collect(max_items=5), list[TypedRecord[Person]])
    assert_type(people.limit(5), Pager[TypedRecord[Person]])
    assert_type(people.prefetch(5), Prefetch[TypedRecord[Person]])
    for person in people:
        assert_type(person, TypedRecord[Person])
        assert_type(person.attributes.email_addresses, list[str])
    for page in people.pages():
        assert_type(page, Page[TypedRecord[Person]])
    with people.prefetch(2) as ahead:
        for person in ahead:
            assert_type(person, TypedRecord[Person])
    for record in nex.records.list("person"):
        assert_type(record, Record)
    assert_type(nex.insights.list(last=timedelta(hours=1)), Pager[Insight])
    for part in nex.records.partitions("person", 4):
        assert_type(part, Partition)
        assert_type(part.read(nex), Pager[Record])


def feeds(nex: Nex) -> None:
    with nex.insights.stream(where=lambda event: event.source == "live") as feed:
        assert_type(feed, InsightFeed)
        assert_type(feed.stats, InsightStats)
        assert_type(feed.queue(), FeedQueue[InsightEvent])
        assert_type(feed.queue(signals=True), FeedQueue[InsightEvent | Signal])
        for event in feed:
            assert_type(event, InsightEvent)
            assert_type(event.ack(), None)
        assert_type(feed.queue().get(timeout=5), InsightEvent)

    @feed.on("insight", types=["risk"])
    def handle(event: InsightEvent) -> None:
        print(event.insight.content)

    handle(next(feed))
    assert_type(feed.run(), None)


def jobs(nex: Nex) -> None:
    job = nex.context.add_text("Marcus asked for a demo")
    assert_type(job, Job[Artifact])
    assert_type(job.wait(timeout=5), Artifact)
    assert_type(job.poll(), Artifact)
    assert_type(job.state, Artifact | None)
    assert_type(job.watch(), Feed[Artifact])
    assert_type(job.watch().stats, FeedStats)
    for state in job.watch():
        assert_type(state, Artifact)
    assert_type(nex.ai_lists.create("tech", object_type="company"), Job[AIList])
    assert_type(nex.integrations.attach(nex.integrations.connect("email", "google")), Job[ConnectStatus])
    artifacts = [nex.context.attach(5), nex.context.attach(6)]
    assert_type(nex.jobs.wait_all(artifacts), list[Artifact])
    assert_type(nex.jobs.wait_all(artifacts, return_exceptions=True), list[Artifact | NexError])
    for each in nex.jobs.as_completed(artifacts):
        assert_type(each, Job[Artifact])


def bulk(nex: Nex) -> None:
    run = nex.records.upsert_many("person", ({"name": str(index)} for index in range(5)), match_on="name", journal="run.db")
    assert_type(run, BulkRun)
    assert_type(run.run(), BulkReport)
    with run as entered:
        for outcome in entered:
            assert_type(outcome, Outcome)
    assert_type(run.retry_dead(), BulkRun)
    assert_type(nex.records.export("person", "people.csv"), Export)
    assert_type(nex.records.export("person", "people.csv").run(), ExportReport)
    with nex.mirror("crm.sqlite", objects=["person"]) as mirror:
        assert_type(mirror, Mirror)
        assert_type(mirror.sync(), MirrorReport)
        for report in mirror.watch():
            assert_type(report, MirrorReport)


def clients(session: aiohttp.ClientSession) -> None:
    with SessionPool(max_connections=5) as pool, Nex("sk-1", pool=pool, timeout=5) as nex:
        assert_type(nex, Nex)
        assert_type(nex.close(), None)
    with Nex.local("nex.sqlite") as local:
        assert_type(local, Nex)
    Nex(session=session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def misspelt(nex: Nex) -> None:
    nex.tasks.get(5, timeoot=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nex.tasks.create("t", priority="highest")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nex.records.list("person", as_typ=Person)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    nex.jobs.wait_all([nex])  # type: ignore[arg-type]  # pyright: ignore


async def awaited(nex: Nex) -> None:
    await nex.tasks.get(5)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    async for _ in nex.records.list("person"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
