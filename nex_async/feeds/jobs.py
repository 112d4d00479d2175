"""Job: work the server does on its own time; await it, watch it, or attach to it from elsewhere."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from typing import Any, Generic, TypeVar, cast

from ..errors import ClientClosed, InvalidRequestError, JobExpired
from ..transport.state import ClientState
from .feed import Buffer, Consumer, Feed, Overflow, again
from .tracking import JobKind, JobState, Progress, Watch, status_of, track_of

__all__ = ["DEFAULT_TIMEOUT", "Job", "JobKind", "JobState", "as_completed", "wait_all"]

DEFAULT_TIMEOUT = 300.0
"""How long a wait lasts at most, in seconds, unless the caller says otherwise."""

S = TypeVar("S", bound=JobState)
S_co = TypeVar("S_co", bound=JobState, covariant=True)
E = TypeVar("E")


class Job(Generic[S_co]):
    """A job at the server; `S` is its state.

    ``await job`` waits for the end and returns the final state; ``job.poll()`` asks once; ``job.watch()`` is a feed of the
    changes of status that ends with the job. `id` is what `attach` takes, also in another process. Any number may wait for
    one job, which is polled once for all; all jobs of a client share one scheduler, which bounds what ten thousand of them
    may ask. Waiting raises `JobFailed` when the job fails, `JobExpired` when the server knows it no more and `JobTimeout`
    after 300 seconds (`wait(timeout=)`); the job itself goes on. Cancelling a wait stops the polling and nothing else.
    """

    __slots__ = ("__weakref__", "_progress")

    def __init__(
        self,
        owner: ClientState,
        job_id: str,
        fetch: Callable[[str], Awaitable[S_co]],
        kind: JobKind[S_co],
        *,
        new: bool = False,
    ) -> None:
        since = asyncio.get_running_loop().time() if new else None
        self._progress: Progress[S_co] = Progress(owner, job_id, fetch, kind, since)

    @property
    def id(self) -> str:
        """What `attach` takes."""
        return self._progress.id

    @property
    def kind(self) -> str:
        """What kind of job it is, in words."""
        return self._progress.kind.name

    @property
    def state(self) -> S_co | None:
        """The last state seen; None before the first."""
        return self._progress.state

    @property
    def ended(self) -> bool:
        """Whether an end was seen: the job is done and brought its result, has failed or has expired. An end stays."""
        return self._progress.ended

    def result(self) -> S_co:
        """Return the final state of a job that has ended. Asks nothing.

        Raises `JobFailed`, `JobExpired`, or the error that ended the last wait for it; before that `InvalidRequestError`.
        """
        progress = self._progress
        error = progress.error or progress.failure
        if error is not None:
            raise again(error)
        if progress.state is None or not progress.ended:
            raise InvalidRequestError(f"{progress} has not ended; wait for it first")
        return progress.state

    async def poll(self) -> S_co:
        """Ask once, and return the state. An end, once seen, stays: the server is not asked again.

        Raises `JobExpired`, and what any call raises; a job that has failed raises nothing.
        """
        progress = self._progress
        if not progress.ended:
            await self._ask()
        if progress.expired and progress.error is not None:
            raise again(progress.error)
        return cast("S_co", progress.state)

    async def _ask(self) -> None:
        """Poll once, and let those who wait know what came of it."""
        progress = self._progress
        try:
            await progress.ask()
        except JobExpired as error:
            if (track := track_of(progress)) is not None:
                track.stop(error)
            raise
        if (track := track_of(progress)) is not None:
            track.tell()

    def __await__(self) -> Generator[Any, None, S_co]:
        return self.wait().__await__()

    async def wait(self, *, timeout: float = DEFAULT_TIMEOUT, interval: float | None = None) -> S_co:
        """Poll until the job ends, and return its final state.

        `timeout` bounds the whole wait, in seconds. `interval` is the first pause between polls in seconds (by default 2,
        for a connection 3); it grows to 10. Failures that may pass do not end the wait. Raises `JobFailed`, `JobExpired`,
        `JobTimeout`, whose `__cause__` is the failure of the last poll if it failed, `DecodeError` for a job that is done
        and has no result, `ClientClosed`, and what any call raises that waiting cannot mend.
        """
        [state] = await wait_all([self], timeout, interval, hasty=True)
        return cast("S_co", state)

    def watch(self, *, timeout: float = DEFAULT_TIMEOUT, interval: float | None = None) -> Feed[S_co]:
        """Return a feed of the job's states, one for each change of status; it ends with the job.

        The kind of an event is its status in lower case: ``feed.on("completed", handler)``. A job that fails ends the feed
        with its failed state and raises nothing. `timeout` runs from the first reading; then the feed raises `JobTimeout`.
        For the rest see `wait`.
        """
        return Feed(_States(self._progress, timeout, interval))

    def __repr__(self) -> str:
        return f"<Job {self._progress} {self._progress.status or 'not yet polled'}>"


# ---- waiting ----------------------------------------------------------------------------------------------------------


async def wait_all(jobs: Iterable[Job[Any]], timeout: float, interval: float | None = None, *, hasty: bool) -> list[Any]:
    """Return the final states of jobs, in their order.

    `timeout` bounds the whole wait, in seconds. When `hasty`, the first failure is raised at once; otherwise each stands in
    the place of its state.
    """
    every = [job._progress for job in _checked(jobs)]
    wait = _Wait(every, timeout, interval, hasty)
    try:
        await wait.finish()
    finally:
        wait.leave()
        await wait.settle()
    if hasty and wait.errors:
        raise again(next(iter(wait.errors.values())))
    return [again(wait.errors[job]) if job in wait.errors else job.state for job in every]


def _checked(jobs: Iterable[Job[S]]) -> list[Job[S]]:
    every = list(jobs)
    if not all(isinstance(job, Job) for job in every):
        raise InvalidRequestError("jobs must be what create(), add_text(), trigger() and attach() return", argument="jobs")
    return every


class _Wait(Watch):
    """Waits until all jobs have ended or, when hasty, until one of them has failed."""

    def __init__(self, jobs: list[Progress[Any]], timeout: float, interval: float | None, hasty: bool) -> None:
        super().__init__(jobs, timeout, interval)
        self.errors: dict[Progress[Any], Exception] = {}
        """What ended the wait for a job that brought no result, first come first."""
        self._hasty = hasty
        self._waiter: asyncio.Future[None] | None = None

    async def finish(self) -> None:
        self.begin()
        if not self._is_over():
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _is_over(self) -> bool:
        return not self.open or bool(self._hasty and self.errors)

    def saw(self, job: Progress[Any]) -> None:
        """Wait on; see `Watch`."""

    def ended(self, job: Progress[Any], error: Exception | None) -> None:
        failure = error or job.failure
        if failure is not None:
            self.errors[job] = failure
        if self._is_over() and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def late(self) -> None:
        late, self.open = self.open, {}
        for job in late:
            self.ended(job, self.overdue(job))


# ---- feeds ------------------------------------------------------------------------------------------------------------


class _Source(Watch, Generic[E]):
    """What the sources of a feed of states and of a feed of jobs have in common; see `feed.Source`."""

    def __init__(self, jobs: Iterable[Progress[Any]], timeout: float, interval: float | None) -> None:
        super().__init__(jobs, timeout, interval)
        self._consumers: dict[Consumer[E], None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._start: asyncio.Handle | None = None
        self._finished = False
        self._error: Exception | None = None

    def consumer(self, maxsize: int, overflow: Overflow, wants: Callable[[E], bool] | None) -> Consumer[E]:
        return Buffer(maxsize, overflow, wants)

    def attach(self, consumer: Consumer[E], *, late: bool = False) -> None:
        """Begin to offer; the watch begins in the loop's next turn, when all are there who came with the first consumer."""
        self._consumers[consumer] = None
        if self._finished:
            consumer.end(self._error)
        elif self._start is None:
            self._loop = asyncio.get_running_loop()
            self._start = self._loop.call_soon(self.begin)

    def detach(self, consumer: Consumer[E]) -> None:
        """Stop offering; with the last consumer the watch ends."""
        self._consumers.pop(consumer, None)
        if not self._consumers:
            self.leave()

    def leave(self) -> None:
        """Watch no more, until another consumer comes."""
        if self._start is not None:
            self._start.cancel()
            self._start = None
        super().leave()

    async def opened(self) -> None:
        """Return at once: there is nothing to open."""

    async def released(self) -> None:
        """Wait until the polls that nobody needs any more have ended."""
        if asyncio.get_running_loop() is self._loop:
            await self.settle()

    @abstractmethod
    def kind_of(self, event: E) -> str:
        """Return the kind of an event."""

    def offer(self, event: E) -> None:
        for consumer in list(self._consumers):
            consumer.offer(event)

    def finish(self, error: Exception | None) -> None:
        if self._finished:
            return
        self._finished, self._error = True, error
        self.leave()
        for consumer in list(self._consumers):
            consumer.end(error)

    def late(self) -> None:
        self.finish(self.overdue(next(iter(self.open))))


