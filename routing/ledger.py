"""What callers use, kept within their limits: admitted before, settled after, and told to the other instances.

Nothing here waits: requests are judged by what is in memory. `routing.bookkeeping` reads and writes the store.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

from annotated_types import Interval

from routing import limit_words, limits
from routing.errors import LimitExceeded
from routing.instances import NOTHING, Instances, News, Use, Word
from routing.limits import Bucket, BudgetSettings, CallerLimits, Claim, Window
from routing.usage import Book, Counts, Of, Others

_log = logging.getLogger(__name__)
UNLIMITED = 1e15
Limit = tuple[str, float]  # "requests" or "tokens", and how many a minute


@dataclass(frozen=True)
class LedgerSettings:
    """`[ledger]`: how often instances write down what was used, and tell each other."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    flush_seconds: Annotated[float, Interval(ge=0.05, le=60)] = 3.0
    store_timeout_seconds: Annotated[float, Interval(ge=0.05, le=60)] = 5.0
    idle_seconds: Annotated[float, Interval(ge=0.1, le=3600)] = 30.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What one caller, or the callers of a group together, may spend."""

    name: str  # `caller batch`, `group research`
    settings: BudgetSettings
    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """Every limit of the routes file."""

    callers: Mapping[str, CallerLimits] = field(default_factory=dict)
    targets: Mapping[str, CallerLimits] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether instances have anything to tell each other beyond what was used."""
        return bool(self.callers or self.targets or self.budgets)


