"""What the router reads in a Messages answer that goes to the caller as it came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routing.errors import BadReply
from routing.providers.anthropic_reply import from_error, member, text, usage_of
from routing.providers.native import Seen, an_object, counted
from routing.types import Usage

_SAID = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_BEGINS_EMPTY = frozenset({"text", "thinking"})  # blocks that say nothing before their first delta


def read_message(body: bytes) -> tuple[Usage, str]:
    """The usage and the model of a whole message. Raises what an error in it means, or BadReply."""
    message = an_object(body)
    if message.get("type") == "error":
        raise from_error(member(message, "error"))
    usage = usage_of(member(message, "usage"))
    with counted(lambda: usage):
        if not isinstance(message.get("content"), list):
            raise BadReply("The provider's reply holds no content.")
        text(message, "stop_reason")
        return usage, text(message, "model")


def read_count(body: bytes) -> None:
    """Raises what an error in a count of tokens means, or BadReply."""
    count = an_object(body)
    if count.get("type") == "error":
        raise from_error(member(count, "error"))
    if not isinstance(count.get("input_tokens"), int):
        raise BadReply("The provider's reply holds no count.")


class MessagesWatch:
    """Follows the events of one message."""

    def __init__(self) -> None:
        self._begun = self._finished = False
        self._counts: dict[str, Any] = {}

    def __call__(self, event: Mapping[str, Any]) -> Seen:
        """Raises what an `error` event means, and BadReply for events that make no message."""
        match event.get("type"):
            case "error":
                raise from_error(member(event, "error"))
            case "message_start":
                message = member(event, "message")
                self._begun, self._counts = True, member(message, "usage")
                return Seen(model=text(message, "model"))
            case "content_block_start":
                return Seen(meaningful=text(member(event, "content_block"), "type") not in _BEGINS_EMPTY)
            case "content_block_delta":
                said = _says_something(member(event, "delta"))
                return Seen(meaningful=said, tokens=int(said))
            case "message_delta":
                return self._delta(event)
            case "message_stop":
                if not (self._begun and self._finished):
                    raise BadReply("The provider's stream ended before the answer did.")
                return Seen(last=True)
            case _:
                return Seen()

    def _delta(self, event: Mapping[str, Any]) -> Seen:
        told = event.get("usage") and member(event, "usage")
        self._counts |= {name: count for name, count in (told or {}).items() if count is not None}
        if not member(event, "delta").get("stop_reason"):
            return Seen()
        self._finished = True
        return Seen(meaningful=True, usage=usage_of(self._counts))


def _says_something(delta: Mapping[str, Any]) -> bool:
    return bool(delta.get(_SAID.get(str(delta.get("type")), "")))
