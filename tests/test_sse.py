"""The event stream decoder: the WHATWG rules, whatever the chunks. S1 to S11 are the rows of faults a stream can bring."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nex_async import ServerSentEvent, SSEDecoder


def feed(decoder: SSEDecoder, chunks: Iterable[bytes]) -> list[ServerSentEvent]:
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def decode(*chunks: bytes) -> list[ServerSentEvent]:
    return feed(SSEDecoder(), chunks)


def plain(data: bytes, event: str = "message", last_id: str = "") -> ServerSentEvent:
    return ServerSentEvent(event, data, last_id)


def pieces(text: bytes, size: int) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


CONTRACT: dict[str, tuple[bytes, list[ServerSentEvent]]] = {
    # data
    "one line": (b"data: hello\n\n", [plain(b"hello")]),
    "two events": (b"data: a\n\ndata: b\n\n", [plain(b"a"), plain(b"b")]),
    "S6 several lines are joined": (b"data: a\ndata: b\ndata:\n\n", [plain(b"a\nb\n")]),
    "S6 empty lines of data count": (b"data:\ndata: a\ndata\ndata: b\n\n", [plain(b"\na\n\nb")]),
    "S6 data without a space": (b"data:x\n\n", [plain(b"x")]),
    "S6 one space goes, the next stays": (b"data:  x\n\n", [plain(b" x")]),
    "S6 a tab stays": (b"data:\tx\n\n", [plain(b"\tx")]),
    "S6 spaces at the end stay": (b"data: x  \n\n", [plain(b"x  ")]),
    "S6 a lone space is an empty value": (b"data: \n\n", [plain(b"")]),
    "S6 two spaces are one": (b"data:  \n\n", [plain(b" ")]),
    "S6 an empty value makes an event": (b"data:\n\n", [plain(b"")]),
    "S6 no colon is an empty value": (b"data\n\n", [plain(b"")]),
    "S6 two without colon are a line end": (b"data\ndata\n\n", [plain(b"\n")]),
    "S6 an empty line of data after one with data": (b"data: a\ndata\n\n", [plain(b"a\n")]),
    "colons in the value": (b"data: a:b: c\n\n", [plain(b"a:b: c")]),
    "a colon first in the value": (b"data::x\n\ndata: :x\n\n", [plain(b":x"), plain(b":x")]),
    "a value that looks like a field": (b"data: event: x\n\n", [plain(b"event: x")]),
    "NUL in the data stays": (b"data: a\0b\n\n", [plain(b"a\0b")]),
    "JSON over two lines": (b'data: {"a":\ndata: 1}\n\n', [plain(b'{"a":\n1}')]),
    "lines with names between them": (b"data: a\nevent: n\ndata: b\n\n", [plain(b"a\nb", "n")]),
    "S6 no data, no event": (b"event: a\n\nid: 5\n\n", []),
    "blank lines": (b"\n\n\r\n\rdata: a\n\n\n\n", [plain(b"a")]),
    # names
    "named": (b"event: news\ndata: x\n\n", [plain(b"x", "news")]),
    "named behind its data": (b"data: x\nevent: news\n\n", [plain(b"x", "news")]),
    "named without a space": (b"event:news\ndata: x\n\n", [plain(b"x", "news")]),
    "one space of a name goes": (b"event:  news \ndata: x\n\n", [plain(b"x", " news ")]),
    "a name with a colon": (b"event: a:b\ndata: x\n\n", [plain(b"x", "a:b")]),
    "the last name counts": (b"event: a\nevent: b\ndata: x\n\n", [plain(b"x", "b")]),
    "the last name counts, empty too": (b"event: a\nevent\ndata: x\n\n", [plain(b"x")]),
    "an empty name is message": (b"event:\ndata: x\n\nevent: \ndata: y\n\n", [plain(b"x"), plain(b"y")]),
    "a name without colon is message": (b"event\ndata: x\n\n", [plain(b"x")]),
    "a name lasts for one event": (b"event: a\ndata: x\n\ndata: y\n\n", [plain(b"x", "a"), plain(b"y")]),
    "a name without data is forgotten": (b"event: a\n\ndata: y\n\n", [plain(b"y")]),
    "the same name again": (b"event: a\ndata: x\n\n" * 3, [plain(b"x", "a")] * 3),
    "names in turn": (
        b"event: a\ndata: x\n\nevent: ab\ndata: y\n\nevent: a\ndata: z\n\n",
        [plain(b"x", "a"), plain(b"y", "ab"), plain(b"z", "a")],
    ),
    "one name begins another": (b"event: ab\ndata: x\n\nevent: a\ndata: y\n\n", [plain(b"x", "ab"), plain(b"y", "a")]),
    "a name that is no ASCII": ("event: naïve\ndata: x\n\n".encode(), [plain(b"x", "naïve")]),
    "a second data line among equals": (
        b"event: a\ndata: x\n\nevent: a\ndata: y\ndata: z\n\nevent: a\ndata: w\n\n",
        [plain(b"x", "a"), plain(b"y\nz", "a"), plain(b"w", "a")],
    ),
    "an empty one among equals": (
        b"event: a\ndata: x\n\nevent: a\ndata: \n\nevent: a\ndata:\n\nevent: a\n\nevent: a\ndata: y\n\n",
        [plain(b"x", "a"), plain(b"", "a"), plain(b"", "a"), plain(b"y", "a")],
    ),
    "a comment among equals": (
        b"event: a\ndata: x\n\n: alive\n\nevent: a\ndata: y\n\n: alive\nevent: a\ndata: z\n\n",
        [plain(b"x", "a"), plain(b"y", "a"), plain(b"z", "a")],
    ),
    "an id among equals": (
        b"event: a\ndata: x\n\nid: 1\nevent: a\ndata: y\n\nevent: a\ndata: z\n\n",
        [plain(b"x", "a"), plain(b"y", "a", "1"), plain(b"z", "a", "1")],
    ),
    # comments
    "S5 a comment": (b": hello\n", []),
    "S5 an empty comment": (b":\n\n", []),
    "S5 comments around an event": (b": a\n:\n\ndata: x\n\n:b\n\n", [plain(b"x")]),
    "S5 a comment within an event": (b"data: x\n: in between\ndata: y\n\n", [plain(b"x\ny")]),
    "S5 a comment ends no event": (b"data: x\n:\n:\n", []),
    "S5 a comment that looks like a field": (b":data: x\n\n: data: y\n\n", []),
    # unknown fields
    "S6 an unknown field": (b"color: red\ndata: x\n\n", [plain(b"x")]),
    "S6 names are told by case": (b"DATA: y\nData: y\ndata: x\nEVENT: e\n\n", [plain(b"x")]),
    "S6 a space before a name": (b" data: z\ndata: x\n\n", [plain(b"x")]),
    "S6 a space behind a name": (b"data : z\ndata: x\n\n", [plain(b"x")]),
    "S6 a name with more behind it": (b"datas: z\ndata: x\nevents: e\n\n", [plain(b"x")]),
    "S6 a longer line without colon": (b"data x\nhello\n\n", []),
    # ids
    "S7 an id": (b"id: 1\ndata: a\n\n", [plain(b"a", last_id="1")]),
    "S7 an id without a space": (b"id:1\ndata: a\n\n", [plain(b"a", last_id="1")]),
    "S7 an id behind its data": (b"data: a\nid: 1\n\n", [plain(b"a", last_id="1")]),
    "S7 an id need be no number": ("id: ä b\ndata: a\n\n".encode(), [plain(b"a", last_id="ä b")]),
    "S7 an id stays in force": (b"id: 1\ndata: a\n\ndata: b\n\n", [plain(b"a", last_id="1"), plain(b"b", last_id="1")]),
    "S7 the last id counts": (b"id: 1\nid: 2\ndata: a\n\n", [plain(b"a", last_id="2")]),
    "S7 an empty id resets it": (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [plain(b"a", last_id="1"), plain(b"b")]),
    "S7 an id with NUL is ignored": (b"id: 1\0\ndata: a\n\n", [plain(b"a")]),
    "S7 an id with NUL keeps the one before": (b"id: 1\nid: \0002\ndata: a\n\n", [plain(b"a", last_id="1")]),
    "S7 an id without data counts for the next": (b"id: 7\n\ndata: a\n\n", [plain(b"a", last_id="7")]),
    # the reconnection time
    "S8 a time makes no event": (b"retry: 10\n\n", []),
    "S8 a time within an event": (b"data: a\nretry: 10\ndata: b\n\n", [plain(b"a\nb")]),
    # line ends
    "S1 CR": (b"data: a\rdata: b\r\r", [plain(b"a\nb")]),
    "S1 CRLF": (b"data: a\r\ndata: b\r\n\r\n", [plain(b"a\nb")]),
    "S1 CRLF, named": (b"event: a\r\ndata: x\r\n\r\nevent: a\r\ndata: y\r\n\r\n", [plain(b"x", "a"), plain(b"y", "a")]),
    "S1 mixed ends": (b"data: a\ndata: b\r\n\rdata: c\n\n", [plain(b"a\nb"), plain(b"c")]),
    "S1 CR then LF is one end": (b"data: a\r\ndata: b\r\r", [plain(b"a\nb")]),
    "S1 LF then CR are two": (b"data: a\n\rdata: b\n\r", [plain(b"a"), plain(b"b")]),
    "S1 CR CRLF are two": (b"data: a\r\r\ndata: b\r\r\n", [plain(b"a"), plain(b"b")]),
    "S1 CR at the end of a frame": (b"event: a\ndata: x\r\revent: a\ndata: y\n\n", [plain(b"x", "a"), plain(b"y", "a")]),
    "S1 other line ends are none": (
        "data: a\u2028b\u0085c\x0bd\x0ce\x1ef\n\n".encode(),
        [plain("a\u2028b\u0085c\x0bd\x0ce\x1ef".encode())],
    ),
    # UTF-8
    "S2 characters of many bytes": ("data: ü€😀\n\n".encode(), [plain("ü€😀".encode())]),
    "S3 bytes that are no UTF-8": (b"data: \xff\xfe\nevent: \xff\n\n", [plain(b"\xff\xfe", "\ufffd")]),
    "S3 half a character in a name": (b"event: \xe2\x82\ndata: x\n\n", [plain(b"x", "\ufffd")]),
    "S3 half a character in an id": (b"id: \xf0\x9f\ndata: x\n\n", [plain(b"x", last_id="\ufffd")]),
    "S4 a mark at the start goes": (b"\xef\xbb\xbfdata: a\n\n", [plain(b"a")]),
    "S4 a mark before a blank line": (b"\xef\xbb\xbf\ndata: a\n\n", [plain(b"a")]),
    "S4 a mark before a comment": (b"\xef\xbb\xbf: hello\n\ndata: a\n\n", [plain(b"a")]),
    "S4 a mark later stays": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [plain(b"a")]),
    "S4 a mark in the data stays": (b"data: \xef\xbb\xbfa\n\n", [plain(b"\xef\xbb\xbfa")]),
    "S4 only the first mark goes": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    "S4 half a mark is no mark": (b"\xef\xbbdata: a\n\ndata: b\n\n", [plain(b"b")]),
    # the end
    "nothing": (b"", []),
    "S9 an event without its blank line": (b"data: a\n\ndata: b\n", [plain(b"a")]),
    "S9 a line without its end": (b"data: a\n\ndata: b", [plain(b"a")]),
    "S9 half a frame": (b"event: a\ndata: a\n\nevent: a\ndata: b\n", [plain(b"a", "a")]),
    "S9 a name alone": (b"data: a\n\nevent: b", [plain(b"a")]),
}
STREAM = b"".join(text for text, _ in CONTRACT.values())


def corpus() -> bytes:
    """About 20 kB: each rule, then insights of the size they have, with keepalives."""
    blocks = [STREAM, b"\n\n\n"]
    for number in range(16):
        payload = f'{{"insights":[{{"content":"Größe {number} → 😀 {"." * (950 + number)}"}}],"insight_count":1}}'.encode()
        blocks.append(b"event: insight.batch.created\ndata: %s\n\n%s" % (payload, b": keepalive\n\n" * (number % 2)))
    return b"".join(blocks)


class Reference:
    """The rules once more, for a whole stream at a time and without a thought for speed."""

    def __init__(self, text: bytes, max_event_bytes: int = 1 << 30) -> None:
        self.events: list[ServerSentEvent] = []
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.oversize = 0
        found: list[bytes] = []
        name, last_id, lines, dropped = "", "", list[bytes](), False
        *complete, rest = re.split(rb"\r\n|\r|\n", text.removeprefix(b"\xef\xbb\xbf"))
        for line in complete:
            field, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if line == b"":
                self.last_event_id = last_id
                if lines and not dropped:
                    self.events.append(ServerSentEvent(name or "message", b"\n".join(lines), last_id))
                self.oversize += dropped
                name, lines, dropped = "", [], False
            elif len(line) > max_event_bytes:
                dropped = True
            elif line.startswith(b":"):
                found.append(line[1:1025])
            elif field == b"data":
                lines.append(value)
                dropped = dropped or len(b"\n".join(lines)) > max_event_bytes
            elif field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"id" and b"\0" not in value:
                last_id = value.decode("utf-8", "replace")
            elif field == b"retry" and re.fullmatch(rb"[0-9]+", value):
                self.retry_ms = int(value)
        self.oversize += dropped or len(rest) > max_event_bytes
        self.comments = len(found)
        self.first_comment, self.last_comment = (found[0], found[-1]) if found else (None, b"")


def same(decoder: SSEDecoder, events: list[ServerSentEvent], wanted: Reference) -> None:
    assert events == wanted.events
    for name in ("last_event_id", "retry_ms", "oversize", "comments", "first_comment", "last_comment"):
        assert getattr(decoder, name) == getattr(wanted, name), name


@pytest.mark.parametrize("name", CONTRACT)
def test_contract(name: str) -> None:
    """Each rule of the standard, in one piece."""
    text, events = CONTRACT[name]
    assert decode(text) == events


@pytest.mark.parametrize("name", CONTRACT)
def test_contract_byte_by_byte(name: str) -> None:
    """S1: each rule of the standard, one byte at a time."""
    text, events = CONTRACT[name]
    assert decode(*pieces(text, 1)) == events


@pytest.mark.parametrize("name", CONTRACT)
def test_contract_amid_a_stream(name: str) -> None:
    """S1: each rule of the standard behind frames of the usual shape and before more of them."""
    frame = b"event: news\ndata: usual\n\n"
    text = frame * 3 + CONTRACT[name][0] + b"\n\n\n" + frame * 2
    decoder = SSEDecoder()
    same(decoder, decoder.feed(text), Reference(text))


@pytest.mark.parametrize("name", CONTRACT)
def test_the_reference_knows_the_contract(name: str) -> None:
    """What the laws below compare with keeps the rules itself."""
    text, events = CONTRACT[name]
    assert Reference(text).events == events


def test_every_split() -> None:
    """S1, S2: a stream of everything, cut in two at any place, means the same."""
    text = corpus()
    assert 18_000 < len(text) < 22_000
    whole = Reference(text).events
    assert len(whole) > 100
    for at in range(len(text) + 1):
        assert decode(text[:at], text[at:]) == whole


@pytest.mark.parametrize("size", [2, 3, 5, 64, 1021])
def test_even_chunks(size: int) -> None:
    """S1: a stream of everything in chunks of one size means the same."""
    decoder, text = SSEDecoder(), corpus()
    same(decoder, feed(decoder, pieces(text, size)), Reference(text))


FRAGMENTS = st.sampled_from(
    [text for text, _ in CONTRACT.values()]
    + [
        b"\r",
        b"\n",
        b":",
        b" ",
        b"\0",
        b"data: ",
        b"data",
        b"event: ",
        b"id",
        b"retry:7",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xe2\x82",
    ]
    + [b"event: news\ndata: usual\n\n"] * 8
)


@given(st.data(), st.lists(FRAGMENTS, max_size=24), st.sampled_from([4, 11, 30, 1 << 20]))
def test_any_chunking(data: st.DataObject, fragments: list[bytes], limit: int) -> None:
    """S1, S10: however a stream is cut, empty pieces among them, and whatever is too large, it means what the rules say."""
    text = b"".join(fragments)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    decoder = SSEDecoder(max_event_bytes=limit)
    events = feed(decoder, [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)])
    same(decoder, events, Reference(text, limit))


@given(st.lists(st.binary(max_size=40), max_size=8), st.sampled_from([3, 1 << 20]))
def test_any_bytes(chunks: list[bytes], limit: int) -> None:
    """S3: no bytes whatever upset the decoder, and the chunks do not matter."""
    decoder = SSEDecoder(max_event_bytes=limit)
    same(decoder, feed(decoder, chunks), Reference(b"".join(chunks), limit))


def test_a_line_end_is_not_waited_for() -> None:
    """S1: an event comes with the CR that ends it; the LF that may follow is no line of its own."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r\r") == [plain(b"a")]
    assert decoder.feed(b"\ndata: b") == []
    assert decoder.feed(b"\r") == []
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\ndata: c\n\n") == [plain(b"b\nc")]


