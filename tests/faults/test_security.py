"""Secrets, hostile input and hostile peers (rows X1 to X32)."""

from __future__ import annotations

import ast
import asyncio
import copy
import json
import logging
import pickle
import ssl
import sys
import traceback
from collections.abc import Iterator
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

import nex_async
from nex_async import (
    APIError,
    Attempt,
    AuthenticationError,
    ConfigError,
    DecodeError,
    InvalidRequestError,
    Nex,
    NexError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitError,
    RequestSummary,
    RetryPolicy,
    Secret,
    SessionPool,
    routes,
)
from nex_async.errors import printable, redact
from nex_async.routes import Route
from nex_async.transport import wire

from ..harness.canary import KEY, chain_of, leaked
from ..harness.raw_server import RawServer, Seen, answer, hold, json_reply, read_request, render, reset, send, serve
from .hostile import escapes, examples

BASE = "http://127.0.0.1:1/api/developers"


def client(url: str, **more: Any) -> Nex:
    return Nex(more.pop("key", KEY), base_url=url, **more)


# ---- X1 to X5: where a key could show -------------------------------------------------------------------------------


def parts_of(thing: Any, depth: int = 0) -> Iterator[Any]:
    """Yield what can be reached from an object through its attributes, as a debugger or an error reporter would."""
    yield thing
    if depth > 4 or isinstance(thing, (str, bytes, int, float, type(None), type)):
        return
    names = list(getattr(thing, "__dict__", {})) + [
        name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ()) if isinstance(name, str)
    ]
    if not type(thing).__module__.startswith("nex_async"):
        return
    for name in names:
        yield from parts_of(getattr(thing, name, None), depth + 1)


async def test_x01_nothing_prints_the_key() -> None:
    """Neither repr, str, format, vars nor JSON of a client, or of anything reachable from it, shows the key."""
    async with RawServer([serve(lambda seen: json_reply({"id": "1"}))]) as server, client(server.url) as nex:
        await nex.tasks.get(1)
        things = [*parts_of(nex), *parts_of(nex.with_options(timeout=5)), *parts_of(nex.records.list("person")), Secret(KEY)]
        assert any("Authorization" in repr(thing) for thing in things), "the walk does not reach the headers"
        for thing in things:
            if isinstance(thing, str):
                assert not leaked(repr(thing))
                continue
            assert not leaked(f"{thing!r} {thing!s} {thing}"), type(thing)
            assert not leaked(repr(getattr(thing, "__dict__", ""))), type(thing)
            try:
                assert b"canary" not in msgspec.json.encode(thing)
            except (TypeError, ValueError, RecursionError, NotImplementedError):
                continue


@pytest.mark.parametrize("key", ["sk-1", "sk-12345678", "sk-123456789", "sk-" + "x" * 200])
def test_x01_mask(key: str) -> None:
    """A masked key shows at most its last four characters, and nothing of a short one."""
    shown = repr(Secret(key))
    assert key not in shown
    assert (key[-4:] in shown) == (len(key) >= 12)
    assert format(Secret(key), ">60").strip() == str(Secret(key)) == shown


def shows_key(error: BaseException) -> bool:
    """Return whether any side of an error, or of the frames of ours that it passed, shows the key."""
    text = [*traceback.TracebackException.from_exception(error, capture_locals=True).format()]
    text += [repr(error), str(error), repr(error.args), repr(vars(error)), repr(getattr(error, "__notes__", ""))]
    if isinstance(error, NexError):
        text.append(pickle.dumps(error).decode("latin-1"))
    return leaked("".join(text)) or any(shows_key(other) for other in chain_of(error))


def below_the_test(error: BaseException) -> BaseException:
    """Return an error without the test's own frame, which may hold what it likes."""
    assert error.__traceback__ is not None
    return error.with_traceback(error.__traceback__.tb_next)


TOLD = {"Authorization": f"Bearer {KEY}"}
MET_AT = {
    "refused": list,
    "401 that quotes the key": lambda: [answer(json_reply({"message": f"bad key {KEY}", "detail": KEY}, 401))],
    "500 html that quotes the key": lambda: [answer(render(f"<b>{KEY}</b>".encode(), 500))],
    "redirect to the key": lambda: [answer(json_reply({}, 302, {"Location": f"https://{KEY}.evil.com/{KEY}"}))],
    "headers that quote the key": lambda: [answer(json_reply({}, 400, {"X-Request-Id": KEY, **TOLD}))],
    "not json, with the key": lambda: [answer(json_reply(0).replace(b"\r\n\r\n0", b"\r\n\r\n#" + KEY.encode()))],
    "a row that is the key": lambda: [answer(json_reply({"id": [KEY], "title": KEY}))],
    "garbage for a status line": lambda: [answer(f"NEX {KEY}\r\n\r\n".encode())],
    "garbage for a header": lambda: [answer(f"HTTP/1.1 200 OK\r\n{KEY} \x00\r\n\r\n".encode())],
    "reset": lambda: [read_request, reset],
    "silence": lambda: [read_request, hold],
    "half a body": lambda: [read_request, send(json_reply({"id": KEY})[:-9])],
}


