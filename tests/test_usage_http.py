"""What callers see of their limits, budgets and usage, on both hosts."""

from __future__ import annotations

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from local.providers import Fault, StandIn
from routing.usage import Counts, Line, Of
from routing.usage_api import as_csv, summed
from tests.routes_for import CHAT, CHAT_PATH, KEY, Stage

PRICED = {"price": {"input": 1.0, "output": 10.0}, "max_output": 100}
USAGE = "/v1/router/usage"


def serve(stage: Stage, *standins: StandIn, caller: Any = None, targets: Any = None, **tables: Any) -> None:
    """A router with one caller of these limits; every target is priced unless said otherwise."""
    callers = {"tester": {"key": "env:ROUTER_TEST_CALLER", **(caller or {})}}
    priced = {standin.name: {**PRICED, **(targets or {}).get(standin.name, {})} for standin in standins}
    stage.serve(*standins, callers=callers, targets=priced, **tables)


def get(stage: Stage, key: str = KEY, **query: str | list[str]) -> httpx.Response:
    with stage.http(headers={"authorization": f"Bearer {key}"}) as client:
        return client.get(USAGE, params=query)


def test_requests_per_minute(stage: Stage):
    alpha = stage.standin(name="alpha")
    serve(stage, alpha, caller={"requests_per_minute": 2})
    first, second, third = (stage.ask() for _ in range(3))
    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    assert [first.headers["x-ratelimit-remaining-requests"], second.headers["x-ratelimit-limit-requests"]] == ["1", "2"]
    assert third.json()["error"]["type"] == "rate_limit_error"
    assert 28_000 < int(third.headers["retry-after-ms"]) <= 30_000
    assert third.headers["x-should-retry"] == "true"
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    assert 58 < float(third.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
    assert alpha.asked == 2


def test_tokens_per_minute_count_what_was_written(stage: Stage):
    alpha = stage.standin(name="alpha", tokens=200)
    serve(stage, alpha, caller={"tokens_per_minute": 100})
    assert stage.ask().status_code == 200
    refused = stage.ask()
    assert refused.status_code == 429
    assert "100 tokens per minute" in refused.json()["error"]["message"]
    assert 60_000 < int(refused.headers["retry-after-ms"]) < 180_000
    assert refused.headers["x-ratelimit-limit-tokens"] == "100"


@pytest.mark.parametrize("leaves", [False, True], ids=["to the end", "the caller leaves"])
def test_a_stream_is_open_until_it_ends(stage: Stage, leaves: bool):
    alpha = stage.standin(name="alpha", tokens_per_second=10.0, tokens=40)
    serve(stage, alpha, caller={"max_streams": 1})
    with stage.http() as client:
        with client.stream("POST", CHAT_PATH, json={**CHAT, "stream": True}) as open_stream:
            pieces = open_stream.iter_bytes()
            next(pieces)
            refused = client.post(CHAT_PATH, json={**CHAT, "stream": True})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_streams")
            if not leaves:
                alpha.behave(tokens_per_second=None)
                assert b"".join(pieces).endswith(b"[DONE]\n\n")
        stage.until(alpha, lambda standin: standin.running == 0)
        alpha.behave(tokens_per_second=None)
        assert client.post(CHAT_PATH, json={**CHAT, "stream": True}).status_code == 200


def test_a_target_without_room_is_passed_over(stage: Stage):
    alpha, beta = stage.standin(name="alpha"), stage.standin(name="beta")
    serve(stage, alpha, beta, targets={"alpha": {"requests_per_minute": 1}})
    assert [stage.ask().headers["x-router-target"] for _ in range(3)] == ["alpha", "beta", "beta"]
    with stage.http() as client:
        told = client.post("/v1/router/explain", json=CHAT).json()
    (excluded,) = told["plan"]["exclusions"]
    assert excluded["target"] == "alpha"
    assert excluded["reason"] == "its limit of 1 requests per minute is reached"
    assert excluded["refused"]["reason"] == "parked"
    only = stage.ask(router={"only": ["alpha"]})
    assert only.status_code == 429
    assert 58 <= int(only.headers["retry-after"]) <= 60


def test_a_budget_pays_until_it_is_used_up(stage: Stage):
    alpha = stage.standin(name="alpha", tokens=100)
    serve(stage, alpha, caller={"budget": {"usd": 0.0035, "warn_at": 0.25}})
    answers = [stage.ask(max_tokens=100) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert "x-router-budget-warning" not in answers[0].headers
    assert answers[2].headers["x-router-budget-warning"].startswith("caller tester: ")
    refused = answers[3]
    assert refused.json()["error"]["code"] == "budget_exceeded"
    assert "The budget of caller tester, 0.0035 USD per day," in refused.json()["error"]["message"]
    midnight = datetime.now(UTC).timestamp() // 86_400 * 86_400 + 86_400
    assert int(refused.headers["retry-after-ms"]) / 1000 == pytest.approx(
        midnight - datetime.now(UTC).timestamp(), abs=5
    )
    assert refused.headers["x-should-retry"] == "false"
    assert stage.ask(max_tokens=5).status_code == 200, "what is left pays for a short answer"


def test_concurrent_requests_do_not_spend_the_same_money(stage: Stage):
    alpha = stage.standin(name="alpha", tokens=100, latency=0.2)
    serve(stage, alpha, caller={"budget": {"usd": 0.0035}})
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: stage.ask(max_tokens=100).status_code, range(8)))
    assert sorted(codes) == [200] * 3 + [429] * 5
    assert alpha.asked == 3


