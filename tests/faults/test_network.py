"""Table N of the fault catalogue: what the network does to a call, and what the caller sees of it."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import random
import socket
import ssl
import sys
from typing import Any

import aiohttp
import pytest
import trustme

from nex_async import Nex, SessionPool, Timeouts
from nex_async.errors import (
    APIError,
    BodyTruncated,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DNSError,
    NexError,
    OutcomeUnknownError,
    PayloadTooLargeError,
    ProtocolError,
    ProxyError,
    Timeout,
    TLSError,
)

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
    half_close,
    hold,
    json_reply,
    read_head,
    read_request,
    render,
    reset,
    send,
    serve,
    signal,
    wait,
)
from ..harness.virtual import MemoryConnector, MemoryTransport, run_virtual

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def client(server: RawServer, **arguments: Any) -> Nex:
    return Nex(KEY, base_url=server.url, **{"retry": NO_WAIT, **arguments})


async def failure(call: Any, kind: type[NexError] = NexError) -> Any:
    with pytest.raises(kind) as caught:
        await call
    return caught.value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


CALLS = {
    "read": lambda nex: nex.tasks.get("1"),
    "upsert": lambda nex: nex.records.upsert("person", {"name": "A"}, match_on="name"),
    "state": lambda nex: nex.tasks.delete("1"),
    "create": lambda nex: nex.tasks.create("x"),
    "costly": lambda nex: nex.context.ask("x"),
}


@pytest.mark.parametrize(("kind", "tries"), [("read", 4), ("upsert", 4), ("state", 3), ("create", 4), ("costly", 3)])
async def test_n01_refused_connections_are_retried_by_every_class(kind: str, tries: int) -> None:
    """A refused connection means nothing was sent, so even a create is tried again."""
    async with Nex(KEY, base_url=f"http://127.0.0.1:{free_port()}", retry=NO_WAIT) as nex:
        error = await failure(CALLS[kind](nex), ConnectError)
    assert (error.sent, len(error.attempts)) == ("no", tries)


class Resolver(aiohttp.abc.AbstractResolver):
    """Resolves as it is told: each answer once, the last for ever."""

    def __init__(self, *answers: list[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> Any:
        self.asked += 1
        found = self.answers[min(self.asked, len(self.answers)) - 1]
        if isinstance(found, OSError):
            raise found
        return [{"hostname": host, "host": ip, "port": port, "family": family, "proto": 0, "flags": 0} for ip in found]

    async def close(self) -> None: ...


def resolving(resolver: Resolver) -> SessionPool:
    return SessionPool(
        connector_factory=lambda **arguments: aiohttp.TCPConnector(resolver=resolver, family=socket.AF_INET, **arguments)
    )


NXDOMAIN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_n02_an_unknown_host_is_a_dns_error() -> None:
    """A name that does not resolve is a DNSError, unsent and retried."""
    resolver = Resolver(NXDOMAIN)
    async with resolving(resolver) as pool, Nex(KEY, base_url="http://nex.localhost:1", pool=pool, retry=NO_WAIT) as nex:
        error = await failure(nex.tasks.create("x"), DNSError)
    assert (error.sent, len(error.attempts), resolver.asked) == ("no", 4, 4)


async def test_n02_a_failed_lookup_is_not_remembered() -> None:
    """The first lookup that succeeds ends the trouble: a negative answer is not cached."""
    resolver = Resolver(NXDOMAIN, NXDOMAIN, ["127.0.0.1"])
    async with RawServer([answer(TASK)]) as server, resolving(resolver) as pool:
        async with Nex(KEY, base_url=f"http://nex.localhost:{server.port}", pool=pool, retry=NO_WAIT) as nex:
            assert (await nex.tasks.get("1")).id == "1"


async def test_n03_a_dead_address_beside_a_live_one_does_not_matter() -> None:
    """A host with one dead address is reached at its other, in the first attempt."""
    async with RawServer([answer(TASK)]) as server, resolving(Resolver(["127.0.0.2", "127.0.0.1"])) as pool:
        async with Nex(KEY, base_url=f"http://nex.localhost:{server.port}", pool=pool, retry=ONCE) as nex:
            assert (await nex.tasks.get("1")).id == "1"


@pytest.mark.parametrize(("limits", "seconds"), [({}, 5.0), ({"timeout": Timeouts(connect=7.3)}, 7.3)])
def test_n04_a_black_hole_times_out_while_connecting(limits: dict[str, Any], seconds: float) -> None:
    """Packets that vanish end the attempt after exactly the time a connection may take (5 s), unsent."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Nex(KEY, base_url="http://127.0.0.1:9", retry=ONCE, **limits) as nex:
            started = loop.time()
            error = await failure(nex.tasks.create("x"), Timeout)
            assert (error.phase, error.sent) == ("connect", "no")
            assert loop.time() - started == pytest.approx(seconds, abs=0.05)

    run_virtual(main())


