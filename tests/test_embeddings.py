"""Vectors and text completions: the same walk as chat, and vectors of one space only."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from local.providers import Fault
from local.standin_behaviour import Behaviour
from local.standin_openai import OpenAI
from local.standin_wire import Answer, Asked, Whole
from routing import config
from routing.errors import InvalidRequest, Misconfigured
from routing.requests import CompletionRequest, EmbeddingRequest
from tests.routes_for import KEY, ONCE, events

PATH, COMPLETIONS = "/v1/embeddings", "/v1/completions"
EMBEDS = {"supports": ["embeddings"], "embedding_space": "small", "price": {"input": 20, "output": 0}}
TWO = {"one": EMBEDS, "two": EMBEDS}
COMPLETES = {"supports": ["completions"]}


def embed(stage, path: str = PATH, **fields: Any):
    with stage.http() as client:
        return client.post(path, json={"model": "chat", **fields})


# --- what goes there and what comes back


@pytest.mark.parametrize("kind", ["openai", "azure_openai", "ollama"])
def test_the_official_client_gets_its_vectors_and_we_the_usage(stage, kind):
    one = stage.standin(kind, name="one")
    stage.serve(one, targets=TWO)
    with stage.sdk() as client:
        raw = client.embeddings.with_raw_response.create(model="chat", input=["red", "green", "red"], dimensions=4)
    first, second, third = (entry.embedding for entry in raw.parse().data)
    assert len(first) == 4
    assert (first == third, first == second) == (True, False)
    assert raw.headers["x-router-target"] == "one"
    assert raw.headers["x-router-cost-usd"] == "0.000080"  # of four tokens, by the target's price
    assert "x-router-max-tokens" not in raw.headers


@pytest.mark.parametrize("given", ["a text", ["one", "two"], [5, 6, 7], [[5], [6, 7]]], ids=json.dumps)
@pytest.mark.parametrize("form", ["float", "base64", None])
def test_every_form_of_input_and_output_passes_through(stage, given, form):
    one = stage.standin(name="one")
    stage.serve(one, targets=TWO)
    asked = {"input": given, "user": "u", "unheard_of": {"a": [1]}} | ({"encoding_format": form} if form else {})
    answer = embed(stage, **asked).json()
    assert json.loads(one.requests[-1].asked.body) == {"model": "model-of-one", **asked}
    vectors = [entry["embedding"] for entry in answer["data"]]
    assert len(vectors) == (2 if isinstance(given[0], list) or given == ["one", "two"] else 1)
    if form == "base64":
        assert len(struct.unpack("<16f", base64.b64decode(vectors[0]))) == 16
    else:
        assert len(vectors[0]) == 16


@pytest.mark.parametrize(("path", "kind"), [(PATH, "embeddings"), (COMPLETIONS, "completions")])
def test_azures_classic_address_names_the_deployment(stage, path, kind):
    one = stage.standin("azure_openai", name="one")
    classic = {"one": {"api_version": "2024-10-21"}}
    stage.serve(one, providers=classic, targets={"one": {"supports": ["embeddings", "completions"]}})
    assert embed(stage, path, input="x", prompt="x").status_code == 200
    assert one.requests[-1].asked.path == f"/openai/deployments/model-of-one/{kind}"


def test_a_ceiling_keeps_out_vectors_that_cost_more(stage):
    one = stage.standin(name="one")
    stage.serve(one, targets=TWO)
    error = embed(stage, input="many words " * 50, router={"max_cost_usd": 0.0001}).json()["error"]
    assert (error["param"], error["code"], one.asked) == ("router.max_cost_usd", "over_ceiling", 0)
    assert embed(stage, input="x", router={"max_cost_usd": 0.0001}).status_code == 200


def test_the_next_target_of_the_same_space_stands_in(stage):
    one, two = stage.standin(name="one", fault=Fault("status", status=503)), stage.standin(name="two")
    stage.serve(one, two, targets=TWO, route={"retry": ONCE})
    answer = embed(stage, input="x")
    assert (answer.status_code, answer.headers["x-router-target"], answer.headers["x-router-attempts"]) == (
        200,
        "two",
        "2",
    )


def test_a_breaker_opens_for_vectors_as_for_chat(stage):
    one, two = stage.standin(name="one", fault=Fault("status", status=500)), stage.standin(name="two")
    stage.serve(one, two, targets=TWO, route={"retry": ONCE})
    for _ in range(6):
        assert embed(stage, input="x").status_code == 200
    assert (one.asked, two.asked) == (5, 6)


def test_the_cheapest_target_that_fits_is_asked(stage):
    one, two = stage.standin(name="one"), stage.standin(name="two")
    cheap = {**EMBEDS, "price": {"input": 1, "output": 0}}
    stage.serve(one, two, targets={"one": EMBEDS, "two": cheap}, route={"strategy": "cost"})
    assert embed(stage, input="x").headers["x-router-target"] == "two"


def test_a_context_has_to_hold_each_input_and_not_all_of_them(stage):
    stage.serve(stage.standin(name="one"), targets={"one": {**EMBEDS, "context": 100}})
    text = "word " * 80
    assert embed(stage, input=[text] * 5).status_code == 200
    refused = embed(stage, input=[text, text * 2])
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")
    assert refused.json()["error"]["code"] == "context_length_exceeded"


def test_a_model_that_overlooks_dimensions_is_passed_over_and_stays_healthy(stage):
    one, two = stage.standin(name="one", quirks=("overlooks:dimensions",)), stage.standin(name="two")
    stage.serve(one, two, targets=TWO)
    for _ in range(7):
        answer = embed(stage, input="x", dimensions=4)
        assert (len(answer.json()["data"][0]["embedding"]), answer.headers["x-router-target"]) == (4, "two")
    assert one.asked == 7
    stage.serve(one, targets=TWO)
    alone = embed(stage, input="x", dimensions=4, encoding_format="base64")
    assert (alone.status_code, alone.json()["error"]["code"]) == (502, "provider_ignores_dimensions")


class Replying(OpenAI):
    """Answers a request for vectors with what it was made with."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def embed(self, asked: Asked, behaviour: Behaviour) -> Answer:
        return Whole(200, self._body)


