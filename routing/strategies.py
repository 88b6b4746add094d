"""Which target first: a strategy scores one target at a time; `plan` ranks, excludes and explains them all."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter

from routing.types import Choice, Estimate, Exclusion, Facts, Plan, Speed, Target, TaskKind

UNKNOWN_QUALITY = 0.75  # of a target whose quality is not stated: good enough for most tasks, not for the hard ones
UNKNOWN_SPEED = Speed(first_token_seconds=1.0, tokens_per_second=50.0)  # until this instance has seen the target answer
SHORTEST_ANSWER = 16  # tokens; a ceiling that leaves fewer for the answer leaves nothing of use
OVER_CEILING, LACKS, TOO_SMALL = "over the ceiling", "lacks", "context of"  # how these exclusions begin
_ONLY_EMBEDS = frozenset({"embeddings"})
_CUT = "the ceiling cuts its answer short"
_SCORE = attrgetter("score")
_TIER = 1e12  # above any cost in micro-USD and any time in seconds: a lower tier never outranks a higher one


@dataclass(frozen=True, slots=True)
class Score:
    """Higher is better. The reason is for people."""

    value: float
    reason: str


Strategy = Callable[[Target, Facts], Score]


def plan(route: str, strategy: str, score: Strategy, targets: Sequence[Target], facts: Facts) -> Plan:
    """The targets that may be asked, best first, and why the others may not."""
    return shared(ranked(route, strategy, score, targets, facts), targets, facts.draw)


def ranked(route: str, strategy: str, score: Strategy, targets: Sequence[Target], facts: Facts) -> Plan:
    """The targets that may be asked by their scores (ties: the order given), and why the others may not.

    Those whose answer the request's ceiling will cut short come after the others, the longest answer first.
    """
    choices: list[Choice] = []
    exclusions: list[Exclusion] = []
    for target in targets:
        if excluded := _exclusion(target, facts):
            exclusions.append(excluded)
        else:
            choices.append(_choice(target, score(target, facts), facts))
    choices.sort(key=_SCORE, reverse=True)  # which keeps the order of ties
    if facts.max_cost is not None:
        choices.sort(key=lambda choice: _shortened(choice, facts))
    return Plan(route, strategy, facts.task, tuple(choices), tuple(exclusions))


def shared(made: Plan, targets: Sequence[Target], draw: float) -> Plan:
    """The plan in which among neighbours that are equals the first place goes by weight; `draw` is 0..1."""
    by_name = {target.name: target for target in targets if target.weight is not None}
    if len(by_name) < 2:
        return made
    ordered, place = list(made.choices), 0
    while place < len(ordered):
        size = _equals(ordered, place, by_name, made.strategy)
        if size > 1:
            ordered[place : place + size] = _drawn(ordered[place : place + size], by_name, draw)
        place += size
    return Plan(made.route, made.strategy, made.task, tuple(ordered), made.exclusions, made.note)


def by_task(order: Mapping[TaskKind, Sequence[str]], targets: Sequence[str]) -> Strategy:
    """The route's list for the detected task; targets not on it, and tasks without one, in the route's order."""
    usual = {
        name: Score(-place / len(targets), f"number {place + 1} of the route") for place, name in enumerate(targets)
    }
    listed = {
        kind: {
            name: Score(1.0 - place / (len(names) + 1), f"number {place + 1} for {kind}")
            for place, name in enumerate(names)
        }
        for kind, names in order.items()
    }

    def score(target: Target, facts: Facts) -> Score:
        return listed.get(facts.task.kind, usual).get(target.name) or usual[target.name]

    return score


def by_cost(target: Target, facts: Facts) -> Score:
    """The cheapest whose quality for the task reaches the minimum; then the others; an unknown price comes last."""
    estimate = facts.cost.get(target.name)
    if estimate is None:
        return Score(-2 * _TIER, "price unknown")
    quality = quality_of(target, facts.task.kind)
    told = f"{estimate.expected / 1e6:.6f} USD expected, quality {quality:.2f}"
    if quality < facts.minimum_quality:
        return Score(-_TIER - estimate.expected, f"{told} is below {facts.minimum_quality:.2f}")
    return Score(-estimate.expected, told)


def by_speed(target: Target, facts: Facts) -> Score:
    """The shortest expected time; who is likely to miss the request's `max_latency_ms` comes after the others."""
    seconds = expected_seconds(target, facts)
    told = f"{seconds:.2f} s expected" + ("" if target.name in facts.speed else ", not seen yet")
    first = facts.speed.get(target.name, UNKNOWN_SPEED).first_token_seconds
    if facts.max_latency is not None and first > facts.max_latency:
        return Score(-_TIER - seconds, f"{told}; first token after {first:.2f} s is late")
    if facts.explore == target.name:
        return Score(_TIER, f"{told}; its turn to be tried")
    return Score(-seconds, told)


def expected_seconds(target: Target, facts: Facts) -> float:
    """Seconds from the request to the end of the expected answer."""
    return seconds_for(facts.output_tokens, facts.speed.get(target.name, UNKNOWN_SPEED))


def seconds_for(output_tokens: int, speed: Speed) -> float:
    """Seconds to the last of the tokens at that speed; a pace of 0 was never seen and counts as usual."""
    return speed.first_token_seconds + output_tokens / (speed.tokens_per_second or UNKNOWN_SPEED.tokens_per_second)


