"""Context: texts go in, answers come out."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from .. import bulk
from .._typing import Unpack
from ..feeds.jobs import Job, JobKind
from ..models import Answer, Artifact
from ..routes import ADD_TEXT, ASK, GET_ARTIFACT
from ..transport.options import RequestOptions
from ..transport.wire import Id, path_segment
from .base import Resource, given, required_text

__all__ = ["Context"]

_ARTIFACT: JobKind[Artifact] = JobKind("artifact", complete=lambda artifact: artifact.result is not None)


class Context(Resource):
    """`nex.context`: texts go in, answers come out."""

    async def add_text(
        self, content: str, /, *, context: str | UnsetType = UNSET, **options: Unpack[RequestOptions]
    ) -> Job[Artifact]:
        """Ingest a text, and return the job that extracts records and insights from it; `context` says where it came from.

        `POST /v1/context/text`, scope `insight.stream` or `record.write`. The API takes 10 texts a minute: calls beyond
        that wait their turn. A lost reply raises `OutcomeUnknownError`. Raises `DecodeError` if no artifact id comes back.
        """
        body = given(content=required_text("content", content), context=context)
        created = await self._sender.send(ADD_TEXT, body=body, options=options)
        return self._job(created.artifact_id, new=True)

    def add_many(self, texts: bulk.Rows, /, **options: Unpack[bulk.BulkOptions]) -> bulk.BulkRun:
        """Ingest texts, ten a minute: await the run for its report, or iterate over outcomes, whose values are artifact ids.

        A text is a string, or a mapping of `content` and `context`. Options as in `records.upsert_many`. A text whose reply
        is lost is not sent again, and listed as `unknown`. One `POST /v1/context/text` a text, scope `insight.stream` or
        `record.write`.
        """
        return bulk.BulkRun(self._sender, bulk.adding(), texts, options)

    async def get_artifact(self, artifact_id: Id, /, **options: Unpack[RequestOptions]) -> Artifact:
        """Return the state of an ingested text.

        `GET /v1/context/artifacts/{artifact_id}`, scope `insight.stream` or `record.read`. Raises `NotFoundError`.
        """
        return await self._sender.send(GET_ARTIFACT, (artifact_id,), options=options)

    def attach(self, artifact_id: Id, /) -> Job[Artifact]:
        """Return the job of a text that was ingested earlier, or by another process. Sends nothing."""
        return self._job(artifact_id)

    def _job(self, artifact_id: Id, *, new: bool = False) -> Job[Artifact]:
        path_segment("artifact_id", artifact_id)
        return Job(self._sender.state, str(artifact_id), self.get_artifact, _ARTIFACT, new=new)

    async def ask(self, query: str, /, *, session_id: str | UnsetType = UNSET, **options: Unpack[RequestOptions]) -> Answer:
        """Answer a question from what the workspace knows. May take a minute; costs AI time.

        `POST /v1/context/ask`, scope `insight.stream` or `record.read`. Send back the `session_id` of an answer to go on
        with a conversation. A lost reply raises `OutcomeUnknownError`, because asking again costs again.
        """
        body = given(query=required_text("query", query), session_id=session_id)
        return await self._sender.send(ASK, body=body, options=options)
