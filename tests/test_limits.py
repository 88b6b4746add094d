"""The rules of limits, each held against a plain model of the same."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.limits import Bucket, Claim, day_of, filled, start_of, taken, wait, window

RATES = st.integers(1, 10_000)
STEPS = st.lists(st.tuples(st.floats(0, 200), st.floats(0, 500)), max_size=30)  # seconds to pass, then an amount


@given(RATES, STEPS)
def test_a_bucket_gives_no_more_than_a_minutes_worth_and_what_refilled(rate: int, steps: list[tuple[float, float]]):
    bucket, now, given_out = Bucket(rate, 0.0), 0.0, 0.0
    for seconds, amount in steps:
        now += seconds
        if wait(bucket, rate, amount, now) == 0:
            bucket = taken(bucket, rate, amount, now)
            given_out += amount
        assert given_out <= rate + now * rate / 60 + 1e-3
        assert bucket.level <= rate


@given(RATES, STEPS)
def test_a_bucket_is_what_adding_up_second_by_second_gives(rate: int, steps: list[tuple[float, float]]):
    bucket, level, now = Bucket(rate, 0.0), float(rate), 0.0
    for seconds, amount in steps:
        now += seconds
        level = min(float(rate), level + seconds * rate / 60) - amount
        bucket = taken(bucket, rate, amount, now)
        assert bucket.level == pytest.approx(level, abs=1e-6 * rate + 1e-6)


@given(RATES, st.floats(0, 20_000), st.floats(-5_000, 10_000))
def test_who_waits_as_long_as_was_said_gets_in_and_nobody_sooner(rate: int, amount: float, level: float):
    bucket = Bucket(min(level, rate), 1_000.0)
    seconds = wait(bucket, rate, amount, 1_000.0)
    if math.isinf(seconds):
        assert amount > rate
        return
    assert wait(bucket, rate, amount, 1_000.0 + seconds) == 0
    if seconds > 0.01:
        assert wait(bucket, rate, amount, 1_000.0 + seconds * 0.99 - 0.001) > 0


def test_a_clock_that_goes_back_refills_nothing_twice():
    bucket = taken(Bucket(60, 100.0), 60, 60, 100.0)
    assert filled(bucket, 60, 50.0) == bucket
    assert filled(filled(bucket, 60, 50.0), 60, 101.0).level == pytest.approx(1)


def test_what_was_not_used_comes_back_but_never_more_than_a_minutes_worth():
    assert taken(Bucket(50, 0.0), 60, -30, 0.0).level == 60


@given(st.floats(0, 4e9), st.sampled_from(["day", "week", "month"]))
def test_a_window_holds_its_moment_and_ends_where_the_next_begins(now: float, per):
    held = window(per, now)
    assert held.start <= now < held.end
    assert window(per, held.end).start == held.end
    assert window(per, held.end - 0.001) == held


@given(st.floats(0, 4e9), st.sampled_from(["day", "week", "month"]))
def test_the_days_of_a_window_are_those_that_have_begun(now: float, per):
    days = list(window(per, now).days(now))
    assert days[-1] == day_of(now)
    assert days == sorted(set(days))
    assert start_of(days[0]) == window(per, now).start
    assert len(days) <= {"day": 1, "week": 7, "month": 31}[per]


@pytest.mark.parametrize(
    ("per", "start", "end"),
    [
        pytest.param("day", "2028-02-29", "2028-03-01", id="day"),
        pytest.param("week", "2028-02-28", "2028-03-06", id="week"),
        pytest.param("month", "2028-02-01", "2028-03-01", id="month"),
    ],
)
def test_windows_are_those_of_the_calendar(per, start: str, end: str):
    now = datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC).timestamp()
    assert window(per, now).start == start_of(start)
    assert window(per, now).end == start_of(end)


@pytest.mark.parametrize(
    ("claim", "fits"),
    [
        pytest.param(Claim(5, 5, 0, 1, True), True, id="all that is left"),
        pytest.param(Claim(6, 5, 0, 1, True), False, id="more than is left"),
        pytest.param(Claim(5, 5, 95, 1, False), True, id="alone nobody needs to hear"),
        pytest.param(Claim(5, 80, 20, 4, False), True, id="within the share"),
        pytest.param(Claim(6, 80, 20, 4, False), False, id="beyond the share"),
        pytest.param(Claim(6, 80, 20, 4, True), True, id="one at a time beyond it"),
        pytest.param(Claim(6, 74, 26, 4, True), False, id="but not after another"),
    ],
)
def test_an_instance_gives_out_its_share_before_the_others_hear_of_it(claim: Claim, fits: bool):
    assert claim.fits is fits


@given(
    fleet=st.integers(1, 8),
    budget=st.integers(10, 1_000),
    wanted=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 40), st.booleans()), max_size=200),
)
def test_together_they_overrun_by_at_most_a_request_each(fleet: int, budget: int, wanted: list[tuple[int, int, bool]]):
    """Instances that hear of each other all at once, now and then; a request is settled before the next one begins."""
    spent, heard = [0] * fleet, [0] * fleet
    for instance, amount, hear in wanted:
        if hear:
            heard = list(spent)
        me = instance % fleet
        left = budget - (sum(heard) - heard[me]) - spent[me]
        if Claim(amount, left, spent[me] - heard[me], fleet, alone=True).fits:
            spent[me] += amount
    assert sum(spent) <= budget + fleet * 40
