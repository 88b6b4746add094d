"""A failed attempt costs nothing, unless its provider says what it has counted: then it is charged like an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from local.providers import Fault, StandIn
from local.standin_behaviour import Behaviour
from local.standin_openai import OpenAI
from local.standin_wire import Answer, Asked, Stream, Whole
from routing.errors import ProviderError
from routing.providers.anthropic_native import read_message
from routing.providers.anthropic_reply import completion
from routing.providers.responses import read_response, watch
from routing.types import Usage
from tests.routes_for import KEY, ONCE, PROVIDER_KEY, Stage, events

PRICED = {"price": {"input": 1.0, "output": 10.0}, "max_output": 100}
COUNTED = {"prompt_tokens": 40, "completion_tokens": 60, "total_tokens": 100}
PAID = 40e-6 + 600e-6  # USD for COUNTED


class Billing(OpenAI):
    """Has worked, and counts it, but the answer is none."""

    def __init__(self, **reply: Any) -> None:
        self._reply = {"id": "x", "model": "m", "usage": COUNTED, **reply}

    def chat(self, asked: Asked, behaviour: Behaviour) -> Answer:
        event = f"data: {json.dumps(self._reply)}\n\n".encode()
        whole = json.dumps(self._reply).encode()
        return Stream((), (event,), ()) if json.loads(asked.body).get("stream") else Whole(200, whole)


class InOnePiece(OpenAI):
    """Answers a streamed request in one piece."""

    def chat(self, asked: Asked, behaviour: Behaviour) -> Answer:
        choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        return Whole(200, json.dumps({"id": "x", "choices": [choice], "usage": COUNTED}).encode())


def serve(stage: Stage, *standins: StandIn, **caller: Any) -> None:
    callers = {"tester": {"key": "env:ROUTER_TEST_CALLER", **caller}}
    targets = {standin.name: PRICED for standin in standins}
    stage.serve(*standins, callers=callers, targets=targets, route={"retry": ONCE})


def used(stage: Stage, *by: str) -> dict[str, dict[str, Any]]:
    with stage.http(headers={"authorization": f"Bearer {KEY}"}) as client:
        rows = client.get("/v1/router/usage", params={"by": ",".join(by)}).json()["data"]
    return {row[by[0]]: row for row in rows}


@pytest.mark.parametrize(
    ("dialect", "stream"),
    [
        pytest.param(Billing(choices=[]), False, id="nothing in it"),
        pytest.param(Billing(choices=[]), True, id="a stream with nothing in it"),
        pytest.param(InOnePiece(), True, id="no stream"),
    ],
)
def test_an_attempt_that_was_billed_is_charged_beside_the_answer(dialect: OpenAI, stream: bool, stage: Stage):
    bills, answers = stage.speaking(dialect, "bills"), stage.standin(name="answers", tokens=10)
    serve(stage, bills, answers)
    answer = stage.ask(stream=stream)
    assert (answer.status_code, answer.headers["x-router-target"]) == (200, "answers")
    rows = used(stage, "target")
    assert (rows["bills"]["input_tokens"], rows["bills"]["output_tokens"]) == (40, 60)
    assert (rows["bills"]["requests"], rows["answers"]["requests"]) == (0, 1)
    assert rows["bills"]["usd"] == pytest.approx(PAID)
    assert rows["answers"]["output_tokens"] == 10


def test_a_request_that_nobody_answers_is_charged_what_was_billed(stage: Stage):
    serve(stage, stage.speaking(Billing(choices=[]), "bills"), tokens_per_minute=100)
    failed = stage.ask()
    assert failed.status_code == 502
    (attempt,) = failed.json()["router"]["attempts"]
    assert attempt["usage"]["output"] == 60
    row = used(stage, "caller")["tester"]
    assert (row["requests"], row["failed"], row["input_tokens"], row["output_tokens"]) == (1, 1, 40, 60)
    assert row["usd"] == pytest.approx(PAID)
    assert stage.ask().headers["x-ratelimit-remaining-tokens"] == "0"


def test_what_was_billed_in_vain_is_taken_off_the_budget(stage: Stage):
    serve(stage, stage.speaking(Billing(choices=[]), "bills"), budget={"usd": 2.5 * PAID, "per": "month"})
    codes = [stage.ask(max_tokens=60).status_code for _ in range(4)]
    assert codes[:2] == [502, 502]
    assert codes[3] == 429


@pytest.mark.parametrize("kind", ["cut", "error_event", "unfinished"])
def test_what_was_delivered_before_a_cut_is_charged_and_the_request_has_failed(kind: Any, stage: Stage):
    alpha = stage.standin(name="alpha", tokens=50, fault=Fault(kind, after=21))
    serve(stage, alpha)
    said = events(stage.ask(stream=True).text)
    assert "error" in said[-1]
    row = used(stage, "target")["alpha"]
    assert (row["requests"], row["failed"]) == (1, 1)
    assert 15 <= row["output_tokens"] <= 51
    assert row["usd"] == pytest.approx(row["input_tokens"] * 1e-6 + row["output_tokens"] * 1e-5)


def test_an_attempt_whose_bill_nobody_knows_costs_nothing(stage: Stage):
    alpha = stage.standin(name="alpha", fault=Fault("status", status=503), keys=(PROVIDER_KEY,))
    serve(stage, alpha)
    assert stage.ask().status_code == 502
    assert used(stage, "caller")["tester"]["usd"] == 0


MESSAGE = {"id": "m", "type": "message", "model": "c", "usage": {"input_tokens": 40, "output_tokens": 60}}
RESPONSE = {"id": "r", "model": "m", "usage": {"input_tokens": 40, "output_tokens": 60}}
READERS: list[tuple[str, Callable[[], Any]]] = [
    ("a message without content", lambda: completion(json.dumps({**MESSAGE, "stop_reason": "end_turn"}).encode())),
    ("a message that is passed on", lambda: read_message(json.dumps(MESSAGE).encode())),
    ("a response that failed", lambda: read_response(json.dumps({**RESPONSE, "error": {"code": "x"}}).encode())),
    ("a response without output", lambda: read_response(json.dumps({**RESPONSE, "status": "failed"}).encode())),
    ("a streamed response", lambda: watch({"type": "response.failed", "response": {**RESPONSE, "error": {}}})),
]


@pytest.mark.parametrize("read", [read for _, read in READERS], ids=[name for name, _ in READERS])
def test_every_protocol_keeps_what_was_counted(read: Callable[[], Any]):
    with pytest.raises(ProviderError) as refused:
        read()
    assert refused.value.usage == Usage(input=40, output=60)
