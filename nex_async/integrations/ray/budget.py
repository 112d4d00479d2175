"""The budget server of a cluster: one named actor that keeps the limits of every key."""

from __future__ import annotations

import os
import time
from typing import Any

from ...errors import ConfigError
from ...transport.ledger import Ask, KnownLimits, Lease, Ledgers, checked_limits
from .engine import ray

__all__ = ["RayBudget"]

NAMESPACE = "nex_async"


class Keeper:
    """Keeps the ledgers. One process, one call at a time; a call takes microseconds."""

    def __init__(self, limits: KnownLimits | None) -> None:
        self._ledgers = Ledgers(limits)

    def lease(self, ask: Ask) -> Lease:
        """Return what a worker may do."""
        return self._ledgers.lease(ask, time.monotonic())

    def pid(self) -> int:
        """Return the process it is in."""
        return os.getpid()

    def accounts(self) -> list[str]:
        """Return the digests of the keys whose limits are kept."""
        return self._ledgers.accounts


class RayBudget:
    """A `BudgetServer` for everybody on a Ray cluster: a named actor, started by whoever asks first.

    The actor outlives its driver, so that jobs on the cluster share it; `stop()` ends it. It needs no CPU. When it dies Ray
    starts it again, and its workers teach it what it had learned. `limits` are those you know beforehand, as in
    `LocalBudget`; they are those of the first who starts the actor. Holds no key, and travels to the workers.

    Raises `ConfigError` for arguments that cannot be right.
    """

    def __init__(self, name: str = "nex_async.budget", *, limits: KnownLimits | None = None) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError("name must be a text that is not empty")
        self._name = name
        self._limits = dict(checked_limits(limits))
        self._actor: Any = None

    def actor(self) -> Any:
        """Return the actor's handle, and start it if it is not there."""
        if self._actor is None:
            keeper: Any = ray.remote(Keeper)
            self._actor = keeper.options(
                name=self._name,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_restarts=-1,
            ).remote(self._limits)
        return self._actor

    async def lease(self, ask: Ask, /) -> Lease:
        """See `BudgetServer`."""
        try:
            answer: Lease = await self.actor().lease.remote(ask)
        except Exception:
            self._actor = None  # the next try looks it up again, or starts another
            raise
        return answer

    def stop(self) -> None:
        """End the actor. Whoever asks next starts a new one, which knows nothing."""
        try:
            actor = ray.get_actor(self._name, namespace=NAMESPACE)
        except ValueError:
            return
        finally:
            self._actor = None
        ray.kill(actor)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._name, self._limits)

    def __repr__(self) -> str:
        return f"<RayBudget {self._name}>"


def _again(name: str, limits: KnownLimits) -> RayBudget:
    return RayBudget(name, limits=limits)
