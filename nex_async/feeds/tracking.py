"""How jobs stand, and the polling that all who watch a job share."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

from .._logfields import fields_of
from ..errors import (
    DeadlineExceeded,
    DecodeError,
    GoneError,
    InvalidRequestError,
    JobExpired,
    JobFailed,
    JobTimeout,
    NexError,
    NotFoundError,
    RateLimitQueueFull,
    RetryBudgetExhausted,
    outcome_of,
)
from ..transport.options import outer_deadline
from ..transport.retry import classify
from ..transport.state import ClientState
from .scheduler import Polled, Scheduler, scheduler_of

__all__ = ["JobKind", "JobState", "Progress", "Track", "Watch", "status_of", "track_of"]

_log = logging.getLogger("nex_async.jobs")

_NOT_FOUND_GRACE = 10.0
"""Reads may lag writes: a 404 in the first seconds of a job's life is no answer yet."""
_LONGEST_PAUSE = 10.0
_LEAST_PAUSE = 0.01
_TURNS = 20
"""A poll that was cancelled ends within a few turns of the loop; nobody waits longer for it, for his time may be up."""
_RUNNING = frozenset({"pending", "processing", "accepted", "running"})
_PASSING = frozenset({"unsent", "throttled", "refused", "fault", "lost"})


class JobState(Protocol):
    """What every job's state has."""

    @property
    def status(self) -> str | None:
        """Where the job stands."""


S = TypeVar("S", bound=JobState)


@dataclass(frozen=True)
class JobKind(Generic[S]):
    """What is known of a kind of job: which statuses are its ends, and how often to ask (in seconds, at first)."""

    name: str
    complete: Callable[[S], bool] = lambda state: True
    """Whether a state that says it is done brings its result."""
    done: frozenset[str] = frozenset({"completed"})
    failed: frozenset[str] = frozenset({"failed"})
    interval: float = 2.0


class Progress(Generic[S]):
    """How a job stands, as far as its polls have told."""

    __slots__ = ("_fetch", "_warned", "error", "id", "kind", "owner", "since", "state", "trouble")

    def __init__(
        self, owner: ClientState, job_id: str, fetch: Callable[[str], Awaitable[S]], kind: JobKind[S], since: float | None
    ) -> None:
        self.owner: ClientState = owner
        self.id: str = job_id
        self.kind: JobKind[S] = kind
        self.since: float | None = since
        """When it was made, else when it was polled first, in the loop's time."""
        self.state: S | None = None
        """The last state seen."""
        self.error: Exception | None = None
        """What ended the last wait, if it was not a state."""
        self.trouble: NexError | None = None
        """The failure of the last poll, one that may pass."""
        self._fetch = fetch
        self._warned = False

    def __repr__(self) -> str:
        return f"{self.kind.name} {self.id if len(self.id) <= 64 else self.id[:16] + '...'}"

    @property
    def status(self) -> str:
        """The last status seen, in lower case."""
        return status_of(self.state)

    @property
    def expired(self) -> bool:
        """Whether the server knows the job no more."""
        return isinstance(self.error, JobExpired)

    @property
    def ended(self) -> bool:
        """Whether the job is done and brought its result, has failed or has expired. An end stays."""
        return self.expired or self.status in self.kind.failed or (self.is_done and not self.lacks_result)

    @property
    def is_done(self) -> bool:
        """Whether the job says that it is done."""
        return self.status in self.kind.done

    @property
    def lacks_result(self) -> bool:
        """Whether the job says that it is done, and has no result."""
        return self.is_done and self.state is not None and not self.kind.complete(self.state)

    @property
    def failure(self) -> JobFailed | None:
        """What to raise for a job that has failed."""
        if self.status not in self.kind.failed:
            return None
        error = getattr(self.state, "error", None)
        why = f": {error}" if isinstance(error, str) and error else ""
        return JobFailed(f"{self} failed{why}", job_id=self.id, payload=self.state)

    async def ask(self) -> None:
        """Poll once, and note the state; the first end stays, whatever a late reply says.

        Raises `JobExpired`, and what any call raises.
        """
        if self.since is None:
            self.since = asyncio.get_running_loop().time()
        try:
            state = await self._fetch(self.id)
        except GoneError as error:
            self.error = JobExpired(f"{self} is known no more", job_id=self.id)
            raise self.error from error
        if not self.ended:
            self.state = state
            self._note_unknown()

    def _note_unknown(self) -> None:
        known = self.status in _RUNNING or self.status in self.kind.done or self.status in self.kind.failed
        if not known and not self._warned:
            self._warned = True
            fields = {"nex_job": str(self), "nex_job_status": self.status[:40]}
            _log.warning("%s has the unknown status %r; waiting on", self, self.status[:40], extra=fields)

    def bears(self, error: Exception) -> bool:
        """Return whether polling goes on after a failure, because it may pass."""
        if isinstance(error, NotFoundError):
            return asyncio.get_running_loop().time() - (self.since or 0.0) < _NOT_FOUND_GRACE
        if isinstance(error, (DeadlineExceeded, RateLimitQueueFull, RetryBudgetExhausted)):
            return True
        return isinstance(error, NexError) and classify(error) in _PASSING


def status_of(state: JobState | None) -> str:
    """Return the status of a state in lower case."""
    return ((state.status if state is not None else None) or "").lower()


