"""Table H of the fault catalogue: what a server may answer, and what the caller sees of it."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import json
import logging
import random
import subprocess
import sys
import time
import zlib
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from nex_async import Nex, RetryPolicy, SessionPool, errors, routes
from nex_async.errors import (
    APIError,
    AuthenticationError,
    ConflictError,
    DecodeError,
    NexError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RetryBudgetExhausted,
    ServerError,
    TransportError,
)
from nex_async.transport import wire
from nex_async.transport.wire import Reply

from ..harness.canary import KEY
from ..harness.raw_server import (
    NO_WAIT,
    ONCE,
    TASK,
    Peer,
    RawServer,
    Seen,
    answer,
    fin,
    hold,
    json_reply,
    read_request,
    render,
    reset,
    send,
    serve,
)
from ..harness.virtual import Call, MemoryConnector, Outcome, VirtualWire, reply, run_virtual, virtual_client


def client(server: RawServer, **arguments: Any) -> Nex:
    return Nex(KEY, base_url=server.url, **{"retry": NO_WAIT, **arguments})


async def failure(call: Any, kind: type[NexError] = NexError) -> Any:
    with pytest.raises(kind) as caught:
        await call
    return caught.value


CALLS = {
    "read": lambda nex: nex.tasks.get("1"),
    "upsert": lambda nex: nex.records.upsert("person", {"name": "A"}, match_on="name"),
    "state": lambda nex: nex.tasks.update("1", title="y"),
    "create": lambda nex: nex.tasks.create("x"),
    "costly": lambda nex: nex.context.ask("x"),
}
REPEATABLE = ("read", "upsert", "state")


def refusal(status: int, message: str = "no", **headers: str) -> bytes:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return json_reply({"code": status, "message": message}, status, fields)


# ---- statuses -------------------------------------------------------------------------------------------------------

BY_STATUS = {
    400: errors.BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    410: errors.GoneError,
    413: errors.PayloadTooLargeError,
    422: errors.UnprocessableError,
}


@pytest.mark.parametrize("kind", CALLS)
async def test_h01_a_refusal_is_typed_and_final(kind: str) -> None:
    """Every 4xx that is an answer raises its own error after one request; only an upsert's conflict is tried once more."""
    for status in [s for s in range(400, 500) if s not in (408, 425, 429)]:
        async with RawServer([serve(lambda seen, status=status: refusal(status, "said so"))]) as server:
            async with client(server) as nex:
                error = await failure(CALLS[kind](nex), APIError)
        assert type(error) is BY_STATUS.get(status, APIError)
        assert (error.status, error.code, error.message.startswith("said so")) == (status, status, True)
        assert len(server.requests) == (2 if (kind, status) == ("upsert", 409) else 1)


async def test_h02_a_bad_key_is_refused_here_after_three_tries() -> None:
    """Three 401 in a row close the latch: the calls after them fail without a request."""
    async with RawServer([serve(lambda seen: refusal(401))]) as server, client(server) as nex:
        for _ in range(10):
            await failure(nex.tasks.get("1"), AuthenticationError)
    assert len(server.requests) == 3


def test_h02_the_latch_opens_after_a_minute() -> None:
    """A key that works again is let through one minute later; one that does not costs one request a minute."""
    good = False

    def server(call: Call) -> Outcome:
        return Outcome(0.01, reply(200) if good else reply(401))

    async def main() -> None:
        nonlocal good
        network = VirtualWire(server)
        async with virtual_client(network) as nex:
            for _ in range(300):
                await failure(nex.tasks.get("1"), AuthenticationError)
                await asyncio.sleep(1.0)
            assert len(network.calls) == 3 + 4
            good = True
            await asyncio.sleep(60.0)
            await nex.tasks.get("1")
            await nex.tasks.get("1")

    run_virtual(main())


async def test_h03_a_missing_scope_is_named() -> None:
    """403 names the scope that the operation needs."""
    async with RawServer([serve(lambda seen: refusal(403, "Forbidden"))]) as server, client(server) as nex:
        error = await failure(nex.tasks.create("x"), PermissionDeniedError)
    assert error.scopes == ("task.write",)
    assert "task.write" in str(error)
    assert len(server.requests) == 1


