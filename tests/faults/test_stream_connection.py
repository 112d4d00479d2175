"""Table S of the fault catalogue, as far as one connection goes: what a stream meets, and what its receiver gets of it."""

from __future__ import annotations

import asyncio
import gzip
import logging
import random
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from nex_async.errors import (
    APIError,
    ConnectError,
    ConnectionLost,
    DecodeError,
    DNSError,
    NexError,
    ProxyError,
    Timeout,
    TLSError,
)
from nex_async.feeds.connection import StreamConnection, StreamPolicy
from nex_async.feeds.sse import ServerSentEvent, SSEDecoder
from nex_async.routes import STREAM_INSIGHTS
from nex_async.transport.wire import Reply, error_of

from ..harness.raw_server import Peer, RawServer, Step, hold, read_request, reset, send, signal, wait
from ..harness.virtual import MemoryConnector, MemoryTransport, counted, run_virtual

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LASTING = StreamPolicy(age=None)
SEEDS = range(20)


def event(text: object, name: str = "message") -> bytes:
    return f"event: {name}\ndata: {text}\n\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def refusal(status: int, **headers: str) -> NexError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_of(STREAM_INSIGHTS, Reply(status, named, b""))  # type: ignore[arg-type]


class Record:
    """A receiver that remembers everything, and takes no more than it is allowed to."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.arrived: list[float] = []
        self.connected_at: list[float] = []
        self.attempts: list[int] = []
        self.losses: list[tuple[float, NexError | None, int, float]] = []
        self.may = asyncio.Event()
        self.may.set()
        self.waits = asyncio.Event()
        self.stands = asyncio.Event()
        self.told = asyncio.Event()

    @property
    def delays(self) -> list[float]:
        return [delay for _, _, _, delay in self.losses]

    def connected(self, headers: Mapping[str, str], attempts: int) -> None:
        self.connected_at.append(asyncio.get_running_loop().time())
        self.attempts.append(attempts)
        self.stands.set()

    def received(self, events: list[ServerSentEvent], decoder: SSEDecoder) -> None:
        self.events += [one.data.decode() for one in events]
        self.arrived += [asyncio.get_running_loop().time()] * len(events)

    def lost(self, error: NexError | None, attempt: int, delay: float) -> None:
        self.losses.append((asyncio.get_running_loop().time(), error, attempt, delay))
        self.told.set()

    async def room(self) -> None:
        if not self.may.is_set():
            self.waits.set()
        await self.may.wait()


# ---- a world of its own: real aiohttp, a virtual clock, no sockets --------------------------------------------------

Script = Callable[[MemoryTransport], None]


def fin(transport: MemoryTransport) -> None:
    if not transport.is_closing():
        transport.protocol.eof_received()
        transport.close()


def rst(transport: MemoryTransport) -> None:
    if not transport.is_closing():
        transport._closing = True
        transport.protocol.connection_lost(ConnectionResetError("reset"))


def says(*pieces: tuple[float, bytes | Script], head: bytes = HEAD) -> Script:
    """Return a server that sends its head at once, and each piece so many seconds later."""

    def script(transport: MemoryTransport) -> None:
        transport.feed(0.0, head)
        for after, what in pieces:
            if isinstance(what, bytes):
                transport.feed(after, what)
            else:
                asyncio.get_running_loop().call_later(after, what, transport)

    return script


class World:
    """Serves attempt n with `scripts[n]`, the last one for ever: a script, an error that is raised, or None for a 204."""

    def __init__(
        self,
        *scripts: Script | NexError | None,
        policy: StreamPolicy = LASTING,
        latency: float = 0.0,
        decoder: Callable[[], SSEDecoder] = SSEDecoder,
    ) -> None:
        self.scripts = scripts
        self.policy = policy
        self.latency = latency
        self.decoder = decoder
        self.asked: list[float] = []
        self.extra: list[Mapping[str, str]] = []
        self.transports: list[MemoryTransport] = []
        self.ended: list[float] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[World]:
        self.record = Record()
        self.connection = StreamConnection(self._attempt, self.record, self.policy, self.decoder)
        async with aiohttp.ClientSession(connector=MemoryConnector(self._respond, self.latency)()) as self.session:
            yield self

    async def _attempt(self, extra: Mapping[str, str]) -> aiohttp.ClientResponse | None:
        self.asked.append(asyncio.get_running_loop().time())
        self.extra.append(extra)
        self._script = script = self.scripts[min(len(self.asked), len(self.scripts)) - 1]
        if script is None:
            return None
        if isinstance(script, NexError):
            raise script
        return await self.session.get(
            "http://server/", headers=extra, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        )

    def _respond(self, transport: MemoryTransport, request: bytes) -> None:
        if transport not in self.transports:
            self.transports.append(transport)
            assert callable(self._script)
            self._script(transport)

    async def live(self, seconds: float) -> None:
        """Keep the stream for so many seconds, then cancel."""
        task = asyncio.ensure_future(self.connection.run())
        await asyncio.wait([task], timeout=seconds)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


def lived(world: World, seconds: float, during: Callable[[World], None] | None = None) -> Record:
    """Return what the receiver got in so many virtual seconds, which began at 1000."""

    async def main() -> Record:
        async with world.open():
            if during is not None:
                during(world)
            try:
                await world.live(seconds)
            finally:
                assert all(transport.is_closing() for transport in world.transports)
        return world.record

    return run_virtual(main())


def most_in(times: list[float], seconds: float) -> int:
    """Return how many of the times lie within any window of so many seconds."""
    return max(sum(1 for at in times if start <= at < start + seconds) for start in times)


# ---- S7, S8 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "least"), [("0", 0.5), ("2500", 2.5), ("60001", 60.0), ("99999999999", 60.0)])
def test_s08_retry_is_obeyed_within_bounds(asked: str, least: float) -> None:
    """S8: what `retry:` asks for is the least wait, brought into 0.5 to 60 seconds, and stays in force."""
    for seed in SEEDS:
        random.seed(seed)
        world = World(says((1, f"retry: {asked}\n\n".encode()), (2, fin)), says((1, fin)))
        delays = lived(world, 400.0).delays[:2]
        assert least <= delays[0] <= max(1.0, least * 1.1)
        assert least <= delays[1] <= max(2.0, least * 1.1)


@pytest.mark.parametrize("asked", ["abc", "-60000", "60000.5", "6e4", ""])
def test_s08_a_retry_that_is_no_number_is_ignored(asked: str) -> None:
    """S8: digits only; anything else changes nothing."""
    world = World(says((1, f"retry: {asked}\n\n".encode()), (2, fin)))
    assert lived(world, 5.0).delays[0] <= 1.0


def test_s07_the_last_id_is_told_to_the_next_connection() -> None:
    """S7: a reconnect and a rotation carry the last complete id; it stays in force, until an empty one resets it."""
    seen: list[list[str]] = []

    class Noting(SSEDecoder):
        def feed(self, data: bytes) -> list[ServerSentEvent]:
            found = super().feed(data)
            seen[-1] += [one.id for one in found]
            return found

    def decoder() -> SSEDecoder:
        seen.append([])
        return Noting()

    world = World(
        says((1, b"id: a\ndata: 1\n\nid: never\ndata: 2\n"), (2, fin)),
        says((1, b"data: 3\n\nid: b\ndata: 4\n\n")),
        says((1, b"id\ndata: 5\n\n"), (2, fin)),
        says(),
        decoder=decoder,
    )
    lived(world, 30.0, lambda world: asyncio.get_running_loop().call_later(10.0, world.connection.rotate) and None)
    assert [dict(extra) for extra in world.extra] == [{}, {"Last-Event-ID": "a"}, {"Last-Event-ID": "b"}, {}]
    assert [ids for ids in seen if ids] == [["a"], ["a", "b"], [""]]


# ---- S17 to S22: what an attempt meets ------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [(), (says((1, fin)),)], ids=["first", "later"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 422])
def test_s19_an_answer_that_is_final_ends_the_stream(status: int, before: tuple[Script, ...]) -> None:
    """S19: what no other attempt can mend is raised, at the first connection and at a later one."""
    world = World(*before, refusal(status))
    with pytest.raises(APIError) as caught:
        lived(world, 3600.0)
    assert (caught.value.status, len(world.asked)) == (status, len(before) + 1)


def test_s17_what_is_no_stream_ends_it() -> None:
    """S17: a reply that is not an event stream is raised, and not asked for again."""
    world = World(DecodeError("the reply is not an event stream", status=200))
    with pytest.raises(DecodeError):
        lived(world, 3600.0)
    assert len(world.asked) == 1


@pytest.mark.parametrize("before", [(), (says((1, fin)),)], ids=["first", "later"])
def test_s18_no_content_ends_the_stream_quietly(before: tuple[Script, ...]) -> None:
    """S18: with a 204 the server says stop: `run` returns, and asks no more."""
    world = World(*before, None)
    lived(world, 3600.0)
    assert len(world.asked) == len(before) + 1


@pytest.mark.parametrize(("seconds", "most"), [(45, 50.0), (10_000_000, 3961.0)])
def test_s20_a_429_is_obeyed(seconds: int, most: float) -> None:
    """S20: the next attempt comes after the time the server names, and never later than about an hour."""
    world = World(refusal(429, Retry_After=str(seconds)), says())
    record = lived(world, 5000.0)
    assert min(seconds, 3600) <= world.asked[1] - world.asked[0] <= most
    assert record.attempts[0] == 2


def test_s20_attempts_are_bounded() -> None:
    """S20: whatever the backoff, attempts come at most once a second, and twenty times a minute."""
    world = World(ConnectError("refused", sent="no"), policy=StreamPolicy(backoff=0.0, most_backoff=0.0))
    lived(world, 600.0)
    gaps = [after - before for before, after in zip(world.asked, world.asked[1:], strict=False)]
    assert min(gaps) >= 0.999
    assert most_in(world.asked, 59.999) == 20
    assert len(world.asked) >= 200


PASSING: list[NexError] = [
    *(refusal(status) for status in (408, 425, 429, 500, 502, 503, 504)),
    ConnectError("refused", sent="no"),
    DNSError("no such host", sent="no"),
    ProxyError("refused", sent="no"),
    TLSError("the handshake failed", sent="no"),
    ConnectionLost("reset", sent="maybe"),
    Timeout("silent", sent="maybe", phase="headers"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: f"{type(error).__name__}{getattr(error, 'status', '')}")
def test_s21_what_may_pass_is_tried_again(error: NexError) -> None:
    """S21: the waits grow from one second to thirty, with jitter, and go on for ever."""
    first = set()
    for seed in SEEDS:
        random.seed(seed)
        world = World(error)
        record = lived(world, 600.0)
        first.add(record.delays[0])
        assert 0.0 <= record.delays[0] <= 1.0
        for number, delay in enumerate(record.delays[1:], 1):
            ceiling = min(30.0, 2.0**number)
            assert ceiling * 0.5 <= delay <= ceiling
        assert [found for _, found, _, _ in record.losses] == [error] * len(record.losses)
        assert [attempt for _, _, attempt, _ in record.losses] == list(range(1, len(record.losses) + 1))
        assert len(record.losses) > 15
    assert len(first) == len(SEEDS)


def test_s21_a_bad_certificate_is_final_until_a_good_one_was_seen() -> None:
    """S21: a certificate that was never good is raised; one that was good will be renewed."""
    bad = TLSError("the certificate was not accepted", sent="no", certificate=True)
    world = World(bad)
    with pytest.raises(TLSError):
        lived(world, 600.0)
    assert len(world.asked) == 1
    world = World(says((1, fin)), bad, bad, says())
    assert len(lived(world, 60.0).connected_at) == 2


@pytest.mark.parametrize(("health", "forgiven"), [(55.0, False), (65.0, True)])
def test_s21_only_health_resets_the_backoff(health: float, forgiven: bool) -> None:
    """S21: a connection that stood for a minute wipes the slate; one that did not, does not."""
    failing = [ConnectError("refused", sent="no")] * 6
    random.seed(1)
    record = lived(World(*failing, says((health - 40.0, b": x\n\n"), (health, fin)), None), 600.0)
    assert (record.losses[6][2] == 1, record.delays[6] <= 1.0) == (forgiven, forgiven)
    assert record.attempts == [7]


@pytest.mark.parametrize("ending", [fin, rst])
def test_s22_a_crash_loop_is_met_with_patience(ending: Script) -> None:
    """S22: a server that accepts and closes is asked at most three times a minute once five minutes have gone by."""
    for seed in SEEDS:
        random.seed(seed)
        world = World(says((0.05, event("x")), (0.1, ending)))
        record = lived(world, 1800.0)
        late = [at for at in world.asked if at >= 1300.0]
        assert most_in(late, 60.0) <= 3
        assert len(late) >= 45
        assert len(record.events) >= len(world.asked) - 1


# ---- S9, S23: how a stream ends -------------------------------------------------------------------------------------

STREAM = (
    b": connected workspace_id=7 token_id=9\n\n"
    b'event: insight.replay\ndata: {"content": "caf\xc3\xa9"}\n\n'
    b'event: insight.batch.created\nid: 8\ndata: {"a": 1,\ndata: "b": 2}\n\n'
    b": keepalive\n\n"
    b"data: x\r\ndata\r\n\r\n"
    b"retry: 900\ndata: y\n\ndata: cut"
)


def whole(data: bytes) -> list[str]:
    return [one.data.decode() for one in SSEDecoder().feed(data)]


async def cut_off(peer: Peer) -> None:
    peer.writer.close()


ENDINGS: dict[str, tuple[bytes, Step]] = {
    "FIN": (HEAD, cut_off),
    "FIN inside chunks": (CHUNKED, cut_off),
    "RST": (HEAD, reset),
    "RST inside chunks": (CHUNKED, reset),
    "chunk error": (CHUNKED, hold),
}


@asynccontextmanager
async def real(url: str, policy: StreamPolicy = LASTING) -> AsyncIterator[tuple[Record, asyncio.Task[None]]]:
    """A connection over real sockets while the block lasts."""
    async with aiohttp.ClientSession() as session:

        async def opener(extra: Mapping[str, str]) -> aiohttp.ClientResponse:
            try:
                return await session.get(url, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None))
            except aiohttp.ClientError:
                raise ConnectError("refused", sent="no") from None

        record = Record()
        task = asyncio.ensure_future(StreamConnection(opener, record, policy).run())
        try:
            yield record, task
        finally:
            task.cancel()
            await asyncio.wait([task])


# With a chunk error in its first segment a reply is no reply at all, and nothing ever stood.
ENDED = [
    (ending, when) for ending in ENDINGS for when in ("at once", "standing") if (ending, when) != ("chunk error", "at once")
]


@pytest.mark.parametrize(("ending", "when"), ENDED)
async def test_s23_whatever_ends_a_stream_at_whatever_byte(ending: str, when: str) -> None:
    """S9, S23: complete events are delivered, the cut one is not, and another attempt follows, wherever the end comes."""
    head, end = ENDINGS[ending]
    stands = [asyncio.Event() for _ in range(len(STREAM) + 1)]
    scripts: list[list[Step]] = []
    for cut, stood in enumerate(stands):
        part = STREAM[:cut]
        framed = chunk(part) if part and head is CHUNKED else part
        if when == "at once":
            scripts.append([read_request, send(head + framed), end])
        else:
            framed += b"zz no chunk\r\n" if end is hold else b""
            scripts.append([read_request, send(head), wait(stood), send(framed), end])
    async with RawServer(*scripts) as server:
        for cut, stood in enumerate(stands):
            async with real(server.url) as (record, _):
                await record.stands.wait()
                stood.set()
                await record.told.wait()
            [(_, error, attempt, delay)] = record.losses
            assert record.events == whole(STREAM[:cut]), (cut, ending)
            assert (attempt, delay <= 1.1) == (1, True)
            assert error is None if head is HEAD else type(error) is ConnectionLost


@pytest.mark.parametrize("ending", [fin, rst])
@pytest.mark.parametrize("head", [HEAD, CHUNKED], ids=["plain", "chunked"])
def test_s23_what_came_before_a_break_is_delivered_to_a_slow_receiver(ending: Script, head: bytes) -> None:
    """S23: events that wait in memory while the connection breaks are delivered once there is room."""
    numbers = [chunk(event(n)) if head is CHUNKED else event(n) for n in range(10)]
    world = World(says(*((1.0 + n, data) for n, data in enumerate(numbers)), (20.0, ending), head=head), says())

    def during(world: World) -> None:
        world.record.may.clear()
        asyncio.get_running_loop().call_later(60.0, world.record.may.set)

    record = lived(world, 200.0, during)
    assert record.events == [str(n) for n in range(10)]
    assert record.losses[0][0] == 1060.0
    assert record.connected_at[1] < 1065.0


# ---- S24: a dead peer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [b"", b": keepalive\n\n", b"x"], ids=["nothing", "comment", "a byte"])
def test_s24_a_dead_peer_is_noticed(last: bytes) -> None:
    """S24: 75 seconds after the last byte, and never before, the stream is given up and opened anew."""
    world = World(says((50.0, b": x\n\n"), *([(100.0, last)] if last else []), head=HEAD), says((1, fin)))
    record = lived(world, 200.0)
    at, error, attempt, _ = record.losses[0]
    assert isinstance(error, Timeout)
    assert 1000.0 + (100.0 if last else 50.0) + 75.0 <= at <= 1000.0 + (100.0 if last else 50.0) + 76.0
    assert attempt == 1


def test_s24_keepalives_keep_it_alive() -> None:
    """S24: a stream that brings a comment every 70 seconds stands for ten hours."""
    world = World(says(*((70.0 * n, b": keepalive\n\n") for n in range(1, 515))))
    record = lived(world, 36_000.0)
    assert (record.losses, len(world.asked)) == ([], 1)


@pytest.mark.parametrize("first", ["reads", "timers"])
@pytest.mark.parametrize(("begins", "seconds"), [(70.0, 10.0), (2.0, 80.0), (1.0, 75.5), (0.1, 75.1)])
def test_s24_a_blocked_event_loop_raises_no_alarm(begins: float, seconds: float, first: str) -> None:
    """S24, R12: what lies in the socket when the loop comes back to life is read before anybody judges."""
    ends = begins + seconds

    def during(world: World) -> None:
        loop: Any = asyncio.get_running_loop()

        def block() -> None:
            loop._clock.now += seconds

        loop.call_at(1000.0 + begins, block)

    # Both are due when the loop comes back; which of them it looks at first depends on the loop.
    read_at = begins + seconds * 0.4 if first == "reads" else ends + 0.1
    world = World(says((read_at, event("x")), *((ends + 30.0 * n, b": keepalive\n\n") for n in range(1, 10))))
    record = lived(world, ends + 250.0, during)
    assert (record.losses, record.events) == ([], ["x"])


@pytest.mark.parametrize("until", [70.0, 75.9])
def test_s24_our_own_waiting_is_no_silence(until: float) -> None:
    """S24: a wait for room of any length counts as our silence, not as the server's."""

    def during(world: World) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.5, world.record.may.clear)
        loop.call_later(until, world.record.may.set)

    world = World(says((1.0, event("x")), (80.0, event("y")), (140.0, event("z"))))
    record = lived(world, 200.0, during)
    assert (record.losses, record.events) == ([], ["x", "y", "z"])