class Track(Polled):
    """A job that is being polled on one loop, for everybody who watches it there."""

    def __init__(self, job: Progress[Any], scheduler: Scheduler, interval: float) -> None:
        super().__init__(job)
        self.job = job
        self.fresh: bool = False
        """Whether a state has come."""
        self._scheduler = scheduler
        self._watches: dict[Watch, None] = {}
        self._least = self._pause = interval
        self._looked = False

    def join(self, watch: Watch, interval: float) -> None:
        """Poll for one more, at least as often as he asks."""
        self._watches[watch] = None
        if interval < self._least:
            self._least = interval
            self._pause = min(self._pause, interval)
            self._scheduler.hasten(self, interval)

    def leave(self, watch: Watch) -> asyncio.Task[None] | None:
        """Poll for one fewer. Return the poll in flight if that was cancelled because nobody is left."""
        self._watches.pop(watch, None)
        return None if self._watches else self._scheduler.remove(self)

    def next_pause(self) -> float:
        """Return the seconds until the next poll: growing, with jitter."""
        pause = max(_LEAST_PAUSE, self._pause)
        self._pause = min(max(_LONGEST_PAUSE, self._least), self._pause * 1.5)
        return pause * random.uniform(0.8, 1.2)

    async def poll(self) -> None:
        """Poll once, and tell those who watch."""
        try:
            await self.job.ask()
            self.tell()
        except Exception as error:
            if self.job.bears(error):
                self.job.trouble = cast("NexError", error)
                fields = fields_of(error, job=str(self.job))
                _log.info("a poll of %s failed (%s); it goes on", self.job, outcome_of(error), extra=fields)
            else:
                self.stop(error)

    def tell(self) -> None:
        """Tell those who watch of the job's newest state."""
        job = self.job
        job.trouble = None
        if not job.lacks_result:
            self.fresh = True
            for watch in list(self._watches):
                watch.saw(job)
            if job.ended:
                self.stop(None)
        elif self._looked:
            self.stop(DecodeError(f"{job} is completed, but has no result"))
        else:
            self._looked = True  # a result may follow its status: look once more

    def stop(self, error: Exception | None) -> None:
        """Poll no more, and tell those who watch why; None when the job has ended."""
        self._scheduler.remove(self)
        watches, self._watches = list(self._watches), {}
        self.job.error = error
        for watch in watches:
            watch.over(self.job, error)


def track_of(job: Progress[Any]) -> Track | None:
    """Return the polling of a job that is under way on the running loop."""
    return None if job.owner.closed else cast("Track | None", scheduler_of(job.owner).find(job))


class Watch(ABC):
    """Somebody who watches jobs until they end, or until his time is up.

    `timeout` is in seconds, and runs from the beginning of the watch; `interval` is the first pause between polls, by
    default what suits each kind of job. Raises `InvalidRequestError` for what is no positive number.
    """

    def __init__(self, jobs: Iterable[Progress[Any]], timeout: float, interval: float | None) -> None:
        self.open: dict[Progress[Any], None] = dict.fromkeys(jobs)
        """The jobs whose end was not seen yet, in their order."""
        self._timeout = _positive("timeout", timeout)
        self._interval = None if interval is None else _positive("interval", interval)
        self._until: float | None = None
        self._by_caller = False
        self._timer: asyncio.TimerHandle | None = None
        self._tracks: dict[Progress[Any], Track] = {}
        self._ending: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Watch from now on, in the running loop. Raises nothing."""
        loop = asyncio.get_running_loop()
        if self._until is None:
            outer, self._until = outer_deadline.get(), loop.time() + self._timeout
            if outer is not None and outer < self._until:
                self._by_caller, self._until = True, outer
        for job in list(self.open):
            if job.ended:
                self.over(job, job.error)
        if self.open and self._until <= loop.time():
            self.late()
        elif self.open:
            self._timer = loop.call_at(self._until, self.late)
            for job in list(self.open):
                if self._timer is not None:  # what was learned of an earlier job may have ended the watch
                    self._follow(job, self._interval or job.kind.interval)

    def _follow(self, job: Progress[Any], interval: float) -> None:
        """Have a job polled, together with all others who watch it on this loop."""
        try:
            scheduler = scheduler_of(job.owner)
        except NexError as error:
            self.over(job, error)
            return
        track = cast("Track | None", scheduler.find(job))
        if track is not None:
            self._tracks[job] = track
            track.join(self, interval)
            if track.fresh:
                self.saw(job)
        else:
            job.error, job.trouble = None, None
            track = self._tracks[job] = Track(job, scheduler, interval)
            track.join(self, interval)
            scheduler.add(track, interval)

    def leave(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        tracks, self._tracks = self._tracks, {}
        left = [track.leave(self) for track in tracks.values()]
        self._ending += [task for task in left if task is not None]

    async def settle(self) -> None:
        """Let the polls end that were cancelled when this one left."""
        for _ in range(_TURNS):
            self._ending = [task for task in self._ending if not task.done()]
            if not self._ending:
                return
            await asyncio.sleep(0)

    def over(self, job: Progress[Any], error: Exception | None) -> None:
        """Learn that a job is polled no more: it has ended, or an error forbids to go on."""
        self._tracks.pop(job, None)
        if job in self.open:
            del self.open[job]
            self.ended(job, error)

    def overdue(self, job: Progress[Any]) -> NexError:
        """Return what to raise for a job that did not end in time."""
        error: NexError
        if self._by_caller:
            error = DeadlineExceeded(f"the caller's deadline passed before {job} ended", sent="maybe")
        else:
            error = JobTimeout(f"{job} did not end in time; it goes on at the server", job_id=job.id)
        error.__cause__ = job.trouble
        return error

    @abstractmethod
    def saw(self, job: Progress[Any]) -> None:
        """Learn of a new state; of a job that says it is done only once it brought its result."""

    @abstractmethod
    def ended(self, job: Progress[Any], error: Exception | None) -> None:
        """Learn that one of the jobs is no longer open: it has ended, or an error forbids to go on."""

    @abstractmethod
    def late(self) -> None:
        """Learn that the time is up."""


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise InvalidRequestError(f"{name} must be a positive number of seconds, not {value!r}", argument=name)
    return value
