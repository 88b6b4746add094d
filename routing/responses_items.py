"""The pieces of a response: its items, its usage, and how it ended.

Source: OpenAI's reference of Responses, November 2026.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from routing.completions import Call
from routing.responses_content import sealed
from routing.types import Usage

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Ids:
    """Ids of one response's pieces: those of a kind differ in their last digits only."""

    def __init__(self) -> None:
        self._common, self._given = uuid.uuid4().hex, 0

    def new(self, kind: str) -> str:
        self._given += 1
        return f"{kind}_{self._common}{self._given:04x}"


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def refusal_part(refusal: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": refusal}


def summary_part(thought: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": thought}


def message_item(item_id: str, text: str, refusal: str, status: str = "completed") -> dict[str, Any]:
    content = [text_part(text)] if text or not refusal else []
    if refusal:
        content.append(refusal_part(refusal))
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def call_item(item_id: str, call: Call, status: str = "completed") -> dict[str, Any]:
    told = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
    return {"id": item_id, "type": "function_call", "status": status, **told}


def reasoning_item(item_id: str, thought: str, signed: Sequence[Any]) -> dict[str, Any]:
    """A thought, sealed so that the provider that had it gets it back, or nobody does."""
    summary = [summary_part(thought)] if thought else []
    return {"id": item_id, "type": "reasoning", "summary": summary, "encrypted_content": sealed(signed)}


def ended(finish: str | None, *, refused: bool) -> dict[str, Any]:
    """The fields of a response that say how it ended. A refusal that is put into words is an answer."""
    reason = None if refused else _INCOMPLETE.get(finish or "")
    if reason is None:
        return {"status": "completed", "incomplete_details": None}
    return {"status": "incomplete", "incomplete_details": {"reason": reason}}


def usage_object(usage: Usage | None, tokens: int) -> dict[str, Any]:
    """Without a count, `tokens` were said."""
    used = usage or Usage(output=tokens)
    return {
        "input_tokens": used.input,
        "input_tokens_details": {"cached_tokens": used.cached, "cache_write_tokens": used.cache_write},
        "output_tokens": used.output,
        "output_tokens_details": {"reasoning_tokens": used.reasoning},
        "total_tokens": used.input + used.output,
    }
