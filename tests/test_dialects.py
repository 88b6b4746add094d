"""Streams put in other words: whatever the pieces they arrive in, the same is said, and whole answers agree."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from routing.completions import Calls, Fragment
from routing.dialects import Translated, TranslatedStream
from routing.errors import (
    BadReply,
    BadRequest,
    InvalidRequest,
    ProviderError,
    QuotaExhausted,
    Throttled,
    Unavailable,
)
from routing.messages import Messages, error_body
from routing.messages_content import UNSIGNED
from routing.messages_request import as_chat as messages_as_chat
from routing.providers.anthropic_native import MessagesWatch, read_message
from routing.providers.base import Chunk, Reply, Stream
from routing.providers.native import NativeStream
from routing.providers.responses import read_response, watch
from routing.responses import Responses
from routing.responses_content import opened, sealed
from routing.responses_request import as_chat as responses_as_chat
from routing.types import Usage
from routing.wire import ChatRequest

NOTHING = Translated({})
USED = Usage(input=10, output=5, cached=3, reasoning=2, cache_write=1)


class Pieces(Stream):
    """A source of chunks."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.headers, self.chunks = {}, chunks

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for chunk in self.chunks:
            yield chunk

    async def aclose(self) -> None:
        """There is nothing to close."""


def messages(**fields: Any) -> Messages:
    return Messages({"thinking": {"type": "adaptive"}, **fields}, NOTHING, {})


def responses(**fields: Any) -> Responses:
    return Responses(fields, NOTHING, {})


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"model": "m", "choices": [choice]}).encode() + b"\n\n"


def call(index: int, arguments: str, **begins: str) -> dict[str, Any]:
    name = {"name": begins["name"]} if "name" in begins else {}
    known = {"id": begins["id"], "type": "function"} if "id" in begins else {}
    return {"tool_calls": [{"index": index, **known, "function": {**name, "arguments": arguments}}]}


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The data in pieces that end at these places."""
    borders = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(borders)]


async def translated(dialect: Messages | Responses, pieces: Sequence[bytes], usage: Usage | None = USED) -> bytes:
    chunks = [Chunk(piece) for piece in pieces] + [Chunk(b"", usage=usage)]
    stream = TranslatedStream(Pieces(chunks), dialect.translation(), ())
    return b"".join([chunk.data async for chunk in stream])


def told(data: bytes) -> list[dict[str, Any]]:
    lines = data.decode().split("\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def message_of(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The message that these events make, as clients put it together. Fails where the events break the protocol."""
    message: dict[str, Any] = {}
    open_at: int | None = None
    for event in events:
        match event["type"]:
            case "message_start":
                message = {**event["message"], "content": []}
            case "content_block_start":
                assert (open_at, event["index"]) == (None, len(message["content"]))
                open_at = event["index"]
                message["content"].append({**event["content_block"], "json": ""})
            case "content_block_delta":
                assert event["index"] == open_at
                delta, block = event["delta"], message["content"][-1]
                name = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
                if delta["type"] == "input_json_delta":
                    block["json"] += delta["partial_json"]
                else:
                    block[name[delta["type"]]] += delta[name[delta["type"]]]
            case "content_block_stop":
                assert event["index"] == open_at
                open_at = None
                block = message["content"][-1]
                if written := block.pop("json"):
                    block["input"] = json.loads(written)
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
    assert events[-1] == {"type": "message_stop"}
    return message


