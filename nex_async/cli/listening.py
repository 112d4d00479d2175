"""Insights as they come: printed, posted to a web hook, handed to a command, one after the other."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import click
import msgspec

from .._version import __version__
from ..errors import FeedClosed, printable
from ..feeds.events import Closed, Connected, Degraded, Gap, InsightEvent, Reconnecting, Recovered
from .running import Problem

if TYPE_CHECKING:
    from ..feeds.insights import InsightFeed

__all__ = ["Listener", "check_url", "line_of"]

_ATTEMPTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_ANSWER_SECONDS = 30.0
_AGAIN = frozenset((408, 425, 429))


class NotTakenError(Exception):
    """An insight could not be handed on; `passing` says whether another attempt may do better."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


def check_url(url: str) -> None:
    """Raise `BadParameter` for what is no address of a web hook."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if not is_url:
        raise click.BadParameter(f"{url!r} is no http:// or https:// address", param_hint="--forward-to")


def line_of(event: InsightEvent) -> dict[str, Any]:
    """Return what is printed and handed on of an insight."""
    insight = msgspec.json.decode(msgspec.json.encode(event.insight))
    held = {name: value for name, value in insight.items() if value not in (None, [], {})}
    return {"key": event.key, "source": event.source, "redelivered": event.redelivered, "insight": held}


class Listener:
    """Reads a feed, and hands each insight on; the next is taken when that is done."""

    def __init__(self, output: str | None, forward_to: str | None, program: str | None, *, skips: bool) -> None:
        self._as_text = (output or ("text" if sys.stdout.isatty() else "jsonl")) == "text"
        self._url = forward_to
        self._program = program
        self._skips = skips
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Listener:
        if self._url is not None:
            # A session of its own: nothing of what authorizes the client to Nex is known to it.
            agent = {"User-Agent": f"nex-async/{__version__}", "Content-Type": "application/json"}
            timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
            self._session = aiohttp.ClientSession(headers=agent, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def listen(self, feed: InsightFeed, count: int | None) -> None:
        """Hand on what the feed brings, up to `count` insights."""
        done = 0
        queue = feed.queue(maxsize=100, signals=True)
        async with feed:
            while count is None or done < count:
                try:
                    event = await queue.get()
                except FeedClosed:
                    return
                if isinstance(event, InsightEvent):
                    await self._handle(event)
                    done += 1
                else:
                    _tell(event)
                await queue.done(event)

    async def _handle(self, event: InsightEvent) -> None:
        line = line_of(event)
        body = msgspec.json.encode(line)
        if self._as_text:
            insight = event.insight
            when = f"{insight.created_at:%Y-%m-%d %H:%M:%S}" if insight.created_at else "-"
            click.echo(f"{when}  {insight.type or '-':<12}  {printable(insight.content or '', 2000)}")
        else:
            click.echo(body)
        try:
            await self._hand_on(event, body)
        except NotTakenError as error:
            if not self._skips:
                raise Problem(
                    f"insight {event.key} was not taken: {error}",
                    "with --checkpoint it comes again at the next start; --on-error skip goes on without it",
                ) from None
            click.echo(f"Insight {event.key} was not taken: {error}", err=True)

    async def _hand_on(self, event: InsightEvent, body: bytes) -> None:
        if self._url is not None:
            await self._repeated(self._post, event, body)
        if self._program is not None:
            await self._repeated(self._run, event, body)

    async def _repeated(self, step: Any, event: InsightEvent, body: bytes) -> None:
        pause = _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await step(event, body)
            except NotTakenError as error:
                if attempt == _ATTEMPTS or not error.passing:
                    raise
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(_LONGEST_PAUSE, pause * 2)
            else:
                return

    async def _post(self, event: InsightEvent, body: bytes) -> None:
        assert self._session is not None
        assert self._url is not None
        headers = {"X-Nex-Insight-Key": event.key}
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as reply:
                status = reply.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotTakenError(f"the web hook cannot be reached ({error or type(error).__name__})", passing=True) from None
        if not 200 <= status < 300:
            raise NotTakenError(f"the web hook answered {status}", passing=status >= 500 or status in _AGAIN)

    async def _run(self, event: InsightEvent, body: bytes) -> None:
        assert self._program is not None
        process = await asyncio.create_subprocess_shell(
            self._program, stdin=asyncio.subprocess.PIPE, env={**os.environ, **_environment(event)}
        )
        try:
            await process.communicate(body + b"\n")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise NotTakenError(f"the command ended with status {process.returncode}", passing=False)


def _environment(event: InsightEvent) -> Mapping[str, str]:
    kind = (event.insight.type or "").replace("\0", "")
    return {"NEX_INSIGHT_KEY": event.key, "NEX_INSIGHT_TYPE": kind, "NEX_INSIGHT_SOURCE": event.source}


def _tell(signal: object) -> None:
    """Say on stderr what the feed tells of itself."""
    text = None
    if isinstance(signal, Connected):
        text = "listening"
    elif isinstance(signal, Reconnecting):
        why = "the server ended it" if signal.error is None else " ".join(str(signal.error).split())
        text = f"the stream was lost ({why}); attempt {signal.attempt} in {signal.delay:.1f} s"
    elif isinstance(signal, Gap):
        text = f"insights between {signal.start} and {signal.end} may be missing ({signal.reason})"
    elif isinstance(signal, Degraded):
        text = f"not as it should be: {signal.reason}"
    elif isinstance(signal, Recovered):
        text = f"as it should be again: {signal.reason}"
    elif isinstance(signal, Closed):
        text = f"the feed has ended ({signal.reason})"
    if text is not None:
        click.echo(f"-- {text}", err=True)
