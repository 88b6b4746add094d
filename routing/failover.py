"""The one loop: walk the plan, ask each target's breaker for leave and the target for an answer, until one answers.

It knows neither chat nor streams nor providers: only a plan, and a function from target to awaitable.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from routing import chance, retries
from routing.errors import Again, AllFailed, BadRequest, NoTarget, ProviderError, RouterError, TooSlow
from routing.retries import AskAgain, AskNext, RetrySettings, Stop
from routing.trace import CALLER_LEFT
from routing.types import Attempt, Outcome, Plan, Refused, Target, Ticket, Usage
from routing.watching import Attempts

T = TypeVar("T")
Call = Callable[[Target], Awaitable[T]]


class Gate(Protocol):
    """The breakers, as the loop sees them. No call waits."""

    def refusal(self, target: str) -> Refused | None: ...

    def admit(self, target: str, *, last_resort: bool = False) -> Ticket | Refused: ...

    def record(
        self, ticket: Ticket, outcome: Outcome, *, retry_after: float | None = None, error: str | None = None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """Under what terms one walk goes. `deadline` is a time of the event loop's clock, in seconds."""

    targets: Mapping[str, Target]
    deadline: float
    attempt_seconds: float
    retry: RetrySettings
    content_refused_moves_on: bool = False
    wall_clock: Callable[[], float] = time.time  # the breakers' clock, for the Retry-After of an empty walk


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """What a target gave. Its ticket is open: how the call went in the end is for the holder to record."""

    target: Target
    value: T
    ticket: Ticket
    started: float  # when the answering call began, by the event loop's clock
    seconds: float  # that it took; of a stream, up to its first words
    attempts: tuple[Attempt, ...]  # the failed ones before it


@dataclass(slots=True)
class _Walk:
    """What happened so far."""

    attempts: Attempts
    refused: list[Refused] = field(default_factory=list)
    free_at: dict[str, float] = field(default_factory=dict)  # target -> when its latest Retry-After is over
    last: ProviderError | None = None
    bigger_than: int | None = None


async def run(plan: Plan, call: Call[T], gate: Gate, terms: Terms, attempts: Attempts | None = None) -> Answered[T]:
    """The first answer; every failed call goes into `attempts` as it fails, also one that the caller's leaving ends.

    Raises NoTarget, AllFailed, or the error at which asking anybody else was no use.
    """
    walk = _Walk(attempts or Attempts())
    queue = [terms.targets[choice.target] for choice in plan.choices]
    while queue:
        target, *others = queue
        answered = await _ask(target, others, call, gate, terms, walk)
        if answered is not None:
            return answered
        queue = [other for other in others if AskNext(walk.bigger_than).suits(other)]
        if _remaining(terms) <= 0:
            break
    raise _nobody(plan, walk, gate, terms)


async def _ask(
    target: Target,
    others: Sequence[Target],
    call: Call[T],
    gate: Gate,
    terms: Terms,
    walk: _Walk,
) -> Answered[T] | None:
    """Asks one target, again where that may help. None: on to the next."""
    tried = 0
    while True:
        leave = gate.admit(target.name, last_resort=not others)
        if isinstance(leave, Refused):
            walk.refused.append(leave)
            return None
        tried += 1
        started = _now()
        walk.attempts.begin(target.name)
        try:
            value = await _in_time(call(target), min(terms.attempt_seconds, _remaining(terms)))
        except ProviderError as error:
            move = _next_move(error, target, others, terms, tried)
            _note(error, leave, move, gate, walk, _now() - started)
            if isinstance(move, Stop):
                raise
            if isinstance(move, AskNext):
                if move.bigger_than is not None:
                    walk.bigger_than = max(move.bigger_than, walk.bigger_than or 0)
                return None
            await asyncio.sleep(move.seconds)
        except BaseException as error:  # the caller left, or we have a bug: no news about the target
            left = isinstance(error, asyncio.CancelledError)
            name = CALLER_LEFT if left else type(error).__name__
            gate.record(leave, Outcome.NEUTRAL, error=None if left else name)
            _add(walk, leave, Outcome.NEUTRAL, _now() - started, name)
            raise
        else:
            return Answered(target, value, leave, started, _now() - started, tuple(walk.attempts.failed))


