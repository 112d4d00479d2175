"""Faults on demand, as a client meets them on the wire."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from nex_async.emulator import Emulator

from .conftest import Api, Clock
from .listening import add, listening

_BROKEN = ("reset", "close", "bad_http", "cut_body")
_SPOILED = ("truncated_gzip", "truncated_json", "garbage")


@pytest.fixture
async def emulator(clock: Clock) -> AsyncIterator[Emulator]:
    async with Emulator(clock=clock, switches={"rate_limits": "off"}) as server:
        yield server


@pytest.fixture
async def api(emulator: Emulator) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(session, emulator.url, emulator.key)


class Raw:
    """One connection, one request, and every byte that comes back."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator

    async def __call__(self, method: str, path: str, body: bytes = b"", *, end: bytes | None = None) -> bytes:
        """Return what comes until the connection ends, or until `end`; a reset raises ConnectionResetError."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.emulator.port)
        try:
            head = f"{method} /api/developers{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.emulator.key}\r\n"
            writer.write(head.encode() + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            return await reader.read(-1) if end is None else await reader.readuntil(end)
        finally:
            writer.transport.abort()

    async def create(self) -> bytes:
        """Create a task."""
        return await self("POST", "/v1/tasks", b'{"title":"Call"}')


@pytest.fixture
def raw(emulator: Emulator) -> Raw:
    return Raw(emulator)


async def _tasks(api: Api) -> int:
    return int((await api("GET", "/v1/tasks"))["total"])


def _split(reply: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = reply.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


async def test_a_status_with_its_words(emulator: Emulator, raw: Raw) -> None:
    """A status comes with the envelope, with a body and headers of one's own, or with a page."""
    emulator.faults.add(kind="status", status=503, retry_after="2.5")
    status, headers, body = _split(await raw.create())
    assert (status, headers["Retry-After"]) == (503, "2.5")
    assert json.loads(body)["code"] == 503
    emulator.faults.add(kind="status", status=418, body="[]", headers={"X-Tea": "pot"})
    status, headers, body = _split(await raw.create())
    assert (status, headers["X-Tea"], headers["Content-Type"], body) == (418, "pot", "text/plain", b"[]")
    emulator.faults.add(kind="status", status=502, headers={"content-type": "text/html"})
    status, _, body = _split(await raw.create())
    assert (status, body[:6]) == (502, b"<html>")


async def test_a_burst_of_429(emulator: Emulator, raw: Raw) -> None:
    """A burst refuses so many requests with Retry-After, and then no more."""
    emulator.faults.add(kind="rate_limit", times=3, retry_after=7)
    replies = [_split(await raw.create()) for _ in range(4)]
    assert [status for status, _, _ in replies] == [429, 429, 429, 200]
    assert {headers["Retry-After"] for _, headers, _ in replies[:3]} == {"7"}


async def test_resets_are_resets(emulator: Emulator, raw: Raw) -> None:
    """A reset is a RST with no byte before it; a close is a FIN; bad HTTP is neither status nor header."""
    for kind in ("reset", "close", "bad_http"):
        emulator.faults.add(kind=kind)
    with pytest.raises(ConnectionResetError):
        await raw.create()
    assert await raw.create() == b""
    assert not (await raw.create()).startswith(b"HTTP/")


