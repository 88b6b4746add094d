"""After a failed attempt: ask the same target again, ask the next one, or stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Interval

from routing.errors import Again, Next, ProviderError
from routing.types import Target


@dataclass(frozen=True)
class RetrySettings:
    """`retry = { ... }` of a route. Times in seconds."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    retries: Annotated[int, Interval(ge=0, le=5)] = 1  # further attempts at the same target
    backoff_seconds: Annotated[float, Interval(ge=0, le=10)] = 0.05  # the first one's upper bound; doubles each time
    max_backoff_seconds: Annotated[float, Interval(ge=0, le=60)] = 2.0
    patience_seconds: Annotated[float, Ge(0)] = 1.0  # longest Retry-After waited for while another target is free


@dataclass(frozen=True, slots=True)
class AskAgain:
    """The same target, after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AskNext:
    """The next target of the plan that `suits`."""

    bigger_than: int | None = None  # tokens of context that were too few

    def suits(self, target: Target) -> bool:
        """Whether asking `target` could end better. An unknown context might be bigger."""
        return self.bigger_than is None or target.context is None or target.context > self.bigger_than


@dataclass(frozen=True, slots=True)
class Stop:
    """Asking anybody would end the same way: the caller gets this error."""


Move = AskAgain | AskNext | Stop


def decide(
    error: ProviderError,
    target: Target,
    settings: RetrySettings,
    *,
    tried: int,
    remaining: float,
    others: bool,
    jitter: float,
    content_refused_moves_on: bool,
) -> Move:
    """The next move after `error` from `target`.

    `tried` counts the attempts at this target, `remaining` is the deadline's rest in seconds, `others` says whether
    another target is left, `jitter` is 0..1. Full jitter: the wait is anywhere between nothing and the bound
    (AWS Architecture Blog, "Exponential Backoff and Jitter").
    """
    wait = _wait(error, settings, tried=tried, others=others, jitter=jitter)
    if wait is not None and wait < remaining:
        return AskAgain(wait)
    return _move_on(error, target, content_refused_moves_on)


def _wait(error: ProviderError, settings: RetrySettings, *, tried: int, others: bool, jitter: float) -> float | None:
    """Seconds before the same target may be asked again; None when it may not."""
    if error.policy.again is Again.WITH_NEW_SECRET:
        return 0.0 if tried == 1 else None  # also where retries are none: a rotated key is no fault of the target
    if tried > settings.retries or error.policy.again is Again.NEVER:
        return None
    if error.retry_after is not None:
        return None if others and error.retry_after > settings.patience_seconds else error.retry_after
    if error.policy.again is Again.IF_WAIT_FITS:
        return None
    bound: float = settings.backoff_seconds * 2.0 ** (tried - 1)
    return jitter * min(settings.max_backoff_seconds, bound)


def _move_on(error: ProviderError, target: Target, content_refused_moves_on: bool) -> Move:
    allowed = {
        Next.NO: False,
        Next.YES: True,
        Next.IF_BIGGER_CONTEXT: True,
        Next.IF_ALLOWED: content_refused_moves_on,
    }[error.policy.next]
    if not allowed:
        return Stop()
    return AskNext(bigger_than=(target.context or 0) if error.policy.next is Next.IF_BIGGER_CONTEXT else None)
