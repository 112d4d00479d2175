"""A reply before it is sent, so that a fault can still spoil it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import msgspec
from aiohttp import web

__all__ = ["Reply", "envelope_of"]

_JSON = {"Content-Type": "application/json"}


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """Status, body and headers."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] | None = None

    def response(self) -> web.Response:
        """Return it as aiohttp sends it."""
        return web.Response(status=self.status, body=self.body, headers=self.headers)


def envelope_of(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return an error as the API words it."""
    body = msgspec.json.encode({"code": status, "message": message.encode(errors="replace").decode()})
    return Reply(status, body, {**_JSON, **headers} if headers else _JSON)