OLD_TLS = pytest.mark.filterwarnings(
    # Before Python 3.11 asyncio calls a TLS transport that its peer has cut off "unclosed".
    *(["ignore:Exception ignored in.*_SSLProtocolTransport"] if sys.version_info < (3, 11) else ["error"])
)

# ---- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks names and certificates; the system's own it need not read
    authority.configure_trust(context)
    return context


LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize("fault", ["untrusted", "expired", "wrong_host"])
async def test_n05_a_certificate_that_is_not_accepted_is_final(authority: trustme.CA, fault: str) -> None:
    """A bad certificate is a TLSError at once: asking again would not make it better."""
    issuer = trustme.CA() if fault == "untrusted" else authority
    host = "elsewhere.example" if fault == "wrong_host" else "127.0.0.1"
    expiry = {"not_after": LONG_AGO} if fault == "expired" else {}
    async with RawServer([hold], tls=server_context(issuer.issue_cert(host, **expiry))) as server:
        async with SessionPool(ssl=trusting(authority)) as pool, client(server, pool=pool) as nex:
            error = await failure(nex.tasks.get("1"), TLSError)
    assert (error.sent, error.certificate, len(error.attempts)) == ("no", True, 1)
    assert server.requests == []


async def test_n05_a_peer_that_only_speaks_old_tls_is_a_tls_error(authority: trustme.CA) -> None:
    """A server that refuses our protocol versions is a TLSError, unsent, and no fault of a certificate."""
    alert = b"\x15\x03\x01\x00\x02\x02\x46"  # fatal, protocol_version

    async def refuse(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(alert)

    async with RawServer([refuse]) as server, SessionPool(ssl=trusting(authority)) as pool:
        async with Nex(KEY, base_url=f"https://127.0.0.1:{server.port}", pool=pool, retry=NO_WAIT) as nex:
            error = await failure(nex.tasks.create("x"), TLSError)
    assert (error.sent, error.certificate) == ("no", False)


@pytest.mark.parametrize("end", [reset, fin], ids=["rst", "fin"])
async def test_n05_a_handshake_that_breaks_is_retried(authority: trustme.CA, end: Any) -> None:
    """A connection lost during the handshake is unsent, and tried again even for a create."""

    async def begin(peer: Peer) -> None:
        await peer.reader.read(1)

    async with RawServer([begin, end]) as server, SessionPool(ssl=trusting(authority)) as pool:
        async with Nex(KEY, base_url=f"https://127.0.0.1:{server.port}", pool=pool, retry=NO_WAIT) as nex:
            error = await failure(nex.tasks.create("x"), ConnectError)
    assert (error.sent, len(error.attempts), server.connections) == ("no", 4, 4)


@OLD_TLS
async def test_n06_a_tls_stream_cut_short_is_not_taken_for_a_whole_reply(authority: trustme.CA) -> None:
    """A reply delimited by the connection's end, cut without close_notify, is BodyTruncated; a read is repeated."""

    async def cut(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b'Connection: close\r\n\r\n{"id":"1","title":"a long')
        peer.writer.transport.abort()

    tls = server_context(authority.issue_cert("127.0.0.1"))
    async with RawServer([cut], [cut], [cut], [answer(TASK), cut], tls=tls) as server:
        async with SessionPool(ssl=trusting(authority)) as pool, client(server, pool=pool) as nex:
            assert (await nex.tasks.get("1")).id == "1"
            error = await failure(nex.tasks.get("1", retries=0), BodyTruncated)
            assert error.sent == "maybe"


# ---- connections that break -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["read", "upsert", "state", "create"])
async def test_n07_fin_before_status_line_sends_once(kind: str) -> None:
    """A fresh connection closed before the status line may have carried the request; retries=0 put it there once."""
    async with RawServer([read_request, fin]) as server, client(server, retry=ONCE) as nex:
        error = await failure(CALLS[kind](nex), OutcomeUnknownError if kind == "create" else ConnectionLost)
        lost = error.__cause__ if kind == "create" else error
    assert isinstance(lost, ConnectionLost)
    assert lost.sent == "maybe"
    assert len(server.requests) == len(error.attempts) == 1


PARTS = {
    "headers": (HEAD[:20], ConnectionLost),
    "body": (HEAD + b'Content-Length: 100\r\n\r\n{"id":', BodyTruncated),
}


@pytest.mark.parametrize("part", PARTS)
async def test_n08_rst_mid_reply(part: str) -> None:
    """A reset within a reply is a lost reply: `sent` is maybe, and a read gets through on the next attempt."""
    data, kind = PARTS[part]
    broken = [read_request, send(data), read_nothing, reset]
    async with RawServer(broken, broken, [answer(TASK)], broken) as server, client(server) as nex:
        assert (await nex.tasks.get("1")).id == "1"
        assert len(server.requests) == 3
    async with RawServer(broken) as server, client(server, retry=ONCE) as nex:
        assert (await failure(nex.tasks.get("1"), kind)).sent == "maybe"


async def read_nothing(peer: Peer) -> None:
    """Give the client one turn to take in what was sent."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["read", "upsert", "create"])
async def test_n09_a_stale_connection_is_our_retry_not_a_hidden_one(kind: str) -> None:
    """A kept connection that closes as we send: repeatable calls get through, counted; a create is unknown, sent once."""
    responses: list[Any] = []
    stale = [answer(TASK), read_request, fin]
    async with RawServer(stale, [answer(TASK)]) as server, client(server, on_response=responses.append) as nex:
        await nex.tasks.get("1")
        if kind == "create":
            error = await failure(nex.tasks.create("x"), OutcomeUnknownError)
            assert isinstance(error.__cause__, ConnectionLost)
            assert server.used == [0, 0]
        else:
            await CALLS[kind](nex)
            assert server.used == [0, 0, 1]
    assert len(responses) == len(server.requests)


async def test_n10_a_deploy_that_closes_every_idle_connection_costs_nothing() -> None:
    """Fifty idle connections closed at once: fifty reads after it succeed, each with one request."""
    everybody, deploy = asyncio.Event(), asyncio.Event()
    async with RawServer(*[[read_request, wait(everybody), send(TASK), wait(deploy), fin]] * 50, [answer(TASK)]) as server:
        async with client(server) as nex:
            calls = [asyncio.ensure_future(nex.tasks.get(n)) for n in range(50)]
            while len(server.requests) < 50:
                await asyncio.sleep(0)
            everybody.set()
            await asyncio.gather(*calls)
            deploy.set()
            for _ in range(10):  # turns of the loop in which both ends see the FIN
                await asyncio.sleep(0)
            await asyncio.gather(*[nex.tasks.get(n) for n in range(50)])
    assert len(server.requests) == 100


async def test_n10_a_deploy_that_cuts_calls_short_costs_one_attempt_each() -> None:
    """Ten kept connections closed as ten reads go out: no error, and one extra request for each."""
    everybody = asyncio.Event()
    stale = [read_request, wait(everybody), send(TASK), read_request, fin]
    async with RawServer(*[stale] * 10, [serve(lambda seen: TASK)]) as server, client(server) as nex:
        calls = [asyncio.ensure_future(nex.tasks.get(n)) for n in range(10)]
        while len(server.requests) < 10:
            await asyncio.sleep(0)
        everybody.set()
        await asyncio.gather(*calls)
        await asyncio.gather(*[nex.tasks.get(n) for n in range(10)])
    assert len(server.requests) == 30


# ---- silence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "phase"), [(HEAD[:20], "headers"), (HEAD + b"Content-Length: 9\r\n\r\n{", "body")])
async def test_n11_a_peer_that_falls_silent_times_out(sent: bytes, phase: str) -> None:
    """A connection on which nothing comes any more ends with the read timeout, naming what was due."""
    async with RawServer([read_request, send(sent), hold]) as server:
        async with client(server, retry=ONCE, timeout=Timeouts(read=0.1)) as nex:
            error = await failure(nex.tasks.get("1"), Timeout)
    assert (error.phase, error.sent) == (phase, "maybe")


async def test_n11_where_one_connection_fell_silent_the_others_are_not_asked(way: str) -> None:
    """A network that died takes every connection with it: the attempt after a silence opens a new one."""
    if way == "session":
        pytest.skip("aiohttp's own pool offers no way to drop what rests in it")
    both, alive = asyncio.Event(), True

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            if not alive and peer.number < 2:
                await hold(peer)
            if len(server.requests) == 2:
                both.set()
            await both.wait()
            await peer.send(TASK)

    async with RawServer([script]) as server, client(server, timeout=Timeouts(read=0.1), retry=NO_WAIT) as nex:
        await asyncio.gather(nex.tasks.get("1"), nex.tasks.get("2"))
        alive = False
        await nex.tasks.get("3")
        assert server.used in ([0, 1, 0, 2], [0, 1, 1, 2])


async def test_a_connector_that_keeps_nothing_is_obeyed() -> None:
    """A connector of the user's that closes each connection has it closed, whichever way calls take."""

    def closing(**arguments: Any) -> aiohttp.TCPConnector:
        del arguments["keepalive_timeout"]
        return aiohttp.TCPConnector(force_close=True, **arguments)

    async with RawServer([answer(TASK), hold]) as server, SessionPool(connector_factory=closing) as pool:
        async with client(server, pool=pool) as nex:
            for _ in range(3):
                await nex.tasks.get("1")
        assert server.used == [0, 1, 2]


def dripping(*pieces: bytes, every: float) -> Any:
    def respond(transport: MemoryTransport, data: bytes) -> None:
        for turn, piece in enumerate(pieces):
            transport.feed(turn * every, piece)

    return respond


DRIPS = {
    "n12_body": [HEAD + b"Content-Length: 500\r\n\r\n", *[b" "] * 500],
    "n13_headers": [bytes([byte]) for byte in HEAD + b"X-Slow: " + b"a" * 500],
    "n20_informational": [b"HTTP/1.1 102 Processing\r\n\r\n"] * 500,
}


@pytest.mark.parametrize("name", DRIPS)
def test_slow_loris(name: str) -> None:
    """A server that sends a byte every 0.4 s never lets the read timeout fire; the call's deadline wins, to the moment."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        connector = MemoryConnector(dripping(*DRIPS[name], every=0.4))
        async with SessionPool(connector_factory=connector) as pool:
            async with Nex(KEY, base_url="http://127.0.0.1:9", pool=pool, timeout=Timeouts(total=7.3, read=1.0)) as nex:
                started = loop.time()
                error = await failure(nex.tasks.get("1"), DeadlineExceeded)
                assert error.sent == "maybe"
                assert loop.time() - started == pytest.approx(7.3, abs=0.05)

    run_virtual(main())


test_n12_n13_slow_loris = test_slow_loris
del test_slow_loris


# ---- framing --------------------------------------------------------------------------------------------------------

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "body", [b"5\r\n{\"id\"\r\n", b"40\r\n{\"id\":", b"a\r\n{\"id\":\"1\"}\r\n", b"a\r\n{\"id\":\"1\"}\r\n0\r\n"],
    ids=["between_chunks", "in_chunk", "no_last_chunk", "no_trailer_end"],
)  # fmt: skip
@pytest.mark.parametrize("end", [fin, reset], ids=["fin", "rst"])
async def test_n14_a_chunked_body_without_its_end_is_truncated(body: bytes, end: Any) -> None:
    """A chunked reply that stops before its last chunk is BodyTruncated, even when its JSON happens to be whole."""
    async with RawServer([read_request, send(CHUNKED + body), read_nothing, end]) as server:
        async with client(server, retry=ONCE) as nex:
            assert (await failure(nex.tasks.get("1"), BodyTruncated)).sent == "maybe"


GARBAGE = {
    "chunk_size": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "status_line": b"ICY 200 sk-not-http\r\n\r\n",
    "two_lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "long_header": HEAD + b"X-Long: " + b"a" * 9000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "many_headers": HEAD + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"Content-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_n15_a_peer_that_does_not_speak_http_is_no_bad_request(name: str) -> None:
    """Broken framing is a ProtocolError without the peer's bytes in it, never a 400; a read is repeated."""
    async with RawServer([answer(GARBAGE[name])], [answer(TASK), answer(GARBAGE[name])]) as server, client(server) as nex:
        assert (await nex.tasks.get("1")).id == "1"
        error = await failure(nex.tasks.get("1", retries=0))
    assert type(error) is ProtocolError
    assert not isinstance(error, APIError)
    assert error.sent == "maybe"
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert "aaa" not in str(error)
    assert "not-http" not in str(error)


async def test_n15_a_chunk_that_is_framed_wrongly_after_the_head_was_read() -> None:
    """A call learns at once of a framing that breaks in mid-body, though the peer neither closes nor resets."""
    server = RawServer([read_request, send(CHUNKED + b'4\r\n{"id\r\n'), read_nothing, send(b"zz\r\n"), hold])
    async with server, client(server, retry=ONCE, timeout=30) as nex:
        error = await asyncio.wait_for(failure(nex.tasks.get("1"), ProtocolError), 5)
    assert error.sent == "maybe"


async def test_n16_a_body_shorter_than_promised_is_truncated() -> None:
    """A connection closed before Content-Length bytes came is BodyTruncated."""
    async with RawServer([answer(render(b'{"id":"1"}', length=40))]) as server, client(server, retry=ONCE) as nex:
        await failure(nex.tasks.get("1"), BodyTruncated)


async def test_n16_a_body_shorter_than_promised_that_hangs_times_out() -> None:
    """A connection that stays open without the promised bytes ends with the read timeout."""
    async with RawServer([answer(render(b'{"id":"1"}', length=40)), hold]) as server:
        async with client(server, retry=ONCE, timeout=Timeouts(read=0.1)) as nex:
            assert (await failure(nex.tasks.get("1"), Timeout)).phase == "body"


async def test_n17_bytes_behind_the_body_are_a_protocol_error() -> None:
    """A body longer than promised is a ProtocolError; the next call travels on another connection."""
    surplus = render(b'{"id":"1","title":"x"}', length=10)
    async with RawServer([answer(surplus), hold], [answer(TASK)]) as server, client(server) as nex:
        await failure(nex.tasks.get("1", retries=0), ProtocolError)
        assert (await nex.tasks.get("1")).id == "1"
    assert server.used == [0, 1]


@pytest.mark.parametrize("surplus", [b"x", b"\r\n\r\n", json_reply({"id": "evil"})], ids=["byte", "blank", "forged_reply"])
async def test_n17_a_connection_with_unasked_bytes_is_never_used_again(surplus: bytes) -> None:
    """What a server sends between two calls is never taken for the answer to the second."""
    taken, sent = asyncio.Event(), asyncio.Event()
    first = [answer(TASK), wait(taken), send(surplus), signal(sent), serve(lambda seen: TASK)]
    async with RawServer(first, [serve(lambda seen: TASK)]) as server, client(server) as nex:
        await nex.tasks.get("1")
        taken.set()
        await sent.wait()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (await nex.tasks.get("1", retries=0)).id == "1"


PLAIN = b'{"id":"1","title":"' + bytes(random.Random(1).choices(b"abcdefgh", k=5000)) + b'"}'
ZIPPED = gzip.compress(PLAIN)


def compressed(body: bytes, encoding: str = "gzip") -> bytes:
    return render(body, headers={"Content-Encoding": encoding})


@pytest.mark.parametrize("kept", [len(ZIPPED) // 2, len(ZIPPED) - 8, 1], ids=["half", "no_checksum", "one_byte"])
async def test_n18_truncated_gzip_is_not_taken_for_a_short_reply(kept: int) -> None:
    """A gzip body that ends early is BodyTruncated although its Content-Length agrees; a read is repeated."""
    cut = answer(compressed(ZIPPED[:kept]))
    async with RawServer([cut], [answer(compressed(ZIPPED)), cut]) as server, client(server) as nex:
        assert len((await nex.tasks.get("1")).title or "") == 5000
        await failure(nex.tasks.get("1", retries=0), BodyTruncated)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (ZIPPED[:200] + b"\x00\xff\x00" + ZIPPED[203:], "gzip"),
        (PLAIN, "gzip"),
        (ZIPPED + b"tail", "gzip"),
        (PLAIN, "br"),
        (PLAIN, "zstd"),
        (ZIPPED, "gzip, gzip"),
    ],
    ids=["corrupt", "plain_text", "with_a_tail", "br", "zstd", "twice"],
)
async def test_n19_an_encoding_that_is_not_what_it_says(body: bytes, encoding: str) -> None:
    """A damaged or unrequested encoding is a ProtocolError; we ask for gzip and nothing else."""
    async with RawServer([answer(compressed(body, encoding))]) as server, client(server, retry=ONCE) as nex:
        await failure(nex.tasks.get("1"), ProtocolError)
        assert server.requests[0].headers["accept-encoding"] == "gzip"


async def test_n20_informational_replies_are_passed_over() -> None:
    """Any number of 1xx replies before the real one changes nothing."""
    flood = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 300
    async with RawServer([answer(flood + TASK)]) as server, client(server, retry=ONCE) as nex:
        assert (await nex.tasks.get("1")).id == "1"


async def test_n20_a_body_behind_204_ends_the_connection() -> None:
    """204 has no body: bytes behind it are a protocol error, and never read as the next reply."""
    lie = b"HTTP/1.1 204 No Content\r\nContent-Length: 14\r\n\r\n" + b'{"id":"wrong"}'
    async with RawServer([answer(lie), hold], [answer(TASK)]) as server, client(server) as nex:
        error = await failure(nex.tasks.delete("1", retries=0), ProtocolError)
        assert error.sent == "maybe"
        assert (await nex.tasks.get("1")).id == "1"
    assert server.used == [0, 1]


async def test_n20_not_modified_is_a_protocol_error() -> None:
    """Nobody asked with a condition, so 304 has no meaning."""
    async with RawServer([answer(b"HTTP/1.1 304 Not Modified\r\n\r\n")]) as server, client(server) as nex:
        await failure(nex.tasks.get("1"), ProtocolError)
    assert len(server.requests) == 1


# ---- proxies --------------------------------------------------------------------------------------------------------


def tunnel(target: RawServer, *, cut_after: int | None = None) -> Any:
    """Return a script that tunnels to a server, and resets both sides after so many bytes of its answers."""

    async def step(peer: Peer) -> None:
        await peer.head()
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        up = asyncio.ensure_future(_pump(peer.reader, writer))
        try:
            passed = 0
            while chunk := await reader.read(4096):
                passed += len(chunk)
                if cut_after is not None and passed > cut_after:
                    return
                await peer.send(chunk)
        finally:
            up.cancel()
            writer.transport.abort()

    return step


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)


