"""One real hour: a listener, a bulk writer and callers at once, through a bad network. `python -m tests.soak.real --minutes 60`.

The embedded Nex and the proxy run in processes of their own, so that the memory measured here is the clients' alone. In the end
the server is asked, not through the proxy, what it has: no insight lost or handed out twice without a word, each row once and with
its newest value, no create twice, no reply at the wrong call. Exits with 1 when one of these does not hold, or something leaks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import aiohttp
import psutil  # type: ignore[import-untyped]

from nex_async import Nex, Timeouts

from .children import Child, child
from .truth import Ending, Finding, judge_creates, judge_insights, judge_values
from .work import OBJECT, Author, Caller, Listener, Scene, Writer, callers

__all__ = ["Plan", "Report", "slope", "soak"]

_KEYS = [f"sk-soak-{name}" for name in ("author", "listener", "writer", "one", "two", "three")]
_WARM = 0.1
_MB = 1e6

Say = Callable[[str], object]


@dataclass(frozen=True)
class Plan:
    """What a soak does. Times in seconds."""

    seconds: float
    seed: int = 1
    every: float = 5.0
    """The mean pause between two faults of the network."""
    lives: int = 12
    """How often the listener begins anew."""
    settle: float = 240.0
    """In so many seconds after the network is well everything must have arrived."""
    sample: float = 10.0
    """The pause between two looks at the memory."""
    pace: float = 1.0
    """Multiplies the pauses between calls."""
    quarantine: float = 5.0
    timeouts: Timeouts = field(default_factory=lambda: Timeouts(total=30.0, connect=2.0, read=4.0))

    def faults(self) -> list[dict[str, Any]]:
        """Return what the server does wrong by itself, besides the network."""
        seed, always = self.seed, {"times": None}
        late = min(60.0, self.seconds / 10)
        return [
            {"kind": "drop_emission", "probability": 0.03, "seed": seed, **always},
            {"kind": "duplicate_emission", "probability": 0.03, "seed": seed + 1, **always},
            {"kind": "stream_lag", "probability": 0.05, "seconds": [0.0, min(5.0, late)], "seed": seed + 2, **always},
            {"kind": "rest_lag", "probability": 0.05, "seconds": [0.0, late], "seed": seed + 3, **always},
            *(
                {
                    "kind": "status",
                    "status": 503,
                    "apply": apply,
                    "route": route,
                    "probability": 0.005,
                    "seed": seed,
                    **always,
                }
                for route in ("createTask", "getTask", "upsertRecord", "getInsights")
                for apply in (False, True)
            ),
            *(
                {"kind": "cut_body", "route": route, "probability": 0.005, "seed": seed + 4, **always}
                for route in ("createTask", "getTask", "upsertRecord", "getInsights")
            ),
        ]


@dataclass
class Report:
    """What came of it."""

    seconds: float = 0.0
    seed: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    network: dict[str, int] = field(default_factory=dict)
    server: dict[str, int] = field(default_factory=dict)
    """How often each of its faults struck."""
    insights: int = 0
    latest: float = 0.0
    """The longest that one of them was under way, in seconds."""
    creates: int = 0
    tasks: int = 0
    keys: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)
    rss: list[tuple[float, float]] = field(default_factory=list)
    """Seconds, and MB."""
    slope: float | None = None
    """MB an hour, by least squares after the warm-up."""
    late_slope: float | None = None
    """The same, of the second half alone: what fills up to its bound has filled by then."""
    start: dict[str, int] = field(default_factory=dict)
    end: dict[str, int] = field(default_factory=dict)
    """Descriptors, tasks and threads."""
    cpu: dict[str, float] = field(default_factory=dict)
    """Seconds of each process."""

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.problems

    def table(self) -> str:
        """Return it as lines to read."""
        counts, network = self.counts, self.network
        errors = {name: n for name, n in sorted(counts.items()) if ": " in name and not name.endswith(": done")}
        calls = {name: n for name, n in sorted(counts.items()) if name.endswith(": done")}
        size = f"{self.rss[0][1]:.1f} MB at first, {self.rss[-1][1]:.1f} MB at last, " if self.rss else ""
        lines = {
            "time": f"{self.seconds:.0f} s, seed {self.seed}",
            "network": ", ".join(f"{n} {name}" for name, n in sorted(network.items())),
            "server's faults": ", ".join(f"{n} {name}" for name, n in sorted(self.server.items())),
            "insights": f"{self.insights} made; heard "
            + ", ".join(
                f"{n} {name.removeprefix('heard ')}" for name, n in sorted(counts.items()) if name.startswith("heard")
            )
            + f"; {counts.get('redelivered', 0)} redelivered in {counts.get('lives', 0) + 1} lives, {counts.get('gaps', 0)} gaps",
            "under way": ", ".join(
                f"{counts[name]} {name}" for name in sorted(counts) if name.startswith(("within", "later"))
            )
            + f"; {self.latest:.1f} s at most",
            "rows": f"{counts.get('rows', 0)} in {counts.get('runs', 0)} runs, {counts.get('runs left', 0)} of them left and gone "
            f"on with; {counts.get('row requests', 0)} requests, {counts.get('row retries', 0)} again; "
            f"{self.keys} keys stored",
            "calls": ", ".join(f"{n} {name.removesuffix(': done')}" for name, n in calls.items())
            + f", {counts.get('reads left', 0)} reads left",
            "errors": ", ".join(f"{n} {name}" for name, n in errors.items()) or "none",
            "creates": f"{self.creates} tried, {self.tasks} stored",
            "memory": size
            + ("slope not taken" if self.slope is None else f"slope {self.slope:+.2f} MB/h")
            + ("" if self.late_slope is None else f", in the second half {self.late_slope:+.2f} MB/h"),
            "start, end": f"{self.start}, {self.end}",
            "CPU": ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.cpu.items()),
            "result": f"{self.lost} lost, {self.doubled} doubled, {self.wrong} wrong",
        }
        return "\n".join([f"{name:16}{text}" for name, text in lines.items()] + self.problems[:50])


def slope(points: list[tuple[float, float]]) -> float | None:
    """Return how much the second grows in an hour of the first, by least squares; None for less than three points."""
    if len(points) < 3:
        return None
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((one - x) ** 2 for one, _ in points)
    return 3600 * sum((one - x) * (other - y) for one, other in points) / spread if spread else None


async def soak(plan: Plan, say: Say = print) -> Report:
    """Run it and return what came of it. Raises what no soak should meet."""
    report = Report(seed=plan.seed)
    with tempfile.TemporaryDirectory() as home:
        async with child("tests.soak.server") as server:
            options = {"keys": dict.fromkeys(_KEYS), "switches": {"rate_limits": "off"}}
            direct = await server.ask(json.dumps(options))
            port = direct.split(":")[2].partition("/")[0]
            async with child("tests.harness.proxy", port, "--seed", str(plan.seed)) as proxy:
                url = direct.replace(port, await proxy.line(), 1)
                scene = Scene(url, direct, Path(home), plan.seed, plan.timeouts, plan.quarantine, plan.pace)
                report.start = _held()
                stage = _Stage(plan, scene, server, proxy, report, say)
                await stage.play()
                await stage.judge()
                gc.collect()
                await asyncio.sleep(0)
                report.end = _held()
                report.cpu = _times({"clients": os.getpid(), "server": server.pid, "proxy": proxy.pid})
    for name, count in report.end.items():
        if count > report.start[name]:
            report.problems.append(f"leaked: {report.start[name]} {name} at the start, {count} at the end")
    report.counts, report.latest = dict(scene.counts), scene.latest
    return report


class _Stage:
    def __init__(self, plan: Plan, scene: Scene, server: Child, proxy: Child, report: Report, say: Say) -> None:
        self._plan, self._scene, self._server, self._proxy = plan, scene, server, proxy
        self._report, self._say = report, say
        self._listener = Listener(scene, _KEYS[1], plan.lives, plan.seconds)
        self._writer = Writer(scene, _KEYS[2])
        self._callers: list[Caller] = []
        self._began = datetime.now(timezone.utc)

    async def play(self) -> None:
        """Let all work at once, in bad weather, for the time of the plan; then wait until everything has arrived."""
        plan, scene, loop = self._plan, self._scene, asyncio.get_running_loop()
        async with self._direct() as nex:
            await nex.objects.create(OBJECT, "Thing")
            for slug, kind in (("key", "text"), ("n", "number")):
                await nex.objects.create_attribute(OBJECT, slug, slug, kind, is_unique=slug == "key")  # type: ignore[arg-type]
        async with contextlib.AsyncExitStack() as stack:
            self._callers = await stack.enter_async_context(callers(scene, _KEYS[3:]))
            listening = loop.create_task(self._listener.work())
            stack.push_async_callback(_ended, [listening])
            await _first(listening, self._listener.opened.wait())
            await self._send_faults()
            began = loop.time()
            network = await self._proxy.ask(f"play {plan.seconds} {plan.every}")
            workers: list[Author | Writer | Caller] = [Author(scene, _KEYS[0]), self._writer, *self._callers]
            work = [loop.create_task(one.work()) for one in workers]
            watch = loop.create_task(self._watch(began))
            stack.push_async_callback(_ended, [watch, *work])
            done, _ = await asyncio.wait(
                [listening, watch, *work], timeout=plan.seconds, return_when=asyncio.FIRST_EXCEPTION
            )
            for task in done:
                task.result()
            self._report.seconds = loop.time() - began
            scene.stopping.set()
            watch.cancel()
            network = await self._proxy.ask("calm")
            await self._take_faults()
            limit = loop.time() + plan.settle
            pending: set[asyncio.Task[None]] = set(work)
            while (pending or scene.waiting) and loop.time() < limit:
                done, pending = await asyncio.wait([*pending, listening], timeout=0.1)
                for task in done:
                    task.result()
                pending.discard(listening)
            if pending:
                self._report.problems.append(f"{len(pending)} of those who work did not come to their end")
        self._report.network = json.loads(network)

    async def judge(self) -> None:
        """Ask the server what it has, and compare."""
        report, scene = self._report, self._scene
        async with self._direct() as nex:
            until = datetime.now(timezone.utc) + timedelta(seconds=2)
            rows = nex.insights.history(self._began - timedelta(seconds=2), until)
            insights = {one.content or "": one.created_at or until async for one in rows}
            tasks = [task.title or "" async for task in nex.tasks.list(limit=500)]
            things = nex.records.list(OBJECT, attributes="all", limit=500)
            stored = [(str(each.attributes["key"]), int(each.attributes["n"])) async for each in things]
        ended: dict[str, Ending] = {}
        for caller in self._callers:
            ended.update(caller.created())
        found = judge_insights(insights, self._listener.heard(), self._listener.gaps())
        found += judge_creates(ended, tasks)
        for values, name in [(self._writer.values, "row"), *((one.values, one.name) for one in self._callers)]:
            found += judge_values(values, [each for each in stored if each[0].startswith(name)])
        found += [Finding("wrong", text) for text in scene.wrong]
        if len(insights) != scene.counts["insights"]:
            found.append(Finding("wrong", f"{scene.counts['insights']} insights made, the server has {len(insights)}"))
        report.insights, report.creates, report.tasks, report.keys = len(insights), len(ended), len(tasks), len(stored)
        kinds = Counter(one.kind for one in found)
        report.lost, report.doubled, report.wrong = kinds["lost"], kinds["doubled"], kinds["wrong"]
        report.problems += map(str, found)

    async def _watch(self, began: float) -> None:
        """Look at the memory now and then, and tell each minute how it goes."""
        plan, report, scene, loop = self._plan, self._report, self._scene, asyncio.get_running_loop()
        process, told = psutil.Process(), 0
        while True:
            at = loop.time() - began
            if at >= plan.seconds * _WARM:
                report.rss.append((at, process.memory_info().rss / _MB))
                report.slope = slope(report.rss)
                report.late_slope = slope([point for point in report.rss if point[0] >= plan.seconds / 2])
            if at // 60 > told:
                told = int(at // 60)
                rss = process.memory_info().rss / _MB
                grown_by = "" if report.slope is None else f", {report.slope:+.2f} MB/h"
                calls = sum(n for name, n in scene.counts.items() if name.endswith(": done"))
                self._say(
                    f"{told} min: {scene.counts['insights']} insights ({len(scene.waiting)} on their way), "
                    f"{scene.counts['row requests']} row requests, {calls} calls; {rss:.1f} MB{grown_by}; {_held()}"
                )
            await asyncio.sleep(plan.sample)

    @contextlib.asynccontextmanager
    async def _direct(self) -> AsyncIterator[Nex]:
        async with Nex(_KEYS[0], base_url=self._scene.direct) as nex:
            yield nex

    async def _send_faults(self) -> None:
        async with aiohttp.ClientSession() as session:
            for fault in self._plan.faults():
                async with session.post(self._control, json=fault) as reply:
                    assert reply.status == 200, await reply.text()

    async def _take_faults(self) -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(self._control) as reply:
                struck: Counter[str] = Counter()
                for fault in (await reply.json())["faults"]:
                    struck[fault["kind"]] += fault["hits"]
            self._report.server = dict(struck)
            async with session.delete(self._control):
                pass

    @property
    def _control(self) -> str:
        return f"{'/'.join(self._scene.direct.split('/')[:3])}/_emulator/faults"


async def _first(task: asyncio.Task[None], waiting: Any) -> None:
    """Wait for something, or raise what a task ends with first."""
    other = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait([task, other], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        other.cancel()


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _held() -> dict[str, int]:
    threads = [one for one in threading.enumerate() if not one.name.startswith("asyncio_")]
    return {"descriptors": psutil.Process().num_fds(), "tasks": len(asyncio.all_tasks()), "threads": len(threads)}


def _times(processes: dict[str, int]) -> dict[str, float]:
    found = {}
    for name, pid in processes.items():
        times = psutil.Process(pid).cpu_times()
        found[name] = times.user + times.system
    return found


def main(arguments: list[str]) -> int:
    """Run what the arguments ask for; return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two faults of the network, on average")
    parser.add_argument("--pace", type=float, default=0.5, help="multiplies the pauses between calls: less is more work")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    seconds = options.minutes * 60
    plan = Plan(seconds, options.seed, options.every, lives=max(2, int(options.minutes / 5)), pace=options.pace)
    began = time.monotonic()
    report = asyncio.run(soak(plan, lambda text: print(text, flush=True)))
    print(report.table(), f"{time.monotonic() - began:.0f} s in all", sep="\n", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(report), indent=1) + "\n")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
