"""`nex-async doctor`: each step of the way to the server, one after the other."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click

from .auth import shown
from .output import Output, output_option
from .problem import AUTH, FAILED, one_line
from .running import Session, session_options

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]

State: TypeAlias = Literal["ok", "note", "failed", "refused"]
_MARKS: dict[str, str] = {"ok": "✓", "note": "·", "failed": "✗", "refused": "✗"}
_CALLS = 5
_SKEW_SECONDS = 30.0
_STREAM_SECONDS = 15.0


@dataclass(frozen=True)
class Finding:
    """What a step has shown."""

    step: str
    state: State
    found: str


@click.command("doctor")
@output_option
@session_options
def command(session: Session, output: Output) -> None:
    """Look at the settings, the key, its scopes, the clock, the speed and the stream; change nothing.

    Scopes are probed by reading; those that allow to write cannot be probed without writing.
    """

    async def work() -> int:
        states: set[State] = set()
        rows = []
        async for finding in _look(session):
            states.add(finding.state)
            if output.format == "table":
                click.echo(f"{_MARKS[finding.state]} {finding.step:<10} {finding.found}")
            else:
                rows.append(asdict(finding))
        if output.format != "table":
            output.rows(rows)
        return AUTH if "refused" in states else FAILED if "failed" in states else 0

    from .running import execute

    execute(work, debug=session.debug)


async def _look(session: Session) -> AsyncIterator[Finding]:
    from .._version import __version__

    yield Finding("versions", "ok", _versions(__version__))
    if session.local is None:
        for finding in _settings():
            yield finding
            if finding.state == "refused":
                return
    else:
        yield Finding("settings", "ok", f"an embedded Nex in {session.local}")
    async with session.bare() as nex:
        first = await _first_call(nex)
        yield first
        if first.state in ("failed", "refused"):
            return
        yield _clock(nex)
        yield await _latency(nex)
        for name, probe in _PROBES.items():
            yield await _scope(name, probe, nex)
        yield await _stream(nex)


def _versions(version: str) -> str:
    from importlib.metadata import version as installed

    others = ", ".join(f"{name} {installed(name)}" for name in ("aiohttp", "msgspec", "anyio"))
    return f"nex-async {version}, Python {platform.python_version()}, {others}"


def _settings() -> list[Finding]:
    from ..errors import ConfigError
    from . import credentials

    try:
        found = credentials.find()
        if found is None:
            return [Finding("key", "refused", "none was found: `nex-async auth login`, or set NEX_API_KEY")]
        url = credentials.base_url_of(found)
    except ConfigError as error:
        return [Finding("settings", "refused", one_line(error))]
    return [Finding("key", "ok", f"{shown(found.key)} from {found.source}"), Finding("server", "ok", url)]


async def _first_call(nex: Nex) -> Finding:
    """Make one call without retries: it shows whether the way to the server stands, and whether the key is taken."""
    from ..errors import AuthenticationError, NexError, PermissionDeniedError

    began = time.perf_counter()
    try:
        await nex.objects.list(retries=0)
    except AuthenticationError as error:
        return Finding("connection", "refused", f"the server refuses the key: {one_line(error)}")
    except PermissionDeniedError:
        pass  # the key was taken
    except NexError as error:
        return Finding("connection", "failed", one_line(error))
    return Finding(
        "connection", "ok", f"stands; the first call took {_ms(time.perf_counter() - began)}, connecting included"
    )


def _clock(nex: Nex) -> Finding:
    said = nex._sender.bind().replied.get("Date")
    try:
        skew = (datetime.now(timezone.utc) - parsedate_to_datetime(said or "")).total_seconds()
    except (TypeError, ValueError):
        return Finding("clock", "note", "the server does not tell its time")
    if abs(skew) > _SKEW_SECONDS:
        return Finding("clock", "note", f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server's")
    return Finding("clock", "ok", f"within {_SKEW_SECONDS:.0f} s of the server's")


async def _latency(nex: Nex) -> Finding:
    from ..errors import NexError, PermissionDeniedError

    times = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        try:
            await nex.objects.list(retries=0)
        except PermissionDeniedError:
            pass
        except NexError as error:
            return Finding("latency", "failed", one_line(error))
        times.append(time.perf_counter() - began)
    return Finding("latency", "ok", f"{_ms(statistics.median(times))} for a small call (median of {_CALLS})")


async def _slug(nex: Nex) -> str:
    async for each in nex.objects.list(retries=0):
        if each.slug:
            return each.slug
    return "person"


async def _records(nex: Nex) -> Any:
    return await nex.records.list(await _slug(nex), limit=1, attributes="none", retries=0)


async def _lists(nex: Nex) -> Any:
    return await nex.lists.list(await _slug(nex), retries=0)


_PROBES: dict[str, Callable[[Nex], Awaitable[Any]]] = {
    "object.read": lambda nex: nex.objects.list(retries=0),
    "record.read": _records,
    "list.read": _lists,
    "relationship.read": lambda nex: nex.relationships.list_definitions(retries=0),
    "task.read": lambda nex: nex.tasks.list(limit=1, retries=0),
    "note.read": lambda nex: nex.notes.list(retries=0),
    "insight.stream": lambda nex: nex.insights.list(limit=1, retries=0),
    "integration.read": lambda nex: nex.integrations.list(retries=0),
    "notification.read": lambda nex: nex.notifications.feed(limit=1, retries=0),
}


async def _scope(name: str, probe: Callable[[Nex], Awaitable[Any]], nex: Nex) -> Finding:
    from ..errors import NexError, NotFoundError, PermissionDeniedError

    try:
        await probe(nex)
    except PermissionDeniedError:
        return Finding("scope", "note", f"{name}: the key does not have it")
    except NotFoundError:
        return Finding("scope", "note", f"{name}: the server does not offer what it is for")
    except NexError as error:
        return Finding("scope", "failed", f"{name}: {one_line(error)}")
    return Finding("scope", "ok", name)


async def _stream(nex: Nex) -> Finding:
    from ..errors import NexError, PermissionDeniedError

    began = time.perf_counter()
    try:
        async with nex.insights.stream(start="now", timeout=_STREAM_SECONDS):
            return Finding("stream", "ok", f"stood after {_ms(time.perf_counter() - began)}")
    except PermissionDeniedError:
        return Finding("stream", "note", "needs the scope insight.stream")
    except NexError as error:
        return Finding("stream", "failed", one_line(error))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
