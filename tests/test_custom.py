"""Strategies that somebody else wrote: checked at load, held to their time, and never able to fail a request."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from routing import config, custom, pricing
from routing.custom import REST_SECONDS, Custom
from routing.features import Features
from routing.planner import Lots, Planner
from routing.strategies import Score
from routing.types import Facts, Plan, Refused, Speed, Target, Task
from tests import cranked

DOC = Path(__file__).resolve().parent.parent / "docs" / "strategies.md"
ROUTES = """
[providers.p]
type = "openai"
[targets.a]
provider = "p"
model = "m"
quality = { default = 0.5 }
[targets.b]
provider = "p"
model = "n"
[routes.auto]
targets = ["a", "b"]
strategy = "own_strategies:STRATEGY"
[routes.auto.tasks]
planning = ["b"]
"""


def backwards(target: Target, facts: Facts) -> Score:
    return Score(float(target.name == "b"), f"{target.name} by my own rule")


async def later(target: Target, facts: Facts) -> Score:
    return Score(1.0, "")


def raising(target: Target, facts: Facts) -> Score:
    raise KeyError("secret text")


def leaving(target: Target, facts: Facts) -> Score:
    raise SystemExit(3)


def stopping(target: Target, facts: Facts) -> Score:
    raise StopIteration


def nothing(target: Target, facts: Facts) -> Any:
    return None


def infinite(target: Target, facts: Facts) -> Score:
    return Score(float("nan"), "")


def speechless(target: Target, facts: Facts) -> Score:
    return Score(1.0, object())  # type: ignore[arg-type]


def exact(target: Target, facts: Facts) -> Score:
    return Score(Fraction(len(target.name), 3), "a third")  # type: ignore[arg-type]


def yielding(target: Target, facts: Facts) -> Iterator[Score]:
    yield Score(1.0, "")


class Waited:
    """An object whose call has to be waited for."""

    async def __call__(self, target: Target, facts: Facts) -> Score:
        return Score(1.0, "")


def meddling(target: Target, facts: Any) -> Score:
    """Tries to change everything it is given."""
    attempts = [
        lambda: setattr(facts, "deny", frozenset({"a"})),
        lambda: setattr(target, "model", "x"),
        lambda: facts.speed.clear(),
        lambda: facts.shares.clear(),
        lambda: facts.cost.update(a=1),
        lambda: facts.breaker.pop("a"),
        lambda: target.quality.update(default=1.0),  # type: ignore[attr-defined]
    ]
    for attempt in attempts:
        with pytest.raises((AttributeError, TypeError, dataclasses.FrozenInstanceError)):
            attempt()
    return Score(1.0, "harmless")


class Hanging:
    """Does not come back before it is let go, and counts how often it was asked."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), 0

    def __call__(self, target: Target, facts: Facts) -> Score:
        self.asked += 1
        self.go.wait(10)
        return Score(1.0, "at last")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the owner of the router: its functions are put into it by the tests."""
    made = ModuleType("own_strategies")
    for function in (
        backwards,
        later,
        raising,
        leaving,
        stopping,
        nothing,
        infinite,
        meddling,
        speechless,
        exact,
        yielding,
    ):
        setattr(made, function.__name__, function)
    made.waited = Waited()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_strategies", made)
    return made


@pytest.fixture
def hanging(module: ModuleType) -> Iterator[Hanging]:
    one = Hanging()
    module.hanging = one  # type: ignore[attr-defined]
    yield one
    one.go.set()


class Still:
    def refusal(self, target: str) -> Refused | None:
        return None

    def speed(self, target: str) -> Speed | None:
        return Speed(0.5, 50.0)


def planner(text: str) -> Planner:
    loaded = config.parse(text, {})
    strategies, errors = custom.load(loaded)
    assert errors == []
    return Planner(loaded, Still(), pricing.bundled, Custom(strategies))


async def planned(made: Planner, features: Features = Features(100), task: Task = Task()) -> Plan:  # noqa: B008 - frozen
    plan, _ = await made.plan(features, made._config.routes["auto"], task, Lots())
    return plan


def names(plan: Plan) -> list[str]:
    return [choice.target for choice in plan.choices]


def with_strategy(name: str) -> str:
    return ROUTES.replace("STRATEGY", name)


async def test_a_custom_strategy_decides(module):
    plan = await planned(planner(with_strategy("backwards")))
    assert (names(plan), plan.strategy, plan.note) == (["b", "a"], "own_strategies:backwards", "")
    assert plan.choices[0].reason == "b by my own rule"


async def test_any_kind_of_number_will_do_and_is_told_as_json_can(module):
    plan = await planned(planner(with_strategy("exact")))
    assert [choice.score for choice in plan.choices] == [1 / 3, 1 / 3]
    assert all(type(choice.score) is float for choice in plan.choices)


async def test_who_may_not_be_asked_is_out_whatever_it_says(module):
    plan = await planned(planner(with_strategy("backwards")), Features(100, deny=frozenset({"b"})))
    assert names(plan) == ["a"]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("raising", "own_strategies:raising raised KeyError"),
        ("leaving", "own_strategies:leaving raised RuntimeError"),
        ("stopping", "own_strategies:stopping raised RuntimeError"),
        ("nothing", "own_strategies:nothing raised TypeError"),
        ("infinite", "own_strategies:infinite raised TypeError"),
        ("speechless", "own_strategies:speechless raised TypeError"),
    ],
)
async def test_one_that_fails_is_reported_and_replaced_by_the_routes_order(module, caplog, function, why):
    plan = await planned(planner(with_strategy(function)), task=Task("planning", 0.9))
    assert (names(plan), plan.strategy, plan.note) == (["a", "b"], "task", why)
    assert caplog.messages == [f"A strategy was replaced by the route's order: {why}"]
    assert "secret" not in caplog.text


async def test_one_that_is_slow_is_replaced_in_time_and_then_left_alone(hanging):
    made = planner(with_strategy("hanging"))
    started = asyncio.get_running_loop().time()
    plan = await planned(made)
    assert asyncio.get_running_loop().time() - started < 1
    assert (names(plan), plan.note) == (["a", "b"], "own_strategies:hanging took more than 50 ms")
    plan = await planned(made)
    assert (names(plan), plan.note) == (["a", "b"], "own_strategies:hanging rests after being slow")
    assert hanging.asked == 1


def test_after_its_rest_it_is_asked_again(hanging):
    made = planner(with_strategy("hanging"))

    async def both() -> list[str]:
        first = await planned(made)
        await asyncio.sleep(REST_SECONDS)
        second = await planned(made)
        return [first.note, second.note]

    assert cranked.run(both()) == ["own_strategies:hanging took more than 50 ms"] * 2
    assert hanging.asked == 2


async def test_many_slow_ones_hold_up_nobody_else(hanging):
    made = planner(with_strategy("hanging"))
    notes = [plan.note for plan in await asyncio.gather(*(planned(made) for _ in range(40)))]
    assert notes == ["own_strategies:hanging took more than 50 ms"] * 40
    assert await asyncio.to_thread(lambda: "free") == "free"  # the loop's own threads are not used up


async def test_nothing_that_it_is_given_can_be_changed(module):
    plan = await planned(planner(with_strategy("meddling")))
    assert [choice.reason for choice in plan.choices] == ["harmless", "harmless"]


# --- at load

REFUSED = [
    (
        "own_strategies:missing",
        "cannot be imported: AttributeError: module 'own_strategies' has no attribute 'missing'",
    ),
    ("no_such_module:f", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
    ("broken_strategies:f", "cannot be imported: ZeroDivisionError: division by zero"),
    ("leaving_strategies:f", "cannot be imported: SystemExit: 3"),
    ("own_strategies:later", "must be a plain function, not async"),
    ("own_strategies:waited", "must be a plain function, not async"),
    ("own_strategies:yielding", "must be a plain function, not async"),
    ("own_strategies:__name__", "is not a function"),
    ("os.path:basename", "must take two arguments, the target and the facts"),
]


@pytest.mark.parametrize(("name", "reason"), REFUSED, ids=[name for name, _ in REFUSED])
def test_what_cannot_be_used_is_refused_with_its_path(module, tmp_path, monkeypatch, name, reason):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_strategies.py").write_text("1 / 0\n")
    (tmp_path / "leaving_strategies.py").write_text("raise SystemExit(3)\n")
    loaded = config.parse(ROUTES.replace("own_strategies:STRATEGY", name), {})
    assert custom.load(loaded) == ({}, [f"routes.auto.strategy: {name} {reason}"])


@pytest.mark.parametrize(("kind", "whom"), [("groups", "research"), ("callers", "kim")])
def test_a_strategy_for_some_callers_is_checked_too(module, kind, whom):
    override = f'\n[routes.auto.{kind}.{whom}]\nstrategy = "own_strategies:later"\n'
    caller = '[callers.kim]\nkey = "env:KIM"\ngroups = ["research"]\n'
    _, errors = custom.load(config.parse(with_strategy("backwards") + override + caller, {}))
    assert errors == [f"routes.auto.{kind}.{whom}.strategy: own_strategies:later must be a plain function, not async"]


# --- the page about them


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", DOC.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return str(found)


async def test_the_example_of_the_page_works(tmp_path, monkeypatch):
    (tmp_path / "my_strategies.py").write_text(block("python"))
    monkeypatch.syspath_prepend(tmp_path)
    made = planner(block("toml"))
    orders = {
        "short": Features(400),
        "long": Features(4_000),
        "urgent": Features(4_000, max_latency=2.0),
    }
    plans = {name: await planned(made, features) for name, features in orders.items()}
    assert {name: names(plan) for name, plan in plans.items()} == {
        "short": ["small", "large"],
        "long": ["large", "small"],
        "urgent": ["large", "small"],
    }
    assert all(choice.reason.startswith(f"{name}: ") for name, plan in plans.items() for choice in plan.choices)
    assert {plan.strategy for plan in plans.values()} == {"my_strategies:thrifty"}
    sys.modules.pop("my_strategies")