PROXY_SECRET = "proxy-password-never-seen"


def through(proxy_port: int, authority: trustme.CA) -> SessionPool:
    return SessionPool(proxy=f"http://user:{PROXY_SECRET}@127.0.0.1:{proxy_port}", ssl=trusting(authority))


REFUSALS = {
    "auth_required": [answer(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")],
    "bad_gateway": [answer(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")],
    "dies": [read_request, fin],
    "resets": [read_request, reset],
    "garbage": [answer(b"\x00\x01\x02\r\n\r\n")],
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_n21_a_proxy_that_gives_no_tunnel_is_a_proxy_error(authority: trustme.CA, name: str) -> None:
    """No tunnel, nothing sent: a ProxyError, retried even for a create, without the proxy's credentials in it."""
    async with RawServer(REFUSALS[name]) as proxy, through(proxy.port, authority) as pool:
        async with Nex(KEY, base_url="https://127.0.0.1:9", pool=pool, retry=NO_WAIT) as nex:
            error = await failure(nex.tasks.create("x"), ProxyError)
    assert (error.sent, len(error.attempts)) == ("no", 4)
    assert {seen.method for seen in proxy.requests} == {"CONNECT"}
    assert PROXY_SECRET not in repr(error) + str(error)


async def test_n21_a_proxy_that_cannot_be_reached_is_a_proxy_error(authority: trustme.CA) -> None:
    """A proxy whose port is closed is a ProxyError, unsent."""
    async with through(free_port(), authority) as pool:
        async with Nex(KEY, base_url="https://127.0.0.1:9", pool=pool, retry=ONCE) as nex:
            error = await failure(nex.tasks.create("x"), ProxyError)
    assert error.sent == "no"
    assert PROXY_SECRET not in repr(error) + str(error)


async def test_n21_a_proxy_tunnels_and_sees_no_key(authority: trustme.CA) -> None:
    """Through a proxy that works the call works, and the proxy learns neither key nor path."""
    async with RawServer([answer(TASK)], tls=server_context(authority.issue_cert("127.0.0.1"))) as server:
        async with RawServer([tunnel(server)]) as proxy, through(proxy.port, authority) as pool:
            async with client(server, pool=pool) as nex:
                assert (await nex.tasks.get("1")).id == "1"
    assert [seen.method for seen in proxy.requests] == ["CONNECT"]
    assert KEY not in str(proxy.requests)


@OLD_TLS
async def test_n21_a_proxy_that_dies_within_the_reply_is_a_lost_reply(authority: trustme.CA) -> None:
    """Once the tunnel stood the request may have arrived: a create that loses its reply is of unknown outcome."""
    big = json_reply({"id": "1", "title": "x" * 200_000})
    async with RawServer([answer(big), hold], tls=server_context(authority.issue_cert("127.0.0.1"))) as server:
        async with RawServer([tunnel(server, cut_after=60_000)]) as proxy:
            async with through(proxy.port, authority) as pool, client(server, pool=pool) as nex:
                error = await failure(nex.tasks.create("x"), OutcomeUnknownError)
    assert len(error.attempts) == len(server.requests) == 1
    assert isinstance(error.__cause__, BodyTruncated)


# ---- the pool -------------------------------------------------------------------------------------------------------


async def test_n22_an_exhausted_pool_times_out_unsent() -> None:
    """A call that gets no connection in time ends as a pool timeout, and was not sent."""
    async with RawServer([read_request, hold]) as server, SessionPool(max_connections=1) as pool:
        async with client(server, pool=pool, retry=ONCE, timeout=Timeouts(pool=0.05, connect=0.05)) as nex:
            hung = asyncio.ensure_future(nex.tasks.get("hung"))
            while not server.requests:
                await asyncio.sleep(0)
            error = await failure(nex.tasks.create("x"), Timeout)
            assert (error.phase, error.sent) == ("pool", "no")
            hung.cancel()
            await asyncio.wait([hung])
    assert len(server.requests) == 1


async def test_n22_waiters_for_a_connection_are_served_in_order() -> None:
    """A hundred calls over one connection all succeed, first come, first served."""
    async with RawServer([serve(lambda seen: TASK)]) as server, SessionPool(max_connections=1) as pool:
        async with client(server, pool=pool) as nex:
            await asyncio.gather(*[nex.tasks.get(n) for n in range(100)])
    assert [int(seen.target.rpartition("/")[2]) for seen in server.requests] == list(range(100))
    assert server.connections == 1


# ---- latency --------------------------------------------------------------------------------------------------------


def test_n23_latency_below_the_limits_is_no_timeout() -> None:
    """Two hundred calls with 0 to 5 s of jitter on connecting and on each piece of the reply: none times out."""
    chance = random.Random(23)

    def respond(transport: MemoryTransport, data: bytes) -> None:
        first = chance.uniform(0, 5) if chance.random() < 0.5 else 0.0
        transport.feed(first, TASK[:30])
        transport.feed(first + chance.uniform(0, 5), TASK[30:])

    async def main() -> None:
        connector = MemoryConnector(respond, latency=4.9)
        async with SessionPool(connector_factory=connector) as pool:
            options = Timeouts(read=5.05, total=15.1)
            async with Nex(KEY, base_url="http://127.0.0.1:9", pool=pool, retry=ONCE, timeout=options) as nex:
                await asyncio.gather(*[nex.tasks.get(n) for n in range(100)])
                await asyncio.gather(*[nex.tasks.get(n) for n in range(100)])

    run_virtual(main())


@pytest.mark.parametrize("limits", [Timeouts(read=7.3), Timeouts(total=7.3, read=60.0)], ids=["read", "total"])
def test_n23_timeouts_are_not_rounded(limits: Timeouts) -> None:
    """A timeout of 7.3 s fires at 7.3 s, not at the next whole second."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with SessionPool(connector_factory=MemoryConnector(lambda transport, data: None)) as pool:
            async with Nex(KEY, base_url="http://127.0.0.1:9", pool=pool, retry=ONCE, timeout=limits) as nex:
                started = loop.time()
                await failure(nex.tasks.get("1"), NexError)
                assert loop.time() - started == pytest.approx(7.3, abs=0.05)

    run_virtual(main())


@pytest.mark.parametrize("end", [fin, half_close, hold], ids=["close", "half_close", "keep"])
async def test_n24_an_answer_before_the_upload_is_complete_is_reported(end: Any) -> None:
    """A server that refuses a large body from its head alone is heard: 413, not a broken pipe."""
    refusal = json_reply({"code": 413, "message": "too large"}, "413 Payload Too Large", {"Connection": "close"})
    async with RawServer([read_head, send(refusal), end, hold]) as server, client(server, retry=ONCE) as nex:
        error = await failure(nex.records.create("person", {"name": "x" * 8_000_000}), PayloadTooLargeError)
    assert error.message == "too large"


def test_every_request_is_seen_as_it_was_sent() -> None:
    """The raw server keeps what it was sent, so that the tests above can count on it."""

    async def main() -> Seen:
        async with RawServer([answer(json_reply({"id": "1"}))]) as server, client(server) as nex:
            await nex.tasks.create("x")
            return server.requests[0]

    seen = asyncio.run(main())
    assert (seen.method, seen.target, seen.connection) == ("POST", "/api/developers/v1/tasks", 0)
    assert b'"x"' in seen.body