@pytest.mark.parametrize("where", MET_AT)
@pytest.mark.parametrize("method", ["get", "create"])
async def test_x02_x03_errors_do_not_show_the_key(where: str, method: str) -> None:
    """No error shows the key: not in its text, fields, causes, pickles, or the locals of our frames, whatever failed."""
    async with RawServer(MET_AT[where]() or [hold]) as server:
        url = server.url if where != "refused" else "http://127.0.0.1:9"
        async with client(url) as nex:
            with pytest.raises(NexError) as caught:
                if method == "get":
                    await nex.tasks.get(1, retries=1, timeout=1 if where == "silence" else 5)
                else:
                    await nex.tasks.create("Call", retries=0, timeout=1)
    assert not shows_key(below_the_test(caught.value))


def test_x03_a_constructor_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A setting that is refused does not bring the key along, wherever the key came from."""

    def attempt(**arguments: Any) -> BaseException:
        with pytest.raises(ConfigError) as caught:
            Nex(**arguments)
        return below_the_test(caught.value)

    for bad in ({"base_url": "http://evil.example"}, {"timeout": 0}, {"source": "\n"}, {"retry": 5}):
        error = attempt(api_key=KEY, **bad)
        assert not shows_key(error)
        monkeypatch.setenv("NEX_API_KEY", KEY)
        assert not shows_key(attempt(**bad))
        monkeypatch.delenv("NEX_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / ".nex/config.json"
    config.parent.mkdir()
    for content in (json.dumps({"api_key": KEY, "base_url": "http://evil.example"}), f'{{"api_key": "{KEY}"'):
        config.write_text(content)
        config.chmod(0o600)
        assert not shows_key(attempt())
    config.write_text(json.dumps({"api_key": KEY, "active_workspace": "alder"}))
    damaged = tmp_path / ".nex/workspaces/alder/credentials.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    assert not shows_key(attempt())


@pytest.mark.parametrize("text", ["{}\r\nX: y", "{}\x00", "\u00e9{}", "a {}", "{} b"])
def test_x07_key_is_not_echoed(text: str) -> None:
    """A key that is refused is not in the error that refuses it."""
    with pytest.raises(ConfigError) as caught:
        Secret(text.format(KEY))
    assert not shows_key(below_the_test(caught.value))


async def test_x04_logs_do_not_show_the_key(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, with asyncio in debug mode, and with a server that quotes the key, no log line shows it."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    reply = answer(json_reply({"message": KEY}, 500, {"X-Request-Id": KEY}))
    script = [reply, reply, answer(json_reply({"id": "1"}))]
    async with RawServer(script) as server, client(server.url, on_request=lambda details: 1 / 0) as nex:
        await nex.tasks.get(1)
    asyncio.get_running_loop().set_debug(False)
    assert any("retrying getTask" in record.getMessage() for record in caplog.records)
    assert not leaked(caplog.text)


def test_x04_redaction_by_shape() -> None:
    """Everything that looks like a key is masked, with any characters a key may have; words that merely end in sk- stay."""
    for secret in ("sk-abc123", "sk-abc.DEF+ghi/jkl=", "nex_dev_0123", "Bearer abcdefgh", "NEX_API_KEY=abc"):
        for text in (secret, f"bad key {secret}", f'{{"k":"{secret}"}}', f"<b>{secret}</b>", f"({secret}),"):
            tail = secret.rpartition("abc")[2] or "0123"
            assert "[redacted]" in redact(text), text
            assert not tail or tail not in redact(text), text
    for text in ("ask-me-anything", "task-list-of-ada", "risk-averse", "disk-usage", "a desk-bound job"):
        assert redact(text) == text


@pytest.mark.parametrize(
    "make", [lambda: Nex(KEY), SessionPool, lambda: Secret(KEY), lambda: Nex(KEY)._state.tenant.headers], ids=range(4)
)
def test_x05_no_pickle_no_copy(make: Any) -> None:
    """What holds a key cannot be pickled or copied, and says so in plain words."""
    thing = make()
    for way in (pickle.dumps, copy.copy, copy.deepcopy, lambda it: pickle.dumps(it, 0)):
        if way is copy.copy and not isinstance(thing, (Nex, SessionPool, Secret)):
            continue  # a shallow copy of a header map holds the same masked value
        with pytest.raises(TypeError):
            way(thing)


def all_errors(root: type[NexError] = NexError) -> Iterator[type[NexError]]:
    yield root
    for kind in root.__subclasses__():
        yield from all_errors(kind)


@pytest.mark.parametrize("kind", sorted({*all_errors()}, key=lambda kind: kind.__name__))
def test_x05_errors_pickle(kind: type[NexError]) -> None:
    """Every error comes back from a pickle and a copy with its message and all of its plain data."""
    error = kind(f"went wrong with {KEY}")
    error.request = RequestSummary("getTask", "GET", "/v1/tasks/1")
    error.attempts = (Attempt(1, 0.0, 0.5, "500", 0.1),)
    error.checkpoint = "tasks|10"
    if isinstance(error, APIError):
        error.retry_after, error.request_id, error.body = 5.0, "r1", b"{}"
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is kind
        assert vars(other) == vars(error)
        assert str(other) == str(error)
        assert str(other).startswith("getTask (GET /v1/tasks/1): went wrong with [redacted]")
    assert not leaked(repr(error) + repr(vars(error)))


# ---- X7 and X8: keys and headers ------------------------------------------------------------------------------------


NO_KEYS = [
    "",
    " ",
    "\n",
    "sk-a\r\nX:",
    "sk-a\nb",
    "sk-a\x00b",
    "sk-a\tb",
    "sk-a b",
    "sk-\x7f",
    "sk-é",
    "sk-\u202e",
    "sk\ud800",
]


@pytest.mark.parametrize("key", NO_KEYS)
def test_x07_keys_that_cannot_be(key: str) -> None:
    """A key with control, space or non-ASCII characters is refused when it is given, not when it is sent."""
    with pytest.raises(ConfigError):
        Nex(key)


@given(st.text(max_size=20))
def test_x07_any_key(text: str) -> None:
    """Any text is refused as a key, or sent exactly as it is."""
    key = "sk-" + text
    try:
        sent = str.__str__(Secret(key).authorization())
    except (ConfigError, UserWarning):
        return
    assert sent == f"Bearer {key}"
    assert all(33 <= ord(character) < 127 for character in key)


@pytest.mark.parametrize("key", [f" {KEY}", f"{KEY}\n", f"\t{KEY}\r\n"])
def test_x08_white_space_around_a_key(key: str) -> None:
    """White space around a key, as files and shells leave it, is removed, with one warning that does not show the key."""
    with pytest.warns(UserWarning, match="white space") as caught:
        assert str.__str__(Secret(key).reveal()) == KEY
    assert len(caught) == 1
    assert not leaked(str(caught[0].message))


HEADERS: list[dict[Any, Any]] = [
    {"X-A": "a\r\nX-B: b"},
    {"X-A": "a\nb"},
    {"X-A": "a\x00"},
    {"X-A": "\x7f"},
    {"X-A": "é"},
    {"X-A": 5},
    {"X-A": None},
    {"X A": "a"},
    {"X-A:": "a"},
    {"X-A\r\nX-B": "a"},
    {"": "a"},
    {5: "a"},
    {"Authorization": "Bearer other"},
    {"authorization": "Bearer other"},
    {"Host": "evil.com"},
    {"Content-Length": "0"},
    {"Transfer-Encoding": "chunked"},
    {"Cookie": "a=b"},
    {"Proxy-Authorization": "Basic x"},
]


@pytest.mark.parametrize("headers", HEADERS)
async def test_x07_headers(headers: dict[Any, Any]) -> None:
    """A header that could smuggle another, or that is the SDK's own, is refused before anything is sent."""
    async with RawServer([serve(lambda seen: json_reply({"id": "1"}))]) as server, client(server.url) as nex:
        for call in (
            lambda: nex.tasks.get(1, headers=headers),
            lambda: nex.with_options(headers=headers).tasks.get(1),
            lambda: Nex(KEY, headers=headers).tasks.get(1),
        ):
            with pytest.raises(InvalidRequestError):
                await call()
        assert server.connections == 0


