"""Integrations: mail, calendars, messaging and other systems that feed the workspace."""

from __future__ import annotations

from .._typing import Unpack
from ..errors import InvalidRequestError
from ..feeds.jobs import Job, JobKind
from ..models import ConnectStarted, ConnectStatus, Integration
from ..paging import OnBadRow, Pager
from ..routes import CONNECT, DISCONNECT, GET_CONNECT_STATUS, LIST_INTEGRATIONS
from ..transport.options import RequestOptions
from ..transport.wire import Id, path_segment
from .base import Resource

__all__ = ["Integrations"]

_CONNECTION: JobKind[ConnectStatus] = JobKind(
    "connection",
    done=frozenset({"connected", "complete", "completed", "active"}),
    failed=frozenset({"failed", "error"}),
    interval=3.0,
)


class Integrations(Resource):
    """`nex.integrations`: mail, calendars, messaging and other systems that feed the workspace."""

    def list(self, *, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]) -> Pager[Integration]:
        """Return a pager over the services that can be connected, with the accounts that are.

        `GET /v1/integrations`, scope `integration.read`. The listing comes in one page.
        """
        return self._single(LIST_INTEGRATIONS, options=options, on_bad_row=on_bad_row)

    async def connect(self, type: str, provider: str, /, **options: Unpack[RequestOptions]) -> ConnectStarted:
        """Begin to connect an account, for example `("email", "google")`; a person approves at `auth_url`.

        `await nex.integrations.attach(started)` waits until that was done.
        `POST /v1/integrations/{type}/{provider}/connect`, scope `integration.write`. The API takes 10 a minute: calls beyond
        that wait their turn. Raises `BadRequestError` for a pair that does not exist.
        """
        return await self._sender.send(CONNECT, (type, provider), options=options)

    async def connect_status(self, connect_id: str, /, **options: Unpack[RequestOptions]) -> ConnectStatus:
        """Return how far a connection is.

        `GET /v1/integrations/connect/{connect_id}/status`, scope `integration.read`. Raises `GoneError` once the token is
        older than 10 minutes.
        """
        return await self._sender.send(GET_CONNECT_STATUS, (connect_id,), options=options)

    def attach(self, connect: ConnectStarted | str, /) -> Job[ConnectStatus]:
        """Return the job of a connection that waits for approval; takes the reply of `connect`, or its `connect_id`.

        Await it for the `connection_id`. It is polled every 3 seconds at first; the token expires after 10 minutes, which
        raises `JobExpired`. Sends nothing. Raises `InvalidRequestError` where `connect` brought no `connect_id`.
        """
        token = connect.connect_id if isinstance(connect, ConnectStarted) else connect
        if token is None:
            raise InvalidRequestError(
                "connect() brought no connect_id; look for the account in list()", argument="connect_id"
            )
        path_segment("connect_id", token)
        return Job(self._sender.state, token, self.connect_status, _CONNECTION)

    async def disconnect(self, connection_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Disconnect an account.

        `DELETE /v1/integrations/connections/{connection_id}`, scope `integration.write`. Raises `NotFoundError`.
        """
        await self._sender.send(DISCONNECT, (connection_id,), options=options)
