"""Nex on a Ray cluster: read, write and ask with many workers, under one rate budget.

Needs the extra: ``pip install "nex-async[ray]"``. Ray must be running (`ray.init()`), and every worker needs the same
version of this package and a way to its key; see `ClusterOptions`. Datasets are those of Ray Data.
"""

from __future__ import annotations

from .access import ClusterOptions, KeyFile, KeySource
from .asking import ask_many, ingest_texts
from .budget import RayBudget
from .failures import PartitionError, SchemaChanged
from .reading import RecordsDatasource, read_records, read_workspaces
from .writing import RecordsDatasink, WriteResult, write_records

__all__ = [
    "ClusterOptions",
    "KeyFile",
    "KeySource",
    "PartitionError",
    "RayBudget",
    "RecordsDatasink",
    "RecordsDatasource",
    "SchemaChanged",
    "WriteResult",
    "ask_many",
    "ingest_texts",
    "read_records",
    "read_workspaces",
    "write_records",
]
