"""What everything that blocks stands on: the client's way over to the loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
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

    def _call(self, work: Coroutine[object, object, T], desk: Desk | None = None) -> T:
        """Wait for a coroutine of the client behind; meanwhile this thread runs the errands of a desk."""
        try:
            portal = self._lease.portal()
        except BaseException:
            work.close()
            raise
        return portal.call(work) if desk is None else desk.wait(portal, work)

    def _on_loop(self, function: Callable[[], T]) -> T:
        """Return what a function returns that must not meet the loop half-way: called there, or here where none runs."""
        portal = self._lease.running()
        return function() if portal is None or portal.is_here else portal.call(_turn(function))


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
