"""Resources that block: the asynchronous ones, method by method.

Written by `.ci/generate_blocking.py`; not to be edited.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from msgspec import UNSET, UnsetType

from .. import bulk
from .._typing import Unpack
from ..errors import NexError
from ..feeds.jobs import DEFAULT_TIMEOUT, JobState
from ..models import (
    AIList,
    Answer,
    Artifact,
    Attribute,
    CompoundingJob,
    ConnectStarted,
    ConnectStatus,
    Insight,
    Integration,
    Note,
    Notification,
    NotificationPreferences,
    NotificationRule,
    Object,
    Record,
    Relationship,
    RelationshipDefinition,
    SearchHit,
    SearchResults,
    Task,
    TimelineEvent,
    TypedRecord,
)
from ..models import Graph as GraphSlice
from ..paging import MAX_PAGES, OnBadRow
from ..resources import (
    ai_lists,
    compounding,
    context,
    graph,
    insights,
    integrations,
    jobs,
    lists,
    notes,
    notifications,
    objects,
    records,
    relationships,
    search,
    tasks,
)
from ..resources.ai_lists import AIListType
from ..resources.base import (
    Attributes,
    Selection,
)
from ..resources.compounding import CompoundingType
from ..resources.objects import AttributeType, ObjectType, SelectOptions
from ..resources.relationships import Cardinality
from ..resources.tasks import Priority
from ..transport.options import RequestOptions
from ..transport.wire import Id
from .base import Client, Resource
from .bulk import BulkRun, Export, Rows, readable
from .desk import Desk, pulled
from .feeds import Feed, InsightEvent, InsightFeed, filter_of
from .jobs import Job, behind
from .paging import Pager

if TYPE_CHECKING:
    from .partitions import Partition


__all__ = [
    "AILists",
    "Compounding",
    "Context",
    "Graph",
    "Insights",
    "Integrations",
    "Jobs",
    "Lists",
    "Notes",
    "Notifications",
    "Objects",
    "Records",
    "Relationships",
    "Resources",
    "Search",
    "Tasks",
]

S = TypeVar("S", bound=JobState)
A = TypeVar("A")


class AILists(Resource[ai_lists.AILists]):
    """`nex.ai_lists`: ask for records in plain language."""

    def create(
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
        return Job(
            self._nex,
            self._nex._call(
                lambda: self._async.create(
                    query, object_type=object_type, limit=limit, include_attributes=include_attributes, **options
                )
            ),
        )

    def get(self, job_id: Id, /, *, include_attributes: bool = False, **options: Unpack[RequestOptions]) -> AIList:
        """Return the state of an AI list.

        `GET /v1/context/list/jobs/{job_id}`, scope `insight.stream` or `list.member.read`. Raises `NotFoundError`.
        """
        return self._nex._call(lambda: self._async.get(job_id, include_attributes=include_attributes, **options))

    def attach(self, job_id: Id, /, *, include_attributes: bool = False) -> Job[AIList]:
        """Return the job of a list that was asked for earlier, or by another process. Sends nothing."""
        return Job(self._nex, self._async.attach(job_id, include_attributes=include_attributes))


class Compounding(Resource[compounding.Compounding]):
    """`nex.compounding`: jobs that consolidate, find patterns in, and age the insights of a workspace."""

    def trigger(
        self, job_type: CompoundingType, /, *, dry_run: bool | UnsetType = UNSET, **options: Unpack[RequestOptions]
    ) -> Job[CompoundingJob]:
        """Start a job and return it; a dry run changes nothing.

        `POST /v1/compounding/trigger`, scope `record.write`. A lost reply raises `OutcomeUnknownError`.
        """
        return Job(self._nex, self._nex._call(lambda: self._async.trigger(job_type, dry_run=dry_run, **options)))

    def get(self, job_run_id: Id, /, **options: Unpack[RequestOptions]) -> CompoundingJob:
        """Return the state of a job.

        `GET /v1/compounding/jobs/{job_run_id}`, scope `record.read`. Raises `NotFoundError` if there is no such job.
        """
        return self._nex._call(lambda: self._async.get(job_run_id, **options))

    def attach(self, job_run_id: Id, /) -> Job[CompoundingJob]:
        """Return a job that was started earlier, or by another process. Sends nothing."""
        return Job(self._nex, self._async.attach(job_run_id))


class Context(Resource[context.Context]):
    """`nex.context`: texts go in, answers come out."""

    def add_text(
        self, content: str, /, *, context: str | UnsetType = UNSET, **options: Unpack[RequestOptions]
    ) -> Job[Artifact]:
        """Ingest a text, and return the job that extracts records and insights from it; `context` says where it came from.

        `POST /v1/context/text`, scope `insight.stream` or `record.write`. The API takes 10 texts a minute: calls beyond
        that wait their turn. A lost reply raises `OutcomeUnknownError`. Raises `DecodeError` if no artifact id comes back.
        """
        return Job(self._nex, self._nex._call(lambda: self._async.add_text(content, context=context, **options)))

    def add_many(self, texts: Rows, /, **options: Unpack[bulk.BulkOptions]) -> BulkRun:
        """Ingest texts, ten a minute: `run()` it for its report, or iterate over outcomes, whose values are artifact ids.

        A text is a string, or a mapping of `content` and `context`. Options as in `records.upsert_many`. A text whose reply
        is lost is not sent again, and listed as `unknown`. One `POST /v1/context/text` a text, scope `insight.stream` or
        `record.write`.
        """
        desk = Desk()
        return BulkRun(self._nex, self._async.add_many(pulled(texts, desk), **options), desk)

    def get_artifact(self, artifact_id: Id, /, **options: Unpack[RequestOptions]) -> Artifact:
        """Return the state of an ingested text.

        `GET /v1/context/artifacts/{artifact_id}`, scope `insight.stream` or `record.read`. Raises `NotFoundError`.
        """
        return self._nex._call(lambda: self._async.get_artifact(artifact_id, **options))

    def attach(self, artifact_id: Id, /) -> Job[Artifact]:
        """Return the job of a text that was ingested earlier, or by another process. Sends nothing."""
        return Job(self._nex, self._async.attach(artifact_id))

    def ask(self, query: str, /, *, session_id: str | UnsetType = UNSET, **options: Unpack[RequestOptions]) -> Answer:
        """Answer a question from what the workspace knows. May take a minute; costs AI time.

        `POST /v1/context/ask`, scope `insight.stream` or `record.read`. Send back the `session_id` of an answer to go on
        with a conversation. A lost reply raises `OutcomeUnknownError`, because asking again costs again.
        """
        return self._nex._call(lambda: self._async.ask(query, session_id=session_id, **options))


class Graph(Resource[graph.Graph]):
    """`nex.graph`: records, what joins them, and what the AI derived about them."""

    def get(self, *, limit: int | None = None, **options: Unpack[RequestOptions]) -> GraphSlice:
        """Return the newest part of the graph; `limit` counts records, 1 to 5000 (1000 by default).

        `GET /v1/graph`, scope `record.read`. Edges may point outside the slice.
        """
        return self._nex._call(lambda: self._async.get(limit=limit, **options))

    def html(self, *, limit: int | None = None, **options: Unpack[RequestOptions]) -> str:
        """Return the graph as a page that draws it. Treat it as untrusted.

        `GET /v1/graph?format=html`, scope `record.read`.
        """
        return self._nex._call(lambda: self._async.html(limit=limit, **options))


class Insights(Resource[insights.Insights]):
    """`nex.insights`: what the AI derived about the people and companies of the workspace."""

    def list(
        self,
        *,
        last: timedelta | str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        **options: Unpack[RequestOptions],
    ) -> Pager[Insight]:
        """Return a pager over recent insights: of the `last` while, or from `start` to `end`, or simply the latest.

        `GET /v1/insights`, scope `insight.stream`. `last` is a timedelta or a duration such as `30m` or `1h30m`; `limit` is
        1 to 100 (20 by default). The listing comes in one page: a window that holds more is cut at `limit`.
        """
        return Pager(
            self._nex, self._async.list(last=last, start=start, end=end, limit=limit, on_bad_row=on_bad_row, **options)
        )

    def history(
        self,
        start: datetime,
        end: datetime,
        *,
        on_bad_row: OnBadRow = "raise",
        resume: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Pager[Insight]:
        """Return a pager over every insight from `start` to `end`, oldest first, however many there are.

        `GET /v1/insights`, scope `insight.stream`. The API returns at most 100 insights of a range and has no pages: the
        range is read in windows that are halved until each is whole. More than that in one moment (a thousandth of a second;
        a second where the API ignores fractions) cannot be listed: `TruncatedResultWarning`. Raises `InvalidRequestError`
        for naive or reversed times.
        """
        return Pager(self._nex, self._async.history(start, end, on_bad_row=on_bad_row, resume=resume, **options))

    def stream(
        self,
        *,
        start: Literal["replay", "now"] | datetime = "replay",
        checkpoint: str | os.PathLike[str] | None = None,
        mode: Literal["fast", "exact"] = "fast",
        types: Collection[str] | None = None,
        min_confidence: float | None = None,
        where: Callable[[InsightEvent], bool] | None = None,
        on_gap: Literal["signal", "raise"] = "signal",
        **options: Unpack[RequestOptions],
    ) -> InsightFeed:
        """Return a feed of insights as they come; see `InsightFeed` for what it promises.

        `GET /v1/insights/stream` and `GET /v1/insights`, scope `insight.stream`. `start` says where a feed begins that has
        no past: with the latest 20 insights, with what is new from now on (to the second), or at a time. `checkpoint` is a
        file (SQLite, readable by its owner only) that lets the feed go on where an earlier process stopped; then `start` is
        used the first time only. `mode="exact"` delivers all from the list, with its id, a second or two later. `types`,
        `min_confidence` (0 to 1; what the list does not tell is chosen) and `where` choose insights. `on_gap="raise"` ends
        the feed with `GapError` where insights may be missing; otherwise it tells by a `Gap` signal. All feeds of a client
        share one connection.

        Raises `InvalidRequestError`; when opened, what the server refuses the stream with, `StorageError` for a checkpoint
        that is locked or damaged, `CheckpointError` for one that cannot be used, `TenantMismatch` for another workspace's.
        """
        return InsightFeed(
            self._nex,
            self._async.stream(
                start=start,
                checkpoint=checkpoint,
                mode=mode,
                types=types,
                min_confidence=min_confidence,
                where=filter_of(self._nex, where),
                on_gap=on_gap,
                **options,
            ),
        )


class Integrations(Resource[integrations.Integrations]):
    """`nex.integrations`: mail, calendars, messaging and other systems that feed the workspace."""

    def list(self, *, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]) -> Pager[Integration]:
        """Return a pager over the services that can be connected, with the accounts that are.

        `GET /v1/integrations`, scope `integration.read`. The listing comes in one page.
        """
        return Pager(self._nex, self._async.list(on_bad_row=on_bad_row, **options))

    def connect(self, type: str, provider: str, /, **options: Unpack[RequestOptions]) -> ConnectStarted:
        """Begin to connect an account, for example `("email", "google")`; a person approves at `auth_url`.

        `nex.integrations.attach(started).wait()` waits until that was done.
        `POST /v1/integrations/{type}/{provider}/connect`, scope `integration.write`. The API takes 10 a minute: calls beyond
        that wait their turn. Raises `BadRequestError` for a pair that does not exist.
        """
        return self._nex._call(lambda: self._async.connect(type, provider, **options))

    def connect_status(self, connect_id: str, /, **options: Unpack[RequestOptions]) -> ConnectStatus:
        """Return how far a connection is.

        `GET /v1/integrations/connect/{connect_id}/status`, scope `integration.read`. Raises `GoneError` once the token is
        older than 10 minutes.
        """
        return self._nex._call(lambda: self._async.connect_status(connect_id, **options))

    def attach(self, connect: ConnectStarted | str, /) -> Job[ConnectStatus]:
        """Return the job of a connection that waits for approval; takes the reply of `connect`, or its `connect_id`.

        `wait()` for the `connection_id`. It is polled every 3 seconds at first; the token expires after 10 minutes, which
        raises `JobExpired`. Sends nothing. Raises `InvalidRequestError` where `connect` brought no `connect_id`.
        """
        return Job(self._nex, self._async.attach(connect))

    def disconnect(self, connection_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Disconnect an account.

        `DELETE /v1/integrations/connections/{connection_id}`, scope `integration.write`. Raises `NotFoundError`.
        """
        self._nex._call(lambda: self._async.disconnect(connection_id, **options))


