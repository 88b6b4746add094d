"""A Messages reply as a chat completion, and Messages errors as the classes of `errors`.

Sources: the Messages API reference ("Handling stop reasons", "Errors", "Rate limits"), as of November 2026.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic_core import to_json

from routing.errors import BadReply, ProviderError, QuotaExhausted
from routing.providers.classify import from_status
from routing.providers.http import passed_headers
from routing.providers.native import an_object, counted
from routing.types import Usage

THINKING = frozenset({"thinking", "redacted_thinking"})  # blocks that must come back unchanged with a tool's result
_FINISH: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",  # only tools that run at the provider pause a turn; `native_finish_reason` tells it apart
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STATUS_OF_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_SPENT = frozenset(
    {
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "linked_organization_billing_unavailable",
    }
)
_NO_EXPLANATION = "The model refuses to answer this request."


def from_error(error: Mapping[str, Any], status: int | None = None, retry_after: float | None = None) -> ProviderError:
    """The class for an `error` object; without `status` (in a stream) its type says which. `retry_after` in seconds.

    A prompt that is too long comes as an `invalid_request_error` that only its message tells apart: it is a BadRequest.
    """
    status = status or _STATUS_OF_TYPE.get(str(error.get("type")), 500)
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    if code in _SPENT:
        return QuotaExhausted("The router's account at the provider is exhausted.")
    return from_status(status, error, retry_after)


def completion(body: bytes) -> tuple[dict[str, Any], Usage, str]:
    """A whole reply as a chat completion, its usage and its model. Raises what an error in it means, or BadReply."""
    reply = an_object(body)
    if reply.get("type") == "error":
        raise from_error(member(reply, "error"))
    counts = member(reply, "usage")
    with counted(lambda: usage_of(counts)):
        reason, head = text(reply, "stop_reason"), completion_head(reply, "chat.completion")
        choice = {"index": 0, "message": _message(reply, reason), "logprobs": None, **finish(reason)}
    return head | {"choices": [choice], "usage": usage_object(counts)}, usage_of(counts), head["model"]


def completion_head(message: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The fields before `choices`, of a completion or of each of its chunks."""
    return {"id": text(message, "id"), "object": kind, "created": int(time.time()), "model": text(message, "model")}


def finish(reason: str) -> dict[str, Any]:
    """The fields of a choice that say why it ended; a reason from the future is an ordinary end."""
    return {"finish_reason": _FINISH.get(reason, "stop"), "native_finish_reason": reason}


def refusal_text(ended: Mapping[str, Any]) -> str:
    """The explanation of a refusal, from the object that holds its `stop_reason`."""
    details = ended.get("stop_details")
    explanation = details.get("explanation") if isinstance(details, dict) else None
    return explanation if isinstance(explanation, str) and explanation else _NO_EXPLANATION


def call_object(block: Mapping[str, Any], arguments: str) -> dict[str, Any]:
    """A `tool_use` block as a tool call. `arguments` is JSON."""
    function = {"name": text(block, "name"), "arguments": arguments}
    return {"id": text(block, "id"), "type": "function", "function": function}


def usage_object(counts: Mapping[str, Any]) -> dict[str, Any]:
    """A Messages `usage` as a chat completion's: input that was read from or written to the cache counts as prompt."""
    usage = usage_of(counts)
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """A Messages `usage` as the router counts."""
    cached = _count(counts, "cache_read_input_tokens")
    details = counts.get("output_tokens_details")
    return Usage(
        input=_count(counts, "input_tokens") + cached + _count(counts, "cache_creation_input_tokens"),
        output=_count(counts, "output_tokens"),
        cached=cached,
        reasoning=_count(details, "thinking_tokens") if isinstance(details, dict) else 0,
        cache_write=_count(counts, "cache_creation_input_tokens"),
    )


def member(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object within an object. Raises BadReply."""
    found = fields.get(name)
    if not isinstance(found, dict):
        raise BadReply(f"The provider's reply lacks {name}.")
    return found


def text(fields: Mapping[str, Any], name: str) -> str:
    """A text within an object. Raises BadReply."""
    found = fields.get(name)
    if not isinstance(found, str):
        raise BadReply(f"The provider's reply lacks {name}.")
    return found


def reply_headers(headers: httpx.Headers) -> dict[str, str]:
    """What of the provider's headers the caller gets to see, its rate limits under OpenAI's names."""
    return dict(_rate_limits(headers)) | passed_headers(headers)


def _rate_limits(headers: httpx.Headers) -> Iterator[tuple[str, str]]:
    for what in ("requests", "tokens"):
        for kind in ("limit", "remaining"):
            if value := headers.get(f"anthropic-ratelimit-{what}-{kind}"):
                yield f"x-ratelimit-{kind}-{what}", value
        if wait := _wait(headers.get(f"anthropic-ratelimit-{what}-reset"), headers.get("date")):
            yield f"x-ratelimit-reset-{what}", wait


def _wait(moment: str | None, now: str | None) -> str | None:
    """From one moment of the provider's clock (RFC 3339) to another (HTTP date), as OpenAI writes it: `12s`."""
    if moment is None or now is None:
        return None
    try:
        seconds = (datetime.fromisoformat(moment) - parsedate_to_datetime(now)).total_seconds()
    except (TypeError, ValueError):
        return None
    return f"{max(0.0, seconds):.0f}s"


def _message(reply: Mapping[str, Any], reason: str) -> dict[str, Any]:
    blocks = _blocks(reply)
    said = "".join(text(block, "text") for block in blocks if block["type"] == "text")
    calls = [call_object(block, _arguments(block)) for block in blocks if block["type"] == "tool_use"]
    message: dict[str, Any] = {"role": "assistant", "content": said or (None if calls or reason == "refusal" else "")}
    message["refusal"] = refusal_text(reply) if reason == "refusal" else None
    if calls:
        message["tool_calls"] = calls
    if thoughts := [block for block in blocks if block["type"] in THINKING]:
        message["thinking_blocks"] = thoughts
        if thought := "".join(str(block.get("thinking", "")) for block in thoughts):
            message["reasoning_content"] = thought
    return message


def _blocks(reply: Mapping[str, Any]) -> list[dict[str, Any]]:
    blocks = reply.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise BadReply("The provider's reply holds no content.")
    for block in blocks:
        text(block, "type")
    return blocks


def _arguments(block: Mapping[str, Any]) -> str:
    return to_json(member(block, "input")).decode()


def _count(counts: Mapping[str, Any], name: str) -> int:
    value = counts.get(name)
    return value if isinstance(value, int) and value > 0 else 0
