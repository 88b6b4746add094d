"""From a request to its plan: labels, hints, settings; explain and the live path agree, the cache decides nothing."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing import config, pricing
from routing.background import Background
from routing.breaker_state import BreakerSettings
from routing.custom import Custom
from routing.decisions import Decisions
from routing.errors import InvalidRequest, Misconfigured, NoTarget
from routing.features import AskedFacts, Features
from routing.health import Health
from routing.planner import Lots, Planner, task_input
from routing.providers.base import Provider, Reply, Stream
from routing.refusals import SHORTEST_REQUEST
from routing.router import Asked, Router
from routing.types import TASK_KINDS, Caller, Outcome, Plan, Refused, Shares, Speed, Target, Task, Ticket, Usage
from routing.wire import ChatRequest

ROOT = Path(__file__).resolve().parent.parent
ROUTES = """
[providers.p]
type = "openai"

[targets.large]
provider = "p"
model = "gpt-large"
context = 50_000
max_output = 4_000
supports = ["tools", "vision", "json_schema"]
price = { input = 2, output = 10 }
quality = { default = 0.95 }

[targets.east]
provider = "p"
model = "gpt-small"
context = 5_000
price = { input = 0.2, cached_input = 0.02, output = 1, reasoning = 2 }
quality = { default = 0.8, planning = 0.6 }
weight = 2

[targets.west]
provider = "p"
model = "gpt-small"
price = { input = 0.2, output = 1 }
quality = { default = 0.8, planning = 0.6 }
weight = 1

[targets.unpriced]
provider = "p"
model = "nobody-knows"

[routes.auto]
targets = ["east", "west", "large", "unpriced"]
exploration = 0.5
[routes.auto.tasks]
planning = ["large", "east"]
[routes.auto.groups.research]
strategy = "cost"
[routes.auto.callers.kim]
targets = ["west", "unpriced"]
[routes.auto.callers.ann]
tasks = { planning = ["west"] }

[routes.cheap]
strategy = "cost"
targets = ["large", "unpriced", "east", "west"]

[routes.fast]
strategy = "speed"
targets = ["large", "east", "west"]

