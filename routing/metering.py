"""One request and its limits: admitted at its start, its plan kept to what may be used, settled at its very end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from routing.config import Config
from routing.errors import LimitExceeded
from routing.failover import Gate
from routing.features import AskedFacts
from routing.ledger import Budget, Ledger, Rules
from routing.limits import ASSUMED_OUTPUT, CallerLimits
from routing.strategies import longest_output
from routing.trace import CALLER_LEFT
from routing.types import Caller, Choice, Cost, Decision, Exclusion, Outcome, Plan, Refused, Target, Ticket, Usage
from routing.usage import Counts, Of


def rules_of(config: Config) -> Rules:
    """Every limit in the routes file."""
    file = config.file
    callers = {
        name: CallerLimits(each.requests_per_minute, each.tokens_per_minute, each.max_streams)
        for name, each in file.callers.items()
    }
    targets = {
        name: CallerLimits(each.requests_per_minute, each.tokens_per_minute) for name, each in file.targets.items()
    }
    return Rules(_limiting(callers), _limiting(targets), tuple(_budgets(config)))


def _budgets(config: Config) -> Iterator[Budget]:
    callers = config.file.callers
    for name, each in callers.items():
        if each.budget:
            yield Budget(f"caller {name}", each.budget, frozenset([name]))
    for name, group in config.file.groups.items():
        if group.budget:
            members = frozenset(caller for caller, each in callers.items() if name in each.groups)
            yield Budget(f"group {name}", group.budget, members)


def _limiting(limits: Mapping[str, CallerLimits]) -> dict[str, CallerLimits]:
    return {name: each for name, each in limits.items() if each != CallerLimits()}


class Admission:
    """One request of `caller`. Within `with` a failure gives back what was set aside; what is open stays counted."""

    def __init__(self, ledger: Ledger, caller: Caller, route: str, clock: Callable[[], float], *, stream: bool) -> None:
        self._ledger, self._caller, self._route, self._clock, self._stream = ledger, caller.name, route, clock, stream
        self._tokens, self._reserved, self._open = 0, 0, False
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._settle(Of(self._caller, "", "", self._route), Counts(requests=1, failed=1))

    def enter(self, tokens: int) -> None:
        """Raises LimitExceeded when the caller has used up a limit of a minute, or has too many streams open."""
        self.headers = self._ledger.admit(self._caller, tokens=tokens, stream=self._stream)
        self._tokens, self._open = tokens, True

    def keep_to(self, plan: Plan, facts: AskedFacts, targets: Mapping[str, Target]) -> Plan:
        """The plan without targets that have no room, and those that the caller's budgets cannot pay at worst.

        What the dearest of the others may cost is set aside. Raises LimitExceeded when a budget leaves none.
        """
        plan = without_busy(plan, facts, self._ledger, self._clock())
        if not self._ledger.has_budget(self._caller) or not plan.choices:
            return plan
        worst = {choice.target: _worst(choice, facts, targets[choice.target]) for choice in plan.choices}
        priced = {name: cost for name, cost in worst.items() if cost is not None}
        affordable = self._reserve(sorted(set(priced.values()), reverse=True))
        reasons = {
            name: "no known price for the caller's budget" if cost is None else "more than the caller's budget allows"
            for name, cost in worst.items()
            if cost is None or cost > affordable
        }
        return _excluding(plan, reasons)

    def gate(self, gate: Gate, tokens: int) -> Gate:
        """The breakers, with the targets' own limits in front of them."""
        return _Limited(gate, self._ledger, tokens, self._clock)

    def settle(self, decision: Decision) -> None:
        """An answer is complete, or as complete as it will get, or there is none."""
        of = Of(self._caller, decision.target or "", decision.plan.task.kind, decision.plan.route)
        for attempt in decision.attempts:
            if attempt.usage:
                self._ledger.wrote(attempt.target, attempt.usage.input + attempt.usage.output - self._tokens)
                self._ledger.charge(of._replace(target=attempt.target), _counted(attempt.usage, attempt.cost))
        if decision.usage and decision.target and not decision.from_cache:
            self._ledger.wrote(decision.target, decision.usage.input + decision.usage.output - self._tokens)
        self._settle(of, _counts(decision))

    def _reserve(self, costs: list[int]) -> int:
        """Sets aside the most of these that the budgets allow, and returns it."""
        refused: LimitExceeded | None = None
        for cost in costs:
            try:
                warning = self._ledger.reserve(self._caller, cost)
            except LimitExceeded as error:
                refused = error
                continue
            self._reserved = cost
            if warning:
                self.headers["x-router-budget-warning"] = warning
            return cost
        if refused:
            refused.headers = {**self.headers, **refused.headers}
            raise refused
        return -1

    def _settle(self, of: Of, counts: Counts) -> None:
        if self._open:
            self._open = False
            self._ledger.settle(
                self._caller, of, counts, tokens=self._tokens, reserved=self._reserved, stream=self._stream
            )