class _States(_Source[S]):
    """The states of one job, one for each change of its status."""

    def __init__(self, job: Progress[S], timeout: float, interval: float | None) -> None:
        super().__init__([job], timeout, interval)
        self._latest: S | None = None

    def attach(self, consumer: Consumer[S], *, late: bool = False) -> None:
        """Begin to offer; one who comes late gets the latest state at once."""
        if self._latest is not None:
            consumer.offer(self._latest)
        super().attach(consumer)

    def saw(self, job: Progress[Any]) -> None:
        if self._latest is None or job.status != status_of(self._latest):
            self._latest = cast("S", job.state)
            self.offer(self._latest)

    def ended(self, job: Progress[Any], error: Exception | None) -> None:
        if error is None:
            self.saw(job)
        self.finish(error)

    def kind_of(self, event: S) -> str:
        return status_of(event)


class _Ends(_Source[Job[S]]):
    """Jobs, each when it has ended."""

    def __init__(self, jobs: Mapping[Progress[S], Job[S]], timeout: float) -> None:
        super().__init__(jobs, timeout, None)
        self._jobs = jobs

    def begin(self) -> None:
        """Watch from now on; without jobs the feed ends at once."""
        super().begin()
        if not self.open:
            self.finish(None)

    def saw(self, job: Progress[Any]) -> None:
        """Wait on; see `Watch`."""

    def ended(self, job: Progress[Any], error: Exception | None) -> None:
        if isinstance(error, ClientClosed):
            self.finish(error)
            return
        self.offer(self._jobs[job])
        if not self.open:
            self.finish(None)

    def kind_of(self, event: Job[S]) -> str:
        return status_of(event.state)


def as_completed(jobs: Iterable[Job[S]], timeout: float) -> Feed[Job[S]]:
    """Return a feed of jobs in the order in which they end; `timeout` runs from the first reading, in seconds."""
    return Feed(_Ends({job._progress: job for job in _checked(jobs)}, timeout))
