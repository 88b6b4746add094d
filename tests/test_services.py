"""Services that imitate OpenAI: each gets what it takes, in its own words, and what had to go is told."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from local.standin_behaviour import Behaviour
from local.standin_openai import OpenAI
from local.standin_wire import Answer, Asked, Whole
from routing import config
from routing.errors import Misconfigured
from routing.providers.quirks import Quirks, shaped
from routing.providers.services import SERVICES
from tests.routes_for import CHAT, CHAT_PATH, HELLO, PROVIDER_KEY, events, heard, text_of
from tools import services as tool

EVERYTHING: dict[str, Any] = {
    "messages": [{"role": "developer", "content": "Be brief.", "name": "boss"}, *HELLO],
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "logit_bias": {"7": 1},
    "logprobs": True,
    "top_logprobs": 2,
    "metadata": {"team": "blue"},
    "n": 2,
    "parallel_tool_calls": False,
    "seed": 7,
    "service_tier": "flex",
    "store": True,
    "max_completion_tokens": 3,
}
_MISTRAL = (
    "only:model messages temperature top_p max_tokens stream stop random_seed metadata response_format tools "
    "tool_choice presence_penalty frequency_penalty n prediction parallel_tool_calls reasoning_effort "
    "prompt_mode guardrails prompt_cache_key safe_prompt"
)
_PENALTIES = ("frequency_penalty", "presence_penalty")
# What the real one refuses or overlooks, and what of EVERYTHING has to go: docs/services.md has the sources.
CASES: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "cerebras": (
        ("role:developer", *_PENALTIES, "logit_bias", "parallel_tool_calls", "service_tier"),
        {*_PENALTIES, "logit_bias", "parallel_tool_calls", "service_tier"},
    ),
    "deepseek": (("role:developer", "overlooks:max_completion_tokens"), set()),
    "fireworks": ((), set()),
    "gemini": (("frequency_penalty", "seed"), {"frequency_penalty", "seed"}),
    "groq": (
        ("logit_bias", "logprobs", "top_logprobs", "messages[].name", "metadata", "n>1"),
        {"logit_bias", "logprobs", "top_logprobs", "messages[].name", "metadata", "n"},
    ),
    "llamacpp": (("role:developer",), set()),
    "lmstudio": (("role:developer",), set()),
    "mistral": (
        ("role:developer", _MISTRAL),
        {"logit_bias", "logprobs", "top_logprobs", "service_tier", "store"},
    ),
    "ollama": (
        ("overlooks:logit_bias", "overlooks:n", "overlooks:max_completion_tokens", "role:developer"),
        {"logit_bias", "metadata", "n", "parallel_tool_calls", "service_tier", "store"},
    ),
    "openrouter": ((), set()),
    "together": (("overlooks:max_completion_tokens",), set()),
    "vllm": (("role:developer",), set()),
    "xai": (_PENALTIES, set(_PENALTIES)),
}
REFUSED = [
    (name, quirk) for name, (quirks, _) in CASES.items() for quirk in quirks if not quirk.startswith("overlooks:")
]


ONE_HOST = pytest.mark.parametrize("serve_app", ["local_host"], indirect=True)  # the host has no part in this


def sent_to(standin) -> dict[str, Any]:
    return json.loads(standin.requests[-1].asked.body)


def test_every_service_has_its_case():
    assert set(CASES) == set(SERVICES)


@ONE_HOST
@pytest.mark.parametrize(("name", "quirk"), REFUSED, ids=[f"{name} {quirk[:30]}" for name, quirk in REFUSED])
def test_without_its_row_a_service_refuses(stage, name, quirk):
    stage.serve(stage.standin(name="one", quirks=(quirk,)))
    answer = stage.ask(**EVERYTHING)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_parameter")


@ONE_HOST
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("name", CASES)
def test_with_its_row_a_service_answers_and_what_had_to_go_is_told(stage, name, stream):
    quirks, gone = CASES[name]
    one = stage.standin(name="one", quirks=quirks)
    stage.serve(one, providers={"one": {"service": name}})
    answer = stage.ask(**EVERYTHING, stream=stream)
    assert answer.status_code == 200, answer.text
    assert set(filter(None, answer.headers.get("x-router-dropped", "").split(", "))) == gone
    assert one.requests[-1].asked.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    last = events(answer.text)[-2] if stream else answer.json()
    assert last["choices"][0]["finish_reason"] == "length"  # the limit was understood


@ONE_HOST
@pytest.mark.parametrize("name", CASES)
def test_a_plain_request_is_the_same_everywhere(stage, name):
    one = stage.standin(name="one", quirks=CASES[name][0])
    stage.serve(one, providers={"one": {"service": name}})
    harmless = {"n": 1, "store": False, "frequency_penalty": 0, "logprobs": False, "seed": None}
    answer = stage.ask(temperature=0.5, **harmless)
    assert (answer.status_code, "x-router-dropped" in answer.headers) == (200, False)
    assert sent_to(one).items() >= {"model": "model-of-one", "messages": HELLO, "temperature": 0.5}.items()


@ONE_HOST
def test_words_are_put_in_those_of_the_service(stage):
    one = stage.standin(name="one")
    stage.serve(one, providers={"one": {"service": "mistral"}})
    stage.ask(**EVERYTHING)
    sent = sent_to(one)
    assert (sent["random_seed"], sent["max_tokens"], sent["messages"][0]["role"]) == (7, 3, "system")
    assert not {"seed", "max_completion_tokens", "store"} & set(sent)


def described(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}


@ONE_HOST
@pytest.mark.parametrize(
    ("choice", "offered", "dropped"),
    [
        pytest.param("auto", ["a", "b"], None, id="auto"),
        pytest.param("required", ["a", "b"], "tool_choice", id="required"),
        pytest.param({"type": "function", "function": {"name": "b"}}, ["b"], "tool_choice", id="one"),
        pytest.param({"type": "allowed_tools", "allowed_tools": {}}, ["a", "b"], "tool_choice", id="allowed"),
        pytest.param("none", [], None, id="none"),
    ],
)
def test_where_no_tool_can_be_chosen_those_are_offered_that_come_near_it(stage, choice, offered, dropped):
    one = stage.standin("ollama", "one")
    stage.serve(one, targets={"one": {"supports": ["tools"]}})
    answer = stage.ask(tools=[described("a"), described("b")], tool_choice=choice)
    assert (answer.status_code, answer.headers.get("x-router-dropped")) == (200, dropped)
    assert [entry["function"]["name"] for entry in sent_to(one).get("tools", ())] == offered


@ONE_HOST
def test_ollama_gets_the_limit_and_the_instructions_that_it_would_overlook(stage):
    one = stage.standin("ollama", "one")
    stage.serve(one)
    answer = stage.ask(messages=[{"role": "developer", "content": "Be brief."}, *HELLO], max_completion_tokens=2)
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert sent_to(one)["messages"][0] == {"role": "system", "content": "Be brief."}


@ONE_HOST
def test_a_role_is_told_once_however_often_a_service_repeats_it(stage):
    one = stage.standin("ollama", "one")
    stage.serve(one)
    chunks = events(stage.ask(stream=True).text)[:-1]
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert text_of(chunks) == heard(one)


@ONE_HOST
def test_a_service_without_stream_options_is_not_asked_for_usage(stage):
    one = stage.standin(name="one", quirks=("stream_options",))
    stage.serve(one, providers={"one": {"quirks": {"refuses": ["stream_options"]}}})
    answer = stage.ask(stream=True)
    assert (answer.status_code, "x-router-dropped" in answer.headers) == (200, False)
    answer = stage.ask(stream=True, stream_options={"include_usage": True})
    assert (answer.status_code, answer.headers["x-router-dropped"]) == (200, "stream_options")


@ONE_HOST
def test_vectors_are_asked_for_in_the_words_of_the_service(stage):
    only = "only:model input metadata output_dimension output_dtype encoding_format"
    one = stage.standin(name="one", quirks=(only,))
    targets = {"one": {"supports": ["embeddings"]}}
    stage.serve(one, providers={"one": {"service": "mistral"}}, targets=targets)
    with stage.http() as client:
        asked = {"model": "chat", "input": ["a"], "user": "u"}
        answer = client.post("/v1/embeddings", json=asked)
        client.post("/v1/embeddings", json={**asked, "dimensions": 8})
    assert (answer.status_code, answer.headers["x-router-dropped"]) == (200, "user")
    assert sent_to(one)["output_dimension"] == 8


class Listing(OpenAI):
    """Wraps its errors in a list, as Gemini does."""

    def chat(self, asked: Asked, behaviour: Behaviour) -> Answer:
        return Whole(400, b'[{"error": {"code": 400, "message": "Unknown name \\"top_k\\"", "status": "INVALID"}}]')


@ONE_HOST
def test_an_error_in_a_list_is_read(stage):
    stage.serve(stage.speaking(Listing(), "one"))
    answer = stage.ask()
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, 'Unknown name "top_k"')


# --- the routes file

FILE = '[targets.t]\nprovider = "p"\nmodel = "m"\n[providers.p]\ntype = "openai"\n'


def provider(text: str) -> Any:
    return config.parse(FILE + text, {}).file.providers["p"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_brings_its_address_and_its_key(name):
    row = SERVICES[name]
    built = provider(f'service = "{name}"')
    assert str(built.base_url) == row.base_url
    assert built.key == (f"env:{row.key}" if row.key else None)


def test_what_is_said_comes_before_the_row():
    built = provider('service = "groq"\nkey = "keyvault:groq"\nquirks = { refuses = ["user"] }')
    assert (str(built.base_url), built.key) == (SERVICES["groq"].base_url, "keyvault:groq")
    assert built.quirks.over(SERVICES["groq"].quirks) == Quirks(refuses=frozenset({"user"}))
    assert built.quirks.over(SERVICES["mistral"].quirks).roles == {"developer": "system"}


def test_an_address_of_ones_own_gets_no_key_that_was_not_said():
    built = provider('service = "groq"\nbase_url = "https://proxy.example/v1"')
    assert (str(built.base_url), built.key) == ("https://proxy.example/v1", None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('service = "grok"', f'providers.p.service: no service "grok"; services are {", ".join(SERVICES)}'),
        ("service = 7", "providers.p.service: Input should be a valid string"),
        ("service = []", "providers.p.service: Input should be a valid string"),
        ('quirks = { refuse = ["n"] }', "providers.p.quirks.refuse: unknown key; did you mean 'refuses'?"),
        ('quirks = { refuses = "n" }', "providers.p.quirks.refuses: Input should be a valid list"),
    ],
)
def test_a_wrong_row_is_refused_with_its_path(text, error):
    with pytest.raises(Misconfigured) as refused:
        provider(text)
    assert refused.value.errors == (error,)


# --- the data


def test_the_page_is_what_the_table_says():
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(), "run `python -m tools.services`"


@pytest.mark.parametrize("name", SERVICES)
def test_a_row_can_be_followed(name):
    row = SERVICES[name]
    address = httpx.URL(row.base_url)
    assert (address.scheme == "https") != (address.host == "127.0.0.1")
    assert (row.key is None) == (address.host == "127.0.0.1")
    assert row.base_url.rstrip("/") == row.base_url
    assert row.sources
    assert all(source.startswith("https://") for source in row.sources)
    assert "2026-01-01" <= row.checked <= "2027-12-31"


@pytest.mark.parametrize(
    ("fields", "quirks", "sent", "dropped"),
    [
        ({"a": 1}, Quirks(), {"a": 1}, ()),
        ({"a": 1, "b": None}, Quirks(refuses=frozenset("ab")), {}, ("a",)),
        ({"a": 1, "b": 2}, Quirks(renames={"a": "b"}), {"b": 2}, ()),
        ({"b": 2, "a": None}, Quirks(renames={"a": "b"}), {"b": 2}, ()),
        ({"a": 1, "c": 3}, Quirks(renames={"a": "b"}, knows=frozenset("b")), {"b": 1}, ("c",)),
        ({"messages": "odd"}, Quirks(roles={"x": "y"}), {"messages": "odd"}, ()),
        (
            {"messages": [{"role": "x", "name": "n"}, {"role": "z", "name": "n"}]},
            Quirks(roles={"x": "y"}, refuses=frozenset({"messages[].name"})),
            {"messages": [{"role": "y"}, {"role": "z"}]},
            ("messages[].name",),
        ),
    ],
)
def test_a_request_is_shaped(fields, quirks, sent, dropped):
    before = json.dumps(fields)
    assert shaped(fields, quirks) == (sent, dropped)
    assert json.dumps(fields) == before


@ONE_HOST
def test_the_callers_own_request_goes_to_the_next_target_unshaped(stage):
    one = stage.standin(name="one", keys=("another",))
    two = stage.standin(name="two")
    stage.serve(one, two, providers={"one": {"service": "groq"}})
    with stage.http() as client:
        answer = client.post(CHAT_PATH, json={**CHAT, **EVERYTHING})
    assert (answer.headers["x-router-target"], "x-router-dropped" in answer.headers) == ("two", False)
    assert sent_to(two) == {**CHAT, **EVERYTHING, "model": "model-of-two"}
