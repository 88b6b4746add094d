"""A request to OpenAI's Responses API as a chat completions request.

What chat completions cannot say (tools that run at the provider, files by reference, items of other kinds) is noted,
for a target that speaks Responses itself may take it; so is what refers to a provider's store. What only nudges the
answer is left out and named. Source: OpenAI's reference of Responses, November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from routing.dialects import Draft, Translated
from routing.reading import maybe, member, objects, refused
from routing.responses_content import Items
from routing.wire import Hints, Wire, validated

Fields = Mapping[str, Any]

_SAME = (
    "parallel_tool_calls",
    "prompt_cache_key",
    "router",
    "safety_identifier",
    "service_tier",
    "stream",
    "temperature",
    "top_p",
    "user",
)
_STORED = ("previous_response_id", "conversation", "prompt")
_BEYOND = ("moderation",)
# Field -> the values that ask for nothing; `metadata` comes back with the response, which is all that it does.
_LEFT_OUT: Mapping[str, tuple[Any, ...]] = {
    "access_programs": ({},),
    "background": (False,),
    "include": ([], ["reasoning.encrypted_content"]),
    "max_tool_calls": (),
    "metadata": (),
    "store": (False,),
    "stream_options": ({}, {"include_obfuscation": False}),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
_DEALT_WITH = frozenset(
    {
        "input",
        "instructions",
        "max_output_tokens",
        "metadata",
        "model",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
        *_SAME,
        *_STORED,
        *_BEYOND,
    }
)
_TOOL_FIELDS = frozenset({"type", "name", "description", "parameters", "strict"})


class ResponsesRequest(Wire):
    """`POST /v1/responses`, as deep as the router reads it by type."""

    model: str = Field(min_length=1)
    stream: bool | None = None
    background: bool | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    parallel_tool_calls: bool | None = None
    temperature: float | None = Field(default=None, strict=False)
    top_p: float | None = Field(default=None, strict=False)
    instructions: str | list[Any] | None = None
    metadata: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    router: Hints | None = None


def as_chat(fields: Fields) -> Translated:
    """The chat request that says the same. Raises InvalidRequest with the path of what is wrong."""
    validated(ResponsesRequest.model_validate, fields)
    if fields.get("background"):
        why = "answers are not kept here to be fetched later: leave it out, and stream long answers"
        raise refused("background", why, "unsupported_parameter")
    draft = Draft({"model": fields["model"]})
    draft.stored = next((name for name in _STORED if fields.get(name)), None)
    draft.fields["messages"] = _conversation(draft, fields)
    draft.fields |= {name: fields[name] for name in _SAME if fields.get(name) is not None}
    if limit := fields.get("max_output_tokens"):
        draft.fields["max_completion_tokens"] = limit
    for carry in (_reasoning, _text, _tools):
        carry(draft, fields)
    for name in _BEYOND:
        if fields.get(name):
            draft.cannot_say(name)
    draft.dropped.extend(_left_out(fields))
    return draft.finished()


def _left_out(fields: Fields) -> list[str]:
    return [
        name
        for name, value in fields.items()
        if name not in _DEALT_WITH and value is not None and value not in _LEFT_OUT.get(name, ())
    ]


def _conversation(draft: Draft, fields: Fields) -> list[dict[str, Any]]:
    items = Items(draft, continued=draft.stored is not None)
    if instructions := fields.get("instructions"):
        items.take_text("system", "instructions", instructions)
    given = fields.get("input")
    if isinstance(given, str):
        items.take_text("user", "input", given)
    elif given is None and draft.stored is None:
        raise refused("input", "is missing")
    else:
        for item, path in objects(fields, "input"):
            items.take(item, path)
    return items.finished()


def _reasoning(draft: Draft, fields: Fields) -> None:
    reasoning = fields.get("reasoning") or {}
    if effort := maybe(reasoning, "effort", str, "reasoning"):
        draft.fields["reasoning_effort"] = effort
    kept = ("effort", "summary", "generate_summary")  # a summary is given where there is one
    draft.dropped.extend(f"reasoning.{name}" for name, value in reasoning.items() if name not in kept and value)


def _text(draft: Draft, fields: Fields) -> None:
    text = fields.get("text") or {}
    if verbosity := text.get("verbosity"):
        draft.fields["verbosity"] = verbosity
    wanted = maybe(text, "format", dict, "text") or {"type": "text"}
    match wanted.get("type"):
        case "text":
            pass
        case "json_object":
            draft.fields["response_format"] = {"type": "json_object"}
        case "json_schema":
            described = {name: value for name, value in wanted.items() if name != "type"}
            described["schema"] = member(wanted, "schema", dict, "text.format")
            described["name"] = member(wanted, "name", str, "text.format")
            draft.fields["response_format"] = {"type": "json_schema", "json_schema": described}
        case _:
            raise refused("text.format.type", "should be text, json_object or json_schema")


def _tools(draft: Draft, fields: Fields) -> None:
    tools, names = [], set()
    for tool, path in objects(fields, "tools"):
        if member(tool, "type", str, path) != "function":
            draft.cannot_say(f"{path}.type")
            continue
        names.add(member(tool, "name", str, path))
        maybe(tool, "parameters", dict, path)
        given = ("name", "description", "parameters", "strict")
        function = {name: tool[name] for name in given if tool.get(name) is not None}
        tools.append({"type": "function", "function": function})
        draft.dropped.extend(f"tools[].{name}" for name in tool if name not in _TOOL_FIELDS and tool[name])
    if tools:
        draft.fields["tools"] = tools
    _tool_choice(draft, fields, names)


def _tool_choice(draft: Draft, fields: Fields, names: set[str]) -> None:
    choice = fields.get("tool_choice")
    if choice is None or (choice in ("auto", "none") and not names):
        return
    if choice in ("auto", "none", "required"):
        if not fields.get("tools"):
            raise refused("tool_choice", "wants a tool to be called, but there are no tools")
        draft.fields["tool_choice"] = choice
    elif isinstance(choice, dict) and choice.get("type") == "function":
        name = member(choice, "name", str, "tool_choice")
        if name not in names:
            raise refused("tool_choice.name", "names a tool that is not among the tools")
        draft.fields["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        _allowed_tools(draft, choice)
    elif isinstance(choice, dict):
        draft.cannot_say("tool_choice.type")
    else:
        raise refused("tool_choice", "should be none, auto, required, or an object")


def _allowed_tools(draft: Draft, choice: Mapping[str, Any]) -> None:
    among = []
    for tool, path in objects(choice, "tools", "tool_choice"):
        if tool.get("type") != "function":
            draft.cannot_say(f"{path}.type")
            continue
        among.append({"type": "function", "function": {"name": member(tool, "name", str, path)}})
    allowed = {"mode": choice.get("mode", "auto"), "tools": among}
    draft.fields["tool_choice"] = {"type": "allowed_tools", "allowed_tools": allowed}
