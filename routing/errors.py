"""Every way a request can fail, and what is done about it: the class is the policy.

    RouterError
      CallerError                 refused by us before any provider is asked
        InvalidRequest     400    the body breaks the contract; `param` names the place
        BodyTooLarge       413
        WrongContentType   415
        Unauthenticated    401    no key, or one we do not know
        Forbidden          403    a known caller without the right
        UnknownModel       404    lists what exists
        LimitExceeded      429    one of our own limits; Retry-After says when
      ProviderError               one attempt at one target
        BadRequest         400    the provider refuses the request itself; its own status (400 or 422) is kept
          ContextTooLong   400
          ContentRefused   400    code `content_filter`
        Unauthorized       502    our key is refused
        QuotaExhausted     429    our account is empty: waiting seconds does not help
        NotFound           502    the model or deployment does not exist: a configuration alarm
        Throttled          429
        Unavailable        502    5xx, overloaded, no connection
        TooSlow            504    first token, idle or total time limit
        Late               504    slower than this one request wanted; the next target is asked
        BadReply           502    unreadable, empty, cut
      RunError                    the whole walk over the plan
        NoTarget           503    nobody could be asked (429 when all are parked)
        AllFailed          502    everybody was asked; takes the last error's status
      Misconfigured        503    the routes file is refused
      CallerLeft           499    nobody is listening any more

Each class below `ProviderError` states its own `Policy`; there is no default, and a test walks the tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from routing.types import Attempt, Outcome, Refused, Usage

LONGEST_RETRY_AFTER = 60.0  # seconds; OpenAI clients ignore or mistrust longer waits, so they are told not to retry


class Again(StrEnum):
    """May the same target be asked again?"""

    NEVER = "never"
    YES = "yes"
    IF_WAIT_FITS = "if_wait_fits"  # only after the provider's Retry-After, and only within the deadline
    WITH_NEW_SECRET = "with_new_secret"  # once, after the secret was read anew


class Next(StrEnum):
    """May the next target of the plan be asked?"""

    NO = "no"
    YES = "yes"
    IF_BIGGER_CONTEXT = "if_bigger_context"
    IF_ALLOWED = "if_allowed"  # by the route's `fallback.on_content_refused`


@dataclass(frozen=True, slots=True)
class Policy:
    """What one class of provider errors means for retry, failover, and the breaker."""

    again: Again
    next: Next
    outcome: Outcome
    alarm: bool = False  # a person has to change the configuration


class RouterError(Exception):
    """Anything the router answers with an error body. `str(error)` is written for the caller."""

    status: int = 500
    type: str = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after  # seconds
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def worth_retrying(self) -> bool:
        """Whether the caller's own retry could help: only when we can say for how long to wait."""
        return self.retry_after is not None and self.retry_after <= LONGEST_RETRY_AFTER


class CallerError(RouterError):
    """Refused before any provider is asked."""

    status = 400
    type = "invalid_request_error"


class InvalidRequest(CallerError):
    """The body breaks the contract; `param` names the place."""

    code = "invalid_request"


class BodyTooLarge(CallerError):
    status = 413
    code = "request_too_large"


class WrongContentType(CallerError):
    status = 415
    code = "unsupported_media_type"


class Unauthenticated(CallerError):
    status = 401
    code = "invalid_api_key"


class Forbidden(CallerError):
    status = 403
    type = "permission_error"
    code = "forbidden"


class UnknownModel(CallerError):
    status = 404
    code = "model_not_found"


class LimitExceeded(CallerError):
    """One of the router's own limits; `retry_after` says when there is room again, `headers` what is left."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.headers = headers or {}


class ProviderError(RouterError):
    """One attempt's failure. The message is ours; the provider's own text stays only where it is the caller's."""

    status = 502
    type = "provider_error"
    policy: ClassVar[Policy]
    usage: Usage | None = None  # what the provider counted, and bills, all the same; where it said so


