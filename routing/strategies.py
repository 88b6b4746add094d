"""Which target first: a strategy scores one target at a time, and `plan` ranks, excludes and explains for all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from routing.types import Choice, Exclusion, Facts, Plan, Target, TaskKind


@dataclass(frozen=True, slots=True)
class Score:
    """Higher is better. The reason is for people."""

    value: float
    reason: str


Strategy = Callable[[Target, Facts], Score]


def plan(
    route: str,
    strategy: str,
    score: Strategy,
    targets: Sequence[Target],
    facts: Facts,
    *,
    only: Collection[str] | None = None,
    deny: Collection[str] = (),
) -> Plan:
    """The targets that may be asked, best first (ties: the order given), and why the others may not."""
    choices: list[Choice] = []
    exclusions: list[Exclusion] = []
    for target in targets:
        excluded = _exclusion(target, facts, only, deny)
        if excluded:
            exclusions.append(excluded)
        else:
            scored = score(target, facts)
            choices.append(Choice(target.name, scored.value, scored.reason))
    choices.sort(key=lambda choice: -choice.score)
    return Plan(route, strategy, facts.task, tuple(choices), tuple(exclusions))


def _exclusion(
    target: Target, facts: Facts, only: Collection[str] | None, deny: Collection[str]
) -> Exclusion | None:
    """The first hard fact against a target."""
    if target.name in deny or (only is not None and target.name not in only):
        return Exclusion(target.name, "denied by the request")
    if missing := facts.needs - target.supports:
        return Exclusion(target.name, f"lacks {', '.join(sorted(missing))}")
    if target.context is not None and facts.input_tokens > target.context:
        return Exclusion(target.name, f"context of {target.context} tokens is too small for {facts.input_tokens}")
    if refused := facts.breaker.get(target.name):
        return Exclusion(target.name, f"breaker: {refused.reason}", refused)
    return None


def by_task(order: Mapping[TaskKind, Sequence[str]], targets: Sequence[str]) -> Strategy:
    """The route's list for the detected task; targets that are not on it, and tasks without one, in the route's order."""

    def score(target: Target, facts: Facts) -> Score:
        listed = order.get(facts.task.kind, ())
        if target.name in listed:
            place = listed.index(target.name)
            return Score(1.0 - place / (len(listed) + 1), f"number {place + 1} for {facts.task.kind}")
        place = targets.index(target.name)
        return Score(-place / len(targets), f"number {place + 1} of the route")

    return score