def test_comments_are_counted_apart() -> None:
    """S5: comments make no events, and prove life."""
    decoder = SSEDecoder()
    assert (decoder.comments, decoder.first_comment, decoder.last_comment) == (0, None, b"")
    assert decoder.feed(b": connected workspace_id=1\n\n: keepalive\n\n") == []
    assert (decoder.comments, decoder.first_comment, decoder.last_comment) == (
        2,
        b" connected workspace_id=1",
        b" keepalive",
    )
    assert decoder.feed(b":\n") == []
    assert (decoder.comments, decoder.first_comment, decoder.last_comment) == (3, b" connected workspace_id=1", b"")


def test_an_empty_first_comment_is_the_first() -> None:
    """S5: a comment of nothing is a comment."""
    decoder = SSEDecoder()
    decoder.feed(b":\n: second\n")
    assert decoder.first_comment == b""


def test_a_kilobyte_of_a_comment_is_kept() -> None:
    """S5: a comment is kept up to 1 KiB, the first and the last."""
    decoder = SSEDecoder()
    decoder.feed(b":" + b"a" * 5000 + b"\n:" + b"b" * 5000 + b"\n")
    assert (decoder.first_comment, decoder.last_comment) == (b"a" * 1024, b"b" * 1024)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"1500", 1500),
        (b"0", 0),
        (b"0010", 10),
        (b"99999999999", 99_999_999_999),
        (b"0" * 9000 + b"5", 5),
        (b"1.5", None),
        (b"-1", None),
        (b"+1", None),
        (b" 1", None),
        (b"1 ", None),
        (b"1_000", None),
        (b"abc", None),
        (b"", None),
        ("٣".encode(), None),
    ],
)
def test_retry_takes_digits_only(value: bytes, wanted: int | None) -> None:
    """S8: the reconnection time is taken from digits, and from nothing else."""
    decoder = SSEDecoder()
    decoder.feed(b"retry: " + value + b"\n")
    assert decoder.retry_ms == wanted


