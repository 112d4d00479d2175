"""The shim for users of aiohttp-sse-client: the same laws for both, and those that only ours keeps."""

from __future__ import annotations

import asyncio
import gzip
import pickle
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import aiohttp_sse_client.client as theirs
import pytest

from nex_async import NexError, compat
from nex_async.compat import EventSource, EventSourceError, MessageEvent
from nex_async.errors import InvalidRequestError, TransportError

from .harness.raw_server import Peer, RawServer, Step, fin, hold, read_request, render, reset, send, signal, wait
from .harness.virtual import MemoryConnector, MemoryTransport, run_virtual

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SOON = timedelta(milliseconds=1)
BOTH = pytest.mark.parametrize("library", [theirs, compat], ids=["theirs", "ours"])


def stream(*data: bytes, then: Step = hold) -> list[Step]:
    return [read_request, *(send(part) for part in (HEAD, *data)), then]


def refusing(status: int | str, kind: str = "text/html") -> list[Step]:
    return [read_request, send(render(b"", status, {"Content-Type": kind, "Connection": "close"}))]


@asynccontextmanager
async def source(library: Any, url: str, **arguments: Any) -> AsyncIterator[Any]:
    """A connected source of either library on a session of its own, with its calls noted in `.calls`."""
    async with aiohttp.ClientSession() as session:
        made = make(library, url, session, **arguments)
        async with made as opened:
            assert opened is made
            yield made


def make(library: Any, url: str, session: aiohttp.ClientSession | None = None, **arguments: Any) -> Any:
    calls: list[Any] = []

    class Noted(library.EventSource):  # type: ignore[misc, name-defined]
        pass

    made = Noted(
        url,
        reconnection_time=SOON,
        session=session,
        on_open=lambda: calls.append(("open", made.ready_state)),
        on_message=lambda message: calls.append(message.data),
        on_error=lambda: calls.append(("error", made.ready_state)),
        **arguments,
    )
    made.calls = calls
    return made


async def take(events: Any, count: int) -> list[Any]:
    taken: list[Any] = []
    async for one in events:
        taken.append(one)
        if len(taken) == count:
            break
    return taken


def shown(events: list[Any]) -> list[tuple[Any, ...]]:
    return [(one.type, one.message, one.data, one.last_event_id) for one in events]


# ---- what both promise ----------------------------------------------------------------------------------------------

EVENTS = (
    b": a comment\n\ndata: plain\n\nevent: named\nid: 7\ndata: one\ndata: two\n\nevent: message\r\ndata: crlf\r\n\r\n"
    b'unknown: x\ndata:{"a":1}\n\nid: 8\n\nevent: none\n\ndata: caf\xc3\xa9\n\n'
)
SHOWN = [
    (None, "", "plain", ""),
    ("named", "named", "one\ntwo", "7"),
    ("message", "message", "crlf", "7"),
    (None, "", '{"a":1}', "7"),
    (None, "", "café", "8"),
]


@BOTH
async def test_events(library: Any) -> None:
    """Each event has its name, None for none, its data, its origin, and the last id in force."""
    async with RawServer(stream(EVENTS)) as server, source(library, server.url + "/path?x=1") as events:
        assert str(events.url) == server.url + "/path?x=1"
        found = await take(events, 5)
    assert shown(found) == SHOWN
    assert {one.origin for one in found} == {server.url}
    with pytest.raises(AttributeError):
        found[0].data = "frozen"


@BOTH
async def test_the_request(library: Any) -> None:
    """What is given goes to the request, with what an event stream needs beside it."""
    async with RawServer(stream()) as server:
        headers = {"Authorization": "Bearer x", "X-Mine": "1"}
        async with source(library, server.url + "/a", option={"method": "POST"}, headers=headers, json={"q": 1}):
            [seen] = server.requests
    assert (seen.method, seen.target, seen.body) == ("POST", "/a", b'{"q": 1}')
    assert {
        name: seen.headers.get(name) for name in ("authorization", "x-mine", "accept", "cache-control", "last-event-id")
    } == {
        "authorization": "Bearer x",
        "x-mine": "1",
        "accept": "text/event-stream",
        "cache-control": "no-cache",
        "last-event-id": None,
    }