class BadRequest(ProviderError):
    status = 400
    type = "invalid_request_error"
    policy = Policy(Again.NEVER, Next.NO, Outcome.NEUTRAL)

    provider_body: Mapping[str, Any] | None = None  # the provider's own error object: it is about the caller's request

    def body(self) -> dict[str, Any]:
        """The provider's own error object where it gave one, else ours."""
        return {"error": {**super().body()["error"], **self.provider_body}} if self.provider_body else super().body()


class ContextTooLong(BadRequest):
    code = "context_length_exceeded"
    policy = Policy(Again.NEVER, Next.IF_BIGGER_CONTEXT, Outcome.NEUTRAL)


class ContentRefused(BadRequest):
    code = "content_filter"
    policy = Policy(Again.NEVER, Next.IF_ALLOWED, Outcome.NEUTRAL)


class Unauthorized(ProviderError):
    code = "provider_unauthorized"
    policy = Policy(Again.WITH_NEW_SECRET, Next.YES, Outcome.LONG_OPEN, alarm=True)


class QuotaExhausted(ProviderError):
    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    policy = Policy(Again.NEVER, Next.YES, Outcome.LONG_OPEN, alarm=True)


class NotFound(ProviderError):
    code = "provider_model_not_found"
    policy = Policy(Again.NEVER, Next.YES, Outcome.NEUTRAL, alarm=True)


class Throttled(ProviderError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    policy = Policy(Again.IF_WAIT_FITS, Next.YES, Outcome.PARKED)


class Unavailable(ProviderError):
    code = "provider_unavailable"
    policy = Policy(Again.YES, Next.YES, Outcome.FAULT)


class TooSlow(ProviderError):
    status = 504
    type = "timeout_error"
    code = "provider_timeout"
    policy = Policy(Again.NEVER, Next.YES, Outcome.FAULT)


class Late(ProviderError):
    status = 504
    type = "timeout_error"
    code = "provider_late"
    policy = Policy(Again.NEVER, Next.YES, Outcome.NEUTRAL)


class BadReply(ProviderError):
    code = "provider_bad_reply"
    policy = Policy(Again.NEVER, Next.YES, Outcome.FAULT)


class RunError(RouterError):
    """The whole walk ended without an answer."""

    def __init__(self, message: str, *, attempts: Sequence[Attempt] = (), **more: Any) -> None:
        super().__init__(message, **more)
        self.attempts = tuple(attempts)


class NoTarget(RunError):
    """Nobody could be asked: every target is excluded, parked, or its breaker is open."""

    status = 503
    type = "server_error"
    code = "no_target_available"

    def __init__(self, message: str, *, refused: Sequence[Refused] = (), **more: Any) -> None:
        super().__init__(message, **more)
        self.refused = tuple(refused)
        if refused and all(refusal.reason == "parked" for refusal in refused):
            self.status, self.type, self.code = 429, "rate_limit_error", "rate_limit_exceeded"


class AllFailed(RunError):
    """Every target that could be asked failed. Keeps every attempt, and takes the last error's status."""

    status = 502

    def __init__(self, last: ProviderError, *, attempts: Sequence[Attempt], retry_after: float | None = None) -> None:
        tried = ", ".join(f"{attempt.target} ({attempt.error})" for attempt in attempts)
        super().__init__(
            f"Every target that could be asked failed: {tried}.",
            attempts=attempts,
            status=last.status,
            code=last.code,
            retry_after=retry_after,
        )
        self.type = last.type
        self.last = last


class Misconfigured(RouterError):
    """The routes file is refused; `errors` lists every reason with its path."""

    status = 503
    code = "configuration_refused"

    def __init__(self, errors: Sequence[str]) -> None:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__(f"The router's configuration is refused ({count}); GET /health lists them.")
        self.errors = tuple(errors)


class CallerLeft(RouterError):
    """The caller hung up: the answer would reach nobody."""

    status = 499
    type = "caller_left"
