"""The client as a whole: views, timeouts, hooks, a user's own session, and what a throttled crowd meets."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from nex_async import (
    AuthenticationError,
    ConfigError,
    InvalidRequestError,
    Nex,
    NotFoundError,
    OutcomeUnknownError,
    SessionPool,
    Timeouts,
)
from nex_async.emulator import Emulator
from nex_async.errors import DecodeError
from nex_async.models import Record
from nex_async.models.base import decode

from .harness.canary import KEY
from .harness.raw_server import RawServer, json_reply, serve
from .harness.virtual import Call, Outcome, VirtualWire, reply, run_virtual, virtual_client


async def test_a_view_does_not_close_its_client(nex: Nex) -> None:
    """A view may be used as a context manager; its client lives on."""
    async with nex.with_options(timeout=5) as view:
        await view.objects.list()
    assert len((await nex.objects.list()).items) == 2
    assert view.base_url == nex.base_url


async def test_a_view_of_an_embedded_nex_starts_it() -> None:
    """A view made before the server runs works once it does."""
    nex = Nex.local()
    async with nex, nex.with_options(timeout=3) as view:
        assert view.base_url.startswith("http://127.0.0.1:")
        await view.objects.list()


def test_an_embedded_nex_refuses_arguments_it_does_not_know() -> None:
    """A misspelt argument is an error at once, not when the server starts."""
    with pytest.raises(TypeError, match="bogus"):
        Nex.local(bogus=1)


def test_a_number_changes_the_total_and_nothing_else() -> None:
    """`timeout=10` is another total for the client's own timeouts; more patience than usual holds for silence, too."""
    own = Nex(KEY, base_url="http://127.0.0.1:1", timeout=Timeouts(read=0.5, connect=0.7))
    plan = own.with_options(timeout=10)._sender.settings.attempt_timeout("standard", 10)
    assert (plan.sock_read, plan.sock_connect) == (0.5, 0.7)
    patient = Nex(KEY, base_url="http://127.0.0.1:1").with_options(timeout=120)
    assert patient._sender.settings.attempt_timeout("standard", 120).sock_read == 120


async def _async_hook(details: object) -> None:
    pass


@pytest.mark.parametrize("hook", [_async_hook, "print", 5])
def test_a_hook_that_would_never_run_is_refused(hook: Any) -> None:
    """A coroutine function as a hook would never be awaited: it is refused."""
    with pytest.raises(ConfigError, match="on_request"):
        Nex(KEY, base_url="http://127.0.0.1:1", on_request=hook)


async def test_a_session_that_raises_for_status_changes_no_error(emulator: Emulator) -> None:
    """A user's session may raise for statuses by itself; our errors stay what they are."""
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        async with Nex(KEY, base_url=emulator.url, session=session) as nex:
            with pytest.raises(NotFoundError):
                await nex.tasks.get("70000000000000017")


def test_a_throttled_crowd_gets_through() -> None:
    """A hundred calls at once against a limit that names its time all succeed: waiting as told costs no budget."""
    begun: list[float] = []

    def server(call: Call) -> Outcome:
        begun.append(call.at)
        recent = [moment for moment in begun if moment > call.at - 1.0]
        limited = len(recent) > 30
        answer = reply(429, b"", **{"Retry-After": "1"}) if limited else reply()
        return Outcome(0.01, answer)

    async def crowd() -> int:
        async with virtual_client(VirtualWire(server)) as nex:
            done = await asyncio.gather(*(nex.tasks.get(str(n)) for n in range(100)))
        return len(done)

    assert run_virtual(crowd()) == 100


async def test_an_unknown_outcome_says_what_the_server_said() -> None:
    """A create that met a 500 says so in its own words, status and all."""
    failing = json_reply({"message": "boom in the shard"}, 500)
    async with RawServer([serve(lambda seen: failing)]) as server, Nex(KEY, base_url=server.url) as nex:
        with pytest.raises(OutcomeUnknownError, match=r"HTTP 500: boom in the shard.*tasks\.list"):
            await nex.tasks.create("x")