class Jobs(Resource[jobs.Jobs]):
    """`nex.jobs`: wait for many jobs at once, of whatever kinds. Ten thousand cost one timer, and no task each."""

    @overload
    def wait_all(
        self, jobs: Iterable[Job[S]], *, timeout: float = ..., return_exceptions: Literal[False] = ...
    ) -> list[S]: ...

    @overload
    def wait_all(
        self, jobs: Iterable[Job[S]], *, timeout: float = ..., return_exceptions: Literal[True]
    ) -> list[S | NexError]: ...

    @overload
    def wait_all(self, jobs: Iterable[Job[Any]], *, timeout: float = ..., return_exceptions: bool = ...) -> list[Any]: ...

    def wait_all(
        self, jobs: Iterable[Job[Any]], *, timeout: float = DEFAULT_TIMEOUT, return_exceptions: bool = False
    ) -> list[Any]:
        """Wait until all jobs have ended, and return their final states in the order of the jobs.

        `timeout` bounds the whole wait, in seconds. The first job that fails raises at once, as `job.wait()` does, and the
        wait for the others ends; they go on at the server. With `return_exceptions` nothing is raised: what `job.wait()`
        would raise stands in the place of the state, `JobTimeout` for those that did not end in time.
        """
        method: Any = self._async.wait_all
        found: list[Any] = self._nex._call(
            lambda: method(behind(jobs), timeout=timeout, return_exceptions=return_exceptions)
        )
        return found

    @overload
    def as_completed(self, jobs: Iterable[Job[S]], *, timeout: float = ...) -> Feed[Job[S]]: ...

    @overload
    def as_completed(self, jobs: Iterable[Job[Any]], *, timeout: float = ...) -> Feed[Job[Any]]: ...

    def as_completed(self, jobs: Iterable[Job[Any]], *, timeout: float = DEFAULT_TIMEOUT) -> Feed[Job[Any]]:
        """Return a feed of the jobs in the order in which they end, ``for job in nex.jobs.as_completed(jobs)``.

        Failed ones come too: `job.result()` returns the final state or raises what `job.wait()` would. `timeout` runs from
        the first reading, in seconds; when it is over and some have not ended, the feed raises `JobTimeout`.
        """
        method: Any = self._async.as_completed
        return Feed(self._nex, method(behind(jobs), timeout=timeout), Job)


