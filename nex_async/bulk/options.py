"""What a caller may choose for a run, and the plan it adds up to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequestError
from ..storage import Synchronous
from ..transport.options import RequestOptions
from ..transport.wire import in_range
from .progress import OnProgress

__all__ = ["BulkOptions", "Plan"]


class BulkOptions(RequestOptions, total=False):
    """What every method that writes many rows takes besides its own arguments, and besides `RequestOptions`."""

    journal: str | os.PathLike[str]
    """A file that makes the run resumable: killed at any point, the same call goes on. One run uses it at a time."""
    job_id: str
    """What the run is called in its journal, such as today's date. A finished job of the same name is not repeated (but see
    `skip_unchanged`); one of another name begins anew. Without it, a finished journal accepts only the rows it was finished
    with."""
    force: bool
    """Begin anew where the journal belongs to another operation, an unfinished job, or other rows."""
    synchronous: Synchronous
    """`FULL` makes the journal survive a power cut without repeating requests; `NORMAL`, the default, a killed process."""
    skip_unchanged: bool
    """Send only rows that differ from what was last written under their key; needs a journal, which grows by 25 to 60 bytes
    a key. The next run over a finished journal then begins by itself."""
    verify: bool
    """Read the object back when all is written, and report where it differs (`report.drift`)."""
    dry_run: bool
    """Check every row, and send nothing: neither a journal nor a file of dead letters is touched."""
    dead_letters: str | os.PathLike[str]
    """The file that takes rows that failed, as JSON Lines; beside the journal by default."""
    max_dead: int
    """End the run when more rows have failed. By default 100, or 5 % of the rows so far if that is more (without a
    dead-letter file: 100)."""
    concurrency: int
    """Rows in flight, 1 to 1 000. By default it finds its own level, 4 to 32."""
    patience: float
    """Seconds without any success after which the run ends with `BulkStalled`; an hour by default."""
    quarantine: float
    """Seconds for which a request whose reply was lost may still take effect at the server; another row of the same key is
    held back for so long. 60 by default."""
    check: bool
    """Whether rows are checked against the definition of their object, as they are by default."""
    total: int | None
    """How many rows there are, for the progress; known by itself for a list."""
    progress: OnProgress
    """Called with a `Progress` a few times a second."""


_OF_A_REAL_RUN = frozenset({"journal", "dead_letters", "job_id", "force", "skip_unchanged", "verify"})
OWN = frozenset(BulkOptions.__annotations__) - frozenset(RequestOptions.__annotations__)


@dataclass(frozen=True)
class Plan:
    """The choices of one run."""

    journal: str | None = None
    job_id: str | None = None
    force: bool = False
    synchronous: Synchronous = "NORMAL"
    skip_unchanged: bool = False
    verify: bool = False
    dry_run: bool = False
    dead_letters: str | None = None
    max_dead: int | None = None
    concurrency: int | None = None
    patience: float = 3600.0
    quarantine: float = 60.0
    check: bool = True
    total: int | None = None
    progress: OnProgress | None = None
    attempts: int = 8
    """Requests that may fail for a row before it is set aside; 429 and requests that never left do not count."""

    def __post_init__(self) -> None:
        in_range("max_dead", self.max_dead, 0, None)
        in_range("concurrency", self.concurrency, 1, 1000)
        in_range("total", self.total, 0, None)
        _seconds("patience", self.patience)
        _seconds("quarantine", self.quarantine)
        if self.synchronous not in ("NORMAL", "FULL"):
            raise InvalidRequestError("synchronous must be 'NORMAL' or 'FULL'", argument="synchronous")
        if self.job_id is not None and (not isinstance(self.job_id, str) or not self.job_id.strip()):
            raise InvalidRequestError("job_id must be a string that is not blank", argument="job_id")
        for name in ("force", "skip_unchanged", "verify", "dry_run", "check"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidRequestError(f"{name} must be True or False", argument=name)
        for name in ("skip_unchanged", "job_id", "force"):
            if getattr(self, name) and self.journal is None:
                raise InvalidRequestError(f"{name} needs a journal", argument=name)


def plan_of(options: BulkOptions) -> tuple[Plan, RequestOptions]:
    """Return the plan, and the options of its requests. Raises `InvalidRequestError`."""
    own: dict[str, Any] = {name: value for name, value in options.items() if name in OWN and value is not None}
    rest: Any = {name: value for name, value in options.items() if name not in OWN}
    for name in ("journal", "dead_letters"):
        if name in own:
            own[name] = _path(name, own[name])
    if "journal" in own and "dead_letters" not in own:
        own["dead_letters"] = own["journal"] + ".dead.jsonl"
    _apart(own.get("journal"), own.get("dead_letters"))
    if own.get("dry_run"):
        own = {name: value for name, value in own.items() if name not in _OF_A_REAL_RUN}
    retries = rest.pop("retries", None)
    if retries is not None:
        own["attempts"] = (in_range("retries", retries, 0, 100) or 0) + 1
    return Plan(**own), rest


def _apart(journal: str | None, letters: str | None) -> None:
    if journal is None or letters is None:
        return
    if os.path.realpath(letters) in {os.path.realpath(journal + suffix) for suffix in ("", ".lock", "-wal", "-shm")}:
        raise InvalidRequestError("dead_letters must be another file than the journal", argument="dead_letters")


def _path(name: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise InvalidRequestError(f"{name} must be the path of a file", argument=name)
    path = os.fspath(value)
    if "\0" in path or path == ":memory:":
        raise InvalidRequestError(f"{name} must be the path of a file, not {path!r}", argument=name)
    return path


def _seconds(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise InvalidRequestError(f"{name} must be a number of seconds, not {value!r}", argument=name)
