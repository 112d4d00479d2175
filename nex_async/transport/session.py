"""The way through aiohttp's own session: for proxies, for a session of the user's, and for large bodies."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import aiohttp

from ..errors import ClientClosed, NexError, Phase
from .body import read_body, read_error
from .faults import AIOHTTP_FAILURES, failure_of
from .limiter import KeyState
from .wire import MAX_ERROR_BODY, Reply, Request

if TYPE_CHECKING:
    from .pool import ConnectionSet, Tenant

__all__ = ["CLOSED", "JSON_HEADERS", "STREAMED", "SessionPath"]

CLOSED = "the client was closed during the call"
STREAMED = 1 << 20
"""A body of more bytes is written piece by piece; aiohttp warns of writing it in one go."""
_CONTENT_TYPE = ("Content-Type",)
JSON_HEADERS = {"Content-Type": "application/json"}


class SessionPath:
    """The way of one tenant on one loop through a `ClientSession`."""

    __slots__ = ("_connections", "_keys", "session", "tenant")

    def __init__(self, connections: ConnectionSet, keys: KeyState, tenant: Tenant, session: aiohttp.ClientSession) -> None:
        self._connections = connections
        self._keys = keys
        self.tenant: Tenant = tenant
        self.session: aiohttp.ClientSession = session

    async def exchange(self, request: Request, timeout: aiohttp.ClientTimeout) -> Reply:
        """Send one request and return its complete reply. Raises `TransportError` or `DeadlineExceeded`."""
        tenant, connections = self.tenant, self._connections
        if connections.closed:
            raise ClientClosed(CLOSED)
        headers = request.headers
        body = request.body
        data: bytes | io.BytesIO | None = body
        if body is not None:
            headers = JSON_HEADERS if headers is None else {**JSON_HEADERS, **headers}
            if len(body) > STREAMED:
                data = io.BytesIO(body)
        if tenant.user_session is not None:
            headers = {**tenant.headers, **(headers or {})}
        phase: Phase = "headers"
        waiting = connections.in_flight >= connections.limit
        connections.in_flight += 1
        response: aiohttp.ClientResponse | None = None
        try:
            connections.idle.give_back()
            response = received = await self.session.request(
                request.method,
                tenant.url(request.target),
                data=data,
                headers=headers,
                # aiohttp would call an absent body an octet stream
                skip_auto_headers=_CONTENT_TYPE if body is None and request.method != "GET" else None,
                timeout=timeout,
                allow_redirects=False,
                auto_decompress=False,
                raise_for_status=False,
            )
            phase = "body"
            self._keys.replied = received.headers
            if 200 <= received.status < 300:
                content = await read_body(received, tenant.max_body)
            else:
                content = await read_error(received, MAX_ERROR_BODY)
            received.close()
            return Reply(received.status, received.headers, content)
        except AIOHTTP_FAILURES as error:
            failure: NexError = failure_of(error, phase, waiting)
        except RuntimeError as error:
            if "closed" not in str(error):
                raise
            failure = ClientClosed(CLOSED)
        except BaseException:
            if response is not None:
                response.close()
            raise
        finally:
            connections.in_flight -= 1
        if response is not None:
            response.close()
        if connections.closed:  # which is what broke the connection
            failure = ClientClosed(CLOSED)
        raise failure from None
