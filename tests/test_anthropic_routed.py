"""OpenAI's official SDK in front of the router, Anthropic behind it: the app does not notice."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from local.providers import Fault
from tests.routes_for import CHAT, HELLO, ONCE, events, heard, routes_for, text_of

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    for name in ("get_weather", "get_time")
]


class Invoice(BaseModel):
    number: int
    lines: list[str]


def serve(stage, *standins, **tables):
    stage.serve_text(routes_for(standins, **tables).replace('"endpoint"', '"base_url"'))


@pytest.fixture
def one(stage):
    standin = stage.standin("anthropic", "one")
    serve(stage, standin, route={"retry": ONCE})
    return standin


def test_an_answer_and_its_stream(stage, one):
    with stage.sdk() as client:
        answer = client.chat.completions.create(**CHAT)
        chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    assert answer.choices[0].message.content == heard(one)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == heard(one)
    assert chunks[-1].usage == answer.usage
    assert one.requests[0].asked.headers["x-api-key"] == "provider-key-1"


def test_what_is_left_out_is_told_in_a_header(stage, one):
    for stream in (False, True):
        answer = stage.ask(seed=1, temperature=0.2, stream=stream)
        assert answer.status_code == 200
        assert answer.headers["x-router-dropped"] == "temperature, seed"


def test_tools_are_called_and_their_results_answered(stage, one):
    question: list[Any] = [{"role": "user", "content": "Use your tools"}]
    asked: dict[str, Any] = {"model": "chat", "tools": TOOLS, "reasoning_effort": "high"}
    with stage.sdk() as client:
        message = client.chat.completions.create(**asked, messages=question).choices[0].message
        assert message.tool_calls is not None
        assert [call.function.name for call in message.tool_calls] == ["get_weather", "get_time"]
        results = [{"role": "tool", "tool_call_id": call.id, "content": "sun"} for call in message.tool_calls]
        turns = [*question, message.model_dump(exclude_none=True), *results]
        answer = client.chat.completions.create(**asked, messages=turns)
    assert answer.choices[0].message.content == "one (model-of-one) heard: sun sun"
    sent = json.loads(one.requests[1].asked.body)["messages"][1]["content"]
    assert [block["type"] for block in sent] == ["thinking", "tool_use", "tool_use"]


def test_structured_output_is_parsed(stage, one):
    with stage.sdk() as client:
        answer = client.chat.completions.parse(**CHAT, response_format=Invoice)
    assert isinstance(answer.choices[0].message.parsed, Invoice)


def test_a_refusal_is_one_for_the_sdk_too(stage, one):
    refused: list[Any] = [{"role": "user", "content": "BLOCK_ANSWER"}]
    with stage.sdk() as client:
        choice = client.chat.completions.create(model="chat", messages=refused).choices[0]
    assert choice.finish_reason == "content_filter"
    assert choice.message.refusal


def test_a_field_without_a_counterpart_is_refused_before_anthropic_is_asked(stage, one):
    with stage.sdk() as client, pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**CHAT, n=2)
    assert refused.value.param == "n"
    assert one.asked == 0


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        pytest.param({"n": 2}, "n", id="several answers"),
        pytest.param({"logprobs": True}, "logprobs", id="logprobs"),
        pytest.param({"tools": [TOOLS[0], {"type": "custom", "custom": {"name": "x"}}]}, "tools[1].type", id="tool"),
    ],
)
def test_what_anthropic_has_no_counterpart_of_goes_to_who_has(stage, one, fields, place):
    two = stage.standin("openai", "two")
    can = {"supports": ["tools"]}
    serve(stage, one, two, targets={"one": can, "two": can})
    answer = stage.ask(**fields)
    assert (answer.status_code, answer.headers["x-router-target"], one.asked) == (200, "two", 0)
    assert answer.headers["x-router-attempts"] == "1"
    with stage.http() as client:
        plan = client.post("/v1/router/explain", json={**CHAT, **fields}).json()["plan"]
    (excluded,) = plan["exclusions"]
    assert excluded["reason"] == f"its protocol has no counterpart of {place}"


def test_what_only_an_ill_target_could_say_is_worth_waiting_for(stage, one):
    two = stage.standin("openai", "two")
    serve(stage, one, two, route={"retry": ONCE})
    two.fail(Fault("rate_limited", retry_after=30))
    assert stage.ask(router={"only": ["two"]}).status_code == 429
    answer = stage.ask(n=2)
    assert (answer.status_code, one.asked) == (429, 0)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("rate_limited", retry_after=5), openai.RateLimitError),
        (Fault("insufficient_quota"), openai.RateLimitError),
        (Fault("context_length_exceeded"), openai.BadRequestError),
        (Fault("status", status=529), openai.InternalServerError),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_errors_arrive_as_the_sdk_s_own(stage, one, fault, error):
    one.fail(fault)
    with stage.sdk() as client, pytest.raises(error):
        client.chat.completions.create(**CHAT)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kinds", [("anthropic", "openai"), ("openai", "anthropic")], ids=lambda kinds: kinds[0])
def test_another_provider_takes_over_whichever_it_is(stage, kinds, stream):
    first, second = (stage.standin(kind, f"{place}-{kind}") for place, kind in zip("ab", kinds, strict=True))
    serve(stage, first, second, route={"retry": ONCE})
    first.fail(Fault("error_event", status=529) if stream else Fault("status", status=529))
    answer = stage.ask(stream=stream)
    assert answer.status_code == 200
    said = text_of(events(answer.text)) if stream else answer.json()["choices"][0]["message"]["content"]
    assert said == heard(second)


def test_a_late_error_becomes_an_error_event(stage, one):
    one.fail(Fault("error_event", after=5, status=529))
    told = events(stage.ask(stream=True, messages=HELLO).text)
    assert text_of(told)
    assert told[-1]["error"]["code"] == "provider_unavailable"
