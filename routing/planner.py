"""From a request to its plan: what the router knows about it becomes facts, and the route's strategy ranks the targets.

The live path and `explain` both come through here, so that they cannot differ.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from math import ceil
from operator import attrgetter
from typing import Protocol
from urllib.parse import urlsplit

from routing import pricing
from routing.config import Config, Route
from routing.custom import Custom
from routing.errors import InvalidRequest
from routing.features import AskedFacts, Features, expected_output, features_of, minimum_quality
from routing.pricing import Prices, Rates
from routing.requests import CompletionRequest
from routing.strategies import LACKS, OVER_CEILING, TOO_SMALL, Strategy, by_cost, by_speed, by_task, ranked, shared
from routing.tasks import TaskInput, detect, parse_label
from routing.types import Estimate, Exclusion, Feature, Plan, Refused, Speed, Target, Task
from routing.wire import Asking, ChatRequest, Hints, Message

REMEMBERED = 1_024  # plans
ESTIMATE_ERROR = 1.2  # input tokens may be so many times the estimate; a ceiling has to hold all the same
TURNS = 8  # of a conversation that task detection sees, the newest


class Health(Protocol):
    """What a plan asks of the breakers and the speeds. Nothing here waits."""

    def refusal(self, target: str) -> Refused | None: ...

    def speed(self, target: str) -> Speed | None: ...


@dataclass(frozen=True, slots=True)
class Lots:
    """The chance in one plan, each 0..1: who of equals goes first, and whether and whom to try anew."""

    draw: float = 0.0
    explore: float = 1.0


class Planner:
    """Makes plans by the routes file. `prices` gives the table for targets whose price the file does not state.

    `remembered` is how many plans are kept for requests with equal features.
    """

    def __init__(
        self,
        config: Config,
        health: Health,
        prices: Callable[[], Prices],
        custom: Custom,
        remembered: int = REMEMBERED,
    ) -> None:
        self._config, self._health, self._prices, self._custom = config, health, prices, custom
        self._most_made = remembered
        self._rates: dict[str, Rates | None] = {}
        self._made: OrderedDict[Hashable, Plan] = OrderedDict()

    @property
    def prices(self) -> Prices:
        """The table, read when it is first needed."""
        return self._prices()

    def label(self, request: Asking, header: str | None) -> Task | None:
        """The task that the request itself names. Raises InvalidRequest for one that does not exist."""
        for param, given in _labels(request, header):
            try:
                kind = parse_label(given)
            except ValueError as error:
                raise InvalidRequest(f"{param}: {error}.", param=param) from None
            if kind:
                return Task(kind, 1.0, f"named by {param}")
        return None

    def detect(self, request: Asking, route: Route) -> Task:
        """The task that the request looks like."""
        if not isinstance(request, ChatRequest):
            return Task("general", 1.0, "not looked at: no chat")
        if len(route.targets) == 1:
            return Task("general", 0.0, "not looked at: the route has one target")
        return detect(task_input(request), minimum=route.settings.min_task_confidence)

    def features(self, request: Asking) -> Features:
        """What the plan for a request depends on. Raises InvalidRequest when it names a target that does not exist."""
        hints = request.router or Hints()
        _check_names("router.only", hints.only, self._config)
        _check_names("router.deny", hints.deny, self._config)
        return features_of(request)

    async def plan(
        self, features: Features, route: Route, task: Task, lots: Lots, request: Asking | None = None
    ) -> tuple[Plan, AskedFacts]:
        """The plan, and the facts behind it.

        Raises InvalidRequest when the request itself rules out every target, with the place in `request` that does.
        """
        strategy = features.strategy or route.settings.strategy
        facts = self._facts(features, route, task, lots, strategy)
        made = await self._ranked(route, strategy, facts)
        made = _withholding(shared(made, route.targets, facts.draw), route)
        _check_suits(made, request)
        return made, facts

    async def _ranked(self, route: Route, strategy: str, facts: AskedFacts) -> Plan:
        if strategy not in self._custom.strategies:
            return self._remembered(route, strategy, facts)
        made = await self._custom.plan(strategy, route, facts)
        if isinstance(made, Plan):
            return made
        order = by_task({}, [target.name for target in route.targets])
        return replace(ranked(route.name, "task", order, route.targets, facts), note=made)

    def _remembered(self, route: Route, strategy: str, facts: AskedFacts) -> Plan:
        """The plan made before for equal facts: all it depends on is in them, and the words about the task are new."""
        if not self._most_made:
            return self._new(route, strategy, facts)
        key = (id(route), strategy, *_key(facts))
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._new(route, strategy, facts)
            if len(self._made) > self._most_made:
                self._made.popitem(last=False)
        return made if made.task == facts.task else replace(made, task=facts.task)

    def _new(self, route: Route, strategy: str, facts: AskedFacts) -> Plan:
        return ranked(route.name, strategy, self._strategy(strategy, route), route.targets, facts)

    def _facts(self, features: Features, route: Route, task: Task, lots: Lots, strategy: str) -> AskedFacts:
        """All that the strategies may judge by."""
        names = [target.name for target in route.targets]
        output_tokens = expected_output(features, task.kind)
        speed = {name: seen for name in names if (seen := _bucket(self._health.speed(name)))}
        return AskedFacts(
            task=task,
            input_tokens=features.input_tokens,
            output_tokens=output_tokens,
            output_limit=features.output_limit,
            largest_input=features.largest_input,
            needs=features.needs,
            speed=speed,
            breaker={name: refused for name in names if (refused := self._health.refusal(name))},
            cost=dict(self._costs(route, features, output_tokens)),
            minimum_quality=minimum_quality(features, route.settings, task.kind),
            strict_quality=features.min_quality is not None,
            max_cost=features.max_cost,
            max_latency=features.max_latency,
            only=features.only,
            deny=features.deny,
            explore=_explored(names, speed, lots, route.settings.exploration) if strategy == "speed" else None,
            draw=lots.draw,
            answers=features.answers,
            strategy=features.strategy,
            priority=features.priority,
        )

    def rates(self, target: Target, served: str | None = None) -> Rates | None:
        """What the target costs; `served` is the model that the reply names."""
        if served is not None:
            found = pricing.price_of(target, self.prices, self._vendor(target), served)
            if found and self._rates.get(target.name) is None:
                self._rates[target.name] = found  # a deployment may be called anything: now its price is known
            return found
        if target.name not in self._rates:
            self._rates[target.name] = pricing.price_of(target, self.prices, self._vendor(target))
        return self._rates[target.name]

    def _vendor(self, target: Target) -> str | None:
        provider = self._config.file.providers[target.provider]
        address = getattr(provider, "base_url", None) or getattr(provider, "endpoint", "")
        return self.prices.vendor(provider.type, urlsplit(str(address)).hostname or "")

    def _costs(self, route: Route, features: Features, output_tokens: int) -> Iterator[tuple[str, Estimate]]:
        for target in route.targets:
            if rates := self.rates(target):
                one = pricing.expected(rates, features.input_tokens, output_tokens)
                sent = pricing.worst_case(rates, ceil(features.input_tokens * ESTIMATE_ERROR), 0)
                yield target.name, Estimate(one.expected, sent, one.per_output_token * features.answers)

    def _strategy(self, name: str, route: Route) -> Strategy:
        if name == "cost":
            return by_cost
        if name == "speed":
            return by_speed
        return by_task(route.settings.tasks, [target.name for target in route.targets])


def task_input(request: ChatRequest) -> TaskInput:
    """What of a request its task can be told from."""
    system = [text_of(message) for message in request.messages if message.role in ("system", "developer")]
    turns = [message for message in request.messages if message.role not in ("system", "developer")]
    kind = request.response_format.type if request.response_format else None
    return TaskInput(
        turns=tuple((message.role, text_of(message)) for message in turns[-TURNS:]),
        system="\n".join(system),
        images="vision" in request.needs(),
        tools="tools" in request.needs(),
        max_tokens=request.output_limit,
        response_format=kind,
    )


def text_of(message: Message) -> str:
    """The text of a message, of all its parts."""
    if isinstance(message.content, list):
        return "\n".join(part.text for part in message.content if part.text)
    return message.content or ""


def _labels(request: Asking, header: str | None) -> Iterator[tuple[str, str]]:
    """Where a request may name its task, with the place, the strongest first."""
    if request.router and request.router.task:
        yield "router.task", request.router.task
    if header:
        yield "x-router-task", header
    named = (request.metadata or {}).get("task_type")
    if isinstance(named, str) and named:
        yield "metadata.task_type", named


def _check_names(param: str, names: Sequence[str] | None, config: Config) -> None:
    for place, name in enumerate(names or ()):
        if name not in config.targets:
            known = ", ".join(sorted(config.targets))
            raise InvalidRequest(f"No target {name[:100]!r}; targets are {known}.", param=f"{param}[{place}]")


def _explored(names: Sequence[str], speed: Mapping[str, Speed], lots: Lots, share: float) -> str | None:
    """Whose turn it is: a target never seen before any other, so that a slow memory can be corrected."""
    if lots.explore >= share or len(names) < 2:
        return None
    unseen = [name for name in names if name not in speed]
    among = unseen or names
    return among[int(lots.explore / share * len(among))]


def _withholding(made: Plan, route: Route) -> Plan:
    """The plan, saying which targets of the route are not for this caller."""
    if not route.withheld:
        return made
    withheld = (Exclusion(name, "not among the caller's targets") for name in route.withheld)
    return replace(made, exclusions=(*made.exclusions, *withheld))


def _check_suits(made: Plan, request: Asking | None) -> None:
    """Raises InvalidRequest when the request itself keeps every target out, so that waiting cannot help."""
    if made.choices or any(excluded.refused for excluded in made.exclusions):
        return
    told = "; ".join(f"{excluded.target}: {excluded.reason}" for excluded in made.exclusions)
    param, code = _blamed(made, request.places() if request else {}, request.text_at if request else None)
    advice = _INSTEAD if isinstance(request, CompletionRequest) else ""
    raise InvalidRequest(f"No target of {made.route!r} suits the request: {told}.{advice}", param=param, code=code)


_INSTEAD = ' Use POST /v1/chat/completions, or a target with "completions" among its supports.'


def _blamed(made: Plan, places: Mapping[Feature, str], text_at: str | None) -> tuple[str | None, str]:
    """The place in the request that keeps the targets out, and the error's code."""
    reasons = [excluded.reason for excluded in made.exclusions]
    if any(reason.startswith(OVER_CEILING) for reason in reasons):
        return "router.max_cost_usd", "over_ceiling"
    lacking = [reason.removeprefix(LACKS).split() for reason in reasons if reason.startswith(LACKS)]
    if not lacking and any(reason.startswith(TOO_SMALL) for reason in reasons):
        return text_at, "context_length_exceeded"
    missing = {word.strip(",") for words in lacking for word in words}
    return next((place for need, place in places.items() if need in missing), None), "no_suitable_target"


@lru_cache(maxsize=256)
def _bucket(speed: Speed | None) -> Speed | None:
    """To two digits: a plan does not change with every answer."""
    return speed and Speed(float(f"{speed.first_token_seconds:.1e}"), float(f"{speed.tokens_per_second:.1e}"))


_KEYED = attrgetter(*(item.name for item in fields(AskedFacts) if item.name not in ("task", "draw")))


def _key(facts: AskedFacts) -> tuple[Hashable, ...]:
    """All that a ranking depends on, as something to look up by: neither the words about the task nor the lot."""
    values = (tuple(value.items()) if isinstance(value, dict) else value for value in _KEYED(facts))
    return (facts.task.kind, *values)
