"""The models: what they must make of everything the wire is known, or may be feared, to say."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nex_async import models, routes
from nex_async.errors import DecodeError, NexError
from nex_async.models.base import decode, decode_rows, parse_timestamp
from nex_async.paging import Limits, Pager, Source
from nex_async.transport.wire import Reply, read

BIG = 90071992547409931  # an odd integer above 2^53: no float holds it
STAMP = "2026-03-02T08:05:10.418Z"
MOMENT = datetime(2026, 3, 2, 8, 5, 10, 418000, timezone.utc)

OPTIONS = {
    "is_required": True,
    "is_unique": True,
    "is_multi_value": True,
    "is_whole_number": True,
    "use_raw_format": True,
    "select_options": [{"id": "opt_1", "name": "Hot"}],
}
ATTRIBUTE = {"id": "31", "slug": "stage", "type": "select", "name": "Stage", "description": "d", "options": OPTIONS}
RECORD = {
    "id": str(BIG),
    "object_id": "5",
    "type": "person",
    "workspace_id": "7",
    "created_at": STAMP,
    "updated_at": STAMP,
    "attributes": {"name": "Ada"},
}
TIMELINE_PAYLOAD = {
    "task": {"id": "1", "title": "t", "due_date": STAMP, "priority": "low", "completed_at": STAMP},
    "note": {"id": "1", "title": "t", "content": "c"},
    "entity": {"id": "1", "definition_id": "2", "type": "person", "name": "Ada", "attributes": {"a": 1}},
    "list_item": {"id": "1", "definition_id": "2", "list_name": "l", "parent_id": "3"},
    "attribute": {"id": "1", "definition_id": "2", "slug": "s", "type": "text", "value": [1], "plain_text": "1"},
    "field_changes": [{"field_name": "name", "old_value": None, "new_value": {"a": 1}}],
}
TIMELINE = {
    "id": "61",
    "resource_type": "entity",
    "resource_id": "9",
    "event_type": "updated",
    "event_payload": TIMELINE_PAYLOAD,
    "event_timestamp": STAMP,
    "created_by": "developer_api",
    "created_by_id": "3",
    "is_aggregated": True,
    "children": [{"id": "62", "children": [{"id": "63"}]}],
}
SIGNAL = {
    "type": "email",
    "type_description": "d",
    "value": "a@x.io",
    "confidence": 0.5,
    "observation_count": 3,
    "last_observed_at": STAMP,
}
INSIGHT_ENRICHED = {
    "type": "risk",
    "type_description": "A risk",
    "content": "Owner left",
    "confidence": 0.91,
    "confidence_level": "high",
    "valid_from": STAMP,
    "valid_until": None,
    "created_by": "ai",
    "created_at": STAMP,
    "target": {
        "type": "entity",
        "type_description": "d",
        "entity_type": "company",
        "entity_type_description": "d",
        "hint": "Alder",
        "signals": [SIGNAL],
        "anchors": {"domain": "alder.io"},
        "anchors_description": "d",
    },
    "evidence": [
        {
            "excerpt": "e",
            "excerpt_description": "d",
            "artifact": {
                "type": "email",
                "type_description": "d",
                "occurred_at": STAMP,
                "subject": "s",
                "content": "c",
                "created_by": "b",
                "created_at": STAMP,
            },
        }
    ],
}
INSIGHT_SIMPLE = {
    "id": "41",
    "workspace_id": "7",
    "content": "Owner left",
    "type": "risk",
    "entities": [{"id": "9", "name": "Alder", "type": "company"}],
    "created_at": STAMP,
}
GRAPH = {
    "nodes": [
        {
            "id": "ghost:123",
            "name": "n",
            "type": "ghost",
            "definition_slug": "s",
            "primary_attribute": "p",
            "created_at": STAMP,
            "summary": "s",
        }
    ],
    "edges": [{"id": "1", "source": "2", "target": "999", "label": "l", "definition_id": "3"}],
    "relationship_definitions": [{"id": "1", "name": "n", "entity_1_to_2": "a", "entity_2_to_1": "b"}],
    "context_edges": [
        {"id": "ctx_1", "source": "1", "target": "2", "label": "l", "edge_type": "triplet", "confidence": 0.5},
        {"id": "il_2", "source": "1", "target": "2", "label": "l", "edge_type": "context", "confidence": None},
    ],
    "insight_nodes": [{"id": "ei:1", "content": "c", "type": "risk", "confidence": 1, "source": "entity_insight"}],
    "insights": {"9": [{"content": "c", "confidence": 0.5, "type": "risk"}]},
    "total_nodes": 1,
    "total_edges": 1,
    "total_context_edges": 2,
}
JOB = {"job_run_id": "0b0c", "job_type": "metrics", "workspace_id": BIG, "status": "running", "dry_run": True}

# One full sample of every schema that a reply is made of, after the published spec.
FULL: dict[type[Any], dict[str, Any]] = {
    models.Object: {
        "id": "5",
        "slug": "person",
        "type": "person",
        "name": "Person",
        "name_plural": "People",
        "description": "",
        "created_at": STAMP,
        "attributes": [ATTRIBUTE],
    },
    models.Attribute: ATTRIBUTE,
    models.Record: RECORD,
    models.RelationshipDefinition: {
        "id": "1",
        "type": "one_to_many",
        "entity_definition_1_id": "2",
        "entity_definition_2_id": "3",
        "entity_1_to_2_predicate": "employs",
        "entity_2_to_1_predicate": "",
        "created_at": STAMP,
    },
    models.Relationship: {
        "id": "1",
        "definition_id": "2",
        "entity_1_id": "3",
        "entity_2_id": "4",
        "created_at": STAMP,
    },
    models.Task: {
        "id": "1",
        "title": "Call",
        "description": "d",
        "priority": "urgent",
        "due_date": STAMP,
        "is_completed": True,
        "completed_at": STAMP,
        "assignee_ids": ["1"],
        "entity_ids": ["2"],
        "created_by": "b",
        "created_by_id": "3",
        "created_at": STAMP,
        "archived_at": STAMP,
    },
    models.Note: {
        "id": "1",
        "title": "t",
        "content": "c",
        "entity_id": "",
        "created_by": "b",
        "created_at": STAMP,
        "archived_at": STAMP,
    },
    models.TimelineEvent: TIMELINE,
    models.SearchHit: {
        "id": "1",
        "primary_value": "Ada",
        "matched_value": "ada@x.io",
        "score": 0.75,
        "entity_definition_id": "2",
    },
    models.Insight: INSIGHT_ENRICHED | INSIGHT_SIMPLE,
    models.Graph: GRAPH,
    models.Integration: {
        "type": "email",
        "provider": "google",
        "display_name": "Gmail",
        "description": "d",
        "connections": [{"id": BIG, "status": "active", "identifier": "ada@x.io"}],
    },
    models.ConnectStarted: {"auth_url": "https://x.io/oauth", "connect_id": "eyJ+/="},
    models.ConnectStatus: {"status": "connected", "connection_id": BIG, "error": "none"},
    models.CompoundingStarted: {**JOB, "success": True},
    models.CompoundingJob: {
        **JOB,
        "insights_scanned": 1,
        "insights_affected": 2,
        "candidates_created": 3,
        "errors": 4,
        "started_at": STAMP,
        "completed_at": STAMP,
        "duration_ms": 5,
        "error_details": {"a": 1},
    },
    models.Notification: {
        "id": "1",
        "type": "digest",
        "status": "unread",
        "alert_time": STAMP,
        "sent_at": STAMP,
        "content": {"important_items": [], "entity_changes": []},
    },
    models.NotificationPreferences: {"frequency_minutes": 15, "enabled_types": ["daily_digest"], "digest_enabled": True},
    models.NotificationRule: {
        "id": "1",
        "name": "n",
        "prompt": "p",
        "is_enabled": True,
        "schedule": "0 9 * * *",
        "created_at": STAMP,
    },
    models.AIListEntity: {
        "id": "1",
        "name": "Ada",
        "type": "contact",
        "reason": "r",
        "highlights": ["h"],
        "attributes": {"a": 1},
    },
    models.AIList: {
        "job_id": "jb_1",
        "status": "completed",
        "created_at": STAMP,
        "entities": [{"id": "1"}],
        "count": 1,
        "query_interpretation": "q",
        "error": "e",
    },
    models.ExtractedEntity: {
        "type": "PERSON",
        "name": "Ada",
        "action": "created",
        "context_id": BIG,
        "canonical_entity_id": BIG,
        "properties": {"a": None},
        "previous_properties": {"a": None},
        "is_new": True,
    },
    models.Answer: {
        "answer": "Fine",
        "session_id": "s",
        "entities_considered": [
            {"id": BIG, "name": "Ada", "type": "PERSON", "reason": "r", "insights_matched": 1, "score": 0.5}
        ],
        "signals_used": [{"insight_id": BIG, "entity_id": BIG, "content": "c", "score": 1, "type": "risk"}],
        "entity_references": [{"id": BIG, "name": "Ada", "type": "14", "count": 2}],
        "metadata": {"query_type": "workspace_wide", "total_entities_searched": 3, "confidence": 0.5},
    },
}
SAMPLES = [pytest.param(kind, sample, id=kind.__name__) for kind, sample in FULL.items()]
REQUIRED = ("id", "job_run_id")


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def with_strangers(value: Any) -> Any:
    """Return a sample with a key nobody knows in every object of it, except where any key may stand."""
    if isinstance(value, list):
        return [with_strangers(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: with_strangers(item) for key, item in value.items()} | {"x_new": [{"deep": None}]}


# ---- every schema ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "sample"), SAMPLES)
def test_full_sample(kind: type[Any], sample: dict[str, Any]) -> None:
    """Every published field of every schema is an attribute of its model, with the value that was sent."""
    value = decode(kind, dump(sample))
    for name, sent in sample.items():
        got = getattr(value, name)
        if sent == STAMP:
            assert got == MOMENT, name
        elif name == "id" or name.endswith("_id"):
            assert got == str(sent), name
        elif isinstance(sent, (str, bool, int, float)):
            assert got == sent, name
        else:
            assert bool(got) == bool(sent), name


@pytest.mark.parametrize(("kind", "sample"), SAMPLES)
def test_nothing_but_the_id(kind: type[Any], sample: dict[str, Any]) -> None:
    """No field but the id is promised: a reply without any other decodes, and every attribute can be read."""
    value = decode(kind, dump({name: sample[name] for name in REQUIRED if name in sample}))
    for name in sample:
        got = getattr(value, name)
        assert name in REQUIRED or not got or got == models.AttributeOptions(), name


@pytest.mark.parametrize(("kind", "sample"), SAMPLES)
def test_null_in_every_field(kind: type[Any], sample: dict[str, Any]) -> None:
    """A null is as good as an absent field, one at a time, all at once, and inside nested objects."""
    bare = {name: sample[name] for name in REQUIRED if name in sample}
    absent = decode(kind, dump(bare))
    for name in sample.keys() - bare.keys():
        value = decode(kind, dump({**sample, name: None}))
        assert getattr(value, name) == getattr(absent, name), name
    nothing = decode(kind, dump({name: bare.get(name) for name in sample}))
    assert all(getattr(nothing, name) == getattr(absent, name) for name in sample)


@pytest.mark.parametrize(("kind", "sample"), SAMPLES)
def test_nested_nulls(kind: type[Any], sample: dict[str, Any]) -> None:
    """A null in place of any field of any nested object, or of any element of a list, costs nothing but itself."""

    def hollow(value: Any) -> Any:
        if isinstance(value, list):
            return [*(hollow(item) for item in value), None]
        if isinstance(value, dict):
            return {name: item if name in REQUIRED else None for name, item in value.items()}
        return value

    value = decode(kind, dump({name: hollow(item) for name, item in sample.items()}))
    assert value is not None


@pytest.mark.parametrize(("kind", "sample"), SAMPLES)
def test_unknown_keys_pass(kind: type[Any], sample: dict[str, Any]) -> None:
    """A key nobody knows, at any depth, changes nothing of what is known."""
    value, known = decode(kind, dump(with_strangers(sample))), decode(kind, dump(sample))
    simple = [name for name, sent in sample.items() if not isinstance(sent, (dict, list))]
    assert all(getattr(value, name) == getattr(known, name) for name in simple)


@pytest.mark.parametrize(("kind", "sample"), SAMPLES)
def test_unknown_enum_values_pass(kind: type[Any], sample: dict[str, Any]) -> None:
    """No text the server sends, be it a status, a type or a priority, is refused for being new."""
    words = {name: "never-seen-before" for name, sent in sample.items() if isinstance(sent, str) and sent != STAMP}
    value = decode(kind, dump({**sample, **words}))
    assert all(getattr(value, name) == word for name, word in words.items())


def test_zero_values_may_vanish() -> None:
    """An absent flag is False, an absent or null array empty, as Go leaves them out."""
    task = decode(models.Task, b'{"id":"1","assignee_ids":null}')
    assert (task.is_completed, task.assignee_ids, task.entity_ids) == (False, [], [])
    event = decode(models.TimelineEvent, b'{"id":"1"}')
    assert (event.children, event.is_aggregated) == ([], False)


# ---- ids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [BIG, str(BIG), 2**63 - 1, 2**64 + 1, 10**30 + 7, 0])
def test_ids_are_digits_as_text(sent: int | str) -> None:
    """An id is held as text with every digit, whether it came as a string or as an integer above 2^53."""
    assert decode(models.Task, dump({"id": sent})).id == str(sent)
    assert decode_rows(models.Task, dump({"data": [{"id": sent, "entity_ids": [sent]}]})).rows[0].entity_ids == [str(sent)]
    assert decode(models.Record, dump({"id": sent, "attributes": {"n": 2**70}})).attributes == {"n": 2**70}


@pytest.mark.parametrize("sent", [1.5, True, None, [], {}, "missing"])
def test_an_id_that_is_none_is_named(sent: Any) -> None:
    """What is neither text nor integer is no id: a `DecodeError` says where it stands."""
    body = {} if sent == "missing" else {"id": sent}
    with pytest.raises(DecodeError) as caught:
        decode(models.Task, dump(body))
    assert caught.value.path in ("$.id", "$")
    assert caught.value.raw == dump(body)


# ---- timestamps -----------------------------------------------------------------------------------------------------

UTC = timezone.utc
H23 = [
    ("2026-03-02T08:05:10Z", datetime(2026, 3, 2, 8, 5, 10, tzinfo=UTC)),
    ("2026-03-02T08:05:10", datetime(2026, 3, 2, 8, 5, 10, tzinfo=UTC)),  # naive: UTC
    ("2026-03-02 08:05:10+02:00", datetime(2026, 3, 2, 6, 5, 10, tzinfo=UTC)),
    ("2026-03-02T08:05:10.1Z", datetime(2026, 3, 2, 8, 5, 10, 100000, UTC)),
    ("2026-03-02T08:05:10.123456789Z", datetime(2026, 3, 2, 8, 5, 10, 123456, UTC)),  # cut, never rounded up
    ("2026-03-02T08:05:59.999999999Z", datetime(2026, 3, 2, 8, 5, 59, 999999, UTC)),
    ("9999-12-31T23:59:59.9999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
    ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, 999999, UTC)),  # a leap second
    ("2026-03-02", datetime(2026, 3, 2, tzinfo=UTC)),
    ("2026-03-02t08:05:10z", datetime(2026, 3, 2, 8, 5, 10, tzinfo=UTC)),
    ("0001-01-01T00:00:00Z", None),  # Go's zero time
    ("0001-01-01T00:00:00.000000000+00:00", None),
    ("", None),
    (None, None),
    ("soon", None),
    ("2026-13-45T99:99:99Z", None),
    ("2026-02-30T00:00:00Z", None),
    ("\uff12\uff10\uff12\uff16-03-02T08:05:10Z", None),  # full-width digits
    ("2026-03-02T08:05:10+99:99", None),
    ("2026-03-02T08:05:10Z\n; x", None),
    ("2026-03-02T08:05:10." + "9" * 10_000 + "Z", datetime(2026, 3, 2, 8, 5, 10, 999999, UTC)),
]


@pytest.mark.parametrize(("text", "moment"), H23)
def test_h23_timestamps(text: str | None, moment: datetime | None) -> None:
    """A timestamp is an aware datetime, or None where it cannot be one; it never costs the row it stands in."""
    task = decode_rows(models.Task, dump({"data": [{"id": "1", "due_date": text}]})).rows[0]
    assert task.due_date == moment
    assert moment is None or task.due_date.tzinfo is not None


@given(st.text() | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", fullmatch=True))
def test_h23_no_timestamp_raises(text: str) -> None:
    """Whatever the text, reading a timestamp gives an aware datetime or None."""
    moment = parse_timestamp(text)
    assert moment is None or moment.utcoffset() is not None


# ---- attribute values -----------------------------------------------------------------------------------------------

THREE_ENCODINGS = [
    ("Ada Park", "Ada Park"),
    ({"first_name": "Ada", "last_name": "Park"}, "Ada Park"),
    ({"type": "full_name", "first_name": "Ada", "last_name": "Park"}, "Ada Park"),
    ([{"id": "1", "first_name": "Ada", "last_name": None}], "Ada"),
    (["ada@x.io", "b@x.io"], "ada@x.io"),
    ([{"type": "email", "email": "ada@x.io"}], "ada@x.io"),
    ({"type": "email", "email": {"email": "ada@x.io"}}, "ada@x.io"),
    ([{"email": "ada@x.io"}], "ada@x.io"),
    ({"type": "domain", "domain": "x.io"}, "x.io"),
    ({"type": "select", "option_id": "opt_1"}, "opt_1"),
    ({"type": "text", "text": "hello"}, "hello"),
    ({"country_code": 44, "number": "20 7946"}, "+44 20 7946"),
    ({"street": "1 Elm", "city": "Oslo", "region": None, "postal_code": "1", "country": "NO"}, "1 Elm, Oslo, 1, NO"),
    ({"address": {"city": "Oslo", "country": "NO"}}, "Oslo, NO"),
    ({"username": "ada", "url": "https://x.io/ada"}, "https://x.io/ada"),
    ({"value": 12.5, "currency": "EUR"}, "12.5 EUR"),
    (12, "12"),
    (True, "true"),
    (None, ""),
    ([], ""),
    ({}, ""),
    ([None, "x"], "x"),
]


@pytest.mark.parametrize(("value", "text"), THREE_ENCODINGS)
def test_text_of_three_encodings(value: Any, text: str) -> None:
    """`text` reads plain, structured and typed values alike; the raw value stays what it was."""
    record = decode(models.Record, dump({"id": "1", "attributes": {"a": value}}))
    assert record.text("a") == text
    assert record["a"] == value
    assert record.texts("a")[:1] == ([text] if text else [])


def test_texts_of_a_multi_value_attribute() -> None:
    """`texts` gives one text for each value, in order."""
    typed = [{"type": "email", "email": "a@x.io"}, {"email": "b@x.io"}, None, "c@x.io"]
    record = decode(models.Record, dump({"id": "1", "attributes": {"e": typed}}))
    assert record.texts("e") == ["a@x.io", "b@x.io", "c@x.io"]


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "value", "text", "address", "first_name", "number", "country_code", "currency", "city"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(any_json)
def test_text_never_raises(value: Any) -> None:
    """`text` and `texts` give text for any JSON value, under `attributes` and in place of them."""
    for attributes in ({"a": value}, value):
        record = decode(models.Record, dump({"id": "1", "attributes": attributes}))
        assert isinstance(record.text("a"), str)
        assert all(isinstance(text, str) for text in record.texts("a"))


@pytest.mark.parametrize("depth", [100, 5_000])
def test_text_of_a_deep_value(depth: int) -> None:
    """Values nested without reason give a text, be it empty, and no RecursionError."""
    raw = b'{"id":"1","attributes":{"a":' + b"[" * depth + b'"x"' + b"]" * depth + b"}}"
    try:
        record = decode(models.Record, raw)
    except DecodeError:
        assert depth > 500
    else:
        assert isinstance(record.text("a"), str)


# ---- lazy attributes ------------------------------------------------------------------------------------------------


def test_listing_decodes_no_attributes() -> None:
    """Rows hold the bytes they came in until an attribute is asked for; a second read is the same dict."""
    page = dump({"data": [{"id": str(n), "attributes": {"name": f"n{n}"}} for n in range(50)], "total": 50})
    rows = decode_rows(models.Record, page).rows
    assert [type(row._attributes) for row in rows] == [msgspec.Raw] * 50
    assert rows[7].attributes is rows[7].attributes
    assert rows[7].text("name") == "n7"


def test_detach_lets_the_page_go() -> None:
    """A detached record keeps its attributes and no longer holds the page it came in."""
    page = bytearray(dump({"data": [{"id": "1", "attributes": {"name": "Ada"}}], "pad": "x" * 100_000}))
    row = decode_rows(models.Record, bytes(page)).rows[0].detach()
    gc.collect()
    held = [thing for thing in gc.get_referents(row) if isinstance(thing, bytes)]
    assert len(bytes(row._attributes)) < 100
    assert held == []
    assert row.detach().text("name") == "Ada"


@pytest.mark.parametrize("sent", ["absent", None, {}])
def test_no_attributes(sent: Any) -> None:
    """Absent, null and empty attributes are an empty dict."""
    record = decode(models.Record, dump({"id": "1"} if sent == "absent" else {"id": "1", "attributes": sent}))
    assert record.attributes == {}
    assert record.get("name") is None
    assert "name" not in record
    assert record.text("name") == ""


@pytest.mark.parametrize("sent", [[], 5, "x", True])
def test_attributes_that_are_no_object(sent: Any) -> None:
    """Attributes that are no object raise `DecodeError` when read, and cost the row nothing before."""
    record = decode(models.Record, dump({"id": "1", "attributes": sent}))
    assert record.id == "1"
    assert record.text("name") == ""
    if sent:
        with pytest.raises(DecodeError):
            _ = record.attributes


@pytest.mark.parametrize("attributes", ["absent", {"name": "Ada"}])
def test_records_travel(attributes: Any) -> None:
    """A record can be written as JSON again, pickled and copied, whether its attributes were read or not."""
    sample = {"id": "1"} if attributes == "absent" else {"id": "1", "attributes": attributes}
    for touched in (False, True):
        record = decode(models.Record, dump(sample))
        if touched:
            _ = record.attributes
        expected = sample.get("attributes", {})
        assert (json.loads(msgspec.json.encode(record))["attributes"] or {}) == expected
        assert pickle.loads(pickle.dumps(record)).attributes == expected
        assert copy.deepcopy(record).attributes == expected


# ---- the caller's own type ------------------------------------------------------------------------------------------


class Person(msgspec.Struct):
    name: str
    email_addresses: list[str] = []


class Address(msgspec.Struct, rename="camel"):
    city: str | None = None


def test_as_type_straight_from_the_bytes() -> None:
    """Attributes come as the caller's Struct; those it does not name are skipped."""
    kind = models.TypedRecord[Person]
    record = decode(kind, dump({**RECORD, "attributes": {"name": "Ada", "email_addresses": ["a@x.io"], "more": 1}}))
    assert record.attributes == Person("Ada", ["a@x.io"])
    assert (record.id, record.created_at) == (str(BIG), MOMENT)


