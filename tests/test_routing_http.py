"""What callers see of the choosing, through both hosts: explain, hints and ceilings, overrides, decisions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local.providers import Fault, StandIn
from routing.types import TASK_KINDS
from tests.routes_for import CHAT_PATH, KEY, ONCE, PROVIDER_KEY, Stage, events

DEAR = {"price": {"input": 10, "output": 100}, "max_output": 4_000, "quality": {"default": 0.95}}
CHEAP = {"price": {"input": 1, "output": 10}, "max_output": 4_000, "quality": {"default": 0.8, "planning": 0.5}}
OTHER_KEY = PROVIDER_KEY  # of a second caller; any secret of the stage will do
STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


def pair(stage: Stage, route: Any = None, **tables: Any) -> tuple[StandIn, StandIn]:
    """`dear` before `cheap`, each at its price."""
    dear, cheap = stage.standin(name="dear"), stage.standin(name="cheap")
    given = {"targets": {"dear": DEAR, "cheap": CHEAP}, **tables}
    stage.serve(dear, cheap, route={"retry": ONCE, **(route or {})}, **given)
    return dear, cheap


def get(stage: Stage, path: str, key: str = KEY, **params: Any) -> Any:
    with stage.http(headers={"api-key": key}) as client:
        return client.get(path, params=params)


def explained(stage: Stage, **fields: Any) -> Any:
    body = {"model": "chat", "messages": [{"role": "user", "content": "Hello there"}], **fields}
    with stage.http() as client:
        return client.post("/v1/router/explain", json=body)


# --- the task


@STREAMS
@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"router": {"task": "code_generation"}}, {}),
        ({"router": {"task": "CodeGeneration"}}, {"x-router-task": "planning"}),
        ({}, {"x-router-task": "CodeGeneration"}),
        ({"metadata": {"task_type": "code_generation"}}, {}),
        ({"metadata": {"task_type": "codeGeneration", "team": "blue"}}, {}),
    ],
    ids=["hint", "hint before header", "header", "metadata", "Camel case"],
)
def test_a_label_says_the_task_and_the_route_who_gets_it(stage, stream, fields, headers):
    _, cheap = pair(stage, {"tasks": {"code_generation": ["cheap"], "planning": ["dear"]}})
    body = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "stream": stream, **fields}
    with stage.http() as client:
        answer = client.post(CHAT_PATH, json=body, headers=headers)
    assert (answer.headers["x-router-task"], answer.headers["x-router-target"]) == ("code_generation", "cheap")
    assert "router" not in json.loads(cheap.requests[0].asked.body)


@pytest.mark.parametrize("path", [CHAT_PATH, "/v1/router/explain"])
@pytest.mark.parametrize(
    ("fields", "headers", "param"),
    [
        ({"router": {"task": "cooking"}}, {}, "router.task"),
        ({}, {"x-router-task": "cooking"}, "x-router-task"),
        ({"metadata": {"task_type": "cooking"}}, {}, "metadata.task_type"),
    ],
)
def test_an_unknown_label_is_400_and_lists_the_ten(stage, path, fields, headers, param):
    dear, _ = pair(stage)
    body = {"model": "chat", "messages": [{"role": "user", "content": "x"}], **fields}
    with stage.http() as client:
        answer = client.post(path, json=body, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert ", ".join(TASK_KINDS) in error["message"]
    assert dear.asked == 0


def test_a_task_is_detected_where_none_is_named(stage):
    pair(stage, {"tasks": {"translation": ["cheap"]}, "min_task_confidence": 0.5})
    text = "Translate the following text into German, keeping the tone: 'Good morning, dear colleagues.'"
    answer = stage.ask(messages=[{"role": "user", "content": text}])
    assert (answer.headers["x-router-task"], answer.headers["x-router-target"]) == ("translation", "cheap")


# --- hints


@STREAMS
@pytest.mark.parametrize(
    ("router", "target"),
    [
        ({}, "dear"),
        ({"strategy": "cost"}, "cheap"),
        ({"strategy": "cost", "task": "planning"}, "dear"),
        ({"strategy": "cost", "min_quality": 0.9}, "dear"),
        ({"min_quality": 0.9, "deny": []}, "dear"),
        ({"only": ["cheap"]}, "cheap"),
        ({"deny": ["dear"]}, "cheap"),
        ({"max_cost_usd": 0.01}, "cheap"),
    ],
    ids=str,
)
def test_a_hint_chooses_the_target(stage, stream, router, target):
    pair(stage)
    answer = stage.ask(stream=stream, router=router)
    assert (answer.status_code, answer.headers["x-router-target"]) == (200, target)
    assert answer.headers["x-router-strategy"] == router.get("strategy", "task")


@pytest.mark.parametrize("ceiling", [1e-300, 1e300, 1e308], ids=str)
def test_a_ceiling_of_any_size_is_kept_or_refused(stage, ceiling):
    pair(stage)
    answer = stage.ask(router={"max_cost_usd": ceiling})
    assert answer.status_code == (400 if ceiling < 1 else 200)
    assert "x-router-max-tokens" not in answer.headers


def test_priority_asks_for_more_quality(stage):
    fair = {**CHEAP, "quality": {"default": 0.75}}
    pair(stage, {"strategy": "cost"}, targets={"dear": DEAR, "cheap": fair})
    priorities = {priority: stage.ask(router={"priority": priority}) for priority in (1, 7, 8, 10)}
    assert {priority: answer.headers["x-router-target"] for priority, answer in priorities.items()} == {
        1: "cheap",
        7: "cheap",
        8: "dear",
        10: "dear",
    }


REFUSED = [
    ({"max_cost": 1}, "router.max_cost"),
    ({"max_cost_usd": 0}, "router.max_cost_usd"),
    ({"max_cost_usd": -1}, "router.max_cost_usd"),
    ({"max_cost_usd": "1"}, "router.max_cost_usd"),
    ({"max_latency_ms": 0}, "router.max_latency_ms"),
    ({"max_latency_ms": -0.5}, "router.max_latency_ms"),
    ({"min_quality": 1.1}, "router.min_quality"),
    ({"min_quality": -0.1}, "router.min_quality"),
    ({"priority": 0}, "router.priority"),
    ({"priority": 11}, "router.priority"),
    ({"priority": 1.5}, "router.priority"),
    ({"strategy": "magic"}, "router.strategy"),
    ({"strategy": "os:getcwd"}, "router.strategy"),
    ({"only": []}, "router.only"),
    ({"only": ["nobody"]}, "router.only[0]"),
    ({"deny": ["dear", "nobody"]}, "router.deny[1]"),
    ("cost", "router"),
]


@STREAMS
@pytest.mark.parametrize(("router", "param"), REFUSED, ids=[str(router) for router, _ in REFUSED])
def test_a_hint_that_cannot_be_meant_is_400_with_its_place(stage, stream, router, param):
    dear, cheap = pair(stage)
    answer = stage.ask(stream=stream, router=router)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert (dear.asked, cheap.asked) == (0, 0)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("key", ["max_cost_usd", "max_latency_ms", "min_quality"])
def test_a_ceiling_that_is_no_number_is_400(stage, key, number):
    dear, _ = pair(stage)
    body = f'{{"model": "chat", "messages": [{{"role": "user", "content": "x"}}], "router": {{"{key}": {number}}}}}'
    with stage.http() as client:
        answer = client.post(CHAT_PATH, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    assert dear.asked == 0


# --- ceilings


@STREAMS
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", None])
def test_a_ceiling_lowers_the_length_of_the_answer_and_the_header_says_so(stage, stream, field):
    dear, _ = pair(stage)
    asked = {field: 3_000} if field else {}
    answer = stage.ask(stream=stream, router={"max_cost_usd": 0.05, "only": ["dear"]}, **asked)
    limit = int(answer.headers["x-router-max-tokens"])
    sent = json.loads(dear.requests[0].asked.body)
    assert sent[field or "max_completion_tokens"] == limit
    assert 400 < limit < 500  # 100 micro-USD each, of 50,000
    assert {"max_tokens", "max_completion_tokens"} & set(sent) == {field or "max_completion_tokens"}


@STREAMS
def test_what_is_asked_for_anyway_is_left_as_it_is(stage, stream):
    dear, _ = pair(stage)
    answer = stage.ask(stream=stream, max_tokens=50, router={"max_cost_usd": 0.05, "only": ["dear"]})
    assert "x-router-max-tokens" not in answer.headers
    assert json.loads(dear.requests[0].asked.body)["max_tokens"] == 50


@STREAMS
def test_more_than_the_model_can_say_is_not_asked_of_it(stage, stream):
    dear, _ = pair(stage)
    answer = stage.ask(stream=stream, max_tokens=100_000)
    assert answer.headers["x-router-max-tokens"] == "4000"
    assert json.loads(dear.requests[0].asked.body)["max_tokens"] == 4_000


@STREAMS
def test_a_fallback_is_held_to_its_own_limit(stage, stream):
    dear, cheap = pair(stage)
    dear.behave(fault=Fault("status", status=503))
    answer = stage.ask(stream=stream, router={"max_cost_usd": 0.05})
    assert answer.headers["x-router-target"] == "cheap"
    assert json.loads(dear.requests[0].asked.body)["max_completion_tokens"] < 500
    assert "max_completion_tokens" not in json.loads(cheap.requests[0].asked.body)


@STREAMS
def test_a_ceiling_that_nobody_can_keep_is_400_and_says_why(stage, stream):
    dear, cheap = pair(stage)
    answer = stage.ask(stream=stream, router={"max_cost_usd": 0.000001})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "over_ceiling", "router.max_cost_usd")
    assert "dear: over the ceiling" in error["message"]
    assert "cheap: over the ceiling" in error["message"]
    assert (dear.asked, cheap.asked) == (0, 0)


def test_the_cost_is_in_the_headers_when_it_is_known(stage):
    pair(stage)
    answer = stage.ask(router={"only": ["cheap"]})
    usage = answer.json()["usage"]
    cost = usage["prompt_tokens"] * 1 + usage["completion_tokens"] * 10
    assert answer.headers["x-router-cost-usd"] == f"{cost / 1e6:.6f}"


def test_an_unknown_cost_has_no_header(stage):
    stage.serve(stage.standin(name="one"))
    assert "x-router-cost-usd" not in stage.ask().headers


@STREAMS
def test_who_is_late_is_left_for_the_next_and_it_is_no_fault(stage, stream):
    dear, cheap = pair(stage)
    dear.behave(latency=5.0)
    answer = stage.ask(stream=stream, router={"max_latency_ms": 50})
    assert (answer.headers["x-router-target"], answer.headers["x-router-attempts"]) == ("cheap", "2")
    assert cheap.asked == 1
    stage.until(dear, lambda it: len(it.cancelled) == 1)
    views = get(stage, "/v1/router/status").json()["targets"]
    assert [(view["target"], view["faults"]) for view in views] == [("dear", 0), ("cheap", 0)]
    decision = get(stage, f"/v1/router/decisions/{answer.headers['x-router-decision-id']}").json()
    assert [(each["target"], each["outcome"], each["error"]) for each in decision["attempts"]] == [
        ("dear", "neutral", "Late")
    ]


@STREAMS
def test_the_last_target_is_waited_for_however_late(stage, stream):
    _, cheap = pair(stage)
    cheap.behave(latency=0.2)
    answer = stage.ask(stream=stream, router={"max_latency_ms": 10, "only": ["cheap"]})
    assert (answer.status_code, answer.headers["x-router-target"]) == (200, "cheap")


# --- overrides and weights


def callers(**tester: Any) -> dict[str, Any]:
    return {
        "tester": {"key": "env:ROUTER_TEST_CALLER", **tester},
        "other": {"key": "env:ROUTER_TEST_PROVIDER"},
    }


@pytest.mark.parametrize(
    ("table", "tester"),
    [
        ({"groups": {"research": {"strategy": "cost"}}}, {"groups": ["staff", "research"]}),
        ({"callers": {"tester": {"targets": ["cheap"]}}}, {}),
        ({"callers": {"tester": {"tasks": {"planning": ["cheap"]}}}}, {}),
        (
            {"callers": {"tester": {"targets": ["cheap"]}}, "groups": {"research": {"targets": ["dear"]}}},
            {"groups": ["research"]},
        ),
    ],
    ids=["a group's strategy", "a caller's targets", "a caller's tasks", "the caller's own first"],
)
def test_a_route_may_differ_for_a_caller(stage, table, tester):
    pair(stage, {**table, "minimum_quality": {"planning": 0.5}}, callers=callers(**tester))
    body = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "router": {"task": "planning"}}
    targets = {}
    for key in (KEY, OTHER_KEY):
        with stage.http(headers={"api-key": key}) as client:
            targets[key] = client.post(CHAT_PATH, json=body).headers["x-router-target"]
    assert targets == {KEY: "cheap", OTHER_KEY: "dear"}


def test_regions_of_a_model_share_its_requests(stage):
    weights = {"east": {"model": "m", "weight": 1.0}, "west": {"model": "m", "weight": 1.0}}
    east, west = stage.standin(name="east"), stage.standin(name="west")
    stage.serve(east, west, targets=weights)
    for _ in range(40):
        assert stage.ask().status_code == 200
    assert east.asked + west.asked == 40
    assert min(east.asked, west.asked) > 4  # fewer once in 200,000,000 runs


# --- explain


def test_explain_tells_the_plan_and_asks_nobody(stage):
    dear, cheap = pair(stage)
    told = explained(stage, router={"task": "planning", "max_cost_usd": 0.1}).json()
    assert told["plan"]["task"] == {"kind": "planning", "confidence": 1.0, "reason": "named by router.task"}
    assert (told["plan"]["route"], told["plan"]["strategy"]) == ("chat", "task")
    assert [(choice["target"], choice["reason"]) for choice in told["plan"]["choices"]] == [
        ("dear", "number 1 of the route"),
        ("cheap", "number 2 of the route"),
    ]
    assert (dear.asked, cheap.asked) == (0, 0)


def test_explain_tells_what_each_target_would_mean(stage):
    pair(stage)
    told = explained(stage, router={"task": "planning", "max_cost_usd": 0.1}).json()
    tokens, (dear, cheap) = told["facts"]["input_tokens"], told["targets"]
    limit = told["plan"]["choices"][0]["output_limit"]
    assert (dear["target"], dear["provider"], dear["model"]) == ("dear", "dear", "model-of-dear")
    assert (dear["breaker"], dear["share"]) == ("closed", 1.0)
    assert dear["expected"] == {"micro_usd": tokens * 10 + 700 * 100, "seconds": None}
    assert tokens * 12 + limit * 100 <= dear["worst"]["micro_usd"] <= 100_000
    assert cheap["worst"]["micro_usd"] == pytest.approx(tokens * 1.2 + 4_000 * 10, abs=1)
    assert dear["worst"]["seconds"] == 200


def test_explain_says_why_a_target_is_out(stage):
    dear, _ = pair(stage)
    dear.behave(fault=Fault("insufficient_quota"))
    assert stage.ask().headers["x-router-target"] == "cheap"
    told = explained(stage, router={"min_quality": 0.9}).json()
    assert told["plan"]["choices"] == []
    reasons = {each["target"]: each["reason"] for each in told["plan"]["exclusions"]}
    assert reasons == {"dear": "breaker: open", "cheap": "quality 0.80 is below the request's 0.90"}
    assert [(each["target"], each["breaker"]) for each in told["targets"]] == [("dear", "open"), ("cheap", "closed")]


def test_explain_knows_the_time_once_a_target_was_seen(stage):
    pair(stage)
    assert stage.ask(stream=True).status_code == 200
    dear, cheap = explained(stage).json()["targets"]
    assert dear["expected"]["seconds"] > 0
    assert cheap["expected"]["seconds"] is None


def test_what_came_from_a_providers_cache_is_expected_of_the_next_request(stage):
    saving = {"price": {"input": 2, "cached_input": 0.2, "output": 10}, "quality": {"default": 0.9}}
    dear, _ = pair(stage, {"strategy": "cost"}, targets={"dear": saving, "cheap": {**saving, "price": CHEAP["price"]}})
    dear.behave(cached_tokens=4_000)
    long: list[Any] = [{"role": "user", "content": "word " * 4_000}]
    before, _ = explained(stage, messages=long).json()["targets"]
    assert stage.ask(messages=long, router={"only": ["dear"]}).headers["x-router-target"] == "dear"
    told = explained(stage, messages=long).json()
    after, facts = told["targets"][0], told["facts"]
    share = facts["shares"]["dear"]["cached"]
    assert 0 < share <= 1
    saved = facts["input_tokens"] * share * 1.8
    assert before["expected"]["micro_usd"] - after["expected"]["micro_usd"] == pytest.approx(saved)
    assert before["worst"] == after["worst"]
    assert told["plan"]["choices"][0]["target"] == "dear"


def test_what_explain_tells_is_what_then_happens(stage):
    pair(stage)
    fields: dict[str, Any] = {"router": {"strategy": "cost", "max_cost_usd": 0.02}, "max_tokens": 2_500, "n": 2}
    told = explained(stage, **fields).json()
    answer = stage.ask(**fields)
    done = get(stage, f"/v1/router/decisions/{answer.headers['x-router-decision-id']}").json()
    told["facts"].pop("draw")
    done["facts"].pop("draw")
    assert (told["plan"], told["facts"]) == (done["plan"], done["facts"])
    assert answer.headers["x-router-target"] == told["plan"]["choices"][0]["target"]
    assert answer.headers["x-router-max-tokens"] == str(told["plan"]["choices"][0]["output_limit"])


EXPLAINED: list[tuple[str, dict[str, Any]]] = [
    ("chat/completions", {"messages": [{"role": "user", "content": "Hello there"}]}),
    ("messages", {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 100}),
    ("responses", {"input": "Hello there", "max_output_tokens": 100}),
]
BESIDE_CHAT: list[tuple[str, dict[str, Any]]] = [
    ("embeddings", {"input": ["Hello there", "and there"]}),
    ("completions", {"prompt": "Hello there"}),
]


@pytest.mark.parametrize(("name", "fields"), EXPLAINED, ids=[name for name, _ in EXPLAINED])
def test_explain_takes_the_body_of_any_endpoint_that_it_is_told(stage, name, fields):
    dear, cheap = pair(stage)
    body = {"model": "chat", **fields, "router": {"strategy": "cost", "task": "planning"}}
    with stage.http() as client:
        told = client.post("/v1/router/explain", json=body, params={"endpoint": name, "api-version": "x"}).json()
        assert (dear.asked, cheap.asked) == (0, 0)
        answer = client.post(f"/v1/{name}", json=body)
    done = get(stage, f"/v1/router/decisions/{answer.headers['x-router-decision-id']}").json()
    assert (told["plan"]["strategy"], told["plan"]["task"]["kind"]) == ("cost", "planning")
    assert told["plan"] == done["plan"]
    assert [each["target"] for each in told["targets"]] == ["dear", "cheap"]


@pytest.mark.parametrize(("name", "fields"), BESIDE_CHAT, ids=[name for name, _ in BESIDE_CHAT])
def test_explain_says_which_targets_do_what_is_beside_chat(stage, name, fields):
    able = {"supports": [name], "embedding_space": "s"} if name == "embeddings" else {"supports": [name]}
    pair(stage, targets={"dear": DEAR, "cheap": {**CHEAP, **able}})
    with stage.http() as client:
        told = client.post("/v1/router/explain", json={"model": "chat", **fields}, params={"endpoint": name}).json()
    assert [choice["target"] for choice in told["plan"]["choices"]] == ["cheap"]
    assert [(each["target"], each["reason"]) for each in told["plan"]["exclusions"]] == [("dear", f"lacks {name}")]


def test_what_is_wrong_with_an_explained_body_is_told_by_its_own_places(stage):
    pair(stage)
    wrong = {"model": "chat", "input": [{"role": "user", "content": 7}]}
    with stage.http() as client:
        for params, param in (({"endpoint": "responses"}, "input[0].content"), ({"endpoint": "chats"}, "endpoint")):
            answer = client.post("/v1/router/explain", json=wrong, params=params)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_explain_refuses_what_chat_refuses(stage):
    pair(stage)
    refused: list[dict[str, Any]] = [
        {"model": "?"},
        {"messages": []},
        {"router": {"max_cost_usd": 1e-9}},
        {"router": {"x": 1}},
    ]
    for fields in refused:
        told, answer = explained(stage, **fields), stage.ask(**fields)
        assert (told.status_code, told.json()["error"]) == (answer.status_code, answer.json()["error"])
        assert told.status_code in (400, 404)


# --- decisions


def test_a_decision_tells_what_happened_and_holds_no_text(stage):
    pair(stage)
    answer = stage.ask(messages=[{"role": "user", "content": "a secret word"}], user="u-7")
    found = get(stage, f"/v1/router/decisions/{answer.headers['x-router-decision-id']}")
    decision = found.json()
    assert (decision["caller"], decision["model"], decision["target"]) == ("tester", "chat", "dear")
    assert decision["usage"]["input"] == answer.json()["usage"]["prompt_tokens"]
    assert decision["cost"]["micro_usd"] == round(float(answer.headers["x-router-cost-usd"]) * 1e6)
    assert decision["attempts"] == []
    assert "secret" not in found.text
    assert "u-7" not in found.text


def test_the_decision_of_a_stream_is_complete_at_its_end(stage):
    pair(stage)
    answer = stage.ask(stream=True)
    assert events(answer.text)[-1] == "[DONE]"
    decision = get(stage, f"/v1/router/decisions/{answer.headers['x-router-decision-id']}").json()
    assert (decision["target"], decision["usage"]["estimated"]) == ("dear", False)
    assert 0 < decision["first_token_seconds"] <= decision["seconds"]


def test_a_failed_request_is_kept_with_its_attempts(stage):
    for standin in pair(stage):
        standin.behave(fault=Fault("status", status=500))
    assert stage.ask().status_code == 502
    (decision,) = get(stage, "/v1/router/decisions").json()["data"]
    assert [each["target"] for each in decision["attempts"]] == ["dear", "cheap"]
    assert (decision["target"], decision["cost"]) == (None, None)


def test_decisions_come_newest_first_as_a_list_or_a_line_each(stage):
    pair(stage)
    ids = [stage.ask(model=model).headers["x-router-decision-id"] for model in ("chat", "cheap", "chat")]
    listed = get(stage, "/v1/router/decisions").json()
    assert listed["object"] == "list"
    assert [each["id"] for each in listed["data"]] == ids[::-1]
    lines = get(stage, "/v1/router/decisions", format="jsonl")
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in lines.text.splitlines()] == listed["data"]
    assert lines.text.endswith("}\n")


@pytest.mark.parametrize(
    ("params", "places"),
    [({"limit": 1}, [2]), ({"route": "cheap"}, [1]), ({"since": 0}, [2, 1, 0]), ({"since": 9e12}, [])],
    ids=str,
)
def test_decisions_can_be_narrowed_down(stage, params, places):
    pair(stage)
    ids = [stage.ask(model=model).headers["x-router-decision-id"] for model in ("chat", "cheap", "chat")]
    found = get(stage, "/v1/router/decisions", **params).json()["data"]
    assert [each["id"] for each in found] == [ids[place] for place in places]


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"since": "yesterday"}, "since"),
        ({"since": "nan"}, "since"),
        ({"format": "xml"}, "format"),
        ({"colour": "blue"}, "colour"),
    ],
    ids=str,
)
def test_a_question_about_decisions_that_cannot_be_meant_is_400(stage, params, param):
    pair(stage)
    answer = get(stage, "/v1/router/decisions", **params)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_callers_see_only_their_own_and_admins_all(stage):
    pair(stage, callers=callers(role="admin"))
    with stage.http(headers={"api-key": OTHER_KEY}) as client:
        theirs = client.post(CHAT_PATH, json={"model": "chat", "messages": [{"role": "user", "content": "x"}]})
    mine = stage.ask()
    ids = [answer.headers["x-router-decision-id"] for answer in (mine, theirs)]

    def seen(key: str, **params: Any) -> list[str]:
        return [each["id"] for each in get(stage, "/v1/router/decisions", key, **params).json()["data"]]

    assert seen(KEY) == ids
    assert seen(KEY, caller="other") == ids[1:]
    assert seen(OTHER_KEY) == seen(OTHER_KEY, caller="tester") == ids[1:]
    assert get(stage, f"/v1/router/decisions/{ids[1]}", KEY).status_code == 200
    for wanted in (ids[0], "dec_none"):
        hidden = get(stage, f"/v1/router/decisions/{wanted}", OTHER_KEY)
        assert (hidden.status_code, hidden.json()["error"]["code"]) == (404, "decision_not_found")


@pytest.mark.parametrize("path", ["/v1/router/decisions", "/v1/router/decisions/dec_x"])
def test_without_a_key_no_decision_is_shown(stage, path):
    pair(stage)
    assert get(stage, path, "wrong").status_code == 401


# --- whatever the text is


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
ODD = [
    pytest.param([user("plan the week " * 75_000)], id="1 MB"),
    pytest.param([user("\x00\x01\x07\x1b[31m\x7f" * 200)], id="control characters"),
    pytest.param([user("😀🏳️‍🌈👩‍👩‍👧" * 5_000)], id="emoji"),
    pytest.param([user("\u202eلخص هذا النص\u2069 שלום " * 500)], id="right to left"),
    pytest.param([user("")], id="empty"),
    pytest.param([user([])], id="no parts"),
    pytest.param([user([PICTURE] * 5)], id="only images"),
    pytest.param([user(f"turn {number}") for number in range(500)], id="500 messages"),
    pytest.param(
        [{"role": "assistant", "content": None}, {"role": "system", "content": "x" * 1_000_000}], id="no user"
    ),
    pytest.param([user("((((" * 50_000 + "```" * 20_000)], id="brackets and fences"),
]


@pytest.mark.parametrize("messages", ODD)
def test_any_text_gets_a_task_in_bounded_time(stage, messages):
    supports = {"supports": ["tools", "vision", "json_schema"]}
    pair(stage, targets={"dear": {**DEAR, **supports}, "cheap": {**CHEAP, **supports}})
    told = explained(stage, messages=messages)
    again = explained(stage, messages=messages)
    assert told.status_code == 200
    assert told.json()["plan"]["task"]["kind"] in TASK_KINDS
    assert again.elapsed.total_seconds() < 1