@BOTH
async def test_it_reconnects_after_an_end_and_tells(library: Any) -> None:
    """An orderly end is followed by another connection that names the last id; the callbacks tell in order."""
    async with RawServer(stream(b"id: 5\ndata: a\n\n", then=fin), stream(b"data: b\n\n")) as server:
        async with source(library, server.url) as events:
            assert events.ready_state == library.READY_STATE_OPEN
            found = await take(events, 2)
    assert shown(found) == [(None, "", "a", "5"), (None, "", "b", "5")]
    assert events.calls == [
        ("open", library.READY_STATE_OPEN),
        "a",
        ("error", library.READY_STATE_CONNECTING),
        ("open", library.READY_STATE_OPEN),
        "b",
    ]
    assert [seen.headers.get("last-event-id") for seen in server.requests] == [None, "5"]
    assert events.ready_state == library.READY_STATE_CLOSED


REFUSALS = [
    (401, "text/html", ConnectionRefusedError),
    (305, "text/html", ConnectionRefusedError),
    (407, "text/html", ConnectionRefusedError),
    (400, "text/event-stream", ConnectionError),
    (404, "text/html", ConnectionError),
    (429, "text/html", ConnectionError),
    (503, "text/html", ConnectionError),
    (204, "", ConnectionAbortedError),
    (210, "text/event-stream", ConnectionAbortedError),
    (200, "text/html", ConnectionAbortedError),
    (200, "", ConnectionAbortedError),
]


@BOTH
@pytest.mark.parametrize(("status", "kind", "error"), REFUSALS)
async def test_refusals(library: Any, status: int, kind: str, error: type[Exception]) -> None:
    """What is no event stream is raised at once, as the `ConnectionError` its users know."""
    async with RawServer(refusing(status, kind)) as server, aiohttp.ClientSession() as session:
        events = make(library, server.url, session)
        with pytest.raises(error) as caught:
            async with events:
                pass
    assert isinstance(caught.value, ConnectionError)
    assert (events.calls, len(server.requests)) == ([("error", library.READY_STATE_CLOSED)], 1)
    assert events.ready_state == library.READY_STATE_CLOSED


async def test_a_refusal_closes_its_connection() -> None:
    """What was answered instead of a stream is not read, and its connection not kept."""
    gone = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nendless"
    async with RawServer([read_request, send(head), closing(gone)]) as server, aiohttp.ClientSession() as session:
        with pytest.raises(EventSourceError) as caught:
            await EventSource(server.url, session=session).connect()
        await gone.wait()
    assert caught.value.status == 200