def test_as_type_names_the_bad_row() -> None:
    """A row that does not fit the caller's type is one `DecodeError` with the path into it; the others are delivered."""
    data = [{"id": "1", "attributes": {"name": "Ada"}}, {"id": 2, "attributes": {"name": 5}}, {"id": 3, "attributes": {}}]
    rows = decode_rows(models.TypedRecord[Person], dump({"data": data}))
    assert [row.attributes.name for row in rows.rows] == ["Ada"]
    assert [error.path for error in rows.errors] == ["$.data[1].attributes.name", "$.data[2].attributes"]


def test_as_type_takes_null_for_the_default() -> None:
    """A null value, or null attributes, become the caller's own defaults where he gave them."""
    row = {"id": "1", "attributes": {"name": "Ada", "email_addresses": None}}
    assert decode(models.TypedRecord[Person], dump(row)).attributes == Person("Ada", [])
    assert decode(models.TypedRecord[Address], b'{"id":"1","attributes":null}').attributes == Address()


def test_as_type_keeps_the_callers_types() -> None:
    """Nothing in the caller's own type is bent: a number is no text there, only ids of ours are mended."""
    with pytest.raises(DecodeError) as caught:
        decode(models.TypedRecord[Person], b'{"id":7,"attributes":{"name":7}}')
    assert caught.value.path == "$.attributes.name"