@pytest.mark.parametrize("key", ["a\r\nX: y", "\x00", "é", 5])
async def test_x07_idempotency_keys(key: Any) -> None:
    """An idempotency key obeys the rules of a header."""
    async with RawServer([serve(lambda seen: json_reply({"id": "1"}))]) as server, client(server.url) as nex:
        with pytest.raises(InvalidRequestError):
            await nex.tasks.create("Call", idempotency_key=key)
        assert server.connections == 0


# ---- X9 to X13: paths and queries -----------------------------------------------------------------------------------


class Word(str, Enum):
    PERSON = "person"


class Number(IntEnum):
    FIVE = 5


HOSTILE: list[Any] = [
    "..", ".", "...", "../", "/..", "../..", "..;", "..\\", "\\..", "\\", "/", "//", "a/b", "a\\b", "/etc/passwd",
    "%2e%2e", "%2E%2E", ".%2e", "%2e", "%2f", "..%2f", "%2f..", "%5c", "%252e%252e", "%25%32%65", "%252f", "%00",
    "%0d%0a", "%", "%%", "%zz", "%u002e", "?", "a?b=c", "#", "a#b", ";", "a;b", ":", "@", "&", "=", "+", "*", "~", "$",
    "!", "'", "(", ",", "", " ", "\t", "\n", "\u00a0", "\u3000", "\x00", "a\x00", "\x7f", "\x1b[31m", "a\r\nHost: evil",
    "a b", " a ", "..\u200b", "\u202e", "\ufeff", "\uff0e\uff0e", "\u2024\u2024", "é", "日本", "\U0001f600", "\ud800",
    "a\udfff", "a" * 129, "a" * 4096, "a" * 100_000, "é" * 3000, "eyJhbGciOiJkaXIifQ==", "abc+def/ghi=", "a/../b",
    "/v1/objects", "person/records", "{slug}", "{0}", 0, -1, 5, 10**30, 10**5000, -(10**5000), 1.5, float("nan"), True,
    False, None, b"a", [], {}, ("a",), object(), Word.PERSON, Number.FIVE,
]  # fmt: skip
TEMPLATES = [pytest.param(route, id=route.name) for route in routes.ALL if route.params]


