"""The loop over a plan, with functions for targets, a fake gate, and a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest

from routing import failover
from routing.errors import (
    AllFailed,
    BadReply,
    BadRequest,
    ContentRefused,
    ContextTooLong,
    NoTarget,
    NotFound,
    ProviderError,
    QuotaExhausted,
    Throttled,
    TooSlow,
    Unauthorized,
    Unavailable,
)
from routing.failover import Answered, Terms
from routing.retries import RetrySettings
from routing.types import Choice, Exclusion, Outcome, Plan, Refused, Target, Task, Ticket
from tests.cranked import START, run

WALL = 1_700_000_000.0
CONTEXTS = {"a": 1_000, "b": 500, "c": 2_000, "d": None}
TARGETS = {name: Target(name, "p", "m", context=context) for name, context in CONTEXTS.items()}
RETRY = RetrySettings(retries=1, backoff_seconds=0.0, patience_seconds=1.0)
Step = str | Exception | float | Callable[[], Awaitable[str]]


class Gate:
    """Notes what it is asked and told. `closed` targets are refused; `parks` are those that a 429 closes."""

    def __init__(self, *closed: Refused, parks: Sequence[Refused] = ()) -> None:
        self.closed = {refused.target: refused for refused in closed}
        self.parks = {refused.target: refused for refused in parks}
        self.admitted: list[tuple[str, bool]] = []
        self.recorded: list[tuple[str, Outcome, float | None, str | None]] = []

    def refusal(self, target: str) -> Refused | None:
        return self.closed.get(target)

    def admit(self, target: str, *, last_resort: bool = False) -> Ticket | Refused:
        if target in self.closed:
            return self.closed[target]
        self.admitted.append((target, last_resort))
        return Ticket(target, 1)

    def record(
        self, ticket: Ticket, outcome: Outcome, *, retry_after: float | None = None, error: str | None = None
    ) -> None:
        self.recorded.append((ticket.target, outcome, retry_after, error))
        if outcome is Outcome.PARKED and ticket.target in self.parks:
            self.closed[ticket.target] = self.parks[ticket.target]


class Targets:
    """Each target answers with its next step: a text, an error, or silence for so many seconds and then a text."""

    def __init__(self, **steps: Step | list[Step]) -> None:
        self.steps = {name: list(given) if isinstance(given, list) else [given] for name, given in steps.items()}
        self.asked: list[tuple[str, float]] = []

    @property
    def order(self) -> str:
        return "".join(name for name, _ in self.asked)

    async def __call__(self, target: Target) -> str:
        self.asked.append((target.name, asyncio.get_running_loop().time() - START))
        steps = self.steps[target.name]
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, Exception):
            raise step
        if isinstance(step, float):
            await asyncio.sleep(step)
            return "late"
        return step if isinstance(step, str) else await step()


def plan_of(names: str, *exclusions: Exclusion) -> Plan:
    return Plan("auto", "task", Task(), tuple(Choice(name, 1.0, "") for name in names), exclusions)


def terms(**changes: Any) -> Terms:
    given = Terms(TARGETS, START + 10.0, attempt_seconds=5.0, retry=RETRY, wall_clock=lambda: WALL)
    return replace(given, **changes)


def walk(targets: Targets, names: str = "abcd", gate: Gate | None = None, **changes: Any) -> Answered[str]:
    return run(failover.run(plan_of(names), targets, gate or Gate(), terms(**changes)))


def test_the_first_target_answers_and_its_ticket_stays_open() -> None:
    gate = Gate()
    answered = walk(Targets(a="hello"), gate=gate)
    assert (answered.target.name, answered.value, answered.attempts) == ("a", "hello", ())
    assert answered.ticket == Ticket("a", 1)
    assert gate.recorded == []


def test_targets_are_asked_in_the_order_of_the_plan() -> None:
    targets = Targets(a="a", b="b", c=BadReply(""), d=BadReply(""))
    answered = walk(targets, "dcba")
    assert targets.order == "dcb"
    assert [(attempt.target, attempt.number, attempt.error) for attempt in answered.attempts] == [
        ("d", 1, "BadReply"),
        ("c", 2, "BadReply"),
    ]


def test_the_next_target_is_asked_at_once() -> None:
    targets = Targets(a=BadReply(""), b="b")
    walk(targets)
    assert targets.asked == [("a", 0.0), ("b", 0.0)]


def test_a_target_that_is_unavailable_is_asked_again_first() -> None:
    targets = Targets(a=[Unavailable(""), "again"], b="b")
    assert walk(targets).value == "again"
    assert targets.order == "aa"


def test_what_the_answering_call_took_is_told() -> None:
    answered = walk(Targets(a=BadReply(""), b=2.0))
    assert (answered.seconds, answered.started) == (2.0, START)


# --- one deadline


def test_one_attempt_has_its_own_limit() -> None:
    targets = Targets(a=60.0, b="b")
    answered = walk(targets)
    assert targets.asked == [("a", 0.0), ("b", 5.0)]
    assert answered.attempts[0].error == "TooSlow"
    assert answered.attempts[0].seconds == 5.0


def test_all_attempts_share_one_deadline() -> None:
    targets = Targets(a=60.0, b=60.0, c="c")
    with pytest.raises(AllFailed) as caught:
        walk(targets)
    assert targets.asked == [("a", 0.0), ("b", 5.0)]
    assert caught.value.status == 504


def test_the_last_attempt_gets_only_what_is_left() -> None:
    targets = Targets(a=60.0, b=60.0)
    with pytest.raises(AllFailed) as caught:
        walk(targets, deadline=START + 7.0)
    assert [attempt.seconds for attempt in caught.value.attempts] == [5.0, 2.0]


def test_no_wait_goes_beyond_the_deadline() -> None:
    targets = Targets(a=Throttled("", retry_after=10.0))
    with pytest.raises(AllFailed) as caught:
        walk(targets, "a")
    assert targets.asked == [("a", 0.0)]
    assert caught.value.retry_after == 10.0


# --- Retry-After


def test_a_short_retry_after_is_waited_for() -> None:
    targets = Targets(a=[Throttled("", retry_after=0.8), "again"], b="b")
    assert walk(targets).value == "again"
    assert targets.asked == [("a", 0.0), ("a", pytest.approx(0.8))]


def test_a_long_retry_after_is_left_to_the_next_target() -> None:
    targets = Targets(a=Throttled("", retry_after=3.0), b="b")
    assert walk(targets).value == "b"
    assert targets.asked == [("a", 0.0), ("b", 0.0)]


def test_the_only_target_is_waited_for_longer() -> None:
    targets = Targets(a=[Throttled("", retry_after=3.0), "again"])
    assert walk(targets, "a").value == "again"
    assert [at for _, at in targets.asked] == pytest.approx([0.0, 3.0])


def test_the_wait_is_recomputed_from_the_latest_response() -> None:
    targets = Targets(a=[Throttled("", retry_after=1.0), Throttled("", retry_after=2.0), "again"])
    walk(targets, "a", retry=replace(RETRY, retries=2))
    assert [at for _, at in targets.asked] == pytest.approx([0.0, 1.0, 3.0])


def test_the_caller_hears_the_lowest_retry_after_of_all_targets() -> None:
    targets = Targets(a=Throttled("", retry_after=30.0), b=Throttled("", retry_after=20.0))
    with pytest.raises(AllFailed) as caught:
        walk(targets, "ab")
    assert (caught.value.status, caught.value.retry_after) == (429, 20.0)


def test_the_caller_hears_the_latest_retry_after_of_a_target() -> None:
    targets = Targets(a=[Throttled("", retry_after=1.0), Throttled("", retry_after=30.0)])
    with pytest.raises(AllFailed) as caught:
        walk(targets, "a")
    assert caught.value.retry_after == pytest.approx(30.0)


def test_time_that_passed_since_a_retry_after_is_not_waited_for_again() -> None:
    targets = Targets(a=Throttled("", retry_after=8.0), b=60.0, c=QuotaExhausted(""))
    with pytest.raises(AllFailed) as caught:
        walk(targets, "abc")
    assert caught.value.status == 429
    assert caught.value.retry_after == pytest.approx(3.0)


def test_who_throttles_without_a_word_is_waited_for_as_long_as_the_gate_parks_it() -> None:
    gate = Gate(parks=[Refused("a", "parked", WALL + 5.0)])
    with pytest.raises(AllFailed) as caught:
        walk(Targets(a=Throttled("")), "a", gate=gate)
    assert (caught.value.status, caught.value.retry_after, caught.value.worth_retrying) == (429, 5.0, True)


@pytest.mark.parametrize(("reason", "wait"), [("parked", 3.0), ("open", 30.0)])
def test_a_target_that_was_parked_before_may_be_free_sooner(reason: Any, wait: float) -> None:
    gate = Gate(Refused("b", reason, WALL + 3.0))
    with pytest.raises(AllFailed) as caught:
        walk(Targets(a=Throttled("", retry_after=30.0)), "ab", gate=gate)
    assert caught.value.status == 429
    assert caught.value.retry_after == pytest.approx(wait)


def test_waiting_is_not_advised_when_something_else_failed_last() -> None:
    with pytest.raises(AllFailed) as caught:
        walk(Targets(a=Throttled("", retry_after=20.0), b=BadReply("")), "ab")
    assert (caught.value.status, caught.value.retry_after) == (502, None)


# --- what each class means


def test_a_new_secret_is_tried_once_and_the_old_one_blames_nobody() -> None:
    gate, targets = Gate(), Targets(a=Unauthorized(""), b="b")
    assert walk(targets, gate=gate).value == "b"
    assert targets.order == "aab"
    assert [(who, outcome) for who, outcome, *_ in gate.recorded] == [("a", Outcome.NEUTRAL), ("a", Outcome.LONG_OPEN)]


def test_a_long_prompt_goes_only_to_a_bigger_context() -> None:
    targets = Targets(a=ContextTooLong(""), b="b", c="c")
    assert walk(targets, "abc").value == "c"
    assert targets.order == "ac"


def test_an_unknown_context_does_not_make_a_small_one_bigger() -> None:
    targets = Targets(a=ContextTooLong(""), d=ContextTooLong(""), b="b")
    with pytest.raises(ContextTooLong):
        walk(targets, "adb")
    assert targets.order == "ad"


def test_a_prompt_too_long_for_all_is_the_callers_affair() -> None:
    with pytest.raises(ContextTooLong) as caught:
        walk(Targets(a=ContextTooLong("too long"), b="b"), "ab")
    assert caught.value.message == "too long"


def test_a_bad_request_is_not_offered_to_anybody_else() -> None:
    gate, targets = Gate(), Targets(a=BadRequest("no such field", status=422), b="b")
    with pytest.raises(BadRequest) as caught:
        walk(targets, gate=gate)
    assert (targets.order, caught.value.status) == ("a", 422)
    assert gate.recorded == [("a", Outcome.NEUTRAL, None, "BadRequest")]


@pytest.mark.parametrize(("moves_on", "order"), [(False, "a"), (True, "ab")], ids=["by default", "by setting"])
def test_refused_content_moves_on_only_by_setting(moves_on: bool, order: str) -> None:
    targets = Targets(a=ContentRefused(""), b=ContentRefused(""))
    with pytest.raises(ContentRefused):
        walk(targets, "ab", content_refused_moves_on=moves_on)
    assert targets.order == order


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (QuotaExhausted(""), Outcome.LONG_OPEN),
        (NotFound(""), Outcome.NEUTRAL),
        (Throttled(""), Outcome.PARKED),
        (TooSlow(""), Outcome.FAULT),
        (BadReply(""), Outcome.FAULT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ProviderError) else value,
)
def test_the_gate_hears_what_an_error_says_about_health(error: ProviderError, outcome: Outcome) -> None:
    gate = Gate()
    walk(Targets(a=error, b="b"), gate=gate)
    assert gate.recorded == [("a", outcome, None, type(error).__name__)]


def test_the_gate_hears_how_long_to_park() -> None:
    gate = Gate()
    walk(Targets(a=Throttled("", retry_after=9.0), b="b"), gate=gate)
    assert gate.recorded == [("a", Outcome.PARKED, 9.0, "Throttled")]


# --- when nobody answers


def test_all_failed_keeps_every_attempt_and_takes_the_last_status() -> None:
    targets = Targets(a=Unavailable(""), b=BadReply(""), c=60.0)
    with pytest.raises(AllFailed) as caught:
        walk(targets, "abc")
    assert [(one.number, one.target, one.error) for one in caught.value.attempts] == [
        (1, "a", "Unavailable"),
        (2, "a", "Unavailable"),
        (3, "b", "BadReply"),
        (4, "c", "TooSlow"),
    ]
    assert (caught.value.status, caught.value.code) == (504, "provider_timeout")


def test_a_breaker_that_opens_meanwhile_ends_the_retries() -> None:
    gate = Gate()

    async def fails() -> str:
        gate.closed["a"] = Refused("a", "open", WALL + 30)
        raise Unavailable("")

    targets = Targets(a=fails, b="b")
    assert walk(targets, gate=gate).value == "b"
    assert targets.order == "ab"


def test_the_last_target_that_may_be_asked_is_the_last_resort() -> None:
    gate = Gate()
    walk(Targets(a=BadReply(""), b=BadReply(""), c="c"), "abc", gate)
    assert gate.admitted == [("a", False), ("b", False), ("c", True)]


def test_a_target_too_small_is_no_resort() -> None:
    gate = Gate()
    walk(Targets(a=ContextTooLong(""), c="c", b="b"), "acb", gate)
    assert gate.admitted == [("a", False), ("c", True)]


REFUSALS = [
    ("all are parked", [("a", "parked", 40.0), ("b", "parked", 20.0)], 429, 20.0),
    ("all are broken", [("a", "open", 40.0), ("b", "isolated", 50.0)], 503, 40.0),
    ("some of each", [("a", "parked", 40.0), ("b", "open", 20.0)], 503, 20.0),
    ("one for ever", [("a", "isolated", float("inf"))], 503, None),
    ("over any moment now", [("a", "open", -5.0)], 503, 1.0),
]


@pytest.mark.parametrize(
    ("given", "status", "wait"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
@pytest.mark.parametrize("where", ["at the gate", "in the plan"])
def test_no_target_says_honestly_when_to_come_back(
    given: list[tuple[str, Any, float]], status: int, wait: float | None, where: str
) -> None:
    refused = [Refused(name, reason, WALL + seconds) for name, reason, seconds in given]
    names = "".join(name for name, *_ in given)
    plan, gate = plan_of(names), Gate(*refused)
    if where == "in the plan":
        plan, gate = plan_of("", *(Exclusion(each.target, f"breaker: {each.reason}", each) for each in refused)), Gate()
    with pytest.raises(NoTarget) as caught:
        run(failover.run(plan, Targets(), gate, terms()))
    assert (caught.value.status, caught.value.retry_after) == (status, wait)
    assert all(f"{name} (" in caught.value.message for name in names)


def test_no_target_names_what_keeps_the_others_out() -> None:
    plan = plan_of("", Exclusion("a", "lacks vision"))
    with pytest.raises(NoTarget) as caught:
        run(failover.run(plan, Targets(), Gate(), terms()))
    assert caught.value.message == "No target of 'auto' can be asked: a (lacks vision)."
    assert caught.value.retry_after is None


def test_an_empty_plan_is_no_target() -> None:
    with pytest.raises(NoTarget, match="the plan is empty"):
        walk(Targets(), "")


# --- a caller who leaves


async def leaving(work: Coroutine[Any, Any, Any], after: float) -> BaseException | None:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(after)
    task.cancel()
    await asyncio.wait([task])
    return None if task.cancelled() else task.exception()


def test_a_caller_who_leaves_says_nothing_about_the_target() -> None:
    gate, targets = Gate(), Targets(a=60.0, b="b")
    error = run(leaving(failover.run(plan_of("ab"), targets, gate, terms()), after=1.0))
    assert error is None
    assert gate.recorded == [("a", Outcome.NEUTRAL, None, None)]
    assert targets.order == "a"


def test_a_caller_may_leave_during_a_wait() -> None:
    gate, targets = Gate(), Targets(a=Throttled("", retry_after=5.0))
    error = run(leaving(failover.run(plan_of("a"), targets, gate, terms()), after=1.0))
    assert error is None
    assert gate.recorded == [("a", Outcome.PARKED, 5.0, "Throttled")]
    assert targets.order == "a"


def test_a_bug_of_ours_is_not_blamed_on_the_target() -> None:
    gate = Gate()
    with pytest.raises(ZeroDivisionError):
        walk(Targets(a=ZeroDivisionError(), b="b"), gate=gate)
    assert gate.recorded == [("a", Outcome.NEUTRAL, None, "ZeroDivisionError")]
