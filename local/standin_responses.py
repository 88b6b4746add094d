"""OpenAI's Responses API: its own wire format, answered with what the stand-in would say to the same chat request.

Source: OpenAI's reference of Responses and of their streaming events, November 2026.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local.standin_answers import Call, Said, fragments, prompt_tokens, say
from local.standin_behaviour import Behaviour
from local.standin_responses_request import as_chat, responses_request
from local.standin_wire import Answer, Asked, Stream, Whole, encode

if TYPE_CHECKING:
    from local.standin_openai import OpenAI

THOUGHT = "**Thinking** of an answer, so I shall give one."
ENCRYPTED = "gAAAA" + base64.b64encode(THOUGHT.encode()).decode()
_DEFAULTS: Mapping[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def respond(dialect: OpenAI, asked: Asked, behaviour: Behaviour) -> Answer:
    """Answers `POST /v1/responses`. Raises Refusal."""
    dialect.authorize(asked, behaviour)
    request = responses_request(asked)
    model = dialect.model(asked, request, behaviour)
    chat = as_chat(request)
    dialect.inspect(chat)
    said = dialect.censor(chat, say(asked.standin, model, chat, behaviour))
    response = _Response(f"{asked.number:048x}", model, request, said, prompt_tokens(chat["messages"]), behaviour)
    return response.streamed() if request.get("stream") else response.whole()


@dataclass(frozen=True, slots=True)
class _Response:
    """A response before it is written down."""

    id: str
    model: str
    request: Mapping[str, Any]
    said: Said
    read: int  # tokens
    behaviour: Behaviour

    def whole(self) -> Whole:
        """In one piece."""
        return Whole(200, encode(self._ended()), tokens=self.said.length)

    def streamed(self) -> Stream:
        """As events, each numbered and named for its type."""
        head = self._head()
        events = [{"type": kind, "response": head} for kind in ("response.created", "response.in_progress")]
        events += self._item_events()
        ended = self._ended()
        events.append({"type": f"response.{ended['status']}", "response": ended})
        written = tuple(_event({**event, "sequence_number": number}) for number, event in enumerate(events))
        return Stream(written[:2], written[2:-1], written[-1:])

    def _head(self) -> dict[str, Any]:
        echoed = {name: self.request.get(name, default) for name, default in _DEFAULTS.items()}
        known = {"id": f"resp_{self.id}", "object": "response", "created_at": int(time.time())}
        nothing: dict[str, Any] = {"error": None, "incomplete_details": None, "output": [], "usage": None}
        return {**known, "status": "in_progress", "model": self.model, **echoed, **nothing}

    def _ended(self) -> dict[str, Any]:
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(self.said.finish)
        details = {"reason": reason} if reason else None
        status = "incomplete" if reason else "completed"
        return {
            **self._head(),
            "status": status,
            "completed_at": int(time.time()),
            "incomplete_details": details,
            "output": list(self._output()),
            "usage": self._usage(),
        }

    def _usage(self) -> dict[str, Any]:
        read, thought = max(self.read, self.behaviour.cached_tokens), self.behaviour.reasoning_tokens
        written = self.said.length + thought
        return {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": self.behaviour.cached_tokens},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": thought},
            "total_tokens": read + written,
        }

    def _output(self) -> Iterator[dict[str, Any]]:
        if self.behaviour.reasoning_tokens:
            encrypted = "reasoning.encrypted_content" in (self.request.get("include") or ())
            sealed = {"encrypted_content": ENCRYPTED} if encrypted else {}
            yield {"id": f"rs_{self.id}", "type": "reasoning", "summary": [], **sealed}
        for place, call in enumerate(self.said.calls):
            yield _call_item(f"fc_{self.id}{place}", call)
        if not self.said.calls:
            part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "".join(self.said.tokens)}
            known = {"id": f"msg_{self.id}", "type": "message", "status": "completed", "role": "assistant"}
            yield {**known, "content": [part]}

    def _item_events(self) -> Iterator[dict[str, Any]]:
        for place, item in enumerate(self._output()):
            begun: dict[str, Any] = {"status": "in_progress"} if "status" in item else {}
            begun |= {name: type(item[name])() for name in ("content", "arguments") if name in item}
            yield {"type": "response.output_item.added", "output_index": place, "item": {**item, **begun}}
            about = {"item_id": item["id"], "output_index": place}
            if item["type"] == "message":
                yield from self._text_events(about, item["content"][0])
            elif item["type"] == "function_call":
                for piece in fragments(item["arguments"]):
                    yield {"type": "response.function_call_arguments.delta", **about, "delta": piece}
                done = {"arguments": item["arguments"]}
                yield {"type": "response.function_call_arguments.done", **about, **done}
            yield {"type": "response.output_item.done", "output_index": place, "item": item}

    def _text_events(self, about: Mapping[str, Any], part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        about = {**about, "content_index": 0}
        yield {"type": "response.content_part.added", **about, "part": {**part, "text": ""}}
        for token in self.said.tokens:
            yield {"type": "response.output_text.delta", **about, "delta": token, "logprobs": [], "obfuscation": "x"}
        yield {"type": "response.output_text.done", **about, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **about, "part": part}


def _call_item(item_id: str, call: Call) -> dict[str, Any]:
    told = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
    return {"id": item_id, "type": "function_call", "status": "completed", **told}


def _event(document: Mapping[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (str(document["type"]).encode(), encode(document))
