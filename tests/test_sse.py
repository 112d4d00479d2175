"""The event stream decoder: the WHATWG rules, whatever the chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nex_async import ServerSentEvent, SSEDecoder


def decode(*chunks: bytes) -> list[ServerSentEvent]:
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def plain(data: bytes, event: str = "message", last_id: str = "") -> ServerSentEvent:
    return ServerSentEvent(event, data, last_id)


CONTRACT: dict[str, tuple[bytes, list[ServerSentEvent]]] = {
    "one line": (b"data: hello\n\n", [plain(b"hello")]),
    "several lines are joined": (b"data: a\ndata: b\ndata:\n\n", [plain(b"a\nb\n")]),
    "named": (b"event: news\ndata: x\n\n", [plain(b"x", "news")]),
    "the last name counts": (b"event: a\nevent: b\ndata: x\n\n", [plain(b"x", "b")]),
    "an empty name is message": (b"event:\ndata: x\n\n", [plain(b"x")]),
    "a name lasts for one event": (b"event: a\ndata: x\n\ndata: y\n\n", [plain(b"x", "a"), plain(b"y")]),
    "one space goes, the next stays": (b"data:  x\n\ndata:\tx\n\n", [plain(b" x"), plain(b"\tx")]),
    "no space": (b"data:x\n\n", [plain(b"x")]),
    "colons in the value": (b"data: a:b: c\n\n", [plain(b"a:b: c")]),
    "no colon is an empty value": (b"data\n\n", [plain(b"")]),
    "two of them are a line end": (b"data\ndata\n\n", [plain(b"\n")]),
    "no data, no event": (b"event: a\n\nid: 5\n\n", []),
    "comments": (b": hello\n:\n\ndata: x\n: in between\ndata: y\n\n", [plain(b"x\ny")]),
    "unknown fields": (b"color: red\ndata: x\nDATA: y\n data: z\n\n", [plain(b"x")]),
    "an id stays in force": (b"id: 1\ndata: a\n\ndata: b\n\n", [plain(b"a", last_id="1"), plain(b"b", last_id="1")]),
    "an empty id resets it": (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [plain(b"a", last_id="1"), plain(b"b")]),
    "an id with NUL is ignored": (b"id: 1\0\ndata: a\n\n", [plain(b"a")]),
    "an id without data counts for the next": (b"id: 7\n\ndata: a\n\n", [plain(b"a", last_id="7")]),
    "CR": (b"data: a\rdata: b\r\r", [plain(b"a\nb")]),
    "CRLF": (b"data: a\r\ndata: b\r\n\r\n", [plain(b"a\nb")]),
    "mixed ends": (b"data: a\ndata: b\r\n\rdata: c\n\n", [plain(b"a\nb"), plain(b"c")]),
    "a mark at the start goes": (b"\xef\xbb\xbfdata: a\n\n", [plain(b"a")]),
    "a mark later stays": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [plain(b"a")]),
    "only the first mark goes": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    "an unfinished event is dropped": (b"data: a\n\ndata: b\n", [plain(b"a")]),
    "other line ends are none": (
        "data: a\u2028b\u0085c\x0bd\x0ce\n\n".encode(),
        [plain("a\u2028b\u0085c\x0bd\x0ce".encode())],
    ),
    "bytes that are no UTF-8": (b"data: \xff\xfe\nevent: \xff\n\n", [plain(b"\xff\xfe", "\ufffd")]),
    "blank lines": (b"\n\n\r\n\rdata: a\n\n\n\n", [plain(b"a")]),
}
STREAM = b"".join(text for text, _ in CONTRACT.values()) + "id: 9\r\nevent: naïve\r\ndata: über\r\n\r\n: alive\r\r".encode()


@pytest.mark.parametrize("name", CONTRACT)
def test_contract(name: str) -> None:
    """Each rule of the standard, in one piece."""
    text, events = CONTRACT[name]
    assert decode(text) == events


@pytest.mark.parametrize("name", CONTRACT)
def test_contract_byte_by_byte(name: str) -> None:
    """Each rule of the standard, one byte at a time."""
    text, events = CONTRACT[name]
    assert decode(*(text[at : at + 1] for at in range(len(text)))) == events


def test_every_split() -> None:
    """A stream cut in two at any place means the same."""
    whole = decode(STREAM)
    assert len(whole) > 20
    for at in range(len(STREAM) + 1):
        assert decode(STREAM[:at], STREAM[at:]) == whole


@given(st.data())
def test_any_chunking(data: st.DataObject) -> None:
    """However a stream is cut, empty pieces among them, it means the same."""
    text = b"".join(data.draw(st.lists(st.sampled_from([text for text, _ in CONTRACT.values()] + [b"\r", b"\n", b":"]))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert decode(*pieces) == decode(text)


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes(chunks: list[bytes]) -> None:
    """No bytes whatever upset the decoder, and the chunks do not matter."""
    assert decode(*chunks) == decode(b"".join(chunks))


def test_comments_are_counted_apart() -> None:
    """Comments make no events, and prove life."""
    decoder = SSEDecoder()
    assert decoder.feed(b": connected workspace_id=1\n\n: keepalive\n\n") == []
    assert (decoder.comments, decoder.last_comment) == (2, b" keepalive")


@pytest.mark.parametrize(
    ("value", "wanted"), [(b"1500", 1500), (b"0", 0), (b"1.5", None), (b"-1", None), (b"abc", None), (b"", None)]
)
def test_retry_takes_digits_only(value: bytes, wanted: int | None) -> None:
    """The reconnection time is taken from digits, and from nothing else."""
    decoder = SSEDecoder()
    decoder.feed(b"retry: " + value + b"\n\n")
    assert decoder.retry_ms == wanted


def test_closing_drops_what_is_unfinished() -> None:
    """An event without its blank line never comes, not even joined to the next connection's."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: half\nda") == []
    decoder.close()
    assert decoder.feed(b"data: whole\n\n") == [plain(b"whole")]


@pytest.mark.parametrize(
    "monster",
    [b"data: " + b"x" * 5000 + b"\n", b"data: " + b"x" * 400 + b"\n" * 1 + b"data: y\n" * 400, b": " + b"x" * 5000 + b"\n"],
    ids=["line", "lines", "comment"],
)
@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_an_oversize_event_costs_itself_alone(monster: bytes, size: int) -> None:
    """What is too large is dropped and counted; the event behind the next blank line comes."""
    decoder = SSEDecoder(max_event_bytes=1000)
    text = b"data: before\n\n" + monster + b"data: tail\n\ndata: after\n\n"
    events = [event for at in range(0, len(text), size) for event in decoder.feed(text[at : at + size])]
    contents = [event.data for event in events]
    assert contents[0] == b"before"
    assert contents[-1] == b"after"
    assert all(len(content) <= 1000 for content in contents)
