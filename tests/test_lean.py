"""The lean path sends what aiohttp's own session would send, and is used only where it is known to work."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from nex_async import Nex, SessionPool
from nex_async.emulator import Emulator
from nex_async.transport import lean

from .harness.canary import KEY
from .harness.raw_server import RawServer, Seen, json_reply, serve


def taken(nex: Nex) -> bool:
    """Return whether the client's calls take the lean path, as its statistics say."""
    nex._sender.bind()
    return nex.stats.transport == "lean"


async def everything(nex: Nex) -> None:
    """Send a call of each shape: with and without body, with headers that take the place of ours, with strange ids."""
    await nex.tasks.get(1)
    await nex.tasks.list(search="a b&c=d/é", is_completed=True)
    await nex.records.create("person", {"name": "Ada", "note": "é\n\u2028"})
    await nex.records.upsert("person", {"name": "Ada"}, match_on="name", headers={"X-Extra": "1"})
    await nex.records.update(1, {"name": "Bo"}, headers={"Accept": "application/x", "content-type": "text/plain"})
    await nex.tasks.delete("a~b!c d")
    await nex.request("POST", "/v1/anything")
    await nex.tasks.get(2, headers={"User-Agent": "mine", "X-Nex-Source": "other"}, idempotency_key="k")


async def wire(monkeypatch: pytest.MonkeyPatch, *, is_lean: bool) -> list[Seen]:
    """Return what goes over the wire, in one of the two ways."""
    with monkeypatch.context() as patch:
        if not is_lean:
            patch.setattr(lean, "unfit", lambda: "a test says so")
        async with RawServer([serve(lambda seen: json_reply({"id": "1", "data": []}))]) as server:
            async with Nex(KEY, base_url=server.url) as nex:
                assert taken(nex) is is_lean
                await everything(nex)
            return server.requests


async def test_both_ways_send_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Method, target, headers and body of every request are the same, and all go over one connection."""
    ours, theirs = await wire(monkeypatch, is_lean=True), await wire(monkeypatch, is_lean=False)
    assert len(ours) == 8
    for one, other in zip(ours, theirs, strict=True):
        assert (one.method, one.target, one.body) == (other.method, other.target, other.body)
        assert one.headers | {"host": ""} == other.headers | {"host": ""}
        assert one.headers["host"].partition(":")[0] == other.headers["host"].partition(":")[0] == "127.0.0.1"
        assert one.connection == other.connection == 0


async def test_the_aiohttp_at_hand_has_the_shape() -> None:
    """The self-check passes; where it fails, aiohttp has changed, and the path must be looked at."""
    lean.unfit.cache_clear()
    assert lean.unfit() is None


def _other_parameters(self: Any, *, timer: object = None) -> None:
    raise AssertionError("the self-check comes first")


def _other_queue(self: Any) -> None:
    return None


@pytest.mark.parametrize(("name", "other"), [("set_response_params", _other_parameters), ("read", _other_queue)])
async def test_another_shape_is_survived(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, other: Any
) -> None:
    """An aiohttp that has changed is noticed before a call depends on it, and told once; calls take the other way."""
    lean.unfit.cache_clear()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "nex_async.pool"):
        patch.setattr(ResponseHandler, name, other)
        assert lean.unfit() is not None
        assert lean.unfit() is not None
    async with Nex(KEY, base_url=emulator.url) as nex:
        assert not taken(nex)
        assert (await nex.objects.list()).items
    assert len([record for record in caplog.records if "another shape" in record.message]) == 1
    lean.unfit.cache_clear()


async def test_what_the_path_does_not_do_takes_the_other(emulator: Emulator) -> None:
    """A user's own session, and a proxy, take aiohttp's way."""
    async with aiohttp.ClientSession() as session, Nex(KEY, base_url=emulator.url, session=session) as nex:
        assert not taken(nex)
        assert (await nex.objects.list()).items
    async with SessionPool(proxy="http://127.0.0.1:9") as pool, Nex(KEY, base_url=emulator.url, pool=pool) as nex:
        assert not taken(nex)


async def test_a_large_body_is_sent_in_pieces(emulator: Emulator) -> None:
    """A body of megabytes takes aiohttp's way, which writes as the server reads, and arrives."""
    async with Nex(KEY, base_url=emulator.url) as nex:
        made = await nex.notes.create("Long", content="x" * (3 << 20))
        assert len((await nex.notes.get(made.id)).content or "") == 3 << 20
