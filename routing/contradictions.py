"""Where a chat request contradicts itself: what every provider refuses, or what can only be a mistake.

Reads the request's JSON after its types were checked, so only what no check of types finds is looked for here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Wrong:
    """A place in the request, and what is wrong there."""

    path: str
    reason: str


def contradiction(fields: Mapping[str, Any]) -> Wrong | None:
    """The first contradiction in a request."""
    return next(_all(fields), None)


def _all(fields: Mapping[str, Any]) -> Iterator[Wrong]:
    yield from _two_limits(fields)
    yield from _options_of_no_stream(fields)
    yield from _chosen_tool(fields)
    yield from _schema(fields.get("response_format"))
    yield from _results_without_calls(fields.get("messages"))


def _two_limits(fields: Mapping[str, Any]) -> Iterator[Wrong]:
    old, new = fields.get("max_tokens"), fields.get("max_completion_tokens")
    if old is not None and new is not None and old != new:
        yield Wrong("max_tokens", f"is {old} and max_completion_tokens {new}; keep one of them")


def _options_of_no_stream(fields: Mapping[str, Any]) -> Iterator[Wrong]:
    if fields.get("stream_options") is not None and not fields.get("stream"):
        yield Wrong("stream_options", "is only for requests with stream = true")


def _chosen_tool(fields: Mapping[str, Any]) -> Iterator[Wrong]:
    """A tool that must be called and is not there. Forms of the choice that are unknown here pass."""
    choice, tools = fields.get("tool_choice"), fields.get("tools")
    if not tools and choice == "required":
        yield Wrong("tool_choice", "wants a tool to be called, but there are no tools")
    if not isinstance(choice, dict) or not isinstance(kind := choice.get("type"), str):
        return
    chosen = choice.get(kind)
    name = chosen.get("name") if isinstance(chosen, dict) else None
    if kind in ("function", "custom") and isinstance(name, str) and name not in set(_names(tools, kind)):
        yield Wrong(f"tool_choice.{kind}.name", "names a tool that is not among the tools")


def _names(tools: Any, kind: str) -> Iterator[str]:
    for tool in _listed(tools):
        described = tool.get(kind) if isinstance(tool, dict) else None
        if isinstance(described, dict) and isinstance(name := described.get("name"), str):
            yield name


def _schema(wanted: Any) -> Iterator[Wrong]:
    """A JSON schema that is asked for and not given, neither as OpenAI nor (beside the type) as llama.cpp has it."""
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema" or isinstance(wanted.get("schema"), dict):
        return
    described = wanted.get("json_schema")
    if not isinstance(described, dict):
        yield Wrong("response_format.json_schema", "is missing")
    elif not isinstance(described.get("schema"), dict):
        yield Wrong("response_format.json_schema.schema", "is missing")


def _results_without_calls(messages: Any) -> Iterator[Wrong]:
    """Results of tool calls that no assistant message before them made."""
    called: set[str] = set()
    for place, message in enumerate(_listed(messages)):
        if not isinstance(message, dict):
            return
        if message.get("role") == "assistant":
            called.update(_call_ids(message))
        if message.get("role") == "tool":
            wanted = message.get("tool_call_id")
            if not isinstance(wanted, str):
                yield Wrong(f"messages[{place}].tool_call_id", "is missing")
            elif wanted not in called:
                yield Wrong(f"messages[{place}].tool_call_id", "answers a call that no assistant message made before")


def _call_ids(message: Mapping[str, Any]) -> Iterator[str]:
    for call in _listed(message.get("tool_calls")):
        if isinstance(call, dict) and isinstance(name := call.get("id"), str):
            yield name


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
