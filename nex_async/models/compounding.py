"""Compounding: jobs that consolidate, find patterns in, and age the insights of a workspace."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from .base import Model, Timestamp

__all__ = ["CompoundingJob", "CompoundingStarted"]


class CompoundingStarted(Model):
    """The receipt of a compounding job."""

    job_run_id: str
    job_type: str | None = None
    workspace_id: str | None = None
    dry_run: bool = False
    status: str | None = None
    success: bool | None = None


class CompoundingJob(Model):
    """A compounding job: `accepted`, `running`, `completed` or `failed`, with its counters."""

    job_run_id: str
    job_type: str | None = None
    workspace_id: str | None = None
    status: str | None = None
    dry_run: bool = False
    insights_scanned: int = 0
    insights_affected: int = 0
    candidates_created: int = 0
    errors: int = 0
    duration_ms: int | None = None
    error_details: Any = None
    _started_at: str | None = field(default=None, name="started_at")
    _completed_at: str | None = field(default=None, name="completed_at")

    started_at: ClassVar[Timestamp] = Timestamp()
    completed_at: ClassVar[Timestamp] = Timestamp()
