"""Server-sent events out of bytes that arrive in any pieces (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from routing.errors import BadReply

LARGEST_EVENT = 32 * 1024 * 1024  # bytes; an event that never ends must not fill the memory
_BOM = b"\xef\xbb\xbf"
_EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")  # atomic: one CRLF must not pass for two line ends
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LONGEST_END = 4  # bytes of the longest event end, which may be cut by a piece's border


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event: the bytes as they came, and its data; None for a comment, for empty data, or another field alone."""

    raw: bytes
    data: bytes | None
    event: bytes | None = None


class EventSplitter:
    """Cuts a byte stream into events. Each byte is searched once, however long the event is."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._started = False

    def feed(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """The events that `piece` completes. Raises BadReply when one grows without end."""
        self._buffer += piece
        if not self._started and not self._start():
            return
        while end := _EVENT_END.search(self._buffer, self._searched):
            raw = bytes(self._buffer[: end.end()])
            del self._buffer[: end.end()]
            self._searched = 0
            yield _event(raw)
        self._searched = max(0, len(self._buffer) - _LONGEST_END)
        if len(self._buffer) > LARGEST_EVENT:
            raise BadReply("The provider sent an event that does not end.")

    def rest(self) -> list[ServerSentEvent]:
        """What is left at the end of the stream: at most one event, whose blank line never came."""
        raw, self._buffer = bytes(self._buffer), bytearray()
        return [_event(raw + b"\n\n")] if raw.strip() else []

    def _start(self) -> bool:
        """Drops a byte order mark; False while too little has come to tell."""
        if _BOM.startswith(self._buffer[:3]) and len(self._buffer) < len(_BOM):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
        self._started = True
        return True


def _event(raw: bytes) -> ServerSentEvent:
    if raw.startswith(b"data: ") and raw.count(b"\n") == 2 and b"\r" not in raw:
        return ServerSentEvent(raw, raw[6:-2] or None)  # what every provider sends; the rest is for the exotic
    data: list[bytes] = []
    kind: bytes | None = None
    for line in _LINE_END.split(raw):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            kind = value.removeprefix(b" ")
    return ServerSentEvent(raw, b"\n".join(data) or None, kind)
