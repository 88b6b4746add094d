"""A stream on its way from provider to caller: held until it says something, its outcome told at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from routing.background import Background
from routing.dialects import CHAT, Dialect
from routing.errors import BadReply, ProviderError, TooSlow
from routing.providers.base import Chunk, Stream
from routing.types import Outcome, Usage


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """How a stream ended. `tokens` were delivered, about one per chunk."""

    outcome: Outcome
    error: ProviderError | None
    usage: Usage | None
    tokens: int


@dataclass(slots=True)
class Opened:
    """A stream that has said something: what it said so far, and the rest to come."""

    stream: Stream
    rest: AsyncIterator[Chunk]
    held: list[Chunk] = field(default_factory=list)


async def opened(stream: Stream, background: Background) -> Opened:
    """Reads up to the first meaningful chunk. Raises what went wrong before it, or BadReply when nothing came."""
    result = Opened(stream, aiter(stream))
    try:
        async for chunk in result.rest:
            result.held.append(chunk)
            if chunk.meaningful:
                return result
        raise BadReply("The provider's stream held nothing.")
    except BaseException as error:
        background.start(stream.aclose())
        if isinstance(error, ProviderError) and error.usage is None:
            error.usage = next((chunk.usage for chunk in reversed(result.held) if chunk.usage), None)
        raise


class Relay:
    """Iterates over the bytes for the caller; `ended` is told once how it went, also when the caller leaves."""

    def __init__(
        self,
        source: Opened,
        background: Background,
        ended: Callable[[StreamEnd], None],
        *,
        idle_seconds: float,
        deadline: float,
        request_id: str,
        dialect: Dialect = CHAT,
    ) -> None:
        self._source, self._background, self._ended, self._dialect = source, background, ended, dialect
        self._idle_seconds, self._deadline, self._request_id = idle_seconds, deadline, request_id
        self._tokens = 0
        self._usage: Usage | None = None
        self._open = True

    def __aiter__(self) -> Relay:
        return self

    async def __anext__(self) -> bytes:
        """The next piece. A failure of the provider becomes the last piece: an error event."""
        if not self._open:
            raise StopAsyncIteration
        try:
            return await self._next()
        except StopAsyncIteration:
            self._end(Outcome.OK)
            raise
        except ProviderError as error:
            self._end(error.policy.outcome, error)
            stream = self._source.stream
            return self._dialect.error_event(error, self._request_id, delivered=self._tokens, stream=stream)

    def leave(self) -> None:
        """The caller is gone, or all was said: cancels the provider's work if it has not ended."""
        self._end(Outcome.NEUTRAL)

    async def _next(self) -> bytes:
        if self._source.held:
            chunks, self._source.held = self._source.held, []
            return b"".join([self._note(chunk) for chunk in chunks])
        while True:
            if data := self._note(await self._read()):
                return data

    async def _read(self) -> Chunk:
        now = asyncio.get_running_loop().time()
        seconds = min(self._idle_seconds, self._deadline - now)
        try:
            async with asyncio.timeout(seconds):
                return await anext(self._source.rest)
        except TimeoutError:
            raise TooSlow("The provider stopped in the middle of its answer.") from None

    def _note(self, chunk: Chunk) -> bytes:
        self._tokens += chunk.tokens
        self._usage = chunk.usage or self._usage
        return chunk.data

    def _end(self, outcome: Outcome, error: ProviderError | None = None) -> None:
        """Settles without waiting for anything: a cancelled task may not wait any more."""
        if self._open:
            self._open = False
            self._background.start(self._source.stream.aclose())
            usage = self._usage or (error.usage if error else None)
            self._ended(StreamEnd(outcome, error, usage, self._tokens))