class Lists(Resource[lists.Lists]):
    """`nex.lists`: named selections of an object's records, with attributes of their own."""

    def create(
        self,
        object_slug: str,
        slug: str,
        name: str,
        /,
        *,
        name_plural: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Object:
        """Create a list over an object's records, and return it; its `type` is `list`.

        `POST /v1/objects/{slug}/lists`, scope `object.write`. Raises `NotFoundError` for an unknown object.
        """
        return self._nex._call(
            lambda: self._async.create(object_slug, slug, name, name_plural=name_plural, description=description, **options)
        )

    def list(
        self,
        object_slug: str,
        /,
        *,
        include_attributes: bool = False,
        on_bad_row: OnBadRow = "raise",
        **options: Unpack[RequestOptions],
    ) -> Pager[Object]:
        """Return a pager over the lists of an object.

        `GET /v1/objects/{slug}/lists`, scope `list.read`. The listing comes in one page.
        """
        return Pager(
            self._nex, self._async.list(object_slug, include_attributes=include_attributes, on_bad_row=on_bad_row, **options)
        )

    def get(self, list_id: Id, /, **options: Unpack[RequestOptions]) -> Object:
        """Return one list.

        `GET /v1/lists/{id}`, scope `list.read`. Raises `NotFoundError` if there is no such list.
        """
        return self._nex._call(lambda: self._async.get(list_id, **options))

    def delete(self, list_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Delete a list; the records on it stay.

        `DELETE /v1/lists/{id}`, scope `object.write`. Raises `NotFoundError` if there is no such list.
        """
        self._nex._call(lambda: self._async.delete(list_id, **options))

    @overload
    def records(
        self,
        list_id: Id,
        /,
        *,
        attributes: Selection | None = None,
        sort: str | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        stable: bool = False,
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[Record]: ...

    @overload
    def records(
        self,
        list_id: Id,
        /,
        *,
        as_type: type[A],
        attributes: Selection | None = None,
        sort: str | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        stable: bool = False,
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[TypedRecord[A]]: ...

    def records(
        self,
        list_id: Id,
        /,
        *,
        as_type: type[A] | None = None,
        attributes: Selection | None = None,
        sort: str | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        stable: bool = False,
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[Any]:
        """Return a pager over the members of a list; each `id` is the membership's, attributes are merged.

        `POST /v1/lists/{id}/records`, scope `list.member.read`. Arguments as in `records.list`.
        """
        method: Any = self._async.records
        return Pager(
            self._nex,
            method(
                list_id,
                as_type=as_type,
                attributes=attributes,
                sort=sort,
                limit=limit,
                on_bad_row=on_bad_row,
                stable=stable,
                resume=resume,
                max_pages=max_pages,
                **options,
            ),
        )

    def export(
        self,
        list_id: Id,
        /,
        to: str | os.PathLike[str] | None = None,
        *,
        parent: str | None = None,
        attributes: Selection | None = "all",
        sort: str | None = None,
        limit: int = bulk.PAGE_SIZE,
        **options: Unpack[bulk.ExportOptions],
    ) -> Export:
        """Return an export of a list's members, each with its record's attributes; see `Records.export`.

        `parent` is the slug of the object the list selects from, whose definition tells columns of a table; without it they
        are those of the list itself and of the first page. One `POST /v1/lists/{id}/records` a page, scope
        `list.member.read`, and for tables `GET /v1/lists/{id}`, scope `list.read`.
        """
        return Export(
            self._nex,
            self._async.export(list_id, to, parent=parent, attributes=attributes, sort=sort, limit=limit, **options),
        )

    def partitions(
        self,
        list_id: Id,
        count: int,
        /,
        *,
        attributes: Selection | None = "all",
        sort: str | None = None,
        limit: int = bulk.PAGE_SIZE,
        **options: Unpack[RequestOptions],
    ) -> builtins.list[Partition]:
        """Return a list's members in at most `count` ranges of one size, to be read apart, by `Partition.read`.

        `POST /v1/lists/{id}/records`, scope `list.member.read`, once, for the number of members.
        """
        return readable(
            self._nex._call(
                lambda: self._async.partitions(list_id, count, attributes=attributes, sort=sort, limit=limit, **options)
            )
        )

    def add_member(
        self, list_id: Id, parent_id: Id, attributes: Attributes | None = None, /, **options: Unpack[RequestOptions]
    ) -> Record:
        """Put the record `parent_id` on a list, with values for the list's own attributes; return the member.

        `POST /v1/lists/{id}`, scope `list.member.write`. A lost reply raises `OutcomeUnknownError`; `upsert_member` can be
        repeated.
        """
        return self._nex._call(lambda: self._async.add_member(list_id, parent_id, attributes, **options))

    def upsert_member(
        self, list_id: Id, parent_id: Id, attributes: Attributes | None = None, /, **options: Unpack[RequestOptions]
    ) -> Record:
        """Put a record on a list, or change its values there if it is on it; return the member.

        `PUT /v1/lists/{id}`, scope `list.member.write`. Can be repeated, and is, when a reply is lost.
        """
        return self._nex._call(lambda: self._async.upsert_member(list_id, parent_id, attributes, **options))

    def upsert_members(
        self, list_id: Id, rows: Rows, /, *, id_field: str = "parent_id", **options: Unpack[bulk.BulkOptions]
    ) -> BulkRun:
        """Put records on a list, or change their values there: `run()` it for its report, or iterate over outcomes.

        A row is a record's id, or a mapping of it, under `id_field`, and values of the list's own attributes. Options as in
        `records.upsert_many`. One `PUT /v1/lists/{id}` a row, scope `list.member.write`.
        """
        desk = Desk()
        return BulkRun(
            self._nex, self._async.upsert_members(list_id, pulled(rows, desk), id_field=id_field, **options), desk
        )

    def update_member(
        self, list_id: Id, record_id: Id, attributes: Attributes, /, **options: Unpack[RequestOptions]
    ) -> Record:
        """Change the list's own attributes of a member, and return it.

        `PATCH /v1/lists/{id}/records/{record_id}`, scope `list.member.write`. Whether `record_id` is the membership's id or
        the record's is not documented: the membership's, as listings return it, is the safer one.
        """
        return self._nex._call(lambda: self._async.update_member(list_id, record_id, attributes, **options))

    def remove_member(self, list_id: Id, record_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Take a record off a list; the record stays. `record_id` as in `update_member`.

        `DELETE /v1/lists/{id}/records/{record_id}`, scope `record.write`. Raises `NotFoundError`.
        """
        self._nex._call(lambda: self._async.remove_member(list_id, record_id, **options))


class Notes(Resource[notes.Notes]):
    """`nex.notes`."""

    def create(
        self,
        title: str,
        /,
        *,
        content: str | UnsetType = UNSET,
        entity_id: Id | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Note:
        """Create a note, on a record if `entity_id` is given, and return it.

        `POST /v1/notes`, scope `note.write`. A lost reply raises `OutcomeUnknownError`.
        """
        return self._nex._call(lambda: self._async.create(title, content=content, entity_id=entity_id, **options))

    def list(
        self, *, entity_id: Id | None = None, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]
    ) -> Pager[Note]:
        """Return a pager over the notes, of one record if `entity_id` is given.

        `GET /v1/notes`, scope `note.read`. The API returns at most 200 and has no way to ask for more: at exactly 200 a
        `TruncatedResultWarning` is issued.
        """
        return Pager(self._nex, self._async.list(entity_id=entity_id, on_bad_row=on_bad_row, **options))

    def get(self, note_id: Id, /, **options: Unpack[RequestOptions]) -> Note:
        """Return one note.

        `GET /v1/notes/{note_id}`, scope `note.read`. Raises `NotFoundError` if there is no such note.
        """
        return self._nex._call(lambda: self._async.get(note_id, **options))

    def update(
        self,
        note_id: Id,
        /,
        *,
        title: str | UnsetType = UNSET,
        content: str | UnsetType = UNSET,
        entity_id: Id | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Note:
        """Change what is given of a note, and return it.

        `PATCH /v1/notes/{note_id}`, scope `note.write`. Raises `NotFoundError` if there is no such note.
        """
        return self._nex._call(
            lambda: self._async.update(note_id, title=title, content=content, entity_id=entity_id, **options)
        )

    def delete(self, note_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Archive a note; nothing in the API restores it.

        `DELETE /v1/notes/{note_id}`, scope `note.write`. Raises `NotFoundError` if there is no such note.
        """
        self._nex._call(lambda: self._async.delete(note_id, **options))


class Notifications(Resource[notifications.Notifications]):
    """`nex.notifications`: the feed, its preferences, and rules in plain language."""

    def feed(
        self,
        *,
        since: datetime | str | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        **options: Unpack[RequestOptions],
    ) -> Pager[Notification]:
        """Return a pager over notifications, newest first; `since` is the `sent_at` of the newest you have.

        `GET /v1/notifications/feed`, scope `notification.read`. `limit` is 1 to 50 (20 by default); one page.
        """
        return Pager(self._nex, self._async.feed(since=since, limit=limit, on_bad_row=on_bad_row, **options))

    def preferences(self, **options: Unpack[RequestOptions]) -> NotificationPreferences:
        """Return how often, and about what, the user is notified.

        `GET /v1/notifications/preferences`, scope `notification.read`.
        """
        return self._nex._call(lambda: self._async.preferences(**options))

    def update_preferences(
        self,
        *,
        frequency_minutes: int | UnsetType = UNSET,
        enabled_types: Sequence[str] | UnsetType = UNSET,
        digest_enabled: bool | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> NotificationPreferences:
        """Change what is given of the preferences, and return them.

        `PATCH /v1/notifications/preferences`, scope `notification.write`.
        """
        return self._nex._call(
            lambda: self._async.update_preferences(
                frequency_minutes=frequency_minutes, enabled_types=enabled_types, digest_enabled=digest_enabled, **options
            )
        )

    def list_rules(self, *, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]) -> Pager[NotificationRule]:
        """Return a pager over the user's rules.

        `GET /v1/notifications/custom`, scope `notification.read`. The listing comes in one page.
        """
        return Pager(self._nex, self._async.list_rules(on_bad_row=on_bad_row, **options))

    def create_rule(self, description: str, /, **options: Unpack[RequestOptions]) -> NotificationRule:
        """Create a rule from a condition in plain language; it comes back as `prompt`.

        `POST /v1/notifications/custom`, scope `notification.write`. A lost reply raises `OutcomeUnknownError`.
        """
        return self._nex._call(lambda: self._async.create_rule(description, **options))

    def get_rule(self, rule_id: Id, /, **options: Unpack[RequestOptions]) -> NotificationRule:
        """Return one rule.

        `GET /v1/notifications/custom/{id}`, scope `notification.read`. Raises `NotFoundError` if there is no such rule.
        """
        return self._nex._call(lambda: self._async.get_rule(rule_id, **options))

    def delete_rule(self, rule_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Delete a rule.

        `DELETE /v1/notifications/custom/{id}`, scope `notification.write`. Raises `NotFoundError` if there is no such rule.
        """
        self._nex._call(lambda: self._async.delete_rule(rule_id, **options))


class Objects(Resource[objects.Objects]):
    """`nex.objects`: the types of a workspace, and their attributes."""

    def create(
        self,
        slug: str,
        name: str,
        /,
        *,
        type: ObjectType | UnsetType = UNSET,
        name_plural: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Object:
        """Create an object and return it; `slug` and `type` (`custom` by default) cannot be changed later.

        `POST /v1/objects`, scope `object.write`. Raises `BadRequestError` if the slug is taken.
        """
        return self._nex._call(
            lambda: self._async.create(slug, name, type=type, name_plural=name_plural, description=description, **options)
        )

    def list(
        self, *, include_attributes: bool = False, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]
    ) -> Pager[Object]:
        """Return a pager over every object, with their attributes if asked.

        `GET /v1/objects`, scope `object.read`. The listing comes in one page.
        """
        return Pager(self._nex, self._async.list(include_attributes=include_attributes, on_bad_row=on_bad_row, **options))

    def get(self, slug: str, /, **options: Unpack[RequestOptions]) -> Object:
        """Return one object with its attributes.

        `GET /v1/objects/{slug}`, scope `object.read`. Raises `NotFoundError` if there is no such object.
        """
        return self._nex._call(lambda: self._async.get(slug, **options))

    def update(
        self,
        slug: str,
        /,
        *,
        name: str | UnsetType = UNSET,
        name_plural: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Object:
        """Change what is given of an object, and return it.

        `PATCH /v1/objects/{slug}`, scope `object.write`. Raises `NotFoundError` if there is no such object.
        """
        return self._nex._call(
            lambda: self._async.update(slug, name=name, name_plural=name_plural, description=description, **options)
        )

    def delete(self, slug: str, /, **options: Unpack[RequestOptions]) -> None:
        """Delete an object **and every record of it**, for good.

        `DELETE /v1/objects/{slug}`, scope `object.write`. Raises `NotFoundError` if there is no such object.
        """
        self._nex._call(lambda: self._async.delete(slug, **options))

    def create_attribute(
        self,
        object_slug: str,
        slug: str,
        name: str,
        type: AttributeType,
        /,
        *,
        description: str | UnsetType = UNSET,
        is_required: bool | UnsetType = UNSET,
        is_unique: bool | UnsetType = UNSET,
        is_multi_value: bool | UnsetType = UNSET,
        is_whole_number: bool | UnsetType = UNSET,
        use_raw_format: bool | UnsetType = UNSET,
        select_options: SelectOptions | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Attribute:
        """Create an attribute of an object and return it; slug, type, uniqueness and multi-value cannot change later.

        `POST /v1/objects/{slug}/attributes`, scope `object.write`. `select_options` are names or mappings with `name` and
        `id`. Raises `NotFoundError` for an unknown object, `BadRequestError` if the slug is taken.
        """
        return self._nex._call(
            lambda: self._async.create_attribute(
                object_slug,
                slug,
                name,
                type,
                description=description,
                is_required=is_required,
                is_unique=is_unique,
                is_multi_value=is_multi_value,
                is_whole_number=is_whole_number,
                use_raw_format=use_raw_format,
                select_options=select_options,
                **options,
            )
        )

    def update_attribute(
        self,
        object_slug: str,
        attribute_id: Id,
        /,
        *,
        name: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        is_required: bool | UnsetType = UNSET,
        is_whole_number: bool | UnsetType = UNSET,
        use_raw_format: bool | UnsetType = UNSET,
        select_options: SelectOptions | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Attribute:
        """Change what is given of an attribute, and return it.

        `PATCH /v1/objects/{slug}/attributes/{attr_id}`, scope `object.write`. A select option with `id` is renamed, one
        without is **added**; with such an addition a lost reply raises `OutcomeUnknownError`, because a second try could
        add it twice.
        """
        return self._nex._call(
            lambda: self._async.update_attribute(
                object_slug,
                attribute_id,
                name=name,
                description=description,
                is_required=is_required,
                is_whole_number=is_whole_number,
                use_raw_format=use_raw_format,
                select_options=select_options,
                **options,
            )
        )

    def delete_attribute(self, object_slug: str, attribute_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Delete an attribute and its values, for good.

        `DELETE /v1/objects/{slug}/attributes/{attr_id}`, scope `object.write`. Raises `NotFoundError`.
        """
        self._nex._call(lambda: self._async.delete_attribute(object_slug, attribute_id, **options))


class Records(Resource[records.Records]):
    """`nex.records`: the rows of an object."""

    def create(self, slug: str, attributes: Attributes, /, **options: Unpack[RequestOptions]) -> Record:
        """Create a record of the object `slug` and return it.

        `POST /v1/objects/{slug}`, scope `record.write`. A lost reply raises `OutcomeUnknownError`, because repeating could
        create twice: `upsert` can be repeated. Raises `BadRequestError` for values the schema refuses, `NotFoundError`.
        """
        return self._nex._call(lambda: self._async.create(slug, attributes, **options))

    def upsert(self, slug: str, attributes: Attributes, /, *, match_on: str, **options: Unpack[RequestOptions]) -> Record:
        """Update the record whose attribute `match_on` (slug or id) has the same value, or create it; return it.

        `PUT /v1/objects/{slug}`, scope `record.write`. Can be repeated, and is, when a reply is lost.
        """
        return self._nex._call(lambda: self._async.upsert(slug, attributes, match_on=match_on, **options))

    @overload
    def get(self, record_id: Id, /, **options: Unpack[RequestOptions]) -> Record: ...

    @overload
    def get(self, record_id: Id, /, *, as_type: type[A], **options: Unpack[RequestOptions]) -> TypedRecord[A]: ...

    def get(
        self, record_id: Id, /, *, as_type: type[A] | None = None, **options: Unpack[RequestOptions]
    ) -> Record | TypedRecord[A]:
        """Return one record.

        `GET /v1/records/{record_id}`, scope `record.read`. Raises `NotFoundError` if there is no such record.
        """
        method: Any = self._async.get
        found: Record | TypedRecord[A] = self._nex._call(lambda: method(record_id, as_type=as_type, **options))
        return found

    def update(self, record_id: Id, attributes: Attributes, /, **options: Unpack[RequestOptions]) -> Record:
        """Change the attributes given, leave the others, and return the record.

        `PATCH /v1/records/{record_id}`, scope `record.write`. A lost reply is retried, which may undo a change somebody
        made in between; `retry_ambiguous=False` raises `OutcomeUnknownError` instead.
        """
        return self._nex._call(lambda: self._async.update(record_id, attributes, **options))

    def delete(self, record_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Delete a record for good.

        `DELETE /v1/records/{record_id}`, scope `record.write`. Raises `NotFoundError` if there is no such record.
        """
        self._nex._call(lambda: self._async.delete(record_id, **options))

    @overload
    def list(
        self,
        slug: str,
        /,
        *,
        attributes: Selection | None = None,
        sort: str | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        stable: bool = False,
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[Record]: ...

    @overload
    def list(
        self,
        slug: str,
        /,
        *,
        as_type: type[A],
        attributes: Selection | None = None,
        sort: str | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        stable: bool = False,
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[TypedRecord[A]]: ...

    def list(
        self,
        slug: str,
        /,
        *,
        as_type: type[A] | None = None,
        attributes: Selection | None = None,
        sort: str | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        stable: bool = False,
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[Any]:
        """Return a pager over the records of an object.

        `POST /v1/objects/{slug}/records`, scope `record.read`. `limit` is the page size in rows (the server's own by
        default); `sort` an attribute's slug, `created_at` or `updated_at`, with `-` before it for descending; `attributes`
        `all`, `primary`, `none` or slugs. `stable` reads again until a pass meets no new row, for objects that change
        meanwhile, and remembers every id; it sorts by `created_at` unless told otherwise. `as_type` decodes attributes
        straight into a Struct of yours.
        """
        method: Any = self._async.list
        return Pager(
            self._nex,
            method(
                slug,
                as_type=as_type,
                attributes=attributes,
                sort=sort,
                limit=limit,
                on_bad_row=on_bad_row,
                stable=stable,
                resume=resume,
                max_pages=max_pages,
                **options,
            ),
        )

    def upsert_many(self, slug: str, rows: Rows, /, *, match_on: str, **options: Unpack[bulk.BulkOptions]) -> BulkRun:
        """Upsert rows of the object `slug`: `run()` it for its report, or use `with` for an outcome per row.

        `rows` are mappings of slugs to values, or Structs, from any iterable, pulled as they can be sent. Rows that share a
        value of `match_on` (compared without case) take effect in their order. With ``journal="run.db"`` the run can be
        killed at any point, and the same call goes on. `BulkOptions` lists the options, `BulkRun` what is raised.
        One `PUT /v1/objects/{slug}` a row, scope `record.write`; the definition is read once, scope `object.read`.
        """
        desk = Desk()
        return BulkRun(self._nex, self._async.upsert_many(slug, pulled(rows, desk), match_on=match_on, **options), desk)

    def create_many(
        self,
        slug: str,
        rows: Rows,
        /,
        *,
        match_on: str | None = None,
        allow_unknown_outcomes: bool = False,
        **options: Unpack[bulk.BulkOptions],
    ) -> BulkRun:
        """Create rows of the object `slug`; see `upsert_many`.

        A create whose reply is lost cannot be repeated blindly. With `match_on`, an upsert by that attribute finds out what
        became of it; without, `allow_unknown_outcomes=True` is needed, and such rows are listed as `unknown`.
        One `POST /v1/objects/{slug}` a row, scope `record.write`. Raises `InvalidRequestError` without either.
        """
        desk = Desk()
        return BulkRun(
            self._nex,
            self._async.create_many(
                slug, pulled(rows, desk), match_on=match_on, allow_unknown_outcomes=allow_unknown_outcomes, **options
            ),
            desk,
        )

    def update_many(self, rows: Rows, /, *, id_field: str = "id", **options: Unpack[bulk.BulkOptions]) -> BulkRun:
        """Change records by id; see `upsert_many`. A row is a mapping of the id, under `id_field`, and what to change.

        One `PATCH /v1/records/{record_id}` a row, scope `record.write`.
        """
        desk = Desk()
        return BulkRun(self._nex, self._async.update_many(pulled(rows, desk), id_field=id_field, **options), desk)

    def delete_many(self, rows: Rows, /, *, id_field: str = "id", **options: Unpack[bulk.BulkOptions]) -> BulkRun:
        """Delete records for good; see `upsert_many`. A row is an id, or a mapping that has one under `id_field`.

        One `DELETE /v1/records/{record_id}` a row, scope `record.write`.
        """
        desk = Desk()
        return BulkRun(self._nex, self._async.delete_many(pulled(rows, desk), id_field=id_field, **options), desk)

    def export(
        self,
        slug: str,
        /,
        to: str | os.PathLike[str] | None = None,
        *,
        attributes: Selection | None = "all",
        sort: str | None = None,
        limit: int = bulk.PAGE_SIZE,
        **options: Unpack[bulk.ExportOptions],
    ) -> Export:
        """Return an export of an object's records: `run()` it for its report, or iterate over its `as_arrow()`.

        The name of the file `to` tells the format: `.jsonl`, `.csv` (both also with `.gz` or `.zst`), `.sqlite`, `.parquet`,
        `.arrow`. The file appears when it is complete; a run that ended early is taken up again by the same call. `sort` is
        `created_at` by default, and `limit` the page size in rows. One `POST /v1/objects/{slug}/records` a page, scope
        `record.read`, and for tables `GET /v1/objects/{slug}`, scope `object.read`, without which the columns are those of
        the first page. Raises `InvalidRequestError`, and when run `StorageError` and `SourceChanged`.
        """
        return Export(self._nex, self._async.export(slug, to, attributes=attributes, sort=sort, limit=limit, **options))

    def partitions(
        self,
        slug: str,
        count: int,
        /,
        *,
        attributes: Selection | None = "all",
        sort: str | None = None,
        limit: int = bulk.PAGE_SIZE,
        **options: Unpack[RequestOptions],
    ) -> builtins.list[Partition]:
        """Return an object's records in at most `count` ranges of one size, to be read apart, by `Partition.read`.

        `POST /v1/objects/{slug}/records`, scope `record.read`, once, for the number of rows. Arguments as in `export`.
        """
        return readable(
            self._nex._call(
                lambda: self._async.partitions(slug, count, attributes=attributes, sort=sort, limit=limit, **options)
            )
        )

    def timeline(
        self,
        record_id: Id,
        /,
        *,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[TimelineEvent]:
        """Return a pager over what happened to a record.

        `GET /v1/records/{record_id}/timeline`, scope `record.read`. `limit` is the page size, 1 to 100.
        """
        return Pager(
            self._nex,
            self._async.timeline(
                record_id, limit=limit, on_bad_row=on_bad_row, resume=resume, max_pages=max_pages, **options
            ),
        )


class Relationships(Resource[relationships.Relationships]):
    """`nex.relationships`: which objects may be joined, and which records are."""

    def create_definition(
        self,
        type: Cardinality,
        entity_definition_1_id: Id,
        entity_definition_2_id: Id,
        /,
        *,
        entity_1_to_2_predicate: str | UnsetType = UNSET,
        entity_2_to_1_predicate: str | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> RelationshipDefinition:
        """Allow records of two objects (by their ids) to be joined, and return the definition.

        `POST /v1/relationships`, scope `relationship.write`. The predicates label each direction.
        """
        return self._nex._call(
            lambda: self._async.create_definition(
                type,
                entity_definition_1_id,
                entity_definition_2_id,
                entity_1_to_2_predicate=entity_1_to_2_predicate,
                entity_2_to_1_predicate=entity_2_to_1_predicate,
                **options,
            )
        )

    def list_definitions(
        self, *, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]
    ) -> Pager[RelationshipDefinition]:
        """Return a pager over every relationship definition.

        `GET /v1/relationships`, scope `relationship.read`. The listing comes in one page.
        """
        return Pager(self._nex, self._async.list_definitions(on_bad_row=on_bad_row, **options))

    def delete_definition(self, definition_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Delete a relationship definition and its instances, for good.

        `DELETE /v1/relationships/{id}`, scope `relationship.write`. Raises `NotFoundError`.
        """
        self._nex._call(lambda: self._async.delete_definition(definition_id, **options))

    def create(
        self, record_id: Id, /, *, definition_id: Id, entity_1_id: Id, entity_2_id: Id, **options: Unpack[RequestOptions]
    ) -> Relationship:
        """Join two records and return the relationship; `record_id` is one of the two.

        `POST /v1/records/{record_id}/relationships`, scope `relationship.write`. The API has no way to list a record's
        relationships: keep the id. Raises `BadRequestError` where the definition does not allow it.
        """
        return self._nex._call(
            lambda: self._async.create(
                record_id, definition_id=definition_id, entity_1_id=entity_1_id, entity_2_id=entity_2_id, **options
            )
        )

    def delete(self, record_id: Id, relationship_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Part two records.

        `DELETE /v1/records/{record_id}/relationships/{rel_id}`, scope `relationship.write`. Raises `NotFoundError`.
        """
        self._nex._call(lambda: self._async.delete(record_id, relationship_id, **options))


class Search(Resource[search.Search]):
    """`nex.search(query)`, and `nex.search.all(query)` for one flat list."""

    def __call__(self, query: str, /, **options: Unpack[RequestOptions]) -> SearchResults:
        """Return the hits for `query` (1 to 500 characters), grouped by object.

        `POST /v1/search`, scope `record.read`. When some objects could not be searched the result is `.partial`.
        """
        return self._nex._call(lambda: self._async(query, **options))

    def all(self, query: str, /, **options: Unpack[RequestOptions]) -> list[SearchHit]:
        """Return every hit for `query`, best first.

        `POST /v1/search`, scope `record.read`.
        """
        return self._nex._call(lambda: self._async.all(query, **options))


class Tasks(Resource[tasks.Tasks]):
    """`nex.tasks`."""

    def create(
        self,
        title: str,
        /,
        *,
        description: str | UnsetType = UNSET,
        priority: Priority | UnsetType = UNSET,
        due_date: datetime | str | UnsetType = UNSET,
        entity_ids: Sequence[Id] | UnsetType = UNSET,
        assignee_ids: Sequence[Id] | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Task:
        """Create a task and return it. `entity_ids` are records, `assignee_ids` users.

        `POST /v1/tasks`, scope `task.write`. A lost reply raises `OutcomeUnknownError`.
        """
        return self._nex._call(
            lambda: self._async.create(
                title,
                description=description,
                priority=priority,
                due_date=due_date,
                entity_ids=entity_ids,
                assignee_ids=assignee_ids,
                **options,
            )
        )

    def list(
        self,
        *,
        entity_id: Id | None = None,
        assignee_id: Id | None = None,
        search: str | None = None,
        is_completed: bool | None = None,
        limit: int | None = None,
        on_bad_row: OnBadRow = "raise",
        stable: bool = False,
        resume: str | None = None,
        max_pages: int = MAX_PAGES,
        **options: Unpack[RequestOptions],
    ) -> Pager[Task]:
        """Return a pager over the tasks that match every filter given; `search` looks in titles.

        `GET /v1/tasks`, scope `task.read`. `limit` is the page size, 1 to 500.
        """
        return Pager(
            self._nex,
            self._async.list(
                entity_id=entity_id,
                assignee_id=assignee_id,
                search=search,
                is_completed=is_completed,
                limit=limit,
                on_bad_row=on_bad_row,
                stable=stable,
                resume=resume,
                max_pages=max_pages,
                **options,
            ),
        )

    def get(self, task_id: Id, /, **options: Unpack[RequestOptions]) -> Task:
        """Return one task.

        `GET /v1/tasks/{task_id}`, scope `task.read`. Raises `NotFoundError` if there is no such task.
        """
        return self._nex._call(lambda: self._async.get(task_id, **options))

    def update(
        self,
        task_id: Id,
        /,
        *,
        title: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        priority: Priority | UnsetType = UNSET,
        due_date: datetime | str | UnsetType | None = UNSET,
        is_completed: bool | UnsetType = UNSET,
        entity_ids: Sequence[Id] | UnsetType = UNSET,
        assignee_ids: Sequence[Id] | UnsetType = UNSET,
        **options: Unpack[RequestOptions],
    ) -> Task:
        """Change what is given of a task, and return it. An empty string clears description and priority.

        `PATCH /v1/tasks/{task_id}`, scope `task.write`. Lists of ids replace the whole set. Raises `NotFoundError`.
        """
        return self._nex._call(
            lambda: self._async.update(
                task_id,
                title=title,
                description=description,
                priority=priority,
                due_date=due_date,
                is_completed=is_completed,
                entity_ids=entity_ids,
                assignee_ids=assignee_ids,
                **options,
            )
        )

    def delete(self, task_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Archive a task; nothing in the API restores it.

        `DELETE /v1/tasks/{task_id}`, scope `task.write`. Raises `NotFoundError` if there is no such task.
        """
        self._nex._call(lambda: self._async.delete(task_id, **options))


class Resources(Client):
    """A client with an attribute for each group of operations."""

    @cached_property
    def objects(self) -> Objects:
        """Object definitions and their attributes."""
        return Objects(self, self._async.objects)

    @cached_property
    def records(self) -> Records:
        """The rows of an object."""
        return Records(self, self._async.records)

    @cached_property
    def relationships(self) -> Relationships:
        """Relationship definitions and instances."""
        return Relationships(self, self._async.relationships)

    @cached_property
    def lists(self) -> Lists:
        """Lists of records, and their members."""
        return Lists(self, self._async.lists)

    @cached_property
    def tasks(self) -> Tasks:
        """Tasks."""
        return Tasks(self, self._async.tasks)

    @cached_property
    def notes(self) -> Notes:
        """Notes."""
        return Notes(self, self._async.notes)

    @cached_property
    def search(self) -> Search:
        """Search over every kind of record."""
        return Search(self, self._async.search)

    @cached_property
    def insights(self) -> Insights:
        """What the AI derived."""
        return Insights(self, self._async.insights)

    @cached_property
    def context(self) -> Context:
        """Texts in, answers out."""
        return Context(self, self._async.context)

    @cached_property
    def ai_lists(self) -> AILists:
        """Lists asked for in plain language."""
        return AILists(self, self._async.ai_lists)

    @cached_property
    def graph(self) -> Graph:
        """The graph of the workspace."""
        return Graph(self, self._async.graph)

    @cached_property
    def integrations(self) -> Integrations:
        """Connected services."""
        return Integrations(self, self._async.integrations)

    @cached_property
    def compounding(self) -> Compounding:
        """Jobs that consolidate and age insights."""
        return Compounding(self, self._async.compounding)

    @cached_property
    def jobs(self) -> Jobs:
        """Many jobs at once."""
        return Jobs(self, self._async.jobs)

    @cached_property
    def notifications(self) -> Notifications:
        """The notification feed and its rules."""
        return Notifications(self, self._async.notifications)
