"""Compounding: jobs that consolidate, find patterns in, and age the insights of a workspace."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import UNSET, UnsetType

from .._typing import Unpack
from ..errors import InvalidRequestError
from ..feeds.jobs import Job, JobKind
from ..models import CompoundingJob
from ..routes import GET_COMPOUNDING_JOB, TRIGGER_COMPOUNDING
from ..transport.options import RequestOptions
from ..transport.wire import Id, path_segment
from .base import Resource, given

__all__ = ["Compounding", "CompoundingType"]

_COMPOUNDING: JobKind[CompoundingJob] = JobKind("compounding job")

CompoundingType: TypeAlias = Literal["consolidation", "pattern_detection", "playbook_synthesis", "decay_sweep", "metrics"]
_TYPES = ("consolidation", "pattern_detection", "playbook_synthesis", "decay_sweep", "metrics")


class Compounding(Resource):
    """`nex.compounding`: jobs that consolidate, find patterns in, and age the insights of a workspace."""

    async def trigger(
        self, job_type: CompoundingType, /, *, dry_run: bool | UnsetType = UNSET, **options: Unpack[RequestOptions]
    ) -> Job[CompoundingJob]:
        """Start a job and return it; a dry run changes nothing.

        `POST /v1/compounding/trigger`, scope `record.write`. A lost reply raises `OutcomeUnknownError`.
        """
        if job_type not in _TYPES:
            raise InvalidRequestError(f"job_type must be one of {', '.join(_TYPES)}", argument="job_type")
        body = given(job_type=job_type, dry_run=dry_run)
        started = await self._sender.send(TRIGGER_COMPOUNDING, body=body, options=options)
        return self._job(started.job_run_id, new=True)

    async def get(self, job_run_id: Id, /, **options: Unpack[RequestOptions]) -> CompoundingJob:
        """Return the state of a job.

        `GET /v1/compounding/jobs/{job_run_id}`, scope `record.read`. Raises `NotFoundError` if there is no such job.
        """
        return await self._sender.send(GET_COMPOUNDING_JOB, (job_run_id,), options=options)

    def attach(self, job_run_id: Id, /) -> Job[CompoundingJob]:
        """Return a job that was started earlier, or by another process. Sends nothing."""
        return self._job(job_run_id)

    def _job(self, job_run_id: Id, *, new: bool = False) -> Job[CompoundingJob]:
        path_segment("job_run_id", job_run_id)
        return Job(self._sender.state, str(job_run_id), self.get, _COMPOUNDING, new=new)