def response_of(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The response that ends these events, which its deltas have to agree with."""
    said: dict[str, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            said[event["item_id"]] = said.get(event["item_id"], "") + event["delta"]
    response = events[-1]["response"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert sorted(done, key=lambda item: item["id"]) == sorted(response["output"], key=lambda item: item["id"])
    texts = some_texts(response["output"])
    assert {name: text for name, text in said.items() if text} == {name: text for name, text in texts.items() if text}
    return response


def some_texts(output: Sequence[dict[str, Any]]) -> dict[str, str]:
    kinds = {"function_call": lambda item: item["arguments"], "reasoning": lambda item: _joined(item["summary"])}
    return {item["id"]: kinds.get(item["type"], lambda item: _joined(item["content"]))(item) for item in output}


def _joined(parts: Sequence[dict[str, Any]]) -> str:
    return "".join(part.get("text") or part.get("refusal") or "" for part in parts)


WORDS = some.text(min_size=1, max_size=8)
DELTAS: some.SearchStrategy[dict[str, Any]] = some.one_of(
    WORDS.map(lambda text: {"content": text}),
    WORDS.map(lambda text: {"reasoning_content": text}),
    some.sampled_from([{"role": "assistant", "content": ""}, {}, {"content": None}]),
)
CALLS = some.lists(some.dictionaries(WORDS, WORDS, max_size=2), max_size=3)


@some.composite
def answers(draw: some.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """A stream as a provider may send it, its calls' pieces in any order among each other, and the same in whole."""
    deltas: list[dict[str, Any]] = draw(some.lists(DELTAS, min_size=1, max_size=8))
    given = draw(CALLS)
    pieces = []
    for index, arguments in enumerate(given):
        written = json.dumps(arguments)
        middle = draw(some.integers(0, len(written)))
        begins = call(index, written[:middle], id=f"call_{index}", name=f"f{index}")
        pieces.append([begins, call(index, written[middle:])])
    order = draw(some.permutations([index for index in range(len(given)) for _ in range(2)]))
    deltas += [pieces[index].pop(0) for index in order]
    finish = "tool_calls" if given else draw(some.sampled_from(["stop", "length"]))
    stream = b"".join(chunk(delta) for delta in deltas) + chunk({}, finish) + b"data: [DONE]\n\n"
    whole: dict[str, Any] = {
        "content": "".join(delta.get("content") or "" for delta in deltas),
        "reasoning_content": "".join(delta.get("reasoning_content") or "" for delta in deltas),
        "tool_calls": [
            {"id": f"call_{index}", "type": "function", "function": {"name": f"f{index}", "arguments": json.dumps(a)}}
            for index, a in enumerate(given)
        ],
    }
    begun = list(dict.fromkeys(order))
    whole["tool_calls"] = [whole["tool_calls"][index] for index in begun]
    return stream, {"model": "m", "choices": [{"index": 0, "message": whole, "finish_reason": finish}]}


PLACES = some.lists(some.integers(0, 5_000), max_size=40)


@given(answers(), PLACES)
@settings(max_examples=60, deadline=None)
async def test_a_stream_says_the_same_as_the_whole_message_however_it_is_cut(answer, places):
    stream, whole = answer
    streamed = message_of(told(await translated(messages(), cut(stream, places))))
    message = json.loads(messages().reply(Reply(json.dumps(whole).encode(), USED, "m")))
    assert _by_kind(streamed["content"]) == _by_kind(message["content"])
    for name in ("stop_reason", "usage", "model"):
        assert streamed[name] == message[name]


def _by_kind(blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Texts and thoughts joined: how often they take turns is only to be seen in a stream."""
    return {
        "text": "".join(block["text"] for block in blocks if block["type"] == "text"),
        "thinking": "".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        "calls": [(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"],
    }


@given(answers(), PLACES)
@settings(max_examples=60, deadline=None)
async def test_a_stream_says_the_same_as_the_whole_response_however_it_is_cut(answer, places):
    stream, whole = answer
    events = told(await translated(responses(), cut(stream, places)))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    streamed = response_of(events)
    response = json.loads(responses().reply(Reply(json.dumps(whole).encode(), USED, "m")))
    for name in ("status", "usage", "model", "incomplete_details"):
        assert streamed[name] == response[name]
    assert _calls(streamed) == _calls(response)
    for kind in ("message", "reasoning"):
        assert _texts(streamed, kind) == _texts(response, kind)


async def test_a_thought_is_over_when_something_else_begins():
    say = [{"reasoning_content": "Hm."}, {"content": "Let me see."}, {"reasoning_content": "Oh."}, {"content": "Yes."}]
    events = told(await translated(responses(), [*map(chunk, say), chunk({}, "stop")]))
    bounds = [(event["type"][21:], event["output_index"]) for event in events if ".output_item." in event["type"]]
    assert bounds[:4] == [("added", 0), ("done", 0), ("added", 1), ("added", 2)]
    assert [item["type"] for item in response_of(events)["output"]] == ["reasoning", "message", "reasoning"]


def _texts(response: dict[str, Any], kind: str) -> str:
    """What is said in all items of a kind."""
    return "".join(some_texts([item for item in response["output"] if item["type"] == kind]).values())


def _calls(response: dict[str, Any]) -> list[tuple[str, str, str]]:
    items = [item for item in response["output"] if item["type"] == "function_call"]
    return [(item["call_id"], item["name"], item["arguments"]) for item in items]


async def test_calls_that_share_an_index_but_not_an_id_are_two_calls():
    pieces = [chunk(call(0, "{}", id=f"c{n}", name="f")) for n in (1, 2)] + [chunk({}, "stop")]
    message = message_of(told(await translated(messages(), pieces)))
    assert [block["id"] for block in message["content"]] == ["c1", "c2"]
    assert message["stop_reason"] == "tool_use"


async def test_the_rest_of_a_call_that_never_began_is_a_bad_reply_after_what_came_before_it():
    chunks = [Chunk(chunk({"content": "Yes."}) + chunk(call(0, "{}")))]
    stream = aiter(TranslatedStream(Pieces(chunks), messages().translation(), ()))
    assert b"Yes." in (await anext(stream)).data
    with pytest.raises(BadReply):
        await anext(stream)


def test_an_id_that_other_providers_would_refuse_is_made_to_fit():
    begun, new = Calls().take(Fragment(0, "functions.f:0", "f", ""))
    assert (begun.id, new) == ("functions_f_0", True)


async def test_a_refusal_is_one_in_both_protocols():
    pieces = [chunk({"refusal": "I will "}), chunk({"refusal": "not."}), chunk({}, "stop")]
    message = message_of(told(await translated(messages(), pieces)))
    assert (message["stop_reason"], message["stop_details"]["explanation"]) == ("refusal", "I will not.")
    response = response_of(told(await translated(responses(), pieces)))
    assert response["output"][0]["content"] == [{"type": "refusal", "refusal": "I will not."}]
    assert response["status"] == "completed"


async def test_an_answer_withheld_by_a_filter_says_so_in_both_protocols():
    pieces = [chunk({"content": "I"}), chunk({}, "content_filter")]
    assert message_of(told(await translated(messages(), pieces)))["stop_reason"] == "refusal"
    assert response_of(told(await translated(responses(), pieces)))["incomplete_details"] == {
        "reason": "content_filter"
    }


async def test_thoughts_are_for_callers_who_asked_for_them():
    pieces = [chunk({"reasoning_content": "Hm."}), chunk({"content": "Yes."}), chunk({}, "stop")]
    plain = message_of(told(await translated(messages(thinking={"type": "disabled"}), pieces)))
    assert [block["type"] for block in plain["content"]] == ["text"]
    thinking = message_of(told(await translated(messages(), pieces)))
    assert thinking["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": UNSIGNED}


def test_thoughts_that_anthropic_never_had_do_not_reach_it():
    thought = {"type": "thinking", "thinking": "Hm.", "signature": UNSIGNED}
    own = {"type": "thinking", "thinking": "So.", "signature": "c2lnbmVk"}
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [thought, own]}]
    sent = messages().untouched({"messages": said, "router": {}, "betas": 1})
    assert sent == {"messages": [said[0], {"role": "assistant", "content": [own]}], "betas": 1}


async def test_without_a_count_what_was_said_is_counted():
    chunks = [Chunk(chunk({"content": "a"}), tokens=1), Chunk(chunk({}, "stop"))]
    stream = TranslatedStream(Pieces(chunks), messages().translation(), ())
    events = told(b"".join([one.data async for one in stream]))
    assert message_of(events)["usage"]["output_tokens"] == 1


@pytest.mark.parametrize("arguments", ["[1]", "{", "x"])
def test_arguments_that_are_no_object_are_a_bad_reply_unless_the_answer_was_cut(arguments):
    def reply(finish: str) -> bytes:
        message = call(0, arguments, id="c", name="f")
        whole = {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
        return messages().reply(Reply(json.dumps(whole).encode(), USED, "m"))

    with pytest.raises(BadReply):
        reply("tool_calls")
    assert json.loads(reply("length"))["content"] == []


@pytest.mark.parametrize("body", [b"{}", b'{"choices": []}', b'{"choices": [{}]}', b"[]", b"{"])
def test_what_is_no_completion_is_a_bad_reply(body):
    for dialect in (messages(), responses()):
        with pytest.raises(BadReply):
            dialect.reply(Reply(body))


def test_sealed_thoughts_are_opened_again_and_others_are_not():
    blocks = [{"type": "thinking", "thinking": "é", "signature": "s"}]
    assert opened({"encrypted_content": sealed(blocks)}) == blocks
    assert opened({"encrypted_content": "gAAAA"}) is None
    assert opened({}) is None
    assert opened({"encrypted_content": "llm-router:!"}) == []


def test_images_in_the_results_of_tools_follow_them():
    image = {"type": "base64", "media_type": "image/png", "data": "AA=="}
    result = {
        "type": "tool_result",
        "tool_use_id": "t",
        "is_error": True,
        "content": [{"type": "text", "text": "no"}, {"type": "image", "source": image}],
    }
    said: list[Any] = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [result, {"type": "text", "text": "Well?"}]},
    ]
    turns = messages_as_chat({"model": "m", "max_tokens": 1, "messages": said}).fields["messages"]
    assert turns[1] == {"role": "tool", "tool_call_id": "t", "content": "Error: no"}
    assert [part["type"] for part in turns[2]["content"]] == ["image_url", "text"]
    output = [{"type": "input_text", "text": "no"}, {"type": "input_image", "image_url": "https://x/y.png"}]
    items = [
        {"type": "function_call", "call_id": "t", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "t", "output": output},
    ]
    turns = responses_as_chat({"model": "m", "input": items}).fields["messages"]
    assert [turn["role"] for turn in turns] == ["assistant", "tool", "user"]
    assert turns[2]["content"][0]["type"] == "image_url"


def test_documents_are_carried_over_or_only_for_anthropic():
    def read(source: dict[str, Any]):
        content = [{"type": "document", "source": source}]
        return messages_as_chat({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}]})

    pdf = read({"type": "base64", "media_type": "application/pdf", "data": "AA=="})
    assert pdf.fields["messages"][0]["content"][0]["file"]["file_data"] == "data:application/pdf;base64,AA=="
    assert read({"type": "text", "media_type": "text/plain", "data": "Hi"}).fields["messages"][0]["content"] == "Hi"
    assert read({"type": "file", "file_id": "f"}).beyond == "messages[0].content[0].source"


def test_names_of_unknown_fields_are_fit_for_a_header():
    fields = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "a\nb": 1}
    assert messages_as_chat(fields).dropped == ("a?b",)
    many = messages_as_chat({**fields, **{f"f{n}": 1 for n in range(50)}}).dropped
    assert (len(many), many[-1]) == (33, "...")


def native(data: bytes, places: Sequence[int], reads: Any) -> NativeStream:
    class Source:
        async def pieces(self, response: Any) -> AsyncIterator[bytes]:
            for piece in cut(data, places):
                yield piece

    return NativeStream(Source(), None, {}, reads)  # type: ignore[arg-type]  # a source of pieces is all it needs


def event(**fields: Any) -> bytes:
    return b"event: %s\r\ndata: %s\r\n\r\n" % (fields["type"].encode(), json.dumps(fields).encode())


MESSAGE = [
    event(
        type="message_start", message={"model": "claude", "usage": {"input_tokens": 7, "cache_read_input_tokens": 2}}
    ),
    event(type="content_block_start", index=0, content_block={"type": "text", "text": ""}),
    event(type="ping"),
    event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "é"}),
    event(type="citations_of_the_future", index=0),
    event(type="content_block_stop", index=0),
    event(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
    event(type="message_stop"),
]
RESPONSE = [
    event(type="response.created", response={"id": "r", "model": "gpt", "output": []}),
    event(type="response.output_item.added", item={"type": "message"}),
    event(type="response.output_text.delta", delta="é"),
    event(type="response.of_the_future"),
    event(
        type="response.completed",
        response={"id": "r", "model": "gpt", "usage": {"input_tokens": 9, "output_tokens": 3}},
    ),
]


@given(PLACES)
@settings(max_examples=60, deadline=None)
async def test_native_events_pass_as_they_are_however_they_are_cut(places):
    for events, reads in ((MESSAGE, MessagesWatch()), (RESPONSE, watch)):
        chunks = [one async for one in native(b"".join(events), places, reads)]
        passed = b"".join(one.data for one in chunks)
        assert passed.strip() == b"".join(events).strip()  # of the last line's end, half ends the event as well
        assert sum(one.tokens for one in chunks) == 1
        assert any(one.meaningful for one in chunks)
        assert {one.model for one in chunks} - {None} <= {"claude", "gpt"}
        used = [one.usage for one in chunks if one.usage]
        assert (used[-1].input, used[-1].output) == (9, 3)


@given(some.integers(0, len(MESSAGE) - 2), PLACES)
@settings(max_examples=40, deadline=None)
async def test_a_native_stream_without_its_end_is_a_bad_reply(kept, places):
    for events, reads in ((MESSAGE, MessagesWatch()), (RESPONSE[:-1], watch)):
        with pytest.raises(BadReply):
            [one async for one in native(b"".join(events[:kept]), places, reads)]


async def test_a_message_that_stops_without_a_reason_is_a_bad_reply():
    with pytest.raises(BadReply):
        [one async for one in native(b"".join([*MESSAGE[:-2], MESSAGE[-1]]), (), MessagesWatch())]


FAILURES: dict[str, tuple[dict[str, Any], type[ProviderError]]] = {
    "flat": ({"type": "error", "code": "rate_limit_exceeded", "message": "x"}, Throttled),
    "nested": (
        {"type": "error", "error": {"code": "insufficient_quota", "type": "insufficient_quota"}},
        QuotaExhausted,
    ),
    "failed": ({"type": "response.failed", "response": {"error": {"code": "server_error"}}}, Unavailable),
    "no event": ({"error": {"code": "rate_limit_exceeded"}}, Throttled),
    "nothing": ({}, BadReply),
}


@pytest.mark.parametrize(("failure", "error"), FAILURES.values(), ids=FAILURES)
def test_failures_among_the_events_of_a_response_are_told_apart(failure, error):
    with pytest.raises(error):
        watch(failure)


BROKEN: dict[str, tuple[Any, bytes, type[ProviderError]]] = {
    "error in a message": (read_message, b'{"type": "error", "error": {"type": "overloaded_error"}}', Unavailable),
    "no content": (read_message, b'{"type": "message"}', BadReply),
    "no reason": (read_message, b'{"content": [], "model": "m", "usage": {}}', BadReply),
    "failed response": (read_response, b'{"error": {"code": "rate_limit_exceeded"}}', Throttled),
    "unfinished response": (read_response, b'{"output": [], "status": "queued"}', BadReply),
    "no output": (read_response, b"{}", BadReply),
}


@pytest.mark.parametrize(("read", "body", "error"), BROKEN.values(), ids=BROKEN)
def test_a_native_reply_that_is_no_answer_is_a_failure(read, body, error):
    with pytest.raises(error):
        read(body)


def test_anthropics_own_words_about_a_request_are_kept_and_others_are_put_in_its_shape():
    error = BadRequest("no")
    error.provider_body = {"type": "invalid_request_error", "message": "max_tokens: too large", "details": {"a": 1}}
    assert error_body(error, "req_1")["error"] == error.provider_body
    error.provider_body = {"type": "tokens", "message": "too long", "code": "context_length_exceeded", "param": "x"}
    assert error_body(error, "req_1") == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "too long",
            "details": {"error_code": "context_length_exceeded", "param": "x"},
        },
        "request_id": "req_1",
    }


def response_request(**fields: Any) -> Translated:
    return responses_as_chat({"model": "m", "input": "Hi", **fields})


FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def test_a_choice_among_allowed_tools_is_carried_over():
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}
    among = [{"type": "function", "function": {"name": "f"}}]
    chat = response_request(tools=[FUNCTION], tool_choice=choice)
    assert chat.fields["tool_choice"] == {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": among},
    }
    other = {**choice, "tools": [{"type": "web_search"}]}
    assert response_request(tools=[FUNCTION], tool_choice=other).beyond == "tool_choice.tools[0].type"


BEYOND: dict[str, tuple[dict[str, Any], str]] = {
    "tool choice": ({"tools": [FUNCTION], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    "moderation": ({"moderation": {"model": "m"}}, "moderation"),
    "instructions in items": ({"instructions": [{"role": "user", "content": "x"}]}, "instructions"),
    "item": ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type"),
    "stored image": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0]",
    ),
    "part": ({"input": [{"role": "user", "content": [{"type": "odd"}]}]}, "input[0].content[0].type"),
}


@pytest.mark.parametrize(("fields", "path"), BEYOND.values(), ids=BEYOND)
def test_what_chat_cannot_say_of_a_response_request_is_noted_by_its_place(fields, path):
    assert response_request(**fields).beyond == path


def test_parts_of_every_kind_are_carried_over():
    audio = {"data": "AA==", "format": "wav"}
    parts = [
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        {"type": "input_audio", "input_audio": audio},
    ]
    said = [{"type": "output_text", "text": "No, "}, {"type": "refusal", "refusal": "never."}]
    given = [{"role": "user", "content": parts}, {"role": "assistant", "content": said}]
    user, assistant = response_request(input=given).fields["messages"]
    assert user["content"] == [
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
        {"type": "input_audio", "input_audio": audio},
    ]
    assert assistant == {"role": "assistant", "content": "No, never."}


def test_formats_and_wishes_are_carried_over():
    chat = response_request(text={"format": {"type": "json_object"}, "verbosity": "low"}, reasoning={"mode": "pro"})
    assert chat.fields["response_format"] == {"type": "json_object"}
    assert chat.fields["verbosity"] == "low"
    assert chat.dropped == ("reasoning.mode",)


def messages_request(**fields: Any) -> Translated:
    return messages_as_chat({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}], **fields})


def test_fields_of_a_messages_request_are_carried_over():
    schema = {"type": "object"}
    chat = messages_request(
        metadata={"user_id": "u"},
        stop_sequences=["x"],
        temperature=1,
        output_config={"effort": "max"},
        output_format={"type": "json_schema", "schema": schema},
    ).fields
    assert (chat["user"], chat["stop"], chat["temperature"], chat["reasoning_effort"]) == ("u", ["x"], 1, "xhigh")
    assert chat["response_format"]["json_schema"] == {"name": "output", "schema": schema, "strict": True}


def test_what_only_nudges_anthropic_is_named():
    tool = {"name": "f", "input_schema": {}, "cache_control": {"type": "ephemeral"}}
    system = [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]
    chat = messages_request(service_tier="standard_only", metadata={"user_id": "u" * 99}, tools=[tool], system=system)
    assert chat.dropped == ("system[].cache_control", "service_tier", "metadata.user_id", "tools[].cache_control")


def test_turns_of_every_kind_are_carried_over():
    said: list[Any] = [
        {"role": "system", "content": "s"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"},
                {"type": "thinking", "thinking": "So.", "signature": UNSIGNED},
                {"type": "text", "text": "a"},
                {"type": "text", "text": "b"},
            ],
        },
        {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}]},
    ]
    chat = messages_request(messages=said, system="first")
    assert chat.fields["messages"] == [
        {"role": "system", "content": "first"},
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": "ab"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
    ]
    assert chat.dropped == ("messages[].content[].thinking",)
    assert chat.places == ("system", "messages[0]", "messages[1]", "messages[2]")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"inference_geo": "us"}, "inference_geo"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "search_result"}]}]}, "messages[0].content[0].type"),
    ],
    ids=["servers", "container", "place", "server tool", "search result"],
)
def test_what_chat_cannot_say_of_a_messages_request_is_noted_by_its_place(fields, path):
    assert messages_request(**fields).beyond == path


def test_a_choice_of_tools_must_be_of_a_known_kind():
    with pytest.raises(InvalidRequest) as refused:
        messages_request(tools=[{"name": "f", "input_schema": {}}], tool_choice={"type": "odd"})
    assert refused.value.param == "tool_choice.type"


@pytest.mark.parametrize("data", [b"[]", b"{", b'"x"'])
async def test_native_events_that_are_no_objects_are_a_bad_reply(data):
    with pytest.raises(BadReply):
        [one async for one in native(b"data: " + data + b"\n\n", (), watch)]


KINDS = """
text image document tool_use tool_result thinking message function function_call function_call_output reasoning
input_text input_image input_file base64 url json_schema tool any allowed_tools
"""
NAMES = """
type role content text source input name id call_id tool_use_id arguments output parameters input_schema schema format
effort tools image_url data media_type url signature encrypted_content user_id
"""
_KINDS, _NAMES = some.sampled_from(KINDS.split()), some.sampled_from(NAMES.split())
JSON = some.recursive(
    some.none() | some.booleans() | some.integers(-2, 2) | some.sampled_from(["", "x", "text", "user", "function"]),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)
BLOCKS = some.dictionaries(_NAMES, JSON, max_size=5).flatmap(
    lambda block: _KINDS.map(lambda kind: {**block, "type": kind})
)
TURNS = some.lists(
    some.builds(
        lambda role, content: {"role": role, "content": content},
        some.sampled_from(["user", "assistant", "system"]),
        some.lists(BLOCKS, max_size=3) | JSON,
    ),
    max_size=3,
)
WILD = some.fixed_dictionaries(
    {},
    optional={
        "system": JSON,
        "instructions": JSON,
        "metadata": JSON,
        "thinking": JSON,
        "output_config": JSON | BLOCKS,
        "text": JSON | BLOCKS,
        "reasoning": JSON,
        "tools": some.lists(BLOCKS, max_size=2) | JSON,
        "tool_choice": BLOCKS | JSON,
        "stop_sequences": JSON,
        "conversation": JSON,
        "include": JSON,
    },
)


@given(WILD, TURNS | some.lists(BLOCKS, max_size=4) | JSON)
@settings(max_examples=150, deadline=None)
def test_a_request_is_translated_or_refused_at_a_place_whatever_is_in_it(fields, turns):
    for read, whole in (
        (messages_as_chat, {**fields, "model": "m", "max_tokens": 1, "messages": turns}),
        (responses_as_chat, {**fields, "model": "m", "input": turns}),
    ):
        translated = _refused_or(read, whole)
        if isinstance(translated, InvalidRequest):
            assert translated.param
        else:
            ChatRequest.of(translated.fields)
            dialect = Messages if read is messages_as_chat else Responses
            dialect(whole, translated, {}).untouched(whole)


def _refused_or(read: Callable[[dict[str, Any]], Translated], whole: dict[str, Any]) -> Translated | InvalidRequest:
    try:
        return read(whole)
    except InvalidRequest as refused:
        return refused
