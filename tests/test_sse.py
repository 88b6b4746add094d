"""Server-sent events out of bytes, however they arrive."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.errors import BadReply
from routing.providers import sse
from routing.providers.sse import EventSplitter, ServerSentEvent

ANYTHING = settings(deadline=None, derandomize=True)  # the same examples in every run
MEGABYTE = 1024 * 1024


def split(pieces: Iterable[bytes]) -> list[ServerSentEvent]:
    splitter = EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events + splitter.rest()


def data_of(pieces: Iterable[bytes]) -> list[bytes]:
    return [event.data for event in split(pieces) if event.data is not None]


def by_the_standard(stream: bytes) -> list[bytes]:
    """The data of every event, read line by line as the standard words it; the last may lack its blank line."""
    found: list[bytes] = []
    lines: list[bytes] = []
    for line in [*re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf")), b""]:
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        if not line:
            if data := b"\n".join(lines):
                found.append(data)
            lines = []
    return found


def cut(stream: bytes, borders: Iterable[int]) -> list[bytes]:
    marks = [0, *sorted(border % (len(stream) + 1) for border in borders), len(stream)]
    return [stream[start:end] for start, end in pairwise(marks)]


CASES = [
    ("one event", b'data: {"a":1}\n\n', [b'{"a":1}']),
    ("two events", b"data: 1\n\ndata: 2\n\n", [b"1", b"2"]),
    ("CRLF", b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"1", b"2"]),
    ("CR", b"data: 1\r\rdata: 2\r\r", [b"1", b"2"]),
    ("mixed line ends", b"data: 1\r\n\ndata: 2\n\rdata: 3\r\r\ndata: 4\n\r\n", [b"1", b"2", b"3", b"4"]),
    ("one CRLF is one line end", b"data: 1\r\ndata: 2\r\n\r\n", [b"1\n2"]),
    ("a comment", b": keep-alive\n\ndata: 1\n\n", [b"1"]),
    ("a comment within", b"data: 1\n: x\ndata: 2\n\n", [b"1\n2"]),
    ("several lines", b"data: 1\ndata:\ndata: 3\n\n", [b"1\n\n3"]),
    ("no blank after the colon", b"data:1\n\n", [b"1"]),
    ("only one blank goes", b"data:  1\n\n", [b" 1"]),
    ("no colon", b"data\ndata: 1\n\n", [b"\n1"]),
    ("empty data is no event", b"data:\n\ndata: \n\ndata\n\ndata: 1\n\n", [b"1"]),
    ("other fields", b"id: 7\nretry: 10\nevent: x\ndata: 1\n\n", [b"1"]),
    ("a field that only begins so", b"database: 1\n\n", []),
    ("a byte order mark", b"\xef\xbb\xbfdata: 1\n\n", [b"1"]),
    ("a mark in the middle", b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n", [b"1"]),
    ("blank lines between", b"\n\n\ndata: 1\n\n\n\ndata: 2\n\n", [b"1", b"2"]),
    ("no end", b"data: 1\n\ndata: 2", [b"1", b"2"]),
    ("one line end short", b"data: 1\n\ndata: 2\n", [b"1", b"2"]),
    ("cut within a character", b"data: \xe6\x97", [b"\xe6\x97"]),
    ("nothing", b"", []),
    ("half a mark", b"\xef\xbb", []),
]


@pytest.mark.parametrize(("stream", "data"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_data_of(stream: bytes, data: list[bytes]) -> None:
    assert data_of([stream]) == data
    assert data_of(stream[place : place + 1] for place in range(len(stream))) == data
    assert by_the_standard(stream) == data


LINES = st.sampled_from(
    [b"data: x", b"data:", b"data", b"data: \xe6\x97\xa5", b": comment", b"event: error", b"", b"\xef\xbb\xbf", b"x"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS).map(b"".join), max_size=20).map(b"".join) | st.binary(max_size=60)
BORDERS = st.lists(st.integers(0, 10_000), max_size=12)


@ANYTHING
@given(STREAMS, BORDERS)
def test_borders_change_nothing(stream: bytes, borders: list[int]) -> None:
    assert data_of(cut(stream, borders)) == by_the_standard(stream)


@ANYTHING
@given(STREAMS, BORDERS)
def test_every_byte_is_handed_on(stream: bytes, borders: list[int]) -> None:
    raw = b"".join(event.raw for event in split(cut(stream, borders)))
    whole = stream.removeprefix(b"\xef\xbb\xbf")
    assert raw.startswith(whole.rstrip(b"\r\n")) or not whole.strip()
    assert raw.rstrip() == whole.rstrip()


@pytest.mark.parametrize(("raw", "kind"), [(b"event: error\ndata: 1\n\n", b"error"), (b"data: 1\n\n", None)])
def test_the_kind_of_an_event_is_told(raw: bytes, kind: bytes | None) -> None:
    assert [event.event for event in split([raw])] == [kind]


def test_an_event_is_given_as_soon_as_its_blank_line_is_there() -> None:
    splitter = EventSplitter()
    assert list(splitter.feed(b"data: 1\n")) == []
    assert [event.data for event in splitter.feed(b"\ndata: 2")] == [b"1"]


class Counting:
    """A pattern that counts the bytes it was given to search."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern, self.searched = pattern, 0

    def search(self, text: bytearray, start: int) -> re.Match[bytes] | None:
        found = self.pattern.search(text, start)
        self.searched += (found.end() if found else len(text)) - start
        return found


@pytest.mark.parametrize("piece", [4 * 1024, 64 * 1024, 10 * MEGABYTE], ids=["4 KB", "64 KB", "at once"])
def test_a_line_of_ten_megabytes_is_searched_once(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(sse._EVENT_END)
    monkeypatch.setattr(sse, "_EVENT_END", counting)
    stream = b"data: " + b"x" * (10 * MEGABYTE) + b"\n\n"
    pieces = [stream[start : start + piece] for start in range(0, len(stream), piece)]
    (event,) = split(pieces)
    assert event.data is not None
    assert len(event.data) == 10 * MEGABYTE
    assert counting.searched <= len(stream) + 8 * len(pieces)


def test_many_events_in_one_piece_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(sse._EVENT_END)
    monkeypatch.setattr(sse, "_EVENT_END", counting)
    stream = b"data: x\n\n" * 10_000
    assert len(split([stream])) == 10_000
    assert counting.searched <= len(stream) + 8


def test_an_event_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LARGEST_EVENT", 1_000)
    splitter = EventSplitter()
    assert list(splitter.feed(b"data: " + b"x" * 900)) == []
    with pytest.raises(BadReply, match="does not end"):
        list(splitter.feed(b"x" * 100))
