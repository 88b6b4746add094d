"""Which target first: scores, exclusions, ceilings and weights, each from facts alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from routing.strategies import OVER_CEILING, Score, Strategy, by_cost, by_speed, by_task, plan
from routing.types import Estimate, Facts, Plan, Refused, Speed, Target, Task, TaskKind


def target(name: str, **fields: Any) -> Target:
    return Target(name, "p", fields.pop("model", f"model-of-{name}"), **fields)


def facts(kind: TaskKind = "general", **fields: Any) -> Facts:
    return Facts(**{"task": Task(kind, 0.9), "input_tokens": 100, "output_tokens": 200, **fields})


def planned(score: Strategy, targets: list[Target], given: Facts, name: str = "task") -> Plan:
    return plan("auto", name, score, targets, given)


def order(made: Plan) -> list[str]:
    return [choice.target for choice in made.choices]


def reasons(made: Plan) -> dict[str, str]:
    return {excluded.target: excluded.reason for excluded in made.exclusions}


def costing(**expected: float) -> dict[str, Estimate]:
    return {name: Estimate(value, value / 2, value / 400) for name, value in expected.items()}


A, B, C = target("a"), target("b"), target("c")
ROUTE = by_task({"planning": ["c", "a"]}, ["a", "b", "c"])


# --- task


def test_a_task_with_a_list_is_asked_in_its_order_and_then_in_the_routes():
    made = planned(ROUTE, [A, B, C], facts("planning"))
    assert order(made) == ["c", "a", "b"]
    assert [choice.reason for choice in made.choices] == [
        "number 1 for planning",
        "number 2 for planning",
        "number 2 of the route",
    ]


def test_a_task_without_a_list_is_asked_in_the_order_of_the_route():
    assert order(planned(ROUTE, [A, B, C], facts("translation"))) == ["a", "b", "c"]


# --- cost


def test_the_cheapest_that_is_good_enough_comes_first_and_an_unknown_price_last():
    targets = [
        target("dear", quality={"default": 0.95}),
        target("cheap", quality={"default": 0.9, "planning": 0.5}),
        target("fair", quality={"default": 0.9}),
        target("unpriced", quality={"default": 1.0}),
    ]
    given = facts("planning", cost=costing(dear=900, cheap=1, fair=300), minimum_quality=0.9)
    made = planned(by_cost, targets, given, "cost")
    assert order(made) == ["fair", "dear", "cheap", "unpriced"]
    assert made.choices[0].reason == "0.000300 USD expected, quality 0.90"
    assert made.choices[2].reason == "0.000001 USD expected, quality 0.50 is below 0.90"
    assert made.choices[3].reason == "price unknown"


def test_the_cheapest_of_the_not_good_enough_comes_before_the_dearer_ones():
    given = facts(cost=costing(a=2_000_000_000, b=1_999_999_999, c=3), minimum_quality=1.0)
    assert order(planned(by_cost, [A, B, C], given, "cost")) == ["c", "b", "a"]


def test_a_free_target_is_the_cheapest_and_no_unknown_one():
    assert order(planned(by_cost, [A, B], facts(cost=costing(a=1, b=0)), "cost")) == ["b", "a"]


def test_the_same_cost_leaves_the_order_of_the_file():
    assert order(planned(by_cost, [C, A, B], facts(cost=costing(a=5, b=5, c=5)), "cost")) == ["c", "a", "b"]


# --- speed

SPEEDS = {"a": Speed(0.2, 10.0), "b": Speed(2.0, 200.0), "c": Speed(0.5, 100.0)}


@pytest.mark.parametrize(
    ("output_tokens", "expected"), [(1, ["a", "c", "b"]), (200, ["c", "b", "a"]), (20_000, ["b", "c", "a"])]
)
def test_the_shortest_expected_time_depends_on_the_length_of_the_answer(output_tokens, expected):
    given = facts(output_tokens=output_tokens, speed=SPEEDS)
    assert order(planned(by_speed, [A, B, C], given, "speed")) == expected


def test_a_target_that_was_never_seen_counts_as_usual_and_says_so():
    made = planned(by_speed, [A, C], facts(speed={"c": Speed(0.5, 100.0)}), "speed")
    assert [(choice.target, choice.reason, choice.seconds) for choice in made.choices] == [
        ("c", "2.50 s expected", 2.5),
        ("a", "5.00 s expected, not seen yet", None),
    ]


def test_a_pace_that_was_never_seen_is_not_taken_for_standstill():
    made = planned(by_speed, [A, C], facts(speed={"a": Speed(0.1, 0.0), "c": Speed(5.0, 50.0)}), "speed")
    assert [(choice.target, choice.seconds) for choice in made.choices] == [("a", 4.1), ("c", 9.0)]


def test_who_is_likely_to_be_late_comes_after_the_others_also_on_its_turn_to_be_tried():
    given = facts(output_tokens=20_000, speed=SPEEDS, max_latency=1.0, explore="b")
    made = planned(by_speed, [A, B, C], given, "speed")
    assert order(made) == ["c", "a", "b"]
    assert made.choices[2].reason == "102.00 s expected; first token after 2.00 s is late"


def test_the_target_whose_turn_it_is_comes_first():
    made = planned(by_speed, [A, B, C], facts(speed=SPEEDS, explore="a"), "speed")
    assert order(made) == ["a", "c", "b"]
    assert made.choices[0].reason == "20.20 s expected; its turn to be tried"


# --- hard facts

REFUSED = Refused("b", "open", 17.0)
EXCLUDED = [
    pytest.param({}, {"deny": frozenset({"b"})}, "denied by the request", id="denied"),
    pytest.param({}, {"only": frozenset({"a"})}, "denied by the request", id="not among only"),
    pytest.param(
        {"supports": frozenset({"tools"})},
        {"needs": frozenset({"vision", "audio", "tools"})},
        "lacks audio, vision",
        id="features",
    ),
    pytest.param({"context": 99}, {}, "context of 99 tokens is too small for 100", id="context"),
    pytest.param(
        {"quality": {"default": 0.79}},
        {"minimum_quality": 0.8, "strict_quality": True},
        "quality 0.79 is below the request's 0.80",
        id="quality",
    ),
    pytest.param({}, {"max_cost": 5.0}, f"{OVER_CEILING}: its price is unknown", id="price unknown"),
    pytest.param(
        {},
        {"max_cost": 5.0, "cost": costing(b=11, a=1)},
        f"{OVER_CEILING}: the shortest answer may cost 0.000006 USD of 0.000005",
        id="too expensive",
    ),
    pytest.param({}, {"breaker": {"b": REFUSED}}, "breaker: open", id="breaker"),
]


@pytest.mark.parametrize("score", [ROUTE, by_cost, by_speed], ids=["task", "cost", "speed"])
@pytest.mark.parametrize(("fields", "given", "reason"), EXCLUDED)
def test_a_hard_fact_excludes_whatever_the_strategy(score, fields, given, reason):
    good = target("a", supports=frozenset({"tools", "vision", "audio"}), quality={"default": 1.0})
    known = facts(**{"cost": costing(a=1), **given})
    made = planned(score, [target("b", **fields), good], known)
    assert (order(made), reasons(made)) == (["a"], {"b": reason})


def test_only_a_breakers_no_comes_with_the_time_to_ask_again():
    made = planned(ROUTE, [A, B], facts(breaker={"b": REFUSED}, deny=frozenset({"a"})))
    assert [excluded.refused for excluded in made.exclusions] == [None, REFUSED]


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        ({"context": 100}, {}),
        ({"context": None}, {"input_tokens": 10**9}),
        ({"quality": {"default": 0.1}}, {"minimum_quality": 0.8}),
        ({"quality": {"default": 0.8}}, {"minimum_quality": 0.8, "strict_quality": True}),
        ({}, {"max_cost": 5.0, "cost": costing(a=5)}),
        ({}, {"breaker": {"b": REFUSED}}),
    ],
    ids=["fits exactly", "unknown context", "soft quality", "quality reached", "ceiling reached", "another's breaker"],
)
def test_what_does_not_exclude(fields, given):
    assert order(planned(ROUTE, [target("a", **fields)], facts(**given))) == ["a"]


# --- ceilings and limits


@pytest.mark.parametrize(
    ("max_cost", "asked", "max_output", "imposed"),
    [
        pytest.param(None, None, None, None, id="nothing asked"),
        pytest.param(None, 500, 1_000, None, id="below the model's most"),
        pytest.param(None, 5_000, 1_000, 1_000, id="above the model's most"),
        pytest.param(None, None, 1_000, None, id="the model's own business"),
        pytest.param(1_000.0, None, None, 450, id="the ceiling"),
        pytest.param(1_000.0, 450, None, None, id="asked for what is affordable"),
        pytest.param(1_000.0, 451, None, 450, id="asked for one more"),
        pytest.param(1_000.0, None, 450, None, id="the model cannot do more"),
        pytest.param(1_000.0, 5_000, 300, 300, id="the model stops before the ceiling"),
        pytest.param(1_000.0, 5_000, 800, 450, id="the ceiling before the model"),
    ],
)
def test_what_is_asked_for_stays_below_the_ceiling_and_what_the_model_can_do(max_cost, asked, max_output, imposed):
    given = facts(max_cost=max_cost, output_limit=asked, cost={"a": Estimate(900.0, 100.0, 2.0)})
    (choice,) = planned(ROUTE, [target("a", max_output=max_output)], given).choices
    assert choice.output_limit == imposed


def test_who_is_cut_short_comes_last_and_who_may_say_most_before_the_others():
    estimates = {"a": Estimate(900, 100, 20), "b": Estimate(900, 100, 5), "c": Estimate(500, 100, 2)}
    made = planned(ROUTE, [A, B, C], facts(max_cost=600.0, cost=estimates))
    assert [(choice.target, choice.output_limit) for choice in made.choices] == [("c", 250), ("b", 100), ("a", 25)]
    assert [choice.reason.endswith("the ceiling cuts its answer short") for choice in made.choices] == [
        False,
        True,
        True,
    ]


def test_a_free_answer_may_be_as_long_as_it_likes():
    (choice,) = planned(ROUTE, [A], facts(max_cost=1.0, cost={"a": Estimate(0, 0, 0)})).choices
    assert choice.output_limit is None


# --- weights


def pair(**fields: Any) -> list[Target]:
    return [target("a", model="m", weight=3.0, **fields), target("b", model="m", weight=1.0, **fields), C]


def firsts(score: Strategy, targets: list[Target], given: Facts, name: str) -> Counter[str]:
    draws = [(step + 0.5) / 400 for step in range(400)]
    return Counter(order(planned(score, targets, replace(given, draw=draw), name))[0] for draw in draws)


def test_equals_share_by_their_weights():
    assert firsts(ROUTE, pair(), facts(), "task") == {"a": 300, "b": 100}


def test_who_was_drawn_says_so_and_the_others_keep_their_order():
    made = planned(ROUTE, pair(), facts(draw=0.9))
    assert order(made) == ["b", "a", "c"]
    assert made.choices[0].reason == "number 2 of the route; drawn by weight"
    scores = [choice.score for choice in made.choices]
    assert scores == sorted(scores, reverse=True)


def test_who_is_excluded_leaves_its_share_to_the_others():
    refused = {"a": Refused("a", "open", 1.0)}
    assert firsts(ROUTE, pair(), facts(breaker=refused), "task") == {"b": 400}


@pytest.mark.parametrize(
    "targets",
    [
        [target("a", model="m", weight=1.0), target("b", model="n", weight=1.0)],
        [target("a", model="m", weight=1.0), target("b", model="m")],
        [target("a", model="m"), target("b", model="m", weight=1.0)],
        [target("a", model="m", weight=1.0), C, target("b", model="m", weight=1.0)],
    ],
    ids=["another model", "no weight behind", "no weight before", "no neighbours"],
)
def test_others_do_not_share(targets):
    score = by_task({}, [each.name for each in targets])
    assert firsts(score, targets, facts(), "task") == {"a": 400}


def test_a_pair_behind_the_first_shares_its_place():
    score = by_task({}, ["c", "a", "b"])
    seconds = Counter(order(planned(score, [C, *pair()[:2]], facts(draw=draw)))[1] for draw in (0.1, 0.5, 0.9))
    assert seconds == {"a": 2, "b": 1}


def test_regions_share_only_while_their_cost_is_the_same():
    same, dearer = costing(a=5, b=5, c=9), costing(a=5, b=6, c=9)
    assert firsts(by_cost, pair(), facts(cost=same), "cost") == {"a": 300, "b": 100}
    assert firsts(by_cost, pair(), facts(cost=dearer), "cost") == {"a": 400}


def test_the_quicker_region_is_asked_whatever_its_weight():
    speed = {"a": Speed(0.9, 50.0), "b": Speed(0.2, 50.0), "c": Speed(3.0, 50.0)}
    assert firsts(by_speed, pair(), facts(speed=speed), "speed") == {"b": 400}


# --- any strategy


def test_the_strategy_alone_decides_the_order_and_ties_keep_the_files():
    def score(one: Target, known: Facts) -> Score:
        return Score(float(one.name == "c") * known.input_tokens, f"{one.name} it is")

    made = planned(score, [B, A, C], facts(), "mine")
    assert (order(made), made.strategy, made.route, made.task.kind) == (["c", "b", "a"], "mine", "auto", "general")
    assert [choice.reason for choice in made.choices] == ["c it is", "b it is", "a it is"]
