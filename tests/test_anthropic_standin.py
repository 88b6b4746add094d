"""The Anthropic stand-in satisfies the official SDK, and refuses what the real API refuses."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx
import pytest
from pydantic import BaseModel

from local.providers import FAULT_KINDS, REDACT_THINKING, Fault, serve
from local.standin_anthropic import EXPLANATION

HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
BODY: dict[str, Any] = {"model": "m", "max_tokens": 1_000, "messages": HELLO}
HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[Any] = [{"name": name, "input_schema": SCHEMA} for name in ("get_weather", "get_time")]


@pytest.fixture
async def standin():
    async with serve("anthropic") as served:
        yield served


@pytest.fixture
async def client(standin):
    async with anthropic.AsyncAnthropic(base_url=standin.url, api_key="k", max_retries=0, timeout=5) as made:
        yield made


@pytest.fixture
async def http(standin):
    async with httpx.AsyncClient(base_url=standin.url, headers=HEADERS, timeout=5, trust_env=False) as made:
        yield made


async def refusal_of(http, **fields):
    """The error object of a request that must be refused with 400."""
    response = await http.post("/v1/messages", json={**BODY, **fields})
    assert response.status_code == 400, response.text
    document = response.json()
    assert document["type"] == "error"
    assert document["request_id"] == response.headers["request-id"]
    assert document["error"]["type"] == "invalid_request_error"
    return document["error"]["message"]


# --- the official SDK ---


async def test_the_sdk_reads_an_answer(client):
    message = await client.messages.create(**BODY)
    assert [block.text for block in message.content] == ["anthropic (m) heard: Hello there"]
    assert (message.role, message.stop_reason, message.model) == ("assistant", "end_turn", "m")
    assert message.usage.input_tokens > 0 < message.usage.output_tokens


async def test_the_sdk_streams_what_the_whole_answer_says(client):
    whole = await client.messages.create(**BODY)
    async with client.messages.stream(**BODY) as stream:
        said = "".join([text async for text in stream.text_stream])
        final = await stream.get_final_message()
    assert said == whole.content[0].text == final.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", whole.usage.output_tokens)


async def test_events_come_in_the_order_of_the_real_api(http):
    response = await http.post("/v1/messages", json={**BODY, "stream": True})
    lines = response.text.splitlines()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    types = [json.loads(line.removeprefix("data: "))["type"] for line in lines if line.startswith("data: ")]
    assert names == types
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert set(names[3:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_parallel_tools_thinking_and_the_round_trip(client, streamed):
    asked: dict[str, Any] = {**BODY, "tools": TOOLS, "thinking": {"type": "adaptive"}}
    asked["messages"] = [{"role": "user", "content": "Use all tools"}]
    if streamed:
        async with client.messages.stream(**asked) as stream:
            message = await stream.get_final_message()
    else:
        message = await client.messages.create(**asked)
    thought, *calls = message.content
    assert message.stop_reason == "tool_use"
    assert thought.type == "thinking"
    assert thought.signature
    assert [(call.name, call.input) for call in calls] == [
        ("get_weather", {"city": "text"}),
        ("get_time", {"city": "text"}),
    ]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": f"It is {call.name}"} for call in calls]
    turns = [
        *asked["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": results},
    ]
    answer = await client.messages.create(**{**asked, "messages": turns})
    assert answer.content[-1].text == "anthropic (m) heard: It is get_weather It is get_time"


async def test_structured_output_fits_its_schema(client):
    class City(BaseModel):
        name: str
        people: int

    message = await client.messages.parse(**BODY, output_format=City)
    assert message.parsed_output == City(name="text", people=0)


@pytest.mark.parametrize(
    ("said", "reason"),
    [("BLOCK_ANSWER", "refusal"), ("PAUSE_TURN", "pause_turn"), ("FILL_CONTEXT", "model_context_window_exceeded")],
)
async def test_a_word_chooses_the_stop_reason(client, said, reason):
    message = await client.messages.create(**{**BODY, "messages": [{"role": "user", "content": said}]})
    assert message.stop_reason == reason
    if reason == "refusal":
        assert message.content == []
        assert message.stop_details.explanation == EXPLANATION


async def test_limits_and_stop_sequences_end_an_answer(client):
    assert (await client.messages.create(**{**BODY, "max_tokens": 2})).stop_reason == "max_tokens"
    stopped = await client.messages.create(**BODY, stop_sequences=[" heard"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " heard")
    assert stopped.content[0].text == "anthropic (m)"


async def test_usage_tells_cache_and_thinking_apart(standin, client):
    standin.behave(cached_tokens=50, reasoning_tokens=7)
    system: list[Any] = [{"type": "text", "text": "Be kind. " * 20, "cache_control": {"type": "ephemeral"}}]
    usage = (await client.messages.create(**BODY, system=system)).usage
    assert usage.cache_read_input_tokens == 50
    assert usage.cache_creation_input_tokens > 0 < usage.input_tokens
    assert usage.output_tokens_details.thinking_tokens == 7 < usage.output_tokens


async def test_thoughts_can_come_encrypted(client):
    asked = {**BODY, "messages": [{"role": "user", "content": REDACT_THINKING}], "thinking": {"type": "adaptive"}}
    assert (await client.messages.create(**asked)).content[0].type == "redacted_thinking"


async def test_tokens_are_counted_and_models_listed(standin, client):
    standin.behave(models=("claude-a", "claude-b"))
    asked = {"model": "claude-a", "messages": HELLO, "system": "Be kind."}
    counted = await client.messages.count_tokens(**asked)
    answered = await client.messages.create(**asked, max_tokens=9)
    assert counted.input_tokens == answered.usage.input_tokens
    assert [model.id async for model in client.models.list()] == ["claude-a", "claude-b"]
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.create(**BODY)


# --- faults ---


@pytest.mark.parametrize(
    ("fault", "error", "type_", "code"),
    [
        (Fault("status", status=529), anthropic.OverloadedError, "overloaded_error", None),
        (Fault("status", status=500), anthropic.InternalServerError, "api_error", None),
        (Fault("status", status=402), anthropic.PaymentRequiredError, "billing_error", None),
        (Fault("status", status=413), anthropic.ContentTooLargeError, "request_too_large", None),
        (Fault("rate_limited", retry_after=3), anthropic.RateLimitError, "rate_limit_error", None),
        (Fault("insufficient_quota"), anthropic.RateLimitError, "rate_limit_error", "enforced_spend_limit_reached"),
        (Fault("unauthorized"), anthropic.AuthenticationError, "authentication_error", None),
        (Fault("content_filter"), anthropic.BadRequestError, "invalid_request_error", None),
        (Fault("context_length_exceeded"), anthropic.BadRequestError, "invalid_request_error", None),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
async def test_the_sdk_knows_each_refusal(standin, client, fault, error, type_, code):
    standin.fail(fault)
    with pytest.raises(error) as raised:
        await client.messages.create(**BODY)
    assert (raised.value.type, raised.value.error_code) == (type_, code)
    waits = raised.value.response.headers.get("retry-after")
    assert waits == ("3" if fault.retry_after else None)


async def test_an_error_event_comes_inside_a_200(standin, client):
    standin.fail(Fault("error_event", after=4, status=529))
    with pytest.raises(anthropic.APIStatusError) as raised:
        async with client.messages.stream(**BODY) as stream:
            await stream.get_final_message()
    assert (raised.value.type, raised.value.response.status_code) == ("overloaded_error", 200)


@pytest.mark.parametrize("kind", sorted(set(FAULT_KINDS) - {"hang", "stall", "slow_first_token"}))
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_no_fault_looks_like_a_good_answer(standin, http, kind, stream):
    standin.fail(Fault(kind, after=2))
    try:
        response = await http.post("/v1/messages", json={**BODY, "stream": stream})
    except httpx.TransportError:
        return
    document = response.text
    whole = stream and '"type":"message_stop"' in document and "event: error" not in document and kind != "malformed"
    assert response.status_code != 200 or not (whole or _is_a_message(document))


def _is_a_message(document: str) -> bool:
    try:
        return json.loads(document)["type"] == "message"
    except (ValueError, KeyError):
        return False


async def test_keys_are_not_told(standin, http):
    await http.post("/v1/messages", json=BODY)
    assert "x-api-key" not in standin.counters()["requests"][0]["headers"]


# --- what the real one refuses ---


def call(id_="toolu_1", name="get_weather"):
    return {"type": "tool_use", "id": id_, "name": name, "input": {}}


def result(id_="toolu_1"):
    return {"type": "tool_result", "tool_use_id": id_, "content": "sun"}


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


FORGED = {"type": "thinking", "thinking": "No.", "signature": "forged"}
OPEN_FORMAT = {"format": {"type": "json_schema", "schema": SCHEMA}}
LIMITED = {"type": "array", "items": {"anyOf": [{"type": "integer", "minimum": 1}]}, "minItems": 1}
LIMITED_FORMAT = {"format": {"type": "json_schema", "schema": LIMITED}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"frequency_penalty": 1}, "frequency_penalty: Extra inputs are not permitted"),
        ({"n": 1}, "n: Extra inputs are not permitted"),
        ({"temperature": 1.5}, "temperature: Input should be less than or equal to 1"),
        ({"model": "claude-opus-5-5", "temperature": 0.2}, "`temperature` is deprecated for this model."),
        ({"model": "claude-haiku-4-5", "temperature": 1, "top_p": 0.9}, "`temperature` and `top_p` cannot both"),
        ({"stop_sequences": ["\n"]}, "stop_sequences: each stop sequence"),
        ({"messages": [assistant(), *HELLO]}, 'messages: first message must use the "user" role'),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Input should be 'user', 'assistant'"),
        ({"messages": [user({"type": "text", "text": " "})]}, "messages.0.content.0: text content blocks must"),
        ({"messages": [user({"type": "input_audio"})]}, "messages.0.content.0: Input tag 'input_audio'"),
        ({"messages": [user({"type": "text", "text": "a", "name": "b"})]}, "messages.0.content.0.text.name: Extra"),
        ({"messages": [user(IMAGE)]}, "messages.0.content.0.image.source.base64.data"),
        ({"messages": [user(result())]}, "messages.0.content.0: unexpected `tool_use_id`"),
        ({"messages": [*HELLO, assistant(call()), *HELLO]}, "messages.1: `tool_use` ids were found without"),
        ({"messages": [*HELLO, assistant(call()), user(result("toolu_2"))]}, "messages.1: `tool_use` ids were found"),
        (
            {"messages": [*HELLO, assistant(call()), user({"type": "text", "text": "a"}, result())]},
            "messages.1: `tool_use` ids were found without",
        ),
        ({"messages": [user(call())]}, "messages.0.content.0: `tool_use` blocks are not permitted in `user`"),
        ({"messages": [*HELLO, assistant(FORGED)]}, "messages.1.content.0: Invalid `signature` in `thinking` block"),
        (
            {
                "messages": [*HELLO, assistant(call()), user(result())],
                "thinking": {"type": "enabled", "budget_tokens": 1_024},
                "max_tokens": 2_000,
            },
            "messages: Expected `thinking` or `redacted_thinking`, but found `tool_use`.",
        ),
        (
            {"thinking": {"type": "adaptive"}, "tools": TOOLS, "tool_choice": {"type": "any"}},
            "Thinking may not be enabled when tool_choice forces tool use.",
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 1_024}}, "`max_tokens` must be greater than"),
        ({"tool_choice": {"type": "any"}}, "tool_choice: tool_choice may only be specified while providing tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "x"}}, "Tool 'x' not found in provided tools"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools: Tool names must be unique."),
        ({"output_config": OPEN_FORMAT}, "output_config.format.schema: For 'object' type, 'additionalProperties'"),
        ({"output_config": LIMITED_FORMAT}, "output_config.format.schema: For 'integer' type, property 'minimum' is"),
        ({"tools": [{**TOOLS[0], "strict": True}]}, "tools.0.custom.input_schema: For 'object' type"),
        (
            {"model": "claude-haiku-4-5", "messages": [*HELLO, {"role": "system", "content": "x"}]},
            "role 'system' is not supported on this model",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
async def test_a_request_that_breaks_the_rules_is_refused_with_its_place(http, fields, expected):
    assert (await refusal_of(http, **fields)).startswith(expected)


async def test_a_missing_limit_is_named(http):
    response = await http.post("/v1/messages", json={"model": "m", "messages": HELLO})
    assert response.json()["error"]["message"] == "max_tokens: Field required"


async def test_users_in_a_row_are_one_turn(http):
    response = await http.post("/v1/messages", json={**BODY, "messages": [*HELLO, *HELLO]})
    assert response.status_code == 200


async def test_key_and_version_are_required(standin):
    standin.behave(keys=("good",))
    async with httpx.AsyncClient(base_url=standin.url, timeout=5, trust_env=False) as http:
        version = {"anthropic-version": "2023-06-01"}
        assert (await http.post("/v1/messages", json=BODY, headers=version)).status_code == 401
        assert (await http.post("/v1/messages", json=BODY, headers=HEADERS)).status_code == 401
        unversioned = await http.post("/v1/messages", json=BODY, headers={"x-api-key": "good"})
        assert unversioned.json()["error"]["message"] == "anthropic-version: header is required"
        bearer = {**version, "authorization": "Bearer good"}
        assert (await http.post("/v1/messages", json=BODY, headers=bearer)).status_code == 200


async def test_the_latest_version_knows_no_sampling(http):
    asked = {**BODY, "temperature": 1}
    response = await http.post("/v1/messages", json=asked, headers={"anthropic-version": "2026-10-21"})
    assert response.status_code == 400
    assert (await http.post("/v1/messages", json=asked)).status_code == 200
