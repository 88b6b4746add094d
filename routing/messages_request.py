"""A request to Anthropic's Messages API as a chat completions request.

What chat completions cannot say (tools that run at the provider, documents by reference) is noted, for a target that
speaks Messages itself may take it; what only nudges the answer is left out and named.
Source: the Messages API reference, November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from routing.dialects import Draft, Translated
from routing.messages_content import Turns
from routing.reading import maybe, member, objects, refused
from routing.wire import Hints, Wire, validated

Fields = Mapping[str, Any]

_EFFORT = {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"}
_TOOL_FIELDS = frozenset({"type", "name", "description", "input_schema", "strict"})
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_LONGEST_USER = 64  # characters that OpenAI takes of an end user's id
_BEYOND = ("container", "inference_geo", "mcp_servers")  # where the answer is made is no nudge
_DEALT_WITH = frozenset(
    {
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "router",
        "service_tier",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_p",
        *_BEYOND,
    }
)


class Turn(Wire):
    role: Literal["user", "assistant", "system"]


class Countable(Wire):
    """`POST /v1/messages/count_tokens`, as deep as the router reads it by type."""

    model: str = Field(min_length=1)
    messages: list[Turn] = Field(min_length=1)
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = Field(default=None, strict=False)
    top_p: float | None = Field(default=None, strict=False)
    router: Hints | None = None


class MessagesRequest(Countable):
    """`POST /v1/messages`."""

    max_tokens: int = Field(ge=1)


def as_chat(fields: Fields, shape: type[Countable] = MessagesRequest) -> Translated:
    """The chat request that says the same. Raises InvalidRequest with the path of what is wrong."""
    validated(shape.model_validate, fields)
    draft = Draft({"model": fields["model"]})
    turns = Turns(draft)
    turns.system(fields)
    for message, path in objects(fields, "messages"):
        turns.take(message, path)
    draft.fields["messages"] = turns.finished()
    for carry in _STEPS:
        carry(draft, fields)
    for name in _BEYOND:
        if fields.get(name):
            draft.cannot_say(name)
    draft.dropped.extend(name for name, value in fields.items() if name not in _DEALT_WITH and value is not None)
    return draft.finished()


def _plain(draft: Draft, fields: Fields) -> None:
    for name in ("stream", "temperature", "top_p", "router"):
        if fields.get(name) is not None:
            draft.fields[name] = fields[name]
    if limit := fields.get("max_tokens"):
        draft.fields["max_completion_tokens"] = limit
    if stops := fields.get("stop_sequences"):
        draft.fields["stop"] = stops
    if fields.get("service_tier") == "standard_only":
        draft.dropped.append("service_tier")


def _user(draft: Draft, fields: Fields) -> None:
    user = maybe(maybe(fields, "metadata", dict) or {}, "user_id", str, "metadata")
    if user and len(user) <= _LONGEST_USER:
        draft.fields["user"] = user
    elif user:
        draft.dropped.append("metadata.user_id")


def _thinking(draft: Draft, fields: Fields) -> None:
    """Effort is the same thing everywhere; how thinking is shown, and its budget, are Anthropic's own."""
    effort = maybe(maybe(fields, "output_config", dict) or {}, "effort", str, "output_config")
    if effort is not None:
        if effort not in _EFFORT:
            raise refused("output_config.effort", f"should be one of {', '.join(_EFFORT)}")
        draft.fields["reasoning_effort"] = _EFFORT[effort]
    if (maybe(fields, "thinking", dict) or {}).get("type", "disabled") != "disabled":
        draft.dropped.append("thinking")


def _format(draft: Draft, fields: Fields) -> None:
    config = maybe(fields, "output_config", dict) or {}
    name, holder = ("output_config.format", config.get("format")) if config.get("format") else ("output_format", None)
    wanted = holder or fields.get("output_format")
    if wanted is None:
        return
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        raise refused(f"{name}.type", "should be json_schema")
    schema = {"name": "output", "schema": member(wanted, "schema", dict, name), "strict": True}
    draft.fields["response_format"] = {"type": "json_schema", "json_schema": schema}


def _tools(draft: Draft, fields: Fields) -> None:
    tools, names = [], set()
    for tool, path in objects(fields, "tools"):
        if tool.get("type") not in (None, "custom"):
            draft.cannot_say(f"{path}.type")  # it runs at the provider, or has a form that only its models know
            continue
        names.add(member(tool, "name", str, path))
        function = {"name": tool["name"], "parameters": member(tool, "input_schema", dict, path)}
        function |= {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
        tools.append({"type": "function", "function": function})
        draft.dropped.extend(f"tools[].{name}" for name in tool if name not in _TOOL_FIELDS and tool[name] is not None)
    if tools:
        draft.fields["tools"] = tools
        _tool_choice(draft, fields, names)
    elif (maybe(fields, "tool_choice", dict) or {}).get("type") in ("any", "tool") and not fields.get("tools"):
        raise refused("tool_choice", "wants a tool to be called, but there are no tools")


def _tool_choice(draft: Draft, fields: Fields, names: set[str]) -> None:
    choice = maybe(fields, "tool_choice", dict)
    if choice is None:
        return
    kind = member(choice, "type", str, "tool_choice")
    if kind == "tool":
        name = member(choice, "name", str, "tool_choice")
        if name not in names and draft.beyond is None:
            raise refused("tool_choice.name", "names a tool that is not among the tools")
        draft.fields["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif kind in _CHOICES:
        draft.fields["tool_choice"] = _CHOICES[kind]
    else:
        raise refused("tool_choice.type", "should be auto, any, tool or none")
    if choice.get("disable_parallel_tool_use"):
        draft.fields["parallel_tool_calls"] = False


_STEPS: tuple[Callable[[Draft, Fields], None], ...] = (_plain, _user, _thinking, _format, _tools)
