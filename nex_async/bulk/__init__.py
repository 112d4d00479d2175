"""Many at once: rows in, rows out, and a local copy that keeps in step.

The names are loaded when first used: a web backend that writes no rows in bulk does not pay for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._lazy import loader

if TYPE_CHECKING:
    from .export import Export, ExportOptions
    from .operations import adding, creating, deleting, members, updating, upserting
    from .options import BulkOptions
    from .partitions import Partition, divided, selection
    from .source import Rows
    from .writer import BulkRun

__all__ = [
    "PAGE_SIZE",
    "BulkOptions",
    "BulkRun",
    "Export",
    "ExportOptions",
    "Partition",
    "Rows",
    "adding",
    "creating",
    "deleting",
    "divided",
    "members",
    "selection",
    "updating",
    "upserting",
]

PAGE_SIZE = 500
"""Rows a page, where many are read."""

_HOME = {
    "Export": ".export",
    "ExportOptions": ".export",
    "adding": ".operations",
    "creating": ".operations",
    "deleting": ".operations",
    "members": ".operations",
    "updating": ".operations",
    "upserting": ".operations",
    "BulkOptions": ".options",
    "Partition": ".partitions",
    "divided": ".partitions",
    "selection": ".partitions",
    "Rows": ".source",
    "BulkRun": ".writer",
}


__getattr__: Callable[[str], Any] = loader(__name__, _HOME)
