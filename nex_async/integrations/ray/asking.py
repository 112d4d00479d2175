"""Questions and texts by the thousand: a dataset of them in, a dataset of answers or artifacts out."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..._typing import Unpack
from ...client import Nex
from ...errors import InvalidRequestError, NexError
from ...resources.base import required_text
from ...transport.wire import in_range
from .access import Access, ClusterOptions, access_of, place, remote_options
from .engine import pa
from .failures import PartitionError
from .mapping import mapped

__all__ = ["ask_many", "ingest_texts"]

_QUESTIONS = 64
"""Questions of a batch: few, for what is lost with a worker is asked again."""
_TEXTS = 20


@dataclass(frozen=True)
class AskBatch:
    """Asks the questions of a batch where it is called."""

    access: Access
    question: str
    in_flight: int

    def __call__(self, table: Any) -> Any:
        """Return the batch with the columns `answer`, `session_id` and `error`."""
        nex = self.access.client()
        questions = _column(table, self.question)
        found = nex._call(lambda: _asked(nex._async, questions, self.in_flight))
        for name, number in (("answer", 0), ("session_id", 1), ("error", 2)):
            table = table.append_column(name, pa.array([each[number] for each in found], pa.string()))
        return table


async def _asked(nex: Nex, questions: list[Any], in_flight: int) -> list[tuple[str | None, str | None, str | None]]:
    gate = asyncio.Semaphore(in_flight)

    async def ask(question: Any) -> tuple[str | None, str | None, str | None]:
        async with gate:
            try:
                answer = await nex.context.ask(question)
            except NexError as error:
                return None, None, f"{type(error).__name__}: {error}"
            return answer.answer, answer.session_id, None

    return list(await asyncio.gather(*map(ask, questions)))


def ask_many(
    dataset: Any,
    /,
    *,
    question: str = "question",
    batch_rows: int = _QUESTIONS,
    in_flight: int = 8,
    **options: Unpack[ClusterOptions],
) -> Any:
    """Ask the questions in a column of a `ray.data.Dataset`; return it with the columns `answer`, `session_id` and `error`.

    Runs at once, for every question costs AI time. A question that fails has its error beside it, and the others go on. The
    batch of a worker that is killed is asked again. `in_flight` questions are under way for each task.

    `POST /v1/context/ask`, scope `insight.stream` or `record.read`. Raises `InvalidRequestError`, `ConfigError`.
    """
    required_text("question", question)
    work = AskBatch(access_of(_plain(options)), question, in_range("in_flight", in_flight, 1, 1000) or 8)
    in_range("batch_rows", batch_rows, 1, 1_000_000)
    return mapped(dataset, work, batch_rows, remote_options(options))


@dataclass(frozen=True)
class IngestBatch:
    """Ingests the texts of a batch where it is called."""

    access: Access
    text: str
    context: str | None
    folder: str | None

    def __call__(self, table: Any) -> Any:
        """Return the batch with the columns `artifact_id`, `status` and `error`. Raises `PartitionError`."""
        texts = _column(table, self.text)
        contexts = [None] * len(texts) if self.context is None else _column(table, self.context)
        rows = [
            {"content": text} if context is None else {"content": text, "context": context}
            for text, context in zip(texts, contexts, strict=True)
        ]
        found: list[tuple[str | None, str | None, str | None]] = [(None, "accepted", None)] * len(rows)
        more: dict[str, Any] = {"max_dead": len(rows)}
        if self.folder is not None:
            name = hashlib.blake2b(msgspec.json.encode(rows), digest_size=20).hexdigest()
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            more["journal"] = str(Path(self.folder) / f"texts-{name}.db")
        try:
            nex = self.access.client()
            with nex.context.add_many(rows, **more) as run:
                for outcome in run:
                    error = None if outcome.ok else f"{type(outcome.error).__name__}: {outcome.error}"
                    found[outcome.index] = (outcome.value, outcome.status, error)
        except NexError as error:
            told = f"{len(rows)} texts that begin with {str(rows[0]['content'])[:40]!r}"
            raise PartitionError(f"ingesting {told} failed on {place()}: {type(error).__name__}: {error}") from None
        for name, number in (("artifact_id", 0), ("status", 1), ("error", 2)):
            table = table.append_column(name, pa.array([each[number] for each in found], pa.string()))
        return table


def ingest_texts(
    dataset: Any,
    /,
    *,
    text: str = "text",
    context: str | None = None,
    batch_rows: int = _TEXTS,
    **options: Unpack[ClusterOptions],
) -> Any:
    """Ingest the texts in a column of a `ray.data.Dataset`; return it with the columns `artifact_id`, `status` and `error`.

    `context` names a column that says where a text comes from. Runs at once. A text cannot be sent twice without being
    ingested twice: without `checkpoint=` a worker that is killed fails the call; with one, a folder that every node reaches
    as a path, its batch goes on where it was, and what nobody knows the outcome of has the status `unknown`. Texts that an
    earlier run ingested are not sent again, have the status `accepted`, and no id. The API takes ten texts a minute.

    `POST /v1/context/text`, scope `insight.stream` or `record.write`. Raises `InvalidRequestError`, `ConfigError`,
    `PartitionError`.
    """
    required_text("text", text)
    if context is not None:
        required_text("context", context)
    folder = os.fspath(options["checkpoint"]) if "checkpoint" in options else None
    if folder is not None and "://" in folder:
        raise InvalidRequestError("the checkpoint of texts is a journal, and must be a path", argument="checkpoint")
    in_range("batch_rows", batch_rows, 1, 1_000_000)
    work = IngestBatch(access_of(options), text, context, folder)
    more = remote_options(options)
    if folder is None:
        more["ray_remote_args_fn"] = _once
    return mapped(dataset, work, batch_rows, more)


def _once() -> dict[str, Any]:
    """Return what tells Ray not to run a task again whose worker died."""
    return {"max_retries": 0}


def _plain(options: ClusterOptions) -> ClusterOptions:
    if "checkpoint" in options:
        raise InvalidRequestError("ask_many takes no checkpoint=", argument="checkpoint")
    return options


def _column(table: Any, name: str) -> list[Any]:
    if name not in table.column_names:
        raise InvalidRequestError(f"the dataset has no column {name}", argument="dataset")
    found: list[Any] = table[name].to_pylist()
    return found
