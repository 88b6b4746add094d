"""A request's way: find its route and task, make a plan, walk it, and settle what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar, cast

from routing import chance, failover, trace
from routing.background import Background
from routing.broadcast import Pieces
from routing.config import Config, Route
from routing.costs import Costs
from routing.decisions import Decisions, new_id
from routing.detector import Detector
from routing.dialects import CHAT, Dialect
from routing.errors import Late, ProviderError, RunError, TooSlow
from routing.failover import Answered, Terms
from routing.ledger import Ledger
from routing.metering import Admission, rules_of, without_busy
from routing.planner import Health as Facts
from routing.planner import Lots, Planner
from routing.providers.base import Provider, Reply
from routing.relay import Opened, Relay, StreamEnd, opened
from routing.requests import EmbeddingRequest
from routing.trace import CALLER_LEFT, Notes
from routing.types import Attempt, Caller, Choice, Decision, Outcome, Target, Usage
from routing.watching import Attempts, Watch
from routing.wire import Asking, ChatRequest

T = TypeVar("T")


class Health(failover.Gate, Facts, Protocol):
    """The breakers, as the router sees them. Nothing here waits."""

    def touch(self) -> None: ...

    def observe(
        self, target: str, *, first_token_seconds: float | None, seconds: float, output_tokens: int
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came in.

    `label` is the task that a header names, `dialect` how the caller speaks; `watch` hears what becomes of it.
    """

    request: Asking
    caller: Caller
    id: str
    label: str | None = None
    dialect: Dialect = CHAT
    watch: Watch | None = None


@dataclass(frozen=True, slots=True)
class About:
    """How an answer came about. Of a stream the decision is complete but for what only its end will tell."""

    decision: Decision
    headers: Mapping[str, str]  # the provider's that the caller gets to see
    model: str | None  # as the provider names what answered
    dropped: tuple[str, ...]  # request fields that the provider's protocol has no place for
    overhead_seconds: float  # the router's own time
    output_limit: int | None  # imposed by the request's ceiling


@dataclass(frozen=True, slots=True)
class Answer(About):
    """A whole answer."""

    body: bytes


@dataclass(frozen=True, slots=True)
class OpenAnswer(About):
    """An answer that is being written."""

    relay: Pieces


@dataclass(frozen=True, slots=True)
class _Walk:
    """One request under way. `started` is a time of the event loop's clock."""

    asked: Asked
    route: Route
    decision: Decision
    choices: Mapping[str, Choice]
    started: float
    admission: Admission | None = None
    attempts: Attempts = field(default_factory=Attempts)
    notes: Notes = field(default_factory=lambda: Notes(trace.current.get()))


