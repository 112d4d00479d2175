"""`nex-async remember`: texts in, and what came of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import Output, output_option, plain
from .problem import FAILED, PARTLY, Problem, one_line
from .running import Session, session_options
from .texts import standard_input, text_of_file

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["command"]

_COLUMNS = ("file", "artifact_id", "status", "insights_created", "entities_created", "entities_updated", "error")


@click.command("remember")
@click.argument("text", required=False)
@click.option("--file", "-f", "files", multiple=True, type=click.Path(), help="A file to take in; may be repeated.")
@click.option("--context", metavar="LABEL", help="Where the text came from.  [default: for a file, its name]")
@click.option("--wait", default=300.0, show_default=True, type=click.FloatRange(0), help="Seconds to wait; 0 does not.")
@click.option("--journal", type=click.Path(dir_okay=False), help="With --file: remember here which files are in.")
@click.option("--resume/--no-resume", default=True, show_default=True, help="With --journal: go on where it stopped.")
@output_option
@session_options
def command(
    session: Session,
    output: Output,
    text: str | None,
    files: tuple[str, ...],
    context: str | None,
    wait: float,
    journal: str | None,
    resume: bool,
) -> None:
    """Take in TEXT, files, or what comes on standard input; wait until records and insights were made of it.

    The API takes ten texts a minute: more wait their turn.
    """
    if text is not None and files:
        raise click.UsageError("give a text, or files, not both")
    if journal is not None and not files:
        raise click.UsageError("--journal goes with --file")
    if not files:
        said = standard_input("a text") if text in (None, "-") else text or ""
        session.run(lambda nex: _one(nex, output, said, context, wait))
    run = _Files(files, context, wait, journal, force=not resume and journal is not None)
    session.run(lambda nex: run.work(nex, output), resumable=journal is not None)


async def _one(nex: Nex, output: Output, text: str, context: str | None, wait: float) -> None:
    from msgspec import UNSET

    job = await nex.context.add_text(text, context=UNSET if context is None else context)
    artifact = plain(await job.wait(timeout=wait)) if wait else {"status": "pending"}
    output.one({"artifact_id": job.id, **artifact})


@dataclass
class _Files:
    """Files to be taken in, and what became of each."""

    paths: tuple[str, ...]
    context: str | None
    wait: float
    journal: str | None
    force: bool
    rows: list[dict[str, Any]] = field(default_factory=list)

    async def work(self, nex: Nex, output: Output) -> int:
        from .progress import drawn

        options: dict[str, Any] = {"total": len(self.paths)}
        if self.journal is not None:
            options |= {"journal": self.journal, "force": self.force}
        texts = [*self._texts()]
        jobs: dict[str, Any] = {}
        with drawn() as progress:
            async with nex.context.add_many([row for _, row in texts], progress=progress, **options) as run:
                async for outcome in run:
                    path = texts[outcome.index][0]
                    if outcome.ok:
                        jobs[path] = nex.context.attach(outcome.value)
                    else:
                        self._failed(path, outcome.error)
            await self._follow(nex, jobs)
        output.rows(self.rows, _COLUMNS)
        failed = sum(1 for row in self.rows if row["status"] == "failed")
        return FAILED if self.rows and failed == len(self.rows) else PARTLY if failed else 0

    def _texts(self) -> Iterator[tuple[str, dict[str, str]]]:
        for path in self.paths:
            try:
                text = text_of_file(path)
            except FileNotFoundError:
                raise Problem(f"there is no file {path!r}", "nothing was sent", 2) from None
            except OSError as error:
                raise Problem(f"cannot read {path!r}: {error.strerror}", "nothing was sent", 2) from None
            except ValueError as error:
                self._failed(path, error)
            else:
                yield path, {"content": text, "context": self.context or f"file:{Path(path).name}"}

    async def _follow(self, nex: Nex, jobs: dict[str, Any]) -> None:
        """Wait for what comes of the texts that were taken."""
        if not self.wait:
            self.rows += [{"file": path, "artifact_id": job.id, "status": "pending"} for path, job in jobs.items()]
            return
        ends = await nex.jobs.wait_all(jobs.values(), timeout=self.wait, return_exceptions=True)
        for (path, job), end in zip(jobs.items(), ends, strict=True):
            if isinstance(end, Exception):
                self._failed(path, end, artifact_id=job.id)
            else:
                counts = plain(end.result) if end.result else {}
                self.rows.append({"file": path, "artifact_id": job.id, "status": end.status, **counts})

    def _failed(self, path: str, error: Exception | None, **also: str) -> None:
        self.rows.append({"file": path, **also, "status": "failed", "error": one_line(error or Exception("unknown"))})