class _Limited(Gate):
    """Asks the ledger before the breaker, and tells it of each call."""

    def __init__(self, gate: Gate, ledger: Ledger, tokens: int, clock: Callable[[], float]) -> None:
        self._gate, self._ledger, self._tokens, self._clock = gate, ledger, tokens, clock

    def refusal(self, target: str) -> Refused | None:
        return self._gate.refusal(target)

    def admit(self, target: str, *, last_resort: bool = False) -> Ticket | Refused:
        if busy := self._ledger.busy(target, self._tokens):
            return Refused(target, "parked", self._clock() + busy[0])
        leave = self._gate.admit(target, last_resort=last_resort)
        if isinstance(leave, Ticket):
            self._ledger.asked(target, self._tokens)
        return leave

    def record(
        self, ticket: Ticket, outcome: Outcome, *, retry_after: float | None = None, error: str | None = None
    ) -> None:
        self._gate.record(ticket, outcome, retry_after=retry_after, error=error)


def without_busy(plan: Plan, facts: AskedFacts, ledger: Ledger, now: float) -> Plan:
    """The plan without targets whose own limits leave no room now: they are as good as parked."""
    found = {choice.target: ledger.busy(choice.target, facts.input_tokens) for choice in plan.choices}
    busy = {name: why for name, why in found.items() if why}
    refused = {name: Refused(name, "parked", now + why[0]) for name, why in busy.items()}
    return _excluding(plan, {name: why[1] for name, why in busy.items()}, refused)


def _excluding(plan: Plan, reasons: Mapping[str, str], refused: Mapping[str, Refused] | None = None) -> Plan:
    if not reasons:
        return plan
    out = tuple(Exclusion(name, reason, (refused or {}).get(name)) for name, reason in reasons.items())
    choices = tuple(choice for choice in plan.choices if choice.target not in reasons)
    return replace(plan, choices=choices, exclusions=(*plan.exclusions, *out))


def _counts(decision: Decision) -> Counts:
    saved = (decision.cost and decision.cost.saved_micro_usd) or 0
    if decision.from_cache:
        return Counts(requests=1, cached=1, saved_micro_usd=saved)
    failed = decision.error is not None and (decision.target is None or decision.error != CALLER_LEFT)
    request = Counts(requests=1, failed=int(failed), saved_micro_usd=saved)
    return request + _counted(decision.usage, decision.cost) if decision.usage else request


def _counted(usage: Usage, cost: Cost | None) -> Counts:
    paid = cost.micro_usd if cost else None
    used = Counts(input_tokens=usage.input, output_tokens=usage.output)
    return replace(used, micro_usd=paid or 0, unpriced=int(paid is None))


def _worst(choice: Choice, facts: AskedFacts, target: Target) -> int | None:
    """Micro-USD that the request costs there at most; None when its price is unknown.

    Whole ones: what is set aside and given back has to add up to nothing, which fractions do not.
    """
    if choice.cost is None:
        return None
    longest = choice.output_limit or longest_output(target, facts) or ASSUMED_OUTPUT
    return math.ceil(choice.cost.input + choice.cost.per_output_token * longest)
