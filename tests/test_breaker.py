"""The breaker's rules, one by one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from routing import breaker, breaker_shared
from routing.breaker_state import MANUAL_LONGEST, Breaker, BreakerSettings, Suspicion, from_document, to_document
from routing.tally import NO_NEWS, News, one, told
from routing.types import Outcome, Refused, Ticket

NOW = 1_000_000.0
SETTINGS = BreakerSettings()


def admit(state: Breaker, now: float, settings: BreakerSettings = SETTINGS, **changes: Any):
    given: dict[str, Any] = {"holder": "here", "share": 0.99, "alone": True} | changes
    return breaker.admit(state, settings, "gpt", now, **given)


def after(
    state: Breaker, outcome: Outcome, now: float, settings: BreakerSettings = SETTINGS, **changes: Any
) -> Breaker:
    """The state after one call that begins and ends at `now`."""
    state, ticket = admit(state, now, settings, share=0.0)
    assert isinstance(ticket, Ticket), ticket
    given: dict[str, Any] = {"jitter": 0.0, "holder": "here"} | changes
    return breaker.record(state, settings, ticket, outcome, now, **given)


def run(state: Breaker, outcomes: str, now: float, settings: BreakerSettings = SETTINGS, step: float = 0.0) -> Breaker:
    """Calls in a row: `.` succeeds, `x` fails."""
    for n, each in enumerate(outcomes):
        state = after(state, Outcome.OK if each == "." else Outcome.FAULT, now + n * step, settings)
    return state


def opened(now: float = NOW) -> Breaker:
    return run(Breaker(), "xxxxx", now)


TRIPS = [
    pytest.param("xxxxx", True, id="five faults in a row"),
    pytest.param("xxxx", False, id="four faults"),
    pytest.param("xxxx.xxxx", False, id="a success between"),
    pytest.param(".x.x.x.x.x", True, id="half of ten"),
    pytest.param(".x.x.x.x.", False, id="nine outcomes are too few"),
    pytest.param("..x.x.x.x.x", False, id="less than half"),
]


@pytest.mark.parametrize(("outcomes", "trips"), TRIPS)
def test_it_trips_by_run_or_by_ratio(outcomes: str, trips: bool):
    assert (run(Breaker(), outcomes, NOW).phase == "open") is trips


@pytest.mark.parametrize(("faults", "total"), [(7, 100), (29, 100), (57, 100), (11, 20), (3, 10)])
def test_the_share_is_exact(faults: int, total: int):
    settings = BreakerSettings(failure_ratio=faults / total, minimum_requests=total, failure_threshold=100)
    almost = run(Breaker(), "x" * (faults - 1) + "." * (total - faults), NOW, settings)
    assert run(almost, ".", NOW, settings).phase == "closed"
    assert run(almost, "x", NOW, settings).phase == "open"


def test_outcomes_leave_the_window_by_time():
    state = run(Breaker(), "x.x.x.x.", NOW)
    state = run(state, "..", NOW + 61)
    assert state.tally.faults == 0


def test_memory_is_bounded_however_many_outcomes_come():
    state = run(Breaker(), ".." * 2000, NOW, step=0.5)
    assert len(state.tally.buckets) <= 13
    assert state.tally.run == ()


def test_while_open_every_call_is_refused_until_the_open_time_is_over():
    state, refused = admit(opened(), NOW + 29.9)
    assert refused == Refused("gpt", "open", NOW + 30)
    assert state == opened()


def test_the_first_call_after_the_open_time_is_the_only_probe():
    state, ticket = admit(opened(), NOW + 30)
    assert ticket == Ticket("gpt", 2, probe=True)
    assert admit(state, NOW + 30, holder="elsewhere")[1] == Refused("gpt", "probing", NOW + 31)
    assert admit(state, NOW + 30)[1] == Refused("gpt", "probing", NOW + 31)


def test_with_others_around_a_probe_has_to_be_claimed_first():
    state, refused = admit(opened(), NOW + 30, alone=False)
    assert isinstance(refused, Refused)
    claimed = breaker.claim(state, SETTINGS, NOW + 30, holder="here")
    assert isinstance(admit(claimed, NOW + 31, holder="elsewhere", alone=False)[1], Refused)
    assert admit(claimed, NOW + 31, alone=False)[1] == Ticket("gpt", 2, probe=True)


def test_a_claim_that_nobody_uses_lapses():
    claimed = breaker.claim(opened(), SETTINGS, NOW + 30, holder="here")
    assert isinstance(admit(claimed, NOW + 34.5, alone=False)[1], Refused), "too late to tell the others"
    assert breaker.claim(claimed, SETTINGS, NOW + 34.9, holder="elsewhere") is claimed
    assert breaker.claim(claimed, SETTINGS, NOW + 35, holder="elsewhere").probe is not None


def test_a_dead_prober_holds_the_target_for_one_lease():
    state, _ = admit(opened(), NOW + 30)
    assert isinstance(admit(state, NOW + 59.9, holder="elsewhere")[1], Refused)
    assert admit(state, NOW + 60, holder="elsewhere")[1] == Ticket("gpt", 3, probe=True)


def test_a_running_probe_is_renewed_but_not_for_ever():
    state, _ = admit(opened(), NOW + 30)
    for now in range(45, 900, 15):
        state = breaker.renewed(state, SETTINGS, NOW + now)
    assert state.probe is not None
    assert state.probe.until == NOW + 630


def test_a_target_that_nobody_probed_for_long_does_not_wait_for_a_claim():
    assert admit(opened(), NOW + 629, alone=False)[1] == Refused("gpt", "probing", NOW + 630)
    assert admit(opened(), NOW + 630, alone=False)[1] == Ticket("gpt", 2, probe=True)


def test_a_good_probe_closes_and_traffic_ramps_up():
    state = after(opened(), Outcome.OK, NOW + 30)
    shares = [breaker.ramp(state, SETTINGS, NOW + 30 + at) for at in (0, 19.9, 20, 40, 59.9, 60)]
    assert shares == [0.1, 0.1, 0.25, 0.5, 0.5, 1.0]
    assert isinstance(admit(state, NOW + 31, share=0.09)[1], Ticket)
    assert admit(state, NOW + 31, share=0.1)[1] == Refused("gpt", "ramping", NOW + 32)


def test_more_good_probes_can_be_asked_for_one_at_a_time():
    settings = BreakerSettings(half_open_successes=3)
    state = opened()
    for n in (1, 2):
        state = after(state, Outcome.OK, NOW + 30 + n, settings)
        assert (state.phase, state.successes) == ("half_open", n)
    assert after(state, Outcome.OK, NOW + 33, settings).phase == "closed"


def test_each_failed_probe_doubles_the_open_time_up_to_the_longest():
    state, now, lengths = opened(), NOW, []
    for _ in range(6):
        lengths.append(state.open_until - now)
        now = state.open_until
        state = after(state, Outcome.FAULT, now)
    assert lengths == [30, 60, 120, 240, 300, 300]


def test_the_open_time_has_jitter():
    state = run(Breaker(), "xxxx", NOW)
    assert after(state, Outcome.FAULT, NOW, jitter=0.5).open_until == NOW + 31.5


@pytest.mark.parametrize(("healthy", "length"), [(179, 60), (180, 30)])
def test_only_a_healthy_period_brings_the_open_time_back(healthy: float, length: float):
    closed = after(opened(), Outcome.OK, NOW + 30)
    again = run(closed, "xxxxx", NOW + 30 + healthy)
    assert again.open_until == NOW + 30 + healthy + length


def test_a_retry_after_parks_without_counting_as_a_fault():
    state = after(Breaker(), Outcome.PARKED, NOW, retry_after=7.5)
    assert admit(state, NOW + 7.4)[1] == Refused("gpt", "parked", NOW + 7.5)
    assert isinstance(admit(state, NOW + 7.5)[1], Ticket)
    assert (state.phase, state.tally.faults) == ("closed", 0)


@pytest.mark.parametrize(("retry_after", "held"), [(None, 5), (86_400.0, 600), (-3.0, 0)])
def test_a_hold_has_sensible_bounds(retry_after: float | None, held: float):
    assert after(Breaker(), Outcome.PARKED, NOW, retry_after=retry_after).parked_until == NOW + held


def test_a_parked_target_does_not_lose_a_longer_hold():
    state, first = admit(Breaker(), NOW)
    state, second = admit(state, NOW)
    for ticket, seconds in ((first, 60.0), (second, 1.0)):
        state = breaker.record(
            state, SETTINGS, ticket, Outcome.PARKED, NOW, jitter=0, holder="here", retry_after=seconds
        )
    assert state.parked_until == NOW + 60


def test_bad_credentials_open_at_once_and_for_long():
    state = after(Breaker(), Outcome.LONG_OPEN, NOW, error="Unauthorized")
    assert (state.phase, state.open_until, state.last_error) == ("open", NOW + 600, "Unauthorized")


PROBED = [
    pytest.param(Outcome.NEUTRAL, "open", 0.0, id="the caller left: anyone may probe at once"),
    pytest.param(Outcome.PARKED, "open", 5.0, id="throttled: after the hold"),
    pytest.param(Outcome.LONG_OPEN, "open", 600.0, id="bad credentials: after the long time"),
    pytest.param(Outcome.FAULT, "open", 60.0, id="still ill: after twice the time"),
]


@pytest.mark.parametrize(("outcome", "phase", "wait"), PROBED)
def test_every_outcome_releases_the_probe(outcome: Outcome, phase: str, wait: float):
    state = after(opened(), outcome, NOW + 30)
    assert (state.phase, state.probe) == (phase, None)
    assert not wait or not breaker.ripe(state, SETTINGS, NOW + 30 + wait - 0.1)
    assert breaker.ripe(state, SETTINGS, NOW + 30 + wait)


def test_neutral_outcomes_change_nothing():
    state = run(Breaker(), "xxxx", NOW)
    assert after(state, Outcome.NEUTRAL, NOW) == state


def test_a_late_outcome_changes_nothing():
    _, late = admit(Breaker(), NOW)
    for state in (opened(), after(opened(), Outcome.OK, NOW + 30)):
        for outcome in Outcome:
            after_it = breaker.record(state, SETTINGS, late, outcome, NOW + 31, jitter=0.5, holder="here")
            assert after_it is state


def test_the_probe_of_another_instance_is_not_ours_to_judge():
    state, ticket = admit(opened(), NOW + 30, holder="elsewhere")
    assert breaker.record(state, SETTINGS, ticket, Outcome.OK, NOW + 31, jitter=0, holder="here") is state


def test_an_isolated_target_is_refused_until_the_order_expires():
    state = breaker.ordered(Breaker(), SETTINGS, "isolate", "kim", "maintenance", NOW + 90, NOW)
    assert admit(state, NOW + 89)[1] == Refused("gpt", "isolated", NOW + 90)
    assert isinstance(admit(state, NOW + 90)[1], Ticket)
    assert state.manual is not None
    assert (state.manual.by, state.manual.reason) == ("kim", "maintenance")


def test_a_target_closed_by_order_stays_closed_whatever_happens():
    state = breaker.ordered(opened(), SETTINGS, "close", "kim", "false alarm", NOW + 90, NOW)
    assert run(state, "x" * 20, NOW + 1).phase == "closed"
    assert run(state, "x" * 5, NOW + 90).phase == "open"


def test_an_order_without_an_expiry_ends_after_an_hour_and_none_lasts_longer_than_a_week():
    usual = breaker.ordered(Breaker(), SETTINGS, "isolate", "kim", "", None, NOW)
    endless = breaker.ordered(Breaker(), SETTINGS, "isolate", "kim", "", NOW * 9, NOW)
    assert usual.manual is not None
    assert endless.manual is not None
    assert (usual.manual.until, endless.manual.until) == (NOW + 3600, NOW + MANUAL_LONGEST)


def test_a_reset_forgets_everything_but_the_generation():
    assert breaker.reset(opened()) == Breaker(generation=2)


JUMPS = [
    pytest.param(opened(NOW + 9e5), id="open"),
    pytest.param(admit(opened(NOW + 9e5), NOW + 9e5 + 30)[0], id="probing"),
    pytest.param(after(Breaker(), Outcome.PARKED, NOW + 9e5, retry_after=60), id="parked"),
    pytest.param(after(opened(NOW + 9e5), Outcome.OK, NOW + 9e5 + 30), id="ramping"),
]


@pytest.mark.parametrize("state", JUMPS)
def test_a_clock_that_jumps_back_leaves_nothing_waiting(state: Breaker):
    assert isinstance(admit(state, NOW)[1], Ticket)


class TestReports:
    """What several instances report, taken together."""

    def report(self, state: Breaker, outcomes: str, now: float, *, known: float = 0.0, holder: str = "here") -> Breaker:
        news = NO_NEWS
        for each in outcomes:
            news = told(news, News(one(each == ".", now, 60), ((now, each == "."),)), now, 60, 5)
        return breaker_shared.absorb(state, SETTINGS, news, now, jitter=0.0, holder=holder, known=known)

    def suspect(self) -> Breaker:
        return self.report(Breaker(), "xxxxx", NOW)

    def test_faults_of_many_raise_a_suspicion_first(self):
        state = Breaker()
        for n in range(5):
            state = self.report(state, "x", NOW + n / 10)
        assert (state.phase, state.suspicion) == ("closed", Suspicion(NOW + 0.4))

    def test_so_do_faults_among_many_successes(self):
        state = self.report(Breaker(), "." * 40, NOW)
        for n in range(5):
            assert state.suspicion is None
            state = self.report(state, "....x.", NOW + n)
        assert state.suspicion is not None

    def test_a_suspicion_that_nobody_contradicts_trips(self):
        assert self.report(self.suspect(), "x", NOW + 1.1, known=1.1).phase == "closed"
        assert self.report(self.suspect(), "x", NOW + 1.2, known=1.2).phase == "open"
        assert self.report(self.suspect(), "", NOW + 1.2, known=1.2).phase == "open"

    def test_it_counts_for_how_long_this_instance_has_known_whatever_the_clocks_say(self):
        assert self.report(self.suspect(), "x", NOW + 4, known=0.3).phase == "closed"

    def test_successes_elsewhere_clear_it(self):
        state = self.suspect()
        for n in range(10):
            state = self.report(state, "..", NOW + 0.5, known=0.5, holder=f"h{n}")
        cleared = self.report(state, "", NOW + 1.2, known=1.2)
        assert (cleared.phase, cleared.suspicion, cleared.tally.run) == ("closed", None, ())
        assert self.report(cleared, "xxxxx", NOW + 2) is cleared, "not suspected again at once"
        assert self.report(cleared, "xxxxx", NOW + 6.3).suspicion is not None

    def test_a_single_success_is_waited_upon(self):
        state = self.report(self.suspect(), ".", NOW + 0.5, known=0.5)
        for known in (1.2, 3.5):
            assert self.report(state, "", NOW + known, known=known) is state
        assert self.report(state, "", NOW + 3.6, known=3.6).suspicion is None

    def sampled(self, outcomes: str, instances: int) -> Breaker:
        """After many successes a suspicion, and then these outcomes, one in each report, of so many instances."""
        state = self.report(Breaker(), "." * 90, NOW)
        state = self.report(state, "xxxxx" + "." * 5, NOW)
        for n, each in enumerate(outcomes):
            state = self.report(state, each, NOW + 0.6, known=0.6, holder=f"h{n % instances}")
        return state

    @pytest.mark.parametrize(
        ("outcomes", "phase"), [(".xx." * 9 + ".x..", "closed"), (".xx." * 10, "open"), (".xx." * 9, "closed")]
    )
    def test_a_fair_sample_of_many_instances_trips_although_they_had_successes_before(self, outcomes: str, phase: str):
        assert self.sampled(outcomes, instances=30).phase == phase

    @pytest.mark.parametrize(("instances", "phase"), [(4, "closed"), (5, "open")])
    def test_what_few_instances_see_is_left_to_their_own_counts(self, instances: int, phase: str):
        assert self.sampled("xxx." * 10, instances).phase == phase

    def test_a_busy_instance_does_not_speak_for_all(self):
        state = self.report(self.sampled("....", instances=4), "xx.x", NOW + 0.6, known=0.6)
        assert state.suspicion is not None
        assert [ok for _, ok, _ in state.suspicion.heard] == [True] * 4 + [True, False]

    def test_old_outcomes_are_no_evidence(self):
        suspect, old = self.suspect(), News(one(True, NOW, 60), ((NOW, True),) * 20)
        heard = breaker_shared.absorb(suspect, SETTINGS, old, NOW + 0.5, jitter=0, holder="h", known=0.5).suspicion
        assert heard == Suspicion(NOW)

    def test_faults_that_left_the_window_are_no_run_any_more(self):
        state = Breaker()
        for n in range(8):
            state = self.report(state, "x", NOW + n * 20)
        assert (state.suspicion, len(state.tally.run)) == (None, 3)

    def test_successes_alone_are_not_worth_a_write(self):
        state = self.report(Breaker(), "x", NOW)
        assert self.report(state, "....", NOW + 1) is state

    def test_the_higher_generation_wins(self):
        shared, local = Breaker(), opened()
        assert breaker_shared.settle(shared, local, SETTINGS, NO_NEWS, NOW, jitter=0, holder="h").phase == "open"
        assert breaker_shared.settle(local, shared, SETTINGS, NO_NEWS, NOW, jitter=0, holder="h") is local
        assert breaker_shared.adopt(shared, local).phase == "open"
        assert breaker_shared.adopt(local, shared) is local


BAD = [
    pytest.param({}, id="empty"),
    pytest.param({"phase": "open"}, id="cut"),
    pytest.param(
        {**to_document(Breaker()), "suspicion": {"since": 1.0, "heard": [[1.0, 1, "h"]]}}, id="a count for a flag"
    ),
    pytest.param({**to_document(Breaker()), "suspicion": {"since": 1.0, "heard": [[1.0, True]]}}, id="nobody said it"),
    pytest.param(7, id="a number"),
    pytest.param(None, id="nothing"),
    pytest.param(to_document(Breaker()) | {"phase": "ajar"}, id="unknown phase"),
    pytest.param(to_document(Breaker()) | {"open_until": "soon"}, id="text for a time"),
    pytest.param(to_document(Breaker()) | {"open_until": float("inf")}, id="endless"),
    pytest.param(to_document(Breaker()) | {"generation": -1}, id="negative"),
    pytest.param(to_document(Breaker()) | {"generation": True}, id="a flag for a count"),
    pytest.param(to_document(Breaker()) | {"probe": []}, id="a list for the probe"),
    pytest.param(to_document(Breaker()) | {"tally": {"buckets": [[1, 2]], "run": [], "last_ok": 0}}, id="short bucket"),
    pytest.param(to_document(Breaker()) | {"last_error": 7}, id="a number for text"),
]


@pytest.mark.parametrize("document", BAD)
def test_a_document_that_is_not_a_breakers_is_refused(document):
    with pytest.raises(ValueError, match=r"."):
        from_document(document)


def test_settings_out_of_range_are_refused_with_their_path():
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(BreakerSettings).validate_python({"failure_ratio": 1.5, "open_seconds": 0, "opne_seconds": 3})
    assert {".".join(map(str, each["loc"])) for each in refused.value.errors()} == {
        "failure_ratio",
        "open_seconds",
        "opne_seconds",
    }


def test_the_longest_open_time_is_not_below_the_first():
    with pytest.raises(ValueError, match="max_open_seconds"):
        BreakerSettings(open_seconds=60, max_open_seconds=30)
