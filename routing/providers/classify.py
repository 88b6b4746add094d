"""A failed reply in OpenAI's shape, turned into the class of `errors` that says what to do about it.

The status decides; the error's `code` and `type` only where the status cannot tell. Messages are never looked into.
Sources: OpenAI "Error codes", Azure OpenAI "Content filtering", Anthropic "Errors".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from routing.errors import (
    BadReply,
    BadRequest,
    ContentRefused,
    ContextTooLong,
    NotFound,
    ProviderError,
    QuotaExhausted,
    Throttled,
    Unauthorized,
    Unavailable,
)

_CONTEXT_CODES = frozenset({"context_length_exceeded", "string_above_max_length", "max_tokens_exceeded"})
_CONTENT_CODES = frozenset(
    {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation", "ContentFiltered"}
)
_QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    }
)
_STATUS_OF_CODE: Mapping[str, int] = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "too_many_requests": 429,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
}
_EMPTY, _UNKNOWN = "The router's account at the provider is exhausted.", "The provider does not know the target's "
_PLAIN: Mapping[int, tuple[type[ProviderError], str]] = {
    401: (Unauthorized, "The provider refuses the router's key."),
    403: (Unauthorized, "The provider refuses the router's key."),
    402: (QuotaExhausted, _EMPTY),  # DeepSeek, OpenRouter and others
    404: (NotFound, _UNKNOWN + "model or deployment."),
    405: (NotFound, _UNKNOWN + "address."),
    408: (Unavailable, "The provider gave up waiting."),
    409: (Unavailable, "The provider is in conflict with itself."),
    410: (NotFound, "The provider has retired the target's model."),  # Azure
    424: (Unavailable, "The provider's own model failed."),  # Azure's deployments of other makers' models
    425: (Unavailable, "The provider is not ready yet."),
    498: (Unavailable, "The provider has no room left."),  # Groq
}


def error_object(body: bytes) -> Mapping[str, Any]:
    """The `error` object of a body; empty when there is none that can be read."""
    try:
        parsed = from_json(body)
    except ValueError:
        return {}
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]  # Gemini has a list of one around it
    if not isinstance(parsed, dict):
        return {}
    found = parsed.get("error", parsed if parsed.get("object") == "error" else None)  # vLLM had it without a wrapper
    if isinstance(found, str):
        return {"message": found}
    return found if isinstance(found, dict) else {}


def from_status(status: int, error: Mapping[str, Any], retry_after: float | None = None) -> ProviderError:
    """The class for a reply with `status` (not 200) and this `error` object; `retry_after` in seconds."""
    names = _names(error)
    if status == 429:
        if names & _QUOTA_CODES:
            return QuotaExhausted(_EMPTY)
        return Throttled("The provider is throttling.", retry_after=retry_after)
    if status in _PLAIN:
        kind, message = _PLAIN[status]
        return kind(message)
    if 400 <= status < 500:
        return _refused(status, error, names)
    if status < 400:
        return BadReply(f"The provider answered {status}, which is no answer.")
    return Unavailable(f"The provider answered {status}.", retry_after=retry_after)


def from_error_in_reply(error: Mapping[str, Any]) -> ProviderError:
    """The class for an error object inside a 200: its code stands in for the status."""
    code = error.get("code")
    if isinstance(code, str) and _STATUS.fullmatch(code):
        code = int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return from_status(code, error)
    for name in (code, error.get("type")):
        if isinstance(name, str) and name in _STATUS_OF_CODE:
            return from_status(_STATUS_OF_CODE[name], error)
    return Unavailable("The provider reported an error inside its reply.")


_STATUS = re.compile(r"[45][0-9]{2}")


def _names(error: Mapping[str, Any]) -> set[str]:
    """Everything by which an error calls itself; Azure says what its filter found in an inner error."""
    inner = error.get("innererror")
    given = (error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None)
    return {name for name in given if isinstance(name, str)}


def _refused(status: int, error: Mapping[str, Any], names: set[str]) -> ProviderError:
    kind: type[BadRequest] = BadRequest
    if names & _CONTENT_CODES:
        kind = ContentRefused
    elif names & _CONTEXT_CODES:
        kind = ContextTooLong
    status = status if status in (413, 422) and kind is BadRequest else 400
    refused = kind("The provider refuses the request.", status=status)
    refused.provider_body = error or None
    if isinstance(message := error.get("message"), str):
        refused.message = message
    return refused
