"""Who gets in, where, and what becomes of requests that make no sense."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator

import aiohttp
import pytest

from nex_async import routes
from nex_async.emulator import Emulator
from nex_async.emulator.operations import OPERATIONS

from .conftest import Api

_CORE = [route for route in routes.ALL if not route.extended]


def _path(route: routes.Route[object]) -> str:
    return "".join(piece if index % 2 == 0 else "7" for index, piece in enumerate(route.parts))


def test_every_operation_is_there() -> None:
    """All 61 operations are carried out: 60 over the store, and the stream."""
    assert set(OPERATIONS) == {route.name for route in routes.ALL} - {"streamInsights"}
    assert len(OPERATIONS) == 60


async def test_the_key_is_asked_for(api: Api) -> None:
    """No key, another scheme or a wrong key is 401, whatever the operation."""
    for route in _CORE:
        await api(route.method, _path(route), status=401, key="sk-wrong")
    for value in ("", "Bearer", "Bearer ", "Basic c2s=", api.key):
        async with api.session.get(api.url + "/v1/objects", headers={"Authorization": value}) as response:
            assert response.status == 401
            assert (await response.json())["code"] == 401


async def test_a_missing_scope_is_403_and_named() -> None:
    """A key without the scope of an operation gets 403 and the name of the scope, whether the operation is built or not."""
    everything = {scope for route in routes.ALL for scope in route.scopes}
    keys = {f"sk-without-{scope}": everything - {scope} for scope in everything}
    async with Emulator(keys=keys) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, "")
        for route in routes.ALL:
            scope = route.scopes[0]
            message = await api(route.method, _path(route), status=403, key=f"sk-without-{scope}")
            assert scope in message


async def test_a_scope_is_enough_for_its_operation() -> None:
    """A key with one scope may do what that scope allows and nothing else."""
    async with Emulator(keys={"sk-reader": ["object.read"]}) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        await api("GET", "/v1/objects")
        await api("POST", "/v1/objects", {"name": "x", "slug": "x"}, status=403)


async def test_unknown_paths_and_methods(api: Api) -> None:
    """An unknown path is 404 and a wrong method 405, both in the envelope."""
    for path in ("/v1/nothing", "/v1", "/v2/objects", "/v1/objects/person/records/more", "/v1//objects", "/v1/records"):
        await api("GET", path, status=404)
    async with api.session.get(api.url.replace("/api/developers", "/elsewhere")) as response:
        assert response.status == 404
        assert (await response.json())["code"] == 404
    for method, path in (("DELETE", "/v1/objects"), ("PATCH", "/v1/tasks"), ("OPTIONS", "/v1/notes")):
        message = await api(method, path, status=405)
        assert "GET" in message


async def test_a_trailing_slash_says_nothing(api: Api) -> None:
    """Both forms of a path answer alike, with no redirect."""
    for path in ("/v1/objects", "/v1/objects/person", "/v1/tasks", "/v1/insights"):
        assert await api("GET", path) == await api("GET", path + "/")


async def test_segments_are_decoded_once(api: Api) -> None:
    """A percent-encoded segment is one parameter, whatever it holds."""
    assert "per/son" in await api("GET", "/v1/objects/per%2Fson", status=404)
    assert (await api("GET", "/v1/objects/p%65rson"))["slug"] == "person"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nonsense",
        b"null",
        b"[]",
        b'"text"',
        b"17",
        b'{"attributes": []}',
        b'{"attributes": null}',
        b'{"attributes": {"name": NaN}}',
        b'{"attributes": {"name": Infinity}}',
        b'{"attributes": {"name": "\\ud800"}}',
        b'{"attributes": {"name": "\\udc00 x"}}',
        b'{"attributes": {"name": "\xed\xa0\x80"}}',
        b'{"attributes": {"name": "x"}} trailing',
        b'{"attributes": {"name": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
        b'{"attributes": {"name": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}}",
        b'{"attributes": {"name": ' + b"9" * 400 + b"}}",
        b'{"attributes": {"name": ' + b"9" * 5000 + b"}}",
        b'{"attributes": {"name": 1e999}}',
        b'{"attributes": {"name": "x", "\\u0000": 1}}',
        b"\xff\xfe\x00",
    ],
    ids=lambda data: data[:40],
)
async def test_hostile_bodies_are_a_bad_request(api: Api, data: bytes) -> None:
    """Whatever a body holds, the answer is a 400 envelope, and the next request is served."""
    await api("POST", "/v1/objects/person", data=data, status=400)
    assert (await api.record())["attributes"] == {"name": "Ada Park"}


async def test_numbers_out_of_range_are_refused(api: Api) -> None:
    """Integers beyond 64 bits are refused by name where a number is due."""
    await api.attribute("company", "employees", "number")
    for number in (2**63, -(2**64), 10**300):
        await api.refused("POST", "/v1/objects/company", {"attributes": {"name": "x", "employees": number}}, "employees")


async def test_wrong_types_are_named(api: Api) -> None:
    """A field of the wrong type is named in the message."""
    await api.refused("POST", "/v1/tasks", {"title": 7}, "title", "str")
    await api.refused("POST", "/v1/tasks", {"title": "x", "entity_ids": ["1", 2]}, "entity_ids[1]")
    await api.refused("POST", "/v1/tasks", {}, "title")
    await api.refused("POST", "/v1/objects/person/records", {"limit": "10"}, "limit")
    await api.refused("POST", "/v1/objects/person/records", {"sort": {"attribute": 1}}, "sort.attribute")


async def test_a_body_over_ten_megabytes_is_413(api: Api) -> None:
    """A body over 10 MB is refused, with a length given and without."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 1_000_000

    for data in (io.BytesIO(b"x" * 11_000_000), chunks()):
        headers = {"Authorization": f"Bearer {api.key}"}
        async with api.session.post(api.url + "/v1/context/text", data=data, headers=headers) as response:
            assert response.status == 413
            assert (await response.json())["code"] == 413


