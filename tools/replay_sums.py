"""What a replay adds up over all decisions, and how that is told: as data and as a table. Its size does not grow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

NOBODY = "(nobody)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one decision ended, or would end. None is unknown, and never counted as zero."""

    target: str | None  # that answers
    fell_back: bool = False  # it was not the plan's first choice
    micro_usd: int | None = None
    seconds: float | None = None  # expected
    refusal: str | None = None  # why the router itself would answer with an error


@dataclass(slots=True)
class Side:
    """The sums of one side: as it was recorded, or as it would be."""

    targets: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    fell_back: int = 0
    unpriced: int = 0  # answered, at a cost that is unknown
    micro_usd: int = 0  # of the decisions whose cost is known on both sides
    seconds: float = 0.0  # of the decisions whose time is known on both sides

    def add(self, outcome: Outcome) -> None:
        """Takes one decision, but for its cost and time."""
        self.targets[outcome.target or NOBODY] += 1
        self.fell_back += outcome.fell_back
        self.unpriced += outcome.target is not None and outcome.micro_usd is None
        if outcome.refusal:
            self.refusals[outcome.refusal] += 1

    def told(self, decisions: int, timed: int) -> dict[str, Any]:
        """As JSON."""
        answered = decisions - self.targets[NOBODY]
        return {
            "cost_usd": self.micro_usd / 1e6,
            "cost_unknown": self.unpriced,
            "expected_seconds": self.seconds / timed if timed else None,
            "targets": dict(self.targets.most_common()),
            "unanswered": self.targets[NOBODY],
            "refused": dict(self.refusals.most_common()),
            "fell_back": self.fell_back,
            "fallback_share": self.fell_back / answered if answered else None,
        }


@dataclass(slots=True)
class Sums:
    """Both sides, and how many decisions each figure is about."""

    before: Side = field(default_factory=Side)
    after: Side = field(default_factory=Side)
    decisions: int = 0
    from_cache: int = 0
    bad_lines: int = 0
    priced: int = 0  # cost known on both sides
    timed: int = 0  # expected time known on both sides
    moved: int = 0  # answered by another target
    lost: int = 0  # answered then, and by nobody now
    cost_lost: int = 0  # cost known then, and unknown now although somebody answers

    def add(self, before: Outcome, after: Outcome) -> None:
        """Takes one decision."""
        self.decisions += 1
        self.before.add(before)
        self.after.add(after)
        self.moved += None not in (before.target, after.target) and before.target != after.target
        self.lost += before.target is not None and after.target is None
        if before.micro_usd is not None and after.micro_usd is not None:
            self.priced += 1
            self.before.micro_usd += before.micro_usd
            self.after.micro_usd += after.micro_usd
        self.cost_lost += before.micro_usd is not None and after.target is not None and after.micro_usd is None
        if before.seconds is not None and after.seconds is not None:
            self.timed += 1
            self.before.seconds += before.seconds
            self.after.seconds += after.seconds

    @property
    def cost_increase(self) -> float | None:
        """In parts of the cost before: 0.05 is 5 % more. None when there is nothing to compare with."""
        if not self.priced:
            return None
        if not self.before.micro_usd:
            return float("inf") if self.after.micro_usd else 0.0
        return self.after.micro_usd / self.before.micro_usd - 1

    def told(self) -> dict[str, Any]:
        """As JSON."""
        increase = self.cost_increase
        return {
            "decisions": self.decisions,
            "from_cache": self.from_cache,
            "bad_lines": self.bad_lines,
            "compared": {"cost": self.priced, "seconds": self.timed},
            "cost_increase": None if increase == float("inf") else increase,
            "moved": self.moved,
            "lost": self.lost,
            "cost_lost": self.cost_lost,
            "before": self.before.told(self.decisions, self.timed),
            "after": self.after.told(self.decisions, self.timed),
        }


def table(told: Mapping[str, Any]) -> str:
    """The same for people."""
    before, after = told["before"], told["after"]
    compared = told["compared"]
    rows = [
        ("", "before", "after", "difference"),
        (f"cost of {compared['cost']} decisions, USD", *_change(before["cost_usd"], after["cost_usd"], ".6f")),
        ("cost unknown (apart)", *_change(before["cost_unknown"], after["cost_unknown"], "d")),
        (
            f"expected seconds of {compared['seconds']}",
            *_change(before["expected_seconds"], after["expected_seconds"], ".3f"),
        ),
        ("fallback share", *_change(before["fallback_share"], after["fallback_share"], ".2%")),
        ("answered by nobody", *_change(before["unanswered"], after["unanswered"], "d")),
        *_mix(told["decisions"], before["targets"], after["targets"]),
    ]
    heading = f"{told['decisions']} decisions: {told['moved']} would go to another target"
    aside = f"; apart: {told['from_cache']} from the cache, {told['bad_lines']} bad lines"
    refusals = [f"refused: {count} x {reason}" for reason, count in after["refused"].items()]
    return "\n".join([heading + aside, *_lined_up(rows), *refusals])


def _mix(decisions: int, before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[tuple[str, str, str, str]]:
    for name in sorted({**before, **after}, key=lambda name: -after.get(name, 0)):
        shares = before.get(name, 0) / decisions, after.get(name, 0) / decisions
        yield (f"share of {name}", *_change(*shares, ".2%"))


def _change(before: float | None, after: float | None, form: str) -> tuple[str, str, str]:
    if before is None or after is None:
        return ("?" if before is None else format(before, form), "?" if after is None else format(after, form), "?")
    percent = f" ({after / before - 1:+.1%})" if before and form.endswith("f") else ""
    return format(before, form), format(after, form), format(after - before, f"+{form}") + percent


def _lined_up(rows: list[tuple[str, str, str, str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        first, *others = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *others]).rstrip()
