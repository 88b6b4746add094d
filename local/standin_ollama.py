"""Ollama's imitation of OpenAI's wire format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from local.standin_behaviour import Behaviour
from local.standin_openai import OpenAI
from local.standin_wire import Asked, Refusal

_HEEDED = """
frequency_penalty logprobs max_tokens messages model presence_penalty reasoning reasoning_effort response_format seed
stop stream stream_options temperature tools top_logprobs top_p
"""
_FIELDS = frozenset(_HEEDED.split())


class Ollama(OpenAI):
    """Ollama under /v1: any key or none, one choice, the role in every chunk, tool calls in one piece.

    Fields that it does not know, and messages of roles that its models do not know, are overlooked without a word.
    """

    kind: ClassVar[str] = "ollama"
    fingerprint: ClassVar[str] = "fp_ollama"
    role_each_chunk: ClassVar[bool] = True
    whole_calls: ClassVar[bool] = True
    usage_details: ClassVar[bool] = False
    several_choices: ClassVar[bool] = False

    def headers(self, asked: Asked) -> Mapping[str, str]:
        """None of its own."""
        return {}

    def heeded(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """What of the request reaches the model."""
        messages = [message for message in request["messages"] if message["role"] != "developer"]
        known = {name: value for name, value in request.items() if name in _FIELDS}
        return known | {"messages": messages or [{"role": "user", "content": ""}]}

    def authorize(self, asked: Asked, behaviour: Behaviour) -> None:
        """Lets everybody in."""

    def no_such_model(self, model: str) -> Refusal:
        """404 in its own words."""
        return Refusal(404, f"model '{model}' not found", type="not_found_error")

    def error(self, refusal: Refusal) -> dict[str, Any]:
        """Its types follow the status; `param` and `code` stay null."""
        type_ = {400: "invalid_request_error", 404: "not_found_error"}.get(refusal.status, "api_error")
        return {"message": refusal.message, "type": type_, "param": None, "code": None}
