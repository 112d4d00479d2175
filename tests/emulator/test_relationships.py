"""Relationship definitions and instances."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Api


async def _definition(api: Api, kind: str) -> Any:
    objects = {each["slug"]: each["id"] for each in (await api("GET", "/v1/objects"))["data"]}
    body = {
        "type": kind,
        "entity_definition_1_id": objects["company"],
        "entity_definition_2_id": objects["person"],
        "entity_1_to_2_predicate": "employs",
    }
    return await api("POST", "/v1/relationships", body)


async def _relate(api: Api, definition: Any, first: Any, second: Any, *, status: int = 200, at: Any = None) -> Any:
    body = {"definition_id": definition["id"], "entity_1_id": first["id"], "entity_2_id": second["id"]}
    return await api("POST", f"/v1/records/{(at or first)['id']}/relationships", body, status=status)


async def _two_by_two(api: Api) -> tuple[Any, Any, Any, Any]:
    companies = [await api.record("company", name=name) for name in ("Acme", "Blue")]
    people = [await api.record(name=name) for name in ("Ada", "Bo")]
    return (*companies, *people)


async def test_the_life_of_a_definition(api: Api) -> None:
    """A definition is created, listed, and deleted with its instances."""
    made = await _definition(api, "many_to_many")
    assert (made["entity_1_to_2_predicate"], made["entity_2_to_1_predicate"]) == ("employs", "")
    assert (await api("GET", "/v1/relationships"))["data"] == [made]
    acme, _, ada, _ = await _two_by_two(api)
    related = await _relate(api, made, acme, ada)
    assert await api("DELETE", f"/v1/relationships/{made['id']}") is None
    await api("DELETE", f"/v1/relationships/{made['id']}", status=404)
    await api("DELETE", f"/v1/records/{ada['id']}/relationships/{related['id']}", status=404)
    assert (await api("GET", "/v1/relationships"))["data"] == []


async def test_definitions_that_cannot_be(api: Api) -> None:
    """An unknown type or object is refused by name."""
    body = {"type": "some", "entity_definition_1_id": "1", "entity_definition_2_id": "1"}
    await api.refused("POST", "/v1/relationships", body, "type", "many_to_many")
    await api.refused("POST", "/v1/relationships", {**body, "type": "one_to_one"}, "entity_definition_1_id")


async def test_the_life_of_an_instance(api: Api) -> None:
    """Two records are related from either side, shown on both timelines, and parted again."""
    definition = await _definition(api, "many_to_many")
    acme, blue, ada, _ = await _two_by_two(api)
    made = await _relate(api, definition, acme, ada)
    assert (made["definition_id"], made["entity_1_id"], made["entity_2_id"]) == (definition["id"], acme["id"], ada["id"])
    await _relate(api, definition, blue, ada, at=ada)
    for record in (acme, ada):
        newest = (await api("GET", f"/v1/records/{record['id']}/timeline"))["data"][0]
        assert (newest["resource_type"], newest["event_type"]) == ("relationship", "created")
    await api("DELETE", f"/v1/records/{blue['id']}/relationships/{made['id']}", status=404)
    assert await api("DELETE", f"/v1/records/{ada['id']}/relationships/{made['id']}") is None
    await _relate(api, definition, acme, ada)


@pytest.mark.parametrize(
    ("kind", "second_person", "second_company"),
    [("one_to_one", 400, 400), ("one_to_many", 200, 400), ("many_to_many", 200, 200)],
)
async def test_cardinality(api: Api, kind: str, second_person: int, second_company: int) -> None:
    """One company to one person, to many persons with one company each, or freely; the same pair never twice."""
    definition = await _definition(api, kind)
    acme, blue, ada, bo = await _two_by_two(api)
    await _relate(api, definition, acme, ada)
    assert "already" in await _relate(api, definition, acme, ada, status=400)
    await _relate(api, definition, acme, bo, status=second_person)
    await _relate(api, definition, blue, ada, status=second_company)


async def test_instances_that_cannot_be(api: Api) -> None:
    """Wrong kinds of record, strangers to the path and unknown ids are refused by name."""
    definition = await _definition(api, "many_to_many")
    acme, blue, ada, _ = await _two_by_two(api)
    assert "entity_1_id" in await _relate(api, definition, ada, acme, status=400)
    assert blue["id"] in await _relate(api, definition, acme, ada, status=400, at=blue)
    assert "entity_2_id" in await _relate(api, definition, acme, {"id": "1"}, status=400)
    assert "definition_id" in await _relate(api, {"id": "1"}, acme, ada, status=400)
    await _relate(api, definition, acme, ada, status=404, at={"id": "1"})


async def test_a_deleted_record_takes_its_relationships_along(api: Api) -> None:
    """After one side is gone, the other is free again."""
    definition = await _definition(api, "one_to_one")
    acme, blue, ada, bo = await _two_by_two(api)
    await _relate(api, definition, acme, ada)
    await api("DELETE", f"/v1/records/{ada['id']}")
    await _relate(api, definition, acme, bo)
    await api("DELETE", "/v1/objects/company")
    assert (await api("GET", "/v1/relationships"))["data"] == []
    await api("GET", f"/v1/records/{blue['id']}", status=404)
