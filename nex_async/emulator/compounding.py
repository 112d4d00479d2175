"""Compounding: jobs over the stored insights. The work is done when a job is taken in; its states follow the clock.

- `consolidation` merges insights of one type that say nearly the same into the oldest of them, which takes over their
  records and the highest confidence. Affected: the insights that went. Candidates: the groups.
- `decay_sweep` takes a tenth off the confidence of insights older than 30 days, down to 0.1.
- `pattern_detection` finds records with two and more insights of one type, and keeps each such pattern once. Affected:
  the insights behind the patterns. Candidates: the new patterns.
- `playbook_synthesis` makes one rule from each type with patterns; a rule, too, is kept once.
- `metrics` only counts.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from nex_async.emulator import bodies
from nex_async.emulator.call import Call, bad_request, not_found
from nex_async.emulator.context import progress
from nex_async.emulator.similarity import group_similar
from nex_async.emulator.store import Store, to_json
from nex_async.emulator.timestamps import MICROSECONDS, format_moment

__all__ = ["get_job", "trigger"]

_STATES = {"pending": "accepted", "processing": "running", "completed": "completed"}
_STALE = 30 * 24 * 3600 * MICROSECONDS
_DECAY = 0.9
_LEAST_CONFIDENCE = 0.1
_KNOWLEDGE = "id, kind, type, content, confidence, record_id, created_at"


class _Counters(msgspec.Struct):
    """What a job reports once it is done."""

    insights_scanned: int = 0
    insights_affected: int = 0
    candidates_created: int = 0
    errors: int = 0


def trigger(store: Store, call: Call) -> str:
    """`POST /v1/compounding/trigger`, answered with 202."""
    body = call.decode(bodies.TriggerCompounding)
    work = _WORK.get(body.job_type)
    if work is None:
        raise bad_request(f"job_type must be one of {', '.join(_WORK)}")
    dry_run = body.dry_run is True
    counters = work(store, dry_run)
    run_id = str(uuid.uuid4())
    store.write(
        "INSERT INTO compounding_jobs VALUES (?, ?, ?, ?, ?)",
        *(run_id, body.job_type, dry_run, to_json(counters), store.now()),
    )
    return to_json({**_head(store, run_id, body.job_type, dry_run), "status": "accepted", "success": True})


def get_job(store: Store, call: Call) -> str:
    """`GET /v1/compounding/jobs/{job_run_id}`: the counters are 0 until the job has completed."""
    name = call.path["job_run_id"].lower()
    row = store.row("SELECT job_type, dry_run, counters, created_at FROM compounding_jobs WHERE run_id = ?", name)
    if row is None:
        raise not_found("compounding job", name)
    kind, dry_run, counters, created = row
    job = {**_head(store, name, kind, bool(dry_run)), "status": _STATES[progress(store, created)]}
    job.update(msgspec.to_builtins(_Counters()), started_at=format_moment(created))
    if job["status"] == "completed":
        job.update(msgspec.json.decode(counters), completed_at=format_moment(created + store.processing_delay))
        job["duration_ms"] = store.processing_delay // 1000
    return to_json(job)


def _head(store: Store, run_id: str, kind: str, dry_run: bool) -> dict[str, Any]:
    return {"job_run_id": run_id, "job_type": kind, "workspace_id": int(store.workspace_id), "dry_run": dry_run}


def _consolidate(store: Store, dry_run: bool) -> _Counters:
    by_type: dict[str, dict[int, str]] = {}
    for number, kind, content in store.rows("SELECT id, type, content FROM insights"):
        by_type.setdefault(kind, {})[number] = content
    groups = [group for texts in by_type.values() for group in group_similar(texts)]
    for kept, *others in () if dry_run else groups:
        _merge(store, kept, others)
    scanned = sum(len(texts) for texts in by_type.values())
    return _Counters(scanned, sum(len(group) - 1 for group in groups), len(groups))


def _merge(store: Store, kept: int, others: list[int]) -> None:
    """Let one insight stand for others that say the same."""
    for number in others:
        store.write(
            "UPDATE insights SET confidence = max(confidence, (SELECT confidence FROM insights WHERE id = ?)) WHERE id = ?",
            *(number, kept),
        )
        store.write(
            "INSERT OR IGNORE INTO insight_records SELECT ?, record_id FROM insight_records WHERE insight_id = ?",
            *(kept, number),
        )
        store.write("DELETE FROM insight_records WHERE insight_id = ?", number)
        store.write("DELETE FROM insight_text WHERE rowid = ?", number)
        store.write("DELETE FROM insights WHERE id = ?", number)


def _decay(store: Store, dry_run: bool) -> _Counters:
    stale, values = "created_at < ? AND confidence > ?", (store.now() - _STALE, _LEAST_CONFIDENCE)
    affected = store.count(f"SELECT count(*) FROM insights WHERE {stale}", *values)
    if not dry_run:
        store.write(
            f"UPDATE insights SET confidence = max(round(confidence * ?, 4), ?) WHERE {stale}",
            *(_DECAY, _LEAST_CONFIDENCE, *values),
        )
    return _Counters(_all_insights(store), affected)


def _detect_patterns(store: Store, dry_run: bool) -> _Counters:
    found = store.rows(
        "SELECT i.type, r.id, r.name, json_group_array(i.id), max(i.confidence) FROM insights i"
        " JOIN insight_records l ON l.insight_id = i.id JOIN records r ON r.id = l.record_id"
        " GROUP BY i.type, r.id HAVING count(*) > 1 ORDER BY r.id, i.type"
    )
    created, behind = 0, set[int]()
    for kind, record_id, name, numbers, confidence in found:
        behind.update(msgspec.json.decode(numbers))
        content = f"{name} shows {kind} again and again"
        created += _keep(store, dry_run, "pattern", kind, content, confidence, record_id)
    return _Counters(_all_insights(store), len(behind), created)


def _synthesize(store: Store, dry_run: bool) -> _Counters:
    found = store.rows("SELECT type, max(confidence) FROM knowledge WHERE kind = 'pattern' GROUP BY type ORDER BY type")
    created = 0
    for kind, confidence in found:
        content = f"When {kind} shows up a second time, look at the record and act"
        created += _keep(store, dry_run, "playbook", kind, content, confidence, None)
    return _Counters(_all_insights(store), 0, created)


def _keep(store: Store, dry_run: bool, kind: str, type: str, content: str, confidence: float, record_id: int | None) -> int:
    """Store what a job has learnt unless it is known already; return how many are new: 0 or 1."""
    known = store.row("SELECT 1 FROM knowledge WHERE kind = ? AND type = ? AND record_id IS ?", kind, type, record_id)
    if known is not None:
        return 0
    if not dry_run:
        row = (store.new_id(), kind, type, content, confidence, record_id, store.now())
        store.write(f"INSERT INTO knowledge ({_KNOWLEDGE}) VALUES (?, ?, ?, ?, ?, ?, ?)", *row)
    return 1


def _measure(store: Store, dry_run: bool) -> _Counters:
    return _Counters(_all_insights(store))


def _all_insights(store: Store) -> int:
    return store.count("SELECT count(*) FROM insights")


_WORK: dict[str, Callable[[Store, bool], _Counters]] = {
    "consolidation": _consolidate,
    "pattern_detection": _detect_patterns,
    "playbook_synthesis": _synthesize,
    "decay_sweep": _decay,
    "metrics": _measure,
}
