"""`GET /ready`: whether requests can be answered, and for an admin what is missing if not."""

from __future__ import annotations

import pytest

from local.providers import serve
from local.standin_behaviour import Behaviour
from routing import selfcheck
from routing.errors import Unauthorized
from routing.providers.azure_openai import AzureOpenAISettings, build
from routing.providers.base import KeyCredential
from routing.types import Target
from tests.routes_for import Stage, routes_for

ADMIN = {"key": "env:ROUTER_TEST_CALLER", "role": "admin"}


def checks_of(stage: Stage, **headers: str) -> dict[str, dict[str, object]]:
    with stage.http() as http:
        body = http.get("/ready", headers=headers).json()
    return {check["name"]: check for check in body["checks"]}


@pytest.mark.parametrize("kind", ["openai", "ollama", "anthropic"])
def test_an_admin_sees_that_a_provider_can_be_reached(stage: Stage, kind) -> None:
    standin = stage.standin(kind, "there")
    stage.serve(standin, callers={"tester": ADMIN})
    assert checks_of(stage) == {"provider there": {"name": "provider there", "ok": True, "detail": ""}}


def test_an_admin_sees_that_a_key_is_refused(stage: Stage) -> None:
    standin = stage.standin("openai", "there", keys=("another",))
    stage.serve(standin, callers={"tester": ADMIN})
    check = checks_of(stage)["provider there"]
    assert check["ok"] is False
    assert str(check["detail"]).startswith("Unauthorized: ")


def test_an_admin_sees_which_deployments_there_are(stage: Stage) -> None:
    east = stage.standin("azure_openai", "east", models=("model-of-east",))
    west = stage.standin("azure_openai", "west", models=("another",))
    stage.serve(east, west, callers={"tester": ADMIN})
    there, gone = checks_of(stage).values()
    assert there == {"name": "provider east: model-of-east", "ok": True, "detail": ""}
    assert (gone["name"], gone["ok"]) == ("provider west: model-of-west", False)
    assert 'has no deployment "model-of-west": create it (az cognitiveservices account deployment' in str(
        gone["detail"]
    )
    assert '"messages":[]' in east.requests[-1].asked.body.decode()  # which no model was asked


def test_an_admin_sees_that_an_account_takes_another_key(stage: Stage) -> None:
    stage.serve(stage.standin("azure_openai", "east", keys=("another",)), callers={"tester": ADMIN})
    [check] = checks_of(stage).values()
    assert check["ok"] is False
    assert "Set its secret to a key of the account" in str(check["detail"])


@pytest.mark.parametrize("version", [None, "2024-10-21"])
async def test_an_account_that_does_not_know_the_identity_names_the_role_and_the_command(version: str | None) -> None:
    async with serve("azure_openai", behaviour=Behaviour(keys=("another",))) as account:
        given = {"type": "azure_openai", "endpoint": account.url, "auth": "identity", "api_version": version}
        provider = build(
            "east", AzureOpenAISettings.model_validate(given), KeyCredential("authorization", "Bearer ", token)
        )
        with pytest.raises(Unauthorized) as refused:
            await provider.check(Target(name="gpt", provider="east", model="gpt-5-mini"))
        await provider.aclose()
    assert f'Give the identity the role "Cognitive Services OpenAI User" on {account.url}' in str(refused.value)
    assert "az role assignment create" in str(refused.value)


async def test_what_the_identity_itself_has_to_say_is_not_taken_for_a_missing_role() -> None:
    given = {"type": "azure_openai", "endpoint": "http://127.0.0.1:9", "auth": "identity"}
    provider = build(
        "east", AzureOpenAISettings.model_validate(given), KeyCredential("authorization", "Bearer ", no_token)
    )
    with pytest.raises(Unauthorized, match=r"^no identity$"):
        await provider.check(Target(name="gpt", provider="east", model="gpt-5-mini"))
    await provider.aclose()


async def token(fresh: bool) -> str:
    return "a token of nobody"


async def no_token(fresh: bool) -> str:
    raise Unauthorized("no identity")


def test_an_admin_sees_which_app_settings_hold_no_key(stage: Stage) -> None:
    callers = {"tester": ADMIN, "ghost": {"keys": ["env:ROUTER_TEST_PROVIDER", "env:GHOST"]}}
    stage.serve(stage.standin("openai", "there"), callers=callers)
    assert checks_of(stage)["env:GHOST"] == {
        "name": "env:GHOST",
        "ok": False,
        "detail": "the app setting GHOST is not set",
    }
    assert "env:ROUTER_TEST_PROVIDER" not in checks_of(stage)


def test_an_admin_sees_that_the_issuer_of_tokens_cannot_be_had(stage: Stage) -> None:
    entra = '[entra]\nissuer = "https://127.0.0.1:9"\naudience = ["a"]\nroles = { "Router.Use" = "tester" }\n'
    stage.serve_text(routes_for([stage.standin("openai", "there")], callers={"tester": ADMIN}) + entra)
    check = checks_of(stage)["token issuer"]
    assert check["ok"] is False
    assert str(check["detail"]).endswith("Their issuer is https://127.0.0.1:9.")


async def test_what_a_dependency_answers_is_told_however_odd_it_is() -> None:
    async def odd() -> None:
        raise KeyError("token")

    told = await selfcheck._checked("signalr", odd())
    assert told == selfcheck.Check("signalr", False, "it answers in a way that is not understood: KeyError")


def test_a_user_is_told_in_short(stage: Stage) -> None:
    stage.serve(stage.standin("openai", "there"))
    with stage.http() as http:
        assert http.get("/ready").json() == {"status": "ready", "unavailable_routes": []}