async def test_bodies_are_cut_anywhere(emulator: Emulator, raw: Raw) -> None:
    """A body is cut after any number of bytes, by FIN or RST, while its head promises the whole."""
    whole = _split(await raw("GET", "/v1/tasks"))[2]
    for count in range(len(whole)):
        emulator.faults.add(kind="cut_body", bytes=count, ending="fin")
        status, headers, body = _split(await raw("GET", "/v1/tasks"))
        assert (status, headers["Content-Length"], body) == (200, str(len(whole)), whole[:count])
    emulator.faults.add(kind="cut_body", times=2)
    with pytest.raises(ConnectionResetError):
        await raw("GET", "/v1/tasks")
    half = whole[: len(whole) // 2]
    assert (await raw("GET", "/v1/tasks", end=half)).endswith(half)


async def test_spoiled_bodies(emulator: Emulator, raw: Raw) -> None:
    """Cut gzip and JSON have a length that fits, so only their content tells; garbage is the same for the same seed."""
    whole = _split(await raw("GET", "/v1/tasks"))[2]
    for kind in (*_SPOILED, "garbage"):
        emulator.faults.add(kind=kind, route="listTasks")
    status, headers, body = _split(await raw("GET", "/v1/tasks"))
    assert (status, headers["Content-Encoding"], headers["Content-Length"]) == (200, "gzip", str(len(body)))
    unpacker = zlib.decompressobj(31)
    assert whole.startswith(unpacker.decompress(body))
    assert not unpacker.eof
    status, headers, body = _split(await raw("GET", "/v1/tasks"))
    assert (status, headers["Content-Length"], body) == (200, str(len(body)), whole[: len(whole) // 2])
    garbage = [_split(await raw("GET", "/v1/tasks"))[2] for _ in range(2)]
    assert garbage[0] == garbage[1] != whole


@pytest.mark.parametrize("applies", [True, False])
@pytest.mark.parametrize("kind", ["status", "rate_limit", "delay", "late", *_BROKEN, *_SPOILED])
async def test_the_operation_takes_effect_or_not(emulator: Emulator, api: Api, raw: Raw, kind: str, applies: bool) -> None:
    """Whatever becomes of the reply, `apply` says whether the request was carried out; spoiled replies look the same."""
    emulator.faults.add(kind=kind, route="createTask", apply=applies, seconds=0)
    try:
        await raw.create()
    except ConnectionResetError:
        assert kind in _BROKEN
    assert await _tasks(api) == applies
    await raw.create()
    assert await _tasks(api) == applies + 1


async def test_the_default_is_what_would_happen(emulator: Emulator, api: Api, raw: Raw) -> None:
    """Without `apply`, a request that fails before it is carried out has no effect; a lost reply has."""
    for kind, effect in (("status", 0), ("close", 0), ("truncated_json", 1), ("delay", 2)):
        emulator.faults.add(kind=kind, route="createTask", seconds=0)
        await raw.create()
        assert await _tasks(api) == effect


async def test_delays_and_stalls(emulator: Emulator, api: Api, raw: Raw) -> None:
    """A delay answers late what has happened, `late` happens late, a stall never answers; clearing lets all of them go."""
    emulator.faults.add(kind="delay", route="createTask", seconds=0.05)
    start = time.perf_counter()
    assert _split(await raw.create())[0] == 200
    assert time.perf_counter() - start >= 0.05
    kinds = {"delay": 2, "late": 2, "stall": 2, "stall_body": 3}
    for count, (kind, effect) in enumerate(kinds.items(), 2):
        emulator.faults.add(kind=kind, route="createTask", seconds=3600)
        waiting = asyncio.ensure_future(raw.create())
        await emulator.requests.wait_for("createTask", count)
        while await _tasks(api) < effect:
            continue
        assert not waiting.done()
        emulator.faults.clear()
        if kind.startswith("stall"):
            with pytest.raises(ConnectionResetError):
                await waiting
        else:
            assert _split(await waiting)[0] == 200
    assert await _tasks(api) == 4


async def test_closing_waits_for_no_stall(clock: Clock) -> None:
    """A server with stalled requests closes at once."""
    emulator = Emulator(clock=clock)
    await emulator.start()
    raw = Raw(emulator)
    emulator.faults.add(kind="stall", times=None)
    waiting = [asyncio.ensure_future(raw.create()) for _ in range(3)]
    await emulator.requests.wait_for("createTask", 3)
    await asyncio.wait_for(emulator.aclose(), 1)
    for each in waiting:
        with pytest.raises(ConnectionResetError):
            await each


async def test_order_and_counts(emulator: Emulator, raw: Raw) -> None:
    """`after` lets pass, `times` ends it, the first added strikes first, and each counts what it has seen."""
    emulator.faults.add(kind="status", status=500, route="createTask", times=2, after=1)
    emulator.faults.add(kind="status", status=501, route="createTask", times=2, after=2)
    emulator.faults.add(kind="status", status=502, route="getTask", times=None)
    assert [_split(await raw.create())[0] for _ in range(6)] == [200, 500, 500, 501, 501, 200]
    assert [(fault.seen, fault.hits) for fault in emulator.faults] == [(6, 2), (6, 2), (0, 0)]


async def test_chance_repeats(emulator: Emulator, raw: Raw) -> None:
    """A fault by chance strikes the same requests again with the same seed, and others with another."""

    async def run(seed: int) -> list[int]:
        emulator.faults.clear()
        emulator.faults.add(kind="status", times=None, probability=0.5, seed=seed)
        return [_split(await raw("GET", "/v1/tasks"))[0] for _ in range(40)]

    first = await run(7)
    assert set(first) == {200, 500}
    assert await run(7) == first != await run(8)


async def test_a_read_lags_behind_a_write(emulator: Emulator, api: Api, clock: Clock) -> None:
    """What was made less than the given seconds ago is not found; older things and listings are."""
    old = await api("POST", "/v1/tasks", {"title": "Old"})
    clock.now += 10
    emulator.faults.add(kind="read_lag", times=None, seconds=2)
    new = await api("POST", "/v1/tasks", {"title": "New"})
    artifact = await add(api, "A demo.")
    job = await api("POST", "/v1/context/list/jobs", {"query": "all"})
    paths = [f"/v1/tasks/{new['id']}", f"/v1/context/artifacts/{artifact}", f"/v1/context/list/jobs/{job['job_id']}"]
    for path in paths:
        await api("GET", path, status=404)
    await api("GET", f"/v1/tasks/{old['id']}")
    assert await _tasks(api) == 2
    clock.now += 3
    for path in paths:
        await api("GET", path)


async def test_a_stream_is_cut_at_any_byte(emulator: Emulator, api: Api) -> None:
    """A connection ends after so many bytes of the stream: by an orderly end, a FIN or a RST."""
    await add(api, "A demo.")
    headers = {"Authorization": f"Bearer {api.key}"}
    for count in (0, 1, 60, 120, 300):
        for ending in ("eof", "fin", "reset"):
            emulator.faults.add(kind="cut_stream", bytes=count, ending=ending)
            seen, error = b"", None
            async with api.session.get(api.url + "/v1/insights/stream", headers=headers) as response:
                try:
                    while chunk := await response.content.readany():
                        seen += chunk
                except aiohttp.ClientError as caught:
                    error = caught
            assert len(seen) == count
            assert (error is None) is (ending == "eof")


async def test_an_event_is_cut(emulator: Emulator, api: Api) -> None:
    """The next event breaks off for every listener; its insights are stored all the same."""
    async with listening(api) as first, listening(api) as second:
        emulator.faults.add(kind="cut_event", bytes=40, ending="eof")
        await add(api, "A demo.")
        for stream in (first, second):
            rest = await stream.rest()
            assert rest.startswith(b"event: insight.batch.created\ndata: ")
            assert len(rest) == 40
    assert len((await api("GET", "/v1/insights"))["data"]) == 1


async def test_an_event_holds_no_json(emulator: Emulator, api: Api) -> None:
    """An event with half of its JSON is framed well, and the next one is whole."""
    async with listening(api) as stream:
        emulator.faults.add(kind="bad_event")
        await add(api, "A demo.")
        frame = await stream.frame()
        with pytest.raises(json.JSONDecodeError):
            json.loads(frame.partition("data: ")[2])
        await add(api, "They signed.")
        assert await stream.contents(1) == ["They signed."]


async def test_emissions_are_dropped_and_doubled(emulator: Emulator, api: Api) -> None:
    """A batch is never sent, or sent twice; REST has each once."""
    emulator.faults.add(kind="drop_emission")
    emulator.faults.add(kind="duplicate_emission", after=1)
    async with listening(api) as stream:
        for text in ("A demo.", "They signed.", "They left."):
            await add(api, text)
        assert await stream.contents(3) == ["They signed.", "They signed.", "They left."]
    assert len((await api("GET", "/v1/insights"))["data"]) == 3


async def test_keepalives_without_events(emulator: Emulator, api: Api) -> None:
    """A mute connection gets keepalives but no event after the first ones; others get everything."""
    emulator.faults.add(kind="mute", events=1)
    async with listening(api, keepalive="0.05") as mute, listening(api) as other:
        for text in ("A demo.", "They signed."):
            await add(api, text)
        assert await mute.contents(1) == ["A demo."]
        assert await other.contents(2) == ["A demo.", "They signed."]
        assert [await mute.frame() for _ in range(3)] == [": keepalive\n\n"] * 3


async def test_silence(emulator: Emulator, api: Api) -> None:
    """A silent connection sends nothing more, not even keepalives, and stays open until the server ends it."""
    emulator.faults.add(kind="silence", events=1)
    async with listening(api, keepalive="0.05") as silent, listening(api, keepalive="0.05") as other:
        for text in ("A demo.", "They signed."):
            await add(api, text)
        assert await silent.contents(1) == ["A demo."]
        for _ in range(4):
            await other.frame()
        await emulator.restart()
        assert await silent.rest() == b""


async def test_the_stream_before_rest_and_after(emulator: Emulator, api: Api, clock: Clock) -> None:
    """REST can lag behind the stream, by the clock or until the fault is cleared, and the stream behind REST."""

    async def told() -> list[str]:
        return [item["content"] for item in (await api("GET", "/v1/insights"))["data"]]

    emulator.faults.add(kind="rest_lag", seconds=5)
    held = emulator.faults.add(kind="rest_lag", after=1)
    async with listening(api) as stream:
        await add(api, "A demo.")
        await add(api, "They signed.")
        assert await stream.contents(2) == ["A demo.", "They signed."]
        assert await told() == []
        clock.now += 6
        assert await told() == ["A demo."]
        emulator.faults.remove(held.id)
        assert await told() == ["They signed.", "A demo."]
        late = emulator.faults.add(kind="stream_lag")
        await add(api, "They left.")
        await add(api, "They plan.")
        assert (await told())[:2] == ["They plan.", "They left."]
        assert await stream.contents(1) == ["They plan."]
        emulator.faults.remove(late.id)
        assert await stream.contents(1) == ["They left."]


async def test_a_stream_that_does_not_open(emulator: Emulator, api: Api, raw: Raw) -> None:
    """Opening the stream can fail as any request can, and faults of finite replies pass it by."""
    emulator.faults.add(kind="truncated_json", times=None)
    for fault in ({"kind": "status", "status": 503}, {"kind": "reset"}, {"kind": "delay", "seconds": 0}):
        emulator.faults.add(route="streamInsights", **fault)
    assert _split(await raw("GET", "/v1/insights/stream"))[0] == 503
    with pytest.raises(ConnectionResetError):
        await raw("GET", "/v1/insights/stream")
    assert b": connected" in await raw("GET", "/v1/insights/stream", end=b": connected")


@pytest.mark.parametrize("in_file", [True, False])
async def test_a_restart_keeps_data_and_port(tmp_path: Path, in_file: bool) -> None:
    """A restart drops every connection and comes back on the same port with the same data, switches and faults."""
    path = tmp_path / "nex.db" if in_file else ":memory:"
    async with Emulator(path, switches={"keepalive": 0.05}) as emulator, aiohttp.ClientSession() as session:
        api = Api(session, emulator.url, emulator.key)
        task = await api("POST", "/v1/tasks", {"title": "Call"})
        emulator.faults.add(kind="status", route="getTask", status=500)
        url = emulator.url
        async with listening(api) as stream:
            await emulator.restart()
            await stream.rest()
        assert emulator.url == url
        await api("GET", f"/v1/tasks/{task['id']}", status=500)
        assert (await api("GET", f"/v1/tasks/{task['id']}"))["title"] == "Call"
        async with session.post(url.replace("/api/developers", "/_emulator/restart")) as response:
            assert response.status == 202
        while True:
            try:
                assert await _tasks(api) == 1
                break
            except aiohttp.ClientConnectionError:
                continue


_WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "kind"),
    ({"kind": "explosion"}, "kind"),
    ({"kind": "status", "status": "bad"}, "status"),
    ({"kind": "status", "status": 199}, "status"),
    ({"kind": "reset", "route": "getNothing"}, "route"),
    ({"kind": "reset", "route": 7}, "route"),
    ({"kind": "reset", "times": 0}, "times"),
    ({"kind": "reset", "after": -1}, "after"),
    ({"kind": "reset", "probability": 2}, "probability"),
    ({"kind": "reset", "colour": "red"}, "colour"),
    ({"kind": "reset", "self": 1}, "self"),
    ({"kind": "delay"}, "seconds"),
    ({"kind": "delay", "seconds": -1}, "seconds"),
    ({"kind": "delay", "seconds": [2, 1]}, "seconds"),
    ({"kind": "delay", "seconds": [1]}, "seconds"),
    ({"kind": "delay", "seconds": "soon"}, "seconds"),
    ({"kind": "status", "headers": {"a": "b\r\nc: d"}}, "headers"),
    ({"kind": "status", "headers": {"a b": "c"}}, "headers"),
    ({"kind": "status", "retry_after": "1\r\nX: y"}, "retry_after"),
    ({"kind": "cut_body", "ending": "bang"}, "ending"),
    ({"kind": "cut_body", "route": "streamInsights"}, "route"),
    ({"kind": "mute", "route": "getTask"}, "route"),
    ({"kind": "rest_lag", "route": "getTask"}, "route"),
]


@pytest.mark.parametrize(("spec", "word"), _WRONG, ids=str)
async def test_a_malformed_fault_is_refused_by_name(emulator: Emulator, api: Api, spec: dict[str, Any], word: str) -> None:
    """What is wrong with a fault is named: a ValueError in Python, a 400 over HTTP; nothing is added."""
    with pytest.raises(ValueError, match=word):
        emulator.faults.add(**spec)
    async with api.session.post(emulator.url.replace("/api/developers", "/_emulator/faults"), json=spec) as response:
        assert response.status == 400
        assert word in (await response.json())["message"]
    assert len(emulator.faults) == 0


async def test_faults_over_http(emulator: Emulator, api: Api) -> None:
    """Faults are added, listed with their hits, and taken back over HTTP, in the same words."""
    url = emulator.url.replace("/api/developers", "/_emulator/faults")
    spec = {"kind": "status", "route": "getTask", "times": 2, "after": 1, "seconds": [0, 1], "headers": {"A": "b"}}
    async with api.session.post(url, json=spec) as response:
        added = await response.json()
    assert {name: added[name] for name in spec} == spec
    await api("GET", "/v1/tasks/1", status=404)
    await api("GET", "/v1/tasks/1", status=500)
    async with api.session.post(url, json={"kind": "reset"}) as response:
        other = await response.json()
    async with api.session.get(url) as response:
        shown = (await response.json())["faults"]
    assert [(each["id"], each["seen"], each["hits"]) for each in shown] == [(added["id"], 2, 1), (other["id"], 0, 0)]
    async with api.session.delete(f"{url}?id={added['id']}") as response:
        assert [each["id"] for each in (await response.json())["faults"]] == [other["id"]]
    async with api.session.delete(f"{url}?id=99") as response:
        assert response.status == 404
    async with api.session.delete(url) as response:
        assert (await response.json())["faults"] == []
