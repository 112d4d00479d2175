"""Tasks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from msgspec import UNSET, UnsetType

from .._typing import Unpack
from ..models import Task
from ..paging import MAX_PAGES, Limits, OnBadRow, Pager
from ..routes import CREATE_TASK, DELETE_TASK, GET_TASK, LIST_TASKS, UPDATE_TASK
from ..transport.options import RequestOptions
from ..transport.wire import Id, in_range
from .base import Resource, choice, given, id_text, id_texts, moment, required_text

__all__ = ["Priority", "Tasks"]

Priority: TypeAlias = Literal["unspecified", "low", "medium", "high", "urgent", ""]
_PRIORITIES = ("unspecified", "low", "medium", "high", "urgent", "")


class Tasks(Resource):
    """`nex.tasks`."""

    async def create(
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
        body = given(
            title=required_text("title", title),
            description=description,
            priority=choice("priority", priority, _PRIORITIES),
            due_date=moment("due_date", due_date),
            entity_ids=id_texts("entity_ids", entity_ids),
            assignee_ids=id_texts("assignee_ids", assignee_ids),
        )
        return await self._sender.send(CREATE_TASK, body=body, options=options)

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
        query = {
            "entity_id": None if entity_id is None else id_text("entity_id", entity_id),
            "assignee_id": None if assignee_id is None else id_text("assignee_id", assignee_id),
            "search": search,
            "is_completed": is_completed,
        }
        limits = Limits(on_bad_row=on_bad_row, stable=stable, resume=resume, max_pages=max_pages)
        size = in_range("limit", limit, 1, 500)
        return self._paged(LIST_TASKS, (), query, "offset", limit=size, limits=limits, options=options)

    async def get(self, task_id: Id, /, **options: Unpack[RequestOptions]) -> Task:
        """Return one task.

        `GET /v1/tasks/{task_id}`, scope `task.read`. Raises `NotFoundError` if there is no such task.
        """
        return await self._sender.send(GET_TASK, (task_id,), options=options)

    async def update(
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
        body = given(
            title=title if isinstance(title, UnsetType) else required_text("title", title),
            description=description,
            priority=choice("priority", priority, _PRIORITIES),
            due_date=moment("due_date", due_date),
            is_completed=is_completed,
            entity_ids=id_texts("entity_ids", entity_ids),
            assignee_ids=id_texts("assignee_ids", assignee_ids),
        )
        return await self._sender.send(UPDATE_TASK, (task_id,), body=body, options=options)

    async def delete(self, task_id: Id, /, **options: Unpack[RequestOptions]) -> None:
        """Archive a task; nothing in the API restores it.

        `DELETE /v1/tasks/{task_id}`, scope `task.write`. Raises `NotFoundError` if there is no such task.
        """
        await self._sender.send(DELETE_TASK, (task_id,), options=options)