async def test_h04_deleting_what_a_lost_reply_already_deleted_succeeds() -> None:
    """A DELETE whose reply was lost and whose retry finds nothing has succeeded."""
    async with RawServer([read_request, fin], [answer(refusal(404))]) as server, client(server) as nex:
        await nex.tasks.delete("1")
    assert len(server.requests) == 2


@pytest.mark.parametrize("first", [refusal(429, Retry_After="0"), refusal(503, Retry_After="0")], ids=["429", "503"])
async def test_h04_a_refused_delete_that_finds_nothing_is_not_found(first: bytes) -> None:
    """After an attempt that certainly did nothing, 404 means there was nothing to delete."""
    async with RawServer([answer(first), answer(refusal(404))]) as server, client(server) as nex:
        error = await failure(nex.tasks.delete("1"), NotFoundError)
    assert len(error.attempts) == 2


FAULTS = (408, 425, 500, 502, 503, 504)


@pytest.mark.parametrize("status", FAULTS)
@pytest.mark.parametrize("kind", CALLS)
async def test_h05_h11_h14_faults(kind: str, status: int) -> None:
    """A fault is repeated where that is harmless; elsewhere the outcome is unknown, and one request was made."""
    async with RawServer([answer(refusal(status)), serve(lambda seen: TASK)]) as server, client(server) as nex:
        if kind in REPEATABLE:
            await CALLS[kind](nex)
            assert len(server.requests) == 2
        else:
            error = await failure(CALLS[kind](nex), OutcomeUnknownError)
            assert isinstance(error.__cause__, APIError)
            assert error.__cause__.status == status
            assert len(server.requests) == len(error.attempts) == 1


async def test_h14_a_server_that_says_it_did_not_act_is_asked_again() -> None:
    """503 with Retry-After is a refusal before anything was done: even a create is repeated."""
    async with RawServer([answer(refusal(503, Retry_After="0")), answer(TASK)]) as server, client(server) as nex:
        assert (await nex.tasks.create("x")).id == "1"
    assert len(server.requests) == 2


# ---- rate limits ----------------------------------------------------------------------------------------------------


def test_h06_retry_after_holds_every_caller_of_the_key() -> None:
    """After a 429 nobody sends before Retry-After has passed, whoever got the 429."""

    def server(call: Call) -> Outcome:
        return Outcome(0.05, reply(429, retry_after="2") if call.number == 20 else reply())

    async def worker(nex: Nex, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(20):
            await asyncio.sleep(chance.random() * 0.2)
            await nex.tasks.get("1")

    async def main() -> VirtualWire:
        network = VirtualWire(server)
        async with virtual_client(network) as nex:
            await asyncio.gather(*[worker(nex, seed) for seed in range(16)])
        return network

    network = run_virtual(main())
    closed = network.calls[19].at + 0.05
    assert [at for at in network.times if closed < at < closed + 2.0] == []
    assert len(network.calls) == 16 * 20 + 1


def http_date(epoch: float) -> str:
    return format_datetime(datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc), usegmt=True)


def waited(outcomes: list[Any], call: str = "read", **arguments: Any) -> list[float]:
    """Return the virtual seconds between the attempts of one call."""

    async def main() -> list[float]:
        network = VirtualWire(outcomes)
        async with virtual_client(network, **arguments) as nex:
            await CALLS[call](nex)
        return [later - earlier for earlier, later in zip(network.times, network.times[1:], strict=False)]

    return run_virtual(main())


@pytest.mark.parametrize("skew", [-3600, 0, 3600])
def test_h07_a_date_counts_from_the_servers_own_clock(skew: int) -> None:
    """Retry-After as a date waits what lies between it and the reply's Date, however wrong our clock is."""
    now = time.time() + skew
    throttled = reply(429, retry_after=http_date(now + 7), date=http_date(now))
    (gap,) = waited([throttled, reply()])
    assert 7.0 <= gap <= 8.2


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_h32_a_server_whose_clock_is_wrong_does_no_harm(skew: int) -> None:
    """A Date that is an hour off, or absent, never makes a plain call fail or wait."""
    assert waited([reply(date=http_date(time.time() + skew))]) == []
    (gap,) = waited([reply(429, retry_after=http_date(time.time() + 9)), reply()])
    assert 7.5 <= gap <= 10.2