def test_as_type_other_than_struct() -> None:
    """A dict type or a dataclass serves as well as a Struct."""
    assert decode(models.TypedRecord[dict[str, Any]], dump(RECORD)).attributes == {"name": "Ada"}


# ---- one bad row never loses a page ---------------------------------------------------------------------------------

BAD_PAGE = {"data": [{"id": "1"}, {"id": ["x"]}, {"id": 3}, {"title": "no id"}, None, "row"], "total": 6}


def one_page(body: Any, **limits: Any) -> Pager[models.Task]:
    async def fetch(position: Any) -> Any:
        return decode_rows(models.Task, dump(body))

    return Pager(Source(fetch, "single", "tasks"), Limits(**limits))


async def test_h22_good_rows_first_then_the_error() -> None:
    """The good rows of a page are delivered, then the bad one raises with its JSON path and its own bytes."""
    seen = []
    with pytest.raises(DecodeError) as caught:
        async for task in one_page(BAD_PAGE):
            seen.append(task.id)  # noqa: PERF401
    assert seen == ["1", "3"]
    assert caught.value.path == "$.data[1].id"
    assert caught.value.raw == b'{"id": ["x"]}'


async def test_h22_bad_rows_can_be_skipped_and_counted() -> None:
    """With `on_bad_row="skip"` the scan goes on, and `skipped` tells how many rows were passed over."""
    pager = one_page(BAD_PAGE, on_bad_row="skip")
    assert [task.id for task in await pager.collect()] == ["1", "3"]
    assert pager.skipped == 4
    page = await pager
    assert [error.path for error in page.errors] == ["$.data[1].id", "$.data[3]", "$.data[4]", "$.data[5]"]


