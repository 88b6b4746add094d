"""What a request needs keeps targets out that lack it, with the reason; what contradicts itself is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routing.errors import InvalidRequest
from routing.wire import ChatRequest
from tests.routes_for import HELLO

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}}
TEXT = {"type": "text", "text": "What is it?"}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLING: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "It is a cat."}
LONG = [{"role": "user", "content": "one word after another " * 500}]


def said(*parts: Any) -> dict[str, Any]:
    return {"messages": [*HELLO, {"role": "user", "content": list(parts)}]}


NEEDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("vision", said(TEXT, IMAGE), "messages[1].content[1]", "lacks vision"),
    ("audio", said(SOUND), "messages[1].content[0]", "lacks audio"),
    ("audio", {"modalities": ["text", "audio"]}, "modalities", "lacks audio"),
    ("tools", {"tools": [TOOL]}, "tools", "lacks tools"),
    ("tools", {"functions": [{"name": "look"}]}, "functions", "lacks tools"),
    ("tools", {"messages": [*HELLO, CALLING, RESULT]}, "messages[1].tool_calls", "lacks tools"),
    ("json_schema", {"response_format": SCHEMA}, "response_format", "lacks json_schema"),
]
IDS = [f"{feature} {place}" for feature, _, place, _ in NEEDS]
ALL = ["tools", "vision", "audio", "json_schema"]


def refused(stage, **fields: Any) -> dict[str, Any]:
    answer = stage.ask(**fields)
    assert answer.status_code == 400, answer.text
    assert answer.headers["x-should-retry"] == "false"
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("feature", "fields", "place", "reason"), NEEDS, ids=IDS)
def test_a_request_that_no_target_can_take_is_told_the_place(stage, feature, fields, place, reason, stream):
    one = stage.standin(name="one")
    stage.serve(one, targets={"one": {"supports": [each for each in ALL if each != feature]}})
    error = refused(stage, **fields, stream=stream)
    assert (error["param"], error["code"]) == (place, "no_suitable_target")
    assert f"one: {reason}" in error["message"]
    assert one.asked == 0


@pytest.mark.parametrize(("feature", "fields", "place", "reason"), NEEDS, ids=IDS)
def test_a_target_that_can_is_asked_and_the_decision_says_why_not_the_other(stage, feature, fields, place, reason):
    one, two = stage.standin(name="one"), stage.standin(name="two")
    lacking = [each for each in ALL if each != feature]
    stage.serve(one, two, targets={"one": {"supports": lacking}, "two": {"supports": ALL}})
    answer = stage.ask(**fields)
    assert (answer.status_code, answer.headers["x-router-target"], one.asked) == (200, "two", 0)
    with stage.http() as client:
        decision = client.get(f"/v1/router/decisions/{answer.headers['x-router-decision-id']}").json()
    excluded = {each["target"]: each["reason"] for each in decision["plan"]["exclusions"]}
    assert excluded == {"one": reason}


def test_several_needs_at_once_name_the_first_that_is_lacking(stage):
    stage.serve(
        stage.standin(name="one"),
        stage.standin(name="two"),
        targets={"one": {"supports": ["tools"]}, "two": {"supports": ["vision"]}},
    )
    error = refused(stage, tools=[TOOL], **said(IMAGE))
    assert error["param"] == "tools"
    assert "one: lacks vision; two: lacks tools" in error["message"]


def test_a_context_that_is_too_small_is_passed_over(stage):
    one, two = stage.standin(name="one"), stage.standin(name="two")
    stage.serve(one, two, targets={"one": {"context": 1_000}, "two": {"context": 100_000}})
    assert stage.ask(messages=LONG).headers["x-router-target"] == "two"
    assert stage.ask().headers["x-router-target"] == "one"


def test_a_request_too_long_for_every_context_is_openais_own_error(stage):
    one, two = stage.standin(name="one"), stage.standin(name="two")
    stage.serve(one, two, targets={"one": {"context": 1_000}, "two": {"context": 500}})
    error = refused(stage, messages=LONG)
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")
    assert "context of 500 tokens is too small for " in error["message"]
    assert one.asked == two.asked == 0
    assert refused(stage, messages=LONG, router={"deny": ["two"]})["code"] == "context_length_exceeded"


def test_a_breaker_does_not_hide_what_the_request_itself_rules_out(stage):
    one = stage.standin(name="one")
    stage.serve(one, callers={"tester": {"key": "env:ROUTER_TEST_CALLER", "role": "admin"}})
    with stage.http() as client:
        order = client.post("/v1/router/breakers/one", json={"action": "isolate", "reason": "test"})
    assert order.status_code == 200
    assert stage.ask().status_code == 503
    assert refused(stage, **said(IMAGE))["param"] == "messages[1].content[0]"


# --- what contradicts itself

CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": False, "stream_options": {}}, "stream_options"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [], "tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "look"}}}, "tool_choice.function.name"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "lok"}}},
        "tool_choice.function.name",
    ),
    ({"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "look"}}}, "tool_choice.custom.name"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": 7}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema.schema",
    ),
    ({"messages": [*HELLO, RESULT]}, "messages[1].tool_call_id"),
    ({"messages": [*HELLO, RESULT, CALLING]}, "messages[1].tool_call_id"),
    ({"messages": [*HELLO, CALLING, {**RESULT, "tool_call_id": "call_2"}]}, "messages[2].tool_call_id"),
    ({"messages": [*HELLO, CALLING, {"role": "tool", "content": "x"}]}, "messages[2].tool_call_id"),
    ({"messages": [*HELLO, {"role": "robot", "content": "x"}]}, "messages[1].role"),
]


@pytest.mark.parametrize(("fields", "place"), CONTRADICTIONS, ids=[json.dumps(case)[:70] for case, _ in CONTRADICTIONS])
def test_a_contradiction_is_refused_with_its_place(stage, fields, place):
    one = stage.standin(name="one")
    stage.serve(one, targets={"one": {"supports": ALL}})
    error = refused(stage, **fields)
    assert (error["param"], error["code"], error["type"]) == (place, "invalid_request", "invalid_request_error")
    assert error["message"].startswith(f"{place}: ")
    assert one.asked == 0


SOUND_REQUESTS: list[dict[str, Any]] = [
    {"max_tokens": 5, "max_completion_tokens": 5},
    {"max_tokens": 5, "max_completion_tokens": None},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": False, "stream_options": None},
    {"tool_choice": "auto"},
    {"tool_choice": "none"},
    {"functions": [{"name": "look"}], "function_call": {"name": "look"}},
    {"tools": [TOOL], "tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}},
    {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
    {"tools": [TOOL], "tool_choice": {"type": "of the future", "of the future": {"name": "x"}}},
    {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
    {"response_format": SCHEMA},
    {"response_format": {"type": "json_schema", "schema": {"type": "object"}}},
    {"response_format": {"type": "json_object"}},
    {"messages": [*HELLO, CALLING, RESULT, RESULT]},
    {"messages": [*HELLO, CALLING, *HELLO, RESULT]},
    {"messages": [*HELLO, CALLING, RESULT, CALLING, RESULT]},
    {"messages": [*HELLO, CALLING]},
    {"messages": [{"role": "function", "name": "look", "content": "x"}]},
]


@pytest.mark.parametrize("fields", SOUND_REQUESTS, ids=[json.dumps(fields)[:70] for fields in SOUND_REQUESTS])
def test_what_some_provider_takes_is_not_refused(fields):
    body = {"model": "chat", "messages": HELLO, **fields}
    assert json.loads(ChatRequest.parse(json.dumps(body).encode()).payload("chat")) == body


def outcome_of(fields: dict[str, Any]) -> str:
    """The place that is refused; nothing when the request passes as it is."""
    try:
        request = ChatRequest.parse(json.dumps({"model": "chat", "messages": HELLO, **fields}).encode())
    except InvalidRequest as error:
        return error.param or "?"
    assert request.fields.items() >= fields.items()
    return ""


@pytest.mark.parametrize("odd", [None, 7, "x", [], {}, [None], [{}], [[]], {"type": None}, {"type": []}])
@pytest.mark.parametrize("name", ["tools", "tool_choice", "response_format", "stream_options", "messages"])
def test_an_odd_value_is_refused_or_passed_and_breaks_nothing(name, odd):
    assert outcome_of({name: odd}).startswith(name) or outcome_of({name: odd}) == ""


def test_both_limits_of_a_request_are_lowered_together():
    request = ChatRequest.parse(
        json.dumps({"model": "m", "messages": HELLO, "max_tokens": 9, "max_completion_tokens": 9}).encode()
    )
    lowered = request.limited(4)
    assert (lowered.output_limit, lowered.fields["max_tokens"], lowered.fields["max_completion_tokens"]) == (4, 4, 4)
