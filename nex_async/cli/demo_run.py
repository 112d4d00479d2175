"""The demo's acts, one function each; what it prints is what a newcomer would write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import anyio
import msgspec
from msgspec import UNSET
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..client import Nex
from ..emulator import Emulator
from ..transport.options import ResponseDetails
from . import demo_insights
from .companies import Listed, load

__all__ = ["run"]

T = TypeVar("T")

WORKERS = 16
INDICES = ("DAX", "FTSE 100", "NASDAQ 100", "Switzerland 20", "CAC_40")

_ATTRIBUTES: tuple[tuple[str, str, Literal["text", "number"], bool], ...] = (
    ("ticker", "Ticker", "text", False),
    ("country", "Country", "text", False),
    ("industries", "Industries", "text", True),
    ("headquarters", "Headquarters", "text", False),
    ("employees", "Employees", "number", False),
    ("products", "Products", "text", False),
)


class Company(msgspec.Struct):
    """The attributes the demo reads back, straight from the bytes."""

    name: str
    country: str | None = None
    employees: int | None = None


@dataclass
class Act:
    """One line of the summary."""

    what: str
    result: str
    calls: int
    seconds: float


@dataclass
class Stage:
    """What the acts share: the client, the console, and the count of calls that really went out."""

    nex: Nex
    console: Console
    calls: int = 0
    acts: list[Act] = field(default_factory=list)

    @asynccontextmanager
    async def act(self, what: str, code: str) -> AsyncIterator[Callable[[str], None]]:
        """Announce an act with the code it runs, and note what came of it."""
        self.console.print(f"\n[bold]{what}[/bold]")
        self.console.print(f"  {code}", style="cyan", highlight=False, markup=False, soft_wrap=True)
        results: list[str] = []
        calls, began = self.calls, time.perf_counter()
        yield results.append
        seconds = time.perf_counter() - began
        for result in results:
            self.say(result)
        self.acts.append(Act(what, results[-1] if results else "", self.calls - calls, seconds))

    def say(self, text: str) -> None:
        """Print a line of what happens."""
        self.console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)

    async def each(self, title: str, rows: Iterable[T], work: Callable[[T], Awaitable[object]]) -> int:
        """Do `work` for every row, sixteen at a time, with a bar; return how many there were."""
        todo = list(rows)
        queue = iter(todo)
        columns = (SpinnerColumn(), TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task(title, total=len(todo))

            async def worker() -> None:
                for row in queue:
                    await work(row)
                    progress.advance(bar)

            async with anyio.create_task_group() as group:
                for _ in range(WORKERS):
                    group.start_soon(worker)
        return len(todo)


async def run(count: int | None = None) -> None:
    """Play every act, and end with the summary."""
    console = Console()
    listed = load(INDICES)[:count]
    began = time.perf_counter()
    opening = "Starting an embedded Nex: a real server on loopback, data in memory, no account needed."
    console.print(opening, soft_wrap=True)
    code = "async with Emulator() as emulator, Nex(emulator.key, base_url=emulator.url) as nex:"
    console.print(f"  {code}", style="cyan", highlight=False, soft_wrap=True)

    def counted(_: ResponseDetails) -> None:
        stage.calls += 1

    async with Emulator() as emulator, Nex(emulator.key, base_url=emulator.url, on_response=counted) as nex:
        stage = Stage(nex, console)
        await _schema(stage)
        ids = await _upsert(stage, listed)
        await _read_back(stage, len(ids))
        await _search(stage)
        await _lists(stage, listed, ids)
        groups = await _people(stage, listed, ids)
        await _work(stage, groups)
        await _timeline(stage, next(iter(ids.values())))
        await demo_insights.listen(stage, emulator, listed)
        await demo_insights.question(stage, listed)
    _summary(stage, time.perf_counter() - began)


async def _schema(stage: Stage) -> None:
    objects = stage.nex.objects
    async with stage.act("Schema", 'await nex.objects.create_attribute("company", "country", "Country", "text")') as done:
        company = await objects.get("company")
        for slug, name, kind, many in _ATTRIBUTES:
            if company.attribute(slug) is None:
                await objects.create_attribute(
                    "company",
                    slug,
                    name,
                    kind,
                    is_multi_value=many,
                    is_unique=slug == "ticker",
                    is_whole_number=True if kind == "number" else UNSET,
                )
        company = await objects.get("company")
        done(f"company has {len(company.attributes or ())} attributes")


async def _upsert(stage: Stage, listed: list[Listed]) -> dict[str, str]:
    """Write every company; return their record ids by ticker."""
    ids: dict[str, str] = {}

    async def write(company: Listed) -> None:
        record = await stage.nex.records.upsert("company", company.attributes, match_on="ticker")
        ids[company.ticker] = record.id

    code = 'await nex.records.upsert("company", {"name": "SAP SE", ...}, match_on="ticker")'
    async with stage.act("Upsert real listed companies", code) as done:
        count = await stage.each("upserting", listed, write)
        done(f"{count} companies upserted as {len(set(ids.values()))} records")
    return ids


async def _read_back(stage: Stage, expected: int) -> None:
    code = 'async for company in nex.records.list("company", as_type=Company, limit=200): ...'
    async with stage.act("Page them all back", code) as done:
        countries: Counter[str] = Counter()
        rows = employees = 0
        async for company in stage.nex.records.list("company", as_type=Company, sort="name", limit=200):
            rows += 1
            employees += company.attributes.employees or 0
            countries[company.attributes.country or "unknown"] += 1
        if rows != expected:
            raise RuntimeError(f"{expected} companies were written and {rows} came back")
        top = ", ".join(f"{country} {count}" for country, count in countries.most_common(4))
        done(f"most of them in: {top}")
        done(f"{rows} records read, {employees:,} employees in all")


async def _search(stage: Stage) -> None:
    async with stage.act("Search", 'await nex.search.all("semiconductor")') as done:
        words = ("semiconductor", "insurance", "beverages", "Zurich")
        found = {word: await stage.nex.search.all(word) for word in words}
        for word, hits in found.items():
            best = ", ".join(hit.primary_value or "?" for hit in hits[:4])
            done(f"{word}: {len(hits)} hits, first {best}")
        done(f"{sum(map(len, found.values()))} hits for {len(words)} words")


async def _lists(stage: Stage, listed: list[Listed], ids: dict[str, str]) -> None:
    lists = stage.nex.lists
    async with stage.act("Lists: stock indices", "await nex.lists.upsert_member(dax.id, sap.id)") as done:
        members: list[tuple[str, str]] = []
        for name in INDICES:
            slug = name.lower().replace(" ", "_")
            created = await lists.create("company", slug, name)
            members += [(created.id, ids[company.ticker]) for company in listed if name in company.indices]
        await stage.each("adding members", members, lambda pair: lists.upsert_member(*pair))
        for index in await lists.list("company"):
            size = (await lists.records(index.id, attributes="none", limit=1)).total
            done(f"{index.name}: {size} members")
        done(f"{len(members)} members on {len(INDICES)} lists")


async def _people(stage: Stage, listed: list[Listed], ids: dict[str, str]) -> list[tuple[str, ...]]:
    """Create the leaders of one index's companies and link them.

    Return for each company the ids of what belongs together: its leader, where the data name one, and itself.
    """
    nex, groups = stage.nex, list[tuple[str, ...]]()
    code = "await nex.relationships.create(person.id, definition_id=..., entity_1_id=..., entity_2_id=...)"
    async with stage.act("Link people to companies", code) as done:
        company, person = await nex.objects.get("company"), await nex.objects.get("person")
        leads = await nex.relationships.create_definition(
            "many_to_many", person.id, company.id, entity_1_to_2_predicate="leads", entity_2_to_1_predicate="is led by"
        )

        async def link(row: Listed) -> None:
            if row.leader is None:
                groups.append((ids[row.ticker],))
                return
            leader = await nex.records.create("person", {"name": row.leader, "company": row.attributes["name"]})
            await nex.relationships.create(
                leader.id, definition_id=leads.id, entity_1_id=leader.id, entity_2_id=ids[row.ticker]
            )
            groups.append((leader.id, ids[row.ticker]))

        await stage.each("linking", [row for row in listed if "DAX" in row.indices], link)
        led = sum(len(group) > 1 for group in groups)
        done(f"{led} people linked to the companies of the DAX they lead")
    return groups


async def _work(stage: Stage, groups: list[tuple[str, ...]]) -> None:
    nex = stage.nex
    code = 'await nex.tasks.create("Congratulate on the results", entity_ids=[person.id, company.id])'
    async with stage.act("Tasks and notes", code) as done:

        async def attach(group: tuple[str, ...]) -> None:
            task = await nex.tasks.create("Congratulate on the results", priority="high", entity_ids=group)
            await nex.notes.create("Annual meeting", content="Met at the annual meeting.", entity_id=group[-1])
            await nex.tasks.update(task.id, is_completed=True)

        await stage.each("attaching", groups[:20], attach)
        completed = await nex.tasks.list(is_completed=True).collect()
        notes = await nex.notes.list().collect()
        done(f"{len(completed)} tasks created and completed, {len(notes)} notes attached")


async def _timeline(stage: Stage, record_id: str) -> None:
    nex = stage.nex
    async with stage.act("Update, and read the timeline", f'nex.records.timeline("{record_id}")') as done:
        record = await nex.records.update(record_id, {"description": "Our favourite customer"})
        await nex.tasks.create("Send flowers", entity_ids=[record_id])
        events: list[Any] = await nex.records.timeline(record_id).collect()
        for event in events[:5]:
            changes = event.event_payload.field_changes if event.event_payload else []
            fields = ", ".join(change.field_name or "?" for change in changes)
            done(f"{event.event_timestamp:%H:%M:%S} {event.resource_type} {event.event_type} {fields}".rstrip())
        done(f"{len(events)} events of {record.text('name')}")


def _summary(stage: Stage, seconds: float) -> None:
    table = Table(title="\nWhat was done", title_justify="left")
    table.add_column("step")
    table.add_column("result")
    for name in ("calls", "seconds", "calls/s"):
        table.add_column(name, justify="right")
    for act in stage.acts:
        speed = f"{act.calls / act.seconds:,.0f}" if act.seconds else "-"
        table.add_row(act.what, act.result, f"{act.calls:,}", f"{act.seconds:.2f}", speed)
    table.add_section()
    table.add_row("all", "client and server in one process", f"{stage.calls:,}", f"{seconds:.2f}", "-")
    stage.console.print(table)
    stage.console.print("Next: read README.md, or run `nex-async serve` and point a client at it.", highlight=False)