class Router:
    """Answers requests by the routes file. Shared by every request of the process; holds no state of any of them."""

    def __init__(
        self,
        config: Config,
        providers: Mapping[str, Provider],
        health: Health,
        planner: Planner,
        decisions: Decisions,
        background: Background,
        clock: Callable[[], float] = time.time,
        ledger: Ledger | None = None,
        random: Callable[[], float] = chance.random,
    ) -> None:
        self._ledger = ledger or Ledger(rules_of(config), config.file.ledger, clock)
        self._config, self._providers, self._health, self._planner = config, providers, health, planner
        self._decisions, self._background, self._clock, self._random = decisions, background, clock, random
        self._detector = Detector(config.targets, providers, health)
        self._costs = Costs(planner, config.targets)

    async def chat(self, asked: Asked) -> Answer:
        """The answer in one piece. Raises a RouterError."""
        with self._admission(asked) as admission:
            walk = await self._begin(asked, admission)
            answered = await self._run(walk, lambda target: self._chat(target, walk))
        reply = answered.value
        decision = self._settle(walk, answered, Outcome.OK, usage=reply.usage, tokens=0, served=reply.model)
        about = decision, _headers(walk, reply.headers), reply.model, reply.dropped
        return Answer(*about, _overhead(walk, answered), _imposed(walk, answered.target), reply.body)

    async def open(self, asked: Asked) -> OpenAnswer:
        """The answer as a stream that has said its first words. Raises a RouterError."""
        with self._admission(asked) as admission:
            walk = await self._begin(asked, admission)
            answered = await self._run(walk, lambda target: self._open(target, walk))
        source, first_token = answered.value, _now() - walk.started
        walk = replace(walk, decision=replace(walk.decision, first_token_seconds=first_token))
        model = next((chunk.model for chunk in source.held if chunk.model), None)

        def ended(end: StreamEnd) -> None:
            said = end.usage, end.tokens
            self._settle(walk, answered, end.outcome, error=end.error, usage=said[0], tokens=said[1], served=model)

        relay = Relay(
            source,
            self._background,
            ended,
            idle_seconds=walk.route.settings.idle_seconds,
            deadline=walk.started + walk.route.settings.stream_seconds,
            request_id=asked.id,
            dialect=asked.dialect,
        )
        decision = replace(walk.decision, attempts=answered.attempts, target=answered.target.name)
        self._decisions.keep(decision)
        about = decision, _headers(walk, source.stream.headers), model, source.stream.dropped
        return OpenAnswer(*about, _overhead(walk, answered), _imposed(walk, answered.target), relay)

    async def count(self, asked: Asked) -> Reply | int:
        """How many tokens the request would read: as its first choice counts them, else an estimate."""
        walk = await self._begin(asked)
        able = asked.dialect.speakers(self._targets(walk.route))
        first = tuple(choice for choice in walk.decision.plan.choices[:1] if choice.target in able)
        try:
            plan = replace(walk.decision.plan, choices=first)
            terms = self._terms(walk)
            answered = await failover.run(plan, lambda target: self._chat(target, walk), self._health, terms)
        except RunError:
            return walk.decision.facts.input_tokens
        self._health.record(answered.ticket, Outcome.OK)
        return answered.value

    async def explain(self, asked: Asked) -> Decision:
        """What `chat` would begin with, and nothing else: nobody is asked but the route's own detector."""
        return (await self._begin(asked)).decision

    def admission(self, asked: Asked) -> Admission:
        """For a request that is answered without asking anybody. Raises UnknownModel and Forbidden."""
        return self._admission(asked)

    def _admission(self, asked: Asked) -> Admission:
        route = self._config.route(asked.request.model, asked.caller)
        return Admission(self._ledger, asked.caller, route.name, self._clock, stream=bool(asked.request.stream))

    async def _begin(self, asked: Asked, admission: Admission | None = None) -> _Walk:
        """Everything before the first call. Raises UnknownModel, InvalidRequest and LimitExceeded."""
        started, request = _now(), asked.request
        self._health.touch()
        route = self._config.route(request.model, asked.caller)
        features = self._planner.features(request)
        if admission:
            admission.enter(features.input_tokens)
        task = self._planner.label(request, asked.label)
        if task is None:
            task = self._planner.detect(request, route)
            if isinstance(request, ChatRequest):
                task = await self._detector.improve(task, request, route)
        lots = Lots(self._random(), self._random())
        plan, facts = await self._planner.plan(features, route, task, lots, request)
        plan = asked.dialect.suited(plan, self._targets(route), request)
        if admission:
            plan = admission.keep_to(plan, facts, self._config.targets)
        else:
            plan = without_busy(plan, facts, self._ledger, self._clock())
        made = Decision(new_id(at := self._clock()), at, asked.caller.name, request.model, plan, facts)
        if asked.watch:
            asked.watch.planned(made)
        choices = {choice.target: choice for choice in plan.choices}
        return _Walk(asked, route, made, choices, started, admission, Attempts(asked.watch))

    def _terms(self, walk: _Walk) -> Terms:
        settings = walk.route.settings
        return Terms(
            targets=self._config.targets,
            deadline=walk.started + settings.deadline_seconds,
            attempt_seconds=settings.attempt_seconds,
            retry=settings.retry,
            content_refused_moves_on=settings.fallback.on_content_refused,
            wall_clock=self._clock,
        )

    async def _run(self, walk: _Walk, call: failover.Call[T]) -> Answered[T]:
        gate = walk.admission.gate(self._health, walk.decision.facts.input_tokens) if walk.admission else self._health
        try:
            noted = walk.notes.around
            return await failover.run(
                walk.decision.plan,
                lambda target: noted(target.name, call(target)),
                gate,
                self._terms(walk),
                walk.attempts,
            )
        except BaseException as error:
            self._failed(walk, CALLER_LEFT if isinstance(error, asyncio.CancelledError) else type(error).__name__)
            raise

    def _failed(self, walk: _Walk, error: str) -> None:
        attempts, seconds = self._costs.of_attempts(walk.attempts.failed), _now() - walk.started
        decision = replace(walk.decision, attempts=attempts, seconds=seconds, error=error)
        self._decisions.settled(decision)
        if walk.admission:
            walk.admission.settle(decision)
        walk.notes.end(decision, walk.asked.request)

    async def _chat(self, target: Target, walk: _Walk) -> Reply:
        dialect, provider = walk.asked.dialect, self._provider(target)
        return await self._patient(target, walk, dialect.chat(provider, target, _request(walk, target)))

    async def _open(self, target: Target, walk: _Walk) -> Opened:
        """Opens a stream and waits for its first words, within the time limit for both."""

        async def first_words() -> Opened:
            dialect, provider = walk.asked.dialect, self._provider(target)
            stream = await dialect.stream(provider, target, _request(walk, target))
            return await opened(stream, self._background)

        return await self._patient(target, walk, first_words(), walk.route.settings.first_token_seconds)

    async def _patient(self, target: Target, walk: _Walk, answer: Awaitable[T], seconds: float | None = None) -> T:
        """The answer, if it comes in time. The request's `max_latency_ms` counts while there is another to ask."""
        wanted, last = walk.decision.facts.max_latency, walk.decision.plan.choices[-1].target
        impatient = wanted is not None and target.name != last and (seconds is None or wanted < seconds)
        limit = wanted if impatient else seconds
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError:
            kind = Late if impatient else TooSlow  # one caller's hurry says nothing about the target's health
            raise kind(f"The provider said nothing within {limit:.3g} s.") from None

    def _targets(self, route: Route) -> Mapping[str, Provider]:
        """The route's targets, each with its provider."""
        return {target.name: self._provider(target) for target in route.targets}

    def _provider(self, target: Target) -> Provider:
        return self._providers[target.provider]

    def _settle(
        self,
        walk: _Walk,
        answered: Answered[T],
        outcome: Outcome,
        *,
        error: ProviderError | None = None,
        usage: Usage | None,
        tokens: int,
        served: str | None,
    ) -> Decision:
        """What the call says about its target, what it cost, and the whole decision, told at its very end."""
        target, seconds = answered.target, _now() - answered.started
        name = type(error).__name__ if error else None
        self._health.record(answered.ticket, outcome, retry_after=error.retry_after if error else None, error=name)
        used = usage or Usage(walk.decision.facts.input_tokens, tokens, estimated=True)
        if outcome is Outcome.OK:
            waits = walk.asked.request.stream or isinstance(walk.asked.request, EmbeddingRequest)
            first = answered.seconds if waits else None  # vectors come at once: that is all the speed they have
            self._health.observe(target.name, first_token_seconds=first, seconds=seconds, output_tokens=used.output)
            self._planner.learn(target, used)
        failed = [Attempt(target.name, len(answered.attempts) + 1, outcome, seconds, name)] if error else []
        decision = replace(
            walk.decision,
            attempts=(*self._costs.of_attempts(answered.attempts), *failed),
            target=target.name,
            usage=used,
            cost=self._costs.of_answer(walk.decision, target, used, served),
            seconds=_now() - walk.started,
            error=name or (CALLER_LEFT if outcome is Outcome.NEUTRAL else None),
        )
        self._decisions.settled(decision)
        if walk.admission:
            walk.admission.settle(decision)
        own = _overhead(walk, answered)
        walk.notes.end(
            decision,
            walk.asked.request,
            model=served,
            tokens=tokens,
            overhead_seconds=own,
            answer=answered.value.body if isinstance(answered.value, Reply) else None,
        )
        return decision


def _request(walk: _Walk, target: Target) -> ChatRequest:
    """The request for this target, shortened where the caller's ceiling wants it."""
    limit, request = _imposed(walk, target), walk.asked.request
    return cast(ChatRequest, request if limit is None else request.limited(limit))  # or what its dialect is for


def _imposed(walk: _Walk, target: Target) -> int | None:
    return walk.choices[target.name].output_limit


def _headers(walk: _Walk, provider: Mapping[str, str]) -> Mapping[str, str]:
    """The provider's headers; what a caller has left of its own limits stands in place of what we have left there."""
    return {**provider, **walk.admission.headers} if walk.admission else provider


def _overhead(walk: _Walk, answered: Answered[T]) -> float:
    """Seconds that the router itself took: all but the calls, the failed ones included."""
    calls = answered.seconds + sum(attempt.seconds for attempt in answered.attempts)
    return max(0.0, _now() - walk.started - calls)


def _now() -> float:
    return asyncio.get_running_loop().time()
