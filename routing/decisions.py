"""The newest decisions of this instance, for people and tools that ask how a request was routed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from routing import chance
from routing.types import Decision

KEPT = 10_000  # about 2 KB each


def new_id(at: float) -> str:
    """An id that sorts by its time (epoch seconds): 12 hexadecimal digits of milliseconds, 20 of chance."""
    return f"dec_{int(at * 1000):012x}{chance.bits(80):020x}"


def place_of(decision_id: str) -> tuple[int, str]:
    """Sorts ids newest first; those that do not say their time come last."""
    try:
        return -int(decision_id[4:16], 16), decision_id[16:]
    except ValueError:
        return 0, decision_id


class Decisions:
    """Keeps decisions by id, the oldest leaving first. `tell` hears of each that is complete, and must not wait."""

    def __init__(self, kept: int = KEPT, tell: tuple[Callable[[Decision], None], ...] = ()) -> None:
        self._kept, self._tell = kept, tell
        self._by_id: OrderedDict[str, Decision] = OrderedDict()

    def keep(self, decision: Decision) -> None:
        """Takes a decision, or what has become of one taken before."""
        self._by_id[decision.id] = decision
        if len(self._by_id) > self._kept:
            self._by_id.popitem(last=False)

    def settled(self, decision: Decision) -> None:
        """Takes a decision that nothing will be added to."""
        self.keep(decision)
        for listener in self._tell:
            listener(decision)

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
