"""Messages events as chat completion chunks.

Events and deltas of kinds that are not known here are passed over, as the API's versioning policy asks of clients.
Source: "Streaming messages" in Anthropic's documentation, as of November 2026.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic_core import to_json

from routing.errors import BadReply, ProviderError
from routing.providers.anthropic_reply import (
    call_object,
    completion_head,
    finish,
    from_error,
    member,
    refusal_text,
    reply_headers,
    text,
    usage_object,
    usage_of,
)
from routing.providers.base import Chunk, Stream
from routing.providers.http import Http
from routing.providers.native import an_object
from routing.providers.sse import EventSplitter, ServerSentEvent
from routing.types import Usage

_DONE = b"data: [DONE]\n\n"


class AnthropicStream(Stream):
    """A stream of chunks. Each read from the provider becomes at most one `Chunk`, however many events it holds."""

    def __init__(self, http: Http, response: httpx.Response, *, tell_usage: bool, dropped: tuple[str, ...]) -> None:
        self.headers: Mapping[str, str] = reply_headers(response.headers)
        self.dropped = dropped
        self._http, self._response = http, response
        self._translation = Translation(tell_usage=tell_usage)

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        splitter, translation = EventSplitter(), self._translation
        async for piece in self._http.pieces(self._response):
            chunk, failure = translation.read(splitter.feed(piece))
            if chunk:
                yield chunk
            if failure:
                raise failure
        chunk, failure = translation.read(splitter.rest())
        if chunk:
            yield chunk
        if failure:
            raise failure
        if chunk := translation.end():
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


@dataclass(slots=True)
class _Block:
    """A content block that is being written."""

    start: dict[str, Any]
    call: int  # its place among the tool calls, where it is one
    said: list[str] = field(default_factory=list)
    signature: str = ""


@dataclass(slots=True)
class _Written:
    """What the events of one read became."""

    data: list[bytes] = field(default_factory=list)
    meaningful: bool = False
    tokens: int = 0
    usage: Usage | None = None
    model: str | None = None

    def chunk(self) -> Chunk | None:
        """None when nothing was written."""
        if not self.data:
            return None
        return Chunk(b"".join(self.data), self.meaningful, self.tokens, self.usage, self.model)


class Translation:
    """One message on its way: events in, chunks out. Pure but for the second it began in."""

    def __init__(self, *, tell_usage: bool) -> None:
        self._tell_usage = tell_usage
        self._head: dict[str, Any] = {}
        self._counts: dict[str, Any] = {}
        self._open: dict[int, _Block] = {}
        self._calls = self._thoughts = 0
        self._out = _Written()
        self._finished = False  # the reason for the end was told
        self._done = False

    def read(self, events: Iterable[ServerSentEvent]) -> tuple[Chunk | None, ProviderError | None]:
        """What the events say, and the failure that ended them: what came before it is still to be delivered."""
        self._out, failure = _Written(), None
        try:
            for event in events:
                if event.data and not self._done:
                    self._take(an_object(event.data))
        except ProviderError as error:
            failure = error
        return self._out.chunk(), failure

    def end(self) -> Chunk | None:
        """What is still to be said when no more events come. Raises BadReply when the answer has not ended."""
        self._out = _Written()
        if not self._done:
            self._message_stop({})
        return self._out.chunk()

    def _take(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "error":
            raise from_error(member(event, "error"))
        if not isinstance(kind, str) or kind not in _EVENTS:
            return
        if not self._head and kind != "message_start":
            raise BadReply("The provider's stream began in the middle.")
        _EVENTS[kind](self, event)

    def _message_start(self, event: dict[str, Any]) -> None:
        message = member(event, "message")
        self._head = completion_head(message, "chat.completion.chunk")
        self._counts = member(message, "usage")
        self._out.model = self._head["model"]
        self._say({"role": "assistant", "content": ""}, tokens=0)

    def _block_start(self, event: dict[str, Any]) -> None:
        start = member(event, "content_block")
        block = self._open[_index(event)] = _Block(start, self._calls)
        match text(start, "type"):
            case "text":
                self._say_text("content", start.get("text"))
            case "tool_use":
                self._calls += 1
                self._say({"tool_calls": [{"index": block.call, **call_object(start, "")}]})
            case "thinking":
                block.said.append(str(start.get("thinking", "")))
                self._say_text("reasoning_content", block.said[-1])
                block.signature = str(start.get("signature", ""))
            case "redacted_thinking":
                self._say_thought(start, tokens=1)
            case _:
                pass

    def _block_delta(self, event: dict[str, Any]) -> None:
        block, delta = self._block(event), member(event, "delta")
        match delta.get("type"):
            case "text_delta":
                self._say_text("content", text(delta, "text"))
            case "thinking_delta":
                block.said.append(text(delta, "thinking"))
                self._say_text("reasoning_content", block.said[-1])
            case "signature_delta":
                block.signature += text(delta, "signature")
            case "input_json_delta":
                self._say_arguments(block, text(delta, "partial_json"))
            case _:
                pass

    def _block_stop(self, event: dict[str, Any]) -> None:
        block = self._block(event)
        del self._open[_index(event)]
        if block.start["type"] == "tool_use" and not block.said:
            self._say_arguments(block, to_json(block.start.get("input") or {}).decode())
        elif block.start["type"] == "thinking":
            thought = {"thinking": "".join(block.said), "signature": block.signature}
            self._say_thought({**block.start, **thought}, tokens=0)

    def _message_delta(self, event: dict[str, Any]) -> None:
        ended = member(event, "delta")
        self._counts |= {name: count for name, count in member(event, "usage").items() if count is not None}
        reason = ended.get("stop_reason")
        if not isinstance(reason, str) or self._finished:
            return
        if reason == "refusal":
            self._say({"refusal": refusal_text(ended)})
        self._finished = self._out.meaningful = True
        self._out.usage = usage_of(self._counts)
        self._write([{"index": 0, "delta": {}, "logprobs": None, **finish(reason)}])

    def _message_stop(self, event: dict[str, Any]) -> None:
        if not self._finished:
            raise BadReply("The provider's stream ended before the answer did.")
        self._done = True
        if self._tell_usage:
            self._write([], usage_object(self._counts))
        self._out.data.append(_DONE)

    def _block(self, event: dict[str, Any]) -> _Block:
        block = self._open.get(_index(event))
        if block is None:
            raise BadReply("The provider's stream continues a block that it never began.")
        return block

    def _say_text(self, name: str, said: Any) -> None:
        if said and isinstance(said, str):
            self._say({name: said})

    def _say_arguments(self, block: _Block, fragment: str) -> None:
        if fragment and block.start["type"] == "tool_use":
            block.said.append(fragment)
            self._say({"tool_calls": [{"index": block.call, "function": {"arguments": fragment}}]})

    def _say_thought(self, block: dict[str, Any], *, tokens: int) -> None:
        """A whole thinking block, numbered: OpenAI's clients put lists together by the `index` of their entries."""
        self._say({"thinking_blocks": [{**block, "index": self._thoughts}]}, tokens=tokens)
        self._thoughts += 1

    def _say(self, delta: dict[str, Any], *, tokens: int = 1) -> None:
        self._out.tokens += tokens
        self._out.meaningful |= tokens > 0
        self._write([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])

    def _write(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> None:
        told = {"usage": usage} if self._tell_usage else {}
        self._out.data.append(b"data: " + to_json({**self._head, "choices": choices, **told}) + b"\n\n")


_EVENTS: Mapping[str, Callable[[Translation, dict[str, Any]], None]] = {
    "message_start": Translation._message_start,
    "content_block_start": Translation._block_start,
    "content_block_delta": Translation._block_delta,
    "content_block_stop": Translation._block_stop,
    "message_delta": Translation._message_delta,
    "message_stop": Translation._message_stop,
}


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    if not isinstance(index, int):
        raise BadReply("The provider's stream holds a block without an index.")
    return index
