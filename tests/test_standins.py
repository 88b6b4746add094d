"""The stand-in providers speak the real formats, go wrong as told, and count what they see."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from local.providers import BLOCK_ANSWER, BLOCK_PROMPT, FAULT_KINDS, Behaviour, Fault, serve
from local.standin_behaviour import changed, parse_fault
from local.standin_schema import instance

HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
USE_TOOLS: list[Any] = [{"role": "user", "content": "use tools"}]
BODY = {"model": "m", "messages": HELLO}
KEY = {"authorization": "Bearer k"}
CHAT = {
    "openai": "/v1/chat/completions",
    "azure_openai": "/openai/v1/chat/completions",
    "ollama": "/v1/chat/completions",
}
KINDS = list(CHAT)
HEEDING = [kind for kind in KINDS if kind != "ollama"]  # those that heed every field
BASE = {"openai": "/v1", "azure_openai": "/openai/v1", "ollama": "/v1"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    for name in ("get_weather", "get_time")
]


@pytest.fixture(params=KINDS)
async def standin(request):
    async with serve(request.param) as served:
        yield served


@pytest.fixture
async def one():
    async with serve("openai") as served:
        yield served


@pytest.fixture
async def azure():
    async with serve("azure_openai") as served:
        yield served


@pytest.fixture
async def http():
    async with httpx.AsyncClient(headers=KEY, timeout=5, trust_env=False) as client:
        yield client


def client_of(standin):
    return openai.AsyncOpenAI(base_url=standin.url + BASE[standin.kind], api_key="k", max_retries=0, timeout=5)


def chat_url(standin):
    return standin.url + CHAT[standin.kind]


async def events_of(http, standin, **fields):
    """The data of every event of a streamed answer, as sent."""
    async with http.stream("POST", chat_url(standin), json={**BODY, "stream": True, **fields}) as response:
        assert response.status_code == 200
        return [line[6:] async for line in response.aiter_lines() if line.startswith("data: ")]


def text_of(events):
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])


# --- what a good answer looks like ---


async def test_an_answer_says_who_answered_and_echoes_the_user(standin):
    async with client_of(standin) as client:
        answer = await client.chat.completions.create(**BODY)
    assert answer.choices[0].message.content == f"{standin.kind} (m) heard: Hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


async def test_a_stream_says_what_the_whole_answer_says(standin, http):
    whole = (await http.post(chat_url(standin), json=BODY)).json()
    events = await events_of(http, standin)
    assert text_of(events) == whole["choices"][0]["message"]["content"]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "stop"
    assert all("usage" not in json.loads(event) for event in events[:-1])


async def test_usage_comes_last_without_choices_and_is_null_before(one, http):
    one.behave(cached_tokens=50, reasoning_tokens=7)
    events = await events_of(http, one, stream_options={"include_usage": True})
    chunks = [json.loads(event) for event in events[:-1]]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == []
    usage = chunks[-1]["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 50 <= usage["prompt_tokens"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 7 < usage["completion_tokens"]


async def test_ollama_tells_usage_without_details(http):
    async with serve("ollama") as ollama:
        events = await events_of(http, ollama, stream_options={"include_usage": True})
    usage = json.loads(events[-2])["usage"]
    assert set(usage) == {"prompt_tokens", "completion_tokens", "total_tokens"}


async def test_the_answer_has_as_many_tokens_as_configured(one, http):
    one.behave(tokens=40)
    assert (await http.post(chat_url(one), json=BODY)).json()["usage"]["completion_tokens"] == 40
    one.behave(tokens=2)
    assert (await http.post(chat_url(one), json=BODY)).json()["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("standin", HEEDING, indirect=True)
@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_a_token_limit_ends_the_answer_with_length(standin, http, limit):
    choice = (await http.post(chat_url(standin), json=BODY | {limit: 2})).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    events = await events_of(http, standin, **{limit: 2})
    assert text_of(events) == choice["message"]["content"]


async def test_n_choices_come_each_with_its_index(one):
    async with client_of(one) as client:
        answer = await client.chat.completions.create(**BODY, n=3)
        finished = set()
        async for chunk in await client.chat.completions.create(**BODY, n=3, stream=True):
            finished |= {choice.index for choice in chunk.choices if choice.finish_reason}
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert finished == {0, 1, 2}


async def test_ollama_gives_one_choice_whatever_n_is(http):
    async with serve("ollama") as ollama:
        assert len((await http.post(chat_url(ollama), json=BODY | {"n": 3})).json()["choices"]) == 1


@pytest.mark.parametrize(
    ("fields", "finish"),
    [
        pytest.param({"max_completion_tokens": 2}, "stop", id="the newer limit"),
        pytest.param({"max_tokens": 2}, "length", id="the older limit"),
        pytest.param({"tools": TOOLS, "tool_choice": "required"}, "stop", id="a tool that must be called"),
        pytest.param({"tools": TOOLS, "tool_choice": "none", "messages": USE_TOOLS}, "tool_calls", id="or not"),
        pytest.param({"messages": [{"role": "developer", "content": "use tools"}], "tools": TOOLS}, "stop", id="role"),
    ],
)
async def test_ollama_overlooks_what_it_does_not_know(http, fields, finish):
    async with serve("ollama") as ollama:
        answer = await http.post(chat_url(ollama), json=BODY | fields)
    assert answer.json()["choices"][0]["finish_reason"] == finish


async def test_success_carries_request_id_time_and_rate_limits(one, http):
    first = await http.post(chat_url(one), json=BODY)
    second = await http.post(chat_url(one), json=BODY)
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.headers["openai-processing-ms"].isdigit()
    assert int(first.headers["x-ratelimit-remaining-requests"]) == 9_999
    assert int(second.headers["x-ratelimit-remaining-requests"]) == 9_998


# --- tools and structured output ---


@pytest.mark.parametrize(
    ("prompt", "fields", "called"),
    [
        pytest.param("hi", {}, [], id="nobody asks"),
        pytest.param("please get_time now", {}, ["get_time"], id="by name in the prompt"),
        pytest.param("use a tool", {}, ["get_weather"], id="tool in the prompt"),
        pytest.param("use tools", {}, ["get_weather", "get_time"], id="tools in the prompt"),
        pytest.param("use tools", {"parallel_tool_calls": False}, ["get_weather"], id="not in parallel"),
        pytest.param("hi", {"tool_choice": "required"}, ["get_weather"], id="required"),
        pytest.param("use tools", {"tool_choice": "none"}, [], id="forbidden"),
        pytest.param(
            "hi", {"tool_choice": {"type": "function", "function": {"name": "get_time"}}}, ["get_time"], id="chosen"
        ),
    ],
)
@pytest.mark.parametrize("standin", HEEDING, indirect=True)
async def test_tools_are_called_as_the_request_asks(standin, prompt, fields, called):
    asked = {"model": "m", "messages": [{"role": "user", "content": prompt}], "tools": TOOLS, **fields}
    async with client_of(standin) as client:
        whole = (await client.chat.completions.create(**asked)).choices[0]
        async with client.chat.completions.stream(**asked) as stream:
            streamed = (await stream.get_final_completion()).choices[0]
    for choice in (whole, streamed):
        calls = choice.message.tool_calls or []
        assert [call.function.name for call in calls] == called
        assert [json.loads(call.function.arguments) for call in calls] == [{"city": "text"}] * len(called)
        assert choice.finish_reason == ("tool_calls" if called else "stop")


async def test_arguments_are_streamed_in_fragments_with_the_name_first(one, http):
    events = await events_of(http, one, tools=TOOLS, tool_choice="required")
    pieces = [c["delta"].get("tool_calls") for e in events[:-1] for c in json.loads(e)["choices"]]
    pieces = [piece[0] for piece in pieces if piece]
    assert pieces[0]["function"] == {"name": "get_weather", "arguments": ""}
    assert len(pieces) > 2
    assert all("id" not in piece for piece in pieces[1:])


async def test_after_a_tool_message_it_answers_in_text(one, http):
    call = {"id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
    ]
    asked = {"model": "m", "messages": messages, "tools": TOOLS, "tool_choice": "required"}
    choice = (await http.post(chat_url(one), json=asked)).json()["choices"][0]
    assert choice["message"]["content"].endswith("heard: noon")


class Leaf(BaseModel):
    kind: str
    size: int


class Tree(BaseModel):
    leaf: Leaf
    others: list[Leaf]
    parent: Tree | None
    ratio: float
    done: bool


@pytest.mark.parametrize("kind", KINDS)
async def test_structured_output_parses(kind):
    async with serve(kind) as standin, client_of(standin) as client:
        parsed = await client.chat.completions.parse(model="m", messages=HELLO, response_format=Tree)
    assert isinstance(parsed.choices[0].message.parsed, Tree)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        pytest.param({"type": "integer", "minimum": 3, "multipleOf": 5}, 5, id="multiple above"),
        pytest.param({"type": "integer", "exclusiveMinimum": 0}, 1, id="exclusive minimum"),
        pytest.param({"type": "integer", "maximum": -2}, -2, id="below zero"),
        pytest.param({"type": "number", "exclusiveMaximum": 0}, -0.5, id="exclusive maximum"),
        pytest.param({"type": "string", "minLength": 6}, "textxx", id="long text"),
        pytest.param({"type": "string", "maxLength": 2}, "te", id="short text"),
        pytest.param({"enum": ["a", "b"]}, "a", id="enum"),
        pytest.param({"const": 7}, 7, id="const"),
        pytest.param({"type": ["null", "string"]}, None, id="type list"),
        pytest.param({"items": {"type": "boolean"}, "minItems": 2}, [False, False], id="array"),
        pytest.param({"anyOf": [{"type": "string"}, {"type": "null"}], "maxLength": 1}, "t", id="any of"),
        pytest.param({"allOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": {}, "b": {}}, id="all of"),
        pytest.param(True, {}, id="anything"),
    ],
)
def test_the_smallest_instance_fits_the_schema(schema, expected):
    assert instance(schema) == expected


def test_a_recursive_schema_has_an_end():
    node = {
        "type": "object",
        "required": ["next"],
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    }
    assert "null" in json.dumps(instance({"$ref": "#/$defs/node", "$defs": {"node": node}}))
    endless = {"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#"}}}
    assert instance(endless)["next"]


# --- Azure ---


async def test_azure_annotates_prompt_and_answer(azure, http):
    whole = (await http.post(chat_url(azure), json=BODY)).json()
    assert whole["prompt_filter_results"][0]["content_filter_results"]["hate"]["filtered"] is False
    assert whole["choices"][0]["content_filter_results"]["violence"]["severity"] == "safe"
    first, second, third, *_ = [json.loads(event) for event in (await events_of(http, azure))[:-1]]
    assert first["choices"] == []
    assert first["prompt_filter_results"][0]["prompt_index"] == 0
    assert second["choices"][0]["content_filter_results"] == {}
    assert third["choices"][0]["content_filter_results"]["hate"]["severity"] == "safe"


async def test_azure_refuses_a_blocked_prompt_with_its_own_body(azure, http):
    asked = BODY | {"messages": [{"role": "user", "content": BLOCK_PROMPT}]}
    response = await http.post(chat_url(azure), json=asked)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "content_filter"
    assert error["param"] == "prompt"
    assert error["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert error["innererror"]["content_filter_result"]["violence"]["filtered"] is True
    azure.fail(Fault("content_filter"))
    assert (await http.post(chat_url(azure), json=BODY)).json() == response.json()


async def test_azure_withholds_a_blocked_answer_with_200(azure, http):
    asked = BODY | {"messages": [{"role": "user", "content": BLOCK_ANSWER}]}
    response = await http.post(chat_url(azure), json=asked)
    assert response.status_code == 200
    assert response.json()["choices"][0]["finish_reason"] == "content_filter"


async def test_azure_serves_the_classic_path_with_the_sdk_of_azure(azure):
    client = openai.AsyncAzureOpenAI(
        azure_endpoint=azure.url, api_key="k", api_version="2024-10-21", azure_deployment="east", max_retries=0
    )
    async with client:
        answer = await client.chat.completions.create(model="ignored", messages=HELLO)
    assert answer.model == "east"
    assert azure.requests[0].asked.headers["api-key"] == "k"
    assert azure.requests[0].asked.query == {"api-version": "2024-10-21"}


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        pytest.param("/openai/deployments/east/chat/completions", KEY, 404, "404", id="no version"),
        pytest.param(
            "/openai/deployments/west/chat/completions?api-version=1", KEY, 404, "DeploymentNotFound", id="gone"
        ),
        pytest.param("/openai/deployments/east/chat/completions?api-version=1", {}, 401, "401", id="no key"),
        pytest.param("/openai/v1/chat/completions", {"api-key": "wrong"}, 401, "401", id="wrong key"),
        pytest.param("/openai/v1/chat/completions", KEY, 404, "DeploymentNotFound", id="v1, unknown deployment"),
    ],
)
async def test_azure_refuses_at_its_gateway(azure, path, headers, status, code):
    azure.behave(models=("east",), keys=("k",))
    async with httpx.AsyncClient(trust_env=False) as http:
        response = await http.post(azure.url + path, json=BODY, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert set(response.json()["error"]) == {"code", "message"}


# --- the other endpoints, keys and bad requests ---


async def test_models_are_listed_and_an_unknown_one_is_404(standin):
    standin.behave(models=("a", "b/c"))
    async with client_of(standin) as client:
        assert [model.id async for model in await client.models.list()] == ["a", "b/c"]
        assert (await client.models.retrieve("b/c")).id == "b/c"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("z")
        with pytest.raises(openai.NotFoundError) as raised:
            await client.chat.completions.create(**BODY)
    expected = {"openai": "model_not_found", "azure_openai": "DeploymentNotFound", "ollama": None}
    assert raised.value.code == expected[standin.kind]


async def test_embeddings_are_the_same_for_the_same_text(standin, http):
    async with client_of(standin) as client:
        answer = await client.embeddings.create(model="m", input=["a", "b", "a"], dimensions=8)
    first, second, third = (entry.embedding for entry in answer.data)
    assert first == third != second
    assert len(first) == 8
    plain = await http.post(standin.url + BASE[standin.kind] + "/embeddings", json={"model": "m", "input": [1, 2]})
    assert len(plain.json()["data"][0]["embedding"]) == 16
    assert plain.json()["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic k"}])
async def test_openai_wants_its_key(one, headers):
    one.behave(keys=("k",))
    async with httpx.AsyncClient(trust_env=False) as http:
        response = await http.post(chat_url(one), json=BODY, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_ollama_wants_no_key():
    async with serve("ollama") as ollama, httpx.AsyncClient(trust_env=False) as http:
        assert (await http.post(chat_url(ollama), json=BODY)).status_code == 200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        pytest.param({"messages": None}, "messages", id="no messages"),
        pytest.param({"messages": []}, "messages", id="empty messages"),
        pytest.param({"messages": "hi"}, "messages", id="messages are a text"),
        pytest.param({"messages": ["hi"]}, "messages[0]", id="a message is a text"),
        pytest.param({"messages": [{"content": "x"}]}, "messages[0].role", id="no role"),
        pytest.param({"messages": [*HELLO, {"role": "boss", "content": "x"}]}, "messages[1].role", id="unknown role"),
        pytest.param({"messages": [{"role": "user"}]}, "messages[0].content", id="no content"),
        pytest.param({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", id="content is a number"),
        pytest.param({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", id="no call id"),
        pytest.param(
            {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, "messages[0].role", id="no call"
        ),
        pytest.param({"model": None}, None, id="no model"),
        pytest.param({"temperature": 3}, "temperature", id="too hot"),
        pytest.param({"temperature": "hot"}, "temperature", id="temperature is a text"),
        pytest.param({"n": 0}, "n", id="no choices"),
        pytest.param({"stream": "yes"}, "stream", id="stream is a text"),
        pytest.param({"stream_options": {}}, "stream_options", id="options without a stream"),
        pytest.param({"stream": True, "stream_options": 1}, "stream_options", id="options are a number"),
        pytest.param({"tool_choice": "required"}, "tool_choice", id="choice without tools"),
        pytest.param({"tools": []}, "tools", id="empty tools"),
        pytest.param({"tools": [1]}, "tools[0]", id="tool is a number"),
        pytest.param({"tools": [{}]}, "tools[0].type", id="tool without type"),
        pytest.param({"tools": [{"type": "function"}]}, "tools[0].function.name", id="tool without name"),
        pytest.param({"response_format": {"type": "xml"}}, "response_format", id="unknown format"),
        pytest.param(
            {"response_format": {"type": "json_schema"}}, "response_format.json_schema.name", id="schema without name"
        ),
        pytest.param(
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": 1}}},
            "response_format.json_schema.schema",
            id="schema is a number",
        ),
        pytest.param({"standin": "cut"}, "standin", id="a wish that cannot be read"),
        pytest.param({"standin": {"kind": "cut", "afer": 1}}, "standin", id="a wish with a slip"),
    ],
)
async def test_a_request_that_openai_refuses_is_refused(one, http, change, param):
    response = await http.post(chat_url(one), json=BODY | change)
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model": NaN}', b"[" * 100_000])
async def test_a_body_that_is_no_object_is_refused(one, http, body):
    response = await http.post(chat_url(one), content=body)
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]["message"]


@pytest.mark.parametrize("change", [{"input": None}, {"input": []}, {"input": "a", "encoding_format": "hex"}])
async def test_a_bad_embedding_request_is_refused(one, http, change):
    response = await http.post(one.url + "/v1/embeddings", json={"model": "m", **change})
    assert response.status_code == 400


async def test_an_unknown_path_is_404_in_the_error_shape(standin, http):
    response = await http.post(standin.url + "/v1/nothing", json={})
    assert response.status_code == 404
    assert "Invalid URL" in response.json()["error"]["message"]


# --- faults that are an answer ---


@pytest.mark.parametrize(
    ("fault", "raised", "code"),
    [
        pytest.param(Fault("status"), openai.InternalServerError, None, id="500"),
        pytest.param(Fault("status", status=503), openai.InternalServerError, None, id="503"),
        pytest.param(Fault("status", status=529), openai.InternalServerError, None, id="529"),
        pytest.param(Fault("status", status=422), openai.UnprocessableEntityError, None, id="422"),
        pytest.param(Fault("rate_limited"), openai.RateLimitError, "rate_limit_exceeded", id="429"),
        pytest.param(Fault("insufficient_quota"), openai.RateLimitError, "insufficient_quota", id="quota"),
        pytest.param(
            Fault("insufficient_quota", code="credit_balance_exhausted"),
            openai.RateLimitError,
            "credit_balance_exhausted",
            id="quota, other code",
        ),
        pytest.param(Fault("unauthorized"), openai.AuthenticationError, "invalid_api_key", id="401"),
        pytest.param(
            Fault("context_length_exceeded"), openai.BadRequestError, "context_length_exceeded", id="too long"
        ),
        pytest.param(Fault("content_filter"), openai.BadRequestError, "content_filter", id="filter"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_answer_is_what_the_sdk_expects(one, fault, raised, code, stream):
    one.fail(fault)
    async with client_of(one) as client:
        with pytest.raises(raised) as caught:
            await client.chat.completions.create(**BODY, stream=stream)
        await client.chat.completions.create(**BODY)
    assert caught.value.code == code
    if fault.kind == "status":
        assert caught.value.status_code == fault.status


@pytest.mark.parametrize("kind", KINDS)
async def test_waiting_times_are_sent_as_given(kind, http):
    async with serve(kind) as standin:
        standin.fail(Fault("rate_limited", retry_after=7, retry_after_ms=6543.5), Fault("rate_limited"))
        first = await http.post(chat_url(standin), json=BODY)
        second = await http.post(chat_url(standin), json=BODY)
    assert (first.status_code, first.headers["retry-after"], first.headers["retry-after-ms"]) == (429, "7", "6543.5")
    assert "retry-after" not in second.headers


@pytest.mark.parametrize(
    ("fault", "code"),
    [(Fault("status"), "InternalServerError"), (Fault("rate_limited"), "429"), (Fault("unauthorized"), "401")],
)
async def test_azure_answers_faults_with_the_codes_of_its_gateway(azure, http, fault, code):
    azure.fail(fault)
    assert (await http.post(chat_url(azure), json=BODY)).json()["error"]["code"] == code


@pytest.mark.parametrize(("kind", "body"), [("invalid_json", b'{"id":'), ("empty_body", b"")])
async def test_a_200_without_a_document(one, http, kind, body):
    one.fail(Fault(kind))
    response = await http.post(chat_url(one), json=BODY)
    assert response.status_code == 200
    assert response.content.startswith(body)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        response.json()


# --- faults of a stream ---


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("kind", ["cut", "reset"])
async def test_a_broken_stream_ends_without_an_end_after_so_many_events(one, http, kind, after):
    one.fail(Fault(kind, after=after))
    seen = []
    with pytest.raises(httpx.TransportError):  # noqa: PT012  the error comes out of the middle of the loop
        async with http.stream("POST", chat_url(one), json=BODY | {"stream": True}) as response:
            async for line in response.aiter_lines():
                seen += [line] if line.startswith("data:") else []
    assert len(seen) == after == one.requests[0].chunks == one.delivered
    assert one.cancelled == []
    assert one.finished == 1


@pytest.mark.parametrize("kind", ["cut", "reset"])
async def test_a_whole_answer_is_broken_half_way(one, http, kind):
    one.fail(Fault(kind))
    with pytest.raises(httpx.TransportError):
        await http.post(chat_url(one), json=BODY)
    assert one.delivered == 0


async def test_a_dropped_connection_has_no_answer(one, http):
    one.fail(Fault("drop"))
    with pytest.raises(httpx.TransportError):
        await http.post(chat_url(one), json=BODY)
    assert one.requests[0].status is None


async def test_a_stalled_stream_is_silent_until_the_caller_leaves(one, http):
    one.fail(Fault("stall", after=2))
    async with http.stream("POST", chat_url(one), json=BODY | {"stream": True}) as response:
        lines = response.aiter_lines()
        await anext(lines)
        await one.until(lambda s: s.delivered == 2)
        assert one.finished == 0
    await one.until(lambda s: len(s.cancelled) == 1)
    assert one.requests[0].chunks == 2


async def test_a_stall_that_passes_lets_the_answer_go_on(one, http):
    one.fail(Fault("stall", after=2, seconds=0.01), Fault("stall", seconds=0.01))
    assert (await events_of(http, one))[-1] == "[DONE]"
    assert (await http.post(chat_url(one), json=BODY)).json()["choices"]


async def test_a_malformed_event_comes_between_good_ones(one, http):
    one.fail(Fault("malformed", after=1))
    events = await events_of(http, one)
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(events[1])
    assert text_of([events[0], *events[2:]]).endswith("Hello there")


async def test_an_empty_stream_ends_cleanly(one, http):
    one.fail(Fault("empty_stream"))
    assert await events_of(http, one) == []


async def test_an_unfinished_stream_ends_cleanly_without_a_finish(one, http):
    one.fail(Fault("unfinished"))
    events = await events_of(http, one)
    assert text_of(events).endswith("Hello there")
    assert all(choice["finish_reason"] is None for event in events for choice in json.loads(event)["choices"])


@pytest.mark.parametrize("after", [0, 3])
async def test_an_error_inside_a_200_ends_the_stream(standin, http, after):
    standin.fail(Fault("error_event", after=after, message="overloaded"))
    events = await events_of(http, standin)
    assert len(events) == after + 1
    assert json.loads(events[-1])["error"]["message"] == "overloaded"


async def test_the_sdk_raises_on_an_error_event(one):
    one.fail(Fault("error_event", after=2))
    async with client_of(one) as client:
        stream = await client.chat.completions.create(**BODY, stream=True)
        with pytest.raises(openai.APIError):
            [chunk async for chunk in stream]


@pytest.mark.parametrize("kind", ["malformed", "unfinished", "empty_stream"])
async def test_a_fault_of_streams_leaves_a_whole_answer_unreadable(one, http, kind):
    one.fail(Fault(kind))
    response = await http.post(chat_url(one), json=BODY)
    assert response.status_code == 200
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        response.json()


async def test_an_error_inside_a_200_that_is_not_streamed(one, http):
    one.fail(Fault("error_event"))
    response = await http.post(chat_url(one), json=BODY)
    assert response.status_code == 200
    assert response.json()["error"]["type"] == "server_error"


async def test_a_slow_first_token_comes_after_headers_and_empty_chunks(one, http):
    one.fail(Fault("slow_first_token"))
    async with http.stream("POST", chat_url(one), json=BODY | {"stream": True}) as response:
        first = await anext(response.aiter_lines())
        assert json.loads(first[6:])["choices"][0]["delta"]["content"] == ""
    await one.until(lambda s: len(s.cancelled) == 1)
    assert one.requests[0].chunks == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_slow_first_token_that_comes_is_followed_by_the_rest(one, http, stream):
    one.fail(Fault("slow_first_token", seconds=0.05))
    began = time.monotonic()
    response = await http.post(chat_url(one), json=BODY | {"stream": stream})
    assert 0.05 <= time.monotonic() - began < 1
    assert "there" in response.text


async def test_a_long_stream_arrives_whole(one, http):
    one.behave(tokens=500)
    assert len(await events_of(http, one)) == one.delivered == 503


# --- pace ---


async def test_latency_is_before_the_headers(one, http):
    one.behave(latency=0.05)
    began = time.monotonic()
    async with http.stream("POST", chat_url(one), json=BODY | {"stream": True}) as response:
        assert time.monotonic() - began >= 0.05
        await response.aread()


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_come_at_their_speed(one, http, stream):
    one.behave(tokens=11, tokens_per_second=100, first_token=0.02)
    began = time.monotonic()
    await http.post(chat_url(one), json=BODY | {"stream": stream})
    assert 0.12 <= time.monotonic() - began < 1


# --- callers who leave ---


@pytest.mark.parametrize(
    "fault", [Fault("hang"), Fault("slow_first_token"), Fault("stall", after=2)], ids=lambda fault: fault.kind
)
async def test_a_caller_who_leaves_is_noticed_at_once(standin, fault):
    standin.behave(fault=fault)
    body = json.dumps(BODY | {"stream": True}).encode()
    head = f"POST {CHAT[standin.kind]} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", int(standin.url.rpartition(":")[2]))
    writer.write(head.encode() + body)
    await standin.until(lambda s: s.asked == 1)
    left = time.monotonic()
    writer.close()
    await standin.until(lambda s: len(s.cancelled) == 1)
    assert standin.cancelled[0].cancelled_at - left < 0.1
    assert standin.cancelled[0].finished_at is None
    assert standin.left == 1
    await standin.until(lambda s: s.running == 0)
    await writer.wait_closed()


async def test_a_caller_who_leaves_mid_stream_stops_the_tokens(one, http):
    one.behave(tokens=1000, tokens_per_second=200)
    async with http.stream("POST", chat_url(one), json=BODY | {"stream": True}) as response:
        await anext(response.aiter_lines())
    await one.until(lambda s: len(s.cancelled) == 1)
    await one.until(lambda s: s.running == 0)
    assert 0 < one.requests[0].chunks < 900


async def test_a_cancelled_sdk_call_is_counted(one):
    one.behave(fault=Fault("hang"))
    async with client_of(one) as client:
        call = asyncio.create_task(client.chat.completions.create(**BODY))
        await one.until(lambda s: s.asked == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await one.until(lambda s: len(s.cancelled) == 1)


async def test_a_finished_answer_is_not_cancelled_when_the_connection_closes(standin):
    async with httpx.AsyncClient(headers=KEY, trust_env=False) as http:
        await events_of(http, standin)
    async with httpx.AsyncClient(headers=KEY, trust_env=False) as http:
        await http.post(chat_url(standin), json=BODY)
    assert (standin.asked, standin.finished, standin.left) == (2, 2, 0)


async def test_a_caller_who_leaves_while_sending_is_no_request(one):
    _, writer = await asyncio.open_connection("127.0.0.1", int(one.url.rpartition(":")[2]))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with httpx.AsyncClient(headers=KEY, trust_env=False) as http:
        await http.post(chat_url(one), json=BODY)
    assert one.asked == 1


async def test_the_end_of_an_old_request_moves_no_counter_after_a_reset(one, http):
    one.fail(Fault("stall", after=1))
    async with http.stream("POST", chat_url(one), json=BODY | {"stream": True}) as response:
        await anext(response.aiter_lines())
        one.reset()
    await one.until(lambda s: s.running == 0)
    assert (one.asked, one.delivered, one.finished, one.left) == (0, 0, 0, 0)


# --- who decides about a fault ---


async def test_a_fault_stays_until_changed(one, http):
    one.behave(fault=Fault("status", status=503))
    assert [(await http.post(chat_url(one), json=BODY)).status_code for _ in range(2)] == [503, 503]
    assert (await http.get(one.url + "/v1/models")).status_code == 200
    one.behave(fault=None)
    assert (await http.post(chat_url(one), json=BODY)).status_code == 200


async def test_the_queue_is_used_up_one_by_one(one, http):
    one.fail(Fault("status"), None, Fault("status", status=503))
    statuses = [(await http.post(chat_url(one), json=BODY)).status_code for _ in range(4)]
    assert statuses == [500, 200, 503, 200]


@pytest.mark.parametrize("wish", [{"kind": "status", "status": 502}, {"fault": {"kind": "status", "status": 502}}])
async def test_a_request_can_ask_for_its_own_fault(one, http, wish):
    one.fail(Fault("status", status=503))
    by_field = await http.post(chat_url(one), json=BODY | {"standin": wish})
    by_header = await http.post(chat_url(one), json=BODY, headers={"x-standin": json.dumps(wish)})
    queued = await http.post(chat_url(one), json=BODY)
    assert [response.status_code for response in (by_field, by_header, queued)] == [502, 502, 503]


async def test_a_request_can_ask_for_its_own_length(one, http):
    response = await http.post(chat_url(one), json=BODY | {"standin": {"tokens": 33}})
    assert response.json()["usage"]["completion_tokens"] == 33


async def test_a_wish_at_one_stand_in_leaves_the_others_alone(one, http):
    wishes = [{"at": "other", "kind": "status"}, {"at": "openai", "kind": "status", "status": 504}]
    assert (await http.post(chat_url(one), json=BODY | {"standin": wishes})).status_code == 504
    assert (await http.post(chat_url(one), json=BODY | {"standin": wishes[0]})).status_code == 200


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_every_fault_can_be_written_as_json(kind):
    assert parse_fault(json.loads(json.dumps({"kind": kind, "after": 2}))) == Fault(kind, after=2)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        pytest.param([], "standin", id="no object"),
        pytest.param({"speed": 1}, "standin.speed", id="unknown field"),
        pytest.param({"kind": "explode"}, "fault.kind", id="unknown fault"),
        pytest.param({"fault": {"kind": "cut", "after": -1}}, "fault.after", id="negative count"),
        pytest.param({"fault": {"kind": "status", "status": 200}}, "fault.status", id="no error"),
        pytest.param({"fault": {"kind": "cut", "message": 1}}, "fault.message", id="no text"),
        pytest.param({"latency": "long"}, "standin.latency", id="no number"),
        pytest.param({"tokens_per_second": 0}, "standin.tokens_per_second", id="no speed"),
        pytest.param({"keys": "k"}, "standin.keys", id="no list"),
    ],
)
def test_a_slip_in_a_behaviour_is_named(document, place):
    with pytest.raises(ValueError, match=place):
        changed(Behaviour(), document)


# --- what can be seen over HTTP ---


async def test_the_control_surface_tells_changes_and_forgets(one, http):
    await http.post(chat_url(one), json=BODY, headers={"x-tag": "t"})
    seen = (await http.get(one.url + "/_standin")).json()
    assert (seen["asked"], seen["finished"], seen["delivered"], seen["cancelled"]) == (1, 1, 1, 0)
    assert json.loads(seen["requests"][0]["body"]) == BODY
    assert seen["requests"][0]["headers"]["x-tag"] == "t"
    assert "authorization" not in seen["requests"][0]["headers"]

    change = {"fault": {"kind": "status", "status": 503}, "tokens": 5, "queue": [None, {"kind": "unauthorized"}]}
    assert (await http.put(one.url + "/_standin", json=change)).json()["behaviour"]["tokens"] == 5
    statuses = [(await http.post(chat_url(one), json=BODY)).status_code for _ in range(3)]
    assert statuses == [200, 401, 503]

    fresh = (await http.delete(one.url + "/_standin")).json()
    assert (fresh["asked"], fresh["requests"], fresh["behaviour"]["fault"]) == (0, [], None)
    assert (await http.post(chat_url(one), json=BODY)).status_code == 200


async def test_a_refused_change_changes_nothing(one, http):
    response = await http.put(one.url + "/_standin", json={"tokens": 5, "queue": [{"kind": "nothing"}]})
    assert response.status_code == 400
    assert "fault.kind" in response.json()["error"]["message"]
    assert one.behaviour == Behaviour()
    assert (await http.put(one.url + "/_standin", content=b"{")).status_code == 400


async def test_only_the_last_requests_are_kept(one, http):
    for _ in range(205):
        await http.get(one.url + "/v1/models")
    assert (one.asked, len(one.requests), one.requests[0].asked.number) == (205, 200, 6)


async def test_until_gives_up(one):
    with pytest.raises(TimeoutError):
        await one.until(lambda s: s.asked == 1, seconds=0.01)


# --- as a process ---


async def test_all_stand_ins_run_in_one_process_and_end_on_a_signal(http):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local.providers", "--openai", "0", "--azure", "0", "--ollama", "0", "--tokens", "3"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [(await asyncio.wait_for(process.stdout.readline(), 10)).decode().split() for _ in KINDS]
    assert [line[0] for line in lines] == KINDS
    for kind, *_, url in lines:
        answer = (await http.post(url + CHAT[kind], json=BODY)).json()
        assert answer["usage"]["completion_tokens"] == 3
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 5)
    assert process.returncode == 0


async def test_a_taken_port_is_said_and_ends_the_process():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "local.providers", "--openai", str(taken.getsockname()[1])),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 1
    assert b"in use" in said
