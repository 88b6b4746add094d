"""How much a caller or a target may use: buckets that refill, budgets over windows, and shares of what is left.

Pure functions over frozen values. Times are epoch seconds, money is micro-USD; windows are those of UTC.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt, Interval

Period = Literal["day", "week", "month"]
DAY = 86_400.0
HAIR = 1e-6  # of a request or token: who waited for exactly as long as was said gets in
NEWCOMER = 10  # instances that one reckons with of whom the others may not have heard yet
BLIND = 100  # and one that has not heard of the others, where money is at stake
ASSUMED_OUTPUT = 4_096  # tokens of one answer in the worst case, where neither caller nor model sets a limit


@dataclass(frozen=True)
class BudgetSettings:
    """`budget = { usd = 20, per = "day", warn_at = 0.8 }`: what may be spent in a day, week or month of UTC."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    usd: Annotated[float, Gt(0)]
    per: Period = "day"
    warn_at: Annotated[float, Interval(gt=0, le=1)] = 0.8  # share of it from which callers and logs are told

    @property
    def micro_usd(self) -> float:
        return self.usd * 1e6


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """What one caller may use; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_streams: int | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """One day, week or month: from `start` up to `end`."""

    start: float
    end: float

    def days(self, now: float) -> Iterator[str]:
        """The days of the window that have begun."""
        yield day_of(self.start)
        at = self.start + DAY
        while at <= now and at < self.end:
            yield day_of(at)
            at += DAY


@dataclass(frozen=True, slots=True)
class Bucket:
    """What may be used at once. A negative level is a debt that has to refill first."""

    level: float
    at: float


@dataclass(frozen=True, slots=True)
class Claim:
    """What is wanted of a limit that instances share.

    `left` is what this instance knows to be left, `unheard` what it gave out that the others may not know of yet;
    `alone` says that nothing it gave out is still under way.
    """

    amount: float
    left: float
    unheard: float
    fleet: int
    alone: bool

    @property
    def fits(self) -> bool:
        """Whether it may be given.

        Each instance gives out its share of what is left before the others hear of it, so that all of them together
        give no more than there is. One request at a time gets through beyond the share, or the last bit of a limit
        would be of no use to anybody: together they overrun by at most one request for each instance.
        """
        if self.amount > self.left:
            return False
        share = (self.left + max(0.0, self.unheard)) / self.fleet
        return self.fleet == 1 or self.unheard + self.amount <= share or (self.alone and self.unheard <= share)


def filled(bucket: Bucket, per_minute: float, now: float) -> Bucket:
    """The bucket at `now`; it holds a minute's worth at most. A clock that goes back refills nothing."""
    gained = max(0.0, now - bucket.at) * per_minute / 60
    return Bucket(min(per_minute, bucket.level + gained), max(now, bucket.at))


def taken(bucket: Bucket, per_minute: float, amount: float, now: float) -> Bucket:
    """The bucket after `amount` was used, or given back where it is negative. What was used may exceed the level."""
    full = filled(bucket, per_minute, now)
    return Bucket(min(per_minute, full.level - amount), full.at)


def wait(bucket: Bucket, per_minute: float, amount: float, now: float) -> float:
    """Seconds until the bucket holds `amount`; infinite when it never will."""
    if amount > per_minute:
        return math.inf
    missing = amount - filled(bucket, per_minute, now).level
    return 0.0 if missing < HAIR else missing * 60 / per_minute


def window(per: Period, now: float) -> Window:
    """The window that `now` falls into. Weeks begin on Monday."""
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return _between(midnight, midnight + timedelta(days=1))
    if per == "week":
        monday = midnight - timedelta(days=midnight.weekday())
        return _between(monday, monday + timedelta(days=7))
    first = midnight.replace(day=1)
    return _between(first, (first + timedelta(days=32)).replace(day=1))


def day_of(at: float) -> str:
    """The day of UTC, as `2026-01-31`."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def start_of(day: str) -> float:
    """When a day of UTC begins. Raises ValueError for what is no day."""
    return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()


def _between(start: datetime, end: datetime) -> Window:
    return Window(start.timestamp(), end.timestamp())