def test_retry_of_absurd_length() -> None:
    """S8: a time of ten thousand digits is a very long time, of 64 bits at most."""
    decoder = SSEDecoder()
    decoder.feed(b"retry: " + b"9" * 10_000 + b"\n")
    assert decoder.retry_ms is not None
    assert 10**15 < decoder.retry_ms < 2**63


def test_what_is_no_time_keeps_the_last() -> None:
    """S8: nonsense does not undo the time the stream gave before."""
    decoder = SSEDecoder()
    decoder.feed(b"retry: 250\n\nretry: soon\nretry\n\n")
    assert decoder.retry_ms == 250


def test_the_last_id_is_that_of_a_complete_event() -> None:
    """S7: an id counts when its blank line has come, with data or without."""
    decoder = SSEDecoder()
    decoder.feed(b"id: 1\ndata: a\n")
    assert decoder.last_event_id == ""
    decoder.feed(b"\nid: 2\n")
    assert decoder.last_event_id == "1"
    decoder.feed(b"\n")
    assert decoder.last_event_id == "2"
    assert decoder.feed(b"id: 3\n") == []
    assert decoder.feed(b"event: x\ndata: b\n\n") == [plain(b"b", "x", "3")]
    assert decoder.last_event_id == "3"


def test_text_replaces_what_is_no_text() -> None:
    """S3: an event whose bytes are no UTF-8 is kept, readable, and counted."""
    decoder = SSEDecoder()
    good, bad = decoder.feed("data: grün\n\n".encode() + b"data: gr\xfcn \xe2\x82\n\n")
    assert (decoder.text(good), decoder.replaced) == ("grün", 0)
    assert (decoder.text(bad), decoder.replaced) == ("gr\ufffdn \ufffd", 1)
    assert bad.data == b"gr\xfcn \xe2\x82"


