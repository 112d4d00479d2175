"""`nex-async records import`: the rows of a file into an object."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .problem import FAILED, PARTLY
from .running import Session, session_options

if TYPE_CHECKING:
    from ..bulk.progress import OnProgress
    from ..bulk.writer import BulkRun
    from ..client import Nex

__all__ = ["command"]

_SHOWN = 5
"""So many rows that failed, and values that differ, are shown one by one."""


@dataclass
class _Job:
    """What the command line asks for."""

    slug: str
    file: str
    match_on: str
    journal: str
    renames: dict[str, str]
    create: bool
    retry_dead: bool
    dry_run: bool
    options: dict[str, Any]

    @property
    def dead_letters(self) -> str:
        """The file of the rows that failed."""
        return f"{self.journal}.dead.jsonl"


def _renames(ctx: click.Context, param: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    renames: dict[str, str] = {}
    for pair in pairs:
        column, equals, slug = pair.rpartition("=")
        if not equals or not column:
            raise click.BadParameter(f"{pair!r} is not COLUMN=SLUG", ctx, param)
        renames[column] = slug.strip()
    return renames


@click.command("import")
@click.argument("slug", metavar="OBJECT")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--match-on", required=True, metavar="SLUG", help="The attribute by which a row finds its record.")
@click.option("--map", "renames", multiple=True, metavar="COLUMN=SLUG", callback=_renames,
              help="Call a column otherwise; COLUMN= leaves it out. May be repeated.")  # fmt: skip
@click.option("--create", is_flag=True, help="Create records; a record that is there already is an error of its row.")
@click.option("--journal", type=click.Path(dir_okay=False), help="File to resume from.  [default: FILE.journal]")
@click.option("--job-id", metavar="NAME", help="A finished job of this name is not repeated, another name begins anew.")
@click.option("--resume/--no-resume", default=True, show_default=True,
              help="Go on from the journal; or begin anew, also where it belongs to other rows.")  # fmt: skip
@click.option("--skip-unchanged", is_flag=True, help="Send only rows that differ from what was last sent under their key.")
@click.option("--verify", is_flag=True, help="Read the object back at the end, and tell where it differs.")
@click.option("--dry-run", is_flag=True, help="Check every row, send nothing, and leave the journal alone.")
@click.option("--retry-dead", is_flag=True, help="Send the rows that failed again, instead of those of the file.")
@click.option("--concurrency", type=click.IntRange(1, 1000), help="Rows in flight; finds its own level by default.")
@click.option("--max-dead", type=click.IntRange(0), help="End when more rows have failed.  [default: 100, or 5 %]")
@session_options
def command(
    session: Session,
    slug: str,
    file: str,
    match_on: str,
    renames: dict[str, str],
    create: bool,
    journal: str | None,
    retry_dead: bool,
    dry_run: bool,
    resume: bool,
    **options: Any,
) -> None:
    """Write the rows of FILE into OBJECT, such as person: JSON Lines (.jsonl, .ndjson) or a table (.csv), also .gz and .zst.

    A row updates the record with its value of --match-on, or becomes a new one. The first line of a table names attributes;
    empty cells are left out; several values of one attribute are a JSON array. Rows that fail are set aside in
    JOURNAL.dead.jsonl. Stopped or killed at any point, the same command goes on.

    Exit status: 4 when rows failed and the others are in.
    """
    if retry_dead and dry_run:
        raise click.UsageError("--retry-dead sends, and --dry-run does not: choose one")
    if not retry_dead and not Path(file).exists():
        raise click.BadParameter(f"there is no file {file!r}", param_hint="FILE")
    chosen = {name: value for name, value in options.items() if value}
    if not resume and not retry_dead:
        chosen["force"] = True
    if options["max_dead"] is not None:
        chosen["max_dead"] = options["max_dead"]
    job = _Job(slug, file, match_on, journal or f"{file}.journal", renames, create, retry_dead, dry_run, chosen)
    session.run(lambda nex: _import(nex, job), resumable=True)


async def _import(nex: Nex, job: _Job) -> int:
    from .progress import drawn

    run: BulkRun | None = None
    try:
        with drawn() as progress:
            run = _again(nex, job, progress) if job.retry_dead else await _run(nex, job, progress)
            if run is not None:
                await run
    finally:
        if run is not None:
            _tell(job, run)
    if run is None or run.report.ok:
        return 0
    return FAILED if run.report.failed == run.report.rows else PARTLY


async def _run(nex: Nex, job: _Job, progress: OnProgress) -> BulkRun:
    """Return the run of the file's rows."""
    from ..errors import PermissionDeniedError
    from .rowfile import RowFile, is_table

    definition = None
    if is_table(job.file):
        try:
            definition = await nex.objects.get(job.slug)
        except PermissionDeniedError:
            click.echo("The key may not read the object's definition: cells are sent as texts.", err=True)
    rows = RowFile(job.file, job.renames, definition)
    return _writing(nex, job, rows, progress, total=await rows.count())


def _again(nex: Nex, job: _Job, progress: OnProgress) -> BulkRun | None:
    """Return the run of the rows that failed, None where none did."""
    letters = Path(job.dead_letters)
    if not letters.exists() or not letters.stat().st_size:
        click.echo(f"There are no dead letters in {os.fspath(letters)}.")
        return None
    return _writing(nex, job, (), progress, total=None).retry_dead()


def _writing(nex: Nex, job: _Job, rows: Any, progress: OnProgress, *, total: int | None) -> BulkRun:
    options: Any = {**job.options, "progress": progress, "total": total}
    if job.dry_run:
        options = {name: value for name, value in options.items() if name not in ("job_id", "force", "skip_unchanged")}
        options["dry_run"] = True
    else:
        options["journal"] = job.journal
    write = nex.records.create_many if job.create else nex.records.upsert_many
    return write(job.slug, rows, match_on=job.match_on, **options)


def _tell(job: _Job, run: BulkRun) -> None:
    """Print the report, and on stderr what is wrong."""
    report = run.report
    if not report.rows and not report.finished:
        return
    click.echo(str(report))
    for outcome in report.failures[:_SHOWN]:
        click.echo(f"row {outcome.index + 1}: {outcome.error}", err=True)
    dead = report.failed + report.unknown
    if dead and not job.dry_run:
        click.echo(f"{dead} rows are in {job.dead_letters}; --retry-dead sends them again.", err=True)
    for drift in (report.drift or ())[:_SHOWN]:
        found = "there is no such record" if drift.found is None else f"holds {drift.found!r}, not {drift.sent!r}"
        click.echo(f"{drift.key}: {drift.attribute}: {found}", err=True)
    if report.drift:
        click.echo(f"{len(report.drift)} values are not as they were sent.", err=True)
