"""A fleet of instances around one table and one provider, as a discrete-event simulation with a seeded clock and dice.

Every instance runs the router's own `Keeper` and `ServiceClock`; only the network, the table and the provider are made
up here. Times are seconds since the start; the instances see them as epoch seconds, wrong by their own skew.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from routing.breaker_state import Breaker, BreakerSettings
from routing.cloud.tables import ServiceClock
from routing.documents import SCHEMA, Versioned
from routing.keeper import HealthSettings, Keeper, Save, SetAside
from routing.types import Outcome, Ticket

EPOCH = 1_000_000_000.25


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider does with one call."""

    outcome: Outcome
    seconds: float
    retry_after: float | None = None


Provider = Callable[[float, int, random.Random], Answer]  # time, instance, dice


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds at the 50th, 90th and 99th percentile; between them and beyond, straight lines."""

    p50: float
    p90: float
    p99: float

    def draw(self, dice: random.Random) -> float:
        """One latency in seconds."""
        points = ((0.0, self.p50 * 0.6), (0.5, self.p50), (0.9, self.p90), (0.99, self.p99), (1.0, self.p99 * 2))
        share = dice.random()
        for (low, start), (high, end) in itertools.pairwise(points):
            if share <= high:
                return (start + (end - start) * (share - low) / (high - low)) / 1000
        raise AssertionError("a share lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class World:
    """What surrounds the instances. `table_errors` is the share of table operations that fail at a given time."""

    instances: int
    provider: Provider
    seconds: float
    targets: int = 1  # of the same provider; each call goes to one of them at random
    requests_per_second: float = 1.0  # of one instance
    skew: float = 5.0  # seconds by which clocks are wrong at most
    query: Latency = Latency(4.65, 7.75, 12.3)
    save: Latency = Latency(2.28, 4.22, 9.65)
    table_errors: Callable[[float], float] = lambda now: 0.001
    seed: int = 1


@dataclass(slots=True)
class Log:
    """What happened. Times in seconds since the start."""

    sent: list[tuple[float, Outcome]] = field(default_factory=list)  # when, what came of it
    probes: list[tuple[float, str]] = field(default_factory=list)  # when, whom
    turned_away: int = 0
    stopped: dict[tuple[int, str], float] = field(default_factory=dict)  # instance, target -> first seen open or parked
    history: list[tuple[float, Mapping[str, Any]]] = field(default_factory=list)  # documents as saved
    reads: Counter[int] = field(default_factory=Counter)  # tenth of a second -> operations
    writes: Counter[int] = field(default_factory=Counter)
    conflicts: int = 0


@dataclass(slots=True)
class Instance:
    """One process: its keeper, its wrong clock, and when it looks at the table next."""

    keeper: Keeper
    clock: ServiceClock
    skew: float
    wakes_at: float = float("inf")


class Fleet:
    """Runs `world`. `run` returns the log; the same seed gives the same log."""

    def __init__(self, world: World, settings: BreakerSettings, health: HealthSettings) -> None:
        self._world, self._settings, self._health = world, settings, health
        self._dice = random.Random(world.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now = 0.0
        self._document: Versioned | None = None
        self._targets = [f"target-{number}" for number in range(world.targets)]
        self._instances = [self._instance(number) for number in range(world.instances)]
        self.log = Log()

    def run(self) -> Log:
        """Lets the world's seconds pass."""
        for number in range(len(self._instances)):
            self._next_request(number)
        while self._events and self._events[0][0] <= self._world.seconds:
            self._now, _, act = heapq.heappop(self._events)
            act()
        return self.log

    def _instance(self, number: int) -> Instance:
        dice = random.Random(self._world.seed * 100_003 + number)

        def tell(target: str, before: Breaker, after: Breaker, now: float, here: bool) -> None:
            if after.phase == "open" or after.parked_until > before.parked_until:
                self.log.stopped.setdefault((number, target), self._now)

        keeper = Keeper(
            dict.fromkeys(self._targets, self._settings), self._health, f"instance-{number}", dice.random, tell
        )
        return Instance(keeper, ServiceClock(), dice.uniform(-self._world.skew, self._world.skew))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._order), act))

    def _clock(self, instance: Instance) -> float:
        return EPOCH + self._now + instance.skew + instance.clock.offset

    # Traffic.

    def _next_request(self, number: int) -> None:
        self._after(self._dice.expovariate(self._world.requests_per_second), lambda: self._request(number))

    def _request(self, number: int) -> None:
        self._next_request(number)
        instance = self._instances[number]
        now = self._clock(instance)
        instance.keeper.touch(now)
        target = self._targets[0] if len(self._targets) == 1 else self._dice.choice(self._targets)
        leave = instance.keeper.admit(target, now, share=self._dice.random())
        if isinstance(leave, Ticket):
            answer = self._world.provider(self._now, number, self._dice)
            self.log.sent.append((self._now, answer.outcome))
            if leave.probe:
                self.log.probes.append((self._now, target))
            self._after(answer.seconds, lambda: self._answered(instance, leave, answer))
        else:
            self.log.turned_away += 1
        self._plan(instance)

    def _answered(self, instance: Instance, leave: Ticket, answer: Answer) -> None:
        now = self._clock(instance)
        instance.keeper.record(leave, answer.outcome, now, retry_after=answer.retry_after)
        self._plan(instance)

    # The table.

    def _plan(self, instance: Instance) -> None:
        at = instance.keeper.next_at(self._clock(instance))
        if at is None:
            return
        wait = max(0.0, at - self._clock(instance))
        if self._now + wait < instance.wakes_at - 1e-6:
            instance.wakes_at = self._now + wait
            self._after(wait, lambda: self._look(instance))

    def _look(self, instance: Instance) -> None:
        if self._now < instance.wakes_at - 1e-6:
            return  # planned anew meanwhile
        instance.wakes_at = float("inf")
        if not instance.keeper.due(self._clock(instance)):
            return self._plan(instance)
        self.log.reads[int(self._now * 10)] += 1
        seconds, sent = self._world.query.draw(self._dice), EPOCH + self._now + instance.skew
        if self._fails():
            return self._after(seconds, lambda: self._failed(instance, saving=False))
        self._after(seconds / 2, lambda: self._read(instance, sent, seconds / 2))

    def _read(self, instance: Instance, sent: float, back: float) -> None:
        held, date = self._document, float(int(EPOCH + self._now))
        self._after(back, lambda: self._loaded(instance, held, sent, date))

    def _loaded(self, instance: Instance, held: Versioned | None, sent: float, date: float) -> None:
        instance.clock.heard(date, sent, EPOCH + self._now + instance.skew)
        for work in instance.keeper.loaded(held, self._clock(instance)):
            self._write(instance, work)
        self._plan(instance)

    def _write(self, instance: Instance, work: Save | SetAside) -> None:
        assert isinstance(work, Save), "nobody writes unreadable documents here"
        self.log.writes[int(self._now * 10)] += 1
        seconds = self._world.save.draw(self._dice)
        if self._fails():
            return self._after(seconds, lambda: self._failed(instance, saving=True))
        self._after(seconds / 2, lambda: self._save(instance, work, seconds / 2))

    def _save(self, instance: Instance, work: Save, back: float) -> None:
        if (self._document.etag if self._document else None) != work.etag:
            self.log.conflicts += 1
            return self._after(back, lambda: self._conflict(instance))
        saved = self._document = Versioned(work.document, f"{self._now:.9f}", SCHEMA)
        self.log.history.append((self._now, work.document))
        self._after(back, lambda: self._saved(instance, saved))

    def _saved(self, instance: Instance, saved: Versioned) -> None:
        instance.keeper.saved(saved, self._clock(instance))
        self._plan(instance)

    def _conflict(self, instance: Instance) -> None:
        instance.keeper.conflict(self._clock(instance))
        self._plan(instance)

    def _failed(self, instance: Instance, *, saving: bool) -> None:
        instance.keeper.failed(self._clock(instance), saving=saving)
        self._plan(instance)

    def _fails(self) -> bool:
        return self._dice.random() < self._world.table_errors(self._now)
