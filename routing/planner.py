"""From a request to its plan: what the router knows about it becomes facts, and the route's strategy ranks the targets.

The live path and `explain` both come through here, so that they cannot differ.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol
from urllib.parse import urlsplit

from routing import pricing, tokens
from routing.config import Config, Route
from routing.custom import Custom
from routing.errors import InvalidRequest
from routing.pricing import Prices, Rates
from routing.routes_file import MINIMUM_QUALITY
from routing.strategies import OVER_CEILING, Strategy, by_cost, by_speed, by_task, plan
from routing.tasks import TaskInput, detect, parse_label
from routing.types import Estimate, Exclusion, Facts, Plan, Refused, Speed, Target, Task, TaskKind
from routing.wire import ChatRequest, Hints, Message

EXPECTED_OUTPUT: Mapping[TaskKind, int] = {
    "general": 300,
    "planning": 700,
    "code_generation": 700,
    "analysis": 500,
    "intent_detection": 30,
    "validation": 120,
    "summarization": 250,
    "translation": 300,
    "classification": 20,
    "long_form_generation": 1_800,
}  # tokens; rough, but enough to weigh prices of input against prices of output
LOWEST_RAISED, LOWERED_BY, LOWEST = 0.8, 0.1, 0.5  # of the minimum quality, by priority and by the wish to save
HIGH_PRIORITY = 8
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


class Planner:
    """Makes plans by the routes file. `prices` gives the table for targets whose price the file does not state."""

    def __init__(self, config: Config, health: Health, prices: Callable[[], Prices], custom: Custom) -> None:
        self._config, self._health, self._prices, self._custom = config, health, prices, custom
        self._rates: dict[str, Rates | None] = {}
        self._made: OrderedDict[Hashable, Plan] = OrderedDict()

    @property
    def prices(self) -> Prices:
        """The table, read when it is first needed."""
        return self._prices()

    def label(self, request: ChatRequest, header: str | None) -> Task | None:
        """The task that the request itself names. Raises InvalidRequest for one that does not exist."""
        for param, given in _labels(request, header):
            try:
                kind = parse_label(given)
            except ValueError as error:
                raise InvalidRequest(f"{param}: {error}.", param=param) from None
            if kind:
                return Task(kind, 1.0, f"named by {param}")
        return None

    def detect(self, request: ChatRequest, route: Route) -> Task:
        """The task that the request looks like."""
        if len(route.targets) == 1:
            return Task("general", 0.0, "not looked at: the route has one target")
        return detect(task_input(request), minimum=route.settings.min_task_confidence)

    async def plan(self, request: ChatRequest, route: Route, task: Task, lots: Lots) -> tuple[Plan, Facts]:
        """The plan, and the facts behind it. Raises InvalidRequest when the request itself rules out every target."""
        hints = request.router or Hints()
        _check_names("router.only", hints.only, self._config)
        _check_names("router.deny", hints.deny, self._config)
        strategy = hints.strategy or route.settings.strategy
        facts = self.facts(request, route, task, lots, strategy)
        made = _withholding(await self._plan(route, strategy, facts), route)
        _check_suits(made)
        return made, facts

    async def _plan(self, route: Route, strategy: str, facts: Facts) -> Plan:
        def make(score: Strategy, name: str = strategy) -> Plan:
            return plan(route.name, name, score, route.targets, facts)

        if strategy not in self._custom.strategies:
            return self._remembered(route, strategy, facts, lambda: make(self._strategy(strategy, route)))
        made = await self._custom.plan(strategy, make)
        if isinstance(made, Plan):
            return made
        return replace(make(by_task({}, [target.name for target in route.targets]), "task"), note=made)

    def _remembered(self, route: Route, strategy: str, facts: Facts, make: Callable[[], Plan]) -> Plan:
        """The plan made before for equal facts: what it depends on is all in them, but for the words about the task."""
        key = (id(route), strategy, _key(facts))
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = make()
            if len(self._made) > REMEMBERED:
                self._made.popitem(last=False)
        return made if made.task == facts.task else replace(made, task=facts.task)

    def facts(self, request: ChatRequest, route: Route, task: Task, lots: Lots, strategy: str) -> Facts:
        """All that the strategies may judge by."""
        hints = request.router or Hints()
        names = [target.name for target in route.targets]
        input_tokens = tokens.of_request(request.fields)
        output_tokens = _expected_output(request, task.kind, input_tokens)
        speed = {name: seen for name in names if (seen := _bucket(self._health.speed(name)))}
        return Facts(
            task=task,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            output_limit=request.output_limit,
            needs=request.needs(),
            speed=speed,
            breaker={name: refused for name in names if (refused := self._health.refusal(name))},
            cost=dict(self._costs(route, input_tokens, output_tokens, request.n or 1)),
            minimum_quality=_minimum_quality(hints, route, task.kind),
            strict_quality=hints.min_quality is not None,
            max_cost=None if hints.max_cost_usd is None else hints.max_cost_usd * 1e6,
            max_latency=None if hints.max_latency_ms is None else hints.max_latency_ms / 1e3,
            only=frozenset(hints.only) if hints.only else None,
            deny=frozenset(hints.deny or ()),
            explore=_explored(names, speed, lots, route.settings.exploration) if strategy == "speed" else None,
            draw=lots.draw,
        )

    def rates(self, target: Target, served: str | None = None) -> Rates | None:
        """What the target costs; `served` is the model that the reply names."""
        if served is not None:
            return pricing.price_of(target, self.prices, self._vendor(target), served)
        if target.name not in self._rates:
            self._rates[target.name] = pricing.price_of(target, self.prices, self._vendor(target))
        return self._rates[target.name]

    def _vendor(self, target: Target) -> str | None:
        provider = self._config.file.providers[target.provider]
        address = getattr(provider, "base_url", None) or getattr(provider, "endpoint", "")
        return self.prices.vendor(provider.type, urlsplit(str(address)).hostname or "")

    def _costs(
        self, route: Route, input_tokens: int, output_tokens: int, answers: int
    ) -> Iterator[tuple[str, Estimate]]:
        for target in route.targets:
            if rates := self.rates(target):
                one = pricing.expected(rates, input_tokens, output_tokens)
                yield target.name, replace(one, per_output_token=one.per_output_token * answers)

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


def _labels(request: ChatRequest, header: str | None) -> Iterator[tuple[str, str]]:
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


def _expected_output(request: ChatRequest, kind: TaskKind, input_tokens: int) -> int:
    """Tokens of output, over all the answers asked for."""
    usual = input_tokens if kind == "translation" else EXPECTED_OUTPUT[kind]
    return min(usual, request.output_limit or usual) * (request.n or 1)


def _minimum_quality(hints: Hints, route: Route, kind: TaskKind) -> float:
    """What the cheapest target has to reach: the request's own minimum, else the task's, moved by its wishes."""
    if hints.min_quality is not None:
        return hints.min_quality
    own = route.settings.minimum_quality
    minimum = own.get(kind, own.get("default", MINIMUM_QUALITY.get(kind, MINIMUM_QUALITY["default"])))
    if hints.priority is not None and hints.priority >= HIGH_PRIORITY:
        return max(minimum, LOWEST_RAISED)
    if hints.strategy == "cost":  # asked for in the request itself: saving matters more to this caller
        return min(minimum, max(LOWEST, minimum - LOWERED_BY))
    return minimum


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


def _check_suits(made: Plan) -> None:
    """Raises InvalidRequest when the request itself keeps every target out, so that waiting cannot help."""
    if made.choices or any(excluded.refused for excluded in made.exclusions):
        return
    told = "; ".join(f"{excluded.target}: {excluded.reason}" for excluded in made.exclusions)
    over = any(excluded.reason.startswith(OVER_CEILING) for excluded in made.exclusions)
    param, code = ("router.max_cost_usd", "over_ceiling") if over else (None, "no_suitable_target")
    raise InvalidRequest(f"No target of {made.route!r} suits the request: {told}.", param=param, code=code)


def _bucket(speed: Speed | None) -> Speed | None:
    """To two digits: a plan does not change with every answer."""
    return speed and Speed(float(f"{speed.first_token_seconds:.1e}"), float(f"{speed.tokens_per_second:.1e}"))


def _key(facts: Facts) -> Hashable:
    """The facts without the words about the task, as something that can be looked up."""
    values = (getattr(facts, item.name) for item in fields(facts) if item.name != "task")
    hashable = (tuple(value.items()) if isinstance(value, Mapping) else value for value in values)
    return (facts.task.kind, *hashable)
