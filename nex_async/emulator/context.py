"""Context: ingested text becomes people, companies, insights and timeline events; artifacts tell how it went.

The work is done while the text is taken in; the artifact only pretends to take its time, by the clock.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from nex_async.emulator import bodies
from nex_async.emulator.call import ApiError, Call, bad_request, not_found
from nex_async.emulator.extraction import Mention, classify, company_name, read_sentences
from nex_async.emulator.insights import Finding, store_insight
from nex_async.emulator.records import change_record, make_record
from nex_async.emulator.rows import StoredRow, ensure_keyed, find_row, matching_row
from nex_async.emulator.schema import ObjectDefinition
from nex_async.emulator.store import Emission, Store, to_json
from nex_async.emulator.timestamps import format_moment

__all__ = ["add_text", "get_artifact", "progress"]


@dataclasses.dataclass(slots=True)
class _Entity:
    """A record a text has touched, as it was before."""

    row: StoredRow
    kind: str
    before: dict[str, Any]
    is_new: bool


class _Ingest:
    """One text on its way into the workspace."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.entities: dict[int, _Entity] = {}
        self.findings: list[Finding] = []
        self._met: dict[Mention, int] = {}

    def read(self, content: str) -> None:
        """Take every sentence in: whom it mentions, then what it says."""
        unplaced: list[tuple[str, str, float]] = []
        for sentence in read_sentences(content):
            numbers = tuple(dict.fromkeys(filter(None, map(self._resolve, sentence.mentions))))
            said = classify(sentence.text)
            if said is None:
                continue
            if numbers:
                self.findings.append(Finding(said[0], sentence.text, said[1], numbers))
            else:
                unplaced.append((said[0], sentence.text, said[1]))
        everyone = tuple(self.entities)
        self.findings += [Finding(kind, text, sure, everyone) for kind, text, sure in unplaced]

    def _resolve(self, mention: Mention) -> int | None:
        """Return the record a mention means; within a text it always means the same."""
        found = self._met.get(mention)
        if found is None and (found := self._find(mention)) is not None:
            self._met[mention] = found
        return found

    def _find(self, mention: Mention) -> int | None:
        """Return the record a mention means, made if an address or a domain is new."""
        if mention.email:
            return self._person(mention)
        if mention.domain:
            return self._company(mention.domain)
        for kind in ("person", "company"):
            definition = self.store.schema.first_of_type(kind)
            row = None if definition is None else _named(self.store, definition, mention.name)
            if row is not None:
                return self._touch(row, kind)
        return None

    def _person(self, mention: Mention) -> int | None:
        values: dict[str, Any] = {"name": mention.name, "company": self._employer(mention.email)}
        return self._find_or_make("person", "email", mention.email, values)

    def _employer(self, email: str) -> str | None:
        definition = self.store.schema.first_of_type("company")
        attribute = None if definition is None else definition.first_of_type("domain")
        if attribute is None:
            return None
        row = matching_row(self.store, attribute, email.partition("@")[2]) if attribute.is_keyed else None
        return None if row is None else row.name

    def _company(self, domain: str) -> int | None:
        return self._find_or_make("company", "domain", domain, {"name": company_name(domain)})

    def _find_or_make(self, kind: str, identity: str, value: str, values: dict[str, Any]) -> int | None:
        definition = self.store.schema.first_of_type(kind)
        attribute = None if definition is None else definition.first_of_type(identity)
        if definition is None or attribute is None:
            return None
        ensure_keyed(self.store, definition, attribute)
        definition = self.store.schema.objects[definition.id]
        row = matching_row(self.store, attribute, value)
        if row is not None:
            return self._touch(row, kind, definition, values)
        values = {slug: each for slug, each in values.items() if slug in definition.attributes}
        values[attribute.slug] = [value] if attribute.is_multi_value else value
        try:
            made = make_record(self.store, definition, values)
        except ApiError:  # the user's own schema asks for more than a text can tell
            return None
        self.entities[made.id] = _Entity(made, kind, {}, is_new=True)
        return made.id

    def _touch(
        self,
        row: StoredRow,
        kind: str,
        definition: ObjectDefinition | None = None,
        values: dict[str, Any] | None = None,
    ) -> int:
        """Note that a known record was mentioned, and fill what the text adds to it; nothing is overwritten."""
        known = self.entities.get(row.id)
        if known is not None:
            return row.id
        before = row.values()
        self.entities[row.id] = _Entity(row, kind, before, is_new=False)
        missing = {
            slug: value
            for slug, value in (values or {}).items()
            if value is not None and definition is not None and slug in definition.attributes and slug not in before
        }
        if definition is not None and missing:
            change_record(self.store, definition, row, missing)
        return row.id


