"""OpenAI's Responses API as callers speak it: responses, errors, and what goes to a provider that speaks it too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic_core import to_json

from routing.completions import Calls, said_in_whole
from routing.dialects import Foreign, Translation
from routing.errors import RouterError
from routing.providers.base import Protocol, Reply, Stream
from routing.responses_content import opened
from routing.responses_items import Ids, call_item, ended, message_item, reasoning_item, usage_object
from routing.responses_stream import ResponseEvents, Watched

_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}  # field of the request that its response repeats -> what is said where there is none


class Responses(Foreign):
    """One request to `POST /v1/responses`."""

    protocol: ClassVar[Protocol | None] = "responses"
    limit: ClassVar[str] = "max_output_tokens"
    name: ClassVar[str] = "OpenAI's Responses"
    names: ClassVar[Mapping[str, str]] = {
        "max_completion_tokens": "max_output_tokens",
        "reasoning_effort": "reasoning.effort",
        "response_format": "text.format",
        "verbosity": "text.verbosity",
    }

    def reply(self, reply: Reply) -> bytes:
        ids = Ids()
        _, said = said_in_whole(reply.body)
        calls = Calls()
        output = [reasoning_item(ids.new("rs"), said.thought, said.signed)] if said.thought or said.signed else []
        if said.text or said.refusal or not said.calls:
            output.append(message_item(ids.new("msg"), said.text, said.refusal))
        output += [call_item(ids.new("fc"), call) for call in [calls.take(fragment)[0] for fragment in said.calls]]
        head = self._head(ids.new("resp"), reply.model or "", int(time.time()))
        end = {**ended(said.finish, refused=bool(said.refusal)), "completed_at": int(time.time())}
        return to_json({**head, **end, "output": output, "usage": usage_object(reply.usage, 0)})

    def translation(self) -> Translation:
        ids = Ids()
        response_id = ids.new("resp")
        return ResponseEvents(ids, lambda model: self._head(response_id, model, int(time.time())))

    def watched(self, stream: Stream) -> Stream:
        return Watched(stream)

    def untouched(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Thoughts that this router gave out are known to nobody else."""
        kept = super().untouched(fields)
        if isinstance(given := kept.get("input"), list):
            kept["input"] = [item for item in given if item.get("type") != "reasoning" or opened(item) is None]
        return kept

    def error_event(
        self, error: RouterError, request_id: str, *, delivered: int, stream: Stream | None = None
    ) -> bytes:
        """An `error` event, which OpenAI's clients raise, and the failure of the response if that had begun."""
        told = error.body()["error"]
        response, number = _so_far(stream)
        named = {name: told.get(name) for name in ("code", "message", "param")}
        about = {"request_id": request_id, "delivered_tokens": delivered}
        events = [{"type": "error", **named, "error": told, "sequence_number": number, **about}]
        if response:
            failure = {"code": "server_error", "message": told.get("message")}
            failed = {**response, "status": "failed", "error": failure}
            events.append({"type": "response.failed", "response": failed, "sequence_number": number + 1})
        return b"".join(b"event: %s\ndata: %s\n\n" % (str(one["type"]).encode(), to_json(one)) for one in events)

    def _head(self, response_id: str, model: str, now: int) -> dict[str, Any]:
        """A response that has just begun."""
        asked = {name: self._fields[name] for name in _ECHOED if self._fields.get(name) is not None}
        reasoning = {"effort": None, "summary": None, **(self._fields.get("reasoning") or {})}
        return {
            "id": response_id,
            "object": "response",
            "created_at": now,
            "status": "in_progress",
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            "previous_response_id": None,
            "reasoning": reasoning,
            "store": False,
            "usage": None,
            **_ECHOED,
            **asked,
        }


def _so_far(stream: Stream | None) -> tuple[dict[str, Any] | None, int]:
    """The response that a stream has begun, and the number of its next event."""
    if isinstance(stream, Watched):
        return stream.response, stream.number
    translation = getattr(stream, "translation", None)
    if isinstance(translation, ResponseEvents):
        return translation.response, translation.number
    return None, 0