NONSENSE = [
    "nan", "inf", "-inf", "Infinity", "-5", "1e999", "1e3", "0x10", "9" * 5000, "\uff19\uff19", "\uff15", "120, 5",
    "5 seconds", "", " ", "+5", "1_000", "5;q=1", "soon", "5.", ".5", "Thu, 01 Jan 1970 00:00:00 GMT",
    "Thu, 32 Foo 2026 99:99:99 GMT",
]  # fmt: skip


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_h08_a_senseless_retry_after_is_ignored(text: str) -> None:
    """What is no time to wait counts as no Retry-After: the ordinary backoff is used."""
    (gap,) = waited([reply(429, retry_after=text), reply()])
    assert 0.5 <= gap <= 1.1


@pytest.mark.parametrize("text", ["121", "3600", "999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_h08_an_absurd_retry_after_is_raised_with_its_value(text: str) -> None:
    """A wait longer than the cap is the caller's decision: raised at once, with `.retry_after`."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with virtual_client(VirtualWire([reply(429, retry_after=text)]), timeout=1e6) as nex:
            started = loop.time()
            error = await failure(nex.tasks.get("1"), RateLimitError)
            assert error.retry_after is not None
            assert error.retry_after > 120
            assert loop.time() - started < 0.1

    run_virtual(main())


def test_h08_a_retry_after_beyond_the_deadline_is_raised_at_once() -> None:
    """No wait is begun that the deadline would end: the server's word is raised instead."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with virtual_client(VirtualWire([reply(429, retry_after="30")]), timeout=20) as nex:
            started = loop.time()
            assert (await failure(nex.tasks.get("1"), RateLimitError)).retry_after == 30.0
            assert loop.time() - started < 0.1

    run_virtual(main())


@given(st.text(max_size=80) | st.from_regex(r"[0-9.,eE+\-]{0,12}"), st.none() | st.text(max_size=40))
@settings(max_examples=500, deadline=None)
def test_h08_any_text_is_a_time_or_nothing(text: str, date: str | None) -> None:
    """Whatever stands in Retry-After and Date, the result is None or a finite number of seconds, never negative."""
    headers = CIMultiDict({"Retry-After": text})
    if date is not None:
        headers["Date"] = date
    seconds = wire.retry_after(headers)
    assert seconds is None or 0.0 <= seconds < 1e12


def test_h09_without_retry_after_the_waits_double_with_jitter() -> None:
    """429 without a header backs off from 1 s, doubling, each wait at least half its ceiling; the limiter slows down."""

    async def main() -> None:
        network = VirtualWire([reply(429)] * 6 + [reply()])
        async with virtual_client(network, retry=RetryPolicy(retries=6), timeout=600) as nex:
            await nex.tasks.get("1")
        gaps = [later - earlier for earlier, later in zip(network.times, network.times[1:], strict=False)]
        # An attempt lasts 0.01 s, and may wait for the limiter's slot, at most 10 s apart.
        for gap, ceiling in zip(gaps, [1, 2, 4, 8, 16, 30], strict=True):
            assert gap >= ceiling / 2
            assert gap <= max(ceiling, 10) + 0.1
        assert network.keys.limits["default"].active

    run_virtual(main())


async def test_h10_a_throttled_create_is_repeated_and_made_once() -> None:
    """429 means refused before processing: a create is sent again, and one thing is made."""
    made = 0

    def handler(seen: Seen) -> bytes:
        nonlocal made
        if len(server.requests) == 1:
            return refusal(429, Retry_After="0")
        made += 1
        return TASK

    async with RawServer([serve(handler)]) as server, client(server) as nex:
        await nex.tasks.create("x")
    assert (made, len(server.requests)) == (1, 2)


# ---- storms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retry_after", [None, "1"])
def test_h13_a_storm_is_not_fed_by_retries(retry_after: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Ten minutes of nothing but 503 under 64 workers: requests stay within 1.10 of the calls plus ten; recovery in 5 s."""
    caplog.set_level(logging.ERROR, "nex_async")  # a line for each of 16 000 attempts, kept by pytest, takes a minute
    healed_at = 1_000.0 + 600.0

    def server(call: Call) -> Outcome:
        refusal = reply(503) if retry_after is None else reply(503, retry_after=retry_after)
        return Outcome(0.05, reply(200) if call.at >= healed_at else refusal)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        network = VirtualWire(server)
        begun = 0
        first_success: dict[int, float] = {}

        async def worker(number: int) -> None:
            nonlocal begun
            chance = random.Random(number)
            while loop.time() < healed_at + 20.0:
                during = loop.time() < healed_at - 20.0
                begun += during
                try:
                    await nex.tasks.get("1")
                except (ServerError, RetryBudgetExhausted):
                    pass
                else:
                    first_success.setdefault(number, loop.time())
                await asyncio.sleep(chance.uniform(2.0, 3.0))

        async with virtual_client(network) as nex:
            await asyncio.gather(*[worker(number) for number in range(64)])
        sent = sum(at < healed_at - 20.0 for at in network.times)
        assert begun > 10_000
        assert sent <= begun * 1.10 + 10
        assert max(first_success.values()) <= healed_at + 5.0

    run_virtual(main())


# ---- bodies of errors -----------------------------------------------------------------------------------------------

HTML = b"<html><head><style>b{}</style><title>502</title></head><body><h1>Bad&nbsp;Gateway</h1>" + b"<p>x</p>" * 500


@pytest.mark.parametrize("status", [502, 504])
async def test_h12_a_gateways_page_is_no_message(status: int) -> None:
    """HTML from a load balancer shows as a short printable text without tags, under the right status."""
    page = render(HTML + "\u202e\x1b[31m".encode(), status, {"Content-Type": "text/html"})
    async with RawServer([serve(lambda seen: page)]) as server, client(server) as nex:
        error = await failure(nex.tasks.get("1"), ServerError)
    assert error.status == status
    assert len(error.message) <= 200
    assert error.message.isprintable()
    assert "<" not in error.message
    assert len(server.requests) == 4


async def test_h15_every_status_has_a_meaning() -> None:
    """All statuses from 200 to 999: success below 300, a typed error from 400 to 599, a protocol error for the rest."""
    status = 0

    def handler(seen: Seen) -> bytes:
        return b"HTTP/1.1 %d X\r\n\r\n" % status if status in (204, 304) else json_reply({"id": "1"}, status)

    async with RawServer([serve(handler)]) as server, client(server, retry=ONCE) as nex:
        # 429 comes last, because after it the client slows down.
        for status in [*range(200, 429), *range(430, 1000), 429]:
            try:
                await nex.request("GET", "/v1/objects")
                seen: Any = "success"
            except APIError as error:
                seen = error.status
            except ProtocolError as error:
                seen = "protocol" if f"{status}" in str(error) else "unnamed"
            except AuthenticationError:
                seen = 401
            assert seen == ("success" if status < 300 else status if 400 <= status < 600 else "protocol")
    assert len(server.requests) == 800


async def test_h15_an_upgrade_nobody_asked_for_is_a_protocol_error() -> None:
    """101 ends in a protocol error, and the connection is not used again."""
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n"
    async with RawServer([answer(upgrade), hold], [answer(TASK)]) as server:
        async with client(server) as nex:
            await failure(nex.tasks.get("1", retries=0), ProtocolError)
            assert (await nex.tasks.get("1")).id == "1"


BODIES = {
    "html": HTML,
    "empty": b"",
    "array": b"[]",
    "null": b"null",
    "string_code": b'{"code":"400","message":"words"}',
    "error_only": b'{"error":"words"}',
    "nested_error": b'{"error":{"message":"words"}}',
    "detail": b'{"detail":"words"}',
    "wrong_types": b'{"code":[1],"message":{"a":1}}',
    "invalid_utf8": b'{"message":"\xff\xfe"}',
    "binary": bytes(range(256)),
    "deep": b"[" * 100_000,
    "not_gzip": None,
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("status", [400, 422, 500])
async def test_h16_no_body_hides_a_status(name: str, status: int) -> None:
    """Whatever an error's body is made of, the error has the right type and status, and a message that can be printed."""
    body = BODIES[name]
    headers = {"Content-Encoding": "gzip"} if body is None else {}
    async with RawServer([answer(render(body if body is not None else b"no gzip", status, headers))]) as server:
        async with client(server, retry=ONCE) as nex:
            error = await failure(nex.tasks.get("1"), APIError)
    assert error.status == status
    assert error.message.isprintable()
    if b"words" in (body or b""):
        assert error.message == "words"


async def test_h16_a_huge_error_body_is_read_no_further_than_needed() -> None:
    """Of a 10 MB error at most 64 KiB are kept, and the status is reported."""
    body = b'{"message":"' + b"x" * 10_000_000 + b'"}'
    async with RawServer([answer(render(body, 400))]) as server, client(server) as nex:
        error = await failure(nex.tasks.get("1"), errors.BadRequestError)
    assert 0 < len(error.body) <= 64 * 1024


CUT = render(b'{"code":400,"mess', 400, length=100)


@pytest.mark.parametrize("end", [fin, reset], ids=["fin", "rst"])
@pytest.mark.parametrize("kind", ["read", "create"])
async def test_h16_an_error_body_that_is_cut_does_not_hide_the_status(kind: str, end: Any) -> None:
    """An error whose body is cut is still that error: a refused create is refused, not of unknown outcome."""

    async def arrive(peer: Peer) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async with RawServer([read_request, send(CUT), arrive, end]) as server, client(server) as nex:
        error = await failure(CALLS[kind](nex), errors.BadRequestError)
    assert error.body.startswith(b'{"code"')
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 429, 503])
def test_h16_an_error_body_that_stalls_does_not_hide_the_status(status: int) -> None:
    """An error whose body does not come is reported within 5 s, by its status."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        connector = MemoryConnector(lambda transport, data: transport.feed(0.1, render(b"{", status, length=100)))
        async with SessionPool(connector_factory=connector) as pool:
            async with Nex(KEY, base_url="http://127.0.0.1:9", pool=pool, retry=ONCE) as nex:
                started = loop.time()
                assert (await failure(nex.tasks.get("1"), APIError)).status == status
                assert loop.time() - started <= 5.2

    run_virtual(main())


@given(st.binary(max_size=300), st.sampled_from([*sorted(BY_STATUS), 402, 418, 429, 500, 503, 599]))
@settings(max_examples=300, deadline=None)
def test_h16_any_bytes_make_a_typed_error(body: bytes, status: int) -> None:
    """Any bytes under an error status make an APIError of that status whose texts can be printed and pickled."""
    error = wire.error_of(routes.GET_TASK, Reply(status, CIMultiDict(), body))
    assert isinstance(error, APIError)
    assert error.status == status
    assert str(error).isprintable()
    error.__reduce__()


async def test_h17_an_error_in_the_clothes_of_a_success_is_an_error() -> None:
    """200 with nothing but `code` and `message` is the error of that code; with other keys it is a success."""
    hidden = json_reply({"code": 403, "message": "no"})
    whole = json_reply({"id": "1", "code": 403, "message": "no"})
    async with RawServer([answer(hidden), answer(hidden), answer(whole)]) as server:
        async with client(server) as nex:
            for call in (nex.tasks.get("1"), nex.search("ada")):
                assert (await failure(call, PermissionDeniedError)).status == 403
            assert (await nex.tasks.get("1")).id == "1"


# ---- bodies of successes --------------------------------------------------------------------------------------------


async def test_h18_an_empty_success() -> None:
    """Nothing where JSON was due is a DecodeError; nothing after a DELETE is success."""
    empty = render(b"")
    async with RawServer([serve(lambda seen: empty)]) as server, client(server) as nex:
        assert await nex.tasks.delete("1") is None
        error = await failure(nex.tasks.get("1"), DecodeError)
    assert error.status == 200
    assert len(server.requests) == 1 + 2  # a read is tried once more


GARBLED = {
    "words": b"oops",
    "truncated": b'{"id":"1","tit',
    "trailing": b'{"id":"1"} extra',
    "nan": b'{"id":"1","priority":NaN}',
    "wrong_shape": b"[]",
    "invalid_utf8": b'{"id":"1","title":"\xff"}',
    "deep_1000": b'{"id":' + b"[" * 1_000,
    "deep_100000": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("name", GARBLED)
async def test_h19_h20_h21_garbled_successes(name: str) -> None:
    """A success that is no proper JSON is a DecodeError, tried once more for a read; the process survives."""
    async with RawServer([serve(lambda seen: render(GARBLED[name]))]) as server, client(server) as nex:
        error = await failure(nex.tasks.get("1"), DecodeError)
    assert (error.status, len(server.requests)) == (200, 2)


async def test_h19_a_garbled_create_is_not_repeated() -> None:
    """A create that was answered with a garbled success is raised as such, and sent once."""
    async with RawServer([answer(render(b"oops", "201 Created"))]) as server, client(server) as nex:
        assert (await failure(nex.tasks.create("x"), DecodeError)).status == 201
    assert len(server.requests) == 1


async def test_h19_a_byte_order_mark_is_passed_over() -> None:
    """A BOM before the JSON changes nothing."""
    async with RawServer([answer(render(b'\xef\xbb\xbf{"id":"1"}'))]) as server, client(server, retry=ONCE) as nex:
        assert (await nex.tasks.get("1")).id == "1"


async def test_h22_what_the_wire_may_add_or_spoil() -> None:
    """An unknown field or enum value passes; a wrong type is a DecodeError that names its path, and is not asked again."""
    strange = json_reply({"id": 12, "title": None, "priority": "cosmic", "new": [1]})
    wrong = json_reply({"id": "1", "title": {"a": 1}})
    async with RawServer([answer(strange), serve(lambda seen: wrong)]) as server, client(server) as nex:
        assert (await nex.tasks.get("1")).id == "12"
        error = await failure(nex.tasks.get("1"), DecodeError)
    assert error.path == "$.title"
    assert b'"a"' in error.raw
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456+00:00"),
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00"),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999+00:00"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999+00:00"),
        ("yesterday", None),
        ("", None),
    ],
)
async def test_h23_timestamps_over_the_wire(text: str, seen: str | None) -> None:
    """No timestamp fails a reply: fractions are cut, a missing zone is UTC, nonsense is None."""
    async with RawServer([answer(json_reply({"id": "1", "created_at": text}))]) as server, client(server) as nex:
        created = (await nex.tasks.get("1")).created_at
    assert (created.isoformat() if created else None) == seen


# ---- bombs ----------------------------------------------------------------------------------------------------------

BOMB_CLIENT = """
import asyncio, json, resource, sys
import nex_async
from nex_async import Nex, RetryPolicy

async def main(url, key):
    async with Nex(key, base_url=url, retry=RetryPolicy(retries=0)) as nex:
        await nex.tasks.get("warm-up")
        before = resource.getrusage(resource.RUSAGE_SELF)
        try:
            await nex.tasks.get("1")
            seen = "success"
        except nex_async.NexError as error:
            seen = type(error).__name__
    after = resource.getrusage(resource.RUSAGE_SELF)
    grown, spent = (after.ru_maxrss - before.ru_maxrss) / 1024, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps([seen, grown, spent]))

resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
asyncio.run(main(*sys.argv[1:]))
"""


async def bombed(*script: Any) -> tuple[str, float]:
    """Return what a client of 512 MB sees of a bomb, which costs it less than 2 s of CPU, and by how many MB it grew."""
    async with RawServer([answer(TASK), read_request, *script]) as server:
        child = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", BOMB_CLIENT, server.url, KEY], capture_output=True, timeout=30
        )
    assert child.returncode == 0, child.stderr.decode()[-2000:]
    seen, grown, spent = json.loads(child.stdout)
    assert spent < 2
    return seen, grown


async def flood(peer: Peer) -> None:
    """Send chunks without end."""
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    while True:
        await peer.send(chunk)


CAP = 32  # MiB, the default of SessionPool
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_h24_a_body_without_end_is_cut_off() -> None:
    """X24: an endless body raises BodyTooLarge at the cap; memory grows by no more than twice the cap."""
    seen, grown = await bombed(send(CHUNKED), flood)
    assert seen == "BodyTooLarge"
    assert grown <= 2 * CAP


def deflate_bomb(megabytes: int) -> bytes:
    """Return gzip that unpacks to so many megabytes of zeros."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = squeeze.compress(b"") + squeeze.flush(zlib.Z_FULL_FLUSH)
    block = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return head + block * megabytes


