"""What the SDK logs: constant templates, fields named `nex_*`, nothing configured for the user, and nothing secret."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import structlog

import nex_async
from nex_async import Nex, NexError, NotFoundError
from nex_async.emulator import Emulator

from .harness.canary import KEY, SECRET, fields_of
from .harness.raw_server import NO_WAIT, RawServer, Seen, json_reply, serve

ROOT = Path(nex_async.__file__).parent
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
LOGGERS = {"blocking", "budget", "bulk", "calls", "config", "dlt", "emulator", "feeds", "jobs", "paging", "pool", "sinks"}


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., list[logging.LogRecord]]]:
    """Return the records of ours, of one logger and from a level on."""
    caplog.set_level(logging.DEBUG, "nex_async")

    def found(name: str = "", level: int = logging.DEBUG) -> list[logging.LogRecord]:
        ours = [record for record in caplog.records if record.name.startswith(f"nex_async.{name}")]
        return [record for record in ours if record.levelno >= level]

    return found  # type: ignore[return-value]


# ---- how records are made -------------------------------------------------------------------------------------------


@cache
def logged() -> tuple[tuple[str, ast.AST, ast.Call], ...]:
    """Return every call of a logger's method in the package, with its place and the function it stands in."""
    return tuple(_logged())


def _logged() -> Iterator[tuple[str, ast.AST, ast.Call]]:
    for path in sorted(ROOT.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for node in ast.walk(function):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in METHODS
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id in ("_log", "_logger")
                ):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", function, node


def meaning(function: ast.AST, node: ast.expr) -> list[ast.expr]:
    """Return what an argument may be: itself, the branches of a choice, or what its name was assigned before."""
    if isinstance(node, ast.Name):
        found = [
            each.value
            for each in ast.walk(function)
            if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == node.id and each.lineno <= node.lineno
        ]
        return [part for value in found for part in meaning(function, value)]
    if isinstance(node, ast.IfExp):
        return [*meaning(function, node.body), *meaning(function, node.orelse)]
    return [node]


def test_templates_are_constant() -> None:
    """Every record has a constant text with %-arguments, so that whoever groups or parses records can rely on it."""
    wrong = []
    for place, function, call in logged():
        templates = meaning(function, call.args[0])
        if not templates or not all(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in templates):
            wrong.append(place)
    assert wrong == []


def test_every_record_has_fields_of_ours() -> None:
    """Every record tells what varies as fields too, each under a name that no other library and no formatter uses."""
    wrong = []
    for place, function, call in logged():
        extra = [keyword.value for keyword in call.keywords if keyword.arg == "extra"]
        fields = [part for each in extra for part in meaning(function, each)]
        for each in fields:
            if isinstance(each, ast.Dict):
                names = [getattr(key, "value", "") for key in each.keys]
                if not names or not all(name.startswith("nex_") for name in names):
                    wrong.append(place)
            elif not (isinstance(each, ast.Call) and ast.unparse(each.func) == "fields_of"):
                wrong.append(place)
        if not fields:
            wrong.append(place)
    assert wrong == []
    assert not [name for name in vars(logging.makeLogRecord({})) if name.startswith("nex_")]


def test_loggers_are_named_by_part() -> None:
    """Each part logs under `nex_async.<part>`, and none under `nex_async` itself, so that any can be silenced alone."""
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("logging.getLogger("):
                found.add(ast.literal_eval(node.value.args[0]))  # type: ignore[attr-defined]
    assert found == {f"nex_async.{part}" for part in LOGGERS}


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_nothing_is_configured_for_the_user() -> None:
    """The SDK sets no level and no handler that prints: a program that does not ask for our records sees none."""
    done = run(
        """
import logging, os
os.environ["NEX_API_BASE_URL"] = "https://elsewhere.example"
from nex_async import Nex
nex = Nex("sk-x")  # warns of the base URL
ours = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("nex_async")]
print(logging.root.handlers, {logger.level for logger in ours}, all(logger.propagate for logger in ours))
print([type(handler).__name__ for logger in ours for handler in logger.handlers])
"""
    )
    assert done.stdout.splitlines() == ["[] {0} True", "['NullHandler']"], done.stderr
    assert done.stderr == ""


def test_the_command_line_prints_warnings() -> None:
    """A command is a program of its own: what the SDK warns of is seen on its standard error."""
    code = """
import os, sys
os.environ.update(NEX_API_BASE_URL="https://elsewhere.invalid", NEX_API_KEY="sk-x")
from nex_async.cli import main
sys.argv = ["nex-async", "mirror", "x.sqlite", "--object", "person", "--help"]
import click
@main.command("warn")
def warn():
    import nex_async
    nex_async.Nex()
main.add_command(warn)
main.get_command = lambda context, name: warn
main(["warn"])
"""
    assert "calls and the key go to elsewhere.invalid" in run(code).stderr


