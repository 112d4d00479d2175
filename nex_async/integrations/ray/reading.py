"""Datasets of records: each partition of a listing is a task, and becomes one Arrow block."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import msgspec

from ..._typing import Unpack
from ...bulk.export import Export
from ...bulk.export_options import checked_batch, checked_structured, checked_window
from ...bulk.formats.arrow import schema_of
from ...bulk.formats.columns import Column, Structured, columns_of, select
from ...bulk.partitions import Partition, divide, selection, total_of
from ...client import Nex
from ...errors import CheckpointError, InvalidRequestError, NexError, PermissionDeniedError
from ...paging import OnBadRow
from ...resources.base import record_listing, required_text
from ...routes import GET_OBJECT
from ...transport.wire import in_range
from .access import Access, ClusterOptions, KeySource, access_of, place, remote_options
from .checkpoint import Checkpoint
from .engine import BlockMetadata, Datasource, RayError, ReadTask, pa, ray
from .failures import PartitionError, SchemaChanged, reraise

__all__ = ["RecordsDatasource", "read_records", "read_workspaces"]

OnChange: TypeAlias = Literal["raise", "ignore"]

WORKSPACE = "workspace"
"""The first column of a dataset of many workspaces."""
PARTITION_ROWS = 50_000
"""Rows of a partition, unless the caller says how many partitions there are."""
_SAMPLE = 100
"""So many rows are read beforehand, to tell Ray's planner how large a row is."""
_A_ROW = 512
"""Bytes, where there is none to measure."""


@dataclass(frozen=True)
class Choice:
    """What is read of a workspace, and how."""

    slug: str
    attributes: str | tuple[str, ...] | None
    sort: str
    limit: int
    window: int
    structured: Structured
    on_bad_row: OnBadRow
    on_change: OnChange

    @property
    def whole(self) -> Partition:
        """The listing in one part."""
        return Partition("object", self.slug, sort=self.sort, attributes=self.attributes, limit=self.limit)


@dataclass(frozen=True)
class Survey:
    """What there was to read of a workspace when it was looked at."""

    total: int
    columns: tuple[Column, ...]
    defined: dict[str, Column]
    """The columns of the object's definition; empty where it cannot be read."""
    row_bytes: int
    witness: str
    """Tells the workspace from others; the key cannot be told from it."""


@dataclass(frozen=True)
class ReadPart:
    """Reads one partition where it is called: the task of a dataset."""

    access: Access
    choice: Choice
    part: Partition
    name: str
    """What errors call it."""
    columns: tuple[Column, ...]
    defined: dict[str, Column]
    workspace: str | None = None
    checkpoint: Checkpoint | None = None
    file: str = ""
    """What the checkpoint calls it."""

    def __call__(self) -> list[Any]:
        """Return its one table. Raises `PartitionError`, `SchemaChanged`."""
        if self.checkpoint is not None:
            done = self.checkpoint.load(self.file)
            if done is not None:
                return [done]
        table = self._read()
        if self.workspace is not None:
            table = table.add_column(0, WORKSPACE, pa.array([self.workspace] * table.num_rows, pa.string()))
        if self.checkpoint is not None:
            self.checkpoint.save(self.file, table)
        return [table]

    def _read(self) -> Any:
        choice = self.choice
        try:
            nex = self.access.client()
            batches, unstable, now = nex._call(lambda: _read(nex._async, choice, self.part, self.columns))
        except NexError as error:
            raise PartitionError(f"{self.name} failed on {place()}: {type(error).__name__}: {error}") from None
        if choice.on_change == "raise":
            if unstable:
                raise PartitionError(
                    f"{self.name} failed: the listing shrank meanwhile, so rows may be missing; read it again"
                )
            if self.defined and now and now != self.defined:
                told = _difference(self.defined, now)
                raise SchemaChanged(f"{self.name} failed: {choice.slug} changed while it was read ({told}); read it again")
        return pa.Table.from_batches(batches, schema=schema_of(self.columns)).combine_chunks()