def test_a_budget_goes_to_the_target_that_it_can_pay(stage: Stage):
    dear, cheap, unknown = (stage.standin(name=name) for name in ("dear", "cheap", "unknown"))
    serve(
        stage,
        unknown,
        dear,
        cheap,
        caller={"budget": {"usd": 0.01}},
        targets={"dear": {"price": {"input": 1.0, "output": 1000.0}}},
    )
    text = stage.ask()
    assert text.headers["x-router-target"] == "unknown"
    callers = {"tester": {"key": "env:ROUTER_TEST_CALLER", "budget": {"usd": 0.01}}}
    targets = {"dear": {**PRICED, "price": {"input": 1.0, "output": 1000.0}}, "cheap": PRICED}
    stage.serve(unknown, dear, cheap, callers=callers, targets=targets)
    answer = stage.ask()
    assert answer.headers["x-router-target"] == "cheap"
    with stage.http() as client:
        decision = client.get(f"/v1/router/decisions/{answer.headers['x-router-decision-id']}").json()
    assert {each["target"]: each["reason"] for each in decision["plan"]["exclusions"]} == {
        "dear": "more than the caller's budget allows",
        "unknown": "no known price for the caller's budget",
    }


def test_what_failed_gives_back_what_was_set_aside(stage: Stage):
    alpha = stage.standin(name="alpha", tokens=100, fault=Fault("status", status=400))
    serve(stage, alpha, caller={"budget": {"usd": 0.0015}})
    assert [stage.ask(max_tokens=100).status_code for _ in range(4)] == [400] * 4
    assert [stage.ask(max_tokens=100, stream=True).status_code for _ in range(4)] == [400] * 4
    alpha.behave(fault=None)
    assert stage.ask(max_tokens=100).status_code == 200
    (row,) = get(stage, by="caller").json()["data"]
    assert (row["requests"], row["failed"]) == (9, 8)


def test_usage_adds_up_by_what_is_asked_for(stage: Stage):
    alpha = stage.standin(name="alpha", tokens=10)
    serve(stage, alpha)
    answers = [stage.ask(), stage.ask(model="alpha"), stage.ask(stream=True), stage.ask(router={"task": "planning"})]
    assert {answer.status_code for answer in answers} == {200}
    today = datetime.now(UTC).date().isoformat()
    told = get(stage, by=["route,task", "target,day,caller"], **{"from": today}).json()
    assert (told["from"], told["to"], told["complete"]) == (today, today, True)
    rows = {(row["route"], row["task"]): row for row in told["data"]}
    assert set(rows) == {("chat", "general"), ("alpha", "general"), ("chat", "planning")}
    row = rows["chat", "general"]
    assert (row["requests"], row["output_tokens"], row["target"], row["day"]) == (2, 20, "alpha", today)
    assert row["usd"] == pytest.approx(row["input_tokens"] * 1e-6 + 20 * 1e-5)
    total = get(stage).json()["data"]
    assert [(each["caller"], each["requests"]) for each in total] == [("tester", 4)]


def test_usage_as_a_table(stage: Stage):
    alpha = stage.standin(name="alpha", tokens=10)
    serve(stage, alpha)
    stage.ask()
    answer = get(stage, by="caller,target", format="csv")
    assert answer.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["caller"], row["target"], row["requests"], row["output_tokens"]) == ("tester", "alpha", "1", "10")


def test_only_admins_see_others(stage: Stage):
    alpha = stage.standin(name="alpha")
    callers = {
        "tester": {"key": "env:ROUTER_TEST_CALLER"},
        "kim": {"key": "env:ROUTER_TEST_PROVIDER", "role": "admin"},
    }
    stage.serve(alpha, callers=callers)
    stage.ask()
    with stage.http(headers={"api-key": "provider-key-1"}) as client:
        assert client.post(CHAT_PATH, json=CHAT).status_code == 200
    seen = {key: get(stage, key).json()["data"] for key in (KEY, "provider-key-1")}
    assert [row["caller"] for row in seen[KEY]] == ["tester"]
    assert [row["caller"] for row in seen["provider-key-1"]] == ["kim", "tester"]
    assert [row["caller"] for row in get(stage, "provider-key-1", caller="tester").json()["data"]] == ["tester"]
    assert get(stage, caller="kim").status_code == 403
    assert get(stage, "nobody").status_code == 401


@pytest.mark.parametrize(
    "query",
    [
        {"by": "colour"},
        {"by": ""},
        {"from": "yesterday"},
        {"from": "2026-02-30"},
        {"from": "2026-02-02", "to": "2026-02-01"},
        {"from": "0001-01-01", "to": "9999-12-31"},
        {"format": "xml"},
        {"colour": "blue"},
    ],
    ids=str,
)
def test_questions_that_make_no_sense_are_refused(stage: Stage, query: dict[str, str]):
    serve(stage, stage.standin(name="alpha"))
    assert get(stage, **query).status_code == 400


def test_no_cell_of_the_table_is_a_formula():
    line = Line("2026-01-01", Of("=cmd()", "@x", "a,b", "-1"), Counts(1))
    text = as_csv(summed([line], ["caller", "target", "task", "route"]), ["caller", "target", "task", "route"])
    (row,) = csv.DictReader(io.StringIO(text.decode()))
    assert (row["caller"], row["target"], row["task"], row["route"]) == ("'=cmd()", "'@x", "a,b", "'-1")
