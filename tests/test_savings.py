"""What is saved against always using the most expensive target that is good enough, from the rule to the usage."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from local.providers import Fault
from routing.pricing import Rates
from routing.savings import adequate, of_a_hit, with_savings
from routing.types import Choice, Cost, Exclusion, Facts, Plan, Refused, Target, Task, Usage
from routing.usage import Counts, Of, lines_of
from tests.routes_for import ONCE, Stage

TASK = Task("planning", 1.0)
USAGE = Usage(1_000, 500, cached=400, reasoning=100)
CHEAP, DEAR = Rates(1.0, 2.0), Rates(3.0, 10.0, cached_input=0.5, reasoning=20.0)
DEAR_COST = 600 * 3 + 400 * 0.5 + 400 * 10 + 100 * 20


def target(name: str, **quality: float) -> Target:
    return Target(name, "p", "m", quality=quality)


def plan(choices: str, *exclusions: Exclusion) -> Plan:
    return Plan("auto", "cost", TASK, tuple(Choice(name, 0.0, "") for name in choices), exclusions)


@pytest.mark.parametrize(
    ("made", "names"),
    [
        pytest.param(plan("ab"), "ab", id="those that may be asked"),
        pytest.param(plan("abc"), "ab", id="not whose quality is too low for the task"),
        pytest.param(plan("a", Exclusion("b", "lacks tools")), "a", id="not who cannot do it"),
        pytest.param(
            plan("a", Exclusion("b", "open", Refused("b", "open", 9.0))), "ab", id="also who is down just now"
        ),
    ],
)
def test_adequate_is_who_could_have_answered_well(made: Plan, names: str):
    targets = {"a": target("a", default=0.9), "b": target("b", planning=0.8), "c": target("c", default=1, planning=0.7)}
    assert [each.name for each in adequate(made, Facts(TASK, 1, 1, minimum_quality=0.8), targets)] == list(names)


@pytest.mark.parametrize(
    ("paid", "others", "saved"),
    [
        pytest.param(2_000, [CHEAP, DEAR], DEAR_COST - 2_000, id="the dearest counts"),
        pytest.param(2_000, [CHEAP, None], 0, id="an unknown price does not"),
        pytest.param(9_000, [DEAR], 0, id="the dearest itself saves nothing"),
        pytest.param(2_000, [], 0, id="nobody else"),
        pytest.param(None, [DEAR], None, id="what was paid is unknown"),
    ],
)
def test_the_same_tokens_are_priced_at_the_others(paid: int | None, others: list[Any], saved: int | None):
    assert with_savings(Cost(paid, "v"), USAGE, others).saved_micro_usd == saved


@pytest.mark.parametrize(
    ("first", "saved"),
    [(Cost(100, "v", 50), 150), (Cost(100, "v"), 100), (Cost(None, "v"), None), (None, None)],
)
def test_a_kept_answer_saves_all_that_it_would_have_cost(first: Cost | None, saved: int | None):
    assert (of_a_hit(first).micro_usd, of_a_hit(first).saved_micro_usd) == (0, saved)


def test_rows_of_a_build_that_did_not_count_savings_are_read_as_they_are():
    of = Of("app", "one", "general", "auto")
    older, newer = [*of, 1, 0, 0, 2, 3, 4, 0], [*of, 1, 0, 0, 2, 3, 4, 0, 5]
    assert [line.counts for line in lines_of("2026-01-01", {"lines": [older, newer]})] == [
        Counts(1, 0, 0, 2, 3, 4, 0, 0),
        Counts(1, 0, 0, 2, 3, 4, 0, 5),
    ]


PRICES = {"one": {"price": {"input": 1.0, "output": 2.0}}, "two": {"price": {"input": 5.0, "output": 20.0}}}


def usage(stage: Stage, **query: str) -> Any:
    with stage.http() as client:
        return client.get("/v1/router/usage", params=query)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_the_usage_tells_what_was_saved(stage: Stage, stream: bool):
    stage.serve(stage.standin(name="one"), stage.standin(name="two"), targets=PRICES)
    for model in ("chat", "chat", "two"):
        assert stage.ask(model=model, stream=stream).status_code == 200
    with stage.http() as client:
        decisions = client.get("/v1/router/decisions").json()["data"]
    used = next(each["usage"] for each in decisions if each["target"] == "one")
    each = used["input"] * (5 - 1) + used["output"] * (20 - 2)
    assert [decision["cost"]["saved_micro_usd"] for decision in decisions] == [0, each, each]
    (sum_,) = usage(stage).json()["data"]
    assert sum_["saved_usd"] == pytest.approx(2 * each / 1e6)
    by_target = {row["target"]: row["saved_usd"] for row in usage(stage, by="target").json()["data"]}
    assert by_target == {"one": pytest.approx(2 * each / 1e6), "two": 0}
    (row,) = csv.DictReader(io.StringIO(usage(stage, format="csv").text))
    assert float(row["saved_usd"]) == pytest.approx(2 * each / 1e6)


def test_a_hit_in_the_cache_saves_what_the_dearest_would_have_cost(stage: Stage):
    stage.serve(stage.standin(name="one"), stage.standin(name="two"), targets=PRICES, route={"cache": {"seconds": 60}})
    for _ in range(2):
        assert stage.ask(temperature=0).status_code == 200
    with stage.http() as client:
        hit, first = client.get("/v1/router/decisions").json()["data"]
    assert (hit["from_cache"], hit["cost"]["micro_usd"]) == (True, 0)
    assert hit["cost"]["saved_micro_usd"] == first["cost"]["micro_usd"] + first["cost"]["saved_micro_usd"] > 0


def test_a_fallback_to_the_dearest_saves_nothing(stage: Stage):
    broken = stage.standin(name="one", fault=Fault("status", status=503))
    stage.serve(broken, stage.standin(name="two"), targets=PRICES, route={"retry": ONCE})
    assert stage.ask().headers["x-router-target"] == "two"
    (row,) = usage(stage).json()["data"]
    assert (row["saved_usd"], row["usd"] > 0) == (0, True)