async def _in_time(answer: Awaitable[T], seconds: float) -> T:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await answer
    except TimeoutError:
        raise TooSlow(f"The provider did not answer within {seconds:.3g} s.") from None


def _next_move(
    error: ProviderError, target: Target, others: Sequence[Target], terms: Terms, tried: int
) -> retries.Move:
    return retries.decide(
        error,
        target,
        terms.retry,
        tried=tried,
        remaining=_remaining(terms),
        others=bool(others),
        jitter=chance.random(),
        content_refused_moves_on=terms.content_refused_moves_on,
    )


def _note(error: ProviderError, ticket: Ticket, move: retries.Move, gate: Gate, walk: _Walk, seconds: float) -> None:
    """Tells the breaker, and keeps the attempt."""
    outcome = error.policy.outcome
    if error.policy.again is Again.WITH_NEW_SECRET and isinstance(move, AskAgain):
        outcome = Outcome.NEUTRAL  # an old key says nothing about the target
    name = type(error).__name__
    gate.record(ticket, outcome, retry_after=error.retry_after, error=name)
    _add(walk, ticket, outcome, seconds, name, error.usage)
    walk.last = error
    walk.free_at.pop(ticket.target, None)
    if error.retry_after is not None:
        walk.free_at[ticket.target] = _now() + error.retry_after


def _add(walk: _Walk, ticket: Ticket, outcome: Outcome, seconds: float, error: str, usage: Usage | None = None) -> None:
    walk.attempts.add(Attempt(ticket.target, len(walk.attempts.failed) + 1, outcome, seconds, error, usage))


def _nobody(plan: Plan, walk: _Walk, gate: Gate, terms: Terms) -> RouterError:
    """What to tell the caller when nobody answered."""
    if walk.last is None:
        return _no_target(plan, walk.refused, terms.wall_clock())
    failed = walk.attempts.failed
    if isinstance(walk.last, BadRequest) and all(attempt.outcome is Outcome.NEUTRAL for attempt in failed):
        return walk.last
    return AllFailed(walk.last, attempts=failed, retry_after=_retry_after(plan, walk, gate, terms))


def _retry_after(plan: Plan, walk: _Walk, gate: Gate, terms: Terms) -> float | None:
    """The lowest wait after a walk that ended in throttling; any other failure will not mend by waiting.

    Who throttled and did not say for how long is parked by its breaker, and so are some who were not asked.
    """
    if walk.last is None or walk.last.status != 429:
        return None
    silent = {attempt.target for attempt in walk.attempts.failed if attempt.outcome is Outcome.PARKED} - {*walk.free_at}
    refused = [*_refusals(plan, walk.refused), *(refusal for name in silent if (refusal := gate.refusal(name)))]
    waits = [refusal.retry_at - terms.wall_clock() for refusal in refused if refusal.reason == "parked"]
    waits += [free_at - _now() for free_at in walk.free_at.values()]
    return max(0.0, min(waits)) if waits else None


def _refusals(plan: Plan, refused: Sequence[Refused]) -> list[Refused]:
    """Who was refused on the way, and who had been before."""
    return [*refused, *(exclusion.refused for exclusion in plan.exclusions if exclusion.refused)]


def _no_target(plan: Plan, refused: Sequence[Refused], now: float) -> NoTarget:
    reasons = [f"{refusal.target} ({refusal.reason})" for refusal in refused]
    reasons += [f"{exclusion.target} ({exclusion.reason})" for exclusion in plan.exclusions]
    refused = _refusals(plan, refused)
    soonest = min((refusal.retry_at for refusal in refused), default=None)
    wait = None if soonest is None or math.isinf(soonest) else max(1.0, soonest - now)
    message = f"No target of {plan.route!r} can be asked: {', '.join(reasons) or 'the plan is empty'}."
    return NoTarget(message, refused=refused, retry_after=wait)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _remaining(terms: Terms) -> float:
    return terms.deadline - _now()
