"""`GET /ready`: whether requests can be answered, and for an admin what is missing if not."""

from __future__ import annotations

import pytest

from tests.routes_for import Stage

ADMIN = {"key": "env:ROUTER_TEST_CALLER", "role": "admin"}


def checks_of(stage: Stage, **headers: str) -> dict[str, dict[str, object]]:
    with stage.http() as http:
        body = http.get("/ready", headers=headers).json()
    return {check["name"]: check for check in body["checks"]}


@pytest.mark.parametrize("kind", ["openai", "azure_openai", "ollama", "anthropic"])
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


def test_a_user_is_told_in_short(stage: Stage) -> None:
    stage.serve(stage.standin("openai", "there"))
    with stage.http() as http:
        assert http.get("/ready").json() == {"status": "ready", "unavailable_routes": []}
