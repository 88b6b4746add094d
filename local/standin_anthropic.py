"""Anthropic's Messages API: its own wire format, not an imitation of OpenAI's."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from local.standin_answers import Call, Said, content_text, fragments, last_user_text, prompt_tokens, say
from local.standin_anthropic_requests import (
    VERSIONS,
    blocks_of,
    checked,
    invalid,
    signature,
    turns_of,
)
from local.standin_anthropic_shape import Countable, Request
from local.standin_behaviour import Behaviour, Fault
from local.standin_wire import Answer, Asked, Operation, Refusal, Stream, Whole, encode

# What a user may say to get an end that a stand-in would not find by itself: word -> stop_reason.
ENDINGS: Mapping[str, str] = {
    "BLOCK_ANSWER": "refusal",
    "PAUSE_TURN": "pause_turn",
    "FILL_CONTEXT": "model_context_window_exceeded",
}
REDACT_THINKING = "REDACT_THINKING"  # in a message: what is thought comes encrypted
EXPLANATION = "This request was refused by the stand-in's policy."
_THOUGHT = "The user wants an answer, so I shall give one."
_STOP_REASON = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_TYPE_OF_STATUS: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Anthropic:
    """`POST /v1/messages`, streamed and not, `POST /v1/messages/count_tokens`, and the models."""

    @property
    def kind(self) -> str:
        return "anthropic"

    def operations(self) -> tuple[tuple[str, str, Operation], ...]:
        """The endpoints under /v1."""
        return (
            ("POST", "/v1/messages", self.messages),
            ("POST", "/v1/messages/count_tokens", self.count_tokens),
            ("GET", "/v1/models", self.models),
        )

    def headers(self, asked: Asked) -> Mapping[str, str]:
        """Request id and rate limits, plainly counted down from a round number."""
        now = datetime.now(UTC).replace(microsecond=0)
        reset = (now + timedelta(seconds=12)).isoformat().replace("+00:00", "Z")
        left = max(0, 4_000 - asked.number)
        limits = {"requests": (4_000, left), "tokens": (2_400_000, left * 600)}
        counted = {
            f"anthropic-ratelimit-{what}-{name}": str(value)
            for what, (limit, remaining) in limits.items()
            for name, value in (("limit", limit), ("remaining", remaining), ("reset", reset))
        }
        known = {"request-id": f"req_{asked.number:024d}", "anthropic-organization-id": "standin"}
        return {"date": format_datetime(now, usegmt=True), **known, **counted}

    def refuse(self, refusal: Refusal) -> Whole:
        """`{"type": "error", "error": {"type", "message"}, "request_id"}`, the id being the header's."""
        known = {"request-id": f"req_{uuid.uuid4().hex[:24]}"}
        body = {"type": "error", "error": self._error(refusal), "request_id": known["request-id"]}
        return Whole(refusal.status, encode(body), {**known, **refusal.headers})

    def error_event(self, refusal: Refusal) -> bytes:
        """The same as an `error` event."""
        return _event({"type": "error", "error": self._error(refusal)})

    def fault(self, fault: Fault) -> Refusal:
        """What Anthropic answers when it is ill, busy, unpaid or asked too much."""
        refusal = _FAULTS.get(fault.kind, _ill)(fault)
        refusal.message, refusal.code = fault.message or refusal.message, fault.code or refusal.code
        return refusal

    def messages(self, asked: Asked, behaviour: Behaviour) -> Answer:
        """Answers a request. Raises Refusal."""
        _authorize(asked, behaviour)
        request = checked(asked, Request)
        _served(request["model"], behaviour)
        reply = _reply(asked, request, behaviour)
        return reply.streamed() if request.get("stream") else reply.whole()

    def count_tokens(self, asked: Asked, behaviour: Behaviour) -> Answer:
        """How many tokens a request would read. Raises Refusal."""
        _authorize(asked, behaviour)
        request = checked(asked, Countable)
        _served(request["model"], behaviour)
        return Whole(200, encode({"input_tokens": prompt_tokens(_as_chat(request)["messages"])}))

    def models(self, asked: Asked, behaviour: Behaviour) -> Answer:
        """The list of models, one called "stand-in" when any name is served. Raises Refusal."""
        _authorize(asked, behaviour)
        names = behaviour.models or ("stand-in",)
        since = "2026-01-01T00:00:00Z"
        data = [{"type": "model", "id": name, "display_name": name, "created_at": since} for name in names]
        return Whole(200, encode({"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}))

    def _error(self, refusal: Refusal) -> dict[str, Any]:
        type_ = _TYPE_OF_STATUS.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "api_error")
        details = {"details": {"error_code": refusal.code}} if refusal.code else {}
        return {"type": type_, "message": refusal.message, **details}


@dataclass(frozen=True, slots=True)
class _Reply:
    """A message before it is written down."""

    id: str
    model: str
    content: tuple[dict[str, Any], ...]
    ended: Mapping[str, Any]  # stop_reason, stop_sequence, stop_details
    read: Mapping[str, Any]  # the usage of what was read
    written: int  # tokens
    thought: int  # of these

    def whole(self) -> Whole:
        """In one piece."""
        message = {**self._head(), "content": self.content, **self.ended, "usage": {**self.read, **self._spent()}}
        return Whole(200, encode(message), tokens=self.written)

    def streamed(self) -> Stream:
        """As events: the first block begins before the `ping`, as at the real one."""
        nothing = {"stop_reason": None, "stop_sequence": None, "stop_details": None}
        usage = {**self.read, "output_tokens": 1, "service_tier": "standard"}
        start = {"type": "message_start", "message": {**self._head(), "content": [], **nothing, "usage": usage}}
        events = [_event(event) for event in self._block_events()]
        end = {"type": "message_delta", "delta": dict(self.ended), "usage": {**self.read, **self._spent()}}
        opening = (_event(start), *events[:1], _event({"type": "ping"}))
        return Stream(opening, tuple(events[1:]), (_event(end), _event({"type": "message_stop"})))

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.model}

    def _spent(self) -> dict[str, Any]:
        return {"output_tokens": self.written, "output_tokens_details": {"thinking_tokens": self.thought}}

    def _block_events(self) -> Iterator[dict[str, Any]]:
        for index, block in enumerate(self.content):
            yield {"type": "content_block_start", "index": index, "content_block": _beginning(block)}
            for delta in _deltas(block):
                yield {"type": "content_block_delta", "index": index, "delta": delta}
            yield {"type": "content_block_stop", "index": index}


def _beginning(block: Mapping[str, Any]) -> dict[str, Any]:
    empty: dict[str, dict[str, Any]] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    return {**block, **empty.get(block["type"], {})}


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": token} for token in fragments(block["text"]))
    elif block["type"] == "thinking":
        yield from ({"type": "thinking_delta", "thinking": token} for token in fragments(block["thinking"]))
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif block["type"] == "tool_use":
        written = json.dumps(block["input"]) if block["input"] else ""
        yield from ({"type": "input_json_delta", "partial_json": part} for part in ("", *fragments(written)))


def _reply(asked: Asked, request: Mapping[str, Any], behaviour: Behaviour) -> _Reply:
    chat = _as_chat(request)
    said = say(asked.standin, request["model"], chat, behaviour)
    thoughts = tuple(_thoughts(request, chat, behaviour))
    content, ended = _content(asked, request, said, last_user_text(chat["messages"]))
    thought = behaviour.reasoning_tokens or len(fragments(_THOUGHT)) * len(thoughts)
    read = _read(request, prompt_tokens(chat["messages"]), behaviour)
    number = f"msg_{asked.number:024d}"
    return _Reply(number, request["model"], thoughts + content, ended, read, said.length + thought, thought)


def _thoughts(request: Mapping[str, Any], chat: Mapping[str, Any], behaviour: Behaviour) -> Iterator[dict[str, Any]]:
    """A thought where the request asks for it, or the behaviour does: some models think unasked."""
    asked = (request.get("thinking") or {}).get("type")
    if asked not in ("enabled", "adaptive") and not behaviour.reasoning_tokens:
        return
    if REDACT_THINKING in last_user_text(chat["messages"]):
        yield {"type": "redacted_thinking", "data": base64.b64encode(_THOUGHT.encode()).decode()}
    else:
        yield {"type": "thinking", "thinking": _THOUGHT, "signature": signature(_THOUGHT)}


def _content(
    asked: Asked, request: Mapping[str, Any], said: Said, heard: str
) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """The blocks after the thoughts, and why they end."""
    ended: dict[str, Any] = {"stop_reason": _STOP_REASON[said.finish], "stop_sequence": None, "stop_details": None}
    if said.calls:
        return tuple(_tool_use(asked, place, call) for place, call in enumerate(said.calls)), ended
    text = "".join(said.tokens)
    if word := next((word for word in ENDINGS if word in heard), None):
        ended["stop_reason"] = ENDINGS[word]
    if ended["stop_reason"] == "refusal":
        ended["stop_details"] = {"type": "refusal", "category": "general_harms", "explanation": EXPLANATION}
        return (), ended
    for stop in request.get("stop_sequences") or ():
        if stop in text:
            text = text[: text.index(stop)]
            ended |= {"stop_reason": "stop_sequence", "stop_sequence": stop}
    return ({"type": "text", "text": text},) if text else (), ended


def _tool_use(asked: Asked, place: int, call: Call) -> dict[str, Any]:
    id_ = f"toolu_{asked.number:012d}{place:012d}"
    return {"type": "tool_use", "id": id_, "name": call.name, "input": json.loads(call.arguments)}


def _read(request: Mapping[str, Any], tokens: int, behaviour: Behaviour) -> dict[str, Any]:
    """Input usage: where the request marks something for the cache, half of it is written there."""
    created = tokens // 2 if b'"cache_control"' in encode(request) else 0
    return {
        "input_tokens": tokens - created,
        "cache_creation_input_tokens": created,
        "cache_read_input_tokens": behaviour.cached_tokens,
    }


def _as_chat(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request as a chat completion, which is what a stand-in knows how to answer."""
    system = [{"role": "system", "content": blocks_of(request["system"])}] if request.get("system") else []
    tools = [
        {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}}
        for tool in request.get("tools") or ()
    ]
    choice = request.get("tool_choice") or {"type": "auto"}
    chat: dict[str, Any] = {"messages": [*system, *map(_as_chat_message, turns_of(request))], "tools": tools}
    chat["tool_choice"] = {"any": "required", "tool": {"function": choice}}.get(choice["type"], choice["type"])
    chat["parallel_tool_calls"] = not choice.get("disable_parallel_tool_use")
    if wanted := (request.get("output_config") or {}).get("format"):
        chat["response_format"] = {"type": "json_schema", "json_schema": {"schema": wanted["schema"]}}
    return chat | {"max_tokens": request.get("max_tokens")}


def _as_chat_message(turn: tuple[str, list[Mapping[str, Any]]]) -> dict[str, Any]:
    role, blocks = turn
    results = [block for block in blocks if block["type"] == "tool_result"]
    if results and len(results) == len(blocks):
        return {"role": "tool", "content": " ".join(content_text(result.get("content")) for result in results)}
    return {"role": role, "content": blocks}


def _authorize(asked: Asked, behaviour: Behaviour) -> None:
    """Takes a key in `x-api-key` or as Bearer, and wants to know the version. Raises Refusal (401, 400)."""
    key = asked.headers.get("x-api-key") or asked.headers.get("authorization", "").removeprefix("Bearer ")
    if not key:
        raise Refusal(401, "x-api-key header is required")
    if behaviour.keys and key not in behaviour.keys:
        raise _unauthorized(Fault("unauthorized"))
    version = asked.headers.get("anthropic-version")
    if version is None:
        raise invalid("anthropic-version: header is required")
    if version not in VERSIONS:
        raise invalid(f'anthropic-version: "{version}" is not a valid version')


def _served(model: str, behaviour: Behaviour) -> None:
    if behaviour.models and model not in behaviour.models:
        raise Refusal(404, f"model: {model}")


def _event(document: Mapping[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (str(document["type"]).encode(), encode(document))


def _ill(fault: Fault) -> Refusal:
    message = "Overloaded" if fault.status == 529 else f"The stand-in was told to answer {fault.status}."
    return Refusal(fault.status, message, headers=_waits(fault))


def _rate_limited(fault: Fault) -> Refusal:
    return Refusal(429, "This request would exceed your organization's rate limit.", headers=_waits(fault))


def _spent(fault: Fault) -> Refusal:
    return Refusal(429, "You have reached your API usage limits.", code="enforced_spend_limit_reached")


def _unauthorized(fault: Fault) -> Refusal:
    return Refusal(401, "invalid x-api-key")


def _blocked(fault: Fault) -> Refusal:
    return Refusal(400, "Output blocked by content filtering policy")


def _too_long(fault: Fault) -> Refusal:
    return Refusal(400, "prompt is too long: 210000 tokens > 200000 maximum")


def _waits(fault: Fault) -> dict[str, str]:
    """This provider knows no milliseconds."""
    return {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:.10g}"}


_FAULTS = {
    "rate_limited": _rate_limited,
    "insufficient_quota": _spent,
    "unauthorized": _unauthorized,
    "content_filter": _blocked,
    "context_length_exceeded": _too_long,
}
