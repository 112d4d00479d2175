"""EmulatorThread: an embedded Nex that any thread and any event loop can use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from anyio.from_thread import start_blocking_portal
from msgspec import UNSET

from ..emulator import Emulator
from ..emulator.call import ApiError
from ..models import Record
from ..models.base import decode
from .clock import Clock

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.from_thread import BlockingPortal

    from ..emulator.faults import Faults
    from ..emulator.request_log import RequestLog
    from ..emulator.switches import Switches

__all__ = ["EmulatorThread"]

_AT_ONCE = 1e-6


class EmulatorThread:
    """An embedded Nex on a thread of its own, which runs inside ``with EmulatorThread() as emulator:``.

    Arguments are those of `Emulator`. By default artifacts and AI lists complete as soon as the clock moves: at once by
    the real time, on `clock.advance` when it stands. Everything here may be used from any thread, and blocks for a
    millisecond at most.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ":memory:",
        *,
        keys: Mapping[str, Iterable[str] | None] | None = None,
        processing_delay: float = _AT_ONCE,
        switches: Mapping[str, Any] | None = None,
    ) -> None:
        self.clock: Clock = Clock()
        self._emulator = Emulator(path, keys=keys, processing_delay=processing_delay, switches=switches, clock=self.clock)
        self._portal: BlockingPortal | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> EmulatorThread:
        if self._portal is not None:
            raise RuntimeError("the emulator is running already")
        with contextlib.ExitStack() as opening:
            portal = opening.enter_context(start_blocking_portal())
            opening.enter_context(portal.wrap_async_context_manager(self._emulator))
            self._open = opening.pop_all()
        self._portal = portal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._portal = None
        self._open.close()

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return self._emulator.url

    @property
    def key(self) -> str:
        """The API key it was made with; the first, of several."""
        return self._emulator.key

    @property
    def keys(self) -> dict[str, frozenset[str] | None]:
        """Each accepted key and its scopes, None for all: ``emulator.keys["sk-reader"] = frozenset({"record.read"})``."""
        return self._emulator.keys

    @property
    def requests(self) -> RequestLog:
        """What was asked: iterate it, `.count(operation)`, `await .wait_for(operation)` on any loop, `.clear()`."""
        return self._emulator.requests

    @property
    def faults(self) -> Faults:
        """What shall go wrong: `.add(kind=..., route=..., times=...)`, `.clear()`."""
        return self._emulator.faults

    @property
    def switches(self) -> Switches:
        """Which of its faces the API shows: `.set(job_envelope="wrapped")`."""
        return self._emulator.switches

    def reset(self) -> None:
        """Begin anew: fresh data, keys and switches, no faults, an empty log, the real time; open streams are dropped."""
        self.clock.reset()
        self._running().call(self._emulator.reset)

    def seed(self, object: str, /, *records: Mapping[str, Any]) -> list[Record]:
        """Create records of an object, each from its attributes, and return them in order; nothing is sent or logged.

        Raises ValueError with the API's own words for a record that cannot be.
        """
        path = f"/v1/objects/{object}"
        return [decode(Record, self._perform("POST", path, {}, {"attributes": record})) for record in records]

    def request(self, method: str, path: str, /, *, query: Mapping[str, str] | None = None, body: Any = UNSET) -> Any:
        """Carry out any operation, without a request that could fail or show in the log, and return its JSON.

        `path` begins with `/v1/`. ``.request("POST", "/v1/context/text", body={"content": "Ada asked for a demo."})``
        makes an insight, and the stream tells it. Raises ValueError where the API would refuse.
        """
        reply = self._perform(method, path, query or {}, body)
        return msgspec.json.decode(reply) if reply else None

    def _perform(self, method: str, path: str, query: Mapping[str, str], body: Any) -> bytes:
        data = b"" if body is UNSET else msgspec.json.encode(body)
        try:
            return self._running().call(self._emulator.perform, method.upper(), path, query, data)
        except ApiError as error:
            raise ValueError(f"{method} {path}: {error.status} {error.message}") from None

    def _running(self) -> BlockingPortal:
        if self._portal is None:
            raise RuntimeError("the emulator is not running; use it in a `with` statement")
        return self._portal