def test_a_character_over_two_chunks() -> None:
    """S2: a character that two chunks share comes whole."""
    decoder = SSEDecoder()
    text = "event: é\ndata: €\n\n".encode()
    for at in range(len(text)):
        (event,) = decoder.feed(text[:at]) + decoder.feed(text[at:])
        assert (event.event, decoder.text(event)) == ("é", "€")
    assert decoder.replaced == 0


@pytest.mark.parametrize(
    "half", [b"data: half\nda", b"event: old\n", b"data: half\r", b"\xef\xbb", b": comm", b"id: 9\n", b"x"]
)
def test_closing_drops_what_is_unfinished(half: bytes) -> None:
    """S9: an event without its blank line never comes, not even joined to the next connection's, and its id neither."""
    decoder = SSEDecoder()
    assert decoder.feed(half) == []
    decoder.close()
    assert decoder.feed(b"\ndata: whole\n\n") == [plain(b"whole")]


def test_closing_ends_what_was_passed_over() -> None:
    """S9, S10: a line too large is not looked for in the next connection."""
    decoder = SSEDecoder(max_event_bytes=10)
    decoder.feed(b"data: much too large")
    decoder.close()
    assert decoder.feed(b"data: a\n\n") == [plain(b"a")]
    assert decoder.oversize == 1


