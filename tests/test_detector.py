"""A request whose task is uncertain: a cheap target is asked, once, briefly, and whatever it does, the request goes on.

The routes here want more confidence than there is, so that every request without a label is uncertain.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from local.providers import Fault, StandIn
from local.standin_behaviour import Behaviour
from local.standin_openai import OpenAI
from local.standin_wire import Answer, Asked, Whole
from routing.types import TASK_KINDS
from tests.routes_for import Stage

ASKS = {"ask": "judge", "timeout_ms": 2_000}
ROUTE: dict[str, Any] = {
    "targets": ["one", "two"],
    "tasks": {"translation": ["two"], "code_generation": ["two"]},
    "detector": ASKS,
    "min_task_confidence": 1.0,
}
CERTAIN = "Translate the following text into German, keeping the tone: 'Good morning, dear colleagues.'"


class Judge(OpenAI):
    """Says the same to everybody."""

    def __init__(self, says: str | None) -> None:
        self.says = says

    def chat(self, asked: Asked, behaviour: Behaviour) -> Answer:
        message = {"role": "assistant", "content": self.says}
        reply = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        return Whole(200, json.dumps(reply).encode())


def staged(stage: Stage, judge: StandIn, **route: Any) -> StandIn:
    one, two = stage.standin(name="one"), stage.standin(name="two")
    stage.serve(one, two, judge, route={**ROUTE, **route})
    return judge


def judged(stage: Stage, says: str | None = "translation", **route: Any) -> StandIn:
    """A router that asks a judge who always says `says`."""
    return staged(stage, stage.speaking(Judge(says), "judge"), **route)


def words(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_what_is_uncertain_is_asked_and_goes_where_the_answer_says(stage, stream):
    judge = judged(stage)
    answer = stage.ask(stream=stream)
    assert (answer.headers["x-router-task"], answer.headers["x-router-target"]) == ("translation", "two")
    (question,) = judge.requests
    body = json.loads(question.asked.body)
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("model-of-judge", 16, 0)
    assert body["messages"][1]["content"] == "<request>\nuser: Hello there\n</request>"
    assert ", ".join(TASK_KINDS) in body["messages"][0]["content"]


def test_the_reason_says_who_was_asked(stage):
    judged(stage)
    with stage.http() as client:
        told = client.post("/v1/router/explain", json={"model": "chat", **words("Hello there")}).json()
    assert told["plan"]["task"]["reason"].startswith("judge was asked; ")
    assert 0 < told["plan"]["task"]["confidence"] < 1


@pytest.mark.parametrize("says", ["translation", "I would rather not say.", "", None], ids=str)
def test_the_same_request_is_asked_about_once(stage, says):
    judge = judged(stage, says)
    kinds = {stage.ask().headers["x-router-task"] for _ in range(3)}
    assert kinds == {"translation" if says == "translation" else "general"}
    assert judge.asked == 1
    stage.ask(**words("Hello yourself"))
    assert judge.asked == 2


@pytest.mark.parametrize(
    ("says", "kind"),
    [
        ("Translation.", "translation"),
        ("CODE_GENERATION", "code_generation"),
        ("The task is code_generation, not translation.", "code_generation"),
    ],
)
def test_the_first_task_that_the_answer_names_is_taken(stage, says, kind):
    judged(stage, says)
    assert stage.ask().headers["x-router-task"] == kind


@pytest.mark.parametrize(
    ("fields", "route"),
    [
        (words(CERTAIN), {"min_task_confidence": 0.5}),
        ({"router": {"task": "planning"}}, {}),
        ({"metadata": {"task_type": "Planning"}}, {}),
        ({}, {"targets": ["one"], "tasks": {}}),
        ({}, {"min_task_confidence": 0.0}),
        ({"model": "one"}, {}),
    ],
    ids=["certain", "labelled", "labelled otherwise", "one target only", "nothing is uncertain", "a target by name"],
)
def test_who_needs_no_answer_asks_nobody(stage, fields, route):
    judge = judged(stage, **route)
    assert stage.ask(**fields).status_code == 200
    assert judge.asked == 0


def test_a_route_that_does_not_say_so_asks_nobody(stage):
    one, judge = stage.standin(name="one"), stage.speaking(Judge("translation"), "judge")
    stage.serve(one, judge)
    assert stage.ask().headers["x-router-task"] == "general"
    assert judge.asked == 0


FAULTS = [
    Fault("status", status=500),
    Fault("status", status=422),
    Fault("rate_limited"),
    Fault("unauthorized"),
    Fault("drop"),
    Fault("invalid_json"),
    Fault("empty_body"),
    Fault("content_filter"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind} {fault.status}")
def test_whatever_happens_to_the_question_the_request_goes_on(stage, fault):
    judge = staged(stage, stage.standin(name="judge", fault=fault))
    answer = stage.ask()
    assert (answer.status_code, answer.headers["x-router-task"]) == (200, "general")
    assert (answer.headers["x-router-target"], answer.headers["x-router-attempts"]) == ("one", "1")
    assert judge.asked == 1


def test_the_time_for_the_question_is_bounded_and_no_fault_of_the_target(stage):
    judge = staged(stage, stage.standin(name="judge", fault=Fault("hang")), detector={"ask": "judge", "timeout_ms": 50})
    started = time.monotonic()
    assert stage.ask().headers["x-router-target"] == "one"
    assert 0.05 <= time.monotonic() - started < 1
    stage.until(judge, lambda it: len(it.cancelled) == 1)
    with stage.http() as client:
        views = client.get("/v1/router/status").json()["targets"]
    assert {view["target"]: view["faults"] for view in views} == {"one": 0, "two": 0, "judge": 0}


def test_who_did_not_answer_is_left_alone_for_a_while(stage):
    judge = staged(stage, stage.standin(name="judge", fault=Fault("hang")), detector={"ask": "judge", "timeout_ms": 50})
    for number in range(5):
        assert stage.ask(**words(f"Hello {number}")).status_code == 200
    assert judge.asked == 1


def test_a_question_does_not_go_to_a_target_whose_breaker_is_open(stage):
    judge = staged(stage, stage.standin(name="judge", fault=Fault("insufficient_quota")))
    assert stage.ask(model="judge").status_code == 429
    before = judge.asked
    assert stage.ask().status_code == 200
    assert judge.asked == before


def test_of_a_long_request_only_both_ends_are_shown(stage):
    judge = judged(stage)
    stage.ask(**words("begin " + "x" * 50_000 + " end"))
    shown = json.loads(judge.requests[0].asked.body)["messages"][1]["content"]
    assert shown.startswith("<request>\nuser: begin xxx")
    assert shown.endswith("xxx end\n</request>")
    assert len(shown) < 4_100