@pytest.mark.parametrize("key", ["data", "items", "rules"])
def test_h22_path_names_the_wrapper(key: str) -> None:
    """The JSON path of a bad row leads to it in the reply as it was sent."""
    rows = decode_rows(models.Notification, dump({key: [{"id": "1"}, {"id": {}}]}))
    assert [error.path for error in rows.errors] == [f"$.{key}[1].id"]
    bare = decode_rows(models.Notification, b'[{"id":"1"},{"id":{}}]')
    assert [error.path for error in bare.errors] == ["$[1].id"]


@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'{"data":null}', b'{"items":null,"total":0}', b'{"data":[]}'])
def test_a_null_listing_is_empty(body: bytes) -> None:
    """Null, absent and empty all mean no rows, also in place of a bare array."""
    rows = decode_rows(models.Integration, body)
    assert (rows.rows, rows.errors) == ([], [])


@pytest.mark.parametrize("body", [b"5", b'"x"', b"", b"<html>", b"{", b'{"data":5}', b"true"])
def test_no_listing_at_all(body: bytes) -> None:
    """A reply that is no listing raises `DecodeError`."""
    with pytest.raises(DecodeError):
        decode_rows(models.Task, body)


def test_paging_words_in_odd_types() -> None:
    """Paging words sent as text or float are read as numbers, and cost no row."""
    body = {"data": [{"id": 1}], "total": "7", "limit": 5.0, "has_more": None, "next_cursor": 44}
    listing = decode_rows(models.Task, dump(body)).listing
    assert (listing.total, listing.limit, listing.has_more, listing.next_cursor) == (7, 5, None, "44")