@BOTH
@pytest.mark.parametrize("retries", [0, 1])
async def test_a_server_that_is_not_there(library: Any, retries: int) -> None:
    """A first connection is tried as often as asked, then aiohttp's kind of error is raised."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with aiohttp.ClientSession() as session:
        events = make(library, f"http://127.0.0.1:{port}", session, max_connect_retry=retries)
        with pytest.raises(aiohttp.ClientConnectionError) as caught:
            async with events:
                pass
    assert isinstance(caught.value, OSError)
    assert events.calls == [("error", library.READY_STATE_CONNECTING)] * retries + [("error", library.READY_STATE_CLOSED)]


@BOTH
async def test_a_server_that_comes_late(library: Any) -> None:
    """A first connection that breaks before its reply is followed by another."""
    async with RawServer([read_request, reset], stream(b"data: a\n\n")) as server:
        async with source(library, server.url) as events:
            assert [one.data for one in await take(events, 1)] == ["a"]
    assert len(server.requests) == 2


@BOTH
async def test_a_redirect_is_followed(library: Any) -> None:
    """A redirect is followed, and the origin is that of the place it leads to."""
    async with RawServer(stream(b"data: a\n\n")) as goal:
        redirect = render(b"", 302, {"Location": goal.url + "/there", "Connection": "close"})
        async with RawServer([read_request, send(redirect)]) as server, source(library, server.url) as events:
            [one] = await take(events, 1)
    assert (one.origin, goal.requests[0].target) == (goal.url, "/there")


@BOTH
async def test_connect_and_close_by_hand(library: Any) -> None:
    """Without a context manager, `connect` and `close` do the same; the session that was given stays open."""
    async with RawServer(stream(b"data: a\n\n")) as server, aiohttp.ClientSession() as session:
        events = make(library, server.url, session)
        assert events.ready_state == library.READY_STATE_CONNECTING
        await events.connect()
        assert events.ready_state == library.READY_STATE_OPEN
        assert [one.data for one in await take(events, 1)] == ["a"]
        await events.close()
        assert (events.ready_state, session.closed) == (library.READY_STATE_CLOSED, False)


@BOTH
async def test_misuse(library: Any) -> None:
    """A plain `with` and an iteration before connecting are refused."""
    async with aiohttp.ClientSession() as session:
        events = make(library, "http://127.0.0.1:1", session)
        with pytest.raises(TypeError, match="async with"), events:
            pass
        with pytest.raises(ValueError):
            await take(events, 1)


@BOTH
async def test_leaving_the_block_by_an_error(library: Any) -> None:
    """An error in the loop's body leaves the block as it is, and closes the stream."""
    gone = asyncio.Event()
    async with RawServer(stream(b"data: a\n\n", then=closing(gone))) as server:
        with pytest.raises(ZeroDivisionError):
            async with source(library, server.url) as events:
                async for _ in events:
                    _ = 1 / 0
        await gone.wait()


def closing(gone: asyncio.Event) -> Step:
    async def step(peer: Peer) -> None:
        await hold(peer)
        gone.set()

    return step


def test_the_same_names() -> None:
    """The states and defaults have the names and values their users know."""
    for name in dir(theirs):
        if name.startswith(("READY_STATE", "DEFAULT_RECONNECTION", "DEFAULT_MAX_CONNECT")):
            assert getattr(compat, name) == getattr(theirs, name)
    public = {name for name in dir(theirs.EventSource) if not name.startswith("_")}
    assert public <= set(dir(EventSource))
    assert MessageEvent._fields == tuple(field.name for field in theirs.MessageEvent.__attrs_attrs__)  # type: ignore[attr-defined]


# ---- what only ours does --------------------------------------------------------------------------------------------


BREAKS: dict[str, tuple[bytes, list[Step]]] = {
    "reset": (HEAD + b"data: a\n\n", [reset]),
    "cut": (CHUNKED + b"9\r\ndata: a\n\n\r\n", [send(b"ff\r\ndata: cut"), fin]),
    "wrong frame": (CHUNKED + b"9\r\ndata: a\n\n\r\n", [send(b"zz\r\n"), hold]),
}


@pytest.mark.parametrize("way", BREAKS)
async def test_it_reconnects_after_a_break(way: str) -> None:
    """After a reset, a cut or a wrong frame, another connection follows, and nothing is raised."""
    seen = asyncio.Event()
    first, end = BREAKS[way]
    async with RawServer([read_request, send(first), wait(seen), *end], stream(b"data: b\n\n")) as server:
        async with source(compat, server.url) as events:
            found = [one.data for one in await take(events, 1)]
            seen.set()
            found += [one.data for one in await take(events, 1)]
    assert found == ["a", "b"]


