"""Insights as they come: printed, posted to a web hook, handed to a command, one after the other."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import aiohttp
import click

from .._version import __version__
from ..errors import SinkUnavailable, printable
from ..feeds.events import Closed, Connected, Degraded, Gap, InsightEvent, Reconnecting, Recovered
from ..sinks.forwarding import forward
from ..sinks.message import encode
from .problem import Problem

if TYPE_CHECKING:
    from ..feeds.insights import InsightFeed

__all__ = ["Listener", "check_url"]

_PATIENCE = 30.0
"""Seconds in which a web hook that fails in passing is asked again."""
_ANSWER_SECONDS = 30.0
_AGAIN = frozenset((408, 425, 429))


class NotTakenError(Exception):
    """An insight that will never be taken."""


def check_url(url: str) -> None:
    """Raise `BadParameter` for what is no address of a web hook."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if not is_url:
        raise click.BadParameter(f"{url!r} is no http:// or https:// address", param_hint="--forward-to")


class Listener:
    """A sink at the command line: each insight is printed, then posted, then handed to a command, one after the other."""

    def __init__(self, output: str | None, forward_to: str | None, program: str | None, count: int | None) -> None:
        self._as_text = (output or ("text" if sys.stdout.isatty() else "jsonl")) == "text"
        self._url = forward_to
        self._program = program
        self._left = count
        self._printed: str | None = None
        self._feed: InsightFeed | None = None
        self._session: aiohttp.ClientSession | None = None

    async def listen(self, feed: InsightFeed, *, skips: bool) -> None:
        """Hand on what the feed brings, until it ends or enough has come."""
        self._feed = feed
        on_error: Literal["stop"] | Callable[[InsightEvent, Exception], None] = self._skip if skips else "stop"
        try:
            async with feed:
                await forward(
                    feed,
                    self,
                    max_batch=1,
                    linger=0,
                    maxsize=100,
                    timeout=3600,
                    patience=_PATIENCE,
                    on_error=on_error,
                    on_signal=_tell,
                )
        except (NotTakenError, SinkUnavailable) as error:
            raise Problem(
                f"insight {self._printed} was not taken: {error}",
                "with --checkpoint it comes again at the next start; --on-error skip goes on without those that are refused",
            ) from None
        finally:
            if self._session is not None:
                await self._session.close()

    async def write(self, events: Sequence[InsightEvent], /) -> None:
        """Hand on one insight; see `InsightSink`."""
        for event in events:
            if self._left == 0:
                return
            body = encode(event)
            if event.key != self._printed:  # a second attempt is not printed again
                self._print(event, body)
            if self._url is not None:
                await self._post(event, body)
            if self._program is not None:
                await self._run(event, body)
            self._count()

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if not self._left and self._feed is not None:
                self._feed.stop()

    def _print(self, event: InsightEvent, body: bytes) -> None:
        self._printed = event.key
        if self._as_text:
            insight = event.insight
            when = f"{insight.created_at:%Y-%m-%d %H:%M:%S}" if insight.created_at else "-"
            click.echo(f"{when}  {insight.type or '-':<12}  {printable(insight.content or '', 2000)}")
        else:
            click.echo(body)

    async def _post(self, event: InsightEvent, body: bytes) -> None:
        assert self._url is not None
        headers = {"X-Nex-Insight-Key": event.key}
        try:
            async with self._hook().post(self._url, data=body, headers=headers, allow_redirects=False) as reply:
                status = reply.status
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise SinkUnavailable(f"the web hook cannot be reached ({error or type(error).__name__})") from None
        if not 200 <= status < 300:
            passing = status >= 500 or status in _AGAIN
            raise (SinkUnavailable if passing else NotTakenError)(f"the web hook answered {status}")

    def _hook(self) -> aiohttp.ClientSession:
        """Return a session of its own: nothing of what authorizes the client to Nex is known to it."""
        if self._session is None:
            agent = {"User-Agent": f"nex-async/{__version__}", "Content-Type": "application/json"}
            timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
            self._session = aiohttp.ClientSession(headers=agent, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _skip(self, event: InsightEvent, error: Exception) -> None:
        click.echo(f"Insight {event.key} was not taken: {error}", err=True)
        self._count()

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
            raise NotTakenError(f"the command ended with status {process.returncode}")


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
