"""What a stand-in says: plain text, a JSON instance or tool calls, the same for the same request."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from local.standin_behaviour import Behaviour
from local.standin_schema import instance

_TOKEN = re.compile(r"\s*\S{1,10}|\s+")
_FILLER = (" and", " so", " on,", " as", " long", " as", " asked;")


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call; `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Said:
    """One choice. `tokens` joined are its text; with `calls` there is no text."""

    tokens: tuple[str, ...]
    finish: str
    calls: tuple[Call, ...] = ()

    @property
    def length(self) -> int:
        """Tokens said, a call's arguments included."""
        return len(self.tokens) + sum(len(fragments(call.arguments)) for call in self.calls)


def say(standin: str, model: str, request: Mapping[str, Any], behaviour: Behaviour) -> Said:
    """The answer to a chat request that has been checked."""
    if calls := _calls(request):
        return Said((), "tool_calls", calls)
    tokens = fragments(_text(standin, model, request))
    if behaviour.tokens is not None and not request.get("response_format"):
        tokens = (*tokens, *islice(cycle(_FILLER), max(0, behaviour.tokens - len(tokens))))[: behaviour.tokens]
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    if limit and limit < len(tokens):
        return Said(tokens[:limit], "length")
    return Said(tokens, "stop")


def fragments(text: str) -> tuple[str, ...]:
    """`text` cut into what counts as tokens here: words of at most ten characters with the space before them."""
    return tuple(_TOKEN.findall(text))


def content_text(content: object) -> str:
    """The text of a message's content, be it a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the user said last, or nothing."""
    return next((content_text(m.get("content")) for m in reversed(messages) if m["role"] == "user"), "")


def prompt_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """About four characters each, and four for each message's frame."""
    return sum(4 + (len(content_text(message.get("content"))) + 3) // 4 for message in messages)


def _text(standin: str, model: str, request: Mapping[str, Any]) -> str:
    messages = request["messages"]
    asked = request.get("response_format") or {}
    if asked.get("type") == "json_schema":
        return json.dumps(instance(asked["json_schema"].get("schema", {})))
    heard = content_text(messages[-1].get("content")) if messages[-1]["role"] == "tool" else last_user_text(messages)
    text = f"{standin} ({model}) heard: {heard}"
    return json.dumps({"answer": text}) if asked.get("type") == "json_object" else text


def _calls(request: Mapping[str, Any]) -> tuple[Call, ...]:
    functions = {t["function"]["name"]: t["function"] for t in request.get("tools") or () if t["type"] == "function"}
    wanted = _wanted(tuple(functions), request)
    if request.get("parallel_tool_calls") is False:
        wanted = wanted[:1]
    return tuple(
        Call(f"call_{place:024d}", name, json.dumps(instance(functions[name].get("parameters", {}))))
        for place, name in enumerate(wanted, start=1)
    )


def _wanted(names: tuple[str, ...], request: Mapping[str, Any]) -> tuple[str, ...]:
    """The tools to call: the chosen one, those the user names, all for "tools", the first for "tool" or `required`."""
    choice, messages = request.get("tool_choice", "auto"), request["messages"]
    if not names or choice == "none" or messages[-1]["role"] == "tool":
        return ()
    if isinstance(choice, dict):
        chosen = choice.get("function", {}).get("name")
        return (chosen,) if chosen in names else names[:1]
    heard = last_user_text(messages)
    if named := tuple(name for name in names if re.search(rf"\b{re.escape(name)}\b", heard)):
        return named
    if re.search(r"\btools\b", heard):
        return names
    return names[:1] if choice == "required" or re.search(r"\btool\b", heard) else ()
