"""Hours in milliseconds: an event loop on a virtual clock, and two stand-ins for the network below the real client."""

from __future__ import annotations

import asyncio
import selectors
import types
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from heapq import heappop
from typing import Any, NamedTuple, TypeVar

import aiohttp
from multidict import CIMultiDict

from nex_async import Nex, SessionPool
from nex_async.errors import NexError, Timeout
from nex_async.transport.limiter import KeyState
from nex_async.transport.retry import RetryPolicy
from nex_async.transport.sweeper import Sweeper
from nex_async.transport.wire import Reply, Request

from .canary import KEY

__all__ = [
    "Call",
    "Deadlock",
    "LiveLock",
    "MemoryConnector",
    "MemoryTransport",
    "Outcome",
    "VirtualLoop",
    "VirtualWire",
    "counted",
    "reply",
    "run_virtual",
    "virtual_client",
]

T = TypeVar("T")


class Deadlock(RuntimeError):
    """Everybody waits and no timer is set."""


class LiveLock(RuntimeError):
    """The loop turns and the clock stands still."""


class _Clock(selectors.BaseSelector):
    """A selector without sockets: waiting moves the clock."""

    TURNS = 200_000

    def __init__(self) -> None:
        self.now = 1_000.0
        self._turns = 0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Deadlock("everybody waits and no timer is set")
        self.turn(self.now + timeout)
        return []

    def turn(self, until: float) -> None:
        """Count a turn of the loop, after which it is `until`, or as late as it was."""
        if until > self.now:
            self.now, self._turns = until, 0
            return
        self._turns += 1
        if self._turns > self.TURNS:
            raise LiveLock(f"{self.TURNS} turns of the loop and the clock stands at {self.now}")

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer; a connection attempt on it never gets an answer."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def _run_once(self) -> None:
        """Make one turn, as the base class does, without a look at sockets: there are none."""
        loop: Any = self
        ready, scheduled, clock = loop._ready, loop._scheduled, self._clock
        while scheduled and scheduled[0]._cancelled:
            loop._timer_cancelled_count -= 1
            heappop(scheduled)._scheduled = False
        if loop._debug or loop._timer_cancelled_count > 100 or not (ready or scheduled):
            super()._run_once()  # type: ignore[misc]
            return
        clock.turn(scheduled[0]._when if not ready and not loop._stopping else clock.now)
        end = clock.now + loop._clock_resolution
        while scheduled and scheduled[0]._when < end:
            handle = heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self.create_future()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Do the work of a thread at once: a real thread would take time of another clock, in which nothing here waits."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run_virtual(coro: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a virtual clock. Fails when a task is left over.

    Never in asyncio's debug mode, whose clock is not this one: it finds threads and slow steps, which there are none of here, and
    takes four times as long.
    """
    loop = VirtualLoop()
    loop.set_debug(False)
    asyncio.set_event_loop(loop)
    try:
        try:
            result = loop.run_until_complete(coro)
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        assert not left, f"tasks left running: {left}"
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@types.coroutine
def counted(coro: Any, reached: Callable[[int], None]) -> Any:
    """Run a coroutine and tell each time it waits, and for the how manyth time."""
    step, value, number = coro.send, None, 0
    while True:
        try:
            future = step(value)
        except StopIteration as stop:
            return stop.value
        number += 1
        reached(number)
        try:
            step, value = coro.send, (yield future)
        except BaseException as error:
            step, value = coro.throw, error


# ---- below the sender: a tenant without a network -------------------------------------------------------------------


class Call(NamedTuple):
    """One attempt as it reached the wire, and when (seconds of the virtual clock)."""

    number: int
    at: float
    request: Request
    timeout: aiohttp.ClientTimeout


class Outcome(NamedTuple):
    """What an attempt meets: after so many seconds, a reply or an error."""

    after: float
    what: Reply | NexError


Server = Callable[[Call], Outcome]


def reply(status: int = 200, body: bytes = b'{"id":"1"}', **headers: str) -> Reply:
    """Return a reply; `retry_after="2"` becomes the header `Retry-After: 2`."""
    return Reply(status, CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}), body)


class VirtualWire:
    """Stands where a tenant and its binding stand: the real sender, retries, limiter and budget run above it."""

    def __init__(self, server: Server | list[Outcome | Reply | NexError], budget: float = RetryPolicy().budget) -> None:
        self.server = _in_turn(server) if isinstance(server, list) else server
        self.keys = KeyState(budget)
        self.pool = SessionPool()
        self.calls: list[Call] = []
        self.replied: Mapping[str, str] = {}
        self.lean = None
        self._sweeper: Sweeper | None = None

    @property
    def connections(self) -> VirtualWire:
        return self

    @property
    def sweeper(self) -> Sweeper:
        if self._sweeper is None:
            self._sweeper = Sweeper(self.loop)
        return self._sweeper

    @property
    def times(self) -> list[float]:
        return [call.at for call in self.calls]

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    @property
    def bindings(self) -> list[VirtualWire]:
        return [self]

    def witness(self, salt: str) -> bytes:
        return salt.encode()

    def bind(self) -> VirtualWire:
        return self

    async def exchange(self, request: Request, timeout: aiohttp.ClientTimeout) -> Reply:
        call = Call(len(self.calls) + 1, self.loop.time(), request, timeout)
        self.calls.append(call)
        after, what = self.server(call)
        read = timeout.sock_read or 1e9
        await asyncio.sleep(min(after, read))
        if after > read:
            raise Timeout("the server fell silent while its headers were due", sent="maybe", phase="headers")
        if isinstance(what, NexError):
            raise what
        return what

    async def aclose(self) -> None:
        pass


def _in_turn(outcomes: list[Outcome | Reply | NexError]) -> Server:
    """Return a server that gives each attempt the next outcome, and the last one for ever."""

    def server(call: Call) -> Outcome:
        found = outcomes[min(call.number, len(outcomes)) - 1]
        return found if isinstance(found, Outcome) else Outcome(0.01, found)

    return server


def virtual_client(wire: VirtualWire, **arguments: Any) -> Nex:
    """Return a client over a virtual wire."""
    client = Nex(KEY, base_url="http://127.0.0.1:9", **arguments)
    client._state.tenant = wire  # type: ignore[assignment]
    return client


# ---- below aiohttp: connections without sockets ---------------------------------------------------------------------


class MemoryTransport(asyncio.Transport):
    """The client's end of a connection in memory; `respond` is called with each request it writes."""

    def __init__(self, protocol: asyncio.Protocol, respond: Callable[[MemoryTransport, bytes], None]) -> None:
        super().__init__()
        self.protocol = protocol
        self._respond = respond
        self._closing = False

    def write(self, data: Any) -> None:
        self._respond(self, bytes(data))

    def writelines(self, chunks: Any) -> None:
        self.write(b"".join(chunks))

    def feed(self, delay: float, data: bytes) -> None:
        """Let the client receive `data` in `delay` seconds."""
        asyncio.get_running_loop().call_later(delay, self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        if not self._closing:
            self.protocol.data_received(data)

    def end(self, delay: float, error: Exception | None = None) -> None:
        """Let the client see the connection end in `delay` seconds: in good order, or with an error."""
        asyncio.get_running_loop().call_later(delay, self._end, error)

    def _end(self, error: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            self.protocol.connection_lost(error)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_reading(self) -> bool:
        return True


@dataclass
class MemoryConnector:
    """A connector factory for `SessionPool`: real aiohttp, no sockets, `latency` seconds to connect.

    `connecting` is told of each connection to be made, and may raise what making it meets.
    """

    respond: Callable[[MemoryTransport, bytes], None]
    latency: float = 0.0
    opened: int = 0
    connecting: Callable[[Any], None] | None = None

    def __call__(self, **arguments: Any) -> aiohttp.BaseConnector:
        factory = self

        class Connector(aiohttp.TCPConnector):
            async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
                await asyncio.sleep(factory.latency)
                if factory.connecting is not None:
                    factory.connecting(req)
                factory.opened += 1
                protocol = self._factory()
                protocol.connection_made(MemoryTransport(protocol, factory.respond))
                return protocol

        return Connector(**arguments)
