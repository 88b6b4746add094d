"""A request's way: find its route, make a plan, walk it, and settle what came of it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from routing import failover
from routing.background import Background
from routing.config import Config, Route
from routing.errors import InvalidRequest, ProviderError, TooSlow
from routing.failover import Answered, Gate, Terms
from routing.providers.base import Provider, Reply
from routing.relay import Opened, Relay, StreamEnd, opened
from routing.strategies import by_task, plan
from routing.types import Caller, Decision, Facts, Outcome, Plan, Refused, Target, Task, Usage
from routing.wire import ChatRequest, Hints

T = TypeVar("T")


class Health(Gate, Protocol):
    """The breakers, as the router sees them. Nothing here waits."""

    def touch(self) -> None: ...

    def refusal(self, target: str) -> Refused | None: ...

    def observe(
        self, target: str, *, first_token_seconds: float | None, seconds: float, output_tokens: int
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, and how it came about. `overhead_seconds` is the router's own time."""

    reply: Reply
    decision: Decision
    overhead_seconds: float


@dataclass(frozen=True, slots=True)
class OpenAnswer:
    """An answer that is being written. The decision is complete but for what only the end will tell."""

    relay: Relay
    headers: Mapping[str, str]
    model: str | None
    dropped: tuple[str, ...]
    decision: Decision
    overhead_seconds: float


@dataclass(frozen=True, slots=True)
class _Walk:
    """One request under way. `started` is a time of the event loop's clock."""

    request: ChatRequest
    route: Route
    decision: Decision
    request_id: str
    started: float


class Router:
    """Answers requests by the routes file. Shared by every request of the process; holds no state of any of them."""

    def __init__(
        self,
        config: Config,
        providers: Mapping[str, Provider],
        health: Health,
        background: Background,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self._providers, self._health, self._background, self._clock = providers, health, background, clock

    async def chat(self, request: ChatRequest, caller: Caller, request_id: str) -> Answer:
        """The answer in one piece. Raises a RouterError."""
        walk = self._begin(request, caller, request_id)
        answered = await self._run(walk, lambda target: self._provider(target).chat(target, request))
        reply = answered.value
        decision = self._answered(walk, answered)
        self._settle(walk, answered, Outcome.OK, usage=reply.usage, tokens=reply.usage.output if reply.usage else 0)
        return Answer(reply, replace(decision, usage=reply.usage), _overhead(walk, answered))

    async def open(self, request: ChatRequest, caller: Caller, request_id: str) -> OpenAnswer:
        """The answer as a stream that has said its first words. Raises a RouterError."""
        walk = self._begin(request, caller, request_id)
        answered = await self._run(walk, lambda target: self._open(target, walk))
        decision = self._answered(walk, answered)
        first_token = _now() - walk.started

        def ended(end: StreamEnd) -> None:
            self._settle(walk, answered, end.outcome, error=end.error, usage=end.usage, tokens=end.tokens)

        settings = walk.route.settings
        source = answered.value
        relay = Relay(
            source,
            self._background,
            ended,
            idle_seconds=settings.idle_seconds,
            deadline=walk.started + settings.stream_seconds,
            request_id=request_id,
        )
        model = next((chunk.model for chunk in source.held if chunk.model), None)
        decision = replace(decision, first_token_seconds=first_token)
        return OpenAnswer(
            relay, source.stream.headers, model, source.stream.dropped, decision, _overhead(walk, answered)
        )

    def _begin(self, request: ChatRequest, caller: Caller, request_id: str) -> _Walk:
        """Everything before the first call. Raises UnknownModel and InvalidRequest."""
        started = _now()
        self._health.touch()
        route = self.config.route(request.model)
        decision = Decision(f"dec_{uuid.uuid4().hex}", self._clock(), caller.name, self._plan(request, route))
        return _Walk(request, route, decision, request_id, started)

    def _plan(self, request: ChatRequest, route: Route) -> Plan:
        hints = request.router or Hints()
        _check_names("router.only", hints.only, self.config)
        _check_names("router.deny", hints.deny, self.config)
        names = [target.name for target in route.targets]
        facts = Facts(
            task=_task(request),
            input_tokens=0,
            output_tokens=request.output_limit or 0,
            needs=request.needs(),
            breaker={name: refused for name in names if (refused := self._health.refusal(name))},
            only=frozenset(hints.only) if hints.only else None,
            deny=frozenset(hints.deny or ()),
        )
        strategy = by_task(route.settings.tasks, names)
        return plan(route.name, route.settings.strategy, strategy, route.targets, facts)

    async def _run(self, walk: _Walk, call: failover.Call[T]) -> Answered[T]:
        settings = walk.route.settings
        terms = Terms(
            targets=self.config.targets,
            deadline=walk.started + settings.deadline_seconds,
            attempt_seconds=settings.attempt_seconds,
            retry=settings.retry,
            content_refused_moves_on=settings.fallback.on_content_refused,
            wall_clock=self._clock,
        )
        return await failover.run(walk.decision.plan, call, self._health, terms)

    async def _open(self, target: Target, walk: _Walk) -> Opened:
        """Opens a stream and waits for its first words, within the time limit for both."""
        seconds = walk.route.settings.first_token_seconds
        try:
            async with asyncio.timeout(seconds):
                stream = await self._provider(target).stream(target, walk.request)
                return await opened(stream, self._background)
        except TimeoutError:
            raise TooSlow(f"The provider said nothing within {seconds:.3g} s.") from None

    def _provider(self, target: Target) -> Provider:
        return self._providers[target.provider]

    def _answered(self, walk: _Walk, answered: Answered[T]) -> Decision:
        return replace(
            walk.decision,
            attempts=answered.attempts,
            target=answered.target.name,
            seconds=_now() - walk.started,
        )

    def _settle(
        self,
        walk: _Walk,
        answered: Answered[T],
        outcome: Outcome,
        *,
        error: ProviderError | None = None,
        usage: Usage | None,
        tokens: int,
    ) -> None:
        """What the call says about its target, told at its very end."""
        name = type(error).__name__ if error else None
        self._health.record(answered.ticket, outcome, retry_after=error.retry_after if error else None, error=name)
        if outcome is Outcome.OK:
            self._health.observe(
                answered.target.name,
                first_token_seconds=answered.seconds if walk.request.stream else None,
                seconds=_now() - walk.started,
                output_tokens=usage.output if usage else tokens,
            )


def _task(request: ChatRequest) -> Task:
    if request.router and request.router.task:
        return Task(request.router.task, 1.0, "named in the request")
    return Task()


def _check_names(param: str, names: list[str] | None, config: Config) -> None:
    for place, name in enumerate(names or ()):
        if name not in config.targets:
            known = ", ".join(sorted(config.targets))
            raise InvalidRequest(f"No target {name[:100]!r}; targets are {known}.", param=f"{param}[{place}]")


def _overhead(walk: _Walk, answered: Answered[T]) -> float:
    """Seconds that the router itself took: all but the calls, the failed ones included."""
    calls = answered.seconds + sum(attempt.seconds for attempt in answered.attempts)
    return max(0.0, _now() - walk.started - calls)


def _now() -> float:
    return asyncio.get_running_loop().time()