async def test_h25_a_decompression_bomb_is_defused() -> None:
    """X24: 512 KB that would unpack to 512 MB raise BodyTooLarge; no more than the cap is ever unpacked."""
    bomb = render(deflate_bomb(512), headers={"Content-Encoding": "gzip"})
    assert len(bomb) < 1 << 20
    seen, grown = await bombed(send(bomb))
    assert seen == "BodyTooLarge"
    assert grown <= 2 * CAP


async def test_h26_many_empty_gzip_members_cost_nothing() -> None:
    """20,000 gzip members in one reply are a ProtocolError in less than 50 ms of CPU."""
    members = render(gzip.compress(b"") * 20_000, headers={"Content-Encoding": "gzip"})
    spent = []
    async with RawServer([serve(lambda seen: members)]) as server, client(server, retry=ONCE) as nex:
        for _ in range(3):
            began = time.process_time()
            await failure(nex.tasks.get("1"), ProtocolError)
            spent.append(time.process_time() - began)
    assert min(spent) < 0.05


NESTED = {
    "arrays that are closed": b"[" * 100_000 + b"]" * 100_000,
    "objects in an unknown field": b'{"id":"1","title":"t","strange":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
}


@pytest.mark.parametrize("name", NESTED)
async def test_h21_nesting_100_000_deep(name: str) -> None:
    """A reply nested 100,000 deep is a DecodeError, in a client of 512 MB too, whose process goes on."""
    seen, grown = await bombed(send(render(NESTED[name])))
    assert seen == "DecodeError"
    assert grown <= 2 * CAP


