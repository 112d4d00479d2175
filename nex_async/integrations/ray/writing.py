"""Datasets into records: each block is upserted by key, and what became of its rows is a dataset again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from ..._typing import Unpack
from ...bulk.formats.columns import BASE, EXTRA
from ...bulk.report import STATUSES
from ...errors import InvalidRequestError, NexError
from ...resources.base import required_text
from ...transport.wire import in_range
from .access import Access, ClusterOptions, access_of, place, remote_options
from .checkpoint import Checkpoint
from .engine import BlockAccessor, Datasink, pa, pc
from .failures import PartitionError
from .mapping import mapped

__all__ = ["RecordsDatasink", "WriteResult", "write_records"]

Nulls: TypeAlias = Literal["omit", "clear"]

OUTCOMES = pa.schema([
    ("key", pa.string()), ("status", pa.string()), ("id", pa.string()), ("attempts", pa.int32()), ("error", pa.string()),
    ("row", pa.string()),
])  # fmt: skip
"""What became of a row: its value of `match_on`; the status, as in `Outcome`; the record's id; how many requests it took;
and where it failed, the error and the row as JSON."""
_NOT_WRITTEN = frozenset((*(column.name for column in BASE), EXTRA))
_DEAD = ["failed", "unknown"]
BATCH_ROWS = 5_000
"""Rows that a task writes, unless the caller says."""


@dataclass(frozen=True)
class WriteResult:
    """What a write came to."""

    outcomes: Any
    """A `ray.data.Dataset`, a row for each row: `key, status, id, attempts, error, row`."""
    dead_letters: Any
    """Those that failed, or of which nobody knows what became of them: the same columns, `row` holding the row as JSON."""
    counts: Mapping[str, int]
    """Rows by status: created, updated, written, unchanged, failed, unknown."""

    @property
    def rows(self) -> int:
        """How many rows there were."""
        return sum(self.counts.values())

    @property
    def ok(self) -> bool:
        """Whether every row has taken effect."""
        return not self.counts.get("failed") and not self.counts.get("unknown")


@dataclass(frozen=True)
class WriteRows:
    """Upserts tables of rows where it is called, and returns what became of each."""

    access: Access
    slug: str
    match_on: str
    nulls: Nulls
    columns: Mapping[str, str] | None
    max_dead: int | None
    in_flight: int | None
    checkpoint: Checkpoint | None = None

    def __call__(self, table: Any) -> Any:
        """Write a table; return its outcomes. Raises `PartitionError` when it cannot be written to the end."""
        if not table.num_rows:
            return OUTCOMES.empty_table()
        rows = self._rows(table)
        file = ""
        if self.checkpoint is not None:
            tenant = self.access.client()._async._state.tenant
            assert tenant is not None
            told = msgspec.json.encode([tenant.witness("write").hex(), self.slug, self.match_on, rows])
            file = f"write-{hashlib.blake2b(told, digest_size=20).hexdigest()}"
            done = self.checkpoint.load(file)
            if done is not None:
                return done
        outcomes = self._written(rows)
        if self.checkpoint is not None and not any(status == "failed" for status in outcomes["status"].to_pylist()):
            self.checkpoint.save(file, outcomes)
        return outcomes

    def _rows(self, table: Any) -> list[dict[str, Any]]:
        names: Mapping[str, str] = self.columns or {name: name for name in table.column_names if name not in _NOT_WRITTEN}
        missing = [name for name in names if name not in table.column_names]
        if missing:
            raise InvalidRequestError(f"the dataset has no column {', '.join(missing)}", argument="columns")
        rows: list[dict[str, Any]] = table.select(list(names)).rename_columns(list(names.values())).to_pylist()
        if self.nulls == "clear":
            return rows
        return [{name: value for name, value in row.items() if value is not None} for row in rows]

    def _written(self, rows: list[dict[str, Any]]) -> Any:
        options: dict[str, Any] = {"max_dead": self.max_dead, "concurrency": self.in_flight}
        found: list[dict[str, Any]] = []
        try:
            nex = self.access.client()
            with nex.records.upsert_many(self.slug, rows, match_on=self.match_on, **options) as run:
                for outcome in run:
                    bad = not outcome.ok
                    found.append({
                        "key": _text(rows[outcome.index].get(self.match_on)),
                        "status": outcome.status,
                        "id": getattr(outcome.value, "id", None),
                        "attempts": outcome.attempts,
                        "error": f"{type(outcome.error).__name__}: {outcome.error}" if bad else None,
                        "row": msgspec.json.encode(outcome.row).decode() if bad else None,
                    })  # fmt: skip
        except NexError as error:
            first = _text(rows[0].get(self.match_on))
            told = f"{len(rows)} rows of {self.slug} that begin with {self.match_on}={first!r}"
            raise PartitionError(f"writing {told} failed on {place()}: {type(error).__name__}: {error}") from None
        return pa.Table.from_pylist(found, OUTCOMES)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def write_records(
    dataset: Any,
    slug: str,
    /,
    *,
    match_on: str,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    nulls: Nulls = "omit",
    batch_rows: int = BATCH_ROWS,
    max_dead: int | None = None,
    in_flight: int | None = None,
    **options: Unpack[ClusterOptions],
) -> WriteResult:
    """Upsert every row of a `ray.data.Dataset` into the object `slug`, keyed by the attribute `match_on`.

    `columns` chooses columns, or maps them to attributes; by default all but those of the record itself (id, object_id,
    type, created_at, updated_at, _extra). A null is left out, or with ``nulls="clear"`` sent, which empties the attribute.
    A task writes `batch_rows` rows, `in_flight` of them at a time (by default it finds its own level); it fails when more
    than `max_dead` of them fail (by default 100, or 5 %), and so does the write.

    Runs at once. What is killed is run again, and an upsert that comes twice takes effect once. Rows that share a key
    should stand in one batch: those of different batches take effect in no certain order. With `checkpoint=` a second run
    skips the batches that were written without a failure, as long as they hold the same rows.

    One `PUT /v1/objects/{slug}` a row, scope `record.write`; the definition once a task, scope `object.read`. Raises
    `InvalidRequestError`, `ConfigError`, and `PartitionError`, which names the rows.
    """
    work = _work(slug, match_on, columns, nulls, max_dead, in_flight, options)
    in_range("batch_rows", batch_rows, 1, 1_000_000)
    outcomes = mapped(dataset, work, batch_rows, remote_options(options))
    found = outcomes.map_batches(_counted, batch_format="pyarrow").take_all()
    counts = {status: sum(row["count"] for row in found if row["status"] == status) for status in STATUSES}
    dead = outcomes.map_batches(_dead, batch_format="pyarrow")
    return WriteResult(outcomes, dead, {status: count for status, count in counts.items() if count})


def _counted(outcomes: Any) -> Any:
    """Return how many rows of a table have each status."""
    counts = outcomes["status"].value_counts()
    return pa.table({"status": counts.field("values"), "count": counts.field("counts")})


def _dead(outcomes: Any) -> Any:
    """Return the rows of a table that failed, or of which nobody knows what became of them."""
    return outcomes.filter(pc.is_in(outcomes["status"], value_set=pa.array(_DEAD)))


def _work(
    slug: str,
    match_on: str,
    columns: Sequence[str] | Mapping[str, str] | None,
    nulls: Nulls,
    max_dead: int | None,
    in_flight: int | None,
    options: ClusterOptions,
) -> WriteRows:
    required_text("slug", slug)
    required_text("match_on", match_on)
    if nulls not in ("omit", "clear"):
        raise InvalidRequestError("nulls must be 'omit' or 'clear'", argument="nulls")
    in_range("max_dead", max_dead, 0, None)
    in_range("in_flight", in_flight, 1, 1000)
    if isinstance(columns, str) or (columns is not None and not columns):
        raise InvalidRequestError("columns must be names of columns, or map them to attributes", argument="columns")
    chosen = columns if columns is None or isinstance(columns, Mapping) else dict(zip(columns, columns, strict=True))
    if chosen is not None and match_on not in chosen.values():
        raise InvalidRequestError(f"columns must include that of match_on, {match_on}", argument="columns")
    checkpoint = Checkpoint(options["checkpoint"]) if "checkpoint" in options else None
    return WriteRows(access_of(options), slug, match_on, nulls, chosen, max_dead, in_flight, checkpoint)


class RecordsDatasink(Datasink):
    """A Ray Data sink of keyed upserts: ``dataset.write_datasink(RecordsDatasink("person", match_on="email"))``.

    Keeps the counts, and the rows that failed as one pyarrow table; `write_records` keeps the outcome of every row.
    Arguments and errors are those of `write_records`.
    """

    def __init__(
        self,
        slug: str,
        /,
        *,
        match_on: str,
        columns: Sequence[str] | Mapping[str, str] | None = None,
        nulls: Nulls = "omit",
        max_dead: int | None = None,
        in_flight: int | None = None,
        **options: Unpack[ClusterOptions],
    ) -> None:
        self._work = _work(slug, match_on, columns, nulls, max_dead, in_flight, options)
        self.counts: dict[str, int] = {}
        """Rows by status, once it is written."""
        self.dead_letters: Any = OUTCOMES.empty_table()
        """A pyarrow table of the rows that failed: `key, status, id, attempts, error, row`."""

    def get_name(self) -> str:
        """Return what Ray calls the tasks."""
        return "NexRecords"

    def write(self, blocks: Iterable[Any], ctx: Any) -> tuple[dict[str, int], Any]:
        """Write blocks, on a worker; return the counts and the rows that failed."""
        counts: dict[str, int] = {}
        dead = [OUTCOMES.empty_table()]
        for block in blocks:
            outcomes = self._work(BlockAccessor.for_block(block).to_arrow())
            for row in _counted(outcomes).to_pylist():
                counts[row["status"]] = counts.get(row["status"], 0) + row["count"]
            dead.append(_dead(outcomes))
        return counts, pa.concat_tables(dead)

    def on_write_complete(self, write_result: Any) -> None:
        """Take in what the workers return."""
        for counts, dead in write_result.write_returns:
            for status, count in counts.items():
                self.counts[status] = self.counts.get(status, 0) + count
            self.dead_letters = pa.concat_tables([self.dead_letters, dead])
