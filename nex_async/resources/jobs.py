"""Jobs: many at once, of whatever kinds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar, overload

from ..errors import NexError
from ..feeds import jobs as feed
from ..feeds.feed import Feed
from ..feeds.jobs import DEFAULT_TIMEOUT, Job, JobState
from .base import Resource

__all__ = ["Jobs"]

S = TypeVar("S", bound=JobState)


class Jobs(Resource):
    """`nex.jobs`: wait for many jobs at once, of whatever kinds. Ten thousand cost one timer, and no task each."""

    @overload
    async def wait_all(
        self, jobs: Iterable[Job[S]], *, timeout: float = ..., return_exceptions: Literal[False] = ...
    ) -> list[S]: ...

    @overload
    async def wait_all(
        self, jobs: Iterable[Job[S]], *, timeout: float = ..., return_exceptions: Literal[True]
    ) -> list[S | NexError]: ...

    @overload
    async def wait_all(
        self, jobs: Iterable[Job[Any]], *, timeout: float = ..., return_exceptions: bool = ...
    ) -> list[Any]: ...

    async def wait_all(
        self, jobs: Iterable[Job[Any]], *, timeout: float = DEFAULT_TIMEOUT, return_exceptions: bool = False
    ) -> list[Any]:
        """Wait until all jobs have ended, and return their final states in the order of the jobs.

        `timeout` bounds the whole wait, in seconds. The first job that fails raises at once, as `job.wait()` does, and the
        wait for the others ends; they go on at the server. With `return_exceptions` nothing is raised: what `job.wait()`
        would raise stands in the place of the state, `JobTimeout` for those that did not end in time.
        """
        return await feed.wait_all(jobs, timeout, hasty=not return_exceptions)

    @overload
    def as_completed(self, jobs: Iterable[Job[S]], *, timeout: float = ...) -> Feed[Job[S]]: ...

    @overload
    def as_completed(self, jobs: Iterable[Job[Any]], *, timeout: float = ...) -> Feed[Job[Any]]: ...

    def as_completed(self, jobs: Iterable[Job[Any]], *, timeout: float = DEFAULT_TIMEOUT) -> Feed[Job[Any]]:
        """Return a feed of the jobs in the order in which they end, ``async for job in nex.jobs.as_completed(jobs)``.

        Failed ones come too: `job.result()` returns the final state or raises what `job.wait()` would. `timeout` runs from
        the first reading, in seconds; when it is over and some have not ended, the feed raises `JobTimeout`.
        """
        return feed.as_completed(jobs, timeout)