async def test_a_cut_listing_resumes_without_loss(nex: Nex) -> None:
    """A first page that was cut by `.limit()` resumes at its own start: rows come again, none is lost."""
    for n in range(7):
        await nex.records.create("person", {"name": f"P{n}"})
    everything = {row.id async for row in nex.records.list("person")}
    first = await nex.records.list("person", limit=5).limit(3)
    rest = await nex.records.list("person", limit=5, resume=first.checkpoint).collect()
    assert {row.id for row in first} | {row.id for row in rest} == everything
    pages = [page async for page in nex.records.list("person", limit=2).limit(3).pages()]
    rest = await nex.records.list("person", limit=2, resume=pages[-1].checkpoint).collect()
    assert {row.id for page in pages for row in page} | {row.id for row in rest} == everything


async def test_a_prefetch_that_is_left_goes_on_where_it_was(nex: Nex, emulator: Emulator) -> None:
    """A loop inside a look-ahead may be left and taken up again; a limit bounds what is asked for."""
    for n in range(9):
        await nex.records.create("person", {"name": f"P{n}"})
    seen = []
    async with nex.records.list("person", limit=2).prefetch(2) as rows:
        async for row in rows:
            seen.append(row.id)
            break
        seen += [row.id async for row in rows]
    assert len(seen) == len(set(seen)) == 9
    emulator.requests.clear()
    async with nex.records.list("person", limit=2).limit(2).prefetch(8) as rows:
        assert len([row async for row in rows]) == 2
    assert emulator.requests.count("listRecords") == 1


BAD_ROWS = json_reply({"data": [{"id": "1"}, {"id": []}, {"id": "3"}], "total": 3})


async def test_collect_hands_over_the_good_rows() -> None:
    """Bad rows do not cost the good ones: the error carries them, and skipping returns them."""
    async with (
        RawServer(*[[serve(lambda seen: BAD_ROWS)] for _ in range(2)]) as server,
        Nex(KEY, base_url=server.url) as nex,
    ):
        with pytest.raises(DecodeError) as caught:
            await nex.records.list("person").collect()
        assert [row.id for row in caught.value.rows or []] == ["1", "3"]
        pager = nex.records.list("person", on_bad_row="skip")
        assert [row.id for row in await pager.collect()] == ["1", "3"]
        assert pager.skipped == 1


async def test_a_garbled_page_is_asked_for_once_without_retries() -> None:
    """`retries=0` means one request, with look-ahead too."""
    garbled = json_reply({"data": []}).replace(b'{"data"', b'{"data}')
    async with RawServer(*[[serve(lambda seen: garbled)] for _ in range(3)]) as server, Nex(KEY, base_url=server.url) as nex:
        async with nex.records.list("person", retries=0).prefetch(1) as rows:
            with pytest.raises(DecodeError):
                _ = [row async for row in rows]
        assert len(server.requests) == 1


@pytest.mark.parametrize("wrong", [{"on_bad_row": "rasie"}, {"max_pages": 0}, {"max_pages": None}])
def test_a_way_of_reading_that_does_not_exist_is_refused(wrong: dict[str, Any]) -> None:
    """A misspelt choice is refused, not taken for another."""
    nex = Nex(KEY, base_url="http://127.0.0.1:1")
    with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
        nex.records.list("person", **wrong)


def test_a_record_stays_equal_when_it_is_read() -> None:
    """Reading attributes changes neither equality nor what a record is."""
    one, other = (decode(Record, b'{"id":"1","attributes":{"name":"Ada"}}') for _ in range(2))
    assert one == other
    assert list(one) == ["name"]
    assert one == other
    assert one != decode(Record, b'{"id":"1","attributes":{"name":"Bo"}}')
    assert "Ada" in repr(one)


async def test_a_pool_remembers_so_many_keys(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    """What a pool knows of keys whose clients are gone is bounded; a client in use keeps what it has."""
    monkeypatch.setattr("nex_async.transport.pool._MOST_KEYS", 3)
    async with SessionPool() as pool, Nex(KEY, base_url=emulator.url, pool=pool) as lasting:
        await lasting.objects.list()
        kept = lasting._sender.bind().keys
        for n in range(8):
            async with Nex(f"sk-passing-{n}", base_url=emulator.url, pool=pool) as passing:
                with pytest.raises(AuthenticationError):
                    await passing.objects.list()
        await lasting.objects.list()
        assert len(pool.connections()._keys) == 3
        assert lasting._sender.bind().keys is kept