def survey(access: Access, choice: Choice, salt: str) -> Survey:
    """Look at what there is to read: a handful of requests, from a worker, for the driver may have no key."""
    nex = access.client()
    return nex._call(lambda: _survey(nex._async, choice, salt))


async def _survey(nex: Nex, choice: Choice, salt: str) -> Survey:
    sender, whole = nex._sender, choice.whole
    columns = await Export(sender, whole, None, {})._columns()
    defined = await _defined(nex, choice.slug)
    total = await total_of(whole, sender, {})
    size, count = 0, 0
    sample = Export(sender, replace(whole, stop=_SAMPLE), None, {"structured": choice.structured}, columns=columns)
    async for batch in sample.as_arrow(on_bad_row="skip"):
        size, count = size + batch.nbytes, count + batch.num_rows
    tenant = nex._state.tenant
    assert tenant is not None
    return Survey(total, columns, defined, size // count if count else _A_ROW, tenant.witness(salt).hex())


async def _read(
    nex: Nex, choice: Choice, part: Partition, columns: tuple[Column, ...]
) -> tuple[list[Any], bool, dict[str, Column]]:
    export = Export(nex._sender, part, None, {"structured": choice.structured, "window": choice.window}, columns=columns)
    batches = [batch async for batch in export.as_arrow(on_bad_row=choice.on_bad_row)]
    return batches, export.unstable, await _defined(nex, choice.slug)


async def _defined(nex: Nex, slug: str) -> dict[str, Column]:
    try:
        return columns_of(await nex._sender.send(GET_OBJECT, (slug,)))
    except PermissionDeniedError:
        return {}


def _difference(before: dict[str, Column], now: dict[str, Column]) -> str:
    told = [f"{slug} was removed" for slug in before if slug not in now]
    told += [f"{slug} was added" for slug in now if slug not in before]
    told += [f"{slug} changed its type" for slug in before if slug in now and before[slug] != now[slug]]
    return ", ".join(told)


# ---- on the driver --------------------------------------------------------------------------------------------------


class RecordsDatasource(Datasource):
    """A Ray Data source over partitions of records; for `ray.data.read_datasource`. `read_records` makes one."""

    def __init__(self, reads: Sequence[ReadPart], rows: Sequence[int], row_bytes: Sequence[int], schema: Any) -> None:
        super().__init__()
        self._reads = list(reads)
        self._rows = list(rows)
        self._sizes = [count * each for count, each in zip(rows, row_bytes, strict=True)]
        self._schema = schema

    def get_name(self) -> str:
        """Return what Ray calls the tasks."""
        return "NexRecords"

    def estimate_inmemory_data_size(self) -> int | None:
        """Return the size of the dataset in bytes, as a sample of its rows tells."""
        return sum(self._sizes)

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None) -> list[Any]:
        """Return a task for each partition, whatever the parallelism: how many there are was decided before."""
        return [
            ReadTask(
                read,
                BlockMetadata(num_rows=rows, size_bytes=size, exec_stats=None, input_files=None),
                schema=self._schema,
                per_task_row_limit=per_task_row_limit,
            )
            for read, rows, size in zip(self._reads, self._rows, self._sizes, strict=True)
        ]


