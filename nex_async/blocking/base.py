"""What everything that blocks stands on: the client's way over to the loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Generic, TypeVar

from .. import client
from .desk import Desk
from .lease import Lease

__all__ = ["Client", "Resource", "over"]

T = TypeVar("T")
R = TypeVar("R")


class Client:
    """A client on the loop, and the way over to it."""

    _async: client.Nex
    _lease: Lease

    def _call(
        self,
        work: Callable[[], Awaitable[T]],
        desk: Desk | None = None,
        *,
        undo: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        """Wait for what the client behind does; meanwhile this thread runs the errands of a desk.

        `undo` is for what is opened: when the thread is interrupted it may be open by then, and nobody there to close it.
        """
        portal = self._lease.portal()
        try:
            return portal.call(work) if desk is None else desk.wait(portal, work)
        except Exception:
            raise
        except BaseException:
            if undo is not None:
                portal.begin(undo)
            raise

    def _on_loop(self, function: Callable[[], T]) -> T:
        """Return what a function returns that must not meet the loop half-way: called there, or here where none runs."""
        portal = self._lease.running()
        return function() if portal is None or portal.is_here else portal.call(partial(_turn, function))


class Resource(Generic[R]):
    """One group of operations, as an attribute of the client."""

    __slots__ = ("_async", "_nex")

    def __init__(self, nex: Client, behind: R) -> None:
        self._nex = nex
        self._async = behind


async def _turn(function: Callable[[], T]) -> T:
    return function()


def over(work: Coroutine[object, object, T]) -> T:
    """Return what a coroutine returns that waits for nothing: what it awaits is over when it is asked for."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise RuntimeError("the coroutine waits for something")