# ---- two published shapes -------------------------------------------------------------------------------------------

ENVELOPE = {
    "workspace": {"name": "Alder", "slug": "alder", "business_info": {"name": "A"}, "settings": {"date_format": "x"}},
    "insights": [INSIGHT_ENRICHED],
    "operation_id": BIG,
    "insight_count": 1,
    "emitted_at": STAMP,
}
INSIGHT_FORMS = {
    "simple": {"data": [INSIGHT_SIMPLE]},
    "envelope": ENVELOPE,
    "bare array": [INSIGHT_ENRICHED],
    "bare insight": INSIGHT_ENRICHED,
    "wrapped": {"insight": INSIGHT_ENRICHED},
    "without workspace": {"insights": [{"type": "risk", "content": "Owner left"}]},
    "data null beside insights": {"data": None, "insights": [INSIGHT_ENRICHED]},
}


@pytest.mark.parametrize("form", INSIGHT_FORMS)
def test_insights_in_every_published_form(form: str) -> None:
    """Simple, enriched, wrapped or bare: the same insight comes out."""
    batch = routes.LIST_INSIGHTS.decode(dump(INSIGHT_FORMS[form]))
    assert [(insight.type, insight.content) for insight in batch.insights] == [("risk", "Owner left")]
    assert batch.errors == []


