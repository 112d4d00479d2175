"""Records: rules on writing, matching, merging, listing."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Api, Clock


async def test_a_record_reads_as_it_was_written(api: Api) -> None:
    """A new record has ids as strings, times in whole seconds, and its attributes."""
    made = await api.record(email_addresses=["ada@x.io"])
    assert made == await api("GET", f"/v1/records/{made['id']}")
    person = await api("GET", "/v1/objects/person")
    assert made["object_id"] == person["id"]
    assert made["type"] == "person"
    assert made["workspace_id"].isdigit()
    assert made["created_at"] == made["updated_at"] == "2026-09-21T14:13:20Z"
    assert made["attributes"] == {"name": "Ada Park", "email_addresses": ["ada@x.io"]}


async def test_what_a_record_must_have(api: Api) -> None:
    """A record needs a name, and only attributes its object has."""
    for attributes in ({}, {"name": None}, {"name": ""}, {"job_title": "CTO"}):
        await api.refused("POST", "/v1/objects/person", {"attributes": attributes}, '"name"', "required")
    await api.refused("POST", "/v1/objects/person", {"attributes": {"name": "x", "shoe_size": 9}}, "shoe_size")
    await api("POST", "/v1/objects/nothing", {"attributes": {"name": "x"}}, status=404)
    made = await api.record()
    await api.refused("PATCH", f"/v1/records/{made['id']}", {"attributes": {"name": None}}, '"name"', "required")


async def test_unique_values_have_one_owner(api: Api) -> None:
    """A duplicate names the attribute and the record that has the value; freed, it can be used again."""
    first = await api.record(email_addresses=["ada@x.io", "a@x.io"])
    taken = {"name": "Bo", "email_addresses": ["bo@x.io", "ADA@x.io"]}
    await api.refused("POST", "/v1/objects/person", {"attributes": taken}, "email_addresses", first["id"])
    other = await api.record(name="Bo", email_addresses=["bo@x.io"])
    patch = {"attributes": {"email_addresses": ["a@x.io"]}}
    await api.refused("PATCH", f"/v1/records/{other['id']}", patch, first["id"])
    await api("PATCH", f"/v1/records/{first['id']}", {"attributes": {"email_addresses": ["ada@x.io"]}})
    await api("PATCH", f"/v1/records/{other['id']}", patch)
    await api("DELETE", f"/v1/records/{other['id']}")
    await api.record(name="Cy", email_addresses=["a@x.io"])


async def _upsert(api: Api, match: str, **attributes: Any) -> Any:
    return await api("PUT", "/v1/objects/person", {"matching_attribute": match, "attributes": attributes})


async def test_upsert_creates_then_updates(api: Api) -> None:
    """An upsert creates, then finds by any shared value in any case, by slug or id, and merges."""
    made = await _upsert(api, "email_addresses", name="Ada", email_addresses=["ada@x.io"])
    again = await _upsert(api, "email_addresses", email_addresses=["new@x.io", "ADA@X.io"], job_title="CTO")
    assert again["id"] == made["id"]
    assert again["attributes"] == {"name": "Ada", "email_addresses": ["new@x.io", "ADA@X.io"], "job_title": "CTO"}
    attributes = (await api("GET", "/v1/objects/person"))["attributes"]
    number = next(each["id"] for each in attributes if each["slug"] == "email_addresses")
    assert (await _upsert(api, number, email_addresses=["new@x.io"]))["id"] == made["id"]
    nameless = {"matching_attribute": "email_addresses", "attributes": {"email_addresses": ["z@x.io"]}}
    await api.refused("PUT", "/v1/objects/person", nameless, '"name"')


async def test_upsert_by_any_attribute_takes_the_oldest(api: Api) -> None:
    """Matching works on an attribute that is not unique, also for records from before; of several the oldest wins."""
    first = await api.record(job_title="CTO")
    second = await api.record(job_title="CTO")
    assert (await _upsert(api, "job_title", job_title="CTO", company="X"))["id"] == first["id"]
    await api("DELETE", f"/v1/records/{first['id']}")
    assert (await _upsert(api, "job_title", job_title="CTO"))["id"] == second["id"]
    assert (await _upsert(api, "job_title", name="Bo", job_title="CEO"))["id"] not in (first["id"], second["id"])
    by_name = await _upsert(api, "name", name={"first_name": "Bo"}, company="Y")
    assert by_name["attributes"]["company"] == "Y"
    assert (await api("POST", "/v1/objects/person/records", {}))["total"] == 2


async def test_upserts_that_cannot_be(api: Api) -> None:
    """The matching attribute must exist and have a valid value in the attributes."""
    for match, attributes in (
        ("shoe_size", {"name": "x"}),
        ("email_addresses", {"name": "x"}),
        ("email_addresses", {"name": "x", "email_addresses": []}),
        ("email_addresses", {"name": "x", "email_addresses": "ada@x.io"}),
    ):
        await api.refused("PUT", "/v1/objects/person", {"matching_attribute": match, "attributes": attributes}, match)


async def test_updates_merge(api: Api, clock: Clock) -> None:
    """Only the keys sent change, null clears, and an update that changes nothing leaves no trace."""
    made = await api.record(job_title="CTO", company="X")
    path = f"/v1/records/{made['id']}"
    clock.now += 60
    same = await api("PATCH", path, {"attributes": {"job_title": "CTO", "location": None}})
    assert same == made
    assert (await api("PATCH", path, {})) == made
    changed = await api("PATCH", path, {"attributes": {"job_title": "CEO", "company": None}})
    assert changed["attributes"] == {"name": "Ada Park", "job_title": "CEO"}
    assert changed["updated_at"] > made["updated_at"]
    assert changed["created_at"] == made["created_at"]
    assert len((await api("GET", path + "/timeline"))["data"]) == 2


async def test_record_ids(api: Api) -> None:
    """An id that is no number is a bad request, one nobody has is not found; deleting is for good."""
    for method in ("GET", "PATCH", "DELETE"):
        await api(method, "/v1/records/abc", {}, status=400)
        await api(method, "/v1/records/12345678901234567", {}, status=404)
        await api(method, "/v1/records/" + "9" * 40, {}, status=404)
    made = await api.record()
    assert await api("DELETE", f"/v1/records/{made['id']}") is None
    await api("DELETE", f"/v1/records/{made['id']}", status=404)


async def test_pages_cover_everything_once(api: Api) -> None:
    """Pages follow each other without gap or overlap, newest first, and echo total, limit and offset."""
    ids = [(await api.record(name=f"P{number}"))["id"] for number in range(7)]
    seen: list[str] = []
    for offset in (0, 3, 6, 9):
        page = await api("POST", "/v1/objects/person/records", {"limit": 3, "offset": offset})
        assert (page["total"], page["limit"], page["offset"]) == (7, 3, offset)
        seen += [row["id"] for row in page["data"]]
    assert seen == ids[::-1]
    assert (await api("POST", "/v1/objects/person/records", {}))["limit"] == 50
    assert (await api("POST", "/v1/objects/person/records", {"limit": 5000}))["limit"] == 1000
    for body in ({"limit": 0}, {"limit": -1}, {"offset": -1}):
        await api.refused("POST", "/v1/objects/person/records", body, next(iter(body)))


async def test_which_attributes_a_page_carries(api: Api) -> None:
    """A page carries all attributes, the primary one, none, or those named; an array is not legal."""
    made = await api.record(job_title="CTO", company="X")
    path = "/v1/objects/person/records"
    for selection, expected in (
        ("all", made["attributes"]),
        ("primary", {"name": "Ada Park"}),
        ("none", {}),
        ({"mode": "custom", "slugs": ["company", "location"]}, {"company": "X"}),
    ):
        assert (await api.rows(path, attributes=selection))[0]["attributes"] == expected
    assert await api.rows(path) == [made]
    wrong: list[Any] = ["some", ["name"], {"mode": "custom", "slugs": []}, {"mode": "all", "slugs": ["name"]}, 7]
    for selection in wrong:
        await api.refused("POST", path, {"attributes": selection}, "attributes")
    await api.refused("POST", path, {"attributes": {"mode": "custom", "slugs": ["shoe_size"]}}, "shoe_size")


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_sorting_is_stable(api: Api, direction: str) -> None:
    """Sorting puts records without a value last, ignores case, and breaks ties by age; ids follow numbers, not text."""
    made = {}
    for name, count in (("b", 10), ("A", 9), ("c", None), ("a", 100), ("B", 10)):
        values = {"name": name} if count is None else {"name": name, "employee_count": count}
        made[(await api("POST", "/v1/objects/company", {"attributes": values}))["id"]] = name
    path = "/v1/objects/company/records"

    async def names(attribute: str) -> str:
        rows = await api.rows(path, sort={"attribute": attribute, "direction": direction})
        return "".join(made[row["id"]] for row in rows)

    assert await names("name") == {"asc": "AabBc", "desc": "cbBAa"}[direction]
    assert await names("employee_count") == {"asc": "AbBac", "desc": "abBAc"}[direction]
    assert await names("created_at") == {"asc": "bAcaB", "desc": "BacAb"}[direction]


async def test_sorting_by_last_change(api: Api) -> None:
    """The order of changes is exact even within one second."""
    ids = [(await api.record(name=name))["id"] for name in "abc"]
    await api("PATCH", f"/v1/records/{ids[0]}", {"attributes": {"job_title": "x"}})
    rows = await api.rows("/v1/objects/person/records", sort={"attribute": "updated_at", "direction": "desc"})
    assert [row["id"] for row in rows] == [ids[0], ids[2], ids[1]]


async def test_sorting_by_amounts_lists_and_ids(api: Api) -> None:
    """Amounts sort by number, several values by the first, and an attribute may be given by its id."""
    price = await api.attribute("company", "price", "currency")
    for name, value, domain in (("a", {"value": 20, "currency": "EUR"}, "z.io"), ("b", 3, "y.io"), ("c", 100, "x.io")):
        await api.record("company", name=name, price=value, domains=[domain])
    for attribute, expected in ((price["id"], "bac"), ("domains", "cba")):
        rows = await api.rows("/v1/objects/company/records", sort={"attribute": attribute})
        assert "".join(row["attributes"]["name"] for row in rows) == expected
    for sort in ({"attribute": "shoe_size"}, {"attribute": "name", "direction": "up"}):
        await api.refused("POST", "/v1/objects/company/records", {"sort": sort}, "sort.")
