"""Job: work the server does on its own time; await it, watch it, or attach to it from elsewhere."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Generic, Protocol, TypeVar

from ..errors import DeadlineExceeded, DecodeError, InvalidRequestError, JobFailed, JobTimeout, NexError, NotFoundError
from ..transport.options import deadline

__all__ = ["Job"]

_log = logging.getLogger("nex_async.jobs")

DEFAULT_TIMEOUT = 300.0
_NOT_FOUND_GRACE = 10.0
"""Reads may lag writes: a 404 in the first seconds of a job's life is no answer yet."""
_LEAST_PAUSE = 0.01
_RUNNING = frozenset({"pending", "processing", "accepted", "running"})


class JobState(Protocol):
    """What every job's state has."""

    @property
    def status(self) -> str | None:
        """Where the job stands."""


S = TypeVar("S", bound=JobState)


class Job(Generic[S]):
    """A job at the server; `S` is its state.

    ``await job`` waits for the end and returns the final state; ``job.poll()`` asks once; ``job.watch()`` yields each change
    of status and ends with the job. `id` is what `attach` takes, also in another process. Waiting raises `JobFailed` when
    the job fails and `JobTimeout` after 300 seconds (`wait(timeout=)`); the job itself goes on. Cancelling a wait stops the
    polling and nothing else.
    """

    def __init__(
        self,
        job_id: str,
        fetch: Callable[[str], Awaitable[S]],
        *,
        kind: str,
        done: frozenset[str] = frozenset({"completed"}),
        failed: frozenset[str] = frozenset({"failed"}),
        complete: Callable[[S], bool] = lambda state: True,
    ) -> None:
        self.id = job_id
        self.kind = kind
        self.state: S | None = None
        """The last state seen."""
        self._fetch = fetch
        self._done = done
        self._failed = failed
        self._complete = complete
        self._warned = False

    @property
    def ended(self) -> bool:
        """Whether the last state seen is an end."""
        status = _status(self.state)
        return status in self._done or status in self._failed

    async def poll(self) -> S:
        """Ask once, and return the state. An end, once seen, stays: the server is not asked again."""
        if self.ended and self.state is not None:
            return self.state
        self.state = await self._fetch(self.id)
        self._note_unknown(_status(self.state))
        return self.state

    def _note_unknown(self, status: str) -> None:
        if status in _RUNNING or status in self._done or status in self._failed or self._warned:
            return
        self._warned = True
        _log.warning("%s %s has the unknown status %r; waiting on", self.kind, self.id, status[:40])

    def __await__(self) -> Generator[Any, None, S]:
        return self.wait().__await__()

    async def wait(self, *, timeout: float = DEFAULT_TIMEOUT, interval: float = 2.0) -> S:
        """Poll until the job ends, and return its final state.

        `timeout` bounds the whole wait, in seconds. `interval` is the first pause between polls; it grows to 10 seconds.
        Raises `JobFailed`, `JobTimeout`.
        """
        async for state in self._states(timeout, interval):
            if not self.ended:
                continue
            if _status(state) in self._failed:
                raise self._failure(state)
            return state
        raise AssertionError("states end with an end")

    async def watch(self, *, timeout: float = DEFAULT_TIMEOUT, interval: float = 2.0) -> AsyncGenerator[S, None]:
        """Yield the state at each change of its status, the final one last.

        Raises `JobTimeout`; a failure of the job raises nothing.
        """
        last: str | None = None
        async for state in self._states(timeout, interval):
            if _status(state) != last:
                last = _status(state)
                yield state

    async def _states(self, timeout: float, interval: float) -> AsyncGenerator[S, None]:
        _positive("timeout", timeout)
        _positive("interval", interval)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        until, pause, second_look = begun + timeout, interval, False
        while True:
            state = await self._tolerant_poll(loop.time() - begun, until - loop.time())
            if state is not None:
                if self.ended and not self._complete(state) and not second_look:
                    second_look, self.state = True, None  # a result may follow its status: look once more
                else:
                    yield state
                    if self.ended:
                        self._check_complete(state)
                        return
            now = loop.time()
            if now >= until:
                raise self._overdue()
            await asyncio.sleep(min(max(_LEAST_PAUSE, pause) * random.uniform(0.8, 1.2), until - now))
            pause = min(10.0, pause * 1.5)

    def _overdue(self) -> JobTimeout:
        return JobTimeout(f"{self.kind} {self.id} did not end in time; it goes on at the server", job_id=self.id)

    async def _tolerant_poll(self, age: float, left: float) -> S | None:
        until = asyncio.get_running_loop().time() + left
        try:
            with deadline(left):
                return await self.poll()
        except DeadlineExceeded:
            if asyncio.get_running_loop().time() < until - 0.5:
                raise  # the poll's own deadline, or one the caller set around the wait
            raise self._overdue() from None
        except NotFoundError:
            if age >= _NOT_FOUND_GRACE or self.state is not None:
                raise
            return None

    def _check_complete(self, state: S) -> None:
        if _status(state) in self._done and not self._complete(state):
            raise DecodeError(f"{self.kind} {self.id} is completed, but has no result")

    def _failure(self, state: S) -> NexError:
        error = getattr(state, "error", None)
        why = f": {error}" if isinstance(error, str) and error else ""
        return JobFailed(f"{self.kind} {self.id} failed{why}", job_id=self.id, payload=state)

    def __repr__(self) -> str:
        return f"<Job {self.kind} {self.id} {_status(self.state) or 'not yet polled'}>"


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise InvalidRequestError(f"{name} must be a positive number of seconds, not {value!r}", argument=name)


def _status(state: JobState | None) -> str:
    return ((state.status if state is not None else None) or "").lower()