def check_path(route: Route[Any], path: tuple[Any, ...]) -> None:
    """Fail unless the path is refused, or keeps the template's segments and literals in whatever way a peer reads it."""
    target, refused = "", None
    try:
        target = wire.build(route, path).target
    except InvalidRequestError as error:
        refused = error
    if refused is not None:
        assert refused.argument in (*route.params, "query")
        assert str(refused).isprintable()
        return
    template = route.path.split("/")
    url = URL(BASE + target, encoded=True)
    raw = url.raw_path.removeprefix("/api/developers")
    assert raw == target, "the URL library changed the path"
    assert not url.raw_query_string
    assert not url.raw_fragment
    assert (url.host, url.port) == ("127.0.0.1", 1)
    assert target.isascii()
    assert target.isprintable()
    assert " " not in target
    segments = target.split("/")
    assert len(segments) == len(template)
    for segment, expected in zip(segments, template, strict=True):
        if not expected.startswith("{"):
            assert segment == expected
            continue
        read = unquote(segment)
        for text in (segment, read, unquote(read)):
            assert text.strip() not in ("", ".", "..")
            assert "\\" not in text
            assert "/" not in text or expected == "{connect_id}"
            assert not {".", ".."} & set(text.split("/"))


@pytest.mark.parametrize("route", TEMPLATES)
def test_x09_x12_every_parameter_of_every_route(route: Route[Any]) -> None:
    """A hostile id in any place of any path is refused, or stays within its own segment."""
    for place in range(len(route.params)):
        for hostile in HOSTILE:
            path: list[Any] = ["5"] * len(route.params)
            path[place] = hostile
            check_path(route, tuple(path))


REFUSED: list[Any] = ["", " ", "\n", ".", "..", "%2e%2e", "%252e%252e", "a/b", "..%2f", "a\\b", "a\x00"]
REFUSED += [None, True, 1.5, b"a", float("nan")]


@pytest.mark.parametrize("route", TEMPLATES)
@pytest.mark.parametrize("hostile", REFUSED, ids=repr)
def test_x11_never_the_collection(route: Route[Any], hostile: Any) -> None:
    """What is empty, no id at all, or a way out is refused in every place of every path, and the parameter is named."""
    for place, name in enumerate(route.params):
        if name == "connect_id" and hostile == "a/b":
            continue
        path: list[Any] = ["5"] * len(route.params)
        path[place] = hostile
        with pytest.raises(InvalidRequestError) as caught:
            wire.build(route, tuple(path))
        assert caught.value.argument == name