[callers.kim]
key = "env:KIM"
groups = ["research"]
[callers.lee]
key = "env:LEE"
groups = ["none", "research"]
[callers.max]
key = "env:MAX"
targets = ["large", "east"]
[callers.ann]
key = "env:ANN"
"""
NONE, NO_LOTS = Caller("somebody"), Lots()
GENERAL, PLANNING = Task("general", 0.9), Task("planning", 0.9)


class Still:
    """Breakers, speeds and usual shares that stay as they are put."""

    def __init__(self) -> None:
        self.refusals: dict[str, Refused] = {}
        self.speeds: dict[str, Speed] = {}
        self.usual: dict[str, Shares] = {}

    def refusal(self, target: str) -> Refused | None:
        return self.refusals.get(target)

    def speed(self, target: str) -> Speed | None:
        return self.speeds.get(target)

    def shares(self, target: str) -> Shares | None:
        return self.usual.get(target)

    def learn(self, target: str, usage: Usage) -> None:
        raise NotImplementedError


class Desk:
    """A planner for a routes file, asked as the router asks it."""

    def __init__(self, text: str = ROUTES) -> None:
        self.health = Still()
        self.config = config.parse(text, {})
        self.planner = Planner(self.config, self.health, pricing.bundled, Custom(), self.health)

    def plan(
        self,
        model: str = "auto",
        *,
        task: Task = GENERAL,
        caller: str = "",
        lots: Lots = NO_LOTS,
        **fields: Any,
    ) -> tuple[Plan, AskedFacts]:
        route = self.config.route(model, self.config.callers.get(caller, NONE))
        return asyncio.run(self.planner.plan(self.planner.features(request(**fields)), route, task, lots))

    def order(self, model: str = "auto", **given: Any) -> list[str]:
        return [choice.target for choice in self.plan(model, **given)[0].choices]


def request(content: Any = "Hello there", **fields: Any) -> ChatRequest:
    body = {"model": "auto", "messages": [{"role": "user", "content": content}], **fields}
    return ChatRequest.parse(json.dumps(body).encode())


@pytest.fixture
def desk() -> Desk:
    return Desk()


def with_route(line: str, route: str = "auto") -> str:
    """ROUTES with one more setting of a route."""
    return ROUTES.replace(f"[routes.{route}]\n", f"[routes.{route}]\n{line}\n")


# --- the task

LABELS = [
    ({"router": {"task": "planning"}}, "x", "planning", "named by router.task"),
    ({}, "CodeGeneration", "code_generation", "named by x-router-task"),
    ({"metadata": {"task_type": "intentDetection"}}, None, "intent_detection", "named by metadata.task_type"),
    ({"router": {"task": "Analysis"}, "metadata": {"task_type": "nonsense"}}, None, "analysis", "named by router.task"),
    ({"metadata": {"task_type": "nonsense"}}, "summarization", "summarization", "named by x-router-task"),
]


@pytest.mark.parametrize(("fields", "header", "kind", "reason"), LABELS)
def test_the_strongest_label_wins(desk, fields, header, kind, reason):
    assert desk.planner.label(request(**fields), header) == Task(kind, 1.0, reason)


@pytest.mark.parametrize(
    "fields", [{}, {"metadata": {}}, {"metadata": {"task_type": ""}}, {"metadata": {"task_type": 7}}, {"router": {}}]
)
def test_without_a_label_nothing_is_named(desk, fields):
    assert desk.planner.label(request(**fields), None) is None
    assert desk.planner.label(request(**fields), "") is None


@pytest.mark.parametrize(
    ("fields", "header", "param"),
    [
        ({"router": {"task": "cooking"}}, None, "router.task"),
        ({}, "cooking", "x-router-task"),
        ({"metadata": {"task_type": "cooking"}}, None, "metadata.task_type"),
    ],
)
def test_an_unknown_label_lists_the_ten(desk, fields, header, param):
    with pytest.raises(InvalidRequest) as caught:
        desk.planner.label(request(**fields), header)
    assert caught.value.param == param
    assert ", ".join(TASK_KINDS) in caught.value.message


def test_a_route_of_one_target_does_not_look_at_the_task(desk):
    task = desk.planner.detect(request("Translate to German: good morning"), desk.config.route("large"))
    assert (task.kind, task.reason) == ("general", "not looked at: the route has one target")


def test_a_route_says_how_sure_the_router_must_be():
    content = "Summarise the following article in three sentences. It is about bees and honey."
    sure, unsure = Desk(with_route("min_task_confidence = 0.0")), Desk(with_route("min_task_confidence = 1.0"))
    kinds = [each.planner.detect(request(content), each.config.route("auto")).kind for each in (sure, unsure)]
    assert kinds == ["summarization", "general"]


def test_what_a_task_is_told_from():
    turns: list[dict[str, Any]] = [{"role": "user", "content": f"turn {number}"} for number in range(12)]
    turns[11] = {
        "role": "user",
        "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "x"}}],
    }
    body = {
        "model": "auto",
        "messages": [{"role": "system", "content": "one"}, *turns, {"role": "developer", "content": "two"}],
        "max_tokens": 7,
        "response_format": {"type": "json_object"},
        "tools": [{}],
    }
    seen = task_input(ChatRequest.parse(json.dumps(body).encode()))
    assert (seen.system, seen.max_tokens, seen.response_format) == ("one\ntwo", 7, "json_object")
    assert (seen.images, seen.tools) == (True, True)
    assert [text for _, text in seen.turns] == [*(f"turn {number}" for number in range(4, 11)), "look"]


# --- strategies and overrides


def test_each_route_goes_by_its_own_strategy(desk):
    desk.health.speeds = {"large": Speed(0.1, 100.0), "east": Speed(1.0, 50.0), "west": Speed(0.5, 50.0)}
    assert desk.order("auto", task=PLANNING) == ["large", "east", "west", "unpriced"]
    assert desk.order("cheap", task=PLANNING) == ["large", "east", "west", "unpriced"]
    assert desk.order("cheap") == ["east", "west", "large", "unpriced"]
    assert desk.order("fast") == ["large", "west", "east"]


def test_the_request_may_ask_for_another_strategy(desk):
    made, _ = desk.plan("cheap", router={"strategy": "task"})
    assert (made.strategy, made.choices[0].target) == ("task", "large")


@pytest.mark.parametrize(
    ("caller", "strategy", "targets"),
    [
        ("", "task", ["east", "west", "large", "unpriced"]),
        ("kim", "task", ["west", "unpriced"]),
        ("lee", "cost", ["east", "west", "large", "unpriced"]),
    ],
    ids=["nobody special", "by name before group", "by group"],
)
def test_a_route_is_different_for_whom_the_file_says_so(desk, caller, strategy, targets):
    made, _ = desk.plan(caller=caller)
    assert (made.strategy, [choice.target for choice in made.choices]) == (strategy, targets)


def test_targets_that_are_not_for_the_caller_are_named_as_such(desk):
    made, _ = desk.plan(caller="max")
    assert [choice.target for choice in made.choices] == ["east", "large"]
    assert {excluded.target: excluded.reason for excluded in made.exclusions} == {
        "west": "not among the caller's targets",
        "unpriced": "not among the caller's targets",
    }


def test_an_override_of_the_targets_keeps_what_is_left_of_the_tasks():
    text = ROUTES.replace('targets = ["west", "unpriced"]', 'targets = ["west", "unpriced", "large"]')
    assert Desk(text).order(caller="kim", task=PLANNING) == ["large", "west", "unpriced"]


def test_an_override_may_have_tasks_of_its_own():
    text = ROUTES.replace('targets = ["west", "unpriced"]', 'tasks = { planning = ["unpriced"] }')
    assert Desk(text).order(caller="kim", task=PLANNING) == ["unpriced", "east", "west", "large"]


# --- the minimum quality


@pytest.mark.parametrize(
    ("kind", "line", "router", "minimum"),
    [
        ("general", "", {}, 0.7),
        ("planning", "", {}, 0.9),
        ("planning", "minimum_quality = { planning = 0.4 }", {}, 0.4),
        ("planning", "minimum_quality = { default = 0.3 }", {}, 0.3),
        ("planning", "minimum_quality = { default = 0.3, planning = 0.4 }", {}, 0.4),
        ("general", "", {"priority": 7}, 0.7),
        ("general", "", {"priority": 8}, 0.8),
        ("planning", "", {"priority": 10}, 0.9),
        ("general", "wishes = { high_priority = 3 }", {"priority": 3}, 0.8),
        ("general", "wishes = { high_priority_quality = 0.85 }", {"priority": 9}, 0.85),
        ("planning", "", {"strategy": "cost"}, 0.8),
        ("general", "wishes = { saving_lowers = 0.15 }", {"strategy": "cost"}, 0.55),
        ("general", "minimum_quality = { default = 0.55 }", {"strategy": "cost"}, 0.5),
        ("general", "minimum_quality = { default = 0.45 }", {"strategy": "cost"}, 0.45),
        ("general", "wishes = { saving_floor = 0.65 }", {"strategy": "cost"}, 0.65),
        ("general", "", {"strategy": "cost", "priority": 9}, 0.8),
        ("planning", "", {"strategy": "cost", "priority": 9}, 0.8),
        ("planning", "wishes = { saving_lowers = 0.05 }", {"strategy": "cost", "priority": 9}, 0.85),
        ("planning", "", {"min_quality": 0.2, "priority": 9}, 0.2),
    ],
)
def test_the_quality_that_is_asked_for(kind, line, router, minimum):
    _, known = Desk(with_route(line, "cheap")).plan("cheap", task=Task(kind, 0.9), router=router)
    assert known.minimum_quality == pytest.approx(minimum)
    assert known.strict_quality == ("min_quality" in router)


# --- expected output and cost


@pytest.mark.parametrize(
    ("kind", "fields", "tokens"),
    [
        ("classification", {}, 20),
        ("classification", {"n": 3}, 60),
        ("planning", {"max_tokens": 50}, 50),
        ("planning", {"max_completion_tokens": 5_000}, 700),
    ],
)
def test_the_length_of_the_answer_is_expected_by_the_task(desk, kind, fields, tokens):
    assert desk.plan(task=Task(kind, 0.9), **fields)[1].output_tokens == tokens


def test_a_translation_is_as_long_as_what_is_translated(desk):
    _, known = desk.plan(task=Task("translation", 0.9), content="word " * 400)
    assert known.output_tokens == known.input_tokens > 400


def test_what_a_plan_costs_is_in_it(desk):
    made, known = desk.plan(n=2)
    cost = {choice.target: choice.cost for choice in made.choices}
    assert cost["unpriced"] is None
    assert cost["large"].expected == known.input_tokens * 2 + 600 * 10
    assert cost["large"].per_output_token == 20


# --- ceilings


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("asked", [None, 4_000])
def test_the_worst_case_of_every_choice_stays_below_the_ceiling(desk, n, asked):
    made, known = desk.plan(n=n, max_completion_tokens=asked, router={"max_cost_usd": 0.012 * n, "task": "analysis"})
    assert made.choices
    for choice in made.choices:
        limit = choice.output_limit or asked or 4_000
        price = {"large": (2, 10)}.get(choice.target, (0.2, 1))
        assert known.input_tokens * price[0] + limit * n * price[1] <= 0.012e6 * n


def test_a_ceiling_holds_even_when_the_request_is_longer_than_estimated(desk):
    made, known = desk.plan(content="word " * 3_000, router={"max_cost_usd": 0.015, "only": ["large"]})
    (choice,) = made.choices
    assert choice.output_limit is not None
    assert known.input_tokens * 1.2 * 2 + choice.output_limit * 10 <= 15_000


def test_a_ceiling_below_the_usual_answer_shortens_it_and_prefers_who_need_not():
    desk = Desk()
    made, _ = desk.plan(task=Task("planning", 0.9), router={"max_cost_usd": 0.002})
    assert [choice.target for choice in made.choices] == ["east", "west", "large"]
    limit = made.choices[2].output_limit
    assert limit is not None
    assert 16 < limit < 200
    assert made.choices[2].reason == "number 1 for planning; the ceiling cuts its answer short"
    alone, _ = desk.plan(task=Task("planning", 0.9), router={"max_cost_usd": 0.002, "only": ["large"]})
    assert [choice.output_limit for choice in alone.choices] == [limit]


@pytest.mark.parametrize(("max_tokens", "suits"), [(None, False), (16, False), (5, True)])
def test_a_ceiling_leaves_room_for_an_answer_or_is_over(desk, max_tokens, suits):
    """Ten micro-USD a token, and room for seven of them."""
    _, known = desk.plan(router={"only": ["large"]})
    ceiling = (known.cost["large"].input + 70) / 1e6
    fields = {"max_tokens": max_tokens, "router": {"only": ["large"], "max_cost_usd": ceiling}}
    if suits:
        assert desk.plan(**fields)[0].choices[0].output_limit is None
    else:
        with pytest.raises(InvalidRequest, match="the shortest answer may cost"):
            desk.plan(**fields)


def test_over_every_ceiling_is_the_requests_own_affair(desk):
    with pytest.raises(InvalidRequest) as caught:
        desk.plan(router={"max_cost_usd": 1e-6})
    assert (caught.value.code, caught.value.param) == ("over_ceiling", "router.max_cost_usd")
    assert "large: over the ceiling: the shortest answer may cost 0.0001" in caught.value.message
    assert "unpriced: over the ceiling: its price is unknown" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"router": {"only": ["large"], "deny": ["large"]}}, "large: denied by the request"),
        ({"router": {"min_quality": 0.99}}, "large: quality 0.95 is below the request's 0.99"),
        ({"modalities": ["audio"]}, "large: lacks audio"),
        ({"content": "word " * 60_000, "router": {"deny": ["west", "unpriced"]}}, "large: context of 50000 tokens"),
    ],
)
def test_what_no_target_can_do_is_said_at_once(desk, fields, reason):
    with pytest.raises(InvalidRequest) as caught:
        desk.plan(**fields)
    assert caught.value.code == ("context_length_exceeded" if "context of" in reason else "no_suitable_target")
    assert reason in caught.value.message


def test_a_target_that_only_has_to_recover_makes_the_request_no_bad_one(desk):
    desk.health.refusals = {"large": Refused("large", "open", 99.0)}
    made, _ = desk.plan(router={"only": ["large"]})
    assert made.choices == ()


@pytest.mark.parametrize("hint", ["only", "deny"])
def test_a_target_that_does_not_exist_is_named_with_its_place(desk, hint):
    with pytest.raises(InvalidRequest) as caught:
        desk.plan(router={hint: ["large", "nobody"]})
    assert caught.value.param == f"router.{hint}[1]"
    assert "targets are east, large, unpriced, west" in caught.value.message


# --- chance


def test_exploration_takes_the_share_that_the_route_states_the_unseen_first():
    desk = Desk(with_route("exploration = 0.2", "fast"))
    desk.health.speeds = {"large": Speed(0.1, 100.0), "west": Speed(0.5, 50.0)}
    lots = [Lots(explore=(step + 0.5) / 100) for step in range(100)]
    assert Counter(desk.plan("fast", lots=lot)[1].explore for lot in lots) == {"east": 20, None: 80}
    desk.health.speeds["east"] = Speed(0.5, 60.0)
    explored = Counter(desk.plan("fast", lots=lot)[1].explore for lot in lots)
    assert explored == {None: 80, "large": 7, "east": 6, "west": 7}


@pytest.mark.parametrize("model", ["auto", "cheap"])
def test_only_speed_explores(desk, model):
    assert desk.plan(model, lots=Lots(explore=0.0))[1].explore is None


def test_no_exploration_where_the_route_wants_none():
    desk = Desk(with_route("exploration = 0.0", "fast"))
    assert desk.plan("fast", lots=Lots(explore=0.0))[1].explore is None


# --- the remembered plans


def test_equal_features_find_the_plan_that_was_made(desk):
    (one, _), (two, _) = desk.plan(content="Hello there"), desk.plan(content="Hello there")
    assert [choice.target for choice in one.choices if choice in two.choices] == ["east", "west", "large", "unpriced"]
    assert one.choices[0] is not two.choices[0]  # a lot was drawn between east and west
    assert one.choices[2] is two.choices[2]
    other, _ = desk.plan(content="Hello there", max_tokens=5)
    assert one.choices[2] is not other.choices[2]


def test_a_price_that_a_reply_told_makes_the_plans_anew():
    text = ROUTES.replace('[targets.unpriced]\nprovider = "p"', '[targets.unpriced]\nprovider = "azure"') + (
        '[providers.azure]\ntype = "azure_openai"\nendpoint = "https://x.openai.azure.com"\nauth = "identity"\n'
    )
    desk = Desk(text)
    before, _ = desk.plan("cheap")
    desk.planner.rates(desk.config.targets["unpriced"], served="gpt-5-mini-2025-08-07")
    after, known = desk.plan("cheap")
    assert before.choices[-1].cost is None
    assert [choice.cost for choice in after.choices if choice.target == "unpriced"] == [known.cost["unpriced"]]


def test_a_remembered_plan_says_why_this_request_has_its_task(desk):
    first, _ = desk.plan(task=Task("planning", 0.8, "one"))
    second, _ = desk.plan(task=Task("planning", 0.9, "two"))
    assert (first.task.reason, second.task.reason, second.task.confidence) == ("one", "two", 0.9)


names = st.sampled_from(["large", "east", "west", "unpriced"])
hints = st.fixed_dictionaries(
    {},
    optional={
        "task": st.sampled_from(TASK_KINDS),
        "strategy": st.sampled_from(["task", "cost", "speed"]),
        "max_cost_usd": st.sampled_from([1e-6, 0.001, 0.01, 1.0]),
        "max_latency_ms": st.sampled_from([1, 400, 10_000]),
        "min_quality": st.sampled_from([0.0, 0.7, 0.9, 0.99]),
        "priority": st.integers(1, 10),
        "only": st.lists(names, min_size=1, max_size=3),
        "deny": st.lists(names, max_size=2),
    },
)
bodies = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["auto", "cheap", "fast", "east"]),
        "messages": st.sampled_from(["Hi", "Plan a trip to Rome, step by step.", "Summarise: " + "bees " * 6_000]).map(
            lambda text: [{"role": "user", "content": text}]
        ),
    },
    optional={
        "router": hints,
        "n": st.integers(1, 3),
        "max_tokens": st.sampled_from([1, 100, 100_000]),
        "tools": st.just([{"type": "function", "function": {"name": "f"}}]),
        "modalities": st.just(["audio"]),
    },
)
callers = st.sampled_from(["", "kim", "lee", "max", "ann"])
lots = st.builds(Lots, st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
speeds = st.dictionaries(names, st.builds(Speed, st.floats(0, 9), st.floats(0, 200)))


moments = st.tuples(
    st.sampled_from(["", "", "ann"]),
    st.sampled_from([{}, {"priority": 9}, {"min_quality": 0.9}, {"max_cost_usd": 0.003}, {"deny": ["east"]}]),
    st.sampled_from([{}, {"max_tokens": 100_000}]),
    lots,
    st.sampled_from([{}, {"east": Speed(0.1, 200.0)}, {"large": Speed(0.1, 200.0)}]),
    st.sampled_from([{}, {"large": Refused("large", "open", 1.0)}, {"large": Refused("large", "open", 2.0)}]),
    st.sampled_from([{}, {"east": Shares(0.5)}, {"east": Shares(0.5, 0.5)}]),
)


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(["task", "cost", "speed"]),
    st.sampled_from(TASK_KINDS[:2]),
    st.lists(moments, min_size=4, max_size=9),
)
def test_remembering_plans_changes_no_decision(strategy, task, rounds):
    """One planner that has seen nearly the same before, against a new one for each request."""
    old = Desk()
    for caller, hint, fields, lot, speed, refused, usual in [*rounds, *rounds]:
        wishes = {"strategy": strategy, "task": task, **hint}
        body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "router": wishes, **fields}
        answers = []
        for desk in (old, Desk()):
            desk.health.speeds, desk.health.refusals, desk.health.usual = speed, refused, usual
            answers.append(outcome(desk, body, caller, lot))
        assert answers[0] == answers[1]


def outcome(desk: Desk, body: dict[str, Any], caller: str, lot: Lots) -> Any:
    """The plan and its facts, or the error that stands in their place."""
    parsed = ChatRequest.parse(json.dumps(body).encode())
    try:
        route = desk.config.route(parsed.model, desk.config.callers.get(caller, NONE))
        task = desk.planner.label(parsed, None) or desk.planner.detect(parsed, route)
        return asyncio.run(desk.planner.plan(desk.planner.features(parsed), route, task, lot))
    except InvalidRequest as error:
        return error.message


# --- explain and the live path


class Echo(Provider):
    """Answers at once, or does as one that is down."""

    async def chat(self, target: Target, request: ChatRequest) -> Reply:
        return Reply(b"{}", Usage(10, 5))

    async def stream(self, target: Target, request: ChatRequest) -> Stream:
        raise NotImplementedError

    async def check(self, target: Target) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


def build(speed: dict[str, Speed], refused: dict[str, Refused], lots: Iterator[float]) -> tuple[Router, Decisions]:
    """A router whose clock stands still, so that two requests find the same breakers and speeds."""
    loaded = config.parse(ROUTES, {})
    health = Health({name: BreakerSettings() for name in loaded.targets}, clock=lambda: 1_000_000.0)
    for name, seen in speed.items():
        first, tokens = seen.first_token_seconds, 100
        health.observe(
            name, first_token_seconds=first, seconds=first + 1 + seen.tokens_per_second, output_tokens=tokens
        )
    for name in refused:
        leave = health.admit(name)
        assert isinstance(leave, Ticket)
        health.record(leave, Outcome.PARKED, retry_after=60.0)
    decisions = Decisions()
    planner = Planner(loaded, health, pricing.bundled, Custom())
    router = Router(
        loaded,
        {"p": Echo()},
        health,
        planner,
        decisions,
        Background(),
        lambda: 1_000_000.0,
        random=lambda: next(lots),
    )
    return router, decisions


async def ways(body: dict[str, Any], caller: str, lots: list[float], speed: Any, refused: Any) -> list[Any]:
    """What explain says, and what the same request then does, each with the same lots."""
    router, decisions = build(speed, refused, cycle(lots))
    who = config.parse(ROUTES, {}).callers.get(caller, NONE)
    asked = Asked(ChatRequest.parse(json.dumps(body).encode()), who, "r")
    found: list[Any] = []
    for way in (router.explain, router.chat):
        try:
            answer: Any = await way(asked)
        except NoTarget:
            (decision,) = decisions.newest()
            found.append((decision.plan, decision.facts))
        except InvalidRequest as error:
            found.append(error.message)
        else:
            decision = getattr(answer, "decision", answer)
            found.append((decision.plan, decision.facts))
    return found


@settings(deadline=None, max_examples=80)
@given(bodies, callers, st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2), speeds, st.sets(names))
def test_explain_says_what_the_same_request_then_does(body, caller, lots, speed, refused):
    told, done = asyncio.run(ways(body, caller, lots, speed, dict.fromkeys(refused)))
    assert told == done


@settings(deadline=None, max_examples=60)
@given(bodies)
def test_the_facts_of_a_decision_lead_back_to_its_features(body):
    desk = Desk()
    parsed = ChatRequest.parse(json.dumps(body).encode())
    features = desk.planner.features(parsed)
    route = desk.config.route(parsed.model, NONE)
    try:
        _, known = asyncio.run(desk.planner.plan(features, route, GENERAL, Lots()))
    except InvalidRequest:
        return
    again = Features(**{name: asdict(known)[name] for name in asdict(features) if name != "min_quality"})
    assert again == Features(**{**asdict(features), "min_quality": None})
    assert (known.minimum_quality if known.strict_quality else None) == features.min_quality


# --- the sample


@pytest.fixture
def sample() -> Desk:
    return Desk((ROOT / "routes.toml").read_text(encoding="utf-8"))


def test_the_private_route_of_the_sample_leaves_the_house_for_nobody(sample):
    for hint in ({}, {"strategy": "cost"}, {"strategy": "speed"}, {"priority": 10}):
        assert sample.order("private", router=hint) == ["llama"]


def test_the_sample_routes_differ_as_their_names_say(sample):
    assert sample.order("auto", task=Task("code_generation", 0.9))[:2] == ["sonnet", "gpt-large"]
    assert sample.order("cheap", task=Task("summarization", 0.9))[0] == "llama"
    assert sample.order("cheap", task=Task("analysis", 0.9))[0] not in ("llama", "gpt-east", "gpt-west")
    sample.health.speeds = {"sonnet": Speed(0.1, 500.0)}
    assert sample.order("fast")[0] == "sonnet"


def test_the_sample_knows_what_each_of_its_targets_costs(sample):
    _, known = sample.plan("auto")
    assert set(known.cost) == {"gpt-east", "gpt-west", "gpt-large", "sonnet", "llama"}


# --- what could never answer is refused with the file

HOPELESS = [
    (
        "a context for no request",
        "[targets.tiny]\nprovider = 'p'\nmodel = 'm'\ncontext = 7",
        "targets.tiny.context: fits no",
    ),
    (
        "a list of nobody",
        "[routes.r]\ntargets = ['large']\ntasks = { planning = [] }",
        "routes.r.tasks.planning: lists no",
    ),
    (
        "a list of nobody for a group",
        "[routes.r]\ntargets = ['large']\ngroups = { research = { tasks = { planning = [] } } }",
        "routes.r.groups.research.tasks.planning: lists no target",
    ),
    (
        "a group without callers",
        "[routes.r]\ntargets = ['large']\ngroups = { reserch = { strategy = 'cost' } }",
        'routes.r.groups.reserch: no group "reserch"; groups are research, none',
    ),
    (
        "an override for nobody",
        "[routes.r]\ntargets = ['large']\ncallers = { tim = { strategy = 'cost' } }",
        'routes.r.callers.tim: no caller "tim"; callers are kim, lee, max, ann',
    ),
    ("a caller without routes", "[callers.tim]\nkey = 'env:TIM'\nroutes = []", "callers.tim.routes: allows nothing"),
    (
        "a route without the caller's targets",
        "[callers.tim]\nkey = 'env:TIM'\nroutes = ['auto', 'fast']\ntargets = ['unpriced']",
        'callers.tim.routes[1]: "fast" has none of the targets of this caller',
    ),
    (
        "a target that is not the caller's",
        "[callers.tim]\nkey = 'env:TIM'\nroutes = ['west']\ntargets = ['east']",
        'callers.tim.routes[0]: "west" has none of the targets of this caller',
    ),
    (
        "an override that leaves the caller nothing",
        "[callers.tim]\nkey = 'env:TIM'\ngroups = ['small']\nroutes = ['r']\ntargets = ['large']\n"
        "[routes.r]\ntargets = ['large', 'east']\ngroups = { small = { targets = ['east'] } }",
        'callers.tim.routes[0]: "r" has none of the targets of this caller',
    ),
]

OFF = "[targets.off]\nprovider = 'p'\nmodel = 'm'\nenabled = false\n"
HOPELESS += [
    (
        "a route of disabled targets",
        OFF + "[routes.r]\ntargets = ['off']",
        "routes.r.targets: all of them are disabled; the route could never answer",
    ),
    (
        "a group's own targets, all disabled",
        OFF + "[routes.r]\ntargets = ['large', 'off']\ngroups = { research = { targets = ['off'] } }",
        "routes.r.groups.research.targets: all of them are disabled",
    ),
    (
        "a detector that asks a disabled target",
        OFF + "[routes.r]\ntargets = ['large']\ndetector = { ask = 'off' }",
        'routes.r.detector.ask: the target "off" is disabled',
    ),
    ("an alias of a disabled target", OFF + "[aliases]\nx = 'off'", 'aliases.x: the target "off" is disabled'),
    (
        "a caller's disabled target",
        OFF + "[callers.tim]\nkey = 'env:TIM'\nroutes = ['auto', 'off']",
        'callers.tim.routes[1]: the target "off" is disabled',
    ),
]


@pytest.mark.parametrize(("more", "problem"), [case[1:] for case in HOPELESS], ids=[case[0] for case in HOPELESS])
def test_what_could_never_answer_is_refused_with_its_path(more, problem):
    with pytest.raises(Misconfigured) as caught:
        config.parse(f"{ROUTES}\n{more}", {})
    (found,) = caught.value.errors
    assert found.startswith(problem)


def test_a_disabled_target_is_as_if_it_were_not_there():
    desk = Desk(ROUTES.replace('model = "gpt-large"\n', 'model = "gpt-large"\nenabled = false\n'))
    assert desk.order(task=PLANNING) == ["east", "west", "unpriced"]
    assert desk.order(caller="max", task=PLANNING) == ["east"]
    assert "large" not in desk.config.routes
    with pytest.raises(InvalidRequest, match="No target 'large'; targets are east, unpriced, west"):
        desk.order(router={"deny": ["large"]})


def test_a_context_that_fits_the_shortest_request_is_taken():
    text = ROUTES.replace("context = 5_000", f"context = {SHORTEST_REQUEST + 1}")
    plan, _ = Desk(text).plan(content="")
    assert "east" in [choice.target for choice in plan.choices]