# ---- calls ----------------------------------------------------------------------------------------------------------


async def test_each_attempt_is_a_line(emulator: Emulator, records: Any) -> None:
    """At DEBUG each attempt is one record with method, operation, status, seconds, bytes and its number; a retry is INFO."""
    emulator.faults.add(kind="status", status=503)
    async with Nex(KEY, base_url=emulator.url, retry=NO_WAIT) as nex:
        await nex.tasks.list(limit=1)
    first, retry, second = records("calls")
    elapsed = [first.nex_elapsed, second.nex_elapsed]
    assert fields_of(first) == {
        "nex_operation": "listTasks",
        "nex_method": "GET",
        "nex_status": 503,
        "nex_error": "ServerError",
        "nex_elapsed": elapsed[0],
        "nex_attempt": 1,
    }
    assert fields_of(retry) == {
        "nex_operation": "listTasks",
        "nex_status": 503,
        "nex_error": "ServerError",
        "nex_delay": retry.nex_delay,
        "nex_attempt": 1,
    }
    assert fields_of(second) == {
        "nex_operation": "listTasks",
        "nex_method": "GET",
        "nex_status": 200,
        "nex_size": second.nex_size,
        "nex_elapsed": elapsed[1],
        "nex_attempt": 2,
    }
    assert second.nex_size > 10
    assert all(0 < seconds < 10 for seconds in elapsed)
    assert [record.levelname for record in (first, retry, second)] == ["DEBUG", "INFO", "DEBUG"]
    assert second.getMessage().startswith("listTasks (GET): 200, ")
    assert "(attempt 2)" in second.getMessage()


async def test_a_call_that_goes_well_says_nothing_above_debug(nex: Nex, records: Any) -> None:
    """At INFO a service that works is silent, whatever it does."""
    task = await nex.tasks.create("x")
    await nex.tasks.update(task.id, title="y")
    async with nex.insights.stream() as feed:
        job = await nex.context.add_text("Ada from x.io asked for a demo")
        await job
        await asyncio.wait_for(feed.__anext__(), 10)
    assert records(level=logging.INFO) == []
    assert len(records("calls")) >= 4


async def test_without_debug_no_record_is_made(emulator: Emulator, records: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Who asked for INFO gets no line per attempt, of good ones or bad."""
    caplog.set_level(logging.INFO, "nex_async")
    async with Nex(KEY, base_url=emulator.url, retry=NO_WAIT) as nex:
        await nex.tasks.list(limit=1)
        with pytest.raises(NotFoundError):
            await nex.tasks.get("1")
    assert records() == []


async def test_a_hook_that_raises_is_an_error_with_its_class(emulator: Emulator, records: Any) -> None:
    """What a hook raised is told with its traceback and its class."""

    def hook(details: object) -> None:
        raise LookupError("mine")

    async with Nex(KEY, base_url=emulator.url, on_request=hook) as nex:
        await nex.tasks.list(limit=1)
    [record] = records(level=logging.ERROR)
    assert fields_of(record)["nex_error"] == "LookupError"
    assert record.exc_info is not None


async def test_a_cancelled_write_is_told_of(emulator: Emulator, nex: Nex, records: Any) -> None:
    """A write that was cancelled in the middle names its operation, for nobody will learn what became of it."""
    fault = emulator.faults.add(kind="stall")
    call = asyncio.ensure_future(nex.tasks.create("x"))
    while not fault.hits:
        await asyncio.sleep(0.001)
    call.cancel()
    await asyncio.wait([call])
    [record] = records(level=logging.INFO)
    assert fields_of(record) == {"nex_operation": "createTask"}


# ---- what others make of it -----------------------------------------------------------------------------------------


@pytest.fixture
def rendered() -> Iterator[io.StringIO]:
    """Our records as structlog's formatter for the standard library renders them: JSON with what `extra=` brought."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    shared: list[Any] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
        )
    )
    logger = logging.getLogger("nex_async")
    logger.addHandler(handler)
    yield output
    logger.removeHandler(handler)


