"""Ask: an answer put together from what is stored, by plain rules: same question and data, same answer."""

from __future__ import annotations

from typing import Any

from nex_async.emulator import bodies
from nex_async.emulator.call import Call, bad_request
from nex_async.emulator.rows import StoredRow
from nex_async.emulator.search import find_records, match_expression, words_of
from nex_async.emulator.store import Row, Store, to_json
from nex_async.emulator.values import texts_of

__all__ = ["STOP_WORDS", "ask", "keywords"]

_STOP_TEXT = """
a about all an and any are as at be been by can companies company contact contacts customer
customers did do does everyone find for from get give had has have how i in is it latest list me my
of on or our people person persons show status tell than that the their them these they this those
to us was we were what when where which who whom whose why will with you your
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())
_MOST_ENTITIES = 5
_MOST_SIGNALS = 10


def keywords(query: str) -> list[str]:
    """Return the words of a question that carry meaning, each once."""
    return [word for word in dict.fromkeys(words_of(query)) if word not in STOP_WORDS][:30]


def ask(store: Store, call: Call) -> str:
    """`POST /v1/context/ask`."""
    query = call.decode(bodies.QueryContext).query
    if not query.strip():
        raise bad_request("query must not be empty")
    words = keywords(query)
    records = find_records(store, words, limit=_MOST_ENTITIES)
    signals = _signals(store, words, records)
    entities = [_entity(store, row, words, signals) for row in records]
    answer = {
        "answer": _answer(store, records, signals),
        "entities_considered": entities,
        "signals_used": [_signal(row, rank) for rank, row in enumerate(signals)],
        "metadata": {
            "query_type": "entity_specific" if _is_specific(entities, words) else "workspace_wide",
            "total_entities_searched": store.count("SELECT count(*) FROM records WHERE parent_id IS NULL"),
            "confidence": _confidence(entities, signals),
        },
    }
    return to_json(answer)


def _signals(store: Store, words: list[str], records: list[StoredRow]) -> list[Row]:
    """Return the newest insights about the records found, then those that hold the words: id, record, type, text."""
    found: dict[int, Row] = {}
    for record in records:
        for row in store.rows(
            "SELECT i.id, r.record_id, i.type, i.content FROM insight_records r JOIN insights i ON i.id = r.insight_id"
            " WHERE r.record_id = ? ORDER BY i.id DESC LIMIT ?",
            *(record.id, _MOST_SIGNALS),
        ):
            found.setdefault(row[0], row)
    for row in _signals_with(store, words) if words else ():
        found.setdefault(row[0], row)
    return list(found.values())[:_MOST_SIGNALS]


def _signals_with(store: Store, words: list[str]) -> list[Row]:
    return store.rows(
        "SELECT i.id, (SELECT min(record_id) FROM insight_records WHERE insight_id = i.id), i.type, i.content"
        " FROM insight_text t JOIN insights i ON i.id = t.rowid"
        " WHERE insight_text MATCH ? ORDER BY t.rank, i.id DESC LIMIT ?",
        *(match_expression(words, "OR"), _MOST_SIGNALS),
    )


def _entity(store: Store, row: StoredRow, words: list[str], signals: list[Row]) -> dict[str, Any]:
    definition = store.schema.objects[row.object_id]
    texts = {word: attribute.slug for attribute, text in texts_of(definition, row.values()) for word in words_of(text)}
    hits = {word: slug for word in words for other, slug in texts.items() if other.startswith(word)}
    return {
        "id": row.id,
        "name": row.name,
        "type": definition.type,
        "reason": "matches " + ", ".join(f'"{word}" in {slug}' for word, slug in hits.items()),
        "insights_matched": sum(signal[1] == row.id for signal in signals),
        "score": round(len(hits) / len(words), 3),
    }


def _signal(row: Row, rank: int) -> dict[str, Any]:
    number, record_id, kind, content = row
    signal = {"insight_id": number, "content": content, "score": round(1 / (1 + rank / 10), 3), "type": kind}
    return signal if record_id is None else {**signal, "entity_id": record_id}


def _answer(store: Store, records: list[StoredRow], signals: list[Row]) -> str:
    if not records and not signals:
        return "Nothing stored in this workspace matches the question."
    lines = [_line(store, row) for row in records]
    if signals:
        lines.append("Known insights: " + " ".join(f"[{signal[2]}] {signal[3]}" for signal in signals[:5]))
    return "\n".join(lines)


def _line(store: Store, row: StoredRow) -> str:
    definition = store.schema.objects[row.object_id]
    facts = [f"{attribute.slug} {text}" for attribute, text in texts_of(definition, row.values())]
    known = "; ".join(fact for fact in facts if not fact.startswith("name "))
    return f"{row.name} ({definition.type})" + (f": {known}." if known else ".")


def _is_specific(entities: list[dict[str, Any]], words: list[str]) -> bool:
    """Whether the question names the first record found."""
    return bool(entities) and any(word in words_of(entities[0]["name"]) for word in words)


def _confidence(entities: list[dict[str, Any]], signals: list[Row]) -> float:
    best = max((entity["score"] for entity in entities), default=0.0)
    return round(min(0.95, 0.6 * best + (0.3 if signals else 0.0)), 3)