ODD = b'{ "object":"list","data":[{"embedding":[0.10,1e-7],"index":0}],  "model":"m\\u00e9" ,"usage":null}\n'


def test_a_reply_comes_back_byte_for_byte(stage):
    stage.serve(stage.speaking(Replying(ODD), "one"), targets=TWO)
    assert embed(stage, input="x").content == ODD


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b'{"data": []}', {}),
        (b'{"object": "list"}', {}),
        (b"[]", {}),
        (b'{"data": [', {}),
        (ODD, {"input": ["a", "b"]}),
        (b'{"data": [{"embedding": "AAAA*"}]}', {"dimensions": 4}),
        (b'{"error": {"code": 503, "message": "busy"}}', {}),
    ],
)
def test_a_reply_without_the_vectors_fails_over(stage, body, fields):
    two = stage.standin(name="two")
    stage.serve(stage.speaking(Replying(body), "one"), two, targets=TWO, route={"retry": ONCE})
    answer = embed(stage, **{"input": "x", **fields})
    assert (answer.status_code, answer.headers["x-router-target"]) == (200, "two")


# --- what is refused


@pytest.mark.parametrize(
    ("shape", "fields", "place"),
    [
        (EmbeddingRequest, {}, "input"),
        (EmbeddingRequest, {"input": None}, "input"),
        (EmbeddingRequest, {"input": 7}, "input"),
        (EmbeddingRequest, {"input": {}}, "input"),
        (EmbeddingRequest, {"input": []}, "input"),
        (EmbeddingRequest, {"input": [[]]}, "input[0]"),
        (EmbeddingRequest, {"input": ["a", 7]}, "input[1]"),
        (EmbeddingRequest, {"input": [7, "a"]}, "input[1]"),
        (EmbeddingRequest, {"input": [7, -1]}, "input[1]"),
        (EmbeddingRequest, {"input": [[7], [True]]}, "input[1][0]"),
        (EmbeddingRequest, {"input": [{"text": "a"}]}, "input[0]"),
        (EmbeddingRequest, {"input": "a", "dimensions": 0}, "dimensions"),
        (EmbeddingRequest, {"input": "a", "encoding_format": "hex"}, "encoding_format"),
        (EmbeddingRequest, {"input": "a", "router": {"tusk": 1}}, "router.tusk"),
        (CompletionRequest, {}, "prompt"),
        (CompletionRequest, {"prompt": ["a", None]}, "prompt[1]"),
        (CompletionRequest, {"prompt": "a", "max_tokens": -1}, "max_tokens"),
        (CompletionRequest, {"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_a_wrong_field_is_named(shape, fields, place):
    with pytest.raises(InvalidRequest) as refused:
        shape.parse(json.dumps({"model": "m", **fields}).encode())
    assert refused.value.param == place


@pytest.mark.parametrize("path", [PATH, COMPLETIONS])
def test_without_a_key_there_is_nothing(stage, path):
    one = stage.standin(name="one")
    stage.serve(one, targets={"one": {"supports": ["embeddings", "completions"]}})
    with stage.http(headers={}) as client:
        assert client.post(path, json={"model": "chat", "input": "x", "prompt": "x"}).status_code == 401
        wrong = client.post(path, content=b"{", headers={"authorization": f"Bearer {KEY}"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_json")
    assert one.asked == 0


def test_a_chat_model_makes_no_vectors_and_a_vector_model_no_chat(stage):
    one, two = stage.standin(name="one"), stage.standin(name="two")
    stage.serve(one, two, targets={"two": EMBEDS})
    refused = embed(stage, model="one", input="x").json()["error"]
    assert (refused["param"], refused["code"]) == ("model", "no_suitable_target")
    assert "one: lacks embeddings" in refused["message"]
    refused = stage.ask(model="two").json()["error"]
    assert (refused["code"], "two: makes embeddings only" in refused["message"]) == ("no_suitable_target", True)
    assert stage.ask().headers["x-router-target"] == "one"
    assert embed(stage, input="x").headers["x-router-target"] == "two"
    assert (one.asked, two.asked) == (1, 1)


PROVIDER = '[providers.p]\ntype = "ollama"\n[providers.a]\ntype = "anthropic"\nkey = "env:K"\n'


def errors_of(text: str) -> list[str]:
    with pytest.raises(Misconfigured) as refused:
        config.parse(PROVIDER + text, {})
    return list(refused.value.errors)


def target(name: str, space: str | None, supports: str = '["embeddings"]', provider: str = "p") -> str:
    stated = f'embedding_space = "{space}"\n' if space else ""
    return f'[targets.{name}]\nprovider = "{provider}"\nmodel = "m"\nsupports = {supports}\n{stated}'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            target("x", "s") + target("y", "t") + '[routes.r]\ntargets = ["x", "y"]',
            'routes.r.targets[1]: has the embedding_space "t", the first target "s"; a route is for one of them',
        ),
        (
            target("x", "s") + target("y", None) + '[routes.r]\ntargets = ["x", "y"]',
            "routes.r.targets[1]: states no embedding_space; targets of one route must make the same vectors",
        ),
        (
            target("x", None) + target("y", "s") + '[routes.r]\ntargets = ["x", "y"]',
            "routes.r.targets[0]: states no embedding_space; targets of one route must make the same vectors",
        ),
        (
            target("x", "s")
            + target("y", "t")
            + '[routes.r]\ntargets = ["x"]\n[routes.r.groups.g]\ntargets = ["x", "y"]\n'
            + '[callers.c]\nkey = "env:C"\ngroups = ["g"]',
            'routes.r.groups.g.targets[1]: has the embedding_space "t", '
            'the first target "s"; a route is for one of them',
        ),
        (target("x", "s", '["tools"]'), 'targets.x.embedding_space: needs "embeddings" among supports'),
        (
            target("x", None, '["tools", "embeddings"]', "a"),
            "targets.x.supports[1]: a provider of type anthropic has no embeddings",
        ),
    ],
    ids=["two spaces", "none in one", "none in the first", "for a group", "no vectors", "anthropic"],
)
def test_a_file_that_would_mix_vectors_is_refused_with_the_place(text, error):
    assert errors_of(text) == [error]


def test_one_target_of_its_own_need_not_state_a_space_and_chat_targets_do_not_count():
    text = target("x", None) + target("y", None, '["tools"]') + '[routes.r]\ntargets = ["x", "y"]'
    assert [each.name for each in config.parse(PROVIDER + text, {}).routes["r"].targets] == ["x", "y"]


# --- text completions


@pytest.mark.parametrize("kind", ["openai", "azure_openai", "ollama"])
def test_a_text_completion_passes_through(stage, kind):
    one = stage.standin(kind, name="one")
    stage.serve(one, targets={"one": COMPLETES})
    with stage.sdk() as client:
        answer = client.completions.create(model="chat", prompt=["A", "B"], max_tokens=40)
    assert [choice.text for choice in answer.choices] == [
        " and one (model-of-one) goes on from: A",
        " and one (model-of-one) goes on from: B",
    ]
    assert (answer.object, answer.usage.prompt_tokens) == ("text_completion", 2)


def test_a_text_completion_streams_and_fails_over_before_its_first_words(stage):
    one, two = stage.standin(name="one", fault=Fault("error_event")), stage.standin(name="two")
    stage.serve(one, two, targets={"one": COMPLETES, "two": COMPLETES}, route={"retry": ONCE})
    answer = embed(stage, COMPLETIONS, prompt="Once", stream=True)
    said = events(answer.text)
    assert "".join(event["choices"][0]["text"] for event in said[:-1]) == " and two (model-of-two) goes on from: Once"
    assert (said[-1], answer.headers["x-router-target"], "usage" in said[-2]) == ("[DONE]", "two", False)
    assert json.loads(two.requests[-1].asked.body)["stream_options"] == {"include_usage": True}


def test_a_text_completion_that_is_cut_ends_in_an_error(stage):
    stage.serve(stage.standin(name="one", fault=Fault("cut", after=2)), targets={"one": COMPLETES})
    said = events(embed(stage, COMPLETIONS, prompt="Once", stream=True).text)
    assert (said[-1]["error"]["code"], said[-1]["delivered_tokens"]) == ("provider_bad_reply", 2)


def test_a_ceiling_shortens_a_text_completion(stage):
    one = stage.standin(name="one")
    stage.serve(one, targets={"one": {**COMPLETES, "price": {"input": 1, "output": 1000}}})
    answer = embed(stage, COMPLETIONS, prompt="Once", max_tokens=1000, router={"max_cost_usd": 0.5})
    limit = json.loads(one.requests[-1].asked.body)["max_tokens"]
    assert (answer.status_code, answer.headers["x-router-max-tokens"]) == (200, str(limit))
    assert 400 < limit < 500


def test_where_there_are_no_text_completions_the_error_says_what_to_use(stage):
    one = stage.standin(name="one")
    stage.serve(one)
    error = embed(stage, COMPLETIONS, prompt="Once").json()["error"]
    assert (error["param"], error["code"]) == ("model", "no_suitable_target")
    assert "Use POST /v1/chat/completions" in error["message"]
    assert one.asked == 0