# ---- S36, S37: what stands between ----------------------------------------------------------------------------------


def compressed(encoding: str) -> bytes:
    return HEAD.replace(b"\r\n\r\n", f"\r\nContent-Encoding: {encoding}\r\n\r\n".encode())


def flushed(window: int) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=window)
    for number in range(5):
        yield packer.compress(event(number)) + packer.flush(zlib.Z_SYNC_FLUSH)


PACKED = {
    "gzip": ("gzip", lambda: flushed(31)),
    "x-gzip": ("X-GZIP", lambda: flushed(31)),
    "deflate": ("deflate", lambda: flushed(15)),
    "members": ("gzip", lambda: (gzip.compress(event(number)) for number in range(5))),
}


@pytest.mark.parametrize("kind", PACKED)
def test_s36_a_compressed_stream_is_read_as_it_comes(kind: str) -> None:
    """S36: each event arrives when its bytes do, though nobody asked for compression; also in members of their own."""
    encoding, parts = PACKED[kind]
    record = lived(World(says(*((10.0 + n, part) for n, part in enumerate(parts())), head=compressed(encoding))), 50.0)
    assert record.events == [str(n) for n in range(5)]
    assert record.arrived == [1010.0 + n for n in range(5)]


def test_s36_a_small_stream_may_hold_much() -> None:
    """S36: what a few compressed bytes hold is unpacked piece by piece, and to the last byte."""
    sizes: list[int] = []

    class Measured(SSEDecoder):
        def feed(self, data: bytes) -> list[ServerSentEvent]:
            sizes.append(len(data))
            return super().feed(data)

    frame = b"data: \n\n"
    packer = zlib.compressobj(wbits=31)
    for size in range((1 << 20) - 300, (1 << 20) + 300, 31):
        body = b": " + b"x" * (size - 2 - len(frame) - 2) + b"\n\n" + frame
        data = zlib.compressobj(9, wbits=31)
        packed = data.compress(body) + data.flush(zlib.Z_SYNC_FLUSH)
        world = World(says((1.0, packed), head=compressed("gzip")), decoder=Measured)
        assert lived(world, 5.0).events == [""], size
    packed = packer.compress(b": " + b"x" * (64 << 20)) + packer.compress(b"\n\ndata: end\n\n") + packer.flush()
    world = World(says((1.0, packed), head=compressed("gzip")), decoder=Measured)
    assert lived(world, 5.0).events == ["end"]
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "nonsense"])
def test_s36_an_unknown_compression_is_refused(encoding: str) -> None:
    """S36: what cannot be unpacked is raised at once, and the connection is closed; nothing stalls."""
    world = World(says((1.0, b"..."), head=compressed(encoding)))
    with pytest.raises(DecodeError):
        lived(world, 3600.0)
    assert [transport.is_closing() for transport in world.transports] == [True]


