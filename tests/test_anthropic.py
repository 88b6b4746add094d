"""Chat completions through Anthropic's Messages API: nothing is lost in silence, in either direction."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import AnyHttpUrl, ValidationError
from pydantic_core import from_json, to_json

from local.providers import REDACT_THINKING, Behaviour, Fault, serve
from local.standin_anthropic import EXPLANATION, Anthropic
from local.standin_wire import Asked, Stream
from routing.errors import (
    BadReply,
    BadRequest,
    InvalidRequest,
    NotFound,
    ProviderError,
    QuotaExhausted,
    Throttled,
    Unauthorized,
    Unavailable,
)
from routing.providers.anthropic import KEY_HEADER, AnthropicSettings, build
from routing.providers.anthropic_reply import completion, from_error
from routing.providers.anthropic_request import CARRIED, LEFT_OUT, NATIVE, REFUSED, Options, messages_request
from routing.providers.anthropic_stream import Translation
from routing.providers.base import KeyCredential, NoCredential
from routing.providers.sse import EventSplitter
from routing.types import Target, Usage
from routing.wire import ChatRequest, validated

TARGET = Target("sonnet", "anthropic", "claude-sonnet-5-5")
PLAIN = Options(default_max_tokens=8_192, sampling=False)
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": n, "parameters": SCHEMA}} for n in ("get_weather", "get_time")]
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def asking(messages=HELLO, **fields):
    """A request whose types are right. What contradicts itself is refused at the door, and here all the same."""
    given = from_json(to_json({"model": "auto", "messages": messages, **fields}))
    request = validated(ChatRequest.model_validate, given)
    request._fields = given
    return request


def translated(messages=HELLO, *, target=TARGET, dialect=PLAIN, **fields):
    """The body for Anthropic, and what was dropped."""
    return messages_request(target, asking(messages, **fields), dialect)


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


def text(said):
    return {"type": "text", "text": said}


def calling(*ids, **more):
    function = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    return {
        "role": "assistant",
        "tool_calls": [{"id": i, "type": "function", "function": function} for i in ids],
        **more,
    }


def used(id_):
    return {"type": "tool_use", "id": id_, "name": "get_weather", "input": {"city": "Rome"}}


def answering(id_, content="sun"):
    return {"role": "tool", "tool_call_id": id_, "content": content}


@pytest.fixture
async def standin():
    async with serve("anthropic") as served:
        yield served


def provider_of(standin, key="k", **fields):
    async def read(fresh):
        return "renewed" if fresh else key

    given = AnthropicSettings(type="anthropic", base_url=standin.url, **fields)
    return build("anthropic", given, KeyCredential(*KEY_HEADER, read))


@pytest.fixture
async def provider(standin):
    made = provider_of(standin)
    yield made
    await made.aclose()


async def answer_of(provider, request):
    """The whole answer as OpenAI's SDK reads it; its models are checked strictly."""
    reply = await provider.chat(TARGET, request)
    return ChatCompletion.model_validate_json(reply.body, strict=True)


async def chunks_of(provider, request):
    """The chunks of a streamed answer as OpenAI's SDK reads them."""
    events = b"".join([chunk.data async for chunk in await provider.stream(TARGET, request)])
    *data, done = [event.removeprefix(b"data: ") for event in events.split(b"\n\n")[:-1]]
    assert done == b"[DONE]"
    return [ChatCompletionChunk.model_validate_json(event, strict=True) for event in data]


# --- requests: messages ---


def test_a_plain_question_becomes_a_turn_with_the_default_limit():
    body, dropped = translated()
    assert body == {"model": "claude-sonnet-5-5", "max_tokens": 8_192, "messages": [user(text("Hello there"))]}
    assert dropped == ()


def test_system_and_developer_messages_are_joined_wherever_they_stand():
    body, _ = translated(
        [
            {"role": "system", "content": "Be kind."},
            {"role": "developer", "content": [text("Be brief.")]},
            *HELLO,
            {"role": "system", "content": "Be quick."},
        ]
    )
    assert body["system"] == "Be kind.\n\nBe brief.\n\nBe quick."
    assert body["messages"] == [user(text("Hello there"))]


def test_a_lone_system_message_is_what_the_user_says():
    body, _ = translated([{"role": "system", "content": "Tell a joke."}])
    assert body["messages"] == [user(text("Tell a joke."))]
    assert "system" not in body


def test_a_conversation_that_the_assistant_began_gets_a_beginning():
    body, _ = translated([{"role": "assistant", "content": "How can I help?"}, *HELLO])
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]


def test_all_results_of_a_turn_come_first_in_one_user_message():
    body, dropped = translated(
        [
            *HELLO,
            calling("call_1", "call.2", content=""),
            answering("call.2"),
            answering("call_1", [text("rain")]),
            *HELLO,
        ]
    )
    assert body["messages"][1:] == [
        {"role": "assistant", "content": [used("call_1"), used("call_2")]},
        user(
            {"type": "tool_result", "tool_use_id": "call_2", "content": "sun"},
            {"type": "tool_result", "tool_use_id": "call_1", "content": [text("rain")]},
            text("Hello there"),
        ),
    ]
    assert dropped == ()


def test_thinking_goes_back_unchanged_and_before_all_else():
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln", "from_the_future": 1}
    hidden = {"type": "redacted_thinking", "data": "eA=="}
    message = calling("a", content="Let me see.", thinking_blocks=[thought, hidden], reasoning_content="Hm.")
    body, dropped = translated([*HELLO, message, answering("a")])
    assert body["messages"][1]["content"] == [thought, hidden, text("Let me see."), used("a")]
    assert dropped == ()