class Net:
    """Answers request n with `scripts[n]`, the last one for ever, on the virtual clock."""

    def __init__(self, *scripts: list[tuple[float, bytes | None]]) -> None:
        self.scripts = scripts
        self.asked: list[float] = []
        self.transports: list[MemoryTransport] = []

    def respond(self, transport: MemoryTransport, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.transports.append(transport)
        self.asked.append(loop.time())
        for after, data in self.scripts[min(len(self.asked), len(self.scripts)) - 1]:
            if data is None:
                loop.call_later(after, self._end, transport)
            else:
                transport.feed(after, data)

    def _end(self, transport: MemoryTransport) -> None:
        if not transport.is_closing():
            transport.protocol.eof_received()
            transport.close()

    def run(self, body: Callable[[Any], Any], **arguments: Any) -> Any:
        async def main() -> Any:
            async with aiohttp.ClientSession(connector=MemoryConnector(self.respond)()) as session:
                async with EventSource("http://server/", session=session, **arguments) as events:
                    return await body(events)

        found = run_virtual(main())
        assert all(transport.is_closing() for transport in self.transports)
        return found


def answered(status: int, **headers: str) -> list[tuple[float, bytes | None]]:
    return [(0.0, render(b"", status, {**headers, "Connection": "close"})), (0.0, None)]


def test_a_stream_lives_for_hours() -> None:
    """There is no total timeout: one connection lives as long as bytes come."""
    net = Net([(0.0, HEAD), *((60.0 * n, b"data: %d\n\n" % n) for n in range(1, 600))])
    assert [int(one.data) for one in net.run(lambda events: take(events, 599))] == list(range(1, 600))
    assert len(net.asked) == 1


def test_a_silent_server_is_left_after_75_seconds() -> None:
    """A server that sends nothing for 75 seconds counts as gone, and another connection follows."""
    net = Net([(0.0, HEAD), (10.0, b": x\n\n")], [(0.0, HEAD), (1.0, b"data: a\n\n")])
    net.run(lambda events: take(events, 1), reconnection_time=timedelta(0))
    assert 1085.0 <= net.asked[1] <= 1086.5


def test_a_server_that_does_not_answer_is_left_too() -> None:
    """An attempt without a reply ends after 75 seconds."""
    net = Net([], [(0.0, HEAD), (1.0, b"data: a\n\n")])
    net.run(lambda events: take(events, 1), reconnection_time=timedelta(0))
    assert net.asked[1] - net.asked[0] == pytest.approx(75.0, abs=1.5)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_waited_for(status: int) -> None:
    """Once the stream stood, a server in trouble is asked again, and its Retry-After is obeyed."""
    trouble = answered(status, **{"Retry-After": "40"})
    net = Net([(0.0, HEAD), (1.0, None)], *[trouble] * 9, [(0.0, HEAD), (0.0, b"data: a\n\n")])
    assert [one.data for one in net.run(lambda events: take(events, 1))] == ["a"]
    assert all(after - before >= 40.0 for before, after in zip(net.asked[1:], net.asked[2:], strict=False))


def test_the_waits_grow_and_retry_is_obeyed() -> None:
    """Waits begin at the reconnection time and double to thirty seconds; `retry:` is the least."""
    net = Net(*[[(0.0, HEAD), (0.1, None)]] * 8, [(0.0, HEAD), (0.0, b"data: a\n\n")])
    net.run(lambda events: take(events, 1), reconnection_time=timedelta(seconds=2))
    gaps = [after - before - 0.1 for before, after in zip(net.asked, net.asked[1:], strict=False)]
    assert all(gap <= min(30.0, 2.0 * 2.0**n) + 0.01 for n, gap in enumerate(gaps))
    assert all(gap >= min(30.0, 2.0 * 2.0**n) / 2 for n, gap in enumerate(gaps) if n)
    net = Net([(0.0, HEAD), (0.1, b"retry: 20000\n\n"), (0.1, None)], [(0.0, HEAD), (0.0, b"data: a\n\n")])
    net.run(lambda events: take(events, 1), reconnection_time=SOON)
    assert 20.0 <= net.asked[1] - net.asked[0] <= 22.5


@pytest.mark.parametrize(
    ("status", "error"), [(401, ConnectionRefusedError), (404, ConnectionError), (301, ConnectionAbortedError)]
)
def test_a_final_status_on_reconnecting_is_raised(status: int, error: type[Exception]) -> None:
    """What another attempt cannot mend is raised from the iteration, once; then it is at its end."""
    calls: list[str] = []

    async def body(events: EventSource) -> None:
        with pytest.raises(error) as caught:
            await take(events, 1)
        assert isinstance(caught.value, EventSourceError)
        assert (caught.value.status, events.ready_state) == (status, compat.READY_STATE_CLOSED)
        assert await take(events, 1) == []

    net = Net([(0.0, HEAD), (1.0, None)], answered(status))
    net.run(body, on_error=lambda: calls.append("error"), allow_redirects=False)
    assert (len(net.asked), calls) == (2, ["error", "error"])


def test_no_content_ends_the_iteration() -> None:
    """A 204 on a later connection says that nothing more comes: the iteration ends."""
    states: list[int] = []

    async def body(events: EventSource) -> list[MessageEvent]:
        events._on_error = lambda: states.append(events.ready_state)
        return [one async for one in events]

    net = Net([(0.0, HEAD), (1.0, b"data: a\n\n"), (1.0, None)], answered(204))
    assert [one.data for one in net.run(body)] == ["a"]
    assert (len(net.asked), states) == (2, [compat.READY_STATE_CONNECTING, compat.READY_STATE_CLOSED])


async def test_long_lines_and_bad_bytes() -> None:
    """A line of megabytes is one event, and bytes that are no UTF-8 are replaced."""
    long = b"data: " + b"x" * 3_000_000 + b"\n\n"
    async with RawServer(stream(long, b"data: a\xff\xfeb\n\n")) as server, source(compat, server.url) as events:
        found = await take(events, 2)
    assert [len(found[0].data), found[1].data] == [3_000_000, "a\ufffd\ufffdb"]


async def test_the_standard_to_the_letter() -> None:
    """One leading space goes, line ends in data stay, an empty data line is an event, an empty id resets the last one."""
    data = b"id: 1\ndata:  two\ndata\n\ndata\n\nid\ndata: x\n\nid: a\0b\ndata: y\n\n\xef\xbb\xbfdata: no bom\n\ndata: z\n\n"
    async with RawServer(stream(b"\xef\xbb\xbf", data)) as server, source(compat, server.url) as events:
        found = await take(events, 5)
    assert [(one.data, one.last_event_id) for one in found] == [(" two\n", "1"), ("", "1"), ("x", ""), ("y", ""), ("z", "")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 40, 1000])
