"""The demo's second act: texts become insights, a cut connection costs none of them, jobs end, a question is answered."""

from __future__ import annotations

import re
from collections import Counter
from textwrap import shorten
from typing import TYPE_CHECKING

import anyio

from .. import Connected, InsightEvent, Reconnecting
from .companies import Listed

if TYPE_CHECKING:
    from .. import InsightFeed
    from ..emulator import Emulator
    from .demo_run import Stage

__all__ = ["listen", "question"]

_SENTENCES = (
    "{leader} of {company} asked for a demo in March.",
    "{company} is interested in a trial for its new team.",
    "{company} will send the figures of the quarter by Friday.",
    "{leader} prefers a call in the morning.",
    "{company} launched a new product.",
    "{company} needs single sign-on at every site.",
    "{company} plans to open an office in Lisbon.",
    "The rollout at {company} is delayed by two weeks.",
    "{company} renewed the contract for another year.",
    "{leader} wants the report as a table.",
    "{company} cannot change suppliers before summer.",
    "Reporting at {company} is still manual work.",
)
_PER_TEXT = 3
_PATIENCE = 40.0
_SECOND_LOOK = 5.5
_SHOWN, _WIDTH = 5, 140
_PLAIN = re.compile(r"[A-Z][A-Za-z]+(?: [A-Z][A-Za-z]+){0,2}")
_ENDS_OF_SENTENCES = str.maketrans("", "", ".!?")


async def listen(stage: Stage, emulator: Emulator, listed: list[Listed]) -> None:
    """Listen, ingest twelve sentences in four texts, and cut the connection in between."""
    nex, (live, cut, missed, last) = stage.nex, _texts(listed)
    code = "async with nex.insights.stream() as feed:  async for event in feed: ..."
    async with stage.act("Insights live, through a cut connection", code) as done, nex.insights.stream() as feed:
        stage.say("-- the names are real, what the sentences say is made up")
        listener = _Listener(stage, feed)
        jobs = [await nex.context.add_text(live)]
        await listener.hear(live)

        stage.say("-- the server is told to break off in the middle of the next batch, and to refuse the attempt after it")
        emulator.faults.add(kind="cut_event", times=1)
        emulator.faults.add(kind="status", route="streamInsights", status=503, times=1)
        jobs.append(await nex.context.add_text(cut))
        await listener.lose()
        stage.say("-- the stream is down, and another text goes in")
        jobs.append(await nex.context.add_text(missed))
        await listener.hear(cut, missed, connected=True)

        stage.say("-- the stream stands again")
        jobs.append(await nex.context.add_text(last))
        await listener.hear(last)
        artifacts = await nex.jobs.wait_all(jobs)
        await listener.listen_on()
        made = sum(artifact.result.insights_created for artifact in artifacts if artifact.result)
        stats, total = feed.stats, listener.heard.total()
        if total != made:
            raise RuntimeError(f"{made} insights were made and {total} came")
        done(f"{stats.reconnects} lost connection; {stats.live} came live, {total - stats.live} by reading the list")
        done(f"{made} insights made, {total} received, none lost, none twice")


class _Listener:
    """Reads a feed, shows what it brings, and counts each text it has heard."""

    def __init__(self, stage: Stage, feed: InsightFeed) -> None:
        self.heard: Counter[str] = Counter()
        self._stage = stage
        self._queue = feed.queue(signals=True)
        self._connected = False

    async def hear(self, *texts: str, connected: bool = False) -> None:
        """Read until each sentence was heard, and until the stream stands where that is asked for."""
        wanted = {sentence for text in texts for sentence in text.splitlines()}
        with anyio.fail_after(_PATIENCE):
            while wanted - self.heard.keys() or (connected and not self._connected):
                await self._read()

    async def lose(self) -> None:
        """Read until the stream is lost."""
        with anyio.fail_after(_PATIENCE):
            while self._connected:
                await self._read()

    async def listen_on(self) -> None:
        """Read what else comes until the feed has read the list once more, as it does five seconds after it connected."""
        with anyio.move_on_after(_SECOND_LOOK):
            while True:
                await self._read()

    async def _read(self) -> None:
        event = await self._queue.get()
        if isinstance(event, InsightEvent):
            insight = event.insight
            self.heard[insight.content or ""] += 1
            self._stage.say(f"{event.source:<9} {insight.type:<12} {insight.content}")
        elif isinstance(event, Connected):
            self._connected = True
            self._stage.say(f"connected, at attempt {event.attempts}")
        elif isinstance(event, Reconnecting):
            self._connected = False
            why = "the server ended it" if event.error is None else type(event.error).__name__
            self._stage.say(f"lost      {why}; attempt {event.attempt} follows in {event.delay:.1f} s")


def _texts(listed: list[Listed]) -> list[str]:
    """Return four texts of three sentences, one a line."""
    rows = _cast(listed)
    sentences = []
    for number, sentence in enumerate(_SENTENCES):
        row = rows[number % len(rows)]
        leader = (row.leader or f"The head of {_name(row)}").translate(_ENDS_OF_SENTENCES)
        sentences.append(sentence.format(company=_name(row), leader=leader))
    return ["\n".join(sentences[first : first + _PER_TEXT]) for first in range(0, len(sentences), _PER_TEXT)]


def _cast(listed: list[Listed]) -> list[Listed]:
    """Return the companies, those first whose leaders are known and whose names are plain."""
    return sorted(listed, key=lambda row: (row.leader is None, not _PLAIN.fullmatch(_name(row)), "DAX" not in row.indices))


def _name(row: Listed) -> str:
    return str(row.attributes["name"]).translate(_ENDS_OF_SENTENCES)


async def question(stage: Stage, listed: list[Listed]) -> None:
    """Ask for a list in plain language, and follow its job; then ask a question."""
    nex = stage.nex
    code = 'job = await nex.ai_lists.create("all companies in tech", object_type="company")'
    async with stage.act("An AI list, and a question", code) as done:
        job = await nex.ai_lists.create("all companies in tech", object_type="company")
        async for state in job.watch(interval=0.05):
            stage.say(f"{job.kind} {job.id}: {state.status}")
        found = job.result().entities or []
        for entity in found[:_SHOWN]:
            stage.say(shorten(f"{entity.name}: {entity.reason}", _WIDTH))
        query = f"What is the status with {_name(_cast(listed)[0])}?"
        stage.say(f'-- await nex.context.ask("{query}")')
        answer = await nex.context.ask(query)
        for line in answer.answer.splitlines():
            stage.say(shorten(line, _WIDTH))
        used = f"{len(answer.entities)} records, {len(answer.signals_used)} insights"
        done(f"{len(found)} companies on the list; an answer from {used}")
