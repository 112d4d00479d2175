"""replay: a server that says again what `record` has noted, and needs no network."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from anyio.from_thread import start_blocking_portal

from ..client import Nex
from ..config import PREFIX
from .cassette import Cassette, Exchange, body_of, bytes_of, query_of, read_cassette
from .loopback import serve
from .matching import Bindings
from .redaction import redacted, secrets_of

__all__ = ["Replay", "replay"]

_KEY = "sk-replay"


@contextlib.contextmanager
def replay(path: str | os.PathLike[str], /) -> Iterator[Replay]:
    """Answer requests from a cassette that `record` wrote.

    Yields a `Replay`: give its `url` to any client as the base URL, or take `client()`. A request gets the reply that was
    recorded for the same method, path, query and body; asked again, the next one, in the order of the recording. A stream
    says all its events at once, and ends if it did. A placeholder in the file is any text, and the same one everywhere.

    A request that was not recorded is answered with status 400 and a message that names the nearest one; when the block ends
    without another error it raises AssertionError for these. Raises FileNotFoundError, and `ConfigError` for a file that is
    no cassette.
    """
    player = Replay(read_cassette(Path(path)))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(player._running()):
        yield player
    if player.unexpected:
        raise AssertionError("\n".join([f"{os.fspath(path)} has no reply to:", *player.unexpected]))


class Replay:
    """What `replay` yields."""

    def __init__(self, cassette: Cassette) -> None:
        self.url: str = ""
        """The base URL for clients."""
        self.unexpected: list[str] = []
        """What was asked and not recorded, each with the nearest that was; may be cleared."""
        self._exchanges = cassette.exchanges
        self._left = list(cassette.exchanges)
        self._bindings = Bindings(cassette.redacted)

    def client(self, **options: Any) -> Nex:
        """Return a new client of this server; the arguments are those of `Nex`, and any key will do."""
        return Nex(options.pop("api_key", _KEY), base_url=self.url, **options)

    def unused(self) -> list[str]:
        """Return the recorded requests that nobody has asked yet, such as `GET /v1/tasks?limit=10`."""
        return [str(exchange) for exchange in self._left]

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        async with serve(self._answer) as origin:
            self.url = origin + PREFIX
            yield

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path.removeprefix(PREFIX)
        query = query_of(request.rel_url.raw_query_string)
        given = Exchange(request.method, path, query, body_of(await request.read()), 0, {}, {})
        secrets = secrets_of(request.headers.get("Authorization", ""))
        [asked] = redacted([given], frozenset(), secrets)  # of keys alone, as the recorded ones are
        found = next((each for each in self._left if not self._bindings.take(each, asked)), None)
        if found is None:
            return self._refuse(asked)
        self._left.remove(found)
        reply = self._bindings.fill(found.reply)
        if "events" in reply:
            return await _say(request, found, reply["events"])
        return web.Response(status=found.status, headers=found.headers, body=bytes_of(reply))

    def _refuse(self, asked: Exchange) -> web.Response:
        message = f"{asked}: {self._explain(asked)}"
        self.unexpected.append(message)
        body = msgspec.json.encode({"code": 400, "message": message.encode(errors="replace").decode()})
        return web.Response(status=400, body=body, content_type="application/json")

    def _explain(self, asked: Exchange) -> str:
        if not self._exchanges:
            return "the cassette is empty"
        differences = [self._bindings.difference(each, asked) for each in self._exchanges]
        times = differences.count("")
        if times:
            return f"was recorded {times} time{'' if times == 1 else 's'}, and asked for once more"
        nearest = max(range(len(differences)), key=lambda number: _likeness(self._exchanges[number], asked))
        return f"was not recorded; the nearest is {self._exchanges[nearest]} ({differences[nearest]})"


def _likeness(recorded: Exchange, asked: Exchange) -> float:
    alike = difflib.SequenceMatcher(None, str(recorded), str(asked)).ratio()
    return alike + difflib.SequenceMatcher(None, repr(recorded.body)[:1000], repr(asked.body)[:1000]).ratio() / 4


async def _say(request: web.BaseRequest, found: Exchange, events: list[str]) -> web.StreamResponse:
    response = web.StreamResponse(status=found.status, headers=found.headers)
    await response.prepare(request)
    for event in events:
        await response.write(event.encode())
    if not found.reply.get("ended", True):
        await asyncio.Event().wait()  # until the client leaves
    return response