async def test_names_are_told_whatever_the_chunks(size: int) -> None:
    """An event called `message` is told from one without a name, however the bytes are cut."""
    frames = [
        b"data: 1\n\n",
        b"event: message\ndata: 2\n\n",
        b"event: x\ndata: 3\n\n",
        b"data:4\n\n",
        b"event:\ndata: 5\n\n",
    ]
    expected = {b"1": None, b"2": "message", b"3": "x", b"4": None, b"5": None}
    body = b"".join(frames + frames[:1] * 3 + frames[1:2] * 3 + frames[::-1])
    decoder = compat._Decoder()
    found = [one for at in range(0, len(body), size) for one in decoder.feed(body[at : at + size])]
    assert len(found) == 16
    assert [one.event or None for one in found] == [expected[one.data] for one in found]


async def test_gzip_is_read_as_it_comes() -> None:
    """A stream that is compressed though identity was asked for arrives event by event."""
    head = HEAD.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection")
    go = asyncio.Event()
    second = [wait(go), send(gzip.compress(b"data: b\n\n")), hold]
    async with RawServer([read_request, send(head + gzip.compress(b"data: a\n\n")), *second]) as server:
        async with source(compat, server.url) as events:
            found = await take(events, 1)
            go.set()
            found += await take(events, 1)
    assert [one.data for one in found] == ["a", "b"]
    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_an_unknown_compression_is_refused() -> None:
    """A stream that cannot be unpacked is raised as an aborted connection, with its cause."""
    head = HEAD.replace(b"Connection", b"Content-Encoding: br\r\nConnection")
    async with RawServer([read_request, send(head), hold]) as server:
        with pytest.raises(ConnectionAbortedError) as caught:
            async with source(compat, server.url):
                pass
    assert isinstance(caught.value.__cause__, NexError)