nasty = st.lists(
    st.sampled_from([".", "..", "/", "\\", "%2e", "%2f", "%25", "%5c", "%", "?", "#", ";", "a", "\n", "\x00", "é", "\ud800"])
    | st.characters(),
    max_size=8,
).map("".join)


def any_text_stays_in_its_segment(number: int) -> None:
    """Try so many texts in the paths; fail at the first that leaves its segment."""

    @settings(max_examples=number, deadline=None, database=None)
    @given(st.sampled_from([route for route in routes.ALL if route.params]), st.lists(nasty, min_size=2, max_size=2))
    def hold(route: Route[Any], values: list[str]) -> None:
        check_path(route, tuple(values[: len(route.params)]))

    hold()


def test_x10_any_text_stays_in_its_segment() -> None:
    """Any text in a path is refused, or stays within its own segment."""
    any_text_stays_in_its_segment(400)


def test_x10_ordinary_ids_pass() -> None:
    """Ids as they are go through unchanged: digits, integers, UUIDs, prefixed ids, and tokens percent-encoded."""
    for value, rendered in [
        (90071992547409931, "90071992547409931"),
        ("90071992547409931", "90071992547409931"),
        ("0b0c1d2e-1111-2222-3333-444455556666", "0b0c1d2e-1111-2222-3333-444455556666"),
        ("art_1", "art_1"),
        ("ghost:123", "ghost%3A123"),
        (Number.FIVE, "5"),
        (Word.PERSON, "person"),
    ]:
        assert wire.build(routes.GET_TASK, (value,)).target == f"/v1/tasks/{rendered}"
    assert wire.build(routes.GET_OBJECT, (Word.PERSON,)).target == "/v1/objects/person"
    token = "eyJ+a/b=="
    target = wire.build(routes.GET_CONNECT_STATUS, (token,)).target
    assert unquote(target.split("/")[4]) == token


async def test_x09_nothing_is_sent() -> None:
    """The dangerous calls of the table raise before a socket is opened."""
    async with RawServer([serve(lambda seen: json_reply({}))]) as server, client(server.url) as nex:
        for call in (
            lambda: nex.objects.delete_attribute("person", ".."),
            lambda: nex.records.delete(""),
            lambda: nex.objects.delete("."),
            lambda: nex.lists.remove_member(5, "%2e%2e"),
            lambda: nex.records.delete(None),  # type: ignore[arg-type]
            lambda: nex.request("DELETE", "/v1/objects/person/attributes/.."),
            lambda: nex.request("GET", "/v1/objects?x=1"),
            lambda: nex.request("GET", "https://evil.com/v1/objects"),
            lambda: nex.request("GET", "//evil.com/v1/"),
            lambda: nex.request("TRACE", "/v1/objects"),
            lambda: nex.records.list("../x").collect(),
            lambda: nex.context.add_text(""),
        ):
            with pytest.raises(InvalidRequestError):
                await call()
        for job in (nex.context.attach, nex.ai_lists.attach, nex.compounding.attach):
            with pytest.raises(InvalidRequestError):
                job("../x")
        assert server.connections == 0


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(st.dictionaries(words, st.text(max_size=20) | st.just("\ud800"), max_size=4))
def test_x13_queries_are_encoded_once(query: dict[str, str]) -> None:
    """What a query says is what the server reads; nothing in it can add a parameter, a fragment or a line."""
    try:
        target = wire.build(routes.LIST_TASKS, (), query).target
    except InvalidRequestError:
        assert any(0xD800 <= ord(character) < 0xE000 for text in query.values() for character in text)
        return
    rest = target.removeprefix("/v1/tasks").removeprefix("?")
    assert dict(parse_qsl(rest, keep_blank_values=True, strict_parsing=bool(rest))) == query
    assert target.isascii()
    assert target.isprintable()
    assert "#" not in target
    assert URL(BASE + target, encoded=True).raw_query_string == rest


@pytest.mark.parametrize(
    "query",
    [
        {"a": "\ud800"},
        {"\ud800": "a"},
        {"a": "x" * 9000},
        {"a": "x" * 1_000_000},
        {"a": b"x"},
        {"a": [1]},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": 10**5000},
        {5: "a"},
        {None: "a"},
    ],
)
def test_x13_queries_that_cannot_be(query: dict[Any, Any]) -> None:
    """What cannot be said in a query, or makes the URL too long, is refused before it is sent."""
    with pytest.raises(InvalidRequestError):
        wire.build(routes.LIST_TASKS, (), query)