def test_closing_forgets_the_size_of_what_was_unfinished() -> None:
    """S9, S10: half a line takes nothing from the size that the next connection's first line may have."""
    decoder = SSEDecoder(max_event_bytes=100)
    decoder.feed(b"data: half")
    decoder.close()
    text = b"data: " + b"x" * 94
    assert feed(decoder, [text[:50], text[50:], b"\n\n"]) == [plain(b"x" * 94)]
    assert decoder.oversize == 0


def test_a_stream_after_a_stream() -> None:
    """S4, S7: the next connection may begin with a mark, greets anew, and goes on from the last id."""
    decoder = SSEDecoder()
    decoder.feed(b": one\nid: 7\ndata: a\n\n")
    decoder.close()
    assert decoder.first_comment == b" one"
    assert decoder.feed(b"\xef\xbb\xbf: two\ndata: b\n\n") == [plain(b"b", last_id="7")]
    assert (decoder.first_comment, decoder.comments) == (b" two", 2)


def test_an_id_handed_over() -> None:
    """S7: a decoder told the last id of another goes on from it once it has been closed."""
    decoder = SSEDecoder()
    decoder.last_event_id = "7"
    decoder.close()
    assert decoder.feed(b"data: a\n\n") == [plain(b"a", last_id="7")]


