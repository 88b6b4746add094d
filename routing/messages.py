"""Anthropic's Messages API as callers speak it: replies, errors, and what goes to a provider that speaks it too.

Sources: the Messages API reference ("Errors", "Handling stop reasons"), November 2026.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic_core import from_json, to_json

from routing.completions import Calls, Said, said_in_whole
from routing.dialects import Dialect, Foreign, Translation
from routing.errors import BadReply, BadRequest, RouterError
from routing.messages_content import UNSIGNED
from routing.messages_stream import MessageEvents, stop, usage_object
from routing.providers.base import Protocol, Reply, Stream

_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class MessagesErrors(Dialect):
    """How errors are told to clients of Messages, also before their request could be read."""

    def error_body(self, error: RouterError, request_id: str) -> dict[str, Any]:
        return error_body(error, request_id)

    def error_event(
        self, error: RouterError, request_id: str, *, delivered: int, stream: Stream | None = None
    ) -> bytes:
        body = {**error_body(error, request_id), "delivered_tokens": delivered}
        return b"event: error\ndata: " + to_json(body) + b"\n\n"


class Messages(MessagesErrors, Foreign):
    """One request to `POST /v1/messages`."""

    protocol: ClassVar[Protocol | None] = "messages"
    keepalive: ClassVar[bytes] = b'event: ping\ndata: {"type": "ping"}\n\n'
    limit: ClassVar[str] = "max_tokens"
    name: ClassVar[str] = "Anthropic's Messages"
    names: ClassVar[Mapping[str, str]] = {
        "max_completion_tokens": "max_tokens",
        "parallel_tool_calls": "tool_choice",
        "reasoning_effort": "output_config.effort",
        "response_format": "output_config.format",
        "stop": "stop_sequences",
        "user": "metadata.user_id",
    }

    def reply(self, reply: Reply) -> bytes:
        _, said = said_in_whole(reply.body)
        content = list(_content(said, thinking=self._thinking))
        ended = stop(said.finish or "", said.refusal, called=bool(said.calls))
        head = {"id": message_id(), "type": "message", "role": "assistant", "model": reply.model or ""}
        return to_json({**head, "content": content, **ended, "usage": usage_object(reply.usage, 0)})

    def translation(self) -> Translation:
        return MessageEvents(message_id(), thinking=self._thinking)

    @property
    def _thinking(self) -> bool:
        """Whether the caller expects thoughts: who does not, takes the first block for the answer."""
        return (self._fields.get("thinking") or {}).get("type") in ("enabled", "adaptive")

    def untouched(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Thoughts of models elsewhere, which only this router gave out, would be refused for their signature."""
        kept = super().untouched(fields)
        if any(_has_unsigned(message) for message in kept["messages"]):
            kept["messages"] = [_signed_only(message) for message in kept["messages"]]
        return kept


class TokenCount(Messages):
    """One request to `POST /v1/messages/count_tokens`."""

    protocol: ClassVar[Protocol | None] = "count_tokens"


def error_body(error: RouterError, request_id: str) -> dict[str, Any]:
    """The error in Anthropic's shape. Its own errors about the request itself keep their words and details."""
    told: dict[str, Any] = error.body()["error"]
    details = told.get("details") or {name: told[name] for name in ("code", "param") if told.get(name)}
    if isinstance(details, dict) and isinstance(code := details.pop("code", None), str):
        details = {"error_code": code, **details}
    native = isinstance(error, BadRequest) and error.provider_body and told.get("type") in _TYPES.values()
    status = error.status
    kind = told["type"] if native else _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    body = {"type": kind, "message": told.get("message") or error.message}
    return {"type": "error", "error": body | ({"details": details} if details else {}), "request_id": request_id}


def message_id() -> str:
    return f"msg_{uuid.uuid4().hex[:24]}"


def _content(said: Said, *, thinking: bool) -> Iterator[dict[str, Any]]:
    if said.thought and thinking:
        yield {"type": "thinking", "thinking": said.thought, "signature": UNSIGNED}
    if said.text:
        yield {"type": "text", "text": said.text}
    calls = Calls()
    for fragment in said.calls:
        call, _ = calls.take(fragment)
        try:
            given = from_json(call.arguments or "{}")
        except ValueError:
            given = None
        if isinstance(given, dict):
            yield {"type": "tool_use", "id": call.id, "name": call.name, "input": given}
        elif said.finish != "length":  # else it was cut, and its caller is told so
            raise BadReply("The provider calls a tool with arguments that are no JSON object.")


def _has_unsigned(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(block.get("signature") == UNSIGNED for block in content)


def _signed_only(message: Mapping[str, Any]) -> dict[str, Any]:
    if not _has_unsigned(message):
        return dict(message)
    kept = [block for block in message["content"] if block.get("signature") != UNSIGNED]
    return {**message, "content": kept}