# ---- X17 to X20: other hosts, proxies, cookies ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_x17_redirects_are_not_followed(status: int) -> None:
    """A redirect to another origin, or to the same, is an error; not a byte goes there, neither key nor body."""
    async with RawServer([hold]) as evil:
        for target in (f"{evil.url}/api/developers/v1/tasks", "/api/developers/v1/tasks/2", "javascript:alert(1)", ""):
            redirect = json_reply({}, status, {"Location": target})
            async with RawServer([serve(lambda seen, reply=redirect: reply)]) as server, client(server.url) as nex:
                for call in (nex.tasks.get(1), nex.tasks.create("Call")):
                    with pytest.raises((ProtocolError, OutcomeUnknownError)) as caught:
                        await call
                    assert "redirect" in str(caught.value.__cause__ or caught.value)
                assert len(server.requests) == 2
        assert evil.connections == 0


async def test_x18_p14_links_in_replies_are_not_followed() -> None:
    """Links the server gives, to a next page or to an OAuth page, are text: nobody opens them, and only cursors are used."""
    async with RawServer([hold]) as evil:
        link = f"{evil.url}/api/developers/v1/records"
        page = {"data": [{"id": "1"}], "has_next_page": True, "next_cursor": link, "next": link, "links": {"next": link}}

        def reply(seen: Seen) -> bytes:
            if "connect" in seen.target:
                return json_reply({"auth_url": link, "connect_id": "eyJ"})
            return json_reply(page if "cursor" not in seen.target else {"data": [{"id": "2"}]})

        async with RawServer([serve(reply)]) as server, client(server.url) as nex:
            rows = await nex.records.timeline(5).collect()
            assert [row.id for row in rows] == ["1", "2"]
            assert dict(parse_qsl(server.requests[1].target.partition("?")[2])) == {"cursor": link}
            assert (await nex.integrations.connect("email", "google")).auth_url == link
        assert evil.connections == 0


async def test_x19_netrc_and_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a netrc file nor the variables of a proxy change where calls go and what they carry, unless asked for."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login eve password secret\ndefault login eve password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with RawServer([hold]) as proxy, RawServer([serve(lambda seen: json_reply({"id": "1"}))]) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with client(server.url) as nex:
            assert (await nex.tasks.get(1)).id == "1"
        assert proxy.connections == 0
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_x19_proxy_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`proxy_from_env` takes the proxy from the variables, `no_proxy` excepts from it, and `proxy=` wins over both."""
    async with RawServer([serve(lambda seen: json_reply({"id": "1"}))]) as proxy, RawServer([hold]) as never:
        base = "http://localhost:9"
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with SessionPool(proxy_from_env=True) as pool, client(base, pool=pool) as nex:
            assert (await nex.tasks.get(1)).id == "1"
        monkeypatch.setenv("http_proxy", never.url)
        async with SessionPool(proxy_from_env=True, proxy=proxy.url) as pool, client(base, pool=pool) as nex:
            assert (await nex.tasks.get(1)).id == "1"
        assert [seen.target for seen in proxy.requests] == ["http://localhost:9/api/developers/v1/tasks/1"] * 2
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        serving = RawServer([serve(lambda seen: json_reply({"id": "1"}))])
        async with serving as direct, SessionPool(proxy_from_env=True) as pool, client(direct.url, pool=pool) as nex:
            assert (await nex.tasks.get(1)).id == "1"
        assert never.connections == 0


async def test_x20_cookies_are_not_kept() -> None:
    """A cookie the server sets is never sent back, nor to another tenant on the same pool."""
    reply = json_reply({"id": "1"}, 200, {"Set-Cookie": "session=abc; Path=/"})
    async with RawServer([serve(lambda seen: reply)]) as server, SessionPool() as pool:
        url = server.url.replace("127.0.0.1", "localhost")  # aiohttp's own jar takes no cookies from an address
        async with client(url, pool=pool) as one, client(url, pool=pool, key="sk-other-0123") as two:
            for nex in (one, two, one):
                await nex.tasks.get(1)
        assert len(server.requests) == 3
        assert not any("cookie" in seen.headers for seen in server.requests)


# ---- X21: TLS -------------------------------------------------------------------------------------------------------


def test_x21_verification_cannot_be_turned_off() -> None:
    """No switch turns verification off; a context that does not verify is refused except for loopback."""
    lax = ssl.create_default_context()
    lax.check_hostname = False
    no_names = ssl.create_default_context()
    no_names.check_hostname = False
    lax.verify_mode = ssl.CERT_NONE
    for context in (lax, no_names):
        with pytest.raises(ConfigError, match="does not verify"):
            Nex(KEY, pool=SessionPool(ssl=context))
        Nex(KEY, base_url="https://127.0.0.1:1", pool=SessionPool(ssl=context))
    Nex(KEY, pool=SessionPool(ssl=ssl.create_default_context()))
    for word in (False, True, None.__class__, "off"):
        if word is not None:
            with pytest.raises(ConfigError):
                SessionPool(ssl=word)  # type: ignore[arg-type]
    for kind in (Nex, SessionPool):
        with pytest.raises(TypeError):
            kind(verify=False)


async def test_x21_tls_floor() -> None:
    """Without a context of the caller's, certificates and names are verified, and nothing below TLS 1.2 is spoken."""
    async with SessionPool() as pool:
        connector: Any = pool.make_connector("request")
        try:
            context = connector._get_ssl_context(type("Request", (), {"is_ssl": lambda self: True, "ssl": True})())
        finally:
            await connector.close()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


