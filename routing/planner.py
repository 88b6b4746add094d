"""From a request to its plan: what the router knows about it becomes facts, and the route's strategy ranks the targets.

The live path and `explain` both come through here, so that they cannot differ.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

from routing.config import Config, Route
from routing.custom import Custom
from routing.errors import InvalidRequest
from routing.features import AskedFacts, Features, expected_output, features_of, minimum_quality
from routing.pricing import Prices, Rates
from routing.quotes import Quotes, SeenUsage, Usual
from routing.requests import CompletionRequest
from routing.strategies import LACKS, OVER_CEILING, TOO_SMALL, Strategy, by_cost, by_speed, by_task, ranked, shared
from routing.tasks import TaskInput, detect, parse_label
from routing.types import Estimate, Exclusion, Feature, Plan, Refused, Shares, Speed, Target, Task, Usage
from routing.wire import Asking, ChatRequest, Message

REMEMBERED = 1_024  # plans
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


@dataclass(frozen=True, slots=True)
class _Known:
    """What of a route is the same for each request. It holds the route, so that no other gets its id."""

    route: Route
    names: tuple[str, ...]
    in_order: Strategy


@dataclass(frozen=True, slots=True)
class _Moment:
    """What a plan depends on beside the request: how the route's targets do now, and whose turn it is to be tried."""

    speed: Mapping[str, Speed]
    shares: Mapping[str, Shares]
    breaker: Mapping[str, Refused]
    explore: str | None

    def key(self) -> tuple[Hashable, ...]:
        return tuple(self.speed.items()), tuple(self.shares.items()), tuple(self.breaker.items()), self.explore


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
        usual: Usual | None = None,
        remembered: int = REMEMBERED,
    ) -> None:
        self._config, self._health, self._custom = config, health, custom
        self._quotes, self._usual = Quotes(config, prices), usual or SeenUsage()
        self._most_made = remembered
        self._known: dict[int, _Known] = {}
        self._made: OrderedDict[Hashable, tuple[Plan, Mapping[str, Estimate]]] = OrderedDict()

    @property
    def prices(self) -> Prices:
        """The table, read when it is first needed."""
        return self._quotes.prices

    def rates(self, target: Target, served: str | None = None) -> Rates | None:
        """What the target costs; `served` is the model that the reply names."""
        return self._quotes.rates(target, served)

    def learn(self, target: Target, usage: Usage) -> None:
        """Takes what an answer used: later requests are expected to be alike."""
        self._usual.learn(target.name, usage)

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
        if hints := request.router:
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
        known = self._known.get(id(route)) or self._get_to_know(route)
        now = self._moment(known, strategy, lots)
        if strategy in self._custom.strategies:
            facts = _facts(features, route, task, lots, now, self._costs(features, route, task, now))
            made = await self._by_custom(strategy, known, facts)
        else:
            made, facts = self._remembered(features, known, task, lots, strategy, now)
        made = _withholding(shared(made, route.targets, lots.draw), route)
        _check_suits(made, request)
        return made, facts

    def _get_to_know(self, route: Route) -> _Known:
        names = tuple(target.name for target in route.targets)
        known = self._known[id(route)] = _Known(route, names, by_task(route.settings.tasks, names))
        return known

    def _moment(self, known: _Known, strategy: str, lots: Lots) -> _Moment:
        speed, shares, breaker = dict[str, Speed](), dict[str, Shares](), dict[str, Refused]()
        for name in known.names:
            if seen := self._health.speed(name):
                speed[name] = _bucket(seen)
            if found := self._usual.shares(name):
                shares[name] = found
            if refused := self._health.refusal(name):
                breaker[name] = refused
        explores = strategy == "speed"
        explored = _explored(known.names, speed, lots, known.route.settings.exploration) if explores else None
        return _Moment(speed, shares, breaker, explored)

    def _costs(self, features: Features, route: Route, task: Task, now: _Moment) -> dict[str, Estimate]:
        return self._quotes.estimates(route.targets, features, expected_output(features, task.kind), now.shares)

    async def _by_custom(self, strategy: str, known: _Known, facts: AskedFacts) -> Plan:
        made = await self._custom.plan(strategy, known.route, facts)
        if isinstance(made, Plan):
            return made
        order = by_task({}, known.names)
        return replace(ranked(known.route.name, "task", order, known.route.targets, facts), note=made)

    def _remembered(
        self, features: Features, known: _Known, task: Task, lots: Lots, strategy: str, now: _Moment
    ) -> tuple[Plan, AskedFacts]:
        """The plan made before when all it depends on was equal: neither the words about the task nor the lot count."""
        route = known.route
        key = (id(route), strategy, task.kind, features, self._quotes.learnt, *now.key()) if self._most_made else None
        kept = self._made.get(key) if key else None
        if kept:
            made, costs = kept
            facts = _facts(features, route, task, lots, now, costs)
            return (made if made.task == task else replace(made, task=task)), facts
        costs = self._costs(features, route, task, now)
        facts = _facts(features, route, task, lots, now, costs)
        made = ranked(route.name, strategy, _FIXED.get(strategy, known.in_order), route.targets, facts)
        if key:
            self._remember(key, made, costs)
        return made, facts

    def _remember(self, key: Hashable, made: Plan, costs: Mapping[str, Estimate]) -> None:
        self._made[key] = made, costs
        if len(self._made) > self._most_made:
            self._made.popitem(last=False)


_FIXED: Mapping[str, Strategy] = {"cost": by_cost, "speed": by_speed}


def _facts(
    features: Features, route: Route, task: Task, lots: Lots, now: _Moment, costs: Mapping[str, Estimate]
) -> AskedFacts:
    """All that the strategies may judge by."""
    return AskedFacts(
        task=task,
        input_tokens=features.input_tokens,
        output_tokens=expected_output(features, task.kind),
        output_limit=features.output_limit,
        largest_input=features.largest_input,
        needs=features.needs,
        speed=now.speed,
        shares=now.shares,
        breaker=now.breaker,
        cost=costs,
        minimum_quality=minimum_quality(features, route.settings, task.kind),
        strict_quality=features.min_quality is not None,
        max_cost=features.max_cost,
        max_latency=features.max_latency,
        only=features.only,
        deny=features.deny,
        explore=now.explore,
        draw=lots.draw,
        answers=features.answers,
        strategy=features.strategy,
        priority=features.priority,
    )


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
def _bucket(speed: Speed) -> Speed:
    """To two digits: a plan does not change with every answer."""
    return Speed(float(f"{speed.first_token_seconds:.1e}"), float(f"{speed.tokens_per_second:.1e}"))
