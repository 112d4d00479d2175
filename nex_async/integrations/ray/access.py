"""How a worker gets at Nex: where it finds its key, and the one client it holds for its life."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, cast

from ... import blocking
from ..._version import __version__
from ...config import Secret, Timeouts, masked
from ...errors import ConfigError, InvalidRequestError
from ...transport.budget import BudgetServer
from ...transport.wire import in_range
from .budget import RayBudget
from .engine import cloudpickle, ray

__all__ = ["Access", "ClusterOptions", "KeyFile", "KeySource", "access_of"]

KeySource: TypeAlias = "str | Callable[[], str | Secret] | None"
"""Where a worker finds its key: the name of an environment variable, a function that returns it, or None for the usual
places (`NEX_API_KEY`, the files of `~/.nex`) on the worker. Never the key itself."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_MOST_CLIENTS = 256
"""So many tenants' clients a worker holds; the one used longest ago is closed first."""


class ClusterOptions(TypedDict, total=False):
    """What every function of this package takes besides its own arguments."""

    key: KeySource
    """Where the workers find their key. It is asked for on the worker, and never leaves it. By default `NEX_API_KEY` or the
    files of `~/.nex` there. (What you put into Ray's `runtime_env` is shown by its dashboard: no place for a key.)"""
    base_url: str
    """Where calls go; by default what the workers' environment says, or production."""
    budget: BudgetServer | None
    """Who keeps the rate limits: by default `RayBudget()`, one for the cluster; None lets each worker learn for itself."""
    timeout: float | Timeouts
    """Seconds for a whole call, or a `Timeouts`."""
    max_connections: int
    """Calls in flight per worker; 100 by default."""
    concurrency: int
    """How many tasks run at a time, over the cluster; as many as it has CPUs by default."""
    num_cpus: float
    """CPUs that a task asks for; 1 by default."""
    checkpoint: str | os.PathLike[str]
    """A folder that all workers can reach (a shared path, or any URI that pyarrow understands). What is done is noted there,
    and a second run skips it."""


class KeyFile:
    """A key that stands in a file of the worker's, such as a mounted secret: ``key=KeyFile("/run/secrets/nex")``."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def __call__(self) -> Secret:
        """Return the key. Raises `ConfigError` where there is none, or where others may write it."""
        try:
            if os.name == "posix" and Path(self._path).stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigError(f"the key file {self._path} can be written by others; `chmod go-w` it")
            return Secret(masked(Path(self._path).read_text("utf-8").strip()))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the key file {self._path} cannot be read: {type(error).__name__}") from None

    def __repr__(self) -> str:
        return f"KeyFile({self._path!r})"


@dataclass(frozen=True)
class Access:
    """A workspace as a worker reaches it. Travels to the workers, and holds no key."""

    key: KeySource
    base_url: str | None
    budget: BudgetServer | None
    timeout: float | Timeouts | None
    max_connections: int
    version: str
    """That of the driver's package."""
    digest: str = ""
    """Tells this way in from others, so that a worker finds its client again."""

    def client(self) -> blocking.Nex:
        """Return this process's client, made now if need be. Raises `ConfigError` without a key, or for another version."""
        if self.version != __version__:
            raise ConfigError(
                f"{place()} has nex-async {__version__}, and the driver {self.version}: install one version everywhere"
            )
        return _clients.get(self)


class _Clients:
    """The clients of this process, by workspace, and the pools that they share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: OrderedDict[str, blocking.Nex] = OrderedDict()
        self._pools: dict[bytes, blocking.SessionPool] = {}

    def get(self, access: Access) -> blocking.Nex:
        with self._lock:
            found = self._clients.get(access.digest)
            if found is None:
                found = self._clients[access.digest] = self._made(access)
            self._clients.move_to_end(access.digest)
            while len(self._clients) > _MOST_CLIENTS:
                self._clients.popitem(last=False)[1].close()
            return found

    def _made(self, access: Access) -> blocking.Nex:
        shared = hashlib.blake2b(cloudpickle.dumps((access.budget, access.max_connections))).digest()
        pool = self._pools.get(shared)
        if pool is None:
            pool = self._pools[shared] = blocking.SessionPool(
                max_connections=access.max_connections, rate_budget=access.budget
            )
        return blocking.Nex(_key(access.key), base_url=access.base_url, pool=pool, timeout=access.timeout, source="ray")


_clients = _Clients()


def _key(source: KeySource) -> Secret | None:
    """Return the key that a source names, on this machine. Raises `ConfigError`, which does not tell it."""
    if source is None:
        return None
    if isinstance(source, str):
        value = masked(os.environ.get(source))
        if not value:
            raise ConfigError(f"no API key on {place()}: the environment variable {source} is not set there")
        return Secret(value)
    try:
        return Secret(masked(source()))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"no API key on {place()}: key= raised {type(error).__name__}") from None


def place() -> str:
    """Return the name of this process's node, for messages."""
    context = ray.get_runtime_context() if ray.is_initialized() else None
    return f"node {context.get_node_id()[:12]}" if context is not None else "this machine"


def access_of(options: ClusterOptions, *, key: KeySource = None) -> Access:
    """Return the way in that a caller's options describe. Raises `InvalidRequestError` for what cannot be right."""
    unknown = set(options) - set(ClusterOptions.__annotations__)
    if unknown:
        raise InvalidRequestError(f"there is no option {', '.join(sorted(unknown))}", argument=min(unknown))
    source = masked(options.get("key", key))
    if isinstance(source, str):
        if not _VARIABLE.match(source) or source.startswith("nex_dev_"):
            raise InvalidRequestError(
                "key= takes the name of an environment variable of the workers, or a function, and never the key itself",
                argument="key",
            )
        source = str(source)[:]
    elif source is not None and not callable(source):
        raise InvalidRequestError("key= must be the name of an environment variable, or a function", argument="key")
    budget = options["budget"] if "budget" in options else RayBudget()
    if budget is not None and not callable(getattr(budget, "lease", None)):
        raise InvalidRequestError("budget must be a budget server, or None", argument="budget")
    most = in_range("max_connections", options.get("max_connections"), 1, 10_000) or 100
    in_range("concurrency", options.get("concurrency"), 1, None)
    if not ray.is_initialized():
        raise ConfigError("Ray is not running: call ray.init() first")
    parts = (source, options.get("base_url"), budget, options.get("timeout"), most, __version__)
    digest = hashlib.blake2b(cloudpickle.dumps(parts), digest_size=16).hexdigest()
    return Access(cast(KeySource, source), parts[1], budget, parts[3], most, __version__, digest)


def remote_options(options: ClusterOptions) -> dict[str, Any]:
    """Return what Ray is told about tasks."""
    found: dict[str, Any] = {"num_cpus": options.get("num_cpus", 1.0)}
    if "concurrency" in options:
        found["concurrency"] = options["concurrency"]
    return found
