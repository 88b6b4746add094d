"""A chat request answered in one piece: what the provider gets, what the caller gets back, and the headers with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local.providers import BLOCK_ANSWER, BLOCK_PROMPT
from local.standin_behaviour import Behaviour
from local.standin_openai import OpenAI
from local.standin_wire import Answer, Asked, Whole
from tests.routes_for import CHAT, CHAT_PATH, KEY, PROVIDER_KEY, heard

ODD_REPLY = (
    '{ "id":"x-1",  "object" : "chat.completion","created":1,"model":"m\\u00e9-1",\n'
    '  "choices":[{"index":0,"message":{"role":"assistant","content":"\\ud83d\\ude00 caf\\u00e9 café\\/"},'
    '"finish_reason":"stop"}],"usage":null,"big":123456789012345678901234567890,"exact":1.10,"unheard_of":{"a":[1]} }\n'
).encode()


class Odd(OpenAI):
    """Answers in JSON that nobody would write twice the same way."""

    def chat(self, asked: Asked, behaviour: Behaviour) -> Answer:
        return Whole(200, ODD_REPLY, {"x-request-id": "upstream-7", "set-cookie": "a=b", "x-secret": "no"})


def test_the_answer_comes_back_byte_for_byte(stage):
    stage.serve(stage.speaking(Odd(), "odd"))
    answer = stage.ask()
    assert (answer.status_code, answer.content) == (200, ODD_REPLY)
    assert answer.headers["content-type"] == "application/json"


def test_of_the_providers_headers_only_the_agreed_ones_are_passed_on(stage):
    stage.serve(stage.speaking(Odd(), "odd"))
    headers = stage.ask().headers
    assert headers["x-upstream-request-id"] == "upstream-7"
    assert headers["x-ratelimit-limit-requests"] == "10000"
    assert headers["x-request-id"] != "upstream-7"
    assert not {"set-cookie", "x-secret", "openai-organization"} & set(headers)


def test_a_model_name_that_no_header_can_carry_is_made_harmless(stage):
    stage.serve(stage.speaking(Odd(), "odd"))
    assert stage.ask().headers["x-router-model"] == "m?-1"


UNKNOWN_FIELDS: dict[str, Any] = {
    "temperature": 0.30000000000000004,
    "seed": 12345678901234567890,
    "logit_bias": {"50256": -100},
    "metadata": {"team": "blue"},
    "from_the_future": {"deep": [1, 2.5, None, True, {"é": "\u2028 \x00 😀"}], "empty": {}},
    "stop": ["\n\n"],
    "user": "u-1",
}


@pytest.mark.parametrize("kind", ["openai", "azure_openai", "ollama"])
def test_every_field_reaches_the_provider_but_for_the_model_and_our_own(stage, kind):
    standin = stage.standin(kind, "one")
    stage.serve(standin)
    messages = [
        {"role": "system", "content": "Be brief.", "name": "sys"},
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
    ]
    answer = stage.ask(messages=messages, router={"task": "planning"}, **UNKNOWN_FIELDS)
    assert answer.status_code == 200
    (record,) = standin.requests
    assert json.loads(record.asked.body) == {"model": "model-of-one", "messages": messages, **UNKNOWN_FIELDS}


def test_the_callers_key_never_reaches_the_provider(stage):
    standins = [stage.standin(kind, kind) for kind in ("openai", "azure_openai", "ollama")]
    stage.serve(*standins)
    with stage.http(headers={"authorization": f"Bearer {KEY}", "api-key": KEY, "cookie": "a=b"}) as client:
        for standin in standins:
            assert client.post(CHAT_PATH, json={**CHAT, "model": standin.name}).status_code == 200
    for standin in standins:
        (record,) = standin.requests
        assert KEY not in str(record.asked)
        assert "cookie" not in record.asked.headers


def test_openai_gets_its_key_as_bearer(stage):
    standin = stage.standin("openai", "one", keys=(PROVIDER_KEY,))
    stage.serve(standin)
    assert stage.ask().status_code == 200
    (record,) = standin.requests
    assert record.asked.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert record.asked.path == CHAT_PATH


def test_azure_v1_takes_the_deployment_as_model(stage):
    standin = stage.standin("azure_openai", "one", keys=(PROVIDER_KEY,))
    stage.serve(standin)
    answer = stage.ask()
    (record,) = standin.requests
    assert (record.asked.path, dict(record.asked.query)) == ("/openai/v1/chat/completions", {})
    assert record.asked.headers["api-key"] == PROVIDER_KEY
    assert "authorization" not in record.asked.headers
    assert answer.json()["prompt_filter_results"][0]["prompt_index"] == 0


def test_classic_azure_names_the_deployment_in_the_path(stage):
    standin = stage.standin("azure_openai", "one", models=("my deployment",))
    stage.serve(standin, providers={"one": {"api_version": "2024-10-21"}}, targets={"one": {"model": "my deployment"}})
    assert stage.ask().json()["model"] == "my deployment"
    (record,) = standin.requests
    assert record.asked.path == "/openai/deployments/my deployment/chat/completions"
    assert record.asked.query == {"api-version": "2024-10-21"}


def test_ollama_is_asked_without_a_key(stage):
    standin = stage.standin("ollama", "one")
    stage.serve(standin)
    assert stage.ask().json()["choices"][0]["message"]["content"] == heard(standin)
    (record,) = standin.requests
    assert not {"authorization", "api-key"} & set(record.asked.headers)


@pytest.mark.parametrize("model", ["chat", "gpt-alias", "two"], ids=["route", "alias", "target"])
def test_a_request_names_a_route_an_alias_or_a_target(stage, model):
    one, two = stage.standin(name="one"), stage.standin(name="two")
    stage.serve(one, two)
    answer = stage.ask(model=model)
    target = "two" if model == "two" else "one"
    assert answer.json()["model"] == f"model-of-{target}"
    assert answer.headers["x-router-target"] == target


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_the_headers_tell_the_decision_and_agree_with_the_body(stage, stream):
    one, two = stage.standin(name="one"), stage.standin(name="two")
    stage.serve(one, two)
    answer = stage.ask(stream=stream, router={"only": ["two"], "task": "CodeGeneration"})
    headers = answer.headers
    assert headers["x-router-target"] == "two"
    assert headers["x-router-model"] == "model-of-two"
    assert '"model":"model-of-two"' in answer.text
    assert '"model":"model-of-one"' not in answer.text
    assert headers["x-router-task"] == "code_generation"
    assert headers["x-router-strategy"] == "task"
    assert headers["x-router-attempts"] == "1"
    assert headers["x-router-decision-id"].startswith("dec_")
    assert 0 <= float(headers["x-router-overhead-ms"]) < 1_000


def test_a_content_filters_refusal_is_passed_on_with_its_reasons(stage):
    stage.serve(stage.standin("azure_openai", "one"), stage.standin(name="two"))
    answer = stage.ask(messages=[{"role": "user", "content": BLOCK_PROMPT}])
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "content_filter", "prompt")
    assert error["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert error["innererror"]["content_filter_result"]["violence"]["filtered"] is True
    assert answer.headers["x-should-retry"] == "false"


def test_a_content_filters_refusal_moves_on_where_the_route_allows_it(stage):
    one, two = stage.standin("azure_openai", "one"), stage.standin(name="two")
    stage.serve(one, two, route={"fallback": {"on_content_refused": True}})
    answer = stage.ask(messages=[{"role": "user", "content": BLOCK_PROMPT}])
    assert (answer.status_code, answer.headers["x-router-target"]) == (200, "two")
    assert answer.headers["x-router-attempts"] == "2"


def test_an_answer_withheld_by_a_filter_is_an_answer(stage):
    one, two = stage.standin("azure_openai", "one"), stage.standin(name="two")
    stage.serve(one, two)
    answer = stage.ask(messages=[{"role": "user", "content": BLOCK_ANSWER}])
    assert answer.json()["choices"][0]["finish_reason"] == "content_filter"
    assert two.asked == 0


def test_several_choices_come_back_together(stage):
    stage.serve(stage.standin(name="one"))
    assert [choice["index"] for choice in stage.ask(n=3).json()["choices"]] == [0, 1, 2]


def test_an_address_with_a_slash_at_its_end_is_the_same_address(stage):
    standin = stage.standin("azure_openai", "one")
    stage.serve(standin, providers={"one": {"endpoint": f"{standin.url}/"}})
    assert stage.ask().status_code == 200
    assert standin.requests[0].asked.path == "/openai/v1/chat/completions"
