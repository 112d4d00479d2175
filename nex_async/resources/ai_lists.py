"""AI lists: ask for records in plain language."""

from __future__ import annotations

from functools import partial
from typing import Literal, TypeAlias

from msgspec import UNSET, UnsetType

from .._typing import Unpack
from ..feeds.jobs import Job, JobKind
from ..models import AIList
from ..routes import CREATE_AI_LIST, GET_AI_LIST
from ..transport.options import RequestOptions
from ..transport.wire import Id, in_range, path_segment
from .base import Resource, choice, given, required_text

__all__ = ["AIListType", "AILists"]

_AI_LIST: JobKind[AIList] = JobKind("AI list", complete=lambda state: state.entities is not None)

AIListType: TypeAlias = Literal["contact", "person", "company"]


class AILists(Resource):
    """`nex.ai_lists`: ask for records in plain language."""

    async def create(
        self,
        query: str,
        /,
        *,
        object_type: AIListType | UnsetType = UNSET,
        limit: int | None = None,
        include_attributes: bool | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Job[AIList]:
        """Ask for a list, and return the job that makes it.

        `POST /v1/context/list/jobs`, scope `insight.stream` or `list.member.write`. `object_type` is `contact` (also
        spelled `person`; the default) or `company`; `limit` 1 to 100. A lost reply raises `OutcomeUnknownError`.
        """
        kind = choice("object_type", object_type, ("contact", "person", "company"))
        body = given(
            query=required_text("query", query),
            object_type="contact" if kind == "person" else kind,
            limit=UNSET if in_range("limit", limit, 1, 100) is None else limit,
            include_attributes=include_attributes,
        )
        created = await self._sender.send(CREATE_AI_LIST, body=body, options=options)
        return self._job(created.job_id, include_attributes is True, new=True)

    async def get(self, job_id: Id, /, *, include_attributes: bool = False, **options: Unpack[RequestOptions]) -> AIList:
        """Return the state of an AI list.

        `GET /v1/context/list/jobs/{job_id}`, scope `insight.stream` or `list.member.read`. Raises `NotFoundError`.
        """
        query = {"include_attributes": True} if include_attributes else None
        return await self._sender.send(GET_AI_LIST, (job_id,), query, options=options)

    def attach(self, job_id: Id, /, *, include_attributes: bool = False) -> Job[AIList]:
        """Return the job of a list that was asked for earlier, or by another process. Sends nothing."""
        return self._job(job_id, include_attributes)

    def _job(self, job_id: Id, include_attributes: bool, *, new: bool = False) -> Job[AIList]:
        path_segment("job_id", job_id)
        fetch = partial(self.get, include_attributes=True) if include_attributes else self.get
        return Job(self._sender.state, str(job_id), fetch, _AI_LIST, new=new)
