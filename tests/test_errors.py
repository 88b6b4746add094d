"""The error tree: every class states its policy, and the drawing, the table and the classes say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from routing import errors
from routing.errors import (
    Again,
    AllFailed,
    BadRequest,
    InvalidRequest,
    Misconfigured,
    Next,
    NoTarget,
    Policy,
    ProviderError,
    RouterError,
    Throttled,
    Unavailable,
)
from routing.types import Attempt, Outcome, Refused


def below(kind: type[RouterError]) -> Iterator[type[RouterError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from below(child)


ALL = [RouterError, *below(RouterError)]
PROVIDER_ERRORS = list(below(ProviderError))


def drawn() -> list[tuple[str, str | None, int | None]]:
    """The docstring's tree as (class, parent, status)."""
    rows: list[tuple[str, str | None, int | None]] = []
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"( {4,})([A-Z]\w+)(?: +(\d{3})\b)?", line)
        if found:
            depth = len(found[1])
            path = [(above, name) for above, name in path if above < depth]
            rows.append((found[2], path[-1][1] if path else None, int(found[3]) if found[3] else None))
            path.append((depth, found[2]))
    return rows


@pytest.mark.parametrize("kind", PROVIDER_ERRORS, ids=lambda kind: kind.__name__)
def test_every_provider_error_states_its_own_policy(kind: type[ProviderError]) -> None:
    assert isinstance(vars(kind).get("policy"), Policy), "a policy that is inherited was never thought about"


def test_the_class_above_them_has_no_policy_to_inherit() -> None:
    assert "policy" not in vars(ProviderError)


def test_the_drawing_is_the_tree() -> None:
    real = {(RouterError.__name__, None), *((kind.__name__, kind.__mro__[1].__name__) for kind in below(RouterError))}
    assert {(name, parent) for name, parent, _ in drawn()} == real
    assert len(drawn()) == len(ALL)


@pytest.mark.parametrize(("name", "_", "status"), drawn(), ids=[name for name, *_ in drawn()])
def test_the_drawing_tells_the_status(name: str, _: str | None, status: int | None) -> None:
    children = getattr(errors, name).__subclasses__()
    assert status == getattr(errors, name).status or (status is None and children), name


# error, again here, next target, what the breaker hears, alarm, status for the caller, code
TABLE = [
    ("BadRequest", "never", "no", "neutral", False, 400, None),
    ("ContextTooLong", "never", "if_bigger_context", "neutral", False, 400, "context_length_exceeded"),
    ("ContentRefused", "never", "if_allowed", "neutral", False, 400, "content_filter"),
    ("Unauthorized", "with_new_secret", "yes", "long_open", True, 502, "provider_unauthorized"),
    ("QuotaExhausted", "never", "yes", "long_open", True, 429, "insufficient_quota"),
    ("NotFound", "never", "yes", "neutral", True, 502, "provider_model_not_found"),
    ("Throttled", "if_wait_fits", "yes", "parked", False, 429, "rate_limit_exceeded"),
    ("Unavailable", "yes", "yes", "fault", False, 502, "provider_unavailable"),
    ("TooSlow", "never", "yes", "fault", False, 504, "provider_timeout"),
    ("Late", "never", "yes", "neutral", False, 504, "provider_late"),
    ("BadReply", "never", "yes", "fault", False, 502, "provider_bad_reply"),
]


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_the_table_row_by_row(row: tuple[str, str, str, str, bool, int, str | None]) -> None:
    name, again, following, outcome, alarm, status, code = row
    kind = getattr(errors, name)
    assert kind.policy == Policy(Again(again), Next(following), Outcome(outcome), alarm)
    assert (kind.status, kind.code) == (status, code)


def test_the_table_leaves_no_provider_error_out() -> None:
    assert {row[0] for row in TABLE} == {kind.__name__ for kind in PROVIDER_ERRORS}


def test_a_body_is_in_openais_shape() -> None:
    error = InvalidRequest("messages: is missing", param="messages")
    assert error.body() == {
        "error": {
            "message": "messages: is missing",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "invalid_request",
        }
    }


def test_the_providers_word_about_the_callers_request_is_kept() -> None:
    error = BadRequest("The provider refuses the request.")
    error.provider_body = {"message": "bad temperature", "param": "temperature", "innererror": {"code": "X"}}
    assert error.body()["error"] == {
        "message": "bad temperature",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": None,
        "innererror": {"code": "X"},
    }


@pytest.mark.parametrize(
    ("retry_after", "worth"),
    [(None, False), (0.0, True), (60.0, True), (60.1, False)],
    ids=["unknown", "at once", "a minute", "too long"],
)
def test_a_retry_is_advised_only_for_a_wait_that_clients_keep(retry_after: float | None, worth: bool) -> None:
    assert Throttled("wait", retry_after=retry_after).worth_retrying is worth


def refused(*reasons: str) -> list[Refused]:
    return [Refused(f"t{place}", reason, 10.0) for place, reason in enumerate(reasons)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reasons", "status", "code"),
    [
        (["parked", "parked"], 429, "rate_limit_exceeded"),
        (["parked", "open"], 503, "no_target_available"),
        (["open"], 503, "no_target_available"),
        ([], 503, "no_target_available"),
    ],
    ids=["all parked", "one is broken", "broken", "nobody was refused"],
)
def test_no_target_is_429_only_when_all_are_parked(reasons: list[str], status: int, code: str) -> None:
    error = NoTarget("nobody", refused=refused(*reasons))
    assert (error.status, error.code) == (status, code)


def test_all_failed_takes_the_last_status_and_keeps_every_attempt() -> None:
    attempts = [
        Attempt("a", 1, Outcome.FAULT, 0.1, "Unavailable"),
        Attempt("b", 2, Outcome.PARKED, 0.1, "Throttled"),
    ]
    error = AllFailed(Throttled("the provider's secret words"), attempts=attempts, retry_after=3.0)
    assert (error.status, error.type, error.code) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert error.attempts == tuple(attempts)
    assert error.message == "Every target that could be asked failed: a (Unavailable), b (Throttled)."


def test_all_failed_does_not_repeat_what_a_provider_said() -> None:
    last = BadRequest("words of the provider")
    last.provider_body = {"message": "words of the provider"}
    error = AllFailed(last, attempts=[Attempt("a", 1, Outcome.NEUTRAL, 0.1, "BadRequest")])
    assert "words of the provider" not in str(error.body())


@pytest.mark.parametrize(("count", "told"), [(1, "1 error"), (2, "2 errors")], ids=["one", "two"])
def test_a_refused_configuration_counts_and_keeps_its_errors(count: int, told: str) -> None:
    error = Misconfigured([f"e{number}" for number in range(count)])
    assert f"({told})" in error.message
    assert len(error.errors) == count
    assert error.status == 503


def test_what_an_error_says_of_itself_may_differ_from_its_class() -> None:
    error = Unavailable("gone", status=599, code="odd", param="p")
    assert (error.status, error.code, error.param, Unavailable.status) == (599, "odd", "p", 502)