class Ledger:
    """The limits of `rules` and what was used of them. `clock` gives epoch seconds; `alone` says there is no store."""

    def __init__(
        self, rules: Rules, settings: LedgerSettings, clock: Callable[[], float], *, alone: bool = True
    ) -> None:
        self.book, self.others, self.instances = Book(), Others(), Instances(alone)
        self.rules, self._settings, self._clock = rules, settings, clock
        self._uses: dict[str, Use] = {}
        self._buckets: dict[tuple[str, str, str], Bucket] = {}  # "caller" or "target", its name, what is counted
        self._watched = {*rules.callers, *(name for budget in rules.budgets for name in budget.members)}
        self._budgets = {name: [each for each in rules.budgets if name in each.members] for name in self._watched}
        self._warned: set[tuple[str, float]] = set()
        self.lag = 0.0  # seconds that a word lately took to be heard, as the bookkeeping sees it
        self.changed: Callable[[], None] = _nothing  # told of every request, at its beginning and its end

    @property
    def cycle(self) -> float:
        """Seconds between two words of an instance at most; longer in large fleets, where all read all."""
        return max(self._settings.flush_seconds, min(60.0, self.instances.known() ** 2 / 1500))

    @property
    def horizon(self) -> float:
        """Seconds after which a word has been heard by all: two cycles, more where turns are late or take long."""
        return max(2 * self.cycle, self.lag)

    def fleet(self) -> int:
        """How many instances share the limits."""
        return self.instances.size(self._clock(), self.horizon)

    # What requests call.

    def admit(self, caller: str, *, tokens: int, stream: bool) -> dict[str, str]:
        """Counts one request of about `tokens` of input as under way; returns the headers that tell what is left.

        Raises LimitExceeded when one of the caller's limits of a minute or of streams has no room for it.
        """
        rules, now = self.rules.callers.get(caller, CallerLimits()), self._clock()
        wanted = [(limit, 1.0 if limit[0] == "requests" else float(tokens)) for limit in _of_a_minute(rules)]
        waits = {limit: self._wait("caller", caller, limit, amount, now) for limit, amount in wanted}
        if late := {limit: wait for limit, wait in waits.items() if wait > 0}:
            raise limit_words.too_fast(caller, tokens, late, self._headers(caller, now))
        if stream and rules.max_streams is not None:
            self._check_streams(caller, rules.max_streams, now)
        for limit, amount in wanted:
            self._take("caller", caller, limit, amount, now)
        self._count(caller, requests=1, tokens=tokens, streams=int(stream), under_way=1)
        self.changed()
        return self._headers(caller, now)

    def reserve(self, caller: str, micro_usd: int) -> str:
        """Sets aside what a request costs at most; what is free needs no budget.

        Returns the warning that a budget is nearly used up, else "".

        Raises LimitExceeded, naming the budget.
        """
        now, warnings = self._clock(), list[str]()
        for budget in self._budgets.get(caller, ()):
            window = limits.window(budget.settings.per, now)
            left = self._left(budget, window, now)
            if micro_usd > 0 and not self._claim(budget, micro_usd, left, now).fits:
                raise self._over(budget, window, micro_usd, left)
            warnings += self._warning(budget, window, left)
        self._count(caller, reserved=micro_usd)
        return "; ".join(warnings)

    def settle(self, caller: str, of: Of, counts: Counts, *, tokens: int, reserved: int, stream: bool) -> None:
        """A request is over: what was set aside is free again, what was used is written down.

        `tokens` were counted when it was admitted; the true number takes their place.
        """
        now, real = self._clock(), counts.input_tokens + counts.output_tokens
        for limit in _of_a_minute(self.rules.callers.get(caller, CallerLimits())):
            if limit[0] == "tokens":
                self._take("caller", caller, limit, real - tokens, now)
        self._count(caller, tokens=real - tokens, streams=-int(stream), under_way=-1)
        self._count(caller, reserved=-reserved, spent=counts.micro_usd)
        self.book.add(limits.day_of(now), of, counts)
        self.changed()

    def charge(self, of: Of, counts: Counts) -> None:
        """What was used on the way to an answer, before the request is settled."""
        now, tokens = self._clock(), counts.input_tokens + counts.output_tokens
        for limit in _of_a_minute(self.rules.callers.get(of.caller, CallerLimits())):
            if limit[0] == "tokens":
                self._take("caller", of.caller, limit, tokens, now)
        self._count(of.caller, tokens=tokens, spent=counts.micro_usd)
        self.book.add(limits.day_of(now), of, counts)

    def has_budget(self, caller: str) -> bool:
        return bool(self._budgets.get(caller))

    def busy(self, target: str, tokens: int) -> tuple[float, str] | None:
        """For how many seconds a target has no room for a request of so many tokens, and why; None when it has."""
        now = self._clock()
        for limit in _of_a_minute(self.rules.targets.get(target, CallerLimits())):
            amount = 1.0 if limit[0] == "requests" else float(tokens)
            if (wait := self._wait("target", target, limit, amount, now)) > 0:
                return wait, f"its limit of {limit[1]:g} {limit[0]} per minute is reached"
        return None

    def asked(self, target: str, tokens: int) -> None:
        """A target is asked. Of what it writes it is told with `tokens` alone, by `wrote`."""
        for limit in _of_a_minute(self.rules.targets.get(target, CallerLimits())):
            self._take("target", target, limit, 1.0 if limit[0] == "requests" else tokens, self._clock())

    def wrote(self, target: str, tokens: int) -> None:
        for limit in _of_a_minute(self.rules.targets.get(target, CallerLimits())):
            if limit[0] == "tokens":
                self._take("target", target, limit, tokens, self._clock())

    # What the bookkeeping calls.

    def word(self, at: float) -> Word:
        """What to tell the others now."""
        callers = {name: self._uses[name] for name in self._watched if name in self._uses}
        pairs = {name: self._pair(name) for name in self.rules.callers if name in self._uses}
        return Word(at, callers, pairs)

    def hear(self, news: News) -> None:
        """Takes what the others used off what is left."""
        now = self._clock()
        for caller, rules in self.rules.callers.items():
            for limit in _of_a_minute(rules):
                place = 0 if limit[0] == "requests" else 1
                if used := news.used.get(caller, (0.0, 0.0))[place]:
                    self._take("caller", caller, limit, used, now)
                level = news.levels.get(caller, (math.inf, math.inf))[place]
                bucket = self._bucket("caller", caller, limit, now)
                if level < bucket.level:
                    self._buckets["caller", caller, limit[0]] = replace(bucket, level=level)

    @property
    def windows(self) -> set[str]:
        """The days that any budget looks at."""
        now = self._clock()
        return {day for each in self.rules.budgets for day in limits.window(each.settings.per, now).days(now)}

    def _pair(self, caller: str) -> tuple[float, float]:
        now, rules = self._clock(), self.rules.callers[caller]
        levels = {limit[0]: self._bucket("caller", caller, limit, now).level for limit in _of_a_minute(rules)}
        return levels.get("requests", UNLIMITED), levels.get("tokens", UNLIMITED)

    @property
    def under_way(self) -> bool:
        """Whether any request of a caller with limits is not settled yet."""
        return any(use.under_way for use in self._uses.values())

    def _count(self, caller: str, **more: float) -> None:
        if caller not in self._watched:
            return
        use = self._uses.get(caller, NOTHING)
        changes: dict[str, Any] = {name: getattr(use, name) + amount for name, amount in more.items()}
        self._uses[caller] = replace(use, **changes)

    def _bucket(self, kind: str, name: str, limit: Limit, now: float) -> Bucket:
        """The bucket now. A target's holds the share of this instance; a caller's is that of all."""
        rate = self._rate(kind, limit)
        kept = self._buckets.get((kind, name, limit[0])) or Bucket(rate, now)
        return limits.filled(kept, rate, now)

    def _rate(self, kind: str, limit: Limit) -> float:
        return limit[1] / self.fleet() if kind == "target" or self._cut_off() else limit[1]

    def _cut_off(self) -> bool:
        """The others have not been heard for long: this one keeps to its share."""
        heard = self.instances.heard_at
        return heard is not None and self._clock() - heard > 2 * self.horizon

    def _take(self, kind: str, name: str, limit: Limit, amount: float, now: float) -> None:
        rate = self._rate(kind, limit)
        bucket = self._bucket(kind, name, limit, now)
        self._buckets[kind, name, limit[0]] = limits.taken(bucket, rate, amount, now)

    def _wait(self, kind: str, name: str, limit: Limit, amount: float, now: float) -> float:
        """Seconds until there is room; 0.0 when there is."""
        bucket, rate = self._bucket(kind, name, limit, now), self._rate(kind, limit)
        if kind == "target":  # whose share may be less than one request: it is asked when its bucket is full
            return limits.wait(bucket, rate, min(amount, rate), now)
        if (seconds := limits.wait(bucket, rate, amount, now)) > 0 or self._cut_off():
            return seconds
        unheard = getattr(self._unheard(name, now), limit[0])
        fits = Claim(amount, bucket.level, unheard, self.fleet(), alone=unheard <= 0).fits
        return 0.0 if fits else self.cycle

    def _unheard(self, caller: str, now: float) -> Use:
        return self.instances.unheard(caller, self._uses.get(caller, NOTHING), now, self.horizon)

    def _headers(self, caller: str, now: float) -> dict[str, str]:
        rules = self.rules.callers.get(caller, CallerLimits())
        return limit_words.headers(
            (limit[0], limit[1], self._bucket("caller", caller, limit, now)) for limit in _of_a_minute(rules)
        )

    def _check_streams(self, caller: str, most: int, now: float) -> None:
        unheard = self._unheard(caller, now).streams
        left = most - self._uses.get(caller, NOTHING).streams - self.instances.others(caller).streams
        if not Claim(1, left, unheard, self.fleet(), alone=unheard <= 0).fits:
            raise limit_words.too_many_streams(caller, most)

    def _left(self, budget: Budget, window: Window, now: float) -> float:
        """Micro-USD that nobody has spent or set aside, as far as is known here."""
        spent = sum(
            self.book.spent(day, member) + self.others.spent(day, member)
            for day in window.days(now)
            for member in budget.members
        )
        reserved = sum(
            self._uses.get(member, NOTHING).reserved + self.instances.others(member).reserved
            for member in budget.members
        )
        return budget.settings.micro_usd - spent - reserved

    def _claim(self, budget: Budget, amount: float, left: float, now: float) -> Claim:
        unheard = sum(self._unheard(member, now).spent for member in budget.members)
        reserved = sum(self._uses.get(member, NOTHING).reserved for member in budget.members)
        fleet = self.instances.size(now, self.horizon, cautious=True)
        return Claim(amount, left, unheard, fleet, alone=reserved <= 0)

    def _over(self, budget: Budget, window: Window, wanted: float, left: float) -> LimitExceeded:
        """With the soonest that it can go on: when what is set aside is settled, or at the window's end."""
        reserved = sum(
            self._uses.get(member, NOTHING).reserved + self.instances.others(member).reserved
            for member in budget.members
        )
        passing = wanted <= left + reserved
        wait = self.cycle if passing else window.end - self._clock()
        if self.instances.blind:
            return limit_words.unknown_budget(budget.name, wait)
        return limit_words.over_budget(budget.name, budget.settings, window, wanted, left, wait)

    def _warning(self, budget: Budget, window: Window, left: float) -> list[str]:
        settings = budget.settings
        if left > settings.micro_usd * (1 - settings.warn_at):
            return []
        told = limit_words.nearly_used(budget.name, settings, window, left)
        if (budget.name, window.start) not in self._warned:
            self._warned = {(name, start) for name, start in self._warned if name != budget.name}
            self._warned.add((budget.name, window.start))
            _log.warning("A budget is nearly used up: %s", told)
        return [told]


def _of_a_minute(rules: CallerLimits) -> list[Limit]:
    named = ("requests", rules.requests_per_minute), ("tokens", rules.tokens_per_minute)
    return [(name, float(limit)) for name, limit in named if limit is not None]


def _nothing() -> None:
    """Nobody listens."""
