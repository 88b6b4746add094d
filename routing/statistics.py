"""What this instance did since it began, in numbers for the status page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from routing.trace import CALLER_LEFT
from routing.types import Attempt, Decision


@dataclass(slots=True)
class _OfTarget:
    answered: int = 0
    failed_attempts: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0
    streams: int = 0

    def body(self) -> dict[str, Any]:
        return {
            "answered": self.answered,
            "failed_attempts": self.failed_attempts,
            "average_seconds": self.seconds / self.answered if self.answered else None,
            "average_first_token_seconds": self.first_token_seconds / self.streams if self.streams else None,
        }


class Statistics:
    """Adds up decisions. Tasks and targets are those of the routes file, so that this stays small."""

    def __init__(self, targets: tuple[str, ...], clock: Callable[[], float] = time.time) -> None:
        self._since = clock()
        self._totals: Counter[str] = Counter(requests=0, answered=0, failed=0, left=0, from_cache=0, fallbacks=0)
        self._tasks: Counter[str] = Counter()
        self._targets = {name: _OfTarget() for name in targets}

    def tell(self, decision: Decision) -> None:
        """A decision that is complete."""
        self._totals["requests"] += 1
        self._totals[_outcome(decision)] += 1
        self._tasks[decision.plan.task.kind] += 1
        if decision.from_cache:
            self._totals["from_cache"] += 1
            return
        tried = {attempt.target for attempt in decision.attempts}
        self._totals["fallbacks"] += decision.target is not None and bool(tried - {decision.target})
        for attempt in decision.attempts:
            self._targets[attempt.target].failed_attempts += attempt.error != CALLER_LEFT
        if decision.target is not None:
            self._answered(self._targets[decision.target], decision)

    def body(self) -> dict[str, Any]:
        """As JSON. A stream that breaks off is an answer and a failed attempt; `left` callers did not wait for one.

        Averages are of answers, without the time that calls to others took before them; null where there were none.
        """
        targets = {name: of.body() for name, of in self._targets.items()}
        return {"since": self._since, **self._totals, "tasks": dict(self._tasks), "targets": targets}

    def _answered(self, of: _OfTarget, decision: Decision) -> None:
        before = sum(attempt.seconds for attempt in _before(decision))
        of.answered += 1
        of.seconds += max(0.0, decision.seconds - before)
        if decision.first_token_seconds is not None:
            of.streams += 1
            of.first_token_seconds += max(0.0, decision.first_token_seconds - before)


def _before(decision: Decision) -> Sequence[Attempt]:
    """The calls that failed before the one that answered; an answer that broke off is the last of its attempts."""
    broke_off = decision.error not in (None, CALLER_LEFT)
    return decision.attempts[:-1] if broke_off else decision.attempts


def _outcome(decision: Decision) -> str:
    if decision.target is not None:
        return "answered"
    return "left" if decision.error == CALLER_LEFT else "failed"