@pytest.mark.parametrize(("size", "count"), [(100, 200_000), (1_000_000, 200)])
async def test_a_reader_that_stops_stops_the_server(size: int, count: int) -> None:
    """What is not taken waits in a bounded queue, then in the socket; when it is taken, nothing is missing."""
    stalled, taken, sent = asyncio.Event(), asyncio.Event(), 0

    async def flood(peer: Peer) -> None:
        nonlocal sent
        batch = 1000 if size < 1000 else 1
        for at in range(0, count, batch):
            peer.writer.write(b"".join(b"data: %d %s\n\n" % (n, b"x" * size) for n in range(at, at + batch)))
            drain = asyncio.ensure_future(peer.writer.drain())
            if not taken.is_set() and not (await asyncio.wait([drain], timeout=0.5))[0]:
                stalled.set()
            await drain
            sent += batch

    async with RawServer([read_request, send(HEAD), flood, hold]) as server, source(compat, server.url) as events:
        await stalled.wait()
        assert sent < count
        assert len(events._reader._queue) < 100_000
        assert sum(len(one.data) for one in events._reader._queue if hasattr(one, "data")) < 32_000_000
        taken.set()
        found = await take(events, count)
    assert [int(one.data.split()[0]) for one in found] == list(range(count))


ERRORS = [
    compat.EventSourceError("x", 404),
    compat.EventSourceRefused("x", 401),
    compat.EventSourceAborted("x", 200),
    compat.EventSourceUnreachable("x"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_are_of_both_worlds(error: EventSourceError) -> None:
    """Each error is ours and a ConnectionError, keeps its words and status, and pickles."""
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, NexError)
    assert isinstance(again, ConnectionError)
    assert (str(again), again.status, type(again)) == ("x", error.status, type(error))


async def test_an_error_tells_no_header_and_no_address() -> None:
    """What goes wrong is told without what was sent; the cause is one of ours."""
    secret = "hunter2-token"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    events = EventSource(f"http://127.0.0.1:{port}/?t={secret}", headers={"Authorization": secret}, max_connect_retry=0)
    with pytest.raises(compat.EventSourceUnreachable) as caught:
        await events.connect()
    assert isinstance(caught.value.__cause__, TransportError)
    for error in (caught.value, caught.value.__cause__):
        assert secret not in f"{error} {error!r} {vars(error)}"
    assert caught.value.__cause__.__cause__ is None


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/", "http://"])
async def test_an_impossible_url(url: str) -> None:
    """A URL that cannot be asked is refused at once."""
    with pytest.raises(InvalidRequestError):
        await EventSource(url).connect(5)


async def test_what_is_given_is_not_changed() -> None:
    """The headers passed in stay as they are, and no header of ours goes along."""
    headers = {"X-Mine": "1"}
    async with RawServer(stream()) as server, source(compat, server.url, headers=headers, method="PUT"):
        [seen] = server.requests
    assert headers == {"X-Mine": "1"}
    assert seen.method == "PUT"
    assert set(seen.headers) <= {
        *("host", "x-mine", "accept", "accept-encoding", "cache-control", "user-agent", "content-length", "content-type")
    }


async def test_a_session_that_raises_by_itself() -> None:
    """A session with `raise_for_status` changes nothing about the errors."""
    async with RawServer(refusing(401)) as server, aiohttp.ClientSession(raise_for_status=True) as session:
        with pytest.raises(compat.EventSourceRefused):
            await EventSource(server.url, session=session).connect()


async def test_a_closed_session_is_told() -> None:
    """A session that was closed is an error, not another attempt for ever."""
    session = aiohttp.ClientSession()
    await session.close()
    with pytest.raises(RuntimeError):
        await EventSource("http://127.0.0.1:1", session=session).connect(5)


async def test_an_own_session_is_closed() -> None:
    """A session of its own ends with the source, after a failure too, and may be had again."""
    async with RawServer(refusing(404), stream(b"data: a\n\n")) as server:
        events = EventSource(server.url)
        with pytest.raises(EventSourceError):
            await events.connect()
        assert events._own_session is None
        async with events:
            own = events._own_session
            assert own is not None
            await events.connect()
            assert [one.data for one in await take(events, 1)] == ["a"]
        assert own.closed
    assert len(server.requests) == 2


@pytest.mark.parametrize("how", ["task", "body", "callback"])
async def test_closing_ends_the_iteration(how: str) -> None:
    """Whoever closes, the iteration comes to its end, without an error, and tells no error."""
    async with RawServer(stream(b"data: a\n\ndata: b\n\n")) as server, source(compat, server.url) as events:
        found = []
        if how == "callback":
            events._on_message = lambda one: later.append(asyncio.ensure_future(events.close()))
        later: list[Any] = []
        async for one in events:
            found.append(one.data)
            if how == "body":
                await events.close()
            elif how == "task" and one.data == "b":
                later.append(asyncio.ensure_future(events.close()))
            elif how == "callback":
                await asyncio.wait(later)
        await asyncio.gather(*later)
        await events.close()
    assert found == (["a", "b"] if how == "task" else ["a"])
    assert ("error", compat.READY_STATE_CLOSED) not in events.calls


@pytest.mark.parametrize("turns", range(1, 8))
async def test_closing_ends_a_connect(turns: int) -> None:
    """A source that is closed at any turn of the loop while it connects lets the connect end."""
    async with RawServer([read_request, hold]) as server:
        events = EventSource(server.url)
        task = asyncio.ensure_future(events.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        await events.close()
        await task
        assert events.ready_state == compat.READY_STATE_CLOSED
        assert await take(events, 1) == []


async def test_a_callback_that_raises() -> None:
    """An error of a callback comes out of the step that called it, and the iteration can go on."""
    async with RawServer(stream(b"data: a\n\ndata: b\n\n")) as server, source(compat, server.url) as events:
        events._on_message = lambda one: 1 / (one.data != "a")
        with pytest.raises(ZeroDivisionError):
            await take(events, 1)
        assert [one.data for one in await take(events, 1)] == ["b"]
    async with RawServer(stream()) as server:
        events = EventSource(server.url, on_open=lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await events.connect()
        assert (events._task, events._own_session) == (None, None)


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_connect_leaves_nothing(turns: int) -> None:
    """Cancelled at any turn of the loop while it connects, a source leaves no task, session or socket."""
    async with RawServer([read_request, hold], stream()) as server:
        events = EventSource(server.url, on_error=lambda: 1 / 0)
        task = asyncio.ensure_future(events.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert (events._task, events._own_session) == (None, None)


async def test_a_cancelled_iteration_loses_nothing() -> None:
    """A step that is cancelled while it waits takes no event along."""
    go, sent = asyncio.Event(), asyncio.Event()
    script: list[Step] = [read_request, send(HEAD), wait(go), send(b"data: a\n\n"), signal(sent), hold]
    async with RawServer(script) as server, source(compat, server.url) as events:
        for _ in range(3):
            step = asyncio.ensure_future(events.__anext__())
            await asyncio.sleep(0)
            step.cancel()
            await asyncio.wait([step])
        go.set()
        await sent.wait()
        assert [one.data for one in await take(events, 1)] == ["a"]
