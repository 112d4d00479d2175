"""A server that answers every request with one prepared reply and remembers what it was asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web


@dataclass
class Seen:
    """A request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: Any


class Recorder:
    """Answers with `status` and `body`; `seen` holds the requests in order."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.status = 200
        self.body = b""
        self.content_type = "application/json"
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Recorder:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self.seen.append(Seen(request.method, request.raw_path, dict(request.headers), json.loads(raw) if raw else None))
        headers = {"Content-Type": self.content_type} if self.body else {}
        return web.Response(status=self.status, body=self.body, headers=headers)
