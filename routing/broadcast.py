"""One stream for several callers: what was said is kept, and everybody reads it at their own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol


class Pieces(Protocol):
    """The bytes of a stream for its caller."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes:
        """The next piece. Raises StopAsyncIteration at the end."""

    def leave(self) -> None:
        """Nobody listens any more."""


class Replay:
    """A stream that was kept."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = iter(pieces)

    def __aiter__(self) -> Replay:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration

    def leave(self) -> None:
        """It costs nobody anything."""


class Recorded:
    """A stream that is kept while it passes; `whole` is told all of it if it comes to its own end."""

    def __init__(self, source: Pieces, largest: int, whole: Callable[[tuple[bytes, ...]], None]) -> None:
        self._source, self._room, self._whole = source, largest, whole
        self._said: list[bytes] = []

    def __aiter__(self) -> Recorded:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._source)
        except StopAsyncIteration:
            if self._said and self._room >= 0:
                self._whole(tuple(self._said))
            self._said = []
            raise
        self._room -= len(piece)
        if self._room >= 0:
            self._said.append(piece)
        return piece

    def leave(self) -> None:
        self._said = []
        self._source.leave()


class Broadcast:
    """Reads `source` for all who listen, and leaves it when the last of them has left; `ended` is told of its end."""

    def __init__(self, source: Pieces, ended: Callable[[], None]) -> None:
        self._source, self._ended = source, ended
        self._said: list[bytes] = []
        self._news = asyncio.Event()
        self._listeners = 0
        self._said_end = False
        self._task = asyncio.get_running_loop().create_task(self._read())
        self._task.add_done_callback(self._over)

    def listen(self) -> Listener:
        """One more caller, who hears it from the beginning."""
        self._listeners += 1
        return Listener(self)

    async def piece(self, place: int) -> bytes | None:
        """The piece at `place` once it is there; None at the end. Raises what reading the source raised."""
        while place >= len(self._said):
            if self._task.done():
                self._task.result()
                return None
            await self._news.wait()
        return self._said[place]

    def left(self) -> None:
        """One caller less; without any the source is left."""
        self._listeners -= 1
        if self._listeners <= 0:
            self._task.cancel()
            self._source.leave()
            self._end()

    async def _read(self) -> None:
        async for piece in self._source:
            self._said.append(piece)
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # whoever listens gets it
        self._end()
        self._tell()

    def _end(self) -> None:
        if not self._said_end:
            self._said_end = True
            self._ended()


class Listener:
    """One caller's place in a broadcast."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast, self._place, self._here = broadcast, 0, True

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._broadcast.piece(self._place)
        if piece is None:
            raise StopAsyncIteration
        self._place += 1
        return piece

    def leave(self) -> None:
        if self._here:
            self._here = False
            self._broadcast.left()
