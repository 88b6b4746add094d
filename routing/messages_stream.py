"""Chat completion chunks as Messages events.

Blocks of a message are written one after another, so while a tool call is open whatever else comes has to wait for it.
Sources: "Streaming messages" in Anthropic's documentation, November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from routing.completions import Call, Calls, Said
from routing.dialects import Translation
from routing.messages_content import UNSIGNED
from routing.types import Usage

_STOP_REASONS: Mapping[str, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_NO_EXPLANATION = "The answer was withheld by the provider's content filter."


@dataclass(slots=True)
class _Block:
    """A content block: how it begins, and the pieces that wait for their turn."""

    start: dict[str, Any]
    call: Call | None = None
    waiting: list[dict[str, Any]] = field(default_factory=list)


class MessageEvents(Translation):
    """One message on its way. The first of `blocks` is being written."""

    def __init__(self, message_id: str, *, thinking: bool) -> None:
        super().__init__()
        self._id, self._thinking = message_id, thinking
        self._index = 0  # of the block that is being written
        self._blocks: list[_Block] = []
        self._calls = Calls()
        self._called = False
        self._finish = ""
        self._refusal: list[str] = []

    def begin(self, model: str) -> None:
        head = {"id": self._id, "type": "message", "role": "assistant", "model": model, "content": []}
        nothing = {"stop_reason": None, "stop_sequence": None, "stop_details": None}
        self.event({"type": "message_start", "message": {**head, **nothing, "usage": usage_object(None, 0)}})

    def say(self, said: Said) -> None:
        if said.thought and self._thinking:
            self._add("thinking", {"type": "thinking_delta", "thinking": said.thought})
        if said.text:
            self._add("text", {"type": "text_delta", "text": said.text})
        for fragment in said.calls:
            call, new = self._calls.take(fragment)
            if new:
                self._called = True
                self._open(_Block({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}, call))
            if fragment.arguments:
                block = next(block for block in self._blocks if block.call is call)
                self._write(block, {"type": "input_json_delta", "partial_json": fragment.arguments})
        self._refusal.append(said.refusal)
        self._finish = said.finish or self._finish

    def end(self, usage: Usage | None, tokens: int) -> None:
        while self._blocks:
            self._close()
        ended = stop(self._finish, "".join(self._refusal), called=self._called)
        self.event({"type": "message_delta", "delta": ended, "usage": usage_object(usage, tokens)})
        self.event({"type": "message_stop"})

    def _add(self, kind: str, delta: dict[str, Any]) -> None:
        """To the last block when it is of that kind, else to a new one."""
        if not self._blocks or self._blocks[-1].start["type"] != kind:
            empty = {"thinking": "", "signature": ""} if kind == "thinking" else {"text": ""}
            self._open(_Block({"type": kind, **empty}))
        self._write(self._blocks[-1], delta)

    def _open(self, block: _Block) -> None:
        """Its turn is now, unless a tool call is being written, whose end nothing but the message's tells."""
        if self._blocks and self._blocks[0].call is None:
            self._close()
        self._blocks.append(block)
        if len(self._blocks) == 1:
            self._begin(block)

    def _write(self, block: _Block, delta: dict[str, Any]) -> None:
        if block is self._blocks[0]:
            self.event({"type": "content_block_delta", "index": self._index, "delta": delta})
        else:
            block.waiting.append(delta)

    def _begin(self, block: _Block) -> None:
        self.event({"type": "content_block_start", "index": self._index, "content_block": block.start})
        for delta in block.waiting:
            self.event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> None:
        """Ends the block that is being written, and begins the next."""
        block = self._blocks.pop(0)
        if block.start["type"] == "thinking":
            signature = {"type": "signature_delta", "signature": UNSIGNED}
            self.event({"type": "content_block_delta", "index": self._index, "delta": signature})
        self.event({"type": "content_block_stop", "index": self._index})
        self._index += 1
        if self._blocks:
            self._begin(self._blocks[0])


def stop(finish: str, refusal: str, *, called: bool) -> dict[str, Any]:
    """The fields of a message that say why it ended. Some providers end calls of tools with a plain `stop`."""
    refused = bool(refusal) or finish == "content_filter"
    reason = "refusal" if refused else _STOP_REASONS.get("tool_calls" if called and finish == "stop" else finish)
    explanation = {"type": "refusal", "category": None, "explanation": refusal or _NO_EXPLANATION}
    details = explanation if refused else None
    return {"stop_reason": reason or "end_turn", "stop_sequence": None, "stop_details": details}


def usage_object(usage: Usage | None, tokens: int) -> dict[str, Any]:
    """Anthropic counts what was read from and written to the cache apart. Without a count, `tokens` were said."""
    used = usage or Usage(output=tokens)
    counts: dict[str, Any] = {
        "input_tokens": max(0, used.input - used.cached - used.cache_write),
        "cache_creation_input_tokens": used.cache_write,
        "cache_read_input_tokens": used.cached,
        "output_tokens": used.output,
    }
    return counts | ({"output_tokens_details": {"thinking_tokens": used.reasoning}} if used.reasoning else {})