@pytest.mark.parametrize(
    "monster",
    [
        b"data: " + b"x" * 5000 + b"\n",
        b"data: " + b"x" * 400 + b"\n" + b"data: y\n" * 400,
        b"data\n" * 2000,
        b": " + b"x" * 5000 + b"\n",
        b"event: " + b"x" * 5000 + b"\n",
        b"x" * 5000 + b"\r\n",
    ],
    ids=["line", "lines", "empty lines", "comment", "name", "unknown"],
)
@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_an_oversize_event_costs_itself_alone(monster: bytes, size: int) -> None:
    """S10: what is too large is dropped and counted, once; the event behind the next blank line comes."""
    decoder = SSEDecoder(max_event_bytes=1000)
    text = b"data: before\n\n" + monster + b"data: tail\nevent: tail\n\ndata: after\n\n"
    assert feed(decoder, pieces(text, size)) == [plain(b"before"), plain(b"after")]
    assert decoder.oversize == 1


def test_the_rest_of_an_oversize_event_is_no_event() -> None:
    """S10: what follows the line too large belongs to it up to the blank line, a chunk of its own or not."""
    decoder = SSEDecoder(max_event_bytes=30)
    assert decoder.feed(b"data: " + b"x" * 40 + b"\n") == []
    assert decoder.feed(b"event: a\ndata: tail\n\n") == []
    assert decoder.feed(b"event: a\ndata: after\n\n") == [plain(b"after", "a")]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_limit_is_exact(size: int) -> None:
    """S10: a line, or an event of several, of just the size allowed comes; one byte more and it does not."""
    line, lines = b"data:" + b"x" * 95, b"data:" + b"x" * 50 + b"\ndata:"
    text = line + b"\n\n" + line + b"x\n\n" + lines + b"y" * 49 + b"\n\n" + lines + b"y" * 50 + b"\n\n"
    decoder = SSEDecoder(max_event_bytes=100)
    assert [event.data for event in feed(decoder, pieces(text, size))] == [b"x" * 95, b"x" * 50 + b"\n" + b"y" * 49]
    assert decoder.oversize == 2


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_what_came_before_takes_nothing_from_the_limit(size: int) -> None:
    """S10: each line may have the size allowed, behind another as large, behind one too large, and in an event of many lines."""
    line = b":" + b"x" * 99 + b"\n"
    many = b"data:" + b"x" * 20 + b"\n"
    text = line + line + b"x" * 101 + b"\n" + line + b"\n" + many * 4 + b"data:" + b"y" * 16 + b"\n\n"
    decoder = SSEDecoder(max_event_bytes=100)
    assert [event.data for event in feed(decoder, pieces(text, size))] == [(b"x" * 20 + b"\n") * 4 + b"y" * 16]
    assert (decoder.comments, decoder.oversize) == (3, 1)


