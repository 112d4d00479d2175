"""record and replay: what is noted, what never is, and what is answered."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from nex_async import BadRequestError, ConfigError, Nex, NotFoundError
from nex_async.errors import ConnectionLost, NexError
from nex_async.testing import EmulatorThread, Replay, record, replay
from nex_async.testing.loopback import serve

from ..harness.canary import KEY, leaked


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:  # type: ignore[override]
    """An emulator that a recorder can block the test's loop beside."""
    with EmulatorThread(keys={KEY: None}) as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tapes" / "tape.jsonl"


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def _work(nex: Nex) -> list[Any]:
    ada = await nex.records.create("person", {"name": "Ada Park", "email_addresses": ["ada@x.io"], "job_title": "CTO"})
    with pytest.raises(BadRequestError) as refused:
        await nex.records.create("person", {"name": "Eve", "email_addresses": ["ada@x.io"]})
    renamed = await nex.records.update(ada.id, {"name": "Ada P. Park"})
    found = await nex.search("ada@x.io")
    people = [person.text("email_addresses") async for person in nex.records.list("person", sort="name", limit=1)]
    await nex.records.delete(ada.id)
    with pytest.raises(NotFoundError):
        await nex.records.get(ada.id)
    hits = [hit.matched_value for hit in found.results["person"]]
    return [ada.id, ada.created_at, str(refused.value), renamed.text("name"), people, hits]


@pytest.mark.parametrize("redact", [(), ("email_addresses",), ("email_addresses", "id", "name", "from")])
async def test_what_was_recorded_is_said_again(emulator: EmulatorThread, path: Path, redact: tuple[str, ...]) -> None:
    """The same calls get the same answers without the server, and every recorded request is used; also where fields are
    redacted, of what the test itself has sent."""
    emulator.seed("person", {"name": "Bob", "email_addresses": ["bob@y.io"]})
    with record(path, upstream=emulator.url, redact=redact) as tape:
        async with tape.client(api_key=KEY) as nex:
            told = await _work(nex)
    emulator.reset()
    with replay(path) as again:
        assert len(again.unused()) == 8
        async with again.client() as nex:
            retold = await _work(nex)
        assert again.unused() == []
    if redact:
        assert told[4] == ["ada@x.io", "bob@y.io"]
        assert retold[4][0] == "ada@x.io"
        assert retold[4][1].startswith("redacted-")
        if "id" in redact:
            told[2] = told[2].replace(told[0], retold[0])
            told[0] = retold[0]
        told[4] = retold[4]
    assert retold == told
    assert len(emulator.requests) == 0
    for private in ("ada@x.io", "bob@y.io") if redact else ():
        assert private not in path.read_text()


async def test_the_same_request_again(emulator: EmulatorThread, path: Path) -> None:
    """A request that was made several times gets the replies in their order; once more, it is refused, and how often it was
    recorded is said."""
    with record(path, upstream=emulator.url) as tape:
        async with tape.client(api_key=KEY) as nex:
            for number in range(3):
                assert (await nex.tasks.list(limit=1)).total == number
                await nex.tasks.create(f"Call {number}")
    with pytest.raises(AssertionError, match="recorded 3 times"), replay(path) as again:
        async with again.client() as nex:
            assert [(await nex.tasks.list(limit=1)).total for _ in range(3)] == [0, 1, 2]
            with pytest.raises(BadRequestError, match=r"GET /v1/tasks.* was recorded 3 times, and asked for once more"):
                await nex.tasks.list(limit=1)
            assert again.unused() == ["POST /v1/tasks"] * 3


