"""The endpoints around the chat: who gets in, what is there, whether it is well, and what a refused file leaves."""

from __future__ import annotations

import pytest

from local.providers import Fault
from tests.routes_for import CHAT, CHAT_PATH, KEY

GUARDED = [("POST", CHAT_PATH), ("GET", "/v1/models"), ("GET", "/v1/models/chat")]
EVERY = [*GUARDED, ("GET", "/ready"), ("GET", "/v1/router/status"), ("POST", "/v1/router/breakers/one")]


def ask(stage, method, path, **options):
    with stage.http(headers={}) as client:
        return client.request(method, path, json=CHAT if method == "POST" else None, **options)


def assert_shut(answer):
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (401, "invalid_api_key", "invalid_request_error")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"api-key": KEY.upper()},
        {"api-key": ""},
        {"authorization": "Bearer wrong", "api-key": KEY},
    ],
    ids=str,
)
def test_nobody_gets_in_without_a_good_key(stage, method, path, headers):
    one = stage.standin(name="one")
    stage.serve(one)
    assert_shut(ask(stage, method, path, headers=headers))
    assert one.asked == 0


@pytest.mark.parametrize("headers", [{"authorization": f"bearer  {KEY}"}, {"api-key": KEY}], ids=["bearer", "api-key"])
def test_a_key_gets_in_either_way(stage, headers):
    stage.serve(stage.standin(name="one"))
    assert ask(stage, "POST", CHAT_PATH, headers=headers).status_code == 200


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_a_key_in_the_address_is_never_read(stage, method, path):
    stage.serve(stage.standin(name="one"))
    assert_shut(ask(stage, method, path, params={"code": KEY, "api-key": KEY, "key": KEY}))


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_with_no_caller_configured_nobody_gets_in(stage, method, path):
    stage.serve(stage.standin(name="one"), callers={})
    assert_shut(ask(stage, method, path, headers={"authorization": f"Bearer {KEY}"}))


@pytest.mark.parametrize("key", ["", "x", "None", "env:ROUTER_UNSET"])
def test_a_caller_whose_secret_is_missing_gets_in_with_no_key_at_all(stage, key):
    stage.serve(stage.standin(name="one"), callers={"tester": {"key": "env:ROUTER_UNSET"}})
    assert_shut(ask(stage, "GET", "/v1/models", headers={"api-key": key}))


def test_a_refusal_does_not_tell_who_exists(stage):
    stage.serve(stage.standin(name="one"))
    for key in ("wrong", "tester", KEY[:-1]):
        answer = ask(stage, "GET", "/v1/models", headers={"api-key": key})
        assert answer.json()["error"]["message"] == "The API key is not valid here."


def test_models_lists_every_name_a_request_may_use(stage):
    stage.serve(stage.standin(name="one"), stage.standin(name="two"))
    with stage.http() as client:
        listed = client.get("/v1/models").json()
        assert [model["id"] for model in listed["data"]] == ["chat", "gpt-alias", "one", "two"]
        for model in listed["data"]:
            assert client.get(f"/v1/models/{model['id']}").json() == model
            assert client.post(CHAT_PATH, json={**CHAT, "model": model["id"]}).status_code == 200


@pytest.mark.parametrize("name", ["gpt-9", "a%20b", "a%2Fb", "%C3%A9", "%ff", "%00", "..%2f..", "x" * 3000])
def test_a_model_that_is_not_there_is_404(stage, name):
    stage.serve(stage.standin(name="one"))
    with stage.http() as client:
        answer = client.get(f"/v1/models/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "chat, gpt-alias, one" in answer.json()["error"]["message"]
    assert len(answer.content) < 1_000


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/nothing"),
        ("POST", "/v1/images/generations"),
        ("DELETE", CHAT_PATH),
        ("GET", CHAT_PATH),
        ("PUT", "/v1/a/b"),
    ],
)
def test_what_is_not_there_is_404_in_openais_shape(stage, method, path):
    stage.serve(stage.standin(name="one"))
    answer = ask(stage, method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_sound_request_id_comes_back_with_every_answer(stage, stream):
    stage.serve(stage.standin(name="one"))
    with stage.http() as client:
        for body, status in (({**CHAT, "stream": stream}, 200), ({**CHAT, "model": "?"}, 404), ({}, 400)):
            answer = client.post(CHAT_PATH, json=body, headers={"x-request-id": "trace-7:a.b_c"})
            assert (answer.status_code, answer.headers["x-request-id"]) == (status, "trace-7:a.b_c")


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", "<script>"])
def test_an_unsound_request_id_is_replaced(stage, given):
    stage.serve(stage.standin(name="one"))
    with stage.http() as client:
        answers = [client.get("/v1/models", headers={"x-request-id": given.encode("latin-1")}) for _ in range(2)]
    first, second = (answer.headers["x-request-id"] for answer in answers)
    assert first.startswith("req_")
    assert first != second


def test_a_well_router_says_so_to_everybody(stage):
    stage.serve(stage.standin(name="one"))
    health, ready = ask(stage, "GET", "/health"), ask(stage, "GET", "/ready")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "unavailable_routes": []})


def test_a_route_whose_targets_are_all_shut_is_not_ready(stage):
    stage.serve(stage.standin(name="one", fault=Fault("insufficient_quota")), stage.standin(name="two"))
    with stage.http() as client:
        assert client.post(CHAT_PATH, json={**CHAT, "model": "one"}).status_code == 429
        answer = client.get("/ready")
        assert client.post(CHAT_PATH, json=CHAT).headers["x-router-target"] == "two"
    assert (answer.status_code, answer.json()["unavailable_routes"]) == (503, ["one"])


REFUSED = """
[providers.one]
type = "openai"
key = "sk-not-a-reference"
[targets.one]
provider = "two"
model = "m"
[routes.chat]
targets = ["one", "three"]
deadline_second = 5
"""


def test_a_refused_file_is_explained_in_full(stage):
    stage.serve_text(REFUSED)
    answer = ask(stage, "GET", "/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "refused")
    places = sorted(error.partition(": ")[0] for error in answer.json()["errors"])
    assert places == [
        "providers.one.key",
        "routes.chat.deadline_second",
        "routes.chat.targets[1]",
        "targets.one.provider",
    ]
    assert "sk-not-a-reference" not in answer.text


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_behind_a_refused_file_every_other_endpoint_is_503(stage, method, path):
    stage.serve_text(REFUSED)
    answer = ask(stage, method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "configuration_refused")
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-should-retry"] == "false"


def test_a_file_that_is_not_there_is_named(stage):
    stage.url = stage._serve_app({"ROUTER_CONFIG": "/nowhere/routes.toml"})
    answer = ask(stage, "GET", "/health")
    assert answer.status_code == 503
    assert "/nowhere/routes.toml" in answer.json()["errors"][0]
