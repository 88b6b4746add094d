"""The newest decisions of this instance, for people and tools that ask how a request was routed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from routing.types import Decision

KEPT = 10_000  # about 2 KB each


class Decisions:
    """Keeps decisions by id, the oldest leaving first."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._by_id: OrderedDict[str, Decision] = OrderedDict()

    def keep(self, decision: Decision) -> None:
        """Takes a decision, or what has become of one taken before."""
        self._by_id[decision.id] = decision
        if len(self._by_id) > self._kept:
            self._by_id.popitem(last=False)

    def get(self, decision_id: str) -> Decision | None:
        return self._by_id.get(decision_id)

    def newest(
        self, *, caller: str | None = None, route: str | None = None, since: float | None = None
    ) -> Iterator[Decision]:
        """Newest first, those of a caller, of a route, and not older than `since` (epoch seconds)."""
        for decision in reversed(self._by_id.values()):
            if since is not None and decision.at < since:
                continue
            if caller in (None, decision.caller) and route in (None, decision.plan.route):
                yield decision
