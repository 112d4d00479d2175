"""The only place where routes, wire, retry, limiter and pool meet: the whole life of a call on one screen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import msgspec

from ..errors import ClientClosed, ConfigError, DeadlineExceeded, NexError
from ..routes import Route
from . import log, wire
from .call import Call, describe
from .options import RequestOptions, Settings, outer_deadline
from .pool import Binding
from .state import CLOSING, ClientState
from .wire import Id, Query, Request

__all__ = ["Sender"]

T = TypeVar("T")


class Sender:
    """Sends calls for one tenant with one set of settings."""

    __slots__ = ("settings", "state")

    def __init__(self, state: ClientState, settings: Settings) -> None:
        self.state: ClientState = state
        self.settings: Settings = settings

    def send(
        self,
        route: Route[T],
        path: tuple[Id, ...] = (),
        query: Query | None = None,
        body: Any = msgspec.UNSET,
        options: RequestOptions | None = None,
    ) -> Coroutine[Any, Any, T]:
        """Send one call and return its decoded reply, retrying as the policy allows. Raises `NexError`."""
        settings = self.settings.merged(options) if options else self.settings
        return self.dispatch(route, wire.build(route, path, query, body, settings.headers), settings)

    async def dispatch(self, route: Route[T], request: Request, settings: Settings) -> T:
        """Send a call that was built already; see `send`."""
        state = self.state
        task = state.enter()
        binding: Binding | None = None
        call: Call | None = None
        failure: NexError
        try:
            binding = self.bind()
            keys, sweeper = binding.keys, binding.connections.sweeper
            clock = sweeper.clock
            started = clock()
            total, timeout = settings.plans[route.deadline]
            outer = outer_deadline.get()
            until = started + total if outer is None else min(started + total, outer)
            limit = keys.limits[route.group]
            sweeper.watch(task, until)
            if outer is not None or limit.active or keys.latch.armed or settings.listened:
                call = Call(state, settings, route, request, binding, started, until)
                request = call.begin()
            while True:
                if call is not None:
                    timeout = await call.before_attempt()
                try:
                    reply = await binding.exchange(request, timeout)
                    value = wire.read(route, reply)
                except NexError as error:
                    failure = error
                except asyncio.CancelledError:
                    if not sweeper.took(task):
                        raise
                    failure = DeadlineExceeded("the call's deadline passed before its reply was complete", sent="maybe")
                else:
                    limit.succeeded(now := clock())
                    state.counts.succeeded += 1
                    if call is None:
                        keys.budget.earn()
                        if log.is_heard(log.DEBUG):
                            log.succeeded(route, reply.status, len(reply.body), now - started)
                    else:
                        call.after_success(reply)
                    return value
                if call is None:
                    call = Call(state, settings, route, request, binding, started, until)
                delay = call.after_failure(failure)
                if delay is None:
                    return cast(T, None)
                await call.pause(delay)
        except BaseException as error:
            self._failed(error, task, call, route, request)
            raise
        finally:
            if binding is not None:
                binding.connections.sweeper.forget(task)
            state.leave(task)

    def bind(self) -> Binding:
        """Return the tenant's binding to the running loop. Raises `ConfigError` before an embedded Nex was started."""
        tenant = self.state.tenant
        if tenant is None:
            raise ConfigError("the embedded Nex is not running yet; use `async with Nex.local() as nex:`")
        return tenant.bind()

    def _failed(
        self, error: BaseException, task: asyncio.Task[Any], call: Call | None, route: Route[Any], request: Request
    ) -> None:
        """Account for a call that ends without a result. Raises what a cancellation of our own means to the caller."""
        meaning: NexError | None = None
        if isinstance(error, asyncio.CancelledError):
            if call is not None and call.binding.connections.sweeper.took(task):
                meaning = call.overdue("the call's deadline passed during a wait")
                meaning.__cause__ = call.last
            else:
                meaning = self._closing(error, task, route, request)
        self.state.counts.ended(meaning or error)
        if call is not None:
            call.end(meaning or error)
        if meaning is not None:
            raise meaning from meaning.__cause__

    def _closing(
        self, cancelled: asyncio.CancelledError, task: asyncio.Task[Any], route: Route[Any], request: Request
    ) -> NexError | None:
        """Turn our own cancellation on close into `ClientClosed`; note a write whose outcome nobody will learn."""
        if self.state.closed and cancelled.args == (CLOSING,):
            uncancel = getattr(task, "uncancel", None)  # Python 3.11 counts cancellations
            if uncancel is not None:
                uncancel()
            return describe(ClientClosed("the client was closed during the call"), route, request)
        if route.retry in ("create", "costly"):
            log.cancelled(route)
        return None