@pytest.mark.parametrize(
    ("ask", "explained"),
    [
        (lambda nex: nex.tasks.list(limit=2), r"query.limit: '1' was recorded, '2' was asked"),
        (lambda nex: nex.tasks.create("Cal"), r"POST /v1/tasks \(body.title: 'Call' was recorded, 'Cal' was asked"),
        (lambda nex: nex.tasks.create("Call", priority="high"), r"POST /v1/tasks \(body.priority was not recorded"),
        (lambda nex: nex.request("POST", "/v1/tasks", body={}), r"POST /v1/tasks \(body.title was recorded, and not asked"),
        (
            lambda nex: nex.request("POST", "/v1/tasks", body=[1]),
            r"POST /v1/tasks \(body: \{'title'.* was recorded, \[1\] was",
        ),
        (lambda nex: nex.request("POST", "/v1/tasks"), r"POST /v1/tasks \(body: 'json' was recorded, 'none' was asked"),
        (lambda nex: nex.tasks.delete(7), r"DELETE /v1/tasks/7: was not recorded; the nearest is"),
        (
            lambda nex: nex.notes.get(12345),
            r"GET /v1/notes/12345: was not recorded; the nearest is GET /v1/notes/12346 \(path",
        ),
        (lambda nex: nex.tasks.list(search="of sk-another-key-1"), r"search=of\+redacted-key: was not recorded"),
    ],
)
async def test_a_request_that_was_not_recorded(emulator: EmulatorThread, path: Path, ask: Any, explained: str) -> None:
    """It is refused at once, with the nearest that was recorded and where they differ; the block ends by saying it again,
    even if the code under test has swallowed the refusal."""
    with record(path, upstream=emulator.url) as tape:
        async with tape.client(api_key=KEY) as nex:
            await nex.tasks.list(limit=1)
            await nex.tasks.create("Call")
            with pytest.raises(NotFoundError):
                await nex.notes.get(12346)
    with pytest.raises(AssertionError, match=explained) as ended, replay(path) as again:
        async with again.client() as nex:
            with pytest.raises(BadRequestError, match=explained) as refused:
                await ask(nex)
            assert len(refused.value.attempts) == 1
    assert "sk-another-key-1" not in str(ended.value)


async def test_an_error_of_the_test_is_the_one_to_see(emulator: EmulatorThread, path: Path) -> None:
    """An error that ends the block is not hidden by a refusal; refusals that were expected may be cleared."""
    with record(path, upstream=emulator.url):
        pass
    with pytest.raises(ZeroDivisionError), replay(path) as again:
        async with again.client() as nex:
            with pytest.raises(BadRequestError, match="the cassette is empty"):
                await nex.tasks.get(1)
        raise ZeroDivisionError
    with replay(path) as again:
        async with again.client() as nex:
            with pytest.raises(BadRequestError):
                await nex.tasks.get(1)
        again.unexpected.clear()


async def test_streams(emulator: EmulatorThread, path: Path) -> None:
    """A stream is kept event by event, redacted inside of its events, said again at once, and stays open as it did."""
    [bob] = emulator.seed("person", {"name": "Bob", "email_addresses": ["bob@y.io"]})
    with record(path, upstream=emulator.url, redact=["email_addresses"]) as tape:
        text = {"content": "bob@y.io asked for a demo."}
        heard = await _listen(tape.url, bob.id, lambda: emulator.request("POST", "/v1/context/text", body=text))
    assert heard == [": connected", "bob@y.io"]
    assert "bob@y.io" not in path.read_text()
    stream = lines_of(path)[1]["reply"]
    assert [event.partition(" ")[0] for event in stream["events"]] == [":", "event:"]
    assert stream["ended"] is False
    with replay(path) as again:
        assert await _listen(again.url, bob.id, lambda: None) == [": connected", "redacted-1"]
        assert again.unused() == []


