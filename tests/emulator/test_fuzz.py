"""Whatever is sent to the emulator, it answers, it answers what its own document says, and it never fails.

The requests are made from the document at `/openapi.json`. `NEX_ASYNC_FUZZ_EXAMPLES` sets how many each operation gets.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from yarl import URL

from nex_async import routes
from nex_async.emulator import Emulator
from nex_async.emulator.openapi import openapi_json
from nex_async.emulator.switches import CHOICES

from ..harness.schemas import ID_TOKENS, anything, near, texts
from .conftest import Api

_EXAMPLES = int(os.environ.get("NEX_ASYNC_FUZZ_EXAMPLES", "8"))
_THOROUGH = "NEX_ASYNC_FUZZ_EXAMPLES" in os.environ
_SECONDS = 10
_DOCUMENT = json.loads(openapi_json())
_COMPONENTS = _DOCUMENT["components"]
_SWITCHES = [name for name in CHOICES if name != "faults"]  # a fault fails on purpose


@dataclasses.dataclass
class Request:
    """What is sent; an int among the path values stands for an id of the workspace."""

    path: list[str | int]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes | None


def described(name: str) -> Any:
    route = routes.BY_NAME[name]
    return _DOCUMENT["paths"][route.path][route.method.lower()]


def path_values(parameter: str) -> st.SearchStrategy[str | int]:
    known: st.SearchStrategy[str | int] = st.integers(0, 1000)
    words = {
        "slug": ["person", "company", "vip", "ticket"],
        "type": ["email", "crm", "messaging"],
        "provider": ["google", "attio", "slack"],
    }
    if parameter in words:
        known = st.sampled_from(words[parameter])
    strange = st.one_of(texts, st.integers().map(str))
    return st.integers(0, 4).flatmap(lambda chance: known if chance else strange)


def query_values(schema: Any) -> st.SearchStrategy[str]:
    return st.one_of(near(schema, {}), texts).map(lambda value: json.dumps(value) if isinstance(value, bool) else str(value))


def queries(name: str) -> st.SearchStrategy[dict[str, str]]:
    named = {each["name"]: query_values(each["schema"]) for each in described(name)["parameters"] if each["in"] == "query"}
    return st.fixed_dictionaries({}, optional={**named, "unknown": texts})


def switch_headers() -> st.SearchStrategy[dict[str, str]]:
    switches = {f"X-Emulator-{name.replace('_', '-')}": st.sampled_from(CHOICES[name]) for name in _SWITCHES}
    turned: st.SearchStrategy[dict[str, str]] = st.fixed_dictionaries({}, optional=switches)
    wrong = {"X-Emulator-Timestamps": "nonsense"}
    return st.integers(0, 15).flatmap(
        lambda chance: st.just({}) if chance < 6 else turned if chance < 15 else st.just(wrong)
    )


def bodies(name: str) -> st.SearchStrategy[bytes | None]:
    spoiled = st.one_of(st.none(), st.binary(max_size=60), anything.map(to_bytes))
    if "requestBody" not in described(name):
        return spoiled
    schema = described(name)["requestBody"]["content"]["application/json"]["schema"]
    fitting = near(schema, _COMPONENTS["schemas"]).map(to_bytes)
    return st.integers(0, 7).flatmap(lambda chance: fitting if chance else spoiled)


def to_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def requests(name: str) -> st.SearchStrategy[Request]:
    values = st.tuples(*map(path_values, routes.BY_NAME[name].params)).map(list)
    return st.builds(Request, values, queries(name), switch_headers(), bodies(name))


_REQUESTS = {route.name: requests(route.name) for route in routes.ALL}


@dataclasses.dataclass
class Workspace:
    """A workspace, and the ids in it by the path parameter that takes them."""

    api: Api
    ids: dict[str, list[str]]
    tokens: dict[bytes, bytes]


async def furnish(api: Api) -> Workspace:
    ada, alder = await api.record(email_addresses=["ada@x.io"]), await api.record("company", name="Alder")
    await api("POST", "/v1/objects", {"name": "Ticket", "slug": "ticket"})
    attribute = await api.attribute("ticket", "size", "number")
    made = await api("POST", "/v1/objects/person/lists", {"name": "VIP", "slug": "vip"})
    member = await api("POST", f"/v1/lists/{made['id']}", {"parent_id": ada["id"]})
    body = {"type": "many_to_many", "entity_definition_1_id": ada["object_id"], "entity_definition_2_id": alder["object_id"]}
    definition = await api("POST", "/v1/relationships", body)
    body = {"definition_id": definition["id"], "entity_1_id": ada["id"], "entity_2_id": alder["id"]}
    relation = await api("POST", f"/v1/records/{ada['id']}/relationships", body)
    task, note = await api("POST", "/v1/tasks", {"title": "x"}), await api("POST", "/v1/notes", {"title": "x"})
    text = await api("POST", "/v1/context/text", {"content": "ada@x.io wants a demo. Ada promised to send it."})
    job = await api("POST", "/v1/context/list/jobs", {"query": "ada"})
    run = await api("POST", "/v1/compounding/trigger", {"job_type": "metrics"}, status=202)
    rule = await api("POST", "/v1/notifications/custom", {"description": "x"})
    token = (await api("POST", "/v1/integrations/crm/attio/connect"))["connect_id"]
    ids = {
        "record_id": [ada["id"], alder["id"], member["id"]],
        "attr_id": [attribute["id"]],
        "rel_id": [relation["id"]],
        "/v1/relationships/{id}": [definition["id"]],
        "/v1/lists/{id}": [made["id"]],
        "task_id": [task["id"]],
        "note_id": [note["id"]],
        "artifact_id": [str(text["artifact_id"])],
        "job_id": [job["job_id"]],
        "job_run_id": [run["job_run_id"]],
        "connect_id": [token],
        "connection_id": [await approve(api, token)],
        "/v1/notifications/custom/{id}": [rule["id"]],
    }
    known = [ada["id"], alder["id"], definition["id"], ada["object_id"], alder["object_id"], made["id"]]
    return Workspace(api, ids, {name.encode(): each.encode() for name, each in zip(ID_TOKENS, known, strict=True)})


async def approve(api: Api, token: str) -> str:
    url = URL(api.url.replace("/api/developers", "/_emulator/connect/") + quote(token, safe=""), encoded=True)
    async with api.session.post(url) as response:
        return str((await response.json())["connection_id"])


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    """A furnished workspace that waits for nobody."""
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    emulator = Emulator(processing_delay=0, switches={"rate_limits": "off", "keepalive": 0.05})
    async with emulator, aiohttp.ClientSession(timeout=timeout) as session:
        yield await furnish(Api(session, emulator.url, emulator.key))


def known_ids(workspace: Workspace, route: routes.Route[Any], parameter: str) -> list[str]:
    place = "/".join(route.path.split("/")[: 5 if "custom" in route.path else 4])
    return workspace.ids[place if parameter == "id" else parameter]


def target(workspace: Workspace, route: routes.Route[Any], request: Request) -> str:
    pieces = list(route.parts)
    for index, (parameter, value) in enumerate(zip(route.params, request.path, strict=True)):
        if isinstance(value, int):
            known = known_ids(workspace, route, parameter)
            value = known[value % len(known)]
        pieces[2 * index + 1] = quoted(value)
    query = "&".join(f"{name}={quoted(value)}" for name, value in request.query.items())
    return "".join(pieces) + (f"?{query}" if query else "")


def quoted(value: str) -> str:
    return quote(value.encode("utf-8", "replace"), safe="")


def filled(workspace: Workspace, body: bytes | None) -> bytes | None:
    """Return a body with ids of the workspace for the tokens in it."""
    for token, number in workspace.tokens.items() if body else ():
        body = body.replace(token, number) if body else body
    return body


@lru_cache(maxsize=1024)
def validator(name: str, status: int, content_type: str) -> Draft202012Validator | None:
    """Return what the document promises of an answer's body."""
    promised = described(name)["responses"].get(str(status))
    assert promised is not None, f"{name}: status {status} is not in the document"
    if "content" not in promised or content_type != "application/json":
        assert content_type in promised.get("content", {"application/octet-stream": {}, "application/json": {}})
        return None
    return Draft202012Validator({**promised["content"][content_type]["schema"], "components": _COMPONENTS})


def check(name: str, status: int, content_type: str, body: bytes) -> None:
    """Check an answer against what the document promises of it."""
    promised = validator(name, status, content_type)
    if promised is not None:
        promised.validate(json.loads(body))


@pytest.mark.parametrize("name", [route.name for route in routes.ALL])
@pytest.mark.timeout(3600 if _THOROUGH else 60)
@given(data=st.data())
@settings(
    max_examples=_EXAMPLES,
    derandomize=not _THOROUGH,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_every_operation_survives(workspace: Workspace, name: str, data: st.DataObject) -> None:
    """No request makes an operation fail or hang, and every answer is as the document describes it."""
    api = workspace.api
    route, request = routes.BY_NAME[name], data.draw(_REQUESTS[name])
    url = URL(api.url + target(workspace, route, request), encoded=True)
    headers = {"Authorization": f"Bearer {api.key}", **request.headers}
    sent = api.session.request(
        route.method, url, data=filled(workspace, request.body), headers=headers, allow_redirects=False
    )
    async with sent as response:
        streamed = response.content_type == "text/event-stream"
        body = await response.content.readany() if streamed else await response.read()
    assert response.status < 500, body
    if "" not in request.path:  # without a segment it is another path
        check(name, response.status, response.content_type, body)
