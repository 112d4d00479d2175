"""The document the emulator serves about itself: valid, whole, and true."""

from __future__ import annotations

from typing import Any

import pytest

from nex_async import routes

from .conftest import Api


@pytest.fixture
async def document(api: Api) -> Any:
    """The document as anybody gets it, without a key."""
    async with api.session.get(api.url.replace("/api/developers", "/openapi.json")) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        return await response.json()


def operations(document: Any) -> dict[str, tuple[str, str, Any]]:
    """Return method, path and description of each operation by its operationId."""
    return {
        described["operationId"]: (method.upper(), path, described)
        for path, item in document["paths"].items()
        for method, described in item.items()
    }


async def test_it_is_valid(document: Any) -> None:
    """The document is valid OpenAPI 3."""
    from openapi_spec_validator import validate  # half a second, which other processes need not spend

    assert document["openapi"].startswith("3.")
    validate(document)


async def test_it_lists_every_operation(document: Any) -> None:
    """All 61 operations are there, each where its route says, with its scopes, its success and its errors."""
    listed = operations(document)
    assert len(listed) == 61
    for route in routes.ALL:
        method, path, described = listed[route.name]
        assert (method, path) == (route.method, route.path)
        assert described["x-scopes"] == list(route.scopes)
        assert described["security"] == [{"key": [route.scopes[0]]}]
        assert str(route.status) in described["responses"]
        assert {"400", "401", "403", "429", "500"} < set(described["responses"])


async def test_every_parameter_is_there(document: Any) -> None:
    """Each parameter of a path is described with a type, and each listing's limit with its bounds."""
    listed = operations(document)
    for route in routes.ALL:
        parameters = {(each["in"], each["name"]): each["schema"] for each in listed[route.name][2]["parameters"]}
        assert [name for place, name in parameters if place == "path"] == list(route.params)
        assert all("type" in schema for schema in parameters.values())
    limits = {
        name: each["schema"]["maximum"]
        for name, (_, _, described) in listed.items()
        for each in described["parameters"]
        if each["name"] == "limit"
    }
    assert limits == {
        "getRecordTimeline": 100,
        "listTasks": 500,
        "getInsights": 100,
        "getGraph": 5000,
        "getNotificationFeed": 50,
    }


async def test_ids_published_as_integers_are_integers(document: Any) -> None:
    """The ids of records, lists, artifacts and connections are integers in a path, the others are not."""
    integers = {
        (path, each["name"])
        for _, path, described in operations(document).values()
        for each in described["parameters"]
        if each["in"] == "path" and each["schema"]["type"] == "integer"
    }
    assert ("/v1/lists/{id}", "id") in integers
    assert ("/v1/records/{record_id}", "record_id") in integers
    assert ("/v1/relationships/{id}", "id") not in integers
    assert ("/v1/tasks/{task_id}", "task_id") not in integers
    assert {name for _, name in integers} == {"record_id", "id", "artifact_id", "connection_id"}


async def test_a_body_is_described_where_one_is_read(api: Api, document: Any) -> None:
    """An operation refuses an array for a body if, and only if, the document gives it a body."""
    for name, (method, path, described) in operations(document).items():
        if name == "streamInsights":
            assert "requestBody" not in described
            continue
        filled = path.replace("{slug}", "person").replace("{type}", "crm").replace("{provider}", "attio")
        for parameter in routes.BY_NAME[name].params:
            filled = filled.replace(f"{{{parameter}}}", "17")
        headers = {"Authorization": f"Bearer {api.key}", "X-Emulator-Rate-Limits": "off"}
        async with api.session.request(method, api.url + filled, data=b"[]", headers=headers) as response:
            text = await response.text()
            refused = response.status == 400 and ("expected `object`" in text or "Expected `object`" in text)
        assert refused == ("requestBody" in described), (name, text)


async def test_other_methods_are_refused(api: Api) -> None:
    """The document can only be read."""
    async with api.session.post(api.url.replace("/api/developers", "/openapi.json")) as response:
        assert response.status == 405


async def test_every_word_it_allows_is_taken(api: Api, document: Any) -> None:
    """Each value the document lists for a field of a body is one the operation accepts."""
    schemas = document["components"]["schemas"]

    def words(body: str, field: str) -> list[str]:
        schema = schemas[body]["properties"][field]
        return next(each for each in [schema, *schema.get("anyOf", [])] if "enum" in each)["enum"]

    for index, word in enumerate(words("CreateObjectRequest", "type")):
        await api("POST", "/v1/objects", {"name": "x", "slug": f"o{index}", "type": word})
    for index, word in enumerate(words("CreateAttributeRequest", "type")):
        await api.attribute("o0", f"a{index}", word)
    object_id = (await api("GET", "/v1/objects/o0"))["id"]
    for word in words("CreateRelationshipDefinitionRequest", "type"):
        body = {"type": word, "entity_definition_1_id": object_id, "entity_definition_2_id": object_id}
        await api("POST", "/v1/relationships", body)
    for word in words("CreateTaskRequest", "priority"):
        await api("POST", "/v1/tasks", {"title": "x", "priority": word})
    for word in words("SortRequest", "direction"):
        await api("POST", "/v1/objects/o0/records", {"sort": {"attribute": "name", "direction": word}})
    for word in words("CreateAIListJobRequest", "object_type"):
        await api("POST", "/v1/context/list/jobs", {"query": "x", "object_type": word})
    for word in words("TriggerCompoundingRequest", "job_type"):
        await api("POST", "/v1/compounding/trigger", {"job_type": word}, status=202)
