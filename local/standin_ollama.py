"""Ollama's imitation of OpenAI's wire format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from local.standin_behaviour import Behaviour
from local.standin_openai import OpenAI
from local.standin_wire import Asked, Refusal


class Ollama(OpenAI):
    """Ollama under /v1: any key or none, one choice, the role in every chunk, tool calls in one piece."""

    kind: ClassVar[str] = "ollama"
    fingerprint: ClassVar[str] = "fp_ollama"
    role_each_chunk: ClassVar[bool] = True
    whole_calls: ClassVar[bool] = True
    usage_details: ClassVar[bool] = False
    several_choices: ClassVar[bool] = False

    def headers(self, asked: Asked) -> Mapping[str, str]:
        """None of its own."""
        return {}

    def authorize(self, asked: Asked, behaviour: Behaviour) -> None:
        """Lets everybody in."""

    def no_such_model(self, model: str) -> Refusal:
        """404 in its own words."""
        return Refusal(404, f"model '{model}' not found", type="not_found_error")

    def error(self, refusal: Refusal) -> dict[str, Any]:
        """Its types follow the status; `param` and `code` stay null."""
        type_ = {400: "invalid_request_error", 404: "not_found_error"}.get(refusal.status, "api_error")
        return {"message": refusal.message, "type": type_, "param": None, "code": None}