def test_insight_envelope() -> None:
    """The envelope's own words are kept, its operation id with every digit; a strange word costs no insight."""
    batch = routes.LIST_INSIGHTS.decode(dump(ENVELOPE))
    assert (batch.operation_id, batch.emitted_at, batch.insight_count) == (str(BIG), MOMENT, 1)
    assert batch.workspace is not None
    assert batch.workspace.slug == "alder"
    odd = {**ENVELOPE, "workspace": 5, "insight_count": "many", "emitted_at": []}
    assert len(routes.LIST_INSIGHTS.decode(dump(odd)).insights) == 1


@pytest.mark.parametrize("body", [{"data": None}, {"insights": None}, [], {"insights": []}, None, {}])
def test_no_insights(body: Any) -> None:
    """A null or empty envelope holds no insights, and is no error."""
    assert routes.LIST_INSIGHTS.decode(dump(body)).insights == []


def test_insight_nulls_and_bad_items() -> None:
    """Null entities, signals and valid_until pass; a bad item costs only itself."""
    good = {**INSIGHT_ENRICHED, "entities": None, "evidence": None, "target": {"signals": None, "hint": None}}
    batch = routes.LIST_INSIGHTS.decode(dump({"data": [good, {"content": []}, None, 5]}))
    assert [insight.content for insight in batch.insights] == ["Owner left"]
    assert [error.path for error in batch.errors] == ["$[1].content", "$[3]"]


