"""The page on feeds and jobs: what it shows happens, and its tables hold what there is."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import get_args

import pytest

from nex_async import InsightFeed, InsightStats, Nex
from nex_async.compat import EventSource
from nex_async.emulator import Emulator
from nex_async.feeds import events
from nex_async.feeds.feed import Overflow

from ..harness.canary import KEY
from .pages import rows_of, text_of
from .stage import shown
from .watching import Output, playing, until

FEEDS = text_of("docs/feeds.md")


async def test_the_page_listens(nex: Nex, output: Output) -> None:
    """The first block prints what is there, and what comes."""
    await nex.context.add_text("Ada Park <ada@x.io> asked for a demo.")
    async with playing(shown("docs/feeds.md", "listen")(nex)):
        await output.says("opportunity Ada Park <ada@x.io> asked for a demo.\n")
        await nex.context.add_text("Ada signed.")
        await output.says("live milestone Ada signed.\n")


async def test_the_page_keeps_a_checkpoint(nex: Nex, tmp_path: Path) -> None:
    """What was acknowledged does not come again; what came meanwhile does."""
    first: dict[str, str | None] = {}
    second: dict[str, str | None] = {}
    await nex.context.add_text("Ada signed.")
    async with playing(shown("docs/feeds.md", "keep")(nex, str(tmp_path / "insights.db"), first)):
        await until(lambda: first)
        await nex.context.add_text("Bob signed.")
        await until(lambda: len(first) == 2)
    await nex.context.add_text("Cem signed.")
    async with playing(shown("docs/feeds.md", "keep")(nex, str(tmp_path / "insights.db"), second)):
        await until(lambda: second)
    assert list(first.values()) == ["Ada signed.", "Bob signed."]
    assert list(second.values()) == ["Cem signed."]


async def test_the_page_shows_signals(emulator: Emulator, nex: Nex, output: Output) -> None:
    """The block on signals prints insights and signals."""
    async with playing(shown("docs/feeds.md", "attend")(nex)):
        await output.says("Connected(attempts=1)")
        await nex.context.add_text("Ada signed.")
        await output.says("Ada signed.\n")
        await emulator.restart()
        await output.says("Reconnecting(attempt=1")


async def test_the_page_has_two_readers(emulator: Emulator, nex: Nex, output: Output) -> None:
    """The block on queues gives each reader what it asks for."""
    async with playing(shown("docs/feeds.md", "two_readers")(nex)):
        await until(lambda: emulator.stream.listeners)
        await nex.context.add_text("Ada signed.")
        await nex.context.add_text("Bob is unhappy with the delay.")
        await output.says("all: Ada signed.\nrisk: Bob is unhappy with the delay.\n0 0\n")


async def test_the_page_handles(emulator: Emulator, nex: Nex) -> None:
    """The block on handlers handles what it asks for, and buries what it cannot handle."""
    seen: list[str] = []
    letters: list[tuple[str, Exception]] = []

    def work(text: str) -> None:
        if "Bob" in text:
            raise ValueError(text)
        seen.append(text)

    async with playing(shown("docs/feeds.md", "serve")(nex, work, letters)):
        await until(lambda: emulator.stream.listeners)
        await nex.context.add_text("Ada asked for a demo. Bob asked for a demo. Cem signed. Dan asked for a demo.")
        await until(lambda: len(seen) == 2 and letters)
    assert sorted(seen) == ["Ada asked for a demo.", "Dan asked for a demo."]
    assert str(letters[0][1]) == "Bob asked for a demo."


async def test_the_page_has_jobs(nex: Nex, output: Output) -> None:
    """The block on jobs waits, watches, waits for many, and attaches."""
    await nex.records.create("company", {"name": "Techflow", "description": "tech of all kinds"})
    await shown("docs/feeds.md", "jobs")(nex)
    await output.says("completed 1\n")
    states = r"(pending\n)?(processing\n)?completed\n1\n"
    assert re.fullmatch(rf"completed 1\n{states}(Artifact\(.*\n){{2}}(\d+ completed\n){{2}}completed\n", output.text)


async def test_the_page_reads_the_past(nex: Nex, output: Output) -> None:
    """The block on history lists what the last week brought."""
    await nex.context.add_text("Ada signed.")
    await shown("docs/feeds.md", "last_week")(nex)
    await output.says("milestone Ada signed.\n")


async def test_the_page_reads_any_stream(emulator: Emulator, nex: Nex, output: Output) -> None:
    """The block on the other interface reads the raw events of the stream."""
    await nex.context.add_text("Ada signed.")
    await shown("docs/feeds.md", "first_event")(f"{emulator.url}/v1/insights/stream", KEY)
    await output.says("insight.replay {")


def test_the_page_names_everything_there_is() -> None:
    """The tables hold each signal, each reason, each figure and each policy, and none that does not exist."""
    signals = [getattr(events, name) for name in events.Signal.split(" | ")]
    assert re.findall(r"^\| `(\w+)` \| `(\w+)` \|", FEEDS, re.MULTILINE) == [(each.__name__, each.kind) for each in signals]
    assert sorted(rows_of(FEEDS, "reason of a gap")) == sorted(f"`{reason}`" for reason in get_args(events.GapReason))
    reasons = get_args(events.DegradedReason)
    assert sorted(rows_of(FEEDS, "reason of a degradation")) == sorted(f"`{reason}`" for reason in reasons)
    figures = re.findall(r"`(\w+)`", " ".join(rows_of(FEEDS, "figure")))
    assert sorted(figures) == sorted(field.name for field in dataclasses.fields(InsightStats))
    policies = re.findall(r"`(\w+)`", " ".join(rows_of(FEEDS, "`overflow=`")))
    assert policies == list(get_args(Overflow))
    assert set(re.findall(r'`"(\w+)"`', " ".join(rows_of(FEEDS, "`on_error=`")))) == {"stop", "log"}


@pytest.mark.parametrize("documented", [InsightFeed, EventSource])
def test_the_page_promises_what_the_code_says(documented: type) -> None:
    """Every number of the feed's promise, and of what the other interface does, is on the page too."""
    text = InsightFeed.__doc__ if documented is InsightFeed else sys.modules[EventSource.__module__].__doc__
    numbers = set(re.findall(r"\b\d[\d ]*\d\b", text or ""))
    assert numbers
    assert numbers - set(re.findall(r"\b\d[\d ]*\d\b", FEEDS)) == set()
