"""The official OpenAI SDK, used as its documentation says, finds in the router what it would find at OpenAI."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from pydantic import BaseModel

from local.providers import Fault
from local.standin_answers import fragments
from tests.routes_for import CHAT, HELLO, ONCE, heard

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
USE_BOTH: list[Any] = [{"role": "user", "content": "Use your tools"}]


class Invoice(BaseModel):
    number: int
    lines: list[str]
    paid: bool


def test_plain(stage):
    one = stage.standin(name="one")
    stage.serve(one)
    with stage.sdk() as client:
        answer = client.chat.completions.create(**CHAT)
    assert answer.choices[0].message.content == heard(one)
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


async def test_plain_async(stage):
    one = stage.standin(name="one")
    stage.serve(one)
    async with stage.async_sdk() as client:
        answer = await client.chat.completions.create(**CHAT)
    assert answer.choices[0].message.content == heard(one)


def test_streamed(stage):
    one = stage.standin(name="one")
    stage.serve(one)
    with stage.sdk() as client:
        chunks = list(client.chat.completions.create(**CHAT, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == heard(one)
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_streamed_async(stage):
    one = stage.standin(name="one")
    stage.serve(one)
    async with stage.async_sdk() as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(said) == heard(one)


def test_the_stream_helper_gathers_the_whole_answer(stage):
    one = stage.standin("azure_openai", "one")
    stage.serve(one)
    with stage.sdk() as client, client.chat.completions.stream(**CHAT) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.content == heard(one)


def test_tools_are_called_and_their_results_answered(stage):
    stage.serve(stage.standin(name="one"))
    with stage.sdk() as client:
        answer = client.chat.completions.create(model="chat", messages=USE_BOTH, tools=TOOLS)
        calls: Any = answer.choices[0].message.tool_calls
        assert [call.function.name for call in calls] == ["get_weather", "get_time"]
        results: list[Any] = [{"role": "tool", "tool_call_id": call.id, "content": "fine"} for call in calls]
        message: Any = answer.choices[0].message.model_dump(exclude_none=True)
        after = client.chat.completions.create(model="chat", messages=[*USE_BOTH, message, *results], tools=TOOLS)
    assert after.choices[0].finish_reason == "stop"
    assert str(after.choices[0].message.content).endswith("heard: fine")


def test_one_tool_at_a_time_where_the_caller_says_so(stage):
    stage.serve(stage.standin(name="one"))
    with stage.sdk() as client:
        answer = client.chat.completions.create(model="chat", messages=USE_BOTH, tools=TOOLS, parallel_tool_calls=False)
    assert len(answer.choices[0].message.tool_calls or ()) == 1


@pytest.mark.parametrize("kind", ["openai", "azure_openai", "ollama"])
def test_parallel_tool_calls_come_together_out_of_a_stream(stage, kind):
    stage.serve(stage.standin(kind, "one"))
    with stage.sdk() as client, client.chat.completions.stream(model="chat", messages=USE_BOTH, tools=TOOLS) as stream:
        stream.until_done()
        message: Any = stream.get_final_completion().choices[0].message
    assert [call.function.name for call in message.tool_calls] == ["get_weather", "get_time"]
    assert all('"city"' in call.function.arguments for call in message.tool_calls)


@pytest.mark.parametrize("kind", ["openai", "azure_openai", "ollama"])
def test_structured_output_is_parsed(stage, kind):
    stage.serve(stage.standin(kind, "one"))
    with stage.sdk() as client:
        answer = client.chat.completions.parse(**CHAT, response_format=Invoice)
    assert isinstance(answer.choices[0].message.parsed, Invoice)


async def test_structured_output_is_parsed_out_of_a_stream(stage):
    stage.serve(stage.standin(name="one"))
    async with stage.async_sdk() as client, client.chat.completions.stream(**CHAT, response_format=Invoice) as stream:
        answer = await stream.get_final_completion()
    assert isinstance(answer.choices[0].message.parsed, Invoice)


def test_raw_responses_show_the_headers(stage):
    stage.serve(stage.standin(name="one"))
    with stage.sdk() as client:
        raw = client.chat.completions.with_raw_response.create(**CHAT, extra_headers={"x-request-id": "mine-1"})
    assert (raw.request_id, raw.headers["x-router-target"]) == ("mine-1", "one")
    assert raw.headers["x-router-model"] == raw.parse().model
    assert raw.headers["x-upstream-request-id"].startswith("req_")
    assert int(raw.headers["openai-processing-ms"]) >= 0


def test_models_are_listed_and_looked_up(stage):
    stage.serve(stage.standin(name="one"))
    with stage.sdk() as client:
        assert [model.id for model in client.models.list()] == ["chat", "gpt-alias", "one"]
        assert client.models.retrieve("gpt-alias").id == "gpt-alias"
        with pytest.raises(openai.NotFoundError, match=r"chat, gpt-alias, one") as caught:
            client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


REFUSALS = [
    pytest.param(Fault("content_filter"), openai.BadRequestError, "content_filter", id="400"),
    pytest.param(Fault("context_length_exceeded"), openai.BadRequestError, "context_length_exceeded", id="too long"),
    pytest.param(Fault("status", status=422), openai.UnprocessableEntityError, None, id="422"),
    pytest.param(Fault("rate_limited", retry_after=90), openai.RateLimitError, "rate_limit_exceeded", id="429"),
    pytest.param(Fault("insufficient_quota"), openai.RateLimitError, "insufficient_quota", id="429 quota"),
    pytest.param(Fault("status", status=500), openai.InternalServerError, "provider_unavailable", id="502 of 500"),
    pytest.param(Fault("status", status=503), openai.InternalServerError, "provider_unavailable", id="502 of 503"),
    pytest.param(Fault("status", status=529), openai.InternalServerError, "provider_unavailable", id="502 of 529"),
    pytest.param(Fault("unauthorized"), openai.InternalServerError, "provider_unauthorized", id="502 of 401"),
    pytest.param(Fault("status", status=404), openai.InternalServerError, "provider_model_not_found", id="502 of 404"),
    pytest.param(Fault("drop"), openai.InternalServerError, "provider_unavailable", id="502 of a reset"),
    pytest.param(Fault("invalid_json"), openai.InternalServerError, "provider_bad_reply", id="502 of half a reply"),
    pytest.param(Fault("hang"), openai.InternalServerError, "provider_timeout", id="504"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("fault", "expected", "code"), REFUSALS)
def test_a_refusal_is_raised_as_its_class(stage, fault, expected, code, stream):
    one = stage.standin(name="one", fault=fault)
    stage.serve(one, route={"retry": ONCE, "attempt_seconds": 0.15, "first_token_seconds": 0.15})
    with stage.sdk(max_retries=2) as client, pytest.raises(expected) as caught:
        client.chat.completions.create(**CHAT, stream=stream)
    assert caught.value.code == code
    assert caught.value.request_id
    by_router = 2 if fault.kind == "unauthorized" else 1  # once more with the key read anew
    assert one.asked == by_router, "the router has tried already: the SDK must not try once more"


def test_a_provider_that_throttles_without_a_word_is_waited_for_as_long_as_it_is_parked(stage):
    stage.serve(
        stage.standin(name="one", fault=Fault("rate_limited")), targets={"one": {"breaker": {"parked_seconds": 40.0}}}
    )
    with stage.sdk() as client, pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**CHAT)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["x-should-retry"] == "true"
    assert 30_000 < float(caught.value.response.headers["retry-after-ms"]) <= 40_000


def test_a_wrong_key_is_an_authentication_error(stage):
    stage.serve(stage.standin(name="one"))
    with stage.sdk(api_key="wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(**CHAT)
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_a_not_found_error_that_lists_what_exists(stage):
    stage.serve(stage.standin(name="one"))
    with stage.sdk() as client, pytest.raises(openai.NotFoundError, match=r"chat, gpt-alias, one") as caught:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_a_bad_request_names_the_place(stage):
    stage.serve(stage.standin(name="one"))
    wrong: Any = [*HELLO, {"role": "user", "content": 7}]
    with stage.sdk() as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="chat", messages=wrong)
    assert (caught.value.param, caught.value.code) == ("messages[1].content", "invalid_request")


def test_a_body_that_is_too_large_is_413_although_much_of_it_was_never_read(stage):
    one = stage.standin(name="one")
    stage.serve(one, server={"max_body_bytes": 2048})
    long: Any = [{"role": "user", "content": "x" * 5_000_000}]
    with stage.sdk() as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="chat", messages=long)
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    assert one.asked == 0


def test_a_refused_configuration_is_an_internal_server_error(stage):
    stage.serve_text("nonsense = 1\n")
    with stage.sdk() as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**CHAT)
    assert (caught.value.status_code, caught.value.code) == (503, "configuration_refused")


def test_retries_of_the_sdk_do_not_multiply_ours(stage):
    one = stage.standin(name="one", fault=Fault("status", status=503))
    two = stage.standin(name="two", fault=Fault("status", status=503))
    stage.serve(one, two, route={"retry": {"retries": 1, "backoff_seconds": 0.01}})
    with stage.sdk(max_retries=2) as client, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**CHAT)
    assert (one.asked, two.asked) == (2, 2)


def test_the_sdk_comes_back_when_a_throttled_provider_has_room_again(stage):
    one = stage.standin(name="one")
    one.fail(Fault("rate_limited", retry_after_ms=120))
    stage.serve(one, route={"retry": ONCE})
    with stage.sdk(max_retries=1) as client:
        answer = client.chat.completions.create(**CHAT)
    assert answer.choices[0].message.content == heard(one)
    first, second = one.requests
    assert 0.12 <= second.at - first.at < 2


def test_a_long_wait_is_told_and_not_waited_for(stage):
    one = stage.standin(name="one", fault=Fault("rate_limited", retry_after=90))
    stage.serve(one, route={"retry": ONCE})
    with stage.sdk(max_retries=2) as client, pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**CHAT)
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("90", "90000")
    assert (headers["x-should-retry"], one.asked) == ("false", 1)


def test_an_error_after_the_first_tokens_is_raised_and_the_tokens_are_kept(stage):
    one = stage.standin(name="one", tokens=20, fault=Fault("cut", after=6))
    stage.serve(one, stage.standin(name="two"))
    said: list[str] = []
    with stage.sdk() as client:
        stream = client.chat.completions.create(**CHAT, stream=True)
        with stream, pytest.raises(openai.APIError) as caught:
            said.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(said) == "".join(fragments(heard(one))[:5])
    assert caught.value.code == "provider_bad_reply"
    assert not isinstance(caught.value, openai.APIConnectionError)


async def test_the_async_client_keeps_the_tokens_before_an_error_too(stage):
    one = stage.standin(name="one", tokens=20, tokens_per_second=100, fault=Fault("reset", after=6))
    stage.serve(one)
    said: list[str] = []

    async def listen(stream) -> None:
        async for chunk in stream:
            said.append(chunk.choices[0].delta.content or "")

    async with stage.async_sdk() as client, await client.chat.completions.create(**CHAT, stream=True) as stream:
        with pytest.raises(openai.APIError, match="broke off"):
            await listen(stream)
    assert "".join(said), "a reset may lose the last of them, never all"
    assert heard(one).startswith("".join(said))
