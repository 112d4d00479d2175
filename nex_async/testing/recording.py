"""record: a server between a client and the real one, which notes what it passes on."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from anyio.from_thread import start_blocking_portal
from yarl import URL

from ..client import Nex
from ..config import DEFAULT_ORIGIN, PREFIX, normalise_base_url
from ..errors import ConfigError
from ..transport.pool import refuse_hidden_retry
from .cassette import Cassette, Exchange, body_of, kept_headers, query_of, write_cassette
from .loopback import serve
from .redaction import redacted, secrets_of

__all__ = ["Recording", "record"]

_OWN = frozenset({
    "accept-encoding", "connection", "content-encoding", "content-length", "expect", "host", "keep-alive", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
"""Headers that are between two neighbours."""
_CONNECT_SECONDS = 10.0
_END_OF_EVENT = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)|(?<=\r\r)")


@contextlib.contextmanager
def record(
    path: str | os.PathLike[str], /, *, upstream: str = DEFAULT_ORIGIN, redact: Iterable[str] = ()
) -> Iterator[Recording]:
    """Pass requests on to a real server, and note them and the replies in a cassette for `replay`.

    Yields a `Recording`: give its `url` to any client as the base URL, or take `client()`. `upstream` is the base URL of the
    real server, or its origin. API keys never get into the file; `redact` names fields of JSON, and of queries, whose values
    do not either: the same value becomes the same placeholder wherever it stands, and a number 0. Headers of requests are
    not kept, of replies only a few; a stream is kept event by event.

    The file is written in one step when the block ends, and not at all when it ends by an error. What no reply came to is
    not in it. Raises `ConfigError` for arguments that cannot be right.
    """
    if isinstance(redact, str):
        raise ConfigError("redact must be a collection of field names, not one string")
    recording = Recording(normalise_base_url(upstream, "upstream"))
    fields = frozenset(redact)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(recording._running()):
        yield recording
    exchanges = redacted(recording._exchanges(), fields, recording._secrets)
    write_cassette(Path(path), Cassette(exchanges, fields), secrets=recording._secrets)


class Recording:
    """What `record` yields."""

    def __init__(self, upstream: str) -> None:
        self.url: str = ""
        """The base URL for clients."""
        self._upstream = upstream
        self._session: aiohttp.ClientSession
        self._noted: list[_Noted] = []
        self._secrets: set[str] = set()

    def client(self, **options: Any) -> Nex:
        """Return a new client that is recorded; its key is found like that of any `Nex()`, whose arguments these are."""
        return Nex(base_url=self.url, **options)

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as self._session:
            refuse_hidden_retry(self._session)
            async with serve(self._answer) as origin:
                self.url = origin + PREFIX
                yield

    def _exchanges(self) -> Iterator[Exchange]:
        return (noted.exchange() for noted in self._noted if noted.status)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if not path.startswith(PREFIX + "/"):
            return web.Response(status=404, text=f"the recorder's base URL is {self.url}")
        self._secrets |= secrets_of(request.headers.get("Authorization", ""))
        query = request.rel_url.raw_query_string
        noted = _Noted(request.method, path[len(PREFIX) :], query, await request.read())
        self._noted.append(noted)
        try:
            async with self._ask(request, noted) as reply:
                return await self._pass_on(request, noted, reply)
        except aiohttp.ClientError:  # the real one broke off, and so do we
            if request.transport is not None:
                request.transport.abort()
            return web.Response()

    def _ask(self, request: web.BaseRequest, noted: _Noted) -> Any:
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _OWN]
        plain = request.headers.get("Accept-Encoding") == "identity"
        headers.append(("Accept-Encoding", "identity" if plain else "gzip, deflate"))
        return self._session.request(
            noted.method,
            URL(f"{self._upstream}{noted.path}{'?' if noted.query else ''}{noted.query}", encoded=True),
            headers=headers,
            data=io.BytesIO(noted.body) if noted.body else None,  # aiohttp warns of large bodies in one piece
            skip_auto_headers=("User-Agent", "Content-Type"),
            allow_redirects=False,
        )

    async def _pass_on(self, request: web.BaseRequest, noted: _Noted, reply: aiohttp.ClientResponse) -> web.StreamResponse:
        noted.headers = kept_headers(reply.headers)
        if reply.content_type != "text/event-stream":
            noted.reply = await reply.read()
            noted.status = reply.status
            return web.Response(status=reply.status, body=noted.reply, headers=noted.headers)
        response = web.StreamResponse(status=reply.status, headers=noted.headers)
        noted.status, noted.is_stream = reply.status, True
        await response.prepare(request)
        while chunk := await _next_chunk(reply):
            noted.reply += chunk
            await response.write(chunk)
        noted.ended = True
        return response


async def _next_chunk(reply: aiohttp.ClientResponse) -> bytes:
    """Return what a stream says next; nothing at its end, however it ends."""
    try:
        return await reply.content.readany()
    except aiohttp.ClientError:
        return b""


class _Noted:
    """A request that was passed on, and what came back so far."""

    def __init__(self, method: str, path: str, query: str, body: bytes) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.status = 0
        """0 as long as there is no reply."""
        self.headers: dict[str, str] = {}
        self.reply = b""
        self.is_stream = False
        self.ended = False

    def exchange(self) -> Exchange:
        """Return it as a cassette has it."""
        reply = body_of(self.reply)
        if self.is_stream:
            events = [event.decode(errors="replace") for event in _END_OF_EVENT.split(self.reply) if event]
            reply = {"events": events, "ended": self.ended}
        query = query_of(self.query)
        return Exchange(self.method, self.path, query, body_of(self.body), self.status, self.headers, reply)
