"""A stream with what the router does in it, as it happens, for callers that ask for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from local.providers import Fault
from tests.routes_for import CHAT, CHAT_PATH, ONCE, Stage, chat_body, heard, raw_request

ASKING = {"x-router-events": "true"}


def named(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Each event's name and data; those of the answer have no name, and `[DONE]` is itself."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield name, data if data == "[DONE]" else json.loads(data)
        elif not line:
            name = ""


def ask(stage: Stage, headers: dict[str, str] = ASKING, **fields: Any) -> tuple[httpx.Response, list[tuple[str, Any]]]:
    with stage.http() as client:
        answer = client.post(CHAT_PATH, json={**CHAT, "stream": True, **fields}, headers=headers)
    return answer, list(named(answer.iter_lines()))


def until_kept(stage: Stage) -> list[dict[str, Any]]:
    """The decisions, once there are any: that of a caller who has left comes when it may."""
    deadline = time.monotonic() + 20
    with stage.http() as client:
        while not (kept := client.get("/v1/router/decisions").json()["data"]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    return list(kept)


def test_a_call_is_told_while_it_goes_on_and_its_failure_before_anybody_answers(stage: Stage):
    one, two = stage.standin(name="one", fault=Fault("status", status=503)), stage.standin(name="two")
    two.behave(fault=Fault("hang"))
    stage.serve(one, two, route={"retry": ONCE})
    with stage.http() as client, client.stream("POST", CHAT_PATH, json={**CHAT, "stream": True}, headers=ASKING) as it:
        assert it.status_code == 200
        told = named(it.iter_lines())
        name, plan = next(told)
        assert (name, [choice["target"] for choice in plan["plan"]["choices"]]) == ("router.plan", ["one", "two"])
        assert next(told) == ("router.asking", {"target": "one", "number": 1})
        name, failed = next(told)
        assert (name, failed["target"], failed["number"], failed["error"]) == ("router.failed", "one", 1, "Unavailable")
        assert next(told) == ("router.asking", {"target": "two", "number": 2})
        stage.until(two, lambda it: it.running == 1)  # and says nothing
    stage.until(two, lambda it: it.left == 1)


def test_the_answer_comes_between_what_its_headers_would_say_and_the_whole_decision(stage: Stage):
    one = stage.standin(name="one")
    stage.serve(one, targets={"one": {"price": {"input": 1.0, "output": 2.0}}})
    answer, told = ask(stage)
    assert answer.headers["content-type"].startswith("text/event-stream")
    names = [name for name, _ in told]
    assert names[:3] == ["router.plan", "router.asking", "router.answering"]
    assert names[-1] == "router.decision"
    assert set(names[3:-1]) == {""}
    said = [data for name, data in told if not name]
    assert said[-1] == "[DONE]"
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in said[:-1]) == heard(one)
    plan, answering, decision = told[0][1], told[2][1], told[-1][1]
    assert plan["id"] == answering["x-router-decision-id"] == decision["id"]
    assert (plan["target"], answering["x-router-target"], decision["target"]) == (None, "one", "one")
    assert decision["cost"]["micro_usd"] > 0
    with stage.http() as client:
        assert client.get(f"/v1/router/decisions/{plan['id']}").json() == decision


def test_when_nobody_answers_the_error_is_an_event_and_the_attempts_are_kept(stage: Stage):
    stage.serve(stage.standin(name="one", fault=Fault("status", status=503)), route={"retry": ONCE})
    answer, told = ask(stage)
    assert answer.status_code == 200
    assert [name for name, _ in told] == ["router.plan", "router.asking", "router.failed", "", "router.decision"]
    assert told[3][1]["error"]["code"] == "provider_unavailable"
    decision = told[-1][1]
    assert (decision["target"], decision["error"]) == (None, "AllFailed")
    assert [attempt["error"] for attempt in decision["attempts"]] == ["Unavailable"]


def test_an_answer_that_breaks_off_still_ends_with_its_decision(stage: Stage):
    stage.serve(stage.standin(name="one", tokens=20, fault=Fault("cut", after=4)), route={"retry": ONCE})
    _, told = ask(stage)
    name, decision = told[-1]
    assert (name, decision["target"], decision["error"]) == ("router.decision", "one", "BadReply")
    assert "error" in told[-2][1]


def test_a_request_without_a_plan_keeps_its_true_status(stage: Stage):
    stage.serve(stage.standin(name="one"))
    answer, _ = ask(stage, messages=[])
    assert answer.status_code == 400
    answer, _ = ask(stage, model="nobody")
    assert answer.status_code == 404


def test_an_answer_from_the_cache_asks_nobody_and_has_a_decision(stage: Stage):
    one = stage.standin(name="one")
    stage.serve(one, route={"cache": {"seconds": 60}})
    ask(stage, temperature=0)
    answer, told = ask(stage, temperature=0)
    assert answer.headers["x-router-cache"] == "hit"
    assert [name for name, _ in told if name] == ["router.answering", "router.decision"]
    assert told[-1][1]["from_cache"] is True
    assert one.asked == 1


@pytest.mark.parametrize("headers", [{}, {"x-router-events": "false"}], ids=["not asked for", "declined"])
def test_whoever_does_not_ask_gets_the_answer_alone(stage: Stage, headers):
    stage.serve(stage.standin(name="one"))
    answer, told = ask(stage, headers)
    assert {name for name, _ in told} == {""}
    assert answer.headers["x-router-target"] == "one"


def test_a_caller_who_leaves_leaves_a_decision_with_the_calls_that_were_made(stage: Stage):
    one = stage.standin(name="one", fault=Fault("status", status=503))
    two = stage.standin(name="two", fault=Fault("hang"))
    stage.serve(one, two, route={"retry": ONCE})
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body()))
        stage.until(two, lambda it: it.running == 1)
    stage.until(two, lambda it: it.left == 1)
    (kept,) = until_kept(stage)
    with stage.http() as client:
        counted = client.get("/v1/router/status").json()["statistics"]
    assert (kept["target"], kept["error"]) == (None, "CallerLeft")
    assert [(each["target"], each["error"]) for each in kept["attempts"]] == [
        ("one", "Unavailable"),
        ("two", "CallerLeft"),
    ]
    assert (counted["left"], counted["failed"], counted["targets"]["two"]["failed_attempts"]) == (1, 0, 0)


def test_a_request_that_the_provider_refuses_leaves_its_attempt_in_the_decision(stage: Stage):
    stage.serve(stage.standin(name="one", fault=Fault("status", status=400)))
    assert stage.ask().status_code == 400
    (kept,) = until_kept(stage)
    assert (kept["error"], [each["error"] for each in kept["attempts"]]) == ("BadRequest", ["BadRequest"])