def _named(store: Store, definition: ObjectDefinition, name: str) -> StoredRow | None:
    """Return the oldest record of this name, or the only one with this first name."""
    same = store.row("SELECT min(id) FROM records WHERE object_id = ? AND name = ? COLLATE NOCASE", definition.id, name)
    if same is not None and same[0] is not None:
        return find_row(store, same[0])
    if definition.type != "person" or " " in name or len(name) < 3:
        return None
    first = store.rows(
        "SELECT id FROM records WHERE object_id = ? AND name COLLATE NOCASE > ? AND name COLLATE NOCASE < ? LIMIT 2",
        *(definition.id, f"{name} ", f"{name}!"),
    )
    return find_row(store, first[0][0]) if len(first) == 1 else None


def add_text(store: Store, call: Call) -> str:
    """`POST /v1/context/text`: returns the artifact's id, as a JSON integer."""
    body = call.decode(bodies.AddContext)
    if not body.content.strip():
        raise bad_request("content must not be empty")
    artifact_id, operation_id = store.new_id(), store.new_id()
    ingest = _Ingest(store)
    ingest.read(body.content)
    made = [store_insight(store, artifact_id, finding) for finding in ingest.findings]
    if made:
        store.emitted.append(Emission(artifact_id, operation_id, made))
    store.write(
        "INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?)",
        *(artifact_id, operation_id, body.content, body.context or "", to_json(_result(store, ingest)), store.now()),
    )
    return to_json({"artifact_id": artifact_id})


def _result(store: Store, ingest: _Ingest) -> dict[str, Any]:
    entities = list(ingest.entities.values())
    return {
        "entities_extracted": [_extracted(store, entity) for entity in entities],
        "entities_created": sum(entity.is_new for entity in entities),
        "entities_updated": sum(not entity.is_new for entity in entities),
        "relationships_created": 0,
        "insights_created": len(ingest.findings),
        "tasks_suggested": sum(finding.type == "commitment" for finding in ingest.findings),
    }


def _extracted(store: Store, entity: _Entity) -> dict[str, Any]:
    return {
        "type": entity.kind.upper(),
        "context_id": store.new_id(),
        "canonical_entity_id": entity.row.id,
        "properties": entity.row.values(),
        "previous_properties": entity.before,
        "is_new": entity.is_new,
    }


def get_artifact(store: Store, call: Call) -> str:
    """`GET /v1/context/artifacts/{artifact_id}`."""
    number = call.integer_id("artifact_id")
    row = store.row("SELECT operation_id, result, created_at FROM artifacts WHERE id = ?", number)
    if row is None:
        raise not_found("artifact", str(number))
    operation_id, result, created = row
    status = progress(store, created)
    artifact: dict[str, Any] = {"operation_id": operation_id, "status": status, "created_at": format_moment(created)}
    artifact["completed_at"] = None
    if status == "completed":
        artifact["result"] = msgspec.Raw(result.encode())
        artifact["completed_at"] = format_moment(created + store.processing_delay)
    return to_json(artifact)


def progress(store: Store, created: int) -> str:
    """Return how far work begun at `created` has come: pending for half of the delay, then processing."""
    age = store.now() - created
    if age >= store.processing_delay:
        return "completed"
    return "processing" if age * 2 >= store.processing_delay else "pending"