async def test_structlog_renders_the_fields(emulator: Emulator, rendered: io.StringIO) -> None:
    """With structlog's `ProcessorFormatter` our records are JSON lines that carry text, logger, level and every field."""
    emulator.faults.add(kind="status", status=503)
    async with Nex(KEY, base_url=emulator.url, retry=NO_WAIT) as nex:
        await nex.tasks.list(limit=1)
    lines = [json.loads(line) for line in rendered.getvalue().splitlines()]
    assert [line["level"] for line in lines] == ["debug", "info", "debug"]
    assert {line["logger"] for line in lines} == {"nex_async.calls"}
    retry = lines[1]
    assert retry["event"].startswith("retrying listTasks in ")
    assert (retry["nex_operation"], retry["nex_attempt"], retry["nex_status"]) == ("listTasks", 1, 503)
    assert isinstance(retry["nex_delay"], float)


# ---- what is never told ---------------------------------------------------------------------------------------------


async def test_no_value_and_no_id_of_a_call_is_logged(records: Any) -> None:
    """What was sent, and what a server said, stands in no record of a call, at any level, in no text and in no field."""

    def handler(seen: Seen) -> bytes:
        words = {"message": f"hostile {seen.target} {seen.body.decode()} {KEY}", "id": "555hostile"}
        status = (200, 400, 404, 409, 422, 429, 500, 503, 307, 700)[len(server.requests) % 10]
        return json_reply(words, status, {"X-Request-Id": "hostile", "Location": "http://hostile.example/"})

    calls: list[Callable[[Nex], Any]] = [
        lambda nex: nex.tasks.get("555hostile"),
        lambda nex: nex.tasks.list(search="hostile", limit=7),
        lambda nex: nex.tasks.create("hostile"),
        lambda nex: nex.records.upsert("hostile", {"email_addresses": ["hostile@x.io"]}, match_on="email_addresses"),
        lambda nex: nex.request("GET", "/v1/hostile/555hostile", query={"q": "hostile"}),
        lambda nex: nex.tasks.delete("555hostile"),
    ]
    async with RawServer([serve(handler)]) as server:
        async with Nex(KEY, base_url=server.url, retry=NO_WAIT) as nex:
            for turn in range(10):
                for call in calls[turn % 3 :]:
                    try:
                        await call(nex)
                    except NexError:
                        pass
    refusal = json_reply({"code": 422, "message": "hostile"}, 422)
    async with RawServer([serve(lambda seen: refusal)]) as server, Nex(KEY, base_url=server.url) as nex:
        report = await nex.records.upsert_many("person", [{"name": "hostile"}], match_on="name", check=False)
    assert report.failed == 1
    assert len(records()) > 50
    assert_silent_about(records(), "hostile", SECRET)


async def test_a_listing_that_gives_fewer_rows_does_not_quote_the_search(records: Any) -> None:
    """A server that pages more finely than it was asked is told of by the operation; what was searched for is not."""
    body = {"data": [{"id": "1"}], "total": 1, "limit": 1, "offset": 0}
    async with RawServer([serve(lambda seen: json_reply(body))]) as server, Nex(KEY, base_url=server.url) as nex:
        await nex.tasks.list(search="hostile", limit=50).collect()
    [record] = records("paging", logging.WARNING)
    assert fields_of(record) == {"nex_operation": "listTasks", "nex_asked": 50, "nex_rows": 1}
    assert_silent_about([record], "hostile")


async def test_feeds_name_no_workspace_and_no_content(emulator: Emulator, records: Any) -> None:
    """Whatever happens to a feed, no record of it holds the workspace, an insight's text, or the key."""
    async with Nex(KEY, base_url=emulator.url, retry=NO_WAIT) as nex, nex.insights.stream() as feed:
        engine = feed._entrance._engine
        assert engine is not None
        emulator.faults.add(kind="cut_event", ending="reset")
        await nex.context.add_text("Hostile Ada from x.io asked for a demo of the product")
        while not feed.stats.reconnects:
            await asyncio.sleep(0.01)
        emulator.faults.add(kind="status", route="getInsights", status=500, times=4, body="hostile")
        while not any("nex_reason" in fields_of(record) for record in records("feeds", logging.WARNING)):
            await asyncio.sleep(0.01)
        assert engine.hub.workspace
        assert_silent_about(records(), engine.hub.workspace, "ostile", SECRET)


def assert_silent_about(found: list[logging.LogRecord], *values: str) -> None:
    """Check that records are plain, and hold none of these."""
    for record in found:
        fields = fields_of(record)
        assert fields
        assert all(value is None or isinstance(value, (str, int, float)) for value in fields.values())
        text = record.getMessage() + json.dumps(fields)
        assert not [value for value in values if value in text], text
