"""What can be asked for: routes, aliases and targets, with what the router knows of them and the caller may see."""

from __future__ import annotations

from typing import Any

import pytest

from routing.catalogue import CREATED
from routing.pricing import ROUTES_FILE
from tests.routes_for import KEY

FILE = """
[providers.near]
type = "ollama"
[providers.far]
type = "openai"
key = "env:ROUTER_TEST_PROVIDER"

[targets.small]
provider = "near"
model = "llama"
context = 8_000
supports = ["tools"]
price = { input = 0, output = 0 }
quality = { default = 0.5, planning = 0.25 }

[targets.large]
provider = "far"
model = "gpt-5-mini"
context = 200_000
max_output = 9_000
supports = ["tools", "vision"]

[targets.unpriced]
provider = "far"
model = "of-ones-own"

[targets.vectors]
provider = "near"
model = "nomic"
supports = ["embeddings"]
embedding_space = "nomic-1.5"

[routes.auto]
strategy = "cost"
targets = ["small", "large"]
[routes.secret]
targets = ["unpriced"]
[routes.auto.groups.staff]
targets = ["large"]

[aliases]
"gpt/4o" = "auto"

[callers.clerk]
key = "env:ROUTER_TEST_PROVIDER"
groups = ["staff"]
[callers.tester]
key = "env:ROUTER_TEST_CALLER"
"""


def served(stage, more: str = "") -> None:
    stage.serve_text(FILE + more)


def get(stage, path: str) -> Any:
    with stage.http() as client:
        return client.get(path)


def listed(stage) -> dict[str, Any]:
    return {entry["id"]: entry for entry in get(stage, "/v1/models").json()["data"]}


def test_everything_that_can_be_asked_for_is_listed_as_openai_lists_models(stage):
    served(stage)
    with stage.sdk() as client:
        models = {model.id: model for model in client.models.list()}
    assert sorted(models) == ["auto", "gpt/4o", "large", "secret", "small", "unpriced", "vectors"]
    assert {(model.object, model.created) for model in models.values()} == {("model", CREATED)}
    assert [models[name].owned_by for name in ("auto", "gpt/4o", "large", "small")] == [
        "llm-router",
        "llm-router",
        "far",
        "near",
    ]


def test_a_target_is_described(stage):
    served(stage)
    small, vectors = listed(stage)["small"]["router"], listed(stage)["vectors"]["router"]
    price = {"input": 0.0, "output": 0.0, "cached_input": None, "cache_write": None, "reasoning": None}
    assert small == {
        "kind": "target",
        "route": "small",
        "strategy": None,
        "targets": ["small"],
        "context": 8_000,
        "max_output": None,
        "supports": ["tools"],
        "embedding_space": None,
        "price": {"small": {**price, "version": ROUTES_FILE}},
        "quality": {"small": {"default": 0.5, "planning": 0.25}},
    }
    assert (vectors["supports"], vectors["embedding_space"]) == (["embeddings"], "nomic-1.5")


def test_a_route_has_what_any_of_its_targets_has(stage):
    served(stage)
    about = listed(stage)["auto"]["router"]
    assert (about["kind"], about["route"], about["strategy"]) == ("route", "auto", "cost")
    assert about["targets"] == ["small", "large"]
    assert (about["context"], about["max_output"], about["supports"]) == (200_000, 9_000, ["tools", "vision"])
    assert set(about["price"]) == set(about["quality"]) == {"small", "large"}


def test_prices_are_those_of_the_table_or_unknown_and_never_zero(stage):
    served(stage)
    models = listed(stage)
    price = models["large"]["router"]["price"]["large"]
    assert price["input"] > 0 < price["output"]
    assert price["version"].startswith("20")
    assert models["unpriced"]["router"]["price"] == {"unpriced": None}


def test_an_alias_says_what_it_leads_to(stage):
    served(stage)
    models = listed(stage)
    alias, route = models["gpt/4o"]["router"], models["auto"]["router"]
    assert alias == {**route, "kind": "alias"}
    assert alias["route"] == "auto"


@pytest.mark.parametrize("name", ["auto", "small", "gpt/4o", "gpt%2F4o"])
def test_one_model_is_described_as_in_the_list(stage, name):
    served(stage)
    answer = get(stage, f"/v1/models/{name}")
    assert answer.status_code == 200
    assert answer.json() == listed(stage)[name.replace("%2F", "/")]


def test_the_official_client_finds_one_model(stage):
    served(stage)
    with stage.sdk() as client:
        assert client.models.retrieve("auto").to_dict()["router"]["targets"] == ["small", "large"]


def test_a_model_that_is_not_there_is_404(stage):
    served(stage)
    answer = get(stage, "/v1/models/gpt-9")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_caller_sees_only_the_routes_that_are_its_own(stage):
    served(stage, 'routes = ["auto"]\n')
    assert sorted(listed(stage)) == ["auto", "gpt/4o"]
    assert get(stage, "/v1/models/secret").status_code == 403
    assert get(stage, "/v1/models/small").status_code == 403


def test_a_caller_sees_only_the_targets_that_may_answer_it(stage):
    served(stage, 'targets = ["large"]\n')
    models = listed(stage)
    assert sorted(models) == ["auto", "gpt/4o", "large"]
    assert models["auto"]["router"]["targets"] == ["large"]
    assert set(models["auto"]["router"]["price"]) == {"large"}
    assert get(stage, "/v1/models/secret").status_code == 403


def test_a_caller_sees_a_route_as_it_is_for_its_group(stage):
    served(stage, 'groups = ["staff"]\n')
    assert listed(stage)["auto"]["router"]["targets"] == ["large"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/auto"])
def test_without_a_key_nothing_is_told(stage, path):
    served(stage)
    with stage.http(headers={}) as client:
        assert client.get(path).status_code == 401
    with stage.http(headers={"authorization": f"Bearer {KEY}x"}) as client:
        assert client.get(path).status_code == 401
