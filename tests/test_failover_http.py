"""Whatever a provider does before its first token, the caller sees a good answer as long as another provider works."""

from __future__ import annotations

import pytest

from local.providers import Fault
from tests.routes_for import ONCE, events, heard, text_of

SHORT = {"first_token_seconds": 0.3, "attempt_seconds": 0.3}
SILENT = ("hang", "slow_first_token", "stall")
FAST = {"retries": 1, "backoff_seconds": 0.01}

BEFORE = [
    pytest.param(Fault("status", status=500), 2, id="500"),
    pytest.param(Fault("status", status=503), 2, id="503"),
    pytest.param(Fault("status", status=503, retry_after=30), 1, id="503 with a long Retry-After"),
    pytest.param(Fault("status", status=529), 2, id="529"),
    pytest.param(Fault("status", status=404), 1, id="404"),
    pytest.param(Fault("status", status=408), 2, id="408"),
    pytest.param(Fault("rate_limited", retry_after_ms=20), 2, id="429 with a short Retry-After"),
    pytest.param(Fault("rate_limited", retry_after=30), 1, id="429 with a long Retry-After"),
    pytest.param(Fault("rate_limited"), 1, id="429 without Retry-After"),
    pytest.param(Fault("insufficient_quota"), 1, id="quota"),
    pytest.param(Fault("unauthorized"), 2, id="401"),
    pytest.param(Fault("status", status=403), 2, id="403"),
    pytest.param(Fault("drop"), 2, id="reset before the headers"),
    pytest.param(Fault("hang"), 1, id="hang before the headers"),
    pytest.param(Fault("slow_first_token"), 1, id="slow first token"),
    pytest.param(Fault("error_event"), 2, id="error inside a 200"),
    pytest.param(Fault("error_event", code="rate_limit_exceeded"), 1, id="throttled inside a 200"),
    pytest.param(Fault("empty_stream"), 1, id="empty stream"),
    pytest.param(Fault("invalid_json"), 1, id="invalid JSON"),
    pytest.param(Fault("empty_body"), 1, id="empty body"),
    pytest.param(Fault("malformed"), 1, id="malformed"),
    pytest.param(Fault("cut"), 1, id="cut"),
    pytest.param(Fault("stall"), 1, id="stall"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("kind", ["openai", "azure_openai"])
@pytest.mark.parametrize(("fault", "asked"), BEFORE)
def test_the_caller_sees_only_a_good_answer(stage, kind, stream, fault, asked):
    bad, good = stage.standin(kind, "bad", fault=fault), stage.standin(name="good")
    stage.serve(bad, good, route={**(SHORT if fault.kind in SILENT else {}), "retry": FAST})
    answer = stage.ask(stream=stream)
    assert answer.status_code == 200
    if stream:
        assert (text_of(events(answer.text)), events(answer.text)[-1]) == (heard(good), "[DONE]")
    else:
        assert answer.json()["choices"][0]["message"]["content"] == heard(good)
    assert "bad" not in answer.text
    assert (bad.asked, good.asked) == (asked, 1)
    assert answer.headers["x-router-target"] == "good"
    assert answer.headers["x-router-model"] == "model-of-good"
    assert answer.headers["x-router-attempts"] == str(asked + 1)


@pytest.mark.parametrize("fault", [Fault("hang"), Fault("slow_first_token"), Fault("stall", after=1)], ids=str)
def test_a_provider_that_was_given_up_is_told_at_once(stage, fault):
    slow, good = stage.standin(name="slow", fault=fault), stage.standin(name="good")
    stage.serve(slow, good, route=SHORT)
    assert stage.ask(stream=True).headers["x-router-target"] == "good"
    stage.until(slow, lambda it: len(it.cancelled) == 1, 0.25)
    (gave_up,), (asked_next,) = slow.cancelled, good.requests
    assert abs((gave_up.cancelled_at or 0.0) - asked_next.at) < 0.1


def test_a_provider_that_is_not_there_is_passed_over(stage):
    gone, good = stage.standin(name="gone"), stage.standin(name="good")
    stage.serve(gone, good, providers={"gone": {"base_url": "http://127.0.0.1:1"}}, route={"retry": ONCE})
    assert stage.ask().headers["x-router-target"] == "good"


def test_one_bad_moment_is_mended_by_the_same_provider(stage):
    one, two = stage.standin(name="one"), stage.standin(name="two")
    one.fail(Fault("status", status=503))
    stage.serve(one, two, route={"retry": FAST})
    answer = stage.ask()
    assert (answer.headers["x-router-target"], answer.headers["x-router-attempts"]) == ("one", "2")
    assert two.asked == 0


def test_a_short_retry_after_is_kept(stage):
    one = stage.standin(name="one")
    one.fail(Fault("rate_limited", retry_after_ms=150))
    stage.serve(one)
    assert stage.ask().status_code == 200
    first, second = one.requests
    assert 0.15 <= second.at - first.at < 1


def test_a_longer_context_is_looked_for_when_the_request_is_too_long(stage):
    too_long = Fault("context_length_exceeded")
    small, same, big = (stage.standin(name=name, fault=too_long) for name in ("small", "same", "big"))
    big.behave(fault=None)
    contexts = {"small": {"context": 8_000}, "same": {"context": 8_000}, "big": {"context": 128_000}}
    stage.serve(small, same, big, targets=contexts)
    assert stage.ask().headers["x-router-target"] == "big"
    assert same.asked == 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_bad_request_is_nobody_elses_affair(stage, stream):
    one, two = stage.standin(name="one", fault=Fault("status", status=422, message="No such tool.")), stage.standin()
    stage.serve(one, two)
    answer = stage.ask(stream=stream)
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, "No such tool.")
    assert two.asked == 0


def test_when_all_fail_every_attempt_is_told_and_no_provider_is_quoted(stage):
    faults = [Fault("status", status=500, message="secret stack trace"), Fault("insufficient_quota", message="acct_9")]
    one, two = (stage.standin(name=name, fault=fault) for name, fault in zip(("one", "two"), faults, strict=True))
    stage.serve(one, two, route={"retry": FAST})
    answer = stage.ask()
    body = answer.json()
    assert (answer.status_code, body["error"]["code"]) == (429, "insufficient_quota")
    assert [(a["target"], a["error"]) for a in body["router"]["attempts"]] == [
        ("one", "Unavailable"),
        ("one", "Unavailable"),
        ("two", "QuotaExhausted"),
    ]
    assert answer.headers["x-router-attempts"] == "3"
    assert "secret" not in answer.text
    assert "acct_9" not in answer.text


def test_when_all_are_throttled_the_lowest_wait_is_told_and_then_nobody_is_asked(stage):
    one = stage.standin(name="one", fault=Fault("rate_limited", retry_after=40))
    two = stage.standin(name="two", fault=Fault("rate_limited", retry_after_ms=20_500))
    stage.serve(one, two, route={"retry": ONCE})
    first, second = stage.ask(), stage.ask()
    assert (first.status_code, first.headers["x-should-retry"]) == (429, "true")
    assert (first.headers["retry-after"], 19_500 < int(first.headers["retry-after-ms"]) <= 20_500) == ("21", True)
    assert second.status_code == 429
    assert 19 <= int(second.headers["retry-after"]) <= 21
    assert (one.asked, two.asked) == (1, 1)


def test_who_throttles_without_a_word_is_parked_and_the_caller_hears_for_how_long(stage):
    one = stage.standin(name="one", fault=Fault("rate_limited"))
    stage.serve(one, breaker={"parked_seconds": 40})
    first, second = stage.ask(), stage.ask()
    assert (first.status_code, first.headers["x-should-retry"]) == (429, "true")
    assert 1 < int(second.headers["retry-after"]) <= int(first.headers["retry-after"]) <= 40
    assert one.asked == 1


def test_a_broken_provider_is_left_alone_and_503_says_until_when(stage):
    one = stage.standin(name="one", fault=Fault("unauthorized"))
    stage.serve(one)
    assert stage.ask().status_code == 502
    before = one.asked
    answer = stage.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_target_available")
    assert int(answer.headers["retry-after"]) >= 1
    assert one.asked == before


def test_all_attempts_share_one_deadline(stage):
    slow = [stage.standin(name=name, fault=Fault("hang")) for name in ("one", "two", "three", "four")]
    stage.serve(*slow, route={"deadline_seconds": 0.6, "attempt_seconds": 0.25})
    answer = stage.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "provider_timeout")
    assert [standin.asked for standin in slow] == [1, 1, 1, 0]


def test_moving_on_takes_no_time_of_ours(stage):
    bad, good = stage.standin(name="bad", fault=Fault("insufficient_quota")), stage.standin(name="good")
    stage.serve(bad, good)
    assert stage.ask().status_code == 200
    assert good.requests[0].at - (bad.requests[0].finished_at or 0.0) < 0.1