def test_images_and_documents_are_carried():
    pdf = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,eA=="}}
    body, dropped = translated(
        [
            user(
                text("What is this?"),
                {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,eA=="}},
                pdf,
            )
        ]
    )
    sources = [block["source"] for block in body["messages"][0]["content"][1:]]
    assert sources == [
        {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
        {"type": "url", "url": "https://example.com/a.png"},
        {"type": "base64", "media_type": "image/jpeg", "data": "eA=="},
        {"type": "base64", "media_type": "application/pdf", "data": "eA=="},
    ]
    assert dropped == ("messages[].content[].image_url.detail",)


def test_marks_for_the_cache_are_carried():
    mark = {"cache_control": {"type": "ephemeral"}}
    body, _ = translated([{"role": "system", "content": [text("Long.") | mark]}, user(text("a") | mark)])
    assert body["system"] == [text("Long.") | mark]
    assert body["messages"] == [user(text("a") | mark)]


def test_a_refusal_of_before_is_repeated_as_text():
    body, _ = translated([*HELLO, {"role": "assistant", "content": None, "refusal": "No."}, *HELLO])
    assert body["messages"][1] == {"role": "assistant", "content": [text("No.")]}


def test_what_a_message_says_beyond_anthropic_is_reported():
    messages = [
        {"role": "user", "name": "Ann", "content": [text("a") | {"prompt_cache_breakpoint": {"mode": "explicit"}}]},
        {"role": "assistant", "content": "b", "reasoning_content": "unsigned", "annotations": [], "audio": None},
        *HELLO,
    ]
    dropped = translated(messages)[1]
    assert dropped == (
        "messages[].name",
        "messages[].content[].prompt_cache_breakpoint",
        "messages[].reasoning_content",
    )


AUDIO = {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([*HELLO, answering("a")], "messages[1].tool_call_id"),
        ([*HELLO, calling("a"), answering("b")], "messages[2].tool_call_id"),
        ([*HELLO, calling("a"), answering("a"), answering("a")], "messages[3].tool_call_id"),
        ([*HELLO, calling("a", "b"), answering("a"), *HELLO], "messages[1].tool_calls[1]"),
        ([*HELLO, calling("a")], "messages[1].tool_calls[0]"),
        ([*HELLO, calling("a"), *HELLO, answering("a")], "messages[1].tool_calls[0]"),
        ([*HELLO, {"role": "tool", "content": "x"}], "messages[1].tool_call_id"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[0].role"),
        ([user(AUDIO)], "messages[0].content[0].type"),
        (
            [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}],
            "messages[0].content[0].type",
        ),
        ([user({"type": "image_url", "image_url": {"url": "a.png"}})], "messages[0].content[0].image_url.url"),
        ([user({"type": "image_url"})], "messages[0].content[0].image_url"),
        (
            [user({"type": "image_url", "image_url": {"url": "data:image/bmp;base64,eA=="}})],
            "messages[0].content[0].image_url.url",
        ),
        ([user({"type": "file", "file": {"file_id": "f"}})], "messages[0].content[0].file.file_id"),
        ([*HELLO, {"role": "assistant", "function_call": {"name": "f"}}], "messages[1].function_call"),
        (
            [*HELLO, {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}],
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            [*HELLO, {"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}],
            "messages[1].tool_calls[0].type",
        ),
        ([*HELLO, {"role": "assistant", "thinking_blocks": [text("a")]}], "messages[1].thinking_blocks"),
        ([user(text(" "))], "messages"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_path(messages, param):
    with pytest.raises(BadRequest) as refused:
        translated(messages)
    assert (refused.value.status, refused.value.param) == (400, param)


# --- requests: everything else ---


def test_every_field_of_the_openai_sdk_has_its_place():
    kinds = (CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming)
    fields = {name for kind in kinds for name in kind.__required_keys__ | kind.__optional_keys__}
    assert fields >= {"messages", "n", "seed", "stream"}
    assert fields - CARRIED - REFUSED.keys() - LEFT_OUT.keys() == set()
    assert CARRIED & REFUSED.keys() == CARRIED & LEFT_OUT.keys() == REFUSED.keys() & LEFT_OUT.keys() == set()
    assert NATIVE & fields == set()


WISHES: dict[str, Any] = {  # a wish for each field that Anthropic has a word for
    "max_completion_tokens": 5,
    "max_tokens": 5,
    "parallel_tool_calls": False,
    "reasoning_effort": "high",
    "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}},
    "safety_identifier": "someone",
    "service_tier": "default",
    "stop": ["END"],
    "tool_choice": "required",
    "user": "someone",
}


@pytest.mark.parametrize("name", sorted(WISHES))
def test_a_wish_changes_what_is_sent(name):
    base = {"tools": TOOLS} if name in ("parallel_tool_calls", "tool_choice") else {}
    body, dropped = translated(**base, **{name: WISHES[name]})
    assert body != translated(**base)[0]
    assert dropped == ()


def test_every_carried_field_is_tested():
    elsewhere = {"messages", "model", "stream", "stream_options", "temperature", "tools", "top_p"}
    assert WISHES.keys() | elsewhere == CARRIED


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_field_that_would_change_the_shape_of_the_answer_is_refused_by_name(name):
    wish: dict[str, Any] = {
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "functions": [{"name": "f"}],
        "function_call": "auto",
    }
    wish["modalities"] = ["text", "audio"]
    with pytest.raises(BadRequest) as refused:
        translated(**{name: wish.get(name, {"some": "wish"})})
    assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")
    assert name in refused.value.message


@pytest.mark.parametrize("name", [*sorted(LEFT_OUT), "field_of_tomorrow"])
def test_a_field_that_only_nudges_the_answer_is_reported(name):
    body, dropped = translated(**{name: {"some": "wish"}})
    assert dropped == (name,)
    assert body == translated()[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for table in (REFUSED, LEFT_OUT) for name, values in table.items() for value in (*values, None)],
)
def test_a_field_that_asks_for_nothing_is_passed_over(name, value):
    assert translated(**{name: value}) == translated()


@pytest.mark.parametrize(("row", "names"), [("refused", REFUSED), ("left out and named", LEFT_OUT)])
def test_the_page_for_users_names_every_field(row, names):
    page = (Path(__file__).parent.parent / "docs" / "protocols.md").read_text(encoding="utf-8")
    (told,) = [line for line in page.splitlines() if line.startswith(f"| {row} |")]
    assert set(re.findall(r"`(\w+)`", told)) - {"custom"} == set(names)


def test_names_that_callers_invent_are_made_fit_for_a_header():
    assert translated(**{"naïve\r\nx: y": 1})[1] == ("na?ve??x??y",)
    many = translated(**{f"f{number}": 1 for number in range(100)})[1]
    assert (len(many), many[0], many[-1]) == (33, "f0", "...")
    assert translated(**{"x" * 1_000: 1})[1] == ("x" * 64,)


def test_the_router_s_own_field_is_nobody_s_business():
    assert translated(router={"deny": ["x"]}) == translated()


def test_the_limit_is_the_caller_s_or_the_target_s_or_the_default():
    small = Target("haiku", "anthropic", "claude-haiku-5-5", max_output=100)
    assert translated(target=small)[0]["max_tokens"] == 100
    assert translated(target=small, max_tokens=50) == ({**translated(target=small)[0], "max_tokens": 50}, ())
    lowered, dropped = translated(target=small, max_completion_tokens=500, max_tokens=600)
    assert (lowered["max_tokens"], dropped) == (100, ("max_completion_tokens",))


@pytest.mark.parametrize(
    ("asked", "sent", "dropped"),
    [
        ({"temperature": 0.2}, {"temperature": 0.2}, ()),
        ({"temperature": 1.5}, {"temperature": 1}, ("temperature",)),
        ({"top_p": 0.9, "top_k": 5}, {"top_p": 0.9, "top_k": 5}, ()),
        ({"temperature": 0.2, "top_p": 0.9}, {"temperature": 0.2}, ("top_p",)),
        ({"temperature": 1, "top_p": 1}, {}, ()),
    ],
)
def test_sampling_is_handed_on_where_the_models_take_it(asked, sent, dropped):
    body, told = translated(dialect=Options(8_192, sampling=True), **asked)
    assert ({name: body[name] for name in ("temperature", "top_p", "top_k") if name in body}, told) == (sent, dropped)
    without, told = translated(**asked)
    assert without == translated()[0]
    assert told == tuple(name for name in ("temperature", "top_p", "top_k") if asked.get(name, 1) != 1)


def test_tools_keep_their_schema_and_strictness():
    function = {"name": "f", "description": "Does.", "strict": True, "parameters": SCHEMA}
    bare = {"type": "function", "function": {"name": "g"}, "cache_control": {"type": "ephemeral"}}
    body, _ = translated(tools=[{"type": "function", "function": function}, bare])
    assert body["tools"] == [
        {
            "name": "f",
            "input_schema": {**SCHEMA, "additionalProperties": False},
            "description": "Does.",
            "strict": True,
        },
        {"name": "g", "input_schema": {"type": "object", "properties": {}}, "cache_control": {"type": "ephemeral"}},
    ]


ONE = {"type": "function", "function": {"name": "get_time"}}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", None),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        (ONE, {"type": "tool", "name": "get_time"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [ONE]}}, {"type": "any"}),
    ],
    ids=["auto", "none", "required", "one", "allowed"],
)
def test_the_choice_of_tools_is_carried(choice, sent):
    body, _ = translated(tools=TOOLS, tool_choice=choice)
    assert body.get("tool_choice") == sent
    restricted = isinstance(choice, dict) and choice["type"] == "allowed_tools"
    assert [tool["name"] for tool in body["tools"]] == (["get_time"] if restricted else ["get_weather", "get_time"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": ["x"]}, "tools[0].type"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"reasoning_effort": "heroic"}, "reasoning_effort"),
        ({"stop": [1]}, "stop"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_a_malformed_wish_is_refused_with_its_path(fields, param):
    with pytest.raises(BadRequest) as refused:
        translated(**fields)
    assert refused.value.param == param


def test_parallel_calls_can_be_forbidden_with_any_choice():
    for choice, sent in (("auto", "auto"), ("required", "any"), (ONE, "tool")):
        body, _ = translated(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
        assert body["tool_choice"]["type"] == sent
        assert body["tool_choice"]["disable_parallel_tool_use"] is True
    assert translated(tools=TOOLS, tool_choice="none", parallel_tool_calls=False)[0]["tool_choice"] == {"type": "none"}


def test_a_schema_keeps_its_name_and_is_closed():
    wanted = {"name": "city", "description": "A city.", "schema": {**SCHEMA, "$defs": {"p": SCHEMA}}}
    body, dropped = translated(response_format={"type": "json_schema", "json_schema": wanted})
    closed = {**SCHEMA, "additionalProperties": False}
    schema = {"title": "city", "description": "A city.", **closed, "$defs": {"p": closed}}
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert dropped == ()


def schemas_of(schema):
    """The schema that is sent for one of an answer and for one of a strict tool, and the keywords reported of each."""
    answer, told = translated(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    function = {"name": "f", "strict": True, "parameters": schema}
    called, said = translated(tools=[{"type": "function", "function": function}])
    known = answer["output_config"]["format"]["schema"]
    assert {**called["tools"][0]["input_schema"], "title": known["title"]} == known
    keywords = [name.removeprefix("response_format.json_schema.schema.") for name in told]
    assert [name.removeprefix("tools[].function.parameters.") for name in said] == keywords
    return known, keywords


CONSTRAINED = {
    "type": "object",
    "title": "x",
    "properties": {
        "age": {"type": "integer", "minimum": 1, "maximum": 9, "description": "In years."},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "minItems": 1, "maxItems": 3},
        "mail": {"type": "string", "format": "email"},
        "code": {"type": ["string", "null"], "format": "regex"},
        "either": {"oneOf": [{"type": "null"}, {"type": "number", "exclusiveMinimum": 0}]},
    },
    "required": ["age"],
}


def test_constraints_that_anthropic_refuses_become_words_and_are_reported():
    known, dropped = schemas_of(CONSTRAINED)
    assert known["properties"] == {
        "age": {"type": "integer", "description": "In years. (minimum: 1, maximum: 9)"},
        "tags": {
            "type": "array",
            "items": {"type": "string", "description": "(maxLength: 5)"},
            "minItems": 1,
            "description": "(maxItems: 3)",
        },
        "mail": {"type": "string", "format": "email"},
        "code": {"type": ["string", "null"], "description": '(format: "regex")'},
        "either": {"anyOf": [{"type": "null"}, {"type": "number", "description": "(exclusiveMinimum: 0)"}]},
    }
    assert dropped == ["minimum", "maximum", "maxLength", "maxItems", "format", "oneOf", "exclusiveMinimum"]
    assert known["required"] == ["age"]


def test_schemas_within_schemas_are_closed():
    leaf = {"type": "object", "properties": {"n": {"type": "number"}}}
    spread = {"$ref": "#/$defs/leaf"}
    known, dropped = schemas_of(
        {**leaf, "$defs": {"leaf": leaf}, "properties": {"a": {"anyOf": [leaf, spread]}, "b": {"allOf": [leaf]}}}
    )
    closed = {**leaf, "additionalProperties": False}
    assert known["$defs"] == {"leaf": closed}
    assert known["properties"] == {"a": {"anyOf": [closed, spread]}, "b": {"allOf": [closed]}}
    assert dropped == []


@pytest.mark.parametrize(
    ("inner", "place"),
    [
        ({"type": "object"}, "properties"),
        ({"type": ["object", "null"]}, "properties"),
        ({"type": "object", "additionalProperties": True}, "additionalProperties"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "additionalProperties"),
    ],
    ids=["anything", "anything or null", "more", "a map"],
)
def test_an_object_that_is_open_to_any_name_is_refused_with_its_path(inner, place):
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": inner}}}
    with pytest.raises(BadRequest) as refused:
        translated(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert refused.value.param == f"response_format.json_schema.schema.properties.a.items.{place}"


async def test_every_constraint_is_put_so_that_the_provider_takes_it(provider):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": CONSTRAINED}}
    function = {"name": "f", "strict": True, "parameters": CONSTRAINED}
    reply = await provider.chat(
        TARGET, asking(response_format=wanted, tools=[{"type": "function", "function": function}])
    )
    assert set(json.loads(json.loads(reply.body)["choices"][0]["message"]["content"])) == {"age"}


def test_json_mode_becomes_an_instruction_and_is_reported():
    body, dropped = translated(
        [{"role": "system", "content": "Be kind."}, *HELLO], response_format={"type": "json_object"}
    )
    assert body["system"].startswith("Be kind.\n\nAnswer with one JSON object")
    assert dropped == ("response_format",)


def test_effort_asks_for_thinking_unless_a_tool_is_forced():
    body, _ = translated(reasoning_effort="minimal")
    assert (body["output_config"], body["thinking"]) == ({"effort": "low"}, {"type": "adaptive"})
    forced, _ = translated(reasoning_effort="high", tools=TOOLS, tool_choice="required")
    assert forced["output_config"] == {"effort": "high"}
    assert "thinking" not in forced
    assert translated(reasoning_effort="none")[0]["thinking"] == {"type": "disabled"}
    budget = {"type": "enabled", "budget_tokens": 2_000}
    assert translated(reasoning_effort="high", thinking=budget)[0]["thinking"] == budget


def test_blank_stop_sequences_are_reported():
    body, dropped = translated(stop=["\n", "END"])
    assert (body["stop_sequences"], dropped) == (["END"], ("stop",))
    assert "stop_sequences" not in translated(stop="\n")[0]


def test_other_nudges_are_reported():
    _, dropped = translated(
        service_tier="flex", user="a", safety_identifier="b", stream=True, stream_options={"include_obfuscation": True}
    )
    assert dropped == ("user", "service_tier", "stream_options.include_obfuscation")


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "auto", "function", "json_schema", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "function", "id", "text", "tools", "allowed_tools", "content", "role"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


def outcome(messages, **fields):
    """The body, or how the request was refused."""
    try:
        return translated(messages, **fields)[0], None
    except (BadRequest, InvalidRequest) as refused:
        return None, refused


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CARRIED - {"model"})), anything)
def test_no_field_however_odd_breaks_the_translation(name, value):
    body, refused = outcome(**{"messages": HELLO, name: value})
    assert refused.param if refused else body["messages"]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["tool_calls", "thinking_blocks", "refusal", "content", "tool_call_id", "name"]), anything)
def test_no_message_however_odd_breaks_the_translation(name, value):
    for role in ("user", "assistant", "tool", "system"):
        body, refused = outcome([*HELLO, {"role": role, "content": "x", name: value}])
        assert refused.param if refused else body["messages"]


# --- replies, by the stand-in ---


async def test_an_answer_is_a_chat_completion(standin, provider):
    reply = await provider.chat(TARGET, asking(seed=1))
    answer = ChatCompletion.model_validate_json(reply.body, strict=True)
    assert answer.choices[0].message.content == "anthropic (claude-sonnet-5-5) heard: Hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert (reply.model, reply.dropped) == ("claude-sonnet-5-5", ("seed",))
    assert answer.usage is not None
    assert reply.usage == Usage(answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert reply.headers["x-upstream-request-id"].startswith("req_")
    assert reply.headers["x-ratelimit-limit-requests"] == "4000"
    assert reply.headers["x-ratelimit-reset-tokens"] == "12s"
    sent = standin.requests[0].asked.headers
    assert (sent["x-api-key"], sent["anthropic-version"]) == ("k", "2023-06-01")


@pytest.mark.parametrize("tell", [False, True], ids=["usage hidden", "usage told"])
async def test_a_stream_says_what_the_whole_answer_says(standin, provider, tell):
    standin.behave(cached_tokens=50, reasoning_tokens=7)
    whole = await answer_of(provider, asking())
    chunks = await chunks_of(provider, asking(stream=True, stream_options={"include_usage": tell}))
    assert chunks[0].choices[0].delta.role == "assistant"
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert [chunk.usage for chunk in chunks if chunk.usage] == ([whole.usage] if tell else [])
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


async def test_usage_counts_the_cache_as_input(standin, provider):
    standin.behave(cached_tokens=50, reasoning_tokens=7)
    marked = [user(text("Hello " * 50) | {"cache_control": {"type": "ephemeral"}})]
    plain = await provider.chat(TARGET, asking([user(text("Hello " * 50))]))
    reply = await provider.chat(TARGET, asking(marked))
    assert replace(reply.usage, cache_write=0) == plain.usage
    assert reply.usage.cache_write > 0
    assert (reply.usage.cached, reply.usage.reasoning) == (50, 7)
    told = json.loads(reply.body)["usage"]
    assert told["prompt_tokens_details"]["cached_tokens"] == 50
    assert told["prompt_tokens_details"]["cache_write_tokens"] > 0
    assert told["total_tokens"] == told["prompt_tokens"] + told["completion_tokens"]


async def test_the_router_hears_the_usage_of_every_stream(provider):
    usages = [chunk.usage async for chunk in await provider.stream(TARGET, asking(stream=True))]
    whole = await provider.chat(TARGET, asking())
    assert [usage for usage in usages if usage] == [whole.usage]


async def test_parallel_calls_and_thinking_survive_the_round_trip_streamed_and_not(provider):
    asked = {"tools": TOOLS, "reasoning_effort": "high"}
    question = [{"role": "user", "content": "Use all tools"}]
    whole = json.loads((await provider.chat(TARGET, asking(question, **asked))).body)["choices"][0]
    streamed = assembled(await chunks_of(provider, asking(question, **asked, stream=True)))
    assert whole["finish_reason"] == "tool_calls"
    assert without_ids(streamed) == without_ids(whole["message"])
    assert whole["message"]["reasoning_content"] == "The user wants an answer, so I shall give one."
    for message in (whole["message"], streamed):
        results = [answering(call["id"], f"It is {call['function']['name']}") for call in message["tool_calls"]]
        answer = await answer_of(provider, asking([*question, message, *results], **asked))
        assert answer.choices[0].message.content.endswith("heard: It is get_weather It is get_time")


def assembled(chunks):
    """A message put together from chunks, as clients do it."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "tool_calls": []}
    for delta in (choice.delta.model_dump(exclude_none=True) for chunk in chunks for choice in chunk.choices):
        for name in ("content", "refusal", "reasoning_content"):
            if delta.get(name):
                message[name] = (message.get(name) or "") + delta[name]
        thoughts = [{k: block[k] for k in block if k != "index"} for block in delta.get("thinking_blocks", [])]
        message["thinking_blocks"] = [*message.get("thinking_blocks", []), *thoughts]
        for part in delta.get("tool_calls", []):
            if part["index"] == len(message["tool_calls"]):
                message["tool_calls"].append({k: part[k] for k in ("id", "type")} | {"function": {**part["function"]}})
            else:
                message["tool_calls"][part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return message


def without_ids(message):
    calls = [
        {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


async def test_a_call_without_arguments_streams_an_empty_object(provider):
    tool = {"type": "function", "function": {"name": "now"}}
    asked = asking([{"role": "user", "content": "Call now"}], tools=[tool], tool_choice="required", stream=True)
    call = assembled(await chunks_of(provider, asked))["tool_calls"][0]
    assert call["function"] == {"name": "now", "arguments": "{}"}


async def test_encrypted_thinking_is_kept_too(provider):
    question = [{"role": "user", "content": f"{REDACT_THINKING} and use a tool"}]
    asked = {"tools": TOOLS, "thinking": {"type": "enabled", "budget_tokens": 1_024}}
    message = assembled(await chunks_of(provider, asking(question, **asked, stream=True)))
    assert [block["type"] for block in message["thinking_blocks"]] == ["redacted_thinking"]
    answered = await answer_of(
        provider, asking([*question, message, answering(message["tool_calls"][0]["id"])], **asked)
    )
    assert answered.choices[0].finish_reason == "stop"


def test_several_thoughts_of_one_stream_are_put_together_by_the_sdk_and_go_back_as_they_were():
    hidden = {"type": "redacted_thinking", "data": "x"}
    empty, signature = {"type": "thinking", "thinking": ""}, {"type": "signature_delta", "signature": "s"}
    thought = [
        event("content_block_start", index=1, content_block={**empty, "signature": ""}),
        event("content_block_delta", index=1, delta={"type": "thinking_delta", "thinking": "Hm."}),
        event("content_block_delta", index=1, delta=signature),
        event("content_block_stop", index=1),
    ]
    events = [START, event("content_block_start", index=0, content_block=hidden), STOP, *thought, END, LAST]
    state = ChatCompletionStreamState()
    for chunk in read(events)[0][:-1]:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    message = state.get_final_completion().choices[0].message.model_dump(exclude_none=True, exclude={"parsed"})
    body, dropped = translated([*HELLO, message, *HELLO])
    assert body["messages"][1]["content"] == [hidden, {"type": "thinking", "thinking": "Hm.", "signature": "s"}]
    assert dropped == ()


async def test_thinking_that_was_tampered_with_is_refused_by_the_provider(provider):
    forged = {"type": "thinking", "thinking": "No.", "signature": "forged"}
    with pytest.raises(BadRequest) as refused:
        await provider.chat(TARGET, asking([*HELLO, calling("a", thinking_blocks=[forged]), answering("a")]))
    assert "signature" in refused.value.message


async def test_structured_output_fits_its_schema(provider):
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": SCHEMA}}
    answer = await answer_of(provider, asking(response_format=wanted))
    assert json.loads(answer.choices[0].message.content) == {"city": "text"}


async def test_images_reach_the_provider(provider):
    asked = asking([user(text("What?"), {"type": "image_url", "image_url": {"url": PIXEL}})])
    assert (await answer_of(provider, asked)).choices[0].finish_reason == "stop"


ENDS = [
    ("BLOCK_ANSWER", "content_filter", "refusal"),
    ("PAUSE_TURN", "stop", "pause_turn"),
    ("FILL_CONTEXT", "length", "model_context_window_exceeded"),
]


@pytest.mark.parametrize(("said", "finish", "native"), ENDS)
async def test_how_an_answer_ended_is_told_in_both_words(provider, said, finish, native):
    asked = [{"role": "user", "content": said}]
    choice = json.loads((await provider.chat(TARGET, asking(asked))).body)["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (finish, native)
    chunks = await chunks_of(provider, asking(asked, stream=True))
    last = chunks[-1].choices[0]
    assert (last.finish_reason, last.model_extra["native_finish_reason"]) == (finish, native)
    refusals = {choice["message"]["refusal"], assembled(chunks)["refusal"]}
    assert refusals == ({EXPLANATION} if finish == "content_filter" else {None})


async def test_a_limit_ends_an_answer_with_length(provider):
    assert (await answer_of(provider, asking(max_tokens=2))).choices[0].finish_reason == "length"


async def test_what_was_dropped_is_told_by_a_stream_too(provider):
    stream = await provider.stream(TARGET, asking(stream=True, seed=1))
    assert stream.dropped == ("seed",)
    await stream.aclose()
    await stream.aclose()


async def test_leaving_a_stream_ends_the_provider_s_work(standin, provider):
    standin.behave(tokens_per_second=20, tokens=1_000)
    stream = await provider.stream(TARGET, asking(stream=True))
    await anext(aiter(stream))
    await stream.aclose()
    await standin.until(lambda seen: len(seen.cancelled) == 1)


# --- errors ---

FAULTS = [
    (Fault("status", status=529), Unavailable),
    (Fault("status", status=500), Unavailable),
    (Fault("status", status=504), Unavailable),
    (Fault("status", status=402), QuotaExhausted),
    (Fault("status", status=403), Unauthorized),
    (Fault("status", status=404), NotFound),
    (Fault("status", status=413), BadRequest),
    (Fault("insufficient_quota"), QuotaExhausted),
    (Fault("rate_limited", retry_after=3), Throttled),
    (Fault("rate_limited", code="ramp_limit_exceeded"), Throttled),
    (Fault("unauthorized"), Unauthorized),
    (Fault("content_filter"), BadRequest),
    (Fault("context_length_exceeded"), BadRequest),
    (Fault("drop"), Unavailable),
    (Fault("cut"), BadReply),
    (Fault("invalid_json"), BadReply),
    (Fault("empty_body"), BadReply),
]


@pytest.mark.parametrize(
    ("fault", "error"), FAULTS, ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else ""
)
async def test_each_refusal_has_its_class(standin, provider, fault, error):
    standin.fail(fault)
    with pytest.raises(ProviderError) as raised:
        await provider.chat(TARGET, asking())
    assert type(raised.value) is error
    assert raised.value.retry_after == fault.retry_after


async def test_a_refusal_whose_body_is_cut_goes_by_its_status():
    async def answer(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
        writer.write(b'HTTP/1.1 429 Too Many\r\ncontent-length: 99\r\nretry-after: 3\r\n\r\n{"type"')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        provider = build("cut", AnthropicSettings(type="anthropic", base_url=url_of(server)), NoCredential())
        with pytest.raises(Throttled) as raised:
            await provider.chat(TARGET, asking())
        await provider.aclose()
    assert raised.value.retry_after == 3


def url_of(server):
    return AnyHttpUrl(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_a_request_the_provider_refuses_keeps_its_words(standin, provider):
    standin.fail(Fault("status", status=413, message="Too much."))
    with pytest.raises(BadRequest) as raised:
        await provider.chat(TARGET, asking())
    assert raised.value.status == 413
    assert raised.value.body()["error"]["message"] == "Too much."


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("error_event", after=5, status=529), Unavailable),
        (Fault("error_event", after=5, status=429), Throttled),
        (Fault("error_event", after=0, status=400), BadRequest),
        (Fault("cut", after=5), BadReply),
        (Fault("reset", after=5), BadReply),
        (Fault("malformed", after=5), BadReply),
        (Fault("unfinished"), BadReply),
        (Fault("empty_stream"), BadReply),
        (Fault("empty_body"), BadReply),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else "",
)
async def test_a_stream_that_breaks_says_what_came_before_and_then_fails(standin, provider, fault, error):
    standin.fail(fault)
    said: list[bytes] = []
    with pytest.raises(ProviderError) as raised:
        await listened(provider, said)
    assert type(raised.value) is error
    assert b"[DONE]" not in b"".join(said)
    assert (b'"content":"anth' in b"".join(said)) == (fault.after == 5 or fault.kind == "unfinished")


async def listened(provider, said):
    async with aclosing(await provider.stream(TARGET, asking(stream=True))) as stream:
        async for chunk in stream:
            said.append(chunk.data)


async def test_a_refused_key_is_read_anew(standin, provider):
    standin.behave(keys=("renewed",))
    with pytest.raises(Unauthorized):
        await provider.chat(TARGET, asking())
    assert (await answer_of(provider, asking())).choices


def test_an_error_without_a_status_goes_by_its_type():
    assert type(from_error({"type": "overloaded_error", "message": "x"})) is Unavailable
    assert type(from_error({"type": "billing_error", "message": "x"})) is QuotaExhausted
    assert type(from_error({"type": "error_of_tomorrow"})) is Unavailable
    contract = {"type": "rate_limit_error", "details": {"error_code": "contract_spend_limit_reached"}}
    assert type(from_error(contract)) is QuotaExhausted


MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [text("a")],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@pytest.mark.parametrize(
    "change",
    [
        {"content": None},
        {"content": ["a"]},
        {"content": [{"type": "text"}]},
        {"content": [{"type": "tool_use", "id": "a", "name": "b"}]},
        {"stop_reason": None},
        {"usage": None},
        {"id": None},
        {"model": 1},
    ],
    ids=str,
)
def test_a_reply_that_breaks_its_protocol_is_a_bad_reply(change):
    assert completion(to_json(MESSAGE))[1] == Usage(1, 1)
    with pytest.raises(BadReply):
        completion(to_json({**MESSAGE, **change}))


def test_an_error_inside_a_200_is_an_error():
    with pytest.raises(Unavailable):
        completion(b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}')


def test_what_is_new_in_a_reply_does_no_harm():
    news = {**MESSAGE, "content": [{"type": "block_of_tomorrow"}, text("a")], "stop_reason": "reason_of_tomorrow"}
    choice = completion(to_json(news))[0]["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("a", "stop")


# --- the stream's bytes ---


def recorded(**fields):
    """A stream as the stand-in writes it."""
    document = {"model": "m", "max_tokens": 1_000, "stream": True, **fields}
    asked = Asked(1, "anthropic", "POST", "/v1/messages", headers={"x-api-key": "k", "anthropic-version": "2023-06-01"},
                  body=to_json(document), document=document)  # fmt: skip
    answer = Anthropic().messages(asked, Behaviour(cached_tokens=5))
    assert isinstance(answer, Stream)
    return b"".join([*answer.opening, *answer.tokens, *answer.ending])


def read(pieces):
    """What a stream of these pieces says: the data, the counted tokens, the usage, and how it failed."""
    splitter, translation, chunks, failure = EventSplitter(), Translation(tell_usage=True), [], None
    try:
        for piece in pieces:
            chunk, failure = translation.read(splitter.feed(piece))
            chunks.append(chunk)
            if failure:
                break
        if not failure:
            chunk, failure = translation.read(splitter.rest())
            chunks.append(chunk)
        if not failure:
            chunks.append(translation.end())
    except ProviderError as error:
        failure = error
    heard = [chunk for chunk in chunks if chunk]
    data = [
        event if event == b"data: [DONE]" else {**json.loads(event[6:]), "created": 0}
        for event in b"".join(chunk.data for chunk in heard).split(b"\n\n")[:-1]
    ]
    usages = [chunk.usage for chunk in heard if chunk.usage]
    return data, sum(chunk.tokens for chunk in heard), usages, type(failure)


TOOL = {"name": "get_weather", "input_schema": SCHEMA}
RAW = recorded(
    messages=[{"role": "user", "content": "Grüße, 世界 🎉: use a tool"}], tools=[TOOL], thinking={"type": "adaptive"}
)
SAID = recorded(messages=[{"role": "user", "content": "Grüße, 世界 🎉"}])


def test_every_split_of_a_stream_in_two_says_the_same():
    for raw in (RAW, SAID):
        whole = read([raw])
        assert whole[3] is type(None)
        assert all(read([raw[:cut], raw[cut:]]) == whole for cut in range(0, len(raw), 3))
    assert "Grüße, 世界 🎉" in "".join(d["choices"][0]["delta"].get("content", "") for d in read([SAID])[0][:-2])


def test_a_stream_of_single_bytes_says_the_same():
    assert read([bytes([byte]) for byte in RAW]) == read([RAW])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_pieces_and_any_dress_say_the_same(data):
    raw = data.draw(st.sampled_from([RAW, SAID]))
    dressed = raw.replace(b"\n", data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"])))
    if data.draw(st.booleans()):
        dressed = b"\xef\xbb\xbf: a comment\n\n" + dressed
    cuts = sorted(data.draw(st.lists(st.integers(0, len(dressed)), max_size=12)))
    pieces = [dressed[a:b] for a, b in zip([0, *cuts], [*cuts, len(dressed)], strict=True)]
    assert read(pieces) == read([raw])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(SAID) - 1))
def test_a_truncated_stream_is_never_a_clean_end(cut):
    data, _, _, failure = read([SAID[:cut]])
    finished = any(isinstance(d, dict) and d["choices"] and d["choices"][0]["finish_reason"] for d in data)
    assert finished or failure is BadReply


def event(kind, **fields):
    return b"data: " + to_json({"type": kind, **fields}) + b"\n\n"


START = event("message_start", message={**MESSAGE, "content": [], "stop_reason": None})
BLOCK = event("content_block_start", index=0, content_block=text(""))
DELTA = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "a"})
STOP = event("content_block_stop", index=0)
END = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3})
LAST = event("message_stop")


def test_the_events_of_a_plain_stream_make_a_good_one():
    data, tokens, usages, failure = read([START, BLOCK, DELTA, STOP, END, LAST])
    assert (tokens, usages, failure) == (1, [Usage(1, 3)], type(None))
    assert data[-1] == b"data: [DONE]"
    assert [chunk["usage"] is None for chunk in data[:-1]] == [True, True, True, False]


def test_a_stream_may_lack_its_last_event_but_not_its_reason():
    assert read([START, BLOCK, DELTA, STOP, END]) == read([START, BLOCK, DELTA, STOP, END, LAST])
    assert read([START, BLOCK, DELTA, STOP])[3] is BadReply
    assert read([START, BLOCK, DELTA, STOP, LAST])[3] is BadReply


def test_what_is_new_in_a_stream_does_no_harm():
    new_delta = event("content_block_delta", index=0, delta={"type": "delta_of_tomorrow"})
    new_block = event("content_block_start", index=1, content_block={"type": "block_of_tomorrow"})
    news = [START, event("event_of_tomorrow"), event("ping"), BLOCK, new_delta, new_block, DELTA, STOP, END, LAST]
    assert read(news) == read([START, BLOCK, DELTA, STOP, END, LAST])


@pytest.mark.parametrize(
    "pieces",
    [
        [BLOCK, DELTA],
        [START, DELTA],
        [START, BLOCK, STOP, DELTA],
        [START, BLOCK, event("content_block_delta", index=0, delta={"type": "text_delta", "text": 1})],
        [START, event("content_block_start", content_block=text(""))],
        [START, event("content_block_start", index=0)],
        [START, event("content_block_start", index=0, content_block={"type": "tool_use", "id": "a"})],
        [event("message_start", message={})],
        [START, b"data: [1]\n\n"],
        [START, b'data: {"type": "content_bl\n\n'],
        [START, b'data: {"type": "ping", "x": "\xe4\xb8"}\n\n'],
        [START, event("error")],
    ],
)
def test_a_stream_that_breaks_its_protocol_is_a_bad_reply(pieces):
    assert read([*pieces, END, LAST])[3] is BadReply


def test_data_over_several_lines_is_one_event():
    spread = START.replace(b',"', b',\ndata: "', 1)
    assert spread.count(b"data:") == 2
    assert read([spread, BLOCK, DELTA, STOP, END, LAST]) == read([START, BLOCK, DELTA, STOP, END, LAST])


def test_a_very_long_line_is_read():
    long = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * 10_000_000})
    raw = START + BLOCK + long + STOP + END + LAST
    pieces = [raw[at : at + 65_536] for at in range(0, len(raw), 65_536)]
    assert len(read(pieces)[0][1]["choices"][0]["delta"]["content"]) == 10_000_000


# --- settings ---


def test_settings_have_the_defaults_of_the_real_service():
    given = AnthropicSettings(type="anthropic")
    assert (str(given.base_url), given.version, given.sampling) == ("https://api.anthropic.com/", "2023-06-01", False)


@pytest.mark.parametrize(
    "wrong",
    [{"version": "latest"}, {"default_max_tokens": 0}, {"sampling": True, "version": "2026-10-21"}, {"colour": "red"}],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        AnthropicSettings(type="anthropic", **wrong)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_address_may_end_where_people_end_it(standin, suffix):
    standin.url += suffix
    provider = provider_of(standin, version="2026-10-21")
    assert (await answer_of(provider, asking())).choices
    await provider.aclose()
