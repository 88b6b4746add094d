"""What a request saved: how much more the most expensive target would have cost that could have answered as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from routing import pricing
from routing.pricing import Rates
from routing.strategies import quality_of
from routing.types import Cost, Facts, Plan, Target, Usage


def adequate(plan: Plan, facts: Facts, targets: Mapping[str, Target]) -> Iterator[Target]:
    """The targets that could have answered: nothing but a breaker kept them out, and their quality is enough."""
    names = (choice.target for choice in plan.choices)
    shut = (excluded.target for excluded in plan.exclusions if excluded.refused)
    for name in (*names, *shut):
        if quality_of(targets[name], facts.task.kind) >= facts.minimum_quality:
            yield targets[name]


def with_savings(paid: Cost, usage: Usage, others: Iterable[Rates | None]) -> Cost:
    """The cost, with what the dearest of the others would have cost more for the same tokens; 0 when none would.

    Unknown where the price that was paid is; others whose price is unknown do not count.
    """
    if paid.micro_usd is None:
        return paid
    costs = (pricing.cost(usage, rates, paid.price_version).micro_usd or 0 for rates in others if rates)
    return replace(paid, saved_micro_usd=max(0, max(costs, default=0) - paid.micro_usd))


def of_a_hit(first: Cost | None) -> Cost:
    """The cost of an answer that was kept: nothing, so that all is saved that it would have cost at the dearest."""
    if first is None or first.micro_usd is None:
        return Cost(0, first.price_version if first else "")
    return Cost(0, first.price_version, first.micro_usd + (first.saved_micro_usd or 0))
