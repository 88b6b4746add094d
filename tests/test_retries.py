"""The table of moves after a failed attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from routing.errors import (
    BadReply,
    BadRequest,
    ContentRefused,
    ContextTooLong,
    NotFound,
    ProviderError,
    QuotaExhausted,
    Throttled,
    TooSlow,
    Unauthorized,
    Unavailable,
)
from routing.retries import AskAgain, AskNext, Move, RetrySettings, Stop, decide
from routing.types import Target

TARGET = Target("a", "p", "m", context=1_000)
SETTINGS = RetrySettings(retries=2, backoff_seconds=1.0, max_backoff_seconds=3.0, patience_seconds=1.0)
NEXT = AskNext()


def moved(
    error: ProviderError,
    *,
    tried: int = 1,
    remaining: float = 100.0,
    others: bool = True,
    jitter: float = 0.5,
    content: bool = False,
    target: Target = TARGET,
    settings: RetrySettings = SETTINGS,
) -> Move:
    return decide(
        error,
        target,
        settings,
        tried=tried,
        remaining=remaining,
        others=others,
        jitter=jitter,
        content_refused_moves_on=content,
    )


CASES: list[tuple[str, Move, Move]] = [
    ("a bad request stops", moved(BadRequest("")), Stop()),
    ("refused content stops", moved(ContentRefused("")), Stop()),
    ("refused content moves on by setting", moved(ContentRefused(""), content=True), NEXT),
    ("a bad request never moves on", moved(BadRequest(""), content=True), Stop()),
    ("a long context needs a bigger one", moved(ContextTooLong("")), AskNext(1_000)),
    ("an unknown context was too small", moved(ContextTooLong(""), target=Target("a", "p", "m")), AskNext(0)),
    ("a new secret is tried at once", moved(Unauthorized("")), AskAgain(0.0)),
    ("a new secret is tried once", moved(Unauthorized(""), tried=2), NEXT),
    ("no new secret without time", moved(Unauthorized(""), remaining=0.0), NEXT),
    ("an empty account moves on", moved(QuotaExhausted("", retry_after=0.1)), NEXT),
    ("an unknown model moves on", moved(NotFound("")), NEXT),
    ("a slow answer is not asked for again", moved(TooSlow("")), NEXT),
    ("a bad reply is not asked for again", moved(BadReply("")), NEXT),
    ("throttled without a time moves on", moved(Throttled("")), NEXT),
    ("throttled for a moment waits", moved(Throttled("", retry_after=1.0)), AskAgain(1.0)),
    ("throttled beyond patience moves on", moved(Throttled("", retry_after=1.1)), NEXT),
    ("throttled and alone waits longer", moved(Throttled("", retry_after=30.0), others=False), AskAgain(30.0)),
    ("no wait beyond the deadline", moved(Throttled("", retry_after=30.0), others=False, remaining=30.0), NEXT),
    ("throttled too often moves on", moved(Throttled("", retry_after=0.1), tried=3), NEXT),
    ("unavailable backs off", moved(Unavailable("")), AskAgain(0.5)),
    ("the bound doubles", moved(Unavailable(""), tried=2), AskAgain(1.0)),
    ("full jitter reaches nothing", moved(Unavailable(""), jitter=0.0), AskAgain(0.0)),
    ("unavailable keeps a Retry-After", moved(Unavailable("", retry_after=0.7)), AskAgain(0.7)),
    ("unavailable beyond patience moves on", moved(Unavailable("", retry_after=5.0)), NEXT),
    ("unavailable too often moves on", moved(Unavailable(""), tried=3), NEXT),
    ("backing off fits the deadline", moved(Unavailable(""), remaining=0.5), NEXT),
]


@pytest.mark.parametrize(("move", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_move_after(move: Move, expected: Move) -> None:
    assert move == expected


def test_the_bound_of_a_backoff_has_an_end() -> None:
    settings = replace(SETTINGS, retries=5)
    waits = [moved(Unavailable(""), tried=tried, jitter=1.0, settings=settings) for tried in range(1, 6)]
    assert waits == [AskAgain(1.0), AskAgain(2.0), AskAgain(3.0), AskAgain(3.0), AskAgain(3.0)]


def test_without_retries_nothing_is_asked_twice() -> None:
    none = replace(SETTINGS, retries=0)
    errors = [Unavailable(""), Throttled("", retry_after=0.0)]
    assert [moved(error, settings=none) for error in errors] == [NEXT, NEXT]


def test_a_rotated_key_is_tried_even_without_retries() -> None:
    assert moved(Unauthorized(""), settings=replace(SETTINGS, retries=0)) == AskAgain(0.0)


@pytest.mark.parametrize(
    ("move", "context", "suits"),
    [
        (AskNext(), 10, True),
        (AskNext(1_000), 1_000, False),
        (AskNext(1_000), 1_001, True),
        (AskNext(1_000), None, True),
        (AskNext(0), 1, True),
    ],
    ids=["any", "as big", "bigger", "unknown", "nothing known"],
)
def test_who_suits_as_next(move: AskNext, context: int | None, suits: bool) -> None:
    assert move.suits(Target("b", "p", "m", context=context)) is suits
