"""Anthropic's official SDK in front of the router, every kind of provider behind it: the app does not notice."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from local.providers import Fault
from tests.routes_for import CHAT, HELLO, KEY, NO_TLS, ONCE, Stage, heard, raw_request, read_until

PATH = "/v1/messages"
ASKED: dict[str, Any] = {"model": "chat", "max_tokens": 500, "messages": HELLO}
KINDS = ("openai", "azure_openai", "ollama", "anthropic")
TOOLS: list[Any] = [
    {
        "name": name,
        "description": "Looks it up.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    for name in ("get_weather", "get_time")
]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
AT_ONCE = 2.0


class Invoice(BaseModel):
    number: int
    lines: list[str]


def sdk(stage: Stage, **options: Any) -> anthropic.Anthropic:
    given = {"base_url": stage.url, "api_key": KEY, "max_retries": 0, "timeout": 10, **options}
    return anthropic.Anthropic(**given, http_client=anthropic.DefaultHttpxClient(verify=NO_TLS))


def ask(stage: Stage, path: str = PATH, headers: dict[str, str] | None = None, **fields: Any):
    """One request by plain HTTP."""
    with stage.http() as client:
        return client.post(path, json={**ASKED, **fields}, headers=headers or {})


def sent(standin, place: int = -1) -> dict[str, Any]:
    """What the stand-in was asked, parsed."""
    return json.loads(standin.requests[place].asked.body)


@pytest.fixture(params=KINDS)
def one(request, stage):
    standin = stage.standin(request.param, "one")
    stage.serve(standin, route={"retry": ONCE})
    return standin


@pytest.fixture
def native(stage):
    standin = stage.standin("anthropic", "one")
    stage.serve(standin, route={"retry": ONCE})
    return standin


@pytest.fixture
def foreign(stage):
    standin = stage.standin("openai", "one")
    stage.serve(standin, route={"retry": ONCE})
    return standin


def test_an_answer(stage, one):
    with sdk(stage) as client:
        raw = client.messages.with_raw_response.create(**ASKED, system="Be brief.")
    message = raw.parse()
    assert [block.text for block in message.content if block.type == "text"] == [heard(one)]
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert (message.model, raw.headers["x-router-model"]) == ("model-of-one", "model-of-one")
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0
    assert raw.headers["x-router-target"] == "one"
    assert message._request_id == raw.headers["x-request-id"]


def test_a_stream(stage, one):
    with sdk(stage) as client, client.messages.stream(**ASKED) as stream:
        texts = list(stream.text_stream)
        message = stream.get_final_message()
        headers = stream.response.headers
    assert "".join(texts) == heard(one)
    assert len(texts) > 2
    assert message.content[0].type == "text"
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0
    assert (message.model, headers["x-router-model"]) == ("model-of-one", "model-of-one")


def test_the_same_answer_streamed_and_not(stage, one):
    with sdk(stage) as client:
        whole = client.messages.create(**ASKED)
        with client.messages.stream(**ASKED) as stream:
            streamed = stream.get_final_message()
    assert streamed.content[0].model_dump(exclude_none=True, exclude={"parsed_output"}) == whole.content[0].model_dump(
        exclude_none=True
    )
    assert (streamed.usage.input_tokens, streamed.usage.output_tokens) == (
        whole.usage.input_tokens,
        whole.usage.output_tokens,
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_tools_are_called_in_parallel_and_their_results_answered(stage, one, stream):
    question: list[Any] = [{"role": "user", "content": "Use your tools"}]
    asked: dict[str, Any] = {**ASKED, "tools": TOOLS, "tool_choice": {"type": "auto"}}
    with sdk(stage) as client:
        if stream:
            with client.messages.stream(**{**asked, "messages": question}) as answered:
                message = answered.get_final_message()
        else:
            message = client.messages.create(**{**asked, "messages": question})
        calls = [block for block in message.content if block.type == "tool_use"]
        assert message.stop_reason == "tool_use"
        assert [call.name for call in calls] == ["get_weather", "get_time"]
        assert all(set(call.input) == {"city"} for call in calls)
        assert len({call.id for call in calls}) == 2
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "sun"} for call in calls]
        said = [block.model_dump(exclude_none=True) for block in message.content]
        turns = [*question, {"role": "assistant", "content": said}, {"role": "user", "content": results}]
        answer = client.messages.create(**{**asked, "messages": turns})
    assert answer.content[0].type == "text"
    assert answer.content[0].text.startswith("one (model-of-one) heard: sun")


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"type": "any", "disable_parallel_tool_use": True}, ["get_weather"]),
        ({"type": "tool", "name": "get_time"}, ["get_time"]),
        ({"type": "none"}, []),
    ],
    ids=["any", "tool", "none"],
)
@pytest.mark.parametrize("one", [kind for kind in KINDS if kind != "ollama"], indirect=True)
def test_the_choice_of_a_tool_is_kept(stage, one, choice, names):
    messages = [{"role": "user", "content": "Use your tools" if choice["type"] == "none" else "Hello"}]
    with sdk(stage) as client:
        message = client.messages.create(**{**ASKED, "messages": messages}, tools=TOOLS, tool_choice=choice)
    assert [block.name for block in message.content if block.type == "tool_use"] == names


def test_structured_output_is_parsed(stage, one):
    with sdk(stage) as client:
        message = client.messages.parse(**ASKED, output_format=Invoice)
    assert isinstance(message.parsed_output, Invoice)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_reaches_every_provider(stage, kind):
    one = stage.standin(kind, "one")
    stage.serve(one, targets={"one": {"supports": ["vision"]}})
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content = [{"type": "text", "text": "Hello there"}, {"type": "image", "source": source}]
    with sdk(stage) as client:
        message = client.messages.create(**{**ASKED, "messages": [{"role": "user", "content": content}]})
    assert message.content[0].type == "text"
    assert PIXEL in one.requests[0].asked.body.decode()


@pytest.mark.parametrize(
    ("fault", "error", "status", "kind"),
    [
        (Fault("rate_limited", retry_after=5), anthropic.RateLimitError, 429, "rate_limit_error"),
        (Fault("insufficient_quota"), anthropic.RateLimitError, 429, "rate_limit_error"),
        (Fault("context_length_exceeded"), anthropic.BadRequestError, 400, "invalid_request_error"),
        (Fault("content_filter"), anthropic.BadRequestError, 400, "invalid_request_error"),
        (Fault("unauthorized"), anthropic.InternalServerError, 502, "api_error"),
        (Fault("status", status=500), anthropic.InternalServerError, 502, "api_error"),
        (Fault("status", status=503), anthropic.InternalServerError, 502, "api_error"),
        (Fault("invalid_json"), anthropic.InternalServerError, 502, "api_error"),
        (Fault("empty_body"), anthropic.InternalServerError, 502, "api_error"),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_errors_arrive_as_the_sdks_own(stage, one, fault, error, status, kind):
    one.fail(fault, fault)  # a key is tried twice
    with sdk(stage) as client, pytest.raises(error) as raised:
        client.messages.create(**ASKED)
    body: Any = raised.value.body
    assert raised.value.status_code == status
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["request_id"] == raised.value.request_id
    if fault.kind == "rate_limited":
        assert raised.value.response.headers["retry-after"] == "5"


def test_the_routers_own_errors_have_the_same_shape(stage, foreign):
    with sdk(stage) as client:
        with pytest.raises(anthropic.NotFoundError) as unknown:
            client.messages.create(**{**ASKED, "model": "nobody"})
        with pytest.raises(anthropic.BadRequestError) as wrong:
            client.messages.create(**{**ASKED, "max_tokens": 0})
    with sdk(stage, api_key="wrong") as client, pytest.raises(anthropic.AuthenticationError) as stranger:
        client.messages.create(**ASKED)
    assert unknown.value.type == "not_found_error"
    assert unknown.value.error_code == "model_not_found"
    assert stranger.value.type == "authentication_error"
    body: Any = wrong.value.body
    assert body["error"]["details"]["param"] == "max_tokens"
    assert foreign.asked == 0


@pytest.mark.parametrize("headers", [{"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}], ids=["key", "bearer"])
def test_the_callers_key_is_taken_as_anthropics_clients_send_it(stage, foreign, headers):
    with stage.http(headers=headers) as client:
        assert client.post(PATH, json=ASKED).status_code == 200
    assert KEY not in str(foreign.requests[0].asked)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kinds", [("anthropic", "openai"), ("openai", "anthropic")], ids=lambda kinds: kinds[0])
def test_another_protocol_takes_over_whichever_it_is(stage, kinds, stream):
    first, second = (stage.standin(kind, f"{place}-{kind}") for place, kind in zip("ab", kinds, strict=True))
    stage.serve(first, second, route={"retry": ONCE})
    first.fail(Fault("error_event", after=1) if stream else Fault("status", status=503))
    with sdk(stage) as client:
        if stream:
            with client.messages.stream(**ASKED) as answered:
                text = "".join(answered.text_stream)
        else:
            text = client.messages.create(**ASKED).content[0].text
    assert text == heard(second)
    assert (first.asked, second.asked) == (1, 1)


@pytest.mark.parametrize("fault", ["cut", "error_event", "malformed", "unfinished"])
def test_a_failure_in_the_middle_of_a_stream_is_an_error_event(stage, one, fault):
    one.fail(Fault(fault, after=6))
    with sdk(stage) as client, client.messages.stream(**ASKED) as stream:
        assert next(iter(stream.text_stream))
        with pytest.raises(anthropic.APIStatusError) as raised:
            stream.until_done()
    body: Any = raised.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "api_error")
    assert body["delivered_tokens"] > 0


def test_silence_is_filled_with_pings(stage):
    one = stage.standin(name="one", first_token=0.15)
    stage.serve(one, server={"keepalive_seconds": 0.03})
    answer = ask(stage, stream=True)
    assert answer.text.startswith('event: ping\ndata: {"type": "ping"}\n\n')
    with sdk(stage) as client, client.messages.stream(**ASKED) as stream:
        assert "".join(stream.text_stream) == heard(one)


def test_a_failure_after_an_early_200_is_an_error_event_too(stage):
    one = stage.standin(name="one", latency=0.15, fault=Fault("status", status=503))
    stage.serve(one, server={"keepalive_seconds": 0.03}, route={"retry": ONCE})
    answer = ask(stage, stream=True)
    assert answer.status_code == 200
    assert answer.text.rsplit("event: ", 1)[1].startswith('error\ndata: {"type":"error","error":{"type":"api_error"')


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_caller_who_leaves_cancels(stage, kind, stream):
    one = stage.standin(kind, "one", fault=Fault("stall", after=5))
    stage.serve(one)
    body = json.dumps({**ASKED, "stream": stream}).encode()
    with stage.connection() as connection:
        connection.sendall(raw_request(body, path=PATH))
        if stream:
            read_until(connection, b"content_block_delta")
        else:
            stage.until(one, lambda it: it.running == 1)
    stage.until(one, lambda it: it.left == 1, AT_ONCE)


def test_what_anthropic_understands_reaches_it_untouched(stage, native):
    """Thoughts, cache marks, tools that run there, betas, fields from the future: nothing is lost on the way."""
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    fields: dict[str, Any] = {
        "system": system,
        "thinking": {"type": "adaptive"},
        "metadata": {"user_id": "u" * 200},
        "service_tier": "standard_only",
    }
    headers = {"anthropic-beta": "context-1m-2025-08-07", "anthropic-version": "2023-06-01"}
    answer = ask(stage, headers=headers, **fields, router={"task": "planning"})
    assert answer.status_code == 200, answer.text
    assert sent(native) == {**ASKED, **fields, "model": "model-of-one"}
    assert native.requests[0].asked.headers["anthropic-beta"] == "context-1m-2025-08-07"
    assert "x-router-dropped" not in answer.headers
    assert answer.headers["x-router-task"] == "planning"
    blocks = answer.json()["content"]
    assert blocks[0]["type"] == "thinking"
    assert blocks[0]["signature"]


def test_thoughts_come_back_to_the_provider_that_signed_them(stage, native):
    question: list[Any] = [{"role": "user", "content": "Use your tools"}]
    asked: dict[str, Any] = {**ASKED, "tools": TOOLS, "thinking": {"type": "adaptive"}}
    with sdk(stage) as client:
        with client.messages.stream(**{**asked, "messages": question}) as stream:
            message = stream.get_final_message()
        calls = [block for block in message.content if block.type == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "sun"} for call in calls]
        said = [block.model_dump(exclude_none=True) for block in message.content]
        turns = [*question, {"role": "assistant", "content": said}, {"role": "user", "content": results}]
        answer = client.messages.create(**{**asked, "messages": turns})
    assert message.content[0].type == "thinking"
    assert answer.stop_reason == "end_turn"


def test_a_native_answer_comes_back_byte_for_byte(stage, native):
    assert set(ask(stage).json()) >= {"id", "stop_details", "usage"}
    assert ask(stage).json()["id"].startswith("msg_0000")


def test_what_is_left_out_elsewhere_is_told_in_a_header(stage, foreign):
    block = {"type": "text", "text": "Hello there", "cache_control": {"type": "ephemeral"}}
    messages = [{"role": "user", "content": [block]}]
    for stream in (False, True):
        answer = ask(stage, messages=messages, top_k=5, thinking={"type": "adaptive"}, stream=stream)
        assert answer.status_code == 200
        assert answer.headers["x-router-dropped"] == "messages[].content[].cache_control, thinking, top_k"
    assert sent(foreign)["messages"] == HELLO
    assert sent(foreign)["max_completion_tokens"] == 500


@pytest.mark.parametrize(("kind", "name"), [("anthropic", "max_tokens"), ("openai", "max_completion_tokens")])
def test_a_limit_that_a_target_cannot_reach_is_lowered_and_told(stage, kind, name):
    one = stage.standin(kind, "one")
    stage.serve(one, targets={"one": {"max_output": 300}})
    answer = ask(stage)
    assert sent(one)[name] == 300
    assert answer.headers["x-router-max-tokens"] == "300"


SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def test_what_only_anthropic_can_do_goes_only_to_anthropic(stage):
    one, two = stage.standin(name="one"), stage.standin("anthropic", "two")
    stage.serve(one, two)
    ask(stage, tools=[SEARCH])
    assert (one.asked, two.asked) == (0, 1)
    assert sent(two)["tools"] == [SEARCH]


def test_what_no_target_can_do_is_refused_by_name(stage, foreign):
    with sdk(stage) as client, pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(**ASKED, tools=[SEARCH])  # type: ignore[list-item]
    body: Any = refused.value.body
    assert body["error"]["details"] == {"error_code": "unsupported_parameter", "param": "tools[0].type"}
    assert foreign.asked == 0


RESULT = {"type": "tool_result", "tool_use_id": "t", "content": "x"}
USE = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
BAD: dict[str, tuple[Any, str]] = {
    "no messages": ([], "messages"),
    "role": ([{"role": "robot", "content": "x"}], "messages[0].role"),
    "content": ([{"role": "user", "content": 1}], "messages[0].content"),
    "block": ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
    "type": ([{"role": "user", "content": [{"text": "x"}]}], "messages[0].content[0].type"),
    "text": ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
    "no call": ([{"role": "user", "content": [RESULT]}], "messages[0].content[0].tool_use_id"),
    "no result": (
        [{"role": "assistant", "content": [USE]}, {"role": "user", "content": "x"}],
        "messages[0].content[0]",
    ),
    "no source": ([{"role": "user", "content": [{"type": "image"}]}], "messages[0].content[0].source"),
}


@pytest.mark.parametrize(("messages", "path"), BAD.values(), ids=BAD)
def test_a_bad_request_is_refused_at_its_place_before_anybody_is_asked(stage, foreign, messages, path):
    answer = ask(stage, messages=messages)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["param"] == path
    assert foreign.asked == 0


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice.name"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"router": {"wish": 1}}, "router.wish"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_contradictory_fields_are_refused_at_their_place(stage, foreign, fields, path):
    answer = ask(stage, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["param"] == path
    assert foreign.asked == 0


def test_tokens_are_counted_by_the_provider_that_can(stage, native):
    with sdk(stage) as client:
        counted = client.messages.count_tokens(model="chat", messages=HELLO, system="Be brief.")
    assert counted.input_tokens == 14
    assert native.requests[0].asked.path == "/v1/messages/count_tokens"


def test_tokens_are_estimated_where_nobody_counts_them(stage, foreign):
    with sdk(stage) as client:
        raw = client.messages.with_raw_response.count_tokens(model="chat", messages=HELLO)
    assert 5 < raw.parse().input_tokens < 15
    assert raw.headers["x-router-estimated"] == "true"
    assert foreign.asked == 0


def test_an_ill_counter_leaves_an_estimate(stage, native):
    native.behave(fault=Fault("status", status=500))
    with sdk(stage) as client:
        raw = client.messages.with_raw_response.count_tokens(model="chat", messages=HELLO)
    assert raw.headers["x-router-estimated"] == "true"


def test_a_ceiling_of_the_request_is_kept_in_its_own_protocol(stage):
    prices = {"price": {"input": 1.0, "output": 100.0}}
    for kind in ("anthropic", "openai"):
        one = stage.standin(kind, f"one-{kind}")
        stage.serve(one, targets={one.name: prices})
        answer = ask(stage, router={"max_cost_usd": 0.04})
        limit = int(answer.headers["x-router-max-tokens"])
        assert 300 < limit < 500
        assert sent(one)["max_tokens" if kind == "anthropic" else "max_completion_tokens"] == limit


def test_the_decision_tells_usage_and_cost_of_a_native_stream(stage):
    one = stage.standin("anthropic", "one", cached_tokens=100)
    stage.serve(one, targets={"one": {"price": {"input": 1.0, "output": 2.0, "cached_input": 0.1}}})
    answer = ask(stage, stream=True)
    with stage.http() as client:
        decision = client.get(f"/v1/router/decisions/{answer.headers['x-router-decision-id']}").json()
    assert decision["usage"]["cached"] == 100
    assert decision["usage"]["estimated"] is False
    assert decision["cost"]["micro_usd"] > 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_cached_tokens_are_counted_apart(stage, stream):
    one = stage.standin(name="one", cached_tokens=1_000, reasoning_tokens=7)
    stage.serve(one)
    with sdk(stage) as client:
        if stream:
            with client.messages.stream(**ASKED) as answered:
                usage = answered.get_final_message().usage
        else:
            usage = client.messages.create(**ASKED).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (0, 1_000)


def test_chat_is_answered_beside_it(stage, native):
    with stage.sdk() as client:
        assert client.chat.completions.create(**CHAT).choices[0].message.content == heard(native)


def test_what_a_target_lacks_is_told_by_its_place_in_the_request_as_it_came(stage, foreign):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    said = [{"role": "user", "content": [image]}]
    answer = ask(stage, system="Be brief.", messages=said)
    assert (answer.status_code, answer.json()["error"]["details"]["param"]) == (400, "messages[0]")
    assert foreign.asked == 0


def test_what_a_provider_refuses_is_told_by_its_name_in_the_request_as_it_came(stage, foreign):
    answer = ask(stage, max_tokens=10_000_000)
    error = answer.json()["error"]
    assert (answer.status_code, error["details"]["param"]) == (400, "max_tokens")
    assert "max_completion_tokens" not in error["message"]


def test_the_sdks_beta_features_reach_anthropic_and_are_answered_elsewhere(stage):
    one, two = stage.standin("anthropic", "one"), stage.standin(name="two")
    stage.serve(one, two)
    asked: dict[str, Any] = {"max_tokens": 500, "messages": HELLO, "betas": ["context-1m-2025-08-07"]}
    with sdk(stage) as client:
        for standin in (one, two):
            answer = client.beta.messages.create(**asked, model=standin.name)
            assert answer.content[0].type == "text"
            assert answer.content[0].text == heard(standin)
    assert one.requests[0].asked.headers["anthropic-beta"] == "context-1m-2025-08-07"
    assert "anthropic-beta" not in two.requests[0].asked.headers
