"""Objects, their attributes, and what each attribute type accepts."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Api


async def test_a_fresh_workspace_has_people_and_companies(api: Api) -> None:
    """Person and company exist with a required name and a unique identity."""
    found = {each["slug"]: each for each in (await api("GET", "/v1/objects?include_attributes=true"))["data"]}
    assert list(found) == ["person", "company"]
    for slug, identity in (("person", "email_addresses"), ("company", "domains")):
        attributes = {each["slug"]: each for each in found[slug]["attributes"]}
        assert attributes["name"]["options"]["is_required"] is True
        assert attributes[identity]["options"]["is_unique"] is True
        assert attributes[identity]["options"]["is_multi_value"] is True
    plain = (await api("GET", "/v1/objects"))["data"]
    assert all("attributes" not in each for each in plain)
    await api.refused("GET", "/v1/objects?include_attributes=maybe", None, "include_attributes")


async def test_ids_are_odd_and_beyond_floats(api: Api) -> None:
    """Every id is a string of 17 digits, odd, rising, and changed by a trip through a float."""
    ids = [(await api.record())["id"] for _ in range(5)]
    for each in ids:
        assert len(each) == 17
        assert int(each) > 2**53
        assert int(float(each)) != int(each)
    assert ids == sorted(set(ids))


async def test_the_life_of_an_object(api: Api) -> None:
    """An object is created, read, renamed and deleted with its records; slug and type stay."""
    body = {"name": "Ship", "slug": "ship", "name_plural": "Ships"}
    made = await api("POST", "/v1/objects", body)
    assert made["type"] == "custom"
    assert made["description"] == ""
    assert [each["slug"] for each in made["attributes"]] == ["name"]
    record = await api.record("ship", name="Aurora")
    changed = await api("PATCH", "/v1/objects/ship", {"name": "Vessel", "description": "Floats", "slug": "ship"})
    assert (changed["name"], changed["description"], changed["name_plural"]) == ("Vessel", "Floats", "Ships")
    await api.refused("PATCH", "/v1/objects/ship", {"slug": "boat"}, "slug")
    await api.refused("PATCH", "/v1/objects/ship", {"type": "deal"}, "type")
    await api.refused("PATCH", "/v1/objects/ship", {"name": ""}, "name")
    assert await api("DELETE", "/v1/objects/ship") is None
    await api("GET", "/v1/objects/ship", status=404)
    await api("GET", f"/v1/records/{record['id']}", status=404)
    await api("DELETE", "/v1/objects/ship", status=404)


async def test_objects_that_cannot_be(api: Api) -> None:
    """A taken or unsafe slug, an empty name and an unknown type are refused."""
    await api.refused("POST", "/v1/objects", {"name": "x", "slug": "person"}, "person", "slug")
    await api.refused("POST", "/v1/objects", {"name": "x", "slug": "Not Safe"}, "slug")
    await api.refused("POST", "/v1/objects", {"name": " ", "slug": "x"}, "name")
    await api.refused("POST", "/v1/objects", {"name": "x", "slug": "x", "type": "list"}, "type")


async def test_the_life_of_an_attribute(api: Api) -> None:
    """An attribute is created, changed within its limits and deleted with its values."""
    made = await api.attribute("company", "employees", "number", is_whole_number=True)
    assert made["options"]["select_options"] is None
    record = await api.record("company", name="Acme", employees=7)
    path = f"/v1/objects/company/attributes/{made['id']}"
    changed = await api("PATCH", path, {"name": "Staff", "options": {"is_whole_number": False, "is_required": True}})
    assert changed["name"] == "Staff"
    assert changed["options"]["is_required"] is True
    await api("PATCH", f"/v1/records/{record['id']}", {"attributes": {"employees": 7.5}})
    for body, field in (
        ({"slug": "staff"}, "slug"),
        ({"type": "text"}, "type"),
        ({"options": {"is_unique": True}}, "is_unique"),
        ({"options": {"is_multi_value": True}}, "is_multi_value"),
        ({"options": {"select_options": [{"name": "x"}]}}, "select_options"),
    ):
        await api.refused("PATCH", path, body, field)
    assert await api("DELETE", path) is None
    assert "employees" not in (await api("GET", f"/v1/records/{record['id']}"))["attributes"]
    await api.refused("PATCH", f"/v1/records/{record['id']}", {"attributes": {"employees": 7}}, "employees")
    await api("DELETE", path, status=404)
    await api("PATCH", "/v1/objects/company/attributes/none", {}, status=404)


async def test_attributes_that_cannot_be(api: Api) -> None:
    """A taken slug, an unknown type and the deletion of the name are refused."""
    path = "/v1/objects/company/attributes"
    await api.refused("POST", path, {"name": "x", "slug": "domains", "type": "text"}, "domains")
    await api.refused("POST", path, {"name": "x", "slug": "created_at", "type": "date"}, "created_at")
    await api.refused("POST", path, {"name": "x", "slug": "x", "type": "rating"}, "type", "full_name")
    await api("POST", "/v1/objects/nothing/attributes", {"name": "x", "slug": "x", "type": "text"}, status=404)
    name = (await api("GET", "/v1/objects/company"))["attributes"][0]
    await api.refused("DELETE", f"{path}/{name['id']}", None, "name")


async def test_select_options(api: Api) -> None:
    """Options get ids; with an id they are renamed, without one added, left out they stay; a label is no value."""
    made = await api.attribute("company", "stage", "select", select_options=[{"name": "Lead"}, {"name": "Won", "id": "won"}])
    lead, won = made["options"]["select_options"]
    assert won == {"id": "won", "name": "Won"}
    path = f"/v1/objects/company/attributes/{made['id']}"
    record = await api.record("company", stage=lead["id"])
    changed = await api("PATCH", path, {"options": {"select_options": [{"id": "won", "name": "Closed"}, {"name": "Lost"}]}})
    assert [each["name"] for each in changed["options"]["select_options"]] == ["Lead", "Closed", "Lost"]
    assert record["attributes"]["stage"] == lead["id"]
    await api.refused("PATCH", f"/v1/records/{record['id']}", {"attributes": {"stage": "Closed"}}, "stage", "won")
    await api.refused("PATCH", path, {"options": {"select_options": [{"id": "new", "name": "x"}]}}, "new")
    await api.refused("PATCH", path, {"options": {"select_options": [{"name": "Lead"}]}}, "names")
    twice = {"select_options": [{"id": "a", "name": "A"}, {"id": "a", "name": "B"}]}
    body = {"name": "x", "slug": "x", "type": "select", "options": twice}
    await api.refused("POST", "/v1/objects/company/attributes", body, "ids")


_ADDRESS = {"street": "1 Main St", "city": "Leipzig", "country": "Germany"}
_GOOD: dict[str, list[Any]] = {
    "text": ["", "plain", "Grüße \U0001f680", "a\u0000b"],
    "number": [0, -1.5, 2**53 + 1, 2**63 - 1],
    "email": ["ada@x.io"],
    "phone": ["+49 341 123-45", {"country_code": 49, "number": "34112345"}],
    "url": ["https://x.io/a?b=c", "x.io/path", "http://localhost:8080"],
    "date": ["2026-03-02", "2026-03-02T08:00:00Z", "2026-03-02T08:00:00.123456789+02:00"],
    "boolean": [True, False],
    "currency": [12.5, {"value": 10, "currency": "EUR"}],
    "location": ["Leipzig", _ADDRESS, {"address": _ADDRESS}],
    "select": ["won"],
    "social_profile": ["adapark", {"username": "ada", "url": "https://l.com/ada"}],
    "domain": ["x.io", "Sub.Example.co.uk"],
    "full_name": ["Ada Park", {"first_name": "Ada", "last_name": "Park"}, {"last_name": "Park"}],
}
_BAD: dict[str, list[Any]] = {
    "text": [1, True, {}, ["x"]],
    "number": ["1", True, {}, 2**63],
    "email": ["ada", "ada@", "@x.io", "a b@x.io", "a@b@c.io", 1],
    "phone": ["", "call me", 49, {"number": "1"}, {"country_code": "49", "number": "341123"}],
    "url": ["", "not a url", "plain", 1],
    "date": ["tomorrow", "2026-13-01", "2026-02-30", 20260302, "2026-03-02T08:00:00"],
    "boolean": ["true", 0, 1],
    "currency": ["12", {"currency": "EUR"}, {"value": "1"}, {"value": 1, "currency": 2}],
    "location": [1, {}, {"town": "x"}, {"city": 1}],
    "select": ["Won", "", 1, {"id": "won"}],
    "social_profile": ["", 1, {}, {"username": 1}],
    "domain": ["", "x", "https://x.io", "ada@x.io", "x io.com", 1],
    "full_name": [1, {}, {"first_name": 1}, {"name": "x"}],
}


@pytest.mark.parametrize("kind", _GOOD)
async def test_values_come_back_as_written(api: Api, kind: str) -> None:
    """Each type takes its plain and structured values and returns them as written; null clears."""
    options = {"select_options": [{"id": "won", "name": "Won"}]} if kind == "select" else {}
    await api.attribute("company", "probe", kind, **options)
    await api.attribute("company", "probes", kind, is_multi_value=True, **options)
    for value in _GOOD[kind]:
        made = await api.record("company", probe=value, probes=[value, value])
        assert made["attributes"]["probe"] == value
        assert made["attributes"]["probes"] == [value, value]
        path = f"/v1/records/{made['id']}"
        assert (await api("GET", path))["attributes"] == made["attributes"]
        cleared = await api("PATCH", path, {"attributes": {"probe": None, "probes": []}})
        assert cleared["attributes"] == {"name": "Ada Park", "probes": []}


@pytest.mark.parametrize("kind", _BAD)
async def test_values_of_another_type_are_refused_by_name(api: Api, kind: str) -> None:
    """Each type refuses what it cannot hold, alone or among several, and names the attribute."""
    options = {"select_options": [{"id": "won", "name": "Won"}]} if kind == "select" else {}
    await api.attribute("company", "probe", kind, **options)
    await api.attribute("company", "probes", kind, is_multi_value=True, **options)
    for value in _BAD[kind]:
        await api.refused("POST", "/v1/objects/company", {"attributes": {"name": "x", "probe": value}}, '"probe"', kind)
        await api.refused("POST", "/v1/objects/company", {"attributes": {"name": "x", "probes": [value]}}, '"probes"')
    single = _GOOD[kind][-1]
    await api.refused("POST", "/v1/objects/company", {"attributes": {"name": "x", "probes": single}}, "array")
    await api.refused("POST", "/v1/objects/company", {"attributes": {"name": "x", "probe": [single]}}, "array")
    assert await api.rows("/v1/objects/company/records") == []


async def test_whole_numbers(api: Api) -> None:
    """A whole-number attribute takes 7 and 7.0 and refuses 7.5."""
    for value in (7, 7.0):
        await api.record("company", employee_count=value)
    await api.refused("POST", "/v1/objects/company", {"attributes": {"name": "x", "employee_count": 7.5}}, "whole")