# ---- X22 and X23: hostile text --------------------------------------------------------------------------------------

TERMINAL = "fine\r\nINFO forged line\x1b[2J\x1b]0;x\x07\u202etxt\u2066\u200b\x00\x9b31m"


@pytest.mark.parametrize("field", ["message", "error", "detail"])
async def test_x22_hostile_words_are_escaped(field: str, caplog: pytest.LogCaptureFixture) -> None:
    """Line ends, terminal codes and bidi marks of a server's message reach neither a log nor an error's text."""
    caplog.set_level(logging.DEBUG)
    # In development mode aiohttp refuses a reply with such a header before we see it.
    headers = {} if sys.flags.dev_mode else {"X-Request-Id": "a\x1b[31mb"}
    reply = json_reply({field: TERMINAL * 50}, 500, headers)
    async with RawServer([serve(lambda seen: reply)]) as server, client(server.url) as nex:
        with pytest.raises(APIError) as caught:
            await nex.tasks.get("a\u202eb", retries=1)
    assert str(caught.value).isprintable()
    assert "forged" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert all(record.getMessage().isprintable() for record in caplog.records if record.name.startswith("nex_async"))
    assert caught.value.request_id is None or caught.value.request_id.isprintable()


@given(st.text(max_size=300))
def test_x22_printable_text(text: str) -> None:
    """Any text becomes one printable line of bounded length."""
    shown = printable(text, 100)
    assert shown.isprintable()
    assert len(shown) <= 100


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 LEAKED-BYTES\r\n\r\n",
        b"LEAKED-BYTES\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLEAKED-BYTES\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nLEAKED-BYTES\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: LEAKED-BYTES\r\n\r\n",
    ],
)
async def test_x23_raw_bytes_are_not_reflected(raw: bytes) -> None:
    """The bytes of a peer that speaks no HTTP are in no error, nor in its causes."""
    async with RawServer([answer(raw)]) as server, client(server.url) as nex:
        with pytest.raises(ProtocolError) as caught:
            await nex.tasks.get(1, retries=0)
    text = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
    assert "LEAKED" not in text.replace(raw.decode("latin-1"), "")
    assert "LEAKED" not in str(caught.value)
    assert caught.value.__cause__ is None


# ---- X28 to X32 -----------------------------------------------------------------------------------------------------


