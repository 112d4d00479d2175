"""Jobs that block: wait for one, watch it, or attach to it from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from ..feeds import jobs
from ..feeds.jobs import DEFAULT_TIMEOUT, JobState
from .base import Client
from .feeds import Feed

__all__ = ["Job", "JobState", "behind"]

S_co = TypeVar("S_co", bound=JobState, covariant=True)


class Job(Generic[S_co]):
    """A job at the server; `S` is its state.

    `job.wait()` waits for the end and returns the final state; `job.poll()` asks once; `job.watch()` is a feed of the
    changes of status that ends with the job. `id` is what `attach` takes, also in another process. Any number may wait for
    one job, which is polled once for all; all jobs of a client share one scheduler, which bounds what ten thousand of them
    may ask. Waiting raises `JobFailed` when the job fails, `JobExpired` when the server knows it no more and `JobTimeout`
    after 300 seconds (`wait(timeout=)`); the job itself goes on. Two of the same job are equal.
    """

    __slots__ = ("__weakref__", "_async", "_nex")

    def __init__(self, nex: Client, behind: jobs.Job[S_co]) -> None:
        self._nex = nex
        self._async = behind

    @property
    def id(self) -> str:
        """What `attach` takes."""
        return self._async.id

    @property
    def kind(self) -> str:
        """What kind of job it is, in words."""
        return self._async.kind

    @property
    def state(self) -> S_co | None:
        """The last state seen; None before the first."""
        return self._async.state

    @property
    def ended(self) -> bool:
        """Whether an end was seen: the job is done and brought its result, has failed or has expired. An end stays."""
        return self._async.ended

    def result(self) -> S_co:
        """Return the final state of a job that has ended. Asks nothing.

        Raises `JobFailed`, `JobExpired`, or the error that ended the last wait for it; before that `InvalidRequestError`.
        """
        return self._async.result()

    def poll(self) -> S_co:
        """Ask once, and return the state. An end, once seen, stays: the server is not asked again.

        Raises `JobExpired`, and what any call raises; a job that has failed raises nothing.
        """
        return self._nex._call(self._async.poll)

    def wait(self, *, timeout: float = DEFAULT_TIMEOUT, interval: float | None = None) -> S_co:
        """Poll until the job ends, and return its final state.

        `timeout` bounds the whole wait, in seconds. `interval` is the first pause between polls in seconds (by default 2,
        for a connection 3); it grows to 10. Failures that may pass do not end the wait. Raises `JobFailed`, `JobExpired`,
        `JobTimeout`, whose `__cause__` is the failure of the last poll if it failed, `DecodeError` for a job that is done
        and has no result, `ClientClosed`, and what any call raises that waiting cannot mend.
        """
        return self._nex._call(lambda: self._async.wait(timeout=timeout, interval=interval))

    def watch(self, *, timeout: float = DEFAULT_TIMEOUT, interval: float | None = None) -> Feed[S_co]:
        """Return a feed of the job's states, one for each change of status; it ends with the job.

        The kind of an event is its status in lower case: ``feed.on("completed", handler)``. A job that fails ends the feed
        with its failed state and raises nothing. `timeout` runs from the first reading; then the feed raises `JobTimeout`.
        For the rest see `wait`.
        """
        return Feed(self._nex, self._async.watch(timeout=timeout, interval=interval))

    def __eq__(self, other: object) -> bool:
        return self._async is other._async if isinstance(other, Job) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._async)

    def __repr__(self) -> str:
        return repr(self._async)


def behind(jobs: Iterable[Job[Any]]) -> list[Any]:
    """Return the jobs that those of a caller stand for; what is no job is left for the check that follows."""
    return [job._async if isinstance(job, Job) else job for job in jobs]
