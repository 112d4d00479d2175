"""What goes wrong on a cluster, by the name of the part that met it."""

from __future__ import annotations

from typing import NoReturn

from ...errors import BulkError, NexError

__all__ = ["PartitionError", "SchemaChanged", "reraise"]


class PartitionError(BulkError):
    """A part of a read or a write failed for good. The message names the part, the node and what it met.

    What was done is kept where there is a `checkpoint`: the same call goes on from there.
    """


class SchemaChanged(PartitionError):
    """The attributes of an object changed while it was read, so that the parts of the dataset would not agree."""


def reraise(error: BaseException) -> NoReturn:
    """Raise the error of ours that an error of Ray's is about; the error itself where there is none."""
    seen: BaseException | None = error
    while seen is not None:
        cause = getattr(seen, "cause", None)
        if isinstance(cause, NexError):
            raise cause from None
        if type(seen).__module__.startswith("nex_async.") and isinstance(seen, NexError):
            raise seen from None
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    raise error