@pytest.mark.parametrize("length", [200, 248, 249, 250, 300, 5000])
def test_a_long_name_is_a_name(length: int) -> None:
    """A name of any length is that of its event alone, whatever frames stand before and behind it."""
    name = "n" * length
    text = b"data: w\ndata: x\n\nevent: " + name.encode() + b"\ndata: y\n\ndata: z\n\n"
    for size in (len(text), 100):
        events = feed(SSEDecoder(), pieces(text * 2, size))
        assert events == [plain(b"w\nx"), plain(b"y", name), plain(b"z")] * 2


def test_what_is_passed_over_says_nothing() -> None:
    """S10: a comment too large is no comment, and an id too large no id, however they come."""
    for size in (1, 30, 1000):
        decoder = SSEDecoder(max_event_bytes=20)
        text = b":" + b"c" * 50 + b"\n\nid: " + b"i" * 50 + b"\n\nevent: a\ndata: x\n\n"
        assert feed(decoder, pieces(text, size)) == [plain(b"x", "a")]
        assert (decoder.comments, decoder.first_comment, decoder.oversize) == (0, None, 2)


def held(decoder: SSEDecoder) -> dict[int, Any]:
    """All that the decoder holds, lists opened, by identity."""
    found: dict[int, Any] = {}
    for value in vars(decoder).values():
        found[id(value)] = value
        if isinstance(value, list):
            found.update((id(part), part) for part in value)
    return found


def weight(decoder: SSEDecoder) -> int:
    return sum(map(sys.getsizeof, held(decoder).values()))