def test_x28_nothing_dangerous_is_used() -> None:
    """No module of the SDK imports pickle, marshal, shelve, yaml or subprocess, or calls eval, exec or a shell."""
    banned = {"pickle", "marshal", "shelve", "dill", "yaml", "subprocess", "xml"}
    found = []
    for path in Path(nex_async.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            found += [f"{path.name}: {name}" for name in names if name.partition(".")[0] in banned]
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
                    found.append(f"{path.name}: {called}")
    assert found == []


async def test_x30_tenants_do_not_mix() -> None:
    """Two keys on one pool, interleaved, cancelled and retried: each call carries its own key and gets its own reply."""
    keys = {"sk-tenant-one-0001": "one", "sk-tenant-two-0002": "two"}
    calls = 0

    def reply(seen: Seen) -> bytes:
        nonlocal calls
        calls += 1
        tenant = keys[seen.headers["authorization"].removeprefix("Bearer ")]
        if calls % 7 == 0:
            return json_reply({}, 503, {"Retry-After": "0.001"})
        return json_reply({"id": f"{tenant}-{seen.target.rpartition('/')[2]}"})

    async with RawServer([serve(reply)]) as server, SessionPool(max_connections=4) as pool:
        policy = RetryPolicy(budget=1e6, retries=50)
        tenants = {name: client(server.url, pool=pool, key=key, retry=policy) for key, name in keys.items()}
        tasks = {(name, n): asyncio.ensure_future(nex.tasks.get(n)) for n in range(150) for name, nex in tenants.items()}
        for (_, n), task in tasks.items():
            if n % 9 == 0:
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.wait(tasks.values())
        for (name, n), task in tasks.items():
            if not task.cancelled():
                assert task.result().id == f"{name}-{n}"
        assert sum(not task.cancelled() for task in tasks.values()) > 200
        for nex in tenants.values():
            await nex.aclose()


async def test_x30_limits_are_not_shared() -> None:
    """A 429, a bad key or a spent budget of one tenant neither slows nor stops another on the same pool."""

    def reply(seen: Seen) -> bytes:
        if "other" in seen.headers["authorization"]:
            return json_reply({"id": "1"})
        return json_reply({}, 401 if seen.target.endswith("401") else 429, {"Retry-After": "60"})

    async with (
        RawServer([serve(reply)]) as server,
        SessionPool() as pool,
        client(server.url, pool=pool) as one,
        client(server.url, pool=pool, key="sk-other-0123") as two,
    ):
        for _ in range(5):
            with pytest.raises(AuthenticationError):
                await one.tasks.get("401")
        with pytest.raises((RateLimitError, AuthenticationError)):
            await one.tasks.get(1, timeout=1)
        begun = asyncio.get_running_loop().time()
        for n in range(20):
            assert (await two.tasks.get(n)).id == "1"
        assert asyncio.get_running_loop().time() - begun < 2


async def test_x30_one_key_at_two_bases() -> None:
    """The same key at another base URL is another tenant."""
    refuse = json_reply({}, 429, {"Retry-After": "60"})
    async with (
        RawServer([serve(lambda seen: refuse)]) as one,
        RawServer([serve(lambda seen: json_reply({"id": "1"}))]) as two,
        SessionPool() as pool,
        client(one.url, pool=pool) as first,
        client(two.url, pool=pool) as second,
    ):
        with pytest.raises(RateLimitError):
            await first.tasks.get(1, timeout=1)
        assert (await second.tasks.get(1, timeout=1)).id == "1"


async def test_x32_headers_of_a_call() -> None:
    """These headers are sent and no others: nothing of the machine, the workspace or the key beyond its own header."""
    async with RawServer([serve(lambda seen: json_reply({"id": "1"}))]) as server, client(server.url) as nex:
        await nex.tasks.get(1)
        await nex.tasks.create("Call")
        await nex.tasks.delete(1)
    common = {
        "host": f"127.0.0.1:{server.port}",
        "authorization": f"Bearer {KEY}",
        "user-agent": f"nex-async/{nex_async.__version__}",
        "x-nex-source": "python-sdk",
        "accept": "application/json",
        "accept-encoding": "gzip",
    }
    body = {"content-type": "application/json", "content-length": "16"}
    sent = [seen.headers for seen in server.requests]
    assert sent[0] == common
    assert sent[1] == common | body
    assert sent[2] == common | {"content-length": "0"}
    assert not any(leaked(value) for headers in sent for name, value in headers.items() if name != "authorization")


def test_h22_x24_only_our_errors_escape_a_decoder() -> None:
    """Whatever is wrong in a reply, in its values or in its bytes, its decoder returns a reply or raises an error of ours."""
    assert {route.name for route, example in examples() if example} >= {"getTask", "listRecords", "getRecord"}
    assert escapes(2_000, seed=1) == []


def test_decode_errors_redact_their_bytes() -> None:
    """The bytes an error keeps for the user are rid of keys first, whatever they are made of."""
    raw = b'{"a":"' + KEY.encode() + b'","b":"\xff","c":"NEX_API_KEY=abcdef","d":"BEARER abcdefgh"}'
    for error in (DecodeError("x", raw=raw), APIError("x", body=raw)):
        kept = error.raw if isinstance(error, DecodeError) else error.body  # type: ignore[attr-defined]
        assert b"canary" not in kept
        assert b"abcdef" not in kept
