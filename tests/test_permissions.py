"""What a caller may: its keys, its groups, the routes it may ask for and the targets that may answer it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from routing.config import Config, parse
from routing.credentials import caller_keys, unusable
from routing.errors import Forbidden, Misconfigured
from routing.types import Caller
from tests.routes_for import CHAT, CHAT_PATH, HELLO, KEY, PROVIDER_KEY, Stage

FILE = """
[providers.p]
type = "openai"
[targets.a]
provider = "p"
model = "m"
[targets.b]
provider = "p"
model = "n"
[routes.auto]
targets = ["a", "b"]
[routes.other]
targets = ["b"]
[routes.auto.groups.team]
targets = ["b", "a"]
[aliases]
alias = "auto"
[callers.free]
key = "env:FREE"
[callers.some]
keys = ["env:SOME_1", "keyvault:some/abc123"]
routes = ["auto", "a"]
groups = ["team", "night"]
[callers.one]
key = "env:ONE"
targets = ["a"]
"""


@pytest.fixture(scope="module")
def loaded() -> Config:
    return parse(FILE, {})


def test_every_key_is_its_callers(loaded: Config) -> None:
    names = {reference: caller.name for reference, caller in caller_keys(loaded).items()}
    assert names == {
        "env:FREE": "free",
        "env:SOME_1": "some",
        "keyvault:some/abc123": "some",
        "env:ONE": "one",
    }
    assert ("callers.some.keys[1]", "keyvault:some/abc123") in loaded.references()


def test_a_caller_is_what_the_file_says(loaded: Config) -> None:
    assert loaded.callers["free"] == Caller("free")
    assert loaded.callers["some"] == Caller("some", "user", ("team", "night"), routes=frozenset({"auto", "a"}))


ALLOWED = [
    ("free", ["a", "alias", "auto", "b", "other"]),
    ("some", ["a", "alias", "auto"]),
    ("one", ["a", "alias", "auto", "b", "other"]),
]


@pytest.mark.parametrize(("name", "models"), ALLOWED, ids=[case[0] for case in ALLOWED])
def test_a_caller_sees_the_models_it_may_ask_for(name: str, models: list[str], loaded: Config) -> None:
    assert loaded.models(loaded.callers[name]) == models


FORBIDDEN = [
    ("another route", "some", "other", "The caller some may not use 'other'; its routes are a, auto."),
    ("another target", "some", "b", "The caller some may not use 'b'; its routes are a, auto."),
    ("a target that may not answer", "one", "b", "The caller one may not use any target of 'b'."),
    ("a route of such targets", "one", "other", "The caller one may not use any target of 'other'."),
]


@pytest.mark.parametrize(
    ("name", "model", "said"), [case[1:] for case in FORBIDDEN], ids=[case[0] for case in FORBIDDEN]
)
def test_what_a_caller_may_not_use_is_forbidden_by_name(name: str, model: str, said: str, loaded: Config) -> None:
    with pytest.raises(Forbidden) as caught:
        loaded.route(model, loaded.callers[name])
    assert (caught.value.message, caught.value.status, caught.value.param) == (said, 403, "model")


def test_the_routes_of_a_caller_are_meant_under_every_name(loaded: Config) -> None:
    seen = loaded.route("alias", loaded.callers["some"])
    assert [target.name for target in seen.targets] == ["b", "a"]  # as its group sees them


def test_a_target_that_may_not_answer_is_withheld(loaded: Config) -> None:
    seen = loaded.route("auto", loaded.callers["one"])
    assert ([target.name for target in seen.targets], seen.withheld) == (["a"], ("b",))
    assert loaded.route("auto", loaded.callers["one"]) is seen  # plans are remembered by it
    assert loaded.route("auto", loaded.callers["free"]).withheld == ()


REFUSED = [
    ("both", 'key = "env:K"\nkeys = ["env:L"]', "callers.c: has both key and keys; keep keys"),
    ("none", "keys = []", "callers.c: needs key or keys, or an app role under [entra.roles]"),
    ("twice", 'keys = ["env:K", "env:K"]', 'callers.c.keys[1]: "env:K" stands there twice'),
    ("another's", 'keys = ["env:K", "env:FREE"]', "callers.c.keys[1]: callers.free has the same key"),
    (
        "literal",
        'keys = ["env:K", "sk-verysecret"]',
        "callers.c.keys[1]: write a reference to the secret, env:NAME or keyvault:name, never the secret itself",
    ),
    (
        "no route",
        'key = "env:K"\nroutes = ["x"]',
        'callers.c.routes[0]: no route or target "x"; routes and targets are ',
    ),
    ("no target", 'key = "env:K"\ntargets = ["auto"]', 'callers.c.targets[0]: no target "auto"; targets are a, b'),
    ("no targets", 'key = "env:K"\ntargets = []', "callers.c.targets: List should have at least 1 item"),
    ("a bad group", 'key = "env:K"\ngroups = ["-"]', "callers.c.groups[0]: String should match pattern"),
]


@pytest.mark.parametrize(("table", "said"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_caller_that_cannot_work_is_refused(table: str, said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse(f"{FILE}\n[callers.c]\n{table}", {})
    (error,) = caught.value.errors
    assert error.startswith(said)


VERSION = "keyvault:some/abc123"
VAULT = "must be the vault's https address, like https://NAME.vault.azure.net"
USELESS = [
    ("all is well", {"FREE": "k", "ROUTER_KEY_VAULT": "https://v.vault.azure.net/"}, []),
    (
        "no vault",
        {},
        [f"callers.some.keys[1]: {VERSION} needs the app setting ROUTER_KEY_VAULT, the vault's https address"],
    ),
    (
        "unresolved",
        {"FREE": "@Microsoft.KeyVault(SecretUri=x)", "ROUTER_KEY_VAULT": "https://v.vault.azure.net"},
        ["callers.free.key: the app setting FREE is a Key Vault reference that the platform could not resolve"],
    ),
    (
        "blank",
        {"SOME_1": " \n", "ROUTER_KEY_VAULT": "https://v.vault.azure.net"},
        ["callers.some.keys[0]: the app setting SOME_1 is empty"],
    ),
    (
        "two lines",
        {"SOME_1": "sk-1\r\nx-evil: 1", "FREE": " sk-2\n", "ROUTER_KEY_VAULT": "https://v.vault.azure.net"},
        ["callers.some.keys[0]: the app setting SOME_1 holds characters that no key has"],
    ),
    (
        "one key for two",
        {"SOME_1": "the-same-key", "FREE": "the-same-key\n", "ROUTER_KEY_VAULT": "https://v.vault.azure.net"},
        ["callers.some.keys[0]: the app setting SOME_1 holds the key of the caller free"],
    ),
    (
        "unresolved vault",
        {"ROUTER_KEY_VAULT": "@Microsoft.KeyVault(x)"},
        ["the app setting ROUTER_KEY_VAULT: is a Key Vault reference that the platform could not resolve"],
    ),
    *(
        (address or "no address", {"ROUTER_KEY_VAULT": address}, [f"the app setting ROUTER_KEY_VAULT: {VAULT}"])
        for address in (
            "",
            "http://v.vault.azure.net",
            "v.vault.azure.net",
            "https://",
            "https://me@v.vault.azure.net",
            "https://v.vault.azure.net/secrets/x",
            "https://[",
            "https://v.vault.azure.net:99999",
            "https://v .vault.azure.net",
        )
    ),
]


@pytest.mark.parametrize(("environment", "said"), [case[1:] for case in USELESS], ids=[case[0] for case in USELESS])
def test_secrets_that_cannot_be_had_are_told_by_their_path(
    environment: Mapping[str, str], said: list[str], loaded: Config
) -> None:
    assert list(unusable(loaded, environment)) == said


def serve(stage: Stage) -> None:
    callers = {
        "tester": {"key": "env:ROUTER_TEST_CALLER", "targets": ["second"]},
        "narrow": {"keys": ["env:ROUTER_TEST_PROVIDER"], "routes": ["second"]},
    }
    stage.serve(stage.standin("openai", "first"), stage.standin("openai", "second"), callers=callers)


def test_only_the_callers_own_targets_answer_and_the_explanation_says_so(stage: Stage) -> None:
    serve(stage)
    assert stage.ask().headers["x-router-target"] == "second"
    with stage.http() as client:
        explained = client.post("/v1/router/explain", json={"model": "chat", "messages": HELLO}).text
    assert "not among the caller's targets" in explained


def test_a_route_that_is_not_the_callers_is_forbidden(stage: Stage) -> None:
    serve(stage)
    with stage.http(headers={"api-key": PROVIDER_KEY}) as client:
        answer = client.post(CHAT_PATH, json=CHAT)
        listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
        shown = client.get("/v1/models/chat").status_code
        assert client.post(CHAT_PATH, json={**CHAT, "model": "second"}).status_code == 200
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
    assert answer.json()["error"]["message"] == "The caller narrow may not use 'chat'; its routes are second."
    assert (listed, shown) == (["second"], 403)


def test_a_route_of_the_callers_targets_alone_is_no_other_callers(stage: Stage) -> None:
    serve(stage)
    with stage.http(headers={"api-key": KEY}) as client:
        answer = client.post(CHAT_PATH, json={**CHAT, "model": "first"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (403, "model")
