"""Answers in a protocol of their own, passed on as bytes and read only for what the router has to know.

Events of kinds that are not known here are passed on too. Sources: "Streaming messages" in Anthropic's documentation
and OpenAI's reference of the streaming events of Responses, as of November 2026.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic_core import from_json

from routing.errors import BadReply, ProviderError
from routing.providers.base import Chunk, Stream
from routing.providers.http import Http, drain
from routing.providers.sse import EventSplitter, ServerSentEvent
from routing.types import Usage


@dataclass(frozen=True, slots=True)
class Seen:
    """What one event tells. `last`: the answer is complete."""

    meaningful: bool = False
    tokens: int = 0
    usage: Usage | None = None
    model: str | None = None
    last: bool = False


Watch = Callable[[Mapping[str, Any]], Seen]


class NativeStream(Stream):
    """Events as they came. `watch` reads each, and raises what an error among them means."""

    def __init__(self, http: Http, response: httpx.Response, headers: Mapping[str, str], watch: Watch) -> None:
        self.headers = headers
        self._pieces, self._response, self._watch = http.pieces(response), response, watch
        self._done = False

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        splitter = EventSplitter()
        async for piece in self._pieces:
            chunk, failure = self._read(splitter.feed(piece))
            if chunk:
                yield chunk
            if failure:
                raise failure
            if self._done:
                return
        chunk, failure = self._read(splitter.rest())
        if chunk:
            yield chunk
        if failure or not self._done:
            raise failure or BadReply("The provider's stream ended before the answer did.")

    async def aclose(self) -> None:
        if self._done:
            await drain(self._pieces)
        await self._response.aclose()

    def _read(self, events: Iterable[ServerSentEvent]) -> tuple[Chunk | None, ProviderError | None]:
        """What the events say, and the failure that ended them: what came before it is still to be delivered."""
        raw: list[bytes] = []
        seen: list[Seen] = []
        failure = None
        try:
            for event in events:
                if event.data is None or self._done or event.data.strip() == b"[DONE]":
                    continue
                seen.append(self._watch(an_object(event.data)))
                raw.append(event.raw)
                self._done = seen[-1].last
        except ProviderError as error:
            failure = error
        return _chunk(raw, seen), failure


@contextmanager
def counted(usage: Callable[[], Usage | None]) -> Iterator[None]:
    """What the provider has counted stays known where its reply is refused: it bills that all the same."""
    try:
        yield
    except ProviderError as error:
        error.usage = usage()
        raise


def in_one_piece(usage: Usage | None) -> BadReply:
    """What a whole answer to a streamed request is worth to us; the provider bills it."""
    error = BadReply("The provider answered a streamed request in one piece.")
    error.usage = usage
    return error


def an_object(data: bytes) -> dict[str, Any]:
    """JSON that must be an object. Raises BadReply."""
    try:
        fields = from_json(data)
    except ValueError:
        raise BadReply("The provider sent something that is not JSON.") from None
    if not isinstance(fields, dict):
        raise BadReply("The provider sent something that is not an object.")
    return fields


def _chunk(raw: list[bytes], seen: list[Seen]) -> Chunk | None:
    if not raw:
        return None
    return Chunk(
        data=b"".join(raw),
        meaningful=any(one.meaningful for one in seen),
        tokens=sum(one.tokens for one in seen),
        usage=next((one.usage for one in reversed(seen) if one.usage), None),
        model=next((one.model for one in seen if one.model), None),
    )
