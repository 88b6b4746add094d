"""What was seen lately: outcomes counted in time buckets, the run of faults since the last success, the very newest."""

from __future__ import annotations

from dataclasses import dataclass

BUCKETS = 12  # per window: memory is bounded and the window's edge is exact to a twelfth
LATELY = 50  # outcomes kept one by one
SKEW = 5.0  # seconds by which two instances' clocks may differ and still be believed

Bucket = tuple[int, int, int]  # (now // width, successes, faults)


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts by bucket, oldest first; `run` holds the times (epoch seconds) of the faults since `last_ok`."""

    buckets: tuple[Bucket, ...] = ()
    run: tuple[float, ...] = ()
    last_ok: float = 0.0

    @property
    def ok(self) -> int:
        """Successes in all buckets."""
        return sum(bucket[1] for bucket in self.buckets)

    @property
    def faults(self) -> int:
        """Faults in all buckets."""
        return sum(bucket[2] for bucket in self.buckets)


EMPTY = Tally()


@dataclass(frozen=True, slots=True)
class News:
    """What one instance has not told yet: its counts, and its newest outcomes (epoch seconds, success) one by one."""

    counts: Tally = EMPTY
    lately: tuple[tuple[float, bool], ...] = ()


NO_NEWS = News()


def index_of(now: float, window: float) -> int:
    """The number of the bucket that `now` falls into."""
    return int(now * BUCKETS // window)


def one(ok: bool, now: float, window: float) -> Tally:
    """The tally of a single outcome at `now`, for windows of `window` seconds."""
    index = index_of(now, window)
    return Tally(((index, 1, 0),), (), now) if ok else Tally(((index, 0, 1),), (now,))


def merged(old: Tally, new: Tally, now: float, window: float, longest_run: int) -> Tally:
    """Both tallies as one, without what left the window, keeping the newest `longest_run` faults of the run.

    At equal times `new` counts as the later one. Times further ahead of `now` than `SKEW` are the work of a clock that
    has jumped, and are forgotten.
    """
    ahead = now + SKEW
    before = old.last_ok if old.last_ok <= ahead else 0.0
    after = new.last_ok if new.last_ok <= ahead else 0.0
    run = [at for at in old.run if after < at <= ahead] + [at for at in new.run if before <= at <= ahead]
    run.sort()
    return Tally(_buckets(old, new, now, window), tuple(run[-longest_run:]), max(before, after))


def _buckets(old: Tally, new: Tally, now: float, window: float) -> tuple[Bucket, ...]:
    newest = index_of(now + SKEW, window)
    oldest = index_of(now, window) - BUCKETS
    sums: dict[int, tuple[int, int]] = {}
    for index, ok, faults in old.buckets + new.buckets:
        if oldest < index <= newest:
            before = sums.get(index, (0, 0))
            sums[index] = (before[0] + ok, before[1] + faults)
    return tuple((index, *sums[index]) for index in sorted(sums))


def told(old: News, new: News, now: float, window: float, longest_run: int) -> News:
    """Both as one."""
    return News(merged(old.counts, new.counts, now, window, longest_run), (old.lately + new.lately)[-LATELY:])