async def test_a_body_that_waits_for_leave_is_answered(api: Api) -> None:
    """Expect: 100-continue is honoured."""
    headers = {"Authorization": f"Bearer {api.key}"}
    body = json.dumps({"title": "Call"}).encode()
    async with api.session.post(api.url + "/v1/tasks", data=body, headers=headers, expect100=True) as response:
        assert response.status == 200
        assert (await response.json())["title"] == "Call"


async def test_hostile_queries_are_answered(api: Api) -> None:
    """Any bytes in a query or path give an envelope or a listing, never a broken connection."""
    for path in ("/v1/tasks?search=%ED%A0%80%00%FF", "/v1/tasks?limit=%00", "/v1/objects/%FF%00", "/v1/notes?entity_id='"):
        headers = {"Authorization": f"Bearer {api.key}"}
        async with api.session.get(api.url + path, headers=headers) as response:
            assert response.status in (200, 400, 404)
            await response.json()


async def test_an_internal_bug_is_a_500_envelope(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in an operation answers 500, is logged, and undoes what the request had written."""
    create = OPERATIONS["createTask"]

    def broken(store: object, call: object) -> str:
        create(store, call)  # type: ignore[arg-type]
        raise ZeroDivisionError

    monkeypatch.setitem(OPERATIONS, "createTask", broken)
    with caplog.at_level(logging.ERROR, "nex_async.emulator"):
        await api("POST", "/v1/tasks", {"title": "x"}, status=500)
    assert "ZeroDivisionError" in caplog.text
    assert (await api("GET", "/v1/tasks"))["total"] == 0


async def test_starting_and_closing() -> None:
    """Starting twice and closing twice, also at once, is fine; a taken port is an OSError and leaves nothing open."""
    emulator = Emulator()
    with pytest.raises(RuntimeError):
        _ = emulator.url
    await emulator.start()
    await emulator.start()
    with pytest.raises(OSError, match="address"):
        await Emulator(port=emulator.port).start()
    assert emulator.url == f"http://127.0.0.1:{emulator.port}/api/developers"
    assert emulator.key == "sk-local"
    await asyncio.gather(emulator.aclose(), emulator.aclose())
    await emulator.aclose()


async def test_closing_with_an_idle_connection_is_quick() -> None:
    """A client that keeps its connection open does not hold up the end."""
    async with aiohttp.ClientSession() as session:
        emulator = Emulator()
        await emulator.start()
        await Api(session, emulator.url, emulator.key)("GET", "/v1/objects")
        await asyncio.wait_for(emulator.aclose(), 1)