MIB = 1024 * 1024
ENDLESS = {
    "line": (b"data: ", b"x" * 1000),
    "comment": (b": ", b"x" * 1000),
    "unknown": (b"", b"x" * 1000),
    "data lines": (b"", b"data: " + b"x" * 993 + b"\n"),
    "empty data lines": (b"", b"data\n" * 200),
    "data lines over two chunks": (b"data: x", b"x\n" + b"data: x" * 1),
    "chunks large and small": (b"data: ", b"x"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_events_weigh_no_more_than_is_allowed(name: str) -> None:
    """S10: 40 times the size allowed is fed without an end; what is held stays within that size and one part in twenty."""
    first, again = ENDLESS[name]
    limit = 64 * 1024
    decoder = SSEDecoder(max_event_bytes=limit)
    decoder.feed(first)
    fed = heaviest = turn = 0
    while fed < 40 * limit:
        turn += 1
        chunk = b"x" * 9000 if name == "chunks large and small" and turn % 2 else again
        fed += max(len(chunk), 100)
        assert decoder.feed(chunk) == []
        if turn % 16 == 0:
            heaviest = max(heaviest, weight(decoder))
    assert heaviest < limit * 1.05 + 8192
    assert decoder.oversize <= 1


@pytest.mark.parametrize("name", ["line", "comment", "data lines"])
def test_a_hundred_megabytes(name: str) -> None:
    """S10: 100 MB without an end weigh no more than the 16 MiB allowed, nothing once those are passed, and cost one event."""
    first, again = ENDLESS[name]
    decoder = SSEDecoder()
    decoder.feed(first)
    heaviest = 0
    for turn in range(100_000):
        assert decoder.feed(again) == []
        if turn % 500 == 0:
            heaviest = max(heaviest, weight(decoder))
    assert 15 * MIB < heaviest < 16.8 * MIB
    assert weight(decoder) < 16 * 1024
    assert decoder.feed(b"\n\ndata: after\n\n") == [plain(b"after")]
    assert decoder.oversize == 1


@pytest.mark.parametrize("again", [b"x", b"x" * 1000, b"x" * 70_000, b"\ndata: x"], ids=["1", "1000", "70000", "lines"])
def test_no_byte_is_copied_over_and_over(again: bytes) -> None:
    """S10: a chunk makes the decoder copy the chunk and a few kilobytes, however much it holds already."""
    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    before = held(decoder)
    for _ in range(2000):
        decoder.feed(again)
        after = held(decoder)
        copied = sum(len(part) for key, part in after.items() if key not in before and isinstance(part, bytes))
        assert copied <= 2 * len(again) + 8192
        before = after


def test_two_hundred_thousand_tiny_events() -> None:
    """S11: tiny events without number leave nothing behind."""
    decoder, block = SSEDecoder(), b"event: a\ndata: 1\n\n: alive\n\ndata: 2\n\n" * 1000
    decoder.feed(block)
    before = weight(decoder)
    assert sum(len(decoder.feed(block)) for _ in range(100)) == 200_000
    assert weight(decoder) <= before + 64


def test_a_stream_that_begins_after_another_may_have_its_own_byte_order_mark() -> None:
    """After `close` another stream begins: its first bytes may be a byte order mark, whole or in parts, and its first comment counts."""
    decoder = SSEDecoder()
    decoder.feed(b": one\n\ndata: half")
    decoder.close()
    events = [event for part in (b"\xef", b"\xbb", b"\xbf: two\nda", b"ta: whole\n\n") for event in decoder.feed(part)]
    assert [event.data for event in events] == [b"whole"]
    assert decoder.first_comment == b" two"


def test_the_default_size_of_an_event() -> None:
    """16 MiB of data in one event pass, and not a byte more."""
    limit = 16 * 1024 * 1024
    for size, passed in ((limit - len(b"data: "), 1), (limit - len(b"data: ") + 1, 0)):
        decoder = SSEDecoder()
        assert len(decoder.feed(b"data: " + b"x" * size + b"\n\n")) == passed
        assert decoder.oversize == 1 - passed