COUNTS = {
    "entities_extracted": [
        {"type": "PERSON", "context_id": BIG, "properties": {"a": None}, "previous_properties": {"a": None}},
        {"type": "COMPANY", "context_id": BIG, "canonical_entity_id": BIG, "is_new": True},
    ],
    "entities_created": 1,
    "entities_updated": 1,
    "relationships_created": 2,
    "insights_created": 1,
    "tasks_suggested": 0,
}
LISTS = {
    "entities_extracted": [{"name": "Ada", "type": "person", "action": "created"}, {"name": "Alder", "action": "updated"}],
    "entities_created": 1,
    "entities_updated": 1,
    "relationships": 2,
    "insights": [{"content": "c", "confidence": 0.9}],
    "tasks": [],
}
FLAT = {
    "entities_extracted": ["Ada", "Alder"],
    "entities_created": [{"name": "Ada"}],
    "entities_processed": 1,
    "relationships": 2,
    "insights": [{"content": "c"}],
    "tasks": [],
}


@pytest.mark.parametrize(
    "body",
    [
        {"operation_id": BIG, "status": "completed", "result": COUNTS, "created_at": STAMP, "completed_at": None},
        {"operation_id": BIG, "status": "COMPLETED", "result": LISTS},
        {"status": "completed", **FLAT},
    ],
    ids=["counts", "lists", "flat"],
)
def test_artifact_in_every_published_form(body: dict[str, Any]) -> None:
    """The counts mean the same in each shape of an artifact's result."""
    artifact = routes.GET_ARTIFACT.decode(dump(body))
    assert artifact.status == "completed"
    assert artifact.operation_id in (str(BIG), None)
    result = artifact.result
    assert result is not None
    counts = (result.entities_created, result.entities_updated, result.relationships_created, result.insights_created)
    assert counts == (1, 1, 2, 1)
    assert len(result.entities_extracted) == 2


@pytest.mark.parametrize("body", [{"status": "unknown"}, {"status": "failed", "error": "e"}, {"result": None}, {}])
def test_artifact_without_a_result(body: dict[str, Any]) -> None:
    """An artifact on its way, failed or half empty has no result and is no error."""
    artifact = routes.GET_ARTIFACT.decode(dump(body))
    assert artifact.result is None
    assert artifact.error == body.get("error")


@pytest.mark.parametrize("sent", [BIG, str(BIG), "art_1"])
def test_artifact_ids(sent: Any) -> None:
    """An artifact id is text, whatever it came as."""
    assert routes.ADD_TEXT.decode(dump({"artifact_id": sent, "status": "pending"})).artifact_id == str(sent)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"artifact_id":null}', b'{"artifact_id":""}', b"null", b"[]"])
def test_ingest_without_an_id(body: bytes) -> None:
    """An accepted text without an id is said in plain words."""
    with pytest.raises(DecodeError, match="no artifact_id came back"):
        routes.ADD_TEXT.decode(body)


ASK_DOCS = FULL[models.Answer] | {"entity_references": None, "session_id": None}
ASK_CHAT = {"answer": "Fine", "session_id": "s", "entity_references": [{"id": BIG, "name": "Ada", "type": "14", "count": 2}]}


@pytest.mark.parametrize("body", [ASK_DOCS, ASK_CHAT, {**ASK_DOCS, **ASK_CHAT}], ids=["docs", "chat", "both"])
def test_answer_in_every_published_form(body: dict[str, Any]) -> None:
    """The records an answer speaks of come from either shape, each once."""
    answer = routes.ASK.decode(dump(body))
    assert answer.answer == "Fine"
    assert [(entity.id, entity.name) for entity in answer.entities] == [(str(BIG), "Ada")]


def test_answer_with_nothing() -> None:
    """An empty answer, missing or null, is an empty text with no references."""
    for body in ({}, {"answer": None, "entities_considered": None, "signals_used": None}, {"answer": ""}):
        answer = routes.ASK.decode(dump(body))
        assert (answer.answer, answer.entities, answer.signals_used) == ("", [], [])


def test_answer_references_merge() -> None:
    """A reference without an id is the one of the same name and type that has it."""
    references = [{"name": "Ada", "type": "14"}, {"id": BIG, "name": "Ada", "type": "14"}, {"name": "Bo", "type": "14"}]
    answer = routes.ASK.decode(dump({"entity_references": [*references, *references]}))
    assert [(entity.id, entity.name) for entity in answer.entities] == [(str(BIG), "Ada"), (None, "Bo")]


JOB_STATE = {"job_id": "jb_1", "status": "completed", "entities": [{"id": BIG, "highlights": None}], "count": 5}


@pytest.mark.parametrize("wrap", [False, True], ids=["flat", "wrapped"])
def test_ai_list_in_every_published_form(wrap: bool) -> None:
    """A job reads the same flat or wrapped in `message`, in any case of its status."""
    state = {**JOB_STATE, "status": "Completed"}
    body = {"message": state} if wrap else state
    job = routes.GET_AI_LIST.decode(dump(body))
    assert (job.status, job.count) == ("completed", 5)
    assert job.entities is not None
    assert [(entity.id, entity.highlights) for entity in job.entities] == [(str(BIG), [])]
    created = routes.CREATE_AI_LIST.decode(dump(body))
    assert (created.job_id, created.status) == ("jb_1", "completed")