def test_s36_a_damaged_compression_is_a_lost_connection() -> None:
    """S36: bytes that are not what the header says end the connection, and another follows."""
    world = World(says((1.0, gzip.compress(event(1)) + b"garbage"), head=compressed("gzip")), says((1.0, event(2))))
    record = lived(world, 30.0)
    assert [type(error) for _, error, _, _ in record.losses] == [ConnectionLost]
    assert record.events == ["1", "2"]


@pytest.mark.parametrize(("after", "warnings"), [(60.0, 1), (9.0, 0)])
def test_s37_a_buffering_proxy_is_borne_and_named(after: float, warnings: int, caplog: pytest.LogCaptureFixture) -> None:
    """S37: nothing for a minute, then everything: all of it arrives, and a hint is logged once the first byte took 10 s."""
    pieces = [(after, b"".join(event(n) for n in range(100))), (after + 20, event("late")), (after + 70, b": x\n\n")]
    with caplog.at_level(logging.WARNING, "nex_async.feeds"):
        record = lived(World(says(*pieces)), 140.0)
    assert (len(record.events), record.losses) == (101, [])
    assert len([one for one in caplog.records if "first byte" in one.message]) == warnings


# ---- S12: a slow receiver -------------------------------------------------------------------------------------------


async def test_s12_no_room_stops_the_server() -> None:
    """S12: while the receiver has no room nothing is read, the server's send stands still, and no alarm goes off."""
    total, sent = 2_000, 0
    frame = "x" * 20_000
    policy = StreamPolicy(silence=0.3, age=None)
    stalled, done = asyncio.Event(), asyncio.Event()

    async def flood(peer: Peer) -> None:
        nonlocal sent
        for number in range(total):
            peer.writer.write(event(f"{number} {frame}"))
            drain = asyncio.ensure_future(peer.writer.drain())
            # Several times the silence that a stream with room would be given up after.
            if not (await asyncio.wait([drain], timeout=policy.silence * 4))[0]:
                stalled.set()
            await drain
            sent += 1
        await peer.send(event("end"))

    async with RawServer([read_request, send(HEAD), flood, signal(done), hold]) as server:
        async with real(server.url, policy) as (record, task):
            record.may.clear()
            await stalled.wait()
            held = sent
            assert held < total // 2
            assert (record.losses, len(record.events) < total // 10) == ([], True)
            record.may.set()
            await done.wait()
            while record.events[-1] != "end":
                await asyncio.sleep(0)
            assert (record.losses, task.done(), server.connections) == ([], False, 1)
    assert [int(one.split()[0]) for one in record.events[:-1]] == list(range(total))


# ---- S38: rotation --------------------------------------------------------------------------------------------------


class Broadcast:
    """A server that sends a number every second to whoever is connected, and takes half a second to deliver it."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.listening: list[MemoryTransport] = []
        self.life: dict[MemoryTransport, list[float]] = {}

    def script(self, transport: MemoryTransport) -> None:
        transport.feed(0.0, HEAD)
        self.listening.append(transport)
        self.life[transport] = [asyncio.get_running_loop().time()]

    def run(self, world: World) -> None:
        loop = asyncio.get_running_loop()
        for transport in [one for one in self.listening if one.is_closing()]:
            self.listening.remove(transport)
            self.life[transport].append(loop.time())
        number = len(self.sent)
        for transport in self.listening:
            transport.feed(0.5, event(number))
        if self.listening:
            self.sent.append(number)
        loop.call_later(1.0, self.run, world)


@pytest.mark.parametrize("seed", range(3))
def test_s38_an_old_connection_is_replaced_without_a_hole(seed: int) -> None:
    """S38: at an age of 30 to 60 minutes a new stream is opened, and only then the old one closed: nothing is missed."""
    random.seed(seed)
    server = Broadcast()
    world = World(server.script, policy=StreamPolicy(), latency=0.2)
    record = lived(world, 6 * 3600.0, server.run)
    received = {int(one) for one in record.events}
    assert set(server.sent[:-1]) <= received
    assert (record.losses, record.attempts) == ([], [1] * len(record.attempts))
    ages = [ended - began for began, ended in (times for times in server.life.values() if len(times) == 2)]
    assert len(ages) >= 5
    assert all(1799.0 <= age <= 3603.0 for age in ages)
    assert max(ages) - min(ages) > 60.0
    for old, new in zip(server.life.values(), list(server.life.values())[1:], strict=False):
        assert new[0] < old[1]


def test_s38_a_successor_that_fails_is_tried_again() -> None:
    """S38: while no successor stands the old connection goes on; another attempt follows each minute."""
    server = Broadcast()
    failing = [refusal(503), ConnectError("refused", sent="no"), None, refusal(401)]
    world = World(server.script, *failing, server.script, policy=StreamPolicy(age=(1800.0, 1800.0)))
    record = lived(world, 2400.0, server.run)
    assert [round(at) for at in world.asked] == [1000, 2800, 2860, 2920, 2980, 3040]
    assert (record.losses, len(record.connected_at)) == ([], 2)
    assert set(server.sent[:-1]) <= {int(one) for one in record.events}


def test_s38_an_end_during_a_rotation_waits_for_the_successor() -> None:
    """S38: when the old connection breaks while the new one is being opened, no further attempt is made and no wait."""
    world = World(says((11.0, rst)), says((1.0, event("new"))), policy=StreamPolicy(age=(10.0, 10.0)), latency=2.0)
    record = lived(world, 18.0)
    assert (record.events, record.losses, len(world.asked)) == (["new"], [], 2)
    assert record.connected_at[1] == pytest.approx(1000.0 + 2.0 + 10.0 + 2.0)


def test_s38_what_waits_for_room_survives_a_rotation() -> None:
    """S38: what the old connection brought while the receiver had no room is delivered before the new one begins."""

    def during(world: World) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(5.0, world.record.may.clear)
        loop.call_later(40.0, world.record.may.set)

    world = World(
        says((4.0, event(1)), (6.0, event(2)), (7.0, event(3))), says((1.0, event(4))), policy=StreamPolicy(age=(10.0, 10.0))
    )
    record = lived(world, 45.0, during)
    assert record.events == ["1", "2", "3", "4"]
    assert (record.losses, len(world.asked)) == ([], 2)


# ---- S40: cancellation ----------------------------------------------------------------------------------------------


def eventful() -> World:
    """A world in which a stream meets everything there is to wait for, and which ends by itself."""
    return World(
        says((1.0, event(1)), (2.0, event(2)), (3.0, event(3))),
        says((1.0, event(4)), (25.0, rst)),
        ConnectError("refused", sent="no"),
        refusal(503),
        says((1.0, event(5)), (2.0, fin)),
        None,
        policy=StreamPolicy(age=(10.0, 10.0)),
        latency=0.3,
    )


async def cancelled(strike: Callable[[int, Callable[[], None]], None], after: float | None, again: bool) -> bool:
    """Run that world, and cancel it when `strike` says so, told each wait, or after so many seconds; return whether it was."""
    world, loop = eventful(), asyncio.get_running_loop()

    def cancel() -> None:
        task.cancel()
        if again:
            loop.call_soon(task.cancel)

    async with world.open():
        loop.call_later(1.5, world.record.may.clear)
        loop.call_later(2.5, world.record.may.set)

        async def run() -> None:
            await counted(world.connection.run(), lambda number: strike(number, cancel))

        task = loop.create_task(run())
        if after is not None:
            loop.call_later(after, cancel)
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert all(transport.is_closing() for transport in world.transports)
        assert not world.connection.standing
        timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert not [timer for timer in timers if "StreamConnection" in repr(timer)]
    return task.cancelled()


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_s40_cancelled_at_every_wait(again: bool) -> None:
    """S40: wherever `run` is cancelled, up to three turns of the loop later, and if twice, nothing is left."""

    async def main() -> int:
        loop = asyncio.get_running_loop()

        def later(turns: int, cancel: Callable[[], None]) -> None:
            if turns:
                loop.call_soon(later, turns - 1, cancel)
            else:
                cancel()

        for position in range(1, 100):
            for turns in range(4):

                def strike(number: int, cancel: Callable[[], None], at: int = position, turns: int = turns) -> None:
                    if number == at:
                        later(turns, cancel)

                struck = await cancelled(strike, None, again)
            if not struck:
                return position
        raise AssertionError

    assert run_virtual(main()) >= 15


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_s40_cancelled_at_every_moment(again: bool) -> None:
    """S40: cancelled at each twentieth of a second, while successors are being opened too, nothing is left."""

    async def main() -> int:
        random.seed(4)
        return sum([await cancelled(lambda number, cancel: None, 0.05 * moment, again) for moment in range(1300)])

    assert run_virtual(main()) > 500


async def test_s40_a_cancelled_stream_closes_its_socket() -> None:
    """S40: the server sees the end of a stream that is cancelled while it waits for bytes."""
    gone, begun = asyncio.Event(), asyncio.Event()
    async with RawServer([read_request, send(HEAD + event("x")), signal(begun), hold, signal(gone)]) as server:
        async with real(server.url) as (record, task):
            await begun.wait()
            task.cancel()
            await asyncio.wait([task])
            await gone.wait()
    assert (task.cancelled(), record.losses) == (True, [])


def test_s40_a_successor_that_stands_at_the_moment_of_the_cancel_is_closed() -> None:
    """S40: cancelling while the old connection is down and the new one arrives in that very turn leaks neither."""
    for turns in range(12):

        async def main(turns: int = turns) -> None:
            world = World(says((1.0, event(1)), (5.1, rst)), says(), policy=StreamPolicy(age=(5.0, 5.0)), latency=0.3)
            async with world.open():
                task = asyncio.ensure_future(world.connection.run())
                while len(world.transports) < 2:
                    await asyncio.sleep(0.1)
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                await asyncio.sleep(0)
                assert [transport.is_closing() for transport in world.transports] == [True, True]

        run_virtual(main())
