"""The breaker against a plain model, and a fleet of keepers against every disorder of networks and clocks."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from routing import breaker
from routing.breaker_state import Action, Breaker, BreakerSettings, from_document, to_document
from routing.documents import Versioned
from routing.keeper import HealthSettings, Keeper, Save
from routing.types import Outcome, Refused, Ticket

SETTINGS = BreakerSettings(
    failure_threshold=3,
    minimum_requests=6,
    window_seconds=12,
    open_seconds=10,
    max_open_seconds=60,
    open_jitter=0.5,
    long_open_seconds=90,
    healthy_seconds=40,
    half_open_successes=2,
    claim_lease_seconds=4,
    probe_lease_seconds=8,
    stale_seconds=500,
    ramp_seconds=9,
    parked_seconds=2,
    max_parked_seconds=20,
)
START = 50_000.0
OUTCOMES = st.sampled_from(list(Outcome))
HOLDERS = st.sampled_from(["a", "b"])


class Model:
    """The rules said plainly: it keeps everything that ever happened, and works each answer out from there."""

    def __init__(self) -> None:
        self.generation = 0
        self.state = "closed"
        self.until = 0.0  # of the open time, or of the probe's lease
        self.closed_at: float | None = None  # after an opening
        self.opened = 0
        self.passed = 0
        self.prober: str | None = None
        self.parked = 0.0
        self.order: tuple[str, float] | None = None
        self.seen: list[tuple[float, bool]] = []

    def ordered(self, now: float) -> str | None:
        return self.order[0] if self.order and now < self.order[1] else None

    def admit(self, holder: str, share: float, now: float) -> str:
        if order := self.ordered(now):
            return "isolated" if order == "isolate" else "yes"
        if now < self.parked:
            return "parked"
        if self.state == "closed":
            return "yes" if share < self.share(now) else "ramping"
        if now < self.until:
            return "open" if self.state == "open" else self.next_probe(holder, now)
        if self.state == "open":
            self.passed = 0
        self.generation += 1
        self.start(holder, now)
        return "probe"

    def next_probe(self, holder: str, now: float) -> str:
        """Between two probes of one half-open period the prober may go on for three of its lease's four seconds."""
        if self.prober is None and self.passed and holder == self.keeper and self.until - now > 1:
            self.start(holder, now)
            return "probe"
        return "probing"

    def start(self, holder: str, now: float) -> None:
        self.state, self.until, self.prober = "half_open", now + 8, holder
        self.seen = []

    def share(self, now: float) -> float:
        if self.closed_at is None or now >= self.closed_at + 9:
            return 1.0
        return [0.1, 0.25, 0.5][int((now - self.closed_at) // 3)]

    def record(self, generation: int, holder: str, outcome: Outcome, retry: float | None, now: float, j: float) -> None:
        if generation != self.generation or self.ordered(now):
            return
        if self.state == "half_open":
            if self.prober == holder:
                self.probed(holder, outcome, retry, now, j)
        elif outcome is Outcome.PARKED:
            self.park(retry, now)
        elif outcome is Outcome.LONG_OPEN:
            self.grow(now)
            self.open(now + 90)
        elif outcome in (Outcome.OK, Outcome.FAULT) and self.state == "closed":
            self.seen.append((now, outcome is Outcome.OK))
            if self.trips(now):
                self.trip(now, j)

    def probed(self, holder: str, outcome: Outcome, retry: float | None, now: float, j: float) -> None:
        if outcome is Outcome.FAULT:
            self.trip(now, j)
        elif outcome is Outcome.LONG_OPEN:
            self.open(now + 90)
        elif outcome is not Outcome.OK:
            if outcome is Outcome.PARKED:
                self.park(retry, now)
            self.open(now)
        else:
            self.passed += 1
            self.generation += 1
            self.prober, self.keeper, self.until = None, holder, now + 4
            if self.passed == 2:
                self.state, self.closed_at, self.passed, self.seen = "closed", now, 0, []

    def trips(self, now: float) -> bool:
        in_window = [ok for at, ok in self.seen if int(at) > int(now) - 12]  # twelve buckets of one second
        run = 0
        for _, ok in self.seen:
            run = 0 if ok else run + 1
        faults = in_window.count(False)
        return run >= 3 or (len(in_window) >= 6 and faults * 2 >= len(in_window))

    def grow(self, now: float) -> None:
        healthy = self.state == "closed" and (self.closed_at is None or now - self.closed_at >= 40)
        self.opened = 1 if healthy else min(self.opened + 1, 32)

    def trip(self, now: float, j: float) -> None:
        self.grow(now)
        self.open(now + min(60.0, 10 * 2.0 ** (self.opened - 1) * (1 + 0.5 * j)))

    def open(self, until: float) -> None:
        self.generation += 1
        self.state, self.until, self.prober, self.passed, self.seen = "open", until, None, 0, []

    def park(self, retry: float | None, now: float) -> None:
        self.parked = max(self.parked, now + (2 if retry is None else min(retry, 20)))

    keeper: str | None = None  # who may probe next


class OneBreaker(RuleBasedStateMachine):
    """Real rules and model get the same calls, and must give the same answers."""

    tickets: Bundle[tuple[Ticket, str]] = Bundle("tickets")

    @initialize()
    def begin(self) -> None:
        self.state, self.model, self.now = Breaker(), Model(), START

    @rule(seconds=st.sampled_from([0.25, 1.0, 2.5, 5.0, 11.0, 30.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=tickets, holder=HOLDERS, share=st.sampled_from([0.0, 0.2, 0.4, 0.9]))
    def asks(self, holder: str, share: float) -> tuple[Ticket, str]:
        expected = self.model.admit(holder, share, self.now)
        self.state, answer = breaker.admit(self.state, SETTINGS, "t", self.now, holder=holder, share=share)
        if isinstance(answer, Refused):
            assert answer.reason == expected
            assert answer.retry_at > self.now
            return Ticket("t", -1), holder
        assert ("probe" if answer.probe else "yes") == expected
        return answer, holder

    @rule(ticket=tickets, outcome=OUTCOMES, retry=st.sampled_from([None, 0.5, 7.0, 1e6]), j=st.sampled_from([0.0, 0.9]))
    def ends(self, ticket: tuple[Ticket, str], outcome: Outcome, retry: float | None, j: float) -> None:
        leave, holder = ticket
        self.model.record(leave.generation, holder, outcome, retry, self.now, j)
        self.state = breaker.record(
            self.state, SETTINGS, leave, outcome, self.now, jitter=j, holder=holder, retry_after=retry
        )

    @rule(holder=HOLDERS, outcome=OUTCOMES, times=st.sampled_from([1, 3]), j=st.sampled_from([0.0, 0.9]))
    def calls(self, holder: str, outcome: Outcome, times: int, j: float) -> None:
        for _ in range(times):
            self.ends(self.asks(holder, 0.0), outcome, None, j)

    @rule()
    def what_it_waits_for_comes(self) -> None:
        self.now = max(self.now, self.model.until, self.model.parked)

    @rule(action=st.sampled_from(["isolate", "close"]), seconds=st.sampled_from([1.0, 20.0]))
    def is_ordered(self, action: Action, seconds: float) -> None:
        until = self.now + seconds
        self.state = breaker.ordered(self.state, SETTINGS, action, "kim", "why", until, self.now)
        if action == "close":
            fresh = Model()
            fresh.generation = self.model.generation
            self.model = fresh
        self.model.generation += 1
        self.model.order, self.model.seen = (action, until), []

    @rule()
    def is_reset(self) -> None:
        self.state = breaker.reset(self.state)
        generation = self.model.generation + 1
        self.model = Model()
        self.model.generation = generation

    @invariant()
    def they_agree(self) -> None:
        assert (self.state.phase, self.state.generation) == (self.model.state, self.model.generation)

    @invariant()
    def its_document_says_it_all(self) -> None:
        assert from_document(json.loads(json.dumps(to_document(self.state)))) == self.state


TestOneBreaker = OneBreaker.TestCase
TestOneBreaker.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@dataclass
class Instance:
    """One process, what is under way between it and the store, and the calls it has open."""

    keeper: Keeper
    wrong_by: float = 0.0  # its clock, in seconds
    loading: tuple[Versioned | None] | None = None
    saves: list[Save] = field(default_factory=list)
    open_calls: list[Ticket] = field(default_factory=list)


class Disorder(RuleBasedStateMachine):
    """Three keepers around a store whose answers come late or never, with clocks that jump and processes that die.

    Whatever happened: afterwards, with a healthy target and a store that works, every instance sends traffic again.
    """

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now = START
        self.stored: Versioned | None = None
        self.versions = 0
        self.orderly = True  # neither did the store fail, nor a clock jump, nor a process die
        self.probes: list[int] = []
        self.fleet = [self.born() for _ in range(3)]

    def born(self) -> Instance:
        holder = f"h{self.dice.random()}"
        return Instance(Keeper({"t": SETTINGS}, HealthSettings(), holder, self.dice.random))

    def clock(self, who: Instance) -> float:
        return self.now + who.wrong_by

    @rule(seconds=st.sampled_from([0.05, 0.5, 1.0, 3.0, 12.0, 65.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(n=st.integers(0, 2), calls=st.integers(1, 4))
    def asks(self, n: int, calls: int) -> None:
        who = self.fleet[n]
        for _ in range(calls):
            who.keeper.touch(self.clock(who))
            leave = who.keeper.admit("t", self.clock(who), share=self.dice.random())
            if isinstance(leave, Ticket):
                who.open_calls.append(leave)
                if leave.probe:
                    self.probes.append(leave.generation)

    @rule(n=st.integers(0, 2), outcome=OUTCOMES, calls=st.integers(1, 4), again=st.booleans())
    def ends(self, n: int, outcome: Outcome, calls: int, again: bool) -> None:
        who = self.fleet[n]
        for _ in range(min(calls, len(who.open_calls))):
            leave = who.open_calls.pop(self.dice.randrange(len(who.open_calls)))
            for _ in range(1 + again):
                who.keeper.record(leave, outcome, self.clock(who), retry_after=self.dice.choice([None, 3.0, 1e9]))

    @rule(n=st.integers(0, 2))
    def looks(self, n: int) -> None:
        who = self.fleet[n]
        if who.keeper.due(self.clock(who)):
            who.loading = (self.stored,)

    @rule(n=st.integers(0, 2), lost=st.booleans())
    def is_answered(self, n: int, lost: bool) -> None:
        who = self.fleet[n]
        if who.loading is not None and lost and self.dice.random() < 0.3:
            who.loading, self.orderly = None, False
            who.keeper.failed(self.clock(who))
        elif who.loading is not None:
            (held,), who.loading = who.loading, None
            who.saves += [each for each in who.keeper.loaded(held, self.clock(who)) if isinstance(each, Save)]

    @rule(n=st.integers(0, 2), luck=st.sampled_from(["written", "written", "written", "answer lost", "lost"]))
    def writes(self, n: int, luck: str) -> None:
        who = self.fleet[n]
        if who.saves:
            self.write(who, who.saves.pop(), luck)

    def write(self, who: Instance, save: Save, luck: str) -> None:
        if luck != "lost" and (self.stored.etag if self.stored else None) != save.etag:
            return who.keeper.conflict(self.clock(who))
        if luck != "lost":
            self.versions += 1
            document: dict[str, Any] = json.loads(json.dumps(save.document))
            self.stored = Versioned(document, str(self.versions))
        if luck == "written" and self.stored:
            return who.keeper.saved(self.stored, self.clock(who))
        self.orderly = False
        return who.keeper.failed(self.clock(who), saving=True)

    @rule(n=st.integers(0, 2), outcome=OUTCOMES)
    def goes_through_it_all(self, n: int, outcome: Outcome) -> None:
        """A few calls with the same outcome, and what follows from them."""
        self.asks(n, 3)
        self.ends(n, outcome, 3, False)
        self.looks(n)
        self.is_answered(n, False)
        self.writes(n, "written")

    @rule()
    def what_they_wait_for_comes(self) -> None:
        for state in self.states():
            until = state.probe.until if state.probe else state.open_until
            self.now = max(self.now, min(until, self.now + 90))

    def states(self) -> list[Breaker]:
        return [from_document(entry) for entry in self.stored.document["targets"].values()] if self.stored else []

    @rule(n=st.integers(0, 2), seconds=st.sampled_from([-5000.0, -40.0, -3.0, 0.0, 3.0, 40.0, 5000.0]))
    def clock_jumps(self, n: int, seconds: float) -> None:
        self.fleet[n].wrong_by = seconds
        self.orderly = False

    @rule(n=st.integers(0, 2))
    def dies(self, n: int) -> None:
        self.fleet[n] = self.born()
        self.orderly = False

    @precondition(lambda self: self.dice.random() < 0.1)
    @rule()
    def table_is_emptied(self) -> None:
        self.stored = None
        self.orderly = False

    @invariant()
    def in_order_a_probe_is_one_of_its_kind(self) -> None:
        assert not self.orderly or len(set(self.probes)) == len(self.probes)

    @invariant()
    def what_is_stored_is_small_and_readable(self) -> None:
        for state in self.states():
            assert len(json.dumps(to_document(state))) < 4000
            assert len(state.tally.run) <= SETTINGS.failure_threshold
            assert len(state.tally.buckets) <= 20

    def teardown(self) -> None:
        if not hasattr(self, "fleet"):
            return
        for who in self.fleet:
            who.wrong_by = 0.0
        for _ in range(240):
            self.now += 1.0
            for n in range(3):
                self.quiet_second(n)
        now = self.now
        assert [breaker.ramp(each.keeper.state("t"), SETTINGS, now) for each in self.fleet] == [1.0] * 3
        assert [each.keeper.state("t").phase for each in self.fleet] == ["closed"] * 3
        assert [each.keeper.refusal("t", now) for each in self.fleet] == [None] * 3
        assert len({each.keeper.state("t").generation for each in self.fleet}) == 1

    def quiet_second(self, n: int) -> None:
        who = self.fleet[n]
        self.asks(n, 1)
        self.ends(n, Outcome.OK, len(who.open_calls), False)
        self.looks(n)
        self.is_answered(n, False)
        while who.saves:
            self.writes(n, "written")


TestDisorder = Disorder.TestCase
TestDisorder.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
