"""Equal requests and the cache: who shares an answer, what is never kept, and how it is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from local.providers import Fault
from routing.broadcast import Broadcast, Replay
from routing.cache import LARGEST, Cache, Kept, Terms, cacheable, complete, key_of
from routing.features import AskedFacts
from routing.types import Caller, Decision, Plan, Task
from tests.conftest import Clock
from tests.routes_for import CHAT, CHAT_PATH, Stage, chat_body, events, heard, raw_request, text_of

TERMS = Terms(60.0, 2)
FACTS = AskedFacts(Task(), 1, 1)
DECISION = Decision("dec_1", 0.0, "app", "chat", Plan("chat", "task", Task(), ()), FACTS)


def kept(text: bytes = b'{"finish_reason":"stop"}') -> Kept:
    return Kept((text,), DECISION, "m", (), None)


def test_an_answer_is_there_until_its_time_is_over(clock: Clock):
    cache = Cache(clock)
    cache.put("chat", "k", kept(), TERMS)
    clock.advance(59.9)
    assert cache.get("chat", "k") == kept()
    clock.advance(0.1)
    assert cache.get("chat", "k") is None
    assert (len(cache), cache.bytes) == (0, 0)


def test_the_one_that_was_not_asked_for_longest_leaves_first(clock: Clock):
    cache = Cache(clock)
    for key in ("a", "b"):
        cache.put("chat", key, kept(), TERMS)
    cache.get("chat", "a")
    cache.put("other", "b", kept(), TERMS)
    cache.put("chat", "c", kept(), TERMS)
    assert [key for key in ("a", "b", "c") if cache.get("chat", key)] == ["a", "c"]
    assert cache.get("other", "b")


def test_memory_is_bounded_over_all_routes(clock: Clock):
    cache = Cache(clock, most_bytes=1_000)
    for number in range(100):
        cache.put(f"route-{number % 5}", str(number), kept(b"x" * 90), replace(TERMS, max_entries=100))
    assert cache.bytes <= 1_000
    assert len(cache) == 11
    cache.put("chat", "large", kept(b"x" * (LARGEST + 1)), TERMS)
    assert cache.get("chat", "large") is None


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        pytest.param(b'{"choices":[{"finish_reason":"stop"}]}', True, id="stop"),
        pytest.param(b'{"choices":[{"finish_reason":"tool_calls"}]}', True, id="tools"),
        pytest.param(b'{"choices":[{"finish_reason": "length"}]}', False, id="cut by length"),
        pytest.param(b'{"choices":[{"finish_reason":"content_filter"}]}', False, id="cut by a filter"),
        pytest.param(b'{"stop_reason":"end_turn"}', True, id="messages"),
        pytest.param(b'{"stop_reason":"max_tokens"}', False, id="messages cut"),
        pytest.param(b'{"status":"incomplete"}', False, id="responses cut"),
        pytest.param(b'data: {"choices":[]}\n\ndata: {"error":{"message":"x"}}\n\n', False, id="error in a stream"),
        pytest.param(b'{"content":"say \\"finish_reason\\":\\"length\\""}', True, id="only a text about it"),
        pytest.param(b"", True, id="vectors of nothing"),
    ],
)
def test_only_an_answer_that_came_to_its_own_end_is_kept(answer: bytes, whole: bool):
    assert complete((answer,)) is whole


@pytest.mark.parametrize(
    ("fields", "terms", "allowed"),
    [
        pytest.param({}, TERMS, True, id="no temperature is no wish for chance"),
        pytest.param({"temperature": 0}, TERMS, True, id="zero"),
        pytest.param({"temperature": 0.1}, TERMS, False, id="chance"),
        pytest.param({"temperature": 0.1}, replace(TERMS, max_temperature=0.3), True, id="chance that is allowed"),
        pytest.param({"tools": [{}]}, TERMS, False, id="tools"),
        pytest.param({"functions": [{}]}, TERMS, False, id="what tools were called before"),
        pytest.param({"tools": [{}]}, replace(TERMS, tools=True), True, id="tools that are allowed"),
        pytest.param({"tools": []}, TERMS, True, id="no tools"),
        pytest.param({"previous_response_id": "r"}, TERMS, False, id="what a provider remembers"),
    ],
)
def test_which_requests_may_get_an_old_answer(fields: dict[str, Any], terms: Terms, allowed: bool):
    assert cacheable(fields, terms) is allowed


APP = Caller("app")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(({"a": 1, "b": 2}, APP), ({"b": 2, "a": 1}, APP), True, id="order"),
        pytest.param(({"a": 1, "stream": False, "n": None}, APP), ({"a": 1}, APP), True, id="said and left out"),
        pytest.param(({"a": 1, "stream": True}, APP), ({"a": 1}, APP), False, id="streamed or not"),
        pytest.param(({"a": 1}, APP), ({"a": 2}, APP), False, id="another request"),
        pytest.param(({}, APP), ({}, Caller("bob")), False, id="another caller"),
        pytest.param(({}, Caller("a", groups=("g",))), ({}, Caller("b", groups=("g",))), True, id="one group"),
        pytest.param(({}, Caller("a", groups=("g",))), ({}, Caller("b", groups=("h",))), False, id="two groups"),
        pytest.param(({}, Caller("g")), ({}, Caller("b", groups=("g", "alone"))), False, id="named like a group"),
        pytest.param(
            ({}, Caller("a", groups=("g",))),
            ({}, Caller("b", groups=("g",), targets=frozenset(["x"]))),
            False,
            id="may use less",
        ),
    ],
)
def test_equal_requests_of_those_who_may_share(one: Any, other: Any, same: bool):
    assert (key_of(*one) == key_of(*other)) is same


async def test_everybody_hears_a_broadcast_from_its_beginning_and_its_failure():
    ended: list[bool] = []
    broadcast = Broadcast(Replay([b"a", b"b"]), lambda: ended.append(True))
    first, second = broadcast.listen(), broadcast.listen()
    assert await anext(first) == b"a"
    assert [piece async for piece in second] == [b"a", b"b"]
    assert [piece async for piece in first] == [b"b"]
    for listener in (first, first, second):
        listener.leave()
    assert ended == [True]

    class Broken(Replay):
        async def __anext__(self) -> bytes:
            raise ZeroDivisionError

    listener = Broadcast(Broken([]), lambda: None).listen()
    with pytest.raises(ZeroDivisionError):
        await anext(listener)


# Through HTTP, on both hosts.

CACHE = {"cache": {"seconds": 60}}


def test_the_second_of_two_equal_requests_asks_nobody(stage: Stage):
    alpha = stage.standin(name="alpha")
    stage.serve(alpha, route=CACHE)
    answers = [stage.ask(), stage.ask(), stage.ask(temperature=0.7), stage.ask(temperature=0.7)]
    assert [answer.headers["x-router-cache"] for answer in answers] == ["miss", "hit", "miss", "miss"]
    assert answers[0].content == answers[1].content
    assert alpha.asked == 3
    hit = answers[1].headers
    assert (hit["x-router-target"], hit["x-router-attempts"]) == ("alpha", "0")
    assert hit["x-router-decision-id"] != answers[0].headers["x-router-decision-id"]
    with stage.http() as client:
        decision = client.get(f"/v1/router/decisions/{hit['x-router-decision-id']}").json()
        used = client.get("/v1/router/usage", params={"by": "caller"}).json()["data"][0]
    assert (decision["from_cache"], decision["attempts"], decision["cost"]["micro_usd"]) == (True, [], 0)
    assert (used["requests"], used["cached"]) == (4, 1)


def test_a_stream_is_played_again_byte_for_byte(stage: Stage):
    alpha = stage.standin(name="alpha")
    stage.serve(alpha, route=CACHE)
    first, again = stage.ask(stream=True), stage.ask(stream=True)
    assert [first.headers["x-router-cache"], again.headers["x-router-cache"]] == ["miss", "hit"]
    assert first.text == again.text
    assert events(again.text)[-1] == "[DONE]"
    assert text_of(events(again.text)) == heard(alpha)
    assert alpha.asked == 1


def test_an_answer_that_was_cut_is_not_kept(stage: Stage):
    alpha = stage.standin(name="alpha")
    stage.serve(alpha, route=CACHE)
    assert [stage.ask(max_tokens=1).headers["x-router-cache"] for _ in range(2)] == ["miss", "miss"]
    assert [stage.ask(max_tokens=1, stream=True).headers["x-router-cache"] for _ in range(2)] == ["miss", "miss"]
    assert alpha.asked == 4


def test_a_route_without_a_cache_does_not_speak_of_one(stage: Stage):
    alpha = stage.standin(name="alpha")
    stage.serve(alpha)
    assert [stage.ask().headers.get("x-router-cache") for _ in range(2)] == [None, None]
    assert alpha.asked == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_equal_requests_at_the_same_time_are_one_call(stage: Stage, stream: bool):
    alpha = stage.standin(name="alpha", latency=0.4)
    stage.serve(alpha, route={"coalesce": True})
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: stage.ask(stream=stream), range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert sorted(answer.headers["x-router-cache"] for answer in answers) == ["hit"] * 5 + ["miss"]
    assert alpha.asked == 1
    assert stage.ask(stream=stream).status_code == 200
    assert alpha.asked == 2, "nothing is kept beyond the call"


def test_who_leaves_does_not_take_the_call_of_the_others_along(stage: Stage):
    alpha = stage.standin(name="alpha", latency=1.0)
    stage.serve(alpha, route={"coalesce": True})
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body(), "content-type: application/json"))
        stage.until(alpha, lambda standin: standin.running == 1)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(stage.ask)
            with stage.http() as client:
                for _ in range(20):  # the other one has come by the time that these are answered
                    client.get("/health")
            connection.close()
            assert other.result().status_code == 200
    assert alpha.asked == 1


def test_who_leaves_a_stream_does_not_take_it_from_the_others(stage: Stage):
    alpha = stage.standin(name="alpha", tokens=30, tokens_per_second=10.0)
    stage.serve(alpha, route={**CACHE, "coalesce": True})
    body = {**CHAT, "stream": True}
    with stage.http() as client, client.stream("POST", CHAT_PATH, json=body) as other:
        with stage.http() as leaving, leaving.stream("POST", CHAT_PATH, json=body) as first:
            next(first.iter_bytes())
            pieces = other.iter_bytes()
            said = next(pieces)
        alpha.behave(tokens_per_second=None)
        said += b"".join(pieces)
    assert events(said.decode())[-1] == "[DONE]"
    again = stage.ask(stream=True)
    assert (again.headers["x-router-cache"], again.content) == ("hit", said)
    assert alpha.asked == 1


def test_a_failure_is_told_to_all_and_kept_for_nobody(stage: Stage):
    alpha = stage.standin(name="alpha", fault=Fault("status", status=400))
    stage.serve(alpha, route={**CACHE, "coalesce": True})
    assert stage.ask().status_code == 400
    alpha.behave(fault=None)
    with stage.http() as client:
        assert client.post(CHAT_PATH, json=CHAT).headers["x-router-cache"] == "miss"