def read_records(
    slug: str,
    /,
    *,
    attributes: str | Sequence[str] | None = "all",
    sort: str = "created_at",
    partitions: int | None = None,
    limit: int = 500,
    window: int = 8,
    structured: Structured = "json",
    on_bad_row: OnBadRow = "raise",
    on_change: OnChange = "raise",
    **options: Unpack[ClusterOptions],
) -> Any:
    """Return the records of an object as a `ray.data.Dataset` of Arrow blocks, one for each partition.

    The columns are those of `Records.export`: id, object_id, type, created_at, updated_at, one for each attribute, and
    `_extra`. `partitions` is how many tasks read it; by default one for each 50 000 rows, and two for each CPU where there
    are enough rows for that. `limit` is the page size, `window` how many pages a task has in flight. A listing that shrinks,
    or an object whose attributes change, fails the partition that saw it; ``on_change="ignore"`` keeps what was read, with
    what has no column in `_extra`. With `checkpoint=` a second run reads only what the first did not. The order of the
    blocks is Ray's to choose.

    Looks at the object at once, from a worker; the rest is read when the dataset is consumed.
    `POST /v1/objects/{slug}/records`, scope `record.read`; the definition at the beginning and the end of each partition,
    `GET /v1/objects/{slug}`, scope `object.read`. Raises `InvalidRequestError`, `ConfigError`, and from a worker what its
    first calls meet; consuming the dataset raises `PartitionError`, which names the partition.
    """
    choice = _choice(slug, attributes, sort, limit, window, structured, on_bad_row, on_change)
    in_range("partitions", partitions, 1, 100_000)
    access = access_of(options)
    checkpoint = Checkpoint(options["checkpoint"]) if "checkpoint" in options else None
    salt = "" if checkpoint is None else _salt(checkpoint)
    [found] = _surveys([access], choice, salt, options)
    if checkpoint is not None:
        found, partitions = _gone_on_with(checkpoint, choice, found, partitions or _count(found.total), salt)
    parts = divide(choice.whole, found.total, partitions or _count(found.total))
    reads = [
        ReadPart(
            access,
            choice,
            part,
            f"partition {number + 1} of {len(parts)} of {slug} (rows {part.start} to {part.stop or 'the end'})",
            found.columns,
            found.defined,
            None,
            checkpoint,
            f"{slug}-{number:06d}",
        )
        for number, part in enumerate(parts)
    ]
    rows = [(found.total if part.stop is None else part.stop) - part.start for part in parts]
    source = RecordsDatasource(reads, rows, [found.row_bytes] * len(reads), schema_of(found.columns))
    return ray.data.read_datasource(source, override_num_blocks=len(reads), **remote_options(options))


def read_workspaces(
    keys: Mapping[str, KeySource],
    slug: str,
    /,
    *,
    attributes: str | Sequence[str] | None = "all",
    sort: str = "created_at",
    limit: int = 500,
    window: int = 8,
    structured: Structured = "json",
    on_bad_row: OnBadRow = "raise",
    on_change: OnChange = "raise",
    **options: Unpack[ClusterOptions],
) -> Any:
    """Return the records of an object in many workspaces as one `ray.data.Dataset`, with a first column `workspace`.

    `keys` says for each workspace, by a name of your own, where the workers find its key. An attribute that only some
    workspaces have is null in the others; one whose type differs is text, JSON where it is more than that. A workspace of
    more than 50 000 rows is read by several tasks. Else as `read_records`.
    """
    choice = _choice(slug, attributes, sort, limit, window, structured, on_bad_row, on_change)
    if not isinstance(keys, Mapping) or not keys or not all(isinstance(name, str) and name for name in keys):
        raise InvalidRequestError("keys must map names of workspaces to where their keys are found", argument="keys")
    if "key" in options or "checkpoint" in options:
        raise InvalidRequestError("read_workspaces takes neither key= nor checkpoint=", argument="key")
    accesses = [access_of(options, key=source) for source in keys.values()]
    surveys = _surveys(accesses, choice, "", options)
    columns = _united(surveys)
    tasks: list[tuple[int, ReadPart, int, int]] = []
    for name, access, found in zip(keys, accesses, surveys, strict=True):
        parts = divide(choice.whole, found.total, math.ceil(found.total / PARTITION_ROWS))
        for number, part in enumerate(parts):
            called = f"partition {number + 1} of {len(parts)} of {slug} of workspace {name}"
            rows = (found.total if part.stop is None else part.stop) - part.start
            read = ReadPart(access, choice, part, called, columns, found.defined, name)
            tasks.append((number, read, rows, found.row_bytes))
    tasks.sort(key=lambda task: task[0])  # in turns, so that a large workspace does not hold up those behind it
    _, reads, counts, sizes = zip(*tasks, strict=True)
    schema = pa.schema([pa.field(WORKSPACE, pa.string()), *schema_of(columns)])
    source = RecordsDatasource(reads, counts, sizes, schema)
    return ray.data.read_datasource(source, override_num_blocks=len(reads), **remote_options(options))


