"""A provider's answer that breaks its own protocol anywhere is a failure to fail over from, and never a crash."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx
import pytest
from pydantic_core import to_json

from local.standin_anthropic import Anthropic
from local.standin_behaviour import Behaviour
from local.standin_openai import OpenAI
from local.standin_wire import Answer, Asked, Operation, Whole
from local.standin_wire import Stream as Written
from routing.dialects import Foreign, TranslatedStream
from routing.errors import ProviderError
from routing.messages import Messages
from routing.messages_request import as_chat as messages_as_chat
from routing.providers import responses
from routing.providers.anthropic_native import MessagesWatch, read_count, read_message
from routing.providers.anthropic_reply import completion
from routing.providers.anthropic_stream import AnthropicStream
from routing.providers.base import Reply, Stream
from routing.providers.http import Http
from routing.providers.native import NativeStream, Watch
from routing.providers.openai import OpenAIStream, _completion
from routing.responses import Responses
from routing.responses_request import as_chat as responses_as_chat

Events = list[dict[str, Any]]
PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS: list[dict[str, Any]] = [{"name": name, "input_schema": PARAMETERS} for name in ("a", "b")]
FUNCTIONS = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("a", "b")]
HEADERS = {"authorization": "Bearer key", "x-api-key": "key", "anthropic-version": "2023-06-01"}
QUESTION = [{"role": "user", "content": "Use tools"}]
THINKING = {"model": "m", "max_tokens": 2_000, "messages": QUESTION, "thinking": {"type": "adaptive"}}
INPUT = {"model": "m", "input": "Use tools"}
ODD: tuple[Any, ...] = (None, 0, -1, 1.5, 10**30, True, "", "x", [], {}, [1], [{}], [[]], [None], {"type": []}, " ")


def recorded(operation: Operation, fields: Mapping[str, Any]) -> tuple[dict[str, Any], Events]:
    """What a stand-in says to a request in one piece, and as a stream."""
    whole, written = (answered(operation, {**fields, "stream": stream}) for stream in (False, True))
    assert isinstance(whole, Whole)
    assert isinstance(written, Written)
    lines = b"".join([*written.opening, *written.tokens, *written.ending]).splitlines()
    return json.loads(whole.body), [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]


def answered(operation: Operation, fields: Mapping[str, Any]) -> Answer:
    asked = Asked(1, "one", "POST", "/", headers=HEADERS, body=to_json(fields), document=dict(fields))
    return operation(asked, Behaviour(reasoning_tokens=3))


SAID = {
    "openai": recorded(OpenAI().chat, {"model": "m", "messages": QUESTION, "tools": FUNCTIONS}),
    "anthropic": recorded(Anthropic().messages, {**THINKING, "tools": TOOLS}),
    "responses": recorded(
        OpenAI().responses, {**INPUT, "tools": [{"type": "function", "name": "a", "parameters": PARAMETERS}]}
    ),
}
DIALECTS: list[Callable[[], Foreign]] = [
    lambda: Messages(THINKING, messages_as_chat(THINKING), {}),
    lambda: Responses(INPUT, responses_as_chat(INPUT), {}),
]


class Canned(Http):
    """Hands out events that were prepared."""

    def __init__(self, events: Iterable[Mapping[str, Any]]) -> None:
        super().__init__()
        self._events = events

    async def pieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        for event in self._events:
            yield b"data: " + json.dumps(event).encode() + b"\n\n"


def native(watch: Callable[[], Watch]) -> Callable[[Events], Stream]:
    return lambda events: NativeStream(Canned(events), httpx.Response(200), {}, watch())


def from_openai(events: Events) -> Stream:
    return OpenAIStream(Canned(events), httpx.Response(200), hide_usage=False)


def from_anthropic(events: Events) -> Stream:
    return AnthropicStream(Canned(events), httpx.Response(200), tell_usage=True, dropped=())


def translated(source: Callable[[Events], Stream], dialect: Callable[[], Foreign]) -> Callable[[Events], Stream]:
    return lambda events: TranslatedStream(source(events), dialect().translation(), ())


READERS: dict[str, list[Callable[[Events], Stream]]] = {
    "openai": [from_openai, *(translated(from_openai, dialect) for dialect in DIALECTS)],
    "anthropic": [
        from_anthropic,
        native(MessagesWatch),
        *(translated(from_anthropic, dialect) for dialect in DIALECTS),
    ],
    "responses": [
        native(lambda: responses.watch),
        lambda events: DIALECTS[1]().watched(native(lambda: responses.watch)(events)),
    ],
}


def as_completion(body: bytes) -> None:
    """Reads a whole message as every caller's dialect has it."""
    document, _, _ = completion(body)
    in_every_dialect(to_json(document))


def in_every_dialect(body: bytes) -> None:
    _completion(body)
    for dialect in DIALECTS:
        dialect().reply(Reply(body, None, "m"))


WHOLE: dict[str, list[Callable[[bytes], Any]]] = {
    "openai": [in_every_dialect],
    "anthropic": [as_completion, read_message, read_count],
    "responses": [responses.read_response],
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*path, step)
        yield from places(inner, (*path, step))


def broken(document: Any) -> Iterator[Any]:
    """The document with one thing in it missing, or another in its place: every one of them."""
    for *path, last in places(document):
        for odd in (*ODD, places):  # the last stands for its lack
            changed = copy.deepcopy(document)
            holder = changed
            for step in path:
                holder = holder[step]
            if odd is places:
                del holder[last]
            else:
                holder[last] = odd
            yield changed


def shortened(events: Events) -> Events:
    """Of several events with the same in them only the first; both tools stay."""
    kinds = [json.dumps([*places(event), event.get("type"), event.get("output_index")]) for event in events]
    return [event for place, event in enumerate(events) if kinds[place] not in kinds[:place]]


@pytest.mark.parametrize("protocol", WHOLE)
def test_a_broken_answer_is_read_or_failed_over_from(protocol: str) -> None:
    for document in broken(SAID[protocol][0]):
        body = json.dumps(document).encode()
        for read in WHOLE[protocol]:
            with suppress(ProviderError):
                read(body)


@pytest.mark.parametrize("protocol", READERS)
async def test_a_broken_stream_is_read_or_failed_over_from(protocol: str) -> None:
    events = shortened(SAID[protocol][1])
    for place, event in enumerate(events):
        for instead in broken(event):
            for read in READERS[protocol]:
                with suppress(ProviderError):
                    async for _ in read([*events[:place], instead, *events[place + 1 :]]):
                        pass


@pytest.mark.parametrize("protocol", READERS)
async def test_what_is_not_broken_is_read(protocol: str) -> None:
    whole, events = SAID[protocol]
    for read in WHOLE[protocol]:
        if read is not read_count:
            read(json.dumps(whole).encode())
    for stream in READERS[protocol]:
        for said in (events, shortened(events)):
            assert b"".join([chunk.data async for chunk in stream(said)])


@pytest.mark.parametrize(
    "choices",
    [[], [None], [{}], [{"message": None}], [{"message": []}], [{"message": {}}, {"text": 1}], {"message": {}}],
)
def test_choices_that_hold_no_answer_are_a_failure(choices: Any) -> None:
    with pytest.raises(ProviderError):
        _completion(json.dumps({"choices": choices}).encode())
