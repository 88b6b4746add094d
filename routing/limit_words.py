"""What callers are told about their limits: the headers that clients know, and refusals that say when to come back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from routing.errors import LimitExceeded
from routing.limits import Bucket, BudgetSettings, Window


def headers(buckets: Iterable[tuple[str, float, Bucket]]) -> dict[str, str]:
    """For what is counted ("requests", "tokens"), its limit a minute and its bucket as it is now."""
    told: dict[str, str] = {}
    for kind, limit, bucket in buckets:
        told[f"x-ratelimit-limit-{kind}"] = f"{limit:g}"
        told[f"x-ratelimit-remaining-{kind}"] = str(max(0, math.floor(bucket.level + 1e-9)))
        told[f"x-ratelimit-reset-{kind}"] = f"{max(0.0, limit - bucket.level) * 60 / limit:.3f}s"
    return told


def too_fast(
    caller: str, tokens: int, waits: Mapping[tuple[str, float], float], told: Mapping[str, str]
) -> LimitExceeded:
    """For requests or tokens of a minute that are used up; `waits` in seconds, by what is counted and its limit."""
    for (kind, limit), wait in waits.items():
        if math.isinf(wait):
            why = f"The request has about {tokens} tokens; the caller {caller} may use {limit:g} {kind} per minute."
            return LimitExceeded(why, code="request_too_large_for_limit", headers=told)
    (kind, limit), seconds = max(waits.items(), key=lambda item: item[1])
    why = f"The caller {caller} has used its {limit:g} {kind} per minute; try again in {seconds:.3f} s."
    return LimitExceeded(why, retry_after=seconds, headers=told)


def too_many_streams(caller: str, most: int) -> LimitExceeded:
    """When one of them ends nobody knows, so the wait is a guess."""
    why = f"The caller {caller} has its {most} streams open already."
    return LimitExceeded(why, code="too_many_streams", retry_after=1.0)


def over_budget(
    name: str, settings: BudgetSettings, window: Window, wanted: float, left: float, wait: float
) -> LimitExceeded:
    """For a request of `wanted` micro-USD at most. `wait` in seconds: the end of the window, or sooner."""
    told = f"The budget of {name}, {settings.usd:g} USD per {settings.per}, "
    resets = f"it resets at {moment(window.end)}"
    if left <= 0:
        why = f"{told}is used up; {resets}."
    else:
        why = (
            f"{told}has {left / 1e6:.6f} USD left, and this request may cost {wanted / 1e6:.6f} USD; "
            f"lower max_tokens, or wait: {resets}."
        )
    return LimitExceeded(why, code="budget_exceeded", retry_after=wait)


def unknown_budget(name: str, wait: float) -> LimitExceeded:
    """While the store has not said what others have spent of it."""
    why = f"What is left of the budget of {name} is not known yet: the table of usage has not been read."
    return LimitExceeded(why, code="budget_unknown", retry_after=wait)


def nearly_used(name: str, settings: BudgetSettings, window: Window, left: float) -> str:
    """The warning from `warn_at` on."""
    share = 100 * (1 - max(0.0, left) / settings.micro_usd)
    return f"{name}: {share:.0f}% of {settings.usd:g} USD per {settings.per}; resets at {moment(window.end)}"


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
