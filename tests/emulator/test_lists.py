"""Lists and their members."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Api


async def _list(api: Api) -> Any:
    made = await api("POST", "/v1/objects/person/lists", {"name": "VIPs", "slug": "vips"})
    await api.attribute("vips", "stage", "text")
    await api.attribute("vips", "rank", "number")
    return made


async def test_the_life_of_a_list(api: Api) -> None:
    """A list is an object of type list under its parent; deleted, its records stay."""
    made = await _list(api)
    assert (made["type"], made["slug"]) == ("list", "vips")
    full = await api("GET", f"/v1/lists/{made['id']}")
    assert [each["slug"] for each in full["attributes"]] == ["stage", "rank"]
    assert await api("GET", "/v1/objects/vips") == full
    listed = await api("GET", "/v1/objects/person/lists?include_attributes=true")
    assert listed["data"] == [full]
    assert "attributes" not in (await api("GET", "/v1/objects/person/lists"))["data"][0]
    assert "vips" not in [each["slug"] for each in (await api("GET", "/v1/objects"))["data"]]
    ada = await api.record()
    await api("POST", f"/v1/lists/{made['id']}", {"parent_id": ada["id"]})
    assert await api("DELETE", f"/v1/lists/{made['id']}") is None
    await api("GET", f"/v1/lists/{made['id']}", status=404)
    assert await api("GET", f"/v1/records/{ada['id']}") == ada


async def test_list_ids_and_slugs(api: Api) -> None:
    """A list id that is no number is a bad request; a list is not an object to hold records itself."""
    made = await _list(api)
    await api("GET", "/v1/lists/vips", status=400)
    await api("GET", "/v1/lists/12345", status=404)
    await api.refused("POST", "/v1/objects/person/lists", {"name": "x", "slug": "vips"}, "vips")
    await api("POST", "/v1/objects/nothing/lists", {"name": "x", "slug": "x"}, status=404)
    await api.refused("POST", "/v1/objects/vips", {"attributes": {"name": "x"}}, made["id"])
    await api.refused("POST", "/v1/objects/vips/lists", {"name": "x", "slug": "x"}, "list")


async def test_members_merge_both_sets_of_values(api: Api) -> None:
    """A member has its own id, the parent's type, and the parent's values with the list's."""
    made = await _list(api)
    ada = await api.record(job_title="CTO")
    path = f"/v1/lists/{made['id']}"
    member = await api("POST", path, {"parent_id": ada["id"], "attributes": {"stage": "new"}})
    assert member["id"] != ada["id"]
    assert member["type"] == "person"
    assert member["attributes"] == {"name": "Ada Park", "job_title": "CTO", "stage": "new"}
    await api("PATCH", f"/v1/records/{ada['id']}", {"attributes": {"job_title": "CEO"}})
    assert (await api.rows(path + "/records"))[0]["attributes"]["job_title"] == "CEO"
    await api("GET", f"/v1/records/{member['id']}", status=404)


async def test_adding_twice_and_upserting(api: Api) -> None:
    """POST refuses a record that is a member, PUT updates its membership."""
    made = await _list(api)
    ada, acme = await api.record(), await api.record("company")
    path = f"/v1/lists/{made['id']}"
    member = await api("PUT", path, {"parent_id": ada["id"], "attributes": {"stage": "new"}})
    await api.refused("POST", path, {"parent_id": ada["id"]}, "already", ada["id"])
    again = await api("PUT", path, {"parent_id": ada["id"], "attributes": {"rank": 1}})
    assert again["id"] == member["id"]
    assert again["attributes"] == {"name": "Ada Park", "stage": "new", "rank": 1}
    await api.refused("POST", path, {}, "parent_id")
    await api.refused("POST", path, {"parent_id": "17"}, "parent_id")
    await api.refused("POST", path, {"parent_id": acme["id"]}, "person")
    await api.refused("PUT", path, {"parent_id": ada["id"], "attributes": {"name": "x"}}, "name")


@pytest.mark.parametrize("by", ["membership", "record"])
async def test_members_answer_to_both_ids(api: Api, by: str) -> None:
    """A member is updated and removed by the id of the membership or of the record; the record stays."""
    made = await _list(api)
    ada = await api.record()
    member = await api("POST", f"/v1/lists/{made['id']}", {"parent_id": ada["id"]})
    path = f"/v1/lists/{made['id']}/records/{member['id'] if by == 'membership' else ada['id']}"
    changed = await api("PATCH", path, {"attributes": {"stage": "won"}})
    assert (changed["id"], changed["attributes"]["stage"]) == (member["id"], "won")
    assert await api("DELETE", path) is None
    await api("DELETE", path, status=404)
    await api("PATCH", path, {"attributes": {}}, status=404)
    assert await api("GET", f"/v1/records/{ada['id']}") == ada
    events = (await api("GET", f"/v1/records/{ada['id']}/timeline"))["data"]
    assert [each["event_type"] for each in events] == ["deleted", "updated", "created", "created"]
    assert events[1]["event_payload"]["list_item"]["list_name"] == "VIPs"
    assert events[1]["event_payload"]["field_changes"] == [{"field_name": "stage", "old_value": None, "new_value": "won"}]


async def test_listing_members_never_adds_one(api: Api) -> None:
    """A listing pages, selects and sorts by values of either side; a record id in its body adds nothing."""
    made = await _list(api)
    path = f"/v1/lists/{made['id']}"
    for name, rank in (("b", 1), ("a", 3), ("c", 2)):
        record = await api.record(name=name)
        await api("POST", path, {"parent_id": record["id"], "attributes": {"rank": rank}})
    stranger = await api.record(name="d")
    page = await api("POST", path + "/records", {"parent_id": stranger["id"], "limit": 2})
    assert (page["total"], page["limit"], len(page["data"])) == (3, 2, 2)

    async def names(attribute: str) -> str:
        rows = await api.rows(path + "/records", sort={"attribute": attribute})
        return "".join(row["attributes"]["name"] for row in rows)

    assert await names("name") == "abc"
    assert await names("rank") == "bca"
    rows = await api.rows(path + "/records", attributes={"mode": "custom", "slugs": ["rank"]}, limit=1)
    assert rows[0]["attributes"] == {"rank": 2}


async def test_a_deleted_record_leaves_its_lists(api: Api) -> None:
    """Deleting a record takes its memberships along."""
    made = await _list(api)
    ada = await api.record()
    await api("POST", f"/v1/lists/{made['id']}", {"parent_id": ada["id"]})
    await api("DELETE", f"/v1/records/{ada['id']}")
    assert (await api("POST", f"/v1/lists/{made['id']}/records", {}))["total"] == 0