def _choice(
    slug: str,
    attributes: str | Sequence[str] | None,
    sort: str,
    limit: int,
    window: int,
    structured: Structured,
    on_bad_row: OnBadRow,
    on_change: OnChange,
) -> Choice:
    required_text("slug", slug)
    record_listing(attributes, sort)
    in_range("limit", limit, 1, None)
    checked_batch(1, on_bad_row)
    if on_change not in ("raise", "ignore"):
        raise InvalidRequestError("on_change must be 'raise' or 'ignore'", argument="on_change")
    chosen = selection(attributes)
    return Choice(slug, chosen, sort, limit, checked_window(window), checked_structured(structured), on_bad_row, on_change)


def _surveys(accesses: Sequence[Access], choice: Choice, salt: str, options: ClusterOptions) -> list[Survey]:
    """Look at each workspace, from the workers. Raises what the first that fails meets."""
    task: Any = ray.remote(survey)
    task = task.options(num_cpus=options.get("num_cpus", 1.0))
    asked = [task.remote(access, choice, salt) for access in accesses]
    try:
        found: list[Survey] = ray.get(asked)
    except RayError as error:
        reraise(error)
    return found


def _count(total: int) -> int:
    """Return how many partitions there are to be: enough for every CPU, none of them small."""
    cpus = int(ray.cluster_resources().get("CPU", 1))
    return max(1, math.ceil(total / PARTITION_ROWS), min(2 * cpus, total // 5_000))


def _united(surveys: Sequence[Survey]) -> tuple[Column, ...]:
    """Return the columns of all workspaces together."""
    slugs: dict[str, Column] = {}
    for found in surveys:
        for column in found.columns:
            assert column.slug is not None
            plain = msgspec.structs.replace(column, name=column.slug)
            known = slugs.setdefault(column.slug, plain)
            if known != plain:
                slugs[column.slug] = Column(column.slug, column.slug, "json", many=False)
    return select(slugs, None)


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def _salt(checkpoint: Checkpoint) -> str:
    """Return what the folder's witness was made with."""
    plan = checkpoint.plan()
    salt = secrets.token_hex(8) if plan is None else plan.get("salt")
    if not isinstance(salt, str):
        raise CheckpointError(f"the checkpoint {checkpoint.uri} is not that of a read")
    return salt


def _gone_on_with(checkpoint: Checkpoint, choice: Choice, found: Survey, count: int, salt: str) -> tuple[Survey, int]:
    """Return the survey and the number of partitions that a folder was begun with; begin it, if it is new.

    Raises `CheckpointError` for a folder of another read, `SchemaChanged` when the object's attributes changed since.
    """
    plan = checkpoint.plan()
    own = {name: value for name, value in asdict(choice).items() if name not in ("window", "limit", "on_change")}
    own = msgspec.json.decode(msgspec.json.encode({**own, "witness": found.witness}))
    if plan is None:
        checkpoint.begin({
            "salt": salt, "read": own, "count": count, "survey": msgspec.to_builtins(found),
        })  # fmt: skip
        return found, count
    if plan.get("read") != own:
        raise CheckpointError(f"the checkpoint {checkpoint.uri} was begun by another read, or for another workspace")
    before = msgspec.convert(plan["survey"], Survey)
    if choice.on_change == "raise" and before.defined and found.defined and before.defined != found.defined:
        told = _difference(before.defined, found.defined)
        raise SchemaChanged(
            f"{choice.slug} changed since the checkpoint {checkpoint.uri} was begun ({told}): use another folder"
        )
    return before, int(plan["count"])