def test_ai_list_message_that_is_text() -> None:
    """A `message` that is text makes the body an error, not a job."""
    with pytest.raises(DecodeError, match="no such job"):
        routes.GET_AI_LIST.decode(b'{"message":"no such job"}')


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({"person": [{"id": 1, "score": 1}], "custom_thing": None}, {"person": ["1"], "custom_thing": []}),
        ([{"id": 1, "type": "person"}, {"id": 2}], {"person": ["1"], "": ["2"]}),
        (None, {}),
        ({}, {}),
    ],
)
def test_search_groups(results: Any, expected: dict[str, list[str]]) -> None:
    """A null group is empty, a custom slug is a key like any other, an array in place of the map is grouped."""
    found = routes.SEARCH.decode(dump({"results": results, "errored_search_types": ["deal"]}))
    assert {name: [hit.id for hit in hits] for name, hits in found.results.items()} == expected
    assert found.partial
    assert not routes.SEARCH.decode(dump({"results": results, "errored_search_types": None})).partial


def test_integrations_in_a_bare_array() -> None:
    """Integrations come without a wrapper, with null connections and providers nobody listed."""
    rows = routes.LIST_INTEGRATIONS.decode(dump([{"type": "crm", "provider": "new", "connections": None}])).rows
    assert (rows[0].provider, rows[0].connections) == ("new", [])


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b" ", b'{"deleted":true}'])
def test_deletes_answer_anything(body: bytes) -> None:
    """A delete that answers nothing, `{}`, `null` or more has succeeded."""
    assert routes.DELETE_RECORD.decode(body) is None


# ---- garbage --------------------------------------------------------------------------------------------------------

ROUTES = [pytest.param(route, id=route.name) for route in routes.ALL]
GARBAGE = [
    b"",
    b" \n",
    b"NaN",
    b'{"id":NaN}',
    b'{"id":Infinity}',
    b'{"id":1e999}',
    b'{"id":' + b"9" * 5000 + b"}",
    b'{"id":"\xff\xfe"}',
    b'{"id":"\\ud800"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"children":[' * 3_000 + b'{"id":"1"}' + b"]}" * 3_000,
    b'{"data":[' * 1_000 + b"]}" * 1_000,
    b'{"id":"1"} trailing',
    b'{"id":"1"',
    b"<html><body>502</body></html>",
    b"\xef\xbb\xbf" * 20_000,
    b"\x00",
    b"\x1f\x8b\x08",
    b"null",
    b"[null]",
    b'{"message":{"message":{}}}',
    b'{"result":{"insights":1e308,"tasks":1e308,"entities_created":-1.5}}',
    b'{"results":{"a":[[]]}}',
]


@pytest.mark.parametrize("route", ROUTES)
def test_f25_garbage_is_a_nex_error(route: routes.Route[Any]) -> None:
    """Whatever bytes come, a route gives a reply or raises an error of the SDK, and nothing else."""
    for body in GARBAGE:
        try:
            read(route, Reply(200, {}, body))
        except NexError:
            continue


@pytest.mark.parametrize("route", ROUTES)
def test_bom_is_stripped(route: routes.Route[Any]) -> None:
    """A byte order mark before the JSON changes nothing."""
    body = b'{"id":"1","job_run_id":"1","artifact_id":"1","job_id":"1"}'
    try:
        plain = route.decode(body)
    except DecodeError:
        return
    marked = route.decode(b"\xef\xbb\xbf" + body)
    assert getattr(marked, "id", "") == getattr(plain, "id", "")
    assert type(marked) is type(plain)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(routes.ALL),
    st.sampled_from([*FULL.values(), *INSIGHT_FORMS.values(), COUNTS, LISTS, JOB_STATE, ASK_CHAT, BAD_PAGE]),
    st.data(),
)
def test_f25_mutated_replies(route: routes.Route[Any], sample: Any, data: st.DataObject) -> None:
    """A reply with some of its bytes changed, or one of its values exchanged, never raises anything but `NexError`."""
    wrapped = data.draw(st.sampled_from([sample, {"data": [sample]}, [sample], {"message": sample}, {"result": sample}]))
    raw = bytearray(dump(wrapped))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, max(0, len(raw) - 1)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"null", b"1e400", b"-1", b"[]", b'"', b"{}", b"\xef\xbb\xbf"])
        )
    try:
        read(route, Reply(200, {}, bytes(raw)))
    except NexError:
        pass


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(routes.ALL), any_json, st.sampled_from(["data", "items", "insights", "message", "result", "results"]))
def test_f25_any_json(route: routes.Route[Any], value: Any, key: str) -> None:
    """Any JSON value, bare or under a known key, gives a reply or a `NexError`."""
    for body in (value, {key: value}, {"id": "1", key: [value]}):
        try:
            read(route, Reply(200, {}, dump(body)))
        except NexError:
            continue


def test_decode_error_shows_where_and_what() -> None:
    """A `DecodeError` names the path, keeps 4 KiB of the bytes, and its message is short and printable."""
    raw = dump({"id": "1", "entity_ids": "\x1b[31m" + "x" * 9000})
    with pytest.raises(DecodeError) as caught:
        decode(models.Task, raw)
    assert caught.value.path == "$.entity_ids"
    assert caught.value.raw == raw[:4096]
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