async def _listen(url: str, person_id: str, happen: Callable[[], object]) -> list[str]:
    """Return the beginning of a stream and whom its first insight is about; see that it stays open."""
    headers = {"Authorization": f"Bearer {KEY}", "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url + "/v1/insights/stream") as response:
        assert response.content_type == "text/event-stream"
        comment = (await response.content.readuntil(b"\n\n")).decode()
        happen()
        event = (await response.content.readuntil(b"\n\n")).decode()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(response.content.readany(), 0.05)
        async with session.get(f"{url}/v1/records/{person_id}") as betrayed:
            assert betrayed.status == 200
    insight = json.loads(event.partition("data: ")[2])["insights"][0]
    return [comment.partition(" workspace")[0], insight["content"].split()[0]]


async def test_a_feed_from_a_cassette(emulator: EmulatorThread, path: Path) -> None:
    """A whole insight feed runs on a replayed stream; what it asks by the clock is redacted to match at any time."""

    async def first(nex: Nex) -> str:
        async with nex.insights.stream() as feed:
            if nex.base_url == tape.url:
                emulator.request("POST", "/v1/context/text", body={"content": "Ada asked for a demo."})
            async for event in feed:
                return event.insight.content or ""
        raise AssertionError("the feed ended")

    with record(path, upstream=emulator.url, redact=["from", "to"]) as tape:
        async with tape.client(api_key=KEY) as nex:
            told = await first(nex)
    heard = ""
    try:
        with replay(path) as again:
            async with again.client() as nex:
                heard = await first(nex)
    except AssertionError as error:  # how often a feed reads the list is a matter of time
        assert {line.split("?")[0].strip() for line in str(error).splitlines()[1:]} == {"GET /v1/insights"}
    assert heard == told == "Ada asked for a demo."


# ---- what gets into the file, and what does not -------------------------------------------------------------------


ESCAPED = KEY.replace("-", "\\u002d")


async def _teller(request: web.BaseRequest) -> web.StreamResponse:
    """Tell the key in every way a careless server could."""
    await request.read()
    key = request.headers["Authorization"].partition(" ")[2]
    headers = {
        "Set-Cookie": f"session={key}",
        "X-Key": key,
        "X-Request-Id": f"for-{key}",
        "Location": f"/?key={quote(key, safe='')}",
    }
    place = request.rel_url.path.rpartition("/")[2]
    if place == "stream":
        response = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        for start in range(0, len(key), 5):  # in pieces
            await response.write(b": " * (start == 0) + key[start : start + 5].encode())
        await response.write(f'\n\ndata: {{"key": "{ESCAPED}"}}\n\ndata: {key}'.encode())
        return response
    body: bytes = {
        "json": json.dumps({"key": key, key: [f"Bearer {key}"]}).encode(),
        "escaped": f'{{"key": "{ESCAPED}", "other": "nex_dev_0123456789"}}'.encode(),
        "html": f"<html>{key}</html>".encode(),
        "cut": f'{{"code": 500, "message": "{key}'.encode(),
        "binary": b"\xff\xfe" + key.encode() + b"\x00",
    }[place]
    if request.headers.get("Accept-Encoding", "").startswith("gzip"):
        body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
    return web.Response(status=500 if place == "cut" else 200, body=body, headers=headers)


async def test_the_key_is_never_in_the_file(path: Path) -> None:
    """Whatever a server does with the key, in JSON, pages, errors, headers, streams, packed or not: the file does not have it,
    nor that of another; and the client hears all of it while it records."""
    headers = {"Authorization": f"Bearer {KEY}", "Cookie": f"session={KEY}", "X-Key": KEY}
    async with serve(_teller) as origin, aiohttp.ClientSession(headers=headers) as session:
        with record(path, upstream=origin) as tape:
            for place in ("json", "escaped", "html", "cut", "binary", "stream", f"{KEY}/json"):
                url = f"{tape.url}/v1/{place}?key={KEY}&other=sk-another-key-1"
                async with session.post(url, json={"key": KEY, KEY: f"x{KEY}"}) as response:
                    heard = await response.read()
                    assert KEY.encode() in heard.replace(b"\\u002d", b"-")
                    assert response.headers.get("Set-Cookie") is None
                async with session.post(f"{tape.url}/v1/html", data=KEY) as response:
                    await response.read()
    text = path.read_text()
    assert not leaked(text.replace("\\u002d", "-"))
    for other in ("sk-another-key-1", "nex_dev_0123456789"):
        assert other not in text
    packed = [line["reply"]["base64"] for line in lines_of(path)[1:] if "base64" in line["reply"]]
    assert len(packed) == 1
    assert not any(leaked(base64.b64decode(each).decode("latin-1")) for each in packed)
    assert text.count("redacted-key") > 40
    with replay(path) as again:
        async with aiohttp.ClientSession(headers=headers) as session:
            for place in ("json", "escaped", "html", "cut", "binary", "stream", f"{KEY}/json"):
                url = f"{again.url}/v1/{place}?key={KEY}&other=sk-another-key-1"
                async with session.post(url, json={"key": KEY, KEY: f"x{KEY}"}) as response:
                    assert b"redacted-key" in await response.read()
                    assert response.status == (500 if place == "cut" else 200)
        assert {each.partition("?")[0] for each in again.unused()} == {"POST /v1/html"}


async def test_a_key_of_no_known_shape(path: Path) -> None:
    """A key is known by its place in the request, whatever it looks like."""
    headers = {"Authorization": "Bearer c0ffee/=+"}
    async with serve(_teller) as origin, aiohttp.ClientSession(headers=headers) as session:
        with record(path, upstream=origin) as tape:
            async with session.get(f"{tape.url}/v1/html"):
                pass
    assert "c0ffee" not in path.read_text()


async def test_bodies_of_every_kind(path: Path) -> None:
    """JSON, text, bytes, nothing, large ones: what is recorded and what is replayed are equal; big numbers stay whole."""
    bodies = [
        b'{"id": 28730195732557761123456789, "text": "\xe2\x80\xa8 \\ud83d\\ude00", "empty": {}, "none": null}',
        b'{"half": "\\ud83d"}',
        b'{"no": NaN, "nor": Infinity}',
        b"[]",
        b"null",
        b"",
        b"\x00\xff\xfe",
        "Grüße".encode(),
        json.dumps({"long": "x" * 3_000_000}).encode(),
    ]

    async def mirror(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=await request.read(), content_type="application/json")

    async def ask(url: str) -> None:
        for number, body in enumerate(bodies):
            async with session.post(f"{url}/v1/{number}/a%2Fb?x=1&x=2&y=", data=io.BytesIO(body)) as response:
                heard = await response.read()
                assert response.status == 200
                assert heard == body or json.loads(heard) == json.loads(body)

    async with serve(mirror) as origin, aiohttp.ClientSession() as session:
        with record(path, upstream=origin) as tape:
            await ask(tape.url)
        with replay(path) as again:
            await ask(again.url)
            assert again.unused() == []
    assert b'NaN, \\"nor' in path.read_bytes()  # as text, for it is no JSON
    first = lines_of(path)[1]["request"]
    assert (first["path"], first["query"]) == ("/v1/0/a%2Fb", {"x": ["1", "2"], "y": ""})


async def test_placeholders_match_each_other(path: Path) -> None:
    """A redacted text has one placeholder wherever it stands: before the field that betrays it, in paths and queries, inside
    longer texts; numbers become 0, the shape stays, and short texts are left alone elsewhere."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if request.rel_url.path.endswith("stream"):
            text = 'id: 1\r\ndata: {"say": "a\u2028b",\r\ndata: "mail": "eve@z.io"}\r\nretry: 5\r\n\r\n'
            return web.Response(text=text, content_type="text/event-stream")
        return web.Response(body=body or b'{"text": "to ada@x.io, not to bada@x.io"}', content_type="application/json")

    sent = {"mail": {"first": "ada@x.io", "more": ["", None, True, 7, 1.5, "bob@y.io", "ada@x.io", "a"]}, "a": "a"}
    async with serve(answer) as origin, aiohttp.ClientSession() as session:
        with record(path, upstream=origin, redact=["mail"]) as tape:
            for asking in (
                session.get(f"{tape.url}/v1/early/ada%40x.io", params={"to": "ada@x.io"}),
                session.post(f"{tape.url}/v1/late", json=sent),
                session.get(f"{tape.url}/v1/query", params={"mail": "eve@z.io"}),
                session.get(f"{tape.url}/v1/stream"),
            ):
                async with asking as response:
                    await response.read()
    early, late, query, stream = lines_of(path)[1:]
    assert early["request"]["path"] == "/v1/early/redacted-1"
    assert early["request"]["query"] == {"to": "redacted-1"}
    assert early["reply"]["json"] == {"text": "to redacted-1, not to bada@x.io"}
    redacted = {"first": "redacted-1", "more": ["", None, True, 0, 0.0, "redacted-2", "redacted-1", "redacted-3"]}
    assert late["request"]["json"] == late["reply"]["json"] == {"mail": redacted, "a": "a"}
    assert query["request"]["query"] == {"mail": "redacted-4"}
    told = 'id: 1\r\ndata: {"say":"a\u2028b","mail":"redacted-4"}\nretry: 5\r\n\r\n'
    assert stream["reply"]["events"] == [told]
    assert stream["reply"]["ended"]


async def test_a_placeholder_is_one_thing(path: Path) -> None:
    """A placeholder is any text, but the same in every request, and no two are the same; what the test sent comes back."""
    path.parent.mkdir()
    requests = [
        {"method": "POST", "path": "/v1/a/redacted-1", "json": {"to": "redacted-2", "sum": 0}},
        {"method": "GET", "path": "/v1/b", "query": {"who": "<redacted-1>"}},
    ]
    reply = {"status": 200, "json": {"one": "redacted-1", "two": ["for redacted-2 and redacted-3"]}}
    stream = {"status": 200, "headers": {"Content-Type": "text/event-stream"}, "events": ['data: {"one": "redacted-1"}\n\n']}
    exchanges = [{"request": request, "reply": reply} for request in requests]
    exchanges.append({"request": {"method": "GET", "path": "/v1/c"}, "reply": stream})
    head = {"cassette": 1, "redacted": ["sum"]}
    path.write_text("\n".join(json.dumps(line) for line in (head, *exchanges, exchanges[1])))
    async with aiohttp.ClientSession() as session:
        with replay(path) as tape:

            async def ask(method: str, place: str, **options: Any) -> tuple[int, str]:
                async with session.request(method, tape.url + place, **options) as response:
                    return response.status, await response.text()

            same = await ask("POST", "/v1/a/ada", json={"to": "ada", "sum": 7})
            assert same[0] == 400
            assert (await ask("POST", "/v1/a/a%22da", json={"to": "bob", "sum": 7}))[1] == (
                '{"one":"a\\"da","two":["for bob and redacted-3"]}'
            )
            assert (await ask("GET", "/v1/b?who=<bob>"))[0] == 400
            assert (await ask("GET", '/v1/b?who=<a"da>'))[0] == 200
            assert (await ask("GET", "/v1/b?who=<redacted-1>"))[0] == 200
            assert await ask("GET", "/v1/c") == (200, 'data: {"one": "a\\"da"}\n\n')
            tape.unexpected.clear()


# ---- what goes wrong ------------------------------------------------------------------------------------------------


async def test_what_broke_off_is_not_recorded(emulator: EmulatorThread, path: Path) -> None:
    """A reply that is lost on its way is lost for the client too, and not in the file; the repeated call is."""
    with record(path, upstream=emulator.url) as tape:
        async with tape.client(api_key=KEY) as nex:
            for kind in ("reset", "cut_body"):
                emulator.faults.add(kind=kind)
                with pytest.raises(ConnectionLost):
                    await nex.tasks.get(7, retries=0)
            emulator.faults.add(kind="status", status=503)
            with pytest.raises(NotFoundError):
                await nex.tasks.get(7)
    assert [line["reply"]["status"] for line in lines_of(path)[1:]] == [503, 404]


async def test_a_server_that_is_not_there(path: Path) -> None:
    """A real server that cannot be reached is a lost connection to the client, and the file is empty of it."""
    with record(path, upstream="http://127.0.0.1:9") as tape:
        async with tape.client(api_key=KEY) as nex:
            with pytest.raises(NexError):
                await nex.tasks.get(7, retries=0)
    assert len(lines_of(path)) == 1


async def test_nothing_is_half_written(emulator: EmulatorThread, path: Path) -> None:
    """A block that ends by an error leaves the old file, and no other."""
    for title in ("first", "second"):
        with record(path, upstream=emulator.url) as tape:
            async with tape.client(api_key=KEY) as nex:
                await nex.tasks.create(title)
    with pytest.raises(KeyboardInterrupt), record(path, upstream=emulator.url) as tape:
        async with tape.client(api_key=KEY) as nex:
            await nex.tasks.create("third")
        raise KeyboardInterrupt
    assert [line["request"]["json"]["title"] for line in lines_of(path)[1:]] == ["second"]
    assert [each.name for each in path.parent.iterdir()] == ["tape.jsonl"]


def test_a_last_look(path: Path) -> None:
    """Should redaction ever fail, the file is not written."""
    from nex_async.testing.cassette import Cassette, Exchange, write_cassette

    exchange = Exchange("GET", f"/v1/{KEY}", {}, {}, 200, {}, {})
    with pytest.raises(RuntimeError, match="nothing was written") as refused:
        write_cassette(path, Cassette([exchange], frozenset()), secrets=[KEY])
    assert not leaked(str(refused.value))
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "explained"),
    [
        ("", "line 1"),
        ("{}\n", "not a cassette of version 1"),
        ("[1]\n", "line 1: not a JSON object"),
        ('{"cassette":2}\n', "not a cassette of version 1"),
        ('{"cassette":1}\n\n{"request":\n', "line 3: not JSON"),
        ('{"cassette":1}\n{"request":{"method":"GET"},"reply":{}}\n', "line 2: not an exchange: KeyError"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, explained: str) -> None:
    """A file that is no cassette is refused, with the line."""
    path = tmp_path / "tape.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=explained), replay(path):
        pass
    with pytest.raises(FileNotFoundError), replay(tmp_path / "none.jsonl"):
        pass


@pytest.mark.parametrize(
    ("arguments", "explained"),
    [
        ({"redact": "email"}, "redact"),
        ({"upstream": "http://example.com"}, "upstream"),
        ({"upstream": "ftp://x"}, "upstream"),
    ],
)
def test_arguments_that_cannot_be_right(path: Path, arguments: dict[str, Any], explained: str) -> None:
    """They are refused before anything is sent."""
    with pytest.raises(ConfigError, match=explained), record(path, **arguments):
        pass


async def test_a_path_that_is_not_below_the_base_url(emulator: EmulatorThread, path: Path) -> None:
    """The recorder names its base URL to a client that does not use it."""
    with record(path, upstream=emulator.url) as tape:
        async with aiohttp.ClientSession() as session, session.get(tape.url.partition("/api")[0] + "/v1/tasks") as response:
            assert response.status == 404
            assert tape.url in await response.text()


def test_in_synchronous_tests(emulator: EmulatorThread, path: Path) -> None:
    """Both work in synchronous tests too: the client runs on a loop of the test's own."""

    async def create(tape: Any) -> str | None:
        async with tape.client(api_key=KEY) as nex:
            return (await nex.tasks.create("Call")).title

    with record(path, upstream=emulator.url) as tape:
        assert asyncio.run(create(tape)) == "Call"
    with replay(path) as again:
        assert isinstance(again, Replay)
        assert asyncio.run(create(again)) == "Call"