def quality_of(target: Target, kind: TaskKind) -> float:
    """How well the target does this task, 0..1, as the routes file states it."""
    return target.quality.get(kind, target.quality.get("default", UNKNOWN_QUALITY))


def _exclusion(target: Target, facts: Facts) -> Exclusion | None:
    """The first hard fact against a target."""
    if reason := _unsuitable(target, facts) or _too_expensive(target, facts):
        return Exclusion(target.name, reason)
    if refused := facts.breaker.get(target.name):
        return Exclusion(target.name, f"breaker: {refused.reason}", refused)
    return None


def _unsuitable(target: Target, facts: Facts) -> str | None:
    if target.name in facts.deny or (facts.only is not None and target.name not in facts.only):
        return "denied by the request"
    if not facts.needs <= target.supports:
        return f"{LACKS} {', '.join(sorted(facts.needs - target.supports))}"
    if target.supports == _ONLY_EMBEDS and facts.needs != _ONLY_EMBEDS:
        return "makes embeddings only"
    size = facts.input_tokens if facts.largest_input is None else facts.largest_input
    if target.context is not None and size > target.context:
        return f"{TOO_SMALL} {target.context} tokens is too small for {size}"
    if facts.strict_quality and (quality := quality_of(target, facts.task.kind)) < facts.minimum_quality:
        return f"quality {quality:.2f} is below the request's {facts.minimum_quality:.2f}"
    return None


def _too_expensive(target: Target, facts: Facts) -> str | None:
    """Why the ceiling does not hold in the worst case, however short the answer is made."""
    if facts.max_cost is None:
        return None
    estimate = facts.cost.get(target.name)
    if estimate is None:
        return f"{OVER_CEILING}: its price is unknown"
    shortest = min(SHORTEST_ANSWER, longest_output(target, facts) or SHORTEST_ANSWER)
    least = estimate.input + shortest * estimate.per_output_token
    if least > facts.max_cost:
        return f"{OVER_CEILING}: the shortest answer may cost {least / 1e6:.6f} USD of {facts.max_cost / 1e6:.6f}"
    return None


def _choice(target: Target, score: Score, facts: Facts) -> Choice:
    name, estimate = target.name, facts.cost.get(target.name)
    speed = facts.speed.get(name)
    return Choice(
        name,
        score.value,
        score.reason if facts.max_cost is None or not _cut(estimate, facts) else f"{score.reason}; {_CUT}",
        _imposed(estimate, target, facts) if facts.output_limit or facts.max_cost is not None else None,
        estimate,
        seconds_for(facts.output_tokens, speed) if speed else None,
    )


def longest_output(target: Target, facts: Facts) -> int | None:
    """The most output tokens of one answer by the caller's limit and the model's; None when neither is known."""
    if facts.output_limit and target.max_output:
        return min(facts.output_limit, target.max_output)
    return facts.output_limit or target.max_output


def _cut(estimate: Estimate | None, facts: Facts) -> bool:
    """Whether the ceiling leaves no room for the answer that is expected."""
    return facts.max_cost is not None and estimate is not None and estimate.expected > facts.max_cost


def _shortened(choice: Choice, facts: Facts) -> tuple[bool, int]:
    cut = _cut(choice.cost, facts)
    return cut, -(choice.output_limit or 0) if cut else 0


def _imposed(estimate: Estimate | None, target: Target, facts: Facts) -> int | None:
    """The output tokens to ask for in the caller's place; None when what is asked for is affordable and possible."""
    longest = longest_output(target, facts)
    affordable = _affordable(estimate, facts.max_cost)
    if affordable is not None and (longest is None or affordable < longest):
        return affordable
    return longest if facts.output_limit and longest != facts.output_limit else None


def _affordable(estimate: Estimate | None, ceiling: float | None) -> int | None:
    """The output tokens for which the ceiling holds in the worst case; None: any number of them."""
    if estimate is None or ceiling is None or estimate.per_output_token <= 0:
        return None
    return max(1, int((ceiling - estimate.input) / estimate.per_output_token))  # 0 is only a rounding


def _equals(choices: Sequence[Choice], place: int, weighted: Mapping[str, Target], strategy: str) -> int:
    """How many from `place` on are of one model and state a weight. A difference in price or time is no equality."""
    first, end = choices[place], place + 1
    leader = weighted.get(first.target)
    while leader and end < len(choices) and _equal(choices[end], first, leader, weighted, strategy):
        end += 1
    return end - place


def _equal(one: Choice, first: Choice, leader: Target, weighted: Mapping[str, Target], strategy: str) -> bool:
    target = weighted.get(one.target)
    by_place = strategy == "task"  # whose scores are places on a list
    return target is not None and target.model == leader.model and (by_place or one.score == first.score)


def _drawn(group: Sequence[Choice], weighted: Mapping[str, Target], draw: float) -> list[Choice]:
    """The group with the one that was drawn in front; the others keep their order."""
    weights = [weighted[choice.target].weight or 0.0 for choice in group]
    drawn = bisect(list(accumulate(weights)), draw * sum(weights), hi=len(group) - 1)
    one = group[drawn]
    reason = f"{one.reason}; drawn by weight"
    first = Choice(one.target, group[0].score, reason, one.output_limit, one.cost, one.seconds)
    return [first, *group[:drawn], *group[drawn + 1 :]]
