"""What an answer and the failed attempts before it cost, as far as the providers say what they have counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from routing import pricing, savings
from routing.planner import Planner
from routing.types import Attempt, Cost, Decision, Target, Usage


class Costs:
    """By the planner's prices; `targets` are those of the routes file."""

    def __init__(self, planner: Planner, targets: Mapping[str, Target]) -> None:
        self._planner, self._targets = planner, targets

    def of_answer(self, decision: Decision, target: Target, usage: Usage, served: str | None) -> Cost:
        """With what it saved. `served` is the model as the provider names it."""
        others = savings.adequate(decision.plan, decision.facts, self._targets)
        rates = (self._planner.rates(other) for other in others if other is not target)
        return savings.with_savings(self._price(target, usage, served), usage, rates)

    def of_attempts(self, failed: Iterable[Attempt]) -> tuple[Attempt, ...]:
        """The attempts, with the cost of those that are known to be billed."""
        return tuple(
            replace(each, cost=self._price(self._targets[each.target], each.usage)) if each.usage else each
            for each in failed
        )

    def _price(self, target: Target, usage: Usage, served: str | None = None) -> Cost:
        return pricing.cost(usage, self._planner.rates(target, served), self._planner.prices.version)