async def test_h26_many_gzip_members_in_a_small_process() -> None:
    """20,000 gzip members, empty or not, are a ProtocolError in a client of 512 MB."""
    for member in (gzip.compress(b""), gzip.compress(b"[1]")):
        seen, grown = await bombed(send(render(member * 20_000, headers={"Content-Encoding": "gzip"})))
        assert seen == "ProtocolError"
        assert grown <= 2 * CAP


# ---- other answers --------------------------------------------------------------------------------------------------

LOCATIONS = [None, "", "/v1/tasks/2", "https://evil.example/steal?x=1", "javascript:alert(1)", "//evil.example", "\\\\x"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", ["read", "create"])
async def test_h27_h28_redirects(kind: str, status: int) -> None:
    """A redirect is never followed, wherever it points: one request, and a ProtocolError that names at most the host."""
    for location in LOCATIONS:
        headers = {} if location is None else {"Location": location or " "}
        async with RawServer([serve(lambda seen, headers=headers: render(b"", status, headers))]) as server:
            async with client(server) as nex:
                error = await failure(CALLS[kind](nex), ProtocolError)
        assert "redirect" in str(error)
        assert "javascript" not in str(error)
        assert "steal" not in str(error)
        assert len(server.requests) == 1


async def test_h29_a_web_page_is_not_the_api() -> None:
    """200 with HTML, as a captive portal sends it, is a DecodeError that asks whether this is the API."""
    page = render(b"<html>Welcome to the hotel</html>", headers={"Content-Type": "text/html; charset=utf-8"})
    async with RawServer([serve(lambda seen: page)]) as server, client(server) as nex:
        error = await failure(nex.tasks.get("1"), DecodeError)
    assert "text/html" in error.message
    assert "Nex API" in error.message


async def test_h30_no_reply_ever_reaches_another_call() -> None:
    """A thousand calls over four connections, many cancelled at a random moment: each result is its own call's."""
    chance = random.Random(30)

    async def handler(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            data = json_reply({"id": seen.target.rpartition("/")[2]})
            cut = chance.randrange(len(data))
            await peer.send(data[:cut])
            await asyncio.sleep(0)
            await peer.send(data[cut:])

    async def fetch(number: int) -> bool:
        return (await nex.tasks.get(number)).id == str(number)

    async with RawServer([handler]) as server, SessionPool(max_connections=4) as pool, client(server, pool=pool) as nex:
        results: list[Any] = []
        for batch in range(50):
            calls = [asyncio.ensure_future(fetch(batch * 20 + n)) for n in range(20)]
            for call in calls:
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
                if chance.random() < 0.5:
                    call.cancel()
            results += await asyncio.gather(*calls, return_exceptions=True)
    assert {result if isinstance(result, bool) else type(result) for result in results} == {True, asyncio.CancelledError}
    assert results.count(True) > 200


async def test_h31_a_partial_search_says_so() -> None:
    """A search that could not look everywhere is marked, and names where."""
    found = json_reply({"results": {"person": [{"id": "1"}]}, "errored_search_types": ["company"]})
    async with RawServer([answer(found), answer(json_reply({"results": {}}))]) as server, client(server) as nex:
        hits = await nex.search("ada")
        assert (hits.partial, hits.errored_search_types) == (True, ["company"])
        assert not (await nex.search("ada")).partial


async def test_no_failure_carries_anything_of_the_transport() -> None:
    """An error of the wire shows no exception of the HTTP library, which would hold the request's headers."""
    async with RawServer([read_request, fin]) as server, client(server, retry=ONCE) as nex:
        error = await failure(nex.tasks.get("1"), TransportError)
    assert error.__cause__ is None
    assert error.__suppress_context__
